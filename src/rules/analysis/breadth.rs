//! How much a rule lets through.

use serde::Serialize;

use super::space::{
    Cell, DST, DST_MAC, DST_PORT, HEADER, SRC, SRC_MAC, SRC_PORT, Set, VERSIONS, VLAN, VNI, headers, last,
};
use crate::packet::has_ports;

/// Hosts that a VLAN, a virtual network or an IPv6 network of /64 is taken for.
const HOSTS_OF_A_SEGMENT: f64 = 256.0;
/// Most hosts that one side is taken for, so that "any" means the same for both IP versions.
const MOST_HOSTS: f64 = 4_294_967_296.0;

/// What an `allow` rule opens, in figures. An IPv6 /64, a VLAN and a virtual network count as 256 addresses, a side as
/// 2^32 at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Breadth {
    pub sources: f64,
    pub destinations: f64,
    /// Combinations of source, destination and destination port; a protocol without ports counts as one.
    pub combinations: f64,
    /// Some packets pass from any address to any other.
    pub any_to_any: bool,
    /// One side is any address, and protocol or ports are not narrowed.
    pub whole_protocol: bool,
}

impl Breadth {
    pub(super) fn of(cells: &[Cell]) -> Self {
        let mut breadth = Self::default();
        for cell in cells {
            let ends = [(SRC, SRC_MAC), (DST, DST_MAC)];
            let [sources, destinations] = ends.map(|(address, mac)| hosts(cell, address, mac).min(MOST_HOSTS));
            let [any_source, any_destination] =
                ends.map(|(address, mac)| [address, mac, VLAN, VNI].iter().all(|at| is_whole(cell, *at)));
            breadth.sources = breadth.sources.max(sources);
            breadth.destinations = breadth.destinations.max(destinations);
            breadth.combinations += sources * destinations * services(cell);
            breadth.any_to_any |= any_source && any_destination;
            breadth.whole_protocol |= (any_source || any_destination) && all_ports(cell);
        }
        breadth
    }
}

fn is_whole(cell: &Cell, dimension: usize) -> bool {
    cell.sets[dimension].spans() == [(0, last(cell.version, dimension))]
}

fn hosts(cell: &Cell, address: usize, mac: usize) -> f64 {
    let segments = [VLAN, VNI].into_iter().filter(|at| !is_whole(cell, *at)).map(|at| size(&cell.sets[at]));
    match segments.reduce(f64::min) {
        _ if !is_whole(cell, mac) => size(&cell.sets[mac]),
        Some(segments) if is_whole(cell, address) => segments * HOSTS_OF_A_SEGMENT,
        _ if cell.version == VERSIONS[0] => size(&cell.sets[address]),
        _ => cell.sets[address].spans().iter().map(|(first, last)| hosts_of_v6(*first, *last)).sum(),
    }
}

fn hosts_of_v6(first: u128, last: u128) -> f64 {
    let networks = (last >> 64) - (first >> 64) + 1;
    (networks as f64 * HOSTS_OF_A_SEGMENT).min((last - first) as f64 + 1.0)
}

/// Protocols, those with ports once for each destination port.
fn services(cell: &Cell) -> f64 {
    let (mut services, ports) = (0.0, size(&cell.sets[DST_PORT]));
    for protocol in 0u8..=255 {
        if cell.sets[HEADER].meets(&headers(std::iter::once(protocol), true)) {
            services += if has_ports(protocol) { ports } else { 1.0 };
        }
    }
    services
}

fn all_ports(cell: &Cell) -> bool {
    let with_ports = headers((0..=255).filter(|protocol| has_ports(*protocol)), true);
    cell.sets[HEADER].meets(&with_ports) && is_whole(cell, DST_PORT) && is_whole(cell, SRC_PORT)
}

fn size(set: &Set) -> f64 {
    set.spans().iter().map(|(first, last)| (last - first) as f64 + 1.0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::analysis::regions::Regions;
    use crate::rules::{Group, GroupIx, Match, Policy, Selector};

    fn breadth(m: Match) -> Breadth {
        let group = Group { name: "vlan".to_owned(), vlans: vec![10, 20], ..Group::default() };
        let policy = Policy { groups: vec![group], ..Policy::default() };
        Breadth::of(&Regions::new(&policy).of(&m))
    }

    fn nets(nets: &[&str]) -> Vec<Selector> {
        nets.iter().map(|net| Selector::Net(net.parse().expect("a network"))).collect()
    }

    #[test]
    fn figures_count_each_address_and_port_once() {
        let from = nets(&["10.0.0.0/24", "10.0.0.128/25", "10.0.2.0/24"]);
        let m =
            Match { from, to: nets(&["10.9.0.0/30"]), protocol: Some(6), to_ports: vec![80..=89], ..Match::default() };
        let b = breadth(m);
        assert_eq!((b.sources, b.destinations, b.combinations), (512.0, 4.0, 512.0 * 4.0 * 10.0));
        assert!(!b.any_to_any && !b.whole_protocol);
    }

    #[test]
    fn ipv6_and_vlans_count_by_segment() {
        let (from, to) = (nets(&["fd00::/63"]), nets(&["fd00::1/128"]));
        let b = breadth(Match { from, to, protocol: Some(58), ..Match::default() });
        assert_eq!((b.sources, b.destinations, b.combinations), (512.0, 1.0, 512.0));
        let from = vec![Selector::Group(GroupIx(0))];
        let b = breadth(Match { from, to: nets(&["10.0.0.0/30"]), protocol: Some(47), ..Match::default() });
        assert_eq!((b.sources, b.destinations, b.any_to_any), (512.0, 4.0, false));
    }

    #[test]
    fn any_is_any_of_both_versions() {
        let b = breadth(Match::default());
        assert!(b.any_to_any && b.whole_protocol);
        let b = breadth(Match { to: nets(&["10.0.0.1/32"]), to_ports: vec![22..=22], ..Match::default() });
        assert_eq!((b.sources, b.combinations), (MOST_HOSTS, 3.0 * MOST_HOSTS), "three protocols have ports");
        assert!(!b.any_to_any && !b.whole_protocol);
    }
}
