//! ARP: forged answers, and sweeps of a segment.
//!
//! **Spoofing.** Signs of it are answers to questions that their receiver never asked (in the ten seconds before), by a
//! station that speaks for another address as well, and addresses that go back and forth between stations. The first
//! with the second is told at once; each by itself when there were `arp_spoof` of them within `window`. Hosts announce
//! an address of theirs to all, not to one; an address moves once when a machine is replaced; and the virtual routers of
//! VRRP, HSRP and GLBP, whose addresses are meant to move, have cards of their own that are left out. Bonds that answer
//! different hosts from different cards (`balance-alb`) want an exception.
//!
//! **Sweep.** Counts distinct addresses that one host asks for and that nobody answers for, within `window`. A router asks
//! for what others send to, a host for its few peers.

use crate::behaviour::alert::{AlertKind, Party};
use crate::behaviour::bounded::Recent;
use crate::packet::{Arp, Mac, Tuple};
use crate::worker::Observation;

use super::book::Book;
use super::episode::{Bar, Detail, Key, Scene, Sighting};
use super::fan::{self, Fan, Try};
use super::gauge::note;
use super::limits::Limits;
use super::scan::{Attempt, advance, of_host, rule};
use crate::packet::Host;

/// Addresses, stations and questions remembered.
const ADDRESSES: usize = 8_192;
const STATIONS: usize = 4_096;
const QUESTIONS: usize = 8_192;
const SWEEPERS: usize = 1_024;
/// How long a question may be answered.
const ANSWER_WITHIN: u64 = 10_000_000_000;
/// Addresses remembered of a station.
const OWN: usize = 4;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// What is known of the segments.
#[derive(Clone, Debug)]
pub(crate) struct Lan {
    owners: Recent<Host, Owner>,
    stations: Recent<(Mac, u16, u32), Station>,
    questions: Recent<(Host, Host), u64>,
    sweeps: Recent<Host, Fan>,
}

/// A station speaks for an address.
#[derive(Clone, Copy, Debug)]
struct Claim {
    mac: Mac,
    address: Host,
    told: Host,
    /// It answers what `told` did not ask.
    unasked: bool,
}

/// Who answers for an address.
#[derive(Clone, Copy, Debug, Default)]
struct Owner {
    mac: Mac,
    before: Mac,
    /// Whose it was before it began to move.
    first: Mac,
    returns: u32,
    since: u64,
}

/// What a station answers for.
#[derive(Clone, Debug, Default)]
struct Station {
    addresses: Vec<Host>,
    /// Answers that nobody asked for: the latest forged address, to whom, when, and how many.
    forged: Option<(Host, Host, u64)>,
    unasked: u32,
}

impl Lan {
    pub(crate) fn new() -> Self {
        Self {
            owners: Recent::new(ADDRESSES),
            stations: Recent::new(STATIONS),
            questions: Recent::new(QUESTIONS),
            sweeps: Recent::new(SWEEPERS),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.owners.len() + self.stations.len() + self.questions.len() + self.sweeps.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.owners.evicted() + self.stations.evicted() + self.questions.evicted() + self.sweeps.evicted()
    }

    pub(crate) fn arp(&mut self, book: &mut Book, limits: &Limits, o: &Observation, arp: &Arp) {
        let (sender, target) = (host(&o.tuple, arp.sender_ip), host(&o.tuple, arp.target_ip));
        // Probes of an address that is not in use yet, and announcements, ask for nobody.
        if arp.sender_ip == 0 || is_virtual(arp.sender_mac) {
            return;
        }
        let asks = sender != target && arp.target_ip != 0;
        let unasked = asks && arp.operation == REPLY && self.is_unasked(o.clock, sender, target);
        if arp.operation == REQUEST && asks {
            *self.questions.get_or((sender, target), || 0) = o.clock;
            self.sweep(book, limits, o, sender, target, true);
        }
        if arp.operation == REPLY && asks {
            self.sweep(book, limits, o, target, sender, false);
        }
        self.claim(book, limits, o, &Claim { mac: arp.sender_mac, address: sender, told: target, unasked });
    }

    fn is_unasked(&mut self, clock: u64, sender: Host, asker: Host) -> bool {
        self.questions.get(&(asker, sender)).is_none_or(|asked| clock.saturating_sub(*asked) > ANSWER_WITHIN)
    }

    /// A station speaks for an address.
    fn claim(&mut self, book: &mut Book, limits: &Limits, o: &Observation, claim: &Claim) {
        let Claim { mac, address, told, unasked } = *claim;
        let window = limits.window;
        let Some(threshold) = limits.of(AlertKind::ArpSpoof, &address, &told) else { return };
        let station = self.stations.get_or((mac, o.tuple.vlan, o.tuple.vni), Station::default);
        station.note(address, told, o.clock, window, unasked);
        let owner = self.owners.get_or(address, Owner::default);
        let returned = owner.note(mac, o.clock, window);
        let signs = f64::from(if returned { owner.returns } else { 0 });
        let caught = station.caught(threshold);
        let (forged, told, signs) = match caught {
            Some((forged, told)) => (forged, told, f64::from(station.unasked).max(threshold)),
            None if signs >= threshold => (address, told, signs),
            None => return,
        };
        let forger = if caught.is_some() { mac } else { owner.newcomer() };
        let mut macs = vec![forger];
        macs.extend([owner.mac, owner.before].into_iter().filter(|m| *m != forger && *m != Mac::default()));
        let of_forger = self.stations.get(&(forger, o.tuple.vlan, o.tuple.vni));
        let own = of_forger.and_then(|station| station.addresses.iter().copied().find(|a| *a != forged));
        let last = Sighting { host: Some(told), level: signs, failed: false, ..sighting(o) };
        let key = Key { kind: AlertKind::ArpSpoof, actor: Party::Station(forger), victim: Party::Host(forged) };
        let detail = Detail { macs, own, ..Detail::default() };
        note(book, key, Bar { threshold, window }, &last, scene(o), detail);
    }

    /// Counts the addresses that a host asks for.
    fn sweep(&mut self, book: &mut Book, limits: &Limits, o: &Observation, asker: Host, address: Host, failed: bool) {
        let fan = match failed {
            true => self.sweeps.get_or(asker, Fan::default),
            false => match self.sweeps.get(&asker) {
                Some(fan) => fan,
                None => return,
            },
        };
        let usual = limits.detect.arp_sweep.max(1).into();
        let Some(limit) = limits.or(AlertKind::HostSweep, &asker, &address, usual) else { return };
        let a_try = Try { time: o.clock, target: fan::words(address.addr), flow_id: 0, failed };
        let last = Sighting { host: Some(address), failed, ..sighting(o) };
        let key = Key { kind: AlertKind::HostSweep, actor: Party::Host(asker), victim: Party::Many };
        let attempt = Attempt { a_try, last, scene: scene(o) };
        let rules = [rule(limit, limits.window)];
        advance(book, fan, &rules, attempt, |_| Some(key), |t| of_host(last, address, t));
    }
}

impl Owner {
    /// True when the address came back to a station that had it before, while another had it.
    fn note(&mut self, mac: Mac, clock: u64, window: u64) -> bool {
        if self.mac == mac {
            return false;
        }
        if clock.saturating_sub(self.since) > window || self.first == Mac::default() {
            self.returns = 0;
            self.first = if self.mac == Mac::default() { mac } else { self.mac };
        }
        let returned = self.before == mac && self.mac != Mac::default();
        self.returns += u32::from(returned);
        (self.before, self.mac, self.since) = (self.mac, mac, clock);
        returned
    }

    /// Of two that claim the address, who came later.
    fn newcomer(&self) -> Mac {
        if self.mac == self.first { self.before } else { self.mac }
    }
}

impl Station {
    fn note(&mut self, address: Host, told: Host, clock: u64, window: u64, unasked: bool) {
        if self.forged.is_some_and(|(.., at)| clock.saturating_sub(at) > window) {
            (self.forged, self.unasked) = (None, 0);
        }
        if unasked {
            self.forged = Some((address, told, clock));
            self.unasked += 1;
        }
        if !self.addresses.contains(&address) {
            if self.addresses.len() >= OWN {
                self.addresses.remove(0);
            }
            self.addresses.push(address);
        }
    }

    /// The forged address and who was told, when there are signs enough.
    fn caught(&self, threshold: f64) -> Option<(Host, Host)> {
        let (forged, told, _) = self.forged?;
        let other = self.addresses.iter().any(|a| *a != forged);
        (other || f64::from(self.unasked) >= threshold).then_some((forged, told))
    }
}

fn host(segment: &Tuple, ip: u32) -> Host {
    Host { version: 4, addr: ip.into(), vlan: segment.vlan, vni: segment.vni }
}

fn scene(o: &Observation) -> Scene {
    Scene { emitted: o.clock, ..Scene::default() }
}

fn sighting(o: &Observation) -> Sighting {
    Sighting {
        time: o.clock,
        end: o.clock,
        flow_id: 0,
        rule: None,
        protocol: None,
        port: None,
        host: None,
        count: 1.0,
        level: 0.0,
        failed: true,
        packets: 1,
        bytes: 0,
    }
}

/// Cards of virtual routers (RFC 9568, RFC 2281), whose addresses move by design.
fn is_virtual(mac: Mac) -> bool {
    matches!(
        mac.0,
        [0, 0, 0x5e, 0, 1 | 2, _] | [0, 0, 0x0c, 7, 0xac, _] | [0, 0, 0x0c, 0x9f, 0xf0..=0xff, _] | [0, 7, 0xb4, ..]
    )
}
