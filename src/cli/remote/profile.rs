//! `gnomon profile`: the policy of one group for another.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::noun::{NounVerb, Thing, run as run_noun};
use super::shown::{self, Column, text};
use super::{Access, Client, encoded, given};

/// Profiles: the consolidated policy of one group, or a share of it, for another.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct ProfileArgs {
    #[command(subcommand)]
    verb: ProfileVerb,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  gnomon profile add web-to-new --source web --target web-new --strength 50
  gnomon profile preview web-to-new --strength 75        which connections that would be
  gnomon profile set web-to-new --strength 75
  gnomon profile remove web-to-new";

#[derive(Debug, Subcommand)]
enum ProfileVerb {
    #[command(flatten)]
    Noun(NounVerb<Fields>),
    /// Which connections of the source it gives to the target.
    Preview {
        /// Its name.
        name: String,
        /// As if it had this strength, in percent.
        #[arg(long, value_name = "PERCENT")]
        strength: Option<f64>,
    },
}

#[derive(Debug, Args)]
struct Fields {
    /// Group whose consolidated policy is copied.
    #[arg(long, value_name = "GROUP")]
    source: Option<String>,
    /// Group that gets it; VMs are under it as soon as they carry the group's tags.
    #[arg(long, value_name = "GROUP")]
    target: Option<String>,
    /// Share of the connections that are copied, in percent; more keeps all that less kept.
    #[arg(long, value_name = "PERCENT")]
    strength: Option<f64>,
    /// Another seed copies others.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// For people.
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

impl Thing for Fields {
    const PATH: &'static str = "/profiles";
    const COLUMNS: &'static [Column] = &[
        ("name", "/name"),
        ("source", "/source"),
        ("target", "/target"),
        ("strength", "/strength"),
        ("seed", "/seed"),
        ("comment", "/comment"),
    ];

    fn fields(&self) -> Result<Map<String, Value>> {
        Ok(given([
            ("source", self.source.as_ref().into()),
            ("target", self.target.as_ref().into()),
            ("strength", self.strength.into()),
            ("seed", self.seed.into()),
            ("comment", self.comment.as_ref().into()),
        ]))
    }
}

pub(in crate::cli) fn run(args: &ProfileArgs) -> Result<ExitCode> {
    match &args.verb {
        ProfileVerb::Noun(verb) => run_noun(&args.access, verb),
        ProfileVerb::Preview { name, strength } => preview(&args.access, name, *strength),
    }
}

fn preview(access: &Access, name: &str, strength: Option<f64>) -> Result<ExitCode> {
    let strength = strength.map_or(String::new(), |strength| format!("?strength={strength}"));
    let found = Client::new(access)?.get(&format!("/profiles/{}/preview{strength}", encoded(name)))?.body;
    let mut out = std::io::stdout().lock();
    if access.wants_json() {
        writeln!(out, "{found}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let of = |name: &str| found[name].as_array().map_or(&[][..], Vec::as_slice);
    let (kept, left) = (of("kept"), of("left"));
    let columns = [("connection", "/connection"), ("from strength", "/from_strength"), ("protected", "/protected")];
    shown::list(&mut out, access, kept, &columns)?;
    let all = kept.len() + left.len();
    writeln!(
        out,
        "{} of {all} connections of {} at {} %",
        kept.len(),
        text(&found["source"]),
        text(&found["strength"])
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Columns of rules.
pub(super) const RULES: &[Column] = &[
    ("id", "/id"),
    ("from", "/from"),
    ("to", "/to"),
    ("protocol", "/protocol"),
    ("ports", "/ports"),
    ("action", "/action"),
    ("priority", "/priority"),
    ("tier", "/tier"),
    ("mode", "/mode"),
    ("of", "/origin/kind"),
    ("name", "/origin/name"),
];
