//! Packets to one host over time, in buckets of a quarter window.

use crate::packet::Host;

/// Buckets to a window.
const PER_WINDOW: u64 = 4;
/// Buckets kept: 32 windows, so that flows recorded late still meet their contemporaries.
const KEPT: usize = 128;
/// Sources whose share is tracked.
const SOURCES: usize = 8;
/// Flows remembered.
const NAMED_FLOWS: usize = 5;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    index: u64,
    counted: f64,
    accounted: f64,
}

/// Counts within one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Level {
    pub(crate) counted: f64,
    pub(crate) accounted: f64,
}

/// Arrivals at one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    /// Ascending index, no duplicates, at most `KEPT`.
    buckets: Vec<Bucket>,
    /// Who sent what was counted since the level was last low, and the first flows of it.
    pub(crate) sources: Shares,
    pub(crate) flow_ids: Vec<u64>,
    /// Start of the first of them.
    pub(crate) since: Option<u64>,
}

impl Arrivals {
    /// Adds the weights of a record that lasted from `start` to `end`, spread evenly, and returns the
    /// highest level of any window that it touches.
    pub(crate) fn add(&mut self, start: u64, end: u64, weight: (f64, f64), window: u64) -> Level {
        let width = (window / PER_WINDOW).max(1);
        // Far from the end of the number range, so that sums of indices cannot overflow.
        let index = |time: u64| (time / width).min(u64::MAX / 2);
        let last = index(end.max(start));
        let whole = last - index(start.min(end)) + 1;
        let kept = whole.min(KEPT as u64);
        let first = last + 1 - kept;
        // Of a flow longer than what is kept, only the share of the kept part.
        let share = 1.0 / whole as f64;
        for index in first..=last {
            let bucket = self.bucket(index);
            bucket.counted += weight.0 * share;
            bucket.accounted += weight.1 * share;
        }
        if self.buckets.len() > KEPT {
            self.buckets.drain(..self.buckets.len() - KEPT);
        }
        self.highest(first, last)
    }

    /// Notes the source of a record that took the level to `level`. A record that is the level by
    /// itself starts afresh.
    pub(crate) fn remember(&mut self, source: Host, weight: f64, (start, flow_id): (u64, u64), level: f64) {
        if weight >= level {
            self.start_afresh();
        }
        self.sources.add(source, weight);
        self.since = Some(self.since.map_or(start, |s| s.min(start)));
        if self.flow_ids.len() < NAMED_FLOWS {
            self.flow_ids.push(flow_id);
        }
    }

    /// What led to the level before does not lead to this one.
    pub(crate) fn start_afresh(&mut self) {
        self.sources = Shares::default();
        self.flow_ids.clear();
        self.since = None;
    }

    fn bucket(&mut self, index: u64) -> &mut Bucket {
        let at = self.buckets.partition_point(|b| b.index < index);
        if self.buckets.get(at).is_none_or(|b| b.index != index) {
            self.buckets.insert(at, Bucket { index, counted: 0.0, accounted: 0.0 });
        }
        &mut self.buckets[at]
    }

    /// Highest level among windows that overlap the buckets `first..=last`.
    fn highest(&self, first: u64, last: u64) -> Level {
        let from = self.buckets.partition_point(|b| b.index + PER_WINDOW <= first);
        let mut best = Level::default();
        for (i, start) in self.buckets.iter().enumerate().skip(from).take_while(|(_, b)| b.index <= last) {
            let mut level = Level::default();
            for b in self.buckets[i..].iter().take_while(|b| b.index < start.index + PER_WINDOW) {
                level.counted += b.counted;
                level.accounted += b.accounted;
            }
            if level.counted > best.counted {
                best = level;
            }
        }
        best
    }
}

/// The heaviest sources, approximately (Misra and Gries, 1982): a source with more than a ninth of
/// the weight is never missed, its share understated by at most a ninth.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    top: Vec<(Host, f64)>,
    total: f64,
}

impl Shares {
    pub(crate) fn add(&mut self, host: Host, weight: f64) {
        self.total += weight;
        if let Some(entry) = self.top.iter_mut().find(|e| e.0 == host) {
            entry.1 += weight;
        } else if self.top.len() < SOURCES {
            self.top.push((host, weight));
        } else {
            let least = self.top.iter().map(|e| e.1).fold(weight, f64::min);
            self.top.iter_mut().for_each(|e| e.1 -= least);
            self.top.retain(|e| e.1 > 0.0);
            if weight > least {
                self.top.push((host, weight - least));
            }
        }
    }

    pub(crate) fn top(&self) -> &[(Host, f64)] {
        &self.top
    }

    /// The source of three quarters or more of all weight.
    pub(crate) fn dominant(&self) -> Option<Host> {
        self.top.iter().find(|e| e.1 >= 0.75 * self.total).map(|e| e.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn host(addr: u128) -> Host {
        Host { version: 4, addr, vlan: 0, vni: 0 }
    }

    #[test]
    fn level_is_the_sum_over_one_window() {
        let mut a = Arrivals::default();
        for i in 0..100u64 {
            let level = a.add(i * 10, i * 10, (1.0, 0.0), 400);
            assert!(level.counted <= 40.0);
        }
        assert_eq!(a.add(990, 990, (1.0, 2.0), 400), Level { counted: 41.0, accounted: 2.0 });
    }

    #[test]
    fn long_flows_count_by_their_rate() {
        let mut a = Arrivals::default();
        // 1000 packets over ten windows: about a hundred a window.
        let level = a.add(0, 3999, (1000.0, 0.0), 400);
        assert!((level.counted - 100.0).abs() < 1.0, "{level:?}");
        // A flow longer than what is kept.
        let level = Arrivals::default().add(0, 400_000 - 1, (1000.0, 0.0), 400);
        assert!((level.counted - 1.0).abs() < 0.01, "{level:?}");
    }

    #[test]
    fn late_records_meet_their_time_and_memory_is_bounded() {
        let mut a = Arrivals::default();
        a.add(0, 0, (5.0, 0.0), 400);
        a.add(5000, 5000, (1.0, 0.0), 400);
        assert_eq!(a.add(10, 20, (5.0, 0.0), 400).counted, 10.0);
        for i in 0..10_000u64 {
            a.add(i * 1000, i * 1000, (1.0, 0.0), 400);
        }
        assert!(a.buckets.len() <= KEPT);
        a.add(u64::MAX, 0, (1.0, 0.0), 0);
    }

    #[test]
    fn dominant_source() {
        let mut s = Shares::default();
        for i in 0..1000u128 {
            s.add(host(i), 1.0);
        }
        assert_eq!(s.dominant(), None);
        for _ in 0..9000 {
            s.add(host(5_000_000), 1.0);
        }
        assert_eq!(s.dominant(), Some(host(5_000_000)));
        assert!(s.top.len() <= SOURCES);
    }
}
