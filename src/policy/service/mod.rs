//! The policy service: the one place where a policy changes.
//!
//! In: changes, answers and commits from people and programs (through the API), flow records to learn from. Out:
//! generations, stored first and put in force then through a [`Plane`]; events. Threads: any may call; reading never
//! waits for a commit that is being compiled. Everything that is written is one transaction with its rows of the audit
//! log, so a crash leaves all of it or nothing, and what is in force after a start is the latest stored generation.
//!
//! ```text
//! people ── change ─► draft ── commit ─┐
//! answers, learning, expiry ───────────┴─► ahead (compiled aside) ─► store ─► plane ─► shown
//! flow records ─► school: learning, inbox ──┘                                          └─► readers
//! ```

mod commit;
mod draft;
mod history;
mod inbox;
mod learn;
mod plane;
mod school;
mod suggestions;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::book::{Book, Change, Conflict, Delta, Derived, Entry, Kind, Name, Noun, Refusal};
use super::learning::fingerprint;
use crate::rules::Rule;
use crate::store::{NewAudit, Store, StoreError, StoredDraft, Writing};

pub use commit::{Commit, Committed};
pub use history::{Difference, Generation};
pub use inbox::{Answer, InboxItem, InboxState, Lasting};
pub use learn::Lesson;
pub use plane::{CompileOnly, Plane};
pub use suggestions::{Account, Proposal, Standing};

use draft::Draft;
use school::School;
use suggestions::Advice;

/// Events that a listener may be behind by; it is let go then.
const EVENTS: usize = 1024;

/// Who wants something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub name: String,
    pub role: String,
}

impl Who {
    pub fn new(name: &str, role: &str) -> Self {
        Self { name: name.to_owned(), role: role.to_owned() }
    }

    /// What nobody asked for.
    pub fn gnomon() -> Self {
        Self::new("gnomon", "service")
    }
}

/// How a change is to be made.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Check it, and leave everything as it is.
    pub dry_run: bool,
    /// As a generation of its own, now; else it joins the draft.
    pub commit: bool,
    pub why: String,
    /// The thing must be as it was when it had this tag; `*`: it must be there.
    pub if_match: Option<String>,
    /// The thing must not be there.
    pub if_absent: bool,
}

/// Which policy is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    #[default]
    Running,
    /// With all changes that wait for a commit.
    Draft,
}

/// Why something was not done. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{kind} `{name}` has changed since it was read: read it again, and decide anew")]
    Changed { kind: Kind, name: String },
    #[error("{0}")]
    Missing(String),
    /// Not now.
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Invalid(String),
    #[error("the policy does not compile, the one in force stays: {0}")]
    Uncompilable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A thing as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Thing {
    pub name: Name,
    /// Changes whenever the thing does.
    pub etag: String,
    pub body: Value,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Changed {
    /// `draft`, `running`, or `nothing` of a dry run.
    pub into: String,
    /// The generation that has it, if it is in force.
    pub generation: Option<u32>,
    /// Quarrels with other rules that the order decides.
    pub conflicts: Vec<Conflict>,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// `generation`, `inbox`, `suggestion`, `alert`, `draft`.
    pub kind: &'static str,
    pub data: Value,
}

/// A change that waits for a commit.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Waiting {
    pub number: i64,
    /// Nanoseconds since the Unix epoch.
    #[serde(with = "super::instant")]
    #[schema(value_type = String, format = DateTime)]
    pub at: u64,
    pub who: String,
    pub change: Change,
}

/// See the top.
pub struct Service {
    desk: Mutex<Desk>,
    shown: RwLock<Shown>,
    school: Mutex<School>,
    advice: Mutex<Advice>,
    /// Held while suggestions are worked out.
    working: Mutex<()>,
    listeners: Mutex<Vec<Sender<Event>>>,
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// What only one may use at a time.
struct Desk {
    store: Arc<Store>,
    plane: Box<dyn Plane>,
    /// What the next generation is made of.
    ahead: Draft,
    number: u32,
    drafts: Vec<Waiting>,
    /// Generation that goes back by itself, and when.
    unconfirmed: Option<(u32, u64)>,
}

/// What readers see.
#[derive(Default)]
struct Shown {
    running: Draft,
    draft: Option<Box<Draft>>,
    number: u32,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("generation", &self.shown().number).finish_non_exhaustive()
    }
}

impl Service {
    /// Takes up the latest stored generation; in an empty store, `first` becomes generation 1. Then puts it in force.
    ///
    /// # Errors
    /// The store cannot be read, or what it has does not compile.
    pub fn open(
        store: Arc<Store>,
        plane: Box<dyn Plane>,
        first: impl FnOnce() -> Vec<Noun>,
        clock: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Self, Problem> {
        let latest = store.generations(None, 1)?.pop();
        let mut book = Book::default();
        let number = latest.as_ref().map_or(0, |generation| generation.number);
        if latest.is_some() {
            fill(&mut book, &store, number)?;
        }
        let unconfirmed = store.unconfirmed()?.and_then(|generation| Some((generation.number, generation.confirm_by?)));
        let ahead = Draft::of(book);
        let drafts = stored_drafts(&store)?;
        let desk = Desk { store, plane, ahead: ahead.clone(), number, drafts, unconfirmed };
        let shown = Shown { running: ahead, draft: None, number };
        let service = Self {
            desk: Mutex::new(desk),
            shown: RwLock::new(shown),
            school: Mutex::default(),
            advice: Mutex::default(),
            working: Mutex::default(),
            listeners: Mutex::default(),
            clock: Box::new(clock),
        };
        service.begin(first)?;
        Ok(service)
    }

    fn begin(&self, first: impl FnOnce() -> Vec<Noun>) -> Result<(), Problem> {
        let mut desk = self.desk();
        if desk.number == 0 {
            let changes: Vec<Change> = first().into_iter().map(Change::Put).collect();
            let why = "imported from the configuration".to_owned();
            self.make(&mut desk, &Who::gnomon(), &changes, Commit { why, ..Commit::default() })?;
        } else {
            let Desk { plane, ahead, number, .. } = &mut *desk;
            plane.prepare(&ahead.derived, &Delta::whole(), *number).map_err(Problem::Uncompilable)?;
            plane.publish().map_err(Problem::Uncompilable)?;
        }
        self.redraft(&desk);
        self.open_school(&desk)?;
        Ok(())
    }

    /// Number of the generation in force.
    pub fn generation(&self) -> u32 {
        self.shown().number
    }

    /// What each worker reports to have in force.
    pub fn reports(&self) -> Vec<u32> {
        self.desk().plane.reports()
    }

    /// One thing.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, kind: Kind, name: &str, view: View) -> Result<Thing, Problem> {
        let shown = self.shown();
        Ok(thing(shown.of(view).book.find(kind, name)?))
    }

    /// Things after a name that `wanted` wants, in the order of their names.
    pub fn list(
        &self,
        kind: Kind,
        view: View,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&Noun) -> bool,
    ) -> Vec<Thing> {
        let shown = self.shown();
        let all = shown.of(view).book.list(kind, after).filter(|entry| wanted(&entry.noun));
        all.take(limit).map(thing).collect()
    }

    /// How many things of each kind there are.
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        let shown = self.shown();
        Kind::ALL.into_iter().map(|kind| (kind, shown.running.book.count(kind))).collect()
    }

    /// VMs of a group.
    ///
    /// # Errors
    /// There is no such group.
    pub fn members(&self, group: &str) -> Result<Vec<Arc<str>>, Problem> {
        let shown = self.shown();
        shown.running.book.find(Kind::Group, group)?;
        let found = shown.running.book.group(group).map(|group| shown.running.book.members(group));
        Ok(found.into_iter().flatten().collect())
    }

    /// Groups that a VM is in.
    ///
    /// # Errors
    /// There is no such VM.
    pub fn groups_of(&self, vm: &str) -> Result<Vec<Arc<str>>, Problem> {
        let shown = self.shown();
        shown.running.book.find(Kind::Vm, vm)?;
        let found = shown.running.book.vm(vm).map(|vm| shown.running.book.groups_of(vm));
        Ok(found.into_iter().flatten().collect())
    }

    /// Tags, and how many VMs carry each.
    pub fn tags(&self, view: View) -> BTreeMap<String, usize> {
        self.shown().of(view).book.tags().map(|(tag, count)| (tag.to_owned(), count)).collect()
    }

    /// Rules that the policy comes to, after an id, with what each is from.
    pub fn rules(&self, view: View, after: Option<&str>, limit: usize) -> Vec<(Rule, Name)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let shown = self.shown();
        let from = after.map_or(Unbounded, Excluded);
        let all = shown.of(view).derived.rules().range::<str, _>((from, Unbounded));
        all.take(limit).map(|(_, (rule, origin))| (rule.clone(), origin.clone())).collect()
    }

    /// One of the rules.
    pub fn rule(&self, id: &str, view: View) -> Option<(Rule, Name)> {
        self.shown().of(view).derived.rules().get(id).cloned()
    }

    /// Name of a group by its position in rules.
    pub fn group_name(&self, at: crate::rules::GroupIx, view: View) -> Option<String> {
        let shown = self.shown();
        shown.of(view).derived.groups().get(usize::from(at.0)).map(|group| group.name.clone())
    }

    /// What a profile comes to, with what is known of its source now.
    ///
    /// # Errors
    /// There is no such profile.
    pub fn preview(&self, profile: &str, view: View) -> Result<super::learning::Plan, Problem> {
        let shown = self.shown();
        match &shown.of(view).book.find(Kind::Profile, profile)?.noun {
            Noun::Profile(it) => Ok(super::book::plan(&shown.of(view).book, it)),
            _ => Err(Problem::Missing(format!("there is no profile `{profile}`"))),
        }
    }

    /// As TOML files have it.
    pub fn export(&self, view: View) -> Result<String, Problem> {
        let shown = self.shown();
        super::book::files::write(shown.of(view).book.nouns()).map_err(|error| Problem::Invalid(error.to_string()))
    }

    /// Changes that make the running policy what is wanted: nothing else stays.
    pub fn changes_to(&self, wanted: &[Noun]) -> Vec<Change> {
        draft::changes_to(&self.shown().running.book, wanted, &Kind::ALL)
    }

    /// Makes changes: all, or none.
    ///
    /// # Errors
    /// Says which of them cannot be, and why.
    pub fn change(&self, who: &Who, mut changes: Vec<Change>, how: &How) -> Result<Changed, Problem> {
        for change in &mut changes {
            if let Change::Put(Noun::Relationship(it)) = change {
                it.name_it();
            }
        }
        let mut desk = self.desk();
        self.check_match(&changes, how)?;
        match (how.dry_run, how.commit) {
            (true, true) => {
                let applied = desk.ahead.apply(&changes)?;
                let conflicts = applied.conflicts.clone();
                desk.ahead.undo(applied);
                Ok(Changed { into: "nothing".to_owned(), generation: None, conflicts })
            }
            (false, true) => {
                let commit = Commit { why: how.why.clone(), ..Commit::default() };
                let committed = self.make(&mut desk, who, &changes, commit)?;
                let Committed { generation, conflicts, .. } = committed;
                Ok(Changed { into: "running".to_owned(), generation: Some(generation), conflicts })
            }
            (dry_run, false) => self.add_to_draft(&mut desk, who, changes, dry_run),
        }
    }

    /// A generation with the same policy, because something else that acts with it has changed.
    ///
    /// # Errors
    /// It does not compile any more, or the store cannot be written.
    pub fn renew(&self, who: &Who, why: &str) -> Result<u32, Problem> {
        let commit = Commit { why: why.to_owned(), ..Commit::default() };
        Ok(self.make(&mut self.desk(), who, &[], commit)?.generation)
    }

    /// Changes that wait.
    pub fn draft(&self) -> Vec<Waiting> {
        self.desk().drafts.clone()
    }

    /// Gives up all changes that wait.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn discard(&self, who: &Who) -> Result<usize, Problem> {
        let mut desk = self.desk();
        let Some(last) = desk.drafts.last().map(|waiting| waiting.number) else { return Ok(0) };
        let count = desk.drafts.len();
        let audit = vec![self.row(who, "discard", "draft", json!({ "changes": count }))];
        desk.store.write(&Writing { drafts_done: Some(last), audit, ..Writing::default() })?;
        desk.drafts.clear();
        self.shown_mut().draft = None;
        self.tell("draft", json!({ "changes": 0 }));
        Ok(count)
    }

    /// Events from now on. Who does not take them is let go.
    pub fn listen(&self) -> Receiver<Event> {
        let (sender, receiver) = bounded(EVENTS);
        lock(&self.listeners).push(sender);
        receiver
    }

    /// Tells all listeners.
    pub fn tell(&self, kind: &'static str, data: Value) {
        let event = Event { kind, data };
        lock(&self.listeners).retain(|listener| {
            !matches!(listener.try_send(event.clone()), Err(TrySendError::Disconnected(_) | TrySendError::Full(_)))
        });
    }

    /// The store, for what is not part of a policy.
    pub fn store(&self) -> Arc<Store> {
        self.desk().store.clone()
    }

    fn add_to_draft(
        &self,
        desk: &mut Desk,
        who: &Who,
        changes: Vec<Change>,
        dry_run: bool,
    ) -> Result<Changed, Problem> {
        let mut shown = self.shown_mut();
        let shown = &mut *shown;
        let fresh = shown.draft.is_none();
        let draft = shown.draft.get_or_insert_with(|| Box::new(shown.running.clone()));
        let applied = match draft.apply(&changes) {
            Ok(applied) => applied,
            Err(refusal) => {
                if fresh {
                    shown.draft = None;
                }
                return Err(refusal.into());
            }
        };
        let conflicts = applied.conflicts.clone();
        if dry_run {
            draft.undo(applied);
            if fresh {
                shown.draft = None;
            }
            return Ok(Changed { into: "nothing".to_owned(), generation: None, conflicts });
        }
        let (at, first) = ((self.clock)(), desk.drafts.last().map_or(1, |waiting| waiting.number + 1));
        let waiting = |(number, change): (i64, Change)| Waiting { number, at, who: who.name.clone(), change };
        let waiting: Vec<Waiting> = (first..).zip(changes).map(waiting).collect();
        let drafts = waiting.iter().map(|waiting| StoredDraft {
            number: waiting.number,
            at,
            who: waiting.who.clone(),
            change: serde_json::to_value(&waiting.change).unwrap_or_default(),
        });
        let names: Vec<String> = waiting.iter().map(|waiting| said(&waiting.change)).collect();
        let audit = vec![self.row(who, "change", "draft", json!(names))];
        if let Err(error) = desk.store.write(&Writing { drafts: drafts.collect(), audit, ..Writing::default() }) {
            draft.undo(applied);
            return Err(error.into());
        }
        desk.drafts.extend(waiting);
        self.tell("draft", json!({ "changes": desk.drafts.len() }));
        Ok(Changed { into: "draft".to_owned(), generation: None, conflicts })
    }

    fn check_match(&self, changes: &[Change], how: &How) -> Result<(), Problem> {
        let Some(name) = changes.first().map(Change::name) else { return Ok(()) };
        let shown = self.shown();
        let view = if how.commit { View::Running } else { View::Draft };
        let there = shown.of(view).book.get(name.kind, &name.name);
        if how.if_absent && there.is_some() {
            return Err(Problem::Conflict(format!("there is a {} `{}` already", name.kind, name.name)));
        }
        let Some(wanted) = &how.if_match else { return Ok(()) };
        let tag = there.map(|entry| etag(entry));
        if tag.as_ref().is_some_and(|tag| wanted == "*" || wanted == tag) {
            return Ok(());
        }
        Err(Problem::Changed { kind: name.kind, name: name.name.to_string() })
    }

    fn row(&self, who: &Who, action: &str, object: &str, detail: Value) -> NewAudit {
        NewAudit {
            at: (self.clock)(),
            who: who.name.clone(),
            role: who.role.clone(),
            action: action.to_owned(),
            object: object.to_owned(),
            detail: detail.to_string(),
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }

    fn shown(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown_mut(&self) -> RwLockWriteGuard<'_, Shown> {
        self.shown.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn of(&self, view: View) -> &Draft {
        match (view, &self.draft) {
            (View::Draft, Some(draft)) => draft,
            _ => &self.running,
        }
    }
}

/// The policy of the latest generation in a store, without a service.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn stored_policy(store: &Store) -> Result<Derived, Problem> {
    let none = || Problem::Missing(format!("the store {} has no policy yet", store.path().display()));
    let latest = store.generations(None, 1)?.pop().ok_or_else(none)?;
    let mut book = Book::default();
    fill(&mut book, store, latest.number)?;
    Ok(Derived::of(&book))
}

fn fill(book: &mut Book, store: &Store, generation: u32) -> Result<(), Problem> {
    let mut nouns = Vec::new();
    for (kind, body) in store.nouns_at(generation)? {
        let damaged = |what: String| Problem::Invalid(format!("the store has a {kind} that cannot be read: {what}"));
        let kind = Kind::read(&kind).ok_or_else(|| damaged("of no known kind".to_owned()))?;
        nouns.push(Noun::read(kind, body).map_err(|error| damaged(error.to_string()))?);
    }
    nouns.sort_by_key(Noun::kind);
    for noun in nouns {
        book.apply(&Change::Put(noun))?;
    }
    Ok(())
}

fn stored_drafts(store: &Store) -> Result<Vec<Waiting>, Problem> {
    let read = |draft: StoredDraft| {
        let change = serde_json::from_value(draft.change);
        let change =
            change.map_err(|error| Problem::Invalid(format!("a draft in the store cannot be read: {error}")))?;
        Ok(Waiting { number: draft.number, at: draft.at, who: draft.who, change })
    };
    store.drafts()?.into_iter().map(read).collect()
}

fn thing(entry: &Arc<Entry>) -> Thing {
    Thing { name: entry.name(), etag: etag(entry), body: entry.noun.body() }
}

fn etag(entry: &Entry) -> String {
    format!("{:016x}", fingerprint(&entry.noun.body().to_string()))
}

/// A change in a few words.
fn said(change: &Change) -> String {
    let name = change.name();
    let verb = if matches!(change, Change::Put(_)) { "put" } else { "remove" };
    format!("{verb} {} {}", name.kind.name(), name.name)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long nobody has to wait for what happens by itself.
pub const TICK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
