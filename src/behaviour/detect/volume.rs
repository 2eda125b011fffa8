//! Hosts that suddenly send many times what they used to.
//!
//! Counted are the bytes that a host inside sends in each ten minutes, of whatever it began or answered. Told is a time
//! in which they are at least `volume` bytes and `volume_factor` times the mean of those before, once there were twelve
//! (two hours). Nightly work that comes every night still stands out against the hours before it: an exception, or the
//! low severity, is for that.

use crate::behaviour::alert::{AlertKind, Party};
use crate::behaviour::bounded::Recent;
use crate::flow::{FlowRecord, TO_CLIENT, TO_SERVER};

use super::book::Book;
use super::episode::{Bar, Detail, Key, Scene, Sighting};
use super::gauge::note;
use super::limits::Limits;
use crate::packet::Host;

const HOSTS: usize = 8_192;
const PERIOD: u64 = 600_000_000_000;
/// Periods before anything is told, and over which the mean is taken.
const LEARNT: u64 = 12;
const MEAN_OVER: u64 = 36;

/// What hosts send.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    hosts: Recent<Host, Trend>,
}

/// Bytes by period.
#[derive(Clone, Copy, Debug, Default)]
struct Trend {
    period: u64,
    current: f64,
    /// Of the periods before, and how many these were.
    mean: f64,
    periods: u64,
}

impl Volumes {
    pub(crate) fn new() -> Self {
        Self { hosts: Recent::new(HOSTS) }
    }

    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.hosts.evicted()
    }

    /// True when the record is part of such a time.
    pub(crate) fn observe(&mut self, book: &mut Book, limits: &Limits, r: &FlowRecord) -> bool {
        let (source, destination) = (Host::source(&r.tuple), Host::destination(&r.tuple));
        let there = self.sent(book, limits, r, source, destination, r.bytes[TO_SERVER]);
        let back = self.sent(book, limits, r, destination, source, r.bytes[TO_CLIENT]);
        there || back
    }

    fn sent(&mut self, book: &mut Book, limits: &Limits, r: &FlowRecord, from: Host, to: Host, bytes: u64) -> bool {
        if bytes == 0 || !limits.is_inside(&from) {
            return false;
        }
        let trend = self.hosts.get_or(from, Trend::default);
        trend.add(r.end / PERIOD, bytes as f64);
        let usual = trend.mean * limits.detect.volume_factor;
        if trend.periods < LEARNT || trend.current < usual {
            return false;
        }
        let Some(threshold) = limits.of(AlertKind::Volume, &from, &to).filter(|t| trend.current >= *t) else {
            return false;
        };
        let key = Key { kind: AlertKind::Volume, actor: Party::Host(from), victim: Party::Many };
        let (count, level) = (bytes as f64, trend.current);
        let last = Sighting { host: Some(to), count, level, failed: false, ..Sighting::of(r) };
        let bar = Bar { threshold: usual.max(threshold), window: PERIOD / 2 };
        note(book, key, bar, &last, Scene::from(r), Detail::default())
    }
}

impl Trend {
    fn add(&mut self, period: u64, bytes: f64) {
        if self.periods == 0 && self.current <= 0.0 {
            self.period = period;
        }
        // Periods without a byte count as well; what comes late counts now.
        let passed = period.saturating_sub(self.period).min(MEAN_OVER);
        for _ in 0..passed {
            self.periods += 1;
            self.mean += (self.current - self.mean) / self.periods.min(MEAN_OVER) as f64;
            self.current = 0.0;
        }
        self.period = self.period.max(period);
        self.current += bytes;
    }
}
