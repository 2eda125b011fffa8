//! The policy API as clients see it: who may do what, what is refused and how, changes, events, TLS, limits.

#[path = "api/served.rs"]
mod served;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use gnomon::api::{ApiError, ApiServer};
use gnomon::config::{Api, ApiClient, ApiTls};
use serde_json::{Value, json};
use served::{Got, Served};

/// What each operation asks of whoever wants it, written down a second time.
fn expected() -> BTreeMap<(&'static str, &'static str), Option<&'static str>> {
    let mut table = BTreeMap::new();
    table.insert(("get", "/openapi.json"), None);
    table.insert(("get", "/docs"), None);
    for things in ["/vms", "/groups", "/relationships", "/learned", "/profiles", "/overrides"] {
        let one: &'static str = format!("{things}/{{name}}").leak();
        table.extend([(("get", things), Some("viewer")), (("get", one), Some("viewer"))]);
        for change in [("post", things), ("put", one), ("delete", one)] {
            table.insert(change, Some("operator"));
        }
    }
    let viewer = [
        "/events",
        "/profiles/{name}/preview",
        "/tags",
        "/tags/{name}",
        "/rules",
        "/rules/{name}",
        "/learning",
        "/learning/{name}/graph",
        "/inbox",
        "/inbox/{name}",
        "/policy",
        "/suggestions",
        "/suggestions/{name}",
        "/feedback",
        "/policy/history",
        "/policy/export",
        "/policy/draft",
        "/policy/diff",
        "/audit",
        "/audit/verify",
    ];
    table.extend(viewer.map(|path| (("get", path), Some("viewer"))));
    let operator = ["/tags/{name}", "/inbox/answers", "/policy/validate", "/policy/apply"];
    table.extend(operator.map(|path| (("post", path), Some("operator"))));
    table.insert(("delete", "/policy/draft"), Some("operator"));
    let admin = [
        "/learning/{name}/start",
        "/learning/{name}/stop",
        "/suggestions/{name}/answer",
        "/policy/commit",
        "/policy/confirm",
        "/policy/rollback",
    ];
    table.extend(admin.map(|path| (("post", path), Some("admin"))));
    table
}

/// Methods and paths of the document.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods");
        methods.iter().map(move |(method, operation)| (method.clone(), path.clone(), operation.clone()))
    });
    all.collect()
}

#[test]
fn everybody_may_do_what_the_role_allows_and_nothing_else() {
    let served = Served::start();
    let document = served.get("/openapi.json", None).json();
    let expected = expected();
    let mut seen = 0;
    for (method, path, operation) in operations(&document) {
        let short = path.strip_prefix("/api/v1").expect("the base");
        let key = (method.as_str(), short);
        let least = expected.iter().find(|(known, _)| **known == key).map(|(_, least)| *least);
        let least = least.unwrap_or_else(|| panic!("{method} {path} is not in this test's table"));
        seen += 1;
        assert_eq!(operation["x-least-role"].as_str(), least, "{method} {path}");
        let body = operation.get("requestBody").map(|_| json!({}));
        let place = short.replace("{name}", "no-such-thing");
        for (who, rank) in [("nobody", 0), ("stranger", 0), ("viewer", 1), ("operator", 2), ("admin", 3)] {
            let token = served.token(who);
            let got = served.ask(&method.to_uppercase(), &place, token.as_deref(), &[], body.as_ref());
            let needed = least.map_or(0, |least| {
                1 + ["viewer", "operator", "admin"].iter().position(|r| *r == least).expect("a role")
            });
            let refused = match (rank, needed) {
                (rank, needed) if rank >= needed => None,
                (0, _) => Some(401),
                _ => Some(403),
            };
            match refused {
                Some(status) => assert_eq!(got.status, status, "{method} {path} by {who}: {}", got.text),
                None => assert!(![401, 403].contains(&got.status), "{method} {path} by {who}: {}", got.text),
            }
            if got.status >= 400 {
                assert!(
                    operation["responses"].get(got.status.to_string()).is_some(),
                    "{method} {path}: {} is not in the document",
                    got.status
                );
            }
        }
    }
    assert_eq!(seen, expected.len(), "the document lacks operations of this test's table");
}

#[test]
fn an_operator_does_not_put_anything_in_force() {
    let served = Served::start();
    let (operator, admin) = (served.token("operator"), served.token("admin"));
    let vm = json!({ "id": "web-1", "addresses": ["10.0.1.10"] });
    let ask = |token: &Option<String>, query: &str| {
        served.ask("POST", &format!("/vms{query}"), token.as_deref(), &[], Some(&vm))
    };
    let got = ask(&operator, "?at_once=true");
    assert_eq!((got.status, got.json()["code"].as_str()), (403, Some("forbidden")), "{}", got.text);
    assert_eq!(ask(&operator, "?at_once=true&dry_run=true").status, 200);
    let got = ask(&admin, "?at_once=true");
    assert_eq!((got.status, &got.json()["generation"]), (201, &json!(2)), "{}", got.text);
    let audit = served.get("/audit", admin.as_deref()).json();
    assert_eq!((&audit["items"][0]["who"], &audit["items"][0]["role"]), (&json!("admin"), &json!("admin")));
}

fn is_problem(got: &Got, status: u16, says: &str) {
    assert_eq!(got.status, status, "{}", got.text);
    assert_eq!(got.header("content-type"), "application/problem+json", "{}", got.text);
    let problem = got.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], "about:blank");
    assert!(problem["title"].is_string() && problem["code"].is_string(), "{problem}");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains(says), "`{says}` is not in: {detail}");
}

#[test]
fn every_refusal_is_a_problem_that_says_what_to_do() {
    let served = Served::start();
    let token = served.token("operator");
    let ask = |method: &str, path: &str, body: Option<&Value>| served.ask(method, path, token.as_deref(), &[], body);
    let raw = |kind: &str, body: &[u8]| served.send("POST", "/vms", token.as_deref(), &[("content-type", kind)], body);
    is_problem(&ask("GET", "/nothing", None), 404, "/api/v1/docs");
    let got = ask("DELETE", "/vms", None);
    is_problem(&got, 405, "GET, POST, HEAD");
    assert_eq!(got.header("allow"), "GET, POST, HEAD");
    is_problem(&raw("application/json", b"{ not json"), 400, "not JSON");
    is_problem(&raw("application/json", b"{}\xff"), 400, "not JSON");
    is_problem(&raw("text/plain", b"{}"), 415, "application/json");
    is_problem(&ask("POST", "/vms", Some(&json!({ "id": 5 }))), 422, "string");
    let got = ask("POST", "/vms", Some(&json!({ "id": "a", "adresses": [] })));
    is_problem(&got, 422, "adresses");
    let got = ask("POST", "/vms", Some(&json!({ "id": "a", "addresses": ["10.0.0.300"] })));
    is_problem(&got, 422, "10.0.0.300");
    assert_eq!(got.json()["errors"][0]["pointer"], "/addresses/0");
    is_problem(&ask("GET", "/vms?lmit=5", None), 400, "there is: view, tag, limit, after");
    is_problem(&ask("GET", "/vms?limit=0", None), 400, "1 to 1000");
    is_problem(&ask("GET", "/vms?after=%21", None), 400, "`next`");
    is_problem(&ask("GET", "/vms/%ff", None), 400, "UTF-8");
    is_problem(&ask("GET", "/vms/none", None), 404, "none");
    is_problem(&ask("DELETE", "/vms/none", None), 404, "none");
    let rule = json!({ "from": "web", "to": "any", "action": "allow" });
    is_problem(&ask("POST", "/relationships", Some(&rule)), 422, "web");
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let served = Served::start();
    let token = served.token("operator").expect("a token");
    let mut stream = TcpStream::connect(served.server.address()).expect("connected");
    write!(
        stream,
        "POST /api/v1/vms HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: 99999999\r\nconnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("application/problem+json"), "{answer}");
}

#[test]
fn changes_need_the_tag_of_what_was_read() {
    let served = Served::start();
    let token = served.token("operator");
    let ask = |method: &str, path: &str, tag: Option<&str>, body: Option<&Value>| {
        let headers: Vec<(&str, &str)> = tag.iter().map(|tag| ("if-match", *tag)).collect();
        served.ask(method, path, token.as_deref(), &headers, body)
    };
    let vm = |address: &str| json!({ "id": "web-1", "addresses": [address], "tags": ["role=web"] });
    let dry = ask("POST", "/vms?dry_run=true", None, Some(&vm("10.0.1.10")));
    assert_eq!((dry.status, dry.json()["into"].as_str()), (200, Some("nothing")), "{}", dry.text);
    assert_eq!(ask("GET", "/vms/web-1", None, None).status, 404, "a dry run leaves nothing behind");
    let made = ask("POST", "/vms", None, Some(&vm("10.0.1.10")));
    assert_eq!((made.status, made.header("location")), (201, "/api/v1/vms/web-1"), "{}", made.text);
    assert_eq!(ask("POST", "/vms", None, Some(&vm("10.0.1.11"))).status, 409, "it is there");
    let read = ask("GET", "/vms/web-1", None, None);
    let first = read.header("etag").to_owned();
    assert_eq!(made.header("etag"), first);
    is_problem(&ask("PUT", "/vms/web-1", None, Some(&vm("10.0.1.11"))), 428, "If-Match");
    is_problem(&ask("PUT", "/vms/web-1", Some("web"), Some(&vm("10.0.1.11"))), 400, "quotes");
    let changed = ask("PUT", "/vms/web-1", Some(&first), Some(&vm("10.0.1.11")));
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_ne!(changed.header("etag"), first);
    is_problem(&ask("PUT", "/vms/web-1", Some(&first), Some(&vm("10.0.1.12"))), 412, "changed");
    is_problem(&ask("DELETE", "/vms/web-1", Some(&first), None), 412, "changed");
    let either = format!("\"0\", {}", changed.header("etag"));
    assert_eq!(ask("PUT", "/vms/web-1", Some(&either), Some(&vm("10.0.1.12"))).status, 200);
    is_problem(&ask("PUT", "/vms/other", Some("*"), Some(&vm("10.0.1.12"))), 422, "another name");
    is_problem(&ask("DELETE", "/vms/web-1", None, None), 428, "If-Match");
    assert_eq!(ask("DELETE", "/vms/web-1", Some("*"), None).status, 200);
    let new = json!({ "id": "web-2" });
    assert_eq!(ask("PUT", "/vms/web-2", Some("*"), Some(&new)).status, 412, "it is not there");
    assert_eq!(ask("PUT", "/vms/web-2", None, Some(&new)).status, 201);
}

#[test]
fn a_draft_is_committed_confirmed_and_rolled_back() {
    let served = Served::start();
    let admin = served.token("admin");
    let ask =
        |method: &str, path: &str, body: Option<Value>| served.ask(method, path, admin.as_deref(), &[], body.as_ref());
    let good = |got: Got| {
        assert!(got.status < 300, "{}: {}", got.status, got.text);
        got.json()
    };
    is_problem(&ask("POST", "/policy/commit", Some(json!({}))), 409, "empty");
    good(ask("POST", "/vms", Some(json!({ "id": "web-1", "addresses": ["10.0.1.10"], "tags": ["role=web"] }))));
    good(ask("POST", "/groups", Some(json!({ "name": "web", "tags": ["role=web"] }))));
    good(ask("POST", "/groups", Some(json!({ "name": "db", "cidrs": ["10.0.2.0/24"] }))));
    // The other spelling of the fields.
    let rule = json!({ "sourceGroupName": "web", "destinationGroupName": "db", "protocol": "tcp", "portRange": "5432", "action": "allow", "priority": 100 });
    let made = ask("POST", "/relationships", Some(rule));
    let place = made.header("location").strip_prefix("/api/v1").expect("the base").to_owned();
    good(made);
    assert_eq!(good(ask("GET", &place, None))["ports"], "5432");
    assert_eq!(good(ask("GET", "/rules?view=running", None))["items"], json!([]));
    let rules = good(ask("GET", "/rules", None))["items"].clone();
    assert_eq!((&rules[0]["from"], &rules[0]["ports"]), (&json!(["web"]), &json!(["5432"])));
    let differences = good(ask("GET", "/policy/diff", None))["items"].as_array().expect("a list").len();
    assert_eq!(differences, 4);
    assert_eq!(good(ask("POST", "/policy/validate", None))["waiting"], 4);
    let committed = good(ask("POST", "/policy/commit", Some(json!({ "why": "first", "confirm_within": 300 }))));
    assert_eq!((&committed["generation"], committed["confirm_by"].is_string()), (&json!(2), true));
    assert_eq!(good(ask("POST", "/policy/confirm", None))["generation"], 2);
    is_problem(&ask("POST", "/policy/confirm", None), 409, "no generation waits");
    assert_eq!(good(ask("GET", "/rules?view=running", None))["items"].as_array().map(Vec::len), Some(1));
    good(ask("POST", "/tags/role=web?at_once=true", Some(json!({ "remove": ["web-1"] }))));
    assert_eq!(good(ask("GET", "/policy", None))["generation"], 3);
    assert_eq!(good(ask("POST", "/policy/rollback", Some(json!({ "generation": 2 }))))["generation"], 4);
    assert_eq!(good(ask("GET", "/tags/role=web", None))["vms"], json!(["web-1"]));
    is_problem(&ask("POST", "/policy/rollback", Some(json!({ "generation": 99 }))), 404, "99");
    let history = good(ask("GET", "/policy/history?limit=2", None));
    assert_eq!((&history["items"][0]["back_to"], history["next"].is_string()), (&json!(2), true));
    assert_eq!(good(ask("GET", "/audit/verify", None))["broken"], Value::Null);
    // The whole policy, as a file, and back.
    let file = ask("GET", "/policy/export", None);
    assert_eq!(file.header("content-type"), "application/toml");
    let things = gnomon::policy::book::files::read(&file.text).expect("a file");
    let same = good(ask("POST", "/policy/apply?dry_run=true", Some(json!({ "things": things }))));
    assert_eq!(same["changes"], 0);
    let gone = good(ask("POST", "/policy/apply?at_once=true", Some(json!({ "things": [] }))));
    assert_eq!((&gone["changes"], &gone["generation"]), (&json!(4), &json!(5)));
}

#[test]
fn lists_come_in_pieces() {
    let served = Served::start();
    let admin = served.token("admin");
    let things: Vec<Value> =
        (0..25).map(|n| json!({ "vm": { "id": format!("vm-{n:02}"), "addresses": [] } })).collect();
    let got =
        served.ask("POST", "/policy/apply?at_once=true", admin.as_deref(), &[], Some(&json!({ "things": things })));
    assert_eq!(got.status, 200, "{}", got.text);
    let (mut path, mut seen) = ("/vms?limit=10".to_owned(), Vec::new());
    loop {
        let page = served.get(&path, admin.as_deref()).json();
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 10);
        seen.extend(items.iter().map(|vm| vm["id"].as_str().expect("an id").to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/vms?limit=10&after={next}");
    }
    assert_eq!(seen, (0..25).map(|n| format!("vm-{n:02}")).collect::<Vec<_>>());
}

#[test]
fn events_come_as_they_happen() {
    let served = Served::start();
    let (viewer, operator) = (served.token("viewer").expect("a token"), served.token("operator"));
    let mut stream = TcpStream::connect(served.server.address()).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    write!(stream, "GET /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {viewer}\r\n\r\n").expect("sent");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
    assert!(lines.next().expect("a status").contains("200"));
    assert!(lines.by_ref().take_while(|line| !line.is_empty()).any(|line| line == "content-type: text/event-stream"));
    assert!(lines.by_ref().any(|line| line.starts_with("retry: ")));
    let got = served.ask("POST", "/vms", operator.as_deref(), &[], Some(&json!({ "id": "web-1" })));
    assert_eq!(got.status, 201, "{}", got.text);
    assert!(lines.by_ref().any(|line| line == "event: draft"));
    assert_eq!(lines.next().as_deref(), Some("data: {\"changes\":1}"));
    // A server that ends does not wait for who listens.
    let before = Instant::now();
    drop(served);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[test]
fn who_asks_too_often_waits() {
    let served = Served::with(&Api { rate: 5, ..Api::default() });
    let (viewer, operator) = (served.token("viewer"), served.token("operator"));
    let got: Vec<Got> = (0..15).map(|_| served.get("/policy", viewer.as_deref())).collect();
    let refused: Vec<&Got> = got.iter().filter(|got| got.status == 429).collect();
    assert!(got[..5].iter().all(|got| got.status == 200) && !refused.is_empty());
    is_problem(refused[0], 429, "[api] rate");
    assert!(refused[0].header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1));
    assert_eq!(served.get("/policy", operator.as_deref()).status, 200, "others are not held up");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(served.get("/policy", viewer.as_deref()).status, 200);
}

#[test]
fn others_reach_it_only_with_certificate_and_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = served::certificates(folder.path());
    let open = "0.0.0.0:0".parse().expect("an address");
    let tls = ApiTls { certificate: files.certificate.clone(), key: files.key.clone(), client_ca: None };
    let with_tls = Api { tls: Some(tls), ..Api::default() };
    let try_it = |settings: &Api, with_token: bool| -> Result<(), ApiError> {
        let folder = tempfile::tempdir().expect("a folder");
        let (service, path) = served::service(folder.path());
        let store = gnomon::store::Store::open(&path).expect("a store");
        if with_token {
            served::add_tokens(&store);
        }
        ApiServer::start(settings, open, store, service).map(drop)
    };
    let error = try_it(&Api::default(), true).expect_err("no certificate").to_string();
    assert!(error.contains("[api] certificate") && error.contains("127.0.0.1"), "{error}");
    let error = try_it(&with_tls, false).expect_err("no token").to_string();
    assert!(error.contains("gnomon token create"), "{error}");
    assert!(try_it(&with_tls, true).is_ok());
    let missing = ApiTls { certificate: "/none.pem".into(), key: files.key, client_ca: None };
    let error = try_it(&Api { tls: Some(missing), ..Api::default() }, true).expect_err("no file").to_string();
    assert!(error.contains("/none.pem") && error.contains("certificate"), "{error}");
}

#[test]
fn certificates_speak_for_server_and_client() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = served::certificates(folder.path());
    let tls = ApiTls {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        client_ca: Some(files.authority.clone()),
    };
    let client = |name: &str, role| ApiClient { name: name.into(), role };
    let clients = vec![client("ops", gnomon::api::Role::Operator)];
    let served = Served::with(&Api { tls: Some(tls), rate: 100_000, clients, ..Api::default() });
    let url = served.server.url();
    assert!(url.starts_with("https://"));
    let port = served.server.address().port();
    let cli = |extra: &[&str]| {
        let ca = files.authority.display().to_string();
        let url = format!("https://localhost:{port}");
        let mut arguments = vec!["vm", "add", "web-1", "--url", &url, "--ca", &ca];
        arguments.extend(extra);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gnomon"));
        let command = command.args(arguments).env_remove("GNOMON_TOKEN").env("HOME", folder.path());
        let output = command.output().expect("the program");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (good, told) = cli(&[]);
    assert!(!good && told.contains("a token is needed"), "{told}");
    let identity = |name: &str| [files.client(name, "pem"), files.client(name, "key")];
    let [cert, key] = identity("stranger");
    let (good, told) = cli(&["--cert", &cert, "--key", &key]);
    assert!(!good && told.contains("`stranger` has no role"), "{told}");
    let [cert, key] = identity("forged");
    let (good, told) = cli(&["--cert", &cert, "--key", &key]);
    assert!(!good && !told.contains("in the draft"), "of another authority: {told}");
    let [cert, key] = identity("ops");
    let (good, told) = cli(&["--cert", &cert, "--key", &key]);
    assert!(good && told.contains("in the draft"), "{told}");
    let token = served.token("viewer").expect("a token");
    let (good, told) = cli(&["--token", &token]);
    assert!(!good && told.contains("needs operator"), "{told}");
    // Whoever speaks HTTP there is let go.
    let plain = served.get("/policy", None);
    assert_eq!(plain.status, 0, "{}", plain.text);
}
