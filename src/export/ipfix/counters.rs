//! What became of the records for one collector.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;

use super::options::Statistics;

/// Shared by the side that fills the queue, the exporting thread and whoever looks.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages, flow records in them, and octets that were sent.
    pub messages: AtomicU64,
    pub records: AtomicU64,
    pub octets: AtomicU64,
    /// Flow records that were not sent, with their packets and octets.
    not_sent: [AtomicU64; 3],
    /// Of these, the ones that found the queue full.
    pub overflowed: AtomicU64,
    /// Failures to connect or send.
    pub errors: AtomicU64,
    pub connections: AtomicU64,
    /// TCP connections with flow records on them that broke, so that the last of these may not have arrived.
    pub broken: AtomicU64,
    /// No more records will come.
    pub closed: AtomicBool,
    /// The thread has done its work.
    pub finished: AtomicBool,
}

/// [`Counters`] at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CollectorSummary {
    pub collector: String,
    pub records: u64,
    /// Records that found the queue full or could not be sent.
    pub lost: u64,
    pub messages: u64,
    pub octets: u64,
    pub errors: u64,
    pub connections: u64,
    /// Connections that broke after they carried records: the last of these may not have arrived.
    pub broken: u64,
}

impl Counters {
    pub(super) fn sent(&self, octets: usize, records: u64) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.octets.fetch_add(octets as u64, Ordering::Relaxed);
    }

    /// Counts records, their packets and octets.
    pub(super) fn lose(&self, what: [u64; 3]) {
        for (counter, more) in self.not_sent.iter().zip(what) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub fn lost(&self) -> u64 {
        self.not_sent[0].load(Ordering::Relaxed)
    }

    pub(super) fn statistics(&self) -> Statistics {
        Statistics {
            messages: self.messages.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            octets: self.octets.load(Ordering::Relaxed),
            not_sent: self.not_sent.each_ref().map(|counter| counter.load(Ordering::Relaxed)),
        }
    }

    pub fn summary(&self, collector: &str) -> CollectorSummary {
        CollectorSummary {
            collector: collector.to_owned(),
            records: self.records.load(Ordering::Relaxed),
            lost: self.lost(),
            messages: self.messages.load(Ordering::Relaxed),
            octets: self.octets.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            broken: self.broken.load(Ordering::Relaxed),
        }
    }
}
