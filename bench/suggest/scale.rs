//! How long ten million rows take: a thousand groups, a hundred thousand VMs, fifty thousand rules.

use std::sync::Arc;
use std::time::Instant;

use gnomon::policy::learning::{Answer, Endpoint, Place, Seen, Service};
use gnomon::policy::suggest::{
    End, EndIx, Feedback, Key, Limit, Members, RuleIx, Rulebook, Settings, Standing, Talk, Tally, Traffic, suggest,
};
use gnomon::rules::{Action, Decision, Mode, Tier};

use crate::common::Results;

const GROUPS: u32 = 1000;
const VMS: u32 = 100_000;
const RULES: u32 = 50_000;
const FLOWS: u64 = 1_000_000;
const DAY: u32 = 86_400;
const START: u32 = 20_000 * DAY;
const SECOND: u64 = 1_000_000_000;

fn mix(n: u64) -> u64 {
    gnomon::packet::scramble(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn group(number: u32) -> Arc<str> {
    format!("group-{number}").into()
}

/// Source, target and port of a rule.
fn relation(rule: u32) -> (u32, u32, u16) {
    let at = mix(rule.into());
    ((at % u64::from(GROUPS)) as u32, ((at >> 20) % u64::from(GROUPS)) as u32, 1000 + ((at >> 40) % 100) as u16)
}

fn rulebook() -> Rulebook {
    let one = |rule: u32| {
        let (from, to, port) = relation(rule);
        Standing {
            id: format!("rule-{rule}").into(),
            from: vec![Endpoint::Group(group(from))],
            to: vec![Endpoint::Group(group(to))],
            protocol: Some(6),
            // Some open more than anybody needs.
            ports: if rule.is_multiple_of(100) { vec![(1, 65_535)] } else { vec![(port, port)] },
            icmp_type: None,
            has_more: false,
            action: if rule.is_multiple_of(7) { Action::Deny } else { Action::Allow },
            tier: Tier::Policy,
            priority: 1000 + rule % 500,
            mode: Mode::Enforce,
            hits: 0,
            last_hit: None,
            since: None,
            origin: String::new(),
        }
    };
    let members = |number: u32| (group(number), Members { nets: Vec::new(), tags: vec![format!("tag-{number}")] });
    Rulebook {
        rules: (0..RULES).map(one).collect(),
        default: Decision::Deny,
        groups: (0..GROUPS).map(members).collect(),
        vms: (0..VMS).map(|vm| (format!("vm-{vm}").into(), vec![format!("tag-{}", vm % GROUPS)])).collect(),
    }
}

fn seen(n: u64) -> Seen {
    let at = mix(n);
    let (from, to, port) = relation((at % u64::from(RULES)) as u32);
    let place = |number: u32, roll: u64| {
        let vm = number + GROUPS * (roll % u64::from(VMS / GROUPS)) as u32;
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + vm);
        Place { address: address.into(), vm: Some(format!("vm-{vm}").into()), groups: vec![group(number)] }
    };
    let start = (u64::from(START) + at % (7 * u64::from(DAY))) * SECOND;
    Seen {
        flow_id: n + 1,
        start,
        end: start + SECOND,
        from: place(from, at >> 17),
        to: place(to, at >> 37),
        service: Service::of_port(6, port),
        answer: Answer::Answered,
        bytes: 1000,
        packets: 10,
        rule: None,
        tier: Tier::Default,
        decision: Decision::Deny,
        attack: at.is_multiple_of(500),
        score: Some(0.5),
    }
}

fn traffic(rows: usize) -> Traffic {
    let mut traffic = Traffic::new(Limit::default());
    (0..FLOWS.min(rows as u64 / 2)).for_each(|n| traffic.observe(&seen(n)));
    let ends: Vec<EndIx> =
        (0..GROUPS).map(|g| traffic.intern_end(End { groups: vec![group(g)], net: None, vm: None })).collect();
    let rules: Vec<RuleIx> = (0..RULES).map(|rule| traffic.intern_rule(format!("rule-{rule}").into())).collect();
    let mut n = 0;
    while traffic.len() < rows {
        n += 1;
        let at = mix(n ^ 0x5555_0000_0000);
        // Half of them where a rule is.
        let rule = (at % u64::from(RULES)) as u32;
        let (from, to, port) = match at >> 63 {
            0 => relation(rule),
            _ => ((at >> 8) as u32 % GROUPS, (at >> 24) as u32 % GROUPS, 1000 + (at >> 50) as u16 % 100),
        };
        let port = if at >> 62 == 1 { 1000 + (at >> 30) as u16 % 2000 } else { port };
        let key = Key {
            from: ends[from as usize],
            to: ends[to as usize],
            talk: Talk::new(&Service::of_port(6, port)),
            rule: rules[rule as usize],
            decision: 0,
        };
        let flows = 1 + (at >> 48) as u32 % 40;
        let first = START + (at % u64::from(6 * DAY)) as u32;
        let tally = Tally {
            flows,
            answered: flows,
            attack: if at.is_multiple_of(1000) { flows } else { 0 },
            scored: flows,
            score_sum: u64::from(flows) * 300,
            score_max: 600,
            packets: u64::from(flows) * 10,
            bytes: u64::from(flows) * 10_000,
            first,
            last: first + DAY,
            days: 0b11 << (first / DAY % 63),
            hours: 0xff00,
            clients: at & mix(at),
            servers: at.rotate_left(9) & mix(at),
            evidence: [n, 0, 0],
        };
        traffic.add(key, &tally);
    }
    traffic
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

pub fn measure(results: &mut Results, rows: usize) {
    let book = rulebook();
    let began = Instant::now();
    let traffic = traffic(rows);
    let built = began.elapsed().as_secs_f64();
    let before = resident_mb();
    let mut runs = Vec::new();
    let mut count = 0;
    for _ in 0..3 {
        let began = Instant::now();
        count = suggest(&traffic, &book, &Settings { top: 1000, ..Settings::default() }, &Feedback::default()).len();
        runs.push(began.elapsed().as_secs_f64());
    }
    println!("{} rows, {RULES} rules: {count} suggestions; rows take {before:.0} MB", traffic.len());
    results.measured(format!("{} rows made of records", traffic.len()), "s", vec![built]);
    results.measured(format!("suggestions over {} rows", traffic.len()), "s", runs);
}
