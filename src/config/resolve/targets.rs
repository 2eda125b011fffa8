//! Collectors of copies, and the way of each mirror's copies.

use std::net::IpAddr;

use super::filter::items;
use super::names::Names;
use super::ports::Ports;
use crate::config::document::Place;
use crate::config::problem::Problems;
use crate::config::raw_mirrors::{OversizeWord, RawMirror, RawTarget, TunnelWord};
use crate::config::shape::{Entry, Shaped};
use crate::mirror::wrap::{Outer, Tunnel};
use crate::mirror::{Cap, Delivery, Oversize, Wrap};
use crate::packet::Mac;

/// Hops that wrapped copies may take.
const TTL: u8 = 64;
/// Most collectors of a pool.
const MOST_MEMBERS: usize = 64;
/// Made MAC addresses: locally administered, the last byte counts targets.
const OWN_MAC: [u8; 5] = [0x02, 0x67, 0x6e, 0x6f, 0x6d];

#[derive(Debug)]
pub(super) struct Targets<'a> {
    targets: Vec<Target>,
    names: Names,
    ports: &'a Ports,
}

#[derive(Debug)]
struct Target {
    /// `None` where the file has no ports, or it was wrong.
    port: Option<usize>,
    delivery: Delivery,
}

pub(super) fn resolve<'a>(problems: &mut Problems<'_>, shaped: &mut Shaped, ports: &'a Ports) -> Targets<'a> {
    let entries: Vec<Entry<RawTarget>> = shaped.list(problems, "target");
    let names = Names::new("target", shaped.names_known("target", "name"));
    let mut targets = Targets { targets: Vec::new(), names, ports };
    for Entry { place, raw, wrong } in entries {
        let name = place.key("name");
        targets.names.define(problems, &name, &raw.name.0, targets.targets.len());
        if ports.names.get(&raw.name.0).is_some() {
            let problem = problems.error(&name, format!("`{}` is the name of a port as well", raw.name.0));
            problem.allowed("another name: a mirror could mean either");
        }
        let port = targets.port(problems, &place.key("port"), &place, raw.port.as_ref(), wrong.none_of(&["port"]));
        let sound = wrong.none_of(&["tunnel", "to", "from", "to_mac", "from_mac"]);
        let wrap = if sound { wrap(problems, &place, &raw, targets.targets.len()) } else { None };
        let oversize = match raw.oversize {
            OversizeWord::Truncate => Oversize::Truncate,
            OversizeWord::Drop => Oversize::Drop,
        };
        let bits = raw.max_rate.as_ref().map_or(0, |rate| rate.bits_per_second());
        let cap = Cap { bits, packets: raw.max_packets.unwrap_or(0) };
        let delivery = Delivery { wrap, slice: raw.slice, mtu: raw.mtu, oversize, cap };
        targets.targets.push(Target { port, delivery });
    }
    targets
}

impl Targets<'_> {
    /// The port that a mirror's copies leave by, and how they travel. In a file without ports the numbers are those of
    /// a replay: 0 and 1 are the pair, and each session has one of its own.
    pub(super) fn of_mirror(
        &self,
        problems: &mut Problems<'_>,
        place: &Place,
        sound: bool,
        raw: &RawMirror,
        position: usize,
    ) -> (usize, Delivery) {
        let here = place.key("to");
        let virtual_port = 2 + position;
        let Some(at) = raw.to.as_ref().and_then(|name| self.names.get(name)) else {
            let port = match &raw.to {
                Some(name) if self.ports.names.get(name).is_none() => {
                    self.unknown(problems, &here, name);
                    None
                }
                other => self.port(problems, &here, place, other.as_ref(), sound),
            };
            return (port.unwrap_or(virtual_port), Delivery::default());
        };
        let target = &self.targets[at];
        let mut delivery = target.delivery.clone();
        if let Some(wrap) = &mut delivery.wrap {
            wrap.id = raw.id.unwrap_or(1 + position as u32);
            let most = wrap.tunnel.max_id();
            if sound && wrap.id > most {
                let problem = problems.error(&place.key("id"), "`id` is too large for the target's tunnel");
                problem.found(wrap.id.to_string()).allowed(format!("at most {most}"));
            }
        }
        (target.port.unwrap_or(virtual_port), delivery)
    }

    /// A port that may take copies; reports it when it is missing, unknown or in a pair.
    fn port(
        &self,
        problems: &mut Problems<'_>,
        here: &Place,
        table: &Place,
        name: Option<&String>,
        sound: bool,
    ) -> Option<usize> {
        let Some(name) = name else {
            if sound && !self.ports.ports.is_empty() {
                let key = here.to_string();
                let key = key.rsplit('.').next().unwrap_or_default();
                let problem = problems.error(table, format!("`{key}` is missing: which port do the copies leave by"));
                problem.field = here.to_string();
                problem.allowed("the name of a port that is in no pair");
            }
            return None;
        };
        let port = self.ports.names.lookup(problems, here, name)?;
        if let Some(pair) = self.ports.paired.get(&port) {
            let line = problems.document.line_of(pair);
            let problem = problems.error(here, format!("port `{name}` forwards traffic and cannot take copies"));
            problem.found(format!("`{name}`")).allowed("a port that is in no pair").related(line, "paired here");
        }
        Some(port)
    }

    fn unknown(&self, problems: &mut Problems<'_>, here: &Place, name: &str) {
        if !self.names.is_complete() || !self.ports.names.is_complete() {
            return;
        }
        let nearest = self.names.nearest(name).or_else(|| self.ports.names.nearest(name));
        let problem = problems.error(here, format!("unknown port or target `{name}`")).found(format!("`{name}`"));
        problem.allowed(format!("{}; {}", self.ports.names.listed(), self.names.listed())).suggest(nearest);
    }
}

/// The envelope, with the id still to come.
fn wrap(problems: &mut Problems<'_>, place: &Place, raw: &RawTarget, number: usize) -> Option<Wrap> {
    let given = [("to", raw.to.is_some()), ("from", raw.from.is_some()), ("to_mac", raw.to_mac.is_some())];
    let Some(tunnel) = raw.tunnel else {
        let others = [("from_mac", raw.from_mac.is_some()), ("vlan", raw.vlan.is_some())];
        for (key, _) in given.into_iter().chain(others).filter(|(_, is)| *is) {
            let problem = problems.error(&place.key(key), format!("`{key}` without `tunnel`"));
            problem.allowed("`tunnel`: vxlan, geneve, gre, erspan2 or erspan3");
        }
        return None;
    };
    for (key, _) in given.into_iter().filter(|(_, is)| !*is) {
        let problem = problems.error(place, format!("`{key}` is missing: copies are wrapped, and need an address"));
        problem.field = place.key(key).to_string();
        problem.allowed("`to` and `from`, IP addresses, and `to_mac`, that of the collector or the next hop to it");
    }
    let outers = outers(problems, place, raw, number)?;
    let tunnel = match tunnel {
        TunnelWord::Vxlan => Tunnel::Vxlan,
        TunnelWord::Geneve => Tunnel::Geneve,
        TunnelWord::Gre => Tunnel::Gre,
        TunnelWord::Erspan2 => Tunnel::Erspan2,
        TunnelWord::Erspan3 => Tunnel::Erspan3,
    };
    Some(Wrap { outers, tunnel, id: 0 })
}

/// The outer header for each collector.
fn outers(problems: &mut Problems<'_>, place: &Place, raw: &RawTarget, number: usize) -> Option<Vec<Outer>> {
    let src = address(problems, &place.key("from"), raw.from.as_ref()?)?;
    let [a, b, c, d, e] = OWN_MAC;
    let own = Mac([a, b, c, d, e, number as u8]);
    let src_mac = raw.from_mac.as_ref().map_or(Some(own), |mac| mac.0.parse().ok())?;
    let (to_place, macs_place) = (place.key("to"), place.key("to_mac"));
    let (members, macs) = (items(&to_place, raw.to.as_ref()), items(&macs_place, raw.to_mac.as_ref()));
    if members.is_empty() || members.len() > MOST_MEMBERS {
        problems.error(&to_place, "`to` has no or too many members").allowed(format!("1 to {MOST_MEMBERS} addresses"));
        return None;
    }
    if macs.len() != 1 && macs.len() != members.len() {
        let problem =
            problems.error(&macs_place, "`to_mac` does not fit `to`").found(format!("{} of them", macs.len()));
        problem.allowed(format!("one MAC address for all, or {}: one for each of `to`", members.len()));
        return None;
    }
    let mut outers: Vec<Outer> = Vec::new();
    for (position, (here, text)) in members.iter().enumerate() {
        let dst = address(problems, here, text)?;
        if src.is_ipv4() != dst.is_ipv4() {
            let problem = problems.error(&place.key("from"), "`from` and `to` are not of the same family");
            problem.found(src.to_string()).allowed("both IPv4 or both IPv6");
            return None;
        }
        if outers.iter().any(|outer| outer.dst == dst) {
            problems.error(here, format!("`{dst}` is in the pool twice")).allowed("each collector once");
            return None;
        }
        let (_, mac) = macs.get(position).or(macs.first())?;
        let vlan = raw.vlan.filter(|vlan| *vlan != 0);
        outers.push(Outer { src_mac, dst_mac: mac.0.parse().ok()?, vlan, src, dst, dscp: raw.dscp, ttl: TTL });
    }
    Some(outers)
}

fn address(problems: &mut Problems<'_>, place: &Place, text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let problem = problems.error(place, format!("`{text}` is not an IP address")).found(format!("`{text}`"));
        problem.allowed("an IPv4 or IPv6 address, such as 192.0.2.10 or 2001:db8::10");
    }
    parsed
}
