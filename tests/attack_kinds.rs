//! Kinds, actors and victims of alerts on captures of known attacks, and what is raised on ordinary traffic.
//!
//! Data: `$GNOMON_SHARED/captures/{attack,benign,app,bench}` and `truth/labels.csv`, which names what each capture shows.
//! All captures are replayed with the default thresholds.

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use common::{captures, frames};
use flate2::read::GzDecoder;

/// Captures that were made to stay at or just below a threshold of the program they come from, and say so.
const THRESHOLD_TESTS: [(&str, &str); 2] = [
    ("bro-simple-scan__port_scan.pcap", "ten ports of one host: the baseline below the threshold of simple-scan (15)"),
    ("pcaps__beacon.pcap", "five contacts: too few to call them regular"),
];

/// Labels that leave actor and victim to what was counted in the capture: read from the column `measured`.
const MEASURED: [(&str, &str, &str); 7] = [
    ("attacker__udp__flood.pcap", "172.16.2.1", "172.16.1.2"),
    ("bro-simple-scan__445_scan.pcap", "176.192.150.3", "many"),
    ("datasets-malicious-dns__dns2tcp.pcap", "192.168.1.17", "hsc.fr"),
    ("datasets-malicious-dns__dnscat2.pcap", "192.168.1.17", "biillpi.com"),
    ("ndpi__dns-tunnel-iodine.pcap", "10.0.2.30", "pirate.sea"),
    ("ndpi__icmp-tunnel.pcap", "192.168.154.131 192.168.154.132", "192.168.154.131 192.168.154.132"),
    ("pcaps__beacon.pcap", "192.168.58.20", "82.118.21.222"),
];

/// At most so many alerts of a kind in one capture.
const MOST_ALERTS: usize = 2;
/// One capture holds scans by three hosts, months apart: 633, 328 and 139 ports.
const MANY_ATTACKS: [&str; 1] = ["malcolm-test-artifacts__WinXP.pcap"];

/// What a label means in the words of alerts; `None` for attacks that no counting shows.
fn expected(label: &str) -> Option<&'static str> {
    const KINDS: [(&str, &str); 13] = [
        ("flood.udp", "udp_flood"),
        ("flood.synack_reflection", "amplification"),
        ("flood.dns_amplification", "amplification"),
        ("flood.syn.", "syn_flood"),
        ("port_scan.vertical", "port_scan"),
        ("port_scan.horizontal", "host_sweep"),
        ("host_sweep", "host_sweep"),
        ("brute_force", "brute_force"),
        ("dns_tunnel", "dns_tunnel"),
        ("icmp_tunnel", "icmp_tunnel"),
        ("arp_spoof", "arp_spoof"),
        ("beacon", "beacon"),
        ("slow_http", "slow_http"),
    ];
    KINDS.iter().find(|(prefix, _)| label.starts_with(prefix)).map(|(_, kind)| *kind)
}

#[derive(Debug, serde::Deserialize)]
struct Label {
    file: String,
    label: String,
    actor: String,
    victim: String,
}

#[derive(Debug)]
struct Found {
    kind: String,
    actor: String,
    victim: String,
    hosts: Vec<String>,
    domain: Option<String>,
    severity: u64,
    count: u64,
}

fn labels(shared: &Path) -> Vec<Label> {
    let mut reader = csv::Reader::from_path(shared.join("captures/truth/labels.csv")).expect("labels.csv");
    reader.deserialize().map(|row| row.expect("a row")).collect()
}

/// Replays all captures at once; what was found, by file name.
fn replay(captures: &[PathBuf]) -> BTreeMap<String, Vec<Found>> {
    let out = tempfile::tempdir().expect("a folder");
    let arguments = ["replay", "-q", "-o"].map(PathBuf::from);
    let all = arguments.into_iter().chain([out.path().to_owned()]).chain(captures.iter().cloned());
    common::succeeds(&common::gnomon(all.map(PathBuf::into_os_string)));
    let folder = |name: &str| if captures.len() > 1 { out.path().join(name) } else { out.path().to_owned() };
    let names = captures.iter().filter_map(|c| c.file_name()?.to_str());
    names.map(|name| (name.to_owned(), alerts(&folder(name).join("alerts.jsonl")))).collect()
}

/// The final account of every episode.
fn alerts(file: &Path) -> Vec<Found> {
    let text = |v: &serde_json::Value| v.as_str().expect("text").to_owned();
    let hosts = |v: &serde_json::Value| v.as_array().expect("a list").iter().map(text).collect();
    let lines = common::json_lines(file);
    let closed = lines.iter().filter(|line| line["gnomon"]["status"] == "closed");
    let found = |line: &serde_json::Value| Found {
        kind: text(&line["gnomon"]["kind"]),
        actor: text(&line["actor"]),
        victim: text(&line["victim"]),
        hosts: hosts(&line["evidence"]["hosts"]),
        domain: line["evidence"]["domain"].as_str().map(str::to_owned),
        severity: line["severity"].as_u64().expect("a number"),
        count: line["count"].as_u64().expect("a number"),
    };
    closed.map(found).collect()
}

/// Captures of one group, those packed with gzip unpacked into `scratch`.
fn group(shared: &Path, name: &str, scratch: &Path) -> Vec<PathBuf> {
    let folder = shared.join("captures").join(name);
    let entries = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut captures: Vec<PathBuf> = entries.map(|path| unpacked(path, scratch)).collect();
    captures.sort();
    captures
}

fn unpacked(path: PathBuf, scratch: &Path) -> PathBuf {
    if path.extension().is_none_or(|e| e != "gz") {
        return path;
    }
    let to = scratch.join(path.file_stem().expect("a name"));
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(&path).expect("opens")).read_to_end(&mut bytes).expect("unpacks");
    File::create(&to).and_then(|mut file| file.write_all(&bytes)).expect("written");
    to
}

/// Whether `said` by an alert is among the addresses that the label's text names. Text without one address means many.
fn agrees(said: &str, hosts: &[String], named: &str) -> bool {
    let is_address = |word: &&str| word.parse::<std::net::IpAddr>().is_ok();
    let split = |c: char| c == ' ' || c == ',' || c == '(' || c == ')';
    let addresses: Vec<&str> = named.split(split).map(|w| w.split_once(':').map_or(w, |(ip, _)| ip)).collect();
    let addresses: Vec<&str> = addresses.into_iter().filter(is_address).collect();
    if addresses.is_empty() {
        said == "many"
    } else {
        addresses.contains(&said) || hosts.iter().any(|h| addresses.contains(&h.as_str()))
    }
}

struct Row {
    counted: bool,
    right: bool,
}

/// One line of the table.
fn judge(label: &Label, name: &str, found: &[Found]) -> Row {
    let kind = expected(&label.label);
    let measured = MEASURED.iter().find(|(file, ..)| *file == name);
    let (actor, victim) = measured.map_or((&*label.actor, &*label.victim), |(_, actor, victim)| (actor, victim));
    let of_kind: Vec<&Found> = found.iter().filter(|f| Some(&*f.kind) == kind).collect();
    let actor_ok = of_kind.iter().any(|f| agrees(&f.actor, &[], actor));
    let domain_ok = |f: &Found| f.domain.as_deref() == Some(victim);
    let victim_ok = of_kind.iter().any(|f| agrees(&f.victim, &f.hosts, victim) || domain_ok(f));
    let below = THRESHOLD_TESTS.iter().find(|(file, _)| *file == name);
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    found.iter().for_each(|f| *kinds.entry(&f.kind).or_default() += 1);
    let right = !of_kind.is_empty() && (actor_ok || victim_ok);
    let verdict = match (kind, below, right) {
        (None, ..) => "-",
        (_, Some(_), _) => "below",
        (.., true) => "right",
        (.., false) => "WRONG",
    };
    let word = |ok: bool| {
        if of_kind.is_empty() {
            "-"
        } else if ok {
            "yes"
        } else {
            "no"
        }
    };
    println!(
        "{verdict:5} {:44.44} {:32.32} {:14} actor {:3} victim {:3} {kinds:?}",
        name,
        label.label,
        kind.unwrap_or("-"),
        word(actor_ok),
        word(victim_ok),
    );
    let many = kinds.iter().find(|(kind, count)| **kind != "outlier" && **count > MOST_ALERTS);
    assert!(many.is_none() || MANY_ATTACKS.contains(&name), "{name}: {kinds:?}: {found:#?}");
    Row { counted: kind.is_some() && below.is_none(), right }
}

#[test]
fn attacks_are_named() {
    let Some(shared) = common::shared("attacks_are_named") else { return };
    let scratch = tempfile::tempdir().expect("a folder");
    let found = replay(&group(&shared, "attack", scratch.path()));
    let labels = labels(&shared);
    let mut rows = Vec::new();
    for (name, found) in &found {
        let file = format!("attack/{name}");
        let label = labels.iter().find(|l| l.file == file).unwrap_or_else(|| panic!("no label of {file}"));
        rows.push(judge(label, name, found));
    }
    THRESHOLD_TESTS.iter().for_each(|(file, why)| println!("not counted: {file}: {why}"));
    let counted: Vec<&Row> = rows.iter().filter(|row| row.counted).collect();
    let right = counted.iter().filter(|row| row.right).count();
    println!("{right} of {} right, {} captures in all", counted.len(), rows.len());
    assert!(counted.len() >= 24, "only {} captures counted", counted.len());
    assert!(right * 100 >= counted.len() * 95, "{right} of {}", counted.len());
}

/// Replays a group of captures without attacks and prints every alert.
fn ordinary(name: &str) -> Vec<(String, Found)> {
    let Some(shared) = common::shared(name) else { return Vec::new() };
    let scratch = tempfile::tempdir().expect("a folder");
    let found = replay(&group(&shared, name, scratch.path()));
    let mut all = Vec::new();
    for (file, found) in found {
        let line = |f: &Found| format!("{} {} > {} x{} ({})", f.kind, f.actor, f.victim, f.count, f.severity);
        println!("{name:6} {file:44.44} {:?}", found.iter().map(line).collect::<Vec<_>>());
        all.extend(found.into_iter().map(|f| (file.clone(), f)));
    }
    all
}

#[test]
fn ordinary_traffic_is_quiet() {
    let benign = ordinary("benign");
    let false_alerts: Vec<_> = benign.iter().filter(|(_, f)| f.kind != "outlier").collect();
    assert!(false_alerts.is_empty(), "{false_alerts:#?}");
    // Conversations of one application each.
    let app = ordinary("app");
    let severe: Vec<_> = app.iter().filter(|(_, f)| f.kind != "outlier" && f.severity < 3).collect();
    assert!(severe.is_empty(), "{severe:#?}");
}

/// Attacks that the mixes are known to hold: those of `attack/`, put together, and a sweep of port 53 in `good.pcap`.
const MIXED: [(&str, &str); 5] = [
    ("port_scan", "10.200.1.45"),
    ("port_scan", "10.200.1.162"),
    ("port_scan", "10.200.1.231"),
    ("brute_force", "10.234.125.254"),
    ("host_sweep", "192.168.202.102"),
];

#[test]
fn mixtures_raise_what_they_hold() {
    let found = ordinary("bench");
    let known = |f: &Found| MIXED.contains(&(&*f.kind, &*f.actor)) || f.kind == "outlier";
    let others: Vec<_> = found.iter().filter(|(_, f)| !known(f)).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert!(
        found.is_empty()
            || MIXED.iter().all(|(kind, actor)| found.iter().any(|(_, f)| f.kind == *kind && f.actor == *actor))
    );
}

/// A query for a name.
fn question(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
    [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0].into_iter().chain(labels).chain([0, 0, 16, 0, 1]).collect()
}

/// What is in no flow record, in frames made here: long names, and ARP answers nobody asked for.
fn made() -> Vec<u8> {
    let ends = ("10.0.1.10", "10.0.2.20");
    let mut all = Vec::new();
    for i in 0..12u16 {
        let name = format!("{i:02}45a7c9e1f3b5d7f90213243546576879.tunnel.example");
        all.push(frames::udp(ends, (41_000 + i, 53), &question(&name)));
    }
    let mut forged = frames::arp("10.0.1.1", "10.0.1.10");
    forged[20..22].copy_from_slice(&2u16.to_be_bytes());
    all.extend(std::iter::repeat_n(forged, 3));
    captures::pcap(1, false, false, &all)
}

#[test]
fn what_is_in_no_record_reaches_the_detectors() {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("made.pcap");
    std::fs::write(&capture, made()).expect("written");
    let found = |name: &str, workers: &str, config: &str| {
        let (file, out) = (folder.path().join(format!("{name}.toml")), folder.path().join(name));
        std::fs::write(&file, config).expect("written");
        let arguments = ["replay", "-q", "--workers", workers, "-c"].map(PathBuf::from).into_iter();
        let all = arguments.chain([file, "-o".into(), out.clone(), capture.clone()]);
        common::succeeds(&common::gnomon(all.map(PathBuf::into_os_string)));
        let text = std::fs::read_to_string(out.join("alerts.jsonl")).expect("alerts.jsonl");
        (alerts(&out.join("alerts.jsonl")), text)
    };
    let (all, text) = found("all", "1", "");
    let kinds: Vec<&str> = all.iter().map(|f| &*f.kind).collect();
    assert_eq!(kinds, ["dns_tunnel", "arp_spoof"]);
    assert_eq!((&*all[0].actor, &*all[0].victim), ("10.0.1.10", "10.0.2.20"));
    assert_eq!((all[0].domain.as_deref(), all[0].count), (Some("tunnel.example"), 12));
    assert_eq!((&*all[1].victim, all[1].hosts.as_slice()), ("10.0.1.1", &["10.0.1.10".to_owned()][..]));
    assert_eq!(found("three", "3", "").1, text, "whatever the number of workers");
    let but = "[[group]]\nname = 'resolvers'\ncidrs = ['10.0.2.20/32']\n\
               [[detect]]\nto = 'resolvers'\nkinds = ['dns_tunnel']\nexclude = true\n\
               [[detect]]\nfrom = '10.0.1.0/24'\nkinds = ['arp_spoof']\nthreshold = 4\n";
    assert_eq!(found("but", "1", but).0.len(), 0);
}
