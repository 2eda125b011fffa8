//! Collectors of copies, and the way of each mirror's copies.

use std::sync::Arc;
use std::time::Duration;

use super::filter::items;
use super::names::Names;
use super::ports::Ports;
use super::settings::duration;
use super::wraps::{self, wrap};
use crate::config::document::Place;
use crate::config::problem::Problems;
use crate::config::raw_mirrors::{OversizeWord, RawMirror, RawTarget, SliceSpec};
use crate::config::shape::{Entry, Shaped};
use crate::config::text::DurationText;
use crate::mirror::{Cap, Delivery, Mask, Oversize, Pattern, Slice, Wrap};

const SHORTEST_SLICE: u16 = 14;
const LONGEST_PATTERN: usize = 256;
const LONGEST_DEDUP: Duration = Duration::from_secs(10);

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
        let delivery = delivery(problems, &place, &raw, wrap);
        if let Some(port) = port.map(|port| &ports.ports[port]).filter(|_| delivery.wrap.is_some())
            && let Some(mtu) = port.mtu.filter(|mtu| u32::from(*mtu) < raw.mtu)
        {
            let problem = problems.error(&place.key("mtu"), format!("port `{}` takes no more than {mtu}", port.name));
            problem.found(raw.mtu.to_string()).allowed(format!("at most the port's `mtu`, {mtu}"));
        }
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
        let dedup_ns = raw.dedup.as_ref().map(|window| dedup(problems, place, window));
        let Some(at) = raw.to.as_ref().and_then(|name| self.names.get(name)) else {
            let port = match &raw.to {
                Some(name) if self.ports.names.get(name).is_none() => {
                    self.unknown(problems, &here, name);
                    None
                }
                other => self.port(problems, &here, place, other.as_ref(), sound),
            };
            let delivery = Delivery { dedup_ns: dedup_ns.unwrap_or(0), ..Delivery::default() };
            return (port.unwrap_or(virtual_port), delivery);
        };
        let target = &self.targets[at];
        let mut delivery = target.delivery.clone();
        delivery.dedup_ns = dedup_ns.unwrap_or(delivery.dedup_ns);
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

/// How copies are cut, masked and capped.
fn delivery(problems: &mut Problems<'_>, place: &Place, raw: &RawTarget, wrap: Option<Wrap>) -> Delivery {
    let oversize = match raw.oversize {
        OversizeWord::Truncate => Oversize::Truncate,
        OversizeWord::Drop => Oversize::Drop,
        OversizeWord::Fragment => Oversize::Fragment,
    };
    let slice = raw.slice.as_ref().map(|slice| match slice {
        SliceSpec::Bytes(bytes) => {
            if *bytes < SHORTEST_SLICE {
                let problem = problems.error(&place.key("slice"), "the slice is out of range").found(bytes.to_string());
                problem.allowed(format!("{SHORTEST_SLICE} to 65535 bytes, or \"headers\""));
            }
            Slice::Bytes((*bytes).into())
        }
        SliceSpec::Headers(text) => Slice::Headers(text.more()),
    });
    let bits = raw.max_rate.as_ref().map_or(0, |rate| rate.bits_per_second());
    let cap = Cap { bits, packets: raw.max_packets.unwrap_or(0) };
    let mask = raw.mask.as_ref().and_then(|_| mask(problems, &place.key("mask"), raw)).map(Arc::new);
    let dedup_ns = raw.dedup.as_ref().map_or(0, |window| dedup(problems, place, window));
    Delivery { wrap, slice, mask, dedup_ns, mtu: raw.mtu, oversize, cap }
}

fn mask(problems: &mut Problems<'_>, place: &Place, raw: &RawTarget) -> Option<Mask> {
    let texts = items(place, raw.mask.as_ref());
    if let [(_, text)] = texts[..]
        && text == "all"
    {
        return Some(Mask::All);
    }
    let mut patterns = Vec::new();
    for (here, text) in &texts {
        let Some(found) = pattern(text) else {
            let problem = problems.error(here, format!("`{text}` is no pattern")).found(format!("`{text}`"));
            problem.allowed(
                "\"all\" alone; \"digits:N\" with N from 1 to 99, \"text:WORDS\", \"after:WORDS\" or \"hex:0a0b\", of 1 to 256 bytes",
            );
            return None;
        };
        patterns.push(found);
    }
    if patterns.is_empty() {
        problems.error(place, "the list is empty").found("[]").allowed("\"all\", or at least one pattern");
    }
    Some(Mask::Patterns(patterns))
}

fn pattern(text: &str) -> Option<Pattern> {
    let (kind, what) = text.split_once(':')?;
    let bytes = |bytes: Vec<u8>| Some(bytes).filter(|bytes| (1..=LONGEST_PATTERN).contains(&bytes.len()));
    match kind {
        "digits" => what.parse().ok().filter(|least| (1..=99).contains(least)).map(Pattern::Digits),
        "text" => bytes(what.into()).map(Pattern::Bytes),
        "after" => bytes(what.into()).map(Pattern::After),
        "hex" => {
            let digits: Option<Vec<u8>> = what.chars().map(|c| Some(c.to_digit(16)? as u8)).collect();
            let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
            bytes(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()).map(Pattern::Bytes)
        }
        _ => None,
    }
}

/// In nanoseconds.
fn dedup(problems: &mut Problems<'_>, place: &Place, text: &DurationText) -> u64 {
    let window = duration(problems, &place.key("dedup"), text);
    if window > LONGEST_DEDUP && text.duration() == Some(window) {
        let problem = problems.error(&place.key("dedup"), "the window is too long").found(format!("`{}`", text.0));
        problem.allowed("at most 10s: the last 8192 packets are remembered");
    }
    window.as_nanos() as u64
}
