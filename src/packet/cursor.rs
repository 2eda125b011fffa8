//! Where the parser stands in a frame, with every length checked in one place.

use super::drop::Malformed;

/// Bytes of a frame that are looked at: offsets in [`super::Ip`] are 16 bits wide.
const LONGEST: usize = u16::MAX as usize;

/// A position in the captured bytes and the end of the current layer on the wire.
///
/// Invariant: `at <= frame.len() <= 65535`. `end` may lie beyond the captured bytes; a header that ends
/// before `end` but after the capture was cut by the capture, one that ends after `end` was never whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    frame: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// `wire_len` is the length of the frame on the wire; less than the captured length counts as equal.
    #[inline]
    pub(super) fn new(frame: &'a [u8], wire_len: u32) -> Self {
        let end = (wire_len as usize).max(frame.len());
        Self { frame: &frame[..frame.len().min(LONGEST)], at: 0, end }
    }

    /// Offset of the next byte in the frame.
    #[inline]
    pub(super) fn at(&self) -> u16 {
        self.at as u16
    }

    /// Bytes of the current layer still to come on the wire.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    /// Ends the current layer `len` bytes from here, unless it ends earlier.
    #[inline]
    pub(super) fn limit(&mut self, len: usize) {
        self.end = self.end.min(self.at + len);
    }

    /// The next `N` bytes, which stay unread. `short` when the layer has fewer on the wire,
    /// [`Malformed::Snapped`] when the wire had them and the capture does not.
    #[inline]
    pub(super) fn peek<const N: usize>(&self, short: Malformed) -> Result<&'a [u8; N], Malformed> {
        if N > self.left() {
            return Err(short);
        }
        self.frame.get(self.at..).and_then(<[u8]>::first_chunk).ok_or(Malformed::Snapped)
    }

    /// The next `N` bytes; errors as [`Cursor::peek`].
    #[inline]
    pub(super) fn take<const N: usize>(&mut self, short: Malformed) -> Result<&'a [u8; N], Malformed> {
        let bytes = self.peek::<N>(short)?;
        self.at += N;
        Ok(bytes)
    }

    /// Passes over `len` bytes, which must have been captured; errors as [`Cursor::peek`].
    #[inline]
    pub(super) fn skip(&mut self, len: usize, short: Malformed) -> Result<(), Malformed> {
        if len > self.left() {
            return Err(short);
        }
        if len > self.frame.len() - self.at {
            return Err(Malformed::Snapped);
        }
        self.at += len;
        Ok(())
    }

    /// The `len` bytes that were passed last.
    pub(super) fn passed(&self, len: usize) -> &'a [u8] {
        &self.frame[self.at.saturating_sub(len)..self.at]
    }

    /// Upper four bits of the next byte, if it was captured.
    pub(super) fn nibble(&self) -> Option<u8> {
        self.peek::<1>(Malformed::Snapped).ok().map(|byte| byte[0] >> 4)
    }
}

/// Big-endian 16 bits of a fixed-size header.
#[inline]
pub(super) fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Big-endian 32 bits of a fixed-size header.
#[inline]
pub(super) fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_short_layer_from_a_short_capture() {
        let bytes = [1u8, 2, 3, 4, 5, 6];
        let mut cursor = Cursor::new(&bytes, 10);
        assert_eq!(cursor.take::<4>(Malformed::TcpShort), Ok(&[1, 2, 3, 4]));
        assert_eq!((cursor.at(), cursor.left()), (4, 6));
        assert_eq!(cursor.take::<4>(Malformed::TcpShort), Err(Malformed::Snapped));
        assert_eq!(cursor.take::<7>(Malformed::TcpShort), Err(Malformed::TcpShort));
        assert_eq!(cursor.skip(3, Malformed::UdpShort), Err(Malformed::Snapped));
        cursor.limit(2);
        assert_eq!(cursor.skip(3, Malformed::UdpShort), Err(Malformed::UdpShort));
        assert_eq!(cursor.skip(2, Malformed::UdpShort), Ok(()));
        assert_eq!((cursor.left(), cursor.nibble()), (0, None));
    }

    #[test]
    fn a_wire_length_below_the_capture_is_the_capture() {
        assert_eq!(Cursor::new(&[0; 60], 0).left(), 60);
    }

    #[test]
    fn offsets_never_leave_sixteen_bits() {
        let frame = vec![0u8; 70_000];
        let mut cursor = Cursor::new(&frame, 70_000);
        assert_eq!(cursor.skip(65_535, Malformed::UdpShort), Ok(()));
        assert_eq!(cursor.at(), 65_535);
        assert_eq!(cursor.skip(1, Malformed::UdpShort), Err(Malformed::Snapped));
    }
}
