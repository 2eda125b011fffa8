//! Builds frames: Ethernet, IPv4 and IPv6, TCP, UDP, ICMP, with correct lengths and checksums.

use std::net::IpAddr;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;

const ETHERNET: usize = 14;

/// Shortest frame on an Ethernet link, without its check sequence.
const MIN_FRAME: usize = 60;

/// One end of a conversation, as its packets show it at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) mac: [u8; 6],
    pub(super) ip: IpAddr,
    pub(super) ttl: u8,
}

/// What an IP packet needs besides its ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpFields {
    pub(super) protocol: u8,
    /// IPv4 identification.
    pub(super) id: u16,
    /// IPv6 flow label.
    pub(super) flow_label: u32,
}

/// The header of a TCP segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    /// Largest segment announced; in SYN segments only, together with window scale 7.
    pub(super) mss: Option<u16>,
}

/// Puts an IP packet into `out` (cleared first): `upper` appends the upper-layer header and payload, and
/// returns where in it the checksum belongs. Frames shorter than Ethernet allows are padded.
pub(super) fn ip(out: &mut Vec<u8>, from: &End, to: &End, fields: IpFields, upper: impl FnOnce(&mut Vec<u8>) -> usize) {
    out.clear();
    out.extend_from_slice(&to.mac);
    out.extend_from_slice(&from.mac);
    let pseudo = match (from.ip, to.ip) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            out.extend_from_slice(&[0x08, 0x00, 0x45, 0, 0, 0]);
            out.extend_from_slice(&fields.id.to_be_bytes());
            out.extend_from_slice(&[0x40, 0, from.ttl, fields.protocol, 0, 0]);
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
            sum(&out[out.len() - 8..])
        }
        (src, dst) => {
            let wide = |a: IpAddr| match a {
                IpAddr::V4(a) => a.to_ipv6_mapped(),
                IpAddr::V6(a) => a,
            };
            out.extend_from_slice(&[0x86, 0xdd]);
            out.extend_from_slice(&(0x6000_0000 | (fields.flow_label & 0x000f_ffff)).to_be_bytes());
            out.extend_from_slice(&[0, 0, fields.protocol, from.ttl]);
            out.extend_from_slice(&wide(src).octets());
            out.extend_from_slice(&wide(dst).octets());
            sum(&out[out.len() - 32..])
        }
    };
    let start = out.len();
    let checksum_at = start + upper(out);
    let upper_len = out.len() - start;
    finish_ip_header(out, start, upper_len);
    // ICMP for IPv4 has no pseudo header.
    let pseudo = if fields.protocol == ICMP { 0 } else { pseudo + u64::from(fields.protocol) + upper_len as u64 };
    let folded = !fold(pseudo + sum(&out[start..]));
    // A UDP checksum of 0 means "none" (RFC 768), so its other form is sent.
    let folded = if folded == 0 && fields.protocol == UDP { 0xffff } else { folded };
    out[checksum_at..checksum_at + 2].copy_from_slice(&folded.to_be_bytes());
    pad(out);
}

fn finish_ip_header(out: &mut [u8], upper_start: usize, upper_len: usize) {
    if upper_start == ETHERNET + 20 {
        let total = (upper_len + 20) as u16;
        out[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&total.to_be_bytes());
        let checksum = !fold(sum(&out[ETHERNET..upper_start]));
        out[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        out[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&(upper_len as u16).to_be_bytes());
    }
}

/// Appends a TCP segment; for [`ip`].
pub(super) fn tcp(out: &mut Vec<u8>, segment: &Segment, payload: impl FnOnce(&mut Vec<u8>)) -> usize {
    out.extend_from_slice(&segment.src_port.to_be_bytes());
    out.extend_from_slice(&segment.dst_port.to_be_bytes());
    out.extend_from_slice(&segment.seq.to_be_bytes());
    out.extend_from_slice(&segment.ack.to_be_bytes());
    let words = if segment.mss.is_some() { 7 } else { 5 };
    out.extend_from_slice(&[words << 4, segment.flags]);
    out.extend_from_slice(&segment.window.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0]);
    if let Some(mss) = segment.mss {
        let [high, low] = mss.to_be_bytes();
        out.extend_from_slice(&[2, 4, high, low, 1, 3, 3, 7]);
    }
    payload(out);
    16
}

/// Appends a UDP datagram; for [`ip`].
pub(super) fn udp(out: &mut Vec<u8>, src_port: u16, dst_port: u16, payload: &[u8]) -> usize {
    out.extend_from_slice(&src_port.to_be_bytes());
    out.extend_from_slice(&dst_port.to_be_bytes());
    out.extend_from_slice(&((payload.len() + 8) as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    6
}

/// Appends an ICMP or ICMPv6 echo message; for [`ip`].
pub(super) fn echo(out: &mut Vec<u8>, kind: u8, id: u16, seq: u16, payload: &[u8]) -> usize {
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&seq.to_be_bytes());
    out.extend_from_slice(payload);
    2
}

/// Puts an ARP message (RFC 826) into `out`. `to` is the Ethernet destination.
pub(super) fn arp(
    out: &mut Vec<u8>,
    to: [u8; 6],
    operation: u16,
    sender: ([u8; 6], [u8; 4]),
    target: ([u8; 6], [u8; 4]),
) {
    out.clear();
    out.extend_from_slice(&to);
    out.extend_from_slice(&sender.0);
    out.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4]);
    out.extend_from_slice(&operation.to_be_bytes());
    out.extend_from_slice(&sender.0);
    out.extend_from_slice(&sender.1);
    out.extend_from_slice(&target.0);
    out.extend_from_slice(&target.1);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    if out.len() < MIN_FRAME {
        out.resize(MIN_FRAME, 0);
    }
}

/// Sum of big-endian 16 bit words, not folded (RFC 1071). Adding 32 bits at a time gives the same after
/// folding.
fn sum(bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(4);
    let mut total: u64 = chunks.by_ref().map(|c| u64::from(u32::from_be_bytes([c[0], c[1], c[2], c[3]]))).sum();
    let mut last = [0; 4];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_be_bytes(last));
    total
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}
