//! One bidirectional flow, or an interim slice of it, as handed to the scorer and the exports.

use crate::packet::Tuple;
use crate::rules::{Decision, GroupSetHandle, RuleHandle, Tier};

/// Connection state when the record was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// First packet seen; for TCP before the handshake is complete.
    #[default]
    New,
    /// TCP: SYN, SYN+ACK and ACK seen, or acknowledgements both ways when picked up in mid-stream.
    /// Others: packets seen both ways.
    Established,
    /// TCP: one FIN seen on an established connection.
    Closing,
    /// TCP: both FINs or a RST seen.
    Closed,
}

impl FlowState {
    pub const ALL: [FlowState; 4] = [FlowState::New, FlowState::Established, FlowState::Closing, FlowState::Closed];

    pub fn name(self) -> &'static str {
        match self {
            FlowState::New => "new",
            FlowState::Established => "established",
            FlowState::Closing => "closing",
            FlowState::Closed => "closed",
        }
    }
}

/// Why the record was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EndReason {
    #[default]
    Idle,
    /// Interim slice of a long flow.
    Active,
    Fin,
    Rst,
    /// Its place was needed.
    Evicted,
    /// The appliance stopped, the capture ended, or new rules no longer allow the flow.
    Forced,
}

impl EndReason {
    pub const ALL: [EndReason; 6] =
        [EndReason::Idle, EndReason::Active, EndReason::Fin, EndReason::Rst, EndReason::Evicted, EndReason::Forced];

    pub fn name(self) -> &'static str {
        match self {
            EndReason::Idle => "idle",
            EndReason::Active => "active",
            EndReason::Fin => "fin",
            EndReason::Rst => "rst",
            EndReason::Evicted => "evicted",
            EndReason::Forced => "forced",
        }
    }
}

/// Index into the per-direction arrays.
pub const TO_SERVER: usize = 0;
pub const TO_CLIENT: usize = 1;

/// Times are nanoseconds since the Unix epoch. Arrays are `[to server, to client]`; the initiator is
/// the source of `tuple`: who sent the SYN; else by the ports the client; else who sent the first packet. Times of packets, counters, flags, mirrors and packet sizes are those of
/// the slice; `flow_id` joins the slices of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FlowRecord {
    pub flow_id: u64,
    pub tuple: Tuple,
    /// No SYN was seen, and by the ports the source, the client, did not send the first packet.
    pub turned: bool,
    /// First and last packet of the slice; both the flow's last packet when the slice has none.
    pub start: u64,
    pub end: u64,
    /// When the time-out or state change behind `reason` happened, in flow time. Records sort by
    /// (`emitted`, `start`, `flow_id`).
    pub emitted: u64,
    pub packets: [u64; 2],
    /// Frame lengths as received, link header included.
    pub bytes: [u64; 2],
    pub payload_bytes: [u64; 2],
    pub tcp_flags: [u8; 2],
    /// Type and code of the first packet when ICMP or ICMPv6.
    pub icmp: (u8, u8),
    pub state: FlowState,
    pub reason: EndReason,
    pub rule: RuleHandle,
    pub tier: Tier,
    pub decision: Decision,
    pub generation: u32,
    pub src_groups: GroupSetHandle,
    pub dst_groups: GroupSetHandle,
    /// Mirror sessions that selected the flow, either direction.
    pub mirrors: u64,
    /// Largest share of flows that adaptive mirror sessions had to take at least while they selected this one, 0..=1 as
    /// 0..=65535.
    pub raised: u16,
    /// The part of their own share that these gave up for the budget at most meanwhile, likewise.
    pub cut: u16,
    /// It went to a honeypot instead of its destination.
    pub diverted: bool,
    /// Frame lengths of both directions, in bytes.
    pub sizes: Spread,
    /// Time from each packet of the slice to the next, either direction, in nanoseconds; all zero below two packets.
    pub gaps: Spread,
    /// From the SYN to the ACK that completed the handshake, in nanoseconds, in every slice of the flow; `None` when
    /// the handshake was not seen.
    pub handshake_rtt: Option<u64>,
    /// TCP segments that carried bytes seen before, by sender.
    pub retransmissions: [u32; 2],
    /// TCP segments outside of the receiver's window, by sender.
    pub out_of_window: [u32; 2],
    /// ICMP errors about packets of the flow. They are packets of flows of their own, and in no other count of this one.
    pub icmp_errors: u32,
    /// Shannon entropy of the first payload bytes of each direction, in bits per byte, in every slice of the flow;
    /// `None` without payload.
    pub entropy: [Option<f32>; 2],
    /// The worker that saw the flow, and the number of this record among all that it made, lost ones too, from 0. A gap
    /// is what was lost.
    pub worker: u16,
    pub sequence: u64,
}

/// Least, greatest, mean and standard deviation (of the population) of some values; all zero when there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    pub min: u64,
    pub max: u64,
    pub mean: f64,
    pub sd: f64,
}

impl FlowRecord {
    /// Seen from the other end.
    #[must_use]
    pub fn turned(self) -> Self {
        let swap = |[one, other]: [u64; 2]| [other, one];
        let swap_small = |[one, other]: [u32; 2]| [other, one];
        Self {
            tuple: self.tuple.reversed(),
            turned: !self.turned,
            packets: swap(self.packets),
            bytes: swap(self.bytes),
            payload_bytes: swap(self.payload_bytes),
            tcp_flags: [self.tcp_flags[TO_CLIENT], self.tcp_flags[TO_SERVER]],
            src_groups: self.dst_groups,
            dst_groups: self.src_groups,
            retransmissions: swap_small(self.retransmissions),
            out_of_window: swap_small(self.out_of_window),
            entropy: [self.entropy[TO_CLIENT], self.entropy[TO_SERVER]],
            ..self
        }
    }

    /// From who sent the first packet. For those who ask who sends what, wanted or not.
    #[must_use]
    pub fn as_sent(&self) -> Self {
        if self.turned { self.turned() } else { *self }
    }

    /// True of the last record of a flow when no packet came after its last interim slice: it tells that the flow
    /// ended, and how, and of ICMP errors; there is nothing else in it to measure. True, too, of an interim slice that
    /// is made because so many errors came after the last packet.
    pub fn is_empty(&self) -> bool {
        self.packets == [0, 0]
    }
}
