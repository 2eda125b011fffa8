//! `gnomon capture` and `gnomon trace` against a running appliance: over null devices at full speed, and between hosts in
//! network namespaces (which needs root, see `live_namespaces`).
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/namespaces.rs"]
mod namespaces;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use gnomon::capture::CaptureReader;
use namespaces::{Background, Lab, SERVER, eventually, worker_cpu};
use serde_json::Value;

const NULL: &str = r#"
[eal]
memory = "128MiB"
mbufs = 8192
file_prefix = "PREFIX"
[[port]]
name = "a"
device = "net_null0,size=64"
[[port]]
name = "b"
device = "net_null1,size=64"
[[pair]]
ports = ["a", "b"]
[policy]
default = "deny"
non_ip = "allow"
[scorer]
enabled = false
"#;

/// A running appliance and its socket.
struct Live {
    process: Background,
    socket: PathBuf,
}

impl Live {
    fn null(folder: &Path, name: &str) -> Self {
        let socket = folder.join("control.sock");
        let text = NULL.replace("PREFIX", &format!("gnomon-{name}-{}", std::process::id()));
        let text = format!(
            "[cores]\nmain = 0\nworkers = {}\n[control]\nsocket = {socket:?}\n[export]\ndirectory = {:?}\n{text}",
            worker_cpu(),
            folder.join("out")
        );
        let config = folder.join("null.toml");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon"));
        command.args(["run", "--interval", "0", "-c"]).arg(&config);
        let process = Background::start(command, folder.join("gnomon.log"));
        process.wait_for("generation 1;", Duration::from_secs(30));
        Self { process, socket }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon"));
        command.args(arguments).arg("--socket").arg(&self.socket).stdin(Stdio::null());
        command
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn text(&self, arguments: &[&str]) -> String {
        let text = common::succeeds(&self.ask(arguments));
        println!("$ gnomon {}\n{text}", arguments.join(" "));
        text
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// One appliance at a time takes a whole CPU.
static TURN: Mutex<()> = Mutex::new(());

/// `captured`, `chosen`, `lost` of what a capture says at its end.
fn totals(output: &Output) -> [u64; 3] {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| line.contains("packets captured")).unwrap_or_else(|| panic!("{said}"));
    let numbers: Vec<u64> = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    [numbers[0], numbers[1], numbers[3]]
}

fn frames(path: &Path) -> Vec<(u64, usize, u32)> {
    let mut reader = CaptureReader::open(path).unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        frames.push((frame.ts_ns, frame.data.len(), frame.wire_len));
    }
    assert!(!reader.truncated());
    frames
}

#[test]
fn captures_and_traces_at_full_speed_count_exactly() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let live = Live::null(folder.path(), "full");

    let few = path("few.pcapng");
    let output = live.ask(&["capture", "length=64", "--count", "5000", "--snaplen", "40", "-w", few.to_str().unwrap()]);
    common::succeeds(&output);
    let captured = frames(&few);
    assert_eq!((captured.len(), totals(&output)[0]), (5000, 5000));
    assert!(captured.iter().all(|(_, len, wire)| (*len, *wire) == (40, 64)));
    assert!(captured.is_sorted_by_key(|(ns, ..)| *ns));

    // More than anybody can write: what is missing is known to the packet.
    let flood = path("flood.pcapng");
    let output = live.ask(&["capture", "--duration", "2s", "-w", flood.to_str().unwrap()]);
    common::succeeds(&output);
    let [captured, chosen, lost] = totals(&output);
    println!("{} packets a second, {lost} of {chosen} lost", captured / 2);
    assert_eq!((captured + lost, frames(&flood).len() as u64), (chosen, captured));
    assert!(captured > 20_000, "{captured}");

    // Nobody reads: the appliance goes on, and everything is counted.
    let mut stuck = live.command(&["capture", "-w", "-", "--buffer", "64Ki"]);
    let mut stuck = stuck.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let nothing =
        live.ask(&["capture", "--duration", "500ms", "length=1", "-w", path("none.pcapng").to_str().unwrap()]);
    common::succeeds(&nothing);
    assert_eq!(totals(&nothing), [0, 0, 0]);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("that came by"), "packets came by meanwhile");
    stuck.kill().unwrap();
    stuck.wait().unwrap();

    let sized = path("sized.pcapng");
    let arguments = ["--rotate-size", "50k", "--keep", "3", "--count", "3000", "-w", sized.to_str().unwrap()];
    common::succeeds(&live.ask(&[&["capture"][..], &arguments].concat()));
    let names = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path());
    let rotated: Vec<_> = names.filter(|path| path.to_string_lossy().contains("sized_0")).collect();
    assert_eq!(rotated.len(), 3);
    assert!(rotated.iter().all(|path| !frames(path).is_empty()));

    live.text(&["trace", "add", "--first", "--count", "10", "--name", "ten"]);
    assert!(eventually(Duration::from_secs(5), || live.text(&["trace", "list"]).contains("complete")));
    let shown = live.text(&["trace", "show", "-o", "json"]);
    assert_eq!(shown.lines().count(), 10);
    for line in shown.lines() {
        let way: Value = serde_json::from_str(line).unwrap();
        let other = if way["in_port"] == "a" { "b" } else { "a" };
        assert_eq!((&way["out_port"], &way["verdict"]["action"]), (&other.into(), &"allow".into()));
    }
    live.text(&["trace", "remove", "ten"]);
    assert!(live.refused(&["trace", "show", "ten"]).contains("there is no trace `ten`"));
    assert!(live.refused(&["capture", "colour=red"]).contains("colour"));
    assert!(live.refused(&["capture", "--port", "c"]).contains("there are `a`, `b`"));
    assert!(live.refused(&["capture", "rule=nothing"]).contains("nothing"));
    drop(live.process);
}

#[test]
fn a_replay_traces_the_same_with_any_number_of_workers() {
    let folder = tempfile::tempdir().unwrap();
    let frame = |n: u16| {
        let ends = ("10.0.0.1", "10.0.1.1");
        common::frames::udp(ends, (1000 + n, 53 + n % 2), b"question")
    };
    let sent: Vec<_> = (0..60).map(frame).collect();
    let (capture, config) = (folder.path().join("in.pcap"), folder.path().join("deny.toml"));
    std::fs::write(&capture, common::captures::pcap(1, true, false, &sent)).unwrap();
    let rules =
        "[policy]\ndefault = \"allow\"\n[[rule]]\nid = \"no\"\nprotocol = \"udp\"\nports = 54\naction = \"deny\"\n";
    std::fs::write(&config, rules).unwrap();
    let run = |workers: &str| {
        let out = folder.path().join(workers);
        let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon"));
        command.arg("replay").arg(&capture).args(["-w", workers, "--trace", "drop=denied", "--trace-count", "10"]);
        let text = common::succeeds(&command.arg("-c").arg(&config).arg("-o").arg(&out).output().unwrap());
        let ways = text[text.find("frame 1").expect("the first denied frame")..].to_owned();
        (ways, std::fs::read_to_string(out.join("trace.jsonl")).unwrap())
    };
    let one = run("1");
    assert_eq!(one.0.matches("  drop    denied").count(), 10);
    assert_eq!(one.0.matches("deny by no (tier policy)").count(), 10);
    let frames: Vec<_> =
        one.1.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["frame"].as_u64().unwrap()).collect();
    assert_eq!(frames, (0..10).map(|n| 2 * n + 1).collect::<Vec<_>>());
    assert!(run("3") == one, "byte for byte");
}

/// Sends datagrams that the policy denies.
const DATAGRAMS: &str = r"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(int(sys.argv[2])):
    s.sendto(b'datagram %d' % n, (sys.argv[1], 9999))
";

const POLICY: &str = r#"
[policy]
default = "deny"
non_ip = "allow"
[[rule]]
id = "ping"
protocol = "icmp"
action = "allow"
[[rule]]
id = "no-games"
protocol = "udp"
ports = 9999
action = "deny"
[[mirror]]
name = "ids"
group = "any"
to = "m"
"#;

#[test]
fn captures_at_drop_show_exactly_what_was_denied() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(lab) = Lab::new("captures_at_drop", &[("python3", "python3"), ("tshark", "tshark")]) else { return };
    let socket = lab.path("control.sock");
    let control = format!("[control]\nsocket = {socket:?}\n{POLICY}");
    let running = lab.run(&lab.config(&worker_cpu(), 1, &control));
    let live = Live { process: Background::start(Command::new("true"), lab.path("true.log")), socket };
    let path = |name: &str| lab.path(name).to_str().unwrap().to_owned();
    let start = |arguments: &[&str], file: &str| {
        let started = Background::start(live.command(arguments), lab.path(&format!("{file}.log")));
        assert!(eventually(Duration::from_secs(10), || lab.path(file).exists()), "{}", started.printed());
        started
    };
    live.text(&["trace", "add", "icmp or dest_port=9999", "--name", "both"]);
    let dropped = path("drop.pcapng");
    let everything = path("all.pcapng");
    let mut at_drop = start(&["capture", "rule=no-games", "--at", "drop", "-w", &dropped], "drop.pcapng");
    let mut at_all = start(&["capture", "icmp", "--at", "rx,verdict,tx,drop", "-w", &everything], "all.pcapng");
    lab.client.succeeds(&["python3", "-c", DATAGRAMS, SERVER, "20"]);
    assert_eq!(lab.client.ping(&["-c", "3", "-i", "0.1", SERVER]), (3, 3));
    for capture in [&mut at_drop, &mut at_all] {
        capture.signal("INT");
        assert_eq!(capture.end(Duration::from_secs(10)).code(), Some(0), "{}", capture.printed());
    }
    println!("{}", at_drop.printed());
    assert!(at_drop.printed().contains("20 packets captured, 20 chosen"), "{}", at_drop.printed());

    let fields = |file: &str, names: &[&str]| {
        let mut command = Command::new("tshark");
        command.args(["-r", file, "-T", "fields"]);
        names.iter().for_each(|name| _ = command.args(["-e", name]));
        common::succeeds(&command.output().unwrap())
    };
    let lines = fields(&dropped, &["frame.interface_name", "udp.dstport", "data.text", "frame.comment"]);
    println!("{lines}");
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 20);
    for line in lines {
        assert!(line.starts_with("a:drop\t9999\t"), "{line}");
        assert!(line.contains("rule=no-games action=deny tier=policy generation=1 flow="), "{line}");
        assert!(line.contains("drop=denied"), "{line}");
    }
    let counted = |name: &str| {
        let output = fields(&everything, &["frame.interface_name"]);
        output.lines().filter(|line| *line == name).count()
    };
    // Three echo requests by a, three replies by b.
    for (name, expected) in [("a:rx", 3), ("b:rx", 3), ("a:verdict", 3), ("b:tx", 3), ("a:tx", 3), ("a:drop", 0)] {
        assert_eq!(counted(name), expected, "{name}");
    }
    let info = common::succeeds(&Command::new("capinfos").arg(&everything).output().unwrap());
    assert!(info.contains("Time resolution") && info.contains("nanoseconds"), "{info}");

    let shown = live.text(&["trace", "show", "both"]);
    assert_eq!(shown.matches("drop    denied").count(), 20);
    assert_eq!(shown.matches("  tx      b").count(), 3);
    let json = live.text(&["trace", "show", "both", "--last", "1", "-o", "json"]);
    let way: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&way["verdict"]["rule"], &way["mirrors"][0]["outcome"]), (&"ping".into(), &"copied".into()));

    // Lines of text for people.
    let arguments = ["capture", "icmp or dest_port=9999", "--at", "tx,drop", "--count", "3"];
    let text = Background::start(live.command(&arguments), lab.path("text.log"));
    let told = || {
        lab.client.succeeds(&["python3", "-c", DATAGRAMS, SERVER, "1"]);
        lab.client.ping(&["-c", "1", SERVER]) == (1, 1) && text.printed().contains("3 packets captured")
    };
    assert!(eventually(Duration::from_secs(15), told), "{}", text.printed());
    println!("$ gnomon {}\n{}", arguments.join(" "), text.printed());
    assert!(
        text.printed().contains("a:drop 43 bytes") || text.printed().contains("b:tx 98 bytes"),
        "{}",
        text.printed()
    );

    // A pipe, as for Wireshark; and a client that is killed leaves nothing behind.
    let piped =
        format!("{} capture icmp --count 2 -w - --socket {}", env!("CARGO_BIN_EXE_gnomon"), live.socket.display());
    let pipe = Background::start(shell(&format!("{piped} | tshark -r - -T fields -e icmp.type")), lab.path("pipe.log"));
    let pinged = || lab.client.ping(&["-c", "1", SERVER]) == (1, 1) && pipe.printed().contains("8\n0\n");
    assert!(eventually(Duration::from_secs(15), pinged), "{}", pipe.printed());
    let mut many: Vec<Background> = Vec::new();
    for n in 0..15 {
        many.push(start(&["capture", "-w", &path(&format!("many{n}.pcapng"))], &format!("many{n}.pcapng")));
    }
    assert!(live.refused(&["capture", "-w", &path("no.pcapng")]).contains("16 captures and traces run already"));
    drop(many);
    let again = || live.ask(&["capture", "--duration", "50ms", "-w", &path("again.pcapng")]).status.success();
    assert!(eventually(Duration::from_secs(5), again));
    running.stop();
}

fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    command
}
