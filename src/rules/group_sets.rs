//! Which groups an endpoint is in, as one number, without building a set per packet.
//!
//! An endpoint belongs to groups by its IP address, its MAC, the packet's VLAN and its VNI. Each of the four
//! lookups yields the number of a set; three tables join them two at a time:
//!
//! ```text
//! vlan ─┐
//!       ├─► segment ─┐
//! vni ──┘            ├─► link ─┐
//! mac ───────────────┘         ├─► GroupSetHandle
//! ip ──────────────────────────┘
//! ```
//! Every union that can occur is thus known when the policy is compiled. A join of a sets with b sets has
//! a · b entries; beyond [`MAX_JOIN`] it is not tabulated and the more specific side alone is reported when
//! it is not empty (IP before MAC before VLAN before VNI). That is still exact for VMs whose groups hold
//! both their addresses and their MACs. It concerns only what is reported: rules are matched on the four
//! memberships themselves, always exactly.

use std::collections::HashMap;
use std::sync::Arc;

use super::checks::CompileError;
use super::labels::Labels;
use super::rule::{Group, GroupSetHandle};

/// Most entries of one join (1 MiB).
pub(super) const MAX_JOIN: usize = 1 << 18;

/// Numbers for sets of groups (sorted positions); 0 is the empty set.
#[derive(Debug)]
pub(super) struct SetIndex {
    numbers: HashMap<Vec<u16>, u32>,
    sets: Vec<Vec<u16>>,
}

impl SetIndex {
    pub(super) fn new() -> Self {
        Self { numbers: HashMap::from([(Vec::new(), 0)]), sets: vec![Vec::new()] }
    }

    /// By number.
    pub(super) fn sets(&self) -> &[Vec<u16>] {
        &self.sets
    }

    /// `set` must be sorted and without duplicates.
    pub(super) fn intern(&mut self, set: Vec<u16>) -> u32 {
        if let Some(number) = self.numbers.get(&set) {
            return *number;
        }
        let number = self.sets.len() as u32;
        self.sets.push(set.clone());
        self.numbers.insert(set, number);
        number
    }
}

/// The sets that each kind of membership can yield.
#[derive(Debug)]
pub(super) struct Kinds {
    pub(super) ip: SetIndex,
    pub(super) mac: SetIndex,
    pub(super) vlan: SetIndex,
    pub(super) vni: SetIndex,
}

/// The three joins and the handles of their results.
#[derive(Clone, Debug)]
pub(super) struct GroupSets {
    segment: Join,
    link: Join,
    endpoint: Join,
    handles: Box<[GroupSetHandle]>,
}

impl GroupSets {
    pub(super) fn build(kinds: &Kinds, groups: &[Group], labels: &Labels) -> Result<Self, CompileError> {
        let (segment, segments) = Join::of(&kinds.vlan, &kinds.vni, MAX_JOIN);
        let (link, links) = Join::of(&kinds.mac, &segments, MAX_JOIN);
        let (endpoint, endpoints) = Join::of(&kinds.ip, &links, MAX_JOIN);
        let names: Vec<Arc<str>> = groups.iter().map(|group| Arc::from(group.name.as_str())).collect();
        let name = |set: &Vec<u16>| set.iter().map(|at| names[usize::from(*at)].clone()).collect();
        let handles = labels.intern_sets(endpoints.sets.iter().map(name).collect())?;
        Ok(Self { segment, link, endpoint, handles: handles.into() })
    }

    /// Set numbers as given by the four [`Kinds`].
    pub(super) fn get(&self, ip: u32, mac: u32, vlan: u32, vni: u32) -> GroupSetHandle {
        let link = self.link.get(mac, self.segment.get(vlan, vni));
        self.handles[self.endpoint.get(ip, link) as usize]
    }

    /// False when a join was too large to tabulate.
    pub(super) fn exact(&self) -> bool {
        [&self.segment, &self.link, &self.endpoint].iter().all(|join| matches!(join, Join::Table { .. }))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let joins = self.segment.memory_bytes() + self.link.memory_bytes() + self.endpoint.memory_bytes();
        joins + size_of_val(&*self.handles)
    }
}

/// Set a and set b → number of their union.
#[derive(Clone, Debug)]
enum Join {
    Table {
        width: usize,
        cells: Box<[u32]>,
    },
    /// Too many pairs: a unless it is empty, else b.
    First {
        a: Box<[u32]>,
        b: Box<[u32]>,
    },
}

impl Join {
    fn of(a: &SetIndex, b: &SetIndex, max: usize) -> (Self, SetIndex) {
        let mut out = SetIndex::new();
        if a.sets.len().saturating_mul(b.sets.len()) > max {
            let mut copy = |from: &SetIndex| from.sets.iter().map(|set| out.intern(set.clone())).collect();
            let join = Join::First { a: copy(a), b: copy(b) };
            return (join, out);
        }
        let cells = a.sets.iter().flat_map(|x| b.sets.iter().map(move |y| union(x, y)));
        let cells = cells.map(|set| out.intern(set)).collect();
        (Join::Table { width: b.sets.len(), cells }, out)
    }

    fn get(&self, a: u32, b: u32) -> u32 {
        match self {
            Join::Table { width, cells } => cells[a as usize * width + b as usize],
            Join::First { b: only, .. } if a == 0 => only[b as usize],
            Join::First { a: only, .. } => only[a as usize],
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Join::Table { cells, .. } => size_of_val(&**cells),
            Join::First { a, b } => size_of_val(&**a) + size_of_val(&**b),
        }
    }
}

fn union(a: &[u16], b: &[u16]) -> Vec<u16> {
    let mut all = [a, b].concat();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(sets: &[&[u16]]) -> SetIndex {
        let mut index = SetIndex::new();
        for set in sets {
            index.intern(set.to_vec());
        }
        index
    }

    #[test]
    fn joins_are_unions_and_equal_unions_share_a_number() {
        let (a, b) = (index(&[&[1], &[1, 2]]), index(&[&[2], &[3]]));
        let (join, out) = Join::of(&a, &b, 100);
        for (i, x) in a.sets.iter().enumerate() {
            for (j, y) in b.sets.iter().enumerate() {
                assert_eq!(out.sets[join.get(i as u32, j as u32) as usize], union(x, y));
            }
        }
        assert_eq!(join.get(1, 1), join.get(2, 0), "[1] + [2] is [1, 2]");
        assert_eq!(join.get(0, 0), 0);
    }

    #[test]
    fn too_many_pairs_report_the_first_side() {
        let (a, b) = (index(&[&[1], &[1, 2]]), index(&[&[2], &[3]]));
        let (join, out) = Join::of(&a, &b, 8);
        assert!(matches!(join, Join::First { .. }));
        assert_eq!(out.sets[join.get(2, 2) as usize], [1, 2]);
        assert_eq!(out.sets[join.get(0, 2) as usize], [3]);
        assert_eq!(join.get(0, 0), 0);
    }
}
