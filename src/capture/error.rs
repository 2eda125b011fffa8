//! What can go wrong with a capture file.

use std::io;
use std::path::{Path, PathBuf};

/// Why a capture could not be read or written. A file that is merely cut off is not an error, see
/// [`CaptureReader::truncation`](super::CaptureReader::truncation).
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is not a capture: found {found}; pcap or pcapng, plain or gzip, is needed", path.display())]
    NotACapture { path: PathBuf, found: String },
}

impl CaptureError {
    pub(super) fn open(path: &Path, source: io::Error) -> Self {
        Self::Open { path: path.to_path_buf(), source }
    }

    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_path_buf(), source }
    }

    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_path_buf(), source }
    }

    pub(super) fn not_a_capture(path: &Path, start: &[u8]) -> Self {
        Self::NotACapture { path: path.to_path_buf(), found: describe(start) }
    }
}

/// First bytes of well-known kinds of file that people hand over by mistake.
const KNOWN: &[(&[u8], &str)] = &[
    (b"\x7fELF", "a program (ELF)"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x28\xb5\x2f\xfd", "zstd compressed data"),
    (b"\xfd7zXZ\0", "xz compressed data"),
    (b"BZh", "bzip2 compressed data"),
    (b"\x1f\x8b", "gzip data inside gzip data, or damaged gzip data"),
    (b"snoop\0\0\0", "a Solaris snoop capture"),
    (b"GMBU", "a Microsoft Network Monitor capture"),
    (b"RTSS", "a Microsoft Network Monitor 1 capture"),
    (b"%PDF", "a PDF document"),
];

/// Says in words what a file that starts with these bytes probably is.
fn describe(start: &[u8]) -> String {
    if start.is_empty() {
        return "an empty file (0 bytes)".to_owned();
    }
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return (*what).to_owned();
    }
    let shown = &start[..start.len().min(16)];
    if shown.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
        return format!("text starting {:?}", String::from_utf8_lossy(shown));
    }
    let hex: Vec<String> = shown.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("bytes {}", hex.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_named() {
        let text = |start: &[u8]| CaptureError::not_a_capture(Path::new("x.pcap"), start).to_string();
        assert!(text(b"").contains("0 bytes"));
        assert!(text(b"PK\x03\x04zzzz").contains("zip archive"));
        assert!(text(b"hello world, this").contains("text starting \"hello"));
        assert!(text(&[0, 1, 2, 255]).contains("bytes 00 01 02 ff"));
        assert!(text(b"").contains("x.pcap"));
    }
}
