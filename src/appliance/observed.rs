//! What metrics and statistics events look at.

use std::sync::Arc;

use super::pools::Pools;
use crate::control::Live;
use crate::dpdk::Port;
use crate::export::CollectorCounters;

/// The running appliance and its devices. Reading disturbs nobody.
#[derive(Debug)]
pub struct Observed {
    pub live: Arc<Live>,
    pub devices: Vec<Arc<Port>>,
    pub pools: Pools,
    /// IPFIX collectors by name.
    pub collectors: Vec<(String, Arc<CollectorCounters>)>,
}
