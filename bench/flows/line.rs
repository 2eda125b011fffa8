//! One worker between two rings, on a thread of its own, and the frames that go through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use crossbeam::queue::ArrayQueue;
use gnomon::appliance::{PolicyHost, Summary, Targets};
use gnomon::config::{self, Config};
use gnomon::dpdk::{Clock, Eal, Mempool, PacketRing};
use gnomon::flow::{FlowRecord, FlowTable};
use gnomon::packet::Fragments;
use gnomon::worker::{Egress, Ingress, Lane, Output, Timing, WhenFull, Worker, WorkerCounters, WorkerParts};

const FIRST_MIRROR: usize = 2;

/// Who may talk to whom, as on a small gateway.
pub const POLICY: &str = r#"
[policy]
default = "deny"
[[group]]
name = "clients"
cidrs = ["10.0.0.0/8", "fd00:1::/32"]
[[group]]
name = "servers"
cidrs = ["192.168.0.0/16", "fd00:2::/32"]
[[group]]
name = "admins"
cidrs = ["10.255.0.0/16"]
[[rule]]
id = "ssh"
from = "admins"
to = "servers"
protocol = "tcp"
ports = 22
action = "allow"
[[rule]]
id = "web"
from = "clients"
to = "servers"
protocol = "tcp"
ports = [80, 443]
action = "allow"
[[rule]]
id = "quic"
from = "clients"
to = "servers"
protocol = "udp"
ports = [53, 443]
action = "allow"
"#;

pub struct Line {
    pub input: PacketRing,
    pub output: PacketRing,
    pub records: Arc<ArrayQueue<FlowRecord>>,
    pub counters: Arc<WorkerCounters>,
    pub host: PolicyHost,
    stop: Arc<AtomicBool>,
    running: Option<JoinHandle<Worker>>,
}

impl Line {
    pub fn start(
        eal: &Arc<Eal>,
        packets: &Mempool,
        clones: &Mempool,
        policy: &str,
        name: &str,
        cpu: usize,
    ) -> Result<Self> {
        let config = config::parse(policy, "bench.toml").map_err(|problems| anyhow!("{problems}"))?;
        let ring = |what: &str, size| PacketRing::new(eal, &format!("{name}_{what}"), size);
        let (input, output, back) = (ring("in", 8192)?, ring("out", 8192)?, ring("back", 1024)?);
        let mut line = Self {
            input,
            output,
            records: Arc::new(ArrayQueue::new(65_536)),
            counters: Arc::new(WorkerCounters::new(config.limits.rules)),
            host: PolicyHost::new(&config, Targets::BySession { first: FIRST_MIRROR }, 0)?,
            stop: Arc::new(AtomicBool::new(false)),
            running: None,
        };
        let parts = line.parts(&config, packets, clones, back);
        let mut worker = Worker::new(parts);
        line.running = Some(std::thread::spawn(move || {
            core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
            worker.prefault();
            worker.run();
            worker
        }));
        Ok(line)
    }

    fn parts(&mut self, config: &Config, packets: &Mempool, clones: &Mempool, back: PacketRing) -> WorkerParts {
        let up = Arc::new(AtomicBool::new(true));
        let abort = Arc::new(AtomicBool::new(false));
        let output =
            |ring: &PacketRing| Output::new(Egress::Ring(ring.clone()), up.clone(), WhenFull::Drop, abort.clone());
        let ingress = Ingress::Ring(self.input.clone());
        WorkerParts {
            id: 0,
            workers: 1,
            lanes: vec![Lane { ingress, forward: Some(0), back: Some(1), spread: true, owners: Vec::new() }],
            outputs: [&self.output, &back].map(output).into(),
            generation: self.host.reader(),
            table: FlowTable::new(config.flow.capacity, &config.flow.timeouts, config.seed),
            fragments: Fragments::new(config.limits.fragments, config.flow.timeouts.fragments.as_nanos() as u64),
            key_from: config.flow.key_from,
            timing: Timing::Live(Clock::start()),
            clones: clones.clone(),
            // Nothing is wrapped here.
            fronts: clones.clone(),
            packets: packets.clone(),
            records: self.records.clone(),
            notes: None,
            taps: None,
            mailbox: Arc::default(),
            when_full: WhenFull::Drop,
            counters: self.counters.clone(),
            stop: self.stop.clone(),
            abort: abort.clone(),
            seed: config.seed,
        }
    }

    /// Packets of which it is known what became of them.
    pub fn settled(&self) -> u64 {
        let c = &self.counters;
        c.tx_packets.get() + c.consumed.get() + c.drops.iter().map(|drop| drop.get()).sum::<u64>()
    }

    /// Tells the worker to finish; it then hands out all records, which must be taken meanwhile.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// The sums, when the worker has finished.
    pub fn finish(mut self) -> Summary {
        if let Some(thread) = self.running.take() {
            drop(thread.join().expect("the worker does not panic"));
        }
        let summary = Summary::of(std::slice::from_ref(&self.counters), self.host.names());
        assert!(summary.adds_up(), "rx = tx + consumed + drops: {summary:?}");
        summary
    }
}

/// Reads a stream of records as a collector does, and knows by their numbers what it did not get.
#[derive(Debug, Default)]
pub struct Reader {
    pub read: u64,
    pub missing: u64,
    next: u64,
}

impl Reader {
    pub fn take(&mut self, records: &ArrayQueue<FlowRecord>, mut look: impl FnMut(&FlowRecord)) {
        while let Some(record) = records.pop() {
            assert!(record.sequence >= self.next, "numbers only rise");
            self.missing += record.sequence - self.next;
            self.next = record.sequence + 1;
            self.read += 1;
            look(&record);
        }
    }

    /// Records lost after the last one read; `made` is how many there were.
    pub fn close(&mut self, made: u64) {
        self.missing += made - self.next;
        self.next = made;
    }
}

/// Addresses, ports and flags of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    pub src: u32,
    pub dst: u32,
    pub src_port: u16,
    pub dst_port: u16,
    /// `None` makes it UDP.
    pub tcp_flags: Option<u8>,
}

/// 60 bytes, 64 on the wire with their checksum.
pub fn frame(headers: &Headers) -> [u8; 60] {
    let mut frame = [0u8; 60];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    frame[14..24].copy_from_slice(&[
        0x45,
        0,
        0,
        46,
        0,
        0,
        0x40,
        0,
        64,
        if headers.tcp_flags.is_some() { 6 } else { 17 },
    ]);
    frame[26..30].copy_from_slice(&headers.src.to_be_bytes());
    frame[30..34].copy_from_slice(&headers.dst.to_be_bytes());
    frame[34..36].copy_from_slice(&headers.src_port.to_be_bytes());
    frame[36..38].copy_from_slice(&headers.dst_port.to_be_bytes());
    match headers.tcp_flags {
        Some(flags) => {
            frame[46] = 0x50;
            frame[47] = flags;
            frame[48..50].copy_from_slice(&[0xff, 0xff]);
        }
        None => frame[38..40].copy_from_slice(&26u16.to_be_bytes()),
    }
    frame
}
