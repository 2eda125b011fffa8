//! What mirroring costs forwarding: a port pair over net_null with a share of its packets copied, against the same
//! without a mirror, interleaved. Copies go to a port as they are, or wrapped in VXLAN; to a device that takes them, or
//! to one that is full and takes none. Frames are 64-byte UDP.
//!
//! `cargo bench --bench mirror -- [--quick] [--json FILE] [--cpu N]`

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use gnomon::appliance::{Appliance, Pools, eal_options};
use gnomon::config::{self, Config};
use gnomon::dpdk::Eal;

use common::{Options, Results, fill_buffers};

const SHARES: [(&str, u32); 3] = [("1 %", 100), ("10 %", 10), ("100 %", 1)];
/// A device that takes everything, and one that is full after a thousand copies, as nobody empties it.
const DEVICES: [(&str, &str); 2] = [("", "net_null2,size=64"), (", target blocked", "net_ring0")];

fn main() {
    let options = Options::parse();
    let (rounds, ms) = if options.quick { (5, 400) } else { (15, 1000) };
    let plain = configuration(&options, None);
    let eal = Arc::new(Eal::start(&eal_options(&plain)).expect("DPDK starts"));
    let pools = Pools::new(&eal, plain.eal.mbufs).expect("pools");
    let mut results = Results::new("mirror");
    fill_buffers(&pools, 1);
    for (blocked, device) in DEVICES {
        for wrapped in [false, true] {
            for (share, one_in) in SHARES {
                let mirrored = configuration(&options, Some((device, wrapped, one_in)));
                let pair = || (forward(&eal, &pools, &mirrored, ms), forward(&eal, &pools, &plain, ms));
                let pairs: Vec<(f64, f64)> = (0..rounds).map(|_| pair()).collect();
                let way = if wrapped { "VXLAN" } else { "a port" };
                results.compared(format!("{share} to {way}{blocked}"), "Mpps", "unmirrored", &pairs);
            }
        }
    }
    results.finish(&options);
}

fn configuration(options: &Options, mirror: Option<(&str, bool, u32)>) -> Config {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/bench-null.toml");
    let mut text = std::fs::read_to_string(file).expect("the configuration is there");
    if let Some((device, wrapped, one_in)) = mirror {
        let tunnel = "tunnel = \"vxlan\"\nto = \"192.0.2.2\"\nfrom = \"192.0.2.1\"\nto_mac = \"02:00:00:00:00:09\"\n";
        let tunnel = if wrapped { tunnel } else { "" };
        text.push_str(&format!(
            "[[port]]\nname = \"span\"\ndevice = \"{device}\"\n[[target]]\nname = \"sensor\"\nport = \"span\"\n{tunnel}\
             [[mirror]]\nname = \"m\"\nto = \"sensor\"\ngroup = \"any\"\nsample = \"1/{one_in}\"\n"
        ));
    }
    let mut config = config::parse(&text, "bench").expect("the configuration is valid");
    let folder = std::env::temp_dir().join(format!("gnomon-bench-{}", std::process::id()));
    config.export.directory = folder;
    config.cores.workers = vec![options.cpu];
    config.eal.file_prefix = format!("gnomon-bench-{}", std::process::id());
    config
}

/// Million packets per second forwarded. Every packet must be, and every copy accounted for.
fn forward(eal: &Arc<Eal>, pools: &Pools, config: &Config, ms: u64) -> f64 {
    let appliance = Appliance::start_on(eal.clone(), pools.clone(), config.clone()).expect("the appliance starts");
    std::thread::sleep(Duration::from_millis(100));
    let (started, before) = (Instant::now(), appliance.summary());
    std::thread::sleep(Duration::from_millis(ms));
    let (passed, after) = (started.elapsed(), appliance.summary());
    let finished = appliance.stop().expect("the appliance stops");
    assert!(finished.summary.adds_up(), "{:?}", finished.summary);
    assert_eq!(finished.summary.tx, finished.summary.rx, "no forwarded packet is lost");
    for copies in finished.summary.mirrored.values() {
        assert_eq!(copies.selected, copies.packets + copies.lost, "{copies:?}");
    }
    (after.tx - before.tx) as f64 / passed.as_secs_f64() / 1e6
}
