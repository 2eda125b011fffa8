//! The packet that an ICMP error quotes: which flow the error is about (RFC 792, RFC 4443).

use super::drop::Malformed;
use super::headers::{Arp, Headers, Ip, KeyFrom};
use super::key::Mac;
use super::parse::Fast;
use super::subject::subject;
use super::walk::{Transport, Tunnel, Visit, walk};
use crate::rules::Subject;

/// True of messages that tell a sender what became of its packet. Redirects and source quenches, which quote packets as
/// well, are advice about routes and rates (RFC 6633): nobody who sent something waits for them.
pub fn is_error(ip: &Ip) -> bool {
    match ip.protocol {
        1 => matches!(ip.icmp_type, 3 | 11 | 12),
        58 => matches!(ip.icmp_type, 1..=4),
        _ => false,
    }
}

/// Key header and subject of the packet quoted by the ICMP error in `frame`, as they were on its way: towards what
/// could not be reached. Quotes may end after eight bytes of the upper layer, so only addresses, ports and a TCP
/// sequence number are there for certain. `None` when nothing usable is quoted.
///
/// The frame's VLAN holds for the quote too, and the tunnel that the error came through, if the quote names none.
pub fn quoted(frame: &[u8], wire_len: u32, from: KeyFrom) -> Option<(Ip, Subject)> {
    let mut headers = Headers::default();
    let mut sink = Quote { fast: Fast::new(&mut headers), quotes: 0, within: 0 };
    // What a quote lacks is no fault.
    let _ = walk(frame, wire_len, &mut sink);
    let Quote { quotes, within, .. } = sink;
    if quotes != 1 {
        return None;
    }
    std::mem::swap(&mut headers.link.src, &mut headers.link.dst);
    let mut subject = subject(&headers, from)?;
    if from == KeyFrom::Inner && headers.inner.version == 0 {
        subject.tuple.vni = within;
    }
    Some((*headers.key_ip(from)?, subject))
}

/// As the fast path, beginning anew at the quote.
struct Quote<'a> {
    fast: Fast<'a>,
    quotes: u32,
    /// Of the tunnel around the error.
    within: u32,
}

impl Visit for Quote<'_> {
    const QUOTED: bool = true;

    fn ethernet(&mut self, src: Mac, dst: Mac, ethertype: u16) {
        self.fast.ethernet(src, dst, ethertype);
    }

    fn vlan(&mut self, tpid: u16, id: u16) {
        self.fast.vlan(tpid, id);
    }

    fn mpls(&mut self, label: u32) {
        self.fast.mpls(label);
    }

    fn pseudowire(&mut self) {
        self.fast.pseudowire();
    }

    fn arp(&mut self, _arp: &Arp) {}

    fn network(&mut self, ip: &Ip) {
        self.fast.network(ip);
    }

    fn transport(&mut self, transport: Transport) {
        self.fast.transport(transport);
    }

    fn payload(&mut self, offset: u16, len: u32) {
        self.fast.payload(offset, len);
    }

    fn tunnel(&mut self, tunnel: Tunnel) {
        self.fast.tunnel(tunnel);
    }

    fn quoted(&mut self) {
        self.quotes += 1;
        let headers = &mut *self.fast.headers;
        self.within = if headers.inner.version == 0 { 0 } else { headers.tunnel_id };
        *headers = Headers { link: headers.link, ..Headers::default() };
        self.fast.restart();
    }

    fn damaged(&mut self, _reason: Malformed) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::samples::{ethernet, icmp, tcp, udp, v4, v4_between, v6, vlan, vxlan};

    fn ask(frame: &[u8], from: KeyFrom) -> Option<(Ip, Subject)> {
        quoted(frame, frame.len() as u32, from)
    }

    #[test]
    fn eight_bytes_of_the_upper_layer_are_enough() {
        let lost = v4_between(1, [10, 0, 0, 9], [10, 0, 0, 8], 6, &tcp(40_000, 443, b"request"));
        for length in [28, 32, 40, lost.len()] {
            let error = v4_between(1, [10, 0, 0, 3], [10, 0, 0, 9], 1, &icmp(3, &lost[..length]));
            let (ip, subject) = ask(&ethernet(0x8100, &vlan(7, 0x0800, &error)), KeyFrom::Outer).expect("a quote");
            let tuple = subject.tuple;
            assert_eq!((tuple.src, tuple.dst), (0x0a00_0009, 0x0a00_0008));
            assert_eq!((tuple.src_port, tuple.dst_port, tuple.protocol, tuple.vlan), (40_000, 443, 6, 7));
            assert_eq!((ip.tcp_seq, subject.ports_known), (7, true));
            assert_eq!((subject.src_mac, subject.dst_mac), (Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 1])));
        }
    }

    #[test]
    fn six_echo_and_what_is_no_quote() {
        let error = v6(58, &icmp(1, &v6(17, &udp(5000, 53, b"q"))));
        let (_, subject) = ask(&ethernet(0x86dd, &error), KeyFrom::Outer).expect("a quote");
        assert_eq!((subject.tuple.dst_port, subject.tuple.version, subject.tuple.protocol), (53, 6, 17));

        let (_, subject) =
            ask(&ethernet(0x0800, &v4(1, &icmp(11, &v4(1, &icmp(8, b""))))), KeyFrom::Outer).expect("one");
        assert_eq!((subject.tuple.src_port, subject.icmp), (0x4242, (8, 0)));

        assert!(ask(&ethernet(0x0800, &v4(1, &icmp(8, b"data"))), KeyFrom::Outer).is_none());
        assert!(ask(&ethernet(0x0800, &v4(1, &icmp(3, b"no packet"))), KeyFrom::Outer).is_none());
        let nested = icmp(3, &v4(1, &icmp(3, &v4(17, &udp(1, 2, b"")))));
        assert!(ask(&ethernet(0x0800, &v4(1, &nested)), KeyFrom::Outer).is_none(), "errors about errors do not exist");
    }

    #[test]
    fn tunnels_around_and_inside_the_quote() {
        let inner = v4_between(1, [10, 0, 0, 9], [10, 0, 0, 8], 17, &udp(1000, 53, b"q"));
        let error = v4_between(1, [10, 0, 0, 8], [10, 0, 0, 9], 1, &icmp(3, &inner));
        let tunnelled = ethernet(0x0800, &v4(17, &vxlan(99, &ethernet(0x0800, &error))));
        let (_, subject) = ask(&tunnelled, KeyFrom::Inner).expect("a quote");
        assert_eq!((subject.tuple.vni, subject.tuple.dst_port), (99, 53), "the error's own tunnel");

        let lost = v4(17, &vxlan(98, &ethernet(0x0800, &inner)));
        let underlay = ethernet(0x0800, &v4(1, &icmp(3, &lost)));
        let (_, subject) = ask(&underlay, KeyFrom::Inner).expect("a quote");
        assert_eq!((subject.tuple.vni, subject.tuple.dst_port), (98, 53), "about a tunnelled packet");
        let (_, subject) = ask(&underlay, KeyFrom::Outer).expect("a quote");
        assert_eq!((subject.tuple.vni, subject.tuple.dst_port), (0, 4789));
    }
}
