//! Whether the mean of a stream has changed: ADWIN (Bifet, Gavaldà: Learning from Time-Changing Data with Adaptive
//! Windowing, SIAM SDM 2007), in the form with an exponential histogram (ADWIN2).
//!
//! A window of the latest values grows for as long as no cut of it gives two parts whose means differ by more than
//! chance allows; where one does, the older part is dropped. Buckets of 1, 2, 4, … values, at most [`SIDE`] of each size,
//! stand for the values, so memory and time grow with the logarithm of the window.

use std::collections::VecDeque;

use serde::Serialize;

/// Buckets of a size.
const SIDE: usize = 5;
/// Values from one look for a cut to the next.
const EVERY: u64 = 32;
/// Fewest values of a part.
const LEAST: f64 = 256.0;

/// A change that was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Means of both sides of the cut that tells them apart best.
    pub before: f64,
    pub after: f64,
    /// Values that were dropped, and that are left.
    pub dropped: u64,
    pub left: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    sum: f64,
    /// Sum of squared deviations from its mean.
    squares: f64,
}

/// Values between 0 and 1.
#[derive(Clone, Debug)]
pub struct Adwin {
    /// Probability of a change being found where there is none.
    delta: f64,
    /// By size, in powers of two; the latest bucket first.
    rows: Vec<VecDeque<Bucket>>,
    count: u64,
    whole: Bucket,
    seen: u64,
}

impl Adwin {
    /// `delta`: 0..1, such as 0.002.
    pub fn new(delta: f64) -> Self {
        Self { delta, rows: vec![VecDeque::new()], count: 0, whole: Bucket::default(), seen: 0 }
    }

    /// Takes the next value; `Some` when the mean has changed.
    pub fn add(&mut self, value: f64) -> Option<Change> {
        let one = Bucket { sum: value, squares: 0.0 };
        self.whole = joined(self.whole, self.count as f64, one, 1.0);
        self.count += 1;
        self.seen += 1;
        self.rows[0].push_front(one);
        self.compress();
        if self.seen.is_multiple_of(EVERY) { self.look() } else { None }
    }

    /// Two of a size that has too many become one of the next.
    fn compress(&mut self) {
        let mut level = 0;
        while self.rows[level].len() > SIDE {
            let size = (1_u64 << level) as f64;
            let (Some(old), Some(newer)) = (self.rows[level].pop_back(), self.rows[level].pop_back()) else { return };
            if self.rows.len() == level + 1 {
                self.rows.push(VecDeque::new());
            }
            self.rows[level + 1].push_front(joined(old, size, newer, size));
            level += 1;
        }
    }

    /// Drops the oldest buckets for as long as some cut of the window tells two means apart.
    fn look(&mut self) -> Option<Change> {
        let count = self.count;
        let (before, after) = self.cut()?;
        while self.cut().is_some() {
            self.drop_oldest();
        }
        Some(Change { before, after, dropped: count - self.count, left: self.count })
    }

    /// Means of both sides of the cut that is furthest beyond chance.
    fn cut(&self) -> Option<(f64, f64)> {
        let all = self.count as f64;
        if all < 2.0 * LEAST {
            return None;
        }
        let mut best: Option<(f64, (f64, f64))> = None;
        let variance = self.whole.squares / all;
        // As many cuts are looked at as there are buckets: the logarithm of the window.
        let confidence = (2.0 * all.ln() / self.delta).ln();
        let (mut older, mut sum) = (0.0, 0.0);
        for (level, row) in self.rows.iter().enumerate().rev() {
            for bucket in row.iter().rev() {
                older += (1_u64 << level) as f64;
                sum += bucket.sum;
                let newer = all - older;
                if older < LEAST || newer < LEAST {
                    continue;
                }
                let harmonic = 1.0 / (1.0 / older + 1.0 / newer);
                let bound = (2.0 / harmonic * variance * confidence).sqrt() + 2.0 / (3.0 * harmonic) * confidence;
                let means = (sum / older, (self.whole.sum - sum) / newer);
                let beyond = (means.0 - means.1).abs() - bound;
                if beyond > best.map_or(0.0, |(most, _)| most) {
                    best = Some((beyond, means));
                }
            }
        }
        best.map(|(_, means)| means)
    }

    fn drop_oldest(&mut self) {
        let Some(level) = self.rows.iter().rposition(|row| !row.is_empty()) else { return };
        let Some(bucket) = self.rows[level].pop_back() else { return };
        let (size, all) = ((1_u64 << level) as f64, self.count as f64);
        let left = all - size;
        let sum = self.whole.sum - bucket.sum;
        // The inverse of joining them.
        let apart = if left > 0.0 { sum / left - bucket.sum / size } else { 0.0 };
        let squares = self.whole.squares - bucket.squares - apart * apart * size * left / all.max(1.0);
        self.whole = Bucket { sum, squares: squares.max(0.0) };
        self.count -= 1 << level;
        self.rows.truncate(level + 1);
    }
}

/// Two buckets of `n` and `m` values as one (Chan, Golub, LeVeque 1979).
fn joined(a: Bucket, n: f64, b: Bucket, m: f64) -> Bucket {
    let apart = if n > 0.0 { a.sum / n - b.sum / m } else { 0.0 };
    Bucket { sum: a.sum + b.sum, squares: a.squares + b.squares + apart * apart * n * m / (n + m) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand_core::{Rng, SeedableRng};
    use rand_pcg::Pcg32;

    use super::*;

    fn mean_of(adwin: &Adwin) -> f64 {
        adwin.whole.sum / adwin.count as f64
    }

    fn uniform(rng: &mut Pcg32) -> f64 {
        f64::from(rng.next_u32()) / 2f64.powi(32)
    }

    #[test]
    fn the_histogram_keeps_count_mean_and_variance() {
        let mut rng = Pcg32::seed_from_u64(1);
        let mut adwin = Adwin::new(1e-9);
        let values: Vec<f64> = (0..5000).map(|_| uniform(&mut rng)).collect();
        assert!(values.iter().all(|v| adwin.add(*v).is_none()));
        let mean = values.iter().sum::<f64>() / 5000.0;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        assert_eq!(adwin.count, 5000);
        assert!((mean_of(&adwin) - mean).abs() < 1e-9 && (adwin.whole.squares - squares).abs() < 1e-6);
        let held: u64 = adwin.rows.iter().enumerate().map(|(level, row)| (row.len() as u64) << level).sum();
        assert_eq!(held, 5000);
        assert!(adwin.rows.iter().all(|row| row.len() <= SIDE) && adwin.rows.len() <= 12);
        adwin.drop_oldest();
        let left = &values[5000 - adwin.count as usize..];
        let mean = left.iter().sum::<f64>() / left.len() as f64;
        let squares: f64 = left.iter().map(|v| (v - mean).powi(2)).sum();
        assert!((mean_of(&adwin) - mean).abs() < 1e-9 && (adwin.whole.squares - squares).abs() < 1e-6);
    }

    #[test]
    fn a_change_is_found_soon_and_the_window_forgets_what_was_before() {
        for (shift, within) in [(0.05, 8000), (0.1, 2500), (0.3, 700)] {
            let mut rng = Pcg32::seed_from_u64(2);
            let mut adwin = Adwin::new(0.002);
            for _ in 0..20_000 {
                assert_eq!(adwin.add(uniform(&mut rng) * 0.6), None);
            }
            let found = (1..=20_000).find_map(|n| adwin.add(shift + uniform(&mut rng) * 0.6).map(|c| (n, c)));
            let (after, change) = found.unwrap();
            assert!(after <= within, "a shift of {shift} was found after {after}");
            assert!(change.after > change.before + shift / 3.0, "{change:?}");
            for _ in 0..10_000 {
                adwin.add(shift + uniform(&mut rng) * 0.6);
            }
            assert!((mean_of(&adwin) - shift - 0.3).abs() < 0.02, "{}", mean_of(&adwin));
        }
    }

    #[test]
    fn a_steady_stream_is_left_alone() {
        let found = (0..50).filter(|seed| {
            let mut rng = Pcg32::seed_from_u64(*seed);
            let mut adwin = Adwin::new(0.002);
            (0..20_000).any(|_| adwin.add(uniform(&mut rng)).is_some())
        });
        assert!(found.count() <= 1);
    }
}
