//! Whole workers that forward the same packets over the same thousand rules, by turns: one counts at no rule, the others
//! at all of them, with shadow-mode rules before some. What each forwards is sent to it again.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Result, ensure};
use gnomon::dpdk::{Burst, Eal, Mbuf, Mempool, Outbox};

use crate::common::{Results, median};
use crate::line::{Headers, Line, frame};

/// A rule for each group of clients.
const GROUPS: u32 = 1000;
/// Packets that go round, each of a flow of its own.
const PACKETS: u32 = 4000;
/// Percent of the groups for which a rule in shadow mode comes before the one that decides.
const SHARES: [u32; 4] = [0, 10, 50, 100];
/// Rounds of a turn, about 20 ms.
const ROUNDS: usize = 30;
const RECORDS: usize = 1024;

/// Measures and prints.
pub fn measure(results: &mut Results, eal: &Arc<Eal>, turns: usize) -> Result<()> {
    let clones = Mempool::clones(eal, "counted_clones", 1023)?;
    let packets = Mempool::packets(eal, "counted_packets", PACKETS * (SHARES.len() as u32 + 2))?;
    let mut uncounted = Circle::new(Line::uncounted(eal, [&packets, &clones], &policy(0), RECORDS)?, &packets);
    let counted = |share| Ok(Circle::new(Line::new(eal, [&packets, &clones], &policy(share), RECORDS)?, &packets));
    let mut counted: Vec<Circle> = SHARES.into_iter().map(counted).collect::<Result<_>>()?;
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); SHARES.len() + 1];
    // The first turns begin the flows.
    for turn in 0..turns + 3 {
        for nth in 0..times.len() {
            let nth = (nth + turn) % times.len();
            let circle = if nth == 0 { &mut uncounted } else { &mut counted[nth - 1] };
            let time = circle.turn();
            times[nth].extend((turn >= 3).then_some(time));
        }
    }
    println!("\nworkers, {GROUPS} rules, {PACKETS} flows of 64-byte packets");
    let base = &times[0];
    for (share, times) in SHARES.into_iter().zip(&times[1..]) {
        // More is better in a comparison.
        let rates: Vec<(f64, f64)> = times.iter().zip(base).map(|(own, base)| (1e3 / own, 1e3 / base)).collect();
        let more: Vec<f64> = times.iter().zip(base).map(|(own, base)| own - base).collect();
        println!("  {share:>3} % of packets in shadow rules too: {:+.2} ns a packet", median(&more));
        let case = format!("worker, rules counted, {share} % of packets in shadow rules too");
        results.compared(case, "Mpps of CPU time", "not counted", &rates);
    }
    counted.into_iter().zip(SHARES).try_for_each(|(circle, share)| circle.finish(share))?;
    uncounted.finish_uncounted()
}

struct Circle {
    line: Line,
    burst: Burst,
    outbox: Outbox,
    waiting: VecDeque<Mbuf>,
    sent: u64,
}

impl Circle {
    fn new(line: Line, packets: &Mempool) -> Self {
        let packet = |n: u32| {
            let src = 0x0a00_0000 | ((n % GROUPS) << 8) | (n / GROUPS);
            let headers = Headers { src, dst: 0xc0a8_0001, src_port: 4000, dst_port: 443, tcp_flags: None };
            Mbuf::with_bytes(packets, &frame(&headers), 0).expect("frames for all")
        };
        // Neighbours are of distant rules.
        let waiting = (0..PACKETS).map(|n| packet(n * 619 % PACKETS)).collect();
        Self { line, burst: Burst::new(), outbox: Outbox::new(), waiting, sent: 0 }
    }

    /// Nanoseconds of CPU time a packet.
    fn turn(&mut self) -> f64 {
        let mut busy = 0;
        for _ in 0..ROUNDS {
            while let Some(packet) = self.waiting.pop_front() {
                assert!(self.outbox.push(packet).is_ok(), "sent when full");
                if self.outbox.is_full() {
                    self.line.input.send(&mut self.outbox);
                }
            }
            self.line.input.send(&mut self.outbox);
            busy += self.line.work();
            while self.line.output.receive(&mut self.burst) > 0 {
                self.waiting.extend((0..self.burst.len()).filter_map(|i| self.burst.take(i)));
            }
        }
        self.sent += u64::from(PACKETS) * ROUNDS as u64;
        busy as f64 / (u64::from(PACKETS) * ROUNDS as u64) as f64
    }

    /// Everything was forwarded and counted.
    fn finish(mut self, share: u32) -> Result<()> {
        let summary = self.line.finish();
        let sum = |of: fn(&gnomon::appliance::RuleHits) -> u64| summary.rules.values().map(of).sum::<u64>();
        let (hits, would) = (sum(|rule| rule.packets), sum(|rule| rule.would));
        ensure!(
            (summary.rx, summary.tx, hits) == (self.sent, self.sent, self.sent),
            "{share}: {hits} of {}",
            self.sent
        );
        ensure!(would == self.sent * u64::from(share) / 100, "{share} %: {would} in shadow mode");
        Ok(())
    }

    fn finish_uncounted(mut self) -> Result<()> {
        let summary = self.line.finish();
        let hits: u64 = summary.rules.values().map(|rule| rule.packets).sum();
        ensure!((summary.tx, hits) == (self.sent, 0), "{hits} counted");
        Ok(())
    }
}

fn policy(share: u32) -> String {
    let mut text = "[policy]\ndefault = \"deny\"\n[flow]\ncapacity = 16384\n".to_owned();
    text += "[[group]]\nname = \"servers\"\ncidrs = [\"192.168.0.0/16\"]\n";
    for n in 0..GROUPS {
        write!(text, "[[group]]\nname = \"g{n}\"\ncidrs = [\"10.{}.{}.0/24\"]\n", n >> 8, n & 255).expect("memory");
        let rule = |id: char, action: &str, more: &str| {
            format!(
                "[[rule]]\nid = \"{id}{n}\"\nfrom = \"g{n}\"\nto = \"servers\"\nprotocol = \"udp\"\nports = 443\n\
                 action = \"{action}\"\n{more}"
            )
        };
        text += &rule('a', "allow", "");
        if n % 100 < share {
            text += &rule('s', "deny", "mode = \"shadow\"\npriority = 900\n");
        }
    }
    text
}
