//! Brings the packets of all sources into one order of time.
//!
//! Every flow, arrival process and attack is a source that knows when it acts next. A heap holds the
//! sources, not their packets, so memory follows the flows that are open at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use super::stage::Stage;

/// Something that acts at times of its own.
pub(super) trait Source: fmt::Debug {
    /// Acts at `now` and says when it wants to act next, which is not before `now`; `None` when it is done.
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64>;
}

/// Sources acting within one step of progress.
const PROGRESS_EVERY: u64 = 16_384;

/// Runs everything spawned on the stage, and what that spawns, until `end_ns` or an error. `progress` gets
/// the simulated time.
pub(super) fn run(stage: &mut Stage<'_>, mut progress: impl FnMut(u64)) {
    let mut heap: BinaryHeap<Reverse<(u64, u64, usize)>> = BinaryHeap::new();
    let mut slots: Vec<Option<Box<dyn Source>>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    // Sources of the same moment act in the order in which they asked to.
    let mut order = 0;
    loop {
        for (at, source) in stage.spawned.drain(..) {
            let slot = free.pop().unwrap_or_else(|| {
                slots.push(None);
                slots.len() - 1
            });
            slots[slot] = Some(source);
            heap.push(Reverse((at, order, slot)));
            order += 1;
        }
        let Some(Reverse((now, _, slot))) = heap.pop() else { break };
        if now >= stage.end_ns || stage.error.is_some() {
            break;
        }
        let next = slots[slot].as_mut().and_then(|source| source.fire(now, stage));
        order += 1;
        match next {
            Some(at) => heap.push(Reverse((at.max(now), order, slot))),
            None => {
                slots[slot] = None;
                free.push(slot);
            }
        }
        if order % PROGRESS_EVERY == 0 {
            progress(now);
        }
    }
}
