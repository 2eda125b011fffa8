//! What the scorer says beside the score: flags on records, and alerts about episodes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::packet::{Domain, Mac};
use crate::rules::{GroupSetHandle, RuleHandle};

use super::detect::Host;

/// What an alert is about. The order is the order of flags and statistics, so new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// One host tries many ports of another, mostly in vain.
    PortScan,
    /// One host tries one service on many hosts, mostly in vain.
    HostSweep,
    /// Many connections to one host that are never completed.
    SynFlood,
    /// Many unanswered UDP packets to one host.
    UdpFlood,
    /// Many ICMP messages to one host.
    IcmpFlood,
    /// Traffic unlike the warm-up.
    Outlier,
    /// Many answers to one host that it did not ask for, or that are far larger than its questions.
    Amplification,
    /// Many short sessions of one host with a login service of another.
    BruteForce,
    /// A host inside sends far more to one outside than it gets back.
    Exfiltration,
    /// Many different long names below one domain.
    DnsTunnel,
    /// Echo messages whose sizes vary, as those of a connection do.
    IcmpTunnel,
    /// One host contacts one outside at even distances.
    Beacon,
    /// One station answers for an address of another.
    ArpSpoof,
    /// Many connections to one web service that are kept open with next to nothing.
    SlowHttp,
    /// Administration of a host, or traffic between groups, that was never seen while relations were learnt.
    NewRelationship,
    /// A host sends many times what it used to.
    Volume,
}

impl AlertKind {
    pub const ALL: [AlertKind; 16] = [
        AlertKind::PortScan,
        AlertKind::HostSweep,
        AlertKind::SynFlood,
        AlertKind::UdpFlood,
        AlertKind::IcmpFlood,
        AlertKind::Outlier,
        AlertKind::Amplification,
        AlertKind::BruteForce,
        AlertKind::Exfiltration,
        AlertKind::DnsTunnel,
        AlertKind::IcmpTunnel,
        AlertKind::Beacon,
        AlertKind::ArpSpoof,
        AlertKind::SlowHttp,
        AlertKind::NewRelationship,
        AlertKind::Volume,
    ];

    pub fn name(self) -> &'static str {
        match self {
            AlertKind::PortScan => "port_scan",
            AlertKind::HostSweep => "host_sweep",
            AlertKind::SynFlood => "syn_flood",
            AlertKind::UdpFlood => "udp_flood",
            AlertKind::IcmpFlood => "icmp_flood",
            AlertKind::Outlier => "outlier",
            AlertKind::Amplification => "amplification",
            AlertKind::BruteForce => "brute_force",
            AlertKind::Exfiltration => "exfiltration",
            AlertKind::DnsTunnel => "dns_tunnel",
            AlertKind::IcmpTunnel => "icmp_tunnel",
            AlertKind::Beacon => "beacon",
            AlertKind::ArpSpoof => "arp_spoof",
            AlertKind::SlowHttp => "slow_http",
            AlertKind::NewRelationship => "new_relationship",
            AlertKind::Volume => "volume",
        }
    }

    /// Of an attack. What is unusual, new or much is told as well, and may be wanted.
    pub fn is_hostile(self) -> bool {
        !matches!(self, AlertKind::Outlier | AlertKind::NewRelationship | AlertKind::Volume)
    }

    /// Whether the actor is found from the traffic instead of being part of the question.
    pub fn is_flood(self) -> bool {
        use AlertKind::{Amplification, IcmpFlood, SlowHttp, SynFlood, UdpFlood};
        matches!(self, SynFlood | UdpFlood | IcmpFlood | Amplification | SlowHttp)
    }
}

/// Set of [`AlertKind`]s a record contributed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl FromIterator<AlertKind> for Flags {
    fn from_iter<I: IntoIterator<Item = AlertKind>>(kinds: I) -> Self {
        let mut flags = Self::default();
        kinds.into_iter().for_each(|kind| flags.insert(kind));
        flags
    }
}

impl Flags {
    /// From bits as [`Flags::bits`] gives them; those that stand for no kind mean nothing.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// A bit for each kind, by its position in [`AlertKind::ALL`].
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Names of the members, in that order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.iter().map(AlertKind::name)
    }

    pub fn insert(&mut self, kind: AlertKind) {
        self.0 |= 1 << kind as u8;
    }

    pub fn contains(self, kind: AlertKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Part of something that has an alert of its own.
    pub fn is_attack(self) -> bool {
        self.iter().any(|k| k != AlertKind::Outlier)
    }

    /// Members, in the order of [`AlertKind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = AlertKind> {
        AlertKind::ALL.into_iter().filter(move |k| self.contains(*k))
    }
}

/// One side of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    Host(Host),
    /// A network card whose own address is not known.
    Station(Mac),
    /// Several hosts; a sample is in the evidence.
    Many,
}

impl Party {
    pub fn host(&self) -> Option<Host> {
        match self {
            Party::Host(host) => Some(*host),
            Party::Station(_) | Party::Many => None,
        }
    }
}

/// The address, that of a card, or `many`.
impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Host(host) => host.ip().fmt(f),
            Party::Station(mac) => mac.fmt(f),
            Party::Many => f.write_str("many"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Open,
    Closed,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::Closed => "closed",
        }
    }
}

/// Why the alert was raised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// IP protocols seen, ascending; none of ARP.
    pub protocols: Vec<u8>,
    /// Destination ports, ascending, at most 16 of them.
    pub ports: Vec<u16>,
    pub distinct_ports: u64,
    /// The other side: hosts tried by a scan, sweep or outlier; sources of a flood. At most 8.
    pub hosts: Vec<Host>,
    /// Exact up to 4096, then "at least".
    pub distinct_hosts: u64,
    /// Connection attempts and how many of them failed. For floods: records, and those counted.
    pub attempts: u64,
    pub failed: u64,
    /// Sent by the actor in the records of this episode.
    pub packets: u64,
    pub bytes: u64,
    /// What the kind counts: the largest number in any one window, and the number that raises an alert.
    pub peak: u64,
    pub threshold: u64,
    /// `count` per second between first and last seen (at least one millisecond).
    pub rate: f64,
    /// At most 5 of the flows, the first ones, and up to 4 of the rules that decided.
    pub flow_ids: Vec<u64>,
    pub rules: Vec<RuleHandle>,
    /// Beacons: seconds from contact to contact, and how far these stray, as a share.
    pub rhythm: Option<Rhythm>,
    /// DNS tunnels: below which domain.
    pub domain: Option<Domain>,
    /// ARP: the stations that claim the address, the forging one first.
    pub macs: Vec<Mac>,
    /// Outliers: largest calibrated score.
    pub max_score: Option<f32>,
    /// Outliers: the features that isolated the traffic, by the mean number of splits saved.
    pub features: Vec<(&'static str, f32)>,
}

/// How regular contacts are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rhythm {
    /// Median of the distances, seconds.
    pub period: f64,
    /// Median of the deviations from it, or half their upper quartile when that is more, as a share of it.
    pub jitter: f64,
}

/// One episode: an actor doing one kind of thing to a victim, until it stops for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Number of the episode in this run, from 1.
    pub episode: u64,
    pub kind: AlertKind,
    pub status: Status,
    pub actor: Party,
    pub victim: Party,
    /// Groups of actor and victim in the first record seen.
    pub actor_groups: GroupSetHandle,
    pub victim_groups: GroupSetHandle,
    /// 1 severe, 2 serious, 3 notable: the order of Suricata's EVE.
    pub severity: u8,
    /// What the kind counts: failed attempts, packets, sessions, names, bytes, records.
    pub count: u64,
    /// Flow time in nanoseconds: when the alert was raised; when the traffic was seen first and last.
    pub raised: u64,
    pub first_seen: u64,
    pub last_seen: u64,
    pub evidence: Evidence,
}

/// What happened to an episode.
#[derive(Clone, Debug, PartialEq)]
pub enum AlertEvent {
    /// A threshold was passed.
    Opened(Alert),
    /// The count is four times what it was at the last event.
    Updated(Alert),
    /// Quiet for two windows, or the end of the run: the final account.
    Closed(Alert),
}

impl AlertEvent {
    pub fn alert(&self) -> &Alert {
        match self {
            AlertEvent::Opened(a) | AlertEvent::Updated(a) | AlertEvent::Closed(a) => a,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_a_set_in_fixed_order() {
        let mut flags = Flags::default();
        assert!(flags.is_empty() && !flags.is_attack());
        flags.insert(AlertKind::Outlier);
        assert!(!flags.is_attack());
        flags.insert(AlertKind::PortScan);
        flags.insert(AlertKind::PortScan);
        assert!(flags.is_attack() && flags.contains(AlertKind::Outlier) && !flags.contains(AlertKind::UdpFlood));
        let names: Vec<&str> = flags.iter().map(AlertKind::name).collect();
        assert_eq!(names, ["port_scan", "outlier"]);
    }
}
