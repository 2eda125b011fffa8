//! `gnomon tag`: what groups pick VMs by.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::noun::{How, changed};
use super::shown;
use super::{Access, Client, encoded};

/// Tags of VMs: which there are, who carries them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct TagArgs {
    #[command(subcommand)]
    verb: TagVerb,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  gnomon tag list
  gnomon tag add role=web web-1 web-2 --now      both are under the group's policy at once
  gnomon tag remove role=web web-2
  gnomon tag show role=web";

#[derive(Debug, Subcommand)]
enum TagVerb {
    /// All tags.
    List {
        /// What is in force, instead of the draft.
        #[arg(long)]
        running: bool,
    },
    /// VMs that carry a tag.
    Show {
        tag: String,
        /// What is in force, instead of the draft.
        #[arg(long)]
        running: bool,
    },
    /// Give a tag to VMs.
    Add {
        tag: String,
        /// Their ids.
        #[arg(required = true, value_name = "VM")]
        vms: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Take a tag from VMs.
    Remove {
        tag: String,
        /// Their ids.
        #[arg(required = true, value_name = "VM")]
        vms: Vec<String>,
        #[command(flatten)]
        how: How,
    },
}

pub(in crate::cli) fn run(args: &TagArgs) -> Result<ExitCode> {
    let (client, access) = (Client::new(&args.access)?, &args.access);
    let mut out = std::io::stdout().lock();
    let view = |running: bool| if running { "?view=running" } else { "" };
    let change =
        |tag: &str, how: &How, body| client.post(&format!("/tags/{}{}", encoded(tag), how.query()), Some(&body));
    match &args.verb {
        TagVerb::List { running } => {
            let tags = client.list(&format!("/tags{}", view(*running)))?;
            shown::list(&mut out, access, &tags, &[("tag", "/tag"), ("VMs", "/vms")])?;
        }
        TagVerb::Show { tag, running } => {
            let found = client.get(&format!("/tags/{}{}", encoded(tag), view(*running)))?;
            shown::one(&mut out, access, &found.body)?;
        }
        TagVerb::Add { tag, vms, how } => {
            let reply = change(tag, how, json!({ "add": vms }))?;
            changed(&mut out, access, how, &format!("{tag} given to {}", vms.join(", ")), &reply)?;
        }
        TagVerb::Remove { tag, vms, how } => {
            let reply = change(tag, how, json!({ "remove": vms }))?;
            changed(&mut out, access, how, &format!("{tag} taken from {}", vms.join(", ")), &reply)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
