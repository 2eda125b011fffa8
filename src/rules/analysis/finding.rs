//! What a report says.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::breadth::Breadth;
use super::space::Point;
use crate::rules::subject_text::{flow_text, parse_flow};
use crate::rules::{Subject, Tier};

/// What can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Earlier rules take every packet that it matches.
    Unreachable,
    /// Without it every packet would get the same decision.
    Redundant,
    /// Overlaps a rule of the same tier and priority that decides otherwise: only the order of actions or ids settles
    /// which of them holds.
    Tie,
    /// Partly overlaps an earlier rule of another priority or tier that decides otherwise.
    Correlation,
    /// Holds all packets of an earlier rule that decides otherwise: that one is an exception to it.
    Generalization,
    /// An `allow` rule that opens more than the threshold.
    OverBroad,
    /// Its counters are zero.
    NeverHit,
}

impl FindingKind {
    pub const ALL: [FindingKind; 7] = [
        FindingKind::Unreachable,
        FindingKind::Redundant,
        FindingKind::Tie,
        FindingKind::Correlation,
        FindingKind::Generalization,
        FindingKind::OverBroad,
        FindingKind::NeverHit,
    ];

    pub fn name(self) -> &'static str {
        match self {
            FindingKind::Unreachable => "unreachable",
            FindingKind::Redundant => "redundant",
            FindingKind::Tie => "tie",
            FindingKind::Correlation => "correlation",
            FindingKind::Generalization => "generalization",
            FindingKind::OverBroad => "over_broad",
            FindingKind::NeverHit => "never_hit",
        }
    }
}

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    pub rule: String,
    pub tier: Tier,
    pub priority: u32,
    /// Rules that cover, take over or contradict, in evaluation order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// There are more of them than listed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub others_omitted: bool,
    pub what: String,
    pub advice: String,
    /// A packet that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witness>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breadth: Option<Breadth>,
}

/// A packet as `gnomon explain` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Witness {
    pub flow: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_mac: Option<String>,
}

/// A question that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unchecked {
    pub kind: FindingKind,
    pub rule: String,
}

/// Everything that was found, in evaluation order of the rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RuleReport {
    /// Rules that have an effect; disabled ones and log rules in shadow mode have none and are not looked at.
    pub rules: usize,
    pub findings: Vec<Finding>,
    pub unchecked: Vec<Unchecked>,
}

impl RuleReport {
    pub fn of_kind(&self, kind: FindingKind) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.kind == kind)
    }
}

/// The packet, if `gnomon explain` can be told of exactly this one.
pub(super) fn witness(packet: &Point) -> Option<Witness> {
    let subject = packet.subject();
    let flow = flow_text(&subject);
    let mut read = parse_flow(&flow).ok()?;
    (read.tuple.vlan, read.tuple.vni) = (subject.tuple.vlan, subject.tuple.vni);
    (read.src_mac, read.dst_mac) = (subject.src_mac, subject.dst_mac);
    let same = read == subject && subject.tuple.vlan <= 4094;
    let Subject { tuple, src_mac, dst_mac, .. } = subject;
    let mac = |mac: crate::packet::Mac| (mac != Default::default()).then(|| mac.to_string());
    same.then(|| Witness {
        flow,
        vlan: (tuple.vlan != 0).then_some(tuple.vlan),
        vni: (tuple.vni != 0).then_some(tuple.vni),
        src_mac: mac(src_mac),
        dst_mac: mac(dst_mac),
    })
}

impl fmt::Display for Witness {
    /// The arguments of `gnomon explain`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.flow)?;
        let options = [
            ("vlan", self.vlan.map(|vlan| vlan.to_string())),
            ("vni", self.vni.map(|vni| vni.to_string())),
            ("src-mac", self.src_mac.clone()),
            ("dst-mac", self.dst_mac.clone()),
        ];
        options.iter().try_for_each(|(name, value)| match value {
            Some(value) => write!(f, " --{name} {value}"),
            None => Ok(()),
        })
    }
}
