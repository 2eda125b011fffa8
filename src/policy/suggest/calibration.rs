//! What is expected → how often it is accepted.
//!
//! Platt's scaling ("Probabilistic outputs for support vector machines", 1999): a logistic curve through the answers so
//! far, held near a plain one while these are few. What was said before each answer is kept, so that the report tells how
//! right it was.

use serde::{Deserialize, Serialize};

/// A curve and the answers that it goes through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    slope: f64,
    offset: f64,
    /// Expected pay-off, what was said, and whether it was accepted.
    answers: Vec<(f64, f64, bool)>,
}

/// Answers that are kept; of more, the latest.
const KEPT: usize = 1000;
/// The curve before any answer, and how many answers it weighs.
const SLOPE: f64 = 5.0;
const OFFSET: f64 = -2.5;
const WEIGHT: f64 = 1.0;
const STEPS: usize = 8;
const BINS: usize = 10;

/// Said and happened, for suggestions of about the same confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    pub from: f64,
    pub to: f64,
    pub answers: usize,
    /// Means.
    pub said: f64,
    pub accepted: f64,
}

/// How right confidences were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CalibrationReport {
    pub answers: usize,
    /// Expected calibration error: the mean distance of said and happened, over bins by their answers.
    pub error: f64,
    pub bins: Vec<Bin>,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { slope: SLOPE, offset: OFFSET, answers: Vec::new() }
    }
}

impl Calibration {
    pub fn probability(&self, expected: f64) -> f64 {
        logistic(self.slope * expected + self.offset)
    }

    pub fn learn(&mut self, expected: f64, accepted: bool) {
        self.answers.push((expected, self.probability(expected), accepted));
        if self.answers.len() > KEPT {
            self.answers.remove(0);
        }
        (0..STEPS).for_each(|_| self.step());
    }

    /// One of Newton's steps on the penalised likelihood.
    fn step(&mut self) {
        let [mut g0, mut g1] = [WEIGHT * (self.slope - SLOPE) / 10.0, WEIGHT * (self.offset - OFFSET) / 10.0];
        let [mut h00, mut h01, mut h11] = [WEIGHT / 10.0, 0.0, WEIGHT / 10.0];
        for (x, _, accepted) in &self.answers {
            let p = self.probability(*x);
            let error = p - f64::from(u8::from(*accepted));
            let spread = p * (1.0 - p);
            g0 += error * x;
            g1 += error;
            h00 += spread * x * x;
            h01 += spread * x;
            h11 += spread;
        }
        let determinant = h00 * h11 - h01 * h01;
        if determinant > 1e-9 {
            self.slope -= ((h11 * g0 - h01 * g1) / determinant).clamp(-2.0, 2.0);
            self.offset -= ((h00 * g1 - h01 * g0) / determinant).clamp(-2.0, 2.0);
        }
    }

    pub fn report(&self) -> CalibrationReport {
        report(self.answers.iter().map(|(_, said, accepted)| (*said, *accepted)))
    }
}

/// Of pairs of what was said and whether it was accepted.
pub fn report(answers: impl IntoIterator<Item = (f64, bool)>) -> CalibrationReport {
    let width = 1.0 / BINS as f64;
    let bin = |n: usize| Bin { from: n as f64 * width, to: (n + 1) as f64 * width, ..Bin::default() };
    let mut bins: Vec<Bin> = (0..BINS).map(bin).collect();
    for (said, accepted) in answers {
        let bin = &mut bins[((said / width) as usize).min(BINS - 1)];
        bin.answers += 1;
        bin.said += said;
        bin.accepted += f64::from(u8::from(accepted));
    }
    bins.retain(|bin| bin.answers > 0);
    let answers: usize = bins.iter().map(|bin| bin.answers).sum();
    let error: f64 = bins.iter().map(|bin| (bin.said - bin.accepted).abs()).sum::<f64>() / answers.max(1) as f64;
    for bin in &mut bins {
        bin.said /= bin.answers as f64;
        bin.accepted /= bin.answers as f64;
    }
    CalibrationReport { answers, error, bins }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_come_to_what_happens() {
        let mut calibration = Calibration::default();
        // Whatever is expected at 0.7 happens in three of ten cases, at 0.2 never.
        for n in 0..300u32 {
            calibration.learn(0.7, n % 10 < 3);
            calibration.learn(0.2, false);
        }
        assert!((calibration.probability(0.7) - 0.3).abs() < 0.05, "{}", calibration.probability(0.7));
        assert!(calibration.probability(0.2) < 0.05);
        let report = calibration.report();
        assert!(report.error < 0.1 && report.answers == 600, "{report:?}");
    }

    #[test]
    fn the_error_is_the_distance_of_said_and_happened() {
        let report = report([(0.9, true), (0.9, false), (0.1, false), (0.1, false)]);
        assert!((report.error - 0.25).abs() < 1e-9, "{report:?}");
        assert_eq!(report.bins.iter().map(|bin| bin.answers).collect::<Vec<_>>(), [2, 2]);
    }
}
