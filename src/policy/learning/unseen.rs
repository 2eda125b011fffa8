//! Connections that the consolidated policy does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::fold::{Foldable, folded};
use super::graph::{Graph, Known};
use super::learner::Learner;
use super::seen::{Answer, Seen};
use crate::policy::instant;

/// Flows that are named as evidence.
const EVIDENCE: usize = 5;

/// A connection never seen before, however often it has come since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    #[serde(flatten)]
    pub connection: Connection,
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Groups whose policy does not know it.
    pub groups: BTreeSet<Arc<str>>,
    pub flows: u64,
    /// Of the flows, how many were let through and answered, and how many were refused.
    pub answered: u64,
    pub denied: u64,
    /// Flows that a detector named.
    pub attack: u64,
    #[serde(with = "instant")]
    pub first: u64,
    #[serde(with = "instant")]
    pub last: u64,
    pub max_score: Option<f64>,
    /// Some VMs and addresses of both ends.
    pub clients: BTreeSet<Arc<str>>,
    pub servers: BTreeSet<Arc<str>>,
    pub flow_ids: Vec<u64>,
}

/// Gathers what graphs do not cover, one item a connection, up to a limit.
#[derive(Clone, Debug)]
pub struct Unseen {
    known: BTreeMap<Arc<str>, Known>,
    /// To name connections as the graphs do.
    namer: Learner,
    found: BTreeMap<Connection, Evidence>,
    limit: usize,
    /// Flows of connections beyond the limit.
    pub overflow: u64,
    /// Flows that were looked at, and that the graphs cover.
    pub flows: u64,
    pub covered: u64,
}

impl Unseen {
    /// `namer` has the groups and sizes that the graphs were learnt with.
    pub fn new(graphs: &[Graph], namer: Learner, limit: usize) -> Self {
        let known = graphs.iter().map(|graph| (graph.group.clone(), graph.known())).collect();
        Self { known, namer, found: BTreeMap::new(), limit, overflow: 0, flows: 0, covered: 0 }
    }

    /// Of policies that are known as connections.
    pub fn of(known: impl IntoIterator<Item = (Arc<str>, Vec<Connection>)>, namer: Learner, limit: usize) -> Self {
        let known = known.into_iter().map(|(group, all)| (group, Known::of(all.into_iter()))).collect();
        Self { known, namer, found: BTreeMap::new(), limit, overflow: 0, flows: 0, covered: 0 }
    }

    /// Takes over what another has found and this one does not know.
    pub fn take_over(&mut self, items: impl IntoIterator<Item = Item>) {
        for Item { connection, mut evidence } in items {
            evidence.groups.retain(|group| self.known.get(group).is_some_and(|known| !known.covers(&connection)));
            if !evidence.groups.is_empty() && self.found.len() < self.limit {
                self.found.entry(connection).or_default().merge(evidence);
            }
        }
    }

    /// Everything found, before anything is put together.
    pub fn found(&self) -> impl Iterator<Item = Item> {
        let item = |(connection, evidence): (&Connection, &Evidence)| Item {
            connection: connection.clone(),
            evidence: evidence.clone(),
        };
        self.found.iter().map(item)
    }

    /// Forgets what some connections cover.
    pub fn forget<'c>(&mut self, connections: impl Iterator<Item = &'c Connection>) {
        let answered = Known::of(connections.cloned());
        self.found.retain(|connection, _| !answered.covers(connection));
    }

    /// Forgets what was last seen before a time.
    pub fn forget_before(&mut self, time: u64) {
        self.found.retain(|_, evidence| evidence.last >= time);
    }

    pub fn observe(&mut self, seen: &Seen) {
        let groups = self.namer.groups_of(seen);
        if groups.is_empty() {
            return;
        }
        self.flows += 1;
        let mut unknown: BTreeMap<Connection, BTreeSet<Arc<str>>> = BTreeMap::new();
        for group in groups {
            let connection = self.namer.connection(seen, &group);
            if self.known.get(&group).is_some_and(|known| !known.covers(&connection)) {
                unknown.entry(connection).or_default().insert(group);
            }
        }
        self.covered += u64::from(unknown.is_empty());
        for (connection, groups) in unknown {
            if self.found.len() >= self.limit && !self.found.contains_key(&connection) {
                self.overflow += 1;
            } else {
                self.found.entry(connection).or_default().merge(Evidence::of(seen, groups));
            }
        }
    }

    /// Most telling first: what was answered, of many flows. Peers without number and ports that are chosen anew are one
    /// item, as in graphs.
    pub fn into_items(self) -> Vec<Item> {
        let items = folded(self.found).into_iter().map(|(connection, evidence)| Item { connection, evidence });
        let mut items: Vec<Item> = items.collect();
        items.sort_by_key(|item| std::cmp::Reverse((item.evidence.answered, item.evidence.flows)));
        items
    }
}

impl Item {
    /// Detectors named half of its flows or more: that is told as an alert.
    pub fn is_attack(&self) -> bool {
        2 * self.evidence.attack >= self.evidence.flows
    }
}

impl Evidence {
    fn of(seen: &Seen, groups: BTreeSet<Arc<str>>) -> Self {
        Self {
            groups,
            flows: 1,
            answered: u64::from(seen.answer == Answer::Answered),
            denied: u64::from(seen.answer == Answer::Denied),
            attack: u64::from(seen.attack),
            first: seen.start,
            last: seen.end,
            max_score: seen.score,
            clients: BTreeSet::from([seen.from.name()]),
            servers: BTreeSet::from([seen.to.name()]),
            flow_ids: vec![seen.flow_id],
        }
    }
}

impl Foldable for Evidence {
    fn flows(&self) -> u64 {
        self.flows
    }

    fn merge(&mut self, other: Self) {
        self.first = if self.flows == 0 { other.first } else { self.first.min(other.first) };
        self.last = self.last.max(other.last);
        self.flows += other.flows;
        self.answered += other.answered;
        self.denied += other.denied;
        self.attack += other.attack;
        self.max_score = [self.max_score, other.max_score].into_iter().flatten().reduce(f64::max);
        self.groups.extend(other.groups);
        for (names, others) in [(&mut self.clients, other.clients), (&mut self.servers, other.servers)] {
            names.extend(others);
            while names.len() > EVIDENCE {
                names.pop_last();
            }
        }
        self.flow_ids.extend(other.flow_ids);
        self.flow_ids.truncate(EVIDENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::learning::learner::tests::{place, seen};
    use crate::policy::learning::{Place, Settings};

    fn learner() -> Learner {
        Learner::new(Settings::default(), &["web".into()], Default::default())
    }

    fn web() -> Place {
        place("10.0.0.1", &["web"])
    }

    #[test]
    fn unseen_connections_are_one_item_each() {
        let mut learning = learner();
        learning.observe(&seen(web(), place("10.0.1.1", &["app"]), 8080, 1), false);
        let mut inbox = Unseen::new(&learning.finish(), learner(), 2);
        inbox.observe(&seen(web(), place("10.0.1.2", &["app"]), 8080, 2));
        for day in 2..9 {
            let flow = seen(web(), place("10.0.1.1", &["app"]), 22, day);
            inbox.observe(&Seen { flow_id: day, score: Some(0.1 * day as f64), ..flow });
        }
        inbox.observe(&Seen { answer: Answer::Denied, ..seen(web(), place("10.0.1.1", &["app"]), 23, 9) });
        inbox.observe(&seen(web(), place("10.0.1.1", &["app"]), 24, 9));
        // Of no group that was learnt.
        inbox.observe(&seen(place("10.0.1.1", &["app"]), place("10.0.2.1", &["db"]), 24, 9));
        assert_eq!((inbox.flows, inbox.covered, inbox.overflow), (10, 1, 1));
        let items = inbox.into_items();
        let brief: Vec<(String, u64, u64)> =
            items.iter().map(|i| (i.connection.to_string(), i.evidence.flows, i.evidence.denied)).collect();
        assert_eq!(brief, [("web > app tcp 22".to_owned(), 7, 0), ("web > app tcp 23".to_owned(), 1, 1)]);
        assert_eq!(
            (items[0].evidence.flow_ids.len(), items[0].evidence.flow_ids[0], items[0].evidence.max_score),
            (5, 2, Some(0.8))
        );
        assert_eq!(items[0].evidence.clients.iter().map(|c| &**c).collect::<Vec<_>>(), ["vm-10.0.0.1"]);
    }
}
