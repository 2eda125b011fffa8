//! Who is there: groups of VMs, clients outside, and their addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::dice::Dice;
use super::frames::End;

/// The kinds of group that a scenario knows, with how many hosts each has by default.
pub(super) const KINDS: [(Kind, usize); 9] = [
    (Kind::Web, 4),
    (Kind::App, 4),
    (Kind::Db, 2),
    (Kind::Dns, 2),
    (Kind::Ntp, 1),
    (Kind::Backup, 1),
    (Kind::Admin, 2),
    (Kind::Clients, 40),
    (Kind::Iot, 12),
];

/// Hosts that one group's network has room for.
pub(super) const MAX_GROUP: usize = 60_000;

/// What the hosts of a group do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Web,
    App,
    Db,
    Dns,
    Ntp,
    Backup,
    Admin,
    /// People outside, who reach the VMs through a router.
    Clients,
    Iot,
    /// Machines on the internet that only attacks know; in no group of the configuration.
    Outside,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::App => "app",
            Self::Db => "db",
            Self::Dns => "dns",
            Self::Ntp => "ntp",
            Self::Backup => "backup",
            Self::Admin => "admin",
            Self::Clients => "clients",
            Self::Iot => "iot",
            Self::Outside => "outside",
        }
    }

    /// Whether the hosts are VMs behind the gateway.
    pub(super) fn is_local(self) -> bool {
        !matches!(self, Self::Clients | Self::Outside)
    }

    /// Position in the address plan; stays the same whichever groups take part.
    fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// Position of a host in [`Topology::hosts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct HostIx(pub(super) u32);

#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
    /// Of the router for hosts that are not local.
    pub(super) mac: [u8; 6],
    /// Time to live, or hop limit, of its packets when they pass the gateway.
    pub(super) ttl: u8,
    /// Round trip between the gateway and this host, in nanoseconds.
    pub(super) rtt_ns: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) kind: Kind,
    pub(super) hosts: Vec<HostIx>,
}

/// Machines on the internet that take part only by address: those who scan together, reflectors, passers-by.
pub(super) const STRANGERS: &str = "192.0.2.0/24";

/// How packets of one of them look at the gateway.
pub(super) fn stranger(n: u8) -> End {
    End { mac: ROUTER_MAC, ip: Ipv4Addr::new(192, 0, 2, n.saturating_add(1)).into(), ttl: 44 + n % 16 }
}

/// The router that everything outside is behind.
pub(super) const ROUTER_MAC: [u8; 6] = [0x02, 0x47, 0x4e, 0, 0, 1];
pub(super) const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd47, 0x6e6f, 0x6d6f, 0, 0, 0, 0, 1);

/// All hosts.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    pub(super) groups: Vec<Group>,
    pub(super) hosts: Vec<Host>,
    /// Application servers that are planned for, and do not work from the beginning.
    pub(super) spare: Vec<HostIx>,
}

impl Topology {
    /// Lays out groups of these sizes, and a few machines outside for attacks.
    pub(super) fn new(sizes: &[(Kind, usize)], dice: &mut Dice) -> Self {
        let mut topology = Self { groups: Vec::new(), hosts: Vec::new(), spare: Vec::new() };
        for &(kind, size) in sizes.iter().chain(&[(Kind::Outside, 4)]) {
            let first = topology.hosts.len() as u32;
            for n in 1..=size.min(MAX_GROUP) as u16 {
                topology.hosts.push(host(kind, n, dice));
            }
            let hosts = (first..topology.hosts.len() as u32).map(HostIx).collect();
            topology.groups.push(Group { kind, hosts });
        }
        topology
    }

    /// Plans so many more application servers.
    #[must_use]
    pub(super) fn with_spare(mut self, count: usize, dice: &mut Dice) -> Self {
        for n in 0..count {
            let number = (self.of(Kind::App).len() + n).min(MAX_GROUP + count) as u16 + 1;
            self.spare.push(HostIx(self.hosts.len() as u32));
            self.hosts.push(host(Kind::App, number, dice));
        }
        self
    }

    pub(super) fn host(&self, ix: HostIx) -> &Host {
        &self.hosts[ix.0 as usize]
    }

    /// Hosts of a kind; empty when that group takes no part.
    pub(super) fn of(&self, kind: Kind) -> &[HostIx] {
        self.groups.iter().find(|g| g.kind == kind).map_or(&[], |g| &g.hosts)
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        !self.of(kind).is_empty()
    }

    /// Every VM behind the gateway.
    pub(super) fn local(&self) -> impl Iterator<Item = HostIx> + '_ {
        self.groups.iter().filter(|g| g.kind.is_local()).flat_map(|g| g.hosts.iter().copied())
    }

    /// A host of the first of these kinds that takes part (`nth` wraps around), else any other than
    /// `not`.
    pub(super) fn choose(&self, kinds: &[Kind], nth: usize, not: Option<HostIx>) -> HostIx {
        let wanted = kinds.iter().map(|&k| self.of(k)).chain(self.groups.iter().map(|g| g.hosts.as_slice()));
        for hosts in wanted {
            let mut candidates = hosts.iter().copied().cycle().skip(nth).take(hosts.len());
            if let Some(found) = candidates.find(|&h| Some(h) != not) {
                return found;
            }
        }
        HostIx(0)
    }
}

/// Networks of a group, for the configuration.
pub(super) fn networks(kind: Kind) -> [String; 2] {
    let n = kind.number();
    match kind {
        Kind::Clients => ["100.64.0.0/16".to_owned(), "2001:db8:c::/64".to_owned()],
        Kind::Outside => ["203.0.113.0/24".to_owned(), "2001:db8:bad::/64".to_owned()],
        _ => [format!("10.{n}.0.0/16"), format!("fd47:6e6f:6d6f:{n:x}::/64")],
    }
}

/// Host number `n` (from 1) of a group.
fn host(kind: Kind, n: u16, dice: &mut Dice) -> Host {
    let [high, low] = n.to_be_bytes();
    let number = kind.number();
    let v4 = match kind {
        Kind::Clients => Ipv4Addr::new(100, 64, high, low),
        Kind::Outside => Ipv4Addr::new(203, 0, 113, low),
        _ => Ipv4Addr::new(10, number, high, low),
    };
    let v6 = match kind {
        Kind::Clients => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, n),
        Kind::Outside => Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, n),
        _ => Ipv6Addr::new(0xfd47, 0x6e6f, 0x6d6f, number.into(), 0, 0, 0, n),
    };
    let local = kind.is_local();
    Host {
        id: format!("{}-{n}", kind.name()),
        kind,
        v4,
        v6,
        mac: if local { [0x02, 0x47, 0x4e, number, high, low] } else { ROUTER_MAC },
        ttl: if local { 64 } else { 64 - dice.within(6..20) as u8 },
        rtt_ns: if local { dice.within(120_000..400_000) } else { dice.within(8_000_000..60_000_000) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn addresses_are_unique_and_in_their_networks() {
        let sizes: Vec<_> = KINDS.iter().map(|&(kind, _)| (kind, 300)).collect();
        let topology = Topology::new(&sizes, &mut Dice::new(1, 1));
        let v4: HashSet<_> = topology.hosts.iter().map(|h| h.v4).collect();
        let v6: HashSet<_> = topology.hosts.iter().map(|h| h.v6).collect();
        assert_eq!((v4.len(), v6.len()), (9 * 300 + 4, 9 * 300 + 4));
        for host in &topology.hosts {
            let [net4, net6] = networks(host.kind);
            assert!(net4.parse::<ipnet::Ipv4Net>().unwrap().contains(&host.v4));
            assert!(net6.parse::<ipnet::Ipv6Net>().unwrap().contains(&host.v6));
        }
    }

    #[test]
    fn choice_falls_back_and_avoids() {
        let topology = Topology::new(&[(Kind::Web, 2)], &mut Dice::new(1, 1));
        let first = topology.choose(&[Kind::Db, Kind::Web], 0, None);
        assert_eq!(topology.host(first).id, "web-1");
        assert_eq!(topology.host(topology.choose(&[Kind::Web], 0, Some(first))).id, "web-2");
        assert_eq!(topology.host(topology.choose(&[Kind::Web], 5, None)).id, "web-2");
        assert_eq!(topology.host(topology.choose(&[Kind::Iot], 0, Some(first))).id, "web-2");
    }
}
