//! One packet buffer, move-only, and a burst of them.

use std::ptr::NonNull;

use super::ffi;
use super::mempool::Mempool;

/// Packets handled together.
pub const BURST: usize = 32;

/// A packet. Owned by exactly one holder; dropping it gives the buffer back to its pool.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<ffi::rte_mbuf>);

// SAFETY: an mbuf has no ties to a thread; reference counts and pools are atomic.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// A new packet with these bytes, the first `hidden` of which stay in front of the packet (see
    /// [`Mbuf::hidden_front`]). `None` when the pool is empty or the bytes do not fit one segment.
    pub fn with_bytes(pool: &Mempool, bytes: &[u8], hidden: u16) -> Option<Self> {
        Self::written(pool, bytes.len(), hidden, |room| room.copy_from_slice(bytes))
    }

    /// As [`with_bytes`](Self::with_bytes), of so many bytes that `write` puts in place; what it leaves is unspecified.
    #[inline]
    pub fn written(pool: &Mempool, len: usize, hidden: u16, write: impl FnOnce(&mut [u8])) -> Option<Self> {
        // SAFETY: a live pool; null when empty.
        Self(NonNull::new(unsafe { ffi::gn_alloc(pool.raw()) })?).filled(len, hidden, write)
    }

    /// Appends bytes to a packet of our own that has room for them, and hides the first of them.
    #[inline]
    pub(super) fn filled(self, len: usize, hidden: u16, write: impl FnOnce(&mut [u8])) -> Option<Self> {
        // SAFETY: we own the mbuf; append returns `len` writable bytes or null.
        let room = NonNull::new(unsafe { ffi::gn_append(self.raw(), u16::try_from(len).ok()?) })?;
        // SAFETY: `room` has `len` bytes of pool memory, which DPDK initialised, and nobody else has this buffer.
        write(unsafe { std::slice::from_raw_parts_mut(room.as_ptr(), len) });
        // SAFETY: we own the mbuf; its single segment holds the bytes just written.
        let stripped = hidden == 0 || unsafe { ffi::gn_strip_front(self.raw(), hidden) };
        stripped.then_some(self)
    }

    /// A reference-counted copy: header from `pool`, bytes shared. `None` when the pool is empty.
    pub fn mirror_clone(&self, pool: &Mempool) -> Option<Self> {
        // SAFETY: a live mbuf and a live pool; the shared bytes are never written while shared.
        NonNull::new(unsafe { ffi::gn_clone(self.raw(), pool.raw()) }).map(Self)
    }

    /// Puts `head` before `rest`, whose bytes stay where they are. Gives `rest` back when that makes too many segments.
    pub fn chained(head: Self, rest: Self) -> Result<Self, Self> {
        // SAFETY: two live mbufs that we own; on success `head` owns `rest`.
        if unsafe { ffi::gn_chain(head.raw(), rest.raw()) } {
            std::mem::forget(rest);
            Ok(head)
        } else {
            Err(rest)
        }
    }

    /// Cuts the packet to its first `len` bytes. Of a clone, the original keeps all of its bytes.
    pub fn cut(&mut self, len: u32) {
        // SAFETY: we own the mbuf, and so the lengths and links of its segments.
        unsafe { ffi::gn_cut(self.raw(), len.max(1)) };
    }

    /// The packet without its first `len` bytes. Of a clone, the original keeps all of its bytes.
    #[must_use]
    pub fn skip(self, len: u32) -> Self {
        // SAFETY: we own the mbuf and its segments; those that are cut off whole are freed, and what is left is ours.
        let rest = unsafe { ffi::gn_skip(self.raw(), len) };
        std::mem::forget(self);
        // SAFETY: the shim returns one of the segments, never null.
        Self(unsafe { NonNull::new_unchecked(rest) })
    }

    /// Cuts `N` bytes off the front and returns them; `None` (and no change) if the first segment is
    /// shorter. They stay readable through [`Mbuf::hidden_front`], also in clones.
    pub fn take_front<const N: usize>(&mut self) -> Option<[u8; N]> {
        // SAFETY: we own the mbuf; the shim checks the length.
        if !unsafe { ffi::gn_strip_front(self.raw(), u16::try_from(N).ok()?) } {
            return None;
        }
        self.hidden_front()
    }

    /// The `N` bytes in front of the packet, if the buffer has that much room there.
    pub fn hidden_front<const N: usize>(&self) -> Option<[u8; N]> {
        // SAFETY: reads the headroom bounds of a live mbuf.
        let front = unsafe { ffi::gn_before(self.raw(), u16::try_from(N).ok()?) };
        if front.is_null() {
            return None;
        }
        // SAFETY: the shim made sure that N bytes of this buffer lie before the data.
        Some(unsafe { front.cast::<[u8; N]>().read_unaligned() })
    }

    /// Length of the packet over all segments.
    pub fn len(&self) -> usize {
        // SAFETY: reads a field of a live mbuf.
        unsafe { ffi::gn_pkt_len(self.raw()) as usize }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies as many bytes of all segments as `to` has room for; returns how many.
    pub fn copy_into(&self, to: &mut [u8]) -> usize {
        let len = u32::try_from(to.len()).unwrap_or(u32::MAX);
        // SAFETY: `to` has `len` initialised bytes; the shim copies at most that many.
        unsafe { ffi::gn_copy_out(self.raw(), to.as_mut_ptr(), len) as usize }
    }

    /// Replaces `to` by the bytes of all segments.
    pub fn copy_to(&self, to: &mut Vec<u8>) {
        to.clear();
        to.resize(self.len(), 0);
        let copied = self.copy_into(to);
        to.truncate(copied);
    }

    #[inline]
    pub(super) fn raw(&self) -> *mut ffi::rte_mbuf {
        self.0.as_ptr()
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: we own the mbuf and it is not used afterwards.
        unsafe { ffi::gn_free(self.raw()) };
    }
}

/// Up to [`BURST`] packets and where their first segments lie. Owned and reused by the caller.
#[derive(Debug)]
pub struct Burst {
    slots: [Option<Mbuf>; BURST],
    frames: [ffi::gn_frame; BURST],
    len: usize,
}

// SAFETY: `frames` points into the buffers that `slots` owns, and moves with them.
unsafe impl Send for Burst {}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Burst {
    pub fn new() -> Self {
        Self { slots: [const { None }; BURST], frames: [ffi::gn_frame::default(); BURST], len: 0 }
    }

    /// Packets received by the last fill, including slots taken since.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the first segment of packet `i`; empty if it was taken.
    pub fn frame(&self, i: usize) -> &[u8] {
        if self.slots[i].is_none() {
            return &[];
        }
        let frame = &self.frames[i];
        // SAFETY: the slot still owns the mbuf, so `data..data+len` is its first segment, valid for the
        // borrow of `self`; nobody writes to packet bytes while the burst holds them.
        unsafe { std::slice::from_raw_parts(frame.data, frame.len as usize) }
    }

    /// Length of packet `i` over all segments.
    pub fn packet_len(&self, i: usize) -> u32 {
        self.frames[i].pkt_len
    }

    pub fn packet(&self, i: usize) -> Option<&Mbuf> {
        self.slots[i].as_ref()
    }

    /// Moves packet `i` out.
    pub fn take(&mut self, i: usize) -> Option<Mbuf> {
        self.slots[i].take()
    }

    /// Cuts `N` bytes off the front of packet `i` and returns them.
    pub fn take_front<const N: usize>(&mut self, i: usize) -> Option<[u8; N]> {
        let front = self.slots[i].as_mut()?.take_front::<N>()?;
        self.describe(i);
        Some(front)
    }

    /// Frees what is left.
    pub fn clear(&mut self) {
        for slot in &mut self.slots[..self.len] {
            *slot = None;
        }
        self.len = 0;
    }

    /// Gives `fill` room for [`BURST`] mbuf pointers and frame descriptions; it returns how many of
    /// both it wrote.
    pub(super) fn fill(&mut self, fill: impl FnOnce(*mut *mut ffi::rte_mbuf, *mut ffi::gn_frame) -> u16) -> usize {
        self.clear();
        // Option<Mbuf> is a nullable pointer: repr(transparent) over NonNull.
        self.len = usize::from(fill(self.slots.as_mut_ptr().cast(), self.frames.as_mut_ptr())).min(BURST);
        self.len
    }

    fn describe(&mut self, i: usize) {
        // SAFETY: slot i holds a live mbuf (checked by the caller), and frames[i] is writable.
        unsafe { ffi::gn_describe(self.slots.as_mut_ptr().add(i).cast(), 1, &mut self.frames[i]) };
    }
}

/// Packets on their way out, collected up to a burst.
#[derive(Debug)]
pub struct Outbox {
    slots: [Option<Mbuf>; BURST],
    len: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbox {
    pub fn new() -> Self {
        Self { slots: [const { None }; BURST], len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn is_full(&self) -> bool {
        self.len == BURST
    }

    /// Adds a packet; gives it back when full.
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        if self.is_full() {
            return Err(mbuf);
        }
        self.slots[self.len] = Some(mbuf);
        self.len += 1;
        Ok(())
    }

    /// Moves packet `n` out; its place stays empty until the next [`Outbox::discard`], which must come before any other
    /// use.
    pub fn take(&mut self, n: usize) -> Option<Mbuf> {
        self.slots[..self.len].get_mut(n)?.take()
    }

    /// Frees all packets and returns how many and how many bytes they had.
    pub fn discard(&mut self) -> (u64, u64) {
        let mut bytes = 0;
        for slot in &mut self.slots[..self.len] {
            bytes += slot.take().map_or(0, |mbuf| mbuf.len() as u64);
        }
        let packets = self.len as u64;
        self.len = 0;
        (packets, bytes)
    }

    /// Hands all packets to `send`, which returns how many it took from the front; those are no longer
    /// ours. The others move up and stay.
    pub(super) fn drain(&mut self, send: impl FnOnce(*mut *mut ffi::rte_mbuf, u16) -> usize) -> usize {
        let sent = send(self.slots.as_mut_ptr().cast(), self.len as u16).min(self.len);
        for slot in &mut self.slots[..sent] {
            std::mem::forget(slot.take());
        }
        self.slots[..self.len].rotate_left(sent);
        self.len -= sent;
        sent
    }
}
