//! What is done a little at a time: connections one after another, with time between them.

use super::{Cue, MS, Parties, S};
use crate::scenario::content::{self, Body, Fill};
use crate::scenario::dice::Dice;
use crate::scenario::merge::Source;
use crate::scenario::services::ssh::{Session, Work};
use crate::scenario::stage::{Side, Stage};
use crate::scenario::tcp::{Conversation, Next, Script};
use crate::scenario::topology::{HostIx, Kind};

/// Connections of each, and the time between two of them.
const GUESSES: (usize, std::ops::Range<u64>) = (150, 20 * S..50 * S);
const CALLS: (usize, std::ops::Range<u64>) = (45, 540 * S..660 * S);
const PIECES: (usize, std::ops::Range<u64>) = (200, 60 * S..120 * S);
const STEPS: (usize, std::ops::Range<u64>) = (6, 120 * S..900 * S);
/// Bytes of a piece.
const PIECE: std::ops::Range<u64> = 200_000..400_000;
/// SSH, file sharing, remote desktop.
const WAYS_IN: [u16; 3] = [22, 445, 3389];

type Talk = fn(&mut Dice) -> Box<dyn Conversation>;

/// Guesses SSH passwords, less than two a minute.
pub(super) fn guesses(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Outside], cue.nth + 3, None);
    let victim = stage.topology.choose(&[Kind::Web, Kind::App], cue.nth + 1, Some(actor));
    let talk: Talk = |_| Box::new(Session::new("SSH-2.0-Go\r\n", Work::Guess { tries: 3 }));
    play(stage, cue, dice, vec![([actor, victim], 22); GUESSES.0], GUESSES.1, talk)
}

/// Calls home six times an hour.
pub(super) fn calls(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Web, Kind::Iot], cue.nth + 2, None);
    let home = stage.topology.choose(&[Kind::Outside], cue.nth, Some(actor));
    play(stage, cue, dice, vec![([actor, home], 443); CALLS.0], CALLS.1, |dice| Box::new(tls(212, dice)))
}

/// Takes data away in pieces.
pub(super) fn pieces(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Db, Kind::App], cue.nth + 1, None);
    let drop = stage.topology.choose(&[Kind::Outside], cue.nth + 2, Some(actor));
    let talk: Talk = |dice| Box::new(tls(dice.within(PIECE), dice));
    play(stage, cue, dice, vec![([actor, drop], 443); PIECES.0], PIECES.1, talk)
}

/// Logs in to one VM after another.
pub(super) fn steps(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Web, Kind::App], cue.nth, None);
    let others = [Kind::App, Kind::Db, Kind::Backup, Kind::Dns, Kind::Web];
    let found = others.iter().flat_map(|&kind| stage.topology.of(kind)).copied().filter(|&host| host != actor);
    let mut hosts: Vec<HostIx> = found.collect();
    if hosts.is_empty() {
        hosts.push(stage.topology.choose(&[Kind::Web], 0, Some(actor)));
    }
    let first = dice.below(hosts.len());
    hosts.rotate_left(first);
    hosts.truncate(STEPS.0);
    let port = WAYS_IN[cue.nth % WAYS_IN.len()];
    let visits = hosts.into_iter().map(|host| ([actor, host], port)).collect();
    let talk: Talk =
        |dice| Box::new(Session::new("SSH-2.0-OpenSSH_9.6\r\n", Work::Command { runs: 2 + dice.below(6) }));
    play(stage, cue, dice, visits, STEPS.1, talk)
}

fn play(
    stage: &mut Stage<'_>,
    cue: Cue,
    dice: &mut Dice,
    visits: Vec<([HostIx; 2], u16)>,
    gap: std::ops::Range<u64>,
    talk: Talk,
) -> Parties {
    let mut victims: Vec<HostIx> = visits.iter().map(|([_, victim], _)| *victim).collect();
    victims.dedup();
    let actors = visits.first().map(|([actor, _], _)| *actor).into_iter().collect();
    stage.spawn(cue.at, Series { visits: visits.into_iter(), gap, talk, cue, dice: dice.fork() });
    Parties { actors, victims, ..Parties::default() }
}

/// A connection over TLS in which the client sends so much and gets next to nothing.
fn tls(sent: u64, dice: &mut Dice) -> Script {
    let say = |from, after_ns, body| Next::Say { from, after_ns, body };
    Script::new([
        say(Side::Client, MS, Body::exact(content::client_hello("sync.example.org", dice))),
        say(Side::Server, 2 * MS, Body::filled(content::server_hello(dice), 2100, Fill::Tls, dice)),
        say(Side::Client, MS, Body::filled(content::CHANGE_CIPHER.to_vec(), 53, Fill::Tls, dice)),
        say(Side::Client, 2 * MS, Body::filled(Vec::new(), sent, Fill::Tls, dice)),
        say(Side::Server, 5 * MS, Body::filled(Vec::new(), 96, Fill::Tls, dice)),
        Next::Close { from: Side::Client, after_ns: 2 * MS },
    ])
}

#[derive(Debug)]
struct Series {
    visits: std::vec::IntoIter<([HostIx; 2], u16)>,
    gap: std::ops::Range<u64>,
    talk: Talk,
    cue: Cue,
    dice: Dice,
}

impl Source for Series {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        let (hosts, port) = self.visits.next()?;
        let talk = (self.talk)(&mut self.dice);
        stage.connect(now, hosts, port, self.cue.label, &mut self.dice, talk);
        Some(now + self.dice.within(self.gap.clone()))
    }
}
