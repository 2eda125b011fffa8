//! The policy service of a running appliance: its data plane, its thread, the flow records that it learns from.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::policy::{PolicyHost, PolicyNames};
use super::scoring::unix_nanoseconds;
use crate::behaviour::ScoredRecord;
use crate::config::Config;
use crate::control::Live;
use crate::filter::{Field, Fields, Value};
use crate::policy::book::{Delta, Derived, Noun, files};
use crate::policy::service::{Plane, Problem, Service, TICK, Who};
use crate::store::Store;

/// Records that wait for the service; of more, it learns nothing.
const FEED: usize = 65_536;
/// Records that are taken at once.
const BATCH: usize = 1024;

/// The workers, as the service sees them.
#[derive(Clone, Debug)]
pub(super) struct HostPlane {
    host: Arc<Mutex<PolicyHost>>,
    /// What the next generation is to take over beside groups and rules.
    config: Arc<Mutex<Option<Box<Config>>>>,
    live: Arc<Mutex<Option<Arc<Live>>>>,
}

impl HostPlane {
    pub(super) fn new(host: Arc<Mutex<PolicyHost>>) -> Self {
        Self { host, config: Arc::default(), live: Arc::default() }
    }

    /// Who is told of generations.
    pub(super) fn attach(&self, live: Arc<Live>) {
        *lock(&self.live) = Some(live);
    }
}

impl Plane for HostPlane {
    fn prepare(&mut self, derived: &Derived, delta: &Delta, generation: u32) -> Result<(), String> {
        let mut host = lock(&self.host);
        let prepared = match &*lock(&self.config) {
            Some(config) => host.prepare_with(config, derived, generation),
            None => host.prepare(derived, delta, generation),
        };
        prepared.map_err(|error| error.to_string())
    }

    fn publish(&mut self) -> Result<(), String> {
        let published = lock(&self.host).publish_prepared(unix_nanoseconds()).map_err(|error| error.to_string())?;
        if let (Some(number), Some(live)) = (published, &*lock(&self.live)) {
            live.generation.store(number, Ordering::Relaxed);
            live.taps.rebind();
        }
        Ok(())
    }

    fn abandon(&mut self, derived: &Derived) {
        if let Err(error) = lock(&self.host).abandon(derived) {
            log::error!("the rules in force do not compile again: {error}");
        }
    }

    fn reports(&mut self) -> Vec<u32> {
        lock(&self.host).reclaim()
    }
}

/// Where the scorer leaves records for the service; never waits.
#[derive(Clone, Debug)]
pub struct Feed {
    records: Sender<ScoredRecord>,
    lost: Arc<AtomicU64>,
}

impl Feed {
    pub(super) fn give(&self, record: &ScoredRecord) {
        if self.records.try_send(*record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The service with its thread; stops when dropped.
#[derive(Debug)]
pub struct Clerk {
    service: Arc<Service>,
    plane: HostPlane,
    feed: Feed,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clerk {
    /// Opens the store and takes up its policy; into an empty one goes what the configuration says.
    ///
    /// # Errors
    /// The store cannot be used, or its policy does not compile.
    pub(super) fn start(config: &Config, host: Arc<Mutex<PolicyHost>>, store: Store) -> Result<Self> {
        let names = lock(&host).names().clone();
        let plane = HostPlane::new(host);
        let first = imported(config)?;
        let service = Service::open(Arc::new(store), Box::new(plane.clone()), || first, unix_nanoseconds)?;
        let service = Arc::new(service);
        let ((records, inlet), lost, stop) = (bounded(FEED), Arc::default(), Arc::default());
        let thread = {
            let (service, stop) = (service.clone(), Arc::clone(&stop));
            let work = move || follow(&service, &names, &inlet, &stop);
            thread::Builder::new().name("policy".into()).spawn(work).context("starting the policy thread")?
        };
        Ok(Self { service, plane, feed: Feed { records, lost }, stop, thread: Some(thread) })
    }

    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    pub(super) fn feed(&self) -> Feed {
        self.feed.clone()
    }

    pub(super) fn attach(&self, live: Arc<Live>) {
        self.plane.attach(live);
    }

    /// Records that the service was too busy for.
    pub fn lost(&self) -> u64 {
        self.feed.lost.load(Ordering::Relaxed)
    }

    /// A generation with what another configuration says beside groups and rules.
    pub(super) fn reconfigure(&self, config: &Config) -> Result<u32, Problem> {
        *lock(&self.plane.config) = Some(Box::new(config.clone()));
        let renewed = self.service.renew(&Who::gnomon(), "the configuration was read again");
        *lock(&self.plane.config) = None;
        renewed
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes records and time until told to stop.
fn follow(service: &Service, names: &PolicyNames, inlet: &Receiver<ScoredRecord>, stop: &AtomicBool) {
    let mut batch = Vec::with_capacity(BATCH);
    while !stop.load(Ordering::Relaxed) {
        match inlet.recv_timeout(TICK) {
            Ok(first) => batch.push(first),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        batch.extend(inlet.try_iter().take(BATCH - 1));
        service.observe(batch.iter().map(|scored| Named::of(scored, names)));
        batch.clear();
        if let Err(error) = service.tick() {
            log::warn!("the policy service: {error}");
        }
    }
    batch.extend(inlet.try_iter());
    service.observe(batch.iter().map(|scored| Named::of(scored, names)));
    if let Err(error) = service.close() {
        log::warn!("what was learnt last is not stored: {error}");
    }
}

/// A record with names in the place of numbers.
struct Named<'r> {
    scored: &'r ScoredRecord,
    /// Of source and destination.
    groups: [Arc<[Arc<str>]>; 2],
    rule: Arc<str>,
}

impl<'r> Named<'r> {
    fn of(scored: &'r ScoredRecord, names: &PolicyNames) -> Self {
        let (record, labels) = (&scored.record, &names.labels);
        let groups = [record.src_groups, record.dst_groups].map(|set| labels.groups(set));
        Self { scored, groups, rule: labels.rule(record.rule) }
    }
}

impl Fields for Named<'_> {
    fn value(&self, field: Field) -> Value<'_> {
        match field {
            Field::SourceGroups => Value::Words(&self.groups[0]),
            Field::DestinationGroups => Value::Words(&self.groups[1]),
            Field::Rule => Value::Text(&self.rule),
            Field::Score => self.scored.score.map_or(Value::Absent, |score| Value::Real(score.into())),
            Field::Flags => Value::Number(self.scored.flags.bits().into()),
            other => self.scored.record.value(other),
        }
    }
}

/// What a configuration says of VMs, groups and rules.
///
/// # Errors
/// A rule has a condition that the policy service does not know.
pub fn imported(config: &Config) -> Result<Vec<Noun>> {
    let Some(source) = &config.source else { return Ok(Vec::new()) };
    files::of_configuration(source, &config.policy).context("taking the configuration's rules into the policy store")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
