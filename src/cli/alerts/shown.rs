//! Alerts as text for people.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::cli::flow_table::{Row, table as flow_table};
use crate::cli::report::{count, table};
use crate::filter::instant;
use crate::ingest::FlowFile;

/// Flows that are shown of an alert.
const FLOWS: usize = 20;
const WIDTH: usize = 160;

pub(super) fn list(alerts: &[Value], hidden: usize) -> String {
    if alerts.is_empty() {
        return "no alerts\n".to_owned();
    }
    let mut rows = table(&["id", "seen last", "kind", "severity", "status", "actor", "victim", "count"]);
    for alert in alerts {
        let g = &alert["gnomon"];
        rows.add_row(vec![
            g["episode"].to_string(),
            seconds(last_seen(alert)),
            text(&g["kind"]),
            g["severity"].to_string(),
            text(&g["status"]),
            text(&g["actor"]),
            text(&g["victim"]),
            g["count"].as_u64().map_or(String::new(), count),
        ]);
    }
    let more =
        if hidden > 0 { format!("{hidden} older ones are not shown; --limit 0 for all\n") } else { String::new() };
    format!("{rows}\n{more}")
}

/// In one line.
pub(super) fn line(alert: &Value) -> String {
    let g = &alert["gnomon"];
    format!(
        "{}  {:>4}  {:<16} severity {}  {:<6}  {} -> {}  {}",
        seconds(last_seen(alert)),
        g["episode"].to_string(),
        text(&g["kind"]),
        g["severity"],
        text(&g["status"]),
        text(&g["actor"]),
        text(&g["victim"]),
        g["count"].as_u64().map_or(String::new(), count),
    )
}

pub(super) fn explained(alert: &Value, history: &[&Value], flows: &[Value], path: Option<&Path>) -> String {
    let g = &alert["gnomon"];
    let mut told = format!(
        "alert {}: {}, severity {}, {}\n  actor   {}{}\n  victim  {}{}\n  from {} to {}\n  {}\n",
        g["episode"],
        text(&g["kind"]),
        g["severity"],
        text(&g["status"]),
        text(&g["actor"]),
        groups(&g["actor_groups"]),
        text(&g["victim"]),
        groups(&g["victim_groups"]),
        seconds(&g["start"]),
        seconds(&g["end"]),
        meaning(g["kind"].as_str().unwrap_or_default()),
    );
    told.push_str("evidence\n");
    for (name, value) in g["evidence"].as_object().into_iter().flatten() {
        if let Some(value) = evidence(name, value) {
            told.push_str(&format!("  {:<18} {value}\n", name.replace('_', " ")));
        }
    }
    told.push_str("history\n");
    for step in history {
        let g = &step["gnomon"];
        told.push_str(&format!("  {}  {:<6}  count {}\n", seconds(last_seen(step)), text(&g["status"]), g["count"]));
    }
    match (path, flows.len()) {
        (None, _) => told.push_str("no flows.jsonl beside the alerts; name one with --flows FILE\n"),
        (Some(path), 0) => told.push_str(&format!("no flow of it in {}\n", path.display())),
        (Some(path), n) => {
            let rows: Vec<Row> = flows.iter().map(Row::of).collect();
            let width = crate::cli::terminal_width().map_or(WIDTH, usize::from);
            told.push_str(&format!("{n} flows of it in {} (at most {FLOWS})\n", path.display()));
            told.push_str(&flow_table(&rows, width));
            told.push('\n');
        }
    }
    told
}

/// Flow records of an alert: those that its evidence names, then others of its actor and victim that were flagged with
/// its kind in its time.
pub(super) fn flows_of(alert: &Value, path: &Path) -> Result<Vec<Value>> {
    let g = &alert["gnomon"];
    let named: Vec<u64> =
        g["evidence"]["flow_ids"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let at = |value: &Value| value.as_str().and_then(instant).unwrap_or(0);
    let (from, to) = (at(&g["start"]), at(&g["end"]));
    let party = |name: &str| g[name].as_str().filter(|text| text.parse::<std::net::IpAddr>().is_ok());
    let (actor, victim) = (party("actor"), party("victim"));
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for found in FlowFile::open(path)? {
        let (record, line) = found?;
        if named.contains(&record.flow_id) {
            first.push(line);
            continue;
        }
        let ends = [line["src_ip"].as_str(), line["dest_ip"].as_str()];
        let of = |party: Option<&str>| party.is_none_or(|party| ends.contains(&Some(party)));
        let flagged = line["gnomon"]["flags"].as_array().is_some_and(|flags| flags.contains(&g["kind"]));
        if flagged && of(actor) && of(victim) && record.start <= to && record.end >= from && others.len() < FLOWS {
            others.push(line);
        }
    }
    first.extend(others);
    first.truncate(FLOWS);
    Ok(first)
}

fn evidence(name: &str, value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Array(all) if all.is_empty() => None,
        Value::Array(all) if name == "features" => {
            let one = |f: &Value| format!("{} {:.2}", text(&f["name"]), f["weight"].as_f64().unwrap_or(0.0));
            Some(all.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Value::Array(all) => Some(all.iter().map(text).collect::<Vec<_>>().join(", ")),
        Value::Number(n) if n.as_f64() == Some(0.0) => None,
        Value::Number(n) => Some(n.as_u64().map_or_else(|| n.to_string(), count)),
        other => Some(text(other)),
    }
}

/// What the kind says, in a sentence.
fn meaning(kind: &str) -> &'static str {
    match kind {
        "port_scan" => "one host tries many ports of another, mostly in vain",
        "host_sweep" => "one host tries one service on many hosts, mostly in vain",
        "syn_flood" => "many connections to one host that are never completed",
        "udp_flood" => "many unanswered UDP packets to one host",
        "icmp_flood" => "many ICMP messages to one host",
        "outlier" => "traffic unlike what the model learnt; the features say in what",
        "amplification" => "many answers to one host that it did not ask for, or far larger than its questions",
        "brute_force" => "many short sessions with a login service",
        "exfiltration" => "a host inside sends far more to one outside than it gets back",
        "dns_tunnel" => "many different long names below one domain",
        "icmp_tunnel" => "echo messages whose sizes vary, as those of a connection do",
        "beacon" => "one host contacts one outside at even distances",
        "arp_spoof" => "one station answers for an address of another",
        "slow_http" => "many connections to one web service that are kept open with next to nothing",
        "new_relationship" => {
            "administration, or traffic between groups, that was never seen while relations were learnt"
        }
        "volume" => "a host sends many times what it used to",
        "table_pressure" => "the flow table is nearly full, or flows are evicted",
        _ => "see docs/detectors.md",
    }
}

fn groups(names: &Value) -> String {
    let names: Vec<String> = names.as_array().into_iter().flatten().map(text).collect();
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

fn last_seen(alert: &Value) -> &Value {
    let end = &alert["gnomon"]["end"];
    if end.is_string() { end } else { &alert["timestamp"] }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { "-".to_owned() } else { value.to_string() }, str::to_owned)
}

/// To the second.
fn seconds(time: &Value) -> String {
    let text = text(time);
    text.get(..19).unwrap_or(&text).replace('T', " ")
}
