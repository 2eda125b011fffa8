//! A host as it is told from others.

use std::net::IpAddr;

use super::key::{Addr, Tuple, ip_addr};

/// An address within its segment: tenants may use the same addresses on different VLANs and virtual
/// networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    pub version: u8,
    pub addr: Addr,
    pub vlan: u16,
    pub vni: u32,
}

impl Host {
    pub fn source(t: &Tuple) -> Self {
        Self { version: t.version, addr: t.src, vlan: t.vlan, vni: t.vni }
    }

    pub fn destination(t: &Tuple) -> Self {
        Self { version: t.version, addr: t.dst, vlan: t.vlan, vni: t.vni }
    }

    pub fn ip(&self) -> IpAddr {
        ip_addr(self.version, self.addr)
    }

    /// Multicast or limited broadcast: nobody answers for it.
    pub fn is_group(&self) -> bool {
        match self.ip() {
            IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_multicast(),
        }
    }
}
