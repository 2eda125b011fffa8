//! 32-bit labels for sets of groups, so that membership in a group is a few prefixes of labels.
//!
//! Sets with a group in common get a common block (`nest`), the groups that can have one at the least cost to others
//! first. With one umbrella group and nothing else in common:
//!
//! ```text
//! {} 000   {a} 001   {b} 010   {all,c} 100   {all,d} 101   {all,e} 110      all = 1··, c = 100, a = 001
//! ```
//! Groups that cross each other, as of places and of purposes, cannot all have one block: when those of one kind have,
//! those of the other are in pieces, a prefix each.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::nest::{Block, nest};
use crate::trie::mask;

/// What sets and groups become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sets {
    /// For each set, in the order given. The empty set has label 0, and no other.
    pub labels: Vec<u32>,
    /// For each group: prefixes that together hold the labels of the sets with this group and of no other set.
    pub groups: Vec<Vec<Block>>,
}

/// Labels for distinct sets, each the ascending numbers of its groups. `weights` says of each group how much a prefix
/// more would cost, as in how many rows ask for it.
///
/// # Panics
/// When a group's number is not below the number of weights.
pub fn number_sets(sets: &[Vec<u16>], weights: &[u32]) -> Sets {
    let mut tree = Tree { sets, weights, parents: vec![0], set_at: vec![None] };
    tree.grow();
    let nodes = match nest(&tree.parents, |node| node == 0 || tree.set_at[node].is_some()) {
        Some(blocks) => blocks.into_iter().map(|block| block.value).collect(),
        None => tree.in_sequence(),
    };
    let mut labels = vec![0; sets.len()];
    for (set, label) in tree.set_at.iter().zip(nodes) {
        set.iter().for_each(|set| labels[*set] = label);
    }
    let groups = cover(sets, &labels, weights.len());
    Sets { labels, groups }
}

struct Tree<'a> {
    sets: &'a [Vec<u16>],
    weights: &'a [u32],
    parents: Vec<usize>,
    /// The set whose label is the node's own number.
    set_at: Vec<Option<usize>>,
}

/// Sets to be placed below a node.
struct Task {
    node: usize,
    /// Nothing else is below the node.
    alone: bool,
    sets: Vec<usize>,
}

impl Tree<'_> {
    fn grow(&mut self) {
        let sets = (0..self.sets.len()).filter(|set| !self.sets[*set].is_empty()).collect();
        let mut tasks = vec![Task { node: 0, alone: false, sets }];
        while let Some(mut task) = tasks.pop() {
            let together = Together::new(self.sets, &task.sets);
            if !task.alone && task.sets.len() > 1 && together.count.values().any(|count| *count == task.sets.len()) {
                let node = self.add(task.node, None);
                tasks.push(Task { node, alone: true, sets: task.sets });
                continue;
            }
            let chosen = self.choose(&together, task.sets.len());
            if chosen.is_empty() {
                self.leaves(&task);
                continue;
            }
            let (mut rest, mut parts) = (Vec::new(), BTreeMap::<u16, Vec<usize>>::new());
            for set in std::mem::take(&mut task.sets) {
                match self.sets[set].iter().find(|group| chosen.contains(group)) {
                    Some(group) => parts.entry(*group).or_default().push(set),
                    None => rest.push(set),
                }
            }
            for sets in parts.into_values() {
                let node = self.add(task.node, None);
                tasks.push(Task { node, alone: true, sets });
            }
            tasks.push(Task { alone: false, sets: rest, ..task });
        }
    }

    fn leaves(&mut self, task: &Task) {
        let mut sets = task.sets.clone();
        sets.sort_by_key(|set| &self.sets[*set]);
        for set in sets {
            self.add(task.node, Some(set));
        }
    }

    /// Labels in the order of the tree, without blocks: for trees so deep that blocks would take more than 32 bits.
    fn in_sequence(&self) -> Vec<u32> {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.parents.len()];
        for (node, parent) in self.parents.iter().enumerate().skip(1) {
            children[*parent].push(node);
        }
        let mut labels = vec![0; self.parents.len()];
        let (mut next, mut left) = (0, vec![0]);
        let spare = (self.sets.len() as u32).leading_zeros();
        while let Some(node) = left.pop() {
            next += u32::from(self.set_at[node].is_some());
            labels[node] = next << spare;
            left.extend(&children[node]);
        }
        labels
    }

    fn add(&mut self, parent: usize, set: Option<usize>) -> usize {
        self.parents.push(parent);
        self.set_at.push(set);
        self.parents.len() - 1
    }

    /// Groups that get a block, none of which shares a set with another. The best has the least cost, in pieces of
    /// other groups, for each set in its block; with it are chosen those that are as good.
    fn choose(&self, together: &Together, sets: usize) -> BTreeSet<u16> {
        let mut candidates = Vec::new();
        for (group, partners) in &together.partners {
            let count = together.count[group];
            // One set needs no block, and a group of all sets has that of the node.
            if count == 1 || count == sets {
                continue;
            }
            let torn = partners.iter().filter(|(partner, both)| **both < together.count[partner]);
            let cost: u64 = torn.map(|(partner, _)| u64::from(self.weights[usize::from(*partner)])).sum();
            candidates.push((cost as f64 / count as f64, Reverse(count), *group));
        }
        candidates.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut chosen = BTreeSet::new();
        let Some((best, ..)) = candidates.first().copied() else { return chosen };
        for (_, _, group) in candidates.into_iter().take_while(|(cost, ..)| *cost <= best) {
            if together.partners[&group].keys().all(|partner| !chosen.contains(partner)) {
                chosen.insert(group);
            }
        }
        chosen
    }
}

/// How often groups occur, and occur together, in some of the sets.
struct Together {
    count: HashMap<u16, usize>,
    partners: BTreeMap<u16, HashMap<u16, usize>>,
}

impl Together {
    fn new(sets: &[Vec<u16>], some: &[usize]) -> Self {
        let mut count = HashMap::<u16, usize>::new();
        for group in some.iter().flat_map(|set| &sets[*set]) {
            *count.entry(*group).or_default() += 1;
        }
        let mut partners = BTreeMap::<u16, HashMap<u16, usize>>::new();
        for set in some {
            // Groups of all sets tear nothing and are not torn.
            let set: Vec<u16> = sets[*set].iter().copied().filter(|group| count[group] < some.len()).collect();
            for group in &set {
                let partners = partners.entry(*group).or_default();
                set.iter().filter(|other| *other != group).for_each(|other| *partners.entry(*other).or_default() += 1);
            }
        }
        Self { count, partners }
    }
}

/// The fewest prefixes for each group.
fn cover(sets: &[Vec<u16>], labels: &[u32], groups: usize) -> Vec<Vec<Block>> {
    let mut ordered: Vec<(u32, &[u16])> = labels.iter().copied().zip(sets.iter().map(Vec::as_slice)).collect();
    ordered.push((0, &[]));
    ordered.sort_unstable();
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); groups];
    for (at, (_, set)) in ordered.iter().enumerate() {
        set.iter().for_each(|group| members[usize::from(*group)].push(at));
    }
    let cover = |members: Vec<usize>| {
        let mut blocks: Vec<Block> = Vec::new();
        for run in members.chunk_by(|a, b| a + 1 == *b) {
            // The label of the empty set, 0, is before all others.
            let before = run.first().map_or(0, |first| ordered[first - 1].0);
            let after = run.last().and_then(|last| ordered.get(last + 1)).map(|(label, _)| *label);
            for (label, _) in run.iter().map(|at| ordered[*at]) {
                if blocks.last().is_none_or(|block| (block.value ^ label) & mask(block.len) != 0) {
                    blocks.push(widest(label, before, after));
                }
            }
        }
        blocks
    };
    members.into_iter().map(cover).collect()
}

/// The widest block with `label` between `before` and `after`.
fn widest(label: u32, before: u32, after: Option<u32>) -> Block {
    let block = |len| Block { value: label & mask(len), len };
    let fits = |block: &Block| block.value > before && after.is_none_or(|after| block.value | !mask(block.len) < after);
    (0..32).map(block).find(fits).unwrap_or(block(32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(sets: &[Vec<u16>], groups: u16, numbered: &Sets) {
        let distinct: BTreeSet<u32> = numbered.labels.iter().copied().collect();
        assert_eq!(distinct.len(), sets.len());
        for (set, label) in sets.iter().zip(&numbered.labels) {
            assert_eq!(set.is_empty(), *label == 0);
            for group in 0..groups {
                let blocks = &numbered.groups[usize::from(group)];
                let inside = blocks.iter().any(|block| (block.value ^ label) & mask(block.len) == 0);
                assert_eq!(inside, set.contains(&group), "{set:?} {group}");
            }
        }
    }

    fn pieces(sets: &[Vec<u16>], groups: u16) -> Vec<usize> {
        let numbered = number_sets(sets, &vec![1; groups.into()]);
        check(sets, groups, &numbered);
        numbered.groups.iter().map(Vec::len).collect()
    }

    proptest! {
        #[test]
        fn a_label_lies_in_the_prefixes_of_the_groups_of_its_set(
            sets in proptest::collection::btree_set(proptest::collection::btree_set(0u16..12, 0..6), 0..60),
            weights in any::<[u8; 12]>(),
        ) {
            let sets: Vec<Vec<u16>> = sets.into_iter().map(|set| set.into_iter().collect()).collect();
            check(&sets, 12, &number_sets(&sets, &weights.map(u32::from)));
        }
    }

    #[test]
    fn nested_groups_have_one_prefix_each() {
        // Group 0 holds all, 1 and 2 a half each, the others some endpoints each.
        let leaf = |group: u16| vec![0, 1 + group % 2, group];
        let mut sets: Vec<Vec<u16>> = (3..103).map(leaf).collect();
        sets.extend([vec![], vec![0], vec![0, 1], vec![0, 2]]);
        assert_eq!(pieces(&sets, 103), vec![1; 103]);
    }

    #[test]
    fn of_crossing_groups_the_weightier_stay_whole() {
        // 3 places by 50 purposes.
        let sets: Vec<Vec<u16>> = (0..3).flat_map(|place| (3..53).map(move |purpose| vec![place, purpose])).collect();
        let even = pieces(&sets, 53);
        assert_eq!((&even[..3], even[3..].iter().sum::<usize>()), (&[1, 1, 1][..], 150));
        let weights: Vec<u32> = (0..53).map(|group| if group < 3 { 1 } else { 100 }).collect();
        let numbered = number_sets(&sets, &weights);
        check(&sets, 53, &numbered);
        assert!(numbered.groups[3..].iter().all(|blocks| blocks.len() == 1));
    }

    #[test]
    fn without_room_for_blocks_labels_keep_their_order() {
        // Each set holds the next one's groups and one more.
        let sets: Vec<Vec<u16>> = (0..60).map(|most| (0..most).collect()).collect();
        let numbered = number_sets(&sets, &[1; 60]);
        check(&sets, 60, &numbered);
        assert!(numbered.groups.iter().map(Vec::len).max() <= Some(12));
    }

    #[test]
    fn no_sets_and_groups_without_members() {
        assert_eq!(pieces(&[vec![]], 2), [0, 0]);
        assert_eq!(pieces(&[vec![1]], 2), [0, 1]);
    }
}
