//! Isolation forest (Liu, Ting, Zhou: Isolation Forest, ICDM 2008) on the bytes of a grid.
//!
//! A tree splits a small random sample at random features and thresholds until every record stands
//! alone or the depth limit is reached. What is unusual is alone after few splits:
//! `score = 2^(-E[path] / c(sample))`, about 0.5 for the ordinary and towards 1 for the isolated.
//!
//! Path lengths are kept in eighths, so that they are bytes, sums of them are whole numbers, and every
//! processor gives the same score.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};

use crate::trie::Isa;

use super::grid::{Column, LANES};
use super::kernel::{Leaf, Plan, Program, Scratch, Split};

/// Deepest tree that is built; a sample of 4096 needs 12.
const MAX_DEPTH: u32 = 12;
/// Steps of a path length: one more split is eight of them.
const STEPS: f32 = 8.0;

/// Trained trees. Immutable; scoring takes `&self`. Stored as trees; the rest follows from them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub(super) struct Forest {
    trees: Vec<Vec<Node>>,
    width: usize,
    program: Program,
    /// Score of every sum of path lengths.
    scores: Vec<f32>,
    /// c(n) for n up to the sample size.
    expected: Vec<f32>,
}

/// A node of a tree, breadth first. Records whose byte is greater go to `children + 1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Node {
    feature: u8,
    threshold: u8,
    /// Index of the first of two children; 0 for a leaf.
    children: u16,
    /// Records of training under it.
    size: u16,
}

/// What is stored of a forest.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    trees: Vec<Vec<Node>>,
    sample: u32,
    width: u32,
}

impl From<Forest> for Stored {
    fn from(forest: Forest) -> Self {
        Self { trees: forest.trees, sample: forest.expected.len() as u32 - 1, width: forest.width as u32 }
    }
}

impl TryFrom<Stored> for Forest {
    type Error = &'static str;

    /// Trees from outside: everything that indices will rest on is checked.
    fn try_from(Stored { trees, sample, width }: Stored) -> Result<Self, Self::Error> {
        let (sample, width) = (sample as usize, width as usize);
        if !(1..=1 << MAX_DEPTH).contains(&sample) || !(1..=MOST_FEATURES).contains(&width) {
            return Err("a forest of impossible size");
        }
        if trees.is_empty() || trees.len() > MOST_TREES || !trees.iter().all(|tree| is_tree(tree, sample, width)) {
            return Err("a tree that is none");
        }
        Ok(Self::from_trees(trees, sample, width, Isa::best()))
    }
}

/// More trees or features do not come from a configuration; a program has room for these.
const MOST_TREES: usize = 10_000;
const MOST_FEATURES: usize = 255;

/// Whether nodes are those of a tree, breadth first: every pair of children has one parent before it, and no side of a
/// split is empty.
fn is_tree(tree: &[Node], sample: usize, width: usize) -> bool {
    let Some(root) = tree.first() else { return false };
    let mut next = 1;
    for (i, node) in tree.iter().enumerate().filter(|(_, node)| node.children != 0) {
        let children = usize::from(node.children);
        let Some([left, right]) = tree.get(children..children + 2) else { return false };
        let divided = left.size > 0 && right.size > 0 && left.size.checked_add(right.size) == Some(node.size);
        if children != next || children <= i || usize::from(node.feature) >= width || !divided {
            return false;
        }
        next += 2;
    }
    next == tree.len() && usize::from(root.size) <= sample
}

/// Average path length of an unsuccessful search in a binary search tree of `n` records (equation 1
/// of the paper, with the harmonic number summed exactly).
fn average_path(n: usize) -> f32 {
    if n < 2 {
        return 0.0;
    }
    let harmonic: f64 = (1..n).map(|i| 1.0 / i as f64).sum();
    (2.0 * harmonic - 2.0 * (n - 1) as f64 / n as f64) as f32
}

/// Records as bytes, row by row: what a forest is trained on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a> {
    pub(super) rows: &'a [u8],
    pub(super) width: usize,
}

impl Bytes<'_> {
    pub(super) fn row(&self, i: u32) -> &[u8] {
        &self.rows[i as usize * self.width..][..self.width]
    }
}

impl Forest {
    /// Trains `trees` trees on `sample` records each, drawn without replacement from those that `of`
    /// names. `sample` is cut to their number and to 4096; `trees` is at least 1. The same data and
    /// seed give the same forest. Without records everything scores 0.5.
    pub(super) fn train(data: Bytes<'_>, of: &[u32], trees: usize, sample: usize, seed: u64, isa: Isa) -> Self {
        let sample = sample.min(of.len()).clamp(1, 1 << MAX_DEPTH);
        let depth = (sample as u32).next_power_of_two().trailing_zeros();
        let mut rng = Pcg32::seed_from_u64(seed);
        let mut order = of.to_vec();
        let trees = (0..trees.max(1)).map(|_| {
            let mut chosen = draw(&mut order, sample, &mut rng).to_vec();
            grow(data, depth, &mut chosen, &mut rng)
        });
        Self::from_trees(trees.collect(), sample, data.width, isa)
    }

    fn from_trees(trees: Vec<Vec<Node>>, sample: usize, width: usize, isa: Isa) -> Self {
        let expected: Vec<f32> = (0..=sample).map(average_path).collect();
        let plans: Vec<Plan> = trees.iter().map(|tree| plan(tree, &expected)).collect();
        let program = Program::compile(&plans, width, isa);
        let longest: usize =
            plans.iter().map(|p| p.leaves.iter().map(|l| usize::from(l.value)).max().unwrap_or(0)).sum();
        let norm = average_path(sample);
        let score = |sum: usize| match sum as f32 / (STEPS * trees.len() as f32) {
            _ if norm <= 0.0 => 0.5,
            path => (-path / norm).exp2(),
        };
        let scores = (0..=longest).map(score).collect();
        Self { trees, width, program, scores, expected }
    }

    pub(super) fn scratch(&self) -> Scratch {
        self.program.scratch()
    }

    /// Features of a record.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Raw scores (0..1, higher is more unusual) of the records of a block.
    pub(super) fn score(&self, block: &[Column], scratch: &mut Scratch, out: &mut [f32]) {
        let mut sums = [0u32; LANES];
        self.program.run(block, scratch, &mut sums);
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = self.scores[sum as usize];
        }
    }

    /// How much each feature shortened the mean path of record `x`, in splits. At a node of n records
    /// c(n) more splits are expected; after the split into a child of m records the path is `1 + c(m)`.
    /// The difference is credited to the feature of the split. The contributions add up to
    /// `c(sample) - mean path`: positive in sum when `x` is more unusual than average.
    pub(super) fn contributions(&self, x: &[u8]) -> Vec<f32> {
        let mut sum = vec![0f32; self.width];
        for tree in &self.trees {
            let (mut node, mut level, mut before) = (tree[0], 0, self.expected[usize::from(tree[0].size)]);
            while node.children != 0 {
                let feature = usize::from(node.feature);
                node = tree[usize::from(node.children) + usize::from(x[feature] > node.threshold)];
                level += 1;
                let after = match node.children {
                    0 => f32::from(leaf_value(level, node.size, &self.expected)) / STEPS,
                    _ => level as f32 + self.expected[usize::from(node.size)],
                };
                sum[feature] += before - after;
                before = after;
            }
        }
        sum.iter_mut().for_each(|s| *s /= self.trees.len() as f32);
        sum
    }
}

/// Path length to a leaf of `size` records at `level`, in [`STEPS`].
fn leaf_value(level: u32, size: u16, expected: &[f32]) -> u8 {
    ((level as f32 + expected[usize::from(size)]) * STEPS).round() as u8
}

/// A tree as splits and leaves. A split into leaves of the same path length decides nothing, and is a leaf:
/// two records that part at last are always such.
fn plan(tree: &[Node], expected: &[f32]) -> Plan {
    let mut levels = vec![0u32; tree.len()];
    for (i, node) in tree.iter().enumerate().filter(|(_, node)| node.children != 0) {
        let children = usize::from(node.children);
        let level = levels[i] + 1;
        levels[children..children + 2].fill(level);
    }
    let mut values: Vec<Option<u8>> = vec![None; tree.len()];
    for (i, node) in tree.iter().enumerate().rev() {
        let children = usize::from(node.children);
        values[i] = match children {
            0 => Some(leaf_value(levels[i], node.size, expected)),
            _ if values[children] == values[children + 1] => values[children],
            _ => None,
        };
    }
    let mut plan = Plan::default();
    // Nodes in the order of their masks.
    let mut order = vec![0];
    let mut from = 0;
    while from < order.len() {
        let node = tree[order[from]];
        match values[order[from]] {
            Some(value) => plan.leaves.push(Leaf { from: from as u16, value }),
            None => {
                plan.splits.push(Split { from: from as u16, feature: node.feature, threshold: node.threshold });
                order.extend([usize::from(node.children), usize::from(node.children) + 1]);
            }
        }
        from += 1;
    }
    plan
}

/// `count` distinct members of `order` by a partial Fisher-Yates shuffle; they end up in front.
pub(super) fn draw<'a>(order: &'a mut [u32], count: usize, rng: &mut Pcg32) -> &'a [u32] {
    let count = count.min(order.len());
    for i in 0..count {
        let j = i + below(rng, order.len() - i);
        order.swap(i, j);
    }
    &order[..count]
}

/// Uniform in `0..n` (multiply-shift; the bias is below n / 2^32). 0 when `n` is 0.
pub(super) fn below(rng: &mut Pcg32, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

/// A tree of the records `rows`, breadth first.
fn grow(data: Bytes<'_>, depth: u32, rows: &mut [u32], rng: &mut Pcg32) -> Vec<Node> {
    let mut tree = vec![Node { size: rows.len() as u16, ..Node::default() }];
    // Level, and place of the node's records in `rows`.
    let mut places = vec![(0u32, 0usize)];
    let mut next = 0;
    while next < tree.len() {
        let (level, first) = places[next];
        let mine = &mut rows[first..first + usize::from(tree[next].size)];
        let split = if level < depth && mine.len() > 1 { choose_split(data, mine, rng) } else { None };
        if let Some((feature, threshold)) = split {
            let left = partition(mine, |row| data.row(row)[feature] <= threshold);
            let right = mine.len() - left;
            let children = tree.len() as u16;
            tree[next] = Node { feature: feature as u8, threshold, children, ..tree[next] };
            tree.extend([left, right].map(|size| Node { size: size as u16, ..Node::default() }));
            places.extend([(level + 1, first), (level + 1, first + left)]);
        }
        next += 1;
    }
    tree
}

/// A random feature among those that vary in `rows`, and a threshold in least..greatest; `None` when all
/// rows are equal. Both sides of the split are never empty.
fn choose_split(data: Bytes<'_>, rows: &[u32], rng: &mut Pcg32) -> Option<(usize, u8)> {
    let (mut low, mut high) = (vec![u8::MAX; data.width], vec![0; data.width]);
    for &row in rows {
        for ((low, high), byte) in low.iter_mut().zip(&mut high).zip(data.row(row)) {
            *low = (*low).min(*byte);
            *high = (*high).max(*byte);
        }
    }
    let varying = (0..data.width).filter(|&f| low[f] < high[f]);
    let feature = varying.clone().nth(below(rng, varying.count()))?;
    let span = usize::from(high[feature] - low[feature]);
    Some((feature, low[feature] + below(rng, span) as u8))
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
mod tests {
    use super::*;

    const WIDTH: usize = 9;

    /// A cloud around 100, and records that are far out in three columns.
    fn planted(seed: u64) -> (Vec<u8>, usize) {
        let mut rng = Pcg32::seed_from_u64(seed);
        let mut cloud = |_| 100 + (0..4).map(|_| below(&mut rng, 16) as u8).sum::<u8>();
        let ordinary = 1000;
        let mut rows: Vec<u8> = (0..(ordinary + 24) * WIDTH).map(&mut cloud).collect();
        for (i, row) in rows.chunks_exact_mut(WIDTH).skip(ordinary).enumerate() {
            row[i % WIDTH] = 220;
            row[(i + 3) % WIDTH] = 10;
            row[(i + 7) % WIDTH] = 240;
        }
        (rows, ordinary)
    }

    fn train(rows: &[u8], trees: usize, sample: usize, seed: u64, isa: Isa) -> Forest {
        let all: Vec<u32> = (0..(rows.len() / WIDTH) as u32).collect();
        Forest::train(Bytes { rows, width: WIDTH }, &all, trees, sample, seed, isa)
    }

    fn scores(forest: &Forest, rows: &[u8]) -> Vec<f32> {
        let mut scratch = forest.scratch();
        let mut out = vec![0.0; rows.len() / WIDTH];
        for (rows, out) in rows.chunks(WIDTH * LANES).zip(out.chunks_mut(LANES)) {
            let mut block = vec![[0; LANES]; WIDTH];
            for (i, row) in rows.chunks_exact(WIDTH).enumerate() {
                block.iter_mut().zip(row).for_each(|(column, byte)| column[i] = *byte);
            }
            forest.score(&block, &mut scratch, out);
        }
        out
    }

    #[test]
    fn planted_outliers_are_above_all_others() {
        let (rows, ordinary) = planted(5);
        let got = scores(&train(&rows, 100, 256, 1, Isa::best()), &rows);
        let highest = got[..ordinary].iter().copied().fold(0.0, f32::max);
        assert!(got[ordinary..].iter().all(|s| *s > highest), "{highest} {:?}", &got[ordinary..]);
    }

    #[test]
    fn all_instructions_follow_every_record_to_its_leaf() {
        let (rows, _) = planted(7);
        for (trees, sample, seed) in [(20, 256, 3), (300, 100, 4), (1, 2, 5), (10, 1000, 6), (3, 1, 7)] {
            for isa in Isa::available() {
                let forest = train(&rows, trees, sample, seed, isa);
                let got = scores(&forest, &rows);
                for (x, got) in rows.chunks_exact(WIDTH).zip(got).step_by(11) {
                    let path = |tree: &Vec<Node>| {
                        let (mut at, mut level) = (0, 0);
                        while tree[at].children != 0 {
                            let greater = x[usize::from(tree[at].feature)] > tree[at].threshold;
                            at = usize::from(tree[at].children) + usize::from(greater);
                            level += 1;
                        }
                        ((level as f32 + average_path(usize::from(tree[at].size))) * STEPS).round()
                    };
                    let mean = forest.trees.iter().map(path).sum::<f32>() / STEPS / trees as f32;
                    let want = if sample < 2 { 0.5 } else { (-mean / average_path(sample)).exp2() };
                    assert!((want - got).abs() < 1e-5, "{isa:?} {trees} {sample}: {want} {got}");
                }
            }
        }
        if Isa::best() < Isa::Avx512 {
            println!("skipped: this processor has no AVX-512");
        }
    }

    #[test]
    fn a_seed_is_a_forest_and_trees_are_sound() {
        let (rows, _) = planted(6);
        let forest = train(&rows, 25, 128, 9, Isa::best());
        assert_eq!(forest.trees, train(&rows, 25, 128, 9, Isa::best()).trees);
        assert_ne!(forest.trees, train(&rows, 25, 128, 10, Isa::best()).trees);
        for tree in &forest.trees {
            assert_eq!(tree[0].size, 128);
            for node in tree.iter().filter(|n| n.children != 0) {
                let [left, right] = [0, 1].map(|side| tree[usize::from(node.children) + side].size);
                assert!(left > 0 && right > 0 && left + right == node.size);
            }
        }
    }

    #[test]
    fn contributions_add_up_and_name_the_odd_feature() {
        let (rows, ordinary) = planted(8);
        let forest = train(&rows[..ordinary * WIDTH], 100, 256, 2, Isa::best());
        let mut odd = [130u8; WIDTH];
        odd[5] = 255;
        let parts = forest.contributions(&odd);
        assert!((0..WIDTH).all(|f| f == 5 || parts[f] < parts[5]), "{parts:?}");
        let mean_path = -scores(&forest, &odd)[0].log2() * average_path(256);
        let sum: f32 = parts.iter().sum();
        assert!((sum - (average_path(256) - mean_path)).abs() < 1e-2, "{sum} {mean_path}");
    }

    #[test]
    fn degenerate_input_is_harmless() {
        for rows in [vec![], vec![7; WIDTH], vec![7; 500 * WIDTH]] {
            let forest = train(&rows, 10, 256, 1, Isa::best());
            for x in [[7; WIDTH], [0; WIDTH], [255; WIDTH]] {
                assert!((0.0..=1.0).contains(&scores(&forest, &x)[0]));
                assert!(forest.contributions(&x).iter().all(|c| c.is_finite()));
            }
        }
    }

    #[test]
    fn average_path_is_the_published_one() {
        assert_eq!([0, 1].map(average_path), [0.0, 0.0]);
        assert!((average_path(2) - 1.0).abs() < 1e-6);
        // 2 (ln(255) + 0.5772157) - 2*255/256, the paper's approximation of the harmonic number.
        assert!((average_path(256) - 10.244_77).abs() < 0.01);
    }
}
