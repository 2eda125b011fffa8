//! Mirror sessions and their sampler.
mod session;

pub use session::{Sample, Session};
