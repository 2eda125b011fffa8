//! Mirror sessions.

use super::adaptive::flags;
use super::filter::{Filter, conditions, items, selectors};
use super::groups::{Groups, Vms};
use super::names::Names;
use super::ports::Ports;
use super::targets::Targets;
use crate::config::document::Place;
use crate::config::problem::{Problems, nearest};
use crate::config::raw_mirrors::{Direction, RawMirror};
use crate::config::shape::{Entry, Shaped};
use crate::mirror::{Head, Only, Sample, Session, fraction};
use crate::packet::KeyFrom;
use crate::rules::{Decision, MAX_MIRRORS, Match, MirrorMatch, Rule, Selector};

/// What mirrors refer to.
pub(super) struct World<'a> {
    pub(super) groups: &'a Groups,
    pub(super) vms: &'a Vms,
    pub(super) targets: &'a Targets<'a>,
    pub(super) ports: &'a Ports,
    pub(super) rules: &'a [Rule],
}

pub(super) fn resolve(
    problems: &mut Problems<'_>,
    shaped: &mut Shaped,
    world: &World<'_>,
    key_from: KeyFrom,
) -> Vec<(Session, MirrorMatch)> {
    let entries: Vec<Entry<RawMirror>> = shaped.list(problems, "mirror");
    if entries.len() > MAX_MIRRORS {
        let problem = problems.error(&entries[MAX_MIRRORS].place, format!("too many mirrors: {}", entries.len()));
        problem.allowed(format!("at most {MAX_MIRRORS}"));
    }
    let mut names = Names::new("mirror", true);
    let mut mirrors = Vec::new();
    for Entry { place, raw, wrong } in entries {
        names.define(problems, &place.key("name"), &raw.name.0, mirrors.len());
        if wrong.none_of(&["from", "group", "direction", "peer", "sample", "flows"]) {
            contradictions(problems, &place, &raw);
        }
        let base = conditions(problems, &place, &wrong, &Filter::from(&raw), key_from);
        let mut side = |key: &str, value| selectors(problems, &place.key(key), value, world.groups, world.vms);
        let group = side("group", raw.group.as_ref());
        let from = side("from", raw.from.as_ref());
        let peer = side("peer", raw.peer.as_ref());
        let any_of = if raw.from.is_some() {
            vec![Match { from, to: peer, ..base }]
        } else {
            directions(&base, &group, &peer, raw.direction.unwrap_or_default())
        };
        let mut decisions: Vec<Decision> = Vec::new();
        for decision in raw.verdicts.iter().flatten() {
            if !decisions.contains(decision) {
                decisions.push(*decision);
            }
        }
        let sound = wrong.none_of(&["to", "id"]);
        let (port, delivery) = world.targets.of_mirror(problems, &place, sound, &raw, mirrors.len());
        let session = Session {
            port,
            delivery,
            sample: sample(problems, &place, &raw),
            head: head(problems, &place, &raw),
            on: world.on(problems, &place.key("on"), &raw),
            rules: world.rules(problems, &place.key("rules"), &raw, shaped.names_known("rule", "id")),
            priority: raw.priority,
            adapts: adapts(problems, &place, &raw),
            only: only(problems, &place, &raw),
            to: raw.to.unwrap_or_default(),
            name: raw.name.0,
        };
        mirrors.push((session, MirrorMatch { any_of, decisions }));
    }
    mirrors
}

fn contradictions(problems: &mut Problems<'_>, place: &Place, raw: &RawMirror) {
    if raw.from.is_some() {
        let others = [("group", raw.group.is_some()), ("direction", raw.direction.is_some())];
        for (key, _) in others.iter().filter(|(_, given)| *given) {
            let problem = problems.error(&place.key(key), format!("`{key}` beside `from`"));
            problem.allowed("either `from`, or `group` and `direction`");
        }
    } else if raw.group.is_none() {
        for (key, given) in [("direction", raw.direction.is_some()), ("peer", raw.peer.is_some())] {
            if given {
                problems.error(&place.key(key), format!("`{key}` without `group`")).allowed("say of which `group`");
            }
        }
    }
    if raw.sample.is_some() && raw.flows.is_some() {
        let line = problems.document.line_of(&place.key("sample"));
        let problem = problems.error(&place.key("flows"), "`flows` beside `sample`");
        problem.allowed("either packets (`sample`) or whole conversations (`flows`)").related(line, "`sample` is here");
    }
}

impl World<'_> {
    fn on(&self, problems: &mut Problems<'_>, place: &Place, raw: &RawMirror) -> Vec<usize> {
        let names = items(place, raw.on.as_ref());
        names.iter().filter_map(|(place, name)| self.ports.names.lookup(problems, place, name)).collect()
    }

    /// `complete`: all rules of the file are known.
    fn rules(&self, problems: &mut Problems<'_>, place: &Place, raw: &RawMirror, complete: bool) -> Vec<String> {
        let ids = || self.rules.iter().map(|rule| rule.id.as_str());
        for (position, id) in raw.rules.iter().flatten().enumerate() {
            if complete && !ids().any(|known| known == id) {
                let problem = problems.error(&place.index(position), format!("unknown rule `{id}`"));
                let allowed = "the id of a rule of this file; what no rule decides is `verdicts`";
                problem.found(format!("`{id}`")).allowed(allowed).suggest(nearest(id, ids()));
            }
        }
        raw.rules.clone().unwrap_or_default()
    }
}

fn head(problems: &mut Problems<'_>, place: &Place, raw: &RawMirror) -> Option<Head> {
    let bytes = raw.first_bytes.map(Head::Bytes);
    if let (Some(_), Some(_)) = (raw.first_packets, bytes) {
        let line = problems.document.line_of(&place.key("first_packets"));
        let problem = problems.error(&place.key("first_bytes"), "`first_bytes` beside `first_packets`");
        problem.allowed("one of them").related(line, "`first_packets` is here");
    }
    raw.first_packets.map(Head::Packets).or(bytes)
}

fn adapts(problems: &mut Problems<'_>, place: &Place, raw: &RawMirror) -> bool {
    if raw.adapt && raw.flows.is_none() {
        let problem = problems.error(&place.key("adapt"), "`adapt` without `flows`: what is the share of everybody?");
        problem.allowed("`flows` with the share that is taken of those who are not watched");
    }
    raw.adapt
}

fn only(problems: &mut Problems<'_>, place: &Place, raw: &RawMirror) -> Option<Only> {
    let flags = raw.flags.as_ref().map_or(0, |names| flags(problems, &place.key("flags"), names));
    let is_asked_for = raw.min_score.is_some() || raw.flags.is_some();
    is_asked_for.then(|| Only { score: raw.min_score.map(fraction), flags })
}

/// What `group` sends, receives, or both. With ports, "both" takes the replies too, whose ports stand the other way
/// round.
fn directions(base: &Match, group: &[Selector], peer: &[Selector], direction: Direction) -> Vec<Match> {
    let outgoing = Match { from: group.to_vec(), to: peer.to_vec(), ..base.clone() };
    let incoming = Match { from: peer.to_vec(), to: group.to_vec(), ..base.clone() };
    let all = match direction {
        Direction::Out => vec![outgoing],
        Direction::In => vec![incoming],
        Direction::Both => {
            let replies = [reply_to(&outgoing), reply_to(&incoming)];
            [outgoing, incoming].into_iter().chain(replies).collect()
        }
    };
    let mut distinct: Vec<Match> = Vec::new();
    for matches in all {
        if !distinct.contains(&matches) {
            distinct.push(matches);
        }
    }
    distinct
}

fn reply_to(request: &Match) -> Match {
    Match {
        from: request.to.clone(),
        to: request.from.clone(),
        from_ports: request.to_ports.clone(),
        to_ports: request.from_ports.clone(),
        ..request.clone()
    }
}

fn sample(problems: &mut Problems<'_>, place: &Place, raw: &RawMirror) -> Sample {
    let Some(flows) = &raw.flows else {
        return Sample::Packets(raw.sample.as_ref().and_then(|sample| sample.one_in()).unwrap_or(1));
    };
    let share = flows.share().unwrap_or_else(|| {
        let problem = problems.error(&place.key("flows"), "the share is out of range").found(format!("`{}`", flows.0));
        problem.allowed("more than 0% and at most 100%");
        1.0
    });
    Sample::Flows(share)
}
