//! VMs whose behaviour is that of another group.
//!
//! A VM does things: in a role, with peers of some groups, about a service. Of a group it is known which share of its
//! other VMs does each. The likeness of a VM and a group is the weighted Jaccard index of both; what everybody does (time,
//! names) weighs little, as it tells no groups apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::standing::Rulebook;
use super::traffic::{End, Traffic};
use super::vms::{Act, Habits};

/// A VM that behaves as those of another group do.
#[derive(Clone, Debug, PartialEq)]
pub struct Stranger {
    pub vm: Arc<str>,
    pub from: Vec<Arc<str>>,
    pub to: Arc<str>,
    /// Likeness to the group that it is in, and to the other one: 0..1.
    pub own: f64,
    pub other: f64,
    /// VMs of the other group that were compared.
    pub peers: usize,
    pub flows: u32,
    pub denied: u32,
    pub days: u32,
    pub evidence: Vec<u64>,
    pub(super) bit: u64,
}

/// Least likeness to the other group, and how much more than to the own.
const LIKE: f64 = 0.5;
const MORE: f64 = 0.2;
/// Least acts of a VM, and least flows.
const LEAST_ACTS: usize = 2;
const LEAST_FLOWS: u32 = 10;
/// VMs that are told at once.
const MOST: usize = 1000;

impl Stranger {
    /// Whether an end of a row is that of the group that the VM is in.
    pub(super) fn is_at(&self, end: &End) -> bool {
        end.net.is_none() && self.from.iter().all(|group| end.groups.contains(group))
    }
}

/// How many VMs of a group do each act.
#[derive(Debug, Default)]
struct Customs {
    vms: usize,
    acts: BTreeMap<Act, usize>,
}

/// All VMs that are more like another group than like their own, most so first.
pub(super) fn strangers(traffic: &Traffic, book: &Rulebook) -> Vec<Stranger> {
    let all = &traffic.vms.all;
    let mut customs: BTreeMap<&str, Customs> = BTreeMap::new();
    let mut doers: BTreeMap<Act, usize> = BTreeMap::new();
    for habits in all.values() {
        for group in &habits.groups {
            let customs = customs.entry(group).or_default();
            customs.vms += 1;
            habits.usual().for_each(|act| *customs.acts.entry(*act).or_default() += 1);
        }
        habits.usual().for_each(|act| *doers.entry(*act).or_default() += 1);
    }
    // As in the weights of words in documents: what all do says nothing.
    let weight = |act: &Act| (1.0 + all.len() as f64 / *doers.get(act).unwrap_or(&1) as f64).ln();
    // Only groups that have an act in common with a VM can be like it.
    let mut by_act: BTreeMap<Act, Vec<&str>> = BTreeMap::new();
    for (name, customs) in &customs {
        customs.acts.keys().for_each(|act| by_act.entry(*act).or_default().push(name));
    }
    let mut found: Vec<Stranger> = all
        .iter()
        .filter(|(_, habits)| habits.usual().count() >= LEAST_ACTS && habits.flows() >= LEAST_FLOWS)
        .filter_map(|(vm, habits)| stranger(vm, habits, &customs, &by_act, &weight, book))
        .collect();
    // The most telling ones are enough for a while.
    found.sort_by(|a, b| (b.other - b.own).total_cmp(&(a.other - a.own)).then(a.vm.cmp(&b.vm)));
    found.truncate(MOST);
    found
}

fn stranger(
    vm: &Arc<str>,
    habits: &Habits,
    customs: &BTreeMap<&str, Customs>,
    by_act: &BTreeMap<Act, Vec<&str>>,
    weight: &impl Fn(&Act) -> f64,
    book: &Rulebook,
) -> Option<Stranger> {
    let like =
        |name: &str, is_in: bool| customs.get(name).map_or(0.0, |customs| likeness(habits, customs, is_in, weight));
    let own = habits.groups.iter().map(|group| like(group, true)).fold(0.0, f64::max);
    let mut near: Vec<&str> = habits.usual().filter_map(|act| by_act.get(act)).flatten().copied().collect();
    near.sort_unstable();
    near.dedup();
    near.retain(|name| !habits.groups.iter().any(|group| **group == **name));
    // Groups that tags make: others have no VMs to be like.
    near.retain(|name| book.groups.get(*name).is_some_and(|members| !members.tags.is_empty()));
    let (other, to) =
        near.into_iter().map(|name| (like(name, false), name)).max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))?;
    if other < LIKE || other - own < MORE {
        return None;
    }
    let evidence = habits.acts.values().map(|count| count.evidence).filter(|id| *id != 0).take(super::tally::EVIDENCE);
    Some(Stranger {
        vm: vm.clone(),
        from: habits.groups.clone(),
        to: to.into(),
        own,
        other,
        peers: customs.get(to).map_or(0, |customs| customs.vms),
        flows: habits.flows(),
        denied: habits.acts.values().map(|count| count.denied).sum(),
        days: habits.acts.values().fold(0, |days, count| days | count.days).count_ones(),
        evidence: evidence.collect(),
        bit: Traffic::bit(vm),
    })
}

/// Of a VM, and of a group without it.
fn likeness(habits: &Habits, customs: &Customs, is_in: bool, weight: &impl Fn(&Act) -> f64) -> f64 {
    let others = customs.vms - usize::from(is_in);
    if others == 0 {
        // Alone in its group: it is what the group does.
        return if is_in { 1.0 } else { 0.0 };
    }
    let (mut both, mut either) = (0.0, 0.0);
    for (act, doers) in &customs.acts {
        let does = habits.is_usual(act);
        let share = (doers - usize::from(is_in && does)) as f64 / others as f64;
        both += if does { weight(act) * share } else { 0.0 };
        either += weight(act) * if does { 1.0 } else { share };
    }
    either += habits.usual().filter(|act| !customs.acts.contains_key(act)).map(weight).sum::<f64>();
    both / f64::max(either, f64::MIN_POSITIVE)
}

impl Habits {
    fn flows(&self) -> u32 {
        self.acts.values().map(|count| count.flows).fold(0, u32::saturating_add)
    }
}
