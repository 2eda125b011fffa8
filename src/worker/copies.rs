//! The mirror stage: copies of a packet are planned, cut, wrapped, numbered and put on the mirror queues.
//!
//! A copy shares the packet's bytes, unless it is masked. What is put before it is a buffer of its own, chained. Nothing is
//! made for a queue that is down or was just found full, nor for a collector that cannot be reached.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::io::{Cargo, Output, give_way};
use super::stages::Judgement;
use super::tap::Copies;
use super::way::{Buffers, Member, Original, Way};
use super::{Generation, MirrorLane, Timing, WhenFull, Worker, WorkerCounters};
use crate::capture::{PREAMBLE_LEN, Preamble};
use crate::dpdk::{Mbuf, Mempool};
use crate::flow::{FlowTable, Touch};
use crate::mirror::wrap::{Envelope, Outer, Stream};
use crate::mirror::{Cap, Meter, Only, Pool, Sampler, Seen};
use crate::packet::{FlowKey, Tuple};
use crate::rules::{MAX_MIRRORS, RuleHandle, Verdict};

/// What a worker needs to make copies for the sessions of a generation.
#[derive(Debug)]
pub(super) struct Copier {
    /// By bit.
    ways: Vec<Way>,
    /// Sessions that packets of the lane at hand may be for.
    here: u64,
    /// The port of that lane.
    port: u64,
    /// Bits of sessions that want packets of certain rules only, with these.
    ruled: Vec<(u64, Vec<RuleHandle>)>,
    /// Bits of sessions that want flows of watched parties only, with what these must be watched for.
    gates: Vec<(u64, Only)>,
    /// Something is chosen besides what the verdict says.
    chooses: bool,
    /// Sessions for which no copy is made in this burst: their queue was full at its beginning, or their port down.
    closed: u64,
    /// Those of them whose port is down, and those whose collector cannot be reached.
    down: u64,
    unreachable: u64,
    /// By bit: packets of this burst that were selected while the session was closed.
    missed: [u32; MAX_MIRRORS],
    buffers: Buffers,
    /// What all adaptive sessions may send together.
    budget: Meter,
    budget_cap: Cap,
    /// Next numbers by counter slot and collector, also of sessions that are not of this generation: they go on when they
    /// are back.
    next: Vec<(u16, Option<IpAddr>, u32)>,
    seed: u64,
    worker: usize,
    workers: usize,
}

/// A packet that sessions may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) verdict: &'a Verdict,
    /// Which flow it belongs to, and where that is if it has an entry.
    pub(super) tuple: &'a Tuple,
    pub(super) touch: Option<Touch>,
    /// Its length.
    pub(super) bytes: u32,
}

impl Worker {
    /// Before a burst of this lane: queues may be full, and sessions may want packets of certain ports only. A replay has no ports.
    #[inline]
    pub(super) fn come_to(&mut self, lane: usize) {
        let generation = self.parts.generation.get();
        self.copier.look_at(&self.parts.outputs);
        self.parts.watch.come_to(&self.parts.lanes[lane]);
        self.copier.port = self.parts.lanes[lane].back.map_or(u64::MAX, |port| port as u64);
        if matches!(self.parts.timing, Timing::Live(_)) && self.copier.chooses {
            let port = self.parts.lanes[lane].back;
            let wants = |on: &Vec<usize>| on.is_empty() || port.is_some_and(|port| on.contains(&port));
            let wanted = generation.mirrors.iter().map(|lane| wants(&lane.session.on));
            self.copier.here = wanted.enumerate().fold(0, |mask, (bit, wanted)| mask | u64::from(wanted) << bit);
        }
    }

    /// Puts copies on the mirror queues, before anything changes the packet.
    #[inline]
    pub(super) fn mirror(&mut self, i: usize, judgement: &Judgement) -> Copies {
        let wanted = judgement.mirrors;
        let selected = if wanted == 0 { 0 } else { self.sampler.select(wanted) };
        let Copier { closed, down, unreachable, .. } = self.copier;
        self.copier.miss(selected & closed);
        let copies = Copies {
            wanted,
            selected,
            link_down: selected & down,
            unreachable: selected & unreachable,
            queue_full: selected & closed & !(down | unreachable),
            ..Copies::default()
        };
        if selected & !closed == 0 { copies } else { self.take(i, judgement, copies) }
    }

    /// After a burst: what was missed is counted.
    #[inline]
    pub(super) fn settle_missed(&mut self) {
        if self.copier.closed != 0 {
            self.copier.settle(&self.parts.counters);
        }
    }

    /// A copy for each session that selected the packet and is open, or its loss counted. Apart, so that packets which are
    /// not copied do not pay for its registers.
    #[inline(never)]
    fn take(&mut self, i: usize, judgement: &Judgement, mut copies: Copies) -> Copies {
        let (parts, Copier { ways, buffers, closed, port, seed, budget, .. }) = (&mut self.parts, &mut self.copier);
        let Some(packet) = self.burst.packet(i) else { return copies };
        let preamble = packet_preamble(&parts.timing, packet);
        let len = self.burst.packet_len(i);
        let (stamp, headers, frame) = (&self.stamps[i], &self.headers[i], self.burst.frame(i));
        let original = Original { packet, len, frame, headers, stamp, judgement, preamble, seed: *seed };
        let mut sight = None;
        for bit in self.sampler.in_priority_order(copies.selected & !*closed) {
            let way = &mut ways[bit];
            let session = &parts.counters.mirrors[usize::from(way.slot)];
            session.selected.add(1);
            if way.is_again(&original, *port, &mut sight) {
                session.lost_duplicate.add(1);
                copies.duplicate |= 1 << bit;
                continue;
            }
            let (member, number) = way.number(judgement, original.seed);
            if let Some((lost, told)) = way.obstacle(member, &parts.outputs[way.output], session, &mut copies) {
                lost.add(1);
                *told |= 1 << bit;
                continue;
            }
            let plan = way.plan(member, number, &original);
            let plan = match plan.and_then(|plan| way.within_budget(plan, budget, &original, &parts.counters)) {
                Ok(plan) => plan,
                Err(reason) => {
                    reason.count(session);
                    copies.limited |= 1 << bit;
                    continue;
                }
            };
            let made = way.make(&plan, &original, buffers).or_else(|| {
                let again = || way.make(&plan, &original, buffers);
                wait_for_buffer(&mut parts.outputs, &parts.counters, parts.when_full, &parts.abort, again)
            });
            let Some(copy) = made else {
                session.lost_pool.add(1);
                copies.no_buffer |= 1 << bit;
                continue;
            };
            let cargo = Cargo::Mirrored { slot: way.slot as u8, bit: bit as u8, bytes: plan.bytes, at: i as u8 };
            parts.outputs[way.output].push_copy(&mut buffers.pieces, copy, cargo, &parts.counters);
            copies.copied |= 1 << bit;
        }
        copies
    }
}

impl Copier {
    /// Clones, what is put before them, and true copies come from three pools.
    pub(super) fn new(
        generation: &Generation,
        pools: [&Mempool; 3],
        seed: u64,
        (worker, workers): (usize, usize),
    ) -> Self {
        let buffers = Buffers::new(pools, (worker, workers));
        let (ways, ruled, gates, next) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut copier = Self {
            ways,
            here: u64::MAX,
            port: 0,
            ruled,
            gates,
            chooses: false,
            closed: 0,
            down: 0,
            unreachable: 0,
            missed: [0; MAX_MIRRORS],
            buffers,
            budget: Meter::strict(Cap::default(), workers),
            budget_cap: Cap::default(),
            next,
            seed,
            worker,
            workers,
        };
        copier.adopt(generation);
        copier
    }

    /// Which of the sessions that a verdict names may take the packet, before those that take every n-th count it.
    #[inline]
    pub(super) fn choose(&self, of: &Candidate<'_>, sampler: &Sampler, table: &FlowTable) -> u64 {
        let mask = of.verdict.mirrors & self.here;
        if mask == 0 || !self.chooses { mask } else { self.choose_among(mask, of, sampler, table) }
    }

    /// A few multiplications per packet, and never stale.
    #[inline(never)]
    fn choose_among(&self, mut mask: u64, of: &Candidate<'_>, sampler: &Sampler, table: &FlowTable) -> u64 {
        let rule = of.verdict.rule.0;
        let is_other = |rules: &Vec<RuleHandle>| rules.binary_search_by_key(&rule, |rule| rule.0).is_err();
        for (bit, _) in self.ruled.iter().filter(|(_, rules)| is_other(rules)) {
            mask &= !bit;
        }
        let standing = &of.verdict.standing;
        for (bit, _) in self.gates.iter().filter(|(_, only)| !only.admits(standing)) {
            mask &= !bit;
        }
        if mask != 0 && sampler.knows_flows() {
            mask &= sampler.flow_mask(&FlowKey::of(*of.tuple).0, standing.share, u16::MAX - standing.cut);
            let beginning = of.touch.and_then(|touch| table.entry(touch.ix).beginning());
            mask &= sampler.head_mask(beginning, of.bytes.into());
        }
        mask
    }

    /// Goes over to the sessions of a generation.
    pub(super) fn adopt(&mut self, generation: &Generation) {
        for way in &self.ways {
            for Member { to, next, .. } in &way.members {
                match self.next.iter_mut().find(|(slot, known, _)| (*slot, *known) == (way.slot, *to)) {
                    Some((.., kept)) => *kept = *next,
                    None => self.next.push((way.slot, *to, *next)),
                }
            }
        }
        self.ways = generation.mirrors.iter().map(|lane| self.way(lane)).collect();
        if self.budget_cap != generation.budget {
            self.budget_cap = generation.budget;
            self.budget = Meter::strict(generation.budget, self.workers);
        }
        self.buffers.prepare(self.ways.iter().map(|way| &way.delivery));
        let sessions = || generation.mirrors.iter().enumerate();
        let ruled = sessions().filter(|(_, lane)| !lane.session.rules.is_empty());
        self.ruled = ruled.map(|(bit, lane)| (1 << bit, lane.rules.clone())).collect();
        self.gates = sessions().filter_map(|(bit, lane)| Some((1 << bit, lane.session.only?))).collect();
        self.here = u64::MAX;
        self.chooses = sessions().any(|(_, lane)| lane.session.is_choosy());
    }

    fn way(&self, lane: &MirrorLane) -> Way {
        let delivery = lane.session.delivery.clone();
        let stream = |id| Stream { id, worker: self.worker as u8 };
        let next = |to: Option<IpAddr>| {
            let kept = self.next.iter().find(|(slot, known, _)| (*slot, *known) == (lane.slot, to));
            kept.map_or(0, |(.., next)| *next)
        };
        let members: Vec<Member> = match &delivery.wrap {
            None => vec![Member { to: None, envelope: None, hop: None, known: 0, next: next(None) }],
            Some(wrap) => {
                let member = |(at, outer): (usize, &Outer)| Member {
                    to: Some(outer.dst),
                    // The configuration was checked: what does not fit is not wrapped.
                    envelope: Envelope::new(*outer, wrap.tunnel, stream(wrap.id)).ok(),
                    hop: lane.hops.get(at).cloned().flatten(),
                    // No state that there is: it is looked at before the first copy.
                    known: u64::MAX,
                    next: next(Some(outer.dst)),
                };
                wrap.outers.iter().enumerate().map(member).collect()
            }
        };
        let pool = Pool::new(members.iter().filter_map(|member| member.to));
        // A session that goes on keeps what it has saved up.
        let same = self.ways.iter().find(|way| way.slot == lane.slot && way.delivery.cap == delivery.cap);
        let meter = same.map_or_else(|| Meter::new(delivery.cap, self.workers), |way| way.meter);
        let seen = self.seen(lane);
        let usable = u64::MAX >> (64 - members.len().clamp(1, 64));
        let is_watched = members.iter().any(|member| member.hop.is_some());
        let (slot, output, rate) = (lane.slot, lane.output, lane.session.rate());
        Way { slot, output, members, pool, delivery, meter, seen, rate, is_watched, usable }
    }

    /// What went by lately, also in the generation before.
    fn seen(&self, lane: &MirrorLane) -> Option<Seen> {
        let window = Some(lane.session.delivery.dedup_ns).filter(|window| *window > 0)?;
        let before = self.ways.iter().find(|way| way.slot == lane.slot).and_then(|way| way.seen.clone());
        Some(before.filter(|seen| seen.window() == window).unwrap_or_else(|| Seen::new(window)))
    }

    /// Looks which queues take copies.
    #[inline]
    fn look_at(&mut self, outputs: &[Output]) {
        (self.closed, self.down, self.unreachable) = (0, 0, 0);
        for (bit, way) in self.ways.iter_mut().enumerate() {
            let output = &outputs[way.output];
            let (is_up, wants) = (output.is_up(), output.wants_copy());
            if way.is_watched {
                way.look_ahead();
            }
            let reaches = way.usable & 1 != 0;
            // In a pool each packet missed is numbered for its own member.
            if way.members.len() == 1 && !(is_up && wants && reaches) {
                self.closed |= 1 << bit;
                self.down |= u64::from(!is_up) << bit;
                self.unreachable |= u64::from(is_up && !reaches) << bit;
            }
        }
    }

    /// A packet that these closed sessions selected. Of one session, the usual case, this is an addition.
    #[inline]
    fn miss(&mut self, mut missed: u64) {
        while missed != 0 {
            self.missed[missed.trailing_zeros() as usize] += 1;
            missed &= missed - 1;
        }
    }

    /// Counts and numbers what closed sessions missed in a burst.
    fn settle(&mut self, counters: &WorkerCounters) {
        for (bit, way) in self.ways.iter_mut().enumerate() {
            let missed = std::mem::take(&mut self.missed[bit]);
            if missed == 0 {
                continue;
            }
            let session = &counters.mirrors[usize::from(way.slot)];
            session.selected.add(missed.into());
            way.members[0].next = way.members[0].next.wrapping_add(missed);
            let lost = match (self.down >> bit & 1, self.unreachable >> bit & 1) {
                (1, _) => &session.lost_link,
                (_, 1) => way.lost_on_the_way(0, session),
                _ => &session.lost_queue,
            };
            lost.add(missed.into());
        }
    }
}

/// Replay loses no copy for want of buffers: what this worker holds back goes out, and the readers give buffers
/// back. Live traffic waits for nobody.
#[cold]
pub(super) fn wait_for_buffer(
    outputs: &mut [Output],
    counters: &WorkerCounters,
    when_full: WhenFull,
    abort: &AtomicBool,
    mut take: impl FnMut() -> Option<Mbuf>,
) -> Option<Mbuf> {
    while when_full == WhenFull::Wait && !abort.load(Ordering::Relaxed) {
        outputs.iter_mut().for_each(|output| output.flush(counters));
        if let Some(buffer) = take() {
            return Some(buffer);
        }
        give_way();
    }
    None
}

/// In replay: what stands before the packet.
pub(super) fn packet_preamble(timing: &Timing, packet: &Mbuf) -> Option<Preamble> {
    match timing {
        Timing::Live(_) => None,
        Timing::Capture { .. } => packet.hidden_front::<PREAMBLE_LEN>().and_then(|bytes| Preamble::from_bytes(&bytes)),
    }
}
