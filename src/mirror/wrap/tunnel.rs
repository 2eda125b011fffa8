//! What stands between the outer IP header and the copied frame.

use super::geneve::{self, OPTIONS_LEN};
use super::{Copy, Stream, put16, put32};

/// How copies are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tunnel {
    /// Understood everywhere; says nothing of the copy but its network id.
    Vxlan,
    /// Carries all that is known of the copy, as options.
    Geneve,
    /// Ethernet in GRE with key and sequence number.
    Gre,
    /// Type II: session, VLAN, sequence number.
    Erspan2,
    /// Type III: type II with a timestamp of 100 ns.
    Erspan3,
}

pub(super) const VXLAN_PORT: u16 = 4789;
pub(super) const GENEVE_PORT: u16 = 6081;
pub(super) const PROTOCOL_UDP: u8 = 17;
pub(super) const PROTOCOL_GRE: u8 = 47;
/// Ethernet frames, in GRE and GENEVE.
pub(super) const ETHERNET: u16 = 0x6558;
pub(super) const ERSPAN_2: u16 = 0x88be;
pub(super) const ERSPAN_3: u16 = 0x22eb;
pub(super) const GRE_KEY: u16 = 0x2000;
pub(super) const GRE_SEQUENCE: u16 = 0x1000;
pub(super) const UDP_LEN: usize = 8;
pub(super) const VXLAN_LEN: usize = 8;
pub(super) const GENEVE_LEN: usize = 8;
/// Private ports, RFC 6335; both tunnels ask for them.
const FIRST_SOURCE_PORT: u16 = 0xc000;
/// Lengths of GRE with key and sequence number, and with a sequence number alone.
const GRE_KEYED_LEN: usize = 12;
const GRE_LEN: usize = 8;
const ERSPAN_2_LEN: usize = 8;
const ERSPAN_3_LEN: usize = 12;
/// ERSPAN: the frame keeps its own VLAN tag; the frame was cut.
const ERSPAN_TAG_KEPT: u16 = 3 << 11;
const ERSPAN_CUT: u16 = 1 << 10;
/// ERSPAN III: an Ethernet frame follows, the timestamp counts 100 ns.
const ERSPAN_3_100NS: u16 = 0b01 << 1;
const ERSPAN_3_ETHERNET: u16 = 1 << 15;

impl Tunnel {
    pub const ALL: [(&'static str, Tunnel); 5] = [
        ("vxlan", Tunnel::Vxlan),
        ("geneve", Tunnel::Geneve),
        ("gre", Tunnel::Gre),
        ("erspan2", Tunnel::Erspan2),
        ("erspan3", Tunnel::Erspan3),
    ];

    /// As configurations and reports call it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, tunnel)| *tunnel == self).map_or("", |(name, _)| name)
    }

    /// Largest [`Stream::id`].
    pub fn max_id(self) -> u32 {
        match self {
            Tunnel::Vxlan | Tunnel::Geneve => (1 << 24) - 1,
            Tunnel::Gre => (1 << 24) - 1,
            Tunnel::Erspan2 | Tunnel::Erspan3 => (1 << 10) - 1,
        }
    }

    pub(super) fn check(self, stream: Stream) -> Result<(), String> {
        if stream.id > self.max_id() {
            return Err(format!("{} is too large an id, at most {} are possible", stream.id, self.max_id()));
        }
        Ok(())
    }

    pub(super) fn ip_protocol(self) -> u8 {
        match self {
            Tunnel::Vxlan | Tunnel::Geneve => PROTOCOL_UDP,
            Tunnel::Gre | Tunnel::Erspan2 | Tunnel::Erspan3 => PROTOCOL_GRE,
        }
    }

    /// Writes what all copies of a stream have in common; returns the length of the whole.
    pub(super) fn write(self, stream: Stream, to: &mut [u8]) -> usize {
        match self {
            Tunnel::Vxlan => {
                put16(to, 2, VXLAN_PORT);
                to[UDP_LEN] = 0x08;
                put32(to, UDP_LEN + 4, stream.id << 8);
                UDP_LEN + VXLAN_LEN
            }
            Tunnel::Geneve => {
                put16(to, 2, GENEVE_PORT);
                to[UDP_LEN] = (OPTIONS_LEN / 4) as u8;
                put16(to, UDP_LEN + 2, ETHERNET);
                put32(to, UDP_LEN + 4, stream.id << 8);
                geneve::write(stream, &mut to[UDP_LEN + GENEVE_LEN..]);
                UDP_LEN + GENEVE_LEN + OPTIONS_LEN
            }
            Tunnel::Gre => {
                put16(to, 0, GRE_KEY | GRE_SEQUENCE);
                put16(to, 2, ETHERNET);
                put32(to, 4, stream.id << 8 | u32::from(stream.worker));
                GRE_KEYED_LEN
            }
            Tunnel::Erspan2 => {
                put16(to, 0, GRE_SEQUENCE);
                put16(to, 2, ERSPAN_2);
                put16(to, GRE_LEN, 1 << 12);
                put16(to, GRE_LEN + 2, ERSPAN_TAG_KEPT | stream.id as u16);
                put32(to, GRE_LEN + 4, stream.worker.into());
                GRE_LEN + ERSPAN_2_LEN
            }
            Tunnel::Erspan3 => {
                put16(to, 0, GRE_SEQUENCE);
                put16(to, 2, ERSPAN_3);
                put16(to, GRE_LEN, 2 << 12);
                put16(to, GRE_LEN + 2, stream.id as u16);
                let hardware = u16::from(stream.worker & 0x3f) << 4;
                put16(to, GRE_LEN + 10, ERSPAN_3_ETHERNET | hardware | ERSPAN_3_100NS);
                GRE_LEN + ERSPAN_3_LEN
            }
        }
    }

    /// Puts in what is this copy's own. `len` is that of all after the outer IP header.
    pub(super) fn finish(self, copy: &Copy, len: u32, to: &mut [u8]) {
        match self {
            Tunnel::Vxlan | Tunnel::Geneve => {
                put16(to, 0, FIRST_SOURCE_PORT | (copy.flow_hash >> 48) as u16);
                // The checksum stays zero, which IPv6 tunnels may do as well (RFC 6935).
                put16(to, 4, len as u16);
                if self == Tunnel::Geneve {
                    geneve::finish(copy, &mut to[UDP_LEN + GENEVE_LEN..]);
                }
            }
            Tunnel::Gre => put32(to, 8, copy.sequence),
            Tunnel::Erspan2 => {
                put32(to, 4, copy.sequence);
                erspan(copy, &mut to[GRE_LEN..]);
            }
            Tunnel::Erspan3 => {
                put32(to, 4, copy.sequence);
                erspan(copy, &mut to[GRE_LEN..]);
                put32(to, GRE_LEN + 4, (copy.clock_ns / 100) as u32);
            }
        }
    }
}

/// VLAN, and whether the frame was cut: in the same place in both types.
fn erspan(copy: &Copy, to: &mut [u8]) {
    to[0] |= (copy.vlan >> 8) as u8 & 0x0f;
    to[1] = copy.vlan as u8;
    if copy.len < copy.original_len {
        to[2] |= (ERSPAN_CUT >> 8) as u8;
    }
}
