//! Values as RFC 7011 puts them on the wire: network byte order.

use super::element::VARIABLE;

const NANOSECONDS: u64 = 1_000_000_000;
/// From 1900, where NTP counts from, to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// Appends numbers and strings to a buffer.
pub trait Put {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_f32(&mut self, value: f32);
    fn put_f64(&mut self, value: f64);
    /// A dateTimeNanoseconds, from nanoseconds since 1970: an NTP timestamp (RFC 7011, 6.1.10), which is 32 bits of seconds,
    /// beginning again in 2036, and 32 bits of fraction. The fraction is rounded up, so that both rounding and cutting
    /// readers get the same nanosecond back.
    fn put_ntp(&mut self, nanoseconds: u64);
    /// A string of variable length with its length before it, cut at a character so that it takes at most `room` bytes.
    fn put_text(&mut self, text: &str, room: usize);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend(value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend(value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend(value.to_be_bytes());
    }

    fn put_f32(&mut self, value: f32) {
        self.extend(value.to_be_bytes());
    }

    fn put_f64(&mut self, value: f64) {
        self.extend(value.to_be_bytes());
    }

    fn put_ntp(&mut self, nanoseconds: u64) {
        let seconds = nanoseconds / NANOSECONDS + NTP_TO_UNIX;
        let fraction = ((nanoseconds % NANOSECONDS) << 32).div_ceil(NANOSECONDS);
        self.put_u32(seconds as u32);
        self.put_u32(fraction as u32);
    }

    fn put_text(&mut self, text: &str, room: usize) {
        let longest = room.saturating_sub(3).min(usize::from(VARIABLE) - 1);
        let end = (0..=longest.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let text = &text[..end];
        match u8::try_from(text.len()) {
            Ok(short) if short < 255 => self.put_u8(short),
            _ => {
                self.put_u8(255);
                self.put_u16(text.len() as u16);
            }
        }
        self.extend(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_survive_rounding_and_cutting() {
        for part in [0, 1, 2, 3, 999_999_999, 500_000_000, 123_456_789, 999_999_998, 7, 333_333_333] {
            let mut bytes = Vec::new();
            bytes.put_ntp(1_463_044_282 * NANOSECONDS + part);
            assert_eq!(bytes[..4], (1_463_044_282u32.wrapping_add(NTP_TO_UNIX as u32)).to_be_bytes());
            let fraction = u64::from(u32::from_be_bytes(bytes[4..].try_into().expect("four bytes")));
            assert_eq!((fraction * NANOSECONDS) >> 32, part, "cut");
            assert_eq!((fraction * NANOSECONDS + (1 << 31)) >> 32, part, "rounded");
        }
    }

    #[test]
    fn long_strings_have_long_lengths_and_are_cut_at_a_character() {
        let mut bytes = Vec::new();
        bytes.put_text(&"x".repeat(254), 1000);
        assert_eq!((bytes[0], bytes.len()), (254, 255));
        bytes.clear();
        bytes.put_text(&"x".repeat(255), 1000);
        assert_eq!((&bytes[..3], bytes.len()), (&[255, 0, 255][..], 258));
        bytes.clear();
        bytes.put_text("aaaäää", 3 + 4);
        assert_eq!(bytes, b"\x03aaa");
    }
}
