//! Pieces of copies → the packets they were, for whoever receives (RFC 791, RFC 8200 section 4.5).

use std::collections::BTreeMap;

use super::get16;

/// Packets that are in pieces, a limited number of them.
#[derive(Debug, Default)]
pub struct Reassembly {
    packets: BTreeMap<Id, Packet>,
    /// Pieces that never became a packet.
    given_up: u64,
}

/// Addresses, protocol and number.
type Id = (Vec<u8>, u8, u32);

#[derive(Debug, Default)]
struct Packet {
    /// When its first piece came.
    began: u64,
    /// Ethernet and IP header of the first piece.
    head: Option<Head>,
    /// By offset.
    pieces: BTreeMap<u32, Vec<u8>>,
    /// Length of all of it, when the last piece has come.
    whole: Option<u32>,
}

#[derive(Clone, Debug)]
struct Head {
    bytes: Vec<u8>,
    ip_at: usize,
}

struct Piece<'a> {
    id: Id,
    head: Head,
    offset: u32,
    more: bool,
    bytes: &'a [u8],
}

/// Most packets that wait for their pieces, and how long (RFC 8200).
const MOST: usize = 1024;
const PATIENCE_NS: u64 = 60_000_000_000;
const LARGEST: u32 = 65_535;

impl Reassembly {
    /// Takes in a frame; when it is the last missing piece of a packet, returns a frame with the whole of it.
    pub fn enter(&mut self, frame: &[u8], ts_ns: u64) -> Option<Vec<u8>> {
        let piece = piece(frame)?;
        self.forget(ts_ns);
        let packet =
            self.packets.entry(piece.id.clone()).or_insert_with(|| Packet { began: ts_ns, ..Packet::default() });
        if !packet.takes(&piece) {
            // Overlaps are an attack, not an accident (RFC 5722).
            let packet = self.packets.remove(&piece.id)?;
            self.given_up += 1 + packet.pieces.len() as u64;
            return None;
        }
        let whole = packet.whole()?;
        self.packets.remove(&piece.id);
        Some(whole)
    }

    /// Pieces of packets that are not whole.
    pub fn left(&self) -> u64 {
        self.given_up + self.packets.values().map(|packet| packet.pieces.len() as u64).sum::<u64>()
    }

    fn forget(&mut self, now: u64) {
        let given_up = &mut self.given_up;
        self.packets.retain(|_, packet| {
            let stays = now.saturating_sub(packet.began) <= PATIENCE_NS;
            *given_up += if stays { 0 } else { packet.pieces.len() as u64 };
            stays
        });
        if self.packets.len() >= MOST
            && let Some(oldest) = self.packets.iter().min_by_key(|(_, packet)| packet.began).map(|(id, _)| id.clone())
            && let Some(packet) = self.packets.remove(&oldest)
        {
            self.given_up += packet.pieces.len() as u64;
        }
    }
}

impl Packet {
    /// False when it contradicts what is there.
    fn takes(&mut self, piece: &Piece<'_>) -> bool {
        let end = piece.offset + piece.bytes.len() as u32;
        if self.pieces.get(&piece.offset).is_some_and(|there| there == piece.bytes) {
            return true;
        }
        let before = self.pieces.range(..=piece.offset).next_back().map_or(0, |(at, bytes)| at + bytes.len() as u32);
        let after = self.pieces.range(piece.offset..).next().map_or(LARGEST, |(at, _)| *at);
        let is_known_end = self.whole.is_none_or(|whole| end < whole || end == whole && !piece.more);
        if before > piece.offset || end > after || !is_known_end || piece.more && !piece.bytes.len().is_multiple_of(8) {
            return false;
        }
        if !piece.more {
            self.whole = Some(end);
        }
        if piece.offset == 0 {
            self.head = Some(piece.head.clone());
        }
        self.pieces.insert(piece.offset, piece.bytes.to_vec());
        true
    }

    fn whole(&self) -> Option<Vec<u8>> {
        let (Head { bytes, ip_at }, whole) = (self.head.as_ref()?, self.whole?);
        let there: u32 = self.pieces.values().map(|bytes| bytes.len() as u32).sum();
        if there != whole {
            return None;
        }
        let mut frame = bytes.clone();
        let ip = &mut frame[*ip_at..];
        if ip[0] >> 4 == 4 {
            let total = u16::try_from(ip.len() as u32 + whole).ok()?;
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[6..8].fill(0);
        } else {
            let len = u16::try_from(whole).ok()?;
            ip[4..6].copy_from_slice(&len.to_be_bytes());
        }
        self.pieces.values().for_each(|bytes| frame.extend(bytes));
        Some(frame)
    }
}

fn piece(frame: &[u8]) -> Option<Piece<'_>> {
    let mut at = 12;
    while matches!(get16(frame, at)?, 0x8100 | 0x88a8) {
        at += 4;
    }
    let (link, ip) = frame.split_at_checked(at + 2)?;
    if get16(frame, at)? == 0x0800 {
        let (header, total) = (usize::from(ip.first()? & 0xf) * 4, usize::from(get16(ip, 2)?));
        let (place, head) = (get16(ip, 6)?, ip.get(..header.max(20))?);
        let id = (ip[12..20].to_vec(), ip[9], u32::from(get16(ip, 4)?));
        let head = Head { bytes: [link, head].concat(), ip_at: link.len() };
        let (offset, more) = (u32::from(place & 0x1fff) * 8, place & 0x2000 != 0);
        return Some(Piece { id, head, offset, more, bytes: ip.get(header..total)? });
    }
    let (head, rest) = ip.split_at_checked(40)?;
    let total = usize::from(get16(head, 4)?);
    let (extension, place) = (rest.get(..8)?, get16(rest, 2)?);
    let mut bytes = [link, head].concat();
    // The header that says it is a fragment goes.
    bytes[link.len() + 6] = extension[0];
    let number = u32::from_be_bytes(extension[4..8].try_into().ok()?);
    let head = Head { bytes, ip_at: link.len() };
    let id = (ip[8..40].to_vec(), extension[0], number);
    Some(Piece { id, head, offset: u32::from(place & 0xfff8), more: place & 1 != 0, bytes: rest.get(8..total)? })
}
