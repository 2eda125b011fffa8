//! Mirror sessions and their sampler.
//!
//! - **In**: the sessions that a verdict selects (`Verdict::mirrors`), the flow's key.
//! - **Out**: the sessions that get a copy of this very packet, and the order in which to serve them.
//! - **Runs on**: the worker's lcore; one [`Sampler`] per worker, nothing shared.
//! - **When full**: the sampler holds nothing. A copy that finds no buffer or no room in the mirror queue is not made
//!   and is counted in the worker's counters.
mod sampler;
mod session;

pub use sampler::Sampler;
pub use session::{Sample, Session};
