//! Guessing SSH passwords from outside, connection after connection.

use super::{Cue, MS, Parties};
use crate::scenario::dice::Dice;
use crate::scenario::merge::Source;
use crate::scenario::services::ssh::{Session, Work};
use crate::scenario::stage::Stage;
use crate::scenario::topology::{HostIx, Kind};

/// Connections of one attack.
pub(in crate::scenario) const CONNECTIONS: u32 = 120;

pub(super) fn start(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Outside], cue.nth, None);
    let victim = stage.topology.choose(&[Kind::Web, Kind::App], cue.nth, Some(actor));
    stage.spawn(cue.at, Guessing { hosts: [actor, victim], left: CONNECTIONS, cue, dice: dice.fork() });
    Parties { actors: vec![actor], victims: vec![victim], ..Parties::default() }
}

#[derive(Debug)]
struct Guessing {
    hosts: [HostIx; 2],
    left: u32,
    cue: Cue,
    dice: Dice,
}

impl Source for Guessing {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let session = Session::new("SSH-2.0-libssh2_1.10.0\r\n", Work::Guess { tries: 3 });
        stage.connect(now, self.hosts, 22, self.cue.label, &mut self.dice, session);
        Some(now + self.dice.within(600 * MS..1_400 * MS))
    }
}
