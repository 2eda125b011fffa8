//! A mirror session as the data path needs it.

use super::delivery::Delivery;

/// How much of what a session selects is copied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    /// Every n-th packet, counted per worker (1 = all).
    Packets(u32),
    /// This share of flows, both directions together: 0.0..=1.0. The same flows at every box with the
    /// same seed.
    Flows(f64),
}

/// One mirror session. Its position in the configuration is its bit in
/// [`Verdict::mirrors`](crate::rules::Verdict::mirrors); what it selects is compiled with the rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    pub name: String,
    /// Index of the mirror port in the configuration's port list.
    pub port: usize,
    pub sample: Sample,
    /// Lower first when several sessions take one packet.
    pub priority: u32,
    pub delivery: Delivery,
}
