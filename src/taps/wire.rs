//! A capture on its way to the client: what the bytes between two lines of JSON mean.
//!
//! ```text
//!   item:   length u32 │ kind u8 │ rest, length bytes
//!   packet: 8 words of 8 bytes (CaptureHead) │ captured bytes
//!   rule:   number u32 │ id
//!   mirror: generation u32 │ bit u8 │ name
//! ```
//! All numbers little-endian. A name comes before the first packet that needs it.

use crate::worker::tap::{CaptureHead, HEAD_WORDS};

const PACKET: u8 = 1;
const RULE: u8 = 2;
const MIRROR: u8 = 3;

const HEAD_BYTES: usize = HEAD_WORDS * 8;

/// One item of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Packet(CaptureHead, &'a [u8]),
    Rule(u32, &'a str),
    Mirror { generation: u32, bit: u8, name: &'a str },
}

/// Adds an item to a buffer.
pub fn put(item: &Item<'_>, to: &mut Vec<u8>) {
    let mut open = |kind: u8, len: usize| {
        to.extend_from_slice(&(len as u32).to_le_bytes());
        to.push(kind);
    };
    match item {
        Item::Packet(head, bytes) => {
            open(PACKET, HEAD_BYTES + bytes.len());
            head.to_words().iter().for_each(|word| to.extend_from_slice(&word.to_le_bytes()));
            to.extend_from_slice(bytes);
        }
        Item::Rule(number, id) => {
            open(RULE, 4 + id.len());
            to.extend_from_slice(&number.to_le_bytes());
            to.extend_from_slice(id.as_bytes());
        }
        Item::Mirror { generation, bit, name } => {
            open(MIRROR, 5 + name.len());
            to.extend_from_slice(&generation.to_le_bytes());
            to.push(*bit);
            to.extend_from_slice(name.as_bytes());
        }
    }
}

/// Takes the first item off a buffer; `None` when there is no whole one, or none that is understood.
pub fn take<'a>(from: &mut &'a [u8]) -> Option<Item<'a>> {
    let (len, rest) = from.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first()?;
    let (body, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *from = rest;
    let number = || Some(u32::from_le_bytes(*body.first_chunk::<4>()?));
    match *kind {
        PACKET => {
            let (head, bytes) = body.split_at_checked(HEAD_BYTES)?;
            let mut words = [0; HEAD_WORDS];
            for (word, chunk) in words.iter_mut().zip(head.chunks_exact(8)) {
                *word = u64::from_le_bytes(*chunk.first_chunk()?);
            }
            Some(Item::Packet(CaptureHead::from_words(&words)?, bytes))
        }
        RULE => Some(Item::Rule(number()?, std::str::from_utf8(body.get(4..)?).ok()?)),
        MIRROR => {
            let name = std::str::from_utf8(body.get(5..)?).ok()?;
            Some(Item::Mirror { generation: number()?, bit: *body.get(4)?, name })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn items_come_back(id in ".{0,40}", number: u32, bit: u8, bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let head = CaptureHead::from_words(&[1, 2, 4, 5, 6, 7, 8, 9]).expect("a head");
            let items = [
                Item::Rule(number, &id),
                Item::Packet(head, &bytes),
                Item::Mirror { generation: number, bit, name: &id },
            ];
            let mut buffer = Vec::new();
            items.iter().for_each(|item| put(item, &mut buffer));
            let mut rest = &buffer[..];
            for item in &items {
                let taken = take(&mut rest);
                prop_assert_eq!(taken.as_ref(), Some(item));
            }
            prop_assert!(rest.is_empty());
            // Cut off anywhere it is no item, and nothing panics.
            for cut in 0..buffer.len() {
                let mut rest = &buffer[..cut];
                while take(&mut rest).is_some() {}
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            while take(&mut rest).is_some() {}
        }
    }
}
