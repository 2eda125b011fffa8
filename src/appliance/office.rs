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
    Trained(Box<Result<Candidate, Box<Failure>>>),
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

    fn release(&mut self, failure: Box<Failure>) {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use crossbeam::channel::{Receiver, bounded, unbounded};
    use rand_core::{Rng, SeedableRng};
    use rand_pcg::Pcg32;

    use super::super::keeper::hand_over;
    use super::*;
    use crate::appliance::{PolicyHost, Targets};
    use crate::behaviour::Member;
    use crate::config::Config;
    use crate::flow::FlowRecord;
    use crate::packet::Tuple;
    use crate::store::Store;

    const SECOND: u64 = 1_000_000_000;

    /// Office and scorer, with whatever is between them done when the test says so.
    struct Lab {
        office: Office,
        scorer: Scorer,
        asks: VecDeque<Ask>,
        told: Receiver<Tell>,
        work: Receiver<Job>,
        rng: Pcg32,
        now: u64,
        /// Proposals of the scorer that were refused.
        refused: usize,
        folder: tempfile::TempDir,
    }

    impl Lab {
        fn new(seed: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut config = Config::default_pair();
            let settings = &mut config.scorer;
            (settings.warmup_records, settings.trees, settings.sample) = (300, 8, 64);
            settings.members = [Member::Forest].into_iter().collect();
            (settings.retrain, settings.promote_after) = (Some(Duration::from_secs(900)), Some(300));
            settings.shadow = true;
            let names = PolicyHost::new(&config, Targets::ByPort, 0).unwrap().names().clone();
            let library = Library::new(Store::open(&folder.path().join("x.db")).unwrap(), &config);
            let ((tells, told), (jobs, work)) = (unbounded(), unbounded());
            let office = Office::new(Some(library), names, &[], tells, jobs);
            let (scorer, rng) = (Scorer::new(&config.scorer, 1).aside(), Pcg32::seed_from_u64(seed));
            Self { office, scorer, asks: VecDeque::new(), told, work, rng, now: SECOND, refused: 0, folder }
        }

        fn below(&mut self, n: u64) -> u64 {
            u64::from(self.rng.next_u32()) % n
        }

        fn records(&mut self, count: u64) {
            for _ in 0..count {
                self.now += SECOND;
                let packets = [1 + self.below(20), 1 + self.below(30)];
                let (src, size) = (0x0a00_0001 + u128::from(self.below(30)), 60 + self.below(900));
                let dst = 0x0a01_0001 + u128::from(self.below(5));
                let record = FlowRecord {
                    flow_id: self.now / SECOND,
                    tuple: Tuple { src, dst, dst_port: 443, protocol: 6, version: 4, ..Tuple::default() },
                    start: self.now - SECOND / 2,
                    end: self.now,
                    emitted: self.now,
                    packets,
                    bytes: packets.map(|packets| packets * size),
                    ..FlowRecord::default()
                };
                self.scorer.observe(record, &mut |_| ());
                self.scorer.drain_alerts();
            }
            hand_over(&mut self.scorer, |ask| self.asks.push_back(ask));
        }

        fn work_on_an_ask(&mut self) -> bool {
            self.asks.pop_front().map(|ask| self.office.take(ask)).is_some()
        }

        fn train(&mut self) -> bool {
            let trained = self.work.try_recv().map(|job| Ask::Trained(Box::new(job.run())));
            trained.map(|ask| self.asks.push_back(ask)).is_ok()
        }

        fn obey(&mut self) -> bool {
            let Ok(tell) = self.told.try_recv() else { return false };
            self.refused += usize::from(matches!(tell, Tell::Decide(_, _, Role::Shadow)));
            tell.obey(&mut self.scorer, &mut |_| ());
            true
        }

        /// A person wants something, whether it can be done or not.
        fn order(&mut self) {
            let models = self.store().models().unwrap().len() as u64;
            let (id, who, reason) = (1 + self.below(models.max(1)) as i64, "me".to_owned(), String::new());
            let order = match self.below(8) {
                0..=2 => Order::Promote { id, who, reason },
                3 => Order::Rollback { scope: "all".to_owned(), who, reason },
                4 => Order::Reject { id, who, reason },
                n => Order::Train { shadow: Some(n == 5), who },
            };
            self.asks.push_back(Ask::Order { order, begun: Arc::default(), answer: bounded(1).0 });
        }

        fn settle_all(&mut self) {
            while self.work_on_an_ask() || self.train() || self.obey() {
                hand_over(&mut self.scorer, |ask| self.asks.push_back(ask));
            }
        }

        fn store(&self) -> &Store {
            &self.office.library.as_ref().unwrap().store
        }

        fn stored(&self, state: State) -> u64 {
            self.store().models_in(state).unwrap().first().map_or(0, |model| model.id as u64)
        }
    }

    #[test]
    fn store_and_scorer_agree_whatever_happens_at_the_same_time() {
        let (mut judged, mut late, mut refused) = (0, 0, 0);
        for seed in 0..8 {
            let mut lab = Lab::new(seed);
            for step in 0..700 {
                match lab.below(9) {
                    0..=2 => lab.records(100),
                    3 | 4 => drop(lab.work_on_an_ask()),
                    5 => drop(lab.train()),
                    6 | 7 => drop(lab.obey()),
                    _ if lab.below(3) == 0 => lab.order(),
                    _ => {}
                }
                if step % 100 < 99 {
                    continue;
                }
                lab.settle_all();
                let stats = lab.scorer.stats();
                let stored = (lab.stored(State::Active), lab.stored(State::Shadow));
                assert_eq!((stats.model, stats.shadow), stored, "seed {seed}, step {step}");
            }
            let models = lab.store().models().unwrap();
            let events = models.iter().flat_map(|model| lab.store().model_events(model.id).unwrap());
            let reasons: Vec<String> = events.map(|event| event.reason).collect();
            judged += reasons.iter().filter(|reason| reason.contains("beside the active one it called")).count();
            late += reasons.iter().filter(|reason| reason.contains("came in force while it was trained")).count();
            refused += lab.refused;
        }
        assert!(judged > 0 && late > 0 && refused > 0, "{judged} judged, {late} late, {refused} refused");
    }

    #[test]
    fn a_person_who_was_first_is_not_overruled() {
        let mut lab = Lab::new(1);
        lab.records(400);
        lab.settle_all();
        while lab.scorer.stats().shadow == 0 {
            lab.records(100);
            lab.settle_all();
        }
        assert_eq!((lab.stored(State::Active), lab.stored(State::Shadow)), (1, 2));
        // The person's order waits in the queue when the scorer judges the shadow.
        let order = Order::Reject { id: 2, who: "me".to_owned(), reason: "noisy".to_owned() };
        lab.asks.push_back(Ask::Order { order, begun: Arc::default(), answer: bounded(1).0 });
        while lab.asks.len() < 2 {
            lab.records(100);
        }
        assert!(matches!(&lab.asks[1], Ask::News(news) if matches!(**news, News::Judged { id: 2, .. })));
        lab.settle_all();
        assert_eq!(lab.store().model(2).unwrap().state, State::Rejected);
        assert_eq!((lab.scorer.stats().model, lab.scorer.stats().shadow), (1, 0));
    }

    #[test]
    fn models_that_cannot_be_stored_score_and_take_no_numbers_of_others() {
        let mut lab = Lab::new(3);
        lab.records(400);
        lab.settle_all();
        assert_eq!(lab.stored(State::Active), 1);
        let path = lab.folder.path().join("x.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let rename = |from: &str, to: &str| {
            use sqlx::{Connection, Executor, SqliteConnection};
            runtime.block_on(async {
                let mut file = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
                file.execute(format!("ALTER TABLE {from} RENAME TO {to}").as_str()).await.unwrap();
                file.close().await.unwrap();
            });
        };
        rename("models", "away");
        // A shadow, and its promotion, of which the store hears nothing.
        while lab.scorer.stats().model == 1 {
            lab.records(100);
            lab.settle_all();
            assert!(lab.now < 100_000 * SECOND);
        }
        assert_eq!(lab.scorer.stats().model, UNSTORED + 1);
        rename("away", "models");
        while lab.scorer.stats().model > UNSTORED {
            lab.records(100);
            lab.settle_all();
            assert!(lab.now < 200_000 * SECOND);
        }
        assert_eq!((lab.scorer.stats().model, lab.stored(State::Active)), (2, 2));
        assert!(lab.store().model_events(UNSTORED as i64 + 1).unwrap().is_empty());
    }

    #[test]
    fn a_training_that_breaks_off_is_stored_and_others_follow() {
        let mut lab = Lab::new(5);
        let mut settings = Config::default_pair().scorer;
        (settings.warmup_records, settings.trees) = (300, usize::MAX);
        lab.scorer = Scorer::new(&settings, 1).aside();
        for id in 1..=2 {
            lab.records(400);
            lab.settle_all();
            let model = lab.store().model(id).unwrap();
            assert_eq!((model.state, model.records), (State::Rejected, 0));
            assert!(model.reason.starts_with("warm-up: the training broke off: "), "{}", model.reason);
            let library = lab.office.library.as_ref().unwrap();
            assert!(library.load(id).unwrap_err().to_string().contains(&format!("model {id} of ")));
        }
        assert_eq!((lab.scorer.stats().model, lab.scorer.stats().rejected), (0, 2));
    }
}
