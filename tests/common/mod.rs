//! What several test programs share.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod captures;
pub mod faults;
pub mod frames;
pub mod ipfix;
pub mod rig;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folder with real captures and independent truth, or `None` after saying that the test is skipped.
pub fn shared(test: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("GNOMON_SHARED").map_or(default, PathBuf::from);
    if folder.join("captures").is_dir() {
        return Some(folder);
    }
    println!("skipped {test}: no captures in {} (set GNOMON_SHARED)", folder.display());
    None
}

/// The built program with these arguments, run to its end.
pub fn gnomon<I, S>(arguments: I) -> Output
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    Command::new(env!("CARGO_BIN_EXE_gnomon")).args(arguments).output().expect("the program starts")
}

/// Standard output of a run that must succeed.
pub fn succeeds(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\nstdout:\n{out}\nstderr:\n{err}", output.status);
    out.into_owned()
}

/// All lines of a JSON-lines file.
pub fn json_lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}: {line}", path.display())))
        .collect()
}

/// `summary.json` accounts for every packet and copy.
pub fn adds_up(summary: &serde_json::Value, what: &str) {
    let number = |field: &str| summary[field].as_u64().unwrap_or_else(|| panic!("{what}: no {field} in {summary}"));
    let drops: u64 = summary["drops"].as_object().expect("drops").values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(number("rx"), number("tx") + number("consumed") + drops, "{what}: {summary}");
    for (session, copies) in summary["mirrored"].as_object().expect("sessions") {
        let count = |field: &str| copies[field].as_u64().expect("a number");
        assert_eq!(count("selected"), count("packets") + count("lost"), "{what}: copies of {session}");
        assert_eq!(count("lost"), 0, "{what}: replay loses no copy of {session}");
    }
    assert_eq!(number("records_lost"), 0, "{what}: replay loses no record");
}
