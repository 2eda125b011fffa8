//! By what a packet is known again after a router or a bridge.

use super::headers::Headers;
use super::key::hash_words;

/// A hash, never 0, of what stays the same from hop to hop: the packet from its IP header on, without TTL and header
/// checksum; of what has no IP, the frame without VLAN tags.
pub fn fingerprint(frame: &[u8], headers: &Headers) -> u64 {
    let at = usize::from(headers.outer.offset).min(frame.len());
    let hash = match headers.outer.version {
        4 => of_ip(&frame[at..], |packet| usize::from(u16::from_be_bytes([packet[2], packet[3]])), [8, 10, 11]),
        6 => of_ip(&frame[at..], |packet| 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])), [7, 7, 7]),
        _ => {
            let tags = 4 * usize::from(headers.link.vlans.depth);
            let (stations, rest) = (frame.get(..12).unwrap_or(frame), frame.get(12 + tags..).unwrap_or(&[]));
            hash_bytes(hash_bytes(0, stations), rest)
        }
    };
    hash.max(1)
}

const HEAD: usize = 40;

/// `ignored` are places in the header.
fn of_ip(packet: &[u8], len: impl Fn(&[u8; HEAD]) -> usize, ignored: [usize; 3]) -> u64 {
    let mut head = [0; HEAD];
    let there = packet.len().min(HEAD);
    head[..there].copy_from_slice(&packet[..there]);
    // What follows the packet pads the frame.
    let packet = &packet[..packet.len().min(len(&head))];
    let there = packet.len().min(HEAD);
    head[there..].fill(0);
    ignored.iter().for_each(|at| head[*at] = 0);
    hash_bytes(hash_bytes(0, &head), packet.get(HEAD..).unwrap_or(&[]))
}

/// Four hashes side by side, for they need not wait for each other.
fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let mut lanes = [seed, 1, 2, 3];
    let mut chunks = bytes.chunks_exact(32);
    for chunk in &mut chunks {
        lanes.iter_mut().zip(chunk.chunks_exact(8)).for_each(|(lane, bytes)| *lane = hash_words([*lane, word(bytes)]));
    }
    let rest = chunks.remainder().chunks(8).map(word);
    hash_words(lanes.into_iter().chain(rest).chain([bytes.len() as u64]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;

    fn print(frame: &[u8]) -> u64 {
        let mut headers = Headers::default();
        parse(frame, frame.len() as u32, &mut headers).expect("sound");
        fingerprint(frame, &headers)
    }

    /// Ethernet, tags, and a UDP packet with this TTL and last byte, padded by so many bytes.
    fn frame(mac: u8, vlan: Option<u8>, ttl: u8, last: u8, padding: usize) -> Vec<u8> {
        let tag: &[u8] = &vlan.map_or(vec![], |vlan| vec![0x81, 0, 0, vlan]);
        let mut ip = vec![0x45, 0, 0, 60, 0, 1, 0, 0, ttl, 17, ttl, 9, 10, 0, 0, 1, 10, 0, 0, 2];
        ip.extend([0, 1, 0, 2, 0, 40, 0, 0]);
        ip.extend([7; 31]);
        ip.push(last);
        [&[mac; 12], tag, &[8, 0], &ip, &vec![mac; padding]].concat()
    }

    #[test]
    fn a_hop_changes_nothing_and_a_byte_everything() {
        let first = print(&frame(2, None, 64, 5, 0));
        assert_eq!(print(&frame(4, Some(9), 63, 5, 7)), first, "MAC addresses, tags, TTL, checksum and padding");
        assert_ne!(print(&frame(2, None, 64, 6, 0)), first);
        let arp = |tag: &[u8], last: u8| {
            let body = [0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, last];
            print(&[&[2; 12], tag, &[8, 6], &body].concat())
        };
        assert_eq!(arp(&[], 2), arp(&[0x81, 0, 0, 9], 2));
        assert_ne!(arp(&[], 2), arp(&[], 3));
    }
}
