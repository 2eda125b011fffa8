//! Connections that no consolidated policy knows, and what people answer.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Commit, Committed, Problem, Service, Who, lock};
use crate::policy::book::{Change, Known, Noun};
use crate::policy::learning::Item;
use crate::store::{StoredItem, Writing};

pub(super) const KIND: &str = "inbox";
const SECOND: u64 = 1_000_000_000;
/// Nobody answers what was last seen so long ago.
const TIMED_OUT: u64 = 7 * 86_400 * SECOND;
/// Flows of a connection that was never answered before it is asked about.
const INSISTENT: u64 = 3;
/// A connection that is allowed once has so long to be made.
const ONCE: u64 = 600 * SECOND;

/// Where an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum InboxState {
    Pending,
    Approved,
    Denied,
    /// It was not seen again, and nobody answered: nothing came of it.
    Expired,
    /// It became part of another one.
    Merged,
}

/// A connection nobody had seen before, however often it has come since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InboxItem {
    pub id: String,
    pub state: InboxState,
    /// The connection with its evidence.
    #[schema(value_type = Object)]
    pub item: Item,
    /// Who answered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// How long an answer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Lasting {
    /// Ten minutes, for one attempt; denied once, it may come again.
    Once,
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "1d")]
    Day,
    #[default]
    Good,
}

/// What somebody says to some items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    #[schema(min_items = 1, max_items = 10000)]
    pub ids: Vec<String>,
    pub approve: bool,
    #[serde(default, rename = "for")]
    pub lasting: Lasting,
    #[serde(default)]
    pub reason: String,
}

impl Lasting {
    fn until(self, now: u64) -> Option<u64> {
        match self {
            Self::Once => Some(now + ONCE),
            Self::Hour => Some(now + 3600 * SECOND),
            Self::Day => Some(now + 86_400 * SECOND),
            Self::Good => None,
        }
    }
}

impl Service {
    /// Items after an id, of a state if one is asked for.
    pub fn inbox(&self, state: Option<InboxState>, after: Option<&str>, limit: usize) -> Vec<InboxItem> {
        use std::ops::Bound::{Excluded, Unbounded};
        let school = lock(&self.school);
        let from = after.map_or(Unbounded, Excluded);
        let all = school.inbox.range::<str, _>((from, Unbounded)).map(|(_, item)| item);
        all.filter(|item| state.is_none_or(|state| item.state == state)).take(limit).cloned().collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none.
    pub fn inbox_item(&self, id: &str) -> Result<InboxItem, Problem> {
        lock(&self.school).inbox.get(id).cloned().ok_or_else(|| missing(id))
    }

    /// Answers some items, as one generation: the consolidated policies of their groups have the answer then, and with
    /// them every VM that they are mirrored to.
    ///
    /// # Errors
    /// One of them is not there or has its answer already; nothing was done.
    pub fn answer(&self, who: &Who, answer: &Answer) -> Result<Option<Committed>, Problem> {
        let mut desk = self.desk();
        let now = (self.clock)();
        let mut items = self.pending(&answer.ids)?;
        let (state, verb) = match answer.approve {
            true => (InboxState::Approved, "approve"),
            false => (InboxState::Denied, "deny"),
        };
        for item in &mut items {
            (item.state, item.by, item.reason) = (state, who.name.clone(), answer.reason.clone());
        }
        // Who is denied once may ask again.
        let changes = match answer.lasting {
            Lasting::Once if !answer.approve => Vec::new(),
            lasting => changes(&desk.ahead.book, &items, answer, lasting.until(now)),
        };
        let stored: Vec<_> = items.iter().map(|item| (KIND, stored(item))).collect();
        let connections: Vec<String> = items.iter().map(|item| item.item.connection.to_string()).collect();
        let detail = json!({ "connections": connections, "for": answer.lasting, "reason": answer.reason });
        let audit = vec![self.row(who, verb, "inbox", detail)];
        // Before anything else, so that nobody finds them pending meanwhile.
        let before = self.shelve(items.clone());
        let done = if changes.is_empty() {
            let writing = Writing { items: stored, audit, ..Writing::default() };
            desk.store.write(&writing).map(|()| None).map_err(Problem::from)
        } else {
            let what = if items.len() == 1 { connections[0].clone() } else { format!("{} connections", items.len()) };
            let why = format!("{verb} {what}");
            self.make(&mut desk, who, &changes, Commit { why, items: stored, audit, ..Commit::default() }).map(Some)
        };
        if done.is_err() {
            self.shelve(before);
            return done;
        }
        if let Some(unseen) = lock(&self.school).unseen.as_mut().filter(|_| answer.lasting == Lasting::Once) {
            // It is new again when it comes again.
            unseen.forget(items.iter().map(|item| &item.item.connection));
        }
        items.iter().for_each(|item| self.tell("inbox", json!({ "id": item.id, "state": item.state })));
        done
    }

    /// Puts items in the places of those with their ids, and returns these.
    fn shelve(&self, items: Vec<InboxItem>) -> Vec<InboxItem> {
        let mut school = lock(&self.school);
        items.into_iter().filter_map(|item| school.inbox.insert(item.id.clone(), item)).collect()
    }

    fn pending(&self, ids: &[String]) -> Result<Vec<InboxItem>, Problem> {
        let school = lock(&self.school);
        let unique: BTreeSet<&String> = ids.iter().collect();
        if unique.is_empty() {
            return Err(Problem::Invalid("no item is named".to_owned()));
        }
        let mut items = Vec::new();
        for id in unique {
            let item = school.inbox.get(id).ok_or_else(|| missing(id))?;
            if item.state != InboxState::Pending {
                let text = format!("item {id} has its answer: {}", word(item.state));
                return Err(Problem::Conflict(text));
            }
            items.push(item.clone());
        }
        Ok(items)
    }

    /// Brings the inbox up to date with what was found.
    ///
    /// # Errors
    /// The store cannot be written; it is tried again at the next call.
    pub(super) fn tend_inbox(&self, now: u64) -> Result<(), Problem> {
        let (store, mut school) = (self.store(), lock(&self.school));
        if school.inbox_records == school.records || now.saturating_sub(school.inbox_at) < SECOND {
            return Ok(());
        }
        school.inbox_at = now;
        let latest = school.now;
        let Some(unseen) = &mut school.unseen else { return Ok(()) };
        unseen.forget_before(latest.saturating_sub(TIMED_OUT));
        let found: Vec<Item> = unseen.clone().into_items();
        let found: BTreeMap<String, Item> =
            found.into_iter().filter(|item| !item.is_attack() && insists(item)).map(|item| (id(&item), item)).collect();
        let mut changed = Vec::new();
        for (id, item) in &found {
            let known = school.inbox.get(id);
            let pending = known.is_none_or(|known| known.state == InboxState::Pending);
            let again = known.is_some_and(|known| {
                !matches!(known.state, InboxState::Pending) && item.evidence.first > known.item.evidence.last
            });
            if (pending && known.is_none_or(|known| known.item != *item)) || again {
                let state = InboxState::Pending;
                let (by, reason) = (String::new(), String::new());
                changed.push(InboxItem { id: id.clone(), state, item: item.clone(), by, reason });
            }
        }
        for item in
            school.inbox.values().filter(|item| item.state == InboxState::Pending && !found.contains_key(&item.id))
        {
            let old = item.item.evidence.last < latest.saturating_sub(TIMED_OUT);
            let state = if old { InboxState::Expired } else { InboxState::Merged };
            changed.push(InboxItem { state, ..item.clone() });
        }
        let items = changed.iter().map(|item| (KIND, StoredItem { at: now, ..stored(item) })).collect();
        store.write(&Writing { items, ..Writing::default() })?;
        school.inbox_records = school.records;
        // What came to nothing stays in the store, and not here for good.
        let stale = latest.saturating_sub(2 * TIMED_OUT);
        let is_over = |item: &InboxItem| matches!(item.state, InboxState::Expired | InboxState::Merged);
        school.inbox.retain(|_, item| !is_over(item) || item.item.evidence.last >= stale);
        for item in changed {
            if school.inbox.get(&item.id).is_none_or(|known| known.state != item.state) {
                let connection = item.item.connection.to_string();
                self.tell("inbox", json!({ "id": item.id, "state": item.state, "connection": connection }));
            }
            school.inbox.insert(item.id.clone(), item);
        }
        Ok(())
    }

    /// What was stored of the inbox.
    pub(super) fn stored_inbox(items: Vec<StoredItem>) -> BTreeMap<String, InboxItem> {
        let read = |item: StoredItem| serde_json::from_value::<InboxItem>(item.body).ok();
        items.into_iter().filter_map(read).map(|item| (item.id.clone(), item)).collect()
    }
}

/// The answer in the consolidated policy of each group that an item is about.
fn changes(
    book: &crate::policy::book::Book,
    items: &[InboxItem],
    answer: &Answer,
    expires: Option<u64>,
) -> Vec<Change> {
    let groups: BTreeSet<&std::sync::Arc<str>> = items.iter().flat_map(|item| &item.item.evidence.groups).collect();
    let mut changes = Vec::new();
    for group in groups {
        let Some(mut learned) = book.learned(group).cloned() else { continue };
        for item in items.iter().filter(|item| item.item.evidence.groups.contains(group)) {
            let connection = item.item.connection.clone();
            let verb = if answer.approve { "approved" } else { "denied" };
            let reason = if answer.reason.is_empty() { String::new() } else { format!(": {}", answer.reason) };
            let why = format!("{verb} by {}{reason}", item.by);
            learned.connections.retain(|known| known.connection != connection);
            learned.connections.push(Known { connection, allow: answer.approve, expires, why });
        }
        changes.push(Change::Put(Noun::Learned(learned)));
    }
    changes
}

/// A probe that was refused is nothing to ask a person about; who wants something comes again.
fn insists(item: &Item) -> bool {
    item.evidence.answered > 0 || item.evidence.flows >= INSISTENT
}

fn id(item: &Item) -> String {
    format!("{:012x}", item.connection.fingerprint() >> 16)
}

fn stored(item: &InboxItem) -> StoredItem {
    let body = serde_json::to_value(item).unwrap_or(Value::Null);
    StoredItem { id: item.id.clone(), state: word(item.state), at: item.item.evidence.last, body }
}

fn word(state: InboxState) -> String {
    serde_json::to_value(state).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn missing(id: &str) -> Problem {
    Problem::Missing(format!("there is no item `{id}` in the inbox"))
}
