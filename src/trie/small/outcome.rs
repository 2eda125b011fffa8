//! What a lookup finds, numbered: the first non-passive row, and the passive rows before it.

use super::interner::Interner;
use crate::trie::row::{NO_ROW, Row};
use rustc_hash::FxHashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// Position of the first non-passive row that holds the packet, or [`NO_ROW`].
    pub row: u32,
    /// Positions of the passive rows that hold the packet and come before `row`, ascending.
    pub passive: &'a [u32],
}

/// The outcomes of one kernel. That of a non-passive row alone has the row's position as its number.
#[derive(Debug, Default)]
pub struct Outcomes {
    rows: Vec<u32>,
    /// Twice the rank of each outcome's row, and one more when there are passive rows.
    marked: Vec<u32>,
    /// Where the passive rows of each outcome end; they begin where those of the one before end.
    ends: Vec<u32>,
    passive: Vec<u32>,
}

impl Outcomes {
    pub fn get(&self, number: u32) -> Outcome<'_> {
        let at = number as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Outcome { row: self.rows[at], passive: &self.passive[start as usize..self.ends[at] as usize] }
    }

    /// The row of each outcome.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Says the rank of each row, ascending by position.
    pub fn rank(&mut self, ranks: &[u32]) {
        let passive = (0..self.rows.len() as u32).map(|number| !self.get(number).passive.is_empty());
        let rank = |row: u32| if row == NO_ROW { NO_ROW } else { ranks[row as usize] };
        self.marked =
            self.rows.iter().zip(passive).map(|(row, passive)| rank(*row) << 1 | u32::from(passive)).collect();
    }

    /// What [`Outcomes::rank`] made: [`unmark`] tells the rank and whether passive rows come before it.
    pub fn marked(&self) -> &[u32] {
        &self.marked
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.marked) + size_of_val(&*self.rows) + size_of_val(&*self.ends) + size_of_val(&*self.passive)
    }

    fn push(&mut self, row: u32, passive: &[u32]) {
        self.rows.push(row);
        self.passive.extend(passive);
        self.ends.push(self.passive.len() as u32);
    }
}

/// Rank and mark of [`Outcomes::marked`]. That of no row keeps its ones, because the sign goes along.
#[inline(always)]
pub fn unmark(marked: u32) -> (u32, bool) {
    ((marked.cast_signed() >> 1).cast_unsigned(), marked & 1 == 1)
}

/// Joins the outcomes of two sets of rows to that of both sets together.
#[derive(Debug)]
pub struct Joiner {
    rows: u16,
    /// The outcomes with numbers from `rows` on: the row, then the passive rows. No row at all is the first.
    others: Interner<u32>,
    joined: FxHashMap<(u16, u16), u16>,
    work_left: usize,
}

impl Joiner {
    /// `work` is how many steps may be spent. `None` when there are too many rows to be numbered.
    pub fn new(rows: usize, work: usize) -> Option<Self> {
        let rows = u16::try_from(rows).ok().filter(|rows| *rows < u16::MAX)?;
        let mut others = Interner::default();
        others.intern(&[NO_ROW]);
        Some(Self { rows, others, joined: FxHashMap::default(), work_left: work })
    }

    /// Takes note of work. `None` when it is too much.
    pub fn spend(&mut self, steps: usize) -> Option<()> {
        self.work_left = self.work_left.checked_sub(steps)?;
        Some(())
    }

    /// The outcome where no row holds.
    pub fn none(&self) -> u16 {
        self.rows
    }

    /// The outcome where one row holds. `None` when there are too many outcomes.
    pub fn one(&mut self, position: u32, row: &Row) -> Option<u16> {
        if row.passive { self.number(&[NO_ROW, position]) } else { u16::try_from(position).ok() }
    }

    /// The sets of rows have none in common. `None` when there are too many outcomes.
    pub fn join(&mut self, a: u16, b: u16) -> Option<u16> {
        let (a, b) = (a.min(b), a.max(b));
        if b <= self.rows {
            return Some(a);
        }
        if let Some(joined) = self.joined.get(&(a, b)) {
            return Some(*joined);
        }
        let ((row_a, passive_a), (row_b, passive_b)) = (self.parts(a), self.parts(b));
        let row = row_a.min(row_b);
        let mut other = vec![row];
        other.extend(passive_a.iter().chain(passive_b).filter(|passive| **passive < row));
        other[1..].sort_unstable();
        self.spend(other.len())?;
        let alone = other.len() == 1 && row != NO_ROW;
        let joined = if alone { u16::try_from(row).ok()? } else { self.number(&other)? };
        self.joined.insert((a, b), joined);
        Some(joined)
    }

    pub fn finish(self) -> Outcomes {
        let mut outcomes = Outcomes::default();
        (0..u32::from(self.rows)).for_each(|row| outcomes.push(row, &[]));
        self.others.iter().for_each(|other| outcomes.push(other[0], &other[1..]));
        outcomes
    }

    fn number(&mut self, other: &[u32]) -> Option<u16> {
        u16::try_from(u32::from(self.rows) + self.others.intern(other)).ok()
    }

    fn parts(&self, outcome: u16) -> (u32, &[u32]) {
        match outcome.checked_sub(self.rows) {
            None => (u32::from(outcome), &[]),
            Some(other) => {
                let other = self.others.get(u32::from(other));
                (other[0], &other[1..])
            }
        }
    }
}
