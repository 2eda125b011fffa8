//! `gnomon policy`: the policy as a whole: draft, generations, files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::noun::{How, changed};
use super::shown::{self, text};
use super::{Access, Client};
use crate::cli::units;
use crate::policy::book::{Noun, files};

/// The policy: what waits in the draft, how it is put in force, and back.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct PolicyArgs {
    #[command(subcommand)]
    verb: PolicyVerb,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  gnomon policy diff                                what the draft changes
  gnomon policy validate
  gnomon policy commit --why 'shop release 12' --confirm 5m
  gnomon policy confirm                             within the five minutes; else it goes back by itself
  gnomon policy history
  gnomon policy rollback 7
  gnomon policy export > policy.toml
  gnomon policy apply policies/ --dry-run           what a folder of such files would change";

#[derive(Debug, Subcommand)]
enum PolicyVerb {
    /// Where the policy stands: generation, how many things, what waits.
    Status,
    /// Whether the draft could be committed; quarrels between its rules.
    Validate,
    /// What the draft changes of the policy in force, or what is different between two generations.
    Diff {
        /// Two generations.
        #[arg(num_args = 2, value_names = ["FROM", "TO"])]
        generations: Vec<u32>,
    },
    /// Put the draft in force, as one generation.
    Commit {
        /// For the history and the audit log.
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
        /// It goes back by itself after this time, such as 5m, unless `gnomon policy confirm` comes.
        #[arg(long, value_name = "TIME", value_parser = units::time)]
        confirm: Option<Duration>,
    },
    /// Keep a generation that would go back by itself.
    Confirm,
    /// Make the policy what it was in a generation, as a new one.
    Rollback {
        /// Of `gnomon policy history`.
        generation: u32,
        /// For the history and the audit log.
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
    },
    /// Follow what happens: generations, changes of the draft, the inbox, suggestions, alerts.
    Watch,
    /// Give up all changes of the draft.
    Discard,
    /// Generations, the newest first: who, when, why.
    History {
        /// Rows; 0 for all.
        #[arg(short, long, value_name = "NUMBER", default_value_t = 20)]
        limit: usize,
    },
    /// Make the policy what the TOML files of a folder say; what is not in them goes.
    ///
    /// Files have the tables [[vm]], [[group]], [[relationship]], [[profile]], [[override]] and [[learned]], as
    /// `gnomon policy export` writes them; all files of the folder and its subfolders together are the policy. Learned
    /// policies stay as they are when no file has any.
    Apply {
        /// A folder, or a single file.
        #[arg(value_name = "DIR")]
        place: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Write the policy as a TOML file to standard output.
    Export {
        /// What is in force, instead of the draft.
        #[arg(long)]
        running: bool,
    },
}

pub(in crate::cli) fn run(args: &PolicyArgs) -> Result<ExitCode> {
    let (client, access) = (Client::new(&args.access)?, &args.access);
    let mut out = std::io::stdout().lock();
    match &args.verb {
        PolicyVerb::Status => shown::one(&mut out, access, &client.get("/policy")?.body)?,
        PolicyVerb::Validate => {
            let found = client.post("/policy/validate", None)?.body;
            let told = format!("the draft can be committed: {}", changes(&found["waiting"]));
            tell(&mut out, access, &found, &told)?;
        }
        PolicyVerb::Diff { generations } => difference(&mut out, &client, access, generations)?,
        PolicyVerb::Commit { why, confirm } => {
            let mut body = json!({ "why": why });
            if let Some(within) = confirm {
                body["confirm_within"] = within.as_secs().max(1).into();
            }
            let found = client.post("/policy/commit", Some(&body))?.body;
            tell(&mut out, access, &found, &committed(&found))?;
        }
        PolicyVerb::Confirm => {
            let found = client.post("/policy/confirm", None)?.body;
            tell(&mut out, access, &found, &format!("generation {} stays", text(&found["generation"])))?;
        }
        PolicyVerb::Rollback { generation, why } => {
            let body = json!({ "generation": generation, "why": why });
            let found = client.post("/policy/rollback", Some(&body))?.body;
            tell(&mut out, access, &found, &committed(&found))?;
        }
        PolicyVerb::Discard => {
            let found = client.ask("DELETE", "/policy/draft", None, None)?.body;
            tell(&mut out, access, &found, &format!("given up: {}", changes(&found["changes"])))?;
        }
        PolicyVerb::Watch => client.follow("/events", |kind, data| {
            match access.wants_json() {
                true => writeln!(out, "{}", json!({ "event": kind, "data": data }))?,
                false => writeln!(out, "{kind:<11} {}", text(&data))?,
            }
            out.flush()?;
            Ok(true)
        })?,
        PolicyVerb::History { limit } => history(&mut out, &client, access, *limit)?,
        PolicyVerb::Apply { place, how } => {
            let body = json!({ "things": read(place)? });
            let reply = client.post(&format!("/policy/apply{}", how.query()), Some(&body))?;
            match (reply.body["changes"].as_u64(), access.wants_json()) {
                (Some(0), false) => writeln!(out, "nothing to change: the policy in force is what the files say")?,
                _ => changed(&mut out, access, how, &changes(&reply.body["changes"]), &reply)?,
            }
        }
        PolicyVerb::Export { running } => {
            let view = if *running { "running" } else { "draft" };
            write!(out, "{}", client.text(&format!("/policy/export?view={view}"))?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(out: &mut impl Write, access: &Access, found: &Value, told: &str) -> Result<()> {
    if access.wants_json() {
        writeln!(out, "{found}")?;
        return Ok(());
    }
    writeln!(out, "{told}")?;
    for conflict in found["conflicts"].as_array().into_iter().flatten() {
        writeln!(out, "  note: {}", text(&conflict["explanation"]))?;
    }
    Ok(())
}

fn changes(count: &Value) -> String {
    format!("{} {}", text(count), if *count == 1 { "change" } else { "changes" })
}

fn committed(found: &Value) -> String {
    let told = format!("generation {} is in force: {}", text(&found["generation"]), changes(&found["changes"]));
    match found["confirm_by"].as_str() {
        Some(_) => {
            format!(
                "{told}; it goes back by itself at {} UTC, unless confirmed: gnomon policy confirm",
                text(&found["confirm_by"])
            )
        }
        None => told,
    }
}

fn difference(out: &mut impl Write, client: &Client, access: &Access, generations: &[u32]) -> Result<()> {
    let path = match generations {
        [from, to] => format!("/policy/diff?from={from}&to={to}"),
        _ => "/policy/diff".to_owned(),
    };
    let found = client.list(&path)?;
    if access.wants_json() {
        return shown::list(out, access, &found, &[]);
    }
    if found.is_empty() {
        writeln!(out, "nothing is different")?;
    }
    for one in &found {
        let (before, after) = (&one["before"], &one["after"]);
        let sign = match (before.is_null(), after.is_null()) {
            (true, _) => '+',
            (_, true) => '-',
            _ => '~',
        };
        writeln!(out, "{sign} {} {}", text(&one["kind"]), text(&one["name"]))?;
        let keys: std::collections::BTreeSet<&String> =
            [before, after].into_iter().filter_map(Value::as_object).flat_map(|object| object.keys()).collect();
        for key in keys.into_iter().filter(|key| before[*key] != after[*key]) {
            for (sign, side) in [('-', &before[key]), ('+', &after[key])] {
                if !text(side).is_empty() {
                    writeln!(out, "    {sign} {key}: {}", text(side))?;
                }
            }
        }
    }
    Ok(())
}

fn history(out: &mut impl Write, client: &Client, access: &Access, limit: usize) -> Result<()> {
    let generations = client.first("/policy/history", limit)?;
    let columns = [
        ("generation", "/number"),
        ("at (UTC)", "/at"),
        ("who", "/who"),
        ("changes", "/changes"),
        ("back to", "/back_to"),
        ("confirm by", "/confirm_by"),
        ("running", "/running"),
        ("why", "/why"),
    ];
    shown::list(out, access, &generations, &columns)
}

/// Everything that the files of a folder and its subfolders have, in the order of their names.
fn read(place: &Path) -> Result<Vec<Noun>> {
    let mut paths = Vec::new();
    find(place, &mut paths)?;
    if paths.is_empty() {
        bail!("{}: there is no .toml file in it; `gnomon policy export` writes one", place.display());
    }
    let mut things = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        things.extend(files::read(&text).with_context(|| path.display().to_string())?);
    }
    Ok(things)
}

fn find(place: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("reading {}", place.display());
    if !place.metadata().with_context(context)?.is_dir() {
        paths.push(place.to_owned());
        return Ok(());
    }
    let entries =
        std::fs::read_dir(place).with_context(context)?.collect::<Result<Vec<_>, _>>().with_context(context)?;
    let mut inner: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    inner.sort();
    for path in inner {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let wanted = path.is_dir() || path.extension().is_some_and(|extension| extension == "toml");
        if wanted && !hidden {
            find(&path, paths)?;
        }
    }
    Ok(())
}
