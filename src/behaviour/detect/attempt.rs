//! Reads from a record whether the initiator tried to reach a service, and what came of it.

use crate::flow::{FlowRecord, FlowState, TO_CLIENT, TO_SERVER};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Retransmitted SYNs that still count as one attempt (six is the usual number of retries).
const SYN_RETRIES: u64 = 8;
/// UDP packets to the server that one packet back accounts for: uploads are acknowledged sparsely.
const UDP_PER_REPLY: u64 = 32;
/// Traceroute's classic range of destination ports, meant to be unreachable.
const TRACEROUTE: std::ops::RangeInclusive<u16> = 33434..=33534;

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Data, or at least an answer that is no refusal.
    Served,
    /// A TCP connection opened and closed without a byte: a probe, or a health check.
    Empty,
    /// The initiator never completed the handshake it was offered.
    HalfOpen,
    /// Answered by RST.
    Refused,
    Unanswered,
    /// TCP segments that belong to no connection (FIN, NULL, Xmas and ACK scans).
    Stray,
}

impl Outcome {
    /// Towards a port scan, a connection without a byte is as good as a failure.
    pub(crate) fn fails_for_port_scan(self) -> bool {
        self != Outcome::Served
    }

    /// Towards a sweep it is not: health checks look like that, many hosts, one port.
    pub(crate) fn fails_for_sweep(self) -> bool {
        !matches!(self, Outcome::Served | Outcome::Empty)
    }
}

/// `None` when the record is no attempt: a reply whose request was not seen, the middle of a
/// connection, an ICMP message that asks for nothing.
pub(crate) fn outcome(r: &FlowRecord) -> Option<Outcome> {
    match r.tuple.protocol {
        TCP => tcp_outcome(r),
        UDP => (!is_late_reply(r)).then(|| datagram_outcome(r)),
        SCTP => Some(datagram_outcome(r)),
        ICMP if matches!(r.icmp.0, 8 | 13 | 17) => Some(datagram_outcome(r)),
        ICMPV6 if r.icmp.0 == 128 => Some(datagram_outcome(r)),
        _ => None,
    }
}

fn tcp_outcome(r: &FlowRecord) -> Option<Outcome> {
    let [there, back] = r.tcp_flags;
    if there & SYN == 0 {
        return stray(r).then_some(Outcome::Stray);
    }
    if there & ACK == 0 {
        return Some(if back & SYN != 0 {
            Outcome::HalfOpen
        } else if back & RST != 0 {
            Outcome::Refused
        } else {
            Outcome::Unanswered
        });
    }
    if back & SYN == 0 {
        // SYN+ACK without a SYN before it: backscatter, or half of an asymmetric path.
        return None;
    }
    let empty = r.payload_bytes == [0, 0] && r.state == FlowState::Closed;
    Some(if empty { Outcome::Empty } else { Outcome::Served })
}

/// A few empty segments without SYN that led to nothing or to a RST, and are no remains of a
/// connection to a low port.
fn stray(r: &FlowRecord) -> bool {
    let [there, back] = r.tcp_flags;
    let nothing = r.payload_bytes == [0, 0] && r.packets[TO_SERVER] <= 2 && r.packets[TO_SERVER] > 0;
    let refused = r.packets[TO_CLIENT] == 0 || back & RST != 0;
    let probe = there & RST == 0 && (there & ACK == 0 || there & FIN == 0);
    nothing && refused && probe && !is_late_reply(r)
}

fn datagram_outcome(r: &FlowRecord) -> Outcome {
    let one_way = r.packets[TO_CLIENT] == 0 && r.state == FlowState::New;
    let traced = r.tuple.protocol == UDP && TRACEROUTE.contains(&r.tuple.dst_port);
    if one_way && !traced { Outcome::Unanswered } else { Outcome::Served }
}

/// From a low port to a high one: the answer to a request that was not seen.
fn is_late_reply(r: &FlowRecord) -> bool {
    r.tuple.src_port < 1024 && r.tuple.dst_port >= 1024 && r.tuple.src_port != 0
}

/// Weights of a record in the flood counters, `(counted, accounted for)`; nothing when both are 0.
/// SYN: a connection never completed weighs 1 (4 refused ones weigh as much), retransmissions do not
/// add up until there are too many of them; completed ones are the other number.
pub(crate) fn syn_weight(r: &FlowRecord) -> (f64, f64) {
    let syns = if r.packets[TO_SERVER] <= SYN_RETRIES { 1.0 } else { r.packets[TO_SERVER] as f64 };
    match outcome(r).filter(|_| r.tuple.protocol == TCP) {
        Some(Outcome::HalfOpen | Outcome::Unanswered) => (syns, 0.0),
        Some(Outcome::Refused) => (syns / 4.0, 0.0),
        Some(Outcome::Served | Outcome::Empty) => (0.0, 1.0),
        Some(Outcome::Stray) | None => (0.0, 0.0),
    }
}

/// UDP: packets beyond 32 for each packet back; the rest is accounted for.
pub(crate) fn udp_weight(r: &FlowRecord) -> (f64, f64) {
    if r.tuple.protocol != UDP {
        return (0.0, 0.0);
    }
    let [there, back] = r.packets;
    let surplus = there.saturating_sub(back.saturating_mul(UDP_PER_REPLY));
    (surplus as f64, (there - surplus) as f64)
}

/// ICMP: all messages, answered or not, except errors (they answer somebody's packets) and IPv6
/// neighbour discovery and multicast listening.
pub(crate) fn icmp_weight(r: &FlowRecord) -> (f64, f64) {
    let counted = match r.tuple.protocol {
        ICMP => !matches!(r.icmp.0, 3 | 4 | 5 | 11 | 12),
        ICMPV6 => !matches!(r.icmp.0, 0..=127 | 130..=137 | 143),
        _ => false,
    };
    (if counted { r.packets[TO_SERVER] as f64 } else { 0.0 }, 0.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::packet::Tuple;

    fn tcp(there: u8, back: u8, packets: [u64; 2], payload: [u64; 2], state: FlowState) -> FlowRecord {
        FlowRecord {
            tuple: Tuple { src_port: 40000, dst_port: 80, protocol: TCP, version: 4, ..Tuple::default() },
            tcp_flags: [there, back],
            packets,
            payload_bytes: payload,
            state,
            ..FlowRecord::default()
        }
    }

    #[test]
    fn tcp_outcomes() {
        use FlowState::{Closed, Established, New};
        let cases = [
            (tcp(0x02, 0, [3, 0], [0, 0], New), Some(Outcome::Unanswered)),
            (tcp(0x02, 0x14, [1, 1], [0, 0], Closed), Some(Outcome::Refused)),
            (tcp(0x06, 0x12, [2, 1], [0, 0], Closed), Some(Outcome::HalfOpen)),
            (tcp(0x02, 0x12, [1, 3], [0, 0], Established), Some(Outcome::HalfOpen)),
            (tcp(0x13, 0x13, [4, 3], [0, 0], Closed), Some(Outcome::Empty)),
            (tcp(0x1b, 0x1b, [6, 5], [100, 9], Closed), Some(Outcome::Served)),
            (tcp(0x1a, 0x1a, [6, 5], [100, 9], Established), Some(Outcome::Served)),
            (tcp(0x10, 0x10, [6, 5], [100, 9], Established), None),
            (tcp(0x12, 0, [1, 0], [0, 0], New), None),
            (tcp(0x01, 0x14, [1, 1], [0, 0], Closed), Some(Outcome::Stray)),
            (tcp(0x00, 0, [1, 0], [0, 0], New), Some(Outcome::Stray)),
            (tcp(0x29, 0x14, [1, 1], [0, 0], Closed), Some(Outcome::Stray)),
            (tcp(0x11, 0, [1, 0], [0, 0], Closed), None),
            (tcp(0x04, 0, [1, 0], [0, 0], Closed), None),
        ];
        for (i, (r, want)) in cases.iter().enumerate() {
            assert_eq!(outcome(r), *want, "case {i}");
        }
        assert_eq!(syn_weight(&cases[0].0), (1.0, 0.0));
        assert_eq!(syn_weight(&tcp(0x02, 0, [900, 0], [0, 0], New)), (900.0, 0.0));
        assert_eq!(syn_weight(&cases[1].0), (0.25, 0.0));
        assert_eq!(syn_weight(&cases[5].0), (0.0, 1.0));
    }

    #[test]
    fn datagrams_and_icmp() {
        let udp = |src_port, dst_port, packets: [u64; 2]| FlowRecord {
            tuple: Tuple { src_port, dst_port, protocol: UDP, version: 4, ..Tuple::default() },
            packets,
            state: if packets[1] > 0 { FlowState::Established } else { FlowState::New },
            ..FlowRecord::default()
        };
        assert_eq!(outcome(&udp(5000, 161, [1, 0])), Some(Outcome::Unanswered));
        assert_eq!(outcome(&udp(5000, 53, [1, 1])), Some(Outcome::Served));
        assert_eq!(outcome(&udp(53, 5000, [1, 0])), None);
        assert_eq!(outcome(&udp(5000, 33440, [1, 0])), Some(Outcome::Served));
        assert_eq!(udp_weight(&udp(5000, 53, [100, 0])), (100.0, 0.0));
        assert_eq!(udp_weight(&udp(5000, 443, [100, 4])), (0.0, 100.0));
        assert_eq!(udp_weight(&udp(5000, 443, [100, 1])), (68.0, 32.0));
        let icmp = |protocol, kind, packets: [u64; 2]| FlowRecord {
            tuple: Tuple { protocol, version: 4, ..Tuple::default() },
            icmp: (kind, 0),
            packets,
            ..FlowRecord::default()
        };
        assert_eq!(outcome(&icmp(1, 8, [1, 0])), Some(Outcome::Unanswered));
        assert_eq!(outcome(&icmp(1, 3, [1, 0])), None);
        assert_eq!(icmp_weight(&icmp(1, 8, [50, 50])), (50.0, 0.0));
        assert_eq!(icmp_weight(&icmp(1, 0, [50, 0])), (50.0, 0.0));
        assert_eq!(icmp_weight(&icmp(1, 3, [50, 0])), (0.0, 0.0));
        assert_eq!(icmp_weight(&icmp(58, 135, [50, 0])), (0.0, 0.0));
        assert_eq!(icmp_weight(&icmp(58, 128, [50, 0])), (50.0, 0.0));
    }
}
