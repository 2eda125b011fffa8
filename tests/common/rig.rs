//! A worker on memory devices: rings instead of ports, no NIC.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use gnomon::appliance::{PolicyHost, Summary, Targets};
use gnomon::capture::Preamble;
use gnomon::config::{self, Config};
use gnomon::dpdk::{Burst, Clock, Eal, EalOptions, Mbuf, Mempool, Outbox, PacketRing, Scheme};
use gnomon::flow::{FlowRecord, FlowTable};
use gnomon::packet::{DropReason, Fragments};
use gnomon::rules::Publisher;
use gnomon::worker::tap::{Tap, TapSet};
use gnomon::worker::{
    DeviceSpread, Egress, Handoff, Ingress, Lane, Mailbox, Output, PacketNote, Spreading, Strays, Timing, WhenFull,
    Worker, WorkerCounters, WorkerParts,
};

const FORWARD: usize = 0;
const BACK: usize = 1;
const FIRST_MIRROR: usize = 2;
/// Nothing in these tests takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// DPDK starts once per process; tests share it and take turns.
pub struct Rig {
    eal: Arc<Eal>,
    _turn: MutexGuard<'static, ()>,
}

/// How a test's workers are built.
#[derive(Clone, Debug)]
pub struct Setup {
    pub config: Config,
    pub workers: usize,
    pub when_full: WhenFull,
    /// Places in each ring; a ring holds one packet less.
    pub input_ring: u32,
    pub forward_ring: u32,
    pub mirror_ring: u32,
    pub packets: u32,
    pub clones: u32,
    /// Buffers for what is put before copies.
    pub fronts: u32,
    pub records: usize,
    pub notes: bool,
    /// The inputs are the queues of a device that spreads flows by this, and where it is noted if they are not.
    pub by_device: Option<Arc<Scheme>>,
    pub strays: Arc<Strays>,
    /// The input's port has a pair.
    pub paired: bool,
    pub link_up: bool,
    pub mirror_link_up: bool,
    /// What is looked at from the start.
    pub taps: Vec<Tap>,
    /// Where questions about flows are put; all workers share it.
    pub mailbox: Arc<Mailbox>,
    /// From this frame on, a capture is of a link type that is not understood.
    pub unsupported_from: usize,
}

impl Setup {
    /// From the text of a configuration file.
    pub fn new(toml: &str) -> Self {
        let mut config = config::parse(toml, "test.toml").unwrap_or_else(|errors| panic!("{errors}"));
        config.flow.capacity = config.flow.capacity.min(16_384);
        config.limits.rules = 1024;
        config.limits.fragments = 256;
        Self {
            config,
            workers: 1,
            when_full: WhenFull::Drop,
            input_ring: 8192,
            forward_ring: 8192,
            mirror_ring: 8192,
            packets: 16_383,
            clones: 16_383,
            fronts: 4095,
            records: 8192,
            notes: true,
            by_device: None,
            strays: Arc::default(),
            paired: true,
            link_up: true,
            mirror_link_up: true,
            taps: Vec::new(),
            mailbox: Arc::default(),
            unsupported_from: usize::MAX,
        }
    }
}

/// What came out of a run.
#[derive(Debug)]
pub struct Outcome {
    pub forwarded: Vec<Vec<u8>>,
    pub replies: Vec<Vec<u8>>,
    /// By mirror session.
    pub mirrored: Vec<Vec<Vec<u8>>>,
    pub records: Vec<FlowRecord>,
    pub notes: Vec<PacketNote>,
    pub summary: Summary,
    pub counters: Vec<Arc<WorkerCounters>>,
}

impl Outcome {
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.summary.drops.get(reason.name()).copied().unwrap_or(0)
    }

    /// Packets that the rule decided.
    pub fn hits(&self, rule: &str) -> u64 {
        self.summary.rules[rule].packets
    }

    /// Packets that the rule would have decided, or logged.
    pub fn would(&self, rule: &str) -> u64 {
        self.summary.rules[rule].would
    }

    /// A counter, summed over workers.
    pub fn sum(&self, counter: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.counters.iter().map(|c| counter(c)).sum()
    }
}

impl Rig {
    pub fn start() -> Self {
        static EAL: OnceLock<Arc<Eal>> = OnceLock::new();
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let eal = EAL.get_or_init(|| {
            let options = EalOptions {
                lcores: vec![vec![0], vec![0]],
                hugepages: false,
                memory_mb: 256,
                file_prefix: format!("gnomon-rig-{}", std::process::id()),
                pci_allow: vec![],
            };
            Arc::new(Eal::start(&options).expect("DPDK starts without hugepages"))
        });
        Self { eal: eal.clone(), _turn: turn }
    }

    /// One worker, on this thread, takes these frames with their times (nanoseconds) and finishes. At most
    /// `input_ring - 1` frames.
    pub fn replay(&self, setup: &Setup, frames: &[(u64, Vec<u8>)]) -> Outcome {
        let mut built = Built::new(&self.eal, setup, Some(frames));
        for (index, (ns, bytes)) in frames.iter().enumerate() {
            let preamble = Preamble {
                clock_ns: *ns,
                ts_ns: *ns,
                index: index as u64,
                wire_len: bytes.len() as u32,
                count_len: bytes.len() as u32,
                flags: Preamble::flags(index < setup.unsupported_from),
            };
            let whole = [&preamble.to_bytes()[..], bytes].concat();
            assert!(built.io.put(0, &whole), "frame {index} fits the input");
        }
        built.workers.iter_mut().for_each(Worker::run);
        built.finish()
    }

    /// As [`replay`](Self::replay), a microsecond apart.
    pub fn run(&self, setup: &Setup, frames: &[Vec<u8>]) -> Outcome {
        let timed: Vec<_> = frames.iter().enumerate().map(|(i, f)| (1_000 * (i as u64 + 1), f.clone())).collect();
        self.replay(setup, &timed)
    }

    /// Workers on threads of their own, on live time, while `drive` feeds and watches them. They are stopped
    /// when it returns.
    pub fn live(&self, setup: &Setup, drive: impl FnOnce(&mut Io)) -> Outcome {
        self.live_on(setup, || {}, drive)
    }

    /// As [`live`](Self::live); each worker's thread calls `begin` first.
    pub fn live_on(&self, setup: &Setup, begin: impl Fn() + Sync, drive: impl FnOnce(&mut Io)) -> Outcome {
        let begin = &begin;
        let mut built = Built::new(&self.eal, setup, None);
        let workers = std::mem::take(&mut built.workers);
        let stop = built.io.stop.clone();
        built.workers = std::thread::scope(|scope| {
            let running: Vec<_> = workers
                .into_iter()
                .map(|mut worker| {
                    scope.spawn(move || {
                        begin();
                        worker.run();
                        worker
                    })
                })
                .collect();
            // Also when `drive` panics: the scope waits for the threads.
            let _stop = StopAtEnd(stop);
            drive(&mut built.io);
            drop(_stop);
            running.into_iter().map(|handle| handle.join().expect("no worker panics")).collect()
        });
        built.finish()
    }
}

struct StopAtEnd(Arc<AtomicBool>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The outside of running workers.
pub struct Io {
    inputs: Vec<PacketRing>,
    outputs: Vec<PacketRing>,
    collected: Vec<Vec<Vec<u8>>>,
    /// Output packets are kept; when not, they are only taken away.
    pub keep: bool,
    pub host: PolicyHost,
    pub taps: Publisher<TapSet>,
    pub counters: Vec<Arc<WorkerCounters>>,
    pub packets: Mempool,
    pub clones: Mempool,
    pub fronts: Mempool,
    pub link: Arc<AtomicBool>,
    pub mirror_link: Arc<AtomicBool>,
    records: Vec<Arc<ArrayQueue<FlowRecord>>>,
    kept_records: Vec<FlowRecord>,
    stop: Arc<AtomicBool>,
    burst: Burst,
    outbox: Outbox,
}

impl Io {
    /// Puts a frame into a worker's input; false when the pool is empty or the ring full.
    pub fn put(&mut self, worker: usize, bytes: &[u8]) -> bool {
        let Some(mbuf) = Mbuf::with_bytes(&self.packets, bytes, 0) else { return false };
        assert!(self.outbox.push(mbuf).is_ok(), "the outbox is empty between calls");
        let sent = self.inputs[worker].send(&mut self.outbox) == 1;
        self.outbox.discard();
        sent
    }

    /// Puts all frames in, taking outputs away meanwhile.
    pub fn feed<'a>(&mut self, worker: usize, frames: impl IntoIterator<Item = &'a Vec<u8>>) {
        for frame in frames {
            let began = Instant::now();
            while !self.put(worker, frame) {
                self.collect();
                assert!(began.elapsed() < PATIENCE, "the worker takes nothing");
                std::thread::yield_now();
            }
        }
    }

    /// Takes outputs and records away.
    pub fn collect(&mut self) {
        for (ring, collected) in self.outputs.iter().zip(&mut self.collected) {
            while ring.receive(&mut self.burst) > 0 {
                for i in 0..self.burst.len() {
                    let Some(packet) = self.burst.take(i).filter(|_| self.keep) else { continue };
                    let mut bytes = Vec::new();
                    packet.copy_to(&mut bytes);
                    collected.push(bytes);
                }
            }
        }
        self.burst.clear();
        self.collect_records();
    }

    pub fn collect_records(&mut self) {
        for ring in &self.records {
            while let Some(record) = ring.pop() {
                if self.keep {
                    self.kept_records.push(record);
                }
            }
        }
    }

    /// Waits, without taking anything away, until the workers have received so many packets.
    pub fn wait_received(&self, packets: u64) {
        self.wait(|io| io.received() >= packets, "packets received");
    }

    pub fn received(&self) -> u64 {
        self.counters.iter().map(|c| c.rx_packets.get()).sum()
    }

    /// Packets of which it is known what became of them.
    pub fn settled(&self) -> u64 {
        let of = |c: &Arc<WorkerCounters>| {
            c.tx_packets.get() + c.consumed.get() + c.drops.iter().map(|d| d.get()).sum::<u64>()
        };
        self.counters.iter().map(of).sum()
    }

    pub fn wait(&self, done: impl Fn(&Self) -> bool, what: &str) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < PATIENCE, "waiting for {what}");
            std::thread::yield_now();
        }
    }
}

/// Ports are the worker's outputs: `out` and `in` first.
pub fn tap_set(number: u32, taps: Vec<Tap>) -> TapSet {
    TapSet { number, taps, ports: ["out", "in"].map(str::to_owned).into() }
}

struct Built {
    workers: Vec<Worker>,
    io: Io,
    notes: Option<Arc<ArrayQueue<PacketNote>>>,
}

impl Built {
    fn new(eal: &Arc<Eal>, setup: &Setup, frames: Option<&[(u64, Vec<u8>)]>) -> Self {
        let config = &setup.config;
        let ring = |name: String, size: u32| PacketRing::new(eal, &name, size).expect("ring");
        let per_worker = |name: &str| -> Vec<PacketRing> {
            (0..setup.workers).map(|w| ring(format!("rig_{name}_{w}"), setup.input_ring)).collect()
        };
        let mut outputs = vec![ring("rig_forward".into(), setup.forward_ring), ring("rig_back".into(), 8192)];
        outputs.extend((0..config.mirrors.len()).map(|m| ring(format!("rig_mirror_{m}"), setup.mirror_ring)));
        let io = Io {
            inputs: per_worker("in"),
            collected: vec![Vec::new(); outputs.len()],
            outputs,
            keep: true,
            taps: Publisher::new(tap_set(1, setup.taps.clone())).expect("a first set"),
            host: PolicyHost::new(config, Targets::BySession { first: FIRST_MIRROR }, 0).expect("compiles"),
            counters: (0..setup.workers).map(|_| Arc::new(WorkerCounters::new(config.limits.rules))).collect(),
            packets: Mempool::packets(eal, "rig_packets", setup.packets).expect("pool"),
            clones: Mempool::clones(eal, "rig_clones", setup.clones).expect("pool"),
            fronts: Mempool::fronts(eal, "rig_fronts", setup.fronts).expect("pool"),
            link: Arc::new(AtomicBool::new(setup.link_up)),
            mirror_link: Arc::new(AtomicBool::new(setup.mirror_link_up)),
            records: (0..setup.workers).map(|_| Arc::new(ArrayQueue::new(setup.records))).collect(),
            kept_records: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            burst: Burst::new(),
            outbox: Outbox::new(),
        };
        let notes = (setup.notes && frames.is_some()).then(|| Arc::new(ArrayQueue::new(8192)));
        let handoffs = if setup.workers > 1 { per_worker("handoff") } else { Vec::new() };
        let mut built = Self { workers: Vec::new(), io, notes };
        for id in 0..setup.workers {
            let parts = built.parts(id, setup, &handoffs, frames);
            built.workers.push(Worker::new(parts));
        }
        built
    }

    fn parts(
        &mut self,
        id: usize,
        setup: &Setup,
        handoffs: &[PacketRing],
        frames: Option<&[(u64, Vec<u8>)]>,
    ) -> WorkerParts {
        let (config, io) = (&setup.config, &mut self.io);
        let forward = setup.paired.then_some(FORWARD);
        let owners = handoffs.iter().enumerate().map(|(w, ring)| (w != id).then(|| Handoff::new(ring.clone())));
        let ingress = Ingress::Ring(io.inputs[id].clone());
        let spreading = match &setup.by_device {
            _ if handoffs.is_empty() => Spreading::Done,
            None => Spreading::Software,
            Some(scheme) => {
                let (scheme, strays) = (scheme.clone(), setup.strays.clone());
                Spreading::Device(DeviceSpread::new(scheme, id as u16, setup.workers, 0, strays))
            }
        };
        let mut lanes = vec![Lane { ingress, forward, back: Some(BACK), spreading, owners: owners.collect() }];
        if let Some(ring) = handoffs.get(id) {
            let ingress = Ingress::Ring(ring.clone());
            let (spreading, owners) = (Spreading::Done, Vec::new());
            lanes.push(Lane { ingress, forward, back: Some(BACK), spreading, owners });
        }
        let output = |(at, ring): (usize, &PacketRing)| {
            let link = if at >= FIRST_MIRROR { &io.mirror_link } else { &io.link };
            Output::new(Egress::Ring(ring.clone()), link.clone(), setup.when_full, io.stop.clone())
        };
        WorkerParts {
            id,
            workers: setup.workers,
            lanes,
            outputs: io.outputs.iter().enumerate().map(output).collect(),
            generation: io.host.reader(),
            table: FlowTable::new(config.flow.capacity, &config.flow.timeouts, config.seed).with_tcp(config.flow.tcp),
            fragments: Fragments::new(config.limits.fragments, config.flow.timeouts.fragments.as_nanos() as u64),
            key_from: config.flow.key_from,
            timing: match frames {
                Some(frames) => {
                    let end_ns = frames.iter().map(|(ns, _)| *ns).max().unwrap_or(0);
                    Timing::Capture { frames: frames.len() as u64, end_ns }
                }
                None => Timing::Live(Clock::start()),
            },
            clones: io.clones.clone(),
            fronts: io.fronts.clone(),
            packets: io.packets.clone(),
            records: io.records[id].clone(),
            notes: self.notes.clone(),
            observations: None,
            taps: Some(io.taps.reader()),
            watch: gnomon::worker::Watch::default(),
            when_full: setup.when_full,
            counters: io.counters[id].clone(),
            mailbox: setup.mailbox.clone(),
            stop: io.stop.clone(),
            abort: Arc::new(AtomicBool::new(false)),
            seed: config.seed,
        }
    }

    /// Collects everything, checks the accounts, and that every buffer is back.
    fn finish(self) -> Outcome {
        let Self { workers, mut io, notes } = self;
        io.collect();
        drop(workers);
        let summary = Summary::of(&io.counters, io.host.names());
        assert!(summary.adds_up(), "rx = tx + consumed + sum(drops): {summary:?}");
        for (session, mirrored) in &summary.mirrored {
            assert_eq!(mirrored.selected, mirrored.packets + mirrored.lost, "copies of {session}");
        }
        let mut collected = std::mem::take(&mut io.collected).into_iter();
        let outcome = Outcome {
            forwarded: collected.next().unwrap_or_default(),
            replies: collected.next().unwrap_or_default(),
            mirrored: collected.collect(),
            records: std::mem::take(&mut io.kept_records),
            notes: notes.map(|queue| std::iter::from_fn(|| queue.pop()).collect()).unwrap_or_default(),
            summary,
            counters: io.counters.clone(),
        };
        let (packets, clones, fronts) = (io.packets.clone(), io.clones.clone(), io.fronts.clone());
        drop(io);
        assert_eq!(packets.available(), packets.size(), "all packet buffers are back");
        assert_eq!(clones.available(), clones.size(), "all copies are back");
        assert_eq!(fronts.available(), fronts.size(), "all headers of copies are back");
        outcome
    }
}
