//! `gnomon flows`: live flows of the running appliance, or those of a file.

use std::cmp::Ordering;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::flow_table::{Row, csv, table};
use super::live::Appliance;
use crate::control::{Client, FlowsArguments, Key, MOST_SORTED, Part, SortKey};
use crate::filter::{Expression, Fields, JsonLine, Schema};
use crate::ingest::EventLines;

/// List live flows of the running appliance, or flow records of a file.
///
/// Live flows have the counters of their slice so far, since the last record of them was written.
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub(super) struct FlowsArgs {
    /// Which flows, see below; all words together are one expression.
    #[arg(value_name = "EXPRESSION")]
    expression: Vec<String>,
    /// Put in order: FIELD, FIELD:asc or FIELD:desc. Numbers begin with the greatest.
    #[arg(long, value_name = "FIELD")]
    sort: Option<String>,
    /// Most flows to show; 0 for all. Left out: 50 in a table, else all.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Form of the output: JSON is a line a flow, as in flows.jsonl.
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Form,
    /// Again and again, every so many seconds.
    #[arg(short, long, value_name = "SECONDS", conflicts_with = "read")]
    watch: Option<f64>,
    /// Flow records of a file instead of live flows: flows.jsonl, perhaps with .gz; - for standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["socket", "config"])]
    read: Option<PathBuf>,
    #[command(flatten)]
    appliance: Appliance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
    Csv,
}

/// Rows of a table that nobody asked to be longer.
const USUAL_LIMIT: usize = 50;
/// Width of a table that goes to no terminal.
const USUAL_WIDTH: u16 = 160;

fn after_help() -> String {
    format!(
        "{}\n\nExamples:\n  gnomon flows 'tcp dest_port=443 bytes>1M' --sort bytes\n  \
         gnomon flows state=new --sort age --watch 1\n  gnomon flows -r flows.jsonl.gz 'flags=port_scan' -o csv",
        Schema::FLOW.help()
    )
}

pub(super) fn run(args: &FlowsArgs) -> Result<ExitCode> {
    let text = args.expression.join(" ");
    let filter = match Expression::parse(&text, &Schema::FLOW) {
        Ok(filter) => filter,
        Err(error) => return Ok(wrong_use(&error.to_string())),
    };
    let order = match args.sort.as_deref().map(|sort| SortKey::parse(sort, &Schema::FLOW)).transpose() {
        Ok(order) => order,
        Err(error) => return Ok(wrong_use(&error.message)),
    };
    let limit = match args.limit {
        None if args.output == Form::Table => Some(USUAL_LIMIT),
        None | Some(0) => None,
        some => some,
    };
    match (&args.read, args.watch) {
        (Some(path), _) => {
            let found = of_file(path, &filter, order, limit)?;
            show(args, &found)?;
        }
        (None, None) => show(args, &live(args, &mut args.appliance.connect()?, &text, limit)?)?,
        (None, Some(seconds)) => watch(args, &text, limit, seconds)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn wrong_use(message: &str) -> ExitCode {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(io::stderr(), "gnomon: {message}\n`gnomon flows --help` lists fields and forms");
    ExitCode::from(2)
}

/// What is to be shown, and out of how many.
#[derive(Debug, Default)]
struct Found {
    lines: Vec<Value>,
    matched: u64,
    flows: u64,
    /// More matched than were asked for, and counting stopped there.
    cut: bool,
}

fn live(args: &FlowsArgs, client: &mut Client, text: &str, limit: Option<usize>) -> Result<Found> {
    let limit = limit.or_else(|| args.sort.as_ref().map(|_| MOST_SORTED));
    let arguments = FlowsArguments { filter: text.to_owned(), sort: args.sort.clone(), limit };
    let mut request = serde_json::to_value(&arguments)?;
    request["verb"] = json!("flows");
    let mut found = Found::default();
    let mut stdout = io::stdout().lock();
    let mut answer = client.ask(&request)?;
    while let Some(part) = answer.next_part()? {
        match part {
            // One after the other, however many there are.
            Part::Line(line) if args.output == Form::Json => writeln!(stdout, "{line}")?,
            Part::Line(line) => found.lines.push(line),
            Part::Bytes(_) => {}
            Part::End(end) => {
                let number = |name: &str| end.get(name).and_then(Value::as_u64).unwrap_or(0);
                (found.matched, found.flows) = (number("matched"), number("flows"));
                found.cut = args.sort.is_none() && limit.is_some_and(|limit| found.matched >= limit as u64);
            }
        }
    }
    Ok(found)
}

fn watch(args: &FlowsArgs, text: &str, limit: Option<usize>, seconds: f64) -> Result<()> {
    let every = Duration::try_from_secs_f64(seconds).map_err(|_| anyhow!("--watch takes a number of seconds"))?;
    let mut client = args.appliance.connect()?;
    loop {
        let begun = Instant::now();
        let found = live(args, &mut client, text, limit)?;
        if args.output == Form::Table && io::stdout().is_terminal() {
            // To the top left, and clear.
            io::stdout().write_all(b"\x1b[H\x1b[2J")?;
        }
        show(args, &found)?;
        std::thread::sleep(every.max(Duration::from_millis(100)).saturating_sub(begun.elapsed()));
    }
}

fn of_file(path: &Path, filter: &Expression, order: Option<SortKey>, limit: Option<usize>) -> Result<Found> {
    let mut found = Found::default();
    let mut ranked: Vec<(Key, Value)> = Vec::new();
    for value in EventLines::open(path)? {
        let value = value?;
        if value["event_type"] != "flow" {
            continue;
        }
        found.flows += 1;
        if !filter.matches(&JsonLine(&value)) {
            continue;
        }
        found.matched += 1;
        match order {
            Some(order) => ranked.push((Key::from(JsonLine(&value).value(order.field)), value)),
            None if limit.is_none_or(|limit| found.lines.len() < limit) => found.lines.push(value),
            None => {}
        }
        if let (Some(order), Some(limit)) = (order, limit)
            && ranked.len() >= 2 * limit.max(1024)
        {
            sort(&mut ranked, order);
            ranked.truncate(limit);
        }
    }
    if let Some(order) = order {
        sort(&mut ranked, order);
        found.lines = ranked.into_iter().map(|(_, value)| value).take(limit.unwrap_or(usize::MAX)).collect();
    }
    Ok(found)
}

/// Those of equal rank stay in the order of the file.
fn sort(ranked: &mut [(Key, Value)], order: SortKey) {
    ranked.sort_by(|(a, _), (b, _)| -> Ordering { a.rank(b, order.descending) });
}

fn show(args: &FlowsArgs, found: &Found) -> Result<()> {
    let mut out = io::stdout().lock();
    match args.output {
        Form::Json => found.lines.iter().try_for_each(|line| writeln!(out, "{line}"))?,
        Form::Csv => csv(&mut out, &found.lines)?,
        Form::Table => {
            let width = super::terminal_width().unwrap_or(USUAL_WIDTH);
            let rows: Vec<Row> = found.lines.iter().map(Row::of).collect();
            writeln!(out, "{}", table(&rows, usize::from(width)))?;
            let shown = found.lines.len();
            match found.cut {
                true => {
                    writeln!(out, "the first {shown} that match; --limit 0 for all, --sort FIELD for the greatest")?
                }
                false => writeln!(out, "{shown} of {} that match, of {} flows", found.matched, found.flows)?,
            }
        }
    }
    out.flush()?;
    Ok(())
}
