//! Mirrors that adapt, and diversion to a honeypot, between real hosts; see `tests/live_namespaces.rs` for what it needs.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/namespaces.rs"]
mod namespaces;

use std::path::Path;
use std::time::Duration;

use namespaces::{Background, CLIENT, Host, Lab, SERVER, count, eventually, worker_cpu};
use serde_json::Value;

const POLICY: &str = r#"
[policy]
default = "allow"
[flow.timeouts]
tcp_opening = "1s"
tcp_closed = "1s"
icmp = "1s"
[scorer.detect]
window = "1s"
"#;

/// What a verb says of the running appliance, a value a line.
fn ask(lab: &Lab, verb: &[&str]) -> Vec<Value> {
    let config = lab.path("gnomon.toml");
    let all = [&["mirror"][..], verb, &["-o", "json", "-c", config.to_str().unwrap()]].concat();
    let said = common::succeeds(&common::gnomon(all));
    said.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn is_about(party: &Value, address: &str) -> bool {
    party["party"]["address"] == address
}

#[test]
fn a_scanner_is_graylisted_copied_whole_and_released() {
    let Some(lab) = Lab::new("a_scanner_is_graylisted", &[("nmap", "nmap")]) else { return };
    let rest = format!(
        "{POLICY}{}",
        r#"
[[mirror]]
name = "watch"
to = "m"
group = "any"
flows = "0.001%"
adapt = true
[adaptive]
hold = "1s"
[adaptive.graylist]
period = "6s"
"#
    );
    let gnomon = lab.run(&lab.config(&worker_cpu(), 1, &rest));
    let copies = || ask(&lab, &["show", "watch"])[0]["workers"][0]["selected"].as_u64().unwrap();
    lab.client.ping(&["-c", "10", "-i", "0.02", SERVER]);
    assert_eq!((copies(), ask(&lab, &["watched"]).len()), (0, 0), "nobody is watched");

    lab.client.succeeds(&["nmap", "-Pn", "-n", "-sS", "-T4", "--max-retries", "0", "-p", "1-200", SERVER]);
    let mut watched = Vec::new();
    let is_listed = eventually(Duration::from_secs(10), || {
        watched = ask(&lab, &["watched"]);
        watched.iter().any(|party| is_about(party, CLIENT))
    });
    assert!(is_listed, "{}", gnomon.process.printed());
    let view = watched.iter().find(|party| is_about(party, CLIENT)).unwrap();
    assert_eq!((&view["stage"], view["share"].as_f64()), (&"graylisted".into(), Some(1.0)), "{view}");
    assert_eq!(view["flags"], serde_json::json!(["port_scan"]), "{view}");
    let before = copies();
    assert_eq!(lab.client.ping(&["-c", "20", "-i", "0.02", SERVER]).0, 20);
    assert!(eventually(Duration::from_secs(2), || copies() >= before + 40), "{} after {before}", copies());

    let why = common::gnomon(["mirror", "why", CLIENT, "-c", lab.path("gnomon.toml").to_str().unwrap()]);
    let why = common::succeeds(&why);
    assert!(why.contains("graylist") && why.contains("alert port_scan"), "{why}");
    let is_free = eventually(Duration::from_secs(20), || ask(&lab, &["watched"]).is_empty());
    assert!(is_free, "{:?}", ask(&lab, &["watched"]));
    let before = copies();
    lab.client.ping(&["-c", "20", "-i", "0.02", SERVER]);
    assert_eq!(copies(), before, "as before");
    gnomon.stop();
    let decisions = common::json_lines(&lab.path("out/decisions.jsonl"));
    let of_client: Vec<&str> =
        decisions.iter().filter(|d| is_about(d, CLIENT)).filter_map(|d| d["action"].as_str()).collect();
    assert_eq!((of_client.first(), of_client.last()), (Some(&"graylist"), Some(&"release")), "{decisions:?}");
}

/// A web server with one page in a host's namespace.
fn page(lab: &Lab, host: &Host, text: &str) -> Background {
    let folder = lab.path(text);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("page"), text).unwrap();
    let folder = folder.to_str().unwrap();
    let server = ["python3", "-u", "-m", "http.server", "8080", "--directory", folder];
    let server = host.start(&server, lab.path(&format!("{text}.log")));
    server.wait_for("Serving", Duration::from_secs(10));
    server
}

fn download(lab: &Lab) -> String {
    lab.client.succeeds(&["curl", "-sS", "--max-time", "5", &format!("http://{SERVER}:8080/page")])
}

fn divert(workers: &str, queues: u32) {
    let tools = [("curl", "curl"), ("python3", "python3")];
    let Some(lab) = Lab::new("divert", &tools) else { return };
    // The honeypot has the victim's address for itself, and one of its own to find the way back with.
    lab.sensor.succeeds(&["ip", "addr", "add", &format!("{SERVER}/32"), "dev", "lo"]);
    lab.sensor.succeeds(&["ip", "addr", "add", "10.77.0.99/24", "dev", "eth0"]);
    let mac = lab.sensor.succeeds(&["cat", "/sys/class/net/eth0/address"]);
    let rest = format!("{POLICY}[adaptive]\n[[honeypot]]\nname = \"trap\"\nport = \"m\"\nmac = \"{}\"\n", mac.trim());
    let gnomon = lab.run(&lab.config(workers, queues, &rest));
    let (_real, trap) = (page(&lab, &lab.server, "real"), page(&lab, &lab.sensor, "trap"));
    assert_eq!(download(&lab), "real");

    ask(&lab, &["set", CLIENT, "--divert", "trap", "--for", "60s", "--share", "0%"]);
    let is_diverted = eventually(Duration::from_secs(5), || download(&lab) == "trap");
    assert!(is_diverted, "{} {:?}", gnomon.process.printed(), ask(&lab, &["watched"]));
    for _ in 0..5 {
        assert_eq!(download(&lab), "trap", "every connection that it begins");
    }
    assert!(trap.printed().contains(&format!("{CLIENT} - -")), "the honeypot sees who it is: {}", trap.printed());
    assert_eq!(lab.server.ping(&["-c", "3", "-i", "0.02", CLIENT]), (3, 3), "what others begin goes where it went");

    ask(&lab, &["release", CLIENT]);
    assert!(eventually(Duration::from_secs(5), || download(&lab) == "real"), "back to normal");
    let summary = gnomon.stop();
    assert!(count(&summary, &["diverted"]) >= 6 * 8, "{summary}");
    let flows = common::json_lines(Path::new(&lab.path("out/flows.jsonl")));
    let diverted = flows.iter().filter(|flow| flow["gnomon"]["diverted"] == true).count();
    assert!(diverted >= 6, "{diverted} flows");
    assert!(flows.iter().filter(|flow| flow["gnomon"]["diverted"] == true).all(|flow| flow["src_ip"] == CLIENT));
}

#[test]
fn an_attacker_talks_to_a_honeypot_under_the_victims_address() {
    divert(&worker_cpu(), 1);
}

#[test]
fn answers_of_a_honeypot_find_the_worker_of_their_flow() {
    divert(&format!("[0, {}]", worker_cpu().trim_matches(['[', ']'])), 2);
}

#[test]
fn a_mirror_whose_link_goes_down_loses_copies_only() {
    let Some(lab) = Lab::new("a_mirror_whose_link_goes_down", &[]) else { return };
    let rest = format!("{POLICY}[[mirror]]\nname = \"all\"\nto = \"m\"\ngroup = \"any\"\n");
    let gnomon = lab.run(&lab.config(&worker_cpu(), 1, &rest));
    let account = || ask(&lab, &["show", "all"])[0]["workers"][0].clone();
    let ping = || lab.client.ping(&["-c", "20", "-i", "0.02", SERVER]);
    let is_up = || ask(&lab, &["list"])[0]["up"] == true;
    assert_eq!(ping(), (20, 20));
    assert!(eventually(Duration::from_secs(2), || count(&account(), &["sent"]) >= 40), "{}", account());

    lab.sensor.succeeds(&["ip", "link", "set", "eth0", "down"]);
    assert!(eventually(Duration::from_secs(5), || !is_up()), "{}", gnomon.process.printed());
    let before = account();
    assert_eq!(ping(), (20, 20), "forwarding does not notice");
    let lost = |of: &Value| count(of, &["lost", "link"]);
    assert!(eventually(Duration::from_secs(2), || lost(&account()) >= lost(&before) + 40), "{before} {}", account());
    assert_eq!(count(&account(), &["sent"]), count(&before, &["sent"]));

    lab.sensor.succeeds(&["ip", "link", "set", "eth0", "up"]);
    assert!(eventually(Duration::from_secs(5), is_up), "{}", gnomon.process.printed());
    let before = count(&account(), &["sent"]);
    assert_eq!(ping(), (20, 20));
    assert!(eventually(Duration::from_secs(2), || count(&account(), &["sent"]) >= before + 40), "{}", account());
    let summary = gnomon.stop();
    let all = &summary["mirrored"]["all"];
    assert_eq!(count(all, &["selected"]), count(all, &["packets"]) + count(all, &["lost"]), "{summary}");
}
