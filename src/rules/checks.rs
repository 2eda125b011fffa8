//! What a policy must be to compile, and what is said of one that is not.

use std::collections::HashSet;

use super::rule::{GroupIx, MAX_MIRRORS, Match, Policy, Selector};
use crate::trie::{BuildError, address};

/// Rules that are named when a policy takes too much.
const NAMED: usize = 5;

/// Why a policy does not compile. The generation in force stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error(
        "{fresh} new rule ids on top of {known} known ones exceed the limit of {limit} distinct rule ids in the life \
         of the process; raise `limits.rules` and restart, or keep ids when rules change"
    )]
    TooManyRules { known: usize, fresh: usize, limit: usize },
    #[error(
        "{fresh} new sets of groups on top of {known} known ones exceed the limit of {limit}; let fewer groups \
         overlap, or restart to forget the groups of earlier generations"
    )]
    TooManyGroupSets { known: usize, fresh: usize, limit: usize },
    #[error("{count} mirror sessions, at most {MAX_MIRRORS} are possible")]
    TooManyMirrors { count: usize },
    #[error("{count} groups, at most 65536 are possible")]
    TooManyGroups { count: usize },
    #[error("two rules have the id `{id}`; an id names one rule for life")]
    DuplicateRule { id: String },
    #[error("two groups have the name `{name}`")]
    DuplicateGroup { name: String },
    #[error("{place} refers to group number {group}, but there are {count} groups")]
    UnknownGroup { place: String, group: u16, count: usize },
    #[error("there is no rule `{id}` to remove")]
    UnknownRule { id: String },
    #[error(transparent)]
    Addresses(address::BuildError),
    #[error(transparent)]
    Rows(BuildError),
    #[error(
        "the compiled policy would take {needed} bytes or more, and the limit is {limit}; raise `limits.policy_memory`, \
         or name fewer groups and nets on both sides of the rules that cost most: {costly}"
    )]
    TooMuchMemory { needed: usize, limit: usize, costly: String },
}

/// Whether all that rules and mirror sessions refer to is there, and once.
pub(super) fn check(policy: &Policy) -> Result<(), CompileError> {
    if policy.mirrors.len() > MAX_MIRRORS {
        return Err(CompileError::TooManyMirrors { count: policy.mirrors.len() });
    }
    if policy.groups.len() > 1 << 16 {
        return Err(CompileError::TooManyGroups { count: policy.groups.len() });
    }
    let mut ids = HashSet::new();
    if let Some(rule) = policy.rules.iter().find(|rule| !ids.insert(rule.id.as_str())) {
        return Err(CompileError::DuplicateRule { id: rule.id.clone() });
    }
    let mut names = HashSet::new();
    if let Some(group) = policy.groups.iter().find(|group| !names.insert(group.name.as_str())) {
        return Err(CompileError::DuplicateGroup { name: group.name.clone() });
    }
    for rule in &policy.rules {
        check_groups(&rule.matches, policy.groups.len(), || format!("rule `{}`", rule.id))?;
    }
    for (at, mirror) in policy.mirrors.iter().enumerate() {
        for m in &mirror.any_of {
            check_groups(m, policy.groups.len(), || format!("mirror session {at}"))?;
        }
    }
    Ok(())
}

pub(super) fn check_groups(m: &Match, count: usize, place: impl Fn() -> String) -> Result<(), CompileError> {
    for selector in m.from.iter().chain(&m.to) {
        match selector {
            Selector::Group(GroupIx(group)) if usize::from(*group) >= count => {
                return Err(CompileError::UnknownGroup { place: place(), group: *group, count });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Refuses so many bytes if that is more than the limit. `counts` has the rows of each rule.
pub(super) fn check_memory<'a>(
    needed: usize,
    limit: usize,
    counts: impl Iterator<Item = (&'a str, usize)>,
) -> Result<(), CompileError> {
    if needed <= limit { Ok(()) } else { Err(CompileError::TooMuchMemory { needed, limit, costly: costly(counts) }) }
}

/// The rules with most rows, for people to read.
fn costly<'a>(counts: impl Iterator<Item = (&'a str, usize)>) -> String {
    let mut counts: Vec<(&str, usize)> = counts.collect();
    counts.sort_by_key(|(id, rows)| (std::cmp::Reverse(*rows), *id));
    let named = counts.iter().take(NAMED).map(|(id, rows)| format!("`{id}` ({rows} rows)"));
    named.collect::<Vec<_>>().join(", ")
}
