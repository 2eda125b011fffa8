//! Floods: SYN from forged sources, UDP, ICMP.

use std::net::Ipv4Addr;

use super::{Cue, Parties, S};
use crate::scenario::dice::Dice;
use crate::scenario::exchange::{Exchange, Message};
use crate::scenario::frames::{ACK, End, ICMP, SYN, TCP, UDP};
use crate::scenario::merge::Source;
use crate::scenario::stage::{Flags, Side, Stage, Wire};
use crate::scenario::topology::{Kind, ROUTER_MAC};

/// Packets of each flood, without answers.
pub(in crate::scenario) const SYNS: u32 = 10_000;
pub(in crate::scenario) const DATAGRAMS: u32 = 12_000;
pub(in crate::scenario) const ECHOES: u32 = 6_000;

/// Source ports, so flows, of a UDP flood.
pub(in crate::scenario) const UDP_FLOWS: u16 = 16;

/// Forged sources come from here.
const FORGED: &str = "198.18.0.0/15";

pub(super) fn syn(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let victim = stage.topology.choose(&[Kind::Web, Kind::App], cue.nth, None);
    let flood = SynFlood { to: stage.end(victim, false), left: SYNS, cue, dice: dice.fork() };
    stage.spawn(cue.at, flood);
    Parties { actors: Vec::new(), victims: vec![victim], forged: Some(FORGED), ..Parties::default() }
}

#[derive(Debug)]
struct SynFlood {
    to: End,
    left: u32,
    cue: Cue,
    dice: Dice,
}

impl Source for SynFlood {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let dice = &mut self.dice;
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) | (dice.u32() & 0x0001_ffff));
        let from = End { mac: ROUTER_MAC, ip: source.into(), ttl: 30 + dice.below(200) as u8 };
        let ports = [1024 + dice.u16() % 60_000, 443];
        let wire = Wire::between([from, self.to], ports, TCP, self.cue.label, dice);
        let seq = dice.u32();
        let mut messages = vec![(now, Side::Client, Message::Tcp(Flags { flags: SYN, seq, ack: 0 }))];
        // The backlog of the victim is soon full.
        if dice.chance(0.1) {
            let accept = Flags { flags: SYN | ACK, seq: dice.u32(), ack: seq.wrapping_add(1) };
            messages.push((now + 250_000, Side::Server, Message::Tcp(accept)));
        }
        Exchange::new(wire, messages).begin(stage);
        Some(now + dice.exponential(S as f64 / 2_000.0) as u64 + 1)
    }
}

pub(super) fn udp(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Iot, Kind::Clients], cue.nth + 2, None);
    let victim = stage.topology.choose(&[Kind::Web, Kind::App], cue.nth + 1, Some(actor));
    let ends = [stage.end(actor, false), stage.end(victim, false)];
    let wires =
        (0..UDP_FLOWS).map(|_| Wire::between(ends, [stage.ephemeral(actor), 80], UDP, cue.label, dice)).collect();
    let at = stage.resolve(cue.at, [actor, victim], false);
    let payload = dice.bytes(1000);
    stage.spawn(at, Flood { wires, left: DATAGRAMS, per_second: 3_000.0, payload, dice: dice.fork() });
    Parties { actors: vec![actor], victims: vec![victim], ..Parties::default() }
}

pub(super) fn icmp(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Iot, Kind::Clients], cue.nth + 3, None);
    let victim = stage.topology.choose(&[Kind::App, Kind::Web], cue.nth + 1, Some(actor));
    let ends = [stage.end(actor, false), stage.end(victim, false)];
    let wires = vec![Wire::between(ends, [dice.u16(), 0], ICMP, cue.label, dice)];
    let at = stage.resolve(cue.at, [actor, victim], false);
    let payload = vec![0x61; 1000];
    stage.spawn(at, Flood { wires, left: ECHOES, per_second: 1_000.0, payload, dice: dice.fork() });
    Parties { actors: vec![actor], victims: vec![victim], ..Parties::default() }
}

/// Datagrams or echo requests, in turn over some wires; one echo in ten is answered.
#[derive(Debug)]
pub(super) struct Flood {
    pub(super) wires: Vec<Wire>,
    pub(super) left: u32,
    pub(super) per_second: f64,
    pub(super) payload: Vec<u8>,
    pub(super) dice: Dice,
}

impl Source for Flood {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        let Some(left) = self.left.checked_sub(1) else {
            self.wires.iter_mut().for_each(|w| stage.close(w));
            return None;
        };
        self.left = left;
        let count = self.wires.len();
        let wire = &mut self.wires[left as usize % count];
        if wire.protocol == UDP {
            stage.send_udp(now, wire, Side::Client, &self.payload);
        } else {
            stage.send_echo(now, wire, Side::Client, left as u16, &self.payload);
            if left % 10 == 0 {
                stage.send_echo(now, wire, Side::Server, left as u16, &self.payload);
            }
        }
        Some(now + self.dice.exponential(S as f64 / self.per_second) as u64 + 1)
    }
}
