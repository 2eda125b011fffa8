//! Random policies and packets: the compiled structure and the explanation agree with the naive matcher.
//!
//! `GNOMON_RULES_POLICIES` sets how many policies are tried (default 150), `GNOMON_RULES_SEED` the seed.
//! A failure prints the seed of its policy; `GNOMON_RULES_SEED=<that> GNOMON_RULES_POLICIES=1` repeats it.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use gnomon::packet::{Addr, Mac, Tuple, from_ip_addr};
use gnomon::rules::{
    Action, Compiled, Compiler, DEFAULT_MEMORY, Decision, Group, GroupIx, Labels, Match, MirrorMatch, Mode, Policy,
    Publisher, Reader, Rule, RuleChange, Selector, Subject, Tier, Verdict, explain, oracle, reply_to,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

const SUBJECTS: usize = 200;
const VLANS: [u16; 6] = [0, 1, 10, 20, 30, 4094];
const VNIS: [u32; 6] = [0, 1, 7, 5000, 5001, 0xff_ffff];
const PORTS: [u16; 9] = [0, 1, 22, 80, 443, 1023, 1024, 65534, 65535];
const PROTOCOLS: [u8; 8] = [6, 17, 132, 1, 58, 47, 0, 255];

/// Draws what tests need from one seeded stream.
struct Draw(Pcg64Mcg);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn list<T>(&mut self, most: usize, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| item(self)).collect()
    }

    fn mac(&mut self) -> Mac {
        Mac([2, 0, 0, 0, 0, self.below(8) as u8])
    }

    /// Prefixes that overlap a lot, with and without host bits, up to the whole space.
    fn net(&mut self) -> IpNet {
        if self.chance(60) {
            let addr = 0x0a00_0000 | (self.below(4) << 16 | self.below(4) << 8 | self.below(256)) as u32;
            let len = self.pick(&[0, 7, 8, 14, 16, 22, 24, 25, 30, 31, 32]);
            IpNet::V4(Ipv4Net::new(addr.into(), len).expect("length up to 32"))
        } else {
            let addr = 0xfd00 << 112 | (self.below(4) as u128) << 64 | self.below(256) as u128;
            let len = self.pick(&[0, 8, 48, 62, 64, 65, 120, 127, 128]);
            IpNet::V6(Ipv6Net::new(addr.into(), len).expect("length up to 128"))
        }
    }

    fn group(&mut self, at: usize) -> Group {
        Group {
            name: format!("group-{at}"),
            nets: self.list(4, Self::net),
            macs: if self.chance(40) { self.list(3, Self::mac) } else { vec![] },
            vlans: if self.chance(30) { self.list(2, |d| d.pick(&VLANS)) } else { vec![] },
            vnis: if self.chance(30) { self.list(2, |d| d.pick(&VNIS)) } else { vec![] },
        }
    }

    fn selectors(&mut self, groups: usize) -> Vec<Selector> {
        if self.chance(30) {
            return vec![];
        }
        self.list(3, |d| {
            if groups > 0 && d.chance(70) {
                Selector::Group(GroupIx(d.below(groups) as u16))
            } else {
                Selector::Net(d.net())
            }
        })
    }

    #[allow(clippy::reversed_empty_ranges)]
    fn ports(&mut self) -> Vec<RangeInclusive<u16>> {
        if self.chance(70) {
            return vec![];
        }
        self.list(3, |d| {
            let (a, b) = (d.pick(&PORTS), d.pick(&PORTS));
            if d.chance(5) { a.max(b)..=a.min(b) } else { a.min(b)..=a.max(b) }
        })
    }

    fn matches(&mut self, groups: usize) -> Match {
        Match {
            from: self.selectors(groups),
            to: self.selectors(groups),
            protocol: self.chance(40).then(|| self.pick(&PROTOCOLS)),
            from_ports: if self.chance(30) { self.ports() } else { vec![] },
            to_ports: self.ports(),
            icmp: self.chance(10).then(|| (self.pick(&[0, 8, 128, 255]), self.chance(50).then(|| self.pick(&[0, 1])))),
            vlan: self.chance(10).then(|| self.pick(&VLANS)),
            vni: self.chance(10).then(|| self.pick(&VNIS)),
        }
    }

    fn rule(&mut self, at: usize, groups: usize) -> Rule {
        Rule {
            id: format!("r{}-{at}", self.below(10)),
            tier: self.pick(&[Tier::Override, Tier::Threat, Tier::Policy, Tier::Policy, Tier::Learned, Tier::Default]),
            priority: self.below(5) as u32,
            mode: self.pick(&[Mode::Enforce, Mode::Enforce, Mode::Enforce, Mode::Shadow, Mode::Disabled]),
            action: self.pick(&[Action::Allow, Action::Allow, Action::Deny, Action::Reject, Action::Log]),
            stateful: self.chance(50),
            matches: self.matches(groups),
        }
    }

    fn mirror(&mut self, groups: usize) -> MirrorMatch {
        let decisions = [Decision::Allow, Decision::Deny, Decision::Reject];
        MirrorMatch { any_of: self.list(3, |d| d.matches(groups)), decisions: self.list(2, |d| d.pick(&decisions)) }
    }

    fn policy(&mut self) -> Policy {
        let groups = self.below(7);
        // Now and then enough rows for tables of several levels.
        let most = if self.chance(3) { 5000 } else { self.pick(&[4, 20, 70, 200]) };
        let mirrors = if self.chance(10) { 64 } else { self.below(6) };
        Policy {
            groups: (0..groups).map(|at| self.group(at)).collect(),
            rules: (0..self.below(most + 1)).map(|at| self.rule(at, groups)).collect(),
            mirrors: (0..mirrors).map(|_| self.mirror(groups)).collect(),
            default: self.pick(&[Decision::Allow, Decision::Deny, Decision::Reject]),
        }
    }

    fn subject(&mut self, policy: &Policy) -> Subject {
        let version = self.pick(&[4, 4, 6]);
        let nets: Vec<IpNet> = nets_of(policy).filter(|net| (version == 4) == net.addr().is_ipv4()).collect();
        Subject {
            tuple: Tuple {
                src: self.address(version, &nets),
                dst: self.address(version, &nets),
                src_port: self.port(policy),
                dst_port: self.port(policy),
                protocol: self.pick(&PROTOCOLS),
                version,
                vlan: if self.chance(90) { self.pick(&VLANS) } else { self.below(4096) as u16 },
                vni: if self.chance(90) { self.pick(&VNIS) } else { self.0.next_u32() & 0xff_ffff },
            },
            src_mac: self.mac(),
            dst_mac: self.mac(),
            icmp: (self.pick(&[0, 8, 128, 255, 3]), self.pick(&[0, 1, 255])),
            ports_known: self.chance(90),
        }
    }

    /// Mostly first, last and neighbouring addresses of the policy's prefixes.
    fn address(&mut self, version: u8, nets: &[IpNet]) -> Addr {
        let max = if version == 4 { Addr::from(u32::MAX) } else { Addr::MAX };
        if nets.is_empty() || self.chance(10) {
            return (u128::from(self.0.next_u64()) << 64 | u128::from(self.0.next_u64())) & max;
        }
        let net = nets[self.below(nets.len())];
        let (first, last) = (number(net.network()), number(net.broadcast()));
        match self.below(5) {
            0 => first,
            1 => last,
            2 => first.saturating_sub(1),
            3 => last.saturating_add(1).min(max),
            _ => first + (last - first) / 2,
        }
    }

    fn port(&mut self, policy: &Policy) -> u16 {
        let rule = (!policy.rules.is_empty()).then(|| &policy.rules[self.below(policy.rules.len())].matches);
        match rule.and_then(|m| m.to_ports.first().or(m.from_ports.first())) {
            Some(range) if self.chance(60) => self.pick(&[
                *range.start(),
                *range.end(),
                range.start().saturating_sub(1),
                range.end().saturating_add(1),
            ]),
            _ => self.pick(&PORTS),
        }
    }
}

fn nets_of(policy: &Policy) -> impl Iterator<Item = IpNet> {
    let of_rules = policy.rules.iter().flat_map(|rule| rule.matches.from.iter().chain(&rule.matches.to));
    let selected = of_rules.filter_map(|selector| match selector {
        Selector::Net(net) => Some(*net),
        Selector::Group(_) => None,
    });
    policy.groups.iter().flat_map(|group| group.nets.iter().copied()).chain(selected)
}

fn number(ip: IpAddr) -> Addr {
    from_ip_addr(ip).1
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[derive(Default)]
struct Seen {
    decided: u64,
    by_default: u64,
    logged: u64,
    shadow: u64,
    mirrored: u64,
    stateful: u64,
    grouped: u64,
}

#[test]
fn compiled_and_explanation_agree_with_the_naive_matcher() {
    let (first, count) = (setting("GNOMON_RULES_SEED", 1), setting("GNOMON_RULES_POLICIES", 150));
    let labels = Labels::new(1_000_000);
    let mut seen = Seen::default();
    for seed in first..first + count {
        let mut draw = Draw(Pcg64Mcg::seed_from_u64(seed));
        let policy = draw.policy();
        let generation = seed as u32;
        let compiled = Compiled::build(&policy, generation, &labels).expect("a valid policy compiles");
        assert!(compiled.group_sets_exact());
        for at in 0..SUBJECTS {
            let subject = draw.subject(&policy);
            let expected = oracle::classify(&policy, generation, &labels, &subject);
            let verdict = compiled.classify(&subject);
            assert_eq!(verdict, expected, "seed {seed}, subject {at}: {subject:?}");
            // Explaining is slow; a few per policy are plenty.
            if at % 40 == 0 {
                explained(&policy, &compiled, &labels, &subject, seed);
            }
            count_kinds(&mut seen, &verdict);
        }
    }
    let Seen { decided, by_default, logged, shadow, mirrored, stateful, grouped } = seen;
    eprintln!(
        "{} packets: {decided} decided by a rule ({stateful} stateful), {by_default} by default, {logged} logged, \
         {shadow} with shadow, {mirrored} mirrored, {grouped} between groups",
        count * SUBJECTS as u64
    );
    if count >= 100 {
        let least = [decided, by_default, logged, shadow, mirrored, stateful, grouped].into_iter().min();
        assert!(least > Some(500), "the generator misses a kind of verdict");
    }
}

fn count_kinds(seen: &mut Seen, verdict: &Verdict) {
    seen.decided += u64::from(verdict.rule.0 != 0);
    seen.by_default += u64::from(verdict.rule.0 == 0);
    seen.logged += u64::from(verdict.logged.0 != 0);
    seen.shadow += u64::from(!verdict.shadows.is_empty());
    seen.mirrored += u64::from(verdict.mirrors != 0);
    seen.stateful += u64::from(verdict.stateful);
    seen.grouped += u64::from(verdict.src_groups.0 != 0 && verdict.dst_groups.0 != 0);
}

fn explained(policy: &Policy, compiled: &Compiled, labels: &Labels, subject: &Subject, seed: u64) {
    let verdict = compiled.classify(subject);
    let explanation = explain(policy, compiled, labels, subject);
    assert!(explanation.consistent, "seed {seed}: {subject:?}\n{explanation}");
    assert_eq!(explanation.decision, verdict.decision, "seed {seed}");
    assert_eq!(explanation.tier, verdict.tier, "seed {seed}");
    assert_eq!(explanation.rule, &*labels.rule(verdict.rule), "seed {seed}");
    let id = |handle: gnomon::rules::RuleHandle| (handle.0 != 0).then(|| labels.rule(handle).to_string());
    assert_eq!(explanation.logged, id(verdict.logged), "seed {seed}");
    let shadows: Vec<_> = compiled.shadows(&verdict).map(|rule| labels.rule(rule).to_string()).collect();
    if verdict.shadows.is_cut() {
        assert!(shadows.iter().all(|id| explanation.shadow.contains(id)), "seed {seed}");
        assert!(shadows.len() < explanation.shadow.len(), "seed {seed}");
    } else {
        assert_eq!(explanation.shadow, shadows, "seed {seed}");
    }
    let mirrors = explanation.mirrors.iter().fold(0, |mask, mirror| mask | 1u64 << mirror.session);
    assert_eq!(mirrors, verdict.mirrors, "seed {seed}");
    for (memberships, handle) in
        [(&explanation.source.groups, verdict.src_groups), (&explanation.destination.groups, verdict.dst_groups)]
    {
        let mut names: Vec<&str> = memberships.iter().map(|membership| membership.group.as_str()).collect();
        names.sort_unstable();
        let expected = labels.groups(handle);
        assert_eq!(names, expected.iter().map(|name| &**name).collect::<Vec<_>>(), "seed {seed}");
    }
    let reply = compiled.classify(&reply_to(subject));
    let passes = verdict.decision == Decision::Allow && (verdict.stateful || reply.decision == Decision::Allow);
    assert_eq!(explanation.replies.pass, passes, "seed {seed}");
}

/// Commits of a few rules at a time give what a build of the whole policy would give, and leave replaced generations
/// as they were.
#[test]
fn commits_agree_with_the_naive_matcher() {
    let mut draw = Draw(Pcg64Mcg::seed_from_u64(0x00c0_3317));
    for _ in 0..20 {
        let labels = Arc::new(Labels::new(10_000));
        let policy = draw.policy();
        let groups = policy.groups.len();
        let subjects: Vec<Subject> = (0..60).map(|_| draw.subject(&policy)).collect();
        let mut compiler = Compiler::new(policy, 1, labels.clone(), DEFAULT_MEMORY).expect("a valid policy compiles");
        let mut kept = vec![(compiler.compiled().clone(), compiler.policy())];
        for generation in 2..25 {
            let before = compiler.policy();
            let mut changes = Vec::new();
            let mut ids: Vec<String> = before.rules.iter().map(|rule| rule.id.clone()).collect();
            for at in 0..1 + draw.below(4) {
                if !ids.is_empty() && draw.chance(40) {
                    changes.push(RuleChange::Remove(ids.swap_remove(draw.below(ids.len()))));
                } else {
                    let mut rule = draw.rule(100 * generation + at, groups);
                    if !ids.is_empty() && draw.chance(30) {
                        rule.id = ids[draw.below(ids.len())].clone();
                    } else {
                        ids.push(rule.id.clone());
                    }
                    changes.push(RuleChange::Put(rule));
                }
            }
            compiler.commit(&changes, generation as u32).expect("valid changes");
            kept.push((compiler.compiled().clone(), compiler.policy()));
            if kept.len() > 3 {
                kept.remove(draw.below(3));
            }
            for (compiled, policy) in &kept {
                for subject in &subjects {
                    let expected = oracle::classify(policy, compiled.generation(), &labels, subject);
                    assert_eq!(compiled.classify(subject), expected, "{subject:?} after {changes:?}");
                }
            }
            // What cannot be done changes nothing.
            let before = compiler.policy();
            let refused = [changes[0].clone(), RuleChange::Remove("never-there".to_owned())];
            assert!(compiler.commit(&refused, 9999).is_err());
            assert_eq!((compiler.policy(), compiler.compiled().generation()), (before, generation as u32));
        }
    }
}

#[test]
fn a_policy_beyond_the_memory_limit_is_refused_with_its_costliest_rules() {
    let net = |at: u32| Selector::Net(IpNet::V4(Ipv4Net::new((at << 8).into(), 24).expect("length up to 32")));
    let wide = Match { from: (0..2000).map(net).collect(), to: (5000..7000).map(net).collect(), ..Match::default() };
    let rule = |id: &str, matches: Match| Rule {
        id: id.to_owned(),
        tier: Tier::Policy,
        priority: 0,
        mode: Mode::Enforce,
        action: Action::Deny,
        stateful: false,
        matches,
    };
    let one = Match { from: vec![net(1)], ..Match::default() };
    let labels = Arc::new(Labels::new(10));
    let policy = Policy { rules: vec![rule("small", one.clone()), rule("wide", wide.clone())], ..Policy::default() };
    let error = Compiler::new(policy, 1, labels.clone(), 1 << 20).expect_err("four million rows");
    assert!(error.to_string().contains("`wide` (4000000 rows)"), "{error}");

    let policy = Policy { rules: vec![rule("small", one)], ..Policy::default() };
    let mut compiler = Compiler::new(policy.clone(), 1, labels, 1 << 22).expect("one rule is affordable");
    let error = compiler.commit(&[RuleChange::Put(rule("wide", wide))], 2).expect_err("too much");
    assert!(error.to_string().contains("`wide`") && error.to_string().contains("limits.policy_memory"), "{error}");
    assert_eq!((compiler.policy(), compiler.compiled().generation()), (policy, 1));
}

/// Two policies take turns; workers see one or the other, whole, and never anything else.
#[test]
fn under_churn_every_verdict_is_before_or_after() {
    const LAST: u32 = 400;
    let mut draw = Draw(Pcg64Mcg::seed_from_u64(77));
    let (even, odd) = (draw.policy(), draw.policy());
    let labels = Arc::new(Labels::new(10_000));
    let subjects: Vec<Subject> = (0..64).map(|at| draw.subject(if at % 2 == 0 { &even } else { &odd })).collect();
    let build = |generation: u32| {
        let policy = if generation.is_multiple_of(2) { &even } else { &odd };
        Compiled::build(policy, generation, &labels).expect("a valid policy compiles")
    };
    let verdicts = |generation| subjects.iter().map(|subject| build(generation).classify(subject)).collect::<Vec<_>>();
    let expected = [verdicts(0), verdicts(1)];
    assert_ne!(expected[0], expected[1]);
    let mut publisher = Publisher::new(build(1)).expect("the first generation");
    let readers: Vec<_> = (0..2).map(|_| publisher.reader()).collect();
    let adopted = std::thread::scope(|scope| {
        let workers: Vec<_> =
            readers.into_iter().map(|reader| scope.spawn(|| follow(reader, &subjects, &expected, LAST))).collect();
        for generation in 2..=LAST {
            publisher.publish(build(generation)).expect("ascending");
            // A set that does not compile changes nothing.
            let twice = Policy { groups: vec![Group::default(), Group::default()], ..Policy::default() };
            assert!(Compiled::build(&twice, generation + 1, &labels).is_err());
            assert_eq!(publisher.current().generation(), generation);
            publisher.reclaim();
            // Now and then let everybody catch up, so that changes are seen however busy the machine is. A
            // worker that stopped reports more than any generation.
            while generation % 50 == 0 && publisher.generations().iter().any(|at| *at < generation) {
                std::thread::yield_now();
            }
        }
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect::<Vec<_>>()
    });
    publisher.reclaim();
    assert_eq!((publisher.retired(), publisher.generations()), (0, vec![u32::MAX; 2]));
    assert!(adopted.iter().all(|count| *count >= 8), "workers saw changes: {adopted:?}");
}

/// Classifies until the last generation arrives; returns how many generations were adopted.
fn follow(mut reader: Reader<Compiled>, subjects: &[Subject], expected: &[Vec<Verdict>; 2], last: u32) -> usize {
    let mut adopted = 0;
    loop {
        adopted += usize::from(reader.refresh());
        let generation = reader.generation();
        for (subject, expected) in subjects.iter().zip(&expected[generation as usize % 2]) {
            assert_eq!(reader.get().classify(subject), Verdict { generation, ..*expected });
        }
        if generation == last {
            return adopted;
        }
    }
}

/// A policy as a site with many groups has it: groups of VM addresses and prefixes, rules between groups.
fn site(draw: &mut Draw, rules: usize) -> Policy {
    let count = (rules / 5).clamp(10, 2000);
    let groups = (0..count).map(|at| {
        let host =
            |d: &mut Draw| IpNet::from(std::net::IpAddr::from((0x0a00_0000 | d.below(1 << 16) as u32).to_be_bytes()));
        let subnet = 0x0a00_0000 | (at as u32 % 256) << 8;
        let mut nets = draw.list(8, host);
        nets.push(IpNet::V4(Ipv4Net::new(subnet.into(), 24).expect("a length")));
        nets.push(IpNet::V6(Ipv6Net::new((0xfd00 << 112 | (at as u128) << 64).into(), 64).expect("a length")));
        Group { name: format!("g{at}"), nets, ..Group::default() }
    });
    let groups: Vec<Group> = groups.collect();
    let rule = |at: usize| {
        let group = |d: &mut Draw| vec![Selector::Group(GroupIx(d.below(count) as u16))];
        let port = draw.below(2000) as u16;
        let matches = Match {
            from: group(draw),
            to: group(draw),
            protocol: Some(draw.pick(&[6, 6, 6, 17])),
            to_ports: if draw.chance(80) { vec![port..=port] } else { vec![] },
            ..Match::default()
        };
        let action = draw.pick(&[Action::Allow, Action::Allow, Action::Allow, Action::Deny]);
        let (tier, mode) = (Tier::Policy, Mode::Enforce);
        Rule { id: format!("r{at}"), tier, priority: draw.below(1000) as u32, mode, action, stateful: true, matches }
    };
    Policy { rules: (0..rules).map(rule).collect(), groups, mirrors: vec![], default: Decision::Deny }
}

/// Makes a packet match some rule.
fn aim(draw: &mut Draw, subject: &mut Subject, policy: &Policy) {
    let m = &policy.rules[draw.below(policy.rules.len())].matches;
    let mut member = |selectors: &[Selector]| match selectors.first() {
        Some(Selector::Group(group)) => {
            let v4 = policy.groups[usize::from(group.0)].nets.iter().filter(|net| net.addr().is_ipv4());
            let v4: Vec<IpNet> = v4.copied().collect();
            number(v4[draw.below(v4.len())].addr())
        }
        _ => 0,
    };
    (subject.tuple.src, subject.tuple.dst) = (member(&m.from), member(&m.to));
    subject.tuple.version = 4;
    subject.tuple.protocol = m.protocol.unwrap_or(6);
    subject.tuple.dst_port = m.to_ports.first().map_or(80, |range| *range.start());
    subject.ports_known = true;
}

/// `cargo test --release --test rules_properties -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, for --release"]
fn measure_classify() {
    for rules in [100, 1000, 10_000] {
        let mut draw = Draw(Pcg64Mcg::seed_from_u64(9));
        let policy = site(&mut draw, rules);
        let labels = Labels::new(100_000);
        let start = std::time::Instant::now();
        let compiled = Compiled::build(&policy, 1, &labels).expect("compiles");
        let build = start.elapsed();
        let mut subjects: Vec<Subject> = (0..4096).map(|_| draw.subject(&policy)).collect();
        for (at, subject) in subjects.iter_mut().enumerate() {
            subject.tuple.protocol = draw.pick(&[6, 17]);
            subject.tuple.dst_port = draw.below(2000) as u16;
            if at % 2 == 0 {
                aim(&mut draw, subject, &policy);
            }
        }
        let mut best = f64::MAX;
        let mut decided = 0;
        for _ in 0..20 {
            let start = std::time::Instant::now();
            decided = subjects.iter().filter(|subject| compiled.classify(subject).rule.0 != 0).count();
            best = best.min(start.elapsed().as_nanos() as f64 / subjects.len() as f64);
        }
        let expected = subjects.iter().take(200).map(|subject| oracle::classify(&policy, 1, &labels, subject));
        for (subject, expected) in subjects.iter().zip(expected) {
            assert_eq!(compiled.classify(subject), expected);
        }
        println!(
            "{rules} rules: {best:.0} ns a packet, {decided} of {} decided by a rule, build {build:.1?}, {} KiB",
            subjects.len(),
            compiled.memory_bytes() / 1024
        );
    }
}
