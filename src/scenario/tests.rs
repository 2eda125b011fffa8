//! Checks captures with a parser of their own, written against the RFCs and not against the builder.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::attacks::AttackKind;
use super::oddities::OddityKind;
use super::*;
use crate::capture::CaptureReader;

/// A played scenario; the folder lives as long as this.
struct Played {
    _dir: tempfile::TempDir,
    files: Files,
    summary: Summary,
}

fn play(change: impl FnOnce(&mut Wishes)) -> Played {
    let mut wishes =
        Wishes { minutes: 2.0, rate: 6.0, loss: 0.0, attacks: vec!["none".to_owned()], ..Wishes::default() };
    change(&mut wishes);
    let dir = tempfile::tempdir().unwrap();
    let files = Files::within(dir.path());
    let summary = generate(&Options::new(wishes).unwrap(), &files, |_| {}).unwrap();
    Played { _dir: dir, files, summary }
}

fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

/// An IP packet found in a frame.
struct Packet<'a> {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    upper: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Ones' complement sum over 16 bit words; 0xffff when a checksum inside is right.
fn ones(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

/// Takes a frame apart and checks lengths, checksums and padding; `None` for ARP.
fn dissect(frame: &[u8]) -> Option<Packet<'_>> {
    assert!(frame.len() >= 60, "{}", frame.len());
    let ip = &frame[14..];
    let (packet, pseudo, end) = match u16_at(frame, 12) {
        0x0806 => return None,
        0x0800 => {
            assert_eq!(ip[0], 0x45);
            assert_eq!(ones(&[&ip[..20]]), 0xffff, "IPv4 header checksum");
            let total = usize::from(u16_at(ip, 2));
            let address = |at: usize| IpAddr::V4(Ipv4Addr::from(u32_at(ip, at)));
            let pseudo = [&ip[12..20], &[0, ip[9]], &(total as u16 - 20).to_be_bytes()].concat();
            (Packet { src: address(12), dst: address(16), protocol: ip[9], upper: &ip[20..total] }, pseudo, 14 + total)
        }
        0x86dd => {
            assert_eq!(ip[0] >> 4, 6);
            let length = usize::from(u16_at(ip, 4));
            let address = |at: usize| IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap()));
            let pseudo = [&ip[8..40], &(length as u32).to_be_bytes(), &[0, 0, 0, ip[6]]].concat();
            let packet = Packet { src: address(8), dst: address(24), protocol: ip[6], upper: &ip[40..40 + length] };
            (packet, pseudo, 54 + length)
        }
        other => panic!("ethertype {other:04x}"),
    };
    assert!(frame[end..].iter().all(|&b| b == 0) && (frame.len() == end || frame.len() == 60), "padding");
    let pseudo = if packet.protocol == 1 { &[][..] } else { &pseudo };
    assert_eq!(ones(&[pseudo, packet.upper]), 0xffff, "checksum of protocol {}", packet.protocol);
    if packet.protocol == 17 {
        assert_eq!(usize::from(u16_at(packet.upper, 4)), packet.upper.len());
    }
    Some(packet)
}

/// Both directions alike: the smaller end first.
type Key = (u8, (IpAddr, u16), (IpAddr, u16));

/// `None` for neighbour discovery, which is no flow.
fn key(packet: &Packet<'_>) -> Option<Key> {
    let upper = packet.upper;
    let (a, b) = match packet.protocol {
        6 | 17 => ((packet.src, u16_at(upper, 0)), (packet.dst, u16_at(upper, 2))),
        1 | 58 => match upper[0] {
            8 | 128 => ((packet.src, u16_at(upper, 4)), (packet.dst, 0)),
            0 | 129 => ((packet.src, 0), (packet.dst, u16_at(upper, 4))),
            _ => return None,
        },
        other => panic!("protocol {other}"),
    };
    Some(if a < b { (packet.protocol, a, b) } else { (packet.protocol, b, a) })
}

/// One direction of a TCP connection.
#[derive(Default)]
struct Stream {
    first_seq: Option<u32>,
    /// Byte at each offset after the SYN, or `GAP`.
    bytes: Vec<u16>,
    fin: bool,
    repeated: u64,
}

const GAP: u16 = 0x100;

impl Stream {
    /// Sequence numbers used so far, SYN and FIN included.
    fn used(&self) -> usize {
        self.bytes.len() + 1 + usize::from(self.fin)
    }

    fn add(&mut self, upper: &[u8]) {
        let (seq, flags) = (u32_at(upper, 4), upper[13]);
        let payload = &upper[usize::from(upper[12] >> 4) * 4..];
        if flags & 2 != 0 {
            assert!(self.first_seq.is_none_or(|f| f == seq), "a second SYN differs");
            assert!(payload.is_empty());
            self.first_seq = Some(seq);
            return;
        }
        let Some(first) = self.first_seq else {
            assert!(flags & 4 != 0, "something other than RST before SYN");
            return;
        };
        let at = (seq.wrapping_sub(first) as usize).checked_sub(1).expect("below the first sequence number");
        if payload.is_empty() {
            assert!(at < self.used(), "beyond what was sent");
        } else if self.bytes.len() < at + payload.len() {
            assert!(!self.fin, "data after FIN");
            self.bytes.resize(at + payload.len(), GAP);
        }
        for (slot, &byte) in self.bytes.iter_mut().skip(at).zip(payload) {
            if *slot == GAP {
                *slot = byte.into();
            } else {
                assert_eq!(*slot, u16::from(byte), "sent again with other bytes");
                self.repeated += 1;
            }
        }
        if flags & 1 != 0 {
            assert_eq!(at + payload.len(), self.bytes.len(), "FIN before the end");
            self.fin = true;
        }
    }
}

/// Both directions of a connection, that of the first packet first.
struct Connection {
    from: (IpAddr, u16),
    streams: [Stream; 2],
}

/// Everything found in a capture.
#[derive(Default)]
struct Found {
    frames: u64,
    bytes: u64,
    v6: u64,
    neighbours: u64,
    flows: HashMap<Key, (u64, u64)>,
    connections: HashMap<Key, Connection>,
}

impl Found {
    fn tcp(&mut self, key: Key, packet: &Packet<'_>) {
        let from = (packet.src, u16_at(packet.upper, 0));
        let fresh = || Connection { from, streams: Default::default() };
        let connection = self.connections.entry(key).or_insert_with(fresh);
        let me = usize::from(connection.from != from);
        if packet.upper[13] & 0x10 != 0 {
            let other = &connection.streams[1 - me];
            let first = other.first_seq.expect("acknowledges a side that sent nothing");
            let acked = u32_at(packet.upper, 8).wrapping_sub(first) as usize;
            assert!(acked <= other.used(), "acknowledges what was not sent: {acked} of {}", other.used());
            // The last byte acknowledged has been seen; gaps before it are looked for when all is closed.
            let upto = acked.saturating_sub(1).min(other.bytes.len());
            assert!(other.bytes[..upto].last().is_none_or(|&b| b != GAP), "acknowledges a gap");
        }
        connection.streams[me].add(packet.upper);
    }

    fn repeated(&self) -> u64 {
        self.connections.values().flat_map(|c| &c.streams).map(|s| s.repeated).sum()
    }
}

/// Reads a capture, checking every frame, the order of time, and TCP.
fn examine(files: &Files) -> Found {
    let mut reader = CaptureReader::open(&files.capture).unwrap();
    let mut found = Found::default();
    let mut last = 0;
    while let Some(frame) = reader.next_frame().unwrap() {
        assert!(frame.ts_ns >= last, "time order");
        last = frame.ts_ns;
        found.frames += 1;
        found.bytes += frame.data.len() as u64;
        found.v6 += u64::from(frame.data[12] == 0x86);
        let packet = dissect(frame.data);
        let Some((packet, key)) = packet.and_then(|p| key(&p).map(|k| (p, k))) else {
            found.neighbours += 1;
            continue;
        };
        let flow = found.flows.entry(key).or_default();
        flow.0 += 1;
        flow.1 += frame.data.len() as u64;
        if packet.protocol == 6 {
            found.tcp(key, &packet);
        }
    }
    assert!(!reader.truncated());
    found
}

/// The flow file, by key: packets and bytes; and the number of its rows.
fn truth_flows(files: &Files) -> (HashMap<Key, (u64, u64)>, u64) {
    let mut flows: HashMap<Key, (u64, u64)> = HashMap::new();
    let mut rows = 0;
    for row in csv::Reader::from_path(&files.flows).unwrap().records() {
        let row = row.unwrap();
        let number = |at: usize| row[at].parse::<u64>().unwrap();
        let end = |at: usize| (row[at].parse::<IpAddr>().unwrap(), row[at + 1].parse::<u16>().unwrap());
        let protocol = match &row[7] {
            "tcp" => 6,
            "udp" => 17,
            "icmp" => 1,
            "icmpv6" => 58,
            other => panic!("{other}"),
        };
        let (a, b) = (end(3), end(5));
        let flow = flows.entry(if a < b { (protocol, a, b) } else { (protocol, b, a) }).or_default();
        flow.0 += number(8) + number(9);
        flow.1 += number(10) + number(11);
        assert!(row[1].parse::<f64>().unwrap() <= row[2].parse::<f64>().unwrap());
        rows += 1;
    }
    (flows, rows)
}

fn truth(files: &Files) -> Value {
    serde_json::from_slice(&std::fs::read(&files.truth).unwrap()).unwrap()
}

#[test]
fn same_options_same_bytes() {
    let bytes = |seed: u64| {
        let played = play(|w| {
            w.minutes = 0.7;
            w.seed = seed;
            w.loss = 0.01;
            w.attacks = words("port_scan,dns_tunnel,beacon");
        });
        let Files { capture, truth, flows, configuration } = &played.files;
        [capture, truth, flows, configuration].map(|f| std::fs::read(f).unwrap())
    };
    let first = bytes(5);
    assert!(first == bytes(5));
    assert!(first[0] != bytes(6)[0]);
}

#[test]
fn truth_is_what_is_in_the_capture() {
    let played = play(|w| {
        w.loss = 0.01;
        w.attacks = words("port_scan@0.1,icmp_flood@0.2,exfiltration@0.3,brute_force@0.1");
    });
    let found = examine(&played.files);
    let totals = played.summary.totals;
    assert_eq!((found.frames, found.bytes), (totals.packets, totals.bytes));
    let (flows, rows) = truth_flows(&played.files);
    assert_eq!(rows, totals.flows);
    assert!(flows == found.flows);
    let truth = truth(&played.files);
    assert_eq!(truth["totals"]["packets"], totals.packets);
    assert_eq!(truth["totals"]["flows"], totals.flows);
    assert_eq!(truth["labels"]["neighbours"]["packets"], found.neighbours);
    let sum: u64 = played.summary.by_label.values().map(|t| t.packets).sum();
    assert_eq!(sum, totals.packets);
    for name in ["https", "http", "app", "database", "dns", "ntp", "monitoring", "neighbours"] {
        assert!(played.summary.by_label[name].packets > 0, "{name}");
    }
}

#[test]
fn every_attack_is_there_with_its_parties() {
    let all: Vec<String> = AttackKind::ALL.iter().map(|k| format!("{}@0.2", k.name())).collect();
    let played = play(|w| {
        w.minutes = 4.0;
        w.attacks = all;
    });
    let found = examine(&played.files);
    assert_eq!(found.frames, played.summary.totals.packets);
    let truth = truth(&played.files);
    let attack = |kind: &str| {
        let attacks = truth["attacks"].as_array().unwrap();
        attacks.iter().find(|a| a["kind"] == kind).unwrap().clone()
    };
    for (kind, flows, least_packets) in [
        ("port_scan", 1000, 1700),
        ("host_sweep", 200, 200),
        ("syn_flood", 10_000, 10_800),
        ("udp_flood", 16, 12_000),
        ("icmp_flood", 1, 6_600),
        ("brute_force", 120, 2_000),
        ("dns_tunnel", 1, 600),
        ("exfiltration", 1, 20_000),
        ("new_relationship", 3, 40),
        ("amplification", 24, 6_000),
        ("icmp_tunnel", 1, 800),
        ("arp_spoof", 0, 60),
        ("slow_http", 120, 1_500),
    ] {
        let found = attack(kind);
        assert_eq!(found["flows"], flows, "{kind}");
        assert!(found["packets"].as_u64().unwrap() >= least_packets, "{kind}");
        assert!(found["start"].as_str().unwrap() < found["end"].as_str().unwrap());
        assert!(!found["victims"].as_array().unwrap().is_empty());
        let nobody = ["syn_flood", "amplification"].contains(&kind);
        assert_eq!(found["actors"].as_array().unwrap().is_empty(), nobody);
    }
    assert!((10..=13).contains(&attack("beacon")["flows"].as_u64().unwrap()));
    assert_eq!(attack("syn_flood")["forged_sources"], "198.18.0.0/15");
    assert_eq!(attack("amplification")["sources"], "192.0.2.0/24");
    assert_eq!(played.summary.attacks.len(), AttackKind::ALL.len());
    // Slow ones have begun, and are named apart.
    for (name, kind) in AttackKind::ALL.map(|kind| (kind.name(), kind.alert())) {
        let attacks = truth["attacks"].as_array().unwrap();
        let found = attacks.iter().find(|a| a["name"] == name).unwrap();
        assert!(found["kind"] == kind && found["packets"].as_u64().unwrap() > 0, "{name}");
    }
}

#[test]
fn oddities_are_there_and_are_no_attacks() {
    let played = play(|w| {
        (w.minutes, w.rate) = (6.0, 2.0);
        w.oddities = OddityKind::ALL.iter().map(|kind| format!("{}@0.5", kind.name())).collect();
    });
    let found = examine(&played.files);
    assert_eq!(found.frames, played.summary.totals.packets);
    let truth = truth(&played.files);
    assert!(truth["attacks"].as_array().unwrap().is_empty() && played.summary.attacks.is_empty());
    assert_eq!(truth["oddities"].as_array().unwrap().len(), OddityKind::ALL.len());
    for name in ["deployment", "failing_server", "firmware", "bulk_copy", "strays"] {
        assert!(played.summary.by_label[name].packets > 0, "{name}");
    }
    // The machine that joins is in the configuration, and silent before.
    let newcomer: IpAddr = "10.2.0.5".parse().unwrap();
    assert!(std::fs::read_to_string(&played.files.configuration).unwrap().contains("\"10.2.0.5\""));
    assert!(found.connections.keys().any(|(_, a, b)| a.0 == newcomer || b.0 == newcomer));
    let without = play(|w| w.rate = 2.0);
    assert!(!examine(&without.files).flows.keys().any(|(_, a, b)| a.0 == newcomer || b.0 == newcomer));
}

#[test]
fn without_loss_nothing_is_sent_twice_and_with_loss_it_is() {
    assert_eq!(examine(&play(|_| {}).files).repeated(), 0);
    let lossy = examine(&play(|w| w.loss = 0.05).files);
    assert!(lossy.repeated() > 1460 * 20, "{}", lossy.repeated());
    for connection in lossy.connections.values().filter(|c| c.streams.iter().all(|s| s.fin)) {
        let whole = connection.streams.iter().all(|s| s.bytes.iter().all(|&b| b != GAP));
        assert!(whole, "a closed connection has a gap");
    }
}

#[test]
fn share_of_ipv6() {
    assert_eq!(examine(&play(|w| w.ipv6_share = 0.0).files).v6, 0);
    let all = examine(&play(|w| w.ipv6_share = 1.0).files);
    assert_eq!(all.v6, all.frames);
}

#[test]
fn backups_run_at_night() {
    let bytes = |start: &str| {
        let played = play(|w| {
            w.minutes = 5.0;
            w.rate = 0.0;
            w.start = start.to_owned();
            w.groups = words("app=1,db=1,backup");
        });
        examine(&played.files);
        played.summary.by_label.get("backup").map_or(0, |t| t.bytes)
    };
    assert_eq!(bytes("09:00"), 0);
    let (day, night) = (bytes("09:10"), bytes("02:10"));
    assert!(day > 1_000_000 && night > 10 * day, "{day} {night}");
}

#[test]
fn any_single_group_can_be_attacked() {
    for (name, _) in group_names().filter(|(name, _)| *name != "clients") {
        let played = play(|w| {
            w.minutes = 0.2;
            w.rate = 1.0;
            w.groups = vec![format!("{name}=1")];
            w.attacks = AttackKind::ALL.iter().map(|k| format!("{}@0", k.name())).collect();
        });
        let found = examine(&played.files);
        assert_eq!(found.frames, played.summary.totals.packets);
        assert!(played.summary.attacks.iter().all(|(_, totals)| totals.packets > 0), "{name}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let files = Files::within(Path::new("/nowhere/at/all"));
    let error = generate(&Options::new(Wishes::default()).unwrap(), &files, |_| {}).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"));
}
