//! `gnomon score`: how unusual each record of a file is, and why.

mod columns;
mod records;
mod top;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::config::{self, Config};
use crate::ingest::open;

/// Score flow records, tables or captures, and say why what is unusual is.
///
/// Reads flow records as JSON lines (gnomon's or Suricata's flow events, perhaps with .gz), captures (pcap and pcapng,
/// through the same workers as live), and tables (CSV, parquet) whose columns are taken as features. What is ordinary is
/// told by a stored model, by another file, or by the first part of the file itself.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ScoreArgs {
    /// What to score; - for flow records on standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A stored model, by its number; left out, the active one of --store. Not for tables.
    #[arg(long, value_name = "ID", requires = "store", conflicts_with_all = ["train", "head"])]
    model: Option<i64>,
    /// The store to take it from.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["train", "head"])]
    store: Option<PathBuf>,
    /// Learn from this file, of the same form, what is ordinary.
    #[arg(long, value_name = "FILE", conflicts_with = "head")]
    train: Option<PathBuf>,
    /// Learn from so many first records, or such a share; they get no score, unless it is 100%.
    #[arg(long, value_name = "NUMBER|SHARE", default_value = "20%", value_parser = head)]
    head: Head,
    /// Columns of a table, with commas between; left out, all that hold numbers. Words are replaced by how common they
    /// are.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Vec<String>,
    /// Columns of a table that are no features, such as a label or a number of the row.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    without: Vec<String>,
    /// Records in the table of the most unusual.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    top: usize,
    /// Leave out what scores less.
    #[arg(long, value_name = "SCORE", default_value_t = 0.0)]
    min_score: f32,
    /// Settings of the scorer and groups.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Form of the output: the most unusual as a table, or all records as JSON lines.
    #[arg(short, long, value_name = "FORM", value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

const EXAMPLES: &str = "\
Examples:
  gnomon score flows.jsonl                              learn from the first fifth, score the rest
  gnomon score today.jsonl --train yesterday.jsonl.gz   learn from another file
  gnomon score strange.pcap --store gnomon.db           by the active model of an appliance
  gnomon score flows.csv --columns dur,sbytes,dbytes,proto --top 50
  gnomon score table.parquet --head 100% --without label -o json > scores.jsonl
Scores of 0.99 and above: one ordinary record in a hundred has such. Reasons are features with their part of it.";

/// How much of a file is learnt from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Head {
    Records(usize),
    Share(f64),
}

impl Head {
    fn of(self, records: usize) -> usize {
        match self {
            Head::Records(count) => count.min(records),
            Head::Share(share) => (share * records as f64).ceil() as usize,
        }
    }
}

fn head(text: &str) -> Result<Head, String> {
    let share = |digits: &str| digits.parse::<f64>().ok().filter(|p| *p > 0.0 && *p <= 100.0).map(|p| p / 100.0);
    let found = match text.strip_suffix('%') {
        Some(digits) => share(digits).map(Head::Share),
        None => text.parse().ok().filter(|count| *count > 0).map(Head::Records),
    };
    found.ok_or_else(|| "a number of records such as 5000, or a share such as 20%".to_owned())
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Flows,
    Capture,
    Columns,
}

pub(super) fn run(args: &ScoreArgs) -> Result<ExitCode> {
    let config = match &args.config {
        Some(file) => config::load(file)?,
        None => Config::default_pair(),
    };
    let form = form(&args.file)?;
    if form == Form::Columns && args.store.is_some() {
        return Ok(wrong_use("a stored model knows flow records, no other columns: leave out --store"));
    }
    if form != Form::Columns && !(args.columns.is_empty() && args.without.is_empty()) {
        return Ok(wrong_use("--columns and --without are for tables (CSV, parquet)"));
    }
    match form {
        Form::Columns => columns::run(args, &config)?,
        Form::Flows => records::flows(args, &config)?,
        Form::Capture => records::capture(args, &config)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn wrong_use(message: &str) -> ExitCode {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(std::io::stderr(), "gnomon: {message}\n`gnomon score --help` has examples");
    ExitCode::from(2)
}

/// By the first bytes.
fn form(path: &Path) -> Result<Form> {
    if path == Path::new("-") {
        return Ok(Form::Flows);
    }
    let mut first = [0; 4];
    let mut reader = open(path)?;
    let mut found = 0;
    while found < first.len() {
        match reader.read(&mut first[found..]).with_context(|| format!("reading {}", path.display()))? {
            0 => break,
            n => found += n,
        }
    }
    Ok(match u32::from_be_bytes(first) {
        0xa1b2_c3d4 | 0xd4c3_b2a1 | 0xa1b2_3c4d | 0x4d3c_b2a1 | 0x0a0d_0d0a => Form::Capture,
        _ if &first == b"PAR1" => Form::Columns,
        _ if first[0] == b'{' => Form::Flows,
        _ if path.extension().is_some_and(|e| e == "jsonl" || e == "json") => Form::Flows,
        _ => Form::Columns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_is_learnt_from() {
        assert_eq!(head("20%").map(|head| head.of(11)), Ok(3));
        assert_eq!(head("100%").map(|head| head.of(11)), Ok(11));
        assert_eq!(head("5000").map(|head| [head.of(11), head.of(9000)]), Ok([11, 5000]));
        for bad in ["0", "0%", "101%", "-5", "much", ""] {
            assert!(head(bad).is_err(), "{bad}");
        }
    }
}
