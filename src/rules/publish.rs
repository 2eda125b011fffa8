//! Handing a new generation to the workers without their waiting, and freeing the old one without their
//! noticing.
//!
//! ```text
//! control: publish(n+1) ── store pointer ── n goes to the retired list ──── reclaim() frees n
//!                               │                                               ▲
//! worker:  … refresh() … ───────┴─ leaves n for n+1, then reports n+1 ──────────┘
//! ```
//! This is reclamation by quiescent states. It is correct because a worker's report is a lower bound of all that the
//! worker may look at, now or later:
//! * The pointer only ever moves to higher generations, and a thread that has read one of its values never reads an
//!   earlier one. So what a worker that has reported `n` reads from it is `n` or later, even if it has read the pointer
//!   and not used it yet.
//! * A worker reports `n` only after its last look at what came before. The report is stored with Release and read with
//!   Acquire: those looks come before the freeing.
//! * A value is freed when every report is at least the generation that replaced it.
//!
//! Therefore there are no reference counts to fight over and no hazard between reading the pointer and adopting the
//! value; and as the control thread alone owns values, a worker never frees. `tests/publish_model.rs` goes through all
//! interleavings and all values that the memory model allows.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::sync::{AtomicPtr, AtomicU32, Ordering};

/// What a stopped worker reports.
const STOPPED: u32 = u32::MAX;

/// Something published in numbered generations.
pub trait Generational {
    /// Ascending from one published value to the next, below `u32::MAX`.
    fn generation(&self) -> u32;
}

/// A generation was to be published that is not above the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("generation {offered} cannot follow generation {current}: numbers must ascend and stay below 4294967295")]
pub struct StaleGeneration {
    pub current: u32,
    pub offered: u32,
}

/// The control thread's end. It owns the values.
///
/// Drop it after the workers' [`Reader`]s: what a worker may still look at then is left in memory for good.
pub struct Publisher<T> {
    newest: Arc<CachePadded<AtomicPtr<T>>>,
    /// Shared with nobody. Not a box, for moving a box ends what pointers to its content may do.
    current: Arc<T>,
    /// Replaced values with the number of the generation that replaced them.
    retired: Vec<(u32, Arc<T>)>,
    reports: Vec<Arc<CachePadded<AtomicU32>>>,
}

impl<T: Generational> Publisher<T> {
    /// # Errors
    /// If the generation is `u32::MAX`.
    pub fn new(first: T) -> Result<Self, StaleGeneration> {
        let generation = first.generation();
        if generation == STOPPED {
            return Err(StaleGeneration { current: 0, offered: generation });
        }
        let current = Arc::new(first);
        let newest = AtomicPtr::new(Arc::as_ptr(&current).cast_mut());
        Ok(Self { newest: Arc::new(CachePadded::new(newest)), current, retired: Vec::new(), reports: Vec::new() })
    }

    /// A reader for one more worker, at the generation in force.
    pub fn reader(&mut self) -> Reader<T> {
        let report = Arc::new(CachePadded::new(AtomicU32::new(self.current.generation())));
        self.reports.push(report.clone());
        Reader {
            generation: self.current.generation(),
            value: NonNull::from(&*self.current),
            newest: self.newest.clone(),
            report: Report(report),
        }
    }

    /// Puts `next` in force. Workers adopt it at their next [`Reader::refresh`].
    ///
    /// # Errors
    /// If its number does not ascend; then nothing changes.
    pub fn publish(&mut self, next: T) -> Result<(), StaleGeneration> {
        let (current, offered) = (self.current.generation(), next.generation());
        if offered <= current || offered == STOPPED {
            return Err(StaleGeneration { current, offered });
        }
        let next = Arc::new(next);
        // Release pairs with the Acquire in `Reader::refresh`: the value is complete before it is seen.
        self.newest.store(Arc::as_ptr(&next).cast_mut(), Ordering::Release);
        self.retired.push((offered, std::mem::replace(&mut self.current, next)));
        Ok(())
    }

    /// The value in force.
    pub fn current(&self) -> &T {
        &self.current
    }
}

impl<T> Publisher<T> {
    /// Frees the replaced values that no worker can look at any more; returns how many. Call it now and then.
    pub fn reclaim(&mut self) -> usize {
        let oldest = self.generations().into_iter().min().unwrap_or(STOPPED);
        let before = self.retired.len();
        self.retired.retain(|(replaced_by, _)| *replaced_by > oldest);
        before - self.retired.len()
    }

    /// What each worker reported, in order of [`Publisher::reader`] calls; `u32::MAX` for a stopped one.
    pub fn generations(&self) -> Vec<u32> {
        // Acquire pairs with the Release in `Reader::refresh` and `Report::drop`: the worker's looks at what it left
        // come before what is done in view of its report.
        self.reports.iter().map(|report| report.load(Ordering::Acquire)).collect()
    }

    /// Replaced values not freed yet.
    pub fn retired(&self) -> usize {
        self.retired.len()
    }
}

impl<T> Drop for Publisher<T> {
    fn drop(&mut self) {
        self.reclaim();
        if self.generations().iter().any(|report| *report != STOPPED) {
            std::mem::forget(std::mem::take(&mut self.retired));
            std::mem::forget(self.current.clone());
        }
    }
}

impl<T: Generational> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.current.generation();
        f.debug_struct("Publisher").field("generation", &generation).field("retired", &self.retired.len()).finish()
    }
}

/// A worker's end: the value adopted last and the report of which generation it is.
///
/// Dropping it counts as having adopted everything, so that a stopped worker holds nothing up.
pub struct Reader<T> {
    generation: u32,
    /// Of the generation that `report` has: not freed before a later one is reported.
    value: NonNull<T>,
    newest: Arc<CachePadded<AtomicPtr<T>>>,
    report: Report,
}

// SAFETY: a reader gives out shared references to a value that it does not own.
unsafe impl<T: Sync> Send for Reader<T> {}

impl<T: Generational> Reader<T> {
    /// The quiescent point, once per loop iteration: adopts the newest generation if there is a new one and
    /// reports it. No reference from [`Reader::get`] can be alive here. Returns true when the generation
    /// changed. Costs one load when there is nothing new.
    pub fn refresh(&mut self) -> bool {
        let newest = NonNull::new(self.newest.load(Ordering::Acquire));
        // The value held is not freed yet, so no other has its address.
        let Some(newest) = newest.filter(|newest| *newest != self.value) else { return false };
        self.value = newest;
        self.generation = self.get().generation();
        self.report.0.store(self.generation, Ordering::Release);
        true
    }

    /// The value adopted last.
    pub fn get(&self) -> &T {
        // SAFETY: the publisher frees a value only when all reports, this reader's among them, are above its
        // generation, or all readers are gone. The report is at most the generation of `value`: see the top.
        unsafe { self.value.as_ref() }
    }

    /// Number of the value adopted last.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("generation", &self.generation).finish()
    }
}

/// Says [`STOPPED`] when dropped.
struct Report(Arc<CachePadded<AtomicU32>>);

impl Drop for Report {
    fn drop(&mut self) {
        self.0.store(STOPPED, Ordering::Release);
    }
}
