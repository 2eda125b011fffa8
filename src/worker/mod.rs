//! The lcore loop: receives bursts, takes each packet through the stages, sends what may pass.
//!
//! In: bursts from the receive queues this worker owns. Out: packets on transmit queues nobody else uses,
//! copies on mirror queues, flow records on a bounded ring, observations for the scorer on another. Runs on one
//! lcore; nobody else touches its flow table. When full: a transmit or mirror queue drops the packet or copy and
//! counts it; the rings of records and observations drop and count as well; in replay all of them wait instead.

mod copies;
mod counters;
mod distribution;
mod divert;
mod generation;
mod io;
mod note;
mod observation;
mod reject;
mod sink;
mod spreading;
mod stages;
pub mod tap;
mod verdict;
mod walk;
mod watch;
mod way;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use crate::dpdk::{BURST, Burst, Clock, Mempool};
use crate::flow::{Effort, FlowRecord, FlowTable};
use crate::mirror::Sampler;
use crate::packet::{Fragments, Headers, KeyFrom, Quoted, Spreader};
use crate::rules::Reader;

pub use counters::{Counter, Demand, LOSSES, MIRROR_SLOTS, MirrorCounters, RuleCounters, WorkerCounters};
pub use distribution::{Distributed, Distribution};
pub use divert::Honeypot;
pub use generation::{Generation, MirrorLane};
pub use io::{Egress, Handoff, Ingress, Lane, Output, WhenFull};
pub use note::PacketNote;
pub use observation::{OBSERVATIONS, Observation, Seen};
pub use spreading::{DeviceSpread, Spreading, Strays};
pub use walk::{MOST_WALKS, Mailbox, Walk};
pub use watch::{Paces, Watch};

use copies::Copier;
use io::{Cargo, give_way};
use sink::RingSink;
use stages::{Inquiry, Stamp};
use tap::{TapSet, TapState};
use walk::Walks;

/// How much flow time passes between two steps of expiry.
const SWEEP_EVERY_NS: u64 = 50_000;
/// A pass over the flow table takes so many steps, 5 ms. Tables that had more than 1.6 million flows at a time take longer,
/// one of ten million 30 ms: reading their bounds faster would cost more than one per cent of a core.
const SWEEPS_A_PASS: usize = 100;
const LEAST_PLACES: usize = 1 << 10;
const MOST_PLACES: usize = 1 << 14;
/// Flows looked at in a step, 1.4 million ended ones a second.
const LOOKS: usize = 640;
/// How long a stopping worker waits for the scorer to take its last records.
const LAST_RECORDS_WITHIN: Duration = Duration::from_secs(2);

/// Where time comes from.
#[derive(Clone, Copy, Debug)]
pub enum Timing {
    /// The time-stamp counter, read once per burst, and compared with the system's clock once a second.
    Live(Clock),
    /// The capture's own time, carried in front of each frame. This worker gets `frames` of them and then
    /// is done; the whole capture ends at `end_ns`.
    Capture { frames: u64, end_ns: u64 },
}

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts {
    /// Position among the workers.
    pub id: usize,
    pub workers: usize,
    pub lanes: Vec<Lane>,
    pub outputs: Vec<Output>,
    pub generation: Reader<Generation>,
    pub table: FlowTable,
    pub fragments: Fragments,
    pub key_from: KeyFrom,
    pub timing: Timing,
    /// Headers for mirror copies, and buffers for packets the box makes itself.
    pub clones: Mempool,
    /// Buffers for what is put before copies to a collector.
    pub fronts: Mempool,
    pub packets: Mempool,
    pub records: Arc<ArrayQueue<FlowRecord>>,
    pub notes: Option<Arc<ArrayQueue<PacketNote>>>,
    /// What the scorer wants to know beside records; without, nothing is looked for.
    pub observations: Option<Arc<ArrayQueue<Observation>>>,
    /// What is looked at; nothing ever without.
    pub taps: Option<Reader<TapSet>>,
    /// Who is watched.
    pub watch: Watch,
    pub when_full: WhenFull,
    pub counters: Arc<WorkerCounters>,
    /// Questions about flows.
    pub mailbox: Arc<Mailbox>,
    /// Finish: take no more packets, hand out all records, return.
    pub stop: Arc<AtomicBool>,
    /// Give up waiting for room anywhere.
    pub abort: Arc<AtomicBool>,
    pub seed: u64,
}

/// One worker, ready to run.
#[derive(Debug)]
pub struct Worker {
    parts: WorkerParts,
    sampler: Sampler,
    taps: TapState,
    copier: Copier,
    burst: Burst,
    stamps: [Stamp; BURST],
    headers: Box<[Headers; BURST]>,
    inquiries: Box<[Inquiry; BURST]>,
    /// What the ICMP errors of the burst quote.
    quotes: Box<[Quoted; BURST]>,
    spreader: Spreader,
    sink: RingSink,
    /// Flow time: that of the latest packet or, live, of the latest poll.
    clock: u64,
    next_sweep: u64,
    walks: Walks,
}

impl Worker {
    pub fn new(mut parts: WorkerParts) -> Self {
        let sessions = sessions_of(parts.generation.get());
        let spreader = Spreader::new(parts.key_from, parts.workers, || parts.fragments.another());
        let mut worker = Self {
            sampler: Sampler::new(&sessions, parts.seed, parts.id),
            sink: RingSink::new(&parts),
            taps: TapState::new(parts.taps.take(), parts.id),
            copier: Copier::new(
                parts.generation.get(),
                [&parts.clones, &parts.fronts, &parts.packets],
                parts.seed,
                (parts.id, parts.workers),
            ),
            parts,
            burst: Burst::new(),
            stamps: [Stamp::default(); BURST],
            headers: Box::new([Headers::default(); BURST]),
            inquiries: Box::new([Inquiry::default(); BURST]),
            quotes: Box::new([Quoted::default(); BURST]),
            spreader,
            clock: 0,
            next_sweep: 0,
            walks: Walks::default(),
        };
        worker.keep_lost_packets();
        worker
    }

    /// Touches the memory of the flow table on this lcore, so that no packet has to wait for a page. Takes some tenths
    /// of a second for ten million flows.
    pub fn prefault(&self) {
        self.parts.table.prefault();
    }

    /// Runs until told to stop.
    pub fn run(&mut self) {
        let _alarm = Alarm::new(self.parts.abort.clone());
        while !self.parts.stop.load(Ordering::Relaxed) && !self.is_exhausted() {
            if self.turn() == 0 {
                self.flush();
                self.rest();
            }
        }
        self.finish();
    }

    /// Once round all lanes, up to a burst from each. Returns how many packets that were.
    pub fn turn(&mut self) -> usize {
        self.adopt_newest_generation();
        self.read_clock();
        let mut received = 0;
        for lane in 0..self.parts.lanes.len() {
            received += self.poll(lane);
        }
        self.expire();
        self.answer_questions();
        received
    }

    /// One burst from one lane through all stages.
    fn poll(&mut self, lane: usize) -> usize {
        if !self.may_receive() {
            return 0;
        }
        let received = self.parts.lanes[lane].ingress.receive(&mut self.burst);
        self.parts.counters.batches[received].add(1);
        if received > 0 {
            let sent = self.parts.counters.tx_packets.get();
            self.stamp();
            self.parse();
            self.redistribute(lane);
            self.look_up();
            self.come_to(lane);
            if self.taps.is_on() {
                self.judge_and_act::<true>(lane);
                self.settle_missed();
                self.flush();
                self.settle_taps(lane);
            } else {
                self.judge_and_act::<false>(lane);
                self.settle_missed();
                self.flush();
            }
            self.time(sent);
        }
        received
    }

    /// The quiescent point: no reference to rules is alive here.
    fn adopt_newest_generation(&mut self) {
        if self.parts.generation.refresh() {
            let sessions = sessions_of(self.parts.generation.get());
            self.sampler = Sampler::new(&sessions, self.parts.seed, self.parts.id);
            self.copier.adopt(self.parts.generation.get());
        }
        self.parts.watch.refresh();
        self.adopt_newest_taps();
    }

    fn is_exhausted(&self) -> bool {
        match self.parts.timing {
            Timing::Live(_) => false,
            Timing::Capture { frames, .. } => self.parts.counters.rx_packets.get() >= frames,
        }
    }

    fn read_clock(&mut self) {
        if let Timing::Live(clock) = &mut self.parts.timing {
            self.clock = clock.follow();
        }
    }

    /// Replay waits for buffers instead of letting the device lose what it has read.
    fn may_receive(&self) -> bool {
        if self.parts.when_full == WhenFull::Drop {
            return true;
        }
        // A captured frame of 65,000 bytes takes 32 segments.
        let need = (BURST * 33 * self.parts.workers) as u32;
        while self.parts.packets.available() < need.min(self.parts.packets.size() / 2) {
            if self.parts.abort.load(Ordering::Relaxed) {
                return false;
            }
            give_way();
        }
        true
    }

    /// Ends flows that timed out, a bounded amount of work at a time.
    fn expire(&mut self) {
        if self.clock < self.next_sweep {
            return;
        }
        self.next_sweep = self.clock + SWEEP_EVERY_NS;
        let parts = &mut self.parts;
        let places = (parts.table.places() / SWEEPS_A_PASS).clamp(LEAST_PLACES, MOST_PLACES);
        if parts.table.sweep(self.clock, Effort { places, looks: LOOKS }, &mut self.sink) {
            parts.counters.watermark.store(parts.table.watermark(), Ordering::Release);
        }
        parts.counters.show(&parts.table.stats(), parts.fragments.counters());
    }

    /// A few flow table entries for whoever asked, and a packet for whoever has one to send.
    fn answer_questions(&mut self) {
        let parts = &mut self.parts;
        if !parts.mailbox.is_empty() {
            if let Some((output, packet)) = parts.mailbox.letter()
                && let Some(output) = parts.outputs.get_mut(output)
            {
                output.push(packet, Cargo::Uncounted, &parts.counters);
            }
            self.walks.step(&parts.mailbox, &parts.table, parts.id as u16);
        }
    }

    fn flush(&mut self) {
        let WorkerParts { outputs, lanes, counters, .. } = &mut self.parts;
        outputs.iter_mut().for_each(|output| output.flush(counters));
        lanes.iter_mut().flat_map(|lane| lane.owners.iter_mut().flatten()).for_each(|handoff| handoff.flush(counters));
    }

    /// Counts how long the packets of a burst were in the box: those sent since `tx_packets` was at `before`. One look at
    /// the clock a burst, so a packet that left with the first half of it counts as if it had waited for the second.
    fn time(&self, before: u64) {
        let counters = &self.parts.counters;
        let sent = counters.tx_packets.get() - before;
        if let Timing::Live(clock) = self.parts.timing
            && sent > 0
        {
            counters.latency.record(clock.now().saturating_sub(self.clock), sent);
        }
    }

    fn rest(&self) {
        match self.parts.when_full {
            WhenFull::Drop => crate::dpdk::pause(),
            WhenFull::Wait => give_way(),
        }
    }

    fn finish(&mut self) {
        self.flush();
        let parts = &mut self.parts;
        // No packet waits behind this any more, and the table may hold more flows than the ring.
        self.sink.wait_until(Instant::now() + LAST_RECORDS_WITHIN);
        let end = match parts.timing {
            Timing::Live(_) => self.clock,
            Timing::Capture { end_ns, .. } => end_ns,
        };
        parts.table.finish(end, &mut self.sink);
        parts.counters.show(&parts.table.stats(), parts.fragments.counters());
        parts.counters.watermark.store(u64::MAX, Ordering::Release);
        parts.watch.finish();
        parts.counters.progress.store(u64::MAX, Ordering::Release);
    }
}

/// Raises a flag when its thread panics, so that nobody waits for one that is gone.
#[derive(Debug)]
pub struct Alarm(Arc<AtomicBool>);

impl Alarm {
    pub fn new(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// False when there was no room and waiting is not allowed.
fn push_or_wait<T>(ring: &ArrayQueue<T>, mut item: T, when_full: WhenFull, abort: &AtomicBool) -> bool {
    loop {
        match ring.push(item) {
            Ok(()) => return true,
            Err(_) if when_full == WhenFull::Drop || abort.load(Ordering::Relaxed) => return false,
            Err(back) => item = back,
        }
        give_way();
    }
}

fn sessions_of(generation: &Generation) -> Vec<crate::mirror::Session> {
    generation.mirrors.iter().map(|lane| lane.session.clone()).collect()
}
