//! A mirror session as the data path needs it.

use super::delivery::Delivery;
use super::hops::Route;
use super::watch::share_in_force;
use crate::rules::Standing;

/// How much of what a session selects is copied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    /// Every n-th packet, counted per worker (1 = all).
    Packets(u32),
    /// This share of flows, both directions together: 0.0..=1.0. The same flows at every box with the
    /// same seed.
    Flows(f64),
}

impl Default for Sample {
    fn default() -> Self {
        Sample::Packets(1)
    }
}

/// How much a session takes, for those who read about it later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub sample: Sample,
    /// It takes more of the watched.
    pub adapts: bool,
}

impl Rate {
    /// The share of packets or flows, 0..=1, of flows that stand so.
    pub fn share(&self, standing: &Standing) -> f64 {
        match self.sample {
            Sample::Packets(n) => 1.0 / f64::from(n.max(1)),
            Sample::Flows(share) if self.adapts => share_in_force(share, standing),
            Sample::Flows(share) => share,
        }
    }
}

/// Only the beginning of each flow, both directions together. A flow without an entry in the flow table, and frames without
/// IP, have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    Packets(u64),
    /// Until a packet has brought the flow to so many bytes, that packet included.
    Bytes(u64),
}

/// One mirror session. Its position in the configuration is its bit in
/// [`Verdict::mirrors`](crate::rules::Verdict::mirrors); what it selects is compiled with the rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    pub name: String,
    /// The target or port that the configuration names; empty in files without ports.
    pub to: String,
    /// Index of the mirror port in the configuration's port list.
    pub port: usize,
    pub sample: Sample,
    pub head: Option<Head>,
    /// Only packets that one of these rules decided, by id; empty means all.
    pub rules: Vec<String>,
    /// Only packets received on these ports, by index in the configuration's port list; empty means all.
    pub on: Vec<usize>,
    /// Lower first when several sessions take one packet.
    pub priority: u32,
    /// It takes more than its share of the flows of those who are watched.
    pub adapts: bool,
    /// Only flows of those who are watched, for this.
    pub only: Option<Only>,
    pub delivery: Delivery,
}

/// For what somebody must be watched for a session to take the flow: either is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Only {
    /// At least this risk, 0..=1 as 0..=65535; `None`: no risk is enough.
    pub score: Option<u16>,
    /// One of these kinds of alert is on, a bit each.
    pub flags: u32,
}

impl Only {
    pub fn admits(&self, standing: &Standing) -> bool {
        self.score.is_some_and(|least| standing.score >= least) || self.flags & standing.flags != 0
    }
}

impl Session {
    pub fn rate(&self) -> Rate {
        Rate { sample: self.sample, adapts: self.adapts }
    }

    /// The ways to its collectors, as far as they are looked after.
    pub fn routes(&self) -> impl Iterator<Item = Option<&Route>> {
        self.delivery.wrap.iter().flat_map(|wrap| wrap.routes.iter().map(Option::as_ref))
    }

    /// Whether it takes less than all packets that the policy selects for it, apart from every n-th.
    pub fn is_choosy(&self) -> bool {
        let takes_share = matches!(self.sample, Sample::Flows(_));
        takes_share || self.only.is_some() || self.head.is_some() || !self.rules.is_empty() || !self.on.is_empty()
    }
}
