//! Handing a new generation to the workers without their waiting, and freeing the old one without their
//! noticing.
//!
//! ```text
//! control: publish(n+1) ── swap pointer ── n goes to the retired list ──── reclaim() frees n
//!                               │                                             ▲
//! worker:  … refresh() … ───────┴─ adopts n+1, lets go of n, then reports n+1 ┘
//! ```
//! The control thread keeps a reference to every replaced generation until all workers have reported a later
//! one. A worker's reference is therefore never the last, and a worker never frees.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;

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

/// The control thread's end.
///
/// Drop it after the workers' [`Reader`]s: it holds the references that keep workers from freeing.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    current: Arc<T>,
    /// Replaced values with the number of the generation that replaced them.
    retired: Vec<(u32, Arc<T>)>,
    reports: Vec<Arc<CachePadded<AtomicU32>>>,
}

struct Shared<T> {
    newest: CachePadded<AtomicU32>,
    value: ArcSwap<T>,
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
        let shared =
            Shared { newest: CachePadded::new(AtomicU32::new(generation)), value: ArcSwap::new(current.clone()) };
        Ok(Self { shared: Arc::new(shared), current, retired: Vec::new(), reports: Vec::new() })
    }

    /// A reader for one more worker, at the generation in force.
    pub fn reader(&mut self) -> Reader<T> {
        let report = Arc::new(CachePadded::new(AtomicU32::new(self.current.generation())));
        self.reports.push(report.clone());
        Reader {
            generation: self.current.generation(),
            cached: self.current.clone(),
            shared: self.shared.clone(),
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
        self.shared.value.store(next.clone());
        self.shared.newest.store(offered, Ordering::Release);
        self.retired.push((offered, std::mem::replace(&mut self.current, next)));
        Ok(())
    }

    /// Frees the replaced values that no worker can hold any more; returns how many. Call it now and then.
    pub fn reclaim(&mut self) -> usize {
        // Acquire pairs with the Release in `Reader::refresh` and `Report::drop`: the worker's reference is
        // gone before its report is seen.
        let oldest = self.reports.iter().map(|report| report.load(Ordering::Acquire)).min().unwrap_or(STOPPED);
        let before = self.retired.len();
        self.retired.retain(|(replaced_by, _)| *replaced_by > oldest);
        before - self.retired.len()
    }

    /// The value in force.
    pub fn current(&self) -> &Arc<T> {
        &self.current
    }

    /// What each worker reported, in order of [`Publisher::reader`] calls; `u32::MAX` for a stopped one.
    pub fn generations(&self) -> Vec<u32> {
        self.reports.iter().map(|report| report.load(Ordering::Acquire)).collect()
    }

    /// Replaced values not freed yet.
    pub fn retired(&self) -> usize {
        self.retired.len()
    }
}

impl<T> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let newest = self.shared.newest.load(Ordering::Relaxed);
        f.debug_struct("Publisher").field("generation", &newest).field("retired", &self.retired.len()).finish()
    }
}

/// A worker's end: a cached reference and the report of which generation it is.
///
/// Dropping it counts as having adopted everything, so that a stopped worker holds nothing up.
pub struct Reader<T> {
    generation: u32,
    // Fields drop in this order: the reference must be gone before the report says so.
    cached: Arc<T>,
    shared: Arc<Shared<T>>,
    report: Report,
}

impl<T: Generational> Reader<T> {
    /// The quiescent point, once per loop iteration: adopts the newest generation if there is a new one and
    /// reports it. No reference from [`Reader::get`] can be alive here. Returns true when the generation
    /// changed. Costs one load when there is nothing new.
    pub fn refresh(&mut self) -> bool {
        if self.shared.newest.load(Ordering::Acquire) == self.generation {
            return false;
        }
        self.cached = self.shared.value.load_full();
        self.generation = self.cached.generation();
        self.report.0.store(self.generation, Ordering::Release);
        true
    }

    /// The value adopted last.
    pub fn get(&self) -> &T {
        &self.cached
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::thread::{self, ThreadId};

    /// Knows how many of its kind are alive and who dropped them.
    struct Payload {
        generation: u32,
        check: u64,
        alive: Arc<AtomicUsize>,
        control: ThreadId,
        foreign: Arc<AtomicUsize>,
    }

    impl Generational for Payload {
        fn generation(&self) -> u32 {
            self.generation
        }
    }

    impl Drop for Payload {
        fn drop(&mut self) {
            self.check = 0;
            self.alive.fetch_sub(1, Ordering::SeqCst);
            if thread::current().id() != self.control {
                self.foreign.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    #[derive(Default)]
    struct Factory {
        alive: Arc<AtomicUsize>,
        foreign: Arc<AtomicUsize>,
    }

    impl Factory {
        fn make(&self, generation: u32) -> Payload {
            self.alive.fetch_add(1, Ordering::SeqCst);
            Payload {
                generation,
                check: u64::from(generation) ^ 0xfeed,
                alive: self.alive.clone(),
                control: thread::current().id(),
                foreign: self.foreign.clone(),
            }
        }

        fn alive(&self) -> usize {
            self.alive.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn a_value_lives_until_every_worker_moved_on() {
        let factory = Factory::default();
        let mut publisher = Publisher::new(factory.make(1)).expect("first");
        let (mut a, mut b) = (publisher.reader(), publisher.reader());
        publisher.publish(factory.make(2)).expect("ascending");
        assert_eq!((a.get().generation, publisher.generations()), (1, vec![1, 1]));
        assert!(a.refresh() && !a.refresh());
        assert_eq!((a.generation(), publisher.generations()), (2, vec![2, 1]));
        assert_eq!((publisher.reclaim(), factory.alive()), (0, 2));
        assert!(b.refresh());
        assert_eq!((publisher.reclaim(), factory.alive()), (1, 1));
    }

    #[test]
    fn a_stopped_worker_holds_nothing_up() {
        let factory = Factory::default();
        let mut publisher = Publisher::new(factory.make(1)).expect("first");
        let reader = publisher.reader();
        publisher.publish(factory.make(2)).expect("ascending");
        assert_eq!(publisher.reclaim(), 0);
        drop(reader);
        assert_eq!((publisher.generations(), publisher.reclaim(), factory.alive()), (vec![u32::MAX], 1, 1));
    }

    #[test]
    fn a_worker_may_skip_generations() {
        let factory = Factory::default();
        let mut publisher = Publisher::new(factory.make(1)).expect("first");
        let mut reader = publisher.reader();
        for generation in 2..=5 {
            publisher.publish(factory.make(generation)).expect("ascending");
        }
        assert_eq!((publisher.reclaim(), factory.alive()), (0, 5));
        reader.refresh();
        assert_eq!((reader.generation(), publisher.reclaim(), factory.alive()), (5, 4, 1));
    }

    #[test]
    fn numbers_must_ascend() {
        let factory = Factory::default();
        let mut publisher = Publisher::new(factory.make(7)).expect("first");
        assert_eq!(publisher.publish(factory.make(7)), Err(StaleGeneration { current: 7, offered: 7 }));
        assert!(publisher.publish(factory.make(u32::MAX)).is_err());
        assert!(Publisher::new(factory.make(u32::MAX)).is_err());
        assert_eq!((publisher.current().generation, publisher.retired()), (7, 0));
    }

    #[test]
    fn churn_never_frees_what_is_in_use() {
        const LAST: u32 = 3000;
        let factory = Factory::default();
        let mut publisher = Publisher::new(factory.make(1)).expect("first");
        let stop = AtomicBool::new(false);
        let readers: Vec<_> = (0..3).map(|_| publisher.reader()).collect();
        thread::scope(|scope| {
            for reader in readers {
                scope.spawn(|| follow(reader, &stop));
            }
            for generation in 2..=LAST {
                publisher.publish(factory.make(generation)).expect("ascending");
                publisher.reclaim();
                if generation % 16 == 0 {
                    thread::yield_now();
                }
            }
            stop.store(true, Ordering::SeqCst);
        });
        publisher.reclaim();
        assert_eq!((factory.alive(), publisher.retired()), (1, 0), "all replaced values are freed");
        assert_eq!(factory.foreign.load(Ordering::SeqCst), 0, "a worker never frees");
        assert_eq!(publisher.generations(), [u32::MAX; 3]);
    }

    fn follow(mut reader: Reader<Payload>, stop: &AtomicBool) {
        let mut seen = reader.generation();
        while !stop.load(Ordering::SeqCst) {
            reader.refresh();
            for _ in 0..8 {
                let value = reader.get();
                assert_eq!(value.check, u64::from(value.generation) ^ 0xfeed, "freed while in use");
                assert!(value.generation >= seen, "went back in time");
                seen = value.generation;
            }
        }
    }
}
