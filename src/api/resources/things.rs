//! What a policy is made of, by name: VMs, groups, relationships, learned policies, profiles, overrides.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

use super::common::{self, AT_ONCE, DRY_RUN, VIEW, WHY, how, told, told_of_body, view, view_of, who};
use crate::api::call::{Answer, Call, Parameter};
use crate::api::cursor::Cut;
use crate::api::endpoint::{Endpoint, Method};
use crate::api::problem::{Fault, Problem};
use crate::api::world::World;
use crate::policy::book::{Change, Group, Kind, Learned, Name, Noun, Override, Profile, Relationship, Vm};
use crate::policy::service::{Changed, How};

const TAG: Parameter = Parameter::text("tag", "Only VMs that carry this tag.");
const IF_MATCH: &str = "`ETag` of the thing as it was read, or `*`. Needed when it is there, so that nobody's change is \
    undone unseen.";

/// A kind of thing.
trait Resource: ToSchema + Serialize + DeserializeOwned {
    const KIND: Kind;
    const PATH: &'static str;
    /// For people: one, many.
    const WORDS: (&'static str, &'static str);
    const QUERY: &'static [&'static Parameter] = &[];

    fn into_noun(self) -> Noun;
}

macro_rules! resource {
    ($type:ident, $path:literal, $one:literal, $many:literal $(, $parameter:expr)?) => {
        impl Resource for $type {
            const KIND: Kind = Kind::$type;
            const PATH: &'static str = $path;
            const WORDS: (&'static str, &'static str) = ($one, $many);
            $(const QUERY: &'static [&'static Parameter] = &[$parameter];)?

            fn into_noun(self) -> Noun {
                Noun::$type(self)
            }
        }
    };
}

resource!(Vm, "/vms", "VM", "VMs", &TAG);
resource!(Group, "/groups", "group", "groups");
resource!(Relationship, "/relationships", "relationship", "relationships");
resource!(Learned, "/learned", "learned policy", "learned policies");
resource!(Profile, "/profiles", "profile", "profiles");
resource!(Override, "/overrides", "override", "overrides");

pub(super) fn endpoints() -> Vec<Endpoint> {
    [of::<Vm>(), of::<Group>(), of::<Relationship>(), of::<Learned>(), of::<Profile>(), of::<Override>()].concat()
}

fn of<T: Resource>() -> Vec<Endpoint> {
    let ((one, many), kind) = (T::WORDS, T::KIND.name());
    let path = format!("{}/{{name}}", T::PATH);
    let changes: &[&'static Parameter] = &[&DRY_RUN, &AT_ONCE, &WHY];
    vec![
        Endpoint::new(Method::Get, T::PATH, format!("list_{kind}"), list::<T>)
            .summary(many, format!("All {many}, in the order of their names"))
            .query(&[&VIEW])
            .query(T::QUERY)
            .pages::<T>(),
        Endpoint::new(Method::Post, T::PATH, format!("add_{kind}"), add::<T>)
            .summary(many, format!("Add a {one} that is not there yet"))
            .query(changes)
            .takes::<T>()
            .gives::<Changed>()
            .creates()
            .tagged()
            .also(&[403, 409]),
        Endpoint::new(Method::Get, &*path, format!("get_{kind}"), get::<T>)
            .summary(many, format!("One {one}"))
            .query(&[&VIEW])
            .gives::<T>()
            .tagged(),
        Endpoint::new(Method::Put, &*path, format!("put_{kind}"), put::<T>)
            .summary(many, format!("Put a {one} in the place of the one with its name, or add it"))
            .query(changes)
            .if_match(IF_MATCH)
            .takes::<T>()
            .gives::<Changed>()
            .creates()
            .tagged()
            .also(&[403, 409, 412, 428]),
        Endpoint::new(Method::Delete, &*path, format!("remove_{kind}"), remove::<T>)
            .summary(many, format!("Remove a {one} that nothing refers to"))
            .query(changes)
            .if_match(IF_MATCH)
            .gives::<Changed>()
            .also(&[403, 409, 412, 422, 428]),
    ]
}

fn list<T: Resource>(world: &World, call: &Call) -> Result<Answer, Problem> {
    let (cut, tag) = (Cut::of(call)?, call.text(&TAG));
    let wanted = |noun: &Noun| match (noun, tag) {
        (Noun::Vm(vm), Some(tag)) => vm.tags.contains(tag),
        _ => true,
    };
    let things = world.service.list(T::KIND, view(call), cut.after.as_deref(), cut.limit + 1, wanted);
    let page = cut.page(things, |thing| thing.name.name.to_string());
    let items: Vec<Value> = page.items.into_iter().map(|thing| thing.body).collect();
    Answer::json(&crate::api::cursor::Page { items, next: page.next })
}

fn get<T: Resource>(world: &World, call: &Call) -> Result<Answer, Problem> {
    let thing = world.service.get(T::KIND, call.part("name"), view(call)).map_err(told)?;
    Ok(Answer::json(&thing.body)?.tagged(&thing.etag))
}

fn add<T: Resource>(world: &World, call: &Call) -> Result<Answer, Problem> {
    let noun = read::<T>(call)?;
    let name = noun.name().to_owned();
    let how = How { if_absent: true, ..how(call)? };
    let answer = change(world, call, Change::Put(noun), &how)?;
    Ok(if how.dry_run { answer } else { answer.created(&common::place(T::PATH, &name)) })
}

fn put<T: Resource>(world: &World, call: &Call) -> Result<Answer, Problem> {
    let (noun, name) = (read::<T>(call)?, call.part("name"));
    if noun.name() != name {
        let detail =
            format!("the path says `{name}`, the body `{}`; a thing cannot be given another name", noun.name());
        let fault = Fault { pointer: String::new(), detail: detail.clone() };
        return Err(Problem::new(422, "invalid", detail).at(vec![fault]));
    }
    let how = matched::<T>(world, call, how(call)?)?;
    let is_new = how.if_absent;
    let answer = change(world, call, Change::Put(noun), &how)?;
    Ok(if is_new && !how.dry_run { answer.created(&common::place(T::PATH, name)) } else { answer })
}

fn remove<T: Resource>(world: &World, call: &Call) -> Result<Answer, Problem> {
    let name = call.part("name");
    let mut how = how(call)?;
    world.service.get(T::KIND, name, view_of(&how)).map_err(told)?;
    how = matched::<T>(world, call, how)?;
    let changed = world.service.change(&who(call), vec![Change::Remove(Name::new(T::KIND, name))], &how);
    Answer::json(&changed.map_err(told)?)
}

fn read<T: Resource>(call: &Call) -> Result<Noun, Problem> {
    let mut noun = call.read::<T>()?.into_noun();
    if let Noun::Relationship(it) = &mut noun {
        if it.id.is_empty() && !call.part("name").is_empty() {
            it.id = call.part("name").to_owned();
        }
        it.name_it();
    }
    Ok(noun)
}

/// What must be so of the thing in the path: as `If-Match` says, or not there.
fn matched<T: Resource>(world: &World, call: &Call, how: How) -> Result<How, Problem> {
    let there = world.service.get(T::KIND, call.part("name"), view_of(&how)).ok();
    match (&call.if_match, there) {
        (None, None) => Ok(How { if_absent: true, ..how }),
        (None, Some(_)) if how.dry_run => Ok(how),
        (None, Some(thing)) => {
            let detail = format!(
                "there is a {} `{}`: say which one is meant with `If-Match`, its `ETag`",
                T::KIND,
                thing.name.name
            );
            Err(Problem::new(428, "if_match_missing", detail))
        }
        (Some(given), there) => {
            let tags = common::tags(given)?;
            let current = there.and_then(|thing| tags.iter().find(|tag| **tag == thing.etag).copied());
            let tag = current.or(tags.first().copied()).unwrap_or_default();
            Ok(How { if_match: Some(tag.to_owned()), ..how })
        }
    }
}

fn change(world: &World, call: &Call, change: Change, how: &How) -> Result<Answer, Problem> {
    let name = change.name();
    let changed = world.service.change(&who(call), vec![change], how).map_err(told_of_body)?;
    let answer = Answer::json(&changed)?;
    if how.dry_run {
        return Ok(answer);
    }
    // Somebody else may have removed it since.
    let thing = world.service.get(name.kind, &name.name, view_of(how));
    thing.map_or_else(|_| Answer::json(&changed), |thing| Ok(answer.tagged(&thing.etag)))
}
