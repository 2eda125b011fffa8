//! What expectation knows of a record: whose traffic it is, on which service, how much.

use crate::packet::Host;
use crate::rules::GroupSetHandle;

/// Numbers of an interval that are expected and compared.
pub const QUANTITIES: usize = 8;

/// Their names, in order. `up` is what the initiators sent.
pub const QUANTITY_NAMES: [&str; QUANTITIES] =
    ["flows", "refused", "packets_up", "packets_down", "bytes_up", "bytes_down", "sources", "destinations"];

pub(super) const FLOWS: usize = 0;
pub(super) const REFUSED: usize = 1;
pub(crate) const PACKETS: [usize; 2] = [2, 3];
pub(super) const BYTES: [usize; 2] = [4, 5];
pub(super) const HOSTS: [usize; 2] = [6, 7];

/// From the groups of the initiators to those of the responders.
pub type PairKey = (GroupSetHandle, GroupSetHandle);

/// A protocol and, where it has ports, a class of server ports: a known service by its port, others by the range that
/// theirs lies in, so that a scan of all ports is no thousand services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service {
    pub protocol: u8,
    pub port: PortClass,
}

/// See [`Service`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortClass {
    None,
    Known(u16),
    /// Below 1024, registered (below 32768), and from there on.
    System,
    Registered,
    Ephemeral,
    /// What a pair has beyond the services it has room for.
    Other,
}

/// Ports that are services of their own.
const KNOWN: [u16; 56] = [
    20, 21, 22, 23, 25, 53, 67, 68, 69, 80, 88, 110, 111, 123, 135, 137, 138, 139, 143, 161, 162, 179, 389, 443, 445,
    464, 465, 500, 514, 587, 631, 636, 853, 873, 989, 990, 993, 995, 1433, 1521, 1883, 2049, 2379, 3128, 3306, 3389,
    4500, 5060, 5432, 5671, 5672, 5900, 6379, 8080, 8443, 9092,
];
/// Ports from here on are given to clients.
const EPHEMERAL: u16 = 32_768;

impl Service {
    /// `port`: of the responder, `None` for protocols without ports.
    pub fn of(protocol: u8, port: Option<u16>) -> Self {
        let class = match port {
            None => PortClass::None,
            Some(port) if KNOWN.binary_search(&port).is_ok() => PortClass::Known(port),
            Some(port) if port < 1024 => PortClass::System,
            Some(port) if port < EPHEMERAL => PortClass::Registered,
            Some(_) => PortClass::Ephemeral,
        };
        Self { protocol, port: class }
    }

    /// The port, where the service is one port.
    pub fn known_port(self) -> Option<u16> {
        match self.port {
            PortClass::Known(port) => Some(port),
            _ => None,
        }
    }

    pub(super) fn other() -> Self {
        Self { protocol: 0, port: PortClass::Other }
    }
}

/// `tcp/443`, `udp/registered`, `icmp`, `other`.
impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.port == PortClass::Other {
            return f.write_str("other");
        }
        match self.protocol {
            1 => f.write_str("icmp")?,
            6 => f.write_str("tcp")?,
            17 => f.write_str("udp")?,
            58 => f.write_str("icmpv6")?,
            132 => f.write_str("sctp")?,
            other => write!(f, "ip{other}")?,
        }
        match self.port {
            PortClass::None | PortClass::Other => Ok(()),
            PortClass::Known(port) => write!(f, "/{port}"),
            PortClass::System => f.write_str("/system"),
            PortClass::Registered => f.write_str("/registered"),
            PortClass::Ephemeral => f.write_str("/ephemeral"),
        }
    }
}

/// A flow record, or an interim one, as part of an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice {
    /// When the record was made, nanoseconds since 1970; never less than in the slice before.
    pub at: u64,
    pub pair: PairKey,
    pub service: Service,
    pub source: Host,
    pub destination: Host,
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    /// The flow is over; interim records of it are no further flows.
    pub ended: bool,
    /// Policy did not allow it, or nobody answered.
    pub refused: bool,
    /// Part of what has an alert of its own: compared, but not learnt from.
    pub attack: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_ports_are_in_order_and_services_are_named() {
        assert!(KNOWN.is_sorted());
        let name = |protocol, port| Service::of(protocol, port).to_string();
        assert_eq!(name(6, Some(443)), "tcp/443");
        assert_eq!(name(17, Some(1000)), "udp/system");
        assert_eq!(name(17, Some(1024)), "udp/registered");
        assert_eq!(name(6, Some(40_000)), "tcp/ephemeral");
        assert_eq!(name(1, None), "icmp");
        assert_eq!(name(47, None), "ip47");
        assert_eq!(Service::other().to_string(), "other");
    }
}
