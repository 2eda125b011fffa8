//! Bursts through a [`Table6`](super::Table6): portable, and with the instructions for single bits that come with AVX2.

use super::few6::Few;
use super::many6::{CHILD, Leaf, Many, Node};
use crate::trie::direct::ALL_STEPS;
use crate::trie::{BATCH, Isa};

/// Looks up the first `len` addresses, at most [`BATCH`].
pub(super) fn few(table: &Few, isa: Isa, addresses: &[u128; BATCH], len: usize, values: &mut [u32; BATCH]) {
    match isa {
        Isa::Portable => search_few(table, addresses, len, values, pick),
        // SAFETY: a table is only given instructions that the processor has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => unsafe { x86::few(table, addresses, len, values) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => search_few(table, addresses, len, values, pick),
    }
}

/// As [`few`].
pub(super) fn many(table: &Many, isa: Isa, addresses: &[u128; BATCH], len: usize, values: &mut [u32; BATCH]) {
    match isa {
        Isa::Portable => search_many(table, addresses, len, values, pick),
        // SAFETY: a table is only given instructions that the processor has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => unsafe { x86::many(table, addresses, len, values) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => search_many(table, addresses, len, values, pick),
    }
}

/// High and low.
pub(super) fn halves(address: u128) -> (u64, u64) {
    ((address >> 64) as u64, address as u64)
}

/// The bits of `value` that `mask` has, together at the low end.
pub(super) fn pick(value: u64, mut mask: u64) -> u64 {
    let (mut picked, mut len) = (0, 0);
    while mask != 0 {
        let (from, run) = (mask.trailing_zeros(), (mask >> mask.trailing_zeros()).trailing_ones());
        let ones = u64::MAX >> (64 - run);
        picked |= (value >> from & ones) << len;
        len += run;
        mask &= !(ones << from);
    }
    picked
}

/// Each address by itself: there is nothing to wait for between one and the next.
#[inline(always)]
fn search_few(
    table: &Few,
    addresses: &[u128; BATCH],
    len: usize,
    values: &mut [u32; BATCH],
    pick: impl Fn(u64, u64) -> u64 + Copy,
) {
    match table.table.steps() {
        1 => search_few_in::<1>(table, addresses, len, values, pick),
        _ => search_few_in::<ALL_STEPS>(table, addresses, len, values, pick),
    }
}

#[inline(always)]
fn search_few_in<const STEPS: u32>(
    table: &Few,
    addresses: &[u128; BATCH],
    len: usize,
    values: &mut [u32; BATCH],
    pick: impl Fn(u64, u64) -> u64 + Copy,
) {
    let number = |(high, low): (u64, u64)| {
        let high = pick(high, table.differing.0) << (table.places.0 & 63);
        let low = pick(low, table.differing.1) << (table.places.1 & 63);
        // SAFETY: the build has seen that the table is sound.
        unsafe { table.table.number::<STEPS>((high | low) as u32) }
    };
    let mut beside = 0u32;
    for at in 0..len.min(BATCH) {
        let (high, low) = halves(addresses[at]);
        // SAFETY: all numbers have a value.
        values[at] = unsafe { *table.values.get_unchecked(number((high, low)) as usize) };
        let other = (high ^ table.wanted.0) & table.common.0 | (low ^ table.wanted.1) & table.common.1;
        beside |= u32::from(other != 0) << at;
    }
    while beside != 0 {
        let at = beside.trailing_zeros() as usize % BATCH;
        values[at] = table.beside(number(halves(addresses[at])), addresses[at]);
        beside &= beside - 1;
    }
}

/// All addresses take a step before any takes the next, so that their loads overlap.
#[inline(always)]
fn search_many(
    table: &Many,
    addresses: &[u128; BATCH],
    len: usize,
    values: &mut [u32; BATCH],
    pick: impl Fn(u64, u64) -> u64 + Copy,
) {
    let len = len.min(BATCH);
    // A branch that is not foreseen costs more than a step, hence none is made on single addresses.
    let (mut walking, mut count) = ([0u8; BATCH], 0);
    let root = table.nodes[0];
    for at in 0..len {
        let entry = step(table, &root, addresses[at], pick);
        values[at] = entry;
        walking[count % BATCH] = at as u8;
        count += (entry >> 31) as usize;
    }
    while count > 0 {
        let mut left = 0;
        for turn in 0..count {
            let at = usize::from(walking[turn % BATCH]) % BATCH;
            // SAFETY: slots that are no leaf have the number of a node.
            let node = unsafe { table.nodes.get_unchecked((values[at] & !CHILD) as usize) };
            let entry = step(table, node, addresses[at], pick);
            values[at] = entry;
            walking[left % BATCH] = at as u8;
            left += (entry >> 31) as usize;
        }
        count = left;
    }
    let mut more = 0;
    for (value, address) in values.iter_mut().zip(addresses).take(len) {
        // SAFETY: slots that are no node have the number of a leaf.
        *value = unsafe { table.leaves.get_unchecked(*value as usize) }.value(*address);
        more |= *value;
    }
    if more & CHILD != 0 {
        outside(table, &addresses[..len], values);
    }
}

/// What an address finds in a node.
#[inline(always)]
fn step(table: &Many, node: &Node, address: u128, pick: impl Fn(u64, u64) -> u64) -> u32 {
    let (high, low) = halves(address);
    let slot = pick(high, node.high) << (node.low_bits & 63) | pick(low, node.low);
    // SAFETY: a node has a slot for each value of its bits.
    let entry = unsafe { *table.slots.get_unchecked(node.first_slot as usize + slot as usize) };
    // One of the two comes next; the other is nothing, or of no use.
    prefetch(table.nodes.as_ptr().wrapping_add((entry & !CHILD) as usize));
    prefetch(table.leaves.as_ptr().wrapping_add(entry as usize));
    entry
}

#[inline(always)]
fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Goes on for those that lie outside of all prefixes that their leaf tells apart.
#[cold]
fn outside(table: &Many, addresses: &[u128], values: &mut [u32; BATCH]) {
    for (value, address) in values.iter_mut().zip(addresses) {
        while *value & CHILD != 0 {
            *value = table.leaves[(*value & !CHILD) as usize].value(*address);
        }
    }
}

impl Leaf {
    /// Counts the prefixes that hold the address: those that end within the bits that it shares with the leaf.
    #[inline(always)]
    fn value(&self, address: u128) -> u32 {
        const EACH: u64 = 0x0101_0101_0101_0101;
        let (high, low) = halves(address);
        let (high, low) = (high ^ self.high, low ^ self.low);
        let (of_high, of_low) = (high.leading_zeros(), 64 + low.leading_zeros());
        let shared = if high == 0 { of_low } else { of_high };
        // The top bit of each byte stays where the end is below `shared`: ends are at most 127, so no byte borrows.
        let holding = (u64::from(127 + shared) * EACH).wrapping_sub(self.ends) & (0x80 * EACH);
        // SAFETY: there are as many values as bytes, and one more.
        unsafe { *self.values.get_unchecked(holding.count_ones() as usize) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::_pext_u64;

    use super::*;

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub(super) fn few(table: &Few, addresses: &[u128; BATCH], len: usize, values: &mut [u32; BATCH]) {
        search_few(table, addresses, len, values, |value, mask| _pext_u64(value, mask));
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub(super) fn many(table: &Many, addresses: &[u128; BATCH], len: usize, values: &mut [u32; BATCH]) {
        search_many(table, addresses, len, values, |value, mask| _pext_u64(value, mask));
    }
}
