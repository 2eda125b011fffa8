//! A training, from what a window kept to a candidate that the gates have seen. It may run on any thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;
use serde::Serialize;

use super::gate::{CALM, HOLD, ORDINARY, OUTLIERS, PLAIN, REFERENCE, SURE, UNUSUAL};
use super::window::{Attacks, Harvest, Taken};
use super::{Role, Scope};
use crate::behaviour::features::{FEATURES, Features};
use crate::behaviour::model::{Model, Rows, Training};

/// Records of training that later candidates are held against.
const REFERENCES: usize = 1024;
/// Share of the ordinary records that must remain when those of attackers are taken out.
const LEAST_CLEAN: usize = 4;

/// Why a model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// There is none yet.
    WarmUp,
    Interval,
    Drift,
    Asked,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Cause::WarmUp => "warm-up",
            Cause::Interval => "interval",
            Cause::Drift => "drift",
            Cause::Asked => "asked for",
        }
    }
}

/// A model that scores.
#[derive(Clone, Debug)]
pub struct InUse {
    /// Its number; never 0, so that 0 stands for none.
    pub id: u64,
    pub model: Arc<Model>,
    /// Rows of ordinary traffic that it was trained on.
    pub reference: Arc<[f32]>,
    pub records: u64,
    /// Time of the last record that it was trained on, nanoseconds.
    pub trained_to: u64,
}

/// What is to be trained.
#[derive(Clone, Debug)]
pub struct Job {
    pub(super) scope: Scope,
    pub(super) cause: Cause,
    /// Flow time.
    pub(super) at: u64,
    /// The candidate shall score beside the active model first.
    pub(super) shadow: bool,
    pub(super) from: Source,
    /// What scores now.
    pub(super) active: Option<InUse>,
    pub(super) training: Training,
}

/// Where the rows of a training come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Rows as they are, from when to when, and how many were left out.
    WarmUp {
        rows: Vec<Features>,
        span: (u64, u64),
        excluded: u64,
    },
    Window {
        harvest: Box<Harvest>,
        attacks: Attacks,
    },
}

impl Source {
    /// From when to when, and how many records.
    fn extent(&self) -> ((u64, u64), u64) {
        match self {
            Source::WarmUp { rows, span, excluded } => (*span, rows.len() as u64 + excluded),
            Source::Window { harvest, .. } => (harvest.span, harvest.seen),
        }
    }
}

/// A training that broke off.
#[derive(Clone, Debug)]
pub struct Failure {
    pub scope: Scope,
    pub cause: Cause,
    pub at: u64,
    pub span: (u64, u64),
    pub figures: Figures,
    pub reason: String,
}

/// What is known of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Records of the window.
    pub seen: u64,
    /// Share of them that the model before called unusual.
    pub unusual_share: f64,
    /// Unusual records that were learnt from all the same.
    pub admitted_unusual: u64,
    /// Share of what the model before learnt from that this one calls unusual.
    pub reference_unusual: Option<f64>,
    /// Outliers of the window, and the share of them that this one calls ordinary.
    pub outliers: u64,
    pub outliers_ordinary: Option<f64>,
}

/// A trained model, and what the gates say of it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub scope: Scope,
    pub cause: Cause,
    pub at: u64,
    pub shadow: bool,
    pub model: Arc<Model>,
    pub reference: Arc<[f32]>,
    pub span: (u64, u64),
    pub records: u64,
    pub excluded: u64,
    pub figures: Figures,
    /// Why it must not take a place by itself.
    pub objection: Option<String>,
    /// Nothing scored in its scope before it.
    pub first: bool,
    /// Number of the model that it was held against, 0 for none.
    pub against: u64,
}

impl Candidate {
    /// The place that it gets by itself.
    pub fn role(&self) -> Role {
        match self.objection {
            Some(_) => Role::Rejected,
            None if self.shadow && !self.first => Role::Shadow,
            None => Role::Active,
        }
    }

    /// As a model that scores.
    pub fn in_use(&self, id: u64) -> InUse {
        let (model, reference) = (self.model.clone(), self.reference.clone());
        InUse { id, model, reference, records: self.records, trained_to: self.span.1 }
    }
}

impl Job {
    pub fn scope(&self) -> Scope {
        self.scope
    }

    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Trains, and asks the gates. The same job gives the same candidate.
    ///
    /// # Errors
    /// The training broke off: where a decomposition does not converge, the library that does it panics.
    pub fn run(self) -> Result<Candidate, Box<Failure>> {
        let (scope, cause, at) = (self.scope, self.cause, self.at);
        let (span, seen) = self.from.extent();
        // The job goes with the panic, and what it shares with others is never written.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.train()));
        outcome.map_err(|panic| {
            let figures = Figures { seen, ..Figures::default() };
            let reason = format!("the training broke off: {}", told(&*panic));
            Box::new(Failure { scope, cause, at, span, figures, reason })
        })
    }

    fn train(self) -> Candidate {
        let Job { scope, cause, at, shadow, from, active, training } = self;
        let mut figures = Figures::default();
        let (rows, span, excluded, outliers, mut objection) = match from {
            Source::WarmUp { rows, span, excluded } => {
                figures.seen = rows.len() as u64 + excluded;
                (rows, span, excluded, Vec::new(), None)
            }
            Source::Window { harvest, attacks } => clean(*harvest, &attacks, &mut figures),
        };
        let model = Model::train(Rows::new(rows.as_flattened(), FEATURES), &training);
        if let Some(active) = &active {
            let unlike = compare(active, &model, &outliers, &mut figures);
            objection = objection.or(unlike);
        }
        Candidate {
            scope,
            cause,
            at,
            shadow,
            reference: reference(&rows, training.seed).into(),
            model: Arc::new(model),
            span,
            records: rows.len() as u64,
            excluded,
            figures,
            objection,
            first: active.is_none(),
            against: active.map_or(0, |active| active.id),
        }
    }
}

/// What a panic says of itself.
fn told(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason was given")
}

type Cleaned = (Vec<Features>, (u64, u64), u64, Vec<Features>, Option<String>);

/// Rows to train on: without attackers, with as much of the unusual as there is by chance. Where more than [`HOLD`] is
/// unusual, all of that without an alert, for a person to decide whether this is how things are now.
fn clean(mut harvest: Harvest, attacks: &Attacks, figures: &mut Figures) -> Cleaned {
    let share = harvest.unusual_share();
    let kept = harvest.ordinary.len();
    for records in std::iter::once(&mut harvest.ordinary).chain(&mut harvest.unusual) {
        records.retain(|record| !attacks.have(record));
    }
    let mut rows: Vec<Features> = harvest.ordinary.iter().map(|record: &Taken| record.features).collect();
    let mut objection = None;
    if rows.len() * LEAST_CLEAN < kept {
        let gone = 100.0 * (kept - rows.len()) as f64 / kept as f64;
        objection = Some(format!("{gone:.0} % of the records of the window come from attackers"));
    }
    let unusual = || harvest.unusual.iter().flatten().map(|record| record.features);
    let admitted = if share > HOLD {
        let told = format!(
            "{:.0} % of the records of the window are unusual: promote it if that is how things are now",
            100.0 * share
        );
        objection = objection.or(Some(told));
        unusual().collect()
    } else {
        harvest.admitted()
    };
    figures.seen = harvest.seen;
    figures.unusual_share = share;
    figures.admitted_unusual = admitted.len() as u64;
    rows.extend(&admitted);
    let excluded = harvest.seen_attacks + (kept - harvest.ordinary.len()) as u64 + harvest.seen_unusual
        - (admitted.len() as u64).min(harvest.seen_unusual);
    let mut outliers = harvest.alerted.clone();
    if share > CALM {
        outliers.extend(unusual());
    }
    (rows, harvest.span, excluded, outliers, objection)
}

/// What the candidate says of what the active model learnt from, and of what it called unusual.
fn compare(active: &InUse, candidate: &Model, outliers: &[Features], figures: &mut Figures) -> Option<String> {
    let share = |scores: &[f32], counts: fn(f32) -> bool| {
        (!scores.is_empty()).then(|| scores.iter().filter(|s| counts(**s)).count() as f64 / scores.len() as f64)
    };
    let reference = scores(candidate, &active.reference);
    let outliers = scores(candidate, outliers.as_flattened());
    figures.reference_unusual = share(&reference, |score| score >= UNUSUAL);
    figures.outliers = outliers.len() as u64;
    figures.outliers_ordinary = share(&outliers, |score| score < PLAIN);
    let id = active.id;
    if let Some(share) = figures.reference_unusual.filter(|share| *share > REFERENCE) {
        return Some(format!(
            "calls {:.0} % of the ordinary traffic that model {id} learnt from unusual",
            100.0 * share
        ));
    }
    let sure = active.records >= SURE && outliers.len() >= OUTLIERS;
    let share = figures.outliers_ordinary.filter(|share| sure && *share > ORDINARY)?;
    Some(format!("calls {:.0} % of {} outliers of model {id} ordinary", 100.0 * share, outliers.len()))
}

/// Calibrated scores of rows.
fn scores(model: &Model, values: &[f32]) -> Vec<f32> {
    let rows = Rows::new(values, FEATURES);
    let mut raw = vec![0.0; rows.len()];
    model.score(rows, &mut model.scratch(), &mut raw);
    raw.iter().map(|raw| model.calibration().calibrate(*raw)).collect()
}

/// Some of the rows, drawn at random.
fn reference(rows: &[Features], seed: u64) -> Vec<f32> {
    let mut rng = Pcg32::seed_from_u64(seed);
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    let count = order.len().min(REFERENCES);
    for i in 0..count {
        let at = i + (rng.next_u64() % (order.len() - i) as u64) as usize;
        order.swap(i, at);
    }
    order[..count].iter().flat_map(|at| rows[*at as usize]).collect()
}
