//! What a profile gives to its target.

use serde::Serialize;
use utoipa::ToSchema;

use super::common::{VIEW, told, view};
use crate::api::call::{Answer, Call, Parameter};
use crate::api::endpoint::{Endpoint, Method};
use crate::api::problem::Problem;
use crate::api::world::World;
use crate::policy::learning::{Mirrored, Plan};

const STRENGTH: Parameter = Parameter::number("strength", 0, 100, "As if the profile had this strength, in percent.");

/// What a profile comes to.
#[derive(Debug, Serialize, ToSchema)]
struct Preview {
    source: String,
    target: String,
    /// Percent.
    strength: f64,
    seed: u64,
    /// Connections that the target gets.
    kept: Vec<Copied>,
    /// Connections of the source that it does not get.
    left: Vec<Copied>,
}

/// A connection of the source, as the target would have it.
#[derive(Debug, Serialize, ToSchema)]
struct Copied {
    connection: String,
    /// The source's.
    of: String,
    /// It is kept from this strength on, in percent.
    from_strength: f64,
    /// Kept at any strength: nothing works without it.
    protected: bool,
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::Get, "/profiles/{name}/preview", "preview_profile", preview)
            .summary("profiles", "Which connections of its source a profile gives to its target")
            .query(&[&VIEW, &STRENGTH])
            .gives::<Preview>(),
    ]
}

fn preview(world: &World, call: &Call) -> Result<Answer, Problem> {
    let plan = world.service.preview(call.part("name"), view(call)).map_err(told)?;
    let Plan { source, target, strength, seed, kept, left } = plan;
    let strength = call.number(&STRENGTH).map_or(strength, |percent| percent as f64 / 100.0);
    let (kept, left): (Vec<_>, Vec<_>) =
        kept.into_iter().chain(left).partition(|one| one.protected || one.from_strength < strength);
    let copied = |list: Vec<Mirrored>| -> Vec<Copied> { list.iter().map(copied).collect() };
    let (kept, left) = (copied(kept), copied(left));
    Answer::json(&Preview { source, target, strength: strength * 100.0, seed, kept, left })
}

fn copied(one: &Mirrored) -> Copied {
    Copied {
        connection: one.connection.to_string(),
        of: one.of.to_string(),
        from_strength: one.from_strength * 100.0,
        protected: one.protected,
    }
}
