//! The two tables, each used as it is best.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, Result};
use gnomon::config::Config;
use gnomon::dpdk::{BURST, Eal, HashTable, Values, ticks};
use gnomon::flow::{FlowEntry, FlowPacket, FlowRecord, FlowTable, Lookup, RecordSink, TimeoutsNs};

use crate::traffic::{BEGIN, Family, Key, TURN, Traffic, tuple};

pub struct Discard;

impl RecordSink for Discard {
    fn push(&mut self, record: FlowRecord) {
        black_box(record);
    }
}

pub trait Side {
    /// Cycles a packet.
    fn turn(&mut self, traffic: &Traffic) -> f64;
    fn bytes_per_flow(&self) -> f64;
}

pub struct Ours {
    table: FlowTable,
    flows: u32,
    lookups: [Lookup; BURST],
    packets: u64,
}

fn first_packets(flow: u32, family: Family) -> [FlowPacket; 2] {
    let there = FlowPacket { tuple: tuple(flow, family), clock_ns: BEGIN, bytes: 60, ..FlowPacket::default() };
    [there, FlowPacket { tuple: there.tuple.reversed(), ..there }]
}

impl Ours {
    /// A table that is full of flows, each heard both ways.
    pub fn new(flows: u32, family: Family) -> Self {
        let mut table = FlowTable::new(flows as usize, &Config::default_pair().flow.timeouts, 1);
        table.prefault();
        for packet in (0..flows).flat_map(|flow| first_packets(flow, family)) {
            table.touch(&packet, &mut Discard).expect("room for every flow");
        }
        let stats = table.stats();
        assert_eq!((stats.live, stats.evicted()), (flows as usize, 0), "every flow has its place");
        Self { table, flows, lookups: [Lookup::default(); BURST], packets: 2 * u64::from(flows) }
    }

    /// Every packet was counted, and no flow was lost.
    pub fn verify(mut self) {
        let mut records = Counting::default();
        self.table.finish(BEGIN + 1_000_000_000, &mut records);
        assert_eq!((records.flows, records.packets), (self.flows.into(), self.packets), "flows and packets");
    }
}

#[derive(Default)]
struct Counting {
    flows: u64,
    packets: u64,
}

impl RecordSink for Counting {
    fn push(&mut self, record: FlowRecord) {
        self.flows += 1;
        self.packets += record.packets[0] + record.packets[1];
    }
}

impl Side for Ours {
    fn turn(&mut self, traffic: &Traffic) -> f64 {
        let started = ticks();
        for burst in traffic.packets.chunks_exact(BURST) {
            for (lookup, packet) in self.lookups.iter_mut().zip(burst) {
                self.table.prepare(&packet.tuple, lookup);
            }
            self.lookups.iter_mut().for_each(|lookup| self.table.locate(lookup));
            for (lookup, packet) in self.lookups.iter().zip(burst) {
                black_box(self.table.touch_prepared(packet, lookup, &mut Discard).is_ok());
            }
        }
        self.packets += TURN as u64;
        (ticks() - started) as f64 / TURN as f64
    }

    fn bytes_per_flow(&self) -> f64 {
        let (entries, rest) = self.table.memory_bytes();
        (entries + rest) as f64 / f64::from(self.flows)
    }
}

pub struct Peer<K: Key> {
    table: HashTable<K>,
    records: Values<FlowEntry>,
    times: TimeoutsNs,
    flows: u32,
    packets: u64,
    counted: u64,
}

impl<K: Key> Peer<K> {
    pub fn new(eal: &Arc<Eal>, flows: u32, family: Family) -> Result<Self> {
        // Some room, for at its limit it refuses keys and looks up more slowly.
        let mut table = HashTable::new(eal, flows + flows / 4)?;
        let empty = FlowEntry::alone(&first_packets(0, family)[0]);
        let mut records = Values::filled(eal, table.numbers(), empty)?;
        let times = TimeoutsNs::new(&Config::default_pair().flow.timeouts);
        for flow in 0..flows {
            let (key, from_higher) = K::of(&tuple(flow, family));
            let number = table.add(&key).with_context(|| format!("flow {flow} of {flows} has no place in rte_hash"))?;
            let record = &mut records[number as usize];
            *record = FlowEntry::alone(&first_packets(flow, family)[0]);
            for (packet, from_higher) in first_packets(flow, family).iter().zip([from_higher, !from_higher]) {
                record.account(packet, from_higher, &times);
            }
        }
        Ok(Self { table, records, times, flows, packets: 0, counted: 0 })
    }
}

impl<K: Key> Side for Peer<K> {
    fn turn(&mut self, traffic: &Traffic) -> f64 {
        let (mut found, mut keys) = ([0i32; BURST], [K::default(); BURST]);
        let mut from_higher = [false; BURST];
        let started = ticks();
        for packets in traffic.packets.chunks_exact(BURST) {
            for ((slot, higher), packet) in keys.iter_mut().zip(&mut from_higher).zip(packets) {
                (*slot, *higher) = K::of(&packet.tuple);
            }
            let pointers: [&K; BURST] = std::array::from_fn(|i| &keys[i]);
            self.table.lookup(&pointers, &mut found);
            found.iter().for_each(|number| self.records.prefetch(*number as usize));
            let records = &mut self.records[..];
            for ((number, packet), from_higher) in found.iter().zip(packets).zip(&from_higher) {
                if let Some(record) = records.get_mut(*number as usize) {
                    self.counted += u64::from(record.account(packet, *from_higher, &self.times));
                }
            }
        }
        let passed = ticks() - started;
        self.packets += TURN as u64;
        assert_eq!(self.counted, self.packets, "the peer counts every packet");
        passed as f64 / TURN as f64
    }

    fn bytes_per_flow(&self) -> f64 {
        let records = size_of_val(&self.records[..]) as f64;
        (self.table.memory_bytes() as f64 + records) / f64::from(self.flows)
    }
}

/// Transparent huge pages of this process, in MB.
pub fn huge_megabytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    let kib: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
    kib * 1024.0 / 1e6
}
