//! What was, and what is different.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Problem, Service, View};
use crate::policy::book::{Change, Kind};
use crate::store::StoredGeneration;

/// A generation.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Generation {
    pub number: u32,
    #[serde(with = "crate::policy::instant")]
    #[schema(value_type = String, format = DateTime)]
    pub at: u64,
    pub who: String,
    pub why: String,
    /// Things that changed.
    pub changes: u64,
    /// Generation that it went back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_to: Option<u32>,
    /// Until when it must be confirmed.
    #[serde(with = "crate::policy::instant::maybe", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub confirm_by: Option<u64>,
    /// It is the one in force.
    pub running: bool,
}

/// One thing that is different.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Difference {
    pub kind: Kind,
    pub name: String,
    /// Nothing: it was not there.
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// Nothing: it is not there any more.
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
}

impl Service {
    /// Generations before one, the newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn history(&self, before: Option<u32>, limit: usize) -> Result<Vec<Generation>, Problem> {
        let (store, running) = (self.store(), self.generation());
        let shown = |stored: StoredGeneration| Generation {
            number: stored.number,
            at: stored.at,
            who: stored.who,
            why: stored.why,
            changes: stored.changes,
            back_to: stored.back_to,
            confirm_by: stored.confirm_by,
            running: stored.number == running,
        };
        Ok(store.generations(before, limit)?.into_iter().map(shown).collect())
    }

    /// What the draft changes of the policy in force.
    pub fn draft_difference(&self) -> Vec<Difference> {
        let names: std::collections::BTreeSet<_> =
            self.draft().iter().map(|waiting| Change::name(&waiting.change)).collect();
        let shown = self.shown();
        let body = |view: View, kind: Kind, name: &str| shown.of(view).book.get(kind, name).map(|e| e.noun.body());
        let of = names.into_iter().map(|name| Difference {
            kind: name.kind,
            name: name.name.to_string(),
            before: body(View::Running, name.kind, &name.name),
            after: body(View::Draft, name.kind, &name.name),
        });
        of.filter(|difference| difference.before != difference.after).collect()
    }

    /// What is different between two generations.
    ///
    /// # Errors
    /// One of them is not there, or the store cannot be read.
    pub fn difference(&self, from: u32, to: u32) -> Result<Vec<Difference>, Problem> {
        let (store, newest) = (self.store(), self.generation());
        if let Some(missing) = [from, to].into_iter().find(|number| *number == 0 || *number > newest) {
            return Err(Problem::Missing(format!("there is no generation {missing}; the one in force is {newest}")));
        }
        let mut found = Vec::new();
        for (kind, name) in store.nouns_changed(from.min(to), from.max(to))? {
            let (before, after) = (store.noun_at(&kind, &name, from)?, store.noun_at(&kind, &name, to)?);
            if let Some(kind) = Kind::read(&kind).filter(|_| before != after) {
                found.push(Difference { kind, name, before, after });
            }
        }
        Ok(found)
    }
}
