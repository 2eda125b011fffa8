//! Decisions of the control of mirrors as JSON.

use std::io::{self, Write};
use std::net::IpAddr;

use serde::Serialize;

use super::eve::{Names, protocol_name, round_to_millionths, write_line};
use super::time::iso8601;
use crate::behaviour::Flags;
use crate::mirror::Party;
use crate::mirror::control::{Action, Decision};
use crate::packet::{Host, Orientation, Tuple};

/// Whom something is about: the fields that fit.
#[derive(Debug, Default, Serialize)]
pub struct PartyLine {
    /// `host`, `service`, `groups` or `flow`.
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Both sides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<[Vec<String>; 2]>,
    /// Both ends of a flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends: Option<[(IpAddr, u16); 2]>,
}

#[derive(Serialize)]
struct DecisionLine<'a> {
    timestamp: String,
    event_type: &'static str,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    party: Option<PartyLine>,
    /// Of a budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<u8>,
    share_before: f64,
    share: f64,
    score: f64,
    flags: Vec<&'static str>,
    reason: &'a str,
}

/// Writes one line of `decisions.jsonl`.
pub fn write_decision(out: &mut impl Write, decision: &Decision, names: &impl Names) -> io::Result<()> {
    let round = |x: f64| round_to_millionths(x);
    let line = DecisionLine {
        timestamp: iso8601(decision.at),
        event_type: "mirror_control",
        action: decision.action.name(),
        party: decision.party.map(|party| PartyLine::of(&party, names)),
        class: (decision.action == Action::Budget).then_some(decision.class),
        share_before: round(decision.before),
        share: round(decision.after),
        score: round(decision.score),
        flags: Flags::from_bits(decision.flags).names().collect(),
        reason: &decision.reason,
    };
    write_line(out, &line)
}

impl PartyLine {
    pub fn of(party: &Party, names: &impl Names) -> Self {
        let host = |kind: &'static str, host: &Host| Self {
            kind,
            address: Some(host.ip()),
            vlan: Some(host.vlan).filter(|vlan| *vlan != 0),
            vni: Some(host.vni).filter(|vni| *vni != 0),
            ..Self::default()
        };
        match party {
            Party::Host(of) => host("host", of),
            Party::Service(of, protocol, port) => {
                Self { proto: Some(protocol_name(*protocol).into_owned()), port: Some(*port), ..host("service", of) }
            }
            Party::Groups(one, other) => {
                let list = |set| names.groups(set).into_iter().map(std::borrow::Cow::into_owned).collect();
                Self { kind: "groups", groups: Some([list(*one), list(*other)]), ..Self::default() }
            }
            Party::Flow(key) => Self::of_flow(&key.tuple(Orientation::LowToHigh)),
        }
    }

    fn of_flow(t: &Tuple) -> Self {
        let ends = [(Host::source(t).ip(), t.src_port), (Host::destination(t).ip(), t.dst_port)];
        Self { kind: "flow", proto: Some(protocol_name(t.protocol).into_owned()), ends: Some(ends), ..Self::default() }
    }
}
