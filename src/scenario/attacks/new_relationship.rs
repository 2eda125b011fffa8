//! First contact between two groups: a web server asks a database directly.

use super::{Cue, Parties, S};
use crate::scenario::dice::Dice;
use crate::scenario::merge::Source;
use crate::scenario::services::database::conversation;
use crate::scenario::stage::Stage;
use crate::scenario::tcp::Script;
use crate::scenario::topology::{HostIx, Kind};

/// Connections made.
pub(in crate::scenario) const CONNECTIONS: u32 = 3;

pub(super) fn start(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::Web, Kind::Iot], cue.nth, None);
    let victim = stage.topology.choose(&[Kind::Db, Kind::App], cue.nth, Some(actor));
    stage.spawn(cue.at, Contact { hosts: [actor, victim], left: CONNECTIONS, cue, dice: dice.fork() });
    Parties { actors: vec![actor], victims: vec![victim], ..Parties::default() }
}

#[derive(Debug)]
struct Contact {
    hosts: [HostIx; 2],
    left: u32,
    cue: Cue,
    dice: Dice,
}

impl Source for Contact {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let steps = conversation(4, &mut self.dice);
        stage.connect(now, self.hosts, 5432, self.cue.label, &mut self.dice, Script::new(steps));
        Some(now + 2 * S)
    }
}
