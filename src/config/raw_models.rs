//! The tables of the file about models of the scorer and where they are kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::Store;
use super::text::DurationText;

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
