//! All interleavings of a publisher and its readers, with all values that the memory model allows an atomic to give,
//! on models small enough to go through. The code is the real one, its atomics are the model checker's.
//!
//! Each test ends with every replaced value freed: nothing is held up. What a freed value had in it is overwritten,
//! which the checker refuses unless all looks at it come before.

mod sync {
    pub(super) use loom::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
}
#[path = "../src/rules/publish.rs"]
mod publish;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::cell::UnsafeCell;
use loom::thread::{self, ThreadId};
use publish::{Generational, Publisher, Reader};

struct Value {
    generation: u32,
    content: UnsafeCell<u32>,
    alive: Arc<AtomicUsize>,
    control: ThreadId,
}

// SAFETY: the model checker sees every use of `content` and fails where two could clash.
unsafe impl Sync for Value {}

impl Generational for Value {
    fn generation(&self) -> u32 {
        self.read();
        self.generation
    }
}

impl Value {
    fn read(&self) {
        // SAFETY: checked by the model checker.
        let content = self.content.with(|content| unsafe { *content });
        assert_eq!(content, self.generation ^ 0xfeed, "freed while in use");
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: checked by the model checker.
        self.content.with_mut(|content| unsafe { *content = 0 });
        assert_eq!(thread::current().id(), self.control, "freed by a worker");
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Default)]
struct Factory {
    alive: Arc<AtomicUsize>,
}

impl Factory {
    fn make(&self, generation: u32) -> Value {
        self.alive.fetch_add(1, Ordering::SeqCst);
        let content = UnsafeCell::new(generation ^ 0xfeed);
        Value { generation, content, alive: self.alive.clone(), control: thread::current().id() }
    }

    fn publisher(&self) -> Publisher<Value> {
        Publisher::new(self.make(1)).expect("an ordinary number")
    }

    fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }
}

/// Refreshes so many times, looking at the value before and after.
fn follow(mut reader: Reader<Value>, times: usize) -> Reader<Value> {
    for _ in 0..times {
        let before = reader.generation();
        reader.get().read();
        let changed = reader.refresh();
        reader.get().read();
        assert_eq!(reader.get().generation, reader.generation());
        assert!(if changed { reader.generation() > before } else { reader.generation() == before }, "back in time");
    }
    reader
}

fn check(model: impl Fn(&Factory) + Sync + Send + 'static) {
    loom::model(move || model(&Factory::default()));
}

fn publish(factory: &Factory, publisher: &mut Publisher<Value>, generations: std::ops::RangeInclusive<u32>) {
    for generation in generations {
        publisher.publish(factory.make(generation)).expect("ascending");
        publisher.reclaim();
    }
}

#[test]
fn one_reader_follows() {
    check(|factory| {
        let mut publisher = factory.publisher();
        let reader = publisher.reader();
        let worker = thread::spawn(|| follow(reader, 3));
        publish(factory, &mut publisher, 2..=4);
        let mut reader = worker.join().expect("no panic");
        reader.refresh();
        assert_eq!(reader.generation(), 4);
        publisher.reclaim();
        assert_eq!((publisher.generations(), publisher.retired(), factory.alive()), (vec![4], 0, 1));
    });
}

#[test]
fn two_readers_follow() {
    check(|factory| {
        let mut publisher = factory.publisher();
        let (first, second) = (publisher.reader(), publisher.reader());
        let workers = [thread::spawn(|| follow(first, 1)), thread::spawn(|| follow(second, 1))];
        publish(factory, &mut publisher, 2..=3);
        for mut reader in workers.map(|worker| worker.join().expect("no panic")) {
            reader.refresh();
            publisher.reclaim();
            assert_eq!(reader.generation(), 3);
            reader.get().read();
        }
        assert_eq!((publisher.current().generation(), factory.alive()), (3, 1));
    });
}

#[test]
fn a_stopped_reader_holds_nothing_up() {
    check(|factory| {
        let mut publisher = factory.publisher();
        let reader = publisher.reader();
        let worker = thread::spawn(|| drop(follow(reader, 1)));
        publish(factory, &mut publisher, 2..=3);
        worker.join().expect("no panic");
        publisher.reclaim();
        assert_eq!((publisher.generations(), publisher.retired(), factory.alive()), (vec![u32::MAX], 0, 1));
    });
}

#[test]
fn a_reader_may_join_later() {
    check(|factory| {
        let mut publisher = factory.publisher();
        let first = publisher.reader();
        let first = thread::spawn(|| follow(first, 1));
        publish(factory, &mut publisher, 2..=2);
        let late = publisher.reader();
        let late = thread::spawn(|| follow(late, 1));
        publish(factory, &mut publisher, 3..=3);
        for worker in [first, late] {
            drop(worker.join().expect("no panic"));
        }
        publisher.reclaim();
        assert_eq!((publisher.retired(), factory.alive()), (0, 1));
    });
}

#[test]
fn a_publisher_that_goes_first_leaves_what_is_in_use() {
    check(|factory| {
        let mut publisher = factory.publisher();
        let reader = publisher.reader();
        let worker = thread::spawn(|| follow(reader, 2));
        publish(factory, &mut publisher, 2..=2);
        drop(publisher);
        worker.join().expect("no panic").get().read();
        assert!(factory.alive() >= 1);
    });
}
