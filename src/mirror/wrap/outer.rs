//! Outer Ethernet and IP header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{MAX_HEADER, Piece, put16, put32};
use crate::packet::Mac;
use crate::packet::checksum::{fold, words};

/// Between which machines copies travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    pub src_mac: Mac,
    /// Of the collector, or of the next hop to it.
    pub dst_mac: Mac,
    pub vlan: Option<u16>,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Six bits of the traffic class.
    pub dscp: u8,
    pub ttl: u8,
}

const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Copies are never cut on their way unseen; those that are sent in pieces may be cut again.
const DONT_FRAGMENT: u16 = 0x4000;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const IPV6_FRAGMENT_LEN: usize = 8;
const FRAGMENT_HEADER: u8 = 44;

impl Outer {
    /// Writes all but lengths and the IPv4 checksum. Returns where the IP header begins and where it ends.
    pub(super) fn write(&self, protocol: u8, to: &mut [u8; MAX_HEADER]) -> Result<(usize, usize), String> {
        to[..6].copy_from_slice(&self.dst_mac.0);
        to[6..12].copy_from_slice(&self.src_mac.0);
        let mut at = 12;
        if let Some(vlan) = self.vlan {
            put16(to, at, ETHERTYPE_VLAN);
            put16(to, at + 2, vlan & 0xfff);
            at += 4;
        }
        let ip_at = at + 2;
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                put16(to, at, ETHERTYPE_IPV4);
                self.ipv4(src, dst, protocol, &mut to[ip_at..]);
                Ok((ip_at, ip_at + IPV4_LEN))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                put16(to, at, ETHERTYPE_IPV6);
                self.ipv6(src, dst, protocol, &mut to[ip_at..]);
                Ok((ip_at, ip_at + IPV6_LEN))
            }
            (src, dst) => Err(format!("{src} and {dst} are not of one family")),
        }
    }

    fn ipv4(&self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, to: &mut [u8]) {
        to[0] = 0x45;
        to[1] = self.dscp << 2;
        put16(to, 6, DONT_FRAGMENT);
        to[8] = self.ttl;
        to[9] = protocol;
        to[12..16].copy_from_slice(&src.octets());
        to[16..20].copy_from_slice(&dst.octets());
    }

    fn ipv6(&self, src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, to: &mut [u8]) {
        put16(to, 0, 0x6000 | u16::from(self.dscp) << 6);
        to[6] = protocol;
        to[7] = self.ttl;
        to[8..24].copy_from_slice(&src.octets());
        to[24..40].copy_from_slice(&dst.octets());
    }

    /// Length of the IP header of a piece of a copy.
    pub(super) fn piece_header(&self) -> usize {
        if self.src.is_ipv6() { IPV6_LEN + IPV6_FRAGMENT_LEN } else { IPV4_LEN }
    }

    /// Makes the IP header that of a piece; returns its length.
    pub(super) fn finish_piece(&self, piece: &Piece, ip: &mut [u8]) -> usize {
        let more = u16::from(!piece.is_last);
        if self.src.is_ipv6() {
            let protocol = std::mem::replace(&mut ip[6], FRAGMENT_HEADER);
            put16(ip, 4, (IPV6_FRAGMENT_LEN as u32 + piece.len) as u16);
            ip[IPV6_LEN] = protocol;
            ip[IPV6_LEN + 1] = 0;
            put16(ip, IPV6_LEN + 2, piece.offset as u16 | more);
            put32(ip, IPV6_LEN + 4, piece.id);
        } else {
            put16(ip, 2, (IPV4_LEN as u32 + piece.len) as u16);
            put16(ip, 4, piece.id as u16);
            put16(ip, 6, more << 13 | (piece.offset / 8) as u16);
            put16(ip, 10, 0);
            let sum = fold(words(&ip[..IPV4_LEN]));
            put16(ip, 10, sum);
        }
        self.piece_header()
    }

    /// Puts in the length of what follows the IP header, and the checksum; `sum` is that of the rest of the header.
    pub(super) fn finish(&self, after_ip: u32, sum: u32, ip: &mut [u8]) {
        if self.src.is_ipv6() {
            return put16(ip, 4, after_ip as u16);
        }
        let total = (IPV4_LEN as u32 + after_ip) as u16;
        put16(ip, 2, total);
        let sum = sum + u32::from(total);
        let folded = (sum & 0xffff) + (sum >> 16);
        put16(ip, 10, !(((folded & 0xffff) + (folded >> 16)) as u16));
    }
}

/// Of all 16-bit words.
pub(super) fn sum(header: &[u8]) -> u32 {
    header.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum()
}
