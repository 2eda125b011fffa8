//! Mirror sessions: which packets are copied, and how the copies travel.
//!
//! - **In**: the sessions that a verdict selects (`Verdict::mirrors`), the flow's key.
//! - **Out**: the sessions that get a copy of this very packet, and the order in which to serve them; for copies to a
//!   collector the header to put before them.
//! - **Runs on**: the worker's lcore; one [`Sampler`] and one [`Meter`] a session per worker, nothing shared.
//! - **When full**: nothing is held here. A copy that finds no buffer or no room in the mirror queue, or is beyond its
//!   session's cap or the MTU, is not made and is counted in the worker's counters.
pub mod control;
mod delivery;
pub mod hops;
mod mask;
mod pool;
mod receipts;
mod sampler;
mod seen;
mod session;
mod watch;
pub mod wrap;

pub use delivery::{Cap, Delivery, Meter, Oversize, Slice, Wrap};
pub use mask::{MASKED, Mask, Pattern};
pub use pool::Pool;
pub use receipts::{Account, Receipts};
pub use sampler::Sampler;
pub use seen::Seen;
pub use session::{Head, Only, Rate, Sample, Session};
pub use watch::{CLASSES, Party, Regard, Watchlist, fraction};
