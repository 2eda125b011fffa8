//! The things a policy is made of, as people write them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::text::Words;
use crate::policy::instant;
use crate::policy::learning::Connection;
use crate::rules::{Action, Mode, Tier};

/// Which kind of thing. In this order a set of changes can be made: each kind refers to those before it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Vm,
    Group,
    Relationship,
    Learned,
    Profile,
    Override,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Noun {
    Vm(Vm),
    Group(Group),
    Relationship(Relationship),
    Learned(Learned),
    Profile(Profile),
    Override(Override),
}

/// A workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", example = "web-1")]
    pub id: String,
    /// IPv4, IPv6 and MAC addresses.
    #[serde(default)]
    #[schema(example = json!(["10.0.1.10"]))]
    pub addresses: Vec<String>,
    /// What groups pick it by.
    #[serde(default)]
    #[schema(example = json!(["role=web"]))]
    pub tags: BTreeSet<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// A named set of endpoints: all that is listed here together. An address may be in several groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", example = "web")]
    pub name: String,
    /// VMs that carry all of these tags.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// VMs by id.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub vms: BTreeSet<String>,
    /// Networks and single addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<String>,
    /// MAC addresses that belong to no VM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
    /// Everything on these outermost VLANs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<u16>,
    /// Everything in tunnels with these network ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vnis: Vec<u32>,
    /// How its policy is learnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<Learning>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Learning mode of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Learning {
    pub state: LearningState,
    /// Different days (UTC) on which a connection must have been seen.
    #[schema(minimum = 1, maximum = 366)]
    pub min_days: usize,
    /// Flows that a connection must have had.
    #[schema(minimum = 1)]
    pub min_flows: u64,
    /// Days without a new connection after which what was learnt is enforced by itself; 0: a person says when.
    #[schema(maximum = 366)]
    pub stable_days: u64,
    /// Days that are looked back; what was last seen before is forgotten. 0: all.
    #[schema(maximum = 3660)]
    pub look_back_days: u64,
    /// Flows that are not to be learnt: expressions as of `gnomon flows`.
    pub except: Vec<String>,
    /// What becomes of connections that wait for an answer.
    pub pending: Pending,
}

/// How far learning is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LearningState {
    /// Flows are gathered; nothing is enforced.
    #[default]
    Learning,
    /// What is not in the consolidated policy waits in the inbox.
    Enforcing,
    Off,
}

/// What becomes of a connection while nobody has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pending {
    Allow,
    #[default]
    Deny,
}

impl Default for Learning {
    fn default() -> Self {
        Self {
            state: LearningState::Learning,
            min_days: 1,
            min_flows: 1,
            stable_days: 0,
            look_back_days: 0,
            except: Vec::new(),
            pending: Pending::Deny,
        }
    }
}

/// What becomes of connections from one group to another. Also understood: `sourceGroupName`, `destinationGroupName`,
/// `portRange`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Relationship {
    /// Stable for life: counters, records and suggestions refer to it. Left out: made from the rest.
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,127}$", example = "web-to-app")]
    pub id: String,
    /// A group, a network, an address, `any`, or a list of these.
    #[serde(alias = "sourceGroupName", default = "Words::any")]
    pub from: Words,
    /// Written like `from`.
    #[serde(alias = "destinationGroupName", default = "Words::any")]
    pub to: Words,
    /// A name such as `tcp`, or a number. Left out: any.
    #[serde(default, skip_serializing_if = "Words::is_empty")]
    pub protocol: Words,
    /// Destination ports: a number, a range such as `8000-8100`, or a list of these.
    #[serde(alias = "portRange", default, skip_serializing_if = "Words::is_empty")]
    pub ports: Words,
    /// Source ports, written like `ports`.
    #[serde(default, skip_serializing_if = "Words::is_empty")]
    pub from_ports: Words,
    /// ICMP or ICMPv6 message by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// Outermost VLAN id; 0 for untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 4094)]
    pub vlan: Option<u16>,
    /// Network id of the enclosing tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub vni: Option<u32>,
    #[schema(value_type = String, example = "allow")]
    pub action: Action,
    /// Replies of an allowed connection pass without a rule of their own. Left out: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateful: Option<bool>,
    /// Lowest first within the tier.
    #[serde(default = "usual_priority")]
    pub priority: u32,
    #[serde(default)]
    #[schema(value_type = String, example = "policy")]
    pub tier: Tier,
    #[serde(default)]
    #[schema(value_type = String, example = "enforce")]
    pub mode: Mode,
    /// It goes by itself at this time.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "instant::maybe")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<u64>,
    /// Where it comes from, if no person wrote it, such as `suggestion 17`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// The consolidated policy of a group that is in force: what its VMs may do, and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    pub group: String,
    /// All else from and to the group is denied.
    pub enforce: bool,
    pub connections: Vec<Known>,
}

/// A connection that is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Known {
    #[schema(value_type = Object)]
    pub connection: Connection,
    /// `false`: somebody answered that it is to be denied.
    #[serde(default = "yes")]
    pub allow: bool,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "instant::maybe")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<u64>,
    /// What speaks for it, such as `1204 flows on 7 days, 10 VMs` or `approved by anna`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Gives the consolidated policy of one group to another, as far as its strength goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", example = "web-to-new")]
    pub name: String,
    /// Group whose consolidated policy is copied.
    pub source: String,
    /// Group that gets it: VMs are under it as soon as they carry the group's tags.
    pub target: String,
    /// Share of the connections that are copied, in percent.
    #[serde(default = "whole")]
    #[schema(minimum = 0, maximum = 100)]
    pub strength: f64,
    /// Another seed copies others.
    #[serde(default)]
    pub seed: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// An exception for one VM, before all rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,127}$", example = "web-1-debug")]
    pub id: String,
    pub vm: String,
    #[serde(default)]
    pub direction: Direction,
    /// The other side: a group, a network, an address, `any`, or a list of these.
    #[serde(default = "Words::any")]
    pub peer: Words,
    #[serde(default, skip_serializing_if = "Words::is_empty")]
    pub protocol: Words,
    #[serde(default, skip_serializing_if = "Words::is_empty")]
    pub ports: Words,
    #[schema(value_type = String, example = "allow")]
    pub action: Action,
    #[serde(default = "usual_priority")]
    pub priority: u32,
    /// Why; kept in the audit log.
    #[schema(min_length = 1)]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "instant::maybe")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<u64>,
}

/// Connections that the VM begins, or that others begin to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    From,
    To,
    #[default]
    Both,
}

fn usual_priority() -> u32 {
    1000
}

fn whole() -> f64 {
    100.0
}

fn yes() -> bool {
    true
}

impl Relationship {
    /// Gives it an id out of what it says, if it has none.
    pub fn name_it(&mut self) {
        if self.id.is_empty() {
            let words = |words: &Words| words.0.join("+");
            let text = format!(
                "{} {} {} {} {:?} {:?} {:?} {:?} {:?} {:?}",
                words(&self.from),
                words(&self.to),
                words(&self.protocol),
                words(&self.ports),
                self.from_ports,
                self.icmp_type,
                self.icmp_code,
                self.vlan,
                self.vni,
                self.action,
            );
            let short = |words: &Words| -> String {
                let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                words.0.first().map(|word| word.chars().filter(plain).take(40).collect()).unwrap_or_default()
            };
            let number = crate::policy::learning::fingerprint(&text) >> 32;
            self.id = format!("r-{}-{}-{number:08x}", short(&self.from), short(&self.to));
        }
    }
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Vm, Self::Group, Self::Relationship, Self::Learned, Self::Profile, Self::Override];

    /// As in paths and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Group => "group",
            Self::Relationship => "relationship",
            Self::Learned => "learned",
            Self::Profile => "profile",
            Self::Override => "override",
        }
    }

    pub fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Vm => "VM",
            Self::Learned => "learned policy",
            other => other.name(),
        })
    }
}

impl Noun {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Vm(_) => Kind::Vm,
            Self::Group(_) => Kind::Group,
            Self::Relationship(_) => Kind::Relationship,
            Self::Learned(_) => Kind::Learned,
            Self::Profile(_) => Kind::Profile,
            Self::Override(_) => Kind::Override,
        }
    }

    /// One of its kind has it.
    pub fn name(&self) -> &str {
        match self {
            Self::Vm(vm) => &vm.id,
            Self::Group(group) => &group.name,
            Self::Relationship(relationship) => &relationship.id,
            Self::Learned(learned) => &learned.group,
            Self::Profile(profile) => &profile.name,
            Self::Override(exception) => &exception.id,
        }
    }

    /// When it goes, or a part of it.
    pub fn expires(&self) -> Option<u64> {
        match self {
            Self::Relationship(relationship) => relationship.expires,
            Self::Override(exception) => exception.expires,
            Self::Learned(learned) => learned.connections.iter().filter_map(|known| known.expires).min(),
            Self::Vm(_) | Self::Group(_) | Self::Profile(_) => None,
        }
    }

    /// The thing alone, as it is in answers and files.
    pub fn body(&self) -> serde_json::Value {
        let body = match self {
            Self::Vm(vm) => serde_json::to_value(vm),
            Self::Group(group) => serde_json::to_value(group),
            Self::Relationship(relationship) => serde_json::to_value(relationship),
            Self::Learned(learned) => serde_json::to_value(learned),
            Self::Profile(profile) => serde_json::to_value(profile),
            Self::Override(exception) => serde_json::to_value(exception),
        };
        // Strings, numbers and lists of them: nothing that JSON cannot say.
        body.unwrap_or_default()
    }

    /// Back from [`Noun::body`].
    pub fn read(kind: Kind, body: serde_json::Value) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            Kind::Vm => Self::Vm(serde_json::from_value(body)?),
            Kind::Group => Self::Group(serde_json::from_value(body)?),
            Kind::Relationship => Self::Relationship(serde_json::from_value(body)?),
            Kind::Learned => Self::Learned(serde_json::from_value(body)?),
            Kind::Profile => Self::Profile(serde_json::from_value(body)?),
            Kind::Override => Self::Override(serde_json::from_value(body)?),
        })
    }
}
