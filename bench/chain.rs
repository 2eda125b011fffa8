//! The whole chain at 100,000 new short flows a second: a worker forwards as fast as it can, every flow makes a record, and
//! on another core records become features, scores, alerts and lines of `flows.jsonl`. With scoring on and off in turns, in
//! one process; workers make records in both, and with scoring off the other core takes and forgets them. The rate is of the
//! worker's CPU time, so what else the machine does changes little. Then, alone, what each part of the chain costs.
//!
//! What the worker forwards is sent to it again, so that a flow has about a hundred packets, both ways; a flow ends a second
//! after its last one. The model has all usual members (`warmup_records = 10000`).
//!
//! `cargo bench --bench chain -- [--quick] [--json FILE] [--cpu N] [--reader-cpu N] [--flows-a-second N]`

mod common;
#[path = "flows/line.rs"]
mod line;
#[path = "chain/parts.rs"]
mod parts;
#[path = "chain/reader.rs"]
mod reader;
#[path = "chain/traffic.rs"]
mod traffic;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use core_affinity::CoreId;
use gnomon::dpdk::{Eal, Mempool};

use common::{Options, Results, median};
use line::{Line, POLICY};
use reader::{Mode, Reading};
use traffic::Circle;

/// A flow ends a second after its last packet: as many records as flows, all the time.
const TIMES: &str = "\n[flow]\ncapacity = 1048576\n[flow.timeouts]\nudp = \"1s\"\n";

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// CPU for the scorer
    #[arg(long, default_value_t = 0)]
    reader_cpu: usize,
    /// New flows a second of wall clock
    #[arg(long, default_value_t = 100_000)]
    flows_a_second: u64,
}

/// What one turn came to.
struct Turn {
    /// Million packets a second of the worker's CPU time.
    rate: f64,
    records: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = &arguments.options;
    let eal = common::start_dpdk("chain", options.cpu, 1024)?;
    eal.advise_huge_pages();
    core_affinity::set_for_current(CoreId { id: options.cpu });
    let mut results = Results::new("chain");
    let kept = compare(&eal, &arguments, &mut results)?;
    parts::measure(&kept.records, &kept.names, options.quick, &mut results)?;
    results.finish(options);
    Ok(())
}

/// Turns with scoring on and off.
fn compare(eal: &Arc<Eal>, arguments: &Arguments, results: &mut Results) -> Result<reader::Kept> {
    let packets = Mempool::packets(eal, "chain_packets", 16_383)?;
    let clones = Mempool::clones(eal, "chain_clones", 1023)?;
    let records = gnomon::config::Config::default_pair().scorer.ring;
    let line = Line::new(eal, [&packets, &clones], &format!("{POLICY}{TIMES}"), records)?;
    let reading = Reading::start(&line, arguments.reader_cpu)?;
    let mut circle = Circle::new(line, &packets, arguments.flows_a_second);
    let turns = if arguments.options.quick { 10 } else { 50 };
    let time = Duration::from_secs(1);
    // The table fills, the model is trained.
    for _ in 0..3 {
        turn(&mut circle, &reading, Mode::Score, time);
    }
    let (mut pairs, mut made) = (Vec::new(), Vec::new());
    reading.lag_counts.store(true, Ordering::Relaxed);
    for nth in 0..turns {
        // Who is first changes about.
        let modes = if nth % 2 == 0 { [Mode::Score, Mode::Forget] } else { [Mode::Forget, Mode::Score] };
        let mut both = modes.map(|mode| turn(&mut circle, &reading, mode, time));
        if nth % 2 == 1 {
            both.reverse();
        }
        made.extend(both.iter().map(|turn| turn.records));
        pairs.push((both[0].rate, both[1].rate));
    }
    let kept = reading.stop()?;
    report(&circle, &kept, (pairs, made), results);
    ensure!(circle.finish(), "every packet forwarded");
    Ok(kept)
}

fn report(circle: &Circle<'_>, kept: &reader::Kept, (pairs, made): (Vec<(f64, f64)>, Vec<f64>), results: &mut Results) {
    let turns = pairs.len();
    let lost = circle.line.counters.records_lost.get();
    let effects: Vec<f64> = pairs.iter().map(|(on, off)| 100.0 * (1.0 - on / off)).collect();
    println!(
        "{} records scored ({} with a score), {} forgotten, {lost} lost; {:.0} made a second; scorer's core busy {:.0} %; \
         effect of scoring on forwarding {:.2} % (median of {turns} turns; {:.2} to {:.2})",
        kept.scored,
        kept.stats.scored,
        kept.forgotten,
        median(&made),
        kept.busy_percent,
        median(&effects),
        effects.iter().copied().fold(f64::INFINITY, f64::min),
        effects.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    );
    let lags = &kept.lags;
    println!("from the time at which a record was due:");
    for (name, times) in
        [("made, where nobody scores", &lags.made), ("taken by the scorer", &lags.taken), ("its line", &lags.line)]
    {
        let lag = |q: f64| times.value_at_quantile(q) as f64 / 1e6;
        println!("  {name:<26} p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms", lag(0.5), lag(0.99), lag(1.0));
        for (which, q) in [("p50", 0.5), ("p99", 0.99)] {
            results.measured(format!("lag, {name}, {which}"), "ms", vec![lag(q)]);
        }
    }
    results.compared("forwarding with scoring on", "Mpps of CPU time", "scoring off", &pairs);
    results.measured("records made", "records/s", made);
    results.measured("records lost", "records", vec![lost as f64]);
}

fn turn(circle: &mut Circle<'_>, reading: &Reading, mode: Mode, time: Duration) -> Turn {
    reading.set(mode);
    // What waited belongs to the turn before.
    circle.run(Duration::from_millis(100));
    let (began, before, made) = (Instant::now(), circle.state(), circle.line.counters.records.get());
    circle.run(time);
    let after = circle.state();
    let records = (circle.line.counters.records.get() - made) as f64 / began.elapsed().as_secs_f64();
    Turn { rate: (after.packets - before.packets) as f64 * 1e3 / (after.busy_ns - before.busy_ns) as f64, records }
}
