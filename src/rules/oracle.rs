//! The definition of a verdict, written down as plainly as possible: look at every rule in turn.
//!
//! Slow on purpose and independent of the compiler, for tests, benchmarks and [`explain`](super::explain()).

use std::net::IpAddr;

use super::labels::Labels;
use super::rule::{
    Action, Decision, Group, GroupSetHandle, Match, Mode, Policy, Rule, RuleHandle, Selector, Subject, Tier, Verdict,
};
use crate::packet::Mac;

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// The verdict by definition. `labels` must be the one the policy was compiled with, for the handles.
///
/// A rule or group set that `labels` does not know gets handle `u32::MAX`.
pub fn classify(policy: &Policy, generation: u32, labels: &Labels, subject: &Subject) -> Verdict {
    let mut verdict = Verdict { decision: policy.default, tier: Tier::Default, generation, ..Verdict::default() };
    let mut shadow_rules = 0;
    for rule in evaluation_order(policy) {
        let number = shadow_rules;
        shadow_rules += u32::from(rule.mode == Mode::Shadow && rule.action != Action::Log);
        if rule.mode == Mode::Disabled || !matches(policy, &rule.matches, subject) {
            continue;
        }
        let handle = labels.rule_handle(&rule.id).unwrap_or(RuleHandle(u32::MAX));
        if rule.action == Action::Log {
            if rule.mode == Mode::Enforce && verdict.logged == RuleHandle::DEFAULT {
                verdict.logged = handle;
            }
        } else if rule.mode == Mode::Shadow {
            verdict.shadows.push(number);
        } else {
            verdict.rule = handle;
            verdict.tier = rule.tier;
            verdict.decision = decision_of(rule.action).unwrap_or(policy.default);
            verdict.stateful = rule.action == Action::Allow && rule.stateful;
            break;
        }
    }
    for session in mirrors(policy, subject, verdict.decision) {
        verdict.mirrors |= 1 << session;
    }
    verdict.src_groups = group_set(policy, labels, subject, End::Source);
    verdict.dst_groups = group_set(policy, labels, subject, End::Destination);
    verdict
}

/// All rules: tier, then priority, then log, deny, reject, allow, then id.
pub fn evaluation_order(policy: &Policy) -> Vec<&Rule> {
    let mut rules: Vec<&Rule> = policy.rules.iter().collect();
    let turn = |action| [Action::Log, Action::Deny, Action::Reject, Action::Allow].iter().position(|a| *a == action);
    rules.sort_by(|a, b| {
        let by_tier = a.tier.cmp(&b.tier);
        let by_priority = a.priority.cmp(&b.priority);
        by_tier.then(by_priority).then(turn(a.action).cmp(&turn(b.action))).then(a.id.cmp(&b.id))
    });
    rules
}

/// What an action decides; `None` for `log`.
pub fn decision_of(action: Action) -> Option<Decision> {
    match action {
        Action::Allow => Some(Decision::Allow),
        Action::Deny => Some(Decision::Deny),
        Action::Reject => Some(Decision::Reject),
        Action::Log => None,
    }
}

/// Positions of the mirror sessions that select a packet with this decision.
pub fn mirrors(policy: &Policy, subject: &Subject, decision: Decision) -> Vec<usize> {
    let mut selected = Vec::new();
    for (session, mirror) in policy.mirrors.iter().enumerate() {
        let wanted = mirror.decisions.is_empty() || mirror.decisions.contains(&decision);
        if wanted && mirror.any_of.iter().any(|m| matches(policy, m, subject)) {
            selected.push(session);
        }
    }
    selected
}

/// Whether all conditions hold.
pub fn matches(policy: &Policy, m: &Match, subject: &Subject) -> bool {
    selected(policy, &m.from, subject, End::Source)
        && selected(policy, &m.to, subject, End::Destination)
        && protocol_matches(m, subject)
        && port_matches(&m.from_ports, subject, subject.tuple.src_port)
        && port_matches(&m.to_ports, subject, subject.tuple.dst_port)
        && icmp_matches(m, subject)
        && m.vlan.is_none_or(|vlan| vlan == subject.tuple.vlan)
        && m.vni.is_none_or(|vni| vni == subject.tuple.vni)
}

/// Whether an end is picked by any of the selectors; no selectors pick everything.
pub fn selected(policy: &Policy, selectors: &[Selector], subject: &Subject, end: End) -> bool {
    let picks = |selector: &Selector| match selector {
        Selector::Net(net) => net.contains(&address(subject, end)),
        Selector::Group(ix) => policy.groups.get(usize::from(ix.0)).is_some_and(|group| is_member(group, subject, end)),
    };
    selectors.is_empty() || selectors.iter().any(picks)
}

pub fn protocol_matches(m: &Match, subject: &Subject) -> bool {
    m.protocol.is_none_or(|protocol| protocol == subject.tuple.protocol)
}

/// A port condition: none, or TCP, UDP or SCTP with known ports in one of the ranges.
pub fn port_matches(ranges: &[std::ops::RangeInclusive<u16>], subject: &Subject, port: u16) -> bool {
    if ranges.is_empty() {
        return true;
    }
    let tcp_udp_sctp = matches!(subject.tuple.protocol, 6 | 17 | 132);
    tcp_udp_sctp && subject.ports_known && ranges.iter().any(|range| range.contains(&port))
}

/// An ICMP condition: none, or ICMP or ICMPv6 with a known header of this type and code.
pub fn icmp_matches(m: &Match, subject: &Subject) -> bool {
    let Some((kind, code)) = m.icmp else { return true };
    let icmp = matches!(subject.tuple.protocol, 1 | 58);
    icmp && subject.ports_known && subject.icmp.0 == kind && code.is_none_or(|code| code == subject.icmp.1)
}

/// Whether an end belongs to a group by its address, its MAC, the VLAN or the VNI.
pub fn is_member(group: &Group, subject: &Subject, end: End) -> bool {
    group.nets.iter().any(|net| net.contains(&address(subject, end)))
        || group.macs.contains(&mac(subject, end))
        || group.vlans.contains(&subject.tuple.vlan)
        || group.vnis.contains(&subject.tuple.vni)
}

pub fn address(subject: &Subject, end: End) -> IpAddr {
    match end {
        End::Source => subject.tuple.src_ip(),
        End::Destination => subject.tuple.dst_ip(),
    }
}

pub fn mac(subject: &Subject, end: End) -> Mac {
    match end {
        End::Source => subject.src_mac,
        End::Destination => subject.dst_mac,
    }
}

fn group_set(policy: &Policy, labels: &Labels, subject: &Subject, end: End) -> GroupSetHandle {
    let groups = policy.groups.iter().filter(|group| is_member(group, subject, end));
    let names: Vec<&str> = groups.map(|group| group.name.as_str()).collect();
    labels.group_set(&names).unwrap_or(GroupSetHandle(u32::MAX))
}
