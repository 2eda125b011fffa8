//! Flow records: which element stands in which template, and what it says of a record.
//!
//! One table, [`COLUMNS`], is both: a template is the columns that apply to its shape, a record is what they put. So the
//! two cannot differ. `nfcapd` 1.7 takes the reverse of most elements for the element itself, and the last one wins:
//! that is why the reverse TCP flags stand before the flags.

use std::net::IpAddr;

use super::element::{self as ie, Element};
use super::wire::Put;
use crate::behaviour::ScoredRecord;
use crate::export::community_id;
use crate::flow::{EndReason, FlowRecord, FlowState, TO_CLIENT, TO_SERVER};
use crate::rules::{Decision, Tier};

/// A column of a flow template.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub element: Element,
    /// Of the packets to the client (RFC 5103).
    pub reverse: bool,
    applies: fn(Shape) -> bool,
    put: fn(&mut Vec<u8>, &Subject<'_>),
}

/// What a record is made from.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub scored: &'a ScoredRecord,
    /// Number of the set of mirror sessions, see the options.
    pub mirror_set: u32,
}

/// What decides which columns a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub version: u8,
    pub layer: Layer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    Tcp,
    /// UDP and SCTP.
    Ports,
    Icmp,
    Other,
}

/// All shapes; a shape's position is its template's number less [`FIRST_TEMPLATE`].
pub const SHAPES: [Shape; 8] = [
    Shape { version: 4, layer: Layer::Tcp },
    Shape { version: 4, layer: Layer::Ports },
    Shape { version: 4, layer: Layer::Icmp },
    Shape { version: 4, layer: Layer::Other },
    Shape { version: 6, layer: Layer::Tcp },
    Shape { version: 6, layer: Layer::Ports },
    Shape { version: 6, layer: Layer::Icmp },
    Shape { version: 6, layer: Layer::Other },
];

pub const FIRST_TEMPLATE: u16 = 256;

/// Number of the template a record is sent by.
pub fn template_of(record: &FlowRecord) -> u16 {
    let layer = match record.tuple.protocol {
        6 => 0,
        17 | 132 => 1,
        1 | 58 => 2,
        _ => 3,
    };
    FIRST_TEMPLATE + layer + if record.tuple.version == 4 { 0 } else { 4 }
}

impl Shape {
    pub fn columns(self) -> impl Iterator<Item = &'static Column> {
        COLUMNS.iter().filter(move |column| (column.applies)(self))
    }

    /// Of these columns, which tell one flow from another: bit n for the n-th column (flowKeyIndicator).
    pub fn key_bits(self) -> u64 {
        let keys = [
            ie::SOURCE_IPV4.id,
            ie::DESTINATION_IPV4.id,
            ie::SOURCE_IPV6.id,
            ie::DESTINATION_IPV6.id,
            ie::SOURCE_PORT.id,
            ie::DESTINATION_PORT.id,
            ie::PROTOCOL.id,
            ie::VLAN_ID.id,
        ];
        let is_key = |e: &Element| if e.own { *e == ie::TUNNEL_NETWORK } else { keys.contains(&e.id) };
        let bits = self.columns().enumerate().filter(|(_, column)| is_key(&column.element));
        bits.fold(0, |bits, (at, _)| bits | 1 << at)
    }
}

/// Appends the record's bytes; `columns` are those of its shape.
pub fn put_record(out: &mut Vec<u8>, columns: &[&Column], subject: &Subject<'_>) {
    for column in columns {
        (column.put)(out, subject);
    }
}

fn always(_: Shape) -> bool {
    true
}

fn ipv4(shape: Shape) -> bool {
    shape.version == 4
}

fn ipv6(shape: Shape) -> bool {
    shape.version == 6
}

fn tcp(shape: Shape) -> bool {
    shape.layer == Layer::Tcp
}

fn ports(shape: Shape) -> bool {
    matches!(shape.layer, Layer::Tcp | Layer::Ports)
}

fn icmp4(shape: Shape) -> bool {
    shape.layer == Layer::Icmp && shape.version == 4
}

fn icmp6(shape: Shape) -> bool {
    shape.layer == Layer::Icmp && shape.version == 6
}

/// A column of the flow as a whole, or of what went to the server.
const fn column(element: Element, applies: fn(Shape) -> bool, put: fn(&mut Vec<u8>, &Subject<'_>)) -> Column {
    Column { element, reverse: false, applies, put }
}

/// A column of what went to the client.
const fn reverse(element: Element, applies: fn(Shape) -> bool, put: fn(&mut Vec<u8>, &Subject<'_>)) -> Column {
    Column { element, reverse: true, applies, put }
}

impl Subject<'_> {
    fn flow(&self) -> &FlowRecord {
        &self.scored.record
    }
}

/// All columns, in the order of the templates.
pub const COLUMNS: &[Column] = &[
    column(ie::FLOW_ID, always, |o, s| o.put_u64(s.flow().flow_id)),
    column(ie::SOURCE_IPV4, ipv4, |o, s| put_ip(o, s.flow().tuple.src_ip())),
    column(ie::DESTINATION_IPV4, ipv4, |o, s| put_ip(o, s.flow().tuple.dst_ip())),
    column(ie::SOURCE_IPV6, ipv6, |o, s| put_ip(o, s.flow().tuple.src_ip())),
    column(ie::DESTINATION_IPV6, ipv6, |o, s| put_ip(o, s.flow().tuple.dst_ip())),
    column(ie::SOURCE_PORT, ports, |o, s| o.put_u16(s.flow().tuple.src_port)),
    column(ie::DESTINATION_PORT, ports, |o, s| o.put_u16(s.flow().tuple.dst_port)),
    column(ie::ICMP_TYPE_CODE_IPV4, icmp4, |o, s| put_icmp(o, s.flow().icmp)),
    column(ie::ICMP_TYPE_CODE_IPV6, icmp6, |o, s| put_icmp(o, s.flow().icmp)),
    column(ie::PROTOCOL, always, |o, s| o.put_u8(s.flow().tuple.protocol)),
    column(ie::IP_VERSION, always, |o, s| o.put_u8(s.flow().tuple.version)),
    column(ie::VLAN_ID, always, |o, s| o.put_u16(s.flow().tuple.vlan)),
    column(ie::TUNNEL_NETWORK, always, |o, s| o.put_u32(s.flow().tuple.vni)),
    column(ie::PACKET_DELTA_COUNT, always, |o, s| o.put_u64(s.flow().packets[TO_SERVER])),
    reverse(ie::PACKET_DELTA_COUNT, always, |o, s| o.put_u64(s.flow().packets[TO_CLIENT])),
    column(ie::OCTET_DELTA_COUNT, always, |o, s| o.put_u64(s.flow().bytes[TO_SERVER])),
    reverse(ie::OCTET_DELTA_COUNT, always, |o, s| o.put_u64(s.flow().bytes[TO_CLIENT])),
    column(ie::LAYER2_OCTET_DELTA_COUNT, always, |o, s| o.put_u64(s.flow().bytes[TO_SERVER])),
    reverse(ie::LAYER2_OCTET_DELTA_COUNT, always, |o, s| o.put_u64(s.flow().bytes[TO_CLIENT])),
    column(ie::TRANSPORT_OCTET_DELTA_COUNT, always, |o, s| o.put_u64(s.flow().payload_bytes[TO_SERVER])),
    reverse(ie::TRANSPORT_OCTET_DELTA_COUNT, always, |o, s| o.put_u64(s.flow().payload_bytes[TO_CLIENT])),
    column(ie::FLOW_START_MILLISECONDS, always, |o, s| o.put_u64(s.flow().start / 1_000_000)),
    column(ie::FLOW_END_MILLISECONDS, always, |o, s| o.put_u64(s.flow().end / 1_000_000)),
    column(ie::FLOW_START_NANOSECONDS, always, |o, s| o.put_ntp(s.flow().start)),
    column(ie::FLOW_END_NANOSECONDS, always, |o, s| o.put_ntp(s.flow().end)),
    column(ie::OBSERVATION_TIME_NANOSECONDS, always, |o, s| o.put_ntp(s.flow().emitted)),
    reverse(ie::TCP_CONTROL_BITS, tcp, |o, s| o.put_u16(s.flow().tcp_flags[TO_CLIENT].into())),
    column(ie::TCP_CONTROL_BITS, tcp, |o, s| o.put_u16(s.flow().tcp_flags[TO_SERVER].into())),
    column(ie::FLOW_END_REASON, always, |o, s| o.put_u8(reason(s.flow().reason).0)),
    column(ie::BIFLOW_DIRECTION, always, |o, _| o.put_u8(INITIATOR)),
    column(ie::FORWARDING_STATUS, always, |o, s| o.put_u8(verdict(s.flow().decision).0)),
    column(ie::MINIMUM_LAYER2_LENGTH, always, |o, s| o.put_u64(s.flow().sizes.min)),
    column(ie::MAXIMUM_LAYER2_LENGTH, always, |o, s| o.put_u64(s.flow().sizes.max)),
    column(ie::SIZE_MEAN, always, |o, s| o.put_f64(s.flow().sizes.mean)),
    column(ie::SIZE_DEVIATION, always, |o, s| o.put_f64(s.flow().sizes.sd)),
    column(ie::GAP_MINIMUM, always, |o, s| o.put_u64(s.flow().gaps.min)),
    column(ie::GAP_MAXIMUM, always, |o, s| o.put_u64(s.flow().gaps.max)),
    column(ie::GAP_MEAN, always, |o, s| o.put_f64(s.flow().gaps.mean)),
    column(ie::GAP_DEVIATION, always, |o, s| o.put_f64(s.flow().gaps.sd)),
    column(ie::HANDSHAKE_TIME, tcp, |o, s| o.put_u64(s.flow().handshake_rtt.unwrap_or(u64::MAX))),
    column(ie::RETRANSMISSIONS, tcp, |o, s| o.put_u32(s.flow().retransmissions[TO_SERVER])),
    reverse(ie::RETRANSMISSIONS, tcp, |o, s| o.put_u32(s.flow().retransmissions[TO_CLIENT])),
    column(ie::OUT_OF_WINDOW, tcp, |o, s| o.put_u32(s.flow().out_of_window[TO_SERVER])),
    reverse(ie::OUT_OF_WINDOW, tcp, |o, s| o.put_u32(s.flow().out_of_window[TO_CLIENT])),
    column(ie::ICMP_ERRORS, always, |o, s| o.put_u32(s.flow().icmp_errors)),
    column(ie::ENTROPY, always, |o, s| o.put_f32(s.flow().entropy[TO_SERVER].unwrap_or(f32::NAN))),
    reverse(ie::ENTROPY, always, |o, s| o.put_f32(s.flow().entropy[TO_CLIENT].unwrap_or(f32::NAN))),
    column(ie::RULE, always, |o, s| o.put_u32(s.flow().rule.0)),
    column(ie::RULE_TIER, always, |o, s| o.put_u8(tier(s.flow().tier))),
    column(ie::VERDICT, always, |o, s| o.put_u8(verdict(s.flow().decision).1)),
    column(ie::GENERATION, always, |o, s| o.put_u32(s.flow().generation)),
    column(ie::SOURCE_GROUPS, always, |o, s| o.put_u32(s.flow().src_groups.0)),
    column(ie::DESTINATION_GROUPS, always, |o, s| o.put_u32(s.flow().dst_groups.0)),
    column(ie::MIRROR_SET, always, |o, s| o.put_u32(s.mirror_set)),
    column(ie::SCORE, always, |o, s| o.put_f32(s.scored.score.unwrap_or(f32::NAN))),
    column(ie::SCORE_FLAGS, always, |o, s| {
        o.put_u32(s.scored.flags.iter().fold(0, |bits, kind| bits | 1 << kind as u8))
    }),
    column(ie::FLOW_STATE, always, |o, s| o.put_u8(state(s.flow().state))),
    column(ie::END_REASON, always, |o, s| o.put_u8(reason(s.flow().reason).1)),
    column(ie::WORKER, always, |o, s| o.put_u16(s.flow().worker)),
    column(ie::RECORD_SEQUENCE, always, |o, s| o.put_u64(s.flow().sequence)),
    column(ie::COMMUNITY_ID, always, |o, s| {
        o.put_text(&community_id(&s.flow().tuple, s.flow().icmp, 0), usize::MAX);
    }),
];

/// biflowDirection: the source is the initiator.
const INITIATOR: u8 = 1;

fn put_ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend(address.octets()),
        IpAddr::V6(address) => out.extend(address.octets()),
    }
}

fn put_icmp(out: &mut Vec<u8>, (kind, code): (u8, u8)) {
    out.put_u8(kind);
    out.put_u8(code);
}

/// flowEndReason of the registry, and gnomon's.
fn reason(reason: EndReason) -> (u8, u8) {
    match reason {
        EndReason::Idle => (1, 0),
        EndReason::Active => (2, 1),
        EndReason::Fin => (3, 2),
        EndReason::Rst => (3, 3),
        EndReason::Evicted => (5, 4),
        EndReason::Forced => (4, 5),
    }
}

/// forwardingStatus of the registry, and gnomon's.
fn verdict(decision: Decision) -> (u8, u8) {
    match decision {
        // Forwarded, no more to say.
        Decision::Allow => (64, 0),
        // Dropped: ACL drop.
        Decision::Deny => (130, 1),
        // Dropped: ACL deny.
        Decision::Reject => (129, 2),
    }
}

fn state(state: FlowState) -> u8 {
    match state {
        FlowState::New => 0,
        FlowState::Established => 1,
        FlowState::Closing => 2,
        FlowState::Closed => 3,
    }
}

fn tier(tier: Tier) -> u8 {
    match tier {
        Tier::Override => 0,
        Tier::Threat => 1,
        Tier::Policy => 2,
        Tier::Learned => 3,
        Tier::Default => 4,
    }
}
