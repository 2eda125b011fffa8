//! What verbs can see of the running appliance, from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::appliance::{PolicyNames, Summary};
use crate::taps::TapHost;
use crate::worker::WorkerCounters;

/// A running appliance, seen from outside of its threads.
#[derive(Debug)]
pub struct Live {
    pub names: Arc<PolicyNames>,
    /// By worker.
    pub counters: Vec<Arc<WorkerCounters>>,
    pub ports: Vec<PortView>,
    /// Captures and traces.
    pub taps: Arc<TapHost>,
    pub started: Instant,
    /// Nanoseconds since the Unix epoch.
    pub started_at: u64,
    /// Number of the policy in force; kept by the appliance.
    pub generation: AtomicU32,
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

    /// Counters now.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::of(&self.counters, &self.names).over(self.uptime());
        summary.generation = self.generation.load(Ordering::Relaxed);
        summary
    }
}
