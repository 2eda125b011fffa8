//! A port pair over net_null with one allow rule, against `dpdk-testpmd --forward-mode=io` on the same devices,
//! interleaved. net_null hands out buffers as they are, so gnomon's are filled with real UDP frames first: testpmd's
//! io mode does not look at them, gnomon parses, tracks and judges each one. Pools hand out what came back last, so
//! only a few dozen buffers go round: one flow says as much, and the case says how many flows it was.
//!
//! `cargo bench --bench forward -- [--quick] [--json FILE] [--cpu N]`

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use gnomon::appliance::{Appliance, Pools, eal_options};
use gnomon::config::{self, Config};
use gnomon::dpdk::Eal;

use common::{Options, Results, fill_buffers};

/// Distinct flows over all buffers.
const FLOWS: u32 = 1;

fn main() {
    let options = Options::parse();
    let (rounds, seconds) = if options.quick { (3, 1) } else { (7, 3) };
    let config = configuration(&options);
    let eal = Arc::new(Eal::start(&eal_options(&config)).expect("DPDK starts"));
    let pools = Pools::new(&eal, config.eal.mbufs).expect("pools");
    let mut results = Results::new("forward");
    fill_buffers(&pools, FLOWS);
    let mut seen = 0;
    let mut pair = || {
        let (rate, flows) = forward(&eal, &pools, &config, seconds);
        seen = seen.max(flows);
        (rate, testpmd(options.cpu, seconds))
    };
    let pairs: Vec<(f64, f64)> = (0..rounds).map(|_| pair()).collect();
    results.compared(format!("net_null pair, 64-byte UDP, {seen} flows"), "Mpps", "testpmd io", &pairs);
    results.finish(&options);
}

fn configuration(options: &Options) -> Config {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/bench-null.toml");
    let mut config = config::load(&file).expect("the configuration is valid");
    let folder = std::env::temp_dir().join(format!("gnomon-bench-{}", std::process::id()));
    config.export.directory = folder;
    config.cores.workers = vec![options.cpu];
    config.eal.file_prefix = format!("gnomon-bench-{}", std::process::id());
    config
}

/// Million packets per second forwarded, and how many flows they were.
fn forward(eal: &Arc<Eal>, pools: &Pools, config: &Config, seconds: u64) -> (f64, u64) {
    let appliance = Appliance::start_on(eal.clone(), pools.clone(), config.clone()).expect("the appliance starts");
    std::thread::sleep(Duration::from_millis(300));
    let (started, before) = (Instant::now(), appliance.summary());
    std::thread::sleep(Duration::from_secs(seconds));
    let (passed, after) = (started.elapsed(), appliance.summary());
    let finished = appliance.stop().expect("the appliance stops");
    assert!(finished.summary.adds_up(), "{:?}", finished.summary);
    ((after.tx - before.tx) as f64 / passed.as_secs_f64() / 1e6, finished.summary.flows)
}

/// testpmd's own receive rates of both ports, in million packets per second.
fn testpmd(cpu: usize, seconds: u64) -> f64 {
    let lcores = format!("0@0,1@{cpu}");
    let mut child = Command::new("dpdk-testpmd")
        .args(["--lcores", &lcores, "--no-huge", "-m", "512", "--no-pci", "--no-telemetry", "--file-prefix"])
        .arg(format!("gnomon-peer-{}", std::process::id()))
        .args(["--vdev", "net_null0,size=64", "--vdev", "net_null1,size=64", "--", "--forward-mode=io"])
        .args(["--stats-period", "1", "--total-num-mbufs=65536"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("dpdk-testpmd starts (Debian package dpdk)");
    let mut rates = Vec::new();
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    for line in lines {
        if let Some(rate) = line.split("Rx-pps:").nth(1) {
            let number: String = rate.trim_start().chars().take_while(char::is_ascii_digit).collect();
            rates.push(number.parse::<f64>().expect("a rate"));
        }
        // The first period includes the start; two ports report in each.
        if rates.len() as u64 >= 2 * (seconds + 1) {
            break;
        }
    }
    drop(child.stdin.take());
    child.kill().expect("the peer was ours to end");
    child.wait().expect("the peer ends");
    let counted = &rates[2..];
    counted.iter().sum::<f64>() / (counted.len() as f64 / 2.0) / 1e6
}
