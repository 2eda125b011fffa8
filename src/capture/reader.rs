//! Streaming reader of pcap and pcapng files.
//!
//! Framing (how long is the next record, is that believable, is it all there) is done here, so that
//! memory is bounded on any bytes; headers and options of whole blocks are then decoded by
//! `pcap-parser`. Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

use std::path::{Path, PathBuf};

use super::error::CaptureError;
use super::link::LinkType;
use super::pcapng::{Damage, Section, Step};
use super::source::{Got, Source};

/// Longest record that is believed. Anything longer is damage: no link carries such frames.
pub(super) const MAX_RECORD: u32 = 16 << 20;

/// Times are held within this bound (year 2262), so that sums of a time and a time-out do not overflow.
pub(super) const MAX_TS_NS: u64 = i64::MAX as u64;

/// One frame as it was captured; borrowed until the next call of [`CaptureReader::next_frame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedFrame<'a> {
    /// Nanoseconds since 1970, at most `i64::MAX`; earlier times are 0.
    pub ts_ns: u64,
    pub link: LinkType,
    /// Captured bytes, starting with the header of `link`.
    pub data: &'a [u8],
    /// Length on the wire, never less than `data.len()`.
    pub wire_len: u32,
    /// Interface number within its section of a pcapng file, 0 for pcap.
    pub interface: u32,
}

/// Gives the frames of one capture file in file order.
#[derive(Debug)]
pub struct CaptureReader {
    path: PathBuf,
    source: Source,
    file_len: u64,
    format: Format,
    buffer: Vec<u8>,
    truncation: Option<String>,
}

#[derive(Debug)]
enum Format {
    Pcap(PcapFormat),
    /// Boxed, for it holds all interfaces.
    PcapNg(Box<Section>),
    /// The file header itself is cut off, or the end was reached.
    Ended,
}

/// What the file header of a pcap file says about its records.
#[derive(Clone, Copy, Debug)]
struct PcapFormat {
    big_endian: bool,
    nanoseconds: bool,
    /// Records have 8 more header bytes (Alexey Kuznetzov's variant).
    modified: bool,
    /// Version before 2.3 stored the two lengths the other way round; 2.3 itself did both.
    minor: u16,
    link: LinkType,
}

impl CaptureReader {
    /// Opens a capture and reads its header.
    ///
    /// # Errors
    /// When the file cannot be opened or read, or is not a capture at all.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let mut source = Source::open(path).map_err(|e| CaptureError::open(path, e))?;
        let file_len = std::fs::metadata(path).map_err(|e| CaptureError::open(path, e))?.len();
        let mut buffer = Vec::with_capacity(64 * 1024);
        let read_error = |e| CaptureError::read(path, e);
        let magic_whole = source.append(&mut buffer, 4).map_err(read_error)? == Got::All;
        let magic: [u8; 4] = match buffer[..].try_into() {
            Ok(magic) if magic_whole => magic,
            _ => return Err(CaptureError::not_a_capture(path, &buffer)),
        };
        let more = if is_pcap_magic(magic) { 20 } else { 8 };
        let rest = source.append(&mut buffer, more).map_err(read_error)?;
        let format = match magic {
            // The section header comes through the block loop like those of later sections; that it is
            // one is checked now, for a clear error.
            [0x0a, 0x0d, 0x0d, 0x0a] => Section::from_start(&buffer).map(|s| Format::PcapNg(Box::new(s))),
            _ => PcapFormat::parse(&buffer).map(Format::Pcap),
        };
        let recognised = is_pcap_magic(magic) || magic == [0x0a, 0x0d, 0x0d, 0x0a];
        let truncation = match &format {
            Some(_) => None,
            None if recognised && rest != Got::All => {
                Some(format!("the file header is cut off after {} bytes", buffer.len()))
            }
            None => return Err(CaptureError::not_a_capture(path, &buffer)),
        };
        let format = format.unwrap_or(Format::Ended);
        Ok(Self { path: path.to_path_buf(), source, file_len, format, buffer, truncation })
    }

    /// The next frame, or `None` at the end of the file or where it is cut off or damaged; see
    /// [`CaptureReader::truncation`] then.
    ///
    /// # Errors
    /// When the operating system cannot read the file.
    pub fn next_frame(&mut self) -> Result<Option<CapturedFrame<'_>>, CaptureError> {
        let step = match &mut self.format {
            Format::Ended => return Ok(None),
            Format::Pcap(format) => format.next(&mut self.source, &mut self.buffer),
            Format::PcapNg(section) => section.next(&mut self.source, &mut self.buffer),
        };
        match step {
            Ok(Step::Frame(found)) => Ok(Some(CapturedFrame {
                ts_ns: found.ts_ns,
                link: found.link,
                data: &self.buffer[found.data],
                wire_len: found.wire_len,
                interface: found.interface,
            })),
            Ok(Step::End) => {
                self.format = Format::Ended;
                Ok(None)
            }
            Err(Damage::Io(e)) => Err(CaptureError::read(&self.path, e)),
            Err(Damage::Bad(what)) => {
                self.truncation = Some(format!("{what}, before byte {}", self.source.offset()));
                self.format = Format::Ended;
                Ok(None)
            }
        }
    }

    /// After the last frame: whether the file ended in the middle of something.
    pub fn truncated(&self) -> bool {
        self.truncation.is_some()
    }

    /// Where and how the file was cut off or damaged.
    pub fn truncation(&self) -> Option<&str> {
        self.truncation.as_deref()
    }

    /// Bytes of the file on disk read so far, and its size, for a progress bar.
    pub fn progress(&self) -> (u64, u64) {
        (self.source.file_bytes(), self.file_len)
    }
}

fn is_pcap_magic(magic: [u8; 4]) -> bool {
    matches!(u32::from_le_bytes(magic), 0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34)
        || matches!(u32::from_be_bytes(magic), 0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34)
}

impl PcapFormat {
    /// Decodes the 24 byte file header, `None` when it is cut off.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut header: [u8; 24] = bytes.try_into().ok()?;
        let modified_big_endian = header[..4] == [0xa1, 0xb2, 0xcd, 0x34];
        if modified_big_endian {
            // The parser knows this variant in little-endian only; the other fields are the same.
            header[..4].copy_from_slice(&[0xa1, 0xb2, 0xc3, 0xd4]);
        }
        let (_, parsed) = pcap_parser::pcap::parse_pcap_header(&header).ok()?;
        Some(Self {
            big_endian: parsed.is_bigendian(),
            nanoseconds: parsed.is_nanosecond_precision(),
            modified: modified_big_endian || parsed.is_modified_format(),
            minor: parsed.version_minor,
            link: LinkType::from_pcap_header(parsed.network.0),
        })
    }

    fn next(&self, source: &mut Source, buffer: &mut Vec<u8>) -> Result<Step, Damage> {
        buffer.clear();
        match source.append(buffer, if self.modified { 24 } else { 16 })? {
            Got::Nothing => return Ok(Step::End),
            Got::Part => return Err(Damage::bad("the file is cut off in a record header")),
            Got::All => {}
        }
        let field = |at: usize| {
            let bytes = [buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]];
            if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let (seconds, fraction, mut captured, mut wire) = (field(0), field(4), field(8), field(12));
        if self.minor < 3 || (self.minor == 3 && captured > wire) {
            std::mem::swap(&mut captured, &mut wire);
        }
        if captured > MAX_RECORD {
            return Err(Damage::Bad(format!("a record claims {captured} captured bytes")));
        }
        buffer.clear();
        if captured > 0 && source.append(buffer, captured as usize)? != Got::All {
            return Err(Damage::bad("the file is cut off in a frame"));
        }
        let scale = if self.nanoseconds { 1 } else { 1_000 };
        Ok(Step::Frame(super::pcapng::Found {
            ts_ns: u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * scale,
            link: self.link,
            data: 0..captured as usize,
            wire_len: wire.max(captured),
            interface: 0,
        }))
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
