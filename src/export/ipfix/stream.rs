//! What one exporting thread does: records from its queue → messages → its collector.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::queue::ArrayQueue;

use super::connection::{Connection, Ready};
use super::counters::Counters;
use super::message::{Message, room};
use super::options::{Dictionary, Directory, statistics};
use super::record::{Column, FIRST_TEMPLATE, SHAPES, Subject, put_record, template_of};
use super::template;
use crate::behaviour::ScoredRecord;
use crate::config::{Ipfix, IpfixTransport};

/// A message waits no longer than this for more records.
const FLUSH_AFTER: Duration = Duration::from_millis(200);
const IDLE: Duration = Duration::from_millis(2);
/// IPv6 and UDP headers.
const HEADERS: usize = 48;
/// Over TCP there is no packet to fit into.
const TCP_MESSAGE: usize = 16 * 1024;
/// How long the end of a run waits for a collector that is away.
const LAST_TRY: Duration = Duration::from_secs(3);
/// How long a run that must lose nothing waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Messages a second over UDP when nothing may be lost: the socket of a collector that runs on two busy CPUs with the
/// system's default buffer holds about a tenth of a second.
const PACE: u32 = 1000;

/// The state of one exporting thread.
#[derive(Debug)]
pub struct Stream {
    settings: Ipfix,
    names: NamesOf,
    queue: Arc<ArrayQueue<ScoredRecord>>,
    counters: Arc<Counters>,
    /// Nothing may be lost: waits for the collector, and gives up instead of going on without it.
    lossless: bool,
    connection: Connection,
    message: Message,
    /// Records in `message`, with their packets and octets.
    waiting: [u64; 3],
    dictionary: Dictionary,
    columns: Vec<Vec<&'static Column>>,
    /// Data records before `message`, in this transport session.
    sequence: u32,
    /// Of the records lost before this stream, those that `sequence` has.
    skipped: u64,
    refreshed: Option<(Instant, u32)>,
    filled_at: Instant,
    pace: Pace,
    /// A message was given up because the collector stayed away; the others are too.
    gave_up: bool,
    scratch: Vec<u8>,
}

/// [`Directory`] has no `Debug`.
struct NamesOf(Arc<dyn Directory>);

impl std::fmt::Debug for NamesOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NamesOf")
    }
}

impl Stream {
    pub fn new(
        settings: &Ipfix,
        names: Arc<dyn Directory>,
        queue: Arc<ArrayQueue<ScoredRecord>>,
        counters: Arc<Counters>,
        lossless: bool,
    ) -> Self {
        let limit = match settings.transport {
            IpfixTransport::Udp => usize::from(settings.mtu) - HEADERS,
            IpfixTransport::Tcp => TCP_MESSAGE,
        };
        let pace = lossless && settings.transport == IpfixTransport::Udp;
        Self {
            connection: Connection::new(&settings.collector, settings.transport),
            message: Message::new(limit),
            waiting: [0; 3],
            dictionary: Dictionary::default(),
            columns: SHAPES.iter().map(|shape| shape.columns().collect()).collect(),
            sequence: 0,
            skipped: 0,
            refreshed: None,
            filled_at: Instant::now(),
            pace: Pace { begun: Instant::now(), sent: 0, per_second: pace.then_some(PACE) },
            gave_up: false,
            scratch: Vec::with_capacity(512),
            settings: settings.clone(),
            names: NamesOf(names),
            queue,
            counters,
            lossless,
        }
    }

    /// Until the queue is closed and empty.
    pub fn run(mut self) {
        loop {
            // Before the queue is looked at: what was put in before it was closed must be seen.
            let closed = self.counters.closed.load(Ordering::Acquire);
            let mut idle = true;
            while let Some(record) = self.queue.pop() {
                idle = false;
                self.record(&record);
            }
            if closed {
                break;
            }
            self.note_breaks();
            if self.message.is_empty() {
                self.keep_up();
            } else if self.filled_at.elapsed() > FLUSH_AFTER {
                self.flush();
            }
            if idle {
                std::thread::sleep(IDLE);
            }
        }
        self.flush();
        if matches!(self.connection.ready(), Ready::Open) {
            self.tell_statistics();
        }
        if let Err(error) = self.connection.finish(self.last_wait()) {
            self.complain(Some(error));
        }
        self.note_breaks();
        self.counters.finished.store(true, Ordering::Release);
    }

    fn record(&mut self, scored: &ScoredRecord) {
        let mut tell = Vec::new();
        let room = room(self.message.limit());
        let mirror_set = self.dictionary.introduce(scored, &*self.names.0, room, &mut tell);
        for (set, bytes) in tell {
            self.add(set, &bytes);
        }
        let template = template_of(&scored.record);
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let columns = &self.columns[usize::from(template - FIRST_TEMPLATE)];
        put_record(&mut bytes, columns, &Subject { scored, mirror_set });
        self.add(template, &bytes);
        self.scratch = bytes;
        let r = &scored.record;
        for (sum, more) in self.waiting.iter_mut().zip([1, r.packets.iter().sum(), r.bytes.iter().sum()]) {
            *sum += more;
        }
    }

    /// Into the message, or the next one.
    fn add(&mut self, set: u16, bytes: &[u8]) {
        if self.message.is_empty() {
            self.filled_at = Instant::now();
        }
        if !self.message.add(set, bytes) {
            self.flush();
            self.filled_at = Instant::now();
            let fits = self.message.add(set, bytes);
            debug_assert!(fits, "records are shorter than the shortest message");
        }
    }

    /// With nothing to send: connects, and repeats the templates when it is time, for collectors that have restarted.
    fn keep_up(&mut self) {
        let refresh = match self.connection.ready() {
            Ready::New => {
                self.new_session();
                true
            }
            Ready::Open => self.refresh_is_due(),
            Ready::Later(_, error) => return self.complain(error),
        };
        if refresh {
            self.refresh();
        }
    }

    /// Sends the message, or counts it as lost; it is empty afterwards.
    fn flush(&mut self) {
        if self.message.is_empty() {
            return;
        }
        let began = Instant::now();
        let mut sent = false;
        while !sent && !self.hopeless(began) {
            match self.connection.ready() {
                Ready::New => {
                    self.new_session();
                    self.refresh();
                }
                Ready::Open if self.refresh_is_due() => self.refresh(),
                Ready::Open => {}
                Ready::Later(at, error) => {
                    self.complain(error);
                    std::thread::sleep((at - Instant::now()).min(Duration::from_millis(20)));
                    continue;
                }
            }
            sent = self.transmit();
        }
        if !sent {
            self.gave_up = true;
            self.counters.lose(self.waiting);
        }
        self.sequence = self.sequence.wrapping_add(self.message.data_records());
        self.message.clear();
        self.waiting = [0; 3];
    }

    /// Whether to give the message up: over UDP after a second try, over TCP at the end of a run or when a run that must
    /// lose nothing has waited long enough. Otherwise the queue fills, and what it cannot take is counted.
    fn hopeless(&self, began: Instant) -> bool {
        let closed = self.counters.closed.load(Ordering::Acquire);
        self.gave_up || ((closed || self.lossless) && began.elapsed() > self.last_wait())
    }

    fn last_wait(&self) -> Duration {
        if self.lossless { PATIENCE } else { LAST_TRY }
    }

    fn note_breaks(&self) {
        self.counters.broken.store(self.connection.broken(), Ordering::Relaxed);
    }

    /// Once, and over UDP once more: the first error there is that of an earlier message.
    fn transmit(&mut self) -> bool {
        self.skip_lost();
        let tries = if self.settings.transport == IpfixTransport::Udp { 2 } else { 1 };
        for _ in 0..tries {
            self.pace.wait();
            let bytes = self.message.finish(unix_seconds(), self.sequence, self.settings.domain);
            let length = bytes.len();
            match self.connection.send(bytes, self.waiting[0]) {
                Ok(()) => {
                    self.counters.sent(length, self.waiting[0]);
                    return true;
                }
                Err(error) => self.complain(Some(error)),
            }
        }
        // A datagram that cannot be sent is lost like any other.
        if self.settings.transport == IpfixTransport::Udp {
            self.counters.lose(self.waiting);
            return true;
        }
        false
    }

    /// Records that found the queue full take their numbers with them, so that the collector sees the gap.
    fn skip_lost(&mut self) {
        let lost = self.counters.overflowed.load(Ordering::Relaxed);
        self.sequence = self.sequence.wrapping_add((lost - self.skipped) as u32);
        self.skipped = lost;
    }

    fn new_session(&mut self) {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        self.sequence = 0;
        self.skipped = self.counters.overflowed.load(Ordering::Relaxed);
        self.refreshed = None;
    }

    fn refresh_is_due(&self) -> bool {
        let messages = self.counters.messages.load(Ordering::Relaxed) as u32;
        self.refreshed.is_none_or(|(at, number)| {
            at.elapsed() >= self.settings.template_refresh
                || messages.wrapping_sub(number) >= self.settings.template_messages
        })
    }

    /// Templates (over TCP once in a session), what they need to be understood, and statistics.
    fn refresh(&mut self) {
        let first = self.refreshed.is_none();
        let (enterprise, domain) = (self.settings.enterprise_number, self.settings.domain);
        let mut records = Vec::new();
        if first || self.settings.transport == IpfixTransport::Udp {
            records = template::all(enterprise);
        }
        let room = room(self.message.limit());
        records.extend(self.dictionary.everything(&*self.names.0, enterprise, domain, room));
        records.extend(statistics(&self.counters.statistics(), domain));
        self.send_apart(records);
        // From its end: a refresh of very many names must not make the next one due.
        self.refreshed = Some((Instant::now(), self.counters.messages.load(Ordering::Relaxed) as u32));
    }

    fn tell_statistics(&mut self) {
        self.skip_lost();
        let records = statistics(&self.counters.statistics(), self.settings.domain);
        self.send_apart(records.into());
    }

    /// In messages of their own, before the one that is being filled.
    fn send_apart(&mut self, records: Vec<(u16, Vec<u8>)>) {
        let limit = self.message.limit();
        let waiting = std::mem::replace(&mut self.message, Message::new(limit));
        let flows = std::mem::take(&mut self.waiting);
        let mut working = true;
        for (set, bytes) in &records {
            if !self.message.add(*set, bytes) {
                working = working && self.transmit();
                self.sequence = self.sequence.wrapping_add(self.message.data_records());
                self.message.clear();
                self.message.add(*set, bytes);
            }
        }
        if working {
            self.transmit();
        }
        self.sequence = self.sequence.wrapping_add(self.message.data_records());
        self.message = waiting;
        self.waiting = flows;
    }

    fn complain(&self, error: Option<std::io::Error>) {
        let Some(error) = error else { return };
        let times = self.counters.errors.fetch_add(1, Ordering::Relaxed) + 1;
        // The first time, and then ever more seldom.
        if times.is_power_of_two() {
            log::warn!("IPFIX collector {}: {error} (failed {times} times)", self.settings.collector);
        }
    }
}

/// Spreads messages evenly over time.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    sent: u32,
    per_second: Option<u32>,
}

impl Pace {
    fn wait(&mut self) {
        let Some(per_second) = self.per_second else { return };
        let due = Duration::from_secs(1) * self.sent / per_second;
        let passed = self.begun.elapsed();
        if passed < due {
            std::thread::sleep(due - passed);
        } else if passed > due + FLUSH_AFTER || self.sent >= per_second {
            // What was not sent while there was nothing to send gives no right to a burst.
            (self.begun, self.sent) = (Instant::now(), 0);
        }
        self.sent += 1;
    }
}

fn unix_seconds() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32
}
