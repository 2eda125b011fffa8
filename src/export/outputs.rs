//! What each output of events has done: counted by its threads, read by anybody.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of one file or socket.
#[derive(Debug)]
pub struct OutputCounters {
    /// `flows.jsonl`, or the path of a socket.
    pub name: String,
    lines: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    failures: AtomicU64,
    connected: AtomicBool,
}

impl OutputCounters {
    pub(super) fn new(name: String) -> Self {
        let zero = || AtomicU64::new(0);
        Self { name, lines: zero(), bytes: zero(), lost: zero(), failures: zero(), connected: AtomicBool::new(false) }
    }

    /// Lines that the operating system has taken.
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Lines lost: no room for them to wait, or writing failed.
    pub fn lost_lines(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Times that writing failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether a file is open, or a socket has a reader.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub(super) fn wrote(&self, lines: u64, bytes: u64) {
        self.lines.fetch_add(lines, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// How often it has failed by now.
    pub(super) fn failed(&self) -> u64 {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }
}

pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
