//! Mirrors and their targets as they stand in the file.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw::{IcmpType, OneOrMany, PortSpec, Protocol, priority};
use super::text::{DurationText, HealthText, MacText, Name, RateText, SampleText, ShareText, SliceText};
use crate::rules::Decision;

/// Copies of matching packets, sent to a port of their own before anything else happens to them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMirror {
    /// Also the name of the replay's output file, `mirror-NAME.pcap`.
    pub name: Name,
    /// Where the copies go: a port that is in no pair, or a target. Left out only in files without ports.
    pub to: Option<String>,
    /// By what the collector tells the copies of this mirror from others, when they are wrapped: VXLAN or GENEVE network
    /// id, GRE key, or ERSPAN session (up to 1023). Left out: the mirror's place in the file, from 1.
    #[schemars(range(min = 0, max = 16_777_215))]
    pub id: Option<u32>,
    /// Who is mirrored: a group, a network, an address, "any", or a list of these.
    pub group: Option<OneOrMany<String>>,
    /// Seen from `group`: what it sends ("out"), what it receives ("in"), or both, which with `ports` takes
    /// the replies too.
    pub direction: Option<Direction>,
    /// The other end of what `group` sends or receives, written like it.
    pub peer: Option<OneOrMany<String>>,
    /// Short for `group` with direction "out".
    pub from: Option<OneOrMany<String>>,
    /// Left out: any.
    pub protocol: Option<Protocol>,
    /// Destination ports of TCP, UDP or SCTP: a number, a range such as "8000-8100", or a list of these.
    pub ports: Option<OneOrMany<PortSpec>>,
    /// Source ports, written like `ports`.
    pub from_ports: Option<OneOrMany<PortSpec>>,
    /// ICMP or ICMPv6 message by number or name; needs `protocol`.
    pub icmp_type: Option<IcmpType>,
    /// Code within `icmp_type`.
    pub icmp_code: Option<u8>,
    /// Outermost VLAN id; 0 for untagged.
    #[schemars(range(min = 0, max = 4094))]
    pub vlan: Option<u16>,
    /// Network id (VXLAN, GENEVE) or tunnel endpoint id (GTP-U) of the enclosing tunnel; needs
    /// `flow.key = "inner"`.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub vni: Option<u32>,
    /// Only packets that the rules decided so. Left out: all.
    #[schemars(length(min = 1))]
    pub verdicts: Option<Vec<Decision>>,
    /// Every n-th packet, "1/n". Left out, and without `flows`: all.
    pub sample: Option<SampleText>,
    /// Instead of `sample`: whole conversations, this share of all, the same ones on every machine with the same
    /// seed.
    pub flows: Option<ShareText>,
    /// More than that of the flows of those who have an alert or are at risk, see `[adaptive]`; needs `flows`.
    #[serde(default)]
    pub adapt: bool,
    /// Only flows of those who are at this risk at least, see `[adaptive]`; with `flags`, either is enough.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_score: Option<f64>,
    /// Only flows of those who have an alert of one of these kinds, or "any".
    #[schemars(length(min = 1))]
    pub flags: Option<Vec<String>>,
    /// Only so many packets of each flow, both directions together, from its beginning. With `sample` or `flows`, those
    /// of them that are chosen.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub first_packets: Option<u64>,
    /// Instead of `first_packets`: until the flow has so many bytes.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub first_bytes: Option<u64>,
    /// Only packets that one of these rules decided, by id.
    #[schemars(length(min = 1))]
    pub rules: Option<Vec<String>>,
    /// Only packets received on this port, or one of these: with both ports of a pair, all of it. In a replay all.
    pub on: Option<OneOrMany<String>>,
    /// A packet that was seen at another port, in another VLAN or from another station no longer than this ago is not
    /// copied again. Left out: as the target says.
    pub dedup: Option<DurationText>,
    /// Lowest first when several mirrors take one packet and not all copies can be sent.
    #[serde(default = "priority")]
    #[schemars(range(min = 0, max = 4_294_967_295u64))]
    pub priority: u32,
}

/// A collector of copies: how to reach it, how copies are wrapped and cut, and how much it gets.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTarget {
    pub name: Name,
    /// Port that the copies leave by; it must be in no pair. Left out only in files without ports.
    pub port: Option<String>,
    /// What copies are wrapped in. Left out: the frames are sent as they are.
    pub tunnel: Option<TunnelWord>,
    /// IPv4 or IPv6 address of the collector, or of each of a pool: each gets the flows that a hash gives it, both
    /// directions together.
    pub to: Option<OneOrMany<String>>,
    /// Own address in what is sent to it, of the same family; with a prefix length it is known who is on the link.
    pub from: Option<String>,
    /// MAC address of the collector, or of the next hop to it; of a pool one for all, or one for each in the order of `to`.
    /// Left out: found by ARP or neighbour discovery.
    pub to_mac: Option<OneOrMany<MacText>>,
    /// Address of the next hop to collectors that are not on the link.
    pub gateway: Option<String>,
    /// How long a MAC address that was found is good; then it is asked for again.
    #[serde(default = "refresh")]
    pub refresh: DurationText,
    /// How it is told whether a collector is well: "arp" (it, or the gateway to it, tells its MAC address; over IPv6 by
    /// neighbour discovery), "icmp" (echo), or "tcp:PORT". Left out: it is not asked.
    pub health: Option<HealthText>,
    /// Between two health checks; an answer that takes longer is none.
    #[serde(default = "health_interval")]
    pub health_interval: DurationText,
    /// Checks without an answer, one after the other, that take a collector down.
    #[serde(default = "health_fall")]
    #[schemars(range(min = 1, max = 100))]
    pub health_fall: u32,
    /// Answers, one after the other, that bring it back.
    #[serde(default = "health_rise")]
    #[schemars(range(min = 1, max = 100))]
    pub health_rise: u32,
    /// Own MAC address. Left out: one made for the purpose, 02:67:6e:6f:6d:00 and up.
    pub from_mac: Option<MacText>,
    /// VLAN that the collector is in; left out or 0: untagged.
    #[schemars(range(min = 0, max = 4094))]
    pub vlan: Option<u16>,
    /// Class of service (DSCP) of wrapped copies; 8 is "lower than other traffic".
    #[serde(default = "dscp")]
    #[schemars(range(min = 0, max = 63))]
    pub dscp: u8,
    /// Only so many bytes of each frame, from its beginning; or "headers", all headers that were understood, or "headers+64",
    /// these and so many bytes behind them.
    pub slice: Option<SliceSpec>,
    /// What of the payload is overwritten in copies: "all", or a list of patterns: "digits:13", runs of at least so many
    /// digits; "text:WORDS" and "hex:0a0b", these bytes; "after:WORDS", what follows these bytes on their line.
    pub mask: Option<OneOrMany<String>>,
    /// A packet that was seen at another port, in another VLAN or from another station no longer than this ago is not
    /// copied again.
    pub dedup: Option<DurationText>,
    /// Largest IP packet that the way to the collector takes.
    #[serde(default = "mtu")]
    #[schemars(range(min = 256, max = 16000))]
    pub mtu: u32,
    /// What becomes of wrapped copies larger than `mtu`: cut at the end, sent in several IP packets, or dropped and counted.
    #[serde(default)]
    pub oversize: OversizeWord,
    /// Most that each mirror sends to it, over all workers.
    pub max_rate: Option<RateText>,
    /// Most packets per second that each mirror sends to it, over all workers.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_packets: Option<u64>,
}

/// A number of bytes, or all headers and so many bytes behind them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum SliceSpec {
    Bytes(u16),
    Headers(SliceText),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum TunnelWord {
    Vxlan,
    Geneve,
    Gre,
    Erspan2,
    Erspan3,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum OversizeWord {
    #[default]
    Truncate,
    Drop,
    Fragment,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    In,
    Out,
    #[default]
    Both,
}

fn refresh() -> DurationText {
    DurationText::of(Duration::from_secs(30))
}

fn health_interval() -> DurationText {
    DurationText::of(Duration::from_secs(1))
}

fn health_fall() -> u32 {
    3
}

fn health_rise() -> u32 {
    2
}

fn dscp() -> u8 {
    8
}

fn mtu() -> u32 {
    1500
}
