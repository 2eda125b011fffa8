//! Let through for a while what came in a burst and was refused.

use super::Generator;
use super::refused::refused;
use crate::policy::suggest::scene::Scene;
use crate::policy::suggest::suggestion::{Candidate, Confidence, Evidence, Kind};

#[derive(Debug)]
pub struct Temporary;

/// The exception is as long as the burst and this, in nanoseconds.
const MARGIN: u64 = 6 * 3_600_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// A burst has flows enough, of several.
const FEWEST: u32 = 20;

impl Generator for Temporary {
    fn propose(&self, scene: &Scene<'_>) -> Vec<Candidate> {
        let bursts = refused(scene)
            .into_iter()
            .filter(|one| one.is_burst(scene) && one.tally.flows >= FEWEST && one.attack == 0);
        let all = bursts.filter_map(|one| {
            let took = u64::from(one.tally.last - one.tally.first) * SECOND;
            // A burst is steady when it is short.
            let stability = 1.0 - took as f64 / (48.0 * 3600.0 * SECOND as f64);
            let confidence = Confidence::of(one.confidence(stability));
            if confidence.agreement < 0.3 {
                return None;
            }
            let hours = (took / SECOND).div_ceil(3600);
            let expires = scene.settings.now.max(u64::from(scene.span.1) * SECOND) + took + MARGIN;
            Some(Candidate {
                kind: Kind::Temporary,
                about: one.about(),
                change: one.draft(Some(expires), format!("{} were refused within {hours} h", one.summary())),
                confidence,
                reason: format!(
                    "{} from {} to {} {} were refused within {hours} h and none since: work of a day, not of every day.",
                    one.summary(), one.from.text(), one.to.text(), one.talk.service()
                ),
                evidence: Evidence::of(&one.tally),
            })
        });
        all.collect()
    }
}
