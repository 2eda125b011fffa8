//! Reads a pcap or pcapng file and hands its packets on as Ethernet frames, for tests.

use std::path::Path;

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

/// One packet of a capture.
pub struct Captured {
    pub link_type: i32,
    pub bytes: Vec<u8>,
    pub wire_len: u32,
}

/// All packets of a capture, in order. Panics when the file cannot be opened; a file that breaks off
/// yields what came before.
pub fn read(path: &Path) -> Vec<Captured> {
    let file = std::fs::File::open(path).expect("capture opens");
    let mut reader = match create_reader(1 << 20, file) {
        Ok(reader) => reader,
        Err(error) => panic!("{}: {error:?}", path.display()),
    };
    let (mut packets, mut interfaces, mut link_type) = (Vec::new(), Vec::new(), 0);
    loop {
        let consumed = match reader.next() {
            Ok((consumed, block)) => {
                match block {
                    // The upper bits tell of a frame check sequence.
                    PcapBlockOwned::LegacyHeader(header) => link_type = header.network.0 & 0x03ff_ffff,
                    PcapBlockOwned::Legacy(packet) => {
                        packets.push(Captured { link_type, bytes: packet.data.to_vec(), wire_len: packet.origlen });
                    }
                    PcapBlockOwned::NG(block) => next_generation(&block, &mut interfaces, &mut packets),
                }
                consumed
            }
            Err(PcapError::Incomplete(_)) => {
                if reader.refill().is_err() || reader.reader_exhausted() {
                    return packets;
                }
                continue;
            }
            Err(_) => return packets,
        };
        reader.consume(consumed);
    }
}

fn next_generation(block: &Block<'_>, interfaces: &mut Vec<i32>, packets: &mut Vec<Captured>) {
    match block {
        Block::SectionHeader(_) => interfaces.clear(),
        Block::InterfaceDescription(interface) => interfaces.push(interface.linktype.0),
        Block::EnhancedPacket(packet) => {
            let captured = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
            let link_type = interfaces.get(packet.if_id as usize).copied().unwrap_or(0);
            packets.push(Captured { link_type, bytes: captured.to_vec(), wire_len: packet.origlen });
        }
        Block::SimplePacket(packet) => {
            let captured = packet.data.get(..packet.origlen as usize).unwrap_or(packet.data);
            let link_type = interfaces.first().copied().unwrap_or(0);
            packets.push(Captured { link_type, bytes: captured.to_vec(), wire_len: packet.origlen });
        }
        _ => {}
    }
}

impl Captured {
    /// The packet behind an Ethernet header (its own or a made-up one) and its length on the wire.
    /// `None` for link types and packets that have no counterpart in Ethernet.
    pub fn as_ethernet(&self) -> Option<(Vec<u8>, u32)> {
        let bytes = &self.bytes;
        let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let (header, ethertype) = match self.link_type {
            1 => return Some((bytes.clone(), self.wire_len)),
            101 | 12 | 14 => (0, if *bytes.first()? >> 4 == 6 { 0x86dd } else { 0x0800 }),
            228 => (0, 0x0800),
            229 => (0, 0x86dd),
            // The address family is in the writer's byte order.
            0 | 108 => match u32::from_be_bytes(*bytes.first_chunk()?) {
                2 | 0x0200_0000 => (4, 0x0800),
                24 | 28 | 30 | 0x1800_0000 | 0x1c00_0000 | 0x1e00_0000 => (4, 0x86dd),
                _ => return None,
            },
            113 => (16, word(14)?),
            276 => (20, word(0)?),
            9 => {
                let at = if bytes.starts_with(&[0xff, 0x03]) { 2 } else { 0 };
                (at + 2, ppp(word(at)?)?)
            }
            104 => (4, word(2)?),
            _ => return None,
        };
        let payload = bytes.get(header..)?;
        let mut frame = vec![0u8; 12];
        frame.extend(ethertype.to_be_bytes());
        frame.extend(payload);
        Some((frame, self.wire_len - header as u32 + 14))
    }
}

fn ppp(protocol: u16) -> Option<u16> {
    match protocol {
        0x0021 => Some(0x0800),
        0x0057 => Some(0x86dd),
        0x0281 => Some(0x8847),
        _ => None,
    }
}
