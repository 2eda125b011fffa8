//! What is suggested of small worlds, and what answers do.

use std::sync::Arc;

use proptest::prelude::*;

use super::traffic::tests::{DAY, flow, place};
use super::*;
use crate::policy::learning::{Place, Seen};
use crate::rules::{Action, Decision, Mode, Tier};

fn rule(id: &str, from: &[&str], to: &[&str], ports: &[(u16, u16)], action: Action, priority: u32) -> Standing {
    let ends = |names: &[&str]| names.iter().map(|name| Endpoint::group(name)).collect();
    Standing {
        id: id.into(),
        from: ends(from),
        to: ends(to),
        protocol: Some(6),
        ports: ports.to_vec(),
        icmp_type: None,
        has_more: false,
        action,
        tier: Tier::Policy,
        priority,
        mode: Mode::Enforce,
        hits: 0,
        last_hit: None,
        since: None,
        origin: "person".into(),
    }
}

/// Denied unless a rule allows; web is 10.0.0/24, app 10.0.1/24, db 10.0.2/24.
fn book(rules: Vec<Standing>) -> Rulebook {
    let names = ["web", "app", "db"];
    let groups = (0..).zip(names).map(|(n, name)| {
        let net = format!("10.0.{n}.0/24").parse().unwrap();
        (Arc::from(name), Members { nets: vec![net], tags: vec![format!("role={name}")] })
    });
    Rulebook { rules, default: Decision::Deny, groups: groups.collect(), ..Rulebook::default() }
}

fn vm(group: &str, number: usize) -> Place {
    let net = ["web", "app", "db"].iter().position(|name| *name == group).unwrap();
    place(&format!("10.0.{net}.{number}"), &[group])
}

/// Every VM of four of a group talks to each of two of another one, on each day.
fn habit(traffic: &mut Traffic, from: &str, to: &str, port: u16, days: std::ops::Range<u64>, rule: Option<&str>) {
    for (client, server, day) in days.flat_map(|day| (1..5).flat_map(move |c| (1..3).map(move |s| (c, s, day)))) {
        let one = flow(vm(from, client), vm(to, server), port, day, rule);
        let at = one.start + (client as u64) * 3_600_000_000_000;
        traffic.observe(&Seen { start: at, end: at + 1_000_000_000, flow_id: at / 1_000_000_000 + port as u64, ..one });
    }
}

fn found(traffic: &Traffic, book: &Rulebook) -> Vec<Suggestion> {
    suggest(traffic, book, &Settings { top: 100, ..Settings::default() }, &Feedback::default())
}

fn of_kind(all: &[Suggestion], kind: Kind) -> Vec<&Suggestion> {
    all.iter().filter(|one| one.kind == kind).collect()
}

fn traffic() -> Traffic {
    Traffic::new(Limit::default())
}

#[test]
fn what_a_group_does_every_day_is_to_be_allowed_and_asked_once() {
    let mut traffic = traffic();
    habit(&mut traffic, "web", "app", 80, 0..5, None);
    let book = book(vec![]);
    let all = found(&traffic, &book);
    let [one] = of_kind(&all, Kind::Allow)[..] else { panic!("{all:#?}") };
    assert_eq!(one.change.text(), "allow web > app tcp 80");
    assert_eq!((one.what_if.allowed, one.what_if.refused, one.evidence.flows), (40, 0, 40));
    assert_eq!((one.what_if.before.misdropped, one.what_if.after.misdropped), (40, 0));
    assert_eq!((one.coverage.before, one.coverage.after), (0.0, 1.0));
    assert!(one.confidence.fused > 0.8 && one.evidence.flow_ids.len() == 3, "{one:?}");
    assert_eq!(one.id, of_kind(&found(&traffic, &book), Kind::Allow)[0].id);

    let mut feedback = Feedback::default();
    let answer = Answer { accepted: false, reason: "not yet".into(), at: 1 };
    feedback.answer(one, &context(&book, one), &answer);
    let again = |traffic: &Traffic| {
        let all = suggest(traffic, &book, &Settings::default(), &feedback);
        of_kind(&all, Kind::Allow).len()
    };
    assert_eq!(again(&traffic), 0, "answered");
    habit(&mut traffic, "web", "app", 80, 5..7, None);
    assert_eq!(again(&traffic), 0, "little is new");
    habit(&mut traffic, "web", "app", 80, 7..11, None);
    assert_eq!(again(&traffic), 1, "twice as much was seen");
}

#[test]
fn what_one_of_many_tries_or_a_person_refused_is_not() {
    let mut traffic = traffic();
    habit(&mut traffic, "web", "app", 80, 0..5, Some("r"));
    for n in 0..50 {
        traffic.observe(&flow(vm("web", 1), vm("db", 1), 1433, n % 5, None));
    }
    habit(&mut traffic, "app", "web", 22, 0..5, None);
    let allowed = rule("r", &["web"], &["app"], &[(80, 80)], Action::Allow, 1);
    let closed = rule("closed", &["app"], &["web"], &[], Action::Deny, 2);
    habit(&mut traffic, "app", "db", 5432, 0..5, Some("db"));
    let all =
        found(&traffic, &book(vec![allowed, closed, rule("db", &["app"], &["db"], &[(5432, 5432)], Action::Allow, 3)]));
    assert!(of_kind(&all, Kind::Allow).is_empty(), "{all:#?}");
}

#[test]
fn attackers_are_refused_where_they_come_in() {
    let mut traffic = traffic();
    habit(&mut traffic, "web", "app", 80, 0..4, Some("r"));
    for n in 0..20 {
        let attack = flow(place("192.0.2.9", &[]), vm("app", 1), 22, 1, Some("ssh"));
        traffic.observe(&Seen { attack: true, flow_id: n + 1, ..attack });
    }
    let ssh = Standing { from: vec![], ..rule("ssh", &[], &["app"], &[(22, 22)], Action::Allow, 7) };
    let all = found(&traffic, &book(vec![rule("r", &["web"], &["app"], &[(80, 80)], Action::Allow, 1), ssh]));
    let [one] = of_kind(&all, Kind::Deny)[..] else { panic!("{all:#?}") };
    assert_eq!(one.change.text(), "deny 192.0.2.9 > app tcp 22");
    assert_eq!((one.change.added()[0].priority, one.what_if.refused, one.what_if.after.escaped), (7, 20, 0));
    assert_eq!(one.conflicts.iter().map(|conflict| conflict.rule.as_str()).collect::<Vec<_>>(), ["ssh"]);
}

#[test]
fn broad_rules_are_split_by_what_was_used() {
    let mut traffic = traffic();
    habit(&mut traffic, "web", "app", 80, 0..4, Some("wide"));
    habit(&mut traffic, "web", "app", 8080, 0..4, Some("wide"));
    let book = book(vec![rule("wide", &["web"], &["app"], &[], Action::Allow, 5)]);
    let all = found(&traffic, &book);
    let [one] = of_kind(&all, Kind::Narrow)[..] else { panic!("{all:#?}") };
    assert_eq!(one.change.text(), "remove wide; allow web > app tcp 80,8080");
    assert_eq!((one.what_if.allowed, one.what_if.refused), (0, 0));
    let text = one.change.toml();
    assert!(text.contains("ports = [80, 8080]") && text.contains("# remove the rule \"wide\""), "{text}");
}

#[test]
fn rules_that_never_act_come_first_or_go() {
    let mut traffic = traffic();
    habit(&mut traffic, "app", "db", 5432, 0..4, Some("closed"));
    for row in 0..traffic.len() {
        // What the rule recorded is that it refused.
        traffic.rows[row].key.decision = 1;
    }
    let closed = Standing { from: vec![], ..rule("closed", &[], &["db"], &[], Action::Deny, 10) };
    let late = rule("late", &["app"], &["db"], &[(5432, 5432)], Action::Allow, 20);
    let unused = rule("unused", &["web"], &["app"], &[(99, 99)], Action::Allow, 30);
    let all = found(&traffic, &book(vec![closed, late, unused]));
    let [one] = of_kind(&all, Kind::Reorder)[..] else { panic!("{all:#?}") };
    assert_eq!((one.change.text().as_str(), one.what_if.allowed), ("late: priority 9 instead of 20", 32));
    let retired: Vec<String> = of_kind(&all, Kind::Retire).iter().map(|one| one.change.text()).collect();
    assert_eq!(retired, ["remove unused"]);
}

#[test]
fn busy_rules_go_to_the_front_where_nothing_changes() {
    let mut traffic = traffic();
    habit(&mut traffic, "web", "app", 80, 0..4, Some("busy"));
    let mut rules: Vec<Standing> =
        (0..5u16).map(|n| rule(&format!("r{n}"), &["web"], &["db"], &[(n, n)], Action::Allow, 10)).collect();
    rules.push(rule("busy", &["web"], &["app"], &[(80, 80)], Action::Allow, 50));
    let all = found(&traffic, &book(rules.clone()));
    let [one] = of_kind(&all, Kind::Reorder)[..] else { panic!("{all:#?}") };
    assert_eq!(
        (one.change.text().as_str(), one.what_if.allowed + one.what_if.refused),
        ("busy: priority 9 instead of 50", 0)
    );
    // Not past a rule that decides some of the same otherwise.
    rules.push(rule("guard", &["web"], &["app"], &[(70, 90)], Action::Deny, 49));
    assert!(of_kind(&found(&traffic, &book(rules)), Kind::Reorder).iter().all(|one| !one.about.starts_with("busy")));
}

#[test]
fn bursts_that_are_over_get_an_exception_that_ends() {
    let mut traffic = traffic();
    habit(&mut traffic, "web", "app", 80, 0..6, Some("r"));
    habit(&mut traffic, "app", "db", 22, 2..3, None);
    habit(&mut traffic, "app", "db", 22, 2..3, None);
    habit(&mut traffic, "app", "db", 22, 2..3, None);
    let all = found(&traffic, &book(vec![rule("r", &["web"], &["app"], &[(80, 80)], Action::Allow, 1)]));
    assert!(of_kind(&all, Kind::Allow).is_empty());
    let [one] = of_kind(&all, Kind::Temporary)[..] else { panic!("{all:#?}") };
    let end = 20_005 * DAY;
    let expires = one.change.added()[0].expires.unwrap();
    assert!(expires > end && expires < end + 2 * DAY, "{expires}");
}

#[test]
fn a_vm_belongs_to_the_group_that_it_behaves_like() {
    let mut traffic = traffic();
    habit(&mut traffic, "web", "app", 80, 0..4, Some("r"));
    habit(&mut traffic, "app", "db", 5432, 0..4, Some("q"));
    // Tagged as one of web, and it does what those of app do.
    let lost = |day: u64| flow(vm("web", 99), vm("db", 1), 5432, day, None);
    for day in 0..4 {
        (0..5).for_each(|_| traffic.observe(&lost(day)));
        traffic.observe(&flow(vm("web", 1), vm("web", 99), 80, day, None));
        traffic.observe(&flow(vm("web", 2), vm("web", 99), 80, day, None));
    }
    let rules = vec![
        rule("r", &["web"], &["app"], &[(80, 80)], Action::Allow, 1),
        rule("q", &["app"], &["db"], &[(5432, 5432)], Action::Allow, 2),
    ];
    let all = found(&traffic, &book(rules));
    let moves: Vec<String> = of_kind(&all, Kind::Move).iter().map(|one| one.change.text()).collect();
    assert_eq!(moves, ["vm-10.0.0.99: from web to app"], "{all:#?}");
    assert!(of_kind(&all, Kind::Move)[0].what_if.allowed > 0);
    assert!(of_kind(&all, Kind::Allow).is_empty(), "the group is not to blame: {all:#?}");
}

#[test]
fn what_takes_most_bytes_is_told() {
    let mut traffic = traffic();
    habit(&mut traffic, "web", "app", 80, 0..4, Some("r"));
    traffic.observe(&Seen { bytes: 1 << 40, ..flow(vm("app", 1), vm("db", 1), 873, 1, Some("r")) });
    let all = found(&traffic, &book(vec![rule("r", &[], &[], &[(1, 900)], Action::Allow, 1)]));
    let told: Vec<&str> = of_kind(&all, Kind::Path).iter().map(|one| one.about.as_str()).collect();
    assert_eq!(told, ["app > db tcp 873"]);
}

#[test]
fn trust_comes_of_what_became_of_it() {
    let mut feedback = Feedback::default();
    let around = Surroundings::default();
    let context = Context::new(Kind::Allow, &Confidence::of([0.9; 5]), &Evidence::default(), &around);
    assert!((feedback.trust(Kind::Allow) - 0.5).abs() < 1e-9);
    (0..8).for_each(|_| feedback.aftermath(Kind::Allow, &context, Aftermath::Hit));
    let good = feedback.trust(Kind::Allow);
    assert!(good > 0.85, "{good}");
    feedback.aftermath(Kind::Allow, &context, Aftermath::RolledBack);
    assert!(feedback.trust(Kind::Allow) < good - 0.1);
    assert!((feedback.trust(Kind::Deny) - 0.5).abs() < 1e-9);
    let text = serde_json::to_string(&feedback).unwrap();
    let again: Feedback = serde_json::from_str(&text).unwrap();
    assert!((again.trust(Kind::Allow) - feedback.trust(Kind::Allow)).abs() < 1e-12);
}

#[test]
fn only_what_an_administrator_said_is_deployed_alone() {
    let mut traffic = traffic();
    habit(&mut traffic, "web", "app", 80, 0..7, None);
    habit(&mut traffic, "app", "db", 5432, 0..7, None);
    let book = book(vec![]);
    let mut feedback = Feedback::default();
    let all = found(&traffic, &book);
    let due = |automatic: &Automatic, feedback: &Feedback, today| automatic.due(&all, feedback, today).len();
    let automatic =
        Automatic { kinds: [Kind::Allow].into(), least_confidence: 0.5, per_day: 1, ..Automatic::default() };
    assert_eq!(due(&automatic, &feedback, 0), 0, "not trusted yet");
    (0..10).for_each(|_| feedback.aftermath(Kind::Allow, &context(&book, &all[0]), Aftermath::Hit));
    assert_eq!((due(&automatic, &feedback, 0), due(&automatic, &feedback, 1)), (1, 0));
    assert_eq!(due(&Automatic::default(), &feedback, 0), 0);
    let since =
        |elapsed, misdropped| automatic.confirmation(&Since { elapsed, misdropped, flows: 1000, ..Since::default() });
    let told = [since(1, 0), since(u64::MAX, 1), since(1, 2)];
    assert_eq!(told, [Confirmation::Wait, Confirmation::Confirm, Confirmation::Return]);
}

/// The rules as a change leaves them.
fn applied(book: &Rulebook, change: &Change) -> Rulebook {
    let mut book = book.clone();
    let Change::Rules { remove, priorities, add } = change else { return book };
    book.rules.retain(|rule| !remove.contains(&rule.id));
    for one in priorities {
        book.rules.iter_mut().filter(|rule| rule.id == one.id).for_each(|rule| rule.priority = one.priority);
    }
    book.rules.extend(add.iter().map(|draft| Standing {
        id: draft.id.as_str().into(),
        from: draft.from.clone(),
        to: draft.to.clone(),
        protocol: draft.protocol,
        ports: draft.ports.clone(),
        icmp_type: draft.icmp_type,
        action: draft.action,
        tier: draft.tier,
        priority: draft.priority,
        ..rule("", &[], &[], &[], Action::Allow, 0)
    }));
    book
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// What-if is what judging all rows by the changed rules gives; and threads change nothing.
    #[test]
    fn what_if_is_what_would_be(
        rules in prop::collection::vec((0usize..4, 0usize..4, 0u16..4, any::<bool>(), 1u32..5), 1..8),
        habits in prop::collection::vec((0usize..3, 0usize..3, 0u16..4, 1u64..6), 1..10),
        attacks in prop::collection::vec((0usize..3, 0u16..4), 0..4),
    ) {
        let names = ["web", "app", "db"];
        let some = |n: usize| names.get(n).map(|name| vec![*name]).unwrap_or_default();
        let standing = rules.iter().enumerate().map(|(n, (from, to, port, allow, priority))| {
            let ports = if *port == 3 { vec![] } else { vec![(80 + port, 81 + port)] };
            let action = if *allow { Action::Allow } else { Action::Deny };
            rule(&format!("r{n}"), &some(*from), &some(*to), &ports, action, *priority)
        });
        let book = book(standing.collect());
        let mut traffic = traffic();
        for (from, to, port, days) in habits {
            habit(&mut traffic, names[from], names[to], 80 + port, 0..days, None);
        }
        for (to, port) in attacks {
            let one = flow(place("192.0.2.9", &[]), vm(names[to], 1), 80 + port, 1, None);
            (0..9).for_each(|n| traffic.observe(&Seen { attack: true, flow_id: n, ..one.clone() }));
        }
        let all = found(&traffic, &book);
        let alone = suggest(&traffic, &book, &Settings { top: 100, threads: 1, ..Settings::default() }, &Feedback::default());
        prop_assert_eq!(&all, &alone);
        for one in all.iter().filter(|one| matches!(one.change, Change::Rules { .. })) {
            let changed = applied(&book, &one.change);
            let settings = Settings::default();
            let scene = Scene::new(&traffic, &changed, &settings);
            prop_assert_eq!(scene.outcome, one.what_if.after, "{}", one.change.text());
        }
    }
}
