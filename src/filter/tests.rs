#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::behaviour::{AlertKind, Flags, ScoredRecord};
use crate::export::{Names, write_flow};
use crate::flow::{EndReason, FlowRecord, FlowState};
use crate::packet::{Tuple, from_ip_addr};
use crate::rules::{Decision, GroupSetHandle, RuleHandle, Tier};

/// Rules `default`, `rule-1` …; group sets ∅, {web}, {db}, {web, db}; sessions `tap-a`, `tap-b`, swapped from generation 5 on.
struct Fixture;

const SETS: [&[&str]; 4] = [&[], &["web"], &["db"], &["db", "web"]];

fn rule_name(number: u32) -> String {
    if number == 0 { "default".into() } else { format!("rule-{number}") }
}

fn session_name(generation: u32, bit: usize) -> &'static str {
    if (bit == 0) == (generation < 5) { "tap-a" } else { "tap-b" }
}

impl Names for Fixture {
    fn mirror_rate(&self, _: u32, _: usize) -> Option<crate::mirror::Rate> {
        None
    }

    fn rule(&self, rule: RuleHandle) -> Cow<'_, str> {
        rule_name(rule.0).into()
    }

    fn groups(&self, groups: GroupSetHandle) -> Vec<Cow<'_, str>> {
        SETS[groups.0 as usize].iter().map(|name| Cow::Borrowed(*name)).collect()
    }

    fn mirror(&self, generation: u32, bit: usize) -> Cow<'_, str> {
        session_name(generation, bit).into()
    }
}

impl Vocabulary for Fixture {
    fn rules(&self, note: &mut dyn FnMut(u32, &str)) {
        (0..10).for_each(|number| note(number, &rule_name(number)));
    }

    fn group_sets(&self, note: &mut dyn FnMut(u32, &[&str])) {
        SETS.iter().zip(0..).for_each(|(set, number)| note(number, set));
    }

    fn groups(&self, note: &mut dyn FnMut(&str)) {
        ["web", "db", "idle"].into_iter().for_each(note);
    }

    fn sessions(&self, note: &mut dyn FnMut(u32, u8, &str)) {
        for generation in [1, 5] {
            (0..2).for_each(|bit| note(generation, bit, session_name(generation, bit.into())));
        }
    }
}

fn ip(text: &str) -> (u8, u128) {
    from_ip_addr(text.parse().unwrap())
}

fn sample() -> FlowRecord {
    let tuple = Tuple {
        src: ip("10.0.1.10").1,
        dst: ip("192.0.2.20").1,
        src_port: 40_000,
        dst_port: 443,
        protocol: 6,
        version: 4,
        vlan: 12,
        vni: 0,
    };
    FlowRecord {
        flow_id: 42,
        tuple,
        start: 1_736_931_600_000_000_000,
        end: 1_736_931_602_500_000_000,
        emitted: 1_736_931_603_000_000_000,
        packets: [10, 8],
        bytes: [1_500_000, 700_000],
        tcp_flags: [0x1b, 0x12],
        state: FlowState::Established,
        reason: EndReason::Active,
        rule: RuleHandle(3),
        tier: Tier::Threat,
        generation: 7,
        src_groups: GroupSetHandle(3),
        mirrors: 0b01,
        ..FlowRecord::default()
    }
}

fn json_of(record: &FlowRecord) -> serde_json::Value {
    let mut flags = Flags::default();
    flags.insert(AlertKind::PortScan);
    let scored = ScoredRecord { record: *record, score: Some(0.75), flags };
    let mut line = Vec::new();
    write_flow(&mut line, &scored, None, &Fixture).unwrap();
    serde_json::from_slice(&line).unwrap()
}

fn parsed(text: &str) -> Expression {
    Expression::parse(text, &Schema::FLOW).unwrap_or_else(|error| panic!("{text}:\n{error}"))
}

#[test]
fn the_language_on_records_and_on_their_json() {
    let record = sample();
    let json = json_of(&record);
    let cases = [
        ("", true),
        ("proto=tcp dest_port=443,8443 src_ip=10.0.0.0/8 bytes>1M state=established and not rule=default", true),
        ("tcp", true),
        ("udp or tcp", true),
        ("udp or (tcp and port=80)", false),
        ("10.0.0.0/8", true),
        ("ip=192.0.2.20 src_ip!=192.0.2.20", true),
        ("ip!=192.0.2.20", false),
        ("dst=192.0.2.10-192.0.2.30", true),
        ("src_ip=2001:db8::/32", false),
        ("port=443 sport=40k", true),
        ("dest_port=400-500", true),
        ("dest_port>443", false),
        ("dest_port>=443 dest_port<=443", true),
        ("bytes=2.2M", true),
        ("flow.bytes_toserver>1Mi bytes_toclient<1Mi", true),
        ("packets = 18 && pkts_toserver == 10", true),
        ("vlan=12 vlan", true),
        ("vni or icmp_type", false),
        ("not vni", true),
        ("vni!=7", true),
        ("age>2s duration<2600ms", true),
        ("start>=2025-01-15T09:00 start<2025-01-15T09:00:00.000001", true),
        ("start=2025-01-15", true),
        ("start=2025-01-14..2025-01-16 end>2025-01-15T09:00:02.4", true),
        ("end>2025-01-15", false),
        ("state=new,established", true),
        ("state=new", false),
        ("tcp_flags=syn+ack", true),
        ("tcp_flags_tc=fin,rst", false),
        ("tcp_flags_ts=0x1b tcp_flags_tc=0x12", true),
        ("rule=rule-* rule!=default,rule-4", true),
        ("rule=rule-4", false),
        ("gnomon.tier=threat action=allow generation=7", true),
        ("group=web group=db src_group=w*", true),
        ("dst_groups", false),
        ("mirror=tap-b", true),
        ("mirror=tap-a", false),
        ("ip_version=4 id=42 !ip_version=6", true),
    ];
    for (text, wanted) in cases {
        let expression = parsed(text);
        assert_eq!(expression.matches(&JsonLine(&json)), wanted, "JSON: {text}");
        let bound = expression.bind(&Fixture).unwrap_or_else(|error| panic!("{text}:\n{error}"));
        assert_eq!(bound.matches(&record), wanted, "record: {text}");
        assert_eq!(bound.may_match(&record), wanted, "record, nothing unknown: {text}");
    }
}

#[test]
fn what_only_others_know_decides_nothing() {
    let record = sample();
    let live = LiveFlow { record: &record, scored: None, community_id: "1:x", now: record.end + 5_000_000_000 };
    let scored = LiveFlow { scored: Some(Scored { score: Some(0.75), flags: Flags::default() }), ..live };
    let cases: [(&str, bool, bool, bool); 6] = [
        ("score>0.7", true, false, true),
        ("not score>0.7", true, true, false),
        ("score>0.7 udp", false, false, false),
        ("score>0.7 or tcp", true, true, true),
        ("flags=port_scan", true, false, false),
        ("community_id=1:*", true, true, true),
    ];
    for (text, may, without, with) in cases {
        let expression = parsed(text).bind(&Fixture).unwrap();
        assert_eq!(expression.may_match(&record), may, "{text}");
        assert_eq!(expression.matches(&live), without, "{text}");
        assert_eq!(expression.matches(&scored), with, "{text}");
    }
    assert!(parsed("idle>4s idle<=5s").matches(&live));
    let unbound = parsed("rule=rule-3");
    assert!(unbound.may_match(&record) && !unbound.matches(&record), "numbers mean nothing to it");
    let mut newer = record;
    newer.rule = RuleHandle(99);
    assert!(unbound.bind(&Fixture).unwrap().may_match(&newer), "given after it was bound");
}

#[test]
fn names_that_nothing_has_are_refused() {
    for (text, message, suggestion) in [
        ("tcp rule=rul-3", "there is no rule `rul-3`", Some("rule-3")),
        ("group=wbe", "there is no group `wbe`", Some("web")),
        ("mirror=tap", "there is no mirror session `tap`", None),
    ] {
        let error = parsed(text).bind(&Fixture).unwrap_err();
        assert_eq!(error.message, message);
        if let Some(name) = suggestion {
            assert_eq!(error.suggestion.as_deref(), Some(name), "{text}");
        }
    }
    assert!(parsed("group=idle rule=zzz*").bind(&Fixture).is_ok(), "a group without traffic; patterns");
}

#[test]
fn errors_point_at_the_place_and_say_what_is_allowed() {
    let cases = [
        ("dst_prot=443", "dst_prot", "flows have no field `dst_prot`", "src_ip, dest_ip", "dst_port"),
        ("tcp 443", "443", "flows have no field `443`", "src_ip", "port=443"),
        ("proto=tpc", "tpc", "`tpc` is no value of `proto`", "tcp, udp", ""),
        ("state=establishd", "establishd", "`establishd` is no value of `state`", "new, established", "established"),
        ("dest_port=70000", "70000", "`70000` is no value of `dest_port`", "0 to 65535", ""),
        ("src_ip=10.0.0.300", "10.0.0.300", "`10.0.0.300` is no value of `src_ip`", "a network", ""),
        ("bytes>1,2", "1,2", "a list can only be compared with = and !=", "one value", ""),
        ("state>new", "new", "`state` has no order", "= and !=", ""),
        ("bytes>", "", "something is missing at the end", "a value of `bytes`", ""),
        ("(tcp or udp", "", "something is missing at the end", "`)`", ""),
        ("tcp) udp", ")", "`)` does not belong here", "the end", ""),
        ("tcp and", "", "something is missing at the end", "a test", ""),
        ("rule=\"a b", "\"a b", "the quotation mark is not closed", "another \"", ""),
        ("tcp \"state\"=new", "\"state\"", "`\"state\"` does not belong here", "another test", ""),
        ("start>yesterday", "yesterday", "`yesterday` is no value of `start`", "2025-01-15", ""),
        ("start>2025-02-29", "2025-02-29", "`2025-02-29` is no value of `start`", "2025-01-15", ""),
        ("flags=portscan", "portscan", "`portscan` is no value of `flags`", "port_scan", "port_scan"),
    ];
    for (text, part, message, allowed, suggestion) in cases {
        let error = Expression::parse(text, &Schema::FLOW).unwrap_err();
        assert_eq!(&text[error.place.clone()], part, "{error}");
        assert_eq!(error.message, message);
        assert!(error.allowed.as_deref().is_some_and(|known| known.contains(allowed)), "{error}");
        assert_eq!(error.suggestion.as_deref().unwrap_or_default(), suggestion, "{error}");
    }
    let error = Expression::parse("tcp and dst_prot=443", &Schema::FLOW).unwrap_err().to_string();
    let shown: Vec<&str> = error.lines().collect();
    assert_eq!(shown[1], "  | tcp and dst_prot=443");
    assert_eq!(shown[2], "  |         ^^^^^^^^");
}

#[test]
fn what_is_too_large_is_refused() {
    let deep = format!("{}tcp{}", "(".repeat(1000), ")".repeat(1000));
    assert!(Expression::parse(&deep, &Schema::FLOW).unwrap_err().message.contains("deep"));
    assert!(Expression::parse(&"not ".repeat(1000), &Schema::FLOW).unwrap_err().message.contains("deep"));
    assert!(Expression::parse(&"ä".repeat(9000), &Schema::FLOW).unwrap_err().message.contains("bytes"));
    let many = format!("port={}", vec!["1"; 2000].join(","));
    assert!(Expression::parse(&many, &Schema::FLOW).unwrap_err().message.contains("too many"));
}

#[test]
fn packets_have_their_own_fields() {
    let expression = Expression::parse("drop=denied direction=to_server ttl<5 in_port=wan", &Schema::PACKET).unwrap();
    assert!(expression.asks_for(Field::Drop) && !expression.asks_for(Field::Score));
    assert!(Expression::parse("score>0.5", &Schema::PACKET).is_err());
    assert!(Expression::parse("ttl<5", &Schema::FLOW).is_err());
    for schema in [Schema::FLOW, Schema::PACKET] {
        let names = schema.names();
        let help = schema.help();
        for field in schema.fields() {
            assert!(help.contains(field.short()) && schema.field(field.name()) == Some(field), "{field:?}");
        }
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        // A short name and the whole one are the same where there is no dot.
        for name in once {
            let of: Vec<_> = schema.fields().filter(|f| schema.lookup(name).is_some_and(|l| l.contains(f))).collect();
            assert!(!of.is_empty() && of.len() <= 2, "{name} stands for {of:?}");
        }
    }
}

/// A condition, its text, and whether it holds of a record, by means of its own.
#[derive(Clone, Debug)]
enum Model {
    Leaf(String, fn(&FlowRecord, u64, u64) -> bool, u64, u64),
    Not(Box<Model>),
    All(Vec<Model>),
    Any(Vec<Model>),
}

impl Model {
    fn text(&self) -> String {
        let joined = |models: &[Model], word: &str| {
            let texts: Vec<String> = models.iter().map(Model::text).collect();
            format!("({})", texts.join(word))
        };
        match self {
            Model::Leaf(text, ..) => text.clone(),
            Model::Not(model) => format!("not {}", model.text()),
            Model::All(models) => joined(models, " "),
            Model::Any(models) => joined(models, " or "),
        }
    }

    fn holds(&self, record: &FlowRecord) -> bool {
        match self {
            Model::Leaf(_, test, a, b) => test(record, *a, *b),
            Model::Not(model) => !model.holds(record),
            Model::All(models) => models.iter().all(|model| model.holds(record)),
            Model::Any(models) => models.iter().any(|model| model.holds(record)),
        }
    }
}

fn ports(r: &FlowRecord) -> Option<(u64, u64)> {
    matches!(r.tuple.protocol, 6 | 17 | 132).then_some((r.tuple.src_port.into(), r.tuple.dst_port.into()))
}

fn leaf() -> impl Strategy<Value = Model> {
    let number = 0u64..20;
    (0..14u8, number.clone(), number).prop_map(|(which, a, b)| {
        let (low, high) = (a.min(b), a.max(b));
        let name = |n: u64| ["web", "db"][n as usize % 2];
        match which {
            0 => Model::Leaf(
                format!("dport={low}-{high}"),
                |r, a, b| ports(r).is_some_and(|p| (a..=b).contains(&p.1)),
                low,
                high,
            ),
            1 => Model::Leaf(
                format!("port={a},{b}"),
                |r, a, b| ports(r).is_some_and(|p| [a, b].contains(&p.0) || [a, b].contains(&p.1)),
                a,
                b,
            ),
            2 => Model::Leaf(format!("port!={a}"), |r, a, _| ports(r).is_none_or(|p| p.0 != a && p.1 != a), a, b),
            3 => Model::Leaf(format!("bytes>{a}"), |r, a, _| r.bytes[0] + r.bytes[1] > a, a, b),
            4 => Model::Leaf(format!("pkts_toclient<={a}"), |r, a, _| r.packets[1] <= a, a, b),
            5 => Model::Leaf(format!("age<{a}us"), |r, a, _| r.end - r.start < a * 1000, a, b),
            6 => Model::Leaf(format!("rule=rule-{}", 1 + a % 9), |r, a, _| u64::from(r.rule.0) == 1 + a % 9, a, b),
            7 => Model::Leaf(
                format!("group={}", name(a)),
                |r, a, _| {
                    [r.src_groups, r.dst_groups]
                        .iter()
                        .any(|g| SETS[g.0 as usize].contains(&["web", "db"][a as usize % 2]))
                },
                a,
                b,
            ),
            8 => Model::Leaf("tcp".into(), |r, _, _| r.tuple.protocol == 6, a, b),
            9 => Model::Leaf(format!("proto={a}"), |r, a, _| u64::from(r.tuple.protocol) == a, a, b),
            10 => Model::Leaf(
                format!("src_ip=10.0.0.{low}-10.0.0.{high}"),
                |r, a, b| {
                    r.tuple.version == 4
                        && (0x0a00_0000 + u128::from(a)..=0x0a00_0000 + u128::from(b)).contains(&r.tuple.src)
                },
                low,
                high,
            ),
            11 => Model::Leaf("vlan".into(), |r, _, _| r.tuple.vlan != 0, a, b),
            12 => Model::Leaf(
                "mirror=tap-a".into(),
                |r, _, _| (0..2).any(|bit| r.mirrors >> bit & 1 == 1 && session_name(r.generation, bit) == "tap-a"),
                a,
                b,
            ),
            _ => Model::Leaf(
                "tcp_flags=syn+ack".into(),
                |r, _, _| r.tuple.protocol == 6 && (r.tcp_flags[0] | r.tcp_flags[1]) & 0x12 == 0x12,
                a,
                b,
            ),
        }
    })
}

fn model() -> impl Strategy<Value = Model> {
    leaf().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|model| Model::Not(Box::new(model))),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Model::All),
            proptest::collection::vec(inner, 1..4).prop_map(Model::Any),
        ]
    })
}

fn record() -> impl Strategy<Value = FlowRecord> {
    let tuple = (0u128..20, 0u16..20, 0u16..20, 0u8..20, 0u16..3, prop::bool::ANY);
    let rest = (0u64..20, 0u64..20, 0u64..20, 0u32..10, 0u32..4, 0u32..4, 0u64..4, 1u32..9, 0u8..32);
    (tuple, rest).prop_map(|((address, sport, dport, protocol, vlan, six), rest)| {
        let (packets, bytes, micros, rule, src, dst, mirrors, generation, flags) = rest;
        let mut r = sample();
        r.tuple = Tuple {
            src: if six { address } else { 0x0a00_0000 + address },
            src_port: sport,
            dst_port: dport,
            protocol,
            version: if six { 6 } else { 4 },
            vlan,
            ..r.tuple
        };
        (r.packets, r.bytes) = ([1, packets], [3, bytes]);
        r.end = r.start + micros * 1000;
        (r.rule, r.src_groups, r.dst_groups) = (RuleHandle(rule), GroupSetHandle(src), GroupSetHandle(dst));
        (r.mirrors, r.generation, r.tcp_flags) = (mirrors, generation, [flags, 2]);
        r.decision = Decision::Deny;
        r
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_a_model_and_with_the_json(model in model(), record in record()) {
        let text = model.text();
        let expression = parsed(&text);
        let wanted = model.holds(&record);
        prop_assert_eq!(expression.bind(&Fixture).unwrap().matches(&record), wanted, "{}", text);
        let json = json_of(&record);
        prop_assert_eq!(expression.matches(&JsonLine(&json)), wanted, "JSON: {}", text);
        prop_assert!(expression.may_match(&record) || !wanted, "{}", text);
    }

    #[test]
    fn any_text_is_parsed_or_refused_with_a_place(text in "[a-z_.=!<>&|(), \"'*/:0-9äµ\\\\-]{0,60}") {
        match Expression::parse(&text, &Schema::FLOW) {
            Ok(expression) => { expression.matches(&sample()); }
            Err(error) => {
                prop_assert!(text.get(error.place.clone()).is_some(), "{:?}", error);
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    #[test]
    fn stars_stand_for_anything(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
        fn naive(pattern: &[u8], text: &[u8]) -> bool {
            match pattern.split_first() {
                None => text.is_empty(),
                Some((b'*', rest)) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
                Some((c, rest)) => text.first() == Some(c) && naive(rest, &text[1..]),
            }
        }
        prop_assert_eq!(check::Pattern::new(&pattern).matches(&text), naive(pattern.as_bytes(), text.as_bytes()));
    }
}
