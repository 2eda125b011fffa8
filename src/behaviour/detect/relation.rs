//! Relations that were never seen while relations were learnt.
//!
//! For the time of `learning` from the first record on, and until a thousand records were seen, because quiet teaches
//! nothing, it is noted which groups talk to which on which service; and, where one end is in no group, which host
//! inside manages which (see `service::is_administration`). The other side must have answered. Afterwards each new
//! relation is told. It is known, and not told again, once it was there in six different hours without a longer break, as
//! one that is there to stay; or was told three times. A group that talks to three others on a service, or serves three
//! others, is made for that: one more is nothing new. An intruder who moves on needs relations that the network does not
//! have; these are few, and change when people change them. What is learnt has a limit: beyond it nothing is told,
//! because what is new could not be told from what found no room.

use std::collections::HashMap;

use crate::behaviour::alert::{AlertKind, Party};
use crate::behaviour::bounded::Recent;
use crate::flow::FlowRecord;
use crate::packet::has_ports;
use crate::rules::GroupSetHandle;

use super::attempt::{self, Outcome};
use super::book::Book;
use super::episode::{Bar, Detail, Key, Scene, Sighting};
use super::fan::{self, Fan, Try};
use super::gauge::note;
use super::limits::Limits;
use super::nanoseconds;
use super::service;
use crate::packet::Host;

/// Pairs of hosts, and pairs of groups, that can be learnt.
const MOST: usize = 65_536;
/// Records that must have been seen.
const LEAST_RECORDS: u64 = 1_000;
/// Different hours that make a relation usual, the longest break in hours, and times that it is told.
const HOURS: u8 = 6;
const TIMES: u8 = 3;
const HOUR: u64 = 3_600_000_000_000;
/// Others that a group talks to, or serves, which make one more nothing new.
const MANY: u32 = 3;
/// Hosts with new relations remembered.
const HOSTS: usize = 1_024;
/// Ports from here on are given to clients.
const EPHEMERAL: u16 = 32_768;

/// What was learnt.
#[derive(Clone, Debug)]
pub(crate) struct Relations {
    hosts: HashMap<(Host, Host, u16), Habit>,
    groups: HashMap<(GroupSetHandle, GroupSetHandle, u32), Habit>,
    /// By group, whether it serves, and service: how many others are known.
    peers: HashMap<(GroupSetHandle, bool, u32), u32>,
    /// By actor: whom it met newly.
    new: Recent<Host, Fan>,
    began: Option<u64>,
    records: u64,
}

/// How usual a relation has become.
#[derive(Clone, Copy, Debug, Default)]
struct Habit {
    known: bool,
    told: u8,
    /// Different hours in which it was there, and the latest one.
    hours: u8,
    hour: u64,
}

impl Habit {
    /// Notes that it is there. True when that is to be told.
    fn note(&mut self, time: u64, learning: bool) -> bool {
        let hour = time / HOUR;
        self.known |= learning;
        if self.known {
            return false;
        }
        let is_new = self.told == 0 || hour.saturating_sub(self.hour) > u64::from(HOURS);
        if is_new {
            (self.told, self.hours) = (self.told + 1, 0);
        }
        self.hours += u8::from(self.hours == 0 || hour > self.hour);
        self.hour = self.hour.max(hour);
        self.known = self.told >= TIMES || self.hours >= HOURS;
        is_new
    }
}

impl Relations {
    pub(crate) fn new() -> Self {
        Self {
            hosts: HashMap::new(),
            groups: HashMap::new(),
            peers: HashMap::new(),
            new: Recent::new(HOSTS),
            began: None,
            records: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.hosts.len() + self.groups.len() + self.new.len()
    }

    /// True when the record is a new relation.
    pub(crate) fn observe(&mut self, book: &mut Book, limits: &Limits, r: &FlowRecord, outcome: Outcome) -> bool {
        let began = *self.began.get_or_insert(r.emitted);
        self.records += 1;
        if !matches!(outcome, Outcome::Served | Outcome::Empty) {
            return false;
        }
        let t = &r.tuple;
        let (actor, victim) = (Host::source(t), Host::destination(t));
        let inside = limits.is_inside(&actor) && limits.is_inside(&victim) && !victim.is_group();
        let managed = inside && t.protocol == attempt::TCP && service::is_administration(t.dst_port);
        let port = if t.dst_port < EPHEMERAL { t.dst_port } else { 0 };
        let grouped = r.src_groups != GroupSetHandle(0) && r.dst_groups != GroupSetHandle(0);
        if self.hosts.len() >= MOST || self.groups.len() >= MOST {
            return false;
        }
        let of_groups = (r.src_groups, r.dst_groups, u32::from(t.protocol) << 16 | u32::from(port));
        let sides = [(of_groups.0, false, of_groups.2), (of_groups.1, true, of_groups.2)];
        let (habit, expected) = match grouped {
            true if has_ports(t.protocol) => {
                let many = sides.iter().any(|side| self.peers.get(side).is_some_and(|count| *count >= MANY));
                (self.groups.entry(of_groups).or_default(), many)
            }
            false if managed => (self.hosts.entry((actor, victim, port)).or_default(), false),
            _ => return false,
        };
        let learning = r.emitted.saturating_sub(began) < nanoseconds(limits.detect.learning);
        let was_known = habit.known;
        let is_new = habit.note(r.emitted, expected || learning || self.records < LEAST_RECORDS);
        if grouped && habit.known && !was_known {
            sides.into_iter().for_each(|side| *self.peers.entry(side).or_default() += 1);
        }
        if !is_new {
            return false;
        }
        self.tell(book, limits, r)
    }

    fn tell(&mut self, book: &mut Book, limits: &Limits, r: &FlowRecord) -> bool {
        let (actor, victim) = (Host::source(&r.tuple), Host::destination(&r.tuple));
        let Some(threshold) = limits.of(AlertKind::NewRelationship, &actor, &victim) else { return false };
        let fan = self.new.get_or(actor, Fan::default);
        let target = fan::words(r.tuple.dst ^ u128::from(r.tuple.dst_port));
        let a_try = Try { time: r.start, target, flow_id: r.flow_id, failed: true };
        let met = fan.note(a_try, limits.slow_window, 64).failed as f64;
        if met < threshold {
            return false;
        }
        let key = Key { kind: AlertKind::NewRelationship, actor: Party::Host(actor), victim: Party::Many };
        let last = Sighting { host: Some(victim), level: met, failed: false, ..Sighting::of(r) };
        let bar = Bar { threshold, window: limits.window };
        note(book, key, bar, &last, Scene::from(r), Detail::default())
    }
}
