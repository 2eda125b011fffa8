//! The verb `mirrors`: each session, what it takes and what became of its copies.

use serde::Deserialize;
use serde_json::{Value, json};

use super::live::Live;
use super::protocol::{Failure, Refusal, Request};
use super::reply::Reply;
use crate::behaviour::Flags;
use crate::export::iso8601;
use crate::mirror::hops::Route;
use crate::mirror::wrap::Outer;
use crate::mirror::{Head, Sample, Session, Slice, Wrap};
use crate::worker::MirrorCounters;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Only this one.
    session: Option<String>,
}

/// A line for each session: those in force, and those of earlier generations that copied something.
pub(super) fn mirrors(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Arguments { session: wanted } = request.read()?;
    let mut known: Vec<String> = Vec::new();
    let mut told = 0;
    for (slot, (session, in_force)) in live.names.known_sessions().iter().enumerate() {
        known.push(session.name.clone());
        let workers: Vec<&MirrorCounters> = live.counters.iter().map(|worker| &worker.mirrors[slot]).collect();
        let is_over = !in_force && workers.iter().all(|worker| worker.selected.get() == 0);
        if wanted.as_ref().is_some_and(|name| *name != session.name) || wanted.is_none() && is_over {
            continue;
        }
        told += 1;
        reply.line(&told_of(live, session, *in_force, &workers))?;
    }
    match wanted {
        Some(name) if told == 0 => Err(unknown(&name, &known).into()),
        _ => Ok(()),
    }
}

fn unknown(name: &str, known: &[String]) -> Refusal {
    let names = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
    Refusal::new("bad_request", format!("no mirror session `{name}`; known: {names}"))
}

fn told_of(live: &Live, session: &Session, in_force: bool, workers: &[&MirrorCounters]) -> Value {
    let port = live.ports.get(session.port);
    let delivery = &session.delivery;
    let on: Vec<&str> = session.on.iter().filter_map(|port| Some(live.ports.get(*port)?.name.as_str())).collect();
    let wrap = delivery.wrap.as_ref().map(|wrap| {
        let to: Vec<String> = wrap.outers.iter().map(|outer| outer.dst.to_string()).collect();
        let from = wrap.outers.first().map(|outer| outer.src.to_string());
        let vlan = wrap.outers.first().and_then(|outer| outer.vlan);
        let collectors = collectors(live, wrap);
        json!({ "tunnel": wrap.tunnel.name(), "id": wrap.id, "from": from, "to": to, "vlan": vlan, "mtu": delivery.mtu,
            "collectors": collectors })
    });
    let slice = delivery.slice.map(|slice| match slice {
        Slice::Bytes(bytes) => json!(bytes),
        Slice::Headers(0) => json!("headers"),
        Slice::Headers(more) => json!(format!("headers+{more}")),
    });
    let is_pool = delivery.wrap.as_ref().is_some_and(|wrap| wrap.outers.len() > 1);
    let (packets, flows) = match session.sample {
        Sample::Packets(every) => (Some(format!("1/{every}")), None),
        Sample::Flows(share) => (None, Some(share)),
    };
    let (first_packets, first_bytes) = match session.head {
        Some(Head::Packets(most)) => (Some(most), None),
        Some(Head::Bytes(most)) => (None, Some(most)),
        None => (None, None),
    };
    json!({
        "session": session.name,
        "in_force": in_force,
        "to": session.to,
        "port": port.map(|port| port.name.as_str()),
        "up": port.map(|port| port.up.load(std::sync::atomic::Ordering::Relaxed)),
        "priority": session.priority,
        "sample": packets,
        "flows": flows,
        "adapts": session.adapts,
        "min_score": session.only.and_then(|only| only.score).map(|score| (f64::from(score) / 6.5535).round() / 1e4),
        "flags": session.only.map(|only| Flags::from_bits(only.flags).names().collect::<Vec<_>>()).unwrap_or_default(),
        "first_packets": first_packets,
        "first_bytes": first_bytes,
        "rules": session.rules,
        "on": on,
        "slice": slice,
        "masked": delivery.mask.is_some(),
        "dedup_ms": (delivery.dedup_ns > 0).then_some(delivery.dedup_ns / 1_000_000),
        "max_bits": delivery.cap.bits,
        "max_packets": delivery.cap.packets,
        "wrap": wrap,
        "workers": workers.iter().map(|worker| account(worker, is_pool)).collect::<Vec<_>>(),
    })
}

/// Each with its next hop and, where that is looked after, its state.
fn collectors(live: &Live, wrap: &Wrap) -> Vec<Value> {
    let told = |(outer, route): (&Outer, &Option<Route>)| {
        let hop = route.as_ref().and_then(|route| live.hops.of(route));
        let Some(hop) = hop else { return json!({ "to": outer.dst.to_string(), "mac": outer.dst_mac.to_string() }) };
        let state = hop.state();
        let since = Some(hop.since()).filter(|since| *since > 0).unwrap_or(live.started_at);
        let mac = state.mac().map(|mac| mac.to_string());
        json!({ "to": outer.dst.to_string(), "mac": mac, "state": state.name(), "since": iso8601(since) })
    };
    wrap.outers.iter().zip(&wrap.routes).map(told).collect()
}

/// `selected = sent + lost + waiting`: the last few copies are on their way to the queue. Read from the end, so that no copy is
/// seen sent before it was selected.
fn account(worker: &MirrorCounters, is_pool: bool) -> Value {
    let (sent, bytes) = (worker.packets.get(), worker.bytes.get());
    let lost = worker.lost();
    let selected = worker.selected.get();
    let waiting = selected.saturating_sub(sent + lost.iter().map(|(_, count)| count).sum::<u64>());
    json!({
        "selected": selected,
        "sent": sent,
        "bytes": bytes,
        "lost": lost.into_iter().map(|(cause, count)| (cause.to_owned(), json!(count))).collect::<serde_json::Map<_, _>>(),
        "waiting": waiting,
        // Each selected packet but a duplicate takes a number, whatever becomes of its copy; in a pool each member has its own.
        "next_sequence": (!is_pool).then_some((selected - worker.lost_duplicate.get()) as u32),
    })
}
