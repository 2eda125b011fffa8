//! The tables of the file about the scorer, its models and where they are kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::Store;
use super::raw_detect::{RawDetect, RawPairs};
use super::text::DurationText;
use crate::behaviour::Member;

/// Scoring of flow records.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawScorer {
    pub enabled: bool,
    /// The model is trained when this many records were seen.
    #[schemars(range(min = 2, max = 10_000_000))]
    pub warmup_records: usize,
    /// What the model looks with: isolation forest, nearest neighbours, empirical tails of each feature, principal
    /// components, one-class support vector machine (slower: about 0.4 million records a second).
    #[schemars(length(min = 1))]
    pub members: Vec<Member>,
    /// Trees of the isolation forest.
    #[schemars(range(min = 1, max = 10_000))]
    pub trees: usize,
    /// Records each tree is built from.
    #[schemars(range(min = 2, max = 1_048_576))]
    pub sample: usize,
    /// Share of the warm-up records that is taken to be unusual; sets the threshold of `outlier`.
    #[schemars(range(min = 0.000_001, max = 0.5))]
    pub contamination: f64,
    /// Records that fit between each worker and the scorer; more are lost and counted.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub ring: usize,
    /// A new model is trained on ordinary records since the last training this often, or "off".
    pub retrain: RawRetrain,
    /// Also when the distribution of scores has changed for good.
    pub retrain_on_drift: bool,
    /// A new model scores side by side with the active one and waits to be promoted, instead of taking its place.
    pub shadow: bool,
    /// Promote it after so many records where it does not call far more of them unusual. Left out: a person does.
    #[schemars(range(min = 100, max = 1_000_000_000))]
    pub promote_after: Option<u64>,
    /// Train a model of its own for each source group with enough ordinary records; others share the one for all.
    pub per_group: bool,
    /// Enough for a group.
    #[schemars(range(min = 256, max = 1_000_000))]
    pub group_records: usize,
    pub detect: RawDetect,
    pub pairs: RawPairs,
}

/// How often a model is trained anew.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawRetrain {
    Never(OffWord),
    Every(DurationText),
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum OffWord {
    Off,
}

/// Where trained models outlive the process. `gnomon replay` has no store but what `--store` names.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStore {
    /// Without it every start begins with a warm-up.
    pub enabled: bool,
    /// An SQLite file, made where there is none. Left out: `/var/lib/gnomon/gnomon.db`, with another `eal.file_prefix`
    /// than `gnomon` that name instead; where /var/lib/gnomon cannot be written, the same name in `export.directory`.
    #[schemars(length(min = 1))]
    pub path: Option<String>,
}

impl Default for RawStore {
    fn default() -> Self {
        let Store { enabled, .. } = Store::default();
        Self { enabled, path: None }
    }
}
