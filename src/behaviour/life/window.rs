//! What is kept of the records since the last training.

use std::collections::{HashMap, HashSet};

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

use super::gate::{CHANCE, OF_HOST};
use crate::behaviour::alert::AlertEvent;
use crate::behaviour::detect::Host;
use crate::behaviour::features::Features;

/// Most hosts that are remembered as part of an attack, on either side.
const MOST_HOSTS: usize = 65_536;
/// Unusual records kept, and those of them that an alert was raised about.
const UNUSUAL: usize = 4096;
const ALERTED: usize = 1024;

/// What is kept of a record.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) features: Features,
    pub(crate) source: Host,
    pub(crate) destination: Host,
    /// A failed attempt, or unanswered.
    pub(crate) suspicious: bool,
    /// Flagged.
    pub(crate) attack: bool,
}

/// Who had a part in attacks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attacks {
    actors: HashSet<Host>,
    victims: HashSet<Host>,
}

impl Attacks {
    pub(crate) fn note(&mut self, event: &AlertEvent) {
        let alert = event.alert();
        let (hosts, host) = match alert.kind {
            // That is the model's own doing.
            crate::behaviour::AlertKind::Outlier => return,
            kind if kind.is_flood() => (&mut self.victims, alert.victim.host()),
            _ => (&mut self.actors, alert.actor.host()),
        };
        if hosts.len() < MOST_HOSTS {
            hosts.extend(host);
        }
    }

    /// Flagged, from the source of a scan, or unanswered traffic to the victim of a flood: also when the record came
    /// before the alert.
    pub(crate) fn have(&self, record: &Taken) -> bool {
        record.attack
            || self.actors.contains(&record.source)
            || (record.suspicious && self.victims.contains(&record.destination))
    }
}

/// A uniform sample of everything that came by (algorithm R, Vitter 1985).
#[derive(Clone, Debug)]
pub(super) struct Reservoir<T> {
    room: usize,
    seen: u64,
    pub(super) kept: Vec<T>,
    rng: Pcg32,
}

impl<T> Reservoir<T> {
    fn new(room: usize, seed: u64) -> Self {
        Self { room, seen: 0, kept: Vec::new(), rng: Pcg32::seed_from_u64(seed) }
    }

    fn offer(&mut self, item: T) {
        self.seen += 1;
        if self.kept.len() < self.room {
            return self.kept.push(item);
        }
        let at = self.rng.next_u64() % self.seen;
        if let Some(place) = self.kept.get_mut(at as usize) {
            *place = item;
        }
    }
}

/// Records of one scope since the last training.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Below the unusual score, and from it on without an alert.
    ordinary: Reservoir<Taken>,
    unusual: Reservoir<Taken>,
    /// Of outlier episodes.
    alerted: Reservoir<Features>,
    attacks: u64,
    from: u64,
    to: u64,
}

/// What a window gives to train on.
#[derive(Clone, Debug, Default)]
pub(super) struct Harvest {
    pub(super) ordinary: Vec<Taken>,
    pub(super) unusual: Vec<Taken>,
    pub(super) alerted: Vec<Features>,
    /// Records seen, of them unusual, and flagged as attacks.
    pub(super) seen: u64,
    pub(super) seen_unusual: u64,
    pub(super) seen_attacks: u64,
    pub(super) span: (u64, u64),
}

/// How the score stands to the alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Ordinary,
    Unusual,
    /// Part of an outlier episode.
    Alerted,
}

impl Window {
    /// Room for so many ordinary records.
    pub(super) fn new(room: usize, seed: u64) -> Self {
        Self {
            ordinary: Reservoir::new(room, seed),
            unusual: Reservoir::new(UNUSUAL.min(room), seed),
            alerted: Reservoir::new(ALERTED.min(room), seed),
            attacks: 0,
            from: 0,
            to: 0,
        }
    }

    pub(super) fn note(&mut self, record: Taken, emitted: u64, standing: Standing) {
        if self.len() == 0 && self.attacks == 0 {
            self.from = emitted;
        }
        self.to = self.to.max(emitted);
        match standing {
            _ if record.attack => self.attacks += 1,
            Standing::Ordinary => self.ordinary.offer(record),
            Standing::Unusual => self.unusual.offer(record),
            Standing::Alerted => self.alerted.offer(record.features),
        }
    }

    /// Records that are no attack.
    pub(super) fn len(&self) -> u64 {
        self.ordinary.seen + self.unusual.seen + self.alerted.seen
    }

    /// Of these, below the unusual score.
    pub(super) fn ordinary(&self) -> u64 {
        self.ordinary.seen
    }

    /// Hands out what it has and begins anew.
    pub(super) fn harvest(&mut self) -> Harvest {
        let seen_unusual = self.unusual.seen + self.alerted.seen;
        let (seen, span) = (self.len() + self.attacks, (self.from, self.to));
        let harvest = Harvest {
            ordinary: std::mem::take(&mut self.ordinary.kept),
            unusual: std::mem::take(&mut self.unusual.kept),
            alerted: std::mem::take(&mut self.alerted.kept),
            seen,
            seen_unusual,
            seen_attacks: self.attacks,
            span,
        };
        (self.ordinary.seen, self.unusual.seen, self.alerted.seen, self.attacks) = (0, 0, 0, 0);
        (self.from, self.to) = (0, 0);
        harvest
    }
}

impl Harvest {
    /// Of what is no attack.
    pub(super) fn unusual_share(&self) -> f64 {
        self.seen_unusual as f64 / (self.seen - self.seen_attacks).max(1) as f64
    }

    /// As many unusual records as there are by chance among the ordinary ones, a few of each host: without any the scale
    /// would narrow from one training to the next.
    pub(super) fn admitted(&self) -> Vec<Features> {
        let most = (self.ordinary.len() as f64 * CHANCE).ceil() as usize;
        let mut sides: [HashMap<Host, usize>; 2] = Default::default();
        let mut chosen = Vec::new();
        for record in &self.unusual {
            if chosen.len() >= most {
                break;
            }
            let hosts = [record.source, record.destination];
            if sides.iter().zip(hosts).all(|(side, host)| side.get(&host).is_none_or(|n| *n < OF_HOST)) {
                sides.iter_mut().zip(hosts).for_each(|(side, host)| *side.entry(host).or_default() += 1);
                chosen.push(record.features);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::features::FEATURES;

    fn host(n: u128) -> Host {
        Host { version: 4, addr: n, vlan: 0, vni: 0 }
    }

    fn taken(source: u128, destination: u128) -> Taken {
        let features = [source as f32; FEATURES];
        Taken { features, source: host(source), destination: host(destination), suspicious: false, attack: false }
    }

    #[test]
    fn a_reservoir_is_a_fair_sample() {
        let mut sum = 0.0;
        for seed in 0..200 {
            let mut reservoir = Reservoir::new(50, seed);
            (0..5000).for_each(|n| reservoir.offer(n));
            assert_eq!((reservoir.kept.len(), reservoir.seen), (50, 5000));
            sum += reservoir.kept.iter().map(|n| f64::from(*n)).sum::<f64>() / 50.0;
        }
        assert!((sum / 200.0 - 2500.0).abs() < 60.0, "{}", sum / 200.0);
    }

    #[test]
    fn one_host_gives_few_unusual_records_and_all_together_one_in_a_hundred() {
        let mut window = Window::new(10_000, 1);
        (0..2000).for_each(|n| window.note(taken(n, n), 5, Standing::Ordinary));
        // A burst from one source, one to one destination, and single ones.
        (0..500).for_each(|n| window.note(taken(9000, 10_000 + n), 6, Standing::Unusual));
        (0..500).for_each(|n| window.note(taken(20_000 + n, 9001), 7, Standing::Unusual));
        (0..5).for_each(|n| window.note(taken(30_000 + n, 40_000 + n), 8, Standing::Unusual));
        let harvest = window.harvest();
        assert_eq!((harvest.seen, harvest.seen_unusual, harvest.span), (3005, 1005, (5, 8)));
        assert!((harvest.unusual_share() - 1005.0 / 3005.0).abs() < 1e-9);
        let sources: Vec<f32> = harvest.admitted().iter().map(|features| features[0]).collect();
        assert_eq!(sources.len(), 2 * OF_HOST + 5);
        assert_eq!(sources.iter().filter(|s| **s == 9000.0).count(), OF_HOST);
        assert_eq!(window.len(), 0);
        let mut window = Window::new(10_000, 1);
        (0..1000).for_each(|n| window.note(taken(n, n), 5, Standing::Ordinary));
        (0..1000).for_each(|n| window.note(taken(n, n), 5, Standing::Unusual));
        assert_eq!(window.harvest().admitted().len(), 10);
    }
}
