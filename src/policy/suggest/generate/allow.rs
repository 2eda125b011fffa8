//! Let through what is refused and harmless.

use super::Generator;
use super::refused::refused;
use crate::policy::suggest::scene::Scene;
use crate::policy::suggest::suggestion::{Candidate, Confidence, Evidence, Kind};

#[derive(Debug)]
pub struct Allow;

/// Least share of the VMs of both sides that take part, as a geometric mean: one VM that tries things is no habit.
const LEAST: f64 = 0.4;

impl Generator for Allow {
    fn propose(&self, scene: &Scene<'_>) -> Vec<Candidate> {
        let lasting = refused(scene).into_iter().filter(|one| !one.is_burst(scene));
        let all = lasting.filter_map(|one| {
            let stability = (f64::from(one.tally.day_count()) / scene.days().ceil().min(7.0)).min(1.0);
            let confidence = Confidence::of(one.confidence(stability));
            if confidence.agreement < LEAST || confidence.threat < 0.5 {
                return None;
            }
            let others = if one.attack == 0 { "no detector named any of them" } else { "detectors named few like them" };
            Some(Candidate {
                kind: Kind::Allow,
                about: one.about(),
                change: one.draft(None, format!("{} were refused", one.summary())),
                confidence,
                reason: format!(
                    "{} from {} to {} {} were refused though no person's rule says so, {:.0} % of the group's clients do it, and {others}.",
                    one.summary(), one.from.text(), one.to.text(), one.talk.service(), 100.0 * one.clients
                ),
                evidence: Evidence::of(&one.tally),
            })
        });
        all.collect()
    }
}
