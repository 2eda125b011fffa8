//! A database sends much to a host outside that it never talked to.

use super::{Cue, MS, Parties};
use crate::scenario::content::{self, Body, Fill};
use crate::scenario::dice::Dice;
use crate::scenario::stage::{Side, Stage};
use crate::scenario::tcp::{Next, Script};
use crate::scenario::topology::Kind;

/// Bytes taken, before TLS records are added.
pub(in crate::scenario) const TAKEN: u64 = 20_000_000;

pub(super) fn start(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Db, Kind::App], cue.nth, None);
    let drop = stage.topology.choose(&[Kind::Outside], cue.nth + 1, Some(actor));
    let say = |from, after_ns, body| Next::Say { from, after_ns, body };
    let hello = Body::exact(content::client_hello("files.example.org", dice));
    let answer = Body::filled(content::server_hello(dice), 2400, Fill::Tls, dice);
    let finished = Body::filled(content::CHANGE_CIPHER.to_vec(), 53, Fill::Tls, dice);
    let steps = [
        say(Side::Client, MS, hello),
        say(Side::Server, 2 * MS, answer),
        say(Side::Client, MS, finished),
        say(Side::Client, 5 * MS, Body::filled(Vec::new(), TAKEN, Fill::Tls, dice)),
        say(Side::Server, 20 * MS, Body::filled(Vec::new(), 120, Fill::Tls, dice)),
        Next::Close { from: Side::Client, after_ns: MS },
    ];
    stage.connect(cue.at, [actor, drop], 443, cue.label, dice, Script::new(steps));
    Parties { actors: vec![actor], victims: vec![drop], ..Parties::default() }
}
