//! The worker's part: asks the taps about each packet, and settles what depends on the device when the burst is out.

use super::desk::{Bytes, Desk};
use super::view::PacketView;
use super::{
    CaptureHead, CaptureLane, Copies, Fate, FlowSight, HEAD_BYTES, Judged, MAX_TAPS, Point, Points, Tap, TapSet,
    TapSink, TraceNote,
};
use crate::dpdk::{BURST, Mbuf};
use crate::flow::FlowState;
use crate::packet::{DropReason, Headers, KeyFrom};
use crate::rules::{Reader, RuleHandle};
use crate::worker::io::{Ingress, Lane, Lost};
use crate::worker::note::MOST_SHADOWS;
use crate::worker::stages::{Judgement, Stamp};
use crate::worker::{Timing, Worker, WorkerParts};

/// Bytes kept of a packet at most.
pub const MAX_SNAP: usize = 65_535;

/// What a worker needs for taps besides what is published.
#[derive(Debug)]
pub(in crate::worker) struct TapState {
    reader: Option<Reader<TapSet>>,
    on: bool,
    worker: u16,
    staged: Box<[Staged; BURST]>,
    desk: Desk,
}

/// What is kept of a packet until its burst is out.
#[derive(Clone, Copy, Debug)]
struct Staged {
    judgement: Option<Judgement>,
    flow_state: Option<FlowState>,
    copies: Copies,
    dropped: Option<DropReason>,
    /// Traces that want a note, and captures that want the answer to a rejected packet: bits of the set.
    traces: u16,
    captures: u16,
    answered: bool,
    captured_len: u32,
    head_len: u16,
    head: [u8; HEAD_BYTES],
}

/// A burst of one lane.
struct Scene<'a> {
    set: &'a TapSet,
    headers: &'a [Headers; BURST],
    stamps: &'a [Stamp; BURST],
    key_from: KeyFrom,
    worker: u16,
    in_port: u16,
    out_port: Option<u16>,
}

impl TapState {
    /// Without a reader nothing is ever tapped.
    pub(in crate::worker) fn new(reader: Option<Reader<TapSet>>, worker: usize) -> Self {
        let desk = Desk::new(reader.is_some());
        let on = reader.as_ref().is_some_and(|reader| !reader.get().taps.is_empty());
        Self { reader, on, worker: worker as u16, staged: Box::new([Staged::NOTHING; BURST]), desk }
    }

    #[inline]
    pub(in crate::worker) fn is_on(&self) -> bool {
        self.on
    }

    /// The quiescent point: no reference to the taps is alive here. Returns true when what is tapped changed.
    fn adopt_newest(&mut self) -> bool {
        let Some(reader) = &mut self.reader else { return false };
        let changed = reader.refresh();
        if changed {
            self.on = !reader.get().taps.is_empty();
        }
        changed
    }

    /// The box made `answer` to packet `i` of the burst, which was rejected.
    #[cold]
    pub(in crate::worker) fn answered(&mut self, i: usize, port: usize, answer: &[u8]) {
        let (staged, port) = (&mut self.staged[i], port as u16);
        staged.answered = true;
        let Some(reader) = &self.reader else { return };
        let captures = staged.captures;
        for (n, tap) in taps(reader.get()).filter(|(n, tap)| captures >> n & 1 != 0 && tap.ports.has(port)) {
            let TapSink::Capture(lanes) = &tap.sink else { continue };
            let Some(lane) = lanes.get(usize::from(self.worker)) else { continue };
            let head = CaptureHead {
                generated: true,
                wire_len: answer.len() as u32,
                ..staged.record(Point::Tx, port, self.worker)
            };
            self.desk.capture((n, i), lane, head, Bytes::Plain(answer));
        }
    }
}

impl Worker {
    /// Takes up what is published to be tapped.
    #[inline]
    pub(in crate::worker) fn adopt_newest_taps(&mut self) {
        if self.taps.adopt_newest() {
            self.keep_lost_packets();
        }
    }

    /// Full queues hand over what they lose while somebody looks at packets.
    pub(in crate::worker) fn keep_lost_packets(&mut self) {
        let on = self.taps.is_on();
        for lost in all_lost(&mut self.parts) {
            lost.keep = on;
            lost.clear();
        }
    }

    /// Packet `i` has been judged and mirrored, and is still here. `refused` as [`DropReason`], if it will not be
    /// offered to a device.
    pub(in crate::worker) fn tap(
        &mut self,
        lane: usize,
        i: usize,
        judgement: &Judgement,
        copies: &Copies,
        refused: Option<DropReason>,
    ) {
        let Self { parts, taps, headers, stamps, burst, .. } = self;
        let TapState { reader: Some(reader), staged, desk, worker, .. } = taps else { return };
        let staged = &mut staged[i];
        *staged = Staged {
            judgement: Some(*judgement),
            flow_state: judgement.touch.map(|touch| parts.table.entry(touch.ix).state()),
            copies: *copies,
            head: staged.head,
            ..Staged::NOTHING
        };
        let fate = if refused.is_some() { Point::Drop } else { Point::Tx };
        let reached = [Point::Rx, Point::Verdict, fate].into_iter().collect();
        let scene = Scene::of(reader.get(), parts, lane, (headers, stamps), *worker);
        scene.look((i, Bytes::Burst(burst, i)), reached, refused, staged, desk);
    }

    /// The burst is out, or lost.
    pub(in crate::worker) fn settle_taps(&mut self, lane: usize) {
        let Self { parts, taps, headers, stamps, burst, .. } = self;
        let TapState { reader: Some(reader), staged, desk, worker, .. } = taps else { return };
        let now = match parts.timing {
            Timing::Live(clock) => Some(clock.now()),
            Timing::Capture { .. } => None,
        };
        let scene = Scene::of(reader.get(), parts, lane, (headers, stamps), *worker);
        let (mut unsent, mut unanswered) = (0, 0);
        for lost in parts.outputs.iter_mut().map(|output| &mut output.lost) {
            unanswered |= lost.answers;
            staged.iter_mut().zip(&lost.copies).for_each(|(staged, copies)| staged.copies.queue_full |= copies);
            for (at, packet) in &lost.packets {
                unsent |= 1 << at;
                scene.lost((*at, packet), [Point::Drop], DropReason::TransmitFull, staged, desk);
            }
            lost.clear();
        }
        for lost in parts.lanes[lane].owners.iter_mut().flatten().map(|handoff| &mut handoff.lost) {
            for (at, packet) in &lost.packets {
                staged[usize::from(*at)] = Staged::NOTHING;
                let reached = [Point::Rx, Point::Drop];
                scene.lost((*at, packet), reached, DropReason::RedistributionFull, staged, desk);
            }
            lost.clear();
        }
        desk.settle((scene.set, usize::from(scene.worker)), now, unsent, unanswered);
        let handed_over = parts.workers > 1 && matches!(parts.lanes[lane].ingress, Ingress::Ring(_));
        for (i, staged) in staged[..burst.len()].iter_mut().enumerate().filter(|(_, staged)| staged.traces != 0) {
            let verdict = staged.judgement.map(|judgement| judgement.verdict);
            let mut shadows = [RuleHandle::DEFAULT; MOST_SHADOWS];
            if let Some(verdict) = &verdict {
                let named = parts.generation.get().rules.shadows(verdict);
                shadows.iter_mut().zip(named).for_each(|(slot, rule)| *slot = rule);
            }
            scene.note(staged, TraceNote { handed_over, shadows, ..scene.told(i, staged, now) });
            staged.traces = 0;
        }
    }
}

/// What is tapped, with its number in the set.
pub(super) fn taps(set: &TapSet) -> impl Iterator<Item = (usize, &Tap)> {
    set.taps.iter().take(MAX_TAPS).enumerate()
}

fn all_lost(parts: &mut WorkerParts) -> impl Iterator<Item = &mut Lost> {
    let owners = parts.lanes.iter_mut().flat_map(|lane| lane.owners.iter_mut().flatten());
    parts.outputs.iter_mut().map(|output| &mut output.lost).chain(owners.map(|handoff| &mut handoff.lost))
}

impl<'a> Scene<'a> {
    fn of(
        set: &'a TapSet,
        parts: &WorkerParts,
        lane: usize,
        (headers, stamps): (&'a [Headers; BURST], &'a [Stamp; BURST]),
        worker: u16,
    ) -> Self {
        let lane: &Lane = &parts.lanes[lane];
        let in_port = lane.back.map_or(u16::MAX, |port| port as u16);
        let out_port = lane.forward.map(|port| port as u16);
        Self { set, headers, stamps, key_from: parts.key_from, worker, in_port, out_port }
    }

    fn port_at(&self, point: Point) -> Option<u16> {
        if point == Point::Tx { self.out_port } else { Some(self.in_port) }
    }

    fn name(&self, port: u16) -> &'a str {
        self.set.ports.get(usize::from(port)).map_or("", String::as_str)
    }

    fn view(&self, at: usize, staged: &'a Staged, dropped: Option<DropReason>) -> PacketView<'a> {
        PacketView {
            headers: &self.headers[at],
            key_from: self.key_from,
            wire_len: self.stamps[at].wire_len,
            judgement: staged.judgement.as_ref(),
            flow_state: staged.flow_state,
            dropped,
            mirrors: staged.copies.copied,
            in_port: self.name(self.in_port),
            worker: self.worker,
        }
    }

    /// A full queue lost a packet.
    fn lost(
        &self,
        (at, packet): (u8, &Mbuf),
        reached: impl IntoIterator<Item = Point>,
        reason: DropReason,
        staged: &mut [Staged; BURST],
        desk: &mut Desk,
    ) {
        let at = usize::from(at);
        self.look((at, Bytes::Packet(packet)), reached.into_iter().collect(), Some(reason), &mut staged[at], desk);
    }

    /// Asks every tap about the packet at `at` of the burst, which has reached these points.
    fn look(
        &self,
        (at, bytes): (usize, Bytes<'_>),
        reached: Points,
        dropped: Option<DropReason>,
        staged: &mut Staged,
        desk: &mut Desk,
    ) {
        staged.dropped = dropped;
        let (mut traces, mut captures) = (0, 0);
        let view = self.view(at, staged, dropped);
        let told_of = dropped == Some(DropReason::Rejected);
        for (n, tap) in taps(self.set) {
            let here = |point: &Point| {
                let port = self.port_at(*point);
                reached.has(*point) && tap.points.has(*point) && port.is_some_and(|port| tap.ports.has(port))
            };
            let points: Points = Point::ALL.into_iter().filter(here).collect();
            let wants_answer = told_of && tap.points.has(Point::Tx);
            if points.is_empty() && !wants_answer {
                continue;
            }
            let chosen = tap.filter.matches(&view);
            match &tap.sink {
                TapSink::Trace(_) => traces |= u16::from(chosen && !points.is_empty()) << n,
                TapSink::Capture(lanes) => {
                    captures |= u16::from(chosen) << n;
                    let Some(lane) = lanes.get(usize::from(self.worker)) else { continue };
                    self.capture((n, at), lane, (points, chosen), staged, bytes, desk);
                }
            }
        }
        if traces != 0 && staged.traces == 0 {
            staged.keep_head(bytes, desk);
        }
        staged.traces |= traces;
        staged.captures |= captures;
    }

    fn capture(
        &self,
        (n, at): (usize, usize),
        lane: &CaptureLane,
        (points, chosen): (Points, bool),
        staged: &Staged,
        bytes: Bytes<'_>,
        desk: &mut Desk,
    ) {
        for point in points.iter() {
            let Some(port) = self.port_at(point) else { continue };
            if let Some(counters) = lane.at(port, point) {
                counters.seen.add(1);
            }
            if chosen {
                let stamp = &self.stamps[at];
                let head = CaptureHead {
                    ns: stamp.clock,
                    received_ns: stamp.clock,
                    wire_len: stamp.wire_len,
                    ..staged.record(point, port, self.worker)
                };
                desk.capture((n, at), lane, head, bytes);
            }
        }
    }

    /// What is known of a packet when its burst is out.
    fn told(&self, at: usize, staged: &Staged, now: Option<u64>) -> TraceNote {
        let (stamp, judgement) = (&self.stamps[at], staged.judgement.as_ref());
        let touch = judgement.and_then(|judgement| judgement.touch);
        let tuple = judgement.map(|judgement| judgement.tuple).unwrap_or_default();
        TraceNote {
            worker: self.worker,
            port: self.in_port,
            pair: self.out_port,
            received_ns: stamp.clock,
            done_ns: now.unwrap_or(stamp.clock),
            index: stamp.index,
            wire_len: stamp.wire_len,
            captured_len: staged.captured_len,
            head: staged.head,
            head_len: staged.head_len,
            handed_over: false,
            flow: match touch {
                Some(touch) if touch.is_new => FlowSight::New,
                Some(_) => FlowSight::Known,
                None if tuple.version != 0 => FlowSight::TableFull,
                None => FlowSight::None,
            },
            flow_id: judgement.map_or(0, |judgement| judgement.flow_id),
            flow_state: staged.flow_state.unwrap_or_default(),
            direction: touch.map_or(0, |touch| touch.direction as u8),
            tuple,
            verdict: judgement.map(|judgement| judgement.verdict),
            cached: judgement.is_some_and(|judgement| judgement.cached),
            shadows: [RuleHandle::DEFAULT; MOST_SHADOWS],
            mirrors: staged.copies,
            answered: staged.answered,
            fate: match (staged.dropped, self.out_port) {
                (Some(reason), _) => Fate::Dropped(reason),
                (None, Some(port)) => Fate::Sent(port),
                (None, None) => Fate::Dropped(DropReason::NoPair),
            },
        }
    }

    /// Hands a note to the traces that want it.
    fn note(&self, staged: &Staged, note: TraceNote) {
        let lost = note.fate == Fate::Dropped(DropReason::TransmitFull);
        for (_, tap) in taps(self.set).filter(|(n, _)| staged.traces >> n & 1 != 0) {
            // One that asked for sent packets alone was told too early.
            if lost && tap.points == Points::from_iter([Point::Tx]) {
                continue;
            }
            if let TapSink::Trace(lanes) = &tap.sink
                && let Some(lane) = lanes.get(usize::from(self.worker))
            {
                lane.push(note.clone());
            }
        }
    }
}

impl Staged {
    const NOTHING: Staged = Staged {
        judgement: None,
        flow_state: None,
        copies: Copies {
            wanted: 0,
            selected: 0,
            copied: 0,
            no_buffer: 0,
            limited: 0,
            duplicate: 0,
            link_down: 0,
            unreachable: 0,
            queue_full: 0,
        },
        dropped: None,
        traces: 0,
        captures: 0,
        answered: false,
        captured_len: 0,
        head_len: 0,
        head: [0; HEAD_BYTES],
    };

    /// A record without times and lengths.
    fn record(&self, point: Point, port: u16, worker: u16) -> CaptureHead {
        let judged = self.judgement.map(|Judgement { verdict, .. }| Judged {
            decision: verdict.decision,
            tier: verdict.tier,
            rule: verdict.rule,
            generation: verdict.generation,
        });
        CaptureHead {
            point,
            port,
            ns: 0,
            received_ns: 0,
            wire_len: 0,
            captured_len: 0,
            worker,
            generated: false,
            void: false,
            flow_id: self.judgement.map_or(0, |judgement| judgement.flow_id),
            judged,
            dropped: self.dropped,
            mirrors: self.copies.copied,
            lost: 0,
        }
    }

    fn keep_head(&mut self, bytes: Bytes<'_>, desk: &mut Desk) {
        self.captured_len = bytes.len() as u32;
        let head = bytes.get(HEAD_BYTES, &mut desk.scratch);
        self.head[..head.len()].copy_from_slice(head);
        self.head_len = head.len() as u16;
    }
}
