//! Refuse what is let through and an attack.

use rustc_hash::FxHashMap;

use super::{Generator, about, count};
use crate::policy::learning::Endpoint;
use crate::policy::suggest::change::{Change, Draft, fingerprint};
use crate::policy::suggest::judge::Rank;
use crate::policy::suggest::scene::Scene;
use crate::policy::suggest::suggestion::{Candidate, Confidence, Evidence, Kind, saturating};
use crate::policy::suggest::tally::Tally;
use crate::policy::suggest::traffic::{EndIx, Talk};
use crate::rules::{Action, Decision, Tier};

#[derive(Debug)]
pub struct Deny;

/// Least share of flows that detectors named.
const LEAST: f64 = 0.8;
/// Where nothing else says it: behind what people wrote.
const PRIORITY: u32 = 50_000;

impl Generator for Deny {
    fn propose(&self, scene: &Scene<'_>) -> Vec<Candidate> {
        let mut by_actor: FxHashMap<(EndIx, EndIx, Talk), (Tally, Rank)> = FxHashMap::default();
        let mut usual: FxHashMap<(EndIx, EndIx, Talk), u32> = FxHashMap::default();
        for (row, rank) in scene.rows().filter(|(_, rank)| scene.judge.decision(*rank) == Decision::Allow) {
            let (from, to) = (scene.end(row.key.from), scene.plain(row.key.to));
            if from.is_single() {
                let (tally, first) =
                    by_actor.entry((row.key.from, to, row.key.talk)).or_insert((Tally::default(), rank));
                tally.merge(&row.tally);
                *first = (*first).min(rank);
            } else {
                *usual.entry((row.key.from, to, row.key.talk)).or_default() += row.tally.flows;
            }
        }
        let enough = |tally: &Tally| tally.attack >= scene.settings.min_attack && tally.attack_share() >= LEAST;
        let mut all: Vec<_> = by_actor.into_iter().filter(|(_, (tally, _))| enough(tally)).collect();
        all.sort_by_key(|(key, _)| *key);
        all.into_iter()
            .filter_map(|((from, to, talk), (tally, rank))| {
                let usual = usual.get(&(scene.plain(from), to, talk)).copied().unwrap_or(0);
                candidate(scene, (from, to, talk), &tally, rank, usual)
            })
            .collect()
    }
}

/// `usual`: flows of the actor's group that nobody named, to the same servers about the same.
fn candidate(
    scene: &Scene<'_>,
    (from, to, talk): (EndIx, EndIx, Talk),
    tally: &Tally,
    rank: Rank,
    usual: u32,
) -> Option<Candidate> {
    let (actor, target) = (scene.endpoint(from)?, scene.endpoint(to)?);
    if usual > 0 && talk.service().is_protected() {
        // Without names and time nothing else works.
        return None;
    }
    let attack = f64::from(tally.attack);
    // What the group does all the time is the actor's work, too.
    let agreement = saturating(attack, 0.2 * f64::from(usual) / f64::from(scene.active(scene.plain(from)).max(1)));
    let score = tally.mean_score().map_or(0.5, |score| score.max(0.5));
    let confidence =
        Confidence::of([saturating(attack, 3.0), saturating(attack, 8.0), score, tally.attack_share(), agreement]);
    let about = about(&actor.text(), &target.text(), talk.service());
    let rule = scene.judge.rule(rank);
    let by = rule.map_or("the default".to_owned(), |rule| rule.id.to_string());
    let groups = scene.end(from).groups.join(" ");
    let who = if groups.is_empty() { actor.text() } else { format!("{} of {groups}", actor.text()) };
    let reason = format!(
        "Detectors named {} of {} from {who} to {} {}, which {by} lets through.",
        tally.attack,
        count(tally.flows.into(), "flow"),
        target.text(),
        talk.service()
    );
    let draft = Draft {
        id: format!("suggested-{:012x}", fingerprint(&format!("deny {about}")) >> 16),
        from: vec![actor],
        to: if target == Endpoint::Any { Vec::new() } else { vec![target] },
        protocol: Some(talk.protocol()),
        ports: talk.port().map(|port| (port, port)).into_iter().collect(),
        icmp_type: talk.icmp_type(),
        action: Action::Deny,
        // Of equals, deny goes before allow.
        priority: rule.map_or(PRIORITY, |rule| rule.priority),
        tier: rule.map_or(Tier::Policy, |rule| rule.tier),
        expires: None,
        comment: format!("detectors named {} of {}", tally.attack, count(tally.flows.into(), "flow")),
    };
    Some(Candidate {
        kind: Kind::Deny,
        about,
        change: Change::add(draft),
        confidence,
        reason,
        evidence: Evidence::of(tally),
    })
}
