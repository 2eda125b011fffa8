//! Connections that wait for an answer.

use serde::Serialize;
use utoipa::ToSchema;

use super::common::{told, told_of_body, who};
use crate::api::call::{Answer, Call, Parameter};
use crate::api::cursor::Cut;
use crate::api::endpoint::{Endpoint, Method};
use crate::api::problem::Problem;
use crate::api::world::World;
use crate::policy::service::{Answer as Said, Committed, InboxItem, InboxState};

const STATE: Parameter = Parameter::words(
    "state",
    &["pending", "approved", "denied", "expired", "merged", "all"],
    "Only items in this state.",
);

/// What came of an answer.
#[derive(Debug, Serialize, ToSchema)]
struct Answered {
    /// The generation that has it. Left out: nothing had to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    committed: Option<Committed>,
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::Get, "/inbox", "list_inbox", list)
            .summary("inbox", "Connections that the consolidated policies do not know")
            .query(&[&STATE])
            .pages::<InboxItem>(),
        Endpoint::new(Method::Get, "/inbox/{name}", "get_inbox", get)
            .summary("inbox", "One connection with its evidence, by its id")
            .gives::<InboxItem>(),
        Endpoint::new(Method::Post, "/inbox/answers", "answer_inbox", answer)
            .summary("inbox", "Approve or deny connections, all as one generation")
            .about(
                "The consolidated policies of their groups have the answer then, and with them every VM that they \
                 are mirrored to.",
            )
            .takes::<Said>()
            .gives::<Answered>()
            .also(&[404, 409]),
    ]
}

fn list(world: &World, call: &Call) -> Result<Answer, Problem> {
    let cut = Cut::of(call)?;
    let state = match call.text(&STATE) {
        None | Some("pending") => Some(InboxState::Pending),
        Some("approved") => Some(InboxState::Approved),
        Some("denied") => Some(InboxState::Denied),
        Some("expired") => Some(InboxState::Expired),
        Some("merged") => Some(InboxState::Merged),
        Some(_) => None,
    };
    let items = world.service.inbox(state, cut.after.as_deref(), cut.limit + 1);
    Answer::json(&cut.page(items, |item| item.id.clone()))
}

fn get(world: &World, call: &Call) -> Result<Answer, Problem> {
    Answer::json(&world.service.inbox_item(call.part("name")).map_err(told)?)
}

fn answer(world: &World, call: &Call) -> Result<Answer, Problem> {
    let committed = world.service.answer(&who(call), &call.read::<Said>()?).map_err(told_of_body)?;
    Answer::json(&Answered { committed })
}
