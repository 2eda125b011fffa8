//! The packet that an ICMP error quotes: which flow the error is about (RFC 792, RFC 4443).

use super::drop::Malformed;
use super::headers::{Arp, Headers, Ip, KeyFrom};
use super::key::{Addr, Mac};
use super::parse::Fast;
use super::spread::fold;
use super::subject::subject;
use super::walk::{Transport, Tunnel, Visit, walk};
use crate::rules::Subject;

/// True of messages that tell a sender what became of its packet. Redirects and source quenches, which quote packets as
/// well, are advice about routes and rates (RFC 6633): nobody who sent something waits for them.
fn is_error(ip: &Ip) -> bool {
    match ip.protocol {
        1 => matches!(ip.icmp_type, 3 | 11 | 12),
        58 => matches!(ip.icmp_type, 1..=4),
        _ => false,
    }
}

/// What is known of the packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quoted {
    /// As it was on its way: towards what could not be reached. Quotes may end after eight bytes of the upper layer, so
    /// only addresses and ports are there for certain.
    pub subject: Subject,
    /// Version and addresses of the outermost header of the quoted packet.
    pub outer: (u8, Addr, Addr),
    /// Of TCP; 0 when the quote ends before it.
    pub tcp_seq: u32,
}

impl Quoted {
    /// A number from 1 on for the quoted addresses, whichever way round: errors of one router to one host about
    /// different pairs of hosts are different flows, because each goes to the worker that owns its pair.
    pub fn mark(&self) -> u16 {
        fold(self.subject.tuple.src, self.subject.tuple.dst).max(1)
    }
}

/// What the packet quotes, if it is an ICMP error by the header that the key is taken from. Fragments of errors, which
/// senders avoid (RFC 1812, 4.3.2.3), go by their own addresses.
#[inline]
pub fn quote_of(headers: &Headers, frame: &[u8], wire_len: u32, from: KeyFrom) -> Option<Quoted> {
    let ip = headers.key_ip(from)?;
    if is_error(ip) && ip.fragment.is_none() && headers.outer.fragment.is_none() {
        quoted(frame, wire_len, from)
    } else {
        None
    }
}

/// What the ICMP error in `frame` quotes. `None` when the frame is malformed, nothing usable is quoted, or the error is not addressed to the
/// sender of what it quotes: then it is no answer to that.
///
/// The frame's VLAN holds for the quote too, and the tunnel that the error came through, if the quote names none.
#[cold]
#[inline(never)]
fn quoted(frame: &[u8], wire_len: u32, from: KeyFrom) -> Option<Quoted> {
    let mut headers = Headers::default();
    let mut sink = Quote { fast: Fast::new(&mut headers), quotes: 0, within: 0, addressee: (0, 0) };
    // What a quote lacks is no fault of the frame.
    walk(frame, wire_len, &mut sink).ok()?;
    let Quote { quotes, within, addressee, .. } = sink;
    if quotes != 1 || addressee != (headers.outer.version, headers.outer.src) {
        return None;
    }
    std::mem::swap(&mut headers.link.src, &mut headers.link.dst);
    let mut subject = subject(&headers, from)?;
    if from == KeyFrom::Inner && headers.inner.version == 0 {
        subject.tuple.vni = within;
    }
    let outer = (headers.outer.version, headers.outer.src, headers.outer.dst);
    Some(Quoted { subject, outer, tcp_seq: headers.key_ip(from)?.tcp_seq })
}

/// As the fast path, beginning anew at the quote.
struct Quote<'a> {
    fast: Fast<'a>,
    quotes: u32,
    /// Of the tunnel around the error.
    within: u32,
    /// Version and address of whom the error is for.
    addressee: (u8, Addr),
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
        let is_inner = headers.inner.version != 0;
        self.within = if is_inner { headers.tunnel_id } else { 0 };
        let error = if is_inner { &headers.inner } else { &headers.outer };
        self.addressee = (error.version, error.dst);
        *headers = Headers { link: headers.link, ..Headers::default() };
        self.fast.restart();
    }

    fn damaged(&mut self, _reason: Malformed) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::samples::{ethernet, icmp, tcp, udp, v4, v4_between, v6, vlan, vxlan};

    fn ask(frame: &[u8], from: KeyFrom) -> Option<(u32, Subject)> {
        let mut headers = Headers::default();
        assert_eq!(super::super::parse(frame, frame.len() as u32, &mut headers), Ok(()));
        quote_of(&headers, frame, frame.len() as u32, from).map(|quoted| (quoted.tcp_seq, quoted.subject))
    }

    /// IPv4 from 10.0.0.2 to 10.0.0.1: what answers [`v4`].
    fn back4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        v4_between(1, [10, 0, 0, 2], [10, 0, 0, 1], protocol, payload)
    }

    /// IPv6 from 2001:db8::9 to 2001:db8::1: what a router says to the sender of [`v6`].
    fn router6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = v6(next, payload);
        (packet[23], packet[39]) = (9, 1);
        packet
    }

    #[test]
    fn eight_bytes_of_the_upper_layer_are_enough() {
        let lost = v4_between(1, [10, 0, 0, 9], [10, 0, 0, 8], 6, &tcp(40_000, 443, b"request"));
        for length in [28, 32, 40, lost.len()] {
            let error = v4_between(1, [10, 0, 0, 3], [10, 0, 0, 9], 1, &icmp(3, &lost[..length]));
            let (seq, subject) = ask(&ethernet(0x8100, &vlan(7, 0x0800, &error)), KeyFrom::Outer).expect("a quote");
            let tuple = subject.tuple;
            assert_eq!((tuple.src, tuple.dst), (0x0a00_0009, 0x0a00_0008));
            assert_eq!((tuple.src_port, tuple.dst_port, tuple.protocol, tuple.vlan), (40_000, 443, 6, 7));
            assert_eq!((seq, subject.ports_known), (7, true));
            assert_eq!((subject.src_mac, subject.dst_mac), (Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 1])));
        }
    }

    #[test]
    fn six_echo_and_what_is_no_quote() {
        let error = router6(58, &icmp(1, &v6(17, &udp(5000, 53, b"q"))));
        let (_, subject) = ask(&ethernet(0x86dd, &error), KeyFrom::Outer).expect("a quote");
        assert_eq!((subject.tuple.dst_port, subject.tuple.version, subject.tuple.protocol), (53, 6, 17));

        let (_, subject) =
            ask(&ethernet(0x0800, &back4(1, &icmp(11, &v4(1, &icmp(8, b""))))), KeyFrom::Outer).expect("one");
        assert_eq!((subject.tuple.src_port, subject.icmp), (0x4242, (8, 0)));

        assert!(ask(&ethernet(0x0800, &v4(1, &icmp(8, b"data"))), KeyFrom::Outer).is_none());
        assert!(ask(&ethernet(0x0800, &v4(1, &icmp(3, b"no packet"))), KeyFrom::Outer).is_none());
        let nested = icmp(3, &v4(1, &icmp(3, &back4(17, &udp(1, 2, b"")))));
        assert!(
            ask(&ethernet(0x0800, &back4(1, &nested)), KeyFrom::Outer).is_none(),
            "errors about errors do not exist"
        );
        let foreign = v4(1, &icmp(3, &v4(17, &udp(1, 2, b""))));
        assert!(ask(&ethernet(0x0800, &foreign), KeyFrom::Outer).is_none(), "not for who sent that");
    }

    #[test]
    fn tunnels_around_and_inside_the_quote() {
        let inner = v4_between(1, [10, 0, 0, 9], [10, 0, 0, 8], 17, &udp(1000, 53, b"q"));
        let error = v4_between(1, [10, 0, 0, 8], [10, 0, 0, 9], 1, &icmp(3, &inner));
        let tunnelled = ethernet(0x0800, &v4(17, &vxlan(99, &ethernet(0x0800, &error))));
        let (_, subject) = ask(&tunnelled, KeyFrom::Inner).expect("a quote");
        assert_eq!((subject.tuple.vni, subject.tuple.dst_port), (99, 53), "the error's own tunnel");

        let lost = v4(17, &vxlan(98, &ethernet(0x0800, &inner)));
        let underlay = ethernet(0x0800, &back4(1, &icmp(3, &lost)));
        let (_, subject) = ask(&underlay, KeyFrom::Inner).expect("a quote");
        assert_eq!((subject.tuple.vni, subject.tuple.dst_port), (98, 53), "about a tunnelled packet");
        let (_, subject) = ask(&underlay, KeyFrom::Outer).expect("a quote");
        assert_eq!((subject.tuple.vni, subject.tuple.dst_port), (0, 4789));
    }
}
