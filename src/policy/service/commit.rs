//! Generations: made, confirmed, taken back.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::draft::Draft;
use super::{Desk, Problem, Service, Who, said};
use crate::policy::book::{Change, Conflict, Kind, Name, Noun};
use crate::store::{NewAudit, StoredChange, StoredGeneration, StoredItem, Writing};

/// Changes named in the audit log; of more, their number is.
const NAMED: usize = 50;

/// How a generation is made.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub why: String,
    /// It goes back by itself after this time, unless it is confirmed.
    pub confirm: Option<Duration>,
    /// Generation that it goes back to.
    pub(super) back_to: Option<u32>,
    /// Drafts that are part of it.
    pub(super) drafts_done: Option<i64>,
    /// Generation that waits no more.
    pub(super) confirmed: Option<u32>,
    /// Items that it answers.
    pub(super) items: Vec<(&'static str, StoredItem)>,
    /// Rows of the log beside its own.
    pub(super) audit: Vec<NewAudit>,
}

impl Commit {
    /// `confirm`: it goes back by itself after this time, unless it is confirmed.
    pub fn new(why: &str, confirm: Option<Duration>) -> Self {
        Self { why: why.to_owned(), confirm, ..Self::default() }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Committed {
    pub generation: u32,
    /// Things that changed.
    pub changes: usize,
    /// Until when it must be confirmed.
    #[serde(with = "crate::policy::instant::maybe", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub confirm_by: Option<u64>,
    pub conflicts: Vec<Conflict>,
}

impl Service {
    /// Whether the draft could be committed; what it would change, and quarrels.
    ///
    /// # Errors
    /// It could not; why.
    pub fn validate(&self) -> Result<Vec<Conflict>, Problem> {
        let mut desk = self.desk();
        let changes: Vec<Change> = desk.drafts.iter().map(|waiting| waiting.change.clone()).collect();
        let number = desk.number + 1;
        let Desk { ahead, plane, .. } = &mut *desk;
        let applied = ahead.apply(&changes)?;
        let prepared = plane.prepare(&ahead.derived, &applied.delta, number);
        let conflicts = applied.conflicts.clone();
        ahead.undo(applied);
        plane.abandon(&ahead.derived);
        prepared.map_err(Problem::Uncompilable)?;
        Ok(conflicts)
    }

    /// Puts the draft in force.
    ///
    /// # Errors
    /// There is none, or it cannot be; the generation in force stays, and so does the draft.
    pub fn commit(&self, who: &Who, commit: Commit) -> Result<Committed, Problem> {
        let mut desk = self.desk();
        let changes: Vec<Change> = desk.drafts.iter().map(|waiting| waiting.change.clone()).collect();
        let Some(last) = desk.drafts.last().map(|waiting| waiting.number) else {
            return Err(Problem::Conflict("there is nothing to commit: the draft is empty".to_owned()));
        };
        self.make(&mut desk, who, &changes, Commit { drafts_done: Some(last), ..commit })
    }

    /// Keeps a generation that would have gone back by itself.
    ///
    /// # Errors
    /// None waits.
    pub fn confirm(&self, who: &Who) -> Result<u32, Problem> {
        let mut desk = self.desk();
        let Some((number, _)) = desk.unconfirmed else {
            return Err(Problem::Conflict("no generation waits for a confirmation".to_owned()));
        };
        let audit = vec![self.row(who, "confirm", &format!("generation {number}"), json!({}))];
        desk.store.write(&Writing { confirmed: Some(number), audit, ..Writing::default() })?;
        desk.unconfirmed = None;
        self.tell("generation", json!({ "generation": number, "confirmed": true }));
        Ok(number)
    }

    /// Makes the policy what it was in a generation, as a new one.
    ///
    /// # Errors
    /// There is no such generation, or it is the one in force.
    pub fn rollback(&self, who: &Who, to: u32, why: &str) -> Result<Committed, Problem> {
        let mut desk = self.desk();
        let changes = self.way_to(&desk, to, desk.number)?;
        let why = if why.is_empty() { format!("back to generation {to}") } else { why.to_owned() };
        // Going back behind a generation that waits is an answer to it.
        let confirmed = desk.unconfirmed.map(|(number, _)| number).filter(|number| *number > to);
        let commit = Commit { why, back_to: Some(to), confirmed, ..Commit::default() };
        let committed = self.make(&mut desk, who, &changes, commit)?;
        if confirmed.is_some() {
            desk.unconfirmed = None;
        }
        self.advice_returned(&desk, |generation| generation > to);
        Ok(committed)
    }

    /// What happens by itself: generations that nobody confirmed go back, what has expired goes.
    ///
    /// # Errors
    /// The store cannot be written; it is tried again at the next call.
    pub fn tick(&self) -> Result<(), Problem> {
        let now = (self.clock)();
        let mut desk = self.desk();
        let mut done = Ok(());
        if let Some((number, _)) = desk.unconfirmed.filter(|(_, by)| *by <= now) {
            done = self.take_back(&mut desk, number);
        }
        // One thing that cannot be must not keep another.
        done = done.and(self.let_go(&mut desk, now));
        drop(desk);
        done.and(self.tend_school(now))
    }

    fn let_go(&self, desk: &mut Desk, now: u64) -> Result<(), Problem> {
        let expired = expired(&desk.ahead, now);
        if expired.is_empty() {
            return Ok(());
        }
        let mut go = |changes: &[Change]| {
            let names: Vec<String> = changes.iter().map(said).collect();
            let why = format!("expired: {}", names.join(", "));
            self.make(desk, &Who::gnomon(), changes, Commit { why, ..Commit::default() }).map(drop)
        };
        if expired.len() == 1 || go(&expired).is_err() {
            let mut done = Ok(());
            for one in expired.chunks(1) {
                done = done.and(go(one));
            }
            return done;
        }
        Ok(())
    }

    /// Only what the generation changed goes back, so that what others did since stays; if that cannot be, all does.
    fn take_back(&self, desk: &mut Desk, number: u32) -> Result<(), Problem> {
        let why = format!("nobody confirmed generation {number} in time");
        let (back_to, confirmed) = (Some(number - 1), Some(number));
        let commit = || Commit { why: why.clone(), back_to, confirmed, ..Commit::default() };
        let own = self.way_back(desk, number)?;
        let mut alone = true;
        if let Err(problem) = self.make(desk, &Who::gnomon(), &own, commit()) {
            alone = false;
            log::warn!("{why}, but what it changed cannot go back alone ({problem}): all goes back");
            let all = self.way_to(desk, number - 1, desk.number)?;
            self.make(desk, &Who::gnomon(), &all, commit())?;
        }
        desk.unconfirmed = None;
        self.advice_returned(desk, |generation| generation == number || (!alone && generation > number));
        Ok(())
    }

    /// Changes that undo what one generation did to things that nobody has changed since.
    fn way_back(&self, desk: &Desk, number: u32) -> Result<Vec<Change>, Problem> {
        let since: BTreeSet<(String, String)> = desk.store.nouns_changed(number, desk.number)?.into_iter().collect();
        let own = desk.store.nouns_changed(number - 1, number)?.into_iter().filter(|name| !since.contains(name));
        self.changes_back(desk, own, number - 1)
    }

    fn way_to(&self, desk: &Desk, to: u32, from: u32) -> Result<Vec<Change>, Problem> {
        if to == 0 || to > from {
            return Err(Problem::Missing(format!("there is no generation {to}; the one in force is {from}")));
        }
        let changed = desk.store.nouns_changed(to, from)?;
        let changes = self.changes_back(desk, changed.into_iter(), to)?;
        if changes.is_empty() {
            return Err(Problem::Conflict(format!("the policy in force is that of generation {to}")));
        }
        Ok(changes)
    }

    fn changes_back(
        &self,
        desk: &Desk,
        names: impl Iterator<Item = (String, String)>,
        to: u32,
    ) -> Result<Vec<Change>, Problem> {
        let mut changes = Vec::new();
        for (kind_name, name) in names {
            let damaged = || Problem::Invalid(format!("the store has a {kind_name} `{name}` that cannot be read"));
            let kind = Kind::read(&kind_name).ok_or_else(damaged)?;
            let now = desk.ahead.book.get(kind, &name);
            match desk.store.noun_at(&kind_name, &name, to)? {
                Some(body) => {
                    let noun = Noun::read(kind, body).map_err(|_| damaged())?;
                    if now.is_none_or(|entry| entry.noun != noun) {
                        changes.push(Change::Put(noun));
                    }
                }
                None if now.is_some() => changes.push(Change::Remove(Name::new(kind, &name))),
                None => {}
            }
        }
        Ok(changes)
    }

    /// Makes the next generation: compiled aside, stored, put in force, shown.
    pub(super) fn make(
        &self,
        desk: &mut Desk,
        who: &Who,
        changes: &[Change],
        commit: Commit,
    ) -> Result<Committed, Problem> {
        if let (Some((number, _)), true) = (desk.unconfirmed, commit.confirm.is_some()) {
            let text = format!("generation {number} waits for its own confirmation: confirm it or roll back first");
            return Err(Problem::Conflict(text));
        }
        let (number, at) = (desk.number + 1, (self.clock)());
        let Desk { store, plane, ahead, .. } = desk;
        // What was in force once may be so again, whatever it quarrels with.
        let applied = if commit.back_to.is_some() { ahead.apply_again(changes)? } else { ahead.apply(changes)? };
        if let Err(reason) = plane.prepare(&ahead.derived, &applied.delta, number) {
            ahead.undo(applied);
            return Err(Problem::Uncompilable(reason));
        }
        let stored: Vec<StoredChange> = applied.names().iter().map(|name| stored(ahead, name)).collect();
        let count = stored.len();
        let confirm_by = commit.confirm.map(|time| at + time.as_nanos() as u64);
        let names: Vec<String> = changes.iter().take(NAMED).map(said).collect();
        let detail = json!({ "why": commit.why, "changes": changes.len(), "named": names, "back_to": commit.back_to });
        let mut audit = commit.audit;
        audit.push(self.row(who, "commit", &format!("generation {number}"), detail));
        let (who_name, why, back_to) = (who.name.clone(), commit.why.clone(), commit.back_to);
        let generation =
            StoredGeneration { number, at, who: who_name, why, changes: count as u64, back_to, confirm_by };
        let writing = Writing {
            generation: Some((generation, stored)),
            drafts_done: commit.drafts_done,
            items: commit.items,
            confirmed: commit.confirmed,
            audit,
            ..Writing::default()
        };
        if let Err(error) = store.write(&writing) {
            ahead.undo(applied);
            plane.abandon(&ahead.derived);
            return Err(error.into());
        }
        if let Err(reason) = plane.publish() {
            // It is stored: the next start has it in force.
            log::error!("generation {number} is stored and not in force: {reason}");
        }
        let conflicts = applied.conflicts;
        desk.number = number;
        if let Some(by) = confirm_by {
            desk.unconfirmed = Some((number, by));
        }
        if let Some(last) = commit.drafts_done {
            desk.drafts.retain(|waiting| waiting.number > last);
        }
        self.show(desk, changes);
        self.teach(desk);
        self.tell("generation", json!({ "generation": number, "who": who.name, "why": commit.why, "changes": count }));
        Ok(Committed { generation: number, changes: count, confirm_by, conflicts })
    }

    /// What readers see becomes what is in force.
    fn show(&self, desk: &Desk, changes: &[Change]) {
        let mut shown = self.shown_mut();
        shown.number = desk.number;
        if shown.running.apply_again(changes).is_err() {
            // It went well a moment ago, on an equal book.
            log::error!("what is shown of generation {} is made anew", desk.number);
            shown.running = desk.ahead.clone();
        }
        drop(shown);
        self.redraft(desk);
    }

    /// The draft on top of what is in force now. A change that does not fit any more waits, and is told at the commit.
    pub(super) fn redraft(&self, desk: &Desk) {
        if desk.drafts.is_empty() {
            self.shown_mut().draft = None;
            return;
        }
        let mut draft = desk.ahead.clone();
        for waiting in &desk.drafts {
            if let Err(refusal) = draft.apply(std::slice::from_ref(&waiting.change)) {
                log::warn!(
                    "a change that waits for a commit does not fit any more ({}): {refusal}",
                    said(&waiting.change)
                );
            }
        }
        self.shown_mut().draft = Some(Box::new(draft));
    }
}

fn stored(ahead: &Draft, name: &Name) -> StoredChange {
    let body = ahead.book.get(name.kind, &name.name).map(|entry| entry.noun.body());
    StoredChange { kind: name.kind.name().to_owned(), name: name.name.to_string(), body }
}

/// Changes that let go of what has expired.
fn expired(ahead: &Draft, now: u64) -> Vec<Change> {
    let kinds = [Kind::Relationship, Kind::Override, Kind::Learned];
    let entries = kinds.into_iter().flat_map(|kind| ahead.book.list(kind, None));
    let over = entries.filter(|entry| entry.noun.expires().is_some_and(|time| time <= now));
    let change = |noun: &Noun| match noun {
        Noun::Learned(learned) => {
            let mut learned = learned.clone();
            learned.connections.retain(|known| known.expires.is_none_or(|time| time > now));
            Change::Put(Noun::Learned(learned))
        }
        other => Change::Remove(Name::new(other.kind(), other.name())),
    };
    over.map(|entry| change(&entry.noun)).collect()
}
