//! Looking at packets on their way: captures and traces.
//!
//! - **In**: every packet of a burst at the points below, while a [`TapSet`] with taps in it is published.
//! - **Out**: capture records in one [`TapRing`] per worker and capture; [`TraceNote`]s in one queue per worker and
//!   trace.
//! - **Runs on**: the worker's lcore. No allocation, no lock; the clock is read once more per burst.
//! - **When full**: a capture record that does not fit is not written and counted by port and point; a trace gives up its
//!   oldest note, or its newest, as asked, and counts it. Packets go on in any case.
//!
//! ```text
//!   receive ─ parse ─┬─ flow, rules ─┬─ mirror, act ─┬─ flush
//!                    rx              verdict         │
//!                                    drop ◄──────────┤ refused
//!                                                    ├─ taken by the device: tx
//!                                                    └─ not taken: drop (transmit_full)
//! ```
//! A tap's expression is asked once, when the verdict is known, so that any point can be chosen by what became of the
//! packet. Only what full queues lose comes later: these are asked again, at the drop point. Nothing in the box changes
//! a packet between the points; what differs is which packets come by, when, and by which port.
//!
//! Captured bytes are copied into the ring. Keeping the buffer itself by reference would be cheaper for long packets, but
//! a reader that stops reading would then hold the pool's buffers, and with them the traffic.
//!
//! While nothing is tapped a burst costs two tests of a plain field (see `bench/taps.rs`).

mod desk;
mod note;
mod record;
mod ring;
mod stage;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use super::counters::Counter;
use crate::filter::Expression;
use crate::rules::Generational;

pub use note::{Copies, Fate, FlowSight, HEAD_BYTES, TraceNote};
pub use record::{CaptureHead, HEAD_WORDS, Judged};
pub use ring::TapRing;
pub use stage::MAX_SNAP;

pub(super) use stage::TapState;

/// Most taps at a time.
pub const MAX_TAPS: usize = 16;

/// Where a packet can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Point {
    /// Received by the worker that owns its flow.
    Rx,
    /// Judged.
    Verdict,
    /// Taken by the device.
    Tx,
    /// Will not be forwarded.
    Drop,
}

impl Point {
    pub const ALL: [Point; 4] = [Point::Rx, Point::Verdict, Point::Tx, Point::Drop];

    pub fn name(self) -> &'static str {
        match self {
            Point::Rx => "rx",
            Point::Verdict => "verdict",
            Point::Tx => "tx",
            Point::Drop => "drop",
        }
    }
}

/// A set of points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Points(u8);

impl Points {
    pub fn has(self, point: Point) -> bool {
        self.0 & (1 << point as u8) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Point> {
        Point::ALL.into_iter().filter(move |point| self.has(*point))
    }
}

impl FromIterator<Point> for Points {
    fn from_iter<I: IntoIterator<Item = Point>>(points: I) -> Self {
        Self(points.into_iter().fold(0, |bits, point| bits | 1 << point as u8))
    }
}

/// Everything tapped now. Published to the workers like a generation of rules.
#[derive(Debug)]
pub struct TapSet {
    /// Ascending, see [`Generational`].
    pub number: u32,
    /// At most [`MAX_TAPS`]; those beyond see nothing.
    pub taps: Vec<Tap>,
    /// Names of the ports, by the worker's output number.
    pub ports: Arc<[String]>,
}

impl Generational for TapSet {
    fn generation(&self) -> u32 {
        self.number
    }
}

/// One capture or trace.
#[derive(Clone, Debug)]
pub struct Tap {
    /// Which packets; bound to the names of the policy in force.
    pub filter: Arc<Expression>,
    pub points: Points,
    /// Which ports, a bit each.
    pub ports: PortMask,
    pub sink: TapSink,
}

/// Where what a tap sees goes to: one place for each worker.
#[derive(Clone, Debug)]
pub enum TapSink {
    Capture(Vec<Arc<CaptureLane>>),
    Trace(Vec<Arc<TraceLane>>),
}

/// Ports by number: all, or some of the first [`PortMask::PORTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMask(pub u64);

impl PortMask {
    pub const ALL: PortMask = PortMask(u64::MAX);
    pub const PORTS: u16 = 64;

    pub fn has(self, port: u16) -> bool {
        if port < Self::PORTS { self.0 >> port & 1 != 0 } else { self == Self::ALL }
    }
}

/// One worker's share of a capture.
#[derive(Debug)]
pub struct CaptureLane {
    pub ring: TapRing,
    /// Bytes kept of a packet.
    pub snap_len: u32,
    counters: Box<[PointCounters]>,
}

/// What came by at one point of one port.
#[derive(Debug, Default)]
pub struct PointCounters {
    /// Packets, whether or not the expression chose them.
    pub seen: Counter,
    /// Packets the expression chose.
    pub matched: Counter,
    /// Of these, packets that found no room in the ring.
    pub lost: Counter,
    /// Lost ones that a record has told of.
    told: Counter,
}

impl CaptureLane {
    /// `ring_bytes` of memory for `ports` ports.
    pub fn new(ring_bytes: usize, snap_len: u32, ports: usize) -> Self {
        let counters = (0..ports.max(1) * Point::ALL.len()).map(|_| PointCounters::default()).collect();
        Self { ring: TapRing::new(ring_bytes), snap_len, counters }
    }

    /// Counters of a port that there is.
    pub fn at(&self, port: u16, point: Point) -> Option<&PointCounters> {
        self.counters.get(usize::from(port) * Point::ALL.len() + point as usize)
    }
}

/// One worker's share of a trace: a bounded queue of notes.
#[derive(Debug)]
pub struct TraceLane {
    notes: ArrayQueue<TraceNote>,
    keep: Keep,
    /// Packets the expression chose.
    pub matched: Counter,
    /// Notes given up because there were more than places.
    pub given_up: Counter,
    full: AtomicBool,
}

/// Which notes a trace keeps when there are more than it has places for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Last,
    First,
}

impl TraceLane {
    pub fn new(places: usize, keep: Keep) -> Self {
        Self {
            notes: ArrayQueue::new(places.max(1)),
            keep,
            matched: Counter::default(),
            given_up: Counter::default(),
            full: AtomicBool::new(false),
        }
    }

    /// Takes the oldest note away.
    pub fn pop(&self) -> Option<TraceNote> {
        self.notes.pop()
    }

    /// The worker found no place for a note that must not push out another: it has all it was asked for.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    fn push(&self, note: TraceNote) {
        self.matched.add(1);
        let places = self.notes.capacity() as u64;
        let gave_up = match self.keep {
            Keep::Last => self.notes.force_push(note).is_some(),
            // Taking notes away makes no room for more than were asked for.
            Keep::First => self.matched.get() > places || self.notes.push(note).is_err(),
        };
        if gave_up {
            self.given_up.add(1);
        }
        if self.keep == Keep::First && self.matched.get() >= places {
            self.full.store(true, Ordering::Relaxed);
        }
    }
}
