//! The policy as a whole: what is in force, what waits, generations.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::{AT_ONCE, DRY_RUN, VIEW, WHY, how, told, told_of_body, view, who};
use crate::api::call::{Answer, Call, Parameter};
use crate::api::cursor::Cut;
use crate::api::endpoint::{Endpoint, Method};
use crate::api::problem::Problem;
use crate::api::world::World;
use crate::policy::book::{Conflict, Kind, Noun};
use crate::policy::service::{Changed, Commit, Committed, Difference, Generation, How, View, Waiting};

const FROM: Parameter = Parameter::number("from", 1, u32::MAX as u64, "With `to`: between two generations.");
const TO: Parameter = Parameter::number("to", 1, u32::MAX as u64, "With `from`: between two generations.");
/// An answer to nobody is taken back within a day at most.
const LONGEST_CONFIRM: u64 = 86_400;

/// Where the policy stands.
#[derive(Debug, Serialize, ToSchema)]
struct Standing {
    /// Number of the generation in force.
    generation: u32,
    /// Things in force, by kind.
    things: BTreeMap<String, usize>,
    /// Changes that wait for a commit.
    waiting: usize,
    /// Generation that each worker reports to have in force; empty where there are no workers.
    workers: Vec<u32>,
}

/// Whether the draft can be committed.
#[derive(Debug, Serialize, ToSchema)]
struct Validated {
    /// Changes that wait for a commit.
    waiting: usize,
    /// Quarrels that the order of rules decides.
    conflicts: Vec<Conflict>,
}

/// How the draft is put in force.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Order {
    /// For the audit log and the history.
    #[schema(max_length = 1024)]
    why: String,
    /// Seconds after which it goes back by itself, unless it is confirmed; left out: it stays.
    #[schema(minimum = 1, maximum = 86400)]
    confirm_within: Option<u64>,
}

/// Which generation is to be in force again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Back {
    #[schema(minimum = 1)]
    generation: u32,
    /// For the audit log and the history.
    #[serde(default)]
    #[schema(max_length = 1024)]
    why: String,
}

/// A whole policy.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Whole {
    /// Everything that the policy is to be made of, in any order; what is not here goes. Only learned policies stay, when
    /// there is none here.
    things: Vec<Noun>,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
struct Applied {
    /// Things that are different.
    changes: usize,
    #[serde(flatten)]
    changed: Changed,
}

/// What was confirmed, or discarded.
#[derive(Debug, Serialize, ToSchema)]
struct Confirmed {
    generation: u32,
}

/// What was given up.
#[derive(Debug, Serialize, ToSchema)]
struct Discarded {
    changes: usize,
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    [reading(), drafting(), committing()].concat()
}

fn reading() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::Get, "/policy", "get_policy", standing)
            .summary("policy", "Where the policy stands")
            .gives::<Standing>(),
        Endpoint::new(Method::Get, "/policy/history", "list_generation", history)
            .summary("policy", "Generations, the newest first: who, when, why")
            .pages::<Generation>(),
        Endpoint::new(Method::Get, "/policy/export", "export_policy", export)
            .summary("policy", "The whole policy as a TOML file")
            .query(&[&VIEW])
            .gives_other("application/toml"),
    ]
}

fn drafting() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::Get, "/policy/draft", "list_draft", draft)
            .summary("policy", "Changes that wait for a commit, in the order in which they came")
            .pages::<Waiting>(),
        Endpoint::new(Method::Delete, "/policy/draft", "discard_draft", discard)
            .summary("policy", "Give up all changes that wait")
            .gives::<Discarded>(),
        Endpoint::new(Method::Get, "/policy/diff", "diff_policy", difference)
            .summary(
                "policy",
                "What the draft changes of the policy in force, or what is different between generations",
            )
            .query(&[&FROM, &TO])
            .pages::<Difference>()
            .also(&[404]),
        Endpoint::new(Method::Post, "/policy/validate", "validate_policy", validate)
            .summary("policy", "Whether the draft could be committed: it is compiled aside")
            .gives::<Validated>()
            .also(&[409, 422]),
        Endpoint::new(Method::Post, "/policy/apply", "apply_policy", apply)
            .summary("policy", "Make the policy what is given, in the draft or at once")
            .about("What waits in the draft is given up. With `dry_run` it says what would be different.")
            .query(&[&DRY_RUN, &AT_ONCE, &WHY])
            .takes::<Whole>()
            .gives::<Applied>()
            .also(&[403, 409]),
    ]
}

fn committing() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::Post, "/policy/commit", "commit_policy", commit)
            .summary("policy", "Put the draft in force, as one generation")
            .takes::<Order>()
            .gives::<Committed>()
            .also(&[409]),
        Endpoint::new(Method::Post, "/policy/confirm", "confirm_policy", confirm)
            .summary("policy", "Keep a generation that would go back by itself")
            .gives::<Confirmed>()
            .also(&[409]),
        Endpoint::new(Method::Post, "/policy/rollback", "rollback_policy", rollback)
            .summary("policy", "Make the policy what it was in a generation, as a new one")
            .takes::<Back>()
            .gives::<Committed>()
            .also(&[404, 409]),
    ]
}

fn standing(world: &World, _: &Call) -> Result<Answer, Problem> {
    let things = world.service.counts().into_iter().map(|(kind, count)| (kind.name().to_owned(), count)).collect();
    let (generation, waiting) = (world.service.generation(), world.service.draft().len());
    Answer::json(&Standing { generation, things, waiting, workers: world.service.reports() })
}

fn history(world: &World, call: &Call) -> Result<Answer, Problem> {
    let cut = Cut::of(call)?;
    let before = cut.after_number()?.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let generations = world.service.history(before, cut.limit + 1).map_err(told)?;
    Answer::json(&cut.page(generations, |generation| generation.number.to_string()))
}

fn export(world: &World, call: &Call) -> Result<Answer, Problem> {
    Ok(Answer::of("application/toml", world.service.export(view(call)).map_err(told)?))
}

fn draft(world: &World, call: &Call) -> Result<Answer, Problem> {
    let cut = Cut::of(call)?;
    let after = cut.after_number()?.unwrap_or(0) as i64;
    let waiting = world.service.draft().into_iter().filter(|waiting| waiting.number > after);
    let page = cut.page(waiting.take(cut.limit + 1).collect(), |waiting| waiting.number.to_string());
    Answer::json(&page)
}

fn discard(world: &World, call: &Call) -> Result<Answer, Problem> {
    Answer::json(&Discarded { changes: world.service.discard(&who(call)).map_err(told)? })
}

fn difference(world: &World, call: &Call) -> Result<Answer, Problem> {
    let number = |parameter| call.number(parameter).map(|number| number as u32);
    let differences = match (number(&FROM), number(&TO)) {
        (None, None) => world.service.draft_difference(),
        (Some(from), Some(to)) => world.service.difference(from, to).map_err(told)?,
        _ => return Err(Problem::bad_request("`from` and `to` go together")),
    };
    let mut keyed: Vec<(String, Difference)> =
        differences.into_iter().map(|it| (format!("{} {}", it.kind as u8, it.name), it)).collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    let page = Cut::of(call)?.of_sorted(keyed.into_iter(), |(key, _)| key.clone());
    let items: Vec<Difference> = page.items.into_iter().map(|(_, it)| it).collect();
    Answer::json(&crate::api::cursor::Page { items, next: page.next })
}

fn validate(world: &World, _: &Call) -> Result<Answer, Problem> {
    let conflicts = world.service.validate().map_err(told_of_body)?;
    Answer::json(&Validated { waiting: world.service.draft().len(), conflicts })
}

fn apply(world: &World, call: &Call) -> Result<Answer, Problem> {
    let (Whole { mut things }, mut how) = (call.read::<Whole>()?, how(call)?);
    for thing in &mut things {
        if let Noun::Relationship(it) = thing {
            it.name_it();
        }
    }
    if !things.iter().any(|thing| thing.kind() == Kind::Learned) {
        let learned = world.service.list(Kind::Learned, View::Running, None, usize::MAX, |_| true);
        things.extend(learned.into_iter().filter_map(|thing| Noun::read(Kind::Learned, thing.body).ok()));
    }
    let changes = world.service.changes_to(&things);
    let count = changes.len();
    if how.dry_run {
        // Held against what is in force, not against what waits.
        how.commit = true;
    } else if !how.commit && !changes.is_empty() {
        // Before anybody's draft goes, whether this one can be.
        let trial = How { dry_run: true, commit: true, ..How::default() };
        world.service.change(&who(call), changes.clone(), &trial).map_err(told_of_body)?;
        world.service.discard(&who(call)).map_err(told)?;
    }
    if changes.is_empty() {
        let changed = Changed { into: "nothing".to_owned(), generation: None, conflicts: Vec::new() };
        return Answer::json(&Applied { changes: 0, changed });
    }
    let changed = world.service.change(&who(call), changes, &how).map_err(told_of_body)?;
    Answer::json(&Applied { changes: count, changed })
}

fn commit(world: &World, call: &Call) -> Result<Answer, Problem> {
    let Order { why, confirm_within } = call.read()?;
    let confirm = confirm_within.map(|seconds| Duration::from_secs(seconds.min(LONGEST_CONFIRM)));
    let commit = Commit::new(&why, confirm);
    Answer::json(&world.service.commit(&who(call), commit).map_err(told_of_body)?)
}

fn confirm(world: &World, call: &Call) -> Result<Answer, Problem> {
    Answer::json(&Confirmed { generation: world.service.confirm(&who(call)).map_err(told)? })
}

fn rollback(world: &World, call: &Call) -> Result<Answer, Problem> {
    let Back { generation, why } = call.read()?;
    Answer::json(&world.service.rollback(&who(call), generation, &why).map_err(told)?)
}
