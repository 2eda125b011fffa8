//! `gnomon status`: what runs.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::live::Appliance;
use super::report::{count, duration};

/// Say what the running appliance is and does.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    appliance: Appliance,
    /// Form of the output.
    #[arg(short, long, value_name = "FORM", value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

pub(super) fn run(args: &StatusArgs) -> Result<ExitCode> {
    let mut client = args.appliance.connect()?;
    let status = client.ask_one(&json!({ "verb": "status" }))?;
    let mut out = std::io::stdout().lock();
    match args.output.as_str() {
        "json" => writeln!(out, "{status}")?,
        _ => write!(out, "{}", told(&status, &client.path.display().to_string()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn told(status: &Value, socket: &str) -> String {
    let text = |name: &str| status[name].as_str().unwrap_or("?").to_owned();
    let number = |name: &str| count(status[name].as_u64().unwrap_or(0));
    let uptime = duration(status["uptime"].as_f64().unwrap_or(0.0));
    let mut told = format!(
        "gnomon {} (process {}) has run for {uptime}; {socket}\n  generation {}, {} workers, {} live flows\n",
        text("version"),
        status["pid"],
        number("generation"),
        number("workers"),
        number("flows"),
    );
    for port in status["ports"].as_array().into_iter().flatten() {
        let link = if port["up"] == true { "up" } else { "down" };
        let role = port["paired_with"].as_str().map_or("mirror".to_owned(), |other| format!("pair with {other}"));
        let [name, device] = ["name", "device"].map(|field| port[field].as_str().unwrap_or("?"));
        told.push_str(&format!("  port {name:<12} {device:<36} link {link:<5} {role}\n"));
    }
    told
}
