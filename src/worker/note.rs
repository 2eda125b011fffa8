//! What a worker says of one packet when asked to (`gnomon replay --packets`).

use crate::packet::{DropReason, Tuple};
use crate::rules::{Decision, RuleHandle};

/// Shadow-mode rules that a note names.
pub const MOST_SHADOWS: usize = 8;

/// One packet's way through the stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketNote {
    /// Frame number in the capture.
    pub index: u64,
    /// Tuple the rules saw, with a fragment's ports filled in; version 0 when there was no IP.
    pub tuple: Tuple,
    pub flow_id: u64,
    pub decision: Decision,
    pub rule: RuleHandle,
    /// The first shadow-mode rules that would have decided; `DEFAULT` where there are fewer.
    pub shadows: [RuleHandle; MOST_SHADOWS],
    pub generation: u32,
    /// Mirror sessions that took a copy.
    pub mirrors: u64,
    pub dropped: Option<DropReason>,
}
