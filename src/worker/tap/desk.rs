//! Where captures are written: records, and those that wait for what the device says.

use super::record::{FLAGS_WORD, TIME_WORD};
use super::ring::Place;
use super::stage::{MAX_SNAP, taps};
use super::{CaptureHead, CaptureLane, MAX_TAPS, Point, TapSet, TapSink};
use crate::dpdk::{BURST, Burst, Mbuf};

/// What taps write on.
#[derive(Debug)]
pub(super) struct Desk {
    /// Records at [`Point::Tx`] that are not published: their packets or answers are on the way to the device.
    pending: Vec<Pending>,
    /// For packets of several segments.
    pub(super) scratch: Box<[u8]>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    tap: u8,
    /// Place in the burst.
    at: u8,
    head: CaptureHead,
    /// `None` when there was no room.
    place: Option<Place>,
}

/// Where a packet's bytes are.
#[derive(Clone, Copy)]
pub(super) enum Bytes<'a> {
    Burst(&'a Burst, usize),
    Packet(&'a Mbuf),
    Plain(&'a [u8]),
}

impl Desk {
    /// With room for everything one burst can bring; without, for a worker that is never tapped.
    pub(super) fn new(used: bool) -> Self {
        // A packet and an answer to it are not both on the way to a device.
        let (pending, scratch) = if used { (MAX_TAPS * BURST, MAX_SNAP) } else { (0, 0) };
        Self { pending: Vec::with_capacity(pending), scratch: vec![0; scratch].into() }
    }

    /// Writes a record of packet `at` for tap `n`; what goes to a device is only pending.
    pub(super) fn capture(&mut self, (n, at): (usize, usize), lane: &CaptureLane, head: CaptureHead, bytes: Bytes<'_>) {
        let Some(counters) = lane.at(head.port, head.point) else { return };
        let untold = counters.lost.get().wrapping_sub(counters.told.get());
        let bytes = bytes.get(lane.snap_len as usize, &mut self.scratch);
        let head = CaptureHead { captured_len: bytes.len() as u32, lost: untold as u32, ..head };
        let place = lane.ring.write(&head.to_words(), bytes);
        if place.is_some() {
            counters.told.add(untold);
        }
        if head.point == Point::Tx {
            self.pending.push(Pending { tap: n as u8, at: at as u8, head, place });
            return;
        }
        counters.matched.add(1);
        counters.lost.add(place.is_none().into());
    }

    /// Completes or voids what was pending, and lets the readers see all of it. `unsent` and `unanswered` are places in
    /// the burst.
    pub(super) fn settle(&mut self, (set, worker): (&TapSet, usize), now: Option<u64>, unsent: u32, unanswered: u32) {
        for Pending { tap, at, head, place } in self.pending.drain(..) {
            let TapSink::Capture(lanes) = &set.taps[usize::from(tap)].sink else { continue };
            let lane = &lanes[worker];
            let gone = if head.generated { unanswered } else { unsent } >> at & 1 != 0;
            match place {
                Some(place) if gone => {
                    lane.ring.change(place, FLAGS_WORD, CaptureHead { void: true, ..head }.flags_word());
                }
                Some(place) => lane.ring.change(place, TIME_WORD, now.unwrap_or(head.ns)),
                None => {}
            }
            if let Some(counters) = lane.at(head.port, head.point).filter(|_| !gone) {
                counters.matched.add(1);
                counters.lost.add(place.is_none().into());
            }
        }
        for (_, tap) in taps(set) {
            if let TapSink::Capture(lanes) = &tap.sink
                && let Some(lane) = lanes.get(worker)
            {
                lane.ring.publish();
            }
        }
    }
}

impl<'a> Bytes<'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Bytes::Burst(burst, i) => burst.packet_len(i) as usize,
            Bytes::Packet(packet) => packet.len(),
            Bytes::Plain(bytes) => bytes.len(),
        }
    }

    /// The first `most` bytes, through `scratch` if they are not in one piece.
    pub(super) fn get<'b>(self, most: usize, scratch: &'b mut [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        let len = self.len().min(most).min(MAX_SNAP);
        let (packet, first): (_, &[u8]) = match self {
            Bytes::Burst(burst, i) => (burst.packet(i), burst.frame(i)),
            Bytes::Packet(packet) => (Some(packet), &[]),
            Bytes::Plain(bytes) => (None, bytes),
        };
        match packet {
            Some(packet) if first.len() < len => {
                let copied = packet.copy_into(&mut scratch[..len]);
                &scratch[..copied]
            }
            _ => &first[..len.min(first.len())],
        }
    }
}
