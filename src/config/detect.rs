//! Settings of the detectors of attack patterns.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use crate::behaviour::AlertKind;

/// Thresholds of the detectors of attack patterns; each is a number of what the kind counts, within `window` where
/// nothing else is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Detect {
    pub window: Duration,
    /// For what is done slowly.
    pub slow_window: Duration,
    pub udp_window: Duration,
    /// How long relations are learnt before new ones are told.
    pub learning: Duration,
    /// Distinct ports one host tries on another.
    pub port_scan: u32,
    /// Distinct hosts one host tries on one port; on ports of administration; by echo requests; by ARP.
    pub host_sweep: u32,
    pub admin_sweep: u32,
    pub ping_sweep: u32,
    pub arp_sweep: u32,
    /// Unanswered SYNs to one host.
    pub syn_flood: u32,
    /// Packets to one host, those of UDP within `udp_window`.
    pub udp_flood: u64,
    pub icmp_flood: u64,
    /// Packets of answers that one host did not ask for.
    pub amplification: u64,
    /// Short sessions of one host with a login service of another.
    pub brute_force: u32,
    /// Slow requests to one web service.
    pub slow_http: u32,
    /// Distinct long names below one domain.
    pub dns_tunnel: u32,
    /// Echo messages that carry something.
    pub icmp_tunnel: u64,
    /// Contacts at even distances, and how far these may stray, as a share.
    pub beacon: u32,
    pub beacon_jitter: f64,
    /// Bytes one host inside sends to one outside, within `slow_window`.
    pub exfiltration: u64,
    /// Signs that a station forges an address.
    pub arp_spoof: u32,
    /// New relations of one host, within `slow_window`.
    pub new_relationship: u32,
    /// Bytes a host inside sends in ten minutes, and how many times the usual.
    pub volume: u64,
    pub volume_factor: f64,
    /// What belongs to the network itself.
    pub inside: Vec<IpNet>,
    /// The first that fits decides.
    pub exceptions: Vec<DetectException>,
}

/// Another threshold, or none, for some traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectException {
    /// All when empty.
    pub kinds: Vec<AlertKind>,
    /// Who does it, and to whom; anybody when `None`.
    pub from: Option<DetectSide>,
    pub to: Option<DetectSide>,
    /// `None`: it is not told at all.
    pub threshold: Option<u64>,
}

/// Hosts by address, VLAN or VNI.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectSide {
    pub nets: Vec<IpNet>,
    pub vlans: Vec<u16>,
    pub vnis: Vec<u32>,
}

impl Default for Detect {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            slow_window: Duration::from_secs(3600),
            udp_window: Duration::from_secs(5),
            learning: Duration::from_secs(86_400),
            port_scan: 20,
            host_sweep: 20,
            admin_sweep: 8,
            ping_sweep: 15,
            arp_sweep: 30,
            syn_flood: 500,
            udp_flood: 5_000,
            icmp_flood: 5_000,
            amplification: 1_000,
            brute_force: 20,
            slow_http: 50,
            dns_tunnel: 10,
            icmp_tunnel: 50,
            beacon: 20,
            beacon_jitter: 0.15,
            exfiltration: 200_000_000,
            arp_spoof: 3,
            new_relationship: 1,
            volume: 1_000_000_000,
            volume_factor: 10.0,
            inside: inside(),
            exceptions: Vec::new(),
        }
    }
}

/// Addresses that are not routed in the Internet: RFC 1918, 6598, 3927, 4193, loopback and link-local.
fn inside() -> Vec<IpNet> {
    let v4 = [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([100, 64, 0, 0], 10)];
    let more = [([169, 254, 0, 0], 16), ([127, 0, 0, 0], 8)];
    let v4 = v4.into_iter().chain(more).map(|(net, len)| IpNet::new_assert(Ipv4Addr::from(net).into(), len));
    let v6 = [(0xfc00_u16, 7), (0xfe80, 10)];
    let v6 = v6.into_iter().map(|(head, len)| (Ipv6Addr::new(head, 0, 0, 0, 0, 0, 0, 0), len));
    let v6 = v6.chain([(Ipv6Addr::LOCALHOST, 128)]).map(|(net, len)| IpNet::new_assert(net.into(), len));
    v4.chain(v6).collect()
}
