//! Sessions that are too short or too slow to be work: guessed passwords, web servers kept busy with nothing.
//!
//! **Brute force** counts short complete connections of one host to one login service (`is_login`): each under 16 KiB
//! either way and a minute, and much like the one before (a guess is like another; what works there differs from time to
//! time), within `window`, when they are as many as all others together. The threshold, 20, is that of Zeek's detector of
//! FTP guessing. People and scripts that work there stay longer, move more, or come less often. Slowly it is three times
//! the threshold within `slow_window`, between hosts that did not begin with that while it was learnt what is usual, and
//! not more than half a day ago: checks look the same, and go on. Web logins are not seen: a page that is guessed at looks
//! like one that is read. Nor is SMB, where one connection holds many guesses.
//!
//! **Slow HTTP** counts connections to one web service that lasted ten seconds or more and in which the client sent
//! something, but at less than 100 bytes of payload a second, and the server nothing or less than a page of error (1 KiB),
//! within `window`, when they outweigh all others. Idle browsers keep a few connections open that brought a page before;
//! the threshold, 50, is a third of what Apache serves at a time as Debian ships it (150 `MaxRequestWorkers`).

use crate::behaviour::alert::{AlertKind, Party};
use crate::behaviour::bounded::Recent;
use crate::flow::{EndReason, FlowRecord, TO_CLIENT, TO_SERVER};

use super::attempt::{self, Outcome};
use super::book::Book;
use super::episode::{Bar, Key};
use super::gauge::{Count, Gauges};
use super::limits::Limits;
use super::nanoseconds;
use super::service;
use crate::packet::Host;

const SECOND: u64 = 1_000_000_000;
/// A guess: payload bytes either way, and how long it takes.
const GUESS_BYTES: u64 = 16 << 10;
const GUESS_LASTS: u64 = 60 * SECOND;
/// Two guesses differ by so many bytes, or by a quarter.
const ALIKE_BYTES: u64 = 64;
/// Slow guessing: times the threshold, how long ago it began at most, and after how long without it is a beginning.
const SLOWLY: f64 = 3.0;
const RECENT: u64 = 12 * 3600 * SECOND;
const FORGOTTEN: u64 = 6 * 3600 * SECOND;
const PAIRS: usize = 8_192;
/// A slow request: how long at least, payload a second of the client, payload of the server in all.
const SLOW_LASTS: u64 = 10 * SECOND;
const SLOW_RATE: u64 = 100;
const ERROR_PAGE: u64 = 1 << 10;

/// What is remembered of who logs in where.
#[derive(Clone, Debug)]
pub(crate) struct Logins {
    pairs: Recent<(Host, Host, u16), Login>,
    /// Time of the first record.
    began: Option<u64>,
}

/// The latest session, and since when they come.
#[derive(Clone, Copy, Debug, Default)]
struct Login {
    payload: [u64; 2],
    first: u64,
    last: u64,
}

impl Logins {
    pub(crate) fn new() -> Self {
        Self { pairs: Recent::new(PAIRS), began: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.pairs.evicted()
    }

    /// Whether a session is like the one before, and whether they began of late.
    fn note(&mut self, limits: &Limits, r: &FlowRecord) -> (bool, bool) {
        let began = *self.began.get_or_insert(r.start);
        let key = (Host::source(&r.tuple), Host::destination(&r.tuple), r.tuple.dst_port);
        let payload = r.payload_bytes;
        let login = self.pairs.get_or(key, || Login { payload, first: r.start, last: r.start });
        if r.start.saturating_sub(login.last) > FORGOTTEN {
            login.first = r.start;
        }
        login.last = login.last.max(r.start);
        let near = |way: usize| payload[way].abs_diff(login.payload[way]) <= ALIKE_BYTES.max(login.payload[way] / 4);
        let alike = near(TO_SERVER) && near(TO_CLIENT);
        login.payload = payload;
        let learnt = login.first.saturating_sub(began) >= nanoseconds(limits.detect.learning);
        (alike, learnt && r.start.saturating_sub(login.first) <= RECENT)
    }
}

/// True when the record is part of guessing.
pub(crate) fn guess(
    (logins, gauges): (&mut Logins, &mut Gauges),
    book: &mut Book,
    limits: &Limits,
    r: &FlowRecord,
    outcome: Outcome,
) -> bool {
    let login = r.tuple.protocol == attempt::TCP && service::is_login(r.tuple.dst_port);
    if !login || outcome != Outcome::Served || r.reason == EndReason::Active {
        return false;
    }
    let [up, down] = r.payload_bytes;
    let short = r.end.saturating_sub(r.start) <= GUESS_LASTS && up.max(down) <= GUESS_BYTES && up.min(down) > 0;
    let (actor, victim) = (Host::source(&r.tuple), Host::destination(&r.tuple));
    let Some(threshold) = limits.of(AlertKind::BruteForce, &actor, &victim) else { return false };
    let (alike, lately) = logins.note(limits, r);
    let key = Key { kind: AlertKind::BruteForce, actor: Party::Host(actor), victim: Party::Host(victim) };
    let weight = if short && alike { (1.0, 0.0) } else { (0.0, 1.0) };
    let mut counted = |part: u32, bar: Bar| {
        let part = part << 16 | u32::from(r.tuple.dst_port);
        gauges.count(book, &Count { key, part, weight, per: 1.0, bar, over: None, host: victim }, r)
    };
    let quick = counted(0, Bar { threshold, window: limits.window });
    let slow = lately && counted(1, Bar { threshold: SLOWLY * threshold, window: limits.slow_window });
    quick || slow
}

/// True when the record is part of keeping a web server busy.
pub(crate) fn slow(gauges: &mut Gauges, book: &mut Book, limits: &Limits, r: &FlowRecord, outcome: Outcome) -> bool {
    let web = r.tuple.protocol == attempt::TCP && service::is_web(r.tuple.dst_port);
    if !web || outcome != Outcome::Served {
        return false;
    }
    let (actor, victim) = (Host::source(&r.tuple), Host::destination(&r.tuple));
    let Some(threshold) = limits.of(AlertKind::SlowHttp, &actor, &victim) else { return false };
    let key = Key { kind: AlertKind::SlowHttp, actor: Party::Many, victim: Party::Host(victim) };
    let weight = if is_slow(r) { (1.0, 0.0) } else { (0.0, 1.0) };
    let bar = Bar { threshold, window: limits.window };
    let part = r.tuple.dst_port.into();
    // Counted where it began.
    let began = FlowRecord { end: r.start, ..*r };
    gauges.count(book, &Count { key, part, weight, per: 1.0, bar, over: None, host: actor }, &began)
}

fn is_slow(r: &FlowRecord) -> bool {
    let lasts = r.end.saturating_sub(r.start);
    let [up, down] = r.payload_bytes;
    let trickles = up > 0 && up <= SLOW_RATE * (lasts / SECOND);
    lasts >= SLOW_LASTS && trickles && down <= ERROR_PAGE && r.packets[TO_SERVER] > 3 && r.packets[TO_CLIENT] > 0
}
