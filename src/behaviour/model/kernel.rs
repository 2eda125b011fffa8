//! A forest as a straight list of steps on bit planes: 512 records at a time, no branch that depends on data.
//!
//! ```text
//! columns ─► planes ─► every comparison (feature > threshold) that some tree makes, once
//! a tree:   mask[0] = all records                     mask[k]: records that reach node k
//!           a split of node k:  right = mask[k] & comparison, left = mask[k] & !comparison
//!           a leaf of node k:   its path length is added in binary: mask[k] is or-ed into the planes of its bits
//! sum over the trees: a ripple-carry adder on planes
//! ```
//! The idea of following all records through a tree with masks is that of QuickScorer (Lucchese et al., SIGIR 2015)
//! turned around: masks of records at a node, not of leaves at a record.
//!
//! PERF: `cargo bench --bench scorer`; thresholds that several trees share are compared once, and splits that
//! decide nothing are left out.

use crate::trie::Isa;

use super::bits::{Bits, Comparisons, PLANES, add, slice, unslice};
use super::grid::{Column, LANES};

/// Most planes of a sum.
const SUM_PLANES: usize = 24;

/// A tree, breadth first: splits and leaves refer to masks, 0 is the root; the `i`-th split makes masks `2i + 1`
/// (not greater) and `2i + 2`.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) splits: Vec<Split>,
    pub(super) leaves: Vec<Leaf>,
}

/// Records of mask `from` go right when their byte is greater.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    pub(super) from: u16,
    pub(super) feature: u8,
    pub(super) threshold: u8,
}

/// Records of mask `from` add `value`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    pub(super) from: u16,
    pub(super) value: u8,
}

/// Steps of all trees. Every index in it is inside what it refers to: [`Program::compile`] sees to that.
#[derive(Clone, Debug)]
pub(super) struct Program {
    isa: Isa,
    width: usize,
    /// Feature and number of thresholds, in the order of `thresholds`.
    features: Vec<(u8, u16)>,
    thresholds: Vec<u8>,
    /// (comparison, mask) of every split.
    splits: Vec<(u16, u16)>,
    /// Masks whose union is a plane of the path length, by tree, then by bit.
    leaves: Vec<u16>,
    trees: Vec<Counts>,
    /// Most masks of a tree.
    masks: usize,
    /// Planes of the sum.
    planes: usize,
}

/// How much of each list belongs to a tree.
#[derive(Clone, Copy, Debug)]
struct Counts {
    splits: u16,
    leaves: [u16; PLANES],
}

/// Memory of a run; one for each thread.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    comparisons: Comparisons,
    compared: Vec<Bits>,
    masks: Vec<Bits>,
    sum: [Bits; SUM_PLANES],
}

impl Program {
    /// `width`: columns of a block, more than any feature of a split.
    pub(super) fn compile(plans: &[Plan], width: usize, isa: Isa) -> Self {
        let mut used = vec![[false; 256]; width];
        for split in plans.iter().flat_map(|p| &p.splits) {
            used[usize::from(split.feature)][usize::from(split.threshold)] = true;
        }
        let mut place = vec![[0u16; 256]; width];
        let (mut features, mut thresholds) = (Vec::new(), Vec::new());
        for (feature, used) in used.iter().enumerate() {
            let first = thresholds.len();
            for threshold in (0..=255u8).filter(|t| used[usize::from(*t)]) {
                place[feature][usize::from(threshold)] = thresholds.len() as u16;
                thresholds.push(threshold);
            }
            if thresholds.len() > first {
                features.push((feature as u8, (thresholds.len() - first) as u16));
            }
        }
        assert!(thresholds.len() <= usize::from(u16::MAX), "at most 255 features of 255 thresholds");
        let most: u64 = plans.iter().map(|p| p.leaves.iter().map(|l| u64::from(l.value)).max().unwrap_or(0)).sum();
        let planes = ((u64::BITS - most.leading_zeros()) as usize).max(PLANES);
        assert!(planes <= SUM_PLANES, "at most 65,536 trees");
        let masks = plans.iter().map(|p| 2 * p.splits.len() + 1).max().unwrap_or(1);
        let mut program = Self {
            isa,
            width,
            features,
            thresholds,
            splits: Vec::new(),
            leaves: Vec::new(),
            trees: Vec::new(),
            masks,
            planes,
        };
        plans.iter().for_each(|plan| program.append(plan, &place));
        program
    }

    fn append(&mut self, plan: &Plan, place: &[[u16; 256]]) {
        let masks = 2 * plan.splits.len() + 1;
        for (i, s) in plan.splits.iter().enumerate() {
            assert!(usize::from(s.from) <= 2 * i, "a split comes after the one that makes its mask");
            self.splits.push((place[usize::from(s.feature)][usize::from(s.threshold)], s.from));
        }
        assert!(masks <= usize::from(u16::MAX) && plan.leaves.iter().all(|l| usize::from(l.from) < masks));
        let common = common_bits(plan, masks);
        let leaves = std::array::from_fn(|bit| {
            let before = self.leaves.len();
            self.leaves.extend((0..masks).filter(|m| common[*m] >> bit & 1 == 1).map(|m| m as u16));
            (self.leaves.len() - before) as u16
        });
        self.trees.push(Counts { splits: plan.splits.len() as u16, leaves });
    }

    pub(super) fn scratch(&self) -> Scratch {
        Scratch {
            comparisons: Comparisons::EMPTY,
            compared: vec![Bits::NONE; self.thresholds.len()],
            masks: vec![Bits::NONE; self.masks],
            sum: [Bits::NONE; SUM_PLANES],
        }
    }

    /// For every record of a block the sum of the values of its leaves. `scratch` is this program's.
    pub(super) fn run(&self, block: &[Column], scratch: &mut Scratch, sums: &mut [u32; LANES]) {
        assert!(block.len() == self.width);
        assert!(scratch.compared.len() == self.thresholds.len() && scratch.masks.len() == self.masks);
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has these instructions, as an `Isa` says.
            Isa::Avx512 => unsafe { run_avx512(self, block, scratch, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { run_avx2(self, block, scratch, sums) },
            _ => run(self, block, scratch, sums),
        }
    }
}

/// For each mask the bits that all leaves below it have and that are not already in those of its parent: the fewest
/// masks whose union is a plane.
fn common_bits(plan: &Plan, masks: usize) -> Vec<u8> {
    let mut bits = vec![0; masks];
    for leaf in &plan.leaves {
        bits[usize::from(leaf.from)] = leaf.value;
    }
    for (i, split) in plan.splits.iter().enumerate().rev() {
        let both = bits[2 * i + 1] & bits[2 * i + 2];
        bits[usize::from(split.from)] = both;
        bits[2 * i + 1] &= !both;
        bits[2 * i + 2] &= !both;
    }
    bits
}

/// # Safety
/// The processor has AVX-512 F, BW, VL and DQ.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn run_avx512(program: &Program, block: &[Column], scratch: &mut Scratch, sums: &mut [u32; LANES]) {
    run(program, block, scratch, sums);
}

/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn run_avx2(program: &Program, block: &[Column], scratch: &mut Scratch, sums: &mut [u32; LANES]) {
    run(program, block, scratch, sums);
}

/// The same source for all instructions: the compiler makes vectors of [`Bits`] as wide as they allow.
#[inline(always)]
fn run(program: &Program, block: &[Column], scratch: &mut Scratch, sums: &mut [u32; LANES]) {
    compare(program, block, scratch);
    scratch.sum = [Bits::NONE; SUM_PLANES];
    let (mut splits, mut leaves) = (&program.splits[..], &program.leaves[..]);
    for tree in &program.trees {
        let (mine, rest) = splits.split_at(usize::from(tree.splits));
        splits = rest;
        follow(mine, &scratch.compared, &mut scratch.masks);
        let mut value = [Bits::NONE; PLANES];
        for (value, count) in value.iter_mut().zip(tree.leaves) {
            let (mine, rest) = leaves.split_at(usize::from(count));
            leaves = rest;
            *value = union(mine, &scratch.masks);
        }
        add(&mut scratch.sum[..program.planes], &value);
    }
    sums.fill(0);
    for (i, planes) in scratch.sum[..program.planes.next_multiple_of(PLANES)].as_chunks().0.iter().enumerate() {
        for (sum, byte) in sums.iter_mut().zip(unslice(planes)) {
            *sum |= u32::from(byte) << (8 * i);
        }
    }
}

/// All comparisons of the program.
#[inline(always)]
fn compare(program: &Program, block: &[Column], scratch: &mut Scratch) {
    let (mut thresholds, mut compared) = (&program.thresholds[..], &mut scratch.compared[..]);
    for (feature, count) in &program.features {
        scratch.comparisons.fill(&slice(&block[usize::from(*feature)]));
        let (mine, rest) = thresholds.split_at(usize::from(*count));
        let (out, after) = compared.split_at_mut(mine.len());
        for (out, threshold) in out.iter_mut().zip(mine) {
            *out = scratch.comparisons.greater(*threshold);
        }
        (thresholds, compared) = (rest, after);
    }
}

/// Masks of all nodes of a tree.
#[inline(always)]
fn follow(splits: &[(u16, u16)], compared: &[Bits], masks: &mut [Bits]) {
    masks[0] = Bits::ALL;
    assert!(masks.len() > 2 * splits.len());
    for (i, (comparison, from)) in splits.iter().enumerate() {
        // SAFETY: a comparison is one of `compared`, `from` at most 2i, as `Program::compile` made them; two masks
        // a split fit, as checked above.
        unsafe {
            let greater = *compared.get_unchecked(usize::from(*comparison));
            let mask = *masks.get_unchecked(usize::from(*from));
            *masks.get_unchecked_mut(2 * i + 1) = mask & !greater;
            *masks.get_unchecked_mut(2 * i + 2) = mask & greater;
        }
    }
}

#[inline(always)]
fn union(which: &[u16], masks: &[Bits]) -> Bits {
    // SAFETY: masks of leaves are among those of the tree, as `Program::compile` checked.
    which.iter().fold(Bits::NONE, |all, mask| all | unsafe { *masks.get_unchecked(usize::from(*mask)) })
}
