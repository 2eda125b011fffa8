//! IPv4 addresses → numbers, longest prefix first.
//!
//! Four steps of 10, 6, 8 and 8 bits. An entry is a value, or ([`CHILD`] set) the block of the next step:
//!
//! ```text
//! 1024 entries in the table itself → 64 → 256 → 256 values of 16 bits (32 when there are larger values)
//! ```
//! Leaf blocks with the same content are stored once.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::{BuildError, Entry, MAX_VALUE, Prefix, kernel4};
use crate::trie::{BATCH, Isa};

/// Blocks are counted in units of so many words (32 bytes).
pub(super) const UNIT: usize = 8;
/// An index of a `u16` in the blocks fits an `i32`, as gather instructions ask.
const MAX_UNITS: usize = 1 << 27;

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
    /// Blocks, and one unit beyond, so that a wide load of the last value stays inside.
    words: Box<[u32]>,
    /// Leaves have 32-bit values.
    wide: bool,
    isa: Isa,
    /// Words when all was built.
    built: usize,
}

/// Words that changes may leave behind, beside as many as were built.
const LEFT_BEHIND: usize = 1 << 18;

impl Table4 {
    /// An address gets the value of the longest prefix that holds it, of equal prefixes the last one's; 0 when there
    /// is none.
    ///
    /// # Errors
    /// A value above [`MAX_VALUE`], or more than 4 GB.
    pub fn build(entries: &[Entry<u32>]) -> Result<Self, BuildError> {
        Self::of_steps(&steps(entries))
    }

    pub fn get(&self, address: u32) -> u32 {
        let mut entry = self.root[(address >> BELOW[0]) as usize];
        for step in 1..=LEAF {
            if entry & CHILD == 0 {
                break;
            }
            entry = load(&self.words[(entry & !CHILD) as usize * UNIT..], self.wide, step, index(address, step));
        }
        entry
    }

    /// The same but for some addresses. `None` when that takes another structure: all is to be built anew then.
    pub fn with(&self, changes: &[(u32, u32)]) -> Option<Self> {
        let mut root = self.root.clone();
        let mut words = self.words[..self.words.len() - UNIT].to_vec();
        for (address, value) in changes {
            if *value > MAX_VALUE || (!self.wide && *value > u32::from(u16::MAX)) {
                return None;
            }
            let entry = &mut root[(address >> BELOW[0]) as usize];
            *entry = changed(&mut words, self.wide, (*entry, 1), *address, *value);
        }
        if words.len() > 2 * self.built + LEFT_BEHIND || words.len() / UNIT > MAX_UNITS {
            return None;
        }
        words.extend([0; UNIT]);
        Some(Self { root, words: words.into(), ..*self })
    }

    /// The values of the first `len` addresses. What is in the rest of `values` afterwards is of no meaning.
    pub fn get_burst(&self, addresses: &[u32; BATCH], len: usize, values: &mut [u32; BATCH]) {
        kernel4::get(self, self.isa, addresses, len, values);
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.root) + size_of_val(&*self.words)
    }

    pub(super) fn root(&self) -> &[u32; ROOT] {
        &self.root
    }

    pub(super) fn base(&self) -> *const u32 {
        self.words.as_ptr()
    }

    pub(super) fn is_wide(&self) -> bool {
        self.wide
    }

    #[cfg(test)]
    fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
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
        let Filler { mut words, .. } = filler;
        if words.len() / UNIT > MAX_UNITS {
            return Err(BuildError::Memory);
        }
        let built = words.len();
        words.extend([0; UNIT]);
        Ok(Self { root, words: words.into(), wide, isa: Isa::best(), built })
    }
}

fn index(address: u32, step: usize) -> usize {
    (address >> BELOW[step]) as usize % ENTRIES[step]
}

/// Entry `at` of a block.
fn load(block: &[u32], wide: bool, step: usize, at: usize) -> u32 {
    if step == LEAF && !wide { block[at / 2] >> (16 * (at % 2)) & 0xffff } else { block[at] }
}

/// The entry of a step in the place of another, for one address more. Leaves may be shared, so a changed one is new.
fn changed(words: &mut Vec<u32>, wide: bool, (entry, step): (u32, usize), address: u32, value: u32) -> u32 {
    let (at, own) = (index(address, step), (entry & !CHILD) as usize * UNIT);
    let len = if step == LEAF && !wide { ENTRIES[LEAF] / 2 } else { ENTRIES[step] };
    let block = match entry & CHILD {
        0 => {
            let fill = if step == LEAF && !wide { entry | entry << 16 } else { entry };
            words.resize(words.len() + len, fill);
            words.len() - len
        }
        _ if step < LEAF => own,
        _ => {
            words.extend_from_within(own..own + len);
            words.len() - len
        }
    };
    if step < LEAF {
        let next = words[block + at];
        words[block + at] = changed(words, wide, (next, step + 1), address, value);
    } else if wide {
        words[block + at] = value;
    } else {
        let shift = 16 * (at % 2);
        let word = &mut words[block + at / 2];
        *word = *word & !(0xffff << shift) | value << shift;
    }
    CHILD | (block / UNIT) as u32
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
}

impl<'a> Filler<'a> {
    fn new(steps: &'a [(u32, u32)], wide: bool) -> Self {
        Self { steps, at: 0, wide, words: Vec::new(), leaves: HashMap::new(), hasher: RandomState::new() }
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
                CHILD | equal
            }
            _ => {
                self.leaves.insert(hash, (block / UNIT) as u32);
                CHILD | (block / UNIT) as u32
            }
        }
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
            for isa in Isa::available() {
                let table = Table4::build(&entries).unwrap().with_isa(isa);
                prop_assert_eq!(&bursts(&table, &addresses), &wanted);
                let singly: Vec<u32> = addresses.iter().map(|address| table.get(*address)).collect();
                prop_assert_eq!(&singly, &wanted);
            }
        }
    }

    proptest! {
        /// Changed one after the other, or built with them.
        #[test]
        fn some_addresses_change(
            entries in proptest::collection::vec(prefix(), 0..40),
            changes in proptest::collection::vec((any::<bool>(), any::<u32>(), 0u32..5), 1..20),
        ) {
            let near = probes(&entries);
            let changes: Vec<(u32, u32)> =
                changes.iter().map(|(far, at, value)| (if *far { *at } else { near[*at as usize % near.len()] }, *value)).collect();
            let table = Table4::build(&entries).unwrap();
            let before = probes(&entries).iter().map(|address| table.get(*address)).collect::<Vec<_>>();
            let changed = table.with(&changes).unwrap();
            let hosts = changes.iter().map(|(prefix, value)| Entry { prefix: *prefix, len: 32, value: *value });
            let all: Vec<Entry<u32>> = entries.iter().copied().chain(hosts).collect();
            let anew = Table4::build(&all).unwrap();
            let addresses = probes(&all);
            for isa in Isa::available() {
                let changed = Table4 { root: changed.root.clone(), words: changed.words.clone(), ..changed }.with_isa(isa);
                prop_assert_eq!(bursts(&changed, &addresses), bursts(&anew, &addresses));
            }
            prop_assert_eq!(before, near.iter().map(|address| table.get(*address)).collect::<Vec<_>>(), "what was is as it was");
        }
    }

    #[test]
    fn equal_leaves_are_stored_once() {
        let entries: Vec<_> =
            (0..100).map(|net| Entry { prefix: 10 << 24 | net << 8 | 1, len: 32, value: 7 }).collect();
        let table = Table4::build(&entries).unwrap();
        assert!(table.memory_bytes() < 4096 + 256 + 1024 + 512 + 200);
    }

    #[test]
    fn values_have_a_limit() {
        let entry = Entry { prefix: 0, len: 0, value: MAX_VALUE + 1 };
        assert_eq!(Table4::build(&[entry]).unwrap_err(), BuildError::Value(MAX_VALUE + 1));
    }
}
