//! Buffers taken from a pool ahead of need, a burst at a time.

use super::ffi;
use super::mbuf::{BURST, Mbuf};
use super::mempool::Mempool;

/// One owner's fresh buffers of a pool. Holds less than a burst of them back while it is not used.
#[derive(Debug)]
pub struct Stock {
    pool: Mempool,
    fresh: [Option<Mbuf>; BURST],
    len: usize,
}

impl Stock {
    pub fn new(pool: Mempool) -> Self {
        Self { pool, fresh: [const { None }; BURST], len: 0 }
    }

    /// As [`Mbuf::mirror_clone`] from a pool of clones.
    #[inline]
    pub fn clone_of(&mut self, packet: &Mbuf) -> Option<Mbuf> {
        let fresh = self.take()?;
        // SAFETY: two live mbufs; `fresh` is ours, without room and as its pool gave it.
        if unsafe { ffi::gn_attach(fresh.raw(), packet.raw()) } {
            return Some(fresh);
        }
        self.put_back(fresh);
        packet.mirror_clone(&self.pool)
    }

    /// As [`Mbuf::written`].
    #[inline]
    pub fn written(&mut self, len: usize, hidden: u16, write: impl FnOnce(&mut [u8])) -> Option<Mbuf> {
        self.take()?.filled(len, hidden, write)
    }

    #[inline]
    fn take(&mut self) -> Option<Mbuf> {
        if self.len == 0 {
            self.refill();
        }
        self.len = self.len.checked_sub(1)?;
        self.fresh[self.len].take()
    }

    fn put_back(&mut self, fresh: Mbuf) {
        self.fresh[self.len] = Some(fresh);
        self.len += 1;
    }

    #[cold]
    fn refill(&mut self) {
        // SAFETY: a live pool; Option<Mbuf> is a nullable pointer, and all of them are empty.
        let got = unsafe { ffi::gn_alloc_burst(self.pool.raw(), self.fresh.as_mut_ptr().cast(), BURST as u16) };
        self.len = usize::from(got);
    }
}
