//! One compiled generation: [`Subject`] → [`Verdict`].
//!
//! ```text
//!  source address ─ from ─┐
//!  source MAC ───── from ─┤ OR ─┐
//!  VLAN, VNI ────── from ─┘     │
//!  (destination likewise: to) ──┤
//!  protocol, ports, ICMP ───────┤ AND ─► rows that match, in evaluation order:
//!  VLAN, VNI as conditions ─────┘        [ rules … | mirror matches … ]
//! ```

use super::bits::{Arena, Bits, Vector};
use super::compile::{has_ports, is_icmp};
use super::group_sets::GroupSets;
use super::publish::Generational;
use super::rule::{Decision, RuleHandle, Subject, Tier, Verdict};
use super::tables::{Intervals, Points};
use crate::packet::{Addr, Mac};

/// An immutable, compiled policy. Built by [`Compiled::build`], read by all workers at once.
#[derive(Debug)]
pub struct Compiled {
    pub(super) generation: u32,
    pub(super) rows: Rows,
    pub(super) addresses: Addresses,
    pub(super) links: LinkTables,
    pub(super) protocol: Box<[Bits; 256]>,
    pub(super) ports: PortBits,
    pub(super) icmp: IcmpBits,
    pub(super) group_sets: GroupSets,
    pub(super) arena: Arena,
}

impl Compiled {
    /// The verdict on one packet. Does not allocate, lock or panic.
    pub fn classify(&self, subject: &Subject) -> Verdict {
        let query = self.query(subject);
        let mut verdict = Verdict {
            decision: self.rows.default,
            tier: Tier::Default,
            generation: self.generation,
            src_groups: query.src_groups,
            dst_groups: query.dst_groups,
            ..Verdict::default()
        };
        self.decide(&query, &mut verdict);
        verdict.mirrors = self.mirrors(&query, verdict.decision);
        verdict
    }

    /// As [`Compiled::classify`], with the decision made elsewhere: groups and mirror sessions are those of this
    /// packet, the rule is `DEFAULT`. For replies, which pass because of what they answer.
    pub fn classify_as(&self, subject: &Subject, decision: Decision) -> Verdict {
        let query = self.query(subject);
        Verdict {
            decision,
            tier: Tier::Default,
            generation: self.generation,
            src_groups: query.src_groups,
            dst_groups: query.dst_groups,
            mirrors: self.mirrors(&query, decision),
            ..Verdict::default()
        }
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Rules that have an effect.
    pub fn rule_count(&self) -> usize {
        self.rows.rules.len()
    }

    /// Shadow-mode rules in evaluation order, as [`Shadows`](super::Shadows) numbers them.
    pub fn shadow_rules(&self) -> &[RuleHandle] {
        &self.rows.shadows
    }

    /// The shadow-mode rules that would have decided, in evaluation order. The verdict must be of this generation.
    pub fn shadows(&self, verdict: &Verdict) -> impl Iterator<Item = RuleHandle> {
        verdict.shadows.numbers().filter_map(|number| self.rows.shadows.get(number as usize).copied())
    }

    /// False when so many distinct group sets meet (more than 2^18 pairs of IP-derived and MAC-, VLAN- or
    /// VNI-derived ones) that `src_groups` and `dst_groups` name only the sets derived from the most
    /// specific property. Decisions are exact in any case.
    pub fn group_sets_exact(&self) -> bool {
        self.group_sets.exact()
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.rows.memory_bytes()
            + self.addresses.memory_bytes()
            + self.links.memory_bytes()
            + size_of_val(&*self.protocol)
            + self.ports.from.memory_bytes()
            + self.ports.to.memory_bytes()
            + 2 * size_of_val(&*self.icmp.types)
            + self.group_sets.memory_bytes()
            + self.arena.memory_bytes()
    }

    /// Every lookup, once.
    fn query(&self, subject: &Subject) -> Query<'_> {
        let tuple = &subject.tuple;
        let (src, dst) = (self.addresses.get(tuple.version, tuple.src), self.addresses.get(tuple.version, tuple.dst));
        let (src_mac, dst_mac) = (self.links.macs.get(subject.src_mac), self.links.macs.get(subject.dst_mac));
        let (vlan, vni) = (self.links.vlans.get(tuple.vlan), self.links.vnis.get(tuple.vni));
        let ports = if subject.ports_known && has_ports(tuple.protocol) {
            [self.ports.from.get(tuple.src_port), self.ports.to.get(tuple.dst_port)]
        } else {
            [self.ports.none, Bits::ALL]
        };
        let icmp = if subject.ports_known && is_icmp(tuple.protocol) {
            let (kind, code) = subject.icmp;
            [self.icmp.types[usize::from(kind)], self.icmp.codes[usize::from(code)]]
        } else {
            [self.icmp.none, Bits::ALL]
        };
        let protocol = self.protocol[usize::from(tuple.protocol)];
        let (by_vlan, by_vni) = (vlan.endpoint, vni.endpoint);
        Query {
            from: [src.from, src_mac.from, by_vlan.from, by_vni.from].map(|bits| self.arena.get(bits)),
            to: [dst.to, dst_mac.to, by_vlan.to, by_vni.to].map(|bits| self.arena.get(bits)),
            all: [protocol, ports[1], ports[0], icmp[0], icmp[1], vlan.rows, vni.rows].map(|bits| self.arena.get(bits)),
            src_groups: self.group_sets.get(src.set, src_mac.set, by_vlan.set, by_vni.set),
            dst_groups: self.group_sets.get(dst.set, dst_mac.set, by_vlan.set, by_vni.set),
        }
    }

    /// Walks the matching rules up to the first that decides.
    fn decide(&self, query: &Query<'_>, verdict: &mut Verdict) {
        for (at, matched) in query.matches(0, self.rows.rule_words()) {
            let decider = (matched & self.rows.deciding[at]).trailing_zeros();
            // Bits before the decider; all 64 when the word has none.
            let before = matched & 1u64.checked_shl(decider).map_or(u64::MAX, |bit| bit - 1);
            if verdict.logged == RuleHandle::DEFAULT {
                verdict.logged = self.first(at, before & self.rows.logging[at]);
            }
            for row in Ones(before & self.rows.shadowing[at]) {
                verdict.shadows.push(self.rows.rules[at * 64 + row].shadows - 1);
            }
            if decider < 64 {
                let rule = &self.rows.rules[at * 64 + decider as usize];
                verdict.decision = rule.decision;
                verdict.stateful = rule.stateful;
                verdict.tier = rule.tier;
                verdict.rule = rule.handle;
                return;
            }
        }
    }

    /// The rule of the lowest bit in word `at`.
    fn first(&self, at: usize, bits: u64) -> RuleHandle {
        if bits == 0 {
            return RuleHandle::DEFAULT;
        }
        self.rows.rules[at * 64 + bits.trailing_zeros() as usize].handle
    }

    fn mirrors(&self, query: &Query<'_>, decision: Decision) -> u64 {
        let wanted = self.rows.mirrors_of[decision as usize];
        if wanted == 0 {
            return 0;
        }
        let base = self.rows.rule_words();
        let mut selected = 0;
        for (at, mut matched) in query.matches(base, self.rows.words()) {
            while matched != 0 {
                selected |= self.rows.mirrors[(at - base) * 64 + matched.trailing_zeros() as usize];
                matched &= matched - 1;
            }
        }
        selected & wanted
    }
}

impl Generational for Compiled {
    fn generation(&self) -> u32 {
        self.generation
    }
}

/// What the rows stand for. Rules fill the first words, mirror matches start at the word after.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) rules: Box<[RuleRow]>,
    /// Enforced and not `log`; enforced `log`; shadow mode.
    pub(super) deciding: Box<[u64]>,
    pub(super) logging: Box<[u64]>,
    pub(super) shadowing: Box<[u64]>,
    /// Shadow-mode rules in evaluation order.
    pub(super) shadows: Box<[RuleHandle]>,
    /// Session bit of each mirror row.
    pub(super) mirrors: Box<[u64]>,
    /// Sessions that want packets with this decision, by `Decision as usize`.
    pub(super) mirrors_of: [u64; 3],
    pub(super) default: Decision,
}

impl Rows {
    pub(super) fn rule_words(&self) -> usize {
        self.rules.len().div_ceil(64)
    }

    pub(super) fn words(&self) -> usize {
        self.rule_words() + self.mirrors.len().div_ceil(64)
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.rules)
            + size_of_val(&*self.shadows)
            + 3 * size_of_val(&*self.deciding)
            + size_of_val(&*self.mirrors)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RuleRow {
    pub(super) handle: RuleHandle,
    pub(super) decision: Decision,
    pub(super) stateful: bool,
    pub(super) tier: Tier,
    /// Shadow-mode rules up to and with this one.
    pub(super) shadows: u32,
}

/// What one property of an endpoint (IP, MAC, VLAN, VNI) means: rows it satisfies as a source and as a
/// destination, and the set of groups it makes the endpoint a member of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint {
    pub(super) from: Bits,
    pub(super) to: Bits,
    pub(super) set: u32,
}

/// A VLAN or VNI: also a condition of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) endpoint: Endpoint,
    pub(super) rows: Bits,
}

#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) v4: Intervals<u32, u32>,
    pub(super) v6: Intervals<u128, u32>,
    pub(super) classes: Box<[Endpoint]>,
}

impl Addresses {
    fn get(&self, version: u8, addr: Addr) -> Endpoint {
        let class = if version == 4 { self.v4.get(addr as u32) } else { self.v6.get(addr) };
        self.classes[class as usize]
    }

    fn memory_bytes(&self) -> usize {
        self.v4.memory_bytes() + self.v6.memory_bytes() + size_of_val(&*self.classes)
    }
}

#[derive(Debug)]
pub(super) struct LinkTables {
    pub(super) macs: Points<Mac, Endpoint>,
    pub(super) vlans: Points<u16, Segment>,
    pub(super) vnis: Points<u32, Segment>,
}

impl LinkTables {
    fn memory_bytes(&self) -> usize {
        self.macs.memory_bytes() + self.vlans.memory_bytes() + self.vnis.memory_bytes()
    }
}

#[derive(Debug)]
pub(super) struct PortBits {
    pub(super) from: Intervals<u16, Bits>,
    pub(super) to: Intervals<u16, Bits>,
    /// Rows without port conditions, for packets without known ports.
    pub(super) none: Bits,
}

#[derive(Debug)]
pub(super) struct IcmpBits {
    pub(super) types: Box<[Bits; 256]>,
    pub(super) codes: Box<[Bits; 256]>,
    /// Rows without an ICMP condition.
    pub(super) none: Bits,
}

/// The vectors that meet for one packet.
struct Query<'a> {
    from: [Vector<'a>; 4],
    to: [Vector<'a>; 4],
    all: [Vector<'a>; 7],
    src_groups: super::rule::GroupSetHandle,
    dst_groups: super::rule::GroupSetHandle,
}

impl Query<'_> {
    /// Non-zero words of the intersection with index in `start..end`, ascending.
    fn matches(&self, start: usize, end: usize) -> impl Iterator<Item = (usize, u64)> {
        let candidates = (start / 64..end.div_ceil(64))
            .flat_map(move |block| Ones(self.meet(|vector| vector.summary[block])).map(move |bit| block * 64 + bit));
        candidates
            .skip_while(move |at| *at < start)
            .take_while(move |at| *at < end)
            .map(|at| (at, self.meet(|vector| vector.words[at])))
            .filter(|(_, word)| *word != 0)
    }

    fn meet(&self, word: impl Fn(&Vector<'_>) -> u64) -> u64 {
        let any = |side: &[Vector<'_>; 4]| side.iter().fold(0, |bits, vector| bits | word(vector));
        self.all.iter().fold(any(&self.from) & any(&self.to), |bits, vector| bits & word(vector))
    }
}

/// Positions of the set bits of a word, ascending.
struct Ones(u64);

impl Iterator for Ones {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let at = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (at < 64).then_some(at)
    }
}
