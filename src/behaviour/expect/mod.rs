//! What is expected of group pairs, and how far what they do is from it.
//!
//! In: [`Slice`]s, one for each flow record, in the order of their making. Out: for each pair and interval whose score
//! is high enough a [`PairInterval`]: 0..1, how rare it is that a pair is so unusual, with the parts that made it so.
//! Runs on the scorer's core; pure: no thread, clock or file. Intervals end when the first record after them comes.
//!
//! ```text
//! slice ─► tally of its pair and service ─ interval over ─► surprise in nats ─► rarity ─► score
//!                                        season: usual at this hour ──┘ └─► hold? ─► season learns
//! ```
//!
//! The surprise of a service is that of its being there at all, `-ln P`, and of each quantity that of a Student
//! distribution of four degrees of freedom around the usual level in logarithms: something twenty deviations off is
//! more than something ten off, but not four times as much. Less than usual weighs a quarter: what is missing is rarely
//! an attack. The sum over services is the surprise of the pair, and the parts of it say what made it.
//!
//! Memory: so many pairs as configured, the least recently active forgotten and counted, each of at most
//! 24 services, further ones together under `other`.

mod hold;
mod pair;
mod rarity;
mod record;
mod season;
mod sequence;
mod slice;
mod tally;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use pair::{Pair, Usual, Weighed};
use rarity::Rarity;
use season::{Moment, Watched};

pub(crate) use slice::PACKETS;

pub use pair::{Part, What};
pub use sequence::{Lesson, Sequence};
pub use slice::{PairKey, PortClass, QUANTITIES, QUANTITY_NAMES, Service, Slice};

use crate::packet::Host;

/// Without a record for so long, what was not seen was not silence.
const LONGEST_GAP: u64 = 86_400_000_000_000;
/// Score from which an interval is not learnt from, and handed out.
const HOLD: f64 = 0.995;
/// Services whose history is kept for the model of sequences: 50 MB.
const SEQUENCES: usize = 512;
/// Parts named; the rest is summed.
const NAMED_PARTS: usize = 6;

/// How pairs are expected.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectSettings {
    pub enabled: bool,
    pub interval: Duration,
    /// Before that nothing is scored.
    pub learning: Duration,
    /// Pairs remembered.
    pub pairs: usize,
    /// Score from which an interval is told.
    pub score: f64,
    pub model: PairModel,
}

/// What the expectation comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PairModel {
    /// What is usual at that hour.
    #[default]
    Baseline,
    /// The same, corrected by what came before.
    Sequence,
    /// The mean of their surprises.
    Both,
}

impl Default for ExpectSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(300),
            learning: Duration::from_secs(86_400),
            pairs: 4096,
            score: 0.9995,
            model: PairModel::default(),
        }
    }
}

/// An interval of a pair.
#[derive(Clone, Debug, PartialEq)]
pub struct PairInterval {
    pub pair: PairKey,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    /// 0..=1: 0.99 is that one in a hundred ordinary intervals is at least so unusual.
    pub score: f64,
    /// It is at least the score from which intervals are told.
    pub told: bool,
    /// Nats; the sum of the parts and `rest`.
    pub surprise: f64,
    /// The greatest first.
    pub parts: Vec<Part>,
    /// Of all other parts together.
    pub rest: f64,
    /// All services together, in the order of [`QUANTITY_NAMES`].
    pub seen: [f64; QUANTITIES],
    /// The direction whose bytes are furthest above the usual.
    pub volume: PairVolume,
}

/// Bytes of a pair in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairVolume {
    /// 0: sent by the initiators, 1: by the responders.
    pub side: usize,
    pub bytes: f64,
    /// The most that is usual on the services that were seen: one deviation above their means, or what was learnt at that
    /// hour lately.
    pub usual: f64,
    /// Who sent most in one record, and to whom.
    pub hosts: Option<(Host, Host)>,
}

/// Expectation of all pairs.
#[derive(Clone, Debug)]
pub struct Expectations {
    settings: ExpectSettings,
    /// Nanoseconds.
    interval: u64,
    /// In an order that does not depend on who came first.
    pairs: BTreeMap<PairKey, Box<Pair>>,
    watched: Watched,
    rarity: Rarity,
    sequence: Option<Sequence>,
    /// Room for histories of services.
    sequences: usize,
    /// A lesson is due: a day, counted in intervals, from the last one.
    taught: u64,
    /// Number of the interval that is not over, and of the first one.
    current: Option<u64>,
    first: u64,
    forgotten: u64,
}

impl Expectations {
    pub fn new(settings: &ExpectSettings) -> Self {
        Self {
            interval: u64::try_from(settings.interval.as_nanos()).unwrap_or(u64::MAX).max(1),
            settings: settings.clone(),
            pairs: BTreeMap::new(),
            watched: Watched::default(),
            rarity: Rarity::new(),
            sequence: None,
            sequences: if settings.model == PairModel::Baseline { 0 } else { SEQUENCES },
            taught: 0,
            current: None,
            first: 0,
            forgotten: 0,
        }
    }

    /// Takes the next slice. Intervals that are over by then and unusual enough go to `out`, in order of time and pair.
    pub fn observe(&mut self, slice: &Slice, out: &mut Vec<PairInterval>) {
        self.advance(slice.at, out);
        if self.pairs.len() >= self.settings.pairs.max(1) && !self.pairs.contains_key(&slice.pair) {
            self.forget();
        }
        let current = self.current.unwrap_or(0);
        let pair = self.pairs.entry(slice.pair).or_insert_with(|| Box::new(Pair::new(slice.pair, current)));
        pair.add(slice, current, &mut self.watched, &mut self.sequences);
    }

    /// Whether enough was seen for scores.
    pub fn is_scoring(&self) -> bool {
        self.current.is_some_and(|current| (current - self.first).saturating_mul(self.interval) > self.learning())
    }

    /// It is `now`: intervals before are over.
    pub fn advance(&mut self, now: u64, out: &mut Vec<PairInterval>) {
        let number = now / self.interval;
        let Some(current) = self.current else {
            (self.current, self.first, self.taught) = (Some(number), number, number);
            return;
        };
        if number <= current {
            return;
        }
        self.close(current, out);
        if (number - current).saturating_mul(self.interval) < LONGEST_GAP {
            (current + 1..number).for_each(|missed| self.close(missed, out));
        }
        self.current = Some(number);
    }

    /// What there is to learn of sequences, once a day of flow time after the time of learning; take it and give
    /// [`accept`](Self::accept) what comes of it. `seed`: of what is random in it.
    pub fn lesson(&mut self, seed: u64) -> Option<Lesson> {
        let current = self.current?;
        let passed = (current - self.taught).saturating_mul(self.interval);
        if self.settings.model == PairModel::Baseline || !self.is_scoring() || passed < LONGEST_GAP {
            return None;
        }
        self.taught = current;
        Lesson::of(self.pairs.values().flat_map(|pair| pair.histories()), self.sequence.as_ref(), seed ^ current)
    }

    /// From the next interval on this is the model.
    pub fn accept(&mut self, sequence: Sequence) {
        self.pairs.values_mut().for_each(|pair| pair.reread(&sequence));
        self.sequence = Some(sequence);
    }

    /// Pairs remembered.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Pairs forgotten to stay within the limit.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn learning(&self) -> u64 {
        u64::try_from(self.settings.learning.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Forgets an eighth of the pairs, those not active for longest, so that it is not to be done for each new one.
    fn forget(&mut self) {
        let mut order: Vec<(u64, PairKey)> = self.pairs.values().map(|pair| (pair.active(), pair.key())).collect();
        order.sort_unstable();
        for (_, key) in &order[..=(order.len() / 8).min(order.len() - 1)] {
            if let Some(pair) = self.pairs.remove(key) {
                self.sequences += pair.histories().count();
                self.forgotten += 1;
            }
        }
    }

    fn close(&mut self, number: u64, out: &mut Vec<PairInterval>) {
        let start = number * self.interval;
        let (moment, age) = (Moment::of(start), (number - self.first) * self.interval);
        let learning = self.learning();
        // Scores need surprises to compare with; those of the first hours are of ignorance.
        let (rating, scoring) = (age >= learning / 2, age >= learning);
        let mut present = Vec::new();
        let (watched, sequence) = (&self.watched, self.sequence.as_ref());
        let usual = Usual { moment, seconds: start / 1_000_000_000, watched, model: self.settings.model, sequence };
        for pair in self.pairs.values_mut() {
            let weighed = pair.weigh(&usual);
            let score = if scoring { self.rarity.score(pair.rarity(), weighed.total) } else { 0.0 };
            if scoring && score >= self.settings.score.min(HOLD) {
                let interval = report(pair, &weighed, score, (start, start + self.interval), &usual);
                out.push(PairInterval { told: score >= self.settings.score, ..interval });
            }
            let unexpected = scoring && score >= HOLD;
            if rating && pair.counts(usual.seconds, unexpected) {
                self.rarity.note(weighed.total);
                pair.note(weighed.total);
            }
            pair.learn(&usual, unexpected, &weighed, &mut present);
        }
        present.iter().for_each(|logs| self.watched.present(logs));
        self.watched.interval(moment, self.pairs.len());
        if start / LONGEST_GAP != (start + self.interval) / LONGEST_GAP {
            self.rarity.fade();
            self.pairs.values_mut().for_each(|pair| pair.fade());
        }
    }
}

fn report(pair: &Pair, weighed: &Weighed, score: f64, (start, end): (u64, u64), usual: &Usual<'_>) -> PairInterval {
    let mut parts = pair.parts(weighed, usual);
    let named = parts.len().min(NAMED_PARTS);
    let rest = parts.split_off(named).iter().map(|part| part.surprise).sum();
    let (seen, volume, surprise) = (pair.seen(), pair.volume(usual), weighed.total);
    PairInterval { pair: pair.key(), start, end, score, told: false, surprise, parts, rest, seen, volume }
}
