//! How improbable a value is among ordinary ones: the common measure of members that have nothing else in common.

use serde::{Deserialize, Serialize};

/// Knots below the tail.
const KNOTS: usize = 64;
/// Share of the values that is the tail.
const TAIL: f64 = 0.05;
/// The tail falls off no faster than over this share of the span below it.
const LEAST_FALL: f32 = 0.02;

/// `-ln` of the probability that an ordinary value is at least as great: 0.7 in the middle, 4.6 for one in a
/// hundred. Below the largest twentieth of the values it is their empirical distribution; above, an exponential
/// tail with their mean excess, so that what was never seen goes on being told apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Tail {
    /// (value, -ln probability), both increasing; the last is where the tail begins.
    knots: Vec<(f32, f32)>,
    /// Per unit above the last knot.
    slope: f32,
}

impl Tail {
    /// From values of ordinary records, any order; without values everything is 0.
    pub(super) fn fit(values: &[f32]) -> Self {
        let mut sorted: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f32::total_cmp);
        let n = sorted.len();
        if n == 0 {
            return Self { knots: vec![(0.0, 0.0)], slope: 0.0 };
        }
        let last = ((n as f64 * (1.0 - TAIL)) as usize).min(n - 1);
        let mut knots: Vec<(f32, f32)> = Vec::with_capacity(KNOTS + 1);
        for k in 0..=KNOTS {
            let x = sorted[last * k / KNOTS];
            if knots.last().is_none_or(|knot| knot.0 < x) {
                let (below, upto) = (sorted.partition_point(|v| *v < x), sorted.partition_point(|v| *v <= x));
                // Equal values count by half.
                let above = n as f64 - (below + upto) as f64 / 2.0;
                knots.push((x, -((above + 0.5) / (n as f64 + 1.0)).ln() as f32));
            }
        }
        let start = sorted[last];
        let beyond = &sorted[sorted.partition_point(|v| *v <= start)..];
        let excess = beyond.iter().map(|v| f64::from(v - start)).sum::<f64>() / beyond.len().max(1) as f64;
        let fall = (excess as f32).max(LEAST_FALL * (start - sorted[0])).max(f32::EPSILON * start.abs().max(1.0));
        Self { knots, slope: 1.0 / fall }
    }

    /// What was fitted once and is read again.
    pub(super) fn is_sound(&self) -> bool {
        let finite = self.knots.iter().all(|(x, y)| x.is_finite() && y.is_finite());
        !self.knots.is_empty() && finite && self.knots.is_sorted_by(|a, b| a.0 < b.0) && self.slope.is_finite()
    }

    pub(super) fn measure(&self, value: f32) -> f32 {
        let after = self.knots.partition_point(|k| k.0 <= value);
        let (x0, y0) = self.knots[after.max(1) - 1];
        match self.knots.get(after) {
            // Below everything seen.
            Some(_) if after == 0 => y0,
            Some((x1, y1)) => y0 + (y1 - y0) * (value - x0) / (x1 - x0),
            None => y0 + (value - x0) * self.slope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_ordinary_values() {
        let values: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
        let tail = Tail::fit(&values);
        for (at, p) in [(5000.0, 0.5), (1000.0, 0.9), (9000.0, 0.1)] {
            assert!((tail.measure(at) + f64::ln(p) as f32).abs() < 0.01, "{at}");
        }
        let grid: Vec<f32> = (-100..30_000).map(|i| tail.measure(i as f32)).collect();
        assert!(grid.windows(2).all(|w| w[0] <= w[1]) && grid[0] >= 0.0);
        assert!(tail.measure(20_000.0) < tail.measure(20_001.0));
    }

    #[test]
    fn an_exponential_tail_is_met() {
        let values: Vec<f32> = (0..20_000).map(|i| -(1.0 - (i as f32 + 0.5) / 20_000.0).ln()).collect();
        let tail = Tail::fit(&values);
        for x in [0.5, 2.0, 4.0, 6.0, 9.0] {
            assert!((tail.measure(x) - x).abs() < 0.1 * x, "{x} {}", tail.measure(x));
        }
    }

    #[test]
    fn nothing_breaks_on_equal_values() {
        for values in [vec![], vec![3.0], vec![3.0; 500], vec![f32::NAN, f32::INFINITY]] {
            let tail = Tail::fit(&values);
            for x in [0.0, 3.0, 4.0, 1e9] {
                assert!(tail.measure(x).is_finite() && tail.measure(x) >= 0.0, "{values:?} {x}");
            }
        }
        assert!((Tail::fit(&[3.0; 500]).measure(3.0) - 2f32.ln()).abs() < 0.01);
    }
}
