//! Deduplicated bit vectors, one bit per row, all in one block of memory.
//!
//! ```text
//! one vector:  [ summary: bit w set = word w is not zero | word 0 | word 1 | … ]
//! ```
//! Intersecting the summaries first tells which words can have a common bit at all; with thousands of
//! rules that leaves a handful (the aggregated bit vectors of Baboescu and Varghese, SIGCOMM 2001).

use std::collections::HashMap;

/// Which vector of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bits(u32);

impl Bits {
    /// No row. Every arena has it.
    pub(super) const NONE: Bits = Bits(0);
    /// Every row. Every arena has it.
    pub(super) const ALL: Bits = Bits(1);
}

/// The vectors, immutable.
#[derive(Debug)]
pub(super) struct Arena {
    summary: usize,
    stride: usize,
    block: Box<[u64]>,
}

/// One vector of an [`Arena`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Vector<'a> {
    pub(super) summary: &'a [u64],
    pub(super) words: &'a [u64],
}

impl Arena {
    pub(super) fn get(&self, bits: Bits) -> Vector<'_> {
        let start = bits.0 as usize * self.stride;
        let (summary, words) = self.block[start..start + self.stride].split_at(self.summary);
        Vector { summary, words }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.block)
    }
}

/// Collects vectors; equal ones are stored once.
#[derive(Debug)]
pub(super) struct ArenaBuilder {
    words: usize,
    block: Vec<u64>,
    index: HashMap<Box<[u64]>, Bits>,
}

impl ArenaBuilder {
    /// `words`: length of each vector in 64-bit words.
    pub(super) fn new(words: usize) -> Self {
        let mut builder = Self { words, block: Vec::new(), index: HashMap::new() };
        builder.push(&vec![0; words], Bits::NONE);
        builder.push(&vec![u64::MAX; words], Bits::ALL);
        builder
    }

    /// An empty vector to fill.
    pub(super) fn blank(&self) -> RowSet {
        RowSet(vec![0; self.words])
    }

    pub(super) fn intern(&mut self, rows: &RowSet) -> Bits {
        if let Some(bits) = self.index.get(rows.0.as_slice()) {
            return *bits;
        }
        let stride = self.words + self.words.div_ceil(64);
        // Only vectors of length zero have stride zero, and those are all equal to NONE.
        let bits = Bits((self.block.len() / stride) as u32);
        self.push(&rows.0, bits);
        bits
    }

    pub(super) fn finish(self) -> Arena {
        let summary = self.words.div_ceil(64);
        Arena { summary, stride: summary + self.words, block: self.block.into_boxed_slice() }
    }

    fn push(&mut self, words: &[u64], bits: Bits) {
        for chunk in words.chunks(64) {
            self.block.push(chunk.iter().enumerate().fold(0, |sum, (i, word)| sum | u64::from(*word != 0) << i));
        }
        self.block.extend_from_slice(words);
        self.index.entry(words.into()).or_insert(bits);
    }
}

/// A set of rows under construction.
#[derive(Clone, Debug)]
pub(super) struct RowSet(Vec<u64>);

impl RowSet {
    pub(super) fn insert(&mut self, row: usize) {
        self.0[row / 64] |= 1 << (row % 64);
    }

    pub(super) fn remove(&mut self, row: usize) {
        self.0[row / 64] &= !(1 << (row % 64));
    }

    pub(super) fn extend(&mut self, rows: &[u32]) {
        for row in rows {
            self.insert(*row as usize);
        }
    }

    pub(super) fn words(self) -> Box<[u64]> {
        self.0.into_boxed_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_vectors_are_stored_once_and_summarised() {
        let mut builder = ArenaBuilder::new(130);
        let mut rows = builder.blank();
        rows.insert(3);
        rows.insert(64 * 129 + 5);
        let one = builder.intern(&rows);
        assert_eq!(builder.intern(&rows.clone()), one);
        assert_eq!(builder.intern(&builder.blank()), Bits::NONE);
        rows.remove(3);
        let other = builder.intern(&rows);
        assert_ne!(one, other);
        let arena = builder.finish();
        assert_eq!(arena.get(one).summary, [1, 0, 1 << 1]);
        assert_eq!(arena.get(other).summary, [0, 0, 1 << 1]);
        assert_eq!(arena.get(one).words[129], 1 << 5);
        assert_eq!(arena.get(Bits::ALL).summary, [u64::MAX, u64::MAX, 3]);
    }

    #[test]
    fn length_zero_works() {
        let mut builder = ArenaBuilder::new(0);
        let blank = builder.blank();
        let bits = builder.intern(&blank);
        let arena = builder.finish();
        assert!(arena.get(bits).words.is_empty() && arena.get(Bits::ALL).words.is_empty());
    }
}
