//! Packet buffer pools.

use std::ptr::NonNull;
use std::sync::Arc;

use super::eal::{Eal, c_string};
use super::error::DpdkError;
use super::ffi;

/// Data bytes of one buffer segment; longer packets are chained.
pub const SEGMENT_BYTES: u16 = 2048;
const HEADROOM: u16 = 128;
/// Room for the longest header before a copy and what replay hides in front of it.
pub const FRONT_BYTES: u16 = 192;
const PER_CORE_CACHE: u32 = 256;

/// A pool of packet buffers, shared by reference counting; freed when the last user is gone.
#[derive(Clone, Debug)]
pub struct Mempool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    raw: NonNull<ffi::rte_mempool>,
    size: u32,
    _eal: Arc<Eal>,
}

// SAFETY: DPDK mempools made with the default flags are safe for several producers and consumers.
unsafe impl Send for Pool {}
// SAFETY: as above; all operations take the pool by shared pointer.
unsafe impl Sync for Pool {}

impl Mempool {
    /// `count` buffers with [`SEGMENT_BYTES`] of room each.
    pub fn packets(eal: &Arc<Eal>, name: &str, count: u32) -> Result<Self, DpdkError> {
        Self::create(eal, name, count, SEGMENT_BYTES + HEADROOM)
    }

    /// `count` small buffers, for what is put before clones.
    pub fn fronts(eal: &Arc<Eal>, name: &str, count: u32) -> Result<Self, DpdkError> {
        Self::create(eal, name, count, FRONT_BYTES + HEADROOM)
    }

    /// `count` buffer headers without room, for reference-counted clones.
    pub fn clones(eal: &Arc<Eal>, name: &str, count: u32) -> Result<Self, DpdkError> {
        Self::create(eal, name, count, 0)
    }

    /// Buffers not in use now.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives as long as `self`.
        unsafe { ffi::rte_mempool_avail_count(self.raw()) }
    }

    pub fn size(&self) -> u32 {
        self.0.size
    }

    pub(super) fn raw(&self) -> *mut ffi::rte_mempool {
        self.0.raw.as_ptr()
    }

    fn create(eal: &Arc<Eal>, name: &str, count: u32, room: u16) -> Result<Self, DpdkError> {
        let c_name = c_string(name)?;
        let cache = PER_CORE_CACHE.min(count / 8);
        let any_socket = -1;
        // SAFETY: a valid name, sizes by value; returns null on failure.
        let raw = unsafe { ffi::rte_pktmbuf_pool_create(c_name.as_ptr(), count, cache, 0, room, any_socket) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            let need = u64::from(count) * (u64::from(room) + 256) / 1_048_576;
            DpdkError::last(format!("creating pool `{name}` of {count} packet buffers"))
                .hint(format!("it needs about {need} MiB: raise `eal.memory` or lower `eal.mbufs`"))
        })?;
        Ok(Self(Arc::new(Pool { raw, size: count, _eal: eal.clone() })))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the pool is live until freed below.
        let out = unsafe { ffi::rte_mempool_in_use_count(self.raw.as_ptr()) };
        if out > 0 {
            // Freeing now would pull the bytes from under their owners; the EAL's end frees the memory.
            log::warn!("packet pool kept: {out} buffers are still in use");
            return;
        }
        // SAFETY: the last reference is gone and every buffer is back.
        unsafe { ffi::rte_mempool_free(self.raw.as_ptr()) };
    }
}
