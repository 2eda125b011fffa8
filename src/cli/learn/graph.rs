//! `gnomon learn graph`: flow records → consolidated policies of groups.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use super::alerts::Attacks;
use super::{Form, Members, each_flow, write};
use crate::cli::report::table;
use crate::filter::{Expression, Schema};
use crate::policy::learning::{Graph, Learner, LeftOut, Settings};

/// Learn one consolidated policy for all VMs of each group, from flow records.
///
/// A connection is client, server and service: groups where the configuration has them (the smallest that an address is
/// in), else VMs and networks. Ports that servers choose anew become a range, peers without number become networks.
/// Flows that a detector flagged are left out, and with --alerts all flows between the parties of an attack while it
/// lasted; so is what nobody answered. ICMP errors and neighbour discovery are no connections: they pass without rules.
/// Name resolution, DHCP and time need no evidence beyond one flow.
#[derive(Args, Debug)]
pub(super) struct GraphArgs {
    /// Files of flow records: flows.jsonl, perhaps with .gz; - for standard input.
    #[arg(required = true, value_name = "FLOWS")]
    flows: Vec<PathBuf>,
    /// Configuration that the flows were recorded with: its groups and VMs.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Only this group; may be given several times.
    #[arg(short, long, value_name = "NAME")]
    group: Vec<String>,
    /// Alerts of the same time: alerts.jsonl.
    #[arg(long, value_name = "FILE")]
    alerts: Option<PathBuf>,
    /// Flows that are not to be learnt: an expression as of `gnomon flows`; may be given several times.
    #[arg(long, value_name = "EXPRESSION")]
    except: Vec<String>,
    /// Least flows of a connection.
    #[arg(long, value_name = "NUMBER", default_value_t = Settings::default().min_flows)]
    min_flows: u64,
    /// Least different days (UTC) on which a connection was seen.
    #[arg(long, value_name = "NUMBER", default_value_t = Settings::default().min_days)]
    min_days: usize,
    /// Write the graphs, for the other verbs.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Write a picture for Graphviz: `dot -Tsvg FILE`.
    #[arg(long, value_name = "FILE")]
    dot: Option<PathBuf>,
    /// What is printed: a table, or the graphs as JSON.
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Form,
}

pub(super) fn run(args: &GraphArgs) -> Result<ExitCode> {
    let members = Members::of(&args.config)?;
    let wanted = members.chosen(&args.group)?;
    let mut except = Vec::new();
    for text in &args.except {
        match Expression::parse(text, &Schema::FLOW) {
            Ok(expression) => except.push(expression),
            Err(error) => {
                eprintln!("gnomon: --except: {error}");
                return Ok(ExitCode::from(2));
            }
        }
    }
    let attacks = args.alerts.as_deref().map(Attacks::read).transpose()?.unwrap_or_default();
    let settings = Settings { min_flows: args.min_flows, min_days: args.min_days, ..Settings::default() };
    let mut learner = Learner::new(settings, &wanted, members.sizes.clone());
    each_flow(&args.flows, &members, |seen, line| {
        let excluded = except.iter().any(|expression| expression.matches(&line));
        learner.observe(&attacks.judged(seen), excluded);
        Ok(())
    })?;
    let graphs: Vec<Graph> = learner.finish().into_iter().filter(|graph| graph.flows > 0).collect();
    let json = serde_json::to_string_pretty(&graphs)? + "\n";
    if let Some(path) = &args.write {
        write(Some(path), &json)?;
    }
    if let Some(path) = &args.dot {
        write(Some(path), &Graph::dot(&graphs))?;
    }
    match args.output {
        Form::Json => write(None, &json)?,
        Form::Table => write(None, &text(&graphs))?,
    }
    if graphs.is_empty() {
        return Err(anyhow::anyhow!("no flow has to do with {}", wanted.join(", ")))
            .context("nothing was learnt: are these flows of this configuration?");
    }
    Ok(ExitCode::SUCCESS)
}

fn text(graphs: &[Graph]) -> String {
    let mut out = String::new();
    for graph in graphs {
        let mut rows = table(&["from", "to", "service", "flows", "denied", "days", "VMs"]);
        for edge in &graph.edges {
            let c = &edge.connection;
            let numbers = [edge.permitted, edge.denied, edge.days as u64, edge.vm_count as u64].map(|n| n.to_string());
            let [permitted, denied, days, vms] = numbers;
            rows.add_row([c.from.text(), c.to.text(), c.service.to_string(), permitted, denied, days, vms]);
        }
        let since = crate::export::iso8601(graph.since);
        out += &format!("{}: {} flows since {since}{}\n{rows}\n\n", graph.group, graph.flows, left(&graph.left_out));
    }
    out
}

fn left(out: &LeftOut) -> String {
    let parts = [
        (out.attack, "of attacks"),
        (out.unanswered, "without answer"),
        (out.excluded, "excluded"),
        (out.rare, "too rare"),
        (out.overflow, "beyond the limit of memory"),
    ];
    let told: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if told.is_empty() { String::new() } else { format!("; left out: {}", told.join(", ")) }
}
