//! Source and destination joined. Each pair of prefixes has a *line*: for every lead class of the service a *tail*, and
//! a tail is for every rest class an outcome. Equal lines are one, and so are equal tails.
//!
//! The rows of a pair are those of the pairs around it and those that ask for just this pair. So the line of a pair is
//! the line of the one around it with something added, and most have nothing to add.

use super::interner::Interner;
use super::outcome::{Joiner, Outcomes};
use super::service::Held;
use super::side::Prefixes;
use crate::trie::row::Row;
use rustc_hash::FxHashMap;

#[derive(Debug)]
pub struct Pairs {
    /// By source prefix and destination prefix.
    pub lines: Vec<u16>,
    /// By line and lead class.
    pub tails: Vec<u16>,
    /// By tail and rest class.
    pub outcomes: Vec<u16>,
    pub meanings: Outcomes,
}

/// Where a row is in the grid of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    src: usize,
    dst: usize,
    row: usize,
}

/// The tails of a line other than [`NO_TAIL`], with their lead classes.
type Addition = Vec<(u16, u16)>;

/// The tail where no row holds.
const NO_TAIL: u16 = 0;

#[derive(Debug)]
pub struct PairsBuilder<'a> {
    rows: &'a [Row],
    held: &'a [&'a Held],
    joiner: Joiner,
    lines: Interner<u16>,
    tails: Interner<u16>,
    joined: FxHashMap<(u16, u16), u16>,
    leads: usize,
    rests: usize,
    limit_bytes: usize,
}

impl<'a> PairsBuilder<'a> {
    /// `held` has for each row what its service holds, of so many lead classes and rest classes.
    pub fn new(
        rows: &'a [Row],
        held: &'a [&'a Held],
        joiner: Joiner,
        (leads, rests): (usize, usize),
        limit_bytes: usize,
    ) -> Self {
        let (mut lines, mut tails) = (Interner::default(), Interner::default());
        tails.intern(&vec![joiner.none(); rests]);
        lines.intern(&vec![NO_TAIL; leads]);
        let joined = FxHashMap::default();
        Self { rows, held, joiner, lines, tails, joined, leads, rests, limit_bytes }
    }

    /// `None` when the tables are larger than the limit, or the work is.
    pub fn build(mut self, src: &Prefixes, dst: &Prefixes) -> Option<Pairs> {
        let place =
            |(row, sides): (usize, &Row)| Place { src: src.position(&sides.src), dst: dst.position(&sides.dst), row };
        let mut places: Vec<Place> = self.rows.iter().enumerate().map(place).collect();
        places.sort_unstable();
        let mut places = places.as_slice();
        let width = dst.len();
        let mut lines = vec![0; src.len() * width];
        for at in 0..src.len() {
            if at > 0 {
                let parent = src.parent(at) * width;
                lines.copy_within(parent..parent + width, at * width);
            }
            let here;
            (here, places) = places.split_at(places.partition_point(|place| place.src == at));
            self.add(&mut lines[at * width..][..width], dst, here)?;
        }
        let (tails, outcomes) = (self.lines.concat(), self.tails.concat());
        Some(Pairs { lines, tails, outcomes, meanings: self.joiner.finish() })
    }

    /// Adds the rows of one source prefix to its lines, which are those of the prefix around it.
    fn add(&mut self, lines: &mut [u16], dst: &Prefixes, mut places: &[Place]) -> Option<()> {
        let mut additions: Vec<Addition> = Vec::new();
        let mut joined: FxHashMap<(u16, usize), u16> = FxHashMap::default();
        // The destinations around the one at hand that have rows: where each ends, and what is added inside.
        let mut around: Vec<(usize, usize)> = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            while around.pop_if(|(end, _)| *end <= at).is_some() {}
            let here;
            (here, places) = places.split_at(places.partition_point(|place| place.dst == at));
            if !here.is_empty() {
                let outer = around.last().map_or([].as_slice(), |(_, addition)| &additions[*addition]);
                let addition = self.addition(outer, here)?;
                around.push((dst.end(at), additions.len()));
                additions.push(addition);
            }
            if let Some((_, addition)) = around.last() {
                let pair = (lines[at], *addition);
                lines[at] = match joined.get(&pair) {
                    Some(line) => *line,
                    None => *joined.entry(pair).or_insert(self.join_line(pair.0, &additions[pair.1])?),
                };
                at += 1;
            } else {
                let Some(next) = places.first() else { break };
                at = next.dst;
            }
        }
        Some(())
    }

    /// What is added inside `outer`, and the rows of `places`.
    fn addition(&mut self, outer: &[(u16, u16)], places: &[Place]) -> Option<Addition> {
        let mut line = vec![NO_TAIL; self.leads];
        outer.iter().for_each(|(lead, tail)| line[usize::from(*lead)] = *tail);
        for place in places {
            let held = self.held[place.row];
            let outcome = self.joiner.one(place.row as u32, &self.rows[place.row])?;
            let mut tail = vec![self.joiner.none(); self.rests];
            held.rests.iter().for_each(|rest| tail[usize::from(*rest)] = outcome);
            let tail = self.number_tail(&tail)?;
            for lead in &held.leads {
                let old = &mut line[usize::from(*lead)];
                *old = self.join_tails(*old, tail)?;
            }
        }
        Some((0..).zip(line).filter(|(_, tail)| *tail != NO_TAIL).collect())
    }

    fn join_line(&mut self, line: u16, addition: &[(u16, u16)]) -> Option<u16> {
        let mut joined = self.lines.get(u32::from(line)).to_vec();
        for (lead, tail) in addition {
            let old = &mut joined[usize::from(*lead)];
            *old = self.join_tails(*old, *tail)?;
        }
        let line = self.lines.intern(&joined);
        let cells = self.lines.len() * self.leads + self.tails.len() * self.rests;
        if cells * size_of::<u16>() > self.limit_bytes { None } else { u16::try_from(line).ok() }
    }

    fn join_tails(&mut self, a: u16, b: u16) -> Option<u16> {
        self.joiner.spend(1)?;
        if a == NO_TAIL {
            return Some(b);
        }
        if let Some(joined) = self.joined.get(&(a, b)) {
            return Some(*joined);
        }
        self.joiner.spend(self.rests)?;
        let mut tail = self.tails.get(u32::from(a)).to_vec();
        for (outcome, other) in tail.iter_mut().zip(self.tails.get(u32::from(b))) {
            *outcome = self.joiner.join(*outcome, *other)?;
        }
        let joined = self.number_tail(&tail)?;
        self.joined.insert((a, b), joined);
        Some(joined)
    }

    fn number_tail(&mut self, tail: &[u16]) -> Option<u16> {
        u16::try_from(self.tails.intern(tail)).ok()
    }
}
