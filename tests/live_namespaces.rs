//! The appliance between real hosts: network namespaces joined by `gnomon run` on packet sockets.
//!
//! Needs root and, on Debian, the packages iproute2, iputils-ping, ethtool, iperf3, curl, python3, dnsmasq-base,
//! bind9-dnsutils, nmap, tcpdump, util-linux, procps; a test whose tools are missing says so and passes.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/namespaces.rs"]
mod namespaces;

use std::path::Path;
use std::time::{Duration, Instant};

use namespaces::{
    Background, CLIENT, CLIENT6, Host, Lab, Running, SERVER, SERVER6, count, eventually, ping_counts, worker_cpu,
};
use serde_json::Value;

const PING: &str = r#"
[policy]
default = "deny"
[[rule]]
id = "ping"
protocol = "icmp"
action = "allow"
[[rule]]
id = "ping6"
protocol = "icmpv6"
action = "allow"
"#;

const SERVICES: &str = r#"
[[rule]]
id = "services"
protocol = "tcp"
ports = [5201, 8080, 53]
action = "allow"
[[rule]]
id = "datagrams"
protocol = "udp"
ports = [5201, 53]
action = "allow"
"#;

const MEGABYTES: usize = 5 * 1024 * 1024;

/// Sends one datagram and prints the error number that comes back, or `none`.
const UDP_PROBE: &str = r"
import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.connect((sys.argv[1], int(sys.argv[2])))
try:
    s.send(b'anybody there?')
    s.recv(100)
    print('answer')
except socket.timeout:
    print('none')
except OSError as error:
    print(error.errno)
";

#[test]
fn tcp_and_ping_pass_both_ways_on_both_families() {
    let Some(lab) = Lab::new("tcp_and_ping", &[("iperf3", "iperf3")]) else { return };
    let gnomon = lab.run(&lab.config(&worker_cpu(), 1, &format!("{PING}{SERVICES}")));
    let ends = [(&lab.client, SERVER), (&lab.client, SERVER6), (&lab.server, CLIENT), (&lab.server, CLIENT6)];
    let mut pings: Vec<_> = ends.map(|(host, to)| (to, host.ping(&["-c", "10", "-i", "0.02", to]))).into();
    // Larger than a frame: fragments must find their flow.
    pings.push(("fragments", lab.client.ping(&["-c", "10", "-i", "0.02", "-s", "4000", SERVER6])));
    for (address, back) in [(SERVER, false), (SERVER, true), (SERVER6, false), (SERVER6, true)] {
        let rate = iperf3(&lab, address, &["-t", "1"], back)["end"]["sum_received"]["bits_per_second"].clone();
        let rate = rate.as_f64().expect("a rate") / 1e6;
        println!("iperf3 {address} {}: {rate:.0} Mbit/s", if back { "back" } else { "there" });
        assert!(rate > 10.0, "{rate} Mbit/s to {address}");
    }
    let summary = gnomon.stop();
    // A busy kernel may lose a packet on the way to or from the appliance; the appliance itself drops none.
    let lost: u64 = pings.iter().map(|(_, (sent, received))| sent - received).sum();
    assert!(pings.iter().all(|(_, (sent, _))| *sent == 10) && lost <= 1, "{pings:?} {summary}");
    assert!(summary["drops"]["transmit_full"].is_null(), "{summary}");
    assert!(
        count(&summary, &["rules", "ping", "packets"]) >= 40 && count(&summary, &["rules", "ping6", "packets"]) >= 40
    );
    assert!(count(&summary, &["rules", "services", "bytes"]) > 4_000_000, "{summary}");
    assert_eq!(count(&summary, &["drops", "denied"]), 0, "{summary}");
}

#[test]
fn downloads_and_names_arrive_unharmed() {
    let tools = [("curl", "curl"), ("python3", "python3"), ("dnsmasq", "dnsmasq-base"), ("dig", "bind9-dnsutils")];
    let Some(lab) = Lab::new("downloads_and_names", &tools) else { return };
    let gnomon = lab.run(&lab.config(&worker_cpu(), 1, &format!("{PING}{SERVICES}")));
    let (_web, content) = web_server(&lab);
    for address in [SERVER, SERVER6] {
        assert!(download(&lab, address, None) == content, "what came from {address} differs from what was sent");
    }
    let listen = format!("--listen-address={SERVER},{SERVER6}");
    let names = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--address=/gnomon.test/192.0.2.7",
        "--address=/gnomon.test/2001:db8::7",
        "--user=root",
        "--pid-file=",
        "--log-facility=-",
        &listen,
    ];
    let _names = lab.server.start(&names, lab.path("dnsmasq.log"));
    for (address, kind, answer, transport) in [
        (SERVER, "A", "192.0.2.7", "+notcp"),
        (SERVER6, "AAAA", "2001:db8::7", "+notcp"),
        (SERVER, "AAAA", "2001:db8::7", "+tcp"),
    ] {
        let server = format!("@{address}");
        let said =
            lab.client.succeeds(&["dig", &server, "gnomon.test", kind, "+short", "+tries=5", "+time=1", transport]);
        assert_eq!(said.trim(), answer, "{kind} from {address}");
    }
    let summary = gnomon.stop();
    assert!(count(&summary, &["rules", "services", "bytes"]) > 2 * MEGABYTES as u64, "{summary}");
    assert!(count(&summary, &["rules", "datagrams", "packets"]) >= 4, "{summary}");
}

#[test]
fn denied_rejected_and_mirrored() {
    let tools = [("curl", "curl"), ("python3", "python3"), ("tcpdump", "tcpdump")];
    let Some(lab) = Lab::new("denied_rejected_and_mirrored", &tools) else { return };
    let rest = format!(
        "{PING}{SERVICES}{}",
        r#"
[[rule]]
id = "silent"
protocol = "tcp"
ports = 9000
action = "deny"
[[rule]]
id = "told-tcp"
protocol = "tcp"
ports = 9100
action = "reject"
[[rule]]
id = "told-udp"
protocol = "udp"
ports = 9100
action = "reject"
[[mirror]]
name = "refused"
to = "m"
group = "any"
verdicts = ["deny", "reject"]
[[mirror]]
name = "web"
to = "m"
group = "any"
protocol = "tcp"
ports = 8080
direction = "both"
"#
    );
    let gnomon = lab.run(&lab.config(&worker_cpu(), 1, &rest));
    let (_web, content) = web_server(&lab);
    let capture = lab.path("mirror.pcap");
    let mut sensor = tcpdump(&lab.sensor, &capture, lab.path("tcpdump.log"));

    assert!(download(&lab, SERVER, None) == content, "mirroring must not harm what is forwarded");
    for address in [SERVER, SERVER6] {
        let (code, took) = connect(&lab.client, address, 9000);
        assert_eq!(code, 28, "silence, so that curl gives up by itself: {address}");
        assert!(took > Duration::from_millis(1500), "{took:?}");
        let (code, took) = connect(&lab.client, address, 9100);
        assert_eq!(code, 7, "refused: {address}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    // "Administratively prohibited" is EHOSTUNREACH on IPv4 and EACCES on IPv6.
    for (address, number) in [(SERVER, "113"), (SERVER6, "13")] {
        assert_eq!(lab.client.succeeds(&["python3", "-c", UDP_PROBE, address, "9100"]).trim(), number, "{address}");
    }

    let summary = gnomon.stop();
    let rule = |id: &str| count(&summary, &["rules", id, "packets"]);
    assert!(rule("silent") >= 2, "{summary}");
    assert_eq!((rule("told-tcp"), rule("told-udp")), (2, 2), "{summary}");
    assert_eq!(count(&summary, &["drops", "denied"]), rule("silent"), "{summary}");
    assert_eq!(count(&summary, &["drops", "rejected"]), 4, "{summary}");
    assert_eq!(count(&summary, &["generated"]), 4, "{summary}");

    let copies = |name: &str| count(&summary, &["mirrored", name, "packets"]);
    assert_eq!(copies("refused"), rule("silent") + 4, "refused packets are copied too");
    assert!(copies("web") > 3000, "{summary}");
    for name in ["refused", "web"] {
        assert_eq!(
            count(&summary, &["mirrored", name, "selected"]),
            copies(name) + count(&summary, &["mirrored", name, "lost"])
        );
    }
    let written = || std::fs::metadata(&capture).map(|file| file.len()).unwrap_or(0);
    let (mut before, mut quiet) = (written(), 0);
    eventually(Duration::from_secs(10), || {
        quiet = if written() == before { quiet + 1 } else { 0 };
        before = written();
        quiet == 20
    });
    sensor.signal("INT");
    sensor.end(Duration::from_secs(5));
    assert!(sensor.printed().contains("\n0 packets dropped by kernel"), "{}", sensor.printed());
    // Between device and tcpdump lies a kernel queue that a busy machine can overrun: a few of thousands.
    let web = captured(&lab.sensor, &capture, "port 8080");
    assert!(web <= copies("web") && (copies("web") - web) * 500 <= copies("web"), "{web} arrived, {summary}");
    assert_eq!(captured(&lab.sensor, &capture, "not port 8080"), copies("refused"));
    assert_eq!(captured(&lab.sensor, &capture, "tcp dst port 9000"), rule("silent"));
    assert_eq!(captured(&lab.sensor, &capture, "dst port 9100"), 4);
}

#[test]
fn a_port_scan_is_noticed_while_it_happens() {
    let Some(lab) = Lab::new("a_port_scan", &[("nmap", "nmap")]) else { return };
    let rest = format!("{PING}{SERVICES}[flow.timeouts]\ntcp_opening = \"1s\"\ntcp_closed = \"1s\"\n");
    let gnomon = lab.run(&lab.config(&worker_cpu(), 1, &rest));
    let scan = ["nmap", "-Pn", "-n", "-sS", "-T4", "--max-retries", "0", "-p", "1-200", SERVER];
    lab.client.succeeds(&scan);
    let file = gnomon.out.join("alerts.jsonl");
    let mut alerts = Vec::new();
    let found = eventually(Duration::from_secs(10), || {
        alerts = complete_lines(&file);
        alerts.iter().any(|alert| alert["gnomon"]["kind"] == "port_scan")
    });
    assert!(found, "no alert while running; {}", gnomon.process.printed());
    let alert = alerts.iter().find(|alert| alert["gnomon"]["kind"] == "port_scan").unwrap();
    assert_eq!(alert["gnomon"]["actor"], CLIENT, "{alert}");
    assert_eq!(alert["gnomon"]["victim"], SERVER, "{alert}");
    let summary = gnomon.stop();
    assert_eq!(count(&summary, &["alerts", "port_scan"]), 1, "one episode: {summary}");
    assert!(count(&summary, &["drops", "denied"]) >= 190, "{summary}");
    let refused = common::json_lines(&lab.path("out/flows.jsonl"));
    let refused = refused.iter().filter(|flow| flow["gnomon"]["action"] == "deny").count();
    assert!(refused >= 190, "refused packets make flow records too, here {refused}");
}

#[test]
fn reloads_lose_no_packet() {
    let tools = [("iperf3", "iperf3"), ("curl", "curl")];
    let Some(lab) = Lab::new("reloads_lose_no_packet", &tools) else { return };
    let rules = |number: u32, action: &str| {
        let rest = "protocol = \"tcp\"\nports = 8081";
        format!("{PING}{SERVICES}[[rule]]\nid = \"changing-{number}\"\n{rest}\naction = \"{action}\"\n")
    };
    let gnomon = lab.run(&lab.config(&worker_cpu(), 1, &rules(0, "deny")));
    assert_eq!(connect(&lab.client, SERVER, 8081).0, 28, "denied to begin with");

    let ping = lab.client.start(&["ping", "-n", "-q", "-i", "0.01", "-w", "5", SERVER], lab.path("ping.log"));
    let server = iperf3_server(&lab);
    let stream = ["iperf3", "-J", "-c", SERVER, "-u", "-b", "2M", "-l", "500", "-t", "4"];
    let mut stream = lab.client.start(&stream, lab.path("stream.json"));
    for number in 1..=20 {
        let action = if number % 2 == 0 { "allow" } else { "deny" };
        lab.config(&worker_cpu(), 1, &rules(number, action));
        let said = gnomon.reload();
        assert!(said.contains(&format!("generation {} is in force", number + 1)), "{said}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(stream.end(Duration::from_secs(10)).success(), "{}", stream.printed());
    drop(server);
    let stream: Value = serde_json::from_str(&stream.printed()).expect("iperf3 prints JSON");
    assert!(count(&stream, &["end", "sum", "packets"]) > 1500, "{stream}");
    assert_eq!(count(&stream, &["end", "sum", "lost_packets"]), 0, "{}", stream["end"]["sum"]);
    let (sent, received) = ping_end(ping);
    assert!(sent > 100, "{sent} pings");
    // The last one may be under way when ping ends.
    assert!(sent - received <= 1, "{sent} sent, {received} answered");

    // The last set lets the connection through to a host where nobody listens.
    assert_eq!(connect(&lab.client, SERVER, 8081).0, 7, "{}", gnomon.process.printed());

    refuses_bad_configurations(&lab, &gnomon, &rules(0, "deny"));
    let summary = gnomon.stop();
    assert_eq!(count(&summary, &["generation"]), 21);
    assert!(count(&summary, &["rules", "changing-20", "packets"]) >= 1, "{summary}");
    assert_eq!(
        count(&summary, &["drops", "denied"]),
        count(&summary, &["rules", "changing-0", "packets"]),
        "{summary}"
    );
}

/// What is wrong with a configuration is said, and the old one stays.
fn refuses_bad_configurations(lab: &Lab, gnomon: &Running, rules: &str) {
    lab.config(&worker_cpu(), 1, &rules.replace("action = \"deny\"", "action = \"dney\""));
    let said = gnomon.reload();
    assert!(said.contains("not reloaded, generation 21 stays"), "{said}");
    assert!(said.contains("gnomon.toml:") && said.contains("dney") && said.contains("deny"), "{said}");
    lab.config("[0, 0, 0]", 3, rules);
    let said = gnomon.reload();
    assert!(said.contains("not reloaded") && said.contains("[cores]") && said.contains("restart"), "{said}");
    assert_eq!(connect(&lab.client, SERVER, 8081).0, 7, "the old rules still hold");
}

#[test]
fn two_workers_share_a_port() {
    let tools = [("curl", "curl"), ("python3", "python3")];
    let Some(lab) = Lab::new("two_workers_share_a_port", &tools) else { return };
    let last = worker_cpu();
    let workers = format!("[0, {}]", last.trim_matches(['[', ']']));
    let gnomon = lab.run(&lab.config(&workers, 2, &format!("{PING}{SERVICES}")));
    let (_web, content) = web_server(&lab);
    let sources: Vec<String> = (20..26).map(|n| format!("10.77.0.{n}")).collect();
    for source in &sources {
        lab.client.succeeds(&["ip", "addr", "add", &format!("{source}/24"), "dev", "eth0"]);
        assert!(download(&lab, SERVER, Some(source)) == content, "from {source}");
    }
    assert!(download(&lab, SERVER6, None) == content);
    assert_eq!(lab.client.ping(&["-c", "20", "-i", "0.02", SERVER]), (20, 20));
    assert_eq!(lab.client.ping(&["-c", "3", "-i", "0.1", "-s", "4000", SERVER6]), (3, 3), "fragments meet their flow");
    let summary = gnomon.stop();
    assert_eq!(count(&summary, &["workers"]), 2);
    let flows = common::json_lines(&lab.path("out/flows.jsonl"));
    for source in sources.iter().map(String::as_str).chain([CLIENT6]) {
        let of: Vec<&Value> = flows.iter().filter(|f| f["src_ip"] == source && f["dest_port"] == 8080).collect();
        // A connection with very many retransmissions is told in slices.
        let ended = of.iter().filter(|flow| flow["flow"]["reason"] != "active").count();
        assert!(
            ended == 1 && of.iter().all(|flow| flow["flow_id"] == of[0]["flow_id"]),
            "one flow of {source}: {of:?}"
        );
        let sum = |field: &str| of.iter().map(|flow| count(flow, &["flow", field])).sum::<u64>();
        assert!(sum("pkts_toserver") > 10 && sum("pkts_toclient") > 3000, "{of:?}");
        assert!(sum("bytes_toclient") > MEGABYTES as u64, "{of:?}");
    }
    assert!(
        flows.iter().all(|flow| flow["dest_ip"] != CLIENT || flow["proto"] != "TCP"),
        "no reply is a flow of its own"
    );
}

#[test]
fn starts_again_after_being_killed() {
    let Some(lab) = Lab::new("starts_again_after_being_killed", &[]) else { return };
    let config = lab.config(&worker_cpu(), 1, PING);
    let mut first = lab.run(&config);
    assert_eq!(lab.client.ping(&["-c", "3", "-i", "0.1", SERVER]), (3, 3));
    first.process.signal("KILL");
    assert_eq!(first.process.end(Duration::from_secs(5)).code(), None, "ended by the signal");
    assert_eq!(lab.client.ping(&["-c", "2", "-i", "0.1", SERVER]).1, 0, "nobody forwards");
    let second = lab.run(&config);
    assert_eq!(lab.client.ping(&["-c", "3", "-i", "0.1", SERVER]), (3, 3));
    second.stop();
    // And after an orderly end.
    let third = lab.run(&config);
    assert_eq!(lab.client.ping(&["-c", "3", "-i", "0.1", SERVER6]), (3, 3));
    third.stop();
}

#[test]
fn a_link_that_is_down_is_told_and_counted() {
    let Some(lab) = Lab::new("a_link_that_is_down", &[]) else { return };
    lab.server.succeeds(&["ip", "link", "set", "eth0", "down"]);
    let gnomon = lab.run(&lab.config(&worker_cpu(), 1, PING));
    assert!(gnomon.process.printed().contains("port `b`: link down"), "{}", gnomon.process.printed());
    lab.client.succeeds(&["ip", "neigh", "replace", SERVER, "lladdr", "02:00:00:00:00:02", "dev", "eth0"]);
    assert_eq!(lab.client.ping(&["-c", "5", "-i", "0.1", SERVER]), (5, 0));
    lab.server.succeeds(&["ip", "link", "set", "eth0", "up"]);
    lab.client.succeeds(&["ip", "neigh", "del", SERVER, "dev", "eth0"]);
    gnomon.process.wait_for("port `b`: link up", Duration::from_secs(5));
    assert_eq!(lab.client.ping(&["-c", "3", "-i", "0.1", SERVER]), (3, 3));
    let summary = gnomon.stop();
    assert!(count(&summary, &["drops", "link_down"]) >= 5, "{summary}");
}

#[test]
fn what_keeps_it_from_starting_is_explained() {
    let Some(lab) = Lab::new("what_keeps_it_from_starting", &[("setpriv", "util-linux")]) else { return };
    let gnomon = env!("CARGO_BIN_EXE_gnomon");
    let fails = |command: &[&str], config: &Path, expected: &[&str]| {
        let mut all = command.to_vec();
        all.extend([gnomon, "run", "-c", config.to_str().unwrap()]);
        let output = std::process::Command::new("timeout").arg("20").args(&all).output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(expected.iter().all(|word| said.contains(word)), "{expected:?} not all in: {said}");
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    let good = lab.config(&worker_cpu(), 1, PING);
    fails(&["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"], &good, &["port `a`", "root or CAP_NET_RAW"]);
    let text = std::fs::read_to_string(&good).unwrap();
    std::fs::write(&good, text.replace(&lab.server.port, "nosuchif0")).unwrap();
    fails(&[], &good, &["port `b`", "nosuchif0", "no such network interface", "ip link"]);
    fails(&[], &lab.config("[0, 0]", 1, PING), &["port `a`", "2 transmit queues", "qpairs=2"]);
    fails(&[], &lab.config("[1000]", 1, PING), &["CPU 1000", "does not exist", "CPUs of this machine"]);
}

fn iperf3_server(lab: &Lab) -> Background {
    let server = lab.server.start(&["iperf3", "-s", "-1", "--forceflush"], lab.path("iperf3.log"));
    server.wait_for("Server listening", Duration::from_secs(5));
    server
}

/// The client's report of one run; `back` lets the server send.
fn iperf3(lab: &Lab, address: &str, options: &[&str], back: bool) -> Value {
    let _server = iperf3_server(lab);
    let mut command = vec!["iperf3", "-J", "-c", address];
    command.extend(options);
    if back {
        command.push("-R");
    }
    serde_json::from_str(&lab.client.succeeds(&command)).expect("iperf3 prints JSON")
}

/// A web server for one file, and what is in the file.
fn web_server(lab: &Lab) -> (Background, Vec<u8>) {
    let folder = lab.path("www");
    std::fs::create_dir(&folder).unwrap();
    // Numbers that do not repeat, so that a missing or doubled piece cannot go unnoticed.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut content = Vec::with_capacity(MEGABYTES);
    while content.len() < MEGABYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend(state.to_le_bytes());
    }
    std::fs::write(folder.join("file"), &content).unwrap();
    let folder = folder.to_str().unwrap();
    let command = ["python3", "-u", "-m", "http.server", "8080", "--bind", "::", "--directory", folder];
    let server = lab.server.start(&command, lab.path("web.log"));
    server.wait_for("Serving HTTP", Duration::from_secs(10));
    (server, content)
}

fn download(lab: &Lab, address: &str, source: Option<&str>) -> Vec<u8> {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let (url, target) = (format!("http://{host}:8080/file"), lab.path("downloaded"));
    let mut command = vec!["curl", "-sS", "-m", "20", "-o", target.to_str().unwrap(), &url];
    if let Some(source) = source {
        command.extend(["--interface", source]);
    }
    lab.client.succeeds(&command);
    std::fs::read(&target).unwrap()
}

/// curl's exit code (7 refused, 28 no answer within two seconds) and how long it took.
fn connect(host: &Host, address: &str, port: u16) -> (i32, Duration) {
    let at = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let start = Instant::now();
    let output = host.run(&["curl", "-sS", "--connect-timeout", "2", &format!("http://{at}:{port}/")]);
    (output.status.code().expect("curl ends by itself"), start.elapsed())
}

fn tcpdump(host: &Host, capture: &Path, log: std::path::PathBuf) -> Background {
    let to = capture.to_str().unwrap();
    // In immediate mode nothing waits in a kernel block for the block to be full or a second to pass.
    let now = ["--immediate-mode", "-U", "-B", "16384"];
    let mut command = vec!["tcpdump", "-i", "eth0", "-Q", "in", "-n", "-s", "128", "-Z", "root", "-w", to];
    command.extend(now);
    let running = host.start(&command, log);
    running.wait_for("listening on eth0", Duration::from_secs(5));
    running
}

/// Packets of a capture that a tcpdump filter matches.
fn captured(host: &Host, capture: &Path, filter: &str) -> u64 {
    let mut command = vec!["tcpdump", "-n", "-t", "-r", capture.to_str().unwrap()];
    command.extend(filter.split_whitespace());
    host.succeeds(&command).lines().filter(|line| line.starts_with("IP")).count() as u64
}

fn ping_end(mut ping: Background) -> (u64, u64) {
    ping.end(Duration::from_secs(10));
    ping_counts(&ping.printed())
}

/// Lines of a file that is being written; the last may be half there.
fn complete_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_inclusive('\n').filter(|l| l.ends_with('\n')).map(|l| serde_json::from_str(l).expect("JSON")).collect()
}
