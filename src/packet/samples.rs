//! Frames for the tests of this folder, built header by header.

/// Ethernet II with fixed addresses.
pub(super) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// VLAN tag: what follows the EtherType that announced it.
pub(super) fn vlan(id: u16, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), &ethertype.to_be_bytes(), payload].concat()
}

/// IPv4 without options, whole, from 10.0.0.1 to 10.0.0.2.
pub(super) fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    v4_fragment(protocol, 0, payload)
}

/// As [`v4`], with the flags and offset field as given, id 0x1234.
pub(super) fn v4_fragment(protocol: u8, position: u16, payload: &[u8]) -> Vec<u8> {
    let [t0, t1] = (20 + payload.len() as u16).to_be_bytes();
    let [p0, p1] = position.to_be_bytes();
    let head = [0x45, 0, t0, t1, 0x12, 0x34, p0, p1, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&head[..], payload].concat()
}

/// IPv4 without options, whole, with this id.
pub(super) fn v4_between(id: u8, src: [u8; 4], dst: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [t0, t1] = (20 + payload.len() as u16).to_be_bytes();
    [&[0x45, 0, t0, t1, 0, id, 0, 0, 64, protocol, 0, 0][..], &src, &dst, payload].concat()
}

/// IPv6 from 2001:db8::1 to 2001:db8::2.
pub(super) fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = (payload.len() as u16).to_be_bytes();
    let mut head = vec![0x60, 0, 0, 0, l0, l1, next, 63];
    for last in [1, 2] {
        head.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    head.extend(payload);
    head
}

/// TCP SYN without options.
pub(super) fn tcp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let ports = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    [&ports[..], &[0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x02, 1, 0, 0, 0, 0, 0], payload].concat()
}

pub(super) fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len() as u16).to_be_bytes();
    [&src.to_be_bytes(), &dst.to_be_bytes(), &length, &[0, 0][..], payload].concat()
}

/// ICMP or ICMPv6 of eight bytes and a payload; the identifier field is 0x4242.
pub(super) fn icmp(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0x42, 0x42, 0, 1], payload].concat()
}

/// GRE version 0 with a key of 77.
pub(super) fn gre(protocol: u16, payload: &[u8]) -> Vec<u8> {
    [&[0x20, 0], &protocol.to_be_bytes()[..], &[0, 0, 0, 77], payload].concat()
}

/// VXLAN in its UDP datagram.
pub(super) fn vxlan(vni: u32, payload: &[u8]) -> Vec<u8> {
    udp(50_000, 4789, &[&[8, 0, 0, 0], &(vni << 8).to_be_bytes()[..], payload].concat())
}
