//! `gnomon suggest`: flow records and a configuration → proposed changes of its rules.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::learn::alerts::Attacks;
use super::learn::{Members, each_flow};
use super::report::table;
use crate::config;
use crate::policy::suggest::{Feedback, Limit, Rulebook, Settings, Suggestion, Traffic, suggest};

const EXAMPLES: &str = "\
Examples, on a synthetic data centre:
  gnomon scenario -o lab --minutes 2880 --rate 0.05 --groups web,app,db,dns,ntp,admin,clients,iot
  gnomon replay lab/scenario.pcap -c lab/scenario.toml -o result
  gnomon suggest result/flows.jsonl --alerts result/alerts.jsonl -c lab/scenario.toml
  gnomon suggest result/flows.jsonl -c lab/scenario.toml -o toml
                                    the rules of each, with what speaks for it as comments
  gnomon suggest result/flows.jsonl -c lab/scenario.toml -o json | jq '.what_if'";

/// Propose changes of a configuration's rules, from what was seen with it: the best first, each with a reason.
///
/// allow: refused and harmless. deny: let through, and named by detectors. reorder: a rule that never acts because of its
/// place, or one that decides much behind many that decide little. narrow: a rule that opens much more than was used.
/// retire: a rule that nothing used. temporary: refused in a burst that is over. move: a VM that behaves like those of
/// another group. path: advice on what takes most of the bandwidth.
///
/// The confidence joins five parts: how much was seen, over how much of the time, what the scorer says, what detectors
/// say, and whether neighbours do likewise. What-if counts the recorded flows that would be let through and refused
/// besides. Nothing is changed: rules that you want go into the configuration.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct SuggestArgs {
    /// Files of flow records: flows.jsonl, perhaps with .gz; - for standard input.
    #[arg(required = true, value_name = "FLOWS")]
    flows: Vec<PathBuf>,
    /// Configuration that the flows were recorded with: its rules, groups and VMs.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Alerts of the same time: flows between the parties of an attack while it lasted are part of it.
    #[arg(long, value_name = "FILE")]
    alerts: Option<PathBuf>,
    /// Most suggestions.
    #[arg(long, value_name = "NUMBER", default_value_t = Settings::default().top)]
    top: usize,
    /// Least refused flows of what could be allowed.
    #[arg(long, value_name = "NUMBER", default_value_t = Settings::default().min_flows)]
    min_flows: u32,
    /// Least days without a hit of a rule that could be retired.
    #[arg(long, value_name = "DAYS", default_value_t = Settings::default().idle_days)]
    idle_days: f64,
    /// A table, a JSON object a line, or rules of a configuration.
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
    Toml,
}

pub(super) fn run(args: &SuggestArgs) -> Result<ExitCode> {
    let config = config::load(&args.config)?;
    let members = Members::of_config(&config);
    let attacks = args.alerts.as_deref().map(Attacks::read).transpose()?.unwrap_or_default();
    let mut traffic = Traffic::new(Limit::default());
    each_flow(&args.flows, &members, |seen, _| {
        traffic.observe(&attacks.judged(seen));
        Ok(())
    })?;
    let settings = Settings {
        top: args.top,
        min_flows: args.min_flows,
        idle_days: args.idle_days,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        ..Settings::default()
    };
    let found = suggest(&traffic, &Rulebook::of_config(&config), &settings, &Feedback::default());
    let text = match args.output {
        Form::Table => text(&found),
        Form::Json => {
            found.iter().map(|one| serde_json::to_string(one).map(|line| line + "\n")).collect::<Result<_, _>>()?
        }
        Form::Toml => found.iter().map(toml).collect(),
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    if traffic.overflow > 0 {
        eprintln!("gnomon: {} flows of further connections were not looked at", traffic.overflow);
    }
    Ok(ExitCode::SUCCESS)
}

fn text(found: &[Suggestion]) -> String {
    if found.is_empty() {
        return "nothing to suggest: the rules fit what was seen\n".to_owned();
    }
    let mut rows = table(&["", "kind", "change", "confidence", "flows", "+ allowed", "+ refused"]);
    for (number, one) in (1..).zip(found) {
        let confidence = format!("{:.2}", one.confidence.fused);
        let [flows, allowed, refused] =
            [one.evidence.flows, one.what_if.allowed, one.what_if.refused].map(|number| number.to_string());
        rows.add_row([
            number.to_string(),
            one.kind.name().to_owned(),
            one.change.text(),
            confidence,
            flows,
            allowed,
            refused,
        ]);
    }
    let mut out = format!("{rows}\n");
    for (number, one) in (1..).zip(found) {
        out += &format!("{number:>3}  {}\n", one.reason);
        for conflict in &one.conflicts {
            out += &format!("     conflict: {} {}\n", conflict.rule, conflict.what);
        }
    }
    out
}

fn toml(one: &Suggestion) -> String {
    let [volume, stability, score, threat, agreement] = one.confidence.parts();
    format!(
        "# {} ({}), confidence {:.2}: volume {volume:.2}, stability {stability:.2}, score {score:.2}, threat {threat:.2}, \
         agreement {agreement:.2}\n# {}\n{}\n",
        one.kind.name(),
        one.id,
        one.confidence.fused,
        one.reason,
        one.change.toml()
    )
}
