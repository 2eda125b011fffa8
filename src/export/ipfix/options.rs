//! Options records: names behind the numbers in flow records, sampling, types of the own elements, statistics.
//!
//! A name is sent before the first flow record that refers to it, and again with each refresh. Only what records have
//! referred to is sent, so a policy of many rules costs nothing until they decide something.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::element::{OWN, VARIABLE};
use super::record::{COLUMNS, FIRST_TEMPLATE, SHAPES};
use super::template::{self, OptionsTemplate, own_number};
use super::wire::Put;
use crate::behaviour::ScoredRecord;
use crate::export::Names;
use crate::flow::FlowRecord;
use crate::mirror::Sample;

/// Names and settings behind the numbers in records, for a thread of its own.
pub trait Directory: Names + Send + Sync {
    /// All mirror sessions so far; positions never change.
    fn sessions(&self) -> Vec<SessionInfo>;
}

/// A mirror session as a collector needs to know it.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionInfo {
    pub name: Arc<str>,
    pub sample: Sample,
    pub priority: u32,
}

/// What a collector was told so far.
#[derive(Debug, Default)]
pub struct Dictionary {
    rules: BTreeSet<u32>,
    groups: BTreeSet<u32>,
    /// Names of mirror sessions, joined → number.
    mirror_sets: BTreeMap<String, u32>,
    /// Generation and bits → number in `mirror_sets`.
    known_mirrors: HashMap<(u32, u64), u32>,
}

/// An options record: the number of its template, and its bytes.
pub type OptionsRecord = (u16, Vec<u8>);

const MAX_KNOWN_MIRRORS: usize = 4096;

/// Counters that are told to the collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub messages: u64,
    pub records: u64,
    pub octets: u64,
    pub not_sent: [u64; 3],
}

impl Dictionary {
    /// Options records for whatever `scored` refers to that was not told yet, and the number of its mirror set. No
    /// record is longer than `room`.
    pub fn introduce(
        &mut self,
        scored: &ScoredRecord,
        names: &dyn Directory,
        room: usize,
        tell: &mut Vec<OptionsRecord>,
    ) -> u32 {
        let r = &scored.record;
        if r.rule.0 != 0 && self.rules.insert(r.rule.0) {
            tell.push(rule(r.rule.0, names, room));
        }
        for set in [r.src_groups.0, r.dst_groups.0] {
            if set != 0 && self.groups.insert(set) {
                tell.push(group_set(set, names, room));
            }
        }
        if r.mirrors == 0 { 0 } else { self.mirror_set(r, names, room, tell) }
    }

    fn mirror_set(&mut self, r: &FlowRecord, names: &dyn Directory, room: usize, tell: &mut Vec<OptionsRecord>) -> u32 {
        if let Some(number) = self.known_mirrors.get(&(r.generation, r.mirrors)) {
            return *number;
        }
        let bits = (0..64).filter(|bit| r.mirrors & (1 << bit) != 0);
        let joined = bits.map(|bit| names.mirror(r.generation, bit)).collect::<Vec<_>>().join(",");
        let next = self.mirror_sets.len() as u32 + 1;
        let number = *self.mirror_sets.entry(joined.clone()).or_insert(next);
        if number == next {
            tell.push(named(&template::MIRROR_SET, number, &joined, room));
        }
        if self.known_mirrors.len() >= MAX_KNOWN_MIRRORS {
            self.known_mirrors.clear();
        }
        self.known_mirrors.insert((r.generation, r.mirrors), number);
        number
    }

    /// Everything that a collector which has just come up needs to know.
    pub fn everything(&self, names: &dyn Directory, enterprise: u32, domain: u32, room: usize) -> Vec<OptionsRecord> {
        let mut all = element_types(enterprise, room);
        all.extend(flow_keys());
        all.push(sampling(domain));
        let sessions = names.sessions();
        all.extend(sessions.iter().zip(1..).map(|(session, number)| mirror_session(number, session, room)));
        all.extend(self.rules.iter().map(|handle| rule(*handle, names, room)));
        all.extend(self.groups.iter().map(|set| group_set(*set, names, room)));
        let sets = self.mirror_sets.iter();
        all.extend(sets.map(|(joined, number)| named(&template::MIRROR_SET, *number, joined, room)));
        all
    }
}

/// What was sent and what was not.
pub fn statistics(s: &Statistics, domain: u32) -> [OptionsRecord; 2] {
    let mut exported = Vec::new();
    exported.put_u32(domain);
    exported.put_u64(s.messages);
    exported.put_u64(s.records);
    exported.put_u64(s.octets);
    let mut not_sent = Vec::new();
    not_sent.put_u32(std::process::id());
    s.not_sent.iter().for_each(|count| not_sent.put_u64(*count));
    [(template::EXPORTED.id, exported), (template::NOT_SENT.id, not_sent)]
}

/// Own elements describe themselves.
fn element_types(enterprise: u32, room: usize) -> Vec<OptionsRecord> {
    let reversed = |id: u16| COLUMNS.iter().any(|c| c.reverse && c.element.own && c.element.id == id);
    let mut all = Vec::new();
    for element in OWN {
        for reverse in [false, true].into_iter().filter(|reverse| !reverse || reversed(element.id)) {
            let mut bytes = Vec::new();
            bytes.put_u32(enterprise);
            bytes.put_u16(own_number(element, reverse));
            bytes.put_u8(element.kind as u8);
            bytes.put_u8(element.semantics as u8);
            bytes.put_u16(element.unit as u16);
            bytes.put_text(&name_of(element.name, reverse), room - bytes.len());
            bytes.put_text(element.meaning, room - bytes.len());
            all.push((template::ELEMENT_TYPE.id, bytes));
        }
    }
    all
}

/// RFC 5103, 6.1 names the reverse of an element like this.
pub fn name_of(name: &str, reverse: bool) -> String {
    let mut letters = name.chars();
    match letters.next() {
        Some(first) if reverse => format!("reverse{}{}", first.to_ascii_uppercase(), letters.as_str()),
        _ => name.to_owned(),
    }
}

fn flow_keys() -> impl Iterator<Item = OptionsRecord> {
    SHAPES.iter().enumerate().map(|(at, shape)| {
        let mut bytes = Vec::new();
        bytes.put_u16(FIRST_TEMPLATE + at as u16);
        bytes.put_u64(shape.key_bits());
        (template::FLOW_KEYS.id, bytes)
    })
}

fn sampling(domain: u32) -> OptionsRecord {
    /// Systematic count-based sampling (RFC 5477): one packet taken, none left out.
    const SYSTEMATIC: u16 = 1;
    let mut bytes = Vec::new();
    bytes.put_u32(domain);
    bytes.put_u16(SYSTEMATIC);
    bytes.put_u32(1);
    bytes.put_u32(0);
    (template::SAMPLING.id, bytes)
}

fn rule(handle: u32, names: &dyn Directory, room: usize) -> OptionsRecord {
    named(&template::RULE, handle, &names.rule(crate::rules::RuleHandle(handle)), room)
}

fn group_set(set: u32, names: &dyn Directory, room: usize) -> OptionsRecord {
    let joined = names.groups(crate::rules::GroupSetHandle(set)).join(",");
    named(&template::GROUP_SET, set, &joined, room)
}

fn named(template: &OptionsTemplate, number: u32, name: &str, room: usize) -> OptionsRecord {
    debug_assert!(template.elements.len() == 2 && template.elements[1].kind.length() == VARIABLE);
    let mut bytes = Vec::new();
    bytes.put_u32(number);
    bytes.put_text(name, room - bytes.len());
    (template.id, bytes)
}

fn mirror_session(number: u32, session: &SessionInfo, room: usize) -> OptionsRecord {
    let (interval, probability) = match session.sample {
        Sample::Packets(n) => (n, 1.0),
        Sample::Flows(share) => (0, share),
    };
    let mut bytes = Vec::new();
    bytes.put_u32(number);
    // Twenty bytes come after the name.
    bytes.put_text(&session.name, room - 24);
    bytes.put_u32(interval);
    bytes.put_f64(probability);
    bytes.put_u32(session.priority);
    (template::MIRROR_SESSION.id, bytes)
}
