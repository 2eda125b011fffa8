//! Who keeps the set of taps, and publishes it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::capture::CaptureTap;
use super::trace::{Trace, TraceInfo, TraceSpec};
use crate::export::Names;
use crate::filter::{Expression, FilterError, Vocabulary};
use crate::rules::{Publisher, Reader};
use crate::worker::tap::{CaptureLane, MAX_SNAP, MAX_TAPS, Points, PortMask, Tap, TapSet, TapSink};

/// The names behind the numbers in records and notes, and those that expressions use.
pub trait TapNames: Vocabulary + Names + fmt::Debug + Send + Sync {}

impl<T: Vocabulary + Names + fmt::Debug + Send + Sync> TapNames for T {}

/// Most memory of all captures, and most notes of one trace at one worker.
pub const MOST_RING_BYTES: usize = 1 << 30;
pub const MOST_NOTES: usize = 65_536;

/// Why nothing was tapped.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    #[error(transparent)]
    Filter(#[from] Box<FilterError>),
    #[error("there is no port `{name}`; there are {known}")]
    NoPort { name: String, known: String },
    #[error("port `{name}` cannot be chosen, only the first {} can: name no port, and all are taken", PortMask::PORTS)]
    PortNumber { name: String },
    #[error("{MAX_TAPS} captures and traces run already: end one (`gnomon trace list`, `gnomon trace remove NAME`)")]
    TooMany,
    #[error("there is a trace `{0}` already: choose another name, or `gnomon trace remove {0}` first")]
    NameTaken(String),
    #[error("there is no trace{of}; {known}", of = .name.as_ref().map_or(String::new(), |n| format!(" `{n}`")))]
    NoTrace { name: Option<String>, known: String },
    #[error("a trace keeps 1 to {MOST_NOTES} packets, not {0}")]
    BadCount(usize),
    #[error("{0}")]
    BadName(String),
    #[error("all captures together may use {} MiB of buffers: ask for a smaller one with --buffer", MOST_RING_BYTES >> 20)]
    TooLarge,
}

/// Which packets, where.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub filter: Expression,
    pub points: Points,
    /// Names of ports; all when empty.
    pub ports: Vec<String>,
}

/// What to capture.
#[derive(Clone, Debug)]
pub struct CaptureSpec {
    pub chosen: Chosen,
    /// Bytes kept of a packet; 0 is all.
    pub snap_len: u32,
    /// Bytes of each worker's ring.
    pub ring_bytes: usize,
}

/// Keeps the set of taps of one appliance.
#[derive(Debug)]
pub struct TapHost {
    inner: Mutex<Inner>,
    pub names: Arc<dyn TapNames>,
    /// By worker output number.
    pub ports: Arc<[String]>,
    pub workers: usize,
}

#[derive(Debug)]
struct Inner {
    publisher: Publisher<TapSet>,
    entries: Vec<Entry>,
    next_id: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    /// As it was written: bound again after each reload.
    filter: Expression,
    tap: Tap,
    trace: Option<Arc<Trace>>,
}

impl TapHost {
    /// Nothing is tapped at first. Port names are in order of the workers' outputs.
    pub fn new(names: Arc<dyn TapNames>, ports: Vec<String>, workers: usize) -> Arc<Self> {
        let ports: Arc<[String]> = ports.into();
        let first = TapSet { number: 1, taps: Vec::new(), ports: ports.clone() };
        let publisher = Publisher::new(first).expect("the first number is not the last one");
        let inner = Mutex::new(Inner { publisher, entries: Vec::new(), next_id: 1 });
        Arc::new(Self { inner, names, ports, workers })
    }

    /// A worker's view.
    pub fn reader(&self) -> Reader<TapSet> {
        self.lock().publisher.reader()
    }

    /// Begins a capture, which ends when what is returned is dropped.
    ///
    /// # Errors
    /// The expression names what there is not, or there are too many taps.
    pub fn capture(self: &Arc<Self>, spec: &CaptureSpec) -> Result<CaptureTap, TapError> {
        let snap_len = if spec.snap_len == 0 { MAX_SNAP as u32 } else { spec.snap_len.min(MAX_SNAP as u32) };
        let mut inner = self.lock();
        let used: usize = inner.entries.iter().map(Entry::ring_bytes).sum();
        if used.saturating_add(spec.ring_bytes.saturating_mul(self.workers)) > MOST_RING_BYTES {
            return Err(TapError::TooLarge);
        }
        let lane = |_| Arc::new(CaptureLane::new(spec.ring_bytes, snap_len, self.ports.len()));
        let lanes: Vec<_> = (0..self.workers).map(lane).collect();
        let id = self.add(&mut inner, &spec.chosen, TapSink::Capture(lanes.clone()), None)?;
        drop(inner);
        Ok(CaptureTap::new(self.clone(), id, lanes, spec.chosen.points, snap_len))
    }

    /// Begins a trace, which stays until it is removed.
    ///
    /// # Errors
    /// The expression names what there is not, the name is taken, or there are too many taps.
    pub fn trace(&self, spec: &TraceSpec) -> Result<TraceInfo, TapError> {
        if spec.count == 0 || spec.count > MOST_NOTES {
            return Err(TapError::BadCount(spec.count));
        }
        let mut inner = self.lock();
        let name = match &spec.name {
            Some(name) => name.clone(),
            None => inner.free_name(),
        };
        check_name(&name)?;
        if inner.traces().any(|trace| trace.name == name) {
            return Err(TapError::NameTaken(name));
        }
        let trace = Arc::new(Trace::new(name, spec, self.workers));
        let sink = TapSink::Trace(trace.lanes.clone());
        self.add(&mut inner, &spec.chosen, sink, Some(trace.clone()))?;
        Ok(trace.info())
    }

    /// All traces, oldest first.
    pub fn traces(&self) -> Vec<Arc<Trace>> {
        self.lock().traces().cloned().collect()
    }

    /// A trace by name; without one, the only trace there is.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find_trace(&self, name: Option<&str>) -> Result<Arc<Trace>, TapError> {
        self.lock().find(name).cloned()
    }

    /// Ends a trace. Its notes are gone.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn remove_trace(&self, name: &str) -> Result<TraceInfo, TapError> {
        let mut inner = self.lock();
        let trace = inner.find(Some(name))?.clone();
        let of = |entry: &Entry| entry.trace.as_ref().is_some_and(|t| Arc::ptr_eq(t, &trace));
        inner.entries.retain(|entry| !of(entry));
        self.publish(&mut inner);
        Ok(trace.info())
    }

    /// Ends a capture; returns the number of the set without it.
    pub(super) fn remove(&self, id: u64) -> u32 {
        let mut inner = self.lock();
        inner.entries.retain(|entry| entry.id != id);
        self.publish(&mut inner);
        inner.publisher.current().number
    }

    /// Whether every worker has adopted a set of this number.
    pub(super) fn is_adopted(&self, number: u32) -> bool {
        self.lock().publisher.generations().iter().all(|generation| *generation >= number)
    }

    /// After new rules came in force: their names get a meaning in the expressions. What an expression names that is no
    /// longer there keeps the meaning it had.
    pub fn rebind(&self) {
        let mut inner = self.lock();
        if inner.entries.is_empty() {
            return;
        }
        for entry in &mut inner.entries {
            if let Ok(bound) = entry.filter.bind(&*self.names) {
                entry.tap.filter = Arc::new(bound);
            }
        }
        self.publish(&mut inner);
    }

    /// To be called now and then: frees what no worker looks at any more, and takes traces that have all they were
    /// asked for off the workers.
    pub fn tend(&self) {
        let mut inner = self.lock();
        let full = |entry: &Entry| entry.trace.as_ref().is_some_and(|trace| trace.take_off());
        if inner.entries.iter().any(full) {
            self.publish(&mut inner);
        }
        inner.publisher.reclaim();
    }

    fn add(
        &self,
        inner: &mut Inner,
        chosen: &Chosen,
        sink: TapSink,
        trace: Option<Arc<Trace>>,
    ) -> Result<u64, TapError> {
        if inner.entries.len() >= MAX_TAPS {
            return Err(TapError::TooMany);
        }
        let filter = Arc::new(chosen.filter.bind(&*self.names)?);
        let tap = Tap { filter, points: chosen.points, ports: mask(&self.ports, &chosen.ports)?, sink };
        let id = inner.next_id;
        inner.next_id += 1;
        inner.entries.push(Entry { id, filter: chosen.filter.clone(), tap, trace });
        self.publish(inner);
        Ok(id)
    }

    fn publish(&self, inner: &mut Inner) {
        let number = inner.publisher.current().number + 1;
        let active = inner.entries.iter().filter(|entry| entry.trace.as_ref().is_none_or(|trace| !trace.is_over()));
        let taps = active.map(|entry| entry.tap.clone()).collect();
        if let Err(error) = inner.publisher.publish(TapSet { number, taps, ports: self.ports.clone() }) {
            // After four billion changes.
            log::error!("taps: {error}");
        }
        inner.publisher.reclaim();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic between two changes leaves at most a set unpublished.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports of these names; all when there are none.
fn mask(ports: &[String], names: &[String]) -> Result<PortMask, TapError> {
    if names.is_empty() {
        return Ok(PortMask::ALL);
    }
    let bit = |name: &String| {
        let known = ports.iter().position(|port| port == name).ok_or_else(|| TapError::NoPort {
            name: name.clone(),
            known: ports.iter().map(|port| format!("`{port}`")).collect::<Vec<_>>().join(", "),
        })?;
        let chosen = u32::try_from(known).ok().and_then(|port| 1u64.checked_shl(port));
        chosen.ok_or_else(|| TapError::PortNumber { name: name.clone() })
    };
    Ok(PortMask(names.iter().map(bit).collect::<Result<Vec<_>, _>>()?.into_iter().fold(0, |mask, bit| mask | bit)))
}

impl Inner {
    fn traces(&self) -> impl Iterator<Item = &Arc<Trace>> {
        self.entries.iter().filter_map(|entry| entry.trace.as_ref())
    }

    fn find(&self, name: Option<&str>) -> Result<&Arc<Trace>, TapError> {
        let all: Vec<_> = self.traces().collect();
        let found = match (name, &all[..]) {
            (Some(name), _) => all.iter().find(|trace| trace.name == name).copied(),
            (None, [only]) => Some(*only),
            _ => None,
        };
        found.ok_or_else(|| {
            let listed = all.iter().map(|trace| format!("`{}`", trace.name)).collect::<Vec<_>>().join(", ");
            let known = match all.len() {
                0 => "begin one with `gnomon trace add EXPR`".to_owned(),
                _ if name.is_none() => format!("say which: {listed}"),
                _ => format!("there are {listed}"),
            };
            TapError::NoTrace { name: name.map(str::to_owned), known }
        })
    }

    fn free_name(&self) -> String {
        let taken = |name: &String| self.traces().any(|trace| trace.name == *name);
        (1u64..).map(|n| format!("trace{n}")).find(|name| !taken(name)).unwrap_or_default()
    }
}

impl Entry {
    fn ring_bytes(&self) -> usize {
        match &self.tap.sink {
            TapSink::Capture(lanes) => lanes.iter().map(|lane| lane.ring.bytes()).sum(),
            TapSink::Trace(_) => 0,
        }
    }
}

fn check_name(name: &str) -> Result<(), TapError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fine) {
        let text = format!("`{name}` is not a name: use 1 to 64 letters, digits, `-`, `_` and `.`");
        return Err(TapError::BadName(text));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_chosen_is_the_only_one() {
        let ports: Vec<String> = (0..70).map(|n| format!("p{n}")).collect();
        let chosen = mask(&ports, &["p0".to_owned(), "p63".to_owned()]).unwrap();
        assert_eq!((0..70).filter(|port| chosen.has(*port)).collect::<Vec<_>>(), [0, 63]);
        let error = mask(&ports, &["p64".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("`p64`") && error.contains("first 64"), "{error}");
        assert!((0..70).all(|port| mask(&ports, &[]).unwrap().has(port)));
    }
}
