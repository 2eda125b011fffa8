//! The bytes of a capture file, unpacked if need be, with bounded reads and a count for progress bars.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

const BUFFER: usize = 256 * 1024;

/// How a read of a given number of bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    All,
    /// End of data before the first byte.
    Nothing,
    /// End of data, or damaged compressed data, in the middle.
    Part,
}

/// Sequential reader over a plain or gzip file.
pub(super) struct Source {
    inner: Box<dyn BufRead + Send>,
    file_bytes: Arc<AtomicU64>,
    compressed: bool,
    offset: u64,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("compressed", &self.compressed).field("offset", &self.offset).finish()
    }
}

impl Source {
    /// Opens a file; whether it is gzip is told by its first bytes, not by its name.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file_bytes = Arc::new(AtomicU64::new(0));
        let counted = Counted { file: File::open(path)?, bytes: Arc::clone(&file_bytes) };
        let mut plain = BufReader::with_capacity(BUFFER, counted);
        let compressed = plain.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let inner: Box<dyn BufRead + Send> = if compressed {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(plain)))
        } else {
            Box::new(plain)
        };
        Ok(Self { inner, file_bytes, compressed, offset: 0 })
    }

    /// Bytes of the file on disk that were read so far (packed ones for gzip).
    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    /// Unpacked bytes handed out so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends exactly `count` bytes to `out`, growing it only as bytes come in.
    pub(super) fn append(&mut self, out: &mut Vec<u8>, count: usize) -> io::Result<Got> {
        let mut left = count;
        while left > 0 {
            let available = match self.fill()? {
                Some(bytes) => bytes,
                None => return Ok(if left == count { Got::Nothing } else { Got::Part }),
            };
            let take = available.len().min(left);
            out.extend_from_slice(&available[..take]);
            self.consume(take);
            left -= take;
        }
        Ok(Got::All)
    }

    /// Passes over `count` bytes without keeping them.
    pub(super) fn skip(&mut self, count: u64) -> io::Result<Got> {
        let mut left = count;
        while left > 0 {
            let available = match self.fill()? {
                Some(bytes) => bytes.len() as u64,
                None => return Ok(if left == count { Got::Nothing } else { Got::Part }),
            };
            let take = available.min(left);
            self.consume(take as usize);
            left -= take;
        }
        Ok(Got::All)
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.offset += count as u64;
    }

    /// The next bytes, `None` at the end. Damage inside gzip data counts as the end: what came before it
    /// is good.
    fn fill(&mut self) -> io::Result<Option<&[u8]>> {
        let compressed = self.compressed;
        match self.inner.fill_buf() {
            Ok([]) => Ok(None),
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if compressed && is_damage(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
}

/// A file that counts what is read from it.
struct Counted {
    file: File,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) => {
                    self.bytes.fetch_add(n as u64, Ordering::Relaxed);
                    return Ok(n);
                }
                Err(e) => return Err(e),
            }
        }
    }
}
