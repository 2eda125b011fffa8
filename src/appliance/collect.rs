//! Replay's far end: takes packets off the output rings and writes them to capture files in frame order,
//! whichever worker they came from.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::capture::{CaptureError, PREAMBLE_LEN, PcapWriter, Preamble};
use crate::dpdk::{Burst, PacketRing};
use crate::worker::WorkerCounters;

/// Packets waiting in each output ring.
pub const OUTLET_RING: u32 = 4096;

/// One output file and the ring of [`OUTLET_RING`] places that feeds it.
#[derive(Debug)]
pub struct Outlet {
    ring: PacketRing,
    path: PathBuf,
    writer: Option<PcapWriter>,
    /// The file is made even if nothing comes.
    always: bool,
    waiting: BinaryHeap<Reverse<Waiting>>,
}

impl Outlet {
    pub fn new(ring: PacketRing, path: PathBuf, always: bool) -> Self {
        Self { ring, path, writer: None, always, waiting: BinaryHeap::new() }
    }
}

/// A packet whose turn has not come: another worker may still send an earlier one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    index: u64,
    ts_ns: u64,
    wire_len: u32,
    bytes: Vec<u8>,
}

/// Drains all outlets until every worker is done. Never stops draining to wait, so workers always get on.
/// Returns the paths written.
pub fn collect(
    mut outlets: Vec<Outlet>,
    workers: &[Arc<WorkerCounters>],
    abort: &AtomicBool,
) -> Result<Vec<PathBuf>, CaptureError> {
    let mut burst = Burst::new();
    let outcome = loop {
        // Read before draining: what was sent before the report is then in the rings.
        let done = workers.iter().map(|w| w.progress.load(Ordering::Acquire)).min().unwrap_or(u64::MAX);
        let mut moved = 0;
        for outlet in &mut outlets {
            moved += outlet.take_in(&mut burst);
        }
        if let Err(error) = outlets.iter_mut().try_for_each(|outlet| outlet.write_until(done)) {
            abort.store(true, Ordering::Relaxed);
            break Err(error);
        }
        if moved == 0 {
            if done == u64::MAX || abort.load(Ordering::Relaxed) {
                break Ok(());
            }
            std::thread::yield_now();
        }
    };
    outcome?;
    let mut written = Vec::new();
    for outlet in outlets {
        written.extend(outlet.finish()?);
    }
    Ok(written)
}

impl Outlet {
    /// Everything that was in the ring when this began, and perhaps more: at most about one ring full, so that the
    /// other outlets have their turn.
    fn take_in(&mut self, burst: &mut Burst) -> usize {
        let mut total = 0;
        while total <= OUTLET_RING as usize {
            let received = self.take_burst(burst);
            total += received;
            if received == 0 {
                break;
            }
        }
        total
    }

    fn take_burst(&mut self, burst: &mut Burst) -> usize {
        let received = self.ring.receive(burst);
        for i in 0..received {
            let Some(packet) = burst.take(i) else { continue };
            let Some(preamble) = packet.hidden_front::<PREAMBLE_LEN>().and_then(|p| Preamble::from_bytes(&p)) else {
                continue;
            };
            let mut bytes = Vec::new();
            packet.copy_to(&mut bytes);
            let wire_len = preamble.wire_len.max(bytes.len() as u32);
            self.waiting.push(Reverse(Waiting { index: preamble.index, ts_ns: preamble.ts_ns, wire_len, bytes }));
        }
        received
    }

    /// Writes what comes before frame `limit`.
    fn write_until(&mut self, limit: u64) -> Result<(), CaptureError> {
        while self.waiting.peek().is_some_and(|Reverse(first)| first.index < limit) {
            let Some(Reverse(packet)) = self.waiting.pop() else { break };
            self.writer()?.write(packet.ts_ns, &packet.bytes, packet.wire_len)?;
        }
        Ok(())
    }

    fn writer(&mut self) -> Result<&mut PcapWriter, CaptureError> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => PcapWriter::create(&self.path)?,
        };
        Ok(self.writer.insert(writer))
    }

    fn finish(mut self) -> Result<Option<PathBuf>, CaptureError> {
        self.write_until(u64::MAX)?;
        if self.always {
            self.writer()?;
        }
        match self.writer.take() {
            Some(writer) => writer.finish().map(|_| Some(self.path)),
            None => Ok(None),
        }
    }
}
