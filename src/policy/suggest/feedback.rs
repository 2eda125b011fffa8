//! What people answered and what came of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bandit::{Bandit, Context};
use super::calibration::{Calibration, CalibrationReport};
use super::memory::{Decided, Memory};
use super::suggestion::{Kind, Suggestion};

/// All that is learnt from answers; kept between runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    pub memory: Memory,
    pub bandit: Bandit,
    pub calibration: Calibration,
    trust: BTreeMap<Kind, Trust>,
}

/// How often what a generator proposed turned out well.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Trust {
    good: f64,
    bad: f64,
}

/// An answer of a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub accepted: bool,
    pub reason: String,
    /// Nanoseconds since 1970.
    pub at: u64,
}

/// What came of an accepted suggestion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aftermath {
    /// The new rule decided flows.
    Hit,
    /// Fewer harmless flows are refused, or fewer alerts are false.
    FewerFalse,
    /// It stayed, and nobody complained.
    Kept,
    /// The new rule decided nothing.
    NeverHit,
    /// More harmless flows are refused, or more alerts are false.
    MoreFalse,
    RolledBack,
}

/// One generator's trust, for people.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrustOf {
    pub kind: Kind,
    pub trust: f64,
    /// How much is behind it.
    pub outcomes: f64,
}

/// Weight of what lies back, at each new outcome.
const FADING: f64 = 0.98;
/// Before anything came of anything.
const UNKNOWN: Trust = Trust { good: 1.0, bad: 1.0 };

impl Feedback {
    /// A person accepted or rejected a suggestion.
    pub fn answer(&mut self, suggestion: &Suggestion, context: &Context, answer: &Answer) {
        self.calibration.learn(self.bandit.expected(context), answer.accepted);
        self.bandit.learn(context, f64::from(u8::from(answer.accepted)));
        let evidence = &suggestion.evidence;
        let decided = Decided {
            id: suggestion.id.clone(),
            accepted: answer.accepted,
            reason: answer.reason.clone(),
            at: answer.at,
            flows: evidence.flows,
            days: evidence.days,
            attack: evidence.attack,
            last: evidence.last,
        };
        self.memory.note(suggestion.kind, &suggestion.about, decided);
    }

    /// Something came of an accepted suggestion. What was rolled back was no good answer either.
    pub fn aftermath(&mut self, kind: Kind, context: &Context, aftermath: Aftermath) {
        let (good, bad) = match aftermath {
            Aftermath::Hit | Aftermath::FewerFalse => (1.0, 0.0),
            Aftermath::Kept => (0.5, 0.0),
            Aftermath::NeverHit => (0.0, 0.5),
            Aftermath::MoreFalse => (0.0, 1.0),
            Aftermath::RolledBack => (0.0, 2.0),
        };
        let trust = self.trust.entry(kind).or_insert(UNKNOWN);
        trust.good = UNKNOWN.good + FADING * (trust.good - UNKNOWN.good) + good;
        trust.bad = UNKNOWN.bad + FADING * (trust.bad - UNKNOWN.bad) + bad;
        if aftermath == Aftermath::RolledBack {
            self.bandit.learn(context, 0.0);
        }
    }

    /// 0..1; one half when nothing is known.
    pub fn trust(&self, kind: Kind) -> f64 {
        let Trust { good, bad } = self.trust.get(&kind).copied().unwrap_or(UNKNOWN);
        good / (good + bad)
    }

    pub fn trusts(&self) -> Vec<TrustOf> {
        let one = |kind: &Kind| {
            let behind = self.trust.get(kind).map_or(0.0, |trust| trust.good + trust.bad - UNKNOWN.good - UNKNOWN.bad);
            TrustOf { kind: *kind, trust: self.trust(*kind), outcomes: behind }
        };
        Kind::ALL.iter().map(one).collect()
    }

    /// How right confidences were.
    pub fn calibration(&self) -> CalibrationReport {
        self.calibration.report()
    }
}
