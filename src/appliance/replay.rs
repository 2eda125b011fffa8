//! One capture through the same workers that run live, over DPDK's pcap device.
//!
//! ```text
//! capture ─ normalise ─► one file per worker ─ net_pcap ─► workers ─┬─ rings ─► collect ─► *.pcap
//!                        (preamble + frame)                         ├─ records ─► scoring ─► flows, alerts
//!                                                                   └─ notes ─► packets.jsonl
//! ```
//! Time is the capture's. Full rings make workers wait, so nothing is lost, and outputs are put into frame
//! and flow-time order, so they do not depend on the number of workers or on how threads were scheduled.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use crossbeam::queue::ArrayQueue;

use super::adaptation::Adaptation;
use super::collect::{OUTLET_RING, Outlet, collect};
use super::library::Library;
use super::merge::{RecordMerge, RecordOrder, observation_rings};
use super::notes::write_packets;
use super::policy::{PolicyHost, PolicyNames, Targets};
use super::pools::Pools;
use super::scoring::{Models, Scored, Scoring};
use super::totals::Summary;
use crate::capture::{Split, normalise};
use crate::config::{Config, Ipfix};
use crate::dpdk::{Device, Eal, PacketRing, Port, PortOptions, RunningLcore};
use crate::export::{Collectors, Exports, Files};
use crate::filter::Expression;
use crate::flow::{FlowRecord, FlowTable};
use crate::packet::{self, Fragments, Headers, Spreader};
use crate::store::Store;
use crate::taps::{Chosen, TapHost, TraceSpec, Way, way};
use crate::worker::tap::{Keep, Point};
use crate::worker::{
    Alarm, Egress, Honeypot, Ingress, Lane, Observation, Output, PacketNote, Spreading, Timing, Watch, WhenFull,
    Worker, WorkerCounters, WorkerParts,
};

/// What to do with a capture.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    pub workers: usize,
    /// Also write `packets.jsonl`.
    pub packets: bool,
    /// Also send the flow records to these collectors.
    pub ipfix: Vec<Ipfix>,
    /// Also tell the way of the first packets that an expression chooses, and write it to `trace.jsonl`.
    pub trace: Option<ReplayTrace>,
    /// Also hand out the flow records.
    pub records: Option<Arc<Mutex<Vec<FlowRecord>>>>,
    /// Begin with the models in this store, and store there what is trained.
    pub store: Option<PathBuf>,
}

/// Which packets of a replay are traced.
#[derive(Clone, Debug)]
pub struct ReplayTrace {
    pub filter: Expression,
    /// The first so many.
    pub count: usize,
}

/// What came of a replay.
#[derive(Debug)]
pub struct Replayed {
    pub summary: Summary,
    pub scored: Scored,
    pub names: Arc<PolicyNames>,
    pub files: Vec<PathBuf>,
    /// What [`ReplayOptions::trace`] asked for, in order of frames.
    pub trace: Vec<Way>,
}

/// Where a replay is, for a progress display.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Bytes of the capture read, of how many.
    Reading(u64, u64),
    /// Packets through the workers, of how many.
    Running(u64, u64),
}

const NOTES: usize = 8192;
/// Outputs of every worker: allowed packets, answers to rejected ones, then one per mirror session, one per honeypot.
const FORWARD: usize = 0;
const BACK: usize = 1;
const FIRST_MIRROR: usize = 2;

/// Replays `capture` into `out`, which must exist.
pub fn replay(
    eal: &Arc<Eal>,
    pools: &Pools,
    config: &Config,
    capture: &Path,
    out: &Path,
    options: &ReplayOptions,
    mut progress: impl FnMut(Progress),
) -> Result<Replayed> {
    let workspace = Workspace::new(out)?;
    let split = split_capture(capture, &workspace.0, config, options.workers, &mut progress)?;
    let mut run = Run::prepare(eal, config, split, options)?;
    let port = run.open_device(eal, pools)?;
    let watches = run.watches(config);
    let consumers = run.start_consumers(config, capture, out, options)?;
    let workers = run.start_workers(eal, config, pools, &port, watches);
    // Workers that were never started would be waited for without end.
    let waited = if workers.is_ok() { run.watch(&port, &mut progress) } else { Ok(()) };
    let traced = run.taps.clone();
    let mut replayed = run.finish(eal, workers, waited, consumers)?;
    if let (Some(wanted), Some(taps)) = (&options.trace, traced) {
        replayed.trace = first_ways(&taps, wanted.count)?;
        replayed.files.push(write_trace(&replayed.trace, out)?);
    }
    Ok(replayed)
}

/// The files that the pcap device reads; removed whatever happens.
struct Workspace(PathBuf);

impl Workspace {
    fn new(out: &Path) -> Result<Self> {
        let path = out.join(format!(".replay-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            log::warn!("removing {}: {error}", self.0.display());
        }
    }
}

/// Both directions of a flow, and its fragments, go to one worker.
fn split_capture(
    capture: &Path,
    folder: &Path,
    config: &Config,
    workers: usize,
    progress: &mut impl FnMut(Progress),
) -> Result<Split> {
    let fragments = || Fragments::new(config.limits.fragments, config.flow.timeouts.fragments.as_nanos() as u64);
    let mut spreader = Spreader::new(config.flow.key_from, workers, fragments);
    let assign = |frame: &[u8], wire_len: u32, clock_ns: u64| {
        let mut headers = Headers::default();
        // What is malformed still has an owner, by the part that was understood.
        let _ = packet::parse(frame, wire_len, &mut headers);
        spreader.worker(&headers, frame, wire_len, clock_ns)
    };
    Ok(normalise(capture, folder, workers, assign, |done, total| progress(Progress::Reading(done, total)))?)
}

/// Everything one replay shares between its threads.
struct Run {
    split: Split,
    host: PolicyHost,
    counters: Vec<Arc<WorkerCounters>>,
    records: Vec<Arc<ArrayQueue<FlowRecord>>>,
    observations: Vec<Arc<ArrayQueue<Observation>>>,
    notes: Option<Arc<ArrayQueue<PacketNote>>>,
    taps: Option<Arc<TapHost>>,
    rings: Vec<PacketRing>,
    abort: Arc<AtomicBool>,
    adaptation: Option<Adaptation>,
}

struct Consumers {
    scoring: JoinHandle<Result<Scored>>,
    collecting: JoinHandle<Result<Vec<PathBuf>>>,
    noting: Option<JoinHandle<Result<()>>>,
    packets_file: Option<PathBuf>,
}

type Workers = Vec<RunningLcore<Worker>>;

impl Run {
    fn prepare(eal: &Arc<Eal>, config: &Config, split: Split, options: &ReplayOptions) -> Result<Self> {
        let rings = (0..FIRST_MIRROR + config.mirrors.len() + config.honeypots.len())
            .map(|i| PacketRing::new(eal, &format!("replay_out_{i}"), OUTLET_RING))
            .collect::<Result<Vec<_>, _>>()?;
        let workers = options.workers;
        let began = split.first_ts_ns.unwrap_or(0);
        let host = PolicyHost::new(config, Targets::BySession { first: FIRST_MIRROR }, began)?;
        let taps = options.trace.as_ref().map(|trace| start_trace(trace, &host, workers)).transpose()?;
        let counters: Vec<_> = (0..workers).map(|_| Arc::new(WorkerCounters::new(config.limits.rules))).collect();
        let adaptation = config.adaptive.as_ref().map(|settings| Adaptation::new(settings, &counters, true));
        Ok(Self {
            split,
            taps,
            host,
            counters,
            adaptation: adaptation.transpose()?,
            records: (0..workers).map(|_| Arc::new(ArrayQueue::new(config.scorer.ring))).collect(),
            observations: observation_rings(config, workers),
            notes: options.packets.then(|| Arc::new(ArrayQueue::new(NOTES))),
            rings,
            abort: Arc::new(AtomicBool::new(false)),
        })
    }

    /// One pcap device with a queue per worker, each reading a file of its own.
    fn open_device(&self, eal: &Arc<Eal>, pools: &Pools) -> Result<Arc<Port>> {
        let mut device = String::from("net_pcap_replay");
        for file in &self.split.files {
            let path = file.to_str().filter(|p| !p.contains(','));
            let path = path.ok_or_else(|| anyhow!("the output folder's name contains a comma or is not text"))?;
            device.push_str(&format!(",rx_pcap={path}"));
        }
        let options = PortOptions {
            name: "capture".into(),
            device: device.clone(),
            rx_queues: self.split.files.len() as u16,
            tx_queues: 0,
            rx_descriptors: 512,
            tx_descriptors: 512,
            mtu: None,
            promiscuous: false,
        };
        Ok(Arc::new(Device::open(eal, &device)?.start(&options, &pools.packets)?))
    }

    fn start_consumers(
        &mut self,
        config: &Config,
        capture: &Path,
        out: &Path,
        options: &ReplayOptions,
    ) -> Result<Consumers> {
        let sources = self.records.iter().cloned().zip(self.counters.iter().cloned()).collect();
        let merge = RecordMerge::new(sources, RecordOrder::FlowTime).with(self.observations.clone());
        let collectors = Collectors::start(&options.ipfix, self.host.names(), true)?;
        let exports = Exports { files: Files::create(out, config.adaptive.is_some())?, collectors };
        let scoring = Scoring::new(config, merge, self.host.names().clone(), exports, self.abort.clone(), None);
        let scoring = scoring.adapting(self.adaptation.take()).collecting(options.records.clone());
        let scoring = self.stored(config, options, scoring)?;
        let outlets = self.outlets(config, out);
        let (counters, abort) = (self.counters.clone(), self.abort.clone());
        let noting = self.notes.clone().map(|notes| {
            let (capture, file) = (capture.to_owned(), out.join("packets.jsonl"));
            let (names, abort) = (self.host.names().clone(), self.abort.clone());
            thread::spawn(move || {
                let _alarm = Alarm::new(abort.clone());
                write_packets(&capture, &file, &notes, &names, &abort)
            })
        });
        Ok(Consumers {
            scoring: thread::spawn(move || scoring.run()),
            collecting: thread::spawn(move || {
                let _alarm = Alarm::new(abort.clone());
                Ok(collect(outlets, &counters, &abort)?)
            }),
            noting,
            packets_file: options.packets.then(|| out.join("packets.jsonl")),
        })
    }

    /// Begins with what the store has. A model that cannot be used ends it: the scores would be others.
    fn stored(&self, config: &Config, options: &ReplayOptions, scoring: Scoring) -> Result<Scoring> {
        let Some(path) = options.store.as_ref().filter(|_| config.scorer.enabled) else { return Ok(scoring) };
        let library = Library::new(Store::open(path)?, config);
        let (restored, failed) = library.restore(self.host.names())?;
        if let Some(error) = failed.into_iter().next() {
            return Err(error);
        }
        let next = library.next()?;
        Ok(scoring.numbering_from(next).with_models(Models::Here(Some(Box::new(library))), restored))
    }

    fn outlets(&self, config: &Config, out: &Path) -> Vec<Outlet> {
        let mut outlets = vec![
            Outlet::new(self.rings[FORWARD].clone(), out.join("forwarded.pcap"), true),
            Outlet::new(self.rings[BACK].clone(), out.join("replies.pcap"), false),
        ];
        for (session, ring) in config.mirrors.iter().zip(&self.rings[FIRST_MIRROR..]) {
            outlets.push(Outlet::new(ring.clone(), out.join(format!("mirror-{}.pcap", session.name)), true));
        }
        for (honeypot, ring) in config.honeypots.iter().zip(&self.rings[FIRST_MIRROR + config.mirrors.len()..]) {
            outlets.push(Outlet::new(ring.clone(), out.join(format!("honeypot-{}.pcap", honeypot.name)), true));
        }
        outlets
    }

    /// What each worker knows of who is watched.
    fn watches(&mut self, config: &Config) -> Vec<Watch> {
        let first = FIRST_MIRROR + config.mirrors.len();
        let honeypots = config.honeypots.iter().enumerate();
        let honeypots: Vec<_> = honeypots.map(|(n, pot)| Honeypot { output: first + n, mac: pot.mac }).collect();
        let watch = |worker| match &mut self.adaptation {
            Some(adaptation) => {
                Watch::in_step(adaptation.reader(), adaptation.paces(), worker).diverting(honeypots.clone())
            }
            None => Watch::default(),
        };
        (0..self.counters.len()).map(watch).collect()
    }

    fn start_workers(
        &mut self,
        eal: &Arc<Eal>,
        config: &Config,
        pools: &Pools,
        port: &Arc<Port>,
        watches: Vec<Watch>,
    ) -> Result<Workers> {
        let (queues, _) = port.take_queues().ok_or_else(|| anyhow!("the device's queues are taken"))?;
        let mut running = Vec::new();
        for (id, (queue, watch)) in queues.into_iter().zip(watches).enumerate() {
            let parts = self.worker_parts(id, config, pools, Ingress::Device(queue));
            let mut worker = Worker::new(WorkerParts { watch, ..parts });
            let Some(lcore) = eal.take_lcore() else { bail!("{} workers need as many lcores", self.counters.len()) };
            running.push(lcore.launch(move || {
                worker.run();
                worker
            })?);
        }
        Ok(running)
    }

    fn worker_parts(&mut self, id: usize, config: &Config, pools: &Pools, ingress: Ingress) -> WorkerParts {
        let up = Arc::new(AtomicBool::new(true));
        let output =
            |ring: &PacketRing| Output::new(Egress::Ring(ring.clone()), up.clone(), WhenFull::Wait, self.abort.clone());
        let spreading = Spreading::Done;
        WorkerParts {
            id,
            workers: self.counters.len(),
            lanes: vec![Lane { ingress, forward: Some(FORWARD), back: Some(BACK), spreading, owners: Vec::new() }],
            outputs: self.rings.iter().map(output).collect(),
            generation: self.host.reader(),
            table: FlowTable::new(config.flow.capacity, &config.flow.timeouts, config.seed).with_tcp(config.flow.tcp),
            fragments: Fragments::new(config.limits.fragments, config.flow.timeouts.fragments.as_nanos() as u64),
            key_from: config.flow.key_from,
            timing: Timing::Capture { frames: self.split.frames[id], end_ns: self.split.last_ts_ns.unwrap_or(0) },
            clones: pools.clones.clone(),
            fronts: pools.fronts.clone(),
            packets: pools.packets.clone(),
            records: self.records[id].clone(),
            notes: self.notes.clone(),
            observations: self.observations.get(id).cloned(),
            taps: self.taps.as_ref().map(|taps| taps.reader()),
            watch: Watch::default(),
            when_full: WhenFull::Wait,
            counters: self.counters[id].clone(),
            mailbox: Arc::default(),
            stop: self.abort.clone(),
            abort: self.abort.clone(),
            seed: config.seed,
        }
    }

    /// Follows the workers until all have finished.
    fn watch(&self, port: &Port, progress: &mut impl FnMut(Progress)) -> Result<()> {
        let mut pause = std::time::Duration::from_micros(200);
        loop {
            let done: u64 = self.counters.iter().map(|c| c.rx_packets.get()).sum();
            progress(Progress::Running(done, self.split.total));
            if self.counters.iter().all(|c| c.progress.load(Ordering::Acquire) == u64::MAX) {
                return Ok(());
            }
            if self.abort.load(Ordering::Relaxed) {
                bail!("replay was given up");
            }
            let stats = port.stats();
            if stats.rx_no_buffer + stats.rx_errors > 0 {
                self.abort.store(true, Ordering::Relaxed);
                bail!("the pcap device lost {} packets for want of buffers", stats.rx_no_buffer + stats.rx_errors);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(std::time::Duration::from_millis(50));
        }
    }

    /// Also after a failure: the lcores are needed for the next capture.
    fn finish(
        self,
        eal: &Arc<Eal>,
        workers: Result<Workers>,
        waited: Result<()>,
        consumers: Consumers,
    ) -> Result<Replayed> {
        if workers.is_err() || waited.is_err() {
            self.abort.store(true, Ordering::Relaxed);
        }
        let mut failed = None;
        match workers {
            Ok(workers) => {
                for running in workers {
                    let (lcore, outcome) = running.join();
                    eal.return_lcore(lcore);
                    failed = failed.or(outcome.err());
                }
            }
            Err(error) => failed = Some(format!("{error:#}")),
        }
        failed = failed.or(waited.err().map(|error| format!("{error:#}")));
        if failed.is_some() {
            self.abort.store(true, Ordering::Relaxed);
        }
        // A consumer that failed raised `abort`, so the first real error is the one to tell.
        let files = join(consumers.collecting);
        let scored = join(consumers.scoring);
        let noted = consumers.noting.map_or(Ok(()), join);
        let (mut files, scored) = (files?, scored?);
        noted?;
        if let Some(message) = failed {
            bail!("a worker failed: {message}");
        }
        files.extend(scored.files.iter().cloned());
        files.extend(consumers.packets_file);
        Ok(Replayed {
            summary: summary(&self, &scored),
            scored,
            names: self.host.names().clone(),
            files,
            trace: Vec::new(),
        })
    }
}

/// Every worker keeps as many as are wanted of all: the first of them are among those.
fn start_trace(trace: &ReplayTrace, host: &PolicyHost, workers: usize) -> Result<Arc<TapHost>> {
    let ports = ["out", "in"].map(str::to_owned).to_vec();
    let taps = TapHost::new(host.names().clone(), ports, workers);
    let chosen = Chosen { filter: trace.filter.clone(), points: Point::ALL.into_iter().collect(), ports: Vec::new() };
    taps.trace(&TraceSpec { name: None, chosen, count: trace.count, keep: Keep::First })?;
    Ok(taps)
}

fn first_ways(taps: &TapHost, count: usize) -> Result<Vec<Way>> {
    let mut notes = taps.find_trace(None)?.notes(0).0;
    notes.sort_by_key(|numbered| numbered.note.index);
    Ok(notes.iter().take(count).map(|numbered| way(&numbered.note, &*taps.names, &taps.ports, true)).collect())
}

fn write_trace(ways: &[Way], out: &Path) -> Result<PathBuf> {
    let path = out.join("trace.jsonl");
    let lines = ways.iter().map(|way| Ok(serde_json::to_string(way)? + "\n")).collect::<Result<String>>()?;
    std::fs::write(&path, lines).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn join<T>(handle: JoinHandle<Result<T>>) -> Result<T> {
    handle.join().unwrap_or_else(|_| Err(anyhow!("a thread of the replay panicked")))
}

fn summary(run: &Run, scored: &Scored) -> Summary {
    let covered = run.split.last_ts_ns.unwrap_or(0).saturating_sub(run.split.first_ts_ns.unwrap_or(0));
    let mut summary = Summary::of(&run.counters, run.host.names()).over(covered as f64 / 1e9);
    summary.generation = run.host.generation();
    summary.alerts = scored.alerts.clone();
    summary.truncated = run.split.truncation.clone();
    summary
}
