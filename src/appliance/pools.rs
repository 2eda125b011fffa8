//! Packet buffers shared by everything that runs on one EAL.

use std::sync::Arc;

use crate::dpdk::{DpdkError, Eal, Mempool};

/// Buffers for packets, and headers for reference-counted copies.
#[derive(Clone, Debug)]
pub struct Pools {
    pub packets: Mempool,
    pub clones: Mempool,
}

impl Pools {
    /// `count` of each; a power of two minus one uses memory best.
    pub fn new(eal: &Arc<Eal>, count: u32) -> Result<Self, DpdkError> {
        Ok(Self { packets: Mempool::packets(eal, "packets", count)?, clones: Mempool::clones(eal, "clones", count)? })
    }
}
