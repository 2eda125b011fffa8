//! The keeper of models: has them trained and stores them, on threads that may wait, so that the scorer never does.
//!
//! ```text
//! scorer ── jobs, news ─► office ── rows ─► store
//!        ◄── models ────   ▲  └── jobs ─► training
//!                          ├──── models ────┘
//!              control ────┘ orders: train, promote, roll back, reject, list
//! ```
//! The [office](super::office) does one thing after the other: a model that was promoted is in the store before it
//! scores, and what the scorer is told comes there in the order of the store. What the scorer finds of a shadow is a
//! proposal; it is refused when a person was first. Trainings have a thread of their own: nobody waits for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use serde::Serialize;
use serde_json::Value;

use super::library::{Library, Restored, scope_name};
use super::office::{Ask, Office, Tell};
use super::policy::PolicyNames;
use crate::behaviour::{Compared, InUse, Job, News, Role, Scope, ScoredRecord, Scorer};
use crate::config::Config;
use crate::store::Store;

/// How long an order may take: the store waits for other processes for less.
const PATIENCE: Duration = Duration::from_secs(30);

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
    /// It cannot be done; why, and whether it will be done later.
    pub fn order(&self, order: Order) -> Result<Vec<Value>> {
        self.order_within(order, PATIENCE)
    }

    fn order_within(&self, order: Order, patience: Duration) -> Result<Vec<Value>> {
        let asks = lock(&self.asks).clone().ok_or_else(|| anyhow!("the appliance stops"))?;
        let died = || anyhow!("the keeper of models has ended with an error; restart gnomon: its log has more");
        let ((answer, answered), begun) = (bounded(1), Arc::new(AtomicBool::new(false)));
        asks.send(Ask::Order { order, begun: begun.clone(), answer }).map_err(|_| died())?;
        match answered.recv_timeout(patience) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(died()),
            // Who is first decides: what has not begun now is never done.
            Err(RecvTimeoutError::Timeout) if begun.swap(true, Ordering::AcqRel) => {
                Err(anyhow!("the store takes long; `gnomon model list` will show whether it was done"))
            }
            Err(RecvTimeoutError::Timeout) => Err(anyhow!("the store takes long; nothing was done, ask again")),
        }
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
    /// Office and training.
    threads: Vec<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the threads, and returns with them what was stored: the scorer begins with that.
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
        let ((asks, asked), (tells, told), (jobs, work)) = (unbounded(), unbounded(), unbounded::<Job>());
        let mut office = Office::new(library, names.clone(), &restored, tells, jobs);
        let trained = asks.clone();
        let train = move || {
            for job in work {
                // An office that is gone needs no models.
                let _ = trained.send(Ask::Trained(Box::new(job.run())));
            }
        };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.into()).spawn(work).context("starting the keeper of models")
        };
        let threads = vec![
            spawn("training", Box::new(train))?,
            spawn("models", Box::new(move || asked.iter().for_each(|ask| office.take(ask))))?,
        ];
        let desk = Arc::new(Desk { asks: Mutex::new(Some(asks.clone())), board: Mutex::default() });
        Ok((Self { asks, tells: told, desk, names: names.clone(), threads }, restored))
    }

    pub fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    /// Hands over what the scorer has, and does what it is told. Never waits.
    pub fn exchange(&self, scorer: &mut Scorer, out: &mut impl FnMut(ScoredRecord)) {
        hand_over(scorer, |ask| {
            // A thread that is gone trains nothing: scoring goes on with what there is.
            let _ = self.asks.send(ask);
        });
        self.tells.try_iter().for_each(|tell| tell.obey(scorer, out));
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
    /// What is to be trained is finished and stored.
    fn drop(&mut self) {
        *lock(&self.desk.asks) = None;
        let _ = self.asks.send(Ask::Close);
        (self.asks, self.tells) = (unbounded().0, unbounded().1);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// News come first: they are older than jobs.
pub(super) fn hand_over(scorer: &mut Scorer, mut to: impl FnMut(Ask)) {
    scorer.drain_news().for_each(|news| to(Ask::News(Box::new(news))));
    while let Some(job) = scorer.take_job() {
        to(Ask::Job(Box::new(job)));
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
        News::Failed(failure) => {
            let (of, cause) = (scope(&failure.scope), failure.cause.name());
            log::error!("no model for {of} ({cause}), the one before it goes on: {}", failure.reason);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::appliance::{PolicyHost, Targets};

    #[test]
    fn what_nobody_waits_for_is_not_done_later() {
        let names = PolicyHost::new(&Config::default_pair(), Targets::ByPort, 0).unwrap().names().clone();
        let ((asks, asked), (tells, told), (jobs, _work)) = (unbounded(), unbounded(), unbounded());
        let mut office = Office::new(None, names, &[], tells, jobs);
        let desk = Desk { asks: Mutex::new(Some(asks)), board: Mutex::default() };
        let train = || Order::Train { shadow: None, who: "me".to_owned() };
        let late = desk.order_within(train(), Duration::from_millis(1)).unwrap_err();
        assert!(late.to_string().contains("nothing was done, ask again"), "{late}");
        office.take(asked.recv().unwrap());
        assert!(told.try_recv().is_err(), "given up, so not done");
        let (answer, told) = thread::scope(|scope| {
            let asking = scope.spawn(|| desk.order(train()));
            office.take(asked.recv().unwrap());
            (asking.join().unwrap(), told.try_recv())
        });
        assert_eq!(answer.unwrap().len(), 1);
        assert!(matches!(told, Ok(Tell::Train(None))));
        // A thread that is gone is something else than one that is slow.
        drop(asked);
        let gone = desk.order(train()).unwrap_err();
        assert!(gone.to_string().contains("has ended with an error"), "{gone}");
        *lock(&desk.asks) = None;
        assert!(desk.order(train()).unwrap_err().to_string().contains("the appliance stops"));
    }
}
