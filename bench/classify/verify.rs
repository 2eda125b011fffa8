//! The engine's result for every packet against rte_acl's and linear search's.

use std::net::Ipv4Addr;

use gnomon::dpdk::{Acl, AclRule, FiveTuple};
use gnomon::trie::{Engine, NO_ROW};

use crate::classbench::{Trace, acl_found, engine_found, linear, sampling_step};

/// Linear search looks at all packets up to so many rules times packets, beyond at a sample.
const LINEAR_LIMIT: usize = 2_000_000_000;
const SHOWN: usize = 5;

/// How many packets differ; the first few are printed. Linear search looks at `least` packets or more.
pub fn verify(rules: &[AclRule], trace: &Trace, engine: &Engine, acl: Option<&Acl>, least: usize) -> usize {
    let packets = &trace.packets;
    let (ours, theirs) = (engine_found(engine, packets), acl.map(|acl| acl_found(acl, packets)));
    let step = sampling_step(rules.len(), packets.len(), LINEAR_LIMIT, least);
    let (mut wrong, mut searched) = (0, 0);
    for (at, packet) in packets.iter().enumerate() {
        let oracle = at.is_multiple_of(step).then(|| linear(rules, packet));
        let peer = theirs.as_ref().map(|theirs| theirs[at]);
        searched += usize::from(oracle.is_some());
        if [oracle, peer].into_iter().flatten().any(|row| row != ours[at]) {
            wrong += 1;
            if wrong <= SHOWN {
                print_difference(packet, ours[at], peer, linear(rules, packet));
            }
        }
    }
    let compared = theirs.map_or(0, |theirs| theirs.len());
    println!(
        "  {:<16} {wrong} differences ({compared} packets against rte_acl, {searched} against linear search)",
        trace.name
    );
    wrong
}

fn print_difference(packet: &FiveTuple, ours: u32, peer: Option<u32>, oracle: u32) {
    let (src, dst) = (Ipv4Addr::from(packet.src), Ipv4Addr::from(packet.dst));
    let (src_port, dst_port) = (u16::from_be_bytes(packet.src_port), u16::from_be_bytes(packet.dst_port));
    let name = |row: u32| if row == NO_ROW { "no rule".to_owned() } else { format!("rule {row}") };
    let (ours, oracle, peer) = (name(ours), name(oracle), peer.map_or("not asked".to_owned(), name));
    println!("  protocol {} {src}:{src_port} > {dst}:{dst_port}:", packet.protocol);
    println!("    engine {ours}, rte_acl {peer}, linear search {oracle}");
}
