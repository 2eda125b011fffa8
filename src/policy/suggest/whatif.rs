//! The recorded traffic once more, with the rules as they are and as a change would leave them.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::change::{Change, Draft};
use super::judge::{Holds, Pairs, Rank};
use super::membership::Stranger;
use super::scene::{Outcome, Scene, in_parallel};
use super::suggestion::{Candidate, WhatIf};
use super::traffic::{End, Row};
use crate::policy::learning::Endpoint;
use crate::rules::{Action, Decision};

/// One candidate, ready to be applied to rows.
struct Trial<'a> {
    gone: Vec<Rank>,
    /// Rules that are new, or elsewhere.
    placed: Vec<Draft>,
    moved: Option<&'a Stranger>,
}

/// What changes, of one candidate.
#[derive(Clone, Copy, Default)]
struct Delta {
    less: Outcome,
    more: Outcome,
    allowed: u64,
    refused: u64,
}

/// Sets of candidates, a bit each.
type Set = Box<[u64]>;

struct Trials<'a> {
    scene: &'a Scene<'a>,
    all: Vec<Trial<'a>>,
    /// By end: candidates that have a rule from it, and to it.
    from: Vec<Set>,
    to: Vec<Set>,
    /// Candidates that take a rule away.
    by_rule: FxHashMap<Rank, Vec<usize>>,
    /// VMs that would move, a bit each.
    strangers: u64,
}

/// For all candidates at once, in their order: one pass over the rows.
pub fn what_if(scene: &Scene<'_>, candidates: &[Candidate]) -> Vec<WhatIf> {
    let trials = Trials::new(scene, candidates);
    let parts = in_parallel(scene.traffic.len(), scene.settings.threads, |rows| trials.run(rows));
    let mut all = vec![Delta::default(); candidates.len()];
    for part in parts {
        all.iter_mut().zip(&part).for_each(|(all, one)| all.add(one));
    }
    let before = scene.outcome;
    let done = |delta: Delta| WhatIf {
        before,
        after: before.with(&delta.less, &delta.more),
        allowed: delta.allowed,
        refused: delta.refused,
    };
    all.into_iter().map(done).collect()
}

impl Delta {
    fn add(&mut self, other: &Self) {
        self.less.add(&other.less);
        self.more.add(&other.more);
        self.allowed += other.allowed;
        self.refused += other.refused;
    }

    fn note(&mut self, row: &Row, was: (Decision, bool), is: (Decision, bool)) {
        self.less.note(&row.tally, was.0, was.1);
        self.more.note(&row.tally, is.0, is.1);
        let flows = u64::from(row.tally.flows);
        match (was.0 == Decision::Allow, is.0 == Decision::Allow) {
            (false, true) => self.allowed += flows,
            (true, false) => self.refused += flows,
            _ => {}
        }
    }
}

impl<'a> Trials<'a> {
    fn new(scene: &'a Scene<'a>, candidates: &[Candidate]) -> Self {
        let ranks: FxHashMap<&str, Rank> =
            (0..).zip(scene.judge.order()).map(|(n, rule)| (&*rule.id, Rank(n))).collect();
        let all: Vec<Trial<'a>> = candidates.iter().map(|one| trial(scene, one, &ranks)).collect();
        let mut by_rule: FxHashMap<Rank, Vec<usize>> = FxHashMap::default();
        for (number, trial) in all.iter().enumerate() {
            trial.gone.iter().for_each(|rank| by_rule.entry(*rank).or_default().push(number));
        }
        let strangers = all.iter().filter_map(|trial| trial.moved).fold(0, |bits, one| bits | one.bit);
        let from = sets(scene, &all, |draft| &draft.from);
        let to = sets(scene, &all, |draft| &draft.to);
        Self { scene, all, from, to, by_rule, strangers }
    }

    fn run(&self, rows: Range<usize>) -> Vec<Delta> {
        let mut deltas = vec![Delta::default(); self.all.len()];
        let mut pairs = Pairs::default();
        let both = self.scene.traffic.rows()[rows.clone()].iter().zip(&self.scene.ranks[rows]);
        for (row, rank) in both {
            let sides = [&self.from[row.key.from.0 as usize], &self.to[row.key.to.0 as usize]];
            for (word, (from, to)) in sides[0].iter().zip(sides[1].iter()).enumerate() {
                let mut bits = from & to;
                while bits != 0 {
                    let number = word * 64 + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    let trial = &self.all[number];
                    // Rows of a rule that goes are looked at below.
                    if !trial.gone.contains(rank)
                        && trial.placed.iter().any(|draft| self.scene.judge.draft_holds(draft, row))
                    {
                        self.note(number, row, *rank, &mut pairs, &mut deltas);
                    }
                }
            }
            for number in self.by_rule.get(rank).into_iter().flatten() {
                self.note(*number, row, *rank, &mut pairs, &mut deltas);
            }
            if (row.tally.clients | row.tally.servers) & self.strangers != 0 {
                self.note_moves(row, *rank, &mut deltas);
            }
        }
        deltas
    }

    fn note(&self, number: usize, row: &Row, rank: Rank, pairs: &mut Pairs, deltas: &mut [Delta]) {
        let judge = &self.scene.judge;
        let trial = &self.all[number];
        let left = if trial.gone.contains(&rank) { judge.decide(row, pairs, &trial.gone) } else { rank };
        let holds = trial.placed.iter().filter(|draft| judge.draft_holds(draft, row));
        let first = holds.min_by(|a, b| a.order().cmp(&b.order()));
        let first = first.filter(|draft| judge.rule(left).is_none_or(|rule| draft.order() < rule.order()));
        let is = match first {
            Some(draft) => (decision(draft.action), true),
            None => (judge.decision(left), left != Rank::DEFAULT),
        };
        deltas[number].note(row, (judge.decision(rank), rank != Rank::DEFAULT), is);
    }

    /// Rows of nobody but a VM that would be in another group.
    fn note_moves(&self, row: &Row, rank: Rank, deltas: &mut [Delta]) {
        let judge = &self.scene.judge;
        for (number, one) in self.all.iter().enumerate().filter_map(|(n, trial)| Some((n, trial.moved?))) {
            let [from, to] = [row.key.from, row.key.to].map(|end| self.scene.end(end));
            let is_from = row.tally.clients == one.bit && one.is_at(from);
            let is_to = row.tally.servers == one.bit && one.is_at(to);
            if is_from || is_to {
                let moved = |end: &End, is: bool| {
                    if is { End { groups: vec![one.to.clone()], ..end.clone() } } else { end.clone() }
                };
                let after = judge.decide_as(row, &moved(from, is_from), &moved(to, is_to));
                let decided = |rank: Rank| (judge.decision(rank), rank != Rank::DEFAULT);
                deltas[number].note(row, decided(rank), decided(after));
            }
        }
    }
}

fn decision(action: Action) -> Decision {
    match action {
        Action::Allow | Action::Log => Decision::Allow,
        Action::Deny => Decision::Deny,
        Action::Reject => Decision::Reject,
    }
}

fn trial<'a>(scene: &'a Scene<'a>, candidate: &Candidate, ranks: &FxHashMap<&str, Rank>) -> Trial<'a> {
    let gone = candidate.change.touched().filter_map(|id| ranks.get(id).copied()).collect();
    let mut placed = candidate.change.added().to_vec();
    if let Change::Rules { priorities, .. } = &candidate.change {
        let rules = priorities.iter().filter_map(|one| Some((scene.judge.rule(*ranks.get(&*one.id)?)?, one.priority)));
        placed.extend(rules.map(|(rule, priority)| Draft::moved(rule, priority)));
    }
    let moved = match &candidate.change {
        Change::Move { vm, .. } => scene.strangers.iter().find(|one| one.vm == *vm),
        _ => None,
    };
    Trial { gone, placed, moved }
}

/// Of each end, the candidates that have a rule for it.
fn sets(scene: &Scene<'_>, all: &[Trial<'_>], side: impl Fn(&Draft) -> &Vec<Endpoint>) -> Vec<Set> {
    let words = all.len().div_ceil(64);
    let mut by_group: FxHashMap<&str, Vec<usize>> = FxHashMap::default();
    let mut others: Vec<(usize, &[Endpoint])> = Vec::new();
    for (number, draft) in
        all.iter().enumerate().flat_map(|(n, trial)| trial.placed.iter().map(move |draft| (n, draft)))
    {
        let ends = side(draft);
        let group = |end: &Endpoint| matches!(end, Endpoint::Group(_));
        if ends.is_empty() || !ends.iter().all(group) {
            others.push((number, ends));
        }
        for end in ends {
            if let Endpoint::Group(name) = end {
                by_group.entry(name).or_default().push(number);
            }
        }
    }
    let set = |end: &End| {
        let mut set: Set = vec![0; words].into();
        let named = end.groups.iter().filter_map(|group| by_group.get(&**group)).flatten().copied();
        let rest =
            others.iter().filter(|(_, ends)| scene.judge.end_holds(ends, end) == Holds::Yes).map(|(number, _)| *number);
        named.chain(rest).for_each(|number| set[number / 64] |= 1 << (number % 64));
        set
    };
    scene.traffic.ends.iter().map(set).collect()
}
