//! The mirror stage: copies of a packet are planned, cut, wrapped, numbered and put on the mirror queues.
//!
//! A copy shares the packet's bytes. What is put before it is a buffer of its own, chained. Nothing is made for a queue that
//! is down or was just found full.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::counters::{Counter, MirrorCounters};
use super::io::{Cargo, Output, give_way};
use super::stages::{Judgement, Stamp};
use super::tap::Copies;
use super::{Generation, MirrorLane, Timing, WhenFull, Worker, WorkerCounters};
use crate::capture::{PREAMBLE_LEN, Preamble};
use crate::dpdk::{Mbuf, Mempool, Stock};
use crate::flow::{FlowTable, Touch};
use crate::mirror::hops::{Hop, HopState, state_of};
use crate::mirror::wrap::{Copy, Envelope, Outer, Stream};
use crate::mirror::{CLASSES, Cap, Delivery, Meter, Only, Pool, Sample, Sampler, share_in_force};
use crate::packet::{FlowKey, Tuple};
use crate::rules::{RuleHandle, Standing, Verdict};

/// What a worker needs to make copies for the sessions of a generation.
#[derive(Debug)]
pub(super) struct Copier {
    /// By bit.
    ways: Vec<Way>,
    /// Sessions that packets of the lane at hand may be for.
    here: u64,
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

/// One session's.
#[derive(Debug)]
struct Way {
    slot: u16,
    output: usize,
    /// At least one, several of a pool.
    members: Vec<Member>,
    pool: Pool,
    delivery: Delivery,
    meter: Meter,
    /// It draws on the budget.
    adapts: bool,
    /// What it takes by itself.
    sample: Sample,
    /// Packets of this burst that were selected while it was closed.
    missed: u32,
    /// Some member's way is looked after.
    is_watched: bool,
    /// Members that can be reached, as bits; no others are set.
    usable: u64,
}

/// Who gets copies.
#[derive(Debug)]
struct Member {
    to: Option<IpAddr>,
    envelope: Option<Envelope>,
    /// What is known of the way to it, and what was known when it was looked at last.
    hop: Option<Arc<Hop>>,
    known: u64,
    /// Number of the next packet that is selected for it. Also one whose copy is then not made has a number: the receiver is
    /// to notice.
    next: u32,
}

/// Why a copy was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotMade {
    /// It does not fit the MTU.
    Oversize,
    /// The session has sent as much as it may.
    Cap,
    /// All adaptive sessions have.
    Budget,
}

/// A copy that is going to be made.
#[derive(Clone, Copy, Debug)]
struct Plan {
    member: usize,
    number: u32,
    /// Bytes of the frame, and whether that is not all.
    len: u32,
    cut: bool,
    /// Length to count.
    bytes: u32,
}

/// The packet, and what is known of it.
#[derive(Clone, Copy, Debug)]
struct Original<'a> {
    packet: &'a Mbuf,
    /// Over all segments.
    len: u32,
    stamp: &'a Stamp,
    judgement: &'a Judgement,
    /// In replay: what stands before it.
    preamble: Option<Preamble>,
    seed: u64,
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

/// Where buffers come from.
#[derive(Debug)]
struct Buffers {
    clones: Stock,
    fronts: Stock,
}

impl Worker {
    /// Before a burst of this lane: queues may be full, and sessions may want packets of certain ports only. A replay has no ports.
    #[inline]
    pub(super) fn come_to(&mut self, lane: usize) {
        let generation = self.parts.generation.get();
        self.copier.look_at(&self.parts.outputs);
        self.parts.watch.come_to(&self.parts.lanes[lane]);
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
        if wanted == 0 {
            return Copies::default();
        }
        let selected = self.sampler.select(wanted);
        let mut copies = Copies { wanted, selected, ..Copies::default() };
        if selected & !self.copier.closed != 0 {
            self.copy(i, judgement, &mut copies);
        }
        if selected & self.copier.closed != 0 {
            self.copier.miss(&mut copies);
        }
        copies
    }

    /// After a burst: what was missed is counted.
    #[inline]
    pub(super) fn settle_missed(&mut self) {
        if self.copier.closed != 0 {
            self.copier.settle(&self.parts.counters);
        }
    }

    /// A copy for each session that selected the packet, or its loss counted. Apart, so that packets which are not copied
    /// do not pay for its registers.
    #[inline(never)]
    fn copy(&mut self, i: usize, judgement: &Judgement, copies: &mut Copies) {
        let (parts, Copier { ways, buffers, closed, seed, budget, .. }) = (&mut self.parts, &mut self.copier);
        let Some(packet) = self.burst.packet(i) else { return };
        let preamble = packet_preamble(&parts.timing, packet);
        let len = self.burst.packet_len(i);
        let original = Original { packet, len, stamp: &self.stamps[i], judgement, preamble, seed: *seed };
        for bit in self.sampler.in_priority_order(copies.selected & !*closed) {
            let way = &mut ways[bit];
            let session = &parts.counters.mirrors[usize::from(way.slot)];
            session.selected.add(1);
            let (member, number) = way.number(judgement, original.seed);
            if !parts.outputs[way.output].is_up() {
                session.lost_link.add(1);
                copies.link_down |= 1 << bit;
                continue;
            }
            if way.is_watched && way.usable >> member & 1 == 0 {
                way.lost_on_the_way(member, session).add(1);
                copies.unreachable |= 1 << bit;
                continue;
            }
            if !parts.outputs[way.output].wants_copy() {
                session.lost_queue.add(1);
                copies.queue_full |= 1 << bit;
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
            parts.outputs[way.output].push_copy(copy, cargo, &parts.counters);
            copies.copied |= 1 << bit;
        }
    }
}

impl Copier {
    /// Clones and what is put before them come from two pools.
    pub(super) fn new(
        generation: &Generation,
        pools: [&Mempool; 2],
        seed: u64,
        (worker, workers): (usize, usize),
    ) -> Self {
        let [clones, fronts] = pools.map(|pool| Stock::new(pool.clone()));
        let buffers = Buffers { clones, fronts };
        let (ways, ruled, gates, next) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut copier = Self {
            ways,
            here: u64::MAX,
            ruled,
            gates,
            chooses: false,
            closed: 0,
            down: 0,
            unreachable: 0,
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
        let (adapts, sample) = (lane.session.adapts, lane.session.sample);
        let usable = u64::MAX >> (64 - members.len().clamp(1, 64));
        let is_watched = members.iter().any(|member| member.hop.is_some());
        let (slot, output, missed) = (lane.slot, lane.output, 0);
        Way { slot, output, members, pool, delivery, meter, adapts, sample, missed, is_watched, usable }
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

    /// A packet that closed sessions selected. Of one session, the usual case, this is an addition.
    #[inline]
    fn miss(&mut self, copies: &mut Copies) {
        let mut missed = copies.selected & self.closed;
        copies.link_down |= missed & self.down;
        copies.unreachable |= missed & self.unreachable;
        copies.queue_full |= missed & !(self.down | self.unreachable);
        while missed != 0 {
            self.ways[missed.trailing_zeros() as usize].missed += 1;
            missed &= missed - 1;
        }
    }

    /// Counts and numbers what closed sessions missed in a burst.
    fn settle(&mut self, counters: &WorkerCounters) {
        for (bit, way) in self.ways.iter_mut().enumerate().filter(|(_, way)| way.missed > 0) {
            let session = &counters.mirrors[usize::from(way.slot)];
            let missed = std::mem::take(&mut way.missed);
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

impl Way {
    /// Takes over what has become known of the ways since the last burst.
    fn look_ahead(&mut self) {
        for (at, member) in self.members.iter_mut().enumerate() {
            let Some(word) = member.hop.as_ref().map(|hop| hop.word()).filter(|word| *word != member.known) else {
                continue;
            };
            member.known = word;
            let state = state_of(word);
            if let (Some(envelope), Some(mac)) = (&mut member.envelope, state.mac()) {
                envelope.set_next_hop(mac);
            }
            let is_up = u64::from(matches!(state, HopState::Up(_)));
            self.usable = self.usable & !(1 << at) | is_up << at;
        }
    }

    /// Where copies are counted that a member cannot get.
    fn lost_on_the_way<'a>(&self, member: usize, session: &'a MirrorCounters) -> &'a Counter {
        match state_of(self.members[member].known) {
            HopState::NoNeighbour => &session.lost_neighbour,
            HopState::Down(_) | HopState::Up(_) => &session.lost_down,
        }
    }

    /// Who gets a copy of a packet, and the number of that.
    fn number(&mut self, judgement: &Judgement, seed: u64) -> (usize, u32) {
        let is_pool = self.members.len() > 1;
        let at = if is_pool { self.pool.member(FlowKey::of(judgement.tuple).0.hash(seed), self.usable) } else { 0 };
        let member = &mut self.members[at];
        let number = member.next;
        member.next = number.wrapping_add(1);
        (at, number)
    }

    /// What the copy is to be like.
    fn plan(&mut self, member: usize, number: u32, of: &Original<'_>) -> Result<Plan, NotMade> {
        let there = of.len;
        let envelope = self.members[member].envelope.as_ref();
        let len = self.delivery.fit(there, envelope.map(Envelope::ip_len)).ok_or(NotMade::Oversize)?;
        let front = envelope.map_or(0, Envelope::len) as u32;
        if !self.meter.admits(front + len, of.stamp.clock) {
            return Err(NotMade::Cap);
        }
        let cut = len < there;
        let bytes = if cut || front > 0 { front + len } else { of.stamp.count_len };
        Ok(Plan { member, number, len, cut, bytes })
    }

    /// Copies of adaptive sessions share a budget, in which those of nobody in particular leave half of what is saved up
    /// to those of the watched.
    fn within_budget(
        &self,
        plan: Plan,
        budget: &mut Meter,
        of: &Original<'_>,
        counters: &WorkerCounters,
    ) -> Result<Plan, NotMade> {
        if !self.adapts {
            return Ok(plan);
        }
        let class = usize::from(of.judgement.verdict.standing.class) % CLASSES;
        counters.demand[class].packets.add(1);
        counters.demand[class].bytes.add(plan.bytes.into());
        let reserve = if class == 0 { 128 } else { 0 };
        budget.admits_leaving(reserve, plan.bytes, of.stamp.clock).then_some(plan).ok_or(NotMade::Budget)
    }

    /// Packets that one copy stands for.
    fn sampling(&self, standing: &Standing) -> f32 {
        match self.sample {
            Sample::Packets(every) => every.max(1) as f32,
            Sample::Flows(share) if self.adapts => (1.0 / share_in_force(share, standing)) as f32,
            Sample::Flows(share) => (1.0 / share) as f32,
        }
    }

    /// `None` when there is no buffer.
    #[inline]
    fn make(&self, plan: &Plan, of: &Original<'_>, from: &mut Buffers) -> Option<Mbuf> {
        let mut copy = from.clones.clone_of(of.packet)?;
        if plan.cut {
            copy.cut(plan.len);
        }
        let Some(envelope) = &self.members[plan.member].envelope else { return Some(copy) };
        let told = self.told(plan, of);
        let front = front_of(envelope, &told, of.preamble.as_ref(), &mut from.fronts)?;
        Mbuf::chained(front, copy).ok()
    }

    /// What the envelope says of the packet.
    fn told(&self, plan: &Plan, of: &Original<'_>) -> Copy {
        let (stamp, Judgement { verdict, tuple, flow_id, .. }) = (of.stamp, of.judgement);
        // As good as a hash: made from one, and the same both ways.
        let flow_hash = if *flow_id != 0 { flow_id << 11 } else { FlowKey::of(*tuple).0.hash(of.seed) };
        Copy {
            len: plan.len,
            original_len: stamp.wire_len,
            sequence: plan.number,
            clock_ns: stamp.clock,
            flow_hash,
            rule: verdict.rule,
            generation: verdict.generation,
            decision: verdict.decision,
            problem: stamp.problem,
            vlan: tuple.vlan,
            score: (verdict.standing.score > 0).then(|| f32::from(verdict.standing.score) / f32::from(u16::MAX)),
            sampling: self.sampling(&verdict.standing),
        }
    }
}

/// A buffer with the envelope, in replay with a preamble of its own hidden before it.
#[inline]
fn front_of(envelope: &Envelope, copy: &Copy, preamble: Option<&Preamble>, stock: &mut Stock) -> Option<Mbuf> {
    let len = envelope.len();
    let Some(of_packet) = preamble else {
        return stock.written(len, 0, |room| _ = envelope.write(copy, room));
    };
    let whole = len as u32 + copy.len;
    let own = Preamble { wire_len: whole, count_len: whole, ..*of_packet };
    stock.written(PREAMBLE_LEN + len, PREAMBLE_LEN as u16, |room| {
        let (hidden, head) = room.split_at_mut(PREAMBLE_LEN);
        hidden.copy_from_slice(&own.to_bytes());
        envelope.write(copy, head);
    })
}

impl NotMade {
    /// Counts it for its session.
    fn count(self, session: &MirrorCounters) {
        match self {
            NotMade::Oversize => session.lost_oversize.add(1),
            NotMade::Cap => session.lost_cap.add(1),
            NotMade::Budget => session.lost_budget.add(1),
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
