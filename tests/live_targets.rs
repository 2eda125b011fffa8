//! Collectors of mirrors on a real link: found by ARP and neighbour discovery, followed, missed, checked.
//!
//! Needs root and, on Debian, the packages iproute2, iputils-ping, ethtool, tcpdump, python3, procps; a test whose tools are
//! missing says so and passes.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/namespaces.rs"]
mod namespaces;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gnomon::mirror::wrap::unwrap;
use namespaces::{Background, Host, Lab, Running, SERVER, count, eventually, worker_cpu};
use serde_json::Value;

const COLLECTOR: &str = "192.0.2.10";
const COLLECTOR6: &str = "fd02::10";
const OTHER: &str = "192.0.2.11";
const TOOLS: [(&str, &str); 2] = [("tcpdump", "tcpdump"), ("python3", "python3")];

const ALLOW: &str = "[policy]\ndefault = \"allow\"\n";

fn target(name: &str, rest: &str) -> String {
    format!(
        "[[target]]\nname = \"to-{name}\"\nport = \"m\"\n{rest}\n\
         [[mirror]]\nname = \"{name}\"\nto = \"to-{name}\"\ngroup = \"any\"\nprotocol = \"udp\"\n"
    )
}

fn control(lab: &Lab) -> String {
    format!("[control]\nsocket = \"{}\"\n", lab.path("control.sock").display())
}

/// What `gnomon mirror show` says of a session.
fn shown(lab: &Lab, session: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon"));
    command.args(["mirror", "show", session, "-o", "json", "--socket"]).arg(lab.path("control.sock"));
    serde_json::from_str(&common::succeeds(&command.output().expect("gnomon starts"))).expect("JSON")
}

fn state(lab: &Lab, session: &str, member: usize) -> String {
    shown(lab, session)["wrap"]["collectors"][member]["state"].as_str().unwrap_or("-").to_owned()
}

fn lost(lab: &Lab, session: &str, cause: &str) -> u64 {
    count(&shown(lab, session)["workers"][0]["lost"], &[cause])
}

/// Datagrams from these ports to the server, a few a second each, until it is dropped.
fn datagrams(lab: &Lab, ports: std::ops::Range<u16>) -> Background {
    let script = format!(
        "import socket, time\nports = []\nfor port in range({}, {}):\n    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
         s.bind(('', port))\n    ports.append(s)\nwhile True:\n    for s in ports:\n        s.sendto(b'x' * 64, ('{SERVER}', 7000))\n    \
         time.sleep(0.1)\n",
        ports.start, ports.end
    );
    lab.client.start(&["python3", "-c", &script], lab.path("datagrams.log"))
}

fn tcpdump(host: &Host, lab: &Lab, name: &str) -> Background {
    let (to, log) = (lab.path(&format!("{name}.pcap")), lab.path(&format!("{name}.log")));
    let mut command = vec!["tcpdump", "-i", "eth0", "-Q", "in", "-n", "-Z", "root", "-w", to.to_str().unwrap()];
    command.extend(["--immediate-mode", "-U", "udp or proto gre or ip6"]);
    let running = host.start(&command, log);
    running.wait_for("listening on eth0", Duration::from_secs(5));
    running
}

/// Copies captured within so much time: next hop, collector, and source port of the copied datagram.
fn copies(lab: &Lab, name: &str, time: Duration) -> Vec<([u8; 6], IpAddr, u16)> {
    let mut capturing = tcpdump(&lab.sensor, lab, name);
    std::thread::sleep(time);
    capturing.signal("INT");
    capturing.end(Duration::from_secs(5));
    read(&lab.path(&format!("{name}.pcap")))
}

fn read(path: &Path) -> Vec<([u8; 6], IpAddr, u16)> {
    let mut reader = gnomon::capture::CaptureReader::open(path).unwrap();
    let mut all = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        let Ok(copy) = unwrap(frame.data) else { continue };
        let port = u16::from_be_bytes([copy.frame[34], copy.frame[35]]);
        all.push((frame.data[..6].try_into().unwrap(), copy.to, port));
    }
    all
}

fn mac(text: &str) -> [u8; 6] {
    text.parse::<gnomon::packet::Mac>().unwrap().0
}

fn address(host: &Host, what: &str, address: &str) {
    let mut command = vec!["ip", "addr", what, address, "dev", "eth0"];
    if address.contains(':') && what == "add" {
        command.push("nodad");
    }
    host.succeeds(&command);
}

fn becomes(lab: &Lab, session: &str, member: usize, wanted: &str, within: u64) {
    let is = eventually(Duration::from_secs(within), || state(lab, session, member) == wanted);
    assert!(is, "{session} does not become {wanted}: {}", shown(lab, session));
}

#[test]
fn a_collector_is_found_and_followed() {
    let Some(lab) = Lab::new("a_collector_is_found_and_followed", &TOOLS) else { return };
    let (first, second) = ("02:00:00:00:aa:01", "02:00:00:00:aa:02");
    lab.sensor.succeeds(&["ip", "link", "set", "eth0", "address", first]);
    let found = "refresh = \"1s\"";
    let four = target("four", &format!("tunnel = \"geneve\"\nto = \"{COLLECTOR}\"\nfrom = \"192.0.2.1/24\"\n{found}"));
    let six = target("six", &format!("tunnel = \"vxlan\"\nto = \"{COLLECTOR6}\"\nfrom = \"fd02::1/64\"\n{found}"));
    let far = "tunnel = \"gre\"\nto = \"198.51.100.7\"\nfrom = \"192.0.2.1/24\"\ngateway = \"192.0.2.10\"\n";
    let far = target("far", &format!("{far}{found}"));
    let fixed =
        "tunnel = \"geneve\"\nto = \"192.0.2.99\"\nfrom = \"192.0.2.1\"\nto_mac = \"02:00:00:00:00:99\"\nmtu = 9000";
    let fixed = target("fixed", fixed);
    let gnomon = lab.run(&lab.config(&worker_cpu(), 1, &format!("{}{ALLOW}{four}{six}{far}{fixed}", control(&lab))));
    let traffic = datagrams(&lab, 20_000..20_004);

    let said = gnomon.process.printed();
    assert!(
        said.contains("mirror `fixed`: the target's `mtu` is 9000, port `m` takes IP packets of 1500 bytes"),
        "{said}"
    );
    // Nobody has the addresses yet.
    assert!(eventually(Duration::from_secs(10), || lost(&lab, "four", "no_neighbour") > 8));
    assert_eq!((state(&lab, "four", 0), state(&lab, "far", 0)), ("no_neighbour".into(), "no_neighbour".into()));
    let to = |copies: &[([u8; 6], IpAddr, u16)], address: &str, at: &str| {
        let address: IpAddr = address.parse().unwrap();
        copies.iter().filter(|(next_hop, to, _)| *to == address && *next_hop == mac(at)).count()
    };
    let nobody = copies(&lab, "nobody", Duration::from_secs(1));
    assert_eq!(to(&nobody, "192.0.2.99", "02:00:00:00:00:99"), nobody.len(), "only what needs no answer is sent");
    assert!(!nobody.is_empty());

    address(&lab.sensor, "add", &format!("{COLLECTOR}/24"));
    address(&lab.sensor, "add", &format!("{COLLECTOR6}/64"));
    for session in ["four", "six", "far"] {
        becomes(&lab, session, 0, "up", 20);
    }
    let there = copies(&lab, "there", Duration::from_secs(1));
    for (address, at) in [(COLLECTOR, first), (COLLECTOR6, first), ("198.51.100.7", first)] {
        assert!(to(&there, address, at) > 10, "{address}: {there:?}");
    }
    // The collector looks for who sends to it.
    lab.sensor.run(&["ping", "-c", "1", "-W", "1", "192.0.2.1"]);
    lab.sensor.run(&["ping", "-c", "1", "-W", "1", "fd02::1"]);
    let neighbours = lab.sensor.succeeds(&["ip", "neigh", "show"]);
    for own in ["192.0.2.1 dev eth0 lladdr 02:67:6e:6f:6d:00", "fd02::1 dev eth0 lladdr 02:67:6e:6f:6d:01"] {
        assert!(neighbours.contains(own), "{own} is not among\n{neighbours}");
    }

    // Another card, and nobody tells.
    lab.sensor.succeeds(&["ip", "link", "set", "eth0", "address", second]);
    let mac_of = |session: &str| shown(&lab, session)["wrap"]["collectors"][0]["mac"].clone();
    for session in ["four", "six", "far"] {
        // A refresh, two questions a second apart, and what a busy machine needs.
        let followed = eventually(Duration::from_secs(5), || mac_of(session) == second);
        assert!(followed, "{session}: {}", shown(&lab, session));
    }
    let moved = copies(&lab, "moved", Duration::from_secs(1));
    for address in [COLLECTOR, COLLECTOR6, "198.51.100.7"] {
        assert!(to(&moved, address, second) > 10 && to(&moved, address, first) == 0, "{address}: {moved:?}");
    }
    drop(traffic);
    adds_up(gnomon, &["four", "six", "far", "fixed"]);
}

/// Selected is sent or lost, by cause.
fn adds_up(gnomon: Running, sessions: &[&str]) -> Value {
    let summary = gnomon.stop();
    for session in sessions {
        let of = |key: &str| count(&summary, &["mirrored", session, key]);
        let causes = ["pool", "queue", "link", "oversize", "cap", "neighbour", "down"];
        let by_cause: u64 = causes.iter().map(|cause| of(&format!("lost_{cause}"))).sum();
        assert!(of("selected") > 0 && of("selected") == of("packets") + by_cause, "{session}: {summary}");
        assert_eq!(of("lost"), by_cause, "{session}: {summary}");
    }
    summary
}

#[test]
fn a_pool_does_without_a_collector_that_is_down_and_takes_it_back() {
    let Some(lab) = Lab::new("a_pool_does_without", &TOOLS) else { return };
    let often = "from = \"192.0.2.1/24\"\nrefresh = \"2s\"\nhealth_interval = \"100ms\"";
    let pool = format!("tunnel = \"geneve\"\nto = [\"{COLLECTOR}\", \"{OTHER}\"]\nhealth = \"icmp\"\n{often}");
    let service = format!("tunnel = \"geneve\"\nto = \"{COLLECTOR}\"\nhealth = \"tcp:9000\"\n{often}");
    let rest = format!("{}{ALLOW}{}{}", control(&lab), target("pool", &pool), target("service", &service));
    for collector in [COLLECTOR, OTHER] {
        address(&lab.sensor, "add", &format!("{collector}/24"));
    }
    let gnomon = lab.run(&lab.config(&worker_cpu(), 1, &rest));
    let traffic = datagrams(&lab, 20_000..20_040);
    becomes(&lab, "pool", 0, "up", 10);
    becomes(&lab, "pool", 1, "up", 10);

    // Nobody listens: connections are refused.
    becomes(&lab, "service", 0, "down", 10);
    assert!(eventually(Duration::from_secs(5), || lost(&lab, "service", "down") > 40));
    let listen = "import socket, time\ns = socket.socket()\ns.bind(('', 9000))\ns.listen(64)\ntime.sleep(60)\n";
    let listener = lab.sensor.start(&["python3", "-c", listen], lab.path("listener.log"));
    becomes(&lab, "service", 0, "up", 10);

    let of_pool = |name: &str| -> BTreeMap<u16, IpAddr> {
        let mut shares = BTreeMap::new();
        for (_, to, port) in copies(&lab, name, Duration::from_secs(1)) {
            // The other session's copies go to the first collector too: the flow's is then the second, if any.
            let slot = shares.entry(port).or_insert(to);
            *slot = (*slot).max(to);
        }
        assert_eq!(shares.len(), 40, "{shares:?}");
        shares
    };
    let (first, other): (IpAddr, IpAddr) = (COLLECTOR.parse().unwrap(), OTHER.parse().unwrap());
    let before = of_pool("before");
    let share = |of: &BTreeMap<u16, IpAddr>, who: IpAddr| of.values().filter(|to| **to == who).count();
    assert!(share(&before, first) >= 8 && share(&before, other) >= 8, "{before:?}");

    address(&lab.sensor, "del", &format!("{OTHER}/24"));
    let gone = eventually(Duration::from_secs(10), || state(&lab, "pool", 1) != "up");
    assert!(gone, "{}", shown(&lab, "pool"));
    let sent = shown(&lab, "pool")["workers"][0]["sent"].as_u64();
    let during = of_pool("during");
    assert!(during.values().all(|to| *to == first), "the rest takes its flows: {during:?}");
    assert!(shown(&lab, "pool")["workers"][0]["sent"].as_u64() > sent);
    assert_eq!(lost(&lab, "pool", "down") + lost(&lab, "pool", "no_neighbour"), 0, "only while none is up");

    // An outage is told from the second look on, once a second.
    let alerts = lab.path("out/alerts.jsonl");
    let told = |status: &str| {
        let text = std::fs::read_to_string(&alerts).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let mut alerts = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        alerts.any(|alert| {
            let gnomon = &alert["gnomon"];
            gnomon["kind"] == "collector_down" && gnomon["status"] == status && alert["actor"] == OTHER
        })
    };
    assert!(eventually(Duration::from_secs(10), || told("open")), "{}", gnomon.process.printed());

    address(&lab.sensor, "add", &format!("{OTHER}/24"));
    becomes(&lab, "pool", 1, "up", 40);
    assert_eq!(of_pool("after"), before, "everybody has what he had");
    assert!(eventually(Duration::from_secs(10), || told("closed")), "{}", gnomon.process.printed());
    drop((traffic, listener));
    let summary = adds_up(gnomon, &["pool", "service"]);
    assert!(count(&summary, &["alerts", "collector_down"]) >= 1, "{summary}");
}
