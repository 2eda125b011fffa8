//! Frames built for tests: Ethernet, VLAN, IPv4 and IPv6, TCP, UDP, ICMP, fragments, tunnels, ARP.

use std::net::IpAddr;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

pub const CLIENT_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
pub const SERVER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

/// Source and destination address, each IPv4 or IPv6.
pub type Ends<'a> = (&'a str, &'a str);

pub fn tcp(ends: Ends<'_>, ports: (u16, u16), flags: u8, numbers: (u32, u32), payload: &[u8]) -> Vec<u8> {
    ethernet_ip(&ip(ends, 6, &tcp_segment(ports, flags, numbers, payload)))
}

pub fn udp(ends: Ends<'_>, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    ethernet_ip(&ip(ends, 17, &udp_datagram(ports, payload)))
}

/// ICMP or ICMPv6 echo, by the family of the addresses.
pub fn echo(ends: Ends<'_>, request: bool, id: u16, payload: &[u8]) -> Vec<u8> {
    let (protocol, kind) = match (is_v6(ends), request) {
        (false, true) => (1, 8),
        (false, false) => (1, 0),
        (true, true) => (58, 128),
        (true, false) => (58, 129),
    };
    let mut message = vec![kind, 0, 0, 0];
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    message.extend_from_slice(payload);
    ethernet_ip(&ip(ends, protocol, &message))
}

/// ICMPv6 neighbour solicitation for the destination, sent to it.
pub fn neighbour_solicitation(ends: Ends<'_>) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&octets(ends.1));
    let mut packet = ip(ends, 58, &message);
    // Proof that it was not routed (RFC 4861 §7.1.1).
    packet[7] = 255;
    ethernet_ip(&packet)
}

/// ICMP message without an identifier, eight bytes long.
pub fn icmp(ends: Ends<'_>, kind: u8, code: u8) -> Vec<u8> {
    ethernet_ip(&ip(ends, if is_v6(ends) { 58 } else { 1 }, &[kind, code, 0, 0, 0, 0, 0, 0]))
}

/// ICMP or ICMPv6 error about a packet, of which it quotes the IP header and eight bytes.
pub fn icmp_error(ends: Ends<'_>, kind: u8, code: u8, about: &[u8]) -> Vec<u8> {
    let quoted = if is_v6(ends) { 14 + 48 } else { 14 + 28 };
    let message = [&[kind, code, 0, 0, 0, 0, 0, 0], &about[14..quoted]].concat();
    ethernet_ip(&ip(ends, if is_v6(ends) { 58 } else { 1 }, &message))
}

/// ARP request of one IPv4 address for another.
pub fn arp(sender: &str, target: &str) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend_from_slice(&CLIENT_MAC);
    arp.extend_from_slice(&octets(sender));
    arp.extend_from_slice(&[0; 6]);
    arp.extend_from_slice(&octets(target));
    ethernet([0xff; 6], CLIENT_MAC, 0x0806, &arp)
}

/// A UDP datagram of `payload` bytes over IPv4, cut into fragments of at most `most` bytes (a multiple of 8).
pub fn udp_fragments(ends: Ends<'_>, ports: (u16, u16), id: u16, payload: &[u8], most: usize) -> Vec<Vec<u8>> {
    let datagram = udp_datagram(ports, payload);
    let pieces = datagram.chunks(most).count();
    let fragment = |(number, piece): (usize, &[u8])| {
        let more = number + 1 < pieces;
        let field = (number * most / 8) as u16 | if more { 0x2000 } else { 0 };
        ethernet_ip(&ipv4(ends, 17, id, field, piece))
    };
    datagram.chunks(most).enumerate().map(fragment).collect()
}

/// An IPv4 packet in its frame, cut into fragments of at most `most` bytes (a multiple of 8).
pub fn fragments_of(frame: &[u8], id: u16, most: usize) -> Vec<Vec<u8>> {
    let text = |at: usize| frame[at..at + 4].iter().map(u8::to_string).collect::<Vec<_>>().join(".");
    let (src, dst, upper) = (text(26), text(30), &frame[34..]);
    let pieces = upper.chunks(most).count();
    let fragment = |(number, piece): (usize, &[u8])| {
        let more = if number + 1 < pieces { 0x2000 } else { 0 };
        ethernet_ip(&ipv4((&src, &dst), frame[23], id, (number * most / 8) as u16 | more, piece))
    };
    upper.chunks(most).enumerate().map(fragment).collect()
}

/// The same over IPv6, with fragment headers.
pub fn udp_fragments_v6(ends: Ends<'_>, ports: (u16, u16), id: u32, payload: &[u8], most: usize) -> Vec<Vec<u8>> {
    let datagram = udp_datagram(ports, payload);
    let pieces = datagram.chunks(most).count();
    let fragment = |(number, piece): (usize, &[u8])| {
        let mut body = vec![17, 0];
        body.extend_from_slice(&((number * most) as u16 | u16::from(number + 1 < pieces)).to_be_bytes());
        body.extend_from_slice(&id.to_be_bytes());
        body.extend_from_slice(piece);
        ethernet_ip(&ip(ends, 44, &body))
    };
    datagram.chunks(most).enumerate().map(fragment).collect()
}

/// Puts a VLAN tag behind the addresses.
pub fn vlan(frame: &[u8], id: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend_from_slice(&[0x81, 0x00]);
    tagged.extend_from_slice(&id.to_be_bytes());
    tagged.extend_from_slice(&frame[12..]);
    tagged
}

/// A frame inside VXLAN (RFC 7348) between two tunnel ends.
pub fn vxlan(ends: Ends<'_>, vni: u32, inner: &[u8]) -> Vec<u8> {
    let mut payload = vec![8, 0, 0, 0];
    payload.extend_from_slice(&(vni << 8).to_be_bytes());
    payload.extend_from_slice(inner);
    udp(ends, (49_152, 4789), &payload)
}

/// An IP packet (taken out of its frame) inside GRE (RFC 2784).
pub fn gre(ends: Ends<'_>, inner: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 0];
    payload.extend_from_slice(&inner[12..]);
    ethernet_ip(&ip(ends, 47, &payload))
}

/// An IP packet (taken out of its frame) inside GTP-U (3GPP TS 29.281).
pub fn gtp_u(ends: Ends<'_>, teid: u32, inner: &[u8]) -> Vec<u8> {
    let packet = &inner[14..];
    let mut payload = vec![0x30, 0xff];
    payload.extend_from_slice(&(packet.len() as u16).to_be_bytes());
    payload.extend_from_slice(&teid.to_be_bytes());
    payload.extend_from_slice(packet);
    udp(ends, (2152, 2152), &payload)
}

/// An IP packet (taken out of its frame) directly inside another.
pub fn ip_in_ip(ends: Ends<'_>, inner: &[u8]) -> Vec<u8> {
    let protocol = if inner[14] >> 4 == 6 { 41 } else { 4 };
    ethernet_ip(&ip(ends, protocol, &inner[14..]))
}

pub fn ethernet(dst: [u8; 6], src: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend_from_slice(&dst);
    frame.extend_from_slice(&src);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    let len = frame.len().max(60);
    frame.resize(len, 0);
    frame
}

/// An IP packet in a frame, without padding, from client to server.
pub fn ethernet_ip(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
    let mut frame = ethernet(SERVER_MAC, CLIENT_MAC, ethertype, packet);
    frame.truncate(14 + packet.len());
    frame
}

/// An IP packet with its upper-layer checksum filled in.
pub fn ip(ends: Ends<'_>, protocol: u8, upper: &[u8]) -> Vec<u8> {
    let mut upper = upper.to_vec();
    let at = match protocol {
        6 => Some(16),
        17 => Some(6),
        1 | 58 => Some(2),
        _ => None,
    };
    if let Some(at) = at {
        let pseudo = if protocol == 1 { 0 } else { pseudo_sum(ends, protocol, upper.len()) };
        let check = checksum(pseudo + sum(&upper));
        upper[at..at + 2].copy_from_slice(&check.to_be_bytes());
    }
    if is_v6(ends) { ipv6(ends, protocol, &upper) } else { ipv4(ends, protocol, 1, 0x4000, &upper) }
}

pub fn ipv4(ends: Ends<'_>, protocol: u8, id: u16, fragment: u16, upper: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(20 + upper.len() as u16).to_be_bytes());
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0]);
    packet.extend_from_slice(&octets(ends.0));
    packet.extend_from_slice(&octets(ends.1));
    let check = checksum(sum(&packet));
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet.extend_from_slice(upper);
    packet
}

fn ipv6(ends: Ends<'_>, protocol: u8, upper: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(upper.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[protocol, 64]);
    packet.extend_from_slice(&octets(ends.0));
    packet.extend_from_slice(&octets(ends.1));
    packet.extend_from_slice(upper);
    packet
}

fn tcp_segment(ports: (u16, u16), flags: u8, numbers: (u32, u32), payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend_from_slice(&ports.0.to_be_bytes());
    segment.extend_from_slice(&ports.1.to_be_bytes());
    segment.extend_from_slice(&numbers.0.to_be_bytes());
    segment.extend_from_slice(&numbers.1.to_be_bytes());
    segment.extend_from_slice(&[5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    segment
}

fn udp_datagram(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend_from_slice(&ports.0.to_be_bytes());
    datagram.extend_from_slice(&ports.1.to_be_bytes());
    datagram.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    datagram
}

pub fn is_v6(ends: Ends<'_>) -> bool {
    ends.0.contains(':')
}

pub fn octets(address: &str) -> Vec<u8> {
    match address.parse().expect("an address") {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub fn pseudo_sum(ends: Ends<'_>, protocol: u8, len: usize) -> u64 {
    sum(&octets(ends.0)) + sum(&octets(ends.1)) + u64::from(protocol) + len as u64
}

/// Sum of 16-bit words.
pub fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|w| u64::from(w[0]) * 256 + u64::from(w.get(1).copied().unwrap_or(0))).sum()
}

/// Internet checksum (RFC 1071).
pub fn checksum(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
