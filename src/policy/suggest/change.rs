//! What a suggestion would change, as data.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::standing::Standing;
use crate::packet::scramble;
use crate::policy::learning::Endpoint;
use crate::rules::{Action, Tier, protocol_name};

/// A proposed change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// In this order: take away, put elsewhere, add.
    Rules {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remove: Vec<Arc<str>>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        priorities: Vec<Reorder>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        add: Vec<Draft>,
    },
    /// A VM gets other tags, so that it is in another group.
    Move { vm: Arc<str>, from: Vec<Arc<str>>, to: Arc<str>, add_tags: Vec<String>, remove_tags: Vec<String> },
    /// For people: nothing that rules can say.
    Advice { text: String },
}

/// A rule that gets another priority, within its tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reorder {
    pub id: Arc<str>,
    pub before: u32,
    pub priority: u32,
}

/// A rule to add, in the terms of a `[[rule]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    pub id: String,
    /// Empty: any.
    pub from: Vec<Endpoint>,
    pub to: Vec<Endpoint>,
    pub protocol: Option<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<(u16, u16)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    pub action: Action,
    pub priority: u32,
    pub tier: Tier,
    /// Nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    pub comment: String,
}

impl Change {
    pub fn add(draft: Draft) -> Self {
        Self::Rules { remove: Vec::new(), priorities: Vec::new(), add: vec![draft] }
    }

    /// Rules to add.
    pub fn added(&self) -> &[Draft] {
        match self {
            Self::Rules { add, .. } => add,
            _ => &[],
        }
    }

    /// Ids of the rules that it takes away or puts elsewhere.
    pub fn touched(&self) -> impl Iterator<Item = &str> {
        let (remove, priorities): (&[Arc<str>], &[Reorder]) = match self {
            Self::Rules { remove, priorities, .. } => (remove, priorities),
            _ => (&[], &[]),
        };
        remove.iter().map(|id| &**id).chain(priorities.iter().map(|reorder| &*reorder.id))
    }

    /// In one line.
    pub fn text(&self) -> String {
        match self {
            Self::Rules { remove, priorities, add } => {
                let gone = remove.iter().map(|id| format!("remove {id}"));
                let moved =
                    priorities.iter().map(|r| format!("{}: priority {} instead of {}", r.id, r.priority, r.before));
                gone.chain(moved).chain(add.iter().map(Draft::text)).collect::<Vec<_>>().join("; ")
            }
            Self::Move { vm, from, to, .. } => match from.as_slice() {
                [] => format!("{vm}: into {to}"),
                groups => format!("{vm}: from {} to {to}", groups.join(" ")),
            },
            Self::Advice { text } => text.clone(),
        }
    }

    /// As a part of a configuration; what it cannot say is a comment.
    pub fn toml(&self) -> String {
        let mut out = String::new();
        match self {
            Self::Rules { remove, priorities, add } => {
                remove.iter().for_each(|id| out += &format!("# remove the rule {id:?}\n"));
                for reorder in priorities {
                    out += &format!(
                        "# rule {:?}: priority = {} instead of {}\n",
                        &*reorder.id, reorder.priority, reorder.before
                    );
                }
                add.iter().for_each(|draft| out += &draft.toml());
            }
            Self::Move { vm, add_tags, remove_tags, .. } => {
                out += &format!("# vm {:?}: tags without {remove_tags:?}, with {add_tags:?}\n", &**vm);
            }
            Self::Advice { text } => out += &format!("# {text}\n"),
        }
        out
    }
}

impl Draft {
    /// Where it stands among [`Standing::order`]s.
    pub fn order(&self) -> (Tier, u32, u8, &str) {
        let turn = if self.action == Action::Allow { 3 } else { 1 };
        (self.tier, self.priority, turn, &self.id)
    }

    /// A rule that stands, with another priority.
    pub fn moved(rule: &Standing, priority: u32) -> Self {
        Self {
            id: rule.id.to_string(),
            from: rule.from.clone(),
            to: rule.to.clone(),
            protocol: rule.protocol,
            ports: rule.ports.clone(),
            icmp_type: rule.icmp_type,
            action: rule.action,
            priority,
            tier: rule.tier,
            expires: None,
            comment: String::new(),
        }
    }

    pub fn text(&self) -> String {
        let verb = match self.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Reject => "reject",
            Action::Log => "log",
        };
        format!("{verb} {} > {} {}", ends(&self.from), ends(&self.to), self.service())
    }

    pub fn service(&self) -> String {
        let mut out = self.protocol.map_or("any protocol".to_owned(), protocol_name);
        let ports: Vec<String> = self.ports.iter().map(|range| port(*range)).collect();
        match (ports.as_slice(), self.icmp_type) {
            ([], None) => {}
            ([], Some(kind)) => _ = write!(out, " type {kind}"),
            (ports, _) => _ = write!(out, " {}", ports.join(",")),
        }
        out
    }

    /// A `[[rule]]`.
    pub fn toml(&self) -> String {
        let mut out = format!("[[rule]]\nid = {:?}\n", self.id);
        for (key, ends) in [("from", &self.from), ("to", &self.to)] {
            if !ends.is_empty() {
                let words: Vec<String> = ends.iter().map(Endpoint::text).collect();
                out += &format!("{key} = {words:?}\n");
            }
        }
        if let Some(protocol) = self.protocol {
            out += &format!("protocol = {}\n", word(&protocol_name(protocol)));
        }
        if !self.ports.is_empty() {
            let ports: Vec<String> = self.ports.iter().map(|range| word(&port(*range))).collect();
            out += &format!("ports = [{}]\n", ports.join(", "));
        }
        if let Some(kind) = self.icmp_type {
            out += &format!("icmp_type = {kind}\n");
        }
        let action = self.text();
        let action = action.split(' ').next().unwrap_or("allow");
        out += &format!("action = {action:?}\npriority = {}\ntier = {:?}\n", self.priority, self.tier.name());
        let until = self.expires.map_or(String::new(), |time| format!(", until {}", crate::export::iso8601(time)));
        out + &format!("comment = {:?}\n", format!("{}{until}", self.comment))
    }
}

fn word(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.to_owned() } else { format!("{text:?}") }
}

fn port((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// As a person writes them.
pub fn ends(ends: &[Endpoint]) -> String {
    match ends {
        [] => "any".to_owned(),
        some => some.iter().map(Endpoint::text).collect::<Vec<_>>().join(","),
    }
}

/// A number that stays the same for the same text.
pub fn fingerprint(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    scramble(hash)
}
