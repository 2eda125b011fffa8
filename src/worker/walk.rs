//! Questions about live flows, put to a worker by other threads and answered a few table entries at a time; and packets that
//! these threads want to send.
//!
//! - **In**: a [`Walk`] left in the worker's [`Mailbox`].
//! - **Out**: records of the flows that may match, on the walk's own bounded queue.
//! - **Runs on**: the worker, between bursts. With no question about, that is one relaxed load a turn.
//! - **When full**: a walk whose reader is slow stands still; traffic and the other walks go on.
//!
//! The worker neither makes nor frees a walk: it hands each back for another thread to drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::dpdk::Mbuf;
use crate::filter::Expression;
use crate::flow::{FlowRecord, FlowTable};

/// Questions to one worker at a time.
pub const MOST_WALKS: usize = 8;
/// Places of the table looked at in one turn of the worker's loop.
const BUDGET: usize = 32;
/// Records that wait for the reader of a walk.
const ROOM: usize = 4096;
/// Packets that wait to be sent.
const MOST_LETTERS: usize = 256;

/// One pass over one worker's flow table. Flows that come, go or move meanwhile may be missed or told twice.
#[derive(Debug)]
pub struct Walk {
    filter: Expression,
    found: ArrayQueue<FlowRecord>,
    flows: AtomicU64,
    turns: AtomicU64,
    cancelled: AtomicBool,
    finished: AtomicBool,
}

impl Walk {
    /// For flows that may match an expression bound to the numbers of names.
    pub fn new(filter: Expression) -> Self {
        Self {
            filter,
            found: ArrayQueue::new(ROOM),
            flows: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        }
    }

    /// The slice so far of the next flow that was found.
    pub fn next_found(&self) -> Option<FlowRecord> {
        self.found.pop()
    }

    /// The whole table was looked at; what was found may still wait.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Flows looked at so far.
    pub fn flows(&self) -> u64 {
        self.flows.load(Ordering::Relaxed)
    }

    /// Turns the worker has taken at it: they go on where there is no flow to look at.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Nobody wants the rest.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Some entries from `position` on; where to go on, or `None` when it is over.
    fn step(&self, table: &FlowTable, worker: u16, position: usize) -> Option<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return None;
        }
        // This thread alone adds: what is free stays free.
        let budget = BUDGET.min(ROOM - self.found.len());
        let mut flows = 0;
        let next = table.survey(position, budget, |mut record| {
            flows += 1;
            record.worker = worker;
            if self.filter.may_match(&record) {
                // There is room, see above.
                let _ = self.found.push(record);
            }
        });
        self.flows.fetch_add(flows, Ordering::Relaxed);
        self.turns.fetch_add(1, Ordering::Relaxed);
        next
    }
}

/// Where other threads leave walks for a worker, and get them back.
#[derive(Debug)]
pub struct Mailbox {
    /// Walks and letters that the worker has still to do.
    waiting: AtomicU32,
    /// Walks given in and not yet taken back.
    seats: AtomicU32,
    inbox: ArrayQueue<Arc<Walk>>,
    outbox: ArrayQueue<Arc<Walk>>,
    /// Packets for an output of the worker.
    letters: ArrayQueue<(usize, Mbuf)>,
}

impl Default for Mailbox {
    fn default() -> Self {
        let (waiting, seats) = (AtomicU32::new(0), AtomicU32::new(0));
        Self {
            waiting,
            seats,
            inbox: ArrayQueue::new(MOST_WALKS),
            outbox: ArrayQueue::new(MOST_WALKS),
            letters: ArrayQueue::new(MOST_LETTERS),
        }
    }
}

impl Mailbox {
    /// False when the worker has as many questions as it takes.
    #[must_use]
    pub fn ask(&self, walk: Arc<Walk>) -> bool {
        self.collect();
        let seat = |taken: u32| (taken < MOST_WALKS as u32).then_some(taken + 1);
        if self.seats.fetch_update(Ordering::Relaxed, Ordering::Relaxed, seat).is_err() {
            return false;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // As many places as seats.
        self.inbox.push(walk).is_ok()
    }

    /// Leaves a packet that the worker is to send by one of its outputs, for a thread that has no transmit queue. False
    /// when there is no room for it.
    pub fn post(&self, output: usize, packet: Mbuf) -> bool {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let fits = self.letters.push((output, packet)).is_ok();
        if !fits {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        fits
    }

    pub(super) fn letter(&self) -> Option<(usize, Mbuf)> {
        let letter = self.letters.pop()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(letter)
    }

    /// Takes back and drops the walks that are over.
    pub fn collect(&self) {
        while self.outbox.pop().is_some() {
            self.seats.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }
}

/// The walks a worker is at, each with its position.
#[derive(Debug, Default)]
pub(super) struct Walks {
    places: [Option<(Arc<Walk>, usize)>; MOST_WALKS],
    turn: usize,
}

impl Walks {
    /// One step of one walk, in turn.
    #[inline(never)]
    pub(super) fn step(&mut self, mailbox: &Mailbox, table: &FlowTable, worker: u16) {
        if let Some(free) = self.places.iter_mut().find(|place| place.is_none()) {
            *free = mailbox.inbox.pop().map(|walk| (walk, 0));
        }
        let turns = (1..=MOST_WALKS).map(|step| (self.turn + step) % MOST_WALKS);
        let Some(turn) = turns.into_iter().find(|turn| self.places[*turn].is_some()) else { return };
        self.turn = turn;
        let Some((walk, position)) = &mut self.places[turn] else { return };
        if let Some(next) = walk.step(table, worker, *position) {
            *position = next;
            return;
        }
        walk.finished.store(true, Ordering::Release);
        if let Some((walk, _)) = self.places[turn].take() {
            mailbox.waiting.fetch_sub(1, Ordering::Relaxed);
            // As many places as seats.
            let _ = mailbox.outbox.push(walk);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Timeouts;
    use crate::filter::Schema;
    use crate::flow::FlowPacket;
    use crate::packet::Tuple;

    fn table(flows: u64) -> FlowTable {
        let mut table = FlowTable::new(flows as usize + 64, &Timeouts::default(), 1);
        let mut sink = Vec::new();
        for n in 0..flows {
            let tuple = Tuple {
                src: 1 + u128::from(n),
                dst: 7,
                src_port: 9,
                dst_port: (n % 10) as u16,
                protocol: 17,
                version: 4,
                ..Tuple::default()
            };
            let packet = FlowPacket { tuple, clock_ns: 1_000_000_000 + n, bytes: 100, ..FlowPacket::default() };
            table.touch(&packet, &mut sink).unwrap();
        }
        assert!(sink.is_empty());
        table
    }

    fn walk(filter: &str) -> Arc<Walk> {
        Arc::new(Walk::new(Expression::parse(filter, &Schema::FLOW).unwrap()))
    }

    #[test]
    fn every_flow_is_told_once_and_the_reader_sets_the_pace() {
        let (table, mailbox, mut walks) = (table(20_000), Mailbox::default(), Walks::default());
        assert!(mailbox.is_empty());
        let (all, some) = (walk(""), walk("dest_port=3 worker=5"));
        assert!(mailbox.ask(all.clone()) && mailbox.ask(some.clone()) && !mailbox.is_empty());
        for _ in 0..10_000 {
            walks.step(&mailbox, &table, 5);
        }
        assert!(!all.is_finished() && all.flows() <= ROOM as u64, "stands still while nobody reads");
        let mut told = Vec::new();
        while !all.is_finished() {
            told.extend(std::iter::from_fn(|| all.next_found()));
            walks.step(&mailbox, &table, 5);
        }
        told.extend(std::iter::from_fn(|| all.next_found()));
        let mut sources: Vec<u128> = told.iter().map(|record| record.tuple.src).collect();
        sources.sort_unstable();
        sources.dedup();
        assert_eq!((told.len(), all.flows()), (20_000, 20_000));
        assert_eq!(sources.len(), 20_000);
        assert!(some.is_finished() && std::iter::from_fn(|| some.next_found()).count() == 2000);
        assert!(mailbox.is_empty() && told.iter().all(|record| record.packets == [1, 0] && record.worker == 5));
    }

    #[test]
    fn turns_are_told_of_where_there_are_no_flows() {
        let (mut table, mailbox, mut walks) = (table(20_000), Mailbox::default(), Walks::default());
        let mut ended = Vec::new();
        table.finish(2_000_000_000, &mut ended);
        assert_eq!(ended.len(), 20_000);
        let walk = walk("");
        assert!(mailbox.ask(walk.clone()));
        for _ in 0..3 {
            walks.step(&mailbox, &table, 0);
        }
        assert_eq!((walk.flows(), walk.turns(), walk.is_finished()), (0, 3, false));
    }

    #[test]
    fn questions_are_bounded_and_seats_come_back() {
        let (table, mailbox, mut walks) = (table(10), Mailbox::default(), Walks::default());
        let asked: Vec<_> = (0..MOST_WALKS).map(|_| walk("")).collect();
        assert!(asked.iter().all(|walk| mailbox.ask(walk.clone())));
        assert!(!mailbox.ask(walk("")));
        asked.iter().for_each(|walk| walk.cancel());
        for _ in 0..2 * MOST_WALKS {
            walks.step(&mailbox, &table, 0);
        }
        assert!(mailbox.is_empty() && asked.iter().all(|walk| walk.is_finished() && walk.flows() == 0));
        assert!(mailbox.ask(walk("")), "taken back on the way");
        assert!(asked.iter().all(|walk| Arc::strong_count(walk) == 1), "the worker kept none");
    }
}
