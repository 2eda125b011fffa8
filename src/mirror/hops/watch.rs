//! One route watched: its neighbour found and kept, its collector's health checked. Time is an argument.

use std::sync::Arc;

use super::hop::{Health, Hop, HopState, Probe, Route};
use super::wire::{self, Heard};
use crate::packet::{Mac, hash_words};

const SECOND: u64 = 1_000_000_000;
/// Questions without an answer after which a neighbour is gone; they are so far apart.
const QUESTIONS: u32 = 3;
const PATIENCE: u64 = SECOND;
/// Longest time between two questions for a neighbour who never answers.
const LONGEST: u64 = 32 * SECOND;
/// Ports that probes come from.
const FIRST_PORT: u16 = 0xc000;

/// See the module.
#[derive(Debug)]
pub struct Watch {
    pub route: Route,
    pub hop: Arc<Hop>,
    /// Tells its probes from those of other routes.
    number: u16,
    mac: Option<Mac>,
    /// Questions since the last answer, and when the next one is due.
    asked: u32,
    ask_at: u64,
    check: Option<Check>,
}

/// Where the health checks are.
#[derive(Clone, Copy, Debug)]
struct Check {
    health: Health,
    up: bool,
    /// Probes sent; the last one, if it has not been answered.
    sent: u32,
    waiting: bool,
    probe_at: u64,
    failures: u32,
    successes: u32,
}

impl Watch {
    pub fn new(route: Route, hop: Arc<Hop>, number: u16, now: u64) -> Self {
        let check = route.health.map(|health| Check {
            health,
            up: true,
            sent: 0,
            waiting: false,
            probe_at: now,
            failures: 0,
            successes: 0,
        });
        Self { mac: route.fixed, route, hop, number, asked: 0, ask_at: now, check }
    }

    /// Sends what is due.
    pub fn step(&mut self, now: u64, send: &mut dyn FnMut(&[u8])) {
        if self.route.fixed.is_none() && now >= self.ask_at {
            self.ask(now, send);
        }
        if self.check.is_some_and(|check| now >= check.probe_at) {
            self.probe(now, send);
        }
        self.settle(now);
    }

    /// Takes in what was said on the route's port and VLAN.
    pub fn hear(&mut self, heard: &Heard, now: u64, send: &mut dyn FnMut(&[u8])) {
        match *heard {
            Heard::Here { who, mac } | Heard::Question { from: who, mac, .. } if who == self.route.ask => {
                self.mac = self.route.fixed.or(Some(mac));
                self.asked = 0;
                self.ask_at = now + self.route.refresh.as_nanos() as u64;
                self.answered(Probe::Neighbour);
            }
            Heard::Echo { from, to, id, number } => {
                let asked = self.check.is_some_and(|check| id == self.number && number == check.sent as u16);
                if asked && from == self.route.dst && to == self.route.src {
                    self.answered(Probe::Echo);
                }
            }
            Heard::Tcp { from, to, ports: (port, own), acknowledged, accepted } => {
                let asked = self.own_port() == own && self.first_number().wrapping_add(1) == acknowledged;
                if !asked || from != self.route.dst || to != self.route.src {
                    return;
                }
                if !accepted {
                    self.refused(Probe::Tcp(port));
                } else if let Some(mac) = self.mac {
                    self.answered(Probe::Tcp(port));
                    send(&wire::tcp(&self.route, mac, (own, port), acknowledged, true));
                }
            }
            _ => {}
        }
        self.settle(now);
    }

    fn ask(&mut self, now: u64, send: &mut dyn FnMut(&[u8])) {
        if self.asked >= QUESTIONS {
            self.mac = None;
        }
        // The neighbour known so far first: everybody else need not listen.
        let him = self.mac.filter(|_| self.asked == 0);
        send(&wire::question(&self.route, him));
        self.asked = self.asked.saturating_add(1);
        let doublings = self.asked.saturating_sub(QUESTIONS).min(5);
        self.ask_at = now + (PATIENCE << doublings).min(LONGEST);
    }

    fn probe(&mut self, now: u64, send: &mut dyn FnMut(&[u8])) {
        let Some(check) = &mut self.check else { return };
        if self.mac.is_none() && check.health.probe != Probe::Neighbour {
            // Nobody to send it to, which is told apart.
            check.waiting = false;
            return;
        }
        check.probe_at = now + check.health.interval.as_nanos() as u64;
        if std::mem::take(&mut check.waiting) {
            check.fail();
        }
        check.sent = check.sent.wrapping_add(1);
        let (probe, sent) = (check.health.probe, check.sent);
        let frame = match (probe, self.mac) {
            (Probe::Neighbour, mac) => Some(wire::question(&self.route, mac.filter(|_| self.asked == 0))),
            (Probe::Echo, Some(mac)) => Some(wire::echo(&self.route, mac, self.number, sent as u16)),
            (Probe::Tcp(port), Some(mac)) => {
                Some(wire::tcp(&self.route, mac, (self.own_port(), port), self.first_number(), false))
            }
            (_, None) => None,
        };
        let Some(frame) = frame else { return };
        send(&frame);
        if let Some(check) = &mut self.check {
            check.waiting = true;
        }
    }

    fn answered(&mut self, probe: Probe) {
        if let Some(check) = self.check.as_mut().filter(|check| check.waiting && check.health.probe == probe) {
            check.waiting = false;
            check.succeed();
        }
    }

    fn refused(&mut self, probe: Probe) {
        if let Some(check) = self.check.as_mut().filter(|check| check.waiting && check.health.probe == probe) {
            check.waiting = false;
            check.fail();
        }
    }

    /// Of the latest probe.
    fn own_port(&self) -> u16 {
        let sent = self.check.map_or(0, |check| check.sent);
        FIRST_PORT | (self.number.wrapping_mul(257).wrapping_add(sent as u16) & 0x3fff)
    }

    fn first_number(&self) -> u32 {
        let sent = self.check.map_or(0, |check| check.sent);
        hash_words([u64::from(self.number), sent.into()]) as u32
    }

    fn settle(&self, now: u64) {
        let state = match (self.mac, self.check) {
            (None, _) => HopState::NoNeighbour,
            (Some(mac), Some(check)) if !check.up => HopState::Down(mac),
            (Some(mac), _) => HopState::Up(mac),
        };
        let before = self.hop.set(state, now);
        if before != state {
            self.tell(before, state);
        }
    }

    fn tell(&self, before: HopState, state: HopState) {
        let Route { target, dst, ask, .. } = &self.route;
        match state {
            HopState::NoNeighbour => {
                log::warn!("target `{target}`: nobody answers for {ask}; copies to {dst} are dropped")
            }
            HopState::Down(_) => log::warn!("target `{target}`: {dst} does not answer its health checks"),
            HopState::Up(mac) if before.name() == state.name() => {
                log::info!("target `{target}`: the next hop to {dst} is {mac} now");
            }
            HopState::Up(mac) => log::info!("target `{target}`: {dst} is up, by way of {mac}"),
        }
    }
}

impl Check {
    fn fail(&mut self) {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.health.fall {
            self.up = false;
        }
    }

    fn succeed(&mut self) {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        if self.successes >= self.health.rise {
            self.up = true;
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
