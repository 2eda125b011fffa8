//! One worker between two rings, driven step by step, and the frames that go through it. Its work is charged by the CPU
//! time of the thread, so other programs on the machine change little.
#![allow(dead_code, reason = "each program uses its own part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Result, anyhow};
use crossbeam::queue::ArrayQueue;
use gnomon::appliance::{PolicyHost, Summary, Targets};
use gnomon::config::{self, Config};
use gnomon::dpdk::{Clock, Eal, Mempool, PacketRing, cpu_time_ns};
use gnomon::flow::{FlowRecord, FlowTable};
use gnomon::packet::Fragments;
use gnomon::worker::{Egress, Ingress, Lane, Output, Spreading, Timing, WhenFull, Worker, WorkerCounters, WorkerParts};

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
    worker: Worker,
    stop: Arc<AtomicBool>,
}

impl Line {
    /// With a record ring of `records` places.
    pub fn new(eal: &Arc<Eal>, pools: [&Mempool; 2], policy: &str, records: usize) -> Result<Self> {
        Self::make(eal, pools, policy, records, true)
    }

    /// As [`new`](Self::new), with a worker that has no counters for rules, and so counts at none.
    pub fn uncounted(eal: &Arc<Eal>, pools: [&Mempool; 2], policy: &str, records: usize) -> Result<Self> {
        Self::make(eal, pools, policy, records, false)
    }

    fn make(eal: &Arc<Eal>, pools: [&Mempool; 2], policy: &str, records: usize, counts: bool) -> Result<Self> {
        static LINES: AtomicU32 = AtomicU32::new(0);
        let config = config::parse(policy, "bench.toml").map_err(|problems| anyhow!("{problems}"))?;
        let number = LINES.fetch_add(1, Ordering::Relaxed);
        let ring = |what: &str, size| PacketRing::new(eal, &format!("line{number}_{what}"), size);
        let rings = [ring("in", 8192)?, ring("out", 8192)?, ring("back", 1024)?];
        let mut host = PolicyHost::new(&config, Targets::BySession { first: FIRST_MIRROR }, 0)?;
        let (records, stop) = (Arc::new(ArrayQueue::new(records)), Arc::new(AtomicBool::new(false)));
        let counters = Arc::new(WorkerCounters::new(if counts { config.limits.rules } else { 0 }));
        let worker = Worker::new(parts(&config, &rings, pools, &mut host, &records, &counters, &stop));
        worker.prefault();
        let [input, output, _] = rings;
        Ok(Self { input, output, records, counters, host, worker, stop })
    }

    /// Lets the worker take what is in its input; the nanoseconds of CPU time that took.
    pub fn work(&mut self) -> u64 {
        let began = cpu_time_ns();
        while self.worker.turn() > 0 {}
        cpu_time_ns() - began
    }

    /// The worker hands out its last records. Then the sums.
    pub fn finish(&mut self) -> Summary {
        self.stop.store(true, Ordering::Relaxed);
        self.worker.run();
        let summary = Summary::of(std::slice::from_ref(&self.counters), self.host.names());
        assert!(summary.adds_up(), "rx = tx + consumed + drops: {summary:?}");
        summary
    }
}

fn parts(
    config: &Config,
    [input, output, back]: &[PacketRing; 3],
    [packets, clones]: [&Mempool; 2],
    host: &mut PolicyHost,
    records: &Arc<ArrayQueue<FlowRecord>>,
    counters: &Arc<WorkerCounters>,
    stop: &Arc<AtomicBool>,
) -> WorkerParts {
    let (up, abort) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let egress = |ring: &PacketRing| Output::new(Egress::Ring(ring.clone()), up.clone(), WhenFull::Drop, abort.clone());
    let ingress = Ingress::Ring(input.clone());
    WorkerParts {
        id: 0,
        workers: 1,
        lanes: vec![Lane { ingress, forward: Some(0), back: Some(1), spreading: Spreading::Done, owners: Vec::new() }],
        outputs: [output, back].map(egress).into(),
        generation: host.reader(),
        table: FlowTable::new(config.flow.capacity, &config.flow.timeouts, config.seed),
        fragments: Fragments::new(config.limits.fragments, config.flow.timeouts.fragments.as_nanos() as u64),
        key_from: config.flow.key_from,
        timing: Timing::Live(Clock::start()),
        clones: clones.clone(),
        // Nothing is wrapped here.
        fronts: clones.clone(),
        packets: packets.clone(),
        records: records.clone(),
        notes: None,
        observations: None,
        taps: None,
        watch: gnomon::worker::Watch::default(),
        mailbox: Arc::default(),
        when_full: WhenFull::Drop,
        counters: counters.clone(),
        stop: stop.clone(),
        abort: abort.clone(),
        seed: config.seed,
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
    // Segments without data, for which the frame is longer than the packet.
    let (length, protocol) = if headers.tcp_flags.is_some() { (40, 6) } else { (46, 17) };
    frame[14..24].copy_from_slice(&[0x45, 0, 0, length, 0, 0, 0x40, 0, 64, protocol]);
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
