//! `gnomon trace`: packets' ways through the stages of the running appliance.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use serde_json::Value;

use super::capture::{strange, with_verb};
use super::live::Appliance;
use crate::control::{Client, Part};
use crate::filter::Schema;
use crate::taps::verbs::{ShowArguments, TraceArguments, Wanted};
use crate::taps::{TraceInfo, Way};

/// Follow packets of the running appliance through its stages: headers, flow, rules, mirrors, queue, and why.
///
/// A trace keeps the last packets that its expression chooses, in the appliance, until it is removed:
///
///   gnomon trace add 'host=10.0.0.1 and drop' --name lost
///   gnomon trace show lost
///   gnomon trace remove lost
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TraceArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Begin a trace.
    Add(AddArgs),
    /// List the traces there are.
    List(ListArgs),
    /// Show what a trace has kept.
    Show(ShowArgs),
    /// End a trace; what it kept is gone.
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
#[command(after_long_help = Schema::PACKET.help())]
struct AddArgs {
    /// Which packets: an expression; all without. `gnomon trace add --help` explains it.
    #[arg(value_name = "EXPR")]
    expression: Vec<String>,
    /// Name of the trace, for `show` and `remove`; one is made up without.
    #[arg(long)]
    name: Option<String>,
    /// Packets that each worker keeps.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    count: usize,
    /// Keep the first packets instead of the last ones, then look no more.
    #[arg(long)]
    first: bool,
    /// Only packets that come by one of these points.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "POINT")]
    points: Vec<PointArg>,
    /// Only this port: where packets come in; with the point tx alone, where they go out. May be repeated.
    #[arg(long, value_name = "NAME")]
    port: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Which trace; not needed when there is one.
    name: Option<String>,
    /// Only the last so many packets.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Go on with packets that come, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// Which trace.
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    appliance: Appliance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PointArg {
    Rx,
    Verdict,
    Tx,
    Drop,
}

pub(super) fn run(args: &TraceArgs) -> Result<ExitCode> {
    let done = match &args.what {
        What::Add(args) => add(args),
        What::List(args) => list(args),
        What::Show(args) => show(args),
        What::Remove(args) => remove(args),
    };
    match done {
        // Such as `| head`.
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn add(args: &AddArgs) -> Result<()> {
    let names = args.points.iter().filter_map(|point| point.to_possible_value());
    let arguments = TraceArguments {
        wanted: Wanted {
            filter: args.expression.join(" "),
            points: names.map(|point| point.get_name().to_owned()).collect(),
            ports: args.port.clone(),
        },
        name: args.name.clone(),
        count: args.count,
        first: args.first,
    };
    let request = with_verb("trace_add", serde_json::to_value(arguments)?);
    let (info, line) = ask_for_info(&mut args.common.appliance.connect()?, &request)?;
    let text = format!("tracing as `{}`: gnomon trace show {}", info.name, info.name);
    args.common.say(&text, &line)
}

fn remove(args: &RemoveArgs) -> Result<()> {
    let request = with_verb("trace_remove", serde_json::json!({ "name": args.name }));
    let (info, line) = ask_for_info(&mut args.common.appliance.connect()?, &request)?;
    args.common.say(&format!("removed `{}`: it had chosen {} packets", info.name, info.matched), &line)
}

fn list(args: &ListArgs) -> Result<()> {
    let mut client = args.common.appliance.connect()?;
    let mut answer = client.ask(&with_verb("trace_list", Value::Null))?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NAME", "EXPRESSION", "POINTS", "KEEPS", "CHOSEN", "KEPT", "GIVEN UP", "STATE"]);
    while let Some(part) = answer.next_part()? {
        let Part::Line(line) = part else { continue };
        if args.common.output == Output::Json {
            say(&line.to_string())?;
            continue;
        }
        let info: TraceInfo = serde_json::from_value(line).map_err(|_| strange())?;
        let state = if info.complete { "complete" } else { "looking" };
        let points = if info.points.len() == 4 { "all".into() } else { info.points.join(",") };
        table.add_row([
            info.name,
            info.filter,
            points,
            format!("{} {}", info.keep, info.count),
            info.matched.to_string(),
            info.kept.to_string(),
            info.given_up.to_string(),
            state.into(),
        ]);
    }
    if args.common.output == Output::Text {
        say(&table.trim_fmt())?;
    }
    Ok(())
}

fn show(args: &ShowArgs) -> Result<()> {
    let arguments = ShowArguments { name: args.name.clone(), last: args.last, follow: args.follow };
    let mut client = args.common.appliance.connect()?;
    let mut answer = client.ask(&with_verb("trace_show", serde_json::to_value(arguments)?))?;
    let mut shown = 0;
    while let Some(part) = answer.next_part()? {
        let Part::Line(line) = part else { continue };
        shown += 1;
        if args.common.output == Output::Json {
            say(&line.to_string())?;
        } else if let Some(missing) = line.get("given_up") {
            say(&format!("({missing} packets were given up: they came too fast)\n"))?;
        } else {
            let way: Way = serde_json::from_value(line).map_err(|_| strange())?;
            say(&way.to_string())?;
        }
    }
    if shown == 0 && args.common.output == Output::Text {
        say("nothing yet: no packet was chosen")?;
    }
    Ok(())
}

fn ask_for_info(client: &mut Client, request: &Value) -> Result<(TraceInfo, Value)> {
    let line = client.ask_one(request)?;
    Ok((serde_json::from_value(line.clone()).map_err(|_| strange())?, line))
}

impl Common {
    fn say(&self, text: &str, line: &Value) -> Result<()> {
        match self.output {
            Output::Text => say(text),
            Output::Json => say(&line.to_string()),
        }
    }
}

fn say(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush())?;
    Ok(())
}
