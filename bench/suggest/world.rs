//! Simulated days with a configuration that has faults, and what is suggested of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use gnomon::policy::suggest::{Context as Surroundings, Rulebook, Suggestion, context};
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::faults::plant;
use crate::truth::Truth;

/// From a Monday on.
const START: &str = "2025-01-13T00:00";
const GROUPS: &str = "web=4,app=4,db=2,dns=2,ntp=1,admin=2,clients=40,iot=8";
/// More than there ever are.
const ALL: &str = "200";

/// What to make.
#[derive(Clone, Debug)]
pub struct Plan {
    pub gnomon: PathBuf,
    pub seed: u64,
    pub days: u32,
    pub rate: f64,
}

/// A world, its suggestions in the order of their rank, whether each is right, and its context.
#[derive(Debug, Deserialize, Serialize)]
pub struct World {
    /// Faults, for people.
    pub told: Vec<String>,
    pub cases: Vec<(Suggestion, bool, Surroundings)>,
}

/// Made now, or taken from where it was kept.
pub fn of(plan: &Plan, keep: Option<&Path>) -> Result<World> {
    let kept = keep.map(|folder| folder.join(format!("{}-{}-{}.json", plan.seed, plan.days, plan.rate)));
    if let Some(path) = kept.as_ref().filter(|path| path.exists()) {
        return Ok(serde_json::from_slice(&std::fs::read(path)?)?);
    }
    let world = make(plan)?;
    if let Some(path) = kept {
        std::fs::write(path, serde_json::to_vec(&world)?)?;
    }
    Ok(world)
}

fn make(plan: &Plan) -> Result<World> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let [minutes, rate, seed] = [(plan.days * 1440).to_string(), plan.rate.to_string(), plan.seed.to_string()];
    let lab = text(folder.path())?;
    let made = ["--minutes", &minutes, "--rate", &rate, "--seed", &seed, "--start", START, "--groups", GROUPS];
    let events = ["--attacks", "daily=6", "--oddities", "daily=2"];
    call(&plan.gnomon, &[&["scenario", "-o", &lab][..], &made, &events].concat())?;
    let right: Table = std::fs::read_to_string(at("scenario.toml"))?.parse()?;
    let mut wrong = right.clone();
    let faults = plant(&mut wrong, plan.seed)?;
    std::fs::write(at("wrong.toml"), wrong.to_string())?;
    let [capture, configuration, out] = [at("scenario.pcap"), at("wrong.toml"), at("out")].map(|path| text(&path));
    let (configuration, out) = (configuration?, out?);
    call(&plan.gnomon, &["replay", &capture?, "-c", &configuration, "-o", &out])?;
    let [flows, alerts] = [format!("{out}/flows.jsonl"), format!("{out}/alerts.jsonl")];
    let asked = ["suggest", &flows, "--alerts", &alerts, "-c", &configuration, "--top", ALL, "-o", "json"];
    let output = call(&plan.gnomon, &asked)?;
    let truth = Truth::read(folder.path(), &right, wrong, &faults)?;
    let lines = std::str::from_utf8(&output)?.lines();
    let suggestions: Result<Vec<Suggestion>, _> = lines.map(serde_json::from_str).collect();
    let book = Rulebook::of_config(&gnomon::config::load(Path::new(&configuration))?);
    let judged = |one: Suggestion| {
        let (is_right, around) = (truth.is_right(&one)?, context(&book, &one));
        Ok((one, is_right, around))
    };
    let cases = suggestions?.into_iter().map(judged).collect::<Result<Vec<_>>>()?;
    Ok(World { told: faults.told, cases })
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a folder whose name is text")
}

fn call(program: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("starting {}", program.display()))?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
