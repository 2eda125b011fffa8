//! Whom to look at more closely than the configuration says: published to the workers, looked up when a flow begins and
//! when there is a newer list.

use std::collections::HashMap;

use crate::packet::{FlowKey, Host, Tuple};
use crate::rules::{Generational, GroupSetHandle, Standing, Verdict};

/// Parts that the mirror budget is divided into. 0 is for flows of nobody in the list; the others are for those in it,
/// the more urgent the higher.
pub const CLASSES: usize = 8;

/// Who is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// All that a host sends and receives.
    Host(Host),
    /// What a host receives and answers on one port.
    Service(Host, u8, u16),
    /// All between two sets of groups, whichever side begins.
    Groups(GroupSetHandle, GroupSetHandle),
    Flow(FlowKey),
}

/// How a party is regarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regard {
    /// Risk, 0..=1 as 0..=65535.
    pub score: u16,
    /// Kinds of alert that are on, a bit each.
    pub flags: u32,
    /// Share of its flows that adaptive sessions take, as 0..=65535, before the budget.
    pub share: u16,
    /// See [`CLASSES`].
    pub class: u8,
    /// Honeypot that takes the flows it begins, from 1; 0 for none.
    pub honeypot: u8,
}

/// One edition of the list. Immutable; replaced whole.
#[derive(Clone, Debug)]
pub struct Watchlist {
    number: u32,
    parties: HashMap<Party, Regard>,
    /// What kinds of party are in it: the others need not be looked for.
    has: Kinds,
    /// What the budget leaves of each class's shares, 0..=1 as 0..=65535.
    scales: [u16; CLASSES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Kinds {
    hosts: bool,
    services: bool,
    groups: bool,
    flows: bool,
}

impl Watchlist {
    /// `number` is above that of the edition before.
    pub fn new(number: u32, parties: impl IntoIterator<Item = (Party, Regard)>, scales: [u16; CLASSES]) -> Self {
        let parties: HashMap<_, _> = parties.into_iter().collect();
        let mut has = Kinds::default();
        for party in parties.keys() {
            match party {
                Party::Host(_) => has.hosts = true,
                Party::Service(..) => has.services = true,
                Party::Groups(..) => has.groups = true,
                Party::Flow(_) => has.flows = true,
            }
        }
        Self { number, parties, has, scales }
    }

    /// Nobody is in it, and the whole budget is there.
    pub fn empty(number: u32) -> Self {
        Self::new(number, [], [u16::MAX; CLASSES])
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    /// How a flow stands, by any packet of it and the verdict on that: the most of what is said of its hosts, service,
    /// groups and of itself. Both directions give the same.
    pub fn standing(&self, tuple: &Tuple, verdict: &Verdict) -> Standing {
        let mut sum = Regard::default();
        if !self.parties.is_empty() {
            self.each_of(tuple, verdict, |regard| sum = sum.with(regard));
        }
        let scale = self.scales[usize::from(sum.class) % CLASSES];
        Standing {
            watchlist: self.number,
            flags: sum.flags,
            score: sum.score,
            share: scaled(sum.share, scale),
            cut: u16::MAX - self.scales[0],
            diversion: 0,
            class: sum.class,
        }
    }

    /// The honeypot that takes what a host begins, from 1; 0 for none.
    pub fn honeypot(&self, initiator: &Host) -> u8 {
        if !self.has.hosts {
            return 0;
        }
        self.parties.get(&Party::Host(*initiator)).map_or(0, |regard| regard.honeypot)
    }

    fn each_of(&self, tuple: &Tuple, verdict: &Verdict, mut each: impl FnMut(&Regard)) {
        let mut look = |party: Party| {
            if let Some(regard) = self.parties.get(&party) {
                each(regard);
            }
        };
        let (from, to) = (Host::source(tuple), Host::destination(tuple));
        if self.has.hosts {
            look(Party::Host(from));
            look(Party::Host(to));
        }
        if self.has.services {
            look(Party::Service(to, tuple.protocol, tuple.dst_port));
            look(Party::Service(from, tuple.protocol, tuple.src_port));
        }
        if self.has.groups {
            look(Party::groups(verdict.src_groups, verdict.dst_groups));
        }
        if self.has.flows {
            look(Party::Flow(FlowKey::of(*tuple).0));
        }
    }
}

impl Generational for Watchlist {
    fn generation(&self) -> u32 {
        self.number
    }
}

impl Party {
    /// Two sets of groups in either order.
    pub fn groups(a: GroupSetHandle, b: GroupSetHandle) -> Self {
        if a.0 <= b.0 { Party::Groups(a, b) } else { Party::Groups(b, a) }
    }
}

impl Regard {
    /// The more of both in everything.
    fn with(self, other: &Regard) -> Self {
        Self {
            score: self.score.max(other.score),
            flags: self.flags | other.flags,
            share: self.share.max(other.share),
            class: self.class.max(other.class),
            // Asked for by itself: see `honeypot`.
            honeypot: 0,
        }
    }
}

/// A part of a part, both as 0..=65535.
pub fn scaled(share: u16, scale: u16) -> u16 {
    (u32::from(share) * u32::from(scale) / u32::from(u16::MAX)) as u16
}

/// 0..=1 as 0..=65535; what is out of range is brought into it.
pub fn fraction(x: f64) -> u16 {
    (x.clamp(0.0, 1.0) * f64::from(u16::MAX)).round() as u16
}

/// Share of flows that an adaptive session takes, of flows that stand so.
pub fn share_in_force(own: f64, standing: &Standing) -> f64 {
    let part = |x: u16| f64::from(x) / f64::from(u16::MAX);
    (own * part(u16::MAX - standing.cut)).max(part(standing.share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(src: u128, dst: u128, src_port: u16, dst_port: u16) -> Tuple {
        Tuple { src, dst, src_port, dst_port, protocol: 6, version: 4, ..Tuple::default() }
    }

    fn verdict(from: u32, to: u32) -> Verdict {
        Verdict { src_groups: GroupSetHandle(from), dst_groups: GroupSetHandle(to), ..Verdict::default() }
    }

    #[test]
    fn the_most_of_all_that_is_said_counts_both_ways() {
        let regard = |score, flags, share, class| Regard { score, flags, share, class, honeypot: 0 };
        let attacker = Host::source(&tuple(1, 0, 0, 0));
        let victim = Host::source(&tuple(2, 0, 0, 0));
        let list = Watchlist::new(
            7,
            [
                (Party::Host(attacker), regard(100, 0b01, 1000, 1)),
                (Party::Service(victim, 6, 443), regard(50, 0b10, 2000, 2)),
                (Party::groups(GroupSetHandle(9), GroupSetHandle(4)), regard(70, 0, 3000, 1)),
                (Party::Flow(FlowKey::of(tuple(5, 6, 7, 8)).0), regard(9, 0, 65535, 3)),
            ],
            [u16::MAX; CLASSES],
        );
        let of = |t: Tuple, v: Verdict| {
            let there = list.standing(&t, &v);
            let back = Verdict { src_groups: v.dst_groups, dst_groups: v.src_groups, ..v };
            assert_eq!(there, list.standing(&t.reversed(), &back), "{t:?}");
            (there.score, there.flags, there.share, there.class)
        };
        assert_eq!(of(tuple(1, 2, 5, 443), verdict(0, 0)), (100, 0b11, 2000, 2));
        assert_eq!(of(tuple(1, 2, 5, 80), verdict(4, 9)), (100, 0b01, 3000, 1));
        assert_eq!(of(tuple(3, 2, 443, 80), verdict(0, 0)), (0, 0, 0, 0), "the port is that of the other side");
        assert_eq!(of(tuple(6, 5, 8, 7), verdict(0, 0)), (9, 0, 65535, 3));
        assert_eq!(list.standing(&tuple(3, 4, 1, 2), &verdict(0, 0)).watchlist, 7);
    }

    #[test]
    fn the_budget_scales_each_class() {
        let host = Host::source(&tuple(1, 0, 0, 0));
        let mut scales = [u16::MAX; CLASSES];
        (scales[0], scales[2]) = (0, fraction(0.5));
        let regard = Regard { share: u16::MAX, class: 2, ..Regard::default() };
        let list = Watchlist::new(1, [(Party::Host(host), regard)], scales);
        assert_eq!(list.standing(&tuple(1, 2, 3, 4), &verdict(0, 0)).share, fraction(0.5));
        assert_eq!(list.standing(&tuple(3, 4, 5, 6), &verdict(0, 0)).cut, u16::MAX);
        assert_eq!((scaled(u16::MAX, u16::MAX), fraction(2.0), fraction(-1.0)), (u16::MAX, u16::MAX, 0));
    }
}
