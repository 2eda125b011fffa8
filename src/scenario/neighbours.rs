//! Neighbour resolution: ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861).

use std::net::{IpAddr, Ipv6Addr};

use super::frames::{self, End, IpFields};
use super::ledger::NEIGHBOURS;
use super::merge::Source;
use super::stage::Stage;
use super::topology::{HostIx, ROUTER_MAC, ROUTER_V4, ROUTER_V6};

/// Time between question and answer.
const ANSWER_NS: u64 = 180_000;

/// One question and its answer. `None` stands for the router.
#[derive(Debug)]
pub(super) struct Resolution {
    asker: Option<HostIx>,
    asked: Option<HostIx>,
    v6: bool,
    answering: bool,
}

impl Resolution {
    /// From the question until the asker can send.
    pub(super) const DURATION_NS: u64 = ANSWER_NS + 60_000;

    pub(super) fn new(asker: Option<HostIx>, asked: Option<HostIx>, v6: bool) -> Self {
        Self { asker, asked, v6, answering: false }
    }

    fn end(&self, stage: &Stage<'_>, who: Option<HostIx>) -> End {
        let router = End { mac: ROUTER_MAC, ip: if self.v6 { ROUTER_V6.into() } else { ROUTER_V4.into() }, ttl: 255 };
        who.map_or(router, |host| End { ttl: 255, ..stage.end(host, self.v6) })
    }
}

impl Source for Resolution {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        let (asker, asked) = (self.end(stage, self.asker), self.end(stage, self.asked));
        let answering = self.answering;
        stage.send_loose(now, NEIGHBOURS, |out| match (asker.ip, asked.ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) if answering => {
                frames::arp(out, asker.mac, 2, (asked.mac, b.octets()), (asker.mac, a.octets()));
            }
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                frames::arp(out, [0xff; 6], 1, (asker.mac, a.octets()), ([0; 6], b.octets()));
            }
            _ if answering => advertise(out, &asked, &asker),
            _ => solicit(out, &asker, &asked),
        });
        self.answering = true;
        (!answering).then_some(now + ANSWER_NS)
    }
}

const FIELDS: IpFields = IpFields { protocol: frames::ICMPV6, id: 0, flow_label: 0 };

/// To the solicited-node multicast address of the asked.
fn solicit(out: &mut Vec<u8>, asker: &End, asked: &End) {
    let target = octets(asked);
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(target[13]),
        u16::from_be_bytes([target[14], target[15]]),
    );
    let to = End { mac: [0x33, 0x33, 0xff, target[13], target[14], target[15]], ip: group.into(), ttl: 255 };
    message(out, asker, &to, [135, 0, 0, 0, 0, 0, 0, 0], target, 1);
}

/// Solicited, override.
fn advertise(out: &mut Vec<u8>, asked: &End, asker: &End) {
    message(out, asked, asker, [136, 0, 0, 0, 0x60, 0, 0, 0], octets(asked), 2);
}

/// `option` 1 is the source's, 2 the target's link-layer address; both are the sender's here.
fn message(out: &mut Vec<u8>, from: &End, to: &End, start: [u8; 8], target: [u8; 16], option: u8) {
    frames::ip(out, from, to, FIELDS, |out| {
        out.extend_from_slice(&start);
        out.extend_from_slice(&target);
        out.extend_from_slice(&[option, 1]);
        out.extend_from_slice(&from.mac);
        2
    });
}

fn octets(end: &End) -> [u8; 16] {
    match end.ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
    }
}
