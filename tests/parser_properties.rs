//! What holds for every frame, whole, cut or damaged: no panic, offsets inside the frame, and both
//! views of the parser agree.

use std::net::IpAddr;

use gnomon::packet::{Fragments, Headers, Ip, KeyFrom, Layer, Malformed, layers, parse, subject};
use proptest::collection::vec;
use proptest::prelude::*;

/// Encapsulations that a generated frame is made of, innermost first.
#[derive(Clone, Debug)]
enum Wrap {
    Gre,
    Vxlan(u32),
    Geneve(u32),
    GtpU(u32),
    Ipv4InIpv4,
    Ipv6,
}

fn wrap() -> impl Strategy<Value = Wrap> {
    prop_oneof![
        Just(Wrap::Gre),
        (0u32..1 << 24).prop_map(Wrap::Vxlan),
        (0u32..1 << 24).prop_map(Wrap::Geneve),
        any::<u32>().prop_map(Wrap::GtpU),
        Just(Wrap::Ipv4InIpv4),
        Just(Wrap::Ipv6),
    ]
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2; 6], &[4; 6], &ethertype.to_be_bytes()[..], payload].concat()
}

fn v4(protocol: u8, id: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b] = (20 + payload.len() as u16).to_be_bytes();
    [&[0x45, 0, a, b, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, id, 10, 1, 0, id], payload].concat()
}

fn v6(next: u8, id: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b] = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, a, b, next, 64][..], &[0x20 | id; 16], &[0x30 | id; 16], payload].concat()
}

fn udp(dst: u16, payload: &[u8]) -> Vec<u8> {
    let [a, b] = (8 + payload.len() as u16).to_be_bytes();
    [&[0xc0, 0], &dst.to_be_bytes()[..], &[a, b, 0, 0], payload].concat()
}

/// TCP to `port` inside all the wraps, with the number of tags in front.
fn frame(port: u16, wraps: &[Wrap], tags: usize, payload: &[u8]) -> Vec<u8> {
    let [a, b] = port.to_be_bytes();
    let tcp = [&[1, 2, a, b, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0, 0, 0, 0, 0, 0], payload].concat();
    let mut packet = (4u8, v4(6, 1, &tcp));
    for (level, wrap) in wraps.iter().enumerate() {
        let id = level as u8 + 2;
        let (version, inner) = packet;
        let ethertype = if version == 4 { 0x0800 } else { 0x86dd };
        let vni = |vni: &u32| (vni << 8).to_be_bytes();
        packet = match wrap {
            Wrap::Gre => (4, v4(47, id, &[&[0, 0], &u16::to_be_bytes(ethertype)[..], &inner].concat())),
            Wrap::Vxlan(n) => {
                (4, v4(17, id, &udp(4789, &[&[8, 0, 0, 0], &vni(n)[..], &ethernet(ethertype, &inner)].concat())))
            }
            Wrap::Geneve(n) => {
                (6, v6(17, id, &udp(6081, &[&[0, 0, 0x65, 0x58], &vni(n)[..], &ethernet(ethertype, &inner)].concat())))
            }
            Wrap::GtpU(teid) => {
                let [a, b] = (inner.len() as u16).to_be_bytes();
                (4, v4(17, id, &udp(2152, &[&[0x30, 255, a, b], &teid.to_be_bytes()[..], &inner].concat())))
            }
            Wrap::Ipv4InIpv4 => (4, v4(if version == 4 { 4 } else { 41 }, id, &inner)),
            Wrap::Ipv6 => (6, v6(if version == 4 { 4 } else { 41 }, id, &inner)),
        };
    }
    let mut ethertype = if packet.0 == 4 { 0x0800u16 } else { 0x86dd };
    let mut body = packet.1;
    for id in 0..tags {
        let [a, b] = ethertype.to_be_bytes();
        body = [&[0, id as u8 + 1, a, b], &body[..]].concat();
        ethertype = 0x8100;
    }
    ethernet(ethertype, &body)
}

/// Everything that holds for any bytes. Returns the fault and the headers.
fn check(frame: &[u8], wire_len: u32) -> (Option<Malformed>, Headers) {
    let mut headers = Headers::default();
    let fault = parse(frame, wire_len, &mut headers).err();
    for ip in [&headers.outer, &headers.inner] {
        check_offsets(ip, frame, wire_len);
    }
    let (list, same) = layers(frame, wire_len);
    assert_eq!(fault, same);
    let ips = addresses_and_ports(&list);
    let mut table = Fragments::new(4, 1000);
    for (from, expected) in [(KeyFrom::Outer, ips.first()), (KeyFrom::Inner, ips.last())] {
        let Some(mut subject) = subject(&headers, from) else {
            assert!(expected.is_none());
            continue;
        };
        let ip = *headers.key_ip(from).expect("a subject has an IP header");
        assert_eq!(Some(&(subject.tuple.src_ip(), subject.tuple.dst_ip(), ip.src_port, ip.dst_port)), expected);
        table.resolve(&headers, from, &mut subject, 0);
    }
    (fault, headers)
}

fn check_offsets(ip: &Ip, frame: &[u8], wire_len: u32) {
    if ip.version != 0 {
        assert!(ip.offset < ip.l4_offset && ip.l4_offset <= ip.payload_offset);
        assert!(usize::from(ip.payload_offset) <= frame.len());
        assert!(u32::from(ip.payload_offset) + ip.payload_len <= wire_len);
    }
}

/// Of each IP header in order, quoted ones left out.
fn addresses_and_ports(list: &[Layer]) -> Vec<(IpAddr, IpAddr, u16, u16)> {
    let mut found: Vec<(IpAddr, IpAddr, u16, u16)> = Vec::new();
    for layer in list.iter().take_while(|layer| **layer != Layer::Quoted) {
        match (layer, found.last_mut()) {
            (Layer::Ip { src, dst, .. }, _) => found.push((*src, *dst, 0, 0)),
            (
                Layer::Tcp { src, dst, .. }
                | Layer::Udp { src, dst, .. }
                | Layer::Sctp { src, dst }
                | Layer::Ports { src, dst },
                Some(ip),
            ) => (ip.2, ip.3) = (*src, *dst),
            _ => {}
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn long_names_are_never_longer_than_what_was_captured(bytes in vec(any::<u8>(), 0..400), labels in vec(1usize..=63, 0..6)) {
        let _ = gnomon::packet::long_question(&bytes);
        let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for len in &labels {
            query.push(*len as u8);
            query.extend(std::iter::repeat_n(b'x', *len));
        }
        query.push(0);
        let carried = gnomon::packet::long_question(&query).map_or(0, |question| usize::from(question.carried));
        prop_assert!(carried <= labels.iter().sum());
        prop_assert_eq!(gnomon::packet::long_question(&query[..query.len() - 1]), None);
    }

    #[test]
    fn whole_frames_are_understood_to_the_innermost_header(
        port: u16, wraps in vec(wrap(), 0..=4), tags in 0usize..=3, payload in vec(any::<u8>(), 0..64),
    ) {
        let frame = frame(port, &wraps, tags, &payload);
        let (fault, headers) = check(&frame, frame.len() as u32);
        prop_assert_eq!(fault, None);
        let innermost = headers.key_ip(KeyFrom::Inner).expect("IP");
        prop_assert_eq!((innermost.dst_port, innermost.payload_len as usize), (port, payload.len()));
        prop_assert_eq!(&frame[usize::from(innermost.payload_offset)..], &payload[..]);
        prop_assert_eq!(headers.inner.version != 0, !wraps.is_empty());
        prop_assert_eq!(usize::from(headers.link.vlans.depth), tags);
        let outermost_id = wraps.iter().rev().find_map(|wrap| match wrap {
            Wrap::Vxlan(id) | Wrap::Geneve(id) | Wrap::GtpU(id) => Some(*id),
            _ => None,
        });
        prop_assert_eq!(headers.tunnel_id, outermost_id.unwrap_or(0));
    }

    #[test]
    fn a_cut_at_any_length_is_snapped_or_inside_a_tunnel(
        wraps in vec(wrap(), 0..=4), tags in 0usize..=3, payload in vec(any::<u8>(), 0..8),
    ) {
        let frame = frame(443, &wraps, tags, &payload);
        for cut in 0..frame.len() {
            let (fault, _) = check(&frame[..cut], frame.len() as u32);
            prop_assert!(matches!(fault, None | Some(Malformed::Snapped)), "{fault:?} at {cut}");
            let (fault, _) = check(&frame[..cut], cut as u32);
            prop_assert_ne!(fault, Some(Malformed::Snapped));
        }
    }

    #[test]
    fn damaged_frames_keep_every_invariant(
        wraps in vec(wrap(), 0..=5), tags in 0usize..=4,
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), more in 0u32..3000,
    ) {
        let mut frame = frame(53, &wraps, tags, b"payload");
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        check(&frame, frame.len() as u32 + more);
    }

    #[test]
    fn any_bytes_keep_every_invariant(frame in vec(any::<u8>(), 0..300), more in 0u32..3000) {
        check(&frame, frame.len() as u32 + more);
    }
}
