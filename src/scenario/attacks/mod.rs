//! What should not happen. Each attack is placed at a time and says who did it to whom; the ledger counts
//! its packets and flows as they are written.

mod beacon;
mod brute_force;
mod dns_tunnel;
mod exfiltration;
mod flood;
mod new_relationship;
mod scan;

use crate::scenario::dice::Dice;
use crate::scenario::ledger::Label;
use crate::scenario::stage::Stage;
use crate::scenario::topology::HostIx;

/// The kinds of attack, named as in alerts (`gnomon.kind`).
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
}

impl AttackKind {
    pub(super) const ALL: [Self; 10] = [
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
    ];

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
        }
    }
}

/// Who took part in an attack.
#[derive(Clone, Debug, Default)]
pub(super) struct Parties {
    pub(super) actors: Vec<HostIx>,
    pub(super) victims: Vec<HostIx>,
    /// Network of forged sources.
    pub(super) forged: Option<&'static str>,
}

/// Where an attack starts and what its packets are labelled.
#[derive(Clone, Copy, Debug)]
struct Cue {
    at: u64,
    label: Label,
    /// How many attacks of this kind came before it; chooses other parties.
    nth: usize,
}

/// Puts attack number `number` on the stage at a time.
pub(super) fn start(
    stage: &mut Stage<'_>,
    kind: AttackKind,
    at: u64,
    (number, nth): (u16, usize),
    seed: u64,
) -> Parties {
    let mut dice = Dice::new(seed, 1_000 + u64::from(number));
    let cue = Cue { at, label: Label { name: kind.name(), attack: Some(number) }, nth };
    match kind {
        AttackKind::PortScan => scan::ports(stage, cue, &mut dice),
        AttackKind::HostSweep => scan::hosts(stage, cue, &mut dice),
        AttackKind::SynFlood => flood::syn(stage, cue, &mut dice),
        AttackKind::UdpFlood => flood::udp(stage, cue, &mut dice),
        AttackKind::IcmpFlood => flood::icmp(stage, cue, &mut dice),
        AttackKind::BruteForce => brute_force::start(stage, cue, &mut dice),
        AttackKind::DnsTunnel => dns_tunnel::start(stage, cue, &mut dice),
        AttackKind::Exfiltration => exfiltration::start(stage, cue, &mut dice),
        AttackKind::Beacon => beacon::start(stage, cue, &mut dice),
        AttackKind::NewRelationship => new_relationship::start(stage, cue, &mut dice),
    }
}

/// Milliseconds.
const MS: u64 = 1_000_000;
/// Seconds.
const S: u64 = 1_000_000_000;
