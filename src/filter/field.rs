//! The fields that expressions are about.

use crate::behaviour::AlertKind;
use crate::flow::{EndReason, FlowState};
use crate::packet::{Addr, DropReason};

/// What is known of one field of one flow or packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// It has no such field.
    Absent,
    /// It may have one, but that is not known here.
    Unknown,
    /// Counts, ports, nanoseconds; a set of words as bits; a MAC address in the lower 48 bits.
    Number(u64),
    Real(f64),
    /// IP version and address.
    Address(u8, Addr),
    Text(&'a str),
    /// Several texts, read from JSON.
    Texts(&'a [serde_json::Value]),
    /// Several names.
    Words(&'a [std::sync::Arc<str>]),
    /// A rule or a set of groups by number.
    Handle(u32),
    /// Mirror sessions as bits of a generation.
    Sessions {
        generation: u32,
        bits: u64,
    },
}

impl Value<'_> {
    /// A number; nothing in place of zero.
    pub fn unless_zero(number: impl Into<u64>) -> Self {
        match number.into() {
            0 => Value::Absent,
            n => Value::Number(n),
        }
    }
}

/// Anything that an expression can be tested against.
pub trait Fields {
    fn value(&self, field: Field) -> Value<'_>;
}

/// What values of a field look like.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Address, network or range of addresses.
    Address,
    Mac,
    /// An IP protocol by name or number.
    Protocol,
    /// A number from 0 to this.
    Number(u64),
    /// Nanoseconds, written `250us`, `1.5s`, `10m`.
    Duration,
    /// Nanoseconds since the Unix epoch, written `2025-01-15T09:00:05`.
    Time,
    Real,
    /// One of these words, as text.
    Word(Words),
    /// A set of these words, as bits in their order.
    Set(Words),
    /// Any text; `*` stands for anything.
    Text,
    Rule,
    Groups,
    Sessions,
}

/// What may be written; asked for only when text is parsed.
pub type Words = fn() -> Vec<&'static str>;

const MOST: u64 = u64::MAX;

fn states() -> Vec<&'static str> {
    FlowState::ALL.map(FlowState::name).to_vec()
}

fn reasons() -> Vec<&'static str> {
    EndReason::ALL.map(EndReason::name).to_vec()
}

fn actions() -> Vec<&'static str> {
    vec!["allow", "deny", "reject"]
}

fn tiers() -> Vec<&'static str> {
    vec!["override", "threat", "policy", "learned", "default"]
}

fn tcp_flags() -> Vec<&'static str> {
    vec!["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"]
}

fn flags() -> Vec<&'static str> {
    AlertKind::ALL.map(AlertKind::name).to_vec()
}

fn directions() -> Vec<&'static str> {
    vec!["to_server", "to_client"]
}

fn drops() -> Vec<&'static str> {
    DropReason::all().map(DropReason::name).collect()
}

fn tunnels() -> Vec<&'static str> {
    vec!["vxlan", "geneve", "gtpu", "gre", "erspan", "ipip", "6in4", "teredo"]
}

macro_rules! fields {
    ($($field:ident $name:literal [$($alias:literal)*] $kind:expr, $text:literal;)*) => {
        /// One field. Its name is its place in the JSON of a flow record where it is in there.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Field { $(#[doc = $text] $field,)* }

        const TABLE: &[Definition] = &[$(Definition {
            field: Field::$field,
            name: $name,
            aliases: &[$($alias),*],
            kind: $kind,
            text: $text,
        },)*];
    };
}

#[derive(Clone, Copy, Debug)]
struct Definition {
    field: Field,
    name: &'static str,
    aliases: &'static [&'static str],
    kind: Kind,
    text: &'static str,
}

fields! {
    Source "src_ip" ["src"] Kind::Address, "who began, or the sender of a packet";
    Destination "dest_ip" ["dst_ip" "dest" "dst"] Kind::Address, "the other end";
    SourcePort "src_port" ["sport"] Kind::Number(65_535), "TCP, UDP, SCTP";
    DestinationPort "dest_port" ["dst_port" "dport"] Kind::Number(65_535), "TCP, UDP, SCTP";
    Protocol "proto" ["protocol"] Kind::Protocol, "IP protocol";
    Version "ip_version" ["version"] Kind::Number(6), "4 or 6";
    Vlan "vlan" [] Kind::Number(4095), "outermost VLAN id";
    Vni "gnomon.vni" [] Kind::Number(u32::MAX as u64), "network id of the enclosing tunnel";
    IcmpType "icmp_type" [] Kind::Number(255), "ICMP and ICMPv6, of the first packet";
    IcmpCode "icmp_code" [] Kind::Number(255), "ICMP and ICMPv6, of the first packet";
    FlowId "flow_id" ["id"] Kind::Number(MOST), "the same in all slices of a flow";
    CommunityId "community_id" [] Kind::Text, "Community ID v1";
    AppProtocol "app_proto" ["app"] Kind::Text, "application";

    PacketsToServer "flow.pkts_toserver" [] Kind::Number(MOST), "packets of who began";
    PacketsToClient "flow.pkts_toclient" [] Kind::Number(MOST), "packets back";
    BytesToServer "flow.bytes_toserver" [] Kind::Number(MOST), "bytes of whole frames of who began";
    BytesToClient "flow.bytes_toclient" [] Kind::Number(MOST), "bytes back";
    Packets "packets" ["pkts"] Kind::Number(MOST), "packets both ways";
    Bytes "bytes" [] Kind::Number(MOST), "bytes both ways";
    Start "flow.start" [] Kind::Time, "first packet";
    End "flow.end" ["last"] Kind::Time, "last packet";
    Age "flow.age" ["duration"] Kind::Duration, "from the first packet to the last";
    Idle "idle" [] Kind::Duration, "since the last packet; live flows only";
    State "flow.state" [] Kind::Word(states), "of the connection";
    Reason "flow.reason" [] Kind::Word(reasons), "why the record was made";
    TcpFlagsToServer "tcp.tcp_flags_ts" ["tcp_flags_toserver"] Kind::Set(tcp_flags), "all TCP flags of who began";
    TcpFlagsToClient "tcp.tcp_flags_tc" ["tcp_flags_toclient"] Kind::Set(tcp_flags), "all TCP flags back";
    TcpFlags "tcp_flags" [] Kind::Set(tcp_flags), "all TCP flags, both ways";

    SizeMin "flow.size_min" [] Kind::Number(MOST), "least frame length";
    SizeMax "flow.size_max" [] Kind::Number(MOST), "greatest frame length";
    SizeMean "flow.size_mean" [] Kind::Real, "mean frame length";
    SizeSd "flow.size_sd" [] Kind::Real, "standard deviation of frame lengths";
    GapMin "flow.gap_min" [] Kind::Duration, "least time between packets";
    GapMax "flow.gap_max" [] Kind::Duration, "greatest time between packets";
    GapMean "flow.gap_mean" [] Kind::Duration, "mean time between packets";
    GapSd "flow.gap_sd" [] Kind::Duration, "standard deviation of the time between packets";
    Rtt "tcp.rtt" ["handshake_rtt"] Kind::Duration, "round trip of the TCP handshake";
    RetransmissionsToServer "tcp.retransmissions_ts" [] Kind::Number(MOST), "segments sent again by who began";
    RetransmissionsToClient "tcp.retransmissions_tc" [] Kind::Number(MOST), "segments sent again, back";
    Retransmissions "retransmissions" ["retrans"] Kind::Number(MOST), "segments sent again, both ways";
    OutOfWindow "out_of_window" [] Kind::Number(MOST), "TCP segments outside of the window, both ways";
    EntropyToServer "flow.entropy_toserver" [] Kind::Real, "bits per byte of the first payload of who began";
    EntropyToClient "flow.entropy_toclient" [] Kind::Real, "bits per byte of the first payload back";

    SourceGroups "gnomon.src_groups" ["src_group"] Kind::Groups, "groups of who began";
    DestinationGroups "gnomon.dst_groups" ["dst_group" "dest_group" "dest_groups"] Kind::Groups, "groups of the other end";
    Rule "gnomon.rule" [] Kind::Rule, "id of the rule that decided; `default` if none did";
    Tier "gnomon.tier" [] Kind::Word(tiers), "its tier";
    Action "gnomon.action" ["decision"] Kind::Word(actions), "what became of it";
    Generation "gnomon.generation" [] Kind::Number(u32::MAX as u64), "number of the policy that judged it last";
    Mirror "gnomon.mirror" ["mirrors"] Kind::Sessions, "mirror sessions that took packets of it";
    Score "gnomon.score" [] Kind::Real, "0 to 1, how unusual; of the latest record";
    Flags "gnomon.flags" ["flag"] Kind::Set(flags), "kinds of alerts it contributed to";
    Worker "worker" [] Kind::Number(65_535), "position of the worker that has it";

    SourceMac "src_mac" [] Kind::Mac, "of the frame";
    DestinationMac "dest_mac" ["dst_mac"] Kind::Mac, "of the frame";
    EtherType "ethertype" [] Kind::Number(65_535), "after all tags";
    Length "length" ["len"] Kind::Number(65_535), "bytes of the frame on the wire";
    Payload "payload" [] Kind::Number(65_535), "bytes behind the transport header";
    Ttl "ttl" ["hop_limit"] Kind::Number(255), "time to live, or hop limit";
    Fragment "fragment" [] Kind::Number(1), "1 for a fragment of a packet";
    Tunnel "tunnel" [] Kind::Word(tunnels), "kind of the tunnel around it";
    Port "in_port" ["rx_port"] Kind::Text, "port that it came in by";
    Direction "direction" [] Kind::Word(directions), "from or to who began the flow";
    NewFlow "new" [] Kind::Number(1), "1 for the first packet of a flow";
    Drop "drop" ["dropped" "drop_reason"] Kind::Word(drops), "why it was not forwarded";
}

/// Names that stand for a field of either end.
const EITHER: &[(&[&str], [Field; 2])] = &[
    (&["ip", "host", "addr", "net"], [Field::Source, Field::Destination]),
    (&["port"], [Field::SourcePort, Field::DestinationPort]),
    (&["mac"], [Field::SourceMac, Field::DestinationMac]),
    (&["group", "groups"], [Field::SourceGroups, Field::DestinationGroups]),
    (&["entropy"], [Field::EntropyToServer, Field::EntropyToClient]),
];

impl Field {
    fn definition(self) -> &'static Definition {
        &TABLE[self as usize]
    }

    /// As in the JSON of a flow record, dotted.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// The part of the name behind the dot.
    pub fn short(self) -> &'static str {
        self.name().rsplit('.').next().unwrap_or_default()
    }

    pub fn kind(self) -> Kind {
        self.definition().kind
    }

    /// Whether its values are numbers, so that the greatest are of interest.
    pub fn is_number(self) -> bool {
        matches!(self.kind(), Kind::Number(u64::MAX) | Kind::Duration | Kind::Time | Kind::Real)
    }

    /// What it is, in a few words.
    pub fn text(self) -> &'static str {
        self.definition().text
    }

    fn answers_to(self, name: &str) -> bool {
        self.name() == name || self.short() == name || self.definition().aliases.contains(&name)
    }
}

/// What expressions in one place may ask about.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    what: &'static str,
    has: fn(Field) -> bool,
}

impl Schema {
    /// Live flows and flow records.
    pub const FLOW: Schema = Schema { what: "flows", has: |field| (field as u8) < Field::SourceMac as u8 };
    /// Packets on their way through the box.
    pub const PACKET: Schema = Schema { what: "packets", has: is_of_packets };

    /// Such as `flows`.
    pub fn what(&self) -> &'static str {
        self.what
    }

    pub fn fields(&self) -> impl Iterator<Item = Field> + use<> {
        let has = self.has;
        TABLE.iter().map(|definition| definition.field).filter(move |field| has(*field))
    }

    /// One field, by any of its names.
    pub fn field(&self, name: &str) -> Option<Field> {
        self.fields().find(|field| field.answers_to(name))
    }

    /// The field of this name, or both that it stands for.
    pub(super) fn lookup(&self, name: &str) -> Option<[Field; 2]> {
        let either = self.either().find(|(names, _)| names.contains(&name)).map(|(_, fields)| fields);
        either.or_else(|| self.field(name).map(|field| [field; 2]))
    }

    pub(super) fn either(&self) -> impl Iterator<Item = (&'static [&'static str], [Field; 2])> + use<> {
        let has = self.has;
        EITHER.iter().copied().filter(move |(_, fields)| has(fields[0]))
    }

    /// Every name there is.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for field in self.fields() {
            names.extend([field.short(), field.name()]);
            names.extend(field.definition().aliases);
        }
        names.extend(self.either().flat_map(|(names, _)| names));
        names.dedup();
        names
    }
}

fn is_of_packets(field: Field) -> bool {
    use Field::*;
    let common = [
        Source,
        Destination,
        SourcePort,
        DestinationPort,
        Protocol,
        Version,
        Vlan,
        Vni,
        IcmpType,
        IcmpCode,
        FlowId,
        State,
        TcpFlags,
        SourceGroups,
        DestinationGroups,
        Rule,
        Tier,
        Action,
        Generation,
        Mirror,
        Worker,
    ];
    field as u8 >= SourceMac as u8 || common.contains(&field)
}
