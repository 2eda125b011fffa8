//! Who is looked at more closely, and why: alerts, risks and orders of people → watchlists and a log of decisions.
//!
//! ```text
//! alerts, risk of hosts ─► notice ─┐
//! people ─► order, release ────────┼─► parties ─► tick ─┬─► Watchlist, when something changed
//! demand of copies ─► budget ──────┘                    └─► decisions
//! ```
//!
//! Pure: no thread, clock or file. Runs on the scorer's core. A party is watched from the first reason until the last one
//! has been gone for the hold time; then its flows are back at the share that the sessions take of everybody. Rooms are
//! fixed: beyond so many parties the one with the least reason gives way, and that is counted.

mod budget;
mod decision;
mod watched;

use std::collections::{BTreeMap, VecDeque};

use super::watch::{CLASSES, Party, Regard, Watchlist};
use crate::config::Adaptive;
use budget::Budget;
use watched::Watched;

pub use budget::Totals;
pub use decision::{Action, Decision};
pub use watched::{Order, Sign, Stage};

/// Decisions remembered for those who ask.
const REMEMBERED: usize = 4096;

/// Decides who is watched and how closely.
#[derive(Debug)]
pub struct Controller {
    settings: Adaptive,
    /// In order, so that what is made of it is the same each time.
    parties: BTreeMap<Party, Watched>,
    budget: Budget,
    /// Of the latest list.
    number: u32,
    regards: Vec<(Party, Regard)>,
    scales: [u16; CLASSES],
    /// What was last said of the scales.
    told: [u16; CLASSES],
    /// Not handed out yet.
    decisions: Vec<Decision>,
    recent: VecDeque<Decision>,
    refused: u64,
}

/// How one party stands, for those who ask.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub party: Party,
    pub stage: Stage,
    pub since: u64,
    /// When it is let go if nothing more happens.
    pub until: u64,
    pub score: f64,
    pub flags: u32,
    pub share: f64,
    /// From 1; 0 for none.
    pub honeypot: u8,
    pub ordered: Option<Order>,
}

impl Controller {
    pub fn new(settings: &Adaptive) -> Self {
        Self {
            budget: Budget::new(settings.budget),
            settings: settings.clone(),
            parties: BTreeMap::new(),
            number: 1,
            regards: Vec::new(),
            scales: [u16::MAX; CLASSES],
            told: [u16::MAX; CLASSES],
            decisions: Vec::new(),
            recent: VecDeque::new(),
            refused: 0,
        }
    }

    /// Of the latest list; that of [`Watchlist::empty`] before the first.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Goes over to other settings. Who is watched stays so, by them.
    pub fn reconfigure(&mut self, settings: &Adaptive) {
        if settings.budget != self.settings.budget {
            self.budget = Budget::new(settings.budget);
        }
        self.settings = settings.clone();
    }

    /// Something was noticed about a party at a time.
    pub fn notice(&mut self, at: u64, party: Party, sign: &Sign) {
        let known = self.parties.contains_key(&party);
        // What is not yet watched and gives no reason to is not worth an entry.
        if !known && (!sign.is_reason(&self.settings) || !self.make_room(at, sign)) {
            return;
        }
        let watched = self.parties.entry(party).or_insert_with(|| Watched::new(at));
        let before = watched.share(&self.settings);
        let action = watched.notice(at, sign, &self.settings);
        let after = watched.share(&self.settings);
        if let Some(action) = action.or_else(|| Action::of_change(before, after)) {
            let decision = watched.decision(at, party, action, before, &self.settings, sign.words());
            self.decide(decision);
        }
    }

    /// A person says how a party is treated until a time; that counts before everything else.
    pub fn order(&mut self, at: u64, party: Party, order: Order) {
        let watched = self.parties.entry(party).or_insert_with(|| Watched::new(at));
        let before = watched.share(&self.settings);
        let words = order.words();
        watched.order = Some(order);
        let decision = watched.decision(at, party, Action::Set, before, &self.settings, words);
        self.decide(decision);
    }

    /// A person lets go of a party; what gave reason to watch it is forgotten. False if it was not watched.
    pub fn release(&mut self, at: u64, party: Party, who: &str) -> bool {
        let Some(watched) = self.parties.remove(&party) else { return false };
        let before = watched.share(&self.settings);
        self.decide(Decision::release(at, party, before, format!("released by {who}")));
        true
    }

    /// Time has passed. `totals`: what the adaptive sessions would have sent since the start. The next list, if
    /// anything changed.
    pub fn tick(&mut self, now: u64, totals: &Totals) -> Option<Watchlist> {
        self.pass_time(now);
        // Coarse enough that small movements make no new list: each makes every active flow ask again.
        let scales = self.budget.update(now, totals).map(coarse);
        self.tell_budget(now, &scales);
        let regards: Vec<(Party, Regard)> =
            self.parties.iter().map(|(party, watched)| (*party, watched.regard(&self.settings))).collect();
        if regards == self.regards && scales == self.scales {
            return None;
        }
        self.number += 1;
        (self.regards, self.scales) = (regards, scales);
        Some(Watchlist::new(self.number, self.regards.iter().copied(), scales))
    }

    /// Whether a party is watched: news about it matter even when they are good.
    pub fn is_watched(&self, party: &Party) -> bool {
        self.parties.contains_key(party)
    }

    /// Decisions since the last call.
    pub fn drain_decisions(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.decisions)
    }

    /// Who is watched.
    pub fn views(&self) -> Vec<View> {
        self.parties.iter().map(|(party, watched)| watched.view(*party, &self.settings)).collect()
    }

    /// The latest decisions, the oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &Decision> {
        self.recent.iter()
    }

    /// How often there was no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Risk of the lowest level.
    pub fn least_risk(&self) -> f64 {
        self.settings.levels.first().map_or(f64::INFINITY, |level| level.score)
    }

    /// Risk of the highest level.
    pub fn highest_risk(&self) -> f64 {
        self.settings.levels.last().map_or(f64::INFINITY, |level| level.score)
    }

    fn decide(&mut self, decision: Decision) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(decision.clone());
        self.decisions.push(decision);
    }

    /// Whether there is room for one more; the one with the least reason has to go, of equals the one that gave it longest
    /// ago.
    fn make_room(&mut self, at: u64, sign: &Sign) -> bool {
        if self.parties.len() < self.settings.most {
            return true;
        }
        self.refused += 1;
        if self.refused.is_power_of_two() {
            log::warn!(
                "more than {} parties give reason to be watched ([adaptive] most); told {} times",
                self.settings.most,
                self.refused
            );
        }
        let rank = |watched: &Watched| (watched.class(&self.settings), watched.last_sign());
        let least = self.parties.iter().min_by_key(|(_, watched)| rank(watched)).map(|(party, w)| (*party, rank(w)));
        let Some((party, (class, _))) = least.filter(|(_, (class, _))| *class <= sign.class(&self.settings)) else {
            return false;
        };
        let before = self.parties.remove(&party).map_or(0.0, |watched| watched.share(&self.settings));
        let words = format!("another has more reason, and there is room for {}; class {class}", self.settings.most);
        self.decide(Decision::release(at, party, before, words));
        true
    }

    fn pass_time(&mut self, now: u64) {
        let mut told = Vec::new();
        for (party, watched) in &mut self.parties {
            let before = watched.share(&self.settings);
            let action = watched.pass_time(now, &self.settings);
            let after = watched.share(&self.settings);
            if let Some((action, words)) = action {
                told.push(watched.decision(now, *party, action, before, &self.settings, words));
            } else if let Some(action) = Action::of_change(before, after) {
                told.push(watched.decision(
                    now,
                    *party,
                    action,
                    before,
                    &self.settings,
                    "nothing more was seen".into(),
                ));
            }
        }
        let settings = &self.settings;
        self.parties.retain(|_, watched| watched.is_watched(settings));
        told.into_iter().for_each(|decision| self.decide(decision));
    }

    /// Says what the budget leaves when that has changed by a quarter of all since it was last told, or all is back.
    fn tell_budget(&mut self, now: u64, scales: &[u16; CLASSES]) {
        for (class, scale) in scales.iter().enumerate() {
            let [before, after] = [self.told[class], *scale].map(|scale| f64::from(scale) / f64::from(u16::MAX));
            if (before - after).abs() >= 0.25 || (before < 1.0 && after == 1.0) {
                self.told[class] = *scale;
                self.decide(Decision::budget(now, class as u8, before, after));
            }
        }
    }
}

/// To the next sixty-fourth.
fn coarse(scale: u16) -> u16 {
    const STEP: u32 = 1024;
    ((u32::from(scale) + STEP / 2) / STEP * STEP).min(u32::from(u16::MAX)) as u16
}

#[cfg(test)]
mod tests;
