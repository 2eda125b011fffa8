//! Everywhere that the results of a run go.

use std::path::PathBuf;

use super::eve::Names;
use super::files::{ExportError, Files};
use super::ipfix::{CollectorSummary, Collectors, IpfixError};
use crate::behaviour::{AlertEvent, PairInterval, ScoredRecord};

/// Files and collectors of one run.
#[derive(Debug)]
pub struct Exports {
    pub files: Files,
    pub collectors: Collectors,
}

impl Exports {
    /// Hands a record to the collectors and writes it to the files, where `number` is its place in the stream.
    pub fn record(&mut self, scored: &ScoredRecord, number: u64, names: &impl Names) -> Result<(), ExportError> {
        self.collectors.record(scored);
        self.files.record(scored, number, names)
    }

    /// Writes an alert to the files.
    pub fn alert(&mut self, event: &AlertEvent, names: &impl Names) -> Result<(), ExportError> {
        self.files.alert(event, names)
    }

    /// Writes an interval of a group pair that was not expected.
    pub fn pair(&mut self, interval: &PairInterval, names: &impl Names) -> Result<(), ExportError> {
        self.files.pair(interval, names)
    }

    /// The files there are.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.paths()
    }

    /// Hands everything written so far to the operating system.
    pub fn flush(&mut self) -> Result<(), ExportError> {
        self.files.flush()
    }

    /// Sends what the collectors are still to get.
    ///
    /// # Errors
    /// Something was lost in a run that must lose nothing.
    pub fn finish(&mut self) -> Result<Vec<CollectorSummary>, IpfixError> {
        self.collectors.finish()
    }
}
