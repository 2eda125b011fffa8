//! The budget: what would be copied of each class against what may be.

use super::super::delivery::Cap;
use super::super::watch::{CLASSES, fraction};

/// Packets and bytes that adaptive sessions would have sent since the start, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals(pub [(u64, u64); CLASSES]);

/// Part of the budget that is planned for: what comes in bursts needs the rest.
const PLANNED: f64 = 0.9;
/// How fast estimates follow what is measured, in nanoseconds.
const FOLLOW: f64 = 500e6;
/// A scale rises by at most this factor a second, and this much: a share that was cut comes back gently.
const RISE: f64 = 2.0;
const LEAST: f64 = 0.01;

/// Follows demand and divides the budget, the most urgent class first.
#[derive(Debug)]
pub(super) struct Budget {
    cap: Cap,
    last: Option<(u64, Totals)>,
    /// Packets and bits per second that each class would take without a budget.
    full: [(f64, f64); CLASSES],
    scales: [f64; CLASSES],
}

impl Budget {
    pub(super) fn new(cap: Cap) -> Self {
        Self { cap, last: None, full: [(0.0, 0.0); CLASSES], scales: [1.0; CLASSES] }
    }

    /// Which part of its shares each class keeps from now on.
    pub(super) fn update(&mut self, now: u64, totals: &Totals) -> [u16; CLASSES] {
        let (since, before) = *self.last.get_or_insert((now, *totals));
        if now > since && (self.cap.bits > 0 || self.cap.packets > 0) {
            let passed = (now - since) as f64;
            self.measure(passed, totals, &before);
            self.divide(passed);
            self.last = Some((now, *totals));
        }
        self.scales.map(fraction)
    }

    fn measure(&mut self, passed: f64, totals: &Totals, before: &Totals) {
        let weight = 1.0 - (-passed / FOLLOW).exp();
        for class in 0..CLASSES {
            let ((packets, bytes), (packets0, bytes0)) = (totals.0[class], before.0[class]);
            let per_second = |n: u64| n as f64 * 1e9 / passed / self.scales[class].max(LEAST);
            let now = (per_second(packets.saturating_sub(packets0)), per_second(bytes.saturating_sub(bytes0)) * 8.0);
            let full = &mut self.full[class];
            *full = (full.0 + weight * (now.0 - full.0), full.1 + weight * (now.1 - full.1));
        }
    }

    fn divide(&mut self, passed: f64) {
        let planned = |cap: u64| if cap == 0 { f64::INFINITY } else { cap as f64 * PLANNED };
        let mut room = (planned(self.cap.packets), planned(self.cap.bits));
        let rise = RISE.powf(passed / 1e9);
        for class in (0..CLASSES).rev() {
            let full = self.full[class];
            let part = |room: f64, want: f64| if want > room { room / want } else { 1.0 };
            let fits = part(room.0, full.0).min(part(room.1, full.1));
            let most = self.scales[class].max(LEAST) * rise;
            let scale = match () {
                // A share of flows would leave out a large one whole. What is too much is left to the meter.
                () if class == CLASSES - 1 => 1.0,
                () if fits < self.scales[class] => fits,
                () => fits.min(most),
            };
            room = ((room.0 - full.0 * scale).max(0.0), (room.1 - full.1 * scale).max(0.0));
            self.scales[class] = if scale > 0.999 { 1.0 } else { scale };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 100_000_000;

    /// Runs ticks in which each class wants so many bytes a second; returns the scales and what was wanted of the last
    /// second after scaling.
    fn run(budget: &mut Budget, from: u64, seconds: u64, wanted: [f64; CLASSES]) -> ([f64; CLASSES], f64) {
        let mut totals = budget.last.map_or(Totals::default(), |(_, totals)| totals);
        let (mut scales, mut last) = (budget.scales, 0.0);
        for tick in 1..=seconds * 10 {
            for class in 0..CLASSES {
                let bytes = wanted[class] * scales[class] / 10.0;
                totals.0[class].0 += (bytes / 1000.0) as u64;
                totals.0[class].1 += bytes as u64;
                last += if tick > (seconds - 1) * 10 { bytes } else { 0.0 };
            }
            scales = budget.update(from + tick * TICK, &totals).map(|scale| f64::from(scale) / 65535.0);
        }
        (scales, last)
    }

    #[test]
    fn the_urgent_gets_all_it_wants_and_the_rest_shares_what_is_left() {
        let mut budget = Budget::new(Cap { bits: 8_000_000, packets: 0 });
        let start = 1_700_000_000_000_000_000;
        let (scales, sent) = run(&mut budget, start, 5, [400_000.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(scales, [1.0; CLASSES], "it fits: {sent}");
        let (scales, sent) =
            run(&mut budget, start + 5_000_000_000, 10, [400_000.0, 0., 0., 800_000.0, 0., 0., 0., 600_000.0]);
        assert_eq!(scales[7], 1.0);
        assert!((scales[3] - 300.0 / 800.0).abs() < 0.02, "{scales:?}");
        assert!(scales[0] < 0.02, "{scales:?}");
        assert!((850_000.0..=950_000.0).contains(&sent), "{sent}");
        let (scales, _) = run(&mut budget, start + 15_000_000_000, 20, [400_000.0, 0., 0., 0., 0., 0., 0., 0.]);
        assert_eq!(scales, [1.0; CLASSES], "all comes back");
    }

    #[test]
    fn without_a_budget_nothing_is_scaled() {
        let mut budget = Budget::new(Cap::default());
        assert_eq!(run(&mut budget, 1, 3, [1e12; CLASSES]).0, [1.0; CLASSES]);
        let mut packets = Budget::new(Cap { bits: 0, packets: 500 });
        let (scales, _) = run(&mut packets, 1, 10, [0., 0., 0., 0., 0., 0., 1_000_000.0, 0.]);
        assert!((scales[6] - 0.45).abs() < 0.03, "{scales:?}");
        let (scales, _) = run(&mut packets, 20_000_000_000, 10, [100_000.0, 0., 0., 0., 0., 0., 0., 9_000_000.0]);
        assert_eq!(scales[7], 1.0, "the most urgent is left to the meter");
        assert!(scales[0] < 0.02, "{scales:?}");
    }
}
