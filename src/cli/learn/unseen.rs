//! `gnomon learn unseen`: connections that the consolidated policies do not know.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;

use super::alerts::Attacks;
use super::{Form, Members, each_flow, read_graphs, write};
use crate::cli::report::table;
use crate::policy::learning::{Item, Learner, Settings, Unseen};

/// Connections kept apart; flows of more are counted.
const MOST: usize = 100_000;

/// List connections that were never seen while learning, each once, with evidence.
///
/// Left out are those of whose flows detectors named half or more: they are told as alerts.
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
    /// Alerts of the same time, alerts.jsonl: flows between the parties of an attack while it lasted are part of it.
    #[arg(long, value_name = "FILE")]
    alerts: Option<PathBuf>,
    /// A table, or a JSON object a line.
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Form,
    /// Connections of attacks, too.
    #[arg(long)]
    attacks: bool,
    /// Most rows of the table; 0 for all.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
    /// Exit with 1 when anything is new.
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(args: &UnseenArgs) -> Result<ExitCode> {
    let members = Members::of(&args.config)?;
    let graphs = read_graphs(&args.graph)?;
    let groups: Vec<Arc<str>> = graphs.iter().map(|graph| graph.group.clone()).collect();
    let namer = Learner::new(Settings::default(), &groups, members.sizes.clone());
    let attacks = args.alerts.as_deref().map(Attacks::read).transpose()?.unwrap_or_default();
    let mut inbox = Unseen::new(&graphs, namer, MOST);
    each_flow(&args.flows, &members, |seen, _| {
        inbox.observe(&attacks.judged(seen));
        Ok(())
    })?;
    let (flows, covered, overflow) = (inbox.flows, inbox.covered, inbox.overflow);
    let mut items = inbox.into_items();
    let all = items.len();
    items.retain(|item| args.attacks || !item.is_attack());
    let of_attacks = all - items.len();
    match args.output {
        Form::Json => {
            let lines: Result<Vec<String>, _> = items.iter().map(serde_json::to_string).collect();
            write(None, &lines?.into_iter().map(|line| line + "\n").collect::<String>())?;
        }
        Form::Table => {
            write(None, &text(&items, args.limit))?;
            let told = if of_attacks > 0 { format!(", {of_attacks} more are of attacks") } else { String::new() };
            let new = match items.len() {
                1 => "1 connection is new".to_owned(),
                count => format!("{count} connections are new"),
            };
            println!("{new}{told}; {covered} of {flows} flows are of known ones");
        }
    }
    if overflow > 0 {
        eprintln!("gnomon: {overflow} flows of further connections are not listed: no more than {MOST} are kept apart");
    }
    Ok(if args.strict && !items.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(items: &[Item], limit: usize) -> String {
    let mut rows = table(&["connection", "new to", "flows", "answered", "denied", "attack", "score", "clients"]);
    let shown = if limit == 0 { items.len() } else { limit };
    for Item { connection, evidence } in items.iter().take(shown) {
        let [flows, answered, denied, attack] =
            [evidence.flows, evidence.answered, evidence.denied, evidence.attack].map(|n| n.to_string());
        let score = evidence.max_score.map_or(String::new(), |score| format!("{score:.3}"));
        let [groups, clients] = [&evidence.groups, &evidence.clients]
            .map(|names| names.iter().map(|name| &**name).collect::<Vec<_>>().join(" "));
        rows.add_row([connection.to_string(), groups, flows, answered, denied, attack, score, clients]);
    }
    match items.len() {
        0 => String::new(),
        all if all > shown => format!("{rows}\n{} more; --limit 0 shows all\n", all - shown),
        _ => format!("{rows}\n"),
    }
}
