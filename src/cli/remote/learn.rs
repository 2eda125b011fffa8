//! `gnomon learn start|stop|status|show`: learning mode of the running policy.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::shown::{self, text};
use super::{Access, Client, encoded, given};
use crate::policy::learning::Graph;

/// Begin to learn what the VMs of a group talk to, from the flows of the running appliance.
#[derive(Debug, Args)]
pub(in crate::cli) struct StartArgs {
    /// The group.
    group: String,
    /// Different days on which a connection must have been seen.
    #[arg(long, value_name = "DAYS")]
    min_days: Option<u64>,
    /// Flows that a connection must have had.
    #[arg(long, value_name = "NUMBER")]
    min_flows: Option<u64>,
    /// Enforce what was learnt after so many days without anything new; 0: a person says when.
    #[arg(long, value_name = "DAYS")]
    stable_days: Option<u64>,
    /// Forget what was last seen so long ago; 0: nothing.
    #[arg(long, value_name = "DAYS")]
    look_back_days: Option<u64>,
    /// Flows that are not to be learnt, an expression as of `gnomon flows`; may be given several times.
    #[arg(long, value_name = "EXPRESSION")]
    except: Vec<String>,
    /// What becomes of connections that wait in the inbox, once it is enforced.
    #[arg(long, value_parser = ["allow", "deny"])]
    pending: Option<String>,
    #[command(flatten)]
    access: Access,
}

/// End learning.
#[derive(Debug, Args)]
pub(in crate::cli) struct StopArgs {
    /// The group.
    group: String,
    /// What was learnt is the group's policy from now on: all else is denied, or waits in the inbox.
    #[arg(long)]
    enforce: bool,
    #[command(flatten)]
    access: Access,
}

/// Groups that learn or have a consolidated policy, and how far they are.
#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    #[command(flatten)]
    access: Access,
}

/// What a group has learnt so far.
#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// The group.
    group: String,
    #[command(flatten)]
    access: Access,
}

pub(in crate::cli) fn start(args: &StartArgs) -> Result<ExitCode> {
    let body = given([
        ("min_days", args.min_days.into()),
        ("min_flows", args.min_flows.into()),
        ("stable_days", args.stable_days.into()),
        ("look_back_days", args.look_back_days.into()),
        ("except", args.except.as_slice().into()),
        ("pending", args.pending.as_ref().into()),
    ]);
    let path = format!("/learning/{}/start", encoded(&args.group));
    let found = Client::new(&args.access)?.post(&path, Some(&Value::Object(body)))?.body;
    tell(&args.access, &found, &format!("{} learns", args.group))
}

pub(in crate::cli) fn stop(args: &StopArgs) -> Result<ExitCode> {
    let path = format!("/learning/{}/stop", encoded(&args.group));
    let found = Client::new(&args.access)?.post(&path, Some(&json!({ "enforce": args.enforce })))?.body;
    let what = if args.enforce { "enforces what it learnt" } else { "learns no more" };
    tell(&args.access, &found, &format!("{} {what}", args.group))
}

fn tell(access: &Access, found: &Value, what: &str) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match access.wants_json() {
        true => writeln!(out, "{found}")?,
        false => writeln!(out, "{what}: generation {} is in force", text(&found["generation"]))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn status(args: &StatusArgs) -> Result<ExitCode> {
    let lessons = Client::new(&args.access)?.list("/learning")?;
    let columns = [
        ("group", "/group"),
        ("state", "/state"),
        ("connections", "/connections"),
        ("flows", "/flows"),
        ("since (UTC)", "/since"),
        ("until", "/until"),
        ("stable since", "/stable_since"),
    ];
    shown::list(&mut std::io::stdout().lock(), &args.access, &lessons, &columns)?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn show(args: &ShowArgs) -> Result<ExitCode> {
    let found = Client::new(&args.access)?.get(&format!("/learning/{}/graph", encoded(&args.group)))?.body;
    let mut out = std::io::stdout().lock();
    if args.access.wants_json() {
        writeln!(out, "{found}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let graph: Graph = serde_json::from_value(found)?;
    let edges: Vec<Value> = graph
        .edges
        .iter()
        .map(|edge| {
            json!({
                "connection": edge.connection.to_string(),
                "permitted": edge.permitted,
                "denied": edge.denied,
                "days": edge.days,
                "vms": edge.vm_count,
            })
        })
        .collect();
    let columns = [
        ("connection", "/connection"),
        ("permitted", "/permitted"),
        ("denied", "/denied"),
        ("days", "/days"),
        ("VMs", "/vms"),
    ];
    shown::list(&mut out, &args.access, &edges, &columns)?;
    Ok(ExitCode::SUCCESS)
}
