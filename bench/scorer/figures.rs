//! How well scores tell attacks from the rest.

/// Area under the ROC curve: the chance that an attack scores above an ordinary row; equal scores count by half.
pub fn auc(scores: &[f32], attack: &[bool]) -> f64 {
    let (mut ranks, mut attacks, mut below) = (0.0, 0.0, 0.0);
    for equal in by_score(scores).chunk_by(|a, b| scores[*a] == scores[*b]) {
        let here = equal.iter().filter(|i| attack[**i]).count() as f64;
        let others = equal.len() as f64 - here;
        ranks += here * (below + others / 2.0);
        attacks += here;
        below += others;
    }
    ranks / (attacks * below)
}

/// Average precision: the mean, over the attacks, of the share of attacks among what scores at least as high.
pub fn average_precision(scores: &[f32], attack: &[bool]) -> f64 {
    let mut order = by_score(scores);
    order.reverse();
    let (mut found, mut seen, mut sum) = (0.0, 0.0, 0.0);
    for equal in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let here = equal.iter().filter(|i| attack[**i]).count() as f64;
        found += here;
        seen += equal.len() as f64;
        sum += here * found / seen;
    }
    sum / found
}

/// Rows by rising score.
fn by_score(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    order
}
