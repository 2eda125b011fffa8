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
    /// Nanoseconds.
    pub lag: Histogram<u64>,
    /// CPU time of this thread while it scored, of that time.
    pub busy_percent: f64,
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
    lag: Histogram<u64>,
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
            lag: Histogram::new_with_bounds(1, LONGEST_LAG_NS, 3)?,
            _folder: folder,
        })
    }

    fn follow(
        mut self,
        ring: &ArrayQueue<FlowRecord>,
        (mode, stop, lag_counts): &(Arc<AtomicU8>, Arc<AtomicBool>, Arc<AtomicBool>),
    ) -> Result<Kept> {
        let (mut busy, mut scoring) = (0, Duration::ZERO);
        while !stop.load(Ordering::Relaxed) {
            let scores = mode.load(Ordering::Relaxed) == SCORE;
            let (began, cpu) = (Instant::now(), cpu_time_ns());
            let handled =
                if scores { self.score(ring, lag_counts.load(Ordering::Relaxed))? } else { self.forget(ring) };
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
            lag: self.lag,
            busy_percent: 100.0 * busy as f64 / scoring.as_nanos().max(1) as f64,
        })
    }

    fn score(&mut self, ring: &ArrayQueue<FlowRecord>, lag_counts: bool) -> Result<u64> {
        let Self { scorer, files, names, scored, lag, .. } = self;
        let (mut handled, mut result) = (0, Ok(()));
        let mut out = |record: ScoredRecord| {
            *scored += 1;
            if let Err(error) = files.record(&record, *scored, &**names) {
                result = Err(error);
            }
            if lag_counts {
                lag.saturating_record(unix_nanoseconds().saturating_sub(record.record.emitted));
            }
        };
        for _ in 0..ring.len() {
            let Some(record) = ring.pop() else { break };
            handled += 1;
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

    fn forget(&mut self, ring: &ArrayQueue<FlowRecord>) -> u64 {
        let mut handled = 0;
        for _ in 0..ring.len() {
            let Some(record) = ring.pop() else { break };
            handled += 1;
            if self.records.len() < KEPT {
                self.records.push(record);
            }
        }
        self.forgotten += handled;
        handled
    }
}
