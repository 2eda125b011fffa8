//! Recorded traffic and the rules that stand → proposed changes, with what speaks for them; answers → better proposals.
//!
//! In: [`Traffic`], rows of who talked to whom about what and which rule decided, made of
//! [`Seen`](crate::policy::learning::Seen) flows one by one or merged of parts; a [`Rulebook`] of the rules that stand.
//! Out: [`Suggestion`]s, the best first. A person's answers go into [`Feedback`], which ranks the next ones and asks
//! nothing again without new evidence. Pure: no clock, file or random number; the threads that [`suggest`] works with end
//! with it. Rows beyond a limit are counted and not kept.
//!
//! ```text
//! flows ─► traffic ─┬► scene: judged by the rules that stand ─► generators ─► candidates ─► what if ─► ranked, top N
//! rules ─► rulebook ┘                                                                                    ▲     │
//!                                            feedback: memory, bandit, calibration, trust ───────────────┘◄── answers
//! ```

mod automatic;
mod bandit;
mod calibration;
mod change;
mod feedback;
mod generate;
mod judge;
mod membership;
mod memory;
mod relate;
mod scene;
mod settings;
mod standing;
mod suggestion;
mod tally;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod traffic;
mod vms;
mod whatif;

pub use automatic::{Automatic, Confirmation, Since};
pub use bandit::{Bandit, Context, Surroundings};
pub use calibration::{Bin, Calibration, CalibrationReport, report};
pub use change::{Change, Draft, Reorder};
pub use feedback::{Aftermath, Answer, Feedback, TrustOf};
pub use memory::{Decided, Memory};
pub use scene::Outcome;
pub use settings::Settings;
pub use standing::{Members, Rulebook, Standing};
pub use suggestion::{Confidence, Conflict, Coverage, Evidence, Kind, Suggestion, WhatIf};
pub use tally::Tally;
pub use traffic::{End, EndIx, Key, Limit, Row, RuleIx, Talk, Traffic};

use crate::policy::learning::Endpoint;
use scene::Scene;
use suggestion::Candidate;

/// Conflicts that are listed of one suggestion.
const MOST_CONFLICTS: usize = 8;
/// How much a generator's trust moves its suggestions.
const TRUST: f64 = 0.2;

/// The best suggestions, at most [`Settings::top`].
pub fn suggest(traffic: &Traffic, book: &Rulebook, settings: &Settings, feedback: &Feedback) -> Vec<Suggestion> {
    let scene = Scene::new(traffic, book, settings);
    let mut candidates = generate::candidates(&scene);
    candidates.retain(|candidate| feedback.memory.is_news(candidate));
    let what_ifs = whatif::what_if(&scene, &candidates);
    let both = candidates.into_iter().zip(what_ifs).filter(|(candidate, what_if)| is_worth_it(candidate, what_if));
    let mut all: Vec<Suggestion> = both.map(|(one, what_if)| finish(&scene, one, what_if, feedback)).collect();
    all.sort_by(|a, b| b.rank.total_cmp(&a.rank).then_with(|| a.id.cmp(&b.id)));
    all.dedup_by(|a, b| a.id == b.id);
    all.truncate(settings.top);
    all
}

/// Whether a change does what it is meant to do, and nothing that it is not.
fn is_worth_it(candidate: &Candidate, what_if: &WhatIf) -> bool {
    match candidate.kind {
        Kind::Allow | Kind::Temporary => what_if.allowed > 0,
        Kind::Deny => what_if.refused > 0,
        Kind::Retire => what_if.allowed + what_if.refused == 0,
        Kind::Narrow => what_if.allowed == 0,
        Kind::Reorder | Kind::Move | Kind::Path => true,
    }
}

fn finish(scene: &Scene<'_>, candidate: Candidate, what_if: WhatIf, feedback: &Feedback) -> Suggestion {
    let id = candidate.id();
    let share = |outcome: &Outcome| outcome.ruled as f64 / outcome.flows().max(1) as f64;
    let conflicts = conflicts(scene, &candidate);
    let Candidate { kind, about, change, mut confidence, reason, evidence } = candidate;
    let context = Context::new(kind, &confidence, &evidence, &surroundings(scene.book, &change));
    let expected = feedback.bandit.expected(&context);
    confidence.calibrated = feedback.calibration.probability(expected);
    let rank = feedback.bandit.rank(&context) + TRUST * (feedback.trust(kind) - 0.5);
    let coverage = Coverage { before: share(&what_if.before), after: share(&what_if.after) };
    Suggestion { id, kind, about, change, confidence, reason, evidence, coverage, what_if, conflicts, rank }
}

/// The context of a suggestion, for [`Feedback::answer`].
pub fn context(book: &Rulebook, suggestion: &Suggestion) -> Context {
    let around = surroundings(book, &suggestion.change);
    Context::new(suggestion.kind, &suggestion.confidence, &suggestion.evidence, &around)
}

fn conflicts(scene: &Scene<'_>, candidate: &Candidate) -> Vec<Conflict> {
    let gone: Vec<&str> = candidate.change.touched().collect();
    let mut found = Vec::new();
    for draft in candidate.change.added() {
        for rule in relate::contradictions(draft, scene.judge.order(), scene.book, MOST_CONFLICTS) {
            let what = match rule.order() < draft.order() {
                true => format!("comes first and decides a part of `{}` otherwise", draft.text()),
                false => format!("comes later; `{}` takes a part of it", draft.text()),
            };
            if !gone.contains(&&*rule.id) && found.len() < MOST_CONFLICTS {
                found.push(Conflict { rule: rule.id.to_string(), what });
            }
        }
    }
    found
}

fn surroundings(book: &Rulebook, change: &Change) -> Surroundings {
    let touched: Vec<Draft> =
        change.touched().take(1).filter_map(|id| book.rule(id)).map(|rule| Draft::moved(rule, rule.priority)).collect();
    match (change, change.added().first().or(touched.first())) {
        (Change::Move { to, .. }, _) => Surroundings { target: to.to_string(), ..Surroundings::default() },
        (_, Some(draft)) => {
            let outside =
                |ends: &[Endpoint]| ends.is_empty() || ends.iter().any(|end| !matches!(end, Endpoint::Group(_)));
            Surroundings {
                is_outside: outside(&draft.from) || outside(&draft.to),
                port: draft.ports.first().map(|(first, _)| *first),
                target: draft
                    .to
                    .iter()
                    .find(|end| matches!(end, Endpoint::Group(_)))
                    .map_or(String::new(), Endpoint::text),
            }
        }
        _ => Surroundings::default(),
    }
}
