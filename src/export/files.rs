//! The output files of a run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::behaviour::{AlertEvent, ScoredRecord};
use crate::config;

use super::eve::{Names, write_alert, write_flow};

/// Bytes gathered before a write.
const BUFFER: usize = 256 * 1024;

/// An output file could not be made or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}; check that the folder exists, is writable and has room")]
pub struct ExportError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// `flows.jsonl`, `alerts.jsonl` and `suggestions.jsonl` of one run.
///
/// `alerts.jsonl` gets one line per episode, when it is closed; in live use also when it opens and grows. `suggestions.jsonl` stays empty in
/// this version: nothing proposes rule changes yet, but scripts find the file.
#[derive(Debug)]
pub struct Files {
    flows: Option<Output>,
    alerts: Option<Output>,
    suggestions: Output,
    /// Alerts are told when they open, not only when they are over.
    live: bool,
}

impl Files {
    /// For one run over a finite input: makes the folder, replaces files of an earlier run.
    pub fn create(directory: &Path) -> Result<Self, ExportError> {
        Self::open(directory, true, true, false)
    }

    /// For live use: makes the folder, appends; which files is up to the configuration.
    pub fn append(export: &config::Export) -> Result<Self, ExportError> {
        Self::open(&export.directory, export.flows, export.alerts, true)
    }

    fn open(directory: &Path, flows: bool, alerts: bool, append: bool) -> Result<Self, ExportError> {
        fs::create_dir_all(directory).map_err(|source| ExportError { path: directory.into(), source })?;
        let output = |name: &str| Output::open(directory.join(name), append);
        Ok(Self {
            suggestions: output("suggestions.jsonl")?,
            live: append,
            flows: flows.then(|| output("flows.jsonl")).transpose()?,
            alerts: alerts.then(|| output("alerts.jsonl")).transpose()?,
        })
    }

    /// Writes a record to `flows.jsonl`.
    pub fn record(&mut self, scored: &ScoredRecord, names: &impl Names) -> Result<(), ExportError> {
        self.flows.as_mut().map_or(Ok(()), |out| out.write(|w| write_flow(w, scored, names)))
    }

    /// Writes the final account of an episode to `alerts.jsonl`; in live use also its opening and each
    /// update, under the same episode number.
    pub fn alert(&mut self, event: &AlertEvent, names: &impl Names) -> Result<(), ExportError> {
        if !self.live && !matches!(event, AlertEvent::Closed(_)) {
            return Ok(());
        }
        self.alerts.as_mut().map_or(Ok(()), |out| out.write(|w| write_alert(w, event.alert(), names)))
    }

    /// The files there are.
    pub fn paths(&self) -> Vec<PathBuf> {
        let outputs = [self.flows.as_ref(), self.alerts.as_ref(), Some(&self.suggestions)];
        outputs.into_iter().flatten().map(|out| out.path.clone()).collect()
    }

    /// Hands everything written so far to the operating system. Call it at the end, and now and then
    /// in live use.
    pub fn flush(&mut self) -> Result<(), ExportError> {
        for out in [&mut self.flows, &mut self.alerts].into_iter().flatten() {
            out.write(|w| w.flush())?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl Output {
    fn open(path: PathBuf, append: bool) -> Result<Self, ExportError> {
        let mut options = OpenOptions::new();
        options.create(true).write(true).append(append).truncate(!append);
        match options.open(&path) {
            Ok(file) => Ok(Self { path, writer: BufWriter::with_capacity(BUFFER, file) }),
            Err(source) => Err(ExportError { path, source }),
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), ExportError> {
        write(&mut self.writer).map_err(|source| ExportError { path: self.path.clone(), source })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::eve::tests::{Fixed, scored};
    use super::*;

    fn lines(path: &Path) -> usize {
        fs::read_to_string(path).unwrap().lines().count()
    }

    #[test]
    fn create_replaces_and_append_appends() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a/b");
        for _ in 0..2 {
            let mut files = Files::create(&place).unwrap();
            for _ in 0..3 {
                files.record(&scored(), &Fixed).unwrap();
            }
            files.flush().unwrap();
        }
        assert_eq!(lines(&place.join("flows.jsonl")), 3);
        assert_eq!(lines(&place.join("alerts.jsonl")), 0);
        assert_eq!(fs::metadata(place.join("suggestions.jsonl")).unwrap().len(), 0);
        let export = config::Export { directory: place.clone(), flows: true, alerts: false };
        let mut files = Files::append(&export).unwrap();
        files.record(&scored(), &Fixed).unwrap();
        files.flush().unwrap();
        assert_eq!(lines(&place.join("flows.jsonl")), 4);
    }

    #[test]
    fn errors_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"x").unwrap();
        let error = Files::create(&file.join("sub")).unwrap_err().to_string();
        assert!(error.contains("file/sub"), "{error}");
        fs::create_dir(dir.path().join("flows.jsonl")).unwrap();
        let error = Files::create(dir.path()).unwrap_err().to_string();
        assert!(error.contains("flows.jsonl"), "{error}");
    }

    #[test]
    fn a_full_disk_is_reported() {
        if !Path::new("/dev/full").exists() {
            println!("skipped: no /dev/full");
            return;
        }
        let mut out = Output::open("/dev/full".into(), true).unwrap();
        out.write(|w| w.write_all(b"x")).unwrap();
        assert!(out.write(|w| w.flush()).unwrap_err().to_string().contains("/dev/full"));
    }
}
