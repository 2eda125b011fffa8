//! What the last intervals say about the next: a correction of the seasonal expectation.
//!
//! Each service of a pair is a sequence. A gated recurrent unit, one for all of them, reads for each interval how far it
//! was from what the season expected (in deviations), whether there was traffic and how likely that was, and of the next
//! interval the season's probability, the hour of day, the minute of the hour and whether it is a weekend. It says what
//! to make of the season's expectation of that next interval: log odds to add to the probability, deviations to add to
//! each mean, and logarithms to add to each deviation. Untrained it says nothing, so the season stands.
//!
//! It is trained on the last week of all sequences, on pieces of three hours, to make likely what came: Bernoulli for
//! the traffic, Student (four degrees of freedom) for the quantities. Intervals that were held or belong to attacks
//! are seen, cut off, but not aimed at. Training is a [`Lesson`]: made on the scorer's core once a day of flow time, run
//! wherever there is time ([`Lesson::learn`] is pure), and its [`Sequence`] taken back when it is done.

mod gru;

use std::collections::VecDeque;

use rand_core::Rng;
use rand_pcg::Pcg32;

use super::season::{Level, Moment};
use super::slice::QUANTITIES;
use super::tally::Numbers;
use gru::{Adam, Gradient, Gru, INPUTS, Input, OUTPUTS, Output, State, Step, UNITS};

/// Intervals remembered of a sequence: a week of five minutes.
const HISTORY: usize = 2016;
/// A piece of it that is learnt from, and how much of its beginning is only listened to.
const PIECE: usize = 36;
const LISTEN: usize = 6;
/// Pieces to a step, and steps to a lesson.
const BATCH: usize = 16;
const STEPS: usize = 500;
/// Deviations that are read at most.
const CUT: f32 = 6.0;
/// Odds, deviations and their logarithms that are said at most.
const MOST_ODDS: f32 = 2.0;
const MOST_SHIFT: f32 = 1.0;
const MOST_SPREAD: f32 = 0.4;
const FREEDOM: f32 = 4.0;

/// A trained model.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    gru: Gru,
}

/// An interval of a sequence against its season.
#[derive(Clone, Copy, Debug)]
struct Seen {
    off: [f32; QUANTITIES],
    probability: f32,
    present: bool,
    /// Not held, and no attack.
    ordinary: bool,
    /// When it began, seconds since 1970.
    seconds: u64,
}

/// One service's sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    seen: VecDeque<Seen>,
    state: Option<Box<State>>,
}

/// What is to be made of the season's expectation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Correction {
    odds: f32,
    shift: [f32; QUANTITIES],
    spread: [f32; QUANTITIES],
}

/// What a training needs.
#[derive(Clone, Debug)]
pub struct Lesson {
    histories: Vec<Vec<Seen>>,
    before: Option<Sequence>,
    seed: u64,
}

impl History {
    /// Adds an interval; `logs`: of its numbers, where there was traffic.
    pub(super) fn add(
        &mut self,
        seconds: u64,
        logs: Option<&Numbers>,
        (probability, levels): (f64, &[Level; QUANTITIES]),
        ordinary: bool,
        model: Option<&Sequence>,
    ) {
        let off = logs.map_or([0.0; QUANTITIES], |logs| {
            std::array::from_fn(|at| (((logs[at] - levels[at].mean) / levels[at].sigma) as f32).clamp(-CUT, CUT))
        });
        let seen = Seen { off, probability: probability as f32, present: logs.is_some(), ordinary, seconds };
        if self.seen.len() >= HISTORY {
            self.seen.pop_front();
        }
        if let (Some(model), Some(last)) = (model, self.seen.back()) {
            // What was seen last is read together with what the season says of this one.
            let state = self.state.get_or_insert_with(|| Box::new([0.0; UNITS]));
            **state = model.gru.step(&input(last, &seen), state).state;
        }
        self.seen.push_back(seen);
    }

    /// What the model makes of the season's probability in the interval that begins at `seconds`.
    pub(super) fn correction(&self, model: &Sequence, seconds: u64, probability: f64) -> Option<Correction> {
        let last = self.seen.back()?;
        let state = self.state.as_deref().copied().unwrap_or([0.0; UNITS]);
        let next =
            Seen { off: [0.0; QUANTITIES], probability: probability as f32, present: false, ordinary: true, seconds };
        let step = model.gru.step(&input(last, &next), &state);
        Some(Correction::of(&model.gru.output(&step.state)))
    }

    /// Another model has another state: it reads the last day again.
    pub(super) fn reread(&mut self, model: &Sequence) {
        let mut state = [0.0; UNITS];
        let from = self.seen.len().saturating_sub(288);
        for (last, next) in self.seen.range(from..).zip(self.seen.range(from..).skip(1)) {
            state = model.gru.step(&input(last, next), &state).state;
        }
        self.state = Some(Box::new(state));
    }

    fn copy(&self) -> Vec<Seen> {
        self.seen.iter().copied().collect()
    }
}

impl Correction {
    fn of(output: &Output) -> Self {
        Self {
            odds: soft(output[0], MOST_ODDS),
            shift: std::array::from_fn(|at| soft(output[1 + at], MOST_SHIFT)),
            spread: std::array::from_fn(|at| soft(output[1 + QUANTITIES + at], MOST_SPREAD)),
        }
    }

    pub(super) fn probability(&self, season: f64) -> f64 {
        let odds = (season / (1.0 - season)).ln() + f64::from(self.odds);
        (1.0 / (1.0 + (-odds).exp())).clamp(1e-9, 1.0 - 1e-9)
    }

    pub(super) fn level(&self, at: usize, season: Level) -> Level {
        Level {
            mean: season.mean + season.sigma * f64::from(self.shift[at]),
            sigma: season.sigma * f64::from(self.spread[at]).exp(),
        }
    }
}

impl Lesson {
    /// From all sequences; `before`: what was learnt so far.
    pub(super) fn of<'a>(
        histories: impl Iterator<Item = &'a History>,
        before: Option<&Sequence>,
        seed: u64,
    ) -> Option<Self> {
        let histories: Vec<Vec<Seen>> = histories.filter(|h| h.seen.len() > PIECE).map(History::copy).collect();
        (!histories.is_empty()).then(|| Self { histories, before: before.cloned(), seed })
    }

    /// Learns. Takes seconds.
    pub fn learn(self) -> Sequence {
        let mut dice = Pcg32::new(self.seed, 0x5eed);
        let mut gru = self.before.map_or_else(|| Gru::new(&mut dice), |before| before.gru);
        let (mut adam, mut gradient) = (Adam::new(), Gradient::new());
        for _ in 0..STEPS {
            gradient.clear();
            let mut aims = 0.0;
            for _ in 0..BATCH {
                let history = &self.histories[dice.next_u32() as usize % self.histories.len()];
                let from = dice.next_u32() as usize % (history.len() - PIECE);
                aims += study(&gru, &history[from..from + PIECE + 1], &mut gradient);
            }
            if aims > 0.0 {
                adam.descend(&mut gru, &gradient, aims);
            }
        }
        Sequence { gru }
    }
}

/// Adds the gradient of a piece; how many intervals it aims at.
fn study(gru: &Gru, piece: &[Seen], gradient: &mut Gradient) -> f32 {
    let mut steps: Vec<Step> = Vec::with_capacity(piece.len());
    let mut outputs: Vec<Output> = Vec::with_capacity(piece.len());
    let mut aims = 0.0;
    for (at, pair) in piece.windows(2).enumerate() {
        let before = steps.last().map_or([0.0; UNITS], |step| step.state);
        let step = gru.step(&input(&pair[0], &pair[1]), &before);
        let aimed = at >= LISTEN && pair[1].ordinary;
        outputs.push(if aimed { slope(&gru.output(&step.state), &pair[1]) } else { [0.0; OUTPUTS] });
        aims += f32::from(u8::from(aimed));
        steps.push(step);
    }
    gru.backward(&steps, &outputs, gradient);
    aims
}

/// The gradient, at the outputs, of how unlikely what came was.
fn slope(output: &Output, seen: &Seen) -> Output {
    let said = Correction::of(output);
    let mut slope = [0.0; OUTPUTS];
    let probability = said.probability(f64::from(seen.probability)) as f32;
    let came = f32::from(u8::from(seen.present));
    slope[0] = (probability - came) * soft_slope(output[0], MOST_ODDS);
    if !seen.present {
        return slope;
    }
    for at in 0..QUANTITIES {
        let spread = said.spread[at].exp();
        let z = (seen.off[at] - said.shift[at]) / spread;
        // Of (v + 1) / 2 ln(1 + z² / v) + ln spread.
        let of_z = (FREEDOM + 1.0) * z / (FREEDOM + z * z);
        let place = 1 + at;
        slope[place] = -of_z / spread * soft_slope(output[place], MOST_SHIFT) / QUANTITIES as f32;
        let place = 1 + QUANTITIES + at;
        slope[place] = (1.0 - of_z * z) * soft_slope(output[place], MOST_SPREAD) / QUANTITIES as f32;
    }
    slope
}

/// What was held, or an attack, is read as if it had been as expected: it is not to explain what follows it.
fn input(last: &Seen, next: &Seen) -> Input {
    let mut x = [0.0; INPUTS];
    if last.ordinary {
        x[..QUANTITIES].iter_mut().zip(last.off).for_each(|(x, off)| *x = off / 2.0);
        x[8] = f32::from(u8::from(last.present));
    } else {
        x[8] = last.probability;
    }
    x[9] = last.probability;
    x[10] = odds(next.probability) / 4.0;
    let day = (next.seconds % 86_400) as f32 / 86_400.0 * std::f32::consts::TAU;
    let hour = (next.seconds % 3_600) as f32 / 3_600.0 * std::f32::consts::TAU;
    (x[11], x[12], x[13], x[14]) = (day.sin(), day.cos(), hour.sin(), hour.cos());
    x[15] = f32::from(u8::from(Moment::of(next.seconds * 1_000_000_000).weekend));
    x
}

fn odds(probability: f32) -> f32 {
    let p = probability.clamp(1e-5, 1.0 - 1e-5);
    (p / (1.0 - p)).ln()
}

/// As it is near zero, never more than `most`.
fn soft(x: f32, most: f32) -> f32 {
    most * (x / most).tanh()
}

fn soft_slope(x: f32, most: f32) -> f32 {
    1.0 - (x / most).tanh().powi(2)
}
