//! `gnomon audit`: who did what, and whether the log is whole.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::shown::{Column, text};
use super::{Access, Client, shown};

/// The audit log: who did what, when and why; each row holds the hash of the one before it.
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
  gnomon audit verify                 exit code 1 if a row was changed or is missing
  gnomon audit list --limit 0 -o json > audit.jsonl";

#[derive(Debug, Subcommand)]
enum AuditVerb {
    /// The latest rows, the newest first.
    List {
        /// Rows; 0 for all.
        #[arg(short, long, value_name = "NUMBER", default_value_t = 20)]
        limit: usize,
    },
    /// Check the chain of hashes from the first entry to the last.
    Verify,
}

const COLUMNS: &[Column] = &[
    ("number", "/number"),
    ("at (UTC)", "/at"),
    ("who", "/who"),
    ("role", "/role"),
    ("what", "/action"),
    ("to what", "/object"),
    ("detail", "/detail"),
];

pub(in crate::cli) fn run(args: &AuditArgs) -> Result<ExitCode> {
    let (client, access) = (Client::new(&args.access)?, &args.access);
    let mut out = std::io::stdout().lock();
    match &args.verb {
        AuditVerb::List { limit } => shown::list(&mut out, access, &client.first("/audit", *limit)?, COLUMNS)?,
        AuditVerb::Verify => {
            let found = client.get("/audit/verify")?.body;
            let (rows, broken) = (text(&found["rows"]), &found["broken"]);
            let is_whole = broken.is_null();
            match access.wants_json() {
                true => writeln!(out, "{found}")?,
                false if is_whole => {
                    writeln!(out, "the audit log is whole: {rows} rows, the last is {}", text(&found["head"]))?
                }
                false => writeln!(
                    out,
                    "the audit log is NOT whole: row {}: {}",
                    text(&broken["number"]),
                    text(&broken["reason"])
                )?,
            }
            if !is_whole {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
