//! `gnomon alerts`: what was found, by the running appliance or in files.

mod follow;
mod shown;

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::live::Appliance;
use super::units;
use crate::appliance::unix_nanoseconds;
use crate::behaviour::AlertKind;
use crate::control::Part;
use crate::filter::instant;
use crate::ingest::open;

/// List, follow and explain alerts of the running appliance, or of alerts.jsonl files.
///
/// One line an episode, the latest of it. The running appliance remembers the last hundred; the files in its export
/// folder have all.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct AlertsArgs {
    #[command(subcommand)]
    question: Option<Question>,
    #[command(flatten)]
    wanted: Wanted,
    /// Go on, and tell every change: opened, more of the same, closed.
    #[arg(short, long)]
    follow: bool,
    /// Most episodes to show, the latest; 0 for all.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  gnomon alerts                                     the last ones of the running appliance
  gnomon alerts --severity 1 --since 1h             severe ones of the last hour
  gnomon alerts -f --kind port_scan,host_sweep      scans, as they come
  gnomon alerts -r result/alerts.jsonl --actor 10.9.0.1
  gnomon alerts show 12                             why it was raised, with its flows
  gnomon alerts show 12 -r result/alerts.jsonl
Severity is 1 for the worst and 3 for the least.";

#[derive(Debug, Subcommand)]
enum Question {
    /// Explain one: what was counted, the rule behind it, its features, its flows.
    Show {
        /// Number of the episode.
        id: u64,
        /// Flow records to look in; left out, flows.jsonl beside the alerts.
        #[arg(long, value_name = "FILE")]
        flows: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// Files instead of the running appliance: alerts.jsonl, perhaps with .gz; - for standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["socket", "config"])]
    read: Vec<PathBuf>,
    #[command(flatten)]
    appliance: Appliance,
    /// Form of the output; JSON is a line an episode, as in alerts.jsonl.
    #[arg(short, long, value_name = "FORM", value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

/// Which are wanted.
#[derive(Debug, Args)]
struct Wanted {
    /// Kinds, with commas between.
    #[arg(long, value_delimiter = ',', value_name = "KINDS", value_parser = kind)]
    kind: Vec<String>,
    /// This severe or worse.
    #[arg(long, value_name = "1..3", value_parser = clap::value_parser!(u8).range(1..=3))]
    severity: Option<u8>,
    /// Who did it.
    #[arg(long, value_name = "ADDRESS")]
    actor: Option<IpAddr>,
    /// Whom it was done to.
    #[arg(long, value_name = "ADDRESS")]
    victim: Option<IpAddr>,
    /// Seen last at or after: a time such as 2025-01-15T09:00, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<u64>,
    /// Seen first before, likewise.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
    /// Only those that go on.
    #[arg(long)]
    open: bool,
}

/// Kinds that are said of the appliance itself.
const OWN: [&str; 2] = [crate::export::PRESSURE, crate::export::OUTAGE];

fn kind(text: &str) -> Result<String, String> {
    let all: Vec<&str> = AlertKind::ALL.iter().map(|kind| kind.name()).chain(OWN).collect();
    match all.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("there are {}", all.join(", "))),
    }
}

/// Nanoseconds since the Unix epoch.
fn time(text: &str) -> Result<u64, String> {
    let ago = |time: Duration| unix_nanoseconds().saturating_sub(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let known = instant(text).or_else(|| units::time(text).ok().map(ago));
    known.ok_or_else(|| "a time such as 2025-01-15T09:00:00, or how long ago, such as 30m or 2h".to_owned())
}

impl Wanted {
    fn takes(&self, alert: &Value) -> bool {
        let gnomon = &alert["gnomon"];
        let host = |name: &str| gnomon[name].as_str().and_then(|text| text.parse::<IpAddr>().ok());
        let at = |name: &str| gnomon[name].as_str().or(alert["timestamp"].as_str()).and_then(instant).unwrap_or(0);
        let known = |wanted: Option<IpAddr>, name: &str| wanted.is_none_or(|wanted| host(name) == Some(wanted));
        (self.kind.is_empty() || self.kind.iter().any(|kind| gnomon["kind"] == **kind))
            && self.severity.is_none_or(|most| gnomon["severity"].as_u64().is_some_and(|own| own <= u64::from(most)))
            && known(self.actor, "actor")
            && known(self.victim, "victim")
            && self.since.is_none_or(|since| at("end") >= since)
            && self.until.is_none_or(|until| at("start") < until)
            && (!self.open || gnomon["status"] == "open")
    }
}

/// What tells episodes apart: numbers begin anew with every run.
fn episode(alert: &Value) -> String {
    let gnomon = &alert["gnomon"];
    format!("{} {} {} {}", gnomon["episode"], gnomon["kind"], gnomon["actor"], gnomon["start"])
}

pub(super) fn run(args: &AlertsArgs) -> Result<ExitCode> {
    if let Some(Question::Show { id, flows, common }) = &args.question {
        return show(*id, flows.as_deref(), common);
    }
    let mut lines = latest(read(&args.common)?.0);
    lines.retain(|line| args.wanted.takes(line));
    let hidden = if args.limit > 0 { lines.len().saturating_sub(args.limit) } else { 0 };
    lines.drain(..hidden);
    let mut out = std::io::stdout().lock();
    match args.common.output.as_str() {
        "json" => lines.iter().try_for_each(|line| writeln!(out, "{line}"))?,
        _ if args.follow => lines.iter().try_for_each(|line| writeln!(out, "{}", shown::line(line)))?,
        _ => write!(out, "{}", shown::list(&lines, hidden))?,
    }
    out.flush()?;
    drop(out);
    if args.follow {
        follow::follow(&args.common, &args.wanted, &lines)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Alerts as they are told, in order, and the folder of the files that have all.
fn read(common: &Common) -> Result<(Vec<Value>, Option<PathBuf>)> {
    if common.read.is_empty() {
        return ask(common);
    }
    let mut lines = Vec::new();
    for path in &common.read {
        lines.extend(of_file(path)?);
    }
    let folder = common.read[0].parent().map(Path::to_owned);
    Ok((lines, folder))
}

fn of_file(path: &Path) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for (number, line) in open(path)?.lines().enumerate() {
        let place = || format!("{}, line {}", path.display(), number + 1);
        let line = line.with_context(place)?;
        let value: Value = serde_json::from_str(&line).with_context(place)?;
        match value["gnomon"]["kind"].as_str() {
            Some(_) => lines.push(value),
            None if value["event_type"].is_string() => {}
            None => bail!("{}: no alert of gnomon; alerts.jsonl has such", place()),
        }
    }
    Ok(lines)
}

fn ask(common: &Common) -> Result<(Vec<Value>, Option<PathBuf>)> {
    let mut client = common
        .appliance
        .connect()
        .context("no file was named with -r alerts.jsonl, so a running appliance is asked")?;
    let (mut lines, mut folder) = (Vec::new(), None);
    let mut answer = client.ask(&json!({ "verb": "alerts" }))?;
    while let Some(part) = answer.next_part()? {
        match part {
            Part::Line(line) => lines.push(line),
            Part::End(end) => folder = end.get("folder").and_then(Value::as_str).map(PathBuf::from),
            Part::Bytes(_) => {}
        }
    }
    Ok((lines, folder))
}

/// The last word about each episode, in the order in which they were first told.
fn latest(lines: Vec<Value>) -> Vec<Value> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut all: Vec<Value> = Vec::new();
    for line in lines {
        match places.entry(episode(&line)) {
            std::collections::btree_map::Entry::Occupied(place) => all[*place.get()] = line,
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(all.len());
                all.push(line);
            }
        }
    }
    all
}

fn show(id: u64, flows: Option<&Path>, common: &Common) -> Result<ExitCode> {
    let (lines, folder) = read(common)?;
    let told: Vec<Value> = lines.into_iter().filter(|line| line["gnomon"]["episode"] == id).collect();
    let all = latest(told.clone());
    let Some(alert) = all.last() else {
        let place = if common.read.is_empty() {
            "among the last ones of the appliance; -r has older ones"
        } else {
            "in the file"
        };
        bail!("there is no alert {id} {place}; `gnomon alerts` lists them");
    };
    let beside = folder.map(|folder| folder.join("flows.jsonl")).filter(|path| path.exists());
    let (path, found) = match flows.map(Path::to_owned).or(beside) {
        Some(path) => (Some(path.clone()), shown::flows_of(alert, &path)?),
        None => (None, Vec::new()),
    };
    let mut out = std::io::stdout().lock();
    if common.output == "json" {
        let mut alert = alert.clone();
        alert["flows"] = Value::Array(found);
        writeln!(out, "{alert}")?;
    } else {
        let history: Vec<&Value> = told.iter().filter(|line| episode(line) == episode(alert)).collect();
        write!(out, "{}", shown::explained(alert, &history, &found, path.as_deref()))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    fn alert(episode: u64, kind: &str, severity: u8, count: u64, status: &str) -> Value {
        json!({ "timestamp": "2025-01-15T09:00:00.000000+0000", "event_type": "alert", "gnomon": {
            "kind": kind, "episode": episode, "severity": severity, "actor": "10.9.0.1", "victim": "10.3.0.1",
            "status": status, "count": count,
            "start": "2025-01-15T09:00:00.000000+0000", "end": "2025-01-15T09:05:00.000000+0000" } })
    }

    fn wanted(words: &[&str]) -> Wanted {
        let command = AlertsArgs::augment_args(clap::Command::new("alerts"));
        let matches = command.try_get_matches_from([&["alerts"], words].concat()).unwrap();
        AlertsArgs::from_arg_matches(&matches).unwrap().wanted
    }

    #[test]
    fn filters_by_kind_severity_party_and_time() {
        let alert = alert(1, "port_scan", 2, 5, "open");
        for words in [
            &["--kind", "host_sweep,port_scan"][..],
            &["--severity", "2"],
            &["--severity", "3", "--actor", "10.9.0.1", "--victim", "10.3.0.1", "--open"],
            &["--since", "2025-01-15T09:04:00", "--until", "2025-01-15T09:01:00"],
        ] {
            assert!(wanted(words).takes(&alert), "{words:?}");
        }
        for words in [
            &["--kind", "outlier"][..],
            &["--severity", "1"],
            &["--actor", "10.9.0.2"],
            &["--since", "2025-01-15T09:06:00"],
            &["--until", "2025-01-15T08:00:00"],
            &["--since", "1h"],
        ] {
            assert!(!wanted(words).takes(&alert), "{words:?}");
        }
        let command = AlertsArgs::augment_args(clap::Command::new("alerts"));
        let error = command.try_get_matches_from(["alerts", "--kind", "portscan"]).unwrap_err().to_string();
        assert!(error.contains("port_scan, host_sweep"), "{error}");
    }

    #[test]
    fn the_last_word_of_each_episode_counts() {
        let lines = vec![
            alert(1, "port_scan", 2, 5, "open"),
            alert(2, "outlier", 2, 3, "open"),
            alert(1, "port_scan", 1, 90, "closed"),
        ];
        let counts: Vec<u64> = latest(lines).iter().map(|line| line["gnomon"]["count"].as_u64().unwrap()).collect();
        assert_eq!(counts, [90, 3]);
    }
}
