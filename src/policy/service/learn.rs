//! Learning mode: begun, looked at, ended with a policy.

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::school::School;
use super::suggestions::Advice;
use super::{Commit, Committed, Desk, Problem, Service, Who, inbox, lock, suggestions};
use crate::filter::Fields;
use crate::policy::book::{Book, Change, Group, Kind, Known, Learned, Learning, LearningState, Noun};
use crate::policy::learning::{Endpoint, Graph};
use crate::store::Writing;

/// What was learnt is stored at least so often.
const STORED_EVERY: u64 = 30 * 1_000_000_000;

/// How far a group is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Lesson {
    pub group: String,
    pub state: LearningState,
    /// Connections learnt so far, or known to the consolidated policy.
    pub connections: usize,
    pub flows: u64,
    /// From when to when the flows are.
    #[serde(with = "crate::policy::instant::maybe", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<u64>,
    #[serde(with = "crate::policy::instant::maybe", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<u64>,
    /// When something was last new.
    #[serde(with = "crate::policy::instant::maybe", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub stable_since: Option<u64>,
}

impl Service {
    /// Learns from flow records, with names of groups and rules.
    pub fn observe<F: Fields>(&self, records: impl IntoIterator<Item = F>) {
        let (shown, mut school) = (self.shown(), lock(&self.school));
        for record in records {
            school.observe(&record, &shown.running.book);
        }
    }

    /// Flow records that were taken since the start.
    pub fn observed(&self) -> u64 {
        lock(&self.school).records
    }

    /// Groups that learn or have a consolidated policy.
    pub fn lessons(&self) -> Vec<Lesson> {
        let (shown, school) = (self.shown(), lock(&self.school));
        let book = &shown.running.book;
        let groups = book.list(Kind::Group, None).filter_map(|entry| match &entry.noun {
            Noun::Group(group) => Some((group, group.learning.as_ref()?)),
            _ => None,
        });
        let lesson = |(group, learning): (&Group, &Learning)| {
            let graph = school.graph(&group.name);
            let known = book.learned(&group.name).map_or(0, |learned| learned.connections.len());
            Lesson {
                group: group.name.clone(),
                state: learning.state,
                connections: graph.as_ref().map_or(known, |graph| graph.edges.len()),
                flows: graph.as_ref().map_or(0, |graph| graph.flows),
                since: graph.as_ref().map(|graph| graph.since).filter(|time| *time > 0),
                until: graph.as_ref().map(|graph| graph.until).filter(|time| *time > 0),
                stable_since: graph.map(|graph| graph.stable_since).filter(|time| *time > 0),
            }
        };
        groups.map(lesson).collect()
    }

    /// What a group has learnt so far.
    ///
    /// # Errors
    /// It does not learn.
    pub fn graph(&self, group: &str) -> Result<Graph, Problem> {
        self.shown().running.book.find(Kind::Group, group)?;
        let none = || Problem::Conflict(format!("group `{group}` does not learn: `gnomon learn start {group}` begins"));
        lock(&self.school).graph(group).ok_or_else(none)
    }

    /// Begins to learn, or goes on with other settings. What is enforced for the group stays.
    ///
    /// # Errors
    /// There is no such group.
    pub fn learn(&self, who: &Who, group: &str, learning: Learning) -> Result<Committed, Problem> {
        let mut desk = self.desk();
        let mut it = group_of(&desk, group)?;
        it.learning = Some(Learning { state: LearningState::Learning, ..learning });
        let why = format!("group {group} learns");
        self.make(&mut desk, who, &[Change::Put(Noun::Group(it))], Commit { why, ..Commit::default() })
    }

    /// Ends learning. With `enforce`, what was learnt is the group's policy from now on, and all else is denied or waits
    /// as the group's settings say.
    ///
    /// # Errors
    /// The group does not learn, or has learnt nothing.
    pub fn finish(&self, who: &Who, group: &str, enforce: bool) -> Result<Committed, Problem> {
        let mut desk = self.desk();
        self.finish_on(&mut desk, who, group, enforce)
    }

    fn finish_on(&self, desk: &mut Desk, who: &Who, group: &str, enforce: bool) -> Result<Committed, Problem> {
        let mut it = group_of(desk, group)?;
        let Some(learning) = it.learning.as_mut().filter(|learning| learning.state == LearningState::Learning) else {
            return Err(Problem::Conflict(format!("group `{group}` does not learn")));
        };
        let mut changes = Vec::new();
        if enforce {
            let graph =
                lock(&self.school).graph(group).filter(|graph| graph.edges.iter().any(|edge| edge.permitted > 0));
            let Some(graph) = graph else {
                let text = format!("group `{group}` has learnt nothing yet: enforcing that would deny everything");
                return Err(Problem::Conflict(text));
            };
            learning.state = LearningState::Enforcing;
            changes.push(Change::Put(Noun::Learned(consolidated(&graph, &desk.ahead.book))));
        } else {
            learning.state = LearningState::Off;
        }
        changes.push(Change::Put(Noun::Group(it)));
        let why = format!("group {group} {}", if enforce { "enforces what it learnt" } else { "learns no more" });
        self.make(desk, who, &changes, Commit { why, ..Commit::default() })
    }

    /// Classes as the policy in force wants them.
    pub(super) fn teach(&self, desk: &Desk) {
        lock(&self.school).arrange(&desk.ahead);
    }

    pub(super) fn open_school(&self, desk: &Desk) -> Result<(), Problem> {
        let mut school = School::default();
        school.arrange(&desk.ahead);
        school.recall(|name| desk.store.fact(name).ok().flatten());
        school.inbox = Self::stored_inbox(desk.store.items(inbox::KIND)?);
        let pending = school.inbox.values().filter(|item| item.state == super::InboxState::Pending);
        let pending = pending.map(|item| item.item.clone()).collect();
        school.take_over(pending);
        *lock(&self.school) = school;
        let feedback = desk.store.fact("feedback")?;
        *lock(&self.advice) = Advice::recall(desk.store.items(suggestions::KIND)?, feedback);
        Ok(())
    }

    /// Stores what was learnt, ends lessons that are over, brings the inbox up to date.
    pub(super) fn tend_school(&self, now: u64) -> Result<(), Problem> {
        self.tend_inbox(now)?;
        let mut school = lock(&self.school);
        if now.saturating_sub(school.stored_at) < STORED_EVERY {
            return Ok(());
        }
        school.stored_at = now;
        drop(school);
        self.keep_lessons()?;
        let stable = lock(&self.school).stable();
        let mut done = Ok(());
        for group in stable {
            done = done.and(self.finish(&Who::gnomon(), &group, true).map(drop));
        }
        done
    }

    /// Stores what was learnt so far.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep_lessons(&self) -> Result<(), Problem> {
        let (store, now) = (self.store(), (self.clock)());
        let facts: Vec<_> = lock(&self.school).knowledge().into_iter().map(|(name, body)| (name, now, body)).collect();
        if facts.is_empty() {
            return Ok(());
        }
        let writing = Writing { facts, ..Writing::default() };
        Ok(store.write(&writing)?)
    }

    /// Whether a group's flows are being learnt.
    pub fn learns(&self, group: &str) -> bool {
        lock(&self.school).learns(group)
    }

    /// The latest state of everything that learns, at the end of a run.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn close(&self) -> Result<(), Problem> {
        self.tend_inbox((self.clock)())?;
        self.keep_lessons()?;
        self.tell("generation", json!({ "closing": true }));
        Ok(())
    }
}

fn group_of(desk: &Desk, group: &str) -> Result<Group, Problem> {
    match &desk.ahead.book.find(Kind::Group, group)?.noun {
        Noun::Group(it) => Ok(it.clone()),
        _ => Err(Problem::Missing(format!("there is no group `{group}`"))),
    }
}

/// What was learnt, with what people answered before.
fn consolidated(graph: &Graph, book: &Book) -> Learned {
    let former = book.learned(&graph.group);
    // Groups and VMs may have gone since.
    let is_there = |end: &Endpoint| match end {
        Endpoint::Group(name) => book.group(name).is_some(),
        Endpoint::Vm(name) => book.vm(name).is_some(),
        Endpoint::Net(_) | Endpoint::Any => true,
    };
    let permitted = graph.edges.iter().filter(|edge| edge.permitted > 0);
    let permitted = permitted.filter(|edge| is_there(&edge.connection.from) && is_there(&edge.connection.to));
    let mut connections: Vec<Known> = permitted
        .map(|edge| Known {
            connection: edge.connection.clone(),
            allow: true,
            expires: None,
            why: format!("{} flows on {} days, {} VMs", edge.permitted, edge.days, edge.vm_count),
        })
        .collect();
    let answered = former.into_iter().flat_map(|learned| &learned.connections).filter(|known| is_answer(known));
    for known in answered {
        connections.retain(|learnt| learnt.connection != known.connection);
        connections.push(known.clone());
    }
    Learned { group: graph.group.to_string(), enforce: true, connections }
}

fn is_answer(known: &Known) -> bool {
    ["approved by ", "denied by "].iter().any(|word| known.why.starts_with(word))
}
