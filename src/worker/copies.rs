//! Mirror copies of a packet: selected, cut, wrapped, numbered.
//!
//! A copy shares the packet's bytes. What is put before it is a buffer of its own, chained.

use super::counters::MirrorCounters;
use super::{Generation, MIRROR_SLOTS, MirrorLane};
use crate::capture::{PREAMBLE_LEN, Preamble};
use crate::dpdk::{Mbuf, Mempool};
use crate::mirror::wrap::{Copy, Envelope, MAX_HEADER, Stream};
use crate::mirror::{Delivery, Meter, Sample};
use crate::packet::{FlowKey, Tuple};

/// What a worker needs to make copies for the sessions of a generation.
#[derive(Debug)]
pub(super) struct Copier {
    ways: Vec<Way>,
    /// By counter slot: number of the session's next copy. They go on over generations.
    next: Box<[u32; MIRROR_SLOTS]>,
    seed: u64,
    worker: usize,
    workers: usize,
}

/// One session's.
#[derive(Debug)]
struct Way {
    slot: u16,
    delivery: Delivery,
    envelope: Option<Envelope>,
    meter: Meter,
    /// Packets that one copy stands for.
    sampling: f32,
}

/// Why a copy was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotMade {
    /// No buffer for it, or for its envelope.
    Pool,
    /// It does not fit the MTU.
    Oversize,
    /// The session has sent as much as it may.
    Cap,
}

/// A copy that is going to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    session: usize,
    /// All of the frame that is copied, and what is told of it.
    told: Copy,
    cut: bool,
    /// Length to count.
    pub(super) bytes: u32,
}

/// Where buffers come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffers<'a> {
    pub(super) clones: &'a Mempool,
    pub(super) fronts: &'a Mempool,
}

impl Copier {
    pub(super) fn new(generation: &Generation, seed: u64, worker: usize, workers: usize) -> Self {
        let mut copier = Self { ways: Vec::new(), next: Box::new([0; MIRROR_SLOTS]), seed, worker, workers };
        copier.adopt(generation);
        copier
    }

    /// Goes over to the sessions of a generation.
    pub(super) fn adopt(&mut self, generation: &Generation) {
        self.ways = generation.mirrors.iter().map(|lane| self.way(lane)).collect();
    }

    fn way(&self, lane: &MirrorLane) -> Way {
        let delivery = lane.session.delivery.clone();
        let stream = |id| Stream { id, worker: self.worker as u8 };
        // The configuration was checked: what does not fit is not wrapped.
        let envelope = delivery.wrap.and_then(|w| Envelope::new(w.outer, w.tunnel, stream(w.id)).ok());
        // A session that goes on keeps what it has saved up.
        let same = self.ways.iter().find(|way| way.slot == lane.slot && way.delivery.cap == delivery.cap);
        let meter = same.map_or_else(|| Meter::new(delivery.cap, self.workers), |way| way.meter);
        let sampling = match lane.session.sample {
            Sample::Packets(every) => every.max(1) as f32,
            Sample::Flows(share) => (1.0 / share) as f32,
        };
        Way { slot: lane.slot, delivery, envelope, meter, sampling }
    }

    /// Numbers a copy for a session, and says what it is to be like.
    pub(super) fn plan(&mut self, session: usize, packet: &Mbuf, about: &About) -> Result<Plan, NotMade> {
        let way = &mut self.ways[session];
        let number = &mut self.next[usize::from(way.slot)];
        let sequence = *number;
        // Also of a copy that is then not made: the receiver is to notice.
        *number = sequence.wrapping_add(1);
        let there = packet.len() as u32;
        let len = way.delivery.fit(there, way.envelope.as_ref().map(Envelope::ip_len)).ok_or(NotMade::Oversize)?;
        let front = way.envelope.as_ref().map_or(0, Envelope::len) as u32;
        if !way.meter.admits(front + len, about.copy.clock_ns) {
            return Err(NotMade::Cap);
        }
        let cut = len < there;
        let bytes = if cut || front > 0 { front + len } else { about.count_len };
        let mut told = Copy { len, sequence, sampling: way.sampling, ..about.copy };
        if front > 0 {
            told.flow_hash = FlowKey::of(about.tuple).0.hash(self.seed);
        }
        Ok(Plan { session, told, cut, bytes })
    }

    /// `None` when there is no buffer.
    pub(super) fn make(
        &self,
        plan: &Plan,
        packet: &Mbuf,
        preamble: Option<&Preamble>,
        from: Buffers<'_>,
    ) -> Option<Mbuf> {
        let mut copy = packet.mirror_clone(from.clones)?;
        if plan.cut {
            copy.cut(plan.told.len);
        }
        let Some(envelope) = &self.ways[plan.session].envelope else { return Some(copy) };
        let front = front_of(envelope, &plan.told, preamble, from.fronts)?;
        Mbuf::chained(front, copy).ok()
    }
}

/// What is to be said of a packet's copies.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    /// But for lengths, sequence number, sampling and hash.
    pub(super) copy: Copy,
    pub(super) tuple: Tuple,
    pub(super) count_len: u32,
}

/// A buffer with the envelope, in replay with a preamble of its own hidden before it.
fn front_of(envelope: &Envelope, copy: &Copy, preamble: Option<&Preamble>, pool: &Mempool) -> Option<Mbuf> {
    let mut bytes = [0; PREAMBLE_LEN + MAX_HEADER];
    let (hidden, head) = bytes.split_first_chunk_mut::<PREAMBLE_LEN>()?;
    let len = envelope.write(copy, head.first_chunk_mut()?);
    match preamble {
        None => Mbuf::with_bytes(pool, &bytes[PREAMBLE_LEN..PREAMBLE_LEN + len], 0),
        Some(of_packet) => {
            let whole = len as u32 + copy.len;
            *hidden = Preamble { wire_len: whole, count_len: whole, ..*of_packet }.to_bytes();
            Mbuf::with_bytes(pool, &bytes[..PREAMBLE_LEN + len], PREAMBLE_LEN as u16)
        }
    }
}

impl NotMade {
    /// Counts it for its session.
    pub(super) fn count(self, session: &MirrorCounters) {
        match self {
            NotMade::Pool => session.lost_pool.add(1),
            NotMade::Oversize => session.lost_oversize.add(1),
            NotMade::Cap => session.lost_cap.add(1),
        }
    }
}
