//! What looking at packets costs the worker: nothing published, nothing ever (no reader), and captures and traces that
//! choose none, 1 % or all of the packets. One worker over rings, on this thread, 64-byte UDP of 64 flows; the variants take
//! turns, round by round.
//!
//! `cargo bench --bench taps -- [--quick] [--json FILE] [--cpu N] [--only VARIANT]`

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use crossbeam::queue::ArrayQueue;
use gnomon::appliance::{PolicyHost, Targets};
use gnomon::capture::Preamble;
use gnomon::config::{self, Config};
use gnomon::dpdk::{Burst, Mbuf, Mempool, Outbox, PacketRing, ticks};
use gnomon::filter::{Expression, Schema};
use gnomon::flow::FlowTable;
use gnomon::packet::{Fragments, KeyFrom};
use gnomon::rules::Publisher;
use gnomon::worker::tap::{CaptureHead, CaptureLane, Keep, Point, PortMask, Tap, TapSet, TapSink, TraceLane};
use gnomon::worker::{Egress, Ingress, Lane, Output, Spreading, Timing, WhenFull, Worker, WorkerCounters, WorkerParts};

use common::{Options, median, udp_frame};

const FRAMES: u32 = 8000;
const FLOWS: u32 = 64;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Options,
    /// Only this variant, for counting instructions.
    #[arg(long)]
    only: Option<String>,
}

/// Name, and the taps; no reader at all where there are none.
type Variant = (&'static str, Option<fn() -> Vec<Tap>>);

/// One in a hundred packets goes to port 53.
const VARIANTS: &[Variant] = &[
    ("no reader", None),
    ("nothing tapped", Some(Vec::new)),
    ("capture, none chosen", Some(|| vec![capture("proto=udp dest_port=54")])),
    ("capture, 1 % chosen", Some(|| vec![capture("proto=udp dest_port=53")])),
    ("capture, all chosen", Some(|| vec![capture("")])),
    ("trace, 1 % chosen", Some(|| vec![trace("proto=udp dest_port=53")])),
];

struct Bench {
    packets: Mempool,
    clones: Mempool,
    input: PacketRing,
    output: PacketRing,
    config: Config,
}

fn main() {
    let arguments = Arguments::parse();
    let options = arguments.common;
    core_affinity::set_for_current(core_affinity::CoreId { id: options.cpu });
    let rounds = if options.quick { 15 } else { 200 };
    let chosen: Vec<&Variant> =
        VARIANTS.iter().filter(|(name, _)| arguments.only.as_deref().is_none_or(|only| only == *name)).collect();
    let bench = Bench::new(options.cpu);
    let mut runs = vec![Vec::new(); chosen.len()];
    for round in 0..=rounds {
        for (n, (_, taps)) in chosen.iter().enumerate() {
            let cycles = bench.round(taps.map(|taps| taps()));
            if round > 0 {
                runs[n].push(cycles);
            }
        }
    }
    let mut results = common::Results::new("taps");
    for (n, (name, _)) in chosen.iter().enumerate() {
        let ratios: Vec<f64> = runs[n].iter().zip(&runs[0]).map(|(ours, base)| ours / base).collect();
        println!("{name:<24} {:>8.1} cycles/packet   {:.3} of `{}`", median(&runs[n]), median(&ratios), chosen[0].0);
        results.measured(*name, "cycles/packet", runs[n].clone());
    }
    results.finish(&options);
}

fn tap(text: &str, sink: TapSink) -> Tap {
    let filter = Expression::parse(text, &Schema::PACKET).expect("an expression");
    Tap { filter: Arc::new(filter), points: [Point::Rx].into_iter().collect(), ports: PortMask::ALL, sink }
}

fn capture(text: &str) -> Tap {
    tap(text, TapSink::Capture(vec![Arc::new(CaptureLane::new(4 << 20, 65_535, 2))]))
}

fn trace(text: &str) -> Tap {
    tap(text, TapSink::Trace(vec![Arc::new(TraceLane::new(1000, Keep::Last))]))
}

impl Bench {
    fn new(cpu: usize) -> Self {
        let eal = common::start_dpdk("taps", cpu, 256).expect("DPDK starts");
        let text = "[policy]\ndefault = \"deny\"\n[[rule]]\nid = \"all\"\nprotocol = \"udp\"\naction = \"allow\"\n";
        let mut config = config::parse(text, "bench.toml").expect("valid");
        config.flow.capacity = 4096;
        Self {
            packets: Mempool::packets(&eal, "bench_packets", 16_383).expect("pool"),
            clones: Mempool::clones(&eal, "bench_clones", 1023).expect("pool"),
            input: PacketRing::new(&eal, "bench_in", 8192).expect("ring"),
            output: PacketRing::new(&eal, "bench_out", 8192).expect("ring"),
            config,
        }
    }

    /// Cycles per packet of a whole run over all frames.
    fn round(&self, taps: Option<Vec<Tap>>) -> f64 {
        self.feed();
        let lanes: Vec<Tap> = taps.clone().unwrap_or_default();
        let mut host = PolicyHost::new(&self.config, Targets::ByPort, 0).expect("compiles");
        let ports = ["out", "in"].map(str::to_owned);
        let mut published =
            taps.map(|taps| Publisher::new(TapSet { number: 1, taps, ports: ports.into() }).expect("a first number"));
        let mut worker = self.worker(&mut host, published.as_mut());
        let started = ticks();
        worker.run();
        let passed = ticks() - started;
        drop(worker);
        self.drain();
        check(&lanes);
        passed as f64 / f64::from(FRAMES)
    }

    fn worker(&self, host: &mut PolicyHost, taps: Option<&mut Publisher<TapSet>>) -> Worker {
        let up = Arc::new(AtomicBool::new(true));
        let abort = Arc::new(AtomicBool::new(false));
        let output = Output::new(Egress::Ring(self.output.clone()), up, WhenFull::Drop, abort.clone());
        let ingress = Ingress::Ring(self.input.clone());
        let config = &self.config;
        Worker::new(WorkerParts {
            id: 0,
            workers: 1,
            lanes: vec![Lane {
                ingress,
                forward: Some(0),
                back: Some(1),
                spreading: Spreading::Done,
                owners: Vec::new(),
            }],
            outputs: vec![output],
            generation: host.reader(),
            table: FlowTable::new(config.flow.capacity, &config.flow.timeouts, config.seed),
            fragments: Fragments::new(64, 1_000_000_000),
            key_from: KeyFrom::Outer,
            timing: Timing::Capture { frames: FRAMES.into(), end_ns: 1_000_000 },
            clones: self.clones.clone(),
            // Nothing is wrapped here.
            fronts: self.clones.clone(),
            packets: self.packets.clone(),
            records: Arc::new(ArrayQueue::new(8192)),
            notes: None,
            observations: None,
            mailbox: Arc::default(),
            taps: taps.map(Publisher::reader),
            watch: gnomon::worker::Watch::default(),
            when_full: WhenFull::Drop,
            counters: Arc::new(WorkerCounters::new(config.limits.rules)),
            stop: Arc::new(AtomicBool::new(false)),
            abort,
            seed: config.seed,
        })
    }

    fn feed(&self) {
        let mut outbox = Outbox::new();
        for n in 0..FRAMES {
            let mut frame = udp_frame(n % FLOWS, n);
            let port: u16 = if n % 100 == 0 { 53 } else { 1000 };
            frame[36..38].copy_from_slice(&port.to_be_bytes());
            let (ns, len) = (u64::from(n) * 100, frame.len() as u32);
            let flags = Preamble::flags(true);
            let preamble = Preamble { clock_ns: ns, ts_ns: ns, index: n.into(), wire_len: len, count_len: len, flags };
            let bytes = [&preamble.to_bytes()[..], &frame].concat();
            let mbuf = Mbuf::with_bytes(&self.packets, &bytes, 0).expect("a buffer");
            assert!(outbox.push(mbuf).is_ok() && self.input.send(&mut outbox) == 1, "room in the ring");
        }
    }

    fn drain(&self) {
        let mut burst = Burst::new();
        let mut out = 0;
        while self.output.receive(&mut burst) > 0 {
            out += burst.len() as u32;
        }
        assert_eq!(out, FRAMES, "all were forwarded");
    }
}

/// What the taps saw is what they should have.
fn check(taps: &[Tap]) {
    for tap in taps {
        let expected = match tap.filter.text() {
            "" => u64::from(FRAMES),
            text if text.ends_with("=53") => u64::from(FRAMES / 100),
            _ => 0,
        };
        let seen = match &tap.sink {
            TapSink::Trace(lanes) => lanes[0].matched.get(),
            TapSink::Capture(lanes) => {
                let mut bytes = Vec::new();
                let mut read = 0;
                while let Some(words) = lanes[0].ring.read(&mut bytes, |words| words[1] as u32 as usize) {
                    assert!(CaptureHead::from_words(&words).is_some());
                    read += 1;
                }
                read
            }
        };
        assert_eq!(seen, expected, "{}", tap.filter);
    }
}
