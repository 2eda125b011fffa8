//! What it takes to change rules: one at a time, a hundred at a time, and ten thousand a second while another thread
//! classifies. rte_acl has nothing to compare: it builds all rules anew, for as long as the other mode shows.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use arc_swap::ArcSwap;
use gnomon::dpdk::{AclRule, FiveTuple, pause, ticks};
use gnomon::trie::{BATCH, Batch, Change, Editor, Engine, NO_ROW, Row};
use rand_pcg::Pcg64Mcg;

use crate::classbench::{RuleSet, below, dice, engine_found, fill, linear, rows};
use crate::common::{Case, Results, median};

/// Rules of one large commit.
const TOGETHER: usize = 100;
const CHANGES_PER_SECOND: u32 = 10_000;
/// Packets looked up while rules change.
const PACKETS: usize = 4096;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rules removed and put back, one at a time.
    pub single: usize,
    /// Commits of [`TOGETHER`] removals, and as many that put them back.
    pub large: usize,
    pub seconds: u64,
}

/// Rules of which some are away.
struct Rules {
    rows: Vec<Row>,
    /// Each rule means itself.
    meanings: Vec<u32>,
    absent: BTreeSet<usize>,
    editor: Editor,
    /// Times that a change did not fit and all was built anew, by reason.
    rebuilds: BTreeMap<String, usize>,
}

/// Measures and prints; returns how many packets had a wrong result.
pub fn updates(results: &mut Results, set: &RuleSet, effort: Effort, cpu: usize) -> Result<usize> {
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
    wrong += concurrent(results, &mut rules, set, effort, cpu)?;
    for (reason, times) in &rules.rebuilds {
        println!("  built anew {times} times: {reason}");
    }
    Ok(wrong)
}

impl Rules {
    fn new(rows: Vec<Row>) -> Result<Self> {
        let meanings: Vec<u32> = (0..rows.len() as u32).collect();
        let editor = Editor::new(&rows, &meanings, &meanings)?;
        Ok(Self { rows, meanings, absent: BTreeSet::new(), editor, rebuilds: BTreeMap::new() })
    }

    /// Removes rules in one commit; microseconds.
    fn remove(&mut self, which: &BTreeSet<usize>) -> Result<f64> {
        self.absent.extend(which);
        self.commit(which, |rows, at| Change::Remove { row: &rows[at], rank: at as u32 })
    }

    /// Puts rules back in one commit; microseconds.
    fn insert(&mut self, which: &BTreeSet<usize>) -> Result<f64> {
        self.absent.retain(|at| !which.contains(at));
        self.commit(which, |rows, at| Change::Insert { row: &rows[at], rank: at as u32, meaning: at as u32 })
    }

    /// Builds anew, on the same clock, when the changes do not fit.
    fn commit(&mut self, which: &BTreeSet<usize>, change: fn(&[Row], usize) -> Change<'_>) -> Result<f64> {
        let started = Instant::now();
        let changes: Vec<Change<'_>> = which.iter().map(|at| change(&self.rows, *at)).collect();
        if let Err(reason) = self.editor.commit(&changes).map(|_| ()) {
            let present: Vec<usize> = (0..self.rows.len()).filter(|at| !self.absent.contains(at)).collect();
            let rows: Vec<Row> = present.iter().map(|at| self.rows[*at].clone()).collect();
            let ranks: Vec<u32> = present.iter().map(|at| *at as u32).collect();
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
    let found = engine_found(rules.editor.engine(), &packets);
    let differs = |(packet, found): &(&FiveTuple, &u32)| expected(&set.rules, &rules.absent, packet) != **found;
    let wrong = packets.iter().zip(&found).filter(differs).count();
    println!("  {when}: {wrong} differences ({} packets against linear search)", packets.len());
    wrong
}

/// Packets of all traces, evenly spaced.
fn sample(set: &RuleSet) -> Vec<FiveTuple> {
    let all = || set.traces.iter().flat_map(|trace| &trace.packets).copied();
    let step = (all().count() / PACKETS).max(1);
    all().step_by(step).take(PACKETS).collect()
}

/// One thread changes a rule at a time, this one looks packets up in the generation that is in force.
fn concurrent(results: &mut Results, rules: &mut Rules, set: &RuleSet, effort: Effort, cpu: usize) -> Result<usize> {
    let packets = sample(set);
    // At most one rule is away at a time: the first that a packet matches, or the next.
    let allowed: Vec<[u32; 2]> = packets.iter().map(|packet| first_two(&set.rules, packet)).collect();
    let current = ArcSwap::from_pointee(rules.editor.engine().clone());
    let run = Duration::from_secs(effort.seconds);
    let quiet = read(&current, &packets, &allowed, |started| started.elapsed() >= run);
    let stop = AtomicBool::new(false);
    let (busy, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(rules, &current, run, cpu, &stop));
        let busy = read(&current, &packets, &allowed, |_| stop.load(Ordering::Acquire));
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

/// What the reader saw.
struct Read {
    /// Per packet, the median over passes.
    cycles: f64,
    looked_up: usize,
    wrong: usize,
}

/// Looks up all packets over and over, each burst in the newest generation.
fn read(
    current: &ArcSwap<Engine>,
    packets: &[FiveTuple],
    allowed: &[[u32; 2]],
    done: impl Fn(Instant) -> bool,
) -> Read {
    let started = Instant::now();
    let mut newest = arc_swap::Cache::new(current);
    let (mut batch, mut found) = (Batch::default(), [[NO_ROW; BATCH]; PACKETS / BATCH]);
    let mut read = Read { cycles: f64::NAN, looked_up: 0, wrong: 0 };
    let mut passes = Vec::new();
    while !done(started) {
        let before = ticks();
        for (burst, found) in packets.chunks(BATCH).zip(&mut found) {
            fill(&mut batch, burst);
            newest.load().lookup(&batch, black_box(found));
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
    current: &ArcSwap<Engine>,
    run: Duration,
    cpu: usize,
    stop: &AtomicBool,
) -> Result<Vec<f64>> {
    // Stops the reader also when a change fails.
    let _stop = StopAtEnd(stop);
    let other = core_affinity::get_core_ids().into_iter().flatten().find(|core| core.id != cpu);
    other.map(core_affinity::set_for_current);
    let mut dice = dice(4);
    let mut commits = Vec::new();
    let (started, interval) = (Instant::now(), Duration::from_secs(1) / CHANGES_PER_SECOND);
    let mut removed = None;
    while started.elapsed() < run {
        let change = Instant::now();
        removed = match removed.take() {
            Some(rule) => rules.insert(&rule).map(|_| None)?,
            None => {
                let rule = BTreeSet::from([below(&mut dice, rules.rows.len())]);
                rules.remove(&rule)?;
                Some(rule)
            }
        };
        current.store(Arc::new(rules.editor.engine().clone()));
        commits.push(change.elapsed().as_secs_f64() * 1e6);
        let due = interval * commits.len() as u32;
        while started.elapsed() < due {
            pause();
        }
    }
    if let Some(rule) = removed {
        rules.insert(&rule)?;
    }
    Ok(commits)
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
