//! `gnomon suggestion`: proposed changes of the policy.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Access, Client, encoded, shown};
use crate::cli::units;
use crate::policy::suggest::Suggestion;

/// Suggestions: changes of the policy that traffic speaks for, with confidence and evidence.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct SuggestionArgs {
    #[command(subcommand)]
    verb: SuggestionVerb,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  gnomon suggestion list
  gnomon suggestion show narrow-3f1c0a92b7de
  gnomon suggestion accept narrow-3f1c0a92b7de --confirm 5m
  gnomon suggestion reject retire-77ab01c2d3e4 --reason 'needed at the end of the year'
  gnomon suggestion feedback";

#[derive(Debug, Subcommand)]
enum SuggestionVerb {
    /// What is proposed, the best first.
    List {
        /// Suggestions in another state.
        #[arg(long, value_name = "STATE", default_value = "open",
              value_parser = ["open", "accepted", "rejected", "returned"])]
        state: String,
    },
    /// One suggestion with its evidence.
    Show { id: String },
    /// Put a suggestion in force, as a generation of its own.
    Accept {
        id: String,
        /// For the audit log, and for what is proposed next.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// It goes back by itself after this time, such as 5m, unless `gnomon policy confirm` comes first.
        #[arg(long, value_name = "TIME", value_parser = units::time)]
        confirm: Option<Duration>,
    },
    /// Say no: it does not come again without new evidence.
    Reject {
        id: String,
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// How good suggestions were: trust of each kind, confidence against acceptance.
    Feedback,
}

pub(in crate::cli) fn run(args: &SuggestionArgs) -> Result<ExitCode> {
    let (client, access) = (Client::new(&args.access)?, &args.access);
    let mut out = std::io::stdout().lock();
    match &args.verb {
        SuggestionVerb::List { state } => {
            let mut items = client.list(&format!("/suggestions?state={state}"))?;
            if !access.wants_json() {
                items.iter_mut().for_each(name_change);
            }
            let columns = [
                ("id", "/id"),
                ("change", "/change"),
                ("confidence", "/confidence"),
                ("flows", "/suggestion/evidence/flows"),
                ("reason", "/suggestion/reason"),
            ];
            shown::list(&mut out, access, &items, &columns)?;
        }
        SuggestionVerb::Show { id } => {
            let found = client.get(&format!("/suggestions/{}", encoded(id)))?;
            shown::one(&mut out, access, &found.body)?;
        }
        SuggestionVerb::Accept { id, reason, confirm } => {
            let seconds = confirm.map(|time| time.as_secs().max(1));
            let body = json!({ "accept": true, "reason": reason, "confirm_within": seconds });
            let answered = client.post(&format!("/suggestions/{}/answer", encoded(id)), Some(&body))?.body;
            match answered["generation"].as_u64() {
                _ if access.wants_json() => writeln!(out, "{answered}")?,
                Some(generation) => writeln!(out, "{id} accepted: in force as generation {generation}")?,
                None => writeln!(out, "{id} accepted: it is advice, no rule had to change")?,
            }
        }
        SuggestionVerb::Reject { id, reason } => {
            let body = json!({ "accept": false, "reason": reason });
            let answered = client.post(&format!("/suggestions/{}/answer", encoded(id)), Some(&body))?.body;
            match access.wants_json() {
                true => writeln!(out, "{answered}")?,
                false => writeln!(out, "{id} rejected")?,
            }
        }
        SuggestionVerb::Feedback => shown::one(&mut out, access, &client.get("/feedback")?.body)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Change and confidence in words.
fn name_change(item: &mut Value) {
    if let Ok(one) = serde_json::from_value::<Suggestion>(item["suggestion"].clone()) {
        item["change"] = one.change.text().into();
        item["confidence"] = format!("{:.2}", one.confidence.fused).into();
    }
}
