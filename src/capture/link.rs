//! Link layers of captures, and how each becomes Ethernet.
//!
//! Numbers and layouts: <https://www.tcpdump.org/linktypes.html>.

use std::fmt;

/// Ethertype of frames whose link layer is not understood (IEEE 802 local experimental 1).
const OPAQUE: u16 = 0x88b5;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// PPP frames other than IP travel whole behind this ethertype.
const PPP: u16 = 0x880b;

/// Link type as in the header of a capture.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkType(pub u32);

impl LinkType {
    pub const ETHERNET: Self = Self(1);
    /// A packet of an interface that its pcapng file does not describe.
    pub const UNKNOWN: Self = Self(u32::MAX);

    /// From the 32 bit field of a file header, whose top six bits are about frame check sequences.
    pub(super) fn from_pcap_header(field: i32) -> Self {
        Self(field as u32 & 0x03ff_ffff)
    }

    /// Short name, as used in reports.
    pub fn name(self) -> String {
        match self.0 {
            0 => "null".to_owned(),
            1 => "ethernet".to_owned(),
            9 => "ppp".to_owned(),
            12 | 14 | 101 => "raw".to_owned(),
            50 => "ppp-hdlc".to_owned(),
            51 => "pppoe".to_owned(),
            104 => "c-hdlc".to_owned(),
            108 => "loop".to_owned(),
            113 => "linux-sll".to_owned(),
            228 => "ipv4".to_owned(),
            229 => "ipv6".to_owned(),
            276 => "linux-sll2".to_owned(),
            u32::MAX => "undescribed".to_owned(),
            other => format!("type-{other}"),
        }
    }
}

impl fmt::Debug for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkType({})", self.name())
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// How a frame changed on its way to Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Normalised {
    /// Bytes added minus bytes removed before the payload.
    pub added: i32,
    /// Whether the link type is understood. When not, the whole frame is the payload of an Ethernet
    /// header with ethertype 0x88b5.
    pub supported: bool,
}

impl Normalised {
    /// Length on the wire of the Ethernet frame, given that of the captured one.
    pub fn wire_len(self, captured_wire_len: u32) -> u32 {
        captured_wire_len.saturating_add_signed(self.added)
    }
}

/// The start of a frame, understood.
#[derive(Debug)]
struct Start {
    /// Bytes of link header that are replaced.
    header: usize,
    ethertype: u16,
    src: [u8; 6],
    dst: [u8; 6],
}

impl Start {
    fn plain(header: usize, ethertype: u16) -> Option<Self> {
        Some(Self { header, ethertype, src: [0; 6], dst: [0; 6] })
    }
}

/// Writes the frame as Ethernet to `out` (cleared first). `wire_len` is its length on its own link.
pub fn to_ethernet(link: LinkType, data: &[u8], wire_len: u32, out: &mut Vec<u8>) -> Normalised {
    out.clear();
    if link == LinkType::ETHERNET {
        out.extend_from_slice(data);
        return Normalised { added: 0, supported: true };
    }
    let start = match link.0 {
        12 | 14 | 101 => raw_ip(data),
        228 => Start::plain(0, IPV4),
        229 => Start::plain(0, IPV6),
        0 | 108 => null(data),
        113 => cooked(data, wire_len),
        276 => cooked2(data, wire_len),
        9 => ppp(data),
        50 => ppp_hdlc(data),
        51 => Start::plain(0, 0x8864),
        104 => cisco_hdlc(data),
        _ => None,
    };
    let supported = start.is_some();
    let start = start.unwrap_or(Start { header: 0, ethertype: OPAQUE, src: [0; 6], dst: [0; 6] });
    out.extend_from_slice(&start.dst);
    out.extend_from_slice(&start.src);
    out.extend_from_slice(&start.ethertype.to_be_bytes());
    out.extend_from_slice(data.get(start.header..).unwrap_or_default());
    Normalised { added: 14 - start.header as i32, supported }
}

fn raw_ip(data: &[u8]) -> Option<Start> {
    match data.first()? >> 4 {
        4 => Start::plain(0, IPV4),
        6 => Start::plain(0, IPV6),
        _ => None,
    }
}

/// BSD loopback: an address family in the byte order of whoever captured (or of the network).
fn null(data: &[u8]) -> Option<Start> {
    let family: [u8; 4] = *data.first_chunk()?;
    let family = match u32::from_le_bytes(family) {
        small if small <= 0xffff => small,
        _ => u32::from_be_bytes(family),
    };
    match family {
        2 => Start::plain(4, IPV4),
        // Linux, NetBSD and OpenBSD, FreeBSD, macOS.
        10 | 24 | 28 | 30 => Start::plain(4, IPV6),
        _ => None,
    }
}

/// Linux cooked capture, version 1: type, ARPHRD, address length (2 bytes each), address (8), protocol.
fn cooked(data: &[u8], wire_len: u32) -> Option<Start> {
    let h: &[u8; 16] = data.first_chunk()?;
    let short = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
    let address = Address { kind: short(0), length: short(4), bytes: [h[6], h[7], h[8], h[9], h[10], h[11]] };
    cooked_start(16, short(2), short(14), &address, wire_len)
}

/// Linux cooked capture, version 2: protocol, 0, interface (4 bytes), ARPHRD, type, address length, address.
fn cooked2(data: &[u8], wire_len: u32) -> Option<Start> {
    let h: &[u8; 20] = data.first_chunk()?;
    let short = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
    let address =
        Address { kind: h[10].into(), length: h[11].into(), bytes: [h[12], h[13], h[14], h[15], h[16], h[17]] };
    cooked_start(20, short(8), short(0), &address, wire_len)
}

/// Sender address of a cooked frame, and what kind of receiver it had.
struct Address {
    kind: u16,
    length: u16,
    bytes: [u8; 6],
}

fn cooked_start(header: usize, hardware: u16, protocol: u16, address: &Address, wire_len: u32) -> Option<Start> {
    // Netlink, 802.11 and its capture headers use the protocol field for other things.
    if matches!(hardware, 801..=805 | 824) {
        return None;
    }
    let ethertype = match protocol {
        // 802.3 with or without 802.2: Ethernet has the length there.
        1 | 4 => wire_len.saturating_sub(header as u32).min(1500) as u16,
        0x0600.. => protocol,
        _ => return None,
    };
    let src = if address.length == 6 { address.bytes } else { [0; 6] };
    let dst = if address.kind == 1 { [0xff; 6] } else { [0; 6] };
    Some(Start { header, ethertype, src, dst })
}

/// PPP (RFC 1661), with or without address and control bytes, protocol in one or two bytes.
fn ppp(data: &[u8]) -> Option<Start> {
    let framing = if data.starts_with(&[0xff, 0x03]) { 2 } else { 0 };
    let first = *data.get(framing)?;
    // Protocol numbers end in an odd byte; an odd first byte is all there is.
    let (protocol, length) =
        if first & 1 == 1 { (u16::from(first), 1) } else { (u16::from_be_bytes([first, *data.get(framing + 1)?]), 2) };
    match protocol {
        0x0021 => Start::plain(framing + length, IPV4),
        0x0057 => Start::plain(framing + length, IPV6),
        0x0281 => Start::plain(framing + length, 0x8847),
        0x0283 => Start::plain(framing + length, 0x8848),
        _ => Start::plain(framing, PPP),
    }
}

fn ppp_hdlc(data: &[u8]) -> Option<Start> {
    match data.first()? {
        0x0f | 0x8f => cisco_hdlc(data),
        _ => ppp(data),
    }
}

/// Cisco HDLC: address, control, ethertype.
fn cisco_hdlc(data: &[u8]) -> Option<Start> {
    let h: &[u8; 4] = data.first_chunk()?;
    Start::plain(4, u16::from_be_bytes([h[2], h[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(link: u32, data: &[u8]) -> (Vec<u8>, Normalised) {
        let mut out = vec![1, 2, 3];
        let normalised = to_ethernet(LinkType(link), data, data.len() as u32, &mut out);
        assert_eq!(out.len() as u32, normalised.wire_len(data.len() as u32));
        (out, normalised)
    }

    fn ethertype(link: u32, data: &[u8]) -> (u16, usize, bool) {
        let (out, normalised) = convert(link, data);
        (u16::from_be_bytes([out[12], out[13]]), out.len() - 14, normalised.supported)
    }

    #[test]
    fn ethernet_stays() {
        let (out, normalised) = convert(1, b"short");
        assert_eq!((out.as_slice(), normalised), (&b"short"[..], Normalised { added: 0, supported: true }));
    }

    #[test]
    fn raw_ip_by_version_or_type() {
        for link in [12, 14, 101] {
            assert_eq!(ethertype(link, &[0x45, 0]), (IPV4, 2, true));
            assert_eq!(ethertype(link, &[0x60, 0]), (IPV6, 2, true));
            assert_eq!(ethertype(link, &[0x10, 0]), (OPAQUE, 2, false));
            assert_eq!(ethertype(link, &[]), (OPAQUE, 0, false));
        }
        assert_eq!(ethertype(228, &[0x45]), (IPV4, 1, true));
        assert_eq!(ethertype(229, &[0x60]), (IPV6, 1, true));
    }

    #[test]
    fn null_and_loop_in_both_byte_orders() {
        for link in [0, 108] {
            assert_eq!(ethertype(link, &[2, 0, 0, 0, 0x45]), (IPV4, 1, true));
            assert_eq!(ethertype(link, &[0, 0, 0, 2, 0x45]), (IPV4, 1, true));
            for family in [10, 24, 28, 30] {
                assert_eq!(ethertype(link, &[family, 0, 0, 0, 0x60]), (IPV6, 1, true));
                assert_eq!(ethertype(link, &[0, 0, 0, family, 0x60]), (IPV6, 1, true));
            }
            assert_eq!(ethertype(link, &[7, 0, 0, 0, 1]), (OPAQUE, 5, false));
            assert_eq!(ethertype(link, &[2, 0, 0]), (OPAQUE, 3, false));
        }
    }

    #[test]
    fn linux_cooked_keeps_sender_and_protocol() {
        let frame = [0, 1, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 6, 9];
        let (out, normalised) = convert(113, &frame);
        assert_eq!(out, [255, 255, 255, 255, 255, 255, 1, 2, 3, 4, 5, 6, 8, 6, 9]);
        assert_eq!(normalised, Normalised { added: -2, supported: true });
        let frame2 = [0x86, 0xdd, 0, 0, 0, 0, 0, 9, 3, 4, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 0x60];
        let (out, normalised) = convert(276, &frame2);
        assert_eq!(out, [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0x86, 0xdd, 0x60]);
        assert_eq!(normalised.added, -6);
        assert!(!convert(113, &frame[..15]).1.supported, "cut off");
        let netlink = [0, 4, 3, 0x38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert!(!convert(113, &netlink).1.supported);
        let llc = [0, 2, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 0, 4, 0x42, 0x42, 3];
        assert_eq!(ethertype(113, &llc), (3, 3, true));
    }

    #[test]
    fn ppp_and_hdlc() {
        assert_eq!(ethertype(9, &[0xff, 3, 0, 0x21, 0x45]), (IPV4, 1, true));
        assert_eq!(ethertype(9, &[0, 0x57, 0x60]), (IPV6, 1, true));
        assert_eq!(ethertype(9, &[0x21, 0x45]), (IPV4, 1, true));
        assert_eq!(ethertype(9, &[0xff, 3, 0xc0, 0x21, 1]), (PPP, 3, true));
        assert_eq!(ethertype(50, &[0xff, 3, 0, 0x21, 0x45]), (IPV4, 1, true));
        assert_eq!(ethertype(50, &[0x0f, 0, 8, 0, 0x45]), (IPV4, 1, true));
        assert_eq!(ethertype(104, &[0x8f, 0, 0x86, 0xdd, 0x60]), (IPV6, 1, true));
        assert_eq!(ethertype(104, &[0x0f, 0]), (OPAQUE, 2, false));
        assert_eq!(ethertype(9, &[0xff, 3, 0]), (OPAQUE, 3, false));
    }

    #[test]
    fn the_rest_is_wrapped_whole() {
        let (out, normalised) = convert(274, b"mPacket");
        assert_eq!(&out[12..], b"\x88\xb5mPacket");
        assert_eq!(normalised, Normalised { added: 14, supported: false });
        assert!(!convert(LinkType::UNKNOWN.0, b"?").1.supported);
        assert!(!convert(105, b"802.11").1.supported);
    }

    #[test]
    fn check_sequence_bits_are_not_part_of_the_type() {
        assert_eq!(LinkType::from_pcap_header(0x2400_0001), LinkType::ETHERNET);
    }
}
