//! Payload bytes: a head that is spelled out, and filler of any length that costs nothing to hold.

use std::sync::OnceLock;

use super::dice::Dice;

/// Length of the tables that filler is copied from; a power of two.
const TABLE: usize = 1 << 16;

/// Payload bytes of one TLS record.
const RECORD: u64 = 16_384;

/// What filler looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// Encrypted or packed data.
    Random,
    /// Prose in markup.
    Text,
    /// TLS application data: records of random bytes, each with its header.
    Tls,
}

/// The bytes that one side sends in one go.
#[derive(Clone, Debug)]
pub(super) struct Body {
    head: Vec<u8>,
    fill_len: u64,
    fill: Fill,
    /// Where in the tables filler starts.
    shift: usize,
}

impl Body {
    /// These bytes and nothing else.
    pub(super) fn exact(head: Vec<u8>) -> Self {
        Self { head, fill_len: 0, fill: Fill::Random, shift: 0 }
    }

    /// A head, then `fill_len` bytes of filler; for [`Fill::Tls`] these are bytes inside the records, which
    /// add 5 bytes each.
    pub(super) fn filled(head: Vec<u8>, fill_len: u64, fill: Fill, dice: &mut Dice) -> Self {
        let fill_len = if fill == Fill::Tls { fill_len + fill_len.div_ceil(RECORD) * 5 } else { fill_len };
        Self { head, fill_len, fill, shift: dice.below(TABLE) }
    }

    /// Total bytes.
    pub(super) fn len(&self) -> u64 {
        self.head.len() as u64 + self.fill_len
    }

    /// Appends `count` bytes from `offset`; the same bytes whenever asked.
    pub(super) fn write(&self, offset: u64, count: usize, out: &mut Vec<u8>) {
        let end = (offset + count as u64).min(self.len());
        let head_len = self.head.len() as u64;
        if offset < head_len {
            out.extend_from_slice(&self.head[offset as usize..end.min(head_len) as usize]);
        }
        let mut at = offset.max(head_len) - head_len;
        let end = end.saturating_sub(head_len);
        match self.fill {
            Fill::Random => self.copy(random(), at, end, out),
            Fill::Text => self.copy(text(), at, end, out),
            Fill::Tls => {
                while at < end {
                    at += self.tls(at, end, out);
                }
            }
        }
    }

    fn copy(&self, table: &[u8], mut at: u64, end: u64, out: &mut Vec<u8>) {
        while at < end {
            let from = (at as usize + self.shift) % TABLE;
            let take = (TABLE - from).min((end - at) as usize);
            out.extend_from_slice(&table[from..from + take]);
            at += take as u64;
        }
    }

    /// Appends part of the record that `at` lies in and returns how much.
    fn tls(&self, at: u64, end: u64, out: &mut Vec<u8>) -> u64 {
        let start = at - at % (RECORD + 5);
        let inside = (self.fill_len - start).min(RECORD + 5) - 5;
        let [high, low] = (inside as u16).to_be_bytes();
        let before = out.len();
        let header = [0x17, 3, 3, high, low];
        let skip = (at - start).min(5) as usize;
        let take = (5 - skip).min((end - at) as usize);
        out.extend_from_slice(&header[skip..skip + take]);
        self.copy(random(), at + take as u64, end.min(start + 5 + inside), out);
        (out.len() - before) as u64
    }
}

fn random() -> &'static [u8] {
    static RANDOM: OnceLock<Vec<u8>> = OnceLock::new();
    RANDOM.get_or_init(|| Dice::new(73, 110).bytes(TABLE))
}

fn text() -> &'static [u8] {
    static TEXT: OnceLock<Vec<u8>> = OnceLock::new();
    const WORDS: [&str; 16] = [
        "shadow", "hour", "of", "the", "garden", "light", "and", "stone", "at", "noon", "a", "line", "falls", "on",
        "brass", "north",
    ];
    TEXT.get_or_init(|| {
        let mut dice = Dice::new(1, 1);
        let mut bytes = Vec::with_capacity(TABLE + 64);
        while bytes.len() < TABLE {
            bytes.extend_from_slice(b"<p>");
            for _ in 0..12 {
                bytes.extend_from_slice(dice.pick(&WORDS).as_bytes());
                bytes.push(b' ');
            }
            bytes.extend_from_slice(b"</p>\n");
        }
        bytes.truncate(TABLE);
        bytes
    })
}

/// A TLS 1.3 ClientHello record (RFC 8446) naming `server`.
pub(super) fn client_hello(server: &str, dice: &mut Dice) -> Vec<u8> {
    let mut extensions = Vec::new();
    let name = server.as_bytes();
    let mut sni = ((name.len() + 3) as u16).to_be_bytes().to_vec();
    sni.push(0);
    sni.extend_from_slice(&(name.len() as u16).to_be_bytes());
    sni.extend_from_slice(name);
    extension(&mut extensions, 0, &sni);
    extension(&mut extensions, 10, &[0, 4, 0, 0x1d, 0, 0x17]);
    extension(&mut extensions, 13, &[0, 6, 4, 3, 8, 4, 4, 1]);
    extension(&mut extensions, 16, b"\x00\x0c\x02h2\x08http/1.1");
    extension(&mut extensions, 43, &[2, 3, 4]);
    let mut share = vec![0, 36, 0, 0x1d, 0, 32];
    share.extend(dice.bytes(32));
    extension(&mut extensions, 51, &share);
    let mut body = vec![3, 3];
    body.extend(dice.bytes(32));
    body.push(32);
    body.extend(dice.bytes(32));
    body.extend_from_slice(&[0, 6, 0x13, 1, 0x13, 2, 0x13, 3, 1, 0]);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    handshake_record(1, &body)
}

/// A TLS 1.3 ServerHello and ChangeCipherSpec.
pub(super) fn server_hello(dice: &mut Dice) -> Vec<u8> {
    let mut extensions = Vec::new();
    extension(&mut extensions, 43, &[3, 4]);
    let mut share = vec![0, 0x1d, 0, 32];
    share.extend(dice.bytes(32));
    extension(&mut extensions, 51, &share);
    let mut body = vec![3, 3];
    body.extend(dice.bytes(32));
    body.push(32);
    body.extend(dice.bytes(32));
    body.extend_from_slice(&[0x13, 1, 0]);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut record = handshake_record(2, &body);
    record.extend_from_slice(CHANGE_CIPHER);
    record
}

/// A TLS ChangeCipherSpec record, as both sides still send it.
pub(super) const CHANGE_CIPHER: &[u8] = &[0x14, 3, 3, 0, 1, 1];

fn extension(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend_from_slice(body);
}

fn handshake_record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x16, 3, 1];
    out.extend_from_slice(&((body.len() + 4) as u16).to_be_bytes());
    out.push(kind);
    out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole() {
        for fill in [Fill::Random, Fill::Text, Fill::Tls] {
            let body = Body::filled(b"head".to_vec(), 40_000, fill, &mut Dice::new(3, 3));
            let mut whole = Vec::new();
            body.write(0, body.len() as usize, &mut whole);
            assert_eq!(whole.len() as u64, body.len());
            for piece in [1, 3, 1000, 1460, 16_389] {
                let mut joined = Vec::new();
                while (joined.len() as u64) < body.len() {
                    body.write(joined.len() as u64, piece, &mut joined);
                }
                assert!(joined == whole, "{fill:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn tls_filler_is_whole_records() {
        let body = Body::filled(Vec::new(), 40_000, Fill::Tls, &mut Dice::new(3, 3));
        let mut bytes = Vec::new();
        body.write(0, body.len() as usize, &mut bytes);
        let (mut rest, mut inside) = (&bytes[..], 0);
        while !rest.is_empty() {
            assert_eq!(rest[..3], [0x17, 3, 3]);
            let length = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
            inside += length;
            rest = &rest[5 + length..];
        }
        assert_eq!(inside, 40_000);
    }
}
