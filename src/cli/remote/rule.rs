//! `gnomon rule`: the rules that the policy comes to.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::profile::RULES;
use super::{Access, Client, encoded, shown};

/// Rules that relationships, learned policies, profiles and overrides come to, with what each is from.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct RuleArgs {
    #[command(subcommand)]
    verb: RuleVerb,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  gnomon rule list --running
  gnomon rule show web-to-app
Rules are changed by what they are from: gnomon relationship, profile, override, inbox. `gnomon rules report -c FILE` looks
for rules of a configuration that never act.";

#[derive(Debug, Subcommand)]
enum RuleVerb {
    /// All of them by id.
    List {
        /// What is in force, instead of the draft.
        #[arg(long)]
        running: bool,
    },
    /// One of them.
    Show {
        id: String,
        /// What is in force, instead of the draft.
        #[arg(long)]
        running: bool,
    },
}

pub(in crate::cli) fn run(args: &RuleArgs) -> Result<ExitCode> {
    let client = Client::new(&args.access)?;
    let mut out = std::io::stdout().lock();
    let view = |running: bool| if running { "?view=running" } else { "" };
    match &args.verb {
        RuleVerb::List { running } => {
            let rules = client.list(&format!("/rules{}", view(*running)))?;
            shown::list(&mut out, &args.access, &rules, RULES)?;
        }
        RuleVerb::Show { id, running } => {
            let found = client.get(&format!("/rules/{}{}", encoded(id), view(*running)))?;
            shown::one(&mut out, &args.access, &found.body)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
