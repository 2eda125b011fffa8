//! Short conversations that are known packet by packet: a query and its answer, a few echoes, a probe.

use std::collections::VecDeque;

use super::merge::Source;
use super::stage::{Flags, Side, Stage, Wire};

/// One packet's content.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Udp(Vec<u8>),
    Echo { seq: u16, size: usize },
    Tcp(Flags),
}

/// Packets of one wire at fixed times.
#[derive(Debug)]
pub(super) struct Exchange {
    wire: Wire,
    messages: VecDeque<(u64, Side, Message)>,
}

impl Exchange {
    /// `messages` in order of time (nanoseconds since 1970).
    pub(super) fn new(wire: Wire, messages: impl IntoIterator<Item = (u64, Side, Message)>) -> Self {
        Self { wire, messages: messages.into_iter().collect() }
    }

    /// Begins this exchange at its first message.
    pub(super) fn begin(self, stage: &mut Stage<'_>) {
        if let Some(&(at, _, _)) = self.messages.front() {
            stage.spawn(at, self);
        }
    }
}

impl Source for Exchange {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        let (_, side, message) = self.messages.pop_front()?;
        match message {
            Message::Udp(payload) => stage.send_udp(now, &mut self.wire, side, &payload),
            Message::Echo { seq, size } => {
                let payload: Vec<u8> = (0..size).map(|i| i as u8).collect();
                stage.send_echo(now, &mut self.wire, side, seq, &payload);
            }
            Message::Tcp(flags) => stage.send_tcp(now, &mut self.wire, side, flags, |_| {}),
        }
        let next = self.messages.front().map(|&(at, _, _)| at);
        if next.is_none() {
            stage.close(&mut self.wire);
        }
        next
    }
}
