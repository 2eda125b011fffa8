//! TCP (RFC 9293), UDP (RFC 768), SCTP (RFC 9260), ICMP (RFC 792) and ICMPv6 (RFC 4443).

use super::cursor::{be16, be32};
use super::drop::Malformed;
use super::ip::OFFLOADED;
use super::walk::{Next, Transport, Visit, Walk};

/// TCP header with its options.
#[inline]
pub(super) fn tcp<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let head = match walk.cursor.peek::<20>(Malformed::TcpShort) {
        Ok(head) => head,
        Err(reason) => return cut_after_ports(walk, sink, reason, true),
    };
    sink.transport(Transport::Tcp {
        src: be16(head, 0),
        dst: be16(head, 2),
        flags: head[13],
        seq: be32(head, 4),
        ack: be32(head, 8),
        window: be16(head, 14),
    });
    let header_len = usize::from(head[12] >> 4) * 4;
    if header_len < 20 {
        return Err(Malformed::TcpOffset);
    }
    // Options of a first fragment may go on in the next one.
    if walk.fragment && header_len > walk.cursor.left() {
        return Ok(Next::Stop);
    }
    walk.cursor.skip(header_len, Malformed::TcpOffset)?;
    if header_len > 20 {
        options(walk.cursor.passed(header_len - 20), sink);
    }
    payload(walk, sink);
    Ok(Next::Stop)
}

/// Options of a TCP header (RFC 9293, RFC 7323, RFC 2018).
#[inline]
fn options<V: Visit>(bytes: &[u8], sink: &mut V) {
    // PERF: what nearly every segment has is passed over: two fillers and a time stamp (RFC 7323, appendix A).
    if bytes.len() == 12 && bytes.starts_with(&[1, 1, 8, 10]) {
        return;
    }
    let (mut scale, mut sack, mut at) = (None, false, 0);
    while let Some(kind) = bytes.get(at).filter(|kind| **kind != 0) {
        let len = match (kind, bytes.get(at + 1)) {
            (1, _) => 1,
            (_, Some(len)) if *len >= 2 => usize::from(*len),
            _ => break,
        };
        match (kind, len) {
            (3, 3) => scale = bytes.get(at + 2).copied(),
            (5, 10..) => sack = true,
            _ => {}
        }
        at += len;
    }
    sink.tcp_options(scale, sack);
}

/// UDP header; tunnels over UDP follow by port.
#[inline]
pub(super) fn udp<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let on_wire = walk.cursor.left();
    let head = match walk.cursor.take::<8>(Malformed::UdpShort) {
        Ok(head) => head,
        Err(reason) => return cut_after_ports(walk, sink, reason, false),
    };
    let (src, dst, length) = (be16(head, 0), be16(head, 2), be16(head, 4));
    sink.transport(Transport::Udp { src, dst, length });
    let length = if length == 0 && on_wire > OFFLOADED { on_wire } else { usize::from(length) };
    // The length counts the whole datagram, of which a fragment is a part.
    if length < 8 || (length > on_wire && !walk.fragment) {
        return Err(Malformed::UdpLength);
    }
    walk.cursor.limit(length - 8);
    payload(walk, sink);
    Ok(Next::UdpPayload { src, dst })
}

/// SCTP common header; its chunks are payload.
pub(super) fn sctp<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let head = match walk.cursor.take::<12>(Malformed::SctpShort) {
        Ok(head) => head,
        Err(reason) => return cut_after_ports(walk, sink, reason, false),
    };
    sink.transport(Transport::Sctp { src: be16(head, 0), dst: be16(head, 2) });
    payload(walk, sink);
    Ok(Next::Stop)
}

/// ICMP: eight bytes in every message.
pub(super) fn icmp<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let [kind, code] = *walk.cursor.peek::<2>(Malformed::IcmpShort)?;
    let head = walk.cursor.take::<8>(Malformed::IcmpShort);
    let id = head.ok().filter(|_| matches!(kind, 0 | 8)).map(|head| be16(head, 4));
    sink.transport(Transport::Icmp { kind, code, id });
    head?;
    payload(walk, sink);
    quoted(walk, sink, matches!(kind, 3 | 4 | 5 | 11 | 12), Next::Ipv4)
}

/// ICMPv6: four bytes, or eight where there is an identifier or a quoted packet.
pub(super) fn icmpv6<V: Visit>(walk: &mut Walk<'_>, sink: &mut V) -> Result<Next, Malformed> {
    let [kind, code, ..] = *walk.cursor.peek::<2>(Malformed::IcmpShort)?;
    let is_echo = matches!(kind, 128 | 129);
    let is_error = matches!(kind, 1..=4);
    let head = if is_echo || is_error {
        walk.cursor.take::<8>(Malformed::IcmpShort).map(|head| Some(be16(head, 4)))
    } else {
        walk.cursor.take::<4>(Malformed::IcmpShort).map(|_| None)
    };
    let id = head.ok().flatten().filter(|_| is_echo);
    sink.transport(Transport::Icmpv6 { kind, code, id });
    head?;
    payload(walk, sink);
    quoted(walk, sink, is_error, Next::Ipv6)
}

/// The packet an error quotes, for those who want it.
fn quoted<V: Visit>(walk: &mut Walk<'_>, sink: &mut V, is_error: bool, next: Next) -> Result<Next, Malformed> {
    if !V::QUOTED || !is_error || walk.fragment || walk.cursor.left() == 0 {
        return Ok(Next::Stop);
    }
    walk.quote()?;
    sink.quoted();
    Ok(next)
}

/// Ports are the first four bytes of TCP, UDP and SCTP: worth keeping when the rest is missing.
#[cold]
fn cut_after_ports<V: Visit>(
    walk: &mut Walk<'_>,
    sink: &mut V,
    reason: Malformed,
    is_tcp: bool,
) -> Result<Next, Malformed> {
    let ports = walk.cursor.peek::<4>(reason)?;
    let seq = walk.cursor.peek::<8>(reason).ok().filter(|_| is_tcp).map(|head| be32(head, 4));
    sink.transport(Transport::Ports { src: be16(ports, 0), dst: be16(ports, 2), seq });
    Err(reason)
}

#[inline]
fn payload<V: Visit>(walk: &Walk<'_>, sink: &mut V) {
    sink.payload(walk.cursor.at(), u32::try_from(walk.cursor.left()).unwrap_or(u32::MAX));
}
