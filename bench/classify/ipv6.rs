//! The same sets with IPv6 addresses: what the longer address costs the engine. rte_acl takes no part.
//!
//! An IPv4 address becomes a host of a site under one /32: its first 24 bits say site and subnet, the last 8 the host.
//! Prefixes follow, so every packet must find the rule that its IPv4 likeness finds.
//! ```text
//!  IPv4            aaaaaaaa aaaaaaaa aaaaaaaa                       aaaaaaaa
//!  IPv6  /32 ....  site, 16 bits     subnet, 8 bits   64 zero bits  host, 8 bits
//! ```

use std::collections::{HashMap, HashSet};
use std::hint::black_box;

use anyhow::Result;
use gnomon::dpdk::{AclRule, FiveTuple};
use gnomon::trie::address::{Block, Endpoints, Nets};
use gnomon::trie::{BATCH, Batch, Engine, Kind, Row, Side};

use crate::classbench::{RuleSet, fill, rows};
use crate::common::{Case, Results};
use crate::engine::EngineOptions;
use crate::timed;
use crate::timing::{Timing, chunk_ticks};

/// 2001:db8::/32, of documentation.
const SITES: u128 = 0x2001_0db8 << 96;

/// A packet's protocol, addresses and ports in network order.
#[derive(Clone, Copy)]
struct Packet6 {
    src: [u8; 16],
    dst: [u8; 16],
    src_port: [u8; 2],
    dst_port: [u8; 2],
    protocol: u8,
}

/// The engine and the tables that make labels of addresses.
struct Engine6 {
    endpoints: Endpoints,
    engine: Engine,
}

/// Measures and prints; returns how many packets had another result than with IPv4.
pub fn compare(results: &mut Results, set: &RuleSet, options: EngineOptions, turns: usize) -> Result<usize> {
    println!("\n{}: {} rules", set.name, set.rules.len());
    let (engine, ms) = timed(|| options.build(&rows(&set.rules)));
    let (engine6, ms6) = timed(|| Engine6::build(&set.rules, options));
    let (engine, engine6) = (engine?, engine6?);
    let (memory, memory6) = (engine.memory_bytes() as f64 / 1e6, engine6.memory_bytes() as f64 / 1e6);
    println!("  IPv6 {ms6:.1} ms to build, {memory6:.2} MB; IPv4 {ms:.1} ms, {memory:.2} MB");
    let mut wrong = 0;
    for trace in &set.traces {
        let packets6: Vec<Packet6> = trace.packets.iter().map(Packet6::of).collect();
        let (mut found, mut found6) = (Vec::new(), Vec::new());
        let (mut times, mut times6) = (Vec::new(), Vec::new());
        // The first turn warms caches and is not counted, but checked.
        for turn in 0..=turns {
            let counted = |times: &mut Vec<Vec<u64>>, time| times.extend((turn > 0).then_some(time));
            let keep = turn == 0;
            counted(
                &mut times,
                pass(&trace.packets, &mut found, keep, |batch, burst, ranks| {
                    fill(batch, burst);
                    engine.lookup(batch, ranks);
                }),
            );
            counted(
                &mut times6,
                pass(&packets6, &mut found6, keep, |batch, burst, ranks| {
                    engine6.fill(batch, burst);
                    engine6.engine.lookup(batch, ranks);
                }),
            );
        }
        let differ = found.iter().zip(&found6).filter(|(one, other)| one != other).count();
        let (timing, timing6) = (Timing::of(&times, found.len()), Timing::of(&times6, found.len()));
        report(results, format!("{} {} IPv6", set.name, trace.name), timing6, timing, differ);
        wrong += differ;
    }
    Ok(wrong)
}

/// Ticks of each chunk; results too, if they are to be kept.
fn pass<P>(
    packets: &[P],
    found: &mut Vec<u32>,
    keep: bool,
    mut search: impl FnMut(&mut Batch, &[P], &mut [u32; BATCH]),
) -> Vec<u64> {
    let (mut batch, mut ranks) = (Batch::default(), [0; BATCH]);
    chunk_ticks(packets, |burst| {
        search(&mut batch, burst, black_box(&mut ranks));
        if keep {
            found.extend_from_slice(&ranks[..burst.len()]);
        }
    })
}

fn report(results: &mut Results, case: String, ours: Timing, ipv4: Timing, differ: usize) {
    let ratio = ipv4.median / ours.median;
    println!(
        "  {case:<26} {:>10.2} cycles/packet (min {:.2})   IPv4 {:.2} (min {:.2})   ratio {ratio:.2}   {differ} results differ",
        ours.median, ours.least, ipv4.median, ipv4.least
    );
    results.cases.push(Case {
        case,
        unit: "cycles/packet",
        ours: ours.median,
        peer: Some(ipv4.median),
        peer_name: Some("IPv4"),
        ratio: Some(ratio),
        runs: ours.turns,
    });
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

    fn fill(&self, batch: &mut Batch, packets: &[Packet6]) {
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

impl Packet6 {
    fn of(packet: &FiveTuple) -> Self {
        let address = |address: [u8; 4]| likeness((u32::from_be_bytes(address), 32)).0.to_be_bytes();
        let FiveTuple { protocol, src, dst, src_port, dst_port, .. } = *packet;
        Self { src: address(src), dst: address(dst), src_port, dst_port, protocol }
    }
}

/// The IPv6 prefix of an IPv4 prefix.
fn likeness((address, len): (u32, u8)) -> (u128, u8) {
    let (subnet, host) = (u128::from(address >> 8), u128::from(address & 0xff));
    (SITES | subnet << 72 | host, if len > 24 { 96 + len } else { 32 + len })
}
