//! All episodes, open and recently closed.

use std::collections::BTreeMap;

use crate::behaviour::alert::{AlertEvent, AlertKind, Party, Status};
use crate::behaviour::features::Features;

use super::episode::{Bar, Detail, Episode, Key, Scene, Sighting};
use super::rate::Arrivals;
use crate::packet::Host;

/// Most episodes open at a time; the one untouched for longest is closed to make room.
const MAX_OPEN: usize = 1024;
/// Closed episodes remembered, and for how long (ns), so that records that come late join them
/// silently instead of opening another.
const MAX_CLOSED: usize = 4096;
const REMEMBER: u64 = 900_000_000_000;
/// Records of outliers explained per episode.
const EXPLAINED: u32 = 32;
/// An update is due when the count has grown by this factor.
const UPDATE_FACTOR: u64 = 4;

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
        Episode::new(self.opened, key, bar, last, scene)
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
