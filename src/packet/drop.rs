//! Why a packet was not forwarded: one enum for the whole box.

/// Malformed headers, found by the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Malformed {
    /// Fewer bytes than the header that should be here, though the frame claims more on the wire.
    Snapped,
    EthernetShort,
    VlanShort,
    MplsShort,
    PppoeShort,
    ArpShort,
    Ipv4Short,
    Ipv4Version,
    Ipv4HeaderLength,
    Ipv4TotalLength,
    Ipv6Short,
    Ipv6Version,
    Ipv6PayloadLength,
    Ipv6ExtensionShort,
    /// More extension headers than the parser follows.
    Ipv6ExtensionChain,
    FragmentOverflow,
    TcpShort,
    TcpOffset,
    UdpShort,
    UdpLength,
    IcmpShort,
    SctpShort,
    TunnelShort,
    TunnelVersion,
    /// More nested tunnels than the parser follows.
    TunnelDepth,
}

/// Every reason for which the box does not forward a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    Malformed(Malformed),
    /// The capture's link type cannot be turned into Ethernet.
    UnsupportedLink,
    /// A rule or the default denied it.
    Denied,
    /// A rule rejected it; the sender was told.
    Rejected,
    /// Frames without IP when the policy says so.
    NonIpDenied,
    /// The port pair's transmit queue was full.
    TransmitFull,
    /// The port has no pair to forward to.
    NoPair,
    /// The other port's link is down.
    LinkDown,
    /// Software redistribution between workers was full.
    RedistributionFull,
    /// A TCP segment outside of the receiver's window, where windows are checked strictly.
    OutOfWindow,
}

impl DropReason {
    /// Number of distinct [`DropReason::index`] values.
    pub const COUNT: usize = 9 + Malformed::ALL.len();

    /// All reasons, in index order.
    pub fn all() -> impl Iterator<Item = DropReason> {
        Self::PLAIN.into_iter().chain(Malformed::ALL.into_iter().map(DropReason::Malformed))
    }

    const PLAIN: [DropReason; 9] = [
        DropReason::UnsupportedLink,
        DropReason::Denied,
        DropReason::Rejected,
        DropReason::NonIpDenied,
        DropReason::TransmitFull,
        DropReason::NoPair,
        DropReason::LinkDown,
        DropReason::RedistributionFull,
        DropReason::OutOfWindow,
    ];

    /// Dense index for counter arrays.
    pub fn index(self) -> usize {
        match self {
            DropReason::UnsupportedLink => 0,
            DropReason::Denied => 1,
            DropReason::Rejected => 2,
            DropReason::NonIpDenied => 3,
            DropReason::TransmitFull => 4,
            DropReason::NoPair => 5,
            DropReason::LinkDown => 6,
            DropReason::RedistributionFull => 7,
            DropReason::OutOfWindow => 8,
            DropReason::Malformed(m) => 9 + m as usize,
        }
    }

    /// The name in counters, `summary.json` and `packets.jsonl`.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::UnsupportedLink => "unsupported_link",
            DropReason::Denied => "denied",
            DropReason::Rejected => "rejected",
            DropReason::NonIpDenied => "non_ip_denied",
            DropReason::TransmitFull => "transmit_full",
            DropReason::NoPair => "no_pair",
            DropReason::LinkDown => "link_down",
            DropReason::RedistributionFull => "redistribution_full",
            DropReason::OutOfWindow => "out_of_window",
            DropReason::Malformed(m) => m.name(),
        }
    }
}

impl Malformed {
    pub const ALL: [Malformed; 25] = {
        use Malformed::*;
        [
            Snapped,
            EthernetShort,
            VlanShort,
            MplsShort,
            PppoeShort,
            ArpShort,
            Ipv4Short,
            Ipv4Version,
            Ipv4HeaderLength,
            Ipv4TotalLength,
            Ipv6Short,
            Ipv6Version,
            Ipv6PayloadLength,
            Ipv6ExtensionShort,
            Ipv6ExtensionChain,
            FragmentOverflow,
            TcpShort,
            TcpOffset,
            UdpShort,
            UdpLength,
            IcmpShort,
            SctpShort,
            TunnelShort,
            TunnelVersion,
            TunnelDepth,
        ]
    };

    /// The fault lies behind an IP header whose addresses were understood.
    pub fn has_addresses(self) -> bool {
        use Malformed::*;
        matches!(
            self,
            Snapped
                | Ipv4TotalLength
                | Ipv6PayloadLength
                | Ipv6ExtensionShort
                | Ipv6ExtensionChain
                | FragmentOverflow
                | TcpShort
                | TcpOffset
                | UdpShort
                | UdpLength
                | IcmpShort
                | SctpShort
                | TunnelDepth
        )
    }

    pub fn name(self) -> &'static str {
        match self {
            Malformed::Snapped => "malformed_snapped",
            Malformed::EthernetShort => "malformed_ethernet_short",
            Malformed::VlanShort => "malformed_vlan_short",
            Malformed::MplsShort => "malformed_mpls_short",
            Malformed::PppoeShort => "malformed_pppoe_short",
            Malformed::ArpShort => "malformed_arp_short",
            Malformed::Ipv4Short => "malformed_ipv4_short",
            Malformed::Ipv4Version => "malformed_ipv4_version",
            Malformed::Ipv4HeaderLength => "malformed_ipv4_header_length",
            Malformed::Ipv4TotalLength => "malformed_ipv4_total_length",
            Malformed::Ipv6Short => "malformed_ipv6_short",
            Malformed::Ipv6Version => "malformed_ipv6_version",
            Malformed::Ipv6PayloadLength => "malformed_ipv6_payload_length",
            Malformed::Ipv6ExtensionShort => "malformed_ipv6_extension_short",
            Malformed::Ipv6ExtensionChain => "malformed_ipv6_extension_chain",
            Malformed::FragmentOverflow => "malformed_fragment_overflow",
            Malformed::TcpShort => "malformed_tcp_short",
            Malformed::TcpOffset => "malformed_tcp_offset",
            Malformed::UdpShort => "malformed_udp_short",
            Malformed::UdpLength => "malformed_udp_length",
            Malformed::IcmpShort => "malformed_icmp_short",
            Malformed::SctpShort => "malformed_sctp_short",
            Malformed::TunnelShort => "malformed_tunnel_short",
            Malformed::TunnelVersion => "malformed_tunnel_version",
            Malformed::TunnelDepth => "malformed_tunnel_depth",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_its_own_index_and_name() {
        let all: Vec<_> = DropReason::all().collect();
        assert_eq!(all.len(), DropReason::COUNT);
        for (position, reason) in all.iter().enumerate() {
            assert_eq!(reason.index(), position, "{reason:?}");
        }
        let names: BTreeSet<_> = all.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), all.len());
    }
}
