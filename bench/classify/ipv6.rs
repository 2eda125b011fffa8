//! The same sets with IPv6 addresses: what the longer address costs the engine, and `rte_acl`.
//!
//! An IPv4 address becomes a host of a site under one /32: its first 24 bits say site and subnet, the last 8 the host.
//! Prefixes follow, so every packet must find the rule that its IPv4 likeness finds; and the one that `rte_acl` and linear
//! search find among rules of IPv6.
//! ```text
//!  IPv4            aaaaaaaa aaaaaaaa aaaaaaaa                       aaaaaaaa
//!  IPv6  /32 ....  site, 16 bits     subnet, 8 bits   64 zero bits  host, 8 bits
//! ```

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, Result};
use gnomon::dpdk::{Acl, AclAlgorithm, AclRule, Eal, FiveTuple, FiveTuple6};
use gnomon::trie::address::{Block, Endpoints, Nets};
use gnomon::trie::{BATCH, Batch, Engine, Kind, NO_ROW, Row, Side};

use crate::classbench::{RuleSet, fill, pointers, rows, sampling_step};
use crate::common::{Case, Results};
use crate::engine::EngineOptions;
use crate::timed;
use crate::timing::{Timing, chunk_ticks, peer_name};

/// 2001:db8::/32, of documentation.
const SITES: u128 = 0x2001_0db8 << 96;

/// Linear search looks at so many rules times packets.
const LINEAR_LIMIT: usize = 1_000_000_000;
const LINEAR_SAMPLE: usize = 10_000;
/// For more rules rte_acl is left out: what building takes grows with their square.
const PEER_LIMIT: usize = 20_000;

/// The engine and the tables that make labels of addresses.
struct Engine6 {
    endpoints: Endpoints,
    engine: Engine,
}

/// Measures and prints; returns how many packets had a wrong result.
pub fn compare(
    results: &mut Results,
    eal: &Arc<Eal>,
    set: &RuleSet,
    options: EngineOptions,
    turns: usize,
) -> Result<usize> {
    println!("\n{}: {} rules", set.name, set.rules.len());
    let (engine, ms) = timed(|| options.build(&rows(&set.rules)));
    let (engine6, ms6) = timed(|| Engine6::build(&set.rules, options));
    let (engine, engine6) = (engine?, engine6?);
    let (memory, memory6) = (engine.memory_bytes() as f64 / 1e6, engine6.memory_bytes() as f64 / 1e6);
    println!("  IPv6 {ms6:.1} ms to build, {memory6:.2} MB; IPv4 {ms:.1} ms, {memory:.2} MB");
    let rules: Vec<AclRule<u128>> = set.rules.iter().map(rule6).collect();
    let peer = Peer::build(eal, &rules)?;
    let mut wrong = 0;
    for trace in &set.traces {
        let packets: Vec<FiveTuple6> = trace.packets.iter().map(packet6).collect();
        let (mut found, mut found6, mut peers) = (Vec::new(), Vec::new(), Vec::new());
        let (mut times, mut times6, mut peer_times) = (Vec::new(), Vec::new(), Vec::new());
        // The first turn warms caches and is not counted, but checked.
        for turn in 0..=turns {
            let counted = |times: &mut Vec<Vec<u64>>, time| times.extend((turn > 0).then_some(time));
            let keep = turn == 0;
            let mut batch = Batch::default();
            counted(
                &mut times,
                pass(&trace.packets, &mut found, keep, |burst, ranks| {
                    fill(&mut batch, burst);
                    engine.lookup(&batch, ranks);
                }),
            );
            counted(
                &mut times6,
                pass(&packets, &mut found6, keep, |burst, ranks| {
                    engine6.fill(&mut batch, burst);
                    engine6.engine.lookup(&batch, ranks);
                }),
            );
            if let Some(peer) = &peer {
                let classify = |burst: &[FiveTuple6], found: &mut [u32; BATCH]| {
                    peer.acl.classify(&pointers(burst)[..burst.len()], found);
                };
                counted(&mut peer_times, pass(&packets, &mut peers, keep, classify));
            }
        }
        wrong += differences(&rules, &packets, [&found, &found6, &peers]);
        let case = format!("{} {} IPv6", set.name, trace.name);
        let of = |times: &[Vec<u64>]| Timing::of(times, packets.len());
        let theirs = peer.as_ref().map(|peer| (peer_name(peer.algorithm), of(&peer_times)));
        report(results, case, &of(&times6), [Some(("IPv4", of(&times))), theirs].into_iter().flatten());
    }
    Ok(wrong)
}

/// Packets whose rule is not that of their likeness, of rte_acl where it was asked, and of linear search.
fn differences(rules: &[AclRule<u128>], packets: &[FiveTuple6], [found4, found, peers]: [&[u32]; 3]) -> usize {
    let step = sampling_step(rules.len(), packets.len(), LINEAR_LIMIT, LINEAR_SAMPLE);
    let linear = |at: usize| at.is_multiple_of(step).then(|| linear(rules, &packets[at]));
    let peer = |at: usize| peers.get(at).map(|found| found.checked_sub(1).unwrap_or(NO_ROW));
    let is_wrong =
        |at: &usize| [Some(found4[*at]), peer(*at), linear(*at)].into_iter().flatten().any(|row| row != found[*at]);
    let wrong = (0..packets.len()).filter(is_wrong).count();
    println!(
        "  {wrong} differences ({} packets against IPv4, {} against rte_acl, {} against linear search)",
        packets.len(),
        peers.len(),
        packets.len().div_ceil(step)
    );
    wrong
}

/// rte_acl with rules of IPv6.
struct Peer {
    acl: Acl<FiveTuple6>,
    algorithm: AclAlgorithm,
}

impl Peer {
    /// With the widest algorithm; none for too many rules.
    fn build(eal: &Arc<Eal>, rules: &[AclRule<u128>]) -> Result<Option<Self>> {
        if rules.len() > PEER_LIMIT {
            println!("  rte_acl left out: it builds for no more than {PEER_LIMIT} rules of IPv6 here");
            return Ok(None);
        }
        let (acl, ms) = timed(|| Acl::<FiveTuple6>::build(eal, rules, 0));
        let mut acl = acl?;
        let algorithm = acl.algorithms().pop().context("rte_acl has an algorithm")?;
        acl.select(algorithm)?;
        println!("  rte_acl IPv6 {ms:.1} ms to build, {:.2} MB", acl.memory_bytes() as f64 / 1e6);
        Ok(Some(Self { acl, algorithm }))
    }
}

/// Ticks of each chunk; results too, if they are to be kept.
fn pass<P>(
    packets: &[P],
    found: &mut Vec<u32>,
    keep: bool,
    mut search: impl FnMut(&[P], &mut [u32; BATCH]),
) -> Vec<u64> {
    let mut ranks = [0; BATCH];
    chunk_ticks(packets, |burst| {
        search(burst, black_box(&mut ranks));
        if keep {
            found.extend_from_slice(&ranks[..burst.len()]);
        }
    })
}

fn report(results: &mut Results, case: String, ours: &Timing, peers: impl Iterator<Item = (&'static str, Timing)>) {
    println!("  {case:<26} {:>10.2} cycles/packet (min {:.2})", ours.median, ours.least);
    for (name, peer) in peers {
        let ratio = peer.median / ours.median;
        println!("    {name:<24} {:>10.2} cycles/packet (min {:.2})   ratio {ratio:.2}", peer.median, peer.least);
        results.cases.push(Case {
            case: case.clone(),
            unit: "cycles/packet",
            ours: ours.median,
            peer: Some(peer.median),
            peer_name: Some(name),
            ratio: Some(ratio),
            runs: ours.turns.clone(),
        });
    }
}

impl Engine6 {
    fn build(rules: &[AclRule], options: EngineOptions) -> Result<Self> {
        let sides = rules.iter().flat_map(|rule| [rule.src, rule.dst]).filter(|(_, len)| *len > 0);
        let prefixes: HashSet<(u128, u8)> = sides.map(likeness).collect();
        let prefixes: Vec<(u128, u8)> = prefixes.into_iter().collect();
        let endpoints = Endpoints::build(Nets { v4: &[], v6: &[], rules: &prefixes, weights: &[] })?;
        let blocks: HashMap<(u128, u8), Block> = prefixes.into_iter().zip(endpoints.labels.iter().copied()).collect();
        let side = |prefix: (u32, u8)| {
            blocks.get(&likeness(prefix)).map_or(Side::ANY, |block| Side::new(Kind::Address, block.value, block.len))
        };
        let rows = rows(rules).into_iter().zip(rules);
        let rows: Vec<Row> = rows.map(|(row, rule)| Row { src: side(rule.src), dst: side(rule.dst), ..row }).collect();
        Ok(Self { engine: options.build(&rows)?, endpoints })
    }

    fn fill(&self, batch: &mut Batch, packets: &[FiveTuple6]) {
        let (mut src, mut dst) = ([0; BATCH], [0; BATCH]);
        batch.len = packets.len();
        for (at, packet) in packets.iter().enumerate().take(BATCH) {
            src[at] = u128::from_be_bytes(packet.src);
            dst[at] = u128::from_be_bytes(packet.dst);
            batch.protocol[at] = packet.protocol.into();
            batch.src_port[at] = u16::from_be_bytes(packet.src_port);
            batch.dst_port[at] = u16::from_be_bytes(packet.dst_port);
        }
        let mut classes = [0; BATCH];
        for (addresses, labels) in [(&src, &mut batch.src), (&dst, &mut batch.dst)] {
            self.endpoints.burst6(addresses, packets.len(), &mut classes);
            for (label, class) in labels[Kind::Address as usize].iter_mut().zip(classes).take(packets.len()) {
                *label = self.endpoints.class(class).address;
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        self.engine.memory_bytes() + self.endpoints.memory_bytes()
    }
}

fn packet6(packet: &FiveTuple) -> FiveTuple6 {
    let address = |address: [u8; 4]| likeness((u32::from_be_bytes(address), 32)).0.to_be_bytes();
    let FiveTuple { protocol, padding, src, dst, src_port, dst_port } = *packet;
    FiveTuple6 { protocol, padding, src: address(src), dst: address(dst), src_port, dst_port }
}

fn rule6(rule: &AclRule) -> AclRule<u128> {
    let AclRule { protocol, protocol_mask, src_ports, dst_ports, .. } = rule.clone();
    let side = |side: (u32, u8)| if side.1 == 0 { (0, 0) } else { likeness(side) };
    AclRule { protocol, protocol_mask, src: side(rule.src), dst: side(rule.dst), src_ports, dst_ports }
}

/// The first rule that the packet matches, by looking at one after the other.
fn linear(rules: &[AclRule<u128>], packet: &FiveTuple6) -> u32 {
    let (src, dst) = (u128::from_be_bytes(packet.src), u128::from_be_bytes(packet.dst));
    let (src_port, dst_port) = (u16::from_be_bytes(packet.src_port), u16::from_be_bytes(packet.dst_port));
    let within = |address: u128, (net, len): (u128, u8)| (address ^ net).leading_zeros() >= len.into();
    let matches = |rule: &AclRule<u128>| {
        within(src, rule.src)
            && within(dst, rule.dst)
            && (packet.protocol ^ rule.protocol) & rule.protocol_mask == 0
            && rule.dst_ports.contains(&dst_port)
            && rule.src_ports.contains(&src_port)
    };
    rules.iter().position(matches).map_or(NO_ROW, |at| at as u32)
}

/// The IPv6 prefix of an IPv4 prefix.
fn likeness((address, len): (u32, u8)) -> (u128, u8) {
    let (subnet, host) = (u128::from(address >> 8), u128::from(address & 0xff));
    (SITES | subnet << 72 | host, if len > 24 { 96 + len } else { 32 + len })
}
