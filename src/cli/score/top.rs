//! The most unusual records so far, and how they are shown.

use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::report::{count, table};

/// Reasons that are told of a record.
const REASONS: usize = 4;

/// Features with their share of the measure, the greatest first.
pub(super) type Reasons = Vec<(String, f32)>;

/// The greatest of `parts`, as shares of their sum.
pub(super) fn reasons<'n>(parts: &[f32], name: impl Fn(usize) -> &'n str) -> Reasons {
    let sum: f32 = parts.iter().sum();
    let mut order: Vec<usize> = (0..parts.len()).filter(|at| parts[*at] > 0.0).collect();
    order.sort_by(|a, b| parts[*b].total_cmp(&parts[*a]));
    order.iter().take(REASONS).map(|at| (name(*at).to_owned(), parts[*at] / sum)).collect()
}

pub(super) fn reasons_json(reasons: &Reasons) -> Value {
    let thousandths = |share: f32| (f64::from(share) * 1000.0).round() / 1000.0;
    reasons.iter().map(|(name, share)| json!({ "feature": name, "share": thousandths(*share) })).collect()
}

/// One of the most unusual.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) score: f32,
    /// Cells that say which it is.
    pub(super) cells: Vec<String>,
    pub(super) reasons: Reasons,
}

/// The first so many by score; of equal ones the first that came.
#[derive(Debug)]
pub(super) struct Top {
    most: usize,
    entries: Vec<Entry>,
    scored: u64,
    unusual: u64,
}

impl Top {
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: Vec::new(), scored: 0, unusual: 0 }
    }

    /// Counts a score; true when it belongs to the most unusual.
    pub(super) fn wants(&mut self, score: f32) -> bool {
        self.scored += 1;
        self.unusual += u64::from(score >= 0.99);
        self.entries.len() < self.most || self.entries.last().is_some_and(|last| last.score < score)
    }

    pub(super) fn add(&mut self, entry: Entry) {
        let at = self.entries.partition_point(|other| other.score >= entry.score);
        self.entries.insert(at, entry);
        self.entries.truncate(self.most);
    }

    /// The table, with how much was learnt from.
    pub(super) fn show(&self, out: &mut impl Write, head: &[&str], learnt: &str) -> Result<()> {
        let mut rows = table(&[&["score"], head, &["because of"]].concat());
        for entry in &self.entries {
            let told: Vec<String> =
                entry.reasons.iter().map(|(name, share)| format!("{name} {:.0} %", 100.0 * share)).collect();
            let mut cells = vec![format!("{:.4}", entry.score)];
            cells.extend(entry.cells.iter().cloned());
            cells.push(told.join(", "));
            rows.add_row(cells);
        }
        let share = 100.0 * self.unusual as f64 / self.scored.max(1) as f64;
        writeln!(out, "{rows}")?;
        writeln!(
            out,
            "{} records scored, {} ({share:.2} %) at 0.99 and above; {learnt}",
            count(self.scored),
            count(self.unusual)
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_come_first_and_equal_ones_in_order() {
        let mut top = Top::new(3);
        for (n, score) in [0.5, 0.9, 0.7, 0.9, 0.1, 0.8].into_iter().enumerate() {
            if top.wants(score) {
                top.add(Entry { score, cells: vec![n.to_string()], reasons: Vec::new() });
            }
        }
        let order: Vec<&str> = top.entries.iter().map(|entry| entry.cells[0].as_str()).collect();
        assert_eq!((order, top.scored), (vec!["1", "3", "5"], 6));
    }

    #[test]
    fn reasons_are_shares() {
        let found = reasons(&[0.0, 3.0, 1.0], |at| ["a", "b", "c"][at]);
        assert_eq!(found, [("b".to_owned(), 0.75), ("c".to_owned(), 0.25)]);
    }
}
