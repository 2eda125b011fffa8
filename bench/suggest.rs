//! Suggestions against the truth of simulated days, feedback against administrators with preferences, and the time that
//! ten million rows take.
//!
//! Each seed is a world: days of `gnomon scenario` whose configuration was given faults (`suggest/faults.rs`), replayed,
//! with what `gnomon suggest` says of it judged flow by flow (`suggest/truth.rs`). Thresholds were chosen on seeds 1 to 6.
//!
//! `cargo bench --bench suggest -- [--quick] [--json FILE] [--seeds 101-180] [--days N] [--only worlds|scale] [--wrong]
//! [--keep FOLDER]`
//!
//! A world takes some seconds, and 1 GB of disk meanwhile.

mod common;
#[path = "suggest/administrator.rs"]
mod administrator;
#[path = "suggest/faults.rs"]
mod faults;
#[path = "suggest/scale.rs"]
mod scale;
#[path = "suggest/truth.rs"]
mod truth;
#[path = "suggest/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use gnomon::policy::suggest::report;

use common::{Options, Results};
use world::{Plan, World};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// First and last seed.
    #[arg(long, value_name = "FIRST-LAST", default_value = "101-180", value_parser = common::seeds)]
    seeds: RangeInclusive<u64>,
    /// Simulated days of each.
    #[arg(long, default_value_t = 3)]
    days: u32,
    /// New flows a second at the busiest hour.
    #[arg(long, default_value_t = 0.05)]
    rate: f64,
    /// Keep what is suggested of each world in this folder, and take what is there.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Only the worlds, or only the time.
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// Rows, for the time; a tenth with --quick.
    #[arg(long, default_value_t = 10_000_000)]
    rows: usize,
    /// Say what was wrong, and which faults were not found.
    #[arg(long)]
    wrong: bool,
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    let mut results = Results::new("suggest");
    if arguments.options.quick {
        let first = *arguments.seeds.start();
        arguments.seeds = first..=first + 5;
        arguments.rows /= 10;
    }
    let asked = |part: &str| arguments.only.as_deref().is_none_or(|only| only == part);
    if asked("scale") {
        scale::measure(&mut results, arguments.rows);
    }
    if asked("worlds") {
        let worlds = worlds(&arguments)?;
        precision(&mut results, &worlds);
        administrator::measure(&mut results, &worlds);
    }
    results.finish(&arguments.options);
    Ok(())
}

fn worlds(arguments: &Arguments) -> Result<Vec<World>> {
    let mut worlds = Vec::new();
    for seed in arguments.seeds.clone() {
        let gnomon = env!("CARGO_BIN_EXE_gnomon").into();
        let plan = Plan { gnomon, seed, days: arguments.days, rate: arguments.rate };
        let world = world::of(&plan, arguments.keep.as_deref())?;
        if arguments.wrong {
            println!("seed {seed}: {}", world.told.join("; "));
            for (number, (one, right, _)) in (1..).zip(&world.cases) {
                let mark = if *right { "right" } else { "WRONG" };
                println!(
                    "  {number:>2} {mark} {:.2} {:<9} {}",
                    one.confidence.fused,
                    one.kind.name(),
                    one.change.text()
                );
            }
        }
        worlds.push(world);
    }
    Ok(worlds)
}

/// Of the first ten of each world.
fn precision(results: &mut Results, worlds: &[World]) {
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut shares = Vec::new();
    let (mut right, mut all) = (0, 0);
    for world in worlds {
        let top = &world.cases[..world.cases.len().min(10)];
        for (one, is_right, _) in top {
            let kind = kinds.entry(one.kind.name()).or_default();
            kind.0 += usize::from(*is_right);
            kind.1 += 1;
        }
        let found = top.iter().filter(|(_, is_right, _)| *is_right).count();
        shares.push(found as f64 / top.len().max(1) as f64);
        (right, all) = (right + found, all + top.len());
    }
    for (kind, (right, all)) in kinds {
        println!("{kind:<10} {right:>4} of {all:>4} in the first ten are right");
    }
    let said = worlds.iter().flat_map(|world| &world.cases).map(|(one, right, _)| (one.confidence.fused, *right));
    println!("distance of plain confidence and truth, before any answer: {:.3}", report(said).error);
    results.measured("precision of the first ten, all worlds", "", vec![right as f64 / all.max(1) as f64]);
    results.measured("precision of the first ten, by world", "", shares);
    let counts = worlds.iter().map(|world| world.cases.len() as f64).collect();
    results.measured("suggestions of a world", "", counts);
}
