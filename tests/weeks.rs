//! Detection over a day and a half of simulated work with attacks of all kinds and harmless oddities: the short form of
//! `cargo bench --bench weeks`, with a seed of its own.

#[path = "../bench/weeks/judge.rs"]
mod judge;
#[path = "../bench/weeks/play.rs"]
mod play;

use play::Plan;

#[test]
fn attacks_are_found_and_little_else_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan { seed: 77, rate: 0.1, minutes: 2160, attacks: 14, oddities: 4 };
    play::run(env!("CARGO_BIN_EXE_gnomon"), folder.path(), &plan).expect("made and replayed");
    let verdict = judge::judge(folder.path()).expect("truth and alerts");
    let found = verdict.attacks.iter().filter(|attack| attack.found.is_some()).count();
    verdict.attacks.iter().filter(|attack| attack.found.is_none()).for_each(|attack| println!("missed {attack}"));
    verdict.false_alerts.iter().for_each(|alert| println!("false {alert}"));
    println!("{found} of {}, {} alerts in all, {} packets", verdict.attacks.len(), verdict.alerts, verdict.packets);
    assert!(verdict.attacks.len() >= 24, "only {} attacks", verdict.attacks.len());
    assert!(found * 100 >= verdict.attacks.len() * 95, "{found} of {}", verdict.attacks.len());
    // Twice as many oddities a day as in the benchmark.
    assert!(verdict.false_alerts.len() <= 2, "{:#?}", verdict.false_alerts);
}
