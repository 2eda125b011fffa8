//! The appliance on live ports: opens them, launches workers and scorer, watches, reloads, stops.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use crossbeam::queue::ArrayQueue;

use super::adaptation::Adaptation;
use super::clerk::Clerk;
use super::health::Health;
use super::keeper::Keeper;
use super::library::{Restored, store_path};
use super::merge::{RecordMerge, RecordOrder, observation_rings};
use super::metrics::serve_metrics;
use super::neighbours::Neighbours;
use super::observed::Observed;
use super::policy::{PolicyHost, PolicyNames, Targets};
use super::pools::Pools;
use super::ports::{LivePort, PortWatch, WorkerIo, warn_of_mtu, wire};
use super::recent::Recent;
use super::scoring::{Models, Scored, Scoring, unix_nanoseconds};
use super::totals::Summary;
use crate::config::{self, Config};
use crate::control::{Live, PortView};
use crate::dpdk::{Clock, Eal, EalOptions, RunningLcore};
use crate::export::{Collectors, Exports, Files};
use crate::flow::{FlowRecord, FlowTable};
use crate::metrics::MetricsServer;
use crate::packet::Fragments;
use crate::policy::service::Service;
use crate::store::Store;
use crate::taps::TapHost;
use crate::worker::{Honeypot, Mailbox, Observation, Timing, Watch, WhenFull, Worker, WorkerCounters, WorkerParts};

/// A running appliance.
#[derive(Debug)]
pub struct Appliance {
    config: Config,
    workers: Vec<RunningLcore<Worker>>,
    neighbours: Option<Neighbours>,
    scoring: Option<JoinHandle<Result<Scored>>>,
    metrics: Option<MetricsServer>,
    shared: Shared,
    live: Arc<Live>,
    clerk: Option<Clerk>,
    // Readers live in the workers, so this goes after them.
    host: Arc<Mutex<PolicyHost>>,
    ports: Vec<LivePort>,
    watch: PortWatch,
    // Last: everything above lives in their memory.
    pools: Pools,
    eal: Arc<Eal>,
    /// For workers that are not launched yet.
    watches: Vec<Watch>,
}

/// What a stopped appliance leaves behind.
#[derive(Debug)]
pub struct Finished {
    pub summary: Summary,
    pub scored: Scored,
    pub names: Arc<PolicyNames>,
    folder: PathBuf,
}

impl Finished {
    /// Writes `summary.json` into the export folder and returns its path.
    pub fn write_summary(&self) -> Result<PathBuf> {
        self.summary.write(&self.folder)
    }
}

#[derive(Debug)]
struct Shared {
    counters: Vec<Arc<WorkerCounters>>,
    records: Vec<Arc<ArrayQueue<FlowRecord>>>,
    /// None when nobody scores.
    observations: Vec<Arc<ArrayQueue<Observation>>>,
    recent: Arc<Recent>,
    stop: Arc<AtomicBool>,
    /// A worker or consumer died.
    abort: Arc<AtomicBool>,
}

/// How long workers may take to adopt a new generation before it is said that they have not.
const ADOPT_WITHIN: Duration = Duration::from_secs(2);

/// EAL options of a live run: lcore 0 is the main core, the rest are workers.
pub fn eal_options(config: &Config) -> EalOptions {
    let mut lcores = vec![vec![config.cores.main]];
    lcores.extend(config.cores.workers.iter().map(|cpu| vec![*cpu]));
    EalOptions {
        lcores,
        hugepages: config.eal.hugepages,
        memory_mb: config.eal.memory_mb,
        file_prefix: config.eal.file_prefix.clone(),
        pci_allow: pci_devices(config),
    }
}

/// Outputs are in port order.
fn honeypots(config: &Config) -> Vec<Honeypot> {
    let place = |honeypot: &config::Honeypot| Some(Honeypot { output: honeypot.port?, mac: honeypot.mac });
    config.honeypots.iter().filter_map(place).collect()
}

/// The PCI devices that DPDK may probe, each with the arguments that its port gives; those of the ports when the
/// configuration names none.
fn pci_devices(config: &Config) -> Vec<String> {
    let devices = config.ports.iter().map(|port| &port.device);
    let of_ports = devices.filter(|device| !device.starts_with("net_") && !device.starts_with("eth_"));
    if config.eal.pci_allow.is_empty() {
        return of_ports.cloned().collect();
    }
    let with_arguments = |address: &String| {
        of_ports.clone().find(|device| device.split(',').next() == Some(address)).unwrap_or(address).clone()
    };
    config.eal.pci_allow.iter().map(with_arguments).collect()
}

impl Appliance {
    /// Starts everything. A failure is fatal and gives back what was taken.
    pub fn start(config: Config) -> Result<Self> {
        config.require_ports().map_err(|reason| anyhow!(reason))?;
        let eal = Arc::new(Eal::start(&eal_options(&config))?);
        let pools = Pools::new(&eal, config.eal.mbufs)?;
        Self::start_on(eal, pools, config)
    }

    /// As [`Appliance::start`], on an EAL and pools that exist; the EAL needs a free lcore for each worker.
    pub fn start_on(eal: Arc<Eal>, pools: Pools, config: Config) -> Result<Self> {
        let (host, clerk) = start_policy(&config)?;
        let ports = LivePort::open_all(&eal, &config, &pools)?;
        warn_of_mtu(&config, &ports);
        let (shared, watch) = (Shared::new(&config), PortWatch::default());
        let (io, unpaired) = wire(&eal, &ports, config.cores.workers.len(), &shared.abort, &watch.strays)?;
        let files = Files::append(&config.export)?;
        let collectors = Collectors::start(&config.ipfix, lock(&host).names(), false)?;
        let adaptation = config.adaptive.as_ref().map(|settings| Adaptation::new(settings, &shared.counters, false));
        let mut adaptation = adaptation.transpose()?;
        let look = |_| {
            adaptation
                .as_mut()
                .map_or_else(Watch::default, |adaptation| Watch::new(adaptation.reader()).diverting(honeypots(&config)))
        };
        let watches = (0..shared.counters.len()).map(look).collect();
        let watchers = adaptation.as_ref().map(Adaptation::watchers);
        // Before anything runs: a store that cannot be used is said at once.
        let names = lock(&host).names().clone();
        let kept = config.scorer.enabled.then(|| Keeper::start(&config, &names)).transpose()?;
        let models = kept.as_ref().map(|(keeper, _)| keeper.desk());
        let live = Arc::new(Live { watchers, models, ..shared.live(&config, &lock(&host), &ports, &files) });
        if let Some(clerk) = &clerk {
            clerk.attach(live.clone());
        }
        let observed = Arc::new(Observed {
            live: live.clone(),
            devices: ports.iter().map(|live| live.port.clone()).collect(),
            pools: pools.clone(),
            collectors: collectors.counters(),
        });
        let metrics = config.metrics.listen.map(|listen| serve_metrics(listen, observed.clone())).transpose()?;
        let health = Health::new(&config, observed);
        let exports = Exports { files, collectors };
        let scoring = shared.scoring(&config, &lock(&host), exports, health).adapting(adaptation);
        let scoring = scoring.feeding(clerk.as_ref().map(Clerk::feed));
        let scoring = Some(start_scoring(scoring, kept, config.cores.scorer)?);
        let (mailbox, packets) = (live.mailboxes.first().cloned().unwrap_or_default(), pools.packets.clone());
        let neighbours = Some(Neighbours::start(unpaired, lock(&host).hops().clone(), mailbox, packets)?);
        let mut appliance = Self {
            config,
            workers: Vec::new(),
            neighbours,
            scoring,
            metrics,
            shared,
            live,
            clerk,
            host,
            ports,
            watch,
            pools,
            eal,
            watches,
        };
        appliance.launch(io)?;
        Ok(appliance)
    }

    /// Looks after what workers must not do themselves: link states, freeing replaced generations. Call it
    /// a few times a second. An error means that the appliance cannot go on.
    pub fn tend(&mut self) -> Result<()> {
        if self.shared.abort.load(Ordering::Relaxed) {
            bail!("a worker or the scorer stopped unexpectedly");
        }
        self.watch.look_at(&self.ports);
        lock(&self.host).reclaim();
        self.live.taps.tend();
        Ok(())
    }

    /// Puts a new configuration's groups, rules and mirrors in force without losing a packet. On error
    /// the old ones stay.
    pub fn reload(&mut self, config: Config) -> Result<u32> {
        let fixed = self.unchangeable(&config);
        if !fixed.is_empty() {
            bail!("{} cannot change while running: restart to apply; nothing was changed", fixed.join(", "));
        }
        let number = match &self.clerk {
            Some(clerk) => clerk.reconfigure(&config)?,
            None => lock(&self.host).replace(&config, unix_nanoseconds())?,
        };
        warn_of_mtu(&config, &self.ports);
        self.live.generation.store(number, Ordering::Relaxed);
        self.live.taps.rebind();
        if let (Some(watchers), Some(settings)) = (&self.live.watchers, &config.adaptive) {
            watchers.lock().reconfigure(settings);
        }
        self.config = config;
        let deadline = Instant::now() + ADOPT_WITHIN;
        while lock(&self.host).reclaim().iter().any(|generation| *generation < number) {
            if Instant::now() > deadline {
                log::warn!("generation {number} is published, but not every worker has reported it yet");
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(number)
    }

    /// Counters now.
    pub fn summary(&self) -> Summary {
        self.live.summary()
    }

    /// The view of other threads.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Who keeps the policy, if not the configuration.
    pub fn policy_service(&self) -> Option<&Arc<Service>> {
        self.clerk.as_ref().map(Clerk::service)
    }

    /// Where metrics are served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    pub fn ports(&self) -> &[LivePort] {
        &self.ports
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Ordered stop: workers finish and hand out their records, the scorer finishes, ports close.
    pub fn stop(mut self) -> Result<Finished> {
        let failure = self.halt();
        let scored = match self.scoring.take() {
            Some(handle) => handle.join().unwrap_or_else(|_| Err(anyhow!("the scorer panicked")))?,
            None => bail!("the scorer was already stopped"),
        };
        if let Some(message) = failure {
            bail!("a worker failed: {message}");
        }
        let mut summary = self.summary();
        summary.alerts = scored.alerts.clone();
        summary.ipfix = scored.collectors.clone();
        let (names, folder) = (lock(&self.host).names().clone(), self.config.export.directory.clone());
        Ok(Finished { summary, scored, names, folder })
    }

    fn launch(&mut self, io: Vec<WorkerIo>) -> Result<()> {
        for (id, io) in io.into_iter().enumerate() {
            let mut worker = Worker::new(self.worker_parts(id, io));
            let lcore = self.eal.take_lcore().ok_or_else(|| anyhow!("no lcore left for worker {id}"))?;
            self.workers.push(lcore.launch(move || {
                worker.prefault();
                worker.run();
                worker
            })?);
        }
        Ok(())
    }

    fn worker_parts(&mut self, id: usize, io: WorkerIo) -> WorkerParts {
        let config = &self.config;
        // Senders do not know it, so they cannot make flows that collide; it decides nothing that is seen outside.
        let secret = RandomState::new().hash_one(id);
        WorkerParts {
            id,
            workers: config.cores.workers.len(),
            lanes: io.lanes,
            outputs: io.outputs,
            generation: lock(&self.host).reader(),
            table: FlowTable::new(config.flow.capacity, &config.flow.timeouts, config.seed)
                .with_tcp(config.flow.tcp)
                .with_secret(secret),
            fragments: Fragments::new(config.limits.fragments, config.flow.timeouts.fragments.as_nanos() as u64),
            key_from: config.flow.key_from,
            timing: Timing::Live(Clock::start()),
            clones: self.pools.clones.clone(),
            fronts: self.pools.fronts.clone(),
            packets: self.pools.packets.clone(),
            records: self.shared.records[id].clone(),
            notes: None,
            observations: self.shared.observations.get(id).cloned(),
            taps: Some(self.live.taps.reader()),
            watch: std::mem::take(&mut self.watches[id]),
            when_full: WhenFull::Drop,
            counters: self.shared.counters[id].clone(),
            mailbox: self.live.mailboxes[id].clone(),
            stop: self.shared.stop.clone(),
            abort: self.shared.abort.clone(),
            seed: config.seed,
        }
    }

    /// Stops the workers; returns the first failure among them.
    fn halt(&mut self) -> Option<String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.neighbours = None;
        let mut failure = None;
        for running in self.workers.drain(..) {
            let (lcore, outcome) = running.join();
            self.eal.return_lcore(lcore);
            failure = failure.or(outcome.err());
        }
        if failure.is_some() {
            self.shared.abort.store(true, Ordering::Relaxed);
        }
        failure
    }

    /// Sections that a reload would have to change and cannot.
    fn unchangeable(&self, next: &Config) -> Vec<&'static str> {
        let now = &self.config;
        let usual = |config: &Config| {
            let detect = config::Detect { exceptions: Vec::new(), ..config.scorer.detect.clone() };
            config::Scorer { detect, ..config.scorer.clone() }
        };
        let sections = [
            ("[cores]", now.cores == next.cores),
            ("[eal]", now.eal == next.eal),
            ("[[port]]", now.ports == next.ports),
            ("[[pair]]", now.pairs == next.pairs),
            ("[flow]", now.flow == next.flow),
            ("[scorer]", usual(now) == usual(next)),
            ("[[detect]]", now.scorer.detect.exceptions == next.scorer.detect.exceptions),
            ("[store]", now.store == next.store),
            ("[api]", now.api == next.api),
            ("[export]", now.export == next.export),
            ("[control]", now.control == next.control),
            ("[[ipfix]]", now.ipfix == next.ipfix),
            ("[metrics]", now.metrics == next.metrics),
            ("[limits]", now.limits == next.limits),
            ("seed", now.seed == next.seed),
            ("[[honeypot]]", now.honeypots == next.honeypots),
            ("whether anything adapts", now.adaptive.is_some() == next.adaptive.is_some()),
        ];
        sections.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        // Also on the way out of an error or panic: nobody may poll a port that is about to close.
        self.halt();
        if let Some(handle) = self.scoring.take() {
            self.shared.abort.store(true, Ordering::Relaxed);
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn new(config: &Config) -> Self {
        let workers = config.cores.workers.len();
        Self {
            counters: (0..workers).map(|_| Arc::new(WorkerCounters::new(config.limits.rules))).collect(),
            records: (0..workers).map(|_| Arc::new(ArrayQueue::new(config.scorer.ring))).collect(),
            observations: observation_rings(config, workers),
            recent: Arc::default(),
            stop: Arc::new(AtomicBool::new(false)),
            abort: Arc::new(AtomicBool::new(false)),
        }
    }

    fn live(&self, config: &Config, host: &PolicyHost, ports: &[LivePort], files: &Files) -> Live {
        let view = |(port, live): (&config::Port, &LivePort)| PortView {
            name: port.name.clone(),
            device: port.device.clone(),
            paired_with: live.paired_with.map(|other| config.ports[other].name.clone()),
            up: live.up.clone(),
        };
        let port_names = config.ports.iter().map(|port| port.name.clone()).collect();
        Live {
            taps: TapHost::new(host.names().clone(), port_names, self.counters.len()),
            names: host.names().clone(),
            hops: host.hops().clone(),
            counters: self.counters.clone(),
            mailboxes: self.counters.iter().map(|_| Arc::new(Mailbox::default())).collect(),
            capacity: config.flow.capacity,
            recent: self.recent.clone(),
            ports: config.ports.iter().zip(ports).map(view).collect(),
            started: Instant::now(),
            started_at: unix_nanoseconds(),
            generation: AtomicU32::new(host.generation()),
            scorer: Arc::default(),
            outputs: files.counters(),
            watchers: None,
            models: None,
            folder: std::path::absolute(&config.export.directory).unwrap_or_default(),
            honeypots: config.honeypots.iter().map(|honeypot| honeypot.name.clone()).collect(),
        }
    }

    fn scoring(&self, config: &Config, host: &PolicyHost, exports: Exports, health: Health) -> Scoring {
        let sources = self.records.iter().cloned().zip(self.counters.iter().cloned()).collect();
        let merge = RecordMerge::new(sources, RecordOrder::Arrival).with(self.observations.clone());
        let scoring = Scoring::new(config, merge, host.names().clone(), exports, self.abort.clone(), Some(health));
        scoring.showing(self.recent.clone())
    }
}

/// What is in force first: the policy that is stored where there is a service, else that of the configuration.
fn start_policy(config: &Config) -> Result<(Arc<Mutex<PolicyHost>>, Option<Clerk>)> {
    if config.api.listen.is_none() {
        let host = PolicyHost::new(config, Targets::ByPort, unix_nanoseconds())?;
        return Ok((Arc::new(Mutex::new(host)), None));
    }
    if !config.store.enabled {
        bail!("[api] needs a place for policies: set [store] enabled = true");
    }
    let store = Store::open(&store_path(config))?;
    // What is stored takes the place of this before any worker is started, as a generation above it.
    let stored = store.generations(None, 1)?.first().map_or(0, |generation| generation.number);
    let host = PolicyHost::from(config, Targets::ByPort, stored.saturating_sub(1), unix_nanoseconds())?;
    let host = Arc::new(Mutex::new(host));
    let clerk = Clerk::start(config, host.clone(), store)?;
    Ok((host, Some(clerk)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_scoring(
    scoring: Scoring,
    kept: Option<(Keeper, Vec<Restored>)>,
    core: Option<usize>,
) -> Result<JoinHandle<Result<Scored>>> {
    let scoring = match kept {
        Some((keeper, restored)) => scoring.with_models(Models::Aside(keeper), restored),
        None => scoring,
    };
    Ok(thread::Builder::new().name("scorer".into()).spawn(move || {
        if let Some(id) = core
            && !core_affinity::set_for_current(core_affinity::CoreId { id })
        {
            log::warn!("the scorer could not be pinned to CPU {id}");
        }
        scoring.run()
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(eal: &str) -> Vec<String> {
        let text = format!(
            "[eal]\nhugepages = true\n{eal}\n[[port]]\nname = \"a\"\ndevice = \"03:00.0,key=1\"\n\
             [[port]]\nname = \"b\"\ndevice = \"net_null0\"\n[[pair]]\nports = [\"a\", \"b\"]\n"
        );
        eal_options(&config::parse(&text, "test.toml").expect("valid")).pci_allow
    }

    #[test]
    fn ports_on_pci_are_probed_with_their_arguments() {
        assert_eq!(allowed(""), ["0000:03:00.0,key=1"]);
        assert_eq!(allowed("pci_allow = [\"0000:03:00.0\", \"04:00.0\"]"), ["0000:03:00.0,key=1", "0000:04:00.0"]);
    }
}
