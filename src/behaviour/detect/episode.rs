//! One alert per episode: opened, added to, closed after a quiet time.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::behaviour::alert::{Alert, AlertEvent, AlertKind, Evidence, Party, Rhythm, Status};
use crate::behaviour::features::{FEATURES, Features, NAMES};
use crate::flow::{FlowRecord, TO_SERVER};
use crate::packet::{Domain, Mac, has_ports};
use crate::rules::{GroupSetHandle, RuleHandle};

use super::host::Host;
use super::rate::{Arrivals, Shares};

/// Most episodes open at a time; the one untouched for longest is closed to make room.
const MAX_OPEN: usize = 1024;
/// Closed episodes remembered, and for how long (ns), so that records that come late join them
/// silently instead of opening another.
const MAX_CLOSED: usize = 4096;
const REMEMBER: u64 = 900_000_000_000;
/// Hosts counted exactly per episode, and hosts, ports and flows named in the evidence.
const MAX_HOSTS: usize = 4096;
const NAMED_HOSTS: usize = 8;
const NAMED_PORTS: usize = 16;
const NAMED_FLOWS: usize = 5;
const NAMED_RULES: usize = 4;
const NAMED_MACS: usize = 4;
/// Features named in the evidence of an outlier, and records explained per episode.
const NAMED_FEATURES: usize = 5;
const EXPLAINED: u32 = 32;
/// An update is due when the count has grown by this factor.
const UPDATE_FACTOR: u64 = 4;

/// What makes two sightings belong to one episode. Floods have no actor in the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: AlertKind,
    pub(crate) actor: Party,
    pub(crate) victim: Party,
}

/// When and between which groups something was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scene {
    /// Flow time at which it is known.
    pub(crate) emitted: u64,
    pub(crate) groups: (GroupSetHandle, GroupSetHandle),
}

impl From<&FlowRecord> for Scene {
    fn from(r: &FlowRecord) -> Self {
        Self { emitted: r.emitted, groups: (r.src_groups, r.dst_groups) }
    }
}

/// What opened an episode, and how long it must be quiet to be over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bar {
    pub(crate) threshold: f64,
    pub(crate) window: u64,
}

/// What only some kinds can tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Detail {
    pub(crate) rhythm: Option<Rhythm>,
    pub(crate) domain: Option<Domain>,
    pub(crate) macs: Vec<Mac>,
    /// The actor's own address, where the key has only its card.
    pub(crate) own: Option<Host>,
}

/// One record, or what is remembered of an earlier one, as part of an episode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    /// Start and end of the flow.
    pub(crate) time: u64,
    pub(crate) end: u64,
    /// 0 where there is no flow.
    pub(crate) flow_id: u64,
    pub(crate) rule: Option<RuleHandle>,
    /// `None` of ARP.
    pub(crate) protocol: Option<u8>,
    pub(crate) port: Option<u16>,
    /// The other host: the target of a scan, the source of a flood.
    pub(crate) host: Option<Host>,
    /// Added to the alert's count.
    pub(crate) count: f64,
    /// Distinct things, or packets in the highest window: what the threshold is about.
    pub(crate) level: f64,
    pub(crate) failed: bool,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Sighting {
    pub(crate) fn of(r: &FlowRecord) -> Self {
        Self {
            time: r.start,
            end: r.end,
            flow_id: r.flow_id,
            rule: Some(r.rule),
            protocol: Some(r.tuple.protocol),
            port: has_ports(r.tuple.protocol).then_some(r.tuple.dst_port),
            host: None,
            count: 1.0,
            level: 0.0,
            failed: true,
            packets: r.packets[TO_SERVER],
            bytes: r.bytes[TO_SERVER],
        }
    }
}

/// An episode while it is open.
#[derive(Clone, Debug)]
struct Episode {
    id: u64,
    key: Key,
    threshold: f64,
    window: u64,
    raised: u64,
    first_seen: u64,
    last_seen: u64,
    /// Flow time of the latest record, by when it was emitted.
    touched: u64,
    groups: (GroupSetHandle, GroupSetHandle),
    count: f64,
    level: f64,
    attempts: u64,
    failed: u64,
    packets: u64,
    bytes: u64,
    ports: PortSet,
    hosts: HashSet<Host>,
    named_hosts: Vec<Host>,
    protocols: BTreeSet<u8>,
    flow_ids: Vec<u64>,
    rules: Vec<RuleHandle>,
    detail: Detail,
    sources: Shares,
    max_score: Option<f32>,
    beyond: bool,
    explained: u32,
    contributions: Features,
    reported: u64,
}

/// Exact set of ports in 8 KiB.
#[derive(Clone, Debug, Default)]
struct PortSet {
    bits: Vec<u64>,
    count: u64,
}

impl PortSet {
    fn insert(&mut self, port: u16) {
        self.bits.resize(1024, 0);
        let (word, bit) = (usize::from(port) / 64, 1u64 << (port % 64));
        self.count += u64::from(self.bits[word] & bit == 0);
        self.bits[word] |= bit;
    }

    fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let set = |port: &u16| self.bits.get(usize::from(*port) / 64).is_some_and(|w| w & (1 << (port % 64)) != 0);
        (0..=u16::MAX).filter(set)
    }
}

impl Episode {
    fn add(&mut self, s: &Sighting) {
        self.first_seen = self.first_seen.min(s.time);
        self.last_seen = self.last_seen.max(s.end);
        self.count += s.count;
        self.level = self.level.max(s.level);
        self.attempts += 1;
        self.failed += u64::from(s.failed);
        self.packets = self.packets.saturating_add(s.packets);
        self.bytes = self.bytes.saturating_add(s.bytes);
        self.protocols.extend(s.protocol);
        if let Some(port) = s.port {
            self.ports.insert(port);
        }
        if let Some(host) = s.host {
            self.name(host);
            if self.key.kind.is_flood() {
                self.sources.add(host, s.count);
            }
        }
        if s.flow_id != 0 && self.flow_ids.len() < NAMED_FLOWS && !self.flow_ids.contains(&s.flow_id) {
            self.flow_ids.push(s.flow_id);
        }
        if let Some(rule) = s.rule.filter(|rule| self.rules.len() < NAMED_RULES && !self.rules.contains(rule)) {
            self.rules.push(rule);
        }
    }

    fn tell(&mut self, more: Detail) {
        self.detail.rhythm = more.rhythm.or(self.detail.rhythm);
        self.detail.domain = more.domain.or(self.detail.domain);
        self.detail.own = more.own.or(self.detail.own);
        for mac in more.macs {
            if self.detail.macs.len() < NAMED_MACS && !self.detail.macs.contains(&mac) {
                self.detail.macs.push(mac);
            }
        }
    }

    fn name(&mut self, host: Host) {
        if self.hosts.len() < MAX_HOSTS && self.hosts.insert(host) && self.named_hosts.len() < NAMED_HOSTS {
            self.named_hosts.push(host);
        }
    }

    /// 1 is worst. Scans by distinct things tried, what is counted by its highest window, outliers by what exceeds
    /// the warm-up; what may be harmless is never worse than notable until there is a lot of it.
    fn severity(&self) -> u8 {
        let level = match self.key.kind {
            AlertKind::PortScan => self.ports.count as f64,
            AlertKind::HostSweep => self.hosts.len() as f64,
            AlertKind::Outlier => return if self.beyond { 2 } else { 3 },
            _ => self.level,
        };
        let times = level / self.threshold.max(1.0);
        match self.key.kind {
            AlertKind::PortScan | AlertKind::HostSweep if times >= 20.0 => 1,
            AlertKind::PortScan | AlertKind::HostSweep if times < 4.0 => 3,
            AlertKind::PortScan | AlertKind::HostSweep => 2,
            AlertKind::Beacon | AlertKind::NewRelationship | AlertKind::Volume if times < 10.0 => 3,
            AlertKind::Beacon | AlertKind::NewRelationship | AlertKind::Volume => 2,
            _ if times >= 10.0 => 1,
            _ => 2,
        }
    }

    fn alert(&self, status: Status) -> Alert {
        let (mut actor, mut victim) = (self.key.actor, self.key.victim);
        if self.key.kind.is_flood() {
            actor = self.sources.dominant().map_or(Party::Many, Party::Host);
        }
        if let (Party::Station(_), Some(own)) = (actor, self.detail.own) {
            actor = Party::Host(own);
        }
        let one_of_many = matches!(self.key.kind, AlertKind::Outlier | AlertKind::NewRelationship);
        if let (true, &[only], 1) = (one_of_many, self.named_hosts.as_slice(), self.hosts.len()) {
            victim = Party::Host(only);
        }
        Alert {
            episode: self.id,
            kind: self.key.kind,
            status,
            actor,
            victim,
            actor_groups: self.groups.0,
            victim_groups: self.groups.1,
            severity: self.severity(),
            count: self.count.round() as u64,
            raised: self.raised,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            evidence: self.evidence(),
        }
    }

    fn evidence(&self) -> Evidence {
        let seconds = (self.last_seen - self.first_seen) as f64 / 1e9;
        Evidence {
            protocols: self.protocols.iter().copied().collect(),
            ports: self.ports.iter().take(NAMED_PORTS).collect(),
            distinct_ports: self.ports.count,
            hosts: self.named_hosts.clone(),
            distinct_hosts: self.hosts.len() as u64,
            attempts: self.attempts,
            failed: self.failed,
            packets: self.packets,
            bytes: self.bytes,
            peak: self.level.round() as u64,
            threshold: self.threshold.round() as u64,
            rate: self.count / seconds.max(1e-3),
            flow_ids: self.flow_ids.clone(),
            rules: self.rules.clone(),
            rhythm: self.detail.rhythm,
            domain: self.detail.domain,
            macs: self.detail.macs.clone(),
            max_score: self.max_score,
            features: self.top_features(),
        }
    }

    /// Features that saved splits, the best first; ties in the order of [`NAMES`].
    fn top_features(&self) -> Vec<(&'static str, f32)> {
        let mean = self.contributions.map(|c| c / self.explained.max(1) as f32);
        let mut order: Vec<usize> = (0..FEATURES).filter(|&f| mean[f] > 0.0).collect();
        order.sort_by(|&a, &b| mean[b].total_cmp(&mean[a]).then(a.cmp(&b)));
        order.into_iter().take(NAMED_FEATURES).map(|f| (NAMES[f], mean[f])).collect()
    }
}

/// All episodes, open and recently closed, and the events they gave rise to.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    window: u64,
    open: BTreeMap<Key, Episode>,
    closed: BTreeMap<Key, Closed>,
    opened: u64,
    by_kind: [u64; AlertKind::ALL.len()],
    next_tick: u64,
    pub(crate) events: Vec<AlertEvent>,
}

/// What is remembered of a closed episode.
#[derive(Clone, Copy, Debug)]
struct Closed {
    /// Flow time.
    last_seen: u64,
    /// By when the record was emitted that closed it.
    at: u64,
    window: u64,
}

/// Whether and how a key is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Open,
    /// Closed a while ago, and the sighting is from that time.
    Late,
    No,
}

impl Book {
    pub(crate) fn new(window: u64) -> Self {
        Self {
            window,
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            opened: 0,
            by_kind: [0; AlertKind::ALL.len()],
            next_tick: 0,
            events: Vec::new(),
        }
    }

    /// Closes what was quiet for two windows (at least a minute) at flow time `now`.
    pub(crate) fn tick(&mut self, now: u64) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now.saturating_add((self.window / 4).max(1));
        let quiet = |e: &Episode| e.window.saturating_mul(2).max(60_000_000_000);
        let done = |e: &&Episode| now.saturating_sub(e.touched) > quiet(e);
        let keys: Vec<Key> = self.open.values().filter(done).map(|e| e.key).collect();
        self.close(keys, now);
        self.closed.retain(|_, closed| now.saturating_sub(closed.at) <= REMEMBER);
    }

    /// Closes everything: the end of the run.
    pub(crate) fn close_all(&mut self, now: u64) {
        let keys = self.open.keys().copied().collect();
        self.close(keys, now);
    }

    pub(crate) fn known(&self, key: &Key, time: u64) -> Known {
        if self.open.contains_key(key) {
            return Known::Open;
        }
        let late = self.closed.get(key).is_some_and(|c| time <= c.last_seen.saturating_add(c.window));
        if late { Known::Late } else { Known::No }
    }

    /// Open episodes of one kind and actor.
    pub(crate) fn open_of(&self, kind: AlertKind, actor: Party) -> usize {
        let lowest = Party::Host(Host { version: 0, addr: 0, vlan: 0, vni: 0 });
        self.open.range(Key { kind, actor, victim: lowest }..=Key { kind, actor, victim: Party::Many }).count()
    }

    /// Opens an episode. `earlier` sightings led to it, `last` is the present one.
    pub(crate) fn open(&mut self, key: Key, bar: Bar, earlier: &[Sighting], last: &Sighting, scene: impl Into<Scene>) {
        let mut e = self.start(key, bar, last, scene.into());
        earlier.iter().chain([last]).for_each(|s| e.add(s));
        self.admit(e);
    }

    /// Opens an episode with what its kind can tell.
    pub(crate) fn open_told(&mut self, key: Key, bar: Bar, last: &Sighting, scene: Scene, detail: Detail) {
        let mut e = self.start(key, bar, last, scene);
        e.tell(detail);
        e.add(last);
        self.admit(e);
    }

    /// Opens an episode of what is counted. `earlier` is the count before `last`; `arrivals` knows from whom.
    pub(crate) fn open_counted(
        &mut self,
        key: Key,
        bar: Bar,
        arrivals: &Arrivals,
        earlier: f64,
        last: &Sighting,
        scene: Scene,
    ) {
        let mut e = self.start(key, bar, last, scene);
        e.count = earlier;
        e.first_seen = arrivals.since.map_or(e.first_seen, |s| s.min(e.first_seen));
        e.sources = arrivals.sources.clone();
        e.flow_ids = arrivals.flow_ids.clone();
        for (host, _) in arrivals.sources.top() {
            e.name(*host);
        }
        e.add(last);
        self.admit(e);
    }

    /// Adds a sighting to an open episode.
    pub(crate) fn add(&mut self, key: &Key, s: &Sighting, emitted: u64) {
        let Some(e) = self.open.get_mut(key) else { return };
        e.add(s);
        e.touched = e.touched.max(emitted);
        let count = e.count.round() as u64;
        if count >= e.reported.saturating_mul(UPDATE_FACTOR) {
            e.reported = count.max(1);
            self.events.push(AlertEvent::Updated(e.alert(Status::Open)));
        }
    }

    /// More about an open episode.
    pub(crate) fn tell(&mut self, key: &Key, more: Detail) {
        if let Some(e) = self.open.get_mut(key) {
            e.tell(more);
        }
    }

    /// A success of the actor with the victim: counted as an attempt, keeps nothing open.
    pub(crate) fn add_success(&mut self, key: &Key) {
        if let Some(e) = self.open.get_mut(key) {
            e.attempts += 1;
        }
    }

    /// The score of an outlier just added; true when its contributions are wanted too.
    pub(crate) fn score(&mut self, key: &Key, score: f32, beyond: bool) -> bool {
        let Some(e) = self.open.get_mut(key) else { return false };
        e.max_score = Some(e.max_score.map_or(score, |m| m.max(score)));
        e.beyond |= beyond;
        e.explained < EXPLAINED
    }

    pub(crate) fn explain(&mut self, key: &Key, contributions: &Features) {
        if let Some(e) = self.open.get_mut(key) {
            e.explained += 1;
            e.contributions.iter_mut().zip(contributions).for_each(|(sum, c)| *sum += c);
        }
    }

    /// Takes the number of an episode that is told elsewhere.
    pub(crate) fn reserve(&mut self) -> u64 {
        self.opened += 1;
        self.opened
    }

    /// Episodes opened so far, by kind.
    pub(crate) fn by_kind(&self) -> [u64; AlertKind::ALL.len()] {
        self.by_kind
    }

    /// A new episode, after room was made for it.
    fn start(&mut self, key: Key, bar: Bar, last: &Sighting, scene: Scene) -> Episode {
        if self.open.len() >= MAX_OPEN {
            let stalest = self.open.values().min_by_key(|e| (e.touched, e.id)).map(|e| e.key);
            self.close(stalest.into_iter().collect(), scene.emitted);
        }
        self.opened += 1;
        self.by_kind[key.kind as usize] += 1;
        Episode {
            id: self.opened,
            key,
            threshold: bar.threshold,
            window: bar.window,
            raised: scene.emitted,
            first_seen: last.time,
            last_seen: last.end,
            touched: scene.emitted,
            groups: if key.kind.is_flood() { (GroupSetHandle(0), scene.groups.1) } else { scene.groups },
            count: 0.0,
            level: 0.0,
            attempts: 0,
            failed: 0,
            packets: 0,
            bytes: 0,
            ports: PortSet::default(),
            hosts: HashSet::new(),
            named_hosts: Vec::new(),
            protocols: BTreeSet::new(),
            flow_ids: Vec::new(),
            rules: Vec::new(),
            detail: Detail::default(),
            sources: Shares::default(),
            max_score: None,
            beyond: false,
            explained: 0,
            contributions: [0.0; FEATURES],
            reported: 0,
        }
    }

    fn admit(&mut self, mut e: Episode) {
        e.reported = e.count.round() as u64;
        self.events.push(AlertEvent::Opened(e.alert(Status::Open)));
        self.open.insert(e.key, e);
    }

    fn close(&mut self, keys: Vec<Key>, now: u64) {
        let mut done: Vec<Episode> = keys.iter().filter_map(|k| self.open.remove(k)).collect();
        done.sort_by_key(|e| e.id);
        for e in done {
            if self.closed.len() >= MAX_CLOSED {
                let oldest = self.closed.iter().min_by_key(|(_, closed)| closed.at).map(|(k, _)| *k);
                oldest.map(|k| self.closed.remove(&k));
            }
            self.closed.insert(e.key, Closed { last_seen: e.last_seen, at: now, window: e.window });
            self.events.push(AlertEvent::Closed(e.alert(Status::Closed)));
        }
    }
}
