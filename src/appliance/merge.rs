//! Flow records of several workers in one order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::queue::ArrayQueue;

use crate::flow::FlowRecord;
use crate::worker::WorkerCounters;

/// How records of several workers are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordOrder {
    /// As they come: least delay.
    Arrival,
    /// By the flow time of their end, then start, then flow id: the same for any number of workers.
    FlowTime,
}

/// The reading end of all workers' record rings.
#[derive(Debug)]
pub struct RecordMerge {
    sources: Vec<(Arc<ArrayQueue<FlowRecord>>, Arc<WorkerCounters>)>,
    order: RecordOrder,
    waiting: BinaryHeap<Reverse<Keyed>>,
}

#[derive(Debug, PartialEq)]
struct Keyed(FlowRecord);

impl RecordMerge {
    pub fn new(sources: Vec<(Arc<ArrayQueue<FlowRecord>>, Arc<WorkerCounters>)>, order: RecordOrder) -> Self {
        Self { sources, order, waiting: BinaryHeap::new() }
    }

    /// Hands out what is ready. Returns true when all workers have finished and nothing is left.
    pub fn drain(&mut self, mut each: impl FnMut(FlowRecord)) -> bool {
        // Read before draining: what was pushed before the report is then in the rings.
        let watermarks = self.sources.iter().map(|(_, c)| c.watermark.load(Ordering::Acquire));
        let watermark = watermarks.min().unwrap_or(u64::MAX);
        for (ring, _) in &self.sources {
            while let Some(record) = ring.pop() {
                match self.order {
                    RecordOrder::Arrival => each(record),
                    RecordOrder::FlowTime => self.waiting.push(Reverse(Keyed(record))),
                }
            }
        }
        while self.waiting.peek().is_some_and(|Reverse(Keyed(first))| first.emitted <= watermark) {
            if let Some(Reverse(Keyed(record))) = self.waiting.pop() {
                each(record);
            }
        }
        watermark == u64::MAX
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
