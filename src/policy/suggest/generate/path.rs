//! What takes most of the bandwidth: advice, for rules cannot move it.

use rustc_hash::FxHashMap;

use super::{Generator, about};
use crate::policy::suggest::change::Change;
use crate::policy::suggest::scene::Scene;
use crate::policy::suggest::suggestion::{Candidate, Confidence, Evidence, Kind, saturating};
use crate::policy::suggest::tally::Tally;
use crate::policy::suggest::traffic::{EndIx, Talk};
use crate::rules::Decision;

#[derive(Debug)]
pub struct Path;

/// Least share of all bytes.
const SHARE: f64 = 0.25;
/// Work that keeps to so few hours of the day could be at others.
const FEW_HOURS: u32 = 8;

impl Generator for Path {
    fn propose(&self, scene: &Scene<'_>) -> Vec<Candidate> {
        let mut all: FxHashMap<(EndIx, EndIx, Talk), Tally> = FxHashMap::default();
        let allowed = scene.rows().filter(|(_, rank)| scene.judge.decision(*rank) == Decision::Allow);
        // Nothing else can come near the share.
        let least = (SHARE * scene.bytes as f64 / 1000.0) as u64;
        for (row, _) in allowed.filter(|(row, _)| row.tally.bytes >= least && row.tally.attack == 0) {
            all.entry((row.key.from, row.key.to, row.key.talk)).or_default().merge(&row.tally);
        }
        let mut heavy: Vec<_> = all.into_iter().filter(|(_, tally)| share(scene, tally) >= SHARE).collect();
        heavy.sort_by_key(|(key, _)| *key);
        heavy.into_iter().filter_map(|(key, tally)| candidate(scene, key, &tally)).collect()
    }
}

fn share(scene: &Scene<'_>, tally: &Tally) -> f64 {
    tally.bytes as f64 / scene.bytes.max(1) as f64
}

fn candidate(scene: &Scene<'_>, (from, to, talk): (EndIx, EndIx, Talk), tally: &Tally) -> Option<Candidate> {
    let [from, to] = [from, to].map(|end| scene.endpoint(end));
    let about = about(&from?.text(), &to?.text(), talk.service());
    let stability = f64::from(tally.day_count()) / scene.days().ceil().min(7.0);
    let share = share(scene, tally);
    let text = match tally.hour_count() <= FEW_HOURS {
        true => format!("{about}: do it in hours in which little else passes, or on a path of its own"),
        false => format!("{about}: give it a path of its own, and leave its flows out of mirrors"),
    };
    Some(Candidate {
        kind: Kind::Path,
        change: Change::Advice { text },
        confidence: Confidence::of([saturating(tally.flows.into(), 20.0), stability, 0.7, 1.0, 0.5 * (1.0 + share)]),
        reason: format!(
            "{about} takes {:.0} % of all bytes ({:.0} MB), in {} hours of the day.",
            100.0 * share,
            tally.bytes as f64 / 1e6,
            tally.hour_count()
        ),
        evidence: Evidence::of(tally),
        about,
    })
}
