//! What counting costs. A worker asks the rules one packet at a time, when a flow is new, and counts every packet at the
//! rules that its flow's verdict names: the one that decided, and those in shadow mode that would have.
//!
//! Here the same packets of a set are classified with and without counting by turns, all rules deciding; then with some
//! of the rules in shadow mode. [`crate::counted`] has whole workers.

use std::hint::black_box;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use gnomon::dpdk::{AclRule, FiveTuple};
use gnomon::packet::Tuple;
use gnomon::rules::{Action, Compiled, Decision, Labels, Match, Mode, Policy, Rule, Selector, Subject, Tier, Verdict};
use gnomon::worker::WorkerCounters;
use ipnet::Ipv4Net;

use crate::classbench::RuleSet;
use crate::common::{Results, median};
use crate::timing::{Timing, chunk_ticks};

/// Percent of the rules in shadow mode.
const SHARES: [usize; 6] = [0, 1, 5, 10, 25, 50];
const CLOCK: u64 = 1_700_000_000_000_000_000;

/// Measures and prints.
pub fn measure(results: &mut Results, set: &RuleSet, turns: usize) -> Result<()> {
    println!("\n{}: {} rules", set.name, set.rules.len());
    for trace in &set.traces {
        let subjects: Vec<Subject> = trace.packets.iter().map(subject).collect();
        let mut without_shadows = None;
        for share in SHARES {
            let name = format!("{} {}", set.name, trace.name);
            let cost = Case::new(set, share)?.measure(&subjects, turns)?;
            let base = *without_shadows.get_or_insert(cost.decided);
            cost.report(results, &name, share, base);
        }
    }
    Ok(())
}

/// Rules, and the counters of one worker.
struct Case {
    rules: Compiled,
    counters: WorkerCounters,
}

/// Cycles a packet.
struct Cost {
    /// Classified; classified and counted; turn by turn.
    pairs: Vec<(f64, f64)>,
    decided: f64,
    counted: f64,
    /// Counted by a verdict that the flow has.
    later: Vec<f64>,
    /// Rules in shadow mode that are counted a packet.
    shadows: f64,
}

impl Case {
    fn new(set: &RuleSet, share: usize) -> Result<Self> {
        let labels = Labels::new(set.rules.len());
        let rules = Compiled::build(&policy(&set.rules, share), 1, &labels)?;
        Ok(Self { rules, counters: WorkerCounters::new(set.rules.len()) })
    }

    fn measure(&self, subjects: &[Subject], turns: usize) -> Result<Cost> {
        let verdicts: Vec<Verdict> = subjects.iter().map(|subject| self.rules.classify(subject)).collect();
        let shadows: usize = verdicts.iter().map(|verdict| self.rules.shadows(verdict).count()).sum();
        let (mut decided, mut counted, mut later) = (Vec::new(), Vec::new(), Vec::new());
        // The first turn warms caches and is not looked at.
        for turn in 0..=turns {
            let keep = |times: &mut Vec<Vec<u64>>, time| times.extend((turn > 0).then_some(time));
            // Who is first changes about.
            for side in [turn % 2, 1 - turn % 2] {
                match side {
                    0 => keep(&mut decided, chunk_ticks(subjects, |burst| self.decide(burst))),
                    _ => keep(&mut counted, chunk_ticks(subjects, |burst| self.decide_and_count(burst))),
                }
            }
            keep(&mut later, chunk_ticks(&verdicts, |burst| self.count(burst)));
        }
        self.check(&verdicts, 2 * (turns as u64 + 1))?;
        let [decided, counted, later] = [decided, counted, later].map(|turns| Timing::of(&turns, subjects.len()));
        Ok(Cost {
            pairs: decided.turns.into_iter().zip(counted.turns).collect(),
            decided: decided.median,
            counted: counted.median,
            later: later.turns,
            shadows: shadows as f64 / subjects.len() as f64,
        })
    }

    #[inline(never)]
    fn decide(&self, subjects: &[Subject]) {
        for subject in subjects {
            black_box(self.rules.classify(black_box(subject)));
        }
    }

    #[inline(never)]
    fn decide_and_count(&self, subjects: &[Subject]) {
        for subject in subjects {
            let verdict = black_box(self.rules.classify(black_box(subject)));
            self.counters.count_verdict(&verdict, &self.rules, 60, CLOCK);
        }
    }

    #[inline(never)]
    fn count(&self, verdicts: &[Verdict]) {
        for verdict in verdicts {
            self.counters.count_verdict(black_box(verdict), &self.rules, 60, CLOCK);
        }
    }

    /// Every packet was counted as often as it was sent, at the rules it belongs to.
    fn check(&self, verdicts: &[Verdict], times: u64) -> Result<()> {
        let mut expected = vec![(0, 0); self.counters.rules.len()];
        for verdict in verdicts {
            expected[verdict.rule.0 as usize].0 += times;
            self.rules.shadows(verdict).for_each(|rule| expected[rule.0 as usize].1 += times);
        }
        let found = self.counters.rules.iter().map(|rule| (rule.packets.get(), rule.would.get()));
        ensure!(found.eq(expected), "a rule's counter is wrong");
        Ok(())
    }
}

impl Cost {
    /// `base` are the cycles of classification with no rule in shadow mode.
    fn report(self, results: &mut Results, name: &str, share: usize, base: f64) {
        let Self { pairs, decided, counted, later, shadows } = self;
        let percent = 100.0 * (counted / decided - 1.0);
        println!(
            "  {name:<22} {share:>3} % in shadow mode ({shadows:.2} counted a packet): decided {decided:.1}, counted \
             {counted:.1} cycles/packet (+{percent:.1} %), in shadow mode +{:.1}; a later packet {:.1}",
            decided - base,
            median(&later)
        );
        // More is better in a comparison: packets a million cycles.
        let rates: Vec<(f64, f64)> = pairs.iter().map(|(without, with)| (1e6 / with, 1e6 / without)).collect();
        let case = format!("{name}, {share} % of rules in shadow mode, counted");
        results.compared(case, "packets/Mcycle", "not counted", &rates);
        results.measured(format!("{name}, {share} %, a later packet counted"), "cycles/packet", later);
    }
}

/// The rules one after the other, `share` percent of them in shadow mode. Conditions on ports are those of protocols
/// that have ports, so not every packet finds the rule that it finds in the set.
fn policy(rules: &[AclRule], share: usize) -> Policy {
    let rule = |(at, rule): (usize, &AclRule)| Rule {
        id: format!("r{at}"),
        tier: Tier::Policy,
        priority: at as u32,
        mode: if (at * 61 + 13) % 100 < share { Mode::Shadow } else { Mode::Enforce },
        action: if at % 3 == 0 { Action::Deny } else { Action::Allow },
        stateful: false,
        matches: Match {
            from: side(rule.src),
            to: side(rule.dst),
            protocol: (rule.protocol_mask != 0).then_some(rule.protocol),
            from_ports: ports(&rule.src_ports),
            to_ports: ports(&rule.dst_ports),
            ..Match::default()
        },
    };
    let rules = rules.iter().enumerate().map(rule).collect();
    Policy { rules, groups: Vec::new(), mirrors: Vec::new(), default: Decision::Deny }
}

fn side((address, len): (u32, u8)) -> Vec<Selector> {
    let net = (len > 0).then(|| Selector::Net(Ipv4Net::new_assert(Ipv4Addr::from(address), len).into()));
    net.into_iter().collect()
}

fn ports(range: &std::ops::RangeInclusive<u16>) -> Vec<std::ops::RangeInclusive<u16>> {
    if *range == (0..=u16::MAX) { Vec::new() } else { vec![range.clone()] }
}

fn subject(packet: &FiveTuple) -> Subject {
    let tuple = Tuple {
        src: u32::from_be_bytes(packet.src).into(),
        dst: u32::from_be_bytes(packet.dst).into(),
        src_port: u16::from_be_bytes(packet.src_port),
        dst_port: u16::from_be_bytes(packet.dst_port),
        protocol: packet.protocol,
        version: 4,
        ..Tuple::default()
    };
    Subject { tuple, ports_known: true, ..Subject::default() }
}
