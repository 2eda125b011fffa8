//! Why a packet gets the verdict it gets, stage by stage.
//!
//! The walk uses the definition ([`oracle`]), not the compiled structure; whether both say the same is part
//! of the result.

use std::fmt;

use serde::Serialize;

use super::compiled::Compiled;
use super::labels::Labels;
use super::oracle::{self, End};
use super::rule::{Action, Decision, Group, Match, Mode, Policy, Rule, Selector, Subject, Tier};
use super::subject_text::{flow_text, protocol_name};
use crate::packet::{Mac, has_ports};

/// Most near misses that are listed.
const MOST_NEAR: usize = 50;

/// What every stage concluded about one packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub generation: u32,
    /// The packet as `gnomon explain` reads it.
    pub packet: String,
    /// 0 when untagged, outside tunnels.
    pub vlan: u16,
    pub vni: u32,
    pub source: EndpointStep,
    pub destination: EndpointStep,
    /// Rules that match or miss by one condition, in evaluation order.
    pub rules: Vec<RuleStep>,
    /// Number of rules in the policy, and of near misses beyond those listed.
    pub rules_total: usize,
    pub near_omitted: usize,
    pub decision: Decision,
    pub tier: Tier,
    /// Id of the deciding rule, `default` when none does.
    pub rule: String,
    /// First enforced log rule before the decision.
    pub logged: Option<String>,
    /// Shadow-mode rules that would have decided, in evaluation order.
    pub shadow: Vec<String>,
    pub mirrors: Vec<MirrorSelected>,
    pub replies: Replies,
    /// What the compiled structure looks at.
    pub path: Vec<String>,
    /// The compiled structure gives the same verdict. Anything else is a fault of gnomon.
    pub consistent: bool,
}

/// One end of the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointStep {
    pub address: String,
    /// Absent when zero.
    pub mac: Option<String>,
    pub groups: Vec<Membership>,
}

/// A group that an end belongs to, and by what: `10.0.1.0/24`, `vlan 10`, ...
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Membership {
    pub group: String,
    pub by: Vec<String>,
}

/// One rule, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleStep {
    pub id: String,
    pub tier: Tier,
    pub priority: u32,
    pub mode: Mode,
    pub action: Action,
    pub outcome: Outcome,
    /// For [`Outcome::NearMiss`]: the one condition that does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// What a rule did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Decides,
    Logs,
    /// Shadow mode: it would have decided.
    WouldDecide,
    /// It matches, but is disabled or a log rule in shadow mode.
    NoEffect,
    /// It matches, but an earlier rule has decided.
    NotReached,
    /// All conditions but one hold.
    NearMiss,
}

/// A mirror session that selects the packet, before sampling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MirrorSelected {
    /// Position in the policy.
    pub session: usize,
    /// Known to the configuration, not to the policy: see [`Explanation::name_mirrors`].
    pub name: Option<String>,
}

/// Whether the answer to the packet passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replies {
    pub pass: bool,
    pub why: String,
}

/// Explains the verdict on `subject`. `policy` and `labels` must be those `compiled` was built with.
pub fn explain(policy: &Policy, compiled: &Compiled, labels: &Labels, subject: &Subject) -> Explanation {
    let generation = compiled.generation();
    let verdict = oracle::classify(policy, generation, labels, subject);
    // Where group sets are reported approximately they say nothing about the decision.
    let mut compared = compiled.classify(subject);
    if !compiled.group_sets_exact() {
        (compared.src_groups, compared.dst_groups) = (verdict.src_groups, verdict.dst_groups);
    }
    let walk = walk(policy, subject);
    let all = |wanted| walk.steps.iter().filter(move |step| step.outcome == wanted).map(|step| step.id.clone());
    let decider = walk.steps.iter().find(|step| step.outcome == Outcome::Decides);
    let decision = decider.and_then(|step| oracle::decision_of(step.action)).unwrap_or(policy.default);
    let selected = oracle::mirrors(policy, subject, decision).into_iter();
    Explanation {
        generation,
        packet: flow_text(subject),
        vlan: subject.tuple.vlan,
        vni: subject.tuple.vni,
        source: endpoint(policy, subject, End::Source),
        destination: endpoint(policy, subject, End::Destination),
        decision,
        tier: decider.map_or(Tier::Default, |step| step.tier),
        rule: decider.map_or_else(|| "default".to_owned(), |step| step.id.clone()),
        logged: all(Outcome::Logs).next(),
        shadow: all(Outcome::WouldDecide).collect(),
        mirrors: selected.map(|session| MirrorSelected { session, name: None }).collect(),
        replies: replies(policy, labels, subject, decision, verdict.stateful),
        path: compiled.path(subject, labels),
        consistent: compared == verdict,
        rules_total: policy.rules.len(),
        near_omitted: walk.omitted,
        rules: walk.steps,
    }
}

/// The packet that answers `subject`: ends swapped, echo request and reply exchanged.
#[must_use]
pub fn reply_to(subject: &Subject) -> Subject {
    let mut reply = subject.reversed();
    reply.icmp.0 = match (reply.tuple.protocol, reply.icmp.0) {
        (1, 8) => 0,
        (1, 0) => 8,
        (58, 128) => 129,
        (58, 129) => 128,
        (_, kind) => kind,
    };
    reply
}

impl Explanation {
    /// Fills in the names of mirror sessions, in the order of the policy.
    pub fn name_mirrors<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let names: Vec<&str> = names.into_iter().collect();
        for mirror in &mut self.mirrors {
            mirror.name = names.get(mirror.session).map(|name| (*name).to_owned());
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packet       {}", self.packet)?;
        if self.vlan != 0 {
            write!(f, ", VLAN {}", self.vlan)?;
        }
        if self.vni != 0 {
            write!(f, ", VNI {}", self.vni)?;
        }
        write!(f, "\nsource       {}\ndestination  {}\n", self.source, self.destination)?;
        writeln!(f, "rules        {} in generation {}", self.rules_total, self.generation)?;
        for step in &self.rules {
            writeln!(f, "  {step}")?;
        }
        if self.near_omitted > 0 {
            writeln!(f, "  and {} more that miss by one condition", self.near_omitted)?;
        }
        if self.rule == "default" && self.tier == Tier::Default {
            writeln!(f, "verdict      {}, as no rule decides", word(&self.decision))?;
        } else {
            writeln!(f, "verdict      {}, by {} (tier {})", word(&self.decision), self.rule, word(&self.tier))?;
        }
        if let Some(id) = &self.logged {
            writeln!(f, "  logged by {id}")?;
        }
        if !self.shadow.is_empty() {
            writeln!(f, "  in shadow mode, {} would have decided", self.shadow.join(", "))?;
        }
        let pass = if self.replies.pass { "pass" } else { "do not pass" };
        writeln!(f, "  replies {pass}: {}", self.replies.why)?;
        write!(f, "mirror       {}", if self.mirrors.is_empty() { "no session selects it" } else { "selected by " })?;
        for (at, mirror) in self.mirrors.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            match &mirror.name {
                Some(name) => write!(f, "{comma}{name}")?,
                None => write!(f, "{comma}session {}", mirror.session)?,
            }
        }
        for (at, step) in self.path.iter().enumerate() {
            write!(f, "\n{}{step}", if at == 0 { "search       " } else { "  " })?;
        }
        if !self.consistent {
            write!(f, "\nfault        the compiled rules disagree with the above; please report this")?;
        }
        Ok(())
    }
}

impl fmt::Display for EndpointStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(mac) = &self.mac {
            write!(f, " ({mac})")?;
        }
        let groups = self.groups.iter().map(|group| format!("{} by {}", group.group, group.by.join(" and ")));
        let groups: Vec<String> = groups.collect();
        if groups.is_empty() { write!(f, ", in no group") } else { write!(f, ", in {}", groups.join(", ")) }
    }
}

impl fmt::Display for RuleStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tier, action) = (word(&self.tier), word(&self.action));
        write!(f, "{} ({tier} {}, {action}", self.id, self.priority)?;
        if self.mode != Mode::Enforce {
            write!(f, ", {}", word(&self.mode))?;
        }
        write!(f, "): ")?;
        match (self.outcome, &self.failed) {
            (Outcome::Decides, _) => write!(f, "decides"),
            (Outcome::Logs, _) => write!(f, "logs and goes on"),
            (Outcome::WouldDecide, _) => write!(f, "would decide, but only watches"),
            (Outcome::NoEffect, _) => write!(f, "matches, without effect in this mode"),
            (Outcome::NotReached, _) => write!(f, "matches, but the decision is made"),
            (Outcome::NearMiss, failed) => {
                write!(f, "no match, {}", failed.as_deref().unwrap_or("one condition fails"))
            }
        }
    }
}

/// The word a configuration uses for a value.
fn word(value: &impl fmt::Debug) -> String {
    format!("{value:?}").to_ascii_lowercase()
}

struct Walk {
    steps: Vec<RuleStep>,
    omitted: usize,
}

fn walk(policy: &Policy, subject: &Subject) -> Walk {
    let mut walk = Walk { steps: Vec::new(), omitted: 0 };
    let (mut decided, mut near) = (false, 0);
    for rule in oracle::evaluation_order(policy) {
        let mut failures = failures(policy, &rule.matches, subject);
        let outcome = match (failures.len(), outcome(rule, decided)) {
            (0, outcome) => outcome,
            (1, _) => Outcome::NearMiss,
            _ => continue,
        };
        decided |= outcome == Outcome::Decides;
        if outcome == Outcome::NearMiss {
            near += 1;
            if near > MOST_NEAR {
                walk.omitted += 1;
                continue;
            }
        }
        let (id, failed) = (rule.id.clone(), failures.pop());
        let Rule { tier, priority, mode, action, .. } = *rule;
        walk.steps.push(RuleStep { id, tier, priority, mode, action, outcome, failed });
    }
    walk
}

/// What a matching rule does.
fn outcome(rule: &Rule, decided: bool) -> Outcome {
    match (rule.mode, rule.action) {
        (Mode::Disabled, _) | (Mode::Shadow, Action::Log) => Outcome::NoEffect,
        _ if decided => Outcome::NotReached,
        (Mode::Shadow, _) => Outcome::WouldDecide,
        (Mode::Enforce, Action::Log) => Outcome::Logs,
        (Mode::Enforce, _) => Outcome::Decides,
    }
}

/// The conditions that do not hold, in words.
fn failures(policy: &Policy, m: &Match, subject: &Subject) -> Vec<String> {
    let tuple = &subject.tuple;
    let mut failed = Vec::new();
    for (end, selectors, name) in [(End::Source, &m.from, "source"), (End::Destination, &m.to, "destination")] {
        if !oracle::selected(policy, selectors, subject, end) {
            let wanted = any_of(selectors.iter().map(|selector| selector_text(policy, selector)));
            failed.push(format!("{name} {} is not in {wanted}", oracle::address(subject, end)));
        }
    }
    if !oracle::protocol_matches(m, subject) {
        let wanted = m.protocol.map(protocol_name).unwrap_or_default();
        failed.push(format!("protocol {} is not {wanted}", protocol_name(tuple.protocol)));
    }
    let sides = [(&m.from_ports, tuple.src_port, "source"), (&m.to_ports, tuple.dst_port, "destination")];
    for (ranges, port, name) in sides {
        if oracle::port_matches(ranges, subject, port) {
            continue;
        }
        let wanted = any_of(ranges.iter().map(|range| match (range.start(), range.end()) {
            (a, b) if a == b => a.to_string(),
            (a, b) => format!("{a}-{b}"),
        }));
        failed.push(match (has_ports(tuple.protocol), subject.ports_known) {
            (false, _) => format!("{} has no {name} port (wanted {wanted})", protocol_name(tuple.protocol)),
            (true, false) => format!("{name} port is not known (wanted {wanted})"),
            (true, true) => format!("{name} port {port} is not {wanted}"),
        });
    }
    if let Some((kind, code)) = m.icmp.filter(|_| !oracle::icmp_matches(m, subject)) {
        let code = code.map(|code| format!(" code {code}")).unwrap_or_default();
        failed.push(format!("it is not ICMP type {kind}{code}"));
    }
    if let Some(vlan) = m.vlan.filter(|vlan| *vlan != tuple.vlan) {
        failed.push(format!("VLAN {} is not {vlan}", tuple.vlan));
    }
    if let Some(vni) = m.vni.filter(|vni| *vni != tuple.vni) {
        failed.push(format!("VNI {} is not {vni}", tuple.vni));
    }
    failed
}

fn any_of(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(" or ")
}

fn selector_text(policy: &Policy, selector: &Selector) -> String {
    match selector {
        Selector::Net(net) => net.to_string(),
        Selector::Group(ix) => policy.groups.get(usize::from(ix.0)).map_or("?", |group| &group.name).to_owned(),
    }
}

fn endpoint(policy: &Policy, subject: &Subject, end: End) -> EndpointStep {
    let mac = Some(oracle::mac(subject, end)).filter(|mac| *mac != Mac::default());
    let members = policy.groups.iter().filter(|group| oracle::is_member(group, subject, end));
    EndpointStep {
        address: oracle::address(subject, end).to_string(),
        mac: mac.map(|mac| mac.to_string()),
        groups: members
            .map(|group| Membership { group: group.name.clone(), by: reasons(group, subject, end) })
            .collect(),
    }
}

fn reasons(group: &Group, subject: &Subject, end: End) -> Vec<String> {
    let (address, mac) = (oracle::address(subject, end), oracle::mac(subject, end));
    let mut by: Vec<String> =
        group.nets.iter().filter(|net| net.contains(&address)).map(|net| net.to_string()).collect();
    if group.macs.contains(&mac) {
        by.push(format!("MAC {mac}"));
    }
    if group.vlans.contains(&subject.tuple.vlan) {
        by.push(format!("VLAN {}", subject.tuple.vlan));
    }
    if group.vnis.contains(&subject.tuple.vni) {
        by.push(format!("VNI {}", subject.tuple.vni));
    }
    by
}

fn replies(policy: &Policy, labels: &Labels, subject: &Subject, decision: Decision, stateful: bool) -> Replies {
    if decision != Decision::Allow {
        return Replies { pass: false, why: "the packet itself does not pass".to_owned() };
    }
    if stateful {
        return Replies { pass: true, why: "the rule is stateful".to_owned() };
    }
    let reply = reply_to(subject);
    let verdict = oracle::classify(policy, 0, labels, &reply);
    let by = match labels.rule(verdict.rule) {
        _ if verdict.rule == super::rule::RuleHandle::DEFAULT => "no rule".to_owned(),
        id => format!("rule {id}"),
    };
    let why = format!("not stateful; on its own, {} gets {} by {by}", flow_text(&reply), word(&verdict.decision));
    Replies { pass: verdict.decision == Decision::Allow, why }
}
