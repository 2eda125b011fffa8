//! IPv4 addresses → numbers, longest prefix first.
//!
//! Four steps of 10, 6, 8 and 8 bits. An entry is a value, or ([`CHILD`] set) the block of the next step:
//!
//! ```text
//! 1024 entries in the table itself → 64 → 256 → 256 values of 16 bits (32 when there are larger values)
//! ```
//! Leaf blocks with the same content are stored once. A change copies the first 4 KB and at most one block of each
//! step.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

use super::arena::{Block, Edit, UNIT, Version, units};
use super::kernel4::Kernel;
use super::{BuildError, Entry, MAX_VALUE, Prefix};
use crate::trie::BATCH;

pub(super) const ROOT: usize = 1 << 10;
/// In an entry: the other bits are the first unit of a block.
pub(super) const CHILD: u32 = 1 << 31;
/// Bits below each step, and how many entries its block has.
const BELOW: [u32; 4] = [22, 16, 8, 0];
const ENTRIES: [usize; 4] = [ROOT, 64, 256, 256];
const LEAF: usize = 3;

/// Immutable; see the module.
#[derive(Debug)]
pub struct Table4 {
    root: Box<[u32; ROOT]>,
    version: Version,
    /// Leaves have 32-bit values.
    wide: bool,
    kernel: Kernel,
}

impl Table4 {
    /// An address gets the value of the longest prefix that holds it, of equal prefixes the last one's; 0 when there
    /// is none.
    ///
    /// # Errors
    /// A value above [`MAX_VALUE`], or more than 4 GB.
    pub fn build(entries: &[Entry<u32>]) -> Result<Self, BuildError> {
        Self::of_steps(&steps(entries))
    }

    /// The next version, in which all addresses of each entry's prefix have its value, whatever they had before; of
    /// overlapping entries the last counts. It shares with this one all that has not changed.
    ///
    /// # Errors
    /// As for [`Table4::build`].
    pub fn with_changes(&self, changes: &[Entry<u32>]) -> Result<Self, BuildError> {
        let greatest = changes.iter().map(|change| change.value).max().unwrap_or(0);
        if (greatest <= u32::from(u16::MAX) || (self.wide && greatest <= MAX_VALUE))
            && let Some(next) = self.edited(changes)
        {
            return Ok(next);
        }
        // No room, or not the newest version, or values too large for the leaves.
        let mut steps = BTreeMap::from_iter(self.steps());
        for change in changes {
            let (first, last) = range(change);
            let after = steps.range(..=last).next_back().map_or(0, |(_, value)| *value);
            while let Some((&inside, _)) = steps.range(first..=last).next() {
                steps.remove(&inside);
            }
            steps.insert(first, change.value);
            if let Some(next) = last.checked_add(1) {
                steps.entry(next).or_insert(after);
            }
        }
        let mut steps = Vec::from_iter(steps);
        steps.dedup_by_key(|(_, value)| *value);
        Self::of_steps(&steps)
    }

    pub fn get(&self, address: u32) -> u32 {
        let mut entry = self.root[(address >> BELOW[0]) as usize];
        for step in 1..=LEAF {
            if entry & CHILD == 0 {
                break;
            }
            entry = load(|offset| self.version.word(entry & !CHILD, offset), self.wide, step, index(address, step));
        }
        entry
    }

    /// The values of the first `len` addresses. What is in the rest of `values` afterwards is of no meaning.
    pub fn get_burst(&self, addresses: &[u32; BATCH], len: usize, values: &mut [u32; BATCH]) {
        self.kernel.get(self, addresses, len, values);
    }

    /// Memory in use, in bytes, with that of older versions that are still there.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.root) + self.version.memory_bytes()
    }

    pub(super) fn root(&self) -> &[u32; ROOT] {
        &self.root
    }

    pub(super) fn base(&self) -> *const u32 {
        self.version.base()
    }

    pub(super) fn is_wide(&self) -> bool {
        self.wide
    }

    #[cfg(test)]
    fn with_kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    fn of_steps(steps: &[(u32, u32)]) -> Result<Self, BuildError> {
        let greatest = steps.iter().map(|(_, value)| *value).max().unwrap_or(0);
        if greatest > MAX_VALUE {
            return Err(BuildError::Value(greatest));
        }
        let wide = greatest > u32::from(u16::MAX);
        let mut filler = Filler::new(steps, wide);
        let mut root = Box::new([0; ROOT]);
        for (at, entry) in root.iter_mut().enumerate() {
            *entry = filler.entry(1, (at as u32) << BELOW[0]);
        }
        let version = Version::first(&filler.words, filler.shared).ok_or(BuildError::Memory)?;
        Ok(Self { root, version, wide, kernel: Kernel::best() })
    }

    /// `None` when there is no room or a newer version.
    fn edited(&self, changes: &[Entry<u32>]) -> Option<Self> {
        let mut painter = Painter { edit: self.version.edit()?, wide: self.wide };
        let mut root = self.root.clone();
        for change in changes {
            let (first, last) = range(change);
            for at in first >> BELOW[0]..=last >> BELOW[0] {
                let entry = root[at as usize];
                root[at as usize] = painter.paint(entry, 1, at << BELOW[0], change)?;
            }
        }
        Some(Self { root, version: painter.edit.finish(), wide: self.wide, kernel: self.kernel })
    }

    /// Where the value changes and what to, from address 0 on.
    fn steps(&self) -> Vec<(u32, u32)> {
        let mut steps = Vec::new();
        for (at, entry) in self.root.iter().enumerate() {
            self.steps_of(*entry, 1, (at as u32) << BELOW[0], &mut steps);
        }
        steps
    }

    fn steps_of(&self, entry: u32, step: usize, from: u32, steps: &mut Vec<(u32, u32)>) {
        if entry & CHILD == 0 {
            if steps.last().is_none_or(|(_, value)| *value != entry) {
                steps.push((from, entry));
            }
            return;
        }
        for at in 0..ENTRIES[step] {
            let inner = load(|offset| self.version.word(entry & !CHILD, offset), self.wide, step, at);
            self.steps_of(inner, step + 1, from + ((at as u32) << BELOW[step]), steps);
        }
    }
}

fn index(address: u32, step: usize) -> usize {
    (address >> BELOW[step]) as usize % ENTRIES[step]
}

/// Units of a step's block.
fn size(step: usize, wide: bool) -> u32 {
    units(if step == LEAF && !wide { ENTRIES[LEAF] / 2 } else { ENTRIES[step] })
}

/// Entry `at` of a block.
fn load(word: impl Fn(usize) -> u32, wide: bool, step: usize, at: usize) -> u32 {
    if step == LEAF && !wide { word(at / 2) >> (16 * (at % 2)) & 0xffff } else { word(at) }
}

fn range(entry: &Entry<u32>) -> (u32, u32) {
    (entry.prefix.first(entry.len), entry.prefix | !u32::MAX.first(entry.len))
}

/// Where the value of the longest prefix changes and what to, from address 0 on.
fn steps(entries: &[Entry<u32>]) -> Vec<(u32, u32)> {
    let mut sorted: Vec<_> = entries.iter().map(|entry| (range(entry), entry.value)).collect();
    let key = |((first, last), _): &((u32, u32), u32)| u64::from(*first) << 32 | u64::from(!*last);
    sorted.sort_by_key(key);
    let mut steps = vec![(0, 0)];
    // Prefixes around the current address: last address and value, innermost last.
    let mut open: Vec<(u32, u32)> = Vec::new();
    let mut step = |from: u32, value: u32| {
        if steps.last().is_some_and(|(last, _)| *last == from) {
            steps.pop();
        }
        if steps.last().is_none_or(|(_, before)| *before != value) {
            steps.push((from, value));
        }
    };
    for ((first, last), value) in sorted {
        while let Some((end, _)) = open.pop_if(|(end, _)| *end < first) {
            step(end + 1, open.last().map_or(0, |(_, value)| *value));
        }
        step(first, value);
        open.push((last, value));
    }
    while let Some((end, _)) = open.pop() {
        if end < u32::MAX {
            step(end + 1, open.last().map_or(0, |(_, value)| *value));
        }
    }
    steps
}

/// Writes the blocks of a new table, in the order of addresses.
struct Filler<'a> {
    steps: &'a [(u32, u32)],
    /// The step that the current address lies in.
    at: usize,
    wide: bool,
    words: Vec<u32>,
    /// First units of leaf blocks, by the hash of their content.
    leaves: HashMap<u64, u32>,
    hasher: RandomState,
    /// How often a leaf block is referred to beyond the first time.
    shared: HashMap<u32, u32>,
}

impl<'a> Filler<'a> {
    fn new(steps: &'a [(u32, u32)], wide: bool) -> Self {
        let (leaves, shared, hasher) = (HashMap::new(), HashMap::new(), RandomState::new());
        Self { steps, at: 0, wide, words: Vec::new(), leaves, hasher, shared }
    }

    /// The entry for what begins at address `from`, as seen from the step before `step`.
    fn entry(&mut self, step: usize, from: u32) -> u32 {
        let last = from | ((1 << BELOW[step - 1]) - 1);
        while self.steps.get(self.at + 1).is_some_and(|(start, _)| *start <= from) {
            self.at += 1;
        }
        if self.steps.get(self.at + 1).is_none_or(|(start, _)| *start > last) {
            return self.steps[self.at].1;
        }
        if step == LEAF {
            return self.leaf(from, last);
        }
        let block = self.words.len();
        self.words.resize(block + ENTRIES[step], 0);
        for at in 0..ENTRIES[step] {
            self.words[block + at] = self.entry(step + 1, from + ((at as u32) << BELOW[step]));
        }
        CHILD | (block / UNIT) as u32
    }

    fn leaf(&mut self, from: u32, last: u32) -> u32 {
        let mut values = [0u32; ENTRIES[LEAF]];
        let mut start = 0;
        loop {
            let value = self.steps[self.at].1;
            let next = self.steps.get(self.at + 1).map(|(next, _)| *next).filter(|next| *next <= last);
            let end = next.map_or(values.len(), |next| (next - from) as usize);
            values[start..end].fill(value);
            if next.is_none() {
                break;
            }
            self.at += 1;
            start = end;
        }
        let block = self.words.len();
        if self.wide {
            self.words.extend_from_slice(&values);
        } else {
            self.words.extend(values.chunks_exact(2).map(|pair| pair[0] | pair[1] << 16));
        }
        self.shared(block)
    }

    /// The entry for the leaf block written last, which goes away again when there is one with the same content.
    fn shared(&mut self, block: usize) -> u32 {
        let (before, leaf) = self.words.split_at(block);
        let hash = self.hasher.hash_one(leaf);
        match self.leaves.get(&hash) {
            Some(&equal) if before[equal as usize * UNIT..].starts_with(leaf) => {
                self.words.truncate(block);
                *self.shared.entry(equal).or_default() += 1;
                CHILD | equal
            }
            _ => {
                self.leaves.insert(hash, (block / UNIT) as u32);
                CHILD | (block / UNIT) as u32
            }
        }
    }
}

struct Painter<'a> {
    edit: Edit<'a>,
    wide: bool,
}

impl Painter<'_> {
    /// What becomes of an entry that stands for the addresses from `from` on, as seen from the step before `step`.
    fn paint(&mut self, entry: u32, step: usize, from: u32, change: &Entry<u32>) -> Option<u32> {
        let (first, last) = range(change);
        let end = from | ((1 << BELOW[step - 1]) - 1);
        if first <= from && end <= last {
            self.give_up(entry, step);
            return Some(change.value);
        }
        let block = self.opened(entry, step)?;
        let (first, last) = (index(first.max(from), step), index(last.min(end), step));
        for at in first..=last {
            let inner = if step == LEAF {
                change.value
            } else {
                let inner = self.load(block.at, step, at);
                self.paint(inner, step + 1, from + ((at as u32) << BELOW[step]), change)?
            };
            self.store(block, step, at, inner);
        }
        // A block of one value is no block.
        let uniform = change.value;
        if (0..block.units as usize * UNIT).all(|word| self.edit.word(block.at, word) == self.repeated(step, uniform)) {
            self.edit.give_up(block);
            return Some(uniform);
        }
        Some(CHILD | block.at)
    }

    /// A block to write to, with what the entry says.
    fn opened(&mut self, entry: u32, step: usize) -> Option<Block> {
        let units = size(step, self.wide);
        if entry & CHILD != 0 {
            return self.edit.writable(Block { at: entry & !CHILD, units });
        }
        let block = self.edit.take(units)?;
        for word in 0..units as usize * UNIT {
            self.edit.set(block, word, self.repeated(step, entry));
        }
        Some(block)
    }

    /// A word of a block whose entries are all the same.
    fn repeated(&self, step: usize, value: u32) -> u32 {
        if step == LEAF && !self.wide { value | value << 16 } else { value }
    }

    fn load(&self, block: u32, step: usize, at: usize) -> u32 {
        load(|offset| self.edit.word(block, offset), self.wide, step, at)
    }

    fn store(&self, block: Block, step: usize, at: usize, value: u32) {
        if step == LEAF && !self.wide {
            let (word, shift) = (at / 2, 16 * (at % 2));
            let other = self.edit.word(block.at, word) & !(0xffff << shift);
            self.edit.set(block, word, other | value << shift);
        } else {
            self.edit.set(block, at, value);
        }
    }

    fn give_up(&mut self, entry: u32, step: usize) {
        if entry & CHILD == 0 {
            return;
        }
        let block = Block { at: entry & !CHILD, units: size(step, self.wide) };
        if step < LEAF {
            for at in 0..ENTRIES[step] {
                self.give_up(self.edit.word(block.at, at), step + 1);
            }
        }
        self.edit.give_up(block);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few distinct bits, so that prefixes nest, touch and repeat.
    fn prefix() -> impl Strategy<Value = Entry<u32>> {
        let bits = prop_oneof![any::<u32>(), (0u32..4, 0u32..4, 0u32..600).prop_map(|(a, b, c)| a << 30 | b << 14 | c)];
        let len = prop_oneof![0u8..=32, Just(32u8), Just(24), Just(16)];
        (bits, len, value()).prop_map(|(prefix, len, value)| Entry { prefix, len, value })
    }

    fn value() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..5, Just(0xffff), 0u32..70_000]
    }

    fn holds(entry: &Entry<u32>, address: u32) -> bool {
        (entry.prefix ^ address).first(entry.len) == 0
    }

    fn naive(entries: &[Entry<u32>], address: u32) -> u32 {
        let held = entries.iter().filter(|entry| holds(entry, address));
        held.max_by_key(|entry| entry.len).map_or(0, |entry| entry.value)
    }

    /// Borders of the prefixes and what is beside them.
    fn probes(entries: &[Entry<u32>]) -> Vec<u32> {
        let ends = entries.iter().map(range).chain([(0, u32::MAX)]);
        ends.flat_map(|(a, b)| [a.wrapping_sub(1), a, a / 2 + b / 2, b, b.wrapping_add(1)]).collect()
    }

    fn bursts(table: &Table4, addresses: &[u32]) -> Vec<u32> {
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
        fn the_longest_prefix_counts(entries in proptest::collection::vec(prefix(), 0..60), more in any::<[u32; 7]>()) {
            let addresses = [probes(&entries), more.to_vec()].concat();
            let wanted: Vec<u32> = addresses.iter().map(|address| naive(&entries, *address)).collect();
            for kernel in Kernel::possible() {
                let table = Table4::build(&entries).unwrap().with_kernel(kernel);
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
            let mut kept = vec![(Table4::build(&entries).unwrap(), now.clone())];
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
            // A change to an old version leaves the newer ones alone.
            let branch = kept[0].0.with_changes(&[Entry { prefix: 0, len: 0, value: 9 }]).unwrap();
            prop_assert!(addresses.iter().all(|address| branch.get(*address) == 9));
            for (table, wanted) in &kept {
                prop_assert_eq!(&bursts(table, &addresses), wanted);
            }
        }
    }

    #[test]
    fn equal_leaves_are_stored_once_and_part_on_change() {
        let entries: Vec<_> =
            (0..100).map(|net| Entry { prefix: 10 << 24 | net << 8 | 1, len: 32, value: 7 }).collect();
        let table = Table4::build(&entries).unwrap();
        assert!(table.memory_bytes() < 4096 + 256 + 1024 + 512 + 200);
        let next = table.with_changes(&[Entry { prefix: 10 << 24 | 5 << 8 | 1, len: 32, value: 8 }]).unwrap();
        let values = [4, 5, 6].map(|net| (table.get(10 << 24 | net << 8 | 1), next.get(10 << 24 | net << 8 | 1)));
        assert_eq!(values, [(7, 7), (7, 8), (7, 7)]);
    }

    #[test]
    fn what_is_undone_takes_no_memory() {
        let mut table = Table4::build(&[Entry { prefix: 10 << 24, len: 8, value: 1 }]).unwrap();
        let before = table.memory_bytes();
        for value in [2, 1] {
            let hosts: Vec<_> = (0..5000).map(|at| Entry { prefix: 10 << 24 | (at * 77), len: 32, value }).collect();
            table = table.with_changes(&hosts).unwrap();
        }
        assert_eq!(table.memory_bytes(), before);
    }

    #[test]
    fn values_have_a_limit() {
        let entry = Entry { prefix: 0, len: 0, value: MAX_VALUE + 1 };
        assert_eq!(Table4::build(&[entry]).unwrap_err(), BuildError::Value(MAX_VALUE + 1));
        assert!(Table4::build(&[]).unwrap().with_changes(&[entry]).is_err());
    }
}
