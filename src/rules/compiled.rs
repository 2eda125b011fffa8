//! One compiled generation: [`Subject`] → [`Verdict`].

use std::sync::Arc;

use super::keyspace::{Family, Keyspace, Place};
use super::labels::Labels;
use super::publish::Generational;
use super::rule::{Decision, RuleHandle, Subject, Tier, Verdict};
use crate::trie::{Batch, Engine, NO_ROW, Visit};

/// An immutable, compiled policy, read by all workers at once. Copies share everything.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub(super) generation: u32,
    pub(super) default: Decision,
    pub(super) rule_count: usize,
    pub(super) keyspace: Arc<Keyspace>,
    /// By [`Family`].
    pub(super) rules: [Engine; 2],
    pub(super) mirrors: Arc<Mirrors>,
    pub(super) watching: Arc<Watching>,
}

/// Shadow-mode rules, in evaluation order.
#[derive(Clone, Debug, Default)]
pub(super) struct Watching {
    pub(super) ranks: Vec<u32>,
    pub(super) handles: Vec<RuleHandle>,
}

/// The matches of mirror sessions, all passive: a packet may be in many.
#[derive(Debug)]
pub(super) struct Mirrors {
    pub(super) engines: [Engine; 2],
    /// Session bit, by rank.
    pub(super) bits: Box<[u64]>,
    /// Sessions that want packets with this decision, by `Decision as usize`.
    pub(super) wanted_by: [u64; 3],
}

/// What a rule comes down to, in the 32 bits that the engine keeps for a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) handle: RuleHandle,
    pub(super) decision: Decision,
    pub(super) stateful: bool,
    pub(super) tier: Tier,
    /// It notes, and decides nothing.
    pub(super) log: bool,
}

/// Handles that fit beside the rest.
pub(super) const HANDLE_LIMIT: u32 = 1 << HANDLE_BITS;
const HANDLE_BITS: u32 = 24;
const TIERS: [Tier; 5] = [Tier::Override, Tier::Threat, Tier::Policy, Tier::Learned, Tier::Default];
const DECISIONS: [Decision; 4] = [Decision::Allow, Decision::Deny, Decision::Reject, Decision::Deny];

impl Meaning {
    pub(super) fn pack(self) -> u32 {
        let flags = self.decision as u32 | u32::from(self.stateful) << 2 | u32::from(self.log) << 3;
        self.handle.0 | flags << HANDLE_BITS | (self.tier as u32) << (HANDLE_BITS + 4)
    }

    pub(super) fn unpack(packed: u32) -> Self {
        let flags = packed >> HANDLE_BITS;
        Self {
            handle: RuleHandle(packed & (HANDLE_LIMIT - 1)),
            decision: DECISIONS[flags as usize & 3],
            stateful: flags & 4 != 0,
            log: flags & 8 != 0,
            tier: TIERS.get((flags >> 4) as usize & 7).copied().unwrap_or_default(),
        }
    }
}

impl Compiled {
    /// The verdict on one packet. Does not allocate, lock or panic.
    pub fn classify(&self, subject: &Subject) -> Verdict {
        let place = self.keyspace.place(subject);
        let engine = &self.rules[Family::of(subject) as usize];
        let mut batch = Batch::default();
        batch.push(&place.key);
        let found = engine.search(&batch);
        let mut verdict = self.verdict(engine, &place, found.ranks[0], found.passed & 1 == 1);
        verdict.mirrors = self.selected(subject, &mut batch, verdict.decision);
        verdict
    }

    /// As [`Compiled::classify`], with the decision made elsewhere: groups and mirror sessions are those of this
    /// packet, the rule is `DEFAULT`. For replies, which pass because of what they answer.
    pub fn classify_as(&self, subject: &Subject, decision: Decision) -> Verdict {
        let place = self.keyspace.place(subject);
        let mut batch = Batch::default();
        batch.push(&place.key);
        Verdict {
            decision,
            tier: Tier::Default,
            generation: self.generation,
            src_groups: place.src_groups,
            dst_groups: place.dst_groups,
            mirrors: self.selected(subject, &mut batch, decision),
            ..Verdict::default()
        }
    }

    fn verdict(&self, engine: &Engine, place: &Place, rank: u32, passed: bool) -> Verdict {
        let mut verdict = Verdict {
            decision: self.default,
            tier: Tier::Default,
            generation: self.generation,
            src_groups: place.src_groups,
            dst_groups: place.dst_groups,
            ..Verdict::default()
        };
        if rank != NO_ROW {
            let rule = Meaning::unpack(engine.meaning(rank));
            (verdict.rule, verdict.decision) = (rule.handle, rule.decision);
            (verdict.stateful, verdict.tier) = (rule.stateful, rule.tier);
        }
        if passed {
            self.note_passive(engine, place, rank, &mut verdict);
        }
        verdict
    }

    /// The first log rule and all shadow-mode rules before the decision.
    #[cold]
    fn note_passive(&self, engine: &Engine, place: &Place, rank: u32, verdict: &mut Verdict) {
        let number = |rank: u32| self.watching.ranks.binary_search(&rank).map_or(0, |number| number as u32);
        let (mut logged, mut first) = (NO_ROW, NO_ROW);
        engine.passive(&place.key, rank, |rank| {
            let least = if Meaning::unpack(engine.meaning(rank)).log { &mut logged } else { &mut first };
            *least = (*least).min(rank);
        });
        if logged != NO_ROW {
            verdict.logged = Meaning::unpack(engine.meaning(logged)).handle;
        }
        if first != NO_ROW {
            verdict.shadows.push(number(first));
            // The first is what the others are counted from; they come in any order.
            engine.passive(&place.key, rank, |rank| {
                if rank != first && !Meaning::unpack(engine.meaning(rank)).log {
                    verdict.shadows.push(number(rank));
                }
            });
        }
    }

    /// Sessions that select the packet, the only one of the batch.
    fn selected(&self, subject: &Subject, batch: &mut Batch, decision: Decision) -> u64 {
        let wanted = self.mirrors.wanted_by[decision as usize];
        if wanted == 0 {
            return 0;
        }
        let engine = &self.mirrors.engines[Family::of(subject) as usize];
        if engine.search(batch).passed & 1 == 0 {
            return 0;
        }
        let mut selected = 0;
        engine.passive(&batch.key(0), NO_ROW, |rank| selected |= self.mirrors.bits[rank as usize]);
        selected & wanted
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Rules that have an effect.
    pub fn rule_count(&self) -> usize {
        self.rule_count
    }

    /// Shadow-mode rules in evaluation order, as [`Shadows`](super::Shadows) numbers them.
    pub fn shadow_rules(&self) -> &[RuleHandle] {
        &self.watching.handles
    }

    /// The shadow-mode rules that would have decided, in evaluation order. The verdict must be of this generation.
    pub fn shadows(&self, verdict: &Verdict) -> impl Iterator<Item = RuleHandle> {
        verdict.shadows.numbers().filter_map(|number| self.watching.handles.get(number as usize).copied())
    }

    /// False when so many distinct group sets meet (more than 2^18 pairs of IP-derived and MAC-, VLAN- or
    /// VNI-derived ones) that `src_groups` and `dst_groups` name only the sets derived from the most
    /// specific property. Decisions are exact in any case.
    pub fn group_sets_exact(&self) -> bool {
        self.keyspace.group_sets_exact()
    }

    /// Memory held, in bytes; shared parts count in every generation.
    pub fn memory_bytes(&self) -> usize {
        let engines = self.rules.iter().chain(&self.mirrors.engines).map(Engine::memory_bytes);
        engines.sum::<usize>() + self.keyspace.memory_bytes() + size_of_val(&*self.mirrors.bits)
    }

    /// What the search looks at for one packet, a line each. `labels` must be those it was built with.
    pub fn path(&self, subject: &Subject, labels: &Labels) -> Vec<String> {
        let engine = &self.rules[Family::of(subject) as usize];
        let kernel =
            if engine.is_small() { "small-set tables serve this policy; in the trie it would be" } else { "trie" };
        let mut lines = vec![kernel.to_owned()];
        for visit in engine.visits(&self.keyspace.place(subject).key) {
            lines.push(match visit {
                Visit::Table { field, shift, bits, rest } => {
                    let and_rest = if rest { ", and the rest" } else { "" };
                    format!("table on {field}, {bits} bits from bit {shift}{and_rest}")
                }
                Visit::Leaf { blocks } => format!("leaf of {blocks} block{}", if blocks == 1 { "" } else { "s" }),
                Visit::Row { rank, passive } => {
                    let what = if passive { " (does not decide)" } else { "" };
                    let rule = Meaning::unpack(engine.meaning(rank)).handle;
                    format!("matches {}, rank {rank}{what}", labels.rule(rule))
                }
            });
        }
        lines
    }
}

impl Generational for Compiled {
    fn generation(&self) -> u32 {
        self.generation
    }
}
