//! Protocols put to a use they were not made for: answers nobody asked for, echoes that carry data, ARP that lies, requests
//! that never end.

use super::flood::Flood;
use super::{Cue, MS, Parties, S};
use crate::scenario::content::Body;
use crate::scenario::dice::Dice;
use crate::scenario::frames::{self, End, ICMP, UDP};
use crate::scenario::merge::Source;
use crate::scenario::stage::{Side, Stage, Wire};
use crate::scenario::tcp::{Next, Script};
use crate::scenario::topology::{HostIx, Kind, STRANGERS, stranger};

/// Answers that reflectors send to the victim, and how many reflectors there are.
const ANSWERS: u32 = 6_000;
const REFLECTORS: u8 = 24;
/// Echoes of a tunnel.
const ECHOES: u16 = 400;
/// Forged answers.
const LIES: u32 = 60;
/// Connections kept open, and lines that each of them sends.
const CONNECTIONS: u32 = 120;
const LINES: usize = 7;

/// Name servers outside answer questions that were asked in the victim's name.
pub(super) fn reflection(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let like = stage.topology.choose(&[Kind::Outside], 0, None);
    let victim = stage.topology.choose(&[Kind::Web, Kind::App], cue.nth + 3, Some(like));
    let to = stage.end(victim, false);
    let asked_from = 1024 + dice.u16() % 60_000;
    let wires: Vec<Wire> = (0..REFLECTORS)
        .map(|n| Wire::between([stranger(100 + n), to], [53, asked_from], UDP, cue.label, dice))
        .collect();
    let at = stage.resolve(cue.at, [like, victim], false);
    let payload = dice.bytes(1_200);
    stage.spawn(at, Flood { wires, left: ANSWERS, per_second: 500.0, payload, dice: dice.fork() });
    Parties { victims: vec![victim], sources: Some(STRANGERS), ..Parties::default() }
}

/// A VM exchanges data with a host outside in echoes of all sizes.
pub(super) fn echoes(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::App, Kind::Web], cue.nth + 2, None);
    let far = stage.topology.choose(&[Kind::Outside], cue.nth + 1, Some(actor));
    let ends = [stage.end(actor, false), stage.end(far, false)];
    let wire = Wire::between(ends, [dice.u16(), 0], ICMP, cue.label, dice);
    let at = stage.resolve(cue.at, [actor, far], false);
    stage.spawn(at, Echoes { wire, seq: 0, answer: false, dice: dice.fork() });
    Parties { actors: vec![actor], victims: vec![far], ..Parties::default() }
}

#[derive(Debug)]
struct Echoes {
    wire: Wire,
    seq: u16,
    /// The next message is the answer to the last one.
    answer: bool,
    dice: Dice,
}

impl Source for Echoes {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        let side = if self.answer { Side::Server } else { Side::Client };
        self.seq += u16::from(!self.answer);
        let size = 40 + self.dice.below(1_100);
        let payload = self.dice.bytes(size);
        stage.send_echo(now, &mut self.wire, side, self.seq, &payload);
        self.answer = !self.answer;
        if !self.answer && self.seq == ECHOES {
            stage.close(&mut self.wire);
            return None;
        }
        Some(now + if self.answer { 20 * MS } else { self.dice.within(100 * MS..400 * MS) })
    }
}

/// A VM tells another one that a server's address is its own.
pub(super) fn lies(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Iot, Kind::App], cue.nth + 5, None);
    let claimed = stage.topology.choose(&[Kind::Db, Kind::App], cue.nth, Some(actor));
    let told = stage.topology.choose(&[Kind::App, Kind::Web], cue.nth + 1, Some(claimed));
    let ends = [stage.end(actor, false), stage.end(claimed, false), stage.end(told, false)];
    // It spoke for itself before.
    let at = stage.resolve(cue.at, [actor, told], false);
    stage.spawn(at + S, Lies { ends, left: LIES, cue, dice: dice.fork() });
    Parties { actors: vec![actor], victims: vec![claimed, told], ..Parties::default() }
}

#[derive(Debug)]
struct Lies {
    /// Who lies, about whom, to whom.
    ends: [End; 3],
    left: u32,
    cue: Cue,
    dice: Dice,
}

impl Source for Lies {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let [liar, claimed, told] = self.ends;
        let v4 = |end: End| match end.ip {
            std::net::IpAddr::V4(ip) => ip.octets(),
            std::net::IpAddr::V6(_) => [0; 4],
        };
        stage.send_loose(now, self.cue.label, |out| {
            frames::arp(out, told.mac, 2, (liar.mac, v4(claimed)), (told.mac, v4(told)));
        });
        Some(now + self.dice.within(1_500 * MS..2_500 * MS))
    }
}

/// A client outside keeps connections open with a line of a request now and then.
pub(super) fn requests(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Clients, Kind::Outside], cue.nth + 7, None);
    let victim = stage.topology.choose(&[Kind::Web, Kind::App], cue.nth + 2, Some(actor));
    stage.spawn(cue.at, Requests { hosts: [actor, victim], left: CONNECTIONS, cue, dice: dice.fork() });
    Parties { actors: vec![actor], victims: vec![victim], ..Parties::default() }
}

#[derive(Debug)]
struct Requests {
    hosts: [HostIx; 2],
    left: u32,
    cue: Cue,
    dice: Dice,
}

impl Source for Requests {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let dice = &mut self.dice;
        let mut steps = Vec::new();
        for line in 0..LINES {
            let text = match line {
                0 => "GET / HTTP/1.1\r\nHost: www.example.com\r\n".to_owned(),
                _ => format!("X-{}: {}\r\n", dice.below(900), dice.below(900)),
            };
            let after_ns = if line == 0 { MS } else { dice.within(8 * S..12 * S) };
            steps.push(Next::Say { from: Side::Client, after_ns, body: Body::exact(text.into_bytes()) });
        }
        steps.push(Next::Close { from: Side::Server, after_ns: 5 * S });
        stage.connect(now, self.hosts, 80, self.cue.label, dice, Script::new(steps));
        Some(now + dice.within(200 * MS..500 * MS))
    }
}
