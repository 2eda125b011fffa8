//! What mirror sessions take: shares, beginnings of flows, rules, ports; and that every packet they take is accounted for.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use common::frames::{self, ACK, PSH, SYN};
use common::rig::{Io, Rig, Setup};
use gnomon::mirror::wrap::unwrap;
use proptest::prelude::*;

const POLICY: &str = "[policy]\ndefault = \"allow\"\n";

fn mirror(name: &str, rest: &str) -> String {
    format!("[[mirror]]\nname = \"{name}\"\ngroup = \"any\"\n{rest}\n")
}

/// Feeds all frames and waits until it is known what became of each.
fn drive<'a>(io: &mut Io, all: impl IntoIterator<Item = &'a Vec<u8>>) {
    let mut due = io.settled();
    io.feed(0, all.into_iter().inspect(|_| due += 1));
    while io.settled() < due {
        io.collect();
        std::thread::yield_now();
    }
}

fn is_within_three_sd(taken: u64, of: u64, share: f64) -> bool {
    let sd = (of as f64 * share * (1.0 - share)).sqrt();
    (taken as f64 - of as f64 * share).abs() <= 3.0 * sd
}

#[test]
fn shares_over_a_million_packets_and_a_hundred_thousand_flows() {
    const FLOWS: u64 = 100_000;
    let sessions = [("tenth", 10), ("hundredth", 100), ("rare", 997)];
    let shares = [("most", 0.7), ("some", 0.1), ("few", 0.01)];
    let counted = sessions.map(|(name, n)| mirror(name, &format!("sample = \"1/{n}\"")));
    let shared = shares.map(|(name, share)| mirror(name, &format!("flows = \"{}%\"", share * 100.0)));
    let config = format!("{POLICY}{}{}", counted.concat(), shared.concat());
    // What is selected is counted whether or not there is room for the copy.
    let setup = Setup { mirror_ring: 64, ..Setup::new(&config) };
    let rig = Rig::start();
    let out = rig.live(&setup, |io| {
        io.keep = false;
        for block in 0..FLOWS / 100 {
            let flows = block * 100..(block + 1) * 100;
            let both = |n: u64| {
                let (a, b) = (format!("10.{}.{}.9", n / 250 % 250, n % 250), "10.255.0.1");
                let ports = (1024 + (n % 60_000) as u16, 53);
                [frames::udp((&a, b), ports, b"?"), frames::udp((b, &a), (ports.1, ports.0), b"!")]
            };
            let all: Vec<_> = flows.map(both).collect();
            // Five packets each way, flows interleaved.
            drive(io, (0..5).flat_map(|_| all.iter().flatten()));
        }
    });
    assert_eq!(out.summary.rx, 10 * FLOWS);
    let selected = |name: &str| out.summary.mirrored[name].selected;
    for (name, n) in sessions {
        let exact = 10 * FLOWS / n;
        assert!((exact..=exact + 1).contains(&selected(name)), "{name}: {} of a million", selected(name));
    }
    for (name, share) in shares {
        println!("{name}: {} of {FLOWS} flows for {share}", selected(name) / 10);
        assert_eq!(selected(name) % 10, 0, "{name}: whole flows");
        assert!(is_within_three_sd(selected(name) / 10, FLOWS, share), "{name}: {} flows", selected(name) / 10);
    }
}

/// A conversation: which kind, between whom, on which VLAN. Its packets, both ways.
#[derive(Clone, Debug)]
struct Talk {
    kind: u8,
    hosts: (u8, u8),
    ports: (u16, u16),
    vlan: Option<u16>,
}

impl Talk {
    fn packet(&self, back: bool, number: u8) -> Vec<u8> {
        let (near, far) = (format!("10.0.0.{}", self.hosts.0), format!("10.0.1.{}", self.hosts.1));
        let (near6, far6) = (format!("fd00::{:x}", self.hosts.0), format!("fd00:1::{:x}", self.hosts.1));
        let turn = |a: String, b: String| if back { (b, a) } else { (a, b) };
        let ports = if back { (self.ports.1, self.ports.0) } else { self.ports };
        let (four, six) = (turn(near, far), turn(near6, far6));
        let body = [number; 16];
        let frame = match self.kind {
            0 => frames::tcp((&four.0, &four.1), ports, if number == 0 { SYN } else { ACK | PSH }, (1, 1), &body),
            1 => frames::udp((&four.0, &four.1), ports, &body),
            2 => frames::udp((&six.0, &six.1), ports, &body),
            _ => station_frame(self.hosts, back, number),
        };
        match self.vlan {
            Some(vlan) => frames::vlan(&frame, vlan),
            None => frame,
        }
    }

    /// What all of its packets have in common, and no other conversation.
    fn name(&self) -> (u8, (u8, u8), (u16, u16), Option<u16>) {
        let ports = if self.kind == 3 { (0, 0) } else { self.ports };
        (self.kind, self.hosts, ports, self.vlan)
    }
}

/// A frame without IP between two stations.
fn station_frame(hosts: (u8, u8), back: bool, number: u8) -> Vec<u8> {
    let (near, far) = ([2, 0, 0, 0, 0, hosts.0], [2, 0, 0, 0, 1, hosts.1]);
    let (from, to) = if back { (far, near) } else { (near, far) };
    [&to[..], &from, &[0x88, 0xb5], &[number; 46]].concat()
}

fn talks() -> impl Strategy<Value = Vec<Talk>> {
    let vlan = prop_oneof![Just(None), (1u16..4).prop_map(Some)];
    let talk = (0u8..4, (1u8..20, 1u8..20), (1u16..60_000, 1u16..60_000), vlan)
        .prop_map(|(kind, hosts, ports, vlan)| Talk { kind, hosts, ports, vlan });
    prop::collection::vec(talk, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Also where the table is too small for all flows, and without IP.
    #[test]
    fn of_a_conversation_all_packets_are_taken_or_none(
        talks in talks(),
        turns in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..800),
        share in 1u32..100,
        seed: u32,
        capacity in prop_oneof![Just(16usize), Just(4096)],
    ) {
        let config = format!("seed = {seed}\n{POLICY}{}", mirror("share", &format!("flows = \"{share}%\"")));
        let mut setup = Setup::new(&config);
        setup.config.flow.capacity = capacity;
        let mut spoken: BTreeMap<_, (BTreeSet<Vec<u8>>, usize)> = BTreeMap::new();
        let frames: Vec<Vec<u8>> = turns.iter().enumerate().map(|(n, (which, back))| {
            let talk = which.get(&talks);
            let frame = talk.packet(*back, n as u8);
            let (frames, count) = spoken.entry(talk.name()).or_default();
            frames.insert(frame.clone());
            *count += 1;
            frame
        }).collect();
        let out = Rig::start().run(&setup, &frames);
        let mut copies: BTreeMap<&[u8], usize> = BTreeMap::new();
        out.mirrored[0].iter().for_each(|frame| *copies.entry(frame).or_default() += 1);
        for (name, (frames, count)) in &spoken {
            let taken: usize = frames.iter().map(|frame| copies.get(&frame[..]).copied().unwrap_or(0)).sum();
            prop_assert!(taken == 0 || taken == *count, "{taken} of {count} packets of {name:?} at {share} %");
        }
    }

    /// Allocation failures, full queues, links that go and come back, caps and frames too large for the MTU: every packet
    /// that a session selected was sent or lost for one cause, the receiver sees the same, and forwarding does not notice.
    #[test]
    fn every_selected_packet_is_sent_or_lost_for_one_cause(
        (mirror_ring, clones, fronts) in (4u32..9, 6u32..12, 6u32..12),
        (sample, cap) in (1u32..4, prop_oneof![Just(0u32), 1_000u32..1_000_000]),
        steps in prop::collection::vec((0u8..6, 1usize..400), 4..40),
        workers in 1usize..3,
    ) {
        let cap = if cap == 0 { String::new() } else { format!("max_packets = {cap}\n") };
        let target = "tunnel = \"geneve\"\nto = \"192.0.2.2\"\nfrom = \"192.0.2.1\"\nto_mac = \"02:00:00:00:00:09\"\n";
        let config = format!(
            "{POLICY}[[target]]\nname = \"far\"\n{target}mtu = 600\noversize = \"drop\"\n{cap}{}{}",
            mirror("wrapped", &format!("to = \"far\"\nsample = \"1/{sample}\"")),
            mirror("plain", ""),
        );
        let setup = Setup {
            workers,
            mirror_ring: 1 << mirror_ring,
            clones: (1 << clones) - 1,
            fronts: (1 << fronts) - 1,
            ..Setup::new(&config)
        };
        let small = frames::udp(("10.0.0.1", "10.0.0.2"), (1, 2), b"small");
        let large = frames::udp(("10.0.0.1", "10.0.0.2"), (1, 3), &[7; 900]);
        let mut fed = 0;
        let out = Rig::start().live(&setup, |io| {
            for (step, count) in &steps {
                match step {
                    0 => io.mirror_link.store(false, Ordering::Relaxed),
                    1 => io.mirror_link.store(true, Ordering::Relaxed),
                    2 => io.collect(),
                    _ => {}
                }
                for n in 0..*count {
                    let frame = if (n + usize::from(*step)).is_multiple_of(5) { &large } else { &small };
                    io.feed(n % workers, [frame]);
                    fed += 1;
                    // Forwarding is not what is tested: its ring has room for some thousand packets.
                    if fed % 4000 == 0 {
                        io.wait(|io| io.settled() == fed, "all settled");
                        io.collect();
                    }
                }
            }
            io.wait(|io| io.settled() == fed, "all settled");
        });
        prop_assert_eq!((out.summary.rx, out.summary.tx), (fed, fed), "no forwarded packet is lost");
        for (session, name) in ["wrapped", "plain"].into_iter().enumerate() {
            let ledger = out.summary.mirrored[name];
            let causes = [ledger.lost_pool, ledger.lost_queue, ledger.lost_link, ledger.lost_oversize, ledger.lost_cap];
            prop_assert_eq!(ledger.selected, ledger.packets + causes.iter().sum::<u64>(), "{}: {:?}", name, ledger);
            prop_assert_eq!(out.mirrored[session].len() as u64, ledger.packets, "what was sent came");
        }
        prop_assert_eq!(out.summary.mirrored["plain"].selected, fed);
        let mut next = vec![0; workers];
        for copy in &out.mirrored[0] {
            let copy = unwrap(copy).expect("GENEVE");
            let (worker, number) = (usize::from(copy.stream.worker), copy.sequence.expect("numbered"));
            prop_assert!(number >= next[worker], "numbers ascend");
            next[worker] = number + 1;
        }
        for (worker, next) in next.into_iter().enumerate() {
            let selected = out.counters[worker].mirrors[0].selected.get();
            prop_assert!(u64::from(next) <= selected, "worker {worker}: number {next} of {selected}");
        }
    }
}

#[test]
fn beginnings_of_flows() {
    let sessions = mirror("three", "first_packets = 3") + &mirror("bytes", "first_bytes = 150");
    let setup = Setup::new(&format!("{POLICY}{sessions}"));
    let (there, back) = (("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1"));
    let of = |n: u16| {
        [
            frames::udp(there, (n, 53), &[1; 18]),
            frames::udp(back, (53, n), &[2; 18]),
            frames::udp(there, (n, 53), &[3; 18]),
            frames::udp(there, (n, 53), &[4; 18]),
            frames::udp(back, (53, n), &[5; 18]),
        ]
    };
    let (one, two) = (of(1000), of(2000));
    let no_ip = station_frame((1, 2), false, 1);
    let sent: Vec<_> = one.iter().zip(&two).flat_map(|(a, b)| [a.clone(), b.clone()]).chain([no_ip]).collect();
    let out = Rig::start().run(&setup, &sent);
    let expected: Vec<_> = sent[..6].to_vec();
    assert_eq!(one[0].len(), 60);
    assert_eq!(out.mirrored[0], expected, "three packets of each flow, both ways together");
    assert_eq!(out.mirrored[1], expected, "the third packet brings each to 180 bytes");
    assert!(out.records.iter().all(|record| record.mirrors == 0b11));
}

#[test]
fn the_beginning_ends_with_the_first_slice() {
    let config =
        format!("[flow.timeouts]\nactive = \"10s\"\nudp = \"60s\"\n{POLICY}{}", mirror("ten", "first_packets = 10"));
    let frame = frames::udp(("10.0.0.1", "10.0.0.2"), (1, 53), b"?");
    // A packet every three seconds: four in the first slice.
    let timed: Vec<_> = (0..12u64).map(|n| (1_000_000_000 * (100 + 3 * n), frame.clone())).collect();
    let out = Rig::start().replay(&Setup::new(&config), &timed);
    assert_eq!((out.mirrored[0].len(), out.forwarded.len()), (4, 12));
    let taken: Vec<_> = out.records.iter().map(|record| record.mirrors).collect();
    assert_eq!(taken[0], 1);
    assert!(taken.len() > 1 && taken[1..].iter().all(|mirrors| *mirrors == 0), "{taken:?}");
}

#[test]
fn only_packets_of_certain_rules() {
    let rules = "[[rule]]\nid = \"web\"\nprotocol = \"tcp\"\nports = 80\naction = \"allow\"\n\
                 [[rule]]\nid = \"mail\"\nprotocol = \"tcp\"\nports = 25\naction = \"deny\"\n";
    let sessions = mirror("one", "rules = [\"web\"]") + &mirror("both", "rules = [\"mail\", \"web\"]");
    let setup = Setup::new(&format!("{POLICY}{rules}{sessions}"));
    let ends = ("10.0.0.1", "10.0.0.2");
    let to = |port| frames::tcp(ends, (4000, port), SYN, (1, 0), b"");
    let reply = frames::tcp((ends.1, ends.0), (80, 4000), SYN | ACK, (9, 2), b"");
    let sent = [to(80), to(25), to(443), reply.clone()];
    let out = Rig::start().run(&setup, &sent);
    assert_eq!(out.mirrored[0], [to(80), reply.clone()], "a reply is judged by the rule of its request");
    assert_eq!(out.mirrored[1], [to(80), to(25), reply]);
}

#[test]
fn only_packets_of_certain_ports() {
    // The rig's outputs are numbered like ports: what comes in would be answered by number 1.
    let ports: String = ["out", "in", "span"]
        .iter()
        .enumerate()
        .map(|(n, name)| format!("[[port]]\nname = \"{name}\"\ndevice = \"net_null{n}\"\n"))
        .collect();
    let sessions = [("here", "\"in\""), ("there", "\"out\""), ("pair", "[\"in\", \"out\"]")]
        .map(|(name, on)| mirror(name, &format!("to = \"span\"\non = {on}")));
    let config = format!("{POLICY}{ports}[[pair]]\nports = [\"out\", \"in\"]\n{}", sessions.concat());
    let sent = vec![frames::udp(("10.0.0.1", "10.0.0.2"), (1, 2), b"?"); 40];
    let out = Rig::start().live(&Setup::new(&config), |io| drive(io, &sent));
    assert_eq!(out.mirrored.iter().map(Vec::len).collect::<Vec<_>>(), [40, 0, 40]);
}
