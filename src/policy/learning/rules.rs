//! Connections as rules of a configuration.

use serde::Serialize;

use super::connection::{Connection, Endpoint};
use super::graph::Graph;
use crate::rules::{Tier, protocol_name};

/// What is not learnt is denied behind everything learnt.
const LAST: u32 = u32::MAX;
/// Those of several flows first; between equals the order does not matter, all allow.
const PRIORITY: u32 = 1000;

/// A `[[rule]]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LearnedRule {
    pub id: String,
    pub from: String,
    pub to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    pub action: &'static str,
    pub priority: u32,
    pub tier: &'static str,
    pub comment: String,
}

/// A number, or what numbers cannot say: a name, a range.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Word {
    Number(u16),
    Text(String),
}

/// A file with rules.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleFile {
    pub rule: Vec<LearnedRule>,
}

impl Word {
    fn of(text: String) -> Self {
        text.parse().map_or(Self::Text(text), Self::Number)
    }
}

impl LearnedRule {
    /// Allows a connection. The same connection always has the same id. `None` for a VM that is in no group: rules name
    /// groups and networks.
    pub fn allow(connection: &Connection, prefix: &str, comment: String) -> Option<Self> {
        let Connection { from, to, service } = connection;
        if [from, to].iter().any(|end| matches!(end, Endpoint::Vm(_))) {
            return None;
        }
        Some(Self {
            id: format!("{prefix}-{:012x}", connection.fingerprint() >> 16),
            from: from.text(),
            to: to.text(),
            protocol: Some(Word::of(protocol_name(service.protocol))),
            ports: service.ports.map(|(first, last)| match first == last {
                true => Word::Number(first),
                false => Word::Text(format!("{first}-{last}")),
            }),
            icmp_type: service.icmp_type,
            action: "allow",
            priority: PRIORITY,
            tier: Tier::Learned.name(),
            comment,
        })
    }

    /// Denies everything else from and to a group.
    pub fn deny_rest(group: &str) -> [Self; 2] {
        let rule = |way: &str, from: &str, to: &str| Self {
            id: format!("learned-{group}-{way}"),
            from: from.to_owned(),
            to: to.to_owned(),
            protocol: None,
            ports: None,
            icmp_type: None,
            action: "deny",
            priority: LAST,
            tier: Tier::Learned.name(),
            comment: format!("what was not learnt of {group}"),
        };
        [rule("rest-in", "any", group), rule("rest-out", group, "any")]
    }
}

/// Rules that allow what some groups were seen to do; each connection once. Second: connections that no rule can say,
/// of VMs that are in no group.
pub fn of_graphs(graphs: &[Graph], deny_rest: bool) -> (Vec<LearnedRule>, Vec<Connection>) {
    let (mut rules, mut unsaid) = (Vec::new(), Vec::new());
    let mut seen = std::collections::BTreeSet::new();
    let edges = graphs.iter().flat_map(|graph| &graph.edges).filter(|edge| edge.permitted > 0);
    for edge in edges.filter(|edge| seen.insert(&edge.connection)) {
        let comment = format!("{} flows on {} days, {} VMs", edge.permitted, edge.days, edge.vm_count);
        match LearnedRule::allow(&edge.connection, "learned", comment) {
            Some(rule) => rules.push(rule),
            None => unsaid.push(edge.connection.clone()),
        }
    }
    if deny_rest {
        rules.extend(graphs.iter().flat_map(|graph| LearnedRule::deny_rest(&graph.group)));
    }
    (rules, unsaid)
}
