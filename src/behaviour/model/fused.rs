//! The model: a grid, three members that look at a record in different ways, and one score out of them.
//!
//! ```text
//! row ─► grid ─► block ─┬► forest      how soon it is cut off from others     ─► -ln p ─┐ 1
//!                       ├► distance    how far out, all features together     ─► -ln p ─┼ 1 ─► mean ─► calibrated
//!                       └► neighbours  how far from the nearest ordinary one  ─► -ln p ─┘ 2         0..1
//! ```
//! Members are made comparable by what they say of records that they were not trained on ([`Tail`]); the weights are
//! fixed. The most unusual records of training, by the forest, do not become the reference of the other two: a
//! cluster of attacks would be its own neighbour, where the forest, from small samples, sees it stand apart.

use rand_core::SeedableRng;
use rand_pcg::Pcg32;

use crate::trie::Isa;

use super::calibrate::Calibration;
use super::distance::{self, Distance};
use super::forest::{Bytes, Forest, draw};
use super::grid::{Column, Grid, LANES, Rows};
use super::kernel;
use super::neighbours::{self, Neighbours};
use super::tail::Tail;

/// Forest, distance, neighbours.
const WEIGHTS: [f32; MEMBERS] = [1.0, 1.0, 2.0];
const MEMBERS: usize = 3;
/// Most records that the score is calibrated on.
const CALIBRATED: usize = 8192;
/// Below this number of records the same ones train and calibrate.
const FEW: usize = 32;

/// How a model is trained.
#[derive(Clone, Copy, Debug)]
pub struct Training {
    pub trees: usize,
    /// Records of each tree.
    pub sample: usize,
    /// Share of the records taken to be unusual, 0..1.
    pub contamination: f64,
    pub seed: u64,
    pub isa: Isa,
}

/// A trained model. Immutable; scoring takes `&self`.
#[derive(Clone, Debug)]
pub struct Model {
    pub(super) grid: Grid,
    pub(super) forest: Forest,
    pub(super) distance: Option<Distance>,
    pub(super) neighbours: Neighbours,
    pub(super) tails: [Tail; MEMBERS],
    pub(super) calibration: Calibration,
    pub(super) isa: Isa,
}

/// Memory of a run; one for each thread.
#[derive(Clone, Debug)]
pub struct Scratch {
    block: Vec<Column>,
    forest: kernel::Scratch,
    distance: Option<distance::Scratch>,
    neighbours: neighbours::Scratch,
    scores: [Vec<f32>; MEMBERS],
}

impl Model {
    /// The same rows, settings and seed give the same model. A model of no rows finds nothing unusual.
    pub fn train(rows: Rows<'_>, with: &Training) -> Self {
        let grid = Grid::fit(rows);
        let bytes: Vec<u8> = rows.iter().flat_map(|row| grid.bytes(row)).collect();
        let data = Bytes { rows: &bytes, width: rows.width() };
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        let forest = Forest::train(data, &all, with.trees, with.sample, with.seed, with.isa);
        let (reference, calibrating) = divide(rows, &grid, &forest, with);
        let distance = Distance::train(data, &reference, with.isa);
        let neighbours = Neighbours::train(data, &reference, with.seed, with.isa);
        let tails = std::array::from_fn(|_| Tail::fit(&[]));
        let calibration = Calibration::fit(&[], with.contamination);
        let mut model = Self { grid, forest, distance, neighbours, tails, calibration, isa: with.isa };
        model.calibrate(rows, &calibrating, with.contamination);
        model
    }

    fn calibrate(&mut self, rows: Rows<'_>, of: &[u32], contamination: f64) {
        let values: Vec<f32> = of.iter().flat_map(|i| rows.row(*i as usize)).copied().collect();
        let rows = Rows::new(&values, rows.width());
        let mut scratch = self.scratch();
        let mut members: [Vec<f32>; MEMBERS] = Default::default();
        for from in (0..rows.len()).step_by(LANES) {
            let part = rows.part(from, LANES);
            self.members(part, &mut scratch);
            for (all, some) in members.iter_mut().zip(&scratch.scores) {
                all.extend_from_slice(&some[..part.len()]);
            }
        }
        self.tails = std::array::from_fn(|m| Tail::fit(&members[m]));
        let mut raw = vec![0.0; rows.len()];
        self.score(rows, &mut scratch, &mut raw);
        self.calibration = Calibration::fit(&raw, contamination);
    }

    pub fn scratch(&self) -> Scratch {
        Scratch {
            block: vec![[0; LANES]; self.grid.width()],
            forest: self.forest.scratch(),
            distance: self.distance.as_ref().map(Distance::scratch),
            neighbours: self.neighbours.scratch(),
            scores: std::array::from_fn(|_| vec![0.0; LANES]),
        }
    }

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.grid.width()
    }

    /// From raw scores to shares of ordinary traffic.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Raw scores, 0..1: `m / (1 + m)` of the mean measure `m` of the members. Rows are as wide as the model.
    pub fn score(&self, rows: Rows<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        for (i, out) in out[..rows.len()].chunks_mut(LANES).enumerate() {
            self.members(rows.part(i * LANES, LANES), scratch);
            for (k, out) in out.iter_mut().enumerate() {
                let members = std::array::from_fn(|m| scratch.scores[m][k]);
                let mean: f32 = self.measures(members).iter().sum();
                *out = mean / (1.0 + mean);
            }
        }
    }

    /// Scores of the forest alone, 0..1 (`2^(-path / c)`).
    pub fn score_forest(&self, rows: Rows<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        for (i, out) in out[..rows.len()].chunks_mut(LANES).enumerate() {
            self.grid.bin(self.isa, rows.part(i * LANES, LANES), &mut scratch.block);
            self.forest.score(&scratch.block, &mut scratch.forest, out);
        }
    }

    /// How much each feature adds to the mean measure of a row, which is what they add up to. A member's measure is
    /// divided among the features that make the record unusual to it, in proportion.
    pub fn contributions(&self, row: &[f32]) -> Vec<f32> {
        let x: Vec<u8> = self.grid.bytes(row).collect();
        let mut scratch = self.scratch();
        self.members(Rows::new(row, self.width()), &mut scratch);
        let measures = self.measures(std::array::from_fn(|m| scratch.scores[m][0]));
        let shares = [
            self.forest.contributions(&x),
            self.distance.as_ref().map_or_else(|| vec![0.0; self.width()], |d| d.contributions(&x)),
            self.neighbours.contributions(&x),
        ];
        let mut sum = vec![0.0; self.width()];
        for (measure, share) in measures.into_iter().zip(shares) {
            let whole: f32 = share.iter().map(|s| s.max(0.0)).sum();
            for (sum, share) in sum.iter_mut().zip(share) {
                *sum += if whole > 0.0 { measure * share.max(0.0) / whole } else { measure / self.width() as f32 };
            }
        }
        sum
    }

    /// Scores of all members for at most a block of rows, into `scratch.scores`.
    fn members(&self, rows: Rows<'_>, scratch: &mut Scratch) {
        let Scratch { block, forest, distance, neighbours, scores } = scratch;
        let [by_forest, by_distance, by_neighbours] = scores;
        let n = rows.len();
        self.grid.bin(self.isa, rows, block);
        self.forest.score(block, forest, &mut by_forest[..n]);
        if let (Some(member), Some(scratch)) = (&self.distance, distance) {
            member.score(block, scratch, &mut by_distance[..n]);
        }
        self.neighbours.score(block, neighbours, &mut by_neighbours[..n]);
    }

    /// Each member's part of the mean measure.
    fn measures(&self, scores: [f32; MEMBERS]) -> [f32; MEMBERS] {
        let all: f32 = WEIGHTS.iter().sum();
        std::array::from_fn(|m| self.tails[m].measure(scores[m]) * WEIGHTS[m] / all)
    }
}

/// Rows that are the reference of distance and neighbours, and rows to calibrate on: halves, drawn at random; without
/// the share of most unusual ones the first.
fn divide(rows: Rows<'_>, grid: &Grid, forest: &Forest, with: &Training) -> (Vec<u32>, Vec<u32>) {
    let n = rows.len();
    let mut scores = vec![0.0; n];
    let mut block = vec![[0; LANES]; rows.width()];
    let mut scratch = forest.scratch();
    for (i, out) in scores.chunks_mut(LANES).enumerate() {
        grid.bin(with.isa, rows.part(i * LANES, LANES), &mut block);
        forest.score(&block, &mut scratch, out);
    }
    let mut sorted = scores.clone();
    sorted.sort_by(f32::total_cmp);
    let kept = ((n as f64 * (1.0 - with.contamination.clamp(0.0, 0.5))).ceil() as usize).clamp(1, n.max(1));
    let limit = sorted.get(kept - 1).copied().unwrap_or(1.0);
    let mut order: Vec<u32> = (0..n as u32).collect();
    draw(&mut order, n, &mut Pcg32::seed_from_u64(with.seed));
    let (reference, calibrating) = if n < FEW { (&order[..], &order[..]) } else { order.split_at(n / 2) };
    let reference = reference.iter().copied().filter(|i| scores[*i as usize] <= limit);
    (reference.collect(), calibrating[..calibrating.len().min(CALIBRATED)].to_vec())
}
