//! Bytes of a block ↔ bit planes: plane `p` holds bit `p` of all its records, a bit a record.
//!
//! ```text
//! column   r0 r1 r2 …          512 bytes
//! plane 7  ▪  ·  ▪  …  ┐
//!   ⋮                  ├       8 times 512 bits
//! plane 0  ·  ·  ▪  …  ┘
//! ```
//! A comparison of a byte with a constant is then a few operations for 512 records, and so is everything that
//! follows from it. Which bit stands for which record is the business of [`slice`] and [`unslice`] alone: records
//! `64k + 8w + j` are in word `w`, bit `8k + j`, so that vectors are loaded as they lie.

use std::ops::{BitAnd, BitOr, BitXor, Not};

use super::grid::{Column, LANES};

/// Words of 64 bits in a vector of a bit a record.
const WORDS: usize = LANES / 64;
/// Bits of a byte.
pub(super) const PLANES: usize = 8;

/// One bit of every record of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(super) struct Bits(pub(super) [u64; WORDS]);

impl Bits {
    pub(super) const NONE: Bits = Bits([0; WORDS]);
    pub(super) const ALL: Bits = Bits([u64::MAX; WORDS]);

    #[inline(always)]
    fn shifted_left(self, by: u32) -> Self {
        Bits(self.0.map(|w| w << by))
    }

    #[inline(always)]
    fn shifted_right(self, by: u32) -> Self {
        Bits(self.0.map(|w| w >> by))
    }

    #[inline(always)]
    fn splat(word: u64) -> Self {
        Bits([word; WORDS])
    }
}

impl BitAnd for Bits {
    type Output = Bits;
    #[inline(always)]
    fn bitand(self, other: Bits) -> Bits {
        Bits(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}

impl BitOr for Bits {
    type Output = Bits;
    #[inline(always)]
    fn bitor(self, other: Bits) -> Bits {
        Bits(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }
}

impl BitXor for Bits {
    type Output = Bits;
    #[inline(always)]
    fn bitxor(self, other: Bits) -> Bits {
        Bits(std::array::from_fn(|i| self.0[i] ^ other.0[i]))
    }
}

impl Not for Bits {
    type Output = Bits;
    #[inline(always)]
    fn not(self) -> Bits {
        Bits(self.0.map(|w| !w))
    }
}

/// Planes of a column, the lowest bit first.
#[inline(always)]
pub(super) fn slice(column: &Column) -> [Bits; PLANES] {
    let mut v = [Bits::NONE; PLANES];
    for (v, bytes) in v.iter_mut().zip(column.as_chunks::<{ LANES / PLANES }>().0) {
        for (word, bytes) in v.0.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
    }
    turn_words(&mut v);
    swap_bytes(&mut v);
    v
}

/// The column whose planes these are.
#[inline(always)]
pub(super) fn unslice(planes: &[Bits; PLANES]) -> Column {
    let mut v = *planes;
    swap_bytes(&mut v);
    turn_words(&mut v);
    let mut column = [0; LANES];
    for (v, bytes) in v.iter().zip(column.as_chunks_mut::<{ LANES / PLANES }>().0) {
        for (word, bytes) in v.0.iter().zip(bytes.as_chunks_mut().0) {
            *bytes = word.to_le_bytes();
        }
    }
    column
}

/// Transposes the eight times eight bits of every word (Warren: Hacker's Delight, 7-3). Its own inverse.
#[inline(always)]
fn turn_words(v: &mut [Bits; PLANES]) {
    for v in v {
        for (by, mask) in [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)] {
            let differing = (*v ^ v.shifted_right(by)) & Bits::splat(mask);
            *v = *v ^ differing ^ differing.shifted_left(by);
        }
    }
}

/// Byte `k` of word `w` of vector `p` changes places with byte `p` of word `w` of vector `k`. Its own inverse.
#[inline(always)]
fn swap_bytes(v: &mut [Bits; PLANES]) {
    for (step, mask) in [(1, 0x00ff_00ff_00ff_00ff), (2, 0x0000_ffff_0000_ffff), (4, 0x0000_0000_ffff_ffff)] {
        for low in (0..PLANES).filter(|i| i & step == 0) {
            let by = 8 * step as u32;
            let differing = (v[low].shifted_right(by) ^ v[low + step]) & Bits::splat(mask);
            v[low + step] = v[low + step] ^ differing;
            v[low] = v[low] ^ differing.shifted_left(by);
        }
    }
}

/// Thresholds a nibble may be compared with, and one below them all.
const NIBBLE: usize = 16;

/// All comparisons of one column with a constant, two operations each.
#[derive(Clone, Debug)]
pub(super) struct Comparisons {
    /// `high[t]`: the high nibble is at least `t`; so nothing at 16.
    high: [Bits; NIBBLE + 1],
    /// `low[t]`: the low nibble is greater than `t`.
    low: [Bits; NIBBLE],
}

impl Comparisons {
    pub(super) const EMPTY: Comparisons = Comparisons { high: [Bits::NONE; NIBBLE + 1], low: [Bits::NONE; NIBBLE] };

    #[inline(always)]
    pub(super) fn fill(&mut self, planes: &[Bits; PLANES]) {
        let [p0, p1, p2, p3, p4, p5, p6, p7] = *planes;
        self.low = greater([p0, p1, p2, p3]);
        let high = greater([p4, p5, p6, p7]);
        self.high[0] = Bits::ALL;
        self.high[1..].copy_from_slice(&high);
    }

    /// Records whose byte is greater than `threshold`.
    #[inline(always)]
    pub(super) fn greater(&self, threshold: u8) -> Bits {
        let (high, low) = (usize::from(threshold >> 4), usize::from(threshold & 15));
        // Where the high nibble is greater the low one does not matter, where it is equal it decides.
        self.high[high + 1] | (self.high[high] & self.low[low])
    }
}

/// Whether a nibble is greater than 0..=15, the last of which is never.
#[inline(always)]
fn greater(bits: [Bits; 4]) -> [Bits; NIBBLE] {
    let pair = |low: Bits, high: Bits| [Bits::ALL, low | high, high, low & high, Bits::NONE];
    let (low, high) = (pair(bits[0], bits[1]), pair(bits[2], bits[3]));
    std::array::from_fn(|t| high[t / 4 + 1] | (high[t / 4] & low[t % 4 + 1]))
}

/// Adds `value` to the number whose planes are `sum`, the lowest bit first; what does not fit is lost.
#[inline(always)]
pub(super) fn add(sum: &mut [Bits], value: &[Bits; PLANES]) {
    let mut carry = Bits::NONE;
    let (low, high) = sum.split_at_mut(PLANES);
    for (sum, value) in low.iter_mut().zip(value) {
        let differing = *sum ^ *value;
        let both = *sum & *value;
        *sum = differing ^ carry;
        carry = both | (differing & carry);
    }
    for sum in high {
        let both = *sum & carry;
        *sum = *sum ^ carry;
        carry = both;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(seed: u64) -> Column {
        let mut state = seed;
        std::array::from_fn(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
    }

    #[test]
    fn planes_come_back_as_bytes() {
        for seed in 0..20 {
            let column = column(seed);
            let planes = slice(&column);
            for (p, plane) in planes.iter().enumerate() {
                let set: u32 = plane.0.iter().map(|w| w.count_ones()).sum();
                assert_eq!(set as usize, column.iter().filter(|b| *b >> p & 1 == 1).count());
            }
            assert_eq!(unslice(&planes), column);
        }
    }

    #[test]
    fn comparisons_are_those_of_bytes() {
        let column = column(7);
        let mut all = Comparisons::EMPTY;
        all.fill(&slice(&column));
        for threshold in 0..=255 {
            let mut planes = [Bits::NONE; PLANES];
            planes[0] = all.greater(threshold);
            let got = unslice(&planes);
            for (byte, got) in column.iter().zip(got) {
                assert_eq!(got == 1, *byte > threshold, "{byte} {threshold}");
            }
        }
    }

    #[test]
    fn sums_carry_into_the_high_planes() {
        let (a, b) = (column(1), column(2));
        let mut sum = vec![Bits::NONE; 10];
        for value in [a, b, a] {
            add(&mut sum, &slice(&value));
        }
        let low = unslice(sum[..PLANES].as_array().expect("eight planes"));
        let mut high = [Bits::NONE; PLANES];
        high[..2].copy_from_slice(&sum[PLANES..]);
        let high = unslice(&high);
        for i in 0..LANES {
            let got = u32::from(low[i]) + 256 * u32::from(high[i]);
            assert_eq!(got, 2 * u32::from(a[i]) + u32::from(b[i]));
        }
    }
}
