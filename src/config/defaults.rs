//! The defaults of the file, taken from those of the model, so that they are written once.

use std::time::Duration;

use super::adaptive::{Adaptive, Graylist, Level};
use super::model::{Control, Cores, Eal, Export, Flow, Limits, Metrics, Scorer, Timeouts};
use super::raw::{
    AnyWord, KeyWord, RawControl, RawCores, RawEal, RawExport, RawFlow, RawLimits, RawMetrics, RawScorerCore,
    RawTimeouts, WindowWord,
};
use super::raw_adaptive::{EscalateWord, RawAdaptive, RawGraylist, RawLevel};
use super::raw_models::{OffWord, RawRetrain, RawScorer};
use super::text::{DurationText, Name, ShareText, SizeText};
use crate::behaviour::Flags;

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
        let Scorer { enabled, warmup_records, members, trees, sample, contamination, ring, .. } = Scorer::default();
        let Scorer { retrain, retrain_on_drift, shadow, promote_after, per_group, group_records, .. } =
            Scorer::default();
        let every = |period| RawRetrain::Every(DurationText::of(period));
        Self {
            enabled,
            warmup_records,
            members: members.iter().collect(),
            trees,
            sample,
            contamination,
            ring,
            retrain: retrain.map_or(RawRetrain::Never(OffWord::Off), every),
            retrain_on_drift,
            shadow,
            promote_after,
            per_group,
            group_records,
            detect: Default::default(),
            pairs: Default::default(),
        }
    }
}

fn kinds(bits: u32) -> Vec<String> {
    Flags::from_bits(bits).names().map(str::to_owned).collect()
}

impl Default for RawAdaptive {
    fn default() -> Self {
        let Adaptive { interval, levels, hysteresis, alerts, flagged, severity, hold, most, .. } = Adaptive::default();
        let level = |level: &Level| RawLevel { score: level.score, share: ShareText::of(level.share) };
        Self {
            interval: DurationText::of(interval),
            level: levels.iter().map(level).collect(),
            hysteresis,
            alerts: kinds(alerts),
            flagged: ShareText::of(flagged),
            severity,
            hold: DurationText::of(hold),
            budget: None,
            budget_packets: None,
            most,
            graylist: None,
        }
    }
}

impl Default for RawGraylist {
    fn default() -> Self {
        let Graylist { alerts, period, .. } = Graylist::default();
        Self {
            alerts: kinds(alerts),
            period: DurationText::of(period),
            escalate: EscalateWord::default(),
            honeypot: None,
        }
    }
}

impl Default for RawExport {
    fn default() -> Self {
        let Export { directory, flows, alerts, pairs, stats, rotation, .. } = Export::default();
        Self {
            directory: directory.display().to_string(),
            flows,
            alerts,
            pairs,
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
