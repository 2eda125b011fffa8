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

    /// The space cut into intervals: the first value of each, and the class of the longest prefix that holds it.
    pub fn intervals(&self, class: &[u16]) -> Vec<(u32, u16)> {
        let mut cuts: Vec<(u32, u16)> = vec![(0, class[0])];
        let mut cut = |start: u32, prefix: usize| {
            if cuts.last().is_some_and(|last| last.0 == start) {
                cuts.pop();
            }
            if cuts.last().is_none_or(|last| last.1 != class[prefix]) {
                cuts.push((start, class[prefix]));
            }
        };
        let mut inside = vec![0];
        for at in 1..=self.len() {
            while let Some(&last) = inside.last().filter(|last| self.end(**last) <= at && **last > 0) {
                inside.pop();
                if let Some(next) = (self.sides[last].value | !mask(self.sides[last].len)).checked_add(1) {
                    cut(next, self.parent(last));
                }
            }
            if at < self.len() {
                cut(self.sides[at].value, at);
                inside.push(at);
            }
        }
        cuts
    }
}

/// Value → class in three steps of 16, 8 and 8 bits. Each step reads a cell that says where the next one reads: at
/// its low 24 bits, plus as many of the value's next 8 bits as its high 8 bits let through. The first cells are the
/// classes, each its own successor, so that a class found early is kept without a branch.
#[derive(Debug)]
pub struct SideTable {
    root: Box<[u32; 1 << 16]>,
    cells: Vec<u32>,
}

const NEXT_BITS: u32 = 0xFF << 24;

impl SideTable {
    /// `None` beyond `limit_bytes`.
    pub fn new(intervals: &[(u32, u16)], limit_bytes: usize) -> Option<Self> {
        let classes = intervals.iter().map(|(_, class)| u32::from(*class) + 1).max().unwrap_or(1);
        let mut table = Self { root: Box::new([0; 1 << 16]), cells: (0..classes).collect() };
        let mut cursor = Cursor { intervals, at: 0 };
        for high in 0..1 << 16 {
            let first = high << 16;
            table.root[high as usize] = match cursor.class(first, first | 0xFFFF) {
                Some(class) => class,
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
            self.cells[block + middle as usize] = match cursor.class(first, first | 0xFF) {
                Some(class) => class,
                None => {
                    let leaf = self.block()?;
                    for low in 0..256 {
                        let class = cursor.class(first | low, first | low);
                        self.cells[leaf + low as usize] = class.unwrap_or_default();
                    }
                    leaf as u32 | NEXT_BITS
                }
            };
        }
        Some(block as u32 | NEXT_BITS)
    }

    fn block(&mut self) -> Option<usize> {
        let block = self.cells.len();
        self.cells.resize(block + 256, 0);
        (self.cells.len() <= 1 << 24).then_some(block)
    }

    #[inline(always)]
    pub fn class(&self, value: u32) -> u32 {
        let next = |cell: u32, bits: u32| self.cells[((cell & !NEXT_BITS) + (bits & cell >> 24)) as usize];
        let cell = self.root[(value >> 16) as usize];
        next(next(cell, value >> 8), value)
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.root) + size_of_val(&*self.cells)
    }
}

/// Goes through the intervals in step with ascending values.
struct Cursor<'a> {
    intervals: &'a [(u32, u16)],
    at: usize,
}

impl Cursor<'_> {
    /// The one class of all values from `first` to `last`. `first` never falls.
    fn class(&mut self, first: u32, last: u32) -> Option<u32> {
        while self.intervals.get(self.at + 1).is_some_and(|next| next.0 <= first) {
            self.at += 1;
        }
        let whole = self.intervals.get(self.at + 1).is_none_or(|next| next.0 > last);
        whole.then(|| u32::from(self.intervals[self.at].1))
    }
}
