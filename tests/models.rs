//! The life of models with the built program: stored, listed, scored with, promoted, rolled back, read again after a
//! restart; damage and other versions are refused with a reason.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{frames, gnomon, json_lines, succeeds};
use gnomon::store::{NewModel, State, Store};
use serde_json::Value;

/// A capture, its configuration, and a store that a replay filled.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(attacks: &str) -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        let made = lab.path("made");
        let options = ["--minutes", "8", "--rate", "6", "--seed", "3", "--attacks", attacks];
        succeeds(&gnomon([&["scenario", "-o", &made][..], &options].concat()));
        lab
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Sends the capture through; the records that come of it.
    fn replay(&self, out: &str, store: Option<&str>) -> Vec<Value> {
        let (capture, config, out) = (self.path("made/scenario.pcap"), self.path("made/scenario.toml"), self.path(out));
        let mut words = vec!["replay", &capture, "-c", &config, "-o", &out, "--quiet"];
        let store = store.map(|store| self.path(store));
        words.extend(store.iter().flat_map(|store| ["--store", store]));
        succeeds(&gnomon(words));
        json_lines(&Path::new(&out).join("flows.jsonl"))
    }

    fn model(&self, words: &[&str]) -> Output {
        gnomon([&["model"][..], words, &["--store", &self.path("gnomon.db")]].concat())
    }

    fn states(&self) -> Vec<(i64, String)> {
        let text = succeeds(&self.model(&["list", "-o", "json"]));
        let mut all: Vec<(i64, String)> =
            lines(&text).iter().map(|m| (m["id"].as_i64().unwrap(), word(&m["state"]))).collect();
        all.sort_unstable();
        all
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn fails(output: &Output, code: i32, wanted: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(wanted), "`{wanted}` is not in: {text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// (flow, score) of records, in order.
fn scores(records: &[Value]) -> Vec<(u64, Option<f64>)> {
    records.iter().map(|r| (r["flow_id"].as_u64().unwrap(), r["gnomon"]["score"].as_f64())).collect()
}

#[test]
fn a_model_is_stored_used_again_promoted_and_rolled_back() {
    let lab = Lab::new("none");
    let first = lab.replay("one", Some("gnomon.db"));
    assert_eq!(first[0]["gnomon"]["score"], Value::Null, "nothing is known yet");
    assert!(lab.replay("without", None) == first, "a store changes nothing of the first run");
    assert_eq!(lab.states(), [(1, "active".to_owned())]);
    // As a restarted appliance would: from the first record on.
    let again = lab.replay("two", Some("gnomon.db"));
    assert!(again.iter().all(|record| record["gnomon"]["score"].is_number()), "no warm-up");
    assert_eq!(lab.states(), [(1, "active".to_owned())], "nothing was trained");
    let shown = lines(&succeeds(&lab.model(&["show", "1", "-o", "json"]))).remove(0);
    assert_eq!((&shown["usable"], &shown["reason"], &shown["scope"]), (&true.into(), &"warm-up".into(), &"all".into()));
    assert_eq!(shown["history"][0]["state"], "active");
    assert!(succeeds(&lab.model(&["show", "1"])).contains("learnt from"));
    // The same records as the appliance saw, the same model: the same scores.
    let (capture, config, store) =
        (lab.path("made/scenario.pcap"), lab.path("made/scenario.toml"), lab.path("gnomon.db"));
    let scored = lines(&succeeds(&gnomon(["score", &capture, "-c", &config, "--store", &store, "-o", "json"])));
    assert!(scores(&scored) == scores(&again));
    let unusual = scored.iter().filter(|record| record["gnomon"]["score"].as_f64().unwrap() >= 0.99);
    assert!(unusual.clone().count() > 5);
    assert!(unusual.clone().all(|record| !record["gnomon"]["reasons"].as_array().unwrap().is_empty()));
    // Another one, by hand.
    let flows = lab.path("one/flows.jsonl");
    let told = succeeds(&lab.model(&["train", "--on", &flows]));
    assert!(told.starts_with("model 2 learnt from"), "{told}");
    assert!(succeeds(&lab.model(&["compare", "1", "2", "--on", &flows])).contains("rank correlation"));
    succeeds(&lab.model(&["promote", "2", "--reason", "more records"]));
    assert_eq!(lab.states(), [(1, "retired".to_owned()), (2, "active".to_owned())]);
    let other = lab.replay("three", Some("gnomon.db"));
    assert!(scores(&other) != scores(&again), "the other model scores");
    let told = succeeds(&lab.model(&["rollback", "--reason", "worse"]));
    assert!(told.contains("model 1 is active for all"), "{told}");
    assert_eq!(lab.states(), [(1, "active".to_owned()), (2, "retired".to_owned())]);
    assert!(scores(&lab.replay("four", Some("gnomon.db"))) == scores(&again), "as before");
    fails(&lab.model(&["rollback"]), 1, "nothing to go back to");
    fails(&lab.model(&["promote", "1"]), 1, "model 1 is active already");
    fails(&lab.model(&["reject", "1"]), 1, "gnomon model rollback");
    fails(&lab.model(&["show", "9"]), 1, "gnomon model list");
    fails(&lab.model(&["train"]), 1, "--on FILE");
    fails(&gnomon(["model", "list", "--store", &lab.path("none.db")]), 1, "there is no store");
}

#[test]
fn damaged_and_foreign_models_are_refused() {
    let lab = Lab::new("none");
    lab.replay("one", Some("gnomon.db"));
    let store = lab.path("gnomon.db");
    {
        let open = Store::open_existing(Path::new(&store)).unwrap();
        let (blob, reference) = open.model_bytes(1).unwrap();
        let new = NewModel {
            scope: "all".to_owned(),
            settings: "{}".to_owned(),
            metrics: "{}".to_owned(),
            feature_schema: 2,
            blob: blob.clone(),
            reference: reference.clone(),
            ..NewModel::default()
        };
        open.add_model(&new, State::Candidate).unwrap();
        let cut = NewModel { feature_schema: 1, blob: blob[..blob.len() / 2].to_vec(), ..new.clone() };
        open.add_model(&cut, State::Candidate).unwrap();
        open.add_model(&NewModel { feature_schema: 1, blob: b"no model".to_vec(), ..new }, State::Candidate).unwrap();
    }
    for (id, wanted) in [
        ("2", "model 2 is of features version 2, this gnomon has version 1: train a new one"),
        ("3", "the model is cut off"),
        ("4", "these bytes are no model of gnomon"),
    ] {
        fails(&lab.model(&["promote", id]), 1, wanted);
        fails(&gnomon(["score", &lab.path("one/flows.jsonl"), "--store", &store, "--model", id]), 1, wanted);
        assert!(succeeds(&lab.model(&["show", id])).contains("CANNOT BE USED"));
    }
    // Bytes of the file change under it.
    let mut bytes = std::fs::read(&store).unwrap();
    let places: Vec<usize> = (0..bytes.len() - 8).filter(|at| &bytes[*at..at + 8] == b"gnomonML").collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[at + 60] ^= 0xff);
    std::fs::write(&store, bytes).unwrap();
    let (capture, out) = (lab.path("made/scenario.pcap"), lab.path("five"));
    let replayed = gnomon(["replay", &capture, "-o", &out, "--store", &store, "--quiet"]);
    fails(&replayed, 1, "model 1 in the store is damaged: its checksum does not match");
    std::fs::write(&store, "something else entirely").unwrap();
    fails(&lab.model(&["list"]), 1, "cannot be");
}

#[test]
fn records_tables_and_alerts_of_files() {
    let lab = Lab::new("port_scan@3,host_sweep@5");
    let flows = lab.replay("one", None);
    let file = lab.path("one/flows.jsonl");
    let told = succeeds(&gnomon(["score", &file, "--top", "5"]));
    assert!(told.contains("because of") && told.contains("records scored"), "{told}");
    let scored = lines(&succeeds(&gnomon(["score", &file, "-o", "json", "--head", "1000"])));
    assert_eq!(scored.len(), flows.len() - 1000);
    let trained = lines(&succeeds(&gnomon(["score", &file, "-o", "json", "--train", &file])));
    assert_eq!(trained.len(), flows.len());
    assert!(trained.iter().all(|record| record["gnomon"]["score"].is_number()));
    fails(&gnomon(["score", &file, "--head", "10"]), 1, "too few to train on");
    fails(&gnomon(["score", &file, "--columns", "a"]), 2, "for tables");
    fails(&gnomon(["score", &file, "--head", "0"]), 2, "a share such as 20%");
    fails(&gnomon(["score", &lab.path("nothing")]), 1, "reading");
    // A table with one row that is far out.
    let table = lab.path("table.csv");
    let row = |n: u32| format!("{},{},tcp,{n}\n", n * 7919 % 1000, n * 104_729 % 500);
    let rows: String =
        (0..12_000).map(|n| if n == 9999 { "90000,90000,odd,9999\n".to_owned() } else { row(n) }).collect();
    std::fs::write(&table, format!("bytes,packets,proto,number\n{rows}")).unwrap();
    let words = ["score", &table, "--without", "number", "-o", "json"];
    let scored = lines(&succeeds(&gnomon(words)));
    assert_eq!(scored.len(), 9600);
    let most =
        scored.iter().max_by(|a, b| a["score"].as_f64().unwrap().total_cmp(&b["score"].as_f64().unwrap())).unwrap();
    assert_eq!(most["row"], 10_000);
    let reasons: Vec<String> = most["reasons"].as_array().unwrap().iter().map(|r| word(&r["feature"])).collect();
    assert!(reasons.contains(&"bytes".to_owned()) && !reasons.contains(&"number".to_owned()), "{reasons:?}");
    assert!(succeeds(&gnomon(["score", &table, "--columns", "bytes,proto", "--head", "100%"])).contains("2 columns"));
    fails(&gnomon(["score", &table, "--columns", "byte"]), 1, "no column `byte`; there are bytes, packets");
    // Alerts of the same run.
    let alerts = lab.path("one/alerts.jsonl");
    let all = lines(&succeeds(&gnomon(["alerts", "-r", &alerts, "-o", "json", "--limit", "0"])));
    let scan = all.iter().find(|alert| alert["gnomon"]["kind"] == "port_scan").unwrap();
    let only = succeeds(&gnomon(["alerts", "-r", &alerts, "--kind", "port_scan", "--severity", "3", "-o", "json"]));
    assert!(lines(&only).iter().all(|alert| alert["gnomon"]["kind"] == "port_scan") && !only.is_empty());
    let id = scan["gnomon"]["episode"].to_string();
    let told = succeeds(&gnomon(["alerts", "show", &id, "-r", &alerts]));
    assert!(told.contains("one host tries many ports") && told.contains("flows of it in"), "{told}");
    let shown = lines(&succeeds(&gnomon(["alerts", "show", &id, "-r", &alerts, "-o", "json"]))).remove(0);
    let actor = word(&scan["gnomon"]["actor"]);
    let of_actor = |flow: &Value| flow["src_ip"] == *actor || flow["dest_ip"] == *actor;
    assert!(!shown["flows"].as_array().unwrap().is_empty() && shown["flows"].as_array().unwrap().iter().all(of_actor));
    fails(&gnomon(["alerts", "show", "99999", "-r", &alerts]), 1, "there is no alert 99999");
    fails(&gnomon(["alerts", "-r", &alerts, "--kind", "scan"]), 2, "port_scan, host_sweep");
    fails(&gnomon(["alerts", "-r", &lab.path("made/scenario.toml")]), 1, "line 1");
}

const FLOWS: usize = 6000;

/// A running appliance that is fed a capture once.
struct Running {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
    folder: PathBuf,
    out: PathBuf,
}

impl Running {
    fn start(folder: &Path, name: &str) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let (shown, out) = (folder.display(), folder.join(name));
        let text = format!(
            "[cores]\nmain = 0\nworkers = [{}]\nscorer = \"any\"\n\
             [eal]\nmemory = \"128MiB\"\nmbufs = 8191\nfile_prefix = \"gnmodels{}\"\n\
             [[port]]\nname = \"a\"\ndevice = \"net_pcap0,rx_pcap={shown}/traffic.pcap\"\n\
             [[port]]\nname = \"b\"\ndevice = \"net_pcap1,rx_pcap={shown}/nothing.pcap\"\n\
             [[pair]]\nports = [\"a\", \"b\"]\n[policy]\ndefault = \"allow\"\n\
             [flow.timeouts]\nudp = \"1s\"\nudp_answered = \"1s\"\n\
             [scorer]\nwarmup_records = 1000\n[store]\npath = \"{shown}/gnomon.db\"\n\
             [export]\ndirectory = {out:?}\n[control]\nsocket = \"{shown}/control.sock\"\n",
            cpus - 1,
            std::process::id(),
        );
        let config = folder.join("gnomon.toml");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon"));
        command.args(["run", "--interval", "0", "--seconds", "120", "-c"]).arg(config);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let mut running = Self { process, said, folder: folder.to_owned(), out };
        let mut text = String::new();
        while !text.contains("generation 1;") {
            assert!(running.said.read_line(&mut text).unwrap() > 0, "{text}");
        }
        running
    }

    fn ask(&self, words: &[&str]) -> Output {
        let socket = self.folder.join("control.sock").display().to_string();
        gnomon([words, &["--socket", &socket][..]].concat())
    }

    fn states(&self) -> Vec<(i64, String)> {
        let text = succeeds(&self.ask(&["model", "list", "-o", "json"]));
        lines(&text).iter().map(|m| (m["id"].as_i64().unwrap(), word(&m["state"]))).collect()
    }

    fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not come: {:?}", self.states());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends it in order; its records.
    fn stop(mut self) -> Vec<Value> {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
        assert!(self.process.wait().unwrap().success());
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        json_lines(&self.out.join("flows.jsonl"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing happens to one that has ended and was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn traffic(folder: &Path) {
    let flow = |n: usize| {
        let source = format!("10.0.{}.{}", n >> 8 & 255, n & 255);
        frames::udp((&source, &format!("192.0.2.{}", n % 250)), (5000, 1000 + (n % 3) as u16), &vec![0; n * 31 % 200])
    };
    let words = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let head = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    let mut bytes = head.clone();
    for n in 0..FLOWS {
        let (frame, n) = (flow(n), n as u32);
        bytes.extend(words(&[1_736_931_600, n, frame.len() as u32, frame.len() as u32]));
        bytes.extend(frame);
    }
    std::fs::write(folder.join("traffic.pcap"), bytes).unwrap();
    std::fs::write(folder.join("nothing.pcap"), head).unwrap();
}

#[test]
fn a_running_appliance_trains_swaps_and_remembers() {
    let folder = tempfile::tempdir().unwrap();
    traffic(folder.path());
    let first = Running::start(folder.path(), "one");
    first.wait("the first model", |running| running.states() == [(1, "active".to_owned())]);
    fails(&first.ask(&["model", "rollback"]), 1, "nothing to go back to: model 1 is the first of all");
    assert!(succeeds(&first.ask(&["model", "compare"])).contains("no shadow scores"));
    assert!(succeeds(&first.ask(&["model", "train"])).contains("training begins"));
    succeeds(&first.ask(&["alerts"]));
    let records = first.stop();
    assert_eq!(records.len(), FLOWS, "none is lost, none is there twice");
    let known = records.iter().filter(|record| record["gnomon"]["score"].is_number()).count();
    assert!(known <= FLOWS - 1000, "{known} of {FLOWS} have a score");
    // A second one, made aside.
    let (flows, store) = (folder.path().join("one/flows.jsonl"), folder.path().join("gnomon.db"));
    let (flows, store) = (flows.display().to_string(), store.display().to_string());
    let before: Vec<i64> = {
        let listed = succeeds(&gnomon(["model", "list", "--store", &store, "-o", "json"]));
        lines(&listed).iter().map(|model| model["id"].as_i64().unwrap()).collect()
    };
    succeeds(&gnomon(["model", "train", "--on", &flows, "--store", &store]));
    let made = before.iter().max().unwrap() + 1;
    let second = Running::start(folder.path(), "two");
    let active =
        |running: &Running| running.states().into_iter().find(|(_, state)| state == "active").map(|(id, _)| id);
    let was = active(&second).unwrap();
    succeeds(&second.ask(&["model", "promote", &made.to_string(), "--reason", "test"]));
    assert_eq!(active(&second), Some(made));
    let told = succeeds(&second.ask(&["model", "rollback"]));
    assert!(told.contains(&format!("model {was} is active for all, and scores from the next record on")), "{told}");
    assert_eq!(active(&second), Some(was));
    second.wait("all flows", |running| {
        std::fs::read_to_string(running.out.join("flows.jsonl")).is_ok_and(|text| text.lines().count() >= FLOWS)
    });
    let records = second.stop();
    assert_eq!(records.len(), FLOWS);
    assert!(records.iter().all(|record| record["gnomon"]["score"].is_number()), "it scores from the first record on");
}
