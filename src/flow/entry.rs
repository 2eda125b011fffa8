//! One live flow: counters of the current slice, state, cached verdicts.

use std::mem::offset_of;
use std::time::Duration;

use super::record::{EndReason, FlowRecord, FlowState, Spread, TO_CLIENT, TO_SERVER};
use crate::config::Timeouts;
use crate::packet::{FlowKey, Orientation, Tuple};
use crate::rules::Verdict;

/// What the flow table wants to know of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowPacket {
    pub tuple: Tuple,
    /// Nanoseconds since the Unix epoch; never less than that of the packet or sweep before.
    pub clock_ns: u64,
    /// Frame length as received, link header included.
    pub bytes: u32,
    pub payload_bytes: u32,
    pub tcp_flags: u8,
    /// Type and code when ICMP or ICMPv6.
    pub icmp: (u8, u8),
    /// No upper-layer header in this packet: `tcp_flags` and `icmp` mean nothing.
    pub later_fragment: bool,
}

/// A live flow. Per-direction arrays are `[to server, to client]`.
///
/// Four cache lines in order of use: finding and timing, counting, then what the worker caches.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct FlowEntry {
    key: FlowKey,
    last: u64,
    tcp_flags: [u8; 2],
    seen: [u8; 2],
    initiator: Orientation,
    state: FlowState,
    reset: bool,
    pub(super) live: bool,

    packets: [u64; 2],
    bytes: [u64; 2],
    payload_bytes: [u64; 2],
    slice_start: u64,
    min_packet: u32,
    max_packet: u32,

    /// Mirror sessions that may take packets of this flow, see `Sampler::flow_mask`; the worker's to keep.
    pub sampled: u64,
    mirrors: u64,
    verdicts: [Option<Verdict>; 2],
    start: u64,
    flow_id: u64,
    /// Links of the slab: the queue of disposable flows while live, the free list when not.
    pub(super) before: u32,
    pub(super) after: u32,
    /// Generation whose sessions `mirrors` are bits of.
    mirrors_of: u32,
    icmp: (u8, u8),
}

// Four cache lines; a million flows are 256 MB.
const _: () = assert!(size_of::<FlowEntry>() == 256);
const _: () = assert!(offset_of!(FlowEntry, packets) == 64 && offset_of!(FlowEntry, sampled) == 128);

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Bits of `FlowEntry::seen`, per sender, kept over slices.
const SEEN_ANY: u8 = 1;
const SEEN_SYN_ACK: u8 = 2;
/// Acknowledged without SYN: this side has completed its part of the handshake.
const SEEN_ACK: u8 = 4;
const SEEN_FIN: u8 = 8;

impl FlowPacket {
    fn is_tcp(&self) -> bool {
        self.tuple.protocol == PROTOCOL_TCP && !self.later_fragment
    }

    /// True of a SYN that asks for a new connection.
    pub(super) fn opens_connection(&self) -> bool {
        self.is_tcp() && self.tcp_flags & (SYN | ACK | RST) == SYN
    }

    fn answers_connection(&self) -> bool {
        self.is_tcp() && self.tcp_flags & (SYN | ACK | RST) == SYN | ACK
    }
}

impl FlowEntry {
    pub fn key(&self) -> &FlowKey {
        &self.key
    }

    /// The flow's tuple; its source is the initiator.
    pub fn tuple(&self) -> Tuple {
        self.key.tuple(self.initiator)
    }

    pub fn flow_id(&self) -> u64 {
        self.flow_id
    }

    pub fn state(&self) -> FlowState {
        self.state
    }

    /// Clock of the flow's first packet.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Clock of the flow's latest packet.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Packets of the current slice.
    pub fn packets(&self) -> [u64; 2] {
        self.packets
    }

    /// [`TO_SERVER`] or [`TO_CLIENT`] for a packet of this flow.
    pub fn direction(&self, way: Orientation) -> usize {
        if way == self.initiator { TO_SERVER } else { TO_CLIENT }
    }

    /// The cached verdict of a direction if it was made by this generation.
    pub fn verdict(&self, direction: usize, generation: u32) -> Option<&Verdict> {
        self.last_verdict(direction).filter(|v| v.generation == generation)
    }

    /// The latest verdict of a direction whatever its generation; `None` when not yet decided.
    pub fn last_verdict(&self, direction: usize) -> Option<&Verdict> {
        self.verdicts.get(direction).and_then(Option::as_ref)
    }

    pub fn set_verdict(&mut self, direction: usize, verdict: Verdict) {
        if let Some(slot) = self.verdicts.get_mut(direction) {
            *slot = Some(verdict);
        }
    }

    pub fn forget_verdict(&mut self, direction: usize) {
        if let Some(slot) = self.verdicts.get_mut(direction) {
            *slot = None;
        }
    }

    /// Adds to the mirror sessions of `generation` that took a packet in this slice. Those of an earlier generation
    /// are forgotten: their bits may stand for other sessions now.
    pub fn note_mirrored(&mut self, sessions: u64, generation: u32) {
        if self.mirrors_of != generation {
            self.mirrors_of = generation;
            self.mirrors = 0;
        }
        self.mirrors |= sessions;
    }

    /// Mirror sessions that took a packet in this slice.
    pub fn mirrored(&self) -> u64 {
        self.mirrors
    }

    /// The other end becomes the initiator.
    pub(super) fn flip_initiator(&mut self) {
        self.initiator = opposite(self.initiator);
        self.verdicts.swap(0, 1);
        self.packets.swap(0, 1);
        self.bytes.swap(0, 1);
        self.payload_bytes.swap(0, 1);
        self.tcp_flags.swap(0, 1);
        self.seen.swap(0, 1);
    }

    /// A flow that starts with this packet, which is not yet counted.
    pub(super) fn new(key: FlowKey, way: Orientation, packet: &FlowPacket, flow_id: u64) -> Self {
        Self {
            key,
            verdicts: [None; 2],
            packets: [0; 2],
            bytes: [0; 2],
            payload_bytes: [0; 2],
            start: packet.clock_ns,
            last: packet.clock_ns,
            slice_start: packet.clock_ns,
            flow_id,
            mirrors: 0,
            mirrors_of: 0,
            sampled: 0,
            min_packet: u32::MAX,
            max_packet: 0,
            before: 0,
            after: 0,
            tcp_flags: [0; 2],
            seen: [0; 2],
            icmp: if packet.later_fragment { (0, 0) } else { packet.icmp },
            initiator: if packet.answers_connection() { opposite(way) } else { way },
            state: FlowState::New,
            reset: false,
            live: true,
        }
    }

    /// Counts a packet and moves the state on.
    pub(super) fn count(&mut self, direction: usize, packet: &FlowPacket) {
        // A clock that goes back is the caller's mistake; it must not make a flow older than it is.
        let clock = packet.clock_ns.max(self.last);
        if self.slice_is_empty() {
            self.slice_start = clock;
        }
        self.last = clock;
        self.packets[direction] += 1;
        self.bytes[direction] += u64::from(packet.bytes);
        self.payload_bytes[direction] += u64::from(packet.payload_bytes);
        self.min_packet = self.min_packet.min(packet.bytes);
        self.max_packet = self.max_packet.max(packet.bytes);
        if packet.is_tcp() {
            self.tcp_flags[direction] |= packet.tcp_flags;
            self.advance_tcp(direction, packet.tcp_flags);
        } else if packet.tuple.protocol != PROTOCOL_TCP {
            self.seen[direction] |= SEEN_ANY;
            if self.seen[TO_SERVER] & self.seen[TO_CLIENT] & SEEN_ANY != 0 {
                self.state = FlowState::Established;
            }
        }
    }

    /// Sequence numbers are not followed: a forged RST shortens the flow's time-out, no more.
    fn advance_tcp(&mut self, direction: usize, flags: u8) {
        if self.state == FlowState::Closed {
            return;
        }
        if flags & RST != 0 {
            self.state = FlowState::Closed;
            self.reset = true;
            return;
        }
        let seen = &mut self.seen[direction];
        match flags & (SYN | ACK) {
            both if both == SYN | ACK => *seen |= SEEN_SYN_ACK,
            ACK => *seen |= SEEN_ACK,
            _ => {}
        }
        if flags & FIN != 0 {
            *seen |= SEEN_FIN;
        }
        let [one, other] = self.seen;
        let established = completes(one, other) || completes(other, one);
        self.state = if one & other & SEEN_FIN != 0 {
            FlowState::Closed
        } else if !established {
            // A lone FIN (a scan, or one direction of an asymmetric route) must not earn the long time-out.
            FlowState::New
        } else if (one | other) & SEEN_FIN != 0 {
            FlowState::Closing
        } else {
            FlowState::Established
        };
    }

    /// First to give way when the table is full: half-open, one-way or over.
    pub(super) fn is_disposable(&self) -> bool {
        matches!(self.state, FlowState::New | FlowState::Closed)
    }

    /// When the flow ends if no further packet comes.
    pub(super) fn ends_at(&self, times: &TimeoutsNs) -> u64 {
        self.last.saturating_add(times.of(self.protocol(), self.state))
    }

    /// When the current slice ends; `None` if it is empty or the flow ends first.
    pub(super) fn slice_ends_at(&self, times: &TimeoutsNs) -> Option<u64> {
        let at = self.slice_start.saturating_add(times.active);
        (!self.slice_is_empty() && at < self.ends_at(times)).then_some(at)
    }

    fn protocol(&self) -> u8 {
        self.key.tuple(Orientation::LowToHigh).protocol
    }

    fn slice_is_empty(&self) -> bool {
        self.packets == [0, 0]
    }

    /// Why the flow ends: a closed flow by what closed it, any other by what takes it out.
    pub(super) fn end_reason(&self, otherwise: EndReason) -> EndReason {
        match (self.state, self.reset) {
            (FlowState::Closed, true) => EndReason::Rst,
            (FlowState::Closed, false) => EndReason::Fin,
            _ => otherwise,
        }
    }

    pub(super) fn begin_slice(&mut self) {
        self.packets = [0; 2];
        self.bytes = [0; 2];
        self.payload_bytes = [0; 2];
        self.tcp_flags = [0; 2];
        self.min_packet = u32::MAX;
        self.max_packet = 0;
        self.mirrors = 0;
    }

    /// The current slice as a record.
    pub(super) fn record(&self, reason: EndReason, emitted: u64) -> FlowRecord {
        let empty = self.slice_is_empty();
        let verdict = self.deciding_verdict();
        FlowRecord {
            flow_id: self.flow_id,
            tuple: self.tuple(),
            start: if empty { self.last } else { self.slice_start },
            end: self.last,
            emitted,
            packets: self.packets,
            bytes: self.bytes,
            payload_bytes: self.payload_bytes,
            tcp_flags: self.tcp_flags,
            icmp: self.icmp,
            state: self.state,
            reason,
            rule: verdict.rule,
            tier: verdict.tier,
            decision: verdict.decision,
            generation: verdict.generation,
            src_groups: verdict.src_groups,
            dst_groups: verdict.dst_groups,
            mirrors: if self.mirrors_of == verdict.generation { self.mirrors } else { 0 },
            sizes: Spread {
                min: if empty { 0 } else { self.min_packet.into() },
                max: self.max_packet.into(),
                ..Spread::default()
            },
            ..FlowRecord::default()
        }
    }

    /// The verdict to server, else the one to client with its groups turned round.
    fn deciding_verdict(&self) -> Verdict {
        match self.verdicts {
            [Some(verdict), _] => verdict,
            [None, Some(verdict)] => {
                Verdict { src_groups: verdict.dst_groups, dst_groups: verdict.src_groups, ..verdict }
            }
            [None, None] => Verdict::default(),
        }
    }
}

fn completes(one: u8, other: u8) -> bool {
    one & SEEN_ACK != 0 && other & (SEEN_SYN_ACK | SEEN_ACK) != 0
}

fn opposite(way: Orientation) -> Orientation {
    match way {
        Orientation::LowToHigh => Orientation::HighToLow,
        Orientation::HighToLow => Orientation::LowToHigh,
    }
}

/// [`Timeouts`] in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeoutsNs {
    pub(super) opening: u64,
    established: u64,
    closed: u64,
    udp: u64,
    icmp: u64,
    other: u64,
    active: u64,
}

impl TimeoutsNs {
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            opening: ns(timeouts.tcp_opening),
            established: ns(timeouts.tcp_established),
            closed: ns(timeouts.tcp_closed),
            udp: ns(timeouts.udp),
            icmp: ns(timeouts.icmp),
            other: ns(timeouts.other),
            active: ns(timeouts.active),
        }
    }

    fn of(&self, protocol: u8, state: FlowState) -> u64 {
        match (protocol, state) {
            (PROTOCOL_TCP, FlowState::New) => self.opening,
            (PROTOCOL_TCP, FlowState::Closed) => self.closed,
            (PROTOCOL_TCP, FlowState::Established | FlowState::Closing) => self.established,
            (PROTOCOL_UDP, _) => self.udp,
            (PROTOCOL_ICMP | PROTOCOL_ICMPV6, _) => self.icmp,
            _ => self.other,
        }
    }
}
