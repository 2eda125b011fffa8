use super::*;
use crate::config::{Escalation, Graylist};
use crate::packet::{Host, Tuple};
use crate::rules::Verdict;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
/// Alerts without a name of their own here.
const SCAN: u8 = 0;
const OUTLIER: u8 = 5;

fn party(n: u128) -> Party {
    Party::Host(Host { version: 4, addr: n, vlan: 0, vni: 0 })
}

fn alert(kind: u8, episode: u64) -> Sign {
    Sign::Alert { kind, name: "port_scan", severity: 2, episode, by: true }
}

fn settings() -> Adaptive {
    Adaptive { hold: Duration::from_secs(60), alerts: !(1 << OUTLIER), ..Adaptive::default() }
}

/// The share of what a host does by the newest list.
fn share(list: &Watchlist, n: u128) -> f64 {
    let tuple = Tuple { src: n, dst: 99, protocol: 6, version: 4, ..Tuple::default() };
    f64::from(list.standing(&tuple, &Verdict::default()).share) / 65535.0
}

/// Ticks every 100 ms from one time to another; the newest list, and the time at which it came.
fn pass(control: &mut Controller, from: u64, to: u64) -> Option<(u64, Watchlist)> {
    let mut newest = None;
    for now in (from..=to).step_by(SECOND as usize / 10) {
        if let Some(list) = control.tick(now, &Totals::default()) {
            newest = Some((now, list));
        }
    }
    newest
}

fn actions(control: &mut Controller) -> Vec<&'static str> {
    control.drain_decisions().iter().map(|decision| decision.action.name()).collect()
}

#[test]
fn an_alert_raises_at_once_and_holds_until_it_is_long_over() {
    let mut control = Controller::new(&settings());
    assert!(control.tick(SECOND, &Totals::default()).is_none());
    control.notice(10 * SECOND, party(1), &alert(SCAN, 1));
    let list = control.tick(10 * SECOND + 1, &Totals::default()).expect("a list");
    assert_eq!((share(&list, 1), share(&list, 2)), (1.0, 0.0));
    assert!(list.number() > 1);
    for now in 1..200 {
        control.notice(now * SECOND, party(1), &Sign::Again(1 << SCAN));
        assert!(pass(&mut control, now * SECOND, (now + 1) * SECOND - 1).is_none(), "as long as it goes on");
    }
    control.notice(200 * SECOND, party(1), &Sign::Again(1 << SCAN));
    control.notice(220 * SECOND, party(1), &Sign::Again(1 << OUTLIER));
    let (at, list) = pass(&mut control, 200 * SECOND, 300 * SECOND).expect("a list");
    assert_eq!((at, share(&list, 1)), (260 * SECOND, 0.0));
    assert_eq!(actions(&mut control), ["raise", "release"]);
    assert!(control.views().is_empty());
    assert_eq!(control.recent().filter(|decision| decision.party == Some(party(1))).count(), 2);
}

#[test]
fn risk_follows_the_curve_and_is_slow_to_fall() {
    // Looked at again when the hold time is over, and a little longer than that.
    let mut control = Controller::new(&Adaptive { hold: Duration::from_secs(60), ..settings() });
    let mut at = SECOND;
    let mut then = |control: &mut Controller, risk: f64| {
        at += 61 * SECOND;
        control.notice(at, party(1), &Sign::Risk(risk));
        control.tick(at, &Totals::default());
        control.notice(at + SECOND, party(1), &Sign::Risk(0.0));
        control.tick(at + SECOND, &Totals::default());
        control.views().first().map_or(0.0, |view| view.share)
    };
    assert_eq!(then(&mut control, 0.998), 0.0, "below the first level nobody is watched");
    assert_eq!(then(&mut control, 0.9991), 0.25);
    assert_eq!(then(&mut control, 0.99995), 1.0);
    assert_eq!(then(&mut control, 0.9993), 1.0, "ten times as likely is not enough to fall");
    assert_eq!(then(&mut control, 0.998), 0.25);
    assert_eq!(then(&mut control, 0.9), 0.0);
    assert_eq!(actions(&mut control), ["raise", "raise", "lower", "release"]);
    assert_eq!(then(&mut control, 0.99995), 1.0);
    let (released, _) = pass(&mut control, at, at + 100 * SECOND).expect("a list");
    assert_eq!(released, at + 60 * SECOND, "nothing was heard of it for the hold time");
}

#[test]
fn what_does_not_count_does_nothing() {
    let mut control = Controller::new(&Adaptive { severity: 1, ..settings() });
    control.notice(SECOND, party(1), &alert(SCAN, 1));
    control.notice(SECOND, party(1), &alert(OUTLIER, 2));
    control.notice(SECOND, party(1), &Sign::Again(1 << SCAN));
    assert!(control.tick(2 * SECOND, &Totals::default()).is_none() && control.views().is_empty());
}

#[test]
fn graylisted_parties_are_released_or_escalated() {
    let period = Duration::from_secs(100);
    let graylist = Some(Graylist { period, escalate: Escalation::Divert(2), alerts: 1 << SCAN });
    let settings = Adaptive { graylist, ..settings() };
    let mut control = Controller::new(&settings);
    control.notice(0, party(1), &alert(SCAN, 1));
    control.notice(0, party(2), &alert(SCAN, 2));
    control.notice(40 * SECOND, party(1), &Sign::Again(1 << SCAN));
    let (_, list) = pass(&mut control, SECOND, 90 * SECOND).expect("a list");
    assert_eq!((share(&list, 1), share(&list, 2)), (1.0, 1.0), "beyond the hold time, to the end of the period");
    control.notice(91 * SECOND, party(2), &alert(SCAN, 3));
    let (_, list) = pass(&mut control, 92 * SECOND, 101 * SECOND).expect("a list");
    assert_eq!((share(&list, 1), share(&list, 2)), (0.0, 1.0));
    let host = |n| Host { version: 4, addr: n, vlan: 0, vni: 0 };
    assert_eq!((list.honeypot(&host(1)), list.honeypot(&host(2))), (0, 3));
    assert_eq!(actions(&mut control), ["graylist", "graylist", "release", "divert"]);
    let (at, list) = pass(&mut control, 101 * SECOND, 400 * SECOND).expect("a list");
    assert_eq!((at, share(&list, 2), list.honeypot(&host(2))), (200 * SECOND, 0.0, 0), "quiet for a period");
    assert_eq!(actions(&mut control), ["release"]);
}

#[test]
fn victims_and_other_kinds_are_copied_but_not_graylisted() {
    let graylist = Some(Graylist { alerts: 1 << SCAN, ..Graylist::default() });
    let mut control = Controller::new(&Adaptive { graylist, ..settings() });
    let done_to = Sign::Alert { kind: SCAN, name: "port_scan", severity: 2, episode: 1, by: false };
    control.notice(SECOND, party(1), &done_to);
    control.notice(SECOND, party(2), &alert(2, 2));
    let list = control.tick(2 * SECOND, &Totals::default()).expect("a list");
    assert_eq!((share(&list, 1), share(&list, 2)), (1.0, 1.0));
    assert!(control.views().iter().all(|view| view.stage == Stage::Risk));
    assert_eq!(actions(&mut control), ["raise", "raise"]);
}

#[test]
fn a_graylist_that_is_taken_away_lets_go() {
    let with = Adaptive { graylist: Some(Graylist { alerts: 1 << SCAN, ..Graylist::default() }), ..settings() };
    let mut control = Controller::new(&with);
    control.notice(SECOND, party(1), &alert(SCAN, 1));
    control.tick(SECOND, &Totals::default());
    control.reconfigure(&settings());
    assert!(pass(&mut control, 2 * SECOND, 70 * SECOND).is_some() && control.views().is_empty());
}

#[test]
fn orders_count_before_everything_and_end() {
    let mut control = Controller::new(&settings());
    control.notice(SECOND, party(1), &alert(SCAN, 1));
    let order =
        |share, honeypot| Order { share, honeypot, until: 50 * SECOND, who: "ann".into(), reason: "known".into() };
    control.order(SECOND, party(1), order(0.05, 0));
    control.order(SECOND, party(2), order(0.5, 1));
    let (_, list) = pass(&mut control, SECOND, 40 * SECOND).expect("a list");
    assert!((share(&list, 1) - 0.05).abs() < 1e-4 && (share(&list, 2) - 0.5).abs() < 1e-4);
    assert_eq!(list.honeypot(&Host { version: 4, addr: 2, vlan: 0, vni: 0 }), 1);
    let (at, list) = pass(&mut control, 40 * SECOND, 59 * SECOND).expect("a list");
    assert_eq!((at, share(&list, 1), share(&list, 2)), (50 * SECOND, 1.0, 0.0), "the alert is not forgotten");
    assert!(control.release(55 * SECOND, party(1), "ann") && !control.release(55 * SECOND, party(1), "ann"));
    let why: Vec<_> = control.recent().filter(|d| d.party == Some(party(1))).map(|d| d.reason.clone()).collect();
    assert!(
        why[0].contains("episode 1") && why[1] == "ann: known" && why.last().is_some_and(|w| w.contains("ann")),
        "{why:?}"
    );
}

#[test]
fn room_is_kept_for_those_with_more_reason() {
    let mut control = Controller::new(&Adaptive { most: 2, ..settings() });
    control.notice(SECOND, party(1), &Sign::Risk(0.9995));
    control.notice(SECOND, party(2), &Sign::Risk(0.99999));
    control.notice(SECOND, party(3), &Sign::Risk(0.9995));
    assert_eq!(control.views().len(), 2);
    control.notice(SECOND, party(4), &alert(SCAN, 1));
    let watched: Vec<_> = control.views().iter().map(|view| view.party).collect();
    assert_eq!(watched, [party(2), party(4)], "the one that gave reason longest ago, of those with the least");
    assert_eq!(control.refused(), 2);
}
