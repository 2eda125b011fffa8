//! `gnomon replay`: captures through the appliance.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::report::Report;
use crate::appliance::{PolicyNames, Pools, Progress, ReplayOptions, ReplayTrace, replay, store_path, with_policy};
use crate::config::{self, Config, Ipfix, IpfixTransport};
use crate::dpdk::{Eal, EalOptions};
use crate::filter::{Expression, Schema};
use crate::flow::FlowRecord;
use crate::policy::service::stored_policy;
use crate::store::Store;

/// Send captures through the appliance, with their own time, and write what came of it.
///
/// The same workers as live, over DPDK's pcap device: headers, flow table, rules, mirrors, records, scores. Nothing
/// is lost, and the same input gives the same bytes out. Needs no root and no hugepages.
///
/// Reads pcap and pcapng, also gzipped, with Ethernet, raw IP, Linux cooked, null, PPP or Cisco HDLC link types.
/// Writes into the output folder forwarded.pcap, mirror-SESSION.pcap, replies.pcap (answers to rejected packets,
/// if any), flows.jsonl, alerts.jsonl, suggestions.jsonl and summary.json.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Captures to send through. Several get a subfolder of the output folder each.
    #[arg(required = true, value_name = "CAPTURE")]
    captures: Vec<PathBuf>,
    /// Configuration; its ports are not used. Without one everything is allowed and scored, nothing mirrored.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for the results; made if missing. Results of an earlier replay in it are replaced.
    #[arg(short, long, value_name = "DIR", default_value = "gnomon-replay")]
    output: PathBuf,
    /// Workers to spread the flows over.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    workers: u16,
    /// Also write packets.jsonl: per packet the headers as understood, verdict, rule and drop reason.
    #[arg(long)]
    packets: bool,
    /// Also send the flow records to this IPFIX collector; may be given several times. "config": to those of the
    /// configuration. Over UDP at most a thousand messages a second, so that no collector is overrun; over TCP as fast as it reads.
    #[arg(long, value_name = "HOST:PORT[/udp|/tcp]")]
    ipfix: Vec<String>,
    /// Tell the way of packets through the stages: of those that this expression chooses, such as 'drop=denied' or
    /// 'host=10.0.0.1 and tcp_flags=syn'; also written to trace.jsonl.
    #[arg(long, value_name = "EXPR")]
    trace: Option<String>,
    /// Packets traced at most: the first ones.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "trace",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    trace_count: u32,
    /// Begin with the models in this store (made if missing), and store there what is trained. "config": that of the
    /// configuration. Without it every replay learns anew.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Groups and rules of the latest policy in this store, in the place of the configuration's: what would become of this
    /// traffic under it.
    #[arg(long, value_name = "STORE")]
    policy: Option<PathBuf>,
    /// Seed of everything random, instead of the configuration's.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the summary as JSON, one line per capture, instead of tables.
    #[arg(long)]
    json: bool,
    /// Print nothing but errors.
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

impl ReplayArgs {
    fn options(&self, config: &Config) -> Result<ReplayOptions> {
        let parse = |text: &String| Expression::parse(text, &Schema::PACKET);
        let filter = self.trace.as_ref().map(parse).transpose().map_err(|error| anyhow!("--trace: {error}"))?;
        let trace = filter.map(|filter| ReplayTrace { filter, count: self.trace_count as usize });
        let ipfix = collectors(&self.ipfix, config)?;
        let named = |path: &PathBuf| match path.to_str() {
            Some("config") => store_path(config),
            _ => path.clone(),
        };
        let store = self.store.as_ref().map(named);
        Ok(ReplayOptions {
            workers: usize::from(self.workers),
            packets: self.packets,
            ipfix,
            trace,
            store,
            records: None,
        })
    }
}

/// Buffers for packets and copies; with the device's chains of segments enough for every ring.
const BUFFERS: u32 = 32_767;
const MEMORY_MB: u32 = 256;

pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode> {
    let mut config = match &args.config {
        Some(file) => config::load(file)?,
        None => Config::default_pair(),
    };
    config.seed = args.seed.unwrap_or(config.seed);
    if let Some(path) = &args.policy {
        config = with_policy(config, &stored_policy(&Store::open_existing(path)?)?);
    }
    let options = args.options(&config)?;
    let eal = Arc::new(Eal::start(&eal_options(args.workers))?);
    let pools = Pools::new(&eal, BUFFERS)?;
    let mut folders = Folders::default();
    let mut failures = 0;
    for capture in &args.captures {
        let out = folders.folder_for(args, capture);
        if let Err(error) = replay_one(args, &options, &config, &eal, &pools, capture, &out) {
            failures += 1;
            writeln!(std::io::stderr(), "gnomon: {}", super::told(&error.context(capture.display().to_string())))?;
        }
    }
    if failures > 0 && args.captures.len() > 1 {
        writeln!(std::io::stderr(), "gnomon: {failures} of {} captures failed", args.captures.len())?;
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What captures need to go through the workers; one in a process.
pub(super) struct Replayer {
    eal: Arc<Eal>,
    pools: Pools,
}

impl Replayer {
    pub(super) fn start() -> Result<Self> {
        let eal = Arc::new(Eal::start(&eal_options(1))?);
        let pools = Pools::new(&eal, BUFFERS)?;
        Ok(Self { eal, pools })
    }

    /// The flow records of a capture; what else comes of it goes to `out`, which must exist.
    pub(super) fn records(
        &self,
        config: &Config,
        capture: &Path,
        out: &Path,
    ) -> Result<(Vec<FlowRecord>, Arc<PolicyNames>)> {
        let records = Arc::new(Mutex::new(Vec::new()));
        let kept = Some(records.clone());
        let options =
            ReplayOptions { workers: 1, packets: false, ipfix: Vec::new(), trace: None, records: kept, store: None };
        let bar = progress_bar();
        let replayed = replay(&self.eal, &self.pools, config, capture, out, &options, |progress| show(&bar, progress));
        bar.finish_and_clear();
        let names = replayed?.names;
        let records = std::mem::take(&mut *records.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((records, names))
    }
}

fn replay_one(
    args: &ReplayArgs,
    options: &ReplayOptions,
    config: &Config,
    eal: &Arc<Eal>,
    pools: &Pools,
    capture: &Path,
    out: &Path,
) -> Result<()> {
    clean_folder(out)?;
    let bar = if args.quiet || args.json { ProgressBar::hidden() } else { progress_bar() };
    let started = Instant::now();
    let replayed = replay(eal, pools, config, capture, out, options, |progress| show(&bar, progress));
    bar.finish_and_clear();
    let mut replayed = replayed?;
    replayed.files.push(replayed.summary.write(out)?);
    if !replayed.summary.adds_up() {
        return Err(anyhow!("packet counters do not add up: {:?}", replayed.summary));
    }
    let mut stdout = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut stdout, &replayed.summary)?;
        writeln!(stdout)?;
    } else if !args.quiet {
        write!(stdout, "{}", Report::of_replay(capture, &replayed, started.elapsed()))?;
        for way in &replayed.trace {
            write!(stdout, "\n{way}")?;
        }
    }
    Ok(())
}

/// What `--ipfix` names.
fn collectors(asked: &[String], config: &Config) -> Result<Vec<Ipfix>> {
    let mut all = Vec::new();
    for text in asked {
        if text == "config" {
            if config.ipfix.is_empty() {
                return Err(anyhow!("--ipfix config: the configuration has no [[ipfix]]"));
            }
            all.extend(config.ipfix.iter().cloned());
            continue;
        }
        let (address, transport) = match text.rsplit_once('/') {
            None | Some((_, "udp")) => (text.trim_end_matches("/udp"), IpfixTransport::Udp),
            Some((address, "tcp")) => (address, IpfixTransport::Tcp),
            Some((_, other)) => return Err(anyhow!("--ipfix {text}: `{other}` is no transport; allowed: udp, tcp")),
        };
        let port = address.rsplit_once(':').and_then(|(host, port)| port.parse().ok().filter(|_| !host.is_empty()));
        if port.is_none_or(|port: u16| port == 0) {
            let example = "127.0.0.1:4739, [::1]:4739/tcp or config";
            return Err(anyhow!("--ipfix {text}: a host and a port from 1 to 65535 are needed, such as {example}"));
        }
        all.push(Ipfix::to(address, transport));
    }
    Ok(all)
}

/// One lcore for each worker beside the main one. All may use all CPUs: replay shares them with its writers.
fn eal_options(workers: u16) -> EalOptions {
    let cpus: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    let cpus = if cpus.is_empty() { vec![0] } else { cpus };
    EalOptions {
        lcores: vec![cpus; usize::from(workers) + 1],
        hugepages: false,
        memory_mb: MEMORY_MB,
        file_prefix: format!("gnomon-replay-{}", std::process::id()),
        pci_allow: Vec::new(),
    }
}

/// Results of an earlier replay must not be mistaken for this one's.
fn clean_folder(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    for entry in std::fs::read_dir(out).with_context(|| format!("reading {}", out.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let ours = matches!(name, "forwarded.pcap" | "replies.pcap" | "packets.jsonl" | "summary.json" | "trace.jsonl")
            || matches!(name, "flows.jsonl" | "alerts.jsonl" | "suggestions.jsonl")
            || (name.starts_with("mirror-") && name.ends_with(".pcap"));
        if ours {
            std::fs::remove_file(&path).with_context(|| format!("replacing {}", path.display()))?;
        }
    }
    Ok(())
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{prefix:>9} [{bar:40}] {percent:>3} %  {msg}  {eta}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn show(bar: &ProgressBar, progress: Progress) {
    let (what, unit, done, total) = match progress {
        Progress::Reading(done, total) => ("reading", "bytes", done, total),
        Progress::Running(done, total) => ("replaying", "packets", done, total),
    };
    bar.set_prefix(what);
    bar.set_message(format!("{done} of {total} {unit}"));
    bar.set_length(total);
    bar.set_position(done);
}

/// Output folders: the given one for a single capture, named subfolders for several.
#[derive(Default)]
struct Folders {
    used: BTreeSet<String>,
}

impl Folders {
    fn folder_for(&mut self, args: &ReplayArgs, capture: &Path) -> PathBuf {
        if args.captures.len() == 1 {
            return args.output.clone();
        }
        let name = capture.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "capture".into());
        let numbered = (2u32..).map(|n| format!("{name}-{n}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|folder| self.used.insert(folder.clone()));
        args.output.join(free.unwrap_or(name))
    }
}
