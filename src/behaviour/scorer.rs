//! Joins features, detectors and model into one stage.

use std::collections::BTreeSet;

use crate::config;
use crate::flow::FlowRecord;
use crate::worker::Observation;

use crate::trie::Isa;

use super::alert::{AlertEvent, AlertKind, Flags};
use super::detect::{Bar, Detectors, Finding, Host, Key, Known, Sighting, nanoseconds};
use super::expect::{Expectations, Lesson, PairInterval, Sequence, Slice};
use super::features::{Extractor, FEATURES, Features};
use super::model::{Model, Rows, Scratch, Training};
use super::outlier::Watch;

/// Records scored together once the model is trained.
const BATCH: usize = 256;
/// Share of the warm-up that must remain after attack traffic was taken out; else it is prolonged.
const LEAST_CLEAN: usize = 4;

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

/// What is kept of a record until the model is trained.
#[derive(Clone, Debug)]
struct Warm {
    features: Features,
    source: Host,
    destination: Host,
    suspicious: bool,
    attack: bool,
}

#[derive(Clone, Debug)]
enum Phase {
    WarmUp { records: Vec<Warm>, attacks: BTreeSet<Key> },
    Trained(Box<Trained>),
}

#[derive(Clone, Debug)]
struct Trained {
    model: Model,
    scratch: Scratch,
    /// Raw scores of the batch.
    raw: Vec<f32>,
}

/// Scores flow records and raises alerts. The same records, configuration and seed give the same
/// output, however calls to [`Scorer::drain`] are spread between them.
#[derive(Clone, Debug)]
pub struct Scorer {
    config: config::Scorer,
    seed: u64,
    extractor: Extractor,
    detectors: Detectors,
    watch: Watch,
    /// What is expected of group pairs, and what was not.
    expectations: Option<Expectations>,
    pairs: Vec<PairInterval>,
    /// Lessons are learnt elsewhere; the one that waits for it.
    apart: bool,
    lesson: Option<Lesson>,
    phase: Phase,
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
            expectations: config.pairs.enabled.then(|| Expectations::new(&config.pairs)),
            pairs: Vec::new(),
            apart: false,
            lesson: None,
            phase: Phase::WarmUp { records: Vec::new(), attacks: BTreeSet::new() },
            pending: Vec::with_capacity(BATCH),
            features: Vec::with_capacity(BATCH),
            alerts: Vec::new(),
            stats: Stats::default(),
            last: 0,
        }
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
        if self.pending.len() >= BATCH || matches!(self.phase, Phase::WarmUp { .. }) {
            self.drain(out);
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
        let scored = if let Phase::Trained(trained) = &mut self.phase {
            let Trained { model, scratch, raw } = &mut **trained;
            model.score(Rows::new(features.as_flattened(), FEATURES), scratch, raw);
            true
        } else {
            false
        };
        for (i, (record, features)) in pending.drain(..).zip(features.drain(..)).enumerate() {
            out(self.finish(record, &features, scored.then_some(i)));
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
        let pairs = self.expectations.as_ref().map_or((0, 0), |pairs| (pairs.len(), pairs.forgotten()));
        Stats {
            alerts: self.detectors.book.by_kind(),
            suppressed: self.watch.suppressed(),
            entries: (self.extractor.entries() + self.detectors.entries() + self.watch.entries() + pairs.0) as u64,
            evicted: self.extractor.evicted() + self.detectors.evicted() + self.watch.evicted() + pairs.1,
            trained: matches!(self.phase, Phase::Trained(_)),
            ..self.stats
        }
    }

    /// Flags, alerts and training for one record; `place`: where its raw score is, when there is a model.
    fn finish(&mut self, record: FlowRecord, features: &Features, place: Option<usize>) -> ScoredRecord {
        let finding = self.detectors.observe(&record);
        let mut flags = finding.flags;
        let score = place.map(|place| self.judge(&record, features, place, &mut flags));
        self.expect(&record, flags);
        self.collect_alerts();
        if score.is_none() {
            self.warm_up(&record, features, finding);
        }
        ScoredRecord { record, score, flags }
    }

    /// Calibrated score of a record, and the outlier episode of its source if there is one.
    fn judge(&mut self, r: &FlowRecord, features: &Features, place: usize, flags: &mut Flags) -> f32 {
        let Phase::Trained(trained) = &mut self.phase else { return 0.0 };
        let (calibration, raw) = (trained.model.calibration(), trained.raw[place]);
        let score = calibration.calibrate(raw);
        self.stats.scored += 1;
        let unusual = score >= calibration.threshold();
        let beyond = calibration.is_beyond(raw);
        // Attack traffic has its own alert.
        let stands_out = !flags.is_attack() && self.watch.note(Host::source(&r.tuple), r.emitted, unusual, beyond);
        if !unusual {
            return score;
        }
        self.stats.outliers += 1;
        let attack = flags.is_attack();
        flags.insert(AlertKind::Outlier);
        if attack {
            return score;
        }
        let key = Watch::key(Host::source(&r.tuple));
        let book = &mut self.detectors.book;
        let sighting = Sighting { host: Some(Host::destination(&r.tuple)), failed: false, ..Sighting::of(r) };
        match book.known(&key, r.start) {
            Known::Open => book.add(&key, &sighting, r.emitted),
            Known::No if stands_out && self.watch.may_open(r.emitted) => {
                let bar = Bar { threshold: 1.0, window: nanoseconds(self.config.detect.window) };
                book.open(key, bar, &[], &sighting, r);
            }
            Known::No | Known::Late => return score,
        }
        if book.score(&key, score, beyond) {
            let mut contributions = [0.0; FEATURES];
            contributions.copy_from_slice(&trained.model.contributions(features, &mut trained.scratch));
            book.explain(&key, &contributions);
        }
        score
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
        if let Phase::WarmUp { attacks, .. } = &mut self.phase {
            attacks.extend(events.iter().filter_map(|e| match e {
                AlertEvent::Opened(a) => Some(Key { kind: a.kind, actor: a.actor, victim: a.victim }),
                AlertEvent::Updated(_) | AlertEvent::Closed(_) => None,
            }));
        }
        self.alerts.extend(events);
    }

    /// Keeps the record for training, and trains when there are enough of them.
    fn warm_up(&mut self, r: &FlowRecord, features: &Features, finding: Finding) {
        let Phase::WarmUp { records, attacks } = &mut self.phase else { return };
        records.push(Warm {
            features: *features,
            source: Host::source(&r.tuple),
            destination: Host::destination(&r.tuple),
            suspicious: finding.suspicious,
            attack: finding.flags.is_attack(),
        });
        let wanted = self.config.warmup_records.max(2);
        if records.len() < wanted {
            return;
        }
        let before = records.len();
        records.retain(|w| !is_attack(w, attacks));
        self.stats.excluded += (before - records.len()) as u64;
        if records.len() < wanted.div_ceil(LEAST_CLEAN) {
            return;
        }
        let data: Vec<Features> = records.iter().map(|w| w.features).collect();
        let training = Training {
            trees: self.config.trees,
            sample: self.config.sample,
            contamination: self.config.contamination,
            seed: self.seed,
            isa: Isa::best(),
        };
        let model = Model::train(Rows::new(data.as_flattened(), FEATURES), &training);
        let scratch = model.scratch();
        self.stats.trained_on = data.len() as u64;
        self.phase = Phase::Trained(Box::new(Trained { model, scratch, raw: vec![0.0; BATCH] }));
    }
}

/// Flagged, from the source of a scan, or unanswered traffic to the victim of a flood: also when the
/// record came before the alert.
fn is_attack(w: &Warm, attacks: &BTreeSet<Key>) -> bool {
    let by = |key: &Key| {
        if key.kind.is_flood() {
            key.victim.host() == Some(w.destination) && w.suspicious
        } else {
            key.actor.host() == Some(w.source)
        }
    };
    w.attack || attacks.iter().any(by)
}
