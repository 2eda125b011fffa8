//! Each detector on made records: at its threshold, just below it, and on ordinary traffic that looks alike.

use super::*;
use crate::behaviour::alert::{Alert, Party};
use crate::config::{Detect, DetectException, DetectSide};
use crate::flow::{EndReason, FlowState, Spread};
use crate::packet::{Arp, Mac, Question, Tuple, from_ip_addr};
use crate::rules::{GroupSetHandle, RuleHandle};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const EPOCH: u64 = 1_700_000_000 * SECOND;

fn addr(text: &str) -> u128 {
    from_ip_addr(text.parse().unwrap()).1
}

/// Detectors, and what they have told.
struct Bench {
    detectors: Detectors,
    flows: u64,
    clock: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(Detect::default())
    }

    fn with(settings: Detect) -> Self {
        Self { detectors: Detectors::new(&settings), flows: 0, clock: 0 }
    }

    /// A record that begins `at` nanoseconds after the epoch.
    fn record(&mut self, at: u64, src: &str, dst: &str, protocol: u8, port: u16, shape: FlowRecord) {
        self.flows += 1;
        let start = EPOCH + at;
        let end = start + shape.end;
        self.clock = self.clock.max(end);
        let ports = if protocol == 1 { (0, 0) } else { (40_000 + (self.flows % 20_000) as u16, port) };
        let (src_port, dst_port) = if shape.tuple.src_port != 0 { (shape.tuple.src_port, port) } else { ports };
        let tuple =
            Tuple { src: addr(src), dst: addr(dst), src_port, dst_port, protocol, version: 4, ..Tuple::default() };
        let record = FlowRecord { flow_id: self.flows, tuple, start, end, emitted: self.clock, ..shape };
        self.detectors.observe(&record);
    }

    fn see(&mut self, at: u64, src: &str, dst: &str, what: Seen) {
        let ends = Tuple {
            src: addr(src),
            dst: addr(dst),
            src_port: 40_000,
            dst_port: 53,
            protocol: 17,
            version: 4,
            ..Tuple::default()
        };
        let tuple = if matches!(what, Seen::Arp(_)) { Tuple::default() } else { ends };
        self.clock = self.clock.max(EPOCH + at);
        self.detectors.see(&Observation { clock: EPOCH + at, index: 0, tuple, flow_id: 7, what });
    }

    /// The final account of everything.
    fn alerts(mut self) -> Vec<Alert> {
        self.detectors.book.close_all(self.clock);
        let events = self.detectors.take_events();
        let closed = events.into_iter().filter_map(|e| match e {
            AlertEvent::Closed(alert) => Some(alert),
            AlertEvent::Opened(_) | AlertEvent::Updated(_) => None,
        });
        closed.collect()
    }

    fn brief(self) -> Vec<String> {
        self.alerts().iter().map(|a| format!("{} {} {}", a.kind.name(), a.actor, a.victim)).collect()
    }
}

/// What `make` does so many times for each of two numbers: no alert after the first, this one after the second.
fn between(below: u64, at: u64, want: &str, make: impl Fn(&mut Bench, u64)) {
    for (times, want) in [(below, vec![]), (at, vec![want.to_owned()])] {
        let mut bench = Bench::new();
        (0..times).for_each(|i| make(&mut bench, i));
        assert_eq!(bench.brief(), want, "{times} times");
    }
}

/// What `make` does a thousand times is nothing.
fn never(make: impl Fn(&mut Bench, u64)) {
    let mut bench = Bench::new();
    (0..1000).for_each(|i| make(&mut bench, i));
    assert_eq!(bench.brief(), Vec::<String>::new());
}

/// A TCP connection that was used and closed.
fn tcp(payload: [u64; 2], lasts: u64) -> FlowRecord {
    let packets = payload.map(|bytes| 4 + bytes / 1400);
    FlowRecord {
        end: lasts,
        packets,
        bytes: [payload[0] + packets[0] * 54, payload[1] + packets[1] * 54],
        payload_bytes: payload,
        tcp_flags: [0x1b, 0x1b],
        state: FlowState::Closed,
        reason: EndReason::Fin,
        ..FlowRecord::default()
    }
}

/// A SYN, and a segment back with these flags if any.
fn syn(back: u8) -> FlowRecord {
    let answered = u64::from(back != 0);
    FlowRecord {
        packets: [1, answered],
        bytes: [60, 60 * answered],
        tcp_flags: [0x02, back],
        state: if back & 0x04 != 0 { FlowState::Closed } else { FlowState::New },
        ..FlowRecord::default()
    }
}

fn datagrams(packets: [u64; 2], size: u64) -> FlowRecord {
    FlowRecord {
        packets,
        bytes: packets.map(|n| n * size),
        payload_bytes: packets.map(|n| n * (size - 42)),
        state: if packets[1] > 0 { FlowState::Established } else { FlowState::New },
        ..FlowRecord::default()
    }
}

/// Echo messages of sizes from `sizes.0` to `sizes.1`.
fn echo(packets: [u64; 2], sizes: (u64, u64)) -> FlowRecord {
    let (min, max) = sizes;
    FlowRecord { icmp: (8, 0), sizes: Spread { min, max, ..Spread::default() }, ..datagrams(packets, min) }
}

/// A number below `n` by chance (splitmix64).
fn chance(i: u64, n: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31) % n
}

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";
const OUT: &str = "203.0.113.9";

#[test]
fn port_scan_fast() {
    between(19, 20, "port_scan 10.0.0.1 10.0.0.2", |b, i| b.record(i * MS, A, B, 6, 1000 + i as u16, syn(0x14)));
    between(19, 20, "port_scan 10.0.0.1 10.0.0.2", |b, i| {
        let stray = FlowRecord { tcp_flags: [0x29, 0], ..syn(0) };
        b.record(i * MS, A, B, 6, 1000 + i as u16, stray);
    });
    // A client that is served on many ports, with a failure now and then.
    never(|b, i| match i % 3 {
        0 => b.record(i * MS, A, B, 6, 1000 + i as u16, syn(0x14)),
        _ => b.record(i * MS, A, B, 6, 1000 + i as u16, tcp([300, 900], SECOND)),
    });
}

#[test]
fn port_scan_slow_and_by_many() {
    // One port in 80 seconds: never twenty a minute, but forty an hour.
    between(39, 40, "port_scan 10.0.0.1 10.0.0.2", |b, i| b.record(i * 80 * SECOND, A, B, 6, 1 + i as u16, syn(0)));
    let source = |i: u64| format!("10.0.1.{}", i % 6);
    between(99, 100, "port_scan many 10.0.0.2", |b, i| b.record(i * MS, &source(i), B, 6, 1000 + i as u16, syn(0x14)));
    // Several hosts with the same few closed ports.
    never(|b, i| b.record(i * SECOND, &source(i), B, 6, 1000 + (i % 15) as u16, syn(0x14)));
}

#[test]
fn sweeps() {
    let host = |i: u64| format!("10.0.{}.{}", i / 250, i % 250);
    between(19, 20, "host_sweep 10.1.0.1 many", |b, i| b.record(i * MS, "10.1.0.1", &host(i), 6, 8080, syn(0)));
    between(7, 8, "host_sweep 10.1.0.1 many", |b, i| b.record(i * MS, "10.1.0.1", &host(i), 6, 445, syn(0)));
    // A browser whose uplink is down tries a few sites; a management host finds one in four machines off.
    let mut bench = Bench::new();
    (0..19).for_each(|i| bench.record(i * MS, A, &format!("203.0.113.{i}"), 6, 443, syn(0)));
    (0..200).for_each(|i| {
        let shape = if i % 4 == 0 { syn(0) } else { tcp([3000, 9000], SECOND) };
        bench.record(i * SECOND, "10.1.0.1", &host(i), 6, 22, shape);
    });
    assert_eq!(bench.brief(), Vec::<String>::new());
}

#[test]
fn ping_sweep_counts_the_answered() {
    let host = |i: u64| format!("10.0.0.{i}");
    let ping = |i: u64| echo([1, u64::from(!i.is_multiple_of(3))], (60, 60));
    between(14, 15, "host_sweep 10.1.0.1 many", |b, i| b.record(i * MS, "10.1.0.1", &host(i), 1, 0, ping(i)));
    // Monitoring: two hundred machines each minute, all but a few alive.
    never(|b, i| {
        let alive = u64::from(!i.is_multiple_of(20));
        b.record(i * 300 * MS, "10.1.0.1", &host(i % 200), 1, 0, echo([3, 3 * alive], (98, 98)));
    });
}

#[test]
fn floods() {
    between(499, 500, "syn_flood 203.0.113.9 10.0.0.2", |b, i| b.record(i * MS, OUT, B, 6, 443, syn(0)));
    never(|b, i| b.record(i * MS, OUT, B, 6, 443, if i % 4 == 0 { syn(0) } else { tcp([300, 900], SECOND) }));
    between(49, 50, "udp_flood 203.0.113.9 10.0.0.2", |b, i| b.record(i * MS, OUT, B, 17, 9, datagrams([100, 0], 500)));
    // A call, and a camera: fifty and five hundred packets a second one way.
    never(|b, i| b.record(i * SECOND, A, B, 17, 9000, FlowRecord { end: SECOND, ..datagrams([500, 0], 800) }));
    between(49, 50, "icmp_flood 203.0.113.9 10.0.0.2", |b, i| {
        b.record(i * MS, OUT, B, 1, 0, echo([100, 100], (98, 98)));
    });
    never(|b, i| b.record(i * SECOND, A, B, 1, 0, echo([10, 10], (98, 98))));
}

#[test]
fn amplification() {
    let from = |i: u64| format!("203.0.{}.{}", i / 250, i % 250);
    let answer = |port| FlowRecord { tuple: Tuple { src_port: port, ..Tuple::default() }, ..datagrams([10, 0], 1400) };
    between(99, 100, "amplification many 10.0.0.2", |b, i| b.record(i * MS, &from(i), B, 17, 80, answer(123)));
    // Somebody inside is used: questions of 60 bytes, answers of 4000.
    between(34, 40, "amplification 10.0.0.1 203.0.113.9", |b, i| {
        let shape = FlowRecord { bytes: [600, 42_000], ..datagrams([10, 30], 60) };
        b.record(i * MS, OUT, A, 17, 53, shape);
    });
    // A resolver: answers three to nine times as large as questions.
    never(|b, i| b.record(i * MS, A, &from(i), 17, 53, FlowRecord { bytes: [80, 700], ..datagrams([1, 1], 80) }));
    // Refusals that come after the question was given up.
    let mut bench = Bench::new();
    for i in 0..2000u64 {
        bench.record(i * MS, A, OUT, 6, 80, syn(0));
        let late = FlowRecord { packets: [0, 1], bytes: [0, 60], tcp_flags: [0, 0x14], ..FlowRecord::default() };
        bench.record(20 * SECOND + i * MS, A, OUT, 6, 80, late);
    }
    assert!(!bench.brief().iter().any(|brief| brief.starts_with("amplification")));
}

#[test]
fn brute_force() {
    let guess = || tcp([900, 1500], 2 * SECOND);
    between(19, 20, "brute_force 203.0.113.9 10.0.0.2", |b, i| b.record(i * SECOND, OUT, B, 6, 22, guess()));
    between(19, 20, "brute_force 203.0.113.9 10.0.0.2", |b, i| b.record(i * SECOND, OUT, B, 6, 3389, guess()));
    // Web pages, mail boxes and directories are short connections by nature; work over ssh is not.
    for port in [80, 443, 389, 88, 143, 8080] {
        never(|b, i| b.record(i * 50 * MS, A, B, 6, port, guess()));
    }
    never(|b, i| b.record(i * SECOND, A, B, 6, 22, tcp([90_000, 900_000], 300 * SECOND)));
    // A check of the service every ten seconds.
    never(|b, i| b.record(i * 10 * SECOND, A, B, 6, 22, guess()));
}

#[test]
fn slow_http() {
    let slow = || FlowRecord { end: 30 * SECOND, ..tcp([300, 400], 0) };
    between(49, 50, "slow_http 203.0.113.9 10.0.0.2", |b, i| b.record(i * 100 * MS, OUT, B, 6, 80, slow()));
    // Browsers that got their page and keep the connection.
    never(|b, i| b.record(i * 50 * MS, OUT, B, 6, 80, FlowRecord { end: 60 * SECOND, ..tcp([700, 30_000], 0) }));
    // A few long polls among ordinary requests.
    never(|b, i| match i % 3 {
        0 => b.record(i * 50 * MS, OUT, B, 6, 80, slow()),
        _ => b.record(i * 50 * MS, OUT, B, 6, 80, tcp([400, 5000], SECOND)),
    });
}

#[test]
fn dns_tunnel() {
    let domain = crate::packet::Domain::new(b"tunnel.example");
    let name = move |name: u64| Seen::Question(Question { domain, name, carried: 40 });
    between(9, 10, "dns_tunnel 10.0.0.1 10.0.0.2", |b, i| b.see(i * SECOND, A, B, name(i)));
    // The same few names again and again, and many names, one in seven seconds.
    never(|b, i| b.see(i * 100 * MS, A, B, name(i % 9)));
    never(|b, i| b.see(i * 7 * SECOND, A, B, name(i)));
    let mut bench = Bench::new();
    (0..30).for_each(|i| bench.see(i * SECOND, A, B, name(i)));
    let alerts = bench.alerts();
    let alert = &alerts[0];
    assert_eq!((alert.count, alert.evidence.domain), (30, Some(domain)));
    assert_eq!((alert.evidence.flow_ids.as_slice(), alert.evidence.ports.as_slice()), (&[7][..], &[53][..]));
}

#[test]
fn icmp_tunnel() {
    between(49, 50, "icmp_tunnel 10.0.0.1 203.0.113.9", |b, i| b.record(i * MS, A, OUT, 1, 0, echo([1, 0], (98, 900))));
    // An echo that is larger than what it answers; an echo that came first.
    between(24, 25, "icmp_tunnel 10.0.0.1 203.0.113.9", |b, i| {
        b.record(i * MS, A, OUT, 1, 0, FlowRecord { bytes: [90, 900], ..echo([1, 1], (90, 90)) });
    });
    between(24, 25, "icmp_tunnel 10.0.0.1 203.0.113.9", |b, i| {
        b.record(i * MS, OUT, A, 1, 0, FlowRecord { icmp: (0, 0), ..echo([1, 1], (90, 900)) });
    });
    // Pings, large ones too, and the search for the MTU now and then.
    never(|b, i| b.record(i * SECOND, A, OUT, 1, 0, echo([2, 2], (1472, 1472))));
    never(|b, i| b.record(i * 60 * SECOND, A, OUT, 1, 0, echo([12, 11], (98, 1000))));
    // A ping of three fragments.
    never(|b, i| b.record(i * SECOND, A, OUT, 1, 0, echo([3, 3], (98, 1514))));
}

#[test]
fn exfiltration() {
    let up = |b: &mut Bench, i: u64, payload| {
        b.record((i * 10 + chance(i, 400)) * SECOND, A, OUT, 6, 443, tcp(payload, SECOND));
    };
    between(9, 10, "exfiltration 10.0.0.1 203.0.113.9", |b, i| up(b, i, [20_000_000, 6_000_000]));
    // Hardly anything comes back: a tenth is enough.
    between(9, 10, "exfiltration 10.0.0.1 203.0.113.9", |b, i| up(b, i, [2_000_000, 10_000]));
    // Both ways, inside, downloads.
    never(|b, i| up(b, i, [20_000_000, 16_000_000]));
    never(|b, i| b.record(i * SECOND, A, B, 6, 873, tcp([900_000_000, 3000], SECOND)));
    never(|b, i| up(b, i, [400_000, 50_000_000]));
}

#[test]
fn beacon() {
    // Every half minute, a tenth early or late.
    let at = |i: u64| i * 30 * SECOND + (i * 7919 % 60) * 100 * MS;
    let want = "beacon 10.0.0.1 203.0.113.9";
    between(19, 20, want, |b, i| b.record(at(i), A, OUT, 6, 443, tcp([500, 500], SECOND)));
    between(19, 20, want, |b, i| b.record(at(i), A, OUT, 6, 1337, syn(0x14)));
    let mut bench = Bench::new();
    (0..40).for_each(|i| bench.record(at(i), A, OUT, 6, 443, tcp([500, 500], SECOND)));
    let alerts = bench.alerts();
    let rhythm = alerts[0].evidence.rhythm.unwrap();
    assert!((29.0..31.0).contains(&rhythm.period) && rhythm.jitter < 0.1, "{rhythm:?}");
    assert_eq!((alerts[0].count, alerts[0].severity), (40, 3));
    // A person: bursts, and pauses of any length. A check inside. The time.
    let bursts = |i: u64| (i / 5 * 40 + chance(i / 5, 35)) * SECOND + (i % 5) * 300 * MS;
    // Contacts at random, forty seconds apart in the mean.
    let gap = |i: u64| (-((chance(i, 1_000_000) + 1) as f64 / 1e6).ln() * 40e9) as u64;
    let visits: Vec<u64> = (0..1000).scan(0, |at, i| Some(std::mem::replace(at, *at + gap(i)))).collect();
    never(|b, i| b.record(bursts(i), A, OUT, 6, 443, tcp([500, 9000], SECOND)));
    never(|b, i| b.record(visits[i as usize], A, OUT, 6, 443, tcp([500, 9000], SECOND)));
    never(|b, i| b.record(at(i), A, B, 6, 443, tcp([500, 500], SECOND)));
    never(|b, i| b.record(at(i), A, OUT, 17, 123, datagrams([1, 1], 90)));
}

fn arp(operation: u16, mac: u8, from: &str, to: &str) -> Seen {
    let ip = |text: &str| addr(text) as u32;
    let sender_mac = Mac([2, 0, 0, 0, 0, mac]);
    Seen::Arp(Arp { operation, sender_mac, sender_ip: ip(from), target_mac: Mac::default(), target_ip: ip(to) })
}

#[test]
fn arp_spoof_by_answers_nobody_asked_for() {
    // Each by itself: three of them.
    between(2, 3, "arp_spoof 02:00:00:00:00:66 10.0.0.1", |b, i| b.see(i * 2 * SECOND, A, B, arp(2, 0x66, A, B)));
    // One, by a station that has an address of its own.
    let mut bench = Bench::new();
    bench.see(0, A, B, arp(1, 0x66, "10.0.0.66", A));
    bench.see(SECOND, A, B, arp(2, 0x66, A, B));
    let alerts = bench.alerts();
    assert_eq!((alerts[0].kind, alerts[0].severity), (AlertKind::ArpSpoof, 2));
    assert_eq!((alerts[0].actor.to_string(), alerts[0].victim.to_string()), ("10.0.0.66".into(), A.into()));
    assert_eq!(alerts[0].evidence.hosts[0].ip().to_string(), B);
    assert_eq!(alerts[0].evidence.macs[0].to_string(), "02:00:00:00:00:66");
    // Questions and answers, announcements, a router with two addresses, a virtual router that moves.
    never(|b, i| {
        let at = i * SECOND;
        b.see(at, A, B, arp(1, 2, B, A));
        b.see(at + MS, A, B, arp(2, 1, A, B));
        b.see(at + MS, A, B, arp(2, 1, "10.0.0.254", "10.0.0.254"));
        let virtual_mac = Mac([0, 0, 0x5e, 0, 1, (i % 2) as u8]);
        let Seen::Arp(own) = arp(2, 1, "10.0.0.253", B) else { return };
        b.see(at + MS, A, B, Seen::Arp(Arp { sender_mac: virtual_mac, ..own }));
    });
}

#[test]
fn arp_spoof_by_an_address_that_goes_back_and_forth() {
    let announce = |b: &mut Bench, i: u64, mac| b.see(i * SECOND, A, B, arp(1, mac, A, A));
    between(4, 5, "arp_spoof 02:00:00:00:00:66 10.0.0.1", |b, i| announce(b, i, if i % 2 == 0 { 1 } else { 0x66 }));
    // A machine is replaced.
    never(|b, i| announce(b, i, if i < 500 { 1 } else { 2 }));
}

#[test]
fn arp_sweep() {
    let host = |i: u64| format!("10.0.{}.{}", i / 250, 10 + i % 240);
    between(29, 30, "host_sweep 10.0.0.1 many", |b, i| b.see(i * MS, A, B, arp(1, 1, A, &host(i))));
    // A router asks for hosts that answer.
    never(|b, i| {
        b.see(i * 20 * MS, A, B, arp(1, 1, A, &host(i)));
        b.see(i * 20 * MS + MS, A, B, arp(2, (2 + i % 200) as u8, &host(i), A));
    });
}

#[test]
fn new_relationships() {
    const DAY: u64 = 86_400 * SECOND;
    let shell = || tcp([9000, 90_000], 300 * SECOND);
    let learnt = || {
        let mut bench = Bench::new();
        (0..1000).for_each(|i| bench.record(i * 60 * SECOND, A, B, 6, 22, shell()));
        bench
    };
    let mut bench = learnt();
    bench.record(DAY - SECOND, A, "10.0.0.3", 6, 22, shell());
    bench.record(DAY + SECOND, A, B, 6, 22, shell());
    bench.record(DAY + SECOND, A, "10.0.0.4", 6, 80, shell());
    bench.record(DAY + SECOND, A, "10.0.0.5", 6, 22, syn(0x14));
    assert_eq!(bench.brief(), Vec::<String>::new(), "known, no administration, refused");
    let mut bench = learnt();
    bench.record(DAY + SECOND, B, A, 6, 445, shell());
    bench.record(DAY + 2 * SECOND, B, A, 6, 445, shell());
    assert_eq!(bench.brief(), ["new_relationship 10.0.0.2 10.0.0.1"]);
    // Moving on: many at once is worse.
    let mut bench = learnt();
    (0..12).for_each(|i| bench.record(DAY + i * SECOND, B, &format!("10.0.2.{i}"), 6, 5985, shell()));
    let alerts = bench.alerts();
    assert_eq!((alerts.len(), alerts[0].victim, alerts[0].count, alerts[0].severity), (1, Party::Many, 12, 2));
    // Groups that meet for the first time; hosts of groups that met before.
    let of = |src, dst| FlowRecord { src_groups: GroupSetHandle(src), dst_groups: GroupSetHandle(dst), ..shell() };
    let mut bench = learnt();
    bench.record(DAY - SECOND, A, B, 6, 8080, of(1, 2));
    bench.record(DAY - SECOND, A, B, 6, 22, of(4, 5));
    bench.record(DAY + SECOND, A, B, 6, 8080, of(1, 2));
    bench.record(DAY + SECOND, A, OUT, 6, 8080, of(0, 3));
    bench.record(DAY + SECOND, A, OUT, 6, 8080, of(1, 3));
    bench.record(DAY + SECOND, A, "10.0.0.77", 6, 22, of(4, 5));
    bench.record(DAY + SECOND, A, "10.0.0.78", 1, 0, FlowRecord { icmp: (8, 0), ..of(5, 4) });
    assert_eq!(bench.brief(), ["new_relationship 10.0.0.1 203.0.113.9"]);
}

#[test]
fn sudden_volume() {
    let period = 600 * SECOND;
    let send = |b: &mut Bench, i: u64, bytes: u64| b.record(i * period, A, B, 6, 443, tcp([bytes, bytes], SECOND));
    let after = |periods: u64, bytes: u64| {
        let mut bench = Bench::new();
        (0..periods).for_each(|i| send(&mut bench, i, 150_000_000));
        send(&mut bench, periods, bytes);
        bench.brief()
    };
    // Both ends are inside, and both send.
    assert_eq!(after(13, 1_300_000_000), Vec::<String>::new());
    assert_eq!(after(13, 1_700_000_000), ["volume 10.0.0.1 many", "volume 10.0.0.2 many"]);
    assert_eq!(after(5, 1_700_000_000), Vec::<String>::new(), "too early to say");
}

#[test]
fn exceptions_and_evidence() {
    let side = |net: &str| Some(DetectSide { nets: vec![net.parse().unwrap()], ..DetectSide::default() });
    let kinds = vec![AlertKind::PortScan];
    let scanner = DetectException { kinds, from: side("10.0.0.1/32"), ..DetectException::default() };
    let web = DetectException {
        kinds: vec![AlertKind::SynFlood],
        to: side("10.0.0.2/32"),
        threshold: Some(1800),
        ..DetectException::default()
    };
    let mut bench = Bench::with(Detect { exceptions: vec![scanner, web], ..Detect::default() });
    for i in 0..1500u64 {
        bench.record(i * MS, A, B, 6, i as u16, syn(0x14));
        bench.record(i * MS, OUT, B, 6, 443, syn(0));
        let ruled = FlowRecord { rule: RuleHandle(3), ..syn(0x14) };
        bench.record(i * MS, "10.0.0.3", B, 6, 1 + (i % 30) as u16, ruled);
    }
    let alerts = bench.alerts();
    let brief: Vec<String> = alerts.iter().map(|a| format!("{} {}", a.kind.name(), a.actor)).collect();
    // 1500 half-open ones, and 1500 refused ones that weigh a quarter each.
    assert_eq!(brief, ["port_scan 10.0.0.3", "syn_flood 203.0.113.9"]);
    assert!(alerts[1].evidence.peak >= 1800 && alerts[1].evidence.threshold == 1800);
    let evidence = &alerts[0].evidence;
    assert_eq!((evidence.rules.as_slice(), evidence.threshold), (&[RuleHandle(3)][..], 20));
}

#[test]
fn an_episode_goes_on_at_half_the_threshold_and_ends_after_quiet() {
    let mut bench = Bench::new();
    let mut guess = |at: u64| bench.record(at, OUT, B, 6, 22, tcp([900, 1500], SECOND));
    (0..20).for_each(|i| guess(i * SECOND));
    // Eleven a minute keep it open, five do not.
    (0..22).for_each(|i| guess(60 * SECOND + i * 5 * SECOND));
    (0..60).for_each(|i| guess(200 * SECOND + i * 12 * SECOND));
    (0..20).for_each(|i| guess(2000 * SECOND + i * SECOND));
    let alerts = bench.alerts();
    assert_eq!(alerts.len(), 2, "{alerts:#?}");
    assert!((35..=45).contains(&alerts[0].count), "{}", alerts[0].count);
    assert_eq!(alerts[1].count, 20);
}
