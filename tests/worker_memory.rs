//! A worker between rings: verdicts, state, mirrors, full queues, reloads, and where every packet went.

mod common;

use std::sync::atomic::Ordering;

use common::frames::{self, ACK, FIN, RST, SYN};
use common::rig::{Rig, Setup};
use gnomon::flow::EndReason;
use gnomon::packet::DropReason;
use gnomon::rules::Decision;
use gnomon::worker::WhenFull;

const A: &str = "10.0.0.1";
const B: &str = "10.0.1.1";
const POLICY: &str = "[policy]\ndefault = \"deny\"\n";

fn to_b(port: u16, flags: u8) -> Vec<u8> {
    frames::tcp((A, B), (40_000, port), flags, (100, 0), b"")
}

fn from_b(port: u16, flags: u8) -> Vec<u8> {
    frames::tcp((B, A), (port, 40_000), flags, (500, 101), b"")
}

/// A rule from A's network to B's.
fn rule(id: &str, action: &str, rest: &str) -> String {
    format!("[[rule]]\nid = \"{id}\"\nfrom = \"10.0.0.0/24\"\nto = \"10.0.1.0/24\"\naction = \"{action}\"\n{rest}\n")
}

fn setup(rules: &[String]) -> Setup {
    Setup::new(&format!("{POLICY}{}", rules.concat()))
}

/// Everything allowed, with mirror sessions.
fn mirrors(sessions: &str) -> Setup {
    Setup::new(&format!("[policy]\ndefault = \"allow\"\n{sessions}"))
}

fn mirror(name: &str, rest: &str) -> String {
    format!("[[mirror]]\nname = \"{name}\"\n{rest}\n")
}

fn many_flows(flows: u16) -> Vec<Vec<u8>> {
    (0..flows).map(|n| frames::udp((A, B), (1000 + n, 53), &n.to_be_bytes())).collect()
}

#[test]
fn each_action_does_and_counts_what_it_says() {
    let rig = Rig::start();
    let rules = [
        rule("note", "log", "priority = 1"),
        rule("would-deny", "deny", "priority = 2\nmode = \"shadow\"\nprotocol = \"tcp\"\nports = 80"),
        rule("would-reject", "reject", "priority = 3\nmode = \"shadow\"\nprotocol = \"tcp\""),
        rule("web", "allow", "protocol = \"tcp\"\nports = 80"),
        rule("no-smtp", "deny", "protocol = \"tcp\"\nports = 25"),
        rule("no-ssh", "reject", "protocol = \"tcp\"\nports = 22"),
    ];
    let sent = [to_b(80, SYN), to_b(80, ACK), to_b(25, SYN), to_b(22, SYN), to_b(99, SYN)];
    let out = rig.run(&setup(&rules), &sent);
    assert_eq!(out.forwarded, sent[..2]);
    assert_eq!((out.hits("web"), out.hits("no-smtp"), out.hits("no-ssh"), out.hits("default")), (2, 1, 1, 1));
    assert_eq!((out.would("note"), out.would("would-deny"), out.would("would-reject")), (5, 2, 5));
    assert_eq!((out.dropped(DropReason::Denied), out.dropped(DropReason::Rejected)), (2, 1));
    assert_eq!((out.summary.rx, out.summary.tx, out.summary.generated), (5, 2, 1));
    let decisions: Vec<_> = out.notes.iter().map(|n| (n.index, n.dropped.map(DropReason::name))).collect();
    let expected = [(0, None), (1, None), (2, Some("denied")), (3, Some("rejected")), (4, Some("denied"))];
    assert_eq!(decisions, expected);
    let reset = &out.replies[0];
    assert_eq!((reset.len(), reset[47], &reset[42..46]), (60, RST | ACK, &101u32.to_be_bytes()[..]));
    assert_eq!((&reset[26..30], &reset[30..34]), (&[10, 0, 1, 1][..], &[10, 0, 0, 1][..]));
    assert_eq!(out.records.len(), 4);
}

#[test]
fn replies_of_stateful_rules_pass_and_of_stateless_ones_do_not() {
    let rig = Rig::start();
    let rules = [
        rule("stateful", "allow", "protocol = \"tcp\"\nports = 80"),
        rule("stateless", "allow", "protocol = \"tcp\"\nports = 81\nstateful = false"),
    ];
    let sent = [to_b(80, SYN), from_b(80, SYN | ACK), to_b(81, SYN), from_b(81, SYN | ACK), from_b(82, SYN | ACK)];
    let out = rig.run(&setup(&rules), &sent);
    assert_eq!(out.forwarded, sent[..3]);
    assert_eq!((out.dropped(DropReason::Denied), out.hits("stateful"), out.hits("stateless")), (2, 2, 1));
}

#[test]
fn the_allowed_side_of_a_denied_flow_becomes_its_initiator() {
    let rig = Rig::start();
    let rules = [rule("out", "allow", "protocol = \"tcp\"")];
    // B speaks first and may not; A may, to B, and then B's answers pass.
    let sent = [from_b(80, SYN), to_b(80, SYN), from_b(80, SYN | ACK), to_b(80, ACK)];
    let out = rig.run(&setup(&rules), &sent);
    assert_eq!(out.forwarded, sent[1..]);
    assert_eq!(out.records.len(), 1);
    let record = &out.records[0];
    assert_eq!((record.tuple.src_ip().to_string(), record.tuple.dst_port), (A.to_owned(), 80));
    assert_eq!(record.packets, [2, 2], "counters change sides with it");
    assert_eq!(out.hits("out"), 3);
}

#[test]
fn an_answer_that_nobody_asked_for_opens_no_way_in() {
    let rig = Rig::start();
    let rules = [rule("out", "allow", "protocol = \"tcp\"\nports = 443")];
    // B is a server that A may connect to, and pretends that A did so from port 22.
    let forged = frames::tcp((B, A), (443, 22), SYN | ACK, (500, 101), b"");
    let attempt = frames::tcp((B, A), (443, 22), SYN, (500, 0), b"");
    let sent = [forged, attempt, from_b(443, SYN | ACK), to_b(443, SYN), from_b(443, SYN | ACK), to_b(443, ACK)];
    let out = rig.run(&setup(&rules), &sent);
    assert_eq!(out.forwarded, sent[3..], "what A asks for is answered, also when an answer came too early");
    assert_eq!(out.dropped(DropReason::Denied), 3);
}

#[test]
fn icmp_messages_of_one_flow_are_judged_each_by_its_type() {
    let rig = Rig::start();
    let setup = setup(&[rule("ping", "allow", "protocol = \"icmp\"\nicmp_type = 8")]);
    let (there, back) = ((A, B), (B, A));
    let sent = [
        frames::echo(there, true, 0, b""),
        // Same flow as an echo request without identifier: redirect, timestamp, unreachable.
        frames::icmp(there, 5, 1),
        frames::icmp(there, 13, 0),
        frames::icmp(there, 3, 1),
        frames::echo(back, false, 0, b""),
        frames::echo(back, true, 0, b""),
        frames::echo(back, false, 9, b""),
        frames::echo(there, true, 9, b""),
        frames::echo(back, false, 9, b""),
    ];
    let out = rig.run(&setup, &sent);
    let passed = [&sent[0], &sent[4], &sent[7], &sent[8]].map(Clone::clone);
    assert_eq!(out.forwarded, passed);
    assert_eq!(out.hits("ping"), 4);
    let sixes = ("fd00::1", "fd00::2");
    let open = Setup::new("[policy]\ndefault = \"deny\"\nnon_ip = \"allow\"\n");
    let mut routed = frames::neighbour_solicitation(sixes);
    routed[21] = 64;
    let sent = [frames::neighbour_solicitation(sixes), frames::icmp(sixes, 1, 0), routed];
    let out = rig.run(&open, &sent);
    assert_eq!(out.forwarded, sent[..1], "discovery opens the way for nothing else");
}

#[test]
fn records_name_sessions_of_their_own_generation_only() {
    let rig = Rig::start();
    let before =
        mirrors(&(mirror("one", "group = \"any\"") + &mirror("two", "group = \"none\"\n[[group]]\nname = \"none\"")));
    let after =
        mirrors(&(mirror("two", "group = \"none\"\n[[group]]\nname = \"none\"\n") + &mirror("one", "group = \"any\"")))
            .config;
    let out = rig.live(&before, |io| {
        io.feed(0, &[to_b(80, SYN)]);
        io.wait(|io| io.settled() == 1, "settled");
        let number = io.host.replace(&after, 0).expect("compiles");
        io.wait(|io| io.counters[0].rx_packets.get() == 1, "quiet");
        while io.host.reclaim().iter().any(|generation| *generation != number) {
            std::thread::yield_now();
        }
        io.feed(0, &[to_b(80, ACK)]);
        io.wait(|io| io.settled() == 2, "settled");
    });
    assert_eq!((out.records.len(), out.records[0].generation, out.records[0].mirrors), (1, 2, 0b10));
}

#[test]
fn a_new_generation_acts_at_once_and_loses_nothing() {
    let rig = Rig::start();
    let open = setup(&[rule("web", "allow", "protocol = \"tcp\"")]);
    let shut = setup(&[rule("web", "deny", "protocol = \"tcp\"")]).config;
    let batch: Vec<_> = (0..1000).map(|n| to_b(80 + n % 10, ACK)).collect();
    let out = rig.live(&open, |io| {
        for (round, config) in [None, Some(&shut), Some(&open.config)].into_iter().enumerate() {
            if let Some(config) = config {
                let number = io.host.replace(config, 0).expect("compiles");
                let reached = |host: &mut gnomon::appliance::PolicyHost| host.reclaim().iter().all(|g| *g == number);
                let began = std::time::Instant::now();
                while !reached(&mut io.host) {
                    assert!(began.elapsed().as_secs() < 60, "adopted");
                    std::thread::yield_now();
                }
            }
            io.feed(0, &batch);
            io.wait_received(1000 * (round as u64 + 1));
            io.wait(|io| io.settled() == io.received(), "nothing in flight");
            assert_eq!(io.counters[0].tx_packets.get(), [1000, 1000, 2000][round], "round {round}");
        }
    });
    assert_eq!((out.summary.rx, out.summary.tx, out.dropped(DropReason::Denied)), (3000, 2000, 1000));
    assert_eq!(out.records.iter().map(|r| r.packets[0]).sum::<u64>(), 3000, "flows live on");
    let web = &out.summary.rules["web"];
    assert_eq!((web.packets, out.hits("default")), (3000, 0), "one rule, one count over all generations");
    let times = out.counters[0].rules[1].times().expect("it was hit");
    assert!(0 < times.0 && times.0 < times.1, "{times:?}");
    assert!(web.first_hit < web.last_hit && web.first_hit.is_some(), "{web:?}");
    assert_eq!((out.records.len(), out.summary.flows), (10, 10));
    assert!(out.records.iter().all(|r| r.generation == 3));
}

/// What a reload does to a connection that the old rules allow and the new ones do not.
struct Reload {
    forwarded: Vec<Vec<u8>>,
    /// Reason, decision and packets of each record, in order of emission.
    records: Vec<(EndReason, Decision, [u64; 2])>,
    distinct: usize,
}

fn reload(live_flows: &str, before: &[String], after: &[String], first: &[Vec<u8>], then: &[Vec<u8>]) -> Reload {
    let rig = Rig::start();
    let text = |rules: &[String]| format!("{POLICY}live_flows = \"{live_flows}\"\n{}", rules.concat());
    let after = Setup::new(&text(after)).config;
    let out = rig.live(&Setup::new(&text(before)), |io| {
        let mut fed = 0;
        for packet in first {
            io.feed(0, std::slice::from_ref(packet));
            fed += 1;
            io.wait(|io| io.settled() == fed, "settled");
        }
        let number = io.host.replace(&after, 0).expect("compiles");
        io.wait(|io| io.counters[0].rx_packets.get() == fed, "quiet");
        while io.host.reclaim().iter().any(|generation| *generation != number) {
            std::thread::yield_now();
        }
        for packet in then {
            io.feed(0, std::slice::from_ref(packet));
            fed += 1;
            io.wait(|io| io.settled() == fed, "settled");
        }
    });
    let mut records = out.records.clone();
    records.sort_by_key(|record| (record.emitted, record.start));
    let distinct = records.iter().map(|record| record.flow_id).collect::<std::collections::HashSet<_>>().len();
    let records = records.iter().map(|record| (record.reason, record.decision, record.packets)).collect();
    Reload { forwarded: out.forwarded, records, distinct }
}

#[test]
fn flows_alive_at_a_reload_are_kept_rechecked_or_dropped() {
    let (open, shut) = ([rule("web", "allow", "protocol = \"tcp\"")], [rule("web", "deny", "protocol = \"tcp\"")]);
    let first = [to_b(80, SYN), from_b(80, SYN | ACK), to_b(80, ACK)];
    let then = [from_b(80, ACK), to_b(80, ACK), to_b(81, SYN)];

    let kept = reload("keep", &open, &shut, &first, &then);
    assert_eq!(kept.forwarded, [&first[..], &then[..2]].concat(), "until it ends; what is new is judged anew");
    let ends = [(EndReason::Forced, Decision::Allow, [3, 2]), (EndReason::Forced, Decision::Deny, [1, 0])];
    assert_eq!((kept.records, kept.distinct), (ends.to_vec(), 2));

    let rechecked = reload("recheck", &open, &shut, &first, &then);
    assert_eq!(rechecked.forwarded, first);
    let ends = [(EndReason::Forced, Decision::Deny, [3, 2]), (EndReason::Forced, Decision::Deny, [1, 0])];
    assert_eq!((rechecked.records, rechecked.distinct), (ends.to_vec(), 2), "one record for both lives");

    let dropped = reload("drop", &open, &shut, &first, &then);
    assert_eq!(dropped.forwarded, first);
    let ends = [
        (EndReason::Forced, Decision::Allow, [2, 1]),
        // B spoke first in the new one.
        (EndReason::Forced, Decision::Deny, [1, 1]),
        (EndReason::Forced, Decision::Deny, [1, 0]),
    ];
    assert_eq!((dropped.records, dropped.distinct), (ends.to_vec(), 3), "what was allowed has a record of its own");
}

#[test]
fn reloads_spare_what_is_still_allowed_and_free_what_was_refused() {
    let (open, shut) = ([rule("web", "allow", "protocol = \"tcp\"")], [rule("web", "deny", "protocol = \"tcp\"")]);
    let other = [rule("www", "allow", "protocol = \"tcp\"\nports = 80")];
    let (first, then) = ([to_b(80, SYN)], [from_b(80, SYN | ACK), to_b(80, ACK)]);
    for live_flows in ["keep", "recheck", "drop"] {
        let same = reload(live_flows, &open, &other, &first, &then);
        assert_eq!(same.forwarded, [&first[..], &then[..]].concat(), "{live_flows}: the other rule allows it too");
        assert_eq!(same.records, [(EndReason::Forced, Decision::Allow, [2, 1])], "{live_flows}");
        let freed = reload(live_flows, &shut, &open, &first, &[to_b(80, SYN), from_b(80, SYN | ACK)]);
        assert_eq!(freed.forwarded.len(), 2, "{live_flows}: a refusal is not kept");
    }
}

#[test]
fn reloads_under_load_lose_nothing() {
    let rig = Rig::start();
    let setup = setup(&[rule("web", "allow", "")]);
    let batch = many_flows(500);
    let out = rig.live(&setup, |io| {
        io.keep = false;
        for round in 1..=40 {
            io.feed(0, &batch);
            io.host.replace(&setup.config, 0).expect("compiles");
            io.host.reclaim();
            if round % 8 == 0 {
                io.wait_received(500 * round);
                io.collect();
            }
        }
        io.wait_received(20_000);
    });
    assert_eq!((out.summary.rx, out.summary.tx), (20_000, 20_000));
}

#[test]
fn mirrors_copy_before_anything_is_done_and_denied_packets_too() {
    let rig = Rig::start();
    let sessions =
        mirror("all", "group = \"any\"") + &mirror("refused", "verdicts = [\"deny\", \"reject\"]\ngroup = \"any\"");
    let rules = [
        rule("no-ssh", "reject", "protocol = \"tcp\"\nports = 22"),
        rule("web", "allow", "ports = 80\nprotocol = \"tcp\""),
    ];
    let setup = Setup::new(&format!("{POLICY}{}{sessions}", rules.concat()));
    let sent = [frames::vlan(&to_b(80, SYN), 7), to_b(22, SYN), to_b(9, SYN), from_b(9, RST), to_b(80, FIN)];
    let out = rig.run(&setup, &sent);
    assert_eq!(out.mirrored[0], sent, "unchanged, all of them, once each");
    assert_eq!(out.mirrored[1], sent[1..4]);
    assert_eq!(out.forwarded, [sent[0].clone(), sent[4].clone()]);
    let bytes: usize = sent.iter().map(Vec::len).sum();
    let all = out.summary.mirrored["all"];
    assert_eq!((all.packets, all.bytes, all.lost), (5, bytes as u64, 0));
    let taken: Vec<_> = out.notes.iter().map(|n| n.mirrors).collect();
    assert_eq!(taken, [1, 3, 3, 3, 1]);
}

#[test]
fn samples_of_packets_and_of_flows_are_kept() {
    let rig = Rig::start();
    let sessions =
        mirror("tenth", "group = \"any\"\nsample = \"1/10\"") + &mirror("share", "group = \"any\"\nflows = \"30%\"");
    let setup = mirrors(&sessions);
    let both: Vec<_> = (0..1000u16)
        .flat_map(|n| [frames::udp((A, B), (1000 + n, 53), b"?"), frames::udp((B, A), (53, 1000 + n), b"!")])
        .collect();
    let out = rig.run(&setup, &both);
    assert_eq!((out.mirrored[0].len(), out.forwarded.len()), (200, 2000));
    let positions: Vec<_> = out.notes.iter().filter(|n| n.mirrors & 1 == 1).map(|n| n.index).collect();
    assert!(positions.windows(2).all(|pair| pair[1] - pair[0] == 10), "every tenth");
    let flows: std::collections::BTreeSet<_> =
        out.notes.iter().filter(|n| n.mirrors & 2 == 2).map(|n| n.flow_id).collect();
    assert_eq!(out.mirrored[1].len(), 2 * flows.len(), "whole flows, both directions");
    assert!((240..360).contains(&flows.len()), "{} of 1000 flows for a share of 0.3", flows.len());
    let again = rig.run(&setup, &both);
    assert_eq!(out.mirrored, again.mirrored, "the same ones with the same seed");
}

#[test]
fn full_mirrors_lose_copies_and_forwarding_does_not_notice() {
    let rig = Rig::start();
    let base = mirrors(&mirror("tap", "group = \"any\""));
    let sent = many_flows(1000);
    let full = rig.run(&Setup { mirror_ring: 64, ..base.clone() }, &sent);
    assert_eq!(full.forwarded, sent);
    assert_eq!((full.mirrored[0].len(), full.summary.mirrored["tap"].lost), (63, 937));
    assert_eq!(full.sum(|c| c.mirrors[0].lost_queue.get()), 937);
    let poor = rig.run(&Setup { clones: 127, ..base.clone() }, &sent);
    assert_eq!(poor.forwarded, sent);
    assert_eq!((poor.mirrored[0].len(), poor.sum(|c| c.mirrors[0].lost_pool.get())), (127, 873));
    let down = rig.run(&Setup { mirror_link_up: false, ..base }, &sent);
    assert_eq!(down.forwarded, sent);
    assert_eq!((down.mirrored[0].len(), down.summary.mirrored["tap"].lost), (0, 1000));
}

#[test]
fn where_nothing_may_be_lost_the_worker_waits_for_copies() {
    let rig = Rig::start();
    let sessions: String = (0..4).map(|n| mirror(&format!("tap{n}"), "group = \"any\"")).collect();
    let setup =
        Setup { when_full: WhenFull::Wait, clones: 63, mirror_ring: 64, forward_ring: 64, ..mirrors(&sessions) };
    let sent = many_flows(1000);
    let out = rig.live(&setup, |io| {
        io.feed(0, &sent);
        while io.received() < 1000 || io.settled() < 1000 {
            io.collect();
        }
    });
    assert_eq!(out.forwarded, sent);
    for session in 0..4 {
        assert_eq!(out.mirrored[session], sent, "session {session}");
    }
}

#[test]
fn what_cannot_be_sent_is_counted_by_reason() {
    let rig = Rig::start();
    let base = mirrors("");
    let sent = many_flows(500);
    let full = rig.run(&Setup { forward_ring: 128, ..base.clone() }, &sent);
    assert_eq!((full.forwarded.len(), full.dropped(DropReason::TransmitFull)), (127, 373));
    assert_eq!(full.forwarded, sent[..127], "what fits is in order");
    let down = rig.run(&Setup { link_up: false, ..base.clone() }, &sent);
    assert_eq!((down.summary.tx, down.dropped(DropReason::LinkDown)), (0, 500));
    let alone = rig.run(&Setup { paired: false, ..base.clone() }, &sent);
    assert_eq!((alone.summary.tx, alone.dropped(DropReason::NoPair)), (0, 500));
    let deaf = rig.run(&Setup { records: 100, ..base }, &sent);
    assert_eq!((deaf.records.len(), deaf.summary.records, deaf.summary.records_lost), (100, 100, 400));
    assert_eq!(deaf.forwarded, sent);
}

#[test]
fn a_link_may_go_and_come_back() {
    let rig = Rig::start();
    let out = rig.live(&mirrors(""), |io| {
        for (round, up) in [true, false, true].into_iter().enumerate() {
            io.link.store(up, Ordering::Relaxed);
            io.feed(0, &many_flows(100));
            io.wait(|io| io.settled() == 100 * (round as u64 + 1), "all settled");
        }
    });
    assert_eq!((out.summary.tx, out.dropped(DropReason::LinkDown)), (200, 100));
}

#[test]
fn software_spreading_brings_both_directions_to_one_worker() {
    let rig = Rig::start();
    let setup = Setup { workers: 2, ..mirrors("") };
    let host = |n: u16| format!("10.1.{}.{}", n / 200, n % 200 + 1);
    let there: Vec<_> = (0..1000).map(|n| frames::udp((&host(n), B), (4000, 53), b"?")).collect();
    let back: Vec<_> = (0..1000).map(|n| frames::udp((B, &host(n)), (53, 4000), b"!")).collect();
    let out = rig.live(&setup, |io| {
        // Each direction arrives at a queue of its own, as without symmetric hashing.
        io.feed(0, &there);
        io.feed(1, &back);
        io.wait(|io| io.settled() == 2000, "all settled");
    });
    assert_eq!((out.summary.rx, out.summary.tx), (2000, 2000), "received once");
    assert_eq!((out.summary.flows, out.records.len()), (1000, 1000), "no flow is split");
    assert!(out.records.iter().all(|r| r.packets == [1, 1]));
    let shares: Vec<_> = out.counters.iter().map(|c| c.flows.get()).collect();
    assert!(shares.iter().all(|s| *s > 300), "{shares:?}");
    let moved = out.sum(|c| c.redistributed.get());
    assert!((800..1200).contains(&moved), "half of the packets move: {moved}");
}

#[test]
fn handing_over_to_a_full_worker_is_counted() {
    let rig = Rig::start();
    let setup = Setup { workers: 2, input_ring: 16, packets: 4095, ..mirrors("") };
    let mixed: Vec<_> =
        (0..4000u16).map(|n| frames::udp((&format!("10.1.{}.{}", n / 250, n % 250 + 1), B), (1, 2), b"")).collect();
    let out = rig.live(&setup, |io| {
        io.feed(0, &mixed);
        io.wait(|io| io.settled() == 4000, "all settled");
    });
    assert_eq!(out.summary.rx, 4000);
    assert_eq!(out.summary.tx + out.dropped(DropReason::RedistributionFull), 4000);
}

#[test]
fn frames_without_ip_and_neighbour_discovery_follow_their_own_setting() {
    let rig = Rig::start();
    let sent = [
        frames::arp(A, B),
        frames::neighbour_solicitation(("fd00::1", "fd00::2")),
        frames::ethernet([2; 6], [4; 6], 0x88cc, b"lldp"),
        to_b(1, SYN),
    ];
    let open = Setup::new("[policy]\ndefault = \"deny\"\nnon_ip = \"allow\"\n");
    let out = rig.run(&open, &sent);
    assert_eq!(out.forwarded, sent[..3]);
    assert_eq!(out.dropped(DropReason::Denied), 1);
    let shut = Setup::new("[policy]\ndefault = \"allow\"\nnon_ip = \"deny\"\n");
    let out = rig.run(&shut, &sent);
    assert_eq!(out.forwarded, sent[3..]);
    assert_eq!((out.dropped(DropReason::NonIpDenied), out.dropped(DropReason::Denied)), (2, 1));
}

#[test]
fn later_fragments_get_the_verdict_of_the_first() {
    let rig = Rig::start();
    let setup = setup(&[rule("dns", "allow", "protocol = \"udp\"\nports = 53")]);
    let allowed = frames::udp_fragments((A, B), (4000, 53), 7, &[1; 3000], 1024);
    let refused = frames::udp_fragments((A, B), (4000, 54), 8, &[2; 3000], 1024);
    let orphans = frames::udp_fragments((A, B), (4000, 53), 9, &[3; 3000], 1024);
    let mixed: Vec<_> =
        (0..3).flat_map(|n| [allowed[n].clone(), refused[n].clone()]).chain(orphans[1..].to_vec()).collect();
    let out = rig.run(&setup, &mixed);
    assert_eq!(out.forwarded, allowed);
    assert_eq!((out.dropped(DropReason::Denied), out.hits("dns")), (5, 3));
    assert_eq!(out.records.iter().map(|r| (r.tuple.dst_port, r.packets[0])).collect::<Vec<_>>().len(), 3);
}

#[test]
fn malformed_frames_are_dropped_by_reason_and_never_answered() {
    let rig = Rig::start();
    let setup = Setup::new("[policy]\ndefault = \"reject\"\n");
    let whole = to_b(22, SYN);
    let mut lying = whole.clone();
    lying[16..18].copy_from_slice(&10u16.to_be_bytes());
    let sent = [vec![0; 10], whole[..30].to_vec(), whole[..40].to_vec(), lying, whole];
    let out = rig.run(&setup, &sent);
    assert_eq!((out.summary.rx, out.summary.tx, out.summary.generated), (5, 0, 1));
    assert_eq!(out.dropped(DropReason::Rejected), 1);
    assert_eq!(
        out.summary.drops.iter().filter(|(name, _)| name.starts_with("malformed")).map(|(_, n)| n).sum::<u64>(),
        4
    );
}

#[test]
fn nothing_of_an_earlier_packet_speaks_for_one_that_is_not_understood() {
    let rig = Rig::start();
    let tap = mirror("tap", "group = \"any\"\nvlan = 100");
    let rule = "[[rule]]\nid = \"tagged\"\nvlan = 100\naction = \"deny\"\n";
    let base = Setup::new(&format!("[policy]\ndefault = \"allow\"\n{rule}{tap}"));
    let setup = Setup { unsupported_from: 32, ..base };
    let sent = vec![frames::vlan(&to_b(80, SYN), 100); 64];
    let out = rig.run(&setup, &sent);
    assert_eq!((out.dropped(DropReason::Denied), out.dropped(DropReason::UnsupportedLink)), (32, 32));
    assert_eq!((out.hits("tagged"), out.mirrored[0].len()), (32, 32));
}

#[test]
fn answers_wait_for_no_buffer_and_count_what_they_lack() {
    let rig = Rig::start();
    let setup = Setup { packets: 511, ..Setup::new("[policy]\ndefault = \"reject\"\n") };
    // All buffers are in the input: the first packet of a burst finds none for its answer.
    let sent: Vec<_> = (0..511u16).map(|n| frames::tcp((A, B), (n + 1, 22), SYN, (0, 0), b"")).collect();
    let out = rig.run(&setup, &sent);
    assert_eq!((out.summary.rx, out.dropped(DropReason::Rejected)), (511, 511));
    let (made, lost) = (out.sum(|c| c.generated.get()), out.sum(|c| c.generated_lost.get()));
    assert!(lost > 0 && made > 0 && made + lost == 511 && out.replies.len() as u64 == made, "{made} + {lost}");
}
