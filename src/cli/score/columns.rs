//! Tables whose columns are the features.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::ScoreArgs;
use super::top::{Entry, Reasons, Top, reasons, reasons_json};
use crate::behaviour::{Model, Rows, Training};
use crate::cli::progress::spinner;
use crate::config::Config;
use crate::ingest::{Column, Table};
use crate::trie::Isa;

/// A model has room for so many features.
const MOST: usize = 255;
const UNUSUAL: f32 = 0.99;
/// Fewest rows that make a model.
const LEAST: usize = 32;

/// Scores the rows of a table.
pub(super) fn run(args: &ScoreArgs, config: &Config) -> Result<()> {
    let progress = spinner("reading");
    let table = Table::read(&args.file)?;
    let other = args.train.as_deref().map(Table::read).transpose()?;
    progress.set_prefix("scoring");
    let columns = columns(args, &table)?;
    let (learnt, count, from) = match &other {
        Some(other) => (other, other.rows, 0),
        None => {
            let head = args.head.of(table.rows);
            (&table, head, if head == table.rows { 0 } else { head })
        }
    };
    if count < LEAST {
        bail!("{count} rows are too few to learn from: give more with --head, or --train FILE");
    }
    let (train, rows) = features(&columns, learnt, count, &table)?;
    let scorer = &config.scorer;
    let training = Training {
        members: Default::default(),
        trees: scorer.trees,
        sample: scorer.sample,
        contamination: scorer.contamination,
        seed: config.seed,
        isa: Isa::best(),
    };
    let width = columns.len();
    let model = Model::train(Rows::new(&train, width), &training);
    let rows = Rows::new(&rows, width);
    let mut raw = vec![0.0; rows.len()];
    model.score(rows, &mut model.scratch(), &mut raw);
    progress.finish_and_clear();
    let source = args.train.as_ref().map_or("the file".to_owned(), |path| path.display().to_string());
    let told = format!("learnt from {count} rows of {source}, {width} columns");
    tell(args, &model, &columns, rows, &raw, from, &told)
}

/// Names of the features: those that were asked for, or all that hold numbers.
fn columns<'t>(args: &ScoreArgs, table: &'t Table) -> Result<Vec<&'t str>> {
    for name in args.columns.iter().chain(&args.without) {
        table.column(name)?;
    }
    let numbers = |name: &&str| matches!(table.column(name), Ok(Column::Numbers(_)));
    let asked = |name: &&str| args.columns.iter().any(|wanted| wanted == name);
    let all = table.names().filter(|name| if args.columns.is_empty() { numbers(name) } else { asked(name) });
    let chosen: Vec<&str> = all.filter(|name| !args.without.iter().any(|not| not == name)).collect();
    match chosen.len() {
        0 => bail!("{} has no column of numbers; name columns with --columns", args.file.display()),
        1..=MOST => Ok(chosen),
        n => bail!("{n} columns are more than a model takes ({MOST}); choose some with --columns"),
    }
}

/// Rows to learn from, and rows to score. Words become the share of the learnt rows that have them.
fn features(columns: &[&str], learnt: &Table, count: usize, scored: &Table) -> Result<(Vec<f32>, Vec<f32>)> {
    let width = columns.len();
    let (mut train, mut rows) = (vec![0.0; count * width], vec![0.0; scored.rows * width]);
    for (place, name) in columns.iter().enumerate() {
        let (known, all) = match (learnt.column(name)?, scored.column(name)?) {
            (Column::Numbers(known), Column::Numbers(all)) => (known.clone(), all.clone()),
            _ => {
                let known = learnt.words(name)?;
                shares(&known[..count.min(known.len())], &scored.words(name)?)
            }
        };
        let fill = |out: &mut [f32], values: &[f64]| {
            for (row, value) in out.chunks_exact_mut(width).zip(values) {
                row[place] = if value.is_nan() { 0.0 } else { *value as f32 };
            }
        };
        fill(&mut train, &known);
        fill(&mut rows, &all);
    }
    Ok((train, rows))
}

fn shares(learnt: &[String], scored: &[String]) -> (Vec<f64>, Vec<f64>) {
    let mut shares: HashMap<&str, f64> = HashMap::new();
    learnt.iter().for_each(|word| *shares.entry(word).or_default() += 1.0 / learnt.len() as f64);
    let share = |words: &[String]| words.iter().map(|word| shares.get(word.as_str()).copied().unwrap_or(0.0)).collect();
    (share(learnt), share(scored))
}

fn tell(
    args: &ScoreArgs,
    model: &Model,
    columns: &[&str],
    rows: Rows<'_>,
    raw: &[f32],
    from: usize,
    learnt: &str,
) -> Result<()> {
    let mut out = BufWriter::new(io::stdout());
    let mut scratch = model.scratch();
    let mut why = |row: &[f32]| -> Reasons { reasons(&model.contributions(row, &mut scratch), |at| columns[at]) };
    let mut top = Top::new(args.top);
    for (at, raw) in raw.iter().enumerate().skip(from) {
        let score = model.calibration().calibrate(*raw);
        if score < args.min_score {
            continue;
        }
        if args.output == "json" {
            let mut line = json!({ "row": at + 1, "score": (f64::from(score) * 1e6).round() / 1e6 });
            if score >= UNUSUAL {
                line["reasons"] = reasons_json(&why(rows.row(at)));
                line["values"] =
                    columns.iter().zip(rows.row(at)).map(|(n, x)| ((*n).to_owned(), Value::from(*x))).collect();
            }
            writeln!(out, "{line}")?;
        } else if top.wants(score) {
            let reasons = why(rows.row(at));
            let value = |name: &String| columns.iter().position(|column| column == name).map(|c| rows.row(at)[c]);
            let values: Vec<String> =
                reasons.iter().filter_map(|(name, _)| Some(format!("{name}={}", value(name)?))).collect();
            top.add(Entry { score, cells: vec![(at + 1).to_string(), values.join(" ")], reasons });
        }
    }
    if args.output != "json" {
        top.show(&mut out, &["row", "values"], learnt)?;
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_how_common_they_are() {
        let words = |all: &[&str]| all.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let (learnt, scored) = shares(&words(&["tcp", "tcp", "tcp", "udp"]), &words(&["udp", "sctp", "tcp"]));
        assert_eq!((learnt, scored), (vec![0.75, 0.75, 0.75, 0.25], vec![0.25, 0.0, 0.75]));
    }
}
