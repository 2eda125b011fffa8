//! What is refused and looks harmless, by client, server and service: for good or for a while.

use rustc_hash::FxHashMap;

use super::count;
use crate::policy::learning::Endpoint;
use crate::policy::suggest::change::{Change, Draft, fingerprint};
use crate::policy::suggest::judge::Rank;
use crate::policy::suggest::scene::Scene;
use crate::policy::suggest::suggestion::saturating;
use crate::policy::suggest::tally::Tally;
use crate::policy::suggest::traffic::{EndIx, Row, Talk};
use crate::rules::{Action, Decision, Tier};

/// Behind what people wrote.
const PRIORITY: u32 = 50_000;
/// A burst is over when nothing came for so long, in seconds; and took no longer than this.
const QUIET: u32 = 12 * 3600;
const BURST: u32 = 24 * 3600;

/// A connection that is refused.
#[derive(Clone, Debug)]
pub struct Refused {
    pub from: Endpoint,
    pub to: Endpoint,
    pub talk: Talk,
    pub tally: Tally,
    /// Flows of the same groups and service that a detector named.
    pub attack: u32,
    /// Share of the VMs of each side that took part.
    pub clients: f64,
    pub servers: f64,
}

/// All that have flows enough, in the order of their names.
pub fn refused(scene: &Scene<'_>) -> Vec<Refused> {
    let mut all: FxHashMap<(EndIx, EndIx, Talk), Tally> = FxHashMap::default();
    let mut attacks: FxHashMap<(EndIx, EndIx, Talk), u32> = FxHashMap::default();
    for (row, rank) in scene.rows() {
        if row.tally.attack > 0 {
            *attacks.entry((scene.plain(row.key.from), scene.plain(row.key.to), row.key.talk)).or_default() +=
                row.tally.attack;
        }
        if is_open_question(scene, row, rank) {
            all.entry((row.key.from, row.key.to, row.key.talk)).or_default().merge(&row.tally);
        }
    }
    all.retain(|key, tally| tally.flows >= scene.settings.min_flows && !scene.is_explained(*key, tally.flows));
    let mut found: Vec<Refused> = all
        .into_iter()
        .filter_map(|(key, tally)| {
            let (from, to, talk) = key;
            let attack = attacks.get(&key).copied().unwrap_or(0);
            let share = |count: u32, end: EndIx| (f64::from(count) / f64::from(scene.active(end).max(1))).min(1.0);
            let (clients, servers) = (share(tally.client_count(), from), share(tally.server_count(), to));
            Some(Refused {
                from: scene.endpoint(from)?,
                to: scene.endpoint(to)?,
                talk,
                tally,
                attack,
                clients,
                servers,
            })
        })
        .filter(|one| matches!(one.from, Endpoint::Group(_)) && is_unicast(&one.to))
        .collect();
    found.sort_by(|a, b| (&a.from, &a.to, a.talk).cmp(&(&b.from, &b.to, b.talk)));
    found
}

/// Whether nobody who wrote a rule meant it to be refused.
fn is_open_question(scene: &Scene<'_>, row: &Row, rank: Rank) -> bool {
    let by_nobody = scene.judge.rule(rank).is_none_or(|rule| rule.tier >= Tier::Learned);
    scene.judge.decision(rank) != Decision::Allow && by_nobody && 2 * row.tally.attack < row.tally.flows
}

fn is_unicast(end: &Endpoint) -> bool {
    match end {
        Endpoint::Net(net) => !net.addr().is_multicast() && !net.addr().is_unspecified(),
        _ => true,
    }
}

impl Refused {
    /// It came within a day, in a longer time, and is over.
    pub fn is_burst(&self, scene: &Scene<'_>) -> bool {
        let (first, last) = (self.tally.first, self.tally.last);
        scene.days() >= 2.0
            && last - first <= BURST
            && self.tally.day_count() <= 2
            && scene.span.1 - last >= QUIET
            && self.tally.hour_count() <= 8
    }

    pub fn confidence(&self, stability: f64) -> [f64; 5] {
        let flows = f64::from(self.tally.flows);
        let threat = flows / (flows + 4.0 * f64::from(self.attack));
        // What is refused is unusual by being refused: the score says less than elsewhere.
        let score = 1.0 - 0.5 * self.tally.mean_score().unwrap_or(0.5);
        // An address outside all groups has no neighbours.
        let servers = if matches!(self.to, Endpoint::Net(_)) { 0.4 } else { self.servers };
        [saturating(flows, 10.0), stability, score, threat, (self.clients * servers).sqrt()]
    }

    pub fn about(&self) -> String {
        super::about(&self.from.text(), &self.to.text(), self.talk.service())
    }

    /// A rule that lets it through.
    pub fn draft(&self, expires: Option<u64>, comment: String) -> Change {
        Change::add(Draft {
            id: format!("suggested-{:012x}", fingerprint(&format!("{} {}", self.about(), expires.is_some())) >> 16),
            from: vec![self.from.clone()],
            to: vec![self.to.clone()],
            protocol: Some(self.talk.protocol()),
            ports: self.talk.port().map(|port| (port, port)).into_iter().collect(),
            icmp_type: self.talk.icmp_type(),
            action: Action::Allow,
            priority: PRIORITY,
            tier: Tier::Policy,
            expires,
            comment,
        })
    }

    /// "120 flows of 8 VMs on 3 days".
    pub fn summary(&self) -> String {
        let [flows, clients, days] =
            [self.tally.flows, self.tally.client_count(), self.tally.day_count()].map(u64::from);
        format!("{} of {} on {}", count(flows, "flow"), count(clients, "client"), count(days, "day"))
    }
}
