//! One flow record as learning sees it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::connection::{Endpoint, Service};
use crate::behaviour::{AlertKind, Flags};
use crate::filter::{Field, Fields, Value};
use crate::packet;
use crate::rules::{Decision, Tier};

/// Ports from here on are given to clients by most systems.
const EPHEMERAL: u16 = 32_768;
const SYN: u64 = 0x02;
const ACK: u64 = 0x10;
const TCP: u8 = 6;
/// What stands in place of the id of a rule.
const NO_RULE: &str = "default";
const TIERS: [Tier; 5] = [Tier::Override, Tier::Threat, Tier::Policy, Tier::Learned, Tier::Default];
const DECISIONS: [Decision; 3] = [Decision::Allow, Decision::Deny, Decision::Reject];

/// An address and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub address: IpAddr,
    pub vm: Option<Arc<str>>,
    pub groups: Vec<Arc<str>>,
}

/// What became of the client's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The appliance refused it.
    Denied,
    /// Nobody answered, or the host refused it.
    Unanswered,
    /// Nobody answered, as is usual for logs and telemetry; not of TCP.
    OneWay,
    Answered,
}

/// A client that talked, or tried to talk, to a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub flow_id: u64,
    /// Nanoseconds since the Unix epoch.
    pub start: u64,
    pub end: u64,
    pub from: Place,
    pub to: Place,
    pub service: Service,
    pub answer: Answer,
    /// Both directions, in bytes and packets.
    pub bytes: u64,
    pub packets: u64,
    /// The rule that decided; `None` when none did, or nobody told.
    pub rule: Option<Arc<str>>,
    pub tier: Tier,
    pub decision: Decision,
    /// Part of something that a detector named.
    pub attack: bool,
    pub score: Option<f64>,
}

impl Seen {
    /// From a record that knows its groups by name; `vm` names the VM that has an address. `None` of what is not about
    /// a connection: no IP, ICMP errors and neighbour discovery, which the appliance judges without rules.
    pub fn of(record: &impl Fields, vm: impl Fn(IpAddr) -> Option<Arc<str>>) -> Option<Self> {
        let place = |address: Field, groups: Field| {
            let Value::Address(version, address) = record.value(address) else { return None };
            let address = packet::ip_addr(version, address);
            Some(Place { address, vm: vm(address), groups: names(record.value(groups)) })
        };
        let number = |field: Field| match record.value(field) {
            Value::Number(n) => Some(n),
            _ => None,
        };
        let mut from = place(Field::Source, Field::SourceGroups)?;
        let mut to = place(Field::Destination, Field::DestinationGroups)?;
        let protocol = u8::try_from(number(Field::Protocol)?).ok()?;
        let ports = [Field::SourcePort, Field::DestinationPort].map(|f| number(f).unwrap_or(0) as u16);
        // Picked up in the middle, and nobody told who began it.
        let in_the_middle = match protocol {
            TCP => number(Field::TcpFlagsToServer).unwrap_or(0) & SYN == 0,
            // One datagram from a well-known port is no answer to anything.
            _ => number(Field::PacketsToClient).unwrap_or(0) > 0,
        };
        let backwards = packet::has_ports(protocol) && ports[0] < 1024 && ports[1] >= EPHEMERAL && in_the_middle;
        if backwards {
            std::mem::swap(&mut from, &mut to);
        }
        let service = match protocol {
            _ if packet::has_ports(protocol) => Service::of_port(protocol, if backwards { ports[0] } else { ports[1] }),
            _ if packet::is_icmp(protocol) => icmp(protocol, number(Field::IcmpType)? as u8)?,
            _ => Service::of_protocol(protocol),
        };
        let flags = Flags::from_bits(number(Field::Flags).unwrap_or(0) as u32);
        Some(Self {
            flow_id: number(Field::FlowId).unwrap_or(0),
            start: number(Field::Start)?,
            end: number(Field::End)?,
            answer: answer(record, protocol, backwards),
            bytes: number(Field::Bytes).unwrap_or(0),
            packets: number(Field::Packets).unwrap_or(0),
            rule: match record.value(Field::Rule) {
                Value::Text(id) if id != NO_RULE => Some(id.into()),
                _ => None,
            },
            tier: word(record.value(Field::Tier), &TIERS, Tier::name).unwrap_or(Tier::Default),
            decision: word(record.value(Field::Action), &DECISIONS, Decision::name).unwrap_or_default(),
            // New relations and volumes are what is to be learnt.
            attack: flags.iter().any(AlertKind::is_hostile),
            score: match record.value(Field::Score) {
                Value::Real(score) => Some(score),
                _ => None,
            },
            from,
            to,
            service,
        })
    }
}

impl Place {
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|name| **name == *group)
    }

    /// How a policy names it: the smallest of its groups, as `size` says, else the VM, else the address.
    pub fn endpoint(&self, size: impl Fn(&str) -> usize) -> Endpoint {
        let smallest = self.groups.iter().min_by_key(|name| (size(name), (*name).clone()));
        match (smallest, &self.vm) {
            (Some(group), _) => Endpoint::Group(group.clone()),
            (None, Some(vm)) => Endpoint::Vm(vm.clone()),
            (None, None) => Endpoint::Net(IpNet::from(self.address)),
        }
    }

    /// Its VM, else its address.
    pub fn name(&self) -> Arc<str> {
        self.vm.clone().unwrap_or_else(|| self.address.to_string().into())
    }
}

fn names(value: Value<'_>) -> Vec<Arc<str>> {
    match value {
        Value::Texts(names) => names.iter().filter_map(|name| name.as_str()).map(Arc::from).collect(),
        Value::Words(names) => names.to_vec(),
        Value::Text(name) => vec![name.into()],
        _ => Vec::new(),
    }
}

fn word<T: Copy>(value: Value<'_>, all: &[T], name: impl Fn(T) -> &'static str) -> Option<T> {
    let Value::Text(text) = value else { return None };
    all.iter().copied().find(|one| name(*one) == text)
}

/// A request by its type; nothing of errors and neighbour discovery.
fn icmp(protocol: u8, icmp_type: u8) -> Option<Service> {
    let is_request = match protocol {
        1 => !matches!(icmp_type, 3 | 4 | 5 | 11 | 12),
        _ => icmp_type >= 128 && !(133..=137).contains(&icmp_type),
    };
    is_request.then(|| Service::of_icmp(protocol, icmp_type))
}

fn answer(record: &impl Fields, protocol: u8, backwards: bool) -> Answer {
    let number = |field: Field| match record.value(field) {
        Value::Number(n) => n,
        _ => 0,
    };
    if !matches!(record.value(Field::Action), Value::Text("allow") | Value::Absent) {
        return Answer::Denied;
    }
    let both = [
        (number(Field::PacketsToServer), number(Field::TcpFlagsToServer)),
        (number(Field::PacketsToClient), number(Field::TcpFlagsToClient)),
    ];
    let [(_, client), (back, server)] = if backwards { [both[1], both[0]] } else { both };
    let answered = match protocol {
        // A client that never acknowledges is none, and a reset alone is a host that does not want to.
        TCP => client & ACK != 0 && back > 0 && (server & SYN != 0 || (server & ACK != 0 && back > 1)),
        _ if back == 0 => return Answer::OneWay,
        _ => true,
    };
    if answered { Answer::Answered } else { Answer::Unanswered }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::filter::JsonLine;
    use serde_json::json;

    fn seen(changes: &[(&str, serde_json::Value)]) -> Option<Seen> {
        let mut line = json!({
            "event_type": "flow", "src_ip": "10.0.0.1", "src_port": 40000, "dest_ip": "10.0.1.1", "dest_port": 443,
            "proto": "TCP", "flow_id": 5,
            "flow": {"pkts_toserver": 5, "pkts_toclient": 4, "bytes_toserver": 500, "bytes_toclient": 400,
                     "start": "2026-01-05T00:00:00.000000+0000", "end": "2026-01-05T00:00:01.000000+0000"},
            "tcp": {"tcp_flags_ts": "1b", "tcp_flags_tc": "1b"},
            "gnomon": {"src_groups": ["clients", "all"], "dst_groups": [], "action": "allow", "flags": []},
        });
        for (path, value) in changes {
            *path.split('.').fold(&mut line, |at, part| &mut at[part]) = value.clone();
        }
        Seen::of(&JsonLine(&line), |address| (address.to_string() == "10.0.1.1").then(|| "db-1".into()))
    }

    #[test]
    fn a_record_is_a_connection() {
        let seen = seen(&[]).unwrap();
        assert_eq!((seen.service.clone(), seen.answer), (Service::of_port(6, 443), Answer::Answered));
        assert_eq!((seen.end - seen.start, seen.bytes, seen.flow_id), (1_000_000_000, 900, 5));
        let size = |name: &str| if name == "all" { 100 } else { 3 };
        assert_eq!(seen.from.endpoint(size), Endpoint::group("clients"));
        assert_eq!(seen.to.endpoint(size), Endpoint::Vm("db-1".into()));
        assert!(seen.from.is_in("all") && !seen.to.is_in("all"));
        assert_eq!((seen.rule, seen.tier, seen.packets), (None, Tier::Default, 9));
    }

    #[test]
    fn who_decided_is_told() {
        let found =
            [("gnomon.rule", json!("web")), ("gnomon.tier", json!("learned")), ("gnomon.action", json!("reject"))];
        let seen = seen(&found).unwrap();
        assert_eq!((seen.rule.as_deref(), seen.tier, seen.decision), (Some("web"), Tier::Learned, Decision::Reject));
    }

    #[test]
    fn what_was_refused_or_not_answered_is_told_apart() {
        let answer = |changes: &[(&str, serde_json::Value)]| seen(changes).unwrap().answer;
        assert_eq!(answer(&[("gnomon.action", json!("deny"))]), Answer::Denied);
        assert_eq!(answer(&[("flow.pkts_toclient", json!(0)), ("tcp.tcp_flags_tc", json!("00"))]), Answer::Unanswered);
        assert_eq!(answer(&[("flow.pkts_toclient", json!(1)), ("tcp.tcp_flags_tc", json!("14"))]), Answer::Unanswered);
        assert_eq!(answer(&[("tcp.tcp_flags_ts", json!("02"))]), Answer::Unanswered, "a half-open connection");
        assert_eq!(answer(&[("proto", json!("UDP")), ("flow.pkts_toclient", json!(0))]), Answer::OneWay);
        assert_eq!(answer(&[("proto", json!("UDP"))]), Answer::Answered);
        assert!(seen(&[("gnomon.flags", json!(["port_scan"]))]).unwrap().attack);
        assert!(!seen(&[("gnomon.flags", json!(["outlier"]))]).unwrap().attack);
    }

    #[test]
    fn a_connection_picked_up_in_the_middle_is_turned_round() {
        let ends = [("src_port", json!(443)), ("dest_port", json!(51_000))];
        let begun = seen(&ends).unwrap();
        assert_eq!(begun.service, Service::of_port(6, 51_000), "its SYN was seen");
        let flags = [("tcp.tcp_flags_ts", json!("18")), ("tcp.tcp_flags_tc", json!("18"))];
        let seen = seen(&[ends, flags].concat()).unwrap();
        assert_eq!((seen.from.address.to_string(), seen.service), ("10.0.1.1".to_owned(), Service::of_port(6, 443)));
    }

    #[test]
    fn a_datagram_from_a_well_known_port_is_no_answer() {
        let ends = [("proto", json!("UDP")), ("src_port", json!(53)), ("dest_port", json!(51_000))];
        let alone = seen(&[&ends[..], &[("flow.pkts_toclient", json!(0))]].concat()).unwrap();
        assert_eq!((alone.service, alone.answer), (Service::of_port(17, 51_000), Answer::OneWay));
        assert_eq!(seen(&ends).unwrap().service, Service::of_port(17, 53), "both talked");
    }

    #[test]
    fn errors_and_neighbour_discovery_are_no_connections() {
        let kind = |proto: &str, number: u8| seen(&[("proto", json!(proto)), ("icmp_type", json!(number))]);
        assert_eq!(kind("ICMP", 8).map(|s| s.service), Some(Service::of_icmp(1, 8)));
        assert!(kind("ICMP", 3).is_none() && kind("IPv6-ICMP", 135).is_none());
        assert!(kind("IPv6-ICMP", 128).is_some());
    }
}
