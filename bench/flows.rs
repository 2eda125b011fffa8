//! The flow table: cycles a packet of lookup and update at 1k to 10M flows against DPDK's `rte_hash`, memory a flow; what
//! a SYN flood does to established flows; and records lost and counted at ten million packets a second.
//!
//! Both tables hold the same keys (and once, for comparison, `rte_hash` those of IPv4 alone) and take turns on the same packets, in bursts of 32, each in the order that suits it:
//! gnomon packs and hashes the tuples, prefetches, looks up and counts; for `rte_hash` the tuples become keys, the burst is
//! looked up at once (it hashes and prefetches inside), then the records are prefetched and counted by the same code as
//! gnomon's, in an array on the same kind of pages.
//!
//! `cargo bench --bench flows -- [--quick] [--json FILE] [--svg FILE] [--cpu N] [--flows N]… [--flood | --live]`

mod common;
#[path = "flows/chart.rs"]
mod chart;
#[path = "flows/flood.rs"]
mod flood;
#[path = "flows/line.rs"]
mod line;
#[path = "flows/live.rs"]
mod live;
#[path = "flows/sides.rs"]
mod sides;
#[path = "flows/traffic.rs"]
mod traffic;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use gnomon::dpdk::Eal;

use chart::Point;
use common::{Options, Results};
use sides::{Ours, Peer, Side};
use traffic::{Family, FullKey, Key, Mix, ShortKey, Traffic};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Flows in the table; may be repeated [default: 1000, 100000, 1000000, 10000000]
    #[arg(long = "flows", value_name = "N")]
    sizes: Vec<u32>,
    /// Draw the curves
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Distinct SYNs against established flows, through a worker
    #[arg(long)]
    flood: bool,
    /// One worker at full rate with 100,000 new flows a second; records counted at the reader
    #[arg(long)]
    live: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = &arguments.options;
    let memory_mb = if arguments.flood || arguments.live { 1024 } else { 4096 };
    let eal = common::start_dpdk("flows", options.cpu, memory_mb)?;
    eal.advise_huge_pages();
    let mut results = Results::new("flows");
    if arguments.flood {
        flood::run(&eal, options, &mut results)?;
    } else if arguments.live {
        live::run(&eal, options, &mut results)?;
    } else {
        core_affinity::set_for_current(core_affinity::CoreId { id: options.cpu });
        compare(&eal, &arguments, &mut results)?;
    }
    results.finish(options);
    Ok(())
}

fn compare(eal: &Arc<Eal>, arguments: &Arguments, results: &mut Results) -> Result<()> {
    let turns = if arguments.options.quick { 40 } else { 200 };
    let sizes = match &arguments.sizes[..] {
        [] => &[1000, 100_000, 1_000_000, 10_000_000],
        some => some,
    };
    let mut points = Vec::new();
    for &flows in sizes {
        let mut of_full_keys = measure::<FullKey>(eal, flows, Family::Four, turns, results)?;
        points.append(&mut of_full_keys);
        measure::<FullKey>(eal, flows, Family::Six, turns, results)?;
        measure::<ShortKey>(eal, flows, Family::Four, turns, results)?;
    }
    if let Some(path) = &arguments.svg {
        chart::draw(path, &points)?;
    }
    Ok(())
}

/// Both mixes of traffic at one size, against `rte_hash` with one kind of key.
fn measure<K: Key>(
    eal: &Arc<Eal>,
    flows: u32,
    family: Family,
    turns: usize,
    results: &mut Results,
) -> Result<Vec<Point>> {
    let mut ours = Ours::new(flows, family);
    let mut peer = Peer::<K>::new(eal, flows, family)?;
    println!(
        "{flows} flows of {}: {:.1} bytes a flow (entry and index; {:.1} MB huge pages in the process), {} {:.1} (keys, index and record)",
        family.name(),
        ours.bytes_per_flow(),
        sides::huge_megabytes(),
        K::NAME,
        peer.bytes_per_flow(),
    );
    let mut points = Vec::new();
    for mix in [Mix::Uniform, Mix::Zipf] {
        let mut traffic = Traffic::new(flows, family, mix);
        let pairs = turns_of(&mut traffic, turns, &mut ours, &mut peer);
        // More is better in a comparison: packets a million cycles.
        let rates: Vec<(f64, f64)> = pairs.iter().map(|(ours, peer)| (1e6 / ours, 1e6 / peer)).collect();
        let cycles = |side: fn(&(f64, f64)) -> f64| common::median(&pairs.iter().map(side).collect::<Vec<_>>());
        let (own, theirs) = (cycles(|p| p.0), cycles(|p| p.1));
        println!("  {flows} {}: {own:.1} cycles a packet, {} {theirs:.1}", mix.name(), K::NAME);
        let case = format!("{flows} flows, {}, {}", family.name(), mix.name());
        results.compared(case, "packets/Mcycle", K::NAME, &rates);
        points.push((flows, mix, own, theirs));
    }
    ours.verify();
    Ok(points)
}

/// Cycles a packet of both sides, turn by turn. The first turns warm up and are not counted.
fn turns_of(traffic: &mut Traffic, turns: usize, ours: &mut Ours, peer: &mut impl Side) -> Vec<(f64, f64)> {
    const WARM: usize = 8;
    (0..turns + WARM)
        .map(|turn| {
            traffic.next_turn();
            // Who is first finds the packets less warm: they change about.
            if turn % 2 == 0 {
                let own = ours.turn(traffic);
                (own, peer.turn(traffic))
            } else {
                let theirs = peer.turn(traffic);
                (ours.turn(traffic), theirs)
            }
        })
        .skip(WARM)
        .collect()
}
