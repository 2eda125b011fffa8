//! Wrapped mirror copies: `tshark` understands every envelope, and the frames in them are those that came in.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{captures, frames};
use gnomon::mirror::wrap::unwrap;
use gnomon::packet::{Headers, checksum};
use serde_json::Value;

/// Name of the tunnel, and protocols that tshark sees before the copied frame.
const TUNNELS: [(&str, &str); 5] = [
    ("vxlan", "udp:vxlan:eth"),
    ("geneve", "udp:geneve:eth"),
    ("gre", "gre:eth"),
    ("erspan2", "gre:erspan:eth"),
    ("erspan3", "gre:erspan:eth"),
];
const FAMILIES: [(&str, &str, &str); 2] = [("4", "192.0.2.10", "192.0.2.1"), ("6", "2001:db8::10", "2001:db8::1")];

/// All tunnels over both versions of IP; each mirror sends everything to its own.
fn configuration(more: &str) -> String {
    let mut text =
        "[policy]\ndefault = \"deny\"\n[[rule]]\nid = \"web\"\nprotocol = \"tcp\"\naction = \"allow\"\n".to_owned();
    for ((tunnel, _), (family, to, from)) in pairs() {
        let vlan = if tunnel == "gre" { "vlan = 77\n" } else { "" };
        let _ = write!(
            text,
            "[[target]]\nname = \"to-{tunnel}{family}\"\ntunnel = \"{tunnel}\"\nto = \"{to}\"\nfrom = \"{from}\"\n\
             to_mac = \"02:00:00:00:00:09\"\n{vlan}{more}\n\
             [[mirror]]\nname = \"{tunnel}{family}\"\nto = \"to-{tunnel}{family}\"\ngroup = \"any\"\n"
        );
    }
    text
}

type Tunnel = (&'static str, &'static str);
type Family = (&'static str, &'static str, &'static str);

fn pairs() -> impl Iterator<Item = (Tunnel, Family)> {
    TUNNELS.into_iter().flat_map(|tunnel| FAMILIES.into_iter().map(move |family| (tunnel, family)))
}

/// Conversations, fragments, tunnels in tunnels, VLANs, what is no IP, and a frame that is too short.
fn input() -> Vec<Vec<u8>> {
    let mut all = captures::conversation();
    all.extend(captures::rarities());
    all.push(frames::udp(("10.0.1.1", "10.0.2.2"), (9, 9), &[0x5a; 1400]));
    all.push(frames::udp(("10.0.1.1", "10.0.2.2"), (9, 9), &[0x5a; 4000]));
    let whole = frames::tcp(("10.0.1.10", "10.0.2.20"), (1, 80), frames::SYN, (1, 0), b"");
    all.push(whole[..30].to_vec());
    all
}

struct Replayed {
    folder: tempfile::TempDir,
    input: Vec<Vec<u8>>,
}

fn replay(config: &str) -> Replayed {
    replay_of(config, input())
}

fn replay_of(config: &str, input: Vec<Vec<u8>>) -> Replayed {
    let folder = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("in.pcap"), captures::pcap(1, true, false, &input)).expect("written");
    std::fs::write(at("gnomon.toml"), config).expect("written");
    let arguments = ["replay", "-q", "-c"].map(PathBuf::from).into_iter();
    let arguments = arguments.chain([at("gnomon.toml"), "-o".into(), at("out"), at("in.pcap")]);
    common::succeeds(&common::gnomon(arguments.map(PathBuf::into_os_string)));
    Replayed { folder, input }
}

impl Replayed {
    fn mirror(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("out/mirror-{name}.pcap"))
    }

    /// What `gnomon receive` says of a mirror's copies, and the frames it took out.
    fn receive(&self, name: &str) -> (Value, Vec<Vec<u8>>) {
        let (from, to) = (self.mirror(name), self.folder.path().join(format!("{name}.pcapng")));
        let arguments =
            ["receive".into(), "-o".into(), "json".into(), "--strict".into(), "-w".into(), to.clone(), from];
        let text = common::succeeds(&common::gnomon(arguments.map(PathBuf::into_os_string)));
        (serde_json::from_str(&text).expect("JSON"), read(&to))
    }

    fn summary(&self) -> Value {
        let path = self.folder.path().join("out/summary.json");
        serde_json::from_str(&std::fs::read_to_string(path).expect("summary")).expect("JSON")
    }
}

/// The frames of a capture.
fn read(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = gnomon::capture::CaptureReader::open(path).expect("opens");
    let mut all = Vec::new();
    while let Some(frame) = reader.next_frame().expect("reads") {
        all.push(frame.data.to_vec());
    }
    all
}

#[test]
fn receive_gets_every_frame_as_it_was() {
    let replayed = replay(&configuration("mtu = 9000"));
    for ((tunnel, _), (family, _, from)) in pairs() {
        let name = format!("{tunnel}{family}");
        let (accounts, frames) = replayed.receive(&name);
        assert_eq!(frames, replayed.input, "{name}");
        assert_eq!((&accounts["lost"], &accounts["others"], &accounts["broken"]), (&0.into(), &0.into(), &0.into()));
        let streams = accounts["streams"].as_array().expect("streams");
        assert_eq!(streams.len(), 1, "{name}: {accounts}");
        assert_eq!((&streams[0]["from"], &streams[0]["tunnel"]), (&from.into(), &tunnel.into()));
        let unnumbered = if tunnel == "vxlan" { frames.len() } else { 0 };
        assert_eq!(streams[0]["unnumbered"], unnumbered, "{name}");
    }
}

#[test]
fn tshark_decodes_every_envelope() {
    if Command::new("tshark").arg("-v").output().is_err() {
        println!("skipped tshark_decodes_every_envelope: tshark is not installed");
        return;
    }
    let replayed = replay(&configuration("mtu = 9000"));
    for ((tunnel, protocols), (family, to, from)) in pairs() {
        let (name, ip) = (format!("{tunnel}{family}"), if family == "4" { "ip" } else { "ipv6" });
        let frames = read(&replayed.mirror(&name));
        let sequence = if tunnel == "geneve" { "geneve.option.unknown.data" } else { "gre.sequence_number" };
        let fields = ["frame.protocols", &format!("{ip}.src"), &format!("{ip}.dst"), sequence, "ip.checksum.status"];
        let rows = tshark(&replayed.mirror(&name), &fields);
        assert_eq!(rows.len(), replayed.input.len(), "{name}");
        for (number, row) in rows.iter().enumerate() {
            let before = if tunnel == "gre" { "eth:ethertype:vlan:ethertype" } else { "eth:ethertype" };
            assert!(row[0].starts_with(&format!("{before}:{ip}:{protocols}")), "{name}: {row:?}");
            assert_eq!((first(&row[1]), first(&row[2])), (from, to), "{name}");
            // 1 is good; the outer header comes first.
            assert!(family == "6" || first(&row[4]) == "1", "{name}: checksum of {row:?}");
            match tunnel {
                "vxlan" => {}
                "geneve" => assert_eq!(&row[3][8..16], format!("{number:08x}"), "{name}"),
                _ => assert_eq!(first(&row[3]), number.to_string(), "{name}"),
            }
        }
        let places = inner_places(&replayed.mirror(&name));
        for (number, ((frame, place), sent)) in frames.iter().zip(places).zip(&replayed.input).enumerate() {
            assert_eq!(&frame[place..], sent, "{name}: frame {number}");
        }
    }
}

/// Sequence numbers are of GRE, where tshark sees the copy's own tunnels as well.
fn first(values: &str) -> &str {
    values.split(',').next().unwrap_or_default()
}

fn tshark(capture: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-o", "ip.check_checksum:TRUE", "-T", "fields", "-r"]).arg(capture);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let text = common::succeeds(&command.output().expect("tshark runs"));
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Where tshark finds the second Ethernet header of each frame.
fn inner_places(capture: &Path) -> Vec<usize> {
    let output = Command::new("tshark").args(["-n", "-T", "pdml", "-r"]).arg(capture).output().expect("tshark runs");
    let text = common::succeeds(&output);
    let place = |packet: &str| {
        let header = packet.split("<proto name=\"eth\"").nth(2).expect("an inner Ethernet header");
        let digits = header.split("pos=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a position");
        digits.parse().expect("a number")
    };
    text.split("<packet>").skip(1).map(place).collect()
}

#[test]
fn slices_and_oversize_frames_are_cut_and_said_to_be() {
    let sliced = replay(&configuration("slice = 64"));
    for ((tunnel, _), (family, ..)) in pairs() {
        let name = format!("{tunnel}{family}");
        let (_, frames) = sliced.receive(&name);
        let expected: Vec<_> = sliced.input.iter().map(|frame| &frame[..frame.len().min(64)]).collect();
        assert_eq!(frames, expected, "{name}");
    }
    // The default MTU is 1500: 20 + 8 + 8 bytes of it are VXLAN's over IPv4.
    let cut = replay(&configuration("oversize = \"truncate\""));
    let (_, frames) = cut.receive("vxlan4");
    let expected: Vec<_> = cut.input.iter().map(|frame| &frame[..frame.len().min(1464)]).collect();
    assert_eq!(frames, expected);
    for packet in read(&cut.mirror("erspan34")) {
        assert!(packet.len() <= 1514, "an IP packet of at most 1500 bytes");
    }
    let dropped = replay(&configuration("oversize = \"drop\""));
    let summary = dropped.summary();
    let large = dropped.input.iter().filter(|frame| frame.len() > 1464).count();
    assert_eq!(summary["mirrored"]["vxlan4"]["lost_oversize"], large);
    assert_eq!(summary["mirrored"]["vxlan4"]["packets"], dropped.input.len() - large);
}

#[test]
fn caps_drop_copies_and_leave_gaps_that_the_receiver_sees() {
    let config = configuration("mtu = 9000\nmax_packets = 100");
    let folder = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    // A frame every millisecond, ten times the cap.
    let frame = frames::tcp(("10.0.1.10", "10.0.2.20"), (1, 80), frames::SYN, (1, 0), b"");
    std::fs::write(at("in.pcap"), captures::pcap(1, true, false, &vec![frame; 900])).expect("written");
    std::fs::write(at("gnomon.toml"), config).expect("written");
    let arguments = ["replay", "-q", "-c"].map(PathBuf::from).into_iter();
    let arguments = arguments.chain([at("gnomon.toml"), "-o".into(), at("out"), at("in.pcap")]);
    common::succeeds(&common::gnomon(arguments.map(PathBuf::into_os_string)));
    let summary: Value =
        serde_json::from_str(&std::fs::read_to_string(at("out/summary.json")).expect("summary")).expect("JSON");
    assert_eq!(summary["tx"], 900, "forwarding is not capped");
    let session = &summary["mirrored"]["erspan24"];
    let (sent, lost) = (session["packets"].as_u64().expect("sent"), session["lost_cap"].as_u64().expect("lost"));
    // A tenth of a second is saved up.
    assert!((95..=101).contains(&sent) && sent + lost == 900, "{session}");
    let arguments = ["receive".into(), "-o".into(), "json".into(), "--strict".into(), at("out/mirror-erspan24.pcap")];
    let output = common::gnomon(arguments.map(PathBuf::into_os_string));
    assert_eq!(output.status.code(), Some(1), "copies are missing");
    let accounts: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let gaps = accounts["lost"].as_u64().expect("a number");
    // What is missing after the last copy that came cannot be seen.
    assert!(gaps <= lost && lost - gaps < 15, "{accounts} {session}");
}

/// Collector of each conversation of a mirror, by the port that tells them apart; both directions have the same.
fn collectors(capture: &Path) -> BTreeMap<u16, IpAddr> {
    let mut of = BTreeMap::new();
    for packet in read(capture) {
        let copy = unwrap(&packet).expect("a copy");
        let port = |at: usize| u16::from_be_bytes([copy.frame[at], copy.frame[at + 1]]);
        let conversation = port(34).max(port(36));
        assert_eq!(*of.entry(conversation).or_insert(copy.to), copy.to, "conversation {conversation}");
    }
    of
}

#[test]
fn a_pool_shares_flows_and_a_members_loss_moves_only_its_own() {
    let frames: Vec<_> = (0..2)
        .flat_map(|_| 1000..1600)
        .flat_map(|n| {
            let (a, b) = ("10.0.1.10", "10.0.2.20");
            [frames::udp((a, b), (n, 53), b"?"), frames::udp((b, a), (53, n), b"!")]
        })
        .collect();
    let config = |members: &str, macs: &str| {
        format!(
            "[[target]]\nname = \"pool\"\ntunnel = \"geneve\"\nfrom = \"192.0.2.1\"\nto = [{members}]\nto_mac = {macs}\n\
             [[mirror]]\nname = \"all\"\nto = \"pool\"\ngroup = \"any\"\n"
        )
    };
    let macs = "[\"02:00:00:00:00:0a\", \"02:00:00:00:00:0b\", \"02:00:00:00:00:0c\"]";
    let three = replay_of(&config("\"192.0.2.10\", \"192.0.2.11\", \"192.0.2.12\"", macs), frames.clone());
    let two = replay_of(&config("\"192.0.2.12\", \"192.0.2.10\"", "\"02:00:00:00:00:09\""), frames.clone());
    let (before, after) = (collectors(&three.mirror("all")), collectors(&two.mirror("all")));
    let lost: IpAddr = "192.0.2.11".parse().expect("an address");
    for (conversation, was) in &before {
        assert!(after[conversation] == *was || *was == lost, "{conversation} moved from {was}");
    }
    let (accounts, received) = three.receive("all");
    assert_eq!(received.len(), frames.len());
    let streams = accounts["streams"].as_array().expect("streams");
    assert_eq!(streams.len(), 3, "each collector has numbers of its own: {accounts}");
    for stream in streams {
        let share = stream["packets"].as_u64().expect("a number") as f64 / frames.len() as f64;
        assert!((share - 1.0 / 3.0).abs() < 3.0 * (2.0 / 9.0 / 600.0_f64).sqrt(), "{stream}");
    }
    for packet in read(&three.mirror("all")) {
        let to = unwrap(&packet).expect("a copy").to;
        assert_eq!(IpAddr::from([192, 0, 2, packet[5]]), to, "each has its own MAC address");
    }
}

/// IP packets of at most so many bytes in which copies are sent.
#[test]
fn copies_in_pieces_are_put_together_again() {
    let replayed = replay(&configuration("mtu = 576\noversize = \"fragment\""));
    for ((tunnel, _), (family, ..)) in pairs() {
        let name = format!("{tunnel}{family}");
        let packets = read(&replayed.mirror(&name));
        let link = if tunnel == "gre" { 18 } else { 14 };
        assert!(packets.iter().all(|packet| packet.len() <= link + 576), "{name}");
        assert!(packets.len() > replayed.input.len() + 10, "{name}: some are in pieces");
        let (accounts, frames) = replayed.receive(&name);
        assert_eq!(frames, replayed.input, "{name}");
        assert_eq!((&accounts["fragments"], &accounts["broken"]), (&0.into(), &0.into()), "{name}: {accounts}");
        let session = &replayed.summary()["mirrored"][&name];
        assert_eq!((&session["packets"], &session["lost"]), (&replayed.input.len().into(), &0.into()), "{name}");
        let bytes: usize = packets.iter().map(Vec::len).sum();
        assert_eq!(session["bytes"], bytes, "{name}");
    }
    if Command::new("tshark").arg("-v").output().is_ok() {
        for name in ["vxlan4", "vxlan6", "erspan24"] {
            let fields = ["eth.src", if name.ends_with('4') { "ip.checksum.status" } else { "ipv6.src" }];
            let whole = tshark(&replayed.mirror(name), &fields);
            // The outer Ethernet header, and that of the copy once it is whole.
            let copies = whole.iter().filter(|row| row[0].contains(',')).count();
            assert!(copies >= replayed.input.len() - 1, "{name}: {copies} copies of {}", replayed.input.len());
            assert!(name == "vxlan6" || whole.iter().all(|row| first(&row[1]) == "1"), "{name}: checksums");
        }
    }
}

#[test]
fn pieces_that_are_lost_are_noticed_and_overlaps_refused() {
    let replayed = replay(&configuration("mtu = 576\noversize = \"fragment\""));
    let packets = read(&replayed.mirror("gre4"));
    let is_piece = |packet: &[u8]| packet[18 + 6] & 0x20 != 0 || packet[18 + 7] != 0;
    let lost = packets.iter().position(|packet| is_piece(packet)).expect("a copy in pieces");
    let received = |packets: &[Vec<u8>]| -> Value {
        let path = replayed.folder.path().join("damaged.pcap");
        std::fs::write(&path, captures::pcap(1, true, false, packets)).expect("written");
        let arguments = ["receive".into(), "-o".into(), "json".into(), path];
        let text = common::succeeds(&common::gnomon(arguments.map(PathBuf::into_os_string)));
        serde_json::from_str(&text).expect("JSON")
    };
    let without = [&packets[..lost], &packets[lost + 1..]].concat();
    let accounts = received(&without);
    assert!(accounts["fragments"].as_u64() > Some(0) && accounts["lost"] == 1, "{accounts}");
    // The piece comes twice, the second time with other bytes.
    let mut other = packets[lost].clone();
    *other.last_mut().expect("bytes") ^= 1;
    let mut twice = packets.clone();
    twice.insert(lost + 1, other);
    let accounts = received(&twice);
    assert!(accounts["fragments"].as_u64() > Some(0) && accounts["lost"] == 1, "{accounts}");
    // The same once more, and the whole backwards.
    let mut repeated = packets.clone();
    repeated.insert(lost + 1, packets[lost].clone());
    assert_eq!(received(&repeated)["lost"], 0);
    let reversed: Vec<_> = packets.into_iter().rev().collect();
    assert_eq!((&received(&reversed)["lost"], &received(&reversed)["fragments"]), (&0.into(), &0.into()));
}

/// Where the payload of the input's frames begins.
fn headers_end(frame: &[u8]) -> usize {
    let mut headers = Headers::default();
    let _ = gnomon::packet::parse(frame, frame.len() as u32, &mut headers);
    headers.end()
}

#[test]
fn slices_end_after_the_headers() {
    let (name, all) = ("geneve6", configuration("mtu = 9000\nslice = \"headers+8\""));
    let replayed = replay(&all);
    let (_, frames) = replayed.receive(name);
    let expected: Vec<_> =
        replayed.input.iter().map(|frame| &frame[..frame.len().min(headers_end(frame) + 8)]).collect();
    assert_eq!(frames, expected);
    let ends: std::collections::BTreeSet<usize> = expected.iter().map(|frame| frame.len()).collect();
    assert!(ends.len() > 5 && ends.contains(&(14 + 20 + 8 + 8)), "UDP over IPv4 and others: {ends:?}");
}

/// A target without a tunnel: copies are frames as they are.
fn plain(name: &str, rest: &str) -> String {
    format!(
        "[[target]]\nname = \"to-{name}\"\n{rest}\n[[mirror]]\nname = \"{name}\"\nto = \"to-{name}\"\ngroup = \"any\"\n"
    )
}

#[test]
fn masked_copies_are_true_copies_with_sound_checksums() {
    let text = b"POST /pay HTTP/1.1\r\nCookie: session=abc\r\n\r\ncard=4111-1111-1111-1111&key=hunter2";
    let (a, b) = (("10.0.1.10", "10.0.2.20"), ("fd00::1", "fd00::2"));
    let mut input = vec![
        frames::tcp(a, (4000, 80), frames::ACK | frames::PSH, (1, 1), text),
        frames::udp(a, (4000, 53), text),
        frames::udp(b, (4000, 53), &text[..text.len() - 1]),
        frames::vlan(&frames::tcp(b, (4000, 80), frames::ACK, (1, 1), text), 7),
        // Longer than a buffer.
        frames::udp(a, (4000, 54), &[&[b'.'; 4000][..], text].concat()),
    ];
    input.extend(self::input());
    let some = "mask = [\"digits:13\", \"text:hunter2\", \"after:Cookie: \", \"hex:2f706179\"]";
    let config = plain("all", "mask = \"all\"") + &plain("some", some) + &plain("none", "");
    let wrapped = "mask = \"all\"\ntunnel = \"geneve\"\nto = \"192.0.2.2\"\nfrom = \"192.0.2.1\"\nmtu = 576\noversize = \"fragment\"";
    let replayed = replay_of(&(config + &plain("wrapped", wrapped)), input.clone());
    assert_eq!(read(&replayed.mirror("none")), input, "other copies show everything");
    let forwarded = read(&replayed.folder.path().join("out/forwarded.pcap"));
    assert!(forwarded.iter().all(|frame| input.contains(frame)), "what is forwarded is not masked");
    assert!(forwarded.contains(&input[0]));
    let all = read(&replayed.mirror("all"));
    let same = |was: &[u8], is: &[u8], expected: &[u8]| {
        assert_eq!(was.len(), is.len());
        assert_eq!(is[is.len() - expected.len()..], *expected);
        assert_eq!(checksum_residue(was), checksum_residue(is), "a right checksum stays right, a wrong one wrong");
    };
    for (was, is) in input.iter().zip(&all) {
        let end = headers_end(was).min(was.len());
        same(was, is, &vec![b'X'; was.len() - end]);
    }
    assert_eq!(replayed.receive("wrapped").1, all, "in a tunnel and in pieces as well");
    let expected = b"POST XXXX HTTP/1.1\r\nCookie: XXXXXXXXXXX\r\n\r\ncard=XXXX-XXXX-XXXX-XXXX&key=XXXXXXX";
    let some = read(&replayed.mirror("some"));
    for at in [0, 1, 3, 4] {
        same(&input[at], &some[at], expected);
    }
    assert!(!some[2].windows(7).any(|w| w == b"4111-11"), "of an odd length as well");
    assert_eq!(checksum_residue(&input[2]), checksum_residue(&some[2]));
}

/// What the sum of all that an innermost checksum of TCP or UDP covers comes to: zero for a right one.
fn checksum_residue(frame: &[u8]) -> Option<u16> {
    let mut headers = Headers::default();
    gnomon::packet::parse(frame, frame.len() as u32, &mut headers).ok()?;
    let ip = if headers.inner.version != 0 { headers.inner } else { headers.outer };
    if !matches!(ip.protocol, 6 | 17) || ip.fragment.is_some() {
        return None;
    }
    let (from, end) = (usize::from(ip.l4_offset), usize::from(ip.payload_offset) + ip.payload_len as usize);
    let l4 = frame.get(from..end)?;
    if ip.protocol == 17 && l4[6..8] == [0, 0] {
        return None;
    }
    let addresses = checksum::words(&ip.src.to_be_bytes()) + checksum::words(&ip.dst.to_be_bytes());
    Some(checksum::fold(addresses + u64::from(ip.protocol) + l4.len() as u64 + checksum::words(l4)))
}

#[test]
fn a_packet_on_both_sides_of_a_router_is_copied_once() {
    // Each conversation's packet, what a router makes of it, and the packet of another VLAN's bridge.
    let mut input = Vec::new();
    for n in 0..200_u16 {
        let first = frames::udp(("10.0.1.10", "10.0.2.20"), (1000 + n, 53), &n.to_be_bytes());
        let mut routed = first.clone();
        routed[..12].copy_from_slice(&[2, 9, 9, 9, 9, 9, 2, 8, 8, 8, 8, 8]);
        routed[22] -= 1;
        // RFC 1141: the checksum of a TTL less by one.
        let sum = u32::from(u16::from_be_bytes([routed[24], routed[25]])) + 0x100;
        let sum = (sum & 0xffff) + (sum >> 16);
        routed[24..26].copy_from_slice(&(sum as u16).to_be_bytes());
        let bridged = frames::vlan(&first, 7);
        input.extend([first.clone(), routed, bridged, first]);
    }
    let config = plain("once", "dedup = \"2ms\"")
        + &plain("brief", "dedup = \"1ms\"")
        + "[[mirror]]\nname = \"own\"\ngroup = \"any\"\ndedup = \"2ms\"\n";
    // A millisecond apart: the bridged packet is two after the first, the repeated one three.
    let replayed = replay_of(&config, input.clone());
    let summary = replayed.summary();
    let of = |name: &str, key: &str| summary["mirrored"][name][key].as_u64().unwrap_or(0);
    assert_eq!(summary["tx"], input.len(), "forwarding is not asked");
    for name in ["once", "own"] {
        assert_eq!((of(name, "selected"), of(name, "lost_duplicate")), (800, 400), "{name}");
        let copied = read(&replayed.mirror(name));
        let sent: Vec<_> = input.iter().enumerate().filter(|(n, _)| matches!(n % 4, 0 | 3)).map(|(_, f)| f).collect();
        assert_eq!(copied.iter().collect::<Vec<_>>(), sent, "{name}: what is sent again is copied again");
    }
    // The bridged packet comes too late to be the first one's double, and the repeated one soon enough to be the bridged one's.
    assert_eq!((of("brief", "selected"), of("brief", "lost_duplicate")), (800, 400));
    let sent: Vec<_> = input.iter().enumerate().filter(|(n, _)| matches!(n % 4, 0 | 2)).map(|(_, f)| f).collect();
    assert_eq!(read(&replayed.mirror("brief")).iter().collect::<Vec<_>>(), sent, "the window is kept");
}
