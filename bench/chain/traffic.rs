//! Frames that go round, some of them the first of a flow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use gnomon::dpdk::{Burst, Mbuf, Mempool, Outbox};

use crate::line::{Headers, Line, frame};

/// Frames going round.
const WAITING: usize = 2048;

pub struct Circle<'a> {
    pub line: Line,
    packets: &'a Mempool,
    burst: Burst,
    outbox: Outbox,
    /// Frames that came out and go in again, in this order.
    returned: VecDeque<Mbuf>,
    flows: u64,
    flows_a_second: u64,
    began: Instant,
    state: State,
}

/// Packets that the worker took, and its CPU time for them.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    pub packets: u64,
    pub busy_ns: u64,
}

/// A client's question, or the answer.
fn headers(n: u64, answer: bool) -> Headers {
    let (client, server) = (0x0a00_0000 + (n >> 6 & 0x3f_ffff) as u32, 0xc0a8_0000 + (n & 63) as u32);
    let port = 1024 + (n % 60_000) as u16;
    let there = Headers { src: client, dst: server, src_port: port, dst_port: 443, tcp_flags: None };
    if answer { Headers { src: server, dst: client, src_port: 443, dst_port: port, ..there } } else { there }
}

impl<'a> Circle<'a> {
    pub fn new(line: Line, packets: &'a Mempool, flows_a_second: u64) -> Self {
        Self {
            line,
            packets,
            burst: Burst::new(),
            outbox: Outbox::new(),
            returned: VecDeque::with_capacity(2 * WAITING),
            flows: 0,
            flows_a_second,
            began: Instant::now(),
            state: State::default(),
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Goes round for so long.
    pub fn run(&mut self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            self.round();
        }
    }

    fn round(&mut self) {
        let due = (self.began.elapsed().as_nanos() as u64 / 1000 * self.flows_a_second / 1_000_000)
            .saturating_sub(self.flows)
            .min(WAITING as u64 / 4);
        // New ones take the place of the oldest.
        let old = self.returned.len().saturating_sub((self.returned.len() + 2 * due as usize).saturating_sub(WAITING));
        let dropped = self.returned.len() - old;
        self.returned.drain(..dropped);
        for _ in 0..due {
            for answer in [false, true] {
                let packet = Mbuf::with_bytes(self.packets, &frame(&headers(self.flows, answer)), 0);
                self.returned.push_back(packet.expect("frames for several times as many"));
            }
            self.flows += 1;
        }
        while let Some(packet) = self.returned.pop_front() {
            assert!(self.outbox.push(packet).is_ok(), "sent when full");
            self.state.packets += 1;
            if self.outbox.is_full() {
                self.line.input.send(&mut self.outbox);
            }
        }
        self.line.input.send(&mut self.outbox);
        self.state.busy_ns += self.line.work();
        while self.line.output.receive(&mut self.burst) > 0 {
            self.returned.extend((0..self.burst.len()).filter_map(|i| self.burst.take(i)));
        }
    }

    /// True when all that went in came out.
    pub fn finish(mut self) -> bool {
        let summary = self.line.finish();
        summary.rx == self.state.packets && summary.rx == summary.tx
    }
}
