//! What the parser understood of one frame, in a fixed-size value.

use super::key::{Addr, Mac};

/// VLAN identifiers of a frame, outermost first; at most three tags are understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vlans {
    pub ids: [u16; 3],
    pub depth: u8,
}

impl Vlans {
    pub fn as_slice(&self) -> &[u16] {
        &self.ids[..usize::from(self.depth).min(3)]
    }

    /// Outermost id, 0 when untagged.
    pub fn outer(&self) -> u16 {
        self.ids[0]
    }
}

/// Link-layer part of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub src: Mac,
    pub dst: Mac,
    /// EtherType after all tags, labels and PPPoE; for 802.3 frames without SNAP the length field.
    pub ethertype: u16,
    pub vlans: Vlans,
    /// Outermost MPLS label and number of labels.
    pub mpls_label: u32,
    pub mpls_depth: u8,
}

/// Fragment position of an IP packet that is not whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    pub id: u32,
    /// In bytes.
    pub offset: u16,
    pub more: bool,
}

/// One IP header and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// 4 or 6; 0 means "no IP header here".
    pub version: u8,
    pub src: Addr,
    pub dst: Addr,
    /// Upper-layer protocol after extension headers.
    pub protocol: u8,
    pub ttl: u8,
    /// Offset of this IP header in the frame, and of the upper-layer header.
    pub offset: u16,
    pub l4_offset: u16,
    pub fragment: Option<Fragment>,
    /// TCP, UDP, SCTP; else 0.
    pub src_port: u16,
    pub dst_port: u16,
    /// TCP flags byte (FIN 0x01, SYN 0x02, RST 0x04, PSH 0x08, ACK 0x10, URG 0x20, ECE 0x40, CWR 0x80).
    pub tcp_flags: u8,
    pub tcp_seq: u32,
    pub tcp_ack: u32,
    /// As in the header, unscaled.
    pub tcp_window: u16,
    /// Shift of the TCP window scale option.
    pub tcp_scale: Option<u8>,
    /// The TCP header has SACK blocks.
    pub tcp_sack: bool,
    /// ICMP and ICMPv6 type, code, and the echo identifier (0 for other messages).
    pub icmp_type: u8,
    pub icmp_code: u8,
    pub icmp_id: u16,
    /// Offset of the application bytes in the frame and their number on the wire.
    pub payload_offset: u16,
    pub payload_len: u32,
}

impl Ip {
    /// No header.
    pub const EMPTY: Self = Self {
        version: 0,
        src: 0,
        dst: 0,
        protocol: 0,
        ttl: 0,
        offset: 0,
        l4_offset: 0,
        fragment: None,
        src_port: 0,
        dst_port: 0,
        tcp_flags: 0,
        tcp_seq: 0,
        tcp_ack: 0,
        tcp_window: 0,
        tcp_scale: None,
        tcp_sack: false,
        icmp_type: 0,
        icmp_code: 0,
        icmp_id: 0,
        payload_offset: 0,
        payload_len: 0,
    };
}

/// What kind of tunnel encloses the inner header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelKind {
    #[default]
    None,
    Vxlan,
    Geneve,
    GtpU,
    Gre,
    Erspan,
    IpInIp,
    SixInFour,
    Teredo,
}

/// Everything the fast path wants to know of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    pub link: Link,
    /// First IP header; `version == 0` for frames without one.
    pub outer: Ip,
    /// Innermost IP header when tunnelled; `version == 0` when not.
    pub inner: Ip,
    pub tunnel: TunnelKind,
    /// VNI, TEID, GRE key or ERSPAN session of the tunnel around `inner`.
    pub tunnel_id: u32,
    /// ARP sender and target protocol addresses when `link.ethertype` is 0x0806.
    pub arp: Option<Arp>,
}

/// An Ethernet/IPv4 ARP message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arp {
    pub operation: u16,
    pub sender_mac: Mac,
    pub sender_ip: u32,
    pub target_mac: Mac,
    pub target_ip: u32,
}

/// Which header of a tunnelled packet rules and flows look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFrom {
    #[default]
    Outer,
    Inner,
}

impl Default for Ip {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Default for Headers {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Bytes of a frame without IP that count as headers: all of ARP.
const WITHOUT_IP: usize = 64;

impl Headers {
    /// Where the innermost headers that were understood end.
    pub fn end(&self) -> usize {
        let ip = if self.inner.version != 0 { &self.inner } else { &self.outer };
        match ip.version {
            0 => WITHOUT_IP,
            _ => usize::from(ip.payload_offset.max(ip.l4_offset).max(ip.offset)),
        }
    }

    /// Of no frame.
    // PERF: a constant, so that clearing copies from one; what is put together first has to be waited for.
    pub const EMPTY: Self = Self {
        link: Link {
            src: Mac([0; 6]),
            dst: Mac([0; 6]),
            ethertype: 0,
            vlans: Vlans { ids: [0; 3], depth: 0 },
            mpls_label: 0,
            mpls_depth: 0,
        },
        outer: Ip::EMPTY,
        inner: Ip::EMPTY,
        tunnel: TunnelKind::None,
        tunnel_id: 0,
        arp: None,
    };

    /// The IP header that the key is taken from, or `None` for frames without IP.
    pub fn key_ip(&self, from: KeyFrom) -> Option<&Ip> {
        let ip = match from {
            KeyFrom::Inner if self.inner.version != 0 => &self.inner,
            _ => &self.outer,
        };
        (ip.version != 0).then_some(ip)
    }
}
