//! What happens to flows with time: a sweep hands out what is due, in steps, without looking at flows that are not.

use super::{EndReason, FlowTable, RecordSink};
use crate::flow::due::BLOCK;
use crate::flow::entry::{FARTHEST_NS, LONGEST_NS};

/// How much one call of [`FlowTable::sweep`] may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Places to pass over, in whole blocks of eight; at least one block.
    pub places: usize,
    /// Flows to look at, in about whole blocks. One to which something has happened counts as eight more.
    pub looks: usize,
}

impl Effort {
    /// A whole pass, or what is left of one.
    pub const ALL: Self = Self { places: usize::MAX, looks: usize::MAX };
}

/// What handing out a record costs, in flows looked at.
const RECORD: usize = 8;

impl FlowTable {
    /// Goes on with the pass over the table and hands out what is due before `clock_ns`. True when this call completed
    /// the pass; [`watermark`](Self::watermark) has then moved on.
    pub fn sweep(&mut self, clock_ns: u64, effort: Effort, sink: &mut impl RecordSink) -> bool {
        self.advance(clock_ns, sink);
        let began = *self.sweep_began.get_or_insert(clock_ns);
        let stop = self.due.len().min(self.sweep_at.saturating_add((effort.places / BLOCK).max(1)));
        let mut looks = effort.looks;
        while looks > 0 && self.sweep_at < stop {
            self.sweep_at = self.due.next(self.sweep_at, stop, self.now);
            if self.sweep_at < stop {
                let happened = self.look_at(self.sweep_at, clock_ns, sink);
                looks = looks.saturating_sub(BLOCK + RECORD * happened);
                self.sweep_at += 1;
            }
        }
        if self.sweep_at < self.due.len() {
            return false;
        }
        self.sweep_at = 0;
        self.sweep_began = None;
        self.looked_at_all = self.looked_at_all.max(began);
        // Events act strictly later than they happen: what happened at the very clock may still be to come.
        self.watermark = self.watermark.max(began.saturating_sub(1));
        true
    }

    /// Every record with `emitted` up to here has been handed out.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// End of the run: hands out what is due, then every flow that is left, in slab order, with `clock_ns` as the time
    /// it happened. The table is empty afterwards and can be used again.
    pub fn finish(&mut self, clock_ns: u64, sink: &mut impl RecordSink) {
        self.advance(clock_ns, sink);
        for position in 0..self.slab.len() as u32 {
            if self.slab.get(position).is_live() && !self.settle(position, clock_ns, sink) {
                self.end(position, EndReason::Forced, clock_ns, sink);
                self.stats.expired += 1;
            }
        }
        self.sweep_at = 0;
        self.sweep_began = None;
        self.watermark = self.watermark.max(clock_ns);
    }

    /// Hands out what is due in one block, finds its bound anew, and says to how many flows something has happened.
    fn look_at(&mut self, block: usize, clock: u64, sink: &mut impl RecordSink) -> usize {
        let mut happened = 0;
        // An empty block is looked at again one day.
        let mut bound = self.now.saturating_add(LONGEST_NS);
        for position in block * BLOCK..self.slab.len().min((block + 1) * BLOCK) {
            let position = position as u32;
            if !self.slab.get(position).is_live() {
                continue;
            }
            if self.slab.get(position).due(self.now, &self.times) < clock {
                happened += 1;
                if self.settle(position, clock, sink) {
                    continue;
                }
            }
            bound = bound.min(self.slab.get(position).due(self.now, &self.times));
        }
        self.due.set(block, bound);
        happened
    }

    /// Time goes on. When it has gone so far that an entry's bits of a time might be taken for later ones, all flows are
    /// looked at first: a step of years in a capture, for a running table is swept long before.
    #[inline]
    pub(super) fn advance(&mut self, clock: u64, sink: &mut impl RecordSink) {
        if clock > self.now {
            if clock.saturating_sub(self.looked_at_all) > FARTHEST_NS {
                self.look_at_all(clock, sink);
            }
            self.now = clock;
        }
    }

    #[cold]
    fn look_at_all(&mut self, clock: u64, sink: &mut impl RecordSink) {
        for position in 0..self.slab.len() as u32 {
            if self.slab.get(position).is_live() {
                self.settle(position, clock, sink);
            }
        }
        self.due.set_all(clock);
        self.looked_at_all = clock;
    }

    /// Hands out what has happened to a flow before `clock`. True when that was its end.
    pub(super) fn settle(&mut self, position: u32, clock: u64, sink: &mut impl RecordSink) -> bool {
        let entry = self.slab.get(position);
        if let Some(at) = entry.slice_ends_at(self.now, &self.times).filter(|at| clock > *at) {
            self.slice(position, at, sink);
        }
        let at = self.slab.get(position).ends_at(self.now, &self.times);
        if clock <= at {
            return false;
        }
        self.end(position, EndReason::Idle, at, sink);
        self.stats.expired += 1;
        true
    }

    /// What a sweep saves.
    #[cfg(test)]
    pub(in crate::flow) fn look_at_every_flow(&mut self, clock: u64, sink: &mut impl RecordSink) {
        self.advance(clock, sink);
        self.look_at_all(clock, sink);
    }

    /// No flow is due before the bound of its block.
    #[cfg(test)]
    pub(in crate::flow) fn bounds_hold(&self) -> bool {
        let live = (0..self.slab.len() as u32).filter(|position| self.slab.get(*position).is_live());
        live.into_iter().all(|position| {
            let due = self.slab.get(position).due(self.now, &self.times);
            self.due.bound(position, self.now) <= i128::from(due)
        })
    }
}
