//! The scorer's thread: records of all workers → scores and alerts → files and collectors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use hdrhistogram::Histogram;

use super::merge::RecordMerge;
use super::policy::PolicyNames;
use super::recent::Recent;
use crate::behaviour::{Alert, AlertEvent, AlertKind, ScoredRecord, Scorer, Stats};
use crate::config::Config;
use crate::export::{CollectorSummary, ExportError, Exports};
use crate::flow::EndReason;
use crate::rules::{Decision, GroupSetHandle};
use crate::worker::Alarm;

/// Alerts kept for the report at the end; the file has all of them.
const KEPT_ALERTS: usize = 1000;
/// Pairs of group sets counted apart.
const MAX_PAIRS: usize = 10_000;
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Longest lag that is told apart, in microseconds.
const LONGEST_LAG: u64 = 3_600_000_000;

/// One run of the scorer.
#[derive(Debug)]
pub struct Scoring {
    scorer: Scorer,
    merge: RecordMerge,
    names: Arc<PolicyNames>,
    exports: Exports,
    abort: Arc<AtomicBool>,
    /// Live: how far behind the end of a flow its record is scored.
    lag: Option<Histogram<u64>>,
    scored: Scored,
}

/// What the scorer found in a run.
#[derive(Debug, Default)]
pub struct Scored {
    pub stats: Stats,
    /// Episodes by kind; kinds without one are left out.
    pub alerts: BTreeMap<String, u64>,
    /// Final accounts, in order, up to a thousand.
    pub episodes: Vec<Alert>,
    pub pairs: BTreeMap<(GroupSetHandle, GroupSetHandle), PairTraffic>,
    /// Live: where others look for what is new.
    pub recent: Option<Arc<Recent>>,
    pub files: Vec<PathBuf>,
    /// Times that writing failed in a live run, which goes on without the lines.
    pub export_failures: u64,
    /// What IPFIX collectors got.
    pub collectors: Vec<CollectorSummary>,
    /// Microseconds from a record's making to its score.
    pub lag: Option<Histogram<u64>>,
}

/// Traffic from one set of groups to another, initiator first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairTraffic {
    pub flows: u64,
    pub packets: u64,
    pub bytes: u64,
    /// Of the flows, how many were not allowed.
    pub refused: u64,
}

impl Scoring {
    /// A scorer reading from `merge`. `live`: write alerts when they open, keep an eye on lag.
    pub fn new(
        config: &Config,
        merge: RecordMerge,
        names: Arc<PolicyNames>,
        exports: Exports,
        abort: Arc<AtomicBool>,
        live: bool,
    ) -> Self {
        let scorer = Scorer::new(&config.scorer, config.seed);
        // Three digits; the bounds are valid, so the histogram is always made.
        let lag = if live { Histogram::new_with_bounds(1, LONGEST_LAG, 3).ok() } else { None };
        Self { scorer, merge, names, exports, abort, lag, scored: Scored::default() }
    }

    /// Others see there what is new.
    #[must_use]
    pub fn showing(mut self, recent: Arc<Recent>) -> Self {
        self.scored.recent = Some(recent);
        self
    }

    /// Until all workers have finished and every record is scored.
    pub fn run(mut self) -> Result<Scored> {
        let _alarm = Alarm::new(self.abort.clone());
        let outcome = self.follow();
        if outcome.is_err() {
            // Nobody may wait for a reader that is gone.
            self.abort.store(true, Ordering::Relaxed);
        }
        outcome?;
        self.scored.stats = self.scorer.stats();
        self.scored.alerts = by_kind(&self.scored.stats);
        self.scored.files = self.exports.paths();
        self.scored.collectors = self.exports.finish()?;
        self.scored.lag = self.lag;
        Ok(self.scored)
    }

    fn follow(&mut self) -> Result<(), ExportError> {
        let mut flushed = Instant::now();
        loop {
            let (finished, handled) = self.drain()?;
            if finished || (handled == 0 && self.abort.load(Ordering::Relaxed)) {
                break;
            }
            if flushed.elapsed() > FLUSH_EVERY {
                let flush = self.exports.flush();
                self.tolerate(flush)?;
                flushed = Instant::now();
            }
            if handled == 0 {
                self.score_waiting()?;
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        let (names, exports, scored) = (&*self.names, &mut self.exports, &mut self.scored);
        let mut result = Ok(());
        self.scorer.flush(&mut |record| keep_first(&mut result, take(exports, scored, names, &record)));
        self.tolerate(result)?;
        self.pass_alerts_on()?;
        let flush = self.exports.flush();
        self.tolerate(flush)
    }

    /// Takes what the workers have; true when they have finished.
    fn drain(&mut self) -> Result<(bool, u64), ExportError> {
        let mut handled = 0;
        let mut result = Ok(());
        let (scorer, names) = (&mut self.scorer, &*self.names);
        let (exports, scored, lag) = (&mut self.exports, &mut self.scored, &mut self.lag);
        let now = lag.as_ref().map_or(0, |_| unix_nanoseconds());
        let finished = self.merge.drain(|record| {
            handled += 1;
            if let Some(lag) = lag {
                lag.saturating_record(now.saturating_sub(record.emitted) / 1000);
            }
            scorer.observe(record, &mut |record| keep_first(&mut result, take(exports, scored, names, &record)));
        });
        self.tolerate(result)?;
        self.pass_alerts_on()?;
        Ok((finished, handled))
    }

    fn score_waiting(&mut self) -> Result<(), ExportError> {
        let (names, exports, scored) = (&*self.names, &mut self.exports, &mut self.scored);
        let mut result = Ok(());
        self.scorer.drain(&mut |record| keep_first(&mut result, take(exports, scored, names, &record)));
        self.tolerate(result)?;
        self.pass_alerts_on()
    }

    fn pass_alerts_on(&mut self) -> Result<(), ExportError> {
        let mut result = Ok(());
        for event in self.scorer.drain_alerts() {
            keep_first(&mut result, self.exports.alert(&event, &*self.names));
            if let Some(recent) = &self.scored.recent {
                recent.alert(event.alert());
            }
            match event {
                AlertEvent::Closed(alert) if self.scored.episodes.len() < KEPT_ALERTS => {
                    self.scored.episodes.push(alert);
                }
                _ => {}
            }
        }
        self.tolerate(result)
    }

    /// A full disk must not stop the traffic: a live run says so, counts, and goes on.
    fn tolerate(&mut self, result: Result<(), ExportError>) -> Result<(), ExportError> {
        match result {
            Err(error) if self.lag.is_some() => {
                self.scored.export_failures += 1;
                // The first time, and then ever more seldom.
                if self.scored.export_failures.is_power_of_two() {
                    log::error!("{error} (failed {} times)", self.scored.export_failures);
                }
                Ok(())
            }
            other => other,
        }
    }
}

/// Writes a record and adds it to the account of its groups.
fn take(
    exports: &mut Exports,
    scored: &mut Scored,
    names: &PolicyNames,
    record: &ScoredRecord,
) -> Result<(), ExportError> {
    let r = &record.record;
    let pair = (r.src_groups, r.dst_groups);
    if scored.pairs.len() < MAX_PAIRS || scored.pairs.contains_key(&pair) {
        let traffic = scored.pairs.entry(pair).or_default();
        let ended = u64::from(r.reason != EndReason::Active);
        traffic.flows += ended;
        traffic.refused += ended * u64::from(r.decision != Decision::Allow);
        traffic.packets += r.packets.iter().sum::<u64>();
        traffic.bytes += r.bytes.iter().sum::<u64>();
    }
    if let Some(recent) = &scored.recent {
        recent.record(record, scored.pairs.get(&pair).map(|traffic| (pair, *traffic)));
    }
    exports.record(record, names)
}

fn keep_first(result: &mut Result<(), ExportError>, next: Result<(), ExportError>) {
    if result.is_ok() {
        *result = next;
    }
}

fn by_kind(stats: &Stats) -> BTreeMap<String, u64> {
    let counted = AlertKind::ALL.iter().zip(stats.alerts).filter(|(_, count)| *count > 0);
    counted.map(|(kind, count)| (kind.name().to_owned(), count)).collect()
}

/// The system clock.
pub(super) fn unix_nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
