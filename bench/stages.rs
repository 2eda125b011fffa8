//! Cycles per packet of each stage on 64-byte UDP frames, bursts of 32, one thread.
//!
//! `cargo bench --bench stages -- [--quick] [--json FILE] [--cpu N]`

mod common;

use std::hint::black_box;

use clap::Parser;
use gnomon::config::Config;
use gnomon::dpdk::{BURST, Mbuf, Mempool, ticks};
use gnomon::flow::{FlowPacket, FlowRecord, FlowTable, RecordSink};
use gnomon::mirror::{Sample, Sampler, Session};
use gnomon::packet::{self, FlowKey, Fragments, Headers, KeyFrom};
use gnomon::rules::{
    Action, Compiled, Decision, Group, GroupIx, Labels, Match, Mode, Policy, Rule, Selector, Subject, Tier,
};

use common::{Options, Results, udp_frame};

const FRAMES: usize = 4096;

struct Discard;

impl RecordSink for Discard {
    fn push(&mut self, record: FlowRecord) {
        black_box(record);
    }
}

fn main() {
    let options = Options::parse();
    let rounds = if options.quick { 50 } else { 400 };
    core_affinity::set_for_current(core_affinity::CoreId { id: options.cpu });
    let mut results = Results::new("stages");
    let frames: Vec<[u8; 60]> = (0..FRAMES as u32).map(|i| udp_frame(i / 2, i)).collect();
    let headers: Vec<Headers> = frames.iter().map(|frame| parsed(frame)).collect();
    let subjects: Vec<Subject> =
        headers.iter().map(|h| packet::subject(h, KeyFrom::Outer).expect("a UDP frame has a subject")).collect();
    parse(&mut results, rounds, &frames);
    subject(&mut results, rounds, &headers);
    flows(&mut results, rounds, &subjects);
    rules(&mut results, rounds, &subjects);
    mirror(&mut results, rounds, &subjects);
    buffers(&mut results, rounds, &options);
    results.finish(&options);
}

/// Cycles per packet of `work` over all frames, one figure a round.
fn measure(rounds: usize, mut work: impl FnMut(usize)) -> Vec<f64> {
    // The first round warms caches and is not counted.
    let mut runs = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        let started = ticks();
        (0..FRAMES).for_each(&mut work);
        let passed = ticks() - started;
        if round > 0 {
            runs.push(passed as f64 / FRAMES as f64);
        }
    }
    runs
}

fn parsed(frame: &[u8]) -> Headers {
    let mut headers = Headers::default();
    packet::parse(frame, frame.len() as u32, &mut headers).expect("well formed");
    headers
}

fn parse(results: &mut Results, rounds: usize, frames: &[[u8; 60]]) {
    let mut headers = Headers::default();
    let runs = measure(rounds, |i| {
        let _ = black_box(packet::parse(black_box(&frames[i]), 60, &mut headers));
    });
    results.measured("parse", "cycles/packet", runs);
}

fn subject(results: &mut Results, rounds: usize, headers: &[Headers]) {
    let mut fragments = Fragments::new(8192, 30_000_000_000);
    let runs = measure(rounds, |i| {
        let Some(mut subject) = packet::subject(black_box(&headers[i]), KeyFrom::Outer) else { return };
        fragments.resolve(&headers[i], KeyFrom::Outer, &mut subject, 1);
        black_box(subject);
    });
    results.measured("subject and fragments", "cycles/packet", runs);
}

fn flows(results: &mut Results, rounds: usize, subjects: &[Subject]) {
    for count in [1000u32, 100_000, 1_000_000] {
        let mut table = FlowTable::new(1 << 21, &Config::default_pair().flow.timeouts, 1);
        let tuple = |i: u32| packet::subject(&parsed(&udp_frame(i % count, i)), KeyFrom::Outer).map(|s| s.tuple);
        let packets: Vec<FlowPacket> = (0..count.max(FRAMES as u32))
            .filter_map(|i| tuple(i.wrapping_mul(2_654_435_761)))
            .map(|tuple| FlowPacket { tuple, clock_ns: 1, bytes: 60, payload_bytes: 18, ..FlowPacket::default() })
            .collect();
        for packet in &packets {
            black_box(table.touch(packet, &mut Discard).is_ok());
        }
        let mut at = 0;
        let runs = measure(rounds, |_| {
            at = if at + 1 == packets.len() { 0 } else { at + 1 };
            black_box(table.touch(&packets[at], &mut Discard).is_ok());
        });
        results.measured(format!("flow lookup and update, {count} flows"), "cycles/packet", runs);
    }
    let _ = subjects;
}

fn rules(results: &mut Results, rounds: usize, subjects: &[Subject]) {
    for count in [1usize, 100, 1000, 10_000] {
        let labels = Labels::new(count);
        let compiled = Compiled::build(&policy(count), 1, &labels).expect("compiles");
        let runs = measure(rounds, |i| {
            black_box(compiled.classify(black_box(&subjects[i])));
        });
        results.measured(format!("classify (flow miss), {count} rules"), "cycles/packet", runs);
    }
}

/// `count` group rules; the last one allows everything.
fn policy(count: usize) -> Policy {
    let groups: Vec<Group> = (0..count.div_ceil(16).max(2) as u32)
        .map(|g| {
            let net = |base: u32| ipnet::Ipv4Net::new_assert((base + g * 16).into(), 28).into();
            Group { name: format!("g{g}"), nets: vec![net(0x0a00_0000), net(0x0a80_0000)], ..Group::default() }
        })
        .collect();
    let group = |i: usize| vec![Selector::Group(GroupIx((i % groups.len()) as u16))];
    let rule = |i: usize| {
        let last = i + 1 == count;
        let matches = if last {
            Match::default()
        } else {
            let ports = vec![1000 + i as u16 % 1000..=1000 + i as u16 % 1000];
            Match { from: group(i), to: group(i / 3 + 1), protocol: Some(17), to_ports: ports, ..Match::default() }
        };
        Rule {
            id: format!("r{i}"),
            tier: Tier::Policy,
            priority: i as u32,
            mode: Mode::Enforce,
            action: Action::Allow,
            stateful: true,
            matches,
        }
    };
    Policy { rules: (0..count).map(rule).collect(), groups, mirrors: Vec::new(), default: Decision::Deny }
}

fn mirror(results: &mut Results, rounds: usize, subjects: &[Subject]) {
    let session = |name: &str, sample| Session { name: name.into(), sample, ..Session::default() };
    let sessions = [session("a", Sample::Packets(100)), session("b", Sample::Flows(0.1))];
    let mut sampler = Sampler::new(&sessions, 1, 0);
    let keys: Vec<FlowKey> = subjects.iter().map(|s| FlowKey::of(s.tuple).0).collect();
    let runs = measure(rounds, |i| {
        let mask = sampler.flow_mask(black_box(&keys[i]), 0, u16::MAX);
        black_box(sampler.select(mask));
    });
    results.measured("mirror sampling, two sessions", "cycles/packet", runs);
}

fn buffers(results: &mut Results, rounds: usize, options: &Options) {
    let eal = common::start_dpdk("stages", options.cpu, 256).expect("DPDK starts");
    let packets = Mempool::packets(&eal, "packets", 8191).expect("pool");
    let clones = Mempool::clones(&eal, "clones", 8191).expect("pool");
    let held: Vec<Mbuf> = (0..BURST as u32).filter_map(|i| Mbuf::with_bytes(&packets, &udp_frame(i, i), 0)).collect();
    let runs = measure(rounds, |i| drop(black_box(held[i % BURST].mirror_clone(&clones))));
    results.measured("mirror clone and free", "cycles/packet", runs);
}
