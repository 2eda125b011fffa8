//! Hash → slab position: buckets of one cache line, two candidate buckets per key.
//!
//! ```text
//!   hash ──┬─ low 32 bits, scaled ─► bucket A    ┌ tag (16) × 10 ┬ spilled (16) ┬ position (32) × 10 ┐
//!          ├─ multiplied, scaled ──► bucket B    └ 0 = empty     ┴ keys of A    ┴────────────────────┘
//!          └─ bits 32..48 = tag                                    that are in B
//! ```
//! A key goes to bucket A unless that is crowded; then to the emptier of the two. A lookup compares the ten tags of A
//! at once and is done, found or not, unless keys were spilled from A; most buckets have spilled none. There is
//! nothing to move and no tombstone to leave. At capacity half of the slots are in use; a pair of full buckets then
//! needs an adversary who knows the seed, and the table evicts among their 20 flows.

use super::memory::{Plain, Reserved};
use super::probe::{Head, SLOTS, matches, prefetch};

/// Keys a bucket at capacity.
const LOAD: usize = 5;
/// A bucket with so many keys takes another one only if it is the emptier of two.
const CROWDED: u32 = 8;
/// Where the head of a bucket counts the keys that would be here but are in their second bucket.
const SPILLED: usize = SLOTS;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    head: Head,
    positions: [u32; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

// SAFETY: plain numbers.
unsafe impl Plain for Bucket {}

pub(super) struct Index {
    buckets: Reserved<Bucket>,
}

impl Index {
    /// Room for `capacity` keys.
    pub(super) fn new(capacity: usize) -> Self {
        Self { buckets: Reserved::zeroed(capacity.div_ceil(LOAD).max(2)) }
    }

    pub(super) fn prefault(&self) {
        self.buckets.prefault();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Asks for the cache line where a lookup begins.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.first(hash)]);
    }

    /// The first position with this hash's tag: nearly always the right one.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// The position stored under `hash` for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let bucket = &self.buckets[self.first(hash)];
        let found = bucket.find(tag, &mut is_it);
        if found.is_some() || bucket.head[SPILLED] == 0 {
            return found;
        }
        self.buckets[self.second(hash)].find(tag, &mut is_it)
    }

    /// False when both buckets are full.
    pub(super) fn insert(&mut self, hash: u64, position: u32) -> bool {
        let (first, second) = (self.first(hash), self.second(hash));
        let used = self.buckets[first].used();
        let spill =
            used >= CROWDED && self.buckets[second].used() < used && self.buckets[first].head[SPILLED] < u16::MAX;
        let bucket = &mut self.buckets[if spill { second } else { first }];
        let Some(slot) = bucket.head[..SLOTS].iter().position(|tag| *tag == 0) else { return false };
        bucket.head[slot] = tag(hash);
        bucket.positions[slot] = position;
        self.buckets[first].head[SPILLED] += u16::from(spill);
        true
    }

    pub(super) fn remove(&mut self, hash: u64, position: u32) {
        let (first, second, tag) = (self.first(hash), self.second(hash), tag(hash));
        if !self.buckets[first].remove(tag, position) && self.buckets[second].remove(tag, position) {
            self.buckets[first].head[SPILLED] -= 1;
        }
    }

    /// True when there is room for a key of this hash.
    pub(super) fn has_room(&self, hash: u64) -> bool {
        let used = |bucket: usize| self.buckets[bucket].used() as usize;
        let (first, second) = (self.first(hash), self.second(hash));
        used(first) < SLOTS || used(second) < SLOTS && self.buckets[first].head[SPILLED] < u16::MAX
    }

    /// Positions in the two buckets of a hash.
    pub(super) fn neighbours(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        [self.first(hash), self.second(hash)].into_iter().flat_map(|at| {
            let Bucket { head, positions } = &self.buckets[at];
            head.iter().zip(positions).filter(|(tag, _)| **tag != 0).map(|(_, position)| *position)
        })
    }

    #[inline]
    fn first(&self, hash: u64) -> usize {
        self.scaled(hash as u32)
    }

    /// Never the first one.
    #[inline]
    fn second(&self, hash: u64) -> usize {
        let at = self.scaled((hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32);
        match at == self.first(hash) {
            false => at,
            true if at + 1 < self.buckets.len() => at + 1,
            true => 0,
        }
    }

    #[inline]
    fn scaled(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.buckets.len() as u64) >> 32) as usize
    }
}

impl Bucket {
    #[inline]
    fn find(&self, tag: u16, is_it: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut slots = matches(&self.head, tag);
        while slots != 0 {
            let position = self.positions[slots.trailing_zeros() as usize];
            if is_it(position) {
                return Some(position);
            }
            slots &= slots - 1;
        }
        None
    }

    fn used(&self) -> u32 {
        SLOTS as u32 - matches(&self.head, 0).count_ones()
    }

    fn remove(&mut self, tag: u16, position: u32) -> bool {
        let mut slots = matches(&self.head, tag);
        while slots != 0 {
            let slot = slots.trailing_zeros() as usize;
            if self.positions[slot] == position {
                self.head[slot] = 0;
                return true;
            }
            slots &= slots - 1;
        }
        false
    }
}

/// Never 0.
#[inline]
fn tag(hash: u64) -> u16 {
    ((hash >> 32) as u16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(n: u64) -> u64 {
        let product = u128::from(n ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db_u128;
        let folded = product as u64 ^ (product >> 64) as u64;
        let product = u128::from(folded) * 0x8ebc_6af0_9c88_c6e3_u128;
        product as u64 ^ (product >> 64) as u64
    }

    #[test]
    fn buckets_are_cache_lines_and_never_the_same_twice() {
        for capacity in [1, 2, 7, 8, 9, 1000, 65_536, 1_000_000] {
            let index = Index::new(capacity);
            assert!(index.buckets.len() * LOAD >= capacity, "{capacity}");
            assert_eq!(index.buckets.as_ptr() as usize % 64, 0);
            for n in 0..1000 {
                let hash = mixed(n);
                assert!(index.first(hash) != index.second(hash) && index.second(hash) < index.buckets.len());
            }
        }
    }

    #[test]
    fn same_hash_twenty_times_then_full_and_each_is_found() {
        let mut index = Index::new(1000);
        let hash = 0xdead_beef_0123_4567;
        for position in 0..20 {
            assert!(index.has_room(hash));
            assert!(index.insert(hash, position));
        }
        assert!(!index.has_room(hash));
        assert!(!index.insert(hash, 20));
        for position in 0..20 {
            assert_eq!(index.find(hash, |p| p == position), Some(position));
        }
        for position in [5, 19] {
            index.remove(hash, position);
            assert_eq!(index.find(hash, |p| p == position), None);
        }
        assert_eq!(index.neighbours(hash).count(), 18);
        assert!(index.insert(hash, 20) && index.insert(hash, 21));
        (0..22).for_each(|position| index.remove(hash, position));
        assert_eq!((index.neighbours(hash).count(), index.buckets[index.first(hash)].head[SPILLED]), (0, 0));
    }

    #[test]
    fn filled_to_capacity_no_key_is_refused_and_most_are_in_their_first_bucket() {
        let capacity = 200_000;
        let mut index = Index::new(capacity as usize);
        (0..capacity).for_each(|n| assert!(index.insert(mixed(n.into()), n), "{n}"));
        (0..capacity).for_each(|n| assert_eq!(index.find(mixed(n.into()), |p| p == n), Some(n)));
        let spilled: u32 = index.buckets.iter().map(|bucket| u32::from(bucket.head[SPILLED])).sum();
        assert!(spilled < capacity / 10, "{spilled}");
        // Half of them leave and others come, ten times over.
        for round in 0..10 {
            for n in (0..capacity).step_by(2) {
                index.remove(mixed(u64::from(n) + (round << 32)), n);
                assert!(index.insert(mixed(u64::from(n) + ((round + 1) << 32)), n));
            }
        }
        assert_eq!(index.find(mixed(3), |p| p == 3), Some(3));
        assert_eq!(index.find(mixed(2 + (10 << 32)), |p| p == 2), Some(2));
        assert_eq!(index.find(mixed(2), |p| p == 2), None);
    }
}
