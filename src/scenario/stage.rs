//! What a running scenario acts on: it sends frames, opens connections, resolves neighbours.

use std::collections::HashMap;
use std::net::IpAddr;

use super::dice::Dice;
use super::frames::{self, End, IpFields, Segment};
use super::ledger::{FlowIx, Label, Ledger};
use super::merge::Source;
use super::neighbours::Resolution;
use super::tcp::{Conversation, Pace, TcpFlow};
use super::topology::{HostIx, Topology};
use crate::capture::{CaptureError, PcapWriter};

/// How long a neighbour's address is remembered.
const NEIGHBOUR_NS: u64 = 600_000_000_000;

/// First and number of the ports that connections leave from.
const EPHEMERAL: (u16, u16) = (32_768, 28_000);

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The initiator.
    Client,
    Server,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One conversation: its two ends, and its place in the ledger once a packet was sent.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) ends: [End; 2],
    pub(super) ports: [u16; 2],
    pub(super) protocol: u8,
    pub(super) label: Label,
    ip_ids: [u16; 2],
    flow_label: u32,
    flow: Option<FlowIx>,
}

impl Wire {
    /// Between two ends as given, spoofed or not. For echoes, the first port is the identifier.
    pub(super) fn between(ends: [End; 2], ports: [u16; 2], protocol: u8, label: Label, dice: &mut Dice) -> Self {
        Self { ends, ports, protocol, label, ip_ids: [dice.u16(), dice.u16()], flow_label: dice.u32(), flow: None }
    }

    pub(super) fn is_v6(&self) -> bool {
        matches!(self.ends[0].ip, IpAddr::V6(_))
    }
}

/// A TCP segment from one side, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
}

/// Everything that sources of packets share.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) topology: &'a Topology,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) ipv6_share: f64,
    pub(super) loss: f64,
    pub(super) ledger: Ledger,
    pub(super) writer: PcapWriter,
    /// Sources that begin later, taken over by the merge.
    pub(super) spawned: Vec<(u64, Box<dyn Source>)>,
    /// The first thing that went wrong; ends the run.
    pub(super) error: Option<CaptureError>,
    frame: Vec<u8>,
    neighbours: HashMap<(u32, u32, bool), u64>,
    next_port: Vec<u16>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(topology: &'a Topology, times: (u64, u64), ledger: Ledger, writer: PcapWriter) -> Self {
        let mut dice = Dice::new(0, topology.hosts.len() as u64);
        Self {
            topology,
            start_ns: times.0,
            end_ns: times.1,
            ipv6_share: 0.0,
            loss: 0.0,
            ledger,
            writer,
            spawned: Vec::new(),
            error: None,
            frame: Vec::with_capacity(2048),
            neighbours: HashMap::new(),
            next_port: topology.hosts.iter().map(|_| dice.u16() % EPHEMERAL.1).collect(),
        }
    }

    /// How packets of a host look at the gateway.
    pub(super) fn end(&self, host: HostIx, v6: bool) -> End {
        let host = self.topology.host(host);
        End { mac: host.mac, ip: if v6 { host.v6.into() } else { host.v4.into() }, ttl: host.ttl }
    }

    /// The next port that a connection of this host leaves from.
    pub(super) fn ephemeral(&mut self, host: HostIx) -> u16 {
        let next = &mut self.next_port[host.0 as usize];
        *next = (*next + 1) % EPHEMERAL.1;
        EPHEMERAL.0 + *next
    }

    /// A conversation of `from` with a port of `to`.
    pub(super) fn wire(
        &mut self,
        hosts: [HostIx; 2],
        protocol: u8,
        port: u16,
        label: Label,
        v6: bool,
        dice: &mut Dice,
    ) -> Wire {
        let ports = [self.ephemeral(hosts[0]), port];
        Wire::between([self.end(hosts[0], v6), self.end(hosts[1], v6)], ports, protocol, label, dice)
    }

    /// Begins a source at a time.
    pub(super) fn spawn(&mut self, at: u64, source: impl Source + 'static) {
        self.spawned.push((at, Box::new(source)));
    }

    /// Opens a TCP connection from `hosts[0]` to a port of `hosts[1]`, resolving the neighbour first.
    pub(super) fn connect(
        &mut self,
        now: u64,
        hosts: [HostIx; 2],
        port: u16,
        label: Label,
        dice: &mut Dice,
        talk: impl Conversation + 'static,
    ) {
        let v6 = label.attack.is_none() && dice.chance(self.ipv6_share);
        let wire = self.wire(hosts, frames::TCP, port, label, v6, dice);
        let at = self.resolve(now, hosts, v6);
        let pace = self.pace(hosts);
        self.spawn(at, TcpFlow::new(wire, pace, at, dice.fork(), Box::new(talk)));
    }

    /// Delays and loss between two hosts.
    pub(super) fn pace(&self, hosts: [HostIx; 2]) -> Pace {
        let hosts = hosts.map(|h| self.topology.host(h));
        let local = hosts.iter().all(|h| h.kind.is_local());
        let gap_ns = if local { 12_000 } else { 120_000 };
        Pace { rtt_ns: hosts.map(|h| h.rtt_ns), gap_ns, loss: self.loss }
    }

    /// Lets the sender ask for its neighbour's address unless it knows it; returns when it can send.
    pub(super) fn resolve(&mut self, now: u64, hosts: [HostIx; 2], v6: bool) -> u64 {
        let [asker, asked] = hosts.map(|h| self.topology.host(h).kind.is_local().then_some(h));
        if asker.is_none() && asked.is_none() {
            return now;
        }
        let key = |h: Option<HostIx>| h.map_or(u32::MAX, |h| h.0);
        let pairs = [(key(asker), key(asked), v6), (key(asked), key(asker), v6)];
        let known = self.neighbours.get(&pairs[0]).is_some_and(|&at| now < at + NEIGHBOUR_NS);
        if known {
            return now;
        }
        // Whoever is asked learns the asker's address with the question.
        for pair in pairs {
            self.neighbours.insert(pair, now);
        }
        self.spawn(now, Resolution::new(asker, asked, v6));
        now + Resolution::DURATION_NS
    }

    /// Sends a TCP segment; `payload` appends to the frame.
    pub(super) fn send_tcp(
        &mut self,
        now: u64,
        wire: &mut Wire,
        side: Side,
        flags: Flags,
        payload: impl FnOnce(&mut Vec<u8>),
    ) {
        let opening = flags.flags & frames::SYN != 0;
        let (from, to) = (side as usize, side.other() as usize);
        let segment = Segment {
            src_port: wire.ports[from],
            dst_port: wire.ports[to],
            seq: flags.seq,
            ack: flags.ack,
            flags: flags.flags,
            window: match (opening, flags.flags & frames::RST != 0) {
                (_, true) => 0,
                (true, _) => 64_240,
                // Scaled by 128.
                _ => 502,
            },
            mss: opening.then_some(if wire.is_v6() { 1440 } else { 1460 }),
        };
        self.send(now, wire, side, |out| frames::tcp(out, &segment, payload));
    }

    /// Sends a UDP datagram.
    pub(super) fn send_udp(&mut self, now: u64, wire: &mut Wire, side: Side, payload: &[u8]) {
        let (from, to) = (side as usize, side.other() as usize);
        let ports = (wire.ports[from], wire.ports[to]);
        self.send(now, wire, side, |out| frames::udp(out, ports.0, ports.1, payload));
    }

    /// Sends an echo request (from the client) or reply.
    pub(super) fn send_echo(&mut self, now: u64, wire: &mut Wire, side: Side, seq: u16, payload: &[u8]) {
        let kind = match (wire.is_v6(), side) {
            (false, Side::Client) => 8,
            (false, Side::Server) => 0,
            (true, Side::Client) => 128,
            (true, Side::Server) => 129,
        };
        let id = wire.ports[0];
        self.send(now, wire, side, |out| frames::echo(out, kind, id, seq, payload));
    }

    /// Notes the end of a conversation.
    pub(super) fn close(&mut self, wire: &mut Wire) {
        if let Some(flow) = wire.flow.take() {
            let result = self.ledger.close(flow);
            self.note(result);
        }
    }

    /// Writes a frame that belongs to no flow; `build` fills the buffer.
    pub(super) fn send_loose(&mut self, now: u64, label: Label, build: impl FnOnce(&mut Vec<u8>)) {
        build(&mut self.frame);
        self.ledger.count_label(label, now, self.frame.len());
        self.write(now);
    }

    fn send(&mut self, now: u64, wire: &mut Wire, side: Side, upper: impl FnOnce(&mut Vec<u8>) -> usize) {
        let (from, to) = (side as usize, side.other() as usize);
        let fields = IpFields { protocol: wire.protocol, id: wire.ip_ids[from], flow_label: wire.flow_label };
        wire.ip_ids[from] = wire.ip_ids[from].wrapping_add(1);
        frames::ip(&mut self.frame, &wire.ends[from], &wire.ends[to], fields, upper);
        let flow = *wire.flow.get_or_insert_with(|| {
            let ips = wire.ends.map(|e| e.ip);
            self.ledger.open(ips, wire.ports, wire.protocol, wire.label, now)
        });
        self.ledger.count(flow, from, now, self.frame.len());
        self.write(now);
    }

    fn write(&mut self, now: u64) {
        let result = self.writer.write(now, &self.frame, self.frame.len() as u32);
        self.note(result);
    }

    fn note(&mut self, result: Result<(), CaptureError>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}
