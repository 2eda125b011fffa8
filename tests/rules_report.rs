//! The report on a set of rules against brute force: small policies whose packets can all be tried.
//!
//! Every value that no condition tells apart from another is represented by one packet, so what holds for those holds
//! for all: the tests ask for exact agreement, both ways.
//! `GNOMON_RULES_POLICIES` sets how many policies are tried (default 200), `GNOMON_RULES_SEED` the first seed.

use std::collections::HashSet;

use gnomon::packet::{Mac, Tuple, from_ip_addr};
use gnomon::rules::{
    Action, Decision, Finding, FindingKind, Group, GroupIx, Labels, Match, Mode, Policy, ReportOptions, Rule,
    RuleHandle, RuleReport, Selector, Subject, Tier, Verdict, Witness, analyse, oracle, parse_flow,
};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

struct Draw(Pcg64Mcg);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

const NETS: [&str; 7] =
    ["10.0.0.0/30", "10.0.0.0/31", "10.0.0.2/31", "10.0.0.0/32", "10.0.0.3/32", "0.0.0.0/0", "fd00::/127"];
/// One of each class of addresses that `NETS` tells apart.
const ADDRESSES: [&str; 7] = ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::1", "fe80::1"];
const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([0; 6])];
/// The first two are in conditions, the last stands for all others.
const VLANS: [u16; 3] = [10, 0, 20];
const VNIS: [u32; 3] = [7, 0, 9];
/// Protocol, ports known, destination port, ICMP: one of each class that the conditions below tell apart.
fn services() -> Vec<(u8, bool, u16, (u8, u8))> {
    let mut services = vec![(47, true, 0, (0, 0)), (50, true, 0, (0, 0))];
    for protocol in [6, 17, 132] {
        services.extend([79, 80, 81, 443, 444].map(|port| (protocol, true, port, (0, 0))));
        services.push((protocol, false, 0, (0, 0)));
    }
    for protocol in [1, 58] {
        services.extend([(8, 0), (8, 1), (0, 0)].map(|icmp| (protocol, true, 0, icmp)));
        services.push((protocol, false, 0, (0, 0)));
    }
    services
}

fn selectors(d: &mut Draw, groups: usize) -> Vec<Selector> {
    if d.chance(35) {
        return Vec::new();
    }
    (0..1 + d.below(2))
        .map(|_| match d.chance(25) {
            true => Selector::Group(GroupIx(d.below(groups) as u16)),
            false => Selector::Net(d.pick(&NETS).parse().expect("a network")),
        })
        .collect()
}

fn matches(d: &mut Draw, groups: usize) -> Match {
    let mut m = Match { from: selectors(d, groups), to: selectors(d, groups), ..Match::default() };
    match d.below(6) {
        0 => m.protocol = Some(d.pick(&[6, 17, 1, 47])),
        1 => m.to_ports = vec![d.pick(&[80..=80, 80..=443, 0..=65535])],
        2 => (m.protocol, m.to_ports) = (Some(6), vec![d.pick(&[80..=80, 81..=443, 0..=79])]),
        3 => m.icmp = Some((8, d.chance(50).then_some(0))),
        _ => {}
    }
    m.vlan = d.chance(8).then(|| d.pick(&VLANS[..2]));
    m.vni = d.chance(5).then(|| d.pick(&VNIS[..2]));
    m
}

fn policy(d: &mut Draw) -> Policy {
    let group = |d: &mut Draw, at: usize| Group {
        name: format!("g{at}"),
        nets: (0..d.below(3)).map(|_| d.pick(&NETS).parse().expect("a network")).collect(),
        macs: if d.chance(30) { vec![MACS[0]] } else { vec![] },
        vlans: if d.chance(30) { vec![VLANS[0]] } else { vec![] },
        vnis: if d.chance(20) { vec![VNIS[0]] } else { vec![] },
    };
    let rule = |d: &mut Draw, at: usize| Rule {
        id: format!("r{at}"),
        tier: d.pick(&[Tier::Policy, Tier::Policy, Tier::Threat]),
        priority: d.below(3) as u32,
        mode: d.pick(&[Mode::Enforce, Mode::Enforce, Mode::Enforce, Mode::Enforce, Mode::Shadow, Mode::Disabled]),
        action: d.pick(&[Action::Allow, Action::Allow, Action::Deny, Action::Reject, Action::Log]),
        stateful: d.chance(70),
        matches: matches(d, 3),
    };
    Policy {
        groups: (0..3).map(|at| group(d, at)).collect(),
        rules: (0..1 + d.below(10)).map(|at| rule(d, at)).collect(),
        mirrors: vec![],
        default: d.pick(&[Decision::Allow, Decision::Deny]),
    }
}

/// A packet of every class that the policy tells apart: of what it does not look at, only one value is tried.
fn packets(policy: &Policy) -> Vec<Subject> {
    let (groups, rules) = (&policy.groups, &policy.rules);
    let count = |all: usize, looked_at: bool| if looked_at { all } else { 1 };
    let macs = count(2, groups.iter().any(|group| !group.macs.is_empty()));
    let by_vlan = groups.iter().any(|group| !group.vlans.is_empty());
    let vlans = count(3, by_vlan || rules.iter().any(|rule| rule.matches.vlan.is_some()));
    let by_vni = groups.iter().any(|group| !group.vnis.is_empty());
    let vnis = count(3, by_vni || rules.iter().any(|rule| rule.matches.vni.is_some()));
    let mut links = Vec::new();
    for (src_mac, dst_mac) in MACS[..macs].iter().flat_map(|src| MACS[..macs].iter().map(move |dst| (*src, *dst))) {
        for (vlan, vni) in VLANS[..vlans].iter().flat_map(|vlan| VNIS[..vnis].iter().map(move |vni| (*vlan, *vni))) {
            links.push((src_mac, dst_mac, vlan, vni));
        }
    }
    let mut packets = Vec::new();
    for (src, dst) in ADDRESSES.iter().flat_map(|src| ADDRESSES.iter().map(move |dst| (src, dst))) {
        let ((version, src), (other, dst)) =
            (from_ip_addr(src.parse().expect("IP")), from_ip_addr(dst.parse().expect("IP")));
        if version != other {
            continue;
        }
        for (protocol, ports_known, dst_port, icmp) in services() {
            for (src_mac, dst_mac, vlan, vni) in links.iter().copied() {
                let tuple = Tuple { src, dst, src_port: 5, dst_port, protocol, version, vlan, vni };
                packets.push(Subject { tuple, src_mac, dst_mac, icmp, ports_known });
            }
        }
    }
    packets
}

/// What a packet comes to, as far as the rules' effect goes.
fn outcome(verdict: &Verdict) -> (Decision, bool) {
    (verdict.decision, verdict.stateful)
}

fn without(policy: &Policy, ids: &HashSet<&str>) -> Policy {
    let mut policy = policy.clone();
    policy.rules.retain(|rule| !ids.contains(rule.id.as_str()));
    policy
}

fn report(policy: &Policy) -> RuleReport {
    analyse(policy, None, &ReportOptions::default(), &mut |_, _| {})
}

fn subject(witness: &Witness) -> Subject {
    let mut subject = parse_flow(&witness.flow).expect("a flow that explain takes");
    (subject.tuple.vlan, subject.tuple.vni) = (witness.vlan.unwrap_or(0), witness.vni.unwrap_or(0));
    let mac = |text: &Option<String>| text.as_ref().map_or(Mac::default(), |mac| mac.parse().expect("a MAC"));
    (subject.src_mac, subject.dst_mac) = (mac(&witness.src_mac), mac(&witness.dst_mac));
    subject
}

struct Case {
    policy: Policy,
    labels: Labels,
    packets: Vec<Subject>,
    verdicts: Vec<Verdict>,
    place: String,
}

impl Case {
    fn new(seed: u64) -> Self {
        let policy = policy(&mut Draw(Pcg64Mcg::seed_from_u64(seed)));
        let labels = Labels::new(1000);
        gnomon::rules::Compiled::build(&policy, 1, &labels).expect("compiles");
        let packets = packets(&policy);
        let verdicts = packets.iter().map(|packet| oracle::classify(&policy, 1, &labels, packet)).collect();
        Self { policy, labels, packets, verdicts, place: format!("seed {seed}") }
    }

    fn verdict(&self, policy: &Policy, packet: &Subject) -> Verdict {
        oracle::classify(policy, 1, &self.labels, packet)
    }

    fn handle(&self, id: &str) -> RuleHandle {
        self.labels.rule_handle(id).expect("a rule with an effect")
    }

    /// Every packet gets the same outcome without these rules.
    fn same_without(&self, ids: &[&str]) -> bool {
        let other = without(&self.policy, &ids.iter().copied().collect());
        let mut pairs = self.packets.iter().zip(&self.verdicts);
        pairs.all(|(packet, verdict)| outcome(&self.verdict(&other, packet)) == outcome(verdict))
    }

    /// Rules with an effect that never do anything.
    fn idle(&self) -> HashSet<&str> {
        let mut acting: HashSet<RuleHandle> = HashSet::new();
        for (packet, verdict) in self.packets.iter().zip(&self.verdicts) {
            acting.extend([verdict.rule, verdict.logged]);
            // Each shadow-mode rule alone, for a verdict may not name all.
            for rule in self.policy.rules.iter().filter(|rule| rule.mode == Mode::Shadow) {
                if oracle::matches(&self.policy, &rule.matches, packet) && self.comes_first(rule, verdict) {
                    acting.extend(self.labels.rule_handle(&rule.id));
                }
            }
        }
        let rules = self.policy.rules.iter().filter(|rule| self.labels.rule_handle(&rule.id).is_some());
        rules.filter(|rule| !acting.contains(&self.handle(&rule.id))).map(|rule| rule.id.as_str()).collect()
    }

    fn comes_first(&self, rule: &Rule, verdict: &Verdict) -> bool {
        let decider = self.labels.rule(verdict.rule);
        let order = oracle::evaluation_order(&self.policy);
        let place = |id: &str| order.iter().position(|rule| rule.id == id).unwrap_or(usize::MAX);
        verdict.rule == RuleHandle::DEFAULT || place(&rule.id) < place(&decider)
    }

    fn check_witness(&self, finding: &Finding) {
        let Some(witness) = &finding.witness else { return };
        let (packet, place) = (subject(witness), format!("{}: {finding:?}", self.place));
        let rule = self.policy.rules.iter().find(|rule| rule.id == finding.rule).expect("a rule of the policy");
        assert!(oracle::matches(&self.policy, &rule.matches, &packet), "{place}");
        let decider = self.labels.rule(self.verdict(&self.policy, &packet).rule);
        match finding.kind {
            FindingKind::Redundant => assert_eq!(&*decider, finding.rule, "{place}"),
            FindingKind::Tie | FindingKind::Correlation | FindingKind::Generalization => {
                assert!(finding.others_omitted || finding.others.iter().any(|other| **other == *decider), "{place}");
            }
            _ => {}
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn findings_are_exactly_what_brute_force_finds() {
    let (first, count) = (setting("GNOMON_RULES_SEED", 1), setting("GNOMON_RULES_POLICIES", 200));
    let (mut unreachable, mut redundant, mut ties) = (0, 0, 0);
    for seed in first..first + count {
        let case = Case::new(seed);
        let report = report(&case.policy);
        let place = &case.place;
        assert!(report.unchecked.is_empty(), "{place}: small enough to check everything");
        let of = |kind| report.of_kind(kind).map(|finding| finding.rule.as_str()).collect::<Vec<_>>();
        let (idle, spare) = (of(FindingKind::Unreachable), of(FindingKind::Redundant));
        assert_eq!(idle.iter().copied().collect::<HashSet<_>>(), case.idle(), "{place}");
        for id in idle.iter().chain(&spare) {
            assert!(case.same_without(&[id]), "{place}: {id} alone");
        }
        assert!(case.same_without(&[&idle[..], &spare[..]].concat()), "{place}: all together");
        // What is not reported is needed, given that what is reported goes.
        for rule in case.policy.rules.iter().filter(|r| r.mode == Mode::Enforce && r.action != Action::Log) {
            let id = rule.id.as_str();
            if !idle.contains(&id) && !spare.contains(&id) {
                let all = [&idle[..], &spare[..], &[id]].concat();
                assert!(!case.same_without(&all) || !case.same_without(&[id]), "{place}: {id} could go too");
            }
        }
        report.findings.iter().for_each(|finding| case.check_witness(finding));
        ties += check_conflicts(&case, &report);
        (unreachable, redundant) = (unreachable + idle.len(), redundant + spare.len());
    }
    eprintln!("{count} policies: {unreachable} unreachable, {redundant} redundant, {ties} ties");
    assert!(count < 100 || [unreachable, redundant, ties].into_iter().min() > Some(30), "the generator misses a kind");
}

/// Pairs of rules that contradict each other, with the earlier one deciding: exactly those of the report. Returns the
/// number of ties.
fn check_conflicts(case: &Case, report: &RuleReport) -> usize {
    let mut pairs: HashSet<(FindingKind, &str, &str)> = HashSet::new();
    let idle = case.idle();
    let decides = |rule: &&Rule| rule.mode == Mode::Enforce && rule.action != Action::Log;
    let order: Vec<&Rule> = oracle::evaluation_order(&case.policy).into_iter().filter(decides).collect();
    let stateful = |rule: &Rule| rule.stateful && rule.action == Action::Allow;
    for (at, later) in order.iter().enumerate().filter(|(_, rule)| !idle.contains(rule.id.as_str())) {
        for earlier in &order[..at] {
            let tie = (earlier.tier, earlier.priority) == (later.tier, later.priority);
            let same = earlier.action == later.action && (!tie || stateful(earlier) == stateful(later));
            let both = |rule: &Rule, packet: &Subject| oracle::matches(&case.policy, &rule.matches, packet);
            let first = |verdict: &Verdict| verdict.rule == case.handle(&earlier.id);
            let mut packets = case.packets.iter().zip(&case.verdicts);
            if !same && packets.any(|(packet, verdict)| first(verdict) && both(later, packet)) {
                let holds = case.packets.iter().all(|packet| !both(earlier, packet) || both(later, packet));
                let kind = match (tie, holds) {
                    (true, _) => FindingKind::Tie,
                    (false, true) => FindingKind::Generalization,
                    (false, false) => FindingKind::Correlation,
                };
                pairs.insert((kind, &later.id, &earlier.id));
            }
        }
    }
    let kinds = [FindingKind::Tie, FindingKind::Generalization, FindingKind::Correlation];
    let found = report.findings.iter().filter(|finding| kinds.contains(&finding.kind));
    let found = found.flat_map(|finding| finding.others.iter().map(move |o| (finding.kind, &*finding.rule, &**o)));
    assert_eq!(found.collect::<HashSet<_>>(), pairs, "{}", case.place);
    pairs.iter().filter(|(kind, ..)| *kind == FindingKind::Tie).count()
}
