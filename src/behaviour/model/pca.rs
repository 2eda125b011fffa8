//! How far a record is from the middle of training, measured in the directions in which training spreads.
//!
//! Mahalanobis distance on the principal components (Shyu, Chen, Sarinnapakorn, Chang: A novel anomaly detection scheme
//! based on principal component classifier, 2003) of standardised bytes of the grid; a component that spreads less than
//! [`FLOOR`] of the mean one counts as if it spread that much.

use serde::{Deserialize, Serialize};
use smartcore::decomposition::pca::{PCA, PCAParameters};
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;

use super::forest::Bytes;
use super::grid::{Column, LANES};

/// Least spread of a component, as a share of the mean.
const FLOOR: f64 = 1e-4;
/// Most records that the components are found from.
pub(super) const MOST: usize = 8192;

/// Where the middle is, and the directions. Immutable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pca {
    middle: Vec<f32>,
    /// Row by row, a row a component: what a byte away from the middle adds to it, in units of its spread.
    components: Vec<f32>,
}

/// Memory of a run.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    away: Vec<[f32; LANES]>,
    along: Box<[f32; LANES]>,
}

impl Pca {
    /// From the records that `of` names; `None` when there are too few to say.
    pub(super) fn train(data: Bytes<'_>, of: &[u32]) -> Option<Self> {
        let width = data.width;
        if of.len() <= width {
            return None;
        }
        let moments: Vec<(f64, f64)> = (0..width).map(|feature| moments(data, of, feature)).collect();
        let standard = |i: &u32| -> Vec<f64> {
            data.row(*i).iter().zip(&moments).map(|(x, (mean, spread))| (f64::from(*x) - mean) / spread).collect()
        };
        let rows: Vec<Vec<f64>> = of.iter().map(standard).collect();
        let matrix = DenseMatrix::from_2d_vec(&rows).ok()?;
        let parameters = PCAParameters::default().with_n_components(width);
        let found = PCA::fit(&matrix, parameters).ok()?;
        let directions = found.components();
        let along =
            |row: &[f64], k: usize| row.iter().enumerate().map(|(j, x)| x * directions.get((j, k))).sum::<f64>();
        let variance = |k: usize| rows.iter().map(|row| along(row, k).powi(2)).sum::<f64>() / rows.len() as f64;
        let variances: Vec<f64> = (0..width).map(variance).collect();
        let least = FLOOR * variances.iter().sum::<f64>() / width as f64;
        let components = variances.iter().enumerate().flat_map(|(k, variance)| {
            let spread = variance.max(least).max(f64::MIN_POSITIVE).sqrt();
            moments.iter().enumerate().map(move |(j, m)| (directions.get((j, k)) / (m.1 * spread)) as f32)
        });
        let components: Vec<f32> = components.collect();
        let middle = moments.iter().map(|(mean, _)| *mean as f32).collect();
        components.iter().all(|c| c.is_finite()).then_some(Self { middle, components })
    }

    /// Whether it can score rows of this width.
    pub(super) fn is_sound(&self, width: usize) -> bool {
        let finite = self.middle.iter().chain(&self.components).all(|x| x.is_finite());
        finite && self.middle.len() == width && self.components.len() == width * width
    }

    pub(super) fn scratch(&self) -> Scratch {
        Scratch { away: vec![[0.0; LANES]; self.middle.len()], along: Box::new([0.0; LANES]) }
    }

    /// ln(1 + squared distance), for the first `out.len()` records of a block.
    pub(super) fn score(&self, block: &[Column], scratch: &mut Scratch, out: &mut [f32]) {
        let Scratch { away, along } = scratch;
        for ((away, column), middle) in away.iter_mut().zip(block).zip(&self.middle) {
            away.iter_mut().zip(column).for_each(|(away, byte)| *away = f32::from(*byte) - middle);
        }
        out.fill(0.0);
        for component in self.components.chunks_exact(self.middle.len()) {
            along.fill(0.0);
            for (part, away) in component.iter().zip(&*away) {
                along.iter_mut().zip(away).for_each(|(along, away)| *along += part * away);
            }
            out.iter_mut().zip(along.iter()).for_each(|(out, along)| *out += along * along);
        }
        out.iter_mut().for_each(|out| *out = out.ln_1p());
    }

    /// What each feature adds to the squared distance; what brings a record nearer is negative.
    pub(super) fn contributions(&self, x: &[u8]) -> Vec<f32> {
        let away: Vec<f32> = x.iter().zip(&self.middle).map(|(byte, middle)| f32::from(*byte) - middle).collect();
        let mut sum = vec![0.0; away.len()];
        for component in self.components.chunks_exact(self.middle.len()) {
            let along: f32 = component.iter().zip(&away).map(|(part, away)| part * away).sum();
            for ((sum, part), away) in sum.iter_mut().zip(component).zip(&away) {
                *sum += along * part * away;
            }
        }
        sum
    }
}

/// Mean and standard deviation of the bytes of a feature, the latter at least one.
pub(super) fn moments(data: Bytes<'_>, of: &[u32], feature: usize) -> (f64, f64) {
    let values = || of.iter().map(|i| f64::from(data.row(*i)[feature]));
    let mean = values().sum::<f64>() / of.len() as f64;
    let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / of.len() as f64;
    (mean, variance.sqrt().max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two features that go together, the second half as wide, and one that is constant.
    fn trained() -> Pca {
        let rows: Vec<u8> = (0..4000u32)
            .flat_map(|i| {
                let x = (i * 7919 % 200) as u8;
                [20 + x, 60 + x / 2 + (i * 31 % 5) as u8, 9]
            })
            .collect();
        let all: Vec<u32> = (0..4000).collect();
        Pca::train(Bytes { rows: &rows, width: 3 }, &all).expect("there are more rows than features")
    }

    fn score(of: &Pca, row: [u8; 3]) -> f32 {
        let block = row.map(|byte| [byte; LANES]);
        let mut out = [0.0; 2];
        of.score(&block, &mut of.scratch(), &mut out);
        out[1]
    }

    #[test]
    fn what_breaks_a_relation_is_further_than_what_follows_it() {
        let pca = trained();
        let (middle, end, apart) = ([120, 112, 9], [218, 161, 9], [218, 62, 9]);
        assert!(score(&pca, middle) < score(&pca, end));
        assert!(score(&pca, apart) > score(&pca, end) + 1.0);
        assert!(score(&pca, [120, 112, 10]) > score(&pca, middle) + 1.0, "a constant that changed");
    }

    #[test]
    fn contributions_add_up_to_the_distance() {
        let pca = trained();
        for row in [[0, 0, 0], [255, 0, 9], [120, 112, 9]] {
            let parts = pca.contributions(&row);
            let whole = score(&pca, row).exp_m1();
            assert!((parts.iter().sum::<f32>() - whole).abs() < 1e-3 * whole.max(1.0), "{row:?} {parts:?} {whole}");
        }
        let parts = pca.contributions(&[120, 112, 255]);
        assert!(parts[2] > parts[0].abs() + parts[1].abs());
    }

    #[test]
    fn few_rows_are_no_model() {
        assert!(Pca::train(Bytes { rows: &[1, 2, 3], width: 3 }, &[0]).is_none());
        let same = [5u8; 60];
        let all: Vec<u32> = (0..20).collect();
        let pca = Pca::train(Bytes { rows: &same, width: 3 }, &all);
        assert!(pca.is_none_or(|p| score(&p, [5, 5, 5]).abs() < 1e-3));
    }
}
