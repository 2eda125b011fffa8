//! What replay puts in front of each frame that it hands to the pcap device.
//!
//! The device gives a worker nothing but bytes. Time, position in the capture and the length on the
//! wire therefore travel in the buffer, and the worker takes them off again before it looks at the frame.

/// Length of a preamble in front of a frame.
pub const PREAMBLE_LEN: usize = 48;

/// Marks a buffer that starts with a preamble.
const MAGIC: u64 = 0x676e_6f6d_6f6e_7265;

/// Bit of [`Preamble::flags`]: the frame's link type is understood.
const SUPPORTED: u32 = 1;

/// The capture's own knowledge about one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preamble {
    /// Running maximum of `ts_ns` over the whole capture up to and including this frame.
    pub clock_ns: u64,
    /// Nanoseconds since 1970 as captured; may step back.
    pub ts_ns: u64,
    /// Frame number in the whole capture, from 0.
    pub index: u64,
    /// Length on the wire of the frame as Ethernet.
    pub wire_len: u32,
    /// Length on the wire with its original link header: what byte counts are made of.
    pub count_len: u32,
    pub flags: u32,
}

impl Preamble {
    /// Flags of a frame whose link type is or is not understood.
    pub fn flags(supported: bool) -> u32 {
        if supported { SUPPORTED } else { 0 }
    }

    /// Whether the link type is understood; when not, the frame is an opaque one of ethertype 0x88b5.
    pub fn supported(&self) -> bool {
        self.flags & SUPPORTED != 0
    }

    /// Little-endian: magic, clock, time, index (8 bytes each), wire length, counted length, flags, 0.
    pub fn to_bytes(&self) -> [u8; PREAMBLE_LEN] {
        let mut bytes = [0; PREAMBLE_LEN];
        bytes[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.clock_ns.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ts_ns.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.index.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.wire_len.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.count_len.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }

    /// Reads the preamble at the start of a buffer; `None` when there is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; PREAMBLE_LEN] = bytes.first_chunk()?;
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let short = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        (long(0) == MAGIC).then(|| Self {
            clock_ns: long(8),
            ts_ns: long(16),
            index: long(24),
            wire_len: short(32),
            count_len: short(36),
            flags: short(40),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Preamble {
        Preamble { clock_ns: u64::MAX, ts_ns: 2, index: 3 << 40, wire_len: 4, count_len: 5, flags: 1 }
    }

    #[test]
    fn there_and_back() {
        let mut buffer = example().to_bytes().to_vec();
        buffer.extend_from_slice(b"frame");
        assert_eq!(Preamble::from_bytes(&buffer), Some(example()));
        assert!(example().supported());
        assert!(!Preamble { flags: Preamble::flags(false), ..example() }.supported());
    }

    #[test]
    fn anything_else_is_refused() {
        let bytes = example().to_bytes();
        for cut in 0..PREAMBLE_LEN {
            assert_eq!(Preamble::from_bytes(&bytes[..cut]), None);
        }
        let mut wrong = bytes;
        wrong[0] ^= 1;
        assert_eq!(Preamble::from_bytes(&wrong), None);
    }

    #[test]
    fn layout_is_little_endian() {
        let bytes = example().to_bytes();
        assert_eq!(bytes[16..18], [2, 0]);
        assert_eq!(bytes[29], 3);
        assert_eq!(bytes[32..36], [4, 0, 0, 0]);
        assert_eq!(bytes[36..40], [5, 0, 0, 0]);
        assert_eq!(bytes[44..48], [0; 4]);
    }
}
