//! All collectors of a run: a queue and a thread for each.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use super::counters::{CollectorSummary, Counters};
use super::options::Directory;
use super::stream::Stream;
use crate::behaviour::ScoredRecord;
use crate::config::{Ipfix, IpfixTransport};

/// Sends every record to every collector.
#[derive(Debug, Default)]
pub struct Collectors {
    all: Vec<Collector>,
    /// A full queue waits instead of losing.
    lossless: bool,
}

#[derive(Debug)]
struct Collector {
    name: String,
    /// Errors of sending are losses: datagrams were refused. Over TCP they were sent again.
    datagrams: bool,
    queue: Arc<ArrayQueue<ScoredRecord>>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// Records did not reach a collector in a run that must lose nothing.
#[derive(Debug, thiserror::Error)]
#[error(
    "IPFIX collector {} did not get everything: {} records not sent, {} errors, {} connections broken; check that it runs \
     and listens there and reads to the end, or use TCP",
    .0.collector, .0.lost, .0.errors, .0.broken
)]
pub struct IpfixError(pub CollectorSummary);

impl Collectors {
    /// Starts a thread for each. `lossless`: [`Collectors::record`] waits when a queue is full, datagrams are sent no faster
    /// than any collector can read them, and [`Collectors::finish`] says when something was lost all the same.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(settings: &[Ipfix], names: &Arc<impl Directory + 'static>, lossless: bool) -> std::io::Result<Self> {
        let mut all = Vec::new();
        for one in settings {
            let (queue, counters) = (Arc::new(ArrayQueue::new(one.queue)), Arc::new(Counters::default()));
            let stream = Stream::new(one, names.clone(), queue.clone(), counters.clone(), lossless);
            let thread = thread::Builder::new().name("ipfix".into()).spawn(move || stream.run())?;
            let datagrams = one.transport == IpfixTransport::Udp;
            all.push(Collector { name: one.to_string(), datagrams, queue, counters, thread: Some(thread) });
        }
        Ok(Self { all, lossless })
    }

    /// Hands a record to every collector. Never waits for the network in live use: what finds a queue full is counted.
    pub fn record(&self, scored: &ScoredRecord) {
        for collector in &self.all {
            let mut refused = collector.queue.push(*scored);
            while let Err(record) = refused {
                // A thread that has ended takes no more.
                if !self.lossless || collector.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                    collector.overflow(&record);
                    break;
                }
                thread::sleep(Duration::from_micros(200));
                refused = collector.queue.push(record);
            }
        }
    }

    /// Counters by name, for whoever looks while it runs.
    pub fn counters(&self) -> Vec<(String, Arc<Counters>)> {
        self.all.iter().map(|collector| (collector.name.clone(), collector.counters.clone())).collect()
    }

    /// Sends what is left and stops.
    ///
    /// # Errors
    /// Something was lost in a run that must lose nothing.
    pub fn finish(&mut self) -> Result<Vec<CollectorSummary>, IpfixError> {
        self.close();
        let summaries = self.all.iter().map(|one| (one.datagrams, one.counters.summary(&one.name)));
        let bad = |datagrams: bool, s: &CollectorSummary| s.lost > 0 || s.broken > 0 || (datagrams && s.errors > 0);
        match summaries.clone().find(|(datagrams, summary)| bad(*datagrams, summary)).filter(|_| self.lossless) {
            Some((_, summary)) => Err(IpfixError(summary)),
            None => Ok(summaries.map(|(_, summary)| summary).collect()),
        }
    }

    fn close(&mut self) {
        // All at once, so that collectors that are away are waited for together.
        self.all.iter().for_each(|collector| collector.counters.closed.store(true, Ordering::Release));
        for collector in &mut self.all {
            if collector.thread.take().is_some_and(|thread| thread.join().is_err()) {
                log::error!("the exporter to {} panicked", collector.name);
            }
            // Records that a broken thread left.
            while let Some(record) = collector.queue.pop() {
                collector.overflow(&record);
            }
        }
    }
}

impl Drop for Collectors {
    fn drop(&mut self) {
        self.close();
    }
}

impl Collector {
    fn overflow(&self, scored: &ScoredRecord) {
        let r = &scored.record;
        self.counters.lose([1, r.packets.iter().sum(), r.bytes.iter().sum()]);
        self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
    }
}
