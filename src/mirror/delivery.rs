//! How the copies of a session travel.

use std::sync::Arc;

use super::hops::Route;
use super::mask::Mask;
use super::wrap::{Outer, Tunnel};

/// What happens to a copy between the packet and the mirror queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delivery {
    /// Left out: the frame as it is.
    pub wrap: Option<Wrap>,
    /// Only the beginning of each frame.
    pub slice: Option<Slice>,
    /// What of the payload is not to be seen.
    pub mask: Option<Arc<Mask>>,
    /// A packet that was seen elsewhere less than so many nanoseconds ago is not copied again; 0: it is.
    pub dedup_ns: u64,
    /// Largest IP packet that the way to the collector takes; only of wrapped copies.
    pub mtu: u32,
    pub oversize: Oversize,
    pub cap: Cap,
}

/// How much of a frame is its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    Bytes(u32),
    /// All headers that were understood, and so many bytes behind them.
    Headers(u32),
}

/// The envelope around each copy.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrap {
    /// One for each collector of a pool, at least one; all of one address family.
    pub outers: Vec<Outer>,
    /// For each of them, the way to it where that is looked after: its MAC address has to be found, or its health checked.
    pub routes: Vec<Option<Route>>,
    pub tunnel: Tunnel,
    /// Network id, key or session by which the collector tells this session from others.
    pub id: u32,
}

/// What becomes of a wrapped copy that is larger than the MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Oversize {
    /// The end of the frame is cut off.
    #[default]
    Truncate,
    /// The copy is not made, and counted.
    Drop,
    /// It is sent in several IP packets.
    Fragment,
}

/// The most that a session may send, over all workers; 0 for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cap {
    /// Bits of Ethernet frames, headers included, per second.
    pub bits: u64,
    pub packets: u64,
}

impl Delivery {
    /// How many bytes of a frame of `len`, of which `headers` are headers, fit: of the slice, and with `wrapped` bytes of
    /// outer IP packet before it in the MTU. `None` when the copy is not to be made.
    #[inline]
    pub fn fit(&self, len: u32, headers: impl FnOnce() -> u32, wrapped: Option<usize>) -> Option<u32> {
        let sliced = match self.slice {
            None => len,
            Some(Slice::Bytes(most)) => len.min(most),
            Some(Slice::Headers(more)) => len.min(headers() + more),
        };
        let Some(wrapped) = wrapped else { return Some(sliced) };
        let room = self.mtu.saturating_sub(wrapped as u32);
        match self.oversize {
            _ if sliced <= room => Some(sliced),
            Oversize::Truncate if room > 0 => Some(room),
            Oversize::Fragment if sliced + wrapped as u32 <= LARGEST_IP => Some(sliced),
            _ => None,
        }
    }
}

/// Keeps one worker's part of a session within its [`Cap`]: two token buckets that hold a tenth of a second, or one
/// large packet when that takes longer.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    bits: Bucket,
    packets: Bucket,
    last: u64,
}

/// Tokens are nanoseconds of the rate, so that filling is an addition.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Nanoseconds that one bit or packet takes, with 16 fractional bits; 0 for no limit.
    cost: u64,
    left: u64,
    /// Most that is saved up.
    depth: u64,
    /// What has been sent beyond that, to be made up for first.
    debt: u64,
}

/// Largest IP packet there is.
const LARGEST_IP: u32 = 65_535;
/// Time saved up for sending, in nanoseconds.
const BURST_NS: u64 = 100_000_000;
/// Bits of the largest packet that a cap lets through, however low it is.
const LARGEST: u64 = 16_384 * 8;
/// The same where a cap is strict.
const STRICT_BURST_NS: u64 = 40_000_000;
const USUAL: u64 = 1_600 * 8;
const FRACTION: u32 = 16;

impl Meter {
    /// `workers` share the cap evenly.
    pub fn new(cap: Cap, workers: usize) -> Self {
        Self::saving(cap, workers, BURST_NS, LARGEST)
    }

    /// For many sessions together: saves up so little that no second has more than a twentieth above the cap, as long as
    /// 25 frames of usual length fit into one.
    pub fn strict(cap: Cap, workers: usize) -> Self {
        Self::saving(cap, workers, STRICT_BURST_NS, USUAL)
    }

    /// A copy of `largest` bits always fits.
    fn saving(cap: Cap, workers: usize, time: u64, largest: u64) -> Self {
        let bucket = |rate: u64, largest: u64| {
            let second = (workers.max(1) as u64 * 1_000_000_000) << FRACTION;
            let cost = second.checked_div(rate).map_or(0, |cost| cost.max(1));
            let depth = (time << FRACTION).max(cost.saturating_mul(largest));
            Bucket { cost, left: depth, depth, debt: 0 }
        };
        Self { bits: bucket(cap.bits, largest), packets: bucket(cap.packets, 1), last: 0 }
    }

    /// Whether a copy of so many bytes may be sent at this time; if so it is counted.
    #[inline]
    pub fn admits(&mut self, bytes: u32, clock: u64) -> bool {
        self.admits_leaving(0, bytes, clock)
    }

    /// As [`admits`](Self::admits), where `reserve` 256ths of what can be saved up must be left afterwards: for copies
    /// that give way to others.
    #[inline]
    pub fn admits_leaving(&mut self, reserve: u8, bytes: u32, clock: u64) -> bool {
        if self.bits.cost | self.packets.cost == 0 {
            return true;
        }
        let passed = clock.saturating_sub(self.last).min(u64::MAX >> FRACTION) << FRACTION;
        self.last = self.last.max(clock);
        let (bits, packets) = (self.bits.cost.saturating_mul(u64::from(bytes) * 8), self.packets.cost);
        self.bits.fill(passed);
        self.packets.fill(passed);
        if !self.bits.has(bits, reserve) || !self.packets.has(packets, reserve) {
            return false;
        }
        self.bits.take(bits);
        self.packets.take(packets);
        true
    }
}

impl Bucket {
    #[inline]
    fn fill(&mut self, passed: u64) {
        let made_up = passed.min(self.debt);
        self.debt -= made_up;
        self.left = self.left.saturating_add(passed - made_up).min(self.depth);
    }

    /// A full bucket has enough for anything: what it lacks it owes.
    #[inline]
    fn has(&self, cost: u64, reserve: u8) -> bool {
        let kept = (self.depth >> 8).saturating_mul(reserve.into());
        cost == 0 || self.left >= cost.saturating_add(kept) || self.left == self.depth
    }

    #[inline]
    fn take(&mut self, cost: u64) {
        self.debt += cost.saturating_sub(self.left);
        self.left = self.left.saturating_sub(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_or_refused_by_slice_and_mtu() {
        let of = |slice: Option<u32>, oversize, len, wrapped| {
            let slice = slice.map(Slice::Bytes);
            Delivery { slice, mtu: 1500, oversize, ..Delivery::default() }.fit(len, || unreachable!(), wrapped)
        };
        assert_eq!(of(None, Oversize::Truncate, 9000, None), Some(9000), "the port says what it takes");
        assert_eq!(of(Some(128), Oversize::Drop, 9000, None), Some(128));
        assert_eq!(of(None, Oversize::Truncate, 1514, Some(36)), Some(1464));
        assert_eq!(of(None, Oversize::Drop, 1514, Some(36)), None);
        assert_eq!(of(None, Oversize::Drop, 1464, Some(36)), Some(1464));
        assert_eq!(of(None, Oversize::Fragment, 9000, Some(36)), Some(9000));
        assert_eq!(of(None, Oversize::Fragment, 65_500, Some(36)), None);
        assert_eq!(of(Some(128), Oversize::Drop, 1514, Some(36)), Some(128));
        let headers = Delivery { slice: Some(Slice::Headers(10)), ..Delivery::default() };
        assert_eq!((headers.fit(1514, || 54, None), headers.fit(60, || 54, None)), (Some(64), Some(60)));
        assert_eq!(Delivery { mtu: 36, ..Delivery::default() }.fit(60, || 0, Some(36)), None);
    }

    /// Copies admitted in a second of a packet every microsecond, after the saved-up burst is gone.
    fn admitted(cap: Cap, workers: usize, bytes: u32) -> (u64, u64) {
        let mut meter = Meter::new(cap, workers);
        let start = 1_700_000_000_000_000_000;
        let mut run =
            |from: u64| (0..1_000_000).filter(|n| meter.admits(bytes, start + from + n * 1000)).count() as u64;
        (run(0), run(1_000_000_000))
    }

    #[test]
    fn strict_caps_hold_in_every_second_and_the_urgent_finds_room() {
        let cap = Cap { bits: 8_000_000, packets: 0 };
        let mut meter = Meter::strict(cap, 1);
        let second: u64 = 1_000_000_000;
        // Silence before, then four times too much.
        let (mut sent, mut urgent) = (Vec::new(), (0, 0));
        for n in 0..4000 * 3u64 {
            let at = 100 * second + n * 250_000;
            let is_urgent = n % 8 == 0;
            let admitted = meter.admits_leaving(if is_urgent { 0 } else { 128 }, 1000, at);
            urgent.0 += u32::from(is_urgent);
            urgent.1 += u32::from(is_urgent && admitted);
            if admitted {
                sent.push(at);
            }
        }
        let most = sent.iter().map(|from| sent.iter().filter(|at| (*from..from + second).contains(*at)).count()).max();
        assert!(most.is_some_and(|most| (950..=1050).contains(&most)), "{most:?} of 1000 a second");
        assert_eq!(urgent.0, urgent.1, "half of the budget is too much for the urgent, which had an eighth of all");
    }

    #[test]
    fn caps_hold_and_bursts_are_a_tenth_of_a_second() {
        let packets = Cap { packets: 10_000, bits: 0 };
        assert_eq!(admitted(packets, 1, 60), (10_999, 10_000));
        assert_eq!(admitted(packets, 4, 60), (2_749, 2_500));
        let (first, second) = admitted(Cap { packets: 0, bits: 8_000_000 }, 1, 1000);
        assert_eq!((first, second), (1_099, 1_000));
        assert_eq!(
            admitted(Cap { packets: 2, bits: 0 }, 1, 60),
            (2, 2),
            "also where a packet takes longer than the burst"
        );
        let both = Cap { packets: 500, bits: 8_000_000 };
        assert_eq!(admitted(both, 1, 1000).1, 500, "the tighter one counts");
        assert_eq!(admitted(Cap::default(), 1, 1000).1, 1_000_000);
        // Faster than a token can say: a limit of more than one packet a nanosecond limits nothing in practice.
        assert_eq!(admitted(Cap { packets: u64::MAX, bits: 0 }, 1, 60).1, 1_000_000);
    }
}
