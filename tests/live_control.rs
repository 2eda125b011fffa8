//! A running appliance answers over its control socket: status, flows, top; permissions, many clients, clients that die.
//!
//! The traffic is a capture that DPDK's pcap device plays once, so neither root nor a network is needed.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use common::frames;
use serde_json::Value;

/// UDP flows; every tenth goes to port 53, which is denied, the others to a port of 1000.
const FLOWS: usize = 100_000;

/// Poll-mode workers take whole CPUs: one appliance at a time.
static TURN: Mutex<()> = Mutex::new(());

struct Running {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
    folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

fn config(folder: &Path) -> PathBuf {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let shown = folder.display();
    let prefix = format!("gnctl{}", std::process::id());
    let text = format!(
        r#"
[cores]
main = 0
workers = [{}]
scorer = "any"
[eal]
memory = "128MiB"
mbufs = 8191
file_prefix = "{prefix}"
[[port]]
name = "a"
device = "net_pcap0,rx_pcap={shown}/traffic.pcap"
[[port]]
name = "b"
device = "net_pcap1,rx_pcap={shown}/nothing.pcap"
[[port]]
name = "span"
device = "net_null2"
[[pair]]
ports = ["a", "b"]
[[target]]
name = "sensor"
port = "span"
tunnel = "geneve"
to = "192.0.2.200"
from = "192.0.2.201"
to_mac = "02:00:00:00:00:09"
mtu = 300
oversize = "drop"
[[mirror]]
name = "denied"
to = "sensor"
group = "any"
rules = ["no-names"]
[[mirror]]
name = "tenth"
to = "span"
group = "any"
on = ["a", "b"]
sample = "1/10"
[policy]
default = "allow"
[[group]]
name = "clients"
cidrs = ["10.0.0.0/9"]
[[group]]
name = "servers"
cidrs = ["192.0.2.0/24"]
[[rule]]
id = "no-names"
protocol = "udp"
ports = 53
action = "deny"
[[rule]]
id = "services"
from = "clients"
to = "servers"
action = "allow"
[scorer]
enabled = false
ring = 262144
[export]
directory = "{shown}/out"
[control]
socket = "{shown}/control.sock"
"#,
        cpus - 1
    );
    let path = folder.join("gnomon.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn traffic() -> Vec<Vec<u8>> {
    let flow = |n: usize| {
        let source = format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
        let port = if n.is_multiple_of(10) { 53 } else { 1000 };
        frames::udp((&source, "192.0.2.1"), (5000, port), &vec![0; n % 100])
    };
    (0..FLOWS).map(flow).collect()
}

/// A classic capture of Ethernet frames, a microsecond apart.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let words = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for (n, frame) in frames.iter().enumerate() {
        let (n, len) = (n as u32, frame.len() as u32);
        bytes.extend(words(&[1_736_931_600 + n / 1_000_000, n % 1_000_000, len, len]));
        bytes.extend_from_slice(frame);
    }
    bytes
}

impl Running {
    fn start() -> Self {
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("traffic.pcap"), pcap(&traffic())).unwrap();
        std::fs::write(folder.path().join("nothing.pcap"), pcap(&[])).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon"));
        command.args(["run", "--interval", "0", "--seconds", "120", "-c"]).arg(config(folder.path()));
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut text = String::new();
        while !text.contains("generation 1;") {
            assert!(said.read_line(&mut text).unwrap() > 0, "{text}");
        }
        assert!(text.contains(&format!("control socket {}/control.sock", folder.path().display())), "{text}");
        let running = Self { process, said, folder, _turn: turn };
        let begun = Instant::now();
        while running.json(&["status", "-o", "json"])["flows"] != FLOWS {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", running.json(&["status", "-o", "json"]));
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon"));
        command.args(arguments).arg("--socket").arg(self.folder.path().join("control.sock"));
        command
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn text(&self, arguments: &[&str]) -> String {
        common::succeeds(&self.ask(arguments))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(arguments)).unwrap()
    }

    fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        self.text(arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Ends it in order and checks its account.
    fn stop(mut self) -> Value {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
        assert!(self.process.wait().unwrap().success());
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        assert!(!self.folder.path().join("control.sock").exists(), "the socket is removed");
        let text = std::fs::read_to_string(self.folder.path().join("out/summary.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing happens to one that has ended and was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ids(lines: &[Value]) -> BTreeSet<u64> {
    lines.iter().map(|line| line["flow_id"].as_u64().unwrap()).collect()
}

#[test]
fn a_hundred_thousand_flows_are_listed_filtered_and_sorted() {
    let gnomon = Running::start();
    let all = gnomon.lines(&["flows", "-o", "json"]);
    assert_eq!((all.len(), ids(&all).len()), (FLOWS, FLOWS), "every flow once");
    let expected = |wanted: &dyn Fn(usize) -> bool| (0..FLOWS).filter(|n| wanted(*n)).count();
    for (filter, wanted) in [
        ("rule=no-names", expected(&|n| n % 10 == 0)),
        ("action=deny dest_port=53", expected(&|n| n % 10 == 0)),
        ("src_group=clients rule!=no-names", expected(&|n| n % 10 != 0)),
        ("bytes>100 src_ip=10.1.0.0/16", expected(&|n| n % 100 + 42 > 100 && n >> 16 == 1)),
        ("tcp", 0),
        ("worker=0 idle>0 not score", FLOWS),
    ] {
        assert_eq!(gnomon.lines(&["flows", "-o", "json", filter]).len(), wanted, "{filter}");
    }
    let sorted = gnomon.lines(&["flows", "-o", "json", "--sort", "src_ip:desc", "--limit", "3", "dest_port=53"]);
    let sources: Vec<&str> = sorted.iter().map(|line| line["src_ip"].as_str().unwrap()).collect();
    assert_eq!(sources, ["10.1.134.150", "10.1.134.140", "10.1.134.130"]);
    let table = gnomon.text(&["flows", "--sort", "bytes", "--limit", "5"]);
    assert!(table.ends_with(&format!("5 of {FLOWS} that match, of {FLOWS} flows\n")), "{table}");
    assert!(table.contains("192.0.2.1:1000") && table.contains("services") && table.contains("clients"), "{table}");
    let csv = gnomon.text(&["flows", "-o", "csv", "src_ip=10.0.0.7"]);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(reader.records().count(), 1);
    let summary = gnomon.stop();
    assert_eq!(summary["flows"], FLOWS);
    common::adds_up(&summary, "the run");
}

#[test]
fn mirror_sessions_and_their_ledger() {
    let gnomon = Running::start();
    let sessions = gnomon.lines(&["mirror", "ledger", "-o", "json"]);
    let names: Vec<&str> = sessions.iter().map(|session| session["session"].as_str().unwrap()).collect();
    assert_eq!(names, ["denied", "tenth"]);
    for session in &sessions {
        let account = &session["workers"][0];
        let lost: u64 = account["lost"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        let [selected, sent, waiting] = ["selected", "sent", "waiting"].map(|key| account[key].as_u64().unwrap());
        assert_eq!((selected, sent + lost, waiting), (FLOWS as u64 / 10, selected, 0), "{session}");
        assert_eq!((&account["next_sequence"], &session["up"]), (&account["selected"], &Value::Bool(true)));
    }
    assert_eq!((&sessions[0]["wrap"]["tunnel"], &sessions[0]["wrap"]["id"]), (&"geneve".into(), &1.into()));
    let list = gnomon.text(&["mirror", "list"]);
    for part in ["geneve 1 to 192.0.2.200", "rule no-names", "1/10, on a, b", "span"] {
        assert!(list.contains(part), "{part} is not in\n{list}");
    }
    let shown = gnomon.text(&["mirror", "show", "tenth"]);
    assert!(shown.contains("worker 0") && shown.contains("10 000") && !shown.contains("denied"), "{shown}");
    let wrong = gnomon.ask(&["mirror", "show", "tenths"]);
    let text = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && text.contains("no mirror session `tenths`; known: denied, tenth"), "{text}");
    let summary = gnomon.stop();
    assert_eq!(summary["mirrored"]["denied"]["selected"], FLOWS / 10);
}

#[test]
fn errors_are_those_of_the_user_and_teach() {
    let gnomon = Running::start();
    for (arguments, code, wanted) in [
        (&["flows", "dst_prot=53"][..], 2, "did you mean: dst_port"),
        (&["flows", "rule=no-name"], 1, "did you mean: no-names"),
        (&["flows", "--sort", "byte"], 2, "cannot sort by `byte`"),
        (&["flows", "group=nobody"], 1, "there is no group `nobody`"),
    ] {
        let output = gnomon.ask(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(wanted), "{arguments:?}: {text}");
    }
    let second = Command::new(env!("CARGO_BIN_EXE_gnomon"))
        .args(["run", "-c"])
        .arg(gnomon.folder.path().join("gnomon.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && text.contains("another gnomon listens on"), "{text}");
    assert!(gnomon.text(&["status"]).contains("port a"), "the first one goes on");
    if nix::unistd::geteuid().is_root() {
        // The folder may be entered, the socket is not for others.
        let path = gnomon.folder.path();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let program = path.join("gnomon-copy");
        std::fs::copy(env!("CARGO_BIN_EXE_gnomon"), &program).unwrap();
        let output = Command::new(&program)
            .args(["status", "--socket"])
            .arg(path.join("control.sock"))
            .uid(65_534)
            .gid(65_534)
            .current_dir("/")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("not allowed to use") && text.contains("you are not in group `root`"), "{text}");
    } else {
        println!("skipped the part about other users: needs root");
    }
    gnomon.stop();
    let gone = common::gnomon(["status", "--socket", "/no/such/place.sock"]);
    let text = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(text.contains("is `gnomon run` running?"), "{text}");
}

#[test]
fn clients_that_do_not_read_or_die_disturb_nobody() {
    let gnomon = Running::start();
    // Their pipes fill up, and they stop reading.
    let mut stuck: Vec<Child> =
        (0..3).map(|_| gnomon.command(&["flows", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap()).collect();
    std::thread::sleep(Duration::from_millis(300));
    let both = std::thread::scope(|scope| {
        let other = scope.spawn(|| gnomon.lines(&["flows", "-o", "json", "dest_port=1000"]).len());
        let own = gnomon.lines(&["flows", "-o", "json", "dest_port=53"]).len();
        (own, other.join().unwrap())
    });
    assert_eq!(both, (FLOWS / 10, FLOWS / 10 * 9));
    for client in &mut stuck {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    for _ in 0..20 {
        let mut client = gnomon.command(&["flows", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
        client.kill().unwrap();
        client.wait().unwrap();
    }
    // More than a worker takes at a time were begun: all seats are free again.
    assert_eq!(gnomon.lines(&["flows", "-o", "json"]).len(), FLOWS);
    let page = gnomon.text(&["top", "--once", "--interval", "0.2", "--size", "120x40"]);
    for wanted in ["100 000 of 262 144", "no-names", "services", "denied", "90 000", "10 000"] {
        assert!(page.contains(wanted), "{wanted}:\n{page}");
    }
    let stats = gnomon.json(&["top", "--once", "--interval", "0.1", "-o", "json"]);
    assert_eq!(stats["summary"]["rx"], FLOWS);
    let summary = gnomon.stop();
    assert_eq!(summary["records_lost"], 0, "{summary}");
}

#[test]
fn flows_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("some.pcap");
    std::fs::write(&capture, pcap(&traffic()[..300])).unwrap();
    let out = folder.path().join("out");
    common::succeeds(&common::gnomon(["replay".as_ref(), capture.as_os_str(), "-o".as_ref(), out.as_os_str()]));
    let file = out.join("flows.jsonl");
    let listed = |expression: &str, file: &Path| {
        let output = common::gnomon([
            "flows".as_ref(),
            "-r".as_ref(),
            file.as_os_str(),
            "-o".as_ref(),
            "json".as_ref(),
            expression.as_ref(),
        ]);
        common::succeeds(&output).lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(listed("dest_port=53", &file).len(), 30);
    assert_eq!(ids(&listed("", &file)).len(), 300);
    let zipped = folder.path().join("flows.jsonl.gz");
    let mut encoder =
        flate2::write::GzEncoder::new(std::fs::File::create(&zipped).unwrap(), flate2::Compression::fast());
    std::io::copy(&mut std::fs::File::open(&file).unwrap(), &mut encoder).unwrap();
    encoder.finish().unwrap();
    assert_eq!(listed("dest_port=53", &zipped).len(), 30);
    std::fs::write(&zipped, "{\"event_type\":\"flow\"}\nnonsense\n").unwrap();
    let output = common::gnomon(["flows".as_ref(), "-r".as_ref(), zipped.as_os_str()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("line 2"), "{text}");
}
