//! From scores and alerts to the watchlists that workers look into.

use std::sync::{Arc, Mutex, MutexGuard};

use super::policy::PolicyNames;
use crate::behaviour::{Alert, AlertEvent, AlertKind, Flags, HostRisk, Party as AlertParty, ScoredRecord};
use crate::config::Adaptive;
use crate::export::{ExportError, Files};
use crate::flow::{EndReason, FlowRecord};
use crate::mirror::control::{Controller, Sign, Totals};
use crate::mirror::{CLASSES, Party, Watchlist};
use crate::packet::{FlowKey, Host};
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
    /// Since the last decisions. Records and alerts come in an order that depends on threads; these are put into one that
    /// does not.
    signs: Vec<(u64, Party, Sign)>,
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
            signs: Vec::new(),
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
        // As the detectors see it: answers that nobody asked for are of who sends them.
        let record = scored.record.as_sent();
        if scored.flags.is_attack() {
            self.goes_on(&record, scored.flags);
        }
        let Some(score) = scored.score else { return };
        if record.reason == EndReason::Active {
            // The host was told of when the flow began or will be when it ends; the flow itself goes on.
            let flow = Party::Flow(FlowKey::of(record.tuple).0);
            self.signs.push((record.emitted, flow, Sign::Risk(score.into())));
            return;
        }
        let host = Host::source(&record.tuple);
        let risk = self.risks.update(host, score);
        self.signs.push((record.emitted, Party::Host(host), Sign::Risk(risk)));
    }

    /// A record of an episode: by its initiator, or in a flood by many.
    fn goes_on(&mut self, record: &FlowRecord, flags: Flags) {
        let (t, at) = (&record.tuple, record.emitted);
        // Of a flood by many the victim's side is watched too.
        let of_many = flags.iter().filter(|kind| kind.is_flood()).collect::<Flags>().bits();
        let victim = Host::destination(t);
        let signs = [
            (Party::Host(Host::source(t)), flags.bits()),
            (Party::Service(victim, t.protocol, t.dst_port), of_many),
            (Party::Host(victim), of_many),
        ];
        let signs = signs.into_iter().filter(|(_, kinds)| *kinds != 0);
        self.signs.extend(signs.map(|(party, kinds)| (at, party, Sign::Again(kinds))));
    }

    /// An episode began or grew.
    pub fn alert(&mut self, event: &AlertEvent) {
        let alert = event.alert();
        // The last word on an episode comes long after it.
        if matches!(event, AlertEvent::Closed(_)) {
            return;
        }
        let (kind, name) = (alert.kind as u8, alert.kind.name());
        let (severity, episode) = (alert.severity, alert.episode);
        // What an update is about was seen before it was known.
        let at = alert.raised.max(alert.last_seen);
        let signs = parties_of(alert).into_iter();
        let signs = signs.map(|(party, by)| (at, party, Sign::Alert { kind, name, severity, episode, by }));
        self.signs.extend(signs);
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
            apply(&mut self.signs, &mut control);
            (control.tick(now, &totals), control.drain_decisions())
        };
        if let Some(list) = list
            && let Err(error) = self.publisher.publish(list)
        {
            log::error!("the watchlist stays as it is: {error}");
        }
        decisions.iter().try_for_each(|decision| files.decision(decision, names))
    }

    /// At the end: decides on what came last, so that it is written down.
    pub fn finish(&mut self, files: &mut Files, names: &PolicyNames) -> Result<(), ExportError> {
        let last = self.signs.iter().map(|(at, ..)| *at).max();
        last.map_or(Ok(()), |at| self.tick(at, files, names))
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

/// Tells the control, in the order of time.
fn apply(signs: &mut Vec<(u64, Party, Sign)>, control: &mut Controller) {
    signs.sort_by(|(at, party, sign), (at2, party2, sign2)| {
        (at, party, sign.order()).cmp(&(at2, party2, sign2.order()))
    });
    for (at, party, sign) in signs.drain(..) {
        let is_news = match &sign {
            Sign::Alert { .. } => true,
            // One record alone must say more than many of a host.
            Sign::Risk(risk) if matches!(party, Party::Flow(_)) => *risk >= control.highest_risk(),
            Sign::Risk(risk) => *risk >= control.least_risk() || control.is_watched(&party),
            Sign::Again(_) => control.is_watched(&party),
        };
        if is_news {
            control.notice(at, party, &sign);
        }
    }
}

/// Whose flows are of interest, and whether they are those of who does it. Where that is many, whose addresses may be
/// forged, those to the service they aim at; a victim as a whole only where they aim at several or none.
fn parties_of(alert: &Alert) -> Vec<(Party, bool)> {
    let groups = (alert.actor_groups, alert.victim_groups);
    match (alert.actor, alert.victim) {
        (AlertParty::Host(actor), _) => {
            let is_of_groups = alert.kind == AlertKind::NewRelationship && groups.0.0 != 0 && groups.1.0 != 0;
            let groups = is_of_groups.then(|| (Party::groups(groups.0, groups.1), false));
            [(Party::Host(actor), true)].into_iter().chain(groups).collect()
        }
        (AlertParty::Many, AlertParty::Host(victim)) => {
            match (&alert.evidence.protocols[..], &alert.evidence.ports[..]) {
                ([protocol], [port]) => vec![(Party::Service(victim, *protocol, *port), false)],
                _ => vec![(Party::Host(victim), false)],
            }
        }
        // Who forges addresses of the link layer has none; what is said to the forged one goes to it.
        (AlertParty::Station(_), AlertParty::Host(victim)) => vec![(Party::Host(victim), false)],
        (AlertParty::Many | AlertParty::Station(_), _) => Vec::new(),
    }
}
