//! How the copies of one session are made and where they go: which collector, how much of the frame, wrapped in what.

use std::net::IpAddr;
use std::sync::Arc;

use super::counters::{Counter, MirrorCounters, WorkerCounters};
use super::io::Output;
use super::stages::{Judgement, Stamp};
use super::tap::Copies;
use crate::capture::{PREAMBLE_LEN, Preamble};
use crate::dpdk::{BURST, FRONT_BYTES, Mbuf, Mempool, SEGMENT_BYTES, Stock};
use crate::mirror::hops::{Hop, HopState, state_of};
use crate::mirror::wrap::{Copy, Envelope, Pieces};
use crate::mirror::{CLASSES, Delivery, Mask, Meter, Oversize, Pool, Rate, Seen};
use crate::packet::{FlowKey, Headers, fingerprint, hash_words};

/// One session's.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) slot: u16,
    pub(super) output: usize,
    /// At least one, several of a pool.
    pub(super) members: Vec<Member>,
    pub(super) pool: Pool,
    pub(super) delivery: Delivery,
    pub(super) meter: Meter,
    /// What went by lately, where a packet is to be copied once.
    pub(super) seen: Option<Seen>,
    /// What it takes; if it adapts, it draws on the budget.
    pub(super) rate: Rate,
    /// Some member's way is looked after.
    pub(super) is_watched: bool,
    /// Members that can be reached, as bits; no others are set.
    pub(super) usable: u64,
}

/// Who gets copies.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) to: Option<IpAddr>,
    pub(super) envelope: Option<Envelope>,
    /// What is known of the way to it, and what was known when it was looked at last.
    pub(super) hop: Option<Arc<Hop>>,
    pub(super) known: u64,
    /// Number of the next packet that is selected for it. Also one whose copy is then not made has a number: the receiver is
    /// to notice.
    pub(super) next: u32,
}

/// Why a copy was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotMade {
    /// It does not fit the MTU.
    Oversize,
    /// The session has sent as much as it may.
    Cap,
    /// All adaptive sessions have.
    Budget,
}

/// A copy that is going to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    member: usize,
    number: u32,
    /// Bytes of the frame, and whether that is not all.
    len: u32,
    cut: bool,
    /// It is sent in several packets.
    pieces: Option<Pieces>,
    /// Length to count.
    pub(super) bytes: u32,
}

/// The packet, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Original<'a> {
    pub(super) packet: &'a Mbuf,
    /// Over all segments.
    pub(super) len: u32,
    /// The first one's bytes.
    pub(super) frame: &'a [u8],
    pub(super) headers: &'a Headers,
    pub(super) stamp: &'a Stamp,
    pub(super) judgement: &'a Judgement,
    /// In replay: what stands before it.
    pub(super) preamble: Option<Preamble>,
    pub(super) seed: u64,
}

/// Where buffers come from.
#[derive(Debug)]
pub(super) struct Buffers {
    clones: Stock,
    fronts: Stock,
    /// For copies that do not share the bytes of their packet.
    packets: Mempool,
    /// A frame that is masked.
    scratch: Box<[u8]>,
    /// Packets of a copy before the last one.
    pub(super) pieces: Vec<Mbuf>,
    /// Number of the next copy in pieces, of whatever session: collectors tell them apart by that. Each worker has its own.
    next_id: u32,
    workers: u32,
}

/// Most bytes of envelope and frame that are put into one buffer.
const SHORT: usize = FRONT_BYTES as usize - PREAMBLE_LEN;
/// Longest frame that is masked, by far: the rest of a longer one is not sent.
const SCRATCH: usize = 65_536;

impl Buffers {
    pub(super) fn new([clones, fronts, packets]: [&Mempool; 3], (worker, workers): (usize, usize)) -> Self {
        let [clones, fronts] = [clones, fronts].map(|pool| Stock::new(pool.clone()));
        Self {
            clones,
            fronts,
            packets: packets.clone(),
            scratch: Box::default(),
            pieces: Vec::with_capacity(BURST),
            next_id: worker as u32,
            workers: workers as u32,
        }
    }

    /// Not on the way of a packet: makes room for what these deliveries need.
    pub(super) fn prepare<'a>(&mut self, mut deliveries: impl Iterator<Item = &'a Delivery>) {
        if self.scratch.is_empty() && deliveries.any(|delivery| delivery.mask.is_some()) {
            self.scratch = vec![0; SCRATCH].into();
        }
    }
}

impl Way {
    /// Takes over what has become known of the ways since the last burst.
    pub(super) fn look_ahead(&mut self) {
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

    /// Whether the packet is to be left out because it was seen elsewhere. `sight` is what is seen of it, once somebody asked.
    #[inline]
    pub(super) fn is_again(&mut self, of: &Original<'_>, port: u64, sight: &mut Option<(u64, u64)>) -> bool {
        let Some(seen) = &mut self.seen else { return false };
        let (print, place) = *sight.get_or_insert_with(|| (fingerprint(of.frame, of.headers), place(port, of.headers)));
        seen.is_again(print, place, of.stamp.clock)
    }

    /// Why a copy need not be made: where that is counted, and the set of sessions to which it happened.
    #[inline]
    pub(super) fn obstacle<'a, 'b>(
        &self,
        member: usize,
        output: &Output,
        session: &'a MirrorCounters,
        copies: &'b mut Copies,
    ) -> Option<(&'a Counter, &'b mut u64)> {
        if !output.is_up() {
            Some((&session.lost_link, &mut copies.link_down))
        } else if self.is_watched && self.usable >> member & 1 == 0 {
            Some((self.lost_on_the_way(member, session), &mut copies.unreachable))
        } else if !output.wants_copy() {
            Some((&session.lost_queue, &mut copies.queue_full))
        } else {
            None
        }
    }

    /// Where copies are counted that a member cannot get.
    pub(super) fn lost_on_the_way<'a>(&self, member: usize, session: &'a MirrorCounters) -> &'a Counter {
        match state_of(self.members[member].known) {
            HopState::NoNeighbour => &session.lost_neighbour,
            HopState::Down(_) | HopState::Up(_) => &session.lost_down,
        }
    }

    /// Who gets a copy of a packet, and the number of that.
    #[inline]
    pub(super) fn number(&mut self, judgement: &Judgement, seed: u64) -> (usize, u32) {
        let is_pool = self.members.len() > 1;
        let hash = || FlowKey::of(judgement.tuple).0.hash(seed);
        let at = if is_pool { self.pool.member(hash(), self.usable) } else { 0 };
        let member = &mut self.members[at];
        let number = member.next;
        member.next = number.wrapping_add(1);
        (at, number)
    }

    /// What the copy is to be like.
    #[inline]
    pub(super) fn plan(&mut self, member: usize, number: u32, of: &Original<'_>) -> Result<Plan, NotMade> {
        let there = of.len;
        let envelope = self.members[member].envelope.as_ref();
        let headers = || of.headers.end() as u32;
        let len = self.delivery.fit(there, headers, envelope.map(Envelope::ip_len)).ok_or(NotMade::Oversize)?;
        let mut front = envelope.map_or(0, Envelope::len) as u32;
        let mut pieces = None;
        if self.delivery.oversize == Oversize::Fragment
            && let Some(envelope) = envelope
            && let Some(several) = envelope.pieces(len, self.delivery.mtu)
        {
            if several.count() as usize > BURST {
                return Err(NotMade::Oversize);
            }
            front = (0..several.count()).map(|n| envelope.piece_len(n == 0) as u32).sum();
            pieces = Some(several);
        }
        if !self.meter.admits(front + len, of.stamp.clock) {
            return Err(NotMade::Cap);
        }
        let cut = len < there;
        let bytes = if cut || front > 0 { front + len } else { of.stamp.count_len };
        Ok(Plan { member, number, len, cut, pieces, bytes })
    }

    /// Copies of adaptive sessions share a budget, in which those of nobody in particular leave half of what is saved up
    /// to those of the watched.
    pub(super) fn within_budget(
        &self,
        plan: Plan,
        budget: &mut Meter,
        of: &Original<'_>,
        counters: &WorkerCounters,
    ) -> Result<Plan, NotMade> {
        if !self.rate.adapts {
            return Ok(plan);
        }
        let class = usize::from(of.judgement.verdict.standing.class) % CLASSES;
        counters.demand[class].packets.add(1);
        counters.demand[class].bytes.add(plan.bytes.into());
        let reserve = if class == 0 { 128 } else { 0 };
        budget.admits_leaving(reserve, plan.bytes, of.stamp.clock).then_some(plan).ok_or(NotMade::Budget)
    }

    /// `None` when there is no buffer. Of a copy in pieces this is the last one, the others are in the buffers' list.
    #[inline]
    pub(super) fn make(&self, plan: &Plan, of: &Original<'_>, from: &mut Buffers) -> Option<Mbuf> {
        if self.delivery.mask.is_some() || plan.pieces.is_some() {
            return self.make_specially(plan, of, from);
        }
        if let Some(envelope) = &self.members[plan.member].envelope
            && let Some(frame) = of.frame.get(..plan.len as usize)
            && envelope.len() + frame.len() <= SHORT
        {
            return self.make_short(envelope, frame, plan, of, &mut from.fronts);
        }
        let mut copy = from.clones.clone_of(of.packet)?;
        if plan.cut {
            copy.cut(plan.len);
        }
        self.wrapped(plan, of, copy, &mut from.fronts)
    }

    /// Envelope and frame in one buffer.
    // PERF: a few words are copied faster than a buffer is shared, chained and given back; see `bench/mirror.rs`.
    #[inline]
    fn make_short(
        &self,
        envelope: &Envelope,
        frame: &[u8],
        plan: &Plan,
        of: &Original<'_>,
        fronts: &mut Stock,
    ) -> Option<Mbuf> {
        let told = self.told(plan, of);
        let len = envelope.len();
        front_of(len + frame.len(), 0, of.preamble.as_ref(), fronts, |room| {
            let (head, body) = room.split_at_mut(len);
            body.copy_from_slice(frame);
            envelope.write(&told, head);
        })
    }

    #[inline]
    fn wrapped(&self, plan: &Plan, of: &Original<'_>, copy: Mbuf, fronts: &mut Stock) -> Option<Mbuf> {
        let Some(envelope) = &self.members[plan.member].envelope else { return Some(copy) };
        let told = self.told(plan, of);
        let write = |room: &mut [u8]| _ = envelope.write(&told, room);
        let front = front_of(envelope.len(), plan.len, of.preamble.as_ref(), fronts, write)?;
        Mbuf::chained(front, copy).ok()
    }

    /// Masked, or in pieces.
    #[inline(never)]
    fn make_specially(&self, plan: &Plan, of: &Original<'_>, from: &mut Buffers) -> Option<Mbuf> {
        let masked = match &self.delivery.mask {
            Some(mask) => {
                let hidden = of.preamble.filter(|_| self.members[plan.member].envelope.is_none());
                Some(masked(mask, plan, of, hidden.as_ref(), from)?)
            }
            None => None,
        };
        match (masked, plan.pieces) {
            (Some(copy), None) => self.wrapped(plan, of, copy, &mut from.fronts),
            (Some(copy), Some(pieces)) => self.cut_up(plan, pieces, of, &copy, from),
            (None, Some(pieces)) => self.cut_up(plan, pieces, of, of.packet, from),
            (None, None) => None,
        }
    }

    /// The packets in which a copy of `frame` is sent.
    fn cut_up(&self, plan: &Plan, pieces: Pieces, of: &Original<'_>, frame: &Mbuf, from: &mut Buffers) -> Option<Mbuf> {
        let envelope = self.members[plan.member].envelope.as_ref()?;
        let told = self.told(plan, of);
        from.next_id = from.next_id.wrapping_add(from.workers);
        let mut last = None;
        for piece in pieces.each(from.next_id) {
            let (at, len) = envelope.piece_of_frame(&piece);
            let body = from.clones.clone_of(frame).map(|clone| {
                let mut body = clone.skip(at);
                body.cut(len);
                body
            });
            let write = |room: &mut [u8]| _ = envelope.write_piece(&told, &piece, room);
            let front_len = envelope.piece_len(piece.offset == 0);
            let front = front_of(front_len, len, of.preamble.as_ref(), &mut from.fronts, write);
            let packet = front.zip(body).and_then(|(front, body)| Mbuf::chained(front, body).ok());
            let Some(packet) = packet else {
                from.pieces.clear();
                return None;
            };
            // There is room: the plan has no more than a burst.
            from.pieces.extend(last.replace(packet));
        }
        last
    }

    /// What the envelope says of the packet.
    #[inline]
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
            sampling: (1.0 / self.rate.share(&verdict.standing)) as f32,
        }
    }
}

/// A true copy: the packet shares its bytes with the one that is forwarded.
fn masked(
    mask: &Mask,
    plan: &Plan,
    of: &Original<'_>,
    preamble: Option<&Preamble>,
    from: &mut Buffers,
) -> Option<Mbuf> {
    let there = of.packet.copy_into(&mut from.scratch);
    let frame = &mut from.scratch[..there];
    mask.apply(frame, of.headers);
    let mut rest = &frame[..there.min(plan.len as usize)];
    let mut whole: Option<Mbuf> = None;
    while !rest.is_empty() || whole.is_none() {
        let hidden = preamble.filter(|_| whole.is_none()).map(Preamble::to_bytes);
        let hidden = hidden.as_ref().map_or(&[][..], |bytes| bytes);
        let (part, more) = rest.split_at(rest.len().min(usize::from(SEGMENT_BYTES) - hidden.len()));
        let segment = Mbuf::written(&from.packets, hidden.len() + part.len(), hidden.len() as u16, |room| {
            room[..hidden.len()].copy_from_slice(hidden);
            room[hidden.len()..].copy_from_slice(part);
        })?;
        whole = Some(match whole {
            None => segment,
            Some(whole) => Mbuf::chained(whole, segment).ok()?,
        });
        rest = more;
    }
    whole
}

/// A buffer of `len` bytes that `write` fills, in replay with a preamble of its own hidden before it; `body` bytes of frame
/// are to follow.
#[inline]
fn front_of(
    len: usize,
    body: u32,
    preamble: Option<&Preamble>,
    stock: &mut Stock,
    write: impl FnOnce(&mut [u8]),
) -> Option<Mbuf> {
    let Some(of_packet) = preamble else {
        return stock.written(len, 0, write);
    };
    let whole = len as u32 + body;
    let own = Preamble { wire_len: whole, count_len: whole, ..*of_packet };
    stock.written(PREAMBLE_LEN + len, PREAMBLE_LEN as u16, |room| {
        let (hidden, head) = room.split_at_mut(PREAMBLE_LEN);
        hidden.copy_from_slice(&own.to_bytes());
        write(head);
    })
}

impl NotMade {
    /// Counts it for its session.
    pub(super) fn count(self, session: &MirrorCounters) {
        match self {
            NotMade::Oversize => session.lost_oversize.add(1),
            NotMade::Cap => session.lost_cap.add(1),
            NotMade::Budget => session.lost_budget.add(1),
        }
    }
}

/// Where a packet was seen: by which port it came, in which VLAN, from whom.
fn place(port: u64, headers: &Headers) -> u64 {
    let [a, b, c, d, e, f] = headers.link.src.0;
    let vlan = u64::from(headers.link.vlans.outer());
    hash_words([port, vlan, u64::from_be_bytes([0, 0, a, b, c, d, e, f])])
}
