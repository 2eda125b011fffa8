//! The keeper of models: trains them and stores them, on a thread that may wait, so that the scorer never does.
//!
//! ```text
//! scorer ── jobs, news ─► keeper ── rows ─► store
//!        ◄── models ─────   ▲
//!              control ─────┘ orders: train, promote, roll back, reject, list
//! ```
//! One thing after the other: a model that was promoted is in the store before it scores, and what the keeper says to the
//! scorer comes there in the order of the store.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use serde::Serialize;
use serde_json::{Value, json};

use super::library::{Library, Restored, scope_name, scope_of, state};
use super::policy::PolicyNames;
use super::scoring::unix_nanoseconds;
use crate::behaviour::{Candidate, Compared, InUse, Job, News, Role, Scope, Scorer};
use crate::config::Config;
use crate::store::{State, Store};

/// How long an order may take: a training may be in front of it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a person wants.
#[derive(Clone, Debug)]
pub enum Order {
    List,
    Show { id: i64 },
    Promote { id: i64, who: String, reason: String },
    Reject { id: i64, who: String, reason: String },
    Rollback { scope: String, who: String, reason: String },
    Train { shadow: Option<bool>, who: String },
}

#[derive(Debug)]
enum Ask {
    Job(Box<Job>),
    News(Box<News>),
    Order(Order, Sender<Result<Vec<Value>>>),
}

/// What the scorer is to do.
#[derive(Debug)]
pub enum Tell {
    Settle { candidate: Box<Candidate>, id: u64 },
    Activate(Scope, InUse),
    Accompany(Scope, Option<InUse>),
    Train(Option<bool>),
}

/// What of models changes all the time, as the scorer last told.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Board {
    /// Records kept for the next training, and how many it needs.
    pub kept: u64,
    pub needed: u64,
    pub scopes: Vec<BoardLine>,
}

/// One scope.
#[derive(Clone, Debug, Serialize)]
pub struct BoardLine {
    pub scope: String,
    pub active: u64,
    pub shadow: Option<u64>,
    pub compared: Option<Compared>,
}

/// Where others ask the keeper.
#[derive(Debug)]
pub struct Desk {
    asks: Mutex<Option<Sender<Ask>>>,
    board: Mutex<Board>,
}

impl Desk {
    /// Does what a person wants, and says what came of it.
    ///
    /// # Errors
    /// It cannot be done; why.
    pub fn order(&self, order: Order) -> Result<Vec<Value>> {
        let (answer, answered) = bounded(1);
        let gone = || anyhow!("the appliance stops");
        let asks = lock(&self.asks).clone().ok_or_else(gone)?;
        asks.send(Ask::Order(order, answer)).map_err(|_| gone())?;
        answered.recv_timeout(PATIENCE).map_err(|_| anyhow!("a training takes long; ask again"))?
    }

    /// What the scorer said lately.
    pub fn board(&self) -> Board {
        lock(&self.board).clone()
    }
}

/// The scorer's side.
#[derive(Debug)]
pub struct Keeper {
    asks: Sender<Ask>,
    tells: Receiver<Tell>,
    desk: Arc<Desk>,
    names: Arc<PolicyNames>,
    thread: Option<JoinHandle<()>>,
}

/// The thread's.
struct Office {
    library: Option<Library>,
    /// Numbers where there is no store.
    last: u64,
    names: Arc<PolicyNames>,
    tells: Sender<Tell>,
}

impl Keeper {
    /// Starts the thread, and returns with it what was stored: the scorer begins with that.
    ///
    /// # Errors
    /// The store cannot be used.
    pub fn start(config: &Config, names: &Arc<PolicyNames>) -> Result<(Self, Vec<Restored>)> {
        let (mut library, mut restored) = (None, Vec::new());
        if config.store.enabled {
            let path = super::library::store_path(config);
            let opened = Library::new(Store::open(&path)?, config);
            let (found, failed) = opened.restore(names)?;
            for error in failed {
                log::warn!("{error:#}; a new model is trained");
            }
            for Restored { scope, in_use, .. } in found.iter().filter(|found| found.role == Role::Active) {
                log::info!("model {} of {} scores {}", in_use.id, path.display(), scope_name(*scope, &names.labels));
            }
            (library, restored) = (Some(opened), found);
        }
        let ((asks, asked), (tells, told)) = (unbounded(), unbounded());
        let mut office = Office { library, last: 0, names: names.clone(), tells };
        let work = move || asked.iter().for_each(|ask| office.take(ask));
        let thread =
            thread::Builder::new().name("models".into()).spawn(work).context("starting the keeper of models")?;
        let desk = Arc::new(Desk { asks: Mutex::new(Some(asks.clone())), board: Mutex::default() });
        Ok((Self { asks, tells: told, desk, names: names.clone(), thread: Some(thread) }, restored))
    }

    pub fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    /// Hands over what the scorer has, and returns what it is to do. Never waits.
    pub fn exchange(&self, scorer: &mut Scorer) -> impl Iterator<Item = Tell> + use<'_> {
        while let Some(job) = scorer.take_job() {
            // A thread that is gone trains nothing: scoring goes on with what there is.
            let _ = self.asks.send(Ask::Job(Box::new(job)));
        }
        for news in scorer.drain_news() {
            tell(&news, &self.names);
            let _ = self.asks.send(Ask::News(Box::new(news)));
        }
        self.tells.try_iter()
    }

    /// Shows others how models stand now.
    pub fn show(&self, scorer: &Scorer) {
        let line = |(scope, active, shadow): (Scope, Option<&InUse>, Option<(&InUse, Compared)>)| BoardLine {
            scope: scope_name(scope, &self.names.labels),
            active: active.map_or(0, |in_use| in_use.id),
            shadow: shadow.as_ref().map(|(in_use, _)| in_use.id),
            compared: shadow.map(|(_, compared)| compared),
        };
        let (kept, needed) = scorer.kept();
        *lock(&self.desk.board) = Board { kept, needed, scopes: scorer.models().map(line).collect() };
    }
}

impl Drop for Keeper {
    /// What is being trained is finished and stored.
    fn drop(&mut self) {
        *lock(&self.desk.asks) = None;
        (self.asks, self.tells) = (unbounded().0, unbounded().1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Office {
    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Job(job) => self.train(*job),
            Ask::News(news) => {
                let noted = self.library.as_ref().map_or(Ok(None), |library| library.note(&news, &self.names));
                if let Err(error) = noted {
                    log::warn!("what became of a model is not stored: {error:#}");
                }
            }
            Ask::Order(order, answer) => {
                // Who asked may be gone.
                let _ = answer.send(self.order(order));
            }
        }
    }

    fn train(&mut self, job: Job) {
        let candidate = Box::new(job.run());
        let stored = self.library.as_ref().map(|library| library.add(&candidate, &self.names, state(candidate.role())));
        let id = match stored {
            Some(Ok(id)) => id,
            Some(Err(error)) => {
                log::warn!("a trained model is not stored, a restart will not know it: {error:#}");
                0
            }
            None => self.last + 1,
        };
        self.last = id;
        tell(&News::Trained { candidate: candidate.clone(), id }, &self.names);
        let _ = self.tells.send(Tell::Settle { candidate, id });
    }

    fn order(&mut self, order: Order) -> Result<Vec<Value>> {
        if let Order::Train { shadow, who } = order {
            log::info!("a new model is asked for by {who}");
            let _ = self.tells.send(Tell::Train(shadow));
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
                self.activate(&scope, library.load(id)?.1)
            }
            Order::Reject { id, who, reason } => {
                let about = store.model(id)?;
                if about.state == State::Active {
                    bail!("model {id} is active: `gnomon model rollback` puts the one before it in its place");
                }
                store.set_model_state(id, State::Rejected, now, &who, &reason)?;
                if let Some(scope) = scope_of(&about.scope, &self.names.labels).filter(|_| about.state == State::Shadow)
                {
                    let _ = self.tells.send(Tell::Accompany(scope, None));
                }
                Ok(vec![json!({ "rejected": id })])
            }
        }
    }

    fn activate(&self, scope: &str, in_use: InUse) -> Result<Vec<Value>> {
        let id = in_use.id;
        let known = scope_of(scope, &self.names.labels);
        if let Some(scope) = known {
            let _ = self.tells.send(Tell::Activate(scope, in_use));
        }
        Ok(vec![json!({ "active": id, "scope": scope, "scores": known.is_some() })])
    }
}

/// Says what happened in the log.
pub fn tell(news: &News, names: &PolicyNames) {
    let scope = |scope: &Scope| scope_name(*scope, &names.labels);
    match news {
        News::Trained { candidate, id } => {
            let (of, cause) = (scope(&candidate.scope), candidate.cause.name());
            match &candidate.objection {
                Some(objection) => log::warn!("model {id} for {of} ({cause}) is rejected: {objection}"),
                None => log::info!("model {id} for {of} ({cause}) learnt from {} records", candidate.records),
            }
        }
        News::Drift { scope: of, model, change, .. } => log::warn!(
            "drift: the mean score of {} by model {model} is {:.3}, was {:.3}",
            scope(of),
            change.after,
            change.before
        ),
        News::Judged { id, role: Role::Active, reason, .. } => log::info!("model {id} is promoted: {reason}"),
        News::Judged { id, reason, .. } => log::warn!("model {id} is rejected: {reason}"),
    }
}

/// Nothing is left half-changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
