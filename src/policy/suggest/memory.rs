//! What was answered, and what was known then: asked again only when more is known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::suggestion::{Candidate, Evidence, Kind};

/// Answers by what they were about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    decided: BTreeMap<String, Decided>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    pub id: String,
    pub accepted: bool,
    pub reason: String,
    /// Nanoseconds since 1970.
    pub at: u64,
    pub flows: u64,
    pub days: u32,
    pub attack: u64,
    pub last: u64,
}

/// So many times as much as before is news.
const TIMES: u64 = 2;
/// And so much more of it named by detectors.
const WORSE: f64 = 0.25;

impl Memory {
    pub fn note(&mut self, kind: Kind, about: &str, decided: Decided) {
        self.decided.insert(key(kind, about), decided);
    }

    pub fn answer(&self, kind: Kind, about: &str) -> Option<&Decided> {
        self.decided.get(&key(kind, about))
    }

    /// Whether it was not answered yet, or on much less evidence.
    pub fn is_news(&self, candidate: &Candidate) -> bool {
        let then = self.answer(candidate.kind, &candidate.about);
        then.is_none_or(|then| then.is_outdated_by(&candidate.evidence))
    }
}

impl Decided {
    fn is_outdated_by(&self, now: &Evidence) -> bool {
        let share = |attack: u64, flows: u64| attack as f64 / flows.max(1) as f64;
        let more = (now.flows >= TIMES * self.flows && self.flows > 0)
            || u64::from(now.days) >= TIMES * u64::from(self.days.max(1));
        let worse = share(now.attack, now.flows) >= share(self.attack, self.flows) + WORSE;
        now.last > self.last && (more || worse)
    }
}

fn key(kind: Kind, about: &str) -> String {
    format!("{} {about}", kind.name())
}
