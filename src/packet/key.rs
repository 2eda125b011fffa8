//! Directed five-tuples and the undirected flow key that both directions share.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address as one integer: IPv6 as it is, IPv4 in the low 32 bits. The version travels beside
/// it ([`Tuple::version`]), so the two families never collide.
pub type Addr = u128;

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(|| bad_mac(text))?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad_mac(text))?;
        }
        match parts.next() {
            None => Ok(Mac(bytes)),
            Some(_) => Err(bad_mac(text)),
        }
    }
}

fn bad_mac(text: &str) -> String {
    format!("`{text}` is not a MAC address such as 52:54:00:12:34:56")
}

/// Addresses, ports, protocol and segment of one packet, in the direction it travels.
///
/// Ports are 0 for protocols without ports. ICMP echo carries its identifier in both ports so that
/// request and reply meet in one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    pub src: Addr,
    pub dst: Addr,
    pub src_port: u16,
    pub dst_port: u16,
    /// IP protocol number of the innermost header the key is taken from.
    pub protocol: u8,
    /// 4 or 6.
    pub version: u8,
    /// Outermost VLAN id, 0 when untagged.
    pub vlan: u16,
    /// Virtual network id (VXLAN, GENEVE) or tunnel endpoint id (GTP-U) of the enclosing tunnel when
    /// the key is taken from the inner header, else 0.
    pub vni: u32,
}

impl Tuple {
    /// The same conversation seen from the other side.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..self }
    }

    /// Without the number that tells ICMP errors about different pairs of hosts apart
    /// ([`Quoted::mark`](super::Quoted::mark)): for readers, they have no ports.
    #[must_use]
    pub fn unmarked(self) -> Self {
        let is_marked = is_icmp(self.protocol) && self.src_port != self.dst_port;
        if is_marked { Self { src_port: 0, dst_port: 0, ..self } } else { self }
    }

    pub fn src_ip(&self) -> IpAddr {
        ip_addr(self.version, self.src)
    }

    pub fn dst_ip(&self) -> IpAddr {
        ip_addr(self.version, self.dst)
    }
}

/// `Addr` and version as the standard library's address.
pub fn ip_addr(version: u8, addr: Addr) -> IpAddr {
    if version == 4 { IpAddr::V4(Ipv4Addr::from(addr as u32)) } else { IpAddr::V6(Ipv6Addr::from(addr)) }
}

/// The standard library's address as version and `Addr`.
pub fn from_ip_addr(ip: IpAddr) -> (u8, Addr) {
    match ip {
        IpAddr::V4(v4) => (4, Addr::from(u32::from(v4))),
        IpAddr::V6(v6) => (6, Addr::from(v6)),
    }
}

/// Which way a packet goes relative to its [`FlowKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Orientation {
    /// Source is the key's lower endpoint.
    LowToHigh,
    HighToLow,
}

/// The key both directions of a flow map to: a [`Tuple`] with its endpoints in canonical order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey(Tuple);

impl FlowKey {
    /// Orders the endpoints and says which way round the packet was.
    pub fn of(tuple: Tuple) -> (Self, Orientation) {
        if (tuple.src, tuple.src_port) <= (tuple.dst, tuple.dst_port) {
            (Self(tuple), Orientation::LowToHigh)
        } else {
            (Self(tuple.reversed()), Orientation::HighToLow)
        }
    }

    /// The key as a tuple in the given direction.
    pub fn tuple(&self, way: Orientation) -> Tuple {
        match way {
            Orientation::LowToHigh => self.0,
            Orientation::HighToLow => self.0.reversed(),
        }
    }

    /// 64-bit hash, the same for both directions, every worker, run and machine with the same seed.
    pub fn hash(&self, seed: u64) -> u64 {
        let t = &self.0;
        let mut h = seed ^ 0x9e37_79b9_7f4a_7c15;
        h = mix(h, t.src as u64);
        h = mix(h, t.dst as u64);
        if t.version == 6 {
            h = mix(h, (t.src >> 64) as u64);
            h = mix(h, (t.dst >> 64) as u64);
        }
        let ports = u64::from(t.src_port) << 48 | u64::from(t.dst_port) << 32;
        h = mix(h, ports | u64::from(t.protocol) << 16 | u64::from(t.vlan));
        mix(h, u64::from(t.vni) << 8 | u64::from(t.version))
    }
}

/// Whether packets of this protocol have ports: TCP, UDP, SCTP.
#[inline]
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}

/// Whether packets of this protocol have a type and a code: ICMP, ICMPv6.
#[inline]
pub fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, 1 | 58)
}

/// A hash of a few words for tables inside of the process, against no adversary.
#[inline]
pub fn hash_words(words: impl IntoIterator<Item = u64>) -> u64 {
    words.into_iter().fold(0x2545_f491_4f6c_dd1d, |hash, word| {
        let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
        (product as u64) ^ ((product >> 64) as u64) ^ hash.rotate_left(23)
    })
}

/// Spreads the bits of a number over all of it: MurmurHash3's finalizer. The same everywhere and at all times.
pub fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// One multiply-and-fold step (folded 128-bit product).
fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db_u128;
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_share_key_and_hash() {
        let tuple = Tuple { src: 9, dst: 3, src_port: 1, dst_port: 2, protocol: 6, version: 4, vlan: 7, vni: 0 };
        let (there, way) = FlowKey::of(tuple);
        let (back, other) = FlowKey::of(tuple.reversed());
        assert_eq!(there, back);
        assert_ne!(way, other);
        assert_eq!(there.hash(1), back.hash(1));
        assert_ne!(there.hash(1), there.hash(2));
        assert_eq!(there.tuple(way), tuple);
    }

    #[test]
    fn mac_round_trips_and_rejects_nonsense() {
        let mac: Mac = "52:54:00:12:34:ff".parse().expect("well formed");
        assert_eq!(mac.to_string(), "52:54:00:12:34:ff");
        for bad in ["", "52:54:00:12:34", "52:54:00:12:34:ff:00", "52:54:00:12:34:fg", "5:54:00:12:34:ff"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
