//! Running spreads of packet sizes and gaps, in few bytes: what is added to a flow's entry beside count and sum.

use super::record::Spread;

/// Sizes of the packets of a slice; their number and sum are kept by whom it belongs to. Exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, packed(2))]
pub struct Sizes {
    squares: u64,
    min: [u8; 3],
    max: [u8; 3],
}

/// Gaps between the packets of a slice, in nanoseconds; their number and sum are kept by whom it belongs to.
///
/// Squares are those of the differences to the first gap: a beacon's few microseconds of jitter would vanish beside the
/// squares of its gaps. Minimum, maximum and that first gap have 24 bits of precision, the sum of squares 36, so that
/// it does not stand still before 2³⁵ packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, packed(2))]
pub struct Gaps {
    /// The upper three quarters of an `f64`.
    squares: [u16; 3],
    /// Bits of `f32`s.
    first: u32,
    min: u32,
    max: u32,
}

const _: () = assert!(size_of::<Sizes>() == 14 && size_of::<Gaps>() == 18);

const NONE: [u8; 3] = [0xff; 3];

impl Sizes {
    pub const EMPTY: Self = Self { squares: 0, min: NONE, max: [0; 3] };

    /// `bytes` below 2²⁴, the most a capture may say of a packet being far below.
    #[inline]
    pub fn add(&mut self, bytes: u32) {
        let bytes = bytes.min(u24(NONE) - 1);
        self.squares = self.squares.saturating_add(u64::from(bytes) * u64::from(bytes));
        if bytes < u24(self.min) {
            self.min = bytes_of(bytes);
        }
        if bytes > u24(self.max) {
            self.max = bytes_of(bytes);
        }
    }

    /// `count` values were added, together `sum`.
    pub fn spread(&self, count: u64, sum: u64) -> Spread {
        if count == 0 {
            return Spread::default();
        }
        let [n, sum, squares] = [count, sum, self.squares].map(u128::from);
        // n²·variance, an integer.
        let scaled = (n * squares).saturating_sub(sum * sum);
        let sd = (scaled as f64).sqrt() / count as f64;
        Spread { min: u24(self.min).into(), max: u24(self.max).into(), mean: sum as f64 / count as f64, sd }
    }
}

impl Gaps {
    pub const EMPTY: Self = Self { squares: [0; 3], first: 0, min: f32::INFINITY.to_bits(), max: 0 };

    #[inline]
    pub fn add(&mut self, gap_ns: u64) {
        let gap = gap_ns as f32;
        if self.min == f32::INFINITY.to_bits() {
            self.first = gap.to_bits();
        }
        // Positive floats sort as their bits do.
        self.min = gap.to_bits().min(self.min);
        self.max = gap.to_bits().max(self.max);
        let beyond = gap_ns as f64 - f64::from(f32::from_bits(self.first));
        self.squares = upper(f48(self.squares) + beyond * beyond);
    }

    /// `count` gaps were added, together `sum_ns`.
    pub fn spread(&self, count: u64, sum_ns: u64) -> Spread {
        if count == 0 {
            return Spread::default();
        }
        let n = count as f64;
        let mean = sum_ns as f64 / n;
        let beyond = mean - f64::from(f32::from_bits(self.first));
        let variance = f48(self.squares) / n - beyond * beyond;
        let [min, max] = [self.min, self.max].map(|bits| f32::from_bits(bits) as u64);
        Spread { min, max, mean, sd: variance.max(0.0).sqrt() }
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Default for Gaps {
    fn default() -> Self {
        Self::EMPTY
    }
}

fn u24([low, middle, high]: [u8; 3]) -> u32 {
    u32::from_le_bytes([low, middle, high, 0])
}

fn bytes_of(value: u32) -> [u8; 3] {
    let [low, middle, high, _] = value.to_le_bytes();
    [low, middle, high]
}

fn f48([low, middle, high]: [u16; 3]) -> f64 {
    f64::from_bits(u64::from(low) << 16 | u64::from(middle) << 32 | u64::from(high) << 48)
}

/// Rounded to what is kept, so that errors do not add up in one direction.
fn upper(value: f64) -> [u16; 3] {
    let bits = value.to_bits() + 0x8000;
    [(bits >> 16) as u16, (bits >> 32) as u16, (bits >> 48) as u16]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(values: &[u64]) -> Spread {
        let n = values.len().max(1) as f64;
        let mean = values.iter().map(|v| *v as f64).sum::<f64>() / n;
        let variance = values.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / n;
        let (min, max) = (values.iter().min(), values.iter().max());
        Spread { min: *min.unwrap_or(&0), max: *max.unwrap_or(&0), mean, sd: variance.sqrt() }
    }

    fn gaps(values: &[u64]) -> Spread {
        let mut gaps = Gaps::EMPTY;
        values.iter().for_each(|v| gaps.add(*v));
        gaps.spread(values.len() as u64, values.iter().sum())
    }

    fn close(found: f64, expected: f64, share: f64) -> bool {
        (found - expected).abs() <= share * expected.abs() + 1e-6
    }

    proptest! {
        #[test]
        fn sizes_are_those_of_all_values(values in prop::collection::vec(0u64..300_000, 0..200)) {
            let mut sizes = Sizes::EMPTY;
            values.iter().for_each(|v| sizes.add(*v as u32));
            let (found, expected) = (sizes.spread(values.len() as u64, values.iter().sum()), naive(&values));
            prop_assert_eq!((found.min, found.max), (expected.min, expected.max));
            prop_assert!(close(found.mean, expected.mean, 1e-12) && close(found.sd, expected.sd, 1e-6));
        }

        #[test]
        fn gaps_are_those_of_all_values(values in prop::collection::vec(0u64..4_000_000_000, 0..200)) {
            let (found, expected) = (gaps(&values), naive(&values));
            prop_assert!(close(found.min as f64, expected.min as f64, 1e-7));
            prop_assert!(close(found.max as f64, expected.max as f64, 1e-7));
            prop_assert!(close(found.mean, expected.mean, 1e-12) && close(found.sd, expected.sd, 1e-3));
        }

        #[test]
        fn jitter_of_a_beacon_is_seen(jitter in prop::collection::vec(0u64..2_000, 2..300)) {
            let values: Vec<u64> = jitter.iter().map(|j| 60_000_000_000 + j * 1000).collect();
            let (found, expected) = (gaps(&values), naive(&values));
            prop_assert!(close(found.sd, expected.sd, 1e-2), "{} {}", found.sd, expected.sd);
        }
    }

    #[test]
    fn nothing_is_all_zero_and_long_sums_go_on() {
        assert_eq!((Sizes::EMPTY.spread(0, 0), Gaps::EMPTY.spread(0, 0)), (Spread::default(), Spread::default()));
        // More equal additions than an f32 can count.
        let mut spread = Gaps::EMPTY;
        let (n, sum) = (40_000_000u64, 40_000_000 / 2 * 300);
        (0..n).for_each(|i| spread.add(if i % 2 == 0 { 100 } else { 200 }));
        let found = spread.spread(n, sum);
        assert!(close(found.sd, 50.0, 1e-5) && close(found.mean, 150.0, 1e-9), "{found:?}");
        assert_eq!((found.min, found.max), (100, 200));
    }
}
