//! Isolation forest (Liu, Ting, Zhou: Isolation Forest, ICDM 2008).
//!
//! A tree splits a small random sample at random features and thresholds until every record stands
//! alone or the depth limit is reached. What is unusual is alone after few splits:
//! `score = 2^(-E[path] / c(sample))`, about 0.5 for the ordinary and towards 1 for the isolated.
//!
//! Layout: every tree is a complete binary tree in heap order (children of `i` are `2i+1`, `2i+2`), so
//! a walk is `depth` steps without a branch or a child pointer:
//!
//! ```text
//!            0                 node[i]: go right when x[feature] >= threshold
//!         1     2              a node that is already a leaf sends everything left (threshold +inf),
//!       3  4   5  6            and the leaf values below it all hold the same path length
//!      ╶┴╴╶┴╴ ╶┴╴╶┴╴           leaf[]: path length, adjusted by c(size) where a leaf holds several
//! ```

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

use super::features::{FEATURES, Features};

/// Deepest tree that is built; a sample of 4096 needs 12.
const MAX_DEPTH: u32 = 12;
/// Records walked together through one tree, to hide the latency of dependent loads.
const LANES: usize = 8;
/// Records copied aside and scored together.
const BLOCK: usize = 64;
/// Larger magnitudes are clamped, so that `max - min` stays finite.
const LARGEST: f32 = 1e30;

/// Trained trees. Immutable; scoring takes `&self`.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    /// Levels of splits in every tree.
    depth: u32,
    trees: usize,
    /// c(sample): the path length that scores 0.5.
    norm: f32,
    /// `trees` blocks of `2^depth - 1` nodes.
    nodes: Vec<Node>,
    /// `trees` blocks of `2^depth` path lengths.
    leaf: Vec<f32>,
    /// Training records under each node, `trees` blocks of `2^(depth+1) - 1`; 0 below a leaf. Only
    /// for [`Forest::contributions`].
    size: Vec<u16>,
    /// c(n) for n up to the sample size.
    expected: Vec<f32>,
}

/// Go right when `x[feature] >= threshold`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    threshold: f32,
    feature: u32,
}

impl Node {
    /// Sends everything left: below a leaf.
    const PASS: Node = Node { threshold: f32::INFINITY, feature: 0 };
}

/// A row of features, filled up to a power of two so that a masked index is always inside.
const WIDTH: usize = FEATURES.next_power_of_two();

/// Average path length of an unsuccessful search in a binary search tree of `n` records (equation 1
/// of the paper, with the harmonic number summed exactly).
pub fn average_path(n: usize) -> f32 {
    if n < 2 {
        return 0.0;
    }
    let harmonic: f64 = (1..n).map(|i| 1.0 / i as f64).sum();
    (2.0 * harmonic - 2.0 * (n - 1) as f64 / n as f64) as f32
}

/// Not-a-number becomes 0, infinities and huge values become ±1e30.
pub fn sanitize(x: &mut Features) {
    for value in x.iter_mut() {
        *value = if value.is_nan() { 0.0 } else { value.clamp(-LARGEST, LARGEST) };
    }
}

impl Forest {
    /// Trains `trees` trees on `sample` records each, drawn without replacement. `sample` is cut to
    /// the number of records and to 4096; `trees` is at least 1. The same data and seed give the
    /// same forest. An empty `data` gives a forest that scores everything 0.5.
    pub fn train(data: &[Features], trees: usize, sample: usize, seed: u64) -> Self {
        let sample = sample.min(data.len()).clamp(1, 1 << MAX_DEPTH);
        let depth = (sample as u32).next_power_of_two().trailing_zeros().min(MAX_DEPTH);
        let mut forest = Self {
            depth,
            trees: trees.max(1),
            norm: average_path(sample),
            nodes: Vec::new(),
            leaf: Vec::new(),
            size: Vec::new(),
            expected: (0..=sample).map(average_path).collect(),
        };
        let mut clean = data.to_vec();
        clean.iter_mut().for_each(sanitize);
        let mut rng = Pcg32::seed_from_u64(seed);
        let mut order: Vec<u32> = (0..clean.len() as u32).collect();
        for _ in 0..forest.trees {
            let mut chosen = draw(&mut order, sample, &mut rng).to_vec();
            let mut tree = Tree::new(depth);
            tree.grow(0, 0, &clean, &mut chosen, &mut rng);
            forest.nodes.extend_from_slice(&tree.nodes);
            forest.leaf.extend_from_slice(&tree.leaf);
            forest.size.extend_from_slice(&tree.size);
        }
        forest
    }

    /// Raw scores (0..1, higher is more unusual) of a batch; `out` is as long as `batch`, the rest of
    /// a longer one is left alone. Values must be [`sanitize`]d or at least not NaN to be ranked
    /// sensibly; any value is safe.
    ///
    /// PERF: trees outside, records inside: one tree (3 kB at 256 records) stays in the first-level
    /// cache while a whole batch passes, and eight walks overlap.
    pub fn score(&self, batch: &[Features], out: &mut [f32]) {
        let n = batch.len().min(out.len());
        for (batch, out) in batch[..n].chunks(BLOCK).zip(out[..n].chunks_mut(BLOCK)) {
            self.score_block(batch, out);
        }
    }

    /// At most `BLOCK` records.
    fn score_block(&self, batch: &[Features], out: &mut [f32]) {
        let mut rows = [[[0f32; WIDTH]; LANES]; BLOCK / LANES];
        for (row, x) in rows.iter_mut().flatten().zip(batch) {
            row[..FEATURES].copy_from_slice(x);
        }
        let mut sums = [[0f32; LANES]; BLOCK / LANES];
        let lanes = batch.len().div_ceil(LANES);
        let (nodes, leaves) = ((1usize << self.depth) - 1, 1usize << self.depth);
        for tree in 0..self.trees {
            let node = &self.nodes[tree * nodes..(tree + 1) * nodes];
            let leaf = &self.leaf[tree * leaves..(tree + 1) * leaves];
            for (xs, sums) in rows.iter().zip(&mut sums).take(lanes) {
                let mut at = [0usize; LANES];
                for _ in 0..self.depth {
                    for (x, i) in xs.iter().zip(at.iter_mut()) {
                        let n = node[*i];
                        *i = 2 * *i + 1 + usize::from(x[n.feature as usize % WIDTH] >= n.threshold);
                    }
                }
                for (i, sum) in at.iter().zip(sums.iter_mut()) {
                    *sum += leaf[*i - nodes];
                }
            }
        }
        for (out, sum) in out.iter_mut().zip(sums.iter().flatten()) {
            *out = self.anomaly(sum / self.trees as f32);
        }
    }

    /// 2^(-path / c).
    fn anomaly(&self, mean_path: f32) -> f32 {
        if self.norm <= 0.0 { 0.5 } else { (-mean_path / self.norm).exp2() }
    }

    /// How much each feature shortened the mean path of `x`, in splits. At a node of n records c(n)
    /// more splits are expected; after the split into a child of m records the path is `1 + c(m)`.
    /// The difference is credited to the feature of the split. The contributions add up to
    /// `c(sample) - mean path`: positive in sum when `x` is more unusual than average.
    pub fn contributions(&self, x: &Features) -> Features {
        let mut sum = [0f32; FEATURES];
        let nodes = (1usize << self.depth) - 1;
        let all = (1usize << (self.depth + 1)) - 1;
        for tree in 0..self.trees {
            let size = &self.size[tree * all..(tree + 1) * all];
            let mut i = 0;
            while i < nodes && self.nodes[tree * nodes + i] != Node::PASS {
                let node = self.nodes[tree * nodes + i];
                let feature = node.feature as usize % FEATURES;
                let child = 2 * i + 1 + usize::from(x[feature] >= node.threshold);
                let expected = |node: usize| self.expected[usize::from(size[node])];
                sum[feature] += expected(i) - 1.0 - expected(child);
                i = child;
            }
        }
        sum.map(|s| s / self.trees as f32)
    }
}

/// `count` distinct members of `order` by a partial Fisher-Yates shuffle; they end up in front.
fn draw<'a>(order: &'a mut [u32], count: usize, rng: &mut Pcg32) -> &'a [u32] {
    let count = count.min(order.len());
    for i in 0..count {
        let j = i + below(rng, order.len() - i);
        order.swap(i, j);
    }
    &order[..count]
}

/// Uniform in `0..n` (multiply-shift; the bias is below n / 2^32). 0 when `n` is 0.
fn below(rng: &mut Pcg32, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

/// Uniform in [0, 1) with 24 bits.
fn unit(rng: &mut Pcg32) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

/// One tree under construction.
struct Tree {
    depth: u32,
    nodes: Vec<Node>,
    leaf: Vec<f32>,
    size: Vec<u16>,
}

impl Tree {
    fn new(depth: u32) -> Self {
        let nodes = (1usize << depth) - 1;
        Self { depth, nodes: vec![Node::PASS; nodes], leaf: vec![0.0; nodes + 1], size: vec![0; 2 * nodes + 1] }
    }

    /// Grows the subtree at heap position `node` from the records `rows`, left before right.
    fn grow(&mut self, node: usize, level: u32, data: &[Features], rows: &mut [u32], rng: &mut Pcg32) {
        self.size[node] = rows.len() as u16;
        let split = if level < self.depth && rows.len() > 1 { choose_split(data, rows, rng) } else { None };
        let Some((feature, threshold)) = split else {
            return self.settle(node, level, level as f32 + average_path(rows.len()));
        };
        self.nodes[node] = Node { threshold, feature: feature as u32 };
        let left = partition(rows, |row| data[row as usize][feature] < threshold);
        let (low, high) = rows.split_at_mut(left);
        self.grow(2 * node + 1, level + 1, data, low, rng);
        self.grow(2 * node + 2, level + 1, data, high, rng);
    }

    /// Writes a path length to every leaf value below `node`.
    fn settle(&mut self, node: usize, level: u32, path: f32) {
        let span = 1usize << (self.depth - level);
        let first = (node + 1) * span - (1usize << self.depth);
        self.leaf[first..first + span].fill(path);
    }
}

/// A random feature among those that vary in `rows`, and a threshold in (min, max]; `None` when all
/// rows are equal. Both sides of the split are never empty.
fn choose_split(data: &[Features], rows: &[u32], rng: &mut Pcg32) -> Option<(usize, f32)> {
    let mut low = data[rows[0] as usize];
    let mut high = low;
    for &row in rows {
        for (f, &value) in data[row as usize].iter().enumerate() {
            low[f] = low[f].min(value);
            high[f] = high[f].max(value);
        }
    }
    let varying = (0..FEATURES).filter(|&f| low[f] < high[f]);
    let feature = varying.clone().nth(below(rng, varying.count()))?;
    let (low, high) = (low[feature], high[feature]);
    let threshold = high - unit(rng) * (high - low);
    // Rounding may reach `low`, which would leave the left side empty.
    Some((feature, if threshold > low { threshold } else { high }))
}

/// Moves the rows that satisfy `is_left` to the front, keeping the order on neither side; their number.
fn partition(rows: &mut [u32], is_left: impl Fn(u32) -> bool) -> usize {
    let mut left = 0;
    for i in 0..rows.len() {
        if is_left(rows[i]) {
            rows.swap(i, left);
            left += 1;
        }
    }
    left
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use smartcore::metrics::roc_auc_score;

    fn noise(rng: &mut Pcg32, scale: f32, shift: f32) -> Features {
        std::array::from_fn(|_| (unit(rng) + unit(rng) + unit(rng) - 1.5) * scale + shift)
    }

    fn planted(seed: u64) -> (Vec<Features>, Vec<f64>) {
        let mut rng = Pcg32::seed_from_u64(seed);
        let mut data: Vec<Features> = (0..2000).map(|_| noise(&mut rng, 1.0, 0.0)).collect();
        let mut labels = vec![0.0; data.len()];
        for i in 0..40 {
            let mut odd = noise(&mut rng, 1.0, 0.0);
            odd[i % FEATURES] += 4.0;
            odd[(i + 3) % FEATURES] -= 4.0;
            odd[(i + 7) % FEATURES] += 5.0;
            data.push(odd);
            labels.push(1.0);
        }
        (data, labels)
    }

    fn scores(forest: &Forest, data: &[Features]) -> Vec<f32> {
        let mut out = vec![0.0; data.len()];
        forest.score(data, &mut out);
        out
    }

    #[test]
    fn planted_outliers_are_separated() {
        let (data, labels) = planted(5);
        let forest = Forest::train(&data, 100, 256, 1);
        let got: Vec<f64> = scores(&forest, &data).iter().map(|&s| f64::from(s)).collect();
        let auc = roc_auc_score(&labels, &got);
        assert!(auc > 0.95, "AUC {auc}");
        // The labels do carry the signal: shuffled against the scores there is none.
        let rotated: Vec<f64> = labels.iter().cycle().skip(700).take(labels.len()).copied().collect();
        assert!(roc_auc_score(&rotated, &got) < 0.7);
    }

    #[test]
    fn same_seed_same_forest_and_batching_does_not_matter() {
        let (data, _) = planted(6);
        let forest = Forest::train(&data, 25, 128, 9);
        assert_eq!(forest, Forest::train(&data, 25, 128, 9));
        assert_ne!(forest, Forest::train(&data, 25, 128, 10));
        let whole = scores(&forest, &data);
        for (i, x) in data.iter().enumerate().step_by(97) {
            assert_eq!(scores(&forest, std::slice::from_ref(x))[0], whole[i]);
        }
    }

    /// The paper's algorithm as written: linked nodes, one recursion to build and one to walk.
    enum Plain {
        Leaf(usize),
        Split(usize, f32, Box<Plain>, Box<Plain>),
    }

    fn plain_tree(data: &[Features], rows: Vec<u32>, level: u32, limit: u32, rng: &mut Pcg32) -> Plain {
        let span = |f: usize| {
            let values = rows.iter().map(|&r| data[r as usize][f]);
            (values.clone().fold(f32::MAX, f32::min), values.fold(f32::MIN, f32::max))
        };
        let varying: Vec<usize> = (0..FEATURES).filter(|&f| span(f).0 < span(f).1).collect();
        if level >= limit || rows.len() <= 1 {
            return Plain::Leaf(rows.len());
        }
        let pick = below(rng, varying.len());
        let Some(&feature) = varying.get(pick) else { return Plain::Leaf(rows.len()) };
        let (low, high) = span(feature);
        let threshold = high - unit(rng) * (high - low);
        let mut rows = rows;
        let cut = partition(&mut rows, |r| data[r as usize][feature] < threshold);
        let right = rows.split_off(cut);
        let left = plain_tree(data, rows, level + 1, limit, rng);
        let right = plain_tree(data, right, level + 1, limit, rng);
        Plain::Split(feature, threshold, Box::new(left), Box::new(right))
    }

    fn plain_path(tree: &Plain, x: &Features, level: u32) -> f64 {
        match tree {
            Plain::Leaf(n) => f64::from(level) + f64::from(average_path(*n)),
            Plain::Split(f, t, left, right) => plain_path(if x[*f] < *t { left } else { right }, x, level + 1),
        }
    }

    #[test]
    fn agrees_with_a_recursive_reference() {
        let (data, _) = planted(7);
        for (sample, seed) in [(256usize, 3u64), (100, 4), (2, 5), (1000, 6)] {
            let trees = 20;
            let forest = Forest::train(&data, trees, sample, seed);
            let mut rng = Pcg32::seed_from_u64(seed);
            let mut order: Vec<u32> = (0..data.len() as u32).collect();
            let limit = (sample as f64).log2().ceil() as u32;
            let plain: Vec<Plain> = (0..trees)
                .map(|_| {
                    let rows = draw(&mut order, sample, &mut rng).to_vec();
                    plain_tree(&data, rows, 0, limit, &mut rng)
                })
                .collect();
            let got = scores(&forest, &data);
            for (x, got) in data.iter().zip(got).step_by(13) {
                let mean = plain.iter().map(|t| plain_path(t, x, 0)).sum::<f64>() / trees as f64;
                let want = (-mean / f64::from(average_path(sample))).exp2();
                assert!((want - f64::from(got)).abs() < 1e-5, "{want} {got}");
            }
        }
    }

    #[test]
    fn contributions_add_up_and_name_the_odd_feature() {
        let (data, _) = planted(8);
        let forest = Forest::train(&data, 100, 256, 2);
        let mut odd = [0.0; FEATURES];
        odd[5] = 9.0;
        let parts = forest.contributions(&odd);
        let top = (0..FEATURES).max_by(|&a, &b| parts[a].total_cmp(&parts[b])).unwrap();
        assert_eq!(top, 5);
        let score = scores(&forest, &[odd])[0];
        let mean_path = -score.log2() * average_path(256);
        let sum: f32 = parts.iter().sum();
        assert!((sum - (average_path(256) - mean_path)).abs() < 1e-2, "{sum} {mean_path}");
    }

    #[test]
    fn degenerate_input_is_harmless() {
        let one = [1.0; FEATURES];
        for data in [vec![], vec![one], vec![one; 500]] {
            let forest = Forest::train(&data, 10, 256, 1);
            for x in [one, [f32::NAN; FEATURES], [f32::INFINITY; FEATURES], [f32::NEG_INFINITY; FEATURES]] {
                let score = scores(&forest, &[x])[0];
                assert!((0.0..=1.0).contains(&score), "{score}");
                assert!(forest.contributions(&x).iter().all(|c| c.is_finite()));
            }
        }
        let (mut data, _) = planted(9);
        data[0] = [f32::NAN; FEATURES];
        data[1] = [f32::INFINITY; FEATURES];
        data[2] = [f32::MIN; FEATURES];
        let forest = Forest::train(&data, 50, 256, 1);
        assert!(scores(&forest, &data).iter().all(|s| (0.0..=1.0).contains(s)));
        let mut short = [9.0f32; 2];
        forest.score(&data, &mut short);
        assert!(short.iter().all(|s| *s < 1.0));
        forest.score(&[], &mut []);
    }

    #[test]
    fn average_path_is_the_published_one() {
        assert_eq!(average_path(0), 0.0);
        assert_eq!(average_path(1), 0.0);
        assert!((average_path(2) - 1.0).abs() < 1e-6);
        // 2 (ln(255) + 0.5772157) - 2*255/256, the paper's approximation of the harmonic number.
        assert!((average_path(256) - 10.244_77).abs() < 0.01);
    }
}
