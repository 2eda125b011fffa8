//! Who talks to whom about what.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::packet::scramble;
use crate::rules::protocol_name;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    Group(Arc<str>),
    /// A VM that is in no group.
    Vm(Arc<str>),
    Net(IpNet),
    Any,
}

/// What is talked about: a protocol, and the server's port or the type of the ICMP message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    pub protocol: u8,
    /// First and last; of protocols with ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<(u16, u16)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
}

/// Client, server, service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Connection {
    pub from: Endpoint,
    pub to: Endpoint,
    pub service: Service,
}

const UDP: u8 = 17;
const TCP: u8 = 6;

impl Endpoint {
    pub fn group(name: &str) -> Self {
        Self::Group(name.into())
    }

    /// As in rules: the name of a group, a network, "any". A VM stands by its name.
    pub fn text(&self) -> String {
        match self {
            Self::Group(name) | Self::Vm(name) => name.to_string(),
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
            Self::Net(net) => net.to_string(),
            Self::Any => "any".to_owned(),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Net(net), Self::Net(inner)) => net.contains(inner),
            _ => self == other,
        }
    }
}

impl Service {
    pub fn of_port(protocol: u8, port: u16) -> Self {
        Self { protocol, ports: Some((port, port)), icmp_type: None }
    }

    pub fn of_icmp(protocol: u8, icmp_type: u8) -> Self {
        Self { protocol, ports: None, icmp_type: Some(icmp_type) }
    }

    pub fn of_protocol(protocol: u8) -> Self {
        Self { protocol, ports: None, icmp_type: None }
    }

    /// Without it nothing else works: name resolution, addresses, time. Kept whatever the evidence and the strength.
    pub fn is_protected(&self) -> bool {
        let Some((port, _)) = self.ports.filter(|(first, last)| first == last) else { return false };
        match self.protocol {
            UDP => matches!(port, 53 | 67 | 68 | 123 | 546 | 547),
            TCP => port == 53,
            _ => false,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        let ports = match (self.ports, other.ports) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((first, last)), Some((from, to))) => first <= from && to <= last,
        };
        self.protocol == other.protocol && ports && (self.icmp_type.is_none() || self.icmp_type == other.icmp_type)
    }
}

impl Connection {
    /// Whether it can hold others.
    pub(super) fn is_wide(&self) -> bool {
        let end = |end: &Endpoint| match end {
            Endpoint::Any => true,
            Endpoint::Net(net) => net.prefix_len() < net.max_prefix_len(),
            Endpoint::Group(_) | Endpoint::Vm(_) => false,
        };
        let service = self.service.ports.is_some_and(|(first, last)| first != last);
        end(&self.from) || end(&self.to) || service
    }

    /// Whether a rule for this one lets the other pass.
    pub fn covers(&self, other: &Self) -> bool {
        self.service.covers(&other.service) && self.from.covers(&other.from) && self.to.covers(&other.to)
    }

    /// A number that stays the same wherever and whenever it is asked for.
    pub fn fingerprint(&self) -> u64 {
        fingerprint(&self.to_string())
    }
}

/// Of a text: FNV-1a, mixed.
pub fn fingerprint(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    scramble(text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&protocol_name(self.protocol))?;
        match (self.ports, self.icmp_type) {
            (Some((first, last)), _) if first == last => write!(f, " {first}"),
            (Some((first, last)), _) => write!(f, " {first}-{last}"),
            (None, Some(kind)) => write!(f, " type {kind}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} {}", self.from.text(), self.to.text(), self.service)
    }
}
