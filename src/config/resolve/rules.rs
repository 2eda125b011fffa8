//! Rules.

use super::filter::{Filter, conditions, selectors, warn_families};
use super::groups::{Groups, Vms, is_empty};
use super::names::Names;
use super::settings::Settings;
use crate::config::document::Place;
use crate::config::problem::Problems;
use crate::config::raw::{RawRule, RawTier};
use crate::config::shape::{Entry, Shaped, WrongKeys};
use crate::rules::{Action, Match, Rule, Selector, Tier};

pub(super) fn resolve(
    problems: &mut Problems<'_>,
    shaped: &mut Shaped,
    groups: &Groups,
    vms: &Vms,
    settings: &Settings,
) -> Vec<Rule> {
    let entries: Vec<Entry<RawRule>> = shaped.list(problems, "rule");
    let mut ids = Names::new("rule", true);
    let mut rules = Vec::with_capacity(entries.len());
    let most = settings.limits.rules;
    if entries.len() > most {
        let problem = problems.error(&entries[most].place, format!("too many rules: {}", entries.len()));
        problem.allowed(format!("at most {most} (`limits.rules`)"));
    }
    for Entry { place, raw, wrong } in entries {
        id(problems, &mut ids, &place.key("id"), &raw.id.0, rules.len());
        let mut matches = conditions(problems, &place, &wrong, &Filter::from(&raw), settings.flow.key_from);
        matches.from = selectors(problems, &place.key("from"), raw.from.as_ref(), groups, vms);
        matches.to = selectors(problems, &place.key("to"), raw.to.as_ref(), groups, vms);
        warn_families(problems, &place, &matches, groups);
        warn_empty(problems, &place, &matches, groups);
        rules.push(Rule {
            tier: tier(raw.tier),
            priority: raw.priority,
            mode: raw.mode,
            action: raw.action,
            stateful: stateful(problems, &place, &raw, &wrong),
            matches,
            id: raw.id.0,
        });
    }
    rules
}

fn id(problems: &mut Problems<'_>, ids: &mut Names, place: &Place, id: &str, position: usize) {
    if id == "default" {
        let problem = problems.error(place, "the rule id `default` is taken").found("`default`");
        problem.allowed("another id; `default` stands for packets that no rule decided");
    }
    ids.define(problems, place, id, position);
}

fn tier(raw: RawTier) -> Tier {
    match raw {
        RawTier::Override => Tier::Override,
        RawTier::Threat => Tier::Threat,
        RawTier::Policy => Tier::Policy,
        RawTier::Learned => Tier::Learned,
    }
}

/// Only a connection that is allowed has replies to let through.
fn stateful(problems: &mut Problems<'_>, place: &Place, raw: &RawRule, wrong: &WrongKeys) -> bool {
    let allow = raw.action == Action::Allow;
    if raw.stateful == Some(true) && !allow && wrong.none_of(&["action"]) {
        let problem = problems.error(&place.key("stateful"), "`stateful` has a meaning only with action `allow`");
        problem.found("true").allowed("leave it out");
    }
    allow && raw.stateful.unwrap_or(true)
}

fn warn_empty(problems: &mut Problems<'_>, place: &Place, matches: &Match, groups: &Groups) {
    for (key, side) in [("from", &matches.from), ("to", &matches.to)] {
        let empty = side.iter().filter_map(|selector| match selector {
            Selector::Group(index) => groups.group(*index).filter(|group| is_empty(group)),
            Selector::Net(_) => None,
        });
        for group in empty {
            problems.warning(&place.key(key), format!("group `{}` has no members", group.name));
        }
    }
}
