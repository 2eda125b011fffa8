//! What mirroring costs forwarding: a worker between net_null devices with a share of its packets copied, against the same
//! without a mirror. Copies go out as they are, or wrapped in VXLAN; to a device that takes them, or to a queue that is full
//! and takes none. Frames are 64-byte UDP.
//!
//! Both workers are driven by this thread, a few milliseconds each in turn, hundreds of times; their work is charged by CPU
//! time. The ratio is the median of those of neighbouring turns, so what the machine does besides changes little.
//!
//! `cargo bench --bench mirror -- [--quick] [--json FILE] [--cpu N] [--only TEXT] [--target TOML]`

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use crossbeam::queue::ArrayQueue;
use gnomon::appliance::{PolicyHost, Pools, Summary, Targets};
use gnomon::config;
use gnomon::dpdk::{Clock, Device, Eal, EalOptions, PacketRing, Port, PortOptions, RxQueue, TxQueue, cpu_time_ns};
use gnomon::flow::FlowTable;
use gnomon::packet::Fragments;
use gnomon::worker::{Egress, Ingress, Lane, Output, Spreading, Timing, WhenFull, Worker, WorkerCounters, WorkerParts};

use common::{Options, Results, fill_buffers};

const SHARES: [(&str, u32); 3] = [("1 %", 100), ("10 %", 10), ("100 %", 1)];
/// Buffers; the device hands them out as they are.
const BUFFERS: u32 = 16_383;
const FLOWS: u32 = 64;
/// Polls in a turn.
const POLLS: usize = 400;
const POLICY: &str = "[policy]\ndefault = \"deny\"\n[[rule]]\nid = \"everything\"\naction = \"allow\"\n";
const TUNNEL: &str = "tunnel = \"vxlan\"\nto = \"192.0.2.2\"\nfrom = \"192.0.2.1\"\nto_mac = \"02:00:00:00:00:09\"\n";

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Only cases with this in their name.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// More keys of the target, as in a configuration: `mask = "all"`.
    #[arg(long, value_name = "TOML", default_value = "")]
    target: String,
}

fn main() {
    let Arguments { options, only, target } = Arguments::parse();
    let turns = if options.quick { 200 } else { 1000 };
    let eal = Arc::new(Eal::start(&eal_options(options.cpu)).expect("DPDK starts"));
    let pools = Pools::new(&eal, BUFFERS).expect("pools");
    fill_buffers(&pools, FLOWS);
    let mut results = Results::new("mirror");
    let mut plain = Bench::new(&eal, &pools, 0, None);
    for blocked in [false, true] {
        for wrapped in [false, true] {
            for (share, one_in) in SHARES {
                let way = if wrapped { "VXLAN" } else { "a port" };
                let case = format!("{share} to {way}{}", if blocked { ", target blocked" } else { "" });
                if !case.contains(&only) {
                    continue;
                }
                let mut mirrored =
                    Bench::new(&eal, &pools, 2, Some(Mirror { blocked, wrapped, one_in, more: &target }));
                let mut pair = || (mirrored.turn(), plain.turn());
                (0..turns / 10).for_each(|_| _ = pair());
                let pairs: Vec<(f64, f64)> = (0..turns).map(|_| pair()).collect();
                results.compared(case, "Mpps", "unmirrored", &pairs);
                mirrored.finish();
            }
        }
    }
    plain.finish();
    results.finish(&options);
}

fn eal_options(cpu: usize) -> EalOptions {
    EalOptions {
        lcores: vec![vec![cpu]],
        hugepages: false,
        memory_mb: 256,
        file_prefix: format!("gnomon-bench-{}", std::process::id()),
        pci_allow: vec![],
    }
}

struct Mirror<'a> {
    more: &'a str,
    blocked: bool,
    wrapped: bool,
    one_in: u32,
}

/// A worker, its devices and its counters.
struct Bench {
    worker: Worker,
    counters: Arc<WorkerCounters>,
    host: PolicyHost,
    _ports: Vec<Arc<Port>>,
}

impl Bench {
    /// Devices are numbered from `first` on.
    fn new(eal: &Arc<Eal>, pools: &Pools, first: usize, mirror: Option<Mirror<'_>>) -> Self {
        let config = config::parse(&configuration(mirror.as_ref()), "bench").expect("the configuration is valid");
        let mut host = PolicyHost::new(&config, Targets::BySession { first: 1 }, 0).expect("it compiles");
        let counters = Arc::new(WorkerCounters::new(config.limits.rules));
        let (up, abort) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let mut ports = Vec::new();
        let mut open = |n: usize| {
            let (port, rx, tx) = device(eal, pools, first + n);
            ports.push(port);
            (rx, tx)
        };
        let (input, first_output) = (open(0).0, Egress::Device(open(1).1));
        let blocked = || Egress::Ring(PacketRing::new(eal, "blocked", 1024).expect("ring"));
        let copies = mirror.map(|mirror| if mirror.blocked { blocked() } else { Egress::Device(open(2).1) });
        let output = |egress| Output::new(egress, up.clone(), WhenFull::Drop, abort.clone());
        let outputs = std::iter::once(first_output).chain(copies).map(output).collect();
        let worker = Worker::new(WorkerParts {
            id: 0,
            workers: 1,
            lanes: vec![Lane {
                ingress: Ingress::Device(input),
                forward: Some(0),
                back: None,
                spreading: Spreading::Done,
                owners: Vec::new(),
            }],
            outputs,
            generation: host.reader(),
            table: FlowTable::new(65_536, &config.flow.timeouts, config.seed),
            fragments: Fragments::new(config.limits.fragments, config.flow.timeouts.fragments.as_nanos() as u64),
            key_from: config.flow.key_from,
            timing: Timing::Live(Clock::start()),
            clones: pools.clones.clone(),
            fronts: pools.fronts.clone(),
            packets: pools.packets.clone(),
            records: Arc::new(ArrayQueue::new(1024)),
            notes: None,
            observations: None,
            taps: None,
            watch: gnomon::worker::Watch::default(),
            mailbox: Arc::default(),
            when_full: WhenFull::Drop,
            counters: counters.clone(),
            stop: Arc::new(AtomicBool::new(true)),
            abort: abort.clone(),
            seed: config.seed,
        });
        worker.prefault();
        Self { worker, counters, host, _ports: ports }
    }

    /// Million packets per second of CPU time.
    fn turn(&mut self) -> f64 {
        let (before, began) = (self.counters.tx_packets.get(), cpu_time_ns());
        for _ in 0..POLLS {
            self.worker.turn();
        }
        (self.counters.tx_packets.get() - before) as f64 / (cpu_time_ns() - began) as f64 * 1e3
    }

    /// Every packet was forwarded, and every copy is accounted for.
    fn finish(mut self) {
        self.worker.run();
        let summary = Summary::of(std::slice::from_ref(&self.counters), self.host.names());
        assert!(summary.adds_up() && summary.tx == summary.rx, "no forwarded packet is lost: {summary:?}");
        for copies in summary.mirrored.values() {
            assert_eq!(copies.selected, copies.packets + copies.lost, "{copies:?}");
            assert!(copies.lost == 0 || copies.lost == copies.lost_queue, "{copies:?}");
        }
    }
}

fn configuration(mirror: Option<&Mirror<'_>>) -> String {
    let Some(Mirror { wrapped, one_in, more, .. }) = mirror else { return POLICY.into() };
    let tunnel = if *wrapped { TUNNEL } else { "" };
    let target = format!("[[target]]\nname = \"sensor\"\n{tunnel}{more}\n");
    format!("{POLICY}{target}[[mirror]]\nname = \"m\"\nto = \"sensor\"\ngroup = \"any\"\nsample = \"1/{one_in}\"\n")
}

fn device(eal: &Arc<Eal>, pools: &Pools, number: usize) -> (Arc<Port>, RxQueue, TxQueue) {
    let device = format!("net_null{number},size=64");
    let options = PortOptions {
        name: device.clone(),
        device: device.clone(),
        rx_queues: 1,
        tx_queues: 1,
        rx_descriptors: 512,
        tx_descriptors: 512,
        mtu: None,
        promiscuous: false,
    };
    let opened = Device::open(eal, &device).expect("the device opens");
    let port = Arc::new(opened.start(&options, &pools.packets).expect("the port starts"));
    let (mut rx, mut tx) = port.take_queues().expect("queues");
    let (rx, tx) = (rx.pop().expect("a receive queue"), tx.pop().expect("a transmit queue"));
    (port, rx, tx)
}
