//! The service on a store: what people do to it, restarts, time.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::*;
use crate::filter::JsonLine;
use crate::policy::book::{Learning, LearningState, Pending};
use crate::rules::Decision;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_780_000_000 * SECOND;

struct Lab {
    service: Service,
    clock: Arc<AtomicU64>,
}

impl Lab {
    fn open(path: &Path) -> Self {
        let clock = Arc::new(AtomicU64::new(START));
        let own = clock.clone();
        let plane = Box::new(CompileOnly::new(100_000, Decision::Deny).unwrap());
        let store = Arc::new(Store::open(path).unwrap());
        let first = || super::super::book::files::read(FIRST).unwrap();
        let service = Service::open(store, plane, first, move || own.load(Ordering::Relaxed)).unwrap();
        Self { service, clock }
    }

    fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds * SECOND, Ordering::Relaxed);
        self.service.tick().unwrap();
    }

    fn put(&self, kind: Kind, body: Value, commit: bool) -> Result<Changed, Problem> {
        let change = Change::Put(Noun::read(kind, body).unwrap());
        self.service.change(&anna(), vec![change], &How { commit, why: "test".into(), ..How::default() })
    }

    fn remove(&self, kind: Kind, name: &str) -> Result<Changed, Problem> {
        let how = How { commit: true, ..How::default() };
        self.service.change(&anna(), vec![Change::Remove(Name::new(kind, name))], &how)
    }

    fn has(&self, kind: Kind, name: &str, view: View) -> bool {
        self.service.get(kind, name, view).is_ok()
    }

    fn state(&self) -> (u32, String) {
        (self.service.generation(), self.service.export(View::Running).unwrap())
    }

    /// A flow of an hour, from a web server to an application.
    fn flow(&self, hour: u64, port: u16, flags: &[&str]) {
        let at = crate::export::iso8601(START + hour * 3600 * SECOND);
        let line = json!({
            "event_type": "flow", "src_ip": "10.0.1.1", "src_port": 40000, "dest_ip": "10.0.2.1", "dest_port": port,
            "proto": "TCP", "flow_id": hour,
            "flow": {"pkts_toserver": 5, "pkts_toclient": 4, "bytes_toserver": 500, "bytes_toclient": 400,
                     "start": at, "end": at},
            "tcp": {"tcp_flags_ts": "1b", "tcp_flags_tc": "1b"},
            "gnomon": {"src_groups": ["web"], "dst_groups": ["app"], "action": "allow", "flags": flags},
        });
        self.service.observe([JsonLine(&line)]);
    }
}

fn anna() -> Who {
    Who::new("anna", "admin")
}

const FIRST: &str = r#"
[[vm]]
id = "web-1"
addresses = ["10.0.1.1"]
tags = ["role=web"]
[[vm]]
id = "app-1"
addresses = ["10.0.2.1"]
tags = ["role=app"]
[[group]]
name = "web"
tags = ["role=web"]
[[group]]
name = "app"
tags = ["role=app"]
[[rule]]
id = "web-app"
from = "web"
to = "app"
protocol = "tcp"
ports = [8080, "9000-9010"]
action = "allow"
"#;

fn lab() -> (Lab, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Lab::open(&folder.path().join("p.db")), folder)
}

fn rule(id: &str, port: u16) -> Value {
    json!({ "id": id, "from": "web", "to": "app", "protocol": "tcp", "ports": port, "action": "deny" })
}

#[test]
fn a_draft_is_seen_apart_and_committed_whole() {
    let (lab, folder) = lab();
    assert_eq!(lab.service.generation(), 1, "the first is imported");
    let events = lab.service.listen();
    assert_eq!(lab.put(Kind::Relationship, rule("r1", 22), false).unwrap().into, "draft");
    lab.put(Kind::Relationship, rule("r2", 23), false).unwrap();
    assert!(lab.has(Kind::Relationship, "r1", View::Draft) && !lab.has(Kind::Relationship, "r1", View::Running));
    let error = lab.put(Kind::Relationship, json!({ "id": "r3", "from": "wep", "action": "deny" }), false).unwrap_err();
    assert!(matches!(error, Problem::Refused(Refusal::Missing { .. })), "{error}");
    assert_eq!(lab.service.draft_difference().len(), 2);
    // A restart forgets neither.
    drop(lab);
    let lab = Lab::open(&folder.path().join("p.db"));
    assert!(lab.has(Kind::Relationship, "r2", View::Draft));
    // A generation of its own goes before, and the draft stays on top of it.
    lab.put(Kind::Vm, json!({ "id": "web-2", "addresses": ["10.0.1.2"], "tags": ["role=web"] }), true).unwrap();
    assert!(lab.has(Kind::Vm, "web-2", View::Draft) && lab.has(Kind::Relationship, "r1", View::Draft));
    assert!(lab.service.validate().unwrap().is_empty());
    let committed = lab.service.commit(&anna(), Commit { why: "ports".into(), ..Commit::default() }).unwrap();
    assert_eq!((committed.generation, committed.changes), (3, 2));
    assert!(lab.service.draft().is_empty() && lab.has(Kind::Relationship, "r2", View::Running));
    let nothing = lab.service.commit(&anna(), Commit::default()).unwrap_err();
    assert!(matches!(nothing, Problem::Conflict(_)), "{nothing}");
    let history = lab.service.history(None, 10).unwrap();
    let brief: Vec<(u32, &str, u64, bool)> =
        history.iter().map(|g| (g.number, g.why.as_str(), g.changes, g.running)).collect();
    let import = "imported from the configuration";
    assert_eq!(brief, [(3, "ports", 2, true), (2, "test", 1, false), (1, import, 5, false)]);
    assert_eq!(lab.service.difference(1, 3).unwrap().len(), 3);
    assert_eq!(events.try_iter().map(|event| event.kind).collect::<Vec<_>>(), ["draft", "draft"]);
    let verified = lab.service.store().verify_audit().unwrap();
    assert_eq!((verified.rows, verified.broken), (5, None));
}

#[test]
fn generations_go_back() {
    let (lab, _folder) = lab();
    let first = lab.state().1;
    lab.put(Kind::Relationship, rule("r1", 22), true).unwrap();
    // Two VMs change addresses, and one goes.
    let both = [("web-1", "10.0.2.1"), ("app-1", "10.0.1.1")];
    let swap = both.map(|(id, address)| {
        Change::Put(Noun::read(Kind::Vm, json!({ "id": id, "addresses": [address], "tags": ["role=web"] })).unwrap())
    });
    lab.service.change(&anna(), swap.to_vec(), &How { commit: true, ..How::default() }).unwrap();
    lab.remove(Kind::Relationship, "web-app").unwrap();
    lab.remove(Kind::Group, "web").unwrap_err();
    let before = lab.state().1;
    assert_ne!(first, before);
    lab.service.rollback(&anna(), 1, "").unwrap();
    assert_eq!(lab.state(), (5, first.clone()));
    assert!(matches!(lab.service.rollback(&anna(), 1, ""), Err(Problem::Conflict(_))), "there already");
    assert!(matches!(lab.service.rollback(&anna(), 9, ""), Err(Problem::Missing(_))));
    lab.service.rollback(&anna(), 4, "no, that was right").unwrap();
    assert_eq!(lab.state(), (6, before));
}

#[test]
fn what_nobody_confirms_goes_back_by_itself() {
    let (lab, folder) = lab();
    let path = folder.path().join("p.db");
    lab.put(Kind::Relationship, rule("r1", 22), false).unwrap();
    let commit = || Commit { confirm: Some(Duration::from_secs(300)), ..Commit::default() };
    lab.service.commit(&anna(), commit()).unwrap();
    // Others go on meanwhile.
    lab.put(Kind::Vm, json!({ "id": "web-2", "addresses": ["10.0.1.2"], "tags": ["role=web"] }), true).unwrap();
    lab.pass(299);
    assert!(lab.has(Kind::Relationship, "r1", View::Running));
    drop(lab);
    let lab = Lab::open(&path);
    assert!(lab.has(Kind::Relationship, "r1", View::Running), "the time goes on after a restart");
    lab.pass(301);
    assert!(!lab.has(Kind::Relationship, "r1", View::Running) && lab.has(Kind::Vm, "web-2", View::Running));
    assert!(matches!(lab.service.confirm(&anna()), Err(Problem::Conflict(_))));
    let generation = lab.service.generation();
    lab.pass(1000);
    assert_eq!(lab.service.generation(), generation, "once");
    lab.put(Kind::Relationship, rule("r1", 22), false).unwrap();
    lab.service.commit(&anna(), commit()).unwrap();
    lab.service.confirm(&anna()).unwrap();
    lab.pass(1000);
    assert!(lab.has(Kind::Relationship, "r1", View::Running));
}

#[test]
fn what_expires_goes() {
    let (lab, _folder) = lab();
    let expires = crate::export::iso8601(START + 60 * SECOND);
    let mut body = rule("r1", 22);
    body["expires"] = json!(expires);
    lab.put(Kind::Relationship, body, true).unwrap();
    lab.pass(59);
    assert!(lab.has(Kind::Relationship, "r1", View::Running));
    lab.pass(2);
    assert!(!lab.has(Kind::Relationship, "r1", View::Running));
    assert!(
        lab.service.history(None, 1).unwrap()[0].why.contains("expired: put")
            || lab.service.history(None, 1).unwrap()[0].why.contains("remove relationship r1")
    );
}

#[test]
fn changes_are_checked_against_what_was_read() {
    let (lab, _folder) = lab();
    let thing = lab.service.get(Kind::Group, "web", View::Running).unwrap();
    let put = |if_match: Option<String>, if_absent: bool, dry_run: bool, comment: &str| {
        let noun = Noun::read(Kind::Group, json!({ "name": "web", "tags": ["role=web"], "comment": comment })).unwrap();
        let how = How { commit: true, if_match, if_absent, dry_run, ..How::default() };
        lab.service.change(&anna(), vec![Change::Put(noun)], &how)
    };
    assert_eq!(put(Some(thing.etag.clone()), false, true, "a").unwrap().into, "nothing");
    assert_eq!(lab.service.generation(), 1);
    put(Some(thing.etag.clone()), false, false, "a").unwrap();
    assert!(matches!(put(Some(thing.etag), false, false, "b"), Err(Problem::Changed { .. })));
    assert!(matches!(put(None, true, false, "b"), Err(Problem::Conflict(_))));
    put(Some("*".into()), false, false, "b").unwrap();
}

#[test]
fn a_group_learns_enforces_and_asks() {
    let (lab, folder) = lab();
    let settings = Learning { min_days: 2, ..Learning::default() };
    lab.service.learn(&anna(), "web", settings).unwrap();
    assert!(matches!(lab.service.finish(&anna(), "web", true), Err(Problem::Conflict(_))), "nothing was learnt");
    (0..72).for_each(|hour| lab.flow(hour, 8080, &[]));
    lab.flow(3, 22, &[]);
    lab.flow(30, 4444, &["port_scan"]);
    lab.service.keep_lessons().unwrap();
    drop(lab);
    let lab = Lab::open(&folder.path().join("p.db"));
    let graph = lab.service.graph("web").unwrap();
    assert_eq!((graph.flows, graph.edges.len()), (74, 1), "after a restart, and without what is rare or an attack");
    lab.service.finish(&anna(), "web", true).unwrap();
    let rules = |lab: &Lab| lab.service.rules(View::Running, None, 100).len();
    assert_eq!(rules(&lab), 4, "one written, one learnt, two that deny the rest");
    assert!(lab.service.graph("web").is_err());

    // A mirrored group follows every answer.
    lab.put(Kind::Group, json!({ "name": "new", "tags": ["role=new"] }), true).unwrap();
    lab.put(Kind::Profile, json!({ "name": "p", "source": "web", "target": "new" }), true).unwrap();
    assert_eq!(rules(&lab), 7);
    (80..90).for_each(|hour| lab.flow(hour, 5432, &[]));
    lab.flow(85, 4444, &["port_scan"]);
    lab.flow(85, 8080, &[]);
    lab.pass(1);
    let pending = |lab: &Lab| lab.service.inbox(Some(InboxState::Pending), None, 100);
    let items = pending(&lab);
    assert_eq!((items.len(), items[0].item.connection.to_string()), (1, "web > app tcp 5432".to_owned()));
    assert_eq!(items[0].item.evidence.flows, 10);
    drop(lab);
    let lab = Lab::open(&folder.path().join("p.db"));
    assert_eq!(pending(&lab), items, "the inbox outlives a restart");
    let answer = |approve: bool, lasting: Lasting| Answer {
        ids: vec![items[0].id.clone()],
        approve,
        lasting,
        reason: "ok".into(),
    };
    let generation = lab.service.generation();
    lab.service.answer(&anna(), &answer(true, Lasting::Hour)).unwrap();
    assert_eq!((lab.service.generation(), rules(&lab)), (generation + 1, 9), "one generation, learnt and mirrored");
    assert!(matches!(lab.service.answer(&anna(), &answer(false, Lasting::Good)), Err(Problem::Conflict(_))));
    lab.flow(91, 5432, &[]);
    lab.pass(1);
    assert!(pending(&lab).is_empty());
    lab.pass(3601);
    assert_eq!(rules(&lab), 7, "an answer for an hour");
    lab.flow(99, 5432, &[]);
    lab.pass(1);
    assert_eq!(pending(&lab).len(), 1, "it is unknown again");
    lab.service.answer(&anna(), &answer(false, Lasting::Good)).unwrap();
    let denied = lab.service.rules(View::Running, None, 100).into_iter().filter(|(rule, _)| rule.priority == 2000);
    assert_eq!(denied.count(), 1);
    lab.flow(100, 5432, &[]);
    lab.pass(1);
    assert!(pending(&lab).is_empty());
    assert!(lab.service.store().verify_audit().unwrap().broken.is_none());
}

#[test]
fn stability_ends_learning_and_nobody_answering_creates_nothing() {
    let (lab, _folder) = lab();
    let settings = Learning { stable_days: 2, pending: Pending::Allow, ..Learning::default() };
    lab.service.learn(&anna(), "web", settings).unwrap();
    (0..40).for_each(|hour| lab.flow(hour, 8080, &[]));
    lab.pass(31);
    assert_eq!(lab.service.lessons()[0].state, LearningState::Learning);
    (40..60).for_each(|hour| lab.flow(hour, 8080, &[]));
    lab.pass(31);
    assert_eq!(lab.service.lessons()[0].state, LearningState::Enforcing);
    let generation = lab.service.generation();
    lab.flow(61, 22, &[]);
    lab.pass(1);
    lab.flow(61 + 8 * 24, 8080, &[]);
    lab.pass(1);
    assert_eq!(
        lab.service.inbox(None, None, 9).iter().map(|item| item.state).collect::<Vec<_>>(),
        [InboxState::Expired]
    );
    assert_eq!(lab.service.generation(), generation);
}

#[test]
fn suggestions_are_put_in_force_and_answers_remembered() {
    let (lab, folder) = lab();
    // A rule for ports that nobody uses, and one port that is used all the time.
    lab.put(
        Kind::Relationship,
        json!({ "id": "wide", "from": "app", "to": "web", "protocol": "tcp", "ports": "1-9000",
        "action": "allow" }),
        true,
    )
    .unwrap();
    (0..200).for_each(|hour| lab.flow(hour, 8080, &[]));
    let open = lab.service.suggestions(Standing::Open, 10).unwrap();
    let retire = open.iter().find(|one| one.suggestion.change.text().contains("wide")).expect("it is unused").clone();
    let accepted = lab.service.accept(&anna(), &retire.id, "right", None).unwrap();
    assert!(!lab.has(Kind::Relationship, "wide", View::Running));
    assert_eq!(accepted.generation, Some(lab.service.generation()));
    assert!(matches!(lab.service.reject(&anna(), &retire.id, ""), Err(Problem::Conflict(_))), "it has its answer");
    let trust = |lab: &Lab| serde_json::to_value(lab.service.account()).unwrap();
    let before = trust(&lab);
    lab.service.rollback(&anna(), accepted.generation.unwrap() - 1, "it was needed").unwrap();
    assert_eq!(lab.service.suggestion(&retire.id).unwrap().state, Standing::Returned);
    assert_ne!(trust(&lab), before, "a rollback is an answer too");
    let after = trust(&lab);
    drop(lab);
    let lab = Lab::open(&folder.path().join("p.db"));
    assert_eq!(trust(&lab), after, "and outlives a restart");
    assert!(matches!(lab.service.suggestion("retire-000000000000"), Err(Problem::Missing(_))));
}
