//! Lookup tables from a packet's field to its class: sorted intervals and sorted points.

use std::collections::BTreeMap;

/// A total map from `K` to a value, constant on intervals. `starts[0]` is the least key.
#[derive(Clone, Debug)]
pub(super) struct Intervals<K, V> {
    starts: Box<[K]>,
    values: Box<[V]>,
}

impl<K: Copy + Ord + Default, V: Copy> Intervals<K, V> {
    /// From `(start, value)` in ascending order of start, the first of which must be the least key.
    pub(super) fn new(steps: impl IntoIterator<Item = (K, V)>) -> Self {
        let (starts, values): (Vec<K>, Vec<V>) = steps.into_iter().unzip();
        debug_assert!(starts.first() == Some(&K::default()) && starts.is_sorted());
        Self { starts: starts.into(), values: values.into() }
    }

    pub(super) fn get(&self, key: K) -> V {
        // The first interval starts at the least key, so at least one start is not above `key`.
        self.values[self.starts.partition_point(|start| *start <= key).saturating_sub(1)]
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.values)
    }
}

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

/// An address range, both ends included, and who owns it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Net<O> {
    pub(super) first: u128,
    /// Reversed so that of two prefixes with the same start the wider sorts first.
    pub(super) last: std::cmp::Reverse<u128>,
    pub(super) owner: O,
}

/// Cuts the address space 0..=`max` at the borders of `nets` (CIDR prefixes, hence nested or disjoint) and
/// calls `class` with the sorted owners of each piece. Returns `(start, class)` steps.
///
/// ```text
/// nets    [--------- a ---------]   [ c ]
///              [-- b --]
/// steps  {} a  ab       a        {}  c   {}
/// ```
pub(super) fn sweep<O: Copy + Ord>(
    mut nets: Vec<Net<O>>,
    max: u128,
    mut class: impl FnMut(&[O]) -> u32,
) -> Vec<(u128, u32)> {
    nets.sort_unstable();
    let outside = class(&[]);
    let mut steps = vec![(0, outside)];
    let mut open: Vec<(u128, Vec<O>, u32)> = Vec::new();
    for piece in nets.chunk_by(|a, b| (a.first, a.last) == (b.first, b.last)) {
        let (first, last) = (piece[0].first, piece[0].last.0);
        close(&mut open, &mut steps, outside, |end| end < first);
        let mut owners: Vec<O> = open.last().map_or_else(Vec::new, |(_, owners, _)| owners.clone());
        owners.extend(piece.iter().map(|net| net.owner));
        owners.sort_unstable();
        owners.dedup();
        let here = class(&owners);
        step(&mut steps, first, here);
        open.push((last, owners, here));
    }
    close(&mut open, &mut steps, outside, |end| end < max);
    steps
}

/// Ends the open nets for which `ended` holds, innermost first.
fn close<O>(
    open: &mut Vec<(u128, Vec<O>, u32)>,
    steps: &mut Vec<(u128, u32)>,
    outside: u32,
    ended: impl Fn(u128) -> bool,
) {
    while let Some((end, _, _)) = open.last().filter(|(end, _, _)| ended(*end)) {
        let end = *end;
        open.pop();
        step(steps, end + 1, open.last().map_or(outside, |(_, _, class)| *class));
    }
}

/// From `start` on it is `class`; replaces what was said of the same start before.
fn step(steps: &mut Vec<(u128, u32)>, start: u128, class: u32) {
    if steps.last().is_some_and(|(last, _)| *last == start) {
        steps.pop();
    }
    if steps.last().is_none_or(|(_, last)| *last != class) {
        steps.push((start, class));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;

    fn run(nets: &[(u128, u128, char)], max: u128) -> Vec<String> {
        let nets = nets.iter().map(|(a, b, o)| Net { first: *a, last: Reverse(*b), owner: *o }).collect();
        let mut classes: Vec<String> = Vec::new();
        let steps = sweep(nets, max, |owners| {
            let name: String = owners.iter().collect();
            let at = classes.iter().position(|c| *c == name).unwrap_or_else(|| {
                classes.push(name);
                classes.len() - 1
            });
            at as u32
        });
        steps.iter().map(|(start, class)| format!("{start}{}", classes[*class as usize])).collect()
    }

    #[test]
    fn nested_adjacent_and_equal_nets() {
        assert_eq!(
            run(&[(8, 15, 'a'), (10, 11, 'b'), (24, 24, 'c')], 31),
            ["0", "8a", "10ab", "12a", "16", "24c", "25"]
        );
        assert_eq!(run(&[(0, 31, 'a'), (0, 15, 'b'), (16, 31, 'c')], 31), ["0ab", "16ac"]);
        assert_eq!(run(&[(8, 15, 'a'), (8, 15, 'b'), (12, 15, 'a')], 31), ["0", "8ab", "16"]);
        assert_eq!(run(&[(30, 31, 'a'), (31, 31, 'b')], 31), ["0", "30a", "31ab"]);
        assert_eq!(run(&[], 31), ["0"]);
    }

    #[test]
    fn the_whole_address_space_does_not_overflow() {
        assert_eq!(run(&[(0, u128::MAX, 'a'), (u128::MAX, u128::MAX, 'b')], u128::MAX)[0], "0a");
    }

    #[test]
    fn lookups_at_borders() {
        let table = Intervals::new([(0u16, 'x'), (10, 'y'), (65535, 'z')]);
        assert_eq!([0, 9, 10, 65534, 65535].map(|k| table.get(k)), ['x', 'x', 'y', 'y', 'z']);
        let points = Points::new(BTreeMap::from([(3u32, 'a'), (9, 'b')]), '-');
        assert_eq!([0, 3, 4, 9, 10].map(|k| points.get(k)), ['-', 'a', '-', 'b', '-']);
    }
}
