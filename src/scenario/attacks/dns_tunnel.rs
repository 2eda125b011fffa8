//! Data carried in the names of DNS queries and in the TXT records of their answers.

use super::{Cue, MS, Parties};
use crate::scenario::dice::Dice;
use crate::scenario::frames::UDP;
use crate::scenario::merge::Source;
use crate::scenario::services::dns::{TXT, query, response};
use crate::scenario::stage::{Side, Stage, Wire};
use crate::scenario::topology::Kind;

/// Queries of one tunnel; each is answered.
pub(in crate::scenario) const QUERIES: u32 = 300;

pub(super) fn start(stage: &mut Stage<'_>, cue: Cue, dice: &mut Dice) -> Parties {
    let actor = stage.topology.choose(&[Kind::App, Kind::Web], cue.nth + 1, None);
    let server = stage.topology.choose(&[Kind::Dns, Kind::Outside], cue.nth, Some(actor));
    let wire = stage.wire([actor, server], UDP, 53, cue.label, false, dice);
    let at = stage.resolve(cue.at, [actor, server], false);
    stage.spawn(at, Tunnel { wire, left: QUERIES, asked: None, dice: dice.fork() });
    Parties { actors: vec![actor], victims: vec![server], ..Parties::default() }
}

#[derive(Debug)]
struct Tunnel {
    wire: Wire,
    left: u32,
    /// The query that is to be answered next.
    asked: Option<Vec<u8>>,
    dice: Dice,
}

impl Source for Tunnel {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        let dice = &mut self.dice;
        if let Some(asked) = self.asked.take() {
            let len = 120 + dice.below(100);
            let mut data = vec![len as u8];
            data.extend(dice.bytes(len).iter().map(|b| ALPHABET[usize::from(b & 31)]));
            stage.send_udp(now, &mut self.wire, Side::Server, &response(&asked, TXT, Some(&data)));
            if self.left == 0 {
                stage.close(&mut self.wire);
                return None;
            }
            return Some(now + dice.within(120 * MS..200 * MS));
        }
        self.left = self.left.checked_sub(1)?;
        let mut name = String::new();
        for _ in 0..3 {
            name.extend(dice.bytes(50).iter().map(|b| char::from(ALPHABET[usize::from(b & 31)])));
            name.push('.');
        }
        name.push_str("t.example.org");
        let question = query(dice.u16(), &name, TXT);
        stage.send_udp(now, &mut self.wire, Side::Client, &question);
        self.asked = Some(question);
        Some(now + dice.within(15 * MS..45 * MS))
    }
}

/// Base 32 (RFC 4648), in lower case as names are.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
