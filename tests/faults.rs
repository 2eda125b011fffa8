//! A worker behind a device that drops, repeats, reorders and damages frames, whose rings fill and whose pools
//! run empty: every packet is accounted for and every buffer comes back.

mod common;

use common::faults::{Dice, Faults, Rates, traffic};
use common::rig::{Outcome, Rig, Setup};
use gnomon::mirror::hops::HopState;
use gnomon::packet::Mac;
use gnomon::worker::{Counter, MirrorCounters};

const PACKETS: u64 = 200_000;

const CONFIG: &str = r#"
[policy]
default = "reject"
[[rule]]
id = "web"
protocol = "tcp"
ports = [80, 443]
action = "allow"
[[rule]]
id = "names"
protocol = "udp"
ports = 53
action = "allow"
[[rule]]
id = "quiet"
from = "fd00::/16"
action = "deny"
[[mirror]]
name = "all"
group = "any"
[[mirror]]
name = "share"
group = "any"
flows = "50%"
[[mirror]]
name = "seventh"
group = "any"
sample = "1/7"
[[target]]
name = "pool"
tunnel = "geneve"
to = ["192.0.2.2", "192.0.2.3"]
from = "192.0.2.1"
[[mirror]]
name = "pooled"
to = "pool"
group = "any"
[[target]]
name = "one"
tunnel = "gre"
to = "192.0.2.4"
from = "192.0.2.1"
health = "icmp"
[[mirror]]
name = "alone"
to = "one"
group = "any"
[[target]]
name = "careful"
tunnel = "geneve"
to = "192.0.2.5"
from = "192.0.2.1"
to_mac = "02:00:00:00:00:09"
mtu = 256
oversize = "fragment"
mask = ["digits:4", "text:a"]
dedup = "50ms"
[[mirror]]
name = "careful"
to = "careful"
group = "any"
[[target]]
name = "brief"
slice = "headers+4"
mask = "all"
[[mirror]]
name = "brief"
to = "brief"
group = "any"
"#;

/// Feeds `PACKETS` damaged frames; the far ends are emptied only now and then, so that rings fill and pools run
/// empty again and again.
fn hostile(seed: u64, workers: usize) -> (Outcome, Faults, u64) {
    let rig = Rig::start();
    let setup = Setup {
        workers,
        input_ring: 512,
        forward_ring: 256,
        mirror_ring: 128,
        packets: 2047,
        clones: 511,
        records: 256,
        ..Setup::new(CONFIG)
    };
    let traffic = traffic();
    let mut faults = Faults::new(seed, Rates::hostile());
    let mut dice = Dice::new(seed ^ 1);
    let (mut fed, mut refused) = (0, 0);
    let out = rig.live(&setup, |io| {
        io.keep = false;
        while fed < PACKETS {
            for frame in faults.pass(&traffic[dice.below(traffic.len())]) {
                let to = dice.below(workers);
                if io.put(to, &frame) { fed += 1 } else { refused += 1 }
            }
            if dice.one_in(300) {
                let hops = io.host.hops().all();
                let mac = Mac([2, 0, 0, 0, 0, dice.below(256) as u8]);
                let states = [HopState::NoNeighbour, HopState::Down(mac), HopState::Up(mac), HopState::Up(mac)];
                hops[dice.below(hops.len())].1.set(states[dice.below(states.len())], 1);
            }
            if dice.one_in(600) {
                io.collect();
            } else if dice.one_in(50) {
                io.wait_received(fed.saturating_sub(400 * workers as u64));
            }
        }
        for frame in faults.rest() {
            fed += u64::from(io.put(0, &frame));
        }
        io.wait(|io| io.settled() == fed, "all settled");
    });
    assert_eq!(out.summary.rx, fed);
    (out, faults, refused)
}

fn happened(out: &Outcome, faults: &Faults, refused: u64) {
    let done = faults.done;
    println!("{done:?}, {refused} refused at the input\n{:?}", out.summary);
    assert!([done.dropped, done.duplicated, done.reordered, done.changed].iter().all(|n| *n > 5_000), "{done:?}");
    for reason in ["transmit_full", "rejected", "denied", "malformed_ethernet_short", "malformed_ipv4_total_length"] {
        assert!(out.summary.drops.contains_key(reason), "{reason} did not occur");
    }
    assert!(out.sum(|c| c.mirrors[0].lost_queue.get()) > 0, "mirror rings filled");
    for session in [3, 4] {
        let lost = |of: fn(&MirrorCounters) -> &Counter| out.sum(|c| of(&c.mirrors[session]).get());
        assert!(lost(|m| &m.packets) > 0 && lost(|m| &m.lost_neighbour) > 0, "collectors came and went");
        assert!(lost(|m| &m.lost_down) > 0, "collectors fell ill");
    }
    for session in [5, 6] {
        let careful = |of: fn(&MirrorCounters) -> &Counter| out.sum(|c| of(&c.mirrors[session]).get());
        assert!(careful(|m| &m.packets) > 0 && careful(|m| &m.lost_queue) > 0, "{:?}", out.summary.mirrored);
    }
    assert!(out.summary.records_lost > 0, "record rings filled");
    assert!(out.summary.drops.len() > 15, "many kinds of damage were told apart: {:?}", out.summary.drops);
}

#[test]
fn one_worker_accounts_for_every_damaged_packet() {
    let (out, faults, refused) = hostile(7, 1);
    happened(&out, &faults, refused);
}

#[test]
fn two_workers_account_for_every_damaged_packet() {
    let (out, faults, refused) = hostile(8, 2);
    happened(&out, &faults, refused);
    assert!(out.sum(|c| c.redistributed.get()) > 10_000);
}
