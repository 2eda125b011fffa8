//! The defaults of the file, taken from those of the model, so that they are written once.

use std::time::Duration;

use super::model::{Control, Cores, Detect, Eal, Export, Flow, Limits, Metrics, Scorer, Timeouts};
use super::raw::{
    AnyWord, KeyWord, RawControl, RawCores, RawDetect, RawEal, RawExport, RawFlow, RawLimits, RawMetrics, RawScorer,
    RawScorerCore, RawTimeouts, WindowWord,
};
use super::text::{DurationText, Name, ShareText, SizeText};

impl Default for RawCores {
    fn default() -> Self {
        let Cores { main, workers, scorer } = Cores::default();
        let scorer = scorer.map_or(RawScorerCore::Any(AnyWord::Any), RawScorerCore::Cpu);
        Self { main, workers, scorer }
    }
}

impl Default for RawEal {
    fn default() -> Self {
        let Eal { hugepages, memory_mb, file_prefix, mbufs, .. } = Eal::default();
        let memory = SizeText(format!("{memory_mb}MiB"));
        Self { hugepages, memory, file_prefix: Name(file_prefix), pci_allow: Vec::new(), mbufs }
    }
}

impl Default for RawFlow {
    fn default() -> Self {
        let Flow { capacity, tcp, .. } = Flow::default();
        Self {
            key: KeyWord::Outer,
            capacity,
            tcp_window: WindowWord::Loose,
            asymmetric: tcp.asymmetric,
            timeouts: RawTimeouts::default(),
        }
    }
}

impl Default for RawTimeouts {
    fn default() -> Self {
        let t = Timeouts::default();
        let text = |d: Duration| DurationText::of(d);
        Self {
            tcp_opening: text(t.tcp_opening),
            tcp_syn_received: None,
            tcp_established: text(t.tcp_established),
            tcp_closing: None,
            tcp_closed: text(t.tcp_closed),
            udp: text(t.udp),
            udp_answered: None,
            icmp: text(t.icmp),
            other: text(t.other),
            active: text(t.active),
            fragments: text(t.fragments),
        }
    }
}

impl Default for RawScorer {
    fn default() -> Self {
        let Scorer { enabled, warmup_records, trees, sample, contamination, ring, .. } = Scorer::default();
        Self { enabled, warmup_records, trees, sample, contamination, ring, detect: RawDetect::default() }
    }
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

impl Default for RawExport {
    fn default() -> Self {
        let Export { directory, flows, alerts, stats, rotation, .. } = Export::default();
        Self {
            directory: directory.display().to_string(),
            flows,
            alerts,
            stats: stats.is_some(),
            stats_interval: DurationText::of(stats.unwrap_or(Duration::from_secs(10))),
            rotate_size: None,
            rotate_every: None,
            keep: rotation.keep,
            compress: rotation.compress,
            socket: Vec::new(),
        }
    }
}

impl Default for RawMetrics {
    fn default() -> Self {
        let Metrics { pressure_fill, pressure_evictions, .. } = Metrics::default();
        let pressure_fill = ShareText(format!("{}%", pressure_fill * 100.0));
        Self { listen: None, pressure_fill, pressure_evictions }
    }
}

impl Default for RawControl {
    fn default() -> Self {
        let Control { enabled, group, .. } = Control::default();
        Self { enabled, socket: None, group }
    }
}

impl Default for RawLimits {
    fn default() -> Self {
        let Limits { rules, fragments, policy_memory_mb } = Limits::default();
        Self { rules, fragments, policy_memory: SizeText(format!("{policy_memory_mb}MiB")) }
    }
}
