//! What an expression can ask about a packet that has been judged.

use crate::filter::{Field, Fields, Value};
use crate::flow::{FlowState, TO_SERVER};
use crate::packet::{DropReason, Headers, Ip, KeyFrom, TunnelKind, Tuple};
use crate::worker::stages::Judgement;

/// A packet as far as the worker knows it. Borrowed from the burst.
pub(super) struct PacketView<'a> {
    pub(super) headers: &'a Headers,
    pub(super) key_from: KeyFrom,
    pub(super) wire_len: u32,
    /// `None` when it was dropped before.
    pub(super) judgement: Option<&'a Judgement>,
    pub(super) flow_state: Option<FlowState>,
    pub(super) dropped: Option<DropReason>,
    /// Sessions that a copy was made for.
    pub(super) mirrors: u64,
    pub(super) in_port: &'a str,
    pub(super) worker: u16,
}

const TCP: u8 = 6;
const ICMP: [u8; 2] = [1, 58];

impl PacketView<'_> {
    fn ip(&self) -> Option<&Ip> {
        self.headers.key_ip(self.key_from)
    }

    /// What the rules saw, with a fragment's ports filled in; else what the header says.
    fn tuple(&self) -> Option<Tuple> {
        let judged = self.judgement.map(|judgement| judgement.tuple).filter(|tuple| tuple.version != 0);
        judged.or_else(|| crate::packet::subject(self.headers, self.key_from).map(|subject| subject.tuple))
    }

    fn of_ip<'v>(&self, value: impl FnOnce(&Ip) -> Value<'v>) -> Value<'v> {
        self.ip().map_or(Value::Absent, value)
    }

    fn of_tuple<'v>(&self, value: impl FnOnce(&Tuple) -> Value<'v>) -> Value<'v> {
        self.tuple().map_or(Value::Absent, |tuple| value(&tuple))
    }

    fn judged<'v>(&self, value: impl FnOnce(&Judgement) -> Value<'v>) -> Value<'v> {
        self.judgement.map_or(Value::Absent, value)
    }

    /// Ports mean something: of TCP, UDP and the like, not the echo identifier that ICMP carries there.
    fn port<'v>(tuple: &Tuple, port: u16) -> Value<'v> {
        if ICMP.contains(&tuple.protocol) { Value::Absent } else { Value::unless_zero(port) }
    }

    fn verdict(&self, field: Field) -> Value<'_> {
        self.judged(|judgement| {
            let verdict = &judgement.verdict;
            match field {
                Field::Rule => Value::Handle(verdict.rule.0),
                Field::Tier => Value::Text(verdict.tier.name()),
                Field::Action => Value::Text(verdict.decision.name()),
                Field::Generation => Value::Number(verdict.generation.into()),
                Field::SourceGroups => Value::Handle(verdict.src_groups.0),
                Field::DestinationGroups => Value::Handle(verdict.dst_groups.0),
                Field::Mirror => Value::Sessions { generation: verdict.generation, bits: self.mirrors },
                _ => Value::Absent,
            }
        })
    }

    fn flow(&self, field: Field) -> Value<'_> {
        self.judged(|judgement| match (field, judgement.touch) {
            (Field::FlowId, _) => Value::unless_zero(judgement.flow_id),
            (Field::State, Some(_)) => self.flow_state.map_or(Value::Absent, |state| Value::Text(state.name())),
            (Field::NewFlow, Some(touch)) => Value::Number(touch.is_new.into()),
            (Field::Direction, Some(touch)) => {
                Value::Text(if touch.direction == TO_SERVER { "to_server" } else { "to_client" })
            }
            _ => Value::Absent,
        })
    }
}

impl Fields for PacketView<'_> {
    fn value(&self, field: Field) -> Value<'_> {
        match field {
            Field::Source => self.of_tuple(|t| Value::Address(t.version, t.src)),
            Field::Destination => self.of_tuple(|t| Value::Address(t.version, t.dst)),
            Field::SourcePort => self.of_tuple(|t| Self::port(t, t.src_port)),
            Field::DestinationPort => self.of_tuple(|t| Self::port(t, t.dst_port)),
            Field::Protocol => self.of_tuple(|t| Value::Number(t.protocol.into())),
            Field::Version => self.of_tuple(|t| Value::Number(t.version.into())),
            Field::Vlan => Value::unless_zero(self.headers.link.vlans.outer()),
            Field::Vni => Value::unless_zero(self.headers.tunnel_id),
            Field::IcmpType => self.of_ip(|ip| icmp(ip, ip.icmp_type)),
            Field::IcmpCode => self.of_ip(|ip| icmp(ip, ip.icmp_code)),
            Field::TcpFlags => self.of_ip(|ip| match ip.protocol {
                TCP => Value::Number(ip.tcp_flags.into()),
                _ => Value::Absent,
            }),
            Field::Worker => Value::Number(self.worker.into()),
            Field::SourceMac => Value::Number(mac(self.headers.link.src.0)),
            Field::DestinationMac => Value::Number(mac(self.headers.link.dst.0)),
            Field::EtherType => Value::Number(self.headers.link.ethertype.into()),
            Field::Length => Value::Number(self.wire_len.into()),
            Field::Payload => self.of_ip(|ip| Value::Number(ip.payload_len.into())),
            Field::Ttl => self.of_ip(|ip| Value::Number(ip.ttl.into())),
            Field::Fragment => self.of_ip(|ip| Value::Number(ip.fragment.is_some().into())),
            Field::Tunnel => tunnel(self.headers.tunnel).map_or(Value::Absent, Value::Text),
            Field::Port => Value::Text(self.in_port),
            Field::Drop => self.dropped.map_or(Value::Absent, |reason| Value::Text(reason.name())),
            Field::FlowId | Field::State | Field::NewFlow | Field::Direction => self.flow(field),
            _ => self.verdict(field),
        }
    }
}

fn icmp<'v>(ip: &Ip, number: u8) -> Value<'v> {
    if ICMP.contains(&ip.protocol) { Value::Number(number.into()) } else { Value::Absent }
}

fn mac(bytes: [u8; 6]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// As in [`Layer`](crate::packet::Layer)s.
fn tunnel(kind: TunnelKind) -> Option<&'static str> {
    Some(match kind {
        TunnelKind::None => return None,
        TunnelKind::Vxlan => "vxlan",
        TunnelKind::Geneve => "geneve",
        TunnelKind::GtpU => "gtpu",
        TunnelKind::Gre => "gre",
        TunnelKind::Erspan => "erspan",
        TunnelKind::IpInIp => "ipip",
        TunnelKind::SixInFour => "6in4",
        TunnelKind::Teredo => "teredo",
    })
}
