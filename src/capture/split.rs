//! One capture in, one file per worker out: each frame as Ethernet behind its [`Preamble`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::CaptureError;
use super::link::{LinkType, to_ethernet};
use super::preamble::{PREAMBLE_LEN, Preamble};
use super::reader::CaptureReader;
use super::writer::{PcapWriter, Resolution};

/// Longest part of a frame that is handed to a worker. Longer frames (offloaded TCP, jumbo) are cut
/// here and keep their length on the wire; with the preamble this stays below the 65535 bytes that a
/// chain of packet buffers may have.
pub const MAX_CAPTURED: usize = 65_000;

/// Frames between two calls of the progress function.
const PROGRESS_EVERY: u64 = 4096;

/// What became of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// One file per worker, in worker order; a worker without frames has a file without frames.
    pub files: Vec<PathBuf>,
    /// Frames in each of `files`.
    pub frames: Vec<u64>,
    pub total: u64,
    /// Frames whose link type is not understood.
    pub unsupported: u64,
    /// Earliest and latest time, nanoseconds since 1970; `None` for a capture without frames.
    pub first_ts_ns: Option<u64>,
    pub last_ts_ns: Option<u64>,
    pub truncated: bool,
    /// Where and how the file was cut off or damaged.
    pub truncation: Option<String>,
    /// Frames by link type.
    pub links: BTreeMap<LinkType, u64>,
}

/// Splits `input` into `out_dir/worker-N.pcap`. `assign` gets the Ethernet frame, its length on the
/// wire and its clock, which never goes back, and names the worker (taken modulo `workers`). `progress` gets bytes of the file read so far and
/// in all.
///
/// # Errors
/// When the capture cannot be read or is none, or a file cannot be written.
///
/// # Panics
/// When `workers` is 0.
pub fn normalise(
    input: &Path,
    out_dir: &Path,
    workers: usize,
    mut assign: impl FnMut(&[u8], u32, u64) -> usize,
    mut progress: impl FnMut(u64, u64),
) -> Result<Split, CaptureError> {
    assert!(workers > 0, "at least one worker");
    let mut reader = CaptureReader::open(input)?;
    let files: Vec<PathBuf> = (0..workers).map(|w| out_dir.join(format!("worker-{w}.pcap"))).collect();
    let mut writers = files.iter().map(|p| create(p)).collect::<Result<Vec<_>, _>>()?;
    let mut split = Split { files, ..Split::default() };
    let mut ethernet = Vec::with_capacity(MAX_CAPTURED);
    while let Some(frame) = reader.next_frame()? {
        let normalised = to_ethernet(frame.link, frame.data, frame.wire_len, &mut ethernet);
        let wire_len = normalised.wire_len(frame.wire_len).max(u32::try_from(ethernet.len()).unwrap_or(u32::MAX));
        ethernet.truncate(MAX_CAPTURED);
        let clock_ns = split.last_ts_ns.unwrap_or(0).max(frame.ts_ns);
        let preamble = Preamble {
            clock_ns,
            ts_ns: frame.ts_ns,
            index: split.total,
            wire_len,
            count_len: frame.wire_len,
            flags: Preamble::flags(normalised.supported),
        };
        let worker = assign(&ethernet, wire_len, clock_ns) % workers;
        let on_disk = wire_len.saturating_add(PREAMBLE_LEN as u32);
        writers[worker].write_parts(frame.ts_ns, &[&preamble.to_bytes(), &ethernet], on_disk)?;
        split.count(frame.ts_ns, frame.link, normalised.supported);
        if split.total.is_multiple_of(PROGRESS_EVERY) {
            let (done, total) = reader.progress();
            progress(done, total);
        }
    }
    let (_, file_len) = reader.progress();
    progress(file_len, file_len);
    split.truncated = reader.truncated();
    split.truncation = reader.truncation().map(str::to_owned);
    split.frames = writers.into_iter().map(PcapWriter::finish).collect::<Result<_, _>>()?;
    Ok(split)
}

impl Split {
    fn count(&mut self, ts_ns: u64, link: LinkType, supported: bool) {
        self.first_ts_ns = Some(self.first_ts_ns.map_or(ts_ns, |first| first.min(ts_ns)));
        self.last_ts_ns = Some(self.last_ts_ns.map_or(ts_ns, |last| last.max(ts_ns)));
        self.total += 1;
        self.unsupported += u64::from(!supported);
        *self.links.entry(link).or_default() += 1;
    }
}

/// Microseconds, because the pcap device converts to that anyway; exact times are in the preamble.
fn create(path: &Path) -> Result<PcapWriter, CaptureError> {
    PcapWriter::with(path, Resolution::Microseconds, 262_144 + 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (time, captured bytes, wire length) → a capture.
    fn capture(dir: &Path, frames: &[(u64, Vec<u8>, u32)]) -> PathBuf {
        let path = dir.join("in.pcap");
        let mut writer = PcapWriter::create(&path).unwrap();
        for (ts, data, wire_len) in frames {
            writer.write(*ts, data, *wire_len).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn read(path: &Path) -> Vec<(Preamble, Vec<u8>)> {
        let mut reader = CaptureReader::open(path).unwrap();
        let mut all = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            all.push((Preamble::from_bytes(frame.data).unwrap(), frame.data[PREAMBLE_LEN..].to_vec()));
        }
        all
    }

    #[test]
    fn frames_go_where_they_are_assigned_with_time_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let frames = [(5, vec![0; 60], 60), (9, vec![1; 61], 1000), (7, vec![2; 62], 62), (8, vec![1; 63], 63)];
        let input = capture(dir.path(), &frames);
        let mut last = (0, 1);
        let split = normalise(&input, dir.path(), 3, |f, _, _| f[0].into(), |done, all| last = (done, all)).unwrap();
        assert_eq!(split.frames, [1, 2, 1]);
        assert_eq!((split.total, split.unsupported, split.truncated), (4, 0, false));
        assert_eq!((split.first_ts_ns, split.last_ts_ns), (Some(5), Some(9)));
        assert_eq!(split.links, BTreeMap::from([(LinkType::ETHERNET, 4)]));
        assert_eq!(last.0, last.1);
        let second = read(&split.files[1]);
        let numbers: Vec<_> = second.iter().map(|(p, _)| (p.index, p.ts_ns, p.clock_ns, p.wire_len)).collect();
        assert_eq!(numbers, [(1, 9, 9, 1000), (3, 8, 9, 63)]);
        assert_eq!(second[0].1, vec![1; 61]);
        assert!(second[0].0.supported());
    }

    #[test]
    fn very_long_frames_are_cut_and_keep_their_length() {
        let dir = tempfile::tempdir().unwrap();
        let input = capture(dir.path(), &[(1, vec![7; 200_000], 300_000), (2, vec![7; 65_001], 65_001)]);
        let split = normalise(&input, dir.path(), 1, |_, _, _| 0, |_, _| {}).unwrap();
        let frames = read(&split.files[0]);
        assert_eq!((frames[0].1.len(), frames[0].0.wire_len, frames[0].0.count_len), (MAX_CAPTURED, 300_000, 300_000));
        assert_eq!((frames[1].1.len(), frames[1].0.wire_len), (MAX_CAPTURED, 65_001));
    }

    #[test]
    fn a_capture_without_frames() {
        let dir = tempfile::tempdir().unwrap();
        let input = capture(dir.path(), &[]);
        let split = normalise(&input, dir.path(), 2, |_, _, _| 0, |_, _| {}).unwrap();
        assert_eq!((split.total, split.first_ts_ns, split.frames), (0, None, vec![0, 0]));
        assert!(split.files.iter().all(|f| read(f).is_empty()));
    }
}
