//! Ports for later fragments, remembered from the first one.
//!
//! Where the key is that of a tunnelled packet, later fragments of the tunnel have nothing of it but are part of it: they
//! get the whole key of their first one. Only the outermost header is followed like that.
//!
//! An open-addressed table of fixed size, one for each worker. An entry may live in any of [`WINDOW`]
//! neighbouring places; when all are taken by live entries, the oldest gives way. There are
//! [`SPREAD`] places for each entry promised, so that up to the promised number a window practically
//! never fills and unrelated traffic changes nothing.

use super::headers::{Headers, Ip, KeyFrom};
use super::key::{Addr, Tuple, hash_words};
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
    tuple: Tuple,
    icmp: (u8, u8),
    ports_known: bool,
}

impl Fragments {
    /// Room for `capacity` fragmented packets at a time, each remembered for `timeout_ns` after its
    /// first fragment. Allocates all it will ever use: some 500 bytes for each packet.
    pub fn new(capacity: usize, timeout_ns: u64) -> Self {
        let places = capacity.max(WINDOW).saturating_mul(SPREAD).next_power_of_two();
        Self { places: vec![None; places].into_boxed_slice(), timeout_ns, counters: FragmentCounters::default() }
    }

    /// Remembers a first fragment, or completes the subject of a later one: ports, ICMP type and code, for IPv6 the
    /// protocol, and for a tunnel what it carries. `subject` was made from `headers`, `clock_ns` never goes back.
    /// Packets that are no fragments are left alone.
    #[inline]
    pub fn resolve(&mut self, headers: &Headers, from: KeyFrom, subject: &mut Subject, clock_ns: u64) {
        let Some(ip) = headers.key_ip(from) else { return };
        if ip.fragment.is_some() {
            self.take_in(ip, subject.tuple.vni, subject, clock_ns);
        }
        let is_inner = from == KeyFrom::Inner && headers.inner.version != 0;
        if is_inner && headers.outer.fragment.is_some() {
            self.take_in(&headers.outer, 0, subject, clock_ns);
        }
    }

    #[cold]
    #[inline(never)]
    fn take_in(&mut self, ip: &Ip, vni: u32, subject: &mut Subject, clock_ns: u64) {
        let Some(fragment) = ip.fragment else { return };
        let key = Key::of(ip, subject.tuple.vlan, vni, fragment.id);
        if fragment.offset == 0 {
            self.remember(key, subject, clock_ns);
        } else {
            self.complete(&key, subject, clock_ns);
        }
    }

    /// Another one of the same size, empty.
    #[must_use]
    pub fn another(&self) -> Self {
        let places = vec![None; self.places.len()].into_boxed_slice();
        Self { places, timeout_ns: self.timeout_ns, counters: FragmentCounters::default() }
    }

    pub fn counters(&self) -> FragmentCounters {
        self.counters
    }

    fn remember(&mut self, key: Key, subject: &Subject, clock_ns: u64) {
        let at = self.place_for(&key, clock_ns);
        self.places[at] = Some(Entry {
            key,
            seen_ns: clock_ns,
            tuple: subject.tuple,
            icmp: subject.icmp,
            ports_known: subject.ports_known,
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
        (subject.tuple, subject.icmp, subject.ports_known) = (entry.tuple, entry.icmp, entry.ports_known);
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
    fn of(ip: &Ip, vlan: u16, vni: u32, id: u32) -> Self {
        let protocol = if ip.version == 6 { 0 } else { ip.protocol };
        Self { src: ip.src, dst: ip.dst, id, vni, vlan, version: ip.version, protocol }
    }

    fn hash(&self) -> u64 {
        let rest = u64::from(self.id) << 32 | u64::from(self.vni);
        let small = u64::from(self.vlan) << 16 | u64::from(self.version) << 8 | u64::from(self.protocol);
        let words = [self.src as u64, (self.src >> 64) as u64, self.dst as u64, (self.dst >> 64) as u64, rest, small];
        hash_words(words)
    }
}

/// The places an entry may live in, in order. `len` is a power of two.
fn window(key: &Key, len: usize) -> impl Iterator<Item = usize> + use<> {
    let first = key.hash() as usize;
    (0..WINDOW).map(move |step| first.wrapping_add(step) & (len - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Fragment;

    fn fragment(version: u8, id: u32, offset: u16, protocol: u8) -> (Headers, Subject) {
        let fragment = Some(Fragment { id, offset, more: true });
        let outer = Ip { version, fragment, src: 1, dst: 2, protocol, ..Ip::default() };
        let ports = if offset == 0 { (1000u16.wrapping_add(id as u16), 53) } else { (0, 0) };
        let tuple =
            Tuple { src: 1, dst: 2, src_port: ports.0, dst_port: ports.1, protocol, version, ..Tuple::default() };
        let headers = Headers { outer, ..Headers::default() };
        (headers, Subject { tuple, ports_known: offset == 0, ..Subject::default() })
    }

    fn ask(table: &mut Fragments, id: u32, clock: u64) -> Option<(u16, u16)> {
        let (headers, mut later) = fragment(4, id, 1480, 17);
        table.resolve(&headers, KeyFrom::Outer, &mut later, clock);
        later.ports_known.then_some((later.tuple.src_port, later.tuple.dst_port))
    }

    fn tell(table: &mut Fragments, id: u32, clock: u64) {
        let (headers, mut first) = fragment(4, id, 0, 17);
        table.resolve(&headers, KeyFrom::Outer, &mut first, clock);
    }

    #[test]
    fn later_fragments_get_the_ports_of_the_first_until_it_is_old() {
        let mut table = Fragments::new(64, 100);
        assert_eq!(ask(&mut table, 7, 0), None);
        tell(&mut table, 7, 1000);
        assert_eq!(ask(&mut table, 7, 1100), Some((1007, 53)));
        assert_eq!(ask(&mut table, 8, 1100), None);
        assert_eq!(ask(&mut table, 7, 1101), None);
        assert_eq!(table.counters(), FragmentCounters { resolved: 1, missed: 3, evicted: 0 });
    }

    #[test]
    fn a_whole_packet_is_left_alone() {
        let mut table = Fragments::new(64, 100);
        let mut subject = Subject::default();
        table.resolve(&Headers::default(), KeyFrom::Outer, &mut subject, 0);
        assert_eq!((subject, table.counters()), (Subject::default(), FragmentCounters::default()));
    }

    #[test]
    fn ipv6_takes_protocol_and_icmp_type_from_the_first() {
        let mut table = Fragments::new(64, 100);
        let (headers, mut first) = fragment(6, 9, 0, 58);
        first.icmp = (128, 0);
        table.resolve(&headers, KeyFrom::Outer, &mut first, 5);
        let (headers, mut later) = fragment(6, 9, 1480, 60);
        table.resolve(&headers, KeyFrom::Outer, &mut later, 6);
        assert_eq!((later.tuple.protocol, later.icmp, later.ports_known), (58, (128, 0), true));
    }

    #[test]
    fn up_to_the_capacity_nothing_is_lost_and_beyond_it_the_oldest_goes() {
        const CAPACITY: u32 = 4096;
        let mut table = Fragments::new(CAPACITY as usize, u64::MAX);
        for id in 0..CAPACITY {
            tell(&mut table, id, u64::from(id));
        }
        assert!((0..CAPACITY).all(|id| ask(&mut table, id, 9999) == Some((1000u16.wrapping_add(id as u16), 53))));
        assert_eq!(table.counters().evicted, 0);
        for id in CAPACITY..CAPACITY * 16 {
            tell(&mut table, id, u64::from(id));
        }
        assert!(table.counters().evicted > 0);
        assert_eq!(ask(&mut table, CAPACITY * 16 - 1, 1 << 20), Some((999, 53)));
    }

    #[test]
    fn a_second_first_fragment_replaces_its_own_entry() {
        let mut table = Fragments::new(1, 100);
        for clock in 0..1000 {
            tell(&mut table, 3, clock * 1000);
        }
        assert_eq!(table.counters().evicted, 0);
        assert!(ask(&mut table, 3, 999_050).is_some());
    }
    #[test]
    fn later_fragments_of_a_tunnel_are_of_what_it_carries() {
        let mut table = Fragments::new(64, 100);
        let (mut headers, _) = fragment(4, 7, 0, 17);
        headers.inner = Ip { version: 6, ..Ip::default() };
        let tuple = Tuple { src: 8, dst: 9, src_port: 10, dst_port: 11, protocol: 6, version: 6, vni: 12, vlan: 0 };
        let first = Subject { tuple, ports_known: true, ..Subject::default() };
        table.resolve(&headers, KeyFrom::Inner, &mut first.clone(), 5);
        let (headers, mut later) = fragment(4, 7, 1480, 17);
        table.resolve(&headers, KeyFrom::Inner, &mut later, 6);
        assert_eq!(later, first);
        assert_eq!(table.counters(), FragmentCounters { resolved: 1, missed: 0, evicted: 0 });
    }
}
