//! Rules → cells.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::space::{
    Cell, DIMENSIONS, DST, DST_MAC, DST_PORT, HEADER, ICMP_CODE, ICMP_TYPE, SRC, SRC_MAC, SRC_PORT, Set, VERSIONS,
    VLAN, VNI, headers, last, mac_number, net_span,
};
use crate::packet::{has_ports, is_icmp};
use crate::rules::{Match, Policy, Selector};

/// One way in which an endpoint can satisfy a side: a value of this dimension in this set. `None`: any will do.
type Way = Option<(usize, Set)>;

/// Makes the cells of rules; sides that several rules have in common are made once.
#[derive(Debug)]
pub(super) struct Regions<'a> {
    policy: &'a Policy,
    /// By IP version and dimension.
    whole: [[Set; DIMENSIONS]; 2],
    sides: HashMap<(u8, usize, &'a [Selector]), Vec<Way>>,
}

impl<'a> Regions<'a> {
    pub(super) fn new(policy: &'a Policy) -> Self {
        let whole = VERSIONS.map(|version| std::array::from_fn(|at| Set::new([(0, last(version, at))])));
        Self { policy, whole, sides: HashMap::new() }
    }

    /// The packets that a match holds for: the union of these cells, none of them empty.
    pub(super) fn of(&mut self, m: &'a Match) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (at, version) in VERSIONS.into_iter().enumerate() {
            let base = conditions(Cell { version, sets: self.whole[at].clone() }, m);
            if base.is_empty() {
                continue;
            }
            let from = self.side(version, SRC, &m.from);
            let to = self.side(version, DST, &m.to);
            for from in &from {
                let half = restrict(base.clone(), from);
                cells.extend(to.iter().map(|to| restrict(half.clone(), to)).filter(|cell| !cell.is_empty()));
            }
        }
        cells
    }

    fn side(&mut self, version: u8, end: usize, selectors: &'a [Selector]) -> Vec<Way> {
        if selectors.is_empty() {
            return vec![None];
        }
        let policy = self.policy;
        self.sides.entry((version, end, selectors)).or_insert_with(|| ways(policy, version, end, selectors)).clone()
    }
}

fn restrict(cell: Cell, way: &Way) -> Cell {
    match way {
        Some((dimension, set)) => cell.within(*dimension, set),
        None => cell,
    }
}

fn ways(policy: &Policy, version: u8, end: usize, selectors: &[Selector]) -> Vec<Way> {
    let (mut nets, mut macs, mut vlans, mut vnis) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for selector in selectors {
        match selector {
            Selector::Net(net) => nets.push(*net),
            Selector::Group(ix) => {
                let Some(group) = policy.groups.get(usize::from(ix.0)) else { continue };
                nets.extend(&group.nets);
                macs.extend(group.macs.iter().map(|mac| mac_number(*mac)));
                vlans.extend(group.vlans.iter().map(|vlan| u128::from(*vlan)));
                vnis.extend(group.vnis.iter().map(|vni| u128::from(*vni)));
            }
        }
    }
    let addresses = nets.into_iter().map(net_span).filter(|(of, _)| *of == version).map(|(_, span)| span);
    let points = |values: Vec<u128>| Set::new(values.into_iter().map(|value| (value, value)));
    let mac = if end == SRC { SRC_MAC } else { DST_MAC };
    let ways = [(end, Set::new(addresses)), (mac, points(macs)), (VLAN, points(vlans)), (VNI, points(vnis))];
    ways.into_iter().filter(|(_, set)| !set.is_empty()).map(Some).collect()
}

/// All conditions but those on the two sides.
fn conditions(mut cell: Cell, m: &Match) -> Cell {
    if let Some(protocol) = m.protocol {
        cell = cell.within(HEADER, &headers(std::iter::once(protocol), false));
    }
    for (dimension, ranges) in [(SRC_PORT, &m.from_ports), (DST_PORT, &m.to_ports)] {
        if !ranges.is_empty() {
            let with_ports = headers((0..=255).filter(|protocol| has_ports(*protocol)), true);
            cell = cell.within(HEADER, &with_ports).within(dimension, &ports(ranges));
        }
    }
    if let Some((kind, code)) = m.icmp {
        cell = cell.within(HEADER, &headers((0..=255).filter(|protocol| is_icmp(*protocol)), true));
        cell = cell.within(ICMP_TYPE, &point(kind.into()));
        if let Some(code) = code {
            cell = cell.within(ICMP_CODE, &point(code.into()));
        }
    }
    if let Some(vlan) = m.vlan {
        cell = cell.within(VLAN, &point(vlan.into()));
    }
    if let Some(vni) = m.vni {
        cell = cell.within(VNI, &point(vni.into()));
    }
    cell
}

fn ports(ranges: &[RangeInclusive<u16>]) -> Set {
    Set::new(ranges.iter().map(|range| (u128::from(*range.start()), u128::from(*range.end()))))
}

fn point(value: u128) -> Set {
    Set::new([(value, value)])
}
