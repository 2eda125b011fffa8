//! Ports and pairs.

use std::collections::HashMap;

use super::names::Names;
use crate::config::adaptive::Honeypot;
use crate::config::document::Place;
use crate::config::model::{Eal, Port};
use crate::config::problem::Problems;
use crate::config::raw::{RawPair, RawPort};
use crate::config::shape::{Entry, Shaped};
use crate::config::text::PciAddress;
use crate::mirror::Session;
use crate::rules::MirrorMatch;

#[derive(Debug)]
pub(super) struct Ports {
    pub(super) ports: Vec<Port>,
    pub(super) pairs: Vec<(usize, usize)>,
    pub(super) names: Names,
    places: Vec<Place>,
    /// Place of the pair that a port is in.
    pub(super) paired: HashMap<usize, Place>,
}

pub(super) fn resolve(problems: &mut Problems<'_>, shaped: &mut Shaped, eal: &Eal) -> Ports {
    let entries: Vec<Entry<RawPort>> = shaped.list(problems, "port");
    let names = Names::new("port", shaped.names_known("port", "name"));
    let mut ports = Ports { ports: Vec::new(), pairs: Vec::new(), names, places: Vec::new(), paired: HashMap::new() };
    let mut devices: HashMap<String, Place> = HashMap::new();
    for Entry { place, raw, .. } in entries {
        ports.names.define(problems, &place.key("name"), &raw.name.0, ports.ports.len());
        device(problems, &place.key("device"), &raw, eal, &mut devices);
        ports.ports.push(Port {
            name: raw.name.0,
            device: raw.device.canonical(),
            mtu: raw.mtu,
            promiscuous: raw.promiscuous,
            rx_descriptors: raw.rx_descriptors,
            tx_descriptors: raw.tx_descriptors,
            rx_queues: raw.rx_queues,
        });
        ports.places.push(place);
    }
    for Entry { place, raw, .. } in shaped.list::<RawPair>(problems, "pair") {
        ports.pair(problems, &place.key("ports"), &raw);
    }
    ports
}

fn device(problems: &mut Problems<'_>, place: &Place, port: &RawPort, eal: &Eal, devices: &mut HashMap<String, Place>) {
    let pci = port.device.is_pci();
    let name = port.device.device_name();
    let name = if pci { PciAddress::canonical(name) } else { name.to_owned() };
    if let Some(first) = devices.get(&name) {
        let line = problems.document.line_of(first);
        let problem = problems.error(place, format!("device `{name}` is used by two ports"));
        problem.found(format!("`{name}`")).related(line, "first used here");
        return;
    }
    if pci && !eal.pci_allow.is_empty() && !eal.pci_allow.contains(&name) {
        let problem = problems.error(place, format!("DPDK may not probe `{name}`, it is not in `eal.pci_allow`"));
        problem.found(format!("`{name}`")).allowed("add it to `eal.pci_allow`, or leave that out to allow all ports");
    }
    if pci && !eal.hugepages {
        let problem = problems.warning(place, "most physical ports do not start without hugepages");
        problem.allowed("[eal] hugepages = true");
    }
    devices.insert(name, place.clone());
}

impl Ports {
    fn pair(&mut self, problems: &mut Problems<'_>, place: &Place, raw: &RawPair) {
        let mut found = Vec::new();
        for (position, name) in raw.ports.iter().enumerate() {
            let here = place.index(position);
            let Some(port) = self.names.lookup(problems, &here, name) else { continue };
            if found.contains(&port) {
                problems.error(&here, format!("port `{name}` is paired with itself")).allowed("two different ports");
                continue;
            }
            if let Some(first) = self.paired.get(&port) {
                let line = problems.document.line_of(first);
                let problem = problems.error(&here, format!("port `{name}` is in two pairs"));
                problem.found(format!("`{name}`")).related(line, "first paired here");
                continue;
            }
            self.paired.insert(port, here);
            found.push(port);
        }
        if let [a, b] = found[..] {
            self.pairs.push((a, b));
        }
    }

    /// A port that nothing uses is probably a forgotten pair.
    pub(super) fn warn_unused(
        &self,
        problems: &mut Problems<'_>,
        mirrors: &[(Session, MirrorMatch)],
        honeypots: &[Honeypot],
    ) {
        for (index, port) in self.ports.iter().enumerate() {
            let is_used = mirrors.iter().any(|(session, _)| session.port == index)
                || honeypots.iter().any(|honeypot| honeypot.port == Some(index));
            if !self.paired.contains_key(&index) && !is_used {
                let message = format!("port `{}` is in no pair, and no mirror or honeypot uses it", port.name);
                problems.warning(&self.places[index], message);
            }
        }
    }
}
