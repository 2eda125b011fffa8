//! Connections of all VMs of a group → one graph.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::connection::{Connection, Endpoint};
use super::fold::{Foldable, folded};
use super::graph::{Edge, Graph, LeftOut, Tally};
use super::seen::{Answer, Seen};

/// What evidence a connection needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Flows that were let through and answered.
    pub min_flows: u64,
    /// Different days on which it was seen, in UTC.
    pub min_days: usize,
    /// Connections in memory, of all groups; flows of more are counted and forgotten.
    pub limit: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { min_flows: 1, min_days: 1, limit: 1_000_000 }
    }
}

/// Flows that nobody answered and that are a service all the same; on enough days.
const ONE_WAY: u64 = 3;

/// Learns the graphs of several groups at once.
#[derive(Clone, Debug)]
pub struct Learner {
    settings: Settings,
    /// Members of each group, as far as known: the smaller of two groups names a peer.
    sizes: BTreeMap<Arc<str>, usize>,
    groups: BTreeMap<Arc<str>, Learning>,
    connections: usize,
}

/// One group's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Learning {
    #[serde(with = "pairs")]
    tallies: BTreeMap<Connection, Tally>,
    since: Option<u64>,
    until: u64,
    flows: u64,
    left_out: LeftOut,
}

impl Learner {
    /// For these groups, of all that there are with their sizes.
    pub fn new(settings: Settings, wanted: &[Arc<str>], sizes: BTreeMap<Arc<str>, usize>) -> Self {
        let groups = wanted.iter().map(|group| (group.clone(), Learning::default())).collect();
        Self { settings, sizes, groups, connections: 0 }
    }

    /// The next flow, in any order. `excluded`: the administrator does not want it learnt.
    pub fn observe(&mut self, seen: &Seen, excluded: bool) {
        for name in self.groups_of(seen) {
            let connection = self.connection(seen, &name);
            let full = self.connections >= self.settings.limit;
            let Some(learning) = self.groups.get_mut(&name) else { continue };
            learning.note(seen);
            let left_out = &mut learning.left_out;
            match seen.answer {
                _ if seen.attack => left_out.attack += 1,
                _ if excluded => left_out.excluded += 1,
                Answer::Unanswered => left_out.unanswered += 1,
                _ if full && !learning.tallies.contains_key(&connection) => left_out.overflow += 1,
                answer => {
                    left_out.denied += u64::from(answer == Answer::Denied);
                    let before = learning.tallies.len();
                    learning.tallies.entry(connection).or_default().merge(tally(seen, &name));
                    self.connections += learning.tallies.len() - before;
                }
            }
        }
    }

    /// As the group's policy would name it, before anything is folded.
    pub fn connection(&self, seen: &Seen, group: &str) -> Connection {
        let size = |name: &str| self.sizes.get(name).copied().unwrap_or(usize::MAX);
        let end = |place: &super::Place| match place.is_in(group) {
            true => Endpoint::group(group),
            false => place.endpoint(size),
        };
        Connection { from: end(&seen.from), to: end(&seen.to), service: seen.service.clone() }
    }

    /// Groups to be learnt that have a part in it.
    pub fn groups_of(&self, seen: &Seen) -> BTreeSet<Arc<str>> {
        let both = seen.from.groups.iter().chain(&seen.to.groups);
        both.filter(|name| self.groups.contains_key(*name)).cloned().collect()
    }

    /// As it is to be from now on; what was learnt stays.
    pub fn adjust(&mut self, settings: Settings, sizes: BTreeMap<Arc<str>, usize>) {
        (self.settings, self.sizes) = (settings, sizes);
    }

    /// Forgets what was last seen before a time.
    pub fn forget_before(&mut self, time: u64) {
        for learning in self.groups.values_mut() {
            let before = learning.tallies.len();
            learning.tallies.retain(|_, tally| tally.last >= time);
            self.connections -= before - learning.tallies.len();
        }
    }

    /// What was learnt, to go on with later.
    pub fn knowledge(&self) -> serde_json::Value {
        // Strings and numbers: nothing that JSON cannot say.
        serde_json::to_value(&self.groups).unwrap_or_default()
    }

    /// Goes on with what was learnt before.
    ///
    /// # Errors
    /// It is not what [`Learner::knowledge`] gave.
    pub fn recall(&mut self, knowledge: serde_json::Value) -> Result<(), serde_json::Error> {
        let known: BTreeMap<Arc<str>, Learning> = serde_json::from_value(knowledge)?;
        for (group, learning) in known {
            if let Some(own) = self.groups.get_mut(&group) {
                *own = learning;
            }
        }
        self.connections = self.groups.values().map(|learning| learning.tallies.len()).sum();
        Ok(())
    }

    /// The graphs, in the order of their groups' names.
    pub fn finish(self) -> Vec<Graph> {
        let settings = self.settings;
        self.groups.into_iter().map(|(group, learning)| learning.finish(group, settings)).collect()
    }
}

impl Learning {
    fn note(&mut self, seen: &Seen) {
        self.since = Some(self.since.map_or(seen.start, |since| since.min(seen.start)));
        self.until = self.until.max(seen.end);
        self.flows += 1;
    }

    fn finish(self, group: Arc<str>, settings: Settings) -> Graph {
        let mut left_out = self.left_out;
        let mut edges = Vec::new();
        let mut tallies = self.tallies;
        // Before anything is put together: strangers that each sent one datagram are no evidence for one another.
        tallies.retain(|_, tally| {
            let usual = tally.one_way >= ONE_WAY && tally.days.len() >= settings.min_days;
            if tally.permitted > 0 || usual {
                tally.permitted += std::mem::take(&mut tally.one_way);
            }
            left_out.unanswered += std::mem::take(&mut tally.one_way);
            tally.flows() > 0
        });
        // What was only refused speaks for nothing, and must not widen what was let through.
        let (refused, passed): (BTreeMap<_, _>, BTreeMap<_, _>) =
            tallies.into_iter().partition(|(_, tally)| tally.permitted == 0);
        for (connection, tally) in folded(passed).into_iter().chain(refused) {
            let enough = tally.permitted >= settings.min_flows && tally.days.len() >= settings.min_days;
            // A server out there that spoke once is none of those without which nothing works.
            let is_ours = matches!(connection.to, Endpoint::Group(_) | Endpoint::Vm(_));
            if tally.permitted > 0 && !enough && !(connection.service.is_protected() && is_ours) {
                left_out.rare += tally.permitted;
                left_out.rare_connections += 1;
            } else {
                edges.push(tally.into_edge(connection));
            }
        }
        edges.sort_by(|a: &Edge, b| a.connection.cmp(&b.connection));
        let permitted = edges.iter().filter(|edge| edge.permitted > 0);
        Graph {
            group,
            since: self.since.unwrap_or(0),
            until: self.until,
            stable_since: permitted.map(|edge| edge.first).max().unwrap_or(0),
            flows: self.flows,
            edges,
            left_out,
        }
    }
}

fn tally(seen: &Seen, group: &str) -> Tally {
    let count = |answer: Answer| u64::from(seen.answer == answer);
    let vms = [&seen.from, &seen.to].into_iter().filter(|place| place.is_in(group)).map(|place| place.name());
    Tally {
        permitted: count(Answer::Answered),
        one_way: count(Answer::OneWay),
        denied: count(Answer::Denied),
        bytes: seen.bytes,
        first: seen.start,
        last: seen.end,
        days: BTreeSet::from([Tally::day_of(seen.start)]),
        vms: vms.collect(),
    }
}

/// Maps as lists of pairs: keys are no strings.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Connection, Tally};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<Connection, Tally>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<BTreeMap<Connection, Tally>, D::Error> {
        Ok(Vec::<(Connection, Tally)>::deserialize(from)?.into_iter().collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::policy::learning::{Place, Service};

    const DAY: u64 = 86_400 * 1_000_000_000;

    pub(in crate::policy::learning) fn place(address: &str, groups: &[&str]) -> Place {
        let vm = groups.first().map(|_| format!("vm-{address}").into());
        Place { address: address.parse().unwrap(), vm, groups: groups.iter().map(|g| (*g).into()).collect() }
    }

    pub(in crate::policy::learning) fn seen(from: Place, to: Place, port: u16, day: u64) -> Seen {
        Seen {
            flow_id: 1,
            start: day * DAY,
            end: day * DAY + 5,
            from,
            to,
            service: Service::of_port(6, port),
            answer: Answer::Answered,
            bytes: 100,
            packets: 2,
            rule: None,
            tier: Default::default(),
            decision: Default::default(),
            attack: false,
            score: None,
        }
    }

    fn learner(settings: Settings) -> Learner {
        let sizes = [("web", 2), ("app", 2), ("all", 9)].map(|(name, size)| (name.into(), size));
        Learner::new(settings, &["web".into(), "app".into()], sizes.into())
    }

    fn edges(graph: &Graph) -> Vec<String> {
        graph.edges.iter().map(|e| format!("{} {}/{}", e.connection, e.permitted, e.denied)).collect()
    }

    #[test]
    fn all_vms_of_a_group_make_one_graph() {
        let mut learner = learner(Settings::default());
        for (web, day) in [("10.0.0.1", 1), ("10.0.0.2", 3), ("10.0.0.2", 2)] {
            learner.observe(&seen(place(web, &["all", "web"]), place("10.0.1.1", &["app", "all"]), 8080, day), false);
        }
        let outside = Place { vm: None, ..place("192.0.2.7", &[]) };
        learner.observe(&seen(outside, place("10.0.0.1", &["web"]), 443, 2), false);
        learner.observe(&seen(place("10.0.0.1", &["web"]), place("10.0.0.2", &["web"]), 7000, 2), false);
        let graphs = learner.finish();
        let [app, web] = &graphs[..] else { panic!("{graphs:?}") };
        assert_eq!(edges(app), ["web > app tcp 8080 3/0"]);
        assert_eq!(edges(web), ["web > app tcp 8080 3/0", "web > web tcp 7000 1/0", "192.0.2.7 > web tcp 443 1/0"]);
        let edge = &web.edges[0];
        assert_eq!((edge.days, edge.vm_count, edge.first, edge.last), (3, 2, DAY, 3 * DAY + 5));
        assert_eq!(&*edge.vms[0], "vm-10.0.0.1");
        assert_eq!((web.since, web.until, web.stable_since, web.flows), (DAY, 3 * DAY + 5, 2 * DAY, 5));
    }

    #[test]
    fn what_was_refused_widens_nothing() {
        let mut learner = learner(Settings::default());
        let stranger = |n: u8| Place { vm: None, ..place(&format!("192.0.{n}.{n}"), &[]) };
        learner.observe(&seen(stranger(1), place("10.0.0.1", &["web"]), 22, 1), false);
        (2..80).for_each(|n| {
            let flow = seen(stranger(n), place("10.0.0.1", &["web"]), 22, 1);
            learner.observe(&Seen { answer: Answer::Denied, ..flow }, false);
        });
        let graph = learner.finish().pop().unwrap();
        let permitted: Vec<_> = graph.edges.iter().filter(|edge| edge.permitted > 0).collect();
        assert_eq!(
            permitted.iter().map(|edge| edge.connection.to_string()).collect::<Vec<_>>(),
            ["192.0.1.1 > web tcp 22"]
        );
    }

    #[test]
    fn attacks_failures_and_what_is_rare_are_left_out() {
        let mut learner = learner(Settings { min_days: 2, ..Settings::default() });
        let (web, app) = (place("10.0.0.1", &["web"]), place("10.0.1.1", &["app"]));
        let flow = |port: u16, day: u64| seen(web.clone(), app.clone(), port, day);
        learner.observe(&Seen { attack: true, ..flow(22, 1) }, false);
        learner.observe(&Seen { answer: Answer::Unanswered, ..flow(23, 1) }, false);
        learner.observe(&Seen { answer: Answer::Denied, ..flow(24, 1) }, false);
        learner.observe(&flow(25, 1), true);
        learner.observe(&flow(26, 1), false);
        learner.observe(&flow(53, 1), false);
        (1..=2).for_each(|day| learner.observe(&flow(80, day), false));
        let graph = learner.finish().remove(0);
        assert_eq!(edges(&graph), ["web > app tcp 24 0/1", "web > app tcp 53 1/0", "web > app tcp 80 2/0"]);
        let expected =
            LeftOut { attack: 1, unanswered: 1, denied: 1, excluded: 1, rare: 1, rare_connections: 1, overflow: 0 };
        assert_eq!(graph.left_out, expected);
        let known = graph.known();
        assert!(known.covers(&graph.edges[2].connection) && !known.covers(&graph.edges[0].connection));
    }

    #[test]
    fn probes_without_answer_are_no_evidence_and_logs_are() {
        let mut learner = learner(Settings { min_days: 2, ..Settings::default() });
        let one_way = |from: &str, port: u16, day: u64| {
            let from = Place { vm: None, ..place(from, &[]) };
            Seen { answer: Answer::OneWay, ..seen(from, place("10.0.0.1", &["web"]), port, day) }
        };
        // Twenty ports on two days, a stranger each, and a log server.
        (0..20u16).for_each(|i| learner.observe(&one_way(&format!("192.0.2.{i}"), 2000 + i, u64::from(i % 2)), false));
        (0..20u16).for_each(|i| learner.observe(&one_way("198.51.100.9", 3000 + i, u64::from(i % 2)), false));
        (0..4).for_each(|day| learner.observe(&one_way("198.51.100.1", 514, day), false));
        let graph = learner.finish().remove(1);
        assert_eq!(edges(&graph), ["198.51.100.1 > web tcp 514 4/0"]);
        assert_eq!(graph.left_out.unanswered, 40);
    }

    #[test]
    fn memory_has_a_limit_and_any_order_gives_the_same() {
        let flows: Vec<Seen> = (0..50u16)
            .map(|i| seen(place("10.0.0.1", &["web"]), place("10.0.1.1", &["app"]), 100 + i % 20, u64::from(i % 7)))
            .collect();
        let learnt = |flows: &mut dyn Iterator<Item = &Seen>, limit: usize| {
            let mut learner = learner(Settings { limit, ..Settings::default() });
            flows.for_each(|seen| learner.observe(seen, false));
            learner.finish()
        };
        assert_eq!(learnt(&mut flows.iter(), 1000), learnt(&mut flows.iter().rev(), 1000));
        let few = learnt(&mut flows.iter(), 10);
        assert_eq!(few.iter().map(|graph| graph.edges.len()).sum::<usize>(), 10);
        assert!(few.iter().all(|graph| graph.left_out.overflow > 0));
    }

    #[test]
    fn graphs_are_files() {
        let mut learner = learner(Settings::default());
        learner.observe(&seen(place("10.0.0.1", &["web"]), place("10.0.1.1", &["app"]), 80, 1), false);
        let graphs = learner.finish();
        let text = serde_json::to_string(&graphs).unwrap();
        assert!(text.contains("\"since\":\"1970-01-02T00:00:00.000000+0000\""), "{text}");
        let read: Vec<Graph> = serde_json::from_str(&text).unwrap();
        assert_eq!(read[0].edges[0].connection, graphs[0].edges[0].connection);
        let dot = Graph::dot(&graphs);
        assert_eq!(dot.matches("\"web\" -> \"app\" [label=\"tcp 80 (1)\"];").count(), 1, "{dot}");
    }
}
