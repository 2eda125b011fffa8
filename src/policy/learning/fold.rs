//! Many connections that are one: ports that servers choose anew each time, and peers without number.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::connection::{Connection, Endpoint, Service};

/// Ports of a server with fewer flows than this, and this many of them, are one range.
const RARE_FLOWS: u64 = 3;
const MANY_PORTS: usize = 8;
/// What systems give out: IANA's dynamic ports, Linux's, all that are not reserved.
const RANGES: [(u16, u16); 3] = [(49_152, 65_535), (32_768, 65_535), (1024, 65_535)];
/// More networks than this are widened.
const MANY_NETS: usize = 16;
const WIDTHS_V4: [u8; 4] = [24, 20, 16, 12];
const WIDTHS_V6: [u8; 4] = [64, 56, 48, 40];

/// What can be folded: how many flows it had, and what it is together with another one.
pub(super) trait Foldable: Default {
    fn flows(&self) -> u64;
    fn merge(&mut self, other: Self);
}

/// Peers first, so that ports are counted over all of them.
pub(super) fn folded<T: Foldable>(all: BTreeMap<Connection, T>) -> BTreeMap<Connection, T> {
    ports(nets(nets(all, Side::From), Side::To))
}

#[derive(Clone, Copy)]
enum Side {
    From,
    To,
}

impl Side {
    fn of(self, connection: &mut Connection) -> &mut Endpoint {
        match self {
            Side::From => &mut connection.from,
            Side::To => &mut connection.to,
        }
    }
}

/// Networks on one side, where they are many for the same other side and service.
fn nets<T: Foldable>(all: BTreeMap<Connection, T>, side: Side) -> BTreeMap<Connection, T> {
    let mut peers: BTreeMap<Connection, BTreeSet<IpNet>> = BTreeMap::new();
    for connection in all.keys() {
        let mut rest = connection.clone();
        if let Endpoint::Net(net) = std::mem::replace(side.of(&mut rest), Endpoint::Any) {
            peers.entry(rest).or_default().insert(net);
        }
    }
    let widened: BTreeMap<Connection, Vec<Endpoint>> =
        peers.into_iter().filter(|(_, nets)| nets.len() > MANY_NETS).map(|(rest, nets)| (rest, wide(&nets))).collect();
    regroup(all, |mut connection| {
        let mut rest = connection.clone();
        let own = std::mem::replace(side.of(&mut rest), Endpoint::Any);
        if let (Endpoint::Net(net), Some(wide)) = (own, widened.get(&rest)) {
            let holds = |wide: &&Endpoint| match wide {
                Endpoint::Net(wide) => wide.contains(&net),
                _ => true,
            };
            if let Some(wide) = wide.iter().find(holds) {
                *side.of(&mut connection) = wide.clone();
            }
        }
        connection
    })
}

/// The narrowest networks of one width that are few enough; else anybody.
fn wide(nets: &BTreeSet<IpNet>) -> Vec<Endpoint> {
    for (v4, v6) in WIDTHS_V4.into_iter().zip(WIDTHS_V6) {
        let wider: BTreeSet<IpNet> = nets.iter().map(|net| widen(*net, v4, v6)).collect();
        if wider.len() <= MANY_NETS {
            return wider.into_iter().map(Endpoint::Net).collect();
        }
    }
    vec![Endpoint::Any]
}

fn widen(net: IpNet, v4: u8, v6: u8) -> IpNet {
    let width = if net.max_prefix_len() == 32 { v4 } else { v6 };
    if net.prefix_len() <= width {
        return net;
    }
    match net {
        IpNet::V4(net) => Ipv4Net::new(net.addr(), width).map(|net| IpNet::V4(net.trunc())),
        IpNet::V6(net) => Ipv6Net::new(net.addr(), width).map(|net| IpNet::V6(net.trunc())),
    }
    .unwrap_or(net)
}

/// Ports that were seen once or twice each, where they are many between the same ends.
fn ports<T: Foldable>(all: BTreeMap<Connection, T>) -> BTreeMap<Connection, T> {
    let ends = |c: &Connection| (c.from.clone(), c.to.clone(), c.service.protocol);
    let rare_port = |c: &Connection, one: &T| {
        let (first, last) = c.service.ports?;
        (first == last && first >= RANGES[2].0 && one.flows() < RARE_FLOWS).then_some(first)
    };
    let mut rare: BTreeMap<(Endpoint, Endpoint, u8), BTreeSet<u16>> = BTreeMap::new();
    for (connection, one) in &all {
        if let Some(port) = rare_port(connection, one) {
            rare.entry(ends(connection)).or_default().insert(port);
        }
    }
    rare.retain(|_, ports| ports.len() >= MANY_PORTS);
    let range = |ports: &BTreeSet<u16>| {
        let within = |range: &&(u16, u16)| ports.first().is_some_and(|first| range.0 <= *first);
        RANGES.iter().find(within).copied().unwrap_or(RANGES[2])
    };
    regroup(all, |mut connection| {
        let single = connection.service.ports.filter(|(first, last)| first == last);
        if let (Some((port, _)), Some(ports)) = (single, rare.get(&ends(&connection)))
            && ports.contains(&port)
        {
            connection.service = Service { ports: Some(range(ports)), ..connection.service };
        }
        connection
    })
}

fn regroup<T: Foldable>(
    all: BTreeMap<Connection, T>,
    to: impl Fn(Connection) -> Connection,
) -> BTreeMap<Connection, T> {
    let mut out: BTreeMap<Connection, T> = BTreeMap::new();
    for (connection, one) in all {
        out.entry(to(connection)).or_default().merge(one);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::policy::learning::graph::Tally;

    type Tallies = BTreeMap<Connection, Tally>;

    fn tally(permitted: u64) -> Tally {
        Tally { permitted, first: 1, last: 2, ..Tally::default() }
    }

    fn to_web(from: &str, port: u16) -> Connection {
        let from = Endpoint::Net(from.parse().unwrap());
        Connection { from, to: Endpoint::group("web"), service: Service::of_port(6, port) }
    }

    fn texts(tallies: Tallies) -> Vec<String> {
        folded(tallies).iter().map(|(c, t)| format!("{c} {}", t.permitted)).collect()
    }

    #[test]
    fn few_stay_as_they_are() {
        let tallies = [(to_web("192.0.2.1/32", 443), tally(5)), (to_web("192.0.2.2/32", 50_000), tally(1))];
        let found = texts(tallies.into_iter().collect());
        assert_eq!(found, ["192.0.2.1 > web tcp 443 5", "192.0.2.2 > web tcp 50000 1"]);
    }

    #[test]
    fn ports_chosen_anew_are_a_range() {
        let chosen = (0..20u16).map(|i| (to_web("192.0.2.1/32", 40_000 + 7 * i), tally(1)));
        let known = [(to_web("192.0.2.1/32", 8080), tally(1)), (to_web("192.0.2.1/32", 50_001), tally(90))];
        let found = texts(chosen.chain(known[1..].iter().cloned()).collect());
        assert_eq!(found, ["192.0.2.1 > web tcp 32768-65535 20", "192.0.2.1 > web tcp 50001 90"]);
    }

    #[test]
    fn many_peers_become_networks_and_the_whole_world() {
        let near = |i: u32| to_web(&format!("192.0.{}.{}/32", i % 3, i), 443);
        let found = texts((0..100).map(|i| (near(i), tally(1))).collect());
        assert_eq!(
            found,
            ["192.0.0.0/24 > web tcp 443 34", "192.0.1.0/24 > web tcp 443 33", "192.0.2.0/24 > web tcp 443 33"]
        );
        let far = |i: u32| to_web(&format!("{}.{}.2.1/32", 1 + i * 2, i), 443);
        assert_eq!(texts((0..100).map(|i| (far(i), tally(1))).collect()), ["any > web tcp 443 100"]);
        let six = |i: u32| to_web(&format!("2001:db8:{:x}::{i:x}/128", i % 5), 443);
        assert_eq!(texts((0..100).map(|i| (six(i), tally(1))).collect()).len(), 5);
    }
}
