//! What is looked after once a second while the appliance runs: pressure on the flow tables, collectors of
//! mirrors out of reach, counters as events.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::observed::Observed;
use super::outages::Outages;
use super::pressure::{Fill, Pressure};
use super::scoring::unix_nanoseconds;
use super::totals::Summary;
use crate::config::Config;
use crate::export::{
    Capture, Decoder, Detect, ExportError, Files, FlowStats, GnomonStats, OutputStats, Stats, StatsEvent, iso8601,
};
use crate::worker::{Counter, WorkerCounters};

/// See the module. Runs on the scorer's thread.
#[derive(Debug)]
pub struct Health {
    observed: Arc<Observed>,
    pressure: Pressure,
    outages: Outages,
    every: Option<Duration>,
    told: Option<Instant>,
}

impl Health {
    pub fn new(config: &Config, observed: Arc<Observed>) -> Self {
        let pressure = Pressure::new(config.metrics.clone());
        let outages = Outages::new(observed.live.hops.clone());
        Self { observed, pressure, outages, every: config.export.stats, told: None }
    }

    pub fn observed(&self) -> &Arc<Observed> {
        &self.observed
    }

    /// `number` gives the number of a new episode.
    pub fn look(&mut self, files: &mut Files, mut number: impl FnMut() -> u64) -> Result<(), ExportError> {
        let was_open = self.pressure.is_open();
        if let Some(news) = self.pressure.look(self.fill(), &mut number) {
            files.pressure(&news)?;
        }
        let scorer = &self.observed.live.scorer;
        scorer.pressure.set(self.pressure.is_open().into());
        scorer.pressure_alerts.add(u64::from(self.pressure.is_open() && !was_open));
        let was_out = self.outages.open();
        for news in self.outages.look(unix_nanoseconds(), number) {
            files.outage(&news)?;
        }
        scorer.outage_alerts.add(self.outages.open().saturating_sub(was_out) as u64);
        let Some(every) = self.every else { return Ok(()) };
        if self.told.is_none_or(|told| told.elapsed() >= every) {
            self.told = Some(Instant::now());
            files.stats(&self.event(false))?;
        }
        Ok(())
    }

    /// The last word of the run, when all outputs have what came before it.
    pub fn finish(&mut self, files: &mut Files) -> Result<(), ExportError> {
        if let Some(news) = self.pressure.close(unix_nanoseconds()) {
            files.pressure(&news)?;
        }
        self.observed.live.scorer.pressure.set(0);
        for news in self.outages.close(unix_nanoseconds()) {
            files.outage(&news)?;
        }
        if self.every.is_none() {
            return Ok(());
        }
        files.settle()?;
        files.stats(&self.event(true))
    }

    fn fill(&self) -> Fill {
        let workers = &self.observed.live.counters;
        let live = workers.iter().map(|w| u64::from(w.flows_live.load(Ordering::Relaxed)));
        let (worker, live) = live.enumerate().max_by_key(|(_, live)| *live).unwrap_or_default();
        let evicted: [fn(&WorkerCounters) -> &Counter; 3] =
            [|w| &w.flows_evicted_half_open, |w| &w.flows_evicted_closed, |w| &w.flows_evicted_idle];
        Fill {
            at: unix_nanoseconds(),
            worker,
            live,
            capacity: self.observed.live.capacity as u64,
            evicted: evicted.map(|kind| workers.iter().map(|w| kind(w).get()).sum()),
            refused: workers.iter().map(|w| w.untracked.get()).sum(),
        }
    }

    fn event(&self, last: bool) -> StatsEvent<Summary> {
        let live = &*self.observed.live;
        let summary = live.summary();
        let devices = self.observed.devices.iter().map(|port| port.stats());
        let capture = devices.fold(Capture::default(), |sum, device| Capture {
            kernel_packets: sum.kernel_packets + device.rx_packets,
            kernel_drops: sum.kernel_drops + device.rx_missed + device.rx_no_buffer,
            errors: sum.errors + device.rx_errors,
        });
        let invalid = summary.drops.iter().filter(|(reason, _)| reason.starts_with("malformed")).map(|(_, n)| n).sum();
        let active = live.counters.iter().map(|w| u64::from(w.flows_live.load(Ordering::Relaxed))).sum();
        let outputs = live
            .outputs
            .iter()
            .map(|output| (output.name.clone(), OutputStats { lines: output.lines(), lost: output.lost_lines() }));
        StatsEvent {
            timestamp: iso8601(unix_nanoseconds()),
            event_type: "stats",
            stats: Stats {
                uptime: live.started.elapsed().as_secs(),
                capture,
                decoder: Decoder { pkts: summary.rx, bytes: summary.rx_bytes, invalid },
                flow: FlowStats { total: summary.flows, active },
                detect: Detect { alert: summary.alerts.values().sum() },
            },
            gnomon: GnomonStats {
                run: iso8601(live.started_at),
                next_seq: live.scorer.next_seq.get(),
                last,
                outputs: outputs.collect(),
                summary,
            },
        }
    }
}
