//! Frames that go round: what the worker forwards comes back to its input, and every hundredth with another source, so
//! that a hundred thousand flows begin each ten million packets. The worker's rate is what its CPU time allows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gnomon::dpdk::{Burst, Eal, Mbuf, Mempool, Outbox};

use crate::common::{Options, Results};
use crate::line::{Headers, Line, POLICY, Reader, frame};

/// Frames on their way.
const CIRCULATING: u32 = 2048;
const NEW_FLOW_EVERY: u32 = 100;
/// A flow ends a second after its last packet: as many records as flows, all the time.
const TIMES: &str = "\n[flow]\ncapacity = 1048576\n[flow.timeouts]\nudp = \"1s\"\n";
/// Room for records; the reader comes more often than that, except in the last quarter of the run.
const RECORDS: usize = 16_384;
/// Rounds of all frames in one measurement.
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
    flows: u32,
    countdown: u32,
}

impl Circle<'_> {
    fn fresh(&mut self) -> Mbuf {
        self.flows += 1;
        Mbuf::with_bytes(self.packets, &frame(&headers(self.flows)), 0).expect("frames for twice as many")
    }

    fn put(&mut self, packet: Mbuf) {
        assert!(self.outbox.push(packet).is_ok(), "sent when full");
        if self.outbox.is_full() {
            self.line.input.send(&mut self.outbox);
        }
    }

    /// From the output to the input.
    fn turn_round(&mut self) {
        loop {
            let came = self.line.output.receive(&mut self.burst);
            for i in 0..came {
                self.countdown -= 1;
                let Some(packet) = self.burst.take(i) else { continue };
                let packet = if self.countdown == 0 {
                    self.countdown = NEW_FLOW_EVERY;
                    drop(packet);
                    self.fresh()
                } else {
                    packet
                };
                self.put(packet);
            }
            if came == 0 {
                break;
            }
        }
        self.line.input.send(&mut self.outbox);
    }
}

pub fn run(eal: &Arc<Eal>, options: &Options, results: &mut Results) -> Result<()> {
    let packets = Mempool::packets(eal, "live_packets", 8191)?;
    let clones = Mempool::clones(eal, "live_clones", 1023)?;
    let line = Line::new(eal, [&packets, &clones], &format!("{POLICY}{TIMES}"), RECORDS)?;
    let (burst, outbox) = (Burst::new(), Outbox::new());
    let mut circle = Circle { line, packets: &packets, burst, outbox, flows: 0, countdown: NEW_FLOW_EVERY };
    for _ in 0..CIRCULATING {
        let packet = circle.fresh();
        circle.put(packet);
    }
    let time = Duration::from_secs(if options.quick { 6 } else { 24 });
    let (began, mut reader, mut rates) = (Instant::now(), Reader::default(), Vec::new());
    while began.elapsed() < time {
        let mut busy = 0;
        for _ in 0..ROUNDS {
            busy += circle.line.work();
            circle.turn_round();
        }
        rates.push(f64::from(CIRCULATING) * ROUNDS as f64 * 1e3 / busy as f64);
        if began.elapsed() < time * 3 / 4 {
            reader.take(&circle.line.records, |_| {});
        }
    }
    let flows = circle.flows;
    let summary = circle.line.finish();
    reader.take(&circle.line.records, |_| {});
    let lost = circle.line.counters.records_lost.get();
    let made = circle.line.counters.records.get() + lost;
    reader.close(made);
    println!(
        "{} packets, {} flows begun, {made} records: {} read, {lost} lost by the counters, {} missing at the reader; \
         {} packets without a place, {} flows evicted",
        summary.rx, summary.flows, reader.read, reader.missing, summary.untracked, summary.flows_evicted,
    );
    ensure!(lost > 0 && reader.missing == lost && reader.read + lost == made, "losses are what the counters say");
    ensure!(summary.rx == summary.tx, "every packet forwarded");
    ensure!(summary.flows + u64::from(CIRCULATING) >= flows.into(), "every frame made begins a flow");
    results.measured("one worker, 64-byte UDP, 1 new flow in 100 packets", "Mpps of CPU time", rates);
    Ok(())
}
