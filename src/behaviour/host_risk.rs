//! How unusual a host's traffic is altogether, and for that host, from the scores of its records.
//!
//! A calibrated score `s` says that the share `1 - s` of normal traffic is at least that unusual, so the surprise
//! `-ln(1 - s)` of normal records is distributed exponentially with mean 1 (Fisher's method of combining tests). Its
//! weighted mean over the latest records is compared with what is expected of the host: 1, or its own long-term mean
//! where that is more, for some hosts are unusual all the time. The ratio then follows nearly a gamma distribution, and
//! the risk is where it stands in that: 0.999 says that of normal hosts about one record in a thousand is met in such a
//! state. Records of a host resemble each other, so eight of them count as little more than two independent ones
//! (measured on generated traffic of three seeds: one in ten thousand records of harmless hosts or fewer at 0.999).

use crate::packet::Host;

use super::bounded::Recent;

/// Hosts remembered; those silent for longest are forgotten.
const HOSTS: usize = 16_384;
/// Weight of a new record, and in what is expected of the host.
const WEIGHT: f64 = 1.0 / 8.0;
const HABIT_WEIGHT: f64 = 1.0 / 128.0;
/// A record adds at most so many times what is expected to that: a burst is not a habit.
const HABIT_CLIP: f64 = 3.0;
/// Risk below which a host is as usual.
const CALM: f64 = 0.99;
/// Shape of the gamma distribution: the number of independent records that the mean is worth.
const SIZE: f64 = 4.0;
/// No record may say more than this.
const MOST: f64 = 16.0;

/// The risks of hosts.
#[derive(Debug)]
pub struct HostRisk {
    hosts: Recent<Host, Surprise>,
}

/// Mean surprise of a host's records, of late and in the long run.
#[derive(Clone, Copy, Debug)]
struct Surprise {
    lately: f64,
    usually: f64,
}

impl Default for HostRisk {
    fn default() -> Self {
        Self { hosts: Recent::new(HOSTS) }
    }
}

impl HostRisk {
    /// The risk of a host after one more record, 0..=1.
    pub fn update(&mut self, host: Host, score: f32) -> f64 {
        let surprise = -(1.0 - f64::from(score)).ln();
        // What is no number is no surprise.
        let surprise = if surprise.is_nan() { 0.0 } else { surprise.clamp(0.0, MOST) };
        let mean = self.hosts.get_or(host, || Surprise { lately: 1.0, usually: 1.0 });
        mean.lately += WEIGHT * (surprise - mean.lately);
        let risk = gamma_below(mean.lately / mean.usually.max(1.0));
        // Who is at risk gets used to it much more slowly.
        let weight = if risk < CALM { HABIT_WEIGHT } else { HABIT_WEIGHT / 16.0 };
        mean.usually += weight * (surprise.min(HABIT_CLIP * mean.usually) - mean.usually);
        risk
    }
}

/// Where a mean stands in the gamma distribution of mean 1 and shape [`SIZE`]: the cube root is nearly normal (Wilson and
/// Hilferty, 1931).
fn gamma_below(mean: f64) -> f64 {
    let spread = 1.0 / (9.0 * SIZE);
    normal_below((mean.max(0.0).cbrt() - (1.0 - spread)) / spread.sqrt())
}

/// Standard normal distribution (Abramowitz and Stegun 26.2.17; absolute error below 8e-8).
fn normal_below(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = series.iter().rev().fold(0.0, |sum, factor| t * (factor + sum));
    let above = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum;
    if z >= 0.0 { 1.0 - above } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(addr: u128) -> Host {
        Host { version: 4, addr, vlan: 0, vni: 0 }
    }

    #[test]
    fn normal_hosts_are_seldom_at_risk_even_when_their_records_come_in_kinds() {
        let mut risk = HostRisk::default();
        let mut dice = 1u64;
        let mut roll = || {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 40) as f32 / (1u32 << 24) as f32
        };
        let mut over = [0u32; 2];
        for _ in 0..100_000 {
            // Four records of a kind in a row.
            let score = roll();
            for _ in 0..4 {
                let risk = risk.update(host(1), score);
                over.iter_mut().zip([0.99, 0.999]).for_each(|(n, limit)| *n += u32::from(risk >= limit));
            }
        }
        for (n, wanted) in over.iter().zip([0.01, 0.001]) {
            let share = f64::from(*n) / 400_000.0;
            assert!(share <= 1.5 * wanted && share > 0.0, "{share} for {wanted}");
        }
    }

    #[test]
    fn what_becomes_unusual_is_found_and_passes_and_what_always_was_is_not() {
        let mut risk = HostRisk::default();
        let after = (0..20).map(|_| risk.update(host(1), 0.9999)).last();
        assert!(after.is_some_and(|risk| risk > 0.9999), "{after:?}");
        assert!(risk.update(host(2), 0.9999) < 0.99, "one record is not enough");
        let later = (0..60).map(|_| risk.update(host(1), 0.5)).last();
        assert!(later.is_some_and(|risk| risk < 0.9), "{later:?}");
        let odd = (0..3000).map(|_| risk.update(host(3), 0.98)).last();
        assert!(odd.is_some_and(|risk| risk < 0.9), "{odd:?}");
        assert!((normal_below(1.959_964) - 0.975).abs() < 1e-6 && (normal_below(-3.0) - 0.001_349_9).abs() < 1e-6);
        assert!(risk.update(host(4), 1.0) < 1.0 && risk.update(host(4), f32::NAN).is_finite());
    }
}
