//! Scans and sweeps: distinct ports of one host, one port of distinct hosts, tried mostly in vain.
//!
//! | | counted | why ordinary traffic stays below |
//! | --- | --- | --- |
//! | port scan | distinct ports one host tries on another and fails | clients use few ports of a server, and these answer |
//! | slow | the same over `slow_window`, twice the threshold; over twelve times that, three times the threshold | hours have more everyday failures than a minute, of the same few ports |
//! | spread | ports that at least five hosts together try, five times the threshold | a public address gets stray packets from many sides |
//! | sweep | distinct hosts on one port, failing | a crawler or resolver finds most of its peers alive |
//! | of administration | the same, on ports by which hosts are managed and share files | one host manages few that are dead |
//! | of pings | distinct hosts asked for an echo within ten seconds, a quarter of them silent | monitoring knows whom it asks |
//!
//! Thresholds are of the order of Zeek's scan policy (15 ports, 25 hosts in five minutes), that of administration
//! lower because nobody tries there by accident; failures must be half of all tries. Time is the start of the flow, not
//! when its record came: flows that time out are recorded later than flows that are refused.

use crate::behaviour::alert::{AlertKind, Party};
use crate::behaviour::bounded::Recent;
use crate::flow::FlowRecord;
use crate::packet::{has_ports, is_icmp};

use super::attempt::{self, Outcome};
use super::book::{Book, Known};
use super::episode::{Bar, Key, Scene, Sighting};
use super::fan::{self, Fan, Tally, Try};
use super::limits::Limits;
use super::service;
use crate::packet::Host;

/// Pairs, services and hosts with failures remembered.
const PAIRS: usize = 16_384;
const SERVICES: usize = 8_192;
const HOSTS: usize = 4_096;
/// Victims of one scanner that get an alert each; further ones share one with victim `many`.
const SEPARATE_VICTIMS: usize = 8;
/// Times the threshold: over the slow window, and of many scanners together.
const SLOW: f64 = 2.0;
const SPREAD: f64 = 5.0;
/// Very slow: times the threshold, and times the slow window.
const CREEPING: f64 = 3.0;
const CREEPING_OVER: u64 = 12;
/// Scanners of a spread scan.
const SCANNERS: usize = 5;
/// Pings come at once.
const PING_WINDOW: u64 = 10_000_000_000;

/// What is remembered of failures.
#[derive(Clone, Debug)]
pub(crate) struct Scans {
    pairs: Recent<(Host, Host), Fan>,
    services: Recent<(Host, u32), Fan>,
    spread: Recent<Host, Spread>,
}

/// Ports of one host that many others tried.
#[derive(Clone, Debug, Default)]
struct Spread {
    fan: Fan,
    scanners: Vec<Host>,
}

/// What a fan must reach: so many distinct targets within a window, and so many of them failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Distinct targets.
    pub(crate) limit: usize,
    /// Failed ones, and one in so many of all.
    pub(crate) failed: usize,
    pub(crate) one_in: usize,
    pub(crate) window: u64,
    /// What an episode waits for, at most, before it is over.
    pub(crate) quiet: u64,
}

impl Rule {
    fn is_met(&self, tally: Tally) -> bool {
        tally.total >= self.limit && tally.failed >= self.failed && tally.failed * self.one_in >= tally.total
    }
}

/// A try, and what it would be called.
pub(crate) struct Attempt {
    pub(crate) a_try: Try,
    pub(crate) last: Sighting,
    pub(crate) scene: Scene,
}

impl Scans {
    pub(crate) fn new() -> Self {
        Self { pairs: Recent::new(PAIRS), services: Recent::new(SERVICES), spread: Recent::new(HOSTS) }
    }

    pub(crate) fn len(&self) -> usize {
        self.pairs.len() + self.services.len() + self.spread.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.pairs.evicted() + self.services.evicted() + self.spread.evicted()
    }

    /// Whether `from` tried to reach `to` in vain, within the window around `time`.
    pub(crate) fn tried(&mut self, from: Host, to: Host, time: u64, window: u64) -> bool {
        self.pairs.get(&(from, to)).is_some_and(|fan| fan.around(time, window).failed > 0)
    }

    /// Distinct ports of one host, by one host. True when the record is part of an episode.
    pub(crate) fn ports(&mut self, book: &mut Book, limits: &Limits, r: &FlowRecord, outcome: Outcome) -> bool {
        let t = &r.tuple;
        let (actor, victim) = (Host::source(t), Host::destination(t));
        if !has_ports(t.protocol) || victim.is_group() {
            return false;
        }
        let failed = outcome.fails_for_port_scan();
        let Some(fan) = fan_of(&mut self.pairs, (actor, victim), failed) else { return false };
        let Some(limit) = limits.of(AlertKind::PortScan, &actor, &victim) else { return false };
        let target = u128::from(t.protocol) << 16 | u128::from(t.dst_port);
        let a_try = Try { time: r.start, target: fan::words(target), flow_id: r.flow_id, failed };
        let last = Sighting { host: Some(victim), failed, ..Sighting::of(r) };
        let flood = Key { kind: AlertKind::UdpFlood, actor: Party::Many, victim: Party::Host(victim) };
        let key = |book: &Book| {
            let flooded = t.protocol == attempt::UDP && book.known(&flood, r.start) == Known::Open;
            (!flooded).then(|| port_scan_key(book, actor, victim, r.start))
        };
        let creeping = limits.slow_window.saturating_mul(CREEPING_OVER);
        let rules = [
            rule(limit, limits.window),
            rule(SLOW * limit, limits.slow_window),
            Rule { quiet: limits.slow_window, ..rule(CREEPING * limit, creeping) },
        ];
        let attempt = Attempt { a_try, last, scene: r.into() };
        advance(book, fan, &rules, attempt, key, |t| of_port(last, t))
            || failed && self.spread_ports(book, limits, r, SPREAD * limit)
    }

    /// Distinct ports of one host, by several hosts none of which is a scanner by itself.
    fn spread_ports(&mut self, book: &mut Book, limits: &Limits, r: &FlowRecord, limit: f64) -> bool {
        let t = &r.tuple;
        let (actor, victim) = (Host::source(t), Host::destination(t));
        let flooded = [AlertKind::SynFlood, AlertKind::UdpFlood, AlertKind::Amplification]
            .map(|kind| Key { kind, actor: Party::Many, victim: Party::Host(victim) })
            .iter()
            .any(|key| book.known(key, r.start) == Known::Open);
        if flooded {
            return false;
        }
        let Spread { fan, scanners } = self.spread.get_or(victim, Spread::default);
        if scanners.len() < SCANNERS && !scanners.contains(&actor) {
            scanners.push(actor);
        }
        let target = u128::from(t.protocol) << 16 | u128::from(t.dst_port);
        let a_try = Try { time: r.start, target: fan::words(target), flow_id: r.flow_id, failed: true };
        let last = Sighting { host: Some(actor), ..Sighting::of(r) };
        let key = Key { kind: AlertKind::PortScan, actor: Party::Many, victim: Party::Host(victim) };
        let many = scanners.len() >= SCANNERS;
        let attempt = Attempt { a_try, last, scene: r.into() };
        advance(book, fan, &[rule(limit, limits.window)], attempt, |_| many.then_some(key), |t| of_port(last, t))
    }

    /// Distinct hosts on one service, by one host. True when the record is part of an episode.
    pub(crate) fn hosts(&mut self, book: &mut Book, limits: &Limits, r: &FlowRecord, outcome: Outcome) -> bool {
        let t = &r.tuple;
        let (actor, target) = (Host::source(t), Host::destination(t));
        if target.is_group() {
            return false;
        }
        let failed = outcome.fails_for_sweep();
        let ping = is_icmp(t.protocol);
        let port = if ping { 0 } else { t.dst_port };
        let of = (actor, u32::from(t.protocol) << 16 | u32::from(port));
        // Of pings the answered ones count as well.
        let Some(fan) = fan_of(&mut self.services, of, failed || ping) else { return false };
        let Some(limit) = limits.of(AlertKind::HostSweep, &actor, &target) else { return false };
        let a_try = Try { time: r.start, target: fan::words(t.dst), flow_id: r.flow_id, failed };
        let last = Sighting { host: Some(target), failed, ..Sighting::of(r) };
        let key = Key { kind: AlertKind::HostSweep, actor: Party::Host(actor), victim: Party::Many };
        let d = &limits.detect;
        let special = |own: u32| limits.or(AlertKind::HostSweep, &actor, &target, own.max(1).into()).unwrap_or(limit);
        let slow = rule(SLOW * limit, limits.slow_window);
        let creeping = limits.slow_window.saturating_mul(CREEPING_OVER);
        let creeping = Rule { quiet: limits.slow_window, ..rule(CREEPING * limit, creeping) };
        let rules = match t.protocol {
            _ if ping => [rule(limit, limits.window), pings(special(d.ping_sweep)), pings(special(d.ping_sweep))],
            attempt::TCP if service::is_administration(port) => {
                [rule(special(d.admin_sweep), limits.window), slow, creeping]
            }
            attempt::TCP => [rule(limit, limits.window), slow, slow],
            // Peers of distributed applications come and go.
            _ => [rule(limit, limits.window); 3],
        };
        let attempt = Attempt { a_try, last, scene: r.into() };
        advance(book, fan, &rules, attempt, |_| Some(key), |t| of_host(last, target, t))
    }
}

pub(crate) fn rule(limit: f64, window: u64) -> Rule {
    let limit = limit as usize;
    Rule { limit, failed: limit, one_in: 2, window, quiet: window }
}

/// Pings are counted answered or not.
fn pings(limit: f64) -> Rule {
    let limit = limit as usize;
    Rule { limit, failed: limit.div_ceil(4), one_in: 4, window: PING_WINDOW, quiet: PING_WINDOW }
}

/// What an earlier try of a port adds to an episode.
fn of_port(last: Sighting, t: &Try) -> Sighting {
    Sighting { port: Some(t.target[1] as u16), protocol: Some((t.target[1] >> 16) as u8), ..earlier(last, t) }
}

/// What an earlier try of a host adds to an episode.
pub(crate) fn of_host(last: Sighting, like: Host, t: &Try) -> Sighting {
    let addr = u128::from(t.target[0]) << 64 | u128::from(t.target[1]);
    Sighting { host: Some(Host { addr, ..like }), ..earlier(last, t) }
}

fn earlier(last: Sighting, t: &Try) -> Sighting {
    Sighting { time: t.time, flow_id: t.flow_id, packets: 0, bytes: 0, ..last }
}

/// The fan of a key; successes alone do not start one.
fn fan_of<K: Eq + std::hash::Hash + Clone>(fans: &mut Recent<K, Fan>, key: K, starts: bool) -> Option<&mut Fan> {
    if starts { Some(fans.get_or(key, Fan::default)) } else { fans.get(&key) }
}

/// Each victim its own episode, until there are too many of them.
fn port_scan_key(book: &Book, actor: Host, victim: Host, time: u64) -> Key {
    let kind = AlertKind::PortScan;
    let key = Key { kind, actor: Party::Host(actor), victim: Party::Host(victim) };
    let together = Key { victim: Party::Many, ..key };
    let crowded = || book.known(&together, time) != Known::No || book.open_of(kind, key.actor) >= SEPARATE_VICTIMS;
    if book.known(&key, time) == Known::No && crowded() { together } else { key }
}

/// Notes a try; continues the fan's episode, or joins or opens one when a rule is met, the first one first. True when
/// the try is part of an episode.
pub(crate) fn advance(
    book: &mut Book,
    fan: &mut Fan,
    rules: &[Rule],
    attempt: Attempt,
    key: impl FnOnce(&Book) -> Option<Key>,
    sighting: impl Fn(&Try) -> Sighting,
) -> bool {
    let Attempt { a_try, last, scene } = attempt;
    let most = rules.iter().map(|rule| rule.limit * 2).max().unwrap_or(0);
    let window = rules.first().map_or(1, |rule| rule.window);
    fan.note(a_try, window, most.clamp(16, 8192));
    match fan.episode.map(|key| (key, book.known(&key, a_try.time))) {
        Some((key, Known::Open)) if a_try.failed => {
            book.add(&key, &last, scene.emitted);
            return true;
        }
        Some((key, Known::Open)) => {
            book.add_success(&key);
            return false;
        }
        Some((_, Known::No)) => fan.restart(a_try.time.saturating_sub(window)),
        Some((_, Known::Late)) | None => {}
    }
    let met = |rule: &&Rule| rule.is_met(fan.around(a_try.time, rule.window));
    // Where answered tries count, one of them may be the last that was wanting.
    let may_open = |rule: &&Rule| a_try.failed || rule.failed < rule.limit;
    let Some(rule) = rules.iter().filter(may_open).find(met) else { return false };
    let Some(key) = key(book) else { return false };
    let tries = fan.failed(a_try.time, rule.window);
    let earlier: Vec<Sighting> = tries.iter().filter(|t| t.target != a_try.target).map(sighting).collect();
    fan.episode = Some(key);
    match book.known(&key, a_try.time) {
        Known::No => book.open(key, Bar { threshold: rule.limit as f64, window: rule.quiet }, &earlier, &last, scene),
        Known::Open => earlier.iter().chain([&last]).for_each(|s| book.add(&key, s, scene.emitted)),
        Known::Late => {}
    }
    true
}
