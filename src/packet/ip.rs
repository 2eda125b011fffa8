//! IPv4 (RFC 791), IPv6 with its extension headers (RFC 8200), and AH (RFC 4302) in both.

use super::cursor::{Cursor, be16, be32};
use super::drop::Malformed;
use super::headers::{Fragment, Ip};
use super::key::Addr;
use super::walk::{Next, Visit, Walk};

/// A length field of zero in a packet larger than this is one the sender's card was to fill in
/// (segmentation offload) or a jumbogram: the wire length holds.
pub(super) const OFFLOADED: usize = 1500;
const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AH: u8 = 51;
const NO_NEXT: u8 = 59;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// IPv4 header with its options.
#[inline]
pub(super) fn v4<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let offset = walk.cursor.at();
    let on_wire = walk.cursor.left();
    let version = walk.cursor.peek::<1>(Malformed::Ipv4Short)?[0] >> 4;
    if version != 4 {
        return Err(Malformed::Ipv4Version);
    }
    let head = walk.cursor.take::<20>(Malformed::Ipv4Short)?;
    let header_len = usize::from(head[0] & 0x0f) * 4;
    if header_len < 20 {
        return Err(Malformed::Ipv4HeaderLength);
    }
    let total = match usize::from(be16(head, 2)) {
        0 if on_wire > OFFLOADED => on_wire,
        total => total,
    };
    let position = be16(head, 6);
    let fragment =
        Fragment { id: u32::from(be16(head, 4)), offset: (position & 0x1fff) << 3, more: position & 0x2000 != 0 };
    let ip = Ip {
        version: 4,
        src: Addr::from(be32(head, 12)),
        dst: Addr::from(be32(head, 16)),
        protocol: head[9],
        ttl: head[8],
        offset,
        fragment: (position & 0x3fff != 0).then_some(fragment),
        ..Ip::EMPTY
    };
    let rest = check_v4(walk, sink, header_len, total, on_wire);
    upper(walk, sink, ip, rest)
}

/// Lengths of an IPv4 header, its options, and the layer's end. A total length beyond the frame is a
/// fault, yet the ports may still be there.
#[inline]
fn check_v4<V: Visit>(
    walk: &mut Walk<'_>,
    sink: &mut V,
    header_len: usize,
    total: usize,
    on_wire: usize,
) -> Result<(), Malformed> {
    if header_len > on_wire {
        return Err(Malformed::Ipv4HeaderLength);
    }
    if total < header_len {
        return Err(Malformed::Ipv4TotalLength);
    }
    if total > on_wire {
        walk.blame(Malformed::Ipv4TotalLength, sink);
    }
    walk.cursor.skip(header_len - 20, Malformed::Ipv4HeaderLength)?;
    walk.cursor.limit(total - header_len);
    Ok(())
}

/// IPv6 header with its extension headers.
#[inline]
pub(super) fn v6<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let offset = walk.cursor.at();
    let version = walk.cursor.peek::<1>(Malformed::Ipv6Short)?[0] >> 4;
    if version != 6 {
        return Err(Malformed::Ipv6Version);
    }
    let head = walk.cursor.take::<40>(Malformed::Ipv6Short)?;
    let on_wire = walk.cursor.left();
    let next = head[6];
    let length = match usize::from(be16(head, 4)) {
        // RFC 2675: a jumbogram says its length in a hop-by-hop option.
        0 if on_wire > OFFLOADED || next == HOP_BY_HOP => on_wire,
        length => length,
    };
    if length > on_wire {
        walk.blame(Malformed::Ipv6PayloadLength, sink);
    }
    walk.cursor.limit(length);
    let ip =
        Ip { version: 6, src: addr(head, 8), dst: addr(head, 24), protocol: next, ttl: head[7], offset, ..Ip::EMPTY };
    upper(walk, sink, ip, Ok(()))
}

#[inline]
fn addr(head: &[u8; 40], at: usize) -> Addr {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&head[at..at + 16]);
    Addr::from_be_bytes(bytes)
}

/// Follows the extension headers if there are any, reports the header whatever became of it, and says what comes next.
// PERF: inlined down to `report`, for then the header is never put together on the stack: reading back in one piece what
// was written in many costs a tenth of parsing.
#[inline(always)]
fn upper<V: Visit>(
    walk: &mut Walk<'_>,
    sink: &mut V,
    ip: Ip,
    checked: Result<(), Malformed>,
) -> Result<Next, Malformed> {
    if checked.is_ok() && is_extension(ip.version, ip.protocol) {
        return extended(walk, sink, ip);
    }
    report(walk, sink, ip, checked)
}

#[inline(never)]
fn extended<V: Visit>(walk: &mut Walk<'_>, sink: &mut V, mut ip: Ip) -> Result<Next, Malformed> {
    let followed = extensions(&mut walk.cursor, sink, &mut ip);
    report(walk, sink, ip, followed)
}

#[inline(always)]
fn report<V: Visit>(
    walk: &mut Walk<'_>,
    sink: &mut V,
    ip: Ip,
    followed: Result<(), Malformed>,
) -> Result<Next, Malformed> {
    let (at, left) = (walk.cursor.at(), walk.cursor.left());
    let payload_len = u32::try_from(left).unwrap_or(u32::MAX);
    sink.network(&Ip { l4_offset: at, payload_offset: at, payload_len, ..ip });
    followed?;
    walk.version = ip.version;
    walk.fragment = false;
    if let Some(fragment) = ip.fragment {
        walk.fragment = true;
        if usize::from(fragment.offset) + left > usize::from(u16::MAX) {
            walk.blame(Malformed::FragmentOverflow, sink);
        }
        if fragment.offset > 0 {
            return Ok(Next::Stop);
        }
    }
    Ok(if ip.protocol == NO_NEXT { Next::Stop } else { Next::Upper(ip.protocol) })
}

#[inline]
fn is_extension(version: u8, protocol: u8) -> bool {
    match protocol {
        AH => true,
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION | MOBILITY | HIP | SHIM6 => version == 6,
        _ => false,
    }
}

/// Extension headers up to the upper layer or, in a later fragment, up to the fragment header.
fn extensions<V: Visit>(cursor: &mut Cursor<'_>, sink: &mut V, ip: &mut Ip) -> Result<(), Malformed> {
    for _ in 0..MAX_EXTENSIONS {
        let is_later = ip.fragment.is_some_and(|fragment| fragment.offset > 0);
        if is_later || !is_extension(ip.version, ip.protocol) {
            return Ok(());
        }
        let head = cursor.peek::<8>(Malformed::Ipv6ExtensionShort)?;
        let len = match ip.protocol {
            FRAGMENT => 8,
            AH => (usize::from(head[1]) + 2) * 4,
            _ => (usize::from(head[1]) + 1) * 8,
        };
        sink.extension(ip.protocol);
        cursor.skip(len, Malformed::Ipv6ExtensionShort)?;
        if ip.protocol == FRAGMENT {
            let position = be16(head, 2);
            let fragment = Fragment { id: be32(head, 4), offset: position & 0xfff8, more: position & 1 != 0 };
            // RFC 6946: an atomic fragment is a whole packet.
            ip.fragment = (position & 0xfff9 != 0).then_some(fragment);
        }
        ip.protocol = head[0];
    }
    if is_extension(ip.version, ip.protocol) { Err(Malformed::Ipv6ExtensionChain) } else { Ok(()) }
}
