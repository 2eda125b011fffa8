//! Collectors of mirrors that cannot be reached: one alert an episode.

use std::sync::Arc;

use crate::export::OutageAlert;
use crate::mirror::hops::{Hop, HopState, Hops, Route};

/// Watches the ways to all collectors.
#[derive(Debug)]
pub struct Outages {
    hops: Arc<Hops>,
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    hop: Arc<Hop>,
    /// It was out of reach at the last look, with nothing said of it yet: at the start all are, for a moment.
    suspected: bool,
    open: Option<OutageAlert>,
}

impl Outages {
    pub fn new(hops: Arc<Hops>) -> Self {
        Self { hops, seen: Vec::new() }
    }

    pub fn open(&self) -> usize {
        self.seen.iter().filter(|seen| seen.open.is_some()).count()
    }

    /// Call it about once a second. `number` gives the number of a new episode. Returns what is to be told.
    pub fn look(&mut self, now: u64, mut number: impl FnMut() -> u64) -> Vec<OutageAlert> {
        let known = self.hops.all();
        let mut news = Vec::new();
        // Of what a reload took out.
        self.seen.retain_mut(|seen| {
            let stays = known.iter().any(|(_, hop)| Arc::ptr_eq(hop, &seen.hop));
            news.extend(seen.open.take_if(|_| !stays).map(|alert| closed(alert, now)));
            stays
        });
        for (route, hop) in known {
            let at = self.seen.iter().position(|seen| Arc::ptr_eq(&seen.hop, &hop)).unwrap_or_else(|| {
                self.seen.push(Seen { hop: hop.clone(), suspected: false, open: None });
                self.seen.len() - 1
            });
            news.extend(self.seen[at].look(&route, now, &mut number));
        }
        news
    }

    /// The end of the run.
    pub fn close(&mut self, now: u64) -> Vec<OutageAlert> {
        self.seen.drain(..).filter_map(|seen| seen.open).map(|alert| closed(alert, now)).collect()
    }
}

impl Seen {
    fn look(&mut self, route: &Route, now: u64, number: &mut impl FnMut() -> u64) -> Option<OutageAlert> {
        let state = self.hop.state();
        if let HopState::Up(_) = state {
            self.suspected = false;
            return self.open.take().map(|alert| closed(alert, now));
        }
        if let Some(alert) = &mut self.open {
            let same = alert.state == state.name();
            (alert.state, alert.last_seen, alert.told) = (state.name(), now, now);
            return (!same).then(|| alert.clone());
        }
        if !std::mem::replace(&mut self.suspected, true) {
            return None;
        }
        let since = self.hop.since();
        self.open = Some(OutageAlert {
            episode: number(),
            closed: false,
            told: now,
            first_seen: if since == 0 { now } else { since },
            last_seen: now,
            target: route.target.clone(),
            collector: route.dst,
            state: state.name(),
        });
        self.open.clone()
    }
}

fn closed(alert: OutageAlert, now: u64) -> OutageAlert {
    OutageAlert { closed: true, told: now, ..alert }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Mac;

    #[test]
    fn an_outage_is_told_when_it_lasts_changes_and_ends() {
        let hops = Arc::new(Hops::new(None));
        let route = |n: u8| Route {
            target: "t".into(),
            port: 0,
            vlan: None,
            src_mac: Mac::default(),
            src: [192, 0, 2, 1].into(),
            dst: [192, 0, 2, n].into(),
            fixed: None,
            ask: [192, 0, 2, n].into(),
            refresh: std::time::Duration::from_secs(1),
            health: None,
        };
        let [a, b] = [route(2), route(3)];
        let (one, other) = (hops.enter(&a), hops.enter(&b));
        let mut outages = Outages::new(hops.clone());
        let told = |outages: &mut Outages, now| -> Vec<_> {
            outages.look(now, || now).into_iter().map(|a| (a.collector, a.state, a.closed, a.first_seen)).collect()
        };
        assert_eq!(told(&mut outages, 1), []);
        one.set(HopState::Up(Mac::default()), 1);
        assert_eq!(told(&mut outages, 2), [(b.dst, "no_neighbour", false, 2)]);
        assert_eq!(told(&mut outages, 3), []);
        one.set(HopState::Down(Mac::default()), 3);
        other.set(HopState::Up(Mac::default()), 3);
        assert_eq!(told(&mut outages, 4), [(b.dst, "no_neighbour", true, 2)]);
        assert_eq!(told(&mut outages, 5), [(a.dst, "down", false, 3)], "since when it is");
        one.set(HopState::NoNeighbour, 5);
        assert_eq!(told(&mut outages, 6), [(a.dst, "no_neighbour", false, 3)]);
        assert_eq!(outages.open(), 1);
        hops.keep_only(&[b]);
        assert_eq!(told(&mut outages, 7), [(a.dst, "no_neighbour", true, 3)]);
        assert_eq!(outages.close(8), []);
    }
}
