//! What words come to: checked once, when something is put into the book.

use ipnet::IpNet;

use super::noun::{Direction, Group, Learned, Noun, Override, Profile, Relationship, Vm};
use super::text::{self, Address, End, Words};
use crate::filter::{Expression, Schema};
use crate::packet::{Mac, has_ports, is_icmp};
use crate::rules::{Action, Match, Tier};

/// A field that cannot be, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Fault {
    pub field: String,
    pub message: String,
}

/// What rules need of a thing, beyond what it says itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Parsed {
    Vm(Vec<Address>),
    Group {
        nets: Vec<IpNet>,
        macs: Vec<Mac>,
    },
    /// Sides by name; the rest of the match is complete.
    Rule {
        from: Vec<End>,
        to: Vec<End>,
        matches: Match,
    },
    Override {
        peer: Vec<End>,
        matches: Match,
    },
    Nothing,
}

/// Ids that rules get which nobody wrote.
pub(super) const MADE: [&str; 3] = ["override/", "learned/", "mirrored/"];

/// Gathers all that is wrong, not just the first.
#[derive(Default)]
struct Check(Vec<Fault>);

impl Check {
    fn take<T: Default>(&mut self, field: &str, value: Result<T, String>) -> T {
        value.unwrap_or_else(|message| {
            self.0.push(Fault { field: field.to_owned(), message });
            T::default()
        })
    }

    fn refuse(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(Fault { field: field.to_owned(), message: message.into() });
    }

    fn each<T>(&mut self, field: &str, words: &[String], read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut found = Vec::with_capacity(words.len());
        for (at, word) in words.iter().enumerate() {
            match read(word) {
                Ok(value) => found.push(value),
                Err(message) => self.refuse(&format!("{field}[{at}]"), message),
            }
        }
        found
    }

    fn done(self, parsed: Parsed) -> Result<Parsed, Vec<Fault>> {
        if self.0.is_empty() { Ok(parsed) } else { Err(self.0) }
    }
}

/// Checks a thing by itself; whether what it refers to is there is another question.
pub(super) fn parse(noun: &Noun) -> Result<Parsed, Vec<Fault>> {
    match noun {
        Noun::Vm(vm) => of_vm(vm),
        Noun::Group(group) => of_group(group),
        Noun::Relationship(relationship) => of_relationship(relationship),
        Noun::Learned(learned) => of_learned(learned),
        Noun::Profile(profile) => of_profile(profile),
        Noun::Override(exception) => of_override(exception),
    }
}

fn of_vm(vm: &Vm) -> Result<Parsed, Vec<Fault>> {
    let mut check = Check::default();
    check.take("id", text::name(&vm.id));
    check.take("tags", text::tags(&vm.tags));
    let mut addresses = check.each("addresses", &vm.addresses, text::address);
    addresses.sort_unstable();
    addresses.dedup();
    check.done(Parsed::Vm(addresses))
}

fn of_group(group: &Group) -> Result<Parsed, Vec<Fault>> {
    let mut check = Check::default();
    check.take("name", text::group_name(&group.name));
    check.take("tags", text::tags(&group.tags));
    let nets = check.each("cidrs", &group.cidrs, text::network);
    let macs = check.each("macs", &group.macs, text::mac);
    if group.vlans.iter().any(|vlan| !(1..=4094).contains(vlan)) {
        check.refuse("vlans", "a VLAN is a number from 1 to 4094");
    }
    if group.vnis.contains(&0) {
        check.refuse("vnis", "a network id is a number from 1 on");
    }
    if let Some(learning) = &group.learning {
        for (at, except) in learning.except.iter().enumerate() {
            if let Err(error) = Expression::parse(except, &Schema::FLOW) {
                check.refuse(&format!("learning.except[{at}]"), error.to_string());
            }
        }
        if learning.min_days == 0 || learning.min_flows == 0 {
            check.refuse("learning", "min_days and min_flows are at least 1");
        }
    }
    check.done(Parsed::Group { nets, macs })
}

fn of_relationship(it: &Relationship) -> Result<Parsed, Vec<Fault>> {
    let mut check = Check::default();
    check.take("id", text::rule_id(&it.id));
    if let Some(made) = MADE.iter().find(|made| it.id.starts_with(**made)) {
        check.refuse("id", format!("ids that begin with `{made}` belong to rules that gnomon makes"));
    }
    let (from, to) = (check.take("from", it.from.ends()), check.take("to", it.to.ends()));
    let mut matches = matches(&mut check, &it.protocol, &it.ports, it.icmp_type);
    matches.from_ports = check.take("from_ports", it.from_ports.ports());
    matches.icmp = it.icmp_type.map(|kind| (kind, it.icmp_code));
    (matches.vlan, matches.vni) = (it.vlan, it.vni);
    if it.icmp_code.is_some() && it.icmp_type.is_none() {
        check.refuse("icmp_code", "write `icmp_type` with it");
    }
    if !matches.from_ports.is_empty() && matches.protocol.is_some_and(|number| !has_ports(number)) {
        check.refuse("from_ports", "this protocol has no ports");
    }
    if it.vlan.is_some_and(|vlan| vlan > 4094) || it.vni == Some(0) {
        check.refuse("vlan", "a VLAN is a number from 0 to 4094, a network id one from 1 on");
    }
    if it.stateful == Some(true) && it.action != Action::Allow {
        check.refuse("stateful", "only what is allowed has replies to let through: leave it out");
    }
    if it.tier == Tier::Default {
        check.refuse("tier", "one of `override`, `threat`, `policy` and `learned`");
    }
    check.done(Parsed::Rule { from, to, matches })
}

fn of_override(it: &Override) -> Result<Parsed, Vec<Fault>> {
    let mut check = Check::default();
    check.take("id", text::rule_id(&it.id));
    if it.id.len() > 96 {
        check.refuse("id", "the id of an override has at most 96 characters");
    }
    if it.reason.trim().is_empty() {
        check.refuse("reason", "an override needs a reason");
    }
    if it.action == Action::Log && it.direction == Direction::Both {
        check.refuse("action", "`log` needs one direction");
    }
    let peer = check.take("peer", it.peer.ends());
    let matches = matches(&mut check, &it.protocol, &it.ports, None);
    check.done(Parsed::Override { peer, matches })
}

fn matches(check: &mut Check, protocol: &Words, ports: &Words, icmp_type: Option<u8>) -> Match {
    let protocol = check.take("protocol", protocol.protocol());
    let to_ports = check.take("ports", ports.ports());
    if let Some(number) = protocol.filter(|number| !to_ports.is_empty() && !has_ports(*number)) {
        check.refuse("ports", format!("protocol {} has no ports", crate::rules::protocol_name(number)));
    }
    if icmp_type.is_some() && !protocol.is_some_and(is_icmp) {
        check.refuse("icmp_type", "write protocol `icmp` or `icmpv6` with it");
    }
    Match { protocol, to_ports, icmp: icmp_type.map(|kind| (kind, None)), ..Match::default() }
}

fn of_learned(learned: &Learned) -> Result<Parsed, Vec<Fault>> {
    let mut check = Check::default();
    let mut seen = std::collections::HashSet::new();
    for (at, known) in learned.connections.iter().enumerate() {
        let field = format!("connections[{at}]");
        if !seen.insert(&known.connection) {
            check.refuse(&field, format!("`{}` is there twice", known.connection));
        }
        if known.connection.service.ports.is_some_and(|(first, last)| first > last) {
            check.refuse(&field, "the first port is larger than the last");
        }
    }
    check.done(Parsed::Nothing)
}

fn of_profile(profile: &Profile) -> Result<Parsed, Vec<Fault>> {
    let mut check = Check::default();
    check.take("name", text::name(&profile.name));
    if !(0.0..=100.0).contains(&profile.strength) {
        check.refuse("strength", "a strength is a number from 0 to 100");
    }
    if profile.source == profile.target {
        check.refuse("target", "source and target are the same group");
    }
    check.done(Parsed::Nothing)
}
