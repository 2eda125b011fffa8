//! Lookup tables from a packet's field to what it says.

use std::collections::BTreeMap;

/// A map from single keys to values, everything else to one value.
#[derive(Clone, Debug)]
pub(super) struct Points<K, V> {
    keys: Box<[K]>,
    values: Box<[V]>,
    other: V,
}

impl<K: Copy + Ord, V: Copy> Points<K, V> {
    pub(super) fn new(points: BTreeMap<K, V>, other: V) -> Self {
        let (keys, values): (Vec<K>, Vec<V>) = points.into_iter().unzip();
        Self { keys: keys.into(), values: values.into(), other }
    }

    pub(super) fn get(&self, key: K) -> V {
        self.keys.binary_search(&key).map_or(self.other, |at| self.values[at])
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.keys) + size_of_val(&*self.values)
    }
}
