//! Seeded rule sets of any size in the manner of ClassBench's: access lists and firewalls; and one of port ranges.
#![allow(dead_code, reason = "each program uses its own part")]

use std::collections::HashSet;
use std::ops::RangeInclusive;

use gnomon::dpdk::AclRule;
use gnomon::trie::mask;
use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

use crate::classbench::{below, dice};

/// What kind of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Long prefixes on both sides, few wild cards, the service in the destination port.
    Acl,
    /// One side is often anything, source ports count, ranges are common.
    Firewall,
    /// An access list in which most rules have ranges of source and destination ports that no other has.
    Ranges,
}

impl Flavour {
    pub const ALL: [Self; 3] = [Self::Acl, Self::Firewall, Self::Ranges];

    pub fn name(self) -> &'static str {
        match self {
            Self::Acl => "access-list",
            Self::Firewall => "firewall",
            Self::Ranges => "ranges",
        }
    }
}

/// Chances in percent that a rule's side is anything, that its source ports count.
struct Chances {
    any_src: usize,
    any_dst: usize,
    src_ports: usize,
    port_range: usize,
    /// Of these, that it is any range.
    odd_range: usize,
}

/// Prefix lengths and how often each is drawn, in percent.
const LENGTHS: [(u8, usize); 8] = [(32, 45), (24, 20), (28, 10), (30, 8), (27, 7), (22, 5), (20, 3), (16, 2)];
const SERVICES: [u16; 16] = [80, 443, 22, 53, 25, 123, 161, 389, 445, 1433, 1521, 3306, 5432, 6379, 8080, 9092];
const ANY_PORT: RangeInclusive<u16> = 0..=u16::MAX;

/// `count` different rules, specific ones mostly before wide ones.
pub fn generate(flavour: Flavour, count: usize, seed: u64) -> Vec<AclRule> {
    let chances = match flavour {
        Flavour::Acl => Chances { any_src: 3, any_dst: 1, src_ports: 2, port_range: 12, odd_range: 0 },
        Flavour::Firewall => Chances { any_src: 20, any_dst: 12, src_ports: 30, port_range: 25, odd_range: 0 },
        Flavour::Ranges => Chances { any_src: 3, any_dst: 1, src_ports: 60, port_range: 90, odd_range: 95 },
    };
    let mut dice = dice(seed);
    // Networks that rules are about: the more rules, the more networks.
    let sites: Vec<u32> = (0..16 + count / 100).map(|_| dice.next_u32() & mask(16)).collect();
    let mut seen = HashSet::new();
    let mut rules = Vec::with_capacity(count);
    while rules.len() < count {
        let rule = draw(&mut dice, &sites, &chances);
        if seen.insert(format!("{rule:?}")) {
            let jitter = below(&mut dice, 12) as u32;
            rules.push((width(&rule) + jitter, rule));
        }
    }
    rules.sort_by_key(|(width, _)| *width);
    rules.into_iter().map(|(_, rule)| rule).collect()
}

fn draw(dice: &mut Pcg64Mcg, sites: &[u32], chances: &Chances) -> AclRule {
    let mut side = |any: usize| {
        if below(dice, 100) < any {
            return (0, 0);
        }
        let site = sites[below(dice, sites.len())];
        let len = length(dice);
        // Hosts and subnets of a site lie close together.
        let host = (below(dice, 64) << 8 | below(dice, 256)) as u32;
        ((site | host) & mask(len), len)
    };
    let (src, dst) = (side(chances.any_src), side(chances.any_dst));
    let (protocol, protocol_mask) = match below(dice, 100) {
        0..70 => (6, 0xff),
        70..90 => (17, 0xff),
        90..94 => (1, 0xff),
        _ => (0, 0),
    };
    let has_ports = [6, 17].contains(&protocol);
    let mut ports = |chance: usize| match below(dice, 100) {
        drawn if !has_ports || drawn >= chance => ANY_PORT,
        _ if below(dice, 100) < chances.port_range => port_range(dice, chances.odd_range),
        _ => {
            let known = SERVICES[below(dice, SERVICES.len())];
            known..=known
        }
    };
    let (src_ports, dst_ports) = (ports(chances.src_ports), ports(85));
    AclRule { protocol, protocol_mask, src, dst, src_ports, dst_ports }
}

fn length(dice: &mut Pcg64Mcg) -> u8 {
    let mut drawn = below(dice, 100);
    for (length, percent) in LENGTHS {
        match drawn.checked_sub(percent) {
            Some(rest) => drawn = rest,
            None => return length,
        }
    }
    32
}

fn port_range(dice: &mut Pcg64Mcg, odd: usize) -> RangeInclusive<u16> {
    // No draw where there is nothing to choose: sets of the other flavours stay what they were.
    if odd > 0 && below(dice, 100) < odd {
        let (first, longest) = (below(dice, 1 << 16) as u16, 1 << below(dice, 13));
        let length = below(dice, longest) as u16;
        return first..=first.saturating_add(length);
    }
    match below(dice, 4) {
        0 => 1024..=u16::MAX,
        1 => 0..=1023,
        2 => 30_000..=32_767,
        _ => {
            let first = SERVICES[below(dice, SERVICES.len())];
            first..=first + [1, 7, 15, 99][below(dice, 4)]
        }
    }
}

/// How many packets match, as a logarithm.
fn width(rule: &AclRule) -> u32 {
    let ports = |range: &RangeInclusive<u16>| (u32::from(*range.end()) - u32::from(*range.start()) + 1).ilog2();
    let free = |len: u8| u32::from(32 - len);
    free(rule.src.1)
        + free(rule.dst.1)
        + ports(&rule.src_ports)
        + ports(&rule.dst_ports)
        + rule.protocol_mask.count_zeros()
}
