//! Bounded rings of packets between lcores.

use std::ptr::NonNull;
use std::sync::Arc;

use super::eal::{Eal, c_string};
use super::error::DpdkError;
use super::ffi;
use super::mbuf::{BURST, Burst, Outbox};

/// A ring of packets: any number of producers, one consumer.
#[derive(Clone, Debug)]
pub struct PacketRing(Arc<Ring>);

#[derive(Debug)]
struct Ring {
    raw: NonNull<ffi::rte_ring>,
    _eal: Arc<Eal>,
}

// SAFETY: rte_ring is made for use from several threads; created below for many producers.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl PacketRing {
    /// `capacity` is rounded up to a power of two.
    pub fn new(eal: &Arc<Eal>, name: &str, capacity: u32) -> Result<Self, DpdkError> {
        let c_name = c_string(name)?;
        // SAFETY: a valid name, numbers by value; null on failure. Consumer calls come from whoever
        // holds the receiving side; dequeue is multi-consumer safe by default.
        let raw = unsafe { ffi::rte_ring_create(c_name.as_ptr(), capacity.next_power_of_two(), -1, 0) };
        let raw = NonNull::new(raw).ok_or_else(|| DpdkError::last(format!("creating ring `{name}`")))?;
        Ok(Self(Arc::new(Ring { raw, _eal: eal.clone() })))
    }

    /// Moves as many packets as fit from the front of `outbox`; returns how many.
    pub fn send(&self, outbox: &mut Outbox) -> usize {
        // SAFETY: the ring is live; `drain` passes n valid mbuf pointers and gives up those sent.
        outbox.drain(|mbufs, n| unsafe { ffi::gn_ring_enqueue(self.0.raw.as_ptr(), mbufs, n.into()) } as usize)
    }

    /// Replaces `burst` by up to [`BURST`] waiting packets.
    pub fn receive(&self, burst: &mut Burst) -> usize {
        self.0.receive(burst)
    }
}

impl Ring {
    fn receive(&self, burst: &mut Burst) -> usize {
        burst.fill(|mbufs, frames| {
            // SAFETY: the ring is live; `fill` gives room for BURST pointers and frames.
            unsafe {
                let n = ffi::gn_ring_dequeue(self.raw.as_ptr(), mbufs, BURST as u32) as u16;
                ffi::gn_describe(mbufs, n, frames);
                n
            }
        })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Freeing the ring would leak the packets still in it.
        let mut rest = Burst::new();
        while self.receive(&mut rest) > 0 {}
        // SAFETY: the last reference is gone and the ring is empty.
        unsafe { ffi::rte_ring_free(self.raw.as_ptr()) };
    }
}
