//! The life of models: when one is trained, on what, whether it may take the place of the one before it, and what is
//! watched of it afterwards.
//!
//! In: scored records of the scorer. Out: [`Job`]s, which become [`Candidate`]s or [`Failure`]s wherever there is time
//! for it, and [`News`]. Everything in here is pure: no thread, clock or file. What is kept of records is bounded.
//!
//! ```text
//! record ─► window ── interval, drift or a person ─► job ─ train ─► candidate ─ gates ─┬► active
//!   │        ordinary │ unusual │ attacks                                             ├► shadow ── after N records ─► active
//!   └► score ─► drift, comparison                                                     └► rejected, with the reason
//! ```

mod compare;
mod drift;
mod gate;
mod job;
mod seat;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod window;

use serde::Serialize;

pub use compare::{Compared, Comparison};
pub use drift::{Adwin, Change};
pub use job::{Candidate, Cause, Failure, Figures, InUse, Job};
pub(crate) use seat::{Judgement, Seat, Verdict};
pub(crate) use window::Taken;

use crate::rules::GroupSetHandle;

/// Which traffic a model is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    #[default]
    All,
    /// What sources in exactly these groups begin.
    Group(GroupSetHandle),
}

/// What happened in the life of a model.
#[derive(Clone, Debug)]
pub enum News {
    /// Trained, with the number that it has.
    Trained { candidate: Box<Candidate>, id: u64 },
    /// A training broke off.
    Failed(Box<Failure>),
    /// Scores have changed for good.
    Drift { scope: Scope, model: u64, at: u64, change: Change },
    /// A shadow, beside the model `against`, is to take its place or to be rejected. A scorer that trains by itself has
    /// done so already; otherwise that is what [`Scorer::decide`](crate::behaviour::Scorer::decide) is for.
    Judged { scope: Scope, id: u64, against: u64, at: u64, role: Role, reason: String },
}

/// What becomes of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Active,
    Shadow,
    Rejected,
}
