//! What a worker tells the scorer beside flow records: what is in no record, and seldom.

use crate::packet::{Arp, Question, Tuple};

/// Observations that fit between each worker and the scorer.
pub const OBSERVATIONS: usize = 4096;

/// Something seen in one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Flow time.
    pub clock: u64,
    /// Frame number in the capture; 0 live.
    pub index: u64,
    /// Of ARP: only the segment.
    pub tuple: Tuple,
    /// 0 where there is no flow.
    pub flow_id: u64,
    pub what: Seen,
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Arp(Arp),
    /// A DNS query for a name that carries much.
    Question(Question),
}
