//! Captures and traces of the running appliance, outside of the workers.
//!
//! - **In**: what somebody wants to see, from the control socket or a replay; then, from each worker's
//!   [taps](crate::worker::tap), capture records and trace notes.
//! - **Out**: a published [`TapSet`](crate::worker::tap::TapSet); records as a stream of bytes ([`wire`]) for one client;
//!   notes as [`Way`]s, the JSON and text of a packet's way through the stages.
//! - **Runs on**: the control threads. Workers only ever see a new set published.
//! - **When full**: see the workers' taps; what they could not keep is told at the end, exactly.
//!
//! ```text
//!  gnomon capture ── socket ── CaptureTap ──┐           ┌── ring ◄── worker
//!  gnomon trace ──── socket ── TapHost ─────┴─ publish ─┴── notes ◄─ worker
//! ```
//! A capture ends with its client: the tap is removed when [`CaptureTap`] is dropped. A trace stays until it is removed.

mod capture;
mod file;
mod host;
mod line;
mod trace;
pub mod verbs;
mod way;
pub mod wire;

pub use capture::{CaptureTap, Drained};
pub use file::{CaptureBegin, Decoder, Lines, Outlet, PcapngFiles, Rotation};
pub use host::{CaptureSpec, Chosen, TapError, TapHost, TapNames};
pub use line::summary;
pub use trace::{Numbered, TraceInfo, TraceSpec};
pub use way::{Way, way};
