//! The stages a burst goes through, in order.

use std::sync::atomic::Ordering;

use crate::capture::{PREAMBLE_LEN, Preamble};
use crate::dpdk::Mbuf;
use crate::flow::{Entropy, FlowPacket, FlowTable, Lookup, SAMPLE, TO_CLIENT, Touch};
use crate::packet::{self, DropReason, Headers, Host, Ip, Mac, Malformed, Tuple};
use crate::rules::{Decision, LiveFlows, RuleHandle, Subject, Verdict};

use super::copies::{Candidate, packet_preamble, wait_for_buffer};
use super::divert::{Exit, NOWHERE};
use super::io::Cargo;
use super::note::{MOST_SHADOWS, PacketNote};
use super::observation::{Observation, Seen};
use super::reject::{self, MAX_REPLY};
use super::spreading::Spreading;
use super::verdict::{IcmpError, decide, decide_error, decide_icmp, diversion_of, is_refused_now};
use super::{Timing, Worker, WorkerParts, push_or_wait};

const UDP: u8 = 17;
/// Where DNS is asked.
const DNS: u16 = 53;

/// What is known of a packet besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    pub(super) clock: u64,
    /// Frame number in the capture; 0 live.
    pub(super) index: u64,
    /// Length of the Ethernet frame on the wire.
    pub(super) wire_len: u32,
    /// Length as counted: that on the original link.
    pub(super) count_len: u32,
    pub(super) problem: Option<DropReason>,
}

/// What the flow table and the rules want to know of a packet, gathered for the whole burst before the first packet is
/// judged: the cache misses of all lookups then overlap.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inquiry {
    /// It belongs to a flow; if not, nothing else here means anything.
    has_flow: bool,
    is_neighbour_discovery: bool,
    /// It is an ICMP error, and what it quotes is in the worker's list of quotes.
    has_quote: bool,
    subject: Subject,
    packet: FlowPacket,
    lookup: Lookup,
}

impl Inquiry {
    // PERF: inlined, so that the tuple is written twice from registers; a copy would have to wait for its parts.
    #[inline(always)]
    fn fill(&mut self, stamp: &Stamp, ip: &Ip, subject: &Subject, table: &FlowTable) {
        self.packet = flow_packet(stamp, ip, subject);
        table.prepare(&subject.tuple, &mut self.lookup);
        self.is_neighbour_discovery = is_neighbour_discovery(ip, subject);
        self.subject = *subject;
        self.has_quote = false;
        self.has_flow = true;
    }
}

/// A packet's verdict and the flow it belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) flow_id: u64,
    /// What the rules saw; version 0 without IP.
    pub(super) tuple: Tuple,
    /// Sessions that selected packet and flow, before per-packet sampling.
    pub(super) mirrors: u64,
    /// The packet's flow, if it has one.
    pub(super) touch: Option<Touch>,
    /// The verdict is one that the flow had.
    pub(super) cached: bool,
}

impl Worker {
    /// Time and lengths: live from the poll's clock, in replay from what the capture says.
    pub(super) fn stamp(&mut self) {
        for i in 0..self.burst.len() {
            let stamp = match self.parts.timing {
                Timing::Live(_) => {
                    let len = self.burst.packet_len(i);
                    Stamp { clock: self.clock, wire_len: len, count_len: len, ..Stamp::default() }
                }
                Timing::Capture { .. } => {
                    capture_stamp(self.burst.take_front::<PREAMBLE_LEN>(i), self.burst.packet_len(i))
                }
            };
            self.clock = self.clock.max(stamp.clock);
            self.stamps[i] = stamp;
        }
    }

    pub(super) fn parse(&mut self) {
        for i in 0..self.burst.len() {
            let stamp = &mut self.stamps[i];
            if stamp.problem.is_some() {
                // Nothing of the packet that was here in an earlier burst may speak for this one.
                self.headers[i] = Headers::default();
            } else if let Err(malformed) = packet::parse(self.burst.frame(i), stamp.wire_len, &mut self.headers[i]) {
                stamp.problem = Some(DropReason::Malformed(malformed));
            }
        }
    }

    /// Hands packets whose flow another worker owns to that worker: all of them where the device does not spread flows
    /// symmetrically itself, else ICMP errors.
    pub(super) fn redistribute(&mut self, lane: usize) {
        let (lane, counters) = (&mut self.parts.lanes[lane], &self.parts.counters);
        let received = 0..self.burst.len();
        let whole = |i: usize| self.stamps[i].problem.is_none().then_some(&self.headers[i]);
        let by_device = match &mut lane.spreading {
            Spreading::Device(device) => device.watch(received.clone().filter_map(whole)),
            Spreading::Done | Spreading::Software => false,
        };
        for i in received {
            let (headers, stamp, frame) = (&self.headers[i], &self.stamps[i], self.burst.frame(i));
            let owner = match &lane.spreading {
                Spreading::Done => None,
                Spreading::Device(device) if by_device => {
                    device.owner(headers, frame, stamp.wire_len, self.parts.key_from)
                }
                _ => Some(self.spreader.worker(headers, frame, stamp.wire_len, stamp.clock)),
            };
            if let Some(handoff) = owner.and_then(|owner| lane.owners.get_mut(owner)?.as_mut()) {
                if let Some(packet) = self.burst.take(i) {
                    handoff.push(packet, i, counters);
                }
                continue;
            }
            counters.rx_packets.add(1);
            counters.rx_bytes.add(self.stamps[i].count_len.into());
        }
    }

    /// Keys and hashes of the burst; each line of the table is asked for long before it is read.
    pub(super) fn look_up(&mut self) {
        for i in 0..self.burst.len() {
            self.inquire(i);
        }
        for inquiry in &mut self.inquiries[..self.burst.len()] {
            if inquiry.has_flow {
                self.parts.table.locate(&mut inquiry.lookup);
            }
        }
    }

    fn inquire(&mut self, i: usize) {
        let (stamp, parts) = (&self.stamps[i], &mut self.parts);
        let inquiry = &mut self.inquiries[i];
        inquiry.has_flow = false;
        let is_usable = stamp.problem.is_none_or(reaches_flow) && self.burst.packet(i).is_some();
        let headers = &self.headers[i];
        let Some(ip) = headers.key_ip(parts.key_from).filter(|_| is_usable) else { return };
        let Some(subject) = packet::subject(headers, parts.key_from) else { return };
        // What is malformed is counted in its flow, and teaches nothing.
        let is_ordinary =
            headers.outer.fragment.is_none() && ip.fragment.is_none() && !packet::is_icmp(subject.tuple.protocol);
        if is_ordinary || stamp.problem.is_some() {
            inquiry.fill(stamp, ip, &subject, &parts.table);
            return;
        }
        let mut subject = subject;
        parts.fragments.resolve(headers, parts.key_from, &mut subject, stamp.clock);
        inquiry.fill(stamp, ip, &subject, &parts.table);
        if let Some(quoted) = packet::quote_of(headers, self.burst.frame(i), stamp.wire_len, parts.key_from) {
            inquiry.has_quote = true;
            inquiry.packet.tuple.src_port = quoted.mark();
            parts.table.prepare(&inquiry.packet.tuple, &mut inquiry.lookup);
            self.quotes[i] = quoted;
        }
    }

    /// Flow, rules, mirror, act: packet by packet, because a verdict may depend on the packet before it.
    /// `TAPPED`: somebody looks at packets; see [`super::tap`].
    pub(super) fn judge_and_act<const TAPPED: bool>(&mut self, lane: usize) {
        for i in 0..self.burst.len() {
            if self.burst.packet(i).is_none() {
                continue;
            }
            if self.parts.watch.is_due(self.stamps[i].clock) {
                self.keep_step(self.stamps[i].clock);
            }
            let judgement = self.judge(i);
            let copies = self.mirror(i, &judgement);
            let refused = self.refusal(lane, i, &judgement);
            self.observe(i, &judgement);
            if TAPPED {
                self.tap(lane, i, &judgement, &copies, refused);
            }
            self.act(lane, i, &judgement, refused);
            self.note(i, &judgement, copies.copied, refused);
        }
        if matches!(self.parts.timing, Timing::Capture { .. }) && !self.burst.is_empty() {
            self.flush();
            let last = self.stamps[self.burst.len() - 1].index;
            self.parts.counters.progress.store(last + 1, Ordering::Release);
        }
    }

    /// In a replay: waits for the others, and for the watchlist from here on.
    #[cold]
    fn keep_step(&mut self, clock: u64) {
        let WorkerParts { watch, table, counters, abort, .. } = &mut self.parts;
        let show = |watermark| counters.watermark.store(watermark, Ordering::Release);
        watch.keep_step(clock, table, &mut self.sink, show, abort);
    }

    fn judge(&mut self, i: usize) -> Judgement {
        if !self.inquiries[i].has_flow {
            return self.judge_without_ip(i);
        }
        let parts = &mut self.parts;
        let Inquiry { packet, subject, lookup, has_quote, .. } = &self.inquiries[i];
        if parts.watch.is_from_honeypot() && !is_answer_of_honeypot(&parts.table, lookup) {
            // Nothing that it says by itself may leave a trace.
            return Judgement { tuple: subject.tuple, ..Judgement::default() };
        }
        let generation = parts.generation.get();
        if generation.live_flows == LiveFlows::Drop
            && self.stamps[i].problem.is_none()
            && let Some((ix, direction)) = parts.table.peek(lookup)
            && is_refused_now(generation, &parts.table, ix, direction, subject)
        {
            parts.table.end_flow(ix, packet.clock_ns, &mut self.sink);
        }
        let Ok(touch) = parts.table.touch_prepared(packet, lookup, &mut self.sink) else {
            parts.counters.untracked.add(1);
            let error = IcmpError { clock_ns: packet.clock_ns, subject, quoted: &self.quotes[i] };
            let mut verdict = match has_quote {
                true => decide_error(parts, error, &mut self.sink),
                false => generation.rules.classify(subject),
            };
            parts.watch.stand(&mut verdict, &subject.tuple);
            if parts.watch.is_diverted(subject) {
                // Where it should go is not known, and it must not go to the victim.
                verdict.standing.diversion = NOWHERE;
            }
            let candidate = Candidate { verdict: &verdict, tuple: &subject.tuple, touch: None, bytes: packet.bytes };
            let mirrors = self.copier.choose(&candidate, &self.sampler, &parts.table);
            return Judgement { verdict, tuple: subject.tuple, mirrors, ..Judgement::default() };
        };
        parts.counters.flows.add(touch.is_new.into());
        let (verdict, cached) = self.decide(i, touch);
        let (Inquiry { packet, subject, .. }, parts) = (&self.inquiries[i], &mut self.parts);
        if touch.seen.refused {
            self.stamps[i].problem.get_or_insert(DropReason::OutOfWindow);
        }
        if packet.payload_bytes > 0 && parts.table.entry(touch.ix).wants_entropy(touch.direction) {
            let payload = payload(&self.headers[i], parts.key_from, self.burst.frame(i));
            parts.table.note_entropy(touch.ix, touch.direction, Entropy::of(payload));
        }
        let candidate = Candidate { verdict: &verdict, tuple: &subject.tuple, touch: Some(touch), bytes: packet.bytes };
        let mirrors = self.copier.choose(&candidate, &self.sampler, &parts.table);
        parts.table.note_mirrored(touch.ix, mirrors, &verdict);
        let (flow_id, tuple) = (parts.table.entry(touch.ix).flow_id(), subject.tuple);
        Judgement { verdict, flow_id, tuple, mirrors, touch: Some(touch), cached }
    }

    /// The verdict of a packet of a flow, and whether it was the flow's already.
    #[inline]
    fn decide(&mut self, i: usize, touch: Touch) -> (Verdict, bool) {
        let parts = &mut self.parts;
        let Inquiry { packet, subject, is_neighbour_discovery, has_quote, .. } = &self.inquiries[i];
        let mut verdict = if *has_quote {
            let error = IcmpError { clock_ns: packet.clock_ns, subject, quoted: &self.quotes[i] };
            decide_error(parts, error, &mut self.sink)
        } else if *is_neighbour_discovery {
            let generation = parts.generation.get();
            generation.rules.classify_as(subject, generation.non_ip)
        } else if packet::is_icmp(subject.tuple.protocol) {
            let mut verdict = decide_icmp(parts, touch, subject);
            parts.watch.stand(&mut verdict, &subject.tuple);
            return (verdict, false);
        } else {
            return decide(parts, touch, subject, may_divert(&self.headers[i], parts.key_from, subject));
        };
        parts.watch.stand(&mut verdict, &subject.tuple);
        parts.table.set_verdict(touch.ix, touch.direction, &verdict);
        (verdict, false)
    }

    /// ARP, spanning tree, unknown types, and frames whose link header is broken.
    fn judge_without_ip(&self, i: usize) -> Judgement {
        let link = &self.headers[i].link;
        let mut subject = Subject { src_mac: link.src, dst_mac: link.dst, ..Subject::default() };
        subject.tuple.vlan = link.vlans.outer();
        let generation = self.parts.generation.get();
        let mut verdict = generation.rules.classify_as(&subject, generation.non_ip);
        self.parts.watch.stand(&mut verdict, &subject.tuple);
        // Who talks to whom, for sessions that take a share of that.
        let stations = Tuple { src: station(link.src), dst: station(link.dst), ..subject.tuple };
        let bytes = self.stamps[i].count_len;
        let candidate = Candidate { verdict: &verdict, tuple: &stations, touch: None, bytes };
        let mirrors = self.copier.choose(&candidate, &self.sampler, &self.parts.table);
        Judgement { verdict, tuple: subject.tuple, mirrors, ..Judgement::default() }
    }

    /// Why a packet will not be offered to the port it should leave by; `None` when it will.
    fn refusal(&self, lane: usize, i: usize, judgement: &Judgement) -> Option<DropReason> {
        let (parts, verdict) = (&self.parts, &judgement.verdict);
        if verdict.standing.diversion != 0 && self.stamps[i].problem.is_none() {
            let Some(exit) = self.exit(lane, judgement) else { return Some(DropReason::NoPair) };
            return (!parts.outputs[exit.output].is_up()).then_some(DropReason::LinkDown);
        }
        self.stamps[i].problem.or(match verdict.decision {
            Decision::Deny if self.headers[i].key_ip(parts.key_from).is_none() => Some(DropReason::NonIpDenied),
            Decision::Deny => Some(DropReason::Denied),
            Decision::Reject => Some(DropReason::Rejected),
            Decision::Allow => match parts.lanes[lane].forward {
                None => Some(DropReason::NoPair),
                Some(at) if !parts.outputs[at].is_up() => Some(DropReason::LinkDown),
                Some(_) => None,
            },
        })
    }

    /// Where a diverted packet goes.
    fn exit(&self, lane: usize, judgement: &Judgement) -> Option<Exit> {
        let from_honeypot = self.parts.lanes[lane].forward.is_none();
        let direction = judgement.touch?.direction;
        // What the victim says meanwhile would give the honeypot away.
        let fits = (direction == TO_CLIENT) == from_honeypot;
        self.parts.watch.diversions.exit(judgement.verdict.standing.diversion, from_honeypot).filter(|_| fits)
    }

    /// Forwards or drops; the packet is gone afterwards.
    fn act(&mut self, lane: usize, i: usize, judgement: &Judgement, refused: Option<DropReason>) {
        let (stamp, verdict) = (self.stamps[i], &judgement.verdict);
        let rules = &self.parts.generation.get().rules;
        self.parts.counters.count_verdict(verdict, rules, stamp.count_len.into(), stamp.clock);
        match refused {
            Some(DropReason::Rejected) => self.answer(lane, i),
            Some(DropReason::NoPair) if self.answer_arp(lane, i) => {
                self.parts.counters.consumed.add(1);
                self.burst.take(i);
                return;
            }
            None if verdict.standing.diversion != 0 => {
                if let Some(exit) = self.exit(lane, judgement) {
                    return self.divert(i, exit, &stamp);
                }
            }
            _ => {}
        }
        let Some(packet) = self.burst.take(i) else { return };
        let parts = &mut self.parts;
        match (refused, parts.lanes[lane].forward) {
            (None, Some(output)) => {
                let cargo = Cargo::Forwarded { bytes: stamp.count_len, at: i as u8 };
                parts.outputs[output].push(packet, cargo, &parts.counters);
            }
            (reason, _) => parts.counters.dropped(reason.unwrap_or(DropReason::NoPair)),
        }
    }

    /// Tells the scorer what no flow record says: ARP, and long names that DNS is asked for.
    #[inline(always)]
    fn observe(&self, i: usize, judgement: &Judgement) {
        let Inquiry { has_flow, packet, .. } = &self.inquiries[i];
        let asks = packet.tuple.dst_port == DNS && packet.tuple.protocol == UDP && packet.payload_bytes > 0;
        let is_silent = self.parts.observations.is_none() || self.parts.watch.is_from_honeypot();
        if (*has_flow && !asks) || is_silent || self.stamps[i].problem.is_some() {
            return;
        }
        self.tell_scorer(i, judgement);
    }

    #[cold]
    fn tell_scorer(&self, i: usize, judgement: &Judgement) {
        let (parts, headers, stamp) = (&self.parts, &self.headers[i], &self.stamps[i]);
        let Some(ring) = &parts.observations else { return };
        let seen = match headers.arp {
            Some(arp) if !self.inquiries[i].has_flow => Some(Seen::Arp(arp)),
            _ if !self.inquiries[i].has_flow => None,
            _ => application_bytes(headers, parts.key_from, self.burst.frame(i))
                .and_then(packet::long_question)
                .map(Seen::Question),
        };
        let Some(what) = seen else { return };
        let Judgement { tuple, flow_id, .. } = *judgement;
        let observation = Observation { clock: stamp.clock, index: stamp.index, tuple, flow_id, what };
        if !push_or_wait(ring, observation, parts.when_full, &parts.abort) {
            parts.counters.observations_lost.add(1);
        }
    }

    /// Tells the sender of a rejected packet.
    fn answer(&mut self, lane: usize, i: usize) {
        let Some(rejected) = self.burst.packet(i) else { return };
        let parts = &mut self.parts;
        let Some(back) = parts.lanes[lane].back else { return };
        if !parts.outputs[back].is_up() {
            parts.counters.generated_lost.add(1);
            return;
        }
        let mut bytes = [0u8; PREAMBLE_LEN + MAX_REPLY];
        let (front, reply) = bytes.split_at_mut(PREAMBLE_LEN);
        let Some(reply) = reply.first_chunk_mut::<MAX_REPLY>() else { return };
        let Some(len) = reject::write_reply(self.burst.frame(i), &self.headers[i], reply) else { return };
        // In replay the answer carries the time and number of the packet it answers, and its own length.
        let hidden = match packet_preamble(&parts.timing, rejected) {
            Some(preamble) => {
                let own = Preamble { wire_len: len as u32, count_len: len as u32, ..preamble };
                front.copy_from_slice(&own.to_bytes());
                PREAMBLE_LEN
            }
            None => 0,
        };
        let answer = &bytes[PREAMBLE_LEN - hidden..PREAMBLE_LEN + len];
        let make = || Mbuf::with_bytes(&parts.packets, answer, hidden as u16);
        match make()
            .or_else(|| wait_for_buffer(&mut parts.outputs, &parts.counters, parts.when_full, &parts.abort, make))
        {
            Some(packet) => {
                parts.outputs[back].push(packet, Cargo::Generated { at: i as u8 }, &parts.counters);
                if self.taps.is_on() {
                    self.taps.answered(i, back, &answer[hidden..]);
                }
            }
            None => parts.counters.generated_lost.add(1),
        }
    }

    fn note(&self, i: usize, judgement: &Judgement, mirrors: u64, dropped: Option<DropReason>) {
        let Some(notes) = &self.parts.notes else { return };
        let verdict = &judgement.verdict;
        let mut shadows = [RuleHandle::DEFAULT; MOST_SHADOWS];
        let named = self.parts.generation.get().rules.shadows(verdict);
        shadows.iter_mut().zip(named).for_each(|(slot, rule)| *slot = rule);
        let note = PacketNote {
            index: self.stamps[i].index,
            tuple: judgement.tuple,
            flow_id: judgement.flow_id,
            decision: verdict.decision,
            rule: verdict.rule,
            shadows,
            generation: verdict.generation,
            mirrors,
            dropped,
        };
        push_or_wait(notes, note, self.parts.when_full, &self.parts.abort);
    }
}

/// Whether a flow that begins with this packet can go elsewhere: with its own MAC addresses, to one host. Also one that seems
/// to have begun before: else who is diverted could have itself forgotten first.
fn may_divert(headers: &Headers, key_from: packet::KeyFrom, subject: &Subject) -> bool {
    let is_inner = key_from == packet::KeyFrom::Inner && headers.inner.version != 0;
    let to_one = !Host::destination(&subject.tuple).is_group() && subject.dst_mac.0[0] & 1 == 0;
    matches!(subject.tuple.protocol, 6 | 17) && !is_inner && to_one
}

/// The packet belongs to a diverted flow, on its way back.
fn is_answer_of_honeypot(table: &FlowTable, lookup: &Lookup) -> bool {
    table.peek(lookup).is_some_and(|(ix, direction)| direction == TO_CLIENT && diversion_of(table, ix) != 0)
}

fn capture_stamp(preamble: Option<[u8; PREAMBLE_LEN]>, len: u32) -> Stamp {
    match preamble.and_then(|bytes| Preamble::from_bytes(&bytes)) {
        Some(p) => Stamp {
            clock: p.clock_ns,
            index: p.index,
            wire_len: p.wire_len,
            count_len: p.count_len,
            problem: (!p.supported()).then_some(DropReason::UnsupportedLink),
        },
        None => Stamp {
            wire_len: len,
            count_len: len,
            problem: Some(DropReason::Malformed(Malformed::EthernetShort)),
            ..Stamp::default()
        },
    }
}

/// The first application bytes, as many as are sampled.
#[cold]
fn payload<'a>(headers: &Headers, from: packet::KeyFrom, frame: &'a [u8]) -> &'a [u8] {
    let bytes = application_bytes(headers, from, frame).unwrap_or(&[]);
    &bytes[..bytes.len().min(SAMPLE)]
}

/// The application bytes, as far as they were captured and lie in one piece.
fn application_bytes<'a>(headers: &Headers, from: packet::KeyFrom, frame: &'a [u8]) -> Option<&'a [u8]> {
    let ip = headers.key_ip(from).filter(|ip| ip.payload_offset > 0)?;
    let bytes = frame.get(usize::from(ip.payload_offset)..)?;
    Some(&bytes[..bytes.len().min(ip.payload_len as usize)])
}

/// A MAC address as an end of a conversation.
fn station(mac: Mac) -> u128 {
    mac.0.iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte))
}

/// Malformed upper layers still belong to the flow of their addresses, and are counted there.
fn reaches_flow(problem: DropReason) -> bool {
    match problem {
        DropReason::Malformed(m) => m.has_addresses(),
        _ => false,
    }
}

/// IPv6 neighbour discovery (RFC 4861): as necessary as ARP, and judged like it. What was routed (hop limit below
/// 255) or fragmented (RFC 6980) only looks like it, and receivers discard it: that is judged by the rules.
fn is_neighbour_discovery(ip: &Ip, subject: &Subject) -> bool {
    subject.has_neighbour_discovery_type() && ip.ttl == 255 && ip.fragment.is_none()
}

#[inline(always)]
fn flow_packet(stamp: &Stamp, ip: &Ip, subject: &Subject) -> FlowPacket {
    FlowPacket {
        tuple: subject.tuple,
        clock_ns: stamp.clock,
        bytes: stamp.count_len,
        payload_bytes: ip.payload_len,
        tcp_flags: ip.tcp_flags,
        tcp_seq: ip.tcp_seq,
        tcp_ack: ip.tcp_ack,
        tcp_window: ip.tcp_window,
        tcp_scale: ip.tcp_scale,
        tcp_sack: ip.tcp_sack,
        icmp: subject.icmp,
        later_fragment: ip.fragment.is_some_and(|f| f.offset > 0) || stamp.problem.is_some(),
    }
}
