//! Rules that nothing uses.

use std::sync::Arc;

use super::Generator;
use super::reorder::covered;
use crate::policy::suggest::change::Change;
use crate::policy::suggest::judge::Rank;
use crate::policy::suggest::scene::Scene;
use crate::policy::suggest::standing::Standing;
use crate::policy::suggest::suggestion::{Candidate, Confidence, Evidence, Kind, saturating};
use crate::rules::{Decision, Tier};

#[derive(Debug)]
pub struct Retire;

const DAY: f64 = 86_400e9;

impl Generator for Retire {
    /// Only what allows: a rule that refuses is not useless because nobody dares. Exceptions that never act because of
    /// their place are another matter.
    fn propose(&self, scene: &Scene<'_>) -> Vec<Candidate> {
        let shadowed: Vec<Rank> = covered(scene).into_values().flatten().collect();
        let unused = (0..).zip(scene.judge.order()).filter(|(rank, rule)| {
            let one = scene.usage[*rank as usize];
            one.rows == 0
                && rule.decision() == Decision::Allow
                && rule.tier >= Tier::Policy
                && !shadowed.contains(&Rank(*rank))
        });
        unused.filter_map(|(_, rule)| candidate(scene, rule)).collect()
    }
}

fn candidate(scene: &Scene<'_>, rule: &Standing) -> Option<Candidate> {
    let end = f64::from(scene.span.1) * 1e9;
    let since = rule.last_hit.or(rule.since).map_or(f64::from(scene.span.0) * 1e9, |time| time as f64);
    let since = since.max(rule.since.unwrap_or(0) as f64);
    let idle = (end - since) / DAY;
    if idle < scene.settings.idle_days {
        return None;
    }
    // Ends that nobody knows are no loss; between ends that are busy, a rule would have been used.
    let busy = |ends: &[crate::policy::learning::Endpoint]| {
        scene
            .traffic
            .ends
            .iter()
            .any(|end| scene.judge.end_holds(ends, end) == crate::policy::suggest::judge::Holds::Yes)
    };
    let agreement = if busy(&rule.from) && busy(&rule.to) { 1.0 } else { 0.7 };
    let confidence = Confidence::of([saturating(idle, 1.0), (idle / 7.0).min(1.0).sqrt(), 1.0, 1.0, agreement]);
    let evidence = Evidence { days: idle as u32, first: since as u64, last: end as u64, ..Evidence::default() };
    let ever = if rule.hits == 0 { "never decided anything" } else { "has decided nothing" };
    Some(Candidate {
        kind: Kind::Retire,
        about: rule.id.to_string(),
        change: Change::Rules { remove: vec![Arc::clone(&rule.id)], priorities: Vec::new(), add: Vec::new() },
        confidence,
        reason: format!("{} {ever} in {idle:.1} days, in which {} flows were seen.", rule.id, scene.outcome.flows()),
        evidence,
    })
}
