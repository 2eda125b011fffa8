//! Memory that readers search while the writer fills other parts of it.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// A fixed number of slots. Shared by all generations of a tree; a slot is written before the first generation that
/// refers to it is published, and again only after the last such generation is gone.
pub(super) struct Slots<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: slots are written by `Slots::write` alone, whose contract keeps writes away from concurrent reads.
unsafe impl<T: Send + Sync> Sync for Slots<T> {}

impl<T: Copy> Slots<T> {
    /// All slots hold `blank`.
    pub(super) fn new(count: usize, blank: T) -> Arc<Self> {
        Arc::new(Self { slots: (0..count).map(|_| UnsafeCell::new(MaybeUninit::new(blank))).collect() })
    }

    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *const T {
        self.slots.as_ptr().cast()
    }

    /// # Safety
    /// `at` is below [`Slots::count`], and nobody writes the slot meanwhile.
    #[inline(always)]
    pub(super) unsafe fn read(&self, at: usize) -> T {
        debug_assert!(at < self.count());
        // SAFETY: in bounds by the caller's word; every slot is initialised by `new`.
        unsafe { *self.as_ptr().add(at) }
    }

    /// # Safety
    /// `at` is below [`Slots::count`]; the caller is the only writer, and no reader looks at the slot before it is
    /// told of it in a way that orders this write first.
    pub(super) unsafe fn write(&self, at: usize, value: T) {
        debug_assert!(at < self.count());
        // SAFETY: in bounds, and nobody else looks, by the caller's word.
        unsafe { (*self.slots[at].get()).write(value) };
    }

    /// Copies `count` slots.
    ///
    /// # Safety
    /// Both runs are below [`Slots::count`] and do not overlap; the second as for [`Slots::write`].
    pub(super) unsafe fn copy(&self, from: usize, to: usize, count: usize) {
        debug_assert!(from.max(to) + count <= self.count() && from.abs_diff(to) >= count);
        let to = self.slots[to..to + count].as_ptr().cast::<T>().cast_mut();
        // SAFETY: in bounds, apart, and nobody looks at the second run, by the caller's word. Slots are cells.
        unsafe { std::ptr::copy_nonoverlapping(self.as_ptr().add(from), to, count) };
    }
}

impl<T> std::fmt::Debug for Slots<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("count", &self.slots.len()).finish()
    }
}
