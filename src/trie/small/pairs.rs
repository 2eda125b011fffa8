//! The classes of source and destination, joined: for each pair a line, for each line and lead class of the service a
//! tail, for each tail and rest class an outcome. Equal lines are one, and so are equal tails.

use super::interner::Interner;
use super::outcome::Joiner;
use super::service::Held;
use super::side::Prefixes;
use crate::trie::row::Row;
use rustc_hash::FxHashMap;

#[derive(Debug)]
pub struct Pairs {
    /// Class of the source, by the longest prefix. Prefixes that lead to the same lines are in one class.
    pub src_class: Vec<u16>,
    pub dst_class: Vec<u16>,
    pub dst_classes: usize,
    /// Line by source class and destination class.
    pub lines: Vec<u16>,
    /// Tail by line and lead class.
    pub tails: Vec<u16>,
    /// Outcome by tail and rest class.
    pub outcomes: Vec<u16>,
}

/// One row, as it is asked for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub src: u32,
    pub dst: u32,
    pub row: u32,
}

/// The tails of a line that are not the empty one, with their lead classes.
type Sparse = Vec<(u16, u16)>;

#[derive(Debug)]
pub struct PairsBuilder<'a> {
    rows: &'a [Row],
    held: &'a [&'a Held],
    joiner: &'a mut Joiner,
    lines: Interner<u16>,
    tails: Interner<u16>,
    joined_tails: FxHashMap<(u16, u16), u16>,
    limit_bytes: usize,
}

const NO_TAIL: u16 = 0;

impl<'a> PairsBuilder<'a> {
    /// `held` says for each row what its service holds.
    pub fn new(
        rows: &'a [Row],
        held: &'a [&'a Held],
        joiner: &'a mut Joiner,
        (leads, rests): (usize, usize),
        limit_bytes: usize,
    ) -> Self {
        let (mut lines, mut tails) = (Interner::new(), Interner::new());
        tails.intern(&vec![joiner.none(); rests]);
        lines.intern(&vec![NO_TAIL; leads]);
        Self { rows, held, joiner, lines, tails, joined_tails: FxHashMap::default(), limit_bytes }
    }

    /// `None` when the tables are larger than the limit.
    pub fn build(mut self, src: &Prefixes, dst: &Prefixes) -> Option<Pairs> {
        let mut places: Vec<Place> = (0..).zip(self.rows).map(|(at, row)| Place {
            src: src.position(&row.src) as u32,
            dst: dst.position(&row.dst) as u32,
            row: at,
        }).collect();
        places.sort_unstable();
        let width = dst.len();
        let mut grid = vec![0; src.len() * width];
        let mut places = places.as_slice();
        for at in 0..src.len() {
            if at > 0 {
                let parent = src.parent(at) * width;
                grid.copy_within(parent..parent + width, at * width);
            }
            let here;
            (here, places) = places.split_at(places.partition_point(|place| place.src as usize <= at));
            self.add(&mut grid[at * width..][..width], dst, here)?;
        }
        let (src_class, grid) = distinct_rows(&grid, width);
        let height = grid.len() / width;
        let (dst_class, grid) = distinct_rows(&transpose(&grid, width), height);
        let dst_classes = grid.len() / height;
        Some(Pairs {
            src_class,
            dst_class,
            dst_classes,
            lines: transpose(&grid, height),
            tails: self.lines.iter().flatten().copied().collect(),
            outcomes: self.tails.iter().flatten().copied().collect(),
        })
    }

    /// Adds the rows of one source prefix, by destination, to the lines of the prefix around it.
    fn add(&mut self, lines: &mut [u16], dst: &Prefixes, mut places: &[Place]) -> Option<()> {
        let mut memo: FxHashMap<(u16, u32), u16> = FxHashMap::default();
        let mut adds: Vec<Sparse> = Vec::new();
        // The destinations around the one at hand that have rows: where each ends, and what is added inside.
        let mut around: Vec<(usize, u32)> = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            while around.pop_if(|(end, _)| *end <= at).is_some() {}
            let here;
            (here, places) = places.split_at(places.partition_point(|place| place.dst as usize <= at));
            if !here.is_empty() {
                let outer = around.last().map_or(&[] as &[_], |(_, add)| &adds[*add as usize]);
                let add = self.with_rows(outer, here)?;
                around.push((dst.end(at), adds.len() as u32));
                adds.push(add);
            }
            let Some((_, add)) = around.last() else {
                let Some(next) = places.first() else { break };
                at = next.dst as usize;
                continue;
            };
            let key = (lines[at], *add);
            lines[at] = match memo.get(&key) {
                Some(line) => *line,
                None => {
                    let line = self.join_line(key.0, &adds[key.1 as usize])?;
                    memo.insert(key, line);
                    line
                }
            };
            at += 1;
        }
        Some(())
    }

    fn with_rows(&mut self, outer: &[(u16, u16)], places: &[Place]) -> Option<Sparse> {
        let mut line = self.lines.get(0).to_vec();
        outer.iter().for_each(|(lead, tail)| line[usize::from(*lead)] = *tail);
        for place in places {
            let at = place.row as usize;
            let mut tail = self.tails.get(u32::from(NO_TAIL)).to_vec();
            let outcome = self.joiner.one(at, &self.rows[at])?;
            self.held[at].rests.iter().for_each(|rest| tail[usize::from(*rest)] = outcome);
            let tail = u16::try_from(self.tails.intern(&tail)).ok()?;
            for lead in &self.held[at].leads {
                let old = &mut line[usize::from(*lead)];
                *old = self.join_tails(*old, tail)?;
            }
        }
        Some((0..).zip(line).filter(|(_, tail)| *tail != NO_TAIL).collect())
    }

    fn join_line(&mut self, line: u16, add: &[(u16, u16)]) -> Option<u16> {
        let mut joined = self.lines.get(u32::from(line)).to_vec();
        for (lead, tail) in add {
            let old = &mut joined[usize::from(*lead)];
            *old = self.join_tails(*old, *tail)?;
        }
        let line = self.lines.intern(&joined);
        if self.lines.len() * joined.len() * size_of::<u16>() > self.limit_bytes {
            return None;
        }
        u16::try_from(line).ok()
    }

    fn join_tails(&mut self, a: u16, b: u16) -> Option<u16> {
        if a == b || a == NO_TAIL || b == NO_TAIL {
            return Some(a | b);
        }
        if let Some(joined) = self.joined_tails.get(&(a, b)) {
            return Some(*joined);
        }
        let mut tail = self.tails.get(u32::from(a)).to_vec();
        for (outcome, other) in tail.iter_mut().zip(self.tails.get(u32::from(b))) {
            *outcome = self.joiner.join(*outcome, *other)?;
        }
        let joined = u16::try_from(self.tails.intern(&tail)).ok()?;
        self.joined_tails.insert((a, b), joined);
        Some(joined)
    }
}

/// The number of each row among the different rows, and these one after the other.
fn distinct_rows(grid: &[u16], width: usize) -> (Vec<u16>, Vec<u16>) {
    let mut numbers: FxHashMap<&[u16], u16> = FxHashMap::default();
    let mut distinct = Vec::new();
    let classes = grid.chunks_exact(width).map(|row| {
        let next = numbers.len() as u16;
        *numbers.entry(row).or_insert_with(|| {
            distinct.extend_from_slice(row);
            next
        })
    });
    (classes.collect(), distinct)
}

fn transpose(grid: &[u16], width: usize) -> Vec<u16> {
    let height = grid.len() / width;
    let mut turned = vec![0; grid.len()];
    for (row, cells) in grid.chunks_exact(width).enumerate() {
        for (column, cell) in cells.iter().enumerate() {
            turned[column * height + row] = *cell;
        }
    }
    turned
}
