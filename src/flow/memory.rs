//! Zeroed memory of a fixed size: address space is reserved at the start, pages come when they are first touched or
//! when [`Reserved::prefault`] asks for them. Nothing is ever moved, so a table grows without a pause at any size.
//!
//! Huge pages keep a random access to one miss of the translation buffer instead of several: reserved ones
//! (`vm.nr_hugepages`) are taken if the whole area fits into them, else the kernel is asked for transparent ones.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Types that hold plain numbers: all bytes zero is a value, and nothing happens when one is dropped.
///
/// # Safety
/// Both must be true of the type.
pub(super) unsafe trait Plain {}

// SAFETY: plain numbers.
unsafe impl Plain for u32 {}

/// A slice of plain values on pages of its own.
pub(super) struct Reserved<T: Plain> {
    start: NonNull<T>,
    len: usize,
    /// Bytes mapped.
    bytes: usize,
}

// SAFETY: an owned slice of plain values, as a boxed slice is.
unsafe impl<T: Plain + Send> Send for Reserved<T> {}
// SAFETY: shared access gives only shared slices.
unsafe impl<T: Plain + Sync> Sync for Reserved<T> {}

const HUGE_PAGE: usize = 2 << 20;
/// Pages asked for at a time, so that a signal does not wait for all of them.
const PREFAULT_STEP: usize = 64 << 20;

impl<T: Plain> Reserved<T> {
    /// All zero.
    ///
    /// # Panics
    /// When there is not so much address space, as vectors do.
    pub(super) fn zeroed(len: usize) -> Self {
        let wanted = len.checked_mul(size_of::<T>()).expect("fewer bytes than addresses").max(1);
        let bytes = if wanted >= HUGE_PAGE { wanted.next_multiple_of(HUGE_PAGE) } else { wanted };
        let huge = (bytes >= HUGE_PAGE).then(|| map(bytes, libc::MAP_HUGETLB)).flatten();
        let start = huge.or_else(|| map(bytes, libc::MAP_NORESERVE)).unwrap_or_else(|| {
            panic!("no address space for {bytes} bytes of flow table: {}", std::io::Error::last_os_error())
        });
        if huge.is_none() && bytes >= HUGE_PAGE {
            // SAFETY: advice on pages just mapped; a kernel without transparent huge pages refuses, and that is all.
            unsafe { libc::madvise(start.as_ptr(), bytes, libc::MADV_HUGEPAGE) };
        }
        Self { start: start.cast(), len, bytes }
    }

    /// Makes all pages present, on the memory node of the calling thread. Takes some tenths of a second a gigabyte.
    /// Kernels before 5.14 do not know how; pages then come when they are touched.
    pub(super) fn prefault(&self) {
        for from in (0..self.bytes).step_by(PREFAULT_STEP) {
            let len = PREFAULT_STEP.min(self.bytes - from);
            // SAFETY: inside of our mapping; populating changes no content.
            let code =
                unsafe { libc::madvise(self.start.as_ptr().byte_add(from).cast(), len, libc::MADV_POPULATE_WRITE) };
            if code != 0 {
                return;
            }
        }
    }
}

/// Anonymous zero pages on a page boundary.
fn map(bytes: usize, flags: libc::c_int) -> Option<NonNull<libc::c_void>> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags);
    // SAFETY: a new anonymous mapping wherever the kernel likes; it overlaps nothing.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
    if start == libc::MAP_FAILED { None } else { NonNull::new(start) }
}

impl<T: Plain> Deref for Reserved<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values on mapped pages that are all zero or were written through `deref_mut`; page-aligned, and
        // no type of ours needs more than a page.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Reserved<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> Drop for Reserved<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `zeroed` with this length, unmapped only here.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_writable_aligned_and_prefaulted_or_not() {
        for len in [0, 1, 1000, 600_000, 3 << 20] {
            let mut memory = Reserved::<u32>::zeroed(len);
            assert_eq!(memory.len(), len);
            assert_eq!(memory.as_ptr() as usize % 4096, 0);
            if let Some(last) = memory.last_mut() {
                *last = 7;
            }
            memory.prefault();
            assert_eq!(memory.iter().map(|n| u64::from(*n)).sum::<u64>(), if len == 0 { 0 } else { 7 });
        }
    }

    #[test]
    fn far_more_than_the_machine_has_can_be_reserved() {
        let mut memory = Reserved::<u32>::zeroed(1 << 38);
        memory[(1 << 38) - 1] = 1;
        assert_eq!(memory[1 << 30], 0);
    }
}
