//! A proposed change and what speaks for it.

use serde::{Deserialize, Serialize};

use super::change::{Change, fingerprint};
use super::scene::Outcome;
use super::tally::Tally;

/// What can be suggested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Let through what is refused and harmless.
    Allow,
    /// Refuse what is let through and an attack.
    Deny,
    /// Put a rule elsewhere in the order.
    Reorder,
    /// Replace a rule that opens much more than is used.
    Narrow,
    /// Take away a rule that nothing uses.
    Retire,
    /// Let something through for a while.
    Temporary,
    /// Put a VM into the group that it behaves like.
    Move,
    /// Advice: what takes most of the bandwidth.
    Path,
}

/// How sure a suggestion is, and of what; each 0..1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// How much was seen.
    pub volume: f64,
    /// Over how much of the time.
    pub stability: f64,
    /// What the scorer says.
    pub score: f64,
    /// What detectors and feeds say.
    pub threat: f64,
    /// Whether neighbours do likewise: other VMs of the group, other rules.
    pub agreement: f64,
    /// All of them, before anybody answered.
    pub fused: f64,
    /// As a probability that it is accepted, going by the answers so far.
    pub calibrated: f64,
}

/// What it is drawn from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub flows: u64,
    pub days: u32,
    /// Flows that a detector named.
    pub attack: u64,
    pub bytes: u64,
    /// VMs and addresses on each side, estimated.
    pub clients: u32,
    pub servers: u32,
    /// Nanoseconds since 1970.
    pub first: u64,
    pub last: u64,
    pub flow_ids: Vec<u64>,
}

/// The same recorded traffic with the rules as they are, and with the change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WhatIf {
    pub before: Outcome,
    pub after: Outcome,
    /// Flows whose decision changes.
    pub allowed: u64,
    pub refused: u64,
}

/// Share of flows that a rule decides, and not the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    pub before: f64,
    pub after: f64,
}

/// A rule that stands and contradicts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    pub rule: String,
    pub what: String,
}

/// One proposal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suggestion {
    /// The same for the same content.
    pub id: String,
    pub kind: Kind,
    /// What it is about, whatever the details: answers are remembered for it.
    pub about: String,
    #[serde(flatten)]
    pub change: Change,
    pub confidence: Confidence,
    /// One sentence.
    pub reason: String,
    pub evidence: Evidence,
    pub coverage: Coverage,
    pub what_if: WhatIf,
    pub conflicts: Vec<Conflict>,
    /// What it is ranked by.
    pub rank: f64,
}

/// What a generator makes; the rest is worked out for all alike.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub kind: Kind,
    pub about: String,
    pub change: Change,
    pub confidence: Confidence,
    pub reason: String,
    pub evidence: Evidence,
}

impl Kind {
    pub const ALL: [Self; 8] =
        [Self::Allow, Self::Deny, Self::Reorder, Self::Narrow, Self::Retire, Self::Temporary, Self::Move, Self::Path];

    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reorder => "reorder",
            Self::Narrow => "narrow",
            Self::Retire => "retire",
            Self::Temporary => "temporary",
            Self::Move => "move",
            Self::Path => "path",
        }
    }
}

/// How much each part counts: volume, stability, score, threat, agreement.
const WEIGHTS: [f64; 5] = [0.6, 0.4, 0.2, 1.2, 0.8];

impl Confidence {
    /// Of the five parts, in their order.
    pub fn of(parts: [f64; 5]) -> Self {
        let [volume, stability, score, threat, agreement] = parts.map(|part| part.clamp(0.0, 1.0));
        // A weighted geometric mean: one part that says no is not outvoted by the others.
        let logs = [volume, stability, score, threat, agreement].map(|part| part.max(0.01).ln());
        let sum: f64 = logs.iter().zip(WEIGHTS).map(|(log, weight)| log * weight).sum();
        let fused = (sum / WEIGHTS.iter().sum::<f64>()).exp();
        Self { volume, stability, score, threat, agreement, fused, calibrated: fused }
    }

    pub fn parts(&self) -> [f64; 5] {
        [self.volume, self.stability, self.score, self.threat, self.agreement]
    }
}

impl Evidence {
    pub fn of(tally: &Tally) -> Self {
        const SECOND: u64 = 1_000_000_000;
        Self {
            flows: tally.flows.into(),
            days: tally.day_count(),
            attack: tally.attack.into(),
            bytes: tally.bytes,
            clients: tally.client_count(),
            servers: tally.server_count(),
            first: u64::from(tally.first) * SECOND,
            last: u64::from(tally.last) * SECOND,
            flow_ids: tally.evidence(),
        }
    }
}

impl Candidate {
    /// From its content: the same wherever and whenever it is asked for.
    pub fn id(&self) -> String {
        format!("{}-{:012x}", self.kind.name(), fingerprint(&format!("{} {}", self.about, self.change.text())) >> 16)
    }
}

/// A number that grows to 1; half at `half`.
pub fn saturating(amount: f64, half: f64) -> f64 {
    amount / (amount + half)
}
