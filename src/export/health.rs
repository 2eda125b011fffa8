//! Events about the appliance itself: its counters, pressure on its flow tables, collectors out of reach.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};

use super::time::iso8601;

/// Name of the alert in `gnomon.kind`, in summaries and in metrics.
pub const PRESSURE: &str = "table_pressure";

/// Name of the alert that a collector of mirrors cannot be reached.
pub const OUTAGE: &str = "collector_down";

/// A collector of mirrors that cannot be reached: one episode, as told now.
#[derive(Clone, Debug, PartialEq)]
pub struct OutageAlert {
    /// Number among the episodes of all alerts of the run.
    pub episode: u64,
    pub closed: bool,
    /// Nanoseconds since the Unix epoch: when this was told, when it began and was seen last.
    pub told: u64,
    pub first_seen: u64,
    pub last_seen: u64,
    pub target: String,
    pub collector: IpAddr,
    /// `no_neighbour` or `down`.
    pub state: &'static str,
}

impl OutageAlert {
    /// The line for `alerts.jsonl`.
    pub(super) fn line(&self) -> Value {
        let body = json!({
            "actor": self.collector.to_string(),
            "victim": "gnomon",
            "severity": 2,
            "count": 1,
            "evidence": { "target": self.target, "collector": self.collector.to_string(), "state": self.state },
        });
        let mut gnomon = json!({
            "kind": OUTAGE,
            "episode": self.episode,
            "status": if self.closed { "closed" } else { "open" },
            "start": iso8601(self.first_seen),
            "end": iso8601(self.last_seen),
            "actor_groups": [],
            "victim_groups": [],
        });
        let mut line = json!({ "timestamp": iso8601(self.told), "event_type": "alert" });
        for table in [&mut gnomon, &mut line] {
            if let (Some(table), Some(body)) = (table.as_object_mut(), body.as_object()) {
                table.extend(body.clone());
            }
        }
        line["gnomon"] = gnomon;
        line
    }
}

/// Flow tables running full: one episode, as told now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PressureAlert {
    /// Number among the episodes of all alerts of the run.
    pub episode: u64,
    pub closed: bool,
    /// 3 a table is nearly full, 2 flows are evicted, 1 packets found no place.
    pub severity: u8,
    /// Nanoseconds since the Unix epoch: when this was told and when first, and when it began and was seen last.
    pub told: u64,
    pub raised: u64,
    pub first_seen: u64,
    pub last_seen: u64,
    /// The table that was fullest, when it was.
    pub worker: usize,
    pub live: u64,
    pub capacity: u64,
    pub fill: f64,
    /// In the episode, by all workers: flows evicted half-open, closed and idle, packets refused, and the most of these
    /// together per second.
    pub evicted: [u64; 3],
    pub refused: u64,
    pub peak: f64,
}

impl PressureAlert {
    pub fn count(&self) -> u64 {
        self.evicted.iter().sum::<u64>() + self.refused
    }

    /// The line for `alerts.jsonl`.
    pub(super) fn line(&self) -> impl Serialize + use<> {
        PressureLine {
            timestamp: iso8601(self.told),
            event_type: "alert",
            body: Body::of(self),
            gnomon: PressureGnomon {
                kind: PRESSURE,
                episode: self.episode,
                status: if self.closed { "closed" } else { "open" },
                start: iso8601(self.first_seen),
                end: iso8601(self.last_seen),
                body: Body::of(self),
                actor_groups: [],
                victim_groups: [],
            },
        }
    }
}

#[derive(Serialize)]
struct PressureLine {
    timestamp: String,
    event_type: &'static str,
    #[serde(flatten)]
    body: Body,
    gnomon: PressureGnomon,
}

#[derive(Serialize)]
struct PressureGnomon {
    kind: &'static str,
    episode: u64,
    status: &'static str,
    start: String,
    end: String,
    #[serde(flatten)]
    body: Body,
    actor_groups: [&'static str; 0],
    victim_groups: [&'static str; 0],
}

#[derive(Serialize)]
struct Body {
    actor: &'static str,
    victim: &'static str,
    severity: u8,
    count: u64,
    evidence: Evidence,
}

#[derive(Serialize)]
struct Evidence {
    worker: usize,
    live: u64,
    capacity: u64,
    fill: f64,
    evicted: u64,
    evicted_half_open: u64,
    evicted_closed: u64,
    evicted_idle: u64,
    untracked: u64,
    peak_per_second: f64,
}

impl Body {
    fn of(alert: &PressureAlert) -> Self {
        Self {
            actor: "many",
            victim: "gnomon",
            severity: alert.severity,
            count: alert.count(),
            evidence: Evidence {
                worker: alert.worker,
                live: alert.live,
                capacity: alert.capacity,
                fill: (alert.fill * 1e4).round() / 1e4,
                evicted: alert.evicted.iter().sum(),
                evicted_half_open: alert.evicted[0],
                evicted_closed: alert.evicted[1],
                evicted_idle: alert.evicted[2],
                untracked: alert.refused,
                peak_per_second: (alert.peak * 10.0).round() / 10.0,
            },
        }
    }
}

/// Counters as an event of type `stats`. What is in `stats` has the names that Suricata gives it.
#[derive(Clone, Debug, Serialize)]
pub struct StatsEvent<T> {
    pub timestamp: String,
    pub event_type: &'static str,
    pub stats: Stats,
    pub gnomon: GnomonStats<T>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Whole seconds since the start: less than before means a restart.
    pub uptime: u64,
    pub capture: Capture,
    pub decoder: Decoder,
    pub flow: FlowStats,
    pub detect: Detect,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Capture {
    /// Packets that the devices received, and that they lost before gnomon saw them.
    pub kernel_packets: u64,
    pub kernel_drops: u64,
    pub errors: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Decoder {
    pub pkts: u64,
    pub bytes: u64,
    pub invalid: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct FlowStats {
    pub total: u64,
    pub active: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Detect {
    pub alert: u64,
}

/// What tells a reader of the stream whether it has everything.
#[derive(Clone, Debug, Serialize)]
pub struct GnomonStats<T> {
    /// When this run started: differs after a restart, and `seq` begins at 0 again.
    pub run: String,
    /// The number that the next flow record will have, unless more are lost.
    pub next_seq: u64,
    /// Nothing follows from this run.
    pub last: bool,
    pub outputs: BTreeMap<String, OutputStats>,
    /// As in `summary.json`.
    pub summary: T,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct OutputStats {
    pub lines: u64,
    pub lost: u64,
}
