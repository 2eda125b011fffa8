//! The scorer's thread: records of all workers → scores and alerts → files and collectors.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use hdrhistogram::Histogram;

use super::adaptation::Adaptation;
use super::clerk::Feed;
use super::health::Health;
use super::keeper::Keeper;
use super::library::{self, Library, Restored};
use super::merge::{RecordMerge, Told};
use super::policy::PolicyNames;
use super::recent::Recent;
use crate::behaviour::{Alert, AlertEvent, AlertKind, Role, ScoredRecord, Scorer, Sequence, Stats};
use crate::config::Config;
use crate::export::{CollectorSummary, ExportError, Exports, OUTAGE, PRESSURE};
use crate::flow::{EndReason, FlowRecord};
use crate::rules::{Decision, GroupSetHandle};
use crate::worker::{Alarm, Counter, Distributed, Distribution};

/// Alerts kept for the report at the end; the file has all of them.
const KEPT_ALERTS: usize = 1000;
/// Pairs of group sets counted apart.
const MAX_PAIRS: usize = 10_000;
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// One run of the scorer.
#[derive(Debug)]
pub struct Scoring {
    scorer: Scorer,
    merge: RecordMerge,
    abort: Arc<AtomicBool>,
    /// Live: what else is looked after on this thread.
    health: Option<Health>,
    counters: Arc<ScorerCounters>,
    models: Models,
    /// Live: what is being learnt of group pairs, on a thread of its own.
    lesson: Option<JoinHandle<Sequence>>,
    out: Out,
}

/// Who trains models and stores them.
#[derive(Debug)]
pub enum Models {
    /// The scorer trains, and every record waits for it: the same input gives the same output.
    Here(Option<Box<Library>>),
    /// Live.
    Aside(Keeper),
}

/// Where scored records and alerts go.
#[derive(Debug)]
struct Out {
    names: Arc<PolicyNames>,
    exports: Exports,
    numbers: StreamNumbers,
    scored: Scored,
    /// Who decides what mirrors take of whom.
    adaptation: Option<Adaptation>,
    /// Where records are put for who asked for them.
    records: Option<Arc<Mutex<Vec<FlowRecord>>>>,
    /// Who learns policies of them.
    feed: Option<Feed>,
}

/// What the scorer has done so far, for others to read.
#[derive(Debug, Default)]
pub struct ScorerCounters {
    pub records: Counter,
    pub scored: Counter,
    pub outliers: Counter,
    /// Hosts, pairs and relations in memory, and how many were forgotten to stay within limits.
    pub entries: Counter,
    pub forgotten: Counter,
    /// Episodes opened, in the order of [`AlertKind::ALL`], and of pressure on the flow tables.
    pub alerts: [Counter; AlertKind::ALL.len()],
    pub pressure_alerts: Counter,
    /// Collectors of mirrors out of reach.
    pub outage_alerts: Counter,
    /// 1 while the flow tables are under pressure.
    pub pressure: Counter,
    /// Live: microseconds from a record's making to its taking by the scorer.
    pub lag: Distribution,
    /// The number that the next record of the stream has, and how many numbers went to lost records.
    pub next_seq: Counter,
    pub lost: Counter,
    /// Number of the active model for all traffic, of the shadow, when the active one was trained (nanoseconds), and
    /// groups with a model of their own.
    pub model: Counter,
    pub shadow: Counter,
    pub trained_to: Counter,
    pub group_models: Counter,
    /// Models that came in force, candidates turned away, changes of the scores.
    pub swaps: Counter,
    pub rejected: Counter,
    pub drifts: Counter,
}

impl ScorerCounters {
    fn update(&self, stats: &Stats) {
        self.records.set(stats.records);
        self.scored.set(stats.scored);
        self.outliers.set(stats.outliers);
        self.entries.set(stats.entries);
        self.forgotten.set(stats.evicted);
        self.model.set(stats.model);
        self.shadow.set(stats.shadow);
        self.trained_to.set(stats.trained_to);
        self.group_models.set(stats.group_models);
        self.swaps.set(stats.swaps);
        self.rejected.set(stats.rejected);
        self.drifts.set(stats.drifts);
        self.alerts.iter().zip(stats.alerts).for_each(|(counter, count)| counter.set(count));
    }
}

/// Numbers of records in the stream: those that workers lost have one too, so readers see what is missing.
#[derive(Debug, Default)]
struct StreamNumbers {
    entered: u64,
    left: u64,
    /// Records that entered before a loss, and its size.
    losses: VecDeque<(u64, u64)>,
    lost: u64,
}

impl StreamNumbers {
    /// A record goes to the scorer; so many were lost before it.
    fn enter(&mut self, lost: u64) {
        if lost > 0 {
            self.losses.push_back((self.entered, lost));
        }
        self.entered += 1;
    }

    /// The number of the next record that comes out: the scorer keeps their order.
    fn next(&mut self) -> u64 {
        while let Some((_, lost)) = self.losses.front().filter(|(before, _)| *before <= self.left) {
            self.lost += lost;
            self.losses.pop_front();
        }
        let number = self.left + self.lost;
        self.left += 1;
        number
    }
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
    /// Lines that did not get into a file or socket.
    pub lines_lost: u64,
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
    /// A scorer reading from `merge`. `health`, in a live run: also keeps an eye on lag, pressure and counters.
    pub fn new(
        config: &Config,
        merge: RecordMerge,
        names: Arc<PolicyNames>,
        exports: Exports,
        abort: Arc<AtomicBool>,
        health: Option<Health>,
    ) -> Self {
        let scorer = Scorer::new(&config.scorer, config.seed);
        let scorer = if health.is_some() { scorer.with_lessons_apart() } else { scorer };
        let counters = health.as_ref().map_or_else(Arc::default, |health| health.observed().live.scorer.clone());
        let (numbers, scored) = (StreamNumbers::default(), Scored::default());
        let out = Out { names, exports, numbers, scored, adaptation: None, records: None, feed: None };
        Self { scorer, merge, abort, health, counters, models: Models::Here(None), lesson: None, out }
    }

    /// Begins with these models, and has others trained and stored by `models`.
    #[must_use]
    pub fn with_models(mut self, models: Models, restored: Vec<Restored>) -> Self {
        if let Models::Aside(_) = models {
            self.scorer = self.scorer.aside();
        }
        for Restored { scope, in_use, role } in restored {
            // Nothing waits before the first record.
            match role {
                Role::Active => self.scorer.activate(scope, in_use, &mut |_| ()),
                _ => self.scorer.accompany(scope, Some(in_use), &mut |_| ()),
            }
        }
        self.models = models;
        self
    }

    /// The first model that is trained in a replay has this number.
    #[must_use]
    pub fn numbering_from(mut self, first: u64) -> Self {
        self.scorer = self.scorer.numbering_from(first);
        self
    }

    /// What is found decides what mirrors take.
    #[must_use]
    pub fn adapting(mut self, adaptation: Option<Adaptation>) -> Self {
        self.out.adaptation = adaptation;
        self
    }

    /// Flow records are put there too.
    #[must_use]
    pub fn collecting(mut self, records: Option<Arc<Mutex<Vec<FlowRecord>>>>) -> Self {
        self.out.records = records;
        self
    }

    /// Policies are learnt of what is scored.
    #[must_use]
    pub fn feeding(mut self, feed: Option<Feed>) -> Self {
        self.out.feed = feed;
        self
    }

    /// Others see there what is new.
    #[must_use]
    pub fn showing(mut self, recent: Arc<Recent>) -> Self {
        self.out.scored.recent = Some(recent);
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
        let Out { mut exports, mut scored, .. } = self.out;
        scored.stats = self.scorer.stats();
        scored.alerts = by_kind(&scored.stats);
        for (kind, count) in [(PRESSURE, &self.counters.pressure_alerts), (OUTAGE, &self.counters.outage_alerts)] {
            if count.get() > 0 {
                scored.alerts.insert(kind.to_owned(), count.get());
            }
        }
        let files = &exports.files;
        scored.files = exports.paths();
        scored.export_failures = files.counters().iter().map(|output| output.failures()).sum();
        scored.lines_lost = files.counters().iter().map(|output| output.lost_lines()).sum();
        scored.collectors = exports.finish()?;
        scored.lag = self.health.is_some().then(|| Distributed::of([&self.counters.lag]).histogram());
        Ok(scored)
    }

    fn follow(&mut self) -> Result<()> {
        let mut flushed = Instant::now();
        loop {
            // Asked before draining: what the workers handed out before they waited is then in the rings.
            let waiting = self.out.adaptation.as_ref().and_then(Adaptation::waiting);
            let (finished, handled) = self.drain()?;
            if finished || (handled == 0 && self.abort.load(Ordering::Relaxed)) {
                break;
            }
            self.adapt(waiting)?;
            self.exchange_models()?;
            if flushed.elapsed() > FLUSH_EVERY {
                self.look_after()?;
                self.out.exports.flush()?;
                flushed = Instant::now();
            }
            if handled == 0 && waiting.is_none() {
                self.score_waiting()?;
                self.out.exports.files.flush_sockets();
                thread::sleep(Duration::from_micros(100));
            }
        }
        let (out, mut result) = (&mut self.out, Ok(()));
        self.scorer.flush(&mut |record| keep_first(&mut result, out.take(&record)));
        result?;
        self.pass_alerts_on()?;
        self.exchange_models()?;
        let Out { adaptation, exports, names, .. } = &mut self.out;
        if let Some(adaptation) = adaptation {
            adaptation.finish(&mut exports.files, names)?;
        }
        self.update_counters();
        if let Some(health) = &mut self.health {
            health.finish(&mut self.out.exports.files)?;
        }
        Ok(self.out.exports.files.finish()?)
    }

    /// Lets what was found have its effect on mirrors: live now and then, in a replay when all workers wait for it.
    fn adapt(&mut self, waiting: Option<(u64, u64)>) -> Result<(), ExportError> {
        let Some(adaptation) = &mut self.out.adaptation else { return Ok(()) };
        let now = match waiting {
            Some((_, begins)) => begins,
            None if self.health.is_some() && adaptation.is_due(unix_nanoseconds()) => unix_nanoseconds(),
            None => return Ok(()),
        };
        self.score_waiting()?;
        let Out { adaptation: Some(adaptation), exports, names, .. } = &mut self.out else { return Ok(()) };
        adaptation.tick(now, &mut exports.files, names)?;
        if let Some((step, _)) = waiting {
            adaptation.open(step);
        }
        Ok(())
    }

    /// Takes what the workers have; true when they have finished.
    fn drain(&mut self) -> Result<(bool, u64)> {
        let mut handled = 0;
        let (mut result, mut kept) = (Ok(()), Ok(()));
        let (scorer, lag, out) = (&mut self.scorer, &self.counters.lag, &mut self.out);
        let models = &self.models;
        let now = self.health.as_ref().map(|_| unix_nanoseconds());
        let finished = self.merge.drain(|told| {
            handled += 1;
            if let Told::Record(record, lost) = &told {
                if let Some(now) = now {
                    lag.record(now.saturating_sub(record.emitted) / 1000, 1);
                }
                out.numbers.enter(*lost);
            }
            let mut pass = |record| keep_first(&mut result, out.take(&record));
            match told {
                Told::Record(record, _) => scorer.observe(record, &mut pass),
                Told::Seen(observation) => scorer.see(&observation, &mut pass),
            }
            // Before anything else speaks of these models.
            if let Models::Here(library) = models
                && scorer.has_news()
                && kept.is_ok()
            {
                kept = library::keep(library.as_deref(), scorer, &out.names);
            }
        });
        result?;
        kept?;
        self.pass_alerts_on()?;
        Ok((finished, handled))
    }

    fn score_waiting(&mut self) -> Result<(), ExportError> {
        let (out, mut result) = (&mut self.out, Ok(()));
        self.scorer.drain(&mut |record| keep_first(&mut result, out.take(&record)));
        result?;
        self.pass_alerts_on()
    }

    /// Jobs and news go to who trains and stores; new models come in force between two records.
    fn exchange_models(&mut self) -> Result<()> {
        let (scorer, out, mut result) = (&mut self.scorer, &mut self.out, Ok(()));
        match &self.models {
            Models::Here(library) => library::keep(library.as_deref(), scorer, &out.names)?,
            Models::Aside(keeper) => keeper.exchange(scorer, &mut |record| keep_first(&mut result, out.take(&record))),
        }
        result?;
        Ok(self.pass_alerts_on()?)
    }

    fn pass_alerts_on(&mut self) -> Result<(), ExportError> {
        let mut result = Ok(());
        for event in self.scorer.drain_alerts() {
            keep_first(&mut result, self.out.tell(event));
        }
        for interval in self.scorer.drain_pairs() {
            keep_first(&mut result, self.out.exports.pair(&interval, &*self.out.names));
        }
        result
    }

    /// Once a second, live.
    fn look_after(&mut self) -> Result<(), ExportError> {
        self.update_counters();
        if let Models::Aside(keeper) = &self.models {
            keeper.show(&self.scorer);
        }
        self.teach();
        match &mut self.health {
            Some(health) => health.look(&mut self.out.exports.files, || self.scorer.reserve_episode()),
            None => Ok(()),
        }
    }

    /// Lets a lesson be learnt, or takes what came of it.
    fn teach(&mut self) {
        if self.lesson.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(Ok(sequence)) = self.lesson.take().map(JoinHandle::join)
        {
            self.scorer.accept(sequence);
        }
        if self.lesson.is_none()
            && let Some(lesson) = self.scorer.take_lesson()
        {
            let started = thread::Builder::new().name("lesson".into()).spawn(|| lesson.learn());
            self.lesson = started.inspect_err(|error| log::warn!("group pairs are not learnt today: {error}")).ok();
        }
    }

    fn update_counters(&self) {
        let numbers = &self.out.numbers;
        self.counters.update(&self.scorer.stats());
        self.counters.next_seq.set(numbers.left + numbers.lost);
        self.counters.lost.set(numbers.lost);
    }
}

impl Out {
    /// Writes a record and adds it to the account of its groups.
    fn take(&mut self, record: &ScoredRecord) -> Result<(), ExportError> {
        let (r, scored) = (&record.record, &mut self.scored);
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
        if let Some(adaptation) = &mut self.adaptation {
            adaptation.record(record);
        }
        if let Some(feed) = &self.feed {
            feed.give(record);
        }
        if let Some(records) = &self.records {
            records.lock().unwrap_or_else(PoisonError::into_inner).push(*r);
        }
        self.exports.record(record, self.numbers.next(), &*self.names)
    }

    /// Passes on what became of an episode.
    fn tell(&mut self, event: AlertEvent) -> Result<(), ExportError> {
        let told = self.exports.alert(&event, &*self.names);
        if let Some(recent) = &self.scored.recent {
            recent.alert(event.alert());
        }
        if let Some(adaptation) = &mut self.adaptation {
            adaptation.alert(&event);
        }
        match event {
            AlertEvent::Closed(alert) if self.scored.episodes.len() < KEPT_ALERTS => self.scored.episodes.push(alert),
            _ => {}
        }
        told
    }
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
pub fn unix_nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_records_have_numbers_too() {
        let mut numbers = StreamNumbers::default();
        // Records come out of the scorer in batches, later than they went in.
        [0, 2, 0].into_iter().for_each(|lost| numbers.enter(lost));
        assert_eq!([numbers.next(), numbers.next()], [0, 3]);
        [1, 0].into_iter().for_each(|lost| numbers.enter(lost));
        assert_eq!([numbers.next(), numbers.next(), numbers.next()], [4, 6, 7]);
        assert_eq!(numbers.lost, 3);
    }
}
