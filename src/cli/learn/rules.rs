//! `gnomon learn rules`: consolidated policies → rules of a configuration.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{read_graphs, write};
use crate::policy::learning::Connection;
use crate::policy::learning::rules::{LearnedRule, RuleFile, of_graphs};

/// Print what was learnt as rules, in the form of a configuration.
///
/// The rules stand in the tier `learned`: what people wrote goes first. The same connection has the same id each time.
#[derive(Args, Debug)]
pub(super) struct RulesArgs {
    /// Graphs that `gnomon learn graph --write` made.
    #[arg(value_name = "GRAPH")]
    graph: PathBuf,
    /// Deny everything else from and to the groups.
    #[arg(long)]
    deny_rest: bool,
    /// Write to a file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
}

pub(super) fn run(args: &RulesArgs) -> Result<ExitCode> {
    let (rules, unsaid) = of_graphs(&read_graphs(&args.graph)?, args.deny_rest);
    say(args.write.as_deref(), rules, &unsaid)
}

/// Writes rules, and names what rules cannot say.
pub(super) fn say(path: Option<&Path>, rules: Vec<LearnedRule>, unsaid: &[Connection]) -> Result<ExitCode> {
    write(path, &toml::to_string(&RuleFile { rule: rules })?)?;
    for connection in unsaid {
        eprintln!("gnomon: no rule for `{connection}`: rules name groups and networks; put the VM into a group");
    }
    Ok(ExitCode::SUCCESS)
}
