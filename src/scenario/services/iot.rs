//! Devices report readings to the application servers: MQTT 3.1.1 on port 1883, connections of minutes.

use super::{MS, S};
use crate::scenario::content::Body;
use crate::scenario::dice::Dice;
use crate::scenario::ledger::Label;
use crate::scenario::stage::{Side, Stage};
use crate::scenario::tcp::{Conversation, Next};
use crate::scenario::topology::Kind;

pub(in crate::scenario) fn open(stage: &mut Stage<'_>, dice: &mut Dice, now: u64) {
    let (devices, servers) = (stage.topology.of(Kind::Iot), stage.topology.of(Kind::App));
    let hosts = [*dice.pick(devices), *dice.pick(servers)];
    let session = Session { device: hosts[0].0, step: Step::Connect, readings: 3 + dice.below(40) };
    stage.connect(now, hosts, 1883, Label::service("iot"), dice, session);
}

#[derive(Debug)]
enum Step {
    Connect,
    Accept,
    Publish,
    Ping,
    Pong,
    Leave,
}

#[derive(Debug)]
struct Session {
    device: u32,
    step: Step,
    readings: usize,
}

impl Conversation for Session {
    fn next(&mut self, dice: &mut Dice) -> Next {
        let (from, after_ns, bytes, step) = match self.step {
            Step::Connect => {
                let name = format!("device-{:05}", self.device);
                let body = [b"\0\x04MQTT\x04\x02\0\x3c", &string(&name)[..]].concat();
                (Side::Client, MS, packet(0x10, &body), Step::Accept)
            }
            Step::Accept => (Side::Server, MS, packet(0x20, &[0, 0]), Step::Publish),
            Step::Publish => {
                self.readings -= 1;
                let reading = format!("{{\"t\":{}.{},\"h\":{}}}", 15 + dice.below(15), dice.below(10), dice.below(100));
                let topic = string(&format!("site/{}/climate", self.device));
                let body = [&topic[..], reading.as_bytes()].concat();
                let next = match (self.readings, dice.below(4)) {
                    (0, _) => Step::Leave,
                    (_, 0) => Step::Ping,
                    _ => Step::Publish,
                };
                (Side::Client, dice.within(8 * S..22 * S), packet(0x30, &body), next)
            }
            Step::Ping => (Side::Client, 15 * S, packet(0xc0, &[]), Step::Pong),
            Step::Pong => (Side::Server, 200_000, packet(0xd0, &[]), Step::Publish),
            Step::Leave => return Next::Close { from: Side::Client, after_ns: dice.within(S..20 * S) },
        };
        self.step = step;
        Next::Say { from, after_ns, body: Body::exact(bytes) }
    }
}

/// A control packet of at most 127 bytes of body.
fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, body.len() as u8], body].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}
