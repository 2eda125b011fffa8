//! Port scans and host sweeps: SYN probes, answered by RST, by SYN/ACK, or not at all; quick ones, slow ones, and one by
//! many hosts together.

use std::net::{IpAddr, Ipv4Addr};

use super::{Cue, MS, Parties, S};
use crate::scenario::dice::Dice;
use crate::scenario::exchange::{Exchange, Message};
use crate::scenario::frames::{ACK, End, RST, SYN, TCP};
use crate::scenario::merge::Source;
use crate::scenario::stage::{Flags, Side, Stage, Wire};
use crate::scenario::topology::{HostIx, Kind, STRANGERS, stranger};

/// Ports tried by one port scan.
pub(in crate::scenario) const PORTS: u16 = 1000;
/// Addresses tried by one host sweep.
pub(in crate::scenario) const ADDRESSES: u8 = 200;

/// Ports and addresses tried by slow ones: one every two minutes.
const SLOW_PORTS: u16 = 200;
const SLOW_ADDRESSES: u8 = 100;
const SLOW_GAP_NS: u64 = 120 * S;
/// Hosts that scan together, ports that each of them tries, and the time between any two tries.
const SCANNERS: u16 = 40;
const PORTS_EACH: u16 = 10;
const SPREAD_GAP_NS: u64 = 300 * MS;

const SWEPT_PORT: u16 = 445;

/// Ports that answer on a scanned host.
const OPEN: [u16; 2] = [22, 443];

pub(super) fn ports(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    tries_of_ports(stage, cue, dice, (PORTS, 5 * MS))
}

pub(super) fn slow_ports(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    tries_of_ports(stage, cue, dice, (SLOW_PORTS, SLOW_GAP_NS))
}

fn tries_of_ports(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice, (count, gap_ns): (u16, u64)) -> Parties {
    let actor = stage.topology.choose(&[Kind::Iot, Kind::App], cue.nth, None);
    let victim = stage.topology.choose(&[Kind::Db, Kind::App, Kind::Web], cue.nth, Some(actor));
    let end = stage.end(victim, false);
    let probes = shuffled(count, dice).into_iter().map(|port| (end, port, true)).collect();
    let at = stage.resolve(cue.at, [actor, victim], false);
    stage.spawn(at, Probing::new(stage, actor, probes, gap_ns, cue, dice));
    Parties { actors: vec![actor], victims: vec![victim], ..Parties::default() }
}

/// The ports from 1 on, in any order.
fn shuffled(count: u16, dice: &mut Dice) -> Vec<u16> {
    let mut ports: Vec<u16> = (1..=count).collect();
    for i in (1..ports.len()).rev() {
        ports.swap(i, dice.below(i + 1));
    }
    ports
}

/// Many hosts outside, none of which tries many ports by itself.
pub(super) fn spread_ports(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let like = stage.topology.choose(&[Kind::Outside], 0, None);
    let victim = stage.topology.choose(&[Kind::Web, Kind::App], cue.nth + 2, Some(like));
    let end = stage.end(victim, false);
    let ports = shuffled(SCANNERS * PORTS_EACH, dice);
    let probes = ports.into_iter().map(|port| (end, port, true)).collect();
    let at = stage.resolve(cue.at, [like, victim], false);
    let mut probing = Probing::new(stage, like, probes, SPREAD_GAP_NS, cue, dice);
    probing.from = (0..SCANNERS).map(|n| stranger(n as u8)).collect();
    stage.spawn(at, probing);
    Parties { victims: vec![victim], sources: Some(STRANGERS), ..Parties::default() }
}

pub(super) fn hosts(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    tries_of_hosts(stage, cue, dice, (ADDRESSES, 1000 * MS / 60))
}

pub(super) fn slow_hosts(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    tries_of_hosts(stage, cue, dice, (SLOW_ADDRESSES, SLOW_GAP_NS))
}

/// Sweeps the first addresses of a group's network; those without a host do not answer.
fn tries_of_hosts(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice, (count, gap_ns): (u8, u64)) -> Parties {
    let actor = stage.topology.choose(&[Kind::Iot, Kind::App], cue.nth + 1, None);
    let sample = stage.topology.choose(&[Kind::App, Kind::Web], cue.nth, Some(actor));
    let group = stage.topology.of(stage.topology.host(sample).kind);
    let base = u32::from(stage.topology.host(group[0]).v4) - 1;
    let mut victims = Vec::new();
    let mut probes = Vec::new();
    for n in 1..=u32::from(count) {
        let address = Ipv4Addr::from(base + n);
        let host = group.iter().copied().find(|&h| stage.topology.host(h).v4 == address && h != actor);
        let nobody = End { ip: IpAddr::V4(address), ..stage.end(sample, false) };
        probes.push((host.map_or(nobody, |h| stage.end(h, false)), SWEPT_PORT, host.is_some()));
        victims.extend(host);
    }
    stage.spawn(cue.at, Probing::new(stage, actor, probes, gap_ns, cue, dice));
    Parties { actors: vec![actor], victims, ..Parties::default() }
}

#[derive(Debug)]
struct Probing {
    actor: HostIx,
    /// In turn.
    from: Vec<End>,
    /// Target, port, and whether somebody is there.
    probes: std::vec::IntoIter<(End, u16, bool)>,
    gap_ns: u64,
    cue: Cue,
    dice: Dice,
}

impl Probing {
    fn new(
        stage: &Stage<'_>,
        actor: HostIx,
        probes: Vec<(End, u16, bool)>,
        gap_ns: u64,
        cue: Cue,
        dice: &mut Dice,
    ) -> Self {
        let from = vec![stage.end(actor, false)];
        Self { actor, from, probes: probes.into_iter(), gap_ns, cue, dice: dice.fork() }
    }
}

impl Source for Probing {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        let (to, port, present) = self.probes.next()?;
        let ports = [stage.ephemeral(self.actor), port];
        let from = self.from[self.probes.len() % self.from.len()];
        let wire = Wire::between([from, to], ports, TCP, self.cue.label, &mut self.dice);
        let (seq, answer_seq) = (self.dice.u32(), self.dice.u32());
        let mut messages = vec![(now, Side::Client, Message::Tcp(Flags { flags: SYN, seq, ack: 0 }))];
        let answered = now + 300_000;
        let next = seq.wrapping_add(1);
        if present && OPEN.contains(&port) {
            let accept = Flags { flags: SYN | ACK, seq: answer_seq, ack: next };
            messages.push((answered, Side::Server, Message::Tcp(accept)));
            let reset = Flags { flags: RST, seq: next, ack: 0 };
            messages.push((answered + 200_000, Side::Client, Message::Tcp(reset)));
        } else if present && self.dice.chance(0.8) {
            let refuse = Flags { flags: RST | ACK, seq: 0, ack: next };
            messages.push((answered, Side::Server, Message::Tcp(refuse)));
        }
        Exchange::new(wire, messages).begin(stage);
        Some(now + self.gap_ns + self.dice.within(0..self.gap_ns / 10))
    }
}
