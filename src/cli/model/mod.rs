//! `gnomon model`: the scorer's models.

mod shown;
mod source;
mod train;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::live::{Appliance, user};
use source::Source;
pub(super) use train::train;

/// The scorer's models: which there are, how they compare, train, promote, roll back.
///
/// Asks the running appliance, whose scorer then does at once what is decided. With --store, or where none runs with the
/// configuration, the file itself is read and written; an appliance learns of it when it starts.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ModelArgs {
    #[command(subcommand)]
    question: Question,
}

const EXAMPLES: &str = "\
Examples:
  gnomon model list                              versions, when and from what they were trained, their state
  gnomon model show 7                            one of them with its history and what the gates found
  gnomon model train --shadow                    a new one beside the active one, as soon as there are enough records
  gnomon model compare                           how it does
  gnomon model promote 8 --reason 'quieter'      in force from the next record on
  gnomon model rollback                          the one before it again
  gnomon model list --store gnomon.db -o json    of a file, a line a model";

#[derive(Debug, Subcommand)]
enum Question {
    /// All versions, the newest first.
    List(Common),
    /// One version: settings, figures of its training, history.
    Show {
        /// Its number.
        id: i64,
        #[command(flatten)]
        common: Common,
    },
    /// The shadow beside the active model on live records; or two stored models on the records of a file.
    #[command(after_help = "Examples:\n  gnomon model compare\n  \
        gnomon model compare 3 7 --on flows.jsonl --store gnomon.db")]
    Compare {
        /// Two stored models, with --on.
        #[arg(num_args = 2, value_name = "ID", requires = "on")]
        ids: Vec<i64>,
        /// Flow records (flows.jsonl, perhaps with .gz).
        #[arg(long, value_name = "FILE", requires = "ids")]
        on: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Train a new model: on what the running appliance has seen since the last training, or on a file.
    #[command(after_help = "Examples:\n  gnomon model train --shadow\n  \
        gnomon model train --on last-week.jsonl.gz --store gnomon.db")]
    Train {
        /// It scores beside the active one first.
        #[arg(long)]
        shadow: bool,
        /// Flow records to train on (flows.jsonl, perhaps with .gz). The model is stored as a candidate: promote it to
        /// use it.
        #[arg(long, value_name = "FILE")]
        on: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Put a model in force: a shadow, a candidate, a rejected or an old one.
    Promote {
        /// Its number.
        id: i64,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        common: Common,
    },
    /// Say that a shadow or candidate is not wanted.
    Reject {
        /// Its number.
        id: i64,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        common: Common,
    },
    /// Put the model in force that the active one took the place of.
    Rollback {
        /// Which active one: all, or group:NAME.
        #[arg(long, default_value = "all")]
        scope: String,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Why {
    /// For the history.
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Debug, Args)]
pub(super) struct Common {
    /// A file instead of a running appliance.
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    store: Option<PathBuf>,
    #[command(flatten)]
    appliance: Appliance,
    /// Form of the output; JSON is a line for each model.
    #[arg(short, long, value_name = "FORM", value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

pub(super) fn run(args: &ModelArgs) -> Result<ExitCode> {
    let (common, lines) = answer(&args.question)?;
    let mut out = std::io::stdout().lock();
    if common.output == "json" {
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = match &args.question {
        Question::List(_) => shown::list(&lines),
        Question::Show { .. } => lines.iter().map(shown::one).collect(),
        Question::Compare { .. } => shown::compared(&lines),
        Question::Train { on: Some(_), .. } => shown::trained(&lines),
        Question::Train { .. } => shown::asked(&lines),
        Question::Promote { .. } | Question::Rollback { .. } => shown::active(&lines),
        Question::Reject { id, .. } => format!("model {id} is rejected\n"),
    };
    out.write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn answer(question: &Question) -> Result<(&Common, Vec<Value>)> {
    let who = user();
    Ok(match question {
        Question::List(common) => (common, Source::find(common, false)?.list()?),
        Question::Show { id, common } => (common, Source::find(common, false)?.show(*id)?),
        Question::Compare { ids, on: Some(on), common } => (common, train::compare(ids, on, common)?),
        Question::Compare { common, .. } => {
            (common, source::ask_running(common, &json!({ "verb": "model_compare" }), "a comparison on live records")?)
        }
        Question::Train { on: Some(on), shadow, common } => (common, train::on_file(on, *shadow, common)?),
        Question::Train { shadow, common, .. } => {
            let request = json!({ "verb": "model_train", "shadow": shadow.then_some(true), "who": who });
            (common, source::ask_running(common, &request, "training on live records")?)
        }
        Question::Promote { id, why, common } => {
            (common, Source::find(common, true)?.decide("model_promote", *id, &who, &why.reason)?)
        }
        Question::Reject { id, why, common } => {
            (common, Source::find(common, true)?.decide("model_reject", *id, &who, &why.reason)?)
        }
        Question::Rollback { scope, why, common } => {
            (common, Source::find(common, true)?.roll_back(scope, &who, &why.reason)?)
        }
    })
}
