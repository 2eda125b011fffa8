//! Prefixes of 32-bit values → numbers, without a branch.

use super::row::mask;

/// The values whose first `len` bits are those of `value`, which has no other bits set, and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    pub value: u32,
    pub len: u8,
    pub number: u32,
}

/// 32 bits → number of the longest prefix that holds them, 0 for none, in three steps of 16, 8 and 8 bits. Each step reads a cell
/// that says where the next one reads: at its low 24 bits, plus as many of the value's next 8 bits as its high 8 bits
/// let through. The first cells stand for the numbers, each its own successor, so that one that is found early is kept
/// without a branch.
///
/// PERF: half the time of an AVX2 17-ary search of the intervals; gathers are no faster than these loads on Zen 4.
#[derive(Debug)]
pub struct Direct {
    root: Box<[u32; 1 << 16]>,
    cells: Vec<u32>,
    numbers: u32,
}

/// Steps that may be asked for.
pub const ALL_STEPS: u32 = 3;
const NEXT_BITS: u32 = 0xFF << 24;

impl Direct {
    /// For prefixes that ascend by value and then by length, whose numbers are below `numbers`. `None` beyond
    /// `limit_bytes`.
    pub fn new(prefixes: &[Stretch], numbers: u32, limit_bytes: usize) -> Option<Self> {
        let intervals = intervals(prefixes);
        let mut table = Self { root: Box::new([0; 1 << 16]), cells: (0..numbers).collect(), numbers };
        let mut cursor = Cursor { intervals: &intervals, at: 0 };
        for high in 0..1 << 16 {
            let first = high << 16;
            table.root[high as usize] = match cursor.number(first, first | 0xFFFF) {
                Some(number) => number,
                None => table.split(&mut cursor, first)?,
            };
            if table.memory_bytes() > limit_bytes {
                return None;
            }
        }
        Some(table)
    }

    /// Cells for the 65536 values from `first`: the cell that leads to them.
    fn split(&mut self, cursor: &mut Cursor<'_>, first: u32) -> Option<u32> {
        let block = self.block()?;
        for middle in 0..256 {
            let first = first | middle << 8;
            self.cells[block + middle as usize] = match cursor.number(first, first | 0xFF) {
                Some(number) => number,
                None => {
                    let leaf = self.block()?;
                    for low in 0..256 {
                        let value = first | low;
                        self.cells[leaf + low as usize] = cursor.number(value, value)?;
                    }
                    leaf as u32 | NEXT_BITS
                }
            };
        }
        Some(block as u32 | NEXT_BITS)
    }

    /// Position of 256 new cells.
    fn block(&mut self) -> Option<usize> {
        let block = self.cells.len();
        self.cells.resize(block + 256, 0);
        (self.cells.len() <= 1 << 24).then_some(block)
    }

    /// Whether no value leads out of the cells or to what is no number.
    pub fn is_sound(&self) -> bool {
        let inside = |cell: &u32| (cell & !NEXT_BITS) + (cell >> 24) < self.cells.len() as u32;
        let (own, blocks) = self.cells.split_at(self.numbers as usize);
        let own_successors = (0..).zip(own).all(|(at, cell)| *cell == at);
        // The third step reads at a number, or in a block that has nothing but numbers.
        let leaf = |cell: u32| {
            let first = (cell & !NEXT_BITS) as usize;
            self.cells[first..][..=(cell >> 24) as usize].iter().all(|number| *number < self.numbers)
        };
        let second = |cell: &u32| {
            let first = (cell & !NEXT_BITS) as usize;
            cell >> 24 == 0 && *cell < self.numbers
                || self.cells[first..][..=(cell >> 24) as usize].iter().all(|cell| inside(cell) && leaf(*cell))
        };
        own_successors && blocks.iter().all(inside) && self.root.iter().all(|cell| inside(cell) && second(cell))
    }

    /// Steps that a value needs: one when no prefix is longer than the first step, else all.
    pub fn steps(&self) -> u32 {
        if self.cells.len() == self.numbers as usize { 1 } else { ALL_STEPS }
    }

    /// Less than the number of numbers.
    ///
    /// # Safety
    /// [`Direct::is_sound`]; `STEPS` is [`Direct::steps`] or more.
    #[inline(always)]
    pub unsafe fn number<const STEPS: u32>(&self, value: u32) -> u32 {
        let next = |cell: u32, bits: u32| {
            let at = (cell & !NEXT_BITS) + (bits & cell >> 24);
            // SAFETY: `is_sound` has seen that each cell that is reached leads to cells of the table.
            unsafe { *self.cells.get_unchecked(at as usize) }
        };
        let cell = self.root[(value >> 16) as usize];
        if STEPS == 1 { cell } else { next(next(cell, value >> 8), value) }
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.root) + size_of_val(&*self.cells)
    }
}

/// The space cut into intervals: the first value of each, and the number of the longest prefix that holds it.
fn intervals(prefixes: &[Stretch]) -> Vec<(u32, u32)> {
    let mut intervals: Vec<(u32, u32)> = vec![(0, 0)];
    let mut cut = |start: u32, number: u32| {
        intervals.pop_if(|last| last.0 == start);
        intervals.push((start, number));
    };
    // Prefixes around the current value: last value and number, innermost last.
    let mut around: Vec<(u32, u32)> = Vec::new();
    for prefix in prefixes {
        while let Some((last, _)) = around.pop_if(|(last, _)| *last < prefix.value) {
            cut(last + 1, around.last().map_or(0, |(_, number)| *number));
        }
        cut(prefix.value, prefix.number);
        around.push((prefix.value | !mask(prefix.len), prefix.number));
    }
    while let Some((last, _)) = around.pop() {
        if let Some(next) = last.checked_add(1) {
            cut(next, around.last().map_or(0, |(_, number)| *number));
        }
    }
    intervals
}

/// Goes through the intervals in step with ascending values.
struct Cursor<'a> {
    intervals: &'a [(u32, u32)],
    at: usize,
}

impl Cursor<'_> {
    /// The one number of all values from `first` to `last`. `first` never falls.
    fn number(&mut self, first: u32, last: u32) -> Option<u32> {
        while self.intervals.get(self.at + 1).is_some_and(|next| next.0 <= first) {
            self.at += 1;
        }
        let whole = self.intervals.get(self.at + 1).is_none_or(|next| next.0 > last);
        whole.then(|| self.intervals[self.at].1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_longest_prefix_counts(
            seeds in proptest::collection::vec((prop_oneof![any::<u32>(), 0u32..500, (0u32..500).prop_map(|v| v << 20)], 0u8..=32), 0..40),
            widest in prop_oneof![Just(32u8), Just(16u8)],
            more in any::<[u32; 5]>(),
        ) {
            let cut = |(value, len): &(u32, u8)| (value & mask(*len.min(&widest)), *len.min(&widest));
            let mut prefixes: Vec<(u32, u8)> = seeds.iter().map(cut).collect();
            prefixes.sort_unstable();
            prefixes.dedup();
            let prefixes: Vec<Stretch> =
                (1..).zip(&prefixes).map(|(number, (value, len))| Stretch { value: *value, len: *len, number }).collect();
            let table = Direct::new(&prefixes, prefixes.len() as u32 + 1, 1 << 24).unwrap();
            prop_assert!(table.is_sound());
            prop_assert!(table.steps() == 1 || widest > 16);
            let ends = prefixes.iter().flat_map(|p| [p.value, p.value | !mask(p.len)]);
            for value in ends.flat_map(|end| [end.wrapping_sub(1), end, end.wrapping_add(1)]).chain(more) {
                let held = prefixes.iter().filter(|p| (p.value ^ value) & mask(p.len) == 0);
                let wanted = held.max_by_key(|p| p.len).map_or(0, |p| p.number);
                // SAFETY: it is sound.
                prop_assert_eq!(unsafe { table.number::<ALL_STEPS>(value) }, wanted);
                if table.steps() == 1 {
                    // SAFETY: it is sound, and one step is enough.
                    prop_assert_eq!(unsafe { table.number::<1>(value) }, wanted);
                }
            }
        }
    }
}
