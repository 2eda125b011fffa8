//! When the flow tables run full: one alert an episode, from counters that the workers keep anyway.

use crate::config::Metrics;
use crate::export::PressureAlert;

const SECOND: u64 = 1_000_000_000;
/// An episode is over when nothing was wrong for so long.
const CALM: u64 = 10 * SECOND;
/// An episode is told again when its count is so many times what it was.
const UPDATE_FACTOR: u64 = 4;

/// What the counters say at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
    /// The fullest worker, its flows and room.
    pub worker: usize,
    pub live: u64,
    pub capacity: u64,
    /// In all workers so far: flows evicted half-open, closed and idle, and packets that found no place.
    pub evicted: [u64; 3],
    pub refused: u64,
}

/// Watches the tables.
#[derive(Clone, Debug)]
pub struct Pressure {
    limits: Metrics,
    last: Option<Fill>,
    episode: Option<Episode>,
}

#[derive(Clone, Debug)]
struct Episode {
    alert: PressureAlert,
    /// Count and severity when it was told last.
    told: Option<(u64, u8)>,
}

impl Pressure {
    pub fn new(limits: Metrics) -> Self {
        Self { limits, last: None, episode: None }
    }

    pub fn is_open(&self) -> bool {
        self.episode.is_some()
    }

    /// Call it about once a second. `number` gives the number of a new episode. Returns what is to be told.
    pub fn look(&mut self, fill: Fill, number: impl FnOnce() -> u64) -> Option<PressureAlert> {
        let last = self.last.replace(fill)?;
        let seconds = fill.at.saturating_sub(last.at).max(1) as f64 / SECOND as f64;
        let evicted: [u64; 3] = std::array::from_fn(|kind| fill.evicted[kind].saturating_sub(last.evicted[kind]));
        let refused = fill.refused.saturating_sub(last.refused);
        let rate = (evicted.iter().sum::<u64>() + refused) as f64 / seconds;
        let share = fill.live as f64 / fill.capacity.max(1) as f64;
        let many = rate >= f64::from(self.limits.pressure_evictions);
        let severity = match (refused > 0, many, share >= self.limits.pressure_fill) {
            (true, ..) => Some(1),
            (_, true, _) => Some(2),
            (_, _, true) => Some(3),
            _ => None,
        };
        let Some(severity) = severity else {
            let calm = self.episode.as_ref().is_some_and(|e| fill.at.saturating_sub(e.alert.last_seen) > CALM);
            return if calm { self.close(fill.at) } else { None };
        };
        let episode = self.episode.get_or_insert_with(|| Episode {
            alert: PressureAlert {
                episode: number(),
                severity,
                raised: fill.at,
                first_seen: last.at,
                ..PressureAlert::default()
            },
            told: None,
        });
        let alert = &mut episode.alert;
        if share >= alert.fill {
            (alert.worker, alert.live, alert.capacity, alert.fill) = (fill.worker, fill.live, fill.capacity, share);
        }
        alert.evicted.iter_mut().zip(evicted).for_each(|(sum, more)| *sum += more);
        alert.refused += refused;
        alert.peak = alert.peak.max(rate);
        alert.severity = alert.severity.min(severity);
        (alert.last_seen, alert.told) = (fill.at, fill.at);
        let count = alert.count();
        let news = |(told, at): (u64, u8)| count >= told.max(1).saturating_mul(UPDATE_FACTOR) || alert.severity < at;
        if !episode.told.is_none_or(news) {
            return None;
        }
        episode.told = Some((count, alert.severity));
        Some(alert.clone())
    }

    /// The end of the run.
    pub fn close(&mut self, now: u64) -> Option<PressureAlert> {
        let mut alert = self.episode.take()?.alert;
        alert.closed = true;
        alert.told = now;
        Some(alert)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u64 = 1000;

    struct Table {
        pressure: Pressure,
        fill: Fill,
        told: Vec<PressureAlert>,
    }

    impl Table {
        fn new() -> Self {
            let mut pressure = Pressure::new(Metrics { pressure_evictions: 100, ..Metrics::default() });
            let fill = Fill { at: 100 * SECOND, worker: 1, capacity: ROOM, ..Fill::default() };
            assert_eq!(pressure.look(fill, || unreachable!("nothing to compare with yet")), None);
            Self { pressure, fill, told: Vec::new() }
        }

        /// A second passes.
        fn second(&mut self, live: u64, evicted: u64, refused: u64) -> Option<&PressureAlert> {
            let fill = &mut self.fill;
            fill.at += SECOND;
            (fill.live, fill.refused) = (live, fill.refused + refused);
            fill.evicted[2] += evicted;
            let number = 40 + self.told.len() as u64;
            let news = self.pressure.look(*fill, || number)?;
            self.told.push(news);
            self.told.last()
        }
    }

    #[test]
    fn a_busy_table_is_no_pressure() {
        let mut table = Table::new();
        for _ in 0..100 {
            assert_eq!(table.second(899, 99, 0), None);
        }
        assert!(!table.pressure.is_open());
    }

    #[test]
    fn one_episode_is_told_when_it_opens_grows_and_ends() {
        let mut table = Table::new();
        let opened = table.second(950, 0, 0).cloned().expect("full");
        assert_eq!((opened.severity, opened.episode, opened.closed, opened.count()), (3, 40, false, 0));
        assert_eq!((opened.worker, opened.live, opened.capacity, opened.fill), (1, 950, ROOM, 0.95));
        assert_eq!(table.second(960, 0, 0), None, "nothing new");
        let worse = table.second(1000, 500, 0).cloned().expect("evictions");
        assert_eq!((worse.severity, worse.episode, worse.evicted, worse.peak), (2, 40, [0, 0, 500], 500.0));
        assert_eq!(table.second(1000, 500, 0), None, "twice is not four times");
        assert_eq!(table.second(1000, 1000, 0).map(|a| a.count()), Some(2000));
        assert_eq!(table.second(1000, 0, 1).map(|a| (a.severity, a.refused)), Some((1, 1)));
        // A short calm does not end it.
        for _ in 0..10 {
            assert_eq!(table.second(500, 0, 0), None);
        }
        assert_eq!(table.second(990, 0, 0), None);
        let last = table.fill.at;
        let closed = (0..20).find_map(|_| table.second(500, 3, 0).cloned()).expect("it ends");
        assert_eq!((closed.closed, closed.episode, closed.evicted, closed.refused), (true, 40, [0, 0, 2000], 1));
        assert_eq!((closed.first_seen, closed.last_seen, closed.fill), (100 * SECOND, last, 1.0));
        assert!(closed.told > last + CALM);
        assert_eq!(table.told.len(), 5);
        assert_eq!(table.second(990, 0, 0).map(|a| a.episode), Some(45), "the next one is another");
    }

    #[test]
    fn thousands_of_evictions_a_second_are_told_in_a_few_lines() {
        let mut table = Table::new();
        for _ in 0..3600 {
            table.second(ROOM, 100_000, 1000);
        }
        assert!(table.told.len() < 10, "{}", table.told.len());
        assert!(table.pressure.close(table.fill.at).is_some_and(|a| a.closed && a.count() == 3600 * 101_000));
        assert_eq!(table.pressure.close(0), None);
    }
}
