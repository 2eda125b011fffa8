//! One trace: the notes its workers made, as far as they are kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::host::Chosen;
use crate::worker::tap::{Keep, TraceLane, TraceNote};

/// What to trace.
#[derive(Clone, Debug)]
pub struct TraceSpec {
    /// One is made up without.
    pub name: Option<String>,
    pub chosen: Chosen,
    /// Packets kept by each worker.
    pub count: usize,
    pub keep: Keep,
}

/// What there is to say of a trace, as `gnomon trace list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceInfo {
    pub name: String,
    pub filter: String,
    pub points: Vec<String>,
    /// All when empty.
    pub ports: Vec<String>,
    /// Packets that each worker keeps: the last ones, or the first ones.
    pub count: usize,
    pub keep: String,
    /// Packets that were chosen, are kept, and had to be given up.
    pub matched: u64,
    pub kept: usize,
    pub given_up: u64,
    /// It has all it was asked for; the workers do not look any more.
    pub complete: bool,
}

/// One trace.
#[derive(Debug)]
pub struct Trace {
    pub(super) name: String,
    spec: TraceSpec,
    pub(super) lanes: Vec<Arc<TraceLane>>,
    kept: Mutex<Kept>,
    over: AtomicBool,
}

/// A note and its number among all that were taken from the workers, from 0.
#[derive(Clone, Debug)]
pub struct Numbered {
    pub number: u64,
    pub note: TraceNote,
}

#[derive(Debug, Default)]
struct Kept {
    notes: VecDeque<Numbered>,
    next: u64,
    given_up: u64,
}

impl Trace {
    pub(super) fn new(name: String, spec: &TraceSpec, workers: usize) -> Self {
        let lanes = (0..workers).map(|_| Arc::new(TraceLane::new(spec.count, spec.keep))).collect();
        Self { name, spec: spec.clone(), lanes, kept: Mutex::default(), over: AtomicBool::new(false) }
    }

    pub fn info(&self) -> TraceInfo {
        let count = |of: &dyn Fn(&TraceLane) -> u64| self.lanes.iter().map(|lane| of(lane)).sum::<u64>();
        let (kept, given_up) = self.with_kept(|kept| (kept.notes.len(), kept.given_up));
        TraceInfo {
            name: self.name.clone(),
            filter: self.spec.chosen.filter.text().to_owned(),
            points: self.spec.chosen.points.iter().map(|point| point.name().to_owned()).collect(),
            ports: self.spec.chosen.ports.clone(),
            count: self.spec.count,
            keep: if self.spec.keep == Keep::First { "first".into() } else { "last".into() },
            matched: count(&|lane| lane.matched.get()),
            kept,
            given_up: count(&|lane| lane.given_up.get()) + given_up,
            complete: self.is_over() || self.is_full(),
        }
    }

    /// The notes from this number on, in order of time, and the number of the next one.
    pub fn notes(&self, from: u64) -> (Vec<Numbered>, u64) {
        self.with_kept(|kept| {
            let wanted = kept.notes.iter().filter(|numbered| numbered.number >= from).cloned().collect();
            (wanted, kept.next)
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Notes that a worker gave up for newer ones before anybody took them.
    pub fn overwritten(&self) -> u64 {
        match self.spec.keep {
            Keep::Last => self.lanes.iter().map(|lane| lane.given_up.get()).sum(),
            Keep::First => 0,
        }
    }

    /// The workers need not look any more.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// True once, when it has all it was asked for.
    pub(super) fn take_off(&self) -> bool {
        self.is_full() && !self.over.swap(true, Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.lanes.iter().all(|lane| lane.is_full())
    }

    /// Takes what the workers have, then looks.
    fn with_kept<R>(&self, look: impl FnOnce(&Kept) -> R) -> R {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh: Vec<TraceNote> = Vec::new();
        for lane in &self.lanes {
            // No more than there are places, or a busy worker would never let go.
            fresh.extend(std::iter::from_fn(|| lane.pop()).take(self.spec.count));
        }
        fresh.sort_by_key(|note| (note.received_ns, note.index, note.worker));
        for note in fresh {
            let number = kept.next;
            kept.next += 1;
            kept.notes.push_back(Numbered { number, note });
        }
        while kept.notes.len() > self.spec.count * self.lanes.len() {
            kept.notes.pop_front();
            kept.given_up += 1;
        }
        look(&kept)
    }
}
