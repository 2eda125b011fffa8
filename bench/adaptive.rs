//! Mirrors that adapt, over scenarios with attacks: how soon those with an alert are copied whole, whether everybody else
//! stays at the base share, whether the budget is kept. Prints the figures of each seed, and draws the first one's.
//!
//! `cargo bench --bench adaptive -- [--quick] [--json FILE] [--svg FILE] [--seed N]…`

mod common;
#[path = "adaptive/chart.rs"]
mod chart;
#[path = "adaptive/measure.rs"]
mod measure;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use common::{Options, Results};
use measure::{Plan, judge, run};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Draw share, risk and budget over time
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Seed of a scenario; may be repeated [default: 21, 22, 23]
    #[arg(long = "seed", value_name = "N")]
    seeds: Vec<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seeds = if arguments.seeds.is_empty() { vec![21, 22, 23] } else { arguments.seeds };
    let minutes = if arguments.options.quick { 15 } else { 60 };
    let mut results = Results::new("adaptive");
    for (nth, seed) in seeds.into_iter().enumerate() {
        for (case, budget) in [("ample", None), ("4 Mbit/s", Some(4_000_000))] {
            let plan = Plan { seed, minutes, rate: 20, base: 5.0, hold: 60, budget };
            let folder = tempfile::tempdir()?;
            let outcome = run(env!("CARGO_BIN_EXE_gnomon"), folder.path(), &plan)?;
            let verdict = judge(&outcome);
            let (flagged, whole) = verdict.flagged;
            let (flows, taken, parts) = verdict.base;
            let share = |part: usize, of: usize| 100.0 * part as f64 / of.max(1) as f64;
            let alerts = outcome.watched.iter().filter(|watched| watched.alert).count();
            println!(
                "seed {seed}, {minutes} minutes, {} flows, budget {case}: {alerts} parties with alerts",
                outcome.flows.len()
            );
            println!(
                "  their flows from a second after it on: {whole} of {flagged} copied whole; all copied after {:.2} s",
                verdict.latest
            );
            println!(
                "  flows of nobody watched: {taken} of {flows} copied whole ({:.2} %), {parts} in part",
                share(taken, flows)
            );
            println!(
                "  watched by mistake: {} times, {} flows ({:.2} %)",
                verdict.mistaken.0,
                verdict.mistaken.1,
                share(verdict.mistaken.1, outcome.flows.len())
            );
            println!(
                "  most in a second: {:.2} Mbit/s; {} of {} copies lost",
                verdict.most_bits as f64 / 1e6,
                outcome.lost,
                outcome.selected
            );
            results.measured(
                format!("seed {seed}, {case}: flagged flows copied whole"),
                "%",
                vec![share(whole, flagged)],
            );
            results.measured(format!("seed {seed}, {case}: flows of others copied"), "%", vec![share(taken, flows)]);
            results.measured(
                format!("seed {seed}, {case}: most in a second"),
                "Mbit/s",
                vec![verdict.most_bits as f64 / 1e6],
            );
            if let Some(file) = arguments.svg.as_ref().filter(|_| nth == 0 && budget.is_some()) {
                chart::draw(file, &outcome, budget.unwrap_or(0))?;
            }
        }
    }
    results.finish(&arguments.options);
    Ok(())
}
