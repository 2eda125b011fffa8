//! `gnomon learn`: what VMs of a group talk to, out of flow records; rules from it; what it does not cover.

pub(super) mod alerts;
mod graph;
mod mirror;
mod rules;
mod unseen;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::progress::spinner;
use super::remote::learn as remote;
use crate::config::{self, Config};
use crate::filter::JsonLine;
use crate::ingest::FlowFile;
use crate::policy::learning::{Graph, Seen};

const EXAMPLES: &str = "\
Examples, on a synthetic data centre:
  gnomon scenario -o lab --attacks none
  gnomon replay lab/scenario.pcap -c lab/scenario.toml -o result
  gnomon learn graph result/flows.jsonl --alerts result/alerts.jsonl -c lab/scenario.toml -w graph.json
  gnomon learn rules graph.json --deny-rest
  gnomon learn mirror graph.json --from web --to web-new --strength 50
  gnomon learn unseen graph.json result/flows.jsonl -c lab/scenario.toml --alerts result/alerts.jsonl
Examples, on a running appliance:
  gnomon learn start web --min-days 3 --stable-days 2
  gnomon learn status
  gnomon learn show web
  gnomon learn stop web --enforce";

/// Learn what the VMs of groups talk to, and make rules of it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct LearnArgs {
    #[command(subcommand)]
    verb: LearnVerb,
}

#[derive(Debug, Subcommand)]
enum LearnVerb {
    Graph(graph::GraphArgs),
    Rules(rules::RulesArgs),
    Mirror(mirror::MirrorArgs),
    Unseen(unseen::UnseenArgs),
    Start(remote::StartArgs),
    Stop(remote::StopArgs),
    Status(remote::StatusArgs),
    Show(remote::ShowArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

pub(super) fn run(args: &LearnArgs) -> Result<ExitCode> {
    match &args.verb {
        LearnVerb::Graph(args) => graph::run(args),
        LearnVerb::Rules(args) => rules::run(args),
        LearnVerb::Mirror(args) => mirror::run(args),
        LearnVerb::Unseen(args) => unseen::run(args),
        LearnVerb::Start(args) => remote::start(args),
        LearnVerb::Stop(args) => remote::stop(args),
        LearnVerb::Status(args) => remote::status(args),
        LearnVerb::Show(args) => remote::show(args),
    }
}

/// What a configuration says of groups and VMs.
pub(super) struct Members {
    sizes: BTreeMap<Arc<str>, usize>,
    vms: BTreeMap<IpAddr, Arc<str>>,
}

impl Members {
    fn of(path: &Path) -> Result<Self> {
        Ok(Self::of_config(&config::load(path)?))
    }

    pub(super) fn of_config(config: &Config) -> Self {
        let sizes = config.policy.groups.iter().map(|group| (Arc::from(group.name.as_str()), group.size()));
        let addresses = config.vms.iter().flat_map(|vm| {
            let id: Arc<str> = vm.id.as_str().into();
            let parsed = vm.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
            parsed.map(move |address| (address, id.clone())).collect::<Vec<_>>()
        });
        Self { sizes: sizes.collect(), vms: addresses.collect() }
    }

    /// The groups asked for; all when none is.
    fn chosen(&self, asked: &[String]) -> Result<Vec<Arc<str>>> {
        for name in asked {
            if !self.sizes.contains_key(name.as_str()) {
                let known: Vec<&str> = self.sizes.keys().map(|name| &**name).collect();
                bail!("the configuration has no group `{name}`; it has {}", known.join(", "));
            }
        }
        match asked {
            [] => Ok(self.sizes.keys().cloned().collect()),
            some => Ok(some.iter().map(|name| name.as_str().into()).collect()),
        }
    }
}

/// Every connection in some files of flow records, with its line.
pub(super) fn each_flow(
    files: &[PathBuf],
    members: &Members,
    mut take: impl FnMut(&Seen, JsonLine<'_>) -> Result<()>,
) -> Result<()> {
    let bar = spinner("reading");
    for file in files {
        for found in FlowFile::open(file)? {
            let (_, value) = found?;
            if let Some(seen) = Seen::of(&JsonLine(&value), |address| members.vms.get(&address).cloned()) {
                take(&seen, JsonLine(&value))?;
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn read_graphs(path: &Path) -> Result<Vec<Graph>> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_reader(BufReader::new(file))
        .with_context(|| format!("{} is not a file that `gnomon learn graph --write` made", path.display()))
}

/// To a file, or to standard output.
fn write(path: Option<&Path>, text: &str) -> Result<()> {
    match path {
        Some(path) => std::fs::write(path, text).with_context(|| format!("writing {}", path.display())),
        None => {
            use std::io::Write as _;
            std::io::stdout().lock().write_all(text.as_bytes()).map_err(Into::into)
        }
    }
}
