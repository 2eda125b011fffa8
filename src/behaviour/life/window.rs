//! What is kept of the records since the last training.

use std::collections::HashMap;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

use super::gate::{CHANCE, OF_HOST, SHARE_OF_HOST, UNUSUAL};
use crate::behaviour::alert::AlertEvent;
use crate::behaviour::bounded::Recent;
use crate::behaviour::detect::Host;
use crate::behaviour::features::Features;

/// Hosts that are remembered as part of an attack, on either side: at least so many of the latest, at most twice that.
const HOSTS: usize = 65_536;
/// Unusual records are kept by how unusual they are, in so many parts of the scale, so many of each; and those of them
/// that an alert was raised about.
const PARTS: usize = 10;
const OF_PART: usize = 512;
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
#[derive(Clone, Debug)]
pub(crate) struct Attacks {
    actors: Recent<Host, ()>,
    victims: Recent<Host, ()>,
}

impl Default for Attacks {
    fn default() -> Self {
        Self { actors: Recent::new(2 * HOSTS), victims: Recent::new(2 * HOSTS) }
    }
}

impl Attacks {
    pub(crate) fn note(&mut self, event: &AlertEvent) {
        let alert = event.alert();
        let (hosts, host) = match alert.kind {
            // Unusual is not hostile: of such a host only what is flagged is left out.
            kind if !kind.is_hostile() => return,
            kind if kind.is_flood() => (&mut self.victims, alert.victim.host()),
            _ => (&mut self.actors, alert.actor.host()),
        };
        if let Some(host) = host {
            hosts.get_or(host, || ());
        }
    }

    /// Hosts that were forgotten to stay within limits.
    pub(crate) fn forgotten(&self) -> u64 {
        self.actors.evicted() + self.victims.evicted()
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
    unusual: Vec<Reservoir<Taken>>,
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
    /// By part of the scale.
    pub(super) unusual: Vec<Vec<Taken>>,
    pub(super) alerted: Vec<Features>,
    /// Records seen, of them unusual, and flagged as attacks.
    pub(super) seen: u64,
    pub(super) seen_unusual: u64,
    pub(super) seen_attacks: u64,
    pub(super) span: (u64, u64),
}

/// What was said of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Standing {
    Ordinary,
    /// With its score.
    Unusual(f32),
    /// Part of an outlier episode.
    Alerted,
}

impl Window {
    /// Room for so many ordinary records.
    pub(super) fn new(room: usize, seed: u64) -> Self {
        Self {
            ordinary: Reservoir::new(room, seed),
            unusual: (0..PARTS as u64).map(|part| Reservoir::new(OF_PART.min(room), seed ^ part)).collect(),
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
            Standing::Unusual(score) => self.unusual[part(score)].offer(record),
            Standing::Alerted => self.alerted.offer(record.features),
        }
    }

    /// Records that are no attack.
    pub(super) fn len(&self) -> u64 {
        self.ordinary.seen + self.seen_unusual()
    }

    fn seen_unusual(&self) -> u64 {
        self.unusual.iter().map(|part| part.seen).sum::<u64>() + self.alerted.seen
    }

    /// Of these, below the unusual score.
    pub(super) fn ordinary(&self) -> u64 {
        self.ordinary.seen
    }

    /// Hands out what it has and begins anew.
    pub(super) fn harvest(&mut self) -> Harvest {
        let seen_unusual = self.seen_unusual();
        let (seen, span) = (self.len() + self.attacks, (self.from, self.to));
        let harvest = Harvest {
            ordinary: std::mem::take(&mut self.ordinary.kept),
            unusual: self.unusual.iter_mut().map(|part| std::mem::take(&mut part.kept)).collect(),
            alerted: std::mem::take(&mut self.alerted.kept),
            seen,
            seen_unusual,
            seen_attacks: self.attacks,
            span,
        };
        (self.ordinary.seen, self.alerted.seen, self.attacks) = (0, 0, 0);
        self.unusual.iter_mut().for_each(|part| part.seen = 0);
        (self.from, self.to) = (0, 0);
        harvest
    }
}

impl Harvest {
    /// Of what is no attack.
    pub(super) fn unusual_share(&self) -> f64 {
        self.seen_unusual as f64 / (self.seen - self.seen_attacks).max(1) as f64
    }

    /// As many unusual records as there are by chance among the ordinary ones: without any the scale would narrow from
    /// one training to the next. By chance they are spread over the scale and over hosts; a burst is alike, so it gets
    /// no more than its part.
    pub(super) fn admitted(&self) -> Vec<Features> {
        let most = (self.ordinary.len() as f64 * CHANCE / PARTS as f64).ceil() as usize;
        let of_host = (most / SHARE_OF_HOST).max(OF_HOST);
        let mut chosen = Vec::new();
        for part in &self.unusual {
            let mut sides: [HashMap<Host, usize>; 2] = Default::default();
            let may = |record: &&Taken| {
                let hosts = [record.source, record.destination];
                let few = sides.iter().zip(hosts).all(|(side, host)| side.get(&host).is_none_or(|n| *n < of_host));
                if few {
                    sides.iter_mut().zip(hosts).for_each(|(side, host)| *side.entry(host).or_default() += 1);
                }
                few
            };
            chosen.extend(part.iter().filter(may).take(most).map(|record| record.features));
        }
        chosen
    }
}

/// Of the scale from the unusual score to 1.
fn part(score: f32) -> usize {
    (((score - UNUSUAL) / (1.0 - UNUSUAL) * PARTS as f32) as usize).min(PARTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::AlertKind;
    use crate::behaviour::alert::{Alert, Evidence, Party, Status};
    use crate::behaviour::features::FEATURES;
    use crate::rules::GroupSetHandle;

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
    fn a_burst_gets_its_part_of_the_scale_and_no_more() {
        let mut window = Window::new(20_000, 1);
        (0..10_000).for_each(|n| window.note(taken(n, n), 5, Standing::Ordinary));
        (0..100).for_each(|n| window.note(taken(n, n), 6, Standing::Unusual(0.99 + n as f32 * 0.0001)));
        (0..2000).for_each(|n| window.note(taken(90_000 + n, 90_000), 7, Standing::Unusual(0.9995)));
        let harvest = window.harvest();
        assert_eq!((harvest.seen, harvest.seen_unusual, harvest.span), (12_100, 2100, (5, 7)));
        assert!((harvest.unusual_share() - 2100.0 / 12_100.0).abs() < 1e-9);
        let admitted = harvest.admitted();
        let burst = admitted.iter().filter(|features| features[0] >= 90_000.0).count();
        assert!(burst <= OF_HOST, "all to one host: {burst}");
        assert!((90..=100).contains(&admitted.len()), "{}", admitted.len());
        assert_eq!(window.len(), 0);
        // Spread over hosts, it takes the place of what is as unusual by chance.
        (0..10_000).for_each(|n| window.note(taken(n, n), 5, Standing::Ordinary));
        (0..2000).for_each(|n| window.note(taken(n, n), 7, Standing::Unusual(0.9995)));
        assert_eq!(window.harvest().admitted().len(), 10);
    }

    #[test]
    fn parts_of_the_scale() {
        assert_eq!([0.99, 0.9915, 0.9999, 1.0].map(part), [0, 1, 9, 9]);
    }

    fn alert(kind: AlertKind, actor: u128) -> AlertEvent {
        let party = |n| Party::Host(host(n));
        AlertEvent::Opened(Alert {
            episode: 1,
            kind,
            status: Status::Open,
            actor: party(actor),
            victim: party(7),
            actor_groups: GroupSetHandle::default(),
            victim_groups: GroupSetHandle::default(),
            severity: 3,
            count: 1,
            raised: 1,
            first_seen: 1,
            last_seen: 1,
            evidence: Evidence::default(),
        })
    }

    #[test]
    fn only_hosts_of_attacks_are_attackers() {
        let mut attacks = Attacks::default();
        for (n, kind) in AlertKind::ALL.into_iter().enumerate() {
            attacks.note(&alert(kind, 100 + n as u128));
        }
        let from = |kind: AlertKind| taken(100 + kind as u128, 1);
        assert!(attacks.have(&from(AlertKind::PortScan)) && attacks.have(&from(AlertKind::BruteForce)));
        for kind in [AlertKind::Outlier, AlertKind::NewRelationship, AlertKind::Volume] {
            assert!(!attacks.have(&from(kind)), "{kind:?} is told of what is merely new");
            assert!(attacks.have(&Taken { attack: true, ..from(kind) }), "what is flagged itself is left out");
        }
    }

    #[test]
    fn the_latest_attackers_are_kept_and_others_counted() {
        let mut attacks = Attacks::default();
        let all = 5 * HOSTS as u128;
        (0..all).for_each(|n| attacks.note(&alert(AlertKind::PortScan, n)));
        let known = |n: u128| attacks.have(&taken(n, 1));
        assert!((all - HOSTS as u128..all).all(known));
        assert!(!known(0) && !known(HOSTS as u128));
        let kept = (0..all).filter(|n| known(*n)).count() as u64;
        assert_eq!(kept + attacks.forgotten(), all as u64);
    }
}
