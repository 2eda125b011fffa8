//! From the flow table onto the ring to the scorer, numbered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;

use super::WorkerParts;
use super::counters::WorkerCounters;
use super::io::{WhenFull, give_way};
use crate::flow::{FlowRecord, RecordSink};

/// Puts records on a ring of fixed size. What finds no room is counted and lost, or waits.
#[derive(Debug)]
pub(super) struct RingSink {
    worker: u16,
    ring: Arc<ArrayQueue<FlowRecord>>,
    counters: Arc<WorkerCounters>,
    when_full: WhenFull,
    /// Wait for room until then all the same.
    until: Option<Instant>,
    abort: Arc<AtomicBool>,
}

impl RingSink {
    pub(super) fn new(parts: &WorkerParts) -> Self {
        Self {
            worker: parts.id as u16,
            ring: parts.records.clone(),
            counters: parts.counters.clone(),
            when_full: parts.when_full,
            until: None,
            abort: parts.abort.clone(),
        }
    }

    /// From now on a full ring is waited for, until then.
    pub(super) fn wait_until(&mut self, until: Instant) {
        self.until = Some(until);
    }

    fn may_wait(&self) -> bool {
        let patient = self.when_full == WhenFull::Wait || self.until.is_some_and(|until| Instant::now() < until);
        patient && !self.abort.load(Ordering::Relaxed)
    }
}

impl RecordSink for RingSink {
    fn push(&mut self, record: FlowRecord) {
        // All that this worker made, the lost ones as well: whoever reads sees by a gap what is missing.
        let sequence = self.counters.records.get() + self.counters.records_lost.get();
        let mut record = FlowRecord { worker: self.worker, sequence, ..record };
        while let Err(back) = self.ring.push(record) {
            if !self.may_wait() {
                return self.counters.records_lost.add(1);
            }
            record = back;
            give_way();
        }
        self.counters.records.add(1);
    }
}
