//! What groups pick VMs by.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::{AT_ONCE, DRY_RUN, VIEW, WHY, how, told, told_of_body, view, view_of, who};
use crate::api::call::{Answer, Call};
use crate::api::cursor::Cut;
use crate::api::endpoint::{Endpoint, Method};
use crate::api::problem::Problem;
use crate::api::world::World;
use crate::policy::book::{Change, Kind, Noun};
use crate::policy::service::{Changed, View};

/// A tag.
#[derive(Debug, Serialize, ToSchema)]
struct Tag {
    tag: String,
    /// How many carry it.
    vms: usize,
}

/// VMs that carry a tag.
#[derive(Debug, Serialize, ToSchema)]
struct Carriers {
    tag: String,
    vms: Vec<String>,
}

/// Who is to carry a tag, and who no longer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Retag {
    /// VMs by id.
    #[serde(default)]
    #[schema(max_items = 10000)]
    add: BTreeSet<String>,
    #[serde(default)]
    #[schema(max_items = 10000)]
    remove: BTreeSet<String>,
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::Get, "/tags", "list_tag", list)
            .summary("tags", "All tags, and how many VMs carry each")
            .query(&[&VIEW])
            .pages::<Tag>(),
        Endpoint::new(Method::Get, "/tags/{name}", "get_tag", get)
            .summary("tags", "VMs that carry a tag")
            .query(&[&VIEW])
            .gives::<Carriers>(),
        Endpoint::new(Method::Post, "/tags/{name}", "retag", retag)
            .summary("tags", "Give a tag to VMs, or take it from them, all at once")
            .query(&[&DRY_RUN, &AT_ONCE, &WHY])
            .takes::<Retag>()
            .gives::<Changed>()
            .also(&[403, 409]),
    ]
}

fn list(world: &World, call: &Call) -> Result<Answer, Problem> {
    let tags: BTreeMap<String, usize> = world.service.tags(view(call));
    let tags = tags.into_iter().map(|(tag, vms)| Tag { tag, vms });
    Answer::json(&Cut::of(call)?.of_sorted(tags, |tag| tag.tag.clone()))
}

fn get(world: &World, call: &Call) -> Result<Answer, Problem> {
    let tag = call.part("name");
    let vms = carriers(world, tag, view(call));
    if vms.is_empty() {
        return Err(Problem::not_found(format!("no VM carries the tag `{tag}`")));
    }
    Answer::json(&Carriers { tag: tag.to_owned(), vms })
}

fn carriers(world: &World, tag: &str, view: View) -> Vec<String> {
    let carries = |noun: &Noun| matches!(noun, Noun::Vm(vm) if vm.tags.contains(tag));
    let things = world.service.list(Kind::Vm, view, None, usize::MAX, carries);
    things.into_iter().map(|thing| thing.name.name.to_string()).collect()
}

fn retag(world: &World, call: &Call) -> Result<Answer, Problem> {
    let (tag, wanted, how) = (call.part("name"), call.read::<Retag>()?, how(call)?);
    if wanted.add.is_empty() && wanted.remove.is_empty() {
        return Err(Problem::new(422, "invalid", "no VM is named in `add` or `remove`"));
    }
    if let Some(both) = wanted.add.intersection(&wanted.remove).next() {
        return Err(Problem::new(422, "invalid", format!("VM `{both}` is named in `add` and in `remove`")));
    }
    let mut changes = Vec::new();
    for (vms, adds) in [(&wanted.add, true), (&wanted.remove, false)] {
        for id in vms {
            let thing = world.service.get(Kind::Vm, id, view_of(&how)).map_err(told_of_body)?;
            let noun = Noun::read(Kind::Vm, thing.body).map_err(|error| {
                log::error!("VM {id} cannot be read: {error}");
                Problem::internal()
            })?;
            let Noun::Vm(mut vm) = noun else { continue };
            let changes_it = if adds { vm.tags.insert(tag.to_owned()) } else { vm.tags.remove(tag) };
            if changes_it {
                changes.push(Change::Put(Noun::Vm(vm)));
            }
        }
    }
    if changes.is_empty() {
        let detail = "nothing to change: who is to carry the tag does, and who is not does not";
        return Err(Problem::new(409, "conflict", detail));
    }
    Answer::json(&world.service.change(&who(call), changes, &how).map_err(told)?)
}
