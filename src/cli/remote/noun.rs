//! What verbs of things have in common: list, show, add, set, remove.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::Reply;
use super::shown::{self, Column};
use super::{Access, Client, encoded};

/// A kind of thing on the command line.
pub(super) trait Thing: Args {
    /// Of its path: `/vms`.
    const PATH: &'static str;
    /// What is shown of it in lists.
    const COLUMNS: &'static [Column];
    /// Field with its name.
    const NAME: &'static str = "name";

    /// What was given on the command line: fields of the body.
    fn fields(&self) -> Result<Map<String, Value>>;
}

/// What can be done with things.
#[derive(Debug, Subcommand)]
pub(super) enum NounVerb<F: Args> {
    /// All of them.
    List {
        /// What is in force, instead of the draft.
        #[arg(long)]
        running: bool,
    },
    /// One of them.
    Show {
        /// Its name or id.
        name: String,
        /// As it is in force, instead of in the draft.
        #[arg(long)]
        running: bool,
    },
    /// Add one to the draft.
    Add {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        fields: F,
        #[command(flatten)]
        how: How,
    },
    /// Change some of it in the draft: what is given takes the place of what was there.
    Set {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        fields: F,
        #[command(flatten)]
        how: How,
    },
    /// Remove some from the draft.
    Remove {
        /// Their names or ids.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        how: How,
    },
}

/// How a change is made.
#[derive(Clone, Debug, Args)]
pub(super) struct How {
    /// Only say what would come of it.
    #[arg(long)]
    dry_run: bool,
    /// Put it in force at once, as one generation, instead of in the draft. Needs the role admin.
    #[arg(long)]
    now: bool,
    /// For the audit log and the history.
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

impl How {
    /// As parameters of a query, with the `?`.
    pub(super) fn query(&self) -> String {
        let flags = [("dry_run", self.dry_run), ("at_once", self.now)];
        let flags = flags.iter().filter(|(_, is)| *is).map(|(name, _)| format!("{name}=true"));
        let why = self.why.iter().map(|why| format!("why={}", encoded(why)));
        let parts: Vec<String> = flags.chain(why).collect();
        if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
    }

    /// What came of a change, in a line.
    pub(super) fn told(&self, what: &str, reply: &Reply) -> String {
        let body = &reply.body;
        let place = match (self.dry_run, body["generation"].as_u64()) {
            (true, _) => "nothing was changed: this was a dry run".to_owned(),
            (false, Some(generation)) => format!("in force as generation {generation}"),
            (false, None) => "in the draft; `gnomon policy commit` puts it in force".to_owned(),
        };
        let mut text = format!("{what}: {place}\n");
        for conflict in body["conflicts"].as_array().into_iter().flatten() {
            text.push_str(&format!("  note: {}\n", conflict["explanation"].as_str().unwrap_or_default()));
        }
        text
    }
}

fn view(running: bool) -> &'static str {
    if running { "?view=running" } else { "?view=draft" }
}

pub(super) fn run<F: Thing>(access: &Access, verb: &NounVerb<F>) -> Result<ExitCode> {
    let client = Client::new(access)?;
    let mut out = std::io::stdout().lock();
    match verb {
        NounVerb::List { running } => {
            let items = client.list(&format!("{}{}", F::PATH, view(*running)))?;
            shown::list(&mut out, access, &items, F::COLUMNS)?;
        }
        NounVerb::Show { name, running } => {
            let found = client.get(&format!("{}{}", place::<F>(name), view(*running)))?;
            shown::one(&mut out, access, &found.body)?;
        }
        NounVerb::Add { name, fields, how } => {
            let mut body = fields.fields()?;
            body.insert(F::NAME.to_owned(), json!(name));
            let reply = client.post(&format!("{}{}", F::PATH, how.query()), Some(&Value::Object(body)))?;
            changed(&mut out, access, how, &format!("{name} added"), &reply)?;
        }
        NounVerb::Set { name, fields, how } => {
            let fields = fields.fields()?;
            if fields.is_empty() {
                bail!("nothing to set: give at least one of its fields");
            }
            let before = client.get(&format!("{}{}", place::<F>(name), view(how.now)))?;
            let mut body = before.body;
            if let Value::Object(known) = &mut body {
                known.extend(fields);
            }
            let at = format!("{}{}", place::<F>(name), how.query());
            let reply = client.ask("PUT", &at, before.etag.as_deref(), Some(&body))?;
            changed(&mut out, access, how, &format!("{name} changed"), &reply)?;
        }
        NounVerb::Remove { names, how } => {
            for name in names {
                let before = client.get(&format!("{}{}", place::<F>(name), view(how.now)))?;
                let at = format!("{}{}", place::<F>(name), how.query());
                let reply = client.ask("DELETE", &at, before.etag.as_deref(), None)?;
                changed(&mut out, access, how, &format!("{name} removed"), &reply)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn place<F: Thing>(name: &str) -> String {
    format!("{}/{}", F::PATH, encoded(name))
}

pub(super) fn changed(out: &mut impl Write, access: &Access, how: &How, what: &str, reply: &Reply) -> Result<()> {
    match access.wants_json() {
        true => writeln!(out, "{}", reply.body)?,
        false => write!(out, "{}", how.told(what, reply))?,
    }
    Ok(())
}
