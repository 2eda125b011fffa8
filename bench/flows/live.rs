//! Ten million packets a second of the worker's CPU time, a hundred thousand of them the first of a flow. What the worker
//! forwards is sent to it again; what it has no time for finds its input full and is missed, as with a device.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gnomon::dpdk::{Burst, Eal, Mbuf, Mempool, Outbox};

use crate::common::{Options, Results};
use crate::line::{Headers, Line, POLICY, Reader, frame};

const PACKETS_PER_SECOND: u64 = 10_000_000;
const FLOWS_PER_SECOND: u64 = 100_000;
/// Descriptors of the device that is played here, all of which may wait for the worker.
const WAITING: usize = 2048;
/// A flow ends a second after its last packet: as many records as flows, all the time.
const TIMES: &str = "\n[flow]\ncapacity = 1048576\n[flow.timeouts]\nudp = \"1s\"\n";
/// Room for records; the reader comes more often than that, except in the last quarter of the run.
const RECORDS: usize = 16_384;
/// Times that the worker empties its input in one measurement.
const ROUNDS: usize = 50;

fn headers(n: u32) -> Headers {
    Headers {
        src: 0x0a00_0000 + (n >> 12 & 0x7f_ffff),
        dst: 0xc0a8_0000 + (n & 63),
        src_port: 1024 + (n % 4096) as u16 * 8,
        dst_port: 443,
        tcp_flags: None,
    }
}

struct Circle<'a> {
    line: Line,
    packets: &'a Mempool,
    burst: Burst,
    outbox: Outbox,
    /// Frames that came out and go in again, in this order.
    returned: VecDeque<Mbuf>,
    /// Of the worker.
    busy_ns: u64,
    offered: u64,
    missed: u64,
    flows: u32,
}

impl Circle<'_> {
    fn fresh(&mut self) -> Mbuf {
        self.flows += 1;
        Mbuf::with_bytes(self.packets, &frame(&headers(self.flows)), 0).expect("frames for twice as many")
    }

    /// What has come in while the worker was busy.
    fn offer(&mut self) {
        let due = self.busy_ns * PACKETS_PER_SECOND / 1_000_000_000 - self.offered;
        let taken = due.min(WAITING as u64);
        self.offered += due;
        self.missed += due - taken;
        for _ in 0..taken {
            let is_new = u64::from(self.flows) < self.busy_ns * FLOWS_PER_SECOND / 1_000_000_000;
            let old = self.returned.pop_front();
            let packet = old.filter(|_| !is_new).unwrap_or_else(|| self.fresh());
            assert!(self.outbox.push(packet).is_ok(), "sent when full");
            if self.outbox.is_full() {
                self.line.input.send(&mut self.outbox);
            }
        }
        self.line.input.send(&mut self.outbox);
    }

    fn work(&mut self) {
        self.busy_ns += self.line.work();
        while self.line.output.receive(&mut self.burst) > 0 {
            self.returned.extend((0..self.burst.len()).filter_map(|i| self.burst.take(i)));
        }
    }
}

pub fn run(eal: &Arc<Eal>, options: &Options, results: &mut Results) -> Result<()> {
    let packets = Mempool::packets(eal, "live_packets", 8191)?;
    let clones = Mempool::clones(eal, "live_clones", 1023)?;
    let line = Line::new(eal, [&packets, &clones], &format!("{POLICY}{TIMES}"), RECORDS)?;
    let (burst, outbox, returned) = (Burst::new(), Outbox::new(), VecDeque::with_capacity(WAITING));
    let packets = &packets;
    let mut circle = Circle { line, packets, burst, outbox, returned, busy_ns: 0, offered: 0, missed: 0, flows: 0 };
    let time = Duration::from_secs(if options.quick { 6 } else { 24 });
    let (began, mut reader, mut rates) = (Instant::now(), Reader::default(), Vec::new());
    while began.elapsed() < time {
        let (busy, taken) = (circle.busy_ns, circle.offered - circle.missed);
        for _ in 0..ROUNDS {
            circle.work();
            circle.offer();
        }
        circle.work();
        rates.push((circle.offered - circle.missed - taken) as f64 * 1e3 / (circle.busy_ns - busy) as f64);
        if began.elapsed() < time * 3 / 4 {
            reader.take(&circle.line.records, |_| {});
        }
    }
    report(circle, reader)?;
    results.measured("one worker, 64-byte UDP, 100,000 new flows a second", "Mpps of CPU time", rates);
    Ok(())
}

/// Where everything went.
fn report(circle: Circle<'_>, mut reader: Reader) -> Result<()> {
    let Circle { mut line, offered, missed, flows, busy_ns, .. } = circle;
    let summary = line.finish();
    reader.take(&line.records, |_| {});
    let lost = line.counters.records_lost.get();
    let made = line.counters.records.get() + lost;
    reader.close(made);
    let per_second = |n: u64| n as f64 * 1e9 / busy_ns as f64;
    println!(
        "{offered} packets offered ({:.2} Mpps), {} received, {missed} missed; {} flows begun ({:.0} a second), \
         {made} records: {} read, {lost} lost by the counters, {} missing at the reader; {} packets without a place, \
         {} flows evicted",
        per_second(offered) / 1e6,
        summary.rx,
        summary.flows,
        per_second(summary.flows),
        reader.read,
        reader.missing,
        summary.untracked,
        summary.flows_evicted,
    );
    ensure!(offered == summary.rx + missed, "every packet is received or missed");
    ensure!(lost > 0 && reader.missing == lost && reader.read + lost == made, "losses are what the counters say");
    ensure!(summary.rx == summary.tx, "every packet forwarded");
    ensure!(
        summary.flows >= u64::from(flows) && made >= summary.flows,
        "every frame made begins a flow, every flow is recorded"
    );
    Ok(())
}
