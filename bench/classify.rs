//! The classification engine against DPDK's `rte_acl`: cycles per packet, build time, memory; results compared packet
//! by packet first.
//!
//! Both get the same array of five-tuples in network order, as they lie in packets, in bursts of 32, and are charged
//! for what they make of it: `rte_acl` an array of pointers, the engine a batch of host-order arrays. They take turns in
//! one process. What a chunk of 4096 packets costs is the median (and the minimum) over all turns; chunks are summed.
//!
//! `cargo bench --bench classify -- [--set NAME…] [--rules FILE [--trace FILE]…]… [--generate KIND=COUNT]…
//! [--sweep | --ipv6 | --updates | --counting] [--quick] [--json FILE] [--cpu N]`

mod classbench;
mod common;
mod generate;
#[path = "classify/chart.rs"]
mod chart;
#[path = "classify/counted.rs"]
mod counted;
#[path = "classify/counting.rs"]
mod counting;
#[path = "classify/engine.rs"]
mod engine;
#[path = "classify/ipv6.rs"]
mod ipv6;
#[path = "flows/line.rs"]
mod line;
#[path = "classify/sweep.rs"]
mod sweep;
#[path = "classify/timing.rs"]
mod timing;
#[path = "classify/updates.rs"]
mod updates;
#[path = "classify/verify.rs"]
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{CommandFactory, FromArgMatches, Parser};
use core_affinity::CoreId;
use gnomon::dpdk::{Acl, AclAlgorithm, Eal, EalOptions, hz};

use classbench::{RuleSet, Trace, rows};
use common::{Case, Options, Results, median};
use engine::{EngineOptions, kernel_name};
use timing::{Effort, Timing, peer_name};

/// Memory for rte_acl; pages that are not used cost nothing.
const EAL_MEMORY_MB: u32 = 3072;
/// Packets of a large set that linear search looks at.
const LINEAR_SAMPLE: usize = 20_000;
const GENERATED_RULES: usize = 1000;
/// Algorithms of rte_acl that are timed unless all are asked for, the widest: the fastest is among them.
const USUAL_ALGORITHMS: usize = 2;

/// Compares gnomon's classification engine with DPDK's rte_acl on the same rules and packets.
///
/// Without --set and --rules: all sets in $GNOMON_SHARED/classbench (default ../shared/classbench); if there is no such
/// folder, a small generated set. Before anything is timed, the result for every packet is compared with rte_acl and
/// with linear search; a difference is printed and the exit code is 1. A ratio is rte_acl's cycles by the engine's: above 1
/// the engine is faster. Means are of ratios to the fastest algorithm of rte_acl. Other work on the machine moves the cycles, the ratios much less.
#[derive(Debug, Parser)]
#[command(
    name = "classify",
    after_help = "Examples:
  cargo bench --bench classify -- --quick
  cargo bench --bench classify -- --set acl1_1k --set fw1_1k --all
  cargo bench --bench classify -- --rules my.rules --trace my.trace --json out.json

Rules are ClassBench's: @SRC/LEN DST/LEN LOW : HIGH LOW : HIGH PROTOCOL/MASK FLAGS/MASK, first match wins, flags are
ignored. Traces: SRC DST SRC_PORT DST_PORT PROTOCOL in decimal. Both may be compressed with xz."
)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    engine: EngineOptions,
    /// A set of the shared folder, such as acl1_10k; may be repeated
    #[arg(long = "set", value_name = "NAME")]
    sets: Vec<String>,
    /// A file of rules; may be repeated
    #[arg(long, value_name = "FILE")]
    rules: Vec<PathBuf>,
    /// Packets for the --rules before it; may be repeated. Without it they are made from the rules
    #[arg(long = "trace", value_name = "FILE", requires = "rules")]
    traces: Vec<PathBuf>,
    /// Rules made here, such as ranges=10000: access-list, firewall, or ranges (more distinct port ranges than fit a set of
    /// services); may be repeated
    #[arg(long, value_name = "KIND=COUNT", value_parser = generated)]
    generate: Vec<(generate::Flavour, usize)>,
    /// Instead of sets: generated rules, from 1,000 to 1,000,000 of them, written as a chart
    #[arg(long, conflicts_with_all = ["sets", "rules", "generate"])]
    sweep: bool,
    /// The same sets with IPv6 addresses, against rte_acl with IPv6 and the engine with IPv4
    #[arg(long, conflicts_with_all = ["sweep", "updates"])]
    ipv6: bool,
    /// Instead of looking packets up: how long changes of rules take, and what they cost a thread that looks packets up
    #[arg(long, conflicts_with = "sweep")]
    updates: bool,
    /// Instead of rte_acl: the same rules with and without counters, some in shadow mode, one packet at a time as workers
    /// ask them; then whole workers
    #[arg(long, conflicts_with_all = ["sweep", "updates", "ipv6"])]
    counting: bool,
    /// The chart of --sweep
    #[arg(long, value_name = "FILE", default_value = "target/classify-sweep.svg")]
    svg: PathBuf,
    /// Time all algorithms of rte_acl, not only the two widest of this CPU
    #[arg(long)]
    all: bool,
}

/// Where a set comes from.
enum Source {
    Files { rules: PathBuf, traces: Vec<PathBuf> },
    Generated(generate::Flavour, usize),
}

/// A kind of rules and how many.
fn generated(text: &str) -> Result<(generate::Flavour, usize), String> {
    let (kind, count) = text.split_once('=').ok_or("KIND=COUNT is wanted")?;
    let flavour = generate::Flavour::ALL.into_iter().find(|flavour| flavour.name() == kind);
    let names = generate::Flavour::ALL.map(generate::Flavour::name).join(", ");
    let flavour = flavour.ok_or_else(|| format!("kinds are {names}"))?;
    let count = count.parse::<usize>().ok().filter(|count| *count > 0).ok_or("COUNT is a number above 0")?;
    Ok((flavour, count))
}

fn main() -> ExitCode {
    let matches = Arguments::command().get_matches();
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("classify: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(matches: &clap::ArgMatches) -> Result<()> {
    let arguments = Arguments::from_arg_matches(matches)?;
    let sources = if arguments.sweep { Vec::new() } else { sources(&arguments, matches)? };
    // This thread may run on no other CPU than its own afterwards.
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let other_cpu = cpus.into_iter().find(|core| core.id != arguments.options.cpu);
    let eal = start(arguments.options.cpu)?;
    core_affinity::set_for_current(CoreId { id: arguments.options.cpu });
    let mut report = Report::new(&arguments, &eal, other_cpu);
    println!("{}\n{}", report.results.machine, gnomon::dpdk::version());
    for source in sources {
        let set = match source {
            Source::Files { rules, traces } => RuleSet::read(&rules, &traces)?,
            Source::Generated(flavour, count) => {
                RuleSet::derived(format!("{} {count}", flavour.name()), generate::generate(flavour, count, 1))
            }
        };
        report.set(&set, &arguments).with_context(|| set.name.clone())?;
    }
    if arguments.counting {
        counted::measure(&mut report.results, &eal, report.effort.turns * 8)?;
    }
    if arguments.sweep {
        report.differences = sweep::sweep(&mut report.results, &eal, report.effort, &arguments)?;
    }
    report.means();
    report.results.finish(&arguments.options);
    ensure!(report.differences == 0, "{} packets with a wrong result", report.differences);
    Ok(())
}

fn sources(arguments: &Arguments, matches: &clap::ArgMatches) -> Result<Vec<Source>> {
    let mut sources = pairs(arguments, matches)?;
    sources.extend(arguments.generate.iter().map(|(flavour, count)| Source::Generated(*flavour, *count)));
    if !sources.is_empty() && arguments.sets.is_empty() {
        return Ok(sources);
    }
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("GNOMON_SHARED").map_or(default, PathBuf::from).join("classbench");
    if arguments.sets.is_empty() && !folder.is_dir() {
        println!("no sets in {} (set GNOMON_SHARED): a generated one instead", folder.display());
        return Ok(vec![Source::Generated(generate::Flavour::Acl, GENERATED_RULES)]);
    }
    let files = classbench::list(&folder).context("the sets of --set (GNOMON_SHARED says where they are)")?;
    if let Some(unknown) = arguments.sets.iter().find(|name| files.iter().all(|files| files.name != **name)) {
        let names: Vec<&str> = files.iter().map(|files| files.name.as_str()).collect();
        bail!("--set {unknown}: {} has {}", folder.display(), names.join(", "));
    }
    let wanted = |files: &classbench::Files| arguments.sets.is_empty() || arguments.sets.contains(&files.name);
    let files = files.into_iter().filter(wanted);
    sources.extend(files.map(|files| Source::Files { rules: files.rules, traces: files.traces }));
    Ok(sources)
}

/// Each --rules with the --trace that follow it.
fn pairs(arguments: &Arguments, matches: &clap::ArgMatches) -> Result<Vec<Source>> {
    let positions = |name: &str| matches.indices_of(name).into_iter().flatten().collect::<Vec<usize>>();
    let (rules_at, traces_at) = (positions("rules"), positions("traces"));
    if traces_at.first() < rules_at.first() && !traces_at.is_empty() {
        bail!("--trace belongs to the --rules before it: give the rules first");
    }
    let source = |(index, rules): (usize, &PathBuf)| {
        let until = rules_at.get(index + 1).copied().unwrap_or(usize::MAX);
        let own = traces_at.iter().zip(&arguments.traces).filter(|(at, _)| (rules_at[index]..until).contains(at));
        Source::Files { rules: rules.clone(), traces: own.map(|(_, path)| path.clone()).collect() }
    };
    Ok(arguments.rules.iter().enumerate().map(source).collect())
}

fn start(cpu: usize) -> Result<Arc<Eal>> {
    let options = EalOptions {
        lcores: vec![vec![cpu]],
        hugepages: common::free_hugepages_mb() >= EAL_MEMORY_MB,
        memory_mb: EAL_MEMORY_MB,
        file_prefix: format!("gnomon-classify-{}", std::process::id()),
        pci_allow: Vec::new(),
    };
    Ok(Arc::new(Eal::start(&options)?))
}

/// Measures sets, prints lines and keeps what the means need.
struct Report<'a> {
    results: Results,
    effort: Effort,
    engine: EngineOptions,
    eal: &'a Arc<Eal>,
    /// For a second thread, where there is a second CPU.
    other_cpu: Option<CoreId>,
    differences: usize,
    /// Ratios by size of the set and kind of trace.
    ratios: BTreeMap<(usize, String), Vec<f64>>,
}

impl<'a> Report<'a> {
    fn new(arguments: &Arguments, eal: &'a Arc<Eal>, other_cpu: Option<CoreId>) -> Self {
        let turns = if arguments.options.quick { 5 } else { 15 };
        let algorithms = if arguments.all { usize::MAX } else { USUAL_ALGORITHMS };
        let effort = Effort { turns, algorithms };
        let (results, ratios) = (Results::new("classify"), BTreeMap::new());
        Self { results, effort, engine: arguments.engine, eal, other_cpu, differences: 0, ratios }
    }

    fn set(&mut self, set: &RuleSet, arguments: &Arguments) -> Result<()> {
        if arguments.updates {
            self.updates(set, &arguments.options)
        } else if arguments.counting {
            counting::measure(&mut self.results, set, self.effort.turns)
        } else if arguments.ipv6 {
            self.differences += ipv6::compare(&mut self.results, self.eal, set, self.engine, self.effort.turns)?;
            Ok(())
        } else {
            self.measure(set)
        }
    }

    fn measure(&mut self, set: &RuleSet) -> Result<()> {
        let (mut acl, acl_ms) = timed(|| Acl::build(self.eal, &set.rules, 0));
        let acl = acl.as_mut().map_err(|error| error.clone())?;
        let rows = rows(&set.rules);
        let (mut engine, mut times) = (self.engine.build(&rows)?, Vec::new());
        for _ in 0..3 {
            let (built, ms) = timed(|| self.engine.build(&rows));
            engine = built?;
            times.push(ms);
        }
        println!("\n{}: {} rules, {}", set.name, set.rules.len(), kernel_name(&engine));
        self.compare(format!("{} build", set.name), "ms", times, acl_ms);
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let (memory, acl_memory) = (megabytes(engine.memory_bytes() as u64), megabytes(acl.memory_bytes()));
        self.compare(format!("{} memory", set.name), "MB", vec![memory], acl_memory);
        for trace in &set.traces {
            self.differences += verify::verify(&set.rules, trace, &engine, Some(acl), LINEAR_SAMPLE);
            let (ours, peers) = timing::measure(&trace.packets, &engine, Some(acl), self.effort)?;
            self.print(set, trace, ours, &peers);
        }
        Ok(())
    }

    fn updates(&mut self, set: &RuleSet, options: &Options) -> Result<()> {
        let effort = match options.quick {
            true => updates::Effort { single: 500, large: 20, seconds: 1, writer: self.other_cpu },
            false => updates::Effort { single: 5000, large: 100, seconds: 3, writer: self.other_cpu },
        };
        self.differences += updates::updates(&mut self.results, set, effort)?;
        Ok(())
    }

    /// A line about building or memory.
    fn compare(&mut self, case: String, unit: &'static str, runs: Vec<f64>, peer: f64) {
        let (ours, peer_name) = (median(&runs), Some("rte_acl"));
        println!("  {case:<26} {ours:>10.2} {unit:<14} rte_acl {peer:>10.2}   ratio {:.2}", peer / ours);
        self.results.cases.push(Case { case, unit, ours, peer: Some(peer), peer_name, ratio: Some(peer / ours), runs });
    }

    fn print(&mut self, set: &RuleSet, trace: &Trace, ours: Timing, peers: &[(AclAlgorithm, Timing)]) {
        let line = |name: &str, timing: &Timing| {
            let mpps = hz() as f64 / timing.median / 1e6;
            let Timing { median, least, .. } = timing;
            format!("  {name:<26} {median:>10.2} cycles/packet (min {least:.2})   {mpps:.1} Mpps")
        };
        println!("{}", line(&format!("{} {}", set.name, trace.name), &ours));
        for (algorithm, timing) in peers {
            let ratio = timing.median / ours.median;
            println!("{}   ratio {ratio:.2}", line(&format!("  {}", peer_name(*algorithm)), timing));
        }
        let ratio = |peer: &Timing| peer.median / ours.median;
        let fastest = peers.iter().map(|(_, peer)| ratio(peer)).fold(f64::INFINITY, f64::min);
        self.ratios.entry((size_class(set.rules.len()), trace.name.clone())).or_default().push(fastest);
        self.results.cases.extend(peers.iter().map(|(algorithm, peer)| Case {
            case: format!("{} {}", set.name, trace.name),
            unit: "cycles/packet",
            ours: ours.median,
            peer: Some(peer.median),
            peer_name: Some(peer_name(*algorithm)),
            ratio: Some(ratio(peer)),
            runs: ours.turns.clone(),
        }));
    }

    /// Geometric means of the ratios.
    fn means(&mut self) {
        println!();
        for ((size, trace), ratios) in &self.ratios {
            let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
            println!("geometric mean of {} sets of about {size} rules, {trace}: ratio {mean:.2}", ratios.len());
            self.results.cases.push(Case {
                case: format!("geometric mean, {size} rules, {trace}"),
                unit: "ratio",
                ours: mean,
                peer: None,
                peer_name: None,
                ratio: Some(mean),
                runs: ratios.clone(),
            });
        }
    }
}

/// Time that `work` took, in milliseconds.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let started = Instant::now();
    let made = work();
    (made, started.elapsed().as_secs_f64() * 1e3)
}

/// The power of ten that is nearest.
fn size_class(rules: usize) -> usize {
    10_usize.pow((rules as f64).log10().round() as u32)
}
