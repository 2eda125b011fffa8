//! One live flow in 128 bytes: two neighbouring cache lines. Nothing in it points anywhere but into the annex (wide keys)
//! and the table of verdicts.
//!
//! ```text
//!  0 key, word 0                           64 overhead[2] (32 each): bytes that are not payload
//!  8 key, word 1 │ marks                   72 sum of squared sizes (48) │ gap squares, low (16)
//! 16 last (52) │ phase (4) │ entropy       80 least and greatest gap (32 each)
//! 24 slice start (56) │ gap squares (8)    88 handles of two verdicts and of the mirrors (21 each)
//! 32 flow id (53) │ - │ entropy (8)        96 TCP connection, or type and code of ICMP (30 bytes)
//! 40 packets[2] (32 each)                 126 gap squares, high (16)
//! 48 bytes (40) │ TCP flags │ size (16)   to server; the size is the least one
//! 56 bytes (40) │ TCP flags │ size (16)   to client; the size is the greatest one
//! ```
//! Times are the low bits of nanoseconds since the Unix epoch; the table's clock has the others. Counters are those of the
//! slice. One that would overflow ends the slice instead ([`FlowEntry::count`] refuses the packet until then), so that no
//! count is ever wrong or saturated.

use std::time::Duration;

use super::key::{FROM_HIGH, LIVE, Lookup, MARKS_SHIFT, PROTOCOL_SHIFT};
use super::memory::Plain;
use super::record::{EndReason, FlowRecord, FlowState, Spread, TO_CLIENT, TO_SERVER};
use super::verdicts::HANDLE_BITS;
use crate::config::Timeouts;
use crate::packet::Tuple;

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
    track: Track,
    gap_squares_high: u16,
}

const _: () = assert!(size_of::<FlowEntry>() == 128);
const _: () = assert!(std::mem::offset_of!(FlowEntry, overhead) == 64);

// SAFETY: plain numbers.
unsafe impl Plain for FlowEntry {}

/// What is remembered of the upper layer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Track {
    /// Per sender, kept over slices.
    seen: [u8; 2],
    icmp: [u8; 2],
    room: [u8; 26],
}

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Bits of `Track::seen`.
const SEEN_ANY: u8 = 1;
const SEEN_SYN_ACK: u8 = 2;
/// Acknowledged without SYN: this side has completed its part of the handshake.
const SEEN_ACK: u8 = 4;
const SEEN_FIN: u8 = 8;

/// Bits of the words.
const LAST_BITS: u32 = 52;
const LAST: u64 = (1 << LAST_BITS) - 1;
const PHASE_SHIFT: u32 = LAST_BITS;
const PHASE: u64 = 15 << PHASE_SHIFT;
const START: u64 = (1 << 56) - 1;
const ID: u64 = (1 << 53) - 1;
const BYTES: u64 = (1 << 40) - 1;
const FLAGS_SHIFT: u32 = 40;
const SIZE_SHIFT: u32 = 48;
const SQUARES_SHIFT: u32 = 16;
const HANDLE: u64 = (1 << HANDLE_BITS) - 1;

/// Longest time-out and slice: what the bits of a time leave room for.
const LONGEST_NS: u64 = 1 << 50;
/// How far the table's clock may run from where all flows were looked at, before all must be looked at again.
pub(super) const FARTHEST_NS: u64 = 1 << 51;

/// State as far as time-outs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    TcpOpening,
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
        Phase::TcpOpening,
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
            (PROTOCOL_TCP, _) => Phase::TcpOpening,
            (PROTOCOL_UDP, false) => Phase::UdpNew,
            (PROTOCOL_UDP, true) => Phase::UdpAnswered,
            (PROTOCOL_ICMP | PROTOCOL_ICMPV6, false) => Phase::IcmpNew,
            (PROTOCOL_ICMP | PROTOCOL_ICMPV6, true) => Phase::IcmpAnswered,
            (_, false) => Phase::OtherNew,
            (_, true) => Phase::OtherAnswered,
        }
    }

    fn state(self) -> FlowState {
        match self {
            Phase::TcpOpening | Phase::UdpNew | Phase::IcmpNew | Phase::OtherNew => FlowState::New,
            Phase::TcpEstablished | Phase::UdpAnswered | Phase::IcmpAnswered | Phase::OtherAnswered => {
                FlowState::Established
            }
            Phase::TcpClosing => FlowState::Closing,
            Phase::TcpFinished | Phase::TcpReset => FlowState::Closed,
        }
    }

    fn timeout(self, timeouts: &Timeouts) -> Duration {
        match self {
            Phase::TcpOpening => timeouts.tcp_opening,
            Phase::TcpEstablished | Phase::TcpClosing => timeouts.tcp_established,
            Phase::TcpFinished | Phase::TcpReset => timeouts.tcp_closed,
            Phase::UdpNew | Phase::UdpAnswered => timeouts.udp,
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
        use Phase::{IcmpNew, OtherNew, TcpFinished, TcpOpening, TcpReset, UdpNew};
        if matches!(PHASES[n], TcpOpening | TcpFinished | TcpReset | UdpNew | IcmpNew | OtherNew) {
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

    /// A flow that starts with this packet, which is not yet counted. `words` are those of its key.
    pub(super) fn new(words: [u64; 2], way_high: bool, packet: &FlowPacket, clock: u64, id: u64) -> Self {
        let from_high = way_high != packet.answers_connection();
        let icmp = if packet.later_fragment { (0, 0) } else { packet.icmp };
        Self {
            words: [words[0], words[1] | if from_high { FROM_HIGH } else { 0 }],
            last: clock & LAST | (Phase::new(packet.tuple.protocol, false) as u64) << PHASE_SHIFT,
            slice_start: clock & START,
            id: id & ID,
            packets: [0; 2],
            volume: [0xffff << SIZE_SHIFT, 0],
            overhead: [0; 2],
            squares: 0,
            gaps: [u32::MAX, 0],
            handles: 0,
            track: Track { seen: [0; 2], icmp: [icmp.0, icmp.1], room: [0; 26] },
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
        let (direction, was) = (self.direction(from_higher), self.is_disposable());
        self.is_quiet(packet.clock_ns, times)
            && !packet.opens_connection()
            && self.count(direction, packet, packet.clock_ns)
            && self.is_disposable() == was
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

    /// Clock of the flow's latest packet. `now` is the table's, which is later by less than 52 days.
    #[inline]
    pub(super) fn last(&self, now: u64) -> u64 {
        now.wrapping_sub(now.wrapping_sub(self.last) & LAST)
    }

    fn slice_start(&self, now: u64) -> u64 {
        let last = self.last(now);
        last.wrapping_sub(last.wrapping_sub(self.slice_start) & START)
    }

    /// False when something may be due before `clock`, which is the table's: then settling decides.
    #[inline]
    pub(super) fn is_quiet(&self, clock: u64, times: &TimeoutsNs) -> bool {
        let silent = clock.wrapping_sub(self.last) & LAST;
        let slice = clock.wrapping_sub(self.slice_start) & START;
        silent <= times.by_phase[self.phase_number()] && slice <= times.active
    }

    /// The other end becomes the initiator.
    pub(super) fn flip_initiator(&mut self) {
        self.words[1] ^= FROM_HIGH;
        let (one, other) = (self.handle(Handle::Verdict(0)), self.handle(Handle::Verdict(1)));
        self.set_handle(Handle::Verdict(0), other);
        self.set_handle(Handle::Verdict(1), one);
        self.packets.swap(0, 1);
        self.overhead.swap(0, 1);
        // The sizes are of both directions and stay.
        let sides = (1 << SIZE_SHIFT) - 1;
        let different = (self.volume[0] ^ self.volume[1]) & sides;
        self.volume = self.volume.map(|volume| volume ^ different);
        self.track.seen.swap(0, 1);
    }

    /// Counts a packet at `clock`, the table's, and moves the state on. False, and nothing is changed, when a counter
    /// of the slice has no room for it.
    #[inline]
    pub(super) fn count(&mut self, direction: usize, packet: &FlowPacket, clock: u64) -> bool {
        let direction = direction & 1;
        let size = u64::from(packet.bytes.min(0xffff));
        let overhead = packet.bytes - packet.payload_bytes.min(packet.bytes);
        let is_first = self.packets == [0, 0];
        let (packets, full) = self.packets[direction].overflowing_add(1);
        let (overhead, fuller) = self.overhead[direction].overflowing_add(overhead);
        let bytes = (self.volume[direction] & BYTES) + u64::from(packet.bytes);
        let squares = (self.squares >> SQUARES_SHIFT) + size * size;
        if full | fuller | (bytes > BYTES) | (squares >> (64 - SQUARES_SHIFT) != 0) {
            return false;
        }
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
        if is_first {
            self.slice_start = self.slice_start & !START | clock & START;
        } else {
            self.count_gap(clock);
        }
        self.last = self.last & !LAST | clock & LAST;
        self.advance(direction, packet);
        true
    }

    #[inline]
    fn count_gap(&mut self, clock: u64) {
        let gap = clock.wrapping_sub(self.last) & LAST;
        let small = shrink(gap);
        self.gaps = [self.gaps[0].min(small), self.gaps[1].max(small)];
        let sum = unpack_sum(self.gap_squares()) + square(gap);
        let packed = pack_sum(sum, clock);
        self.squares = self.squares & !0xffff | packed & 0xffff;
        self.slice_start = self.slice_start & START | (packed >> 16 & 0xff) << 56;
        self.gap_squares_high = (packed >> 24) as u16;
    }

    #[inline]
    fn gap_squares(&self) -> u64 {
        u64::from(self.gap_squares_high) << 24 | self.slice_start >> 56 << 16 | self.squares & 0xffff
    }

    #[inline]
    fn advance(&mut self, direction: usize, packet: &FlowPacket) {
        if packet.is_tcp() {
            self.volume[direction] |= u64::from(packet.tcp_flags) << FLAGS_SHIFT;
            self.advance_tcp(direction, packet.tcp_flags);
        } else if packet.tuple.protocol != PROTOCOL_TCP && self.track.seen[direction] == 0 {
            self.track.seen[direction] = SEEN_ANY;
            let answered = self.track.seen == [SEEN_ANY; 2];
            self.set_phase(Phase::new(packet.tuple.protocol, answered));
        }
    }

    /// Sequence numbers are not followed: a forged RST shortens the flow's time-out, no more.
    fn advance_tcp(&mut self, direction: usize, flags: u8) {
        if self.state() == FlowState::Closed {
            return;
        }
        if flags & RST != 0 {
            self.set_phase(Phase::TcpReset);
            return;
        }
        let seen = &mut self.track.seen[direction];
        match flags & (SYN | ACK) {
            both if both == SYN | ACK => *seen |= SEEN_SYN_ACK,
            ACK => *seen |= SEEN_ACK,
            _ => {}
        }
        if flags & FIN != 0 {
            *seen |= SEEN_FIN;
        }
        let [one, other] = self.track.seen;
        let established = completes(one, other) || completes(other, one);
        self.set_phase(if one & other & SEEN_FIN != 0 {
            Phase::TcpFinished
        } else if !established {
            // A lone FIN (a scan, or one direction of an asymmetric route) must not earn the long time-out.
            Phase::TcpOpening
        } else if (one | other) & SEEN_FIN != 0 {
            Phase::TcpClosing
        } else {
            Phase::TcpEstablished
        });
    }

    #[inline]
    fn phase_number(&self) -> usize {
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
        self.gap_squares_high = 0;
        self.gaps = [u32::MAX, 0];
        self.set_handle(Handle::Mirrors, 0);
    }

    /// The current slice as a record, but for what verdicts say. `tuple` is the flow's, from the initiator.
    pub(super) fn record(&self, tuple: Tuple, now: u64, reason: EndReason, emitted: u64) -> FlowRecord {
        let last = self.last(now);
        let bytes = self.volume.map(|volume| volume & BYTES);
        let is_icmp = matches!(self.protocol(), PROTOCOL_ICMP | PROTOCOL_ICMPV6);
        FlowRecord {
            flow_id: self.flow_id(),
            tuple,
            start: if self.slice_is_empty() { last } else { self.slice_start(now) },
            end: last,
            emitted,
            packets: self.packets(),
            bytes,
            payload_bytes: [0, 1].map(|side| bytes[side] - u64::from(self.overhead[side])),
            tcp_flags: self.volume.map(|volume| (volume >> FLAGS_SHIFT) as u8),
            icmp: if is_icmp { (self.track.icmp[0], self.track.icmp[1]) } else { (0, 0) },
            state: self.state(),
            reason,
            sizes: self.sizes(bytes[0] + bytes[1]),
            gaps: self.gap_spread(now),
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
        if count < 2 {
            return Spread::default();
        }
        let gaps = (count - 1) as f64;
        let mean = (self.last(now) - self.slice_start(now)) as f64 / gaps;
        let variance = unpack_sum(self.gap_squares()) / gaps - mean * mean;
        Spread { min: grow(self.gaps[0]), max: grow(self.gaps[1]), mean, sd: variance.max(0.0).sqrt() }
    }
}

const _: () = assert!(MARKS_SHIFT == 56, "the key leaves one byte for marks");

fn completes(one: u8, other: u8) -> bool {
    one & SEEN_ACK != 0 && other & (SEEN_SYN_ACK | SEEN_ACK) != 0
}

/// A time in 32 bits that sort as it does: exact below 2^27 ns (an eighth of a second), else its first 27 bits.
#[inline]
fn shrink(ns: u64) -> u32 {
    if ns < 1 << 27 {
        return ns as u32;
    }
    // The exponent is that of the 28th bit, which is then always 1 and left out.
    let shift = 64 - 28 - ns.leading_zeros();
    ((shift + 1) << 27) | (ns >> shift) as u32 & ((1 << 27) - 1)
}

fn grow(small: u32) -> u64 {
    let (exponent, mantissa) = (small >> 27, u64::from(small & ((1 << 27) - 1)));
    if exponent == 0 { mantissa } else { (mantissa | 1 << 27) << (exponent - 1) }
}

/// A sum of squares as a floating point number of 40 bits: seven of exponent, 33 of mantissa.
const SUM_EXPONENT: u64 = 1022 << 33;
const SUM_CUT: u32 = 19;

#[inline]
fn square(gap: u64) -> f64 {
    // PERF: one instruction from a signed number, five from an unsigned one.
    let gap = gap as i64 as f64;
    gap * gap
}

/// What is cut off is rounded up or down by `dice`, in proportion: in a long sum the errors of many additions then cancel
/// instead of adding up.
#[inline]
fn pack_sum(sum: f64, dice: u64) -> u64 {
    let dither = dice.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SUM_CUT);
    ((sum.to_bits() + dither) >> SUM_CUT).saturating_sub(SUM_EXPONENT).min((1 << 40) - 1)
}

#[inline]
fn unpack_sum(packed: u64) -> f64 {
    if packed == 0 { 0.0 } else { f64::from_bits((packed + SUM_EXPONENT) << SUM_CUT) }
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
        for sum in [0u64, 1, 2, 3, 1000, (1 << 33) + 1, 123_456_789_000_000_000 >> 24 << 24] {
            assert_eq!(unpack_sum(pack_sum(sum as f64, u64::MAX)), sum as f64);
        }
        let (mut packed, square) = (0, 1234.0f64 * 1234.0);
        for n in 0..5_000_000u64 {
            packed = pack_sum(unpack_sum(packed) + square, n * 1234);
        }
        let error = unpack_sum(packed) / (square * 5e6) - 1.0;
        assert!(error.abs() < 1e-7, "{error}");
    }
}
