//! Routes, and what is known of each.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::packet::Mac;

/// The way from a port to one collector, as it was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name of the target, for people.
    pub target: String,
    /// Index of the port in the configuration's list.
    pub port: usize,
    pub vlan: Option<u16>,
    /// Own addresses.
    pub src_mac: Mac,
    pub src: IpAddr,
    /// The collector.
    pub dst: IpAddr,
    /// The next hop's, when it need not be found.
    pub fixed: Option<Mac>,
    /// Who is asked for a MAC address: the gateway, or the collector itself.
    pub ask: IpAddr,
    /// How long an answer is good.
    pub refresh: Duration,
    pub health: Option<Health>,
}

/// How it is told whether a collector is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub probe: Probe,
    /// Between two probes; an answer that takes longer is none.
    pub interval: Duration,
    /// Failures in a row that take it down, successes in a row that bring it back.
    pub fall: u32,
    pub rise: u32,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Its MAC address, or that of the gateway to it.
    Neighbour,
    /// ICMP or ICMPv6 echo.
    Echo,
    /// A TCP connection, given up when it is accepted.
    Tcp(u16),
}

/// What is known of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopState {
    /// Nobody answers for the next hop's address.
    NoNeighbour,
    /// The collector fails its health checks.
    Down(Mac),
    Up(Mac),
}

impl HopState {
    /// As reports call it.
    pub fn name(self) -> &'static str {
        match self {
            HopState::NoNeighbour => "no_neighbour",
            HopState::Down(_) => "down",
            HopState::Up(_) => "up",
        }
    }

    pub fn mac(self) -> Option<Mac> {
        match self {
            HopState::NoNeighbour => None,
            HopState::Down(mac) | HopState::Up(mac) => Some(mac),
        }
    }
}

/// The state of a route: one writer, any number of readers, one word.
#[derive(Debug)]
pub struct Hop {
    word: AtomicU64,
    /// When it came into this kind of state, in nanoseconds since the Unix epoch; 0 for the start.
    since: AtomicU64,
}

const KNOWN: u64 = 1 << 63;
const UP: u64 = 1 << 62;

impl Hop {
    pub fn new(state: HopState) -> Self {
        Self { word: AtomicU64::new(word_of(state)), since: AtomicU64::new(0) }
    }

    /// The state as a number, to see whether it changed.
    #[inline]
    pub fn word(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }

    pub fn state(&self) -> HopState {
        state_of(self.word())
    }

    pub fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// Returns what it was before.
    pub fn set(&self, state: HopState, now: u64) -> HopState {
        let before = state_of(self.word.swap(word_of(state), Ordering::Relaxed));
        if before.name() != state.name() {
            self.since.store(now, Ordering::Relaxed);
        }
        before
    }
}

/// Hops have an identity, not a value.
impl PartialEq for Hop {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

fn word_of(state: HopState) -> u64 {
    let bits = |mac: Mac| mac.0.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
    match state {
        HopState::NoNeighbour => 0,
        HopState::Down(mac) => KNOWN | bits(mac),
        HopState::Up(mac) => KNOWN | UP | bits(mac),
    }
}

/// What [`Hop::word`] means.
pub(crate) fn state_of(word: u64) -> HopState {
    let [_, _, a, b, c, d, e, f] = word.to_be_bytes();
    let mac = Mac([a, b, c, d, e, f]);
    match (word & KNOWN != 0, word & UP != 0) {
        (false, _) => HopState::NoNeighbour,
        (true, false) => HopState::Down(mac),
        (true, true) => HopState::Up(mac),
    }
}

/// The routes in force and their hops. Sessions with one route share its hop, and it outlives reloads.
#[derive(Debug)]
pub struct Hops {
    known: RwLock<Vec<(Route, Arc<Hop>)>>,
    /// What is taken for the next hop until somebody knows better.
    presumed: Option<Mac>,
}

impl Hops {
    /// `presumed`: the next hop of routes that have none, where nobody can be asked.
    pub fn new(presumed: Option<Mac>) -> Self {
        Self { known: RwLock::default(), presumed }
    }

    /// The hop of a route, which is known from now on.
    pub fn enter(&self, route: &Route) -> Arc<Hop> {
        let mut known = self.known.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, hop)) = known.iter().find(|(other, _)| other == route) {
            return hop.clone();
        }
        let first = route.fixed.or(self.presumed).map_or(HopState::NoNeighbour, HopState::Up);
        let hop = Arc::new(Hop::new(first));
        known.push((route.clone(), hop.clone()));
        hop
    }

    /// Forgets all routes but these.
    pub fn keep_only(&self, routes: &[Route]) {
        let mut known = self.known.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        known.retain(|(route, _)| routes.contains(route));
    }

    pub fn of(&self, route: &Route) -> Option<Arc<Hop>> {
        let known = self.known.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        known.iter().find(|(other, _)| other == route).map(|(_, hop)| hop.clone())
    }

    pub fn all(&self) -> Vec<(Route, Arc<Hop>)> {
        self.known.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_every_state() {
        let mac = Mac([0xff, 1, 2, 3, 4, 0xfe]);
        for state in [HopState::NoNeighbour, HopState::Down(mac), HopState::Up(mac), HopState::Up(Mac([0; 6]))] {
            assert_eq!(Hop::new(state).state(), state);
        }
        let hop = Hop::new(HopState::Up(mac));
        assert_eq!(hop.set(HopState::Up(Mac([2; 6])), 5), HopState::Up(mac));
        assert_eq!(hop.since(), 0, "another address is no other kind of state");
        hop.set(HopState::NoNeighbour, 7);
        assert_eq!((hop.since(), hop.state()), (7, HopState::NoNeighbour));
    }
}
