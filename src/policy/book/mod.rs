//! All that a policy is made of, whole and without contradiction.
//!
//! In: [`Change`]s. Out: things by kind and name, who is in which group, and through [`Derived`] the rules that all of
//! it comes to. Pure: no thread, clock or file. A change that would leave something wrong (a name that is not there, an
//! address given twice) is refused with all reasons, and nothing has changed then; undoing is putting back what was
//! there before.
//!
//! ```text
//! Change ─► parsed (words → meaning) ─► Book: shelves by kind, indexes by tag, address, use
//!                                         │  └─► conflict: what a new rule quarrels with
//!                                         └─► Derived: groups and rules of rules::Policy, part by part
//! ```

mod conflict;
mod derive;
pub mod files;
mod noun;
mod parsed;
mod text;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use conflict::{Conflict, Quarrel};
pub use derive::{Delta, Derived, Origin, plan, touched};
pub use noun::{
    Direction, Group, Kind, Known, Learned, Learning, LearningState, Noun, Override, Pending, Profile, Relationship, Vm,
};
pub use parsed::Fault;
pub use text::{Address, Words};

use parsed::Parsed;
use text::End;

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(clippy::large_enum_variant, reason = "nearly all of them are put")]
pub enum Change {
    /// A new thing, or another in the place of the one with its name.
    Put(Noun),
    Remove(Name),
}

/// Which thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Name {
    pub kind: Kind,
    #[schema(value_type = String)]
    pub name: Arc<str>,
}

/// Why a change cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("{kind} `{name}` cannot be: {}", listed(faults))]
    Invalid { kind: Kind, name: String, faults: Vec<Fault> },
    #[error("there is no {kind} `{name}`{}", near(nearest))]
    Missing { kind: Kind, name: String, nearest: Option<String> },
    #[error("{kind} `{name}` is used by {}: change or remove that first", used(users))]
    InUse { kind: Kind, name: String, users: Vec<Name> },
    #[error("{}", quarrels.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Conflict { quarrels: Vec<Conflict> },
}

fn listed(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect::<Vec<_>>().join("; ")
}

fn near(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn used(users: &[Name]) -> String {
    let named = users.iter().take(3).map(|user| format!("{} `{}`", user.kind, user.name));
    let more = users.len().saturating_sub(3);
    let mut text = named.collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}

/// A thing in the book, with what it comes to.
#[derive(Debug, PartialEq)]
pub struct Entry {
    pub noun: Noun,
    parsed: Parsed,
}

/// See the top.
#[derive(Clone, Debug, Default)]
pub struct Book {
    shelves: [BTreeMap<Arc<str>, Arc<Entry>>; Kind::ALL.len()],
    by_address: HashMap<Address, Arc<str>>,
    /// Tag → VMs that carry it, and groups that ask for it.
    carriers: HashMap<String, BTreeSet<Arc<str>>>,
    pickers: HashMap<String, BTreeSet<Arc<str>>>,
    /// Whom others refer to.
    users: HashMap<Name, BTreeSet<Name>>,
}

impl Book {
    /// Makes a change; returns what was there before, for [`Book::put_back`].
    ///
    /// # Errors
    /// It cannot be; nothing has changed then.
    pub fn apply(&mut self, change: &Change) -> Result<Option<Arc<Entry>>, Refusal> {
        match change {
            Change::Put(noun) => self.put(noun.clone()),
            Change::Remove(name) => self.remove(name).map(Some),
        }
    }

    /// Undoes the last change, of this thing.
    pub fn put_back(&mut self, name: &Name, before: Option<Arc<Entry>>) {
        self.unshelve(name);
        if let Some(entry) = before {
            self.shelve(entry);
        }
    }

    pub fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Entry>> {
        self.shelves[kind as usize].get(name)
    }

    /// # Errors
    /// There is none of that name.
    pub fn find(&self, kind: Kind, name: &str) -> Result<&Arc<Entry>, Refusal> {
        self.get(kind, name).ok_or_else(|| self.missing(kind, name))
    }

    /// In the order of names, those after a name.
    pub fn list(&self, kind: Kind, after: Option<&str>) -> impl Iterator<Item = &Arc<Entry>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.shelves[kind as usize].range::<str, _>((from, Bound::Unbounded)).map(|(_, entry)| entry)
    }

    pub fn count(&self, kind: Kind) -> usize {
        self.shelves[kind as usize].len()
    }

    /// Everything, in an order in which it can be put into an empty book.
    pub fn nouns(&self) -> impl Iterator<Item = &Noun> {
        Kind::ALL.into_iter().flat_map(|kind| self.list(kind, None)).map(|entry| &entry.noun)
    }

    /// Tags with the VMs that carry them.
    pub fn tags(&self) -> impl Iterator<Item = (&str, usize)> {
        self.carriers.iter().map(|(tag, vms)| (tag.as_str(), vms.len()))
    }

    /// Who has an address.
    pub fn owner(&self, address: Address) -> Option<&Arc<str>> {
        self.by_address.get(&address)
    }

    /// VMs of a group, by its tags and by id.
    pub fn members(&self, group: &Group) -> BTreeSet<Arc<str>> {
        let mut carriers: Vec<Option<&BTreeSet<Arc<str>>>> =
            group.tags.iter().map(|tag| self.carriers.get(tag)).collect();
        carriers.sort_by_key(|vms| vms.map_or(0, BTreeSet::len));
        let mut members = BTreeSet::new();
        if let Some((Some(fewest), others)) = carriers.split_first() {
            let all = |vm: &&Arc<str>| others.iter().all(|vms| vms.is_some_and(|vms| vms.contains(*vm)));
            members.extend(fewest.iter().filter(all).cloned());
        }
        members.extend(group.vms.iter().map(|vm| Arc::from(vm.as_str())));
        members
    }

    /// Groups that a VM is in.
    pub fn groups_of(&self, vm: &Vm) -> BTreeSet<Arc<str>> {
        let picking = vm.tags.iter().filter_map(|tag| self.pickers.get(tag)).flatten();
        let picked = picking.filter(|name| self.group(name).is_some_and(|group| group.tags.is_subset(&vm.tags)));
        let mut groups: BTreeSet<Arc<str>> = picked.cloned().collect();
        let users = self.users.get(&Name { kind: Kind::Vm, name: vm.id.as_str().into() });
        let listing = users.into_iter().flatten().filter(|user| user.kind == Kind::Group);
        groups.extend(listing.map(|user| user.name.clone()));
        groups
    }

    pub fn group(&self, name: &str) -> Option<&Group> {
        match &self.get(Kind::Group, name)?.noun {
            Noun::Group(group) => Some(group),
            _ => None,
        }
    }

    pub fn vm(&self, id: &str) -> Option<&Vm> {
        match &self.get(Kind::Vm, id)?.noun {
            Noun::Vm(vm) => Some(vm),
            _ => None,
        }
    }

    pub fn learned(&self, group: &str) -> Option<&Learned> {
        match &self.get(Kind::Learned, group)?.noun {
            Noun::Learned(learned) => Some(learned),
            _ => None,
        }
    }

    /// Who refers to a thing.
    pub fn users(&self, name: &Name) -> impl Iterator<Item = &Name> {
        self.users.get(name).into_iter().flatten()
    }

    fn put(&mut self, noun: Noun) -> Result<Option<Arc<Entry>>, Refusal> {
        let (kind, name) = (noun.kind(), Name { kind: noun.kind(), name: noun.name().into() });
        let invalid = |faults| Refusal::Invalid { kind, name: name.name.to_string(), faults };
        let parsed = parsed::parse(&noun).map_err(invalid)?;
        if let Parsed::Vm(addresses) = &parsed {
            self.check_addresses(&name.name, addresses).map_err(invalid)?;
        }
        let entry = Arc::new(Entry { noun, parsed });
        for needed in references(&entry) {
            if self.get(needed.kind, &needed.name).is_none() {
                return Err(self.missing(needed.kind, &needed.name));
            }
        }
        if let Noun::Override(it) = &entry.noun
            && !self.has_ip(&it.vm)
        {
            let message = format!("VM `{}` has no IP address, so the override would do nothing", it.vm);
            return Err(invalid(vec![Fault { field: "vm".to_owned(), message }]));
        }
        let before = self.unshelve(&name);
        self.shelve(entry);
        Ok(before)
    }

    fn has_ip(&self, vm: &str) -> bool {
        let addresses = self.get(Kind::Vm, vm).map(|entry| &entry.parsed);
        matches!(addresses, Some(Parsed::Vm(all)) if all.iter().any(|address| matches!(address, Address::Ip(_))))
    }

    fn check_addresses(&self, vm: &str, addresses: &[Address]) -> Result<(), Vec<Fault>> {
        let taken = addresses.iter().filter_map(|address| {
            let owner = self.by_address.get(address).filter(|owner| ***owner != *vm)?;
            let message = format!("{address} belongs to VM `{owner}`");
            Some(Fault { field: "addresses".to_owned(), message })
        });
        let faults: Vec<Fault> = taken.collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn remove(&mut self, name: &Name) -> Result<Arc<Entry>, Refusal> {
        let users: Vec<Name> = self.users(name).cloned().collect();
        if !users.is_empty() {
            return Err(Refusal::InUse { kind: name.kind, name: name.name.to_string(), users });
        }
        self.unshelve(name).ok_or_else(|| self.missing(name.kind, &name.name))
    }

    fn missing(&self, kind: Kind, name: &str) -> Refusal {
        let known = self.shelves[kind as usize].keys();
        let distance = |known: &&Arc<str>| strsim::damerau_levenshtein(known, name);
        let nearest = known.take(10_000).min_by_key(distance).filter(|known| distance(known) <= 2);
        Refusal::Missing { kind, name: name.to_owned(), nearest: nearest.map(ToString::to_string) }
    }

    fn shelve(&mut self, entry: Arc<Entry>) {
        let name = entry.name();
        for needed in references(&entry) {
            self.users.entry(needed).or_default().insert(name.clone());
        }
        match (&entry.noun, &entry.parsed) {
            (Noun::Vm(vm), Parsed::Vm(addresses)) => {
                self.by_address.extend(addresses.iter().map(|address| (*address, name.name.clone())));
                for tag in &vm.tags {
                    self.carriers.entry(tag.clone()).or_default().insert(name.name.clone());
                }
            }
            (Noun::Group(group), _) => {
                for tag in &group.tags {
                    self.pickers.entry(tag.clone()).or_default().insert(name.name.clone());
                }
            }
            _ => {}
        }
        self.shelves[name.kind as usize].insert(name.name, entry);
    }

    fn unshelve(&mut self, name: &Name) -> Option<Arc<Entry>> {
        let entry = self.shelves[name.kind as usize].remove(&name.name)?;
        for needed in references(&entry) {
            drop_from(&mut self.users, &needed, name);
        }
        match (&entry.noun, &entry.parsed) {
            (Noun::Vm(vm), Parsed::Vm(addresses)) => {
                addresses.iter().for_each(|address| drop(self.by_address.remove(address)));
                vm.tags.iter().for_each(|tag| drop_from(&mut self.carriers, tag, &name.name));
            }
            (Noun::Group(group), _) => {
                group.tags.iter().for_each(|tag| drop_from(&mut self.pickers, tag, &name.name));
            }
            _ => {}
        }
        Some(entry)
    }
}

fn drop_from<K: std::hash::Hash + Eq, V: Ord>(index: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}

impl Entry {
    pub fn name(&self) -> Name {
        Name { kind: self.noun.kind(), name: self.noun.name().into() }
    }
}

impl Name {
    pub fn new(kind: Kind, name: &str) -> Self {
        Self { kind, name: name.into() }
    }
}

impl Change {
    /// What it is about.
    pub fn name(&self) -> Name {
        match self {
            Self::Put(noun) => Name { kind: noun.kind(), name: noun.name().into() },
            Self::Remove(name) => name.clone(),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Mac(mac) => crate::packet::Mac(*mac).fmt(f),
        }
    }
}

/// What must be there for a thing to be.
fn references(entry: &Entry) -> BTreeSet<Name> {
    let group = |name: &str| Name::new(Kind::Group, name);
    let ends = |ends: &[End]| -> Vec<Name> {
        let named = ends.iter().filter_map(|end| match end {
            End::Group(name) => Some(group(name)),
            End::Net(_) => None,
        });
        named.collect()
    };
    match (&entry.noun, &entry.parsed) {
        (Noun::Group(it), _) => it.vms.iter().map(|vm| Name::new(Kind::Vm, vm)).collect(),
        (_, Parsed::Rule { from, to, .. }) => ends(from).into_iter().chain(ends(to)).collect(),
        (Noun::Override(it), Parsed::Override { peer, .. }) => {
            ends(peer).into_iter().chain([Name::new(Kind::Vm, &it.vm)]).collect()
        }
        (Noun::Profile(it), _) => [group(&it.source), group(&it.target)].into(),
        (Noun::Learned(it), _) => {
            let both = it.connections.iter().flat_map(|known| [&known.connection.from, &known.connection.to]);
            let named = both.filter_map(|end| match end {
                crate::policy::learning::Endpoint::Group(name) => Some(group(name)),
                crate::policy::learning::Endpoint::Vm(name) => Some(Name::new(Kind::Vm, name)),
                _ => None,
            });
            named.chain([group(&it.group)]).collect()
        }
        _ => BTreeSet::new(),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
