//! Rules that open much more than is used, split by what was used.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::{Generator, count};
use crate::packet;
use crate::policy::learning::Endpoint;
use crate::policy::suggest::change::{Change, Draft, ends, fingerprint};
use crate::policy::suggest::judge::Rank;
use crate::policy::suggest::scene::Scene;
use crate::policy::suggest::standing::Standing;
use crate::policy::suggest::suggestion::{Candidate, Confidence, Evidence, Kind, saturating};
use crate::policy::suggest::tally::Tally;
use crate::policy::suggest::traffic::{EndIx, Talk};
use crate::rules::{Decision, Tier};

#[derive(Debug)]
pub struct Narrow;

/// Fewer services than this are not broad, whoever uses them.
const MANY: u64 = 64;
/// Most rules that one is split into, and most ends that stand for "any".
const MOST_PARTS: usize = 8;
const MOST_ENDS: usize = 6;
/// What was used so rarely may have been a mistake.
const LEAST_FLOWS: u32 = 3;
const PORTS: u64 = 65_536;

type Uses = FxHashMap<(EndIx, EndIx, Talk), Tally>;

impl Generator for Narrow {
    fn propose(&self, scene: &Scene<'_>) -> Vec<Candidate> {
        let broad = |rule: &Standing| {
            let learned = rule.decision() == Decision::Allow && rule.tier >= Tier::Policy && !rule.has_more;
            learned && (services(rule) >= MANY || is_open(&rule.from) || is_open(&rule.to))
        };
        let order = (0..).zip(scene.judge.order());
        let mut uses: BTreeMap<Rank, Uses> =
            order.filter(|(_, rule)| broad(rule)).map(|(rank, _)| (Rank(rank), Uses::default())).collect();
        for (row, rank) in scene.rows() {
            if let Some(uses) = uses.get_mut(&rank) {
                let key = (scene.plain(row.key.from), scene.plain(row.key.to), row.key.talk);
                uses.entry(key).or_default().merge(&row.tally);
            }
        }
        uses.into_iter().filter_map(|(rank, uses)| candidate(scene, scene.judge.rule(rank)?, uses)).collect()
    }
}

/// Services that a rule opens; messages of ICMP count as one.
fn services(rule: &Standing) -> u64 {
    let spans: u64 = rule.ports.iter().map(|(first, last)| u64::from(last - first) + 1).sum();
    match (rule.protocol, rule.ports.is_empty()) {
        (_, false) => spans,
        (None, true) => 3 * PORTS,
        (Some(protocol), true) if packet::has_ports(protocol) => PORTS,
        _ => 1,
    }
}

fn is_open(any_of: &[Endpoint]) -> bool {
    any_of.is_empty() || any_of.contains(&Endpoint::Any)
}

fn candidate(scene: &Scene<'_>, rule: &Standing, mut uses: Uses) -> Option<Candidate> {
    let mut whole = Tally::default();
    uses.values().for_each(|tally| whole.merge(tally));
    let harmless =
        |tally: &Tally| 2 * tally.attack < tally.flows && (tally.flows >= LEAST_FLOWS || tally.day_count() > 1);
    uses.retain(|_, tally| harmless(tally));
    let mut kept = Tally::default();
    uses.values().for_each(|tally| kept.merge(tally));
    let parts = parts(scene, rule, &uses)?;
    let opened: u64 = parts.iter().map(|part| part.ports.len().max(1) as u64).sum();
    let closed_services = 1.0 - opened as f64 / services(rule) as f64;
    let was_open = [&rule.from, &rule.to].map(|ends| is_open(ends));
    let closes_ends = [0, 1]
        .into_iter()
        .filter(|side| was_open[*side])
        .all(|side| parts.iter().all(|part| !is_open([&part.from, &part.to][side])));
    let closes = if services(rule) >= MANY { closed_services } else { 0.0 };
    let closes = if was_open.contains(&true) && closes_ends { closes.max(0.9) } else { closes };
    if kept.flows < scene.settings.min_flows || closes < 1.0 - scene.settings.used_share {
        return None;
    }
    // Uses that were all known early: what comes later will be the same.
    let middle = scene.span.0 + (scene.span.1 - scene.span.0) / 2;
    let early = uses.values().filter(|tally| tally.first <= middle).count() as f64 / uses.len() as f64;
    let days = (f64::from(kept.day_count()) / scene.days().ceil().min(7.0)).min(1.0);
    let left = f64::from((whole.flows - kept.flows).saturating_sub(whole.attack - kept.attack));
    let threat = 1.0 - left / f64::from(whole.flows.max(1));
    let confidence = Confidence::of([saturating(kept.flows.into(), 10.0), early * days, 0.9, threat, closes]);
    let used = parts.iter().map(|part| format!("{} > {} {}", ends(&part.from), ends(&part.to), part.service()));
    let used: Vec<String> = used.collect();
    Some(Candidate {
        kind: Kind::Narrow,
        about: rule.id.to_string(),
        reason: format!(
            "{} opens {} from {} to {}, and {} of harmless use were all {}.",
            rule.id,
            if services(rule) >= MANY { count(services(rule), "service") } else { Draft::moved(rule, 0).service() },
            ends(&rule.from),
            ends(&rule.to),
            count(kept.flows.into(), "flow"),
            used.join(" and ")
        ),
        change: Change::Rules { remove: vec![rule.id.clone()], priorities: Vec::new(), add: parts },
        confidence,
        evidence: Evidence::of(&kept),
    })
}

/// Rules for what was used; `None` when it is too much to be said in a few.
fn parts(scene: &Scene<'_>, rule: &Standing, uses: &Uses) -> Option<Vec<Draft>> {
    let open = [is_open(&rule.from), is_open(&rule.to)];
    // Who talks about what with whom: ends as the rule has them where it names some.
    let mut talks: BTreeMap<Talk, [BTreeSet<Endpoint>; 2]> = BTreeMap::new();
    for (from, to, talk) in uses.keys() {
        let sides = talks.entry(*talk).or_default();
        for (side, end) in [from, to].into_iter().enumerate() {
            sides[side].insert(scene.endpoint(*end)?);
        }
    }
    let named = |side: usize, used: &BTreeSet<Endpoint>, given: &[Endpoint]| match open[side] {
        // Too many strangers to be named.
        true if used.len() > MOST_ENDS => Vec::new(),
        true => used.iter().cloned().collect(),
        false => given.to_vec(),
    };
    let mut merged: BTreeMap<(Vec<Endpoint>, Vec<Endpoint>, u8), Vec<Talk>> = BTreeMap::new();
    for (talk, [from, to]) in &talks {
        let key = (named(0, from, &rule.from), named(1, to, &rule.to), talk.protocol());
        merged.entry(key).or_default().push(*talk);
    }
    (!merged.is_empty() && merged.len() <= MOST_PARTS).then(|| {
        merged.into_iter().map(|((from, to, protocol), talks)| part(rule, from, to, protocol, &talks)).collect()
    })
}

fn part(rule: &Standing, from: Vec<Endpoint>, to: Vec<Endpoint>, protocol: u8, talks: &[Talk]) -> Draft {
    let ports: Vec<(u16, u16)> = talks.iter().filter_map(|talk| talk.port()).map(|port| (port, port)).collect();
    let types: Vec<u8> = talks.iter().filter_map(|talk| talk.icmp_type()).collect();
    let mut draft = Draft { from, to, protocol: Some(protocol), ports, ..Draft::moved(rule, rule.priority) };
    draft.icmp_type = if let [one] = types.as_slice() { Some(*one) } else { None };
    draft.comment = format!("the part of {} that was used", rule.id);
    draft.id = format!("suggested-{:012x}", fingerprint(&format!("{} {}", rule.id, draft.text())) >> 16);
    draft
}
