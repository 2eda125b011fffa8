//! `truth.json`: what a perfect analysis of the capture would find.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::attacks::{AttackKind, Parties};
use super::ledger::{Ledger, Totals};
use super::oddities::Oddity;
use super::options::Options;
use super::rhythm::iso;
use super::topology::{HostIx, Kind, Topology, networks};
use crate::capture::CaptureError;

#[derive(Debug, Serialize)]
struct Truth<'a> {
    seed: u64,
    start: String,
    end: String,
    parameters: Parameters<'a>,
    groups: Vec<Group<'a>>,
    /// Hosts that only attacks know.
    outside: Vec<Host<'a>>,
    attacks: Vec<Attack<'a>>,
    /// Harmless, though unusual.
    oddities: Vec<Odd<'a>>,
    totals: Totals,
    /// The same by service or kind of attack. ARP and neighbour discovery (`neighbours`) are no flows.
    labels: &'a BTreeMap<&'static str, Totals>,
}

#[derive(Debug, Serialize)]
struct Parameters<'a> {
    minutes: f64,
    rate: f64,
    groups: BTreeMap<&'static str, usize>,
    attacks: &'a [String],
    oddities: &'a [String],
    ipv6_share: f64,
    loss: f64,
}

#[derive(Debug, Serialize)]
struct Group<'a> {
    name: &'static str,
    networks: [String; 2],
    vms: Vec<Host<'a>>,
}

#[derive(Debug, Serialize)]
struct Host<'a> {
    id: &'a str,
    addresses: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Attack<'a> {
    /// As in the `attack` column of the flow file.
    id: usize,
    /// What alerts call it.
    kind: &'static str,
    /// As in the `label` column.
    name: &'static str,
    story: &'static str,
    actors: Vec<Party<'a>>,
    victims: Vec<Party<'a>>,
    /// Network that forged source addresses come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    forged_sources: Option<&'static str>,
    /// Network of the hosts that did it together.
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<&'static str>,
    /// First and last packet; absent when the capture ended before the attack began.
    start: Option<String>,
    end: Option<String>,
    #[serde(flatten)]
    totals: Totals,
}

#[derive(Debug, Serialize)]
struct Odd<'a> {
    name: &'static str,
    story: &'static str,
    hosts: Vec<Party<'a>>,
    start: String,
    end: String,
}

/// Attacks use IPv4.
#[derive(Debug, Serialize)]
struct Party<'a> {
    id: &'a str,
    address: String,
}

/// An attack and who took part.
pub(super) type Staged = (AttackKind, Parties);

/// Writes `truth.json`.
pub(super) fn write(
    path: &Path,
    options: &Options,
    topology: &Topology,
    (staged, odd): (&[Staged], &[Vec<HostIx>]),
    ledger: &Ledger,
) -> Result<(), CaptureError> {
    let wishes = &options.wishes;
    let truth = Truth {
        seed: wishes.seed,
        start: iso(options.start_ns),
        end: iso(options.end_ns),
        parameters: Parameters {
            minutes: wishes.minutes,
            rate: wishes.rate,
            groups: options.groups.iter().map(|&(kind, size)| (kind.name(), size)).collect(),
            attacks: &wishes.attacks,
            oddities: &wishes.oddities,
            ipv6_share: wishes.ipv6_share,
            loss: wishes.loss,
        },
        groups: topology.groups.iter().filter(|g| g.kind != Kind::Outside).map(|g| group(topology, g)).collect(),
        outside: topology.of(Kind::Outside).iter().map(|&h| host(topology, h)).collect(),
        attacks: staged.iter().enumerate().map(|(n, s)| attack(topology, n, s, ledger)).collect(),
        oddities: options.oddities.iter().zip(odd).map(|(oddity, hosts)| harmless(topology, oddity, hosts)).collect(),
        totals: ledger.totals,
        labels: &ledger.by_label,
    };
    let error = |source| CaptureError::Write { path: path.to_path_buf(), source };
    let mut text = serde_json::to_string_pretty(&truth).map_err(|e| error(e.into()))?;
    text.push('\n');
    std::fs::write(path, text).map_err(error)
}

fn group<'a>(topology: &'a Topology, group: &'a super::topology::Group) -> Group<'a> {
    let vms = group.hosts.iter().map(|&h| host(topology, h)).collect();
    Group { name: group.kind.name(), networks: networks(group.kind), vms }
}

fn host(topology: &Topology, ix: HostIx) -> Host<'_> {
    let host = topology.host(ix);
    Host { id: &host.id, addresses: addresses(topology, ix) }
}

/// IPv4, IPv6 and, for VMs, MAC.
pub(super) fn addresses(topology: &Topology, ix: HostIx) -> Vec<String> {
    let host = topology.host(ix);
    let mac: Vec<String> = host.mac.iter().map(|b| format!("{b:02x}")).collect();
    let mac = host.kind.is_local().then(|| mac.join(":"));
    [host.v4.to_string(), host.v6.to_string()].into_iter().chain(mac).collect()
}

fn attack<'a>(topology: &'a Topology, number: usize, (kind, parties): &Staged, ledger: &Ledger) -> Attack<'a> {
    let party = |ix: &HostIx| party(topology, *ix);
    let seen = ledger.attacks[number];
    let happened = seen.totals.packets > 0;
    Attack {
        id: number + 1,
        kind: kind.alert(),
        name: kind.name(),
        story: kind.story(),
        actors: parties.actors.iter().map(party).collect(),
        victims: parties.victims.iter().map(party).collect(),
        forged_sources: parties.forged,
        sources: parties.sources,
        start: happened.then(|| iso(seen.first_ns)),
        end: happened.then(|| iso(seen.last_ns)),
        totals: seen.totals,
    }
}

fn harmless<'a>(topology: &'a Topology, oddity: &Oddity, hosts: &[HostIx]) -> Odd<'a> {
    Odd {
        name: oddity.kind.name(),
        story: oddity.kind.story(),
        hosts: hosts.iter().map(|host| party(topology, *host)).collect(),
        start: iso(oddity.at),
        end: iso(oddity.until),
    }
}

fn party(topology: &Topology, ix: HostIx) -> Party<'_> {
    Party { id: &topology.host(ix).id, address: topology.host(ix).v4.to_string() }
}
