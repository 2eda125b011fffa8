//! The one loop that goes from header to header. What it meets it tells a [`Visit`], chosen at compile
//! time: the fast path keeps a few fields, the slow one every layer.

use super::cursor::Cursor;
use super::drop::Malformed;
use super::headers::{Arp, Ip, TunnelKind};
use super::key::Mac;
use super::{ip, l4, link, tunnel};

/// Encapsulations the walk follows below the first header: tunnels, pseudowires, quoted packets.
pub const MAX_NESTING: u8 = 4;

/// Headers the walk passes, so that no frame costs more. Ordinary frames have under eight, and five nested
/// ones under forty.
const MAX_STEPS: usize = 64;

/// What the walk meets, in frame order. A method left out is information not wanted.
pub(super) trait Visit {
    /// Whether to go into the packets that ICMP errors quote.
    const QUOTED: bool;

    /// `ethertype` is the raw field; [`Visit::ethertype`] follows with what is left after all tags.
    fn ethernet(&mut self, src: Mac, dst: Mac, ethertype: u16);
    /// What the link layer finally carries, once for each link layer.
    fn ethertype(&mut self, _ethertype: u16) {}
    /// `tpid` is the EtherType that announced the tag.
    fn vlan(&mut self, tpid: u16, id: u16);
    fn mpls(&mut self, label: u32);
    /// An Ethernet frame inside MPLS or a service function header follows.
    fn pseudowire(&mut self);
    /// A header between link and network that only labels the frame, by its EtherType.
    fn shim(&mut self, _ethertype: u16) {}
    fn pppoe(&mut self, _session: u16) {}
    fn arp(&mut self, arp: &Arp);
    /// An IPv6 extension header or AH; the [`Visit::network`] it belongs to comes after it.
    fn extension(&mut self, _protocol: u8) {}
    /// An IP header, without what the transport header will add.
    fn network(&mut self, ip: &Ip);
    /// The transport header of the last IP header.
    fn transport(&mut self, transport: Transport);
    /// What the options of that TCP header say: the shift of a window scale option, and whether there are SACK blocks.
    fn tcp_options(&mut self, _scale: Option<u8>, _sack: bool) {}
    /// Where the application bytes of the last IP header start, and how many there were on the wire.
    fn payload(&mut self, offset: u16, len: u32);
    fn tunnel(&mut self, tunnel: Tunnel);
    /// What follows is the packet that an ICMP error quotes.
    fn quoted(&mut self) {}
    /// The walk ends inside a tunnel, pseudowire or quoted packet, for this reason.
    fn damaged(&mut self, _reason: Malformed) {}
}

/// What a transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// The first four bytes of a header that was cut after them, and of TCP the next four if they are there.
    Ports {
        src: u16,
        dst: u16,
        seq: Option<u32>,
    },
    Tcp {
        src: u16,
        dst: u16,
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
    },
    Udp {
        src: u16,
        dst: u16,
        length: u16,
    },
    Sctp {
        src: u16,
        dst: u16,
    },
    /// `id` is the identifier of echo messages.
    Icmp {
        kind: u8,
        code: u8,
        id: Option<u16>,
    },
    Icmpv6 {
        kind: u8,
        code: u8,
        id: Option<u16>,
    },
}

/// What a tunnel header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tunnel {
    Vxlan {
        vni: u32,
    },
    Geneve {
        vni: u32,
        protocol: u16,
    },
    /// Message 255 carries a packet, the others are signalling.
    GtpU {
        teid: u32,
        message: u8,
    },
    Gre {
        version: u8,
        protocol: u16,
        key: Option<u32>,
    },
    /// Type I has neither session nor VLAN.
    Erspan {
        version: u8,
        session: Option<u16>,
        vlan: Option<u16>,
    },
    IpInIp,
    SixInFour,
    Teredo,
}

impl Tunnel {
    pub(super) fn kind(self) -> TunnelKind {
        match self {
            Tunnel::Vxlan { .. } => TunnelKind::Vxlan,
            Tunnel::Geneve { .. } => TunnelKind::Geneve,
            Tunnel::GtpU { .. } => TunnelKind::GtpU,
            Tunnel::Gre { .. } => TunnelKind::Gre,
            Tunnel::Erspan { .. } => TunnelKind::Erspan,
            Tunnel::IpInIp => TunnelKind::IpInIp,
            Tunnel::SixInFour => TunnelKind::SixInFour,
            Tunnel::Teredo => TunnelKind::Teredo,
        }
    }

    /// VNI, TEID, GRE key or ERSPAN session.
    pub(super) fn id(self) -> Option<u32> {
        match self {
            Tunnel::Vxlan { vni } | Tunnel::Geneve { vni, .. } => Some(vni),
            Tunnel::GtpU { teid, .. } => Some(teid),
            Tunnel::Gre { key, .. } => key,
            Tunnel::Erspan { session, .. } => session.map(u32::from),
            Tunnel::IpInIp | Tunnel::SixInFour | Tunnel::Teredo => None,
        }
    }
}

/// What stands at the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Ethernet,
    /// What this EtherType, or 802.3 length, announces.
    EtherType(u16),
    Ipv4,
    Ipv6,
    /// What this IP protocol number announces.
    Upper(u8),
    /// The payload of a UDP datagram between these ports.
    UdpPayload {
        src: u16,
        dst: u16,
    },
    Stop,
}

/// State of one walk.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) cursor: Cursor<'a>,
    /// Version of the last IP header.
    pub(super) version: u8,
    /// The last IP header is that of a fragment, so the transport may exceed it.
    pub(super) fragment: bool,
    nesting: u8,
    quoted: bool,
    fault: Option<Malformed>,
}

impl Walk<'_> {
    /// Goes below the first header. Faults found from here on are not faults of the frame: what a
    /// tunnel carries is not the outer network's business.
    pub(super) fn nest(&mut self) -> Result<(), Malformed> {
        if self.nesting >= MAX_NESTING {
            return Err(Malformed::TunnelDepth);
        }
        self.nesting += 1;
        Ok(())
    }

    /// Goes into the packet that an ICMP error quotes.
    pub(super) fn quote(&mut self) -> Result<(), Malformed> {
        self.quoted = true;
        self.nest()
    }

    /// Notes a fault and goes on. The first one is the result of the walk.
    #[cold]
    pub(super) fn blame<V: Visit>(&mut self, reason: Malformed, sink: &mut V) {
        // Too deep a nest stays a fault of the frame: rules that look at the innermost header could
        // otherwise be evaded by one more header.
        if self.nesting == 0 || (reason == Malformed::TunnelDepth && !self.quoted) {
            self.fault.get_or_insert(reason);
        } else {
            sink.damaged(reason);
        }
    }

    #[inline]
    fn step<V: Visit>(&mut self, next: Next, sink: &mut V) -> Result<Next, Malformed> {
        match next {
            Next::Ethernet => link::ethernet(self, sink),
            Next::EtherType(ethertype) => link::ethertype(self, sink, ethertype),
            Next::Ipv4 => ip::v4(self, sink),
            Next::Ipv6 => ip::v6(self, sink),
            Next::Upper(6) => l4::tcp(self, sink),
            Next::Upper(17) => l4::udp(self, sink),
            Next::Upper(1) => l4::icmp(self, sink),
            Next::Upper(58) => l4::icmpv6(self, sink),
            Next::Upper(132) => l4::sctp(self, sink),
            Next::Upper(protocol @ (4 | 41)) => tunnel::ip_in_ip(self, sink, protocol),
            Next::Upper(47) => tunnel::gre(self, sink),
            Next::UdpPayload { src, dst } => tunnel::udp(self, sink, src, dst),
            Next::Upper(_) | Next::Stop => Ok(Next::Stop),
        }
    }
}

/// Walks `frame` from its Ethernet header, which was `wire_len` bytes long on the wire.
#[inline]
pub(super) fn walk<V: Visit>(frame: &[u8], wire_len: u32, sink: &mut V) -> Result<(), Malformed> {
    let cursor = Cursor::new(frame, wire_len);
    let mut walk = Walk { cursor, version: 0, fragment: false, nesting: 0, quoted: false, fault: None };
    let mut next = Next::Ethernet;
    for _ in 0..MAX_STEPS {
        next = match walk.step(next, sink) {
            Ok(Next::Stop) => break,
            Ok(next) => next,
            Err(reason) => {
                walk.blame(reason, sink);
                break;
            }
        };
    }
    walk.fault.map_or(Ok(()), Err)
}
