//! The file as it is written: one serde struct per table. The doc comments of this file are the
//! descriptions in `config/gnomon.schema.json`, and the defaults there are the defaults here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::{EventKind, Ipfix, SocketKind};
use super::raw_adaptive::{RawAdaptive, RawHoneypot};
use super::raw_api::RawApi;
use super::raw_detect::RawDetectException;
use super::raw_mirrors::{RawMirror, RawTarget};
use super::raw_models::{RawScorer, RawStore};
use super::text::{
    CollectorText, DeviceText, DurationText, ListenText, Name, PciAddress, PortRange, RuleId, ShareText, SizeText, Tag,
};
use crate::rules::{Action, Decision, LiveFlows, Mode};

/// Configuration of gnomon.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConfig {
    /// Seed of everything random: flow hashing, the forest, sampling of flows. The same input, file and
    /// seed give the same output.
    #[schemars(range(min = 0, max = 9_223_372_036_854_775_807u64))]
    pub seed: Option<u64>,
    pub cores: RawCores,
    pub eal: RawEal,
    pub port: Vec<RawPort>,
    pub pair: Vec<RawPair>,
    pub vm: Vec<RawVm>,
    pub group: Vec<RawGroup>,
    pub rule: Vec<RawRule>,
    pub policy: RawPolicy,
    pub target: Vec<RawTarget>,
    pub mirror: Vec<RawMirror>,
    pub adaptive: RawAdaptive,
    pub honeypot: Vec<RawHoneypot>,
    pub flow: RawFlow,
    pub scorer: RawScorer,
    pub store: RawStore,
    pub detect: Vec<RawDetectException>,
    pub export: RawExport,
    pub control: RawControl,
    pub ipfix: Vec<RawIpfix>,
    pub metrics: RawMetrics,
    pub api: RawApi,
    pub limits: RawLimits,
}

/// A single value or a list of them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// Which CPU core does what.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCores {
    /// CPU of the main thread: start, counters, publishing of rules.
    #[schemars(range(min = 0, max = 1023))]
    pub main: usize,
    /// CPUs of the poll-mode workers, one worker for each entry. A CPU may be named twice on small machines.
    #[schemars(inner(range(min = 0, max = 1023)), length(min = 1, max = 128))]
    pub workers: Vec<usize>,
    /// CPU of the scorer, or "any" to leave it to the operating system.
    pub scorer: RawScorerCore,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawScorerCore {
    Cpu(#[schemars(range(min = 0, max = 1023))] usize),
    Any(AnyWord),
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum AnyWord {
    Any,
}

/// Options of DPDK's environment abstraction layer.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawEal {
    /// Use hugepages. Needed for nearly all physical ports.
    pub hugepages: bool,
    /// Memory DPDK takes at start, at least 64MiB.
    pub memory: SizeText,
    /// Prefix of DPDK's run-time files; differs between gnomons on one machine.
    pub file_prefix: Name,
    /// PCI addresses DPDK may probe. Empty: those of the ports in this file.
    pub pci_allow: Vec<PciAddress>,
    /// Packet buffers shared by all ports.
    #[schemars(range(min = 1024, max = 8_388_608))]
    pub mbufs: u32,
}

/// One port: a PCI address, or a virtual device with its arguments.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPort {
    /// How the rest of the file calls it.
    pub name: Name,
    /// A PCI address, or a DPDK virtual device and its arguments.
    pub device: DeviceText,
    /// Largest IP packet in bytes. Left out: what the device has.
    #[schemars(range(min = 68, max = 16000))]
    pub mtu: Option<u16>,
    /// Receive frames for all MAC addresses; an appliance in line needs this.
    #[serde(default = "yes")]
    pub promiscuous: bool,
    /// Left out: one per worker if the device can, else as many as it has.
    #[schemars(range(min = 1, max = 256))]
    pub rx_queues: Option<u16>,
    #[serde(default = "descriptors")]
    #[schemars(range(min = 64, max = 32768))]
    pub rx_descriptors: u16,
    #[serde(default = "descriptors")]
    #[schemars(range(min = 64, max = 32768))]
    pub tx_descriptors: u16,
}

/// Two ports joined in line: what enters one leaves the other.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPair {
    /// Names of two ports.
    #[schemars(length(min = 2, max = 2))]
    pub ports: Vec<String>,
}

/// A workload.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVm {
    pub id: Name,
    /// IPv4, IPv6 and MAC addresses.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// What groups pick it by.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// A named set of endpoints: all that is listed here together. An address may be in several groups.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGroup {
    pub name: Name,
    /// VMs that carry all of these tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// VMs by id.
    #[serde(default)]
    pub vms: Vec<String>,
    /// Networks and single addresses.
    #[serde(default)]
    pub cidrs: Vec<String>,
    /// MAC addresses that belong to no VM of this file.
    #[serde(default)]
    pub macs: Vec<String>,
    /// Everything on these outermost VLANs.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 4094)))]
    pub vlans: Vec<u16>,
    /// Everything in tunnels with these network ids (VXLAN, GENEVE) or tunnel endpoint ids (GTP-U).
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 4_294_967_295u64)))]
    pub vnis: Vec<u32>,
}

/// What becomes of packets from one side to the other.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    /// Stable for life: counters, records and suggestions refer to it.
    pub id: RuleId,
    /// Source: a group, a network, an address, "any", or a list of these. Left out: any.
    pub from: Option<OneOrMany<String>>,
    /// Destination, written like `from`.
    pub to: Option<OneOrMany<String>>,
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
    pub action: Action,
    /// Lowest first within the tier.
    #[serde(default = "priority")]
    #[schemars(range(min = 0, max = 4_294_967_295u64))]
    pub priority: u32,
    #[serde(default)]
    pub tier: RawTier,
    #[serde(default)]
    pub mode: Mode,
    /// Replies of an allowed connection pass without a rule of their own. For `allow` only, where it is the
    /// default.
    pub stateful: Option<bool>,
    /// For people.
    pub comment: Option<String>,
}

/// Tiers are evaluated in this order. What no rule decides falls to `policy.default`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawTier {
    Override,
    Threat,
    #[default]
    Policy,
    Learned,
}

/// An IP protocol by name or number.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Protocol {
    Name(ProtocolName),
    Number(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ProtocolName {
    Any,
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
    Sctp,
    Gre,
    Esp,
    Ah,
    Igmp,
    Ipip,
    Ospf,
    Pim,
    Vrrp,
}

/// A port number, or a range "first-last".
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum PortSpec {
    Number(u16),
    Range(PortRange),
}

/// An ICMP type by number or name.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum IcmpType {
    Number(u8),
    Name(String),
}

/// What holds where no rule decides.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPolicy {
    /// Packets that no rule decides. Must be given when the file has rules.
    pub default: Option<Decision>,
    /// Frames without IP (ARP, LLDP, spanning tree, ...) and IPv6 neighbour discovery.
    pub non_ip: NonIp,
    /// Flows that are alive when the file is read again and other rules come in force.
    pub live_flows: LiveFlows,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum NonIp {
    #[default]
    Allow,
    Deny,
}

/// Flow table settings.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawFlow {
    /// Which header of a tunnelled packet rules and flows look at.
    pub key: KeyWord,
    /// Most flows per worker. Memory for them is taken at start.
    #[schemars(range(min = 16, max = 67_108_864))]
    pub capacity: usize,
    /// What is done about TCP segments that their receiver would not take, because they are outside of its window, have
    /// no ACK flag, or are a RST anywhere but at the next byte: nobody looks, they are counted and do not change the
    /// connection's state, or, where both SYNs were seen, they are dropped and do not keep the flow from its time-out.
    pub tcp_window: WindowWord,
    /// Only one direction of connections may pass here: one side alone can bring a connection up, and no windows are
    /// checked.
    pub asymmetric: bool,
    pub timeouts: RawTimeouts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum WindowWord {
    Off,
    Loose,
    Strict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum KeyWord {
    Outer,
    Inner,
}

/// After how long without a packet a flow ends, by state.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTimeouts {
    /// TCP before the handshake is complete: a SYN without answer, or one side in mid-stream.
    pub tcp_opening: DurationText,
    /// TCP whose SYN was answered, before the handshake is complete. As `tcp_opening` where only that is given.
    pub tcp_syn_received: Option<DurationText>,
    /// TCP connections that are silent. Longer than most keep-alives and connection pools.
    pub tcp_established: DurationText,
    /// TCP after one FIN: the other side may still have something to send. Not more than `tcp_established` where only
    /// that is given.
    pub tcp_closing: Option<DurationText>,
    /// After FIN both ways or RST: how long late packets still belong to the flow.
    pub tcp_closed: DurationText,
    /// UDP in one direction only.
    pub udp: DurationText,
    /// UDP seen both ways. As `udp` where only that is given.
    pub udp_answered: Option<DurationText>,
    pub icmp: DurationText,
    pub other: DurationText,
    /// A flow that goes on is reported in slices of this length.
    pub active: DurationText,
    /// How long the later fragments of a packet are waited for.
    pub fragments: DurationText,
}

/// Where results go in `gnomon run`; `gnomon replay` writes to its output folder.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawExport {
    /// Relative paths are relative to where gnomon was started.
    #[schemars(length(min = 1))]
    pub directory: String,
    pub flows: bool,
    pub alerts: bool,
    /// Write intervals of group pairs that were not expected to pairs.jsonl.
    pub pairs: bool,
    /// Write counters to stats.jsonl as events of type `stats`, this often.
    pub stats: bool,
    pub stats_interval: DurationText,
    /// A file that would grow beyond this is renamed to `flows.TIME.jsonl` and begun anew. Left out: never for its
    /// size. From 1MiB.
    pub rotate_size: Option<SizeText>,
    /// Files are renamed and begun anew this often, at full multiples of it in UTC. Left out: never for their age.
    /// From 1s.
    pub rotate_every: Option<DurationText>,
    /// Renamed files that are kept of each kind; the oldest are deleted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub keep: usize,
    /// Renamed files are compressed (gzip).
    pub compress: bool,
    /// Unix sockets that get the events too, one JSON object a line.
    pub socket: Vec<RawEventSocket>,
}

/// A Unix socket that another program listens on.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEventSocket {
    /// Of the socket. When nobody listens there, gnomon tries again every second.
    #[schemars(length(min = 1, max = 107))]
    pub path: String,
    /// "stream": one connection, lines ended by newlines. "datagram": one datagram a line.
    #[serde(default)]
    pub kind: SocketKind,
    /// What is sent.
    #[serde(default = "all_events")]
    #[schemars(length(min = 1))]
    pub events: Vec<EventKind>,
    /// Memory for events that the reader has not taken yet; what does not fit is lost, counted, and missing in the
    /// numbers of the stream (`gnomon.seq`). Up to 4GiB.
    #[serde(default = "event_buffer")]
    pub buffer: SizeText,
}

/// Counters for a Prometheus server, and when the flow table is said to be under pressure.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMetrics {
    /// Address and port that answer `GET /metrics`, such as "127.0.0.1:9464". Left out: none.
    pub listen: Option<ListenText>,
    /// An alert is raised when the flow table of a worker is this full,
    pub pressure_fill: ShareText,
    /// or when so many flows a second were evicted, or packets found no place, in all workers together.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub pressure_evictions: u32,
}

/// The Unix socket by which `gnomon flows`, `gnomon top` and the like talk to a running `gnomon run`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawControl {
    /// Without it nobody can ask the running appliance anything.
    pub enabled: bool,
    /// Left out: `/run/gnomon/control.sock`, with another `eal.file_prefix` than `gnomon` that name instead of
    /// `control`; where /run cannot be written, `control.sock` in `export.directory`.
    #[schemars(length(min = 1, max = 100))]
    pub socket: Option<String>,
    /// Who may use it beside the user that gnomon runs as: members of this group. Left out: that user's own group.
    #[schemars(length(min = 1))]
    pub group: Option<String>,
}

/// A collector that flow records are sent to as IPFIX.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIpfix {
    /// Host name or address, and port.
    pub collector: CollectorText,
    #[serde(default)]
    pub transport: RawTransport,
    /// Templates and options are sent again after this long, for collectors that have restarted.
    #[serde(default = "template_refresh")]
    pub template_refresh: DurationText,
    /// Or after so many messages, whichever comes first.
    #[serde(default = "template_messages")]
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub template_messages: u32,
    /// Longest IP packet over UDP, in bytes.
    #[serde(default = "ipfix_mtu")]
    #[schemars(range(min = 576, max = 65535))]
    pub mtu: u16,
    /// Observation domain id: tells the appliances of one collector apart.
    #[serde(default = "domain")]
    #[schemars(range(min = 0, max = 4_294_967_295u64))]
    pub domain: u32,
    /// Records that may wait for the collector; more are lost for it and counted.
    #[serde(default = "ipfix_queue")]
    #[schemars(range(min = 16, max = 16_777_216))]
    pub queue: usize,
    /// Private enterprise number of gnomon's own elements. 32473 is the one for documentation (RFC 5612).
    #[serde(default = "enterprise_number")]
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub enterprise_number: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawTransport {
    #[default]
    Udp,
    Tcp,
}

/// Fixed sizes, so that memory is known at start.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLimits {
    /// Most distinct rule ids over the life of the process.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub rules: usize,
    /// Most fragmented packets remembered per worker.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub fragments: usize,
    /// Memory that the compiled policy may take, from 1MiB. A policy that needs more is refused, with the rules that
    /// cost most named; the one in force stays.
    pub policy_memory: SizeText,
}

fn all_events() -> Vec<EventKind> {
    vec![EventKind::Flow, EventKind::Alert, EventKind::Stats, EventKind::Decision, EventKind::Pair]
}

fn event_buffer() -> SizeText {
    SizeText("16MiB".to_owned())
}

fn yes() -> bool {
    true
}

fn template_refresh() -> DurationText {
    DurationText::of(Ipfix::default().template_refresh)
}

fn template_messages() -> u32 {
    Ipfix::default().template_messages
}

fn ipfix_mtu() -> u16 {
    Ipfix::default().mtu
}

fn domain() -> u32 {
    Ipfix::default().domain
}

fn ipfix_queue() -> usize {
    Ipfix::default().queue
}

fn enterprise_number() -> u32 {
    Ipfix::default().enterprise_number
}

fn descriptors() -> u16 {
    1024
}

pub(super) fn priority() -> u32 {
    1000
}
