//! Counters of the running appliance as metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use super::observed::Observed;
use super::scoring::{ScorerCounters, unix_nanoseconds};
use super::totals::{mirror_counters, rule_totals};
use crate::metrics::{Exposition, MetricsServer};
use crate::packet::DropReason;
use crate::worker::{Counter, Distributed, Distribution, LOSSES, WorkerCounters};

/// Bounds of latencies in nanoseconds: powers of two from about a microsecond to about four seconds.
const LATENCY_POWERS: std::ops::RangeInclusive<u32> = 10..=32;
/// Bounds of lag in microseconds: from about a millisecond to about two minutes.
const LAG_POWERS: std::ops::RangeInclusive<u32> = 10..=27;
const BATCHES: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// Answers Prometheus at `listen`.
pub(super) fn serve_metrics(listen: SocketAddr, observed: Arc<Observed>) -> Result<MetricsServer> {
    MetricsServer::start(listen, move || page(&observed)).with_context(|| {
        format!("metrics cannot be served at {listen}; change `listen` in [metrics], or end what listens there")
    })
}

/// Everything there is, now.
pub(super) fn page(observed: &Observed) -> String {
    let mut page = Exposition::default();
    process(&mut page, observed);
    ports(&mut page, observed);
    workers(&mut page, observed);
    rules(&mut page, observed);
    mirrors(&mut page, observed);
    targets(&mut page, observed);
    scorer(&mut page, observed);
    collectors(&mut page, observed);
    page.text()
}

fn process(page: &mut Exposition, observed: &Observed) {
    page.add("gnomon_build_info", &[env!("CARGO_PKG_VERSION")], 1.0);
    page.add("gnomon_start_time_seconds", &[], observed.live.started_at as f64 / 1e9);
    page.add("gnomon_policy_generation", &[], observed.live.generation.load(Ordering::Relaxed).into());
    if let Some(bytes) = resident_memory() {
        page.add("gnomon_resident_memory_bytes", &[], bytes as f64);
    }
}

fn ports(page: &mut Exposition, observed: &Observed) {
    for port in &observed.devices {
        let (name, stats) = ([port.name()], port.stats());
        page.add("gnomon_port_up", &name, port.link().up.into());
        for (metric, value) in [
            ("gnomon_port_received_packets_total", stats.rx_packets),
            ("gnomon_port_received_bytes_total", stats.rx_bytes),
            ("gnomon_port_sent_packets_total", stats.tx_packets),
            ("gnomon_port_sent_bytes_total", stats.tx_bytes),
            ("gnomon_port_missed_packets_total", stats.rx_missed),
            ("gnomon_port_no_buffer_packets_total", stats.rx_no_buffer),
            ("gnomon_port_receive_errors_total", stats.rx_errors),
            ("gnomon_port_send_errors_total", stats.tx_errors),
        ] {
            page.add(metric, &name, value as f64);
        }
    }
    let pools = &observed.pools;
    for (name, pool) in [("packets", &pools.packets), ("clones", &pools.clones), ("fronts", &pools.fronts)] {
        page.add("gnomon_pool_buffers", &[name], pool.size().into());
        page.add("gnomon_pool_free_buffers", &[name], pool.available().into());
    }
}

fn workers(page: &mut Exposition, observed: &Observed) {
    type Field = fn(&WorkerCounters) -> &Counter;
    let fields: [(&str, Field); 19] = [
        ("gnomon_received_packets_total", |w| &w.rx_packets),
        ("gnomon_received_bytes_total", |w| &w.rx_bytes),
        ("gnomon_forwarded_packets_total", |w| &w.tx_packets),
        ("gnomon_forwarded_bytes_total", |w| &w.tx_bytes),
        ("gnomon_consumed_packets_total", |w| &w.consumed),
        ("gnomon_diverted_packets_total", |w| &w.diverted),
        ("gnomon_generated_packets_total", |w| &w.generated),
        ("gnomon_generated_lost_packets_total", |w| &w.generated_lost),
        ("gnomon_redistributed_packets_total", |w| &w.redistributed),
        ("gnomon_flows_inserted_total", |w| &w.flows),
        ("gnomon_flow_slices_forced_total", |w| &w.slices_forced),
        ("gnomon_uncached_verdicts_total", |w| &w.verdicts_refused),
        ("gnomon_untracked_packets_total", |w| &w.untracked),
        ("gnomon_icmp_errors_total", |w| &w.icmp_errors),
        ("gnomon_icmp_errors_bound_total", |w| &w.icmp_errors_bound),
        ("gnomon_flow_records_total", |w| &w.records),
        ("gnomon_flow_records_lost_total", |w| &w.records_lost),
        ("gnomon_observations_lost_total", |w| &w.observations_lost),
        ("gnomon_polls_total", |w| &w.batches[0]),
    ];
    for (number, worker) in observed.live.counters.iter().enumerate() {
        let number = number.to_string();
        for (metric, field) in fields {
            let value = field(worker).get() as f64;
            match metric {
                "gnomon_polls_total" => page.add(metric, &[&number, "empty"], value),
                _ => page.add(metric, &[&number], value),
            }
        }
        for (kind, evicted) in [
            ("half_open", &worker.flows_evicted_half_open),
            ("closed", &worker.flows_evicted_closed),
            ("idle", &worker.flows_evicted_idle),
        ] {
            page.add("gnomon_flows_evicted_total", &[&number, kind], evicted.get() as f64);
        }
        for (result, fragments) in [
            ("resolved", &worker.fragments_resolved),
            ("missed", &worker.fragments_missed),
            ("evicted", &worker.fragments_evicted),
        ] {
            page.add("gnomon_fragments_total", &[&number, result], fragments.get() as f64);
        }
        page.add("gnomon_flows_disposable", &[&number], worker.flows_disposable.load(Ordering::Relaxed).into());
        page.add("gnomon_flows_live", &[&number], worker.flows_live.load(Ordering::Relaxed).into());
        page.add("gnomon_flow_table_capacity_flows", &[&number], observed.live.capacity as f64);
        let latency = Distributed::of([&worker.latency]);
        histogram(page, "gnomon_latency_seconds", &[&number], &latency, LATENCY_POWERS, 1e9);
        batches(page, &number, worker);
    }
    for reason in DropReason::all() {
        let dropped: u64 = observed.live.counters.iter().map(|w| w.drops[reason.index()].get()).sum();
        if dropped > 0 {
            page.add("gnomon_dropped_packets_total", &[reason.name()], dropped as f64);
        }
    }
}

fn batches(page: &mut Exposition, worker: &str, counters: &WorkerCounters) {
    let batches = Distribution::default();
    for (packets, polls) in counters.batches.iter().enumerate().skip(1) {
        batches.record(packets as u64, polls.get());
    }
    let batches = Distributed::of([&batches]);
    page.add("gnomon_polls_total", &[worker, "packets"], batches.count as f64);
    let buckets = BATCHES.map(|bound| (bound as f64, batches.up_to(bound)));
    page.add_histogram("gnomon_batch_packets", &[worker], &buckets, batches.sum as f64, batches.count);
}

/// `unit` values make one of the metric.
fn histogram(
    page: &mut Exposition,
    metric: &str,
    labels: &[&str],
    values: &Distributed,
    powers: std::ops::RangeInclusive<u32>,
    unit: f64,
) {
    let buckets: Vec<_> = powers.map(|power| ((1_u64 << power) as f64 / unit, values.up_to(1 << power))).collect();
    page.add_histogram(metric, labels, &buckets, values.sum as f64 / unit, values.count);
}

fn rules(page: &mut Exposition, observed: &Observed) {
    for (name, hits) in rule_totals(&observed.live.counters, &observed.live.names) {
        page.add("gnomon_rule_packets_total", &[&name], hits.packets as f64);
        page.add("gnomon_rule_bytes_total", &[&name], hits.bytes as f64);
        page.add("gnomon_rule_would_packets_total", &[&name], hits.would as f64);
    }
}

fn mirrors(page: &mut Exposition, observed: &Observed) {
    for (name, slot) in mirror_counters(&observed.live.counters, &observed.live.names) {
        let sum = |field: fn(&crate::worker::MirrorCounters) -> &Counter| -> f64 {
            slot.iter().map(|counters| field(counters).get()).sum::<u64>() as f64
        };
        page.add("gnomon_mirror_selected_packets_total", &[&name], sum(|m| &m.selected));
        page.add("gnomon_mirror_copied_packets_total", &[&name], sum(|m| &m.packets));
        page.add("gnomon_mirror_copied_bytes_total", &[&name], sum(|m| &m.bytes));
        for (at, cause) in LOSSES.iter().enumerate() {
            let lost: u64 = slot.iter().map(|counters| counters.lost()[at].1).sum();
            page.add("gnomon_mirror_lost_packets_total", &[&name, cause], lost as f64);
        }
    }
}

fn targets(page: &mut Exposition, observed: &Observed) {
    let mut counts: BTreeMap<(String, &str), u32> = BTreeMap::new();
    for (route, hop) in observed.live.hops.all() {
        for state in ["up", "down", "no_neighbour"] {
            *counts.entry((route.target.clone(), state)).or_default() += u32::from(hop.state().name() == state);
        }
    }
    for ((target, state), count) in counts {
        page.add("gnomon_mirror_collectors", &[&target, state], count.into());
    }
}

fn scorer(page: &mut Exposition, observed: &Observed) {
    let scorer = &observed.live.scorer;
    page.add("gnomon_scorer_records_total", &[], scorer.records.get() as f64);
    page.add("gnomon_scorer_scored_records_total", &[], scorer.scored.get() as f64);
    page.add("gnomon_scorer_outlier_records_total", &[], scorer.outliers.get() as f64);
    models(page, scorer);
    page.add("gnomon_scorer_entries", &[], scorer.entries.get() as f64);
    page.add("gnomon_scorer_forgotten_entries_total", &[], scorer.forgotten.get() as f64);
    page.add("gnomon_flow_table_pressure", &[], scorer.pressure.get() as f64);
    histogram(page, "gnomon_scorer_lag_seconds", &[], &Distributed::of([&scorer.lag]), LAG_POWERS, 1e6);
    for (kind, count) in observed.live.alerts() {
        page.add("gnomon_alerts_total", &[&kind], count as f64);
    }
    for output in &observed.live.outputs {
        let name = [&*output.name];
        page.add("gnomon_output_connected", &name, output.is_connected().into());
        page.add("gnomon_output_lines_total", &name, output.lines() as f64);
        page.add("gnomon_output_bytes_total", &name, output.bytes() as f64);
        page.add("gnomon_output_lost_lines_total", &name, output.lost_lines() as f64);
        page.add("gnomon_output_failures_total", &name, output.failures() as f64);
    }
}

fn models(page: &mut Exposition, scorer: &ScorerCounters) {
    page.add("gnomon_model_version", &["active"], scorer.model.get() as f64);
    page.add("gnomon_model_version", &["shadow"], scorer.shadow.get() as f64);
    let trained = Some(scorer.trained_to.get()).filter(|time| *time > 0);
    let age = trained.map_or(0, |time| unix_nanoseconds().saturating_sub(time));
    page.add("gnomon_model_age_seconds", &[], age as f64 / 1e9);
    page.add("gnomon_model_groups", &[], scorer.group_models.get() as f64);
    page.add("gnomon_model_swaps_total", &[], scorer.swaps.get() as f64);
    page.add("gnomon_model_rejected_total", &[], scorer.rejected.get() as f64);
    page.add("gnomon_model_drifts_total", &[], scorer.drifts.get() as f64);
}

fn collectors(page: &mut Exposition, observed: &Observed) {
    for (name, counters) in &observed.collectors {
        let now = counters.summary(name);
        for (metric, value) in [
            ("gnomon_ipfix_records_total", now.records),
            ("gnomon_ipfix_lost_records_total", now.lost),
            ("gnomon_ipfix_messages_total", now.messages),
            ("gnomon_ipfix_bytes_total", now.octets),
            ("gnomon_ipfix_errors_total", now.errors),
            ("gnomon_ipfix_connections_total", now.connections),
        ] {
            page.add(metric, &[name], value as f64);
        }
    }
}

/// From the process's own status (proc(5)).
fn resident_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}
