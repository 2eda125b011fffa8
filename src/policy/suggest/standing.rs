//! The rules that stand, as suggestions see them, and what groups and VMs there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Config;
use crate::policy::book::{self, Book, Derived, Noun};
use crate::policy::learning::Endpoint;
use crate::rules::{Action, Decision, Match, Mode, Policy, Selector, Tier};

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub id: Arc<str>,
    /// Empty: any.
    pub from: Vec<Endpoint>,
    pub to: Vec<Endpoint>,
    pub protocol: Option<u8>,
    /// Empty: any.
    pub ports: Vec<(u16, u16)>,
    pub icmp_type: Option<u8>,
    /// Has conditions that rows do not tell: source ports, VLAN, VNI, ICMP codes.
    pub has_more: bool,
    pub action: Action,
    pub tier: Tier,
    pub priority: u32,
    pub mode: Mode,
    /// Packets or flows it decided, as its counter says; what the traffic itself shows is counted besides.
    pub hits: u64,
    /// Nanoseconds since 1970.
    pub last_hit: Option<u64>,
    /// When it was made; a young rule is not unused yet.
    pub since: Option<u64>,
    /// Who made it: `person`, `learned`, `mirrored`, ...
    pub origin: String,
}

/// Members of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    pub nets: Vec<IpNet>,
    /// Tags that a VM needs to be in it.
    pub tags: Vec<String>,
}

/// All that a suggestion is measured against.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rulebook {
    /// In any order.
    pub rules: Vec<Standing>,
    pub default: Decision,
    pub groups: BTreeMap<Arc<str>, Members>,
    /// Tags of VMs by their names.
    pub vms: BTreeMap<Arc<str>, Vec<String>>,
}

impl Standing {
    /// Whether it decides anything.
    pub fn acts(&self) -> bool {
        self.mode == Mode::Enforce && self.action != Action::Log
    }

    /// Where it stands among others: tier, priority, deny before allow, id.
    pub fn order(&self) -> (Tier, u32, u8, &str) {
        let turn = match self.action {
            Action::Log => 0,
            Action::Deny => 1,
            Action::Reject => 2,
            Action::Allow => 3,
        };
        (self.tier, self.priority, turn, &self.id)
    }

    pub fn decision(&self) -> Decision {
        match self.action {
            Action::Deny => Decision::Deny,
            Action::Reject => Decision::Reject,
            Action::Allow | Action::Log => Decision::Allow,
        }
    }

    fn of_rule(policy: &Policy, rule: &crate::rules::Rule) -> Self {
        let m: &Match = &rule.matches;
        let ends = |selectors: &[Selector]| selectors.iter().map(|selector| endpoint(policy, selector)).collect();
        let code = m.icmp.is_some_and(|(_, code)| code.is_some());
        Self {
            id: rule.id.as_str().into(),
            from: ends(&m.from),
            to: ends(&m.to),
            protocol: m.protocol,
            ports: m.to_ports.iter().map(|range| (*range.start(), *range.end())).collect(),
            icmp_type: m.icmp.map(|(kind, _)| kind),
            has_more: !m.from_ports.is_empty() || m.vlan.is_some() || m.vni.is_some() || code,
            action: rule.action,
            tier: rule.tier,
            priority: rule.priority,
            mode: rule.mode,
            hits: 0,
            last_hit: None,
            since: None,
            origin: "configuration".to_owned(),
        }
    }
}

fn endpoint(policy: &Policy, selector: &Selector) -> Endpoint {
    match selector {
        Selector::Net(net) => Endpoint::Net(*net),
        // A policy that was resolved names only groups that it has.
        Selector::Group(ix) => {
            policy.groups.get(usize::from(ix.0)).map_or(Endpoint::Any, |group| Endpoint::group(&group.name))
        }
    }
}

impl Rulebook {
    /// The rules of a configuration, never hit so far.
    pub fn of_config(config: &Config) -> Self {
        let policy = &config.policy;
        let rules = policy.rules.iter().map(|rule| Standing::of_rule(policy, rule)).collect();
        let groups = policy.groups.iter().map(|group| {
            let holds = |vm: &&crate::config::Vm| {
                let addresses = vm.addresses.iter().filter_map(|address| address.parse::<std::net::IpAddr>().ok());
                addresses.into_iter().any(|address| group.nets.iter().any(|net| net.contains(&address)))
            };
            let mut inside = config.vms.iter().filter(holds);
            // What all of them carry, and nobody else.
            let mut tags = inside.next().map(|vm| vm.tags.clone()).unwrap_or_default();
            inside.for_each(|vm| tags.retain(|tag| vm.tags.contains(tag)));
            let outside: Vec<_> = config.vms.iter().filter(|vm| !holds(vm)).collect();
            tags.retain(|tag| !outside.iter().any(|vm| vm.tags.contains(tag)));
            (Arc::from(group.name.as_str()), Members { nets: group.nets.clone(), tags })
        });
        let vms = config.vms.iter().map(|vm| (Arc::from(vm.id.as_str()), vm.tags.clone()));
        Self { rules, default: policy.default, groups: groups.collect(), vms: vms.collect() }
    }

    /// The rules that a book comes to, never hit so far.
    pub fn of_book(book: &Book, derived: &Derived, default: Decision) -> Self {
        let policy = Policy { groups: derived.groups().to_vec(), ..Policy::default() };
        let rules = derived.rules().values().map(|(rule, origin)| {
            let of = match origin.kind {
                book::Kind::Learned => "learned",
                book::Kind::Profile => "mirrored",
                _ => "person",
            };
            Self::named(Standing::of_rule(&policy, rule), of)
        });
        let groups = book.list(book::Kind::Group, None).filter_map(|entry| match &entry.noun {
            Noun::Group(group) => {
                let at = derived.position(&group.name)?;
                let nets = derived.groups()[usize::from(at.0)].nets.clone();
                let tags = group.tags.iter().cloned().collect();
                Some((Arc::from(group.name.as_str()), Members { nets, tags }))
            }
            _ => None,
        });
        let vms = book.list(book::Kind::Vm, None).filter_map(|entry| match &entry.noun {
            Noun::Vm(vm) => Some((Arc::from(vm.id.as_str()), vm.tags.iter().cloned().collect())),
            _ => None,
        });
        Self { rules: rules.collect(), default, groups: groups.collect(), vms: vms.collect() }
    }

    fn named(rule: Standing, origin: &str) -> Standing {
        Standing { origin: origin.to_owned(), ..rule }
    }

    /// Addresses of a group, as far as known.
    pub fn size(&self, group: &str) -> usize {
        let nets = self.groups.get(group).map(|members| members.nets.as_slice()).unwrap_or_default();
        let addresses = |net: &IpNet| 1usize.checked_shl((net.max_prefix_len() - net.prefix_len()).into());
        nets.iter().map(|net| addresses(net).unwrap_or(usize::MAX)).fold(0, usize::saturating_add)
    }

    /// The rule of an id.
    pub fn rule(&self, id: &str) -> Option<&Standing> {
        self.rules.iter().find(|rule| *rule.id == *id)
    }
}
