//! Keeps `docs/one-alert.md` true: its commands are run again, its account of a score is computed again, its picture is
//! drawn again, and all must be as they stand there. With `GNOMON_WRITE_DOCS=1` they are written there instead.

mod common;
#[path = "one_alert/chart.rs"]
mod chart;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::rig::{Rig, Setup};
use gnomon::behaviour::{Extractor, Features, Model, NAMES, Rows, Training};
use gnomon::capture::CaptureReader;
use gnomon::flow::FlowRecord;
use gnomon::trie::Isa;
use serde_json::Value;

/// The record that the page follows: the first of the attack.
const PORT: u64 = 22;

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// The page's commands need `jq`; where there is none, that is said and nothing is tested.
fn can_run() -> bool {
    let found = Command::new("jq").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: no jq");
    }
    found
}

#[test]
fn the_page_says_what_the_commands_say() {
    if !can_run() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let page = std::fs::read_to_string(docs("one-alert.md")).expect("the page");
    let renewed = renew(&page, folder.path());
    let picture = folder.path().join("one-alert.svg");
    chart::draw(&picture, &folder.path().join("out")).expect("a picture");
    let drawn = std::fs::read_to_string(&picture).expect("drawn");
    if std::env::var_os("GNOMON_WRITE_DOCS").is_some() {
        std::fs::write(docs("one-alert.md"), &renewed).expect("written");
        std::fs::write(docs("one-alert.svg"), &drawn).expect("written");
        return;
    }
    for (now, then) in renewed.lines().zip(page.lines()) {
        assert_eq!(now, then, "what is so, and what the page says");
    }
    assert_eq!(renewed.lines().count(), page.lines().count());
    let shown = std::fs::read_to_string(docs("one-alert.svg")).expect("the picture");
    assert!(drawn == shown, "the picture is another one");
}

/// The page with what its commands print now, run one after another in a folder, and with the account of the score.
fn renew(page: &str, folder: &Path) -> String {
    let mut out = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let told = match line {
            "```console" => {
                let commands: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                commands.iter().filter_map(|line| line.strip_prefix("$ ")).map(|text| shell(text, folder)).collect()
            }
            "```account" => {
                lines.by_ref().take_while(|line| *line != "```").for_each(drop);
                account(folder)
            }
            _ => continue,
        };
        out.push_str(&told);
        out.push_str("```\n");
    }
    out
}

/// The command and its output.
fn shell(text: &str, folder: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_gnomon"));
    let path = format!("{}:{}", program.parent().expect("a folder").display(), std::env::var("PATH").expect("PATH"));
    let output = Command::new("sh").args(["-c", text]).current_dir(folder).env("PATH", path).output().expect("sh");
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    format!("$ {text}\n{}", String::from_utf8(output.stdout).expect("text"))
}

/// The scenario's records, as a worker makes them, in the order in which the scorer gets them.
fn records(folder: &Path) -> (Vec<FlowRecord>, gnomon::config::Config) {
    let toml = std::fs::read_to_string(folder.join("scenario.toml")).expect("the configuration");
    let mut reader = CaptureReader::open(&folder.join("scenario.pcap")).expect("the capture");
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame().expect("whole") {
        frames.push((frame.ts_ns, frame.data.to_vec()));
    }
    let mut setup = Setup::new(&toml);
    (setup.input_ring, setup.packets, setup.clones, setup.records) = (32_768, 36_863, 8_191, 65_536);
    (setup.notes, setup.forward_ring) = (false, 65_536);
    let outcome = Rig::start().replay(&setup, &frames);
    let mut records = outcome.records;
    records.sort_by_key(|r| (r.emitted, r.start, r.flow_id, r.sequence));
    (records, setup.config)
}

/// Features, score and what each feature adds to it, computed with the library from the same packets; the score must be
/// that of `flows.jsonl`.
fn account(folder: &Path) -> String {
    let (records, config) = records(folder);
    let lines = common::json_lines(&folder.join("out/flows.jsonl"));
    assert_eq!(records.len(), lines.len());
    let mut extractor = Extractor::new(config.scorer.detect.window.as_nanos() as u64, config.seed);
    let features: Vec<Features> = records.iter().map(|record| extractor.extract(record)).collect();
    let learnt = &features[..config.scorer.warmup_records];
    let training = Training {
        members: Default::default(),
        trees: config.scorer.trees,
        sample: config.scorer.sample,
        contamination: config.scorer.contamination,
        seed: config.seed,
        isa: Isa::best(),
    };
    let model = Model::train(Rows::new(learnt.as_flattened(), NAMES.len()), &training);
    let alert = the_alert(folder);
    let first = alert["evidence"]["flow_ids"][0].as_u64().expect("a flow");
    let place = records.iter().position(|record| record.flow_id == first).expect("the flow's record");
    assert_eq!(lines[place]["flow_id"].as_u64(), Some(first), "the order of records");
    let (mut scratch, mut raw) = (model.scratch(), [0.0]);
    let row = &features[place];
    model.score(Rows::new(row, NAMES.len()), &mut scratch, &mut raw);
    let contributions = model.contributions(row, &mut scratch);
    let score = f64::from(model.calibration().calibrate(raw[0]));
    let said = lines[place]["gnomon"]["score"].as_f64().expect("a score");
    assert!((score - said).abs() < 1e-6, "{score} here, {said} in flows.jsonl");
    tell(row, &contributions, raw[0], said)
}

fn tell(row: &Features, contributions: &[f32], raw: f32, score: f64) -> String {
    let mut order: Vec<usize> = (0..NAMES.len()).collect();
    order.sort_by(|a, b| contributions[*b].total_cmp(&contributions[*a]).then(a.cmp(b)));
    let sum: f32 = contributions.iter().sum();
    let measure = raw / (1.0 - raw);
    assert!((sum - measure).abs() < 1e-3 * measure.max(1.0), "contributions add up to {sum}, the measure is {measure}");
    let mut out = format!("{:<22} {:>9} {:>9}\n", "feature", "value", "adds");
    for feature in order {
        let (name, value, adds) = (NAMES[feature], row[feature], contributions[feature]);
        writeln!(out, "{name:<22} {value:>9.3} {adds:>9.4}").expect("a string takes all");
    }
    writeln!(out, "{:<22} {:>9} {sum:>9.4}", "joint measure m", "").expect("a string takes all");
    writeln!(out, "{:<22} {:>9} {raw:>9.4}", "raw score m / (1 + m)", "").expect("a string takes all");
    writeln!(out, "{:<22} {:>9} {score:>9.4}", "score, calibrated", "").expect("a string takes all");
    out
}

fn the_alert(folder: &Path) -> Value {
    let alerts = common::json_lines(&folder.join("out/alerts.jsonl"));
    alerts.into_iter().find(|alert| alert["gnomon"]["kind"] == "brute_force").expect("the alert")
}

/// The count that the page explains, by hand: complete short sessions that began in the minute before the alert was raised
/// reach the threshold then, and not with one session less.
#[test]
fn the_count_is_that_of_sessions() {
    if !can_run() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let page = std::fs::read_to_string(docs("one-alert.md")).expect("the page");
    renew(&page, folder.path());
    let alert = the_alert(folder.path());
    let threshold = alert["evidence"]["threshold"].as_u64().expect("a threshold") as usize;
    let raised = alert["timestamp"].as_str().expect("a time").to_owned();
    let lines = common::json_lines(&folder.path().join("out/flows.jsonl"));
    let of_it = lines.iter().filter(|line| line["dest_port"] == PORT && line["src_ip"] == alert["actor"]);
    let stamps: Vec<String> = of_it.map(|line| line["timestamp"].as_str().expect("a time").to_owned()).collect();
    let until: Vec<&String> = stamps.iter().filter(|stamp| **stamp <= raised).collect();
    assert_eq!(until.len(), threshold, "the session that reaches the threshold raises the alert");
    assert_eq!(alert["count"].as_u64(), Some(stamps.len() as u64), "all of its sessions are counted");
}
