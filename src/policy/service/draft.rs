//! A book with the rules it comes to, and sets of changes made to both or to neither.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::policy::book::{Book, Change, Conflict, Delta, Derived, Entry, Kind, Name, Noun, Refusal, touched};

/// Rules entered at once are held against all others only when they are few.
const HELD_AGAINST_ALL: usize = 256;

/// See the top.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub book: Book,
    pub derived: Derived,
}

/// What a set of changes did.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub delta: Delta,
    /// Quarrels that are told and not refused.
    pub conflicts: Vec<Conflict>,
    /// What was there before, in order.
    before: Vec<(Name, Option<Arc<Entry>>)>,
}

impl Applied {
    pub fn names(&self) -> BTreeSet<Name> {
        self.before.iter().map(|(name, _)| name.clone()).collect()
    }
}

impl Draft {
    pub fn of(book: Book) -> Self {
        let derived = Derived::of(&book);
        Self { book, derived }
    }

    /// Makes all changes or none, in any order that works. What quarrels with other rules is refused or told.
    pub fn apply(&mut self, changes: &[Change]) -> Result<Applied, Refusal> {
        let mut applied = self.apply_again(changes)?;
        match self.look_for_quarrels(changes, &mut applied) {
            Ok(()) => Ok(applied),
            Err(refusal) => {
                self.undo(applied);
                Err(refusal)
            }
        }
    }

    /// As [`Draft::apply`], whatever it quarrels with.
    pub fn apply_again(&mut self, changes: &[Change]) -> Result<Applied, Refusal> {
        let mut applied = Applied::default();
        let mut waiting: Vec<&Change> = changes.iter().collect();
        while !waiting.is_empty() {
            let (mut later, mut refusal) = (Vec::new(), None);
            for change in &waiting {
                if let Err(reason) = self.step(change, &mut applied) {
                    refusal.get_or_insert(reason);
                    later.push(*change);
                }
            }
            if let Some(refusal) = refusal
                && later.len() == waiting.len()
                && !self.clear_the_way(&later, &mut applied)
            {
                self.undo(applied);
                return Err(refusal);
            }
            waiting = later;
        }
        Ok(applied)
    }

    /// Takes back what [`Draft::apply`] did last.
    pub fn undo(&mut self, applied: Applied) {
        for (name, before) in applied.before.into_iter().rev() {
            let now = self.book.get(name.kind, &name.name).cloned();
            self.book.put_back(&name, before);
            let touched = touched(&self.book, &name, now.as_deref());
            self.derived.update(&self.book, &touched);
        }
    }

    fn step(&mut self, change: &Change, applied: &mut Applied) -> Result<(), Refusal> {
        let name = change.name();
        let before = self.book.apply(change)?;
        let touched = touched(&self.book, &name, before.as_deref());
        let delta = self.derived.update(&self.book, &touched);
        applied.delta.groups.extend(delta.groups);
        applied.delta.rules.extend(delta.rules);
        applied.before.push((name, before));
        Ok(())
    }

    /// VMs that take addresses of one another give up their own first. False when nothing can be done.
    fn clear_the_way(&mut self, stuck: &[&Change], applied: &mut Applied) -> bool {
        let mut cleared = false;
        for change in stuck {
            if let Change::Put(Noun::Vm(vm)) = change
                && let Some(old) = self.book.vm(&vm.id).filter(|old| !old.addresses.is_empty())
            {
                let mut bare = old.clone();
                bare.addresses.clear();
                cleared |= self.step(&Change::Put(Noun::Vm(bare)), applied).is_ok();
            }
        }
        cleared
    }

    fn look_for_quarrels(&self, changes: &[Change], applied: &mut Applied) -> Result<(), Refusal> {
        let rules = changes.iter().filter_map(|change| match change {
            Change::Put(Noun::Relationship(it)) => Some(vec![it.id.clone()]),
            Change::Put(Noun::Override(it)) => {
                Some(["from", "to"].map(|way| format!("override/{}/{way}", it.id)).to_vec())
            }
            _ => None,
        });
        let rules: Vec<String> = rules.flatten().collect();
        if rules.len() > HELD_AGAINST_ALL {
            return Ok(());
        }
        let found: Vec<Conflict> = rules.iter().flat_map(|id| self.derived.conflicts(id)).collect();
        let (refused, told): (Vec<_>, Vec<_>) = found.into_iter().partition(|conflict| conflict.kind.is_refused());
        if !refused.is_empty() {
            return Err(Refusal::Conflict { quarrels: refused });
        }
        applied.conflicts = told;
        Ok(())
    }
}

/// Changes that make one set of things of another: what is missing goes, what differs is put.
pub(super) fn changes_to(book: &Book, wanted: &[Noun], kinds: &[Kind]) -> Vec<Change> {
    let differs = |noun: &&Noun| book.get(noun.kind(), noun.name()).is_none_or(|entry| entry.noun != **noun);
    let put = wanted.iter().filter(differs).cloned().map(Change::Put);
    let names: BTreeSet<Name> = wanted.iter().map(|noun| Name::new(noun.kind(), noun.name())).collect();
    let there = kinds.iter().rev().flat_map(|kind| book.list(*kind, None)).map(|entry| entry.name());
    let gone = there.filter(|name| !names.contains(name)).map(Change::Remove);
    put.chain(gone).collect()
}
