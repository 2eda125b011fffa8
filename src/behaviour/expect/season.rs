//! What is usual on one service of a pair at this hour: whether there is traffic at all, and how much if there is.
//!
//! Traffic between groups comes and goes: a backup runs once an hour, a database is asked all day. So two things are
//! learnt apart: the share of intervals that have traffic, and the logarithms of the numbers of those that have. Each is
//! learnt for the hour of day, on weekdays and on weekends, and for all hours together. The narrower is taken as far
//! as it has been seen (shrinkage): of an hour with n intervals weighs n / (n + k), the rest is the wider one's; what
//! was never seen has what is usual for services that are new.
//!
//! Means and deviations move by residuals cut off at 3.5 deviations (Huber 1964), each interval weighing 1/n up to two
//! weeks' worth and then fading. What weighs is recent, what is far off moves little.

use super::slice::{BYTES, QUANTITIES};
use super::tally::Numbers;

/// Intervals of an hour or of all hours that weigh as much as the wider knowledge.
const TRUST_PRESENCE: f64 = 6.0;
const TRUST_LEVEL: f64 = 4.0;
const TRUST_SPREAD: f64 = 12.0;
/// Intervals of one hour, and of all, after which older ones fade: 14 days of five minutes.
const FADE_HOUR: f64 = 168.0;
const FADE_ALL: f64 = 4032.0;
/// Intervals in which what is new is no news: a day.
const LEARNING: f32 = 288.0;
/// What the most bytes lose with each interval of the hour: half in six days.
const FORGET_MOST: f32 = 0.01;
/// Residuals count up to so many deviations.
const CUT: f64 = 3.5;
/// Mean absolute deviation, in logarithms, of what was never seen, and the least that is believed.
const SPREAD_UNSEEN: f64 = 1.2;
const SPREAD_LEAST: f64 = 0.12;
/// From a mean absolute to a standard deviation, for a normal distribution.
const MAD_TO_SIGMA: f64 = 1.2533;

/// Where in the week an interval lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) hour: usize,
    pub(super) weekend: bool,
}

impl Moment {
    /// Of nanoseconds since 1970, UTC. 1970 began on a Thursday.
    pub(super) fn of(nanoseconds: u64) -> Self {
        let hours = nanoseconds / 3_600_000_000_000;
        Self { hour: (hours % 24) as usize, weekend: (hours / 24 + 3) % 7 >= 5 }
    }
}

/// What is expected of one quantity, as the logarithm of 1 + number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Level {
    pub(super) mean: f64,
    pub(super) sigma: f64,
}

/// What is usual on a service.
#[derive(Clone, Debug)]
pub(super) struct Season {
    all: Bucket,
    /// Intervals that it is as if it had been there when it had not: of what is new, how seldom something is.
    prior: f32,
    /// Mean absolute residual, all hours together.
    spread: [f32; QUANTITIES],
    weekday: Box<[Bucket; 24]>,
    /// Once there was a weekend.
    weekend: Option<Box<[Bucket; 24]>>,
}

/// Of an hour of day, or of all of them.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    intervals: f32,
    present: f32,
    mean: [f32; QUANTITIES],
    /// The most bytes learnt lately, as logarithms: an hour may have quiet and busy intervals.
    most: [f32; 2],
}

/// How long all services have been watched: a service that is new was not there so many times.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    all: f32,
    hours: [[f32; 24]; 2],
    /// What is usual in the intervals of all services.
    usual: Numbers,
    seen: f64,
    /// Services that were new, and pairs by intervals.
    born: f32,
    /// Of these, in the interval that is not over.
    births: f32,
    chances: f32,
}

impl Watched {
    /// An interval of so many pairs is over.
    pub(super) fn interval(&mut self, moment: Moment, pairs: usize) {
        let kept = fade(self.all, FADE_ALL) / self.all.max(1.0);
        self.born = self.born * kept + std::mem::take(&mut self.births);
        self.chances = self.chances * kept + pairs as f32;
        self.all = fade(self.all, FADE_ALL) + 1.0;
        let hour = &mut self.hours[usize::from(moment.weekend)][moment.hour];
        *hour = fade(*hour, FADE_HOUR) + 1.0;
    }

    /// There is a service that was not there before. Those of the first day are not counted: then all is new.
    pub(super) fn born(&mut self) {
        self.births += f32::from(u8::from(self.all >= LEARNING));
    }

    /// Of a pair in all the intervals watched, how many new services are to be expected.
    fn novelty(&self) -> f32 {
        let chances = self.chances.max(1.0);
        ((self.born + 0.5) / chances * self.all.max(1.0)).clamp(1e-3, 0.5)
    }

    pub(super) fn present(&mut self, logs: &Numbers) {
        self.seen = (self.seen + 1.0).min(1000.0);
        for (usual, log) in self.usual.iter_mut().zip(logs) {
            *usual += (log - *usual) / self.seen;
        }
    }
}

impl Season {
    /// Of a service that was not there in anything that was watched.
    pub(super) fn new(watched: &Watched) -> Self {
        let hours = |weekend: usize| {
            let bucket = |hour: usize| Bucket { intervals: watched.hours[weekend][hour], ..Bucket::default() };
            Box::new(std::array::from_fn(bucket))
        };
        Self {
            all: Bucket { intervals: watched.all, ..Bucket::default() },
            prior: watched.novelty(),
            spread: [SPREAD_UNSEEN as f32; QUANTITIES],
            weekday: hours(0),
            weekend: (watched.hours[1].iter().any(|n| *n > 0.0)).then(|| hours(1)),
        }
    }

    /// The probability that there is traffic.
    pub(super) fn presence(&self, moment: Moment) -> f64 {
        let shrunk = |bucket: &Bucket, wider: f64| {
            (f64::from(bucket.present) + TRUST_PRESENCE * wider) / (f64::from(bucket.intervals) + TRUST_PRESENCE)
        };
        let all = (f64::from(self.all.present) + f64::from(self.prior)) / (f64::from(self.all.intervals) + 1.0);
        let weekday = shrunk(&self.weekday[moment.hour], all);
        match self.weekend.as_ref().filter(|_| moment.weekend) {
            Some(weekend) => shrunk(&weekend[moment.hour], weekday),
            None => weekday,
        }
    }

    /// What is expected where there is traffic.
    pub(super) fn levels(&self, moment: Moment, watched: &Watched) -> [Level; QUANTITIES] {
        let shrunk = |bucket: &Bucket, at: usize, wider: f64| {
            let n = f64::from(bucket.present);
            (n * f64::from(bucket.mean[at]) + TRUST_LEVEL * wider) / (n + TRUST_LEVEL)
        };
        let n = f64::from(self.all.present);
        std::array::from_fn(|at| {
            let all = shrunk(&self.all, at, watched.usual[at]);
            let weekday = shrunk(&self.weekday[moment.hour], at, all);
            let weekend = self.weekend.as_ref().filter(|_| moment.weekend);
            let mean = weekend.map_or(weekday, |weekend| shrunk(&weekend[moment.hour], at, weekday));
            let spread = (n * f64::from(self.spread[at]) + TRUST_SPREAD * SPREAD_UNSEEN) / (n + TRUST_SPREAD);
            Level { mean, sigma: spread.max(SPREAD_LEAST) * MAD_TO_SIGMA }
        })
    }

    /// The most bytes in one direction that are usual: one deviation above the mean, or what was learnt in that hour.
    pub(super) fn usual_bytes(&self, side: usize, moment: Moment, watched: &Watched) -> f64 {
        let level = self.levels(moment, watched)[BYTES[side]];
        let weekend = self.weekend.as_ref().filter(|_| moment.weekend).map(|hours| hours[moment.hour].most[side]);
        let most = weekend.unwrap_or(0.0).max(self.weekday[moment.hour].most[side]);
        (level.mean + level.sigma).max(f64::from(most)).exp_m1().max(0.0)
    }

    /// Learns from an interval: its logarithms, or that there was nothing.
    pub(super) fn learn(&mut self, moment: Moment, logs: Option<&Numbers>, watched: &Watched) {
        if let Some(logs) = logs {
            let expected = self.levels(moment, watched);
            let n = f64::from(self.all.present).min(FADE_ALL);
            for (at, level) in expected.iter().enumerate() {
                let cut = CUT * level.sigma;
                let residual = (logs[at] - level.mean).clamp(-cut, cut).abs();
                self.spread[at] += ((residual - f64::from(self.spread[at])) / (n + 1.0)) as f32;
            }
            let cut = expected.map(|level| CUT * level.sigma);
            self.all.learn(Some((logs, &cut)), FADE_ALL);
            self.hour(moment).learn(Some((logs, &cut)), FADE_HOUR);
        } else {
            self.all.learn(None, FADE_ALL);
            self.hour(moment).learn(None, FADE_HOUR);
        }
    }

    /// What was learnt counts for little from now on: a new level is there to stay.
    pub(super) fn loosen(&mut self) {
        let buckets = self.weekday.iter_mut().chain(self.weekend.iter_mut().flat_map(|hours| hours.iter_mut()));
        for bucket in buckets.chain([&mut self.all]) {
            let keep = (2.0 / bucket.intervals.max(2.0)).min(1.0);
            (bucket.intervals, bucket.present) = (bucket.intervals * keep, bucket.present * keep);
        }
    }

    fn hour(&mut self, moment: Moment) -> &mut Bucket {
        if moment.weekend {
            &mut self.weekend.get_or_insert_with(|| Box::new([Bucket::default(); 24]))[moment.hour]
        } else {
            &mut self.weekday[moment.hour]
        }
    }
}

impl Bucket {
    fn learn(&mut self, logs: Option<(&Numbers, &[f64; QUANTITIES])>, most: f64) {
        let faded = fade(self.intervals, most);
        if faded < self.intervals {
            self.present *= faded / self.intervals;
        }
        self.intervals = faded + 1.0;
        let Some((logs, cut)) = logs else { return };
        self.present += 1.0;
        for (most, at) in self.most.iter_mut().zip(BYTES) {
            *most = (*most - FORGET_MOST).max(logs[at] as f32);
        }
        for at in 0..QUANTITIES {
            let residual = logs[at] - f64::from(self.mean[at]);
            // The first ones say where it is at all.
            let residual = if self.present > 3.0 { residual.clamp(-cut[at], cut[at]) } else { residual };
            self.mean[at] += residual as f32 / self.present;
        }
    }
}

fn fade(intervals: f32, most: f64) -> f32 {
    intervals.min(most as f32 - 1.0)
}
