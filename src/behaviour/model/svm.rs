//! How far outside a boundary around training a record lies.
//!
//! A one-class support vector machine with a Gaussian kernel (Schölkopf, Platt, Shawe-Taylor, Smola, Williamson 2001;
//! solver: linfa-svm) on standardised bytes of the grid. Scoring asks each support vector, so it costs as much as there
//! are: about [`OUTSIDE`] of [`MOST`].

use linfa::Dataset;
use linfa::dataset::Pr;
use linfa::traits::Fit;

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use super::forest::Bytes;
use super::grid::{Column, LANES};

/// Most records that the boundary is drawn around.
pub(super) const MOST: usize = 2048;
/// Share of them that may lie outside (nu).
const OUTSIDE: f64 = 0.1;

/// Support vectors and their weights. Immutable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Svm {
    width: usize,
    /// One over the spread of each feature.
    scale: Vec<f32>,
    /// Scaled, row by row.
    vectors: Vec<f32>,
    weights: Vec<f32>,
    /// Of the exponent.
    gamma: f32,
    /// Sum of the kernel on the boundary.
    level: f32,
}

/// Memory of a run.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    scaled: Vec<[f32; LANES]>,
    apart: Box<[f32; LANES]>,
}

impl Svm {
    /// Around the records that `of` names; `None` when they are too few or nothing can be drawn.
    pub(super) fn train(data: Bytes<'_>, of: &[u32]) -> Option<Self> {
        let width = data.width;
        let scale: Vec<f32> = (0..width).map(|feature| 1.0 / spread(data, of, feature)).collect();
        let scaled = |i: &u32| data.row(*i).iter().zip(&scale).map(|(x, scale)| f64::from(f32::from(*x) * scale));
        let records = Array2::from_shape_vec((of.len(), width), of.iter().flat_map(scaled).collect()).ok()?;
        if of.len() < 2 * (1.0 / OUTSIDE) as usize {
            return None;
        }
        let dataset = Dataset::new(records, Array1::from_elem(of.len(), ()));
        let width_of_kernel = width as f64;
        let machine = linfa_svm::Svm::<f64, Pr>::params()
            .gaussian_kernel(width_of_kernel)
            .nu_weight(OUTSIDE)
            .fit(&dataset)
            .ok()?;
        let rows = dataset.records;
        let mut found = Self {
            width,
            scale,
            vectors: Vec::new(),
            weights: Vec::new(),
            gamma: (1.0 / width_of_kernel) as f32,
            level: machine.rho as f32,
        };
        for (weight, row) in machine.alpha.iter().zip(rows.rows()).filter(|(weight, _)| **weight > 0.0) {
            found.weights.push(*weight as f32);
            found.vectors.extend(row.iter().map(|x| *x as f32));
        }
        (found.level.is_finite() && !found.weights.is_empty()).then_some(found)
    }

    /// Whether it can score rows of this width.
    pub(super) fn is_sound(&self, width: usize) -> bool {
        let finite = self.vectors.iter().chain(&self.weights).chain(&self.scale).all(|x| x.is_finite());
        let fits = self.vectors.len() == width * self.weights.len() && self.scale.len() == width && self.width == width;
        finite && fits && self.gamma.is_finite() && self.level.is_finite()
    }

    pub(super) fn scratch(&self) -> Scratch {
        Scratch { scaled: vec![[0.0; LANES]; self.width], apart: Box::new([0.0; LANES]) }
    }

    /// Level minus sum of the kernel, 0 on the boundary and positive outside, for the first `out.len()` records.
    pub(super) fn score(&self, block: &[Column], scratch: &mut Scratch, out: &mut [f32]) {
        let Scratch { scaled, apart } = scratch;
        for ((scaled, column), scale) in scaled.iter_mut().zip(block).zip(&self.scale) {
            scaled.iter_mut().zip(column).for_each(|(scaled, byte)| *scaled = f32::from(*byte) * scale);
        }
        out.fill(self.level);
        for (vector, weight) in self.vectors.chunks_exact(self.width).zip(&self.weights) {
            apart.fill(0.0);
            for (place, scaled) in vector.iter().zip(&*scaled) {
                apart.iter_mut().zip(scaled).for_each(|(apart, x)| *apart += (x - place) * (x - place));
            }
            out.iter_mut().zip(apart.iter()).for_each(|(out, apart)| *out -= weight * (-self.gamma * apart).exp());
        }
    }

    /// How much each feature keeps a record from the support vectors: squared differences, weighted as they count, and
    /// alike where none is near.
    pub(super) fn contributions(&self, x: &[u8]) -> Vec<f32> {
        let x: Vec<f32> = x.iter().zip(&self.scale).map(|(byte, scale)| f32::from(*byte) * scale).collect();
        let squares = |vector: &[f32]| -> Vec<f32> { vector.iter().zip(&x).map(|(v, x)| (x - v) * (x - v)).collect() };
        let mut sum = vec![0.0; self.width];
        for (vector, weight) in self.vectors.chunks_exact(self.width).zip(&self.weights) {
            let squares = squares(vector);
            let near = (-self.gamma * squares.iter().sum::<f32>()).exp().max(f32::MIN_POSITIVE);
            sum.iter_mut().zip(squares).for_each(|(sum, square)| *sum += weight * near * square);
        }
        let whole: f32 = sum.iter().sum();
        sum.iter_mut().for_each(|part| *part = if whole > 0.0 { *part / whole } else { 0.0 });
        sum
    }
}

/// Standard deviation of the bytes of a feature, at least one.
fn spread(data: Bytes<'_>, of: &[u32], feature: usize) -> f32 {
    super::pca::moments(data, of, feature).1 as f32
}
