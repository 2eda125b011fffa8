//! Floods: packets to one host that nobody answers or asked for.
//!
//! | kind | counted | why ordinary traffic stays below |
//! | --- | --- | --- |
//! | SYN | connections never completed, within `window`; half of those completed must be outweighed | busy servers complete theirs |
//! | UDP | packets beyond 32 for each packet back, within `udp_window` | what is wanted is answered now and then |
//! | ICMP | messages, save errors and neighbour discovery | pings come one a second |
//! | amplification | answers without a question, or bytes beyond ten times the question's, as packets, from services that can be made to amplify; SYN+ACK and RST without a SYN; UDP fragments without a beginning | answers have questions, or follow one that was given up, and are seldom ten times as large |
//!
//! The UDP threshold is 1000 packets a second, the default of Juniper's UDP flood screen; the SYN threshold is what fills
//! the backlog of a small server (512) within a minute.

use crate::behaviour::alert::{AlertKind, Flags, Party};
use crate::flow::{FlowRecord, FlowState, TO_CLIENT, TO_SERVER};

use super::attempt;
use super::book::Book;
use super::episode::{Bar, Key};
use super::gauge::{Count, Gauges};
use super::limits::Limits;
use super::nanoseconds;
use super::scan::Scans;
use super::service;
use crate::packet::Host;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Bytes of an answer that each byte of its question accounts for.
const TENFOLD: f64 = 10.0;

/// Counts what a record brings to its destination. `sent` is seen from who sent first.
pub(crate) fn observe(gauges: &mut Gauges, book: &mut Book, limits: &Limits, sent: &FlowRecord, flags: &mut Flags) {
    let window = limits.window;
    let kinds = [
        (AlertKind::SynFlood, attempt::syn_weight(sent), window),
        (AlertKind::UdpFlood, attempt::udp_weight(sent), nanoseconds(limits.detect.udp_window)),
        (AlertKind::IcmpFlood, attempt::icmp_weight(sent), window),
    ];
    for (kind, weight, window) in kinds {
        if weight != (0.0, 0.0) && flood(gauges, book, limits, sent, kind, weight, window) {
            flags.insert(kind);
        }
    }
}

/// Counts answers that are more than what was asked for. True when the record has any: it is no other flood then.
pub(crate) fn reflection(
    gauges: &mut Gauges,
    book: &mut Book,
    limits: &Limits,
    scans: &mut Scans,
    r: &FlowRecord,
    flags: &mut Flags,
) -> bool {
    let Some((answer, packets)) = unasked(r) else { return false };
    let (source, victim) = (Host::source(&answer.tuple), Host::destination(&answer.tuple));
    if scans.tried(victim, source, r.start, limits.window) {
        // It was asked for, and comes after the question was given up.
        return false;
    }
    let kind = AlertKind::Amplification;
    if flood(gauges, book, limits, &answer, kind, (packets, 0.0), limits.window) {
        flags.insert(kind);
    }
    true
}

fn flood(
    gauges: &mut Gauges,
    book: &mut Book,
    limits: &Limits,
    r: &FlowRecord,
    kind: AlertKind,
    weight: (f64, f64),
    window: u64,
) -> bool {
    let (source, victim) = (Host::source(&r.tuple), Host::destination(&r.tuple));
    if victim.is_group() {
        return false;
    }
    let Some(threshold) = limits.of(kind, &source, &victim) else { return false };
    let key = Key { kind, actor: Party::Many, victim: Party::Host(victim) };
    let bar = Bar { threshold, window };
    gauges.count(book, &Count { key, part: 0, weight, per: 2.0, bar, over: None, host: source }, r)
}

/// The record as seen from who answers, and how many of the packets were not asked for.
fn unasked(r: &FlowRecord) -> Option<(FlowRecord, f64)> {
    let t = &r.tuple;
    let [there, back] = r.packets;
    match t.protocol {
        attempt::TCP => {
            // Whoever is silent is the client, unless the one packet there is decided who is.
            let answer = if there == 0 { r.turned() } else { *r };
            let flags = answer.tcp_flags[TO_SERVER];
            let refused = flags & RST != 0 && flags & !(RST | ACK) == 0;
            let bare = answer.payload_bytes == [0, 0] && answer.packets[TO_CLIENT] == 0;
            (bare && (flags == SYN | ACK || refused)).then(|| (answer, answer.packets[TO_SERVER] as f64))
        }
        attempt::UDP if service::is_amplifier(t.dst_port) && back > 0 => {
            let surplus = 1.0 - (TENFOLD * r.bytes[TO_SERVER] as f64 / r.bytes[TO_CLIENT].max(1) as f64).min(1.0);
            (surplus > 0.0).then(|| (r.turned(), back as f64 * surplus))
        }
        attempt::UDP => {
            let one_way = back == 0 && r.state == FlowState::New;
            let answers = service::is_amplifier(t.src_port) && t.src_port != t.dst_port;
            let fragments = t.src_port == 0 && t.dst_port == 0;
            (one_way && (answers || fragments)).then_some((*r, there as f64))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Tuple;

    fn udp(src_port: u16, dst_port: u16, packets: [u64; 2], bytes: [u64; 2]) -> FlowRecord {
        FlowRecord {
            tuple: Tuple { src: 1, dst: 2, src_port, dst_port, protocol: 17, version: 4, ..Tuple::default() },
            packets,
            bytes,
            state: if packets[1] > 0 { FlowState::Established } else { FlowState::New },
            ..FlowRecord::default()
        }
    }

    fn packets(r: &FlowRecord) -> Option<(u128, f64)> {
        unasked(r).map(|(answer, packets)| (answer.tuple.dst, packets))
    }

    #[test]
    fn answers_within_ten_times_the_question_are_asked_for() {
        assert_eq!(packets(&udp(40_000, 53, [1, 1], [80, 800])), None);
        let (victim, surplus) = packets(&udp(40_000, 53, [1, 3], [80, 4000])).unwrap_or_default();
        assert_eq!(victim, 1);
        assert!((surplus - 3.0 * 0.8).abs() < 1e-9, "{surplus}");
        assert_eq!(packets(&udp(53, 22, [9, 0], [9000, 0])), Some((2, 9.0)));
        assert_eq!(packets(&udp(0, 0, [5, 0], [7000, 0])), Some((2, 5.0)));
        // A server that asks another, a download, an upload.
        assert_eq!(packets(&udp(123, 123, [9, 0], [900, 0])), None);
        assert_eq!(packets(&udp(40_000, 443, [10, 900], [1000, 900_000])), None);
        assert_eq!(packets(&udp(40_000, 9999, [900, 0], [900_000, 0])), None);
    }

    #[test]
    fn a_syn_ack_without_a_syn_is_an_answer() {
        let mut r = udp(29_172, 80, [0, 1], [0, 58]);
        r.tuple.protocol = 6;
        r.tcp_flags = [0, SYN | ACK];
        assert_eq!(packets(&r), Some((1, 1.0)));
        r.tcp_flags = [0, RST];
        assert_eq!(packets(&r), Some((1, 1.0)));
        // One side of a connection, and a refusal.
        r.tcp_flags = [0, SYN | ACK | 0x08];
        assert_eq!(packets(&r), None);
        (r.packets, r.tcp_flags) = ([1, 1], [SYN, RST | ACK]);
        assert_eq!(packets(&r), None);
    }
}
