//! Payload that a collector is not to see.

use crate::packet::Headers;
use crate::packet::checksum::{fold, words};

/// What of the payload is overwritten, byte for byte: lengths stay. Payload is what follows the innermost headers that
/// were understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    All,
    /// What any of these finds.
    Patterns(Vec<Pattern>),
}

/// What is looked for, within one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Runs of at least so many digits; single spaces and hyphens between them do not end a run.
    Digits(usize),
    /// These bytes.
    Bytes(Vec<u8>),
    /// What follows these bytes, up to the end of the line.
    After(Vec<u8>),
}

/// What stands where something was.
pub const MASKED: u8 = b'X';

impl Mask {
    /// Overwrites in a whole frame what is to be masked. The innermost checksum over it is adjusted by what was changed:
    /// a right one stays right, a wrong one wrong. A checksum that covers other fragments as well does not know of these.
    pub fn apply(&self, frame: &mut [u8], headers: &Headers) {
        let at = headers.end().min(frame.len());
        let place = Checksum::of(headers, frame);
        let before = place.map(|place| place.sum(frame));
        let payload = &mut frame[at..];
        match self {
            Mask::All => payload.fill(MASKED),
            Mask::Patterns(patterns) => patterns.iter().for_each(|pattern| pattern.overwrite(payload)),
        }
        if let (Some(place), Some(before)) = (place, before) {
            place.adjust(frame, before);
        }
    }
}

impl Pattern {
    fn overwrite(&self, payload: &mut [u8]) {
        match self {
            Pattern::Digits(least) => digits(payload, *least),
            Pattern::Bytes(wanted) => each(payload, wanted, |payload, at| {
                payload[at..at + wanted.len()].fill(MASKED);
                at + wanted.len()
            }),
            Pattern::After(wanted) => each(payload, wanted, |payload, at| {
                let from = at + wanted.len();
                let end = payload[from..].iter().position(|byte| matches!(byte, b'\r' | b'\n'));
                let end = end.map_or(payload.len(), |len| from + len);
                payload[from..end].fill(MASKED);
                end
            }),
        }
    }
}

/// `found` gets the place of each and says where to go on.
fn each(payload: &mut [u8], wanted: &[u8], found: impl Fn(&mut [u8], usize) -> usize) {
    let Some((first, rest)) = wanted.split_first() else { return };
    let mut at = 0;
    while let Some(next) = payload[at..].iter().position(|byte| byte == first) {
        at += next;
        at = if payload[at + 1..].starts_with(rest) { found(payload, at) } else { at + 1 };
    }
}

fn digits(payload: &mut [u8], least: usize) {
    // Where the run began, how many digits it has, and where the last of them ended.
    let (mut begin, mut count, mut end) = (0, 0, 0);
    for at in 0..=payload.len() {
        match payload.get(at) {
            Some(b'0'..=b'9') => {
                if count == 0 {
                    begin = at;
                }
                (count, end) = (count + 1, at + 1);
            }
            // One of them between two digits.
            Some(b' ' | b'-') if count > 0 && end == at => {}
            _ => {
                if count >= least {
                    payload[begin..end].iter_mut().filter(|byte| byte.is_ascii_digit()).for_each(|byte| *byte = MASKED);
                }
                count = 0;
            }
        }
    }
}

/// Where the checksum is that covers the payload, and what it covers.
#[derive(Clone, Copy, Debug)]
struct Checksum {
    at: usize,
    from: usize,
    end: usize,
}

impl Checksum {
    /// The innermost one; UDP may have none, then it is that of the tunnel around it.
    fn of(headers: &Headers, frame: &[u8]) -> Option<Self> {
        let [inner, outer] = [&headers.inner, &headers.outer].map(|ip| {
            let at = match (ip.version, ip.protocol) {
                (4 | 6, 6) => 16,
                (4 | 6, 17) => 6,
                (4, 1) | (6, 58) => 2,
                _ => return None,
            };
            if ip.fragment.is_some_and(|fragment| fragment.offset > 0) || ip.payload_offset <= ip.l4_offset {
                return None;
            }
            let end = frame.len().min(usize::from(ip.payload_offset) + ip.payload_len as usize);
            let place = Self { at: usize::from(ip.l4_offset) + at, from: ip.l4_offset.into(), end };
            let is_there = place.at + 2 <= end && (ip.protocol != 17 || frame[place.at..place.at + 2] != [0, 0]);
            is_there.then_some(place)
        });
        inner.or(outer)
    }

    fn sum(&self, frame: &[u8]) -> u64 {
        words(&frame[self.from..self.end])
    }

    /// RFC 1624, with the sums of all that is covered instead of single words.
    fn adjust(&self, frame: &mut [u8], before: u64) {
        let after = self.sum(frame);
        if after == before {
            return;
        }
        let old = u16::from_be_bytes([frame[self.at], frame[self.at + 1]]);
        // `fold` is the complement of the sum, which takes it off again.
        let new = fold(u64::from(!old) + u64::from(fold(before)) + after);
        frame[self.at..self.at + 2].copy_from_slice(&new.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(patterns: &[Pattern], text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        patterns.iter().for_each(|pattern| pattern.overwrite(&mut bytes));
        String::from_utf8(bytes).expect("ASCII")
    }

    #[test]
    fn patterns_find_what_they_should() {
        let digits = [Pattern::Digits(13)];
        for (text, expected) in [
            ("card 4111111111111111.", "card XXXXXXXXXXXXXXXX."),
            ("4111 1111-1111 1111", "XXXX XXXX-XXXX XXXX"),
            ("4111  1111 1111 1111", "4111  1111 1111 1111"),
            ("123456789012", "123456789012"),
            ("1234567890123", "XXXXXXXXXXXXX"),
            ("1234567890123 ", "XXXXXXXXXXXXX "),
            ("12-1234567890123-x", "XX-XXXXXXXXXXXXX-x"),
        ] {
            assert_eq!(masked(&digits, text), expected);
        }
        let words = [Pattern::Bytes(b"aab".to_vec()), Pattern::After(b"Cookie: ".to_vec())];
        assert_eq!(masked(&words, "aaabaab"), "aXXXXXX");
        assert_eq!(masked(&words, "GET\r\nCookie: id=7; x\r\nHost: h"), "GET\r\nCookie: XXXXXXX\r\nHost: h");
        assert_eq!(masked(&words, "Cookie: "), "Cookie: ");
        assert_eq!(masked(&[Pattern::Bytes(Vec::new())], "abc"), "abc");
    }
}
