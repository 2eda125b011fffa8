//! Flows as people write them: `tcp 10.0.1.10:40000 > 10.0.2.20:5432`.
//!
//! ```text
//! FLOW     = PROTOCOL ENDPOINT ">" ENDPOINT [ "type" N [ "code" N ] ]
//! ENDPOINT = IPv4 [ ":" PORT ] | IPv6 | "[" IPv6 "]" [ ":" PORT ]
//! PROTOCOL = tcp | udp | icmp | … | 0..255
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rule::Subject;
use crate::packet::{Tuple, from_ip_addr, has_ports, is_icmp};

/// Source port when only the destination's is given: the first dynamic one (RFC 6335).
const SOURCE_PORT: u16 = 49152;

const EXAMPLE: &str = "write `tcp 10.0.1.10:40000 > 10.0.2.20:5432`, `udp [fd00::1]:5000 > [fd00::2]:53` or \
                       `icmp 10.0.0.1 > 10.0.0.2 type 8 code 0`";

/// Protocols that have a name here (IANA protocol numbers).
const PROTOCOLS: [(&str, u8); 14] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", 132),
];

/// Reads a flow description.
///
/// Without a source port 49152 is taken. Without both ports they count as unknown, as in a later fragment:
/// no port condition matches. ICMP without a type is an echo request. VLAN, VNI and MACs are left zero.
///
/// # Errors
/// A sentence that says what is wrong and what to write instead.
pub fn parse_flow(text: &str) -> Result<Subject, String> {
    let (left, right) =
        text.split_once('>').ok_or_else(|| format!("`{text}` has no `>` between the ends; {EXAMPLE}"))?;
    let left: Vec<&str> = left.trim_end().trim_end_matches('-').split_whitespace().collect();
    let right: Vec<&str> = right.split_whitespace().collect();
    let &[name, src] = left.as_slice() else {
        return Err(format!("before `>` stand a protocol and a source, not `{}`; {EXAMPLE}", left.join(" ")));
    };
    let Some((dst, options)) = right.split_first() else {
        return Err(format!("after `>` stands a destination; {EXAMPLE}"));
    };
    let protocol = parse_protocol(name)?;
    let (src_ip, src_port) = endpoint(src)?;
    let (dst_ip, dst_port) = endpoint(dst)?;
    check_family(name, src_ip, dst_ip)?;
    let ports = ports(name, protocol, src_port, dst_port)?;
    let icmp = icmp(name, protocol, options)?;
    let (version, src) = from_ip_addr(src_ip);
    let (_, dst) = from_ip_addr(dst_ip);
    let (src_port, dst_port) = ports.unwrap_or((0, 0));
    let tuple = Tuple { src, dst, src_port, dst_port, protocol, version, vlan: 0, vni: 0 };
    Ok(Subject { tuple, icmp, ports_known: ports.is_some() || !has_ports(protocol), ..Subject::default() })
}

/// The other way round: what [`parse_flow`] reads, without VLAN, VNI and MACs.
pub(super) fn flow_text(subject: &Subject) -> String {
    let tuple = &subject.tuple;
    let end = |ip: IpAddr, port: u16| match ip {
        _ if !has_ports(tuple.protocol) || !subject.ports_known => ip.to_string(),
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    };
    let (src, dst) = (end(tuple.src_ip(), tuple.src_port), end(tuple.dst_ip(), tuple.dst_port));
    let text = format!("{} {src} > {dst}", protocol_name(tuple.protocol));
    if is_icmp(tuple.protocol) && subject.ports_known {
        return format!("{text} type {} code {}", subject.icmp.0, subject.icmp.1);
    }
    text
}

/// A protocol's name, or its number as text.
pub fn protocol_name(protocol: u8) -> String {
    let named = PROTOCOLS.iter().find(|(_, number)| *number == protocol);
    named.map_or_else(|| protocol.to_string(), |(name, _)| (*name).to_owned())
}

/// A protocol by name or number.
pub fn parse_protocol(text: &str) -> Result<u8, String> {
    let lower = text.to_ascii_lowercase();
    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == lower) {
        return Ok(*number);
    }
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let near = PROTOCOLS.iter().map(|(name, _)| *name).find(|name| strsim::damerau_levenshtein(name, &lower) == 1);
    let hint = near.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
    let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
    Err(format!("unknown protocol `{text}`; {hint}possible are a number 0 to 255 and {}", names.join(", ")))
}

fn endpoint(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']').ok_or_else(|| format!("`{text}` has `[` without `]`"))?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| format!("`{ip}` in `{text}` is not an IPv6 address"))?;
        let port = match rest.strip_prefix(':') {
            Some(port_text) => Some(port(port_text, text)?),
            None if rest.is_empty() => None,
            None => return Err(format!("`{text}`: after `]` only `:PORT` may follow")),
        };
        return Ok((ip.into(), port));
    }
    if let Ok(ip) = text.parse() {
        return Ok((ip, None));
    }
    let (ip, port_text) = text.rsplit_once(':').unwrap_or((text, ""));
    if ip.contains(':') {
        return Err(format!("`{text}` is not an IPv6 address; with a port write `[fd00::1]:443`"));
    }
    let parsed: Ipv4Addr = ip.parse().map_err(|_| {
        format!("`{ip}` is not an IP address (names are not looked up); write `10.0.1.10:443` or `[fd00::1]:443`")
    })?;
    Ok((parsed.into(), Some(port(port_text, text)?)))
}

fn port(text: &str, whole: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("`{text}` in `{whole}` is not a port from 0 to 65535"))
}

fn check_family(name: &str, src: IpAddr, dst: IpAddr) -> Result<(), String> {
    if src.is_ipv4() != dst.is_ipv4() {
        return Err(format!("{src} and {dst} are of different IP versions; both ends need the same"));
    }
    match (name.to_ascii_lowercase().as_str(), src.is_ipv4()) {
        ("icmp", false) => Err("`icmp` belongs to IPv4; for IPv6 addresses write `icmpv6`".to_owned()),
        ("icmpv6", true) => Err("`icmpv6` belongs to IPv6; for IPv4 addresses write `icmp`".to_owned()),
        _ => Ok(()),
    }
}

/// `None`: not known, or the protocol has none.
fn ports(name: &str, protocol: u8, src: Option<u16>, dst: Option<u16>) -> Result<Option<(u16, u16)>, String> {
    match (src, dst) {
        (None, None) => Ok(None),
        _ if !has_ports(protocol) => Err(format!("`{name}` has no ports; only tcp, udp and sctp have")),
        (src, Some(dst)) => Ok(Some((src.unwrap_or(SOURCE_PORT), dst))),
        (Some(_), None) => Err("there is a source port but no destination port; add `:PORT` after `>`".to_owned()),
    }
}

fn icmp(name: &str, protocol: u8, options: &[&str]) -> Result<(u8, u8), String> {
    if !is_icmp(protocol) {
        return match options {
            [] => Ok((0, 0)),
            ["type" | "code", ..] => Err(format!("`{name}` has no type and code; only icmp and icmpv6 have")),
            rest => Err(format!("`{}` after the destination is not understood; {EXAMPLE}", rest.join(" "))),
        };
    }
    let byte = |what: &str, text: &str| {
        text.parse::<u8>().map_err(|_| format!("`{text}` is not an ICMP {what} from 0 to 255"))
    };
    let echo_request = if protocol == 1 { 8 } else { 128 };
    match options {
        [] => Ok((echo_request, 0)),
        ["type", kind] => Ok((byte("type", kind)?, 0)),
        ["type", kind, "code", code] => Ok((byte("type", kind)?, byte("code", code)?)),
        rest => Err(format!("`{}` is not `type N` or `type N code N`", rest.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_manual_shows() {
        for text in [
            "tcp 10.0.1.10:40000 > 10.0.2.20:5432",
            "udp [fd00::1]:5000 > [fd00::2]:53",
            "icmp 10.0.0.1 > 10.0.0.2 type 3 code 1",
            "icmpv6 fd00::1 > fd00::2 type 128 code 0",
            "gre 10.0.0.1 > 10.0.0.2",
            "200 10.0.0.1 > 10.0.0.2",
            "tcp 10.0.0.1 > 10.0.0.2",
        ] {
            assert_eq!(flow_text(&parse_flow(text).expect(text)), text);
        }
    }

    #[test]
    fn fills_in_what_is_left_out() {
        let read = |text| parse_flow(text).map(|subject| flow_text(&subject));
        assert_eq!(read("TCP 10.0.0.1>10.0.0.2:80"), Ok("tcp 10.0.0.1:49152 > 10.0.0.2:80".to_owned()));
        assert_eq!(read(" 6  10.0.0.1:1 -> 10.0.0.2:80 "), Ok("tcp 10.0.0.1:1 > 10.0.0.2:80".to_owned()));
        assert_eq!(read("icmp 10.0.0.1 > 10.0.0.2"), Ok("icmp 10.0.0.1 > 10.0.0.2 type 8 code 0".to_owned()));
        assert_eq!(read("icmpv6 [fd00::1] > fd00::2"), Ok("icmpv6 fd00::1 > fd00::2 type 128 code 0".to_owned()));
        let unknown = parse_flow("tcp 10.0.0.1 > 10.0.0.2").expect("ports may be left out");
        assert!(!unknown.ports_known);
        assert!(parse_flow("gre 10.0.0.1 > 10.0.0.2").expect("no ports").ports_known);
    }

    #[test]
    fn errors_teach() {
        for (text, part) in [
            ("", "no `>`"),
            ("tcp 10.0.0.1:1 10.0.0.2:2", "no `>`"),
            ("10.0.0.1:1 > 10.0.0.2:2", "a protocol and a source"),
            ("tcp 10.0.0.1:1 >", "a destination"),
            ("tpc 10.0.0.1:1 > 10.0.0.2:2", "did you mean `tcp`"),
            ("256 10.0.0.1 > 10.0.0.2", "0 to 255"),
            ("tcp web:1 > 10.0.0.2:2", "names are not looked up"),
            ("tcp 10.0.0.1:99999 > 10.0.0.2:2", "not a port"),
            ("tcp 10.0.0.1: > 10.0.0.2:2", "not a port"),
            ("tcp [fd00::1:1 > [fd00::2]:2", "without `]`"),
            ("tcp [10.0.0.1]:1 > 10.0.0.2:2", "not an IPv6 address"),
            ("tcp [fd00::1]1 > [fd00::2]:2", "only `:PORT`"),
            ("tcp fd00::1:99999 > [fd00::2]:2", "[fd00::1]:443"),
            ("tcp 10.0.0.1:1 > [fd00::2]:2", "different IP versions"),
            ("icmp 10.0.0.1:1 > 10.0.0.2:2", "no ports"),
            ("icmp fd00::1 > fd00::2", "`icmpv6`"),
            ("icmpv6 10.0.0.1 > 10.0.0.2", "`icmp`"),
            ("tcp 10.0.0.1:1 > 10.0.0.2", "destination port"),
            ("tcp 10.0.0.1:1 > 10.0.0.2:2 type 8", "no type and code"),
            ("tcp 10.0.0.1:1 > 10.0.0.2:2 hello", "not understood"),
            ("icmp 10.0.0.1 > 10.0.0.2 type 256", "from 0 to 255"),
            ("icmp 10.0.0.1 > 10.0.0.2 code 1", "type N"),
        ] {
            let error = parse_flow(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
