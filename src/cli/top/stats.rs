//! The answer to `stats`, as far as the page shows it. What is missing is zero.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stats {
    pub(super) version: String,
    pub(super) pid: u32,
    /// Seconds.
    pub(super) uptime: f64,
    pub(super) ports: Vec<Port>,
    pub(super) workers: Vec<Worker>,
    /// Room for flows at each worker.
    pub(super) capacity: u64,
    pub(super) pairs: Vec<Pair>,
    pub(super) alerts: Vec<Alert>,
    pub(super) rules_hidden: u64,
    pub(super) summary: Summary,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) device: String,
    pub(super) up: bool,
    pub(super) paired_with: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Worker {
    pub(super) rx: u64,
    pub(super) tx: u64,
    pub(super) dropped: u64,
    pub(super) flows: u64,
    pub(super) records: u64,
    pub(super) records_lost: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pair {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) flows: u64,
    pub(super) refused: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Alert {
    pub(super) time: String,
    pub(super) kind: String,
    pub(super) severity: u8,
    pub(super) status: String,
    pub(super) actor: String,
    pub(super) victim: String,
    pub(super) count: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Summary {
    pub(super) rx: u64,
    pub(super) tx: u64,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
    pub(super) drops: BTreeMap<String, u64>,
    pub(super) mirrored: BTreeMap<String, Mirrored>,
    pub(super) rules: BTreeMap<String, Rule>,
    pub(super) flows: u64,
    pub(super) flows_evicted_half_open: u64,
    pub(super) flows_evicted_closed: u64,
    pub(super) flows_evicted_idle: u64,
    pub(super) untracked: u64,
    pub(super) records: u64,
    pub(super) records_lost: u64,
    pub(super) generation: u64,
    /// Distributions among them.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Mirrored {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) lost: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rule {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) would: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Summary {
    /// Every distribution in it, by name.
    pub(super) fn distributions(&self) -> Vec<(&str, Quantiles)> {
        let with_quantiles = self.rest.iter().filter(|(_, value)| value.get("p50").is_some());
        with_quantiles.filter_map(|(name, value)| Some((name.as_str(), Quantiles::deserialize(value).ok()?))).collect()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}
