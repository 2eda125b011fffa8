//! Writes Ethernet frames to a pcap file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::CaptureError;

/// Unit of the fraction of a second in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    Microseconds,
    Nanoseconds,
}

/// A pcap file being written (little-endian, version 2.4, Ethernet), buffered.
#[derive(Debug)]
pub struct PcapWriter {
    path: PathBuf,
    file: BufWriter<File>,
    resolution: Resolution,
    frames: u64,
}

impl PcapWriter {
    /// Creates or overwrites a file with nanosecond times and a snap length of 262144.
    ///
    /// # Errors
    /// When the file cannot be created or written.
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        Self::with(path, Resolution::Nanoseconds, 262_144)
    }

    /// Creates or overwrites a file.
    ///
    /// # Errors
    /// When the file cannot be created or written.
    pub fn with(path: &Path, resolution: Resolution, snap_len: u32) -> Result<Self, CaptureError> {
        let file = File::create(path).map_err(|e| CaptureError::write(path, e))?;
        let mut file = BufWriter::with_capacity(256 * 1024, file);
        let magic: u32 = match resolution {
            Resolution::Microseconds => 0xa1b2_c3d4,
            Resolution::Nanoseconds => 0xa1b2_3c4d,
        };
        let mut header = [0; 24];
        header[0..4].copy_from_slice(&magic.to_le_bytes());
        header[4..8].copy_from_slice(&[2, 0, 4, 0]);
        header[16..20].copy_from_slice(&snap_len.to_le_bytes());
        header[20] = 1;
        file.write_all(&header).map_err(|e| CaptureError::write(path, e))?;
        Ok(Self { path: path.to_path_buf(), file, resolution, frames: 0 })
    }

    /// Appends one frame of `data.len()` captured and `wire_len` original bytes.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, ts_ns: u64, data: &[u8], wire_len: u32) -> Result<(), CaptureError> {
        self.write_parts(ts_ns, &[data], wire_len)
    }

    /// As [`PcapWriter::write`], for a frame that lies in several pieces.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_parts(&mut self, ts_ns: u64, parts: &[&[u8]], wire_len: u32) -> Result<(), CaptureError> {
        let captured: usize = parts.iter().map(|p| p.len()).sum();
        let captured = u32::try_from(captured).unwrap_or(u32::MAX);
        let fraction = (ts_ns % 1_000_000_000) as u32;
        let fraction = if self.resolution == Resolution::Nanoseconds { fraction } else { fraction / 1_000 };
        let seconds = u32::try_from(ts_ns / 1_000_000_000).unwrap_or(u32::MAX);
        let mut header = [0; 16];
        header[0..4].copy_from_slice(&seconds.to_le_bytes());
        header[4..8].copy_from_slice(&fraction.to_le_bytes());
        header[8..12].copy_from_slice(&captured.to_le_bytes());
        header[12..16].copy_from_slice(&wire_len.max(captured).to_le_bytes());
        self.put(&header)?;
        for part in parts {
            self.put(part)?;
        }
        self.frames += 1;
        Ok(())
    }

    /// Frames written so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Writes out what is buffered. A writer dropped without this may lose its last frames unseen.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> Result<u64, CaptureError> {
        self.file.flush().map_err(|e| CaptureError::write(&self.path, e))?;
        Ok(self.frames)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), CaptureError> {
        self.file.write_all(bytes).map_err(|e| CaptureError::write(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{CaptureReader, LinkType};

    #[test]
    fn nothing_is_lost_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcap");
        let mut writer = PcapWriter::create(&path).unwrap();
        writer.write(1_700_000_000_123_456_789, b"0123456789abcdef", 1500).unwrap();
        writer.write_parts(0, &[b"ab", b"", b"cd"], 0).unwrap();
        assert_eq!(writer.finish().unwrap(), 2);
        let mut reader = CaptureReader::open(&path).unwrap();
        let frame = reader.next_frame().unwrap().unwrap();
        assert_eq!((frame.ts_ns, frame.wire_len), (1_700_000_000_123_456_789, 1500));
        assert_eq!((frame.link, frame.data), (LinkType::ETHERNET, &b"0123456789abcdef"[..]));
        let frame = reader.next_frame().unwrap().unwrap();
        assert_eq!((frame.ts_ns, frame.wire_len, frame.data), (0, 4, &b"abcd"[..]));
        assert!(reader.next_frame().unwrap().is_none());
        assert!(!reader.truncated());
    }

    #[test]
    fn errors_name_the_file() {
        let error = PcapWriter::create(Path::new("/nowhere/at/all.pcap")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all.pcap"));
    }
}
