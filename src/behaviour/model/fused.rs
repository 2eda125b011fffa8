//! The model: a grid, members that look at a record in different ways, and one score out of them.
//!
//! ```text
//! row ─► grid ─► block ─┬► forest      how soon it is cut off from others     ─► -ln p ─┬► root mean ─► calibrated
//!                       ├► neighbours  how far from the nearest ordinary one  ─► -ln p ─┤    square      0..1
//!                       ├► ecod        how far out each feature is            ─► -ln p ─┤
//!                       └► pca, svm    where asked for                        ─► -ln p ─┘
//! ```
//! Members are made comparable by what they say of records that they were not trained on ([`Tail`]). A root mean
//! square lets the one that is sure outweigh the one that sees nothing, and counts both where they agree. Records of
//! training that the forest sees stand apart do not become neighbours: a cluster of attacks would be its own
//! neighbour, where the forest, from small samples, sees it stand apart.

use rand_core::SeedableRng;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};

use crate::trie::Isa;

use super::calibrate::Calibration;
use super::ecod::{self, Ecod};
use super::forest::{Bytes, Forest, draw};
use super::grid::{Column, Grid, LANES, Rows};
use super::kernel;
use super::member::{Member, Members};
use super::neighbours::{self, Neighbours};
use super::pca::{self, Pca};
use super::svm::{self, Svm};
use super::tail::Tail;

/// Members beside the forest count from so many records of training on. In fewer most of what is ordinary is still far
/// from all that was seen: in generated traffic, of the harmless records that followed a warm-up of 742, 29 % were as
/// unusual as "one in a hundred" to forest and neighbours, to the forest alone 3 %; after a warm-up of 1,950 it was 5 %
/// and 3 %.
const DENSE: usize = 2048;
/// Most records that the score is calibrated on.
const CALIBRATED: usize = 8192;
/// Records of training below this score of the forest are taken for ordinary: they are cut off after no less than half
/// the expected number of splits.
const ISOLATED: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// Below this number of records the same ones train and calibrate.
const FEW: usize = 32;

/// How a model is trained.
#[derive(Clone, Copy, Debug)]
pub struct Training {
    pub members: Members,
    pub trees: usize,
    /// Records of each tree.
    pub sample: usize,
    /// Share of the records taken to be unusual, 0..1.
    pub contamination: f64,
    pub seed: u64,
    pub isa: Isa,
}

/// A trained model. Immutable; scoring takes `&self`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Model {
    pub(super) grid: Grid,
    pub(super) forest: Forest,
    pub(super) neighbours: Option<Neighbours>,
    pub(super) ecod: Option<Ecod>,
    pub(super) pca: Option<Pca>,
    pub(super) svm: Option<Svm>,
    /// What members say, made comparable, in the order of [`Member::ALL`].
    pub(super) tails: [Tail; Member::COUNT],
    /// Of the squares of what members say; 0 for one that does not take part.
    pub(super) weights: [f32; Member::COUNT],
    pub(super) calibration: Calibration,
    #[serde(skip, default = "Isa::best")]
    pub(super) isa: Isa,
}

/// Memory of a run; one for each thread.
#[derive(Clone, Debug)]
pub struct Scratch {
    block: Vec<Column>,
    forest: kernel::Scratch,
    neighbours: Option<neighbours::Scratch>,
    ecod: Option<ecod::Scratch>,
    pca: Option<pca::Scratch>,
    svm: Option<svm::Scratch>,
    scores: [Vec<f32>; Member::COUNT],
}

impl Model {
    /// The same rows, settings and seed give the same model. A model of no rows finds nothing unusual. A member that
    /// the rows do not suffice for is left out.
    pub fn train(rows: Rows<'_>, with: &Training) -> Self {
        let grid = Grid::fit(rows);
        let bytes: Vec<u8> = rows.iter().flat_map(|row| grid.bytes(row)).collect();
        let data = Bytes { rows: &bytes, width: rows.width() };
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        let forest = Forest::train(data, &all, with.trees, with.sample, with.seed, with.isa);
        let (reference, calibrating) = divide(rows, &grid, &forest, with);
        let wants = |member| with.members.contains(member) && rows.len() >= DENSE;
        let most = |count: usize| &reference[..reference.len().min(count)];
        let mut model = Self {
            neighbours: wants(Member::Neighbours).then(|| Neighbours::train(data, &reference, with.seed, with.isa)),
            ecod: wants(Member::Ecod).then(|| Ecod::train(data, &reference)),
            pca: wants(Member::Pca).then(|| Pca::train(data, most(pca::MOST))).flatten(),
            svm: wants(Member::Svm).then(|| Svm::train(data, most(svm::MOST))).flatten(),
            tails: std::array::from_fn(|_| Tail::fit(&[])),
            weights: [0.0; Member::COUNT],
            calibration: Calibration::fit(&[], with.contamination),
            grid,
            forest,
            isa: with.isa,
        };
        model.weights = Members::from_iter(with.members.iter().filter(|member| model.has(*member))).weights();
        model.calibrate(rows, &calibrating, with.contamination);
        model
    }

    fn has(&self, member: Member) -> bool {
        match member {
            Member::Forest => true,
            Member::Neighbours => self.neighbours.is_some(),
            Member::Ecod => self.ecod.is_some(),
            Member::Pca => self.pca.is_some(),
            Member::Svm => self.svm.is_some(),
        }
    }

    /// Those that take part in the score.
    pub fn members(&self) -> Members {
        Member::ALL.into_iter().filter(|member| self.weights[*member as usize] > 0.0).collect()
    }

    fn calibrate(&mut self, rows: Rows<'_>, of: &[u32], contamination: f64) {
        let values: Vec<f32> = of.iter().flat_map(|i| rows.row(*i as usize)).copied().collect();
        let rows = Rows::new(&values, rows.width());
        let mut scratch = self.scratch();
        let mut members: [Vec<f32>; Member::COUNT] = Default::default();
        for from in (0..rows.len()).step_by(LANES) {
            let part = rows.part(from, LANES);
            self.look(part, &mut scratch);
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
            neighbours: self.neighbours.as_ref().map(Neighbours::scratch),
            ecod: self.ecod.as_ref().map(Ecod::scratch),
            pca: self.pca.as_ref().map(Pca::scratch),
            svm: self.svm.as_ref().map(Svm::scratch),
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

    /// Raw scores, 0..1: `m / (1 + m)` of the joint measure `m` of the members. Rows are as wide as the model.
    pub fn score(&self, rows: Rows<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        for (i, out) in out[..rows.len()].chunks_mut(LANES).enumerate() {
            self.look(rows.part(i * LANES, LANES), scratch);
            for (k, out) in out.iter_mut().enumerate() {
                let joint = self.joint(self.measures(scratch, k));
                *out = joint / (1.0 + joint);
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

    /// How much each feature adds to the joint measure of a row, which is what they add up to. The measure is divided
    /// between the members by their squares, and a member's part, in proportion, among the features that make the
    /// record unusual to it.
    pub fn contributions(&self, row: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        self.look(Rows::new(row, self.width()), scratch);
        let measures = self.measures(scratch, 0);
        let joint = self.joint(measures);
        let x: Vec<u8> = self.grid.bytes(row).collect();
        let mut sum = vec![0.0; self.width()];
        for member in self.members().iter() {
            let (measure, weight) = (measures[member as usize], self.weights[member as usize]);
            let share = self.shares(member, &x);
            let part = if joint > 0.0 { weight * measure * measure / joint } else { 0.0 };
            let whole: f32 = share.iter().map(|s| s.max(0.0)).sum();
            for (sum, share) in sum.iter_mut().zip(share) {
                *sum += if whole > 0.0 { part * share.max(0.0) / whole } else { part / self.width() as f32 };
            }
        }
        sum
    }

    /// What each feature is to a member that takes part.
    fn shares(&self, member: Member, x: &[u8]) -> Vec<f32> {
        let shares = match member {
            Member::Forest => Some(self.forest.contributions(x)),
            Member::Neighbours => self.neighbours.as_ref().map(|m| m.contributions(x)),
            Member::Ecod => self.ecod.as_ref().map(|m| m.contributions(x)),
            Member::Pca => self.pca.as_ref().map(|m| m.contributions(x)),
            Member::Svm => self.svm.as_ref().map(|m| m.contributions(x)),
        };
        shares.unwrap_or_else(|| vec![0.0; self.width()])
    }

    /// Scores of all members for at most a block of rows, into `scratch.scores`.
    fn look(&self, rows: Rows<'_>, scratch: &mut Scratch) {
        let Scratch { block, forest, neighbours, ecod, pca, svm, scores } = scratch;
        let [by_forest, by_neighbours, by_ecod, by_pca, by_svm] = scores.each_mut().map(|s| &mut s[..rows.len()]);
        self.grid.bin(self.isa, rows, block);
        if self.weights[Member::Forest as usize] > 0.0 {
            self.forest.score(block, forest, by_forest);
        }
        if let (Some(member), Some(scratch)) = (&self.neighbours, neighbours) {
            member.score(block, scratch, by_neighbours);
        }
        if let (Some(member), Some(scratch)) = (&self.ecod, ecod) {
            member.score(block, scratch, by_ecod);
        }
        if let (Some(member), Some(scratch)) = (&self.pca, pca) {
            member.score(block, scratch, by_pca);
        }
        if let (Some(member), Some(scratch)) = (&self.svm, svm) {
            member.score(block, scratch, by_svm);
        }
    }

    /// What each member says of the `k`-th record that was scored last.
    fn measures(&self, scratch: &Scratch, k: usize) -> [f32; Member::COUNT] {
        std::array::from_fn(|m| if self.weights[m] > 0.0 { self.tails[m].measure(scratch.scores[m][k]) } else { 0.0 })
    }

    /// Weighted root mean square.
    fn joint(&self, measures: [f32; Member::COUNT]) -> f32 {
        measures.iter().zip(self.weights).map(|(m, weight)| weight * m * m).sum::<f32>().sqrt()
    }
}

/// Rows that are the reference of the neighbours, and rows to calibrate on: halves, drawn at random; without
/// the share of most unusual ones the first, as far as they stand apart.
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
    let limit = sorted.get(kept - 1).copied().unwrap_or(1.0).max(ISOLATED);
    let mut order: Vec<u32> = (0..n as u32).collect();
    draw(&mut order, n, &mut Pcg32::seed_from_u64(with.seed));
    let (reference, calibrating) = if n < FEW { (&order[..], &order[..]) } else { order.split_at(n / 2) };
    let reference = reference.iter().copied().filter(|i| scores[*i as usize] <= limit);
    (reference.collect(), calibrating[..calibrating.len().min(CALIBRATED)].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::model::forest::below;

    const WIDTH: usize = 6;

    fn training(isa: Isa) -> Training {
        Training { members: Members::default(), trees: 100, sample: 256, contamination: 0.01, seed: 1, isa }
    }

    /// Two features that go together, the others noise.
    fn traffic(count: usize, seed: u64) -> Vec<f32> {
        let mut rng = Pcg32::seed_from_u64(seed);
        let mut unit = || below(&mut rng, 1 << 20) as f32 / (1 << 20) as f32;
        let row = |_| {
            let together = unit() * 10.0;
            [together, 20.0 - together + unit() * 0.2, unit(), unit() * 3.0, 5.0, unit() + unit()]
        };
        (0..count).flat_map(row).collect()
    }

    fn scores(model: &Model, values: &[f32]) -> Vec<f32> {
        let rows = Rows::new(values, WIDTH);
        let mut out = vec![0.0; rows.len()];
        model.score(rows, &mut model.scratch(), &mut out);
        out.iter().map(|raw| model.calibration().calibrate(*raw)).collect()
    }

    #[test]
    fn a_score_is_the_share_of_traffic_below_it() {
        let model = Model::train(Rows::new(&traffic(10_000, 1), WIDTH), &training(Isa::best()));
        let fresh = scores(&model, &traffic(6000, 2));
        for level in [0.5, 0.9, 0.99] {
            let below = fresh.iter().filter(|s| **s < level).count() as f32 / 6000.0;
            assert!((below - level).abs() < 0.2 * (1.0 - level) + 0.004, "{level} {below}");
        }
    }

    #[test]
    fn what_breaks_a_relation_and_what_is_far_out_both_stand_out() {
        let model = Model::train(Rows::new(&traffic(10_000, 1), WIDTH), &training(Isa::best()));
        let apart = [1.0, 12.0, 0.5, 1.5, 5.0, 1.0];
        let far = [5.0, 15.0, 9.0, 9.0, 5.0, 1.0];
        let changed = [5.0, 15.1, 0.5, 1.5, 6.0, 1.0];
        for (odd, by) in [(apart, [0, 1]), (far, [2, 3]), (changed, [4, 4])] {
            let score = scores(&model, &odd)[0];
            assert!(score > 0.99, "{odd:?} {score}");
            let parts = model.contributions(&odd, &mut model.scratch());
            let most = (0..WIDTH).max_by(|a, b| parts[*a].total_cmp(&parts[*b]));
            assert!(most.is_some_and(|most| by.contains(&most)), "{by:?}: {parts:?}");
            let mut raw = [0.0];
            model.score(Rows::new(&odd, WIDTH), &mut model.scratch(), &mut raw);
            assert!((parts.iter().sum::<f32>() - raw[0] / (1.0 - raw[0])).abs() < 1e-2, "{parts:?} {raw:?}");
        }
        assert!(scores(&model, &[5.0, 15.1, 0.5, 1.5, 5.0, 1.0])[0] < 0.9);
    }

    #[test]
    fn a_cluster_of_attacks_in_training_is_still_unusual() {
        let mut values = traffic(10_000, 1);
        for row in values.chunks_exact_mut(WIDTH).step_by(500) {
            row.copy_from_slice(&[9.9, 19.9, 1.0, 3.0, 5.0, 40.0]);
        }
        let model = Model::train(Rows::new(&values, WIDTH), &training(Isa::best()));
        assert!(scores(&model, &[9.9, 19.9, 1.0, 3.0, 5.0, 40.0])[0] > 0.99);
    }

    #[test]
    fn all_instructions_and_any_batches_give_the_same_bits() {
        let values = traffic(LANES * 2 + 77, 3);
        let portable = scores(&Model::train(Rows::new(&values, WIDTH), &training(Isa::Portable)), &values);
        for isa in Isa::available() {
            let model = Model::train(Rows::new(&values, WIDTH), &training(isa));
            assert_eq!(scores(&model, &values), portable, "{isa:?}");
            for row in [0, 500, LANES * 2 + 76] {
                assert_eq!(scores(&model, &values[row * WIDTH..][..WIDTH])[0], portable[row]);
            }
        }
    }

    #[test]
    fn any_rows_train_a_model_and_any_row_has_a_score() {
        let one = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        for values in [vec![], one.to_vec(), one.repeat(400), vec![f32::NAN; 60], vec![f32::INFINITY; 600]] {
            let model = Model::train(Rows::new(&values, WIDTH), &training(Isa::best()));
            for x in [one, [f32::NAN; WIDTH], [f32::NEG_INFINITY; WIDTH], [f32::MAX; WIDTH]] {
                assert!((0.0..=1.0).contains(&scores(&model, &x)[0]), "{x:?}");
                assert!(model.contributions(&x, &mut model.scratch()).iter().all(|c| c.is_finite()));
            }
        }
    }
}
