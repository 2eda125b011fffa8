//! The space of packets, as a product of dimensions, and exact set operations on parts of it.
//!
//! A [`Cell`] is a product of one set of values per dimension; a rule is a union of few cells (one for each IP
//! version and for each kind of membership on either side). Sets are lists of ranges, so a group of a thousand
//! addresses is one cell and not a thousand boxes.
//!
//! The space holds every packet there can be and some there cannot (an ICMPv6 header over IPv4): what is true of all
//! its points is true of all packets.

use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;

use crate::packet::{Mac, Tuple, from_ip_addr, has_ports, is_icmp};
use crate::rules::Subject;

/// The dimensions, those first that tell rules apart best.
pub(super) const SRC: usize = 0;
pub(super) const DST: usize = 1;
/// Protocol, twice, plus one when ports or ICMP header are known.
pub(super) const HEADER: usize = 2;
pub(super) const DST_PORT: usize = 3;
pub(super) const SRC_PORT: usize = 4;
pub(super) const VLAN: usize = 5;
pub(super) const VNI: usize = 6;
pub(super) const SRC_MAC: usize = 7;
pub(super) const DST_MAC: usize = 8;
pub(super) const ICMP_TYPE: usize = 9;
pub(super) const ICMP_CODE: usize = 10;
pub(super) const DIMENSIONS: usize = 11;

/// IP versions; their addresses are spaces of their own.
pub(super) const VERSIONS: [u8; 2] = [4, 6];

/// Last value of a dimension; all start at 0.
pub(super) fn last(version: u8, dimension: usize) -> u128 {
    match dimension {
        SRC | DST if version == 4 => u128::from(u32::MAX),
        SRC | DST => u128::MAX,
        HEADER => 511,
        DST_PORT | SRC_PORT => u128::from(u16::MAX),
        // 12 bits of the tag.
        VLAN => 4095,
        VNI => u128::from(u32::MAX),
        SRC_MAC | DST_MAC => (1 << 48) - 1,
        _ => u128::from(u8::MAX),
    }
}

/// First and last of a range.
pub(super) type Span = (u128, u128);

/// Values of one dimension: ascending, disjoint ranges that do not touch. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set(Rc<[Span]>);

impl Set {
    /// Ranges in any order; those that end before they start are left out.
    pub(super) fn new(spans: impl IntoIterator<Item = Span>) -> Self {
        let mut spans: Vec<Span> = spans.into_iter().filter(|(first, last)| first <= last).collect();
        spans.sort_unstable();
        let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
        for (first, last) in spans {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged.into())
    }

    pub(super) fn spans(&self) -> &[Span] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn holds(&self, value: u128) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < value);
        self.0.get(at).is_some_and(|(first, _)| *first <= value)
    }

    /// First and last value; not of an empty set.
    pub(super) fn hull(&self) -> Option<Span> {
        Some((self.0.first()?.0, self.0.last()?.1))
    }

    pub(super) fn meets(&self, other: &Set) -> bool {
        Rc::ptr_eq(&self.0, &other.0) && !self.is_empty() || self.overlaps(other).next().is_some()
    }

    /// What is in both.
    fn and(&self, other: &Set) -> Set {
        if Rc::ptr_eq(&self.0, &other.0) { self.clone() } else { Set(self.overlaps(other).collect()) }
    }

    /// What is in `self` and not in `other`.
    fn minus(&self, other: &Set) -> Set {
        if Rc::ptr_eq(&self.0, &other.0) {
            return Set(Rc::new([]));
        }
        let mut left = Vec::new();
        let mut at = other.0.partition_point(|(_, last)| self.0.first().is_some_and(|(first, _)| last < first));
        for (first, last) in self.0.iter().copied() {
            let mut next = Some(first);
            while let (Some(from), Some((taken, until))) = (next, other.0.get(at)) {
                if *until < from {
                    at += 1;
                } else if *taken > last {
                    break;
                } else {
                    if *taken > from {
                        left.push((from, taken - 1));
                    }
                    // A range of `other` that goes on past this one of `self` may take from the next.
                    next = until.checked_add(1).filter(|from| *from <= last);
                    if next.is_some() {
                        at += 1;
                    }
                }
            }
            if let Some(from) = next {
                left.push((from, last));
            }
        }
        Set(left.into())
    }

    fn overlaps<'a>(&'a self, other: &'a Set) -> impl Iterator<Item = Span> + 'a {
        let start = |set: &'a Set, other: &Set| {
            let first = other.0.first().map_or(0, |(first, _)| *first);
            set.0.partition_point(|(_, last)| *last < first)
        };
        let (mut i, mut j) = (start(self, other), start(other, self));
        std::iter::from_fn(move || {
            while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
                let (first, last) = (a.0.max(b.0), a.1.min(b.1));
                if a.1 <= b.1 {
                    i += 1;
                }
                if b.1 <= a.1 {
                    j += 1;
                }
                if first <= last {
                    return Some((first, last));
                }
            }
            None
        })
    }
}

/// A product of sets: packets of one IP version whose value in every dimension is in that dimension's set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) version: u8,
    pub(super) sets: [Set; DIMENSIONS],
}

impl Cell {
    pub(super) fn is_empty(&self) -> bool {
        self.sets.iter().any(Set::is_empty)
    }

    pub(super) fn holds(&self, point: &Point) -> bool {
        self.version == point.version && self.sets.iter().zip(&point.values).all(|(set, value)| set.holds(*value))
    }

    pub(super) fn meets(&self, other: &Cell) -> bool {
        self.version == other.version && self.sets.iter().zip(&other.sets).all(|(a, b)| a.meets(b))
    }

    /// What is in both, if anything.
    pub(super) fn and(&self, other: &Cell) -> Option<Cell> {
        if !self.meets(other) {
            return None;
        }
        let sets = std::array::from_fn(|dimension| self.sets[dimension].and(&other.sets[dimension]));
        Some(Cell { version: self.version, sets })
    }

    /// Restricts one dimension.
    #[must_use]
    pub(super) fn within(mut self, dimension: usize, set: &Set) -> Cell {
        self.sets[dimension] = self.sets[dimension].and(set);
        self
    }

    /// Appends what is in `self` and not in `other`: disjoint cells, at most one for each dimension.
    pub(super) fn minus(&self, other: &Cell, left: &mut Vec<Cell>) {
        if !self.meets(other) {
            return left.push(self.clone());
        }
        let mut rest = self.clone();
        for dimension in 0..DIMENSIONS {
            let outside = rest.sets[dimension].minus(&other.sets[dimension]);
            if !outside.is_empty() {
                let inside = rest.sets[dimension].and(&other.sets[dimension]);
                let mut part = rest.clone();
                part.sets[dimension] = outside;
                left.push(part);
                rest.sets[dimension] = inside;
            }
        }
    }
}

/// What is in the first cells and in none of the others.
pub(super) fn difference(from: &[Cell], others: &[Cell]) -> Vec<Cell> {
    let mut rest = from.to_vec();
    for other in others {
        let mut left = Vec::with_capacity(rest.len());
        rest.iter().for_each(|cell| cell.minus(other, &mut left));
        rest = left;
    }
    rest
}

/// What is in one of the first and in one of the others; parts may overlap as the cells do.
pub(super) fn intersection(some: &[Cell], others: &[Cell]) -> Vec<Cell> {
    some.iter().flat_map(|cell| others.iter().filter_map(|other| cell.and(other))).collect()
}

pub(super) fn meet(some: &[Cell], others: &[Cell]) -> bool {
    some.iter().any(|cell| others.iter().any(|other| cell.meets(other)))
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) version: u8,
    pub(super) values: [u128; DIMENSIONS],
}

impl Point {
    /// A packet of the cell, as ordinary as the cell allows: TCP, untagged, with known ports.
    pub(super) fn ordinary(cell: &Cell) -> Option<Point> {
        let values = cell.sets.iter().enumerate().map(|(dimension, set)| {
            let usual = USUAL.iter().filter(|(version, at, _)| *at == dimension && [0, cell.version].contains(version));
            let usual = usual.map(|(_, _, value)| *value).find(|value| set.holds(*value));
            // The address after that of the network.
            let (first, last) = set.hull()?;
            let second = (dimension <= DST && first < last && set.holds(first + 1)).then_some(first + 1);
            usual.or(second).or(Some(first))
        });
        let values: Vec<u128> = values.collect::<Option<_>>()?;
        Some(Point { version: cell.version, values: values.try_into().ok()? })
    }

    /// A packet of the cell where `draw(n)` gives numbers below n.
    pub(super) fn random(cell: &Cell, draw: &mut impl FnMut(u128) -> u128) -> Option<Point> {
        let mut point = Point::ordinary(cell)?;
        for (value, set) in point.values.iter_mut().zip(&cell.sets) {
            let spans = set.spans();
            let (first, last) = spans[draw(spans.len() as u128) as usize];
            *value = match (last - first).checked_add(1) {
                Some(1) => first,
                Some(values) => first + draw(values),
                None => draw(u128::MAX),
            };
        }
        Some(point)
    }

    pub(super) fn subject(&self) -> Subject {
        let value = |dimension: usize| self.values[dimension];
        let (protocol, known) = ((value(HEADER) / 2) as u8, value(HEADER) % 2 == 1);
        let port = |dimension| if known && has_ports(protocol) { value(dimension) as u16 } else { 0 };
        let icmp = known && is_icmp(protocol);
        Subject {
            tuple: Tuple {
                src: value(SRC),
                dst: value(DST),
                src_port: port(SRC_PORT),
                dst_port: port(DST_PORT),
                protocol,
                version: self.version,
                vlan: value(VLAN) as u16,
                vni: value(VNI) as u32,
            },
            src_mac: number_mac(value(SRC_MAC)),
            dst_mac: number_mac(value(DST_MAC)),
            icmp: if icmp { (value(ICMP_TYPE) as u8, value(ICMP_CODE) as u8) } else { (0, 0) },
            ports_known: known,
        }
    }
}

/// Values that are preferred in witnesses, by IP version (0: either) and dimension. The addresses are those for
/// documentation (RFC 5737, RFC 3849).
const USUAL: [(u8, usize, u128); 17] = [
    (4, SRC, 0xc000_0201),
    (4, DST, 0xc633_6401),
    (6, SRC, 0x2001_0db8 << 96 | 1),
    (6, DST, 0x2001_0db8 << 96 | 2),
    (0, HEADER, 6 * 2 + 1),
    (0, HEADER, 17 * 2 + 1),
    (4, HEADER, 2 + 1),
    (6, HEADER, 58 * 2 + 1),
    (0, HEADER, 132 * 2 + 1),
    (0, HEADER, 47 * 2 + 1),
    (0, HEADER, 6 * 2),
    (0, SRC_PORT, 49152),
    (0, DST_PORT, 443),
    (4, ICMP_TYPE, 8),
    (6, ICMP_TYPE, 128),
    (0, VLAN, 0),
    (0, VNI, 0),
];

/// Known headers of all protocols, ports or not.
pub(super) fn headers(protocols: impl Iterator<Item = u8>, only_known: bool) -> Set {
    Set::new(protocols.map(|protocol| {
        let known = u128::from(protocol) * 2 + 1;
        (if only_known { known } else { known - 1 }, known)
    }))
}

pub(super) fn mac_number(mac: Mac) -> u128 {
    mac.0.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn number_mac(number: u128) -> Mac {
    let [.., a, b, c, d, e, f] = number.to_be_bytes();
    Mac([a, b, c, d, e, f])
}

/// IP version, first and last address.
pub(super) fn net_span(net: IpNet) -> (u8, Span) {
    let number = |ip: IpAddr| from_ip_addr(ip);
    let (version, first) = number(net.network());
    (version, (first, number(net.broadcast()).1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> impl Strategy<Value = Set> {
        proptest::collection::vec((0u128..40, 0u128..8), 0..6)
            .prop_map(|spans| Set::new(spans.into_iter().map(|(first, more)| (first, first + more))))
    }

    proptest! {
        #[test]
        fn sets_are_what_their_values_say(a in set(), b in set()) {
            let (and, minus) = (a.and(&b), a.minus(&b));
            for value in 0..50 {
                prop_assert_eq!(and.holds(value), a.holds(value) && b.holds(value));
                prop_assert_eq!(minus.holds(value), a.holds(value) && !b.holds(value));
            }
            prop_assert_eq!(a.meets(&b), !and.is_empty());
            prop_assert_eq!(Set::new(minus.spans().iter().copied()), minus, "in normal form");
        }
    }

    #[test]
    fn the_ends_of_the_address_space_do_not_overflow() {
        let (all, upper) = (Set::new([(0, u128::MAX)]), Set::new([(1 << 127, u128::MAX)]));
        let lower = Set::new([(0, (1 << 127) - 1)]);
        assert_eq!((all.minus(&upper), all.minus(&lower)), (lower.clone(), upper.clone()));
        assert_eq!(Set::new([(1 << 127, u128::MAX), (0, (1 << 127) - 1)]), all);
        assert!(!lower.meets(&upper) && all.minus(&all).is_empty());
    }
}
