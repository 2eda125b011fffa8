//! What each VM does, to compare it with the VMs of each group.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::change::fingerprint;
use crate::policy::learning::{Seen, Service};

/// Acts that are kept of one VM; of more, those that came again.
const MOST: usize = 128;
/// What was done more rarely is no habit: strangers and scans do everything once.
const HABIT: u32 = 3;
/// VMs that are kept; of more, the first.
const MOST_VMS: usize = 200_000;

/// All VMs by name.
#[derive(Clone, Debug, Default)]
pub struct Vms {
    pub(super) all: BTreeMap<Arc<str>, Habits>,
}

/// A VM's groups and what it does with whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Habits {
    pub groups: Vec<Arc<str>>,
    pub acts: BTreeMap<Act, Count>,
    pub last: u64,
}

/// A side of a connection as it shows on one VM, without the VM itself: a number that stands for the role, the peer's
/// groups and the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Act(pub u64);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub flows: u32,
    pub denied: u32,
    /// As in [`Tally::days`](super::tally::Tally).
    pub days: u64,
    pub evidence: u64,
}

impl Act {
    /// `role`: 0 of a client, 1 of a server.
    pub(super) fn new(role: u8, peers: &[Arc<str>], service: &Service) -> Self {
        let mut groups: Vec<&str> = peers.iter().map(|group| &**group).collect();
        groups.sort_unstable();
        Self(fingerprint(&format!("{role} {} {service}", groups.join(","))))
    }
}

impl Vms {
    /// Attacks say nothing of what a VM is for.
    pub(super) fn observe(&mut self, seen: &Seen) {
        if seen.attack {
            return;
        }
        let denied = u32::from(seen.decision != crate::rules::Decision::Allow);
        let days = 1 << (seen.start / (86_400 * 1_000_000_000) % 64);
        let count = Count { flows: 1, denied, days, evidence: seen.flow_id };
        for (role, own, peer) in [(0, &seen.from, &seen.to), (1, &seen.to, &seen.from)] {
            let Some(vm) = &own.vm else { continue };
            if self.all.len() >= MOST_VMS && !self.all.contains_key(vm) {
                continue;
            }
            let habits = self.all.entry(vm.clone()).or_default();
            if seen.end >= habits.last {
                (habits.groups, habits.last) = (own.groups.clone(), seen.end);
            }
            habits.add(Act::new(role, &peer.groups, &seen.service), count);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (vm, theirs) in &other.all {
            let habits = self.all.entry(vm.clone()).or_default();
            if theirs.last >= habits.last {
                (habits.groups, habits.last) = (theirs.groups.clone(), theirs.last);
            }
            theirs.acts.iter().for_each(|(act, count)| habits.add(*act, *count));
        }
    }
}

impl Habits {
    fn add(&mut self, act: Act, count: Count) {
        if self.acts.len() >= MOST && !self.acts.contains_key(&act) {
            self.acts.retain(|_, count| count.flows >= HABIT);
            if self.acts.len() >= MOST {
                return;
            }
        }
        let own = self.acts.entry(act).or_default();
        own.flows = own.flows.saturating_add(count.flows);
        own.denied = own.denied.saturating_add(count.denied);
        own.days |= count.days;
        own.evidence = if own.evidence == 0 { count.evidence } else { own.evidence.min(count.evidence) };
    }

    /// What it does again and again.
    pub(super) fn usual(&self) -> impl Iterator<Item = &Act> {
        self.acts.iter().filter(|(_, count)| count.flows >= HABIT).map(|(act, _)| act)
    }

    pub(super) fn is_usual(&self, act: &Act) -> bool {
        self.acts.get(act).is_some_and(|count| count.flows >= HABIT)
    }
}
