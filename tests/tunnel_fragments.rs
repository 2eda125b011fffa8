//! Fragments of a tunnel's own packets, where flows are those of what the tunnel carries.

mod common;

use std::path::PathBuf;

use common::captures;
use common::frames;
use common::rig::{Outcome, Rig, Setup};
use gnomon::flow::FlowRecord;
use serde_json::Value;

const TUNNEL: (&str, &str) = ("192.0.2.1", "192.0.2.2");
const POLICY: &str = r#"
[policy]
default = "deny"
[flow]
key = "inner"
[[rule]]
id = "names"
from = "10.0.0.0/24"
to = "10.0.1.0/24"
protocol = "udp"
ports = 53
action = "allow"
"#;

/// A datagram of the overlay, to this port of a host, in fragments of the underlay.
fn tunnelled(host: u16, port: u16, id: u16) -> Vec<Vec<u8>> {
    let inner = frames::udp(("10.0.0.1", &format!("10.0.1.{host}")), (4000, port), &[7; 1200]);
    frames::fragments_of(&frames::vxlan(TUNNEL, 77, &inner), id, 400)
}

fn udp(out: &Outcome, vni: u32) -> Vec<&FlowRecord> {
    out.records.iter().filter(|r| r.tuple.vni == vni).collect()
}

#[test]
fn later_fragments_are_of_the_flow_that_the_first_one_carries() {
    let (allowed, refused, orphan) = (tunnelled(1, 53, 1), tunnelled(1, 54, 2), tunnelled(1, 53, 3));
    assert_eq!((allowed.len(), allowed[0].len()), (4, 434));
    let sent = [&allowed[..], &refused, &orphan[1..]].concat();
    let out = Rig::start().run(&Setup::new(POLICY), &sent);
    assert_eq!(out.forwarded, allowed);
    assert_eq!((out.hits("names"), out.hits("default")), (4, 7));
    let known = udp(&out, 77);
    assert_eq!(known.iter().map(|r| (r.tuple.dst_port, r.packets)).collect::<Vec<_>>(), [(53, [4, 0]), (54, [4, 0])]);
    let [lost] = udp(&out, 0)[..] else { panic!("one flow of what belongs to nothing") };
    assert_eq!((lost.tuple.src_ip().to_string(), lost.tuple.dst_port, lost.packets), (TUNNEL.0.into(), 0, [3, 0]));
    let counted = (out.sum(|c| c.fragments_resolved.get()), out.sum(|c| c.fragments_missed.get()));
    assert_eq!(counted, (6, 3));
}

#[test]
fn a_first_fragment_too_short_for_the_inner_header_stays_with_the_tunnel() {
    let inner = frames::udp(("10.0.0.1", "10.0.1.1"), (4000, 53), &[7; 100]);
    let sent = frames::fragments_of(&frames::vxlan(TUNNEL, 77, &inner), 1, 24);
    let out = Rig::start().run(&Setup::new(POLICY), &sent);
    assert!(out.forwarded.is_empty());
    let [all] = &out.records[..] else { panic!("one flow") };
    assert_eq!((all.tuple.dst_port, all.packets[0]), (4789, sent.len() as u64));
}

/// Several datagrams to each of many hosts, in fragments that come one after the other of all hosts.
fn many() -> Vec<Vec<u8>> {
    let all: Vec<_> = (0..120).map(|n| tunnelled(n % 40, 53, n)).collect();
    (0..4).flat_map(|piece| all.iter().map(move |pieces| pieces[piece].clone())).collect()
}

#[test]
fn workers_get_all_fragments_of_their_flows() {
    let (rig, sent) = (Rig::start(), many());
    let out = rig.live(&Setup { workers: 3, notes: false, ..Setup::new(POLICY) }, |io| {
        io.feed(0, &sent);
        io.wait(|io| io.settled() == 480, "all");
    });
    assert_eq!((out.forwarded.len(), out.sum(|c| c.fragments_resolved.get())), (480, 360));
    assert_eq!((out.records.len(), out.records.iter().all(|r| r.packets == [12, 0])), (40, true));
    assert!(out.counters.iter().all(|c| c.rx_packets.get() > 60), "spread over all workers");
}

#[test]
fn replays_say_the_same_whatever_the_number_of_workers() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (capture, config) = (folder.path().join("tunnel.pcap"), folder.path().join("tunnel.toml"));
    std::fs::write(&capture, captures::pcap(1, true, false, &many())).expect("written");
    std::fs::write(&config, POLICY).expect("written");
    let flows = |workers: &str| {
        let out = folder.path().join(format!("out{workers}"));
        let words = ["replay", "-q", "--workers", workers, "-c"].map(PathBuf::from);
        let paths = [config.clone(), "-o".into(), out.clone(), capture.clone()];
        common::succeeds(&common::gnomon(words.into_iter().chain(paths).map(PathBuf::into_os_string)));
        std::fs::read_to_string(out.join("flows.jsonl")).expect("written")
    };
    let one = flows("1");
    assert_eq!((flows("2") == one, flows("5") == one), (true, true));
    let lines: Vec<Value> = one.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 40);
    assert!(lines.iter().all(|line| line["flow"]["pkts_toserver"] == 12 && line["gnomon"]["vni"] == 77));
}
