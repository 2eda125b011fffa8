//! Numbers for a tree, such that the numbers below each node, and no others, share their first bits.
//!
//! Every node gets an aligned block of numbers: its own number first, if it asks for one, then the blocks of its
//! children.
//!
//! ```text
//! a ─┬─ b          a 0000…0111      a itself 0000
//!    └─ c ── d     b 0001           c 0010…0011, c itself 0010, d 0011
//! ```
//! Blocks are as small as can be: a node's is the sum of its children's and its own number, rounded up to a power of
//! two, which suffices when children are laid down from the largest on. They keep their order where that costs nothing.

/// A node's block: the numbers whose first `len` of 32 bits are those of `value`, which is also its own number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    pub value: u32,
    pub len: u8,
}

/// Blocks for the nodes of a tree. `parents[node]` is less than `node`; node 0 is the root, whose block is everything.
/// `own` says which nodes need a number of their own. `None` when 32 bits are not enough.
pub(super) fn nest(parents: &[usize], own: impl Fn(usize) -> bool) -> Option<Vec<Block>> {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); parents.len()];
    for (node, parent) in parents.iter().enumerate().skip(1) {
        children[*parent].push(node);
    }
    // Bits of each node's block.
    let mut bits = vec![0u32; parents.len()];
    for node in (0..parents.len()).rev() {
        let sum: u64 = children[node].iter().map(|child| 1u64 << bits[*child]).sum();
        bits[node] = (sum + u64::from(own(node))).next_power_of_two().trailing_zeros();
        if bits[node] > 32 {
            return None;
        }
    }
    let mut starts = vec![0u64; parents.len()];
    for node in 0..parents.len() {
        let end = starts[node] + (1 << bits[node]);
        let in_order = in_order(&children[node], &bits, starts[node] + u64::from(own(node)));
        if in_order.last().is_none_or(|(child, start)| start + (1 << bits[*child]) <= end) {
            in_order.into_iter().for_each(|(child, start)| starts[child] = start);
            continue;
        }
        children[node].sort_by_key(|child| bits[*child]);
        let mut start = end;
        for child in children[node].iter().rev() {
            start -= 1 << bits[*child];
            starts[*child] = start;
        }
    }
    // The root has the numbers' first bits.
    let spare = 32 - bits.first()?;
    let block = |(start, bits): (&u64, &u32)| Block { value: (start << spare) as u32, len: (32 - spare - bits) as u8 };
    Some(starts.iter().zip(&bits).map(block).collect())
}

/// Where the children's blocks start when they follow each other from `next` on.
fn in_order(children: &[usize], bits: &[u32], mut next: u64) -> Vec<(usize, u64)> {
    let place = |child: &usize| {
        let start = next.next_multiple_of(1 << bits[*child]);
        next = start + (1 << bits[*child]);
        (*child, start)
    };
    children.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trie::mask;

    fn holds(block: &Block, value: u32) -> bool {
        (block.value ^ value) & mask(block.len) == 0
    }

    proptest! {
        #[test]
        fn a_block_holds_its_descendants_and_no_others(
            seeds in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut parents = vec![0];
            parents.extend(seeds.iter().enumerate().map(|(at, seed)| seed.index(at + 1)));
            // Few nodes in deep trees may need more bits than there are.
            if let Some(blocks) = nest(&parents, |_| true) {
                for a in 0..parents.len() {
                    for b in 0..parents.len() {
                        let above = std::iter::successors(Some(b), |node| (*node > 0).then(|| parents[*node]));
                        prop_assert_eq!(holds(&blocks[a], blocks[b].value), above.into_iter().any(|node| node == a));
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_are_small_and_in_order() {
        let flat = nest(&[0; 256], |_| true).unwrap();
        assert!(
            flat.iter().enumerate().skip(1).all(|(at, block)| *block == Block { value: (at as u32) << 24, len: 8 })
        );
        // Children of 1, 4 and 2 numbers: in order they would need 16.
        let mixed = nest(&[0, 0, 0, 0, 2, 2, 2, 3], |_| true).unwrap();
        assert_eq!(mixed[1], Block { value: 1 << 29, len: 3 });
        assert_eq!(mixed[2], Block { value: 1 << 31, len: 1 });
        assert_eq!(mixed[3], Block { value: 1 << 30, len: 2 });
        assert_eq!(mixed[0], Block { value: 0, len: 0 });
    }

    #[test]
    fn a_node_without_a_number_of_its_own_takes_no_room() {
        let blocks = nest(&[0, 0, 0, 1, 1, 2, 2], |node| node > 2).unwrap();
        assert_eq!([1, 2].map(|node| blocks[node]), [Block { value: 0, len: 1 }, Block { value: 1 << 31, len: 1 }]);
        assert_eq!([3, 6].map(|node| blocks[node]), [Block { value: 0, len: 2 }, Block { value: 3 << 30, len: 2 }]);
    }

    #[test]
    fn a_chain_takes_a_bit_for_each_link() {
        let chain = |links: usize| nest(&Vec::from_iter((0..=links).map(|node| node.saturating_sub(1))), |_| true);
        assert_eq!(chain(32).unwrap()[32], Block { value: u32::MAX, len: 32 });
        assert!(chain(33).is_none());
    }
}
