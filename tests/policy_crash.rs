//! The policy service is killed in the middle of commits, answers and learning, again and again: after each time the store
//! has whole generations only, nothing that was acknowledged is lost, the log's chain holds, and what is put in force is
//! what is stored. `GNOMON_KILLS=1000` makes it longer.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gnomon::filter::JsonLine;
use gnomon::policy::book::{Change, Kind, Learning, LearningState, Noun};
use gnomon::policy::service::{Answer, Commit, CompileOnly, How, InboxState, Lasting, Service, View, Who};
use gnomon::rules::Decision;
use gnomon::store::Store;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};

const STORE: &str = "GNOMON_CRASH_STORE";
const PAIRS: u64 = 12;

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn open(path: &Path) -> Service {
    let plane = Box::new(CompileOnly::new(1_000_000, Decision::Deny).unwrap());
    let text = "[[vm]]\nid = \"w\"\naddresses = [\"10.0.1.1\"]\ntags = [\"web\"]\n\
        [[vm]]\nid = \"a\"\naddresses = [\"10.0.2.1\"]\ntags = [\"app\"]\n\
        [[group]]\nname = \"web\"\ntags = [\"web\"]\n[[group]]\nname = \"app\"\ntags = [\"app\"]\n";
    let first = || gnomon::policy::book::files::read(text).unwrap();
    Service::open(Arc::new(Store::open(path).unwrap()), plane, first, now).unwrap()
}

/// Two VMs that are always changed together.
fn pair(rng: &mut Pcg64Mcg) -> Vec<Change> {
    let (n, stamp) = (rng.next_u64() % PAIRS, rng.next_u64() % 1_000_000);
    let vm = |side: &str, net: u64| {
        json!({ "id": format!("{side}-{n}"), "addresses": [format!("10.9.{net}.{n}")], "tags": [format!("t{}", stamp % 3)],
            "comment": stamp.to_string() })
    };
    [vm("left", 1), vm("right", 2)].map(|body| Change::Put(Noun::read(Kind::Vm, body).unwrap())).to_vec()
}

fn flow(rng: &mut Pcg64Mcg) -> Value {
    let at = gnomon::export::iso8601(now());
    let port = 1000 + rng.next_u32() % 40;
    json!({
        "event_type": "flow", "src_ip": "10.0.1.1", "src_port": 40000, "dest_ip": "10.0.2.1", "dest_port": port,
        "proto": "TCP", "flow_id": rng.next_u32(),
        "flow": {"pkts_toserver": 5, "pkts_toclient": 4, "bytes_toserver": 500, "bytes_toclient": 400, "start": at, "end": at},
        "tcp": {"tcp_flags_ts": "1b", "tcp_flags_tc": "1b"},
        "gnomon": {"src_groups": ["web"], "dst_groups": ["app"], "action": "allow", "flags": []},
    })
}

/// What the child does until it is killed.
fn work(service: &Service, rng: &mut Pcg64Mcg) {
    let who = Who::new("test", "admin");
    let at_once = How { commit: true, ..How::default() };
    for _ in 0..3 {
        let line = flow(rng);
        service.observe([JsonLine(&line)]);
    }
    // What cannot be is refused; that is no failure here.
    match rng.next_u32() % 8 {
        0 | 1 => drop(service.change(&who, pair(rng), &at_once)),
        2 => drop(service.change(&who, pair(rng), &How::default())),
        3 => drop(service.commit(&who, Commit::new("pairs", None))),
        4 => drop(service.commit(&who, Commit::new("pairs", Some(Duration::from_millis(20))))),
        5 => drop(service.keep_lessons()),
        6 => {
            let ids: Vec<String> =
                service.inbox(Some(InboxState::Pending), None, 3).into_iter().map(|item| item.id).collect();
            let lasting = if rng.next_u32().is_multiple_of(2) { Lasting::Good } else { Lasting::Once };
            drop(service.answer(
                &who,
                &Answer { ids, approve: rng.next_u32().is_multiple_of(2), lasting, reason: String::new() },
            ));
        }
        _ => {
            let newest = service.generation();
            let to = newest.saturating_sub(rng.next_u32() % 4).max(1);
            drop(service.rollback(&who, to, ""));
        }
    }
    if rng.next_u32().is_multiple_of(10) {
        let enforcing = service.lessons().first().is_some_and(|lesson| lesson.state == LearningState::Enforcing);
        match enforcing {
            true => drop(service.learn(&who, "web", Learning::default())),
            false => drop(service.finish(&who, "web", true)),
        }
    }
    service.tick().unwrap();
}

/// Not a test of its own: what `killed_at_any_moment` starts and kills.
#[test]
fn child() {
    let Ok(path) = std::env::var(STORE) else { return };
    let service = open(Path::new(&path));
    let mut rng = Pcg64Mcg::seed_from_u64(now());
    let mut out = std::io::stdout().lock();
    if service.lessons().is_empty() {
        service.learn(&Who::new("test", "admin"), "web", Learning::default()).unwrap();
    }
    // Killed long before.
    for _ in 0..100_000 {
        writeln!(out, "acknowledged {}", service.generation()).unwrap();
        out.flush().unwrap();
        work(&service, &mut rng);
    }
}

fn check(path: &Path, acknowledged: u32, whole_log: bool) -> u32 {
    let service = open(path);
    let store = service.store();
    let stored = store.generations(None, 1).unwrap()[0].number;
    assert_eq!(service.generation(), stored, "what is in force is what is stored");
    assert!(stored >= acknowledged, "generation {acknowledged} was acknowledged, and {stored} is the latest");
    for n in 0..PAIRS {
        let side = |side: &str| {
            service.get(Kind::Vm, &format!("{side}-{n}"), View::Running).ok().map(|thing| thing.body["comment"].clone())
        };
        assert_eq!(side("left"), side("right"), "half a change in generation {stored}");
    }
    if whole_log {
        let verified = store.verify_audit().unwrap();
        assert_eq!(verified.broken, None);
        let commits = store.generations(None, usize::MAX >> 1).unwrap();
        let numbers: Vec<u32> = commits.iter().rev().map(|generation| generation.number).collect();
        assert_eq!(numbers, (1..=stored).collect::<Vec<_>>(), "no gap");
    }
    stored
}

#[test]
fn killed_at_any_moment() {
    let kills: u64 = std::env::var("GNOMON_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(100);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.db");
    let mut rng = Pcg64Mcg::seed_from_u64(now());
    let (mut before, mut moved) = (0, 0);
    for kill in 1..=kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(STORE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let (ready, begun) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            let numbers = lines.filter_map(|line| line.rsplit_once("acknowledged ")?.1.trim().parse::<u32>().ok());
            // Nobody waits for the second one.
            numbers.inspect(|_| ready.send(()).unwrap_or(())).last().unwrap_or(0)
        });
        // Some are killed while they start, most at work.
        if rng.next_u32() % 8 > 0 {
            begun.recv_timeout(Duration::from_secs(60)).expect("it begins to work");
        }
        std::thread::sleep(Duration::from_micros(rng.next_u64() % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = reader.join().unwrap();
        let stored = check(&path, acknowledged, kill % 20 == 0 || kill == kills);
        moved += u64::from(stored > before);
        before = stored;
    }
    println!("{kills} kills, {before} generations, {moved} times something was committed before the kill");
    assert!(moved > kills / 2, "kills hit work: {moved} of {kills}");
}
