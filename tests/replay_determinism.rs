//! The same input gives the same output: byte for byte with the same number of workers, and the same records and
//! alerts with any.

mod common;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Written once per worker count: differ in the number of workers alone.
const COUNTED: &str = "summary.json";

#[test]
fn a_scenario_does_not_depend_on_the_number_of_workers() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let made = folder.path().join("made");
    let options =
        ["--minutes", "4", "--rate", "4", "--seed", "5", "--attacks", "port_scan@1,syn_flood@2,brute_force@1"];
    let scenario = [OsString::from("scenario"), "-o".into(), made.clone().into()];
    common::succeeds(&common::gnomon(scenario.into_iter().chain(options.map(Into::into))));
    let config = made.join("scenario.toml");
    let text = std::fs::read_to_string(&config).expect("configuration");
    let mirrors = ["proof-all\"", "proof-share\"\nflows = \"40%\"", "proof-count\"\nsample = \"1/10\""]
        .map(|rest| format!("\n[[mirror]]\nto = \"mirror0\"\ngroup = \"any\"\nname = \"{rest}\n"))
        .concat();
    std::fs::write(&config, text + &mirrors).expect("written");
    let capture = [made.join("scenario.pcap")];
    let one = replay(folder.path(), "one", 1, Some(&config), &capture);
    assert_same_bytes(&one, &replay(folder.path(), "again", 1, Some(&config), &capture));
    assert!(common::json_lines(&one.join("flows.jsonl")).len() > 500);
    assert!(common::json_lines(&one.join("alerts.jsonl")).len() >= 2);
    for workers in [2, 3] {
        let other = replay(folder.path(), &format!("w{workers}"), workers, Some(&config), &capture);
        assert_same_results(&one, &other, workers);
        let (count, share) = ("mirror-proof-count.pcap", "mirror-proof-share.pcap");
        for name in names(&one) {
            // Counted samples are taken per worker.
            if name == count || name == "packets.jsonl" || name == COUNTED {
                continue;
            }
            assert_eq!(bytes(&one, &name), bytes(&other, &name), "{name} with {workers} workers");
        }
        assert!(
            bytes(&one, share).len() > 10_000 && bytes(&one, share).len() < bytes(&one, "mirror-proof-all.pcap").len()
        );
    }
}

#[test]
fn real_captures_give_the_same_whatever_the_workers() {
    let Some(shared) = common::shared("real_captures_give_the_same_whatever_the_workers") else { return };
    let captures = captures(&shared.join("captures"));
    assert!(captures.len() > 100, "{} captures", captures.len());
    let folder = tempfile::tempdir().expect("temporary folder");
    let one = replay(folder.path(), "one", 1, None, &captures);
    let again = replay(folder.path(), "again", 1, None, &captures);
    let two = replay(folder.path(), "two", 2, None, &captures);
    let (mut packets, mut forwarded) = (0, 0);
    let folders = names(&one);
    assert_eq!(folders.len(), captures.len(), "none was left out");
    for name in &folders {
        let (one, two) = (one.join(name), two.join(name));
        assert_same_bytes(&one, &again.join(name));
        assert_same_results(&one, &two, 2);
        assert_eq!(bytes(&one, "forwarded.pcap"), bytes(&two, "forwarded.pcap"), "{name}: forwarded.pcap");
        assert_eq!(bytes(&one, "packets.jsonl"), bytes(&two, "packets.jsonl"), "{name}: packets.jsonl");
        let summary = summary(&one);
        packets += summary["rx"].as_u64().unwrap_or(0);
        forwarded += summary["tx"].as_u64().unwrap_or(0);
    }
    println!("{} captures, {packets} packets, {forwarded} forwarded", folders.len());
}

/// Runs a replay and returns its folder; every summary must add up.
fn replay(folder: &Path, name: &str, workers: usize, config: Option<&Path>, captures: &[PathBuf]) -> PathBuf {
    let out = folder.join(name);
    let mut arguments: Vec<OsString> = vec!["replay".into(), "-q".into(), "--packets".into(), "-w".into()];
    arguments.extend([workers.to_string().into(), "-o".into(), out.clone().into()]);
    if let Some(config) = config {
        arguments.extend(["-c".into(), config.into()]);
    }
    arguments.extend(captures.iter().map(|c| c.clone().into_os_string()));
    common::succeeds(&common::gnomon(&arguments));
    let folders =
        if captures.len() == 1 { vec![out.clone()] } else { names(&out).iter().map(|n| out.join(n)).collect() };
    for folder in folders {
        common::adds_up(&summary(&folder), &folder.display().to_string());
    }
    out
}

fn summary(folder: &Path) -> Value {
    serde_json::from_slice(&bytes(folder, COUNTED)).expect("JSON")
}

fn assert_same_bytes(one: &Path, other: &Path) {
    assert_eq!(names(one), names(other));
    for name in names(one) {
        assert!(bytes(one, &name) == bytes(other, &name), "{} differs", other.join(&name).display());
    }
}

/// Records, alerts and totals are equal once lines are sorted; says whether order is equal too.
fn assert_same_results(one: &Path, other: &Path, workers: usize) {
    for name in ["flows.jsonl", "alerts.jsonl", "pairs.jsonl"] {
        let (a, b) = (bytes(one, name), bytes(other, name));
        if a == b {
            continue;
        }
        println!("{}: not in the same order with {workers} workers", other.join(name).display());
        let (a, b) = (lines(&a), lines(&b));
        let differing: Vec<_> = a.iter().zip(&b).filter(|(a, b)| a != b).take(3).collect();
        assert_eq!(a, b, "{}: {differing:#?}", other.join(name).display());
    }
    let (mut a, mut b) = (summary(one), summary(other));
    for summary in [&mut a, &mut b] {
        let summary = summary.as_object_mut().expect("an object");
        summary.remove("workers");
        // Counted samples are taken per worker.
        if let Some(mirrored) = summary.get_mut("mirrored").and_then(Value::as_object_mut) {
            mirrored.remove("proof-count");
        }
    }
    assert_eq!(a, b, "{}", other.display());
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<_> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn bytes(folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
}

/// All captures of the collection.
fn captures(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting: Vec<_> = ["app", "attack", "bench", "benign", "edge", "ids"].map(|set| folder.join(set)).into();
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() {
                waiting.push(path);
            } else if name.contains(".pcap") && !name.ends_with(".tsv") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
