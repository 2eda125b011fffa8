//! The command line: one file per verb. Exit codes: 0 done, 1 failed, 2 wrong use.

mod alerts;
mod capture;
mod check;
mod explain;
mod flow_table;
mod flows;
mod learn;
mod live;
mod mirror;
mod model;
mod pairs;
mod progress;
mod receive;
mod remote;
mod report;
mod replay;
mod rules;
mod run;
mod scenario;
mod score;
mod serve;
mod status;
mod suggest;
mod tail;
mod token;
mod top;
mod trace;
mod units;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A packet appliance in front of groups of virtual machines: it forwards or denies every packet by group
/// policy, mirrors what matters, and scores every flow.
#[derive(Debug, Parser)]
#[command(name = "gnomon", version = version(), arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    /// Say more; twice for debugging.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Start here:
  gnomon scenario -o lab                          write a labelled synthetic capture, its truth and a configuration
  gnomon replay lab/scenario.pcap -c lab/scenario.toml -o result
                                                  send it through the appliance, no NIC needed
  gnomon explain 'tcp 10.1.0.1:40000 > 10.2.0.1:8080' -c lab/scenario.toml
                                                  what would happen to such a packet, and why
  gnomon check -c config/gateway.toml             all errors of a configuration at once
  gnomon rules report -c config/gateway.toml      rules that never act, change nothing or open too much
  gnomon run -c config/gateway.toml               live
  gnomon top                                      watch the running one; `gnomon flows` lists what passes
  gnomon alerts -r result/alerts.jsonl            what was found; `gnomon alerts show N` explains one
  gnomon score result/flows.jsonl                 what is unusual in a file, and why";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the appliance on live ports.
    Run(run::RunArgs),
    /// Send captures through the appliance, with their own time, and write what came of it.
    Replay(replay::ReplayArgs),
    /// Check a configuration and report everything wrong with it at once.
    Check(check::CheckArgs),
    /// Tell, stage by stage, what would happen to a packet. Sends nothing.
    Explain(explain::ExplainArgs),
    /// Look after rules: which never act, change nothing, contradict each other, open too much.
    Rules(rules::RulesArgs),
    /// Say what the running appliance is and does.
    Status(status::StatusArgs),
    /// List live flows of the running appliance, or flow records of a file.
    Flows(flows::FlowsArgs),
    /// Learn what the VMs of groups talk to from flow records; make rules of it; find what is new.
    Learn(learn::LearnArgs),
    /// Propose changes of the rules, from flow records: what to allow, deny, narrow, retire, and why.
    Suggest(suggest::SuggestArgs),
    /// Show which group pairs did what was not expected of them, and why.
    Pairs(pairs::PairsArgs),
    /// Watch the running appliance: rates, rules, groups, mirrors, drops, alerts, latency.
    Top(top::TopArgs),
    /// Mirror sessions of the running appliance: what they take, what became of every copy.
    Mirror(mirror::MirrorArgs),
    /// Take mirror copies out of their tunnels, and check that none is missing.
    Receive(receive::ReceiveArgs),
    /// List, follow and explain alerts of the running appliance, or of files.
    Alerts(alerts::AlertsArgs),
    /// The scorer's models: which there are, how they compare, train, promote, roll back.
    Model(model::ModelArgs),
    /// Score flow records, tables or captures, and say why what is unusual is.
    Score(score::ScoreArgs),
    /// Serve the policy API without a data path.
    Serve(serve::ServeArgs),
    /// VMs: workloads with addresses and tags, by which groups pick them.
    Vm(remote::vm::VmArgs),
    /// Tags of VMs: which there are, who carries them.
    Tag(remote::tag::TagArgs),
    /// Groups: VMs by tags or id, networks, VLANs and virtual networks under one name.
    Group(remote::group::GroupArgs),
    /// Relationships: what becomes of connections from one group to another.
    Relationship(remote::relationship::RelationshipArgs),
    /// Rules that all of the policy comes to, with what each is from.
    Rule(remote::rule::RuleArgs),
    /// Profiles: the consolidated policy of one group, or a share of it, for another.
    Profile(remote::profile::ProfileArgs),
    /// Overrides: exceptions for single VMs, before all rules, with a reason.
    Override(remote::exception::OverrideArgs),
    /// The inbox: connections never seen before, waiting for approve or deny.
    Inbox(remote::inbox::InboxArgs),
    /// Changes of the policy that traffic speaks for.
    Suggestion(remote::suggestion::SuggestionArgs),
    /// The policy: what waits in the draft, how it is put in force, and back.
    Policy(remote::policy::PolicyArgs),
    /// The audit log: who did what, when and why; is it whole?
    Audit(remote::audit::AuditArgs),
    /// Who may use the API: make, list and revoke tokens.
    Token(token::TokenArgs),
    /// Write a labelled synthetic capture with its truth and a matching configuration.
    Scenario(scenario::ScenarioArgs),
    /// Capture packets of the running appliance, with what became of them.
    Capture(capture::CaptureArgs),
    /// Follow packets of the running appliance through its stages.
    Trace(trace::TraceArgs),
}

/// Parses the command line and runs one verb.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.verbose);
    let result = match &arguments.verb {
        Verb::Run(args) => run::run(args),
        Verb::Replay(args) => replay::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Explain(args) => explain::run(args),
        Verb::Rules(args) => rules::run(args),
        Verb::Status(args) => status::run(args),
        Verb::Flows(args) => flows::run(args),
        Verb::Learn(args) => learn::run(args),
        Verb::Suggest(args) => suggest::run(args),
        Verb::Pairs(args) => pairs::run(args),
        Verb::Top(args) => top::run(args),
        Verb::Mirror(args) => mirror::run(args),
        Verb::Receive(args) => receive::run(args),
        Verb::Alerts(args) => alerts::run(args),
        Verb::Model(args) => model::run(args),
        Verb::Score(args) => score::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Vm(args) => remote::vm::run(args),
        Verb::Tag(args) => remote::tag::run(args),
        Verb::Group(args) => remote::group::run(args),
        Verb::Relationship(args) => remote::relationship::run(args),
        Verb::Rule(args) => remote::rule::run(args),
        Verb::Profile(args) => remote::profile::run(args),
        Verb::Override(args) => remote::exception::run(args),
        Verb::Inbox(args) => remote::inbox::run(args),
        Verb::Suggestion(args) => remote::suggestion::run(args),
        Verb::Policy(args) => remote::policy::run(args),
        Verb::Audit(args) => remote::audit::run(args),
        Verb::Token(args) => token::run(args),
        Verb::Scenario(args) => scenario::run(args),
        Verb::Capture(args) => capture::run(args),
        Verb::Trace(args) => trace::run(args),
    };
    result.unwrap_or_else(|error| {
        let is_pipe = |io: &std::io::Error| io.kind() == std::io::ErrorKind::BrokenPipe;
        if error.downcast_ref().is_some_and(is_pipe) {
            // Whoever read the output, such as `head`, has had enough.
            return ExitCode::SUCCESS;
        }
        // Nobody is left to tell when stderr is gone.
        let _ = writeln!(std::io::stderr(), "gnomon: {}", told(&error));
        ExitCode::FAILURE
    })
}

/// An error with its causes, leaving out causes that the text before already contains.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.contains(&cause) {
        true => text,
        false if text.is_empty() => cause,
        false => format!("{text}: {cause}"),
    })
}

/// Columns of the terminal that standard output goes to, if it does.
fn terminal_width() -> Option<u16> {
    use std::io::IsTerminal;
    let of_environment = || std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let of_terminal = || ratatui::crossterm::terminal::size().ok().map(|(columns, _)| columns);
    of_environment().or_else(|| std::io::stdout().is_terminal().then(of_terminal).flatten())
}

fn start_log(verbose: u8) {
    let level = match verbose {
        // Who changed something over the control socket is said in any case.
        0 => "warn,gnomon::control=info",
        1 => "info",
        _ => "debug",
    };
    let environment = env_logger::Env::default().filter_or("GNOMON_LOG", level);
    env_logger::Builder::from_env(environment).format_target(false).init();
}

fn version() -> &'static str {
    concat!(env!("CARGO_PKG_VERSION"), " (built for DPDK ", env!("GNOMON_DPDK_BUILD_VERSION"), ")")
}
