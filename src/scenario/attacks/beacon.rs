//! A VM that calls home: the same small exchange, again and again, at nearly the same interval.

use super::{Cue, MS, Parties, S};
use crate::scenario::content::{self, Body, Fill};
use crate::scenario::dice::Dice;
use crate::scenario::merge::Source;
use crate::scenario::stage::{Side, Stage};
use crate::scenario::tcp::{Next, Script};
use crate::scenario::topology::{HostIx, Kind};

/// Between two calls, give or take a fiftieth.
const INTERVAL_NS: u64 = 20 * S;

pub(super) fn start(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Iot, Kind::App], cue.nth + 4, None);
    let home = stage.topology.choose(&[Kind::Outside], cue.nth + 2, Some(actor));
    stage.spawn(cue.at, Beacon { hosts: [actor, home], cue, dice: dice.fork() });
    Parties { actors: vec![actor], victims: vec![home], ..Parties::default() }
}

#[derive(Debug)]
struct Beacon {
    hosts: [HostIx; 2],
    cue: Cue,
    dice: Dice,
}

impl Source for Beacon {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        if now >= self.cue.until {
            return None;
        }
        let dice = &mut self.dice;
        let say = |from, after_ns, body| Next::Say { from, after_ns, body };
        let hello = Body::exact(content::client_hello("cdn-sync.example.org", dice));
        let answer = Body::filled(content::server_hello(dice), 1900, Fill::Tls, dice);
        let finished = Body::filled(content::CHANGE_CIPHER.to_vec(), 53, Fill::Tls, dice);
        let steps = [
            say(Side::Client, MS, hello),
            say(Side::Server, 2 * MS, answer),
            say(Side::Client, MS, finished),
            say(Side::Client, 2 * MS, Body::filled(Vec::new(), 212, Fill::Tls, dice)),
            say(Side::Server, 3 * MS, Body::filled(Vec::new(), 96, Fill::Tls, dice)),
            Next::Close { from: Side::Client, after_ns: 2 * MS },
        ];
        stage.connect(now, self.hosts, 443, self.cue.label, dice, Script::new(steps));
        Some(now + INTERVAL_NS - INTERVAL_NS / 50 + dice.within(0..INTERVAL_NS / 25))
    }
}
