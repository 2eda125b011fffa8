//! What other people's programs read in the IPFIX stream of a replay, against `flows.jsonl`: `nfcapd` and `tshark` for what
//! they know, a reader written from the RFCs for everything.

mod common;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::ipfix::{Decoder, REVERSE, Record};
use common::{captures, frames};
use gnomon::behaviour::{Flags, ScoredRecord};
use gnomon::config::{Ipfix, IpfixTransport};
use gnomon::export::{Collectors, Directory, Names, SessionInfo};
use gnomon::flow::FlowRecord;
use gnomon::packet::Tuple;
use gnomon::rules::{GroupSetHandle, RuleHandle};
use serde_json::Value;

/// What every reader is asked for, as `flows.jsonl` has it; what a reader does not know is left out on both sides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    /// First and last packet, in microseconds since 1970.
    times: (u64, u64),
    src: String,
    dst: String,
    /// Ports; 0 and type * 256 + code for ICMP; 0 for others.
    ports: (u64, u64),
    protocol: u64,
    packets: (u64, u64),
    bytes: (u64, u64),
    flags: (Option<u64>, Option<u64>),
    reason: Option<u64>,
    vlan: u64,
}

/// `2023-11-14T22:13:20.000000+0000` in microseconds since 1970.
fn micros(text: &str) -> u64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("digits");
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days from civil: years begin in March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    (seconds * 1_000_000 + number(20..26)) as u64
}

fn protocol_number(name: &str) -> u64 {
    match name {
        "TCP" => 6,
        "UDP" => 17,
        "ICMP" => 1,
        "IPv6-ICMP" => 58,
        "SCTP" => 132,
        "GRE" => 47,
        "ESP" => 50,
        number => number.parse().expect("a number"),
    }
}

fn reason_number(name: &str) -> u64 {
    match name {
        "idle" => 1,
        "active" => 2,
        "fin" | "rst" => 3,
        "forced" => 4,
        "evicted" => 5,
        other => panic!("{other}"),
    }
}

/// A line of `flows.jsonl`.
fn expected(line: &Value) -> Flow {
    let (flow, number) = (&line["flow"], |value: &Value| value.as_u64().expect("a number"));
    let flags = |key: &str| line["tcp"][key].as_str().map(|hex| u64::from_str_radix(hex, 16).expect("hex"));
    let ports = match line.get("icmp_type") {
        Some(kind) => (0, number(kind) * 256 + number(&line["icmp_code"])),
        None => (line["src_port"].as_u64().unwrap_or(0), line["dest_port"].as_u64().unwrap_or(0)),
    };
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    Flow {
        times: (micros(&text(&flow["start"])), micros(&text(&flow["end"]))),
        src: text(&line["src_ip"]),
        dst: text(&line["dest_ip"]),
        ports,
        protocol: protocol_number(&text(&line["proto"])),
        packets: (number(&flow["pkts_toserver"]), number(&flow["pkts_toclient"])),
        bytes: (number(&flow["bytes_toserver"]), number(&flow["bytes_toclient"])),
        flags: (flags("tcp_flags_ts"), flags("tcp_flags_tc")),
        reason: Some(reason_number(flow["reason"].as_str().expect("text"))),
        vlan: line.get("vlan").map_or(0, |list| number(&list[0])),
    }
}

/// A UDP collector that keeps everything.
struct Recorder {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Recorder {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let port = socket.local_addr().expect("bound").port();
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut all, mut buffer) = (Vec::new(), [0; 65_536]);
            loop {
                match socket.recv(&mut buffer) {
                    Ok(length) => all.push(buffer[..length].to_vec()),
                    Err(_) if stopped.load(Ordering::Relaxed) => return all,
                    Err(_) => {}
                }
            }
        });
        Self { port, stop, thread }
    }

    fn finish(self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("read")
    }
}

/// nfcapd on a port of its own.
struct Nfcapd {
    process: Child,
    port: u16,
    folder: PathBuf,
}

impl Nfcapd {
    fn start(folder: &Path) -> Self {
        let port = UdpSocket::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound").port();
        Self::on(port, folder)
    }

    fn on(port: u16, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("folder");
        let process = Command::new("nfcapd")
            .args(["-b", "127.0.0.1", "-t", "3600", "-B", "4000000", "-p", &port.to_string(), "-w"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nfcapd starts; scripts/setup.sh test installs it");
        // It listens when its port is taken.
        let end = Instant::now() + Duration::from_secs(20);
        while UdpSocket::bind(("127.0.0.1", port)).is_ok() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { process, port, folder: folder.to_owned() }
    }

    /// Everything it understood, as `nfdump` prints it.
    fn finish(mut self) -> Vec<Value> {
        // What is still in the socket.
        std::thread::sleep(Duration::from_millis(1000));
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        self.process.wait().expect("ended");
        let mut nfdump = Command::new("nfdump");
        nfdump.env("TZ", "UTC").args(["-q", "-N", "-o", "json", "-R"]).arg(&self.folder);
        let text = String::from_utf8_lossy(&nfdump.output().expect("nfdump").stdout).into_owned();
        // Quiet leaves the brackets out.
        let list = format!("[{}]", text.trim().trim_matches(['[', ']']).trim().trim_end_matches(','));
        serde_json::from_str(&list).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// What nfdump knows of a record: times in milliseconds, TCP flags only there, no reason in this format.
fn of_nfdump(record: &Value) -> Flow {
    let number = |key: &str| record.get(key).and_then(Value::as_u64).unwrap_or(0);
    let text = |four: &str, six: &str| {
        let found = record.get(four).or(record.get(six)).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no address in {record}")).to_owned()
    };
    let time = |key: &str| micros(&format!("{}000+0000", record[key].as_str().expect("a time")));
    let protocol = number("proto");
    let ports = match protocol {
        1 | 58 => (0, number("icmp_type") * 256 + number("icmp_code")),
        _ => (number("src_port"), number("dst_port")),
    };
    // From the highest bit to the lowest, a dot for each that is not set.
    let bits = |flags: &str| flags.bytes().fold(0, |bits, letter| (bits << 1) | u64::from(letter != b'.'));
    let flags = record["tcp_flags"].as_str().map(bits).filter(|_| protocol == 6);
    Flow {
        times: (time("first"), time("last")),
        src: text("src4_addr", "src6_addr"),
        dst: text("dst4_addr", "dst6_addr"),
        ports,
        protocol,
        packets: (number("in_packets"), number("out_packets")),
        bytes: (number("in_bytes"), number("out_bytes")),
        flags: (flags, None),
        reason: None,
        vlan: number("src_vlan"),
    }
}

/// A flow as far as nfdump can know it.
fn as_nfdump_sees(flow: &Flow) -> Flow {
    let cut = |micros: u64| micros / 1000 * 1000;
    Flow { times: (cut(flow.times.0), cut(flow.times.1)), flags: (flow.flags.0, None), reason: None, ..flow.clone() }
}

/// What tshark finds in the messages, given to it as datagrams of a capture.
fn of_tshark(messages: &[Vec<u8>], folder: &Path) -> Vec<Flow> {
    let frame = |message: &Vec<u8>| frames::udp(("127.0.0.1", "127.0.0.2"), (40_000, 4739), message);
    let capture = folder.join("ipfix.pcap");
    let all: Vec<Vec<u8>> = messages.iter().map(frame).collect();
    std::fs::write(&capture, captures::pcap(1, true, false, &all)).expect("written");
    let mut tshark = Command::new("tshark")
        .args(["-n", "-T", "pdml", "-d", "udp.port==4739,cflow", "-r"])
        .arg(&capture)
        .env("TZ", "UTC")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("tshark starts");
    let lines = BufReader::new(tshark.stdout.take().expect("piped")).lines();
    let (mut flows, mut fields) = (Vec::new(), BTreeMap::<String, String>::new());
    for line in lines.map(|line| line.expect("text")) {
        assert!(!line.contains("_ws.malformed") && !line.contains("No template"), "{line}");
        if line.contains("show=\"Flow ") || line.contains("</packet>") {
            flows.extend(pdml_flow(&std::mem::take(&mut fields)));
        }
        let Some(name) = attribute(&line, "name").filter(|name| name.starts_with("cflow.")) else { continue };
        let reverse = if line.contains("(Reverse Type") { "~" } else { "" };
        // Of the two times, in milliseconds and nanoseconds, the latter comes last.
        fields.insert(format!("{reverse}{name}"), attribute(&line, "show").unwrap_or_default().to_owned());
    }
    assert!(tshark.wait().expect("ends").success());
    flows
}

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let start = line.find(&format!(" {name}=\""))? + name.len() + 3;
    line[start..].split('"').next()
}

/// `None` of options records.
fn pdml_flow(fields: &BTreeMap<String, String>) -> Option<Flow> {
    let text = |name: &str| fields.get(&format!("cflow.{name}")).cloned();
    let number = |text: &String| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).expect("hex"),
        None => text.parse().unwrap_or_else(|_| panic!("{text}")),
    };
    let both = |name: &str| {
        let get = |reverse: &str| fields.get(&format!("{reverse}cflow.{name}")).map(number);
        (get(""), get("~"))
    };
    let sure = |name: &str| (both(name).0.expect("a number"), both(name).1.expect("a number"));
    let src = text("srcaddr").or(text("srcaddrv6"))?;
    let icmp6 = both("icmp_ipv6_type").0.zip(both("icmp_ipv6_code").0).map(|(kind, code)| kind * 256 + code);
    let ports = match both("icmp_type_code_ipv4").0.or(icmp6) {
        Some(both) => (0, both),
        None => (text("srcport").as_ref().map_or(0, number), text("dstport").as_ref().map_or(0, number)),
    };
    Some(Flow {
        times: (tshark_time(&text("abstimestart")?), tshark_time(&text("abstimeend")?)),
        src,
        dst: text("dstaddr").or(text("dstaddrv6"))?,
        ports,
        protocol: both("protocol").0.expect("a protocol"),
        packets: sure("packets"),
        bytes: sure("octets"),
        flags: both("tcpflags"),
        reason: both("flow_end_reason").0,
        vlan: both("vlanid").0.expect("a VLAN"),
    })
}

/// `Jul 25, 2021 14:57:00.686470000 UTC` in microseconds since 1970.
fn tshark_time(text: &str) -> u64 {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let parts: Vec<&str> = text.split_whitespace().collect();
    let month = MONTHS.find(parts[0]).expect("a month") / 3 + 1;
    let day: u32 = parts[1].trim_end_matches(',').parse().expect("a day");
    micros(&format!("{}-{month:02}-{day:02}T{}", parts[2], parts[3]))
}

/// Of the reader in tests/common. It also looks at what only it can read.
fn of_rfc(record: &Record, names: &BTreeMap<(u32, u64), String>, line: &Value) -> Flow {
    let own = |id: u16| (32_473, id);
    let both = |id: u16| (record.number((0, id)), record.number((REVERSE, id)));
    let port = |id: u16| if record.has((0, id)) { record.number((0, id)) } else { 0 };
    let icmp = [32, 139].into_iter().find(|id| record.has((0, *id)));
    let gnomon = &line["gnomon"];
    assert_eq!(Some(record.number((0, 148))), line["flow_id"].as_u64());
    assert_eq!(Some(record.text(own(34)).as_str()), line["community_id"].as_str());
    assert_eq!(record.number(own(21)), gnomon["vni"].as_u64().unwrap_or(0));
    assert_eq!(Some(record.number(own(5))), gnomon["generation"].as_u64());
    let at = |id: u16, words: &[&str]| words[record.number(own(id)) as usize].to_owned();
    assert_eq!(gnomon["tier"], at(3, &["override", "threat", "policy", "learned", "default"]));
    assert_eq!(gnomon["action"], at(4, &["allow", "deny", "reject"]));
    assert_eq!(line["flow"]["state"], at(19, &["new", "established", "closing", "closed"]));
    assert_eq!(line["flow"]["reason"], at(20, &["idle", "active", "fin", "rst", "evicted", "forced"]));
    let named = |option: u32, id: u16| match record.number(own(id)) {
        0 => String::new(),
        number => names[&(option, number)].clone(),
    };
    let joined = |key: &str| {
        let list = gnomon[key].as_array().expect("a list").iter();
        list.map(|name| name.as_str().expect("text")).collect::<Vec<_>>().join(",")
    };
    let rule = if record.number(own(1)) == 0 { "default".to_owned() } else { named(1, 1) };
    assert_eq!(gnomon["rule"], rule);
    assert_eq!((named(8, 6), named(8, 7)), (joined("src_groups"), joined("dst_groups")));
    assert_eq!(named(10, 10), joined("mirror"));
    let score = Some(record.f32(own(17))).filter(|score| !score.is_nan());
    let rounded = score.map(|score| (f64::from(score) * 1e6).round() / 1e6);
    assert_eq!(gnomon["score"].as_f64(), rounded);
    assert_eq!(record.nanoseconds((0, 325)) / 1000, micros(line["timestamp"].as_str().expect("a time")));
    Flow {
        times: (record.nanoseconds((0, 156)) / 1000, record.nanoseconds((0, 157)) / 1000),
        src: record.address((0, 8), (0, 27)).to_string(),
        dst: record.address((0, 12), (0, 28)).to_string(),
        ports: icmp.map_or((port(7), port(11)), |id| (0, port(id))),
        protocol: record.number((0, 4)),
        packets: both(2),
        bytes: both(1),
        flags: if record.has((0, 6)) { (Some(both(6).0), Some(both(6).1)) } else { (None, None) },
        reason: Some(record.number((0, 136))),
        vlan: record.number((0, 58)),
    }
}

/// Names behind numbers, by the own element that carries the number.
fn names(decoder: &Decoder) -> BTreeMap<(u32, u64), String> {
    let mut names = BTreeMap::new();
    for (number, name) in [(1, 2), (8, 9), (10, 11)] {
        for option in decoder.options((32_473, name)) {
            names.insert((u32::from(number), option.number((32_473, number))), option.text((32_473, name)));
        }
    }
    names
}

/// Replays with three collectors and compares each with `flows.jsonl`, record by record and in sum. Returns how many.
fn all_agree(capture: &Path, config: Option<&Path>) -> usize {
    let folder = tempfile::tempdir().expect("temporary folder");
    let out = folder.path().join("out");
    let (recorder, nfcapd) = (Recorder::start(), Nfcapd::start(&folder.path().join("nfcapd")));
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let tcp = listener.local_addr().expect("bound");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        listener.accept().expect("a connection").0.read_to_end(&mut bytes).expect("read");
        bytes
    });
    let mut arguments: Vec<std::ffi::OsString> = vec!["replay".into(), "-q".into(), "-o".into(), out.clone().into()];
    for collector in
        [format!("127.0.0.1:{}", recorder.port), format!("127.0.0.1:{}/udp", nfcapd.port), format!("{tcp}/tcp")]
    {
        arguments.extend(["--ipfix".into(), collector.into()]);
    }
    if let Some(config) = config {
        arguments.extend(["-c".into(), config.into()]);
    }
    arguments.push(capture.into());
    common::succeeds(&common::gnomon(arguments));
    let lines = common::json_lines(&out.join("flows.jsonl"));
    let flows: Vec<Flow> = lines.iter().map(expected).collect();

    let (messages, mut udp, mut over_tcp) = (recorder.finish(), Decoder::default(), Decoder::default());
    messages.iter().for_each(|message| udp.message(message));
    over_tcp.stream(&reader.join().expect("read"));
    for decoder in [&udp, &over_tcp] {
        let names = names(decoder);
        let found: Vec<Flow> =
            decoder.flows().iter().zip(&lines).map(|(record, line)| of_rfc(record, &names, line)).collect();
        assert_eq!(decoder.flows().len(), flows.len());
        assert_eq!(found, flows, "the reader written from the RFCs, in order");
        assert_eq!(decoder.unknown_sets, 0);
    }
    assert_eq!(of_tshark(&messages, folder.path()), flows, "tshark, in order");

    let records = nfcapd.finish();
    let mut found: Vec<Flow> = records.iter().map(of_nfdump).collect();
    let mut wanted: Vec<Flow> = flows.iter().map(as_nfdump_sees).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found.len(), wanted.len(), "records that nfcapd stored");
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!(found, wanted, "nfdump");
    }
    let sums = |flows: &[Flow]| {
        let add = |of: fn(&Flow) -> (u64, u64)| flows.iter().map(of).fold((0, 0), |s, n| (s.0 + n.0, s.1 + n.1));
        (flows.len(), add(|f| f.packets), add(|f| f.bytes))
    };
    assert_eq!(sums(&found), sums(&flows));
    println!("{}: {:?} in flows.jsonl, tshark, nfdump and over TCP", capture.display(), sums(&flows));
    flows.len()
}

#[test]
fn a_small_capture_with_rules_and_mirrors() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut all = captures::conversation();
    all.extend(captures::rarities());
    // Two more turns, a VLAN, SCTP and a protocol without ports.
    all.extend(captures::conversation().iter().map(|frame| frames::vlan(frame, 12)));
    for ends in [("10.0.1.11", "10.0.2.20"), ("fd00:1::11", "fd00:2::20")] {
        let sctp = [&[7, 208, 11, 184][..], &[0; 12]].concat();
        all.push(frames::ethernet_ip(&frames::ip(ends, 132, &sctp)));
        all.push(frames::ethernet_ip(&frames::ip(ends, 89, &[0; 24])));
        all.push(frames::icmp(ends, 3, 1));
    }
    let capture = folder.path().join("made.pcap");
    std::fs::write(&capture, captures::pcap(1, true, false, &all)).expect("written");
    let config = folder.path().join("made.toml");
    let text = r#"
[policy]
default = "deny"
[[group]]
name = "clients"
cidrs = ["10.0.1.0/24", "fd00:1::/64"]
[[group]]
name = "servers"
cidrs = ["10.0.2.0/24", "fd00:2::/64"]
[[rule]]
id = "web"
from = "clients"
to = "servers"
protocol = "tcp"
ports = 443
action = "allow"
[[rule]]
id = "mail"
to = "servers"
protocol = "tcp"
ports = 25
action = "reject"
[[mirror]]
name = "servers"
group = "servers"
sample = "1/2"
[[mirror]]
name = "half"
group = "any"
flows = "50%"
"#;
    std::fs::write(&config, text).expect("written");
    assert!(all_agree(&capture, Some(&config)) >= 20);
}

#[test]
fn bench_captures() {
    let Some(shared) = common::shared("IPFIX of the bench captures") else { return };
    let folder = tempfile::tempdir().expect("temporary folder");
    for entry in std::fs::read_dir(shared.join("captures/bench")).expect("bench captures") {
        let path = entry.expect("an entry").path();
        let capture = folder.path().join(path.file_stem().expect("a name"));
        let plain = Command::new("gzip").arg("-dc").arg(&path).output().expect("gzip");
        assert!(plain.status.success());
        std::fs::write(&capture, plain.stdout).expect("written");
        assert!(all_agree(&capture, None) > 0);
    }
}

struct Nameless;

impl Names for Nameless {
    fn rule(&self, rule: RuleHandle) -> Cow<'_, str> {
        rule.0.to_string().into()
    }

    fn groups(&self, _: GroupSetHandle) -> Vec<Cow<'_, str>> {
        Vec::new()
    }

    fn mirror(&self, _: u32, bit: usize) -> Cow<'_, str> {
        bit.to_string().into()
    }

    fn mirror_rate(&self, _: u32, _: usize) -> Option<gnomon::mirror::Rate> {
        None
    }
}

impl Directory for Nameless {
    fn sessions(&self) -> Vec<SessionInfo> {
        Vec::new()
    }
}

#[test]
fn a_collector_that_restarts_learns_the_templates_again() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let first = Nfcapd::start(&folder.path().join("first"));
    let port = first.port;
    let mut settings = Ipfix::to(&format!("127.0.0.1:{port}"), IpfixTransport::Udp);
    settings.template_messages = 20;
    let collectors = Collectors::start(&[settings], &Arc::new(Nameless), false).expect("started");
    let send = |ports: std::ops::Range<u16>| {
        for src_port in ports {
            let tuple = Tuple {
                src: 0x0a00_0001,
                dst: 0x0a00_0002,
                src_port,
                dst_port: 53,
                protocol: 17,
                version: 4,
                ..Tuple::default()
            };
            let (start, end) = (1_700_000_000_000_000_000, 1_700_000_001_000_000_000);
            let record = FlowRecord { tuple, start, end, packets: [1, 1], bytes: [60, 60], ..FlowRecord::default() };
            collectors.record(&ScoredRecord { record, score: None, flags: Flags::default() });
            std::thread::sleep(Duration::from_millis(1));
        }
        // What is in the message that is being filled.
        std::thread::sleep(Duration::from_millis(500));
    };
    send(0..300);
    let before = first.finish();
    // Nobody listens.
    send(300..400);
    let second = Nfcapd::on(port, &folder.path().join("second"));
    send(400..1000);
    let after = second.finish();
    let ports = |records: &[Value]| records.iter().map(|r| r["src_port"].as_u64().expect("a port")).collect::<Vec<_>>();
    assert_eq!(ports(&before), (0..300).collect::<Vec<u64>>());
    let after = ports(&after);
    // Five records fit into a message, so a refresh comes every hundred records or so.
    let relearned = after.first().copied().expect("records after the restart");
    assert!((400..600).contains(&relearned), "first record after the restart: {relearned}");
    assert_eq!(after, (relearned..1000).collect::<Vec<u64>>(), "and every one from there on");
}
