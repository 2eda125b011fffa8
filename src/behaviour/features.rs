//! What the forest sees of a record: a fixed array of numbers, from the record itself and from a
//! small, bounded memory of its source host.

use crate::flow::{EndReason, FlowRecord, FlowState, TO_CLIENT, TO_SERVER};
use crate::packet::{FlowKey, has_ports};
use crate::rules::Decision;

use super::bounded::Recent;
use super::detect::Host;

/// Version of the features: raised when one comes, goes, or means something else. A model of other features cannot
/// score these.
pub const SCHEMA: u32 = 1;
/// Number of features.
pub const FEATURES: usize = 26;

/// One record as numbers; the meaning of each place is in [`NAMES`].
pub type Features = [f32; FEATURES];

/// Names of the features, as they appear in the evidence of an alert. `ln` stands for ln(1 + x),
/// `to_server` for what the initiator sent.
pub const NAMES: [&str; FEATURES] = [
    "packets_to_server",     // ln
    "packets_to_client",     // ln
    "bytes_to_server",       // ln
    "bytes_to_client",       // ln
    "client_byte_share",     // bytes to the client / all bytes, 0..1; 0.5 without bytes
    "packet_size_to_server", // mean, bytes
    "packet_size_to_client", // mean, bytes
    "packet_size_spread",    // largest - smallest, bytes
    "duration",              // ln of milliseconds
    "packet_rate",           // ln of packets per second, durations under 1 ms count as 1 ms
    "payload_share",         // payload bytes / frame bytes, 0..1
    "payload_to_client",     // ln of payload bytes
    "protocol_class",        // 0 TCP, 1 UDP, 2 ICMP and ICMPv6, 3 other
    "service_class",         // 0 no ports, 1..=6 see `service_class`
    "destination_port",      // ln
    "source_port_class",     // 0 below 1024, 1 below 32768, 2 above; 0 without ports
    "syn_without_ack",       // 1 when the initiator sent SYN and never ACK
    "reset",                 // 0, 1 by the initiator, 2 by the responder, 3 by both
    "fin",                   // 0, 1, 2, 3 alike
    "odd_flags",             // 1 for URG, or TCP without SYN, ACK and RST from the initiator
    "state",                 // 0 new, 1 established, 2 closing, 3 closed
    "denied",                // 1 when policy denied or rejected
    "source_destinations",   // ln of distinct destinations of the source in the window
    "source_ports",          // ln of distinct (protocol, destination port) of the source in the window
    "novelty_groups",        // 1 / (1 + earlier records of this group pair and service), 0 from four on
    "novelty_hosts",         // 1 / (1 + earlier records of this source, destination and service), 0 from four on
];

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// Extracts features; holds the memory behind the last four.
#[derive(Clone, Debug)]
pub struct Extractor {
    /// Half a window, nanoseconds.
    half: u64,
    seed: u64,
    sources: Recent<Host, FanOut>,
    relations: Recent<(u32, u32, u8, u16), u32>,
    pairs: Recent<u64, u32>,
}

/// Sources remembered, and relations each of groups and hosts.
const SOURCES: usize = 16_384;
const RELATIONS: usize = 65_536;

impl Extractor {
    /// `window`: length of the sliding window of the fan-out features, nanoseconds.
    pub fn new(window: u64, seed: u64) -> Self {
        Self {
            half: (window / 2).max(1),
            seed,
            sources: Recent::new(SOURCES),
            relations: Recent::new(RELATIONS),
            pairs: Recent::new(RELATIONS),
        }
    }

    /// Features of the next record, and updates the memory with it. All values are finite.
    pub fn extract(&mut self, r: &FlowRecord) -> Features {
        let mut x = [0.0; FEATURES];
        volume(r, &mut x);
        service(r, &mut x);
        tcp(r, &mut x);
        x[20] = match r.state {
            FlowState::New => 0.0,
            FlowState::Established => 1.0,
            FlowState::Closing => 2.0,
            FlowState::Closed => 3.0,
        };
        x[21] = flag(r.decision != Decision::Allow);
        self.memory(r, &mut x);
        x
    }

    /// Hosts, group relations and host relations forgotten to stay within the limits.
    pub fn evicted(&self) -> u64 {
        self.sources.evicted() + self.relations.evicted() + self.pairs.evicted()
    }

    /// Entries held, all memories together; never above a fixed limit.
    pub fn entries(&self) -> usize {
        self.sources.len() + self.relations.len() + self.pairs.len()
    }

    fn memory(&mut self, r: &FlowRecord, x: &mut Features) {
        let t = &r.tuple;
        let epoch = r.emitted / self.half;
        let service = FlowKey::of(crate::packet::Tuple { src: 0, src_port: 0, dst: 0, version: t.version, ..*t });
        let destination = FlowKey::of(crate::packet::Tuple { src: 0, src_port: 0, dst_port: 0, protocol: 0, ..*t });
        let fan = self.sources.get_or(Host::source(t), FanOut::default);
        fan.insert(epoch, destination.0.hash(self.seed), service.0.hash(self.seed));
        (x[22], x[23]) = (ln(fan.destinations()), ln(fan.ports()));
        let relation = (r.src_groups.0, r.dst_groups.0, t.protocol, t.dst_port);
        let seen = self.relations.get_or(relation, || 0);
        x[24] = novelty(*seen);
        let pair = FlowKey::of(crate::packet::Tuple { src_port: 0, ..*t }).0.hash(self.seed);
        let known = self.pairs.get_or(pair, || 0);
        x[25] = novelty(*known);
        // A slice of a flow already counted is no new encounter.
        if r.reason != EndReason::Active {
            *seen = seen.saturating_add(1);
            *known = known.saturating_add(1);
        }
    }
}

/// 1 for what was never seen. What was seen often is simply known: else everything would go on changing after the time that
/// a model is trained on.
fn novelty(earlier: u32) -> f32 {
    const KNOWN: u32 = 4;
    if earlier < KNOWN { 1.0 / (1.0 + earlier as f32) } else { 0.0 }
}

fn volume(r: &FlowRecord, x: &mut Features) {
    let mean = |way: usize| r.bytes[way] as f32 / r.packets[way].max(1) as f32;
    let (bytes, payload) = (sum(r.bytes), sum(r.payload_bytes));
    let nanoseconds = r.end.saturating_sub(r.start) as f64;
    x[0] = ln(r.packets[TO_SERVER] as f64);
    x[1] = ln(r.packets[TO_CLIENT] as f64);
    x[2] = ln(r.bytes[TO_SERVER] as f64);
    x[3] = ln(r.bytes[TO_CLIENT] as f64);
    x[4] = if bytes > 0.0 { (r.bytes[TO_CLIENT] as f64 / bytes) as f32 } else { 0.5 };
    x[5] = mean(TO_SERVER);
    x[6] = mean(TO_CLIENT);
    x[7] = r.sizes.max.saturating_sub(r.sizes.min) as f32;
    x[8] = ln(nanoseconds / 1e6);
    x[9] = ln(sum(r.packets) / (nanoseconds / 1e9).max(1e-3));
    x[10] = if bytes > 0.0 { (payload / bytes) as f32 } else { 0.0 };
    x[11] = ln(r.payload_bytes[TO_CLIENT] as f64);
}

fn service(r: &FlowRecord, x: &mut Features) {
    let t = &r.tuple;
    let ports = has_ports(t.protocol);
    x[12] = match t.protocol {
        6 => 0.0,
        17 => 1.0,
        1 | 58 => 2.0,
        _ => 3.0,
    };
    if ports {
        x[13] = service_class(t.dst_port);
        x[14] = ln(f64::from(t.dst_port));
        x[15] = match t.src_port {
            0..=1023 => 0.0,
            1024..=32767 => 1.0,
            _ => 2.0,
        };
    }
}

/// 1 web, 2 names and time, 3 remote login and files, 4 mail, 5 databases, 6 anything else.
fn service_class(port: u16) -> f32 {
    match port {
        80 | 443 | 8000 | 8080 | 8443 => 1.0,
        53 | 67 | 68 | 123 | 137 | 853 | 5353 | 5355 => 2.0,
        20..=23 | 135 | 139 | 445 | 2049 | 3389 | 5900 | 5985 | 5986 => 3.0,
        25 | 110 | 143 | 465 | 587 | 993 | 995 => 4.0,
        1433 | 1521 | 3306 | 5432 | 6379 | 9042 | 9200 | 11211 | 27017 => 5.0,
        _ => 6.0,
    }
}

fn tcp(r: &FlowRecord, x: &mut Features) {
    if r.tuple.protocol != 6 {
        return;
    }
    let [there, back] = r.tcp_flags;
    let sides = |bit: u8| flag(there & bit != 0) + 2.0 * flag(back & bit != 0);
    x[16] = flag(there & SYN != 0 && there & ACK == 0);
    x[17] = sides(RST);
    x[18] = sides(FIN);
    x[19] = flag((there | back) & URG != 0 || (r.packets[TO_SERVER] > 0 && there & (SYN | ACK | RST) == 0));
}

fn sum(both: [u64; 2]) -> f64 {
    both[0] as f64 + both[1] as f64
}

fn ln(x: f64) -> f32 {
    x.max(0.0).ln_1p() as f32
}

fn flag(is: bool) -> f32 {
    if is { 1.0 } else { 0.0 }
}

/// Distinct destinations and services of one source over the current and the previous half window.
#[derive(Clone, Debug, Default)]
struct FanOut {
    epoch: u64,
    destinations: [Bitmap; 2],
    ports: [Bitmap; 2],
}

impl FanOut {
    fn insert(&mut self, epoch: u64, destination: u64, port: u64) {
        if epoch > self.epoch {
            let keep = epoch == self.epoch + 1;
            let old = |b: &[Bitmap; 2]| if keep { b[0] } else { Bitmap::default() };
            self.destinations = [Bitmap::default(), old(&self.destinations)];
            self.ports = [Bitmap::default(), old(&self.ports)];
            self.epoch = epoch;
        }
        self.destinations[0].insert(destination);
        self.ports[0].insert(port);
    }

    fn destinations(&self) -> f64 {
        self.destinations[0].estimate(&self.destinations[1])
    }

    fn ports(&self) -> f64 {
        self.ports[0].estimate(&self.ports[1])
    }
}

/// Linear counting on 512 bits (Whang et al., 1990): good to a few percent up to about 1000, and
/// saturates near 3200.
#[derive(Clone, Copy, Debug, Default)]
struct Bitmap([u64; 8]);

impl Bitmap {
    fn insert(&mut self, hash: u64) {
        let bit = (hash >> 32) as usize % 512;
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    /// Distinct members of the union.
    fn estimate(&self, other: &Bitmap) -> f64 {
        let set: u32 = self.0.iter().zip(other.0).map(|(a, b)| (a | b).count_ones()).sum();
        let empty = f64::from(512 - set).max(1.0);
        -512.0 * (empty / 512.0).ln()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::flow::Spread;
    use crate::packet::Tuple;

    const SECOND: u64 = 1_000_000_000;

    fn at(name: &str) -> usize {
        NAMES.iter().position(|n| *n == name).unwrap()
    }

    fn record(dst: u128, dst_port: u16, emitted: u64) -> FlowRecord {
        FlowRecord {
            tuple: Tuple { src: 1, dst, src_port: 40000, dst_port, protocol: 6, version: 4, ..Tuple::default() },
            start: emitted - SECOND,
            end: emitted,
            emitted,
            packets: [10, 20],
            bytes: [1000, 20_000],
            payload_bytes: [400, 19_000],
            tcp_flags: [0x1b, 0x1b],
            state: FlowState::Closed,
            sizes: Spread { min: 60, max: 1514, ..Spread::default() },
            ..FlowRecord::default()
        }
    }

    #[test]
    fn places_match_their_names() {
        let mut e = Extractor::new(60 * SECOND, 1);
        let x = e.extract(&record(2, 443, 100 * SECOND));
        let near = |name: &str, want: f32| assert!((x[at(name)] - want).abs() < 1e-3, "{name} {}", x[at(name)]);
        near("packets_to_server", 11f32.ln());
        near("bytes_to_client", 20_001f32.ln());
        near("client_byte_share", 20.0 / 21.0);
        near("packet_size_to_server", 100.0);
        near("packet_size_spread", 1454.0);
        near("duration", 1001f32.ln());
        near("packet_rate", 31f32.ln());
        near("payload_share", 19_400.0 / 21_000.0);
        near("service_class", 1.0);
        near("destination_port", 444f32.ln());
        near("source_port_class", 2.0);
        near("fin", 3.0);
        near("reset", 0.0);
        near("state", 3.0);
        near("novelty_hosts", 1.0);
        near("source_destinations", 2f32.ln());
        let again = e.extract(&record(2, 443, 101 * SECOND));
        assert_eq!(again[at("novelty_hosts")], 0.5);
        assert_eq!(again[at("novelty_groups")], 0.5);
    }

    #[test]
    fn fan_out_counts_distinct_things_and_forgets() {
        let mut e = Extractor::new(60 * SECOND, 1);
        for i in 0..200u16 {
            e.extract(&record(5, 1000 + i, 600 * SECOND));
        }
        let x = e.extract(&record(5, 1000, 601 * SECOND));
        let ports = x[at("source_ports")].exp() - 1.0;
        assert!((170.0..230.0).contains(&ports), "{ports}");
        assert!((x[at("source_destinations")].exp() - 2.0).abs() < 0.1);
        let later = e.extract(&record(5, 1000, 700 * SECOND));
        assert!((later[at("source_ports")].exp() - 2.0).abs() < 0.1);
    }

    #[test]
    fn extremes_stay_finite_and_memory_bounded() {
        let mut e = Extractor::new(0, 1);
        let wild = FlowRecord {
            packets: [u64::MAX; 2],
            bytes: [u64::MAX; 2],
            payload_bytes: [u64::MAX; 2],
            start: u64::MAX,
            emitted: u64::MAX,
            sizes: Spread { min: u64::MAX, ..Spread::default() },
            ..FlowRecord::default()
        };
        assert!(e.extract(&wild).iter().all(|v| v.is_finite()));
        assert!(e.extract(&FlowRecord::default()).iter().all(|v| v.is_finite()));
        for i in 0..300_000u128 {
            let mut r = record(i, i as u16, SECOND + i as u64);
            r.tuple.src = i * 7;
            e.extract(&r);
        }
        assert!(e.entries() <= SOURCES + 2 * RELATIONS);
        assert!(e.evicted() > 0);
    }
}
