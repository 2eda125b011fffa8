//! Administrators who accept what is right and to their taste, which nobody knows: does the ranking learn it?
//!
//! An administrator likes some kinds of suggestion, some target groups, and the outside or not; each weight is drawn at
//! random. Accepted is what is right and liked more than half of all is; two of a hundred answers are the other way. In
//! each round the suggestions of one more world come to those that wait, all are ranked together and the first five
//! answered. No suggestion comes twice.

use std::collections::BTreeMap;

use gnomon::policy::suggest::{Answer, Change, Context, Feedback, Kind, Suggestion, report};

use crate::common::Results;
use crate::world::World;

const DECISIONS: usize = 200;
const TOP: usize = 5;
const ADMINISTRATORS: u64 = 20;
const SLIPS: f64 = 0.02;
/// Answers at the beginning and at the end that are compared.
const FIRST: usize = 25;
const LAST: usize = 50;

/// Numbers of one seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal.
    fn weight(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

struct Administrator {
    kinds: BTreeMap<Kind, f64>,
    targets: BTreeMap<String, f64>,
    outside: f64,
    /// What is liked less is rejected.
    bar: f64,
    dice: Dice,
}

/// A suggestion as an administrator and the ranking see it.
struct Case<'a> {
    suggestion: &'a Suggestion,
    context: &'a Context,
    is_right: bool,
}

impl Administrator {
    fn new(seed: u64, worlds: &[World]) -> Self {
        let mut dice = Dice(seed);
        let kinds = Kind::ALL.iter().map(|kind| (*kind, 1.5 * dice.weight())).collect();
        let names = ["web", "app", "db", "dns", "ntp", "admin", "clients", "iot"];
        let targets = names.iter().map(|name| ((*name).to_owned(), dice.weight())).collect();
        let mut one = Self { kinds, targets, outside: dice.weight(), bar: f64::MIN, dice };
        let mut likings: Vec<f64> = worlds.iter().flat_map(|w| &w.cases).map(|case| one.liking(&case.0)).collect();
        likings.sort_by(f64::total_cmp);
        one.bar = likings[likings.len() / 2];
        one
    }

    fn liking(&self, one: &Suggestion) -> f64 {
        let text = match &one.change {
            Change::Rules { add, .. } => add.first().map(|draft| draft.text()),
            Change::Move { to, .. } => Some(format!("> {to}")),
            Change::Advice { .. } => None,
        };
        let text = text.unwrap_or_default();
        let target = text.split("> ").nth(1).and_then(|rest| rest.split([' ', ',']).next()).unwrap_or("");
        // An address.
        let outside = text.split([' ', ',']).any(|word| word.contains('.') && word.parse::<f64>().is_err());
        self.kinds[&one.kind]
            + self.targets.get(target).copied().unwrap_or(0.0)
            + if outside { self.outside } else { 0.0 }
    }

    fn accepts(&mut self, case: &Case<'_>) -> bool {
        let slips = self.dice.unit() < SLIPS;
        (case.is_right && self.liking(case.suggestion) >= self.bar) != slips
    }
}

/// Answers in their order, and what was said of each before.
struct Course {
    accepted: Vec<bool>,
    said: Vec<(f64, bool)>,
}

impl Course {
    fn share(&self, range: std::ops::Range<usize>) -> f64 {
        let part = &self.accepted[range];
        part.iter().filter(|accepted| **accepted).count() as f64 / part.len().max(1) as f64
    }
}

fn play(seed: u64, worlds: &[World], learns: bool) -> Course {
    let mut administrator = Administrator::new(seed, worlds);
    let mut feedback = Feedback::default();
    let mut course = Course { accepted: Vec::new(), said: Vec::new() };
    let rounds = DECISIONS / TOP;
    // Each administrator meets the worlds in another order.
    let mut order: Vec<usize> = (0..worlds.len()).collect();
    for n in (1..order.len()).rev() {
        order.swap(n, (administrator.dice.unit() * (n + 1) as f64) as usize);
    }
    let mut pool: Vec<(f64, Case<'_>)> = Vec::new();
    for part in order.chunks((worlds.len() / rounds).max(1)).take(rounds) {
        for (suggestion, is_right, context) in part.iter().flat_map(|n| &worlds[*n].cases) {
            pool.push((0.0, Case { suggestion, context, is_right: *is_right }));
        }
        for (rank, case) in &mut pool {
            *rank = if learns { feedback.bandit.rank(case.context) } else { case.suggestion.confidence.fused };
        }
        pool.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.suggestion.id.cmp(&b.1.suggestion.id)));
        let top: Vec<Case<'_>> = pool.drain(..TOP.min(pool.len())).map(|(_, case)| case).collect();
        let said: Vec<f64> =
            top.iter().map(|case| feedback.calibration.probability(feedback.bandit.expected(case.context))).collect();
        for (case, said) in top.iter().zip(said) {
            let accepted = administrator.accepts(case);
            course.accepted.push(accepted);
            course.said.push((said, accepted));
            let answer = Answer { accepted, reason: String::new(), at: 0 };
            feedback.answer(case.suggestion, case.context, &answer);
        }
    }
    course
}

pub fn measure(results: &mut Results, worlds: &[World]) {
    let rounds = DECISIONS / TOP;
    if worlds.len() < rounds {
        println!("administrators need {rounds} worlds; there are {}", worlds.len());
        return;
    }
    let (mut first, mut last, mut pairs, mut errors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for seed in 1..=ADMINISTRATORS {
        let [learnt, fixed] = [true, false].map(|learns| play(seed, worlds, learns));
        let end = DECISIONS - LAST..DECISIONS;
        first.push(learnt.share(0..FIRST));
        last.push(learnt.share(end.clone()));
        pairs.push((learnt.share(end.clone()), fixed.share(end)));
        errors.push(report(learnt.said).error);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (ours, fixed): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    println!(
        "{ADMINISTRATORS} administrators: {:.3} accepted at first, {:.3} at last (worst {:.3}); ranked by confidence {:.3}; \
         calibration error {:.3} (worst {:.3})",
        mean(&first),
        mean(&last),
        last.iter().copied().fold(1.0, f64::min),
        mean(&fixed),
        mean(&errors),
        errors.iter().copied().fold(0.0, f64::max)
    );
    results.measured("accepted of the first 25 answers", "", first);
    results.measured("accepted of the last 50 of 200 answers", "", ours);
    results.measured("the same, ranked by confidence alone", "", fixed);
    results.measured("calibration error over 200 answers", "", errors);
}
