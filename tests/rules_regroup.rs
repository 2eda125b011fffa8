//! Hosts that are moved between groups in place are judged as if all had been built anew.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gnomon::packet::{Tuple, from_ip_addr};
use gnomon::rules::{
    Action, Compiled, Compiler, DEFAULT_MEMORY, Decision, Group, GroupIx, Labels, Match, Mode, Policy, Rule,
    RuleChange, Selector, Subject, Tier,
};
use ipnet::IpNet;
use proptest::prelude::*;

const GROUPS: u16 = 5;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn host(n: u8) -> IpNet {
    IpNet::from(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)))
}

fn group(at: u16, hosts: &[u8], wide: bool) -> Group {
    let mut nets: Vec<IpNet> = hosts.iter().map(|n| host(*n)).collect();
    nets.push(IpNet::from(IpAddr::V4(Ipv4Addr::new(10, 1, 0, at as u8))));
    if wide {
        nets.push(net("10.0.0.0/28"));
    }
    nets.sort_unstable();
    nets.dedup();
    Group { name: format!("g{at}"), nets, ..Group::default() }
}

fn rule(n: u32, from: Option<u16>, to: Option<u16>, action: Action) -> Rule {
    let side = |group: Option<u16>| group.map(|at| Selector::Group(GroupIx(at))).into_iter().collect();
    let matches = Match { from: side(from), to: side(to), ..Match::default() };
    Rule { id: format!("r{n}"), tier: Tier::Policy, priority: n, mode: Mode::Enforce, action, stateful: false, matches }
}

fn subject(from: u8, to: u8) -> Subject {
    let [(_, src), (_, dst)] = [from, to].map(|n| from_ip_addr(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))));
    Subject {
        tuple: Tuple { version: 4, protocol: 17, src, dst, ..Tuple::default() },
        ports_known: true,
        ..Subject::default()
    }
}

fn verdicts(compiled: &Compiled, labels: &Labels) -> Vec<String> {
    let ends = (0..24).flat_map(|from| [0, 1, 5, 17, 23].map(|to| (from, to)));
    ends.map(|(from, to)| {
        let verdict = compiled.classify(&subject(from, to));
        let groups = [verdict.src_groups, verdict.dst_groups].map(|set| labels.groups(set).to_vec());
        format!("{from}>{to} {:?} {} {groups:?}", verdict.decision, labels.rule(verdict.rule))
    })
    .collect()
}

type Step = (Vec<(u16, Vec<u8>, bool)>, Option<(u32, Option<u16>, Option<u16>, bool)>);

fn step() -> impl Strategy<Value = Step> {
    let members = (0..GROUPS, prop::collection::vec(0u8..24, 0..6), prop::bool::weighted(0.2));
    let side = || prop::option::of(0..GROUPS);
    (prop::collection::vec(members, 1..3), prop::option::of((0..6u32, side(), side(), any::<bool>())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn in_place_is_as_good_as_anew(
        first in prop::collection::vec(prop::collection::vec(0u8..24, 0..6), usize::from(GROUPS)),
        rules in prop::collection::vec((prop::option::of(0..GROUPS), prop::option::of(0..GROUPS), any::<bool>()), 0..6),
        steps in prop::collection::vec(step(), 1..8),
    ) {
        let action = |allow: bool| if allow { Action::Allow } else { Action::Deny };
        let mut policy = Policy { default: Decision::Deny, ..Policy::default() };
        policy.groups = (0..).zip(&first).map(|(at, hosts)| group(at, hosts, false)).collect();
        policy.rules = (0..).zip(&rules).map(|(n, (from, to, allow))| rule(n, *from, *to, action(*allow))).collect();
        let labels = Arc::new(Labels::new(1000));
        let mut compiler = Compiler::new(policy.clone(), 1, labels.clone(), DEFAULT_MEMORY).unwrap();
        for (generation, (groups, change)) in (2..).zip(steps) {
            let groups: Vec<(GroupIx, Group)> =
                groups.into_iter().map(|(at, hosts, wide)| (GroupIx(at), group(at, &hosts, wide))).collect();
            for (at, group) in &groups {
                policy.groups[usize::from(at.0)] = group.clone();
            }
            let changes: Vec<RuleChange> =
                change.into_iter().map(|(n, from, to, allow)| RuleChange::Put(rule(n, from, to, action(allow)))).collect();
            for change in &changes {
                let RuleChange::Put(rule) = change else { continue };
                policy.rules.retain(|old| old.id != rule.id);
                policy.rules.push(rule.clone());
            }
            // A group that is named twice is what it was named last.
            let mut groups = groups;
            let all = groups.clone();
            groups.retain(|(at, group)| all.iter().rev().find(|(other, _)| other == at).is_some_and(|(_, last)| last == group));
            let before = verdicts(compiler.compiled(), &labels);
            let kept = compiler.compiled().clone();
            let made = compiler.regroup(&groups, &changes, generation).unwrap();
            prop_assert_eq!(made.generation(), generation);
            let own = Labels::new(1000);
            let anew = Compiled::build(&policy, 1, &own).unwrap();
            prop_assert_eq!(verdicts(made, &labels), verdicts(&anew, &own));
            prop_assert_eq!(before, verdicts(&kept, &labels), "who still reads what was, sees what was");
        }
    }
}
