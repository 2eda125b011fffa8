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
    /// Where the passive rows of each outcome end; they begin where those of the one before end.
    ends: Vec<u32>,
    passive: Vec<u32>,
}

impl Outcomes {
    #[inline]
    pub fn get(&self, number: u32) -> Outcome<'_> {
        let at = number as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        Outcome { row: self.rows[at], passive: &self.passive[start as usize..self.ends[at] as usize] }
    }

    #[inline(always)]
    pub fn row(&self, number: u16) -> u32 {
        self.rows[usize::from(number)]
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.rows) + size_of_val(&*self.ends) + size_of_val(&*self.passive)
    }

    fn push(&mut self, row: u32, passive: &[u32]) {
        self.rows.push(row);
        self.passive.extend(passive);
        self.ends.push(self.passive.len() as u32);
    }
}

/// Joins outcomes of sets of rows to those of the sets together.
#[derive(Debug)]
pub struct Joiner {
    rows: u16,
    passive: bool,
    /// The outcomes with numbers from `rows` on: the row, then the passive rows. No row at all is the first.
    others: Interner<u32>,
    joined: FxHashMap<(u16, u16), u16>,
}

impl Joiner {
    /// `None` when there are too many rows to be numbered.
    pub fn new(rows: &[Row]) -> Option<Self> {
        let mut others = Interner::new();
        others.intern(&[NO_ROW]);
        let passive = rows.iter().any(|row| row.passive);
        let rows = u16::try_from(rows.len()).ok().filter(|rows| *rows < u16::MAX)?;
        Some(Self { rows, passive, others, joined: FxHashMap::default() })
    }

    /// The outcome where no row holds.
    pub fn none(&self) -> u16 {
        self.rows
    }

    /// The outcome where one row holds. `None` when there are too many outcomes to be numbered.
    pub fn one(&mut self, position: usize, row: &Row) -> Option<u16> {
        if row.passive { self.number(&[NO_ROW, position as u32]) } else { Some(position as u16) }
    }

    /// Joins `with` to `into`, one by one.
    pub fn join_all(&mut self, into: &mut [u16], with: &[u16]) -> Option<()> {
        if !self.passive {
            into.iter_mut().zip(with).for_each(|(a, b)| *a = (*a).min(*b));
            return Some(());
        }
        for (a, b) in into.iter_mut().zip(with) {
            *a = self.join(*a, *b)?;
        }
        Some(())
    }

    pub fn join(&mut self, a: u16, b: u16) -> Option<u16> {
        let (a, b) = (a.min(b), a.max(b));
        if a == b || b <= self.rows {
            return Some(a);
        }
        if let Some(joined) = self.joined.get(&(a, b)) {
            return Some(*joined);
        }
        let ((row_a, passive_a), (row_b, passive_b)) = (self.parts(a), self.parts(b));
        let row = row_a.min(row_b);
        let mut passive: Vec<u32> = passive_a.iter().chain(passive_b).copied().filter(|at| *at < row).collect();
        passive.sort_unstable();
        passive.dedup();
        let joined = match passive.as_slice() {
            [] if row != NO_ROW => row as u16,
            _ => self.number(&[&[row], passive.as_slice()].concat())?,
        };
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
