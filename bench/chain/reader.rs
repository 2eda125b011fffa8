//! The other core: takes records off the ring, as the scorer's thread does, and scores and writes them, or forgets them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use core_affinity::CoreId;
use crossbeam::queue::ArrayQueue;
use gnomon::appliance::{PolicyNames, unix_nanoseconds};
use gnomon::behaviour::{ScoredRecord, Scorer, Stats};
use gnomon::config::Config;
use gnomon::dpdk::cpu_time_ns;
use gnomon::export::Files;
use gnomon::flow::FlowRecord;
use hdrhistogram::Histogram;

use crate::line::Line;

/// What takes longer counts as this.
const LONGEST_LAG_NS: u64 = 60_000_000_000;
/// Records kept for measuring parts.
const KEPT: usize = 300_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Forget,
    Score,
}

/// What was read.
#[derive(Debug)]
pub struct Kept {
    pub records: Vec<FlowRecord>,
    pub names: Arc<PolicyNames>,
    pub scored: u64,
    pub forgotten: u64,
    pub stats: Stats,
    /// Nanoseconds from the time at which a record was due.
    pub lags: Lags,
    /// CPU time of this thread while it scored, of that time.
    pub busy_percent: f64,
}

/// Where the time goes between a flow's time-out and its line.
#[derive(Debug)]
pub struct Lags {
    /// Until the record was read from the ring by somebody who only forgets it: the worker's part.
    pub made: Histogram<u64>,
    /// Until the scorer took it.
    pub taken: Histogram<u64>,
    /// Until its line was handed on to be written.
    pub line: Histogram<u64>,
}

impl Lags {
    fn new() -> Result<Self> {
        let empty = Histogram::new_with_bounds(1, LONGEST_LAG_NS, 3)?;
        Ok(Self { made: empty.clone(), taken: empty.clone(), line: empty })
    }
}

pub struct Reading {
    mode: Arc<AtomicU8>,
    stop: Arc<AtomicBool>,
    pub lag_counts: Arc<AtomicBool>,
    thread: JoinHandle<Result<Kept>>,
}

const SCORE: u8 = 1;

impl Reading {
    pub fn start(line: &Line, cpu: usize) -> Result<Self> {
        let (mode, stop) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicBool::new(false)));
        let lag_counts = Arc::new(AtomicBool::new(false));
        let (records, names) = (line.records.clone(), line.host.names().clone());
        let shared = (mode.clone(), stop.clone(), lag_counts.clone());
        let thread = std::thread::spawn(move || {
            core_affinity::set_for_current(CoreId { id: cpu });
            Reader::new(names)?.follow(&records, &shared)
        });
        Ok(Self { mode, stop, lag_counts, thread })
    }

    pub fn set(&self, mode: Mode) {
        self.mode.store(if mode == Mode::Score { SCORE } else { 0 }, Ordering::Relaxed);
    }

    pub fn stop(self) -> Result<Kept> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the reader panicked"))?
    }
}

struct Reader {
    scorer: Scorer,
    files: Files,
    names: Arc<PolicyNames>,
    records: Vec<FlowRecord>,
    scored: u64,
    forgotten: u64,
    lags: Lags,
    /// The files are there while this is.
    _folder: tempfile::TempDir,
}

/// The configuration of both measurements.
pub fn config() -> Config {
    let mut config = Config::default_pair();
    config.scorer.warmup_records = 10_000;
    config
}

impl Reader {
    fn new(names: Arc<PolicyNames>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = config();
        Ok(Self {
            scorer: Scorer::new(&config.scorer, config.seed),
            files: Files::create(folder.path(), false)?,
            names,
            records: Vec::with_capacity(KEPT),
            scored: 0,
            forgotten: 0,
            lags: Lags::new()?,
            _folder: folder,
        })
    }

    fn follow(
        mut self,
        ring: &ArrayQueue<FlowRecord>,
        (mode, stop, lag_counts): &(Arc<AtomicU8>, Arc<AtomicBool>, Arc<AtomicBool>),
    ) -> Result<Kept> {
        let (mut busy, mut scoring, mut scored_before) = (0, Duration::ZERO, false);
        while !stop.load(Ordering::Relaxed) {
            let scores = mode.load(Ordering::Relaxed) == SCORE;
            let (began, cpu, counts) = (Instant::now(), cpu_time_ns(), lag_counts.load(Ordering::Relaxed));
            if scored_before && !scores {
                // What waits for a batch would wait until the next turn.
                self.score(&ArrayQueue::new(1), counts)?;
            }
            scored_before = scores;
            let handled = if scores { self.score(ring, counts)? } else { self.forget(ring, counts) };
            if handled == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
            if scores {
                busy += cpu_time_ns() - cpu;
                scoring += began.elapsed();
            }
        }
        self.files.finish()?;
        Ok(Kept {
            records: self.records,
            names: self.names,
            scored: self.scored,
            forgotten: self.forgotten,
            stats: self.scorer.stats(),
            lags: self.lags,
            busy_percent: 100.0 * busy as f64 / scoring.as_nanos().max(1) as f64,
        })
    }

    fn score(&mut self, ring: &ArrayQueue<FlowRecord>, lag_counts: bool) -> Result<u64> {
        let Self { scorer, files, names, scored, lags: Lags { taken, line, .. }, .. } = self;
        let (mut handled, mut result) = (0, Ok(()));
        let mut out = |record: ScoredRecord| {
            *scored += 1;
            if let Err(error) = files.record(&record, *scored, &**names) {
                result = Err(error);
            }
            if lag_counts {
                line.saturating_record(since(&record.record));
            }
        };
        for _ in 0..ring.len() {
            let Some(record) = ring.pop() else { break };
            handled += 1;
            if lag_counts {
                taken.saturating_record(since(&record));
            }
            scorer.observe(record, &mut out);
        }
        if handled == 0 {
            scorer.drain(&mut out);
        }
        result?;
        for event in scorer.drain_alerts() {
            files.alert(&event, &**names)?;
        }
        Ok(handled)
    }

    fn forget(&mut self, ring: &ArrayQueue<FlowRecord>, lag_counts: bool) -> u64 {
        let mut handled = 0;
        for _ in 0..ring.len() {
            let Some(record) = ring.pop() else { break };
            handled += 1;
            if lag_counts {
                self.lags.made.saturating_record(since(&record));
            }
            if self.records.len() < KEPT {
                self.records.push(record);
            }
        }
        self.forgotten += handled;
        handled
    }
}

/// Nanoseconds since the record was due.
fn since(record: &FlowRecord) -> u64 {
    unix_nanoseconds().saturating_sub(record.emitted)
}
