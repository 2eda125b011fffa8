//! Community IDs of `flows.jsonl` against tshark's own, and where tshark looks at another header (tunnels) or at none, against
//! a small reference in Python.

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Reads flows as JSON lines and says of each what its Community ID is, from the text of the specification
/// (github.com/corelight/community-id-spec): seed, addresses, protocol, padding, ports, SHA-1, base64.
const REFERENCE: &str = r#"
import base64, hashlib, ipaddress, json, struct, sys
NUMBERS = {"TCP": 6, "UDP": 17, "ICMP": 1, "IPv6-ICMP": 58, "SCTP": 132, "GRE": 47, "ESP": 50}
ASKED = {1: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 10: 9, 9: 10, 17: 18, 18: 17},
         58: {128: 129, 129: 128, 133: 134, 134: 133, 135: 136, 136: 135, 130: 131, 131: 130, 144: 145, 145: 144,
              139: 140, 140: 139}}
for line in sys.stdin:
    flow = json.loads(line)
    proto = NUMBERS.get(flow["proto"]) or int(flow["proto"])
    ends = [ipaddress.ip_address(flow[k]).packed for k in ("src_ip", "dest_ip")]
    ports, one_way = None, False
    if proto in ASKED:
        kind, code = flow["icmp_type"], flow["icmp_code"]
        one_way = kind not in ASKED[proto]
        ports = [kind, code if one_way else ASKED[proto][kind]]
    elif proto in (6, 17, 132):
        ports = [flow["src_port"], flow["dest_port"]]
    sides = [(end, port) for end, port in zip(ends, ports or [0, 0])]
    if not one_way:
        sides.sort()
    data = struct.pack("!H", 0) + sides[0][0] + sides[1][0] + struct.pack("!BB", proto, 0)
    if ports is not None:
        data += struct.pack("!HH", sides[0][1], sides[1][1])
    print("1:" + base64.b64encode(hashlib.sha1(data).digest()).decode())
"#;

fn reference(flows: &[Value]) -> Vec<String> {
    let mut python = Command::new("python3")
        .args(["-c", REFERENCE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let text: String = flows.iter().map(|flow| format!("{flow}\n")).collect();
    let mut stdin = python.stdin.take().expect("piped");
    let feeder = std::thread::spawn(move || stdin.write_all(text.as_bytes()).expect("written"));
    let output = python.wait_with_output().expect("ends");
    feeder.join().expect("fed");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// Those that tshark gives to any packet of the capture; of damaged captures, to those before the damage.
fn of_tshark(capture: &Path) -> Option<BTreeSet<String>> {
    let arguments = ["-n", "--enable-protocol", "communityid", "-T", "fields", "-e", "communityid", "-r"];
    let output = Command::new("tshark").args(arguments).arg(capture).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_whitespace().flat_map(|ids| ids.split(',')).map(str::to_owned).collect())
}

/// Replays all at once; flows by capture.
fn flows_of(captures: &[PathBuf], out: &Path) -> Vec<Vec<Value>> {
    let mut arguments = vec!["replay".into(), "-q".into(), "-o".into(), out.as_os_str().to_owned()];
    arguments.extend(captures.iter().map(|c| c.as_os_str().to_owned()));
    // Some captures cannot be read at all; the others are replayed all the same.
    common::gnomon(arguments);
    let of = |capture: &PathBuf| {
        let folder = if captures.len() == 1 { out.to_owned() } else { out.join(capture.file_name().expect("a file")) };
        let file = folder.join("flows.jsonl");
        if file.exists() { common::json_lines(&file) } else { Vec::new() }
    };
    captures.iter().map(of).collect()
}

/// How many flows there were, and how many of them tshark knows too.
fn compare(captures: &[PathBuf]) -> (usize, usize) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (mut all, mut confirmed) = (0, 0);
    for (capture, flows) in captures.iter().zip(flows_of(captures, folder.path())) {
        let known = of_tshark(capture).expect("tshark runs");
        for (flow, expected) in flows.iter().zip(reference(&flows)) {
            let found = flow["community_id"].as_str().expect("a community id");
            assert_eq!(found, expected, "{}: {flow}", capture.display());
            all += 1;
            if known.contains(found) {
                confirmed += 1;
            } else if flow["proto"].is_string() && all - confirmed <= 20 {
                let ends =
                    [&flow["src_ip"], &flow["src_port"], &flow["dest_ip"], &flow["dest_port"], &flow["icmp_type"]];
                println!("{}: tshark does not have {} {ends:?}", capture.display(), flow["proto"]);
            }
        }
    }
    (all, confirmed)
}

#[test]
fn small_captures_made_here() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut frames = common::captures::conversation();
    let ends = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")];
    for (there, protocol, types) in [
        (ends[0], 1, [8, 0, 13, 14, 15, 16, 10, 9, 17, 18, 20, 40]),
        (ends[1], 58, [128, 129, 133, 134, 135, 136, 130, 131, 144, 145, 200, 201]),
    ] {
        // A sender for each type: between two hosts all types are one flow.
        let separator = if there.0.contains(':') { ":" } else { "." };
        let sender = |kind: u8| format!("{}{separator}{kind}", there.0.rsplit_once(separator).expect("an address").0);
        let message = |kind: u8| [&[kind, 1][..], &[0; 38]].concat();
        frames.extend(types.map(|kind| {
            common::frames::ethernet_ip(&common::frames::ip((&sender(kind), there.1), protocol, &message(kind)))
        }));
        // SCTP: ports, tag, checksum (nobody looks), and a protocol without ports.
        frames.push(common::frames::ethernet_ip(&common::frames::ip(
            there,
            132,
            &[[7, 208, 11, 184].as_slice(), &[0; 12]].concat(),
        )));
        frames.push(common::frames::ethernet_ip(&common::frames::ip(there, 253, &[0; 24])));
    }
    let capture = folder.path().join("made.pcap");
    std::fs::write(&capture, common::captures::pcap(1, true, false, &frames)).expect("written");
    let (all, confirmed) = compare(&[capture]);
    assert!(all >= 30, "{all} flows");
    // tshark 4.0 has none for IPv6 protocols without ports, of which there is one flow.
    assert!(all - confirmed <= 1, "tshark gives the same: {confirmed} of {all}");
}

#[test]
fn all_captures() {
    let Some(shared) = common::shared("community ids of all captures") else { return };
    let mut captures = Vec::new();
    for set in ["app", "attack", "benign", "edge", "ids"] {
        let entries = std::fs::read_dir(shared.join("captures").join(set)).expect("a set");
        let files = entries.map(|entry| entry.expect("an entry").path());
        captures.extend(
            files.filter(|file| {
                file.to_string_lossy().contains(".pcap") || file.extension().is_some_and(|e| e == "cap")
            }),
        );
    }
    let bench = shared.join("captures/bench");
    captures.extend(std::fs::read_dir(bench).expect("a set").map(|entry| entry.expect("an entry").path()));
    captures.sort();
    let mut names = BTreeSet::new();
    captures.retain(|capture| names.insert(capture.file_name().expect("a file").to_owned()));
    let (all, confirmed) = compare(&captures);
    println!("{all} flows of {} captures equal the reference; tshark has {confirmed} of them too", captures.len());
    assert!(captures.len() > 100 && all > 10_000, "{} captures, {all} flows", captures.len());
    assert!(confirmed as f64 >= all as f64 * 0.98, "tshark knows {confirmed} of {all}");
}
