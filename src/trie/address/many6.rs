//! [`Table6`](super::Table6) for prefixes that differ in many bits.
//!
//! Only prefixes with none inside are searched for: the *leaves*. Sorted, each parts from the next at some bit; an
//! address is looked up by those bits alone (as in a Patricia trie, Morrison, JACM 1968), many of them at a time:
//!
//! ```text
//!  address ──► bits of the root's mask ──► slot ─┬─► leaf
//!                                                └─► node ──► bits of its mask ──► slot ──► leaf
//!  leaf: address of the prefix, ends of the prefixes around it, the value inside each
//! ```
//! Of all leaves, the one that is found shares the most first bits with the address: a bit that no node looked at is
//! the same in all leaves of the node. A slot that no leaf has therefore leads to the leaf nearest to it. Every prefix
//! that holds the address holds that leaf, so one comparison says the rest: the bits that leaf and address share tell
//! which of the prefixes around the leaf is the longest that holds the address.

use super::Prefix;
use super::kernel6::{halves, pick};
use super::v6::Net;

/// In a slot: the other bits are the number of a node, else of a leaf. In a leaf's first value: of a leaf.
pub(super) const CHILD: u32 = 1 << 31;
/// Prefixes around a leaf, itself among them, that are told apart at once.
pub(super) const AROUND: usize = 8;
/// Slots of the root for each leaf, at most, and of other nodes.
const ROOT_SPARSE: usize = 16;
const SPARSE: usize = 4;
/// Bits that the root may look at, and other nodes.
const ROOT_BITS: usize = 16;
const BITS: usize = 12;

/// Immutable; see the module.
#[derive(Debug)]
pub(super) struct Many {
    /// The first is the root.
    pub(super) nodes: Box<[Node]>,
    pub(super) slots: Box<[u32]>,
    pub(super) leaves: Box<[Leaf]>,
}

/// Which bits of an address choose one of the node's slots: those of `high`, then those of `low`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) high: u64,
    pub(super) low: u64,
    pub(super) first_slot: u32,
    /// Bits of `low`.
    pub(super) low_bits: u32,
}

/// A prefix with none inside, and those around it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Leaf {
    pub(super) high: u64,
    pub(super) low: u64,
    /// A byte for each prefix, outermost in the lowest: its length less one. Bytes not needed have 127.
    pub(super) ends: u64,
    /// Outside of all; within the first; and so on. If there are more prefixes outside, the first is [`CHILD`] and the
    /// number of a leaf that has them.
    pub(super) values: [u32; AROUND + 1],
}

impl Many {
    /// For prefixes that are distinct, ascending, outer before inner. `None` when it would take more than 4 GB.
    pub(super) fn build(nets: &[Net]) -> Option<Self> {
        let mut builder = Builder::default();
        builder.leaves(nets);
        builder.nodes()?;
        let Builder { nodes, slots, leaves, .. } = builder;
        let fits = size_of_val(&*slots) + size_of_val(&*leaves) <= u32::MAX as usize;
        fits.then(|| Self { nodes: nodes.into(), slots: slots.into(), leaves: leaves.into() })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.nodes) + size_of_val(&*self.slots) + size_of_val(&*self.leaves)
    }
}

#[derive(Default)]
struct Builder {
    /// Of each leaf, ascending: the address and its number.
    keys: Vec<(u128, u32)>,
    /// By key: how many first bits it has in common with the next.
    common: Vec<u32>,
    nodes: Vec<Node>,
    slots: Vec<u32>,
    leaves: Vec<Leaf>,
}

impl Builder {
    fn leaves(&mut self, nets: &[Net]) {
        // Prefixes around the current one, outermost first, without those that say what is said already.
        let mut open: Vec<Net> = Vec::new();
        for (at, net) in nets.iter().enumerate() {
            open.retain(|(around, len, _)| net.0.first(*len) == *around);
            if open.last().map_or(0, |(_, _, value)| *value) != net.2 {
                open.push(*net);
            }
            let inside = |next: &Net| next.0.first(net.1) == net.0;
            if !nets.get(at + 1).is_some_and(inside) {
                self.leaf(net.0, &open);
            }
        }
        if self.keys.is_empty() {
            self.leaf(0, &[]);
        }
        self.common = self.keys.windows(2).map(|pair| (pair[0].0 ^ pair[1].0).leading_zeros()).collect();
    }

    fn leaf(&mut self, address: u128, around: &[Net]) {
        self.keys.push((address, self.leaves.len() as u32));
        let mut around = around;
        loop {
            let outermost = if let [(_, 0, value), ..] = around { *value } else { 0 };
            let told = if around.first().is_some_and(|(_, len, _)| *len == 0) { &around[1..] } else { around };
            let (outer, told) = told.split_at(told.len().saturating_sub(AROUND));
            let mut ends = [127; AROUND];
            let mut values = [told.last().map_or(outermost, |(_, _, value)| *value); AROUND + 1];
            values[0] = if outer.is_empty() { outermost } else { CHILD | (self.leaves.len() as u32 + 1) };
            for (at, (_, len, value)) in told.iter().enumerate() {
                (ends[at], values[at + 1]) = (len - 1, *value);
            }
            let (high, low) = halves(address);
            self.leaves.push(Leaf { high, low, ends: u64::from_le_bytes(ends), values });
            if outer.is_empty() {
                return;
            }
            around = &around[..around.len() - told.len()];
        }
    }

    /// The root, and what is below.
    fn nodes(&mut self) -> Option<()> {
        // Slots that are to become nodes, with their keys.
        let mut left = vec![(None, 0..self.keys.len())];
        while let Some((slot, keys)) = left.pop() {
            if let Some(slot) = slot {
                let slots: &mut [u32] = &mut self.slots;
                slots[slot] = CHILD | self.nodes.len() as u32;
            }
            let mask = self.mask(&keys, slot.is_none());
            let first_slot = u32::try_from(self.slots.len()).ok().filter(|first| *first < CHILD)?;
            let (high, low) = halves(mask);
            self.nodes.push(Node { high, low, first_slot, low_bits: low.count_ones() });
            let bits = mask.count_ones();
            self.slots.resize(first_slot as usize + (1 << bits), 0);
            let mut from = keys.start;
            let mut before: Option<(usize, u32)> = None;
            while from < keys.end {
                let chosen = |at: usize| gathered(self.keys[at].0, mask);
                let slot = chosen(from);
                let end = (from..keys.end).find(|at| chosen(*at) != slot).unwrap_or(keys.end);
                self.between(first_slot as usize, before, slot, from);
                let place = first_slot as usize + slot;
                self.slots[place] = self.keys[from].1;
                if end - from > 1 {
                    left.push((Some(place), from..end));
                }
                before = Some((slot, self.keys[end - 1].1));
                from = end;
            }
            let (last, leaf) = before.expect("a node has keys");
            self.slots[first_slot as usize + last + 1..].fill(leaf);
        }
        Some(())
    }

    /// Fills the slots before `slot`, which the keys from `key` on have, with the leaf that each is nearer to.
    fn between(&mut self, first: usize, before: Option<(usize, u32)>, slot: usize, key: usize) {
        let after = self.keys[key].1;
        let Some((last, leaf)) = before else { return self.slots[first..first + slot].fill(after) };
        for at in last + 1..slot {
            self.slots[first + at] = if at ^ last < at ^ slot { leaf } else { after };
        }
    }

    /// The bits at which the keys part, as many of the first ones as a node has slots for.
    fn mask(&self, keys: &std::ops::Range<usize>, root: bool) -> u128 {
        let parting = self.common[keys.start..keys.end - 1].iter().fold(0, |mask, at| mask | 1u128 << (127 - at));
        let (bits, sparse) = if root { (ROOT_BITS, ROOT_SPARSE) } else { (BITS, SPARSE) };
        let most = bits.min((keys.len() * sparse).ilog2() as usize);
        let (mut mask, mut left) = (0, parting);
        for _ in 0..most.min(parting.count_ones() as usize) {
            let first = 1 << (127 - left.leading_zeros());
            (mask, left) = (mask | first, left & !first);
        }
        mask
    }
}

/// The bits of a mask, together.
fn gathered(address: u128, mask: u128) -> usize {
    let ((high, low), (high_mask, low_mask)) = (halves(address), halves(mask));
    (pick(high, high_mask) << low_mask.count_ones() | pick(low, low_mask)) as usize
}
