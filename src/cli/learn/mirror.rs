//! `gnomon learn mirror`: what one group was seen to do, as rules for another.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};

use super::rules::say;
use super::{read_graphs, write};
use crate::cli::report::table;
use crate::policy::learning::{Plan, Profile};

/// Copy the consolidated policy of one group to another, as far as a strength goes.
///
/// Each connection of the source is kept with the probability that the strength says. Which ones depends on the
/// connection and the seed alone: the same again is the same, and a greater strength keeps all that a smaller one kept.
/// Name resolution, DHCP and time are kept at any strength. What is not kept is denied.
#[derive(Args, Debug)]
pub(super) struct MirrorArgs {
    /// Graphs that `gnomon learn graph --write` made.
    #[arg(value_name = "GRAPH")]
    graph: PathBuf,
    /// Group that was learnt.
    #[arg(long, value_name = "GROUP")]
    from: String,
    /// Group that gets the rules.
    #[arg(long, value_name = "GROUP")]
    to: String,
    /// Share of the connections that are kept, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0, value_parser = percent)]
    strength: f64,
    /// Another seed keeps others.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// Rules as of a configuration, a table of what is kept and left out, or that as JSON.
    #[arg(short, long, value_name = "FORM", default_value = "toml")]
    output: PlanForm,
    /// Write rules to a file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PlanForm {
    Toml,
    Table,
    Json,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').parse().ok().filter(|n| (0.0..=100.0).contains(n));
    number.ok_or_else(|| "a strength is a number from 0 to 100".to_owned())
}

pub(super) fn run(args: &MirrorArgs) -> Result<ExitCode> {
    let graphs = read_graphs(&args.graph)?;
    let graph = graphs.iter().find(|graph| *graph.group == *args.from).ok_or_else(|| {
        let known: Vec<&str> = graphs.iter().map(|graph| &*graph.group).collect();
        anyhow!("{} has no graph of group `{}`; it has {}", args.graph.display(), args.from, known.join(", "))
    })?;
    let strength = args.strength / 100.0;
    let plan = Profile { source: args.from.clone(), target: args.to.clone(), strength, seed: args.seed }.plan(graph);
    match args.output {
        PlanForm::Toml => {
            let (rules, unsaid) = plan.rules();
            return say(args.write.as_deref(), rules, &unsaid);
        }
        PlanForm::Json => write(args.write.as_deref(), &(serde_json::to_string_pretty(&plan)? + "\n"))?,
        PlanForm::Table => write(args.write.as_deref(), &text(&plan))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(plan: &Plan) -> String {
    let mut rows = table(&["", "from", "to", "service", "from strength"]);
    let marked = plan.kept.iter().map(|m| ("kept", m)).chain(plan.left.iter().map(|m| ("", m)));
    for (mark, mirrored) in marked {
        let c = &mirrored.connection;
        let from = match mirrored.protected {
            true => "always".to_owned(),
            false => format!("{:.0} %", (mirrored.from_strength * 100.0).ceil()),
        };
        rows.add_row([mark.to_owned(), c.from.text(), c.to.text(), c.service.to_string(), from]);
    }
    let all = plan.kept.len() + plan.left.len();
    format!(
        "{} for {} at {:.0} %: {} of {all} connections, the rest is denied\n{rows}\n",
        plan.source,
        plan.target,
        plan.strength * 100.0,
        plan.kept.len()
    )
}
