//! Which of the selected packets are copied.

use super::session::{Head, Sample, Session};
use crate::packet::FlowKey;
use crate::rules::MAX_MIRRORS;

/// Decides for one worker. Session n of the configuration is bit n of every mask.
///
/// A packet is copied to `select(verdict.mirrors & flow_mask(key) & head_mask(…))`.
#[derive(Clone, Debug)]
pub struct Sampler {
    flow_seed: u64,
    /// Bits of all sessions.
    all: u64,
    /// Bits of sessions that take a share of flows, with that.
    shares: Vec<(u64, Taking)>,
    /// Bits of sessions that take only the beginning of flows, with where that ends.
    heads: Vec<(u64, Head)>,
    /// Bits of sessions that count packets: those that take every n-th, n > 1.
    counting: u64,
    countdowns: [Countdown; MAX_MIRRORS],
    /// Session numbers, most urgent first.
    order: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Countdown {
    every: u32,
    /// Packets up to and with the next one taken.
    left: u32,
}

/// How much of the flows a session takes.
#[derive(Clone, Copy, Debug)]
struct Taking {
    share: Share,
    /// More than that of those who are watched.
    adapts: bool,
}

/// A share of flows as a bound on the upper 53 bits of a hash, exact for every `f64` in 0..=1.
#[derive(Clone, Copy, Debug)]
struct Share(u64);

/// Keeps the choice of flows independent of table buckets and of the spreading over workers, which hash the same key.
const FLOW_DOMAIN: u64 = 0x666c_6f77_7368_6172;
const PHASE_DOMAIN: u64 = 0x7068_6173_6573_2020;

impl Sampler {
    /// `seed` is that of the configuration, the same for all workers and boxes that are to choose the same flows;
    /// `worker` sets the phase of packet countdowns, so that workers do not sample in lock-step. Sessions beyond
    /// [`MAX_MIRRORS`] have no bit and are ignored.
    pub fn new(sessions: &[Session], seed: u64, worker: usize) -> Self {
        let sessions = &sessions[..sessions.len().min(MAX_MIRRORS)];
        let mut order: Vec<u8> = (0..sessions.len() as u8).collect();
        order.sort_by_key(|session| (sessions[usize::from(*session)].priority, *session));
        let mut sampler = Self {
            flow_seed: seed ^ FLOW_DOMAIN,
            all: 0,
            shares: Vec::new(),
            heads: Vec::new(),
            counting: 0,
            countdowns: [Countdown::default(); MAX_MIRRORS],
            order,
        };
        for (number, session) in sessions.iter().enumerate() {
            let bit = 1 << number;
            sampler.all |= bit;
            sampler.heads.extend(session.head.map(|head| (bit, head)));
            match session.sample {
                Sample::Packets(every) if every > 1 => {
                    sampler.counting |= bit;
                    let left = phase(seed, worker, number, every);
                    sampler.countdowns[number] = Countdown { every, left };
                }
                Sample::Packets(_) => {}
                Sample::Flows(share) => {
                    let taking = Taking { share: Share::new(share), adapts: session.adapts };
                    sampler.shares.push((bit, taking));
                }
            }
        }
        sampler
    }

    /// Whether flows make a difference to some session.
    pub fn knows_flows(&self) -> bool {
        !self.shares.is_empty() || !self.heads.is_empty()
    }

    /// Sessions that may take a packet with which its flow has come to so many packets and bytes, `bytes` of which are the
    /// packet's own. `None` where nobody counts.
    pub fn head_mask(&self, flow: Option<(u64, u64)>, bytes: u64) -> u64 {
        let is_beyond = |head: &Head| match (flow, *head) {
            (None, _) => true,
            (Some((packets, _)), Head::Packets(most)) => packets > most,
            (Some((_, all)), Head::Bytes(most)) => all.saturating_sub(bytes) >= most,
        };
        self.heads.iter().filter(|(_, head)| is_beyond(head)).fold(self.all, |mask, (bit, _)| mask & !bit)
    }

    /// Sessions that may take packets of this flow, both directions. Those that adapt take at least the share `raised`, as
    /// 0..=65535, and of their own share the part `base` of it.
    pub fn flow_mask(&self, key: &FlowKey, raised: u16, base: u16) -> u64 {
        if self.shares.is_empty() {
            return self.all;
        }
        // One hash for all sessions: a session with a smaller share sees a subset of what one with a larger share sees,
        // and flows that were taken stay taken when the share rises.
        let hash = key.hash(self.flow_seed);
        let refuses = |taking: &Taking| match taking.adapts {
            false => !taking.share.takes(hash),
            true => !taking.share.part(base).takes(hash) && !Share::ALL.part(raised).takes(hash),
        };
        self.shares.iter().filter(|(_, taking)| refuses(taking)).fold(self.all, |mask, (bit, _)| mask & !bit)
    }

    /// Which of the candidate sessions take this packet. Sessions that take every n-th packet count it.
    #[inline]
    pub fn select(&mut self, candidates: u64) -> u64 {
        let mut taken = candidates & self.all;
        let mut counting = taken & self.counting;
        while counting != 0 {
            let number = counting.trailing_zeros() as usize;
            let countdown = &mut self.countdowns[number];
            countdown.left -= 1;
            if countdown.left == 0 {
                countdown.left = countdown.every;
            } else {
                taken &= !(1 << number);
            }
            counting &= counting - 1;
        }
        taken
    }

    /// Numbers of the sessions in a mask, lowest priority value first, then in the order of the configuration.
    pub fn in_priority_order(&self, mask: u64) -> impl Iterator<Item = usize> + '_ {
        let mut rest = mask & self.all;
        let mut order = self.order.iter();
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let session = order.find(|session| rest >> **session & 1 != 0)?;
            rest &= !(1 << *session);
            Some(usize::from(*session))
        })
    }
}

impl Share {
    const ONE: u64 = 1 << 53;
    const ALL: Self = Self(Self::ONE);

    /// Out of range is brought into range; not-a-number takes nothing.
    fn new(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * Self::ONE as f64) as u64)
    }

    /// This part of it, as 0..=65535.
    #[inline]
    fn part(self, part: u16) -> Self {
        // 53 and 16 bits: the product needs more than 64.
        Self((u128::from(self.0) * u128::from(part) / u128::from(u16::MAX)) as u64)
    }

    #[inline]
    fn takes(self, hash: u64) -> bool {
        hash >> 11 < self.0
    }
}

/// Where in `1..=every` a worker's first countdown starts.
fn phase(seed: u64, worker: usize, session: usize, every: u32) -> u32 {
    let place = (worker as u64) << 32 | session as u64;
    let mut x = (seed ^ PHASE_DOMAIN).wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for _ in 0..3 {
        x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }
    1 + ((x >> 32) % u64::from(every)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Tuple;
    use std::collections::BTreeSet;

    fn session(sample: Sample, priority: u32) -> Session {
        Session { name: format!("{sample:?}"), sample, priority, ..Session::default() }
    }

    fn tuple(n: u64) -> Tuple {
        Tuple {
            src: (0x0a00_0000 + n % 251).into(),
            dst: (0x0a01_0000 + n / 60_000).into(),
            src_port: (n % 60_000) as u16,
            dst_port: 443,
            protocol: 6,
            version: 4,
            ..Tuple::default()
        }
    }

    fn within_three_sigma(taken: u64, of: u64, share: f64) -> bool {
        let sigma = (of as f64 * share * (1.0 - share)).sqrt();
        (taken as f64 - of as f64 * share).abs() <= 3.0 * sigma
    }

    #[test]
    fn shares_of_flows_are_met_and_nest() {
        let shares = [0.001, 0.1, 0.5, 0.9, 0.0, 1.0];
        let sessions: Vec<_> = shares.iter().map(|s| session(Sample::Flows(*s), 0)).collect();
        for seed in [1, 2, 77] {
            let sampler = Sampler::new(&sessions, seed, 0);
            let mut taken = [0u64; 6];
            for n in 0..100_000 {
                let mask = sampler.flow_mask(&FlowKey::of(tuple(n)).0, 0, u16::MAX);
                for (session, count) in taken.iter_mut().enumerate() {
                    *count += mask >> session & 1;
                }
                assert!(mask & 0b1 == 0 || mask & 0b1110 == 0b1110, "subset of the larger shares");
            }
            for (share, taken) in shares.iter().zip(taken) {
                assert!(within_three_sigma(taken, 100_000, *share), "seed {seed}: {taken} for {share}");
            }
        }
    }

    #[test]
    fn choice_of_flows_depends_on_the_seed_alone() {
        let sessions = [session(Sample::Packets(7), 0), session(Sample::Flows(0.3), 0)];
        let one = Sampler::new(&sessions, 5, 0);
        let other = Sampler::new(&sessions, 5, 3);
        let stranger = Sampler::new(&sessions, 6, 0);
        let mut different = 0;
        for n in 0..1000 {
            let there = one.flow_mask(&FlowKey::of(tuple(n)).0, 0, u16::MAX);
            assert_eq!(
                there,
                one.flow_mask(&FlowKey::of(tuple(n).reversed()).0, 0, u16::MAX),
                "both directions together"
            );
            assert_eq!(there, other.flow_mask(&FlowKey::of(tuple(n)).0, 0, u16::MAX), "same at every worker");
            assert_eq!(there & 1, 1, "packet sampling does not choose flows");
            different += usize::from(there != stranger.flow_mask(&FlowKey::of(tuple(n)).0, 0, u16::MAX));
        }
        assert!(different > 300, "{different}");
    }

    #[test]
    fn sessions_that_adapt_take_more_of_the_watched_and_never_less_than_before() {
        let adaptive = |share| Session { adapts: true, ..session(Sample::Flows(share), 0) };
        let sampler = Sampler::new(&[adaptive(0.1), session(Sample::Flows(0.1), 0)], 5, 0);
        let raises = [0, 3_000, 20_000, 40_000, u16::MAX];
        let (mut taken, mut fixed, mut throttled) = ([0u64; 5], 0, 0);
        for n in 0..100_000 {
            let key = FlowKey::of(tuple(n)).0;
            let masks = raises.map(|raised| sampler.flow_mask(&key, raised, u16::MAX));
            assert!(masks.is_sorted_by_key(|mask| mask & 1), "a flow once taken stays taken");
            masks.iter().zip(&mut taken).for_each(|(mask, count)| *count += mask & 1);
            assert!(masks.iter().all(|mask| mask & 2 == masks[0] & 2), "others do not care");
            fixed += masks[0] >> 1 & 1;
            throttled += sampler.flow_mask(&key, 0, u16::MAX / 2) & 1;
        }
        for (raised, taken) in raises.iter().zip(taken) {
            let share = (f64::from(*raised) / 65535.0).max(0.1);
            assert!(within_three_sigma(taken, 100_000, share), "{taken} for {share}");
        }
        assert_eq!((taken[0], taken[4]), (fixed, 100_000));
        assert!(within_three_sigma(throttled, 100_000, 0.05), "{throttled}");
    }

    #[test]
    fn every_nth_packet_exactly() {
        let every = [1, 2, 10, 1000, 4096];
        let sessions: Vec<_> = every.iter().map(|n| session(Sample::Packets(*n), 0)).collect();
        let mut sampler = Sampler::new(&sessions, 9, 1);
        let mut taken = [0u64; 5];
        for _ in 0..1_000_000 {
            let mask = sampler.select(u64::MAX);
            assert_eq!(mask >> 5, 0, "no bit without a session");
            for (session, count) in taken.iter_mut().enumerate() {
                *count += mask >> session & 1;
            }
        }
        for (n, taken) in every.iter().zip(taken) {
            let exact = 1_000_000 / u64::from(*n);
            assert!(taken == exact || taken == exact + 1, "{taken} for 1 in {n}");
        }
    }

    #[test]
    fn share_of_a_random_subset_is_met() {
        let mut sampler = Sampler::new(&[session(Sample::Packets(100), 0)], 3, 0);
        let (mut marked, mut taken) = (0u64, 0u64);
        for n in 0..1_000_000 {
            let mark = FlowKey::of(tuple(n)).0.hash(42) & 3 == 0;
            let copied = sampler.select(1) == 1;
            marked += u64::from(mark);
            taken += u64::from(mark && copied);
        }
        assert!(within_three_sigma(taken, marked, 0.01), "{taken} of {marked}");
    }

    #[test]
    fn packets_of_other_sessions_do_not_count_down() {
        let mut sampler = Sampler::new(
            &[session(Sample::Packets(4), 0), session(Sample::Packets(1), 0), session(Sample::Flows(0.5), 0)],
            3,
            0,
        );
        let mut taken = 0;
        for n in 0..4000 {
            let candidates = if n % 2 == 0 { 0b111 } else { 0b110 };
            let mask = sampler.select(candidates);
            assert_eq!(mask & 0b110, 0b110);
            taken += mask & 1;
        }
        assert_eq!(taken, 500);
        assert_eq!(sampler.select(0), 0);
    }

    #[test]
    fn workers_do_not_sample_in_lock_step() {
        let sessions = [session(Sample::Packets(1000), 0)];
        let first: BTreeSet<usize> = (0..16)
            .map(|worker| {
                let mut sampler = Sampler::new(&sessions, 7, worker);
                (0..1000).position(|_| sampler.select(1) == 1).expect("one of every thousand")
            })
            .collect();
        assert!(first.len() >= 14, "{first:?}");
    }

    #[test]
    fn most_urgent_session_first() {
        let sessions = [30, 10, 20, 10].map(|priority| session(Sample::Packets(1), priority));
        let sampler = Sampler::new(&sessions, 0, 0);
        let order = |mask| sampler.in_priority_order(mask).collect::<Vec<_>>();
        assert_eq!(order(0b1111), [1, 3, 2, 0]);
        assert_eq!(order(0b1001), [3, 0]);
        assert_eq!(order(u64::MAX), [1, 3, 2, 0]);
        assert!(order(0).is_empty());
    }

    #[test]
    fn sixty_four_sessions_and_odd_shares() {
        let mut sessions: Vec<_> = (0..70).map(|n| session(Sample::Packets(n % 3), n)).collect();
        sessions[63] = session(Sample::Flows(f64::NAN), 1);
        sessions[62] = session(Sample::Flows(7.0), 1);
        let mut sampler = Sampler::new(&sessions, 0, 0);
        let mask = sampler.flow_mask(&FlowKey::of(tuple(1)).0, 0, u16::MAX);
        assert_eq!(mask, u64::MAX >> 1);
        let taken = sampler.select(mask) | sampler.select(mask);
        assert_eq!(taken, mask, "of two packets each session takes one at least");
        assert_eq!(sampler.in_priority_order(u64::MAX).count(), 64);
    }

    #[test]
    fn beginnings_of_flows_end_where_they_should() {
        let with = |head| Session { head, ..session(Sample::Packets(1), 0) };
        let sampler = Sampler::new(&[with(Some(Head::Packets(3))), with(Some(Head::Bytes(100))), with(None)], 0, 0);
        let taken = |flow, bytes| sampler.head_mask(flow, bytes);
        assert_eq!(taken(Some((1, 60)), 60), 0b111);
        assert_eq!(taken(Some((2, 120)), 60), 0b111, "the packet that goes beyond the bytes is the last one");
        assert_eq!(taken(Some((3, 180)), 60), 0b101);
        assert_eq!(taken(Some((4, 240)), 60), 0b100);
        assert_eq!(taken(Some((1, 9000)), 9000), 0b111, "never nothing of a flow");
        assert_eq!(taken(None, 60), 0b100);
    }
}
