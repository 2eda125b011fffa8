//! What the scorer says beside the score: flags on records, and alerts about episodes.

use std::fmt;

use crate::rules::GroupSetHandle;

use super::detect::Host;

/// What an alert is about. The order is the order of flags and statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
}

impl AlertKind {
    pub const ALL: [AlertKind; 6] = [
        AlertKind::PortScan,
        AlertKind::HostSweep,
        AlertKind::SynFlood,
        AlertKind::UdpFlood,
        AlertKind::IcmpFlood,
        AlertKind::Outlier,
    ];

    pub fn name(self) -> &'static str {
        match self {
            AlertKind::PortScan => "port_scan",
            AlertKind::HostSweep => "host_sweep",
            AlertKind::SynFlood => "syn_flood",
            AlertKind::UdpFlood => "udp_flood",
            AlertKind::IcmpFlood => "icmp_flood",
            AlertKind::Outlier => "outlier",
        }
    }

    /// Whether the actor is found from the traffic instead of being part of the question.
    pub fn is_flood(self) -> bool {
        matches!(self, AlertKind::SynFlood | AlertKind::UdpFlood | AlertKind::IcmpFlood)
    }
}

/// Set of [`AlertKind`]s a record contributed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    pub fn insert(&mut self, kind: AlertKind) {
        self.0 |= 1 << kind as u8;
    }

    pub fn contains(self, kind: AlertKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Part of a scan, sweep or flood.
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
    /// Several hosts; a sample is in the evidence.
    Many,
}

impl Party {
    pub fn host(&self) -> Option<Host> {
        match self {
            Party::Host(host) => Some(*host),
            Party::Many => None,
        }
    }
}

/// The address, or `many`.
impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Host(host) => host.ip().fmt(f),
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
    /// IP protocols seen, ascending.
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
    /// Floods: largest number of counted packets in any one window.
    pub peak: u64,
    /// `count` per second between first and last seen (at least one millisecond).
    pub rate: f64,
    /// At most 5 of the flows, the first ones.
    pub flow_ids: Vec<u64>,
    /// Outliers: largest calibrated score.
    pub max_score: Option<f32>,
    /// Outliers: the features that isolated the traffic, by the mean number of splits saved.
    pub features: Vec<(&'static str, f32)>,
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
    /// 1 notable, 2 serious, 3 severe.
    pub severity: u8,
    /// Scans and sweeps: failed attempts. Floods: packets. Outliers: records.
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
