//! Alerts as they come.

use std::collections::BTreeMap;
use std::io::{SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Common, Wanted, ask, episode, shown};
use crate::cli::tail::Tail;

const EVERY: Duration = Duration::from_millis(500);
/// Episodes whose last word is remembered.
const MOST: usize = 10_000;

/// Tells every change until it is ended. What was told already is in `told`.
pub(super) fn follow(common: &Common, wanted: &Wanted, told: &[Value]) -> Result<()> {
    match common.read.as_slice() {
        [] => appliance(common, wanted, told),
        [path] if path == Path::new("-") => bail!("standard input is read to its end: leave out --follow"),
        [path] => file(common, wanted, path),
        _ => bail!("one file can be followed"),
    }
}

fn appliance(common: &Common, wanted: &Wanted, told: &[Value]) -> Result<()> {
    let state = |line: &Value| format!("{} {}", line["gnomon"]["status"], line["gnomon"]["count"]);
    let mut known: BTreeMap<String, String> = told.iter().map(|line| (episode(line), state(line))).collect();
    loop {
        std::thread::sleep(EVERY);
        for line in ask(common)?.0.iter().filter(|line| wanted.takes(line)) {
            if known.insert(episode(line), state(line)).as_ref() != Some(&state(line)) {
                tell(common, line)?;
            }
        }
        while known.len() > MOST {
            known.pop_first();
        }
    }
}

fn file(common: &Common, wanted: &Wanted, path: &Path) -> Result<()> {
    let mut tail = Tail::open(path, SeekFrom::End(0))?;
    loop {
        while let Some(line) = tail.next()? {
            let line: Value = serde_json::from_slice(&line).with_context(|| format!("in {}", path.display()))?;
            if line["gnomon"]["kind"].is_string() && wanted.takes(&line) {
                tell(common, &line)?;
            }
        }
        std::thread::sleep(EVERY);
    }
}

fn tell(common: &Common, line: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match common.output.as_str() {
        "json" => writeln!(out, "{line}")?,
        _ => writeln!(out, "{}", shown::line(line))?,
    }
    Ok(out.flush()?)
}
