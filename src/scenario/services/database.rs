//! Application servers query the databases: PostgreSQL's protocol, version 3, on port 5432.

use super::MS;
use crate::scenario::content::Body;
use crate::scenario::dice::Dice;
use crate::scenario::ledger::Label;
use crate::scenario::stage::{Side, Stage};
use crate::scenario::tcp::{Next, Script};
use crate::scenario::topology::{HostIx, Kind};

const QUERIES: [&str; 4] = [
    "SELECT name FROM items WHERE id = 4711",
    "SELECT name FROM orders WHERE customer = 42 ORDER BY day",
    "SELECT name FROM stock WHERE place = 'north' AND count > 0",
    "SELECT name FROM customers WHERE mail LIKE 'a%'",
];

pub(in crate::scenario) fn open(stage: &mut Stage<'_>, dice: &mut Dice, now: u64) {
    let (callers, servers) = (stage.topology.of(Kind::App), stage.topology.of(Kind::Db));
    let hosts = [*dice.pick(callers), *dice.pick(servers)];
    let queries = 1 + dice.below(8);
    let steps = conversation(queries, dice);
    stage.connect(now, hosts, 5432, Label::service("database"), dice, Script::new(steps));
}

/// This host asks a database.
pub(in crate::scenario) fn open_from(stage: &mut Stage<'_>, dice: &mut Dice, now: u64, caller: HostIx) {
    let servers = stage.topology.of(Kind::Db);
    if !servers.is_empty() {
        let hosts = [caller, *dice.pick(servers)];
        let queries = 1 + dice.below(8);
        let steps = conversation(queries, dice);
        stage.connect(now, hosts, 5432, Label::service("database"), dice, Script::new(steps));
    }
}

/// Log in, ask some queries, leave.
pub(in crate::scenario) fn conversation(queries: usize, dice: &mut Dice) -> Vec<Next> {
    let say = |from, after_ns, bytes| Next::Say { from, after_ns, body: Body::exact(bytes) };
    let mut startup = vec![0, 3, 0, 0];
    startup.extend_from_slice(b"user\0app\0database\0shop\0\0");
    let startup = [&(startup.len() as u32 + 4).to_be_bytes()[..], &startup].concat();
    let ready = message(b'Z', b"I");
    let mut steps = vec![
        say(Side::Client, dice.within(50_000..300_000), startup),
        say(Side::Server, dice.within(MS..5 * MS), [message(b'R', &[0; 4]), ready.clone()].concat()),
    ];
    for _ in 0..queries {
        let query = [dice.pick(&QUERIES).as_bytes(), b"\0"].concat();
        steps.push(say(Side::Client, dice.within(200_000..50 * MS), message(b'Q', &query)));
        let rows = dice.log_normal(6.0, 1.2, 0..400) as usize;
        let mut answer = message(b'T', b"\0\x01name\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
        for row in 0..rows {
            let value = format!("row {row} of {rows}, {:016x}", dice.u64());
            let cell = [&(value.len() as u32).to_be_bytes()[..], value.as_bytes()].concat();
            answer.extend(message(b'D', &[&[0, 1], &cell[..]].concat()));
        }
        answer.extend(message(b'C', format!("SELECT {rows}\0").as_bytes()));
        answer.extend_from_slice(&ready);
        steps.push(say(Side::Server, dice.within(300_000..40 * MS), answer));
    }
    steps.push(say(Side::Client, dice.within(MS..100 * MS), message(b'X', b"")));
    steps.push(Next::Close { from: Side::Client, after_ns: 30_000 });
    steps
}

/// Type, length (which counts itself), body.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}
