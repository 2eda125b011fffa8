//! What is likely to be accepted: LinUCB (Li and others, "A contextual-bandit approach to personalized news article
//! recommendation", WWW 2010), one model for all generators, with the generator as a part of the context.
//!
//! The pay-off of a suggestion is 1 when it is accepted, 0 when not, and expected to be linear in its context. Before the
//! first answer it is what the confidence says. Suggestions about which little is known rank higher than the expectation.

use serde::{Deserialize, Serialize};

use super::change::fingerprint;
use super::suggestion::{Confidence, Evidence, Kind, saturating};

const KINDS: usize = Kind::ALL.len();
const TARGETS: usize = 32;
/// One, the fused confidence, its parts, size; the kind; the target's name by hash; the kind once more when it is about
/// the outside; administration.
const WIDTH: usize = 8 + KINDS + TARGETS + KINDS + 1;
/// Weight of what is believed before the first answer.
const PRIOR: f64 = 1.0;
/// How much a deviation counts.
const CURIOSITY: f64 = 0.25;
const ADMINISTRATION: [u16; 7] = [22, 23, 445, 3389, 5900, 5985, 5986];

/// What a suggestion looks like to the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Context(Vec<f64>);

/// What a context is made of besides confidence and evidence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// An address outside all groups, or anybody, is an end of it.
    pub is_outside: bool,
    pub port: Option<u16>,
    /// The group that it is about.
    pub target: String,
}

/// The model: what is expected, and how well that is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandit {
    /// Inverse of the regularised covariance of contexts, by row.
    inverse: Vec<f64>,
    response: Vec<f64>,
    weights: Vec<f64>,
    pub answers: u64,
}

impl Context {
    pub fn new(kind: Kind, confidence: &Confidence, evidence: &Evidence, around: &Surroundings) -> Self {
        let mut x = vec![0.0; WIDTH];
        x[0] = 1.0;
        x[1] = confidence.fused;
        x[2..7].copy_from_slice(&confidence.parts());
        x[7] = saturating(evidence.flows as f64, 100.0);
        let place = Kind::ALL.iter().position(|one| *one == kind).unwrap_or(0);
        x[8 + place] = 1.0;
        if !around.target.is_empty() {
            x[8 + KINDS + fingerprint(&around.target) as usize % TARGETS] = 1.0;
        }
        x[8 + KINDS + TARGETS + place] = f64::from(u8::from(around.is_outside));
        x[WIDTH - 1] = f64::from(u8::from(around.port.is_some_and(|port| ADMINISTRATION.contains(&port))));
        Self(x)
    }

    /// As numbers.
    pub fn values(&self) -> &[f64] {
        &self.0
    }
}

impl Default for Bandit {
    fn default() -> Self {
        let mut inverse = vec![0.0; WIDTH * WIDTH];
        (0..WIDTH).for_each(|n| inverse[n * WIDTH + n] = 1.0 / PRIOR);
        // The confidence is what is expected at first.
        let mut weights = vec![0.0; WIDTH];
        weights[1] = 1.0;
        let response = weights.iter().map(|weight| weight * PRIOR).collect();
        Self { inverse, response, weights, answers: 0 }
    }
}

impl Bandit {
    /// The expected pay-off.
    pub fn expected(&self, context: &Context) -> f64 {
        dot(&self.weights, &context.0)
    }

    /// What to rank by: the expected pay-off and how far it may be off.
    pub fn rank(&self, context: &Context) -> f64 {
        let off = dot(&self.times_inverse(&context.0), &context.0).max(0.0).sqrt();
        // Before the first answer nothing is known of anything, and the confidence ranks.
        let curiosity = if self.answers == 0 { 0.0 } else { CURIOSITY };
        self.expected(context) + curiosity * off
    }

    /// An answer: 1 accepted, 0 rejected, or in between.
    pub fn learn(&mut self, context: &Context, payoff: f64) {
        // Sherman and Morrison: the inverse after one more context.
        let x = &context.0;
        let ax = self.times_inverse(x);
        let scale = 1.0 + dot(&ax, x);
        for row in 0..WIDTH {
            for column in 0..WIDTH {
                self.inverse[row * WIDTH + column] -= ax[row] * ax[column] / scale;
            }
        }
        self.response.iter_mut().zip(x).for_each(|(sum, x)| *sum += payoff * x);
        self.weights = self.times_inverse(&self.response);
        self.answers += 1;
    }

    fn times_inverse(&self, x: &[f64]) -> Vec<f64> {
        self.inverse.chunks_exact(WIDTH).map(|row| dot(row, x)).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(kind: Kind, fused: f64, target: &str) -> Context {
        let confidence = Confidence { fused, ..Confidence::of([fused; 5]) };
        let around = Surroundings { target: target.to_owned(), ..Surroundings::default() };
        Context::new(kind, &confidence, &Evidence::default(), &around)
    }

    #[test]
    fn confidence_ranks_until_somebody_answers() {
        let bandit = Bandit::default();
        let [low, high] = [0.3, 0.8].map(|fused| bandit.rank(&context(Kind::Allow, fused, "db")));
        assert!((low - 0.3).abs() < 1e-9 && (high - 0.8).abs() < 1e-9);
    }

    #[test]
    fn preferences_are_learnt() {
        let mut bandit = Bandit::default();
        for n in 0..60 {
            let fused = 0.5 + 0.3 * f64::from(n % 5) / 5.0;
            bandit.learn(&context(Kind::Retire, fused, "db"), 0.0);
            bandit.learn(&context(Kind::Allow, fused, "db"), 1.0);
            bandit.learn(&context(Kind::Allow, fused, "web"), 0.0);
        }
        let expected = |kind, target| bandit.expected(&context(kind, 0.6, target));
        assert!(expected(Kind::Allow, "db") > 0.9, "{}", expected(Kind::Allow, "db"));
        assert!(expected(Kind::Retire, "db") < 0.15 && expected(Kind::Allow, "web") < 0.15);
        let text = serde_json::to_string(&bandit).expect("JSON");
        let again: Bandit = serde_json::from_str(&text).expect("JSON");
        let one = context(Kind::Deny, 0.4, "app");
        assert!((again.rank(&one) - bandit.rank(&one)).abs() < 1e-9);
    }
}
