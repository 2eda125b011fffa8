//! Rules that stand in the wrong place.
//!
//! A rule that an earlier one of another decision covers altogether never acts: an exception that should come first. And
//! a rule that decides much of the traffic behind many that decide little is put before these, where no flow would be
//! decided otherwise: that is for people, who read a list from its top.

use rustc_hash::FxHashMap;

use super::{Generator, count};
use crate::policy::suggest::change::{Change, Reorder};
use crate::policy::suggest::judge::Rank;
use crate::policy::suggest::relate::Conditions;
use crate::policy::suggest::scene::Scene;
use crate::policy::suggest::standing::Standing;
use crate::policy::suggest::suggestion::{Candidate, Confidence, Evidence, Kind, saturating};
use crate::policy::suggest::tally::Tally;
use crate::rules::Decision;

#[derive(Debug)]
pub struct Reordering;

/// Least share of what all rules decide, and least rules in front of it.
const BUSY: f64 = 0.25;
const IN_FRONT: usize = 4;

impl Generator for Reordering {
    fn propose(&self, scene: &Scene<'_>) -> Vec<Candidate> {
        let mut found = shadowed(scene);
        found.extend(busy(scene));
        found
    }
}

fn change(rule: &Standing, priority: u32) -> Change {
    let reorder = Reorder { id: rule.id.clone(), before: rule.priority, priority };
    Change::Rules { remove: Vec::new(), priorities: vec![reorder], add: Vec::new() }
}

/// For each rule that never acts the first that covers it and decides otherwise, by the covering rule.
pub(super) fn covered(scene: &Scene<'_>) -> FxHashMap<Rank, Vec<Rank>> {
    let order = scene.judge.order();
    let mut found: FxHashMap<Rank, Vec<Rank>> = FxHashMap::default();
    for rank in (0..order.len()).filter(|rank| scene.usage[*rank].rows == 0 && order[*rank].hits == 0) {
        let rule = order[rank];
        let own = Conditions::from(rule);
        let covers = |earlier: &usize| {
            let other = order[*earlier];
            !other.has_more && other.decision() != rule.decision() && Conditions::from(other).covers(&own, scene.book)
        };
        if let Some(first) =
            scene.judge.near(rule).into_iter().map(|rank| rank as usize).take_while(|r| *r < rank).find(covers)
        {
            found.entry(Rank(first as u32)).or_default().push(Rank(rank as u32));
        }
    }
    found
}

fn shadowed(scene: &Scene<'_>) -> Vec<Candidate> {
    let covered = covered(scene);
    let mut tallies: FxHashMap<Rank, Tally> = FxHashMap::default();
    for (row, rank) in scene.rows() {
        for late in covered.get(&rank).into_iter().flatten() {
            if scene.judge.rule(*late).is_some_and(|rule| scene.judge.rule_holds(rule, row)) {
                tallies.entry(*late).or_default().merge(&row.tally);
            }
        }
    }
    let mut pairs: Vec<(Rank, Rank)> =
        covered.iter().flat_map(|(first, all)| all.iter().map(|late| (*first, *late))).collect();
    pairs.sort_unstable();
    let all = pairs.into_iter().filter_map(|(first, late)| exception(scene, first, late, tallies.get(&late)?));
    all.collect()
}

fn exception(scene: &Scene<'_>, first: Rank, late: Rank, tally: &Tally) -> Option<Candidate> {
    let (first, rule) = (scene.judge.rule(first)?, scene.judge.rule(late)?);
    if first.tier != rule.tier || first.priority == 0 || tally.flows < scene.settings.min_flows {
        return None;
    }
    // An exception that allows is for harmless flows, one that denies for the others.
    let allows = rule.decision() == Decision::Allow;
    let threat = if allows { 1.0 - tally.attack_share() } else { 0.5 + 0.5 * tally.attack_share() };
    let score = tally.mean_score().unwrap_or(0.5);
    let stability = f64::from(tally.day_count()) / scene.days().ceil().min(7.0);
    let score = if allows { 1.0 - 0.5 * score } else { 0.5 + 0.5 * score };
    let confidence = Confidence::of([saturating(tally.flows.into(), 10.0), stability, score, threat, 0.9]);
    let verb = if allows { "refuses" } else { "lets through" };
    Some(Candidate {
        kind: Kind::Reorder,
        about: format!("{} before {}", rule.id, first.id),
        change: change(rule, first.priority - 1),
        confidence,
        reason: format!(
            "{} covers {} and comes before it, so that {} never acts; it {verb} {} that {} is for.",
            first.id,
            rule.id,
            rule.id,
            count(tally.flows.into(), "flow"),
            rule.id
        ),
        evidence: Evidence::of(tally),
    })
}

/// Rules that decide much, behind rules that decide little.
fn busy(scene: &Scene<'_>) -> Vec<Candidate> {
    let order = scene.judge.order();
    let ruled = scene.outcome.ruled.max(1) as f64;
    let flows = |rank: usize| f64::from(scene.usage[rank].tally.flows);
    let busy = (0..order.len()).filter(|rank| flows(*rank) / ruled >= BUSY);
    busy.filter_map(|rank| {
        let rule = order[rank];
        let own = Conditions::from(rule);
        let passes = |other: &Standing| {
            other.tier == rule.tier
                && (other.decision() == rule.decision() || !own.meets(&Conditions::from(other), scene.book))
        };
        let ahead = order[..rank].iter().rev().take_while(|other| passes(other)).count();
        let first = order[rank - ahead];
        let jumped: f64 = (rank - ahead..rank).map(flows).sum();
        if ahead < IN_FRONT || first.priority == 0 || jumped > flows(rank) {
            return None;
        }
        let tally = &scene.usage[rank].tally;
        let gain = ahead as f64 / order.len() as f64;
        let stability = f64::from(tally.day_count()) / scene.days().ceil().min(7.0);
        Some(Candidate {
            kind: Kind::Reorder,
            about: format!("{} to the front", rule.id),
            change: change(rule, first.priority - 1),
            confidence: Confidence::of([saturating(tally.flows.into(), 100.0), stability, 0.5, 1.0, 0.5 * gain]),
            reason: format!(
                "{} decides {:.0} % of what rules decide and stands behind {} that decide {:.0} %; no flow is decided otherwise.",
                rule.id, 100.0 * flows(rank) / ruled, count(ahead as u64, "rule"), 100.0 * jumped / ruled
            ),
            evidence: Evidence::of(tally),
        })
    })
    .collect()
}
