//! Handshake time and retransmissions of flow records against tshark's analysis of the same captures.
//!
//! tshark numbers connections (`tcp.stream`), gnomon makes a flow of each and may cut it into slices; both are compared
//! by five-tuple: handshake times as the set of those of its connections, retransmissions added up by direction.
//! Left out are captures whose time stamps go back by more than a second (tshark lets time go back, a flow table cannot)
//! and connections that a spliced capture plays twice from their SYN on (new flows here, all retransmissions there).
//! What a time-out cuts, and handshake times that tshark knows but has no frame to show on, count as differences.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lower endpoint first.
type Key = ((IpAddr, u16), (IpAddr, u16));

#[derive(Debug, Default, Clone, PartialEq)]
struct Connection {
    /// Microseconds, sorted.
    handshakes: Vec<u64>,
    /// By sender: lower endpoint, higher endpoint.
    retransmissions: [u64; 2],
}

#[derive(Debug, Default)]
struct Tally {
    flows: usize,
    handshakes: usize,
    retransmissions: usize,
    /// Sums of both sides.
    sent_again: [u64; 2],
}

const GROUPS: [&str; 4] = ["app", "attack", "benign", "bench"];
const REQUIRED: f64 = 0.98;
const FIELDS: [&str; 14] = [
    "frame.time_epoch",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.stream",
    "tcp.analysis.initial_rtt",
    "tcp.analysis.retransmission",
    "tcp.analysis.fast_retransmission",
    "tcp.analysis.spurious_retransmission",
    "tcp.flags",
    "tcp.seq_raw",
];

#[test]
fn handshake_times_and_retransmissions_are_those_of_tshark() {
    let name = "handshake_times_and_retransmissions_are_those_of_tshark";
    let Some(shared) = common::shared(name) else { return };
    if !Command::new("tshark").arg("--version").output().is_ok_and(|out| out.status.success()) {
        return println!("skipped {name}: no tshark");
    }
    let out = tempfile::tempdir().expect("temporary folder");
    let files = captures(&shared.join("captures"), out.path());
    let mut arguments = vec!["replay".into(), "-q".into(), "-o".into(), out.path().join("ours").into()];
    arguments.extend(files.iter().map(|(_, file)| file.clone().into_os_string()));
    common::succeeds(&common::gnomon(&arguments));

    let mut groups: BTreeMap<String, Tally> = BTreeMap::new();
    for (group, file) in &files {
        let Some(theirs) = analysis(file) else {
            println!("{}: left out, its time stamps go back", file.display());
            continue;
        };
        let records = out.path().join("ours").join(file.file_name().expect("a file")).join("flows.jsonl");
        let ours = records_of(&records);
        let tally = groups.entry(group.clone()).or_default();
        compare(&file.display().to_string(), &theirs, &ours, tally);
    }
    let mut all = Tally::default();
    for (group, tally) in &groups {
        println!("{}", tally.line(group));
        all.flows += tally.flows;
        all.handshakes += tally.handshakes;
        all.retransmissions += tally.retransmissions;
        (0..2).for_each(|side| all.sent_again[side] += tally.sent_again[side]);
    }
    println!("{}", all.line("all"));
    assert!(all.flows > 5_000, "{all:?}");
    for tally in groups.values().chain([&all]) {
        assert!(
            tally.share(tally.handshakes) >= REQUIRED && tally.share(tally.retransmissions) >= REQUIRED,
            "{tally:?}"
        );
    }
}

impl Tally {
    fn share(&self, agreeing: usize) -> f64 {
        agreeing as f64 / self.flows.max(1) as f64
    }

    fn line(&self, group: &str) -> String {
        let percent = |agreeing| self.share(agreeing) * 100.0;
        format!(
            "{group:>7}: {} TCP flows; handshake times agree in {:.3} %, retransmissions in {:.3} % ({} of ours, {} of tshark's)",
            self.flows,
            percent(self.handshakes),
            percent(self.retransmissions),
            self.sent_again[0],
            self.sent_again[1],
        )
    }
}

/// Group and file; compressed captures are unpacked.
fn captures(folder: &Path, scratch: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for group in GROUPS {
        let mut files: Vec<_> =
            std::fs::read_dir(folder.join(group)).expect("a group").map(|e| e.expect("a file").path()).collect();
        files.sort();
        for file in files {
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            let file = match name.strip_suffix(".gz") {
                Some(plain) => {
                    let packed = std::fs::File::open(&file).expect("a capture");
                    let unpacked = scratch.join(plain);
                    let mut to = std::fs::File::create(&unpacked).expect("room");
                    std::io::copy(&mut flate2::read::GzDecoder::new(packed), &mut to).expect("gzip");
                    unpacked
                }
                None if name.contains(".pcap") || name.contains(".cap") => file,
                None => continue,
            };
            found.push((group.to_owned(), file));
        }
    }
    found
}

/// By five-tuple; `None` when time goes back by more than a second.
fn analysis(file: &Path) -> Option<BTreeMap<Key, Connection>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-Y", "tcp && !icmp && !icmpv6", "-T", "fields"]);
    command.args(["-E", "separator=|", "-E", "occurrence=f"]);
    FIELDS.iter().for_each(|field| _ = command.args(["-e", field]));
    let output = command.output().expect("tshark runs");
    let (mut flows, mut latest) = (BTreeMap::<Key, Connection>::new(), 0.0f64);
    let mut streams: BTreeMap<(Key, u64), u64> = BTreeMap::new();
    // Sequence numbers of the SYNs of a stream, and whether a FIN was seen.
    let mut opened: BTreeMap<(u64, bool), (u64, bool)> = BTreeMap::new();
    let mut twice = BTreeSet::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let field: Vec<&str> = line.split('|').collect();
        let time: f64 = field[0].parse().expect("a time");
        if time < latest - 1.0 {
            return None;
        }
        latest = latest.max(time);
        let ip =
            |four: usize, six: usize| [field[four], field[six]].iter().find_map(|text| text.parse::<IpAddr>().ok());
        let (Some(src), Some(dst)) = (ip(1, 3), ip(2, 4)) else { continue };
        let port = |at: usize| field[at].parse::<u16>().unwrap_or(0);
        let (from, to) = ((src, port(5)), (dst, port(6)));
        let key = (from.min(to), from.max(to));
        let flow = flows.entry(key).or_default();
        let flags = u32::from_str_radix(field[12].trim_start_matches("0x"), 16).expect("flags");
        let side = (field[7].parse().expect("a number"), from > to);
        let (syn, finished) = opened.entry(side).or_default();
        if flags & 0x02 != 0 {
            let seq = field[13].parse().expect("a number");
            if *finished && *syn == seq {
                twice.insert(key);
            }
            *syn = seq;
        }
        *finished |= flags & 0x01 != 0;
        if field[9..12].iter().any(|text| !text.is_empty()) {
            flow.retransmissions[usize::from(from > to)] += 1;
        }
        if let Ok(rtt) = field[8].parse::<f64>() {
            streams.insert((key, field[7].parse().expect("a number")), (rtt * 1e6).round() as u64);
        }
    }
    for ((key, _), rtt) in streams {
        flows.entry(key).or_default().handshakes.push(rtt);
    }
    flows.values_mut().for_each(|flow| flow.handshakes.sort_unstable());
    if !twice.is_empty() {
        println!("{}: {} connections played twice are left out", file.display(), twice.len());
        flows.retain(|key, _| !twice.contains(key));
    }
    Some(flows)
}

fn records_of(path: &Path) -> BTreeMap<Key, Connection> {
    let mut flows = BTreeMap::<Key, Connection>::new();
    let mut timed = BTreeMap::new();
    for record in common::json_lines(path).iter().filter(|record| record["proto"] == "TCP") {
        let end = |ip: &str, port: &str| {
            let ip: IpAddr = record[ip].as_str().and_then(|text| text.parse().ok()).expect("an address");
            (ip, record[port].as_u64().unwrap_or(0) as u16)
        };
        let (src, dst) = (end("src_ip", "src_port"), end("dest_ip", "dest_port"));
        let key = (src.min(dst), src.max(dst));
        let flow = flows.entry(key).or_default();
        let number = |name: &str| record["tcp"][name].as_u64().unwrap_or(0);
        let sent = [number("retransmissions_ts"), number("retransmissions_tc")];
        let turned = usize::from(src > dst);
        (0..2).for_each(|side| flow.retransmissions[side ^ turned] += sent[side]);
        if let Some(rtt) = record["tcp"]["rtt"].as_f64() {
            timed.insert((key, record["flow_id"].to_string()), rtt.round() as u64);
        }
    }
    for ((key, _), rtt) in timed {
        flows.entry(key).or_default().handshakes.push(rtt);
    }
    flows.values_mut().for_each(|flow| flow.handshakes.sort_unstable());
    flows
}

fn compare(file: &str, theirs: &BTreeMap<Key, Connection>, ours: &BTreeMap<Key, Connection>, tally: &mut Tally) {
    let nothing = Connection::default();
    let mut different = Vec::new();
    for (key, expected) in theirs {
        let found = ours.get(key).unwrap_or(&nothing);
        let handshakes = agree(&found.handshakes, &expected.handshakes);
        let retransmissions = found.retransmissions == expected.retransmissions;
        tally.flows += 1;
        tally.handshakes += usize::from(handshakes);
        tally.retransmissions += usize::from(retransmissions);
        tally.sent_again[0] += found.retransmissions.iter().sum::<u64>();
        tally.sent_again[1] += expected.retransmissions.iter().sum::<u64>();
        if !(handshakes && retransmissions) {
            different.push(format!("  {key:?}: expected {expected:?}, found {found:?}"));
        }
    }
    if !different.is_empty() {
        println!("{file}: {} of {} differ", different.len(), theirs.len());
        different.iter().take(3).for_each(|line| println!("{line}"));
    }
}

/// To the microsecond. Times of zero are none to tshark.
fn agree(ours: &[u64], theirs: &[u64]) -> bool {
    let ours: Vec<_> = ours.iter().filter(|rtt| **rtt > 0).collect();
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| a.abs_diff(*b) <= 1)
}
