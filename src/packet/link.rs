//! Ethernet II, 802.3 with LLC and SNAP, VLAN tags, MPLS, PPPoE sessions, ARP, and what may stand between
//! link and network: MACsec without encryption, service function headers, Cisco metadata.

use super::cursor::{Cursor, be16, be32};
use super::drop::Malformed;
use super::headers::Arp;
use super::key::Mac;
use super::walk::{Next, Visit, Walk};

pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV6: u16 = 0x86dd;
const MPLS: u16 = 0x8847;
const MPLS_UPSTREAM: u16 = 0x8848;
const PPPOE_SESSION: u16 = 0x8864;
const MACSEC: u16 = 0x88e5;
pub(super) const CISCO_METADATA: u16 = 0x8909;
const SERVICE_FUNCTION: u16 = 0x894f;
/// C-tag, S-tag, and the two S-tags from before IEEE 802.1ad.
const VLAN: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];
const MAX_VLANS: usize = 3;
/// Up to here the type field of a frame is the length of its 802.3 payload.
const MAX_LENGTH: u16 = 1500;
const MAX_LABELS: usize = 16;

/// Ethernet II or 802.3 header: 14 bytes.
#[inline]
pub(super) fn ethernet<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let head = walk.cursor.take::<14>(Malformed::EthernetShort)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *head;
    let ethertype = be16(head, 12);
    sink.ethernet(Mac([s0, s1, s2, s3, s4, s5]), Mac([d0, d1, d2, d3, d4, d5]), ethertype);
    Ok(Next::EtherType(ethertype))
}

/// Whatever follows an EtherType or length field, VLAN tags included.
#[inline]
pub(super) fn ethertype<V: Visit>(walk: &mut Walk<'_>, sink: &mut V, ethertype: u16) -> Result<Next, Malformed> {
    let ethertype = if VLAN.contains(&ethertype) { tags(walk, sink, ethertype)? } else { ethertype };
    sink.ethertype(ethertype);
    match ethertype {
        IPV4 => Ok(Next::Ipv4),
        IPV6 => Ok(Next::Ipv6),
        ARP => arp(walk, sink),
        MPLS | MPLS_UPSTREAM => mpls(walk, sink),
        PPPOE_SESSION => pppoe(walk, sink),
        MACSEC => macsec(walk, sink),
        CISCO_METADATA => cisco_metadata(walk, sink),
        SERVICE_FUNCTION => service_function(walk, sink),
        0..=MAX_LENGTH => llc(walk, sink, ethertype),
        _ => Ok(Next::Stop),
    }
}

/// VLAN tags of four bytes each; returns the EtherType after them. A fourth tag is not understood and
/// comes back as the EtherType.
fn tags<V: Visit>(walk: &mut Walk<'_>, sink: &mut V, mut ethertype: u16) -> Result<u16, Malformed> {
    for _ in 0..MAX_VLANS {
        if !VLAN.contains(&ethertype) {
            break;
        }
        sink.ethertype(ethertype);
        let tag = walk.cursor.take::<4>(Malformed::VlanShort)?;
        sink.vlan(ethertype, be16(tag, 0) & 0x0fff);
        ethertype = be16(tag, 2);
    }
    Ok(ethertype)
}

/// IEEE 802.2: SNAP with an EtherType, or IP at its own service access point (RFC 1042, RFC 948).
fn llc<V: Visit>(walk: &mut Walk<'_>, sink: &mut V, length: u16) -> Result<Next, Malformed> {
    walk.cursor.limit(usize::from(length));
    match walk.cursor.peek::<3>(Malformed::EthernetShort) {
        Ok([0xaa, 0xaa, 0x03]) => {}
        Ok([0x06, 0x06, 0x03]) => {
            walk.cursor.skip(3, Malformed::EthernetShort)?;
            sink.ethertype(IPV4);
            return Ok(Next::Ipv4);
        }
        // Another protocol, or nothing at all: both are usual.
        _ => return Ok(Next::Stop),
    }
    let snap = walk.cursor.take::<8>(Malformed::EthernetShort)?;
    let organisation = be32(snap, 2) & 0xff_ffff;
    let ethertype = be16(snap, 6);
    // A length here would start the whole thing over.
    if (organisation == 0 || organisation == 0xf8) && ethertype > MAX_LENGTH {
        return Ok(Next::EtherType(ethertype));
    }
    Ok(Next::Stop)
}

/// MPLS label stack (RFC 3032). What follows carries no type: an IP version nibble is taken for IP,
/// anything else may be an Ethernet pseudowire (RFC 4448).
pub(super) fn mpls<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let mut bottom = false;
    for _ in 0..MAX_LABELS {
        let entry = be32(walk.cursor.take::<4>(Malformed::MplsShort)?, 0);
        sink.mpls(entry >> 12);
        bottom = entry & 0x100 != 0;
        if bottom {
            break;
        }
    }
    if !bottom {
        return Ok(Next::Stop);
    }
    match walk.cursor.nibble() {
        Some(4) => {
            sink.ethertype(IPV4);
            Ok(Next::Ipv4)
        }
        Some(6) => {
            sink.ethertype(IPV6);
            Ok(Next::Ipv6)
        }
        Some(nibble) => pseudowire(walk, sink, nibble),
        None => Ok(Next::Stop),
    }
}

/// An Ethernet frame, with or without a control word, if one of the two places where its EtherType
/// would be holds one that the parser knows.
fn pseudowire<V: Visit>(walk: &mut Walk<'_>, sink: &mut V, nibble: u8) -> Result<Next, Malformed> {
    let known =
        |cursor: &Cursor<'_>| cursor.peek::<14>(Malformed::EthernetShort).is_ok_and(|head| is_known(be16(head, 12)));
    let mut after_word = walk.cursor;
    if nibble == 0 && after_word.skip(4, Malformed::MplsShort).is_ok() && known(&after_word) {
        walk.cursor = after_word;
    } else if nibble == 1 || !known(&walk.cursor) {
        return Ok(Next::Stop);
    }
    walk.nest()?;
    sink.pseudowire();
    Ok(Next::Ethernet)
}

fn is_known(ethertype: u16) -> bool {
    matches!(ethertype, IPV4 | IPV6 | ARP | MPLS | PPPOE_SESSION) || VLAN.contains(&ethertype)
}

/// PPPoE session (RFC 2516): six bytes, then the PPP protocol in one or two.
fn pppoe<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let head = walk.cursor.take::<6>(Malformed::PppoeShort)?;
    if be16(head, 0) != 0x1100 {
        return Ok(Next::Stop);
    }
    sink.pppoe(be16(head, 2));
    walk.cursor.limit(usize::from(be16(head, 4)));
    ppp(walk, sink)
}

/// The protocol field of PPP (RFC 1661), which may be compressed to its odd byte.
pub(super) fn ppp<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let first = walk.cursor.peek::<1>(Malformed::PppoeShort)?[0];
    let protocol = if first & 1 == 1 {
        walk.cursor.skip(1, Malformed::PppoeShort)?;
        u16::from(first)
    } else {
        be16(walk.cursor.take::<2>(Malformed::PppoeShort)?, 0)
    };
    match protocol {
        0x0021 => {
            sink.ethertype(IPV4);
            Ok(Next::Ipv4)
        }
        0x0057 => {
            sink.ethertype(IPV6);
            Ok(Next::Ipv6)
        }
        0x0281 | 0x0283 => mpls(walk, sink),
        _ => Ok(Next::Stop),
    }
}

/// MACsec (IEEE 802.1AE) that only authenticates: a tag of 6 bytes, 14 with a channel identifier.
#[cold]
fn macsec<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let tag = walk.cursor.peek::<6>(Malformed::EthernetShort)?;
    let is_changed = tag[0] & 0x0c != 0;
    if is_changed || tag[0] & 0x80 != 0 {
        return Ok(Next::Stop);
    }
    sink.shim(MACSEC);
    walk.cursor.skip(if tag[0] & 0x20 != 0 { 14 } else { 6 }, Malformed::EthernetShort)?;
    after_shim(walk)
}

/// Cisco metadata: version 1, length 1, one security group option of four bytes, then the EtherType.
#[cold]
fn cisco_metadata<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let head = walk.cursor.peek::<2>(Malformed::EthernetShort)?;
    if *head != [1, 1] {
        return Ok(Next::Stop);
    }
    sink.shim(CISCO_METADATA);
    walk.cursor.skip(6, Malformed::EthernetShort)?;
    after_shim(walk)
}

fn after_shim(walk: &mut Walk<'_>) -> Result<Next, Malformed> {
    let ethertype = be16(walk.cursor.take::<2>(Malformed::EthernetShort)?, 0);
    Ok(if ethertype > MAX_LENGTH { Next::EtherType(ethertype) } else { Next::Stop })
}

/// Network service header (RFC 8300): length in units of four bytes, next protocol of its own numbering.
#[cold]
fn service_function<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let head = walk.cursor.peek::<8>(Malformed::EthernetShort)?;
    if head[0] >> 6 != 0 {
        return Ok(Next::Stop);
    }
    sink.shim(SERVICE_FUNCTION);
    walk.cursor.skip(usize::from(head[1] & 0x3f).max(2) * 4, Malformed::EthernetShort)?;
    match head[3] {
        1 => Ok(Next::EtherType(IPV4)),
        2 => Ok(Next::EtherType(IPV6)),
        3 => {
            walk.nest()?;
            sink.pseudowire();
            Ok(Next::Ethernet)
        }
        5 => Ok(Next::EtherType(MPLS)),
        _ => Ok(Next::Stop),
    }
}

/// ARP (RFC 826) between Ethernet and IPv4; other pairs are left alone.
fn arp<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let kinds = walk.cursor.take::<8>(Malformed::ArpShort)?;
    if kinds[..6] != [0, 1, 8, 0, 6, 4] {
        return Ok(Next::Stop);
    }
    let body = walk.cursor.take::<20>(Malformed::ArpShort)?;
    let [a, b, c, d, e, f, _, _, _, _, g, h, i, j, k, l, ..] = *body;
    sink.arp(&Arp {
        operation: be16(kinds, 6),
        sender_mac: Mac([a, b, c, d, e, f]),
        sender_ip: be32(body, 6),
        target_mac: Mac([g, h, i, j, k, l]),
        target_ip: be32(body, 16),
    });
    Ok(Next::Stop)
}
