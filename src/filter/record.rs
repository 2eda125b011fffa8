//! Flow records as they are in memory: rules, groups and mirror sessions by number.

use super::field::{Field, Fields, Value};
use crate::behaviour::Flags;
use crate::flow::{FlowRecord, TO_CLIENT, TO_SERVER};
use crate::packet;
use crate::rules::GroupSetHandle;

const TCP: u8 = 6;

impl Fields for FlowRecord {
    /// What only the scorer or an exporter knows is unknown.
    fn value(&self, field: Field) -> Value<'_> {
        let tuple = &self.tuple;
        let has_ports = packet::has_ports(tuple.protocol);
        let is_icmp = packet::is_icmp(tuple.protocol);
        let if_tcp = |value: Value<'static>| if tuple.protocol == TCP { value } else { Value::Absent };
        let number = |n: u64| Value::Number(n);
        match field {
            Field::Source => Value::Address(tuple.version, tuple.src),
            Field::Destination => Value::Address(tuple.version, tuple.dst),
            Field::SourcePort if has_ports => number(tuple.src_port.into()),
            Field::DestinationPort if has_ports => number(tuple.dst_port.into()),
            Field::Protocol => number(tuple.protocol.into()),
            Field::Version => number(tuple.version.into()),
            Field::Vlan => Value::unless_zero(tuple.vlan),
            Field::Vni => Value::unless_zero(tuple.vni),
            Field::IcmpType if is_icmp => number(self.icmp.0.into()),
            Field::IcmpCode if is_icmp => number(self.icmp.1.into()),
            Field::FlowId => number(self.flow_id),
            Field::CommunityId | Field::AppProtocol | Field::Score | Field::Flags | Field::Idle => Value::Unknown,
            Field::PacketsToServer => number(self.packets[TO_SERVER]),
            Field::PacketsToClient => number(self.packets[TO_CLIENT]),
            Field::BytesToServer => number(self.bytes[TO_SERVER]),
            Field::BytesToClient => number(self.bytes[TO_CLIENT]),
            Field::Packets => number(self.packets.iter().sum()),
            Field::Bytes => number(self.bytes.iter().sum()),
            Field::Start => number(self.start),
            Field::End => number(self.end),
            Field::Age => number(self.end.saturating_sub(self.start)),
            Field::State => Value::Text(self.state.name()),
            Field::Reason => Value::Text(self.reason.name()),
            Field::TcpFlagsToServer => if_tcp(number(self.tcp_flags[TO_SERVER].into())),
            Field::TcpFlagsToClient => if_tcp(number(self.tcp_flags[TO_CLIENT].into())),
            Field::TcpFlags => if_tcp(number((self.tcp_flags[TO_SERVER] | self.tcp_flags[TO_CLIENT]).into())),
            Field::SizeMin => number(self.sizes.min),
            Field::SizeMax => number(self.sizes.max),
            Field::SizeMean => Value::Real(self.sizes.mean),
            Field::SizeSd => Value::Real(self.sizes.sd),
            Field::GapMin => number(self.gaps.min),
            Field::GapMax => number(self.gaps.max),
            Field::GapMean => number(self.gaps.mean as u64),
            Field::GapSd => number(self.gaps.sd as u64),
            Field::Rtt => self.handshake_rtt.map_or(Value::Absent, Value::Number),
            Field::RetransmissionsToServer => if_tcp(number(self.retransmissions[TO_SERVER].into())),
            Field::RetransmissionsToClient => if_tcp(number(self.retransmissions[TO_CLIENT].into())),
            Field::Retransmissions => if_tcp(number(self.retransmissions.iter().copied().map(u64::from).sum())),
            Field::OutOfWindow => if_tcp(number(self.out_of_window.iter().copied().map(u64::from).sum())),
            Field::EntropyToServer => real(self.entropy[TO_SERVER]),
            Field::EntropyToClient => real(self.entropy[TO_CLIENT]),
            Field::SourceGroups => groups(self.src_groups),
            Field::DestinationGroups => groups(self.dst_groups),
            Field::Rule => Value::Handle(self.rule.0),
            Field::Tier => Value::Text(self.tier.name()),
            Field::Action => Value::Text(self.decision.name()),
            Field::Generation => number(self.generation.into()),
            Field::Mirror => Value::Sessions { generation: self.generation, bits: self.mirrors },
            Field::Worker => number(self.worker.into()),
            _ => Value::Absent,
        }
    }
}

/// What the scorer said of the latest record of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scored {
    pub score: Option<f32>,
    pub flags: Flags,
}

/// A live flow with all that is known of it.
#[derive(Clone, Copy, Debug)]
pub struct LiveFlow<'a> {
    pub record: &'a FlowRecord,
    pub scored: Option<Scored>,
    pub community_id: &'a str,
    /// Nanoseconds since the Unix epoch.
    pub now: u64,
}

impl Fields for LiveFlow<'_> {
    fn value(&self, field: Field) -> Value<'_> {
        match field {
            Field::CommunityId => Value::Text(self.community_id),
            Field::Score => real(self.scored.and_then(|scored| scored.score)),
            Field::Flags => self.scored.map_or(Value::Absent, |scored| Value::Number(scored.flags.bits().into())),
            Field::Idle => Value::Number(self.now.saturating_sub(self.record.end)),
            Field::AppProtocol => Value::Absent,
            other => self.record.value(other),
        }
    }
}

fn real(value: Option<f32>) -> Value<'static> {
    value.map_or(Value::Absent, |x| Value::Real(x.into()))
}

fn groups(groups: GroupSetHandle) -> Value<'static> {
    // Number 0 is the empty set.
    if groups.0 == 0 { Value::Absent } else { Value::Handle(groups.0) }
}
