//! TCP as it passes the gateway: handshake, segments and acknowledgements, loss and recovery, close.
//!
//! The two sides' application is a [`Conversation`]: who says what after how long. A flow plans a few
//! packets ahead (one window, with its acknowledgements) and hands them out in order of time.
//!
//! All times are those at the gateway. A side answers what passed the gateway at `t` with a packet
//! that passes at `t` + the round trip between gateway and that side.

use std::collections::VecDeque;
use std::fmt;

use super::content::Body;
use super::dice::Dice;
use super::frames::{ACK, FIN, PSH, RST, SYN};
use super::merge::Source;
use super::stage::{Flags, Side, Stage, Wire};

const MS: u64 = 1_000_000;

/// How long an acknowledgement waits for data to travel with.
const DELAYED_ACK_NS: u64 = 40 * MS;

/// Smallest time-out of a retransmission, and that of a SYN.
const RETRANSMIT_NS: u64 = 200 * MS;
const SYN_RETRANSMIT_NS: u64 = 1_000 * MS;

/// Segments in flight: at first, and at most (so that they fit the window that is announced).
const FIRST_WINDOW: usize = 10;
const MAX_WINDOW: usize = 40;

/// What comes next in a conversation; `after_ns` is the time the side takes once it can act.
#[derive(Debug)]
pub(super) enum Next {
    Say {
        from: Side,
        after_ns: u64,
        body: Body,
    },
    /// One side closes, the other follows.
    Close {
        from: Side,
        after_ns: u64,
    },
    Reset {
        from: Side,
        after_ns: u64,
    },
}

/// An application's side of a connection.
pub(super) trait Conversation: fmt::Debug {
    fn next(&mut self, dice: &mut Dice) -> Next;
}

impl Conversation for Box<dyn Conversation> {
    fn next(&mut self, dice: &mut Dice) -> Next {
        (**self).next(dice)
    }
}

/// A conversation that is known from the start; closed by the client when it runs out.
#[derive(Debug)]
pub(super) struct Script(VecDeque<Next>);

impl Script {
    pub(super) fn new(steps: impl IntoIterator<Item = Next>) -> Self {
        Self(steps.into_iter().collect())
    }
}

impl Conversation for Script {
    fn next(&mut self, _: &mut Dice) -> Next {
        self.0.pop_front().unwrap_or(Next::Close { from: Side::Client, after_ns: 0 })
    }
}

/// Delays and loss of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Round trip between the gateway and each side.
    pub(super) rtt_ns: [u64; 2],
    /// Between two full segments.
    pub(super) gap_ns: u64,
    /// Probability that a segment is lost.
    pub(super) loss: f64,
}

/// A planned packet. The payload is a part of the current body.
#[derive(Clone, Copy, Debug)]
struct Packet {
    at: u64,
    side: Side,
    flags: Flags,
    offset: u64,
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    Closed,
}

/// One TCP connection.
#[derive(Debug)]
pub(super) struct TcpFlow {
    wire: Wire,
    pace: Pace,
    dice: Dice,
    talk: Box<dyn Conversation>,
    phase: Phase,
    queue: VecDeque<Packet>,
    /// Next sequence number of each side.
    seq: [u32; 2],
    /// Segments each side may have in flight.
    window: [usize; 2],
    body: Body,
    speaker: Side,
    said: u64,
    /// When the next window can start.
    ready: u64,
    /// When the last data (or opening) passed, and from whom.
    last: (u64, Side),
    /// The last data is not acknowledged yet.
    owed: bool,
    /// Time of the latest planned packet.
    planned: u64,
}

impl TcpFlow {
    pub(super) fn new(wire: Wire, pace: Pace, start: u64, mut dice: Dice, talk: Box<dyn Conversation>) -> Self {
        Self {
            wire,
            pace,
            seq: [dice.u32(), dice.u32()],
            dice,
            talk,
            phase: Phase::Opening,
            queue: VecDeque::new(),
            window: [FIRST_WINDOW; 2],
            body: Body::exact(Vec::new()),
            speaker: Side::Client,
            said: 0,
            ready: start,
            last: (start, Side::Client),
            owed: false,
            planned: start,
        }
    }

    fn plan(&mut self) {
        match self.phase {
            Phase::Opening => self.open(),
            Phase::Open if self.said < self.body.len() => self.say_window(),
            Phase::Open => match self.talk.next(&mut self.dice) {
                Next::Say { from, after_ns, body } => {
                    self.ready = self.turn_starts(from, after_ns);
                    (self.body, self.speaker, self.said) = (body, from, 0);
                }
                Next::Close { from, after_ns } => self.close(from, after_ns),
                Next::Reset { from, after_ns } => {
                    let at = self.turn_starts(from, after_ns);
                    self.push(at, from, RST | ACK);
                    self.phase = Phase::Closed;
                }
            },
            Phase::Closed => {}
        }
    }

    /// The three-way handshake; a lost SYN is sent again.
    fn open(&mut self) {
        let mut at = self.ready;
        if self.dice.chance(self.pace.loss) {
            if self.dice.chance(0.5) {
                self.push(at, Side::Client, SYN);
            }
            at += SYN_RETRANSMIT_NS;
        }
        self.push(at, Side::Client, SYN);
        self.advance(Side::Client, 1);
        let answer = at + self.pace.rtt_ns[Side::Server as usize];
        self.push(answer, Side::Server, SYN | ACK);
        self.advance(Side::Server, 1);
        let done = answer + self.pace.rtt_ns[Side::Client as usize];
        self.push(done, Side::Client, ACK);
        self.last = (done, Side::Client);
        self.phase = Phase::Open;
    }

    /// When `from` can begin its turn; plans the acknowledgement that is still owed if it would come late.
    fn turn_starts(&mut self, from: Side, after_ns: u64) -> u64 {
        let (last, speaker) = self.last;
        let listener = speaker.other();
        let heard = last + self.pace.rtt_ns[listener as usize];
        let due = if from == speaker { last + after_ns } else { heard + after_ns };
        if self.owed {
            self.owed = false;
            let waited = heard + DELAYED_ACK_NS;
            if due > waited {
                self.push(waited, listener, ACK);
            } else if from == speaker {
                self.push(heard, listener, ACK);
            }
        }
        due.max(self.planned + 1_000)
    }

    /// Plans one window of segments and the acknowledgements of it.
    fn say_window(&mut self) {
        let mss = if self.wire.is_v6() { 1440 } else { 1460 };
        let from = self.speaker;
        let left = self.body.len() - self.said;
        let count = (left.div_ceil(mss) as usize).min(self.window[from as usize]);
        let sent = left.min(count as u64 * mss);
        let first = Window { at: self.ready, base: self.seq[from as usize], offset: self.said, mss, count, sent };
        let ends_body = sent == left;
        let lost: Vec<usize> = match self.pace.loss {
            loss if loss > 0.0 => (0..count).filter(|_| self.dice.chance(loss)).collect(),
            _ => Vec::new(),
        };
        let mut packets = Vec::with_capacity(count * 2);
        let last_at = first.time(count - 1, self.pace.gap_ns);
        let acked = if lost.is_empty() {
            self.acknowledge(&first, ends_body, &mut packets)
        } else {
            self.recover(&first, &lost, ends_body, &mut packets)
        };
        packets.sort_by_key(|p| p.at);
        self.queue.extend(packets);
        self.advance(from, sent as u32);
        self.said += sent;
        self.planned = self.queue.back().map_or(self.planned, |p| p.at);
        let window = &mut self.window[from as usize];
        *window = if lost.is_empty() { (*window * 2).min(MAX_WINDOW) } else { (*window / 2).max(2) };
        let (last_sent, last_ack) = acked;
        self.last = (last_sent.max(last_at), from);
        self.ready = (last_at + self.pace.gap_ns).max(last_ack + self.pace.rtt_ns[from as usize]);
    }

    /// Nothing is lost: every second segment is acknowledged, and the last one unless it ends the body.
    /// Returns when the last segment and the last acknowledgement pass.
    fn acknowledge(&mut self, window: &Window, ends_body: bool, packets: &mut Vec<Packet>) -> (u64, u64) {
        let (from, to) = (self.speaker, self.speaker.other());
        let mut last_ack = 0;
        for i in 0..window.count {
            let at = window.time(i, self.pace.gap_ns);
            packets.push(self.data(window, i, at, from, ends_body));
            let is_last = i + 1 == window.count;
            if i % 2 == 1 || (is_last && !ends_body) {
                last_ack = at + self.pace.rtt_ns[to as usize];
                packets.push(self.ack(last_ack, to, window.end(i)));
            } else if is_last {
                self.owed = true;
            }
        }
        (window.time(window.count - 1, self.pace.gap_ns), last_ack)
    }

    /// Some segments are lost, half of them before the gateway: repeated acknowledgements, then one
    /// retransmission after the other, each acknowledged (NewReno, RFC 6582, without selective
    /// acknowledgement).
    fn recover(&mut self, window: &Window, lost: &[usize], ends_body: bool, packets: &mut Vec<Packet>) -> (u64, u64) {
        let (from, to) = (self.speaker, self.speaker.other());
        let to_rtt = self.pace.rtt_ns[to as usize];
        let (gap, first_lost) = (self.pace.gap_ns, lost[0]);
        let mut repeated = 0;
        let mut resend = window.time(first_lost, gap) + RETRANSMIT_NS + to_rtt + self.pace.rtt_ns[from as usize];
        for i in 0..window.count {
            let at = window.time(i, gap);
            let is_lost = lost.contains(&i);
            if !is_lost || self.dice.chance(0.5) {
                packets.push(self.data(window, i, at, from, ends_body));
            }
            if i < first_lost && i % 2 == 1 {
                packets.push(self.ack(at + to_rtt, to, window.end(i)));
            } else if i > first_lost && !is_lost {
                packets.push(self.ack(at + to_rtt, to, window.start(first_lost)));
                repeated += 1;
                if repeated == 3 {
                    resend = at + to_rtt + self.pace.rtt_ns[from as usize];
                }
            }
        }
        let mut at = resend.max(window.time(window.count, gap));
        let mut times = (at, at);
        for (n, &i) in lost.iter().enumerate() {
            packets.push(self.data(window, i, at, from, ends_body));
            let upto = lost.get(n + 1).map_or(window.end(window.count - 1), |&next| window.start(next));
            times = (at, at + to_rtt);
            packets.push(self.ack(times.1, to, upto));
            at = times.1 + self.pace.rtt_ns[from as usize];
        }
        times
    }

    /// FIN and its answer, at once or after a while, from the other side.
    fn close(&mut self, from: Side, after_ns: u64) {
        let to = from.other();
        let at = self.turn_starts(from, after_ns);
        self.push(at, from, FIN | ACK);
        self.advance(from, 1);
        let heard = at + self.pace.rtt_ns[to as usize];
        let closed = if self.dice.chance(0.6) {
            heard
        } else {
            self.push(heard, to, ACK);
            heard + self.dice.exponential(300.0 * MS as f64) as u64 + 1_000
        };
        self.push(closed, to, FIN | ACK);
        self.advance(to, 1);
        self.push(closed + self.pace.rtt_ns[from as usize], from, ACK);
        self.phase = Phase::Closed;
    }

    fn advance(&mut self, side: Side, by: u32) {
        let seq = &mut self.seq[side as usize];
        *seq = seq.wrapping_add(by);
    }

    /// Plans a segment without payload at the current sequence numbers.
    fn push(&mut self, at: u64, side: Side, flags: u8) {
        let ack = if flags & ACK == 0 { 0 } else { self.seq[side.other() as usize] };
        let flags = Flags { flags, seq: self.seq[side as usize], ack };
        self.queue.push_back(Packet { at, side, flags, offset: 0, len: 0 });
        self.planned = self.planned.max(at);
    }

    fn ack(&self, at: u64, side: Side, ack: u32) -> Packet {
        let flags = Flags { flags: ACK, seq: self.seq[side as usize], ack };
        Packet { at, side, flags, offset: 0, len: 0 }
    }

    fn data(&self, window: &Window, i: usize, at: u64, side: Side, ends_body: bool) -> Packet {
        let push = if ends_body && i + 1 == window.count { PSH } else { 0 };
        let flags = Flags { flags: ACK | push, seq: window.start(i), ack: self.seq[side.other() as usize] };
        let from = i as u64 * window.mss;
        let len = (window.sent - from).min(window.mss) as usize;
        Packet { at, side, flags, offset: window.offset + from, len }
    }
}

impl Source for TcpFlow {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        loop {
            match self.queue.front() {
                Some(packet) if packet.at > now => return Some(packet.at),
                Some(&packet) => {
                    self.queue.pop_front();
                    let body = &self.body;
                    stage.send_tcp(now, &mut self.wire, packet.side, packet.flags, |out| {
                        body.write(packet.offset, packet.len, out);
                    });
                }
                None if self.phase == Phase::Closed => {
                    stage.close(&mut self.wire);
                    return None;
                }
                None => self.plan(),
            }
        }
    }
}

/// A run of segments sent without waiting.
#[derive(Clone, Copy, Debug)]
struct Window {
    at: u64,
    base: u32,
    /// Of the first byte in the body.
    offset: u64,
    mss: u64,
    count: usize,
    /// Bytes in all segments.
    sent: u64,
}

impl Window {
    fn time(&self, i: usize, gap_ns: u64) -> u64 {
        self.at + i as u64 * gap_ns
    }

    /// Sequence number of segment `i`, and of what follows it.
    fn start(&self, i: usize) -> u32 {
        self.base.wrapping_add((i as u64 * self.mss) as u32)
    }

    fn end(&self, i: usize) -> u32 {
        self.base.wrapping_add(((i as u64 + 1) * self.mss).min(self.sent) as u32)
    }
}
