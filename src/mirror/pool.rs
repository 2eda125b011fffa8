//! Which of several collectors gets the copies of a flow.

use std::net::IpAddr;

use crate::packet::scramble;

/// Rendezvous hashing (Thaler and Ravishankar, 1998): each member bids for a flow, the highest bid takes it. A bid depends
/// on flow and member alone, so when a member goes only its flows move, and a new one takes its share evenly from all. The
/// order of the members does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    members: Vec<u64>,
}

impl Pool {
    pub fn new(members: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { members: members.into_iter().map(seed_of).collect() }
    }

    /// Position of the member for a flow, among those whose bits are set, or among all if none is; 0 of an empty pool.
    /// `flow_hash` must be the same for both directions.
    #[inline]
    pub fn member(&self, flow_hash: u64, usable: u64) -> usize {
        let usable = if usable == 0 { u64::MAX } else { usable };
        let bids = self.members.iter().enumerate().filter(|(at, _)| usable >> at & 1 != 0);
        bids.map(|(at, member)| (scramble(flow_hash ^ member), at)).max().map_or(0, |(_, at)| at)
    }
}

fn seed_of(member: IpAddr) -> u64 {
    let bits = match member {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    scramble(bits as u64 ^ scramble((bits >> 64) as u64 ^ u64::from(member.is_ipv6())))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn address(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    /// Members by address, of flows 0, 1, 2 …
    fn taken(members: &[u8], flows: u64) -> Vec<u8> {
        let pool = Pool::new(members.iter().map(|n| address(*n)));
        (0..flows).map(|flow| members[pool.member(scramble(flow + 1), u64::MAX)]).collect()
    }

    #[test]
    fn members_get_even_shares() {
        let flows = 100_000;
        let members = [1, 2, 3, 7, 200];
        let taken = taken(&members, flows);
        let expected = flows as f64 / 5.0;
        for member in members {
            let got = taken.iter().filter(|of| **of == member).count() as f64;
            assert!((got - expected).abs() <= 3.0 * (expected * 0.8).sqrt(), "{member}: {got}");
        }
        assert_eq!(Pool::default().member(5, u64::MAX), 0);
    }

    proptest! {
        #[test]
        fn a_members_loss_moves_only_its_flows(
            members in prop::collection::hash_set(any::<u8>(), 2..12), lost: prop::sample::Index, turn: prop::sample::Index,
        ) {
            let mut members: Vec<u8> = members.into_iter().collect();
            let before = taken(&members, 500);
            let pool = Pool::new(members.iter().map(|n| address(*n)));
            let at = lost.index(members.len());
            let without = |flow: u64| members[pool.member(scramble(flow + 1), !(1u64 << at))];
            let marked: Vec<u8> = (0..500).map(without).collect();
            let gone = members.remove(lost.index(members.len()));
            let middle = turn.index(members.len());
            members.rotate_left(middle);
            let after = taken(&members, 500);
            prop_assert_eq!(&marked, &after, "out of the pool or not usable is the same");
            for (was, is) in before.into_iter().zip(after) {
                prop_assert!(is == was || was == gone, "{} to {} without {}", was, is, gone);
            }
        }
    }
}
