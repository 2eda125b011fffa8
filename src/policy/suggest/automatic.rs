//! Which accepted kinds of suggestion are deployed without asking, and when they are taken back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::change::Change;
use super::feedback::Feedback;
use super::suggestion::{Kind, Suggestion};

/// What an administrator allows. Nothing by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Automatic {
    pub kinds: BTreeSet<Kind>,
    pub least_confidence: f64,
    /// Of the generator, see [`Feedback::trust`].
    pub least_trust: f64,
    pub per_day: usize,
    /// Nanoseconds within which it must prove itself, else it is taken back.
    pub confirm_within: u64,
    /// Most harmless flows that it may refuse besides, as a share of all flows since then.
    pub most_misdropped: f64,
}

/// Counters since a suggestion was deployed by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// Nanoseconds.
    pub elapsed: u64,
    pub flows: u64,
    /// Flows that the new rule refused and no detector named.
    pub misdropped: u64,
    /// Flows that the new rule let through and a detector named.
    pub escaped: u64,
    /// Flows that it decided.
    pub hits: u64,
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmation {
    Wait,
    Confirm,
    Return,
}

impl Default for Automatic {
    fn default() -> Self {
        Self {
            kinds: BTreeSet::new(),
            least_confidence: 0.9,
            least_trust: 0.8,
            per_day: 3,
            confirm_within: 300_000_000_000,
            most_misdropped: 0.001,
        }
    }
}

impl Automatic {
    /// Those that may be deployed now, best first; `today` were already.
    pub fn due<'a>(&self, ranked: &'a [Suggestion], feedback: &Feedback, today: usize) -> Vec<&'a Suggestion> {
        let may = |one: &&Suggestion| {
            self.kinds.contains(&one.kind)
                && !matches!(one.change, Change::Advice { .. })
                && one.confidence.calibrated >= self.least_confidence
                && feedback.trust(one.kind) >= self.least_trust
                && one.conflicts.is_empty()
        };
        ranked.iter().filter(may).take(self.per_day.saturating_sub(today)).collect()
    }

    /// Whether what was deployed stays.
    pub fn confirmation(&self, since: &Since) -> Confirmation {
        let most = self.most_misdropped * since.flows as f64;
        if since.misdropped as f64 > most || since.escaped > 0 {
            return Confirmation::Return;
        }
        if since.elapsed < self.confirm_within { Confirmation::Wait } else { Confirmation::Confirm }
    }
}
