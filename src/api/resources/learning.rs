//! Learning mode of groups.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::common::{told, who};
use crate::api::call::{Answer, Call};
use crate::api::cursor::Cut;
use crate::api::endpoint::{Endpoint, Method};
use crate::api::problem::Problem;
use crate::api::world::World;
use crate::policy::book::Learning;
use crate::policy::service::{Committed, Lesson};

/// How learning ends.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Stop {
    /// What was learnt is the group's policy from now on; all else is denied, or waits in the inbox.
    enforce: bool,
}

/// What a group has learnt: connections with their evidence.
#[derive(Debug, ToSchema)]
#[schema(value_type = Object)]
struct LearnedGraph(#[allow(dead_code)] Value);

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::Get, "/learning", "list_learning", list)
            .summary("learning", "Groups that learn or have a consolidated policy")
            .pages::<Lesson>(),
        Endpoint::new(Method::Get, "/learning/{name}/graph", "get_graph", graph)
            .summary("learning", "What a group has learnt so far, as a graph")
            .gives::<LearnedGraph>()
            .also(&[409]),
        Endpoint::new(Method::Post, "/learning/{name}/start", "start_learning", start)
            .summary("learning", "Begin to learn what the VMs of a group talk to, or go on with other settings")
            .about("What is enforced for the group stays. In force at once, as a generation.")
            .takes::<Learning>()
            .gives::<Committed>()
            .also(&[409]),
        Endpoint::new(Method::Post, "/learning/{name}/stop", "stop_learning", stop)
            .summary("learning", "End learning, with or without making what was learnt the policy")
            .about("In force at once, as a generation.")
            .takes::<Stop>()
            .gives::<Committed>()
            .also(&[409]),
    ]
}

fn list(world: &World, call: &Call) -> Result<Answer, Problem> {
    let lessons = world.service.lessons().into_iter();
    Answer::json(&Cut::of(call)?.of_sorted(lessons, |lesson| lesson.group.clone()))
}

fn graph(world: &World, call: &Call) -> Result<Answer, Problem> {
    Answer::json(&world.service.graph(call.part("name")).map_err(told)?)
}

fn start(world: &World, call: &Call) -> Result<Answer, Problem> {
    let settings = call.read::<Learning>()?;
    Answer::json(&world.service.learn(&who(call), call.part("name"), settings).map_err(told)?)
}

fn stop(world: &World, call: &Call) -> Result<Answer, Problem> {
    let Stop { enforce } = call.read()?;
    Answer::json(&world.service.finish(&who(call), call.part("name"), enforce).map_err(told)?)
}
