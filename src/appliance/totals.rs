//! Counters of all workers summed, and the summary made from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;

use super::policy::PolicyNames;
use crate::export::CollectorSummary;
use crate::export::iso8601;
use crate::packet::DropReason;
use crate::rules::RuleHandle;
use crate::worker::{Counter, Distributed, Distribution, MirrorCounters, WorkerCounters};

/// `summary.json`. Always `rx = tx + consumed + sum(drops)`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    pub rx: u64,
    pub tx: u64,
    pub consumed: u64,
    /// Packets to and from honeypots, part of `tx`.
    #[serde(skip_serializing_if = "is_zero")]
    pub diverted: u64,
    /// Packets by reason; reasons that did not occur are left out.
    pub drops: BTreeMap<&'static str, u64>,
    pub mirrored: BTreeMap<String, Mirrored>,
    pub flows: u64,
    /// Flows that gave their place away before their time.
    pub flows_evicted: u64,
    /// Of these: half-open or one-way, closed, and established but long silent.
    pub flows_evicted_half_open: u64,
    pub flows_evicted_closed: u64,
    pub flows_evicted_idle: u64,
    /// Interim records made because a counter of a flow was full.
    pub slices_forced: u64,
    /// Verdicts that were not cached because there were too many different ones.
    pub verdicts_refused: u64,
    /// Packets judged without flow state because the flow table was full.
    pub untracked: u64,
    pub records: u64,
    pub records_lost: u64,
    /// Alerts by kind.
    pub alerts: BTreeMap<String, u64>,
    pub generation: u32,
    /// Time covered: of the capture in a replay, of the run when live.
    pub seconds: f64,
    /// Packets received per second of that time.
    pub pps: f64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Packets the box made itself to answer rejected ones.
    pub generated: u64,
    /// Hits by rule id; `default` is what no rule decided.
    pub rules: BTreeMap<String, RuleHits>,
    pub workers: usize,
    /// Live: time that forwarded packets spent in the box, from the poll that received them to the end of the flush that
    /// sent them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Quantiles>,
    /// Live: packets that a poll brought, of the polls that brought any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Quantiles>,
    /// Live: from a record's making to its scoring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scorer_lag_us: Option<Quantiles>,
    /// The capture ended in the middle of a packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<String>,
    /// What each IPFIX collector got; of live runs, when they end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipfix: Vec<CollectorSummary>,
}

/// Copies made for one mirror session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mirrored {
    pub selected: u64,
    pub packets: u64,
    pub bytes: u64,
    /// `selected - packets`, by cause below.
    pub lost: u64,
    /// No buffer.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_pool: u64,
    /// The mirror queue was full.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_queue: u64,
    /// The mirror port's link was down.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_link: u64,
    /// Larger than the target's MTU.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_oversize: u64,
    /// Beyond what the target may get.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_cap: u64,
    /// Beyond what all adaptive sessions may send together.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_budget: u64,
    /// The collector's next hop was not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_neighbour: u64,
    /// The collector failed its health checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_down: u64,
    /// The packet was seen elsewhere a moment ago.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_duplicate: u64,
}

/// Values that half, nine tenths … of a distribution do not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    pub mean: f64,
    pub count: u64,
}

impl Quantiles {
    /// In units of `unit`; `None` when there are no values.
    fn of(distributed: &Distributed, unit: f64) -> Option<Self> {
        let histogram = distributed.histogram();
        let rounded = |value: f64| (value / unit * 1000.0).round() / 1000.0;
        let at = |quantile| rounded(histogram.value_at_quantile(quantile).min(distributed.max) as f64);
        (distributed.count > 0).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: rounded(distributed.max as f64),
            mean: rounded(distributed.sum as f64 / distributed.count as f64),
            count: distributed.count,
        })
    }
}

/// What one rule did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleHits {
    pub packets: u64,
    pub bytes: u64,
    /// Packets a shadow-mode rule would have decided, or a log rule noted.
    #[serde(skip_serializing_if = "is_zero")]
    pub would: u64,
    /// Flow time of the first and the last of these packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_hit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_hit: Option<String>,
    /// When the rule id was first compiled: what the counters cover.
    pub counter_since: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Summary {
    /// Sums over workers; time, alerts and generation are for the caller to fill in.
    pub fn of(workers: &[Arc<WorkerCounters>], names: &PolicyNames) -> Self {
        let sum = |field: fn(&WorkerCounters) -> &Counter| workers.iter().map(|w| field(w).get()).sum::<u64>();
        let mut drops = BTreeMap::new();
        for reason in DropReason::all() {
            let count: u64 = workers.iter().map(|w| w.drops[reason.index()].get()).sum();
            if count > 0 {
                drops.insert(reason.name(), count);
            }
        }
        Self {
            rx: sum(|w| &w.rx_packets),
            tx: sum(|w| &w.tx_packets),
            consumed: sum(|w| &w.consumed),
            diverted: sum(|w| &w.diverted),
            drops,
            mirrored: mirrored(workers, names),
            flows: sum(|w| &w.flows),
            flows_evicted: sum(|w| &w.flows_evicted),
            flows_evicted_half_open: sum(|w| &w.flows_evicted_half_open),
            flows_evicted_closed: sum(|w| &w.flows_evicted_closed),
            flows_evicted_idle: sum(|w| &w.flows_evicted_idle),
            slices_forced: sum(|w| &w.slices_forced),
            verdicts_refused: sum(|w| &w.verdicts_refused),
            untracked: sum(|w| &w.untracked),
            records: sum(|w| &w.records),
            records_lost: sum(|w| &w.records_lost),
            rx_bytes: sum(|w| &w.rx_bytes),
            tx_bytes: sum(|w| &w.tx_bytes),
            generated: sum(|w| &w.generated),
            rules: rule_totals(workers, names),
            workers: workers.len(),
            ..Self::default()
        }
    }

    /// With what only a live run has.
    #[must_use]
    pub fn timed(mut self, workers: &[Arc<WorkerCounters>], lag: &Distribution) -> Self {
        self.latency_us = Quantiles::of(&Distributed::of(workers.iter().map(|w| &w.latency)), 1000.0);
        let batches = Distribution::default();
        for (packets, count) in workers.iter().flat_map(|w| w.batches.iter().enumerate().skip(1)) {
            batches.record(packets as u64, count.get());
        }
        self.batch = Quantiles::of(&Distributed::of([&batches]), 1.0);
        self.scorer_lag_us = Quantiles::of(&Distributed::of([lag]), 1.0);
        self
    }

    /// `rx = tx + consumed + sum(drops)`.
    pub fn adds_up(&self) -> bool {
        self.rx == self.tx + self.consumed + self.drops.values().sum::<u64>()
    }

    /// Writes `summary.json` into `folder` and returns its path.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join("summary.json");
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    #[must_use]
    pub fn over(mut self, seconds: f64) -> Self {
        self.seconds = seconds;
        self.pps = if seconds > 0.0 { (self.rx as f64 / seconds * 1000.0).round() / 1000.0 } else { 0.0 };
        self
    }
}

/// Every worker's counters of each session.
pub(super) fn mirror_counters<'a>(
    workers: &'a [Arc<WorkerCounters>],
    names: &PolicyNames,
) -> Vec<(Arc<str>, Vec<&'a MirrorCounters>)> {
    let of = |(slot, name)| (name, workers.iter().map(|w| &w.mirrors[slot]).collect());
    names.slots().into_iter().enumerate().map(of).collect()
}

fn mirrored(workers: &[Arc<WorkerCounters>], names: &PolicyNames) -> BTreeMap<String, Mirrored> {
    let mut sessions = BTreeMap::new();
    for (name, of_workers) in mirror_counters(workers, names) {
        let mut total = Mirrored::default();
        for counters in of_workers {
            total.selected += counters.selected.get();
            total.packets += counters.packets.get();
            total.bytes += counters.bytes.get();
            total.lost_pool += counters.lost_pool.get();
            total.lost_queue += counters.lost_queue.get();
            total.lost_link += counters.lost_link.get();
            total.lost_oversize += counters.lost_oversize.get();
            total.lost_cap += counters.lost_cap.get();
            total.lost_neighbour += counters.lost_neighbour.get();
            total.lost_down += counters.lost_down.get();
            total.lost_budget += counters.lost_budget.get();
            total.lost_duplicate += counters.lost_duplicate.get();
            total.lost += counters.lost().iter().map(|(_, lost)| lost).sum::<u64>();
        }
        sessions.insert(name.to_string(), total);
    }
    sessions
}

/// Hits by rule id.
pub(super) fn rule_totals(workers: &[Arc<WorkerCounters>], names: &PolicyNames) -> BTreeMap<String, RuleHits> {
    let mut rules = BTreeMap::new();
    for (number, since) in names.since().into_iter().enumerate() {
        let Ok(handle) = u32::try_from(number).map(RuleHandle) else { break };
        let mut hits = RuleHits { counter_since: iso8601(since), ..RuleHits::default() };
        let mut times: Option<(u64, u64)> = None;
        for counters in workers.iter().filter_map(|w| w.rules.get(number)) {
            hits.packets += counters.packets.get();
            hits.bytes += counters.bytes.get();
            hits.would += counters.would.get();
            let both = |(first, last): (u64, u64), (f, l)| (first.min(f), last.max(l));
            times = counters.times().map(|own| times.map_or(own, |others| both(own, others))).or(times);
        }
        (hits.first_hit, hits.last_hit) = times.map(|(first, last)| (iso8601(first), iso8601(last))).unzip();
        rules.insert(names.labels.rule(handle).to_string(), hits);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appliance::{PolicyHost, Targets};
    use crate::config;

    const CONFIG: &str = "[policy]\ndefault = \"deny\"\n[[rule]]\nid = \"web\"\naction = \"allow\"\n\
                          [[mirror]]\nname = \"tap\"\ngroup = \"any\"\n";

    fn two_workers() -> (Vec<Arc<WorkerCounters>>, Arc<PolicyNames>) {
        let config = config::parse(CONFIG, "test.toml").expect("valid");
        let host = PolicyHost::new(&config, Targets::ByPort, 1_000_000_000).expect("compiles");
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::new(8))).collect();
        for (n, w) in [10, 20].into_iter().zip(&workers) {
            w.rx_packets.add(n);
            w.tx_packets.add(n - 5);
            w.consumed.add(1);
            w.drops[DropReason::Denied.index()].add(3);
            w.drops[DropReason::TransmitFull.index()].add(1);
            w.mirrors[0].selected.add(n);
            w.mirrors[0].packets.add(n - 3);
            w.mirrors[0].lost_pool.add(1);
            w.mirrors[0].lost_queue.add(2);
            w.rules[1].packets.add(n);
        }
        (workers, host.names().clone())
    }

    #[test]
    fn workers_are_added_up() {
        let (workers, names) = two_workers();
        let summary = Summary::of(&workers, &names).over(1.5);
        assert_eq!((summary.rx, summary.tx, summary.consumed, summary.workers), (30, 20, 2, 2));
        assert_eq!(summary.drops, BTreeMap::from([("denied", 6), ("transmit_full", 2)]), "others are left out");
        assert_eq!(
            summary.mirrored["tap"],
            Mirrored { selected: 30, packets: 24, lost: 6, lost_pool: 2, lost_queue: 4, ..Mirrored::default() }
        );
        assert_eq!((summary.rules["web"].packets, summary.rules["default"].packets), (30, 0));
        assert_eq!(summary.rules["web"].counter_since, "1970-01-01T00:00:01.000000+0000");
        assert_eq!((summary.seconds, summary.pps), (1.5, 20.0));
        assert!(summary.adds_up());
    }

    #[test]
    fn a_packet_that_is_nowhere_is_noticed() {
        let (workers, names) = two_workers();
        workers[0].rx_packets.add(1);
        assert!(!Summary::of(&workers, &names).adds_up());
    }

    #[test]
    fn no_time_no_rate() {
        assert_eq!(Summary { rx: 5, ..Summary::default() }.over(0.0).pps, 0.0);
    }
}
