//! `gnomon pairs`: which group pairs did what was not expected of them, and why.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde_json::Value;

use crate::ingest::EventLines;

/// Show which group pairs did what was not expected of them, and why.
///
/// Reads pairs.jsonl, which `gnomon replay` and `gnomon run` write: a line for each interval (five minutes) in which
/// the traffic from one group to another was not what it usually is at that hour. Nothing is said in the first day.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PairsArgs {
    /// pairs.jsonl, perhaps with .gz, the folder it is in, or - for standard input.
    #[arg(value_name = "FILE", default_value = "pairs.jsonl")]
    file: PathBuf,
    /// Only pairs with this group on either side.
    #[arg(short, long, value_name = "NAME")]
    group: Option<String>,
    /// Only scores from here on.
    #[arg(short, long, value_name = "SCORE", default_value_t = 0.0)]
    score: f64,
    /// In order of time. Left out: the least expected first.
    #[arg(short, long)]
    time: bool,
    /// Most intervals to show; 0 for all.
    #[arg(short, long, value_name = "NUMBER", default_value_t = 20)]
    limit: usize,
    /// Form of the output: JSON is a line an interval, as in pairs.jsonl.
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

const AFTER_HELP: &str = "\
Reading it:
  score      how rare it is: 0.9995 is that one interval in two thousand is at least so unusual
  surprise   nats; the reasons are its largest parts, each with its own
  tcp/5432 there (0.01 %)           that service had traffic, as in one of ten thousand intervals at that hour
  tcp/80 missing (98 %)             it had none, though it has in 98 of 100
  udp/53 packets_up 301 (0 to 4)    what was seen, and the range expected
`up` is what the initiators sent, `down` what came back. docs/pairs.md has the method.

Examples:
  gnomon pairs result
  gnomon pairs result --group db --time
  gnomon pairs /var/log/gnomon/pairs.jsonl.gz --score 0.99999 -o json";

/// Reasons shown of an interval.
const REASONS: usize = 3;

pub(super) fn run(args: &PairsArgs) -> Result<ExitCode> {
    let mut lines = read(&args.file)?;
    let whole = lines.len();
    lines.retain(|line| score(line) >= args.score && args.group.as_ref().is_none_or(|group| has_group(line, group)));
    if !args.time {
        lines.sort_by(|a, b| score(b).total_cmp(&score(a)).then(surprise(b).total_cmp(&surprise(a))));
    }
    let matched = lines.len();
    if args.limit > 0 {
        lines.truncate(args.limit);
    }
    let mut stdout = io::stdout().lock();
    if args.output == Form::Json {
        lines.iter().try_for_each(|line| writeln!(stdout, "{line}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !lines.is_empty() {
        writeln!(stdout, "{}", table(&lines))?;
    }
    writeln!(
        stdout,
        "{} of {whole} unexpected intervals{}",
        lines.len(),
        if matched > lines.len() { ", --limit 0 shows all" } else { "" }
    )?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<Value>> {
    let path = if path.is_dir() { path.join("pairs.jsonl") } else { path.to_path_buf() };
    let mut lines = Vec::new();
    for value in EventLines::open(&path)? {
        let value = value?;
        if value["event_type"] == "pair" {
            lines.push(value);
        }
    }
    Ok(lines)
}

fn table(lines: &[Value]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["from", "src", "dst", "score", "surprise", "reasons"]);
    for line in lines {
        let gnomon = &line["gnomon"];
        let start = gnomon["start"].as_str().unwrap_or_default();
        let start = start.get(..16).unwrap_or(start).replace('T', " ");
        let parts = gnomon["parts"].as_array().map_or(&[][..], Vec::as_slice);
        let reasons: Vec<String> = parts.iter().take(REASONS).map(reason).collect();
        let groups = ["src_groups", "dst_groups"].map(|side| groups(&gnomon[side]));
        let [src, dst] = groups;
        let (score, surprise) = (format!("{:.6}", score(line)), format!("{:.1}", surprise(line)));
        table.add_row([start, src, dst, score, surprise, reasons.join("; ")]);
    }
    table
}

/// `tcp/5432 there (0.01 %) 9.2`.
fn reason(part: &Value) -> String {
    let text = |name: &str| part[name].as_str().unwrap_or("?").to_owned();
    let (service, what) = (text("service"), text("what"));
    let (low, high) = (part["expected"][0].as_f64().unwrap_or(0.0), part["expected"][1].as_f64().unwrap_or(0.0));
    let (seen, surprise) = (part["seen"].as_f64().unwrap_or(0.0), part["surprise"].as_f64().unwrap_or(0.0));
    if what == "presence" {
        let there = if seen > 0.0 { "there" } else { "missing" };
        return format!("{service} {there} ({} %) {surprise:.1}", rounded(low * 100.0));
    }
    format!("{service} {what} {seen:.0} ({low:.0} to {high:.0}) {surprise:.1}")
}

/// Two digits that matter.
fn rounded(percent: f64) -> String {
    match percent {
        p if p >= 10.0 => format!("{p:.0}"),
        p if p >= 0.1 => format!("{p:.1}"),
        p => format!("{p:.4}"),
    }
}

fn groups(names: &Value) -> String {
    let names: Vec<&str> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

fn has_group(line: &Value, group: &str) -> bool {
    let sides = ["src_groups", "dst_groups"].map(|side| &line["gnomon"][side]);
    sides.iter().any(|names| names.as_array().is_some_and(|names| names.iter().any(|name| name == group)))
}

fn score(line: &Value) -> f64 {
    line["gnomon"]["score"].as_f64().unwrap_or(0.0)
}

fn surprise(line: &Value) -> f64 {
    line["gnomon"]["surprise"].as_f64().unwrap_or(0.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reasons_read_well() {
        let part = |what: &str, expected: [f64; 2], seen: f64| {
            reason(&json!({"service": "tcp/22", "what": what, "surprise": 9.21, "expected": expected, "seen": seen}))
        };
        assert_eq!(part("presence", [0.0001; 2], 1.0), "tcp/22 there (0.0100 %) 9.2");
        assert_eq!(part("presence", [0.982; 2], 0.0), "tcp/22 missing (98 %) 9.2");
        assert_eq!(part("bytes_up", [0.4, 4000.2], 50_000.0), "tcp/22 bytes_up 50000 (0 to 4000) 9.2");
        assert_eq!(reason(&json!({})), "? ? 0 (0 to 0) 0.0");
    }

    #[test]
    fn a_folder_is_read_and_what_is_no_json_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let line = |group: &str| {
            json!({"event_type": "pair", "gnomon": {"src_groups": [group], "dst_groups": [], "score": 0.5}}).to_string()
        };
        let file = dir.path().join("pairs.jsonl");
        std::fs::write(&file, format!("{}\n{{\"event_type\":\"flow\"}}\n{}\n", line("a"), line("b"))).unwrap();
        let lines = read(dir.path()).unwrap();
        assert_eq!(lines.len(), 2);
        assert!(has_group(&lines[1], "b") && !has_group(&lines[0], "b"));
        assert_eq!(table(&lines).row_iter().count(), 2);
        std::fs::write(&file, "nonsense\n").unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("pairs.jsonl, line 1"));
    }
}
