//! Every layer of a frame, for people: `explain`, tests, packet lists.

use std::net::IpAddr;

use serde::Serialize;

use super::drop::{DropReason, Malformed};
use super::headers::{Arp, Ip};
use super::key::{Mac, ip_addr};
use super::walk::{Transport, Tunnel, Visit, walk};

/// One header of a frame. MAC addresses are text, `52:54:00:12:34:56`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "layer", rename_all = "snake_case")]
pub enum Layer {
    /// `ethertype` is the raw field, which is a length in 802.3 frames.
    Ethernet {
        src: String,
        dst: String,
        ethertype: u16,
    },
    /// `tpid` is the EtherType that announced the tag.
    Vlan {
        tpid: u16,
        id: u16,
    },
    Mpls {
        label: u32,
    },
    /// The Ethernet frame that follows came inside MPLS or a service function header.
    Pseudowire,
    /// A header that only labels the frame: MACsec without encryption (0x88e5), Cisco metadata (0x8909),
    /// service function (0x894f).
    Shim {
        ethertype: u16,
    },
    Pppoe {
        session: u16,
    },
    Arp {
        operation: u16,
        sender_mac: String,
        sender_ip: IpAddr,
        target_mac: String,
        target_ip: IpAddr,
    },
    Ip {
        src: IpAddr,
        dst: IpAddr,
        /// Upper-layer protocol after `extensions`.
        protocol: u8,
        ttl: u8,
        /// Protocol numbers of IPv6 extension headers and AH, in order.
        extensions: Vec<u8>,
        fragment: Option<LayerFragment>,
    },
    /// The start of a TCP, UDP or SCTP header that was cut after its ports.
    Ports {
        src: u16,
        dst: u16,
    },
    /// `flags` as in [`Ip::tcp_flags`].
    Tcp {
        src: u16,
        dst: u16,
        flags: u8,
        seq: u32,
        ack: u32,
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
        #[serde(rename = "type")]
        kind: u8,
        code: u8,
        id: Option<u16>,
    },
    Icmpv6 {
        #[serde(rename = "type")]
        kind: u8,
        code: u8,
        id: Option<u16>,
    },
    Vxlan {
        vni: u32,
    },
    /// `protocol` is an EtherType.
    Geneve {
        vni: u32,
        protocol: u16,
    },
    /// Message 255 carries a packet.
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
    /// All further layers belong to the packet that an ICMP error quotes.
    Quoted,
    /// What a tunnel, pseudowire or ICMP error carries is broken here; the frame itself is not.
    Damaged {
        reason: &'static str,
    },
}

/// See [`super::Fragment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LayerFragment {
    pub id: u32,
    /// In bytes.
    pub offset: u16,
    pub more: bool,
}

/// All layers of a frame in order, and what [`super::parse()`] says of the same bytes. Unlike there,
/// packets quoted by ICMP errors are followed, after a [`Layer::Quoted`].
pub fn layers(frame: &[u8], wire_len: u32) -> (Vec<Layer>, Option<Malformed>) {
    let mut sink = Collect::default();
    let fault = walk(frame, wire_len, &mut sink).err();
    (sink.layers, fault)
}

#[derive(Default)]
struct Collect {
    layers: Vec<Layer>,
    /// Of the IP header that comes next.
    extensions: Vec<u8>,
}

impl Visit for Collect {
    const QUOTED: bool = true;

    fn ethernet(&mut self, src: Mac, dst: Mac, ethertype: u16) {
        self.layers.push(Layer::Ethernet { src: src.to_string(), dst: dst.to_string(), ethertype });
    }

    fn vlan(&mut self, tpid: u16, id: u16) {
        self.layers.push(Layer::Vlan { tpid, id });
    }

    fn mpls(&mut self, label: u32) {
        self.layers.push(Layer::Mpls { label });
    }

    fn pseudowire(&mut self) {
        self.layers.push(Layer::Pseudowire);
    }

    fn shim(&mut self, ethertype: u16) {
        self.layers.push(Layer::Shim { ethertype });
    }

    fn pppoe(&mut self, session: u16) {
        self.layers.push(Layer::Pppoe { session });
    }

    fn arp(&mut self, arp: &Arp) {
        self.layers.push(Layer::Arp {
            operation: arp.operation,
            sender_mac: arp.sender_mac.to_string(),
            sender_ip: ip_addr(4, arp.sender_ip.into()),
            target_mac: arp.target_mac.to_string(),
            target_ip: ip_addr(4, arp.target_ip.into()),
        });
    }

    fn extension(&mut self, protocol: u8) {
        self.extensions.push(protocol);
    }

    fn network(&mut self, ip: &Ip) {
        let fragment = ip.fragment.map(|f| LayerFragment { id: f.id, offset: f.offset, more: f.more });
        self.layers.push(Layer::Ip {
            src: ip_addr(ip.version, ip.src),
            dst: ip_addr(ip.version, ip.dst),
            protocol: ip.protocol,
            ttl: ip.ttl,
            extensions: std::mem::take(&mut self.extensions),
            fragment,
        });
    }

    fn transport(&mut self, transport: Transport) {
        self.layers.push(match transport {
            Transport::Ports { src, dst, .. } => Layer::Ports { src, dst },
            Transport::Tcp { src, dst, flags, seq, ack, .. } => Layer::Tcp { src, dst, flags, seq, ack },
            Transport::Udp { src, dst, length } => Layer::Udp { src, dst, length },
            Transport::Sctp { src, dst } => Layer::Sctp { src, dst },
            Transport::Icmp { kind, code, id } => Layer::Icmp { kind, code, id },
            Transport::Icmpv6 { kind, code, id } => Layer::Icmpv6 { kind, code, id },
        });
    }

    fn payload(&mut self, _offset: u16, _len: u32) {}

    fn tunnel(&mut self, tunnel: Tunnel) {
        self.layers.push(match tunnel {
            Tunnel::Vxlan { vni } => Layer::Vxlan { vni },
            Tunnel::Geneve { vni, protocol } => Layer::Geneve { vni, protocol },
            Tunnel::GtpU { teid, message } => Layer::GtpU { teid, message },
            Tunnel::Gre { version, protocol, key } => Layer::Gre { version, protocol, key },
            Tunnel::Erspan { version, session, vlan } => Layer::Erspan { version, session, vlan },
            Tunnel::IpInIp => Layer::IpInIp,
            Tunnel::SixInFour => Layer::SixInFour,
            Tunnel::Teredo => Layer::Teredo,
        });
    }

    fn quoted(&mut self) {
        self.layers.push(Layer::Quoted);
    }

    fn damaged(&mut self, reason: Malformed) {
        self.layers.push(Layer::Damaged { reason: DropReason::Malformed(reason).name() });
    }
}
