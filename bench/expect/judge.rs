//! Runs the expectation over days and holds what it says against the truth.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gnomon::behaviour::{ExpectSettings, Expectations, PairInterval, PairKey, PairModel};

use crate::days::{DAY, Days, MONDAY, SECOND};
use crate::figures::{auc, average_precision};

const INTERVAL: u64 = 300 * SECOND;

/// How good one model was on the days of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub auc: f64,
    pub precision: f64,
    /// Raised intervals without an attack, a day.
    pub false_a_day: f64,
    /// By kind: attacks of which an interval was raised, and all of them.
    pub found: BTreeMap<String, (usize, usize)>,
    /// Of each attack the highest score; and the scores of all other intervals, both as -ln(1 - score).
    pub best: Vec<f32>,
    pub ordinary: Vec<f32>,
    pub days: f64,
    pub seconds: f64,
}

impl Outcome {
    pub fn attacks(&self) -> (usize, usize) {
        self.found.values().fold((0, 0), |sum, found| (sum.0 + found.0, sum.1 + found.1))
    }
}

/// `from`: the first day that is judged.
pub fn judge(days: &Days, from: u64, until: u64, model: PairModel, seed: u64) -> Outcome {
    let began = std::time::Instant::now();
    let raise = ExpectSettings::default().score;
    let mut expectations = Expectations::new(&ExpectSettings { score: 0.0, model, ..ExpectSettings::default() });
    let mut intervals = Vec::new();
    let mut truth: HashMap<(PairKey, u64), BTreeSet<u16>> = HashMap::new();
    for row in &days.rows {
        expectations.observe(&row.slice, &mut intervals);
        if let Some(lesson) = expectations.lesson(seed) {
            expectations.accept(lesson.learn());
        }
        if let Some(attack) = row.attack {
            truth.entry((row.slice.pair, row.slice.at / INTERVAL)).or_default().insert(attack);
        }
    }
    expectations.advance(MONDAY + until * DAY + 1, &mut intervals);
    intervals.retain(|interval| interval.start >= MONDAY + from * DAY);
    let of = |interval: &PairInterval| truth.get(&(interval.pair, interval.start / INTERVAL));
    let scores: Vec<f32> = intervals.iter().map(|interval| unlikely(interval.score)).collect();
    let attacked: Vec<bool> = intervals.iter().map(|interval| of(interval).is_some()).collect();
    let mut best: BTreeMap<u16, f32> = truth.values().flatten().map(|attack| (*attack, 0.0)).collect();
    for (interval, score) in intervals.iter().zip(&scores) {
        for attack in of(interval).into_iter().flatten() {
            let best = best.entry(*attack).or_default();
            *best = best.max(*score);
        }
    }
    let ordinary: Vec<f32> =
        scores.iter().zip(&attacked).filter(|(_, attacked)| !**attacked).map(|(s, _)| *s).collect();
    let mut found: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (attack, score) in &best {
        let found = found.entry(days.attacks[usize::from(*attack)].0.clone()).or_default();
        found.0 += usize::from(*score >= unlikely(raise));
        found.1 += 1;
    }
    Outcome {
        auc: auc(&scores, &attacked),
        precision: average_precision(&scores, &attacked),
        false_a_day: ordinary.iter().filter(|score| **score >= unlikely(raise)).count() as f64 / (until - from) as f64,
        found,
        best: best.into_values().collect(),
        ordinary,
        days: (until - from) as f64,
        seconds: began.elapsed().as_secs_f64(),
    }
}

fn unlikely(score: f64) -> f32 {
    -((1.0 - score).max(1e-30).ln()) as f32
}
