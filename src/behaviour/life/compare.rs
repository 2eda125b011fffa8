//! Two models side by side on the same live records.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;
use serde::Serialize;

/// Scores from here on are unusual.
use super::gate::UNUSUAL;

/// Pairs of scores that the rank correlation is reckoned from.
const PAIRS: usize = 2048;
/// Parts of the scale.
const PARTS: usize = 10;

/// What was counted so far.
#[derive(Clone, Debug)]
pub struct Comparison {
    records: u64,
    /// Both unusual or both not.
    agree: u64,
    /// Of the active model, and of the shadow.
    unusual: [u64; 2],
    sums: [f64; 2],
    parts: [[u64; PARTS]; 2],
    pairs: Vec<(f32, f32)>,
    rng: Pcg32,
}

/// What the comparison says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    pub records: u64,
    /// Share of records that both call unusual (0.99 and above) or neither does.
    pub agreement: f64,
    pub unusual_active: f64,
    pub unusual_shadow: f64,
    pub mean_active: f64,
    pub mean_shadow: f64,
    /// Spearman's, of a sample; `None` where one of them says the same of all.
    pub rank_correlation: Option<f64>,
    /// Share of records in each tenth of the scale.
    pub distribution_active: Vec<f64>,
    pub distribution_shadow: Vec<f64>,
}

impl Comparison {
    pub fn new(seed: u64) -> Self {
        Self {
            records: 0,
            agree: 0,
            unusual: [0; 2],
            sums: [0.0; 2],
            parts: [[0; PARTS]; 2],
            pairs: Vec::new(),
            rng: Pcg32::seed_from_u64(seed),
        }
    }

    /// Takes what both say of a record.
    pub fn note(&mut self, active: f32, shadow: f32) {
        self.records += 1;
        self.agree += u64::from((active >= UNUSUAL) == (shadow >= UNUSUAL));
        for (k, score) in [active, shadow].into_iter().enumerate() {
            self.unusual[k] += u64::from(score >= UNUSUAL);
            self.sums[k] += f64::from(score);
            self.parts[k][((score * PARTS as f32) as usize).min(PARTS - 1)] += 1;
        }
        if self.pairs.len() < PAIRS {
            return self.pairs.push((active, shadow));
        }
        let at = (self.rng.next_u64() % self.records) as usize;
        if let Some(pair) = self.pairs.get_mut(at) {
            *pair = (active, shadow);
        }
    }

    pub fn records(&self) -> u64 {
        self.records
    }

    /// Shares of unusual records of the active model, and of the shadow.
    pub fn unusual(&self) -> [f64; 2] {
        self.unusual.map(|count| count as f64 / self.records.max(1) as f64)
    }

    pub fn compared(&self) -> Compared {
        let share = |count: u64| count as f64 / self.records.max(1) as f64;
        let [unusual_active, unusual_shadow] = self.unusual();
        let [mean_active, mean_shadow] = self.sums.map(|sum| sum / self.records.max(1) as f64);
        let [distribution_active, distribution_shadow] = self.parts.map(|parts| parts.map(share).to_vec());
        Compared {
            records: self.records,
            agreement: share(self.agree),
            unusual_active,
            unusual_shadow,
            mean_active,
            mean_shadow,
            rank_correlation: rank_correlation(&self.pairs),
            distribution_active,
            distribution_shadow,
        }
    }
}

/// Spearman's: the correlation of ranks, where equal values share the mean of theirs.
fn rank_correlation(pairs: &[(f32, f32)]) -> Option<f64> {
    let a = ranks(pairs.iter().map(|pair| pair.0).collect());
    let b = ranks(pairs.iter().map(|pair| pair.1).collect());
    let middle = (pairs.len() as f64 + 1.0) / 2.0;
    let sum = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - middle) * (y - middle)).sum::<f64>();
    let (aa, bb) = (sum(&a, &a), sum(&b, &b));
    (aa > 0.0 && bb > 0.0).then(|| sum(&a, &b) / (aa * bb).sqrt())
}

fn ranks(values: Vec<f32>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = below as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|at| ranks[*at] = rank);
        below += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_known_pairs() {
        let rho = |pairs: &[(f32, f32)]| rank_correlation(pairs);
        assert_eq!(rho(&[(1.0, 10.0), (2.0, 20.0), (3.0, 90.0)]), Some(1.0));
        assert_eq!(rho(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]), Some(-1.0));
        assert_eq!(rho(&[(1.0, 3.0), (2.0, 3.0)]), None);
        // Ranks 1 2.5 2.5 4 and 1 3 2 4: 4.5 / sqrt(4.5 * 5).
        let tied = rho(&[(1.0, 1.0), (2.0, 3.0), (2.0, 2.0), (3.0, 9.0)]);
        assert!(tied.is_some_and(|rho| (rho - 4.5 / (4.5f64 * 5.0).sqrt()).abs() < 1e-12), "{tied:?}");
    }

    #[test]
    fn counts_of_two_models() {
        let mut comparison = Comparison::new(1);
        for i in 0..10_000 {
            let score = i as f32 / 10_000.0;
            comparison.note(score, (score * 1.01).min(1.0));
        }
        let told = comparison.compared();
        assert_eq!(told.records, 10_000);
        assert!((told.unusual_active - 0.01).abs() < 1e-9 && (told.unusual_shadow - 0.0198).abs() < 2e-4, "{told:?}");
        assert!((told.agreement - (1.0 - 0.0098)).abs() < 2e-4);
        assert!(told.rank_correlation.is_some_and(|rho| rho > 0.999));
        assert!(told.distribution_active.iter().all(|share| (share - 0.1).abs() < 1e-3));
    }
}
