//! What evidence suggestions need.

/// Thresholds; the defaults suit some days of traffic or more.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Nanoseconds since 1970: now, for what expires.
    pub now: u64,
    pub threads: usize,
    /// Least refused flows of what could be allowed.
    pub min_flows: u32,
    /// Least flows of an attack that is let through.
    pub min_attack: u32,
    /// Least days without a hit of what could be retired.
    pub idle_days: f64,
    /// Largest used share of a rule that is called over-broad.
    pub used_share: f64,
    /// Most suggestions of each kind that are worked out.
    pub per_kind: usize,
    /// Suggestions that are given.
    pub top: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { now: 0, threads: 2, min_flows: 8, min_attack: 5, idle_days: 2.0, used_share: 0.1, per_kind: 32, top: 10 }
    }
}
