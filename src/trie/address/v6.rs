//! IPv6 addresses → numbers, longest prefix first: a trie with path and level compression (Nilsson and Karlsson,
//! IEEE JSAC 1999) whose nodes check the bits that were skipped.
//!
//! A node stands for a prefix of `at` bits and has an entry for each value of the next `stride` bits, plus one for the
//! addresses outside of the prefix. As many bits are taken, up to 10, as leave a quarter of the entries in use or need
//! no more entries than there are prefixes below:
//!
//! ```text
//! word 0..4           4                        5 …                    5 + 2^stride
//! prefix, low first   shift | 2^stride << 8    entries by next bits   entry for outside
//! ```
//! One comparison does it all: with `shift = 128 - at - stride`, `(address ^ prefix) >> shift` is below `2^stride`
//! exactly for addresses in the prefix, and is then the number of the entry. An entry is a value, or ([`CHILD`] set) a
//! node. The entry for outside is always a value, for the longest prefix around a node is known when it is made.

use std::collections::{BTreeMap, HashMap};

use super::arena::{Block, Edit, UNIT, Version, units};
use super::kernel6::Kernel;
use super::{BuildError, Entry, MAX_VALUE, Prefix};
use crate::trie::BATCH;

/// In an entry: the other bits are the first unit of a node.
pub(super) const CHILD: u32 = 1 << 31;
const MAX_STRIDE: u32 = 10;
/// Entries for each one in use, at most, unless there are as many prefixes.
const SPARSE: usize = 4;
/// Words before the entries.
pub(super) const HEAD: usize = 5;
/// In the word of the shift: the number of the entry for outside.
pub(super) const OUTSIDE_AT: u32 = 8;

/// Immutable; see the module.
#[derive(Debug)]
pub struct Table6 {
    root: u32,
    /// Nodes on the way to a prefix, on average.
    steps: usize,
    version: Version,
    kernel: Kernel,
}

impl Table6 {
    /// An address gets the value of the longest prefix that holds it, of equal prefixes the last one's; 0 when there
    /// is none.
    ///
    /// # Errors
    /// A value above [`MAX_VALUE`], or more than 4 GB.
    pub fn build(entries: &[Entry<u128>]) -> Result<Self, BuildError> {
        check(entries)?;
        let mut sorted: Vec<_> = entries.iter().map(|entry| (first(entry), entry.len.min(128), entry.value)).collect();
        sorted.sort_by_key(|(prefix, len, _)| (*prefix, *len));
        sorted.dedup_by(|next, kept| {
            let same = (next.0, next.1) == (kept.0, kept.1);
            kept.2 = if same { next.2 } else { kept.2 };
            same
        });
        let mut builder = Builder { words: Vec::new(), depth: 0, depths: 0 };
        let root = builder.entry(&sorted, 0, 0);
        let steps = builder.depths.div_ceil(sorted.len().max(1));
        let version = Version::first(&builder.words, HashMap::new()).ok_or(BuildError::Memory)?;
        Ok(Self { root, steps, version, kernel: Kernel::best() })
    }

    /// The next version, in which all addresses of each entry's prefix have its value, whatever they had before; of
    /// overlapping entries the last counts. It shares with this one all that has not changed. Many changes make the
    /// trie deeper than [`Table6::build`] would.
    ///
    /// # Errors
    /// As for [`Table6::build`].
    pub fn with_changes(&self, changes: &[Entry<u128>]) -> Result<Self, BuildError> {
        check(changes)?;
        if let Some(next) = self.edited(changes) {
            return Ok(next);
        }
        // No room, or not the newest version.
        let mut entries = BTreeMap::new();
        self.collect(self.root, (0, 0), 0, &mut entries);
        for change in changes {
            let (prefix, last) = (first(change), first(change) | !u128::MAX.first(change.len));
            while let Some((&inside, _)) = entries.range((prefix, change.len)..=(last, 128)).next() {
                entries.remove(&inside);
            }
            entries.insert((prefix, change.len), change.value);
        }
        let entries: Vec<_> = entries.into_iter().map(|((prefix, len), value)| Entry { prefix, len, value }).collect();
        Self::build(&entries)
    }

    pub fn get(&self, address: u128) -> u32 {
        let mut entry = self.root;
        while entry & CHILD != 0 {
            let node = Node::load(|offset| self.version.word(entry & !CHILD, offset));
            entry = self.version.word(entry & !CHILD, node.offset(address));
        }
        entry
    }

    /// The values of the first `len` addresses. What is in the rest of `values` afterwards is of no meaning.
    pub fn get_burst(&self, addresses: &[u128; BATCH], len: usize, values: &mut [u32; BATCH]) {
        self.kernel.get(self, addresses, len, values);
    }

    /// Memory in use, in bytes, with that of older versions that are still there.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.version.memory_bytes()
    }

    pub(super) fn root(&self) -> u32 {
        self.root
    }

    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    pub(super) fn base(&self) -> *const u32 {
        self.version.base()
    }

    #[cfg(test)]
    fn with_kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// `None` when there is no room or a newer version.
    fn edited(&self, changes: &[Entry<u128>]) -> Option<Self> {
        let mut painter = Painter { edit: self.version.edit()? };
        let mut root = self.root;
        for change in changes {
            root = painter.paint(root, 0, first(change), u32::from(change.len), change.value)?;
        }
        Some(Self { root, steps: self.steps, version: painter.edit.finish(), kernel: self.kernel })
    }

    /// Prefixes with the same meaning as an entry that stands for a prefix inside of which the value is otherwise
    /// `around`.
    fn collect(&self, entry: u32, (prefix, len): (u128, u8), around: u32, into: &mut BTreeMap<(u128, u8), u32>) {
        if entry & CHILD == 0 {
            if entry != around {
                into.insert((prefix, len), entry);
            }
            return;
        }
        let at = entry & !CHILD;
        let node = Node::load(|offset| self.version.word(at, offset));
        let outside = self.version.word(at, node.outside());
        if outside != around {
            into.insert((prefix, len), outside);
        }
        for (slot, offset) in (HEAD..node.outside()).enumerate() {
            let inner = node.prefix | (slot as u128).checked_shl(node.shift).unwrap_or(0);
            self.collect(self.version.word(at, offset), (inner, node.end() as u8), outside, into);
        }
    }
}

fn check(entries: &[Entry<u128>]) -> Result<(), BuildError> {
    let greatest = entries.iter().map(|entry| entry.value).max().unwrap_or(0);
    if greatest > MAX_VALUE { Err(BuildError::Value(greatest)) } else { Ok(()) }
}

fn first(entry: &Entry<u128>) -> u128 {
    entry.prefix.first(entry.len)
}

/// How many first bits are the same, at most `limit`.
fn common(a: u128, b: u128, limit: u32) -> u32 {
    (a ^ b).leading_zeros().min(limit)
}

/// What stands in a node before the entries.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Bits from `at` on are zero.
    prefix: u128,
    shift: u32,
    stride: u32,
}

impl Node {
    fn new(prefix: u128, at: u32, stride: u32) -> Self {
        Self { prefix, shift: 128 - at - stride, stride }
    }

    fn load(word: impl Fn(usize) -> u32) -> Self {
        let prefix = (0..4).map(|at| u128::from(word(at)) << (32 * at)).sum();
        let shape = word(4);
        Self { prefix, shift: shape & 0xff, stride: (shape >> OUTSIDE_AT).trailing_zeros() }
    }

    fn head(&self) -> [u32; HEAD] {
        let [a, b, c, d] = [0, 32, 64, 96].map(|shift| (self.prefix >> shift) as u32);
        [a, b, c, d, self.shift | 1 << self.stride << OUTSIDE_AT]
    }

    /// Length of the prefix.
    fn at(&self) -> u32 {
        128 - self.shift - self.stride
    }

    /// Length of the prefixes that the entries stand for.
    fn end(&self) -> u32 {
        128 - self.shift
    }

    /// Where the entry for outside is.
    fn outside(&self) -> usize {
        HEAD + (1 << self.stride)
    }

    fn units(&self) -> u32 {
        units(self.outside() + 1)
    }

    /// Where the entry for an address is.
    fn offset(&self, address: u128) -> usize {
        let slot = (address ^ self.prefix).checked_shr(self.shift).unwrap_or(0);
        HEAD + slot.min(1 << self.stride) as usize
    }
}

/// Writes the nodes of a new table.
struct Builder {
    words: Vec<u32>,
    /// Nodes around what is being written, and the sum of it over the prefixes written.
    depth: usize,
    depths: usize,
}

impl Builder {
    /// The entry for a block of addresses, whose first `known` bits are the same, with the sorted prefixes in it.
    /// `around` is the value of those that no prefix holds.
    fn entry(&mut self, mut prefixes: &[(u128, u8, u32)], known: u32, mut around: u32) -> u32 {
        if let [(_, len, value), rest @ ..] = prefixes
            && u32::from(*len) <= known
        {
            (prefixes, around) = (rest, *value);
        }
        let [(prefix, len, value), rest @ ..] = prefixes else { return around };
        let (last, len) = (prefixes[prefixes.len() - 1].0, u32::from(*len));
        let at = common(*prefix, last, len);
        // When the first prefix holds all others, the node stands for it.
        let (inside, inner) = if at == len { (*value, rest) } else { (around, prefixes) };
        let stride = stride(inner, at, at == len);
        let node = Node::new(prefix.first(at as u8), at, stride);
        let block = self.words.len();
        self.words.extend(node.head());
        self.words.resize(block + node.units() as usize * UNIT, inside);
        self.words[block + node.outside()] = around;
        self.depth += 1;
        self.depths += if at == len { self.depth } else { 0 };
        self.fill(block, &node, inner);
        self.depth -= 1;
        CHILD | (block / UNIT) as u32
    }

    fn fill(&mut self, block: usize, node: &Node, mut prefixes: &[(u128, u8, u32)]) {
        let end = node.end();
        while let [(prefix, len, value), rest @ ..] = prefixes {
            let slot = block + node.offset(*prefix);
            if u32::from(*len) <= end {
                self.depths += self.depth;
                self.words[slot..slot + (1 << (end - u32::from(*len)))].fill(*value);
                prefixes = rest;
                continue;
            }
            let inside = prefixes.partition_point(|(other, ..)| common(*prefix, *other, end) == end);
            let (deeper, rest) = prefixes.split_at(inside);
            self.words[slot] = self.entry(deeper, end, self.words[slot]);
            prefixes = rest;
        }
    }
}

/// How many bits to take at bit `at`. Only a node for a prefix of its own may take none.
fn stride(prefixes: &[(u128, u8, u32)], at: u32, own: bool) -> u32 {
    // How many neighbours part at each bit.
    let mut parts = [0usize; MAX_STRIDE as usize];
    for pair in prefixes.windows(2) {
        let bit = common(pair[0].0, pair[1].0, u32::from(pair[0].1.min(pair[1].1))).saturating_sub(at);
        if let Some(count) = parts.get_mut(bit as usize) {
            *count += 1;
        }
    }
    let mut used = 1;
    let mut best = u32::from(!own);
    // Only bits at which prefixes part are worth taking.
    for (stride, count) in (1..).zip(parts) {
        used += count;
        if count > 0 && 1 << stride <= prefixes.len().max(used * SPARSE) {
            best = stride;
        }
    }
    best
}

struct Painter<'a> {
    edit: Edit<'a>,
}

impl Painter<'_> {
    /// What becomes of an entry for a block of addresses, whose first `known` bits are those of `prefix`, when the
    /// addresses of the prefix of `len` bits get this value.
    fn paint(&mut self, entry: u32, known: u32, prefix: u128, len: u32, value: u32) -> Option<u32> {
        if len <= known {
            self.give_up(entry);
            return Some(value);
        }
        if entry & CHILD == 0 {
            return if entry == value { Some(entry) } else { self.make(Node::new(prefix, len, 0), value, entry) };
        }
        let node = self.node(entry);
        let same = common(prefix, node.prefix, len.min(node.at()));
        if same == len {
            let outside = self.outside(entry);
            self.give_up(entry);
            return self.paint(outside, known, prefix, len, value);
        }
        if same < node.at() {
            return self.part(entry, same, prefix, len, value);
        }
        let block = self.edit.writable(Block { at: entry & !CHILD, units: node.units() })?;
        let slot = node.offset(prefix);
        if len > node.end() {
            let inner = self.paint(self.edit.word(block.at, slot), node.end(), prefix, len, value)?;
            self.edit.set(block, slot, inner);
        } else {
            for slot in slot..slot + (1 << (node.end() - len)) {
                self.give_up(self.edit.word(block.at, slot));
                self.edit.set(block, slot, value);
            }
        }
        Some(self.simpler(block, &node))
    }

    /// A node above `entry`, from which `prefix` parts at bit `at`.
    fn part(&mut self, entry: u32, at: u32, prefix: u128, len: u32, value: u32) -> Option<u32> {
        let outside = self.outside(entry);
        if outside == value {
            return Some(entry);
        }
        let other = if len == at + 1 { value } else { self.make(Node::new(prefix, len, 0), value, outside)? };
        let node = Node::new(prefix.first(at as u8), at, 1);
        let above = self.make(node, entry, outside)?;
        self.edit.set(Block { at: above & !CHILD, units: node.units() }, node.offset(prefix), other);
        Some(above)
    }

    /// A node with the same entry everywhere inside.
    fn make(&mut self, node: Node, inside: u32, outside: u32) -> Option<u32> {
        let block = self.edit.take(node.units())?;
        for (offset, word) in node.head().into_iter().enumerate() {
            self.edit.set(block, offset, word);
        }
        for offset in HEAD..node.outside() {
            self.edit.set(block, offset, inside);
        }
        self.edit.set(block, node.outside(), outside);
        Some(CHILD | block.at)
    }

    /// The entry for a node, or what says the same without it.
    fn simpler(&mut self, block: Block, node: &Node) -> u32 {
        let outside = self.edit.word(block.at, node.outside());
        let entries = (HEAD..node.outside()).map(|offset| self.edit.word(block.at, offset));
        let mut different = entries.filter(|entry| *entry != outside);
        let instead = match (different.next(), different.next()) {
            (None, _) => outside,
            (Some(only), None) if only & CHILD != 0 && self.outside(only) == outside => only,
            _ => return CHILD | block.at,
        };
        drop(different);
        self.edit.give_up(block);
        instead
    }

    fn node(&self, entry: u32) -> Node {
        Node::load(|offset| self.edit.word(entry & !CHILD, offset))
    }

    fn outside(&self, entry: u32) -> u32 {
        self.edit.word(entry & !CHILD, self.node(entry).outside())
    }

    fn give_up(&mut self, entry: u32) {
        if entry & CHILD == 0 {
            return;
        }
        let node = self.node(entry);
        for offset in HEAD..node.outside() {
            self.give_up(self.edit.word(entry & !CHILD, offset));
        }
        self.edit.give_up(Block { at: entry & !CHILD, units: node.units() });
    }
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
            .map(|entry| (first(entry), first(entry) | !u128::MAX.first(entry.len)))
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
            for kernel in Kernel::possible() {
                let table = Table6::build(&entries).unwrap().with_kernel(kernel);
                prop_assert_eq!(&bursts(&table, &addresses), &wanted);
                let singly: Vec<u32> = addresses.iter().map(|address| table.get(*address)).collect();
                prop_assert_eq!(&singly, &wanted);
            }
        }

        #[test]
        fn changes_paint_and_old_versions_stay(
            entries in proptest::collection::vec(prefix(), 0..30),
            commits in proptest::collection::vec((proptest::collection::vec(prefix(), 0..6), any::<bool>()), 1..8),
        ) {
            let addresses = probes(&[entries.clone(), commits.iter().flat_map(|(c, _)| c.clone()).collect()].concat());
            let mut now: Vec<u32> = addresses.iter().map(|address| naive(&entries, *address)).collect();
            let mut kept = vec![(Table6::build(&entries).unwrap(), now.clone())];
            for (changes, keep) in commits {
                let next = kept.last().unwrap().0.with_changes(&changes).unwrap();
                for (address, value) in addresses.iter().zip(&mut now) {
                    let last = changes.iter().rev().find(|change| holds(change, *address));
                    *value = last.map_or(*value, |change| change.value);
                }
                if !keep {
                    kept.pop();
                }
                kept.push((next, now.clone()));
                for (table, wanted) in &kept {
                    prop_assert_eq!(&bursts(table, &addresses), wanted);
                }
            }
            // From an old version one goes on by building anew.
            let first = &kept[0];
            let branch = first.0.with_changes(&[Entry { prefix: 0, len: 1, value: 9 }]).unwrap();
            let wanted = addresses.iter().zip(&first.1).map(|(a, value)| if a >> 127 == 0 { 9 } else { *value });
            prop_assert_eq!(bursts(&branch, &addresses), wanted.collect::<Vec<u32>>());
            for (table, wanted) in &kept {
                prop_assert_eq!(&bursts(table, &addresses), wanted);
            }
        }
    }

    #[test]
    fn what_is_undone_takes_no_memory() {
        let net = Entry { prefix: 0x2001_0db8 << 96, len: 32, value: 1 };
        let mut table = Table6::build(&[net]).unwrap();
        let before = table.memory_bytes();
        for value in [2, 1] {
            for at in 0..500u128 {
                let host = Entry { prefix: net.prefix | (at * 77) << 40 | at, len: 128, value };
                table = table.with_changes(&[host]).unwrap();
            }
        }
        assert_eq!(table.memory_bytes(), before);
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
        assert!(Table6::build(&hosts).unwrap().memory_bytes() < 64 * hosts.len());
    }

    #[test]
    fn values_have_a_limit() {
        let entry = Entry { prefix: 0, len: 0, value: MAX_VALUE + 1 };
        assert_eq!(Table6::build(&[entry]).unwrap_err(), BuildError::Value(MAX_VALUE + 1));
        assert!(Table6::build(&[]).unwrap().with_changes(&[entry]).is_err());
    }
}
