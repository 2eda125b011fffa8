//! Packet buffers shared by everything that runs on one EAL.

use std::sync::Arc;

use crate::dpdk::{DpdkError, Eal, Mempool};

const MIN_FRONTS: u32 = 255;

/// Buffers for packets, and headers for reference-counted copies.
#[derive(Clone, Debug)]
pub struct Pools {
    pub packets: Mempool,
    pub clones: Mempool,
    /// Small ones, for the headers of wrapped copies.
    pub fronts: Mempool,
}

impl Pools {
    /// `count` of each, of fronts a quarter; a power of two minus one uses memory best.
    pub fn new(eal: &Arc<Eal>, count: u32) -> Result<Self, DpdkError> {
        Ok(Self {
            packets: Mempool::packets(eal, "packets", count)?,
            clones: Mempool::clones(eal, "clones", count)?,
            fronts: Mempool::fronts(eal, "fronts", (count / 4).max(MIN_FRONTS))?,
        })
    }
}
