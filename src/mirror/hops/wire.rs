//! What is said and heard on the way to a collector: ARP (RFC 826), neighbour discovery (RFC 4861), echo (RFC 792, 4443), and
//! the first and last packet of a TCP connection (RFC 9293).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::hop::Route;
use crate::packet::checksum::{fold, words};
use crate::packet::{Headers, Mac, ip_addr, parse};

const EVERYBODY: Mac = Mac([0xff; 6]);
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Solicited, and this is what holds now.
const SOLICITED_OVERRIDE: u8 = 0x60;
/// Ethernet's minimum without checksum.
const SHORTEST: usize = 60;
/// Neighbour discovery is for those on the link alone.
const ON_LINK: u8 = 255;
const HOPS: u8 = 64;

/// What a received frame means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody wants to know the MAC address of `wanted`; his own are known from that.
    Question { wanted: IpAddr, from: IpAddr, mac: Mac },
    /// The owner of an address says where he is.
    Here { who: IpAddr, mac: Mac },
    /// An answer to an echo request.
    Echo { from: IpAddr, to: IpAddr, id: u16, number: u16 },
    /// An answer to a SYN: the number that it acknowledges, and whether the connection is accepted.
    Tcp { from: IpAddr, to: IpAddr, ports: (u16, u16), acknowledged: u32, accepted: bool },
}

impl Heard {
    /// What a frame says, and in which VLAN; `None` for everything that is of no interest.
    pub fn of(frame: &[u8]) -> Option<(Option<u16>, Self)> {
        let mut headers = Headers::default();
        parse(frame, frame.len() as u32, &mut headers).ok()?;
        let vlan = headers.link.vlans.as_slice().first().copied().filter(|vlan| *vlan != 0);
        let heard = if headers.arp.is_some() { Self::arp(&headers) } else { Self::ip(frame, &headers) };
        Some((vlan, heard?))
    }

    fn arp(headers: &Headers) -> Option<Self> {
        let arp = headers.arp.as_ref()?;
        let [from, wanted] = [arp.sender_ip, arp.target_ip].map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
        let mac = one_station(arp.sender_mac)?;
        match arp.operation {
            1 if from == wanted => Some(Self::Here { who: from, mac }),
            1 => Some(Self::Question { wanted, from, mac }),
            2 => Some(Self::Here { who: from, mac }),
            _ => None,
        }
    }

    fn ip(frame: &[u8], headers: &Headers) -> Option<Self> {
        let ip = &headers.outer;
        if ip.version == 0 || ip.fragment.is_some() {
            return None;
        }
        let (from, to) = (ip_addr(ip.version, ip.src), ip_addr(ip.version, ip.dst));
        let message = frame.get(usize::from(ip.l4_offset)..)?;
        match (ip.version, ip.protocol, ip.icmp_type) {
            (4, ICMP, 0) | (6, ICMPV6, 129) => {
                let number = u16::from_be_bytes([*message.get(6)?, *message.get(7)?]);
                Some(Self::Echo { from, to, id: ip.icmp_id, number })
            }
            (6, ICMPV6, SOLICITATION) if ip.ttl == ON_LINK => {
                // Whoever looks for a double of himself says no address.
                let mac = link_address(message, 1)?;
                Some(Self::Question { wanted: target(message)?, from, mac })
            }
            (6, ICMPV6, ADVERTISEMENT) if ip.ttl == ON_LINK => Some(Self::Here {
                who: target(message)?,
                mac: link_address(message, 2).or(one_station(headers.link.src))?,
            }),
            (_, TCP, _) if ip.tcp_flags & ACK != 0 => Some(Self::Tcp {
                from,
                to,
                ports: (ip.src_port, ip.dst_port),
                acknowledged: ip.tcp_ack,
                accepted: ip.tcp_flags & (SYN | RST) == SYN,
            }),
            _ => None,
        }
    }
}

/// The answer to somebody who looks for a route's own address.
pub fn answer(route: &Route, heard: &Heard) -> Option<Vec<u8>> {
    let Heard::Question { wanted, from, mac } = *heard else { return None };
    if wanted != route.src {
        return None;
    }
    match (route.src, from) {
        (IpAddr::V4(own), IpAddr::V4(from)) => Some(arp(route, mac, REPLY, own, (mac, from))),
        (IpAddr::V6(own), IpAddr::V6(from)) => {
            let message = neighbour_message(ADVERTISEMENT, SOLICITED_OVERRIDE, own, (2, route.src_mac));
            Some(icmpv6(route, mac, from, ON_LINK, message))
        }
        _ => None,
    }
}

/// Asks for the MAC address of the next hop: him, or everybody.
pub(super) fn question(route: &Route, known: Option<Mac>) -> Vec<u8> {
    match (route.src, route.ask) {
        (IpAddr::V4(own), IpAddr::V4(wanted)) => {
            arp(route, known.unwrap_or(EVERYBODY), REQUEST, own, (Mac::default(), wanted))
        }
        (_, IpAddr::V6(wanted)) => {
            let [.., a, b, c] = wanted.octets();
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from(b) << 8 | u16::from(c));
            let (mac, to) = known.map_or((Mac([0x33, 0x33, 0xff, a, b, c]), group), |mac| (mac, wanted));
            let message = neighbour_message(SOLICITATION, 0, wanted, (1, route.src_mac));
            icmpv6(route, mac, to, ON_LINK, message)
        }
        // The configuration was checked.
        (IpAddr::V6(_), IpAddr::V4(_)) => Vec::new(),
    }
}

/// An echo request to the collector.
pub(super) fn echo(route: &Route, mac: Mac, id: u16, number: u16) -> Vec<u8> {
    let rest = [&id.to_be_bytes()[..], &number.to_be_bytes(), b"gnomon health check"].concat();
    match route.dst {
        IpAddr::V4(_) => {
            let mut message = [&[8, 0, 0, 0][..], &rest].concat();
            let sum = fold(words(&message));
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            ip(route, mac, route.dst, (ICMP, HOPS), &message)
        }
        IpAddr::V6(to) => icmpv6(route, mac, to, HOPS, [&[128, 0, 0, 0][..], &rest].concat()),
    }
}

/// A TCP packet without data to the collector.
pub(super) fn tcp(route: &Route, mac: Mac, ports: (u16, u16), number: u32, accepted: bool) -> Vec<u8> {
    let flags = if accepted { RST } else { SYN };
    let mut segment = [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &number.to_be_bytes(), &[0; 4]].concat();
    segment.extend([0x50, flags, 0x04, 0, 0, 0, 0, 0]);
    let sum = fold(pseudo_header(route.src, route.dst, TCP, segment.len()) + words(&segment));
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(route, mac, route.dst, (TCP, HOPS), &segment)
}

fn arp(route: &Route, to: Mac, operation: u8, own: Ipv4Addr, (mac, wanted): (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = ethernet(route, to, ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(route.src_mac.0.iter().chain(&own.octets()));
    frame.extend(mac.0.iter().chain(&wanted.octets()));
    padded(frame)
}

/// Solicitation or advertisement for an address, with a link-layer address as option.
fn neighbour_message(kind: u8, flags: u8, of: Ipv6Addr, (option, mac): (u8, Mac)) -> Vec<u8> {
    [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &of.octets(), &[option, 1], &mac.0].concat()
}

fn icmpv6(route: &Route, mac: Mac, to: Ipv6Addr, ttl: u8, mut message: Vec<u8>) -> Vec<u8> {
    let sum = fold(pseudo_header(route.src, to.into(), ICMPV6, message.len()) + words(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(route, mac, to.into(), (ICMPV6, ttl), &message)
}

fn ip(route: &Route, mac: Mac, to: IpAddr, (protocol, ttl): (u8, u8), message: &[u8]) -> Vec<u8> {
    match (route.src, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut head = [0x45, 0, 0, 0, 0, 0, 0x40, 0, ttl, protocol, 0, 0].to_vec();
            head[2..4].copy_from_slice(&(20 + message.len() as u16).to_be_bytes());
            head.extend(from.octets().iter().chain(&to.octets()));
            let sum = fold(words(&head));
            head[10..12].copy_from_slice(&sum.to_be_bytes());
            padded([ethernet(route, mac, IPV4), head, message.to_vec()].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let len = (message.len() as u16).to_be_bytes();
            let head = [0x60, 0, 0, 0, len[0], len[1], protocol, ttl];
            let addresses = [from.octets(), to.octets()].concat();
            padded([&ethernet(route, mac, IPV6)[..], &head, &addresses, message].concat())
        }
        // The configuration was checked.
        _ => Vec::new(),
    }
}

fn ethernet(route: &Route, to: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = [to.0, route.src_mac.0].concat();
    if let Some(vlan) = route.vlan {
        frame.extend(VLAN.to_be_bytes().iter().chain(&vlan.to_be_bytes()));
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> u64 {
    let sum = |address: IpAddr| match address {
        IpAddr::V4(address) => words(&address.octets()),
        IpAddr::V6(address) => words(&address.octets()),
    };
    sum(from) + sum(to) + u64::from(protocol) + len as u64
}

/// Not of a group, nor nobody's.
fn one_station(mac: Mac) -> Option<Mac> {
    (mac.0[0] & 1 == 0 && mac != Mac::default()).then_some(mac)
}

/// Whom a solicitation or advertisement is about.
fn target(message: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

/// The link-layer address among the options of such a message.
fn link_address(message: &[u8], kind: u8) -> Option<Mac> {
    let mut options = message.get(24..)?;
    while let [found, len, ..] = *options {
        let len = 8 * usize::from(len);
        if found == kind {
            return one_station(Mac(options.get(2..8)?.try_into().ok()?));
        }
        options = options.get(len..).filter(|_| len > 0)?;
    }
    None
}
