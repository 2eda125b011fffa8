#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::verbs::{VERBS, never};
use super::*;
use crate::appliance::{PolicyHost, Targets};
use crate::config::Config;
use crate::worker::WorkerCounters;

/// Followers that were begun and are not over.
static FOLLOWING: AtomicUsize = AtomicUsize::new(0);

/// Verbs of the tests: an endless answer, one without words, and one of raw bytes.
const TEST_VERBS: &[Verb] = &[
    Verb { name: "flood", changes: never, run: flood },
    Verb { name: "follow", changes: never, run: follow },
    Verb { name: "bytes", changes: never, run: bytes },
    Verb { name: "ping", changes: never, run: VERBS[0].run },
];

struct Following;

impl Following {
    fn begin() -> Self {
        FOLLOWING.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        FOLLOWING.fetch_sub(1, Ordering::SeqCst);
    }
}

fn flood(_: &Live, _: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let _following = Following::begin();
    loop {
        reply.line(&json!({ "text": "x".repeat(1000) }))?;
    }
}

fn follow(_: &Live, _: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let _following = Following::begin();
    reply.line(&json!({ "begun": true }))?;
    reply.flush()?;
    loop {
        reply.check()?;
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn bytes(_: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let count: std::collections::BTreeMap<String, usize> = request.read()?;
    reply.binary(&vec![b'\n'; count["count"]])?;
    reply.line(&json!({ "after": true }))?;
    reply.at_end("sent", 1);
    Ok(())
}

struct Bench {
    server: Server,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listening = Listening::bind(&folder.path().join("control.sock"), None).unwrap();
        Self { server: Server::with_verbs(listening, live(), TEST_VERBS).unwrap(), _folder: folder }
    }

    fn place(&self) -> Place {
        Place::Socket(self.server.path().to_owned())
    }

    fn raw(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(self.server.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut reader = BufReader::new(stream);
        assert_eq!(next(&mut reader)["protocol"], PROTOCOL);
        reader
    }
}

fn live() -> Arc<Live> {
    let config = Config::minimal();
    let host = PolicyHost::new(&config, Targets::ByPort, 0).unwrap();
    Arc::new(Live {
        taps: crate::taps::TapHost::new(host.names().clone(), Vec::new(), 1),
        watchers: None,
        models: None,
        folder: PathBuf::new(),
        honeypots: Vec::new(),
        names: host.names().clone(),
        hops: host.hops().clone(),
        counters: vec![Arc::new(WorkerCounters::new(8))],
        mailboxes: Vec::new(),
        capacity: 0,
        recent: Arc::default(),
        ports: Vec::new(),
        started: Instant::now(),
        started_at: 0,
        generation: AtomicU32::new(1),
        scorer: Arc::default(),
        outputs: Vec::new(),
    })
}

fn next(reader: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

#[test]
fn several_requests_on_one_connection() {
    let bench = Bench::new();
    let mut client = Client::connect(&bench.place()).unwrap();
    assert_eq!(client.hello.pid, std::process::id());
    for _ in 0..3 {
        assert_eq!(client.ask_one(&json!({ "verb": "ping" })).unwrap(), json!({ "pong": true }));
    }
    let error = client.ask_one(&json!({ "verb": "pnig" })).unwrap_err();
    assert!(error.to_string().contains("there is no verb `pnig`; there are flood, follow"), "{error}");
    let error = client.ask_one(&json!({ "verb": "ping", "x": 1 })).unwrap_err();
    assert!(error.to_string().contains("unknown field `x`"), "{error}");
    let error = client.ask_one(&json!({ "verb": "ping", "protocol": 9 })).unwrap_err();
    assert!(error.to_string().contains("speaks protocol 1"), "{error}");
    assert_eq!(
        client.ask_one(&json!({ "verb": "ping" })).unwrap(),
        json!({ "pong": true }),
        "errors end a request only"
    );
}

#[test]
fn bytes_go_between_lines() {
    let bench = Bench::new();
    let mut client = Client::connect(&bench.place()).unwrap();
    for count in [0, 1, 200_000] {
        let mut answer = client.ask(&json!({ "verb": "bytes", "count": count })).unwrap();
        assert_eq!(answer.next_part().unwrap(), Some(Part::Bytes(vec![b'\n'; count])));
        assert_eq!(answer.next_part().unwrap(), Some(Part::Line(json!({ "after": true }))));
        let end = answer.next_part().unwrap();
        assert_eq!(end, Some(Part::End(json!({ "sent": 1 }).as_object().unwrap().clone())));
        assert_eq!(answer.next_part().unwrap(), None);
    }
}

#[test]
fn nonsense_is_answered_and_hurts_nobody() {
    let bench = Bench::new();
    let mut raw = bench.raw();
    for (line, code) in
        [("{}", "bad_request"), ("[1,2]", "bad_request"), ("\u{0}ä", "bad_request"), ("{\"verb\":7}", "bad_request")]
    {
        raw.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        assert_eq!(next(&mut raw)["error"]["code"], code, "{line:?}");
    }
    raw.get_mut().write_all(&[b'a'; 70_000]).unwrap();
    assert!(next(&mut raw)["error"]["message"].as_str().unwrap().contains("more than 65536 bytes"));
    let mut rest = Vec::new();
    assert_eq!(raw.read_to_end(&mut rest).unwrap_or(0), 0, "the connection is over");
    let mut half = bench.raw();
    half.get_mut().write_all(b"{\"verb\":\"ping\"}").unwrap();
    half.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(next(&mut half)["pong"], true, "the last line needs no newline");
}

#[test]
fn who_goes_away_takes_along_what_he_began() {
    let _turn = TURN.lock();
    let bench = Bench::new();
    let mut quiet = bench.raw();
    quiet.get_mut().write_all(b"{\"verb\":\"follow\"}\n").unwrap();
    assert_eq!(next(&mut quiet)["begun"], true);
    let mut loud = bench.raw();
    loud.get_mut().write_all(b"{\"verb\":\"flood\"}\n").unwrap();
    next(&mut loud);
    assert!(within(Duration::from_secs(5), || FOLLOWING.load(Ordering::SeqCst) == 2));
    let mut other = Client::connect(&bench.place()).unwrap();
    assert!(other.ask_one(&json!({ "verb": "ping" })).is_ok(), "a client that does not read holds up nobody");
    quiet.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(FOLLOWING.load(Ordering::SeqCst), 2, "who only stops asking still listens");
    drop((quiet, loud));
    assert!(within(Duration::from_secs(5), || FOLLOWING.load(Ordering::SeqCst) == 0));
    drop(other);
    assert!(within(Duration::from_secs(5), || bench.server.clients() == 0));
}

#[test]
fn the_server_ends_with_clients_in_it() {
    let _turn = TURN.lock();
    let bench = Bench::new();
    let mut follower = bench.raw();
    follower.get_mut().write_all(b"{\"verb\":\"follow\"}\n").unwrap();
    next(&mut follower);
    let path = bench.server.path().to_owned();
    let begun = Instant::now();
    drop(bench);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(next(&mut follower)["error"]["code"], "stopping");
    assert!(!path.exists());
}

#[test]
fn clients_are_bounded() {
    let _turn = TURN.lock();
    let bench = Bench::new();
    let mut seated: Vec<_> = (0..MOST_CLIENTS).map(|_| bench.raw()).collect();
    let error = Client::connect(&bench.place()).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(refusal) if refusal.code == "busy"), "{error}");
    seated.pop();
    assert!(within(Duration::from_secs(5), || Client::connect(&bench.place()).is_ok()), "a seat is free again");
}

/// Tests that count followers or seats go one by one.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn the_socket_is_for_owner_and_group_and_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deeper/control.sock");
    let first = Listening::bind(&path, None).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "no temporary name is left");
    let second = Listening::bind(&path, None).unwrap_err().to_string();
    assert!(second.contains("another gnomon listens"), "{second}");
    drop(first);
    assert!(!path.exists());
    // Left behind: bound once, nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let error = Client::connect(&Place::Socket(path.clone())).unwrap_err().to_string();
    assert!(error.contains("left behind") && error.contains("is `gnomon run` running?"), "{error}");
    let third = Listening::bind(&path, None).unwrap();
    // Somebody took its place: not ours to remove.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    drop(third);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let error = Listening::bind(&path, None).unwrap_err().to_string();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn errors_of_the_client_teach() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = Client::connect(&Place::Socket(folder.path().join("no.sock"))).unwrap_err().to_string();
    assert!(nowhere.contains("is `gnomon run` running?") && nowhere.contains("--socket"), "{nowhere}");
    let other: PathBuf = folder.path().join("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&other).unwrap();
    let thread = std::thread::spawn(move || {
        for line in ["220 mail\r\n", "{\"gnomon\":\"9.0\",\"protocol\":2,\"pid\":1}\n"] {
            listener.accept().unwrap().0.write_all(line.as_bytes()).unwrap();
        }
    });
    let strange = Client::connect(&Place::Socket(other.clone())).unwrap_err().to_string();
    assert!(strange.contains("no gnomon answers there"), "{strange}");
    let newer = Client::connect(&Place::Any(vec![Path::new("/no/where").into(), other])).unwrap_err().to_string();
    assert!(newer.contains("gnomon 9.0 speaks 2"), "{newer}");
    thread.join().unwrap();
}

#[test]
fn a_group_that_is_not_there_and_places_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::minimal();
    config.control.socket = Some(folder.path().join("x.sock"));
    config.control.group = Some("no-such-group".into());
    let error = format!("{:#}", Listening::open(&config).unwrap_err());
    assert!(error.contains("groupadd no-such-group"), "{error}");
    config.control.group = None;
    config.control.socket = Some(folder.path().join("y".repeat(95)).join("x.sock"));
    let error = format!("{:#}", Listening::open(&config).unwrap_err());
    assert!(error.contains("too long"), "{error}");
    config.control.socket = Some("/proc/gnomon/x.sock".into());
    let error = format!("{:#}", Listening::open(&config).unwrap_err());
    assert!(error.contains("[control] socket") && error.contains("/proc/gnomon/x.sock"), "{error}");
}

proptest! {
    #[test]
    fn requests_are_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(refusal) = Request::parse(&line) {
            prop_assert!(!refusal.message.is_empty());
        }
    }

    #[test]
    fn arguments_survive(verb in "[a-z]{1,8}", number in any::<u64>(), text in ".{0,20}") {
        let line = json!({ "verb": verb, "number": number, "text": text }).to_string();
        let request = Request::parse(line.as_bytes()).unwrap();
        prop_assert_eq!(&request.verb, &verb);
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Arguments { number: u64, text: String }
        let read: Arguments = request.read().unwrap();
        prop_assert_eq!((read.number, read.text), (number, text));
    }
}
