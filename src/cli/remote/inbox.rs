//! `gnomon inbox`: connections that wait for an answer.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Access, Client, encoded, shown};
use crate::policy::learning::Connection;

/// The inbox: connections that the consolidated policy of a group does not know, waiting for approve or deny.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct InboxArgs {
    #[command(subcommand)]
    verb: InboxVerb,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  gnomon inbox list
  gnomon inbox show 3f1c0a92b7de
  gnomon inbox approve 3f1c0a92b7de --reason 'new release'
  gnomon inbox deny --for 1d 3f1c0a92b7de 77ab01c2d3e4";

#[derive(Debug, Subcommand)]
enum InboxVerb {
    /// What waits.
    List {
        /// Items in another state.
        #[arg(long, value_name = "STATE", default_value = "pending",
              value_parser = ["pending", "approved", "denied", "expired", "merged", "all"])]
        state: String,
    },
    /// One connection with its evidence.
    Show { id: String },
    /// Allow connections: the consolidated policies of their groups have them then, and every VM under those.
    Approve(Said),
    /// Deny connections.
    Deny(Said),
}

#[derive(Debug, Args)]
struct Said {
    /// Of `gnomon inbox list`; all of them become one generation.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// How long the answer holds.
    #[arg(long = "for", value_name = "TIME", value_parser = ["once", "1h", "1d", "good"], default_value = "good")]
    lasting: String,
    /// For the audit log.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

pub(in crate::cli) fn run(args: &InboxArgs) -> Result<ExitCode> {
    let (client, access) = (Client::new(&args.access)?, &args.access);
    let mut out = std::io::stdout().lock();
    match &args.verb {
        InboxVerb::List { state } => {
            let mut items = client.list(&format!("/inbox?state={state}"))?;
            if !access.wants_json() {
                items.iter_mut().for_each(name_connection);
            }
            let columns = [
                ("id", "/id"),
                ("connection", "/connection"),
                ("of", "/item/groups"),
                ("flows", "/item/flows"),
                ("score", "/item/max_score"),
                ("first (UTC)", "/item/first"),
                ("last", "/item/last"),
                ("state", "/state"),
                ("by", "/by"),
            ];
            shown::list(&mut out, access, &items, &columns)?;
        }
        InboxVerb::Show { id } => {
            let found = client.get(&format!("/inbox/{}", encoded(id)))?;
            shown::one(&mut out, access, &found.body)?;
        }
        InboxVerb::Approve(said) => answer(&mut out, &client, access, said, true)?,
        InboxVerb::Deny(said) => answer(&mut out, &client, access, said, false)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(out: &mut impl Write, client: &Client, access: &Access, said: &Said, approve: bool) -> Result<()> {
    let body = json!({ "ids": said.ids, "approve": approve, "for": said.lasting, "reason": said.reason });
    let answered = client.post("/inbox/answers", Some(&body))?.body;
    if access.wants_json() {
        writeln!(out, "{answered}")?;
        return Ok(());
    }
    let verb = if approve { "approved" } else { "denied" };
    match answered["committed"]["generation"].as_u64() {
        Some(generation) => writeln!(out, "{} {verb}: in force as generation {generation}", said.ids.join(", "))?,
        None => writeln!(out, "{} {verb}: no rule had to change", said.ids.join(", "))?,
    }
    Ok(())
}

/// The connection in words, beside its parts.
fn name_connection(item: &mut Value) {
    if let Ok(connection) = serde_json::from_value::<Connection>(item["item"].clone()) {
        item["connection"] = connection.to_string().into();
    }
}
