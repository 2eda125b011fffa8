//! Some days are learnt, the next are judged by what was learnt; new VMs get the policy of their like by mirroring.
//! `GNOMON_DAYS=7 GNOMON_RATE=0.1` learns and enforces a week each (two times seven minutes or so, 5 GB at a time in TMPDIR).

#![allow(clippy::unwrap_used)]

#[path = "common/relations.rs"]
mod relations;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gnomon::filter::JsonLine;
use gnomon::policy::book::{Change, Group, Kind, Learning, Noun, Profile, files};
use gnomon::policy::service::{CompileOnly, How, InboxState, Service, View, Who};
use gnomon::rules::{Decision, Policy};
use gnomon::store::Store;
use relations::truth;
use serde_json::Value;

const FIRST_WEEK: &str = "web=9,app=12,db=6,dns=2,admin=4,iot=16,clients=40";
const SECOND_WEEK: &str = "web=12,app=12,db=6,dns=2,admin=4,iot=24,clients=40";
const LEARNT: [&str; 6] = ["web", "app", "db", "dns", "admin", "iot"];
/// Groups that VMs are added to.
const GROWING: [&str; 2] = ["web", "iot"];

fn gnomon(arguments: &[String]) {
    let output = Command::new(env!("CARGO_BIN_EXE_gnomon")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn setting<T: std::str::FromStr>(name: &str, usual: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

struct Week {
    folder: PathBuf,
}

impl Week {
    fn make(folder: PathBuf, groups: &str, start: &str, seed: u64) -> Self {
        let (days, rate) = (setting("GNOMON_DAYS", 3_u32), setting("GNOMON_RATE", 0.08_f64));
        let words = [
            "scenario".to_owned(),
            format!("--output={}", folder.display()),
            format!("--groups={groups}"),
            format!("--minutes={}", days * 1440),
            format!("--rate={rate}"),
            format!("--start={start}"),
            format!("--seed={seed}"),
            "--attacks=daily=6".to_owned(),
            "--oddities=daily=2".to_owned(),
        ];
        gnomon(&words);
        Self { folder }
    }

    fn at(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Leaves records and alerts, and no packets.
    fn replay(&self, config: &str, more: &[String]) {
        let words =
            ["replay".to_owned(), self.at("scenario.pcap"), "-c".into(), self.at(config), "-o".into(), self.at("out")];
        gnomon(&[&words[..], more].concat());
        for entry in std::fs::read_dir(self.folder.join("out")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "pcap") {
                std::fs::remove_file(path).unwrap();
            }
        }
        std::fs::remove_file(self.at("scenario.pcap")).unwrap();
    }

    /// Everything passes, as while learning.
    fn opened(&self) {
        let strict = std::fs::read_to_string(self.at("scenario.toml")).unwrap();
        std::fs::write(self.at("open.toml"), strict.replace("default = \"deny\"", "default = \"allow\"")).unwrap();
    }

    fn lines(&self, name: &str) -> impl Iterator<Item = Value> + use<> {
        let file = std::fs::File::open(self.folder.join(name)).unwrap();
        BufReader::new(file).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
    }
}

/// VMs and groups of the second week: those that the first did not have carry another tag.
fn nouns(first: &Week, second: &Week) -> Vec<Noun> {
    let read = |week: &Week| {
        let text = std::fs::read_to_string(week.at("scenario.toml")).unwrap();
        files::of_configuration(&text, &Policy::default()).unwrap()
    };
    let known: BTreeSet<String> = read(first).iter().map(|noun| noun.name().to_owned()).collect();
    let mut nouns: Vec<Noun> = read(second).into_iter().filter(|noun| noun.kind() != Kind::Relationship).collect();
    for noun in &mut nouns {
        match noun {
            Noun::Vm(vm) if !known.contains(&vm.id) => {
                vm.tags = vm.tags.iter().map(|tag| format!("{tag}-new")).collect();
            }
            Noun::Group(group) if LEARNT.contains(&&*group.name) => {
                group.learning = Some(Learning { min_days: 2, ..Learning::default() });
            }
            _ => {}
        }
    }
    let fresh = GROWING.map(|name| {
        Noun::Group(Group {
            name: format!("{name}-new"),
            tags: [format!("role={name}-new")].into(),
            ..Group::default()
        })
    });
    nouns.extend(fresh);
    nouns
}

fn service(path: &Path, nouns: Vec<Noun>, clock: Arc<AtomicU64>) -> Service {
    let plane = Box::new(CompileOnly::new(100_000, Decision::Deny).unwrap());
    let store = Arc::new(Store::open(path).unwrap());
    Service::open(store, plane, || nouns, move || clock.load(Ordering::Relaxed)).unwrap()
}

/// Learns a week, in the order of time, with the parties of attacks left out as `gnomon learn graph --alerts` does.
fn learn(service: &Service, week: &Week) {
    let mut attackers: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for alert in week.lines("out/alerts.jsonl") {
        let it = &alert["gnomon"];
        let time = |name: &str| {
            let text = it[name].as_str().or_else(|| alert[name].as_str())?;
            gnomon::filter::instant(text)
        };
        let usual = ["outlier", "new_relationship", "volume"].contains(&it["kind"].as_str().unwrap());
        if let (Some(actor), Some(start), Some(end), false) = (it["actor"].as_str(), time("start"), time("end"), usual)
        {
            attackers.entry(actor.to_owned()).or_default().push((start, end));
        }
    }
    let attacks = |flow: &Value| {
        let at = |name: &str| gnomon::filter::instant(flow["flow"][name].as_str().unwrap()).unwrap();
        ["src_ip", "dest_ip"].iter().any(|side| {
            let times = attackers.get(flow[*side].as_str().unwrap_or("")).map(Vec::as_slice).unwrap_or_default();
            times.iter().any(|(start, end)| at("start") <= *end && at("end") >= *start)
        })
    };
    for flow in week.lines("out/flows.jsonl").filter(|flow| !attacks(flow)) {
        service.observe([JsonLine(&flow)]);
    }
}

#[test]
fn what_was_learnt_holds_for_the_days_that_follow() {
    let folder = tempfile::tempdir().unwrap();
    let seed = setting("GNOMON_SEED", 51);
    let first = Week::make(folder.path().join("first"), FIRST_WEEK, "2025-01-13T00:00", seed);
    first.opened();
    first.replay("open.toml", &[]);
    let second = Week::make(folder.path().join("second"), SECOND_WEEK, "2025-01-20T00:00", seed + 1);
    let (path, clock) = (folder.path().join("policy.db"), Arc::new(AtomicU64::new(1_737_331_200_000_000_000)));
    let service = service(&path, nouns(&first, &second), clock.clone());
    learn(&service, &first);
    let who = Who::new("test", "admin");
    graphs_are_right(&service, &first);
    LEARNT.iter().for_each(|group| drop(service.finish(&who, group, true).unwrap()));
    strength_is_a_share(&service, &who);
    for name in GROWING {
        let profile = Profile {
            name: format!("{name}-to-new"),
            source: name.to_owned(),
            target: format!("{name}-new"),
            strength: 100.0,
            seed: 0,
            comment: String::new(),
        };
        service
            .change(&who, vec![Change::Put(Noun::Profile(profile))], &How { commit: true, ..How::default() })
            .unwrap();
    }
    service.close().unwrap();
    second.replay("scenario.toml", &["--policy".to_owned(), path.display().to_string()]);
    judge(&service, &second, &clock);
}

fn graphs_are_right(service: &Service, week: &Week) {
    let truth = truth(&week.folder);
    let about =
        |relation: &&relations::Relation| [&relation.0, &relation.1].iter().any(|end| LEARNT.contains(&end.as_str()));
    let harmless: BTreeSet<_> = truth.harmless.iter().filter(about).cloned().collect();
    let mut learnt = BTreeSet::new();
    for group in LEARNT {
        let graph = service.graph(group).unwrap();
        learnt.extend(graph.edges.iter().filter(|edge| edge.permitted > 0).map(|edge| {
            let c = &edge.connection;
            (c.from.text(), c.to.text(), c.service.to_string())
        }));
    }
    let right = learnt.intersection(&harmless).count() as f64;
    let (precision, recall) = (right / learnt.len() as f64, right / harmless.len() as f64);
    println!("{} relations, {} learnt: precision {precision:.3}, recall {recall:.3}", harmless.len(), learnt.len());
    let wrong: Vec<_> = learnt.difference(&harmless).collect();
    let missing: Vec<_> = harmless.difference(&learnt).collect();
    assert!(precision >= 0.98 && recall >= 0.98, "wrong {wrong:?}, missing {missing:?}");
}

/// Shares are what was asked for, a greater strength keeps all that a smaller one kept, and the same again is the same.
fn strength_is_a_share(service: &Service, who: &Who) {
    let mut before: BTreeSet<String> = BTreeSet::new();
    for strength in [0.0, 25.0, 50.0, 100.0] {
        let (name, target) = ("share".to_owned(), "web-new".to_owned());
        let profile = Profile { name, source: "web".into(), target, strength, seed: 7, comment: String::new() };
        let put = [Change::Put(Noun::Profile(profile))].to_vec();
        service.change(who, put, &How::default()).unwrap();
        let plan = service.preview("share", View::Draft).unwrap();
        assert_eq!(plan, service.preview("share", View::Draft).unwrap());
        let kept: BTreeSet<String> = plan.kept.iter().map(|mirrored| mirrored.of.to_string()).collect();
        let choosable = plan.kept.iter().chain(&plan.left).filter(|mirrored| !mirrored.protected).count();
        let chosen = plan.kept.iter().filter(|mirrored| !mirrored.protected).count();
        println!("strength {strength} %: {chosen} of {choosable} connections, and {} protected", kept.len() - chosen);
        assert!(kept.is_superset(&before));
        assert!(match strength {
            0.0 => chosen == 0,
            100.0 => chosen == choosable,
            _ => (chosen as f64 / choosable as f64 - strength / 100.0).abs() < 0.35,
        });
        before = kept;
    }
    service.discard(who).unwrap();
}

fn judge(service: &Service, week: &Week, clock: &AtomicU64) {
    let truth = truth(&week.folder);
    let owner: BTreeMap<IpAddr, (String, bool)> = service
        .list(Kind::Vm, View::Running, None, usize::MAX, |_| true)
        .into_iter()
        .flat_map(|vm| {
            let fresh = vm.body["tags"].to_string().contains("-new");
            let id = vm.name.name.to_string();
            let addresses = vm.body["addresses"].as_array().cloned().unwrap_or_default();
            addresses
                .into_iter()
                .filter_map(move |a| Some((a.as_str()?.parse().ok()?, (id.clone(), fresh))))
                .collect::<Vec<_>>()
        })
        .collect();
    let base = |flow: &Value, side: &str| {
        let name = flow["gnomon"][side][0].as_str().map(str::to_owned);
        name.map_or_else(
            || flow[if side == "src_groups" { "src_ip" } else { "dest_ip" }].as_str().unwrap().to_owned(),
            |name| name.trim_end_matches("-new").to_owned(),
        )
    };
    let (mut benign, mut denied, mut attacks, mut allowed) = (0_u64, 0_u64, 0_u64, BTreeSet::new());
    let mut denied_relations: BTreeMap<relations::Relation, u64> = BTreeMap::new();
    let mut fresh_judged: BTreeMap<String, String> = BTreeMap::new();
    for flow in week.lines("out/flows.jsonl") {
        service.observe([JsonLine(&flow)]);
        let protocol = flow["proto"].as_str().unwrap_or("").to_lowercase();
        let service = match protocol.as_str() {
            "icmp" | "ipv6-icmp" => {
                format!("{} type {}", if protocol == "icmp" { "icmp" } else { "icmpv6" }, flow["icmp_type"])
            }
            _ => format!("{protocol} {}", flow["dest_port"]),
        };
        let relation = (base(&flow, "src_groups"), base(&flow, "dst_groups"), service);
        let passed = flow["gnomon"]["action"] == "allow";
        if truth.harmless.contains(&relation) {
            benign += 1;
            denied += u64::from(!passed);
            if !passed {
                *denied_relations.entry(relation.clone()).or_default() += 1;
            }
        } else if truth.attacks.contains(&relation) {
            attacks += 1;
            let about = [&relation.0, &relation.1].iter().any(|end| LEARNT.contains(&end.as_str()));
            if passed && about {
                allowed.insert(relation.clone());
            }
        }
        // ICMP errors and neighbour discovery are judged without rules.
        for side in ["src_ip", "dest_ip"].iter().filter(|_| matches!(protocol.as_str(), "tcp" | "udp")) {
            let address: Option<IpAddr> = flow[*side].as_str().and_then(|text| text.parse().ok());
            if let Some((id, true)) = address.and_then(|address| owner.get(&address)) {
                let rule = flow["gnomon"]["rule"].as_str().unwrap_or("").to_owned();
                fresh_judged.entry(id.clone()).or_insert(rule);
            }
        }
    }
    clock.fetch_add(1_000_000_000, Ordering::Relaxed);
    service.tick().unwrap();
    let days = f64::from(setting("GNOMON_DAYS", 3_u32));
    let items = service.inbox(Some(InboxState::Pending), None, usize::MAX);
    let share = 100.0 * denied as f64 / benign as f64;
    println!(
        "{benign} flows of harmless relations, {denied} denied ({share:.4} %); {attacks} flows of attack relations, {} \
         relations of them allowed; {} new VMs; {} items in the inbox ({:.2} a day)",
        allowed.len(),
        fresh_judged.len(),
        items.len(),
        items.len() as f64 / days
    );
    for item in &items {
        println!("  inbox: {} {} flows", item.item.connection, item.item.evidence.flows);
    }
    assert!(benign > 1000 && share <= 0.1, "{denied_relations:?}");
    assert!(allowed.is_empty(), "{allowed:?}");
    assert!(items.len() as f64 / days <= 3.0);
    assert!(!fresh_judged.is_empty());
    let made = |rule: &String| rule.starts_with("mirrored/") || rule.starts_with("learned/");
    assert!(fresh_judged.values().all(made), "judged by the policy from the first packet: {fresh_judged:?}");
}
