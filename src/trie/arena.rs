//! Memory that readers search while the writer fills other parts of it.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;

use rustc_hash::FxHashMap;

/// Slots compared at once when they are copied.
const STRETCH: usize = 8;

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
}

impl<T: Copy + PartialEq> Slots<T> {
    /// Copies `count` slots. What is equal already is not written: it stays in the caches of those who read it last.
    ///
    /// # Safety
    /// Both runs are below [`Slots::count`] and do not overlap; the second as for [`Slots::write`].
    pub(super) unsafe fn copy(&self, from: usize, to: usize, count: usize) {
        debug_assert!(from.max(to) + count <= self.count() && from.abs_diff(to) >= count);
        for at in (0..count).step_by(STRETCH) {
            let length = STRETCH.min(count - at);
            let target = self.slots[to + at..to + at + length].as_ptr().cast::<T>().cast_mut();
            // SAFETY: in bounds, apart, and nobody looks at the second run, by the caller's word. Slots are cells.
            unsafe {
                let source = std::slice::from_raw_parts(self.as_ptr().add(from + at), length);
                if std::slice::from_raw_parts(target, length) != source {
                    std::ptr::copy_nonoverlapping(source.as_ptr(), target, length);
                }
            }
        }
    }
}

/// The writer's view of an arena: what is free in it.
#[derive(Debug)]
pub(super) struct Space<T> {
    pub(super) slots: Arc<Slots<T>>,
    pub(super) used: usize,
    /// Starts of free runs, by length. The run freed last is used first: it likely holds what comes next, nearly.
    pub(super) free: FxHashMap<u32, Vec<u32>>,
    blank: T,
}

impl<T: Copy> Space<T> {
    pub(super) fn new(slots: Arc<Slots<T>>, used: usize, blank: T) -> Self {
        Self { slots, used, free: FxHashMap::default(), blank }
    }

    pub(super) fn take(&mut self, length: u32) -> u32 {
        if let Some(start) = self.free.get_mut(&length).and_then(Vec::pop) {
            return start;
        }
        let start = self.used;
        self.used += length as usize;
        if self.used > self.slots.count() {
            // SAFETY: below the count, and the writer alone writes.
            let elements: Vec<T> = (0..start).map(|at| unsafe { self.slots.read(at) }).collect();
            self.slots = super::tree::filled(&elements, 128, self.used - start + 256, self.blank);
        }
        start as u32
    }

    pub(super) fn give(&mut self, start: u32, length: u32) {
        self.free.entry(length).or_default().push(start);
    }

    /// # Safety
    /// The slot was taken, and no generation that refers to it was given to anybody.
    pub(super) unsafe fn write(&self, at: u32, value: T) {
        // SAFETY: what was taken is below the count; the rest by the caller's word.
        unsafe { self.slots.write(at as usize, value) };
    }
}

impl<T> std::fmt::Debug for Slots<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("count", &self.slots.len()).finish()
    }
}
