//! Flow records of several workers in one order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::queue::ArrayQueue;

use crate::config::Config;
use crate::flow::FlowRecord;
use crate::worker::{OBSERVATIONS, Observation, WorkerCounters};

/// How records of several workers are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordOrder {
    /// As they come: least delay.
    Arrival,
    /// By the flow time of their end, then start, then flow id: the same for any number of workers.
    FlowTime,
}

/// What workers tell the scorer.
#[derive(Debug)]
pub enum Told {
    /// A record, and how many were found lost since the one before, by the gaps in the workers' numbers.
    Record(FlowRecord, u64),
    Seen(Observation),
}

/// A ring of observations for each worker; none when nobody scores.
pub fn observation_rings(config: &Config, workers: usize) -> Vec<Arc<ArrayQueue<Observation>>> {
    let rings = if config.scorer.enabled { workers } else { 0 };
    (0..rings).map(|_| Arc::new(ArrayQueue::new(OBSERVATIONS))).collect()
}

/// The reading end of all workers' rings of records and observations.
#[derive(Debug)]
pub struct RecordMerge {
    sources: Vec<(Arc<ArrayQueue<FlowRecord>>, Arc<WorkerCounters>)>,
    order: RecordOrder,
    waiting: BinaryHeap<Reverse<Keyed>>,
    observations: Vec<Arc<ArrayQueue<Observation>>>,
    observed: BinaryHeap<Reverse<Timed>>,
    /// By source: the number of the record that should come next.
    expected: Vec<u64>,
    /// Records that were missing in the numbers and are not told yet.
    missing: u64,
}

#[derive(Debug, PartialEq)]
struct Keyed(FlowRecord);

impl RecordMerge {
    pub fn new(sources: Vec<(Arc<ArrayQueue<FlowRecord>>, Arc<WorkerCounters>)>, order: RecordOrder) -> Self {
        let expected = vec![0; sources.len()];
        let (waiting, observed) = (BinaryHeap::new(), BinaryHeap::new());
        Self { sources, order, waiting, observations: Vec::new(), observed, expected, missing: 0 }
    }

    /// Also reads observations.
    #[must_use]
    pub fn with(mut self, observations: Vec<Arc<ArrayQueue<Observation>>>) -> Self {
        self.observations = observations;
        self
    }

    /// Hands out what is ready, of each ring at most what it holds now: a worker that is faster than the scorer keeps
    /// neither the other rings nor the caller waiting. Returns true when all workers have finished and nothing is left.
    pub fn drain(&mut self, mut each: impl FnMut(Told)) -> bool {
        // Read before draining: what was pushed before the report is then in the rings.
        let watermarks = self.sources.iter().map(|(_, c)| c.watermark.load(Ordering::Acquire));
        let watermark = watermarks.min().unwrap_or(u64::MAX);
        for ((ring, _), expected) in self.sources.iter().zip(&mut self.expected) {
            for _ in 0..ring.len() {
                let Some(record) = ring.pop() else { break };
                self.missing += record.sequence.saturating_sub(*expected);
                *expected = record.sequence + 1;
                match self.order {
                    RecordOrder::Arrival => each(Told::Record(record, std::mem::take(&mut self.missing))),
                    RecordOrder::FlowTime => self.waiting.push(Reverse(Keyed(record))),
                }
            }
        }
        self.take_observations(&mut each);
        self.hand_out(watermark, each);
        watermark == u64::MAX
    }

    fn take_observations(&mut self, each: &mut impl FnMut(Told)) {
        for ring in &self.observations {
            for _ in 0..ring.len() {
                let Some(observation) = ring.pop() else { break };
                match self.order {
                    RecordOrder::Arrival => each(Told::Seen(observation)),
                    RecordOrder::FlowTime => self.observed.push(Reverse(Timed(observation))),
                }
            }
        }
    }

    /// In flow time: records up to the watermark and observations before it, of the same time the records first.
    fn hand_out(&mut self, watermark: u64, mut each: impl FnMut(Told)) {
        loop {
            let record = self.waiting.peek().map(|Reverse(Keyed(r))| r.emitted).filter(|time| *time <= watermark);
            let seen = self.observed.peek().map(|Reverse(Timed(o))| o.clock).filter(|time| *time < watermark);
            if seen.is_some_and(|seen| record.is_none_or(|record| seen < record)) {
                let Some(Reverse(Timed(observation))) = self.observed.pop() else { break };
                each(Told::Seen(observation));
            } else if record.is_some() {
                let Some(Reverse(Keyed(record))) = self.waiting.pop() else { break };
                each(Told::Record(record, std::mem::take(&mut self.missing)));
            } else {
                break;
            }
        }
    }
}

/// An observation by its time, then its place in the capture. Live they go as they come.
#[derive(Debug, PartialEq)]
struct Timed(Observation);

impl Eq for Timed {}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.clock, self.0.index).cmp(&(other.0.clock, other.0.index))
    }
}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Keyed {
    fn key(&self) -> (u64, u64, u64) {
        (self.0.emitted, self.0.start, self.0.flow_id)
    }
}

impl Eq for Keyed {}

impl Ord for Keyed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Arp, Tuple};
    use crate::worker::Seen;

    fn record(emitted: u64, start: u64, flow_id: u64) -> FlowRecord {
        FlowRecord { emitted, start, flow_id, ..FlowRecord::default() }
    }

    type Source = (Arc<ArrayQueue<FlowRecord>>, Arc<WorkerCounters>);

    fn merge(order: RecordOrder) -> (RecordMerge, Vec<Source>) {
        let source = || (Arc::new(ArrayQueue::new(16)), Arc::new(WorkerCounters::new(1)));
        let sources = vec![source(), source()];
        (RecordMerge::new(sources.clone(), order), sources)
    }

    fn drain(merge: &mut RecordMerge) -> (Vec<u64>, bool) {
        let mut got = Vec::new();
        let done = merge.drain(|told| match told {
            Told::Record(record, _) => got.push(record.flow_id),
            Told::Seen(observation) => got.push(observation.flow_id),
        });
        (got, done)
    }

    #[test]
    fn flow_time_waits_for_the_slowest_worker() {
        let (mut merge, sources) = merge(RecordOrder::FlowTime);
        let put = |worker: usize, record| assert!(sources[worker].0.push(record).is_ok());
        let reach = |worker: usize, time| sources[worker].1.watermark.store(time, Ordering::Release);
        put(0, record(30, 1, 3));
        put(1, record(20, 1, 2));
        reach(0, 100);
        assert_eq!(drain(&mut merge), (vec![], false), "the second worker may still have earlier ones");
        reach(1, 25);
        assert_eq!(drain(&mut merge), (vec![2], false));
        put(1, record(26, 1, 4));
        reach(1, u64::MAX);
        assert_eq!(drain(&mut merge), (vec![4, 3], false), "one has finished, the other not");
        reach(0, u64::MAX);
        assert_eq!(drain(&mut merge), (vec![], true));
    }

    #[test]
    fn equal_times_go_by_start_and_flow() {
        let (mut merge, sources) = merge(RecordOrder::FlowTime);
        for (worker, record) in [(0, record(5, 2, 1)), (1, record(5, 1, 9)), (0, record(5, 1, 3)), (1, record(5, 1, 8))]
        {
            assert!(sources[worker].0.push(record).is_ok());
            sources[worker].1.watermark.store(u64::MAX, Ordering::Release);
        }
        assert_eq!(drain(&mut merge), (vec![3, 8, 9, 1], true));
    }

    #[test]
    fn gaps_in_the_numbers_are_told_once() {
        for order in [RecordOrder::Arrival, RecordOrder::FlowTime] {
            let (mut merge, sources) = merge(order);
            // Not in the order of their time: a worker hands out what it finds due.
            for (worker, sequence, emitted) in [(0, 0, 9), (0, 1, 3), (1, 2, 5), (0, 4, 1), (1, 3, 2)] {
                let record = FlowRecord { sequence, ..record(emitted, 0, 0) };
                assert!(sources[worker].0.push(record).is_ok());
                sources[worker].1.watermark.store(u64::MAX, Ordering::Release);
            }
            let (mut records, mut lost) = (0, 0);
            merge.drain(|told| {
                let Told::Record(_, missing) = told else { return };
                (records, lost) = (records + 1, lost + missing);
            });
            assert_eq!((records, lost), (5, 4), "{order:?}");
        }
    }

    #[test]
    fn observations_go_between_records_by_their_time() {
        let (merge, sources) = merge(RecordOrder::FlowTime);
        let rings: Vec<_> = (0..2).map(|_| Arc::new(ArrayQueue::new(16))).collect();
        let mut merge = merge.with(rings.clone());
        let see = |worker: usize, clock, index, flow_id| {
            let what = Seen::Arp(Arp::default());
            let seen = Observation { clock, index, tuple: Tuple::default(), flow_id, what };
            assert!(rings[worker].push(seen).is_ok());
        };
        let reach = |worker: usize, time| sources[worker].1.watermark.store(time, Ordering::Release);
        assert!(sources[0].0.push(record(20, 1, 2)).is_ok());
        see(0, 30, 7, 5);
        see(1, 10, 1, 1);
        see(1, 20, 2, 3);
        see(1, 30, 6, 4);
        reach(0, 30);
        reach(1, 20);
        assert_eq!(drain(&mut merge), (vec![1, 2], false), "more may come with the time of the watermark");
        reach(1, 30);
        assert_eq!(drain(&mut merge), (vec![3], false));
        reach(0, u64::MAX);
        reach(1, u64::MAX);
        assert_eq!(drain(&mut merge), (vec![4, 5], true));
    }

    #[test]
    fn arrival_hands_out_at_once() {
        let (mut merge, sources) = merge(RecordOrder::Arrival);
        assert!(sources[1].0.push(record(50, 1, 5)).is_ok());
        assert_eq!(drain(&mut merge), (vec![5], false));
    }
}
