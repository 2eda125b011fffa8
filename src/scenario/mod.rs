//! Makes labelled captures: groups of VMs at work through the day, and attacks among them.
//!
//! In: [`Options`]. Out, into one folder: `scenario.pcap` (Ethernet, nanoseconds), `truth.json` (who is
//! there, each attack with parties, times and counts, totals), `truth-flows.csv` (every flow with its
//! label), `scenario.toml` (a configuration for `gnomon replay`). The same options give the same bytes.
//! Runs on the main thread, beside nothing; memory follows the flows open at once, nothing is dropped.
//!
//! ```text
//!   services ─┐ arrivals by time of day          ┌► scenario.pcap
//!   attacks  ─┼─► sources ─► heap by time ─► stage ┼► ledger ─► truth-flows.csv, truth.json
//!   oddities ─┤   (merge)                        └► neighbours resolved before first use
//!   tcp      ─┘
//! ```

mod attacks;
mod configuration;
mod content;
mod dice;
mod exchange;
mod frames;
mod ledger;
mod merge;
mod neighbours;
mod oddities;
mod options;
mod rhythm;
mod services;
mod stage;
mod tcp;
mod topology;
mod truth;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::capture::{CaptureError, PcapWriter};
use attacks::{AttackKind, Planned};
use dice::Dice;
use ledger::Ledger;
use oddities::OddityKind;
use stage::Stage;
use topology::{KINDS, Topology};
use truth::Staged;

pub use ledger::Totals;
pub use options::{DEFAULT_START, OptionError, Options, Wishes};

/// The files of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    pub capture: PathBuf,
    pub truth: PathBuf,
    pub flows: PathBuf,
    pub configuration: PathBuf,
}

impl Files {
    /// Their usual names in a folder.
    pub fn within(dir: &Path) -> Self {
        Self {
            capture: dir.join("scenario.pcap"),
            truth: dir.join("truth.json"),
            flows: dir.join("truth-flows.csv"),
            configuration: dir.join("scenario.toml"),
        }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub totals: Totals,
    pub by_label: BTreeMap<&'static str, Totals>,
    /// Kind, packets, bytes and flows of each attack, in order of time.
    pub attacks: Vec<(&'static str, Totals)>,
}

/// Makes a scenario in an existing folder. `progress` gets simulated nanoseconds done so far.
///
/// # Errors
/// When a file cannot be written.
pub fn generate(options: &Options, files: &Files, mut progress: impl FnMut(u64)) -> Result<Summary, CaptureError> {
    let seed = options.wishes.seed;
    let newcomers = options.oddities.iter().filter(|oddity| oddity.kind == OddityKind::NewVm).count();
    let topology = Topology::new(&options.groups, &mut Dice::new(seed, 1));
    let topology = topology.with_spare(newcomers, &mut Dice::new(seed, 2));
    let ledger = Ledger::create(&files.flows, options.attacks.len())?;
    let writer = PcapWriter::create(&files.capture)?;
    let mut stage = Stage::new(&topology, (options.start_ns, options.end_ns), ledger, writer);
    stage.ipv6_share = options.wishes.ipv6_share;
    stage.loss = options.wishes.loss;
    services::start(&mut stage, options.wishes.rate, seed);
    let staged = stage_attacks(&mut stage, &options.attacks, seed);
    let odd: Vec<_> = (0..)
        .zip(&options.oddities)
        .map(|(number, oddity)| oddities::start(&mut stage, oddity, number, (seed, options.wishes.rate)))
        .collect();
    merge::run(&mut stage, |now| progress(now.saturating_sub(options.start_ns)));
    let Stage { mut ledger, writer, error, .. } = stage;
    if let Some(error) = error {
        return Err(error);
    }
    writer.finish()?;
    ledger.finish()?;
    truth::write(&files.truth, options, &topology, (&staged, &odd), &ledger)?;
    let attack_flows: u64 = ledger.attacks.iter().map(|a| a.totals.flows).sum();
    configuration::write(&files.configuration, &topology, seed, ledger.totals.flows - attack_flows)?;
    let attacks = staged.iter().zip(&ledger.attacks).map(|((kind, _), seen)| (kind.name(), seen.totals)).collect();
    Ok(Summary { totals: ledger.totals, by_label: ledger.by_label, attacks })
}

/// Names, usual sizes and kinds for help texts.
pub fn group_names() -> impl Iterator<Item = (&'static str, usize)> {
    KINDS.iter().map(|&(kind, size)| (kind.name(), size))
}

/// Kinds of attack and what each does.
pub fn attack_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    AttackKind::ALL.into_iter().map(|kind| (kind.name(), kind.story()))
}

/// Kinds of harmless oddity and what each is.
pub fn oddity_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    OddityKind::ALL.into_iter().map(|kind| (kind.name(), kind.story()))
}

fn stage_attacks(stage: &mut Stage<'_>, attacks: &[Planned], seed: u64) -> Vec<Staged> {
    let start = |(number, planned): (u16, &Planned)| (planned.kind, attacks::start(stage, planned, number, seed));
    (0_u16..).zip(attacks).map(start).collect()
}

#[cfg(test)]
mod tests;
