//! Web servers call the application servers: HTTP with JSON on port 8080, connections kept open.

use super::MS;
use crate::scenario::content::{Body, Fill};
use crate::scenario::dice::Dice;
use crate::scenario::ledger::Label;
use crate::scenario::stage::{Side, Stage};
use crate::scenario::tcp::{Next, Script};
use crate::scenario::topology::{HostIx, Kind};

pub(in crate::scenario) fn open(stage: &mut Stage<'_>, dice: &mut Dice, now: u64) {
    let (callers, servers) = (stage.topology.of(Kind::Web), stage.topology.of(Kind::App));
    let hosts = [*dice.pick(callers), *dice.pick(servers)];
    talk(stage, dice, now, hosts);
}

/// A web server calls this one.
pub(in crate::scenario) fn open_with(stage: &mut Stage<'_>, dice: &mut Dice, now: u64, server: HostIx) {
    let callers = stage.topology.of(Kind::Web);
    if !callers.is_empty() {
        let caller = *dice.pick(callers);
        talk(stage, dice, now, [caller, server]);
    }
}

fn talk(stage: &mut Stage<'_>, dice: &mut Dice, now: u64, hosts: [HostIx; 2]) {
    let mut steps = Vec::new();
    for _ in 0..1 + dice.below(5) {
        let item = dice.below(10_000);
        let order = format!("{{\"item\":{item},\"count\":{}}}", 1 + dice.below(9));
        let ask = format!(
            "POST /v1/orders/{item} HTTP/1.1\r\nHost: app.internal:8080\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{order}",
            order.len()
        );
        let think = dice.within(100_000..30 * MS);
        steps.push(Next::Say { from: Side::Client, after_ns: think, body: Body::exact(ask.into_bytes()) });
        let len = dice.log_normal(1_500.0, 1.0, 40..200_000);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\n\r\n");
        let body = Body::filled(head.into_bytes(), len, Fill::Text, dice);
        steps.push(Next::Say { from: Side::Server, after_ns: dice.within(MS..80 * MS), body });
    }
    steps.push(Next::Close { from: Side::Client, after_ns: dice.within(MS..500 * MS) });
    stage.connect(now, hosts, 8080, Label::service("app"), dice, Script::new(steps));
}
