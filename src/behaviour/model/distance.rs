//! Mahalanobis distance from the mean, on the principal components: how far out a record is where all features are
//! taken together, weighed by how much ordinary records vary that way.
//!
//! Directions in which records hardly vary would count without bound; none counts as if it varied less than a
//! thousandth of the direction in which they vary most.

use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linalg::traits::evd::EVDDecomposable;

use crate::trie::Isa;

use super::forest::Bytes;
use super::grid::{Column, LANES};

/// Least variance of a component, as a share of the largest.
const FLOOR: f64 = 1e-3;
/// Records that are computed side by side.
const SIDE: usize = 16;

/// Immutable.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Distance {
    isa: Isa,
    width: usize,
    mean: Vec<f32>,
    /// 1 / standard deviation; 1 where a feature does not vary.
    scale: Vec<f32>,
    /// Row `k`: component `k`, divided by its standard deviation.
    components: Vec<f32>,
}

/// Standardised features of the records that are computed side by side.
#[derive(Clone, Debug)]
pub(super) struct Scratch(Vec<[f32; SIDE]>);

impl Distance {
    /// From the records that `of` names. `None` when the decomposition fails.
    pub(super) fn train(data: Bytes<'_>, of: &[u32], isa: Isa) -> Option<Self> {
        let (d, n) = (data.width, of.len().max(1) as f64);
        let mut mean = vec![0f64; d];
        for row in of.iter().map(|i| data.row(*i)) {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x) / n);
        }
        let mut covariance = vec![0f64; d * d];
        let mut apart = vec![0f64; d];
        for row in of.iter().map(|i| data.row(*i)) {
            apart.iter_mut().zip(row).zip(&mean).for_each(|((a, x), m)| *a = f64::from(*x) - m);
            for (row, a) in covariance.chunks_exact_mut(d).zip(&apart) {
                row.iter_mut().zip(&apart).for_each(|(c, b)| *c += a * b / n);
            }
        }
        let scale: Vec<f64> = (0..d)
            .map(|i| match covariance[i * d + i] {
                variance if variance > 0.0 => 1.0 / variance.sqrt(),
                _ => 1.0,
            })
            .collect();
        let correlation: Vec<f64> =
            (0..d * d).map(|at| covariance[at] * scale[at / d] * scale[at % d]).collect();
        let components = whitening(d, correlation)?;
        let narrow = |values: &[f64]| values.iter().map(|v| *v as f32).collect();
        Some(Self { isa, width: d, mean: narrow(&mean), scale: narrow(&scale), components })
    }

    /// What [`Distance::parts`] gave.
    pub(super) fn from_parts(mean: Vec<f32>, scale: Vec<f32>, components: Vec<f32>, isa: Isa) -> Option<Self> {
        let width = mean.len();
        let fits = scale.len() == width && components.len() == width * width;
        fits.then_some(Self { isa, width, mean, scale, components })
    }

    /// Mean, scale, components.
    pub(super) fn parts(&self) -> (&[f32], &[f32], &[f32]) {
        (&self.mean, &self.scale, &self.components)
    }

    pub(super) fn scratch(&self) -> Scratch {
        Scratch(vec![[0.0; SIDE]; self.width])
    }

    /// ln(1 + squared distance) of the first `out.len()` records of a block.
    pub(super) fn score(&self, block: &[Column], scratch: &mut Scratch, out: &mut [f32]) {
        assert!(out.len() <= LANES && block.len() == self.width && scratch.0.len() == self.width);
        let z = &mut scratch.0[..];
        for (i, out) in out.chunks_mut(SIDE).enumerate() {
            let squares = match self.isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the processor has these instructions, as an `Isa` says.
                Isa::Avx512 => unsafe { squares_avx512(self, block, i * SIDE, z) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Isa::Avx2 => unsafe { squares_avx2(self, block, i * SIDE, z) },
                _ => squares(self, block, i * SIDE, z),
            };
            out.iter_mut().zip(squares).for_each(|(out, square)| *out = square.ln_1p());
        }
    }

    /// The share of each feature in the squared distance of `x`; they add up to it.
    pub(super) fn contributions(&self, x: &[u8]) -> Vec<f32> {
        let z: Vec<f32> =
            x.iter().zip(&self.mean).zip(&self.scale).map(|((x, m), s)| (f32::from(*x) - m) * s).collect();
        let mut sum = vec![0.0; self.width];
        for component in self.components.chunks_exact(self.width.max(1)) {
            let along: f32 = component.iter().zip(&z).map(|(c, z)| c * z).sum();
            sum.iter_mut().zip(component).zip(&z).for_each(|((sum, c), z)| *sum += along * c * z);
        }
        sum
    }
}

/// Eigenvectors of a symmetric matrix, each divided by the root of its (floored) eigenvalue, one a row.
fn whitening(d: usize, matrix: Vec<f64>) -> Option<Vec<f32>> {
    let matrix = DenseMatrix::new(d, d, matrix, false).ok()?;
    let found = matrix.evd(true).ok()?;
    let largest = found.d.iter().copied().fold(0.0, f64::max);
    let least = (FLOOR * largest).max(f64::MIN_POSITIVE);
    let mut components = Vec::with_capacity(d * d);
    for (k, variance) in found.d.iter().enumerate() {
        let deviation = variance.max(least).sqrt();
        components.extend((0..d).map(|j| (found.V.get((j, k)) / deviation) as f32));
    }
    components.iter().all(|c| c.is_finite()).then_some(components)
}

/// # Safety
/// The processor has AVX-512 F, BW, VL and DQ.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn squares_avx512(distance: &Distance, block: &[Column], first: usize, z: &mut [[f32; SIDE]]) -> [f32; SIDE] {
    squares(distance, block, first, z)
}

/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn squares_avx2(distance: &Distance, block: &[Column], first: usize, z: &mut [[f32; SIDE]]) -> [f32; SIDE] {
    squares(distance, block, first, z)
}

/// Squared distances of records `first..first + SIDE`. Sums run over features and components in order for each
/// record by itself, so that all instructions round alike.
#[inline(always)]
fn squares(distance: &Distance, block: &[Column], first: usize, z: &mut [[f32; SIDE]]) -> [f32; SIDE] {
    for (((z, column), mean), scale) in z.iter_mut().zip(block).zip(&distance.mean).zip(&distance.scale) {
        for (z, byte) in z.iter_mut().zip(&column[first..first + SIDE]) {
            *z = (f32::from(*byte) - mean) * scale;
        }
    }
    let mut sum = [0f32; SIDE];
    for component in distance.components.chunks_exact(distance.width.max(1)) {
        let mut along = [0f32; SIDE];
        for (c, z) in component.iter().zip(&*z) {
            along.iter_mut().zip(z).for_each(|(along, z)| *along += c * z);
        }
        sum.iter_mut().zip(along).for_each(|(sum, along)| *sum += along * along);
    }
    sum
}
