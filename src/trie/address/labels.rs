//! 32-bit labels for IPv6 addresses, so that rows can ask for prefixes of labels instead of 128-bit prefixes.
//!
//! Only the prefixes that rows ask for count. Addresses in the same of them share a label; a prefix inside another has
//! a label prefix inside the other's (`nest`), and labels follow the order of addresses where that costs nothing.

use super::nest::{Block, nest};
use super::{Entry, Prefix};

/// What prefixes and addresses become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// For each prefix, in the order given: the label prefix that holds the labels of its addresses and no others.
    pub prefixes: Vec<Block>,
    /// The labels of addresses, longest prefix first. Others have label 0, which lies in no label prefix but that of
    /// ::/0.
    pub entries: Vec<Entry<u128>>,
}

/// The prefixes lie inside each other in such a way that 32 bits cannot tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{count} IPv6 prefixes in rules are nested too deeply to be given 32-bit labels (each level of nesting takes the \
     number of bits that count its prefixes, at least one); use fewer levels"
)]
pub struct TooDeep {
    pub count: usize,
}

/// Labels for the prefixes of rows, given as first address and length.
///
/// # Errors
/// See [`TooDeep`].
pub fn label_prefixes(prefixes: &[(u128, u8)]) -> Result<Labels, TooDeep> {
    let mut sorted: Vec<_> = prefixes.iter().enumerate().map(|(at, prefix)| (range(*prefix), at)).collect();
    sorted.sort_unstable_by_key(|((first, last), at)| (*first, !last, *at));
    // Node 0 is ::/0, whether or not it is asked for.
    let mut parents = vec![0];
    let mut ranges = vec![(0, u128::MAX)];
    let mut node_of = vec![0; prefixes.len()];
    let mut node = 0;
    for (range, at) in sorted {
        if range != ranges[node] {
            let mut around = node;
            while ranges[around].1 < range.0 {
                around = parents[around];
            }
            node = parents.len();
            parents.push(around);
            ranges.push(range);
        }
        node_of[at] = node;
    }
    let blocks = nest(&parents, |_| true).ok_or(TooDeep { count: parents.len() - 1 })?;
    let entry = |((first, last), block): (&(u128, u128), &Block)| {
        let len = (first ^ last).leading_zeros() as u8;
        Entry { prefix: *first, len, value: block.value }
    };
    Ok(Labels {
        prefixes: node_of.iter().map(|node| blocks[*node]).collect(),
        entries: ranges.iter().zip(&blocks).skip(1).map(entry).collect(),
    })
}

/// First and last address.
fn range((prefix, len): (u128, u8)) -> (u128, u128) {
    (prefix.first(len), prefix | !u128::MAX.first(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trie::mask;

    fn prefix() -> impl Strategy<Value = (u128, u8)> {
        let bits = (0u128..4, 0u128..4, 0u128..300, 0u128..5);
        let bits = prop_oneof![any::<u128>(), bits.prop_map(|(a, b, c, d)| a << 126 | b << 90 | c << 60 | d)];
        (bits, prop_oneof![Just(128u8), Just(64), Just(48), Just(32), Just(0), 0u8..=128])
    }

    proptest! {
        #[test]
        fn an_address_lies_in_the_label_prefixes_of_its_prefixes(
            prefixes in proptest::collection::vec(prefix(), 0..30), more in any::<[u128; 5]>(),
        ) {
            let labels = label_prefixes(&prefixes).unwrap();
            let ends = prefixes.iter().flat_map(|prefix| [range(*prefix).0, range(*prefix).1]);
            for address in ends.flat_map(|end| [end.wrapping_sub(1), end, end.wrapping_add(1)]).chain(more) {
                let held = labels.entries.iter().filter(|entry| (entry.prefix ^ address).first(entry.len) == 0);
                let label = held.max_by_key(|entry| entry.len).map_or(0, |entry| entry.value);
                for (prefix, block) in prefixes.iter().zip(&labels.prefixes) {
                    let (first, last) = range(*prefix);
                    let inside = (label ^ block.value) & mask(block.len) == 0;
                    prop_assert_eq!(inside, (first..=last).contains(&address), "{:?} {:x}", prefix, address);
                }
            }
        }
    }

    #[test]
    fn a_chain_of_more_than_32_prefixes_is_too_deep() {
        let chain: Vec<(u128, u8)> = (1..=33).map(|len| (0, len)).collect();
        assert_eq!(label_prefixes(&chain), Err(TooDeep { count: 33 }));
        assert_eq!(label_prefixes(&chain[..32]).unwrap().prefixes[31].len, 32);
    }

    #[test]
    fn many_prefixes_need_few_bits() {
        let nets: Vec<(u128, u8)> = (0..60_000).map(|at| (at << 64, 64)).collect();
        let labels = label_prefixes(&nets).unwrap();
        assert!(labels.prefixes.iter().all(|block| block.len == 16));
        assert!(labels.prefixes.is_sorted());
    }
}
