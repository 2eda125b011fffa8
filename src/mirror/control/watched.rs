//! One watched party: its reasons, and what follows from them as time passes.

use super::super::watch::{CLASSES, Party, Regard, fraction};
use super::View;
use super::decision::{Action, Decision};
use crate::config::{Adaptive, Escalation, Graylist};

/// Class of those with an alert, and of those that a person says something about.
const URGENT: u8 = CLASSES as u8 - 1;

/// Something noticed about a party.
#[derive(Clone, Debug, PartialEq)]
pub enum Sign {
    /// An alert was raised or grew. `kind` is its bit; `by`: the party is who does it, not to whom it is done.
    Alert { kind: u8, name: &'static str, severity: u8, episode: u64, by: bool },
    /// A record belongs to alerts of these kinds, as bits.
    Again(u32),
    /// How unusual it is, 0..=1.
    Risk(f64),
}

/// What a person said.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Of its flows, at least, 0..=1.
    pub share: f64,
    /// From 1; 0 for none.
    pub honeypot: u8,
    pub until: u64,
    pub who: String,
    pub reason: String,
}

/// What a party is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its share follows its risk and alerts.
    Risk,
    /// It is watched whole until then.
    Gray { until: u64 },
    /// What it did went on in the second half of that time; it is watched whole for as long again.
    Escalated { until: u64 },
}

#[derive(Clone, Debug)]
pub(super) struct Watched {
    since: u64,
    stage: Stage,
    score: f64,
    /// By risk: 0 for none, else the number of the level, from 1.
    level: usize,
    /// Kinds of alert that are on.
    flags: u32,
    /// When there was a reason last; of risk and of alerts.
    risky: u64,
    alerted: u64,
    pub(super) order: Option<Order>,
}

impl Sign {
    /// Whether it is enough to begin watching somebody.
    pub(super) fn is_reason(&self, settings: &Adaptive) -> bool {
        self.class(settings) > 0
    }

    pub(super) fn class(&self, settings: &Adaptive) -> u8 {
        match self {
            Sign::Alert { kind, severity, .. } if counts(*kind, *severity, settings) => URGENT,
            Sign::Alert { .. } | Sign::Again(_) => 0,
            Sign::Risk(score) => level_of(*score, settings) as u8,
        }
    }

    /// Of what is noticed at one time: alerts first, so that what belongs to them counts.
    pub fn order(&self) -> (u8, u64, u64) {
        match self {
            Sign::Alert { kind, episode, .. } => (0, *episode, (*kind).into()),
            Sign::Again(kinds) => (1, (*kinds).into(), 0),
            Sign::Risk(risk) => (2, risk.to_bits(), 0),
        }
    }

    pub(super) fn words(&self) -> String {
        match self {
            Sign::Alert { name, episode, .. } => format!("alert {name}, episode {episode}"),
            Sign::Again(_) => "it goes on".to_owned(),
            Sign::Risk(score) => format!("risk {score:.6}"),
        }
    }
}

impl Order {
    pub(super) fn words(&self) -> String {
        if self.reason.is_empty() { format!("said by {}", self.who) } else { format!("{}: {}", self.who, self.reason) }
    }
}

impl Watched {
    pub(super) fn new(at: u64) -> Self {
        Self { since: at, stage: Stage::Risk, score: 0.0, level: 0, flags: 0, risky: 0, alerted: 0, order: None }
    }

    /// When it gave a reason last; a person's lasts.
    pub(super) fn last_sign(&self) -> u64 {
        if self.order.is_some() { u64::MAX } else { self.risky.max(self.alerted) }
    }

    /// What changes at once, if it has a name of its own.
    pub(super) fn notice(&mut self, at: u64, sign: &Sign, settings: &Adaptive) -> Option<Action> {
        match sign {
            Sign::Risk(score) => {
                self.risk(at, *score, settings);
                None
            }
            Sign::Again(kinds) => {
                if self.flags & kinds != 0 {
                    self.alerted = self.alerted.max(at);
                }
                None
            }
            Sign::Alert { kind, severity, .. } if !counts(*kind, *severity, settings) => None,
            Sign::Alert { kind, by, .. } => self.alert(at, *kind, *by, settings),
        }
    }

    fn risk(&mut self, at: u64, score: f64, settings: &Adaptive) {
        self.score = score;
        let level = level_of(score, settings);
        // A level is kept until the score says that so many times more of all that is normal is that unusual, and the hold
        // time after.
        let kept = level_of(1.0 - (1.0 - score) / settings.hysteresis.max(1.0), settings).min(self.level);
        let level = level.max(kept);
        if level >= self.level && level > 0 {
            self.risky = self.risky.max(at);
        } else if at < self.risky.saturating_add(nanoseconds(settings.hold)) {
            return;
        } else if level > 0 {
            self.risky = at;
        }
        self.level = level;
    }

    fn alert(&mut self, at: u64, kind: u8, by: bool, settings: &Adaptive) -> Option<Action> {
        self.flags |= 1 << kind;
        self.alerted = self.alerted.max(at);
        let is_meant = |graylist: &&Graylist| by && graylist.alerts >> kind & 1 != 0 && self.stage == Stage::Risk;
        let graylist = settings.graylist.as_ref().filter(is_meant)?;
        self.stage = Stage::Gray { until: at.saturating_add(nanoseconds(graylist.period)) };
        Some(Action::Graylist)
    }

    /// What is over by now.
    pub(super) fn pass_time(&mut self, now: u64, settings: &Adaptive) -> Option<(Action, String)> {
        let hold = nanoseconds(settings.hold);
        if self.level > 0 && now >= self.risky.saturating_add(hold) {
            (self.level, self.score) = (0, 0.0);
        }
        let staged = self.pass_stage(now, settings);
        // Until the end of a stage it counts whether the same goes on.
        if self.flags != 0 && self.stage == Stage::Risk && now >= self.alerted.saturating_add(hold) {
            self.flags = 0;
        }
        if self.order.as_ref().is_some_and(|order| order.until <= now) {
            let words = self.order.take().map(|order| format!("what {} said is over", order.who)).unwrap_or_default();
            let action = if self.is_watched(settings) { Action::Set } else { Action::Release };
            return Some((action, words));
        }
        staged
    }

    fn pass_stage(&mut self, now: u64, settings: &Adaptive) -> Option<(Action, String)> {
        let (Stage::Gray { until } | Stage::Escalated { until }) = self.stage else { return None };
        let Some(graylist) = &settings.graylist else {
            self.stage = Stage::Risk;
            return None;
        };
        if until > now {
            return None;
        }
        let period = nanoseconds(graylist.period);
        let was_gray = matches!(self.stage, Stage::Gray { .. });
        if self.alerted < until.saturating_sub(period / 2) {
            (self.stage, self.flags) = (Stage::Risk, 0);
            let still_watched = self.is_watched(settings);
            return (!still_watched).then(|| (Action::Release, "nothing more while it was watched".to_owned()));
        }
        self.stage = Stage::Escalated { until: now.saturating_add(period) };
        let words = "it went on while it was watched".to_owned();
        match graylist.escalate {
            Escalation::Divert(_) if was_gray => Some((Action::Divert, words)),
            _ if was_gray => Some((Action::Escalate, words)),
            _ => None,
        }
    }

    /// Share of its flows that adaptive sessions take at least.
    pub(super) fn share(&self, settings: &Adaptive) -> f64 {
        if let Some(order) = &self.order {
            return order.share;
        }
        let whole = if self.stage == Stage::Risk { 0.0 } else { 1.0 };
        let flagged = if self.flags == 0 { 0.0 } else { settings.flagged };
        let risk = self.level.checked_sub(1).and_then(|at| settings.levels.get(at)).map_or(0.0, |level| level.share);
        risk.max(flagged).max(whole)
    }

    pub(super) fn is_watched(&self, settings: &Adaptive) -> bool {
        self.order.is_some() || self.share(settings) > 0.0
    }

    pub(super) fn class(&self, settings: &Adaptive) -> u8 {
        let is_urgent = self.order.is_some() || self.flags != 0 || self.stage != Stage::Risk;
        if is_urgent { URGENT } else { self.level.min(settings.levels.len()) as u8 }
    }

    fn honeypot(&self, settings: &Adaptive) -> u8 {
        if let Some(order) = self.order.as_ref().filter(|order| order.honeypot > 0) {
            return order.honeypot;
        }
        match (self.stage, settings.graylist.as_ref().map(|graylist| graylist.escalate)) {
            (Stage::Escalated { .. }, Some(Escalation::Divert(honeypot))) => honeypot as u8 + 1,
            _ => 0,
        }
    }

    pub(super) fn regard(&self, settings: &Adaptive) -> Regard {
        Regard {
            score: fraction(self.score),
            flags: self.flags,
            share: fraction(self.share(settings)),
            class: self.class(settings),
            honeypot: self.honeypot(settings),
        }
    }

    pub(super) fn view(&self, party: Party, settings: &Adaptive) -> View {
        let hold = nanoseconds(settings.hold);
        let held = [(self.level > 0, self.risky), (self.flags != 0, self.alerted)];
        let held = held.iter().filter(|(is, _)| *is).map(|(_, at)| at.saturating_add(hold)).max();
        let staged = match self.stage {
            Stage::Risk => None,
            Stage::Gray { until } | Stage::Escalated { until } => Some(until),
        };
        let ordered = self.order.as_ref().map(|order| order.until);
        View {
            party,
            stage: self.stage,
            since: self.since,
            until: [held, staged, ordered].into_iter().flatten().max().unwrap_or(self.since),
            score: self.score,
            flags: self.flags,
            share: self.share(settings),
            honeypot: self.honeypot(settings),
            ordered: self.order.clone(),
        }
    }

    pub(super) fn decision(
        &self,
        at: u64,
        party: Party,
        action: Action,
        before: f64,
        settings: &Adaptive,
        reason: String,
    ) -> Decision {
        let (after, class) = (self.share(settings), self.class(settings));
        let (score, flags) = (self.score, self.flags);
        Decision { at, action, party: Some(party), before, after, score, flags, class, reason }
    }
}

fn counts(kind: u8, severity: u8, settings: &Adaptive) -> bool {
    severity <= settings.severity && settings.alerts >> kind & 1 != 0
}

/// 0 below all levels, else the number of the highest that is reached, from 1.
fn level_of(score: f64, settings: &Adaptive) -> usize {
    settings.levels.iter().take_while(|level| score >= level.score).count()
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
