//! The thread of the [keeper](super::keeper) that stores: what the scorer, trainings and persons want, one after the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use crossbeam::channel::Sender;
use serde_json::{Value, json};

use super::keeper::{Order, tell};
use super::library::{Library, Restored, UNSTORED, state};
use super::policy::PolicyNames;
use super::scoring::unix_nanoseconds;
use crate::behaviour::{Candidate, Failure, InUse, Job, News, Role, Scope, ScoredRecord, Scorer};
use crate::store::State;

/// What the office is asked for.
#[derive(Debug)]
pub(super) enum Ask {
    Job(Box<Job>),
    Trained(Box<Result<Candidate, Failure>>),
    News(Box<News>),
    /// `begun`: true as soon as it is being done, or who asked does not wait any more.
    Order {
        order: Order,
        begun: Arc<AtomicBool>,
        answer: Sender<Result<Vec<Value>>>,
    },
    /// No more jobs come.
    Close,
}

/// What the scorer is to do.
#[derive(Debug)]
pub(super) enum Tell {
    Settle {
        candidate: Box<Candidate>,
        id: u64,
    },
    /// No model comes of a training.
    Release(Scope),
    /// What becomes of the shadow of a pair of shadow and active model.
    Decide(Scope, (u64, u64), Role),
    Activate(Scope, InUse),
    Accompany(Scope, Option<InUse>),
    Train(Option<bool>),
}

impl Tell {
    pub(super) fn obey(self, scorer: &mut Scorer, out: &mut impl FnMut(ScoredRecord)) {
        match self {
            Tell::Settle { candidate, id } => scorer.settle(&candidate, id, out),
            Tell::Release(scope) => scorer.release(scope),
            Tell::Decide(scope, models, role) => scorer.decide(scope, models, role, out),
            Tell::Activate(scope, in_use) => scorer.activate(scope, in_use, out),
            Tell::Accompany(scope, in_use) => scorer.accompany(scope, in_use, out),
            Tell::Train(shadow) => scorer.want_training(shadow),
        }
    }
}

/// Models of a scope, once the scorer has done all that it was told; 0 for none.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    active: u64,
    shadow: u64,
}

impl Place {
    fn activate(&mut self, id: u64) {
        self.active = id;
        if self.shadow == id {
            self.shadow = 0;
        }
    }
}

pub(super) struct Office {
    library: Option<Library>,
    names: Arc<PolicyNames>,
    places: HashMap<Scope, Place>,
    /// Numbers that the store did not give.
    own: u64,
    tells: Sender<Tell>,
    jobs: Option<Sender<Job>>,
}

impl Office {
    pub(super) fn new(
        library: Option<Library>,
        names: Arc<PolicyNames>,
        restored: &[Restored],
        tells: Sender<Tell>,
        jobs: Sender<Job>,
    ) -> Self {
        let mut places = HashMap::<Scope, Place>::new();
        for Restored { scope, in_use, role } in restored {
            let place = places.entry(*scope).or_default();
            match role {
                Role::Active => place.active = in_use.id,
                _ => place.shadow = in_use.id,
            }
        }
        Self { library, names, places, own: 0, tells, jobs: Some(jobs) }
    }

    pub(super) fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Job(job) => {
                let scope = job.scope();
                if self.jobs.as_ref().is_none_or(|jobs| jobs.send(*job).is_err()) {
                    self.tell(Tell::Release(scope));
                }
            }
            Ask::Trained(outcome) => match *outcome {
                Ok(candidate) => self.settle(candidate),
                Err(failure) => self.release(failure),
            },
            Ask::News(news) => self.hear(&news),
            Ask::Order { order, begun, answer } => {
                // Who does not wait any more may have asked again.
                if !begun.swap(true, Ordering::AcqRel) {
                    let _ = answer.send(self.order(order));
                }
            }
            Ask::Close => self.jobs = None,
        }
    }

    /// The scorer may be gone.
    fn tell(&self, tell: Tell) {
        let _ = self.tells.send(tell);
    }

    fn place(&mut self, scope: Scope) -> &mut Place {
        self.places.entry(scope).or_default()
    }

    fn settle(&mut self, mut candidate: Candidate) {
        let (scope, active) = (candidate.scope, self.place(candidate.scope).active);
        if candidate.role() == Role::Active && active != candidate.against {
            candidate.objection = Some(format!("model {active} came in force while it was trained"));
        }
        let role = candidate.role();
        let stored = self.library.as_ref().map(|library| library.add(&candidate, &self.names, state(role)));
        let (candidate, id) = (Box::new(candidate), self.number(stored));
        match role {
            Role::Active => self.place(scope).activate(id),
            Role::Shadow => self.place(scope).shadow = id,
            Role::Rejected => {}
        }
        tell(&News::Trained { candidate: candidate.clone(), id }, &self.names);
        self.tell(Tell::Settle { candidate, id });
    }

    /// The store's number; where there is none, one that no stored model has.
    fn number(&mut self, stored: Option<Result<u64>>) -> u64 {
        let base = match stored {
            Some(Ok(id)) => return id,
            Some(Err(error)) => {
                log::warn!("a trained model is not stored, a restart will not know it: {error:#}");
                UNSTORED
            }
            None => 0,
        };
        self.own += 1;
        base + self.own
    }

    fn release(&mut self, failure: Failure) {
        let (scope, news) = (failure.scope, News::Failed(failure));
        tell(&news, &self.names);
        self.note(&news);
        self.tell(Tell::Release(scope));
    }

    fn note(&self, news: &News) -> bool {
        let noted = self.library.as_ref().map_or(Ok(None), |library| library.note(news, &self.names));
        noted.inspect_err(|error| log::warn!("what became of a model is not stored: {error:#}")).is_ok()
    }

    fn hear(&mut self, news: &News) {
        let News::Judged { scope, id, against, role, .. } = news else {
            tell(news, &self.names);
            self.note(news);
            return;
        };
        let Place { active, shadow } = *self.place(*scope);
        // A person or a training was first; the scorer will hear of it, or has heard already.
        let holds = (shadow, active) == (*id, *against);
        let role = if holds && self.note(news) { *role } else { Role::Shadow };
        let place = self.place(*scope);
        match role {
            Role::Active => place.activate(*id),
            Role::Rejected => place.shadow = 0,
            Role::Shadow => log::info!("shadow {id} is not judged by what it said beside model {against}"),
        }
        if role != Role::Shadow {
            tell(news, &self.names);
        }
        self.tell(Tell::Decide(*scope, (*id, *against), role));
    }

    fn order(&mut self, order: Order) -> Result<Vec<Value>> {
        if let Order::Train { shadow, who } = order {
            log::info!("a new model is asked for by {who}");
            self.tell(Tell::Train(shadow));
            return Ok(vec![json!({ "training": true })]);
        }
        let Some(library) = &self.library else {
            bail!("no models are stored: this gnomon runs with [store] enabled = false");
        };
        let (store, now) = (&library.store, unix_nanoseconds());
        match order {
            Order::Train { .. } => Ok(Vec::new()),
            Order::List => store.models()?.iter().map(|model| Ok(serde_json::to_value(model)?)).collect(),
            Order::Show { id } => {
                let mut model = serde_json::to_value(store.model(id)?)?;
                model["history"] = serde_json::to_value(store.model_events(id)?)?;
                Ok(vec![model])
            }
            Order::Promote { id, who, reason } => {
                let (about, in_use) = library.load(id)?;
                store.set_model_state(id, State::Active, now, &who, &reason)?;
                self.activate(&about.scope, in_use)
            }
            Order::Rollback { scope, who, reason } => {
                let active = store.models_in(State::Active)?.into_iter().find(|model| model.scope == scope);
                if let Some(former) = active.and_then(|model| model.replaces) {
                    // What cannot be read must not come in force.
                    library.load(former)?;
                }
                let id = store.roll_model_back(&scope, now, &who, &reason)?;
                let (_, in_use) = library.load(id)?;
                self.activate(&scope, in_use)
            }
            Order::Reject { id, who, reason } => self.reject(id, (now, &who, &reason)),
        }
    }

    fn activate(&mut self, scope: &str, in_use: InUse) -> Result<Vec<Value>> {
        let id = in_use.id;
        let known = self.known(scope);
        if let Some(scope) = known {
            self.place(scope).activate(id);
            self.tell(Tell::Activate(scope, in_use));
        }
        Ok(vec![json!({ "active": id, "scope": scope, "scores": known.is_some() })])
    }

    fn reject(&mut self, id: i64, (now, who, reason): (u64, &str, &str)) -> Result<Vec<Value>> {
        let Some(library) = &self.library else { return Ok(Vec::new()) };
        let about = library.store.model(id)?;
        if about.state == State::Active {
            bail!("model {id} is active: `gnomon model rollback` puts the one before it in its place");
        }
        library.store.set_model_state(id, State::Rejected, now, who, reason)?;
        if let Some(scope) = self.known(&about.scope).filter(|_| about.state == State::Shadow) {
            self.place(scope).shadow = 0;
            self.tell(Tell::Accompany(scope, None));
        }
        Ok(vec![json!({ "rejected": id })])
    }

    /// A scope that the scorer has models for.
    fn known(&self, scope: &str) -> Option<Scope> {
        self.library.as_ref()?.scope_of(scope, &self.names.labels)
    }
}
