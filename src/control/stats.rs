//! The verb `stats`: all counters at one moment. Rates are for who asks twice.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::live::Live;
use super::protocol::{Failure, Request};
use super::reply::Reply;
use crate::appliance::Summary;
use crate::export::iso8601;
use crate::rules::GroupSetHandle;
use crate::worker::WorkerCounters;

/// Most rules, pairs and alerts that are told, those with the most packets or bytes, or the latest.
const MOST_RULES: usize = 500;
const MOST_PAIRS: usize = 100;
const MOST_ALERTS: usize = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

#[derive(Serialize)]
struct Worker {
    rx: u64,
    tx: u64,
    dropped: u64,
    flows: u32,
    records: u64,
    records_lost: u64,
}

impl Worker {
    fn of(counters: &WorkerCounters) -> Self {
        Self {
            rx: counters.rx_packets.get(),
            tx: counters.tx_packets.get(),
            dropped: counters.drops.iter().map(crate::worker::Counter::get).sum(),
            flows: counters.flows_live.load(Ordering::Relaxed),
            records: counters.records.get(),
            records_lost: counters.records_lost.get(),
        }
    }
}

pub(super) fn stats(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let NoArguments {} = request.read()?;
    let mut summary = live.summary();
    let rules_hidden = keep_busiest(&mut summary);
    let groups = |set: GroupSetHandle| live.names.labels.groups(set).join(", ");
    let pairs = live.recent.pairs(MOST_PAIRS).into_iter().map(|((from, to), traffic)| {
        let (flows, refused) = (traffic.flows, traffic.refused);
        let (packets, bytes) = (traffic.packets, traffic.bytes);
        json!({ "from": groups(from), "to": groups(to), "flows": flows, "refused": refused, "packets": packets, "bytes": bytes })
    });
    let alerts = live.recent.alerts(MOST_ALERTS).into_iter().map(|alert| {
        json!({
            "time": iso8601(alert.last_seen), "kind": alert.kind.name(), "severity": alert.severity, "status": alert.status.name(),
            "actor": alert.actor.to_string(), "victim": alert.victim.to_string(), "count": alert.count,
        })
    });
    reply.line(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime": live.uptime(),
        "ports": live.ports,
        "workers": live.counters.iter().map(|counters| Worker::of(counters)).collect::<Vec<_>>(),
        "capacity": live.capacity,
        "pairs": pairs.collect::<Vec<_>>(),
        "alerts": alerts.collect::<Vec<_>>(),
        "rules_hidden": rules_hidden,
        "summary": summary,
    }))
}

/// Drops rules without hits and, of many, those with few; returns how many of the latter.
fn keep_busiest(summary: &mut Summary) -> usize {
    let rules = std::mem::take(&mut summary.rules);
    let mut hit: Vec<_> = rules.into_iter().filter(|(_, hits)| hits.packets + hits.would > 0).collect();
    hit.sort_by_key(|(_, hits)| Reverse(hits.packets.max(hits.would)));
    let hidden = hit.len().saturating_sub(MOST_RULES);
    hit.truncate(MOST_RULES);
    summary.rules = hit.into_iter().collect();
    hidden
}
