//! Which rules may concern a region: bounding boxes of cells in trees.
//!
//! A box keeps the hull of five dimensions, 64 bits each (of an IPv6 address the first half). Boxes that are wide in
//! source, destination or ports would spoil the halving of those that are not, so each of the eight mixtures has a
//! tree of its own (separable trees as in EffiCuts, SIGCOMM 2010), for each IP version.

use std::ops::{ControlFlow, Range};

use super::space::{Cell, DST, DST_PORT, HEADER, Point, SRC, SRC_PORT, Set, VERSIONS};

/// Dimensions of a box.
const SIDES: [usize; 5] = [SRC, DST, DST_PORT, SRC_PORT, HEADER];
/// Boxes in a leaf.
const LEAF: usize = 8;
/// Most boxes that one rule with scattered addresses is cut into on each side.
const MOST_CUTS: usize = 8;
/// Boxes in all, roughly, that cutting may lead to.
const ROOM: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
struct Bounds {
    first: [u64; SIDES.len()],
    last: [u64; SIDES.len()],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    bounds: Bounds,
    rule: u32,
}

#[derive(Debug)]
struct Node {
    bounds: Bounds,
    /// First and last rule below.
    rules: (u32, u32),
    /// Of the entries; the left child follows its parent.
    entries: Range<u32>,
    /// 0: a leaf.
    right: u32,
}

/// Finds rules by their place in evaluation order.
#[derive(Debug)]
pub(super) struct Index {
    trees: Vec<(u8, Tree)>,
}

#[derive(Debug, Default)]
struct Tree {
    entries: Vec<Entry>,
    nodes: Vec<Node>,
}

impl Index {
    /// Of the cells of each rule.
    pub(super) fn new(rules: &[Vec<Cell>]) -> Self {
        let cuts = (1..=MOST_CUTS).rev().find(|cuts| cuts * cuts * rules.len() <= ROOM).unwrap_or(1);
        let mut kinds: Vec<(u8, Vec<Entry>)> = Vec::new();
        for version in VERSIONS {
            kinds.extend((0..8).map(|_| (version, Vec::new())));
        }
        for (rule, cells) in rules.iter().enumerate() {
            for cell in cells {
                let base = if cell.version == VERSIONS[0] { 0 } else { 8 };
                for bounds in boxes(cell, cuts) {
                    kinds[base + bounds.mixture()].1.push(Entry { bounds, rule: rule as u32 });
                }
            }
        }
        let trees = kinds.into_iter().filter(|(_, entries)| !entries.is_empty());
        Self { trees: trees.map(|(version, entries)| (version, Tree::new(entries))).collect() }
    }

    /// Calls `each` with the rules in `range` that may meet the cell, in no order and perhaps repeatedly.
    pub(super) fn near(
        &self,
        cell: &Cell,
        range: &Range<u32>,
        each: &mut impl FnMut(u32) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let bounds = Bounds::of(cell.version, |at| cell.sets[SIDES[at]].hull().unwrap_or((1, 0)));
        let trees = self.trees.iter().filter(|(version, _)| *version == cell.version);
        for (_, tree) in trees {
            tree.near(&bounds, range, each)?;
        }
        ControlFlow::Continue(())
    }

    /// The first rule in `range` for which `holds` says that it decides the packet.
    pub(super) fn first(&self, point: &Point, range: Range<u32>, mut holds: impl FnMut(u32) -> bool) -> Option<u32> {
        let bounds = Bounds::of(point.version, |at| (point.values[SIDES[at]], point.values[SIDES[at]]));
        let mut best = range.end;
        for (_, tree) in self.trees.iter().filter(|(version, _)| *version == point.version) {
            tree.first(&bounds, range.start, &mut best, &mut holds);
        }
        (best < range.end).then_some(best)
    }
}

impl Bounds {
    fn of(version: u8, hull: impl Fn(usize) -> (u128, u128)) -> Self {
        let mut bounds = Self { first: [0; SIDES.len()], last: [0; SIDES.len()] };
        for (at, side) in SIDES.into_iter().enumerate() {
            let (first, last) = hull(at);
            (bounds.first[at], bounds.last[at]) = (scaled(version, side, first), scaled(version, side, last));
        }
        bounds
    }

    fn meets(&self, other: &Bounds) -> bool {
        (0..SIDES.len()).all(|at| self.first[at] <= other.last[at] && other.first[at] <= self.last[at])
    }

    fn join(&mut self, other: &Bounds) {
        for at in 0..SIDES.len() {
            self.first[at] = self.first[at].min(other.first[at]);
            self.last[at] = self.last[at].max(other.last[at]);
        }
    }

    fn middle(&self, side: usize) -> u64 {
        self.first[side] / 2 + self.last[side] / 2
    }

    /// Which of source, destination and destination port are wide: more than a 16th of all values.
    fn mixture(&self) -> usize {
        (0..3).fold(0, |mixture, at| mixture | usize::from(self.last[at] - self.first[at] > u64::MAX / 16) << at)
    }
}

/// Spread over 64 bits, so that extents can be compared; keeps the order.
fn scaled(version: u8, side: usize, value: u128) -> u64 {
    match side {
        SRC | DST if version == 4 => (value as u64) << 32,
        SRC | DST => (value >> 64) as u64,
        HEADER => (value as u64) << 55,
        _ => (value as u64) << 48,
    }
}

/// Boxes that hold the cell: its hull, cut into at most `cuts` parts on each side when its addresses are scattered.
fn boxes(cell: &Cell, cuts: usize) -> Vec<Bounds> {
    let (sources, destinations) = (parts(&cell.sets[SRC], cuts), parts(&cell.sets[DST], cuts));
    let hull = |at: usize| cell.sets[SIDES[at]].hull().unwrap_or((1, 0));
    let bounds = |src, dst| Bounds::of(cell.version, |at| [src, dst, hull(2), hull(3), hull(4)][at]);
    sources.iter().flat_map(|src| destinations.iter().map(move |dst| (*src, *dst))).map(|(s, d)| bounds(s, d)).collect()
}

fn parts(set: &Set, most: usize) -> Vec<(u128, u128)> {
    let spans = set.spans();
    spans.chunks(spans.len().div_ceil(most).max(1)).map(|part| (part[0].0, part[part.len() - 1].1)).collect()
}

impl Tree {
    fn new(entries: Vec<Entry>) -> Self {
        let mut tree = Self { entries, nodes: Vec::new() };
        tree.grow(0, tree.entries.len());
        tree
    }

    /// Depth is logarithmic: every node halves its entries.
    fn grow(&mut self, start: usize, end: usize) {
        let mut bounds = self.entries[start].bounds;
        let mut rules = (u32::MAX, 0);
        for entry in &self.entries[start..end] {
            bounds.join(&entry.bounds);
            rules = (rules.0.min(entry.rule), rules.1.max(entry.rule));
        }
        let at = self.nodes.len();
        self.nodes.push(Node { bounds, rules, entries: start as u32..end as u32, right: 0 });
        if end - start <= LEAF {
            return;
        }
        let middle = start + (end - start) / 2;
        self.halve(start, end, middle, &bounds);
        self.grow(start, middle);
        self.nodes[at].right = self.nodes.len() as u32;
        self.grow(middle, end);
    }

    /// Halves the entries by the side on which the halves overlap least, or by rule when none tells them apart.
    fn halve(&mut self, start: usize, end: usize, middle: usize, bounds: &Bounds) {
        let entries = &mut self.entries[start..end];
        let mut best = (0.95, None);
        for side in 0..SIDES.len() {
            let extent = (bounds.last[side] - bounds.first[side]) as f64;
            if extent == 0.0 {
                continue;
            }
            entries.select_nth_unstable_by_key(middle - start, |entry| entry.bounds.middle(side));
            let (lower, upper) = entries.split_at(middle - start);
            let last = lower.iter().map(|entry| entry.bounds.last[side]).max().unwrap_or(0);
            let first = upper.iter().map(|entry| entry.bounds.first[side]).min().unwrap_or(u64::MAX);
            let overlap = last.saturating_sub(first) as f64 / extent;
            if overlap < best.0 {
                best = (overlap, Some(side));
            }
        }
        match best.1 {
            Some(side) => entries.select_nth_unstable_by_key(middle - start, |entry| entry.bounds.middle(side)),
            None => entries.select_nth_unstable_by_key(middle - start, |entry| u64::from(entry.rule)),
        };
    }

    fn near(
        &self,
        bounds: &Bounds,
        range: &Range<u32>,
        each: &mut impl FnMut(u32) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut open = vec![0u32];
        while let Some(at) = open.pop() {
            let node = &self.nodes[at as usize];
            if node.rules.1 < range.start || node.rules.0 >= range.end || !node.bounds.meets(bounds) {
                continue;
            }
            if node.right != 0 {
                open.extend([node.right, at + 1]);
                continue;
            }
            for entry in &self.entries[node.entries.start as usize..node.entries.end as usize] {
                if range.contains(&entry.rule) && entry.bounds.meets(bounds) {
                    each(entry.rule)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn first(&self, bounds: &Bounds, start: u32, best: &mut u32, holds: &mut impl FnMut(u32) -> bool) {
        let mut open = vec![0u32];
        while let Some(at) = open.pop() {
            let node = &self.nodes[at as usize];
            if node.rules.1 < start || node.rules.0 >= *best || !node.bounds.meets(bounds) {
                continue;
            }
            if node.right != 0 {
                open.extend([node.right, at + 1]);
                continue;
            }
            for entry in &self.entries[node.entries.start as usize..node.entries.end as usize] {
                if (start..*best).contains(&entry.rule) && entry.bounds.meets(bounds) && holds(entry.rule) {
                    *best = entry.rule;
                }
            }
        }
    }
}
