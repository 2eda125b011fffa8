//! Telling a sender that its packet was rejected: TCP RST (RFC 9293 §3.5.2), ICMP destination
//! unreachable, communication administratively prohibited (RFC 1812 §5.2.7.1 code 13, RFC 4443 §3.1 code 1).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::packet::{Addr, Headers};

/// Longest answer: link header with three tags and labels, IPv6, ICMPv6 and the quoted start.
pub(super) const MAX_REPLY: usize = 320;

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const SYN: u8 = 0x02;
const FIN: u8 = 0x01;
/// Bytes of the rejected packet that an ICMP error quotes, beyond its IP header.
const QUOTED: usize = 128;

/// Writes the answer to `frame` into `reply`, swapping addresses and keeping VLAN tags. `None` when the
/// packet must not be answered: RSTs, ICMP errors, later fragments, broadcast, or tunnelled frames.
pub(super) fn write_reply(frame: &[u8], headers: &Headers, reply: &mut [u8; MAX_REPLY]) -> Option<usize> {
    let ip = &headers.outer;
    let tunnelled = headers.inner.version != 0;
    if ip.fragment.is_some_and(|f| f.offset > 0) || headers.link.dst.0[0] & 1 == 1 || ip.version == 0 || tunnelled {
        return None;
    }
    if !names_one_host(ip.version, ip.src) || !names_one_host(ip.version, ip.dst) {
        return None;
    }
    let link = write_link(frame, usize::from(ip.offset), reply)?;
    let answer = if ip.protocol == TCP {
        write_tcp_reset(headers, &mut reply[link..])?
    } else {
        write_unreachable(frame, headers, &mut reply[link..])?
    };
    // Ethernet's minimum without checksum.
    let len = (link + answer).max(60);
    reply[link + answer..len].fill(0);
    Some(len)
}

/// The received link header with its MAC addresses swapped.
fn write_link(frame: &[u8], len: usize, reply: &mut [u8; MAX_REPLY]) -> Option<usize> {
    let link = frame.get(..len)?;
    // Behind VLAN tags only: lengths (802.3, PPPoE) and labels (MPLS) would be wrong on the way back.
    let tags = len.checked_sub(14).filter(|tags| tags % 4 == 0 && *tags <= 12)?;
    if !matches!(link[12 + tags..], [0x08, 0x00] | [0x86, 0xdd]) {
        return None;
    }
    reply[..len].copy_from_slice(link);
    reply[..6].copy_from_slice(&link[6..12]);
    reply[6..12].copy_from_slice(&link[..6]);
    Some(len)
}

/// Not a group, not "nobody" and not the limited broadcast (RFC 1122 §3.2.2, RFC 4443 §2.4 e).
fn names_one_host(version: u8, addr: Addr) -> bool {
    match version {
        4 => {
            let addr = Ipv4Addr::from(addr as u32);
            !addr.is_multicast() && !addr.is_unspecified() && !addr.is_broadcast()
        }
        _ => {
            let addr = Ipv6Addr::from(addr);
            !addr.is_multicast() && !addr.is_unspecified()
        }
    }
}

fn write_tcp_reset(headers: &Headers, out: &mut [u8]) -> Option<usize> {
    let ip = &headers.outer;
    if ip.tcp_flags & RST != 0 {
        return None;
    }
    let ip_len = ip_header_len(ip.version);
    let tcp = &mut out[ip_len..ip_len + 20];
    tcp.fill(0);
    tcp[0..2].copy_from_slice(&ip.dst_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&ip.src_port.to_be_bytes());
    tcp[12] = 5 << 4;
    if ip.tcp_flags & ACK != 0 {
        tcp[4..8].copy_from_slice(&ip.tcp_ack.to_be_bytes());
        tcp[13] = RST;
    } else {
        let counted = u32::from(ip.tcp_flags & SYN != 0) + u32::from(ip.tcp_flags & FIN != 0);
        let next = ip.tcp_seq.wrapping_add(ip.payload_len).wrapping_add(counted);
        tcp[8..12].copy_from_slice(&next.to_be_bytes());
        tcp[13] = RST | ACK;
    }
    let sum = pseudo_header(headers, TCP, 20) + words(&out[ip_len..ip_len + 20]);
    out[ip_len + 16..ip_len + 18].copy_from_slice(&fold(sum).to_be_bytes());
    write_ip(headers, TCP, 20, out);
    Some(ip_len + 20)
}

fn write_unreachable(frame: &[u8], headers: &Headers, out: &mut [u8]) -> Option<usize> {
    let ip = &headers.outer;
    let (protocol, kind, code) = match (ip.version, ip.protocol) {
        // Errors and replies are never answered with an error; echo and other requests are.
        (4, ICMP) if !matches!(ip.icmp_type, 8 | 13 | 15 | 17) => return None,
        (6, ICMPV6) if ip.icmp_type != 128 => return None,
        (4, _) => (ICMP, 3, 13),
        _ => (ICMPV6, 1, 1),
    };
    let start = usize::from(ip.offset);
    let end = (usize::from(ip.l4_offset) + 8).max(start + QUOTED).min(frame.len());
    let quoted = frame.get(start..end)?;
    let (ip_len, len) = (ip_header_len(ip.version), 8 + quoted.len());
    let message = out.get_mut(ip_len..ip_len + len)?;
    message[..8].copy_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
    message[8..].copy_from_slice(quoted);
    let pseudo = if ip.version == 6 { pseudo_header(headers, ICMPV6, len as u32) } else { 0 };
    let sum = fold(pseudo + words(message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    write_ip(headers, protocol, len as u16, out);
    Some(ip_len + len)
}

fn ip_header_len(version: u8) -> usize {
    if version == 4 { 20 } else { 40 }
}

/// Source and destination swapped, TTL 64.
fn write_ip(headers: &Headers, protocol: u8, payload: u16, out: &mut [u8]) {
    let ip = &headers.outer;
    if ip.version == 4 {
        out[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
        out[2..4].copy_from_slice(&(payload + 20).to_be_bytes());
        out[12..16].copy_from_slice(&(ip.dst as u32).to_be_bytes());
        out[16..20].copy_from_slice(&(ip.src as u32).to_be_bytes());
        let sum = fold(words(&out[..20]));
        out[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        out[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, protocol, 64]);
        out[4..6].copy_from_slice(&payload.to_be_bytes());
        out[8..24].copy_from_slice(&ip.dst.to_be_bytes());
        out[24..40].copy_from_slice(&ip.src.to_be_bytes());
    }
}

fn pseudo_header(headers: &Headers, protocol: u8, len: u32) -> u64 {
    let ip = &headers.outer;
    words(&ip.src.to_be_bytes()) + words(&ip.dst.to_be_bytes()) + u64::from(protocol) + u64::from(len)
}

/// Sum of big-endian 16-bit words, not folded.
fn words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0))).sum()
}

/// Internet checksum (RFC 1071) of a sum of words.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
