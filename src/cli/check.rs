//! `gnomon check`: is the configuration right, and what does it come to?

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::config::{self, Config, Warning};
use crate::rules::{Mode, Tier};

/// Check a configuration file: prints all its errors, or a summary of what it says.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Configuration file.
    #[arg(short, long, value_name = "FILE", required_unless_present = "schema")]
    config: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text")]
    output: CheckOutput,
    /// Print the JSON schema of configuration files instead.
    #[arg(long, conflicts_with = "config")]
    schema: bool,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    #[default]
    Text,
    Json,
}

/// Exit code 0 when the file can be used, 1 when not.
///
/// # Errors
/// When the output cannot be written.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (ok, out, err) = report(args)?;
    std::io::stderr().write_all(err.as_bytes())?;
    std::io::stdout().write_all(out.as_bytes())?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the file is good, and the text for standard output and standard error.
fn report(args: &CheckArgs) -> anyhow::Result<(bool, String, String)> {
    let path = match &args.config {
        Some(path) if !args.schema => path,
        _ => return Ok((true, pretty(&config::json_schema())?, String::new())),
    };
    let checked = config::check_file(path);
    let text = args.output == CheckOutput::Text;
    Ok(match checked {
        Ok((config, warnings)) if text => {
            let hint = super::rules::hint(&config.policy, path).map(|hint| format!("\n{hint}\n"));
            let summary = summary_text(&config, &path.display().to_string()) + &hint.unwrap_or_default();
            (true, summary, list(&warnings))
        }
        Ok((config, warnings)) => {
            let object = json!({ "ok": true, "warnings": warnings, "summary": summary_json(&config) });
            (true, pretty(&object)?, String::new())
        }
        Err(errors) if text => (false, String::new(), format!("{errors}\n")),
        Err(errors) => (false, pretty(&json!({ "ok": false, "errors": errors }))?, String::new()),
    })
}

fn pretty(value: &Value) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n")
}

fn list(warnings: &[Warning]) -> String {
    warnings.iter().fold(String::new(), |mut text, warning| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{warning}");
        text
    })
}

/// Rules per tier, in the order of evaluation, split by mode.
fn tiers(config: &Config) -> BTreeMap<Tier, [usize; 3]> {
    let mut tiers: BTreeMap<Tier, [usize; 3]> = BTreeMap::new();
    for rule in &config.policy.rules {
        let column = match rule.mode {
            Mode::Enforce => 0,
            Mode::Shadow => 1,
            Mode::Disabled => 2,
        };
        tiers.entry(rule.tier).or_default()[column] += 1;
    }
    tiers
}

fn target_name(config: &Config, target: usize) -> &str {
    config.ports.get(target).map_or("(file of the replay)", |port| &port.name)
}

fn summary_json(config: &Config) -> Value {
    let name = |index: usize| config.ports.get(index).map(|port| port.name.clone());
    let tiers: Vec<Value> = tiers(config)
        .into_iter()
        .map(|(tier, [enforce, shadow, disabled])| {
            json!({ "tier": tier.name(), "enforce": enforce, "shadow": shadow, "disabled": disabled })
        })
        .collect();
    json!({
        "ports": config.ports.iter().map(|p| json!({ "name": p.name, "device": p.device })).collect::<Vec<_>>(),
        "pairs": config.pairs.iter().map(|(a, b)| json!([name(*a), name(*b)])).collect::<Vec<_>>(),
        "workers": config.cores.workers,
        "vms": config.vms.len(),
        "groups": config.policy.groups.iter().map(|g| json!({
            "name": g.name, "networks": g.nets.len(), "macs": g.macs.len(),
            "vlans": g.vlans.len(), "vnis": g.vnis.len(),
        })).collect::<Vec<_>>(),
        "rules": config.policy.rules.len(),
        "tiers": tiers,
        "default": config.policy.default,
        "non_ip": config.non_ip,
        "live_flows": config.live_flows,
        "mirrors": config.mirrors.iter().map(|m| json!({ "name": m.name, "to": name(m.port) })).collect::<Vec<_>>(),
        "can_run": config.require_ports().is_ok(),
    })
}

fn summary_text(config: &Config, file: &str) -> String {
    let mut out = format!("{file}: good\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{} VMs, {} rules, workers on CPUs {:?}",
        config.vms.len(),
        config.policy.rules.len(),
        config.cores.workers
    );
    if let Err(why) = config.require_ports() {
        let _ = writeln!(out, "for replay only: {why}");
    }
    section(&mut out, &["port", "device", "paired with"], port_rows(config));
    section(&mut out, &["group", "networks", "MACs", "VLANs", "VNIs"], group_rows(config));
    let tier_rows = tiers(config)
        .into_iter()
        .map(|(tier, counts)| std::iter::once(tier.name().to_owned()).chain(counts.map(|n| n.to_string())).collect());
    section(&mut out, &["tier", "rules", "shadow", "disabled"], tier_rows.collect());
    let mirror_rows = config.mirrors.iter().map(|m| vec![m.name.clone(), target_name(config, m.port).to_owned()]);
    section(&mut out, &["mirror", "to"], mirror_rows.collect());
    let Config { policy, non_ip, live_flows, .. } = config;
    let _ = write!(out, "\nno rule decides: {:?}; frames without IP: {non_ip:?}", policy.default);
    let _ = writeln!(out, "; flows alive at a reload: {live_flows:?}");
    out
}

fn port_rows(config: &Config) -> Vec<Vec<String>> {
    let partner = |index| {
        let other = config.pairs.iter().find_map(|(a, b)| match index {
            i if i == *a => Some(*b),
            i if i == *b => Some(*a),
            _ => None,
        });
        other.map_or_else(String::new, |other| config.ports[other].name.clone())
    };
    let rows = config.ports.iter().enumerate();
    rows.map(|(index, port)| vec![port.name.clone(), port.device.clone(), partner(index)]).collect()
}

fn group_rows(config: &Config) -> Vec<Vec<String>> {
    let groups = config.policy.groups.iter();
    groups
        .map(|g| {
            let counts = [g.nets.len(), g.macs.len(), g.vlans.len(), g.vnis.len()];
            std::iter::once(g.name.clone()).chain(counts.map(|n| n.to_string())).collect()
        })
        .collect()
}

fn section(out: &mut String, header: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>());
    table.add_rows(rows);
    let _ = writeln!(out, "\n{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, output: CheckOutput) -> (bool, String, String) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("gnomon.toml");
        std::fs::write(&file, text).expect("write");
        report(&CheckArgs { config: Some(file), output, schema: false }).expect("report")
    }

    const GOOD: &str = r#"
[policy]
default = "deny"
[[vm]]
id = "web-1"
addresses = ["10.0.1.10", "fd00::10"]
tags = ["role=web"]
[[group]]
name = "web"
tags = ["role=web"]
[[group]]
name = "nobody"
[[rule]]
id = "in"
to = "web"
protocol = "tcp"
ports = 443
action = "allow"
"#;

    #[test]
    fn a_good_file_is_summed_up() {
        let (ok, out, err) = check(GOOD, CheckOutput::Text);
        assert!(ok);
        assert!(out.contains("web") && out.contains("policy") && out.contains("no rule decides: Deny"), "{out}");
        assert!(out.contains("for replay only"), "{out}");
        assert!(err.contains("warning: group `nobody` has no members"), "{err}");
        let (ok, out, _) = check(GOOD, CheckOutput::Json);
        let value: Value = serde_json::from_str(&out).expect("JSON");
        assert!(ok);
        assert_eq!(value["summary"]["groups"][0]["networks"], 2);
        assert_eq!(value["summary"]["tiers"][0]["enforce"], 1);
        assert_eq!(value["warnings"][0]["line"], 11);
    }

    #[test]
    fn a_bad_file_fails_in_both_forms() {
        let bad = GOOD.replace("action", "actoin");
        let (ok, out, err) = check(&bad, CheckOutput::Text);
        assert!(!ok && out.is_empty());
        assert!(err.contains("did you mean: action"), "{err}");
        let (ok, out, err) = check(&bad, CheckOutput::Json);
        assert!(!ok && err.is_empty());
        let value: Value = serde_json::from_str(&out).expect("JSON");
        assert!(value["errors"].as_array().is_some_and(|errors| !errors.is_empty()));
    }

    #[test]
    fn the_schema_needs_no_file() {
        let args = CheckArgs { config: None, output: CheckOutput::Text, schema: true };
        let (ok, out, _) = report(&args).expect("report");
        assert!(ok);
        assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON"), config::json_schema());
    }
}
