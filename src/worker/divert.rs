//! Flows that go to a honeypot instead of their destination.
//!
//! The packet keeps its addresses; only the link header changes: to the honeypot's MAC address on the way there, from the
//! victim's on the way back, so the sender sees one conversation with whom it spoke to. A flow is diverted from its first
//! packet to its end, or not at all; what cannot be diverted and should be is dropped. What a honeypot says that is no answer goes nowhere and leaves no trace in
//! the table of flows, but for its ARP requests, which are answered with an address of our own: whatever it sends to that is
//! then looked at here.

use std::collections::HashMap;

use super::io::Cargo;
use super::stages::Stamp;
use super::{Timing, Worker};
use crate::capture::{PREAMBLE_LEN, Preamble};
use crate::dpdk::Mbuf;
use crate::packet::{Arp, DropReason, Mac};
use crate::rules::Subject;

use super::copies::{packet_preamble, wait_for_buffer};

/// Destination and source of an Ethernet header.
const MACS: usize = 12;
/// Room for an Ethernet frame with an ARP packet behind up to three tags, and the least length of a frame.
const ARP_FRAME: usize = 64;
const LEAST_FRAME: usize = 60;
const MOST_TAGS: usize = 12;
const ARP_REQUEST: u16 = 1;

/// Where a honeypot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Honeypot {
    /// Index into the worker's outputs.
    pub output: usize,
    pub mac: Mac,
}

/// One way of being diverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Diversion {
    /// Position of the honeypot.
    honeypot: u8,
    /// The output by which answers go back.
    back: usize,
    attacker: Mac,
    victim: Mac,
}

/// What becomes of a diverted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) output: usize,
    macs: [Mac; 2],
}

/// One worker's honeypots, and the ways to them so far, which flows name by number from 1. Room is made once.
#[derive(Debug, Default)]
pub(super) struct Diversions {
    honeypots: Vec<Honeypot>,
    known: Vec<Diversion>,
    numbers: HashMap<Diversion, u16>,
}

/// The way of what must not go on and has no other: it is dropped.
pub(super) const NOWHERE: u16 = u16::MAX;
/// Most ways: pairs of stations that a worker can tell apart. What those who invent more send is dropped.
const MOST: usize = 16_384;

impl Diversions {
    pub(super) fn new(honeypots: Vec<Honeypot>) -> Self {
        let room = if honeypots.is_empty() { 0 } else { MOST };
        Self { honeypots, known: Vec::with_capacity(room), numbers: HashMap::with_capacity(room) }
    }

    pub(super) fn has_honeypots(&self) -> bool {
        !self.honeypots.is_empty()
    }

    /// The number of the way to a honeypot (from 1) for a flow that begins with this packet, and has its answers leave by
    /// `back`; [`NOWHERE`] when all are taken, for they are never given back. 0 without such a honeypot.
    pub(super) fn number(&mut self, honeypot: u8, back: usize, first: &Subject) -> u16 {
        let Some(honeypot) = honeypot.checked_sub(1).filter(|at| usize::from(*at) < self.honeypots.len()) else {
            return 0;
        };
        let way = Diversion { honeypot, back, attacker: first.src_mac, victim: first.dst_mac };
        if let Some(number) = self.numbers.get(&way) {
            return *number;
        }
        if self.known.len() == MOST {
            return NOWHERE;
        }
        let number = self.known.len() as u16 + 1;
        self.known.push(way);
        self.numbers.insert(way, number);
        number
    }

    /// Where a packet of a diverted flow goes: from a honeypot back, else there.
    pub(super) fn exit(&self, number: u16, from_honeypot: bool) -> Option<Exit> {
        let way = self.known.get(usize::from(number.checked_sub(1)?))?;
        let honeypot = self.honeypots.get(usize::from(way.honeypot))?;
        Some(match from_honeypot {
            true => Exit { output: way.back, macs: [way.attacker, way.victim] },
            false => Exit { output: honeypot.output, macs: [honeypot.mac, way.attacker] },
        })
    }
}

impl Worker {
    /// Sends packet `i` on its other way; it is gone afterwards.
    #[cold]
    pub(super) fn divert(&mut self, i: usize, exit: Exit, stamp: &Stamp) {
        let Some(packet) = self.burst.take(i) else { return };
        let parts = &mut self.parts;
        let readdress = readdressed(&parts.timing, packet, exit.macs, |bytes, hidden| {
            let make = || Mbuf::with_bytes(&parts.fronts, bytes, hidden);
            make().or_else(|| wait_for_buffer(&mut parts.outputs, &parts.counters, parts.when_full, &parts.abort, make))
        });
        match readdress {
            Some(packet) => {
                let cargo = Cargo::Forwarded { bytes: stamp.count_len, at: i as u8 };
                parts.counters.diverted.add(1);
                parts.outputs[exit.output].push(packet, cargo, &parts.counters);
            }
            None => parts.counters.dropped(DropReason::TransmitFull),
        }
    }

    /// Answers a honeypot's ARP request; true if packet `i` was one.
    #[cold]
    pub(super) fn answer_arp(&mut self, lane: usize, i: usize) -> bool {
        let parts = &mut self.parts;
        let lane = &parts.lanes[lane];
        let Some(back) = lane.back.filter(|_| lane.forward.is_none()) else { return false };
        let is_known =
            |mac: Mac| parts.watch.diversions.honeypots.iter().any(|pot| pot.output == back && pot.mac == mac);
        let asked = self.headers[i].arp.filter(|arp| is_question(arp) && is_known(arp.sender_mac));
        let Some((frame, len)) = asked.and_then(|request| arp_answer(self.burst.frame(i), &request)) else {
            return false;
        };
        match Mbuf::with_bytes(&parts.packets, &frame[..len], 0) {
            Some(packet) => parts.outputs[back].push(packet, Cargo::Generated { at: i as u8 }, &parts.counters),
            None => parts.counters.generated_lost.add(1),
        }
        true
    }
}

/// The packet behind other MAC addresses. What stood before it in a replay stands there again.
fn readdressed(
    timing: &Timing,
    mut packet: Mbuf,
    macs: [Mac; 2],
    mut make: impl FnMut(&[u8], u16) -> Option<Mbuf>,
) -> Option<Mbuf> {
    let mut bytes = [0; PREAMBLE_LEN + MACS];
    let (front, header) = bytes.split_at_mut(PREAMBLE_LEN);
    let hidden = match packet_preamble(timing, &packet) {
        Some(preamble) => {
            front.copy_from_slice(&Preamble::to_bytes(&preamble));
            PREAMBLE_LEN
        }
        None => 0,
    };
    header[..6].copy_from_slice(&macs[0].0);
    header[6..].copy_from_slice(&macs[1].0);
    packet.take_front::<MACS>()?;
    let head = make(&bytes[PREAMBLE_LEN - hidden..], hidden as u16)?;
    Mbuf::chained(head, packet).ok()
}

/// Who has that address? Not of those who look whether theirs is free, or say what it is.
fn is_question(arp: &Arp) -> bool {
    arp.operation == ARP_REQUEST && arp.sender_ip != arp.target_ip && arp.sender_ip != 0
}

/// "That is us", whatever was asked for, in the VLANs of the question.
fn arp_answer(question: &[u8], request: &Arp) -> Option<([u8; ARP_FRAME], usize)> {
    const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
    let own = Mac([0x02, 0x67, 0x6e, 0x6f, 0x6d, 0xff]);
    let mut tags = 0;
    while question.get(MACS + tags..MACS + tags + 2).is_some_and(|kind| TAGS.iter().any(|tag| tag == kind)) {
        tags += 4;
    }
    let mut frame = [0; ARP_FRAME];
    let parts: [&[u8]; 8] = [
        &request.sender_mac.0,
        &own.0,
        question.get(MACS..MACS + tags).filter(|_| tags <= MOST_TAGS)?,
        &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2],
        &own.0,
        &request.target_ip.to_be_bytes(),
        &request.sender_mac.0,
        &request.sender_ip.to_be_bytes(),
    ];
    let mut at = 0;
    for part in parts {
        frame[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    Some((frame, at.max(LEAST_FRAME)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Headers;

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    #[test]
    fn flows_of_a_pair_of_stations_share_a_way() {
        let mut diversions = Diversions::new(vec![Honeypot { output: 4, mac: mac(9) }]);
        let first = |from, to| Subject { src_mac: mac(from), dst_mac: mac(to), ..Subject::default() };
        let number = diversions.number(1, 0, &first(1, 2));
        assert_eq!((number, diversions.number(1, 0, &first(1, 2))), (1, 1));
        assert_eq!(diversions.number(1, 0, &first(1, 3)), 2);
        assert_eq!((diversions.number(0, 0, &first(1, 2)), diversions.number(2, 0, &first(1, 2))), (0, 0));
        assert_eq!(diversions.exit(1, false), Some(Exit { output: 4, macs: [mac(9), mac(1)] }));
        assert_eq!(diversions.exit(1, true), Some(Exit { output: 0, macs: [mac(1), mac(2)] }));
        assert_eq!((diversions.exit(0, true), diversions.exit(3, true)), (None, None));
    }

    #[test]
    fn arp_answers_name_the_asked_for_address() {
        let request = Arp {
            operation: 1,
            sender_mac: mac(1),
            sender_ip: 0x0a00_0001,
            target_mac: Mac::default(),
            target_ip: 0x0a00_0002,
        };
        assert!(is_question(&request) && !is_question(&Arp { sender_ip: 0, ..request }));
        let question = [&[0xff; 6][..], &mac(1).0, &[0x81, 0, 0, 7, 0x08, 0x06], &[0; 28]].concat();
        let (frame, len) = arp_answer(&question, &request).expect("an answer");
        let mut headers = Headers::default();
        assert!(crate::packet::parse(&frame[..len], len as u32, &mut headers).is_ok());
        assert_eq!(headers.link.vlans.outer(), 7);
        let answer = headers.arp.expect("an ARP packet");
        assert_eq!((answer.operation, answer.sender_ip, answer.target_ip), (2, 0x0a00_0002, 0x0a00_0001));
        assert_eq!((headers.link.dst, answer.target_mac, headers.link.src), (mac(1), mac(1), answer.sender_mac));
    }
}
