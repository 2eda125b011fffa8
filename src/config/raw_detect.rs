//! Detectors as they are written in the file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::detect::Detect;
use super::raw::OneOrMany;
use super::text::DurationText;
use crate::behaviour::{AlertKind, ExpectSettings, PairModel};

/// Thresholds of the detectors of attack patterns, each within `window` where nothing else is said.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawDetect {
    pub window: DurationText,
    /// Window of what is done slowly.
    pub slow_window: DurationText,
    pub udp_window: DurationText,
    /// How long it is learnt who manages whom and which groups talk, before what is new is told.
    pub learning: DurationText,
    /// Distinct ports one host tries on another in vain; twice as many within `slow_window`, five times as many by several hosts.
    #[schemars(range(min = 1, max = 65536))]
    pub port_scan: u32,
    /// Distinct hosts one host tries on one port in vain; twice as many within `slow_window`.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub host_sweep: u32,
    /// The same on ports of remote administration, file sharing and databases.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub admin_sweep: u32,
    /// Distinct hosts asked for an echo within ten seconds, a quarter of them in vain.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub ping_sweep: u32,
    /// Distinct addresses one host asks for by ARP in vain.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub arp_sweep: u32,
    /// Unanswered SYNs to one host.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub syn_flood: u32,
    /// Unanswered UDP packets to one host within `udp_window`.
    #[schemars(range(min = 1, max = 9_223_372_036_854_775_807u64))]
    pub udp_flood: u64,
    /// ICMP packets to one host.
    #[schemars(range(min = 1, max = 9_223_372_036_854_775_807u64))]
    pub icmp_flood: u64,
    /// Packets of answers that one host did not ask for, or that are more than ten times as large as what it asked.
    #[schemars(range(min = 1, max = 9_223_372_036_854_775_807u64))]
    pub amplification: u64,
    /// Short sessions of one host with a login service of another.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub brute_force: u32,
    /// Connections to one web service that are kept open with next to nothing.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub slow_http: u32,
    /// Distinct long names below one domain that one host asks for.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub dns_tunnel: u32,
    /// Echo messages between two hosts whose sizes vary.
    #[schemars(range(min = 1, max = 9_223_372_036_854_775_807u64))]
    pub icmp_tunnel: u64,
    /// Contacts of one host with a service outside at even distances.
    #[schemars(range(min = 4, max = 64))]
    pub beacon: u32,
    /// Median deviation from the median distance, as a share of it, up to which distances are even.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beacon_jitter: f64,
    /// Bytes one host inside sends to one outside within `slow_window`, at least three times what comes back; a tenth is enough when it is fifty times that.
    #[schemars(range(min = 1, max = 9_223_372_036_854_775_807u64))]
    pub exfiltration: u64,
    /// ARP answers nobody asked for, or returns of an address to a station that lost it.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub arp_spoof: u32,
    /// New relations of one host within `slow_window`, once `learning` is over.
    #[schemars(range(min = 1, max = 4_294_967_295u64))]
    pub new_relationship: u32,
    /// Bytes a host inside sends in ten minutes, when they are `volume_factor` times what was usual.
    #[schemars(range(min = 1, max = 9_223_372_036_854_775_807u64))]
    pub volume: u64,
    #[schemars(range(min = 1.0, max = 1_000_000.0))]
    pub volume_factor: f64,
    /// Networks that are the own ones: what leaves them may be exfiltration or a beacon.
    pub inside: Vec<String>,
}

/// Another threshold for some traffic, or no alert of it at all. The first table that fits decides.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawDetectException {
    /// Kinds of alerts it is about; all when left out.
    pub kinds: Vec<AlertKind>,
    /// Who does it: groups, networks or addresses; anybody when left out.
    pub from: Option<OneOrMany<String>>,
    /// To whom.
    pub to: Option<OneOrMany<String>>,
    /// Instead of the threshold of the kind.
    #[schemars(range(min = 1, max = 9_223_372_036_854_775_807u64))]
    pub threshold: Option<u64>,
    /// True: not told at all.
    pub exclude: bool,
}

/// What is expected of pairs of groups, by service and hour of day.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPairs {
    pub enabled: bool,
    /// What is compared: the traffic of so long a time. From 10s to 1h.
    pub interval: DurationText,
    /// How long nothing is said, because too little was seen.
    pub learning: DurationText,
    /// Pairs remembered; beyond, those are forgotten that were not active for longest.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub most: usize,
    /// Intervals are told from this score on: 0.9995 is one in two thousand.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub score: f64,
    /// What the expectation comes from. "baseline": what is usual at that hour. "sequence": the same, corrected by what
    /// came before. "both": the mean of their surprises. docs/pairs.md says how good they are.
    pub model: PairModel,
}

impl Default for RawDetect {
    fn default() -> Self {
        let d = Detect::default();
        Self {
            window: DurationText::of(d.window),
            slow_window: DurationText::of(d.slow_window),
            udp_window: DurationText::of(d.udp_window),
            learning: DurationText::of(d.learning),
            port_scan: d.port_scan,
            host_sweep: d.host_sweep,
            admin_sweep: d.admin_sweep,
            ping_sweep: d.ping_sweep,
            arp_sweep: d.arp_sweep,
            syn_flood: d.syn_flood,
            udp_flood: d.udp_flood,
            icmp_flood: d.icmp_flood,
            amplification: d.amplification,
            brute_force: d.brute_force,
            slow_http: d.slow_http,
            dns_tunnel: d.dns_tunnel,
            icmp_tunnel: d.icmp_tunnel,
            beacon: d.beacon,
            beacon_jitter: d.beacon_jitter,
            exfiltration: d.exfiltration,
            arp_spoof: d.arp_spoof,
            new_relationship: d.new_relationship,
            volume: d.volume,
            volume_factor: d.volume_factor,
            inside: d.inside.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Default for RawPairs {
    fn default() -> Self {
        let ExpectSettings { enabled, interval, learning, pairs: most, score, model } = ExpectSettings::default();
        let [interval, learning] = [interval, learning].map(DurationText::of);
        Self { enabled, interval, learning, most, score, model }
    }
}
