//! One pair of group sets: its services, what is usual of each, and what they do in the interval that is not over.

use super::hold::{Hold, PAUSE, Ruling};
use super::rarity::Rarity;
use super::season::{Level, Moment, Season, Watched};
use super::sequence::{History, Sequence};
use super::slice::{BYTES, HOSTS, PairKey, QUANTITIES, QUANTITY_NAMES, Service, Slice};
use super::tally::{Numbers, Tally};
use super::{PairModel, PairVolume};

/// Services of a pair told apart.
const SERVICES: usize = 24;
/// Degrees of freedom of the Student distribution.
const FREEDOM: f64 = 4.0;
/// Quantities say much the same, as flows bring packets and these bytes: each weighs so much.
const ALIKE: f64 = 0.3;
/// What is less than usual weighs so much.
const LESS: f64 = 0.25;
/// A service that made so much of the surprise is held.
const GUILTY: f64 = 0.25;
/// Deviations on either side that the expected range reaches.
const RANGE: f64 = 2.0;

/// Surprises of a service: of its being there, and of each quantity.
pub(super) type Surprises = [f64; QUANTITIES + 1];

/// What made an interval unusual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    pub service: Service,
    pub what: What,
    /// Nats.
    pub surprise: f64,
    /// Of quantities: what was expected from and to. Of presence: the expected probability, twice.
    pub expected: [f64; 2],
    /// Of presence: 1 or 0.
    pub seen: f64,
}

/// What of a service is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// That there was traffic, or none.
    Presence,
    /// Place in [`QUANTITY_NAMES`](super::QUANTITY_NAMES).
    Quantity(usize),
}

impl Part {
    pub fn is_presence(&self) -> bool {
        self.what == What::Presence
    }
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            What::Presence => "presence",
            What::Quantity(at) => QUANTITY_NAMES[at.min(QUANTITIES - 1)],
        }
    }
}

/// The surprises of an interval.
#[derive(Clone, Debug)]
pub(super) struct Weighed {
    pub(super) total: f64,
    /// By service of the pair.
    services: Vec<Surprises>,
}

/// A pair of group sets.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    key: PairKey,
    /// Interval of the last traffic.
    active: u64,
    rarity: Rarity,
    services: Vec<Known>,
    /// Seconds: when it was last unexpected.
    burst: u64,
}

#[derive(Clone, Debug)]
struct Known {
    service: Service,
    season: Season,
    hold: Hold,
    tally: Tally,
    /// Where sequences are learnt, and as far as there is room.
    history: Option<Box<History>>,
}

/// Probability of traffic, and the levels of it.
type Expected = (f64, [Level; QUANTITIES]);

/// What is needed to say what is usual in an interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usual<'a> {
    pub(super) moment: Moment,
    /// Since 1970.
    pub(super) seconds: u64,
    pub(super) watched: &'a Watched,
    pub(super) model: PairModel,
    pub(super) sequence: Option<&'a Sequence>,
}

impl Pair {
    pub(super) fn new(key: PairKey, active: u64) -> Self {
        Self { key, active, rarity: Rarity::new(), services: Vec::new(), burst: 0 }
    }

    pub(super) fn key(&self) -> PairKey {
        self.key
    }

    pub(super) fn active(&self) -> u64 {
        self.active
    }

    #[cfg(test)]
    pub(super) fn services(&self) -> usize {
        self.services.len()
    }

    pub(super) fn rarity(&self) -> &Rarity {
        &self.rarity
    }

    /// `sequences`: how many more histories there is room for.
    pub(super) fn add(&mut self, slice: &Slice, interval: u64, watched: &mut Watched, sequences: &mut usize) {
        self.active = interval;
        let wanted = slice.service;
        // In order, whichever came first.
        let known = |services: &[Known], wanted| services.binary_search_by_key(&wanted, |known: &Known| known.service);
        let at = known(&self.services, wanted).unwrap_or_else(|place| {
            let room = self.services.len() < SERVICES;
            let service = if room { wanted } else { Service::other() };
            let found = if room { Err(place) } else { known(&self.services, service) };
            found.unwrap_or_else(|place| {
                let season = Season::new(watched);
                watched.born();
                let history = (*sequences > 0).then(Box::<History>::default);
                *sequences -= usize::from(history.is_some());
                self.services
                    .insert(place, Known { service, season, hold: Hold::default(), tally: Tally::default(), history });
                place
            })
        });
        self.services[at].tally.add(slice);
    }

    /// How surprising the interval is.
    pub(super) fn weigh(&self, usual: &Usual<'_>) -> Weighed {
        let services: Vec<Surprises> = self.services.iter().map(|known| known.weigh(usual)).collect();
        Weighed { total: services.iter().flatten().sum(), services }
    }

    /// Whether the interval says how often this pair is unusual: not when it is part of an attack that has an alert of
    /// its own, and of a burst only its beginning does, or a long one would make the next one common.
    pub(super) fn counts(&mut self, seconds: u64, unexpected: bool) -> bool {
        let goes_on = unexpected && seconds.saturating_sub(self.burst) <= PAUSE;
        if unexpected {
            self.burst = seconds;
        }
        !goes_on && !self.services.iter().any(|known| known.tally.is_attacked())
    }

    pub(super) fn note(&mut self, surprise: f64) {
        self.rarity.note(surprise);
    }

    pub(super) fn fade(&mut self) {
        self.rarity.fade();
    }

    /// All services together. Hosts are those of the service with most of them.
    pub(super) fn seen(&self) -> Numbers {
        let mut sum = Numbers::default();
        for numbers in self.services.iter().map(|known| known.tally.numbers()) {
            for (at, number) in numbers.into_iter().enumerate() {
                sum[at] = if HOSTS.contains(&at) { sum[at].max(number) } else { sum[at] + number };
            }
        }
        sum
    }

    /// The direction that has most above what is usual.
    pub(super) fn volume(&self, usual: &Usual<'_>) -> PairVolume {
        let sent = |side: usize| {
            let mut volume = PairVolume { side, bytes: 0.0, usual: 0.0, hosts: None };
            let mut most = 0;
            for known in self.services.iter().filter(|known| !known.tally.is_empty()) {
                volume.bytes += known.tally.numbers()[BYTES[side]];
                volume.usual += known.season.usual_bytes(side, usual.moment, usual.watched);
                if let Some((hosts, bytes)) = known.tally.loudest(side).filter(|(_, bytes)| *bytes > most) {
                    (volume.hosts, most) = (Some(hosts), bytes);
                }
            }
            volume
        };
        let [up, down] = [sent(0), sent(1)];
        if down.bytes * up.usual.max(1.0) > up.bytes * down.usual.max(1.0) { down } else { up }
    }

    /// All parts above nothing, the greatest first.
    pub(super) fn parts(&self, weighed: &Weighed, usual: &Usual<'_>) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (known, surprises) in self.services.iter().zip(&weighed.services) {
            let (seasonal, corrected) = known.expected(usual);
            let (probability, levels) = corrected.filter(|_| usual.model == PairModel::Sequence).unwrap_or(seasonal);
            let seen = known.tally.numbers();
            for (at, surprise) in surprises.iter().enumerate().filter(|(_, surprise)| **surprise > 0.0) {
                let (what, expected, seen) = match at.checked_sub(1) {
                    None => (What::Presence, [probability; 2], f64::from(u8::from(!known.tally.is_empty()))),
                    Some(at) => (What::Quantity(at), range(levels[at]), seen[at]),
                };
                parts.push(Part { service: known.service, what, surprise: *surprise, expected, seen });
            }
        }
        parts.sort_by(|a, b| b.surprise.total_cmp(&a.surprise));
        parts
    }

    /// Learns from the interval, as far as it was not `unexpected`, and begins the next.
    pub(super) fn learn(&mut self, usual: &Usual<'_>, unexpected: bool, weighed: &Weighed, present: &mut Vec<Numbers>) {
        for (known, surprises) in self.services.iter_mut().zip(&weighed.services) {
            let guilty = unexpected && surprises.iter().sum::<f64>() >= GUILTY * weighed.total;
            present.extend(known.learn(usual, guilty));
        }
    }

    pub(super) fn histories(&self) -> impl Iterator<Item = &History> {
        self.services.iter().filter_map(|known| known.history.as_deref())
    }

    /// Another model is in use.
    pub(super) fn reread(&mut self, model: &Sequence) {
        self.services.iter_mut().filter_map(|known| known.history.as_mut()).for_each(|history| history.reread(model));
    }
}

impl Known {
    /// The season's expectation, and what the sequence makes of it.
    fn expected(&self, usual: &Usual<'_>) -> (Expected, Option<Expected>) {
        let probability = self.season.presence(usual.moment);
        let levels = self.season.levels(usual.moment, usual.watched);
        let correction = usual
            .sequence
            .filter(|_| usual.model != PairModel::Baseline)
            .and_then(|sequence| self.history.as_ref()?.correction(sequence, usual.seconds, probability));
        let corrected = correction.map(|said| {
            let levels: [Level; QUANTITIES] = std::array::from_fn(|at| said.level(at, levels[at]));
            (said.probability(probability), levels)
        });
        ((probability, levels), corrected)
    }

    fn weigh(&self, usual: &Usual<'_>) -> Surprises {
        let (seasonal, corrected) = self.expected(usual);
        match (corrected, usual.model) {
            (Some(corrected), PairModel::Sequence) => self.surprises(&corrected),
            (Some(corrected), PairModel::Both) => {
                let [seasonal, corrected] = [self.surprises(&seasonal), self.surprises(&corrected)];
                std::array::from_fn(|at| (seasonal[at] + corrected[at]) / 2.0)
            }
            _ => self.surprises(&seasonal),
        }
    }

    fn surprises(&self, (probability, levels): &Expected) -> Surprises {
        let mut surprises = Surprises::default();
        if self.tally.is_empty() {
            surprises[0] = -LESS * (-probability).ln_1p();
            return surprises;
        }
        surprises[0] = -probability.ln();
        for (at, (number, level)) in self.tally.numbers().into_iter().zip(levels).enumerate() {
            surprises[at + 1] = surprise(number, *level);
        }
        surprises
    }

    /// Learns and begins the next interval; what was learnt of one with traffic.
    fn learn(&mut self, usual: &Usual<'_>, guilty: bool) -> Option<Numbers> {
        let (seasonal, _) = self.expected(&Usual { model: PairModel::Baseline, ..*usual });
        let tally = std::mem::take(&mut self.tally);
        let ruling = if guilty { self.hold.rule(usual.seconds) } else { Ruling::Learn };
        let logs = |numbers: Numbers| (!tally.is_empty()).then(|| numbers.map(f64::ln_1p));
        if let Some(history) = &mut self.history {
            let ordinary = ruling != Ruling::Hold && !tally.is_attacked();
            let (seen, (probability, levels)) = (logs(tally.numbers()), &seasonal);
            history.add(usual.seconds, seen.as_ref(), (*probability, levels), ordinary, usual.sequence);
        }
        let numbers = tally.clean().filter(|_| ruling != Ruling::Hold)?;
        if ruling == Ruling::Loosen {
            self.season.loosen();
        }
        let logs = logs(numbers);
        self.season.learn(usual.moment, logs.as_ref(), usual.watched);
        logs
    }
}

fn surprise(number: f64, level: Level) -> f64 {
    let off = (number.ln_1p() - level.mean) / level.sigma;
    let weight = if off < 0.0 { ALIKE * LESS } else { ALIKE };
    weight * (FREEDOM + 1.0) / 2.0 * (off * off / FREEDOM).ln_1p()
}

fn range(level: Level) -> [f64; 2] {
    [-RANGE, RANGE].map(|times| (level.mean + times * level.sigma).exp_m1().max(0.0))
}
