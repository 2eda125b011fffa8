//! The configuration, valid by construction. Everything the appliance is built from; nothing in here
//! needs checking again.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::adaptive::{Adaptive, Honeypot};
use super::api::Api;
use super::detect::Detect;
use crate::behaviour::{ExpectSettings, Members};
use crate::flow::TcpRules;
use crate::mirror::Session;
use crate::packet::KeyFrom;
use crate::rules::{Decision, LiveFlows, Policy};

/// A complete, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub cores: Cores,
    pub eal: Eal,
    pub ports: Vec<Port>,
    /// Indices into `ports`: what enters one leaves the other.
    pub pairs: Vec<(usize, usize)>,
    pub vms: Vec<Vm>,
    pub policy: Policy,
    /// Frames without IP (ARP, LLDP, spanning tree, ...) and IPv6 neighbour discovery.
    pub non_ip: Decision,
    pub live_flows: LiveFlows,
    /// Positions match `policy.mirrors`.
    pub mirrors: Vec<Session>,
    /// Whom to look at more closely; `None` when nothing asks for it.
    pub adaptive: Option<Adaptive>,
    pub honeypots: Vec<Honeypot>,
    pub flow: Flow,
    pub scorer: Scorer,
    pub store: Store,
    pub export: Export,
    pub control: Control,
    /// Collectors that flow records are sent to.
    pub ipfix: Vec<Ipfix>,
    pub metrics: Metrics,
    pub api: Api,
    pub limits: Limits,
    /// Seed of everything random.
    pub seed: u64,
    /// The file as it was read.
    pub source: Option<std::sync::Arc<str>>,
}

impl Config {
    /// What `gnomon replay` uses without a file: no VMs, everything allowed, no mirror, scorer on, one
    /// worker. It has no ports: the replay brings its own pair.
    #[must_use]
    pub fn default_pair() -> Self {
        Self {
            cores: Cores::default(),
            eal: Eal::default(),
            ports: Vec::new(),
            pairs: Vec::new(),
            vms: Vec::new(),
            policy: Policy::default(),
            non_ip: Decision::Allow,
            live_flows: LiveFlows::default(),
            mirrors: Vec::new(),
            adaptive: None,
            honeypots: Vec::new(),
            flow: Flow::default(),
            scorer: Scorer::default(),
            store: Store::default(),
            export: Export::default(),
            control: Control::default(),
            ipfix: Vec::new(),
            metrics: Metrics::default(),
            api: Api::default(),
            limits: Limits::default(),
            seed: Self::DEFAULT_SEED,
            source: None,
        }
    }

    /// The smallest useful configuration, for code that builds one in memory: as
    /// [`default_pair`](Config::default_pair) with the scorer off and small tables.
    #[must_use]
    pub fn minimal() -> Self {
        Self {
            flow: Flow { capacity: 1024, ..Flow::default() },
            scorer: Scorer { enabled: false, ring: 1024, ..Scorer::default() },
            store: Store { enabled: false, path: None },
            limits: Limits { rules: 1024, fragments: 256, ..Limits::default() },
            ..Self::default_pair()
        }
    }

    /// The seed of a file that gives none.
    pub const DEFAULT_SEED: u64 = 1;

    /// `gnomon run` needs ports and at least one pair; `gnomon replay` does not.
    ///
    /// # Errors
    /// Says what is missing and what to write.
    pub fn require_ports(&self) -> Result<(), String> {
        if self.ports.is_empty() {
            return Err(
                "the configuration has no [[port]]: it can be replayed (`gnomon replay`), but to run it needs \
                        two [[port]] tables and a [[pair]] that joins them"
                    .to_owned(),
            );
        }
        if self.pairs.is_empty() {
            return Err("the configuration has no [[pair]], so no packet would be forwarded: add \
                        [[pair]] with ports = [\"...\", \"...\"]"
                .to_owned());
        }
        Ok(())
    }
}

/// Which CPU core does what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    pub main: usize,
    /// One worker each; a CPU may be named twice on small machines.
    pub workers: Vec<usize>,
    /// `None`: not pinned.
    pub scorer: Option<usize>,
}

/// Options of DPDK's environment abstraction layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eal {
    pub hugepages: bool,
    pub memory_mb: u32,
    pub file_prefix: String,
    pub pci_allow: Vec<String>,
    /// Packet buffers shared by all ports.
    pub mbufs: u32,
}

/// One port: a PCI address, or a virtual device with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    /// `0000:03:00.0`, or `net_af_packet0,iface=eth1` and the like.
    pub device: String,
    pub mtu: Option<u16>,
    pub promiscuous: bool,
    pub rx_descriptors: u16,
    pub tx_descriptors: u16,
    /// `None`: one per worker if the device can, else as many as it has.
    pub rx_queues: Option<u16>,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    pub id: String,
    pub addresses: Vec<String>,
    pub tags: Vec<String>,
}

/// Flow table settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub key_from: KeyFrom,
    /// Most flows per worker.
    pub capacity: usize,
    pub tcp: TcpRules,
    pub timeouts: Timeouts,
}

/// After how long without a packet a flow ends, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before the handshake is complete: a SYN without answer, or one side in mid-stream.
    pub tcp_opening: Duration,
    /// TCP whose SYN was answered.
    pub tcp_syn_received: Duration,
    pub tcp_established: Duration,
    /// After one FIN: a side that has nothing more to send may still be sent to.
    pub tcp_closing: Duration,
    /// After FIN both ways or RST: how long late packets still belong to the flow.
    pub tcp_closed: Duration,
    pub udp: Duration,
    /// UDP seen both ways.
    pub udp_answered: Duration,
    pub icmp: Duration,
    pub other: Duration,
    /// Interim slice of a flow that goes on.
    pub active: Duration,
    /// Waiting for a first fragment's companions.
    pub fragments: Duration,
}

/// Scorer settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Scorer {
    pub enabled: bool,
    /// The model is trained when this many records were seen.
    pub warmup_records: usize,
    pub members: Members,
    pub trees: usize,
    pub sample: usize,
    /// Share of the warm-up window that is taken to be unusual; sets the `outlier` threshold.
    pub contamination: f64,
    /// Capacity of the ring between each worker and the scorer.
    pub ring: usize,
    /// How often a new model is trained; `None`: never.
    pub retrain: Option<Duration>,
    pub retrain_on_drift: bool,
    /// New models score side by side first.
    pub shadow: bool,
    /// Records after which such a model is promoted by itself.
    pub promote_after: Option<u64>,
    /// Source groups have models of their own, from so many ordinary records on.
    pub per_group: bool,
    pub group_records: usize,
    pub detect: Detect,
    /// What is expected of group pairs.
    pub pairs: ExpectSettings,
}

/// Where trained models outlive the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub enabled: bool,
    /// `None`: the usual place.
    pub path: Option<PathBuf>,
}

impl Default for Store {
    fn default() -> Self {
        Self { enabled: true, path: None }
    }
}

/// Where results go in `gnomon run`. In `gnomon replay` all go to the output folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub directory: PathBuf,
    pub flows: bool,
    pub alerts: bool,
    /// How often counters are written as an event; `None`: never.
    pub stats: Option<Duration>,
    /// What the control of mirrors decides; where it decides anything.
    pub decisions: bool,
    /// Intervals of group pairs that were not expected.
    pub pairs: bool,
    pub rotation: Rotation,
    pub sockets: Vec<EventSocket>,
}

/// When an output file is put aside and begun anew, and what becomes of those put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Most bytes of a file; a single line may be longer.
    pub size: Option<u64>,
    /// Files end at full multiples of this since the Unix epoch.
    pub every: Option<Duration>,
    /// Files put aside that stay.
    pub keep: usize,
    pub compress: bool,
}

/// A Unix socket that events are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSocket {
    pub path: PathBuf,
    pub kind: SocketKind,
    pub events: Vec<EventKind>,
    /// Bytes of events that may wait for the reader.
    pub buffer: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SocketKind {
    #[default]
    Stream,
    Datagram,
}

/// Kinds of events, by their `event_type`; anomalies go with alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    Flow,
    Alert,
    Stats,
    /// Of the control of mirrors.
    Decision,
    /// Of a group pair.
    Pair,
}

/// Counters for a Prometheus server, and when the flow table is said to be under pressure.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    pub listen: Option<SocketAddr>,
    /// Share of a worker's flow table that is in use.
    pub pressure_fill: f64,
    /// Flows evicted and packets refused a place, per second, by all workers together.
    pub pressure_evictions: u32,
}

/// How a running appliance is talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub enabled: bool,
    /// `None`: the usual place.
    pub socket: Option<PathBuf>,
    /// Name of the group whose members may connect.
    pub group: Option<String>,
}

/// One collector of flow records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipfix {
    /// `host:port`.
    pub collector: String,
    pub transport: IpfixTransport,
    /// Templates and options are sent again after this long.
    pub template_refresh: Duration,
    /// Or after so many messages, whichever comes first.
    pub template_messages: u32,
    /// Longest IP packet over UDP, in bytes.
    pub mtu: u16,
    /// Observation domain id.
    pub domain: u32,
    /// Most records that wait for the exporting thread.
    pub queue: usize,
    /// Private enterprise number of gnomon's own elements.
    pub enterprise_number: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpfixTransport {
    #[default]
    Udp,
    Tcp,
}

impl Ipfix {
    /// A collector with the defaults for all else.
    #[must_use]
    pub fn to(collector: &str, transport: IpfixTransport) -> Self {
        Self { collector: collector.to_owned(), transport, ..Self::default() }
    }
}

/// `host:port/udp` or `host:port/tcp`.
impl fmt::Display for Ipfix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            IpfixTransport::Udp => "udp",
            IpfixTransport::Tcp => "tcp",
        };
        write!(f, "{}/{transport}", self.collector)
    }
}

/// Fixed sizes, so that memory is known at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most distinct rule ids over the life of the process.
    pub rules: usize,
    /// Most fragmented packets remembered per worker.
    pub fragments: usize,
    /// Memory that the compiled policy may take.
    pub policy_memory_mb: u32,
}

impl Default for Cores {
    fn default() -> Self {
        Self { main: 0, workers: vec![1], scorer: Some(0) }
    }
}

impl Default for Eal {
    fn default() -> Self {
        Self {
            hugepages: false,
            memory_mb: 512,
            file_prefix: "gnomon".to_owned(),
            pci_allow: Vec::new(),
            mbufs: 65_536,
        }
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self { key_from: KeyFrom::Outer, capacity: 262_144, tcp: TcpRules::default(), timeouts: Timeouts::default() }
    }
}

impl Default for Timeouts {
    /// An established TCP connection may be silent for an hour: a firewall that forgets sooner breaks
    /// connection pools, one that waits for the two hours and four minutes that RFC 5382 asks of address
    /// translators holds on to dead flows. A silent flow costs one table entry and may be evicted. Four minutes for
    /// one that is being closed are RFC 5382's too; three for UDP that was answered lie between the least and the
    /// recommended time of RFC 4787.
    fn default() -> Self {
        Self {
            tcp_opening: Duration::from_secs(10),
            tcp_syn_received: Duration::from_secs(10),
            tcp_established: Duration::from_secs(3600),
            tcp_closing: Duration::from_secs(240),
            tcp_closed: Duration::from_secs(5),
            udp: Duration::from_secs(60),
            udp_answered: Duration::from_secs(180),
            icmp: Duration::from_secs(30),
            other: Duration::from_secs(60),
            active: Duration::from_secs(300),
            fragments: Duration::from_secs(30),
        }
    }
}

impl Default for Scorer {
    fn default() -> Self {
        Self {
            enabled: true,
            warmup_records: 1000,
            members: Members::default(),
            trees: 100,
            sample: 256,
            contamination: 0.005,
            ring: 65_536,
            retrain: Some(Duration::from_secs(24 * 3600)),
            retrain_on_drift: false,
            shadow: false,
            promote_after: None,
            per_group: false,
            group_records: 4096,
            detect: Detect::default(),
            pairs: ExpectSettings::default(),
        }
    }
}

impl Default for Export {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("gnomon-out"),
            flows: true,
            alerts: true,
            stats: Some(Duration::from_secs(10)),
            decisions: false,
            pairs: true,
            rotation: Rotation::default(),
            sockets: Vec::new(),
        }
    }
}

impl Default for Rotation {
    fn default() -> Self {
        Self { size: None, every: None, keep: 10, compress: false }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: None, pressure_fill: 0.9, pressure_evictions: 100 }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { enabled: true, socket: None, group: None }
    }
}

impl Default for Ipfix {
    /// The collector stands for none. 32473 is the enterprise number for documentation (RFC 5612): gnomon has none of
    /// its own.
    fn default() -> Self {
        Self {
            collector: String::new(),
            transport: IpfixTransport::Udp,
            template_refresh: Duration::from_secs(60),
            template_messages: 1000,
            mtu: 1400,
            domain: 1,
            queue: 65_536,
            enterprise_number: 32_473,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { rules: 65_536, fragments: 8_192, policy_memory_mb: 1024 }
    }
}
