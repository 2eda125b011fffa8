//! Every VM asks the time servers, each at its own interval (NTP version 4, RFC 5905).

use super::S;
use crate::scenario::dice::Dice;
use crate::scenario::exchange::{Exchange, Message};
use crate::scenario::frames::UDP;
use crate::scenario::ledger::Label;
use crate::scenario::merge::Source;
use crate::scenario::stage::{Side, Stage};
use crate::scenario::topology::{HostIx, Kind};

/// Seconds between 1900 and 1970.
const ERA: u64 = 2_208_988_800;

pub(super) fn start(stage: &mut Stage<'_>, dice: &mut Dice) {
    let servers = stage.topology.of(Kind::Ntp);
    if servers.is_empty() {
        return;
    }
    let now = stage.start_ns;
    let topology = stage.topology;
    for host in topology.local().filter(|h| !servers.contains(h)) {
        let interval = 64 << dice.below(4);
        let poll = Poll { host, interval_ns: interval * S, dice: dice.fork() };
        stage.spawn(now + dice.within(0..interval * S), poll);
    }
}

#[derive(Debug)]
struct Poll {
    host: HostIx,
    interval_ns: u64,
    dice: Dice,
}

impl Source for Poll {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        let dice = &mut self.dice;
        let hosts = [self.host, *dice.pick(stage.topology.of(Kind::Ntp))];
        let v6 = dice.chance(stage.ipv6_share);
        let wire = stage.wire(hosts, UDP, 123, Label::service("ntp"), v6, dice);
        let at = stage.resolve(now, hosts, v6);
        let answered = at + stage.topology.host(hosts[1]).rtt_ns + dice.within(20_000..80_000);
        let mut request = vec![0x23, 0, 6, 0xec];
        request.resize(40, 0);
        request.extend_from_slice(&stamp(at));
        let mut reply = vec![0x24, 2, 6, 0xec, 0, 0, 1, 0, 0, 0, 2, 0, 192, 0, 2, 1];
        for time in [stamp(at - 30 * S), stamp(at), stamp(answered - 20_000), stamp(answered)] {
            reply.extend_from_slice(&time);
        }
        let messages = [(at, Side::Client, Message::Udp(request)), (answered, Side::Server, Message::Udp(reply))];
        Exchange::new(wire, messages).begin(stage);
        Some(now + self.interval_ns + dice.within(0..S))
    }
}

/// Seconds since 1900 and their fraction.
fn stamp(ns: u64) -> [u8; 8] {
    let fraction = ((ns % S) << 32) / S;
    (((ns / S + ERA) << 32) | fraction).to_be_bytes()
}
