//! How often something so unusual happens: from a sum of surprises to a score.
//!
//! Sums are counted in bins of their logarithm, for all pairs together and for each pair. A pair that is more often
//! unusual than others is measured by its own intervals as far as there are enough of them; that a pair never was
//! unusual makes nothing rarer than it is among all. Beyond the greatest hundredth of all pairs'
//! intervals a power law with their mean excess goes on, so that what was never seen is told apart.

/// Bins of ln(1 + surprise): the last one is for 2900 nats and more.
const BINS: usize = 64;
const WIDTH: f64 = 0.125;
/// What is kept of the counts from day to day: a week and a day weigh as much as all before them.
const KEEP: f32 = 0.875;
/// Intervals of a pair that weigh as much as all others.
const TRUST: f64 = 64.0;
/// Share of the intervals that is the tail, and its least mean excess.
const TAIL: f64 = 0.01;
const LEAST_EXCESS: f64 = 0.08;

/// Counts of intervals by how surprising they were.
#[derive(Clone, Debug)]
pub(super) struct Rarity {
    bins: [f32; BINS],
    count: f32,
}

fn place(surprise: f64) -> f64 {
    (1.0 + surprise.max(0.0)).ln() / WIDTH
}

fn bin(surprise: f64) -> usize {
    (place(surprise) as usize).min(BINS - 1)
}

impl Rarity {
    pub(super) fn new() -> Self {
        Self { bins: [0.0; BINS], count: 0.0 }
    }

    pub(super) fn note(&mut self, surprise: f64) {
        self.bins[bin(surprise)] += 1.0;
        self.count += 1.0;
    }

    /// A day has passed.
    pub(super) fn fade(&mut self) {
        self.bins.iter_mut().for_each(|n| *n *= KEEP);
        self.count = self.bins.iter().sum();
    }

    /// Of all pairs: 0..1, one minus the share of ordinary intervals, of the pair or of all, that are at least so unusual:
    /// the greater of the two.
    pub(super) fn score(&self, pair: &Rarity, surprise: f64) -> f64 {
        let theirs: f32 = pair.bins[bin(surprise)..].iter().sum();
        let all = self.share(surprise);
        let own = (f64::from(theirs) + TRUST * all) / (f64::from(pair.count) + TRUST);
        1.0 - own.max(all).clamp(0.0, 1.0)
    }

    /// Share of the intervals that are at least so unusual.
    fn share(&self, surprise: f64) -> f64 {
        let (at, count) = (place(surprise), f64::from(self.count));
        let (mut above, mut tail) = (0.0, BINS);
        while tail > 0 && above + f64::from(self.bins[tail - 1]) <= TAIL * count {
            tail -= 1;
            above += f64::from(self.bins[tail]);
        }
        // The tail begins where bin `tail` does.
        if at < tail as f64 {
            let bin = at as usize;
            let beyond: f32 = self.bins[bin + 1..].iter().sum();
            let within = f64::from(self.bins[bin]) * (1.0 - (at - bin as f64));
            return (f64::from(beyond) + within + 0.5) / (count + 1.0);
        }
        let excess: f64 = (tail..BINS).map(|b| f64::from(self.bins[b]) * (b as f64 + 0.5 - tail as f64)).sum();
        let mean = (excess / above.max(1.0)).max(LEAST_EXCESS / WIDTH);
        (above + 0.5) / (count + 1.0) * (-(at - tail as f64) / mean).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_says_how_rare() {
        let (mut all, mut pair) = (Rarity::new(), Rarity::new());
        // Exponential surprises: a share of e^-x is above x.
        let ordinary = |i: u32| -((f64::from(i) + 0.5) / 5000.0).ln();
        (0..5000).for_each(|i| all.note(ordinary(i)));
        for share in [0.5, 0.1, 0.02, 0.01] {
            let score = all.score(&pair, -f64::ln(share));
            assert!(((1.0 - score) / share - 1.0).abs() < 0.25, "{share}: {score}");
        }
        let scores: Vec<f64> = (0..400).map(|i| all.score(&pair, f64::from(i) / 4.0)).collect();
        assert!(scores.windows(2).all(|w| w[0] <= w[1] + 1e-12));
        assert!(scores[399] < 1.0 && scores[399] > scores[200], "told apart beyond what was seen");
        // A pair that is always so is no surprise any more.
        (0..2000).for_each(|_| pair.note(20.0));
        assert!(all.score(&pair, 20.0) < 0.1);
        assert!(all.score(&pair, 60.0) > 0.999);
    }

    #[test]
    fn what_was_fades_and_nothing_breaks_without_counts() {
        let mut pair = Rarity::new();
        (0..1000).for_each(|_| pair.note(5.0));
        (0..60).for_each(|_| pair.fade());
        (0..1000).for_each(|_| pair.note(0.1));
        assert!(pair.share(5.0) < 0.01);
        assert!((0.0..=1.0).contains(&Rarity::new().score(&Rarity::new(), f64::MAX)));
    }
}
