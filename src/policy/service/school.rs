//! What is learnt from flow records while they come in: graphs of groups that learn, and connections that groups which
//! enforce do not know.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::draft::Draft;
use crate::filter::{Expression, Fields, Schema};
use crate::policy::book::{Address, Book, Group, Kind, LearningState, Noun};
use crate::policy::learning::{Answer, Connection, Graph, Item, Learner, Seen, Settings, Unseen};
use crate::policy::suggest::Traffic;

/// Connections in memory that wait for an answer; flows of more are counted and forgotten.
pub(super) const MOST_UNSEEN: usize = 100_000;
const DAY: u64 = 86_400 * 1_000_000_000;

/// See the top.
#[derive(Debug, Default)]
pub(super) struct School {
    classes: BTreeMap<Arc<str>, Class>,
    /// Of groups that enforce.
    pub(super) unseen: Option<Unseen>,
    /// All that was seen since the start, for suggestions.
    pub(super) traffic: Traffic,
    /// Latest time in any record.
    pub(super) now: u64,
    /// Records that were taken.
    pub(super) records: u64,
    /// When what was learnt was last stored, and what of the inbox.
    pub(super) stored_at: u64,
    pub(super) inbox: BTreeMap<String, super::InboxItem>,
    pub(super) inbox_records: u64,
    pub(super) inbox_at: u64,
}

/// A group that learns.
#[derive(Debug)]
struct Class {
    learner: Learner,
    except: Vec<Expression>,
    look_back: u64,
    stable: u64,
    changed: bool,
}

impl School {
    /// Classes as the policy in force wants them. What was learnt stays.
    pub(super) fn arrange(&mut self, policy: &Draft) {
        let sizes = policy.derived.sizes();
        let groups: Vec<&Group> = policy
            .book
            .list(Kind::Group, None)
            .filter_map(|entry| match &entry.noun {
                Noun::Group(group) => Some(group),
                _ => None,
            })
            .collect();
        let learns = |group: &&&Group| group.learning.as_ref().is_some_and(|it| it.state == LearningState::Learning);
        self.classes.retain(|name, _| groups.iter().any(|group| *group.name == **name && learns(&group)));
        for group in groups.iter().filter(learns) {
            self.arrange_class(group, &sizes);
        }
        let enforces = |group: &&&Group| group.learning.as_ref().is_some_and(|it| it.state == LearningState::Enforcing);
        let known: Vec<(Arc<str>, Vec<Connection>)> = groups
            .iter()
            .filter(enforces)
            .filter_map(|group| policy.book.learned(&group.name))
            .map(|learned| {
                let known = learned.connections.iter().map(|known| known.connection.clone());
                (Arc::from(learned.group.as_str()), known.collect())
            })
            .collect();
        let names: Vec<Arc<str>> = known.iter().map(|(name, _)| name.clone()).collect();
        let former = self.unseen.take();
        if !known.is_empty() {
            let namer = Learner::new(Settings::default(), &names, sizes);
            let mut unseen = Unseen::of(known, namer, MOST_UNSEEN);
            if let Some(former) = former {
                unseen.take_over(former.found());
            }
            self.unseen = Some(unseen);
        }
    }

    fn arrange_class(&mut self, group: &Group, sizes: &BTreeMap<Arc<str>, usize>) {
        let Some(learning) = &group.learning else { return };
        let (min_flows, min_days) = (learning.min_flows, learning.min_days);
        let settings = Settings { min_flows, min_days, ..Settings::default() };
        let name: Arc<str> = group.name.as_str().into();
        let class = self.classes.entry(name.clone()).or_insert_with(|| Class {
            learner: Learner::new(settings, &[name], sizes.clone()),
            except: Vec::new(),
            look_back: 0,
            stable: 0,
            changed: false,
        });
        class.learner.adjust(settings, sizes.clone());
        // They were checked when the group was put into the book.
        let except = learning.except.iter().filter_map(|text| Expression::parse(text, &Schema::FLOW).ok());
        class.except = except.collect();
        class.look_back = learning.look_back_days * DAY;
        class.stable = learning.stable_days * DAY;
    }

    /// The next flow record.
    pub(super) fn observe(&mut self, record: &impl Fields, book: &Book) {
        let Some(seen) = Seen::of(record, |address| book.owner(Address::Ip(address)).cloned()) else { return };
        self.records += 1;
        self.now = self.now.max(seen.end);
        self.traffic.observe(&seen);
        for name in seen.from.groups.iter().chain(&seen.to.groups) {
            // Of a flow within a group, once.
            let again = seen.from.is_in(name) && !seen.from.groups.iter().any(|other| Arc::ptr_eq(other, name));
            if let Some(class) = self.classes.get_mut(name).filter(|_| !again) {
                let excluded = class.except.iter().any(|except| except.matches(record));
                class.learner.observe(&seen, excluded);
                class.changed = true;
            }
        }
        // What a profile allows is known, if not to the other side's own policy.
        let mirrored =
            seen.answer != Answer::Denied && seen.rule.as_deref().is_some_and(|id| id.starts_with("mirrored/"));
        if let Some(unseen) = self.unseen.as_mut().filter(|_| !mirrored) {
            unseen.observe(&seen);
        }
    }

    /// What a group has learnt so far.
    pub(super) fn graph(&self, group: &str) -> Option<Graph> {
        self.classes.get(group)?.learner.clone().finish().pop()
    }

    /// Groups that have seen nothing new for as long as they were told.
    pub(super) fn stable(&self) -> Vec<Arc<str>> {
        let ready = |name: &&Arc<str>| {
            let Some(class) = self.classes.get(*name).filter(|class| class.stable > 0) else { return false };
            let Some(graph) = self.graph(name) else { return false };
            graph.stable_since > 0 && graph.until.saturating_sub(graph.stable_since) >= class.stable
        };
        self.classes.keys().filter(ready).cloned().collect()
    }

    /// What changed since the last call, to be stored.
    pub(super) fn knowledge(&mut self) -> Vec<(String, serde_json::Value)> {
        let mut found = Vec::new();
        for (name, class) in &mut self.classes {
            if class.look_back > 0 {
                class.learner.forget_before(self.now.saturating_sub(class.look_back));
            }
            if std::mem::take(&mut class.changed) {
                found.push((fact(name), class.learner.knowledge()));
            }
        }
        found
    }

    /// Goes on with what was stored.
    pub(super) fn recall(&mut self, read: impl Fn(&str) -> Option<serde_json::Value>) {
        for (name, class) in &mut self.classes {
            if let Some(Err(error)) = read(&fact(name)).map(|knowledge| class.learner.recall(knowledge)) {
                log::warn!("what {name} had learnt cannot be read, it begins anew: {error}");
            }
        }
    }

    pub(super) fn learns(&self, group: &str) -> bool {
        self.classes.contains_key(group)
    }

    /// Takes back what was found before a restart.
    pub(super) fn take_over(&mut self, items: Vec<Item>) {
        if let Some(unseen) = &mut self.unseen {
            unseen.take_over(items);
        }
    }
}

fn fact(group: &str) -> String {
    format!("learning/{group}")
}
