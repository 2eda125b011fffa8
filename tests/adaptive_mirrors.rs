//! Mirrors that adapt: those with an alert are copied whole at once, everybody else as before, never more than the budget.

#[path = "../bench/adaptive/measure.rs"]
mod measure;

use measure::{Outcome, Plan, Verdict, judge, run};

fn scenario(plan: &Plan) -> (Outcome, Verdict) {
    let folder = tempfile::tempdir().expect("a folder");
    let outcome = run(env!("CARGO_BIN_EXE_gnomon"), folder.path(), plan).expect("a replay");
    let verdict = judge(&outcome);
    println!("{plan:?}: {verdict:?}, {} of {} copies lost", outcome.lost, outcome.selected);
    (outcome, verdict)
}

#[test]
fn attackers_are_copied_whole_and_everybody_else_as_before() {
    for seed in [7, 8] {
        let plan = Plan { seed, minutes: 12, rate: 20, base: 5.0, hold: 60, budget: None };
        let (outcome, verdict) = scenario(&plan);
        let alerts = outcome.watched.iter().filter(|watched| watched.alert).count();
        assert!(alerts >= 3, "{alerts} parties with alerts");
        assert!(verdict.flagged.0 > 10 && verdict.flagged.0 == verdict.flagged.1, "{:?}", verdict.flagged);
        assert!(verdict.latest <= 1.0, "{} s until all was copied", verdict.latest);
        let (flows, whole, parts) = verdict.base;
        let share = plan.base / 100.0;
        let sd = (flows as f64 * share * (1.0 - share)).sqrt();
        assert_eq!(parts, 0, "a flow of nobody is copied whole or not at all");
        assert!(flows > 2000 && (whole as f64 - flows as f64 * share).abs() <= 3.0 * sd, "{whole} of {flows}");
        assert!(verdict.mistaken.1 * 50 <= outcome.flows.len(), "{:?} of {}", verdict.mistaken, outcome.flows.len());
        assert_eq!(outcome.lost, 0);
    }
}

#[test]
fn the_budget_is_kept_and_those_with_alerts_go_first() {
    let budget = 2_000_000;
    let plan = Plan { seed: 9, minutes: 12, rate: 20, base: 30.0, hold: 30, budget: Some(budget) };
    let (outcome, verdict) = scenario(&plan);
    assert!(verdict.most_bits as f64 <= 1.05 * budget as f64, "{} bits in a second", verdict.most_bits);
    assert!(verdict.most_bits as f64 >= 0.8 * budget as f64, "it is made use of: {}", verdict.most_bits);
    assert!(outcome.budget.iter().any(|(_, left)| *left < 0.9), "everybody's share was cut");
    assert_eq!(outcome.budget.last().map(|(_, left)| *left), Some(1.0), "and came back");
}
