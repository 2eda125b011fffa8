//! `gnomon mirror`: the sessions of the running appliance, and who is watched by those that adapt.

mod sessions;
mod watched;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::live::{Appliance, user};
use super::units;
use watched::About;

/// Mirror sessions of the running appliance: what they take, what became of every copy, and who is watched.
#[derive(Debug, Args)]
pub(super) struct MirrorArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Sessions: where copies go, what is taken.
    List(Common),
    /// All of one session, worker by worker.
    Show {
        /// Its name.
        session: String,
        #[command(flatten)]
        common: Common,
    },
    /// What became of every packet that was selected: selected = sent + lost + waiting.
    Ledger(Common),
    /// Who is watched by mirrors that adapt, and how closely.
    Watched(Common),
    /// Why a host is watched, and everything that was decided about it lately.
    #[command(after_help = "Example: gnomon mirror why 10.0.0.9")]
    Why {
        #[command(flatten)]
        about: About,
        #[command(flatten)]
        common: Common,
    },
    /// Say how a host is treated for a time, whatever is found out about it.
    #[command(after_help = "Examples:\n  gnomon mirror set 10.0.0.9 --share 100% --for 30m --reason 'ticket 123'\n  \
        gnomon mirror set 10.0.0.9 --divert trap --for 1h")]
    Set {
        #[command(flatten)]
        about: About,
        /// Share of its flows that mirrors with `adapt` take at least; 0% is their own share.
        #[arg(long, default_value = "100%", value_parser = watched::share)]
        share: f64,
        /// Connections that it begins go to this honeypot.
        #[arg(long, value_name = "NAME")]
        divert: Option<String>,
        /// How long.
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = units::time)]
        time: Duration,
        /// For the log.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let go of a host: alerts and risk so far count no more.
    Release {
        #[command(flatten)]
        about: About,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    appliance: Appliance,
    /// Form of the output; JSON is a line for each session, party or decision.
    #[arg(short, long, value_name = "FORM", value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

impl Question {
    fn request(&self) -> (Value, &Common) {
        match self {
            Question::List(common) | Question::Ledger(common) => (json!({ "verb": "mirrors" }), common),
            Question::Show { session, common } => (json!({ "verb": "mirrors", "session": session }), common),
            Question::Watched(common) => (json!({ "verb": "watch" }), common),
            Question::Why { about, common } => (json!({ "verb": "watch_why", "about": about.json() }), common),
            Question::Set { about, share, divert, time, reason, common } => {
                let request = json!({
                    "verb": "watch_set",
                    "about": about.json(),
                    "share": share,
                    "divert": divert,
                    "seconds": time.as_secs().max(1),
                    "who": user(),
                    "reason": reason,
                });
                (request, common)
            }
            Question::Release { about, common } => {
                (json!({ "verb": "watch_release", "about": about.json(), "who": user() }), common)
            }
        }
    }
}

pub(super) fn run(args: &MirrorArgs) -> Result<ExitCode> {
    let (request, common) = args.question.request();
    let lines = common.appliance.connect()?.ask_all(&request)?;
    let mut out = std::io::stdout().lock();
    if common.output == "json" {
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = match &args.question {
        Question::List(_) | Question::Ledger(_) | Question::Show { .. } if lines.is_empty() => {
            "no mirror session\n".to_owned()
        }
        Question::List(_) => sessions::list(&lines) + "\n",
        Question::Ledger(_) => sessions::ledger(lines.iter().map(sessions::total)) + "\n",
        Question::Show { .. } => lines.iter().map(sessions::shown).collect(),
        Question::Watched(_) if lines.is_empty() => "nobody is watched\n".to_owned(),
        Question::Watched(_) => watched::list(&lines) + "\n",
        Question::Why { about, .. } => watched::why(about, &lines),
        Question::Set { about, .. } => watched::set(about, &lines),
        Question::Release { about, .. } => watched::released(about, &lines),
    };
    out.write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
