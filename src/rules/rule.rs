//! The vocabulary of policy as the data path needs it: groups, rules, verdicts.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::packet::{Mac, Tuple};

/// Rules are evaluated tier by tier, in this order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// For one VM, by hand.
    Override,
    /// Intelligence and remediation.
    Threat,
    /// What people wrote.
    #[default]
    Policy,
    /// Consolidated or mirrored from what was seen.
    Learned,
    Default,
}

impl Tier {
    /// As in files and records.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Override => "override",
            Tier::Threat => "threat",
            Tier::Policy => "policy",
            Tier::Learned => "learned",
            Tier::Default => "default",
        }
    }
}

/// Whether a rule acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Enforce,
    /// Evaluated and counted, never acts.
    Shadow,
    Disabled,
}

/// What a new generation means for flows that are alive. It is for their next packet; ICMP messages are judged each by
/// itself, by the rules in force, in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LiveFlows {
    /// What was allowed stays allowed until the flow ends, in both directions; what was refused is judged again.
    Keep,
    /// They are judged again, and go on with the new verdict.
    #[default]
    Recheck,
    /// They are judged again. A flow that is no longer allowed ends with a record of its own (reason `forced`), and its
    /// packets begin a new one, which remembers nothing of what was allowed.
    Drop,
}

/// What a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    /// Drop silently.
    Deny,
    /// Drop and tell the sender: TCP RST, else ICMP administratively prohibited.
    Reject,
    /// Note the match and go on to the next rule.
    Log,
}

/// What a decision comes down to; [`Action::Log`] never decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    #[default]
    Allow,
    Deny,
    Reject,
}

impl Decision {
    /// As in files and records.
    pub fn name(self) -> &'static str {
        match self {
            Decision::Allow => "allow",
            Decision::Deny => "deny",
            Decision::Reject => "reject",
        }
    }
}

/// Position of a group in [`Policy::groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupIx(pub u16);

/// One side of a match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    Group(GroupIx),
    Net(IpNet),
}

/// Members of a group, with its VMs' addresses already resolved. A packet's endpoint is a member when
/// any of these holds: its IP address is in `nets`, its MAC in `macs`, the packet's outermost VLAN in
/// `vlans`, the VNI of the enclosing tunnel in `vnis`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub nets: Vec<IpNet>,
    pub macs: Vec<Mac>,
    pub vlans: Vec<u16>,
    pub vnis: Vec<u32>,
}

impl Group {
    /// Addresses that are members, with each VLAN, VNI and MAC address as one.
    pub fn size(&self) -> usize {
        let addresses = |net: &IpNet| 1usize.checked_shl((net.max_prefix_len() - net.prefix_len()).into());
        let nets = self.nets.iter().map(|net| addresses(net).unwrap_or(usize::MAX));
        nets.fold(self.macs.len() + self.vlans.len() + self.vnis.len(), usize::saturating_add)
    }
}

/// The conditions of a rule or mirror session. Empty lists and `None` match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub from: Vec<Selector>,
    pub to: Vec<Selector>,
    pub protocol: Option<u8>,
    /// For TCP, UDP and SCTP; a packet of another protocol never matches a port condition, nor does a
    /// later fragment whose ports are not known.
    pub from_ports: Vec<RangeInclusive<u16>>,
    pub to_ports: Vec<RangeInclusive<u16>>,
    /// ICMP or ICMPv6 type and, if given, code. Never matches a later fragment whose header is not known.
    pub icmp: Option<(u8, Option<u8>)>,
    pub vlan: Option<u16>,
    pub vni: Option<u32>,
}

/// One group relationship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable for life.
    pub id: String,
    pub tier: Tier,
    /// Lowest first within the tier.
    pub priority: u32,
    pub mode: Mode,
    pub action: Action,
    /// Replies of an allowed connection pass without a rule of their own.
    pub stateful: bool,
    pub matches: Match,
}

/// What a mirror session selects; the sampler and the target belong to `mirror`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorMatch {
    /// A packet is selected when any of these matches it.
    pub any_of: Vec<Match>,
    /// Only packets with one of these decisions; empty means all.
    pub decisions: Vec<Decision>,
}

/// Everything that is compiled into one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub groups: Vec<Group>,
    pub rules: Vec<Rule>,
    pub mirrors: Vec<MirrorMatch>,
    /// When no rule decides.
    pub default: Decision,
}

/// Most mirror sessions a policy may have: one bit each in a verdict.
pub const MAX_MIRRORS: usize = 64;

/// Stable number of a rule id or group-set, the same in every generation of this process.
/// [`RuleHandle::DEFAULT`] stands for "no rule decided".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleHandle(pub u32);

impl RuleHandle {
    pub const DEFAULT: RuleHandle = RuleHandle(0);
}

impl Default for RuleHandle {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Shadow-mode rules that match a packet before it is decided: numbers among the shadow-mode rules of a generation, in
/// evaluation order ([`Compiled::shadow_rules`](super::Compiled::shadow_rules) has their handles).
///
/// Eight bytes, for a flow caches two: the first number and a bit for each of the 31 that follow it. Up to 32
/// shadow-mode rules are always told apart; of more, [`Shadows::is_cut`] says when some beyond these match too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shadows {
    /// Number of the first plus one; 0: none.
    first: u32,
    /// Bit n: the one n + 1 places after the first.
    after: u32,
}

impl Shadows {
    /// Numbers that are told apart, from the first on.
    pub const SPAN: u32 = 32;
    /// In `after`: some beyond the others.
    const CUT: u32 = 1 << 31;

    /// Adds the next number; they come in ascending order.
    #[inline]
    pub fn push(&mut self, number: u32) {
        if self.first == 0 {
            self.first = number + 1;
            return;
        }
        let after = (number + 1).saturating_sub(self.first);
        self.after |= if (1..Self::SPAN).contains(&after) { 1 << (after - 1) } else { Self::CUT };
    }

    pub fn is_empty(self) -> bool {
        self.first == 0
    }

    /// There are more than [`Shadows::numbers`] tells.
    pub fn is_cut(self) -> bool {
        self.after & Self::CUT != 0
    }

    /// Ascending.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        let first = self.first.checked_sub(1);
        let mut bits = self.after & !Self::CUT;
        let after = std::iter::from_fn(move || {
            let bit = bits.trailing_zeros();
            bits &= bits.wrapping_sub(1);
            (bit < 32).then_some(bit)
        });
        first.into_iter().chain(after.map(move |bit| self.first + bit))
    }
}

/// Stable number of a set of groups, see `Labels`. 0 is the empty set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupSetHandle(pub u32);

/// What is classified: a packet's tuple and what else rules may look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub tuple: Tuple,
    pub src_mac: Mac,
    pub dst_mac: Mac,
    /// Type and code when the protocol is ICMP or ICMPv6.
    pub icmp: (u8, u8),
    /// False for a later fragment whose first fragment was never seen.
    pub ports_known: bool,
}

impl Subject {
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { tuple: self.tuple.reversed(), src_mac: self.dst_mac, dst_mac: self.src_mac, ..self }
    }

    /// An ICMPv6 message of a neighbour discovery type (RFC 4861), whether or not it came from the same link.
    pub fn has_neighbour_discovery_type(&self) -> bool {
        self.tuple.version == 6 && self.tuple.protocol == 58 && (133..=137).contains(&self.icmp.0)
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    /// Replies pass without a rule of their own (only of `Allow`).
    pub stateful: bool,
    pub tier: Tier,
    /// The rule that decided.
    pub rule: RuleHandle,
    /// First `log` rule that matched before the decision, or `DEFAULT`.
    pub logged: RuleHandle,
    /// Shadow-mode rules that would have decided instead.
    pub shadows: Shadows,
    /// Bit n set: mirror session n of this generation selects the packet (before sampling).
    pub mirrors: u64,
    pub generation: u32,
    pub src_groups: GroupSetHandle,
    pub dst_groups: GroupSetHandle,
    pub standing: Standing,
}

/// How the parties of a packet are regarded by whoever watches behaviour, on top of the rules: from a watchlist, not
/// from the policy. All zero for those nobody thinks anything of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Number of the watchlist that says so.
    pub watchlist: u32,
    /// Kinds of alert that are on, a bit each.
    pub flags: u32,
    /// Risk, 0..=1 as 0..=65535.
    pub score: u16,
    /// Share of flows that adaptive mirror sessions take at least, likewise.
    pub share: u16,
    /// Part of their own share that they give up for the mirror budget, likewise.
    pub cut: u16,
    /// Which of the worker's diversions the flow takes, from 1; 0 for none.
    pub diversion: u16,
    /// Which part of the mirror budget its copies draw on; 0 is that of everybody.
    pub class: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shadows_are_told_apart_over_their_span_and_cut_beyond() {
        for numbers in [vec![], vec![0], vec![7, 8, 20], vec![100, 131], (5..37).collect()] {
            let mut shadows = Shadows::default();
            numbers.iter().for_each(|number| shadows.push(*number));
            assert_eq!((shadows.numbers().collect::<Vec<_>>(), shadows.is_cut()), (numbers.clone(), false));
            assert_eq!(shadows.is_empty(), numbers.is_empty());
        }
        let mut shadows = Shadows::default();
        [4, 35, 36, 400].into_iter().for_each(|number| shadows.push(number));
        assert_eq!((shadows.numbers().collect::<Vec<_>>(), shadows.is_cut()), (vec![4, 35], true));
    }
}
