//! Frames that go round: what the worker forwards comes back to its input, and every hundredth with another source, so
//! that the rate is the worker's own and a hundred thousand flows begin each ten million packets.

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
const WINDOW: Duration = Duration::from_millis(100);

fn headers(n: u32) -> Headers {
    Headers {
        src: 0x0a00_0000 + (n >> 12 & 0x7f_ffff),
        dst: 0xc0a8_0000 + (n & 63),
        src_port: 1024 + (n % 4096) as u16 * 8,
        dst_port: 443,
        tcp_flags: None,
    }
}

/// Million packets a second of each window, and the reader of the records.
fn circulate(line: &Line, packets: &Mempool, seconds: u64) -> (Vec<f64>, Reader, u32) {
    let (mut burst, mut outbox, mut reader) = (Burst::new(), Outbox::new(), Reader::default());
    let mut flows = 0;
    let mut fresh = || {
        flows += 1;
        Mbuf::with_bytes(packets, &frame(&headers(flows)), 0).expect("frames for twice as many")
    };
    for _ in 0..CIRCULATING {
        assert!(outbox.push(fresh()).is_ok());
        line.input.send(&mut outbox);
    }
    let (began, mut window, mut before) = (Instant::now(), Instant::now(), line.counters.rx_packets.get());
    let (mut countdown, mut rates, mut polls) = (NEW_FLOW_EVERY, Vec::new(), 0u32);
    while began.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..64 {
            for i in 0..line.output.receive(&mut burst) {
                countdown -= 1;
                let packet = if countdown == 0 {
                    countdown = NEW_FLOW_EVERY;
                    drop(burst.take(i));
                    Some(fresh())
                } else {
                    burst.take(i)
                };
                packet.into_iter().for_each(|packet| assert!(outbox.push(packet).is_ok(), "sent below"));
            }
            while !outbox.is_empty() {
                line.input.send(&mut outbox);
            }
        }
        polls += 1;
        if polls.is_multiple_of(8) {
            reader.take(&line.records, |_| {});
        }
        if window.elapsed() >= WINDOW {
            let now = line.counters.rx_packets.get();
            rates.push((now - before) as f64 / window.elapsed().as_secs_f64() / 1e6);
            (before, window) = (now, Instant::now());
        }
    }
    (rates, reader, flows)
}

pub fn run(eal: &Arc<Eal>, options: &Options, results: &mut Results) -> Result<()> {
    let packets = Mempool::packets(eal, "live_packets", 8191)?;
    let clones = Mempool::clones(eal, "live_clones", 1023)?;
    let line = Line::start(eal, &packets, &clones, &format!("{POLICY}{TIMES}"), "live", options.cpu)?;
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 - options.cpu.min(1) });
    let seconds = if options.quick { 4 } else { 20 };
    let (rates, mut reader, flows) = circulate(&line, &packets, seconds);
    line.stop();
    while line.is_running() {
        reader.take(&line.records, |_| {});
    }
    reader.take(&line.records, |_| {});
    let (made, lost) =
        (line.counters.records.get() + line.counters.records_lost.get(), line.counters.records_lost.get());
    reader.close(made);
    let summary = line.finish();
    println!(
        "{} packets, {} flows begun ({:.0} a second), {made} records: {} read, {} missing at the reader, {lost} lost by the counters; \
         {} packets without a place, {} flows evicted",
        summary.rx,
        summary.flows,
        summary.flows as f64 / seconds as f64,
        reader.read,
        reader.missing,
        summary.untracked,
        summary.flows_evicted,
    );
    ensure!(reader.missing == lost && reader.read + lost == made, "losses are not what the counters say");
    ensure!(summary.rx == summary.tx && summary.flows >= flows.into(), "every packet forwarded, every flow begun");
    let best = rates.iter().copied().fold(0.0, f64::max);
    results.measured("one worker, 64-byte UDP, 1 new flow in 100, windows of 100 ms", "Mpps", rates);
    results.measured("the best of these windows", "Mpps", vec![best]);
    Ok(())
}
