//! A set of slab positions that finds the next member after any place in a few steps, however large and empty it is.
//!
//! One bit a position; above, one bit for each word that is not empty, and so on up to a single word.

pub(super) struct BitSet {
    /// Lowest first.
    levels: Vec<Box<[u64]>>,
    len: usize,
}

impl BitSet {
    pub(super) fn new(capacity: usize) -> Self {
        let mut levels = vec![words(capacity)];
        while let Some(top) = levels.last().filter(|top| top.len() > 1) {
            let above = words(top.len());
            levels.push(above);
        }
        Self { levels, len: 0 }
    }

    /// Members.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, position: u32) {
        let mut at = position as usize;
        let bit = 1 << (at % 64);
        self.len += usize::from(self.levels[0][at / 64] & bit == 0);
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            let was_empty = *word == 0;
            *word |= 1 << (at % 64);
            if !was_empty {
                break;
            }
            at /= 64;
        }
    }

    pub(super) fn remove(&mut self, position: u32) {
        let mut at = position as usize;
        let bit = 1 << (at % 64);
        self.len -= usize::from(self.levels[0][at / 64] & bit != 0);
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            *word &= !(1 << (at % 64));
            if *word != 0 {
                break;
            }
            at /= 64;
        }
    }

    /// The first member from `from` on, round and round.
    pub(super) fn next(&self, from: u32) -> Option<u32> {
        self.first_from(from as usize).or_else(|| self.first_from(0)).map(|at| at as u32)
    }

    fn first_from(&self, from: usize) -> Option<usize> {
        let mut at = from;
        for (height, level) in self.levels.iter().enumerate() {
            let rest = level.get(at / 64).map_or(0, |word| *word & (u64::MAX << (at % 64)));
            if rest != 0 {
                let found = at / 64 * 64 + rest.trailing_zeros() as usize;
                // Down again: the first of each word below.
                return Some(
                    self.levels[..height]
                        .iter()
                        .rev()
                        .fold(found, |word, level| word * 64 + level[word].trailing_zeros() as usize),
                );
            }
            at = at / 64 + 1;
        }
        None
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.levels.iter().map(|level| size_of_val(&**level)).sum()
    }
}

fn words(bits: usize) -> Box<[u64]> {
    vec![0; bits.div_ceil(64).max(1)].into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn finds_what_an_ordered_set_finds() {
        for capacity in [1u32, 63, 64, 65, 4096, 4097, 300_000] {
            let (mut ours, mut theirs) = (BitSet::new(capacity as usize), BTreeSet::new());
            let mut dice = 1u32;
            for round in 0..3000 {
                dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = ((u64::from(dice) * u64::from(capacity)) >> 32) as u32;
                // Fills, then empties.
                let stays = dice & 0xff < if round < 1500 { 180 } else { 40 };
                if stays {
                    ours.insert(at);
                    theirs.insert(at);
                } else {
                    for gone in [Some(at), theirs.range(at..).next().copied()].into_iter().flatten() {
                        ours.remove(gone);
                        theirs.remove(&gone);
                    }
                }
                let from = dice.rotate_left(9) % capacity;
                let expected = theirs.range(from..).next().or_else(|| theirs.first()).copied();
                assert_eq!((ours.next(from), ours.len()), (expected, theirs.len()), "{capacity} {from}");
            }
            (0..capacity).for_each(|at| ours.remove(at));
            assert!(ours.next(0).is_none() && ours.levels.iter().all(|level| level.iter().all(|word| *word == 0)));
        }
    }
}
