//! The table against a model that keeps every packet of a flow in a list and works out records from the lists.

mod sweeps;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::Timeouts;
use crate::packet::{FlowKey, Tuple};
use crate::rules::{Decision, GroupSetHandle, RuleHandle, Verdict};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const PSH_ACK: u8 = 24;

fn timeouts() -> Timeouts {
    Timeouts {
        tcp_opening: Duration::from_nanos(30),
        tcp_established: Duration::from_nanos(300),
        tcp_syn_received: Duration::from_nanos(30),
        tcp_closing: Duration::from_nanos(300),
        tcp_closed: Duration::from_nanos(10),
        udp: Duration::from_nanos(40),
        udp_answered: Duration::from_nanos(40),
        icmp: Duration::from_nanos(20),
        other: Duration::from_nanos(50),
        active: Duration::from_nanos(60),
        fragments: Duration::from_nanos(30),
    }
}

fn table(capacity: usize) -> FlowTable {
    FlowTable::new(capacity, &timeouts(), 7)
}

fn connection(n: u32) -> Tuple {
    let protocol = [6, 6, 17, 1, 132, 58][n as usize % 6];
    // As an echo has its identifier.
    let (src_port, dst_port) = if matches!(protocol, 1 | 58) { (77, 77) } else { (40_000, 80) };
    Tuple {
        src: (0x0a00_0001 + u128::from(n)) | u128::from(n % 2) << 100,
        dst: 0x0a00_0100,
        src_port,
        dst_port,
        protocol,
        version: if n.is_multiple_of(2) { 4 } else { 6 },
        vlan: (n / 2 % 3) as u16 * 100,
        vni: n / 6 % 2 * 0x00ab_cdef,
    }
}

fn tcp(n: u32, to_client: bool, flags: u8, clock_ns: u64) -> FlowPacket {
    let tuple = Tuple {
        src: u128::from(n) + 1000,
        dst: 1,
        src_port: 5,
        dst_port: 80,
        protocol: 6,
        version: 4,
        ..Tuple::default()
    };
    let tuple = if to_client { tuple.reversed() } else { tuple };
    // A SYN at another time is another one.
    let tcp_seq = if flags & (SYN | ACK) == SYN { (clock_ns as u32).wrapping_mul(100_000) } else { 0 };
    FlowPacket { tuple, clock_ns, bytes: 60, tcp_flags: flags, tcp_seq, ..FlowPacket::default() }
}

fn prepared(table: &FlowTable, tuple: &Tuple) -> Lookup {
    let mut lookup = Lookup::default();
    table.prepare(tuple, &mut lookup);
    lookup
}

fn establish(table: &mut FlowTable, n: u32, clock: u64, sink: &mut Vec<FlowRecord>) {
    table.touch(&tcp(n, false, SYN, clock), sink).unwrap();
    table.touch(&tcp(n, true, SYN | ACK, clock), sink).unwrap();
    let touch = table.touch(&tcp(n, false, ACK, clock), sink).unwrap();
    assert_eq!(table.entry(touch.ix).state(), FlowState::Established);
}

/// Everything of a record but its id, which the model does not know, and the deviations, which are compared apart.
fn without_id(record: &FlowRecord) -> FlowRecord {
    let exact = |spread: Spread| Spread { sd: 0.0, ..spread };
    let sizes = exact(record.sizes);
    // What TCP sequence numbers say has tests of its own.
    FlowRecord { flow_id: 0, sizes, gaps: exact(record.gaps), handshake_rtt: None, retransmissions: [0; 2], ..*record }
}

/// From the definition, in two passes.
fn spread_of(values: &[u64]) -> Spread {
    if values.is_empty() {
        return Spread::default();
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<u64>() as f64 / count;
    let variance = values.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / count;
    Spread { min: *values.iter().min().unwrap(), max: *values.iter().max().unwrap(), mean, sd: variance.sqrt() }
}

fn deviations_agree(ours: &[FlowRecord], models: &[FlowRecord]) {
    for (ours, models) in ours.iter().zip(models) {
        for (ours, models) in [(ours.sizes, models.sizes), (ours.gaps, models.gaps)] {
            assert!((ours.sd - models.sd).abs() <= 1e-4 * (models.mean + 1.0), "{ours:?} {models:?}");
        }
    }
}

fn sorted(mut records: Vec<FlowRecord>) -> Vec<FlowRecord> {
    records.sort_by_key(|r| (r.emitted, r.start, r.flow_id, r.tuple, r.end));
    records
}

// The model.

struct ModelFlow {
    initiator: Tuple,
    packets: Vec<FlowPacket>,
    /// First packet of the current slice.
    cut: usize,
}

impl ModelFlow {
    fn sent_by_initiator(&self, packet: &FlowPacket) -> bool {
        packet.tuple == self.initiator
    }

    fn first(&self, is_it: impl Fn(&FlowPacket) -> bool) -> Option<usize> {
        self.packets.iter().position(is_it)
    }

    fn any(&self, client: bool, is_it: impl Fn(u8) -> bool) -> Option<usize> {
        self.first(|p| {
            !p.later_fragment && self.sent_by_initiator(p) == client && p.tcp_flags & RST == 0 && is_it(p.tcp_flags)
        })
    }

    fn state(&self) -> (FlowState, Option<EndReason>) {
        if self.initiator.protocol != 6 {
            let both = [true, false].map(|side| self.first(|p| self.sent_by_initiator(p) == side));
            return (if both.iter().all(Option::is_some) { FlowState::Established } else { FlowState::New }, None);
        }
        let reset = self.first(|p| !p.later_fragment && p.tcp_flags & RST != 0).unwrap_or(usize::MAX);
        let fins =
            [true, false].map(|side| self.any(side, |f| f & (SYN | FIN | ACK) == FIN | ACK).unwrap_or(usize::MAX));
        let finished = fins[0].max(fins[1]);
        if reset != usize::MAX || finished != usize::MAX {
            return (FlowState::Closed, Some(if finished < reset { EndReason::Fin } else { EndReason::Rst }));
        }
        let acked = |side| self.any(side, |f| f & (SYN | ACK) == ACK).is_some();
        let answered = |side| self.any(side, |f| f & (SYN | ACK) == SYN | ACK).is_some();
        let shaken = acked(true) && (acked(false) || answered(false)) || acked(false) && answered(true);
        let state = match (shaken, fins.iter().any(|f| *f != usize::MAX)) {
            (false, _) => FlowState::New,
            (true, false) => FlowState::Established,
            (true, true) => FlowState::Closing,
        };
        (state, None)
    }

    fn record(&self, reason: EndReason, emitted: u64) -> FlowRecord {
        let slice = &self.packets[self.cut..];
        let last = self.packets.last().unwrap().clock_ns;
        let first = &self.packets[0];
        let sum = |of: fn(&FlowPacket) -> u64| {
            [true, false].map(|side| slice.iter().filter(|p| self.sent_by_initiator(p) == side).map(of).sum())
        };
        let flags = [true, false].map(|side| {
            let own = slice.iter().filter(|p| self.sent_by_initiator(p) == side && !p.later_fragment);
            own.fold(0, |all, p| if p.tuple.protocol == 6 { all | p.tcp_flags } else { all })
        });
        let is_from_service = match first.tuple.protocol {
            6 => first.tcp_flags & SYN == 0,
            protocol => matches!(protocol, 17 | 132),
        };
        let ports = (first.tuple.src_port, first.tuple.dst_port);
        let turned = is_from_service && ports == (80, 40_000) && !first.later_fragment;
        let record = FlowRecord {
            tuple: self.initiator,
            start: slice.first().map_or(last, |p| p.clock_ns),
            end: last,
            emitted,
            packets: sum(|_| 1),
            bytes: sum(|p| p.bytes.into()),
            payload_bytes: sum(|p| p.payload_bytes.into()),
            tcp_flags: flags,
            icmp: match (self.initiator.protocol, first.later_fragment) {
                (1 | 58, false) => first.icmp,
                _ => (0, 0),
            },
            state: self.state().0,
            reason,
            sizes: spread_of(&slice.iter().map(|p| p.bytes.into()).collect::<Vec<_>>()),
            gaps: spread_of(&slice.windows(2).map(|p| p[1].clock_ns - p[0].clock_ns).collect::<Vec<_>>()),
            ..FlowRecord::default()
        };
        if turned { record.turned() } else { record }
    }

    fn end(&self, otherwise: EndReason, emitted: u64) -> FlowRecord {
        self.record(self.state().1.unwrap_or(otherwise), emitted)
    }

    /// Emits what happened before `clock`; true when the flow ended.
    fn settle(&mut self, clock: u64, out: &mut Vec<FlowRecord>) -> bool {
        let timeout = match (self.initiator.protocol, self.state().0) {
            (6, FlowState::New) => 30,
            (6, FlowState::Closed) => 10,
            (6, _) => 300,
            (17, _) => 40,
            (1 | 58, _) => 20,
            _ => 50,
        };
        let ends = self.packets.last().unwrap().clock_ns + timeout;
        if let Some(first) = self.packets.get(self.cut) {
            let slice_ends = first.clock_ns + 60;
            if slice_ends < ends && slice_ends < clock {
                out.push(self.record(EndReason::Active, slice_ends));
                self.cut = self.packets.len();
            }
        }
        if ends < clock {
            out.push(self.end(EndReason::Idle, ends));
        }
        ends < clock
    }
}

fn model(packets: &[FlowPacket], finish: u64) -> Vec<FlowRecord> {
    let mut out = Vec::new();
    let mut flows: HashMap<FlowKey, ModelFlow> = HashMap::new();
    for packet in packets {
        let key = FlowKey::of(packet.tuple).0;
        let whole_tcp = packet.tuple.protocol == 6 && !packet.later_fragment;
        let control = if whole_tcp { packet.tcp_flags & (SYN | ACK | RST) } else { 0 };
        if let Some(mut flow) = flows.remove(&key)
            && !flow.settle(packet.clock_ns, &mut out)
        {
            let is_stray = flow.state().0 == FlowState::New
                && flow.first(|p| p.tcp_flags & (SYN | RST) == SYN && !p.later_fragment).is_none();
            if (flow.state().0 == FlowState::Closed || is_stray) && control == SYN {
                out.push(flow.end(EndReason::Idle, packet.clock_ns));
            } else {
                flow.packets.push(*packet);
                flows.insert(key, flow);
                continue;
            }
        }
        let initiator = if control == SYN | ACK { packet.tuple.reversed() } else { packet.tuple };
        flows.insert(key, ModelFlow { initiator, packets: vec![*packet], cut: 0 });
    }
    for mut flow in flows.into_values() {
        if !flow.settle(finish, &mut out) {
            out.push(flow.end(EndReason::Forced, finish));
        }
    }
    out
}

// The table, with sweeps at random times.

#[derive(Clone, Copy, Debug)]
struct Sweep {
    places: usize,
    /// None when this is 0.
    looks: usize,
    /// Share in percent of the gap before the packet.
    when: u64,
}

fn run(packets: &[FlowPacket], sweeps: &[Sweep], capacity: usize, finish: u64) -> (Vec<FlowRecord>, FlowStats) {
    let mut table = table(capacity);
    let mut out = Vec::new();
    let mut promises = Vec::new();
    let mut before = 0;
    for (packet, sweep) in packets.iter().zip(sweeps.iter().cycle()) {
        if sweep.looks > 0 {
            let clock = before + (u128::from(packet.clock_ns - before) * u128::from(sweep.when) / 100) as u64;
            if table.sweep(clock, Effort { places: sweep.places, looks: sweep.looks }, &mut out) {
                promises.push((table.watermark(), out.len()));
            }
        }
        let _ = table.touch(packet, &mut out);
        before = packet.clock_ns;
    }
    table.finish(finish, &mut out);
    for (watermark, handed_out) in promises {
        assert!(out[handed_out..].iter().all(|r| r.emitted > watermark), "late for watermark {watermark}");
    }
    let stats = table.stats();
    assert_eq!(stats.live, 0);
    assert!(stats.high_water <= capacity.max(1));
    (out, stats)
}

fn traffic(connections: u32) -> impl Strategy<Value = Vec<FlowPacket>> {
    let gap = prop_oneof![5 => 0u64..3, 3 => 5u64..15, 2 => 20u64..70, 1 => 100u64..400];
    let flags = prop::sample::select(vec![
        SYN,
        SYN,
        SYN | ACK,
        SYN | ACK,
        ACK,
        ACK,
        PSH_ACK,
        PSH_ACK,
        FIN | ACK,
        FIN,
        RST,
        RST | ACK,
        SYN | RST,
        SYN | FIN,
        0,
        FIN | RST,
    ]);
    let packet = (0..connections, any::<bool>(), gap, flags, 60u32..1500, 0u32..5);
    prop::collection::vec(packet, 1..250).prop_map(|packets| {
        let mut clock_ns = 1_000_000;
        let mut frames = Vec::new();
        for (n, back, gap, tcp_flags, bytes, dice) in packets {
            clock_ns += gap;
            let tuple = if back { connection(n).reversed() } else { connection(n) };
            let (icmp, later_fragment) = ((8 * u8::from(!back), dice as u8), dice == 0);
            frames.push(FlowPacket {
                tuple,
                clock_ns,
                bytes,
                payload_bytes: bytes - 54,
                tcp_flags,
                // Each SYN is another one.
                tcp_seq: if tcp_flags & SYN != 0 { frames.len() as u32 * 1_000_000 } else { 0 },
                icmp,
                later_fragment,
                ..FlowPacket::default()
            });
        }
        frames
    })
}

fn sweeps() -> impl Strategy<Value = Vec<Sweep>> {
    let sweep = (0usize..20, 0usize..30, 0u64..=100).prop_map(|(places, looks, when)| Sweep { places, looks, when });
    prop::collection::vec(sweep, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn records_are_the_models_whatever_the_sweeps(packets in traffic(6), some in sweeps(), others in sweeps(), more in 0u64..500) {
        let finish = packets.last().map_or(0, |p| p.clock_ns) + more;
        let (one, _) = run(&packets, &some, 64, finish);
        let (two, _) = run(&packets, &others, 64, finish);
        prop_assert_eq!(sorted(one.clone()), sorted(two));
        let expected = sorted(model(&packets, finish));
        let found = sorted(one.iter().map(|r| FlowRecord { flow_id: 0, ..*r }).collect());
        deviations_agree(&found, &expected);
        let exact = |records: &[FlowRecord]| records.iter().map(without_id).collect::<Vec<_>>();
        prop_assert_eq!(exact(&found), exact(&expected));
        let ends: BTreeSet<u64> = one.iter().filter(|r| r.reason != EndReason::Active).map(|r| r.flow_id).collect();
        let flows = one.iter().filter(|r| r.reason != EndReason::Active).count();
        prop_assert_eq!(ends.len(), flows, "one end and one id a flow");
        prop_assert!(one.iter().all(|r| ends.contains(&r.flow_id)));
    }

    #[test]
    fn two_workers_record_what_one_does(packets in traffic(12), some in sweeps(), others in sweeps()) {
        let finish = packets.last().map_or(0, |p| p.clock_ns);
        let (one, _) = run(&packets, &some, 64, finish);
        let (left, right): (Vec<_>, Vec<_>) = packets.iter().partition(|p| FlowKey::of(p.tuple).0.hash(99).is_multiple_of(2));
        let mut both = run(&left, &others, 32, finish).0;
        both.extend(run(&right, &some, 48, finish).0);
        prop_assert_eq!(sorted(one), sorted(both));
    }

    #[test]
    fn a_small_table_loses_no_packet_and_no_count(packets in traffic(40), sweeps in sweeps(), capacity in 0usize..9) {
        let finish = packets.last().map_or(0, |p| p.clock_ns);
        let (records, stats) = run(&packets, &sweeps, capacity, finish);
        let counted: u64 = records.iter().map(|r| r.packets[0] + r.packets[1]).sum();
        prop_assert_eq!(counted + stats.table_full, packets.len() as u64);
        let ends: Vec<_> = records.iter().filter(|r| r.reason != EndReason::Active).collect();
        prop_assert_eq!(ends.len() as u64, stats.inserted);
        prop_assert_eq!(stats.inserted, stats.expired + stats.evicted());
        let ids: BTreeSet<u64> = ends.iter().map(|r| r.flow_id).collect();
        prop_assert_eq!(ids.len(), ends.len());
        prop_assert!(ends.iter().filter(|r| r.reason == EndReason::Evicted).count() as u64 <= stats.evicted());
    }

    #[test]
    fn burst_steps_do_what_touch_does(packets in traffic(20), capacity in 1usize..30, burst in 1usize..32) {
        let (mut plain, mut stepped) = (table(capacity), table(capacity));
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        for chunk in packets.chunks(burst) {
            let mut lookups: Vec<_> = chunk.iter().map(|p| prepared(&stepped, &p.tuple)).collect();
            lookups.iter_mut().for_each(|lookup| stepped.locate(lookup));
            for (packet, lookup) in chunk.iter().zip(&lookups) {
                let touched = stepped.touch_prepared(packet, lookup, &mut found);
                prop_assert_eq!(touched, plain.touch(packet, &mut expected));
            }
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(stepped.stats(), plain.stats());
    }
}

#[test]
fn a_flow_that_ended_after_it_was_located_is_begun_anew() {
    let mut table = table(10);
    let mut sink = Vec::new();
    table.touch(&tcp(1, false, SYN, 10), &mut sink).unwrap();
    let packet = tcp(1, false, SYN, 100);
    let mut lookup = prepared(&table, &packet.tuple);
    table.locate(&mut lookup);
    table.sweep(100, Effort::ALL, &mut sink);
    assert_eq!(sink.len(), 1);
    assert!(table.touch_prepared(&packet, &lookup, &mut sink).unwrap().is_new);
    table.finish(100, &mut sink);
    assert_eq!((sink.len(), sink[1].packets, table.stats().live), (2, [1, 0], 0));
    assert!(table.touch_prepared(&packet, &lookup, &mut sink).unwrap().is_new);
}

#[test]
fn syn_flood_leaves_established_flows() {
    let mut table = table(1000);
    let mut sink = Vec::new();
    for n in 0..900 {
        establish(&mut table, n, 1000, &mut sink);
    }
    for n in 0..200_000 {
        table.touch(&tcp(10_000 + n, false, SYN, 1005 + u64::from(n / 10_000)), &mut sink).unwrap();
    }
    assert_eq!(
        table.stats(),
        FlowStats {
            inserted: 200_900,
            evicted_half_open: 199_900,
            live: 1000,
            disposable: 100,
            high_water: 1000,
            ..FlowStats::default()
        }
    );
    assert!(sink.iter().all(|r| r.reason == EndReason::Evicted && r.state == FlowState::New));
    for n in 0..900 {
        assert!(!table.touch(&tcp(n, true, ACK, 1030), &mut sink).unwrap().is_new, "{n}");
    }
    assert_eq!(table.stats().evicted(), 199_900);
}

#[test]
fn oldest_disposable_flow_goes_first_and_busy_established_ones_are_spared() {
    let mut table = table(4);
    let mut sink = Vec::new();
    establish(&mut table, 1, 100, &mut sink);
    establish(&mut table, 2, 101, &mut sink);
    table.touch(&tcp(3, false, SYN, 102), &mut sink).unwrap();
    establish(&mut table, 4, 103, &mut sink);
    table.touch(&tcp(4, false, RST, 104), &mut sink).unwrap();
    for (n, ended) in [(5, 3), (6, 4)] {
        establish(&mut table, n, 105, &mut sink);
        assert_eq!(sink.last().unwrap().tuple.src, ended + 1000);
    }
    assert_eq!(sink[0].reason, EndReason::Evicted);
    assert_eq!(sink[1].reason, EndReason::Rst, "a closed flow says how it was closed");

    assert_eq!(table.touch(&tcp(7, false, SYN, 130), &mut sink), Err(TableFull));
    assert_eq!(table.stats().table_full, 1);
    assert!(
        table.touch(&tcp(7, false, SYN, 131), &mut sink).unwrap().is_new,
        "flow 1 was silent for more than tcp_opening"
    );
    assert_eq!((sink.len(), sink[2].tuple.src, sink[2].reason), (3, 1001, EndReason::Evicted));
}

#[test]
fn full_buckets_evict_among_their_own() {
    // Capacity 8: two buckets, so that every key has the same twenty slots and the slab is the limit.
    let mut small = table(8);
    let mut sink = Vec::new();
    for n in 0..5000 {
        small.touch(&tcp(n, false, SYN, 10), &mut sink).unwrap();
        assert_eq!(small.stats().live, 8.min(n as usize + 1));
    }
    // Keys picked to share both buckets of a large table fill them long before the slab is full.
    let mut large = table(55);
    let buckets =
        |hash: u64| [hash, hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32].map(|h| (u64::from(h as u32) * 11) >> 32);
    let of = |n: u32| buckets(prepared(&large, &tcp(n, false, SYN, 10).tuple).hash);
    let home = (0..).map(of).find(|[a, b]| a != b).unwrap();
    let crowd: Vec<u32> = (0..).filter(|n| of(*n) == home).take(50).collect();
    sink.clear();
    for n in &crowd {
        large.touch(&tcp(*n, false, SYN, 10), &mut sink).unwrap();
    }
    assert_eq!((large.stats().live, large.stats().evicted()), (20, 30));
    assert!(sink.iter().all(|r| r.reason == EndReason::Evicted));
    let live = crowd.iter().filter(|n| !large.touch(&tcp(**n, false, SYN, 10), &mut sink).unwrap().is_new).count();
    assert!(live <= 20);
}

#[test]
fn syn_after_reset_at_the_same_clock_is_another_flow() {
    let mut table = table(10);
    let mut sink = Vec::new();
    for n in 0..50 {
        let syn = FlowPacket { tcp_seq: n * 1_000_000, ..tcp(1, false, SYN, 5) };
        assert!(table.touch(&syn, &mut sink).unwrap().is_new);
        assert!(!table.touch(&syn, &mut sink).unwrap().is_new, "the same SYN once more");
        assert!(!table.touch(&tcp(1, true, RST | ACK, 5), &mut sink).unwrap().is_new);
    }
    table.finish(5, &mut sink);
    let ids: BTreeSet<u64> = sink.iter().map(|r| r.flow_id).collect();
    assert_eq!((sink.len(), ids.len()), (50, 50));
    assert!(sink.iter().all(|r| r.reason == EndReason::Rst && r.packets == [2, 1] && r.emitted == 5));
}

#[test]
fn syn_ack_first_makes_its_receiver_the_initiator() {
    let mut table = table(10);
    let mut sink = Vec::new();
    let touch = table.touch(&tcp(1, true, SYN | ACK, 5), &mut sink).unwrap();
    assert_eq!(touch.direction, TO_CLIENT);
    assert_eq!(table.tuple(touch.ix), tcp(1, false, 0, 0).tuple);
    let touch = table.touch(&tcp(1, false, ACK, 6), &mut sink).unwrap();
    assert_eq!((touch.direction, table.entry(touch.ix).state()), (TO_SERVER, FlowState::Established));
}

#[test]
fn who_is_the_client_is_told_by_the_syn_then_the_ports_then_the_first_packet() {
    const LATER: (u16, u16) = (443, 50_000);
    // Of the first packet: protocol, ports, TCP flags; whether the record is told from the other end.
    let cases = [
        (6, LATER, PSH_ACK, true),
        (6, LATER, RST, true),
        (6, LATER, SYN, false),
        (6, (50_000, 443), PSH_ACK, false),
        (6, (8443, 50_000), PSH_ACK, true),
        (6, (8443, 20_000), PSH_ACK, false),
        (6, (443, 80), PSH_ACK, false),
        (6, (0, 50_000), PSH_ACK, false),
        (17, (53, 5353), 0, true),
        (17, (123, 123), 0, false),
        (17, (60_000, 50_000), 0, false),
        (132, (3868, 40_000), 0, true),
        (1, (7, 50_000), 0, false),
    ];
    for (protocol, (src_port, dst_port), tcp_flags, turned) in cases {
        let tuple = Tuple { src: 1, dst: 2, src_port, dst_port, protocol, version: 4, ..Tuple::default() };
        let first =
            FlowPacket { tuple, tcp_flags, clock_ns: 5, bytes: 100, payload_bytes: 40, ..FlowPacket::default() };
        let second = FlowPacket { tuple: tuple.reversed(), tcp_flags: ACK, clock_ns: 6, bytes: 60, ..first };
        let (mut table, mut sink) = (table(4), Vec::new());
        let touch = table.touch(&first, &mut sink).unwrap();
        let verdict = Verdict { src_groups: GroupSetHandle(1), dst_groups: GroupSetHandle(2), ..Verdict::default() };
        table.set_verdict(touch.ix, touch.direction, &verdict);
        assert_eq!((touch.direction, table.touch(&second, &mut sink).unwrap().direction), (TO_SERVER, TO_CLIENT));
        table.note_entropy(touch.ix, TO_SERVER, Entropy::of(b"abcdefgh"));
        table.finish(7, &mut sink);
        let [record] = sink[..] else { panic!("one record") };
        let (there, back) = if turned { (1, 0) } else { (0, 1) };
        let told = if turned { tuple.reversed() } else { tuple }.unmarked();
        assert_eq!((record.tuple, record.turned), (told, turned), "{protocol} {src_port} {dst_port} {tcp_flags}");
        assert_eq!((record.bytes[there], record.bytes[back], record.payload_bytes[there]), (100, 60, 40));
        assert!(record.entropy[there].is_some() && record.entropy[back].is_none());
        let groups = [record.src_groups, record.dst_groups];
        assert_eq!((groups[there], groups[back]), (GroupSetHandle(1), GroupSetHandle(2)));
        if protocol == 6 {
            assert_eq!((record.tcp_flags[there], record.tcp_flags[back]), (tcp_flags, ACK));
        }
        assert_eq!((record.as_sent().tuple, record.as_sent().bytes), (tuple.unmarked(), [100, 60]));
    }
}

#[test]
fn who_may_begin_is_the_client_whatever_the_ports_say() {
    let tuple = Tuple { src: 1, dst: 2, src_port: 53, dst_port: 40_000, protocol: 17, version: 4, ..Tuple::default() };
    let (mut table, mut sink) = (table(4), Vec::new());
    let touch = table.touch(&FlowPacket { tuple, clock_ns: 5, ..FlowPacket::default() }, &mut sink).unwrap();
    table.flip_initiator(touch.ix);
    table.finish(7, &mut sink);
    assert_eq!((sink[0].tuple, sink[0].packets, sink[0].turned), (tuple.reversed(), [0, 1], false));
}

#[test]
fn flip_changes_every_side() {
    let mut table = table(10);
    let mut sink = Vec::new();
    let verdict = Verdict {
        decision: Decision::Deny,
        rule: RuleHandle(4),
        generation: 3,
        src_groups: GroupSetHandle(1),
        dst_groups: GroupSetHandle(2),
        ..Verdict::default()
    };
    let touch = table.touch(&tcp(1, false, PSH_ACK, 5), &mut sink).unwrap();
    table.set_verdict(touch.ix, TO_SERVER, &verdict);
    table.note_mirrored(touch.ix, 0b1000, &Verdict { generation: 2, ..Verdict::default() });
    table.note_mirrored(touch.ix, 0b101, &Verdict { generation: 3, ..Verdict::default() });
    assert_eq!(table.verdict(touch.ix, TO_SERVER, 3), Some(&verdict));
    assert_eq!(table.verdict(touch.ix, TO_SERVER, 4), None, "stale");
    assert_eq!(table.verdict(touch.ix, TO_CLIENT, 3), None, "not yet decided");

    table.flip_initiator(touch.ix);
    assert_eq!(table.verdict(touch.ix, TO_CLIENT, 3), Some(&verdict));
    assert_eq!(table.touch(&tcp(1, true, ACK, 6), &mut sink).unwrap().direction, TO_SERVER);
    assert_eq!(table.entry(touch.ix).state(), FlowState::Established);
    table.finish(7, &mut sink);
    let record = sink[0];
    assert_eq!((record.tuple, record.tcp_flags, record.mirrors), (tcp(1, true, 0, 0).tuple, [ACK, PSH_ACK], 0b101));
    assert_eq!((record.decision, record.rule), (Decision::Deny, RuleHandle(4)));
    assert_eq!(
        (record.src_groups, record.dst_groups),
        (GroupSetHandle(2), GroupSetHandle(1)),
        "seen from the initiator"
    );
}

#[test]
fn deadlines_are_exact() {
    let mut table = table(10);
    let mut sink = Vec::new();
    table.touch(&tcp(1, false, SYN, 100), &mut sink).unwrap();
    assert!(table.sweep(130, Effort::ALL, &mut sink) && sink.is_empty(), "a packet at the deadline still belongs");
    assert_eq!(table.watermark(), 129);
    assert!(table.sweep(131, Effort::ALL, &mut sink));
    assert_eq!((sink[0].emitted, sink[0].reason), (130, EndReason::Idle));

    establish(&mut table, 2, 200, &mut sink);
    table.touch(&tcp(2, false, ACK, 260), &mut sink).unwrap();
    table.touch(&tcp(2, false, ACK, 261), &mut sink).unwrap();
    assert_eq!((sink[1].emitted, sink[1].packets, sink[1].reason), (260, [3, 1], EndReason::Active));
    table.finish(1000, &mut sink);
    assert_eq!(
        (sink[2].emitted, sink[2].packets, sink[2].reason, sink[2].start),
        (321, [1, 0], EndReason::Active, 261)
    );
    assert_eq!((sink[3].emitted, sink[3].is_empty(), sink[3].reason), (561, true, EndReason::Idle));
    assert_eq!((sink[3].start, sink[3].end, sink[3].sizes.min), (261, 261, 0));
    assert_eq!(sink[1..].iter().map(|r| r.flow_id).collect::<BTreeSet<_>>().len(), 1);
}

#[test]
fn odd_clocks_and_endless_timeouts_do_no_harm() {
    let endless = Timeouts { tcp_opening: Duration::MAX, active: Duration::MAX, ..timeouts() };
    let mut table = FlowTable::new(2, &endless, 0);
    let mut sink = Vec::new();
    for clock in [u64::MAX, 0, 5, u64::MAX - 1, 0] {
        table.touch(&tcp(1, false, SYN, clock), &mut sink).unwrap();
        table.sweep(clock, Effort { places: 1, looks: 1 }, &mut sink);
    }
    table.finish(0, &mut sink);
    assert_eq!((sink.len(), sink[0].packets, sink[0].end), (1, [5, 0], u64::MAX));
    let some = |looks| Effort { places: 2, looks };
    assert!(!table.sweep(1, some(0), &mut sink) && table.sweep(1, some(2), &mut sink));
}

#[test]
fn a_step_keeps_to_its_effort_and_a_pass_gets_round() {
    let mut table = table(1000);
    let mut sink = Vec::new();
    for n in 0..1000 {
        table.touch(&tcp(n, false, SYN, 10), &mut sink).unwrap();
    }
    // Eight flows looked at and eight records, in each of two blocks; the second one begins below the limit.
    let two_blocks = Effort { places: 1000, looks: 73 };
    for step in 1..=63 {
        assert_eq!(table.sweep(100 + step, two_blocks, &mut sink), step == 63);
        assert_eq!(sink.len() as u64, (step * 16).min(1000));
    }
    assert_eq!(table.watermark(), 100, "the clock before the pass began");
    assert!(sink.iter().all(|r| r.emitted == 40));
    // Places are used again.
    for n in 0..1000 {
        table.touch(&tcp(5000 + n, false, SYN, 200), &mut sink).unwrap();
    }
    assert_eq!((table.stats().live, table.stats().evicted()), (1000, 0));
    let few_places = Effort { places: 100, looks: usize::MAX };
    for step in 1..=11 {
        assert_eq!(table.sweep(300, few_places, &mut sink), step == 11);
        assert_eq!(sink.len() as u64, 1000 + (step * 96).min(1000));
    }
}

#[test]
fn a_million_flows_are_all_found() {
    let mut table = table(1 << 20);
    let mut sink = Vec::new();
    for round in 0..2 {
        for n in 0..1 << 20 {
            let touch = table.touch(&tcp(n, round == 1, ACK, 10), &mut sink).unwrap();
            assert_eq!((touch.is_new, touch.direction), (round == 0, round));
        }
    }
    assert!(sink.is_empty(), "no bucket pair overflows at half load");
    table.finish(10, &mut sink);
    let by_port = sink.iter().fold(BTreeMap::new(), |mut by, r| {
        *by.entry(r.packets).or_insert(0) += 1;
        by
    });
    assert_eq!(by_port, BTreeMap::from([([1, 1], 1 << 20)]));
}

#[test]
fn years_between_packets_and_late_sweeps_change_no_time() {
    const YEAR: u64 = 31_557_600_000_000_000;
    let packets: Vec<_> = [0, 5, 5 + YEAR / 20, YEAR, 50 * YEAR, 50 * YEAR + 3, 250 * YEAR]
        .into_iter()
        .flat_map(|clock| [tcp(1, false, ACK, clock), tcp(2, clock % 2 == 0, PSH_ACK, clock + 1)])
        .collect();
    let never = [Sweep { places: 0, looks: 0, when: 0 }];
    let often = [Sweep { places: 64, looks: 99, when: 50 }, Sweep { places: 1, looks: 1, when: 100 }];
    let (one, _) = run(&packets, &never, 64, 300 * YEAR);
    let (two, _) = run(&packets, &often, 64, 300 * YEAR);
    assert_eq!(sorted(one.clone()), sorted(two));
    let expected = sorted(model(&packets, 300 * YEAR));
    assert_eq!(
        sorted(one).iter().map(without_id).collect::<Vec<_>>(),
        expected.iter().map(without_id).collect::<Vec<_>>()
    );
}

#[test]
fn a_counter_without_room_makes_a_slice_and_nothing_is_lost() {
    let endless = Timeouts { udp: Duration::MAX, active: Duration::MAX, ..timeouts() };
    let mut table = FlowTable::new(4, &endless, 0);
    let mut sink = Vec::new();
    let tuple = Tuple { src: 1, dst: 2, protocol: 17, version: 4, ..Tuple::default() };
    let sizes = [u32::MAX, 5, 1_000_000_000, 3_300_000_000, 60];
    for (n, bytes) in sizes.into_iter().cycle().take(5000).enumerate() {
        let payload_bytes = if n % 2 == 0 { 0 } else { bytes };
        let packet = FlowPacket { tuple, clock_ns: n as u64, bytes, payload_bytes, ..FlowPacket::default() };
        table.touch(&packet, &mut sink).unwrap();
    }
    table.finish(5000, &mut sink);
    let sum = |of: fn(&FlowRecord) -> u64| sink.iter().map(of).sum::<u64>();
    let (expected, paid) = sizes.into_iter().cycle().take(5000).enumerate().fold((0, 0), |(all, paid), (n, bytes)| {
        (all + u64::from(bytes), paid + if n % 2 == 0 { 0 } else { u64::from(bytes) })
    });
    assert_eq!((sum(|r| r.packets[0]), sum(|r| r.bytes[0]), sum(|r| r.payload_bytes[0])), (5000, expected, paid));
    let forced = sink.iter().filter(|r| r.reason == EndReason::Active).count() as u64;
    assert!(forced > 500 && forced == table.stats().slices_forced, "{forced}");
    assert_eq!(sink.iter().map(|r| r.flow_id).collect::<BTreeSet<_>>().len(), 1);
}

#[test]
fn while_anything_is_half_open_nothing_established_goes() {
    let mut table = table(10_000);
    let mut sink = Vec::new();
    for n in 0..9_990 {
        establish(&mut table, n, 1000, &mut sink);
    }
    // Long silent, and not yet expired: without half-open flows these would go.
    for n in 0..50_000 {
        let _ = table.touch(&tcp(20_000 + n, false, SYN, 1200), &mut sink);
    }
    let stats = table.stats();
    assert_eq!((stats.evicted_idle, stats.evicted_closed, stats.live), (0, 0, 10_000));
    assert_eq!((stats.inserted, stats.evicted_half_open, stats.table_full), (9_990 + 50_000, 49_990, 0));
    for n in 0..9_990 {
        assert!(!table.touch(&tcp(n, true, ACK, 1210), &mut sink).unwrap().is_new, "{n}");
    }
}

#[test]
fn verdicts_are_kept_for_every_flow_over_generations() {
    let mut table = table(500);
    let mut sink = Vec::new();
    let verdict = |n: u32, generation: u32| Verdict {
        rule: RuleHandle(n % 5),
        src_groups: GroupSetHandle(n % 11),
        generation,
        mirrors: 1 << (n % 3),
        ..Verdict::default()
    };
    for generation in 1..40 {
        for n in 0..800 {
            let Ok(touch) = table.touch(&tcp(n, n % 7 == 3, ACK, 1000), &mut sink) else { continue };
            let before = table.last_verdict(touch.ix, touch.direction).copied();
            assert_eq!(before.is_none(), touch.is_new);
            assert!(before.is_none_or(|before| before == verdict(n, before.generation)));
            table.set_verdict(touch.ix, touch.direction, &verdict(n, generation));
            let given = verdict(n, generation);
            table.note_mirrored(touch.ix, given.mirrors, &given);
            table.note_mirrored(touch.ix, 8, &given);
            assert_eq!(table.verdict(touch.ix, touch.direction, generation), Some(&verdict(n, generation)));
        }
    }
    table.finish(2000, &mut sink);
    assert_eq!(table.stats().verdicts_refused, 0);
    for record in &sink {
        let n = (record.tuple.src.max(record.tuple.dst) - 1000) as u32;
        let expected = verdict(n, record.generation);
        assert_eq!((record.rule, record.mirrors), (expected.rule, expected.mirrors | 8));
    }
}

#[test]
fn survey_shows_every_live_flow_and_changes_nothing() {
    let mut table = table(100);
    let mut sink = Vec::new();
    for n in 0..60 {
        table.touch(&tcp(n, false, SYN, 10 + u64::from(n)), &mut sink).unwrap();
    }
    table.sweep(50, Effort::ALL, &mut sink);
    let (mut seen, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        from = table.survey(at, 7, |record| seen.push(record));
    }
    assert_eq!((seen.len(), sink.len(), table.stats().live), (50, 10, 50));
    assert!(seen.iter().all(|r| r.packets == [1, 0] && r.start >= 20 && r.reason == EndReason::Active));
}

#[test]
fn refused_segments_are_counted_and_keep_no_flow_alive() {
    let mut table = table(8).with_tcp(TcpRules { window: WindowCheck::Strict, asymmetric: false });
    let mut sink = Vec::new();
    let syn = tcp(1, false, SYN, 1000);
    let answer = FlowPacket { tcp_seq: 500, tcp_ack: syn.tcp_seq + 1, ..tcp(1, true, SYN | ACK, 1000) };
    let ack = FlowPacket { tcp_seq: syn.tcp_seq + 1, tcp_ack: 501, ..tcp(1, false, ACK, 1000) };
    for packet in [syn, answer, ack] {
        table.touch(&packet, &mut sink).unwrap();
    }
    // More than a slice has room for.
    let stray = FlowPacket { tcp_seq: 1 << 30, ..tcp(1, true, ACK, 0) };
    for clock_ns in 1000..=1300 {
        let touch = table.touch(&FlowPacket { clock_ns, ..stray }, &mut sink).unwrap();
        assert!(touch.seen.refused && !touch.is_new, "{clock_ns}");
    }
    assert!(table.touch(&FlowPacket { clock_ns: 1301, ..stray }, &mut sink).unwrap().is_new, "300 ns of silence");
    let last = sink.last().unwrap();
    assert_eq!((last.reason, last.emitted, last.state), (EndReason::Idle, 1300, FlowState::Established));
    assert!(sink.iter().all(|r| r.start <= r.end && r.end <= r.emitted), "{sink:?}");
    assert!(sink.iter().all(|r| (r.gaps.min, r.gaps.max) == (0, 0)), "no gaps of theirs: {sink:?}");
    assert_eq!(sink.iter().map(|r| r.packets[1]).sum::<u64>(), 302);
    assert_eq!(sink.iter().map(|r| r.out_of_window[1]).sum::<u32>(), 301);
}
