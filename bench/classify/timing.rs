//! Cycles per packet of the engine and of rte_acl, taking turns.

use std::hint::black_box;

use anyhow::{Context, Result};
use gnomon::dpdk::{Acl, AclAlgorithm, FiveTuple, ticks};
use gnomon::trie::{BATCH, Batch, Engine};

use crate::classbench::{fill, pointers};
use crate::common::median;

/// Packets timed together.
const CHUNK: usize = 4096;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub turns: usize,
    /// Algorithms of rte_acl, the widest this CPU has first.
    pub algorithms: usize,
}

/// Cycles per packet.
#[derive(Debug)]
pub struct Timing {
    pub median: f64,
    pub least: f64,
    /// Of each turn.
    pub turns: Vec<f64>,
}

/// One side of the comparison.
enum Contender<'a> {
    Ours(&'a Engine),
    Peer(&'a mut Acl, AclAlgorithm),
}

/// The engine and each algorithm of rte_acl, if there is one, over all packets.
pub fn measure(
    packets: &[FiveTuple],
    engine: &Engine,
    mut acl: Option<&mut Acl>,
    effort: Effort,
) -> Result<(Timing, Vec<(AclAlgorithm, Timing)>)> {
    let mut algorithms = acl.as_mut().map(|acl| acl.algorithms()).unwrap_or_default();
    algorithms.reverse();
    algorithms.truncate(effort.algorithms);
    let (mut ours, mut theirs) = (Vec::new(), vec![Vec::new(); algorithms.len()]);
    // The first turn warms caches and is not counted.
    for turn in 0..=effort.turns {
        let counted = |times: &mut Vec<Vec<u64>>, time| times.extend((turn > 0).then_some(time));
        counted(&mut ours, pass(Contender::Ours(engine), packets)?);
        for (times, algorithm) in theirs.iter_mut().zip(&algorithms) {
            let acl = acl.as_mut().context("it gave the algorithms")?;
            counted(times, pass(Contender::Peer(acl, *algorithm), packets)?);
        }
    }
    let timing = |turns: Vec<Vec<u64>>| Timing::of(&turns, packets.len());
    Ok((timing(ours), algorithms.into_iter().zip(theirs.into_iter().map(timing)).collect()))
}

impl Timing {
    /// Of turns with the ticks of every chunk.
    pub fn of(turns: &[Vec<u64>], packets: usize) -> Self {
        let chunks = turns.first().map_or(0, Vec::len);
        let of_chunk = |chunk: usize| turns.iter().map(|turn| turn[chunk] as f64).collect::<Vec<f64>>();
        let least = |times: Vec<f64>| times.into_iter().fold(f64::INFINITY, f64::min);
        let per_packet = |ticks: f64| ticks / packets as f64;
        Self {
            median: per_packet((0..chunks).map(|chunk| median(&of_chunk(chunk))).sum()),
            least: per_packet((0..chunks).map(|chunk| least(of_chunk(chunk))).sum()),
            turns: turns.iter().map(|turn| per_packet(turn.iter().sum::<u64>() as f64)).collect(),
        }
    }
}

/// Ticks of each chunk of packets.
fn pass(contender: Contender<'_>, packets: &[FiveTuple]) -> Result<Vec<u64>> {
    let mut found = [0; BATCH];
    Ok(match contender {
        Contender::Ours(engine) => {
            let mut batch = Batch::default();
            chunk_ticks(packets, |burst| {
                fill(&mut batch, burst);
                engine.lookup(&batch, &mut found);
                black_box(&found);
            })
        }
        Contender::Peer(acl, algorithm) => {
            acl.select(algorithm)?;
            chunk_ticks(packets, |burst| {
                acl.classify(&pointers(burst)[..burst.len()], &mut found);
                black_box(&found);
            })
        }
    })
}

/// Ticks of each chunk of packets, given to `classify` in bursts.
pub fn chunk_ticks<P>(packets: &[P], mut classify: impl FnMut(&[P])) -> Vec<u64> {
    let mut time = |chunk: &[P]| {
        let started = ticks();
        chunk.chunks(BATCH).for_each(&mut classify);
        ticks() - started
    };
    packets.chunks(CHUNK).map(&mut time).collect()
}

pub fn peer_name(algorithm: AclAlgorithm) -> &'static str {
    match algorithm {
        AclAlgorithm::Scalar => "rte_acl scalar",
        AclAlgorithm::Sse => "rte_acl sse",
        AclAlgorithm::Avx2 => "rte_acl avx2",
        AclAlgorithm::Avx512x16 => "rte_acl avx512x16",
        AclAlgorithm::Avx512x32 => "rte_acl avx512x32",
    }
}
