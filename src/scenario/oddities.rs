//! What is unusual and harmless: days on which something is done that is not done every day.
//!
//! None of it is an attack. Whoever raises an alert of it has raised a false one.

use super::content::{Body, Fill};
use super::dice::Dice;
use super::exchange::{Exchange, Message};
use super::frames::{ACK, RST, SYN, TCP};
use super::ledger::Label;
use super::merge::Source;
use super::rhythm::activity;
use super::services::{app, database, dns, ssh, web};
use super::stage::{Flags, Side, Stage, Wire};
use super::tcp::{Conversation, Next, Script};
use super::topology::{HostIx, Kind, stranger};

/// Milliseconds, seconds.
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// The kinds of harmless oddity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OddityKind {
    Deployment,
    FailingServer,
    NewVm,
    Rush,
    Firmware,
    BulkCopy,
    Strays,
}

impl OddityKind {
    pub(super) const ALL: [Self; 7] =
        [Self::Deployment, Self::FailingServer, Self::NewVm, Self::Rush, Self::Firmware, Self::BulkCopy, Self::Strays];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::FailingServer => "failing_server",
            Self::NewVm => "new_vm",
            Self::Rush => "rush",
            Self::Firmware => "firmware",
            Self::BulkCopy => "bulk_copy",
            Self::Strays => "strays",
        }
    }

    /// What happens, in words.
    pub(super) fn story(self) -> &'static str {
        match self {
            Self::Deployment => {
                "commands and 3 MB by SSH on every web and application server; these are away for 30 s each"
            }
            Self::FailingServer => {
                "an application server or database refuses, or does not answer, one try a second for 20 minutes"
            }
            Self::NewVm => "one more application server begins to work, to the end of the capture",
            Self::Rush => "eight times as many clients read pages, for 40 minutes",
            Self::Firmware => "every device gets 1 to 2 MB from an application server, within half an hour",
            Self::BulkCopy => "an administrator fetches 40 MB from a database by SSH",
            Self::Strays => "120 hosts outside try one or two ports of web servers each, over two hours",
        }
    }

    /// How long it goes on, in seconds.
    pub(super) fn lasts(self) -> u64 {
        match self {
            Self::Deployment => 900,
            Self::FailingServer => 1_200,
            Self::NewVm => 0,
            Self::Rush => 2_400,
            Self::Firmware => 1_800,
            Self::BulkCopy => 300,
            Self::Strays => 7_200,
        }
    }
}

/// An oddity that is to come; `nth` chooses the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Oddity {
    pub(super) kind: OddityKind,
    pub(super) at: u64,
    pub(super) until: u64,
    pub(super) nth: usize,
}

/// Puts oddity number `number` on the stage; says whose it is. `rate` is new flows a second at the busiest hour.
pub(super) fn start(stage: &mut Stage<'_>, oddity: &Oddity, number: u64, (seed, rate): (u64, f64)) -> Vec<HostIx> {
    let dice = &mut Dice::new(seed, 100_000 + number);
    match oddity.kind {
        OddityKind::Deployment => deploy(stage, oddity, dice),
        OddityKind::FailingServer => fail(stage, oddity, dice),
        OddityKind::NewVm => join(stage, oddity, dice, rate),
        OddityKind::Rush => rush(stage, oddity, dice, rate),
        OddityKind::Firmware => update(stage, oddity, dice),
        OddityKind::BulkCopy => copy(stage, oddity, dice),
        OddityKind::Strays => stray(stage, oddity, dice),
    }
}

fn label(oddity: &Oddity) -> Label {
    Label::service(oddity.kind.name())
}

/// A connection that is to come.
type Visit = (u64, [HostIx; 2], u16, Box<dyn Conversation>);

/// Connections at times that are known.
#[derive(Debug)]
struct Visits {
    rest: std::vec::IntoIter<Visit>,
    label: Label,
    dice: Dice,
}

impl Visits {
    fn begin(stage: &mut Stage<'_>, mut visits: Vec<Visit>, label: Label, dice: &mut Dice) {
        visits.sort_by_key(|(at, ..)| *at);
        let Some(first) = visits.first().map(|(at, ..)| *at) else { return };
        stage.spawn(first, Self { rest: visits.into_iter(), label, dice: dice.fork() });
    }
}

impl Source for Visits {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        let (_, hosts, port, talk) = self.rest.next()?;
        stage.connect(now, hosts, port, self.label, &mut self.dice, talk);
        self.rest.as_slice().first().map(|(at, ..)| *at)
    }
}

fn deploy(stage: &mut Stage<'_>, oddity: &Oddity, dice: &mut Dice) -> Vec<HostIx> {
    let topology = stage.topology;
    let admin = topology.choose(&[Kind::Admin, Kind::App], oddity.nth, None);
    let servers: Vec<HostIx> = [Kind::Web, Kind::App].iter().flat_map(|&kind| topology.of(kind)).copied().collect();
    let mut visits: Vec<Visit> = Vec::new();
    let mut at = oddity.at;
    for &server in servers.iter().filter(|&&server| server != admin) {
        for _ in 0..3 + dice.below(5) {
            let work = ssh::Work::Command { runs: 1 + dice.below(4) };
            visits.push((at, [admin, server], 22, Box::new(ssh::Session::new("SSH-2.0-OpenSSH_9.6\r\n", work))));
            at += dice.within(600 * MS..5 * S);
        }
        visits.push((at, [admin, server], 22, Box::new(sent(Side::Client, 3_000_000, Fill::Random, dice))));
        at += dice.within(4 * S..12 * S);
        let callers = if topology.host(server).kind == Kind::Web { Kind::Clients } else { Kind::Web };
        refusals(stage, (at, at + 30 * S), (callers, server), (label(oddity), true), dice);
        at += dice.within(20 * S..60 * S);
    }
    Visits::begin(stage, visits, label(oddity), dice);
    servers
}

fn fail(stage: &mut Stage<'_>, oddity: &Oddity, dice: &mut Dice) -> Vec<HostIx> {
    let kinds = if oddity.nth.is_multiple_of(2) { [Kind::App, Kind::Web] } else { [Kind::Db, Kind::App] };
    let server = stage.topology.choose(&kinds, oddity.nth / 2, None);
    let callers = if stage.topology.host(server).kind == Kind::Db { Kind::App } else { Kind::Web };
    let refused = !oddity.nth.is_multiple_of(3);
    refusals(stage, (oddity.at, oddity.until), (callers, server), (label(oddity), refused), dice);
    vec![server]
}

/// Tries of a server that is away, one a second.
fn refusals(
    stage: &mut Stage<'_>,
    (from, until): (u64, u64),
    (callers, server): (Kind, HostIx),
    (label, refused): (Label, bool),
    dice: &mut Dice,
) {
    let port = match stage.topology.host(server).kind {
        Kind::Web => 443,
        Kind::Db => 5432,
        _ => 8080,
    };
    let tries = Tries { until, callers, server, port, label, refused, dice: dice.fork() };
    stage.spawn(from, tries);
}

#[derive(Debug)]
struct Tries {
    until: u64,
    callers: Kind,
    server: HostIx,
    port: u16,
    label: Label,
    refused: bool,
    dice: Dice,
}

impl Source for Tries {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        if now >= self.until {
            return None;
        }
        let nth = self.dice.below(1000);
        let caller = stage.topology.choose(&[self.callers, Kind::App], nth, Some(self.server));
        let ports = [stage.ephemeral(caller), self.port];
        let ends = [caller, self.server].map(|host| stage.end(host, false));
        attempt(stage, now, (ends, ports), (self.label, self.refused), &mut self.dice);
        Some(now + self.dice.exponential(S as f64) as u64 + 1)
    }
}

/// A SYN that is refused, or comes again twice.
fn attempt(
    stage: &mut Stage<'_>,
    now: u64,
    (ends, ports): ([super::frames::End; 2], [u16; 2]),
    (label, refused): (Label, bool),
    dice: &mut Dice,
) {
    let wire = Wire::between(ends, ports, TCP, label, dice);
    let seq = dice.u32();
    let open = Message::Tcp(Flags { flags: SYN, seq, ack: 0 });
    let refuse = Message::Tcp(Flags { flags: RST | ACK, seq: 0, ack: seq.wrapping_add(1) });
    let messages = match refused {
        true => vec![(now, Side::Client, open), (now + 300_000, Side::Server, refuse)],
        false => [0, S, 3 * S].into_iter().map(|later| (now + later, Side::Client, open.clone())).collect(),
    };
    Exchange::new(wire, messages).begin(stage);
}

/// One side sends so much, the other says that it got it.
fn sent(from: Side, bytes: u64, fill: Fill, dice: &mut Dice) -> Script {
    let say = |from, after_ns, bytes, dice: &mut Dice| Next::Say {
        from,
        after_ns,
        body: Body::filled(Vec::new(), bytes, fill, dice),
    };
    Script::new([
        say(Side::Client, MS, 1_800, dice),
        say(Side::Server, 8 * MS, 1_900, dice),
        say(from, 20 * MS, bytes, dice),
        say(from.other(), 10 * MS, 100, dice),
        Next::Close { from: Side::Client, after_ns: 2 * MS },
    ])
}

/// A machine that was planned for begins to serve and to ask.
fn join(stage: &mut Stage<'_>, oddity: &Oddity, dice: &mut Dice, rate: f64) -> Vec<HostIx> {
    let spare = &stage.topology.spare;
    let Some(&host) = spare.get(oddity.nth % spare.len().max(1)) else { return Vec::new() };
    let newcomer =
        Newcomer { host, until: oddity.until, mean_gap_ns: 1e9 / (rate * 0.1).max(0.001), dice: dice.fork() };
    stage.spawn(oddity.at, newcomer);
    vec![host]
}

#[derive(Debug)]
struct Newcomer {
    host: HostIx,
    until: u64,
    mean_gap_ns: f64,
    dice: Dice,
}

impl Source for Newcomer {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        if now >= self.until {
            return None;
        }
        if self.dice.chance(activity(now)) {
            match self.dice.below(10) {
                0..=4 => app::open_with(stage, &mut self.dice, now, self.host),
                5..=7 => database::open_from(stage, &mut self.dice, now, self.host),
                _ => dns::open_from(stage, &mut self.dice, now, self.host),
            }
        }
        Some(now + self.dice.exponential(self.mean_gap_ns) as u64 + 1)
    }
}

fn rush(stage: &mut Stage<'_>, oddity: &Oddity, dice: &mut Dice, rate: f64) -> Vec<HostIx> {
    if stage.topology.has(Kind::Clients) && stage.topology.has(Kind::Web) && rate > 0.0 {
        // Seven times what the web servers get besides.
        let mean_gap_ns = 1e9 / (rate * 0.4 * 7.0);
        stage.spawn(oddity.at, Rush { until: oddity.until, mean_gap_ns, dice: dice.fork() });
    }
    stage.topology.of(Kind::Web).to_vec()
}

#[derive(Debug)]
struct Rush {
    until: u64,
    mean_gap_ns: f64,
    dice: Dice,
}

impl Source for Rush {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        if now >= self.until {
            return None;
        }
        if self.dice.chance(activity(now)) {
            web::open(stage, &mut self.dice, now);
        }
        Some(now + self.dice.exponential(self.mean_gap_ns) as u64 + 1)
    }
}

fn update(stage: &mut Stage<'_>, oddity: &Oddity, dice: &mut Dice) -> Vec<HostIx> {
    let topology = stage.topology;
    let server = topology.choose(&[Kind::App, Kind::Web], oddity.nth, None);
    let devices: Vec<HostIx> = topology.of(Kind::Iot).to_vec();
    let mut visits: Vec<Visit> = Vec::new();
    for &device in &devices {
        let at = oddity.at + dice.within(0..oddity.until - oddity.at);
        let bytes = dice.within(1_000_000..2_000_000);
        visits.push((at, [device, server], 1883, Box::new(sent(Side::Server, bytes, Fill::Random, dice))));
    }
    Visits::begin(stage, visits, label(oddity), dice);
    devices
}

fn copy(stage: &mut Stage<'_>, oddity: &Oddity, dice: &mut Dice) -> Vec<HostIx> {
    let admin = stage.topology.choose(&[Kind::Admin, Kind::App], oddity.nth, None);
    let server = stage.topology.choose(&[Kind::Db, Kind::App], oddity.nth, Some(admin));
    let talk: Box<dyn Conversation> = Box::new(sent(Side::Server, 40_000_000, Fill::Random, dice));
    Visits::begin(stage, vec![(oddity.at, [admin, server], 22, talk)], label(oddity), dice);
    vec![admin]
}

/// Ports that passers-by try.
const TRIED: [u16; 10] = [22, 23, 80, 443, 445, 2323, 3389, 5900, 8080, 8443];
const PASSERS_BY: u64 = 120;

fn stray(stage: &mut Stage<'_>, oddity: &Oddity, dice: &mut Dice) -> Vec<HostIx> {
    let gap_ns = (oddity.until - oddity.at) / PASSERS_BY;
    let strays = Strays { until: oddity.until, gap_ns, number: 0, label: label(oddity), dice: dice.fork() };
    stage.spawn(oddity.at, strays);
    Vec::new()
}

#[derive(Debug)]
struct Strays {
    until: u64,
    gap_ns: u64,
    number: u8,
    label: Label,
    dice: Dice,
}

impl Source for Strays {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        if now >= self.until {
            return None;
        }
        self.number = (self.number + 1) % 250;
        let like = stage.topology.choose(&[Kind::Outside], 0, None);
        for _ in 0..1 + self.dice.below(2) {
            let nth = self.dice.below(1000);
            let to = stage.topology.choose(&[Kind::Web, Kind::App], nth, Some(like));
            let ports = [1024 + self.dice.u16() % 60_000, *self.dice.pick(&TRIED)];
            let refused = self.dice.chance(0.5);
            let at = stage.resolve(now, [like, to], false);
            let ends = [stranger(self.number), stage.end(to, false)];
            attempt(stage, at, (ends, ports), (self.label, refused), &mut self.dice);
        }
        Some(now + self.dice.exponential(self.gap_ns as f64) as u64 + 1)
    }
}
