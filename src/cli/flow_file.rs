//! Files of flow records: lines of JSON, compressed or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use serde_json::Value;

/// The flow records of a file, `-` for standard input. Other events are left out.
pub(super) struct FlowFile {
    path: PathBuf,
    lines: Lines<Box<dyn BufRead>>,
    number: usize,
}

impl FlowFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_path_buf(), lines: open(path)?.lines(), number: 0 })
    }
}

impl Iterator for FlowFile {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.lines.next()?;
            self.number += 1;
            let place = || format!("{}, line {}", self.path.display(), self.number);
            let read = line.with_context(place);
            match read.and_then(|line| serde_json::from_str::<Value>(&line).with_context(place)) {
                Ok(value) if value["event_type"] != "flow" => {}
                other => return Some(other),
            }
        }
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let context = || format!("reading {}", path.display());
    let mut file = BufReader::with_capacity(256 * 1024, File::open(path).with_context(context)?);
    let zipped = file.fill_buf().with_context(context)?.starts_with(&[0x1f, 0x8b]);
    let reader: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    Ok(Box::new(BufReader::with_capacity(256 * 1024, reader)))
}
