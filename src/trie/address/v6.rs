//! IPv6 addresses → numbers, longest prefix first, by the few bits in which the prefixes differ.
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

use super::{BuildError, Entry, MAX_VALUE, Prefix, kernel6};
use crate::trie::{BATCH, Isa};

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
pub struct Table6 {
    /// The first is the root.
    pub(super) nodes: Box<[Node]>,
    pub(super) slots: Box<[u32]>,
    pub(super) leaves: Box<[Leaf]>,
    isa: Isa,
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

/// A prefix with its bits from `len` on zero.
type Net = (u128, u8, u32);

impl Table6 {
    /// An address gets the value of the longest prefix that holds it, of equal prefixes the last one's; 0 when there
    /// is none.
    ///
    /// # Errors
    /// A value above [`MAX_VALUE`], or more than 4 GB.
    pub fn build(entries: &[Entry<u128>]) -> Result<Self, BuildError> {
        let greatest = entries.iter().map(|entry| entry.value).max().unwrap_or(0);
        if greatest > MAX_VALUE {
            return Err(BuildError::Value(greatest));
        }
        let mut nets: Vec<Net> = entries.iter().map(|e| (e.prefix.first(e.len), e.len.min(128), e.value)).collect();
        nets.sort_by_key(|(prefix, len, _)| (*prefix, *len));
        nets.dedup_by(|next, kept| {
            let same = (next.0, next.1) == (kept.0, kept.1);
            kept.2 = if same { next.2 } else { kept.2 };
            same
        });
        let mut builder = Builder::default();
        builder.leaves(&nets);
        builder.nodes()?;
        let Builder { nodes, slots, leaves, .. } = builder;
        if size_of_val(&*slots) + size_of_val(&*leaves) > u32::MAX as usize {
            return Err(BuildError::Memory);
        }
        Ok(Self { nodes: nodes.into(), slots: slots.into(), leaves: leaves.into(), isa: Isa::best() })
    }

    pub fn get(&self, address: u128) -> u32 {
        let (mut addresses, mut values) = ([0; BATCH], [0; BATCH]);
        addresses[0] = address;
        self.get_burst(&addresses, 1, &mut values);
        values[0]
    }

    /// The values of the first `len` addresses. What is in the rest of `values` afterwards is of no meaning.
    pub fn get_burst(&self, addresses: &[u128; BATCH], len: usize, values: &mut [u32; BATCH]) {
        kernel6::get(self, self.isa, addresses, len.min(BATCH), values);
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.nodes) + size_of_val(&*self.slots) + size_of_val(&*self.leaves)
    }

    #[cfg(test)]
    fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
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
    fn nodes(&mut self) -> Result<(), BuildError> {
        // Slots that are to become nodes, with their keys.
        let mut left = vec![(None, 0..self.keys.len())];
        while let Some((slot, keys)) = left.pop() {
            if let Some(slot) = slot {
                let slots: &mut [u32] = &mut self.slots;
                slots[slot] = CHILD | self.nodes.len() as u32;
            }
            let mask = self.mask(&keys, slot.is_none());
            let first_slot = u32::try_from(self.slots.len()).ok().filter(|first| *first < CHILD);
            let first_slot = first_slot.ok_or(BuildError::Memory)?;
            let (high, low) = halves(mask);
            self.nodes.push(Node { high, low, first_slot, low_bits: low.count_ones() });
            let bits = mask.count_ones();
            self.slots.resize(first_slot as usize + (1 << bits), 0);
            let mut from = keys.start;
            let mut before: Option<(usize, u32)> = None;
            while from < keys.end {
                let chosen = |at: usize| pick(self.keys[at].0, mask);
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
        Ok(())
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

pub(super) fn halves(address: u128) -> (u64, u64) {
    ((address >> 64) as u64, address as u64)
}

/// The bits of a mask, together.
fn pick(address: u128, mask: u128) -> usize {
    let ((high, low), (high_mask, low_mask)) = (halves(address), halves(mask));
    let high = kernel6::pick(high, high_mask) << low_mask.count_ones();
    (high | kernel6::pick(low, low_mask)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few distinct bits, so that prefixes nest, touch and repeat.
    fn prefix() -> impl Strategy<Value = Entry<u128>> {
        let few = (0u128..4, 0u128..4, 0u128..300, 0u128..5);
        let bits = prop_oneof![any::<u128>(), few.prop_map(|(a, b, c, d)| a << 126 | b << 90 | c << 60 | d)];
        let len = prop_oneof![0u8..=128, Just(128u8), Just(64), Just(48)];
        (bits, len, 0u32..6).prop_map(|(prefix, len, value)| Entry { prefix, len, value })
    }

    fn holds(entry: &Entry<u128>, address: u128) -> bool {
        (entry.prefix ^ address).first(entry.len) == 0
    }

    fn naive(entries: &[Entry<u128>], address: u128) -> u32 {
        let held = entries.iter().filter(|entry| holds(entry, address));
        held.max_by_key(|entry| entry.len).map_or(0, |entry| entry.value)
    }

    fn probes(entries: &[Entry<u128>]) -> Vec<u128> {
        let ends = entries
            .iter()
            .map(|entry| (entry.prefix.first(entry.len), entry.prefix | !u128::MAX.first(entry.len)))
            .chain([(0, u128::MAX)]);
        ends.flat_map(|(a, b)| [a.wrapping_sub(1), a, a / 2 + b / 2, b, b.wrapping_add(1)]).collect()
    }

    fn bursts(table: &Table6, addresses: &[u128]) -> Vec<u32> {
        let mut found = Vec::new();
        for chunk in addresses.chunks(BATCH) {
            let (mut burst, mut values) = ([0; BATCH], [u32::MAX; BATCH]);
            burst[..chunk.len()].copy_from_slice(chunk);
            table.get_burst(&burst, chunk.len(), &mut values);
            found.extend_from_slice(&values[..chunk.len()]);
        }
        found
    }

    proptest! {
        #[test]
        fn the_longest_prefix_counts(
            entries in proptest::collection::vec(prefix(), 0..60), more in any::<[u128; 7]>(),
        ) {
            let addresses = [probes(&entries), more.to_vec()].concat();
            let wanted: Vec<u32> = addresses.iter().map(|address| naive(&entries, *address)).collect();
            for isa in Isa::available() {
                let table = Table6::build(&entries).unwrap().with_isa(isa);
                prop_assert_eq!(&bursts(&table, &addresses), &wanted);
                let singly: Vec<u32> = addresses.iter().map(|address| table.get(*address)).collect();
                prop_assert_eq!(&singly, &wanted);
            }
        }
    }

    #[test]
    fn memory_follows_the_number_of_prefixes() {
        let hosts: Vec<_> = (0..10_000u128)
            .map(|at| Entry {
                prefix: 0x2001_0db8 << 96 | at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1,
                len: 128,
                value: 1,
            })
            .collect();
        assert!(Table6::build(&hosts).unwrap().memory_bytes() < 96 * hosts.len());
    }

    #[test]
    fn values_have_a_limit() {
        let entry = Entry { prefix: 0, len: 0, value: MAX_VALUE + 1 };
        assert_eq!(Table6::build(&[entry]).unwrap_err(), BuildError::Value(MAX_VALUE + 1));
    }
}
