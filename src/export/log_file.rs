//! A file of lines that is put aside when it is large or old enough.
//!
//! `flows.jsonl` becomes `flows.20260121T103812.004521Z.jsonl`, and with compression a little later the same with `.gz`:
//! each is one rename, so at every moment all lines are in whole files, in the order of the names. Lines are never cut:
//! not by a change of files, not by a full disk (what was written of a line is taken back), and what a killed process
//! left of a line is taken off when the file is opened again. Another program may rename the file or empty it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::time::compact;
use crate::config::Rotation;

/// Bytes looked at in one step when searching for the end of the last whole line.
const TAIL: u64 = 64 * 1024;

/// See the module. All calls may wait for the disk.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    len: u64,
    /// Device and inode.
    identity: (u64, u64),
    /// When the lines in it began, or it was opened.
    since: SystemTime,
    rotation: Rotation,
    /// Times that the file could not be put aside.
    stuck: u64,
}

/// Writing failed.
#[derive(Debug)]
pub(super) struct Stopped {
    pub error: io::Error,
    /// Bytes of whole lines that were written before.
    pub written: usize,
}

impl LogFile {
    /// Opens the file to go on after its last whole line, or to begin anew.
    pub fn open(path: PathBuf, append: bool, rotation: Rotation) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).read(append).append(true);
        if !append {
            File::create(&path)?;
        }
        let file = options.open(&path)?;
        let about = file.metadata()?;
        let mut log = Self {
            path,
            file,
            len: about.len(),
            identity: (about.dev(), about.ino()),
            since: about.modified().unwrap_or_else(|_| SystemTime::now()),
            rotation,
            stuck: 0,
        };
        if about.is_file() && log.len > 0 {
            log.mend()?;
        }
        Ok(log)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes whole lines. `put_aside` is called for each file that was replaced by a new one.
    pub fn write(&mut self, lines: &[u8], now: SystemTime, mut put_aside: impl FnMut(PathBuf)) -> Result<(), Stopped> {
        let mut written = 0;
        while written < lines.len() {
            let rest = &lines[written..];
            let fits = self.fitting(rest);
            if self.len > 0 && (fits == 0 || self.is_old(now)) {
                match self.put_aside(now) {
                    Ok(path) => put_aside(path),
                    // Larger than wanted is better than lost.
                    Err(error) => self.complain(&error),
                }
            }
            let some = &rest[..if fits == 0 { first_line(rest) } else { fits }];
            if self.len == 0 {
                self.since = now;
            }
            self.write_whole(some).map_err(|error| Stopped { error, written })?;
            written += some.len();
        }
        Ok(())
    }

    /// Looks whether the file is still the one at the path, and whether its time has come.
    pub fn check(&mut self, now: SystemTime, mut put_aside: impl FnMut(PathBuf)) -> io::Result<()> {
        match fs::metadata(&self.path) {
            Ok(about) if (about.dev(), about.ino()) == self.identity => self.len = about.len().min(self.len),
            Ok(_) => self.reopen()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.reopen()?,
            Err(error) => return Err(error),
        }
        if self.len > 0 && self.is_old(now) {
            put_aside(self.put_aside(now)?);
        }
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(self.path.clone(), true, self.rotation.clone())?;
        Ok(())
    }

    /// Bytes of the lines at the front that fit the file.
    fn fitting(&self, lines: &[u8]) -> usize {
        let Some(size) = self.rotation.size else { return lines.len() };
        let room = size.saturating_sub(self.len).min(lines.len() as u64) as usize;
        lines[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
    }

    fn is_old(&self, now: SystemTime) -> bool {
        let Some(every) = self.rotation.every else { return false };
        let period = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / every.as_secs();
        period(now) > period(self.since)
    }

    fn write_whole(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines).inspect_err(|_| {
            Self::take_back(&self.file, self.len);
        })?;
        self.len += lines.len() as u64;
        Ok(())
    }

    /// Takes off what follows the whole lines: readers find no others. Makes a file that another program has emptied no
    /// longer. What is not a file has nothing to take back.
    fn take_back(file: &File, len: u64) {
        if let Ok(about) = file.metadata()
            && about.len() > len
        {
            let _ = file.set_len(len);
        }
    }

    /// The first time, and then ever more seldom.
    fn complain(&mut self, error: &io::Error) {
        self.stuck += 1;
        if self.stuck.is_power_of_two() {
            log::warn!("{} cannot be put aside: {error} (failed {} times)", self.path.display(), self.stuck);
        }
    }

    /// Renames the file and begins a new one.
    fn put_aside(&mut self, now: SystemTime) -> io::Result<PathBuf> {
        let mut at = now;
        let aside = loop {
            let aside = aside(&self.path, at);
            if !aside.exists() && !compressed(&aside).exists() {
                break aside;
            }
            at += Duration::from_micros(1);
        };
        fs::rename(&self.path, &aside)?;
        match Self::open(self.path.clone(), true, self.rotation.clone()) {
            Ok(new) => *self = new,
            Err(error) => {
                fs::rename(&aside, &self.path)?;
                return Err(error);
            }
        }
        self.since = now;
        prune(&self.path, self.rotation.keep);
        Ok(aside)
    }

    /// Takes off what follows the last newline.
    fn mend(&mut self) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let (whole, mut end) = (self.len, self.len);
        let mut bytes = vec![0; TAIL as usize];
        while end > 0 {
            let start = end.saturating_sub(TAIL);
            let part = &mut bytes[..(end - start) as usize];
            self.file.read_exact_at(part, start)?;
            if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
                end = start + at as u64 + 1;
                break;
            }
            end = start;
        }
        if end < whole {
            log::warn!("{}: took off {} bytes of an unfinished last line", self.path.display(), whole - end);
            self.file.set_len(end)?;
            self.len = end;
        }
        Ok(())
    }
}

/// Compresses what an earlier run left uncompressed, and removes what it left half done.
pub(super) fn left_over(path: &Path) -> Vec<PathBuf> {
    let Some(folder) = path.parent() else { return Vec::new() };
    let names = names_in(folder);
    for half in names.iter().filter(|name| is_aside(path, name.strip_suffix(".gz.part").unwrap_or_default())) {
        let _ = fs::remove_file(folder.join(half));
    }
    names.iter().filter(|name| is_aside(path, name)).map(|name| folder.join(name)).collect()
}

/// Replaces a file by its compressed form, unless told to stop meanwhile.
pub(super) fn compress(path: &Path, stop: impl Fn() -> bool) -> io::Result<()> {
    let part = PathBuf::from(format!("{}.gz.part", path.display()));
    let outcome = compress_into(path, &part, stop);
    if !matches!(outcome, Ok(true)) {
        let _ = fs::remove_file(&part);
    }
    if outcome? {
        fs::rename(&part, compressed(path))?;
        fs::remove_file(path)?;
    }
    Ok(())
}

fn compress_into(path: &Path, part: &Path, stop: impl Fn() -> bool) -> io::Result<bool> {
    use std::io::Read;
    let mut from = File::open(path)?;
    let mut to = GzEncoder::new(File::create(part)?, Compression::default());
    let mut bytes = vec![0; 256 * 1024];
    loop {
        match from.read(&mut bytes)? {
            0 => break,
            _ if stop() => return Ok(false),
            n => to.write_all(&bytes[..n])?,
        }
    }
    to.finish()?.sync_all()?;
    Ok(true)
}

/// Deletes the oldest of the files put aside, so that `keep` stay.
fn prune(path: &Path, keep: usize) {
    let Some(folder) = path.parent() else { return };
    let mut names = names_in(folder);
    names.retain(|name| is_aside(path, name.strip_suffix(".gz").unwrap_or(name)));
    // A file and its compressed form, should both be there, are one.
    let mut times: Vec<&str> = names.iter().map(|name| name.strip_suffix(".gz").unwrap_or(name)).collect();
    times.sort_unstable();
    times.dedup();
    let excess = times.len().saturating_sub(keep);
    for old in times[..excess].iter().flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]) {
        if let Err(error) = fs::remove_file(&old)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("{} cannot be deleted: {error}", old.display());
        }
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn compressed(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.gz", path.display()))
}

fn aside(path: &Path, at: SystemTime) -> PathBuf {
    let nanoseconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let (stem, extension) = parts(path);
    path.with_file_name(format!("{stem}.{}.{extension}", compact(nanoseconds)))
}

/// Whether `name` is what [`aside`] would call this file at some time.
fn is_aside(path: &Path, name: &str) -> bool {
    const SHAPE: &[u8] = b"00000000T000000.000000Z";
    let (stem, extension) = parts(path);
    let time = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.'));
    let time = time.and_then(|rest| rest.strip_suffix(extension)).and_then(|rest| rest.strip_suffix('.'));
    time.is_some_and(|time| {
        let alike = |(byte, like): (u8, &u8)| if *like == b'0' { byte.is_ascii_digit() } else { byte == *like };
        time.len() == SHAPE.len() && time.bytes().zip(SHAPE).all(alike)
    })
}

fn parts(path: &Path) -> (&str, &str) {
    let text = |part: Option<&'_ std::ffi::OsStr>| part.and_then(|part| part.to_str().map(str::len));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = text(path.file_stem()).unwrap_or_default().min(name.len());
    (&name[..stem], name[stem..].trim_start_matches('.'))
}

fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    const AT: SystemTime = UNIX_EPOCH;

    fn rotation(size: Option<u64>, every: Option<u64>) -> Rotation {
        Rotation { size, every: every.map(Duration::from_secs), keep: 1000, compress: false }
    }

    fn at(seconds: u64) -> SystemTime {
        AT + Duration::from_secs(seconds)
    }

    /// All files of a log, oldest first, decompressed.
    fn contents(path: &Path) -> Vec<Vec<u8>> {
        let folder = path.parent().unwrap();
        let mut names = names_in(folder);
        names.retain(|name| is_aside(path, name.strip_suffix(".gz").unwrap_or(name)));
        names.sort_unstable();
        let read = |name: &String| {
            let bytes = fs::read(folder.join(name)).unwrap();
            let mut text = Vec::new();
            if name.ends_with(".gz") {
                flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
                return text;
            }
            bytes
        };
        let mut all: Vec<_> = names.iter().map(read).collect();
        all.push(fs::read(path).unwrap());
        all
    }

    proptest! {
        #[test]
        fn lines_come_out_whole_and_in_order_whatever_the_sizes(
            blocks in proptest::collection::vec(proptest::collection::vec(0_usize..60, 1..12), 1..20),
            size in 1_u64..200,
            every in 1_u64..5,
            reopen in 0_usize..20,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("flows.jsonl");
            let mut log = LogFile::open(path.clone(), true, rotation(Some(size), Some(every))).unwrap();
            let mut expected = Vec::new();
            for (second, block) in blocks.iter().enumerate() {
                if second == reopen {
                    // A killed process left half a line.
                    log.file.write_all(b"half a li").unwrap();
                    log = LogFile::open(path.clone(), true, rotation(Some(size), Some(every))).unwrap();
                }
                let lines: Vec<u8> = block
                    .iter()
                    .enumerate()
                    .flat_map(|(i, len)| format!("{second} {i} {}\n", "x".repeat(*len)).into_bytes())
                    .collect();
                log.write(&lines, at(second as u64), |_| {}).unwrap();
                expected.extend(lines);
            }
            let files = contents(&path);
            for file in &files {
                prop_assert!(file.is_empty() || file.ends_with(b"\n"), "a cut line");
                let lines = file.iter().filter(|byte| **byte == b'\n').count();
                prop_assert!(file.len() as u64 <= size || lines == 1, "{} bytes in {} lines", file.len(), lines);
            }
            prop_assert_eq!(String::from_utf8(files.concat()).unwrap(), String::from_utf8(expected).unwrap());
        }
    }

    #[test]
    fn old_files_go_and_compressed_ones_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        let stranger = folder.path().join("flows.backup.jsonl");
        fs::write(&stranger, "not ours").unwrap();
        let keep = Rotation { keep: 3, ..rotation(None, Some(10)) };
        let mut log = LogFile::open(path.clone(), true, keep).unwrap();
        for n in 0..8_u64 {
            let line = format!("{n}\n");
            log.write(line.as_bytes(), at(n * 10), |aside| compress(&aside, || false).unwrap()).unwrap();
        }
        assert_eq!(contents(&path), ["4\n", "5\n", "6\n", "7\n"].map(Vec::from));
        assert!(names_in(folder.path()).contains(&"flows.19700101T000100.000000Z.jsonl.gz".to_owned()));
        assert!(stranger.exists());
        // Nothing comes, and still the file is put aside when its time is over; an empty one is not.
        let mut moved = 0;
        log.check(at(85), |_| moved += 1).unwrap();
        log.check(at(95), |_| moved += 1).unwrap();
        assert_eq!((moved, contents(&path).len()), (1, 4));
    }

    #[test]
    fn interrupted_compression_is_finished_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        let old = folder.path().join("flows.20260121T103812.004521Z.jsonl");
        fs::write(&old, "whole\n").unwrap();
        fs::write(&path, "now\n").unwrap();
        compress(&old, || true).unwrap();
        assert_eq!(names_in(folder.path()).len(), 2, "stopped: as before");
        let half = folder.path().join("flows.20260121T103812.004521Z.jsonl.gz.part");
        fs::write(&half, "half").unwrap();
        assert_eq!(left_over(&path), std::slice::from_ref(&old));
        assert!(!half.exists());
        compress(&old, || false).unwrap();
        assert_eq!((contents(&path), left_over(&path)), (vec![b"whole\n".to_vec(), b"now\n".to_vec()], vec![]));
    }

    #[test]
    fn others_may_rename_or_empty_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        let mut log = LogFile::open(path.clone(), true, rotation(Some(10), None)).unwrap();
        let mut write = |text: &str| {
            log.check(AT, |_| {}).unwrap();
            log.write(text.as_bytes(), AT, |_| {}).unwrap();
        };
        write("one\n");
        fs::rename(&path, folder.path().join("flows.jsonl.1")).unwrap();
        write("two\n");
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        write("three\n");
        fs::remove_file(&path).unwrap();
        write("four\n");
        assert_eq!(fs::read_to_string(folder.path().join("flows.jsonl.1")).unwrap(), "one\n");
        assert_eq!(contents(&path), [b"four\n"]);
    }

    #[test]
    fn what_is_taken_back_never_makes_a_file_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        let mut log = LogFile::open(path.clone(), true, rotation(None, None)).unwrap();
        log.write(b"one\n", AT, |_| {}).unwrap();
        fs::write(&path, "one\nhalf a li").unwrap();
        LogFile::take_back(&log.file, log.len);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        fs::write(&path, "").unwrap();
        LogFile::take_back(&log.file, log.len);
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_goes_on_and_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        let mut log = LogFile::open(path.clone(), true, rotation(Some(4), None)).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        (0..5).for_each(|_| log.write(b"one\n", AT, |_| panic!("put aside")).unwrap());
        assert_eq!((log.stuck, fs::read_to_string(&elsewhere).unwrap().lines().count()), (4, 5));
    }

    #[test]
    fn two_files_of_one_moment_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        let mut log = LogFile::open(path.clone(), true, rotation(Some(2), None)).unwrap();
        log.write(b"1\n2\n3\n", AT, |_| {}).unwrap();
        assert_eq!(contents(&path), ["1\n", "2\n", "3\n"].map(Vec::from));
    }
}
