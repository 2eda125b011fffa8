//! What a running appliance says of itself: metrics, statistics events, numbers of records, sockets.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::captures;
use gnomon::metrics::{CATALOGUE, Kind};
use serde_json::Value;

/// A capture in at one port, everything forwarded to a file, one denied, one mirrored.
fn config(folder: &Path, ipfix: u16) -> PathBuf {
    let (capture, path) = (folder.join("in.pcap"), |name: &str| folder.join(name).display().to_string());
    std::fs::write(&capture, captures::pcap(1, true, false, &captures::conversation())).expect("written");
    let text = format!(
        r#"
[cores]
scorer = "any"
[eal]
memory = "128MiB"
mbufs = 8192
file_prefix = "gnomon-observation-{pid}"
[[port]]
name = "wan"
device = "net_pcap0,rx_pcap={rx},tx_pcap={tx0}"
[[port]]
name = "lan"
device = "net_pcap1,rx_pcap={rx},tx_pcap={tx1}"
[[port]]
name = "tap"
device = "net_null0,no-rx=1"
[[pair]]
ports = ["wan", "lan"]
[policy]
default = "allow"
[[rule]]
id = "no-mail"
protocol = "tcp"
ports = 25
action = "deny"
[[mirror]]
name = "copies"
to = "tap"
group = "any"
sample = "1/2"
[[target]]
name = "far"
port = "tap"
tunnel = "vxlan"
to = "192.0.2.10"
from = "192.0.2.1"
[[mirror]]
name = "nothing"
to = "far"
group = "any"
protocol = "sctp"
[flow]
capacity = 16
[flow.timeouts]
tcp_opening = "4s"
tcp_closed = "4s"
udp = "4s"
icmp = "4s"
[store]
path = "{store}"
[export]
directory = "{out}"
stats_interval = "1s"
[[export.socket]]
path = "{socket}"
[[ipfix]]
collector = "127.0.0.1:{ipfix}"
transport = "udp"
[metrics]
listen = "127.0.0.1:0"
pressure_fill = "25%"
"#,
        pid = std::process::id(),
        rx = capture.display(),
        tx0 = path("tx0.pcap"),
        tx1 = path("tx1.pcap"),
        store = path("gnomon.db"),
        out = path("out"),
        socket = path("eve.sock"),
    );
    let file = folder.join("gnomon.toml");
    std::fs::write(&file, text).expect("written");
    file
}

struct Running {
    child: Child,
    metrics: String,
}

impl Running {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gnomon"))
            .args(["run", "--interval", "0", "-c"])
            .arg(config)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (tell, told) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("metrics at http://") {
                    let _ = tell.send(address.trim_end_matches("/metrics").to_owned());
                }
            }
        });
        let metrics = told.recv_timeout(Duration::from_secs(60)).expect("it says where metrics are");
        Self { child, metrics }
    }

    fn page(&self) -> String {
        let mut stream = TcpStream::connect(&self.metrics).expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gnomon\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
        body.to_owned()
    }

    fn stop(mut self) {
        // SAFETY: a process of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) }, 0);
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "waiting for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Series → value, with the checks of the text format that need no tool.
fn parse(page: &str) -> BTreeMap<String, f64> {
    let (mut values, mut family, mut families) = (BTreeMap::new(), None, BTreeSet::new());
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let name = help.split(' ').next().expect("a name").to_owned();
            assert!(families.insert(name.clone()), "{name} stands twice");
            family = Some(name);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert_eq!(kind.split(' ').next(), family.as_deref(), "TYPE follows HELP");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("series and value");
            let name = series.split('{').next().expect("a name");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let of = family.as_deref().expect("a family");
            assert!(name == of || base == of, "{line} stands below {of}");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(values.insert(series.to_owned(), value).is_none(), "{series} stands twice");
        }
    }
    values
}

fn sum(values: &BTreeMap<String, f64>, name: &str) -> f64 {
    let of = |series: &&String| series.split('{').next() == Some(name);
    values.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum()
}

/// What `promtool` thinks of the page, where it is installed.
fn check_with_promtool(page: &str) {
    let tool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut tool) = tool else {
        println!("skipped promtool: not installed (Debian package prometheus)");
        return;
    };
    tool.stdin.take().expect("piped").write_all(page.as_bytes()).expect("written");
    let said = tool.wait_with_output().expect("it ends");
    assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn metrics_events_and_numbers_agree() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let collector = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let config = config(folder.path(), collector.local_addr().expect("bound").port());
    let listener = UnixListener::bind(folder.path().join("eve.sock")).expect("bound");
    let reader = std::thread::spawn(move || {
        let stream = BufReader::new(listener.accept().expect("gnomon connects").0);
        let lines = stream.lines().map(|line| serde_json::from_str(&line.expect("text")).expect("JSON"));
        lines.collect::<Vec<Value>>()
    });
    let gnomon = Running::start(&config);
    let flows = folder.path().join("out/flows.jsonl");
    let lines = || std::fs::read_to_string(&flows).map_or(0, |text| text.lines().count());
    eventually("records of all flows", || (lines() >= 8).then_some(()));
    let page = eventually("the alert", || {
        let page = gnomon.page();
        page.contains("gnomon_alerts_total{kind=\"table_pressure\"} 1").then_some(page)
    });
    check_with_promtool(&page);
    let values = parse(&page);
    for metric in CATALOGUE {
        let name = if metric.kind == Kind::Histogram { format!("{}_bucket", metric.name) } else { metric.name.into() };
        let series = values.keys().filter(|series| series.split('{').next() == Some(&name)).count();
        assert!(series > 0, "{name} is not on the page");
    }
    // Two ports played the same capture of 26 packets.
    assert_eq!(sum(&values, "gnomon_received_packets_total"), 52.0);
    let fates = ["gnomon_forwarded_packets_total", "gnomon_consumed_packets_total", "gnomon_dropped_packets_total"];
    assert_eq!(fates.iter().map(|name| sum(&values, name)).sum::<f64>(), 52.0);
    assert_eq!(values["gnomon_dropped_packets_total{reason=\"denied\"}"], 4.0);
    assert_eq!(values["gnomon_rule_packets_total{rule=\"no-mail\"}"], 4.0);
    assert_eq!(values["gnomon_latency_seconds_count{worker=\"0\"}"], sum(&values, "gnomon_forwarded_packets_total"));
    assert_eq!(values["gnomon_batch_packets_sum{worker=\"0\"}"], 52.0);
    assert_eq!(values["gnomon_mirror_selected_packets_total{session=\"copies\"}"], 26.0);
    assert_eq!(values["gnomon_mirror_collectors{target=\"far\",state=\"no_neighbour\"}"], 1.0);
    let free: Vec<f64> = ["packets", "clones", "fronts"]
        .map(|pool| values[&format!("gnomon_pool_free_buffers{{pool=\"{pool}\"}}")])
        .into();
    assert!(free.iter().all(|free| *free > 0.0), "{free:?}");
    assert_eq!(values["gnomon_flow_table_capacity_flows{worker=\"0\"}"], 16.0);
    gnomon.stop();
    check_events(folder.path(), &reader.join().expect("the reader ends"));
}

/// Files and socket have the same events, and the numbers tell that nothing is missing.
fn check_events(folder: &Path, socket: &[Value]) {
    let file = |name: &str| common::json_lines(&folder.join("out").join(name));
    let (flows, alerts, stats) = (file("flows.jsonl"), file("alerts.jsonl"), file("stats.jsonl"));
    let of = |kind: &str| socket.iter().filter(|event| event["event_type"] == kind).cloned().collect::<Vec<_>>();
    assert_eq!((of("flow"), of("alert"), of("stats")), (flows.clone(), alerts.clone(), stats.clone()));
    let numbers: Vec<_> = flows.iter().map(|flow| flow["gnomon"]["seq"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, (0..flows.len() as u64).collect::<Vec<_>>());
    let mirrored = flows.iter().find(|flow| flow["gnomon"]["mirror"][0] == "copies").expect("a mirrored flow");
    assert_eq!(mirrored["gnomon"]["mirror_rates"], serde_json::json!([0.5]));
    let last = stats.last().expect("statistics");
    assert!(stats.iter().rev().skip(1).all(|event| event["gnomon"]["last"] == false) && last["gnomon"]["last"] == true);
    assert_eq!(last["gnomon"]["next_seq"], flows.len());
    assert_eq!(
        (&last["stats"]["decoder"]["pkts"], &last["stats"]["capture"]["kernel_packets"]),
        (&52.into(), &52.into())
    );
    assert_eq!(last["gnomon"]["summary"]["latency_us"]["count"], last["gnomon"]["summary"]["tx"]);
    // All lines but the one that says so.
    let outputs = last["gnomon"]["outputs"].as_object().expect("outputs");
    let socket_path = folder.join("eve.sock").display().to_string();
    let lines = [("flows.jsonl", flows.len()), ("alerts.jsonl", alerts.len()), ("stats.jsonl", stats.len() - 1)];
    for (name, lines) in lines.into_iter().chain([(&*socket_path, socket.len() - 1)]) {
        assert_eq!((&outputs[name]["lines"], &outputs[name]["lost"]), (&lines.into(), &0.into()), "{name}");
    }
    let pressure: Vec<_> = alerts.iter().filter(|alert| alert["gnomon"]["kind"] == "table_pressure").collect();
    assert!(!pressure.is_empty(), "{alerts:?}");
    assert!(pressure.iter().all(|alert| alert["gnomon"]["episode"] == pressure[0]["gnomon"]["episode"]));
    let end = pressure[pressure.len() - 1];
    assert_eq!((&end["gnomon"]["status"], &end["evidence"]["capacity"]), (&"closed".into(), &16.into()));
    let summary: Value =
        serde_json::from_slice(&std::fs::read(folder.join("out/summary.json")).expect("a summary")).expect("JSON");
    assert_eq!(summary["alerts"]["table_pressure"], 1);
    assert!(summary["latency_us"]["p50"].as_f64() <= summary["latency_us"]["max"].as_f64());
    assert_eq!(summary["rx"], last["gnomon"]["summary"]["rx"]);
}

#[test]
fn the_documentation_lists_every_metric() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(&path).expect("docs/metrics.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `gnomon_")).collect();
    let expected: Vec<String> = CATALOGUE
        .iter()
        .map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} | {} |", metric.name, metric.kind.name(), labels.join(", "), metric.help)
        })
        .collect();
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row, expected);
    }
    assert_eq!(rows.len(), expected.len());
}
