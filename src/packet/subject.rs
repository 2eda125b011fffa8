//! Headers → the [`Subject`] that rules and the flow table look at.

use super::headers::{Headers, Ip, KeyFrom};
use super::key::{Tuple, is_icmp};
use crate::rules::Subject;

/// What is classified of a parsed frame, or `None` for frames without IP.
///
/// With [`KeyFrom::Inner`] a frame without an inner IP header is taken by its outer one, and has no
/// `vni`. MAC addresses and VLAN are always those of the outermost link layer.
#[inline]
pub fn subject(headers: &Headers, from: KeyFrom) -> Option<Subject> {
    let ip = headers.key_ip(from)?;
    let is_inner = from == KeyFrom::Inner && headers.inner.version != 0;
    let (src_port, dst_port) = ports(ip);
    Some(Subject {
        tuple: Tuple {
            src: ip.src,
            dst: ip.dst,
            src_port,
            dst_port,
            protocol: ip.protocol,
            version: ip.version,
            vlan: headers.link.vlans.outer(),
            vni: if is_inner { headers.tunnel_id } else { 0 },
        },
        src_mac: headers.link.src,
        dst_mac: headers.link.dst,
        icmp: (ip.icmp_type, ip.icmp_code),
        ports_known: ip.fragment.is_none_or(|fragment| fragment.offset == 0),
    })
}

/// Ports of the tuple: for ICMP echo the identifier twice, so that request and reply meet.
#[inline]
fn ports(ip: &Ip) -> (u16, u16) {
    if is_icmp(ip.protocol) { (ip.icmp_id, ip.icmp_id) } else { (ip.src_port, ip.dst_port) }
}
