//! The IPFIX exporter against a reader written from the RFCs: every field of random records, lost records, collectors that
//! come and go.

mod common;

use std::borrow::Cow;
use std::io::Read;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::ipfix::{Decoder, Field, REVERSE, Record};
use gnomon::behaviour::{AlertKind, Flags, ScoredRecord};
use gnomon::config::{Ipfix, IpfixTransport};
use gnomon::export::{Collectors, Directory, Names, SessionInfo, community_id};
use gnomon::flow::{EndReason, FlowRecord, FlowState, Spread};
use gnomon::mirror::Sample;
use gnomon::packet::{Tuple, from_ip_addr};
use gnomon::rules::{Decision, GroupSetHandle, RuleHandle, Tier};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const PEN: u32 = 32_473;

fn own(id: u16) -> Field {
    (PEN, id)
}

fn own_reverse(id: u16) -> Field {
    (PEN, id | 0x4000)
}

struct Fixed;

impl Names for Fixed {
    fn rule(&self, rule: RuleHandle) -> Cow<'_, str> {
        format!("rule-{}", rule.0).into()
    }

    fn groups(&self, groups: GroupSetHandle) -> Vec<Cow<'_, str>> {
        (0..groups.0 % 5).map(|i| format!("group-{}-{i}", groups.0).into()).collect()
    }

    fn mirror(&self, generation: u32, bit: usize) -> Cow<'_, str> {
        format!("mirror-{}-{bit}", generation % 3).into()
    }

    fn mirror_rate(&self, _: u32, _: usize) -> Option<gnomon::mirror::Rate> {
        None
    }
}

impl Directory for Fixed {
    fn sessions(&self) -> Vec<SessionInfo> {
        vec![
            SessionInfo { name: "tenth".into(), sample: Sample::Packets(10), priority: 7 },
            SessionInfo { name: "half".into(), sample: Sample::Flows(0.5), priority: 1000 },
        ]
    }
}

/// Any record; the times are those that NTP timestamps can hold.
fn any_record() -> impl Strategy<Value = ScoredRecord> {
    let time = 0..2_085_978_495_999_999_999u64;
    let tuple = (
        any::<bool>(),
        any::<(u128, u128, u16, u16)>(),
        prop_oneof![Just(6u8), Just(17), Just(132), Just(1), Just(58), any::<u8>()],
        0..4095u16,
        any::<u32>(),
    )
        .prop_map(|(four, (src, dst, src_port, dst_port), protocol, vlan, vni)| {
            let (version, mask) = if four { (4, u128::from(u32::MAX)) } else { (6, u128::MAX) };
            Tuple { src: src & mask, dst: dst & mask, src_port, dst_port, protocol, version, vlan, vni }
        });
    let spread = (any::<u64>(), any::<u64>(), 0.0..1e18f64, 0.0..1e18f64).prop_map(|(min, max, mean, sd)| Spread {
        min,
        max,
        mean,
        sd,
    });
    let reasons =
        [EndReason::Idle, EndReason::Active, EndReason::Fin, EndReason::Rst, EndReason::Evicted, EndReason::Forced];
    let states = [FlowState::New, FlowState::Established, FlowState::Closing, FlowState::Closed];
    let tiers = [Tier::Override, Tier::Threat, Tier::Policy, Tier::Learned, Tier::Default];
    let decisions = [Decision::Allow, Decision::Deny, Decision::Reject];
    let words = (
        prop::sample::select(reasons.to_vec()),
        prop::sample::select(states.to_vec()),
        prop::sample::select(tiers.to_vec()),
        prop::sample::select(decisions.to_vec()),
        prop::option::of(0.0f32..=1.0),
        prop::collection::vec(prop::sample::select(AlertKind::ALL.to_vec()), 0..4),
    );
    // Sums of many must fit.
    let count = || [0..1u64 << 50, 0..1u64 << 50];
    let counters = (count(), count(), count(), any::<[u8; 2]>(), any::<[u32; 2]>(), any::<[u32; 2]>());
    let handles = (0..50u32, 0..20u32, 0..20u32, 0..6u32, prop_oneof![3 => Just(0u64), 1 => 1..16u64]);
    let rest = (
        any::<(u64, u8, u8, u16, u64)>(),
        prop::option::of(0..u64::MAX),
        [prop::option::of(0.0f32..=8.0), prop::option::of(0.0f32..=8.0)],
        any::<u32>(),
    );
    (tuple, [time.clone(), time.clone(), time], (spread.clone(), spread), words, counters, handles, rest).prop_map(
        |(tuple, [start, end, emitted], (sizes, gaps), words, counters, handles, rest)| {
            let (reason, state, tier, decision, score, kinds) = words;
            let (packets, bytes, payload_bytes, tcp_flags, retransmissions, out_of_window) = counters;
            let (rule, src, dst, generation, mirrors) = handles;
            let ((flow_id, kind, code, worker, sequence), handshake_rtt, entropy, icmp_errors) = rest;
            let mut flags = Flags::default();
            kinds.into_iter().for_each(|kind| flags.insert(kind));
            let record = FlowRecord {
                flow_id,
                tuple,
                turned: false,
                start,
                end,
                emitted,
                packets,
                bytes,
                payload_bytes,
                tcp_flags,
                icmp: (kind, code),
                state,
                reason,
                rule: RuleHandle(rule),
                tier,
                decision,
                generation,
                src_groups: GroupSetHandle(src),
                dst_groups: GroupSetHandle(dst),
                mirrors,
                raised: 0,
                cut: 0,
                diverted: false,
                sizes,
                gaps,
                handshake_rtt,
                retransmissions,
                out_of_window,
                icmp_errors,
                entropy,
                worker,
                sequence,
            };
            ScoredRecord { record, score, flags }
        },
    )
}

fn records(count: usize) -> Vec<ScoredRecord> {
    let mut runner = TestRunner::deterministic();
    let strategy = any_record();
    (0..count).map(|_| strategy.new_tree(&mut runner).expect("a record").current()).collect()
}

fn collector(address: impl ToString, transport: IpfixTransport) -> Ipfix {
    Ipfix::to(&address.to_string(), transport)
}

/// What a record must look like.
fn same(found: &Record, scored: &ScoredRecord, mirror_names: &str, told: &str) {
    let (r, std) = (&scored.record, |id: u16| -> Field { (0, id) });
    let back = |id: u16| -> Field { (REVERSE, id) };
    let t = &r.tuple;
    assert_eq!(found.number(std(148)), r.flow_id);
    let ends = (found.address(std(8), std(27)), found.address(std(12), std(28)));
    assert_eq!(ends, (t.src_ip(), t.dst_ip()));
    assert_eq!(found.number(std(4)), u64::from(t.protocol));
    assert_eq!(found.number(std(60)), u64::from(t.version));
    assert_eq!(found.number(std(58)), u64::from(t.vlan));
    assert_eq!(found.number(own(21)), u64::from(t.vni));
    let ports = matches!(t.protocol, 6 | 17 | 132);
    assert_eq!(found.has(std(7)), ports);
    if ports {
        assert_eq!((found.number(std(7)), found.number(std(11))), (u64::from(t.src_port), u64::from(t.dst_port)));
    }
    let icmp = std(if t.version == 4 { 32 } else { 139 });
    assert_eq!(found.has(icmp), matches!(t.protocol, 1 | 58));
    if found.has(icmp) {
        assert_eq!(found.bytes(icmp), [r.icmp.0, r.icmp.1]);
    }
    for (id, both) in [(2, r.packets), (1, r.bytes), (352, r.bytes), (401, r.payload_bytes)] {
        assert_eq!([found.number(std(id)), found.number(back(id))], both, "element {id}");
    }
    assert_eq!((found.number(std(152)), found.number(std(153))), (r.start / 1_000_000, r.end / 1_000_000));
    let times = [156, 157, 325].map(|id| found.nanoseconds(std(id)));
    assert_eq!(times, [r.start, r.end, r.emitted]);
    assert_eq!(found.has(std(6)), t.protocol == 6);
    if t.protocol == 6 {
        assert_eq!([found.number(std(6)), found.number(back(6))], r.tcp_flags.map(u64::from));
        assert_eq!(found.number(own(22)), r.handshake_rtt.unwrap_or(u64::MAX));
        assert_eq!([found.number(own(23)), found.number(own_reverse(23))], r.retransmissions.map(u64::from));
        assert_eq!([found.number(own(24)), found.number(own_reverse(24))], r.out_of_window.map(u64::from));
    }
    let reason = match r.reason {
        EndReason::Idle => [1, 0],
        EndReason::Active => [2, 1],
        EndReason::Fin => [3, 2],
        EndReason::Rst => [3, 3],
        EndReason::Evicted => [5, 4],
        EndReason::Forced => [4, 5],
    };
    assert_eq!([found.number(std(136)), found.number(own(20))], reason);
    assert_eq!(found.number(std(239)), 1, "the source is the initiator");
    let decision = match r.decision {
        Decision::Allow => [64, 0],
        Decision::Deny => [130, 1],
        Decision::Reject => [129, 2],
    };
    assert_eq!([found.number(std(89)), found.number(own(4))], decision);
    assert_eq!([found.number(std(422)), found.number(std(423))], [r.sizes.min, r.sizes.max]);
    assert_eq!([found.f64(own(26)), found.f64(own(27))], [r.sizes.mean, r.sizes.sd]);
    assert_eq!([found.number(own(28)), found.number(own(29))], [r.gaps.min, r.gaps.max]);
    assert_eq!([found.f64(own(30)), found.f64(own(31))], [r.gaps.mean, r.gaps.sd]);
    let maybe = |value: f32| if value.is_nan() { None } else { Some(value) };
    assert_eq!(found.number(own(35)), u64::from(r.icmp_errors));
    assert_eq!([own(25), own_reverse(25)].map(|field| maybe(found.f32(field))), r.entropy);
    assert_eq!(maybe(found.f32(own(17))), scored.score);
    let flags = AlertKind::ALL.iter().enumerate().filter(|(_, kind)| scored.flags.contains(**kind));
    assert_eq!(found.number(own(18)), flags.fold(0, |bits, (at, _)| bits | (1 << at)));
    assert_eq!(found.number(own(1)), u64::from(r.rule.0));
    let tiers = [Tier::Override, Tier::Threat, Tier::Policy, Tier::Learned, Tier::Default];
    assert_eq!(tiers[found.number(own(3)) as usize], r.tier);
    assert_eq!(found.number(own(5)), u64::from(r.generation));
    assert_eq!([found.number(own(6)), found.number(own(7))], [r.src_groups.0, r.dst_groups.0].map(u64::from));
    let states = [FlowState::New, FlowState::Established, FlowState::Closing, FlowState::Closed];
    assert_eq!(states[found.number(own(19)) as usize], r.state);
    assert_eq!([found.number(own(32)), found.number(own(33))], [u64::from(r.worker), r.sequence]);
    assert_eq!(found.text(own(34)), community_id(t, r.icmp, 0));
    assert_eq!(told, mirror_names, "mirror set {}", found.number(own(10)));
}

/// Reads one connection to its end.
fn whole_connection(listener: &TcpListener) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.read_to_end(&mut bytes).expect("read");
    bytes
}

#[test]
fn every_field_of_random_records_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    let reader = std::thread::spawn(move || whole_connection(&listener));
    let sent = records(3000);
    let mut collectors =
        Collectors::start(&[collector(address, IpfixTransport::Tcp)], &Arc::new(Fixed), true).expect("started");
    sent.iter().for_each(|record| collectors.record(record));
    let summary = collectors.finish().expect("nothing lost").remove(0);
    assert_eq!((summary.records, summary.lost, summary.errors, summary.connections), (3000, 0, 0, 1));

    let bytes = reader.join().expect("read");
    let mut decoder = Decoder::default();
    decoder.stream(&bytes);
    assert_eq!(summary.octets, bytes.len() as u64);
    let flows = decoder.flows();
    assert_eq!(flows.len(), sent.len());
    // The names came before the first record that needs them.
    let mut mirror_sets = std::collections::BTreeMap::from([(0, String::new())]);
    let mut flow = 0;
    for record in &decoder.records {
        if record.options {
            if record.has(own(10)) {
                mirror_sets.insert(record.number(own(10)), record.text(own(11)));
            }
            continue;
        }
        let r = &sent[flow].record;
        let bits = (0..64).filter(|bit| r.mirrors & (1 << bit) != 0);
        let names: Vec<String> = bits.map(|bit| format!("mirror-{}-{bit}", r.generation % 3)).collect();
        same(record, &sent[flow], &names.join(","), &mirror_sets[&record.number(own(10))]);
        flow += 1;
    }
    for (found, template) in [(6, 4), (17, 4), (1, 4), (6, 6), (58, 6), (132, 6)] {
        let some = sent.iter().any(|s| s.record.tuple.protocol == found && s.record.tuple.version == template);
        assert!(some, "the records cover protocol {found} over IPv{template}");
    }
    names_and_statistics(&decoder, &sent);
    sequence_counts_data_records(&decoder);
}

fn names_and_statistics(decoder: &Decoder, sent: &[ScoredRecord]) {
    for option in decoder.options(own(2)) {
        assert_eq!(option.text(own(2)), format!("rule-{}", option.number(own(1))));
    }
    let used = |handle: u64| sent.iter().any(|s| u64::from(s.record.rule.0) == handle);
    assert!(decoder.options(own(2)).iter().all(|option| used(option.number(own(1)))), "only rules that were used");
    let told: std::collections::BTreeSet<u64> = decoder.options(own(2)).iter().map(|o| o.number(own(1))).collect();
    assert_eq!(told.len(), 49, "all that were used");
    assert!(decoder.options(own(2)).len() < 2 * 49, "not again and again");
    for option in decoder.options(own(9)) {
        let set = option.number(own(8));
        let names: Vec<String> = (0..set % 5).map(|i| format!("group-{set}-{i}")).collect();
        assert_eq!(option.text(own(9)), names.join(","));
    }
    let sessions = decoder.options(own(12));
    let seen: Vec<_> = sessions
        .iter()
        .map(|s| (s.number(own(12)), s.text(own(13)), s.number(own(14)), s.f64(own(15)), s.number(own(16))))
        .collect();
    assert_eq!(seen, [(1, "tenth".to_owned(), 10, 1.0, 7), (2, "half".to_owned(), 0, 0.5, 1000)]);
    let sampling = decoder.options((0, 305));
    assert_eq!((sampling[0].number((0, 305)), sampling[0].number((0, 306)), sampling[0].number((0, 149))), (1, 0, 1));
    let exported = decoder.options((0, 42));
    assert_eq!(exported.last().expect("statistics at the end").number((0, 42)), sent.len() as u64);
    assert_eq!(decoder.options((0, 166)).last().expect("statistics at the end").number((0, 166)), 0);
    // RFC 5610: what the templates use is described, with the length that they use.
    let types = decoder.options((0, 341));
    let described =
        |id: u16| types.iter().find(|t| t.number((0, 303)) == u64::from(id) && t.number((0, 346)) == u64::from(PEN));
    for record in &decoder.records {
        for ((pen, id), bytes) in record.fields.iter().filter(|((pen, _), _)| *pen == PEN) {
            let kind = described(*id).unwrap_or_else(|| panic!("{pen}/{id} is not described")).number((0, 339));
            let length = match kind {
                1 => 1,
                2 => 2,
                3 | 9 => 4,
                4 | 10 => 8,
                13 => bytes.len(),
                other => panic!("data type {other}"),
            };
            assert_eq!(bytes.len(), length, "{id}");
        }
    }
    // RFC 7011, 4.4: the key fields of the first template.
    let keys = decoder.options((0, 173)).into_iter().find(|k| k.number((0, 145)) == 256).expect("TCP over IPv4");
    let tcp = decoder.flows().into_iter().find(|f| f.template == 256).expect("TCP over IPv4").clone();
    let named: Vec<Field> = tcp
        .fields
        .iter()
        .enumerate()
        .filter(|(n, _)| (keys.number((0, 173)) >> n) & 1 == 1)
        .map(|(_, (f, _))| *f)
        .collect();
    assert_eq!(named, [(0, 8), (0, 12), (0, 7), (0, 11), (0, 4), (0, 58), own(21)]);
}

/// RFC 7011, 3.1: the number of data records sent before.
fn sequence_counts_data_records(decoder: &Decoder) {
    let mut expected = 0;
    for (header, count) in decoder.headers.iter().zip(&decoder.counts) {
        assert_eq!(header.sequence, expected);
        expected += count;
    }
}

/// A UDP collector with a large buffer; it reads until nothing comes for a second.
fn receive(socket: &UdpSocket, decoder: &mut Decoder, until: impl Fn(&Decoder) -> bool) {
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    let (mut buffer, end) = ([0; 65_536], Instant::now() + Duration::from_secs(30));
    while Instant::now() < end {
        match socket.recv(&mut buffer) {
            Ok(length) => decoder.message(&buffer[..length]),
            Err(_) if until(decoder) => return,
            Err(_) => {}
        }
    }
    panic!("nothing more came, and not everything was there");
}

#[test]
fn datagrams_fit_and_templates_come_again() {
    let socket = UdpSocket::bind("[::1]:0").expect("bound");
    let mut settings = collector(socket.local_addr().expect("bound"), IpfixTransport::Udp);
    (settings.mtu, settings.template_messages, settings.domain) = (576, 40, 9);
    let sent = records(150);
    let mut collectors = Collectors::start(&[settings], &Arc::new(Fixed), true).expect("started");
    let reader = std::thread::spawn(move || {
        let mut decoder = Decoder::default();
        receive(&socket, &mut decoder, |d| {
            d.flows().len() == 150 && d.options((0, 42)).last().is_some_and(|s| s.number((0, 42)) == 150)
        });
        decoder
    });
    sent.iter().for_each(|record| collectors.record(record));
    collectors.finish().expect("nothing lost");
    let decoder = reader.join().expect("read");
    assert!(decoder.headers.iter().all(|h| h.length <= 576 - 48 && h.domain == 9));
    assert!(decoder.headers.iter().any(|h| h.length > 400), "and they are filled");
    assert_eq!(decoder.unknown_sets, 0);
    assert!(decoder.options((0, 305)).len() >= 3, "refreshed every 40 messages");
    sequence_counts_data_records(&decoder);
    // A collector that starts in the middle knows everything after the next refresh.
    let ids: Vec<u64> = decoder.flows().iter().map(|f| f.number((0, 148))).collect();
    assert_eq!(ids, sent.iter().map(|s| s.record.flow_id).collect::<Vec<_>>());
}

#[test]
fn templates_come_again_by_time_though_nothing_happens() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let mut settings = collector(socket.local_addr().expect("bound"), IpfixTransport::Udp);
    settings.template_refresh = Duration::from_millis(300);
    let _collectors = Collectors::start(&[settings], &Arc::new(Fixed), false).expect("started");
    // This one comes later than the first templates.
    std::thread::sleep(Duration::from_millis(100));
    while socket.set_nonblocking(true).is_ok() && socket.recv(&mut [0; 65_536]).is_ok() {}
    socket.set_nonblocking(false).expect("set");
    let mut decoder = Decoder::default();
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let mut buffer = [0; 65_536];
    while decoder.options((0, 166)).is_empty() {
        let length = socket.recv(&mut buffer).expect("a refresh");
        decoder.message(&buffer[..length]);
    }
    assert!(decoder.template_messages > 0);
}

#[test]
fn what_a_full_queue_loses_is_counted_told_and_a_gap() {
    // The port is known, but nobody listens yet.
    let address = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound");
    let mut settings = collector(address, IpfixTransport::Tcp);
    settings.queue = 64;
    let sent = records(500);
    let mut collectors = Collectors::start(&[settings], &Arc::new(Fixed), false).expect("started");
    let began = Instant::now();
    sent.iter().for_each(|record| collectors.record(record));
    assert!(began.elapsed() < Duration::from_millis(500), "the scorer is not held up");
    let counters = collectors.counters().remove(0).1;
    assert!(counters.lost() > 0, "500 records do not fit");
    let lost_before = counters.lost();
    let listener = TcpListener::bind(address).expect("bound");
    let reader = std::thread::spawn(move || whole_connection(&listener));
    let end = Instant::now() + Duration::from_secs(20);
    while counters.summary("").records == 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let summary = collectors.finish().expect("live never fails").remove(0);
    let mut decoder = Decoder::default();
    decoder.stream(&reader.join().expect("read"));
    assert_eq!(summary.lost, lost_before);
    assert_eq!(decoder.flows().len() as u64 + summary.lost, 500, "sent and lost are all");
    assert_eq!(summary.records, decoder.flows().len() as u64);
    let told = decoder.options((0, 166)).last().expect("statistics").number((0, 166));
    assert_eq!(told, summary.lost);
    let arrived: std::collections::BTreeSet<u64> = decoder.flows().iter().map(|f| f.number((0, 148))).collect();
    let missing = sent.iter().filter(|s| !arrived.contains(&s.record.flow_id));
    let packets: u64 = missing.flat_map(|s| s.record.packets).sum();
    assert_eq!(decoder.options((0, 167)).last().expect("statistics").number((0, 167)), packets);
}

#[test]
fn over_udp_the_gap_in_the_sequence_is_what_was_lost() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let mut settings = collector(socket.local_addr().expect("bound"), IpfixTransport::Udp);
    settings.queue = 16;
    let mut collectors = Collectors::start(&[settings], &Arc::new(Fixed), false).expect("started");
    std::thread::sleep(Duration::from_millis(50));
    // The queue is drained every few milliseconds, so most of this finds it full.
    let sent = records(2000);
    sent.iter().for_each(|record| collectors.record(record));
    let summary = collectors.finish().expect("live never fails").remove(0);
    assert!(summary.lost > 0 && summary.records > 0 && summary.lost + summary.records == 2000, "{summary:?}");
    let mut decoder = Decoder::default();
    receive(&socket, &mut decoder, |d| d.flows().len() as u64 == summary.records);
    let last = decoder.headers.last().expect("messages").sequence;
    let records_before: u32 = decoder.counts[..decoder.counts.len() - 1].iter().sum();
    assert_eq!(u64::from(last - records_before), summary.lost);
}

#[test]
fn a_tcp_collector_that_comes_back_is_told_everything_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let settings = collector(listener.local_addr().expect("bound"), IpfixTransport::Tcp);
    let sent = records(200);
    let collectors = Collectors::start(&[settings], &Arc::new(Fixed), false).expect("started");
    let (mut first, _) = listener.accept().expect("a connection");
    sent[..100].iter().for_each(|record| collectors.record(record));
    let (mut decoder, mut bytes) = (Decoder::default(), Vec::new());
    first.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    while decoder.flows().len() < 100 {
        let mut buffer = [0; 4096];
        let length = first.read(&mut buffer).expect("more to come");
        bytes.extend(&buffer[..length]);
        decoder = Decoder::default();
        decoder.stream(&bytes);
    }
    drop(first);
    std::thread::sleep(Duration::from_millis(100));
    let reader = std::thread::spawn(move || whole_connection(&listener));
    sent[100..].iter().for_each(|record| collectors.record(record));
    let mut collectors = collectors;
    let summary = collectors.finish().expect("live never fails").remove(0);
    let mut second = Decoder::default();
    second.stream(&reader.join().expect("read"));
    assert_eq!((second.unknown_sets, second.headers[0].sequence), (0, 0), "a session of its own");
    assert_eq!((second.flows().len(), summary.lost, summary.connections), (100, 0, 2));
    sequence_counts_data_records(&second);
    let needed = sent[100..].iter().map(|s| u64::from(s.record.rule.0)).filter(|rule| *rule != 0);
    let told: Vec<u64> = second.options(own(2)).iter().map(|o| o.number(own(1))).collect();
    assert!(needed.clone().all(|rule| told.contains(&rule)), "names from the first session too");
}

#[test]
fn a_lossless_run_says_when_nobody_listens() {
    let port = UdpSocket::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound");
    let mut collectors =
        Collectors::start(&[collector(port, IpfixTransport::Udp)], &Arc::new(Fixed), true).expect("started");
    records(100).iter().for_each(|record| collectors.record(record));
    let error = collectors.finish().expect_err("nobody there").to_string();
    assert!(error.contains(&port.to_string()) && error.contains("listens"), "{error}");
}

#[test]
fn the_documentation_has_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ipfix.md");
    let reference = gnomon::export::ipfix_reference();
    let text = std::fs::read_to_string(&path).expect("docs/ipfix.md");
    let (begin, end) = ("<!-- tables -->\n", "<!-- end of tables -->\n");
    let start = text.find(begin).expect("a mark before the tables") + begin.len();
    let stop = text.find(end).expect("a mark after the tables");
    if std::env::var_os("GNOMON_GOLDEN").is_some_and(|v| v == "write") {
        std::fs::write(&path, format!("{}\n{reference}\n{}", &text[..start], &text[stop..])).expect("written");
        return;
    }
    let same = text[start..stop].trim() == reference.trim();
    assert!(same, "docs/ipfix.md is behind: GNOMON_GOLDEN=write cargo test --test ipfix, and look at the difference");
}

#[test]
fn addresses_of_both_families_are_what_they_were() {
    // The oracle above goes through the same accessors as the exporter; this one does not.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let settings = collector(listener.local_addr().expect("bound"), IpfixTransport::Tcp);
    let reader = std::thread::spawn(move || whole_connection(&listener));
    let mut collectors = Collectors::start(&[settings], &Arc::new(Fixed), true).expect("started");
    let pairs = [("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8:ffff::2")];
    for (from, to) in pairs {
        let parse = |text: &str| from_ip_addr(text.parse::<IpAddr>().expect("an address"));
        let ((version, src), (_, dst)) = (parse(from), parse(to));
        let tuple = Tuple { src, dst, version, protocol: 17, ..Tuple::default() };
        let record = FlowRecord { tuple, ..FlowRecord::default() };
        collectors.record(&ScoredRecord { record, score: None, flags: Flags::default() });
    }
    collectors.finish().expect("nothing lost");
    let mut decoder = Decoder::default();
    decoder.stream(&reader.join().expect("read"));
    let text = |r: &&Record| (r.address((0, 8), (0, 27)).to_string(), r.address((0, 12), (0, 28)).to_string());
    let found: Vec<_> = decoder.flows().iter().map(text).collect();
    assert_eq!(found, pairs.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn a_tcp_collector_that_is_late_gets_everything_in_a_lossless_run() {
    let address = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound");
    let mut settings = collector(address, IpfixTransport::Tcp);
    settings.queue = 16;
    let mut collectors = Collectors::start(&[settings], &Arc::new(Fixed), true).expect("started");
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        whole_connection(&TcpListener::bind(address).expect("bound"))
    });
    let sent = records(300);
    sent.iter().for_each(|record| collectors.record(record));
    let summary = collectors.finish().expect("errors of connecting are no losses").remove(0);
    let mut decoder = Decoder::default();
    decoder.stream(&reader.join().expect("read"));
    assert!(summary.errors > 0 && summary.lost == 0, "{summary:?}");
    assert_eq!(decoder.flows().len(), 300);
}

/// What a lossless run says of a collector that treats its connections so.
fn refusal_of(accept: impl FnOnce(TcpListener) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let settings = collector(listener.local_addr().expect("bound"), IpfixTransport::Tcp);
    let mut collectors = Collectors::start(&[settings], &Arc::new(Fixed), true).expect("started");
    std::thread::spawn(move || accept(listener));
    records(300).iter().for_each(|record| collectors.record(record));
    collectors.finish().expect_err("the collector did not get everything").to_string()
}

#[test]
fn a_lossless_run_says_when_a_tcp_collector_closes_early() {
    let error = refusal_of(|listener| {
        let (mut stream, _) = listener.accept().expect("a connection");
        // Templates, names and some of the records.
        stream.read_exact(&mut vec![0; 40_000]).expect("read");
        drop(stream);
        whole_connection(&listener);
    });
    assert!(error.contains("0 records not sent") && error.contains("1 connections broken"), "{error}");
    let error = refusal_of(|listener| listener.incoming().for_each(drop));
    assert!(error.contains("did not get everything"), "{error}");
}

#[test]
fn a_tcp_collector_that_closes_at_once_is_tried_ever_more_seldom() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let settings = collector(listener.local_addr().expect("bound"), IpfixTransport::Tcp);
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let collectors = Collectors::start(&[settings], &Arc::new(Fixed), false).expect("started");
    std::thread::sleep(Duration::from_millis(1500));
    let connections = collectors.counters().remove(0).1.summary("").connections;
    // At 0, 0.1, 0.3, 0.7 and 1.5 s.
    assert!((2..=5).contains(&connections), "{connections} connections in 1.5 s");
}
