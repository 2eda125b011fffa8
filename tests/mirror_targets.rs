//! Wrapped mirror copies: `tshark` understands every envelope, and the frames in them are those that came in.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{captures, frames};
use gnomon::mirror::wrap::unwrap;
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
