//! Hash → slab position: buckets of one cache line, two candidate buckets per key.
//!
//! ```text
//!   hash ──┬─ low bits ────────► bucket A  [slot × 8]      slot, 64 bits:
//!          ├─ multiplied, high ► bucket B  [slot × 8]      ┌ tag (32) ┬ position + 1 (32) ┐
//!          └─ high 32 bits = tag                           └ all zero = empty slot        ┘
//! ```
//! A key goes to the emptier of its two buckets, so a lookup reads at most two lines and there is nothing to move
//! and no tombstone to leave. With half of the slots in use a pair of full buckets needs luck or an adversary who
//! knows the seed; the table then evicts among their 16 flows.

/// Slots of a bucket: 8 × 8 bytes are one cache line.
pub(super) const SLOTS: usize = 8;
const LINE: usize = 64;

pub(super) struct Index {
    /// One bucket more than used, so that the first can start on a cache line.
    slots: Vec<u64>,
    first: usize,
    mask: usize,
}

impl Index {
    /// Room for `capacity` keys at half load. The memory is zero pages until used.
    pub(super) fn new(capacity: usize) -> Self {
        let buckets = capacity.div_ceil(SLOTS / 2).next_power_of_two().max(2);
        let slots = vec![0u64; (buckets + 1) * SLOTS];
        let offset = slots.as_ptr().align_offset(LINE);
        Self { first: if offset < SLOTS { offset } else { 0 }, slots, mask: buckets - 1 }
    }

    /// The position stored under `hash` for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        for bucket in self.pair(hash) {
            for &slot in self.bucket(bucket) {
                if slot >> 32 == hash >> 32 && slot as u32 != 0 {
                    let position = slot as u32 - 1;
                    if is_it(position) {
                        return Some(position);
                    }
                }
            }
        }
        None
    }

    /// False when both buckets are full.
    pub(super) fn insert(&mut self, hash: u64, position: u32) -> bool {
        let [a, b] = self.pair(hash);
        let bucket = if self.used(a) <= self.used(b) { a } else { b };
        let slot = (hash >> 32) << 32 | u64::from(position + 1);
        match self.bucket_mut(bucket).iter_mut().find(|s| **s == 0) {
            Some(empty) => {
                *empty = slot;
                true
            }
            None => false,
        }
    }

    pub(super) fn remove(&mut self, hash: u64, position: u32) {
        let slot = (hash >> 32) << 32 | u64::from(position + 1);
        for bucket in self.pair(hash) {
            if let Some(used) = self.bucket_mut(bucket).iter_mut().find(|s| **s == slot) {
                *used = 0;
                return;
            }
        }
    }

    /// True when there is room for a key of this hash.
    pub(super) fn has_room(&self, hash: u64) -> bool {
        self.pair(hash).into_iter().any(|bucket| self.used(bucket) < SLOTS)
    }

    /// Positions in the two buckets of a hash.
    pub(super) fn neighbours(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        self.pair(hash).into_iter().flat_map(|bucket| self.bucket(bucket)).filter(|s| **s != 0).map(|s| *s as u32 - 1)
    }

    /// The two candidate buckets, never the same one.
    #[inline]
    fn pair(&self, hash: u64) -> [usize; 2] {
        let a = hash as usize & self.mask;
        let b = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & self.mask;
        [a, if a == b { a ^ 1 } else { b }]
    }

    fn used(&self, bucket: usize) -> usize {
        self.bucket(bucket).iter().filter(|s| **s != 0).count()
    }

    #[inline]
    fn bucket(&self, bucket: usize) -> &[u64] {
        let at = self.first + bucket * SLOTS;
        &self.slots[at..at + SLOTS]
    }

    fn bucket_mut(&mut self, bucket: usize) -> &mut [u64] {
        let at = self.first + bucket * SLOTS;
        &mut self.slots[at..at + SLOTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_start_on_cache_lines_and_load_is_at_most_half() {
        for capacity in [1, 2, 7, 8, 9, 1000, 65_536, 1_000_000] {
            let index = Index::new(capacity);
            assert!((index.mask + 1) * SLOTS >= 2 * capacity, "{capacity}");
            assert_eq!(index.bucket(0).as_ptr() as usize % LINE, 0);
            assert_eq!(index.bucket(index.mask).len(), SLOTS);
        }
    }

    #[test]
    fn same_hash_sixteen_times_then_full_and_each_is_found() {
        let mut index = Index::new(1000);
        let hash = 0xdead_beef_0123_4567;
        for position in 0..16 {
            assert!(index.has_room(hash));
            assert!(index.insert(hash, position));
        }
        assert!(!index.has_room(hash));
        assert!(!index.insert(hash, 16));
        for position in 0..16 {
            assert_eq!(index.find(hash, |p| p == position), Some(position));
        }
        index.remove(hash, 5);
        assert_eq!(index.find(hash, |p| p == 5), None);
        assert_eq!(index.neighbours(hash).count(), 15);
        assert!(index.insert(hash, 16));
    }

    #[test]
    fn filled_to_capacity_no_key_is_refused() {
        let capacity = 100_000;
        let mut index = Index::new(capacity);
        let hashes: Vec<u64> = (0..capacity as u64)
            .map(|n| crate::packet::FlowKey::of(crate::packet::Tuple { src: n.into(), ..Default::default() }).0.hash(1))
            .collect();
        for (position, hash) in hashes.iter().enumerate() {
            assert!(index.insert(*hash, position as u32));
        }
        for (position, hash) in hashes.iter().enumerate() {
            assert_eq!(index.find(*hash, |p| p == position as u32), Some(position as u32));
        }
    }
}
