//! What metrics and statistics events look at.

use std::sync::Arc;

use super::pools::Pools;
use crate::control::Live;
use crate::dpdk::Port;

/// The running appliance and its devices. Reading disturbs nobody.
#[derive(Debug)]
pub struct Observed {
    pub live: Arc<Live>,
    pub devices: Vec<Arc<Port>>,
    /// Room for flows of each worker.
    pub capacity: u64,
    pub pools: Pools,
}
