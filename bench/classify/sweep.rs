//! Cycles, memory and build time against the number of rules, on generated sets, as lines and as a chart.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use gnomon::dpdk::{Acl, AclRule, Eal};

use crate::chart::{self, Curve};
use crate::classbench::{Trace, derive_trace, rows};
use crate::common::{Case, Results, peak_memory_mb, reset_peak_memory};
use crate::engine::EngineOptions;
use crate::generate::{Flavour, generate};
use crate::timing::{Effort, measure, peer_name};
use crate::verify::verify;
use crate::{Arguments, timed};

const SIZES: [usize; 7] = [1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000];
/// Sizes of a quick sweep.
const QUICK: usize = 3;
const PACKETS: usize = 100_000;
/// Packets that linear search looks at, or more.
const LINEAR_SAMPLE: usize = 2000;
/// rte_acl is left out where building is likely to take more.
const PEER_SECONDS: f64 = 30.0;
const PEER_MB: f64 = 8192.0;
/// A little more than proportional, as rte_acl's builds grow.
const GROWTH: f64 = 1.2;

/// What one side needed for one set.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub cycles: f64,
    pub megabytes: f64,
    pub milliseconds: f64,
}

/// What rte_acl's last build needed, so that the next need not be tried.
#[derive(Default)]
struct Budget {
    last: Option<(usize, f64, f64)>,
}

/// The sweep over one flavour.
struct Sweep<'a> {
    eal: &'a Arc<Eal>,
    effort: Effort,
    engine: EngineOptions,
    results: &'a mut Results,
    flavour: Flavour,
    budget: Budget,
    ours: Vec<(usize, Cost)>,
    theirs: Vec<(usize, Cost)>,
    wrong: usize,
}

/// Measures, prints, draws; returns how many packets had a wrong result.
pub fn sweep(results: &mut Results, eal: &Arc<Eal>, effort: Effort, arguments: &Arguments) -> Result<usize> {
    let sizes = if arguments.options.quick { &SIZES[..QUICK] } else { &SIZES[..] };
    let (mut curves, mut wrong) = (Vec::new(), 0);
    for flavour in [Flavour::Acl, Flavour::Firewall] {
        let (budget, ours, theirs) = (Budget::default(), Vec::new(), Vec::new());
        let mut sweep = Sweep {
            eal,
            effort,
            engine: arguments.engine,
            results: &mut *results,
            flavour,
            budget,
            ours,
            theirs,
            wrong: 0,
        };
        sizes.iter().try_for_each(|size| sweep.measure(*size))?;
        wrong += sweep.wrong;
        let curve = |ours, points| Curve { ours, flavour, points };
        curves.extend([curve(true, sweep.ours), curve(false, sweep.theirs)]);
    }
    chart::draw(&arguments.svg, &curves).map_err(|error| anyhow!("{}: {error}", arguments.svg.display()))?;
    println!("\nchart: {}", arguments.svg.display());
    Ok(wrong)
}

impl Sweep<'_> {
    fn measure(&mut self, size: usize) -> Result<()> {
        println!("\n{size} {} rules", self.flavour.name());
        let rules = generate(self.flavour, size, 1);
        let trace = Trace { name: "derived trace".into(), packets: derive_trace(&rules, PACKETS, 2) };
        let rows = rows(&rules);
        let (engine, milliseconds) = timed(|| self.engine.build(&rows));
        let engine = engine?;
        let (mut acl, acl_ms) = match self.budget.allows(size) {
            true => self.build_peer(size, &rules)?,
            false => (None, 0.0),
        };
        self.wrong += verify(&rules, &trace, &engine, acl.as_ref(), LINEAR_SAMPLE);
        let (timing, peers) = measure(&trace.packets, &engine, acl.as_mut(), self.effort)?;
        let megabytes = engine.memory_bytes() as f64 / 1e6;
        let ours = Cost { cycles: timing.median, megabytes, milliseconds };
        ours.print("gnomon");
        self.ours.push((size, ours));
        let fastest = peers.into_iter().min_by(|a, b| a.1.median.total_cmp(&b.1.median));
        let theirs = fastest.zip(acl).map(|((algorithm, timing), acl)| {
            let megabytes = acl.memory_bytes() as f64 / 1e6;
            (peer_name(algorithm), Cost { cycles: timing.median, megabytes, milliseconds: acl_ms })
        });
        if let Some((name, cost)) = theirs {
            cost.print(name);
            self.theirs.push((size, cost));
        }
        self.record(size, ours, theirs);
        Ok(())
    }

    fn build_peer(&mut self, size: usize, rules: &[AclRule]) -> Result<(Option<Acl>, f64)> {
        reset_peak_memory();
        let before = peak_memory_mb();
        let (acl, milliseconds) = timed(|| Acl::build(self.eal, rules, 0));
        self.budget.last = Some((size, milliseconds / 1e3, peak_memory_mb() - before));
        Ok((Some(acl?), milliseconds))
    }

    fn record(&mut self, size: usize, ours: Cost, theirs: Option<(&'static str, Cost)>) {
        let mut case = |what: &str, unit, of: fn(Cost) -> f64| {
            let (ours, peer) = (of(ours), theirs.map(|(_, cost)| of(cost)));
            self.results.cases.push(Case {
                case: format!("{size} {} rules, {what}", self.flavour.name()),
                unit,
                ours,
                peer,
                peer_name: theirs.map(|(name, _)| name),
                ratio: peer.map(|peer| peer / ours),
                runs: vec![ours],
            });
        };
        case("lookup", "cycles/packet", |cost| cost.cycles);
        case("memory", "MB", |cost| cost.megabytes);
        case("build", "ms", |cost| cost.milliseconds);
    }
}

impl Cost {
    fn print(&self, name: &str) {
        let Self { cycles, megabytes, milliseconds } = self;
        println!("  {name:<18} {cycles:>10.2} cycles/packet {megabytes:>10.2} MB {milliseconds:>10.1} ms to build");
    }
}

impl Budget {
    /// Whether a build for `size` rules is likely to stay within bounds; says so when not.
    fn allows(&self, size: usize) -> bool {
        let Some((last, seconds, megabytes)) = self.last else { return true };
        let more = (size as f64 / last as f64).powf(GROWTH);
        let fits = seconds * more <= PEER_SECONDS && megabytes * more <= PEER_MB;
        if !fits {
            println!(
                "  rte_acl left out: for {last} rules its build took {seconds:.1} s and {megabytes:.0} MB, \
                 for {size} more than {PEER_SECONDS} s or {PEER_MB} MB are to be expected"
            );
        }
        fits
    }
}
