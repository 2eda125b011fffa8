//! What is published to the workers: rules, mirror sessions and the few settings that may change while
//! packets flow.

use std::sync::Arc;

use crate::mirror::hops::Hop;
use crate::mirror::{Cap, Session};
use crate::rules::{Compiled, Decision, Generational, LiveFlows, RuleHandle};

/// Where a mirror session's copies go and are counted. Position = bit in a verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct MirrorLane {
    pub session: Session,
    /// Index into the worker's outputs.
    pub output: usize,
    /// Index into [`WorkerCounters::mirrors`](super::WorkerCounters::mirrors).
    pub slot: u16,
    /// What is known of the ways in its wrap's routes, in their order.
    pub hops: Vec<Option<Arc<Hop>>>,
    /// Of [`Session::rules`], those that exist.
    pub rules: Vec<RuleHandle>,
}

/// One generation of everything that can change while packets flow.
#[derive(Debug)]
pub struct Generation {
    pub rules: Compiled,
    pub mirrors: Vec<MirrorLane>,
    /// The most that all adaptive sessions may send together.
    pub budget: Cap,
    /// Frames without IP, and IPv6 neighbour discovery.
    pub non_ip: Decision,
    /// What becomes of flows that an earlier generation judged.
    pub live_flows: LiveFlows,
}

impl Generational for Generation {
    fn generation(&self) -> u32 {
        self.rules.generation()
    }
}
