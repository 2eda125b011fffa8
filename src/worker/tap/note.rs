//! One packet's way through the stages, as a trace keeps it.

use crate::flow::FlowState;
use crate::packet::{DropReason, Tuple};
use crate::rules::{RuleHandle, Verdict};

use crate::worker::note::MOST_SHADOWS;

/// Bytes kept of a frame: enough for the headers of a tunnel in a tunnel.
pub const HEAD_BYTES: usize = 256;

/// What the flow table said of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowSight {
    /// No IP header, or never looked up.
    #[default]
    None,
    /// First packet of a flow.
    New,
    Known,
    /// The table was full: judged without a flow.
    TableFull,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// By this port.
    Sent(u16),
    Dropped(DropReason),
    /// Neither; no stage does this yet.
    #[default]
    Consumed,
}

/// A packet's way. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct TraceNote {
    pub worker: u16,
    /// Port it came in by, see [`TapSet::ports`](super::TapSet::ports).
    pub port: u16,
    /// Where it would leave, if its port has a pair.
    pub pair: Option<u16>,
    pub received_ns: u64,
    /// When the device had been offered the burst; as `received_ns` in a replay, which knows no other time.
    pub done_ns: u64,
    /// Frame number in a capture; 0 live.
    pub index: u64,
    pub wire_len: u32,
    pub captured_len: u32,
    /// The first bytes of the frame, as many as there are.
    pub head: [u8; HEAD_BYTES],
    pub head_len: u16,
    /// Another worker received it and handed it over.
    pub handed_over: bool,
    pub flow: FlowSight,
    pub flow_id: u64,
    pub flow_state: FlowState,
    /// As an index of the flow's arrays.
    pub direction: u8,
    /// What the rules saw; version 0 without IP.
    pub tuple: Tuple,
    /// `None` when it was dropped before it could be judged.
    pub verdict: Option<Verdict>,
    /// The verdict was the flow's, from an earlier packet.
    pub cached: bool,
    /// The first shadow-mode rules that would have decided; `DEFAULT` where there are fewer.
    pub shadows: [RuleHandle; MOST_SHADOWS],
    /// Mirror sessions, as bits of the verdict's generation.
    pub mirrors: Copies,
    /// The sender of a rejected packet was told by the port it came in by.
    pub answered: bool,
    pub fate: Fate,
}

/// What became of a packet's mirror copies: sets of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Chose the packet by group, direction, filter and flow.
    pub wanted: u64,
    /// Of these, took it after counting packets.
    pub selected: u64,
    /// Of these, got a copy into the queue of their port.
    pub copied: u64,
    /// No buffer for the copy.
    pub no_buffer: u64,
    /// Beyond what the session may send, or larger than the way to its collector takes.
    pub limited: u64,
    /// Seen elsewhere a moment ago.
    pub duplicate: u64,
    /// The port was down.
    pub link_down: u64,
    /// The collector's next hop was not known, or it failed its health checks.
    pub unreachable: u64,
    /// Of those copied, did not leave because the port's queue was full.
    pub queue_full: u64,
}
