//! What it takes to change rules: one at a time, a hundred at a time, and ten thousand a second while another thread
//! classifies. rte_acl has nothing to compare: it builds all rules anew, for as long as the other mode shows.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use core_affinity::CoreId;
use gnomon::dpdk::{AclRule, FiveTuple, pause, ticks};
use gnomon::rules::{Generational, Publisher, Reader};
use gnomon::trie::{BATCH, Batch, Change, Editor, Engine, NO_ROW, Row};
use rand_pcg::Pcg64Mcg;

use crate::classbench::{RuleSet, below, dice, engine_found, fill, linear, rows};
use crate::common::{Case, Results, median};

/// Rules of one large commit.
const TOGETHER: usize = 100;
const CHANGES_PER_SECOND: u32 = 10_000;
/// Draws of a rule whose other rank is free; a reader must have stood still for long if more are in vain.
const TRIES: usize = 1000;
/// Packets looked up while rules change.
const PACKETS: usize = 4096;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rules removed and put back, one at a time.
    pub single: usize,
    /// Commits of [`TOGETHER`] removals, and as many that put them back.
    pub large: usize,
    /// Of concurrent reading and writing.
    pub seconds: u64,
    /// Where the writer runs.
    pub writer: Option<CoreId>,
}

/// Rules of which some are away.
struct Rules {
    rows: Vec<Row>,
    /// By rule. Each has two ranks to itself, one after the other: a rule that comes back must not have the rank that it
    /// left, because readers may still be in a generation that has it.
    ranks: Vec<u32>,
    /// By rank: the rule.
    meanings: Vec<u32>,
    absent: BTreeSet<usize>,
    editor: Editor,
    /// Times that a change did not fit and all was built anew, by reason.
    rebuilds: BTreeMap<String, usize>,
}

/// Measures and prints; returns how many packets had a wrong result.
pub fn updates(results: &mut Results, set: &RuleSet, effort: Effort) -> Result<usize> {
    println!("\n{}: {} rules", set.name, set.rules.len());
    let mut rules = Rules::new(rows(&set.rules))?;
    let mut dice = dice(3);
    let (mut removals, mut insertions) = (Vec::new(), Vec::new());
    for _ in 0..effort.single {
        let rule = BTreeSet::from([below(&mut dice, set.rules.len())]);
        removals.push(rules.remove(&rule)?);
        insertions.push(rules.insert(&rule)?);
    }
    report(results, format!("{} remove 1 rule", set.name), removals);
    report(results, format!("{} insert 1 rule", set.name), insertions);
    let (mut removals, mut insertions) = (Vec::new(), Vec::new());
    let mut wrong = 0;
    for turn in 0..effort.large {
        let some = draw(&mut dice, set.rules.len());
        removals.push(rules.remove(&some)?);
        if turn == 0 {
            wrong += check(&rules, set, "with rules removed");
        }
        insertions.push(rules.insert(&some)?);
    }
    report(results, format!("{} remove {TOGETHER} rules", set.name), removals);
    report(results, format!("{} insert {TOGETHER} rules", set.name), insertions);
    wrong += check(&rules, set, "with all rules back");
    wrong += concurrent(results, &mut rules, set, effort)?;
    for (reason, times) in &rules.rebuilds {
        println!("  built anew {times} times: {reason}");
    }
    Ok(wrong)
}

impl Rules {
    fn new(rows: Vec<Row>) -> Result<Self> {
        let ranks: Vec<u32> = (0..rows.len() as u32).map(|rule| 2 * rule).collect();
        let meanings: Vec<u32> = (0..2 * rows.len() as u32).map(|rank| rank / 2).collect();
        let editor = Editor::new(&rows, &ranks, &meanings)?;
        Ok(Self { rows, ranks, meanings, absent: BTreeSet::new(), editor, rebuilds: BTreeMap::new() })
    }

    /// A rule that can be removed and come back at once, because no reader is in a generation with its other rank.
    fn draw(&self, dice: &mut Pcg64Mcg) -> BTreeSet<usize> {
        let mut drawn = std::iter::repeat_with(|| below(dice, self.rows.len())).take(TRIES);
        let free = drawn.find(|at| self.editor.is_free(self.ranks[*at] ^ 1));
        BTreeSet::from([free.unwrap_or(0)])
    }

    /// Removes rules in one commit; microseconds.
    fn remove(&mut self, which: &BTreeSet<usize>) -> Result<f64> {
        self.absent.extend(which);
        self.commit(which, |row, rank| Change::Remove { row, rank })
    }

    /// Puts rules back in one commit; microseconds.
    fn insert(&mut self, which: &BTreeSet<usize>) -> Result<f64> {
        for at in which {
            self.absent.remove(at);
            self.ranks[*at] ^= 1;
        }
        self.commit(which, |row, rank| Change::Insert { row, rank, meaning: rank / 2 })
    }

    /// Builds anew, on the same clock, when the changes do not fit.
    fn commit(&mut self, which: &BTreeSet<usize>, change: fn(&Row, u32) -> Change<'_>) -> Result<f64> {
        let started = Instant::now();
        let changes: Vec<Change<'_>> = which.iter().map(|at| change(&self.rows[*at], self.ranks[*at])).collect();
        if let Err(reason) = self.editor.commit(&changes).map(|_| ()) {
            let present = || (0..self.rows.len()).filter(|at| !self.absent.contains(at));
            let rows: Vec<Row> = present().map(|at| self.rows[at].clone()).collect();
            let ranks: Vec<u32> = present().map(|at| self.ranks[at]).collect();
            self.editor = Editor::new(&rows, &ranks, &self.meanings)?;
            *self.rebuilds.entry(reason.to_string()).or_default() += 1;
        }
        Ok(started.elapsed().as_secs_f64() * 1e6)
    }
}

/// Different rules, [`TOGETHER`] of them or all there are.
fn draw(dice: &mut Pcg64Mcg, rules: usize) -> BTreeSet<usize> {
    let mut drawn = BTreeSet::new();
    while drawn.len() < TOGETHER.min(rules) {
        drawn.insert(below(dice, rules));
    }
    drawn
}

/// Prints 50th and 99th percentile of commits.
fn report(results: &mut Results, case: String, mut runs: Vec<f64>) {
    runs.sort_by(f64::total_cmp);
    let at = |percent: usize| runs[(runs.len() - 1) * percent / 100];
    println!("  {case:<36} p50 {:>9.2} us   p99 {:>9.2} us", at(50), at(99));
    results.cases.push(Case { case, unit: "us", ours: at(50), peer: None, peer_name: None, ratio: None, runs });
}

/// The rule that a packet matches when some are away.
fn expected(rules: &[AclRule], absent: &BTreeSet<usize>, packet: &FiveTuple) -> u32 {
    let mut from = 0;
    loop {
        match linear(&rules[from..], packet) {
            NO_ROW => return NO_ROW,
            found if !absent.contains(&(from + found as usize)) => return from as u32 + found,
            found => from += found as usize + 1,
        }
    }
}

/// Packets with another result than linear search has.
fn check(rules: &Rules, set: &RuleSet, when: &str) -> usize {
    let packets = sample(set);
    let engine = rules.editor.engine();
    let found = engine_found(engine, &packets);
    let differs =
        |(packet, found): &(&FiveTuple, &u32)| expected(&set.rules, &rules.absent, packet) != rule_of(engine, **found);
    let wrong = packets.iter().zip(&found).filter(differs).count();
    println!("  {when}: {wrong} differences ({} packets against linear search)", packets.len());
    wrong
}

fn rule_of(engine: &Engine, rank: u32) -> u32 {
    if rank == NO_ROW { NO_ROW } else { engine.meaning(rank) }
}

/// Packets of all traces, evenly spaced.
fn sample(set: &RuleSet) -> Vec<FiveTuple> {
    let all = || set.traces.iter().flat_map(|trace| &trace.packets).copied();
    let step = (all().count() / PACKETS).max(1);
    all().step_by(step).take(PACKETS).collect()
}

/// One thread changes a rule at a time, this one looks packets up in the generation that is in force.
fn concurrent(results: &mut Results, rules: &mut Rules, set: &RuleSet, effort: Effort) -> Result<usize> {
    let packets = sample(set);
    // At most one rule is away at a time: the first that a packet matches, or the next.
    let allowed: Vec<[u32; 2]> = packets.iter().map(|packet| first_two(&set.rules, packet)).collect();
    let mut publisher = Publisher::new(Numbered(1, rules.editor.engine().clone()))?;
    let mut reader = publisher.reader();
    let run = Duration::from_secs(effort.seconds);
    let quiet = read(&mut reader, &packets, &allowed, |started| started.elapsed() >= run);
    let stop = AtomicBool::new(false);
    let (busy, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(rules, &mut publisher, effort, &stop));
        let busy = read(&mut reader, &packets, &allowed, |_| stop.load(Ordering::Acquire));
        (busy, writer.join())
    });
    let commits = written.map_err(|_| anyhow!("the writer ended early"))??;
    let rate = commits.len() as f64 / run.as_secs_f64();
    println!(
        "  {:.0} changes a second: reader {:.2} cycles/packet, {:.2} without changes; {} of {} results wrong",
        rate,
        busy.cycles,
        quiet.cycles,
        busy.wrong + quiet.wrong,
        busy.looked_up + quiet.looked_up
    );
    results.cases.push(Case {
        case: format!("{} lookup, {rate:.0} changes/s against none", set.name),
        unit: "cycles/packet",
        ours: busy.cycles,
        peer: Some(quiet.cycles),
        peer_name: Some("without changes"),
        ratio: Some(quiet.cycles / busy.cycles),
        runs: vec![busy.cycles],
    });
    report(results, format!("{} change 1 rule, published", set.name), commits);
    Ok(busy.wrong + quiet.wrong)
}

fn first_two(rules: &[AclRule], packet: &FiveTuple) -> [u32; 2] {
    let first = linear(rules, packet);
    let absent = BTreeSet::from([first as usize]);
    [first, if first == NO_ROW { NO_ROW } else { expected(rules, &absent, packet) }]
}

/// An engine as it is published.
struct Numbered(u32, Engine);

impl Generational for Numbered {
    fn generation(&self) -> u32 {
        self.0
    }
}

/// What the reader saw.
struct Read {
    /// Per packet, the median over passes.
    cycles: f64,
    looked_up: usize,
    wrong: usize,
}

/// Looks up all packets over and over, each burst in the newest generation.
fn read(
    reader: &mut Reader<Numbered>,
    packets: &[FiveTuple],
    allowed: &[[u32; 2]],
    done: impl Fn(Instant) -> bool,
) -> Read {
    let started = Instant::now();
    let (mut batch, mut found) = (Batch::default(), [[NO_ROW; BATCH]; PACKETS / BATCH]);
    let mut read = Read { cycles: f64::NAN, looked_up: 0, wrong: 0 };
    let mut passes = Vec::new();
    while !done(started) {
        let before = ticks();
        for (burst, found) in packets.chunks(BATCH).zip(&mut found) {
            fill(&mut batch, burst);
            reader.refresh();
            let engine = &reader.get().1;
            engine.lookup(&batch, black_box(found));
            found.iter_mut().take(batch.len).for_each(|found| *found = rule_of(engine, *found));
        }
        passes.push((ticks() - before) as f64 / packets.len() as f64);
        read.looked_up += packets.len();
        read.wrong +=
            allowed.iter().zip(found.as_flattened()).filter(|(allowed, found)| !allowed.contains(found)).count();
    }
    read.cycles = median(&passes);
    read
}

/// Removes a rule or puts it back at even intervals, publishing each time; microseconds of each change.
fn write(
    rules: &mut Rules,
    publisher: &mut Publisher<Numbered>,
    effort: Effort,
    stop: &AtomicBool,
) -> Result<Vec<f64>> {
    // Stops the reader also when a change fails.
    let _stop = StopAtEnd(stop);
    effort.writer.map(core_affinity::set_for_current);
    let mut dice = dice(4);
    let (mut commits, mut removed) = (Vec::new(), None);
    let (started, interval) = (Instant::now(), Duration::from_secs(1) / CHANGES_PER_SECOND);
    while started.elapsed().as_secs() < effort.seconds {
        let rule = removed.take().unwrap_or_else(|| rules.draw(&mut dice));
        let change = Instant::now();
        publisher.reclaim();
        if rules.absent.is_empty() {
            rules.remove(&rule)?;
            removed = Some(rule);
        } else {
            rules.insert(&rule)?;
        }
        let next = publisher.current().0 + 1;
        publisher.publish(Numbered(next, rules.editor.engine().clone()))?;
        commits.push(change.elapsed().as_secs_f64() * 1e6);
        let due = interval * commits.len() as u32;
        while started.elapsed() < due {
            pause();
        }
    }
    removed.map_or(Ok(0.0), |rule| rules.insert(&rule))?;
    Ok(commits)
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
