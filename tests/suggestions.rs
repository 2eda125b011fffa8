//! `gnomon suggest` finds the rule that is missing, and with it nothing harmless is denied.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn gnomon(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_gnomon")).args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The configuration without one rule, as text.
fn without(configuration: &str, id: &str) -> String {
    let mut table: toml::Table = configuration.parse().expect("TOML");
    let rules = table.get_mut("rule").and_then(toml::Value::as_array_mut).expect("rules");
    let before = rules.len();
    rules.retain(|rule| rule["id"].as_str() != Some(id));
    assert_eq!(rules.len() + 1, before);
    table.to_string()
}

fn denied(flows: &Path) -> usize {
    let text = std::fs::read_to_string(flows).expect("flows");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|flow| flow["dest_port"] == 5432 && flow["gnomon"]["action"] != "allow").count()
}

#[test]
fn a_missing_rule_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let groups = "web=3,app=3,db=2,dns=1,ntp=1,admin=1,clients=20,iot=4";
    let time = ["--minutes", "120", "--rate", "0.5", "--seed", "7", "--attacks", "none"];
    gnomon(&[&["scenario", "-o", &at(""), "--groups", groups][..], &time].concat());
    let right = std::fs::read_to_string(at("scenario.toml")).expect("a configuration");
    let wrong = without(&right, "app-to-db");
    std::fs::write(at("wrong.toml"), &wrong).expect("a file");
    gnomon(&["replay", &at("scenario.pcap"), "-c", &at("wrong.toml"), "-o", &at("out")]);
    assert!(denied(&folder.path().join("out/flows.jsonl")) > 10);

    let asked = ["suggest", &at("out/flows.jsonl"), "-c", &at("wrong.toml"), "--alerts", &at("out/alerts.jsonl")];
    let json = gnomon(&[&asked[..], &["-o", "json", "--top", "1"]].concat()).stdout;
    let first: Value = serde_json::from_slice(&json).expect("one JSON object");
    assert_eq!((&first["kind"], &first["about"]), (&"allow".into(), &"app > db tcp 5432".into()), "{first}");
    assert_eq!(first["what_if"]["allowed"], first["evidence"]["flows"]);
    let table = String::from_utf8(gnomon(&asked).stdout).expect("text");
    assert!(table.contains("allow app > db tcp 5432"), "{table}");

    let rule = String::from_utf8(gnomon(&[&asked[..], &["-o", "toml", "--top", "1"]].concat()).stdout).expect("text");
    std::fs::write(at("better.toml"), format!("{wrong}\n{rule}")).expect("a file");
    gnomon(&["replay", &at("scenario.pcap"), "-c", &at("better.toml"), "-o", &at("again")]);
    assert_eq!(denied(&folder.path().join("again/flows.jsonl")), 0);
    // With the rule in force nothing is asked about it.
    let again = ["suggest", &at("again/flows.jsonl"), "-c", &at("better.toml"), "-o", "json"];
    let again = String::from_utf8(gnomon(&again).stdout).expect("text");
    assert!(!again.lines().any(|line| line.contains("\"kind\":\"allow\"")), "{again}");
}
