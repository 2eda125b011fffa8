//! From the forest's raw score to a number that means something: where the record would stand among
//! the records of the warm-up window.

use serde::{Deserialize, Serialize};

/// Empirical distribution of the raw warm-up scores.
///
/// With n warm-up scores, a raw score `s` maps to
/// `(share below s + half the share equal to s)`, on the scale k / (n + 1) so that no warm-up record
/// gets 0 or 1; between two neighbouring warm-up scores it is interpolated linearly. So a calibrated
/// score of 0.99 says: about 1 % of the warm-up traffic was at least that unusual. Records that are
/// all alike share the score 0.5. Above the largest warm-up score the rest of the scale, up to 1 for
/// a raw score of 1, is filled linearly: order is kept beyond what the warm-up has seen; likewise
/// down to 0. The mapping never decreases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// (raw score, calibrated score), both strictly increasing, from (0, 0) to (1, 1).
    knots: Vec<(f32, f32)>,
    largest: f32,
    threshold: f32,
}

impl Calibration {
    /// `scores`: raw scores of the warm-up records, any order; values that are not finite are left
    /// out. `contamination`: the share of the warm-up taken to be unusual, 0..1; the outlier
    /// threshold is `1 - contamination` on the calibrated scale.
    pub fn fit(scores: &[f32], contamination: f64) -> Self {
        let mut sorted: Vec<f32> = scores.iter().copied().filter(|s| s.is_finite()).collect();
        sorted.sort_by(f32::total_cmp);
        let n = sorted.len() as f64;
        let mut knots = vec![(0.0, 0.0)];
        let mut below = 0usize;
        for equal in sorted.chunk_by(|a, b| a == b) {
            // Mid-rank of the ties, ranks counted from 1.
            let rank = below as f64 + (equal.len() as f64 + 1.0) / 2.0;
            push_knot(&mut knots, equal[0].clamp(0.0, 1.0), (rank / (n + 1.0)) as f32);
            below += equal.len();
        }
        push_knot(&mut knots, 1.0, 1.0);
        let threshold = (1.0 - contamination.clamp(0.0, 1.0)) as f32;
        Self { knots, largest: sorted.last().copied().unwrap_or(1.0), threshold }
    }

    /// Calibrated score, 0..=1. Not-a-number maps to 0.
    pub fn calibrate(&self, raw: f32) -> f32 {
        if raw.is_nan() {
            return 0.0;
        }
        let raw = raw.clamp(0.0, 1.0);
        let after = self.knots.partition_point(|k| k.0 <= raw);
        let (x0, y0) = self.knots[after.max(1) - 1];
        match self.knots.get(after) {
            Some(&(x1, y1)) => (y0 + (y1 - y0) * (raw - x0) / (x1 - x0)).clamp(y0, y1),
            None => y0,
        }
    }

    /// Calibrated scores from here on are outliers.
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// What was fitted once and is read again.
    pub(super) fn is_sound(&self) -> bool {
        let rises = |a: &(f32, f32), b: &(f32, f32)| a.0 < b.0 && a.1 <= b.1;
        let inside = |(x, y): &(f32, f32)| (0.0..=1.0).contains(x) && (0.0..=1.0).contains(y);
        let knots = self.knots.len() >= 2 && self.knots.iter().all(inside) && self.knots.is_sorted_by(rises);
        knots && self.threshold.is_finite() && self.largest.is_finite()
    }

    /// Whether a raw score is above everything in the warm-up.
    pub fn is_beyond(&self, raw: f32) -> bool {
        raw > self.largest
    }
}

/// Appends a knot; one that does not move right is merged into its predecessor.
fn push_knot(knots: &mut Vec<(f32, f32)>, x: f32, y: f32) {
    match knots.last_mut() {
        Some(last) if last.0 >= x => last.1 = last.1.max(y),
        _ => knots.push((x, y)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_distinct_scores() {
        let scores: Vec<f32> = (0..999).map(|i| 0.3 + i as f32 * 0.0004).collect();
        let c = Calibration::fit(&scores, 0.01);
        assert_eq!(c.threshold(), 0.99);
        for (i, s) in scores.iter().enumerate() {
            assert!((c.calibrate(*s) - (i + 1) as f32 / 1000.0).abs() < 1e-4);
        }
        let flagged = scores.iter().filter(|s| c.calibrate(**s) >= c.threshold()).count();
        assert!((9..=11).contains(&flagged), "{flagged}");
        // Half way between two knots is half way between their quantiles.
        let mid = (scores[10] + scores[11]) / 2.0;
        assert!((c.calibrate(mid) - 0.0115).abs() < 1e-4);
    }

    #[test]
    fn order_is_kept_beyond_the_warm_up_and_at_the_ends() {
        let c = Calibration::fit(&[0.4, 0.5, 0.45, 0.5], 0.01);
        let grid: Vec<f32> = (0..=1000).map(|i| c.calibrate(i as f32 / 1000.0)).collect();
        assert!(grid.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!((grid[0], grid[1000]), (0.0, 1.0));
        assert!(c.calibrate(0.7) < c.calibrate(0.8));
        assert!(c.is_beyond(0.51) && !c.is_beyond(0.5));
    }

    #[test]
    fn ties_share_the_middle_and_nothing_breaks_on_nonsense() {
        let c = Calibration::fit(&[0.5; 100], 0.05);
        assert!((c.calibrate(0.5) - 0.5).abs() < 1e-6);
        assert!(c.calibrate(0.5) < c.threshold());
        let empty = Calibration::fit(&[f32::NAN], 2.0);
        for raw in [f32::NAN, f32::INFINITY, -1.0, 0.0, 0.5, 1.0] {
            assert!((0.0..=1.0).contains(&empty.calibrate(raw)));
        }
        assert_eq!(empty.calibrate(f32::NAN), 0.0);
        let edge = Calibration::fit(&[0.0, 1.0, 1.0], 0.01);
        assert!(edge.calibrate(0.5) > 0.0 && edge.calibrate(1.0) == 1.0);
    }
}
