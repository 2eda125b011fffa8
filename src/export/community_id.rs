//! Community ID flow hash, version 1 (corelight/community-id-spec), so that a flow can be found again
//! in the logs of other monitors.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::packet::Tuple;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// `1:` and the base64 of SHA-1 over seed, addresses, protocol and ports, lower endpoint first, so
/// both directions agree. `icmp` is type and code, used for ICMP and ICMPv6 in place of ports;
/// protocols other than those, TCP, UDP and SCTP have no ports in the hash. The customary seed is 0.
pub fn community_id(t: &Tuple, icmp: (u8, u8), seed: u16) -> String {
    let mut from = (address(t.version, t.src), t.src_port);
    let mut to = (address(t.version, t.dst), t.dst_port);
    let mut ordered = true;
    let ports = match t.protocol {
        ICMP | ICMPV6 => {
            let answer = counterpart(t.protocol, icmp.0);
            // Messages without an answer are one-way: their direction is part of the flow.
            ordered = answer.is_some();
            from.1 = u16::from(icmp.0);
            to.1 = u16::from(answer.unwrap_or(icmp.1));
            true
        }
        6 | 17 | 132 => true,
        _ => false,
    };
    if ordered && (&from.0, if ports { from.1 } else { 0 }) > (&to.0, if ports { to.1 } else { 0 }) {
        std::mem::swap(&mut from, &mut to);
    }
    let mut hash = Sha1::new();
    hash.update(seed.to_be_bytes());
    hash.update(&from.0);
    hash.update(&to.0);
    hash.update([t.protocol, 0]);
    if ports {
        hash.update(from.1.to_be_bytes());
        hash.update(to.1.to_be_bytes());
    }
    format!("1:{}", STANDARD.encode(hash.finalize()))
}

fn address(version: u8, addr: u128) -> Vec<u8> {
    if version == 4 { (addr as u32).to_be_bytes().to_vec() } else { addr.to_be_bytes().to_vec() }
}

/// The type that answers a type, or that it answers.
fn counterpart(protocol: u8, kind: u8) -> Option<u8> {
    const PAIRS_4: [(u8, u8); 5] = [(8, 0), (13, 14), (15, 16), (10, 9), (17, 18)];
    const PAIRS_6: [(u8, u8); 6] = [(128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145)];
    let pairs: &[(u8, u8)] = if protocol == ICMP { &PAIRS_4 } else { &PAIRS_6 };
    pairs.iter().find_map(|&(ask, answer)| match kind {
        k if k == ask => Some(answer),
        k if k == answer => Some(ask),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::packet::from_ip_addr;

    fn tuple(protocol: u8, src: &str, src_port: u16, dst: &str, dst_port: u16) -> Tuple {
        let (version, from) = from_ip_addr(src.parse().unwrap());
        let (_, to) = from_ip_addr(dst.parse().unwrap());
        Tuple { src: from, dst: to, src_port, dst_port, protocol, version, ..Tuple::default() }
    }

    #[test]
    fn published_ports() {
        let cases = [
            (6, "128.232.110.120", 34855, "66.35.250.204", 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            (17, "192.168.1.52", 54585, "8.8.8.8", 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
            (132, "192.168.170.8", 7, "192.168.170.56", 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
            (
                6,
                "2001:470:e5bf:dead:4957:2174:e82c:4887",
                63943,
                "2607:f8b0:400c:c03::1a",
                25,
                "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
            ),
        ];
        for (protocol, src, src_port, dst, dst_port, want) in cases {
            let t = tuple(protocol, src, src_port, dst, dst_port);
            assert_eq!(community_id(&t, (0, 0), 0), want);
            assert_eq!(community_id(&t.reversed(), (0, 0), 0), want);
            assert_ne!(community_id(&t, (0, 0), 1), want);
        }
    }

    #[test]
    fn published_icmp() {
        let cases = [
            (1, "192.168.0.89", "192.168.0.1", (8, 0), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
            (1, "192.168.0.1", "192.168.0.89", (0, 8), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
            (1, "192.168.0.89", "192.168.0.1", (20, 0), "1:3o2RFccXzUgjl7zDpqmY7yJi8rI="),
            (1, "192.168.0.89", "192.168.0.1", (20, 1), "1:tz/fHIDUHs19NkixVVoOZywde+I="),
            (58, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", (135, 0), "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
            (58, "fe80::260:97ff:fe07:69ea", "fe80::200:86ff:fe05:80da", (136, 0), "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
            (58, "fe80::260:97ff:fe07:69ea", "ff02::1", (134, 0), "1:pkvHqCL88/tg1k4cPigmZXUtL00="),
            (
                58,
                "3ffe:507:0:1:260:97ff:fe07:69ea",
                "3ffe:507:0:1:200:86ff:fe05:80da",
                (3, 0),
                "1:NdobDX8PQNJbAyfkWxhtL2Pqp5w=",
            ),
            (
                58,
                "3ffe:507:0:1:200:86ff:fe05:80da",
                "3ffe:507:0:1:260:97ff:fe07:69ea",
                (3, 0),
                "1:/OGBt9BN1ofenrmSPWYicpij2Vc=",
            ),
        ];
        for (protocol, src, dst, icmp, want) in cases {
            // The echo identifier in the ports plays no part.
            assert_eq!(community_id(&tuple(protocol, src, 777, dst, 777), icmp, 0), want, "{icmp:?}");
        }
    }

    #[test]
    fn other_protocols_have_no_ports() {
        let t = tuple(47, "10.0.0.2", 1, "10.0.0.1", 2);
        let plain = tuple(47, "10.0.0.2", 0, "10.0.0.1", 0);
        assert_eq!(community_id(&t, (0, 0), 0), community_id(&plain, (0, 0), 0));
        assert_eq!(community_id(&t, (0, 0), 0), community_id(&t.reversed(), (0, 0), 0));
    }
}
