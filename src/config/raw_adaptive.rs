//! Whom to look at more closely, as it stands in the file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{DurationText, MacText, Name, RateText, ShareText};

/// How alerts and risks change what mirrors with `adapt`, `min_score` or `flags` take.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAdaptive {
    /// How often it is decided anew.
    pub interval: DurationText,
    /// The share of a host's flows by its risk, ascending: how unusual its traffic is for it, where 0.999 is what
    /// one record in a thousand of normal hosts finds them in. Below the first level mirrors take their own share.
    #[schemars(length(max = 6))]
    pub level: Vec<RawLevel>,
    /// A level is left when the risk says that so many times more of what is normal is that unusual.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub hysteresis: f64,
    /// Kinds of alert that count, or "any". An `outlier` says no more than the risk, so it is not among them.
    #[schemars(length(min = 1))]
    pub alerts: Vec<String>,
    /// The share of the flows of those with such an alert.
    pub flagged: ShareText,
    /// Alerts of this severity, and more severe ones, count: 1 is the most severe, 3 the least.
    #[schemars(range(min = 1, max = 3))]
    pub severity: u8,
    /// How long after the last reason a party is still watched.
    pub hold: DurationText,
    /// Most that all mirrors with `adapt` send together.
    pub budget: Option<RateText>,
    /// Most packets per second that they send together.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub budget_packets: Option<u64>,
    /// Most parties that are watched at a time.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub most: usize,
    /// Those with an alert are watched whole for a period, then released or escalated.
    pub graylist: Option<RawGraylist>,
}

/// One step of the curve from risk to share.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLevel {
    #[schemars(range(min = 0.0, max = 1.0))]
    pub score: f64,
    pub share: ShareText,
}

/// What becomes of those with an alert.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawGraylist {
    /// Kinds of alert that put who does it on the list, or "any". Sources of scans can be forged.
    #[schemars(length(min = 1))]
    pub alerts: Vec<String>,
    pub period: DurationText,
    /// When alerts went on in that time: `watch` for another period, or `divert` what they begin to `honeypot`.
    pub escalate: EscalateWord,
    /// Name of a honeypot.
    pub honeypot: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum EscalateWord {
    #[default]
    Watch,
    Divert,
}

/// A host that takes connections in the place of others.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHoneypot {
    pub name: Name,
    /// Port that it is behind; it must be in no pair. Left out only in files without ports.
    pub port: Option<String>,
    /// Its MAC address.
    pub mac: MacText,
}
