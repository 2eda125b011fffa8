//! IPv6 addresses → numbers, longest prefix first, by the few bits in which the prefixes differ.
//!
//! Where all prefixes together differ in few bits, these bits are gathered into one number, which is looked up as an
//! IPv4 address would be; that the other bits are those of all prefixes is one comparison ([`Few`]). Else the bits of
//! some prefixes are looked at, then those of others ([`Many`]).

use super::few6::Few;
use super::many6::Many;
use super::{BuildError, Entry, MAX_VALUE, Prefix, kernel6};
use crate::trie::{BATCH, Isa};

/// Immutable; see the module.
#[derive(Debug)]
pub struct Table6 {
    search: Search,
    isa: Isa,
}

#[derive(Debug)]
enum Search {
    Few(Few),
    Many(Many),
}

/// A prefix with its bits from its length on zero, that length, the value.
pub(super) type Net = (u128, u8, u32);

impl Table6 {
    /// An address gets the value of the longest prefix that holds it, of equal prefixes the last one's; 0 when there
    /// is none.
    ///
    /// # Errors
    /// A value above [`MAX_VALUE`], or more than 4 GB.
    pub fn build(entries: &[Entry<u128>]) -> Result<Self, BuildError> {
        let nets = nets(entries)?;
        let search = match Few::build(&nets) {
            Some(few) => Search::Few(few),
            None => Search::Many(Many::build(&nets).ok_or(BuildError::Memory)?),
        };
        Ok(Self { search, isa: Isa::best() })
    }

    pub fn get(&self, address: u128) -> u32 {
        let (mut addresses, mut values) = ([0; BATCH], [0; BATCH]);
        addresses[0] = address;
        self.get_burst(&addresses, 1, &mut values);
        values[0]
    }

    /// The values of the first `len` addresses. What is in the rest of `values` afterwards is of no meaning.
    pub fn get_burst(&self, addresses: &[u128; BATCH], len: usize, values: &mut [u32; BATCH]) {
        match &self.search {
            Search::Few(few) => kernel6::few(few, self.isa, addresses, len.min(BATCH), values),
            Search::Many(many) => kernel6::many(many, self.isa, addresses, len.min(BATCH), values),
        }
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        match &self.search {
            Search::Few(few) => few.memory_bytes(),
            Search::Many(many) => many.memory_bytes(),
        }
    }

    #[cfg(test)]
    fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    #[cfg(test)]
    fn many(entries: &[Entry<u128>]) -> Self {
        let many = Many::build(&nets(entries).unwrap()).unwrap();
        Self { search: Search::Many(many), isa: Isa::best() }
    }
}

/// Distinct, ascending, outer before inner.
fn nets(entries: &[Entry<u128>]) -> Result<Vec<Net>, BuildError> {
    let greatest = entries.iter().map(|entry| entry.value).max().unwrap_or(0);
    if greatest > MAX_VALUE {
        return Err(BuildError::Value(greatest));
    }
    let mut nets: Vec<Net> = entries.iter().map(|e| (e.prefix.first(e.len), e.len.min(128), e.value)).collect();
    nets.sort_by_key(|(prefix, len, _)| (*prefix, *len));
    nets.dedup_by(|next, kept| {
        let same = (next.0, next.1) == (kept.0, kept.1);
        kept.2 = if same { next.2 } else { kept.2 };
        same
    });
    Ok(nets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few distinct bits, so that prefixes nest, touch and repeat.
    fn prefix() -> impl Strategy<Value = Entry<u128>> {
        let few = (0u128..4, 0u128..4, 0u128..300, 0u128..5);
        let few = few.prop_map(|(a, b, c, d)| a << 126 | b << 90 | c << 60 | d);
        let sites = (0u128..9, 0u128..3, 0u128..70).prop_map(|(a, b, c)| 0x2001_0db8 << 96 | a << 80 | b << 64 | c);
        let bits = prop_oneof![1 => any::<u128>(), 4 => few, 4 => sites];
        let len = prop_oneof![0u8..=128, Just(128u8), Just(64), Just(48)];
        (bits, len, 0u32..6).prop_map(|(prefix, len, value)| Entry { prefix, len, value })
    }

    fn holds(entry: &Entry<u128>, address: u128) -> bool {
        (entry.prefix ^ address).first(entry.len) == 0
    }

    fn naive(entries: &[Entry<u128>], address: u128) -> u32 {
        let held = entries.iter().filter(|entry| holds(entry, address));
        held.max_by_key(|entry| entry.len).map_or(0, |entry| entry.value)
    }

    fn probes(entries: &[Entry<u128>]) -> Vec<u128> {
        let ends = entries
            .iter()
            .map(|entry| (entry.prefix.first(entry.len), entry.prefix | !u128::MAX.first(entry.len)))
            .chain([(0, u128::MAX)]);
        ends.flat_map(|(a, b)| [a.wrapping_sub(1), a, a / 2 + b / 2, b, b.wrapping_add(1)]).collect()
    }

    fn bursts(table: &Table6, addresses: &[u128]) -> Vec<u32> {
        let mut found = Vec::new();
        for chunk in addresses.chunks(BATCH) {
            let (mut burst, mut values) = ([0; BATCH], [u32::MAX; BATCH]);
            burst[..chunk.len()].copy_from_slice(chunk);
            table.get_burst(&burst, chunk.len(), &mut values);
            found.extend_from_slice(&values[..chunk.len()]);
        }
        found
    }

    proptest! {
        #[test]
        fn the_longest_prefix_counts(
            entries in proptest::collection::vec(prefix(), 0..60), more in any::<[u128; 7]>(),
        ) {
            let addresses = [probes(&entries), more.to_vec()].concat();
            let wanted: Vec<u32> = addresses.iter().map(|address| naive(&entries, *address)).collect();
            for isa in Isa::available() {
                for table in [Table6::build(&entries).unwrap(), Table6::many(&entries)] {
                    let table = table.with_isa(isa);
                    prop_assert_eq!(&bursts(&table, &addresses), &wanted);
                    let singly: Vec<u32> = addresses.iter().map(|address| table.get(*address)).collect();
                    prop_assert_eq!(&singly, &wanted);
                }
            }
        }
    }

    #[test]
    fn memory_follows_the_number_of_prefixes() {
        let hosts: Vec<_> = (0..10_000u128)
            .map(|at| Entry {
                prefix: 0x2001_0db8 << 96 | at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1,
                len: 128,
                value: 1,
            })
            .collect();
        assert!(Table6::build(&hosts).unwrap().memory_bytes() < 96 * hosts.len());
    }

    #[test]
    fn values_have_a_limit() {
        let entry = Entry { prefix: 0, len: 0, value: MAX_VALUE + 1 };
        assert_eq!(Table6::build(&[entry]).unwrap_err(), BuildError::Value(MAX_VALUE + 1));
    }
}
