//! Distance to the nearest neighbours in small samples of ordinary records.
//!
//! A forest asks how soon a record is cut off from the others; where ordinary records lie in narrow bands it misses
//! what is beside a band. Here the nearest record counts, in each of a few independent samples, and the mean over the
//! samples (Pang, Ting, Albrecht: LeSiNN, ICDM workshops 2015): a stray attack in one sample does not make all others
//! of its kind ordinary. Distance: sum of differences of the bytes of a grid.
//!
//! Layout: four records at a time, in pieces of eight features, so that one instruction (`vpsadbw`) sums the
//! differences of a piece for all four, and no sum across lanes is needed:
//!
//! ```text
//! piece 0 of records 0 1 2 3 │ piece 1 of records 0 1 2 3 │ … │ piece 0 of records 4 5 6 7 │ …
//! ```

use rand_core::SeedableRng;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};

use crate::trie::Isa;

use super::forest::{Bytes, draw};
use super::grid::LANES;

/// Independent samples.
pub(super) const SAMPLES: usize = 4;
/// Most records of a sample.
pub(super) const SAMPLE: usize = 1024;
/// Features of a piece.
const PIECE: usize = 8;
/// Records whose pieces lie side by side.
const SIDE: usize = 4;
/// Bytes of reference records that are compared with a whole block before the next ones: they stay in the
/// first-level cache.
const TILE: usize = 16 * 1024;

/// A forest has no notion of how far outside the range of training a value is, so here it counts: what is outside is
/// at least this far from what is inside.
const OUTSIDE: u16 = 24;
/// Bytes of the grid (1..=253 inside) → bytes whose difference is a distance.
const SPREAD: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 1;
    while byte < 256 {
        table[byte] = if byte > 253 { 255 } else { (OUTSIDE + (byte as u16 - 1) * (255 - 2 * OUTSIDE) / 252) as u8 };
        byte += 1;
    }
    table
};

/// Reference records. Immutable. Stored as rows; the rest follows from them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub(super) struct Neighbours {
    isa: Isa,
    width: usize,
    /// Pieces of a record.
    pieces: usize,
    /// Records of each sample, row by row.
    samples: Vec<Vec<u8>>,
    /// The same in the layout above.
    tiles: Vec<Vec<u64>>,
}

/// What is stored of the reference records.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    width: u32,
    samples: Vec<Vec<u8>>,
}

impl From<Neighbours> for Stored {
    fn from(neighbours: Neighbours) -> Self {
        Self { width: neighbours.width as u32, samples: neighbours.samples }
    }
}

impl TryFrom<Stored> for Neighbours {
    type Error = &'static str;

    fn try_from(Stored { width, samples }: Stored) -> Result<Self, Self::Error> {
        let width = width as usize;
        let whole = |rows: &Vec<u8>| rows.len().is_multiple_of(width) && rows.len() / width <= SAMPLE;
        if width == 0 || samples.len() != SAMPLES || !samples.iter().all(whole) {
            return Err("reference records that are none");
        }
        Ok(Self::from_samples(samples, width, Isa::best()))
    }
}

/// Memory of a run.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    /// Pieces of the records of a block.
    rows: Vec<u64>,
    nearest: Vec<u32>,
}

impl Neighbours {
    /// Draws the samples from the records that `of` names: half of them each, at most [`SAMPLE`].
    pub(super) fn train(data: Bytes<'_>, of: &[u32], seed: u64, isa: Isa) -> Self {
        let mut rng = Pcg32::seed_from_u64(seed);
        let mut order = of.to_vec();
        let count = of.len().div_ceil(2).min(SAMPLE);
        let samples = (0..SAMPLES).map(|_| {
            let chosen = draw(&mut order, count, &mut rng);
            chosen.iter().flat_map(|i| data.row(*i)).map(|byte| SPREAD[usize::from(*byte)]).collect()
        });
        Self::from_samples(samples.collect(), data.width, isa)
    }

    fn from_samples(samples: Vec<Vec<u8>>, width: usize, isa: Isa) -> Self {
        let tiles = samples.iter().map(|rows| interleave(rows, width)).collect();
        Self { isa, width, pieces: width.div_ceil(PIECE), samples, tiles }
    }

    /// Features of a record.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn scratch(&self) -> Scratch {
        Scratch { rows: vec![0; LANES * self.pieces], nearest: vec![0; LANES] }
    }

    /// Mean over the samples of ln(1 + least distance), for the first `out.len()` records of a block.
    pub(super) fn score(&self, block: &[[u8; LANES]], scratch: &mut Scratch, out: &mut [f32]) {
        assert!(out.len() <= LANES && block.len() == self.width);
        for (i, row) in scratch.rows.chunks_exact_mut(self.pieces).take(out.len()).enumerate() {
            for (piece, columns) in row.iter_mut().zip(block.chunks(PIECE)) {
                let spread = columns.iter().rev().map(|column| SPREAD[usize::from(column[i])]);
                *piece = spread.fold(0, |piece, byte| piece << 8 | u64::from(byte));
            }
        }
        out.fill(0.0);
        let nearest = &mut scratch.nearest[..out.len()];
        for tiles in self.tiles.iter().filter(|t| !t.is_empty()) {
            nearest.fill(u32::MAX);
            let rows = &scratch.rows[..out.len() * self.pieces];
            for tile in tiles.chunks((TILE / (SIDE * PIECE * self.pieces)).max(1) * SIDE * self.pieces) {
                self.compare(rows, tile, nearest);
            }
            for (out, nearest) in out.iter_mut().zip(&*nearest) {
                *out += (*nearest as f32).ln_1p() / SAMPLES as f32;
            }
        }
    }

    fn compare(&self, rows: &[u64], tile: &[u64], nearest: &mut [u32]) {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has AVX2, as an `Isa` says.
            Isa::Avx2 | Isa::Avx512 => unsafe { x86::compare(self.pieces, rows, tile, nearest) },
            _ => compare(self.pieces, rows, tile, nearest),
        }
    }

    /// How much each feature adds to the distance of `x` to its neighbours: the mean over the samples.
    pub(super) fn contributions(&self, x: &[u8]) -> Vec<f32> {
        let x: Vec<u8> = x.iter().map(|byte| SPREAD[usize::from(*byte)]).collect();
        let mut sum = vec![0.0; self.width];
        for rows in &self.samples {
            let apart = |row: &&[u8]| row.iter().zip(&x).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
            let Some(nearest) = rows.chunks_exact(self.width).min_by_key(apart) else { continue };
            for ((sum, a), b) in sum.iter_mut().zip(nearest).zip(&x) {
                *sum += f32::from(a.abs_diff(*b)) / SAMPLES as f32;
            }
        }
        sum
    }
}

/// Rows in the layout of tiles; places that are left over repeat the last row.
fn interleave(rows: &[u8], width: usize) -> Vec<u64> {
    let rows: Vec<&[u8]> = rows.chunks_exact(width.max(1)).collect();
    let piece = |row: &[u8], p: usize| {
        let bytes = row[p * PIECE..].iter().take(PIECE);
        bytes.rev().fold(0u64, |piece, byte| piece << 8 | u64::from(*byte))
    };
    let mut tiles = Vec::new();
    for four in rows.chunks(SIDE) {
        for p in 0..width.div_ceil(PIECE) {
            tiles.extend((0..SIDE).map(|k| piece(four[k.min(four.len() - 1)], p)));
        }
    }
    tiles
}

/// Lowers `nearest` of each row to its least distance to the records of a tile.
fn compare(pieces: usize, rows: &[u64], tile: &[u64], nearest: &mut [u32]) {
    for (row, nearest) in rows.chunks_exact(pieces).zip(nearest) {
        for four in tile.chunks_exact(SIDE * pieces) {
            let mut sums = [0u32; SIDE];
            for (x, side) in row.iter().zip(four.chunks_exact(SIDE)) {
                for (sum, y) in sums.iter_mut().zip(side) {
                    let apart = x.to_le_bytes().into_iter().zip(y.to_le_bytes()).map(|(a, b)| a.abs_diff(b));
                    *sum += apart.map(u32::from).sum::<u32>();
                }
            }
            *nearest = sums.into_iter().fold(*nearest, u32::min);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::SIDE;

    /// As [`super::compare`], with the number of pieces known where it is small.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn compare(pieces: usize, rows: &[u64], tile: &[u64], nearest: &mut [u32]) {
        match pieces {
            1 => few::<1>(rows, tile, nearest),
            2 => few::<2>(rows, tile, nearest),
            3 => few::<3>(rows, tile, nearest),
            4 => few::<4>(rows, tile, nearest),
            5 => few::<5>(rows, tile, nearest),
            6 => few::<6>(rows, tile, nearest),
            _ => super::compare(pieces, rows, tile, nearest),
        }
    }

    #[target_feature(enable = "avx2")]
    fn few<const PIECES: usize>(rows: &[u64], tile: &[u64], nearest: &mut [u32]) {
        for (row, nearest) in rows.as_chunks::<PIECES>().0.iter().zip(nearest) {
            let mut x = [_mm256_setzero_si256(); PIECES];
            for (x, piece) in x.iter_mut().zip(row) {
                *x = _mm256_set1_epi64x(*piece as i64);
            }
            let mut least = _mm256_set1_epi64x(i64::from(*nearest));
            let mut four = tile.as_chunks::<SIDE>().0;
            while four.len() >= PIECES {
                let (mine, rest) = four.split_at(PIECES);
                four = rest;
                let mut sum = _mm256_setzero_si256();
                for (x, side) in x.iter().zip(mine) {
                    // SAFETY: four words are the 32 bytes of a vector.
                    let side = unsafe { _mm256_loadu_si256(side.as_ptr().cast()) };
                    sum = _mm256_add_epi64(sum, _mm256_sad_epu8(*x, side));
                }
                // Sums are below 2^32, so the upper halves are zero.
                least = _mm256_min_epu32(least, sum);
            }
            let half = _mm_min_epu32(_mm256_castsi256_si128(least), _mm256_extracti128_si256::<1>(least));
            let one = _mm_min_epu32(half, _mm_unpackhi_epi64(half, half));
            *nearest = _mm_cvtsi128_si32(one) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::model::forest::below;

    #[test]
    fn all_instructions_find_the_nearest() {
        let mut rng = Pcg32::seed_from_u64(3);
        for width in [1, 3, 8, 9, 26, 35, 60] {
            let rows: Vec<u8> = (0..width * 99).map(|_| below(&mut rng, 256) as u8).collect();
            let of: Vec<u32> = (0..99).collect();
            for isa in Isa::available() {
                let member = Neighbours::train(Bytes { rows: &rows, width }, &of, 4, isa);
                assert!(member.samples.len() == SAMPLES && member.samples.iter().all(|s| s.len() == 50 * width));
                let mut block = vec![[0; LANES]; width];
                block.iter_mut().flatten().for_each(|byte| *byte = below(&mut rng, 256) as u8);
                let mut out = [0.0; 70];
                member.score(&block, &mut member.scratch(), &mut out);
                for (i, got) in out.iter().enumerate() {
                    let x: Vec<u8> = block.iter().map(|column| column[i]).collect();
                    let spread: Vec<u8> = x.iter().map(|byte| SPREAD[usize::from(*byte)]).collect();
                    let apart =
                        |row: &[u8]| row.iter().zip(&spread).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
                    let least = member.samples.iter().map(|s| s.chunks(width).map(apart).min().unwrap_or(0) as f32);
                    let want = least.clone().map(f32::ln_1p).sum::<f32>() / SAMPLES as f32;
                    assert!((want - got).abs() < 1e-4, "{isa:?} {width}: {want} {got}");
                    let parts: f32 = member.contributions(&x).iter().sum();
                    assert!((parts - least.sum::<f32>() / SAMPLES as f32).abs() < 0.1);
                }
            }
        }
    }

    #[test]
    fn without_records_nothing_is_far() {
        let member = Neighbours::train(Bytes { rows: &[], width: 5 }, &[], 1, Isa::best());
        let mut out = [9.0; 3];
        member.score(&[[200; LANES]; 5], &mut member.scratch(), &mut out);
        assert_eq!(out, [0.0; 3]);
        assert_eq!(member.contributions(&[200; 5]), [0.0; 5]);
    }
}
