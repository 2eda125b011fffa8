//! How often which value came up, counted by one thread on the packet path and read by anybody.
//!
//! Log-linear buckets: 32 of equal width between a power of two and the next, so a value is known to about 3 %, and
//! counting is a shift, a table index and two additions: no allocation, lock or floating point. Readers turn the
//! counts into an hdrhistogram or into Prometheus buckets.

use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

use super::counters::Counter;

/// Buckets in an octave: two to the power of this.
const PRECISION: u32 = 5;
const OCTAVE: usize = 1 << PRECISION;
/// Values up to two to the power of this are told apart; what is larger counts as this much.
const LARGEST_BIT: u32 = 40;
const BUCKETS: usize = OCTAVE * (LARGEST_BIT - PRECISION + 1) as usize;

/// Counts of values by bucket. One writer.
#[derive(Debug)]
pub struct Distribution {
    buckets: Box<[Counter]>,
    sum: Counter,
    max: AtomicU64,
}

impl Default for Distribution {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| Counter::default()).collect();
        Self { buckets, sum: Counter::default(), max: AtomicU64::new(0) }
    }
}

impl Distribution {
    /// Counts `value` so many times.
    #[inline]
    pub fn record(&self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        self.buckets[bucket_of(value)].add(times);
        self.sum.add(value.saturating_mul(times));
        if value > self.max.load(Ordering::Relaxed) {
            self.max.store(value, Ordering::Relaxed);
        }
    }
}

/// What several distributions hold together, at one moment.
#[derive(Clone, Debug)]
pub struct Distributed {
    /// Buckets that are not empty, ascending: the largest value in it, and how many values.
    counts: Vec<(u64, u64)>,
    pub count: u64,
    pub sum: u64,
    pub max: u64,
}

impl Distributed {
    pub fn of<'a>(distributions: impl IntoIterator<Item = &'a Distribution>) -> Self {
        let mut sums = vec![0_u64; BUCKETS];
        let (mut sum, mut max) = (0_u64, 0);
        for one in distributions {
            sums.iter_mut().zip(&one.buckets).for_each(|(sum, bucket)| *sum += bucket.get());
            sum = sum.saturating_add(one.sum.get());
            max = one.max.load(Ordering::Relaxed).max(max);
        }
        let filled = sums.into_iter().enumerate().filter(|(_, count)| *count > 0);
        let counts: Vec<_> = filled.map(|(at, count)| (largest_in(at), count)).collect();
        let count = counts.iter().map(|(_, count)| count).sum();
        Self { counts, count, sum, max }
    }

    /// Values up to and including `limit`: exact where `limit` is a power of two.
    pub fn up_to(&self, limit: u64) -> u64 {
        self.counts.iter().take_while(|(largest, _)| *largest <= limit).map(|(_, count)| count).sum()
    }

    /// The same as an hdrhistogram; each value is the largest of its bucket, and none above the largest there was.
    pub fn histogram(&self) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 1 << LARGEST_BIT, 3).expect("bounds and digits are valid");
        for (largest, count) in &self.counts {
            histogram.saturating_record_n((*largest).min(self.max.max(1)), *count);
        }
        histogram
    }
}

/// Buckets hold what is above the one before and up to their own largest, so that powers of two end one.
#[inline]
fn bucket_of(value: u64) -> usize {
    let below = value.saturating_sub(1).min((1 << LARGEST_BIT) - 1);
    if below < OCTAVE as u64 {
        return below as usize;
    }
    let shift = below.ilog2() - PRECISION;
    (shift as usize + 1) * OCTAVE + ((below >> shift) as usize - OCTAVE)
}

fn largest_in(bucket: usize) -> u64 {
    let next = bucket + 1;
    if next < OCTAVE {
        return next as u64;
    }
    ((OCTAVE + next % OCTAVE) as u64) << (next / OCTAVE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_join_without_gap() {
        for bucket in 0..BUCKETS {
            let largest = largest_in(bucket);
            assert_eq!(bucket_of(largest), bucket, "{largest}");
            assert_eq!(bucket_of(largest + 1), (bucket + 1).min(BUCKETS - 1), "{largest}");
        }
        assert_eq!((largest_in(31), largest_in(BUCKETS - 1)), (32, 1 << LARGEST_BIT));
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    proptest! {
        #[test]
        fn quantiles_are_within_four_per_cent_of_the_sorted_values(
            values in proptest::collection::vec((0_u64..1 << 38, 1_u64..50), 1..200),
            split in 0_usize..200,
        ) {
            let parts = [Distribution::default(), Distribution::default()];
            for (i, (value, times)) in values.iter().enumerate() {
                parts[usize::from(i >= split)].record(*value, *times);
            }
            let all = Distributed::of(&parts);
            let mut sorted: Vec<u64> = values.iter().flat_map(|(v, n)| std::iter::repeat_n(*v, *n as usize)).collect();
            sorted.sort_unstable();
            prop_assert_eq!(all.count, sorted.len() as u64);
            prop_assert_eq!(all.max, sorted[sorted.len() - 1]);
            prop_assert_eq!(all.sum, sorted.iter().sum::<u64>());
            for power in 0..39 {
                let exact = sorted.iter().filter(|v| **v <= 1 << power).count() as u64;
                prop_assert_eq!(all.up_to(1 << power), exact, "{}", power);
            }
            let histogram = all.histogram();
            for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
                let at = ((quantile * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1;
                let (said, exact) = (histogram.value_at_quantile(quantile) as f64, sorted[at] as f64);
                prop_assert!((said - exact).abs() <= exact * 0.04 + 1.0, "{} at {}: {} {}", quantile, at, said, exact);
            }
        }
    }
}
