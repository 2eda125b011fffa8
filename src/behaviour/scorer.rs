//! Joins features, detectors and model into one stage; [`models`] has what concerns their lives.

mod models;

use std::collections::HashMap;

use crate::config;
use crate::flow::FlowRecord;
use crate::rules::GroupSetHandle;
use crate::worker::Observation;

use super::alert::{AlertEvent, AlertKind, Flags};
use super::detect::{Bar, Detectors, Host, Known, Sighting, nanoseconds};
use super::expect::{Expectations, Lesson, PairInterval, Sequence, Slice};
use super::features::{Extractor, Features};
use super::life::{Job, News, Scope, Seat, Taken, Verdict};
use super::model::Model;
use super::outlier::Watch;

/// Records scored together once the model is trained. Whether one is to be trained is looked at after as many.
const BATCH: usize = 256;
/// Windows that the quiet at the end of an outlier's episode is the double of.
const QUIET: u64 = 15;

/// A record with what the scorer thinks of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredRecord {
    pub record: FlowRecord,
    /// Calibrated score, 0..=1, see [`Calibration`](super::Calibration); `None` before the model is trained.
    pub score: Option<f32>,
    pub flags: Flags,
}

/// Counters of the scorer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub records: u64,
    /// Records with a score.
    pub scored: u64,
    pub trained: bool,
    /// Records the model was trained and calibrated on, and warm-up records left out as attacks.
    pub trained_on: u64,
    pub excluded: u64,
    /// Number of the active model for all traffic, 0 without one, and the time of the last record it was trained on.
    pub model: u64,
    pub trained_to: u64,
    /// Likewise of the shadow.
    pub shadow: u64,
    /// Groups with a model of their own.
    pub group_models: u64,
    /// Models that came in force, candidates that a gate turned away, and changes of the scores for good.
    pub swaps: u64,
    pub rejected: u64,
    pub drifts: u64,
    /// Records at or above the outlier threshold.
    pub outliers: u64,
    /// Records that would have opened an outlier episode, had there not been too many.
    pub suppressed: u64,
    /// Episodes opened, in the order of [`AlertKind::ALL`].
    pub alerts: [u64; AlertKind::ALL.len()],
    /// Remembered hosts, pairs and relations, and how many were forgotten to stay within limits.
    pub entries: u64,
    pub evicted: u64,
}

/// Scores flow records and raises alerts. The same records, configuration and seed give the same
/// output, however calls to [`Scorer::drain`] are spread between them; unless training is done [aside](Scorer::aside).
#[derive(Clone, Debug)]
pub struct Scorer {
    config: config::Scorer,
    seed: u64,
    extractor: Extractor,
    detectors: Detectors,
    watch: Watch,
    /// That of all traffic, then those of groups.
    seats: Vec<Seat>,
    groups: HashMap<GroupSetHandle, usize>,
    /// Records kept for the first training.
    warm: Vec<Taken>,
    warm_from: u64,
    /// Training is somebody else's.
    aside: bool,
    next_model: u64,
    jobs: Vec<Job>,
    news: Vec<News>,
    /// What is expected of group pairs, and what was not.
    expectations: Option<Expectations>,
    pairs: Vec<PairInterval>,
    /// Lessons are learnt elsewhere; the one that waits for it.
    apart: bool,
    lesson: Option<Lesson>,
    /// Records waiting for the batch to be full; at most `BATCH`.
    pending: Vec<FlowRecord>,
    /// Theirs.
    features: Vec<Features>,
    alerts: Vec<AlertEvent>,
    stats: Stats,
    last: u64,
}

impl Scorer {
    pub fn new(config: &config::Scorer, seed: u64) -> Self {
        let window = nanoseconds(config.detect.window);
        Self {
            config: config.clone(),
            seed,
            extractor: Extractor::new(window, seed),
            detectors: Detectors::new(&config.detect),
            watch: Watch::new(window, config.contamination),
            seats: vec![Seat::new(Scope::All, config.warmup_records.max(2), seed)],
            groups: HashMap::new(),
            warm: Vec::new(),
            warm_from: 0,
            aside: false,
            next_model: 1,
            jobs: Vec::new(),
            news: Vec::new(),
            expectations: config.pairs.enabled.then(|| Expectations::new(&config.pairs)),
            pairs: Vec::new(),
            apart: false,
            lesson: None,
            pending: Vec::with_capacity(BATCH),
            features: Vec::with_capacity(BATCH),
            alerts: Vec::new(),
            stats: Stats::default(),
            last: 0,
        }
    }

    /// Models are trained by who takes the [jobs](Scorer::take_job), and scoring goes on meanwhile.
    #[must_use]
    pub fn aside(mut self) -> Self {
        self.aside = true;
        self
    }

    /// The first model that is trained here has this number.
    #[must_use]
    pub fn numbering_from(mut self, first: u64) -> Self {
        self.next_model = first;
        self
    }

    /// What is to be learnt of sequences waits for [`take_lesson`](Self::take_lesson), instead of holding records up.
    #[must_use]
    pub fn with_lessons_apart(mut self) -> Self {
        self.apart = true;
        self
    }

    /// A lesson to be learnt elsewhere, whose result is to be given to [`accept`](Self::accept).
    pub fn take_lesson(&mut self) -> Option<Lesson> {
        self.lesson.take()
    }

    pub fn accept(&mut self, sequence: Sequence) {
        if let Some(expectations) = &mut self.expectations {
            expectations.accept(sequence);
        }
    }

    /// Takes the next record, in the order of `emitted`. `out` gets each record once, in order: at
    /// once during the warm-up, in batches of 256 afterwards. With the scorer disabled the record
    /// passes without score and flags.
    pub fn observe(&mut self, record: FlowRecord, out: &mut impl FnMut(ScoredRecord)) {
        self.stats.records += 1;
        self.last = self.last.max(record.emitted);
        if !self.config.enabled {
            return out(ScoredRecord { record, score: None, flags: Flags::default() });
        }
        self.features.push(self.extractor.extract(&record));
        self.pending.push(record);
        let round = self.stats.records.is_multiple_of(BATCH as u64);
        if round || self.pending.len() >= BATCH || self.seats[0].active().is_none() {
            self.drain(out);
        }
        // Where batches end depends on who drains; where trainings begin must not.
        if round && self.seats[0].active().is_some() {
            self.tend();
        }
    }

    /// Takes what was seen beside records, in the order of its time. What waits for a batch came before it.
    pub fn see(&mut self, observation: &Observation, out: &mut impl FnMut(ScoredRecord)) {
        if self.config.enabled {
            self.drain(out);
            self.last = self.last.max(observation.clock);
            self.detectors.see(observation);
            self.collect_alerts();
        }
    }

    /// Hands out records that wait for a batch: for when no more come at the moment.
    pub fn drain(&mut self, out: &mut impl FnMut(ScoredRecord)) {
        let (mut pending, mut features) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.features));
        let places = self.score(&pending, &features);
        for (i, (record, features)) in pending.drain(..).zip(features.drain(..)).enumerate() {
            out(self.finish(record, &features, places.get(i).copied()));
        }
        (self.pending, self.features) = (pending, features);
    }

    /// The end of the run: hands out what waits and closes all episodes.
    pub fn flush(&mut self, out: &mut impl FnMut(ScoredRecord)) {
        self.drain(out);
        self.detectors.book.close_all(self.last);
        self.collect_alerts();
    }

    /// Events since the last call. Call it after every few calls of `observe`: they wait in memory.
    pub fn drain_alerts(&mut self) -> std::vec::Drain<'_, AlertEvent> {
        self.alerts.drain(..)
    }

    /// Intervals of group pairs that were not expected, since the last call; alike.
    pub fn drain_pairs(&mut self) -> std::vec::Drain<'_, PairInterval> {
        self.pairs.drain(..)
    }

    /// A number for an episode of an alert that others raise, so that numbers are unique in a run.
    pub fn reserve_episode(&mut self) -> u64 {
        self.detectors.book.reserve()
    }

    pub fn stats(&self) -> Stats {
        let all = &self.seats[0];
        let pairs = self.expectations.as_ref().map_or((0, 0), |pairs| (pairs.len(), pairs.forgotten()));
        Stats {
            alerts: self.detectors.book.by_kind(),
            suppressed: self.watch.suppressed(),
            entries: (self.extractor.entries() + self.detectors.entries() + self.watch.entries() + pairs.0) as u64,
            evicted: self.evicted() + pairs.1,
            trained: all.active().is_some(),
            model: all.active().map_or(0, |in_use| in_use.id),
            trained_to: all.active().map_or(0, |in_use| in_use.trained_to),
            shadow: all.shadow_id().unwrap_or(0),
            group_models: self.seats[1..].iter().filter(|seat| seat.active().is_some()).count() as u64,
            ..self.stats
        }
    }

    fn evicted(&self) -> u64 {
        let hosts: u64 = self.seats.iter().map(Seat::forgotten).sum();
        self.extractor.evicted() + self.detectors.evicted() + self.watch.evicted() + hosts
    }

    /// The model for all traffic.
    pub fn model(&self) -> Option<&Model> {
        self.seats[0].model()
    }

    /// Raw scores of a batch: for each record the seat that judges it and its place there. Empty without a model.
    fn score(&mut self, pending: &[FlowRecord], features: &[Features]) -> Vec<(usize, usize)> {
        if self.seats[0].active().is_none() || pending.is_empty() {
            return Vec::new();
        }
        if self.seats.len() == 1 {
            self.seats[0].score(features);
            return (0..pending.len()).map(|row| (0, row)).collect();
        }
        let mut batches: Vec<Vec<Features>> = vec![Vec::new(); self.seats.len()];
        let place = |(record, features): (&FlowRecord, &Features)| {
            let own = self.groups.get(&record.src_groups).filter(|seat| self.seats[**seat].active().is_some());
            let seat = own.copied().unwrap_or(0);
            batches[seat].push(*features);
            (seat, batches[seat].len() - 1)
        };
        let places = pending.iter().zip(features).map(place).collect();
        self.seats.iter_mut().zip(&batches).filter(|(_, batch)| !batch.is_empty()).for_each(|(s, b)| s.score(b));
        places
    }

    /// Flags, alerts and training for one record; `place`: where its raw score is, when there is a model.
    fn finish(&mut self, record: FlowRecord, features: &Features, place: Option<(usize, usize)>) -> ScoredRecord {
        let finding = self.detectors.observe(&record);
        let mut flags = finding.flags;
        let judged = place.and_then(|(seat, row)| {
            let verdict = self.seats[seat].verdict(row, finding.flags.is_attack())?;
            let alerted = self.judge(&record, features, (seat, verdict), finding.failed, &mut flags);
            Some((verdict.score, alerted))
        });
        self.expect(&record, flags);
        self.collect_alerts();
        let taken = Taken {
            features: *features,
            source: Host::source(&record.tuple),
            destination: Host::destination(&record.tuple),
            suspicious: finding.suspicious,
            attack: finding.flags.is_attack(),
        };
        match judged {
            Some((score, alerted)) => self.keep(taken, &record, score, alerted),
            None => self.warm_up(taken, &record),
        }
        ScoredRecord { record, score: judged.map(|(score, _)| score), flags }
    }

    /// The outlier episode of the record's source, if there is one; true when the record is part of it.
    fn judge(
        &mut self,
        r: &FlowRecord,
        features: &Features,
        (seat, verdict): (usize, Verdict),
        failed: bool,
        flags: &mut Flags,
    ) -> bool {
        let Verdict { score, unusual, beyond, drift } = verdict;
        self.stats.scored += 1;
        if let Some(change) = drift {
            self.drifted(seat, r.emitted, change);
        }
        // Attack traffic has its own alert; what was tried in vain is counted by detectors.
        let left_out = flags.is_attack() || failed;
        let stands_out = !left_out && self.watch.note(Host::source(&r.tuple), r.emitted, unusual, beyond);
        if !unusual {
            return false;
        }
        self.stats.outliers += 1;
        flags.insert(AlertKind::Outlier);
        if left_out {
            return false;
        }
        let key = Watch::key(Host::source(&r.tuple));
        let book = &mut self.detectors.book;
        let sighting = Sighting { host: Some(Host::destination(&r.tuple)), failed: false, ..Sighting::of(r) };
        match book.known(&key, r.start) {
            Known::Open => book.add(&key, &sighting, r.emitted),
            Known::No if stands_out && self.watch.may_open(r.emitted) => {
                let bar = Bar { threshold: 1.0, window: QUIET * nanoseconds(self.config.detect.window) };
                book.open(key, bar, &[], &sighting, r);
            }
            Known::No | Known::Late => return false,
        }
        if book.score(&key, score, beyond) {
            book.explain(&key, &self.seats[seat].contributions(features));
        }
        true
    }

    /// The record as part of what its groups do.
    fn expect(&mut self, r: &FlowRecord, flags: Flags) {
        let Some(expectations) = &mut self.expectations else { return };
        let mut unexpected = Vec::new();
        expectations.observe(&Slice::of(r, flags.is_attack()), &mut unexpected);
        self.detectors.unexpected(&unexpected, expectations.is_scoring());
        self.pairs.extend(unexpected.into_iter().filter(|interval| interval.told));
        match expectations.lesson(self.seed) {
            Some(lesson) if self.apart => self.lesson = Some(lesson),
            Some(lesson) => expectations.accept(lesson.learn()),
            None => {}
        }
    }

    fn collect_alerts(&mut self) {
        let events = self.detectors.take_events();
        for seat in &mut self.seats {
            events.iter().for_each(|event| seat.note_alert(event));
        }
        self.alerts.extend(events);
    }
}
