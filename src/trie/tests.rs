//! The engine against linear search, on random rows.

use super::*;

/// A small generator: the same rows every time.
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What kinds of rows a test wants.
#[derive(Clone, Copy)]
pub(super) struct Flavour {
    kinds: bool,
    zones: bool,
    passive: bool,
    pub(super) services: u64,
}

pub(super) const PLAIN: Flavour = Flavour { kinds: false, zones: false, passive: false, services: 40 };
pub(super) const ALL: Flavour = Flavour { kinds: true, zones: true, passive: true, services: 40 };
pub(super) const WIDE: Flavour = Flavour { kinds: true, zones: true, passive: true, services: 4000 };

const KINDS: [Kind; Kind::COUNT] = [Kind::Address, Kind::AddressSet, Kind::MacSet, Kind::VlanSet, Kind::VniSet];

fn value(random: &mut Random) -> u32 {
    // Few distinct leading parts, so that rows overlap.
    let net = [0x0a00_0000, 0x0a01_0000, 0xc0a8_0000, 0xac10_0000][random.below(4) as usize];
    net | random.below(1 << 10) as u32
}

fn side(random: &mut Random, flavour: Flavour) -> Side {
    let kind = if flavour.kinds && random.chance(30) { KINDS[random.below(5) as usize] } else { Kind::Address };
    let len = [0, 4, 8, 16, 22, 24, 28, 30, 32, 32, 32][random.below(11) as usize];
    if len == 0 { Side::ANY } else { Side::new(kind, value(random), len) }
}

fn port(random: &mut Random) -> u16 {
    [0, 22, 53, 80, 443, 1023, 1024, 8080, 65535, random.below(65536) as u16][random.below(10) as usize]
}

fn service(number: u64) -> Service {
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut ranges = || {
        let ranges: Vec<_> = (0..random.below(3))
            .map(|_| {
                let first = port(&mut random);
                first..=first.saturating_add([0, 0, 1, 100, 60000][random.below(5) as usize])
            })
            .collect();
        Ranges::new(ranges).expect("no range is empty")
    };
    let (src_ports, dst_ports) = (ranges(), ranges());
    let protocol_mask = [0, 0xff, 0xff, 0x2ff, 0x200][random.below(5) as usize];
    let protocol = [6, 17, 0x206, 1][random.below(4) as usize] & protocol_mask;
    Service { protocol, protocol_mask, src_ports, dst_ports }
}

pub(super) fn row(random: &mut Random, flavour: Flavour) -> Row {
    Row {
        src: side(random, flavour),
        dst: side(random, flavour),
        service: service(random.below(flavour.services)),
        vlan: (flavour.zones && random.chance(10)).then(|| random.below(5) as u16),
        vni: (flavour.zones && random.chance(10)).then(|| random.below(5) as u32),
        passive: flavour.passive && random.chance(10),
    }
}

/// A packet; half of them inside one of the rows as far as addresses go.
fn key(random: &mut Random, rows: &[(u32, Row)]) -> Key {
    let mut key = Key {
        src: std::array::from_fn(|_| value(random)),
        dst: std::array::from_fn(|_| value(random)),
        protocol: [6, 17, 0x206, 0x211, 1, 0xffff][random.below(6) as usize],
        src_port: port(random),
        dst_port: port(random),
        vlan: [u16::MAX, 0, 1, 2][random.below(4) as usize],
        vni: [u32::MAX, 0, 1, 2][random.below(4) as usize],
    };
    if !rows.is_empty() && random.chance(60) {
        let (_, row) = &rows[random.below(rows.len() as u64) as usize];
        let noise = random.next() as u32;
        let within = |side: &Side| side.value | noise & !mask(side.len);
        key.src[row.src.kind as usize] = within(&row.src);
        key.dst[row.dst.kind as usize] = within(&row.dst);
    }
    key
}

/// Rank of the first row that decides, and ranks of passive ones before it.
fn linear(rows: &[(u32, Row)], key: &Key) -> (u32, Vec<u32>) {
    let best = rows.iter().filter(|(_, row)| !row.passive && row.holds(key)).map(|(rank, _)| *rank).min();
    let best = best.unwrap_or(NO_ROW);
    let before = rows.iter().filter(|(rank, row)| row.passive && *rank < best && row.holds(key));
    let mut before: Vec<u32> = before.map(|(rank, _)| *rank).collect();
    before.sort_unstable();
    (best, before)
}

fn check(engine: &Engine, rows: &[(u32, Row)], random: &mut Random, batches: usize) {
    for _ in 0..batches {
        let mut batch = Batch::default();
        for _ in 0..1 + random.below(BATCH as u64) {
            batch.push(&key(random, rows));
        }
        let tree = engine.clone().tree_only();
        let mut by_kernel: Vec<(String, Found)> =
            Isa::available().into_iter().map(|isa| (format!("{isa:?}"), tree.with_isa(isa).search(&batch))).collect();
        by_kernel.push((format!("small: {}", engine.is_small()), engine.search(&batch)));
        for at in 0..batch.len {
            let key = batch.key(at);
            let (best, before) = linear(rows, &key);
            for (kernel, found) in &by_kernel {
                assert_eq!(found.ranks[at], best, "{kernel}: {key:?}");
                assert!(before.is_empty() || found.passed >> at & 1 == 1, "{kernel}: {key:?} passed {before:?}");
            }
            if best != NO_ROW {
                assert!(engine.meaning(best) == best ^ MEANING);
            }
            let mut passed = Vec::new();
            engine.passive(&key, best, |rank| passed.push(rank));
            passed.sort_unstable();
            assert_eq!(passed, before, "{key:?}");
        }
    }
}

/// Lanes of a block that no row has look like rows of address 0; and where no row decides, none ranks behind.
#[test]
fn places_of_blocks_that_are_not_in_use_are_no_passive_rows() {
    let watched = Row { passive: true, ..Row::default() };
    let engine = Engine::build(std::slice::from_ref(&watched)).expect("builds");
    for engine in [engine.clone(), engine.tree_only()] {
        let mut passed = Vec::new();
        engine.passive(&Key::default(), NO_ROW, |rank| passed.push(rank));
        assert_eq!(passed, [0]);
    }
}

pub(super) fn rows(random: &mut Random, count: usize, flavour: Flavour) -> Vec<(u32, Row)> {
    (0..count as u32).map(|number| (number * 4, row(random, flavour))).collect()
}

pub(super) fn parts(rows: &[(u32, Row)]) -> (Vec<Row>, Vec<u32>) {
    (rows.iter().map(|(_, row)| row.clone()).collect(), rows.iter().map(|(rank, _)| *rank).collect())
}

const MEANING: u32 = 0x5a5a;

fn meanings(ranks: &[u32]) -> Vec<u32> {
    (0..ranks.last().map_or(0, |rank| rank + 1)).map(|rank| rank ^ MEANING).collect()
}

#[test]
fn finds_what_linear_search_finds() {
    let mut random = Random(7);
    for flavour in [PLAIN, ALL, WIDE] {
        for count in [0, 1, 15, 16, 17, 100, 400, 2000] {
            let rows = rows(&mut random, count, flavour);
            let (plain, ranks) = parts(&rows);
            let engine = Engine::with_ranks(&plain, &ranks, &meanings(&ranks), Isa::best()).expect("builds");
            check(&engine, &rows, &mut random, if cfg!(miri) { 1 } else { 30 });
        }
    }
}

/// Inserts and removes at random; also looks into generations that were replaced long ago.
fn edits(seed: u64, flavour: Flavour, start: usize, commits: usize, most: u64) {
    let mut random = Random(seed);
    let mut live = rows(&mut random, start, flavour);
    let (plain, ranks) = parts(&live);
    let mut editor = Editor::new(&plain, &ranks, &meanings(&ranks)).expect("builds");
    let mut kept = vec![(editor.engine().clone(), live.clone())];
    for commit in 0..commits {
        let mut changes = Vec::new();
        for _ in 0..1 + random.below(most) {
            if !live.is_empty() && random.chance(50) {
                let gone = live.remove(random.below(live.len() as u64) as usize);
                changes.push((false, gone));
            } else {
                let rank = random.below(8 * start as u64 + 8) as u32;
                if !editor.is_free(rank) && !live.iter().any(|(other, _)| *other == rank) {
                    continue;
                }
                let new = (rank, row(&mut random, flavour));
                // Rows of one rank are one rule's: they do not differ in zone.
                let zone = live.iter().chain(changes.iter().map(|(_, row)| row)).find(|(r, _)| *r == rank);
                let new = match zone {
                    Some((_, like)) => (rank, Row { vlan: like.vlan, vni: like.vni, passive: like.passive, ..new.1 }),
                    None => new,
                };
                live.push(new.clone());
                changes.push((true, new));
            }
        }
        let changes: Vec<Change<'_>> = changes
            .iter()
            .map(|(insert, (rank, row))| match insert {
                true => Change::Insert { row, rank: *rank, meaning: *rank ^ MEANING },
                false => Change::Remove { row, rank: *rank },
            })
            .collect();
        match editor.commit(&changes) {
            Ok(engine) => check(engine, &live, &mut random, 2),
            Err(reason) => {
                let (old, rows) = kept.last().expect("the first");
                check(old, rows, &mut random, 2);
                live.sort_by_key(|(rank, _)| *rank);
                let (plain, ranks) = parts(&live);
                editor =
                    Editor::new(&plain, &ranks, &meanings(&ranks)).unwrap_or_else(|error| panic!("{reason}, {error}"));
            }
        }
        if random.chance(30) {
            kept.push((editor.engine().clone(), live.clone()));
        }
        if kept.len() > 4 {
            kept.remove(random.below(kept.len() as u64 - 1) as usize);
        }
        if commit % 8 == 0 {
            kept.iter().for_each(|(engine, rows)| check(engine, rows, &mut random, 1));
        }
    }
}

#[test]
fn commits_change_what_they_say_and_nothing_older() {
    let commits = if cfg!(miri) { 5 } else { 150 };
    edits(1, PLAIN, 300, commits, 3);
    edits(2, PLAIN, 2000, commits, 40);
    edits(3, ALL, 300, commits, 3);
    edits(4, ALL, 1500, commits, 40);
    edits(5, WIDE, 1500, commits, 10);
    edits(6, PLAIN, 0, commits, 20);
}

/// More than 511 services that ask for ports, then one that asks for ICMP; and ranks of rows with a VLAN, used again by
/// rows with several ranges of ports.
#[test]
fn wide_sets_take_what_no_row_asked_for_before() {
    let range = |first: u16, last: u16| Ranges::new([first..=last]).expect("not empty");
    let service = |number: u16| Service {
        protocol: 0x100 | [6, 17][usize::from(number) % 2],
        protocol_mask: 0x1ff,
        src_ports: Ranges::ANY,
        dst_ports: range(number * 100 + 1, number * 100 + 20_001),
    };
    let mut rows: Vec<(u32, Row)> =
        (0..400).map(|number| (u32::from(number) * 4, Row { service: service(number), ..Row::default() })).collect();
    rows.extend((400..1000).map(|number| {
        let dst_ports = range(number * 13, number * 13 + 7);
        (u32::from(number) * 4, Row { service: Service { dst_ports, ..service(number % 2) }, ..Row::default() })
    }));
    let zoned = Row { vlan: Some(10), ..rows[7].1.clone() };
    let (plain, ranks) = parts(&rows);
    let mut editor = Editor::new(&plain, &ranks, &meanings(&ranks)).expect("builds");
    let icmp =
        Service { protocol: 0x201, protocol_mask: 0x2ff, src_ports: Ranges::ANY, dst_ports: range(0x800, 0x8ff) };
    let icmp = Row { service: icmp, ..Row::default() };
    let inserted = editor.commit(&[Change::Insert { row: &icmp, rank: 1, meaning: 1 ^ MEANING }]).map(|_| ());
    let mut key = Key { protocol: 0x201, dst_port: 0x800, vlan: 10, ..Key::default() };
    let find = |editor: &Editor, key: &Key| {
        let mut batch = Batch::default();
        batch.push(key);
        editor.engine().search(&batch).ranks[0]
    };
    match inserted {
        Ok(()) => assert_eq!(find(&editor, &key), 1),
        Err(reason) => assert_eq!((reason, find(&editor, &key)), (RebuildNeeded::Services, NO_ROW)),
    }

    editor.commit(&[Change::Insert { row: &zoned, rank: 2, meaning: 2 ^ MEANING }]).expect("there is room");
    editor.commit(&[Change::Remove { row: &zoned, rank: 2 }]).expect("it is there");
    let several = Ranges::new([60_000..=60_001, 60_010..=60_011]).expect("not empty");
    let several = Row { service: Service { dst_ports: several, ..service(1) }, ..Row::default() };
    editor.commit(&[Change::Insert { row: &several, rank: 2, meaning: 2 ^ MEANING }]).expect("there is room");
    key = Key { protocol: 0x111, dst_port: 60_010, vlan: 20, ..Key::default() };
    assert_eq!(find(&editor, &key), 2, "the VLAN was another row's");
    key.dst_port = 60_005;
    assert_ne!(find(&editor, &key), 2, "between the ranges");
}

#[test]
fn memory_does_not_grow_with_commits() {
    let mut random = Random(11);
    let rows = rows(&mut random, 1000, PLAIN);
    let (plain, ranks) = parts(&rows);
    let mut editor = Editor::new(&plain, &ranks, &meanings(&ranks)).expect("builds");
    let before = editor.engine().memory_bytes();
    for _ in 0..3000 {
        let (rank, row) = &rows[random.below(1000) as usize];
        editor.commit(&[Change::Remove { row, rank: *rank }]).expect("it is there");
        editor.commit(&[Change::Insert { row, rank: *rank, meaning: *rank ^ MEANING }]).expect("there is room");
    }
    assert!(editor.engine().memory_bytes() <= before * 2, "{before} → {}", editor.engine().memory_bytes());
    check(editor.engine(), &rows, &mut random, 20);
}

#[test]
fn a_failed_commit_changes_nothing() {
    let mut random = Random(13);
    let rows = rows(&mut random, 500, PLAIN);
    let (plain, ranks) = parts(&rows);
    let mut editor = Editor::new(&plain, &ranks, &meanings(&ranks)).expect("builds");
    let new = row(&mut random, PLAIN);
    let missing = Row { src: Side::new(Kind::Address, 0x0101_0101, 32), ..plain[0].clone() };
    for _ in 0..50 {
        let changes = [
            Change::Insert { row: &new, rank: 1, meaning: 1 ^ MEANING },
            Change::Remove { row: &plain[3], rank: 12 },
            Change::Remove { row: &missing, rank: 0 },
        ];
        assert_eq!(editor.commit(&changes).expect_err("one row is not there"), RebuildNeeded::Missing);
    }
    check(editor.engine(), &rows, &mut random, 30);
    editor.commit(&[Change::Insert { row: &new, rank: 1, meaning: 1 ^ MEANING }]).expect("goes on");
    let mut more = rows.clone();
    more.push((1, new));
    check(editor.engine(), &more, &mut random, 30);
}

#[test]
fn a_rank_changes_its_meaning_only_when_it_is_free() {
    let mut random = Random(17);
    let rows = rows(&mut random, 100, PLAIN);
    let (plain, ranks) = parts(&rows);
    let mut editor = Editor::new(&plain, &ranks, &meanings(&ranks)).expect("builds");
    let new = row(&mut random, PLAIN);
    let remove = Change::Remove { row: &plain[3], rank: 12 };
    let insert = |meaning| Change::Insert { row: &new, rank: 12, meaning };
    let old = editor.engine().clone();
    assert_eq!(editor.commit(&[remove, insert(5)]).expect_err("readers may look it up"), RebuildNeeded::Rank);
    editor.commit(&[remove, insert(12 ^ MEANING)]).expect("means what it meant");
    let mut more = rows.clone();
    more[3].1 = new.clone();
    check(editor.engine(), &more, &mut random, 10);
    editor.commit(&[Change::Remove { row: &new, rank: 12 }]).expect("it is there");
    assert!(!editor.is_free(12));
    assert_eq!(editor.commit(&[insert(5)]).expect_err("an old generation is kept"), RebuildNeeded::Rank);
    check(&old, &rows, &mut random, 10);
    drop(old);
    editor.commit(&[insert(5)]).expect("nobody looks it up");
    assert_eq!(editor.engine().meaning(12), 5);
}
