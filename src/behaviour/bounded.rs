//! A map of fixed capacity that forgets what was not used for longest.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations of a hash map. New and touched entries live in the young one; when it has reached
/// half the capacity, the old one is dropped and the young one takes its place. So an entry survives
/// at least until `capacity / 2` other entries were touched, every operation is O(1) amortised, and
/// nothing depends on the hash map's iteration order.
#[derive(Clone, Debug)]
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
    evicted: u64,
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    /// Holds at most `capacity` entries (at least 2).
    pub(crate) fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (capacity / 2).max(1), evicted: 0 }
    }

    /// The entry of `key`, if there is one; counts as use.
    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key)?;
            self.make_room();
            self.young.insert(key.clone(), value);
        }
        self.young.get_mut(key)
    }

    /// The entry of `key`, made by `new` when there is none.
    pub(crate) fn get_or(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.young.contains_key(&key) {
            let old = self.old.remove(&key);
            self.make_room();
            return self.young.entry(key).or_insert_with(|| old.unwrap_or_else(new));
        }
        self.young.entry(key).or_insert_with(new)
    }

    /// Whether there is one; does not count as use.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.young.contains_key(key) || self.old.contains_key(key)
    }

    fn make_room(&mut self) {
        if self.young.len() >= self.half {
            self.evicted += self.old.len() as u64;
            self.old = std::mem::take(&mut self.young);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Entries forgotten so far to stay within the capacity.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn holds_at_most_its_capacity_and_keeps_what_is_used() {
        let mut map = Recent::new(100);
        for i in 0..10_000u32 {
            *map.get_or(i, || 0u32) = i;
            assert!(map.len() <= 100);
            *map.get_or(7_000_000, || 0) += 1;
        }
        assert_eq!(map.get(&7_000_000).copied(), Some(10_000));
        assert_eq!(map.get(&9_999).copied(), Some(9_999));
        assert!(map.get(&1).is_none());
        assert_eq!(map.evicted() + map.len() as u64, 10_001);
    }
}
