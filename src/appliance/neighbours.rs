//! The control thread that finds and checks collectors: it alone receives from mirror ports.
//!
//! Workers own all transmit queues, of which some devices have no more than one each; what is said here is posted to the
//! first worker, which sends it between bursts. What is received and is no answer and no question for a target's own
//! address is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::dpdk::{Burst, Clock, Mbuf, Mempool, RxQueue};
use crate::mirror::hops::{Heard, Hops, Watch, answer};
use crate::worker::Mailbox;

/// Between two looks, with and without anybody to look after.
const EVERY: Duration = Duration::from_millis(2);
const IDLE: Duration = Duration::from_millis(50);
/// Bursts taken from a queue in one look: a million packets a second.
const MOST_BURSTS: usize = 64;
/// Longest frame that is of interest.
const LONGEST: usize = 512;

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Neighbours {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbours {
    /// `queues` are those of the mirror ports, with the index of each port, which is also that of the worker's output.
    pub fn start(
        queues: Vec<(usize, RxQueue)>,
        hops: Arc<Hops>,
        mailbox: Arc<Mailbox>,
        packets: Mempool,
    ) -> Result<Self> {
        let stop: Arc<AtomicBool> = Arc::default();
        let (ended, clock) = (stop.clone(), Clock::start());
        let mut desk = Desk { queues, hops, mailbox, packets, clock, watches: Vec::new(), numbers: 0 };
        let run = move || {
            let mut burst = Burst::new();
            while !ended.load(Ordering::Relaxed) {
                desk.look_for_changes();
                desk.look(&mut burst);
                std::thread::sleep(if desk.watches.is_empty() { IDLE } else { EVERY });
            }
        };
        let thread = std::thread::Builder::new().name("neighbours".into()).spawn(run);
        Ok(Self { stop, thread: Some(thread.context("starting the thread that finds collectors")?) })
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that finds collectors panicked");
        }
    }
}

#[derive(Debug)]
struct Desk {
    queues: Vec<(usize, RxQueue)>,
    hops: Arc<Hops>,
    mailbox: Arc<Mailbox>,
    packets: Mempool,
    clock: Clock,
    watches: Vec<Watch>,
    /// Watches so far.
    numbers: u16,
}

impl Desk {
    /// Reloads bring and take routes.
    fn look_for_changes(&mut self) {
        let known = self.hops.all();
        self.watches.retain(|watch| known.iter().any(|(_, hop)| Arc::ptr_eq(hop, &watch.hop)));
        for (route, hop) in known {
            if !self.watches.iter().any(|watch| Arc::ptr_eq(&watch.hop, &hop)) {
                self.numbers = self.numbers.wrapping_add(1);
                self.watches.push(Watch::new(route, hop, self.numbers, self.clock.now()));
            }
        }
    }

    fn look(&mut self, burst: &mut Burst) {
        for at in 0..self.queues.len() {
            let port = self.queues[at].0;
            if !self.watches.iter().any(|watch| watch.route.port == port) {
                continue;
            }
            for _ in 0..MOST_BURSTS {
                if self.queues[at].1.receive(burst) == 0 {
                    break;
                }
                (0..burst.len()).for_each(|i| self.hear(port, burst.frame(i)));
            }
            burst.clear();
        }
        let now = self.clock.now();
        let Self { watches, mailbox, packets, .. } = self;
        for watch in watches {
            let port = watch.route.port;
            watch.step(now, &mut |frame| post(mailbox, packets, port, frame));
        }
    }

    fn hear(&mut self, port: usize, frame: &[u8]) {
        let Some((vlan, heard)) = Some(frame).filter(|frame| frame.len() <= LONGEST).and_then(Heard::of) else {
            return;
        };
        let now = self.clock.now();
        let Self { watches, mailbox, packets, .. } = self;
        let mut send = |frame: &[u8]| post(mailbox, packets, port, frame);
        let here = |watch: &&mut Watch| watch.route.port == port && watch.route.vlan == vlan;
        let mut answered = false;
        for watch in watches.iter_mut().filter(here) {
            // Several routes have one address.
            if !answered && let Some(reply) = answer(&watch.route, &heard) {
                send(&reply);
                answered = true;
            }
            watch.hear(&heard, now, &mut send);
        }
    }
}

/// Nobody relies on it: questions and probes are sent again.
fn post(mailbox: &Mailbox, packets: &Mempool, port: usize, frame: &[u8]) {
    if let Some(packet) = Mbuf::with_bytes(packets, frame, 0) {
        let _ = mailbox.post(port, packet);
    }
}
