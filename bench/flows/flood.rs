//! Five million distinct SYNs against a thousand established connections that carry traffic, through a worker with a
//! table for a million flows. A slot has so many packets of connections, with or without as many SYNs between them; it
//! lasts as long as they would take to come in at a million packets a second of each, or longer if the worker does.

use std::sync::Arc;

use anyhow::{Result, ensure};
use gnomon::dpdk::{Burst, Eal, Mbuf, Mempool, Outbox};
use gnomon::flow::EndReason;

use crate::common::{Options, Results, median};
use crate::line::{Headers, Line, POLICY, Reader, frame};

const CONNECTIONS: u32 = 1000;
const TABLE: &str = "\n[flow]\ncapacity = 1048576\n";
/// Packets of connections in a slot, and how long they take to come in.
const SLOT: u32 = 2000;
const SLOT_NS: u64 = 2_000_000;
/// Room in the record ring, for two slots of evictions.
const RECORDS: usize = 4 * SLOT as usize;
const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;

struct Generator<'a> {
    line: Line,
    packets: &'a Mempool,
    outbox: Outbox,
    burst: Burst,
    reader: Reader,
    offered: u64,
    /// Packets of connections that came out.
    delivered: u64,
    ended_connections: u64,
    flooded: u32,
    slots: u32,
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
        let packet = Mbuf::with_bytes(self.packets, &frame(headers), 0).expect("buffers for two slots");
        assert!(self.outbox.push(packet).is_ok(), "emptied when full");
        self.offered += 1;
        if self.outbox.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let all = self.outbox.len();
        assert_eq!(self.line.input.send(&mut self.outbox), all, "the input has room for a slot");
    }

    /// Takes away what came out.
    fn collect(&mut self) {
        while self.line.output.receive(&mut self.burst) > 0 {
            for i in 0..self.burst.len() {
                // The second half of 10/8 is the flood.
                self.delivered += u64::from(!is_flood(self.burst.frame(i)));
            }
        }
        self.burst.clear();
    }

    fn read_records(&mut self) {
        let ended = &mut self.ended_connections;
        self.reader.take(&self.line.records, |record| {
            *ended += u64::from(record.tuple.src < 0x0a80_0000 && record.reason != EndReason::Active);
        });
    }

    /// Delivered packets of connections a second, and the worker's nanoseconds a packet.
    fn phase(&mut self, slots: u32, flood: bool) -> (f64, f64) {
        let (mut nanoseconds, mut lasted, before) = (Vec::new(), 0, self.delivered);
        for _ in 0..slots {
            for n in 0..SLOT {
                self.offer(&headers(n % CONNECTIONS, false, n >= CONNECTIONS, ACK));
                if flood {
                    self.offer(&headers(self.flooded, true, false, SYN));
                    self.flooded += 1;
                }
            }
            self.flush();
            let busy = self.line.work();
            lasted += busy.max(SLOT_NS);
            nanoseconds.push(busy as f64 / f64::from(SLOT * (1 + u32::from(flood))));
            self.collect();
            self.slots += 1;
            // A reader that is away now and then.
            if self.slots % 64 < 60 {
                self.read_records();
            }
        }
        ((self.delivered - before) as f64 * 1e9 / lasted as f64, median(&nanoseconds))
    }
}

fn is_flood(frame: &[u8]) -> bool {
    frame.get(26) == Some(&10) && frame.get(27).is_some_and(|byte| *byte >= 0x80)
}

pub fn run(eal: &Arc<Eal>, options: &Options, results: &mut Results) -> Result<()> {
    let flood: u32 = if options.quick { 1_500_000 } else { 5_000_000 };
    let packets = Mempool::packets(eal, "flood_packets", 8191)?;
    let clones = Mempool::clones(eal, "flood_clones", 1023)?;
    let line = Line::new(eal, [&packets, &clones], &format!("{POLICY}{TABLE}"), RECORDS)?;
    let mut generator = Generator {
        line,
        packets: &packets,
        outbox: Outbox::new(),
        burst: Burst::new(),
        reader: Reader::default(),
        offered: 0,
        delivered: 0,
        ended_connections: 0,
        flooded: 0,
        slots: 0,
    };
    for (back, flags) in [(false, SYN), (true, SYN_ACK), (false, ACK)] {
        (0..CONNECTIONS).for_each(|n| generator.offer(&headers(n, false, back, flags)));
    }
    generator.flush();
    generator.line.work();
    generator.collect();
    let (rounds, mut pairs, mut costs) = (10, Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..rounds {
        let slots = flood / rounds / SLOT;
        let quiet = generator.phase(slots, false);
        let flooded = generator.phase(slots, true);
        pairs.push((flooded.0, quiet.0));
        costs[0].push(quiet.1);
        costs[1].push(flooded.1);
    }
    report(generator)?;
    let [quiet, flooded] = costs;
    results.compared("established packets forwarded under flood", "packets/s", "no flood", &pairs);
    results.measured("worker, packets of established connections", "ns/packet", quiet);
    results.measured("worker, half of the packets new SYNs", "ns/packet", flooded);
    Ok(())
}

/// Where everything went.
fn report(generator: Generator<'_>) -> Result<()> {
    let Generator { mut line, mut reader, offered, ended_connections, flooded, .. } = generator;
    let lost_before = ended_connections;
    // The last records find only so much room: what does not is lost and counted.
    let summary = line.finish();
    reader.take(&line.records, |_| {});
    let lost = line.counters.records_lost.get();
    let made = line.counters.records.get() + lost;
    reader.close(made);
    println!(
        "{flooded} SYNs: {} flows begun, {} evicted half-open, {} evicted established, {} packets without a place; \
         {made} records, {} read, {lost} lost by the counters, {} missing at the reader; {offered} packets offered, {} received",
        summary.flows,
        summary.flows_evicted_half_open,
        summary.flows_evicted_idle,
        summary.untracked,
        reader.read,
        reader.missing,
        summary.rx
    );
    ensure!(lost_before == 0 && summary.flows_evicted_idle == 0, "an established connection lost its place");
    ensure!(summary.flows == u64::from(CONNECTIONS + flooded), "every SYN a flow, and no connection twice");
    ensure!(reader.missing == lost && reader.read + lost == made, "losses are what the counters say");
    ensure!(summary.rx == offered && made >= summary.flows, "every packet received, every flow recorded");
    Ok(())
}
