//! The flow table of one worker: slab, index and verdicts joined, expiry, eviction.

mod evict;
mod sweep;

use std::fmt;

use super::bitset::BitSet;
use super::due::Due;
use super::entropy::Entropy;
use super::entry::{FlowEntry, FlowPacket, Handle, TimeoutsNs};
use super::index::Index;
use super::key::{Lookup, unpack};
use super::record::{EndReason, FlowRecord, FlowState};
use super::slab::{NONE, Slab};
use super::tcp::{Seen, TcpRules, WindowCheck};
use super::verdicts::Verdicts;
use crate::config::Timeouts;
use crate::packet::{FlowKey, Tuple};
use crate::rules::{Standing, Verdict};

pub use sweep::Effort;

/// Where finished records go. Must not block a worker that forwards live traffic.
pub trait RecordSink {
    fn push(&mut self, record: FlowRecord);
}

impl RecordSink for Vec<FlowRecord> {
    fn push(&mut self, record: FlowRecord) {
        self.push(record);
    }
}

/// A live flow of one table. Valid until the next call that takes a sink: that call may end the flow and give its
/// place away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowIx(u32);

/// What [`FlowTable::touch`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    pub ix: FlowIx,
    /// [`TO_SERVER`](super::TO_SERVER) or [`TO_CLIENT`](super::TO_CLIENT).
    pub direction: usize,
    /// First packet of the flow: no verdict is cached.
    pub is_new: bool,
    /// What TCP makes of the packet.
    pub seen: Seen,
}

/// The packet's flow could neither be inserted nor may another one be evicted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("flow table full of established flows")]
pub struct TableFull;

/// Counters since the table was made; `live` and `disposable` are levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    pub inserted: u64,
    /// Ended by a time-out, a new connection on a closed flow, [`FlowTable::end_flow`], or the end of the run.
    pub expired: u64,
    /// Ended because their place was needed: half-open or one-way, closed, and established but long silent.
    pub evicted_half_open: u64,
    pub evicted_closed: u64,
    pub evicted_idle: u64,
    /// Packets that got [`TableFull`].
    pub table_full: u64,
    /// Interim records made because a counter was full.
    pub slices_forced: u64,
    /// Verdicts that were not kept because there were too many different ones.
    pub verdicts_refused: u64,
    pub live: usize,
    /// Of these the ones that give way first: half-open, one-way or over.
    pub disposable: usize,
    /// Most flows at one time.
    pub high_water: usize,
}

impl FlowStats {
    pub fn evicted(&self) -> u64 {
        self.evicted_half_open + self.evicted_closed + self.evicted_idle
    }
}

/// Flows of one worker. See the module for what is recorded when.
pub struct FlowTable {
    slab: Slab,
    index: Index,
    verdicts: Verdicts,
    /// Flows that give way first.
    disposable: BitSet,
    due: Due,
    times: TimeoutsNs,
    tcp: TcpRules,
    seed: u64,
    /// Of the index alone: changes no output, and nobody outside should know it.
    secret: u64,
    /// Latest clock of all calls.
    now: u64,
    /// No live flow was last heard more than its time-out before.
    looked_at_all: u64,
    /// The next block of the pass, and the clock when the pass began.
    sweep_at: usize,
    sweep_began: Option<u64>,
    watermark: u64,
    hand: u32,
    stats: FlowStats,
}

impl FlowTable {
    /// Room for `capacity` flows (at least 1): 128 bytes each, 32 more for one of IPv6 or a virtual network, and 13.5
    /// bytes of index and bounds. First touched when used, or by [`prefault`](Self::prefault).
    pub fn new(capacity: usize, timeouts: &Timeouts, seed: u64) -> Self {
        let slab = Slab::new(capacity);
        Self {
            index: Index::new(slab.capacity()),
            verdicts: Verdicts::new(slab.capacity()),
            disposable: BitSet::new(slab.capacity()),
            due: Due::new(slab.capacity()),
            slab,
            times: TimeoutsNs::new(timeouts),
            tcp: TcpRules { window: WindowCheck::Off, asymmetric: false },
            seed,
            secret: seed,
            now: 0,
            looked_at_all: 0,
            sweep_at: 0,
            sweep_began: None,
            watermark: 0,
            hand: 0,
            stats: FlowStats::default(),
        }
    }

    /// Follows TCP connections by these rules; without, nobody looks at windows.
    #[must_use]
    pub fn with_tcp(self, tcp: TcpRules) -> Self {
        Self { tcp, ..self }
    }

    /// Hashes with a number that senders do not know, so that they cannot choose flows that collide. For live traffic;
    /// without, the seed is used, and the same input evicts the same flows in every run.
    #[must_use]
    pub fn with_secret(self, secret: u64) -> Self {
        Self { secret, ..self }
    }

    /// Touches all memory now, on the memory node of the calling thread, so that no packet has to wait for a page.
    pub fn prefault(&self) {
        self.index.prefault();
        self.slab.prefault();
        self.due.prefault();
    }

    /// Counts a packet to its flow, which is made if there is none.
    pub fn touch(&mut self, packet: &FlowPacket, sink: &mut impl RecordSink) -> Result<Touch, TableFull> {
        self.touch_prepared(packet, &Lookup::new(&packet.tuple, self.secret), sink)
    }

    /// First step for a burst: key and hash into `lookup`; asks for the line of the index.
    #[inline(always)]
    pub fn prepare(&self, tuple: &Tuple, lookup: &mut Lookup) {
        lookup.set(tuple, self.secret);
        self.index.prefetch(lookup.hash);
    }

    /// Second step for a burst: reads the index and asks for the flow's lines. Done for all packets of a burst before
    /// the first [`touch_prepared`](Self::touch_prepared), the cache misses of different packets overlap.
    #[inline]
    pub fn locate(&self, lookup: &mut Lookup) {
        if let Some(position) = self.index.candidate(lookup.hash) {
            lookup.hint = position;
            self.slab.prefetch(position, lookup.is_wide());
        }
    }

    /// Last step: as [`touch`](Self::touch), with a lookup made from the packet's tuple by this table. Earlier packets
    /// of the burst may have changed what was located.
    // PERF: as of `FlowEntry::count`, which is most of it.
    #[inline(always)]
    pub fn touch_prepared(
        &mut self,
        packet: &FlowPacket,
        lookup: &Lookup,
        sink: &mut impl RecordSink,
    ) -> Result<Touch, TableFull> {
        self.advance(packet.clock_ns, sink);
        let quiet = self
            .hinted(lookup)
            .filter(|position| self.slab.get(*position).is_quiet(self.now, &self.times) && !packet.opens_connection());
        let (position, is_new) = match quiet {
            Some(position) => (position, false),
            None => self.place_for(packet, lookup, sink)?,
        };
        Ok(self.count(position, lookup, packet, is_new, sink))
    }

    /// Position of the packet's flow, and whether it begins with the packet: for new flows, and for those to which
    /// something happens before the packet.
    #[inline(never)]
    fn place_for(
        &mut self,
        packet: &FlowPacket,
        lookup: &Lookup,
        sink: &mut impl RecordSink,
    ) -> Result<(u32, bool), TableFull> {
        let clock = self.now;
        let mut previous = None;
        if let Some(position) = self.find(lookup) {
            let entry = self.slab.get(position);
            if entry.is_begun_anew(lookup.from_high, packet) {
                previous = (entry.last(clock) == clock).then_some(entry.flow_id());
                if !self.settle(position, clock, sink) {
                    self.end(position, EndReason::Idle, clock, sink);
                    self.stats.expired += 1;
                }
            } else if !self.settle(position, clock, sink) {
                return Ok((position, false));
            }
        }
        Ok((self.insert(packet, lookup, previous, sink)?, true))
    }

    /// The flow of a lookup made by this table and the packet's direction in it, if there is one; it may be over by the
    /// time of the packet. Nothing is counted.
    #[inline]
    pub fn peek(&self, lookup: &Lookup) -> Option<(FlowIx, usize)> {
        let position = self.hinted(lookup).or_else(|| self.find(lookup))?;
        Some((FlowIx(position), self.slab.get(position).direction(lookup.from_high)))
    }

    /// The flow that is there for a tuple at a time, and the direction of the tuple in it. No packet: nothing is counted,
    /// and what is over ends.
    pub fn find_live(&mut self, tuple: &Tuple, clock_ns: u64, sink: &mut impl RecordSink) -> Option<(FlowIx, usize)> {
        self.advance(clock_ns, sink);
        let lookup = Lookup::new(tuple, self.secret);
        let position = self.find(&lookup).filter(|position| !self.settle(*position, self.now, sink))?;
        Some((FlowIx(position), self.slab.get(position).direction(lookup.from_high)))
    }

    /// Counts an ICMP error about the flow.
    pub fn note_icmp_error(&mut self, ix: FlowIx, sink: &mut impl RecordSink) {
        if !self.slab.get_mut(ix.0).count_icmp_error() {
            self.slice(ix.0, self.now, sink);
            self.stats.slices_forced += 1;
            self.slab.get_mut(ix.0).count_icmp_error();
        }
    }

    /// Ends a flow before its time: the next packet begins another.
    pub fn end_flow(&mut self, ix: FlowIx, clock_ns: u64, sink: &mut impl RecordSink) {
        self.advance(clock_ns, sink);
        // All may have been looked at.
        if self.slab.get(ix.0).is_live() && !self.settle(ix.0, self.now, sink) {
            self.end(ix.0, EndReason::Forced, self.now, sink);
            self.stats.expired += 1;
        }
    }

    #[inline]
    pub fn entry(&self, ix: FlowIx) -> &FlowEntry {
        self.slab.get(ix.0)
    }

    /// The flow's tuple; its source is the initiator.
    pub fn tuple(&self, ix: FlowIx) -> Tuple {
        self.tuple_of(ix.0)
    }

    /// The cached verdict of a direction if it was made by this generation.
    #[inline]
    pub fn verdict(&self, ix: FlowIx, direction: usize, generation: u32) -> Option<&Verdict> {
        self.last_verdict(ix, direction).filter(|v| v.generation == generation)
    }

    /// The latest verdict of a direction whatever its generation; `None` when not yet decided.
    #[inline]
    pub fn last_verdict(&self, ix: FlowIx, direction: usize) -> Option<&Verdict> {
        self.verdicts.get(self.slab.get(ix.0).handle(Handle::Verdict(direction)))
    }

    pub fn set_verdict(&mut self, ix: FlowIx, direction: usize, verdict: &Verdict) {
        self.keep(ix.0, Handle::Verdict(direction), Some(verdict));
    }

    pub fn forget_verdict(&mut self, ix: FlowIx, direction: usize) {
        self.keep(ix.0, Handle::Verdict(direction), None);
    }

    /// Adds to the mirror sessions of `generation` that took a packet in this slice. Those of an earlier generation
    /// are forgotten: their bits may stand for other sessions now.
    #[inline]
    pub fn note_mirrored(&mut self, ix: FlowIx, sessions: u64, verdict: &Verdict) {
        if sessions == 0 {
            return;
        }
        let (generation, Standing { share, cut, .. }) = (verdict.generation, verdict.standing);
        let before = self.verdicts.get(self.slab.get(ix.0).handle(Handle::Mirrors));
        let before = before.filter(|noted| noted.generation == generation);
        let (mirrors, noted) = before.map_or((0, Standing::default()), |noted| (noted.mirrors, noted.standing));
        if mirrors | sessions != mirrors || share > noted.share || cut > noted.cut {
            let standing = Standing { share: noted.share.max(share), cut: noted.cut.max(cut), ..noted };
            let all = Verdict { mirrors: mirrors | sessions, generation, standing, ..Verdict::default() };
            self.keep(ix.0, Handle::Mirrors, Some(&all));
        }
    }

    /// Keeps the entropy of the first payload of a direction.
    pub fn note_entropy(&mut self, ix: FlowIx, direction: usize, entropy: Entropy) {
        self.slab.get_mut(ix.0).set_entropy(direction, entropy);
    }

    /// The other end becomes the flow's initiator: counters, flags and verdicts change sides.
    pub fn flip_initiator(&mut self, ix: FlowIx) {
        self.slab.get_mut(ix.0).flip_initiator();
    }

    pub fn stats(&self) -> FlowStats {
        let (live, disposable) = (self.slab.live(), self.disposable.len());
        FlowStats { live, disposable, verdicts_refused: self.verdicts.refused(), ..self.stats }
    }

    /// Places that ever had a flow: what a pass of [`sweep`](Self::sweep) goes over.
    pub fn places(&self) -> usize {
        self.slab.len()
    }

    /// Bytes of entries and annex used so far, and of the index and what belongs to it.
    pub fn memory_bytes(&self) -> (usize, usize) {
        (
            self.slab.memory_bytes(),
            self.index.memory_bytes()
                + self.verdicts.memory_bytes()
                + self.disposable.memory_bytes()
                + self.due.memory_bytes(),
        )
    }

    /// Hands the flows in up to `budget` places from `from` on to `look`, each as the record of its slice so far, and
    /// says where to go on; `None` after the last. Nothing is changed.
    pub fn survey(&self, from: usize, budget: usize, mut look: impl FnMut(FlowRecord)) -> Option<usize> {
        let stop = self.slab.len().min(from.saturating_add(budget));
        for position in (from as u32..stop as u32).filter(|position| self.slab.get(*position).is_live()) {
            look(self.record(position, EndReason::Active, self.now));
        }
        (stop < self.slab.len()).then_some(stop)
    }

    #[inline]
    fn find(&self, lookup: &Lookup) -> Option<u32> {
        self.index.find(lookup.hash, |position| self.is(position, lookup))
    }

    #[inline]
    fn is(&self, position: u32, lookup: &Lookup) -> bool {
        lookup.agrees(self.slab.get(position).words) && (!lookup.is_wide() || *self.slab.wide(position) == lookup.wide)
    }

    #[inline]
    fn hinted(&self, lookup: &Lookup) -> Option<u32> {
        (lookup.hint != NONE && self.is(lookup.hint, lookup)).then_some(lookup.hint)
    }

    #[inline(always)]
    fn count(
        &mut self,
        position: u32,
        lookup: &Lookup,
        packet: &FlowPacket,
        is_new: bool,
        sink: &mut impl RecordSink,
    ) -> Touch {
        let entry = self.slab.get_mut(position);
        let direction = entry.direction(lookup.from_high);
        let was = entry.phase_number();
        let counted = entry.count(direction, packet, self.now, self.tcp);
        if is_new || entry.phase_number() != was {
            self.note_state(position);
        }
        let seen = match counted {
            Some(seen) => seen,
            None => self.count_in_new_slice(position, direction, packet, sink),
        };
        Touch { ix: FlowIx(position), direction, is_new, seen }
    }

    /// A counter is full: what there is becomes a record, now.
    #[cold]
    fn count_in_new_slice(
        &mut self,
        position: u32,
        direction: usize,
        packet: &FlowPacket,
        sink: &mut impl RecordSink,
    ) -> Seen {
        self.slice(position, self.now, sink);
        self.stats.slices_forced += 1;
        let counted = self.slab.get_mut(position).count(direction, packet, self.now, self.tcp);
        self.note_state(position);
        counted.unwrap_or_default()
    }

    /// After the first packet of a flow, and any that changed its state: which flows give way first, and when something
    /// happens to it.
    #[inline(never)]
    fn note_state(&mut self, position: u32) {
        let entry = self.slab.get(position);
        if entry.is_disposable() {
            self.disposable.insert(position);
        } else {
            self.disposable.remove(position);
        }
        self.due.lower(position, entry.due(self.now, &self.times));
    }

    fn slice(&mut self, position: u32, at: u64, sink: &mut impl RecordSink) {
        sink.push(self.record(position, EndReason::Active, at));
        self.keep(position, Handle::Mirrors, None);
        self.slab.get_mut(position).begin_slice();
    }

    fn end(&mut self, position: u32, otherwise: EndReason, at: u64, sink: &mut impl RecordSink) {
        let entry = self.slab.get(position);
        sink.push(self.record(position, entry.end_reason(otherwise), at));
        self.disposable.remove(position);
        let hash = Lookup::new(&self.tuple_of(position), self.secret).hash;
        Handle::ALL.into_iter().for_each(|handle| self.verdicts.release(entry.handle(handle)));
        self.index.remove(hash, position);
        self.slab.remove(position);
    }

    fn tuple_of(&self, position: u32) -> Tuple {
        let entry = self.slab.get(position);
        let low = unpack(entry.words, || *self.slab.wide(position));
        if entry.initiator_is_high() { low.reversed() } else { low }
    }

    fn record(&self, position: u32, reason: EndReason, emitted: u64) -> FlowRecord {
        let entry = self.slab.get(position);
        let record = entry.record(self.tuple_of(position).unmarked(), self.now, reason, emitted);
        let verdict = self.deciding_verdict(entry);
        let mirrored = self.verdicts.get(entry.handle(Handle::Mirrors));
        let mirrored = mirrored.filter(|noted| noted.generation == verdict.generation);
        let record = FlowRecord {
            rule: verdict.rule,
            tier: verdict.tier,
            decision: verdict.decision,
            generation: verdict.generation,
            src_groups: verdict.src_groups,
            dst_groups: verdict.dst_groups,
            mirrors: mirrored.map_or(0, |noted| noted.mirrors),
            raised: mirrored.map_or(0, |noted| noted.standing.share),
            cut: mirrored.map_or(0, |noted| noted.standing.cut),
            diverted: verdict.standing.diversion != 0,
            ..record
        };
        if entry.is_turned() { record.turned() } else { record }
    }

    /// The verdict to server, else the one to client with its groups turned round.
    fn deciding_verdict(&self, entry: &FlowEntry) -> Verdict {
        let [there, back] = [0, 1].map(|direction| self.verdicts.get(entry.handle(Handle::Verdict(direction))));
        match (there, back) {
            (Some(verdict), _) => *verdict,
            (None, Some(verdict)) => {
                Verdict { src_groups: verdict.dst_groups, dst_groups: verdict.src_groups, ..*verdict }
            }
            (None, None) => Verdict::default(),
        }
    }

    /// Replaces what an entry holds in the table of verdicts.
    fn keep(&mut self, position: u32, which: Handle, verdict: Option<&Verdict>) {
        let before = self.slab.get(position).handle(which);
        if verdict.is_some() && self.verdicts.get(before) == verdict {
            return;
        }
        self.verdicts.release(before);
        let handle = verdict.map_or(0, |verdict| self.verdicts.intern(verdict));
        self.slab.get_mut(position).set_handle(which, handle);
    }

    fn insert(
        &mut self,
        packet: &FlowPacket,
        lookup: &Lookup,
        previous: Option<u64>,
        sink: &mut impl RecordSink,
    ) -> Result<u32, TableFull> {
        let clock = self.now;
        let evicted = self.make_room(lookup.hash, clock, sink)?;
        let mut flow_id = scramble(FlowKey::of(packet.tuple).0.hash(self.seed) ^ scramble(clock));
        // A flow and its successor may start at one clock: after a reset, or when the first was evicted.
        if let Some(salt) = previous.or(evicted) {
            flow_id = scramble(flow_id ^ scramble(salt));
        }
        // 53 bits: what JSON readers that know only doubles keep exactly.
        let entry = FlowEntry::new(lookup.words, lookup.from_high, packet, clock, flow_id >> 11);
        let position = self.slab.insert(entry, lookup.wide).ok_or(TableFull)?;
        self.index.insert(lookup.hash, position);
        self.stats.inserted += 1;
        self.stats.high_water = self.stats.high_water.max(self.slab.live());
        Ok(position)
    }
}

impl fmt::Debug for FlowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowTable")
            .field("capacity", &self.slab.capacity())
            .field("stats", &self.stats())
            .field("watermark", &self.watermark)
            .finish_non_exhaustive()
    }
}

/// Bijective mixing of 64 bits: shifts, xor and odd multiplications.
fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}
