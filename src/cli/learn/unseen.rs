//! `gnomon learn unseen`: connections that the consolidated policies do not know.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;

use super::{Form, Members, each_flow, read_graphs, write};
use crate::cli::report::table;
use crate::policy::{Inbox, Item, Learner, Settings};

/// Connections kept apart; flows of more are counted.
const MOST: usize = 100_000;

/// List connections that were never seen while learning, each once, with evidence.
///
/// Exit codes: 0 done (with --strict: and nothing is new), 1 failed (with --strict: or something is new), 2 wrong use.
#[derive(Args, Debug)]
pub(super) struct UnseenArgs {
    /// Graphs that `gnomon learn graph --write` made.
    #[arg(value_name = "GRAPH")]
    graph: PathBuf,
    /// Files of flow records: flows.jsonl, perhaps with .gz; - for standard input.
    #[arg(required = true, value_name = "FLOWS")]
    flows: Vec<PathBuf>,
    /// Configuration that the flows were recorded with: its groups and VMs.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// A table, or a JSON object a line.
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Form,
    /// Exit with 1 when anything is new.
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(args: &UnseenArgs) -> Result<ExitCode> {
    let members = Members::of(&args.config)?;
    let graphs = read_graphs(&args.graph)?;
    let groups: Vec<Arc<str>> = graphs.iter().map(|graph| graph.group.clone()).collect();
    let namer = Learner::new(Settings::default(), &groups, members.sizes.clone());
    let mut inbox = Inbox::new(graphs, namer, MOST);
    each_flow(&args.flows, &members, |seen, _| {
        inbox.observe(seen);
        Ok(())
    })?;
    let (flows, covered, overflow) = (inbox.flows, inbox.covered, inbox.overflow);
    let items = inbox.into_items();
    match args.output {
        Form::Json => {
            let lines: Result<Vec<String>, _> = items.iter().map(serde_json::to_string).collect();
            write(None, &lines?.into_iter().map(|line| line + "\n").collect::<String>())?;
        }
        Form::Table => write(None, &text(&items, flows, covered))?,
    }
    if overflow > 0 {
        eprintln!("gnomon: {overflow} flows of further connections are not listed: no more than {MOST} are kept apart");
    }
    Ok(if args.strict && !items.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(items: &[Item], flows: u64, covered: u64) -> String {
    let mut rows = table(&["group", "connection", "flows", "answered", "denied", "attack", "score", "clients"]);
    for item in items {
        let [flows, answered, denied, attack] =
            [item.flows, item.answered, item.denied, item.attack].map(|n| n.to_string());
        let score = item.max_score.map_or(String::new(), |score| format!("{score:.3}"));
        let connection = item.connection.to_string();
        rows.add_row([
            item.group.to_string(),
            connection,
            flows,
            answered,
            denied,
            attack,
            score,
            item.clients.join(" "),
        ]);
    }
    let told = format!("{} connections are new; {covered} of {flows} flows are of known ones\n", items.len());
    if items.is_empty() { told } else { format!("{rows}\n{told}") }
}
