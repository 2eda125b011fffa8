//! [`Table6`](super::Table6) for prefixes that differ in few bits.
//!
//! ```text
//!  address ──┬─► the bits in which prefixes differ, gathered ──► table ──► longest prefix ──► value
//!            └─► the bits that all prefixes have in common: as they should be?
//! ```
//! Addresses that have other common bits lie in fewer prefixes: in those, of the one found and the ones around it, that
//! end before the first of these bits.

use super::Prefix;
use super::kernel6::{halves, pick};
use super::v6::Net;
use crate::trie::direct::{Direct, Stretch};

/// Bytes that the table may take, at least and for each prefix.
const ROOM: usize = 2 << 20;
const ROOM_EACH: usize = 64;

/// Immutable; see the module.
#[derive(Debug)]
pub(super) struct Few {
    /// Bits in which prefixes differ; high half, low half.
    pub(super) differing: (u64, u64),
    /// Where those of the two halves go in 32 bits.
    pub(super) places: (u32, u32),
    /// Bits in which all prefixes are alike that go so far, and what they are.
    pub(super) common: (u64, u64),
    pub(super) wanted: (u64, u64),
    pub(super) table: Direct,
    /// By number of a prefix, 0 for none: the value.
    pub(super) values: Box<[u32]>,
    /// By number of a prefix: how long it is and the number of the one around it.
    pub(super) around: Box<[(u32, u32)]>,
}

impl Few {
    /// For prefixes that are distinct, ascending, outer before inner. `None` when they differ in too many bits.
    pub(super) fn build(nets: &[Net]) -> Option<Self> {
        let asked = |len: u8| u128::MAX.first(len);
        let ones = nets.iter().fold(0, |ones, (prefix, ..)| ones | prefix);
        let zeros = nets.iter().fold(0, |zeros, (prefix, len, _)| zeros | (!prefix & asked(*len)));
        let (differing, common) = (ones & zeros, ones ^ zeros);
        let bits = differing.count_ones();
        let free = u32::BITS.checked_sub(bits)?;
        let (high, low) = halves(differing);
        let places = (free + low.count_ones(), free);
        let gathered = |address: u128| {
            let (address_high, address_low) = halves(address);
            (pick(address_high, high) << places.0 | pick(address_low, low) << places.1) as u32
        };
        let stretch = |(number, (prefix, len, _)): (u32, &Net)| {
            let len = (differing & asked(*len)).count_ones() as u8;
            Stretch { value: gathered(*prefix), len, number }
        };
        let mut stretches: Vec<Stretch> = (1..).zip(nets).map(stretch).collect();
        // Prefixes that differ from each other in common bits only: the last is the longest.
        stretches.sort_unstable();
        stretches.dedup_by(|next, kept| {
            let alike = (next.value, next.len) == (kept.value, kept.len);
            kept.number = if alike { next.number } else { kept.number };
            alike
        });
        let table = Direct::new(&stretches, nets.len() as u32 + 1, ROOM + nets.len() * ROOM_EACH)?;
        // Searches rely on it.
        table.is_sound().then(|| Self {
            differing: (high, low),
            places,
            common: halves(common),
            wanted: halves(ones & common),
            table,
            values: std::iter::once(0).chain(nets.iter().map(|(.., value)| *value)).collect(),
            around: around(nets),
        })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.table.memory_bytes() + size_of_val(&*self.values) + size_of_val(&*self.around)
    }

    /// The value of an address with common bits of its own, of which it was found to lie in the prefix of this number.
    pub(super) fn beside(&self, mut number: u32, address: u128) -> u32 {
        let (high, low) = halves(address);
        let other = |bits: u64, wanted: u64, common: u64| (bits ^ wanted) & common;
        let high = other(high, self.wanted.0, self.common.0);
        let low = other(low, self.wanted.1, self.common.1);
        let alike = if high == 0 { 64 + low.leading_zeros() } else { high.leading_zeros() };
        loop {
            let (len, around) = self.around[number as usize];
            if len <= alike {
                return self.values[number as usize];
            }
            number = around;
        }
    }
}

/// By number: the length of the prefix, and the number of the one around it.
fn around(nets: &[Net]) -> Box<[(u32, u32)]> {
    let mut around = vec![(0, 0)];
    let mut open: Vec<(Net, u32)> = Vec::new();
    for (number, net) in (1..).zip(nets) {
        while open.pop_if(|((prefix, len, _), _)| net.0.first(*len) != *prefix).is_some() {}
        around.push((u32::from(net.1), open.last().map_or(0, |(_, number)| *number)));
        open.push((*net, number));
    }
    around.into()
}
