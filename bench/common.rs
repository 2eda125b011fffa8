//! Command line, statistics and JSON of all benchmarks.
#![allow(dead_code, reason = "each benchmark uses its own part")]

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use gnomon::appliance::Pools;
use gnomon::dpdk::{DpdkError, Eal, EalOptions, Mbuf};
use serde::Serialize;

/// Options every benchmark has.
#[derive(Debug, Parser)]
pub struct Options {
    /// Fewer and shorter rounds.
    #[arg(long)]
    pub quick: bool,
    /// Also write the results here.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// CPU for the measured thread.
    #[arg(long, default_value_t = 1)]
    pub cpu: usize,
    /// `cargo bench` passes this.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Seeds from the first to the last, written 101-105, or a single one.
pub fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    Ok(number(first)?..=number(last)?)
}

/// DPDK on one CPU, in ordinary memory.
pub fn start_dpdk(name: &str, cpu: usize, memory_mb: u32) -> Result<Arc<Eal>, DpdkError> {
    let options = EalOptions {
        lcores: vec![vec![cpu]],
        hugepages: false,
        memory_mb,
        file_prefix: format!("gnomon-{name}-{}", std::process::id()),
        pci_allow: Vec::new(),
    };
    Eal::start(&options).map(Arc::new)
}

/// Results of one benchmark program.
#[derive(Debug, Serialize)]
pub struct Results {
    pub name: &'static str,
    pub machine: String,
    pub cases: Vec<Case>,
}

/// One line: medians; `ratio` above 1 means gnomon is better than the peer.
#[derive(Debug, Serialize)]
pub struct Case {
    pub case: String,
    pub unit: &'static str,
    pub ours: f64,
    pub peer: Option<f64>,
    pub peer_name: Option<&'static str>,
    pub ratio: Option<f64>,
    pub runs: Vec<f64>,
}

impl Results {
    pub fn new(name: &'static str) -> Self {
        Self { name, machine: machine(), cases: Vec::new() }
    }

    /// Adds a measurement without a peer.
    pub fn measured(&mut self, case: impl Into<String>, unit: &'static str, runs: Vec<f64>) {
        let case =
            Case { case: case.into(), unit, ours: median(&runs), peer: None, peer_name: None, ratio: None, runs };
        println!(
            "{:<44} {:>12.2} {unit}   (min {:.2}, max {:.2})",
            case.case,
            case.ours,
            least(&case.runs),
            most(&case.runs)
        );
        self.cases.push(case);
    }

    /// Adds a comparison; `pairs` are interleaved runs, ours first, more is better.
    pub fn compared(
        &mut self,
        case: impl Into<String>,
        unit: &'static str,
        peer_name: &'static str,
        pairs: &[(f64, f64)],
    ) {
        let runs: Vec<f64> = pairs.iter().map(|p| p.0).collect();
        let peers: Vec<f64> = pairs.iter().map(|p| p.1).collect();
        let ratios: Vec<f64> = pairs.iter().map(|p| p.0 / p.1).collect();
        let (ours, peer, ratio) = (median(&runs), median(&peers), median(&ratios));
        let case = case.into();
        println!(
            "{case:<44} {ours:>12.2} {unit}   {peer_name} {peer:.2}   ratio {ratio:.3} ({:.3}..{:.3})",
            least(&ratios),
            most(&ratios)
        );
        self.cases.push(Case {
            case,
            unit,
            ours,
            peer: Some(peer),
            peer_name: Some(peer_name),
            ratio: Some(ratio),
            runs,
        });
    }

    /// Writes the JSON file if one was asked for.
    pub fn finish(&self, options: &Options) {
        if let Some(path) = &options.json {
            let text = serde_json::to_string_pretty(self).expect("plain data");
            std::fs::write(path, text + "\n").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.is_empty() {
        f64::NAN
    } else if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(':').nth(1)).map_or("unknown", str::trim).to_owned()
    };
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    format!("{} family {} model {}, {cores} cores", field("model name"), field("cpu family"), field("model"))
}

/// Free hugepages of the default size, in MiB.
pub fn free_hugepages_mb() -> u32 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let number = |name: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    (number("HugePages_Free:") * number("Hugepagesize:") / 1024) as u32
}

/// Lets [`peak_memory_mb`] begin anew.
pub fn reset_peak_memory() {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux resets the peak of an own process");
}

/// The most resident memory that this process had, in MB.
pub fn peak_memory_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: Option<f64> = peak.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map_or(f64::NAN, |kib| kib * 1024.0 / 1e6)
}

/// A UDP frame of 60 bytes (64 on the wire with its checksum) of flow number `flow`, both directions by
/// parity of `packet`.
pub fn udp_frame(flow: u32, packet: u32) -> [u8; 60] {
    let mut frame = [0u8; 60];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    let (client, server) = (0x0a00_0000 + (flow >> 4), 0x0a80_0000 + (flow & 0xff));
    let (client_port, server_port) = (1024 + (flow & 0x3fff) as u16, 53u16);
    let there = packet.is_multiple_of(2);
    let (src, dst) = if there { (client, server) } else { (server, client) };
    let (sport, dport) = if there { (client_port, server_port) } else { (server_port, client_port) };
    frame[14..26].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame[26..30].copy_from_slice(&src.to_be_bytes());
    frame[30..34].copy_from_slice(&dst.to_be_bytes());
    let sum: u32 = frame[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34..36].copy_from_slice(&sport.to_be_bytes());
    frame[36..38].copy_from_slice(&dport.to_be_bytes());
    frame[38..40].copy_from_slice(&26u16.to_be_bytes());
    frame
}

/// Writes a frame into every buffer of the pool, for devices that hand out buffers as they are.
pub fn fill_buffers(pools: &Pools, flows: u32) {
    let mut number = 0;
    let held: Vec<Mbuf> = std::iter::from_fn(|| {
        number += 1;
        Mbuf::with_bytes(&pools.packets, &udp_frame(number / 2 % flows, number), 0)
    })
    .collect();
    assert!(held.len() as u32 >= pools.packets.size() - 512, "only {} buffers filled", held.len());
}
