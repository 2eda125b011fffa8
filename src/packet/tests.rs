//! Frames built by hand, through parser, layers and subject.

use super::samples::{ethernet, gre, icmp, tcp, udp, v4, v4_fragment, v6, vlan, vxlan};
use super::*;

fn read(frame: &[u8]) -> (Headers, Option<Malformed>) {
    read_cut(frame, frame.len())
}

/// The first `captured` bytes of a frame, with the frame's length on the wire.
fn read_cut(frame: &[u8], captured: usize) -> (Headers, Option<Malformed>) {
    let mut headers = Headers::default();
    let fault = parse(&frame[..captured], frame.len() as u32, &mut headers).err();
    assert_eq!(layers(&frame[..captured], frame.len() as u32).1, fault);
    (headers, fault)
}

fn v4_frame(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(0x0800, &v4(protocol, payload))
}

#[test]
fn plain_tcp_with_ethernet_padding() {
    let mut frame = v4_frame(6, &tcp(40_000, 443, b"hi"));
    frame.resize(60, 0);
    let (headers, fault) = read(&frame);
    assert_eq!(fault, None);
    let ip = headers.outer;
    assert_eq!((ip.src, ip.dst, ip.src_port, ip.dst_port), (0x0a00_0001, 0x0a00_0002, 40_000, 443));
    assert_eq!((ip.offset, ip.l4_offset, ip.payload_offset, ip.payload_len), (14, 34, 54, 2));
    assert_eq!((ip.tcp_flags, ip.tcp_seq, ip.tcp_ack, ip.ttl), (2, 7, 9, 64));
    assert_eq!((headers.link.ethertype, headers.link.src, headers.inner.version), (0x0800, Mac([2, 0, 0, 0, 0, 1]), 0));
}

#[test]
fn tcp_options_and_window() {
    let with = |options: &[u8]| {
        let mut segment = tcp(40_000, 443, b"");
        segment[12] = 0x50 + ((options.len() as u8 / 4) << 4);
        (segment[14], segment[15]) = (0x12, 0x34);
        let (headers, fault) = read(&v4_frame(6, &[&segment[..], options, b"hi"].concat()));
        assert_eq!((fault, headers.outer.payload_len, headers.outer.tcp_window), (None, 2, 0x1234));
        (headers.outer.tcp_scale, headers.outer.tcp_sack)
    };
    assert_eq!(with(&[]), (None, false));
    assert_eq!(with(&[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]), (Some(7), false));
    assert_eq!(with(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]), (None, false));
    assert_eq!(with(&[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]), (None, true));
    assert_eq!(with(&[0, 3, 3, 7]), (None, false), "nothing after the end of options");
    for broken in [[3, 0, 3, 3], [3, 1, 3, 3], [9, 200, 3, 3], [1, 1, 1, 3], [1, 1, 3, 3]] {
        assert_eq!(with(&broken), (None, false), "{broken:?}");
    }
}

#[test]
fn three_tags_and_no_more() {
    let ip = v4(6, &tcp(1, 2, b""));
    let three = vlan(5, 0x9100, &vlan(6, 0x8100, &vlan(7, 0x0800, &ip)));
    let (headers, fault) = read(&ethernet(0x88a8, &three));
    assert_eq!((fault, headers.link.vlans.as_slice(), headers.link.ethertype), (None, &[5, 6, 7][..], 0x0800));
    assert_eq!(headers.outer.dst_port, 2);
    let four = vlan(5, 0x8100, &vlan(6, 0x8100, &vlan(7, 0x8100, &vlan(8, 0x0800, &ip))));
    let (headers, fault) = read(&ethernet(0x8100, &four));
    assert_eq!((fault, headers.outer.version, headers.link.ethertype), (None, 0, 0x8100));
}

#[test]
fn snap_mpls_pppoe_and_pseudowire() {
    let ip = v4(6, &tcp(1, 2, b""));
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &ip[..]].concat();
    let (headers, _) = read(&ethernet(snap.len() as u16, &snap));
    assert_eq!((headers.link.ethertype, headers.outer.dst_port), (0x0800, 2));

    let (headers, _) = read(&ethernet(0x8847, &[&[0, 0x01, 0x00, 64, 0, 0x02, 0x01, 64], &ip[..]].concat()));
    assert_eq!((headers.link.mpls_label, headers.link.mpls_depth, headers.outer.dst_port), (16, 2, 2));

    let pppoe = [&[0x11, 0, 0, 9, 0, ip.len() as u8 + 2, 0, 0x21], &ip[..]].concat();
    let (headers, _) = read(&ethernet(0x8864, &pppoe));
    assert_eq!((headers.link.ethertype, headers.outer.dst_port), (0x0800, 2));

    let customer = ethernet(0x8100, &vlan(9, 0x0800, &ip));
    let (headers, _) = read(&ethernet(0x8847, &[&[0, 0x01, 0x01, 64, 0, 0, 0, 0], &customer[..]].concat()));
    assert_eq!((headers.outer.dst_port, headers.link.vlans.depth, headers.link.ethertype), (2, 0, 0x8847));
}

#[test]
fn arp_is_read_and_its_cut_form_is_a_fault() {
    let body = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
    let (headers, fault) = read(&ethernet(0x0806, &body));
    let arp = headers.arp.expect("whole");
    assert_eq!((fault, arp.operation, arp.sender_ip, arp.target_ip), (None, 1, 0x0a00_0001, 0x0a00_0002));
    assert_eq!(read(&ethernet(0x0806, &body[..27])).1, Some(Malformed::ArpShort));
}

#[test]
fn extension_chain_ends_at_the_upper_layer() {
    let upper = tcp(1, 2, b"");
    let fragment = [&[6, 0, 0, 1, 0, 0, 0, 5], &upper[..]].concat();
    let destination = [&[44, 0, 1, 4, 0, 0, 0, 0], &fragment[..]].concat();
    let hop_by_hop = [&[60, 0, 1, 4, 0, 0, 0, 0], &destination[..]].concat();
    let frame = ethernet(0x86dd, &v6(0, &hop_by_hop));
    let (headers, fault) = read(&frame);
    assert_eq!((fault, headers.outer.protocol, headers.outer.dst_port, headers.outer.l4_offset), (None, 6, 2, 78));
    assert_eq!(headers.outer.fragment, Some(Fragment { id: 5, offset: 0, more: true }));
    let (list, _) = layers(&frame, frame.len() as u32);
    assert!(matches!(&list[1], Layer::Ip { extensions, .. } if *extensions == [0, 60, 44]));

    let endless = (0..9).fold(upper, |rest, _| [&[60, 0, 1, 4, 0, 0, 0, 0], &rest[..]].concat());
    let (headers, fault) = read(&ethernet(0x86dd, &v6(60, &endless)));
    assert_eq!((fault, headers.outer.version), (Some(Malformed::Ipv6ExtensionChain), 6));
}

#[test]
fn later_fragments_have_no_ports() {
    let (headers, fault) = read(&ethernet(0x0800, &v4_fragment(17, 3, &udp(1, 2, b"data"))));
    assert_eq!((fault, headers.outer.src_port), (None, 0));
    assert!(!subject(&headers, KeyFrom::Outer).expect("IP").ports_known);
    // A first fragment's UDP length is that of the whole datagram.
    let mut datagram = udp(1, 2, b"data");
    datagram[4] = 9;
    let (headers, fault) = read(&ethernet(0x0800, &v4_fragment(17, 0x2000, &datagram)));
    assert_eq!((fault, headers.outer.dst_port, headers.outer.payload_len), (None, 2, 4));
    assert_eq!(read(&v4_frame(17, &datagram)).1, Some(Malformed::UdpLength));
    let overflow = v4_fragment(17, 0x1fff, &[0; 64]);
    assert_eq!(read(&ethernet(0x0800, &overflow)).1, Some(Malformed::FragmentOverflow));
}

#[test]
fn faults_leave_what_was_understood() {
    let mut segment = tcp(7, 8, b"");
    segment[12] = 0x40;
    let (headers, fault) = read(&v4_frame(6, &segment));
    assert_eq!((fault, headers.outer.src, headers.outer.dst_port), (Some(Malformed::TcpOffset), 0x0a00_0001, 8));
    segment[12] = 0xf0;
    assert_eq!(read(&v4_frame(6, &segment)).1, Some(Malformed::TcpOffset));
    let (headers, fault) = read(&v4_frame(6, &segment[..12]));
    assert_eq!((fault, headers.outer.dst_port), (Some(Malformed::TcpShort), 8));

    let mut packet = v4(6, &tcp(7, 8, b""));
    packet[3] += 1;
    let (headers, fault) = read(&ethernet(0x0800, &packet));
    assert_eq!((fault, headers.outer.dst_port), (Some(Malformed::Ipv4TotalLength), 8));
    packet[0] = 0x44;
    assert_eq!(read(&ethernet(0x0800, &packet)).1, Some(Malformed::Ipv4HeaderLength));
    packet[0] = 0x55;
    assert_eq!(read(&ethernet(0x0800, &packet)).1, Some(Malformed::Ipv4Version));
}

#[test]
fn a_cut_by_the_capture_is_named_so() {
    let frame = v4_frame(6, &tcp(7, 8, &[0; 100]));
    for captured in 0..frame.len() {
        let (headers, fault) = read_cut(&frame, captured);
        assert_eq!(fault, (captured < 54).then_some(Malformed::Snapped), "{captured}");
        assert_eq!(headers.outer.version == 4, captured >= 34, "{captured}");
    }
    assert_eq!(read(&frame[..30]).1, Some(Malformed::Ipv4Short));
}

#[test]
fn offloaded_lengths_are_taken_from_the_wire() {
    let mut packet = v4(6, &tcp(7, 8, &[0; 3000]));
    packet[2..4].fill(0);
    let (headers, fault) = read(&ethernet(0x0800, &packet));
    assert_eq!((fault, headers.outer.payload_len), (None, 3000));
    packet.truncate(60);
    assert_eq!(read(&ethernet(0x0800, &packet)).1, Some(Malformed::Ipv4TotalLength));
}

#[test]
fn vxlan_names_the_network_and_the_inner_header() {
    let inner = ethernet(0x8100, &vlan(8, 0x86dd, &v6(58, &icmp(128, b""))));
    let (headers, fault) = read(&ethernet(0x8100, &vlan(3, 0x0800, &v4(17, &vxlan(0x123456, &inner)))));
    assert_eq!((fault, headers.tunnel, headers.tunnel_id), (None, TunnelKind::Vxlan, 0x123456));
    assert_eq!(headers.link.vlans.as_slice(), &[3]);
    let inside = subject(&headers, KeyFrom::Inner).expect("IP");
    assert_eq!((inside.tuple.version, inside.tuple.vni, inside.tuple.vlan), (6, 0x123456, 3));
    assert_eq!((inside.tuple.src_port, inside.tuple.dst_port, inside.icmp), (0x4242, 0x4242, (128, 0)));
    let outside = subject(&headers, KeyFrom::Outer).expect("IP");
    assert_eq!((outside.tuple.dst_port, outside.tuple.vni, outside.tuple.protocol), (4789, 0, 17));
}

#[test]
fn something_else_on_a_tunnel_port_is_plain_udp() {
    for port in [4789, 6081, 2152, 3544] {
        let (headers, fault) = read(&v4_frame(17, &udp(9, port, &[0xf0; 40])));
        assert_eq!((fault, headers.tunnel, headers.outer.dst_port), (None, TunnelKind::None, port));
    }
}

#[test]
fn a_broken_inner_packet_leaves_the_outer_whole() {
    let mut inner = v4(6, &tcp(1, 2, b""));
    inner[32] = 0;
    let (headers, fault) = read(&v4_frame(17, &vxlan(5, &ethernet(0x0800, &inner))));
    assert_eq!((fault, headers.inner.dst_port, headers.tunnel_id), (None, 2, 5));
    inner[0] = 0x75;
    let frame = v4_frame(17, &vxlan(5, &ethernet(0x0800, &inner)));
    let (headers, fault) = read(&frame);
    assert_eq!((fault, headers.inner.version, headers.tunnel), (None, 0, TunnelKind::Vxlan));
    let (list, _) = layers(&frame, frame.len() as u32);
    assert_eq!(list.last(), Some(&Layer::Damaged { reason: "malformed_ipv4_version" }));
    assert_eq!(subject(&headers, KeyFrom::Inner).expect("outer instead").tuple.vni, 0);
}

#[test]
fn geneve_gtp_gre_erspan_and_teredo() {
    let ip = v4(6, &tcp(1, 2, b""));
    let geneve = [&[1, 0, 0x65, 0x58, 0, 0, 9, 0, 1, 2, 3, 4], &ethernet(0x0800, &ip)[..]].concat();
    let extension = [&[0x34, 255, 0, ip.len() as u8 + 8, 0, 0, 0, 6, 0, 0, 0, 0x85, 1, 0, 0, 0], &ip[..]].concat();
    let erspan_two =
        [&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 7, 0, 3, 0, 0, 0, 0], &ethernet(0x0800, &ip)[..]].concat();
    let mut erspan_three =
        vec![0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 7, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    erspan_three.extend(ethernet(0x0800, &ip));
    let erspan_one = [&[0, 0, 0x88, 0xbe], &ethernet(0x0800, &ip)[..]].concat();
    let six = v6(6, &tcp(1, 2, b""));
    let origin = [&[0, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1, 2, 3, 4, 5, 6], &six[..]].concat();
    let cases = [
        (17, udp(9, 6081, &geneve), TunnelKind::Geneve, 9),
        (17, udp(2152, 9, &extension), TunnelKind::GtpU, 6),
        (47, gre(0x0800, &ip), TunnelKind::Gre, 77),
        (47, gre(0x6558, &ethernet(0x0800, &ip)), TunnelKind::Gre, 77),
        (47, erspan_one, TunnelKind::Erspan, 0),
        (47, erspan_two, TunnelKind::Erspan, 3),
        (47, erspan_three, TunnelKind::Erspan, 4),
        (4, ip, TunnelKind::IpInIp, 0),
        (41, six.clone(), TunnelKind::SixInFour, 0),
        (17, udp(3544, 9, &six), TunnelKind::Teredo, 0),
        (17, udp(9, 3544, &origin), TunnelKind::Teredo, 0),
    ];
    for (protocol, payload, kind, id) in cases {
        let (headers, fault) = read(&v4_frame(protocol, &payload));
        assert_eq!((fault, headers.tunnel, headers.tunnel_id, headers.inner.dst_port), (None, kind, id, 2), "{kind:?}");
    }
    assert_eq!(read(&v4_frame(47, &[0, 2, 8, 0])).1, Some(Malformed::TunnelVersion));
    assert_eq!(read(&v4_frame(47, &[0x20, 0, 8, 0])).1, Some(Malformed::TunnelShort));
}

#[test]
fn nesting_is_bounded_and_the_outermost_id_holds() {
    let nested = |depth: usize| (0..depth).fold(v4(6, &tcp(1, 2, b"")), |inner, _| v4(47, &gre(0x0800, &inner)));
    let (headers, fault) = read(&ethernet(0x0800, &nested(4)));
    assert_eq!((fault, headers.inner.dst_port), (None, 2));
    let (headers, fault) = read(&ethernet(0x0800, &nested(5)));
    assert_eq!((fault, headers.inner.protocol), (Some(Malformed::TunnelDepth), 47));

    let inner = vxlan(11, &ethernet(0x0800, &v4(47, &gre(0x0800, &v4(6, &tcp(1, 2, b""))))));
    let (headers, _) = read(&v4_frame(4, &v4(17, &inner)));
    assert_eq!((headers.tunnel, headers.tunnel_id, headers.inner.dst_port), (TunnelKind::Vxlan, 11, 2));
}

#[test]
fn tags_behind_tags_cost_a_bounded_number_of_steps() {
    let unit = [0, 1, 0x00, 0x08, 0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x00];
    let frame = ethernet(0x8100, &unit.repeat(500));
    // The first length field leaves no room for the tag that its payload announces.
    let (list, fault) = layers(&frame, frame.len() as u32);
    assert_eq!(fault, Some(Malformed::VlanShort));
    assert!(list.len() < 100, "{}", list.len());
}

#[test]
fn errors_quote_for_people_only() {
    let quoted = v4(6, &tcp(1, 2, b""));
    let frame = v4_frame(1, &icmp(3, &quoted[..28]));
    let (headers, fault) = read(&frame);
    assert_eq!((fault, headers.inner.version, headers.outer.icmp_type), (None, 0, 3));
    let echo = subject(&headers, KeyFrom::Outer).expect("IP").tuple;
    assert_eq!((echo.src_port, echo.dst_port), (0, 0));
    let (list, _) = layers(&frame, frame.len() as u32);
    assert!(list.contains(&Layer::Quoted) && list.contains(&Layer::Ports { src: 1, dst: 2 }), "{list:?}");
    let json = serde_json::to_value(&list).expect("plain data");
    assert_eq!((&json[0]["layer"], &json[2]["type"]), (&"ethernet".into(), &3.into()));
}

#[test]
fn frames_without_ip_have_no_subject() {
    let (headers, fault) = read(&ethernet(0x88cc, &[0; 46]));
    assert_eq!((fault, subject(&headers, KeyFrom::Outer)), (None, None));
    assert_eq!(read(&[0; 13]).1, Some(Malformed::EthernetShort));
}
