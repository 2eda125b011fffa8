//! When something may next happen to one of eight neighbouring flows, so that a sweep passes over all that are not due.
//!
//! ```text
//!   bounds   │ 32 bits │ 32 bits │ 32 bits │ ...     sixteen to a cache line
//!            ╱         │
//!   slab  │ eight entries of 128 bytes │ eight ...
//! ```
//! A bound is the time of the next time-out or slice in its block, or an earlier one. Packets only postpone these, but
//! for the first one of a flow and those that change its state: the bound is then lowered. It is found anew when it has
//! come and the block was looked at. What ends before leaves its bound as it is.

use super::memory::Reserved;

/// Places to a bound.
pub(super) const BLOCK: usize = 8;
/// Bounds compared together.
const CHUNK: usize = 16;
/// A tick is about a millisecond: 32 bits of it are twice as far as any two times of a table are from each other.
const TICK_SHIFT: u32 = 20;

pub(super) struct Due {
    /// Ticks since the Unix epoch, low bits, rounded down.
    bounds: Reserved<u32>,
    /// Blocks that ever had a flow.
    used: usize,
}

impl Due {
    pub(super) fn new(capacity: usize) -> Self {
        Self { bounds: Reserved::zeroed(capacity.div_ceil(BLOCK)), used: 0 }
    }

    pub(super) fn prefault(&self) {
        self.bounds.prefault();
    }

    /// Blocks that ever had a flow.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.bounds)
    }

    /// Something may happen to the flow in this place at a time, not before. Places are first used in order.
    #[inline]
    pub(super) fn lower(&mut self, position: u32, at: u64) {
        let (block, tick) = (position as usize / BLOCK, tick(at));
        if block >= self.used || is_before(tick, self.bounds[block]) {
            self.bounds[block] = tick;
            self.used = self.used.max(block + 1);
        }
    }

    /// Nothing happens in the block before this.
    pub(super) fn set(&mut self, block: usize, at: u64) {
        self.bounds[block] = tick(at);
    }

    /// Every block is to be looked at from then on.
    pub(super) fn set_all(&mut self, at: u64) {
        self.bounds[..self.used].fill(tick(at));
    }

    /// The first block from `from` on in which something may have happened by `now`; `until` if there is none before.
    ///
    /// PERF: whether any bound of a chunk has come is told by the sign of all differences together, which takes four
    /// vector instructions for each four bounds and no branch.
    #[inline]
    pub(super) fn next(&self, from: usize, until: usize, now: u64) -> usize {
        let later = tick(now).wrapping_add(1);
        let mut at = from;
        for chunk in self.bounds[from..until].chunks(CHUNK) {
            if chunk.iter().fold(0, |signs, bound| signs | bound.wrapping_sub(later)) >> 31 != 0 {
                return at + chunk.iter().position(|bound| is_before(*bound, later)).unwrap_or(chunk.len());
            }
            at += chunk.len();
        }
        until
    }

    /// The start of the tick that the bound of a place is, given a time that is not far from it.
    #[cfg(test)]
    pub(super) fn bound(&self, position: u32, near: u64) -> i128 {
        let ticks = self.bounds[position as usize / BLOCK].wrapping_sub(tick(near)) as i32;
        (i128::from(near >> TICK_SHIFT) + i128::from(ticks)) << TICK_SHIFT
    }
}

fn tick(at: u64) -> u32 {
    (at >> TICK_SHIFT) as u32
}

/// Of two ticks that are less than half of all ticks apart.
fn is_before(one: u32, other: u32) -> bool {
    one.wrapping_sub(other) >> 31 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 1 << TICK_SHIFT;

    #[test]
    fn next_is_the_first_that_has_come_wherever_it_is() {
        // Across the end of what 32 bits hold.
        let now = (u64::from(u32::MAX) - 3) * TICK + 17;
        for blocks in [1, 15, 16, 17, 40, 100] {
            for due in 0..blocks {
                let mut bounds = Due::new(blocks * BLOCK);
                for block in 0..blocks {
                    bounds.lower((block * BLOCK) as u32, now + TICK * (1 + block as u64));
                }
                assert_eq!((bounds.len(), bounds.next(0, blocks, now)), (blocks, blocks), "nothing has come");
                bounds.lower((due * BLOCK + 3) as u32, now - now % TICK + TICK - 1);
                bounds.lower((due * BLOCK + 5) as u32, now + 5 * TICK);
                for from in 0..blocks {
                    assert_eq!(bounds.next(from, blocks, now), if from <= due { due } else { blocks });
                }
                assert_eq!(bounds.next(0, due, now), due, "not beyond the end");
                bounds.set(due, now + TICK);
                assert_eq!(bounds.next(0, blocks, now), blocks);
            }
        }
    }

    #[test]
    fn a_block_used_for_the_first_time_has_no_bound_yet() {
        for now in [1, 1 << 51, 3 << 51, u64::MAX >> 1] {
            let mut bounds = Due::new(2 * BLOCK);
            bounds.lower(0, now + 9 * TICK);
            assert_eq!((bounds.next(0, 1, now), bounds.next(0, 1, now + 9 * TICK)), (1, 0));
        }
    }
}
