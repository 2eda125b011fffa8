//! The model of the scorer against scikit-learn's isolation forest: the same rows, one core each by turns, processor
//! time. The forest has 100 trees of 256 records on both sides. A rate is end to end, from rows of 32-bit floats to
//! scores: ours bins, transposes and walks; scikit-learn's is `score_samples`.
//!
//! Columns: area under the ROC curve of both forests and of the whole model (mean over the seeds), its least over the
//! seeds, average precision, the area for a model of the first rows in file order that scores all rows after them in
//! order, and the rates.
//!
//! `cargo bench --bench scorer -- [--quick] [--json FILE] [--seeds 0-4] [--members forest,neighbours] [--train FILE --test FILE --label COLUMN]`
//!
//! Files are parquet or CSV. Without them: all known sets in $GNOMON_SHARED/flowsets (default ../shared/flowsets), or
//! a made one.

mod common;
#[path = "scorer/figures.rs"]
mod figures;
#[path = "scorer/peer.rs"]
mod peer;
#[path = "scorer/sets.rs"]
mod sets;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use gnomon::behaviour::{Member, Members, Model, Rows, Training};
use gnomon::trie::Isa;

use common::{Case, Options, Results, median};
use figures::{auc, average_precision};
use peer::Peer;
use sets::Set;

/// Rows that are timed, at most.
const TIMED: usize = 65_536;
/// Rows in file order that are learnt from before the first is scored.
const WINDOW: usize = 20_000;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Learn from the ordinary rows of this file
    #[arg(long, value_name = "FILE", requires_all = ["test", "label"])]
    train: Option<PathBuf>,
    /// Score all rows of this file
    #[arg(long, value_name = "FILE", requires = "train")]
    test: Option<PathBuf>,
    /// Column that is 0 for ordinary rows
    #[arg(long, value_name = "COLUMN", requires = "train")]
    label: Option<String>,
    /// What the whole model looks with, as in `[scorer] members`
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = member)]
    members: Option<Vec<Member>>,
    /// First and last seed
    #[arg(long, value_name = "FIRST-LAST", default_value = "0-4", value_parser = common::seeds)]
    seeds: RangeInclusive<u64>,
}

/// What one seed gave.
struct Seed {
    forest: f64,
    peer: Option<f64>,
    fused: f64,
    precision: f64,
    in_order: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = &arguments.options;
    // Python inherits it.
    core_affinity::set_for_current(core_affinity::CoreId { id: options.cpu });
    let seeds: Vec<u64> = arguments.seeds.clone().collect();
    let members = arguments.members.iter().flatten().copied().collect();
    let members = if arguments.members.is_some() { members } else { Members::default() };
    let sets = chosen(&arguments)?;
    let mut peer = Peer::start()?;
    match &peer {
        Some(peer) => println!("scikit-learn {}, {:?}", peer.version, Isa::best()),
        None => println!("no python3 with scikit-learn: our side alone, {:?}", Isa::best()),
    }
    println!(
        "{:<10} {:>7} {:>3} | {:>7} {:>7} | {:>7} {:>7} {:>7} {:>8} | {:>12} {:>12} {:>7} | {:>12}",
        "set",
        "rows",
        "d",
        "forest",
        "sklearn",
        "model",
        "least",
        "AP",
        "in order",
        "forest/s",
        "sklearn/s",
        "ratio",
        "model/s"
    );
    let mut results = Results::new("scorer");
    for set in &sets {
        measure(set, (members, &seeds), options, peer.as_mut(), &mut results)?;
    }
    results.finish(options);
    Ok(())
}

fn member(name: &str) -> Result<Member> {
    let names = Member::ALL.map(Member::name).join(", ");
    let found = Member::ALL.into_iter().find(|member| member.name() == name);
    found.with_context(|| format!("no member {name}; there are {names}"))
}

fn chosen(arguments: &Arguments) -> Result<Vec<Set>> {
    if let (Some(train), Some(test), Some(label)) = (&arguments.train, &arguments.test, &arguments.label) {
        return Ok(vec![sets::of_files(train, test, label)?]);
    }
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("GNOMON_SHARED").map_or(default, PathBuf::from).join("flowsets");
    let mut all = sets::all(&folder).context("the sets in GNOMON_SHARED")?;
    if all.is_empty() {
        println!("no sets in {} (set GNOMON_SHARED): a made one instead", folder.display());
        all.push(sets::made());
    }
    Ok(all)
}

fn measure(
    set: &Set,
    (members, seeds): (Members, &[u64]),
    options: &Options,
    mut peer: Option<&mut Peer>,
    results: &mut Results,
) -> Result<()> {
    if !set.attack.contains(&true) || !set.attack.contains(&false) {
        bail!("{}: rows to be scored are all of one kind", set.name);
    }
    if let Some(peer) = &mut peer {
        peer.load(set)?;
    }
    let mut found = Vec::new();
    for seed in seeds {
        found.push(one_seed(set, members, *seed, peer.as_deref_mut())?);
    }
    let rates = rates(set, members, if options.quick { 3 } else { 9 }, peer)?;
    print(set, &found, &rates);
    results.cases.extend(cases(set, &found, &rates));
    Ok(())
}

fn training(members: Members, seed: u64) -> Training {
    Training { members, trees: 100, sample: 256, contamination: 0.01, seed, isa: Isa::best() }
}

fn one_seed(set: &Set, members: Members, seed: u64, peer: Option<&mut Peer>) -> Result<Seed> {
    let (train, test) = (Rows::new(&set.train, set.width), Rows::new(&set.test, set.width));
    let model = Model::train(train, &training(members, seed));
    let mut scratch = model.scratch();
    let mut scores = vec![0.0; set.rows()];
    model.score_forest(test, &mut scratch, &mut scores);
    let forest = auc(&scores, &set.attack);
    model.score(test, &mut scratch, &mut scores);
    let calibrated: Vec<f32> = scores.iter().map(|raw| model.calibration().calibrate(*raw)).collect();
    let peer = match peer {
        Some(peer) => {
            peer.fit(seed)?;
            Some(auc(&peer.scores()?, &set.attack))
        }
        None => None,
    };
    Ok(Seed {
        forest,
        peer,
        fused: auc(&calibrated, &set.attack),
        precision: average_precision(&calibrated, &set.attack),
        in_order: in_order(set, members, seed),
    })
}

/// As in the appliance: learns from the first rows in file order, whatever they are, and scores what comes after them.
fn in_order(set: &Set, members: Members, seed: u64) -> f64 {
    let (train, test) = (Rows::new(&set.train, set.width), Rows::new(&set.test, set.width));
    let model = Model::train(train.part(0, WINDOW), &training(members, seed));
    let skipped = if set.train.len() == set.test.len() { WINDOW.min(set.rows()) } else { 0 };
    let rest = test.part(skipped, set.rows());
    let mut scores = vec![0.0; rest.len()];
    model.score(rest, &mut model.scratch(), &mut scores);
    auc(&scores, &set.attack[skipped..])
}

/// Records a second by turns: our forest, our model, their forest.
fn rates(set: &Set, members: Members, rounds: usize, mut peer: Option<&mut Peer>) -> Result<Vec<[f64; 3]>> {
    let model = Model::train(Rows::new(&set.train, set.width), &training(members, 0));
    let (mut scratch, rows) = (model.scratch(), Rows::new(&set.test, set.width).part(0, TIMED));
    let mut scores = vec![0.0; rows.len()];
    let mut all = Vec::new();
    for _ in 0..rounds {
        let repeats = (TIMED * 8).div_ceil(rows.len());
        let before = cpu_seconds();
        for _ in 0..repeats {
            model.score_forest(rows, &mut scratch, &mut scores);
        }
        let forest = (cpu_seconds() - before) / repeats as f64;
        let before = cpu_seconds();
        model.score(rows, &mut scratch, &mut scores);
        let fused = cpu_seconds() - before;
        let theirs = peer.as_deref_mut().map(|peer| peer.time(rows.len())).transpose()?;
        all.push([forest, fused, theirs.unwrap_or(f64::NAN)].map(|seconds| rows.len() as f64 / seconds));
    }
    Ok(all)
}

/// Processor time of this thread.
fn cpu_seconds() -> f64 {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    let time = nix::time::clock_gettime(clock).expect("Linux has a clock for each thread");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

fn column(found: &[Seed], of: impl Fn(&Seed) -> f64) -> Vec<f64> {
    found.iter().map(of).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn print(set: &Set, found: &[Seed], rates: &[[f64; 3]]) {
    let of = |f: fn(&Seed) -> f64| mean(&column(found, f));
    let rate = |i: usize| median(&rates.iter().map(|r| r[i]).collect::<Vec<_>>());
    let least = column(found, |s| s.fused).into_iter().fold(f64::INFINITY, f64::min);
    println!(
        "{:<10} {:>7} {:>3} | {:>7.4} {:>7.4} | {:>7.4} {:>7.4} {:>7.4} {:>8.4} | {:>12.0} {:>12.0} {:>7.1} | {:>12.0}",
        set.name,
        set.rows(),
        set.width,
        of(|s| s.forest),
        of(|s| s.peer.unwrap_or(f64::NAN)),
        of(|s| s.fused),
        least,
        of(|s| s.precision),
        of(|s| s.in_order),
        rate(0),
        rate(2),
        median(&rates.iter().map(|r| r[0] / r[2]).collect::<Vec<_>>()),
        rate(1),
    );
}

fn cases(set: &Set, found: &[Seed], rates: &[[f64; 3]]) -> Vec<Case> {
    let case = |what: &str, unit: &'static str, runs: Vec<f64>, peers: Vec<f64>| {
        let peers: Vec<f64> = peers.into_iter().filter(|p| p.is_finite()).collect();
        let centre = |values: &[f64]| if unit == "AUC" || unit == "AP" { mean(values) } else { median(values) };
        let ratios: Vec<f64> = runs.iter().zip(&peers).map(|(a, b)| a / b).collect();
        let known = !peers.is_empty();
        Case {
            case: format!("{}: {what}", set.name),
            unit,
            ours: centre(&runs),
            peer: known.then(|| centre(&peers)),
            peer_name: known.then_some("scikit-learn"),
            ratio: known.then(|| centre(&ratios)),
            runs,
        }
    };
    let rate = |i: usize| rates.iter().map(|r| r[i]).collect();
    vec![
        case("forest", "AUC", column(found, |s| s.forest), column(found, |s| s.peer.unwrap_or(f64::NAN))),
        case("model", "AUC", column(found, |s| s.fused), Vec::new()),
        case("model", "AP", column(found, |s| s.precision), Vec::new()),
        case("model in file order", "AUC", column(found, |s| s.in_order), Vec::new()),
        case("forest end to end", "records/s", rate(0), rate(2)),
        case("model end to end", "records/s", rate(1), Vec::new()),
    ]
}
