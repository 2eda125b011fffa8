//! Counters of one worker: written by it alone, read by anybody.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::distribution::Distribution;
use crate::dpdk::BURST;
use crate::flow::FlowStats;
use crate::mirror::CLASSES;
use crate::packet::{DropReason, FragmentCounters};
use crate::rules::{Compiled, RuleHandle, Verdict};

/// Most mirror sessions, over all generations of a process, that are counted apart.
pub const MIRROR_SLOTS: usize = 256;

/// Why copies are not sent.
pub const LOSSES: [&str; 9] =
    ["pool", "queue", "link", "oversize", "cap", "budget", "no_neighbour", "down", "duplicate"];

/// A number with one writer. Adding is a plain load and store: no bus lock, no read-modify-write.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// For levels, and for totals that are kept elsewhere.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one mirror session did at one worker.
#[derive(Debug, Default)]
pub struct MirrorCounters {
    /// Packets that the session wanted after sampling.
    pub selected: Counter,
    pub packets: Counter,
    pub bytes: Counter,
    /// No buffer for the copy or its envelope.
    pub lost_pool: Counter,
    /// Larger than the way to the collector takes.
    pub lost_oversize: Counter,
    /// Beyond what the session may send.
    pub lost_cap: Counter,
    /// Beyond what all adaptive sessions may send together.
    pub lost_budget: Counter,
    /// The mirror port's queue was full.
    pub lost_queue: Counter,
    /// The mirror port's link was down.
    pub lost_link: Counter,
    /// The collector's next hop is not known, or does not answer.
    pub lost_neighbour: Counter,
    /// The collector failed its health checks.
    pub lost_down: Counter,
    /// The packet was seen elsewhere a moment ago.
    pub lost_duplicate: Counter,
}

impl MirrorCounters {
    /// Copies that were not sent, by cause.
    pub fn lost(&self) -> [(&'static str, u64); LOSSES.len()] {
        let counters = [
            &self.lost_pool,
            &self.lost_queue,
            &self.lost_link,
            &self.lost_oversize,
            &self.lost_cap,
            &self.lost_budget,
            &self.lost_neighbour,
            &self.lost_down,
            &self.lost_duplicate,
        ];
        std::array::from_fn(|cause| (LOSSES[cause], counters[cause].get()))
    }
}

/// Copies that adaptive sessions would have made of one class of flows, whether the budget had room for them or not.
#[derive(Debug, Default)]
pub struct Demand {
    pub packets: Counter,
    pub bytes: Counter,
}

/// Hits of one rule at one worker: one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RuleCounters {
    /// Packets and bytes it decided.
    pub packets: Counter,
    pub bytes: Counter,
    /// In shadow mode: packets it would have decided otherwise. A log rule: packets noted.
    pub would: Counter,
    /// Flow time of the first and the last of all these packets, in nanoseconds since the Unix epoch; 0 before.
    first: AtomicU64,
    last: AtomicU64,
}

impl RuleCounters {
    /// Notes a packet that the rule decided, would have decided or noted.
    #[inline]
    fn hit(&self, clock: u64) {
        if self.last.load(Ordering::Relaxed) == 0 {
            self.first.store(clock, Ordering::Relaxed);
        }
        self.last.store(clock.max(1), Ordering::Relaxed);
    }

    /// Flow time of the first and the last hit, if there was one.
    pub fn times(&self) -> Option<(u64, u64)> {
        let last = self.last.load(Ordering::Relaxed);
        (last != 0).then(|| (self.first.load(Ordering::Relaxed), last))
    }
}

/// All counters of one worker. `rx = tx + consumed + sum(drops)` once its queues are flushed.
#[derive(Debug)]
pub struct WorkerCounters {
    pub rx_packets: Counter,
    pub rx_bytes: Counter,
    pub tx_packets: Counter,
    pub tx_bytes: Counter,
    /// Packets that end in the box on purpose.
    pub consumed: Counter,
    /// Packets that went to a honeypot or came from one; part of `tx_packets` when they were sent.
    pub diverted: Counter,
    /// Packets the box made itself (rejections); not part of `tx_packets`.
    pub generated: Counter,
    pub generated_lost: Counter,
    /// Frames handed to another worker, which counts them as received.
    pub redistributed: Counter,
    /// Packets classified without flow state because the flow table was full.
    pub untracked: Counter,
    /// Later fragments that got the key of their first one, and those whose first one is not known; first fragments
    /// that were forgotten for want of room.
    pub fragments_resolved: Counter,
    pub fragments_missed: Counter,
    pub fragments_evicted: Counter,
    /// ICMP errors that quote a packet, and those of them about a flow that is known.
    pub icmp_errors: Counter,
    pub icmp_errors_bound: Counter,
    pub drops: [Counter; DropReason::COUNT],
    pub flows: Counter,
    /// Flows that gave their place away before their time, of which the next three say what they were.
    pub flows_evicted: Counter,
    pub flows_evicted_half_open: Counter,
    pub flows_evicted_closed: Counter,
    pub flows_evicted_idle: Counter,
    /// Interim records made because a counter was full.
    pub slices_forced: Counter,
    /// Verdicts that were not cached because there were too many different ones.
    pub verdicts_refused: Counter,
    pub records: Counter,
    pub records_lost: Counter,
    /// ARP messages and long DNS names that the scorer did not get because it was behind.
    pub observations_lost: Counter,
    pub mirrors: Box<[MirrorCounters]>,
    /// By class of the watchlist.
    pub demand: [Demand; CLASSES],
    /// By [`RuleHandle`].
    pub rules: Box<[RuleCounters]>,
    /// Records emitted up to this flow time have been handed out.
    pub watermark: CachePadded<AtomicU64>,
    /// Capture frames up to this number have left; replay merges outputs by it.
    pub progress: CachePadded<AtomicU64>,
    /// Flows in the table now, and those of them that are half-open, one-way or over.
    pub flows_live: AtomicU32,
    pub flows_disposable: AtomicU32,
    /// Live: nanoseconds from the poll that received a burst to the end of the flush that sent it, for each packet
    /// sent to a paired port.
    pub latency: Distribution,
    /// Polls of an input by the number of packets that they brought.
    pub batches: [Counter; BURST + 1],
}

impl WorkerCounters {
    /// `rules` is the most rule handles there can be.
    pub fn new(rules: usize) -> Self {
        Self {
            rx_packets: Counter::default(),
            rx_bytes: Counter::default(),
            tx_packets: Counter::default(),
            tx_bytes: Counter::default(),
            consumed: Counter::default(),
            diverted: Counter::default(),
            generated: Counter::default(),
            generated_lost: Counter::default(),
            redistributed: Counter::default(),
            untracked: Counter::default(),
            fragments_resolved: Counter::default(),
            fragments_missed: Counter::default(),
            fragments_evicted: Counter::default(),
            icmp_errors: Counter::default(),
            icmp_errors_bound: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
            flows: Counter::default(),
            flows_evicted: Counter::default(),
            flows_evicted_half_open: Counter::default(),
            flows_evicted_closed: Counter::default(),
            flows_evicted_idle: Counter::default(),
            slices_forced: Counter::default(),
            verdicts_refused: Counter::default(),
            records: Counter::default(),
            records_lost: Counter::default(),
            observations_lost: Counter::default(),
            mirrors: (0..MIRROR_SLOTS).map(|_| MirrorCounters::default()).collect(),
            demand: std::array::from_fn(|_| Demand::default()),
            rules: (0..=rules).map(|_| RuleCounters::default()).collect(),
            watermark: CachePadded::default(),
            progress: CachePadded::default(),
            flows_live: AtomicU32::new(0),
            flows_disposable: AtomicU32::new(0),
            latency: Distribution::default(),
            batches: std::array::from_fn(|_| Counter::default()),
        }
    }

    /// Notes a packet at each rule that the verdict on it names. `rules` are those that made the verdict.
    #[inline]
    pub fn count_verdict(&self, verdict: &Verdict, rules: &Compiled, bytes: u64, clock: u64) {
        if let Some(rule) = self.rule(verdict.rule) {
            rule.packets.add(1);
            rule.bytes.add(bytes);
            rule.hit(clock);
        }
        if verdict.logged != RuleHandle::DEFAULT {
            self.would(verdict.logged, clock);
        }
        if !verdict.shadows.is_empty() {
            rules.shadows(verdict).for_each(|rule| self.would(rule, clock));
        }
    }

    fn rule(&self, handle: RuleHandle) -> Option<&RuleCounters> {
        self.rules.get(handle.0 as usize)
    }

    /// A packet that a shadow-mode rule would have decided, or a log rule noted.
    fn would(&self, handle: RuleHandle, clock: u64) {
        if let Some(rule) = self.rule(handle) {
            rule.would.add(1);
            rule.hit(clock);
        }
    }

    /// What the tables of flows and of fragments count themselves.
    pub(super) fn show(&self, stats: &FlowStats, fragments: FragmentCounters) {
        self.fragments_resolved.set(fragments.resolved);
        self.fragments_missed.set(fragments.missed);
        self.fragments_evicted.set(fragments.evicted);
        self.flows_evicted.set(stats.evicted());
        self.flows_evicted_half_open.set(stats.evicted_half_open);
        self.flows_evicted_closed.set(stats.evicted_closed);
        self.flows_evicted_idle.set(stats.evicted_idle);
        self.slices_forced.set(stats.slices_forced);
        self.verdicts_refused.set(stats.verdicts_refused);
        self.flows_live.store(stats.live as u32, Ordering::Relaxed);
        self.flows_disposable.store(stats.disposable as u32, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, reason: DropReason) {
        self.drops[reason.index()].add(1);
    }
}
