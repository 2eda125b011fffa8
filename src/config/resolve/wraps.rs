//! What the copies of a target are wrapped in, and the ways to its collectors.

use std::net::IpAddr;

use ipnet::IpNet;

use super::filter::items;
use super::settings::duration;
use crate::config::document::Place;
use crate::config::problem::Problems;
use crate::config::raw_mirrors::{RawTarget, TunnelWord};
use crate::mirror::Wrap;
use crate::mirror::hops::{Health, Route};
use crate::mirror::wrap::{Outer, Tunnel};
use crate::packet::Mac;

/// What an envelope is made of: it is left out when something of this is wrong.
pub(super) const KEYS: [&str; 11] = [
    "tunnel",
    "to",
    "from",
    "to_mac",
    "from_mac",
    "gateway",
    "refresh",
    "health",
    "health_interval",
    "health_fall",
    "health_rise",
];
/// Hops that wrapped copies may take.
const TTL: u8 = 64;
/// Most collectors of a pool.
const MOST_MEMBERS: usize = 64;
/// Made MAC addresses: locally administered, the last byte counts own addresses.
const OWN_MAC: [u8; 5] = [0x02, 0x67, 0x6e, 0x6f, 0x6d];

/// The envelope, with the id still to come.
pub(super) fn wrap(problems: &mut Problems<'_>, place: &Place, raw: &RawTarget, number: usize) -> Option<Wrap> {
    let tunnel = tunnel(problems, place, raw)?;
    let own = own(problems, &place.key("from"), raw.from.as_ref()?)?;
    let members = members(problems, place, raw, own.addr())?;
    let macs = macs(problems, place, raw, members.len())?;
    let hops = Hops { problems, place, raw, own };
    let routes = hops.routes(&members, &macs, number)?;
    let outer = |route: &Route| Outer {
        src_mac: route.src_mac,
        dst_mac: route.fixed.unwrap_or_default(),
        vlan: route.vlan,
        src: route.src,
        dst: route.dst,
        dscp: raw.dscp,
        ttl: TTL,
    };
    let outers = routes.iter().map(outer).collect();
    let is_watched = |route: &Route| route.fixed.is_none() || route.health.is_some();
    let routes = routes.into_iter().map(|route| Some(route).filter(is_watched)).collect();
    Some(Wrap { outers, routes, tunnel, id: 0 })
}

/// Its tunnel; `None` when there is none, or nothing to make one of.
fn tunnel(problems: &mut Problems<'_>, place: &Place, raw: &RawTarget) -> Option<Tunnel> {
    let needed = [("to", raw.to.is_some()), ("from", raw.from.is_some())];
    let Some(tunnel) = raw.tunnel else {
        let others = [
            ("to_mac", raw.to_mac.is_some()),
            ("from_mac", raw.from_mac.is_some()),
            ("vlan", raw.vlan.is_some()),
            ("gateway", raw.gateway.is_some()),
            ("health", raw.health.is_some()),
        ];
        for (key, _) in needed.into_iter().chain(others).filter(|(_, is)| *is) {
            let problem = problems.error(&place.key(key), format!("`{key}` without `tunnel`"));
            problem.allowed("`tunnel`: vxlan, geneve, gre, erspan2 or erspan3");
        }
        return None;
    };
    for (key, _) in needed.into_iter().filter(|(_, is)| !*is) {
        let problem = problems.error(place, format!("`{key}` is missing: copies are wrapped, and need an address"));
        problem.field = place.key(key).to_string();
        problem.allowed("`to` and `from`, IP addresses");
    }
    Some(match tunnel {
        TunnelWord::Vxlan => Tunnel::Vxlan,
        TunnelWord::Geneve => Tunnel::Geneve,
        TunnelWord::Gre => Tunnel::Gre,
        TunnelWord::Erspan2 => Tunnel::Erspan2,
        TunnelWord::Erspan3 => Tunnel::Erspan3,
    })
}

/// The own address; without a prefix length nobody is known to be on the link, and everybody taken to be.
fn own(problems: &mut Problems<'_>, place: &Place, text: &str) -> Option<IpNet> {
    if !text.contains('/') {
        return address(problems, place, text).map(IpNet::from);
    }
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let problem = problems.error(place, format!("`{text}` is not an IP address")).found(format!("`{text}`"));
        problem.allowed("an IPv4 or IPv6 address, with or without a prefix length, such as 192.0.2.1/24");
    }
    parsed
}

/// The collectors.
fn members(problems: &mut Problems<'_>, place: &Place, raw: &RawTarget, own: IpAddr) -> Option<Vec<IpAddr>> {
    let to_place = place.key("to");
    let texts = items(&to_place, raw.to.as_ref());
    if texts.is_empty() || texts.len() > MOST_MEMBERS {
        problems.error(&to_place, "`to` has no or too many members").allowed(format!("1 to {MOST_MEMBERS} addresses"));
        return None;
    }
    let mut members: Vec<IpAddr> = Vec::new();
    for (here, text) in &texts {
        let member = address(problems, here, text)?;
        if own.is_ipv4() != member.is_ipv4() {
            let problem = problems.error(&place.key("from"), "`from` and `to` are not of the same family");
            problem.found(own.to_string()).allowed("both IPv4 or both IPv6");
            return None;
        }
        if members.contains(&member) {
            problems.error(here, format!("`{member}` is in the pool twice")).allowed("each collector once");
            return None;
        }
        members.push(member);
    }
    Some(members)
}

/// None, one for all members, or one for each.
fn macs(problems: &mut Problems<'_>, place: &Place, raw: &RawTarget, members: usize) -> Option<Vec<Mac>> {
    let here = place.key("to_mac");
    let macs = items(&here, raw.to_mac.as_ref());
    if raw.to_mac.is_some() && macs.len() != 1 && macs.len() != members {
        let problem = problems.error(&here, "`to_mac` does not fit `to`").found(format!("{} of them", macs.len()));
        problem.allowed(format!("one MAC address for all, or {members}: one for each of `to`"));
        return None;
    }
    macs.iter().map(|(_, mac)| mac.0.parse().ok()).collect()
}

/// What routes are made of.
struct Hops<'a, 'p, 'd> {
    problems: &'a mut Problems<'d>,
    place: &'p Place,
    raw: &'p RawTarget,
    own: IpNet,
}

impl Hops<'_, '_, '_> {
    fn routes(self, members: &[IpAddr], macs: &[Mac], number: usize) -> Option<Vec<Route>> {
        let Self { problems, place, raw, own } = self;
        let has_prefix = own.prefix_len() < own.max_prefix_len();
        let gateway = gateway(problems, place, raw, own)?;
        let refresh = duration(problems, &place.key("refresh"), &raw.refresh);
        let health = health(problems, place, raw)?;
        let [a, b, c, d, e] = OWN_MAC;
        let made = Mac([a, b, c, d, e, number as u8]);
        let src_mac = raw.from_mac.as_ref().map_or(Some(made), |mac| mac.0.parse().ok())?;
        let mut routes = Vec::new();
        for (at, dst) in members.iter().enumerate() {
            let fixed = macs.get(at).or(macs.first()).copied();
            let is_near = has_prefix && own.contains(dst);
            if fixed.is_none() && gateway.is_none() && has_prefix && !is_near {
                let message = format!("`{dst}` is not on the link of `from`: who is the next hop to it");
                let problem = problems.error(&place.key("to"), message).found(format!("`{dst}`"));
                problem.allowed(format!("an address of {}, or a `gateway` that is one, or `to_mac`", own.trunc()));
                return None;
            }
            routes.push(Route {
                target: raw.name.0.clone(),
                port: 0,
                vlan: raw.vlan.filter(|vlan| *vlan != 0),
                src_mac,
                src: own.addr(),
                dst: *dst,
                fixed,
                ask: gateway.filter(|_| !is_near).unwrap_or(*dst),
                refresh,
                health,
            });
        }
        Some(routes)
    }
}

/// `Some(None)` when there is none.
#[expect(clippy::option_option, reason = "wrong, absent and present are three things")]
fn gateway(problems: &mut Problems<'_>, place: &Place, raw: &RawTarget, own: IpNet) -> Option<Option<IpAddr>> {
    let Some(text) = &raw.gateway else { return Some(None) };
    let here = place.key("gateway");
    if raw.to_mac.is_some() {
        let problem = problems.error(&here, "`gateway` beside `to_mac`");
        problem.allowed("either the next hop's address or its MAC address");
        return None;
    }
    let gateway = address(problems, &here, text)?;
    let has_prefix = own.prefix_len() < own.max_prefix_len();
    if gateway.is_ipv4() != own.addr().is_ipv4() || has_prefix && !own.contains(&gateway) || gateway == own.addr() {
        let problem = problems.error(&here, "the gateway is not on the link of `from`").found(format!("`{gateway}`"));
        problem.allowed(format!("another address on the link of {own}"));
        return None;
    }
    Some(Some(gateway))
}

/// `Some(None)` when nothing is checked.
#[expect(clippy::option_option, reason = "wrong, absent and present are three things")]
fn health(problems: &mut Problems<'_>, place: &Place, raw: &RawTarget) -> Option<Option<Health>> {
    let Some(text) = &raw.health else { return Some(None) };
    let Some(probe) = text.probe() else {
        let problem = problems.error(&place.key("health"), "there is no such port").found(format!("`{}`", text.0));
        problem.allowed("a port from 1 to 65535");
        return None;
    };
    let interval = duration(problems, &place.key("health_interval"), &raw.health_interval);
    Some(Some(Health { probe, interval, fall: raw.health_fall, rise: raw.health_rise }))
}

fn address(problems: &mut Problems<'_>, place: &Place, text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let problem = problems.error(place, format!("`{text}` is not an IP address")).found(format!("`{text}`"));
        problem.allowed("an IPv4 or IPv6 address, such as 192.0.2.10 or 2001:db8::10");
    }
    parsed
}
