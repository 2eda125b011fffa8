//! One alert per episode: what belongs to it, and the account of it.

use std::collections::{BTreeSet, HashSet};

use crate::behaviour::alert::{Alert, AlertKind, Evidence, Party, Rhythm, Status};
use crate::behaviour::features::{FEATURES, Features, NAMES};
use crate::flow::{FlowRecord, TO_SERVER};
use crate::packet::{Domain, Host, Mac, has_ports};
use crate::rules::{GroupSetHandle, RuleHandle};

use super::rate::Shares;

/// Hosts counted exactly per episode, and hosts, ports and flows named in the evidence.
const MAX_HOSTS: usize = 4096;
const NAMED_HOSTS: usize = 8;
const NAMED_PORTS: usize = 16;
const NAMED_FLOWS: usize = 5;
const NAMED_RULES: usize = 4;
const NAMED_MACS: usize = 4;
/// Features named in the evidence of an outlier.
const NAMED_FEATURES: usize = 5;

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
pub(super) struct Episode {
    pub(super) id: u64,
    pub(super) key: Key,
    pub(super) threshold: f64,
    pub(super) window: u64,
    pub(super) raised: u64,
    pub(super) first_seen: u64,
    pub(super) last_seen: u64,
    /// Flow time of the latest record, by when it was emitted.
    pub(super) touched: u64,
    pub(super) groups: (GroupSetHandle, GroupSetHandle),
    pub(super) count: f64,
    pub(super) level: f64,
    pub(super) attempts: u64,
    pub(super) failed: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) ports: PortSet,
    pub(super) hosts: HashSet<Host>,
    pub(super) named_hosts: Vec<Host>,
    pub(super) protocols: BTreeSet<u8>,
    pub(super) flow_ids: Vec<u64>,
    pub(super) rules: Vec<RuleHandle>,
    pub(super) detail: Detail,
    pub(super) sources: Shares,
    pub(super) max_score: Option<f32>,
    pub(super) beyond: bool,
    pub(super) explained: u32,
    pub(super) contributions: Features,
    pub(super) reported: u64,
}

/// Exact set of ports in 8 KiB.
#[derive(Clone, Debug, Default)]
pub(super) struct PortSet {
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
    pub(super) fn new(id: u64, key: Key, bar: Bar, last: &Sighting, scene: Scene) -> Self {
        Self {
            id,
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

    pub(super) fn add(&mut self, s: &Sighting) {
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

    pub(super) fn tell(&mut self, more: Detail) {
        self.detail.rhythm = more.rhythm.or(self.detail.rhythm);
        self.detail.domain = more.domain.or(self.detail.domain);
        self.detail.own = more.own.or(self.detail.own);
        for mac in more.macs {
            if self.detail.macs.len() < NAMED_MACS && !self.detail.macs.contains(&mac) {
                self.detail.macs.push(mac);
            }
        }
    }

    pub(super) fn name(&mut self, host: Host) {
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

    pub(super) fn alert(&self, status: Status) -> Alert {
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
