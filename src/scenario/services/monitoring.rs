//! The first administration host pings every VM once a minute, three echoes each time.

use super::S;
use crate::scenario::dice::Dice;
use crate::scenario::exchange::{Exchange, Message};
use crate::scenario::frames::{ICMP, ICMPV6};
use crate::scenario::ledger::Label;
use crate::scenario::merge::Source;
use crate::scenario::stage::{Side, Stage, Wire};
use crate::scenario::topology::{HostIx, Kind};

pub(super) fn start(stage: &mut Stage<'_>, dice: &mut Dice) {
    let Some(&monitor) = stage.topology.of(Kind::Admin).first() else { return };
    let now = stage.start_ns;
    let topology = stage.topology;
    for target in topology.local().filter(|&h| h != monitor) {
        let first = now + dice.within(0..60 * S);
        stage.spawn(first, Check { hosts: [monitor, target], number: dice.u16(), dice: dice.fork() });
    }
}

#[derive(Debug)]
struct Check {
    hosts: [HostIx; 2],
    /// Echo identifier of the next check.
    number: u16,
    dice: Dice,
}

impl Source for Check {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        let v6 = self.dice.chance(stage.ipv6_share);
        let ends = self.hosts.map(|h| stage.end(h, v6));
        let protocol = if v6 { ICMPV6 } else { ICMP };
        self.number = self.number.wrapping_add(1);
        let wire = Wire::between(ends, [self.number, 0], protocol, Label::service("monitoring"), &mut self.dice);
        let at = stage.resolve(now, self.hosts, v6);
        let rtt = stage.topology.host(self.hosts[1]).rtt_ns;
        let messages = (0..3).flat_map(|n| {
            let (sent, seq) = (at + u64::from(n) * S, n + 1);
            [
                (sent, Side::Client, Message::Echo { seq, size: 56 }),
                (sent + rtt, Side::Server, Message::Echo { seq, size: 56 }),
            ]
        });
        Exchange::new(wire, messages).begin(stage);
        Some(now + 60 * S)
    }
}
