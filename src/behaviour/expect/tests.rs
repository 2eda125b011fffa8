//! Expectation of made-up pairs with a daily rhythm.

use super::*;
use crate::rules::GroupSetHandle;
use rand_core::Rng;
use rand_pcg::Pcg32;

const SECOND: u64 = 1_000_000_000;
const INTERVAL: u64 = 300 * SECOND;
const DAY: u64 = 288;
/// A Monday.
const BEGIN: u64 = 1_736_726_400 * SECOND;
const WEB: PairKey = (GroupSetHandle(1), GroupSetHandle(2));
const BACKUP: PairKey = (GroupSetHandle(2), GroupSetHandle(3));

struct World {
    expectations: Expectations,
    dice: Pcg32,
    out: Vec<PairInterval>,
    /// Next interval.
    next: u64,
    /// Whether detectors flag what is put in on top.
    flagged: bool,
}

impl World {
    fn new(settings: ExpectSettings) -> Self {
        let expectations = Expectations::new(&settings);
        Self { expectations, dice: Pcg32::new(5, 5), out: Vec::new(), next: 0, flagged: false }
    }

    fn chance(&mut self) -> f64 {
        f64::from(self.dice.next_u32()) / f64::from(u32::MAX)
    }

    fn put(&mut self, pair: PairKey, port: u16, bytes: [u64; 2], attack: bool) {
        let host = |n: u32| Host { version: 4, addr: (pair.0.0 * 256 + n).into(), vlan: 0, vni: 0 };
        let n = self.dice.next_u32() % 20;
        let slice = Slice {
            at: BEGIN + self.next * INTERVAL + SECOND,
            pair,
            service: Service::of(6, Some(port)),
            source: host(n),
            destination: host(200),
            packets: bytes.map(|bytes| bytes / 800 + 3),
            bytes,
            ended: true,
            refused: false,
            attack,
        };
        self.expectations.observe(&slice, &mut self.out);
    }

    /// Ordinary intervals: busy by day, quiet at night; a backup at ten past each hour. `more` is called in each.
    fn run(&mut self, intervals: u64, mut more: impl FnMut(&mut Self)) -> Vec<PairInterval> {
        for _ in 0..intervals {
            let hour = (self.next % DAY) as f64 / 12.0;
            let mean = 2.0 + 10.0 * (1.0 + ((hour - 14.0) / 24.0 * std::f64::consts::TAU).cos());
            for _ in 0..(mean * (0.5 + self.chance())) as u64 {
                let size = (-(self.chance() + 1e-9).ln() * 20_000.0) as u64;
                self.put(WEB, 443, [600 + size / 10, 2000 + size], false);
            }
            if self.next % 12 == 2 {
                let size = 1_000_000 + (self.chance() * 1_000_000.0) as u64;
                self.put(BACKUP, 873, [size, 5000], false);
            }
            more(self);
            self.next += 1;
        }
        self.expectations.advance(BEGIN + self.next * INTERVAL, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn burst(&mut self) {
        let flagged = self.flagged;
        (0..400).for_each(|_| self.put(WEB, 443, [900, 90_000], flagged));
    }
}

fn all() -> ExpectSettings {
    ExpectSettings { score: 0.0, ..ExpectSettings::default() }
}

fn least(intervals: &[PairInterval], pair: PairKey) -> f64 {
    intervals.iter().filter(|i| i.pair == pair).map(|i| i.score).fold(1.0, f64::min)
}

#[test]
fn scores_say_how_rare_ordinary_intervals_are() {
    let mut world = World::new(all());
    let early = world.run(DAY - 1, |_| {});
    assert!(early.is_empty(), "nothing is said of the first day");
    world.run(6 * DAY, |_| {});
    let ordinary = world.run(7 * DAY, |_| {});
    assert_eq!(ordinary.len() as u64, 2 * 7 * DAY);
    let share = |from: f64| ordinary.iter().filter(|i| i.score >= from).count() as f64 / ordinary.len() as f64;
    assert!(share(0.9) < 0.2 && share(0.9) > 0.02, "{}", share(0.9));
    assert!(share(0.99) < 0.02 && share(0.9995) < 0.002, "{} {}", share(0.99), share(0.9995));
    assert!(ordinary.iter().all(|i| (0.0..=1.0).contains(&i.score)));
}

#[test]
fn a_burst_is_told_with_what_made_it_and_parts_add_up() {
    let mut world = World::new(ExpectSettings::default());
    world.run(7 * DAY, |_| {});
    let burst = world.run(1, World::burst);
    let [told] = &burst[..] else { panic!("{burst:?}") };
    assert_eq!((told.pair, told.start), (WEB, BEGIN + 7 * DAY * INTERVAL));
    assert!(told.score > 0.9995, "{}", told.score);
    let first = &told.parts[0];
    assert_eq!(first.service.to_string(), "tcp/443");
    assert!(first.seen > first.expected[1], "{first:?}");
    let sum: f64 = told.parts.iter().map(|part| part.surprise).sum::<f64>() + told.rest;
    assert!((sum - told.surprise).abs() < 1e-9);
    assert!((told.volume.side, told.volume.bytes) >= (1, 3.6e7) && told.volume.usual < 5e6, "{:?}", told.volume);
    // A service that these groups never used.
    let new = world.run(1, |world| world.put(BACKUP, 22, [3000, 5000], false));
    let [told] = &new[..] else { panic!("{new:?}") };
    assert_eq!((told.parts[0].service.to_string().as_str(), told.parts[0].what), ("tcp/22", What::Presence));
}

#[test]
fn a_burst_is_not_learnt_and_a_level_that_stays_is() {
    let mut world = World::new(all());
    world.run(7 * DAY, |_| {});
    let first = world.run(48, World::burst);
    world.run(DAY - 48, |_| {});
    let second = world.run(48, World::burst);
    assert!(
        least(&first, WEB) > 0.999 && least(&second, WEB) > 0.998,
        "{} {}",
        least(&first, WEB),
        least(&second, WEB)
    );
    // Two hours more, and it has lasted for six.
    world.run(30, World::burst);
    world.run(DAY, World::burst);
    let stayed = world.run(DAY, World::burst);
    let high = stayed.iter().filter(|i| i.pair == WEB && i.score > 0.99).count();
    assert!(high < 20, "{high} intervals of a level that is a day old");
}

#[test]
fn what_is_flagged_is_never_learnt() {
    let mut world = World::new(all());
    world.run(7 * DAY, |_| {});
    world.flagged = true;
    let flagged = world.run(2 * DAY, World::burst);
    assert!(least(&flagged, WEB) > 0.999, "{}", least(&flagged, WEB));
    let after = world.run(DAY, |_| {});
    let high = after.iter().filter(|i| i.score > 0.999).count();
    assert!(high < 10, "{high}");
}

#[test]
fn memory_is_bounded_and_what_is_forgotten_is_counted() {
    let mut world = World::new(ExpectSettings { pairs: 64, ..all() });
    let mut number = 10;
    world.run(200, |world| {
        for _ in 0..10 {
            number += 1;
            world.put((GroupSetHandle(number), GroupSetHandle(1)), (number % 50_000) as u16, [100, 100], false);
        }
        assert!(world.expectations.len() <= 64);
    });
    let expectations = &world.expectations;
    // The backup is forgotten from hour to hour, and begins anew.
    assert_eq!(expectations.len() as u64 + expectations.forgotten(), 2002 + 16);
    assert!(expectations.pairs.contains_key(&WEB), "what is active stays");
    // One pair on very many services has few.
    let mut world = World::new(all());
    world.run(2, |world| (0..500).for_each(|port| world.put(WEB, port, [100, 100], false)));
    assert!(world.expectations.pairs[&WEB].services() <= 25);
}

#[test]
fn a_gap_is_no_silence() {
    let mut world = World::new(all());
    world.run(7 * DAY, |_| {});
    world.next += 40 * DAY;
    let after = world.run(12, |_| {});
    assert!(after.len() < 2 * 14, "{}", after.len());
    assert!(least(&after, WEB) < 0.99);
}

#[test]
fn sequences_are_learnt_alike_from_the_same_seed() {
    let told = |seed: u64| {
        let mut world = World::new(ExpectSettings { model: PairModel::Sequence, ..all() });
        world.run(2 * DAY + 12, |_| {});
        let lesson = world.expectations.lesson(seed).expect("a day after the first scores");
        assert!(world.expectations.lesson(seed).is_none(), "once a day");
        let sequence = lesson.learn();
        world.expectations.accept(sequence.clone());
        (sequence, world.run(DAY / 2, |_| {}))
    };
    let (one, intervals) = told(1);
    assert!((one.clone(), intervals.clone()) == told(1));
    assert!(one != told(2).0);
    let mut baseline = World::new(all());
    baseline.run(2 * DAY + 12, |_| {});
    let seasonal = baseline.run(DAY / 2, |_| {});
    // The hour's backup is foreseen: it surprises less than where only the hour of day is known.
    let surprise = |intervals: &[PairInterval]| {
        let backups = intervals.iter().filter(|i| i.pair == BACKUP && i.seen[4] > 0.0);
        backups.map(|i| i.surprise).sum::<f64>()
    };
    assert!(surprise(&intervals) < surprise(&seasonal), "{} {}", surprise(&intervals), surprise(&seasonal));
}

#[test]
fn work_of_every_night_becomes_usual_at_night_and_not_by_day() {
    let mut world = World::new(all());
    let heavy = |world: &mut World, hour: u64| {
        if world.next % DAY / 12 == hour && world.next % 12 < 3 {
            world.put(WEB, 443, [2_000_000_000, 90_000], false);
        }
    };
    // As alerts of volume take it: two intervals one after the other that are unexpected and far above the usual.
    let told = |intervals: &[PairInterval]| -> Vec<u64> {
        let above = |i: &PairInterval| i.score >= HOLD && i.volume.bytes >= 10.0 * i.volume.usual.max(1.0);
        let web: Vec<&PairInterval> = intervals.iter().filter(|i| i.pair == WEB).collect();
        let mut days: Vec<u64> = web
            .windows(2)
            .filter(|two| above(two[0]) && above(two[1]))
            .map(|two| (two[1].start - BEGIN) / (DAY * INTERVAL))
            .collect();
        days.dedup();
        days
    };
    world.run(2 * DAY, |_| {});
    let nights = told(&world.run(7 * DAY, |world| heavy(world, 2)));
    assert_eq!(nights, [2, 3, 4], "told three nights, then known");
    let by_day = told(&world.run(DAY, |world| {
        heavy(world, 2);
        heavy(world, 15);
    }));
    assert_eq!(by_day, [9]);
}
