//! Five million distinct SYNs against a thousand established connections that carry traffic, through a worker with a
//! table for a million flows. The connections' packets are offered at one rate all the time, with and without the flood.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gnomon::dpdk::{BURST, Burst, Eal, Mbuf, Mempool, Outbox, hz, ticks};
use gnomon::flow::{EndReason, FlowState};

use crate::common::{Options, Results};
use crate::line::{Headers, Line, POLICY, Reader, frame};

const CONNECTIONS: u32 = 1000;
const TABLE: &str = "\n[flow]\ncapacity = 1048576\n";
const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;
/// Offered packets of connections, a second.
const RATE: f64 = 500_000.0;

struct Generator<'a> {
    line: &'a Line,
    packets: &'a Mempool,
    outbox: Outbox,
    burst: Burst,
    reader: Reader,
    /// Frames put into the worker's ring, and not, for it was full.
    offered: u64,
    refused: u64,
    /// Packets of connections that came out.
    delivered: u64,
    ended_connections: u64,
}

/// The n-th connection, or with `flood` the n-th SYN.
fn headers(n: u32, flood: bool, to_client: bool, flags: u8) -> Headers {
    let base = if flood { 0x0a80_0000 } else { 0x0a00_0000 };
    let (client, server) = (base + n / 50, 0xc0a8_0000 + (n & 255));
    let port = 1024 + (n % 50) as u16;
    let there = Headers { src: client, dst: server, src_port: port, dst_port: 443, tcp_flags: Some(flags) };
    if to_client { Headers { src: server, dst: client, src_port: 443, dst_port: port, ..there } } else { there }
}

impl Generator<'_> {
    fn offer(&mut self, headers: &Headers) {
        self.offered += 1;
        let made = Mbuf::with_bytes(self.packets, &frame(headers), 0).map(|packet| self.outbox.push(packet));
        self.refused += u64::from(!matches!(made, Some(Ok(()))));
        if self.outbox.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.line.input.send(&mut self.outbox);
        self.refused += self.outbox.discard().0;
    }

    /// Takes away what came out.
    fn collect(&mut self) {
        while self.line.output.receive(&mut self.burst) > 0 {
            for i in 0..self.burst.len() {
                let bytes = self.burst.frame(i);
                // The second half of 10/8 and what goes there is the flood.
                let is_flood = bytes.get(27).is_some_and(|byte| *byte >= 0x80) && bytes.get(26) == Some(&10);
                self.delivered += u64::from(!is_flood);
            }
        }
        self.burst.clear();
        let ended = &mut self.ended_connections;
        self.reader.take(&self.line.records, |record| {
            let is_connection = record.tuple.src < 0x0a80_0000;
            *ended += u64::from(is_connection && record.reason != EndReason::Active && record.state != FlowState::New);
        });
    }

    /// Packets of connections at their rate for `seconds`, beside `flood` SYNs from number `from` on. What part of the
    /// connections' packets came out.
    fn phase(&mut self, seconds: f64, from: u32, flood: u32) -> f64 {
        let (began, per_tick) = (ticks(), 1.0 / hz() as f64);
        let (mut sent, mut flooded, before) = (0u64, 0u32, self.delivered);
        loop {
            let passed = (ticks() - began) as f64 * per_tick;
            if passed >= seconds {
                break;
            }
            let mut due = ((passed * RATE) as u64).saturating_sub(sent).min(BURST as u64);
            // A generator that was held up does not make up for it in one go.
            while due > 0 {
                let n = (sent % u64::from(CONNECTIONS)) as u32;
                self.offer(&headers(n, false, sent / u64::from(CONNECTIONS) % 2 == 1, ACK));
                sent += 1;
                due -= 1;
            }
            let due = ((passed / seconds * f64::from(flood)) as u32).saturating_sub(flooded).min(BURST as u32);
            (0..due).for_each(|n| self.offer(&headers(from + flooded + n, true, false, SYN)));
            flooded += due;
            self.flush();
            self.collect();
        }
        self.settle();
        (self.delivered - before) as f64 / sent as f64
    }

    /// Waits until the worker is done with all that it was given.
    fn settle(&mut self) {
        self.flush();
        let began = Instant::now();
        while self.line.settled() < self.offered - self.refused && began.elapsed() < Duration::from_secs(10) {
            self.collect();
        }
        self.collect();
    }
}

pub fn run(eal: &Arc<Eal>, options: &Options, results: &mut Results) -> Result<()> {
    let flood: u32 = if options.quick { 1_500_000 } else { 5_000_000 };
    let packets = Mempool::packets(eal, "flood_packets", 32_767)?;
    let clones = Mempool::clones(eal, "flood_clones", 1023)?;
    let line = Line::start(eal, &packets, &clones, &format!("{POLICY}{TABLE}"), "flood", options.cpu)?;
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 - options.cpu.min(1) });
    let mut generator = Generator {
        line: &line,
        packets: &packets,
        outbox: Outbox::new(),
        burst: Burst::new(),
        reader: Reader::default(),
        offered: 0,
        refused: 0,
        delivered: 0,
        ended_connections: 0,
    };
    for n in 0..CONNECTIONS {
        for (back, flags) in [(false, SYN), (true, SYN_ACK), (false, ACK)] {
            generator.offer(&headers(n, false, back, flags));
        }
        generator.settle();
    }
    let (rounds, seconds) = (5, f64::from(flood) / 5.0 / 1e6 * 2.0);
    let pairs: Vec<(f64, f64)> = (0..rounds)
        .map(|round| {
            let quiet = generator.phase(seconds, 0, 0);
            (generator.phase(seconds, round * (flood / rounds), flood / rounds), quiet)
        })
        .collect();
    let before_end = generator.ended_connections;
    line.stop();
    while line.is_running() {
        generator.collect();
    }
    generator.collect();
    let (made, lost) =
        (line.counters.records.get() + line.counters.records_lost.get(), line.counters.records_lost.get());
    generator.reader.close(made);
    let Generator { reader, offered, refused, .. } = generator;
    let summary = line.finish();
    println!(
        "{} flows begun, {} evicted half-open, {} evicted established, {} packets without a place; \
         {made} records, {lost} lost, {} missing at the reader; {offered} packets offered, {refused} refused by the full input ring",
        summary.flows, summary.flows_evicted_half_open, summary.flows_evicted_idle, summary.untracked, reader.missing
    );
    ensure!(before_end == 0 && summary.flows_evicted_idle == 0, "an established connection lost its place");
    ensure!(reader.missing == lost && reader.read + lost == made, "losses are not what the counters say");
    ensure!(summary.rx == offered - refused, "every packet of the ring was received");
    results.compared("established packets delivered under flood, to without", "share", "no flood", &pairs);
    Ok(())
}
