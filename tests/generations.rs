//! Generations handed from a control thread to workers that use them at the same time.
//!
//! `STRESS_SECONDS` says how long; under a sanitiser see CONTRIBUTING.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use gnomon::rules::{Generational, Publisher, Reader, StaleGeneration};
use gnomon::trie::{BATCH, Batch, Change, Editor, Engine, Isa, Key, Kind, NO_ROW, Ranges, Row, Service, Side, mask};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

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

/// One generation, and what it must say of each packet.
struct Snapshot {
    generation: u32,
    engine: Engine,
    expected: Vec<Expected>,
}

impl Generational for Snapshot {
    fn generation(&self) -> u32 {
        self.generation
    }
}

/// Rank and meaning of the first row, if any.
type Expected = Option<(u32, u32)>;

/// The rows of the newest generation and the packets that are looked up.
struct World {
    random: Pcg32,
    rows: Vec<(u32, Row)>,
    /// By rank; a rank that is used again means something else.
    meanings: Vec<u32>,
    keys: Vec<Key>,
    expected: Vec<Expected>,
}

const RANKS: u32 = 4000;

impl World {
    fn new(seed: u64, rows: u32, batches: usize) -> Self {
        let mut world = Self {
            random: Pcg32::seed_from_u64(seed),
            rows: Vec::new(),
            meanings: (0..RANKS).collect(),
            keys: Vec::new(),
            expected: Vec::new(),
        };
        world.rows = (0..rows).map(|number| (number * (RANKS / rows), world.row())).collect();
        world.keys = (0..batches * BATCH).map(|_| world.key()).collect();
        world.expected = world.keys.iter().map(|key| world.first(key)).collect();
        world
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random.next_u32() % bound
    }

    fn address(&mut self) -> u32 {
        let net = [0x0a00_0000, 0x0a01_0000, 0xc0a8_0000, 0xac10_0000][self.below(4) as usize];
        net | self.below(1 << 9)
    }

    fn side(&mut self) -> Side {
        let len = [0, 8, 16, 24, 24, 28, 30, 32, 32, 32][self.below(10) as usize];
        Side::new(Kind::Address, self.address(), len)
    }

    fn row(&mut self) -> Row {
        let port = self.below(30) as u16 * 100;
        let dst_ports = if self.below(2) == 0 { vec![] } else { vec![port..=port + 150] };
        let service = Service {
            protocol: [6, 17][self.below(2) as usize],
            protocol_mask: 0xff,
            src_ports: Ranges::default(),
            dst_ports: Ranges::new(dst_ports).expect("no range is empty"),
        };
        Row { src: self.side(), dst: self.side(), service, vlan: None, vni: None, passive: false }
    }

    /// Half of the packets lie in some row, as far as addresses go.
    fn key(&mut self) -> Key {
        let (mut src, mut dst) = (self.address(), self.address());
        if self.below(2) == 0 {
            let noise = self.random.next_u32();
            let (_, row) = &self.rows[self.random.next_u32() as usize % self.rows.len()];
            let within = |side: &Side| side.value | noise & !mask(side.len);
            (src, dst) = (within(&row.src), within(&row.dst));
        }
        let mut key = Key { protocol: [6, 17][self.below(2) as usize], ..Key::default() };
        (key.src[0], key.dst[0], key.dst_port) = (src, dst, self.below(3200) as u16);
        key
    }

    fn first(&self, key: &Key) -> Expected {
        let rank = self.rows.iter().filter(|(_, row)| row.holds(key)).map(|(rank, _)| *rank).min()?;
        Some((rank, self.meanings[rank as usize]))
    }

    fn expect(&mut self, changed: &[Row]) {
        for at in 0..self.keys.len() {
            if changed.iter().any(|row| row.holds(&self.keys[at])) {
                self.expected[at] = self.first(&self.keys[at]);
            }
        }
    }

    fn editor(&mut self) -> Editor {
        self.rows.sort_by_key(|(rank, _)| *rank);
        let (ranks, rows): (Vec<u32>, Vec<Row>) = self.rows.iter().cloned().unzip();
        Editor::new(&rows, &ranks, &self.meanings).expect("builds")
    }

    fn snapshot(&self, generation: u32, engine: &Engine) -> Snapshot {
        Snapshot { generation, engine: engine.clone(), expected: self.expected.clone() }
    }

    /// Takes rows away and adds others, up to four.
    fn change(&mut self, editor: &mut Editor) {
        let before = (self.rows.clone(), self.meanings.clone());
        let mut changes = Vec::new();
        for _ in 0..1 + self.below(4) {
            let rank = self.below(RANKS);
            match self.rows.iter().position(|(other, _)| *other == rank) {
                Some(at) => changes.push((false, self.rows.swap_remove(at))),
                None if editor.is_free(rank) && !changes.iter().any(|(_, (other, _))| *other == rank) => {
                    self.meanings[rank as usize] = self.random.next_u32();
                    let row = self.row();
                    self.rows.push((rank, row));
                    changes.push((true, self.rows[self.rows.len() - 1].clone()));
                }
                None => {}
            }
        }
        let mut steps: Vec<Change<'_>> = changes
            .iter()
            .map(|(insert, (rank, row))| match insert {
                true => Change::Insert { row, rank: *rank, meaning: self.meanings[*rank as usize] },
                false => Change::Remove { row, rank: *rank },
            })
            .collect();
        // Now and then one that cannot be made, so that all is undone.
        let missing = Row { dst: Side::new(Kind::Address, 0x0101_0101, 32), ..self.rows[0].1.clone() };
        let fails = self.below(8) == 0;
        if fails {
            steps.push(Change::Remove { row: &missing, rank: 0 });
        }
        match editor.commit(&steps) {
            Ok(_) => self.expect(&changes.into_iter().map(|(_, (_, row))| row).collect::<Vec<_>>()),
            Err(_) if fails => (self.rows, self.meanings) = before,
            Err(_) => {
                *editor = self.editor();
                self.expect(&changes.into_iter().map(|(_, (_, row))| row).collect::<Vec<_>>());
            }
        }
    }
}

fn verify(engine: &Engine, batches: &[Batch], expected: &[Expected]) {
    for (batch, expected) in batches.iter().zip(expected.chunks(BATCH)) {
        let found = engine.search(batch);
        for (rank, expected) in found.ranks.iter().zip(expected) {
            let found = (*rank != NO_ROW).then(|| (*rank, engine.meaning(*rank)));
            assert_eq!(found, *expected);
        }
    }
}

/// Looks up without pause; keeps some generations longer than the publisher does. Returns how many it saw.
fn look_up(mut reader: Reader<Snapshot>, batches: &[Batch], portable: bool, stop: &AtomicBool) -> usize {
    let mut kept = Vec::new();
    let mut seen = 0;
    while !stop.load(Ordering::Relaxed) {
        if reader.refresh() {
            seen += 1;
        }
        let Snapshot { engine, expected, .. } = reader.get();
        // Plain instructions are what a sanitiser understands.
        let engine = if portable { engine.with_isa(Isa::Portable) } else { engine.clone() };
        verify(&engine, batches, expected);
        if seen % 16 == 0 && kept.len() < 3 {
            kept.push((engine, expected.clone()));
        } else if seen % 16 == 8 {
            kept.drain(..).for_each(|(engine, expected)| verify(&engine, batches, &expected));
        }
    }
    seen
}

#[test]
fn lookups_are_those_of_the_generation_held_while_commits_go_on() {
    let seconds = std::env::var("STRESS_SECONDS").map_or(2, |text| text.parse().expect("a number"));
    let mut world = World::new(3, 1000, 8);
    let mut batches = vec![Batch::default(); world.keys.len() / BATCH];
    world.keys.iter().enumerate().for_each(|(at, key)| batches[at / BATCH].push(key));
    let mut editor = world.editor();
    let mut publisher = Publisher::new(world.snapshot(1, editor.engine())).expect("an ordinary number");
    let readers = [publisher.reader(), publisher.reader(), publisher.reader()];
    let stop = AtomicBool::new(false);
    let start = editor.engine().memory_bytes();
    thread::scope(|scope| {
        let (batches, stop) = (&batches, &stop);
        let workers = readers.into_iter().enumerate();
        let workers = workers.map(|(at, reader)| scope.spawn(move || look_up(reader, batches, at < 2, stop)));
        let workers: Vec<_> = workers.collect();
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut generation = 1;
        while Instant::now() < end && !workers.iter().any(|worker| worker.is_finished()) {
            generation += 1;
            world.change(&mut editor);
            publisher.publish(world.snapshot(generation, editor.engine())).expect("ascending");
            publisher.reclaim();
        }
        stop.store(true, Ordering::Relaxed);
        let seen = workers.into_iter().map(|worker| worker.join().expect("every lookup is right"));
        let seen: Vec<usize> = seen.collect();
        assert!(seen.iter().all(|seen| *seen > 1), "of {generation} generations each worker sees some: {seen:?}");
    });
    publisher.reclaim();
    assert_eq!(publisher.retired(), 0);
    let expected: Vec<Expected> = world.keys.iter().map(|key| world.first(key)).collect();
    assert_eq!(world.expected, expected);
    verify(&publisher.current().engine, &batches, &expected);
    assert!(editor.engine().memory_bytes() < start * 4, "slots are used again");
}
