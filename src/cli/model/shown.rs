//! Models as text for people.

use serde_json::Value;

use crate::cli::report::{count, table};
use crate::export::iso8601;

pub(super) fn list(models: &[Value]) -> String {
    if models.is_empty() {
        return "no model yet: the first comes after the warm-up\n".to_owned();
    }
    let mut rows = table(&["id", "state", "for", "records", "left out", "trained on records from", "to", "why"]);
    for model in models {
        let number = |key: &str| count(model[key].as_u64().unwrap_or(0));
        let text = |key: &str| model[key].as_str().unwrap_or("").to_owned();
        rows.add_row(vec![
            model["id"].to_string(),
            text("state"),
            text("scope"),
            number("records"),
            number("excluded"),
            seconds(&model["window_from"]),
            seconds(&model["window_to"]),
            text("reason"),
        ]);
    }
    format!("{rows}\n")
}

pub(super) fn one(model: &Value) -> String {
    let text = |key: &str| model[key].as_str().unwrap_or("").to_owned();
    let mut told = format!(
        "model {} for {}: {} ({}, {})\n  learnt from {} records, {} left out, {} to {}\n  features version {}, seed {}, checksum {}\n",
        model["id"],
        text("scope"),
        text("state"),
        text("who"),
        text("reason"),
        count(model["records"].as_u64().unwrap_or(0)),
        count(model["excluded"].as_u64().unwrap_or(0)),
        seconds(&model["window_from"]),
        seconds(&model["window_to"]),
        model["feature_schema"],
        model["seed"],
        text("checksum"),
    );
    if let Some(former) = model["replaces"].as_i64() {
        told.push_str(&format!("  took the place of model {former}\n"));
    }
    if let Some(why) = model["usable"].as_str() {
        told.push_str(&format!("  CANNOT BE USED: {why}\n"));
    }
    for (title, key) in [("settings", "settings"), ("training", "metrics")] {
        let pairs = model[key].as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let pairs: Vec<String> = pairs.map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
        told.push_str(&format!("  {title}: {}\n", pairs.join(", ")));
    }
    told.push_str("  history\n");
    for event in model["history"].as_array().into_iter().flatten() {
        let text = |key: &str| event[key].as_str().unwrap_or("").to_owned();
        told.push_str(&format!(
            "    {}  {:<9}  {}: {}\n",
            seconds(&event["at"]),
            text("state"),
            text("who"),
            text("reason")
        ));
    }
    told
}

pub(super) fn compared(scopes: &[Value]) -> String {
    let mut told = String::new();
    for scope in scopes.iter().filter(|scope| !scope["compared"].is_null()) {
        let c = &scope["compared"];
        let percent = |key: &str| format!("{:.2} %", 100.0 * c[key].as_f64().unwrap_or(0.0));
        let mut rows = table(&["", &format!("model {}", scope["active"]), &format!("model {}", scope["shadow"])]);
        rows.add_row(vec!["score 0.99 and above".to_owned(), percent("unusual_active"), percent("unusual_shadow")]);
        let mean = |key: &str| format!("{:.3}", c[key].as_f64().unwrap_or(0.0));
        rows.add_row(vec!["mean score".to_owned(), mean("mean_active"), mean("mean_shadow")]);
        for tenth in 0..10 {
            let share = |key: &str| format!("{:.1} %", 100.0 * c[key][tenth].as_f64().unwrap_or(0.0));
            let from = format!("score {:.1} to {:.1}", tenth as f64 / 10.0, (tenth + 1) as f64 / 10.0);
            rows.add_row(vec![from, share("distribution_active"), share("distribution_shadow")]);
        }
        let rank = c["rank_correlation"].as_f64().map_or("unknown".to_owned(), |rho| format!("{rho:.3}"));
        told.push_str(&format!(
            "{}, {} records: they agree on what is unusual in {}, rank correlation {rank}\n{rows}\n",
            scope["scope"].as_str().unwrap_or("all"),
            count(c["records"].as_u64().unwrap_or(0)),
            percent("agreement"),
        ));
    }
    if told.is_empty() { "no shadow scores: `gnomon model train --shadow` makes one\n".to_owned() } else { told }
}

pub(super) fn trained(lines: &[Value]) -> String {
    let told = |line: &Value| {
        format!(
            "model {} learnt from {} records ({} left out as attacks) and is a {} in {}\n",
            line["id"],
            count(line["records"].as_u64().unwrap_or(0)),
            count(line["excluded"].as_u64().unwrap_or(0)),
            line["state"].as_str().unwrap_or("candidate"),
            line["store"].as_str().unwrap_or("the store"),
        )
    };
    lines.iter().map(told).collect()
}

pub(super) fn asked(lines: &[Value]) -> String {
    let told = |line: &Value| {
        let [kept, needed] = ["kept", "needed"].map(|key| line[key].as_u64().unwrap_or(0));
        match kept >= needed {
            true => {
                format!("training begins, with {} records; `gnomon model list` shows what came of it\n", count(kept))
            }
            false => format!("training begins when there are {} records; {} so far\n", count(needed), count(kept)),
        }
    };
    lines.iter().map(told).collect()
}

pub(super) fn active(lines: &[Value]) -> String {
    let told = |line: &Value| {
        let scope = line["scope"].as_str().unwrap_or("all");
        let when = match (line["file"].as_str(), line["scores"].as_bool()) {
            (Some(file), _) => format!("in {file}; an appliance takes it when it starts"),
            (None, Some(false)) => "but its groups are unknown to the policy in force".to_owned(),
            (None, _) => "and scores from the next record on".to_owned(),
        };
        format!("model {} is active for {scope}, {when}\n", line["active"])
    };
    lines.iter().map(told).collect()
}

/// To the second.
fn seconds(time: &Value) -> String {
    let text = iso8601(time.as_u64().unwrap_or(0));
    text.get(..19).unwrap_or(&text).replace('T', " ")
}
