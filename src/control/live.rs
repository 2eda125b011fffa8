//! What verbs can see of the running appliance, from any thread.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::appliance::{Desk, PolicyNames, Recent, ScorerCounters, Summary, Watchers, unix_nanoseconds};
use crate::behaviour::AlertKind;
use crate::export::{OUTAGE, OutputCounters, PRESSURE};
use crate::mirror::hops::Hops;
use crate::taps::TapHost;
use crate::worker::{Mailbox, WorkerCounters};

/// A running appliance, seen from outside of its threads.
#[derive(Debug)]
pub struct Live {
    pub names: Arc<PolicyNames>,
    /// By worker.
    pub counters: Vec<Arc<WorkerCounters>>,
    /// By worker: where questions about its flows are put.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// Room for flows at each worker.
    pub capacity: usize,
    pub recent: Arc<Recent>,
    /// The ways to collectors of mirrors.
    pub hops: Arc<Hops>,
    pub ports: Vec<PortView>,
    /// Captures and traces.
    pub taps: Arc<TapHost>,
    pub started: Instant,
    /// Nanoseconds since the Unix epoch.
    pub started_at: u64,
    /// Number of the policy in force; kept by the appliance.
    pub generation: AtomicU32,
    pub scorer: Arc<ScorerCounters>,
    /// Files and sockets that events go to.
    pub outputs: Vec<Arc<OutputCounters>>,
    /// Who is watched, where mirrors adapt.
    pub watchers: Option<Watchers>,
    /// The keeper of the scorer's models, where anything is scored.
    pub models: Option<Arc<Desk>>,
    /// Where files of events are written.
    pub folder: PathBuf,
    /// Names of honeypots, by position.
    pub honeypots: Vec<String>,
}

/// One port.
#[derive(Clone, Debug, Serialize)]
pub struct PortView {
    pub name: String,
    pub device: String,
    /// What it forwards to; `None` for mirror ports.
    pub paired_with: Option<String>,
    #[serde(serialize_with = "is_up")]
    pub up: Arc<AtomicBool>,
}

fn is_up<S: serde::Serializer>(up: &Arc<AtomicBool>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(up.load(Ordering::Relaxed))
}

impl Live {
    /// Seconds since the start, to the millisecond.
    pub fn uptime(&self) -> f64 {
        (self.started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
    }

    /// The system clock, nanoseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        unix_nanoseconds()
    }

    /// Counters now.
    pub fn summary(&self) -> Summary {
        let summary = Summary::of(&self.counters, &self.names).over(self.uptime());
        let mut summary = summary.timed(&self.counters, &self.scorer.lag);
        summary.generation = self.generation.load(Ordering::Relaxed);
        summary.alerts = self.alerts().into_iter().filter(|(_, count)| *count > 0).collect();
        summary
    }

    /// Episodes opened so far, by kind.
    pub fn alerts(&self) -> BTreeMap<String, u64> {
        let kinds = AlertKind::ALL.iter().zip(&self.scorer.alerts).map(|(kind, count)| (kind.name(), count.get()));
        let pressure = (PRESSURE, self.scorer.pressure_alerts.get());
        let outages = (OUTAGE, self.scorer.outage_alerts.get());
        kinds.chain([pressure, outages]).map(|(kind, count)| (kind.to_owned(), count)).collect()
    }
}
