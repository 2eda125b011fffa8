//! Counting detectors: scans, sweeps and floods, by distinct targets and packets within a window.
//!
//! In: flow records, in order. Out: flags on the record, and events of episodes. Runs on the scorer's
//! core. Memory is bounded: the least recently used hosts and pairs are forgotten and counted.
//!
//! ```text
//! record ─► attempt: served? refused? unanswered? ─┬► Fan of (source, destination): ports  ─► port_scan
//!                                                  ├► Fan of (source, service): hosts      ─► host_sweep
//!        └► weights: SYN, UDP, ICMP ───────────────┴► Arrivals at (destination)            ─► *_flood
//! ```
//!
//! Busy but healthy hosts stay below: a scan or sweep needs as many failures as successes at least, a
//! SYN or UDP flood needs unanswered traffic of at least half the answered.
//! Time is the start of the flow, not when its record came: flows that time out are recorded later
//! than flows that are refused.

mod attempt;
mod episode;
mod fan;
mod rate;

use std::time::Duration;

use crate::config;
use crate::flow::FlowRecord;
use crate::packet::{has_ports, is_icmp};

use super::alert::{AlertEvent, AlertKind, Flags, Party};
use super::bounded::Recent;
use attempt::Outcome;
use fan::{Fan, Try};
use rate::Arrivals;

pub use crate::packet::Host;
pub(crate) use episode::{Book, Key, Known, Sighting};

/// Pairs and services with failures remembered; hosts with unanswered arrivals, per kind of flood.
const PAIRS: usize = 16_384;
const SERVICES: usize = 8_192;
const HOSTS: usize = 4_096;
/// Victims of one scanner that get an alert each; further ones share one with victim `many`.
const SEPARATE_VICTIMS: usize = 8;
/// Frames of a scanner up to this mean size, in flows of up to this many packets, are probes and no
/// flood.
const PROBE_BYTES: u64 = 128;
const PROBE_PACKETS: u64 = 8;

/// The detectors and their memory.
#[derive(Clone, Debug)]
pub(crate) struct Detectors {
    window: u64,
    limits: config::Detect,
    pairs: Recent<(Host, Host), Fan>,
    services: Recent<(Host, u32), Fan>,
    floods: Recent<(AlertKind, Host), Arrivals>,
    pub(crate) book: Book,
}

/// What the detectors made of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Finding {
    pub(crate) flags: Flags,
    /// A failed attempt, or unanswered: may belong to an attack not yet noticed.
    pub(crate) suspicious: bool,
}

impl Detectors {
    pub(crate) fn new(limits: &config::Detect) -> Self {
        let window = nanoseconds(limits.window);
        Self {
            window,
            limits: limits.clone(),
            pairs: Recent::new(PAIRS),
            services: Recent::new(SERVICES),
            floods: Recent::new(HOSTS),
            book: Book::new(window),
        }
    }

    /// Looks at the next record.
    pub(crate) fn observe(&mut self, r: &FlowRecord) -> Finding {
        // Answers that nobody asked for are a flood by who sends them.
        let r = &r.as_sent();
        self.book.tick(r.emitted);
        let mut finding = Finding::default();
        let mut scanning = false;
        if let Some(outcome) = attempt::outcome(r) {
            finding.suspicious = outcome.fails_for_port_scan();
            scanning = self.port_scan(r, outcome);
            if scanning {
                finding.flags.insert(AlertKind::PortScan);
            }
            if self.host_sweep(r, outcome) {
                finding.flags.insert(AlertKind::HostSweep);
            }
        }
        let probe = scanning && r.packets[0] <= PROBE_PACKETS && r.bytes[0] <= PROBE_BYTES * r.packets[0];
        if !probe {
            self.floods(r, &mut finding);
        }
        finding
    }

    pub(crate) fn take_events(&mut self) -> Vec<AlertEvent> {
        std::mem::take(&mut self.book.events)
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.pairs.evicted() + self.services.evicted() + self.floods.evicted()
    }

    pub(crate) fn entries(&self) -> usize {
        self.pairs.len() + self.services.len() + self.floods.len()
    }

    /// Distinct ports of one host, by one host. True when the record is part of an episode.
    fn port_scan(&mut self, r: &FlowRecord, outcome: Outcome) -> bool {
        let t = &r.tuple;
        let (actor, victim) = (Host::source(t), Host::destination(t));
        if !has_ports(t.protocol) || victim.is_group() {
            return false;
        }
        let failed = outcome.fails_for_port_scan();
        let Some(fan) = fan_of(&mut self.pairs, (actor, victim), failed) else { return false };
        let target = u128::from(t.protocol) << 16 | u128::from(t.dst_port);
        let a_try = Try { time: r.start, target: fan::words(target), flow_id: r.flow_id, failed };
        let last = Sighting { host: Some(victim), failed, ..Sighting::of(r) };
        let sighting = |t: &Try| Sighting {
            port: Some(t.target[1] as u16),
            protocol: (t.target[1] >> 16) as u8,
            packets: 0,
            bytes: 0,
            ..Sighting { time: t.time, flow_id: t.flow_id, ..last }
        };
        let flood = Key { kind: AlertKind::UdpFlood, actor: Party::Many, victim: Party::Host(victim) };
        let key = |book: &Book| {
            let flooded = t.protocol == attempt::UDP && book.known(&flood, r.start) == Known::Open;
            (!flooded).then(|| port_scan_key(book, actor, victim, r.start))
        };
        let limit = self.limits.port_scan.max(1) as usize;
        advance(&mut self.book, fan, a_try, Rule { limit, window: self.window }, r, last, key, sighting)
    }

    /// Distinct hosts on one service, by one host. True when the record is part of an episode.
    fn host_sweep(&mut self, r: &FlowRecord, outcome: Outcome) -> bool {
        let t = &r.tuple;
        let (actor, target) = (Host::source(t), Host::destination(t));
        if target.is_group() {
            return false;
        }
        let failed = outcome.fails_for_sweep();
        let port = if is_icmp(t.protocol) { 0 } else { t.dst_port };
        let service = (actor, u32::from(t.protocol) << 16 | u32::from(port));
        let Some(fan) = fan_of(&mut self.services, service, failed) else { return false };
        let a_try = Try { time: r.start, target: fan::words(t.dst), flow_id: r.flow_id, failed };
        let last = Sighting { host: Some(target), failed, ..Sighting::of(r) };
        let sighting = |t: &Try| Sighting {
            host: Some(Host { addr: u128::from(t.target[0]) << 64 | u128::from(t.target[1]), ..target }),
            packets: 0,
            bytes: 0,
            ..Sighting { time: t.time, flow_id: t.flow_id, ..last }
        };
        let key = Key { kind: AlertKind::HostSweep, actor: Party::Host(actor), victim: Party::Many };
        let limit = self.limits.host_sweep.max(1) as usize;
        advance(&mut self.book, fan, a_try, Rule { limit, window: self.window }, r, last, |_| Some(key), sighting)
    }

    fn floods(&mut self, r: &FlowRecord, finding: &mut Finding) {
        let d = &self.limits;
        let kinds = [
            (AlertKind::SynFlood, attempt::syn_weight(r), f64::from(d.syn_flood)),
            (AlertKind::UdpFlood, attempt::udp_weight(r), d.udp_flood as f64),
            (AlertKind::IcmpFlood, attempt::icmp_weight(r), d.icmp_flood as f64),
        ];
        for (kind, weight, limit) in kinds {
            if weight != (0.0, 0.0) && self.flood(r, kind, weight, limit.max(1.0)) {
                finding.flags.insert(kind);
            }
        }
        finding.suspicious |= attempt::udp_weight(r).0 > 0.0 || attempt::icmp_weight(r).0 > 0.0;
    }

    /// Arrivals at one host. True when the record is part of an episode.
    fn flood(&mut self, r: &FlowRecord, kind: AlertKind, weight: (f64, f64), limit: f64) -> bool {
        let (source, victim) = (Host::source(&r.tuple), Host::destination(&r.tuple));
        if victim.is_group() {
            return false;
        }
        let place = (kind, victim);
        let arrivals = match weight.0 > 0.0 {
            true => self.floods.get_or(place, Arrivals::default),
            false => match self.floods.get(&place) {
                Some(arrivals) => arrivals,
                None => return false,
            },
        };
        let level = arrivals.add(r.start, r.end, weight, self.window);
        if weight.0 <= 0.0 {
            return false;
        }
        let passed = level.counted >= limit && level.counted * 2.0 >= level.accounted;
        let key = Key { kind, actor: Party::Many, victim: Party::Host(victim) };
        let last = Sighting { host: Some(source), count: weight.0, level: level.counted, ..Sighting::of(r) };
        match self.book.known(&key, r.start) {
            // Half the limit keeps it going; what trickles in afterwards is everyday failure.
            Known::Open if level.counted * 2.0 >= limit => self.book.add(&key, &last, r.emitted),
            Known::Late if passed => {}
            Known::No if passed => {
                let earlier = (level.counted - weight.0).max(0.0);
                self.book.open_flood(key, limit, arrivals, earlier, &last, r);
            }
            Known::Open | Known::No | Known::Late => {
                arrivals.remember(source, weight.0, r, level.counted);
                return false;
            }
        }
        true
    }
}

/// What a fan must reach: `limit` distinct failed targets within `window`, and at least half of all.
#[derive(Clone, Copy)]
struct Rule {
    limit: usize,
    window: u64,
}

/// The fan of a key; successes alone do not start one.
fn fan_of<K: Eq + std::hash::Hash + Clone>(fans: &mut Recent<K, Fan>, key: K, failed: bool) -> Option<&mut Fan> {
    if failed { Some(fans.get_or(key, Fan::default)) } else { fans.get(&key) }
}

/// Each victim its own episode, until there are too many of them.
fn port_scan_key(book: &Book, actor: Host, victim: Host, time: u64) -> Key {
    let kind = AlertKind::PortScan;
    let key = Key { kind, actor: Party::Host(actor), victim: Party::Host(victim) };
    let together = Key { victim: Party::Many, ..key };
    let crowded = || book.known(&together, time) != Known::No || book.open_of(kind, key.actor) >= SEPARATE_VICTIMS;
    if book.known(&key, time) == Known::No && crowded() { together } else { key }
}

/// Notes a try; continues the fan's episode, or joins or opens one when the rule is met. True when
/// the try is part of an episode.
#[allow(clippy::too_many_arguments)]
fn advance(
    book: &mut Book,
    fan: &mut Fan,
    a_try: Try,
    rule: Rule,
    r: &FlowRecord,
    last: Sighting,
    key: impl FnOnce(&Book) -> Option<Key>,
    sighting: impl Fn(&Try) -> Sighting,
) -> bool {
    let tally = fan.note(a_try, rule.window, (2 * rule.limit).clamp(16, 8192));
    if let Some(key) = fan.episode.filter(|k| book.known(k, r.start) == Known::Open) {
        if a_try.failed {
            book.add(&key, &last, r.emitted);
        } else {
            book.add_success(&key);
        }
        return a_try.failed;
    }
    if !a_try.failed || tally.failed < rule.limit || tally.failed * 2 < tally.total {
        return false;
    }
    let Some(key) = key(book) else { return false };
    let tries = fan.failed(r.start, rule.window);
    let earlier: Vec<Sighting> = tries.iter().filter(|t| t.target != a_try.target).map(sighting).collect();
    fan.episode = Some(key);
    match book.known(&key, r.start) {
        Known::No => book.open(key, rule.limit as f64, &earlier, &last, r),
        Known::Open => earlier.iter().chain([&last]).for_each(|s| book.add(&key, s, r.emitted)),
        Known::Late => {}
    }
    true
}

pub(crate) fn nanoseconds(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX).max(1)
}
