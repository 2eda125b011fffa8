//! The verbs `watch`, `watch_why`, `watch_set` and `watch_release`: who is watched by mirrors that adapt, and why.

use std::net::IpAddr;
use std::sync::MutexGuard;

use serde::Deserialize;
use serde_json::{Value, json};

use super::live::Live;
use super::protocol::{Failure, Refusal, Request};
use super::reply::Reply;
use crate::behaviour::Flags;
use crate::export::{PartyLine, iso8601, write_decision};
use crate::mirror::Party;
use crate::mirror::control::{Controller, Order, Stage, View};
use crate::packet::{Host, from_ip_addr};

/// Whom a request is about: a host, or one of its services.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    address: IpAddr,
    #[serde(default)]
    vlan: u16,
    #[serde(default)]
    vni: u32,
    /// Protocol number and port.
    service: Option<(u8, u16)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneParty {
    about: About,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    about: About,
    /// 0..=1.
    share: f64,
    /// Name of a honeypot.
    divert: Option<String>,
    seconds: u64,
    who: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    about: About,
    who: String,
}

/// A line for each party.
pub(super) fn watch(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Nothing {} = request.read()?;
    // Nobody waits for the client while the control is held.
    let views = control(live)?.views();
    views.iter().try_for_each(|view| reply.line(&told_of(live, view)))
}

/// How a party stands, if it is watched, then the decisions about it.
pub(super) fn watch_why(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let OneParty { about } = request.read()?;
    let (mut views, decisions) = {
        let control = control(live)?;
        let decisions = control.recent().filter(|decision| decision.party.is_some_and(|party| about.means(&party)));
        (control.views(), decisions.cloned().collect::<Vec<_>>())
    };
    views.retain(|view| about.means(&view.party));
    views.iter().try_for_each(|view| reply.line(&told_of(live, view)))?;
    for decision in &decisions {
        let mut line = Vec::new();
        write_decision(&mut line, decision, &*live.names).map_err(Failure::Gone)?;
        let line: Value = serde_json::from_slice(&line).unwrap_or_default();
        reply.line(&json!({ "decision": line }))?;
    }
    Ok(())
}

/// A person says how a party is treated.
pub(super) fn watch_set(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Set { about, share, divert, seconds, who, reason } = request.read()?;
    if !(0.0..=1.0).contains(&share) || seconds == 0 {
        return Err(Refusal::new("bad_request", "`share` goes from 0 to 1, and `seconds` from 1").into());
    }
    if divert.is_some() && (about.service.is_some() || about.vni != 0) {
        let message = "only what a host begins outside of tunnels can be diverted: leave out `service` and `vni`";
        return Err(Refusal::new("bad_request", message).into());
    }
    let honeypot = divert.as_ref().map_or(Ok(0), |name| honeypot(live, name))?;
    let goes_to = divert.as_ref().map(|name| format!("what it begins goes to {name}, ")).unwrap_or_default();
    let until = live.now().saturating_add(seconds.saturating_mul(1_000_000_000));
    let said = if reason.is_empty() { String::new() } else { format!("{reason}; ") };
    let reason = format!("{said}{goes_to}until {}", iso8601(until));
    let order = Order { share, honeypot, until, who, reason };
    control(live)?.order(live.now(), about.party(), order);
    reply.line(&json!({ "until": iso8601(until) }))
}

/// A party is treated as everybody else again.
pub(super) fn watch_release(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Release { about, who } = request.read()?;
    let was_watched = control(live)?.release(live.now(), about.party(), &who);
    reply.line(&json!({ "released": was_watched }))
}

impl About {
    fn party(&self) -> Party {
        let (version, addr) = from_ip_addr(self.address);
        let host = Host { version, addr, vlan: self.vlan, vni: self.vni };
        self.service.map_or(Party::Host(host), |(protocol, port)| Party::Service(host, protocol, port))
    }

    /// A host is meant with all of its services.
    fn means(&self, party: &Party) -> bool {
        let own = self.party();
        *party == own || matches!((own, party), (Party::Host(host), Party::Service(of, ..)) if host == *of)
    }
}

fn control(live: &Live) -> Result<MutexGuard<'_, Controller>, Refusal> {
    let none = "no mirror adapts: the configuration needs a [[mirror]] with adapt, min_score or flags, or [adaptive]";
    live.watchers.as_ref().map(|watchers| watchers.lock()).ok_or_else(|| Refusal::new("bad_request", none))
}

/// Its position, from 1.
fn honeypot(live: &Live, name: &str) -> Result<u8, Refusal> {
    let at = live.honeypots.iter().position(|known| known == name);
    at.map(|at| at as u8 + 1).ok_or_else(|| {
        let known = if live.honeypots.is_empty() { "there is none".to_owned() } else { live.honeypots.join(", ") };
        Refusal::new("bad_request", format!("no honeypot `{name}`; known: {known}"))
    })
}

fn told_of(live: &Live, view: &View) -> Value {
    let stage = match view.stage {
        Stage::Risk => "watched",
        Stage::Gray { .. } => "graylisted",
        Stage::Escalated { .. } => "escalated",
    };
    let honeypot = usize::from(view.honeypot).checked_sub(1).and_then(|at| live.honeypots.get(at));
    json!({
        "party": PartyLine::of(&view.party, &*live.names),
        "stage": stage,
        "share": view.share,
        "score": view.score,
        "flags": Flags::from_bits(view.flags).names().collect::<Vec<_>>(),
        "divert": honeypot,
        "since": iso8601(view.since),
        "until": iso8601(view.until),
        "ordered_by": view.ordered.as_ref().map(|order| &order.who),
        "reason": view.ordered.as_ref().map(|order| &order.reason),
    })
}
