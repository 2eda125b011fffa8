//! Whether a suggestion is right, by what is known of every flow and of the faults.
//!
//! A flow is meant to pass if it is no attack and the configuration without faults lets it pass. A suggestion is applied
//! to the configuration with faults; then all flows are decided before and after, by the definition of a verdict:
//!
//! - allow, and a rule put before another: nine of ten flows that pass besides are meant to; and what is allowed to
//!   groups is allowed to all their VMs without the faults. Temporary: the flows are harmless.
//! - deny: nine of ten flows that are refused besides are attacks.
//! - narrow: the rule was made broad, or is a door for attacks; no flow that is meant to pass is refused besides.
//! - retire: no flow is decided otherwise. A rule to the front: likewise.
//! - move: the VM is the one with wrong tags, and the group is its own.
//! - path: it has a fifth of all bytes.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use gnomon::policy::learning::Endpoint;
use gnomon::policy::suggest::{Change, Kind, Suggestion};
use gnomon::rules::{Decision, Policy, Subject, oracle, parse_flow};
use toml::{Table, Value};

use crate::faults::Faults;

const MOST: f64 = 0.9;
const HEAVY: f64 = 0.2;
const DOORS: [&str; 2] = ["outside-ssh", "egress"];

/// Flows that rules cannot tell apart.
#[derive(Clone, Debug)]
struct Class {
    subject: Subject,
    harmless: u64,
    attacks: u64,
    bytes: u64,
    /// The configuration without faults lets it pass.
    allowed: bool,
}

#[derive(Debug)]
pub struct Truth {
    classes: Vec<Class>,
    wrong: Table,
    before: Vec<Decision>,
    faults: Faults,
    /// Names of groups by address.
    right: Policy,
}

/// What changes, in flows.
#[derive(Clone, Copy, Debug, Default)]
struct Effect {
    allowed: u64,
    /// Of these, meant to pass, and harmless.
    meant: u64,
    harmless: u64,
    refused: u64,
    /// Of these, attacks, and meant to pass.
    attacks: u64,
    wronged: u64,
}

fn policy(table: &Table) -> Result<Policy> {
    gnomon::config::parse(&table.to_string(), "a changed configuration")
        .map(|config| config.policy)
        .map_err(|e| anyhow!("{e}"))
}

fn decide(policy: &Policy, subjects: &[Class]) -> Vec<Decision> {
    let order = oracle::evaluation_order(policy);
    let one = |class: &Class| {
        let rule = order.iter().find(|rule| oracle::matches(policy, &rule.matches, &class.subject));
        rule.and_then(|rule| oracle::decision_of(rule.action)).unwrap_or(policy.default)
    };
    subjects.iter().map(one).collect()
}

impl Truth {
    pub fn read(folder: &Path, right: &Table, wrong: Table, faults: &Faults) -> Result<Self> {
        let mut classes: HashMap<String, Class> = HashMap::new();
        let mut reader = csv::Reader::from_path(folder.join("truth-flows.csv"))?;
        for row in reader.deserialize::<BTreeMap<String, String>>() {
            let row = row?;
            let text = flow(&row);
            let class = match classes.get_mut(&text) {
                Some(class) => class,
                None => {
                    let subject = parse_flow(&text).map_err(|error| anyhow!(error))?;
                    classes.entry(text).or_insert(Class { subject, harmless: 0, attacks: 0, bytes: 0, allowed: false })
                }
            };
            let is_attack = !row["attack"].is_empty();
            class.harmless += u64::from(!is_attack);
            class.attacks += u64::from(is_attack);
            let bytes = ["bytes_toserver", "bytes_toclient"].map(|key| row[key].parse::<u64>());
            class.bytes += bytes.into_iter().sum::<Result<u64, _>>()?;
        }
        let mut classes: Vec<Class> = classes.into_values().collect();
        let right = policy(right)?;
        let allowed = decide(&right, &classes);
        classes.iter_mut().zip(allowed).for_each(|(class, decision)| class.allowed = decision == Decision::Allow);
        let before = decide(&policy(&wrong)?, &classes);
        Ok(Self { classes, wrong, before, faults: faults.clone(), right })
    }

    pub fn is_right(&self, one: &Suggestion) -> Result<bool> {
        let share = |part: u64, all: u64| all > 0 && part as f64 >= MOST * all as f64;
        match &one.change {
            Change::Move { vm, to, .. } => {
                return Ok(self.faults.moved.iter().any(|(moved, own)| **vm == **moved && **to == **own));
            }
            Change::Advice { .. } => return Ok(self.is_heavy(&one.about)),
            Change::Rules { .. } => {}
        }
        let effect = self.effect(&one.change)?;
        Ok(match one.kind {
            Kind::Allow => share(effect.meant, effect.allowed) && effect.refused == 0 && self.is_meant(&one.change)?,
            Kind::Temporary => share(effect.harmless, effect.allowed) && effect.refused == 0,
            Kind::Deny => share(effect.attacks, effect.refused) && effect.allowed == 0,
            Kind::Narrow => {
                let meant = self.faults.broad.contains(&one.about) || DOORS.contains(&one.about.as_str());
                meant && effect.wronged == 0 && effect.allowed == 0
            }
            Kind::Retire => effect.allowed + effect.refused == 0,
            Kind::Reorder if one.about.ends_with(" to the front") => effect.allowed + effect.refused == 0,
            Kind::Reorder => share(effect.meant + effect.attacks, effect.allowed + effect.refused),
            Kind::Move | Kind::Path => false,
        })
    }

    fn effect(&self, change: &Change) -> Result<Effect> {
        let after = decide(&policy(&applied(&self.wrong, change)?)?, &self.classes);
        let mut effect = Effect::default();
        for ((class, before), after) in self.classes.iter().zip(&self.before).zip(after) {
            let flows = class.harmless + class.attacks;
            let meant = if class.allowed { class.harmless } else { 0 };
            match (*before == Decision::Allow, after == Decision::Allow) {
                (false, true) => {
                    effect.allowed += flows;
                    effect.meant += meant;
                    effect.harmless += class.harmless;
                }
                (true, false) => {
                    effect.refused += flows;
                    effect.attacks += class.attacks;
                    effect.wronged += meant;
                }
                _ => {}
            }
        }
        Ok(effect)
    }

    /// Whether the configuration without faults allows to all true members of the groups what a new rule does.
    fn is_meant(&self, change: &Change) -> Result<bool> {
        let members = |ends: &[Endpoint]| -> Vec<std::net::IpAddr> {
            let named = |end: &Endpoint| self.right.groups.iter().find(|group| end.text() == group.name);
            let nets = ends.iter().filter_map(named).flat_map(|group| &group.nets).map(|net| net.addr());
            nets.filter(std::net::IpAddr::is_ipv4).collect()
        };
        let mut classes = Vec::new();
        for draft in change.added() {
            let port = draft.ports.first().map_or(0, |(first, _)| *first);
            let name = gnomon::rules::protocol_name(draft.protocol.unwrap_or(6));
            let (from, to) = (members(&draft.from), members(&draft.to));
            for (from, to) in from.iter().flat_map(|from| to.iter().map(move |to| (from, to))) {
                let text = match name.as_str() {
                    "tcp" | "udp" => format!("{name} {from}:49152 > {to}:{port}"),
                    "icmpv6" => continue,
                    _ => format!("{name} {from} > {to}"),
                };
                let subject = parse_flow(&text).map_err(|error| anyhow!(error))?;
                classes.push(Class { subject, harmless: 0, attacks: 0, bytes: 0, allowed: false });
            }
        }
        Ok(decide(&self.right, &classes).into_iter().all(|decision| decision == Decision::Allow))
    }

    fn is_heavy(&self, about: &str) -> bool {
        let group = |subject: &Subject, end: oracle::End| {
            let found = self.right.groups.iter().find(|group| oracle::is_member(group, subject, end));
            found.map_or(oracle::address(subject, end).to_string(), |group| group.name.clone())
        };
        let is_it = |class: &&Class| {
            let s = &class.subject;
            let service = gnomon::rules::protocol_name(s.tuple.protocol);
            let service = if s.tuple.dst_port > 0 { format!("{service} {}", s.tuple.dst_port) } else { service };
            about == format!("{} > {} {service}", group(s, oracle::End::Source), group(s, oracle::End::Destination))
        };
        let bytes: u64 = self.classes.iter().filter(is_it).map(|class| class.bytes).sum();
        bytes as f64 >= HEAVY * self.classes.iter().map(|class| class.bytes).sum::<u64>() as f64
    }
}

/// As `parse_flow` reads it; source ports do not matter.
fn flow(row: &BTreeMap<String, String>) -> String {
    let end = |address: &str, port: &str| {
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    };
    match row["proto"].as_str() {
        "tcp" | "udp" => {
            format!("{} {} > {}", row["proto"], end(&row["src_ip"], "49152"), end(&row["dest_ip"], &row["dest_port"]))
        }
        other => format!("{other} {} > {}", row["src_ip"], row["dest_ip"]),
    }
}

/// The configuration after a change of its rules.
fn applied(wrong: &Table, change: &Change) -> Result<Table> {
    let mut table = wrong.clone();
    let rules = table.get_mut("rule").and_then(Value::as_array_mut).context("rules")?;
    let Change::Rules { remove, priorities, add } = change else { return Ok(table) };
    rules.retain(|rule| !remove.iter().any(|id| rule["id"].as_str() == Some(id)));
    for rule in rules.iter_mut().filter_map(Value::as_table_mut) {
        if let Some(one) = priorities.iter().find(|one| rule["id"].as_str() == Some(&one.id)) {
            rule.insert("priority".into(), i64::from(one.priority).into());
        }
    }
    for draft in add {
        let mut made: Table = draft.toml().parse()?;
        let made = made.get_mut("rule").and_then(Value::as_array_mut).context("a rule")?;
        rules.append(made);
    }
    Ok(table)
}
