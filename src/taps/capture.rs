//! One capture: takes the workers' records, in order of time, and makes the stream for the client of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::host::TapHost;
use super::wire::{self, Item};
use crate::rules::RuleHandle;
use crate::worker::tap::{CaptureHead, CaptureLane, Point, Points};

/// Records later than the newest one by less than this may still be overtaken by those of other workers.
const SETTLED_NS: u64 = 1_000_000;
/// Bytes of records taken at once, so that a stream begins to flow.
const BATCH: usize = 4 << 20;
/// How long workers may take to let go of a capture.
const LET_GO_WITHIN: Duration = Duration::from_secs(2);

/// A capture that goes on; it ends when this is dropped.
#[derive(Debug)]
pub struct CaptureTap {
    host: Arc<TapHost>,
    id: u64,
    lanes: Vec<Arc<CaptureLane>>,
    points: Points,
    pub snap_len: u32,
    removed: Option<u32>,
    batch: Batch,
    /// Names that the client was told: rules; sessions by generation and bit.
    rules_told: HashSet<RuleHandle>,
    mirrors_told: HashSet<(u32, u8)>,
}

/// Records taken from the rings and not handed on.
#[derive(Debug, Default)]
struct Batch {
    heads: Vec<Kept>,
    bytes: Vec<u8>,
    scratch: Vec<u8>,
    newest: u64,
    /// Losses told by records that were void, by port and point.
    lost: BTreeMap<(u16, Point), u32>,
}

#[derive(Debug)]
struct Kept {
    head: CaptureHead,
    at: usize,
}

/// What came by at one point of one port, as the end of a capture tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    pub port: String,
    pub point: String,
    /// Packets that came by; those that the expression chose; of these, those that found no room.
    pub seen: u64,
    pub matched: u64,
    pub lost: u64,
}

impl CaptureTap {
    pub(super) fn new(
        host: Arc<TapHost>,
        id: u64,
        lanes: Vec<Arc<CaptureLane>>,
        points: Points,
        snap_len: u32,
    ) -> Self {
        Self {
            host,
            id,
            lanes,
            points,
            snap_len,
            removed: None,
            batch: Batch::default(),
            rules_told: HashSet::new(),
            mirrors_told: HashSet::new(),
        }
    }

    /// Adds to `to` what the workers have by now, at most `most` packets; returns how many. `all`: also what is so new
    /// that an older one could still come.
    pub fn take(&mut self, to: &mut Vec<u8>, most: usize, all: bool) -> usize {
        let found = self.fill();
        let ready = if all || found == 0 {
            self.batch.heads.len()
        } else {
            let settled = self.batch.newest.saturating_sub(SETTLED_NS);
            self.batch.heads.partition_point(|kept| kept.head.ns <= settled)
        };
        let ready = ready.min(most);
        for n in 0..ready {
            let Kept { head, at } = self.batch.heads[n];
            self.name(&head, to);
            let bytes = &self.batch.bytes[at..at + head.captured_len as usize];
            wire::put(&Item::Packet(head, bytes), to);
        }
        self.batch.forget(ready);
        ready
    }

    /// Nothing new is captured from now on; what is in the rings can still be taken.
    pub fn stop(&mut self) {
        let number = *self.removed.get_or_insert_with(|| self.host.remove(self.id));
        let until = Instant::now() + LET_GO_WITHIN;
        while !self.host.is_adopted(number) && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Counters so far; exact after [`CaptureTap::stop`].
    pub fn totals(&self) -> Vec<Drained> {
        let mut totals = Vec::new();
        for (port, name) in self.host.ports.iter().enumerate() {
            for point in self.points.iter() {
                let sum = |of: &dyn Fn(&crate::worker::tap::PointCounters) -> u64| -> u64 {
                    self.lanes.iter().filter_map(|lane| lane.at(port as u16, point)).map(of).sum()
                };
                totals.push(Drained {
                    port: name.clone(),
                    point: point.name().into(),
                    seen: sum(&|counters| counters.seen.get()),
                    matched: sum(&|counters| counters.matched.get()),
                    lost: sum(&|counters| counters.lost.get()),
                });
            }
        }
        totals
    }

    /// Points of the capture.
    pub fn points(&self) -> impl Iterator<Item = Point> {
        self.points.iter()
    }

    /// Takes records from all rings; returns how many.
    fn fill(&mut self) -> usize {
        let before = self.batch.heads.len();
        for lane in &self.lanes {
            while self.batch.bytes.len() < BATCH && self.batch.read(lane) {}
        }
        let found = self.batch.heads.len() - before;
        if found > 0 {
            // Stable: records of one packet at one time stay in the order of the points.
            self.batch.heads.sort_by_key(|kept| kept.head.ns);
        }
        found
    }

    /// Tells the names behind the numbers of a record, once each.
    fn name(&mut self, head: &CaptureHead, to: &mut Vec<u8>) {
        let Some(judged) = head.judged else { return };
        if self.rules_told.insert(judged.rule) {
            wire::put(&Item::Rule(judged.rule.0, &self.host.names.rule(judged.rule)), to);
        }
        for bit in (0..64u8).filter(|bit| head.mirrors >> bit & 1 != 0) {
            if self.mirrors_told.insert((judged.generation, bit)) {
                let name = self.host.names.mirror(judged.generation, bit.into());
                wire::put(&Item::Mirror { generation: judged.generation, bit, name: &name }, to);
            }
        }
    }
}

impl Drop for CaptureTap {
    fn drop(&mut self) {
        if self.removed.is_none() {
            self.host.remove(self.id);
        }
    }
}

impl Batch {
    fn read(&mut self, lane: &CaptureLane) -> bool {
        let Some(words) = lane.ring.read(&mut self.scratch, |words| words[1] as u32 as usize) else { return false };
        let Some(mut head) = CaptureHead::from_words(&words) else { return true };
        if head.void {
            if head.lost > 0 {
                *self.lost.entry((head.port, head.point)).or_default() += head.lost;
            }
            return true;
        }
        head.lost += self.lost.remove(&(head.port, head.point)).unwrap_or_default();
        self.newest = self.newest.max(head.ns);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&self.scratch);
        self.heads.push(Kept { head, at });
        true
    }

    /// The first `n` records were handed on.
    fn forget(&mut self, n: usize) {
        self.heads.drain(..n);
        if self.heads.is_empty() {
            self.bytes.clear();
        } else if self.bytes.len() >= BATCH / 2 {
            // What is left moves together, in order.
            let mut bytes = Vec::new();
            for kept in &mut self.heads {
                let at = bytes.len();
                bytes.extend_from_slice(&self.bytes[kept.at..kept.at + kept.head.captured_len as usize]);
                kept.at = at;
            }
            self.bytes = bytes;
        }
    }
}
