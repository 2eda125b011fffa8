//! All randomness of a scenario: seeded, and forked per service so that one does not disturb another.

use std::ops::Range;

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

/// A seeded source of random values.
#[derive(Clone, Debug)]
pub(super) struct Dice(Pcg64Mcg);

impl Dice {
    /// The values of one `stream` under one `seed`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Self(Pcg64Mcg::new((u128::from(seed) << 64) | u128::from(stream.wrapping_mul(2) + 1)));
        // A multiplicative generator leaves low-entropy states only after some steps.
        for _ in 0..8 {
            dice.u64();
        }
        dice
    }

    /// Independent dice for a part of what is simulated.
    pub(super) fn fork(&mut self) -> Self {
        Self::new(self.u64(), self.u64())
    }

    pub(super) fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(super) fn u32(&mut self) -> u32 {
        (self.u64() >> 32) as u32
    }

    pub(super) fn u16(&mut self) -> u16 {
        (self.u64() >> 48) as u16
    }

    /// Below `n`, which is at least 1.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.u64()) * n.max(1) as u128) >> 64) as usize
    }

    pub(super) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below((range.end - range.start) as usize) as u64
    }

    /// 0.0..1.0.
    pub(super) fn unit(&mut self) -> f64 {
        (self.u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Exponentially distributed.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -(1.0 - self.unit()).ln() * mean
    }

    /// Log-normal: half of the values are below `median`; `sigma` is that of the logarithm. Held within
    /// `range`.
    pub(super) fn log_normal(&mut self, median: f64, sigma: f64, range: Range<u64>) -> u64 {
        let normal: f64 = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        ((median * (sigma * normal).exp()) as u64).clamp(range.start, range.end - 1)
    }

    /// An element; small positions are more likely, as some hosts are busier than others.
    pub(super) fn skewed(&mut self, n: usize) -> usize {
        ((self.unit().powf(1.5) * n as f64) as usize).min(n.saturating_sub(1))
    }

    /// An element of a list that is not empty.
    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_values_and_streams_differ() {
        let values = |seed, stream| {
            let mut dice = Dice::new(seed, stream);
            (0..5).map(|_| dice.u64()).collect::<Vec<_>>()
        };
        assert_eq!(values(1, 2), values(1, 2));
        assert_ne!(values(1, 2), values(1, 3));
        assert_ne!(values(1, 2), values(2, 2));
        assert_ne!(values(0, 0), values(0, 1));
    }

    #[test]
    fn distributions_have_their_means() {
        let mut dice = Dice::new(7, 7);
        let n = 20_000;
        let mean = (0..n).map(|_| dice.exponential(3.0)).sum::<f64>() / f64::from(n);
        assert!((2.8..3.2).contains(&mean), "{mean}");
        let below = (0..n).filter(|_| dice.log_normal(1000.0, 1.0, 1..1_000_000) < 1000).count();
        assert!((9_000..11_000).contains(&below), "{below}");
        assert!((0..n).all(|_| dice.below(3) < 3 && (5..9).contains(&dice.within(5..9))));
    }
}
