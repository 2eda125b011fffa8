//! Tunnels in protocols that everybody lets through.
//!
//! **DNS** counts distinct long names below one domain that one host asks one resolver for (see
//! [`crate::packet::long_question`]), within `window`. Every question of a tunnel is another name, because caches would
//! answer it else; ordinary hosts ask for few long names, and again for the same ones. A resolver that asks for many
//! hosts is no ordinary host: it wants an exception.
//!
//! **ICMP** counts echo messages of flows whose frames differ in size by more than 64 bytes, or whose echoes are not as
//! large as what they echo, within `window`. A ping has one size and comes back as it went (RFC 792); what finds the
//! MTU sends a dozen sizes, once. A ping that is cut into fragments comes back in as many.

use crate::behaviour::alert::{AlertKind, Party};
use crate::behaviour::bounded::Recent;
use crate::flow::{FlowRecord, TO_CLIENT, TO_SERVER};
use crate::packet::{Domain, Question};
use crate::worker::Observation;

use super::attempt;
use super::book::{Book, Known};
use super::episode::{Bar, Detail, Key, Scene, Sighting};
use super::fan::{self, Fan, Try};
use super::gauge::{Count, Gauges};
use super::limits::Limits;
use super::scan::{Attempt, advance, rule};
use crate::packet::Host;

/// Hosts and domains remembered.
const DOMAINS: usize = 4_096;
/// Bytes by which the frames of a ping may differ: padding, and a request that was cut.
const SAME_SIZE: u64 = 64;
/// Frames of this size may be fragments of a large ping, of which the last one is smaller.
const FRAGMENTED: u64 = 1280;

/// Names asked for lately.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    asked: Recent<(Host, Domain), Fan>,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self { asked: Recent::new(DOMAINS) }
    }

    pub(crate) fn len(&self) -> usize {
        self.asked.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.asked.evicted()
    }

    /// A long name that somebody asks for.
    pub(crate) fn question(&mut self, book: &mut Book, limits: &Limits, o: &Observation, q: &Question) {
        let (client, resolver) = (Host::source(&o.tuple), Host::destination(&o.tuple));
        let Some(limit) = limits.of(AlertKind::DnsTunnel, &client, &resolver) else { return };
        let fan = self.asked.get_or((client, q.domain), Fan::default);
        let a_try = Try { time: o.clock, target: fan::words(q.name.into()), flow_id: o.flow_id, failed: true };
        let last = Sighting {
            time: o.clock,
            end: o.clock,
            flow_id: o.flow_id,
            rule: None,
            protocol: Some(o.tuple.protocol),
            port: Some(o.tuple.dst_port),
            host: Some(resolver),
            count: 1.0,
            level: fan.around(o.clock, limits.window).failed as f64,
            failed: false,
            packets: 1,
            bytes: q.carried.into(),
        };
        let key = key(client, resolver);
        let scene = Scene { emitted: o.clock, ..Scene::default() };
        let earlier = |t: &Try| Sighting { time: t.time, flow_id: t.flow_id, ..last };
        if advance(book, fan, &[rule(limit, limits.window)], Attempt { a_try, last, scene }, |_| Some(key), earlier) {
            book.tell(&key, Detail { domain: Some(q.domain), ..Detail::default() });
        }
    }
}

fn key(client: Host, resolver: Host) -> Key {
    Key { kind: AlertKind::DnsTunnel, actor: Party::Host(client), victim: Party::Host(resolver) }
}

/// Whether the questions of a record are part of a tunnel that is known.
pub(crate) fn is_known(book: &Book, r: &FlowRecord) -> bool {
    let asks = r.tuple.protocol == attempt::UDP && r.tuple.dst_port == 53;
    asks && book.known(&key(Host::source(&r.tuple), Host::destination(&r.tuple)), r.start) == Known::Open
}

/// True when the record is part of a tunnel through ICMP.
pub(crate) fn echo(gauges: &mut Gauges, book: &mut Book, limits: &Limits, r: &FlowRecord) -> bool {
    let echo = matches!((r.tuple.protocol, r.icmp.0), (1, 0 | 8) | (58, 128 | 129));
    let victim = Host::destination(&r.tuple);
    if !echo || r.is_empty() || victim.is_group() {
        return false;
    }
    // An echo first: who it goes to has asked.
    let (asks, echoes) = (Host::source(&r.tuple), victim);
    let (actor, victim) = if matches!(r.icmp.0, 0 | 129) { (echoes, asks) } else { (asks, echoes) };
    let Some(threshold) = limits.of(AlertKind::IcmpTunnel, &actor, &victim) else { return false };
    let key = Key { kind: AlertKind::IcmpTunnel, actor: Party::Host(actor), victim: Party::Host(victim) };
    let packets = (r.packets[TO_SERVER] + r.packets[TO_CLIENT]) as f64;
    let weight = if carries(r) { (packets, 0.0) } else { (0.0, packets) };
    let bar = Bar { threshold, window: limits.window };
    gauges.count(book, &Count { key, part: 0, weight, per: 1.0, bar, over: None, host: victim }, r)
}

/// Sizes differ from frame to frame, or from question to echo.
fn carries(r: &FlowRecord) -> bool {
    let [there, back] = r.packets;
    let mean = |way: usize| r.bytes[way] as f64 / r.packets[way].max(1) as f64;
    if back > 0 && (mean(TO_SERVER) - mean(TO_CLIENT)).abs() > SAME_SIZE as f64 {
        return true;
    }
    let whole = back > 0 && there.abs_diff(back) <= 1 + there / 50;
    let fragments = r.sizes.max >= FRAGMENTED && whole;
    r.sizes.max.saturating_sub(r.sizes.min) > SAME_SIZE && !fragments
}
