//! What should not happen. Each attack is placed at a time and says who did it to whom; the ledger counts
//! its packets and flows as they are written.

mod beacon;
mod brute_force;
mod dns_tunnel;
mod exfiltration;
mod flood;
mod misuse;
mod new_relationship;
mod scan;
mod series;

use crate::scenario::dice::Dice;
use crate::scenario::ledger::Label;
use crate::scenario::stage::Stage;
use crate::scenario::topology::HostIx;

/// The kinds of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttackKind {
    PortScan,
    HostSweep,
    SynFlood,
    UdpFlood,
    IcmpFlood,
    BruteForce,
    DnsTunnel,
    Exfiltration,
    Beacon,
    NewRelationship,
    Amplification,
    IcmpTunnel,
    ArpSpoof,
    SlowHttp,
    SlowPortScan,
    SlowHostSweep,
    SpreadPortScan,
    SlowBruteForce,
    SlowBeacon,
    SlowExfiltration,
    LateralMovement,
}

impl AttackKind {
    pub(super) const ALL: [Self; 21] = [
        Self::PortScan,
        Self::HostSweep,
        Self::SynFlood,
        Self::UdpFlood,
        Self::IcmpFlood,
        Self::BruteForce,
        Self::DnsTunnel,
        Self::Exfiltration,
        Self::Beacon,
        Self::NewRelationship,
        Self::Amplification,
        Self::IcmpTunnel,
        Self::ArpSpoof,
        Self::SlowHttp,
        Self::SlowPortScan,
        Self::SlowHostSweep,
        Self::SpreadPortScan,
        Self::SlowBruteForce,
        Self::SlowBeacon,
        Self::SlowExfiltration,
        Self::LateralMovement,
    ];

    /// How many of them, from the first, `all` stands for: one of each shows within half an hour.
    pub(super) const QUICK: usize = 10;

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PortScan => "port_scan",
            Self::HostSweep => "host_sweep",
            Self::SynFlood => "syn_flood",
            Self::UdpFlood => "udp_flood",
            Self::IcmpFlood => "icmp_flood",
            Self::BruteForce => "brute_force",
            Self::DnsTunnel => "dns_tunnel",
            Self::Exfiltration => "exfiltration",
            Self::Beacon => "beacon",
            Self::NewRelationship => "new_relationship",
            Self::Amplification => "amplification",
            Self::IcmpTunnel => "icmp_tunnel",
            Self::ArpSpoof => "arp_spoof",
            Self::SlowHttp => "slow_http",
            Self::SlowPortScan => "slow_port_scan",
            Self::SlowHostSweep => "slow_host_sweep",
            Self::SpreadPortScan => "spread_port_scan",
            Self::SlowBruteForce => "slow_brute_force",
            Self::SlowBeacon => "slow_beacon",
            Self::SlowExfiltration => "slow_exfiltration",
            Self::LateralMovement => "lateral_movement",
        }
    }

    /// What alerts call it (`gnomon.kind`).
    pub(super) fn alert(self) -> &'static str {
        match self {
            Self::SlowPortScan => "port_scan",
            Self::SlowHostSweep => "host_sweep",
            Self::SpreadPortScan => "port_scan",
            Self::SlowBruteForce => "brute_force",
            Self::SlowBeacon => "beacon",
            Self::SlowExfiltration => "exfiltration",
            Self::LateralMovement => "new_relationship",
            _ => self.name(),
        }
    }

    /// What the attack does, in words.
    pub(super) fn story(self) -> &'static str {
        match self {
            Self::PortScan => "one host tries 1000 TCP ports of another with SYN, 200 a second",
            Self::HostSweep => "one host tries port 445 of every address of a network, 60 a second",
            Self::SynFlood => "10000 SYN segments from forged sources to one port, 2000 a second, few answered",
            Self::UdpFlood => "12000 datagrams of 1000 bytes from one host to another, 3000 a second",
            Self::IcmpFlood => "6000 echo requests of 1000 bytes from one host to another, 1000 a second",
            Self::BruteForce => "120 SSH connections guessing passwords, about one a second",
            Self::DnsTunnel => "300 TXT queries with data in their names, five a second, data in the answers",
            Self::Exfiltration => "20 MB sent from a VM to a host outside in one TLS connection",
            Self::Beacon => "a VM calls the same host outside every 20 s, always alike, to the end of the capture",
            Self::NewRelationship => "a group talks directly to another one that it never talked to",
            Self::Amplification => "6000 answers from 24 name servers outside that nobody asked, 500 a second",
            Self::IcmpTunnel => "400 echoes of all sizes between a VM and a host outside, about four a second",
            Self::ArpSpoof => "a VM tells another one 60 times that a server's address is its own",
            Self::SlowHttp => "120 connections to one web server that send a line of a request every 10 s",
            Self::SlowPortScan => "one host tries 200 ports of another, one every two minutes",
            Self::SlowHostSweep => "one host tries port 445 of 100 addresses, one every two minutes",
            Self::SpreadPortScan => "40 hosts outside try ten ports of one VM each, three tries a second in all",
            Self::SlowBruteForce => "150 SSH connections guessing passwords, less than two a minute",
            Self::SlowBeacon => "a VM calls the same host outside every ten minutes, give or take a tenth, 45 times",
            Self::SlowExfiltration => "60 MB sent from a VM to a host outside in 200 pieces over five hours",
            Self::LateralMovement => "a VM logs in to six others, one after another within an hour",
        }
    }

    /// About how long it goes on, in seconds; of a beacon that is how long it is let to.
    pub(super) fn lasts(self) -> u64 {
        match self {
            Self::Beacon => 3 * 3600,
            Self::SlowPortScan => 26_000,
            Self::SlowHostSweep => 13_000,
            Self::LateralMovement => 6_000,
            Self::SlowBruteForce => 6_000,
            Self::SlowBeacon => 28_000,
            Self::SlowExfiltration => 19_000,
            _ => 300,
        }
    }

    /// Whether it is only told from what is usual: then there is none of it before a day has shown that.
    pub(super) fn needs_habits(self) -> bool {
        matches!(self, Self::NewRelationship | Self::LateralMovement | Self::SlowBruteForce)
    }
}

/// Who took part in an attack.
#[derive(Clone, Debug, Default)]
pub(super) struct Parties {
    pub(super) actors: Vec<HostIx>,
    pub(super) victims: Vec<HostIx>,
    /// Network of forged sources.
    pub(super) forged: Option<&'static str>,
    /// Network of many real ones.
    pub(super) sources: Option<&'static str>,
}

/// Where an attack starts and what its packets are labelled.
#[derive(Clone, Copy, Debug)]
struct Cue {
    at: u64,
    /// When what goes on by itself ends.
    until: u64,
    label: Label,
    /// How many attacks of this kind came before it; chooses other parties.
    nth: usize,
}

/// An attack that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) kind: AttackKind,
    pub(super) at: u64,
    pub(super) until: u64,
    /// Chooses the parties: how many attacks of this kind came before it, or any number.
    pub(super) nth: usize,
}

/// Puts attack number `number` on the stage at its time.
pub(super) fn start(stage: &mut Stage<'_>, planned: &Planned, number: u16, seed: u64) -> Parties {
    let Planned { kind, at, until, nth } = *planned;
    let mut dice = Dice::new(seed, 1_000 + u64::from(number));
    let cue = Cue { at, until, label: Label { name: kind.name(), attack: Some(number) }, nth };
    let begin = match kind {
        AttackKind::PortScan => scan::ports,
        AttackKind::HostSweep => scan::hosts,
        AttackKind::SynFlood => flood::syn,
        AttackKind::UdpFlood => flood::udp,
        AttackKind::IcmpFlood => flood::icmp,
        AttackKind::BruteForce => brute_force::start,
        AttackKind::DnsTunnel => dns_tunnel::start,
        AttackKind::Exfiltration => exfiltration::start,
        AttackKind::Beacon => beacon::start,
        AttackKind::NewRelationship => new_relationship::start,
        AttackKind::Amplification => misuse::reflection,
        AttackKind::IcmpTunnel => misuse::echoes,
        AttackKind::ArpSpoof => misuse::lies,
        AttackKind::SlowHttp => misuse::requests,
        AttackKind::SlowPortScan => scan::slow_ports,
        AttackKind::SlowHostSweep => scan::slow_hosts,
        AttackKind::SpreadPortScan => scan::spread_ports,
        AttackKind::SlowBruteForce => series::guesses,
        AttackKind::SlowBeacon => series::calls,
        AttackKind::SlowExfiltration => series::pieces,
        AttackKind::LateralMovement => series::steps,
    };
    begin(stage, cue, &mut dice)
}

/// Milliseconds.
const MS: u64 = 1_000_000;
/// Seconds.
const S: u64 = 1_000_000_000;
