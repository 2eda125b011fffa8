//! Connections that the consolidated policy does not know.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::connection::Connection;
use super::graph::{Graph, instant};
use super::learner::Learner;
use super::seen::{Answer, Seen};

/// Flows that are named as evidence.
const EVIDENCE: usize = 5;

/// A connection never seen before, however often it has come since.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    pub group: Arc<str>,
    #[serde(flatten)]
    pub connection: Connection,
    pub flows: u64,
    /// Of the flows, how many were let through and answered, and how many were refused.
    pub answered: u64,
    pub denied: u64,
    /// Flows that a detector named.
    pub attack: u64,
    #[serde(serialize_with = "instant::serialize")]
    pub first: u64,
    #[serde(serialize_with = "instant::serialize")]
    pub last: u64,
    pub max_score: Option<f64>,
    /// VMs and addresses of both ends, first come.
    pub clients: Vec<Arc<str>>,
    pub servers: Vec<Arc<str>>,
    pub flow_ids: Vec<u64>,
}

/// Gathers what graphs do not cover, one item a group and connection, up to a limit.
#[derive(Clone, Debug)]
pub struct Inbox {
    graphs: BTreeMap<Arc<str>, Graph>,
    /// To name connections as the graphs do.
    namer: Learner,
    items: BTreeMap<(Arc<str>, Connection), Item>,
    limit: usize,
    /// Flows of connections beyond the limit.
    pub overflow: u64,
    /// Flows that were looked at, and that some graph covers.
    pub flows: u64,
    pub covered: u64,
}

impl Inbox {
    /// `namer` has the groups and sizes that the graphs were learnt with.
    pub fn new(graphs: Vec<Graph>, namer: Learner, limit: usize) -> Self {
        let graphs = graphs.into_iter().map(|graph| (graph.group.clone(), graph)).collect();
        Self { graphs, namer, items: BTreeMap::new(), limit, overflow: 0, flows: 0, covered: 0 }
    }

    pub fn observe(&mut self, seen: &Seen) {
        let groups = self.namer.groups_of(seen);
        if groups.is_empty() {
            return;
        }
        self.flows += 1;
        let mut unknown = false;
        for group in groups {
            let Some(graph) = self.graphs.get(&group) else { continue };
            let connection = self.namer.connection(seen, &group);
            if graph.covers(&connection) {
                continue;
            }
            unknown = true;
            let full = self.items.len() >= self.limit;
            let key = (group, connection);
            if full && !self.items.contains_key(&key) {
                self.overflow += 1;
                continue;
            }
            let (group, connection) = key.clone();
            self.items.entry(key).or_insert_with(|| Item::new(group, connection, seen)).add(seen);
        }
        self.covered += u64::from(!unknown);
    }

    /// Most telling first: what was answered, of many flows.
    pub fn into_items(self) -> Vec<Item> {
        let mut items: Vec<Item> = self.items.into_values().collect();
        items.sort_by_key(|item| std::cmp::Reverse((item.answered, item.flows)));
        items
    }
}

impl Item {
    fn new(group: Arc<str>, connection: Connection, seen: &Seen) -> Self {
        Self {
            group,
            connection,
            flows: 0,
            answered: 0,
            denied: 0,
            attack: 0,
            first: seen.start,
            last: seen.end,
            max_score: None,
            clients: Vec::new(),
            servers: Vec::new(),
            flow_ids: Vec::new(),
        }
    }

    fn add(&mut self, seen: &Seen) {
        self.flows += 1;
        self.answered += u64::from(seen.answer == Answer::Answered);
        self.denied += u64::from(seen.answer == Answer::Denied);
        self.attack += u64::from(seen.attack);
        self.first = self.first.min(seen.start);
        self.last = self.last.max(seen.end);
        self.max_score = [self.max_score, seen.score].into_iter().flatten().reduce(f64::max);
        for (names, place) in [(&mut self.clients, &seen.from), (&mut self.servers, &seen.to)] {
            let name = place.name();
            if names.len() < EVIDENCE && !names.contains(&name) {
                names.push(name);
            }
        }
        if self.flow_ids.len() < EVIDENCE {
            self.flow_ids.push(seen.flow_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::learner::tests::{place, seen};
    use crate::policy::{Place, Settings};

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
        let mut inbox = Inbox::new(learning.finish(), learner(), 2);
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
            items.iter().map(|i| (i.connection.to_string(), i.flows, i.denied)).collect();
        assert_eq!(brief, [("web > app tcp 22".to_owned(), 7, 0), ("web > app tcp 23".to_owned(), 1, 1)]);
        assert_eq!((items[0].flow_ids.len(), items[0].flow_ids[0], items[0].max_score), (5, 2, Some(0.8)));
        assert_eq!(items[0].clients.iter().map(|c| &**c).collect::<Vec<_>>(), ["vm-10.0.0.1"]);
    }
}
