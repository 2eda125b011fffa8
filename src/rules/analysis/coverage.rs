//! Whether earlier rules leave anything of a region: exact, with bounded work.

use std::cell::RefCell;
use std::ops::{ControlFlow, Range};

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::index::Index;
use super::regions::Regions;
use super::space::{Cell, Point, meet};
use crate::rules::oracle;
use crate::rules::{Action, Decision, Mode, Policy, Rule};

/// Cells of a region that may be left at one time.
const MOST_CELLS: usize = 4096;

/// Boxes looked at for each neighbour that is wanted.
const LOOKS: usize = 256;

/// What a rule that has an effect does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Decides(Outcome),
    Logs,
    /// Shadow mode.
    Watches,
}

/// What a packet gets; stateful only when allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) decision: Decision,
    pub(super) stateful: bool,
}

/// More steps were needed than allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooMuch;

/// Steps that are left; a step is one search for the rule that decides a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work(pub(super) u32);

impl Work {
    pub(super) fn step(&mut self) -> Result<(), TooMuch> {
        self.0 = self.0.checked_sub(1).ok_or(TooMuch)?;
        Ok(())
    }
}

/// What is left of a region.
#[derive(Debug)]
pub(super) struct Left {
    /// A packet that none of the rules takes.
    pub(super) packet: Option<Point>,
    /// Rules that took something until then, ascending.
    pub(super) takers: Vec<u32>,
}

/// The rules that have an effect, in evaluation order, and where to find them.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) rules: Vec<&'a Rule>,
    pub(super) effects: Vec<Effect>,
    pub(super) cells: Vec<Vec<Cell>>,
    pub(super) default: Outcome,
    index: Index,
    random: RefCell<Pcg64Mcg>,
    seen: RefCell<Seen>,
}

/// Which rules the search of this number has come across.
#[derive(Debug)]
struct Seen {
    search: u32,
    rules: Vec<u32>,
}

impl<'a> Ground<'a> {
    pub(super) fn new(policy: &'a Policy) -> Self {
        let with_effect = |rule: &&Rule| effect(rule).is_some();
        let rules: Vec<&Rule> = oracle::evaluation_order(policy).into_iter().filter(with_effect).collect();
        let mut regions = Regions::new(policy);
        let cells: Vec<Vec<Cell>> = rules.iter().map(|rule| regions.of(&rule.matches)).collect();
        Self {
            effects: rules.iter().filter_map(|rule| effect(rule)).collect(),
            index: Index::new(&cells),
            seen: RefCell::new(Seen { search: 0, rules: vec![0; rules.len()] }),
            default: Outcome { decision: policy.default, stateful: false },
            random: RefCell::new(Pcg64Mcg::seed_from_u64(1)),
            rules,
            cells,
        }
    }

    /// What the rule decides, if it does.
    pub(super) fn outcome(&self, rule: u32) -> Option<Outcome> {
        match self.effects[rule as usize] {
            Effect::Decides(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The first rule in `range` of those in `among` that matches the packet.
    pub(super) fn first(&self, packet: &Point, range: Range<u32>, among: impl Fn(u32) -> bool) -> Option<u32> {
        let holds = |rule: u32| self.cells[rule as usize].iter().any(|cell| cell.holds(packet));
        self.index.first(packet, range, |rule| among(rule) && holds(rule))
    }

    /// Takes from `region` what the rules below `end` and in `among` match.
    ///
    /// Picks any packet of the region; when no rule takes it, there is an answer. Else the rule that does is
    /// subtracted, and so on: only rules that matter are looked at, and each step makes the region smaller.
    pub(super) fn left(
        &self,
        region: Vec<Cell>,
        end: u32,
        among: impl Fn(u32) -> bool,
        work: &mut Work,
    ) -> Result<Left, TooMuch> {
        let (mut region, mut takers) = (region, Vec::new());
        while let Some(cell) = region.pop() {
            work.step()?;
            let Some(packet) = self.random_packet(&cell) else { continue };
            let Some(taker) = self.first(&packet, 0..end, &among) else {
                // One that is easier to read, if it does as well.
                let ordinary = Point::ordinary(&cell).filter(|packet| self.first(packet, 0..end, &among).is_none());
                return Ok(Left { packet: ordinary.or(Some(packet)), takers: sorted(takers) });
            };
            takers.push(taker);
            let mut parts = vec![cell];
            for taken in &self.cells[taker as usize] {
                let mut rest = Vec::with_capacity(parts.len());
                parts.iter().for_each(|part| part.minus(taken, &mut rest));
                parts = rest;
            }
            region.extend(parts);
            if region.len() > MOST_CELLS {
                return Err(TooMuch);
            }
        }
        Ok(Left { packet: None, takers: sorted(takers) })
    }

    /// Up to `most` rules in `range` and in `among` that have a packet in common with this one, ascending, and whether
    /// that is all of them.
    pub(super) fn neighbours(
        &self,
        rule: u32,
        range: Range<u32>,
        most: usize,
        among: impl Fn(u32) -> bool,
    ) -> (Vec<u32>, bool) {
        let mut seen = self.seen.borrow_mut();
        seen.search += 1;
        let (search, cells) = (seen.search, &self.cells);
        let (mut found, mut looked) = (Vec::new(), 0);
        let mut each = |other: u32| {
            looked += 1;
            if seen.rules[other as usize] != search && among(other) {
                seen.rules[other as usize] = search;
                if meet(&cells[rule as usize], &cells[other as usize]) {
                    found.push(other);
                }
            }
            let enough = found.len() > most || looked > LOOKS * most.max(1);
            if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let ended = cells[rule as usize].iter().try_for_each(|cell| self.index.near(cell, &range, &mut each));
        found.truncate(most);
        found.sort_unstable();
        (found, ended.is_continue())
    }

    pub(super) fn random_packet(&self, cell: &Cell) -> Option<Point> {
        let mut random = self.random.borrow_mut();
        let mut draw = |below: u128| match u64::try_from(below) {
            Ok(below) => u128::from(random.next_u64() % below.max(1)),
            Err(_) => (u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())) % below,
        };
        Point::random(cell, &mut draw)
    }
}

fn sorted(mut rules: Vec<u32>) -> Vec<u32> {
    rules.sort_unstable();
    rules.dedup();
    rules
}

fn effect(rule: &Rule) -> Option<Effect> {
    match (rule.mode, rule.action) {
        (Mode::Disabled, _) | (Mode::Shadow, Action::Log) => None,
        (Mode::Enforce, Action::Log) => Some(Effect::Logs),
        (Mode::Shadow, _) => Some(Effect::Watches),
        (Mode::Enforce, action) => oracle::decision_of(action).map(|decision| {
            Effect::Decides(Outcome { decision, stateful: rule.stateful && decision == Decision::Allow })
        }),
    }
}
