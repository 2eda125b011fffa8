//! The Internet checksum (RFC 1071).

/// Sum of big-endian 16-bit words, not folded; the last byte of an odd number of them is the high one of its word.
pub fn words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0))).sum()
}

/// The checksum of a sum of words.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
