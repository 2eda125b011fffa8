//! Conditions that rules and mirrors share.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::groups::{Groups, Vms, network};
use crate::config::document::Place;
use crate::config::problem::{Problems, nearest};
use crate::config::raw::{IcmpType, OneOrMany, PortSpec, Protocol, ProtocolName, RawRule};
use crate::config::raw_mirrors::RawMirror;
use crate::config::schema::list_words;
use crate::config::shape::WrongKeys;
use crate::packet::KeyFrom;
use crate::rules::{Match, Selector};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Names of ICMP messages (RFC 792, RFC 1812) with type and, where the name tells, code.
const ICMP_NAMES: [(&str, u8, Option<u8>); 12] = [
    ("echo-reply", 0, None),
    ("destination-unreachable", 3, None),
    ("host-unreachable", 3, Some(1)),
    ("port-unreachable", 3, Some(3)),
    ("fragmentation-needed", 3, Some(4)),
    ("redirect", 5, None),
    ("echo-request", 8, None),
    ("router-advertisement", 9, None),
    ("router-solicitation", 10, None),
    ("time-exceeded", 11, None),
    ("parameter-problem", 12, None),
    ("timestamp-request", 13, None),
];

/// Names of ICMPv6 messages (RFC 4443, RFC 4861).
const ICMPV6_NAMES: [(&str, u8, Option<u8>); 12] = [
    ("destination-unreachable", 1, None),
    ("port-unreachable", 1, Some(4)),
    ("packet-too-big", 2, None),
    ("time-exceeded", 3, None),
    ("parameter-problem", 4, None),
    ("echo-request", 128, None),
    ("echo-reply", 129, None),
    ("router-solicitation", 133, None),
    ("router-advertisement", 134, None),
    ("neighbor-solicitation", 135, None),
    ("neighbor-advertisement", 136, None),
    ("redirect", 137, None),
];

/// The fields that rules and mirrors have in common.
#[derive(Debug)]
pub(super) struct Filter<'r> {
    protocol: Option<&'r Protocol>,
    ports: Option<&'r OneOrMany<PortSpec>>,
    from_ports: Option<&'r OneOrMany<PortSpec>>,
    icmp_type: Option<&'r IcmpType>,
    icmp_code: Option<u8>,
    vlan: Option<u16>,
    vni: Option<u32>,
}

impl<'r> From<&'r RawRule> for Filter<'r> {
    fn from(raw: &'r RawRule) -> Self {
        Self {
            protocol: raw.protocol.as_ref(),
            ports: raw.ports.as_ref(),
            from_ports: raw.from_ports.as_ref(),
            icmp_type: raw.icmp_type.as_ref(),
            icmp_code: raw.icmp_code,
            vlan: raw.vlan,
            vni: raw.vni,
        }
    }
}

impl<'r> From<&'r RawMirror> for Filter<'r> {
    fn from(raw: &'r RawMirror) -> Self {
        Self {
            protocol: raw.protocol.as_ref(),
            ports: raw.ports.as_ref(),
            from_ports: raw.from_ports.as_ref(),
            icmp_type: raw.icmp_type.as_ref(),
            icmp_code: raw.icmp_code,
            vlan: raw.vlan,
            vni: raw.vni,
        }
    }
}

/// Each item of a single value or list, with its place.
pub(super) fn items<'r, T>(place: &Place, value: Option<&'r OneOrMany<T>>) -> Vec<(Place, &'r T)> {
    match value {
        None => Vec::new(),
        Some(OneOrMany::One(item)) => vec![(place.clone(), item)],
        Some(OneOrMany::Many(list)) => list.iter().enumerate().map(|(i, item)| (place.index(i), item)).collect(),
    }
}

/// One side: groups, networks, addresses, "any". Empty means any.
pub(super) fn selectors(
    problems: &mut Problems<'_>,
    place: &Place,
    value: Option<&OneOrMany<String>>,
    groups: &Groups,
    vms: &Vms,
) -> Vec<Selector> {
    let items = items(place, value);
    if value.is_some() && items.is_empty() {
        problems.error(place, "the list is empty").found("[]").allowed("at least one item, or \"any\"");
    }
    let mut found = Vec::new();
    for (here, text) in &items {
        if *text == "any" {
            if items.len() > 1 {
                problems.error(here, "`any` stands beside other items").allowed("`any` alone, or a list without it");
            }
            return Vec::new();
        }
        if let Some(group) = groups.get(text) {
            found.push(Selector::Group(group));
        } else if text.contains(['/', ':']) || looks_like_ipv4(text) {
            found.extend(network(problems, here, text).map(Selector::Net));
        } else {
            unknown_group(problems, here, text, groups, vms);
        }
    }
    found
}

fn looks_like_ipv4(text: &str) -> bool {
    text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn unknown_group(problems: &mut Problems<'_>, place: &Place, text: &str, groups: &Groups, vms: &Vms) {
    if !groups.names.is_complete() {
        return;
    }
    let names = groups.names.listed();
    let suggestion = groups.names.nearest(text);
    let problem = problems.error(place, format!("unknown group `{text}`"));
    problem.found(format!("`{text}`")).allowed(format!("a group ({names}), a network, an address or `any`"));
    if vms.names.get(text).is_some() {
        problem.suggest(format!("a group with vms = [\"{text}\"]; `{text}` is a VM"));
    } else {
        problem.suggest(suggestion);
    }
}

/// Everything but the two sides.
pub(super) fn conditions(
    problems: &mut Problems<'_>,
    place: &Place,
    wrong: &WrongKeys,
    filter: &Filter<'_>,
    key_from: KeyFrom,
) -> Match {
    let protocol = protocol(filter.protocol);
    let to_ports = ports(problems, &place.key("ports"), filter.ports);
    let from_ports = ports(problems, &place.key("from_ports"), filter.from_ports);
    let sound = wrong.none_of(&["protocol", "icmp_type", "icmp_code"]);
    let icmp = if sound { icmp(problems, place, filter, protocol) } else { None };
    if wrong.none_of(&["protocol"]) {
        for (key, given) in [("ports", filter.ports), ("from_ports", filter.from_ports)] {
            if let (Some(_), Some(number)) = (given, protocol.filter(|p| ![TCP, UDP, SCTP].contains(p))) {
                let problem =
                    problems.error(&place.key(key), format!("protocol {} has no ports", protocol_name(number)));
                problem.allowed("ports only with protocol `tcp`, `udp` or `sctp`, or without a protocol");
            }
        }
    }
    if filter.vni.is_some() && key_from == KeyFrom::Outer {
        let problem =
            problems.warning(&place.key("vni"), "nothing matches `vni` while flows are keyed by the outer header");
        problem.allowed("[flow] key = \"inner\"");
    }
    Match { from: Vec::new(), to: Vec::new(), protocol, from_ports, to_ports, icmp, vlan: filter.vlan, vni: filter.vni }
}

fn protocol(raw: Option<&Protocol>) -> Option<u8> {
    let name = match raw? {
        Protocol::Number(number) => return Some(*number),
        Protocol::Name(name) => name,
    };
    match name {
        ProtocolName::Any => None,
        ProtocolName::Tcp => Some(TCP),
        ProtocolName::Udp => Some(UDP),
        ProtocolName::Icmp => Some(ICMP),
        ProtocolName::Icmpv6 => Some(ICMPV6),
        ProtocolName::Sctp => Some(SCTP),
        ProtocolName::Gre => Some(47),
        ProtocolName::Esp => Some(50),
        ProtocolName::Ah => Some(51),
        ProtocolName::Igmp => Some(2),
        ProtocolName::Ipip => Some(4),
        ProtocolName::Ospf => Some(89),
        ProtocolName::Pim => Some(103),
        ProtocolName::Vrrp => Some(112),
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        ICMP => "`icmp`".to_owned(),
        ICMPV6 => "`icmpv6`".to_owned(),
        other => other.to_string(),
    }
}

fn ports(problems: &mut Problems<'_>, place: &Place, raw: Option<&OneOrMany<PortSpec>>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    let items = items(place, raw);
    if raw.is_some() && items.is_empty() {
        problems.error(place, "the list is empty").found("[]").allowed("at least one port, or leave the field out");
    }
    for (here, spec) in items {
        let range = match spec {
            PortSpec::Number(number) => Some(*number..=*number),
            PortSpec::Range(text) => text.range(),
        };
        match range {
            Some(range) if ranges.contains(&range) => {}
            Some(range) => ranges.push(range),
            None => {
                let found = problems.document.source(&here);
                let problem = problems.error(&here, "not a range of ports").found(found);
                problem.allowed("first and last port, 0 to 65535, the first not larger, such as `8000-8100`");
            }
        }
    }
    ranges
}

fn icmp(
    problems: &mut Problems<'_>,
    place: &Place,
    filter: &Filter<'_>,
    protocol: Option<u8>,
) -> Option<(u8, Option<u8>)> {
    let (here, code_place) = (place.key("icmp_type"), place.key("icmp_code"));
    let Some(raw) = filter.icmp_type else {
        if filter.icmp_code.is_some() {
            problems.error(&code_place, "`icmp_code` without `icmp_type`").allowed("both, or `icmp_type` alone");
        }
        return None;
    };
    let names = match protocol {
        Some(ICMP) => &ICMP_NAMES,
        Some(ICMPV6) => &ICMPV6_NAMES,
        _ => {
            let problem = problems.error(&here, "`icmp_type` without protocol `icmp` or `icmpv6`");
            problem.allowed("with protocol = \"icmp\" or \"icmpv6\"");
            return None;
        }
    };
    let text = match raw {
        IcmpType::Number(number) => return Some((*number, filter.icmp_code)),
        IcmpType::Name(text) => text,
    };
    let Some((_, number, code)) = names.iter().find(|(name, ..)| name == text) else {
        let known: Vec<&str> = names.iter().map(|(name, ..)| *name).collect();
        let problem = problems.error(&here, format!("unknown ICMP message `{text}`")).found(format!("`{text}`"));
        problem.allowed(format!("a number from 0 to 255, or {}", list_words(&known))).suggest(nearest(text, known));
        return None;
    };
    match (code, filter.icmp_code) {
        (Some(named), Some(given)) if *named != given => {
            problems.error(&code_place, format!("`{text}` is code {named}")).found(given.to_string());
        }
        _ => {}
    }
    Some((*number, code.or(filter.icmp_code)))
}

/// Warns when one side has only IPv4 and the other only IPv6 addresses.
pub(super) fn warn_families(problems: &mut Problems<'_>, place: &Place, matches: &Match, groups: &Groups) {
    let from = families(&matches.from, groups);
    let to = families(&matches.to, groups);
    if (from.v4 && !from.v6 && to.v6 && !to.v4) || (from.v6 && !from.v4 && to.v4 && !to.v6) {
        problems.warning(place, "nothing matches: one side has only IPv4 and the other only IPv6 addresses");
    }
}

struct Families {
    v4: bool,
    v6: bool,
}

fn families(selectors: &[Selector], groups: &Groups) -> Families {
    let mut found = Families { v4: selectors.is_empty(), v6: selectors.is_empty() };
    let mut note = |net: &IpNet| match net {
        IpNet::V4(_) => found.v4 = true,
        IpNet::V6(_) => found.v6 = true,
    };
    let mut other = false;
    for selector in selectors {
        match selector {
            Selector::Net(net) => note(net),
            Selector::Group(index) => {
                let Some(group) = groups.group(*index) else { continue };
                group.nets.iter().for_each(&mut note);
                other |= !(group.macs.is_empty() && group.vlans.is_empty() && group.vnis.is_empty());
            }
        }
    }
    Families { v4: found.v4 || other, v6: found.v6 || other }
}
