//! Rows of numbers → columns of bytes, on a grid that is fixed when a model is trained.
//!
//! ```text
//! rows (f32)             x - least            block: one column a feature, one byte a record
//! r0: a0 b0 c0    byte = ─────────── · 252 + 1.5     a: a0 a1 a2 … a511
//! r1: a1 b1 c1           greatest - least            b: b0 b1 b2 … b511
//! ```
//! 1..=253 lie between the least and the greatest value of training, 0 below (and not-a-number), 254 and 255 above.
//! The same bytes on every processor: no fused multiplication, no rounding that depends on the instructions.

use serde::{Deserialize, Serialize};

use crate::trie::Isa;

/// Records in a block: the bits of the widest vectors.
pub(super) const LANES: usize = 512;
/// A byte a record.
pub(super) type Column = [u8; LANES];
/// Steps between the least and the greatest value.
const STEPS: f32 = 252.0;
/// Larger magnitudes are clamped, so that differences stay finite.
const LARGEST: f32 = 1e30;
/// Steps per unit where all values of training are equal: any other value is outside.
const STEEP: f32 = 1e12;
/// Features that one vector holds; tables are filled up to a multiple of it.
const GROUP: usize = 8;

/// Records as rows of `width` numbers, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> Rows<'a> {
    /// What is left after the last whole row is ignored. A `width` of 0 gives no rows.
    pub fn new(values: &'a [f32], width: usize) -> Self {
        let whole = values.len().checked_div(width).unwrap_or(0) * width;
        Self { values: &values[..whole], width: width.max(1) }
    }

    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [f32]> + use<'a> {
        self.values.chunks_exact(self.width)
    }

    /// `count` rows from row `from`, fewer at the end.
    pub fn part(&self, from: usize, count: usize) -> Rows<'a> {
        let end = (from + count).min(self.len());
        Rows { values: &self.values[from.min(end) * self.width..end * self.width], width: self.width }
    }
}

/// Where the bytes of each feature lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    width: usize,
    /// Filled up with zeros to a multiple of [`GROUP`].
    least: Vec<f32>,
    /// Steps per unit.
    scale: Vec<f32>,
}

impl Grid {
    /// From the least to the greatest value of each column; without rows everything falls on the same byte.
    pub fn fit(rows: Rows<'_>) -> Self {
        let mut least = vec![f32::INFINITY; rows.width()];
        let mut greatest = vec![f32::NEG_INFINITY; rows.width()];
        for row in rows.iter() {
            for ((low, high), x) in least.iter_mut().zip(&mut greatest).zip(row) {
                if !x.is_nan() {
                    *low = low.min(x.clamp(-LARGEST, LARGEST));
                    *high = high.max(x.clamp(-LARGEST, LARGEST));
                }
            }
        }
        let scale = least.iter().zip(&greatest).map(|(low, high)| match high - low {
            width if width > 0.0 => STEPS / width,
            0.0 => STEEP,
            _ => 0.0,
        });
        let mut scale: Vec<f32> = scale.collect();
        least.iter_mut().for_each(|low| *low = if low.is_finite() { *low } else { 0.0 });
        for table in [&mut least, &mut scale] {
            table.resize(rows.width().next_multiple_of(GROUP), 0.0);
        }
        Self { width: rows.width(), least, scale }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// Tables as vectors expect them, and numbers that can be calculated with.
    pub(super) fn is_sound(&self) -> bool {
        if !(1..=usize::from(u8::MAX)).contains(&self.width) {
            return false;
        }
        let whole = self.width.next_multiple_of(GROUP);
        let tables = [&self.least, &self.scale];
        tables.iter().all(|table| table.len() == whole && table.iter().all(|x| !x.is_nan()))
    }

    /// The byte of value `x` of `feature`.
    pub fn byte(&self, feature: usize, x: f32) -> u8 {
        let step = (x - self.least[feature]) * self.scale[feature] + 1.5;
        // The conversion cuts off, and makes 0 of what is not a number.
        step.clamp(0.0, 255.0) as u8
    }

    /// The bytes of a row.
    pub(super) fn bytes<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = u8> + use<'a> {
        row.iter().enumerate().map(|(feature, x)| self.byte(feature, *x))
    }

    /// Fills the columns of a block with at most [`LANES`] rows of this width; what is behind the last row is
    /// unspecified. There is a column a feature.
    pub(super) fn bin(&self, isa: Isa, rows: Rows<'_>, block: &mut [Column]) {
        assert!(rows.width() == self.width && rows.len() <= LANES && block.len() == self.width);
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx2 {
            let whole = rows.len() / x86::ROWS * x86::ROWS;
            for first in (0..whole).step_by(x86::ROWS) {
                // SAFETY: the processor has AVX2, as an `Isa` says; rows, tables and columns were checked above.
                unsafe { x86::bin(self, rows, first, block) };
            }
            return self.bin_portable(rows, whole, block);
        }
        let _ = isa;
        self.bin_portable(rows, 0, block);
    }

    fn bin_portable(&self, rows: Rows<'_>, first: usize, block: &mut [Column]) {
        for i in first..rows.len() {
            for (feature, (x, column)) in rows.row(i).iter().zip(block.iter_mut()).enumerate() {
                column[i] = self.byte(feature, *x);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Column, GROUP, Grid, Rows};

    /// Rows that are turned into columns at a time: the bytes of a vector.
    pub(super) const ROWS: usize = 32;

    /// Rows `first..first + ROWS`.
    ///
    /// # Safety
    /// The processor has AVX2; the rows exist, are as wide as the grid, and there is a column a feature.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn bin(grid: &Grid, rows: Rows<'_>, first: usize, block: &mut [Column]) {
        for feature in (0..grid.width).step_by(GROUP) {
            let count = (grid.width - feature).min(GROUP);
            // SAFETY: `count` features from `feature` exist in every row.
            let mut turned = unsafe { steps(grid, rows, first, feature, count) };
            transpose(&mut turned);
            for (column, bytes) in block[feature..feature + count].iter_mut().zip(turned) {
                // SAFETY: 32 bytes from `first` are inside the column.
                unsafe { _mm256_storeu_si256(column.as_mut_ptr().add(first).cast(), bytes) };
            }
        }
    }

    /// Eight vectors; the four bytes of lane `f` of vector `k` are rows `4k..4k + 4` of feature `feature + f`.
    ///
    /// # Safety
    /// As [`bin`]; `count` features from `feature` are inside the rows.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn steps(grid: &Grid, rows: Rows<'_>, first: usize, feature: usize, count: usize) -> [__m256i; 8] {
        // SAFETY: grid tables are filled up to a multiple of eight; masked loads do not touch what is masked out.
        unsafe {
            let least = _mm256_loadu_ps(grid.least.as_ptr().add(feature));
            let scale = _mm256_loadu_ps(grid.scale.as_ptr().add(feature));
            let wanted = _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
            let (half, top) = (_mm256_set1_ps(1.5), _mm256_set1_ps(255.0));
            let byte = |row: usize| {
                let at = rows.values.as_ptr().add(row * grid.width + feature);
                let x = if count == GROUP { _mm256_loadu_ps(at) } else { _mm256_maskload_ps(at, wanted) };
                let step = _mm256_add_ps(_mm256_mul_ps(_mm256_sub_ps(x, least), scale), half);
                // Of a not-a-number and zero, zero: the second operand.
                let inside = _mm256_min_ps(_mm256_max_ps(step, _mm256_setzero_ps()), top);
                _mm256_cvttps_epi32(inside)
            };
            let mut out = [_mm256_setzero_si256(); 8];
            // Not `from_fn`: what is generic would not be compiled for these instructions.
            for (out, row) in out.iter_mut().zip((first..).step_by(4)) {
                let low = _mm256_or_si256(byte(row), _mm256_slli_epi32::<8>(byte(row + 1)));
                let high = _mm256_or_si256(byte(row + 2), _mm256_slli_epi32::<8>(byte(row + 3)));
                *out = _mm256_or_si256(low, _mm256_slli_epi32::<16>(high));
            }
            out
        }
    }

    /// Eight times eight 32-bit lanes: rows become columns.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn transpose(v: &mut [__m256i; 8]) {
        let pair = |a, b| (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let quad = |a, b| (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        let four = |v0, v1, v2, v3| {
            let ((a0, a1), (b0, b1)) = (pair(v0, v1), pair(v2, v3));
            let ((c0, c1), (c2, c3)) = (quad(a0, b0), quad(a1, b1));
            [c0, c1, c2, c3]
        };
        let low = four(v[0], v[1], v[2], v[3]);
        let high = four(v[4], v[5], v[6], v[7]);
        for i in 0..4 {
            v[i] = _mm256_permute2x128_si256::<0x20>(low[i], high[i]);
            v[i + 4] = _mm256_permute2x128_si256::<0x31>(low[i], high[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd_values(count: usize) -> Vec<f32> {
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE];
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u32
        };
        (0..count)
            .map(|_| match next() % 16 {
                0 => special[next() as usize % special.len()],
                1 => f32::from_bits(next() << 1),
                _ => next() as f32 / 1e9 - 1.0,
            })
            .collect()
    }

    #[test]
    fn all_instructions_give_the_same_bytes() {
        for width in [1, 3, 7, 8, 9, 26, 35] {
            let train = odd_values(width * 2 * LANES);
            let grid = Grid::fit(Rows::new(&train[width * 40..], width));
            for count in [0, 1, 31, 32, 33, LANES - 1, LANES] {
                let values = &train[..width * count];
                let rows = Rows::new(values, width);
                for isa in Isa::available() {
                    let mut block = vec![[0; LANES]; width];
                    grid.bin(isa, rows, &mut block);
                    for (i, row) in rows.iter().enumerate() {
                        for (feature, x) in row.iter().enumerate() {
                            assert_eq!(block[feature][i], grid.byte(feature, *x), "{isa:?} {width} {count} {x}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_range_of_training_fills_the_middle() {
        let values: Vec<f32> = (0..=252).flat_map(|i| [i as f32, 7.0, f32::NAN]).collect();
        let grid = Grid::fit(Rows::new(&values, 3));
        assert_eq!([0.0, 1.0, 252.0, -1.0, 253.0, 1e9].map(|x| grid.byte(0, x)), [1, 2, 253, 0, 254, 255]);
        assert_eq!([7.0, 6.999, 7.001, f32::NAN].map(|x| grid.byte(1, x)), [1, 0, 255, 0]);
        assert_eq!([-3.0, 9.0].map(|x| grid.byte(2, x)), [1, 1]);
    }

    #[test]
    fn rows_are_whole() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0];
        let rows = Rows::new(&values, 2);
        assert_eq!((rows.len(), rows.row(1)), (2, &values[2..4]));
        assert_eq!(rows.part(1, 9).len(), 1);
        assert!(Rows::new(&values, 0).is_empty() && rows.part(5, 1).is_empty());
    }
}
