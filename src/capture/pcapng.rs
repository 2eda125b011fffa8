//! The block loop of pcapng: sections, interfaces, and the three kinds of packet block.

use std::io;
use std::ops::Range;

use pcap_parser::pcapng::{
    parse_enhancedpacketblock_be, parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le,
};

use super::link::LinkType;
use super::reader::{MAX_RECORD, MAX_TS_NS};
use super::source::{Got, Source};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// More interfaces than any capture has; bounds memory against a file that is all interface blocks.
const MAX_INTERFACES: usize = 65_536;

/// A frame located in the read buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) ts_ns: u64,
    pub(super) link: LinkType,
    pub(super) data: Range<usize>,
    pub(super) wire_len: u32,
    pub(super) interface: u32,
}

/// What a reader came to.
#[derive(Debug)]
pub(super) enum Step {
    Frame(Found),
    End,
}

/// Why a reader cannot go on.
#[derive(Debug)]
pub(super) enum Damage {
    Io(io::Error),
    Bad(String),
}

impl Damage {
    pub(super) fn bad(what: &str) -> Self {
        Self::Bad(what.to_owned())
    }
}

impl From<io::Error> for Damage {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// The section being read: byte order and the interfaces described so far.
#[derive(Debug)]
pub(super) struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
    /// Simple packet blocks have no time; they get that of the frame before.
    last_ts_ns: u64,
    /// The first 12 bytes of the file were read to recognise it and are still in the buffer.
    started: bool,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: LinkType,
    snap_len: u32,
    units: Units,
    offset_seconds: i64,
}

/// What one unit of a time stamp is (`if_tsresol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Units {
    /// This many nanoseconds.
    Nanoseconds(u64),
    /// 10 to the power of minus this many seconds, finer than a nanosecond.
    Decimal(u32),
    /// 2 to the power of minus this many seconds.
    Binary(u32),
}

impl Section {
    /// From the first 12 bytes of a file: type, length and byte-order mark of its section header.
    pub(super) fn from_start(bytes: &[u8]) -> Option<Self> {
        let mark: [u8; 4] = bytes.get(8..12)?.try_into().ok()?;
        let big_endian = byte_order(mark)?;
        Some(Self { big_endian, interfaces: Vec::new(), last_ts_ns: 0, started: false })
    }

    /// Reads blocks up to and including the next packet.
    pub(super) fn next(&mut self, source: &mut Source, buffer: &mut Vec<u8>) -> Result<Step, Damage> {
        loop {
            if self.started {
                buffer.clear();
                match source.append(buffer, 12)? {
                    Got::Nothing => return Ok(Step::End),
                    Got::Part => return Err(Damage::bad("the file is cut off in a block header")),
                    Got::All => {}
                }
            }
            self.started = true;
            let kind = self.u32_at(buffer, 0);
            if kind == SECTION_HEADER {
                self.begin_section(source, buffer)?;
                continue;
            }
            let length = self.block_length(buffer)?;
            let wanted = matches!(kind, INTERFACE | OBSOLETE_PACKET | SIMPLE_PACKET | ENHANCED_PACKET);
            if !wanted {
                if source.skip(u64::from(length) - 12)? != Got::All {
                    return Err(cut_off());
                }
                continue;
            }
            if length > MAX_RECORD {
                return Err(Damage::Bad(format!("a block claims {length} bytes")));
            }
            if length > 12 && source.append(buffer, length as usize - 12)? != Got::All {
                return Err(cut_off());
            }
            if kind == INTERFACE {
                self.add_interface(buffer)?;
                continue;
            }
            let found = match kind {
                ENHANCED_PACKET => self.enhanced(buffer),
                SIMPLE_PACKET => self.simple(buffer),
                _ => self.obsolete(buffer),
            }
            .ok_or_else(|| Damage::bad("a packet block contradicts its own length"))?;
            self.last_ts_ns = found.ts_ns;
            return Ok(Step::Frame(found));
        }
    }

    fn u32_at(&self, buffer: &[u8], at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&buffer[at..at + 4]);
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// Total length of the block, at least 12 and a multiple of 4.
    fn block_length(&self, buffer: &[u8]) -> Result<u32, Damage> {
        let length = self.u32_at(buffer, 4);
        if length < 12 || !length.is_multiple_of(4) {
            return Err(Damage::Bad(format!("a block claims an impossible length of {length} bytes")));
        }
        Ok(length)
    }

    /// A new section: byte order may change, interface numbers start again at 0.
    fn begin_section(&mut self, source: &mut Source, buffer: &[u8]) -> Result<(), Damage> {
        let mark = [buffer[8], buffer[9], buffer[10], buffer[11]];
        self.big_endian = byte_order(mark).ok_or_else(|| Damage::bad("a section header without byte-order mark"))?;
        self.interfaces.clear();
        let length = self.block_length(buffer)?;
        if length < 28 {
            return Err(Damage::Bad(format!("a section header claims {length} bytes")));
        }
        match source.skip(u64::from(length) - 12)? {
            Got::All => Ok(()),
            _ => Err(cut_off()),
        }
    }

    fn add_interface(&mut self, block: &[u8]) -> Result<(), Damage> {
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(Damage::Bad(format!("a section describes more than {MAX_INTERFACES} interfaces")));
        }
        let parsed = if self.big_endian {
            parse_interfacedescriptionblock_be(block)
        } else {
            parse_interfacedescriptionblock_le(block)
        };
        let (_, described) = parsed.map_err(|_| Damage::bad("a damaged interface description"))?;
        // Read from the option itself: its meaning does not depend on what a library takes for invalid.
        let offset_seconds = described.options.iter().find(|o| o.code.0 == 14).and_then(|o| {
            let bytes: [u8; 8] = o.value().get(..8)?.try_into().ok()?;
            Some(if self.big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) })
        });
        let resolution = described.options.iter().find(|o| o.code.0 == 9).and_then(|o| o.value().first().copied());
        self.interfaces.push(Interface {
            link: LinkType::from_pcap_header(described.linktype.0),
            snap_len: described.snaplen,
            units: Units::from_option(resolution.unwrap_or(6)),
            offset_seconds: offset_seconds.unwrap_or(0),
        });
        Ok(())
    }

    fn interface(&self, number: u32) -> Interface {
        self.interfaces.get(number as usize).copied().unwrap_or(Interface {
            link: LinkType::UNKNOWN,
            snap_len: 0,
            units: Units::Nanoseconds(1_000),
            offset_seconds: 0,
        })
    }

    fn enhanced(&self, block: &[u8]) -> Option<Found> {
        let parsed =
            if self.big_endian { parse_enhancedpacketblock_be(block) } else { parse_enhancedpacketblock_le(block) };
        let (_, packet) = parsed.ok()?;
        let interface = self.interface(packet.if_id);
        Some(Found {
            ts_ns: interface.nanoseconds(packet.ts_high, packet.ts_low),
            link: interface.link,
            data: data_range(block, 28, packet.caplen)?,
            wire_len: packet.origlen.max(packet.caplen),
            interface: packet.if_id,
        })
    }

    /// No time, no captured length: that follows from the wire length, the snap length of interface 0
    /// and the room in the block.
    fn simple(&self, block: &[u8]) -> Option<Found> {
        if block.len() < 16 {
            return None;
        }
        let interface = self.interface(0);
        let wire_len = self.u32_at(block, 8);
        let room = (block.len() - 16) as u32;
        let snap_len = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
        let captured = wire_len.min(snap_len).min(room);
        Some(Found {
            ts_ns: self.last_ts_ns,
            link: interface.link,
            data: data_range(block, 12, captured)?,
            wire_len: wire_len.max(captured),
            interface: 0,
        })
    }

    /// The packet block of early drafts: 16 bit interface and drop count, else like the enhanced one.
    fn obsolete(&self, block: &[u8]) -> Option<Found> {
        if block.len() < 32 {
            return None;
        }
        let number = [block[8], block[9]];
        let number = u32::from(if self.big_endian { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) });
        let interface = self.interface(number);
        let captured = self.u32_at(block, 20);
        Some(Found {
            ts_ns: interface.nanoseconds(self.u32_at(block, 12), self.u32_at(block, 16)),
            link: interface.link,
            data: data_range(block, 28, captured)?,
            wire_len: self.u32_at(block, 24).max(captured),
            interface: number,
        })
    }
}

impl Interface {
    /// Nanoseconds since 1970 of a time stamp, held within 0..=[`MAX_TS_NS`].
    fn nanoseconds(&self, high: u32, low: u32) -> u64 {
        let stamp = (u64::from(high) << 32) | u64::from(low);
        let since = match self.units {
            Units::Nanoseconds(each) => i128::from(stamp) * i128::from(each),
            Units::Decimal(digits) => i128::from(stamp) / 10_i128.pow(digits - 9),
            Units::Binary(bits) => (i128::from(stamp) * 1_000_000_000) >> bits,
        };
        let ns = since + i128::from(self.offset_seconds) * 1_000_000_000;
        u64::try_from(ns.clamp(0, i128::from(MAX_TS_NS))).unwrap_or(MAX_TS_NS)
    }
}

impl Units {
    /// `if_tsresol`: the top bit chooses powers of 2 or 10.
    fn from_option(option: u8) -> Self {
        let exponent = u32::from(option & 0x7f);
        match option & 0x80 {
            0 if exponent <= 9 => Self::Nanoseconds(10_u64.pow(9 - exponent)),
            // Beyond 10^-38 s every 64 bit stamp is less than a nanosecond anyway.
            0 => Self::Decimal(exponent.min(38)),
            _ => Self::Binary(exponent),
        }
    }
}

/// Bytes `from..from + captured` of a block if they lie before its trailing length.
fn data_range(block: &[u8], from: usize, captured: u32) -> Option<Range<usize>> {
    let end = from.checked_add(captured as usize)?;
    (end + 4 <= block.len()).then_some(from..end)
}

/// Whether a byte-order mark says big-endian, `None` when it is none.
fn byte_order(mark: [u8; 4]) -> Option<bool> {
    match (u32::from_le_bytes(mark), u32::from_be_bytes(mark)) {
        (BYTE_ORDER, _) => Some(false),
        (_, BYTE_ORDER) => Some(true),
        _ => None,
    }
}

fn cut_off() -> Damage {
    Damage::bad("the file is cut off in a block")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(option: u8, offset_seconds: i64) -> Interface {
        Interface { link: LinkType::ETHERNET, snap_len: 0, units: Units::from_option(option), offset_seconds }
    }

    #[test]
    fn time_resolutions() {
        let at = |option, stamp: u64| interface(option, 0).nanoseconds((stamp >> 32) as u32, stamp as u32);
        assert_eq!(at(6, 1_500_000), 1_500_000_000);
        assert_eq!(at(9, 1_500_000_007), 1_500_000_007);
        assert_eq!(at(0, 3), 3_000_000_000);
        assert_eq!(at(12, 1_234_567), 1_234);
        assert_eq!(at(0x80 | 1, 3), 1_500_000_000);
        assert_eq!(at(0x80 | 127, u64::MAX), 0);
        assert_eq!(at(127, u64::MAX), 0);
        assert_eq!(at(0, u64::MAX), MAX_TS_NS, "held within the bound");
    }

    #[test]
    fn time_offset_and_times_before_1970() {
        assert_eq!(interface(6, 10).nanoseconds(0, 5), 10_000_005_000);
        assert_eq!(interface(6, -10).nanoseconds(0, 5), 0);
        assert_eq!(interface(0, i64::MAX).nanoseconds(u32::MAX, u32::MAX), MAX_TS_NS);
        assert_eq!(interface(0, i64::MIN).nanoseconds(0, 1), 0);
    }
}
