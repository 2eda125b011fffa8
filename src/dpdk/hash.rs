//! DPDK's own hash table, `rte_hash`: the peer that the benchmark of the flow table measures against. No packet of the
//! appliance goes through it.
//!
//! Source: DPDK Programmer's Guide, "Hash Library".

use std::ffi::CString;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::eal::Eal;
use super::error::DpdkError;
use super::ffi;
use super::mbuf::BURST;

/// Keys, compared as bytes (so they must have no padding), numbered from 0 by the library. One thread at a time, so it is made without locks; the hash
/// function is the library's choice for the CPU (CRC32 where there is an instruction for it).
pub struct HashTable<K: Copy> {
    raw: NonNull<ffi::rte_hash>,
    memory_bytes: u64,
    _eal: Arc<Eal>,
    _keys: PhantomData<K>,
}

// SAFETY: the table belongs to no thread; whoever has `&mut` is alone with it.
unsafe impl<K: Copy + Send> Send for HashTable<K> {}

impl<K: Copy> HashTable<K> {
    /// Room for `capacity` keys.
    pub fn new(eal: &Arc<Eal>, capacity: u32) -> Result<Self, DpdkError> {
        // A name that is taken would be refused.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let what = || format!("a hash table of {capacity} keys of {} bytes", size_of::<K>());
        let name = CString::new(format!("gnomon_hash_{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let name = name.map_err(|_| DpdkError::last(what()))?;
        let parameters = ffi::rte_hash_parameters {
            name: name.as_ptr(),
            entries: capacity,
            key_len: size_of::<K>() as u32,
            hash_func: None,
            hash_func_init_val: 0,
            socket_id: ffi::SOCKET_ID_ANY,
            ..Default::default()
        };
        // SAFETY: walks the heaps of DPDK under its own locks.
        let before = unsafe { ffi::gn_heap_bytes() };
        // SAFETY: parameters and name are valid and copied; null on failure.
        let raw = NonNull::new(unsafe { ffi::rte_hash_create(&parameters) });
        let raw = raw.ok_or_else(|| DpdkError::last(what()).hint("raise the EAL's memory"))?;
        // SAFETY: as above.
        let memory_bytes = unsafe { ffi::gn_heap_bytes() }.saturating_sub(before);
        Ok(Self { raw, memory_bytes, _eal: eal.clone(), _keys: PhantomData })
    }

    /// The number of a key, which is added if it is new; `None` when there is no room.
    pub fn add(&mut self, key: &K) -> Option<u32> {
        // SAFETY: the table is live and ours; it reads the bytes of the key.
        let code = unsafe { ffi::rte_hash_add_key(self.raw.as_ptr(), std::ptr::from_ref(key).cast()) };
        u32::try_from(code).ok()
    }

    /// The number of each key, negative for those that are not there.
    ///
    /// # Panics
    /// When there are more than [`BURST`] keys.
    #[inline]
    pub fn lookup(&self, keys: &[&K], found: &mut [i32; BURST]) {
        assert!(keys.len() <= BURST, "a burst of keys");
        let (first, count) = (keys.as_ptr().cast_mut().cast(), keys.len() as u32);
        // SAFETY: references have the layout of pointers, each to a key; there is room for BURST results, and the library
        // takes up to 64 keys. Looking up writes nothing to the table.
        unsafe { ffi::rte_hash_lookup_bulk(self.raw.as_ptr(), first, count, found.as_mut_ptr()) };
    }

    /// One more than the greatest number a key can have.
    pub fn numbers(&self) -> usize {
        // SAFETY: the table is live.
        unsafe { ffi::rte_hash_max_key_id(self.raw.as_ptr()) as usize + 1 }
    }

    /// Bytes of DPDK's heap. Exact when nobody else used it meanwhile.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

impl<K: Copy> Drop for HashTable<K> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed only here.
        unsafe { ffi::rte_hash_free(self.raw.as_ptr()) };
    }
}

impl<K: Copy> fmt::Debug for HashTable<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashTable").field("memory_bytes", &self.memory_bytes).finish_non_exhaustive()
    }
}

/// Values beside a hash table, on DPDK's heap and so on the same kind of pages.
pub struct Values<T: Copy> {
    start: NonNull<T>,
    len: usize,
    _eal: Arc<Eal>,
}

impl<T: Copy> Values<T> {
    /// `len` times `value`, on a cache line.
    pub fn filled(eal: &Arc<Eal>, len: usize, value: T) -> Result<Self, DpdkError> {
        const { assert!(align_of::<T>() <= 64) };
        let what = || format!("{len} values of {} bytes", size_of::<T>());
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| DpdkError::last(what()))?;
        // SAFETY: a number by value; null when there is no room.
        let start = NonNull::new(unsafe { ffi::gn_zeroed(bytes) }.cast::<T>());
        let start = start.ok_or_else(|| DpdkError::last(what()).hint("raise the EAL's memory"))?;
        for at in 0..len {
            // SAFETY: inside of the block just taken, aligned to a cache line.
            unsafe { start.add(at).write(value) };
        }
        Ok(Self { start, len, _eal: eal.clone() })
    }

    /// Asks the CPU for the lines of a value, in the way that is best for the flow table too.
    #[inline]
    pub fn prefetch(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        if at < self.len {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            for line in (0..size_of::<T>()).step_by(64) {
                // SAFETY: every x86-64 has SSE; a hint on an address of ours.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(self.start.as_ptr().add(at).cast::<i8>().add(line)) };
            }
        }
    }
}

impl<T: Copy> Deref for Values<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` values written by `filled`, freed only on drop.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Copy> DerefMut for Values<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` makes it the only slice.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Copy> Drop for Values<T> {
    fn drop(&mut self) {
        // SAFETY: taken by `filled`, freed only here.
        unsafe { ffi::gn_release(self.start.as_ptr().cast()) };
    }
}

impl<T: Copy> fmt::Debug for Values<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Eal {
    /// Asks the kernel for transparent huge pages under DPDK's memory, where it was started without reserved ones. Pages
    /// that were touched before stay small.
    pub fn advise_huge_pages(&self) {
        // SAFETY: DPDK is running; advice changes no content.
        unsafe { ffi::gn_advise_huge() };
    }
}
