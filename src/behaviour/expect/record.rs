//! Flow records as slices.

use crate::flow::{FlowRecord, TO_CLIENT};
use crate::packet::{Host, has_ports};
use crate::rules::Decision;

use super::slice::{Service, Slice};

impl Slice {
    /// `attack`: the record is part of what has an alert of its own.
    pub fn of(r: &FlowRecord, attack: bool) -> Self {
        let t = &r.tuple;
        Self {
            at: r.emitted,
            pair: (r.src_groups, r.dst_groups),
            service: Service::of(t.protocol, has_ports(t.protocol).then_some(t.dst_port)),
            source: Host::source(t),
            destination: Host::destination(t),
            packets: r.packets,
            bytes: r.bytes,
            ended: r.reason != crate::flow::EndReason::Active,
            refused: r.decision != Decision::Allow || r.packets[TO_CLIENT] == 0,
            attack,
        }
    }
}
