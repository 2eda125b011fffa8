//! From scores and alerts to the watchlists that workers look into.

use std::sync::{Arc, Mutex, MutexGuard};

use super::policy::PolicyNames;
use crate::behaviour::{Alert, AlertEvent, AlertKind, HostRisk, Party as AlertParty, ScoredRecord};
use crate::config::Adaptive;
use crate::export::{ExportError, Files};
use crate::flow::EndReason;
use crate::mirror::control::{Controller, Sign, Totals};
use crate::mirror::{CLASSES, Party, Watchlist};
use crate::packet::Host;
use crate::rules::{Publisher, Reader, StaleGeneration};
use crate::worker::{Paces, WorkerCounters};

/// The control of mirrors, for all who have a say or a question.
#[derive(Clone, Debug)]
pub struct Watchers(Arc<Mutex<Controller>>);

/// Feeds the control and publishes what it decides. Lives on the scorer's thread.
#[derive(Debug)]
pub struct Adaptation {
    watchers: Watchers,
    publisher: Publisher<Watchlist>,
    risks: HostRisk,
    counters: Vec<Arc<WorkerCounters>>,
    /// In a replay: how workers are kept in step.
    paces: Option<Arc<Paces>>,
    interval: u64,
    next: u64,
    /// Risk from which on the control is told.
    least: f64,
}

impl Watchers {
    /// The control, for a moment: the scorer waits for it.
    pub fn lock(&self) -> MutexGuard<'_, Controller> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Adaptation {
    /// Of these workers' counters. `in_step`: a replay, where the workers wait for each list.
    pub fn new(settings: &Adaptive, counters: &[Arc<WorkerCounters>], in_step: bool) -> Result<Self, StaleGeneration> {
        let controller = Controller::new(settings);
        let publisher = Publisher::new(Watchlist::empty(controller.number()))?;
        let interval = u64::try_from(settings.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        Ok(Self {
            watchers: Watchers(Arc::new(Mutex::new(controller))),
            publisher,
            risks: HostRisk::default(),
            counters: counters.to_vec(),
            paces: in_step.then(|| Arc::new(Paces::new(interval, counters.len()))),
            interval,
            next: 0,
            least: settings
                .levels
                .first()
                .map_or(f64::INFINITY, |level| 1.0 - (1.0 - level.score) * settings.hysteresis),
        })
    }

    pub fn watchers(&self) -> Watchers {
        self.watchers.clone()
    }

    /// A worker's view of the list.
    pub fn reader(&mut self) -> Reader<Watchlist> {
        self.publisher.reader()
    }

    pub fn paces(&self) -> Option<Arc<Paces>> {
        self.paces.clone()
    }

    /// A record came out of the scorer.
    pub fn record(&mut self, scored: &ScoredRecord) {
        let record = &scored.record;
        if scored.flags.is_attack() {
            self.goes_on(scored);
        }
        let Some(score) = scored.score else { return };
        // A slice says again what was said.
        if record.reason == EndReason::Active {
            return;
        }
        let host = Host::source(&record.tuple);
        let risk = self.risks.update(host, score);
        let mut control = self.watchers.lock();
        if risk >= self.least || control.is_watched(&Party::Host(host)) {
            control.notice(record.emitted, Party::Host(host), &Sign::Risk(risk));
        }
    }

    /// A record of an episode: by its initiator, or in a flood by many.
    fn goes_on(&self, scored: &ScoredRecord) {
        let (t, at) = (&scored.record.tuple, scored.record.emitted);
        let bits = |is: fn(AlertKind) -> bool| {
            scored.flags.iter().filter(|kind| is(*kind)).fold(0, |bits, kind| bits | 1 << kind as u8)
        };
        let (of_one, of_many) = (bits(|kind| !kind.is_flood()), bits(AlertKind::is_flood));
        let victim = Host::destination(t);
        let mut control = self.watchers.lock();
        for (party, kinds) in [
            (Party::Host(Host::source(t)), of_one | of_many),
            (Party::Service(victim, t.protocol, t.dst_port), of_many),
            (Party::Host(victim), of_many),
        ] {
            if kinds != 0 && control.is_watched(&party) {
                control.notice(at, party, &Sign::Again(kinds));
            }
        }
    }

    /// An episode began or grew.
    pub fn alert(&mut self, event: &AlertEvent) {
        let alert = event.alert();
        // The last word on an episode comes long after it.
        if matches!(event, AlertEvent::Closed(_)) {
            return;
        }
        let (kind, name) = (alert.kind as u8, alert.kind.name());
        let sign = Sign::Alert { kind, name, severity: alert.severity, episode: alert.episode };
        let at = if matches!(event, AlertEvent::Opened(_)) { alert.raised } else { alert.last_seen };
        let mut control = self.watchers.lock();
        parties_of(alert).into_iter().for_each(|party| control.notice(at, party, &sign));
    }

    /// In a replay: the step that all workers wait for, and when it begins.
    pub fn waiting(&self) -> Option<(u64, u64)> {
        self.paces.as_ref()?.waiting()
    }

    /// Lets the workers go on into a step.
    pub fn open(&self, step: u64) {
        if let Some(paces) = &self.paces {
            paces.open(step);
        }
    }

    /// Live: whether it is time to decide.
    pub fn is_due(&mut self, now: u64) -> bool {
        let is_due = self.paces.is_none() && now >= self.next;
        if is_due {
            self.next = now + self.interval;
        }
        is_due
    }

    /// Decides, and publishes what is new.
    pub fn tick(&mut self, now: u64, files: &mut Files, names: &PolicyNames) -> Result<(), ExportError> {
        self.publisher.reclaim();
        let totals = self.totals();
        let (list, decisions) = {
            let mut control = self.watchers.lock();
            (control.tick(now, &totals), control.drain_decisions())
        };
        if let Some(list) = list
            && let Err(error) = self.publisher.publish(list)
        {
            log::error!("the watchlist stays as it is: {error}");
        }
        decisions.iter().try_for_each(|decision| files.decision(decision, names))
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in &self.counters {
            for class in 0..CLASSES {
                totals.0[class].0 += worker.demand[class].packets.get();
                totals.0[class].1 += worker.demand[class].bytes.get();
            }
        }
        totals
    }
}

/// Whose flows are of interest: those of who does it. Where that is many, whose addresses may be forged, those to the
/// service they aim at; a victim as a whole only where they aim at several or none.
fn parties_of(alert: &Alert) -> Vec<Party> {
    match (alert.actor, alert.victim) {
        (AlertParty::Host(actor), _) => vec![Party::Host(actor)],
        (AlertParty::Many, AlertParty::Host(victim)) => {
            match (&alert.evidence.protocols[..], &alert.evidence.ports[..]) {
                ([protocol], [port]) => vec![Party::Service(victim, *protocol, *port)],
                _ => vec![Party::Host(victim)],
            }
        }
        // Who forges addresses of the link layer has none; what is said to the forged one goes to it.
        (AlertParty::Station(_), AlertParty::Host(victim)) => vec![Party::Host(victim)],
        (AlertParty::Many | AlertParty::Station(_), _) => Vec::new(),
    }
}
