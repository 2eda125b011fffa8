//! Writes pcapng: sections, interfaces, packets with comments, statistics (draft-ietf-opsawg-pcapng).
//!
//! Little-endian, one section, nanosecond times, Ethernet. Blocks are put together in one buffer that is kept, so that a
//! packet costs one write and no allocation.

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const ETHERNET: u16 = 1;
const END: u16 = 0;
const COMMENT: u16 = 1;

/// Longest text of an option that is written whole; longer ones are cut.
const MOST_TEXT: usize = 60_000;

/// One file, or one stream, being written.
#[derive(Debug)]
pub struct PcapngWriter<W> {
    out: W,
    block: Vec<u8>,
    interfaces: u32,
    written: u64,
}

/// What a packet was captured by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcapngInterface {
    pub name: String,
    pub description: String,
    pub comment: String,
    /// 0 is "no limit".
    pub snap_len: u32,
}

/// Which way a packet went, seen from the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nobody said.
    Unknown,
    Inbound,
    Outbound,
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct PcapngPacket<'a> {
    pub interface: u32,
    /// Nanoseconds since the Unix epoch.
    pub ns: u64,
    pub data: &'a [u8],
    pub wire_len: u32,
    pub direction: Direction,
    /// Packets of this interface that were lost since the one before.
    pub dropped: u64,
    /// Queue, here the worker, that handled it.
    pub queue: u32,
    pub comment: &'a str,
}

/// Totals of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PcapngStatistics {
    /// Nanoseconds since the Unix epoch.
    pub began: u64,
    pub ended: u64,
    /// Packets that came by; of them, chosen by the filter; lost for want of room; written.
    pub received: u64,
    pub accepted: u64,
    pub dropped: u64,
    pub delivered: u64,
}

impl<W: Write> PcapngWriter<W> {
    /// Writes a section header.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(out: W, application: &str, comment: &str) -> io::Result<Self> {
        let mut writer = Self { out, block: Vec::with_capacity(4096), interfaces: 0, written: 0 };
        writer.open(SECTION_HEADER);
        writer.put(&0x1a2b_3c4d_u32.to_le_bytes());
        writer.put(&[1, 0, 0, 0]);
        // Length of the section: not told.
        writer.put(&u64::MAX.to_le_bytes());
        writer.text(COMMENT, comment);
        writer.text(3, std::env::consts::OS);
        writer.text(4, application);
        writer.option(END, &[]);
        writer.close()?;
        Ok(writer)
    }

    /// Describes one more interface; returns its number.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn interface(&mut self, interface: &PcapngInterface) -> io::Result<u32> {
        self.open(INTERFACE);
        self.put(&ETHERNET.to_le_bytes());
        self.put(&[0, 0]);
        self.put(&interface.snap_len.to_le_bytes());
        self.text(COMMENT, &interface.comment);
        self.text(2, &interface.name);
        self.text(3, &interface.description);
        // Times are in units of 10 to the power of minus 9 seconds.
        self.option(9, &[9]);
        self.option(END, &[]);
        self.close()?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// # Errors
    /// When it cannot be written.
    pub fn packet(&mut self, packet: &PcapngPacket<'_>) -> io::Result<()> {
        let len = packet.data.len() as u32;
        self.open(ENHANCED_PACKET);
        self.put(&packet.interface.to_le_bytes());
        self.time(packet.ns);
        self.put(&len.to_le_bytes());
        self.put(&packet.wire_len.max(len).to_le_bytes());
        self.put(packet.data);
        self.pad();
        self.text(COMMENT, packet.comment);
        let direction: u32 = match packet.direction {
            Direction::Unknown => 0,
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        self.option(2, &direction.to_le_bytes());
        if packet.dropped > 0 {
            self.option(4, &packet.dropped.to_le_bytes());
        }
        self.option(6, &packet.queue.to_le_bytes());
        self.option(END, &[]);
        self.close()
    }

    /// # Errors
    /// When it cannot be written.
    pub fn statistics(&mut self, interface: u32, totals: &PcapngStatistics) -> io::Result<()> {
        self.open(STATISTICS);
        self.put(&interface.to_le_bytes());
        self.time(totals.ended);
        for (code, ns) in [(2, totals.began), (3, totals.ended)] {
            let (high, low) = halves(ns);
            self.option(code, &[high.to_le_bytes(), low.to_le_bytes()].concat());
        }
        let counts = [(4, totals.received), (5, totals.dropped), (6, totals.accepted), (8, totals.delivered)];
        for (code, count) in counts {
            self.option(code, &count.to_le_bytes());
        }
        self.option(END, &[]);
        self.close()
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// # Errors
    /// When what is buffered cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn open(&mut self, kind: u32) {
        self.block.clear();
        self.put(&kind.to_le_bytes());
        self.put(&[0; 4]);
    }

    fn close(&mut self) -> io::Result<()> {
        let total = (self.block.len() as u32 + 4).to_le_bytes();
        self.block[4..8].copy_from_slice(&total);
        self.block.extend_from_slice(&total);
        self.out.write_all(&self.block)?;
        self.written += self.block.len() as u64;
        Ok(())
    }

    fn time(&mut self, ns: u64) {
        let (high, low) = halves(ns);
        self.put(&high.to_le_bytes());
        self.put(&low.to_le_bytes());
    }

    /// Nothing for an empty text.
    fn text(&mut self, code: u16, text: &str) {
        if !text.is_empty() {
            let most = text.floor_char_boundary(MOST_TEXT);
            self.option(code, &text.as_bytes()[..most]);
        }
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.put(&code.to_le_bytes());
        self.put(&(value.len() as u16).to_le_bytes());
        self.put(value);
        self.pad();
    }

    fn put(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    /// To a multiple of four.
    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }
}

fn halves(ns: u64) -> (u32, u32) {
    ((ns >> 32) as u32, ns as u32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::capture::CaptureReader;
    use proptest::prelude::*;

    fn interface(name: &str) -> PcapngInterface {
        PcapngInterface { name: name.into(), description: "a port".into(), comment: String::new(), snap_len: 0 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn our_reader_finds_what_was_written(
            packets in prop::collection::vec((0u32..2, any::<u64>(), prop::collection::vec(any::<u8>(), 0..70), ".{0,30}"), 0..20)
        ) {
            let mut file = Vec::new();
            let mut writer = PcapngWriter::begin(&mut file, "test", "a comment").unwrap();
            prop_assert_eq!([interface("one"), interface("two")].map(|i| writer.interface(&i).unwrap()), [0, 1]);
            for (interface, ns, data, comment) in &packets {
                let (wire_len, direction) = (data.len() as u32 + 7, Direction::Outbound);
                let packet = PcapngPacket {
                    interface: *interface, ns: *ns >> 1, data, wire_len, direction, dropped: 3, queue: 1, comment,
                };
                writer.packet(&packet).unwrap();
            }
            writer.statistics(0, &PcapngStatistics::default()).unwrap();
            let written = writer.written();
            prop_assert_eq!(file.len() as u64, written);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.pcapng");
            std::fs::write(&path, &file).unwrap();
            let mut reader = CaptureReader::open(&path).unwrap();
            for (_, ns, data, _) in &packets {
                let frame = reader.next_frame().unwrap().unwrap();
                prop_assert_eq!((frame.ts_ns, frame.data, frame.wire_len), (*ns >> 1, &data[..], data.len() as u32 + 7));
            }
            prop_assert!(reader.next_frame().unwrap().is_none() && !reader.truncated());
        }
    }
}
