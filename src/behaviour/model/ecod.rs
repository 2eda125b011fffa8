//! How far out each feature is, one by one.
//!
//! The empirical tails of every feature (Li, Zhao, Hu, Botta, Ionescu, Chen: ECOD, IEEE TKDE 2022), learnt from the
//! records of training and then left alone: -ln of the share of records at or below a value, and at or above it. They are
//! summed over the features three times: all lower tails, all upper ones, and of each feature the one that its
//! distribution leans towards. The greatest of the three sums counts. It does not see how features go together, and is
//! for that reason not misled by how few records training had of a combination.

use serde::{Deserialize, Serialize};

use super::forest::Bytes;
use super::grid::{Column, LANES};

/// -ln p in whole steps, so that sums do not depend on their order.
const STEP: f64 = 1.0 / 1024.0;

/// Tails of each feature. Immutable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ecod {
    features: Vec<Tails>,
}

/// -ln p of every byte, lower and upper tail, in steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tails {
    lower: Vec<u16>,
    upper: Vec<u16>,
    /// The distribution has its long tail below.
    leans_low: bool,
}

/// Memory of a run: sums of lower, upper and leaning tails.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    sums: [Vec<u32>; 3],
}

impl Ecod {
    /// From the records that `of` names.
    pub(super) fn train(data: Bytes<'_>, of: &[u32]) -> Self {
        let features = (0..data.width).map(|feature| {
            let mut counts = [0u64; 256];
            of.iter().for_each(|i| counts[usize::from(data.row(*i)[feature])] += 1);
            Tails::of(&counts)
        });
        Self { features: features.collect() }
    }

    /// Whether it can score rows of this width.
    pub(super) fn is_sound(&self, width: usize) -> bool {
        self.features.len() == width && self.features.iter().all(|f| f.lower.len() == 256 && f.upper.len() == 256)
    }

    pub(super) fn scratch(&self) -> Scratch {
        Scratch { sums: std::array::from_fn(|_| vec![0; LANES]) }
    }

    /// The greatest sum of tails, for the first `out.len()` records of a block.
    pub(super) fn score(&self, block: &[Column], scratch: &mut Scratch, out: &mut [f32]) {
        let [lower, upper, leaning] = &mut scratch.sums;
        for sums in [&mut *lower, &mut *upper, &mut *leaning] {
            sums.fill(0);
        }
        for (tails, column) in self.features.iter().zip(block) {
            for (i, byte) in column.iter().enumerate().take(out.len()) {
                let [low, high] = tails.at(*byte);
                lower[i] += low;
                upper[i] += high;
                leaning[i] += if tails.leans_low { low } else { high };
            }
        }
        for (i, out) in out.iter_mut().enumerate() {
            *out = lower[i].max(upper[i]).max(leaning[i]) as f32 * STEP as f32;
        }
    }

    /// What each feature adds to the sum that counts.
    pub(super) fn contributions(&self, x: &[u8]) -> Vec<f32> {
        let tails: Vec<[u32; 2]> = self.features.iter().zip(x).map(|(tails, byte)| tails.at(*byte)).collect();
        let leaning = self.features.iter().zip(&tails).map(|(f, [low, high])| if f.leans_low { *low } else { *high });
        let sums: [Vec<u32>; 3] =
            [tails.iter().map(|t| t[0]).collect(), tails.iter().map(|t| t[1]).collect(), leaning.collect()];
        let most = sums.into_iter().max_by_key(|sum| sum.iter().sum::<u32>()).unwrap_or_default();
        most.into_iter().map(|steps| steps as f32 * STEP as f32).collect()
    }
}

impl Tails {
    fn of(counts: &[u64; 256]) -> Self {
        let total: u64 = counts.iter().sum();
        let steps = |count: u64| (-((count + 1) as f64 / (total + 2) as f64).ln() / STEP) as u16;
        let mut below = 0;
        let lower = counts.iter().map(|count| {
            below += count;
            steps(below)
        });
        let lower = lower.collect();
        let mut before = 0;
        let upper = counts.iter().map(|count| {
            before += count;
            steps(total - before + count)
        });
        Self { upper: upper.collect(), lower, leans_low: skewness(counts) < 0.0 }
    }

    fn at(&self, byte: u8) -> [u32; 2] {
        [&self.lower, &self.upper].map(|tail| tail.get(usize::from(byte)).copied().unwrap_or(0).into())
    }
}

/// Third central moment: its sign says where the long tail is.
fn skewness(counts: &[u64; 256]) -> f64 {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let moment = |of: &dyn Fn(f64) -> f64| {
        counts.iter().enumerate().map(|(byte, count)| of(byte as f64) * *count as f64).sum::<f64>() / total
    };
    let mean = moment(&|x| x);
    moment(&|x| (x - mean).powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(of: &Ecod, row: [u8; 2]) -> f32 {
        let block = row.map(|byte| [byte; LANES]);
        let mut out = [0.0; 3];
        of.score(&block, &mut of.scratch(), &mut out);
        out[2]
    }

    #[test]
    fn tails_are_shares_of_training() {
        // 99 values from 1 to 99, and one that is always the same.
        let rows: Vec<u8> = (1..100).flat_map(|x| [x, 7]).collect();
        let ecod = Ecod::train(Bytes { rows: &rows, width: 2 }, &(0..rows.len() as u32 / 2).collect::<Vec<_>>());
        let upper = |p: f64| -p.ln() as f32;
        // At or above 99: one of 99. The other feature is always at or above itself.
        assert!((score(&ecod, [99, 7]) - upper(2.0 / 101.0) - upper(100.0 / 101.0)).abs() < 0.01);
        assert!(score(&ecod, [255, 7]) > score(&ecod, [99, 7]));
        assert!(score(&ecod, [99, 8]) > score(&ecod, [99, 7]) + 4.0);
        // Low in one and high in the other are not one direction.
        assert!(score(&ecod, [99, 8]) > score(&ecod, [1, 8]));
    }

    #[test]
    fn contributions_add_up_to_the_score() {
        let rows: Vec<u8> = (0..200u8).flat_map(|x| [x, x.wrapping_mul(91) / 3]).collect();
        let ecod = Ecod::train(Bytes { rows: &rows, width: 2 }, &(0..rows.len() as u32 / 2).collect::<Vec<_>>());
        for row in [[0, 0], [255, 3], [3, 255], [100, 40]] {
            let parts = ecod.contributions(&row);
            assert!((parts.iter().sum::<f32>() - score(&ecod, row)).abs() < 1e-3, "{row:?} {parts:?}");
        }
    }

    #[test]
    fn many_features_and_records_do_not_overflow() {
        let most = -(1.0 / 1e12f64).ln() / STEP;
        assert!(most < f64::from(u16::MAX));
        let mut counts = [0; 256];
        counts[9] = 1_000_000_000_000;
        assert!(u64::from(Tails::of(&counts).at(200)[1]) <= most as u64 + 1);
    }
}
