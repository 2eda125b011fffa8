//! Proposed changes, and answers to them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::{told, told_of_body, who};
use crate::api::call::{Answer, Call, Parameter};
use crate::api::cursor::Cut;
use crate::api::endpoint::{Endpoint, Method};
use crate::api::problem::Problem;
use crate::api::world::World;
use crate::policy::service::{Account, Proposal, Standing};

const STATE: Parameter =
    Parameter::words("state", &["open", "accepted", "rejected", "returned"], "Only suggestions in this state.");
/// A day.
const LONGEST_CONFIRM: u64 = 86_400;

/// A person's answer.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Said {
    accept: bool,
    /// For the audit log, and for what is proposed next.
    #[serde(default)]
    reason: String,
    /// An accepted one goes back by itself after so many seconds, unless the generation is confirmed.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 86400)]
    confirm_within: Option<u64>,
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::Get, "/suggestions", "list_suggestion", list)
            .summary("suggestions", "Proposed changes of the policy, the best first")
            .query(&[&STATE])
            .pages::<Proposal>(),
        Endpoint::new(Method::Get, "/suggestions/{name}", "get_suggestion", get)
            .summary("suggestions", "One suggestion with its evidence, by its id")
            .gives::<Proposal>(),
        Endpoint::new(Method::Post, "/suggestions/{name}/answer", "answer_suggestion", answer)
            .summary("suggestions", "Accept or reject a suggestion")
            .about("An accepted one is in force at once, as a generation of its own. A rejected one does not come again without new evidence.")
            .takes::<Said>()
            .gives::<Proposal>()
            .also(&[409]),
        Endpoint::new(Method::Get, "/feedback", "get_feedback", feedback)
            .summary("suggestions", "How good suggestions were: trust of each generator, confidence against acceptance")
            .gives::<Account>(),
    ]
}

fn list(world: &World, call: &Call) -> Result<Answer, Problem> {
    let cut = Cut::of(call)?;
    let state = match call.text(&STATE) {
        Some("accepted") => Standing::Accepted,
        Some("rejected") => Standing::Rejected,
        Some("returned") => Standing::Returned,
        _ => Standing::Open,
    };
    let all = world.service.suggestions(state, usize::MAX).map_err(told)?;
    // They are in the order of their worth, not of their ids.
    let from = cut.after.as_ref().map_or(0, |after| all.iter().position(|one| one.id == *after).map_or(0, |at| at + 1));
    let found: Vec<Proposal> = all.into_iter().skip(from).take(cut.limit + 1).collect();
    Answer::json(&cut.page(found, |one| one.id.clone()))
}

fn get(world: &World, call: &Call) -> Result<Answer, Problem> {
    Answer::json(&world.service.suggestion(call.part("name")).map_err(told)?)
}

fn answer(world: &World, call: &Call) -> Result<Answer, Problem> {
    let Said { accept, reason, confirm_within } = call.read()?;
    let (who, id) = (who(call), call.part("name"));
    let confirm = confirm_within.map(|seconds| Duration::from_secs(seconds.min(LONGEST_CONFIRM)));
    let answered = match accept {
        true => world.service.accept(&who, id, &reason, confirm),
        false => world.service.reject(&who, id, &reason),
    };
    Answer::json(&answered.map_err(told_of_body)?)
}

fn feedback(world: &World, _: &Call) -> Result<Answer, Problem> {
    Answer::json(&world.service.account())
}
