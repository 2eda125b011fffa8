//! Telling a sender that its packet was rejected: TCP RST (RFC 9293 §3.5.2), ICMP destination
//! unreachable, communication administratively prohibited (RFC 1812 §5.2.7.1 code 13, RFC 4443 §3.1 code 1).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::packet::checksum::{fold, words};
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;

    /// Ethernet with these VLAN tags, around an IP packet.
    fn frame(tags: &[u16], packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for tag in tags {
            frame.extend_from_slice(&[0x81, 0]);
            frame.extend_from_slice(&tag.to_be_bytes());
        }
        frame.extend_from_slice(if packet[0] >> 4 == 4 { &[8, 0] } else { &[0x86, 0xdd] });
        frame.extend_from_slice(packet);
        frame
    }

    fn v4(protocol: u8, upper: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 9, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet[2..4].copy_from_slice(&(20 + upper.len() as u16).to_be_bytes());
        packet.extend_from_slice(upper);
        packet
    }

    fn v6(protocol: u8, upper: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, upper.len() as u8, protocol, 64];
        packet.extend_from_slice(&Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets());
        packet.extend_from_slice(&Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets());
        packet.extend_from_slice(upper);
        packet
    }

    fn tcp(flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        let mut segment = vec![0x9c, 0x40, 0, 22];
        segment.extend_from_slice(&seq.to_be_bytes());
        segment.extend_from_slice(&ack.to_be_bytes());
        segment.extend_from_slice(&[0x50, flags, 1, 0, 0, 0, 0, 0]);
        segment.extend_from_slice(payload);
        segment
    }

    fn udp(payload: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0x9c, 0x40, 0, 53, 0, 8 + payload.len() as u8, 0, 0];
        datagram.extend_from_slice(payload);
        datagram
    }

    fn icmp(kind: u8) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, 0, 1, 0, 1];
        message.extend_from_slice(&[0; 40]);
        message
    }

    fn answer(frame: &[u8]) -> Option<Vec<u8>> {
        let mut headers = Headers::default();
        parse(frame, frame.len() as u32, &mut headers).expect("well-formed");
        let mut reply = [0xee; MAX_REPLY];
        write_reply(frame, &headers, &mut reply).map(|len| reply[..len].to_vec())
    }

    /// The answer's own headers, after checking its link header and all its checksums.
    fn checked(tags: &[u16], rejected: &[u8]) -> (Vec<u8>, Headers) {
        let reply = answer(rejected).expect("is answered");
        let link = 14 + 4 * tags.len();
        assert!(reply.len() >= 60, "{} bytes", reply.len());
        assert_eq!((&reply[..6], &reply[6..12]), (&rejected[6..12], &rejected[..6]), "addresses change places");
        assert_eq!(reply[12..link], rejected[12..link], "tags are kept");
        let mut headers = Headers::default();
        parse(&reply, reply.len() as u32, &mut headers).expect("the answer is well-formed");
        let upper_start = usize::from(headers.outer.l4_offset);
        let end = match headers.outer.version {
            4 => {
                assert_eq!(fold(words(&reply[link..link + 20])), 0, "IPv4 header checksum");
                link + usize::from(u16::from_be_bytes([reply[link + 2], reply[link + 3]]))
            }
            _ => link + 40 + usize::from(u16::from_be_bytes([reply[link + 4], reply[link + 5]])),
        };
        assert!(reply[end..].iter().all(|byte| *byte == 0), "padding is zero");
        let upper = &reply[upper_start..end];
        let pseudo = match headers.outer.protocol {
            ICMP => 0,
            protocol => pseudo_header(&headers, protocol, upper.len() as u32),
        };
        assert_eq!(fold(pseudo + words(upper)), 0, "upper-layer checksum");
        (upper.to_vec(), headers)
    }

    #[test]
    fn a_reset_acknowledges_what_came_without_an_acknowledgement() {
        for (tags, packet) in
            [(&[][..], v4(TCP, &tcp(SYN, 100, 0, b""))), (&[7, 100][..], v6(TCP, &tcp(SYN, 100, 0, b"")))]
        {
            let (segment, headers) = checked(tags, &frame(tags, &packet));
            let ip = &headers.outer;
            assert_eq!((ip.src_port, ip.dst_port, ip.tcp_flags), (22, 40_000, RST | ACK));
            assert_eq!((ip.tcp_seq, ip.tcp_ack, segment.len()), (0, 101, 20));
        }
        let (_, headers) = checked(&[], &frame(&[], &v4(TCP, &tcp(SYN | FIN, u32::MAX, 0, b"data"))));
        assert_eq!(headers.outer.tcp_ack, 5, "SYN, four bytes and FIN, past the end of the numbers");
    }

    #[test]
    fn a_reset_takes_its_number_from_the_acknowledgement() {
        let (_, headers) = checked(&[], &frame(&[], &v4(TCP, &tcp(ACK, 100, 777, b"data"))));
        let ip = &headers.outer;
        assert_eq!((ip.tcp_seq, ip.tcp_ack, ip.tcp_flags), (777, 0, RST));
        assert_eq!((ip.src, ip.dst), (0x0a00_0002, 0x0a00_0001));
    }

    #[test]
    fn unreachable_quotes_the_packet() {
        let packet = v4(17, &udp(&[9; 100]));
        let (message, headers) = checked(&[3], &frame(&[3], &packet));
        assert_eq!((headers.outer.protocol, message[0], message[1]), (ICMP, 3, 13));
        assert_eq!(message[8..], packet[..QUOTED]);
        let packet = v6(17, &udp(&[9; 10]));
        let (message, headers) = checked(&[], &frame(&[], &packet));
        assert_eq!((headers.outer.protocol, message[0], message[1]), (ICMPV6, 1, 1));
        assert_eq!(message[8..], packet);
        assert!(answer(&frame(&[], &v4(ICMP, &icmp(8)))).is_some(), "echo requests are answered");
        assert!(answer(&frame(&[], &v6(ICMPV6, &icmp(128)))).is_some());
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        assert_eq!(answer(&frame(&[], &v4(TCP, &tcp(RST, 1, 0, b"")))), None, "reset");
        assert_eq!(answer(&frame(&[], &v4(TCP, &tcp(RST | ACK, 1, 2, b"")))), None, "reset");
        for kind in [0, 3, 4, 5, 11, 12, 14] {
            assert_eq!(answer(&frame(&[], &v4(ICMP, &icmp(kind)))), None, "ICMP {kind}");
        }
        for kind in [1, 2, 3, 4, 129, 135, 136, 137] {
            assert_eq!(answer(&frame(&[], &v6(ICMPV6, &icmp(kind)))), None, "ICMPv6 {kind}");
        }
        let mut later = v4(17, &udp(&[0; 40]));
        later[7] = 5;
        assert_eq!(answer(&frame(&[], &later)), None, "later fragment");
        let mut group = frame(&[], &v4(17, &udp(b"x")));
        group[0] |= 1;
        assert_eq!(answer(&group), None, "link-layer multicast");
        for (at, address) in [(16, [224, 0, 0, 5]), (16, [255; 4]), (12, [0; 4]), (12, [239, 1, 1, 1])] {
            let mut packet = v4(17, &udp(b"x"));
            packet[at..at + 4].copy_from_slice(&address);
            assert_eq!(answer(&frame(&[], &packet)), None, "{address:?}");
        }
        let mut packet = v6(17, &udp(b"x"));
        packet[24] = 0xff;
        assert_eq!(answer(&frame(&[], &packet)), None, "IPv6 multicast");
        let inner = v4(17, &udp(b"x"));
        assert_eq!(answer(&frame(&[], &v4(4, &inner))), None, "tunnelled");
    }

    #[test]
    fn link_headers_that_hold_lengths_or_labels_are_not_turned_round() {
        let packet = v4(17, &udp(b"x"));
        let mut pppoe = frame(&[], &packet)[..12].to_vec();
        pppoe.extend_from_slice(&[0x88, 0x64, 0x11, 0, 0, 1]);
        pppoe.extend_from_slice(&(packet.len() as u16 + 2).to_be_bytes());
        pppoe.extend_from_slice(&[0, 0x21]);
        pppoe.extend_from_slice(&packet);
        assert_eq!(answer(&pppoe), None, "PPPoE");
        let mut mpls = frame(&[], &packet)[..12].to_vec();
        mpls.extend_from_slice(&[0x88, 0x47, 0, 1, 0x01, 64]);
        mpls.extend_from_slice(&packet);
        assert_eq!(answer(&mpls), None, "MPLS");
    }
}
