//! The worker's end of the watchlist.
//!
//! Live, the newest list is adopted once a turn, as a generation of rules is. In a replay, time is cut into steps: at the
//! first packet of a step every worker hands out all records before it and waits for the list made from them, so that the
//! same packets meet the same list whatever threads do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::flow::{Effort, FlowTable, RecordSink};
use crate::mirror::Watchlist;
use crate::packet::{Host, Tuple};
use crate::rules::{Reader, Subject, Verdict};

use super::divert::{Diversions, Honeypot};
use super::io::{Lane, give_way};

/// What a worker knows of who is watched; nothing ever by default.
#[derive(Debug, Default)]
pub struct Watch {
    list: Option<Reader<Watchlist>>,
    pace: Option<Pace>,
    /// Number of the list in use; 0 without.
    number: u32,
    pub(super) diversions: Diversions,
    /// The output by which answers to what is being looked at leave.
    back: Option<usize>,
    from_honeypot: bool,
}

/// How the workers of a replay keep step with whoever makes the lists.
#[derive(Debug)]
pub struct Paces {
    step_ns: u64,
    /// By worker: the step that it waits for, or has got.
    reached: Box<[CachePadded<AtomicU64>]>,
    /// The step up to which workers may go.
    open: CachePadded<AtomicU64>,
}

/// One worker's.
#[derive(Debug)]
struct Pace {
    paces: Arc<Paces>,
    worker: usize,
    step: u64,
}

impl Watch {
    /// Live.
    pub fn new(list: Reader<Watchlist>) -> Self {
        Self { number: list.generation(), list: Some(list), ..Self::default() }
    }

    /// In a replay.
    pub fn in_step(list: Reader<Watchlist>, paces: Option<Arc<Paces>>, worker: usize) -> Self {
        Self { pace: paces.map(|paces| Pace { paces, worker, step: 0 }), ..Self::new(list) }
    }

    /// With somewhere to divert flows to.
    #[must_use]
    pub fn diverting(self, honeypots: Vec<Honeypot>) -> Self {
        Self { diversions: Diversions::new(honeypots), ..self }
    }

    /// Packets of this lane come next.
    #[inline]
    pub(super) fn come_to(&mut self, lane: &Lane) {
        self.from_honeypot = lane.forward.is_none() && self.diversions.has_honeypots();
        self.back = lane.back.filter(|_| lane.forward.is_some());
    }

    /// Number of the list in use; 0 without one.
    #[inline]
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Live: the newest list from now on. No reference to the list before is alive here.
    #[inline]
    pub(super) fn refresh(&mut self) {
        if self.pace.is_none() {
            self.adopt();
        }
    }

    fn adopt(&mut self) {
        if let Some(list) = &mut self.list
            && list.refresh()
        {
            self.number = list.generation();
        }
    }

    /// In a replay, before a packet of this time: true if it is the first of a step.
    #[inline]
    pub(super) fn is_due(&self, clock: u64) -> bool {
        self.pace.as_ref().is_some_and(|pace| clock / pace.paces.step_ns > pace.step)
    }

    /// Hands out every record from before the step that the time is in, and waits for that to begin.
    #[cold]
    pub(super) fn keep_step(
        &mut self,
        clock: u64,
        table: &mut FlowTable,
        sink: &mut impl RecordSink,
        show: impl FnOnce(u64),
        abort: &AtomicBool,
    ) {
        let Some(pace) = &mut self.pace else { return };
        pace.step = clock / pace.paces.step_ns;
        let begins = pace.step * pace.paces.step_ns;
        // A pass that began earlier is completed first.
        while !table.sweep(begins, Effort::ALL, sink) || table.watermark() < begins - 1 {}
        show(table.watermark());
        pace.paces.reached[pace.worker].store(pace.step, Ordering::Release);
        while pace.paces.open.load(Ordering::Acquire) < pace.step && !abort.load(Ordering::Relaxed) {
            give_way();
        }
        self.adopt();
    }

    /// In a replay: this worker has no more packets.
    pub(super) fn finish(&mut self) {
        if let Some(pace) = &self.pace {
            pace.paces.reached[pace.worker].store(u64::MAX, Ordering::Release);
        }
    }

    /// Fills in how a packet's flow stands by the list in use. Without a list nothing changes.
    pub(super) fn stand(&self, verdict: &mut Verdict, tuple: &Tuple) {
        if let Some(list) = &self.list {
            let diversion = verdict.standing.diversion;
            verdict.standing = list.get().standing(tuple, verdict);
            verdict.standing.diversion = diversion;
        }
    }

    /// The diversion of a flow that begins with this packet; 0 for none.
    pub(super) fn divert(&mut self, first: &Subject) -> u16 {
        match (self.back, self.honeypot(first)) {
            (Some(back), honeypot @ 1..) => self.diversions.number(honeypot, back, first),
            _ => 0,
        }
    }

    /// Whether who sent this has what it begins diverted.
    pub(super) fn is_diverted(&self, packet: &Subject) -> bool {
        self.honeypot(packet) > 0
    }

    /// What is looked at comes from a honeypot.
    #[inline]
    pub(super) fn is_from_honeypot(&self) -> bool {
        self.from_honeypot
    }

    fn honeypot(&self, packet: &Subject) -> u8 {
        self.list.as_ref().map_or(0, |list| list.get().honeypot(&Host::source(&packet.tuple)))
    }
}

impl Paces {
    /// # Panics
    /// `step_ns` is 0.
    pub fn new(step_ns: u64, workers: usize) -> Self {
        assert!(step_ns > 0, "a step takes time");
        let reached = (0..workers).map(|_| CachePadded::default()).collect();
        Self { step_ns, reached, open: CachePadded::default() }
    }

    /// The step that all workers that are not done have come to, if nobody may go on before it is opened, and the time at
    /// which it begins.
    pub fn waiting(&self) -> Option<(u64, u64)> {
        let slowest = self.reached.iter().map(|step| step.load(Ordering::Acquire)).min()?;
        let is_closed = slowest != u64::MAX && slowest > self.open.load(Ordering::Relaxed);
        is_closed.then(|| (slowest, slowest * self.step_ns))
    }

    /// Lets the workers go on into a step.
    pub fn open(&self, step: u64) {
        self.open.store(step, Ordering::Release);
    }
}
