//! A received frame → the copy in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::geneve::{self, Detail};
use super::tunnel::{
    ERSPAN_2, ERSPAN_3, ETHERNET, GENEVE_LEN, GENEVE_PORT, GRE_KEY, GRE_SEQUENCE, PROTOCOL_GRE, PROTOCOL_UDP, UDP_LEN,
    VXLAN_LEN, VXLAN_PORT,
};
use super::{Stream, Tunnel, get16, get32};

/// IPv6 extension header of a fragment.
const FRAGMENT_HEADER: u8 = 44;

/// A copy as it came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wrapped<'a> {
    pub tunnel: Tunnel,
    pub from: IpAddr,
    pub to: IpAddr,
    pub stream: Stream,
    /// `None` in VXLAN, and in GRE without one.
    pub sequence: Option<u32>,
    /// What GENEVE tells of the packet.
    pub detail: Option<Detail>,
    pub frame: &'a [u8],
}

/// Whose numbers copies have: sender, collector, tunnel, session and worker.
pub type Origin = (IpAddr, IpAddr, Tunnel, Stream);

impl Wrapped<'_> {
    pub fn origin(&self) -> Origin {
        (self.from, self.to, self.tunnel, self.stream)
    }
}

/// Why a frame holds no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWrapped {
    #[error("neither VXLAN, GENEVE, GRE nor ERSPAN")]
    Other,
    #[error("a fragment, which nobody put together")]
    Fragment,
    #[error("cut short, or with an impossible length")]
    Short,
}

/// Takes off the envelope of a frame. Reads any of the tunnels, whoever made them.
///
/// # Errors
/// When there is none.
pub fn unwrap(frame: &[u8]) -> Result<Wrapped<'_>, NotWrapped> {
    let mut at = 12;
    let mut ethertype = get16(frame, at).ok_or(NotWrapped::Short)?;
    while matches!(ethertype, 0x8100 | 0x88a8) {
        at += 4;
        ethertype = get16(frame, at).ok_or(NotWrapped::Short)?;
    }
    let ip = &frame[at + 2..];
    let (ends, protocol, rest) = match ethertype {
        0x0800 => ipv4(ip)?,
        0x86dd => ipv6(ip)?,
        _ => return Err(NotWrapped::Other),
    };
    let copy = match protocol {
        FRAGMENT_HEADER => return Err(NotWrapped::Fragment),
        PROTOCOL_UDP => udp(ends, rest),
        PROTOCOL_GRE => gre(ends, rest),
        _ => return Err(NotWrapped::Other),
    };
    copy?.ok_or(NotWrapped::Short)
}

/// Source and destination of the outer packet.
type Ends = (IpAddr, IpAddr);
type Ip<'a> = (Ends, u8, &'a [u8]);

fn ipv4(ip: &[u8]) -> Result<Ip<'_>, NotWrapped> {
    let head: &[u8; 20] = ip.first_chunk().ok_or(NotWrapped::Short)?;
    let (header, total) = (usize::from(head[0] & 0xf) * 4, usize::from(u16::from_be_bytes([head[2], head[3]])));
    if u16::from_be_bytes([head[6], head[7]]) & 0x3fff != 0 {
        return Err(NotWrapped::Fragment);
    }
    let rest = ip.get(header..total).filter(|_| header >= 20).ok_or(NotWrapped::Short)?;
    let [from, to] = [12, 16].map(|at| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]).into());
    Ok(((from, to), head[9], rest))
}

fn ipv6(ip: &[u8]) -> Result<Ip<'_>, NotWrapped> {
    let head: &[u8; 40] = ip.first_chunk().ok_or(NotWrapped::Short)?;
    let total = 40 + usize::from(u16::from_be_bytes([head[4], head[5]]));
    let (mut from, mut to) = ([0; 16], [0; 16]);
    from.copy_from_slice(&head[8..24]);
    to.copy_from_slice(&head[24..40]);
    let ends = (Ipv6Addr::from(from).into(), Ipv6Addr::from(to).into());
    Ok((ends, head[6], ip.get(40..total).ok_or(NotWrapped::Short)?))
}

fn udp(ends: Ends, udp: &[u8]) -> Result<Option<Wrapped<'_>>, NotWrapped> {
    match get16(udp, 2) {
        Some(VXLAN_PORT) => Ok(vxlan(ends, &udp[UDP_LEN.min(udp.len())..])),
        Some(GENEVE_PORT) => Ok(geneve(ends, &udp[UDP_LEN.min(udp.len())..])),
        _ => Err(NotWrapped::Other),
    }
}

fn vxlan(ends: Ends, vxlan: &[u8]) -> Option<Wrapped<'_>> {
    let stream = Stream { id: get32(vxlan, 4)? >> 8, worker: 0 };
    let frame = vxlan.get(VXLAN_LEN..)?;
    Some(Wrapped { tunnel: Tunnel::Vxlan, from: ends.0, to: ends.1, stream, sequence: None, detail: None, frame })
}

fn geneve(ends: Ends, geneve: &[u8]) -> Option<Wrapped<'_>> {
    let options = 4 * usize::from(geneve.first()? & 0x3f);
    let told = geneve::read(geneve.get(GENEVE_LEN..GENEVE_LEN + options)?);
    let (worker, sequence, detail) = match told {
        Some((worker, sequence, detail)) => (worker, Some(sequence), Some(detail)),
        None => (0, None, None),
    };
    let stream = Stream { id: get32(geneve, 4)? >> 8, worker };
    let frame = geneve.get(GENEVE_LEN + options..)?;
    Some(Wrapped { tunnel: Tunnel::Geneve, from: ends.0, to: ends.1, stream, sequence, detail, frame })
}

fn gre(ends: Ends, gre: &[u8]) -> Result<Option<Wrapped<'_>>, NotWrapped> {
    let (Some(flags), Some(kind)) = (get16(gre, 0), get16(gre, 2)) else { return Ok(None) };
    let after = |at: usize, flag: u16| if flags & flag != 0 { at + 4 } else { at };
    let key_at = after(4, 0x8000);
    let sequence_at = after(key_at, GRE_KEY);
    let body = after(sequence_at, GRE_SEQUENCE);
    let sequence = (flags & GRE_SEQUENCE != 0).then(|| get32(gre, sequence_at)).flatten();
    let rest = gre.get(body..).unwrap_or_default();
    match kind {
        ETHERNET => {
            let key = if flags & GRE_KEY != 0 { get32(gre, key_at).unwrap_or(0) } else { 0 };
            let stream = Stream { id: key >> 8, worker: key as u8 };
            Ok(Some(Wrapped {
                tunnel: Tunnel::Gre,
                from: ends.0,
                to: ends.1,
                stream,
                sequence,
                detail: None,
                frame: rest,
            }))
        }
        ERSPAN_2 => Ok(erspan2(ends, sequence, rest)),
        ERSPAN_3 => Ok(erspan3(ends, sequence, rest)),
        _ => Err(NotWrapped::Other),
    }
}

fn erspan2(ends: Ends, sequence: Option<u32>, erspan: &[u8]) -> Option<Wrapped<'_>> {
    let stream = Stream { id: u32::from(get16(erspan, 2)? & 0x3ff), worker: get32(erspan, 4)? as u8 };
    Some(Wrapped {
        tunnel: Tunnel::Erspan2,
        from: ends.0,
        to: ends.1,
        stream,
        sequence,
        detail: None,
        frame: erspan.get(8..)?,
    })
}

fn erspan3(ends: Ends, sequence: Option<u32>, erspan: &[u8]) -> Option<Wrapped<'_>> {
    let tail = get16(erspan, 10)?;
    let stream = Stream { id: u32::from(get16(erspan, 2)? & 0x3ff), worker: (tail >> 4 & 0x3f) as u8 };
    // The platform's own subheader, if there is one.
    let frame = erspan.get(if tail & 1 != 0 { 20 } else { 12 }..)?;
    Some(Wrapped { tunnel: Tunnel::Erspan3, from: ends.0, to: ends.1, stream, sequence, detail: None, frame })
}
