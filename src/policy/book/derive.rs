//! The book as groups and rules of the data path, brought up to date part by part.
//!
//! | thing | rules | tier |
//! | --- | --- | --- |
//! | relationship | itself | its own |
//! | override | `override/ID/from`, `override/ID/to` | override |
//! | learned policy | `learned/GROUP/…` one a connection, two that deny the rest | learned |
//! | profile | `mirrored/NAME/…` one a connection that is kept, two that deny the rest | learned |
//!
//! A group keeps its position for as long as it lives, so that a change of rules alone leaves all groups as they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use super::noun::{Direction, Kind, Learned, Noun, Override, Pending, Profile};
use super::parsed::Parsed;
use super::text::{Address, End};
use super::{Book, Entry, Name};
use crate::packet::Mac;
use crate::policy::learning::{self, Connection, Endpoint};
use crate::rules::{Action, Decision, Group, GroupIx, Match, Mode, Policy, Rule, RuleChange, Selector, Tier};

/// Learned rules all allow, so their order does not matter. What somebody denied comes behind them: an answer about
/// strangers must not cut off who is known.
const PRIORITY: u32 = 1000;
const DENIED: u32 = 2000;
/// What is not learnt is denied behind everything learnt.
const LAST: u32 = u32::MAX;

/// Who a rule is from.
pub type Origin = Name;

/// See the top.
#[derive(Clone, Debug, Default)]
pub struct Derived {
    groups: Vec<Group>,
    positions: HashMap<Arc<str>, u16>,
    free: Vec<u16>,
    rules: BTreeMap<Arc<str>, (Rule, Origin)>,
    made_by: HashMap<Name, Vec<Arc<str>>>,
}

/// What became different.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Groups that have other members now, or are new or gone.
    pub groups: BTreeSet<GroupIx>,
    pub rules: Vec<RuleChange>,
    /// Everything may be different.
    pub whole: bool,
}

impl Delta {
    /// Everything may be different.
    pub fn whole() -> Self {
        Self { whole: true, ..Self::default() }
    }
}

impl Derived {
    /// The groups that a change is about, as they are now.
    pub fn groups_of(&self, delta: &Delta) -> Vec<(GroupIx, Group)> {
        let group = |at: &GroupIx| Some((*at, self.groups.get(usize::from(at.0))?.clone()));
        delta.groups.iter().filter_map(group).collect()
    }

    /// Of a whole book.
    pub fn of(book: &Book) -> Self {
        let mut derived = Self::default();
        let all: BTreeSet<Name> = Kind::ALL
            .into_iter()
            .flat_map(|kind| book.list(kind, None))
            .map(|entry| entry.name())
            .filter(|name| name.kind != Kind::Vm)
            .collect();
        derived.update(book, &all);
        derived
    }

    /// Brings everything up to date that depends on things which have changed, as [`touched`] tells.
    pub fn update(&mut self, book: &Book, touched: &BTreeSet<Name>) -> Delta {
        let mut delta = Delta::default();
        // Groups have their positions before any rule asks for one.
        for name in touched.iter().filter(|name| name.kind == Kind::Group) {
            self.update_group(book, &name.name, &mut delta);
        }
        for name in touched.iter().filter(|name| !matches!(name.kind, Kind::Vm | Kind::Group)) {
            self.update_rules(book, name, &mut delta);
        }
        delta
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub fn position(&self, group: &str) -> Option<GroupIx> {
        self.positions.get(group).map(|at| GroupIx(*at))
    }

    /// Addresses of each group: the smaller of two groups is the better name for what is in both.
    pub fn sizes(&self) -> BTreeMap<Arc<str>, usize> {
        let size = |name: &Arc<str>, at: u16| (name.clone(), self.groups[usize::from(at)].size());
        self.positions.iter().map(|(name, at)| size(name, *at)).collect()
    }

    /// Rules by id, with what they are from.
    pub fn rules(&self) -> &BTreeMap<Arc<str>, (Rule, Origin)> {
        &self.rules
    }

    /// For the compiler, without mirror sessions.
    pub fn policy(&self, default: Decision) -> Policy {
        let rules = self.rules.values().map(|(rule, _)| rule.clone()).collect();
        Policy { groups: self.groups.clone(), rules, mirrors: Vec::new(), default }
    }

    fn update_group(&mut self, book: &Book, name: &Arc<str>, delta: &mut Delta) {
        let position = match (self.positions.get(name), book.get(Kind::Group, name)) {
            (None, None) => return,
            (Some(at), None) => {
                let at = *at;
                self.positions.remove(name);
                self.free.push(at);
                self.groups[usize::from(at)] = nobody(at);
                delta.groups.insert(GroupIx(at));
                return;
            }
            (Some(at), Some(_)) => *at,
            (None, Some(_)) => self.place(name),
        };
        if let Some(entry) = book.get(Kind::Group, name) {
            let next = group(book, entry);
            let group = &mut self.groups[usize::from(position)];
            if *group != next {
                *group = next;
                delta.groups.insert(GroupIx(position));
            }
        }
    }

    fn place(&mut self, name: &Arc<str>) -> u16 {
        let at = self.free.pop().unwrap_or_else(|| {
            // The book of nouns is bounded by what the compiler takes, which says so with a better message.
            let at = u16::try_from(self.groups.len()).unwrap_or(u16::MAX);
            self.groups.push(nobody(at));
            at
        });
        self.positions.insert(name.clone(), at);
        at
    }

    fn update_rules(&mut self, book: &Book, name: &Name, delta: &mut Delta) {
        let mut made = book.get(name.kind, &name.name).map(|entry| self.make(book, entry)).unwrap_or_default();
        // Two connections of a source may be one of the target.
        let mut seen = BTreeSet::new();
        made.retain(|rule| seen.insert(rule.id.clone()));
        let ids: Vec<Arc<str>> = made.iter().map(|rule| rule.id.as_str().into()).collect();
        for gone in self.made_by.remove(name).into_iter().flatten().filter(|id| !ids.contains(id)) {
            self.rules.remove(&gone);
            delta.rules.push(RuleChange::Remove(gone.to_string()));
        }
        for (id, rule) in ids.iter().zip(made) {
            if self.rules.get(id).is_none_or(|(old, _)| *old != rule) {
                delta.rules.push(RuleChange::Put(rule.clone()));
                self.rules.insert(id.clone(), (rule, name.clone()));
            }
        }
        if !ids.is_empty() {
            self.made_by.insert(name.clone(), ids);
        }
    }

    fn make(&self, book: &Book, entry: &Entry) -> Vec<Rule> {
        match (&entry.noun, &entry.parsed) {
            (Noun::Relationship(it), Parsed::Rule { from, to, matches }) => {
                let matches = Match { from: self.selectors(from), to: self.selectors(to), ..matches.clone() };
                let stateful = it.action == Action::Allow && it.stateful.unwrap_or(true);
                let (tier, priority, mode, action) = (it.tier, it.priority, it.mode, it.action);
                vec![Rule { id: it.id.clone(), tier, priority, mode, action, stateful, matches }]
            }
            (Noun::Override(it), Parsed::Override { peer, matches }) => self.exceptions(book, it, peer, matches),
            (Noun::Learned(it), _) => self.learned(book, it),
            (Noun::Profile(it), _) => self.mirrored(book, it),
            _ => Vec::new(),
        }
    }

    fn exceptions(&self, book: &Book, it: &Override, peer: &[End], matches: &Match) -> Vec<Rule> {
        let own: Vec<Selector> = addresses(book, &it.vm).filter_map(net_of).map(Selector::Net).collect();
        // A VM without an address would be everybody.
        if own.is_empty() {
            return Vec::new();
        }
        let peer = self.selectors(peer);
        let rule = |way: &str, from: &[Selector], to: &[Selector]| Rule {
            id: format!("override/{}/{way}", it.id),
            tier: Tier::Override,
            priority: it.priority,
            mode: Mode::Enforce,
            action: it.action,
            stateful: it.action == Action::Allow,
            matches: Match { from: from.to_vec(), to: to.to_vec(), ..matches.clone() },
        };
        let mut rules = Vec::new();
        if it.direction != Direction::To {
            rules.push(rule("from", &own, &peer));
        }
        if it.direction != Direction::From {
            rules.push(rule("to", &peer, &own));
        }
        rules
    }

    fn learned(&self, book: &Book, it: &Learned) -> Vec<Rule> {
        let prefix = format!("learned/{}", it.group);
        let known = it.connections.iter();
        let mut rules: Vec<Rule> =
            known.filter_map(|known| self.connection(book, &prefix, &known.connection, known.allow)).collect();
        if it.enforce {
            rules.extend(self.rest(book, &prefix, &it.group));
        }
        rules
    }

    fn mirrored(&self, book: &Book, it: &Profile) -> Vec<Rule> {
        let prefix = format!("mirrored/{}", it.name);
        let plan = plan(book, it);
        let mut rules: Vec<Rule> =
            plan.kept.iter().filter_map(|kept| self.connection(book, &prefix, &kept.connection, true)).collect();
        rules.extend(self.rest(book, &prefix, &it.target));
        rules
    }

    fn connection(&self, book: &Book, prefix: &str, connection: &Connection, allow: bool) -> Option<Rule> {
        let Connection { from, to, service } = connection;
        let matches = Match {
            from: self.end(book, from)?,
            to: self.end(book, to)?,
            protocol: Some(service.protocol),
            to_ports: service.ports.map(|(first, last)| first..=last).into_iter().collect(),
            icmp: service.icmp_type.map(|kind| (kind, None)),
            ..Match::default()
        };
        Some(Rule {
            id: format!("{prefix}/{:012x}", connection.fingerprint() >> 16),
            tier: Tier::Learned,
            priority: if allow { PRIORITY } else { DENIED },
            mode: Mode::Enforce,
            action: if allow { Action::Allow } else { Action::Deny },
            stateful: allow,
            matches,
        })
    }

    /// Denies all else; while pending connections pass, it only counts what it would deny.
    fn rest(&self, book: &Book, prefix: &str, group: &str) -> Vec<Rule> {
        let Some(position) = self.position(group) else { return Vec::new() };
        let learning = book.group(group).and_then(|group| group.learning.as_ref());
        let waits = learning.is_some_and(|learning| learning.pending == Pending::Allow);
        let own = vec![Selector::Group(position)];
        let rule = |way: &str, from: Vec<Selector>, to: Vec<Selector>| Rule {
            id: format!("{prefix}/{way}"),
            tier: Tier::Learned,
            priority: LAST,
            mode: if waits { Mode::Shadow } else { Mode::Enforce },
            action: Action::Deny,
            stateful: false,
            matches: Match { from, to, ..Match::default() },
        };
        vec![rule("rest-in", Vec::new(), own.clone()), rule("rest-out", own, Vec::new())]
    }

    fn selectors(&self, ends: &[End]) -> Vec<Selector> {
        let selector = |end: &End| match end {
            End::Group(name) => self.position(name).map(Selector::Group),
            End::Net(net) => Some(Selector::Net(*net)),
        };
        ends.iter().filter_map(selector).collect()
    }

    /// `None` for what is not there any more: no selector at all would be everybody.
    fn end(&self, book: &Book, end: &Endpoint) -> Option<Vec<Selector>> {
        let selectors: Vec<Selector> = match end {
            Endpoint::Any => return Some(Vec::new()),
            Endpoint::Group(name) => self.position(name).map(Selector::Group).into_iter().collect(),
            Endpoint::Net(net) => vec![Selector::Net(*net)],
            Endpoint::Vm(vm) => addresses(book, vm).filter_map(net_of).map(Selector::Net).collect(),
        };
        (!selectors.is_empty()).then_some(selectors)
    }
}

/// What a profile comes to, with what is known of its source now.
pub fn plan(book: &Book, profile: &Profile) -> learning::Plan {
    let known = book.learned(&profile.source).map(|learned| &learned.connections[..]).unwrap_or_default();
    let allowed = known.iter().filter(|known| known.allow).map(|known| &known.connection);
    let (source, target) = (profile.source.clone(), profile.target.clone());
    learning::Profile { source, target, strength: profile.strength / 100.0, seed: profile.seed }.plan_of(allowed)
}

/// Things whose groups or rules depend on one that has changed from `before` to what the book has now.
pub fn touched(book: &Book, name: &Name, before: Option<&Entry>) -> BTreeSet<Name> {
    let mut touched = BTreeSet::from([name.clone()]);
    let users = |of: &Name, kinds: &[Kind]| -> Vec<Name> {
        book.users(of).filter(|user| kinds.contains(&user.kind)).cloned().collect()
    };
    let profiles = |source: &str| -> Vec<Name> {
        let profiles = users(&Name::new(Kind::Group, source), &[Kind::Profile]);
        let of_source = |name: &Name| match book.get(Kind::Profile, &name.name).map(|entry| &entry.noun) {
            Some(Noun::Profile(profile)) => profile.source == source,
            _ => false,
        };
        profiles.into_iter().filter(of_source).collect()
    };
    match name.kind {
        Kind::Vm => {
            let after = book.get(Kind::Vm, &name.name);
            for entry in before.into_iter().chain(after.map(|entry| &**entry)) {
                if let Noun::Vm(vm) = &entry.noun {
                    touched.extend(book.groups_of(vm).into_iter().map(|group| Name { kind: Kind::Group, name: group }));
                }
            }
            touched.extend(users(name, &[Kind::Override, Kind::Learned]));
            let learned: Vec<Name> = touched.iter().filter(|name| name.kind == Kind::Learned).cloned().collect();
            learned.iter().for_each(|learned| touched.extend(profiles(&learned.name)));
        }
        // What becomes of pending connections, and rules of groups that came back.
        Kind::Group => touched.extend(users(name, &[Kind::Learned, Kind::Profile])),
        Kind::Learned => touched.extend(profiles(&name.name)),
        Kind::Relationship | Kind::Profile | Kind::Override => {}
    }
    touched
}

/// In the place of a group that is gone.
fn nobody(at: u16) -> Group {
    Group { name: format!("(none {at})"), ..Group::default() }
}

fn group(book: &Book, entry: &Entry) -> Group {
    let (Noun::Group(it), Parsed::Group { nets, macs }) = (&entry.noun, &entry.parsed) else { return Group::default() };
    let mut all_nets: BTreeSet<IpNet> = nets.iter().copied().collect();
    let mut all_macs: BTreeSet<[u8; 6]> = macs.iter().map(|mac| mac.0).collect();
    for vm in book.members(it) {
        for address in addresses(book, &vm) {
            match address {
                Address::Ip(ip) => drop(all_nets.insert(IpNet::from(ip))),
                Address::Mac(mac) => drop(all_macs.insert(mac)),
            }
        }
    }
    let (mut vlans, mut vnis) = (it.vlans.clone(), it.vnis.clone());
    vlans.sort_unstable();
    vlans.dedup();
    vnis.sort_unstable();
    vnis.dedup();
    let (nets, macs) = (all_nets.into_iter().collect(), all_macs.into_iter().map(Mac).collect());
    Group { name: it.name.clone(), nets, macs, vlans, vnis }
}

fn addresses<'b>(book: &'b Book, vm: &str) -> impl Iterator<Item = Address> + use<'b> {
    let found = match book.get(Kind::Vm, vm).map(|entry| &entry.parsed) {
        Some(Parsed::Vm(addresses)) => &addresses[..],
        _ => &[],
    };
    found.iter().copied()
}

fn net_of(address: Address) -> Option<IpNet> {
    match address {
        Address::Ip(ip) => Some(IpNet::from(ip)),
        Address::Mac(_) => None,
    }
}
