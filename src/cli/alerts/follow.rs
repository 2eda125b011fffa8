//! Alerts as they come.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Common, Wanted, ask, episode, shown};

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

/// Lines that are appended; a file that was put aside is left for the new one.
struct Tail {
    path: PathBuf,
    reader: BufReader<File>,
    inode: u64,
    /// The beginning of a line that is not written to its end yet.
    part: Vec<u8>,
}

impl Tail {
    fn open(path: &Path, at: SeekFrom) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
        let inode = file.metadata()?.ino();
        file.seek(at)?;
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), inode, part: Vec::new() })
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        self.reader.read_until(b'\n', &mut self.part)?;
        if self.part.last() == Some(&b'\n') {
            return Ok(Some(std::mem::take(&mut self.part)));
        }
        // Between a file that was put aside and the new one there may be none.
        if std::fs::metadata(&self.path).is_ok_and(|about| about.ino() != self.inode) {
            *self = Self::open(&self.path, SeekFrom::Start(0))?;
        }
        Ok(None)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_takes_whole_lines_and_goes_to_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alerts.jsonl");
        std::fs::write(&path, "old\n").unwrap();
        let mut tail = Tail::open(&path, SeekFrom::End(0)).unwrap();
        assert_eq!(tail.next().unwrap(), None);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.next().unwrap().unwrap(), b"one\n");
        assert_eq!(tail.next().unwrap(), None);
        file.write_all(b"o\n").unwrap();
        assert_eq!(tail.next().unwrap().unwrap(), b"two\n");
        std::fs::rename(&path, folder.path().join("alerts.1.jsonl")).unwrap();
        assert_eq!(tail.next().unwrap(), None);
        std::fs::write(&path, "three\n").unwrap();
        assert_eq!(tail.next().unwrap(), None);
        assert_eq!(tail.next().unwrap().unwrap(), b"three\n");
    }
}
