//! Rule cases as data: every file in `tests/rules/` is a policy with packets and what must become of them,
//! run against the compiled structure, the naive matcher and the explanation.
//!
//! A packet's `rule` and `decision` must be given; `logged`, `shadow`, `mirrors`, `stateful` and the groups
//! are expected to be absent when they are not given (groups: unchecked).

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use gnomon::rules::{
    Action, Compiled, Decision, Group, GroupIx, Labels, Match, MirrorMatch, Mode, Policy, Rule, RuleHandle, Selector,
    Subject, Tier, Verdict, explain, oracle, parse_flow,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Decision,
    #[serde(default)]
    groups: Vec<GroupText>,
    #[serde(default)]
    rules: Vec<RuleText>,
    #[serde(default)]
    mirrors: Vec<MirrorText>,
    packets: Vec<PacketText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupText {
    name: String,
    #[serde(default)]
    nets: Vec<String>,
    #[serde(default)]
    macs: Vec<String>,
    #[serde(default)]
    vlans: Vec<u16>,
    #[serde(default)]
    vnis: Vec<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MatchText {
    from: Vec<String>,
    to: Vec<String>,
    protocol: Option<u8>,
    from_ports: Vec<String>,
    to_ports: Vec<String>,
    icmp: Vec<u8>,
    vlan: Option<u16>,
    vni: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    id: String,
    #[serde(default)]
    tier: Tier,
    #[serde(default)]
    priority: u32,
    #[serde(default)]
    mode: Mode,
    action: Action,
    #[serde(default)]
    stateful: bool,
    #[serde(default, rename = "match")]
    matches: MatchText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MirrorText {
    any_of: Vec<MatchText>,
    #[serde(default)]
    decisions: Vec<Decision>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PacketText {
    flow: String,
    #[serde(default)]
    vlan: u16,
    #[serde(default)]
    vni: u32,
    src_mac: Option<String>,
    dst_mac: Option<String>,
    /// A later fragment without its first: ports and ICMP header are not known.
    #[serde(default)]
    later_fragment: bool,
    decision: Decision,
    rule: String,
    tier: Option<Tier>,
    #[serde(default)]
    stateful: bool,
    logged: Option<String>,
    #[serde(default)]
    shadow: Vec<String>,
    #[serde(default)]
    mirrors: Vec<u32>,
    src_groups: Option<Vec<String>>,
    dst_groups: Option<Vec<String>>,
    replies_pass: Option<bool>,
}

#[test]
fn every_case_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let entries = folder.read_dir().expect("tests/rules exists");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 7, "case files are missing");
    for path in files {
        run(&path);
    }
}

fn run(path: &Path) {
    let text = std::fs::read_to_string(path).expect("readable");
    let file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let policy = policy(&file);
    let labels = Labels::new(1000);
    let compiled = Compiled::build(&policy, 7, &labels).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for packet in &file.packets {
        let place = format!("{}: {}", path.display(), packet.flow);
        let subject = subject(packet, &place);
        let verdict = compiled.classify(&subject);
        check(packet, &verdict, &labels, &place);
        let shadows: Vec<_> = compiled.shadows(&verdict).map(|rule| labels.rule(rule).to_string()).collect();
        assert_eq!(shadows, packet.shadow, "shadow, {place}");
        assert_eq!(oracle::classify(&policy, 7, &labels, &subject), verdict, "naive matcher, {place}");
        let explanation = explain(&policy, &compiled, &labels, &subject);
        assert!(explanation.consistent, "{place}");
        assert_eq!((explanation.rule.as_str(), explanation.decision), (&*packet.rule, packet.decision), "{place}");
        if let Some(pass) = packet.replies_pass {
            assert_eq!(explanation.replies.pass, pass, "replies, {place}\n{explanation}");
        }
    }
}

fn check(packet: &PacketText, verdict: &Verdict, labels: &Labels, place: &str) {
    let id = |handle: RuleHandle| (handle != RuleHandle::DEFAULT).then(|| labels.rule(handle).to_string());
    assert_eq!(&*labels.rule(verdict.rule), packet.rule, "rule, {place}");
    assert_eq!(verdict.decision, packet.decision, "decision, {place}");
    assert_eq!(verdict.stateful, packet.stateful, "stateful, {place}");
    assert_eq!(id(verdict.logged), packet.logged, "logged, {place}");
    assert_eq!(verdict.mirrors, packet.mirrors.iter().fold(0, |mask, bit| mask | 1 << bit), "mirrors, {place}");
    assert_eq!(verdict.generation, 7);
    if let Some(tier) = packet.tier {
        assert_eq!(verdict.tier, tier, "tier, {place}");
    }
    for (wanted, handle) in [(&packet.src_groups, verdict.src_groups), (&packet.dst_groups, verdict.dst_groups)] {
        if let Some(wanted) = wanted {
            let names = labels.groups(handle);
            assert_eq!(names.iter().map(|name| name.to_string()).collect::<Vec<_>>(), *wanted, "groups, {place}");
        }
    }
}

fn subject(packet: &PacketText, place: &str) -> Subject {
    let mut subject = parse_flow(&packet.flow).unwrap_or_else(|error| panic!("{place}: {error}"));
    subject.tuple.vlan = packet.vlan;
    subject.tuple.vni = packet.vni;
    let mac =
        |text: &Option<String>| text.as_ref().map(|text| text.parse().expect("a MAC address")).unwrap_or_default();
    subject.src_mac = mac(&packet.src_mac);
    subject.dst_mac = mac(&packet.dst_mac);
    if packet.later_fragment {
        subject.tuple.src_port = 0;
        subject.tuple.dst_port = 0;
        subject.icmp = (0, 0);
        subject.ports_known = false;
    }
    subject
}

fn policy(file: &File) -> Policy {
    let mirrors = file.mirrors.iter().map(|mirror| MirrorMatch {
        any_of: mirror.any_of.iter().map(|m| matches(m, &file.groups)).collect(),
        decisions: mirror.decisions.clone(),
    });
    Policy {
        groups: file.groups.iter().map(group).collect(),
        rules: file.rules.iter().map(|text| rule(text, &file.groups)).collect(),
        mirrors: mirrors.collect(),
        default: file.default,
    }
}

fn group(text: &GroupText) -> Group {
    Group {
        name: text.name.clone(),
        nets: text.nets.iter().map(|net| net.parse().expect("a prefix")).collect(),
        macs: text.macs.iter().map(|mac| mac.parse().expect("a MAC address")).collect(),
        vlans: text.vlans.clone(),
        vnis: text.vnis.clone(),
    }
}

fn rule(text: &RuleText, groups: &[GroupText]) -> Rule {
    Rule {
        id: text.id.clone(),
        tier: text.tier,
        priority: text.priority,
        mode: text.mode,
        action: text.action,
        stateful: text.stateful,
        matches: matches(&text.matches, groups),
    }
}

fn matches(text: &MatchText, groups: &[GroupText]) -> Match {
    let selectors = |list: &[String]| list.iter().map(|text| selector(text, groups)).collect();
    let ports = |list: &[String]| list.iter().map(|text| port_range(text)).collect();
    Match {
        from: selectors(&text.from),
        to: selectors(&text.to),
        protocol: text.protocol,
        from_ports: ports(&text.from_ports),
        to_ports: ports(&text.to_ports),
        icmp: text.icmp.first().map(|kind| (*kind, text.icmp.get(1).copied())),
        vlan: text.vlan,
        vni: text.vni,
    }
}

fn selector(text: &str, groups: &[GroupText]) -> Selector {
    match text.parse() {
        Ok(net) => Selector::Net(net),
        Err(_) => {
            let at = groups.iter().position(|group| group.name == text);
            Selector::Group(GroupIx(at.unwrap_or_else(|| panic!("no group {text}")) as u16))
        }
    }
}

fn port_range(text: &str) -> RangeInclusive<u16> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    first.parse().expect("a port")..=last.parse().expect("a port")
}
