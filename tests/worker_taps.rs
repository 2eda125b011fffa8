//! Taps on a worker between rings: each point sees exactly the packets it should, byte for byte, with what became of
//! them; what finds no room is counted exactly; and a reader that does not read holds up nobody.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::faults::traffic;
use common::frames::{self, ACK, RST, SYN};
use common::rig::{Outcome, Rig, Setup, tap_set};
use gnomon::appliance::PolicyNames;
use gnomon::filter::{Expression, Schema};
use gnomon::packet::DropReason;
use gnomon::rules::{Decision, RuleHandle};
use gnomon::worker::WhenFull;
use gnomon::worker::tap::{
    CaptureHead, CaptureLane, Fate, FlowSight, Keep, MAX_SNAP, Point, Points, PortMask, Tap, TapSink, TraceLane,
    TraceNote,
};

const A: &str = "10.0.0.1";
const B: &str = "10.0.1.1";
/// Ports of the rig: outputs 0 and 1.
const OUT: u16 = 0;
const IN: u16 = 1;
const RULES: &str = r#"
[policy]
default = "deny"
non_ip = "deny"
[[rule]]
id = "web"
protocol = "tcp"
ports = 80
action = "allow"
[[rule]]
id = "no-ssh"
protocol = "tcp"
ports = 22
action = "reject"
[[rule]]
id = "names"
protocol = "udp"
ports = 53
action = "allow"
"#;

fn tcp(port: u16, flags: u8) -> Vec<u8> {
    frames::tcp((A, B), (40_000, port), flags, (100, 0), b"some payload")
}

fn points(points: &[Point]) -> Points {
    points.iter().copied().collect()
}

fn filter(text: &str, names: Option<&PolicyNames>) -> Arc<Expression> {
    let parsed = Expression::parse(text, &Schema::PACKET).unwrap_or_else(|error| panic!("{error}"));
    Arc::new(names.map_or(parsed.clone(), |names| parsed.bind(names).expect("names that there are")))
}

fn capture(text: &str, at: &[Point], workers: usize, ring: usize, snap_len: u32) -> (Tap, Vec<Arc<CaptureLane>>) {
    let lanes: Vec<_> = (0..workers).map(|_| Arc::new(CaptureLane::new(ring, snap_len, 2))).collect();
    let sink = TapSink::Capture(lanes.clone());
    (Tap { filter: filter(text, None), points: points(at), ports: PortMask::ALL, sink }, lanes)
}

fn whole(text: &str, at: &[Point]) -> (Tap, Vec<Arc<CaptureLane>>) {
    capture(text, at, 1, 16 << 20, MAX_SNAP as u32)
}

fn trace(text: &str, at: &[Point], places: usize, keep: Keep) -> (Tap, Arc<TraceLane>) {
    let lane = Arc::new(TraceLane::new(places, keep));
    let sink = TapSink::Trace(vec![lane.clone()]);
    (Tap { filter: filter(text, None), points: points(at), ports: PortMask::ALL, sink }, lane)
}

/// All that a lane holds, and how many packets it lost before them.
fn read(lane: &CaptureLane) -> (Vec<(CaptureHead, Vec<u8>)>, u64) {
    let (mut records, mut lost, mut bytes) = (Vec::new(), 0, Vec::new());
    while let Some(words) = lane.ring.read(&mut bytes, |words| words[1] as u32 as usize) {
        let head = CaptureHead::from_words(&words).expect("a worker wrote it");
        lost += u64::from(head.lost);
        if !head.void {
            records.push((head, bytes.clone()));
        }
    }
    (records, lost)
}

fn at(records: &[(CaptureHead, Vec<u8>)], point: Point) -> Vec<Vec<u8>> {
    records.iter().filter(|(head, _)| head.point == point).map(|(_, bytes)| bytes.clone()).collect()
}

fn notes(lane: &TraceLane) -> Vec<TraceNote> {
    std::iter::from_fn(|| lane.pop()).collect()
}

#[test]
fn every_point_sees_its_packets_byte_for_byte() {
    let rig = Rig::start();
    let (tap, lanes) = whole("", &Point::ALL);
    let setup = Setup { taps: vec![tap], ..Setup::new(RULES) };
    let broken = frames::ethernet([2; 6], [4; 6], 0x0800, &[0x45, 0, 0]);
    let sent = [tcp(80, SYN), tcp(80, ACK), tcp(25, SYN), tcp(22, SYN), broken, frames::arp(A, B)];
    let out = rig.run(&setup, &sent);
    let (records, lost) = read(&lanes[0]);
    assert_eq!(lost, 0);
    assert_eq!(at(&records, Point::Rx), sent);
    assert_eq!(at(&records, Point::Verdict), sent);
    assert_eq!(out.forwarded, sent[..2]);
    // In a replay the answer has a place of its own behind the packet it answers.
    let answer: Vec<_> = records.iter().filter(|(head, _)| head.generated).collect();
    assert_eq!((answer.len(), answer[0].0.point, answer[0].0.port), (1, Point::Tx, IN));
    assert_eq!((&answer[0].1, answer[0].1[47]), (&out.replies[0], RST | ACK));
    let forwarded: Vec<_> = records.iter().filter(|(head, _)| head.point == Point::Tx && !head.generated).collect();
    assert_eq!(forwarded.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(), out.forwarded);
    assert!(forwarded.iter().all(|(head, _)| head.port == OUT && head.dropped.is_none()));
    let dropped: Vec<_> = records.iter().filter(|(head, _)| head.point == Point::Drop).collect();
    assert_eq!(dropped.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(), sent[2..]);
    let reasons: Vec<_> = dropped.iter().map(|(head, _)| head.dropped.expect("a reason").name()).collect();
    assert_eq!(reasons, ["denied", "rejected", "malformed_ipv4_total_length", "non_ip_denied"]);
    for ((head, bytes), note) in records.iter().filter(|(head, _)| head.point == Point::Rx).zip(&out.notes) {
        let judged = head.judged.expect("all came to a verdict");
        assert_eq!((judged.decision, judged.rule, judged.generation), (note.decision, note.rule, note.generation));
        assert_eq!((head.flow_id, head.port, head.dropped), (note.flow_id, IN, note.dropped));
        assert_eq!((head.ns, head.wire_len as usize), (1_000 * (note.index + 1), bytes.len()));
    }
}

#[test]
fn expressions_ports_and_snap_length_choose() {
    let rig = Rig::start();
    let (named, by_rule) = whole("rule=web", &[Point::Tx]);
    let (short, cut) = capture("proto=tcp and not dest_port=80", &[Point::Drop], 1, 1 << 20, 60);
    let (mut elsewhere, none) = whole("", &[Point::Rx, Point::Drop]);
    elsewhere.ports = PortMask(1 << OUT);
    let setup = Setup { taps: vec![short, elsewhere], ..Setup::new(RULES) };
    let sent = [tcp(80, SYN), frames::udp((A, B), (9, 53), b"?"), tcp(25, SYN), tcp(80, ACK)];
    let out = rig.live(&setup, |io| {
        io.feed(0, &sent);
        io.wait(|io| io.settled() == 4, "settled");
        // Taps are published while packets flow; names are bound to the policy in force.
        let bound = Tap { filter: filter(named.filter.text(), Some(io.host.names())), ..named.clone() };
        io.taps.publish(tap_set(2, vec![bound])).expect("ascending");
        io.wait(|io| io.taps.generations() == [2], "adopted");
        io.feed(0, &sent);
        io.wait(|io| io.settled() == 8, "settled");
    });
    assert_eq!(out.forwarded.len(), 6);
    let (records, _) = read(&cut[0]);
    assert_eq!(records.len(), 1, "only while it was published");
    assert_eq!((&records[0].1[..], records[0].0.wire_len as usize), (&sent[2][..60], sent[2].len()));
    assert!(read(&none[0]).0.is_empty());
    assert_eq!(at(&read(&by_rule[0]).0, Point::Tx), [&sent[0], &sent[3]].map(Clone::clone));
}

#[test]
fn what_the_device_does_not_take_is_a_drop_and_no_transmission() {
    let rig = Rig::start();
    let (all, lanes) = whole("", &[Point::Tx, Point::Drop]);
    let (drops, only_drops) = whole("drop=transmit_full src_port=1000-1099", &[Point::Drop]);
    let (told, told_lost) = trace("", &[Point::Drop], 8192, Keep::Last);
    let (sent_only, told_sent) = trace("", &[Point::Tx], 8192, Keep::Last);
    // A ring of 64 places takes 63.
    let taps = vec![all, drops, told, sent_only];
    let setup = Setup { taps, forward_ring: 64, ..Setup::new("[policy]\ndefault = \"allow\"\n") };
    let sent: Vec<_> = (0..500u16).map(|n| frames::udp((A, B), (1000 + n, 53), &n.to_be_bytes())).collect();
    let out = rig.live(&setup, |io| {
        io.keep = true;
        for frame in &sent {
            assert!(io.put(0, frame));
        }
        io.wait(|io| io.settled() == 500, "settled");
    });
    assert_eq!((out.forwarded.len(), out.dropped(DropReason::TransmitFull)), (63, 437));
    let (records, lost) = read(&lanes[0]);
    assert_eq!((lost, at(&records, Point::Tx)), (0, out.forwarded.clone()));
    assert_eq!(at(&records, Point::Drop), sent[63..]);
    assert!(records.iter().all(|(head, _)| (head.point == Point::Drop) == head.dropped.is_some()));
    assert_eq!(at(&read(&only_drops[0]).0, Point::Drop), sent[63..100]);
    let fates: Vec<_> = notes(&told_lost).into_iter().map(|note| note.fate).collect();
    assert_eq!(fates, vec![Fate::Dropped(DropReason::TransmitFull); 437]);
    assert_eq!(notes(&told_sent).len(), 63);
    let counters = lanes[0].at(OUT, Point::Tx).expect("a port");
    assert_eq!((counters.seen.get(), counters.matched.get(), counters.lost.get()), (500, 63, 0));
}

#[test]
fn packets_lost_between_workers_are_seen_where_they_were_lost() {
    let rig = Rig::start();
    let (tap, lanes) = capture("", &[Point::Rx, Point::Drop], 2, 16 << 20, 2000);
    let text = "[policy]\ndefault = \"allow\"\n";
    let setup = Setup { taps: vec![tap], workers: 2, input_ring: 64, ..Setup::new(text) };
    let sent: Vec<_> = (0..40_000u32).map(|n| frames::udp((A, B), (n as u16, 53), &n.to_be_bytes())).collect();
    let out = rig.live(&setup, |io| {
        io.keep = false;
        io.feed(0, &sent);
        io.wait(|io| io.received() == 40_000 && io.settled() == 40_000, "all settled");
    });
    let lost = out.dropped(DropReason::RedistributionFull);
    let (mut received, mut dropped) = (0, Vec::new());
    for lane in &lanes {
        let (records, gaps) = read(lane);
        assert_eq!(gaps, 0);
        received += at(&records, Point::Rx).len() as u64;
        dropped.extend(records.into_iter().filter(|(head, _)| head.point == Point::Drop));
    }
    println!("{lost} of {} lost between the workers", out.summary.rx);
    assert_eq!(received, out.summary.rx);
    let unowned: Vec<_> =
        dropped.iter().filter(|(head, _)| head.dropped == Some(DropReason::RedistributionFull)).collect();
    assert_eq!(unowned.len() as u64, lost);
    assert!(unowned.iter().all(|(head, bytes)| head.judged.is_none() && head.worker == 0 && sent.contains(bytes)));
}

#[test]
fn a_full_ring_holds_nobody_up_and_is_counted_exactly() {
    let rig = Rig::start();
    let (tap, lanes) = capture("dest_port=53", &Point::ALL, 1, 4096, 2000);
    let setup = Setup { taps: vec![tap], ..Setup::new(RULES) };
    let sent: Vec<_> =
        (0..3000u16).map(|n| frames::udp((A, B), (n, if n % 3 == 0 { 54 } else { 53 }), &[n as u8; 100])).collect();
    let (mut kept, mut told) = (0u64, 0);
    let out = rig.live(&setup, |io| {
        for (n, batch) in sent.chunks(500).enumerate() {
            io.feed(0, batch);
            io.wait(|io| io.settled() == 500 * (n as u64 + 1), "settled though nobody reads");
            // From the third batch on somebody does, once a batch.
            if n >= 2 {
                let (records, lost) = read(&lanes[0]);
                kept += records.len() as u64;
                told += lost;
            }
        }
    });
    assert_eq!((out.summary.rx, out.summary.tx), (3000, 2000));
    let (records, lost) = read(&lanes[0]);
    (kept, told) = (kept + records.len() as u64, told + lost);
    let (mut matched, mut missing) = (0, 0);
    for (port, point) in [(IN, Point::Rx), (IN, Point::Verdict), (OUT, Point::Tx), (IN, Point::Drop)] {
        let counters = lanes[0].at(port, point).expect("a port");
        assert_eq!(counters.seen.get(), [3000, 3000, 2000, 1000][point as usize], "{point:?}");
        assert_eq!(counters.matched.get(), [2000, 2000, 2000, 0][point as usize], "{point:?}");
        matched += counters.matched.get();
        missing += counters.lost.get();
    }
    println!("{matched} chosen, {kept} kept, {missing} lost, {told} of them told in records");
    assert_eq!(kept + missing, matched);
    assert!(missing > 5000 && told > 1000 && told <= missing && kept > 50);
}

#[test]
fn a_trace_tells_the_way_through_the_stages() {
    let rig = Rig::start();
    let (tap, lane) = trace("", &Point::ALL, 100, Keep::Last);
    let mirrors = "[[mirror]]\nname = \"all\"\ngroup = \"any\"\n[[mirror]]\nname = \"third\"\ngroup = \"any\"\nsample = \"1/3\"\n\
                   [[rule]]\nid = \"would\"\naction = \"deny\"\nmode = \"shadow\"\npriority = 1\nprotocol = \"tcp\"\nports = 80\n";
    let setup = Setup { taps: vec![tap], ..Setup::new(&format!("{RULES}{mirrors}")) };
    let reply = frames::tcp((B, A), (80, 40_000), SYN | ACK, (5, 101), b"");
    let sent = [tcp(80, SYN), reply, tcp(80, ACK), tcp(22, SYN), frames::arp(A, B)];
    let out = rig.run(&setup, &sent);
    let notes = notes(&lane);
    assert_eq!(notes.len(), 5);
    for (note, (seen, frame)) in notes.iter().zip(out.notes.iter().zip(&sent)) {
        assert_eq!((note.index, note.flow_id, note.tuple), (seen.index, seen.flow_id, seen.tuple));
        assert_eq!((&note.head[..usize::from(note.head_len)], note.wire_len as usize), (&frame[..], frame.len()));
        assert_eq!((note.mirrors.copied, note.mirrors.wanted), (seen.mirrors, 0b11));
        assert_eq!((note.port, note.pair, note.worker, note.handed_over), (IN, Some(OUT), 0, false));
        let verdict = note.verdict.expect("judged");
        assert_eq!((verdict.rule, verdict.decision, note.shadows), (seen.rule, seen.decision, seen.shadows));
    }
    let flow: Vec<_> =
        notes.iter().map(|note| (note.flow, note.direction, note.cached, note.flow_state.name())).collect();
    assert_eq!(flow[0], (FlowSight::New, 0, false, "new"));
    assert_eq!(flow[1], (FlowSight::Known, 1, false, "new"));
    assert_eq!(flow[2], (FlowSight::Known, 0, true, "established"));
    assert_eq!((flow[3].0, flow[4].0), (FlowSight::New, FlowSight::None));
    let fates: Vec<_> = notes.iter().map(|note| (note.fate, note.answered)).collect();
    let dropped = |reason| Fate::Dropped(reason);
    let sent = (Fate::Sent(OUT), false);
    let ends = [(dropped(DropReason::Rejected), true), (dropped(DropReason::NonIpDenied), false)];
    assert_eq!(fates, [[sent; 3].as_slice(), &ends].concat());
    assert_ne!(notes[0].shadows[0], RuleHandle::DEFAULT);
    assert_eq!(notes.iter().filter(|note| note.mirrors.selected == 0b11).count(), out.mirrored[1].len());
}

#[test]
fn a_trace_says_why_copies_were_lost() {
    let mirror = "[policy]\ndefault = \"allow\"\n[[mirror]]\nname = \"all\"\ngroup = \"any\"\n";
    let lost = |change: &dyn Fn(Setup) -> Setup| {
        let rig = Rig::start();
        let (tap, lane) = trace("", &Point::ALL, 4096, Keep::Last);
        let setup = change(Setup { taps: vec![tap], ..Setup::new(mirror) });
        let sent: Vec<_> = (0..300u16).map(|n| frames::udp((A, B), (n, 53), b"x")).collect();
        let out = rig.live(&setup, |io| {
            io.feed(0, &sent);
            io.wait(|io| io.settled() == 300, "settled");
        });
        let notes = notes(&lane);
        assert_eq!(notes.len(), 300);
        let count = |of: &dyn Fn(&TraceNote) -> u64| notes.iter().map(of).sum::<u64>();
        let session = &out.summary.mirrored["all"];
        assert_eq!(count(&|n| n.mirrors.selected), session.selected);
        assert_eq!(count(&|n| n.mirrors.copied & !n.mirrors.queue_full), session.packets);
        (
            count(&|n| n.mirrors.no_buffer),
            count(&|n| n.mirrors.link_down),
            count(&|n| n.mirrors.queue_full),
            session.lost,
        )
    };
    assert_eq!(lost(&|setup| Setup { mirror_ring: 64, ..setup }), (0, 0, 237, 237));
    assert_eq!(lost(&|setup| Setup { mirror_link_up: false, ..setup }), (0, 300, 0, 300));
    let (no_buffer, _, _, all) = lost(&|setup| Setup { clones: 127, ..setup });
    assert_eq!(no_buffer, all);
    assert!(all >= 173 - 32, "{all}");
}

#[test]
fn a_trace_keeps_the_first_or_the_last() {
    let rig = Rig::start();
    let (last, of_last) = trace("dest_port=53", &Point::ALL, 10, Keep::Last);
    let (first, of_first) = trace("dest_port=53", &Point::ALL, 10, Keep::First);
    let setup = Setup { taps: vec![last, first], ..Setup::new(RULES) };
    let sent: Vec<_> = (0..100u16).map(|n| frames::udp((A, B), (n, 53 + n % 2), b"x")).collect();
    rig.run(&setup, &sent);
    let indices = |lane: &TraceLane| notes(lane).iter().map(|note| note.index).collect::<Vec<_>>();
    assert_eq!(indices(&of_last), (40..50).map(|n| 2 * n).collect::<Vec<_>>());
    assert_eq!(indices(&of_first), (0..10).map(|n| 2 * n).collect::<Vec<_>>());
    assert_eq!((of_last.matched.get(), of_last.given_up.get(), of_last.is_full()), (50, 40, false));
    assert_eq!((of_first.matched.get(), of_first.given_up.get(), of_first.is_full()), (50, 40, true));
}

#[test]
fn a_tapped_worker_does_what_an_untapped_one_does() {
    let rig = Rig::start();
    let mixed = traffic();
    let config = "[policy]\ndefault = \"reject\"\n[[rule]]\nid = \"tcp\"\nprotocol = \"tcp\"\naction = \"allow\"\n\
                  [[mirror]]\nname = \"all\"\ngroup = \"any\"\nsample = \"1/3\"\n";
    let run = |taps: Vec<Tap>| {
        let setup = Setup { taps, when_full: WhenFull::Wait, ..Setup::new(config) };
        let out = rig.run(&setup, &mixed);
        let drops: BTreeMap<_, _> = out.summary.drops.clone();
        let Outcome { forwarded, replies, mirrored, records, notes, .. } = out;
        (forwarded, replies, mirrored, records, notes, drops)
    };
    let plain = run(Vec::new());
    let (captured, lanes) = whole("", &Point::ALL);
    let (traced, told) = trace("", &Point::ALL, 10_000, Keep::Last);
    assert!(run(vec![captured, traced]) == plain, "taps change nothing");
    let (records, lost) = read(&lanes[0]);
    assert_eq!((lost, at(&records, Point::Rx).len(), told.matched.get()), (0, mixed.len(), mixed.len() as u64));
    assert_eq!(at(&records, Point::Rx), mixed);
    let (sent, dropped) = (plain.0.len() + plain.1.len(), plain.4.iter().filter(|n| n.dropped.is_some()).count());
    assert_eq!((at(&records, Point::Tx).len(), at(&records, Point::Drop).len()), (sent, dropped));
    let denied = records.iter().filter(|(head, _)| head.judged.is_some_and(|j| j.decision != Decision::Allow));
    assert!(denied.count() > 10);
}
