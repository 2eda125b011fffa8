//! Detection over simulated weeks: made captures with working days and nights, weekends, harmless oddities and attacks of
//! all kinds at random times, through the appliance with the scenario's own configuration and the default thresholds;
//! alerts against the truth. Prints recall and time to detect by kind, and false alerts a day.
//!
//! A week at a rate of 0.25 is about six million packets and takes 9 GB in the temporary folder (`TMPDIR`) for the
//! minute that it is needed.
//!
//! `cargo bench --bench weeks -- [--quick] [--json FILE] [--days N] [--seeds A-B] [--rate R]… [--misses]`

mod common;
#[path = "weeks/judge.rs"]
mod judge;
#[path = "weeks/play.rs"]
mod play;

use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;

use common::{Options, Results};
use judge::{Tally, Verdict};
use play::Plan;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Simulated days; 1 with --quick
    #[arg(long, default_value_t = 7)]
    days: u32,
    /// Seeds, as in 101-105; the first one with --quick
    #[arg(long, default_value = "101-105", value_parser = common::seeds)]
    seeds: std::ops::RangeInclusive<u64>,
    /// New flows a second at the busiest hour; may be repeated [default: 0.1, 0.25]
    #[arg(long = "rate", value_name = "R")]
    rates: Vec<f64>,
    /// Attacks a day, and harmless oddities
    #[arg(long, default_value_t = 6)]
    attacks: u32,
    #[arg(long, default_value_t = 2)]
    oddities: u32,
    /// Also say what was missed, and each false alert
    #[arg(long)]
    misses: bool,
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.options.quick {
        arguments.days = arguments.days.min(1);
        arguments.seeds = *arguments.seeds.start()..=*arguments.seeds.start();
    }
    let rates = if arguments.rates.is_empty() { vec![0.1, 0.25] } else { arguments.rates.clone() };
    let mut results = Results::new("weeks");
    for rate in rates {
        let mut tally = Tally::default();
        let mut days = Vec::new();
        for seed in arguments.seeds.clone() {
            let verdict = one(&arguments, seed, rate)?;
            days.push(verdict.false_alerts.len() as f64 / verdict.days);
            tally.add(verdict);
        }
        print!("{}", tally.table(rate));
        let recall = 100.0 * tally.found() as f64 / tally.attacks().max(1) as f64;
        results.measured(format!("rate {rate}: attacks found"), "%", vec![recall]);
        results.measured(format!("rate {rate}: false alerts a day"), "alerts", days);
    }
    results.finish(&arguments.options);
    Ok(())
}

fn one(arguments: &Arguments, seed: u64, rate: f64) -> Result<Verdict> {
    let folder = tempfile::tempdir()?;
    let plan =
        Plan { seed, rate, minutes: arguments.days * 1440, attacks: arguments.attacks, oddities: arguments.oddities };
    let began = Instant::now();
    play::run(env!("CARGO_BIN_EXE_gnomon"), folder.path(), &plan)?;
    let verdict = judge::judge(folder.path()).context("the results of the replay")?;
    println!(
        "seed {seed}, {} days, rate {rate}: {} packets, {} of {} attacks found, {} false alerts; {:.0} s",
        verdict.days,
        verdict.packets,
        verdict.attacks.iter().filter(|attack| attack.found.is_some()).count(),
        verdict.attacks.len(),
        verdict.false_alerts.len(),
        began.elapsed().as_secs_f64()
    );
    if arguments.misses {
        verdict.attacks.iter().filter(|attack| attack.found.is_none()).for_each(|attack| println!("  missed {attack}"));
        verdict.false_alerts.iter().for_each(|alert| println!("  false {alert}"));
    }
    Ok(verdict)
}
