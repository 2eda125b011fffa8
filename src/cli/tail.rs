//! A file of lines that another program writes.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Lines that are appended; a file that was put aside is left for the new one.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    reader: BufReader<File>,
    inode: u64,
    /// The beginning of a line that is not written to its end yet.
    part: Vec<u8>,
}

impl Tail {
    pub(super) fn open(path: &Path, at: SeekFrom) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
        let inode = file.metadata()?.ino();
        file.seek(at)?;
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), inode, part: Vec::new() })
    }

    /// The next whole line, with its end; `None` while there is none.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

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
