//! Databases and application servers are backed up: a little every hour at ten past, all of it at two
//! in the morning (UTC). Long flows of high volume to port 873.

use super::{MS, S};
use crate::scenario::content::{Body, Fill};
use crate::scenario::dice::Dice;
use crate::scenario::frames::TCP;
use crate::scenario::ledger::Label;
use crate::scenario::merge::Source;
use crate::scenario::rhythm::midnight;
use crate::scenario::stage::{Side, Stage};
use crate::scenario::tcp::{Next, Pace, Script, TcpFlow};
use crate::scenario::topology::{HostIx, Kind};

const HOUR: u64 = 3600 * S;

/// Between two segments: about 8 Mbit/s.
const GAP_NS: u64 = 1_460_000;

/// Where less than one flow a second begins there is as much less to back up, by `share`.
pub(super) fn start(stage: &mut Stage<'_>, share: f64, dice: &mut Dice) {
    let topology = stage.topology;
    let Some(&server) = topology.of(Kind::Backup).first() else { return };
    let hour = stage.start_ns - stage.start_ns % HOUR;
    for &host in topology.of(Kind::Db).iter().chain(topology.of(Kind::App)) {
        let minute = 10 * 60 * S + dice.within(0..120 * S);
        let job = Job { hosts: [host, server], share, dice: dice.fork() };
        let first = hour + minute;
        stage.spawn(if first < stage.start_ns { first + HOUR } else { first }, job);
    }
}

#[derive(Debug)]
struct Job {
    hosts: [HostIx; 2],
    share: f64,
    dice: Dice,
}

impl Source for Job {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        let dice = &mut self.dice;
        let full = (now - midnight(now)) / HOUR == 2;
        let size = if full { dice.within(40_000_000..90_000_000) } else { dice.within(500_000..2_500_000) };
        let size = (size as f64 * self.share) as u64;
        let say = |from, after_ns, body| Next::Say { from, after_ns, body };
        let steps = [
            say(Side::Client, MS, Body::exact(b"@RSYNCD: 31.0\n".to_vec())),
            say(Side::Server, MS, Body::exact(b"@RSYNCD: 31.0\n".to_vec())),
            say(Side::Client, MS, Body::exact(b"nightly\n".to_vec())),
            say(Side::Server, 2 * MS, Body::exact(b"@RSYNCD: OK\n".to_vec())),
            say(Side::Client, 100 * MS, Body::filled(Vec::new(), size, Fill::Random, dice)),
            say(Side::Server, 300 * MS, Body::filled(Vec::new(), 200, Fill::Random, dice)),
            Next::Close { from: Side::Client, after_ns: MS },
        ];
        let v6 = dice.chance(stage.ipv6_share);
        let wire = stage.wire(self.hosts, TCP, 873, Label::service("backup"), v6, dice);
        let at = stage.resolve(now, self.hosts, v6);
        let pace = Pace { gap_ns: GAP_NS, ..stage.pace(self.hosts) };
        stage.spawn(at, TcpFlow::new(wire, pace, at, dice.fork(), Box::new(Script::new(steps))));
        Some(now + HOUR)
    }
}
