//! ICMP errors belong to the flow whose packet they quote: its verdict, its record, its worker.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::captures;
use common::frames::{self, ACK, SYN};
use common::rig::{Io, Outcome, Rig, Setup};
use gnomon::dpdk::Scheme;
use gnomon::flow::{EndReason, FlowRecord};
use serde_json::Value;

const A: &str = "10.0.0.1";
const B: &str = "10.0.1.1";
/// In no group.
const ROUTER: &str = "10.9.9.9";
const POLICY: &str = r#"
[policy]
default = "deny"
[flow.timeouts]
udp = "5s"
[[rule]]
id = "web"
from = "10.0.0.0/24"
to = "10.0.1.0/24"
protocol = "tcp"
ports = 80
action = "allow"
[[rule]]
id = "names"
from = "10.0.0.0/24"
to = "10.0.1.0/24"
protocol = "udp"
action = "allow"
"#;

fn syn() -> Vec<u8> {
    frames::tcp((A, B), (40_000, 80), SYN, (100, 0), b"")
}

fn syn_ack() -> Vec<u8> {
    frames::tcp((B, A), (80, 40_000), SYN | ACK, (500, 101), b"")
}

fn query(port: u16) -> Vec<u8> {
    frames::udp((A, B), (port, 53), b"which?")
}

/// Host unreachable, from the router.
fn error(to: &str, about: &[u8]) -> Vec<u8> {
    frames::icmp_error((ROUTER, to), 3, 1, about)
}

fn run(policy: &str, sent: &[Vec<u8>]) -> Outcome {
    let out = Rig::start().run(&Setup::new(policy), sent);
    let summary = &out.summary;
    assert_eq!(summary.rx, summary.tx + summary.consumed + summary.drops.values().sum::<u64>());
    assert_eq!(out.records.iter().flat_map(|r| r.packets).sum::<u64>(), summary.rx, "every packet is in one flow");
    out
}

fn bound(out: &Outcome) -> (u64, u64) {
    (out.sum(|c| c.icmp_errors.get()), out.sum(|c| c.icmp_errors_bound.get()))
}

fn of_protocol(out: &Outcome, protocol: u8) -> Vec<&FlowRecord> {
    out.records.iter().filter(|r| r.tuple.protocol == protocol).collect()
}

#[test]
fn an_error_about_an_allowed_packet_passes_and_is_counted_in_its_flow() {
    let sent = [syn(), error(A, &syn()), syn_ack(), error(B, &syn_ack()), query(9), error(A, &query(9))];
    let out = run(POLICY, &sent);
    assert_eq!(out.forwarded, sent);
    assert_eq!((out.hits("web"), out.hits("names"), bound(&out)), (4, 2, (3, 3)));
    let [tcp] = of_protocol(&out, 6)[..] else { panic!("one connection") };
    assert_eq!((tcp.packets, tcp.icmp_errors), ([1, 1], 2), "its packets are its own");
    let [udp] = of_protocol(&out, 17)[..] else { panic!("one query") };
    assert_eq!((udp.packets, udp.icmp_errors), ([1, 0], 1));
    let icmp = of_protocol(&out, 1);
    assert!(icmp.iter().all(|r| r.tuple.src_ip().to_string() == ROUTER && r.icmp == (3, 1) && r.icmp_errors == 0));
    assert!(icmp.iter().all(|r| (r.tuple.src_port, r.tuple.dst_port) == (0, 0)), "a mark is no port");
}

#[test]
fn errors_about_nothing_seen_go_by_the_rules_and_make_no_flow_of_what_they_quote() {
    let stale = frames::tcp((A, B), (40_000, 80), ACK, (3_000_000_000, 501), b"");
    let unsent = frames::tcp((B, A), (80, 40_000), ACK, (1, 101), b"");
    let sent = [
        error(A, &syn()),
        syn(),
        // Not A's packet, not sent lately, never sent by B, not for who sent it.
        error(A, &frames::udp((A, B), (40_000, 80), b"")),
        error(A, &stale),
        error(B, &unsent),
        error(B, &syn()),
    ];
    let out = run(POLICY, &sent);
    assert_eq!(out.forwarded, sent[1..2]);
    assert_eq!((bound(&out), out.hits("default")), ((4, 0), 5), "the last one quotes nothing of its addressee");
    assert!(of_protocol(&out, 17).is_empty());
    assert_eq!(of_protocol(&out, 6).iter().map(|r| (r.packets, r.icmp_errors)).collect::<Vec<_>>(), [([1, 0], 0)]);

    let open = format!("{POLICY}[[rule]]\nid = \"errors\"\nprotocol = \"icmp\"\nicmp_type = 3\naction = \"allow\"\n");
    let out = run(&open, &sent);
    assert_eq!((out.forwarded.len(), out.hits("errors")), (6, 5));
}

#[test]
fn errors_share_the_fate_of_what_they_quote() {
    let rules = r#"
[[rule]]
id = "closed"
from = "10.0.0.0/24"
to = "10.0.1.0/24"
protocol = "tcp"
ports = 81
action = "reject"
[[rule]]
id = "one-way"
from = "10.0.0.0/24"
to = "10.0.1.0/24"
protocol = "tcp"
ports = 82
action = "allow"
stateful = false
[[rule]]
id = "known-bad"
tier = "threat"
from = "192.0.2.0/24"
action = "deny"
"#;
    let to = |port| frames::tcp((A, B), (40_000, port), SYN, (100, 0), b"");
    let bad = frames::icmp_error(("192.0.2.7", A), 3, 1, &to(80));
    let sent = [to(80), bad, error(A, &to(80)), to(81), error(A, &to(81)), to(82), error(A, &to(82))];
    let out = run(&format!("{POLICY}{rules}"), &sent);
    assert_eq!(out.forwarded, [&sent[0], &sent[2], &sent[5]].map(Clone::clone));
    assert_eq!((out.hits("closed"), out.hits("known-bad"), out.hits("one-way"), out.hits("default")), (2, 1, 1, 1));
    assert_eq!((out.summary.generated, bound(&out)), (1, (4, 4)), "the rejected packet is answered, the error is not");
}

#[test]
fn all_kinds_and_both_families() {
    let (six, router) = (("fd00::1", "fd00:1::1"), "fd00:9::9");
    let big = frames::udp(six, (7000, 53), &[7; 1300]);
    let ping = frames::echo((A, B), true, 5, b"ping");
    let pong = frames::echo((B, A), false, 5, b"ping");
    let rules = "[[rule]]\nid = \"six\"\nprotocol = \"udp\"\nto = \"fd00:1::/64\"\naction = \"allow\"\n\
                 [[rule]]\nid = \"ping\"\nprotocol = \"icmp\"\nicmp_type = 8\naction = \"allow\"\n";
    let mut sent = vec![big.clone(), query(9), ping.clone(), pong.clone()];
    sent.extend([1, 2, 3, 4].map(|kind| frames::icmp_error((router, six.0), kind, 0, &big)));
    sent.extend([3, 11, 12].map(|kind| frames::icmp_error((ROUTER, A), kind, 0, &query(9))));
    sent.extend([frames::icmp_error((ROUTER, A), 11, 0, &ping), frames::icmp_error((ROUTER, B), 11, 0, &pong)]);
    sent.push(frames::vlan(&frames::icmp_error((ROUTER, A), 11, 0, &ping), 7));
    let out = run(&format!("{POLICY}{rules}"), &sent);
    assert_eq!(out.forwarded, sent[..13]);
    assert_eq!((out.hits("six"), out.hits("names"), out.hits("ping"), bound(&out)), (5, 4, 4, (10, 9)));
    let told: Vec<u32> = out.records.iter().map(|r| r.icmp_errors).filter(|errors| *errors > 0).collect();
    assert_eq!((told.iter().sum::<u32>(), told.len()), (9, 3));
}

#[test]
fn errors_keep_no_flow_alive_and_each_is_counted() {
    const SECOND: u64 = 1_000_000_000;
    let about = error(A, &query(9));
    let mut sent = vec![(10 * SECOND, query(9))];
    sent.extend((1..=200).map(|n| (10 * SECOND + n * SECOND / 50, about.clone())));
    // The flow is over, and a late error about it is about nothing.
    sent.extend([(15 * SECOND + 1, about.clone()), (16 * SECOND, about)]);
    let out = Rig::start().replay(&Setup::new(POLICY), &sent);
    assert_eq!(bound(&out), (202, 200));
    let slices = of_protocol(&out, 17);
    assert_eq!(slices.iter().map(|r| r.icmp_errors).collect::<Vec<_>>(), [31, 31, 31, 31, 31, 31, 14]);
    let last = slices[slices.len() - 1];
    assert_eq!((last.reason, last.emitted, last.end), (EndReason::Idle, 15 * SECOND, 10 * SECOND));
    assert_eq!(slices.iter().map(|r| r.packets[0]).sum::<u64>(), 1);
}

/// Queries of one host to many, and errors of one router about each.
fn about_many_hosts() -> Vec<Vec<u8>> {
    let ends: Vec<_> = (0..150).map(|n| format!("10.0.1.{n}")).collect();
    let query = |end: &String| frames::udp((A, end), (9, 53), b"which?");
    let again = ends.iter().chain(&ends);
    ends.iter().map(query).chain(again.map(|end| error(A, &query(end)))).collect()
}

#[test]
fn the_worker_of_the_quoted_flow_gets_the_error() {
    let (rig, sent) = (Rig::start(), about_many_hosts());
    let out = rig.live(&Setup { workers: 3, notes: false, ..Setup::new(POLICY) }, |io| {
        for part in sent.chunks(150) {
            io.feed(0, part);
            let so_far = io.received().next_multiple_of(150);
            io.wait(|io| io.settled() >= so_far && io.settled() % 150 == 0 && io.settled() > 0, "a part");
        }
        io.wait(|io| io.settled() == 450, "all");
    });
    assert_eq!((out.forwarded.len(), bound(&out)), (450, (300, 300)));
    assert!(out.counters.iter().all(|c| c.icmp_errors_bound.get() > 50), "spread over all workers");
    assert!(of_protocol(&out, 17).iter().all(|r| r.icmp_errors == 2));
}

/// Feeds frames as a device with two queues would.
fn feed_by(scheme: &Scheme, io: &mut Io, frames: &[Vec<u8>]) {
    for frame in frames {
        let address = |at: usize| frame[at..at + 4].iter().fold(0, |all, byte| all << 8 | u128::from(*byte));
        io.feed(usize::from(scheme.queue(4, address(26), address(30))), [frame]);
    }
}

#[test]
fn where_the_device_spreads_flows_errors_are_handed_on() {
    let (rig, sent, scheme) = (Rig::start(), about_many_hosts(), Arc::new(Scheme::in_turn(2, 128)));
    let setup = Setup { workers: 2, notes: false, by_device: Some(scheme.clone()), ..Setup::new(POLICY) };
    let out = rig.live(&setup, |io| {
        feed_by(&scheme, io, &sent[..150]);
        io.wait(|io| io.settled() == 150, "queries");
        assert_eq!(io.counters.iter().map(|c| c.redistributed.get()).sum::<u64>(), 0, "the device brought them");
        feed_by(&scheme, io, &sent[150..]);
        io.wait(|io| io.settled() == 450, "errors");
    });
    assert_eq!((out.forwarded.len(), bound(&out), setup.strays.any()), (450, (300, 300), false));
    let handed = out.sum(|c| c.redistributed.get());
    assert!((100..200).contains(&handed), "all errors came by one queue: {handed}");
    assert!(of_protocol(&out, 17).iter().all(|r| r.icmp_errors == 2));
}

#[test]
fn a_device_that_does_not_spread_as_it_said_is_done_without() {
    let (rig, scheme) = (Rig::start(), Arc::new(Scheme::in_turn(2, 128)));
    let setup = Setup { workers: 2, notes: false, by_device: Some(scheme.clone()), ..Setup::new(POLICY) };
    let queries: Vec<_> = about_many_hosts().into_iter().take(150).collect();
    let answers = (0..150).map(|n| frames::udp((&format!("10.0.1.{n}"), A), (53, 9), b"this.")).collect::<Vec<_>>();
    let out = rig.live(&setup, |io| {
        // All by the first queue.
        io.feed(0, &queries[..1]);
        io.feed(0, &queries[..1]);
        io.feed(0, &queries);
        io.wait(|io| io.settled() == 152 && setup.strays.has(0), "queries");
        // All by the second: answers pass only where the question was seen.
        io.feed(1, &queries);
        io.feed(1, &answers);
        io.wait(|io| io.settled() == 452, "answers");
    });
    let answered = of_protocol(&out, 17).iter().filter(|r| r.packets[1] == 1).count();
    assert_eq!((out.forwarded.len(), answered), (452, 150));
}

#[test]
fn replays_say_the_same_whatever_the_number_of_workers() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (capture, config) = (folder.path().join("errors.pcap"), folder.path().join("errors.toml"));
    std::fs::write(&capture, captures::pcap(1, true, false, &about_many_hosts())).expect("written");
    std::fs::write(&config, POLICY).expect("written");
    let flows = |workers: &str| {
        let out = folder.path().join(format!("out{workers}"));
        let arguments: [PathBuf; 9] = [
            "replay".into(),
            "-q".into(),
            "--workers".into(),
            workers.into(),
            "-c".into(),
            config.clone(),
            "-o".into(),
            out.clone(),
            capture.clone(),
        ];
        common::succeeds(&common::gnomon(arguments.map(PathBuf::into_os_string)));
        std::fs::read_to_string(out.join("flows.jsonl")).expect("written")
    };
    let one = flows("1");
    assert_eq!((flows("2") == one, flows("5") == one), (true, true));
    let lines: Vec<Value> = one.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told = lines.iter().filter(|line| line["flow"]["icmp_errors"] == 2 && line["proto"] == "UDP").count();
    let errors: u64 = lines
        .iter()
        .filter(|l| l["proto"] == "ICMP")
        .map(|l| l["flow"]["pkts_toserver"].as_u64().expect("a number"))
        .sum();
    assert_eq!((told, errors), (150, 300));
}
