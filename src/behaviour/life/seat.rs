//! One scope: what scores there, what scores beside it, and what is kept for the next training.

use super::compare::{Compared, Comparison};
use super::drift::{Adwin, Change};
use super::gate::{RESTLESS, UNUSUAL};
use super::job::{Cause, InUse, Job, Source};
use super::window::{Attacks, Standing, Taken, Window};
use super::{Role, Scope};
use crate::behaviour::alert::AlertEvent;
use crate::behaviour::features::{FEATURES, Features};
use crate::behaviour::model::{Calibration, Model, Rows, Scratch, Training};

/// Probability of drift being found where there is none, at each look (as in the paper).
const DELTA: f64 = 0.002;
/// Records from one drift that is told to the next: while scores are on their way, every step of it is one.
const QUIET: u64 = 4096;
/// Ordinary records that are kept to train on.
const ROOM: std::ops::RangeInclusive<usize> = 32_768..=262_144;

/// What a model says of one record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) score: f32,
    pub(crate) unusual: bool,
    /// Above everything that the model was calibrated on.
    pub(crate) beyond: bool,
    pub(crate) drift: Option<Change>,
}

/// What the comparison says of a shadow.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    pub(crate) id: u64,
    /// The model beside which it scored.
    pub(crate) against: u64,
    pub(crate) role: Role,
    pub(crate) reason: String,
}

/// A model with the memory of its runs.
#[derive(Clone, Debug)]
struct Runner {
    in_use: InUse,
    scratch: Scratch,
    /// Raw scores of the batch.
    raw: Vec<f32>,
}

impl Runner {
    fn new(in_use: InUse) -> Self {
        Self { scratch: in_use.model.scratch(), in_use, raw: Vec::new() }
    }

    fn score(&mut self, batch: &[Features]) {
        self.raw.resize(batch.len(), 0.0);
        self.in_use.model.score(Rows::new(batch.as_flattened(), FEATURES), &mut self.scratch, &mut self.raw);
    }

    fn calibration(&self) -> &Calibration {
        self.in_use.model.calibration()
    }
}

/// The models of one scope.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    scope: Scope,
    active: Option<Runner>,
    shadow: Option<(Runner, Comparison)>,
    window: Window,
    attacks: Attacks,
    drift: Adwin,
    /// Records since drift was told.
    steady: u64,
    /// When the last training was, flow time.
    trained_at: u64,
    /// What somebody or something wants; true for a shadow.
    wanted: Option<(Cause, Option<bool>)>,
    /// A job is out.
    busy: bool,
    /// The shadow was judged, and nothing came of it so far.
    judged: bool,
    /// Hosts of attacks that were forgotten.
    forgotten: u64,
    /// Fewest records to train on.
    least: usize,
    seed: u64,
}

impl Seat {
    pub(crate) fn new(scope: Scope, least: usize, seed: u64) -> Self {
        let room = match scope {
            Scope::All => least.clamp(*ROOM.start(), *ROOM.end()),
            Scope::Group(_) => (2 * least).clamp(1024, *ROOM.end()),
        };
        Self {
            scope,
            active: None,
            shadow: None,
            window: Window::new(room, seed),
            attacks: Attacks::default(),
            drift: Adwin::new(DELTA),
            steady: QUIET,
            trained_at: 0,
            wanted: None,
            busy: false,
            judged: false,
            forgotten: 0,
            least,
            seed,
        }
    }

    pub(crate) fn scope(&self) -> Scope {
        self.scope
    }

    pub(crate) fn active(&self) -> Option<&InUse> {
        self.active.as_ref().map(|runner| &runner.in_use)
    }

    pub(crate) fn shadow_id(&self) -> Option<u64> {
        self.shadow.as_ref().map(|(runner, _)| runner.in_use.id)
    }

    pub(crate) fn shadow(&self) -> Option<(&InUse, Compared)> {
        self.shadow.as_ref().map(|(runner, comparison)| (&runner.in_use, comparison.compared()))
    }

    pub(in crate::behaviour) fn attacks(&self) -> &Attacks {
        &self.attacks
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Raw scores of a batch, of both models.
    pub(crate) fn score(&mut self, batch: &[Features]) {
        let runners = self.active.iter_mut().chain(self.shadow.iter_mut().map(|(runner, _)| runner));
        runners.for_each(|runner| runner.score(batch));
    }

    /// What the active model says of a record of the batch; notes what the shadow says. Attacks have alerts of their
    /// own, and are no drift.
    pub(crate) fn verdict(&mut self, row: usize, attack: bool) -> Option<Verdict> {
        let runner = self.active.as_ref()?;
        let (calibration, raw) = (runner.calibration(), *runner.raw.get(row)?);
        let score = calibration.calibrate(raw);
        if let Some((shadow, comparison)) = &mut self.shadow
            && let Some(raw) = shadow.raw.get(row)
        {
            comparison.note(score, shadow.calibration().calibrate(*raw));
        }
        let (unusual, beyond) = (score >= calibration.threshold(), calibration.is_beyond(raw));
        let change = if attack { None } else { self.drift.add(score.into()) };
        self.steady += 1;
        let drift = change.filter(|_| self.steady > QUIET);
        if drift.is_some() {
            self.steady = 0;
        }
        Some(Verdict { score, unusual, beyond, drift })
    }

    pub(crate) fn contributions(&mut self, features: &Features) -> [f32; FEATURES] {
        let mut parts = [0.0; FEATURES];
        if let Some(Runner { in_use, scratch, .. }) = &mut self.active {
            parts.copy_from_slice(&in_use.model.contributions(features, scratch));
        }
        parts
    }

    pub(crate) fn note_alert(&mut self, event: &AlertEvent) {
        self.attacks.note(event);
    }

    /// Hosts of attacks that were forgotten to stay within limits.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten + self.attacks.forgotten()
    }

    fn take_attacks(&mut self) -> Attacks {
        self.forgotten += self.attacks.forgotten();
        std::mem::take(&mut self.attacks)
    }

    /// Keeps a record for the next training; `alerted`: it is part of an outlier episode.
    pub(crate) fn keep(&mut self, record: Taken, emitted: u64, score: Option<f32>, alerted: bool) {
        let standing = match score {
            _ if alerted => Standing::Alerted,
            Some(score) if score >= UNUSUAL => Standing::Unusual(score),
            _ => Standing::Ordinary,
        };
        self.window.note(record, emitted, standing);
    }

    /// A training is wanted as soon as there are enough records.
    pub(crate) fn want(&mut self, cause: Cause, shadow: Option<bool>) {
        self.wanted = Some((cause, shadow));
    }

    /// Records kept for the next training, and how many it needs.
    pub(crate) fn kept(&self) -> (u64, u64) {
        (self.window.len(), self.least as u64)
    }

    /// What to train now, if anything. `retrain`: how often, in nanoseconds.
    pub(crate) fn due(&mut self, now: u64, retrain: Option<u64>, shadow: bool, training: Training) -> Option<Job> {
        // What a candidate is held against should still be active when it is trained.
        if self.busy || self.judged || self.window.len() < self.least as u64 {
            return None;
        }
        let first = self.active.is_none() && self.window.ordinary() >= self.least as u64;
        let interval = retrain.is_some_and(|every| now >= self.trained_at.saturating_add(every));
        let (cause, asked) = match self.wanted {
            _ if self.active.is_none() && self.scope == Scope::All => return None,
            _ if self.active.is_none() => (first.then_some(Cause::WarmUp)?, Some(false)),
            Some(wanted) => wanted,
            None => (interval.then_some(Cause::Interval)?, None),
        };
        self.wanted = None;
        let harvest = Box::new(self.window.harvest());
        let from = Source::Window { harvest, attacks: self.take_attacks() };
        Some(self.job(cause, now, asked.unwrap_or(shadow), from, training))
    }

    /// The first training of all traffic.
    pub(crate) fn first(&mut self, rows: Vec<Features>, span: (u64, u64), excluded: u64, training: Training) -> Job {
        self.take_attacks();
        self.job(Cause::WarmUp, span.1, false, Source::WarmUp { rows, span, excluded }, training)
    }

    fn job(&mut self, cause: Cause, at: u64, shadow: bool, from: Source, training: Training) -> Job {
        (self.busy, self.trained_at) = (true, at);
        Job { scope: self.scope, cause, at, shadow, from, active: self.active().cloned(), training }
    }

    /// The training is over, whatever came of it.
    pub(crate) fn job_done(&mut self) {
        self.busy = false;
    }

    /// From here on it scores.
    pub(crate) fn activate(&mut self, in_use: InUse) {
        self.trained_at = self.trained_at.max(in_use.trained_to);
        if self.shadow_id() == Some(in_use.id) {
            self.shadow = None;
        }
        // What is left was compared with another one.
        self.compare_anew();
        self.active = Some(Runner::new(in_use));
        self.drift = Adwin::new(DELTA);
    }

    /// From here on it scores beside the active one.
    pub(crate) fn accompany(&mut self, in_use: Option<InUse>) {
        self.shadow = in_use.map(|in_use| (Runner::new(in_use), Comparison::new(self.seed)));
        self.judged = false;
    }

    fn compare_anew(&mut self) {
        if let Some((_, comparison)) = &mut self.shadow {
            *comparison = Comparison::new(self.seed);
        }
        self.judged = false;
    }

    /// After `records` records, whether the shadow should take the active one's place or leave; said once.
    pub(crate) fn judge_shadow(&mut self, records: u64) -> Option<Judgement> {
        let (runner, comparison) = self.shadow.as_ref().filter(|_| !self.judged)?;
        let seen = Some(comparison.records()).filter(|seen| *seen >= records)?;
        let [active, shadow] = comparison.unusual();
        let reason = format!(
            "of {seen} records beside the active one it called {:.1} % unusual, that one {:.1} %",
            100.0 * shadow,
            100.0 * active
        );
        let role = if shadow > RESTLESS.max(3.0 * active) { Role::Rejected } else { Role::Active };
        let (id, against) = (runner.in_use.id, self.active()?.id);
        self.judged = true;
        Some(Judgement { id, against, role, reason })
    }

    /// What becomes of the shadow `id` beside the model `against`; as a shadow it is compared anew. False where these are
    /// no longer the models here: nothing is done then.
    pub(crate) fn decide(&mut self, id: u64, against: u64, role: Role) -> bool {
        if self.shadow_id() != Some(id) || self.active().is_none_or(|active| active.id != against) {
            return false;
        }
        match role {
            Role::Active => {
                if let Some((runner, _)) = self.shadow.take() {
                    self.activate(runner.in_use);
                }
            }
            Role::Shadow => self.compare_anew(),
            Role::Rejected => self.accompany(None),
        }
        true
    }

    /// The model that had a number has another one.
    pub(crate) fn renumber(&mut self, from: u64, to: u64) {
        let runners = self.active.iter_mut().chain(self.shadow.iter_mut().map(|(runner, _)| runner));
        runners.filter(|runner| runner.in_use.id == from).for_each(|runner| runner.in_use.id = to);
    }

    pub(crate) fn model(&self) -> Option<&Model> {
        self.active().map(|in_use| &*in_use.model)
    }
}
