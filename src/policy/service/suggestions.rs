//! Suggestions on what the service has seen, and what people answer.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Commit, Committed, Desk, Problem, Service, Who, lock};
use crate::policy::book::{Change, Kind, Name, Noun, Relationship, Words};
use crate::policy::learning::Endpoint;
use crate::policy::suggest::{
    self, Aftermath, CalibrationReport, Context, Draft, Feedback, Rulebook, Settings, Suggestion, TrustOf,
};
use crate::rules::{Mode, protocol_name};
use crate::store::{StoredItem, Writing};

pub(super) const KIND: &str = "suggestion";
/// What answers have taught.
const FACT: &str = "feedback";
/// How old suggestions may be before they are worked out anew.
const FRESH: u64 = 60 * 1_000_000_000;
/// How many are worked out.
const MOST: usize = 100;

/// Where a suggestion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    Open,
    Accepted,
    Rejected,
    /// Accepted, and the policy went back behind it.
    Returned,
}

/// A proposed change with what speaks for it, and what was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Proposal {
    pub id: String,
    pub state: Standing,
    /// The change, its confidence in parts, evidence, what would have become of the recorded traffic.
    #[schema(value_type = Object)]
    pub suggestion: Suggestion,
    /// Who answered, and why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The generation that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// What it was judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    context: Option<Context>,
}

/// How good suggestions were.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Account {
    /// Per generator: how often what it proposed turned out well.
    #[schema(value_type = Vec<Object>)]
    pub trust: Vec<TrustOf>,
    /// Confidence against acceptance.
    #[schema(value_type = Object)]
    pub calibration: CalibrationReport,
}

/// What the service knows for suggestions.
#[derive(Debug, Default)]
pub(super) struct Advice {
    pub feedback: Feedback,
    /// All that were answered, and those that are open.
    pub proposals: std::collections::BTreeMap<String, Proposal>,
    worked_out_at: u64,
    of_records: u64,
}

impl Advice {
    pub(super) fn recall(items: Vec<StoredItem>, feedback: Option<Value>) -> Self {
        let read = |item: StoredItem| serde_json::from_value::<Proposal>(item.body).ok();
        // What was open is worked out anew, of what is seen from now on.
        let answered = items.into_iter().filter_map(read).filter(|one| one.state != Standing::Open);
        let proposals = answered.map(|one| (one.id.clone(), one)).collect();
        let feedback = feedback.and_then(|value| {
            let read = serde_json::from_value(value);
            read.inspect_err(|error| log::warn!("what answers have taught cannot be read: {error}")).ok()
        });
        Self { feedback: feedback.unwrap_or_default(), proposals, ..Self::default() }
    }
}

impl Service {
    /// Suggestions in a state, the best first; worked out anew if they are old.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn suggestions(&self, state: Standing, top: usize) -> Result<Vec<Proposal>, Problem> {
        if state == Standing::Open {
            self.work_out()?;
        }
        let advice = lock(&self.advice);
        let mut found: Vec<Proposal> = advice.proposals.values().filter(|one| one.state == state).cloned().collect();
        found.sort_by(|a, b| b.suggestion.rank.total_cmp(&a.suggestion.rank).then_with(|| a.id.cmp(&b.id)));
        found.truncate(top);
        Ok(found)
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none.
    pub fn suggestion(&self, id: &str) -> Result<Proposal, Problem> {
        lock(&self.advice).proposals.get(id).cloned().ok_or_else(|| missing(id))
    }

    /// How good suggestions were so far.
    pub fn account(&self) -> Account {
        let advice = lock(&self.advice);
        Account { trust: advice.feedback.trusts(), calibration: advice.feedback.calibration() }
    }

    /// Puts a suggestion in force, as a generation of its own; advice is only noted.
    ///
    /// # Errors
    /// There is none of that id, it has its answer, or the policy has changed so that it does not fit any more.
    pub fn accept(
        &self,
        who: &Who,
        id: &str,
        reason: &str,
        confirm: Option<std::time::Duration>,
    ) -> Result<Proposal, Problem> {
        let mut desk = self.desk();
        let mut proposal = self.open_proposal(id)?;
        let context = suggest::context(&self.rulebook(&desk), &proposal.suggestion);
        let changes = changes(&desk, &proposal)?;
        let number = desk.number + 1;
        (proposal.state, proposal.by, proposal.reason) = (Standing::Accepted, who.name.clone(), reason.to_owned());
        proposal.generation = (!changes.is_empty()).then_some(number);
        proposal.context = Some(context.clone());
        let items = vec![(KIND, stored(&proposal))];
        let audit = vec![self.row(who, "accept", &format!("suggestion {id}"), json!({ "reason": reason }))];
        if changes.is_empty() {
            desk.store.write(&Writing { items, audit, ..Writing::default() })?;
        } else {
            let why = format!("suggestion {id}: {}", proposal.suggestion.reason);
            let commit = Commit { why, confirm, items, audit, ..Commit::default() };
            let _: Committed = self.make(&mut desk, who, &changes, commit)?;
        }
        self.learn_from(&desk, &proposal, &context, true)?;
        Ok(proposal)
    }

    /// Says no to a suggestion: it does not come again without new evidence.
    ///
    /// # Errors
    /// There is none of that id, or it has its answer.
    pub fn reject(&self, who: &Who, id: &str, reason: &str) -> Result<Proposal, Problem> {
        let desk = self.desk();
        let mut proposal = self.open_proposal(id)?;
        let context = suggest::context(&self.rulebook(&desk), &proposal.suggestion);
        (proposal.state, proposal.by, proposal.reason) = (Standing::Rejected, who.name.clone(), reason.to_owned());
        let items = vec![(KIND, stored(&proposal))];
        let audit = vec![self.row(who, "reject", &format!("suggestion {id}"), json!({ "reason": reason }))];
        desk.store.write(&Writing { items, audit, ..Writing::default() })?;
        self.learn_from(&desk, &proposal, &context, false)?;
        Ok(proposal)
    }

    fn open_proposal(&self, id: &str) -> Result<Proposal, Problem> {
        let proposal = self.suggestion(id)?;
        match proposal.state {
            Standing::Open => Ok(proposal),
            state => Err(Problem::Conflict(format!("suggestion {id} has its answer: {}", word(state)))),
        }
    }

    fn learn_from(&self, desk: &Desk, proposal: &Proposal, context: &Context, accepted: bool) -> Result<(), Problem> {
        let now = (self.clock)();
        let mut advice = lock(&self.advice);
        let answer = suggest::Answer { accepted, reason: proposal.reason.clone(), at: now };
        advice.feedback.answer(&proposal.suggestion, context, &answer);
        advice.proposals.insert(proposal.id.clone(), proposal.clone());
        // What is open was ranked and filtered before this answer.
        advice.worked_out_at = 0;
        let facts = vec![(FACT.to_owned(), now, serde_json::to_value(&advice.feedback).unwrap_or_default())];
        desk.store.write(&Writing { facts, ..Writing::default() })?;
        self.tell(KIND, json!({ "id": proposal.id, "state": proposal.state }));
        Ok(())
    }

    /// The policy went back: what was accepted since then was no good advice.
    pub(super) fn advice_returned(&self, desk: &Desk, gone: impl Fn(u32) -> bool) {
        let mut advice = lock(&self.advice);
        let gone = |one: &&mut Proposal| one.state == Standing::Accepted && one.generation.is_some_and(&gone);
        let mut returned = Vec::new();
        for proposal in advice.proposals.values_mut().filter(gone) {
            proposal.state = Standing::Returned;
            returned.push(proposal.clone());
        }
        if returned.is_empty() {
            return;
        }
        for proposal in &returned {
            if let Some(context) = &proposal.context {
                advice.feedback.aftermath(proposal.suggestion.kind, context, Aftermath::RolledBack);
            }
        }
        let items = returned.iter().map(|one| (KIND, stored(one))).collect();
        let facts = vec![(FACT.to_owned(), (self.clock)(), serde_json::to_value(&advice.feedback).unwrap_or_default())];
        if let Err(error) = desk.store.write(&Writing { items, facts, ..Writing::default() }) {
            log::warn!("what became of suggestions is not stored: {error}");
        }
    }

    fn work_out(&self) -> Result<(), Problem> {
        let now = (self.clock)();
        // One at a time; the others are content with what there is.
        let Ok(_working) = self.working.try_lock() else { return Ok(()) };
        let (traffic, records) = {
            let school = lock(&self.school);
            let advice = lock(&self.advice);
            let fresh = now.saturating_sub(advice.worked_out_at) < FRESH || advice.of_records == school.records;
            if fresh && advice.worked_out_at > 0 {
                return Ok(());
            }
            (school.traffic.clone(), school.records)
        };
        let book = self.rulebook(&self.desk());
        let feedback = lock(&self.advice).feedback.clone();
        let settings = Settings { now, top: MOST, ..Settings::default() };
        let found = suggest::suggest(&traffic, &book, &settings, &feedback);
        let store = self.store();
        let mut advice = lock(&self.advice);
        advice.proposals.retain(|_, one| one.state != Standing::Open);
        let mut items = Vec::new();
        for suggestion in found {
            let id = suggestion.id.clone();
            // Answered meanwhile.
            if advice.proposals.contains_key(&id) {
                continue;
            }
            let proposal = Proposal {
                id: id.clone(),
                state: Standing::Open,
                suggestion,
                by: String::new(),
                reason: String::new(),
                generation: None,
                context: None,
            };
            items.push((KIND, stored(&proposal)));
            advice.proposals.insert(id, proposal);
        }
        (advice.worked_out_at, advice.of_records) = (now, records);
        drop(advice);
        Ok(store.write(&Writing { items, ..Writing::default() })?)
    }

    fn rulebook(&self, desk: &Desk) -> Rulebook {
        Rulebook::of_book(&desk.ahead.book, &desk.ahead.derived, crate::rules::Decision::Deny)
    }
}

/// A suggestion in the terms of the book.
fn changes(desk: &Desk, proposal: &Proposal) -> Result<Vec<Change>, Problem> {
    let book = &desk.ahead.book;
    let written = |id: &str| match book.get(Kind::Relationship, id).map(|entry| &entry.noun) {
        Some(Noun::Relationship(it)) => Ok(it.clone()),
        _ => {
            let text = format!("rule `{id}` is not a relationship any more, or belongs to a learned policy or profile");
            Err(Problem::Conflict(text))
        }
    };
    let mut changes = Vec::new();
    match &proposal.suggestion.change {
        suggest::Change::Rules { remove, priorities, add } => {
            for id in remove {
                written(id)?;
                changes.push(Change::Remove(Name::new(Kind::Relationship, id)));
            }
            for order in priorities {
                let it = Relationship { priority: order.priority, ..written(&order.id)? };
                changes.push(Change::Put(Noun::Relationship(it)));
            }
            let origin = format!("suggestion {}", proposal.id);
            changes.extend(add.iter().map(|draft| Change::Put(Noun::Relationship(relationship(draft, &origin)))));
        }
        suggest::Change::Move { vm, add_tags, remove_tags, .. } => {
            let gone = || Problem::Conflict(format!("there is no VM `{vm}` any more"));
            let mut it = book.vm(vm).cloned().ok_or_else(gone)?;
            it.tags.retain(|tag| !remove_tags.contains(tag));
            it.tags.extend(add_tags.iter().cloned());
            changes.push(Change::Put(Noun::Vm(it)));
        }
        suggest::Change::Advice { .. } => {}
    }
    Ok(changes)
}

fn relationship(draft: &Draft, origin: &str) -> Relationship {
    let ends = |ends: &[Endpoint]| match ends {
        [] => Words::any(),
        ends => Words(ends.iter().map(Endpoint::text).collect()),
    };
    let range = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    Relationship {
        id: draft.id.clone(),
        from: ends(&draft.from),
        to: ends(&draft.to),
        protocol: draft.protocol.map(|number| Words::one(protocol_name(number))).unwrap_or_default(),
        ports: Words(draft.ports.iter().map(range).collect()),
        from_ports: Words::default(),
        icmp_type: draft.icmp_type,
        icmp_code: None,
        vlan: None,
        vni: None,
        action: draft.action,
        stateful: None,
        priority: draft.priority,
        tier: draft.tier,
        mode: Mode::Enforce,
        expires: draft.expires,
        origin: origin.to_owned(),
        comment: draft.comment.clone(),
    }
}

fn stored(proposal: &Proposal) -> StoredItem {
    let body = serde_json::to_value(proposal).unwrap_or(Value::Null);
    StoredItem { id: proposal.id.clone(), state: word(proposal.state), at: proposal.suggestion.evidence.last, body }
}

fn word(state: Standing) -> String {
    serde_json::to_value(state).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn missing(id: &str) -> Problem {
    Problem::Missing(format!("there is no suggestion `{id}`"))
}
