//! Everybody asks the name servers: UDP port 53 (RFC 1035).

use super::{MS, S};
use crate::scenario::dice::Dice;
use crate::scenario::exchange::{Exchange, Message};
use crate::scenario::frames::UDP;
use crate::scenario::ledger::Label;
use crate::scenario::stage::{Side, Stage};
use crate::scenario::topology::{HostIx, Kind};

const NAMES: [&str; 12] = [
    "www.example.com",
    "shop.example.com",
    "static.example.net",
    "app.internal",
    "db.internal",
    "mail.example.com",
    "time.internal",
    "updates.example.org",
    "cdn.example.net",
    "login.example.com",
    "metrics.internal",
    "missing.example.com",
];

/// Record types.
pub(in crate::scenario) const A: u16 = 1;
pub(in crate::scenario) const TXT: u16 = 16;
const AAAA: u16 = 28;

pub(in crate::scenario) fn open(stage: &mut Stage<'_>, dice: &mut Dice, now: u64) {
    let groups: Vec<&[HostIx]> = stage
        .topology
        .groups
        .iter()
        .filter(|g| !matches!(g.kind, Kind::Dns | Kind::Outside) && !g.hosts.is_empty())
        .map(|g| g.hosts.as_slice())
        .collect();
    if groups.is_empty() {
        return;
    }
    let asker = *dice.pick(&groups);
    let asker = *dice.pick(asker);
    open_from(stage, dice, now, asker);
}

/// This host asks for a name.
pub(in crate::scenario) fn open_from(stage: &mut Stage<'_>, dice: &mut Dice, now: u64, asker: HostIx) {
    let servers = stage.topology.of(Kind::Dns);
    if servers.is_empty() {
        return;
    }
    let hosts = [asker, servers[dice.skewed(servers.len())]];
    let v6 = dice.chance(stage.ipv6_share);
    let wire = stage.wire(hosts, UDP, 53, Label::service("dns"), v6, dice);
    let mut at = stage.resolve(now, hosts, v6);
    let (id, name) = (dice.u16(), *dice.pick(&NAMES));
    let kind = if dice.chance(0.3) { AAAA } else { A };
    let query = query(id, name, kind);
    let answer = if name.starts_with("missing") { None } else { Some(address(kind, dice)) };
    let response = response(&query, kind, answer.as_deref());
    let mut messages = Vec::new();
    if dice.chance(stage.loss) {
        // The query got lost behind the gateway; it is asked again.
        messages.push((at, Side::Client, Message::Udp(query.clone())));
        at += 2 * S;
    }
    messages.push((at, Side::Client, Message::Udp(query)));
    let delay = stage.topology.host(hosts[1]).rtt_ns;
    // Most answers are known; some are asked for elsewhere.
    let work = if dice.chance(0.8) { dice.within(50_000..400_000) } else { dice.within(8 * MS..90 * MS) };
    messages.push((at + delay + work, Side::Server, Message::Udp(response)));
    Exchange::new(wire, messages).begin(stage);
}

fn address(kind: u16, dice: &mut Dice) -> Vec<u8> {
    let mut address = if kind == A { vec![10, 2, 0] } else { vec![0xfd; 15] };
    address.push(1 + dice.below(4) as u8);
    address
}

/// A query with recursion desired, for one name of at most 253 bytes in labels of at most 63.
pub(in crate::scenario) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out
}

/// The answer to a query of ours: one record with `data`, or "no such name".
pub(in crate::scenario) fn response(query: &[u8], kind: u16, data: Option<&[u8]>) -> Vec<u8> {
    let mut out = query.to_vec();
    out[2] = 0x81;
    out[3] = if data.is_some() { 0x80 } else { 0x83 };
    if let Some(data) = data {
        out[7] = 1;
        // The name is that of the question, at offset 12.
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 1, 0x2c]);
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
    }
    out
}
