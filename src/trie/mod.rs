//! Rows → an immutable search structure → the first row that each packet of a burst lies in.
//!
//! * In: [`Row`]s in order of rank, from the control thread; a [`Batch`] of packets' values from a worker.
//! * Out: the least rank for each packet. What a rank means is the caller's.
//! * Cores: [`Engine::build`] and [`Editor`] on a control thread; [`Engine::search`] on every worker, without allocation,
//!   lock or wait.
//! * When full: nothing is queued here. Rows that cannot be built leave the generation in force as it is.
//!
//! ```text
//!  rows ──► plan (which bits to look at) ──► tables and blocks in arenas ──► Engine, generation n
//!                                                │ commit: touched parts copied     │
//!                                                └──────────────────────────────► Engine, generation n + 1
//! ```
pub mod address;
mod arena;
mod block;
mod direct;
mod edit;
mod engine;
mod isa;
mod kernel;
mod plan;
mod row;
mod services;
mod small;
mod tree;

pub use edit::{Change, RebuildNeeded};
pub use engine::{BuildError, Editor, Engine, Found, Visit};
pub use isa::Isa;
pub use row::{BATCH, Batch, Key, Kind, NO_ROW, Ranges, Row, Service, Side, mask};

#[cfg(test)]
mod tests;
