//! The flow table of one worker: slab and index joined, expiry, eviction.

use std::fmt;

use super::entry::{FlowEntry, FlowPacket, TimeoutsNs};
use super::index::Index;
use super::record::{EndReason, FlowRecord, FlowState};
use super::slab::{NONE, Slab};
use crate::config::Timeouts;
use crate::packet::{FlowKey, Orientation, Tuple};

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
    /// First packet of the flow: no verdict is cached and `sampled` is zero.
    pub is_new: bool,
}

/// The packet's flow could neither be inserted nor may another one be evicted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("flow table full of established flows")]
pub struct TableFull;

/// Key, hash and probable place of a packet's flow, see [`FlowTable::prepare`].
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    key: FlowKey,
    way: Orientation,
    hash: u64,
    hint: u32,
}

impl Lookup {
    pub fn key(&self) -> &FlowKey {
        &self.key
    }

    /// Seeded hash of the key, the same for both directions.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// Counters since the table was made; `live` is a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    pub inserted: u64,
    /// Ended by a time-out, a new connection on a closed flow, [`FlowTable::end_flow`], or the end of the run.
    pub expired: u64,
    pub evicted: u64,
    /// Packets that got [`TableFull`].
    pub table_full: u64,
    pub live: usize,
    /// Most flows at one time.
    pub high_water: usize,
}

/// Flows of one worker. See the module for what is recorded when.
pub struct FlowTable {
    slab: Slab,
    index: Index,
    times: TimeoutsNs,
    seed: u64,
    sweep_at: usize,
    sweep_began: Option<u64>,
    watermark: u64,
    hand: usize,
    stats: FlowStats,
}

/// Entries looked at for one eviction when no flow is disposable.
const HAND_STEPS: usize = 32;

impl FlowTable {
    /// Room for `capacity` flows (at least 1): 256 bytes each and 16..=32 bytes of index, first touched when used.
    pub fn new(capacity: usize, timeouts: &Timeouts, seed: u64) -> Self {
        let slab = Slab::new(capacity);
        Self {
            index: Index::new(slab.capacity()),
            slab,
            times: TimeoutsNs::new(timeouts),
            seed,
            sweep_at: 0,
            sweep_began: None,
            watermark: 0,
            hand: 0,
            stats: FlowStats::default(),
        }
    }

    /// Counts a packet to its flow, which is made if there is none.
    pub fn touch(&mut self, packet: &FlowPacket, sink: &mut impl RecordSink) -> Result<Touch, TableFull> {
        self.touch_prepared(packet, &self.prepare(&packet.tuple), sink)
    }

    /// First step for a burst: key and hash, no table memory.
    #[inline]
    pub fn prepare(&self, tuple: &Tuple) -> Lookup {
        let (key, way) = FlowKey::of(*tuple);
        Lookup { hash: key.hash(self.seed), key, way, hint: NONE }
    }

    /// Second step for a burst: finds the flow without changing anything. Done for all packets of a burst before the
    /// first [`touch_prepared`](Self::touch_prepared), the cache misses of different packets overlap.
    #[inline]
    pub fn locate(&self, lookup: &mut Lookup) {
        lookup.hint = self.find(lookup).unwrap_or(NONE);
    }

    /// Last step: as [`touch`](Self::touch), with a lookup made from the packet's tuple by this table. Earlier packets
    /// of the burst may have changed what was located.
    pub fn touch_prepared(
        &mut self,
        packet: &FlowPacket,
        lookup: &Lookup,
        sink: &mut impl RecordSink,
    ) -> Result<Touch, TableFull> {
        let mut previous = None;
        if let Some(position) = self.hinted(lookup).or_else(|| self.find(lookup)) {
            let clock = packet.clock_ns;
            if self.slab.get(position).state() == FlowState::Closed && packet.opens_connection() {
                let entry = self.slab.get(position);
                previous = (entry.start() == clock).then_some(entry.flow_id());
                if !self.settle(position, clock, sink) {
                    self.end(position, EndReason::Idle, clock, sink);
                    self.stats.expired += 1;
                }
            } else if !self.settle(position, clock, sink) {
                return Ok(self.count(position, lookup, packet, false));
            }
        }
        let position = self.insert(packet, lookup, previous, sink)?;
        Ok(self.count(position, lookup, packet, true))
    }

    /// The flow of a lookup made by this table and the packet's direction in it, if there is one; it may be over by the
    /// time of the packet. Nothing is counted.
    pub fn peek(&self, lookup: &mut Lookup) -> Option<(FlowIx, usize)> {
        self.locate(lookup);
        let position = self.hinted(lookup)?;
        Some((FlowIx(position), self.slab.get(position).direction(lookup.way)))
    }

    /// Ends a flow before its time: the next packet begins another, which must have a later clock than this one began
    /// with.
    pub fn end_flow(&mut self, ix: FlowIx, clock_ns: u64, sink: &mut impl RecordSink) {
        if !self.settle(ix.0, clock_ns, sink) {
            self.end(ix.0, EndReason::Forced, clock_ns, sink);
            self.stats.expired += 1;
        }
    }

    pub fn entry(&self, ix: FlowIx) -> &FlowEntry {
        self.slab.get(ix.0)
    }

    pub fn entry_mut(&mut self, ix: FlowIx) -> &mut FlowEntry {
        self.slab.get_mut(ix.0)
    }

    /// The other end becomes the flow's initiator: counters, flags and verdicts change sides.
    pub fn flip_initiator(&mut self, ix: FlowIx) {
        self.slab.get_mut(ix.0).flip_initiator();
    }

    /// Looks at up to `budget` entries and hands out what is due before `clock_ns`. True when this call completed a
    /// pass over the table; [`watermark`](Self::watermark) has then moved on.
    pub fn sweep(&mut self, clock_ns: u64, budget: usize, sink: &mut impl RecordSink) -> bool {
        let began = *self.sweep_began.get_or_insert(clock_ns);
        let stop = self.slab.len().min(self.sweep_at.saturating_add(budget));
        for position in self.sweep_at..stop {
            if self.slab.get(position as u32).live {
                self.settle(position as u32, clock_ns, sink);
            }
        }
        self.sweep_at = stop;
        if stop < self.slab.len() {
            return false;
        }
        self.sweep_at = 0;
        self.sweep_began = None;
        // Events act strictly later than they happen: what happened at the very clock may still be to come.
        self.watermark = self.watermark.max(began.saturating_sub(1));
        true
    }

    /// Every record with `emitted` up to here has been handed out.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// End of the run: hands out what is due, then every flow that is left, in slab order, with `clock_ns` as the time
    /// it happened. The table is empty afterwards and can be used again.
    pub fn finish(&mut self, clock_ns: u64, sink: &mut impl RecordSink) {
        for position in 0..self.slab.len() as u32 {
            if self.slab.get(position).live && !self.settle(position, clock_ns, sink) {
                self.end(position, EndReason::Forced, clock_ns, sink);
                self.stats.expired += 1;
            }
        }
        self.sweep_at = 0;
        self.sweep_began = None;
        self.watermark = self.watermark.max(clock_ns);
    }

    /// Hands the flows in up to `budget` places from `from` on to `look`, each as the record of its slice so far, and
    /// says where to go on; `None` after the last. Nothing is changed.
    pub fn survey(&self, from: usize, budget: usize, mut look: impl FnMut(FlowRecord)) -> Option<usize> {
        let stop = self.slab.len().min(from.saturating_add(budget));
        for entry in (from..stop).map(|position| self.slab.get(position as u32)).filter(|entry| entry.live) {
            look(entry.record(EndReason::Active, entry.last()));
        }
        (stop < self.slab.len()).then_some(stop)
    }

    pub fn stats(&self) -> FlowStats {
        FlowStats { live: self.slab.live(), ..self.stats }
    }

    #[inline]
    fn find(&self, lookup: &Lookup) -> Option<u32> {
        self.index.find(lookup.hash, |position| *self.slab.get(position).key() == lookup.key)
    }

    #[inline]
    fn hinted(&self, lookup: &Lookup) -> Option<u32> {
        if lookup.hint as usize >= self.slab.len() {
            return None;
        }
        let entry = self.slab.get(lookup.hint);
        (entry.live && *entry.key() == lookup.key).then_some(lookup.hint)
    }

    #[inline]
    fn count(&mut self, position: u32, lookup: &Lookup, packet: &FlowPacket, is_new: bool) -> Touch {
        let direction = self.slab.get(position).direction(lookup.way);
        self.slab.update(position, |entry| entry.count(direction, packet));
        Touch { ix: FlowIx(position), direction, is_new }
    }

    /// Hands out what has happened to a flow before `clock`. True when that was its end.
    #[inline]
    fn settle(&mut self, position: u32, clock: u64, sink: &mut impl RecordSink) -> bool {
        let entry = self.slab.get_mut(position);
        if let Some(at) = entry.slice_ends_at(&self.times).filter(|at| clock > *at) {
            sink.push(entry.record(EndReason::Active, at));
            entry.begin_slice();
        }
        let at = entry.ends_at(&self.times);
        if clock <= at {
            return false;
        }
        self.end(position, EndReason::Idle, at, sink);
        self.stats.expired += 1;
        true
    }

    fn end(&mut self, position: u32, otherwise: EndReason, at: u64, sink: &mut impl RecordSink) {
        let entry = self.slab.get(position);
        sink.push(entry.record(entry.end_reason(otherwise), at));
        let hash = entry.key().hash(self.seed);
        self.index.remove(hash, position);
        self.slab.remove(position);
    }

    fn insert(
        &mut self,
        packet: &FlowPacket,
        lookup: &Lookup,
        previous: Option<u64>,
        sink: &mut impl RecordSink,
    ) -> Result<u32, TableFull> {
        let evicted = self.make_room(lookup.hash, packet.clock_ns, sink)?;
        // A flow and its successor may start at one clock: after a reset, or when the first was evicted.
        let mut flow_id = scramble(lookup.hash ^ scramble(packet.clock_ns));
        if let Some(salt) = previous.or(evicted) {
            flow_id = scramble(flow_id ^ scramble(salt));
        }
        // 53 bits: what JSON readers that know only doubles keep exactly.
        let entry = FlowEntry::new(lookup.key, lookup.way, packet, flow_id >> 11);
        let position = self.slab.insert(entry).ok_or(TableFull)?;
        self.index.insert(lookup.hash, position);
        self.stats.inserted += 1;
        self.stats.high_water = self.stats.high_water.max(self.slab.live());
        Ok(position)
    }

    /// Makes sure that one flow of this hash fits. If that cost a live flow its place, says how many that makes so far.
    fn make_room(&mut self, hash: u64, clock: u64, sink: &mut impl RecordSink) -> Result<Option<u64>, TableFull> {
        let mut evicted = None;
        if !self.index.has_room(hash) {
            let victim = self.victim_among(self.index.neighbours(hash), clock);
            evicted = self.evict(victim, clock, sink)?;
        }
        if self.slab.is_full() {
            let victim = self.slab.first_disposable().or_else(|| self.victim_at_hand(clock));
            evicted = self.evict(victim, clock, sink)?;
        }
        Ok(evicted)
    }

    fn evict(&mut self, victim: Option<u32>, clock: u64, sink: &mut impl RecordSink) -> Result<Option<u64>, TableFull> {
        let Some(position) = victim else {
            self.stats.table_full += 1;
            return Err(TableFull);
        };
        if self.settle(position, clock, sink) {
            return Ok(None);
        }
        self.end(position, EndReason::Evicted, clock, sink);
        self.stats.evicted += 1;
        Ok(Some(self.stats.evicted))
    }

    /// Clock hand over the slab, for when nothing is disposable.
    fn victim_at_hand(&mut self, clock: u64) -> Option<u32> {
        let (start, len) = (self.hand, self.slab.len());
        self.hand = (start + HAND_STEPS) % len.max(1);
        let steps = (0..HAND_STEPS.min(len)).map(|step| ((start + step) % len) as u32);
        self.victim_among(steps.filter(|position| self.slab.get(*position).live), clock)
    }

    /// The flow that is missed least: disposable before established, then the longest silent. An established flow is
    /// spared if it had a packet within `tcp_opening`: refusing a newcomer, who will try again, does less harm
    /// than forgetting a connection whose replies pass only because of its first packet.
    fn victim_among(&self, positions: impl Iterator<Item = u32>, clock: u64) -> Option<u32> {
        positions
            .filter(|position| {
                let entry = self.slab.get(*position);
                entry.is_disposable() || clock.saturating_sub(entry.last()) > self.times.opening
            })
            .min_by_key(|position| {
                let entry = self.slab.get(*position);
                (clock <= entry.ends_at(&self.times), !entry.is_disposable(), entry.last())
            })
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
