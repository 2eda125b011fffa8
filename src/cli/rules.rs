//! `gnomon rules`: what is wrong with the rules of a configuration.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use super::report::table;
use crate::config;
use crate::rules::{Finding, FindingKind, ReportOptions, RuleReport, RuleUse, analyse};

/// Look after rules.
#[derive(Args, Debug)]
pub(super) struct RulesArgs {
    #[command(subcommand)]
    verb: RulesVerb,
}

#[derive(Debug, Subcommand)]
enum RulesVerb {
    Report(ReportArgs),
}

/// Find rules that never act, change nothing, contradict each other, open too much or are not used. Changes nothing.
///
/// unreachable     earlier rules take every packet that it matches
/// redundant       without it every packet would get the same decision
/// tie             overlaps a rule of the same tier and priority that decides otherwise: only the order of actions
///                 (log, deny, reject, allow) or ids settles which one holds
/// correlation     partly overlaps an earlier rule that decides otherwise
/// generalization  holds all of an earlier rule that decides otherwise, an exception to it
/// over-broad      an allow rule from any to any, for all ports with any on one side, or with more combinations of
///                 source, destination and port than --broad
/// never-hit       its counters are zero; needs --counters
///
/// All rules found unreachable or redundant can be removed, one, some or all: no decision changes. Findings are exact.
/// What would take too long to check is named, and nothing is said about it; --work gives more time.
/// The packets shown can be given to `gnomon explain`.
///
/// Exit codes: 0 the report is made (with --strict: and empty), 1 it could not be made (with --strict: or has
/// findings), 2 wrong use.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
struct ReportArgs {
    /// Configuration whose rules to look at.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Counters of a run or replay: its summary.json, or an object of the form of its `rules`.
    #[arg(long, value_name = "FILE")]
    counters: Option<PathBuf>,
    /// Only findings of this kind; may be given several times. Default: all but correlation and generalization, which
    /// every policy with exceptions has.
    #[arg(short, long, value_enum, value_name = "KIND")]
    kind: Vec<FindingKind>,
    /// Allow rules that open more combinations of source, destination and port are over-broad. An IPv6 /64, a VLAN
    /// and a virtual network count as 256 addresses, any address as 2^32; the default is any source to 4096 services.
    #[arg(long, value_name = "NUMBER", default_value_t = ReportOptions::BROAD)]
    broad: f64,
    /// Searches per rule and question, before it is given up.
    #[arg(long, value_name = "NUMBER", default_value_t = ReportOptions::default().work)]
    work: u32,
    /// Rows of each table; 0 for all.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    top: usize,
    /// Print everything as one JSON object.
    #[arg(long)]
    json: bool,
    /// Exit with 1 when anything is found, for continuous integration.
    #[arg(long)]
    strict: bool,
}

impl ValueEnum for FindingKind {
    fn value_variants<'a>() -> &'a [Self] {
        &FindingKind::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            FindingKind::OverBroad => "over-broad",
            FindingKind::NeverHit => "never-hit",
            one_word => one_word.name(),
        }))
    }
}

pub(super) fn run(args: &RulesArgs) -> Result<ExitCode> {
    let RulesVerb::Report(args) = &args.verb;
    let bar = progress_bar();
    let report = make(args, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let report = report?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", text(&report, args))?;
    }
    Ok(if args.strict && !report.findings.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn make(args: &ReportArgs, progress: &mut dyn FnMut(usize, usize)) -> Result<RuleReport> {
    let config = config::load(&args.config)?;
    let uses = args.counters.as_deref().map(read_counters).transpose()?;
    let options = ReportOptions { kinds: kinds(args), broad: args.broad, work: args.work };
    Ok(analyse(&config.policy, uses.as_ref(), &options, progress))
}

fn kinds(args: &ReportArgs) -> Vec<FindingKind> {
    let quiet = [FindingKind::Correlation, FindingKind::Generalization];
    match args.kind.as_slice() {
        [] => FindingKind::ALL.into_iter().filter(|kind| !quiet.contains(kind)).collect(),
        kinds => kinds.to_vec(),
    }
}

/// What `summary.json` says of a rule.
#[derive(Deserialize)]
struct Counted {
    packets: u64,
    #[serde(default)]
    would: u64,
    counter_since: Option<String>,
}

fn read_counters(path: &Path) -> Result<HashMap<String, RuleUse>> {
    let context = || format!("{}: not counters of rules, as summary.json has them", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut value: serde_json::Value = serde_json::from_str(&text).with_context(context)?;
    let rules = match value.get_mut("rules") {
        Some(rules) => rules.take(),
        None => value,
    };
    let counted: HashMap<String, Counted> = serde_json::from_value(rules).with_context(context)?;
    let rule_use = |counted: Counted| RuleUse {
        packets: counted.packets + counted.would,
        since: counted.counter_since.unwrap_or_else(|| "its counters began".to_owned()),
    };
    Ok(counted.into_iter().map(|(id, counted)| (id, rule_use(counted))).collect())
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("checking rules [{bar:40}] {percent:>3} %  {eta}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn text(report: &RuleReport, args: &ReportArgs) -> String {
    let mut out = format!("{}: {} rules with an effect\n", args.config.display(), report.rules);
    for kind in kinds(args) {
        let findings: Vec<&Finding> = report.of_kind(kind).collect();
        if !findings.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "\n{} {}\n{}", findings.len(), heading(kind), rows(&findings, args.top));
        }
    }
    if report.findings.is_empty() {
        let _ = writeln!(out, "nothing found");
    }
    if !report.unchecked.is_empty() {
        let listed: Vec<String> =
            report.unchecked.iter().take(8).map(|u| format!("{} ({})", u.rule, u.kind.name())).collect();
        let dots = if report.unchecked.len() > listed.len() { ", …" } else { "" };
        let count = report.unchecked.len();
        let _ = writeln!(out, "\n{count} questions not answered within --work: {}{dots}", listed.join(", "));
    }
    if args.counters.is_none() {
        let _ = writeln!(out, "\nrules that are never hit: give --counters summary.json of a run");
    }
    out
}

fn heading(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Unreachable => "unreachable: never decide or note anything",
        FindingKind::Redundant => "redundant: without them nothing changes",
        FindingKind::Tie => "tied: contradict a rule of the same tier and priority",
        FindingKind::Correlation => "correlated: partly overlap an earlier rule that decides otherwise",
        FindingKind::Generalization => "generalized: hold an earlier rule that decides otherwise",
        FindingKind::OverBroad => "over-broad: open more than is likely meant",
        FindingKind::NeverHit => "never hit",
    }
}

fn rows(findings: &[&Finding], top: usize) -> Table {
    let mut table = table(&["rule", "finding", "what to do", "a packet that shows it"]);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    let shown = if top == 0 { findings.len() } else { top };
    for finding in findings.iter().take(shown) {
        let packet = finding.witness.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut what = finding.what.clone();
        // Up to two are named in the sentence.
        if finding.others.len() > 2 {
            let dots = if finding.others_omitted { ", …" } else { "" };
            what = format!("{what}: {}{dots}", finding.others.join(", "));
        }
        table.add_row([finding.rule.clone(), what, finding.advice.clone(), packet]);
    }
    if findings.len() > shown {
        table.add_row([format!("… and {} more", findings.len() - shown)]);
    }
    table
}

/// One line for `gnomon check`, when a quick look finds anything.
pub(super) fn hint(policy: &crate::rules::Policy, file: &Path) -> Option<String> {
    let kinds = [FindingKind::Unreachable, FindingKind::Redundant, FindingKind::OverBroad];
    let options = ReportOptions { kinds: kinds.to_vec(), work: HINT_WORK, ..ReportOptions::default() };
    if policy.rules.len() > HINT_RULES {
        return None;
    }
    let report = analyse(policy, None, &options, &mut |_, _| {});
    let counts = kinds.map(|kind| (kind.name().replace('_', "-"), report.of_kind(kind).count()));
    let found: Vec<String> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}")).collect();
    let (all, file) = (report.rules, file.display());
    let hint = format!("of {all} rules {}; `gnomon rules report -c {file}` tells which and why", found.join(", "));
    (!found.is_empty()).then_some(hint)
}

/// A check stays quick: beyond so many rules it does not look, and not longer at each.
const HINT_RULES: usize = 10_000;
const HINT_WORK: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ReportArgs,
    }

    const RULES: &str = r#"
[policy]
default = "deny"
[[rule]]
id = "web"
to = "10.0.0.0/24"
protocol = "tcp"
ports = 443
action = "allow"
priority = 10
[[rule]]
id = "one-web"
to = "10.0.0.7"
protocol = "tcp"
ports = 443
action = "deny"
priority = 20
[[rule]]
id = "all"
from = "192.168.0.0/16"
action = "allow"
priority = 30
"#;

    fn args(folder: &Path, more: &[&str]) -> ReportArgs {
        let file = folder.join("gnomon.toml");
        std::fs::write(&file, RULES).expect("write");
        let line = ["report", "-c", file.to_str().expect("text")];
        Line::try_parse_from(line.iter().chain(more)).map(|line| line.args).expect("a good line")
    }

    #[test]
    fn findings_name_rules_packets_and_what_to_do() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let args = args(folder.path(), &[]);
        let report = make(&args, &mut |_, _| {}).expect("a report");
        let kinds: Vec<_> = report.findings.iter().map(|finding| (finding.rule.as_str(), finding.kind)).collect();
        assert_eq!(kinds, [("one-web", FindingKind::Unreachable), ("all", FindingKind::OverBroad)]);
        let text = text(&report, &args);
        assert!(text.contains("shadowing") && text.contains("> 10.0.0.7:443'"), "{text}");
        let hint = hint(&config::load(&args.config).expect("valid").policy, &args.config).expect("a hint");
        assert!(hint.starts_with("of 3 rules 1 unreachable, 1 over-broad; `gnomon rules report"), "{hint}");
    }

    #[test]
    fn unused_rules_come_from_counters() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let counters = folder.path().join("summary.json");
        let rules = r#"{"rules": {"web": {"packets": 0, "bytes": 0, "counter_since": "2025-01-15T09:00:00.000000+0000"},
                        "all": {"packets": 0, "bytes": 0, "would": 3}}}"#;
        std::fs::write(&counters, rules).expect("write");
        let more = ["--counters", counters.to_str().expect("text"), "--kind", "never-hit"];
        let report = make(&args(folder.path(), &more), &mut |_, _| {}).expect("a report");
        let found: Vec<_> = report.findings.iter().map(|f| (f.rule.as_str(), f.what.as_str())).collect();
        assert_eq!(found, [("web", "no packet since 2025-01-15T09:00:00.000000+0000")]);
        std::fs::write(&counters, r#"{"rules": 5}"#).expect("write");
        let error = make(&args(folder.path(), &more), &mut |_, _| {}).expect_err("no counters");
        assert!(format!("{error:#}").contains("as summary.json has them"), "{error:#}");
    }

    #[test]
    fn the_quiet_kinds_are_for_who_asks() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let asked = |more: &[&str]| kinds(&args(folder.path(), more));
        assert!(!asked(&[]).contains(&FindingKind::Correlation));
        assert_eq!(asked(&["-k", "correlation"]), [FindingKind::Correlation]);
    }
}
