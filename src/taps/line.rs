//! A frame in one line.

use std::fmt::Write;
use std::net::IpAddr;

use crate::packet::{Layer, layers};

/// The headers of a frame, outermost first, such as
/// `vlan 5, 10.0.0.1:40000 > 10.0.1.1:80 tcp SYN seq 100`; `wire_len` is its whole length. Also the layers, for
/// programs, and what is wrong with it.
pub fn summary(frame: &[u8], wire_len: u32) -> (String, Vec<Layer>, Option<&'static str>) {
    let (layers, malformed) = layers(frame, wire_len);
    let mut parts = Vec::new();
    let mut at = 0;
    while at < layers.len() {
        let (part, taken) = part(&layers[at..]);
        parts.push(part);
        at += taken;
    }
    let fault = malformed.map(crate::packet::Malformed::name);
    parts.extend(fault.map(str::to_owned));
    parts.retain(|part| !part.is_empty());
    (parts.join(", "), layers, fault)
}

/// Text of the first layer or two, and how many they were. An IP header goes with what follows it.
fn part(layers: &[Layer]) -> (String, usize) {
    match &layers[0] {
        Layer::Ip { src, dst, protocol, ttl, extensions, fragment } => {
            let (ports, upper) = layers.get(1).map_or((None, None), transport);
            let taken = 1 + usize::from(upper.is_some());
            let mut text = match ports {
                Some((from, to)) => format!("{} > {}", with_port(src, from), with_port(dst, to)),
                None => format!("{src} > {dst}"),
            };
            let upper = upper.unwrap_or_else(|| protocol_name(*protocol));
            let _ = write!(text, " {upper} ttl {ttl}");
            if !extensions.is_empty() {
                let _ = write!(text, " extensions {extensions:?}");
            }
            if let Some(part) = fragment {
                let more = if part.more { "+" } else { "" };
                let _ = write!(text, " fragment {:x} at {}{more}", part.id, part.offset);
            }
            (text, taken)
        }
        other => (plain(other), 1),
    }
}

fn plain(layer: &Layer) -> String {
    match layer {
        Layer::Ethernet { src, dst, ethertype } => format!("{src} > {dst}{}", ethertype_name(*ethertype)),
        Layer::Vlan { id, .. } => format!("vlan {id}"),
        Layer::Mpls { label } => format!("mpls {label}"),
        Layer::Pseudowire => "pseudowire".into(),
        Layer::Shim { ethertype } => format!("shim 0x{ethertype:04x}"),
        Layer::Pppoe { session } => format!("pppoe session {session}"),
        Layer::Arp { operation: 1, sender_ip, target_ip, .. } => format!("arp who has {target_ip} tell {sender_ip}"),
        Layer::Arp { operation: 2, sender_mac, sender_ip, .. } => format!("arp {sender_ip} is at {sender_mac}"),
        Layer::Arp { operation, .. } => format!("arp operation {operation}"),
        Layer::Vxlan { vni } => format!("vxlan {vni}"),
        Layer::Geneve { vni, .. } => format!("geneve {vni}"),
        Layer::GtpU { teid, message } => format!("gtp-u {teid} message {message}"),
        Layer::Gre { key: Some(key), .. } => format!("gre key {key}"),
        Layer::Gre { .. } => "gre".into(),
        Layer::Erspan { session: Some(session), .. } => format!("erspan session {session}"),
        Layer::Erspan { .. } => "erspan".into(),
        Layer::IpInIp => "ip in ip".into(),
        Layer::SixInFour => "ipv6 in ipv4".into(),
        Layer::Teredo => "teredo".into(),
        Layer::Quoted => "quoting".into(),
        Layer::Damaged { reason } => (*reason).into(),
        other => transport(other).1.unwrap_or_default(),
    }
}

type Ports = Option<(u16, u16)>;

/// Ports and text of an upper layer, if it is one.
fn transport(layer: &Layer) -> (Ports, Option<String>) {
    match layer {
        Layer::Ports { src, dst } => (Some((*src, *dst)), Some("cut off behind the ports".into())),
        Layer::Tcp { src, dst, flags, seq, ack } => {
            let ack = if flags & 0x10 != 0 { format!(" ack {ack}") } else { String::new() };
            (Some((*src, *dst)), Some(format!("tcp {} seq {seq}{ack}", tcp_flags(*flags))))
        }
        Layer::Udp { src, dst, length } => (Some((*src, *dst)), Some(format!("udp length {length}"))),
        Layer::Sctp { src, dst } => (Some((*src, *dst)), Some("sctp".into())),
        Layer::Icmp { kind, code, id } => (None, Some(icmp("icmp", *kind, *code, *id))),
        Layer::Icmpv6 { kind, code, id } => (None, Some(icmp("icmpv6", *kind, *code, *id))),
        _ => (None, None),
    }
}

fn icmp(name: &str, kind: u8, code: u8, id: Option<u16>) -> String {
    let id = id.map_or(String::new(), |id| format!(" id {id}"));
    format!("{name} type {kind} code {code}{id}")
}

fn with_port(address: &IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

fn tcp_flags(flags: u8) -> String {
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set: Vec<&str> = names.iter().enumerate().filter(|(n, _)| flags >> n & 1 != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "no flags".into() } else { set.join("+") }
}

fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        50 => "esp".into(),
        58 => "icmpv6".into(),
        132 => "sctp".into(),
        other => format!("protocol {other}"),
    }
}

/// Nothing where the next layer says it.
fn ethertype_name(ethertype: u16) -> String {
    match ethertype {
        0x0800 | 0x86dd | 0x0806 | 0x8100 | 0x88a8 | 0x9100 | 0x8847 | 0x8848 | 0x8863 | 0x8864 => String::new(),
        length @ 0..0x0600 => format!(" 802.3 length {length}"),
        other => format!(" ethertype 0x{other:04x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hex: &str) -> String {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
        summary(&bytes, bytes.len() as u32).0
    }

    #[test]
    fn headers_are_told_in_order() {
        let ethernet = "525400000002525400000001";
        let ip = "450000280001000040060000 0a000001 0a000101".replace(' ', "");
        let tcp = "9c400050000000640000000050020fff00000000";
        assert_eq!(
            of(&format!("{ethernet}810000050800{ip}{tcp}")),
            "52:54:00:00:00:01 > 52:54:00:00:00:02, vlan 5, 10.0.0.1:40000 > 10.0.1.1:80 tcp SYN seq 100 ttl 64"
        );
        let arp = "080600010800060400015254000000010a0000010000000000000a000101";
        assert!(of(&format!("{ethernet}{arp}")).ends_with("arp who has 10.0.1.1 tell 10.0.0.1"));
        assert!(of(&format!("{ethernet}080045")).ends_with("malformed_ipv4_short"));
        assert_eq!(of("00"), "malformed_ethernet_short");
        assert!(of(&format!("{ethernet}88cc0207")).contains("ethertype 0x88cc"));
    }
}
