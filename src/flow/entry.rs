//! One live flow in 128 bytes: two neighbouring cache lines. Nothing in it points anywhere but into the annex (wide keys)
//! and the table of verdicts.
//!
//! ```text
//!  0 key, word 0                           64 overhead[2] (32 each): bytes that are not payload
//!  8 key, word 1 │ marks                   72 sum of squared sizes (48) │ gap squares, low (16)
//! 16 last (52) │ phase (4) │ entropy       80 least and greatest gap (32 each)
//! 24 slice start (56) │ gap squares (8)    88 handles of two verdicts and of the mirrors (21 each)
//! 32 flow id (53) │ later (1) │ entropy (8) 96 TCP connection, or type and code of ICMP (30 bytes)
//! 40 packets[2] (32 each)                 126 gap squares, high (16)
//! 48 bytes (40) │ TCP flags │ size (16)   to server; the size is the least one
//! 56 bytes (40) │ TCP flags │ size (16)   to client; the size is the greatest one
//! ```
//! Times are the low bits of nanoseconds since the Unix epoch; the table's clock has the others. Counters are those of the
//! slice. One that would overflow ends the slice instead ([`FlowEntry::count`] refuses the packet until then), so that no
//! count is ever wrong or saturated.

use std::time::Duration;

use super::entropy::Entropy;
use super::key::{FROM_HIGH, ICMP_ERRORS_SHIFT, LIVE, Lookup, MARKS_SHIFT, PROTOCOL_SHIFT, TURNED};
use super::memory::Plain;
use super::record::{EndReason, FlowRecord, FlowState, Spread, TO_CLIENT, TO_SERVER};
use super::tcp::{Moment, Seen, Segment, TcpRules, TcpState, TcpTrack};
use super::verdicts::HANDLE_BITS;
use crate::config::Timeouts;
use crate::packet::{Tuple, is_icmp};

/// What the flow table wants to know of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowPacket {
    pub tuple: Tuple,
    /// Nanoseconds since the Unix epoch; never less than that of the packet or sweep before.
    pub clock_ns: u64,
    /// Frame length as received, link header included.
    pub bytes: u32,
    /// No more than `bytes` count.
    pub payload_bytes: u32,
    pub tcp_flags: u8,
    /// Of a TCP header, as in [`Segment`].
    pub tcp_seq: u32,
    pub tcp_ack: u32,
    pub tcp_window: u16,
    pub tcp_scale: Option<u8>,
    pub tcp_sack: bool,
    /// Type and code when ICMP or ICMPv6.
    pub icmp: (u8, u8),
    /// No upper-layer header in this packet: `tcp_flags` and `icmp` mean nothing.
    pub later_fragment: bool,
}

/// A live flow. Per-direction arrays are `[to server, to client]`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct FlowEntry {
    pub(super) words: [u64; 2],
    last: u64,
    slice_start: u64,
    id: u64,
    packets: [u32; 2],
    volume: [u64; 2],
    overhead: [u32; 2],
    squares: u64,
    gaps: [u32; 2],
    handles: u64,
    /// Of other protocols than TCP: who was heard, and type and code of ICMP.
    track: TcpTrack,
    gap_squares_high: u16,
}

const _: () = assert!(size_of::<FlowEntry>() == 128);
const _: () = assert!(std::mem::offset_of!(FlowEntry, overhead) == 64);

// SAFETY: plain numbers.
unsafe impl Plain for FlowEntry {}

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;
const PROTOCOL_SCTP: u8 = 132;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Bits of the first other word: each side was heard.
const BOTH_HEARD: u16 = 3;

/// Bits of the words.
const LAST_BITS: u32 = 52;
const LAST: u64 = (1 << LAST_BITS) - 1;
const PHASE_SHIFT: u32 = LAST_BITS;
const PHASE: u64 = 15 << PHASE_SHIFT;
const START: u64 = (1 << 56) - 1;
const ID: u64 = (1 << 53) - 1;
/// In `id`: the slice is not the flow's first one.
const LATER_SLICE: u64 = 1 << 53;
const BYTES: u64 = (1 << 40) - 1;
const FLAGS_SHIFT: u32 = 40;
const SIZE_SHIFT: u32 = 48;
const SQUARES_SHIFT: u32 = 16;
/// In `last` to server, in `id` to client.
const ENTROPY_SHIFT: u32 = 56;
const HANDLE: u64 = (1 << HANDLE_BITS) - 1;

/// Longest time-out and slice: what the bits of a time leave room for.
pub(super) const LONGEST_NS: u64 = 1 << 50;
/// How far the table's clock may run from where all flows were looked at, before all must be looked at again.
pub(super) const FARTHEST_NS: u64 = 3 << 49;

/// State as far as time-outs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    TcpUnconfirmed,
    TcpSynSent,
    TcpSynReceived,
    TcpEstablished,
    TcpClosing,
    TcpFinished,
    TcpReset,
    UdpNew,
    UdpAnswered,
    IcmpNew,
    IcmpAnswered,
    OtherNew,
    OtherAnswered,
}

/// By number; there is room for sixteen.
const PHASES: [Phase; 16] = {
    let mut all = [Phase::OtherNew; 16];
    let named = [
        Phase::TcpUnconfirmed,
        Phase::TcpSynSent,
        Phase::TcpSynReceived,
        Phase::TcpEstablished,
        Phase::TcpClosing,
        Phase::TcpFinished,
        Phase::TcpReset,
        Phase::UdpNew,
        Phase::UdpAnswered,
        Phase::IcmpNew,
        Phase::IcmpAnswered,
        Phase::OtherNew,
        Phase::OtherAnswered,
    ];
    let mut n = 0;
    while n < named.len() {
        all[named[n] as usize] = named[n];
        n += 1;
    }
    all
};

impl Phase {
    fn new(protocol: u8, answered: bool) -> Self {
        match (protocol, answered) {
            (PROTOCOL_TCP, _) => Phase::TcpUnconfirmed,
            (PROTOCOL_UDP, false) => Phase::UdpNew,
            (PROTOCOL_UDP, true) => Phase::UdpAnswered,
            (PROTOCOL_ICMP | PROTOCOL_ICMPV6, false) => Phase::IcmpNew,
            (PROTOCOL_ICMP | PROTOCOL_ICMPV6, true) => Phase::IcmpAnswered,
            (_, false) => Phase::OtherNew,
            (_, true) => Phase::OtherAnswered,
        }
    }

    fn of_tcp(state: TcpState) -> Self {
        match state {
            TcpState::Unconfirmed => Phase::TcpUnconfirmed,
            TcpState::SynSent => Phase::TcpSynSent,
            TcpState::SynReceived => Phase::TcpSynReceived,
            TcpState::Established => Phase::TcpEstablished,
            TcpState::Closing => Phase::TcpClosing,
            TcpState::Closed => Phase::TcpFinished,
            TcpState::Reset => Phase::TcpReset,
        }
    }

    fn state(self) -> FlowState {
        match self {
            Phase::TcpUnconfirmed | Phase::TcpSynSent | Phase::TcpSynReceived => FlowState::New,
            Phase::UdpNew | Phase::IcmpNew | Phase::OtherNew => FlowState::New,
            Phase::TcpEstablished | Phase::UdpAnswered | Phase::IcmpAnswered | Phase::OtherAnswered => {
                FlowState::Established
            }
            Phase::TcpClosing => FlowState::Closing,
            Phase::TcpFinished | Phase::TcpReset => FlowState::Closed,
        }
    }

    fn timeout(self, timeouts: &Timeouts) -> Duration {
        match self {
            Phase::TcpUnconfirmed | Phase::TcpSynSent => timeouts.tcp_opening,
            Phase::TcpSynReceived => timeouts.tcp_syn_received,
            Phase::TcpEstablished => timeouts.tcp_established,
            Phase::TcpClosing => timeouts.tcp_closing,
            Phase::TcpFinished | Phase::TcpReset => timeouts.tcp_closed,
            Phase::UdpNew => timeouts.udp,
            Phase::UdpAnswered => timeouts.udp_answered,
            Phase::IcmpNew | Phase::IcmpAnswered => timeouts.icmp,
            Phase::OtherNew | Phase::OtherAnswered => timeouts.other,
        }
    }
}

/// Bit n: a flow in phase n gives way first when the table is full.
const DISPOSABLE: u16 = {
    let mut bits = 0;
    let mut n = 0;
    while n < PHASES.len() {
        use Phase::{IcmpNew, OtherNew, TcpFinished, TcpReset, TcpSynReceived, TcpSynSent, TcpUnconfirmed, UdpNew};
        if matches!(PHASES[n], TcpUnconfirmed | TcpSynSent | TcpSynReceived | TcpFinished | TcpReset) {
            bits |= 1 << n;
        }
        if matches!(PHASES[n], UdpNew | IcmpNew | OtherNew) {
            bits |= 1 << n;
        }
        n += 1;
    }
    bits
};

/// Which of the handles in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handle {
    Verdict(usize),
    /// Mirror sessions that took a packet, with their generation, as a verdict that says no more than that.
    Mirrors,
}

impl Handle {
    pub(super) const ALL: [Self; 3] = [Self::Verdict(TO_SERVER), Self::Verdict(TO_CLIENT), Self::Mirrors];

    fn shift(self) -> u32 {
        match self {
            Handle::Verdict(direction) => (direction as u32 & 1) * HANDLE_BITS,
            Handle::Mirrors => 2 * HANDLE_BITS,
        }
    }
}

impl FlowPacket {
    fn is_tcp(&self) -> bool {
        self.tuple.protocol == PROTOCOL_TCP && !self.later_fragment
    }

    /// True of a SYN that asks for a new connection.
    pub(super) fn opens_connection(&self) -> bool {
        self.is_tcp() && self.tcp_flags & (SYN | ACK | RST) == SYN
    }

    fn segment(&self) -> Segment {
        Segment {
            flags: self.tcp_flags,
            seq: self.tcp_seq,
            ack: self.tcp_ack,
            window: self.tcp_window,
            payload: self.payload_bytes,
            scale: self.tcp_scale,
            sack: self.tcp_sack,
        }
    }

    /// True of the first packet of a flow when the ports say that its sender is the server, and no SYN says otherwise.
    fn is_from_service(&self) -> bool {
        let may_be = match self.tuple.protocol {
            PROTOCOL_TCP => self.tcp_flags & SYN == 0,
            PROTOCOL_UDP | PROTOCOL_SCTP => true,
            _ => false,
        };
        may_be && !self.later_fragment && is_service(self.tuple.src_port, self.tuple.dst_port)
    }

    fn answers_connection(&self) -> bool {
        self.is_tcp() && self.tcp_flags & (SYN | ACK | RST) == SYN | ACK
    }
}

impl FlowEntry {
    pub fn flow_id(&self) -> u64 {
        self.id & ID
    }

    pub fn state(&self) -> FlowState {
        self.phase().state()
    }

    /// Packets of the current slice.
    pub fn packets(&self) -> [u64; 2] {
        self.packets.map(u64::from)
    }

    /// Packets and bytes of the flow so far, both ways together; `None` in later slices, when nobody knows any more.
    #[inline]
    pub fn beginning(&self) -> Option<(u64, u64)> {
        let [there, back] = self.volume.map(|volume| volume & BYTES);
        let packets = u64::from(self.packets[0]) + u64::from(self.packets[1]);
        (self.id & LATER_SLICE == 0).then_some((packets, there + back))
    }

    /// A flow that starts with this packet, which is not yet counted. `words` are those of its key.
    pub(super) fn new(words: [u64; 2], way_high: bool, packet: &FlowPacket, clock: u64, id: u64) -> Self {
        let from_high = way_high != packet.answers_connection();
        let turned = if packet.is_from_service() { TURNED } else { 0 };
        let marks = turned | if from_high { FROM_HIGH } else { 0 };
        let mut track = TcpTrack::default();
        if packet.tuple.protocol != PROTOCOL_TCP && !packet.later_fragment {
            track.set_other_words([0, u16::from_be_bytes([packet.icmp.0, packet.icmp.1])]);
        }
        Self {
            words: [words[0], words[1] | marks],
            last: clock & LAST | (Phase::new(packet.tuple.protocol, false) as u64) << PHASE_SHIFT,
            slice_start: clock & START,
            id: id & ID,
            packets: [0; 2],
            volume: [0xffff << SIZE_SHIFT, 0],
            overhead: [0; 2],
            squares: 0,
            gaps: [u32::MAX, 0],
            handles: 0,
            track,
            gap_squares_high: 0,
        }
    }

    /// The entry of a flow that starts with this packet, in no table: for measuring other ways to find it.
    pub fn alone(packet: &FlowPacket) -> Self {
        Self::new(Lookup::new(&packet.tuple, 0).words, false, packet, packet.clock_ns, 0)
    }

    /// What a table does to an entry for a packet once it has found it, unless something is due. False when something
    /// is.
    #[inline]
    pub fn account(&mut self, packet: &FlowPacket, from_higher: bool, times: &TimeoutsNs) -> bool {
        let (direction, was) = (self.direction(from_higher), self.phase_number());
        self.is_quiet(packet.clock_ns, times)
            && !packet.opens_connection()
            && self.count(direction, packet, packet.clock_ns, TcpRules::default()).is_some()
            && self.phase_number() == was
    }

    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.words[1] & LIVE != 0
    }

    /// [`TO_SERVER`] or [`TO_CLIENT`] for a packet that comes from the higher endpoint of the key or not.
    #[inline]
    pub(super) fn direction(&self, way_high: bool) -> usize {
        usize::from((self.words[1] & FROM_HIGH != 0) != way_high)
    }

    pub(super) fn initiator_is_high(&self) -> bool {
        self.words[1] & FROM_HIGH != 0
    }

    pub(super) fn handle(&self, which: Handle) -> u32 {
        (self.handles >> which.shift() & HANDLE) as u32
    }

    pub(super) fn set_handle(&mut self, which: Handle, handle: u32) {
        self.handles = self.handles & !(HANDLE << which.shift()) | (u64::from(handle) & HANDLE) << which.shift();
    }

    /// Clock of the flow's latest packet that was not refused. `now` is the table's, which is later by less than 52 days.
    #[inline]
    pub(super) fn last(&self, now: u64) -> u64 {
        now.wrapping_sub(now.wrapping_sub(self.last) & LAST)
    }

    fn slice_start(&self, now: u64) -> u64 {
        now.wrapping_sub(now.wrapping_sub(self.slice_start) & START)
    }

    /// False when something may be due before `clock`, which is the table's: then settling decides.
    #[inline]
    pub(super) fn is_quiet(&self, clock: u64, times: &TimeoutsNs) -> bool {
        let silent = clock.wrapping_sub(self.last) & LAST;
        let slice = clock.wrapping_sub(self.slice_start) & START;
        silent <= times.by_phase[self.phase_number()] && slice <= times.active
    }

    /// Who sent the first packet is the server.
    pub(super) fn is_turned(&self) -> bool {
        self.words[1] & TURNED != 0
    }

    /// The other end becomes the initiator, whatever the ports say.
    pub(super) fn flip_initiator(&mut self) {
        self.words[1] = (self.words[1] ^ FROM_HIGH) & !TURNED;
        let (one, other) = (self.handle(Handle::Verdict(0)), self.handle(Handle::Verdict(1)));
        self.set_handle(Handle::Verdict(0), other);
        self.set_handle(Handle::Verdict(1), one);
        self.packets.swap(0, 1);
        self.overhead.swap(0, 1);
        // The sizes are of both directions and stay.
        let sides = (1 << SIZE_SHIFT) - 1;
        let different = (self.volume[0] ^ self.volume[1]) & sides;
        self.volume = self.volume.map(|volume| volume ^ different);
        let different = (self.last ^ self.id) >> ENTROPY_SHIFT << ENTROPY_SHIFT;
        (self.last, self.id) = (self.last ^ different, self.id ^ different);
        if self.protocol() == PROTOCOL_TCP {
            self.track.swap();
        } else {
            let [heard, icmp] = self.track.other_words();
            self.track.set_other_words([heard >> 1 | (heard & 1) << 1, icmp]);
        }
    }

    /// A SYN of another connection than this one.
    pub(super) fn is_begun_anew(&self, way_high: bool, packet: &FlowPacket) -> bool {
        packet.opens_connection() && self.track.is_begun_anew(self.direction(way_high), &packet.segment())
    }

    /// Whether `direction` may have sent a TCP segment with this sequence number lately; true of other protocols.
    pub fn may_have_sent(&self, direction: usize, tcp_seq: u32) -> bool {
        self.protocol() != PROTOCOL_TCP || self.track.may_have_sent(direction, tcp_seq)
    }

    /// Counts an ICMP error about the flow, which says nothing of the flow being alive. False when there is no room.
    pub(super) fn count_icmp_error(&mut self) -> bool {
        let (words, full) = self.words[1].overflowing_add(1 << ICMP_ERRORS_SHIFT);
        if !full {
            self.words[1] = words;
        }
        !full
    }

    /// The first payload of a direction has not been looked at.
    #[inline]
    pub fn wants_entropy(&self, direction: usize) -> bool {
        let word = if direction == TO_SERVER { self.last } else { self.id };
        word >> ENTROPY_SHIFT == 0
    }

    pub(super) fn set_entropy(&mut self, direction: usize, entropy: Entropy) {
        let word = if direction == TO_SERVER { &mut self.last } else { &mut self.id };
        *word = *word << 8 >> 8 | u64::from(entropy.to_byte()) << ENTROPY_SHIFT;
    }

    /// Counts a packet at `clock`, the table's, and moves the state on; says what TCP makes of it. `None`, and nothing is
    /// changed, when a counter of the slice has no room for it. A refused packet says nothing of the flow being alive: it
    /// is counted, and the time without a packet goes on.
    ///
    /// PERF: always inlined; a call of its own costs a tenth of a lookup and update in `bench/flows`.
    #[inline(always)]
    pub(super) fn count(&mut self, direction: usize, packet: &FlowPacket, clock: u64, rules: TcpRules) -> Option<Seen> {
        let direction = direction & 1;
        let size = u64::from(packet.bytes.min(0xffff));
        let overhead = packet.bytes - packet.payload_bytes.min(packet.bytes);
        let is_first = self.packets == [0, 0];
        let (packets, full) = self.packets[direction].overflowing_add(1);
        let (overhead, fuller) = self.overhead[direction].overflowing_add(overhead);
        let bytes = (self.volume[direction] & BYTES) + u64::from(packet.bytes);
        let squares = (self.squares >> SQUARES_SHIFT) + size * size;
        if full | fuller | (bytes > BYTES) | (squares >> (64 - SQUARES_SHIFT) != 0) | self.track.is_full() {
            return None;
        }
        let idle_ns = clock.wrapping_sub(self.last) & LAST;
        self.packets[direction] = packets;
        self.overhead[direction] = overhead;
        self.volume[direction] += u64::from(packet.bytes);
        self.squares = squares << SQUARES_SHIFT | self.squares & ((1 << SQUARES_SHIFT) - 1);
        if size < self.volume[0] >> SIZE_SHIFT {
            self.volume[0] = self.volume[0] << 16 >> 16 | size << SIZE_SHIFT;
        }
        if size > self.volume[1] >> SIZE_SHIFT {
            self.volume[1] = self.volume[1] << 16 >> 16 | size << SIZE_SHIFT;
        }
        let seen = self.advance(direction, packet, Moment { now_ns: clock, idle_ns }, rules);
        if is_first {
            self.slice_start = self.slice_start & !START | clock & START;
        } else if !seen.refused {
            self.count_gap(clock);
        }
        if !seen.refused {
            self.last = self.last & !LAST | clock & LAST;
        }
        Some(seen)
    }

    #[inline]
    fn count_gap(&mut self, clock: u64) {
        let gap = clock.wrapping_sub(self.last) & LAST;
        let small = shrink(gap);
        self.gaps = [self.gaps[0].min(small), self.gaps[1].max(small)];
        let packed = add_to_sum(self.gap_squares(), square(gap), clock);
        self.squares = self.squares & !0xffff | packed & 0xffff;
        self.slice_start = self.slice_start & START | (packed >> 16 & 0xff) << 56;
        self.gap_squares_high = (packed >> 24) as u16;
    }

    #[inline]
    fn gap_squares(&self) -> u64 {
        u64::from(self.gap_squares_high) << 24 | self.slice_start >> 56 << 16 | self.squares & 0xffff
    }

    #[inline]
    fn advance(&mut self, direction: usize, packet: &FlowPacket, at: Moment, rules: TcpRules) -> Seen {
        if packet.is_tcp() {
            self.volume[direction] |= u64::from(packet.tcp_flags) << FLAGS_SHIFT;
            let seen = self.track.observe(direction, &packet.segment(), at, rules);
            self.set_phase(Phase::of_tcp(self.track.state()));
            return seen;
        }
        let [heard, icmp] = self.track.other_words();
        if packet.tuple.protocol != PROTOCOL_TCP && heard >> direction & 1 == 0 {
            let heard = heard | 1 << direction;
            self.track.set_other_words([heard, icmp]);
            self.set_phase(Phase::new(packet.tuple.protocol, heard == BOTH_HEARD));
        }
        Seen::default()
    }

    /// Number of the state as far as time-outs and evictions go by it.
    #[inline]
    pub(super) fn phase_number(&self) -> usize {
        (self.last >> PHASE_SHIFT & 15) as usize
    }

    #[inline]
    fn phase(&self) -> Phase {
        PHASES[self.phase_number()]
    }

    #[inline]
    fn set_phase(&mut self, phase: Phase) {
        self.last = self.last & !PHASE | (phase as u64) << PHASE_SHIFT;
    }

    /// First to give way when the table is full: half-open, one-way or over.
    #[inline]
    pub(super) fn is_disposable(&self) -> bool {
        DISPOSABLE >> self.phase_number() & 1 != 0
    }

    /// When the flow ends if no further packet comes.
    pub(super) fn ends_at(&self, now: u64, times: &TimeoutsNs) -> u64 {
        self.last(now).saturating_add(times.by_phase[self.phase_number()])
    }

    /// When the current slice ends; `None` if it is empty or the flow ends first.
    pub(super) fn slice_ends_at(&self, now: u64, times: &TimeoutsNs) -> Option<u64> {
        let at = self.slice_start(now).saturating_add(times.active);
        (!self.slice_is_empty() && at < self.ends_at(now, times)).then_some(at)
    }

    /// Until then nothing happens to the flow, whatever packets come from `now` on, unless one changes its state.
    #[inline]
    pub(super) fn due(&self, now: u64, times: &TimeoutsNs) -> u64 {
        let slice_start = if self.slice_is_empty() { now } else { self.slice_start(now) };
        self.ends_at(now, times).min(slice_start.saturating_add(times.active))
    }

    #[inline]
    pub(super) fn slice_is_empty(&self) -> bool {
        self.packets == [0, 0]
    }

    /// Why the flow ends: a closed flow by what closed it, any other by what takes it out.
    pub(super) fn end_reason(&self, otherwise: EndReason) -> EndReason {
        match self.phase() {
            Phase::TcpReset => EndReason::Rst,
            Phase::TcpFinished => EndReason::Fin,
            _ => otherwise,
        }
    }

    /// The handle of the mirrors must have been released.
    pub(super) fn begin_slice(&mut self) {
        self.packets = [0; 2];
        self.volume = [0xffff << SIZE_SHIFT, 0];
        self.overhead = [0; 2];
        self.squares = 0;
        self.slice_start &= START;
        self.id |= LATER_SLICE;
        self.gap_squares_high = 0;
        self.gaps = [u32::MAX, 0];
        self.words[1] &= (1 << ICMP_ERRORS_SHIFT) - 1;
        self.set_handle(Handle::Mirrors, 0);
        self.track.begin_slice();
    }

    /// The current slice as a record, but for what verdicts say. `tuple` is the flow's, from the initiator.
    pub(super) fn record(&self, tuple: Tuple, now: u64, reason: EndReason, emitted: u64) -> FlowRecord {
        let last = self.last(now);
        let start = if self.slice_is_empty() { last } else { self.slice_start(now) };
        let bytes = self.volume.map(|volume| volume & BYTES);
        let is_icmp = is_icmp(self.protocol());
        let icmp = self.track.other_words()[1].to_be_bytes();
        let tcp = Some(&self.track).filter(|_| self.protocol() == PROTOCOL_TCP);
        FlowRecord {
            flow_id: self.flow_id(),
            tuple,
            start,
            // Before the start if nothing but refused packets came since.
            end: last.max(start),
            emitted,
            packets: self.packets(),
            bytes,
            payload_bytes: [0, 1].map(|side| bytes[side] - u64::from(self.overhead[side])),
            tcp_flags: self.volume.map(|volume| (volume >> FLAGS_SHIFT) as u8),
            icmp: if is_icmp { (icmp[0], icmp[1]) } else { (0, 0) },
            state: self.state(),
            reason,
            sizes: self.sizes(bytes[0] + bytes[1]),
            gaps: self.gap_spread(now),
            handshake_rtt: tcp.and_then(TcpTrack::handshake_rtt),
            retransmissions: tcp.map_or([0; 2], TcpTrack::retransmissions),
            out_of_window: tcp.map_or([0; 2], TcpTrack::out_of_window),
            icmp_errors: (self.words[1] >> ICMP_ERRORS_SHIFT) as u32,
            entropy: [self.last, self.id].map(|word| Entropy::from_byte((word >> ENTROPY_SHIFT) as u8).bits()),
            ..FlowRecord::default()
        }
    }

    fn protocol(&self) -> u8 {
        (self.words[1] >> PROTOCOL_SHIFT) as u8
    }

    fn sizes(&self, sum: u64) -> Spread {
        let count = u64::from(self.packets[0]) + u64::from(self.packets[1]);
        if count == 0 {
            return Spread::default();
        }
        let squares = u128::from(self.squares >> SQUARES_SHIFT);
        // Exact until the division. Frames beyond 65,535 bytes count as that in the squares.
        let variance = (squares * u128::from(count)).saturating_sub(u128::from(sum) * u128::from(sum));
        Spread {
            min: self.volume[0] >> SIZE_SHIFT,
            max: self.volume[1] >> SIZE_SHIFT,
            mean: sum as f64 / count as f64,
            sd: (variance as f64).sqrt() / count as f64,
        }
    }

    fn gap_spread(&self, now: u64) -> Spread {
        let count = u64::from(self.packets[0]) + u64::from(self.packets[1]);
        // No gap was counted if all but one of them, or all, were refused.
        if count < 2 || self.gaps[0] > self.gaps[1] {
            return Spread::default();
        }
        let gaps = (count - 1) as f64;
        let mean = self.last(now).saturating_sub(self.slice_start(now)) as f64 / gaps;
        let variance = unpack_sum(self.gap_squares()) / gaps - mean * mean;
        Spread { min: grow(self.gaps[0]), max: grow(self.gaps[1]), mean, sd: variance.max(0.0).sqrt() }
    }
}

const _: () = assert!(MARKS_SHIFT == 56, "the key leaves one byte for marks");

/// A well-known port (RFC 6335) against any other, or a registered one against one of those that clients are given.
fn is_service(port: u16, peer: u16) -> bool {
    const REGISTERED: u16 = 1024;
    const EPHEMERAL: u16 = 32_768;
    port != 0 && (port < REGISTERED && peer >= REGISTERED || port < EPHEMERAL && peer >= EPHEMERAL)
}

/// A time in 32 bits that sort as it does: exact below 2^27 ns (an eighth of a second), else its first 27 bits.
#[inline]
fn shrink(ns: u64) -> u32 {
    // PERF: no branch, for times on both sides of the limit are common. Of longer ones the exponent is that of the
    // 28th bit, which is then always 1 and left out.
    let exponent = (64 - 27_u32).saturating_sub(ns.leading_zeros());
    exponent << 27 | (ns >> exponent.saturating_sub(1)) as u32 & ((1 << 27) - 1)
}

fn grow(small: u32) -> u64 {
    let (exponent, mantissa) = (small >> 27, u64::from(small & ((1 << 27) - 1)));
    if exponent == 0 { mantissa } else { (mantissa | 1 << 27) << (exponent - 1) }
}

/// A sum of squares is kept as 40 bits of an `f64`: seven of the exponent, 33 of the mantissa. What is kept is twice the
/// sum and 2 more, so that the bits left out are always the same ones, and a sum of nothing is all zeros.
const SUM_CUT: u32 = 19;
const SUM_ABOVE: u64 = 1024 << 52;

#[inline]
fn square(gap: u64) -> f64 {
    // PERF: one instruction from a signed number, five from an unsigned one.
    let gap = gap as i64 as f64;
    gap * gap
}

/// The bits of `packed` and `added`; those above the fortieth are to be left out.
///
/// What is cut off is rounded up or down by `dice`, in proportion: in a long sum the errors of many additions then cancel
/// instead of adding up.
#[inline]
fn add_to_sum(packed: u64, added: f64, dice: u64) -> u64 {
    let twice = f64::from_bits(packed << SUM_CUT | SUM_ABOVE) + (added + added);
    (twice.to_bits() + (dice.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SUM_CUT))) >> SUM_CUT
}

fn unpack_sum(packed: u64) -> f64 {
    f64::from_bits(packed << SUM_CUT | SUM_ABOVE) / 2.0 - 1.0
}

/// [`Timeouts`] in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutsNs {
    pub(super) opening: u64,
    active: u64,
    by_phase: [u64; 16],
}

impl TimeoutsNs {
    pub fn new(timeouts: &Timeouts) -> Self {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(LONGEST_NS);
        Self {
            opening: ns(timeouts.tcp_opening),
            active: ns(timeouts.active),
            by_phase: PHASES.map(|phase| ns(phase.timeout(timeouts))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_times_keep_order_and_27_bits() {
        let mut before = 0;
        for shift in 0..52 {
            for ns in [1u64 << shift, (1 << shift) + (1 << shift) / 3, (2 << shift) - 1] {
                let small = shrink(ns);
                assert!(small >= before && grow(small) <= ns && ns - grow(small) <= ns >> 27, "{ns}");
                assert!(ns >= 1 << 27 || grow(small) == ns);
                before = small;
            }
        }
    }

    #[test]
    fn sums_are_exact_while_short_and_true_when_long() {
        const KEPT: u64 = (1 << 40) - 1;
        for sum in [0u64, 1, 2, 3, 1000, (1 << 32) - 1] {
            assert_eq!(unpack_sum(add_to_sum(0, sum as f64, u64::MAX) & KEPT), sum as f64);
        }
        let (mut packed, square) = (0, 1234.0f64 * 1234.0);
        for n in 0..5_000_000u64 {
            packed = add_to_sum(packed, square, n * 1234) & KEPT;
        }
        let error = unpack_sum(packed) / (square * 5e6) - 1.0;
        // The greatest there can be: gaps of 13 days, as many as a slice has room for.
        let most = (1u64 << 50) as f64;
        let error_of_most = unpack_sum(add_to_sum(0, most * most * 4e6, 0) & KEPT) / (most * most * 4e6) - 1.0;
        assert!(error_of_most.abs() < 1e-9, "{error_of_most}");
        assert!(error.abs() < 1e-7, "{error}");
    }
}
