//! What proposes: one generator for each kind.

mod allow;
mod deny;
mod membership;
mod narrow;
mod path;
mod refused;
mod reorder;
mod retire;
mod temporary;

use super::scene::Scene;
use super::suggestion::Candidate;

/// Looks at a scene and proposes changes, all of one kind.
pub trait Generator: Sync {
    fn propose(&self, scene: &Scene<'_>) -> Vec<Candidate>;
}

pub static ALL: [&dyn Generator; 8] = [
    &allow::Allow,
    &deny::Deny,
    &reorder::Reordering,
    &narrow::Narrow,
    &retire::Retire,
    &temporary::Temporary,
    &membership::Membership,
    &path::Path,
];

/// The best of each kind, in the order of the kinds.
pub fn candidates(scene: &Scene<'_>) -> Vec<Candidate> {
    let parts = super::scene::in_parallel(ALL.len(), scene.settings.threads, |range| {
        let best = |generator: &&dyn Generator| {
            let mut found = generator.propose(scene);
            found.sort_by(|a, b| b.confidence.fused.total_cmp(&a.confidence.fused).then(a.about.cmp(&b.about)));
            found.truncate(scene.settings.per_kind);
            found
        };
        ALL[range].iter().flat_map(best).collect::<Vec<_>>()
    });
    parts.into_iter().flatten().collect()
}

/// What stands for a part of the traffic, as the text that answers are remembered by.
fn about(from: &str, to: &str, service: impl std::fmt::Display) -> String {
    format!("{from} > {to} {service}")
}

/// "1 day", "3 days".
fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
