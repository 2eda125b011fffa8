//! What the box remembers of a TCP connection: thirty bytes that tell its state, what is inside the receiver's window,
//! what was sent twice, and how long the handshake took.
//!
//! ```text
//!   next[d]      sequence number after the last byte that side d sent        (0: not heard)
//!   ack[d]       highest acknowledgement side d gave: what it has received   (before that: when it sent its SYN)
//!   window[d]    window field of that acknowledgement, unscaled
//!   clocks       handshake time (23 bits) and when `next` last moved (8 bits, in fractions of the handshake time)
//!   bits         how far each side is in the handshake, FINs, duplicate ACKs, keep-alive, scale, out-of-window counts
//! ```
//! The state is a function of how far each side got (`Level`) and of the FINs and RSTs; there is no transition table.
//! - RFC 9293 (states, windows), RFC 7323 (scaling), RFC 5961 (blind RST and SYN).
//! - Window limits after van Rooij, "Real stateful TCP packet filtering in IP Filter" (2001): a segment begins within
//!   what the receiver offered, ends no further back than one window before it, and acknowledges neither more than was
//!   sent nor less than one window before what was acknowledged.
//! - Retransmission or only out of order: Wireshark User's Guide, "TCP Analysis". Where that needs every SACK block or
//!   exact times, there is one bit and eight of them; `tests/flow_analysis.rs` measures the agreement.

/// What one TCP header says, as far as a connection is followed by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub flags: u8,
    pub seq: u32,
    /// Meaningless without the ACK flag.
    pub ack: u32,
    /// As in the header, unscaled.
    pub window: u16,
    /// Application bytes on the wire.
    pub payload: u32,
    /// Shift of the window scale option; only a SYN has one.
    pub scale: Option<u8>,
    /// The segment has SACK blocks.
    pub sack: bool,
}

/// When a segment came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since the Unix epoch, never going back within a flow.
    pub now_ns: u64,
    /// Since the flow's packet before, either direction; `u64::MAX` when the clock went back.
    pub idle_ns: u64,
}

/// What is done about segments outside of the receiver's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowCheck {
    /// Nobody looks.
    Off,
    /// They are counted and do not change the state, nor what is known of their sender.
    #[default]
    Loose,
    /// As loose; on a connection of which both SYNs were seen they are refused.
    Strict,
}

/// How connections are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpRules {
    pub window: WindowCheck,
    /// Only one direction of a connection may pass here: no windows are checked, and one side alone can bring a
    /// connection up.
    pub asymmetric: bool,
}

/// What a segment turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// It carries what was sent before.
    pub retransmission: bool,
    /// It fills a gap, too early to have been sent again.
    pub out_of_order: bool,
    pub out_of_window: bool,
    /// It must not pass ([`WindowCheck::Strict`]).
    pub refused: bool,
}

/// State of a connection, told apart as far as time-outs differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TcpState {
    /// In mid-stream, and only one side has acknowledged anything; or no ACK and no SYN at all.
    #[default]
    Unconfirmed,
    SynSent,
    SynReceived,
    Established,
    /// One FIN.
    Closing,
    /// FIN both ways.
    Closed,
    Reset,
}

impl TcpState {
    pub fn is_over(self) -> bool {
        matches!(self, TcpState::Closed | TcpState::Reset)
    }
}

/// One connection. Arrays are by sender: `[to server, to client]`. All zero when nothing was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(2))]
pub struct TcpTrack {
    next: [u32; 2],
    /// While the sender is at [`Level::SYN`]: microseconds of its latest SYN, modulo 2³².
    ack: [u32; 2],
    window: [u16; 2],
    clocks: u32,
    bits: u32,
    retransmissions: [u8; 2],
}

const _: () = assert!(size_of::<TcpTrack>() == 30 && align_of::<TcpTrack>() == 2);

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// How far one side is in the handshake: the most it has said.
struct Level;

impl Level {
    const SYN: u32 = 1;
    const SYN_ACK: u32 = 2;
    /// ACK without SYN.
    const ACK: u32 = 3;
}

/// Places in `bits`: the first bit for direction 0, and bits a direction.
type Place = (u32, u32);
const LEVEL: Place = (0, 2);
const FINISHED: Place = (4, 1);
const DUPLICATES: Place = (6, 2);
const KEEP_ALIVE: Place = (10, 1);
/// Window shift plus one; 0 when its SYN was not seen.
const SCALE: Place = (12, 4);
const OUT_OF_WINDOW: Place = (20, 5);
const WAS_RESET: u32 = 1 << 30;
const USES_SACK: u32 = 1 << 31;

/// The window is never taken to be smaller when looking back: what earlier windows allowed may still be on its way.
const LEAST_LOOK_BACK: u32 = 66_000;
/// A segment that close behind duplicate acknowledgements answers them.
const FAST_WITHIN_NS: u64 = 20_000_000;
/// How soon after its successors a segment is merely out of order, when the handshake time is unknown.
const OUT_OF_ORDER_NS: u64 = 3_000_000;
/// As many bytes, acknowledged by one side, are taken to have been sent by the other though this box has not seen them.
const LARGEST_GAP: u32 = 1 << 24;
/// Handshake times up to eight seconds leave room for a stamp above them; longer ones take all 31 bits.
const SHORT: u32 = 1 << 23;
const LONG: u32 = 1 << 31;

impl TcpTrack {
    /// Takes in a segment of `direction`.
    #[inline]
    pub fn observe(&mut self, direction: usize, segment: &Segment, at: Moment, rules: TcpRules) -> Seen {
        let direction = direction & 1;
        if segment.flags & (SYN | RST) != 0 {
            return self.observe_control(direction, segment, at, rules);
        }
        let mut seen = Seen::default();
        if is_checked(rules) && !self.is_in_window(direction, segment) {
            seen = self.count_out_of_window(direction, rules);
            if seen.refused {
                return seen;
            }
            self.follow_gap(direction, segment);
        }
        self.classify(direction, segment, at, &mut seen);
        if !seen.out_of_window {
            if segment.flags & ACK != 0 {
                self.take_ack(direction, segment, at, rules);
            }
            self.advance_sequence(direction, segment, at);
        }
        seen
    }

    pub fn state(&self) -> TcpState {
        let (one, other) = (self.get(LEVEL, 0), self.get(LEVEL, 1));
        let fins = self.get(FINISHED, 0) + self.get(FINISHED, 1);
        if self.bits & WAS_RESET != 0 {
            TcpState::Reset
        } else if fins == 2 {
            TcpState::Closed
        } else if self.is_up() {
            if fins == 0 { TcpState::Established } else { TcpState::Closing }
        } else if one == Level::SYN_ACK || other == Level::SYN_ACK || one + other == 2 * Level::SYN && one == other {
            TcpState::SynReceived
        } else if one == Level::SYN || other == Level::SYN {
            TcpState::SynSent
        } else {
            TcpState::Unconfirmed
        }
    }

    /// Nanoseconds, to the microsecond, from the latest SYN to the ACK that completed the handshake, or to the RST that
    /// refused it.
    pub fn handshake_rtt(&self) -> Option<u64> {
        self.rtt().checked_sub(1).map(|micros| u64::from(micros) * 1000)
    }

    /// Of the slice, by sender.
    pub fn retransmissions(&self) -> [u32; 2] {
        self.retransmissions.map(u32::from)
    }

    /// Of the slice, by sender.
    pub fn out_of_window(&self) -> [u32; 2] {
        [self.get(OUT_OF_WINDOW, 0), self.get(OUT_OF_WINDOW, 1)]
    }

    /// A counter of the slice is at its limit: the next segment belongs to another slice. Counters stay at their
    /// limit if there is none.
    #[inline]
    pub fn is_full(&self) -> bool {
        let [one, other] = self.retransmissions;
        let window = self.bits >> OUT_OF_WINDOW.0 & 0x3ff;
        one.max(other) == u8::MAX || window & 0x1f == 0x1f || window >> 5 == 0x1f
    }

    pub fn begin_slice(&mut self) {
        self.retransmissions = [0; 2];
        self.bits &= !(0x3ff << OUT_OF_WINDOW.0);
    }

    /// Both SYNs were seen, so windows and their scales are known.
    pub fn is_fully_observed(&self) -> bool {
        self.get(SCALE, 0) != 0 && self.get(SCALE, 1) != 0
    }

    /// A SYN after the end, or after stray segments of something unknown: of another connection, and not once more the
    /// one that began this.
    pub fn is_begun_anew(&self, direction: usize, segment: &Segment) -> bool {
        let asks = segment.flags & (SYN | ACK | RST) == SYN;
        let state = self.state();
        let may = state.is_over() || (state == TcpState::Unconfirmed && self.began_unseen());
        let sent = self.next[direction & 1];
        asks && may && (sent == 0 || sent.wrapping_sub(segment.end()) > LEAST_LOOK_BACK)
    }

    /// Whether `direction` may have sent a segment that begins at `seq` not long ago: an error that quotes another is
    /// forged or stale (RFC 5927, 4.1).
    pub fn may_have_sent(&self, direction: usize, seq: u32) -> bool {
        let sent = self.next[direction & 1];
        let look_back = self.window_of(1 - (direction & 1)).max(LEAST_LOOK_BACK);
        sent != 0 && sent.wrapping_sub(seq) <= look_back
    }

    /// What flows of other protocols keep in the same place.
    #[inline]
    pub(super) fn other_words(&self) -> [u16; 2] {
        self.window
    }

    #[inline]
    pub(super) fn set_other_words(&mut self, words: [u16; 2]) {
        self.window = words;
    }

    /// No SYN was seen: who began is not known from the handshake.
    pub fn began_unseen(&self) -> bool {
        self.get(SCALE, 0) == 0 && self.get(SCALE, 1) == 0
    }

    /// The two sides change places.
    pub fn swap(&mut self) {
        let (mut next, mut ack, mut window) = (self.next, self.ack, self.window);
        next.swap(0, 1);
        ack.swap(0, 1);
        window.swap(0, 1);
        (self.next, self.ack, self.window) = (next, ack, window);
        self.retransmissions.swap(0, 1);
        for place in [LEVEL, FINISHED, DUPLICATES, KEEP_ALIVE, SCALE, OUT_OF_WINDOW] {
            let (one, other) = (self.get(place, 0), self.get(place, 1));
            self.set(place, 0, other);
            self.set(place, 1, one);
        }
    }

    /// SYN and RST.
    #[cold]
    fn observe_control(&mut self, direction: usize, segment: &Segment, at: Moment, rules: TcpRules) -> Seen {
        if segment.flags & RST != 0 {
            return self.observe_reset(direction, segment, at, rules);
        }
        let mut seen = Seen::default();
        let level = self.get(LEVEL, direction);
        let is_answer = segment.flags & ACK != 0;
        let is_known = self.next[direction] != 0;
        let ends = segment.seq.wrapping_add(1).wrapping_add(segment.payload);
        let is_other = ends != self.next[direction];
        // A connection that is up is not impressed: its receiver challenges a new SYN (RFC 5961), and must get it.
        if self.has_begun() && is_known && self.next[direction].wrapping_sub(ends) > LEAST_LOOK_BACK {
            return seen;
        }
        if is_checked(rules) && is_answer && !self.answers(direction, segment) {
            seen = self.count_out_of_window(direction, rules);
            if seen.refused {
                return seen;
            }
        } else if level <= Level::SYN_ACK && (!is_known || is_other) {
            // First heard of this side, or the same ports again with another sequence number.
            self.next[direction] = ends;
            self.put_stamp(at);
        } else {
            self.classify(direction, segment, at, &mut seen);
        }
        if !seen.out_of_window {
            if !is_answer && !self.is_up() {
                // Refused, and asks again.
                self.bits &= !WAS_RESET;
            }
            self.raise_by_syn(direction, segment, at);
        }
        seen
    }

    /// Level, SYN time or acknowledgement, window and scale out of a SYN.
    fn raise_by_syn(&mut self, direction: usize, segment: &Segment, at: Moment) {
        let level = self.get(LEVEL, direction);
        let says = if segment.flags & ACK == 0 { Level::SYN } else { Level::SYN_ACK };
        if says < level || level == Level::ACK {
            // Out of turn: it was a SYN, but what it says of windows does not hold.
            if self.get(SCALE, direction) == 0 {
                self.set(SCALE, direction, 15);
            }
            return;
        }
        self.set(LEVEL, direction, says);
        self.ack[direction] = if says == Level::SYN { micros(at.now_ns) as u32 } else { segment.ack };
        self.set(SCALE, direction, u32::from(segment.scale.map_or(0, |shift| shift.min(14))) + 1);
        self.window[direction] = shrink(segment.window, self.shift(direction));
        // Both or none (RFC 7323): without the option in the answer the first SYN's does not hold.
        let other = 1 - direction;
        if segment.scale.is_none() && self.get(SCALE, other) > 1 {
            let raw = u32::from(self.window[other]) << self.shift(other);
            self.window[other] = raw.min(0xffff) as u16;
            self.set(SCALE, other, 1);
        }
    }

    /// A RST counts when it answers the SYN, or begins exactly where its receiver may be: behind what that has
    /// acknowledged, or behind all that was sent. Receivers ignore any other, even in the window (RFC 5961, 3.2), which
    /// would be too easy to guess.
    fn observe_reset(&mut self, direction: usize, segment: &Segment, at: Moment, rules: TcpRules) -> Seen {
        let mut seen = Seen::default();
        let other = 1 - direction;
        let refuses = self.get(LEVEL, other) == Level::SYN && segment.flags & ACK != 0;
        if refuses && segment.ack == self.next[other] && self.next[direction] == 0 {
            self.measure_handshake(other, at);
        }
        if is_checked(rules) && !self.may_reset(direction, segment) {
            seen = self.count_out_of_window(direction, rules);
        } else if !self.state().is_over() {
            self.bits |= WAS_RESET;
        }
        seen
    }

    fn may_reset(&self, direction: usize, segment: &Segment) -> bool {
        let other = 1 - direction;
        let sent = self.next[direction];
        let is_next = sent != 0 && segment.seq == sent;
        match self.get(LEVEL, other) {
            Level::SYN => is_next || (segment.flags & ACK != 0 && segment.ack == self.next[other]),
            _ if self.has_acknowledged(other) => is_next || segment.seq == self.ack[other],
            // Nothing is known of its receiver; if nothing is of its sender either, it may be right.
            _ => is_next || sent == 0,
        }
    }

    /// A SYN+ACK acknowledges the SYN, or as much of its payload as was taken.
    fn answers(&self, direction: usize, segment: &Segment) -> bool {
        let asked = self.next[1 - direction];
        asked == 0 || asked.wrapping_sub(segment.ack) <= 0xffff
    }

    /// The handshake is complete, or both sides acknowledge in mid-stream; true of what is over, too.
    #[inline]
    fn is_up(&self) -> bool {
        let (one, other) = (self.get(LEVEL, 0), self.get(LEVEL, 1));
        one.max(other) == Level::ACK && one.min(other) >= Level::SYN_ACK
    }

    /// Past the handshake, so that SYNs do not begin anything.
    fn has_begun(&self) -> bool {
        self.is_up() || self.get(FINISHED, 0) + self.get(FINISHED, 1) == 2
    }

    fn count_out_of_window(&mut self, direction: usize, rules: TcpRules) -> Seen {
        let count = self.get(OUT_OF_WINDOW, direction);
        self.set(OUT_OF_WINDOW, direction, (count + 1).min(0x1f));
        let is_up = matches!(self.state(), TcpState::Established | TcpState::Closing | TcpState::Closed);
        let refused = rules.window == WindowCheck::Strict && self.is_fully_observed() && is_up;
        Seen { out_of_window: true, refused, ..Seen::default() }
    }

    /// What has no ACK flag is in no window once anything was said: receivers drop it (RFC 9293, 3.10.7.4).
    #[inline]
    fn is_in_window(&self, direction: usize, segment: &Segment) -> bool {
        if segment.flags & ACK == 0 {
            return self.get(LEVEL, 0) | self.get(LEVEL, 1) == 0;
        }
        if !self.is_offered(direction, segment) {
            return false;
        }
        let sent = self.next[1 - direction];
        if sent == 0 {
            return true;
        }
        let look_back = self.window_of(direction).max(LEAST_LOOK_BACK);
        let first = if self.has_acknowledged(direction) { self.ack[direction] } else { sent };
        !is_before(sent, segment.ack) && !is_before(segment.ack, first.wrapping_sub(look_back))
    }

    /// It begins and ends where the receiver has room, or had lately.
    #[inline]
    fn is_offered(&self, direction: usize, segment: &Segment) -> bool {
        let other = 1 - direction;
        let look_back = self.window_of(other).max(LEAST_LOOK_BACK);
        !self.has_acknowledged(other)
            || !(is_before(self.edge(other), segment.seq)
                || is_before(segment.end(), self.ack[other].wrapping_sub(look_back)))
    }

    /// An acknowledgement that is out of the window only because this box has not seen what it acknowledges: that was
    /// sent. The sender's own word would not do, for anybody who guesses 24 bits less than a sequence number could give
    /// it.
    #[cold]
    fn follow_gap(&mut self, direction: usize, segment: &Segment) {
        let other = 1 - direction;
        let ahead = segment.ack.wrapping_sub(self.next[other]);
        let is_ahead = segment.flags & ACK != 0 && self.next[other] != 0 && (1..=LARGEST_GAP).contains(&ahead);
        if is_ahead && self.is_up() && self.is_offered(direction, segment) {
            self.next[other] = segment.ack;
        }
    }

    /// `ack` and `window` of this side are those of an acknowledgement.
    #[inline]
    fn has_acknowledged(&self, direction: usize) -> bool {
        self.get(LEVEL, direction) >= Level::SYN_ACK && self.ack[direction] != 0
    }

    /// Sent before, out of order, or neither.
    #[inline]
    fn classify(&mut self, direction: usize, segment: &Segment, at: Moment, seen: &mut Seen) {
        let (next, end) = (self.next[direction], segment.end());
        let is_control = segment.flags & (SYN | FIN) != 0;
        let is_keep_alive = segment.payload <= 1 && !is_control && next != 0 && segment.seq == next.wrapping_sub(1);
        self.set(KEEP_ALIVE, direction, is_keep_alive.into());
        if is_keep_alive || (segment.payload == 0 && !is_control) || next == 0 {
            return;
        }
        let other = 1 - direction;
        let received = self.has_acknowledged(other);
        let data_end = segment.seq.wrapping_add(segment.payload);
        if segment.payload > 0 && received && !is_before(self.ack[other], data_end) {
            seen.retransmission = true;
        } else if is_before(segment.seq, next) && !(segment.payload > 1 && segment.seq == next.wrapping_sub(1)) {
            let is_asked_for = self.get(DUPLICATES, other) >= 2
                && at.idle_ns < FAST_WITHIN_NS
                && (self.ack[other] == segment.seq || self.bits & USES_SACK != 0);
            seen.out_of_order = !is_asked_for && end != next && self.moved_lately(at);
            seen.retransmission = !seen.out_of_order;
        }
        if seen.retransmission {
            let count = &mut self.retransmissions[direction];
            *count = count.saturating_add(1);
        }
    }

    /// An acknowledgement inside the window; a FIN counts only with one (RFC 9293, 3.10.7.4).
    #[inline]
    fn take_ack(&mut self, direction: usize, segment: &Segment, at: Moment, rules: TcpRules) {
        let level = self.get(LEVEL, direction);
        if level != Level::ACK {
            self.complete(direction, segment, at);
        }
        if level < Level::SYN_ACK {
            (self.ack[direction], self.window[direction]) = (segment.ack, segment.window);
        } else {
            self.acknowledge(direction, segment);
        }
        if rules.asymmetric {
            self.infer(direction, level);
        }
        if segment.flags & FIN != 0 {
            self.set(FINISHED, direction, 1);
        }
    }

    /// First ACK without SYN of this side.
    #[cold]
    fn complete(&mut self, direction: usize, segment: &Segment, at: Moment) {
        // That of the other side may have gone another way.
        let is_answered = matches!(self.get(LEVEL, 1 - direction), 0 | Level::SYN_ACK);
        if self.get(LEVEL, direction) == Level::SYN && is_answered && segment.seq == self.next[direction] {
            self.measure_handshake(direction, at);
        }
        self.set(LEVEL, direction, Level::ACK);
    }

    /// The SYN of `asker` is answered now.
    fn measure_handshake(&mut self, asker: usize, at: Moment) {
        if self.rtt() == 0 {
            // Modulo 2³² microseconds: an hour, which no handshake takes.
            let asked = self.ack[asker];
            self.put_rtt((micros(at.now_ns) as u32).wrapping_sub(asked).into(), at);
        }
    }

    /// Acknowledgement, window and duplicates.
    #[inline]
    fn acknowledge(&mut self, direction: usize, segment: &Segment) {
        if segment.sack {
            self.bits |= USES_SACK;
        }
        let before = self.ack[direction];
        if before != segment.ack {
            if before == 0 || !is_before(segment.ack, before) {
                (self.ack[direction], self.window[direction]) = (segment.ack, segment.window);
            }
            self.set(DUPLICATES, direction, 0);
            return;
        }
        let is_bare = segment.payload == 0 && segment.flags & FIN == 0 && segment.seq == self.next[direction];
        let answers_probe = self.get(KEEP_ALIVE, 1 - direction) != 0;
        if is_bare && segment.window != 0 && segment.window == self.window[direction] && !answers_probe {
            let count = self.get(DUPLICATES, direction);
            self.set(DUPLICATES, direction, (count + 1).min(3));
        }
        self.window[direction] = segment.window;
    }

    /// One direction alone: what this side says tells what the other side must have said.
    fn infer(&mut self, direction: usize, level: u32) {
        let other = 1 - direction;
        if self.next[other] == 0 && level != 0 {
            // Its SYN was answered, its SYN+ACK acknowledged, or it goes on in mid-stream.
            let heard = if level == Level::SYN { Level::SYN_ACK } else { Level::ACK };
            let known = self.get(LEVEL, other);
            self.set(LEVEL, other, known.max(heard));
        }
    }

    #[inline]
    fn advance_sequence(&mut self, direction: usize, segment: &Segment, at: Moment) {
        let (next, end) = (self.next[direction], segment.end());
        if next != 0 && end.wrapping_sub(next) as i32 <= 0 {
            return;
        }
        if segment.payload == 1 && segment.seq == next && self.has_zero_window(1 - direction) {
            // A window probe.
            return;
        }
        self.next[direction] = end;
        self.put_stamp(at);
    }

    fn has_zero_window(&self, direction: usize) -> bool {
        self.get(LEVEL, direction) >= Level::SYN_ACK && self.window[direction] == 0
    }

    /// Up to where the other side may send.
    #[inline]
    fn edge(&self, direction: usize) -> u32 {
        self.ack[direction].wrapping_add(self.window_of(direction).max(1))
    }

    #[inline]
    fn window_of(&self, direction: usize) -> u32 {
        u32::from(self.window[direction]) << self.shift(direction)
    }

    /// Unknown scales are taken to be the largest.
    #[inline]
    fn shift(&self, direction: usize) -> u32 {
        let stored = self.get(SCALE, direction);
        if stored == 0 { 14 } else { stored - 1 }
    }

    fn put_rtt(&mut self, micros: u64, at: Moment) {
        // One more than it is, because 0 says that it is unknown.
        let value = micros.saturating_add(1).min(u64::from(LONG - 1)) as u32;
        self.clocks = if value < SHORT { value } else { value | LONG };
        self.put_stamp(at);
    }

    /// Handshake time in microseconds plus one; 0 when unknown.
    #[inline]
    fn rtt(&self) -> u32 {
        if self.clocks & LONG != 0 { self.clocks & !LONG } else { self.clocks & (SHORT - 1) }
    }

    /// What counts as lately, and the unit of stamps: an eighth to a sixteenth of it.
    #[inline]
    fn order_scale(&self) -> (u64, u32) {
        let threshold = match self.rtt() {
            0 | 1 => OUT_OF_ORDER_NS,
            rtt => u64::from(rtt - 1) * 1000,
        };
        (threshold, 60 - threshold.leading_zeros())
    }

    #[inline]
    fn put_stamp(&mut self, at: Moment) {
        if self.clocks & LONG == 0 {
            let (_, unit) = self.order_scale();
            let stamp = u32::from((at.now_ns >> unit) as u8);
            self.clocks = self.clocks & (SHORT - 1) | stamp << SHORT.trailing_zeros();
        }
    }

    /// Sequence numbers moved on within the time that tells disorder from repetition.
    fn moved_lately(&self, at: Moment) -> bool {
        let (threshold, unit) = self.order_scale();
        let stamp = (self.clocks >> SHORT.trailing_zeros()) as u8;
        let age = ((at.now_ns >> unit) as u8).wrapping_sub(stamp);
        at.idle_ns < threshold && (self.clocks & LONG != 0 || u64::from(age) <= threshold >> unit)
    }

    #[inline]
    fn get(&self, (first, width): Place, direction: usize) -> u32 {
        self.bits >> (first + width * direction as u32) & ((1 << width) - 1)
    }

    #[inline]
    fn set(&mut self, (first, width): Place, direction: usize, value: u32) {
        let shift = first + width * direction as u32;
        let mask = ((1 << width) - 1) << shift;
        self.bits = self.bits & !mask | value << shift & mask;
    }
}

impl Segment {
    /// Sequence number after this segment.
    #[inline]
    fn end(&self) -> u32 {
        let flags = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.seq.wrapping_add(self.payload).wrapping_add(flags)
    }
}

#[inline]
fn is_checked(rules: TcpRules) -> bool {
    rules.window != WindowCheck::Off && !rules.asymmetric
}

#[inline]
fn is_before(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

fn micros(ns: u64) -> u64 {
    ns / 1000
}

/// A window that is not scaled, as if it were.
fn shrink(window: u16, shift: u32) -> u16 {
    u32::from(window).div_ceil(1 << shift) as u16
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
