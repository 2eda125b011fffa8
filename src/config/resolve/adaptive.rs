//! Whom to look at more closely, and honeypots.

use super::names::Names;
use super::ports::Ports;
use super::settings::duration;
use crate::config::adaptive::{Adaptive, Escalation, Graylist, Honeypot, Level};
use crate::config::document::Place;
use crate::config::problem::{Problems, nearest};
use crate::config::raw_adaptive::{EscalateWord, RawAdaptive, RawGraylist, RawHoneypot};
use crate::config::shape::{Entry, Shaped};
use crate::config::text::{MacText, ShareText};
use crate::mirror::{Cap, Session};
use crate::packet::Mac;

/// Most honeypots: a byte says which.
const MOST_HONEYPOTS: usize = 255;

pub(super) fn honeypots(problems: &mut Problems<'_>, shaped: &mut Shaped, ports: &Ports) -> (Vec<Honeypot>, Names) {
    let entries: Vec<Entry<RawHoneypot>> = shaped.list(problems, "honeypot");
    let mut names = Names::new("honeypot", shaped.names_known("honeypot", "name"));
    if entries.len() > MOST_HONEYPOTS {
        let problem = problems.error(&entries[MOST_HONEYPOTS].place, "too many honeypots");
        problem.allowed(format!("at most {MOST_HONEYPOTS}"));
    }
    let mut honeypots = Vec::new();
    for Entry { place, raw, wrong } in entries {
        names.define(problems, &place.key("name"), &raw.name.0, honeypots.len());
        let port = port(problems, &place, &raw, wrong.none_of(&["port"]), ports);
        honeypots.push(Honeypot { name: raw.name.0, port, mac: mac(&raw.mac) });
    }
    (honeypots, names)
}

/// The port that a honeypot is behind; `None` in a file without ports.
fn port(problems: &mut Problems<'_>, place: &Place, raw: &RawHoneypot, sound: bool, ports: &Ports) -> Option<usize> {
    let here = place.key("port");
    let Some(name) = &raw.port else {
        if sound && !ports.ports.is_empty() {
            let problem = problems.error(place, "`port` is missing: which port is the honeypot behind");
            problem.field = here.to_string();
            problem.allowed("the name of a port that is in no pair");
        }
        return None;
    };
    let port = ports.names.lookup(problems, &here, name)?;
    if let Some(pair) = ports.paired.get(&port) {
        let line = problems.document.line_of(pair);
        let problem = problems.error(&here, format!("port `{name}` forwards traffic and cannot have a honeypot"));
        problem.found(format!("`{name}`")).allowed("a port that is in no pair").related(line, "paired here");
    }
    Some(port)
}

/// `None` when nothing of the file asks for it.
pub(super) fn adaptive(
    problems: &mut Problems<'_>,
    shaped: &mut Shaped,
    honeypots: &Names,
    sessions: &[&Session],
) -> Option<Adaptive> {
    let place = Place::root().key("adaptive");
    let is_asked_for =
        problems.document.contains(&place) || sessions.iter().any(|session| session.adapts || session.only.is_some());
    let raw: RawAdaptive = shaped.section(problems, "adaptive");
    let levels = levels(problems, &place, &raw);
    let flagged = share(problems, &place.key("flagged"), &raw.flagged);
    let graylist = raw.graylist.as_ref().map(|raw| graylist(problems, &place.key("graylist"), raw, honeypots));
    let bits = raw.budget.as_ref().map_or(0, |rate| rate.bits_per_second());
    let budget = Cap { bits, packets: raw.budget_packets.unwrap_or(0) };
    if (bits > 0 || budget.packets > 0) && !sessions.iter().any(|session| session.adapts) {
        let key = if bits > 0 { "budget" } else { "budget_packets" };
        let problem = problems.warning(&place.key(key), "no mirror draws on the budget");
        problem.allowed("a [[mirror]] with adapt = true");
    }
    let settings = Adaptive {
        interval: duration(problems, &place.key("interval"), &raw.interval),
        levels,
        hysteresis: raw.hysteresis,
        alerts: flags(problems, &place.key("alerts"), &raw.alerts),
        flagged,
        severity: raw.severity,
        hold: duration(problems, &place.key("hold"), &raw.hold),
        budget,
        most: raw.most,
        graylist,
    };
    is_asked_for.then_some(settings)
}

fn levels(problems: &mut Problems<'_>, place: &Place, raw: &RawAdaptive) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::new();
    for (position, level) in raw.level.iter().enumerate() {
        let here = place.key("level").index(position);
        let share = share(problems, &here.key("share"), &level.share);
        if let Some(before) = levels.last()
            && (level.score <= before.score || share < before.share)
        {
            let problem = problems.error(&here, "levels must ascend, in score and in share");
            problem.allowed(format!("a score above {} with at least {}%", before.score, before.share * 100.0));
        }
        levels.push(Level { score: level.score, share });
    }
    levels
}

fn share(problems: &mut Problems<'_>, place: &Place, text: &ShareText) -> f64 {
    text.share().unwrap_or_else(|| {
        let problem = problems.error(place, "the share is out of range").found(format!("`{}`", text.0));
        problem.allowed("more than 0% and at most 100%");
        1.0
    })
}

fn graylist(problems: &mut Problems<'_>, place: &Place, raw: &RawGraylist, honeypots: &Names) -> Graylist {
    let here = place.key("honeypot");
    let honeypot = raw.honeypot.as_ref().and_then(|name| honeypots.lookup(problems, &here, name));
    let escalate = match (raw.escalate, honeypot) {
        (EscalateWord::Divert, Some(honeypot)) => Escalation::Divert(honeypot),
        (EscalateWord::Divert, None) if raw.honeypot.is_none() => {
            let problem = problems.error(&place.key("escalate"), "diverted to which honeypot?");
            problem.allowed("`honeypot` with the name of a [[honeypot]]");
            Escalation::Watch
        }
        _ => Escalation::Watch,
    };
    let alerts = flags(problems, &place.key("alerts"), &raw.alerts);
    Graylist { alerts, period: duration(problems, &place.key("period"), &raw.period), escalate }
}

fn mac(text: &MacText) -> Mac {
    // The schema has checked its form.
    text.0.parse().unwrap_or_default()
}

/// The bits of kinds of alert by name; `any` is all of them.
pub(super) fn flags(problems: &mut Problems<'_>, place: &Place, names: &[String]) -> u32 {
    let kinds = crate::behaviour::AlertKind::ALL;
    let mut flags = 0;
    for (position, name) in names.iter().enumerate() {
        match kinds.iter().find(|kind| kind.name() == name) {
            Some(kind) => flags |= 1 << *kind as u8,
            None if name == "any" => flags = u32::MAX,
            None => {
                let known = || kinds.iter().map(|kind| kind.name()).chain(["any"]);
                let problem = problems.error(&place.index(position), format!("unknown kind of alert `{name}`"));
                let allowed = known().collect::<Vec<_>>().join(", ");
                problem.found(format!("`{name}`")).allowed(allowed).suggest(nearest(name, known()));
            }
        }
    }
    flags
}
