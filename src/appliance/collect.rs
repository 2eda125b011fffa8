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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::CaptureReader;
    use crate::dpdk::{BURST, Eal, EalOptions, Mbuf, Mempool, Outbox};

    fn packet(pool: &Mempool, index: u64) -> Mbuf {
        let preamble = Preamble { index, ts_ns: 1000 + index, wire_len: 100, ..Preamble::default() };
        let bytes = [&preamble.to_bytes()[..], &index.to_be_bytes(), &[0; 60]].concat();
        Mbuf::with_bytes(pool, &bytes, PREAMBLE_LEN as u16).expect("room")
    }

    fn send(ring: &PacketRing, pool: &Mempool, indices: impl IntoIterator<Item = u64>) {
        let mut outbox = Outbox::new();
        for index in indices {
            if outbox.len() == BURST {
                ring.send(&mut outbox);
            }
            outbox.push(packet(pool, index)).expect("room");
        }
        ring.send(&mut outbox);
        assert!(outbox.is_empty(), "the ring has room");
    }

    fn indices(path: &std::path::Path) -> Vec<u64> {
        let mut reader = CaptureReader::open(path).expect("a capture");
        let mut all = Vec::new();
        while let Some(frame) = reader.next_frame().expect("readable") {
            let index = u64::from_be_bytes(*frame.data.first_chunk().expect("eight bytes"));
            assert_eq!((frame.ts_ns, frame.wire_len, frame.data.len()), (1000 + index, 100, 68));
            all.push(index);
        }
        all
    }

    /// One test, because DPDK starts once in a process.
    #[test]
    fn frames_come_out_in_order_whichever_worker_was_first() {
        let options = EalOptions {
            lcores: vec![vec![0]],
            hugepages: false,
            memory_mb: 64,
            file_prefix: format!("gnomon-collect-{}", std::process::id()),
            pci_allow: vec![],
        };
        let eal = Arc::new(Eal::start(&options).expect("DPDK starts without hugepages"));
        let pool = Mempool::packets(&eal, "collect", 8191).expect("pool");
        let ring = PacketRing::new(&eal, "collect", OUTLET_RING).expect("ring");
        let empty = PacketRing::new(&eal, "collect_empty", OUTLET_RING).expect("ring");
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);

        // All that is in the ring counts as seen, not only its first burst.
        let mut outlet = Outlet::new(ring.clone(), path("one.pcap"), true);
        send(&ring, &pool, (0..1000).map(|n| n * 2));
        send(&ring, &pool, (0..1000).map(|n| n * 2 + 1));
        assert_eq!(outlet.take_in(&mut Burst::new()), 2000);
        outlet.write_until(1500).expect("written");
        assert_eq!(outlet.waiting.len(), 500, "another worker may still send earlier ones");
        outlet.finish().expect("written");
        assert_eq!(indices(&path("one.pcap")), (0..2000).collect::<Vec<_>>());

        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::new(1))).collect();
        send(&ring, &pool, 0..4000);
        workers.iter().for_each(|w| w.progress.store(u64::MAX, Ordering::Release));
        let outlet = |ring: &PacketRing, name: &str, always| Outlet::new(ring.clone(), path(name), always);
        let outlets =
            vec![outlet(&ring, "two.pcap", true), outlet(&empty, "made.pcap", true), outlet(&empty, "not.pcap", false)];
        let written = collect(outlets, &workers, &AtomicBool::new(false)).expect("collected");
        assert_eq!(written, [path("two.pcap"), path("made.pcap")]);
        assert_eq!((indices(&path("two.pcap")).len(), indices(&path("made.pcap")).len()), (4000, 0));

        let abort = AtomicBool::new(false);
        workers[0].progress.store(0, Ordering::Release);
        let unwritable = vec![Outlet::new(empty.clone(), path("no/such/folder.pcap"), true)];
        send(&empty, &pool, [0]);
        workers[0].progress.store(u64::MAX, Ordering::Release);
        assert!(collect(unwritable, &workers, &abort).is_err());
        assert!(abort.load(Ordering::Relaxed), "workers must not wait for a writer that is gone");
        drop((ring, empty));
        assert_eq!(pool.available(), pool.size());
    }
}
