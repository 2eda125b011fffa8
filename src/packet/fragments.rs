//! Ports for later fragments, remembered from the first one.
//!
//! An open-addressed table of fixed size, one for each worker. An entry may live in any of [`WINDOW`]
//! neighbouring places; when all are taken by live entries, the oldest gives way. There are
//! [`SPREAD`] places for each entry promised, so that up to the promised number a window practically
//! never fills and unrelated traffic changes nothing.

use super::headers::Ip;
use super::key::Addr;
use crate::rules::Subject;

/// Places looked at for one packet.
const WINDOW: usize = 16;
/// Places for each entry of the promised capacity.
const SPREAD: usize = 4;

/// Transport of first fragments, by packet (RFC 791: addresses, protocol, id; RFC 8200: addresses, id).
#[derive(Debug)]
pub struct Fragments {
    places: Box<[Option<Entry>]>,
    timeout_ns: u64,
    counters: FragmentCounters,
}

/// What happened in a [`Fragments`] table, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounters {
    /// Later fragments that got their ports.
    pub resolved: u64,
    /// Later fragments without a known first one.
    pub missed: u64,
    /// Live entries that gave way to another.
    pub evicted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    src: Addr,
    dst: Addr,
    id: u32,
    vni: u32,
    vlan: u16,
    version: u8,
    /// 0 for IPv6: there only the first fragment knows what comes after the last extension header.
    protocol: u8,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    seen_ns: u64,
    src_port: u16,
    dst_port: u16,
    icmp: (u8, u8),
    protocol: u8,
}

impl Fragments {
    /// Room for `capacity` fragmented packets at a time, each remembered for `timeout_ns` after its
    /// first fragment. Allocates all it will ever use: some 400 bytes for each packet.
    pub fn new(capacity: usize, timeout_ns: u64) -> Self {
        let places = capacity.max(WINDOW).saturating_mul(SPREAD).next_power_of_two();
        Self { places: vec![None; places].into_boxed_slice(), timeout_ns, counters: FragmentCounters::default() }
    }

    /// Remembers a first fragment, or completes the subject of a later one: ports, ICMP type and code,
    /// and for IPv6 the protocol. `ip` is the header that `subject` was made from, `clock_ns` never
    /// goes back. Packets that are no fragments are left alone.
    #[inline]
    pub fn resolve(&mut self, ip: &Ip, subject: &mut Subject, clock_ns: u64) {
        if let Some(fragment) = ip.fragment {
            let key = Key::of(subject, fragment.id);
            if fragment.offset == 0 {
                self.remember(key, subject, clock_ns);
            } else {
                self.complete(&key, subject, clock_ns);
            }
        }
    }

    pub fn counters(&self) -> FragmentCounters {
        self.counters
    }

    fn remember(&mut self, key: Key, subject: &Subject, clock_ns: u64) {
        let at = self.place_for(&key, clock_ns);
        self.places[at] = Some(Entry {
            key,
            seen_ns: clock_ns,
            src_port: subject.tuple.src_port,
            dst_port: subject.tuple.dst_port,
            icmp: subject.icmp,
            protocol: subject.tuple.protocol,
        });
    }

    fn complete(&mut self, key: &Key, subject: &mut Subject, clock_ns: u64) {
        let live = window(key, self.places.len())
            .map_while(|at| self.places[at].as_ref())
            .find(|entry| entry.key == *key && !self.is_old(entry, clock_ns));
        let Some(entry) = live else {
            self.counters.missed += 1;
            return;
        };
        subject.tuple.src_port = entry.src_port;
        subject.tuple.dst_port = entry.dst_port;
        subject.tuple.protocol = entry.protocol;
        subject.icmp = entry.icmp;
        subject.ports_known = true;
        self.counters.resolved += 1;
    }

    /// Where `key` goes: its own place, else one that is free or out of date, else the oldest one.
    /// Places never become free again, so a free one ends the search.
    fn place_for(&mut self, key: &Key, clock_ns: u64) -> usize {
        let mut oldest: Option<(u64, usize)> = None;
        for at in window(key, self.places.len()) {
            match &self.places[at] {
                Some(entry) if entry.key == *key => return at,
                Some(entry) => {
                    if oldest.is_none_or(|(seen, _)| entry.seen_ns < seen) {
                        oldest = Some((entry.seen_ns, at));
                    }
                }
                None if oldest.is_some_and(|(seen, _)| self.is_past(seen, clock_ns)) => break,
                None => return at,
            }
        }
        let (seen, at) = oldest.expect("a window is never empty and a free first place returns");
        if !self.is_past(seen, clock_ns) {
            self.counters.evicted += 1;
        }
        at
    }

    fn is_old(&self, entry: &Entry, clock_ns: u64) -> bool {
        self.is_past(entry.seen_ns, clock_ns)
    }

    fn is_past(&self, seen_ns: u64, clock_ns: u64) -> bool {
        clock_ns.saturating_sub(seen_ns) > self.timeout_ns
    }
}

impl Key {
    fn of(subject: &Subject, id: u32) -> Self {
        let tuple = &subject.tuple;
        Self {
            src: tuple.src,
            dst: tuple.dst,
            id,
            vni: tuple.vni,
            vlan: tuple.vlan,
            version: tuple.version,
            protocol: if tuple.version == 6 { 0 } else { tuple.protocol },
        }
    }

    fn hash(&self) -> u64 {
        let rest = u64::from(self.id) << 32 | u64::from(self.vni);
        let small = u64::from(self.vlan) << 16 | u64::from(self.version) << 8 | u64::from(self.protocol);
        let words = [self.src as u64, (self.src >> 64) as u64, self.dst as u64, (self.dst >> 64) as u64, rest, small];
        words.into_iter().fold(0x2545_f491_4f6c_dd1d, |hash, word| {
            let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
            (product as u64) ^ ((product >> 64) as u64) ^ hash.rotate_left(23)
        })
    }
}

/// The places an entry may live in, in order. `len` is a power of two.
fn window(key: &Key, len: usize) -> impl Iterator<Item = usize> + use<> {
    let first = key.hash() as usize;
    (0..WINDOW).map(move |step| first.wrapping_add(step) & (len - 1))
}
