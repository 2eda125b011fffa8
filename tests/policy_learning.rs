//! What is learnt from a scenario is what its groups are meant to do, and nothing that attackers did.

#[path = "common/relations.rs"]
mod relations;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use relations::{Relation, Truth, truth};
use serde_json::Value;

fn gnomon(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_gnomon")).args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A capture with attacks, its records by rules that allow everything, and what is true of it.
fn lab(folder: &Path, seed: u64) -> Truth {
    let at = |name: &str| folder.join(name).display().to_string();
    let seed = seed.to_string();
    // Two days and no backups, which would be most of the bytes.
    let groups = "web=3,app=3,db=2,dns=1,ntp=1,admin=1,clients=20,iot=4";
    let time = ["--minutes", "2880", "--rate", "0.05", "--seed", &seed];
    gnomon(&[&["scenario", "-o", &at(""), "--groups", groups][..], &time].concat());
    let strict = std::fs::read_to_string(folder.join("scenario.toml")).expect("a configuration");
    let open = strict.replace("default = \"deny\"", "default = \"allow\"");
    assert_ne!(open, strict);
    std::fs::write(folder.join("open.toml"), open).expect("a file");
    gnomon(&["replay", &at("scenario.pcap"), "-c", &at("open.toml"), "-o", &at("out")]);
    truth(folder)
}

fn learn(folder: &Path) -> BTreeSet<Relation> {
    let at = |name: &str| folder.join(name).display().to_string();
    let (flows, alerts, config, graph) =
        (at("out/flows.jsonl"), at("out/alerts.jsonl"), at("open.toml"), at("graph.json"));
    gnomon(&["learn", "graph", &flows, "--alerts", &alerts, "-c", &config, "-w", &graph, "--min-days", "2"]);
    let graphs: Vec<gnomon::policy::learning::Graph> =
        serde_json::from_str(&std::fs::read_to_string(&graph).expect("graphs")).expect("JSON");
    let edges = graphs.iter().flat_map(|graph| &graph.edges).filter(|edge| edge.permitted > 0);
    edges
        .map(|edge| {
            let c = &edge.connection;
            (c.from.text(), c.to.text(), c.service.to_string())
        })
        .collect()
}

#[test]
fn a_scenario_is_learnt_and_its_attacks_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let truth = lab(folder.path(), 31);
    let learnt = learn(folder.path());
    let right = learnt.intersection(&truth.harmless).count() as f64;
    let (precision, recall) = (right / learnt.len() as f64, right / truth.harmless.len() as f64);
    let wrong: Vec<_> = learnt.difference(&truth.harmless).collect();
    let missing: Vec<_> = truth.harmless.difference(&learnt).collect();
    println!("{} relations: precision {precision:.3}, recall {recall:.3}", truth.harmless.len());
    assert!(truth.harmless.len() > 15 && truth.attacks.len() > 10);
    assert!(precision >= 0.98 && recall >= 0.98, "wrong {wrong:?}, missing {missing:?}");
    let attacks: Vec<_> = learnt.intersection(&truth.attacks).collect();
    assert!(attacks.is_empty(), "{attacks:?}");
    rules_are_a_configuration(folder.path(), &truth);
    another_group_gets_its_share(folder.path());
}

/// What was learnt passes, everything else is denied, and nothing of it is new.
fn rules_are_a_configuration(folder: &Path, truth: &Truth) {
    let at = |name: &str| folder.join(name).display().to_string();
    let rules = gnomon(&["learn", "rules", &at("graph.json"), "--deny-rest"]).stdout;
    let rules = String::from_utf8(rules).expect("text");
    let open = std::fs::read_to_string(folder.join("open.toml")).expect("a configuration");
    // Without the rules that people wrote.
    let table: toml::Table = open.parse().expect("TOML");
    let kept: toml::Table = table.into_iter().filter(|(key, _)| key != "rule").collect();
    std::fs::write(folder.join("learnt.toml"), format!("{kept}\n{rules}")).expect("a file");
    gnomon(&["replay", &at("scenario.pcap"), "-c", &at("learnt.toml"), "-o", &at("again")]);
    let summary: Value =
        serde_json::from_slice(&std::fs::read(folder.join("again/summary.json")).expect("a summary")).expect("JSON");
    assert!(summary["rules"].as_object().is_some_and(|rules| rules.keys().any(|id| id.starts_with("learned-"))));
    let (mut harmless, mut denied) = (0, 0);
    for line in std::fs::read_to_string(folder.join("again/flows.jsonl")).expect("flows").lines() {
        let flow: Value = serde_json::from_str(line).expect("JSON");
        let group = |side: &str| flow["gnomon"][side][0].as_str().unwrap_or("").to_owned();
        let service = format!("{} {}", flow["proto"].as_str().unwrap_or("").to_lowercase(), flow["dest_port"]);
        if truth.harmless.contains(&(group("src_groups"), group("dst_groups"), service)) {
            harmless += 1;
            denied += usize::from(flow["gnomon"]["action"] != "allow");
        }
    }
    assert!(harmless > 5000 && denied == 0, "{denied} of {harmless} denied");
    // Nothing of what was learnt is new, and what was left out is.
    let unseen = gnomon(&[
        "learn",
        "unseen",
        &at("graph.json"),
        &at("again/flows.jsonl"),
        "-c",
        &at("learnt.toml"),
        "-o",
        "json",
    ]);
    let items: Vec<Value> = String::from_utf8(unseen.stdout)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(!items.is_empty());
    assert!(items.iter().all(|item| item["answered"] == 0 || item["attack"] != 0), "what was not learnt is denied");
}

/// More with more strength, and the same again.
fn another_group_gets_its_share(folder: &Path) {
    let graph = folder.join("graph.json").display().to_string();
    let mut before = 0;
    for strength in ["0", "25", "50", "100"] {
        let plan = gnomon(&[
            "learn",
            "mirror",
            &graph,
            "--from",
            "web",
            "--to",
            "web-new",
            "--strength",
            strength,
            "-o",
            "json",
        ]);
        let plan: Value = serde_json::from_slice(&plan.stdout).expect("JSON");
        let kept = plan["kept"].as_array().expect("a list").len();
        assert!(kept >= before, "{strength}: {kept}");
        before = kept;
    }
}
