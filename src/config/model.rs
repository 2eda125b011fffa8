//! The configuration, valid by construction. Everything the appliance is built from; nothing in here
//! needs checking again.

use std::path::PathBuf;
use std::time::Duration;

use crate::mirror::Session;
use crate::packet::KeyFrom;
use crate::rules::{Decision, Policy};

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
    /// Positions match `policy.mirrors`.
    pub mirrors: Vec<Session>,
    pub flow: Flow,
    pub scorer: Scorer,
    pub export: Export,
    pub limits: Limits,
    /// Seed of everything random.
    pub seed: u64,
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
    pub timeouts: Timeouts,
}

/// After how long without a packet a flow ends, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before the handshake is complete.
    pub tcp_opening: Duration,
    pub tcp_established: Duration,
    /// After FIN both ways or RST: how long late packets still belong to the flow.
    pub tcp_closed: Duration,
    pub udp: Duration,
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
    /// The forest is trained when this many records were seen.
    pub warmup_records: usize,
    pub trees: usize,
    pub sample: usize,
    /// Share of the warm-up window that is taken to be unusual; sets the `outlier` threshold.
    pub contamination: f64,
    /// Capacity of the ring between each worker and the scorer.
    pub ring: usize,
    pub detect: Detect,
}

/// Thresholds of the counting detectors; each is a number of distinct things, or of packets, within
/// `window`.
#[derive(Clone, Debug, PartialEq)]
pub struct Detect {
    pub window: Duration,
    /// Distinct ports one host tries on another.
    pub port_scan: u32,
    /// Distinct hosts one host tries on one port.
    pub host_sweep: u32,
    /// Unanswered SYNs to one host.
    pub syn_flood: u32,
    /// Packets to one host.
    pub udp_flood: u64,
    pub icmp_flood: u64,
}

/// Where results go in `gnomon run`. In `gnomon replay` all go to the output folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub directory: PathBuf,
    pub flows: bool,
    pub alerts: bool,
}

/// Fixed sizes, so that memory is known at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most distinct rule ids over the life of the process.
    pub rules: usize,
    /// Most fragmented packets remembered per worker.
    pub fragments: usize,
}
