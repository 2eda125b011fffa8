//! What leaves: exfiltration and beacons, both from one host to one outside (`inside` says what is not).
//!
//! **Exfiltration** counts payload bytes of a host inside to one outside over `slow_window`, when they are at least three
//! times what came back; and, at a tenth of the threshold, when they are fifty times that. Browsing, mail and calls bring
//! back as much as they send; what uploads by trade (backups, video) wants an exception. In small pieces it is told at
//! twice as much as a bare one, over twelve times the time.
//!
//! **Beacon** counts contacts (beginnings of connections, answered or not, and answered datagrams) with one service outside at even distances: of
//! the last `beacon` contacts, half of the distances deviate by at most `beacon_jitter` of their median, three quarters
//! by at most twice that, and the median is from a second to an hour. People come in bursts: the measure is about 0.7 where contacts come at random.
//! Regular checks that are wanted (updates, telemetry) look the same, hence the low severity. Names and time are asked
//! for regularly by design and are left out. The measure is that of RITA's beacon score, which uses the median deviation
//! as well.

use crate::behaviour::alert::{AlertKind, Party, Rhythm};
use crate::behaviour::bounded::Recent;
use crate::flow::{FlowRecord, TO_CLIENT, TO_SERVER};

use super::attempt;
use super::book::Book;
use super::episode::{Bar, Detail, Key, Scene, Sighting};
use super::gauge::{Count, Gauges, note};
use super::limits::Limits;
use crate::packet::Host;

const SECOND: u64 = 1_000_000_000;
/// Bytes out for each byte back that make it an upload, and a bare one.
const UPLOAD: f64 = 3.0;
const BARE_UPLOAD: f64 = 50.0;
/// Share of the threshold for bare ones.
const BARE_SHARE: f64 = 0.1;
/// In pieces: share of the threshold, and how many times the window.
const PIECES_SHARE: f64 = 0.2;
const PIECES_OVER: u64 = 12;
/// Distances of a beacon.
const SHORTEST: u64 = SECOND;
const LONGEST: u64 = 3600 * SECOND;
/// Services remembered, and the most contacts of each.
const SERVICES: usize = 8_192;
const MOST_CONTACTS: usize = 64;
const SYN: u8 = 0x02;

/// True when the record is part of exfiltration.
pub(crate) fn upload(gauges: &mut Gauges, book: &mut Book, limits: &Limits, r: &FlowRecord) -> bool {
    let [up, down] = [r.payload_bytes[TO_SERVER] as f64, r.payload_bytes[TO_CLIENT] as f64];
    let (actor, victim) = (Host::source(&r.tuple), Host::destination(&r.tuple));
    if up + down <= 0.0 || !leaves(limits, &actor, &victim) || !limits.is_inside(&actor) {
        return false;
    }
    let Some(threshold) = limits.of(AlertKind::Exfiltration, &actor, &victim) else { return false };
    let key = Key { kind: AlertKind::Exfiltration, actor: Party::Host(actor), victim: Party::Host(victim) };
    let mut counted = |part, times: f64, share: f64, over: Option<u64>| {
        let bar = Bar { threshold: (threshold * share).max(1.0), window: limits.slow_window };
        let count = Count { key, part, weight: (up, down * times), per: 1.0, bar, over, host: victim };
        // What was sent in small amounts starts no count of its own.
        (up > down) && gauges.count(book, &count, r)
    };
    let long = limits.slow_window.saturating_mul(PIECES_OVER);
    let found = [
        counted(0, UPLOAD, 1.0, None),
        counted(1, BARE_UPLOAD, BARE_SHARE, None),
        counted(2, BARE_UPLOAD, PIECES_SHARE, Some(long)),
    ];
    found.contains(&true)
}

fn leaves(limits: &Limits, from: &Host, to: &Host) -> bool {
    !to.is_group() && !limits.is_inside(to) && from != to
}

/// Services that hosts contacted lately.
#[derive(Clone, Debug)]
pub(crate) struct Beacons {
    services: Recent<(Host, Host, u32), Contacts>,
}

/// The latest beginnings, ascending.
#[derive(Clone, Debug, Default)]
struct Contacts {
    starts: Vec<u64>,
    last_flow: u64,
    regular: u32,
}

impl Beacons {
    pub(crate) fn new() -> Self {
        Self { services: Recent::new(SERVICES) }
    }

    pub(crate) fn len(&self) -> usize {
        self.services.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.services.evicted()
    }

    /// True when the record is part of a beacon.
    pub(crate) fn observe(&mut self, book: &mut Book, limits: &Limits, r: &FlowRecord) -> bool {
        let (actor, victim) = (Host::source(&r.tuple), Host::destination(&r.tuple));
        if !is_contact(r) || !leaves(limits, &actor, &victim) {
            return false;
        }
        let Some(threshold) = limits.of(AlertKind::Beacon, &actor, &victim) else { return false };
        let most = (threshold as usize).clamp(4, MOST_CONTACTS);
        let service = u32::from(r.tuple.protocol) << 16 | u32::from(r.tuple.dst_port);
        let contacts = self.services.get_or((actor, victim, service), Contacts::default);
        if contacts.last_flow == r.flow_id {
            return false;
        }
        contacts.last_flow = r.flow_id;
        let key = Key { kind: AlertKind::Beacon, actor: Party::Host(actor), victim: Party::Host(victim) };
        // Twice as uneven does not end it.
        let slack = if contacts.regular > 0 { 2.0 } else { 1.0 };
        let even = |rhythm: &Rhythm| rhythm.jitter <= slack * limits.detect.beacon_jitter;
        let rhythm = contacts.add(r.start, most).filter(even);
        let Some(rhythm) = rhythm else {
            contacts.regular = 0;
            return false;
        };
        contacts.regular = if contacts.regular == 0 { most as u32 } else { contacts.regular.saturating_add(1) };
        let count = if contacts.regular == most as u32 { f64::from(contacts.regular) } else { 1.0 };
        let level = f64::from(contacts.regular);
        let last = Sighting { host: Some(victim), count, level, failed: false, ..Sighting::of(r) };
        let window = limits.window.max((rhythm.period * 2e9) as u64);
        let detail = Detail { rhythm: Some(rhythm), ..Detail::default() };
        note(book, key, Bar { threshold, window }, &last, Scene::from(r), detail)
    }
}

/// The beginning of a connection, or a conversation in datagrams.
fn is_contact(r: &FlowRecord) -> bool {
    match r.tuple.protocol {
        attempt::TCP => r.tcp_flags[TO_SERVER] & SYN != 0,
        attempt::UDP => !r.packets.contains(&0) && !matches!(r.tuple.dst_port, 0 | 53 | 67 | 68 | 123 | 443 | 3478),
        _ => false,
    }
}

impl Contacts {
    /// Adds a contact; their rhythm once there are `most` of them, if the distances are those of a beacon.
    fn add(&mut self, start: u64, most: usize) -> Option<Rhythm> {
        let at = self.starts.partition_point(|s| *s <= start);
        self.starts.insert(at, start);
        if self.starts.len() > most {
            self.starts.drain(..self.starts.len() - most);
        }
        let (first, last) = (*self.starts.first()?, *self.starts.last()?);
        let distances = self.starts.len() as u64 - 1;
        if self.starts.len() < most || (last - first) / distances < SHORTEST / 2 {
            return None;
        }
        let mut gaps: Vec<u64> = self.starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let period = median(&mut gaps);
        let mut strays: Vec<u64> = gaps.iter().map(|gap| gap.abs_diff(period)).collect();
        let middle = median(&mut strays);
        let upper = strays.len() * 3 / 4;
        let quarter = *strays.select_nth_unstable(upper).1;
        let jitter = middle.max(quarter / 2) as f64 / period.max(1) as f64;
        let even = (SHORTEST..=LONGEST).contains(&period);
        even.then_some(Rhythm { period: period as f64 / SECOND as f64, jitter })
    }
}

fn median(values: &mut [u64]) -> u64 {
    let middle = values.len() / 2;
    if values.is_empty() { 0 } else { *values.select_nth_unstable(middle).1 }
}
