//! What can be asked: one entry each in [`VERBS`].

use std::sync::atomic::Ordering;

use serde::Deserialize;
use serde_json::json;

use super::live::Live;
use super::protocol::{Failure, Hello, Request};
use super::reply::Reply;
use super::{models, watch};
use crate::export::iso8601;
use crate::taps::verbs as taps;

/// One verb. It writes the lines of its answer; the end is written for it.
#[derive(Debug)]
pub struct Verb {
    pub name: &'static str,
    /// True of requests that change something: who asked is then logged.
    pub changes: fn(&Request) -> bool,
    pub run: fn(&Live, &Request, &mut Reply) -> Result<(), Failure>,
}

/// Every verb there is.
pub const VERBS: &[Verb] = &[
    Verb { name: "ping", changes: never, run: ping },
    Verb { name: "status", changes: never, run: status },
    Verb { name: "stats", changes: never, run: super::stats::stats },
    Verb { name: "mirrors", changes: never, run: super::mirrors::mirrors },
    Verb { name: "watch", changes: never, run: watch::watch },
    Verb { name: "watch_why", changes: never, run: watch::watch_why },
    Verb { name: "watch_set", changes: always, run: watch::watch_set },
    Verb { name: "watch_release", changes: always, run: watch::watch_release },
    Verb { name: "alerts", changes: never, run: models::alerts },
    Verb { name: "models", changes: never, run: models::models },
    Verb { name: "model_show", changes: never, run: models::model_show },
    Verb { name: "model_compare", changes: never, run: models::model_compare },
    Verb { name: "model_promote", changes: always, run: models::model_promote },
    Verb { name: "model_reject", changes: always, run: models::model_reject },
    Verb { name: "model_rollback", changes: always, run: models::model_rollback },
    Verb { name: "model_train", changes: always, run: models::model_train },
    Verb { name: "flows", changes: never, run: super::flows::flows },
    Verb { name: "capture", changes: always, run: taps::capture },
    Verb { name: "trace_add", changes: always, run: taps::trace_add },
    Verb { name: "trace_list", changes: never, run: taps::trace_list },
    Verb { name: "trace_show", changes: never, run: taps::trace_show },
    Verb { name: "trace_remove", changes: always, run: taps::trace_remove },
];

/// For verbs that only look.
pub fn never(_: &Request) -> bool {
    false
}

/// For verbs that always change something.
pub fn always(_: &Request) -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

fn ping(_: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let NoArguments {} = request.read()?;
    reply.line(&json!({ "pong": true }))
}

fn status(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let NoArguments {} = request.read()?;
    let Hello { gnomon, pid, .. } = Hello::own();
    let flows: u64 = live.counters.iter().map(|w| u64::from(w.flows_live.load(Ordering::Relaxed))).sum();
    reply.line(&json!({
        "version": gnomon,
        "pid": pid,
        "started": iso8601(live.started_at),
        "uptime": live.uptime(),
        "generation": live.generation.load(Ordering::Relaxed),
        "workers": live.counters.len(),
        "flows": flows,
        "ports": live.ports,
    }))
}
