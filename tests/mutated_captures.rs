//! Damaged captures through `gnomon replay`: no crash, no hang, every packet accounted for or a clear refusal.
//!
//! 1,000 by default; `GNOMON_MUTATIONS=10000` for more. The seed is fixed: the same captures every time.

mod common;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::faults::Dice;

/// Captures that one process replays.
const BATCH: usize = 250;
/// A batch takes some seconds; a hang takes for ever.
const TIME_OUT: Duration = Duration::from_secs(120);

const CONFIG: &str = r#"
[policy]
default = "reject"
[flow]
key = "inner"
[[rule]]
id = "web"
protocol = "tcp"
ports = [80, 443]
action = "allow"
[[rule]]
id = "six"
from = "fd00::/16"
action = "allow"
[[rule]]
id = "tagged"
vlan = 100
action = "deny"
[[mirror]]
name = "all"
group = "any"
[[mirror]]
name = "share"
group = "any"
flows = "50%"
"#;

#[derive(Debug, Default)]
struct Tally {
    replayed: usize,
    packets: u64,
    refused: usize,
    truncated: usize,
}

#[test]
fn damaged_captures_neither_crash_nor_hang() {
    let count = std::env::var("GNOMON_MUTATIONS").map_or(1000, |n| n.parse().expect("GNOMON_MUTATIONS is a number"));
    let seeds = seeds();
    let mut dice = Dice::new(0x676e_6f6d);
    let mut tally = Tally::default();
    let began = Instant::now();
    for batch in (0..count).step_by(BATCH) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let captures: Vec<PathBuf> = (batch..count.min(batch + BATCH))
            .map(|number| {
                let path = folder.path().join(format!("{number}.pcap"));
                std::fs::write(&path, mutate(&mut dice, &seeds)).expect("written");
                path
            })
            .collect();
        // One and two workers, with and without a policy.
        run(folder.path(), &captures, 1 + batch / BATCH % 2, batch / BATCH % 4 < 2, &mut tally);
    }
    println!("{count} captures of {} seeds in {:.1} s: {tally:?}", seeds.len(), began.elapsed().as_secs_f64());
    assert_eq!(tally.replayed + tally.refused, count);
    assert!(tally.replayed > count / 2 && tally.refused > count / 200 && tally.truncated > count / 100, "{tally:?}");
}

/// Replays a batch in one process and looks at what it left behind.
fn run(folder: &Path, captures: &[PathBuf], workers: usize, policy: bool, tally: &mut Tally) {
    let out = folder.join("out");
    let mut arguments: Vec<OsString> = vec!["replay".into(), "-q".into(), "--packets".into()];
    arguments.extend(["-w".into(), workers.to_string().into(), "-o".into(), out.clone().into()]);
    if policy {
        let config = folder.join("policy.toml");
        std::fs::write(&config, CONFIG).expect("written");
        arguments.extend(["-c".into(), config.into()]);
    }
    arguments.extend(captures.iter().map(|c| c.clone().into_os_string()));
    let (code, said) = within_time(folder, &arguments);
    let mut refused = 0;
    for capture in captures {
        let name = capture.file_name().and_then(|n| n.to_str()).expect("text");
        let summary = out.join(name).join("summary.json");
        if summary.is_file() {
            judge(&out.join(name), tally);
        } else {
            refused += 1;
            let line = said.lines().find(|line| line.contains(&format!("{name}:")));
            let line = line.unwrap_or_else(|| keep(capture, "neither replayed nor refused", &said));
            let clear = line.contains("is not a capture") || line.contains("cannot");
            assert!(clear, "the reason is clear: {line}");
        }
    }
    tally.refused += refused;
    match code {
        Some(0) => assert_eq!(refused, 0, "{said}"),
        Some(1) => assert!(refused > 0, "{said}"),
        other => keep(&captures[0], &format!("exit {other:?}"), &said),
    }
}

fn judge(out: &Path, tally: &mut Tally) {
    let text = std::fs::read_to_string(out.join("summary.json")).expect("summary");
    let summary: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    common::adds_up(&summary, &out.display().to_string());
    let rx = summary["rx"].as_u64().expect("a number");
    assert_eq!(common::json_lines(&out.join("packets.jsonl")).len() as u64, rx, "{}", out.display());
    tally.replayed += 1;
    tally.packets += rx;
    tally.truncated += usize::from(summary.get("truncated").is_some());
}

/// Copies the whole batch of a failure to where it can be looked at.
fn keep(capture: &Path, what: &str, said: &str) -> ! {
    let from = capture.parent().expect("a folder");
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutated");
    std::fs::create_dir_all(&to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder").filter_map(Result::ok) {
        let _ = std::fs::copy(entry.path(), to.join(entry.file_name()));
    }
    panic!("{}: {what}; the batch is in {}\n{said}", capture.display(), to.display());
}

/// Exit code (`None` after a signal) and what was said on standard error.
fn within_time(folder: &Path, arguments: &[OsString]) -> (Option<i32>, String) {
    let said = folder.join("stderr");
    let mut child = Command::new(env!("CARGO_BIN_EXE_gnomon"))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&said).expect("file"))
        .spawn()
        .expect("the program starts");
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("waits") {
            break status;
        }
        if began.elapsed() > TIME_OUT {
            child.kill().expect("killed");
            child.wait().expect("waits");
            let said = std::fs::read_to_string(&said).unwrap_or_default();
            keep(&said_capture(arguments), "does not end", &said);
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    (status.code(), std::fs::read_to_string(&said).unwrap_or_default())
}

fn said_capture(arguments: &[OsString]) -> PathBuf {
    arguments.last().map(PathBuf::from).unwrap_or_default()
}

/// Captures to damage: our own, and small odd ones of the collection when it is there.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = common::captures::all();
    if let Some(shared) = common::shared("seeds from the collection") {
        let mut files: Vec<_> = std::fs::read_dir(shared.join("captures/edge")).expect("edge captures").collect();
        files.sort_by_key(|entry| entry.as_ref().map(std::fs::DirEntry::path).unwrap_or_default());
        for path in files.into_iter().flatten().map(|entry| entry.path()) {
            let name = path.to_string_lossy().into_owned();
            let small = path.metadata().is_ok_and(|m| (1..20_000).contains(&m.len()));
            if name.contains(".pcap") && !name.ends_with(".tsv") && small {
                seeds.push(std::fs::read(&path).expect("readable"));
            }
        }
    }
    seeds
}

fn mutate(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(4) {
        match dice.below(8) {
            0 | 1 => flip(dice, &mut bytes),
            2 => bytes.truncate(dice.below(bytes.len() + 1)),
            3 | 4 => length_lie(dice, &mut bytes),
            5 => structure_lie(dice, &mut bytes),
            6 => duplicate(dice, &mut bytes),
            _ => insert(dice, &mut bytes),
        }
    }
    bytes
}

fn flip(dice: &mut Dice, bytes: &mut [u8]) {
    for _ in 0..=dice.below(16) {
        let at = dice.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << dice.below(8);
        }
    }
}

/// Two or four bytes somewhere become a number that a length should not be.
fn length_lie(dice: &mut Dice, bytes: &mut [u8]) {
    let at = dice.below(bytes.len());
    let lie = match dice.below(5) {
        0 => 0,
        1 => u32::MAX,
        2 => dice.below(64) as u32,
        3 => 0x7fff_ffff,
        _ => dice.roll() as u32,
    };
    let lie = lie.to_le_bytes();
    let width = if dice.one_in(2) { 2 } else { 4 };
    for (place, byte) in bytes.iter_mut().skip(at).zip(&lie[..width]) {
        *place = *byte;
    }
}

/// As [`length_lie`], exactly at a record's or block's own length field.
fn structure_lie(dice: &mut Dice, bytes: &mut [u8]) {
    let fields = structure(bytes).into_iter().map(|(at, _)| at).collect::<Vec<_>>();
    let Some(at) = fields.get(dice.below(fields.len())).copied() else { return };
    let field = at + if is_pcapng(bytes) { 4 } else { 8 };
    if field + 4 <= bytes.len() {
        let old = u32::from_le_bytes(bytes[field..field + 4].try_into().expect("four bytes"));
        let lie = match dice.below(6) {
            0 => old.wrapping_add(1),
            1 => old.wrapping_sub(1 + dice.below(12) as u32),
            2 => old.wrapping_mul(2),
            3 => 0,
            4 => u32::MAX - dice.below(16) as u32,
            _ => dice.below(70_000) as u32,
        };
        bytes[field..field + 4].copy_from_slice(&lie.to_le_bytes());
    }
}

/// A whole record or block comes twice, or is put elsewhere.
fn duplicate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let parts = structure(bytes);
    let Some((at, len)) = parts.get(dice.below(parts.len())).copied() else { return };
    let (to, _) = parts[dice.below(parts.len())];
    let part = bytes[at..at + len].to_vec();
    bytes.splice(to..to, part);
}

fn insert(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let at = dice.below(bytes.len() + 1);
    let noise: Vec<u8> = (0..=dice.below(40)).map(|_| dice.roll() as u8).collect();
    bytes.splice(at..at, noise);
}

fn is_pcapng(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a])
}

/// Start and length of each record of a little-endian pcap or block of a little-endian pcapng, as far as they
/// make sense.
fn structure(bytes: &[u8]) -> Vec<(usize, usize)> {
    let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let (mut at, mut parts) = (if is_pcapng(bytes) { 0 } else { 24 }, Vec::new());
    loop {
        let len = if is_pcapng(bytes) { word(at + 4) } else { word(at + 8).and_then(|n| n.checked_add(16)) };
        match len {
            Some(len) if len >= 12 && len <= bytes.len() - at => {
                parts.push((at, len));
                at += len;
            }
            _ => return parts,
        }
    }
}
