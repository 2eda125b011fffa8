//! What is printed of mirror sessions.

use serde_json::{Map, Value, json};

use crate::cli::report::{bytes, count, table};
use crate::worker::LOSSES;

pub(super) fn list(sessions: &[Value]) -> String {
    let mut rows = table(&["session", "to", "port", "link", "tunnel", "takes", "priority"]);
    for session in sessions {
        let text = |key: &str| session[key].as_str().unwrap_or("-").to_owned();
        let wrap = &session["wrap"];
        let tunnel = match wrap["tunnel"].as_str() {
            Some(tunnel) => format!("{tunnel} {} to {}", wrap["id"], collectors(wrap)),
            None => "-".to_owned(),
        };
        let name = text("session") + if session["in_force"] == true { "" } else { " (not any more)" };
        let priority = session["priority"].to_string();
        rows.add_row([name, text("to"), text("port"), link(session).to_owned(), tunnel, taken(session), priority]);
    }
    rows.to_string()
}

/// Addresses, with the state of those that are not up.
fn collectors(wrap: &Value) -> String {
    let told = |collector: &Value| {
        let to = collector["to"].as_str().unwrap_or("?");
        match collector["state"].as_str().filter(|state| *state != "up") {
            Some(state) => format!("{to} ({state})"),
            None => to.to_owned(),
        }
    };
    wrap["collectors"].as_array().into_iter().flatten().map(told).collect::<Vec<_>>().join(", ")
}

fn link(session: &Value) -> &'static str {
    match session["up"].as_bool() {
        Some(true) => "up",
        Some(false) => "down",
        None => "-",
    }
}

/// `1/100, first 20 packets, rule web`.
fn taken(session: &Value) -> String {
    let mut parts = Vec::new();
    match (session["flows"].as_f64(), session["sample"].as_str()) {
        (Some(share), _) if session["adapts"] == true => {
            parts.push(format!("{}% of flows, more of the watched", share * 100.0));
        }
        (Some(share), _) => parts.push(format!("{}% of flows", share * 100.0)),
        (None, Some("1/1") | None) => parts.push("all".to_owned()),
        (None, Some(every)) => parts.push(every.to_owned()),
    }
    for (key, unit) in [("first_packets", "packets"), ("first_bytes", "bytes")] {
        parts.extend(session[key].as_u64().map(|most| format!("first {most} {unit} of a flow")));
    }
    let only = [
        session["min_score"].as_f64().map(|score| format!("risk from {score}")),
        Some(names(&session["flags"])).filter(|kinds| !kinds.is_empty()).map(|kinds| format!("alerts {kinds}")),
    ];
    let only: Vec<String> = only.into_iter().flatten().collect();
    if !only.is_empty() {
        parts.push(format!("only of {}", only.join(" or ")));
    }
    for (key, what) in [("rules", "rule"), ("on", "on")] {
        parts.extend(
            Some(names(&session[key])).filter(|names| !names.is_empty()).map(|names| format!("{what} {names}")),
        );
    }
    parts.join(", ")
}

pub(super) fn names(list: &Value) -> String {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// A name and an account.
type Line = (String, Value);

/// Over all workers.
pub(super) fn total(session: &Value) -> Line {
    let mut sum = Map::new();
    let mut lost: Map<String, Value> = Map::new();
    let add = |to: &mut Map<String, Value>, key: &str, more: &Value| {
        let before = to.get(key).and_then(Value::as_u64).unwrap_or(0);
        to.insert(key.to_owned(), json!(before + more.as_u64().unwrap_or(0)));
    };
    for worker in session["workers"].as_array().into_iter().flatten() {
        for key in ["selected", "sent", "bytes", "waiting"] {
            add(&mut sum, key, &worker[key]);
        }
        LOSSES.iter().for_each(|cause| add(&mut lost, cause, &worker["lost"][cause]));
    }
    sum.insert("lost".to_owned(), Value::Object(lost));
    (session["session"].as_str().unwrap_or("?").to_owned(), Value::Object(sum))
}

/// Causes that nowhere occurred are left out.
pub(super) fn ledger(lines: impl Iterator<Item = Line>) -> String {
    let lines: Vec<Line> = lines.collect();
    let occurred = |cause: &&str| lines.iter().any(|(_, account)| account["lost"][*cause].as_u64() > Some(0));
    let causes: Vec<&str> = LOSSES.into_iter().filter(occurred).collect();
    let head = ["", "selected", "sent", "bytes", "waiting"].into_iter();
    let mut rows = table(&head.chain(causes.iter().copied()).collect::<Vec<_>>());
    for (name, account) in lines {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let mut row = vec![name, count(number(&account["selected"])), count(number(&account["sent"]))];
        row.extend([bytes(number(&account["bytes"])), count(number(&account["waiting"]))]);
        row.extend(causes.iter().map(|cause| count(number(&account["lost"][*cause]))));
        rows.add_row(row);
    }
    rows.to_string()
}

pub(super) fn shown(session: &Value) -> String {
    let mut text = format!("{}\n\n", list(std::slice::from_ref(session)));
    let limits = [("slice", "bytes of each frame"), ("max_bits", "bit/s"), ("max_packets", "packets/s")];
    for (key, what) in limits {
        if let Some(most) = session[key].as_u64().filter(|most| *most > 0) {
            text.push_str(&format!("at most {} {what}\n", count(most)));
        }
    }
    text.extend(session["slice"].as_str().map(|slice| format!("{slice} of each frame\n")));
    text.extend((session["masked"] == true).then_some("payload is masked\n"));
    text.extend(session["dedup_ms"].as_u64().map(|ms| format!("duplicates within {ms} ms are left out\n")));
    for collector in session["wrap"]["collectors"].as_array().into_iter().flatten() {
        let word = |key: &str| collector[key].as_str().unwrap_or("-");
        text.push_str(&format!("{} by way of {}", word("to"), word("mac")));
        if collector["state"].is_string() {
            text.push_str(&format!(", {} since {}", word("state"), word("since")));
        }
        text.push('\n');
    }
    let workers = session["workers"].as_array().into_iter().flatten().enumerate();
    let lines = workers.map(|(worker, account)| (format!("worker {worker}"), account.clone()));
    let (_, all) = total(session);
    text.push_str(&format!("{}\n", ledger(lines.chain([("all".to_owned(), all)]))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Value {
        let account = |n: u64| {
            json!({ "selected": 10 * n, "sent": 4 * n, "bytes": 400 * n, "waiting": n, "next_sequence": 10 * n,
                "lost": { "pool": 0, "queue": 3 * n, "link": 0, "oversize": n, "cap": n } })
        };
        json!({ "session": "db", "in_force": true, "to": "sensor", "port": "span", "up": false, "priority": 7, "sample": null,
            "flows": 0.5, "first_packets": 20, "first_bytes": null, "rules": ["a", "b"], "on": ["wan"], "slice": 64,
            "max_bits": 0, "max_packets": 1000, "wrap": { "tunnel": "gre", "id": 3, "collectors": [{ "to": "192.0.2.10", "mac": "02:00:00:00:00:09" },
                { "to": "192.0.2.11", "mac": null, "state": "down", "since": "today" }] },
            "workers": [account(1), account(2)] })
    }

    #[test]
    fn sessions_and_accounts_are_told() {
        let one = shown(&session());
        for part in [
            "db",
            "sensor",
            "down",
            "gre 3 to 192.0.2.10, 192.0.2.11 (down)",
            "192.0.2.10 by way of 02:00:00:00:00:09\n192.0.2.11 by way of -, down since today\n",
            "50% of flows, first 20 packets of a flow, rule a, b, on wan",
        ] {
            assert!(one.contains(part), "{part} is not in\n{one}");
        }
        assert!(one.contains("at most 64 bytes of each frame\nat most 1 000 packets/s\n"), "{one}");
        let (name, all) = total(&session());
        assert_eq!((name.as_str(), &all["selected"], &all["lost"]["queue"]), ("db", &json!(30), &json!(9)));
        let line = ledger([total(&session())].into_iter());
        let numbers: Vec<&str> =
            line.lines().find(|line| line.contains("db")).expect("its line").split_whitespace().collect();
        assert_eq!(numbers, ["db", "30", "12", "1.2", "KiB", "3", "9", "3", "3"], "{line}");
    }
}
