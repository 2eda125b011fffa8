//! What is expected of group pairs against labelled days: the seasonal baseline, the model of sequences, and both.
//!
//! For each seed: ten days of `gnomon scenario`, replayed by the gnomon built beside this; a week without attacks to
//! learn from, then three days with one attack of each kind, at minutes that the seed chooses. Judged are all intervals
//! of all pairs of these three days: is there a record of an attack among theirs? Settings were chosen on seeds 1 to 5.
//!
//! `cargo bench --bench expect -- [--quick] [--json FILE] [--svg FILE] [--seeds 6-10] [--keep FOLDER]`
//!
//! A seed takes two minutes, and 4 GB of disk meanwhile.

mod common;
#[path = "expect/chart.rs"]
mod chart;
#[path = "expect/days.rs"]
mod days;
#[path = "scorer/figures.rs"]
mod figures;
#[path = "expect/judge.rs"]
mod judge;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use gnomon::behaviour::{ExpectSettings, PairModel};

use common::{Options, Results};
use days::{Days, Plan};
use judge::{Outcome, judge};

const MODELS: [(PairModel, &str); 3] =
    [(PairModel::Baseline, "baseline"), (PairModel::Sequence, "sequence"), (PairModel::Both, "both")];
/// Days made, and those of them without attacks.
const DAYS: (u64, u64) = (10, 7);
const QUICK: (u64, u64) = (4, 3);

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Also draw a chart.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// First and last seed.
    #[arg(long, value_name = "FIRST-LAST", default_value = "6-10", value_parser = common::seeds)]
    seeds: RangeInclusive<u64>,
    /// Keep the records of each day here, and take those that are there.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = &arguments.options;
    let (first, last) = arguments.seeds.clone().into_inner();
    let last = if options.quick { first } else { last };
    let (days, quiet) = if options.quick { QUICK } else { DAYS };
    println!("raised from score {}", ExpectSettings::default().score);
    println!("{:>4}  {:<9} {:>8} {:>8} {:>10} {:>8}", "seed", "model", "AUC", "AP", "false/day", "found");
    let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); MODELS.len()];
    for seed in first..=last {
        let gnomon = PathBuf::from(env!("CARGO_BIN_EXE_gnomon"));
        let made = Days::make(&Plan { gnomon, seed, days, quiet, rate: 0.2, keep: arguments.keep.clone() })?;
        for (outcomes, (model, name)) in outcomes.iter_mut().zip(MODELS) {
            let outcome = judge(&made, quiet, days, model, seed);
            tell(&seed.to_string(), name, &outcome);
            outcomes.push(outcome);
        }
    }
    by_kind(&outcomes);
    if let Some(path) = &arguments.svg {
        let lines = MODELS.iter().zip(&outcomes).map(|((_, name), outcomes)| (*name, curve(outcomes)));
        chart::draw(path, &lines.collect::<Vec<_>>())?;
    }
    let mut results = Results::new("expect");
    println!();
    for ((_, name), outcomes) in MODELS.iter().zip(&outcomes) {
        let of = |value: fn(&Outcome) -> f64| outcomes.iter().map(value).collect::<Vec<f64>>();
        results.measured(format!("{name}, area under the ROC curve"), "%", of(|o| 100.0 * o.auc));
        results.measured(format!("{name}, average precision"), "%", of(|o| 100.0 * o.precision));
        results.measured(format!("{name}, raised without an attack"), "a day", of(|o| o.false_a_day));
        let share = |o: &Outcome| 100.0 * o.attacks().0 as f64 / o.attacks().1 as f64;
        results.measured(format!("{name}, attacks found"), "%", of(share));
        results.measured(format!("{name}, time"), "s", of(|o| o.seconds));
    }
    results.finish(options);
    Ok(())
}

fn tell(seed: &str, name: &str, outcome: &Outcome) {
    let (found, all) = outcome.attacks();
    let Outcome { auc, precision, false_a_day, .. } = outcome;
    println!("{seed:>4}  {name:<9} {auc:>8.5} {precision:>8.4} {false_a_day:>10.1} {found:>4}/{all}");
}

/// Attacks found of each kind, all seeds together.
fn by_kind(outcomes: &[Vec<Outcome>]) {
    println!("\n{:<17} {:>9} {:>9} {:>9}", "attacks found", MODELS[0].1, MODELS[1].1, MODELS[2].1);
    let mut kinds: BTreeMap<&str, [(usize, usize); 3]> = BTreeMap::new();
    for (model, outcomes) in outcomes.iter().enumerate() {
        for (kind, found) in outcomes.iter().flat_map(|outcome| &outcome.found) {
            let sum = &mut kinds.entry(kind).or_default()[model];
            *sum = (sum.0 + found.0, sum.1 + found.1);
        }
    }
    for (kind, sums) in kinds {
        let cell = |sum: (usize, usize)| format!("{}/{}", sum.0, sum.1);
        println!("{kind:<17} {:>9} {:>9} {:>9}", cell(sums[0]), cell(sums[1]), cell(sums[2]));
    }
}

/// Share of attacks found by false intervals a day, over all thresholds.
fn curve(outcomes: &[Outcome]) -> Vec<(f64, f64)> {
    let mut ordinary: Vec<f32> = outcomes.iter().flat_map(|outcome| outcome.ordinary.iter().copied()).collect();
    ordinary.sort_by(|a, b| b.total_cmp(a));
    let best: Vec<f32> = outcomes.iter().flat_map(|outcome| outcome.best.iter().copied()).collect();
    let days: f64 = outcomes.iter().map(|outcome| outcome.days).sum();
    let most = ordinary.len().min((days * 100.0) as usize);
    (0..most)
        .map(|at| {
            let found = best.iter().filter(|score| **score > ordinary[at]).count();
            ((at as f64 / days).max(0.1), found as f64 / best.len().max(1) as f64)
        })
        .collect()
}
