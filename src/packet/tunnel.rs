//! Tunnels: IP in IP, GRE with ERSPAN, and those over UDP (VXLAN, GENEVE, GTP-U, Teredo).
//!
//! A UDP port only suggests a tunnel. What does not look like its header is left as plain UDP.

use super::cursor::{be16, be32};
use super::drop::Malformed;
use super::link::CISCO_METADATA;
use super::walk::{Next, Tunnel, Visit, Walk};

const VXLAN: u16 = 4789;
const GENEVE: u16 = 6081;
const GTP_U: u16 = 2152;
const TEREDO: u16 = 3544;

const ETHERNET: u16 = 0x6558;
const ERSPAN_I_II: u16 = 0x88be;
const ERSPAN_III: u16 = 0x22eb;
const WCCP: u16 = 0x883e;
/// GTP-U message that carries a packet.
pub(super) const G_PDU: u8 = 255;
const MAX_GTP_EXTENSIONS: usize = 8;

const SHORT: Malformed = Malformed::TunnelShort;

/// Protocol 4 (RFC 2003, RFC 2473) and 41 (RFC 4213, RFC 2473).
pub(super) fn ip_in_ip<V: Visit>(walk: &mut Walk<'_>, sink: &mut V, protocol: u8) -> Result<Next, Malformed> {
    walk.nest()?;
    let is_six_in_four = protocol == 41 && walk.version == 4;
    sink.tunnel(if is_six_in_four { Tunnel::SixInFour } else { Tunnel::IpInIp });
    Ok(if protocol == 4 { Next::Ipv4 } else { Next::Ipv6 })
}

/// GRE (RFC 2784, RFC 2890). Version 1, of PPTP (RFC 2637), is named and left alone.
pub(super) fn gre<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let head = walk.cursor.take::<4>(SHORT)?;
    let (flags, protocol) = (be16(head, 0), be16(head, 2));
    match flags & 7 {
        0 => {}
        1 => {
            sink.tunnel(Tunnel::Gre { version: 1, protocol, key: None });
            return Ok(Next::Stop);
        }
        _ => return Err(Malformed::TunnelVersion),
    }
    let has_sequence = flags & 0x1000 != 0;
    if flags & 0xc000 != 0 {
        walk.cursor.skip(4, SHORT)?;
    }
    let key = if flags & 0x2000 != 0 { Some(be32(walk.cursor.take::<4>(SHORT)?, 0)) } else { None };
    if has_sequence {
        walk.cursor.skip(4, SHORT)?;
    }
    walk.nest()?;
    sink.tunnel(Tunnel::Gre { version: 0, protocol, key });
    // Source routes of RFC 1701 are of variable length and long gone.
    if flags & 0x4000 != 0 {
        return Ok(Next::Stop);
    }
    match protocol {
        ERSPAN_I_II if !has_sequence => {
            sink.tunnel(Tunnel::Erspan { version: 1, session: None, vlan: None });
            Ok(Next::Ethernet)
        }
        ERSPAN_I_II => erspan_two(walk, sink),
        ERSPAN_III => erspan_three(walk, sink),
        WCCP => wccp(walk),
        CISCO_METADATA => cisco_metadata(walk, sink),
        _ => Ok(carried(protocol)),
    }
}

/// Cisco metadata in GRE: the EtherType stands before version, length and security group option.
#[cold]
fn cisco_metadata<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let head = walk.cursor.peek::<8>(SHORT)?;
    if head[2..4] != [1, 1] {
        return Ok(Next::Stop);
    }
    sink.shim(CISCO_METADATA);
    walk.cursor.skip(8, SHORT)?;
    Ok(carried(be16(head, 0)))
}

/// WCCP (draft-wilson-wrec-wccp-v2): version 2 puts four bytes before the IPv4 header, version 1 none.
fn wccp(walk: &mut Walk<'_>) -> Result<Next, Malformed> {
    if walk.cursor.nibble() != Some(4) {
        walk.cursor.skip(4, SHORT)?;
    }
    Ok(by_nibble(walk))
}

/// What GRE and GENEVE carry, by EtherType.
fn carried(protocol: u16) -> Next {
    match protocol {
        ETHERNET => Next::Ethernet,
        0..=1535 => Next::Stop,
        other => Next::EtherType(other),
    }
}

/// ERSPAN type II (draft-foschiano-erspan): eight bytes.
fn erspan_two<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let head = walk.cursor.take::<8>(SHORT)?;
    if head[0] >> 4 != 1 {
        return Err(Malformed::TunnelVersion);
    }
    sink.tunnel(Tunnel::Erspan { version: 2, session: Some(be16(head, 2) & 0x3ff), vlan: Some(be16(head, 0) & 0xfff) });
    Ok(Next::Ethernet)
}

/// ERSPAN type III: twelve bytes, eight more when the last bit says so.
fn erspan_three<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let head = walk.cursor.take::<12>(SHORT)?;
    if head[0] >> 4 != 2 {
        return Err(Malformed::TunnelVersion);
    }
    sink.tunnel(Tunnel::Erspan { version: 3, session: Some(be16(head, 2) & 0x3ff), vlan: Some(be16(head, 0) & 0xfff) });
    if head[11] & 1 != 0 {
        walk.cursor.skip(8, SHORT)?;
    }
    match (be16(head, 10) >> 10) & 0x1f {
        0 => Ok(Next::Ethernet),
        2 => Ok(by_nibble(walk)),
        _ => Ok(Next::Stop),
    }
}

/// Tunnels over UDP, by port. VXLAN and GENEVE send to their port from any; GTP-U and Teredo answer
/// from theirs.
pub(super) fn udp<V: Visit>(walk: &mut Walk<'_>, sink: &mut V, src: u16, dst: u16) -> Result<Next, Malformed> {
    match (src, dst) {
        (_, VXLAN) => vxlan(walk, sink),
        (_, GENEVE) => geneve(walk, sink),
        (_, GTP_U) | (GTP_U, _) => gtp_u(walk, sink),
        (_, TEREDO) | (TEREDO, _) => teredo(walk, sink),
        _ => Ok(Next::Stop),
    }
}

/// VXLAN (RFC 7348): the I flag must be set.
fn vxlan<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let Ok(head) = walk.cursor.take::<8>(SHORT) else { return Ok(Next::Stop) };
    if head[0] & 0x08 == 0 {
        return Ok(Next::Stop);
    }
    walk.nest()?;
    sink.tunnel(Tunnel::Vxlan { vni: be32(head, 4) >> 8 });
    Ok(Next::Ethernet)
}

/// GENEVE (RFC 8926): version 0, options skipped.
fn geneve<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let Ok(head) = walk.cursor.take::<8>(SHORT) else { return Ok(Next::Stop) };
    if head[0] >> 6 != 0 {
        return Ok(Next::Stop);
    }
    let protocol = be16(head, 2);
    walk.nest()?;
    sink.tunnel(Tunnel::Geneve { vni: be32(head, 4) >> 8, protocol });
    walk.cursor.skip(usize::from(head[0] & 0x3f) * 4, SHORT)?;
    Ok(carried(protocol))
}

/// GTP-U (3GPP TS 29.281): version 1, protocol type 1, extension headers skipped.
fn gtp_u<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let Ok(head) = walk.cursor.take::<8>(SHORT) else { return Ok(Next::Stop) };
    let (flags, message) = (head[0], head[1]);
    if flags >> 4 != 3 {
        return Ok(Next::Stop);
    }
    walk.nest()?;
    sink.tunnel(Tunnel::GtpU { teid: be32(head, 4), message });
    walk.cursor.limit(usize::from(be16(head, 2)));
    if flags & 0x07 != 0 {
        let optional = walk.cursor.take::<4>(SHORT)?;
        // The type of the first extension counts only when its flag is set.
        if flags & 0x04 != 0 {
            gtp_extensions(walk, optional[3])?;
        }
    }
    Ok(if message == G_PDU { by_nibble(walk) } else { Next::Stop })
}

/// Each extension: length in units of four bytes, content, type of the next one in its last byte.
fn gtp_extensions(walk: &mut Walk<'_>, mut kind: u8) -> Result<(), Malformed> {
    for _ in 0..MAX_GTP_EXTENSIONS {
        if kind == 0 {
            return Ok(());
        }
        let len = usize::from(walk.cursor.peek::<1>(SHORT)?[0]) * 4;
        if len == 0 {
            return Err(SHORT);
        }
        walk.cursor.skip(len - 1, SHORT)?;
        kind = walk.cursor.take::<1>(SHORT)?[0];
    }
    if kind == 0 { Ok(()) } else { Err(Malformed::TunnelVersion) }
}

/// Teredo (RFC 4380): IPv6 after an optional authentication and an optional origin indication.
fn teredo<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let mut cursor = walk.cursor;
    if let Ok([0, 1, id_len, auth_len]) = cursor.peek::<4>(SHORT)
        && cursor.skip(4 + usize::from(*id_len) + usize::from(*auth_len) + 9, SHORT).is_err()
    {
        return Ok(Next::Stop);
    }
    if let Ok([0, 0, ..]) = cursor.peek::<8>(SHORT) {
        cursor.skip(8, SHORT)?;
    }
    if cursor.nibble() != Some(6) || cursor.peek::<40>(SHORT).is_err() {
        return Ok(Next::Stop);
    }
    walk.nest()?;
    walk.cursor = cursor;
    sink.tunnel(Tunnel::Teredo);
    Ok(Next::Ipv6)
}

/// IP by its version nibble, where nothing else names it.
fn by_nibble(walk: &Walk<'_>) -> Next {
    match walk.cursor.nibble() {
        Some(4) => Next::Ipv4,
        Some(6) => Next::Ipv6,
        _ => Next::Stop,
    }
}
