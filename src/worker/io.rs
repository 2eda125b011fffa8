//! Where a worker's packets come from and go to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::dpdk::{BURST, Burst, Mbuf, Outbox, PacketRing, RxQueue, TxQueue, pause};
use crate::packet::DropReason;

use super::counters::{MIRROR_SLOTS, WorkerCounters};
use super::spreading::Spreading;

/// A source of bursts.
#[derive(Debug)]
pub enum Ingress {
    Device(RxQueue),
    /// Packets that other threads put there: another worker's share, or a test.
    Ring(PacketRing),
}

impl Ingress {
    pub(super) fn receive(&mut self, burst: &mut Burst) -> usize {
        match self {
            Ingress::Device(queue) => queue.receive(burst),
            Ingress::Ring(ring) => ring.receive(burst),
        }
    }
}

/// A sink of packets.
#[derive(Debug)]
pub enum Egress {
    Device(TxQueue),
    Ring(PacketRing),
}

impl Egress {
    fn send(&mut self, outbox: &mut Outbox) -> usize {
        match self {
            Egress::Device(queue) => queue.send(outbox),
            Egress::Ring(ring) => ring.send(outbox),
        }
    }
}

/// What to do when a queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Count and go on: live traffic waits for nobody.
    Drop,
    /// Wait for room: replay loses nothing.
    Wait,
}

/// One input of a worker.
#[derive(Debug)]
pub struct Lane {
    pub ingress: Ingress,
    /// Index into the worker's outputs: where allowed packets go; `None` when the port has no pair.
    pub forward: Option<usize>,
    /// Where answers to the sender go.
    pub back: Option<usize>,
    pub spreading: Spreading,
    /// Other workers' lanes of the same port, by worker, unless packets here were already spread over the workers.
    pub owners: Vec<Option<Handoff>>,
}

/// Packets for another worker.
#[derive(Debug)]
pub struct Handoff {
    pub ring: PacketRing,
    pub(super) outbox: Outbox,
    /// Place in the burst of each packet in the outbox.
    at: [u8; BURST],
    pub(super) lost: Lost,
}

impl Handoff {
    pub fn new(ring: PacketRing) -> Self {
        Self { ring, outbox: Outbox::new(), at: [0; BURST], lost: Lost::new() }
    }

    /// Passes packet `at` of the burst on; counts what does not fit.
    pub(super) fn push(&mut self, packet: Mbuf, at: usize, counters: &WorkerCounters) {
        if self.outbox.is_full() {
            self.flush(counters);
        }
        self.at[self.outbox.len()] = at as u8;
        match self.outbox.push(packet) {
            Ok(()) => {}
            Err(packet) => count_unowned(1, packet.len() as u64, counters),
        }
    }

    pub(super) fn flush(&mut self, counters: &WorkerCounters) {
        if self.outbox.is_empty() {
            return;
        }
        let sent = self.ring.send(&mut self.outbox);
        counters.redistributed.add(sent as u64);
        let mut kept = 0;
        if self.lost.keep {
            let at = &self.at;
            kept = self.lost.take_in(&mut self.outbox, |n| Cargo::Forwarded { bytes: 0, at: at[sent + n] });
        }
        let (lost, bytes) = self.outbox.discard();
        count_unowned(lost, bytes + kept, counters);
    }
}

/// Packets whose owner had no room: received here after all, and dropped here.
fn count_unowned(packets: u64, bytes: u64, counters: &WorkerCounters) {
    counters.rx_packets.add(packets);
    counters.rx_bytes.add(bytes);
    counters.drops[DropReason::RedistributionFull.index()].add(packets);
}

/// What a packet in an output is, for counting when its fate is known. `at` is the place in the burst of the packet
/// that it is, answers or copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cargo {
    Forwarded {
        bytes: u32,
        at: u8,
    },
    Generated {
        at: u8,
    },
    /// What counts for nothing here: another thread's packet, a piece of a copy before the last one.
    Uncounted,
    /// `bit` is that of the session in the generation, `slot` that of its counters.
    Mirrored {
        slot: u8,
        bit: u8,
        bytes: u32,
        at: u8,
    },
}

// One store each in the way of a packet.
const _: () = assert!(size_of::<Cargo>() == 8 && MIRROR_SLOTS <= 256);

/// What full queues lost of a burst; kept only while somebody looks at packets.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) keep: bool,
    /// Packets that were to be forwarded or handed over, with their places in the burst.
    pub(super) packets: Vec<(u8, Mbuf)>,
    /// Places in the burst, a bit each, of packets whose answer was lost.
    pub(super) answers: u32,
    /// By place in the burst, sessions whose copy was lost.
    pub(super) copies: [u64; BURST],
}

impl Lost {
    fn new() -> Self {
        Self { keep: false, packets: Vec::with_capacity(BURST), answers: 0, copies: [0; BURST] }
    }

    /// What is left in an outbox; `cargo` says what its n-th packet is. Returns the bytes of the packets it took.
    fn take_in(&mut self, outbox: &mut Outbox, cargo: impl Fn(usize) -> Cargo) -> u64 {
        let mut bytes = 0;
        for n in 0..outbox.len() {
            match cargo(n) {
                Cargo::Uncounted => {}
                Cargo::Generated { at } => self.answers |= 1 << at,
                Cargo::Mirrored { at, bit, .. } => self.copies[usize::from(at)] |= 1 << bit,
                Cargo::Forwarded { at, .. } => {
                    // A place in the burst is lost at most once, so there is room.
                    let packet = outbox.take(n).filter(|_| self.packets.len() < BURST);
                    bytes += packet.as_ref().map_or(0, |packet| packet.len() as u64);
                    self.packets.extend(packet.map(|packet| (at, packet)));
                }
            }
        }
        bytes
    }

    /// For the next burst.
    pub(super) fn clear(&mut self) {
        self.packets.clear();
        self.answers = 0;
        self.copies = [0; BURST];
    }
}

/// One output of a worker: a transmit queue nobody else uses, with a burst in front.
#[derive(Debug)]
pub struct Output {
    egress: Egress,
    outbox: Outbox,
    cargo: [Cargo; BURST],
    pub(super) lost: Lost,
    /// Kept by the control thread.
    link_up: Arc<AtomicBool>,
    when_full: WhenFull,
    abort: Arc<AtomicBool>,
    patience: Patience,
}

/// Keeps from making copies that a full queue will not take: after it was found full it is offered none for some flushes,
/// then a few, and when it takes them, as many as there are.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Copies that it is still offered before the next flush.
    offer: u32,
    /// Flushes until it is offered the next ones, and how many it was the last time.
    pause: u8,
    last_pause: u8,
}

/// Flushes that a queue which takes nothing is left alone, and copies that it is then offered.
const LONGEST_PAUSE: u8 = 64;
const PROBE: u32 = 4;

impl Patience {
    const FULL_TRUST: Patience = Patience { offer: u32::MAX, pause: 0, last_pause: 0 };

    /// After a flush: the queue was found full, having taken `sent` packets. One that takes some is slow, not stuck.
    #[cold]
    fn refused(&mut self, sent: usize) {
        if sent > 0 {
            *self = Self::FULL_TRUST;
            return;
        }
        self.last_pause = (self.last_pause * 2).clamp(1, LONGEST_PAUSE);
        self.pause = self.last_pause;
        self.offer = 0;
    }

    /// After a flush that left nothing.
    fn took(&mut self, sent: usize) {
        if self.pause > 0 {
            self.pause -= 1;
            self.offer = if self.pause == 0 { PROBE } else { 0 };
        } else if sent > 0 {
            *self = Self::FULL_TRUST;
        }
    }
}

impl Output {
    /// `abort` ends waiting for room, should the reader be gone.
    pub fn new(egress: Egress, link_up: Arc<AtomicBool>, when_full: WhenFull, abort: Arc<AtomicBool>) -> Self {
        let cargo = [Cargo::Generated { at: 0 }; BURST];
        Self {
            egress,
            outbox: Outbox::new(),
            cargo,
            lost: Lost::new(),
            link_up,
            when_full,
            abort,
            patience: Patience::FULL_TRUST,
        }
    }

    /// Whether a copy is worth making.
    #[inline]
    pub(super) fn wants_copy(&self) -> bool {
        self.patience.offer > 0
    }

    /// As [`push`](Self::push), for a copy that the queue [wants](Self::wants_copy): it and what goes before it, less than a
    /// burst, are sent or lost together.
    #[inline]
    pub(super) fn push_copy(&mut self, before: &mut Vec<Mbuf>, packet: Mbuf, cargo: Cargo, counters: &WorkerCounters) {
        self.patience.offer = self.patience.offer.saturating_sub(1);
        if !before.is_empty() {
            if self.outbox.len() + before.len() + 1 > BURST {
                self.flush(counters);
            }
            before.drain(..).for_each(|piece| self.push(piece, Cargo::Uncounted, counters));
        }
        self.push(packet, cargo, counters);
    }

    pub(super) fn is_up(&self) -> bool {
        self.link_up.load(Ordering::Relaxed)
    }

    pub(super) fn push(&mut self, packet: Mbuf, cargo: Cargo, counters: &WorkerCounters) {
        if self.outbox.is_full() {
            self.flush(counters);
        }
        let at = self.outbox.len();
        // After a flush there is room: it empties the outbox one way or the other.
        if self.outbox.push(packet).is_ok() {
            self.cargo[at] = cargo;
        } else {
            count_lost(cargo, counters);
        }
    }

    /// Sends what is waiting; what the device does not take is counted and freed, or waited for.
    pub(super) fn flush(&mut self, counters: &WorkerCounters) {
        let total = self.outbox.len();
        let mut done = 0;
        while done < total {
            let sent = self.egress.send(&mut self.outbox);
            self.cargo[done..done + sent].iter().for_each(|cargo| count_sent(*cargo, counters));
            done += sent;
            if done < total && !self.may_wait(sent) {
                self.cargo[done..total].iter().for_each(|cargo| count_lost(*cargo, counters));
                if self.lost.keep {
                    self.lost.take_in(&mut self.outbox, |n| self.cargo[done + n]);
                }
                self.outbox.discard();
                self.patience.refused(done);
                return;
            }
        }
        self.patience.took(total);
    }

    /// Whether to try again after a send that took `sent` packets.
    fn may_wait(&self, sent: usize) -> bool {
        match self.when_full {
            WhenFull::Drop => false,
            WhenFull::Wait => {
                if sent == 0 {
                    give_way();
                }
                !self.abort.load(Ordering::Relaxed)
            }
        }
    }
}

/// Lets the thread that empties a queue run; only in replay, where several share a core.
pub(super) fn give_way() {
    pause();
    std::thread::yield_now();
}

fn count_sent(cargo: Cargo, counters: &WorkerCounters) {
    match cargo {
        Cargo::Forwarded { bytes, .. } => {
            counters.tx_packets.add(1);
            counters.tx_bytes.add(bytes.into());
        }
        Cargo::Uncounted => {}
        Cargo::Generated { .. } => counters.generated.add(1),
        Cargo::Mirrored { slot, bytes, .. } => {
            let session = &counters.mirrors[usize::from(slot)];
            session.packets.add(1);
            session.bytes.add(bytes.into());
        }
    }
}

fn count_lost(cargo: Cargo, counters: &WorkerCounters) {
    match cargo {
        Cargo::Forwarded { .. } => counters.dropped(DropReason::TransmitFull),
        Cargo::Uncounted => {}
        Cargo::Generated { .. } => counters.generated_lost.add(1),
        Cargo::Mirrored { slot, .. } => counters.mirrors[usize::from(slot)].lost_queue.add(1),
    }
}
