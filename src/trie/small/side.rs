//! One side, source or destination: the prefixes that rows ask for. They are nested or apart, so that the longest one
//! that holds a packet's value tells all the others.

use crate::trie::direct::{Direct, Stretch};
use crate::trie::row::{Kind, Side};

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

    /// The table from a value to the position of the longest prefix that holds it. `None` beyond `limit_bytes`.
    pub fn table(&self, limit_bytes: usize) -> Option<Direct> {
        let stretch = |(number, side): (u32, &Side)| Stretch { value: side.value, len: side.len, number };
        let stretches: Vec<Stretch> = (0..).zip(&self.sides).map(stretch).collect();
        Direct::new(&stretches, self.len() as u32, limit_bytes)
    }
}
