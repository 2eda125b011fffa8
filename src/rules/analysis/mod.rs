//! What is wrong with a set of rules: rules that never act, that change nothing, that contradict each other, that let
//! through too much.
//!
//! Comes in: a [`Policy`] and, if there are any, hit counters. Goes out: a [`RuleReport`]. Runs on the control thread
//! or offline, never on the packet path. The kinds of conflict are those of Al-Shaer and Hamed ("Modeling and
//! Management of Firewall Policies", IEEE TNSM 2004).
//!
//! Findings are exact: each holds for every packet there can be. Work is bounded; questions that would take more are
//! listed in [`RuleReport::unchecked`] and nothing is claimed. All unreachable and redundant rules of one report can be
//! removed, one, some or all, and every packet gets the decision that it gets now.

mod breadth;
mod coverage;
mod finding;
mod index;
mod regions;
mod space;

use std::collections::HashMap;

use super::rule::{Action, Policy, Rule};
pub use breadth::Breadth;
use coverage::{Effect, Ground, TooMuch, Work};
use finding::witness;
pub use finding::{Finding, FindingKind, RuleReport, Unchecked, Witness};
use space::{Point, difference, intersection};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    pub kinds: Vec<FindingKind>,
    /// An `allow` rule with more combinations of source, destination and port is over-broad.
    pub broad: f64,
    /// Most searches for the rule that decides a packet, per rule and question.
    pub work: u32,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self { kinds: FindingKind::ALL.to_vec(), broad: Self::BROAD, work: 2000 }
    }
}

impl ReportOptions {
    /// As many combinations as there are between any source and 4096 services.
    pub const BROAD: f64 = 4_294_967_296.0 * 4096.0;
}

/// What the counters say of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleUse {
    /// Packets it decided, would have decided or noted.
    pub packets: u64,
    /// Since when they count.
    pub since: String,
}

/// Other rules that a finding lists.
const MOST_OTHERS: usize = 8;
/// Rules of another decision that are looked at for each rule's conflicts.
const MOST_CONFLICTS: usize = 16;
/// Later rules of another decision that may stand between a rule and its redundancy.
const MOST_DIFFERENT: usize = 512;

/// Analyses the rules of a policy that compiles. `uses` are the counters by rule id; `progress` is told now and then how
/// much of how much is done.
pub fn analyse(
    policy: &Policy,
    uses: Option<&HashMap<String, RuleUse>>,
    options: &ReportOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> RuleReport {
    let ground = Ground::new(policy);
    let count = ground.rules.len();
    let report = RuleReport { rules: count, ..RuleReport::default() };
    let (reached, gone) = (vec![None; count], vec![false; count]);
    let mut analysis = Analysis { ground, options, reached, idle: gone.clone(), gone, report };
    for step in 0..2 * count {
        if step % 64 == 0 {
            progress(step, 2 * count);
        }
        match step.checked_sub(count) {
            None => analysis.reach(step as u32),
            Some(rule) => analysis.judge(rule as u32, uses),
        }
    }
    progress(2 * count, 2 * count);
    analysis.finish()
}

struct Analysis<'a> {
    ground: Ground<'a>,
    options: &'a ReportOptions,
    /// A packet that comes to each rule.
    reached: Vec<Option<Point>>,
    /// Unreachable rules.
    idle: Vec<bool>,
    /// Those, and redundant ones as they are found.
    gone: Vec<bool>,
    report: RuleReport,
}

impl Analysis<'_> {
    fn asks(&self, kind: FindingKind) -> bool {
        self.options.kinds.contains(&kind)
    }

    fn work(&self) -> Work {
        Work(self.options.work)
    }

    /// Finds a packet that comes to the rule, or that there is none.
    fn reach(&mut self, rule: u32) {
        let ground = &self.ground;
        let logs = ground.effects[rule as usize] == Effect::Logs;
        // Only the first log rule of a packet is noted.
        let blocks = |other: u32| match ground.effects[other as usize] {
            Effect::Decides(_) => true,
            Effect::Logs => logs,
            Effect::Watches => false,
        };
        let cells = &ground.cells[rule as usize];
        let left = match ground.left(cells.clone(), rule, blocks, &mut self.work()) {
            Ok(left) => left,
            Err(TooMuch) => return self.give_up(rule, FindingKind::Unreachable),
        };
        self.reached[rule as usize] = left.packet;
        if left.packet.is_none() {
            let alone = |other: &&u32| difference(cells, &ground.cells[**other as usize]).is_empty();
            let covering = left.takers.iter().find(alone).map_or(left.takers.clone(), |other| vec![*other]);
            self.idle[rule as usize] = true;
            self.gone[rule as usize] = true;
            self.unreachable(rule, &covering);
        }
    }

    fn unreachable(&mut self, rule: u32, covering: &[u32]) {
        let ground = &self.ground;
        let own = ground.effects[rule as usize];
        let same = covering.iter().all(|other| ground.effects[*other as usize] == own);
        let names = self.names(covering);
        let (what, advice) = match covering {
            [] => (
                "no packet can match: its conditions exclude each other or its groups are empty".to_owned(),
                "correct its conditions or fill its groups; else remove it",
            ),
            _ if same => (
                format!("{names} {} all its packets first, to the same effect (redundancy)", take(covering)),
                "remove it",
            ),
            _ => (
                format!("{names} {} all its packets first (shadowing)", take(covering)),
                "if it is meant as an exception, give it a lower priority number than these; else remove it",
            ),
        };
        let packet = ground.cells[rule as usize].first().and_then(Point::ordinary);
        let witness = packet.and_then(|packet| witness(&packet));
        self.find(rule, FindingKind::Unreachable, covering, false, what, advice, witness);
    }

    /// Everything else about a rule.
    fn judge(&mut self, rule: u32, uses: Option<&HashMap<String, RuleUse>>) {
        if self.idle[rule as usize] {
            return;
        }
        if self.ground.outcome(rule).is_some() {
            if self.asks(FindingKind::Redundant) {
                self.redundant(rule);
            }
            self.ties(rule);
            self.conflicts(rule);
        }
        self.breadth(rule);
        self.hits(rule, uses);
    }

    fn redundant(&mut self, rule: u32) {
        // Alone, and together with everything else that this report says may go.
        let alone = self.is_redundant(rule, &vec![false; self.gone.len()]);
        let both = match alone {
            Ok(true) => self.is_redundant(rule, &self.gone),
            other => other,
        };
        match both {
            Err(TooMuch) => return self.give_up(rule, FindingKind::Redundant),
            Ok(false) => return,
            Ok(true) => self.gone[rule as usize] = true,
        }
        let (ground, gone) = (&self.ground, &self.gone);
        let later = |other: u32| other > rule && !gone[other as usize] && ground.outcome(other).is_some();
        let all = ground.rules.len() as u32;
        let left = ground.left(ground.cells[rule as usize].clone(), all, later, &mut self.work());
        let (takers, to_default) = left.map_or((Vec::new(), true), |left| (left.takers, left.packet.is_some()));
        let names = self.names(&takers);
        let what = match (takers.as_slice(), to_default) {
            ([], _) => "without it its packets get the same decision from later rules or policy.default".to_owned(),
            (_, true) => format!("without it {names} and later rules or policy.default decide the same"),
            (_, false) => format!("without it {names} {} all its packets, to the same effect", take(&takers)),
        };
        let witness = self.reached[rule as usize].and_then(|packet| witness(&packet));
        self.find(rule, FindingKind::Redundant, &takers, false, what, "remove it", witness);
    }

    /// Whether every packet that the rule decides would get the same outcome without it, were the rules in `gone` not
    /// there either.
    fn is_redundant(&self, rule: u32, gone: &[bool]) -> Result<bool, TooMuch> {
        let ground = &self.ground;
        let (cells, all) = (&ground.cells[rule as usize], ground.rules.len() as u32);
        let own = ground.outcome(rule);
        let present = |other: u32| other != rule && !gone[other as usize] && ground.outcome(other).is_some();
        let outcome = |other: Option<u32>| other.map_or(Some(ground.default), |other| ground.outcome(other));
        for cell in cells.iter().cycle().take(8) {
            let Some(packet) = ground.random_packet(cell) else { continue };
            let next = ground.first(&packet, 0..all, present);
            if next.is_none_or(|next| next > rule) && outcome(next) != own {
                return Ok(false);
            }
        }
        let mut work = self.work();
        if Some(ground.default) != own && ground.left(cells.clone(), all, present, &mut work)?.packet.is_some() {
            return Ok(false);
        }
        let otherwise = |other: u32| present(other) && ground.outcome(other) != own;
        let (different, complete) = ground.neighbours(rule, rule + 1..all, MOST_DIFFERENT, otherwise);
        for other in different {
            let common = intersection(cells, &ground.cells[other as usize]);
            if ground.left(common, other, present, &mut work)?.packet.is_some() {
                return Ok(false);
            }
        }
        if complete { Ok(true) } else { Err(TooMuch) }
    }

    /// Overlaps with rules of the same tier and priority.
    fn ties(&mut self, rule: u32) {
        if self.asks(FindingKind::Tie) {
            let (ground, idle, own) = (&self.ground, &self.idle, self.ground.outcome(rule));
            let otherwise = |other: u32| {
                let outcome = ground.outcome(other);
                outcome.is_some() && outcome != own && !idle[other as usize]
            };
            let (found, complete) = ground.neighbours(rule, self.peers_from(rule)..rule, MOST_CONFLICTS, otherwise);
            let advice = "give the rule that shall hold a lower priority number";
            self.contradictions(rule, FindingKind::Tie, &found, complete, advice);
        }
    }

    /// Overlaps with rules of an earlier tier or priority.
    fn conflicts(&mut self, rule: u32) {
        if !self.asks(FindingKind::Correlation) && !self.asks(FindingKind::Generalization) {
            return;
        }
        let (ground, idle) = (&self.ground, &self.idle);
        let decision = |other: u32| ground.outcome(other).map(|outcome| outcome.decision);
        let otherwise =
            |other: u32| !idle[other as usize] && decision(other).is_some_and(|it| Some(it) != decision(rule));
        let (found, complete) = ground.neighbours(rule, 0..self.peers_from(rule), MOST_CONFLICTS, otherwise);
        let cells = &ground.cells;
        let inside = |other: &u32| difference(&cells[*other as usize], &cells[rule as usize]).is_empty();
        let (within, across): (Vec<u32>, Vec<u32>) = found.into_iter().partition(inside);
        let advice = "usual for exceptions to a general rule; check that they are meant";
        self.contradictions(rule, FindingKind::Generalization, &within, complete, advice);
        let advice = "check that the order of the two is meant, or narrow one of them";
        self.contradictions(rule, FindingKind::Correlation, &across, complete, advice);
    }

    /// First rule of the same tier and priority.
    fn peers_from(&self, rule: u32) -> u32 {
        let place = |rule: &Rule| (rule.tier, rule.priority);
        let own = place(self.ground.rules[rule as usize]);
        self.ground.rules.partition_point(|other| place(other) < own) as u32
    }

    /// Reports those of `found` that decide packets which the rule would decide otherwise.
    fn contradictions(&mut self, rule: u32, kind: FindingKind, found: &[u32], complete: bool, advice: &'static str) {
        if !self.asks(kind) {
            return;
        }
        let (ground, mut others, mut shown, mut given_up) = (&self.ground, Vec::new(), None, false);
        for other in found {
            let common = intersection(&ground.cells[rule as usize], &ground.cells[*other as usize]);
            let decides = |earlier: u32| ground.outcome(earlier).is_some();
            match ground.left(common, *other, decides, &mut Work(self.options.work / 16)) {
                Ok(left) => {
                    if let Some(packet) = left.packet {
                        others.push(*other);
                        shown = shown.or_else(|| witness(&packet));
                    }
                }
                Err(TooMuch) => given_up = true,
            }
        }
        if given_up {
            self.give_up(rule, kind);
        }
        if others.is_empty() {
            return;
        }
        let (names, own) = (self.names(&others), self.action(rule));
        let what = match kind {
            FindingKind::Tie => format!("{own}, but {names} at the same tier and priority {}", self.first_by(&others)),
            FindingKind::Generalization => format!("{own}, with {names} as exception inside it"),
            _ => format!("{own}, but partly overlaps {names}, which {} first", if one(&others) { "is" } else { "are" }),
        };
        self.find(rule, kind, &others, !complete, what, advice, shown);
    }

    fn first_by(&self, others: &[u32]) -> &'static str {
        if one(others) { "comes first, by action or id only" } else { "come first, by action or id only" }
    }

    fn breadth(&mut self, rule: u32) {
        let action = self.ground.rules[rule as usize].action;
        if !self.asks(FindingKind::OverBroad) || action != Action::Allow {
            return;
        }
        let breadth = Breadth::of(&self.ground.cells[rule as usize]);
        let what = match breadth {
            Breadth { any_to_any: true, .. } => "allows from any address to any other".to_owned(),
            Breadth { whole_protocol: true, .. } => "allows all ports, with any address on one side".to_owned(),
            Breadth { combinations, .. } if combinations > self.options.broad => {
                format!("allows {combinations:.1e} combinations of source, destination and port")
            }
            _ => return,
        };
        let witness = self.reached[rule as usize].and_then(|packet| witness(&packet));
        let advice = "name the sources, destinations and ports that are needed";
        self.find(rule, FindingKind::OverBroad, &[], false, what, advice, witness);
        if let Some(finding) = self.report.findings.last_mut() {
            finding.breadth = Some(breadth);
        }
    }

    fn hits(&mut self, rule: u32, uses: Option<&HashMap<String, RuleUse>>) {
        let id = self.ground.rules[rule as usize].id.as_str();
        let Some(used) = uses.and_then(|uses| uses.get(id)).filter(|used| used.packets == 0) else { return };
        if !self.asks(FindingKind::NeverHit) {
            return;
        }
        let what = format!("no packet since {}", used.since);
        let witness = self.reached[rule as usize].and_then(|packet| witness(&packet));
        let advice = "if that time is long enough to tell, set `mode = \"disabled\"`, then remove it";
        self.find(rule, FindingKind::NeverHit, &[], false, what, advice, witness);
    }

    #[allow(clippy::too_many_arguments)]
    fn find(
        &mut self,
        rule: u32,
        kind: FindingKind,
        others: &[u32],
        omitted: bool,
        what: String,
        advice: &'static str,
        witness: Option<Witness>,
    ) {
        if !self.asks(kind) {
            return;
        }
        let Rule { id, tier, priority, .. } = self.ground.rules[rule as usize];
        let listed = others.iter().take(MOST_OTHERS).map(|other| self.ground.rules[*other as usize].id.clone());
        let finding = Finding {
            kind,
            rule: id.clone(),
            tier: *tier,
            priority: *priority,
            others: listed.collect(),
            others_omitted: omitted || others.len() > MOST_OTHERS,
            what,
            advice: advice.to_owned(),
            witness,
            breadth: None,
        };
        self.report.findings.push(finding);
    }

    fn give_up(&mut self, rule: u32, kind: FindingKind) {
        if self.asks(kind) {
            self.report.unchecked.push(Unchecked { kind, rule: self.ground.rules[rule as usize].id.clone() });
        }
    }

    fn action(&self, rule: u32) -> String {
        format!("{:?}", self.ground.rules[rule as usize].action).to_lowercase() + "s"
    }

    /// For a sentence: one or two rules by id, more by number.
    fn names(&self, rules: &[u32]) -> String {
        let id = |rule: &u32| format!("`{}`", self.ground.rules[*rule as usize].id);
        match rules {
            [one] => id(one),
            [one, two] => format!("{} and {}", id(one), id(two)),
            more => format!("{} rules", more.len()),
        }
    }

    fn finish(mut self) -> RuleReport {
        let rules = self.ground.rules.iter().enumerate();
        let places: HashMap<&str, usize> = rules.map(|(at, rule)| (rule.id.as_str(), at)).collect();
        self.report.findings.sort_by_key(|finding| (places.get(finding.rule.as_str()).copied(), finding.kind));
        self.report
    }
}

fn one(rules: &[u32]) -> bool {
    rules.len() == 1
}

fn take(rules: &[u32]) -> &'static str {
    if one(rules) { "takes" } else { "take" }
}
