//! Hosts that suddenly send many times what they used to.
//!
//! While too little is known of group pairs, counted are the bytes that a host inside sends in each ten minutes, of
//! whatever it began or answered. Told is a time in which they are at least `volume` bytes and `volume_factor` times
//! the mean of those before, once there were twelve (two hours). Nightly work stands out against the hours before it.
//!
//! Of hosts in groups, once pairs are expected (`[scorer.pairs] learning`, a day), they say it better: told are two intervals of a pair one
//! after the other that are unexpected, of `volume` bytes together in one direction, each `volume_factor` times what is
//! usual on the services that were seen, at that hour. Work that comes every night is known after three of them.

use crate::behaviour::alert::{AlertKind, Party};
use crate::behaviour::bounded::Recent;
use crate::behaviour::expect::{PACKETS, PairInterval, PairKey};
use crate::flow::{FlowRecord, TO_CLIENT, TO_SERVER};

use super::book::Book;
use super::episode::{Bar, Detail, Key, Scene, Sighting};
use super::gauge::note;
use super::limits::Limits;
use crate::packet::Host;
use crate::rules::GroupSetHandle;

const HOSTS: usize = 8_192;
const PERIOD: u64 = 600_000_000_000;
/// Pairs remembered that are above their usual.
const PAIRS: usize = 1_024;
/// Periods before anything is told, and over which the mean is taken.
const LEARNT: u64 = 12;
const MEAN_OVER: u64 = 36;

/// What hosts send.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    hosts: Recent<Host, Trend>,
    pairs: Recent<PairKey, Above>,
    /// Enough is known of pairs.
    left_to_pairs: bool,
}

/// The last interval in which a pair was above its usual.
#[derive(Clone, Copy, Debug)]
struct Above {
    end: u64,
    bytes: f64,
    /// Who it is told of, as long as it goes on.
    sender: Host,
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
        Self { hosts: Recent::new(HOSTS), pairs: Recent::new(PAIRS), left_to_pairs: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.hosts.len() + self.pairs.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.hosts.evicted() + self.pairs.evicted()
    }

    /// From now on hosts are told by what their pairs do.
    pub(crate) fn leave_to_pairs(&mut self, expecting: bool) {
        self.left_to_pairs = expecting;
    }

    /// A pair did what was not expected of it.
    pub(crate) fn unexpected(&mut self, book: &mut Book, limits: &Limits, interval: &PairInterval) {
        let volume = interval.volume;
        let usual = volume.usual.max(1.0) * limits.detect.volume_factor;
        let Some((sender, receiver)) = volume.hosts.filter(|_| volume.bytes >= usual) else { return };
        let now = Above { end: interval.end, bytes: volume.bytes, sender };
        let above = self.pairs.get_or(interval.pair, || Above { end: 0, ..now });
        let goes_on = above.end == interval.start;
        let level = if goes_on { above.bytes + now.bytes } else { now.bytes };
        *above = Above { sender: if goes_on { above.sender } else { sender }, ..now };
        let sender = above.sender;
        if !goes_on || !limits.is_inside(&sender) {
            return;
        }
        let Some(threshold) = limits.of(AlertKind::Volume, &sender, &receiver).filter(|t| level >= *t) else { return };
        let key = Key { kind: AlertKind::Volume, actor: Party::Host(sender), victim: Party::Many };
        let (ours, theirs) = if volume.side == TO_SERVER { interval.pair } else { (interval.pair.1, interval.pair.0) };
        let scene = Scene { emitted: interval.end, groups: (ours, theirs) };
        let last = Sighting { host: Some(receiver), ..sighting(interval, level) };
        let bar = Bar { threshold: (2.0 * usual).max(threshold), window: interval.end - interval.start };
        note(book, key, bar, &last, scene, Detail::default());
    }

    /// True when the record is part of such a time.
    pub(crate) fn observe(&mut self, book: &mut Book, limits: &Limits, r: &FlowRecord) -> bool {
        let (source, destination) = (Host::source(&r.tuple), Host::destination(&r.tuple));
        let there = self.sent(book, limits, r, source, destination, r.bytes[TO_SERVER]);
        let back = self.sent(book, limits, r, destination, source, r.bytes[TO_CLIENT]);
        there || back
    }

    fn sent(&mut self, book: &mut Book, limits: &Limits, r: &FlowRecord, from: Host, to: Host, bytes: u64) -> bool {
        // Without groups all traffic is one pair, in which nobody stands out.
        let grouped = r.src_groups != GroupSetHandle::default() || r.dst_groups != GroupSetHandle::default();
        if bytes == 0 || (self.left_to_pairs && grouped) || !limits.is_inside(&from) {
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

fn sighting(interval: &PairInterval, level: f64) -> Sighting {
    let (side, service) = (interval.volume.side, interval.parts.first().map(|part| part.service));
    let packets = interval.seen[PACKETS[side]];
    Sighting {
        time: interval.start,
        end: interval.end,
        flow_id: 0,
        rule: None,
        protocol: service.map(|service| service.protocol).filter(|protocol| *protocol != 0),
        port: service.and_then(|service| service.known_port()),
        host: None,
        count: interval.volume.bytes,
        level,
        failed: false,
        packets: packets as u64,
        bytes: interval.volume.bytes as u64,
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
