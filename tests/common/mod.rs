//! What several test programs share.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod faults;
pub mod frames;
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
