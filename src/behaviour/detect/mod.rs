//! Detectors of attack patterns, by counting within windows of flow time.
//!
//! In: flow records and [`Observation`]s, in order. Out: flags on the record, and events of episodes. Runs on the
//! scorer's core. Memory is bounded: the least recently used hosts and pairs are forgotten and counted.
//!
//! ```text
//! record ─► attempt: served? refused? ──┬► scan      distinct ports and hosts     ─► port_scan, host_sweep
//!        │  unanswered?                 ├► session   short or slow connections    ─► brute_force, slow_http
//!        │                              └► relation  who manages whom             ─► new_relationship
//!        ├► flood    packets nobody answers, answers nobody asked for   ─► *_flood, amplification
//!        ├► tunnel   echoes of many sizes                               ─► icmp_tunnel
//!        ├► outward  bytes to one host outside, even distances          ─► exfiltration, beacon
//!        └► volume   bytes against what was usual                       ─► volume
//! observation ─┬► tunnel  long names below one domain ─► dns_tunnel
//!              └► lan     ARP                         ─► arp_spoof, host_sweep
//! ```
//!
//! Each module says what it counts, why ordinary traffic stays below, and where its threshold comes from. What passes a
//! threshold opens an episode (`episode`); less keeps it going. [`Limits`] has the thresholds and exceptions.

mod attempt;
mod book;
mod episode;
mod fan;
mod flood;
mod gauge;
mod lan;
mod limits;
mod outward;
mod rate;
mod relation;
mod scan;
mod service;
mod session;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod tunnel;
mod volume;

use std::time::Duration;

use crate::config;
use crate::flow::FlowRecord;
use crate::worker::{Observation, Seen};

use super::alert::{AlertEvent, AlertKind, Flags};
use super::expect::PairInterval;
use attempt::Outcome;
use gauge::Gauges;
use lan::Lan;
use limits::Limits;
use outward::Beacons;
use relation::Relations;
use scan::Scans;
use session::Logins;
use tunnel::Names;
use volume::Volumes;

pub use crate::packet::Host;
pub(crate) use book::{Book, Known};
pub(crate) use episode::{Bar, Key, Sighting};

/// Frames of a scanner up to this mean size, in flows of up to this many packets, are probes and no
/// flood.
const PROBE_BYTES: u64 = 128;
const PROBE_PACKETS: u64 = 8;

/// The detectors and their memory.
#[derive(Clone, Debug)]
pub(crate) struct Detectors {
    limits: Limits,
    scans: Scans,
    gauges: Gauges,
    logins: Logins,
    names: Names,
    beacons: Beacons,
    relations: Relations,
    volumes: Volumes,
    lan: Lan,
    pub(crate) book: Book,
}

/// What the detectors made of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Finding {
    pub(crate) flags: Flags,
    /// A failed attempt, or unanswered: may belong to an attack not yet noticed.
    pub(crate) suspicious: bool,
    /// Somebody tried in vain: scans and floods are made of that, and so is every server that is down.
    pub(crate) failed: bool,
}

impl Detectors {
    pub(crate) fn new(settings: &config::Detect) -> Self {
        let limits = Limits::new(settings);
        Self {
            scans: Scans::new(),
            gauges: Gauges::new(),
            logins: Logins::new(),
            names: Names::new(),
            beacons: Beacons::new(),
            relations: Relations::new(),
            volumes: Volumes::new(),
            lan: Lan::new(),
            book: Book::new(limits.window),
            limits,
        }
    }

    /// Looks at the next record.
    pub(crate) fn observe(&mut self, r: &FlowRecord) -> Finding {
        self.book.tick(r.emitted);
        // Answers that nobody asked for are a flood by who sends them.
        let sent = &r.as_sent();
        let mut finding = Finding::default();
        let mut scanning = false;
        if let Some(outcome) = attempt::outcome(sent) {
            finding.suspicious = outcome.fails_for_port_scan();
            finding.failed = outcome.fails_for_sweep();
            scanning = self.attempt(sent, outcome, &mut finding.flags);
        }
        let probe = scanning && sent.packets[0] <= PROBE_PACKETS && sent.bytes[0] <= PROBE_BYTES * sent.packets[0];
        if !probe {
            self.floods(r, sent, &mut finding);
        }
        self.traffic(r, &mut finding.flags);
        finding
    }

    /// Looks at what is in no record.
    pub(crate) fn see(&mut self, o: &Observation) {
        self.book.tick(o.clock);
        match &o.what {
            Seen::Arp(arp) => self.lan.arp(&mut self.book, &self.limits, o, arp),
            Seen::Question(question) => self.names.question(&mut self.book, &self.limits, o, question),
        }
    }

    /// Looks at what was not expected of group pairs; `expecting`: enough is known to expect anything.
    pub(crate) fn unexpected(&mut self, intervals: &[PairInterval], expecting: bool) {
        self.volumes.leave_to_pairs(expecting);
        intervals.iter().for_each(|interval| self.volumes.unexpected(&mut self.book, &self.limits, interval));
    }

    pub(crate) fn take_events(&mut self) -> Vec<AlertEvent> {
        std::mem::take(&mut self.book.events)
    }

    pub(crate) fn evicted(&self) -> u64 {
        let [scans, counted, names] = [self.scans.evicted(), self.gauges.evicted(), self.names.evicted()];
        scans
            + counted
            + names
            + self.logins.evicted()
            + self.beacons.evicted()
            + self.volumes.evicted()
            + self.lan.evicted()
    }

    pub(crate) fn entries(&self) -> usize {
        let [scans, counted, names] = [self.scans.len(), self.gauges.len(), self.names.len()];
        let [beacons, relations, volumes] = [self.beacons.len(), self.relations.len(), self.volumes.len()];
        scans + counted + names + self.logins.len() + beacons + relations + volumes + self.lan.len()
    }

    /// Somebody tries to reach a service. True when it is part of a port scan.
    fn attempt(&mut self, r: &FlowRecord, outcome: Outcome, flags: &mut Flags) -> bool {
        let Self { scans, gauges, logins, relations, limits, book, .. } = self;
        let scanning = scans.ports(book, limits, r, outcome);
        let found = [
            (AlertKind::PortScan, scanning),
            (AlertKind::HostSweep, scans.hosts(book, limits, r, outcome)),
            (AlertKind::BruteForce, session::guess((logins, gauges), book, limits, r, outcome)),
            (AlertKind::SlowHttp, session::slow(gauges, book, limits, r, outcome)),
            (AlertKind::NewRelationship, relations.observe(book, limits, r, outcome)),
        ];
        insert(flags, &found);
        scanning
    }

    fn floods(&mut self, r: &FlowRecord, sent: &FlowRecord, finding: &mut Finding) {
        let Self { scans, gauges, limits, book, .. } = self;
        if !flood::reflection(gauges, book, limits, scans, r, &mut finding.flags) {
            flood::observe(gauges, book, limits, sent, &mut finding.flags);
        }
        finding.suspicious |= attempt::udp_weight(sent).0 > 0.0 || attempt::icmp_weight(sent).0 > 0.0;
    }

    /// What a record says of the traffic, whatever came of it.
    fn traffic(&mut self, r: &FlowRecord, flags: &mut Flags) {
        let Self { gauges, beacons, volumes, limits, book, .. } = self;
        let found = [
            (AlertKind::DnsTunnel, tunnel::is_known(book, r)),
            (AlertKind::IcmpTunnel, tunnel::echo(gauges, book, limits, r)),
            (AlertKind::Exfiltration, outward::upload(gauges, book, limits, r)),
            (AlertKind::Beacon, beacons.observe(book, limits, r)),
            (AlertKind::Volume, volumes.observe(book, limits, r)),
        ];
        insert(flags, &found);
    }
}

fn insert(flags: &mut Flags, found: &[(AlertKind, bool)]) {
    found.iter().filter(|(_, found)| *found).for_each(|(kind, _)| flags.insert(*kind));
}

pub(crate) fn nanoseconds(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX).max(1)
}
