//! What a rule quarrels with, told when it is entered.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::Serialize;
use utoipa::ToSchema;

use super::Kind;
use super::derive::{Derived, Origin};
use crate::rules::{Action, GroupIx, Match, Mode, Rule, Selector, Tier};

/// How two rules quarrel. The first two are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quarrel {
    /// Both say the same of the same packets.
    Duplicate,
    /// They say different things of the same packets, and no order stands between them.
    Contradiction,
    /// The new one never decides anything: the other has all its packets first.
    Shadowed,
    /// The other never decides anything any more.
    Shadows,
    /// They differ on some packets; the order decides.
    Overlap,
}

/// One quarrel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Conflict {
    pub kind: Quarrel,
    /// Id of the other rule.
    pub with: String,
    pub explanation: String,
}

impl Quarrel {
    pub fn is_refused(self) -> bool {
        matches!(self, Self::Duplicate | Self::Contradiction)
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.explanation)
    }
}

/// Most that are told of one rule.
const TOLD: usize = 20;

impl Derived {
    /// Quarrels of a rule with others that people wrote, the worst first.
    pub fn conflicts(&self, id: &str) -> Vec<Conflict> {
        let Some((rule, _)) = self.rules().get(id) else { return Vec::new() };
        if rule.mode == Mode::Disabled || rule.action == Action::Log {
            return Vec::new();
        }
        let written = |origin: &Origin| matches!(origin.kind, Kind::Relationship | Kind::Override);
        let others = self.rules().values().filter(|(other, origin)| other.id != rule.id && written(origin));
        let mut found: Vec<Conflict> = others.filter_map(|(other, _)| self.quarrel(rule, other)).collect();
        found.sort_by_key(|conflict| conflict.kind as u8);
        found.truncate(TOLD);
        found
    }

    fn quarrel(&self, rule: &Rule, other: &Rule) -> Option<Conflict> {
        if other.mode != rule.mode || other.action == Action::Log || !self.overlap(&rule.matches, &other.matches) {
            return None;
        }
        let (wider, narrower) = (covers(&rule.matches, &other.matches), covers(&other.matches, &rule.matches));
        let same_place = (rule.tier, rule.priority) == (other.tier, other.priority);
        let same_action = rule.action == other.action;
        let first = turn(rule) < turn(other);
        let (id, with) = (&rule.id, &other.id);
        let place = |rule: &Rule| format!("tier {}, priority {}", rule.tier.name(), rule.priority);
        let (kind, explanation) = match () {
            () if wider && narrower && same_place && same_action => {
                (Quarrel::Duplicate, format!("`{id}` says just what `{with}` says already: change that one instead"))
            }
            () if wider && narrower && same_place => {
                let text = format!(
                    "`{id}` and `{with}` say different things of the same packets at the same place ({}): give one \
                     another priority, or change `{with}`",
                    place(rule)
                );
                (Quarrel::Contradiction, text)
            }
            () if narrower && !first => {
                let text = format!("`{id}` never decides: `{with}` ({}) has all its packets first", place(other));
                (Quarrel::Shadowed, text)
            }
            () if wider && first => {
                let text =
                    format!("`{with}` ({}) never decides any more: `{id}` has all its packets first", place(other));
                (Quarrel::Shadows, text)
            }
            () if !same_action => {
                let (winner, loser) = if first { (id, with) } else { (with, id) };
                let text = format!("`{winner}` decides where `{loser}` says otherwise: they have packets in common");
                (Quarrel::Overlap, text)
            }
            () => return None,
        };
        Some(Conflict { kind, with: with.clone(), explanation })
    }

    fn overlap(&self, a: &Match, b: &Match) -> bool {
        same_or_any(a.protocol, b.protocol)
            && same_or_any(a.icmp.map(|icmp| icmp.0), b.icmp.map(|icmp| icmp.0))
            && same_or_any(a.vlan, b.vlan)
            && same_or_any(a.vni, b.vni)
            && (a.from_ports.is_empty() || b.from_ports.is_empty() || share(&a.from_ports, &b.from_ports))
            && (a.to_ports.is_empty() || b.to_ports.is_empty() || share(&a.to_ports, &b.to_ports))
            && self.meet(&a.from, &b.from)
            && self.meet(&a.to, &b.to)
    }

    /// Whether some endpoint may be on both sides.
    fn meet(&self, a: &[Selector], b: &[Selector]) -> bool {
        let any = |one: &Selector| b.iter().any(|other| self.meets(one, other));
        a.is_empty() || b.is_empty() || a.iter().any(any)
    }

    fn meets(&self, a: &Selector, b: &Selector) -> bool {
        match (a, b) {
            (Selector::Net(a), Selector::Net(b)) => a.contains(b) || b.contains(a),
            (Selector::Group(a), Selector::Group(b)) => a == b || self.share_members(*a, *b),
            (Selector::Group(group), Selector::Net(net)) | (Selector::Net(net), Selector::Group(group)) => {
                self.nets(*group).iter().any(|own| own.contains(net) || net.contains(own))
            }
        }
    }

    fn share_members(&self, a: GroupIx, b: GroupIx) -> bool {
        let (a, b) = (self.nets(a), self.nets(b));
        let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
        // Both are sorted; a wider network stands before what it contains.
        few.iter().any(|net| {
            let at = many.partition_point(|other| other < net);
            let near =
                many[at.saturating_sub(1)..].iter().take(2).any(|other| other.contains(net) || net.contains(other));
            near || many.iter().take(at).any(|other| other.prefix_len() < other.max_prefix_len() && other.contains(net))
        })
    }

    fn nets(&self, group: GroupIx) -> &[IpNet] {
        self.groups().get(usize::from(group.0)).map_or(&[], |group| &group.nets)
    }
}

/// Where a rule stands in the order of evaluation.
fn turn(rule: &Rule) -> (Tier, u32, u8, &str) {
    let action = match rule.action {
        Action::Log => 0,
        Action::Deny => 1,
        Action::Reject => 2,
        Action::Allow => 3,
    };
    (rule.tier, rule.priority, action, &rule.id)
}

fn same_or_any<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

fn share(a: &[RangeInclusive<u16>], b: &[RangeInclusive<u16>]) -> bool {
    a.iter().any(|a| b.iter().any(|b| a.start() <= b.end() && b.start() <= a.end()))
}

/// Whether every packet of the second is one of the first, as far as names and networks tell.
fn covers(wide: &Match, narrow: &Match) -> bool {
    let within = |wide: &[Selector], narrow: &[Selector]| {
        let held = |one: &Selector| wide.iter().any(|wide| holds(wide, one));
        wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(held))
    };
    let icmp = match (wide.icmp, narrow.icmp) {
        (None, _) => true,
        (Some((kind, None)), Some((other, _))) => kind == other,
        (one, other) => one == other,
    };
    let protocol = wide.protocol.is_none() || wide.protocol == narrow.protocol;
    let tags = (wide.vlan.is_none() || wide.vlan == narrow.vlan) && (wide.vni.is_none() || wide.vni == narrow.vni);
    let ports = ports(&wide.to_ports, &narrow.to_ports) && ports(&wide.from_ports, &narrow.from_ports);
    protocol && icmp && tags && ports && within(&wide.from, &narrow.from) && within(&wide.to, &narrow.to)
}

fn ports(wide: &[RangeInclusive<u16>], narrow: &[RangeInclusive<u16>]) -> bool {
    let held = |range: &RangeInclusive<u16>| {
        wide.iter().any(|wide| wide.start() <= range.start() && range.end() <= wide.end())
    };
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(held))
}

fn holds(wide: &Selector, narrow: &Selector) -> bool {
    match (wide, narrow) {
        (Selector::Net(wide), Selector::Net(narrow)) => wide.contains(narrow),
        _ => wide == narrow,
    }
}
