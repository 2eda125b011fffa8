//! Collectors of copies, and the way of each mirror's copies.

use super::names::Names;
use super::ports::Ports;
use super::wraps::{self, wrap};
use crate::config::document::Place;
use crate::config::problem::Problems;
use crate::config::raw_mirrors::{OversizeWord, RawMirror, RawTarget};
use crate::config::shape::{Entry, Shaped};
use crate::mirror::{Cap, Delivery, Oversize, Wrap};

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
    /// Own address, as it was written.
    own: Option<String>,
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
        let own = raw.from.as_deref().map(|text| text.split('/').next().unwrap_or(text).to_owned());
        // One address has one MAC address.
        let same = targets.targets.iter().position(|other| other.own.is_some() && other.own == own);
        let number = same.unwrap_or(targets.targets.len());
        let wrap = if wrong.none_of(&wraps::KEYS) { wrap(problems, &place, &raw, number) } else { None };
        targets.warn_deaf(problems, &place, port, wrap.as_ref());
        let oversize = match raw.oversize {
            OversizeWord::Truncate => Oversize::Truncate,
            OversizeWord::Drop => Oversize::Drop,
        };
        let bits = raw.max_rate.as_ref().map_or(0, |rate| rate.bits_per_second());
        let cap = Cap { bits, packets: raw.max_packets.unwrap_or(0) };
        let delivery = Delivery { wrap, slice: raw.slice, mtu: raw.mtu, oversize, cap };
        targets.targets.push(Target { port, own, delivery });
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
        let port = target.port.unwrap_or(virtual_port);
        delivery.wrap.iter_mut().flat_map(|wrap| wrap.routes.iter_mut().flatten()).for_each(|route| route.port = port);
        (port, delivery)
    }

    /// Answers come to addresses that are not the port's own.
    fn warn_deaf(&self, problems: &mut Problems<'_>, place: &Place, port: Option<usize>, wrap: Option<&Wrap>) {
        let asks = wrap.is_some_and(|wrap| wrap.routes.iter().any(Option::is_some));
        let Some(port) = port.map(|port| &self.ports.ports[port]).filter(|port| asks && !port.promiscuous) else {
            return;
        };
        let message = format!("port `{}` does not receive what is sent to the target's own MAC address", port.name);
        let problem = problems.warning(&place.key("port"), message);
        problem.allowed("`promiscuous = true` at the port, or `to_mac` and no `health` at the target");
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
