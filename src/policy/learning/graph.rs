//! The consolidated policy of a group: a directed graph of connections.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::connection::{Connection, Endpoint};
use super::fold::Foldable;
use crate::policy::instant;

/// VMs of the group that are named on an edge; of more, their number is kept.
const NAMED_VMS: usize = 16;
/// VMs that are told apart on an edge.
const MOST_VMS: usize = 4096;
const DAY: u64 = 86_400 * 1_000_000_000;

/// What the VMs of a group talk to. Nodes are the ends of its edges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    pub group: Arc<str>,
    /// First and last packet of what it was learnt from.
    #[serde(with = "instant")]
    pub since: u64,
    #[serde(with = "instant")]
    pub until: u64,
    /// When a connection was last seen for the first time: unchanged from then on.
    #[serde(with = "instant")]
    pub stable_since: u64,
    pub flows: u64,
    /// In the order of their connections.
    pub edges: Vec<Edge>,
    pub left_out: LeftOut,
}

/// A connection and what speaks for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    #[serde(flatten)]
    pub connection: Connection,
    /// Flows that were let through and answered.
    pub permitted: u64,
    /// Flows that the appliance refused.
    pub denied: u64,
    pub bytes: u64,
    #[serde(with = "instant")]
    pub first: u64,
    #[serde(with = "instant")]
    pub last: u64,
    /// Different days, in UTC.
    pub days: usize,
    /// VMs of the group that took part, by name up to sixteen, and how many.
    pub vms: Vec<Arc<str>>,
    pub vm_count: usize,
}

/// Flows that are not in the graph, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Flagged by a detector, or from and to the parties of an alert in its time.
    pub attack: u64,
    /// Nobody answered.
    pub unanswered: u64,
    pub denied: u64,
    /// By an expression.
    pub excluded: u64,
    /// Of connections on too few days or with too few flows, and how many such connections.
    pub rare: u64,
    pub rare_connections: u64,
    /// Connections beyond the limit of memory.
    pub overflow: u64,
}

/// What is counted of a connection while it is learnt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub permitted: u64,
    /// Let through, and not answered as is usual for some services.
    pub one_way: u64,
    pub denied: u64,
    pub bytes: u64,
    pub first: u64,
    pub last: u64,
    pub days: BTreeSet<u64>,
    pub vms: BTreeSet<Arc<str>>,
}

impl Tally {
    pub(super) fn day_of(time: u64) -> u64 {
        time / DAY
    }

    pub(super) fn into_edge(self, connection: Connection) -> Edge {
        Edge {
            connection,
            permitted: self.permitted,
            denied: self.denied,
            bytes: self.bytes,
            first: self.first,
            last: self.last,
            days: self.days.len(),
            vm_count: self.vms.len(),
            vms: self.vms.into_iter().take(NAMED_VMS).collect(),
        }
    }
}

impl Foldable for Tally {
    fn flows(&self) -> u64 {
        self.permitted + self.one_way + self.denied
    }

    fn merge(&mut self, other: Self) {
        let unused = self.flows() == 0;
        self.first = if unused { other.first } else { self.first.min(other.first) };
        self.last = self.last.max(other.last);
        self.permitted += other.permitted;
        self.one_way += other.one_way;
        self.denied += other.denied;
        self.bytes += other.bytes;
        self.days.extend(other.days);
        let room = MOST_VMS.saturating_sub(self.vms.len());
        self.vms.extend(other.vms.into_iter().take(room));
    }
}

/// Connections to look things up in.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    exact: BTreeSet<Connection>,
    /// Those that hold others.
    wide: Vec<Connection>,
}

impl Known {
    pub(super) fn of(connections: impl Iterator<Item = Connection>) -> Self {
        let (wide, exact): (Vec<Connection>, Vec<Connection>) = connections.partition(Connection::is_wide);
        Self { exact: exact.into_iter().collect(), wide }
    }

    pub(super) fn covers(&self, connection: &Connection) -> bool {
        self.exact.contains(connection) || self.wide.iter().any(|wide| wide.covers(connection))
    }
}

impl Graph {
    /// What its edges let pass.
    pub(super) fn known(&self) -> Known {
        Known::of(self.edges.iter().filter(|edge| edge.permitted > 0).map(|edge| edge.connection.clone()))
    }

    /// For Graphviz: `dot -Tsvg`. Several graphs are one picture; what is in more than one is drawn once.
    pub fn dot(graphs: &[Self]) -> String {
        let mut edges: BTreeMap<(&Endpoint, &Endpoint), BTreeMap<String, u64>> = BTreeMap::new();
        let mut drawn = BTreeSet::new();
        for edge in graphs.iter().flat_map(|graph| &graph.edges) {
            if drawn.insert(&edge.connection) {
                let Connection { from, to, service } = &edge.connection;
                edges.entry((from, to)).or_default().insert(service.to_string(), edge.permitted);
            }
        }
        let mut out = String::from("digraph policy {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
        for ((from, to), services) in &edges {
            let label: Vec<String> = services.iter().map(|(service, flows)| format!("{service} ({flows})")).collect();
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "  {} -> {} [label={}];",
                quoted(&from.text()),
                quoted(&to.text()),
                quoted(&label.join("\n"))
            );
        }
        out.push_str("}\n");
        out
    }
}

/// A quoted identifier of Graphviz.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
