//! One side, source or destination: the prefixes that rows ask for, and the table from a packet's value to the longest
//! of them that holds it. Prefixes are nested or apart, so that the longest one tells all the others.

use crate::trie::row::{Kind, Side, mask};

/// The different prefixes of one side, ordered by value and then by length. Each comes after the one around it, and
/// those inside it follow it at once. The first is the whole space.
#[derive(Debug)]
pub struct Prefixes {
    pub kind: Kind,
    sides: Vec<Side>,
    /// The one around each; the first is its own.
    parent: Vec<u32>,
    /// The first after those inside.
    end: Vec<u32>,
}

impl Prefixes {
    /// `None` when the sides look at different kinds of values.
    pub fn new<'a>(sides: impl Iterator<Item = &'a Side> + Clone) -> Option<Self> {
        let kind = sides.clone().find(|side| side.len > 0).map_or(Kind::default(), |side| side.kind);
        let mut distinct = vec![Side { kind, ..Side::ANY }];
        for side in sides.filter(|side| side.len > 0) {
            if side.kind != kind {
                return None;
            }
            distinct.push(*side);
        }
        distinct.sort_unstable();
        distinct.dedup();
        let (mut parent, mut end) = (vec![0; distinct.len()], vec![distinct.len() as u32; distinct.len()]);
        let mut around: Vec<usize> = Vec::with_capacity(33);
        for (at, side) in distinct.iter().enumerate() {
            while let Some(&last) = around.last() {
                if distinct[last].covers(side) {
                    parent[at] = last as u32;
                    break;
                }
                end[last] = at as u32;
                around.pop();
            }
            around.push(at);
        }
        Some(Self { kind, sides: distinct, parent, end })
    }

    pub fn len(&self) -> usize {
        self.sides.len()
    }

    pub fn parent(&self, at: usize) -> usize {
        self.parent[at] as usize
    }

    pub fn end(&self, at: usize) -> usize {
        self.end[at] as usize
    }

    /// Position of a side that was given.
    pub fn position(&self, side: &Side) -> usize {
        if side.len == 0 { 0 } else { self.sides.partition_point(|known| known < side) }
    }

    /// The space cut into intervals: the first value of each, and the longest prefix that holds it.
    fn intervals(&self) -> Vec<(u32, u32)> {
        let mut intervals: Vec<(u32, u32)> = vec![(0, 0)];
        let mut cut = |start: u32, prefix: usize| {
            intervals.pop_if(|last| last.0 == start);
            intervals.push((start, prefix as u32));
        };
        let mut around = vec![0];
        for at in 1..=self.len() {
            while let Some(last) = around.pop_if(|last| *last > 0 && self.end(*last) <= at) {
                if let Some(next) = (self.sides[last].value | !mask(self.sides[last].len)).checked_add(1) {
                    cut(next, self.parent(last));
                }
            }
            if at < self.len() {
                cut(self.sides[at].value, at);
                around.push(at);
            }
        }
        intervals
    }
}

/// Value → position of the longest prefix that holds it, in three steps of 16, 8 and 8 bits. Each step reads a cell
/// that says where the next one reads: at its low 24 bits, plus as many of the value's next 8 bits as its high 8 bits
/// let through. The first cells stand for the prefixes, each its own successor, so that a prefix that is found early is
/// kept without a branch.
///
/// PERF: half the time of an AVX2 17-ary search of the intervals; gathers are no faster than these loads on Zen 4.
#[derive(Debug)]
pub struct SideTable {
    root: Box<[u32; 1 << 16]>,
    cells: Vec<u32>,
    prefixes: u32,
}

const NEXT_BITS: u32 = 0xFF << 24;

impl SideTable {
    /// `None` beyond `limit_bytes`.
    pub fn new(prefixes: &Prefixes, limit_bytes: usize) -> Option<Self> {
        let intervals = prefixes.intervals();
        let prefixes = prefixes.len() as u32;
        let mut table = Self { root: Box::new([0; 1 << 16]), cells: (0..prefixes).collect(), prefixes };
        let mut cursor = Cursor { intervals: &intervals, at: 0 };
        for high in 0..1 << 16 {
            let first = high << 16;
            table.root[high as usize] = match cursor.prefix(first, first | 0xFFFF) {
                Some(prefix) => prefix,
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
            self.cells[block + middle as usize] = match cursor.prefix(first, first | 0xFF) {
                Some(prefix) => prefix,
                None => {
                    let leaf = self.block()?;
                    for low in 0..256 {
                        let value = first | low;
                        self.cells[leaf + low as usize] = cursor.prefix(value, value)?;
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

    /// Whether no value leads out of the cells or to what is no prefix.
    pub fn is_sound(&self) -> bool {
        let inside = |cell: &u32| (cell & !NEXT_BITS) + (cell >> 24) < self.cells.len() as u32;
        let (own, blocks) = self.cells.split_at(self.prefixes as usize);
        let own_successors = (0..).zip(own).all(|(at, cell)| *cell == at);
        // The third step reads at a prefix, or in a block that has nothing but prefixes.
        let leaf = |cell: u32| {
            let first = (cell & !NEXT_BITS) as usize;
            self.cells[first..][..=(cell >> 24) as usize].iter().all(|prefix| *prefix < self.prefixes)
        };
        let second = |cell: &u32| {
            let first = (cell & !NEXT_BITS) as usize;
            cell >> 24 == 0 && *cell < self.prefixes
                || self.cells[first..][..=(cell >> 24) as usize].iter().all(|cell| inside(cell) && leaf(*cell))
        };
        own_successors && blocks.iter().all(inside) && self.root.iter().all(|cell| inside(cell) && second(cell))
    }

    /// Less than the number of prefixes.
    ///
    /// # Safety
    /// [`SideTable::is_sound`].
    #[inline(always)]
    pub unsafe fn prefix(&self, value: u32) -> u32 {
        let next = |cell: u32, bits: u32| {
            let at = (cell & !NEXT_BITS) + (bits & cell >> 24);
            // SAFETY: `is_sound` has seen that each cell that is reached leads to cells of the table.
            unsafe { *self.cells.get_unchecked(at as usize) }
        };
        let cell = self.root[(value >> 16) as usize];
        next(next(cell, value >> 8), value)
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.root) + size_of_val(&*self.cells)
    }
}

/// Goes through the intervals in step with ascending values.
struct Cursor<'a> {
    intervals: &'a [(u32, u32)],
    at: usize,
}

impl Cursor<'_> {
    /// The one prefix of all values from `first` to `last`. `first` never falls.
    fn prefix(&mut self, first: u32, last: u32) -> Option<u32> {
        while self.intervals.get(self.at + 1).is_some_and(|next| next.0 <= first) {
            self.at += 1;
        }
        let whole = self.intervals.get(self.at + 1).is_none_or(|next| next.0 > last);
        whole.then(|| self.intervals[self.at].1)
    }
}
