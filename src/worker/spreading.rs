//! Which worker's a packet is that came in by a lane: in software, or as the device did, which is watched doing so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dpdk::Scheme;
use crate::packet::{Headers, KeyFrom, quote_of};

/// Packets of each lane that are watched at the start, and after them one burst of so many.
const WATCHED: u32 = 1024;
const WATCH_EVERY: u32 = 4096;
/// Lengths of headers.
const ETHERNET: u16 = 14;
const TAG: u16 = 4;

/// How packets of a lane find their worker.
#[derive(Debug)]
pub enum Spreading {
    /// They have.
    Done,
    Software,
    /// Until it is seen to do otherwise than it said.
    Device(DeviceSpread),
}

/// What a lane knows of how its device spreads flows.
#[derive(Debug)]
pub struct DeviceSpread {
    scheme: Arc<Scheme>,
    queue: u16,
    workers: usize,
    port: usize,
    strays: Arc<Strays>,
    /// Packets still to be watched, then bursts until one is.
    watch: u32,
    bursts: u32,
}

/// Ports whose devices brought a packet to another queue than they had said they would.
#[derive(Debug, Default)]
pub struct Strays(AtomicU64);

impl Strays {
    /// One of the ports did: nobody relies on devices any more, because a flow has two directions, and two ports.
    #[inline]
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Whether this port did; ports from 63 on count as one.
    pub fn has(&self, port: usize) -> bool {
        self.0.load(Ordering::Relaxed) >> port.min(63) & 1 == 1
    }

    fn add(&self, port: usize) {
        self.0.fetch_or(1 << port.min(63), Ordering::Relaxed);
    }
}

impl DeviceSpread {
    /// Of a queue of a port. All lanes share `strays`.
    pub fn new(scheme: Arc<Scheme>, queue: u16, workers: usize, port: usize, strays: Arc<Strays>) -> Self {
        Self { scheme, queue, workers, port, strays, watch: WATCHED, bursts: WATCH_EVERY }
    }

    /// Looks at packets of a burst now and then. False when the device is not to be relied on.
    pub(super) fn watch<'a>(&mut self, burst: impl Iterator<Item = &'a Headers>) -> bool {
        self.bursts -= 1;
        if self.watch > 0 || self.bursts == 0 {
            self.look_at(burst);
        }
        if self.bursts == 0 {
            self.bursts = WATCH_EVERY;
        }
        !self.strays.any()
    }

    #[cold]
    fn look_at<'a>(&mut self, burst: impl Iterator<Item = &'a Headers>) {
        for ip in burst.filter(|headers| is_plain(headers)).map(|headers| &headers.outer) {
            self.watch = self.watch.saturating_sub(1);
            if self.scheme.queue(ip.version, ip.src, ip.dst) != self.queue {
                self.strays.add(self.port);
            }
        }
    }

    /// The worker of an ICMP error is that of the packet it quotes, and of what devices find no addresses in that to
    /// which its addresses would have brought it. `None` of all others, which have come to theirs; and of errors in a
    /// tunnel, which came as the flow does.
    #[inline]
    pub(super) fn owner(&self, headers: &Headers, frame: &[u8], wire_len: u32, from: KeyFrom) -> Option<usize> {
        let is_inner = from == KeyFrom::Inner && headers.inner.version != 0;
        let quoted = quote_of(headers, frame, wire_len, from).filter(|_| !is_inner);
        let ip = &headers.outer;
        let (version, src, dst) = match quoted {
            Some(quoted) => quoted.outer,
            None if ip.version != 0 && !is_plain(headers) => (ip.version, ip.src, ip.dst),
            None => return None,
        };
        Some(usize::from(self.scheme.queue(version, src, dst)) % self.workers)
    }
}

/// The IP header comes right after Ethernet and at most one tag. Behind labels, more tags or PPPoE many devices do not
/// find it, and bring all such frames to one queue.
#[inline]
fn is_plain(headers: &Headers) -> bool {
    let (ip, tags) = (&headers.outer, headers.link.vlans.depth);
    ip.version != 0 && tags <= 1 && ip.offset == ETHERNET + TAG * u16::from(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(src: u128, dst: u128) -> Headers {
        let mut headers = Headers::default();
        (headers.outer.version, headers.outer.src, headers.outer.dst) = (4, src, dst);
        headers.outer.offset = 14;
        headers
    }

    #[test]
    fn frames_in_which_devices_find_no_addresses_are_not_held_against_them_and_go_where_others_do() {
        let (scheme, strays) = (Arc::new(Scheme::in_turn(2, 128)), Arc::<Strays>::default());
        let mut lane = DeviceSpread::new(scheme.clone(), 0, 2, 0, strays);
        for n in 0..100 {
            let mut labelled = between(n, n * 7 + 1);
            labelled.outer.offset = 18;
            assert!(lane.watch(std::iter::once(&labelled)));
            let owner = lane.owner(&labelled, &[], 0, KeyFrom::Outer);
            assert_eq!(owner, Some(usize::from(scheme.queue(4, n, n * 7 + 1))));
            labelled.link.vlans.depth = 1;
            assert_eq!(lane.owner(&labelled, &[], 0, KeyFrom::Outer), None, "one tag");
        }
    }

    #[test]
    fn a_device_is_relied_on_until_a_packet_comes_to_another_queue() {
        let (scheme, strays) = (Arc::new(Scheme::in_turn(2, 128)), Arc::<Strays>::default());
        let mut lanes = [0, 1].map(|queue| DeviceSpread::new(scheme.clone(), queue, 2, 5, strays.clone()));
        let by_queue = |wanted: u16| {
            let scheme = scheme.clone();
            (0..).map(|n| between(n, n * 7 + 1)).filter(move |h| scheme.queue(4, h.outer.src, h.outer.dst) == wanted)
        };
        let [own, other] = [0, 1].map(|queue| by_queue(queue).take(4000).collect::<Vec<_>>());
        let without_ip = Headers::default();
        assert!(lanes[0].watch(own[..2000].iter().chain([&without_ip])) && lanes[1].watch(other.iter()));
        assert!(lanes[0].watch(other.iter()), "so many were right that it is not looked at each burst");
        let seen = (2..=WATCH_EVERY).find(|_| !lanes[0].watch(other[..1].iter()));
        assert_eq!(seen, Some(WATCH_EVERY - 1), "now and then it is");
        assert!(!lanes[1].watch(other.iter()), "what one finds all know");
        assert_eq!([4, 5].map(|port| strays.has(port)), [false, true]);
    }
}
