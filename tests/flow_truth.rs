//! Flow records of real captures against flows counted independently (tshark's dissection).
//!
//! The truth counts per frame: every later fragment as a flow with ports 0, no time-outs. gnomon gives later
//! fragments their first fragment's ports and cuts flows into slices. So: slices of a five-tuple are added up,
//! and where the truth has port-less TCP, UDP or SCTP between two addresses, all flows of that protocol between
//! them are added up on both sides and compared as one. ICMP flows carry no ports in the truth.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

/// Canonical five-tuple: the lower endpoint first.
type Key = ((IpAddr, u16), (IpAddr, u16), u8);
/// Packets and bytes from the first endpoint, and from the second.
type Counts = [u64; 4];
type Flows = BTreeMap<Key, Counts>;

#[derive(Debug, Default)]
struct Tally {
    flows: u64,
    exact: u64,
}

const GROUPS: [&str; 4] = ["app", "attack", "benign", "bench"];
/// Share of flows that must be exact.
const REQUIRED: f64 = 0.995;

#[test]
fn flow_records_equal_an_independent_count() {
    let Some(shared) = common::shared("flow_records_equal_an_independent_count") else { return };
    let captures = shared.join("captures");
    let files = comparable_files(&captures);
    assert!(files.len() > 100, "the catalogue lists {} comparable files", files.len());
    let out = tempfile::tempdir().expect("temporary folder");
    let mut arguments = vec!["replay".into(), "-q".into(), "-o".into(), out.path().into()];
    arguments.extend(files.iter().map(|file| captures.join(file).into_os_string()));
    common::succeeds(&common::gnomon(&arguments));

    let mut groups: BTreeMap<&str, Tally> = BTreeMap::new();
    for file in &files {
        let name = Path::new(file).file_name().expect("a file").to_str().expect("text");
        let truth = read_truth(&captures.join("truth/flows").join(format!("{name}.csv.gz")));
        let ours = read_records(&out.path().join(name).join("flows.jsonl"));
        let tally = compare(file, truth, ours);
        let group = groups.entry(file.split('/').next().unwrap_or_default()).or_default();
        group.flows += tally.flows;
        group.exact += tally.exact;
    }
    let mut all = Tally::default();
    for (group, tally) in &groups {
        println!("{group:>8}: {} of {} flows exact ({:.3} %)", tally.exact, tally.flows, tally.share() * 100.0);
        all.flows += tally.flows;
        all.exact += tally.exact;
    }
    println!("     all: {} of {} flows exact ({:.3} %)", all.exact, all.flows, all.share() * 100.0);
    assert!(all.share() >= REQUIRED, "{:.4} < {REQUIRED}", all.share());
}

impl Tally {
    fn share(&self) -> f64 {
        self.exact as f64 / self.flows.max(1) as f64
    }
}

/// Files whose two independent counters agree.
fn comparable_files(captures: &Path) -> Vec<String> {
    let mut catalog = csv::Reader::from_path(captures.join("catalog.csv")).expect("catalogue");
    let headers = catalog.headers().expect("header").clone();
    let column = |name: &str| headers.iter().position(|h| h == name).expect("column");
    let (file, group, agree) = (column("file"), column("group"), column("flows_two_counters_agree"));
    let rows = catalog.records().map(|row| row.expect("row"));
    rows.filter(|row| GROUPS.contains(&&row[group]) && &row[agree] == "yes").map(|row| row[file].to_owned()).collect()
}

fn read_truth(path: &Path) -> Flows {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    let mut flows = Flows::new();
    for row in csv::Reader::from_reader(text.as_bytes()).records() {
        let row = row.expect("row");
        let ip = |i: usize| row[i].parse::<IpAddr>().expect("address");
        let number = |i: usize| row[i].parse::<u64>().expect("number");
        let (src, dst) = ((ip(0), number(1) as u16), (ip(2), number(3) as u16));
        add(&mut flows, src, dst, number(4) as u8, [number(5), number(6), number(7), number(8)]);
    }
    flows
}

fn read_records(path: &Path) -> Flows {
    let mut flows = Flows::new();
    for record in common::json_lines(path) {
        let ip = |field: &str| record[field].as_str().and_then(|s| s.parse::<IpAddr>().ok()).expect("address");
        let port = |field: &str| record[field].as_u64().unwrap_or(0) as u16;
        let flow = |field: &str| record["flow"][field].as_u64().expect("counter");
        let counts = [flow("pkts_toserver"), flow("bytes_toserver"), flow("pkts_toclient"), flow("bytes_toclient")];
        let (src, dst) = ((ip("src_ip"), port("src_port")), (ip("dest_ip"), port("dest_port")));
        add(&mut flows, src, dst, protocol(&record["proto"]), counts);
    }
    flows
}

fn protocol(value: &Value) -> u8 {
    match value.as_str().unwrap_or_default() {
        "ICMP" => 1,
        "IGMP" => 2,
        "TCP" => 6,
        "UDP" => 17,
        "GRE" => 47,
        "ESP" => 50,
        "IPv6-ICMP" => 58,
        "SCTP" => 132,
        number => number.parse().unwrap_or_else(|_| panic!("protocol {value}")),
    }
}

fn add(flows: &mut Flows, src: (IpAddr, u16), dst: (IpAddr, u16), protocol: u8, c: Counts) {
    let (key, counts) =
        if src <= dst { ((src, dst, protocol), c) } else { ((dst, src, protocol), [c[2], c[3], c[0], c[1]]) };
    let sums = flows.entry(key).or_default();
    sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
}

fn compare(file: &str, truth: Flows, ours: Flows) -> Tally {
    let portless: BTreeSet<(IpAddr, IpAddr, u8)> = truth
        .keys()
        .filter(|(a, b, protocol)| a.1 == 0 && b.1 == 0 && matches!(protocol, 6 | 17 | 132))
        .map(|(a, b, protocol)| (a.0, b.0, *protocol))
        .collect();
    let (truth, mut ours) = (fold(truth, &portless), fold(ours, &portless));
    let mut tally = Tally { flows: truth.len() as u64, exact: 0 };
    let mut wrong = Vec::new();
    for (key, expected) in &truth {
        match ours.remove(key) {
            Some(found) if found == *expected => tally.exact += 1,
            found => wrong.push(format!("  {key:?}: expected {expected:?}, found {found:?}")),
        }
    }
    // Flows that the truth does not have are as wrong as missing ones.
    tally.flows += ours.len() as u64;
    wrong.extend(ours.iter().map(|(key, found)| format!("  {key:?}: not in the truth, found {found:?}")));
    if !wrong.is_empty() {
        println!("{file}: {} of {} flows differ", wrong.len(), tally.flows);
        wrong.iter().take(5).for_each(|line| println!("{line}"));
    }
    tally
}

/// Adds up all flows between address pairs that have port-less fragments in the truth.
fn fold(flows: Flows, portless: &BTreeSet<(IpAddr, IpAddr, u8)>) -> Flows {
    let mut folded = Flows::new();
    for ((a, b, protocol), counts) in flows {
        let fragmented = portless.contains(&(a.0, b.0, protocol));
        let (a, b) = if fragmented { ((a.0, 0), (b.0, 0)) } else { (a, b) };
        add(&mut folded, a, b, protocol, counts);
    }
    folded
}
