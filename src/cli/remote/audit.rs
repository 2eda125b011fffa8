//! `gnomon audit`: who did what, and whether the log is whole.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::shown::{Column, text};
use super::{Access, Client, shown};

/// The audit log: who did what, when and why; each entry holds the hash of the one before it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct AuditArgs {
    #[command(subcommand)]
    verb: AuditVerb,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  gnomon audit list
  gnomon audit verify                 exit code 1 if an entry was changed or is missing
  gnomon audit list -o json > audit.jsonl";

#[derive(Debug, Subcommand)]
enum AuditVerb {
    /// All entries, the oldest first.
    List {
        /// Entries behind this number only.
        #[arg(long, value_name = "NUMBER")]
        since: Option<u64>,
    },
    /// Check the chain of hashes from the first entry to the last.
    Verify,
}

const COLUMNS: &[Column] = &[
    ("number", "/number"),
    ("at (UTC)", "/at"),
    ("who", "/who"),
    ("what", "/what"),
    ("subject", "/subject"),
    ("why", "/why"),
];

pub(in crate::cli) fn run(args: &AuditArgs) -> Result<ExitCode> {
    let (client, access) = (Client::new(&args.access)?, &args.access);
    let mut out = std::io::stdout().lock();
    match &args.verb {
        AuditVerb::List { since } => {
            let mut entries = client.list("/audit")?;
            entries.retain(|entry| since.is_none_or(|since| entry["number"].as_u64() > Some(since)));
            shown::list(&mut out, access, &entries, COLUMNS)?;
        }
        AuditVerb::Verify => {
            let found = client.get("/audit/verify")?.body;
            let is_whole = found["whole"] == true;
            match access.wants_json() {
                true => writeln!(out, "{found}")?,
                false if is_whole => writeln!(out, "the audit log is whole: {} entries", text(&found["entries"]))?,
                false => writeln!(out, "the audit log is NOT whole: {}", text(&found["fault"]))?,
            }
            if !is_whole {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
