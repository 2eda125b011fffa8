//! Makes a scenario and sends it through the appliance.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What to make: so many attacks and harmless oddities a day, from a Monday on.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// New flows a second at the busiest hour.
    pub rate: f64,
    pub minutes: u32,
    pub attacks: u32,
    pub oddities: u32,
}

const MONDAY: &str = "2025-01-13T00:00";

/// Leaves `truth.json` and `alerts.jsonl` in `folder`, and no packets.
pub fn run(program: &str, folder: &Path, plan: &Plan) -> Result<()> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a folder whose name is text");
    let out = folder.join("out");
    let made = [
        format!("--seed={}", plan.seed),
        format!("--rate={}", plan.rate),
        format!("--minutes={}", plan.minutes),
        format!("--start={MONDAY}"),
        format!("--attacks=daily={}", plan.attacks),
        format!("--oddities=daily={}", plan.oddities),
    ];
    let head = ["scenario".to_owned(), "-o".to_owned(), text(folder)?];
    call(program, head.into_iter().chain(made))?;
    let (capture, configuration) = (folder.join("scenario.pcap"), folder.join("scenario.toml"));
    let replay = ["replay".to_owned(), text(&capture)?, "-c".into(), text(&configuration)?, "-o".into(), text(&out)?];
    call(program, replay)?;
    for file in std::fs::read_dir(&out)?.chain(std::fs::read_dir(folder)?) {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "pcap") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn call(program: &str, arguments: impl IntoIterator<Item = String>) -> Result<()> {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let output = Command::new(program).args(&arguments).output().with_context(|| format!("starting {program}"))?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
