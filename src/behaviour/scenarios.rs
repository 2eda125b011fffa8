//! Whole-scorer tests on synthetic traffic: ordinary mixtures stay silent, each attack is one alert.

use std::time::Duration;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

use super::*;
use crate::config;
use crate::flow::{EndReason, FlowRecord, FlowState, Spread};
use crate::packet::{Tuple, from_ip_addr};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const EPOCH: u64 = 1_463_044_282 * SECOND;

fn settings(warmup_records: usize) -> config::Scorer {
    config::Scorer {
        members: Default::default(),
        enabled: true,
        warmup_records,
        trees: 100,
        sample: 256,
        contamination: 0.01,
        ring: 1024,
        detect: config::Detect {
            window: Duration::from_secs(10),
            udp_window: Duration::from_secs(10),
            port_scan: 25,
            host_sweep: 25,
            admin_sweep: 25,
            syn_flood: 200,
            udp_flood: 5000,
            icmp_flood: 2000,
            ..config::Detect::default()
        },
        pairs: Default::default(),
        ..config::Scorer::default()
    }
}

/// Makes records as a flow table would: ids in order of start, emitted when they end or time out.
struct Traffic {
    records: Vec<FlowRecord>,
    rng: Pcg32,
}

fn addr(text: &str) -> u128 {
    from_ip_addr(text.parse().unwrap()).1
}

impl Traffic {
    fn new(seed: u64) -> Self {
        Self { records: Vec::new(), rng: Pcg32::seed_from_u64(seed) }
    }

    fn below(&mut self, n: u64) -> u64 {
        u64::from(self.rng.next_u32()) % n
    }

    /// `at` in nanoseconds since the start of the traffic.
    fn push(&mut self, at: u64, src: u128, dst: u128, protocol: u8, dst_port: u16, shape: FlowRecord) {
        let src_port = if protocol == 1 { 0 } else { 32_768 + self.below(28_000) as u16 };
        let start = EPOCH + at;
        let end = start + shape.end;
        let wait = match (protocol, shape.state) {
            (6, FlowState::Closed) => 5 * SECOND,
            (6, FlowState::New) => 30 * SECOND,
            (6, _) => 300 * SECOND,
            _ => 30 * SECOND,
        };
        self.records.push(FlowRecord {
            flow_id: self.records.len() as u64 + 1,
            tuple: Tuple { src, dst, src_port, dst_port, protocol, version: 4, ..Tuple::default() },
            start,
            end,
            emitted: end + wait,
            reason: EndReason::Idle,
            ..shape
        });
    }

    /// A TCP connection with data.
    fn tcp(&mut self, at: u64, src: u128, dst: u128, port: u16, up: u64, down: u64, lasts: u64) {
        let (there, back) = (4 + down / 2900, 3 + up / 2900 + down / 1448);
        let shape = FlowRecord {
            end: lasts,
            packets: [there, back],
            bytes: [there * 66 + up, back * 66 + down],
            payload_bytes: [up, down],
            tcp_flags: [0x1b, 0x1b],
            state: FlowState::Closed,
            sizes: Spread { min: 66, max: 1514, ..Spread::default() },
            ..FlowRecord::default()
        };
        self.push(at, src, dst, 6, port, shape);
    }

    /// A SYN and, with `answer` flags, a segment back.
    fn syn(&mut self, at: u64, src: u128, dst: u128, port: u16, answer: u8, packets: u64) {
        let back = u64::from(answer != 0);
        let shape = FlowRecord {
            end: if back == 1 { MS } else { packets.saturating_sub(1).min(6) * SECOND },
            packets: [packets, back],
            bytes: [packets * 60, back * 60],
            tcp_flags: [0x02, answer],
            state: if answer & 0x04 != 0 { FlowState::Closed } else { FlowState::New },
            sizes: Spread { min: 60, max: 60, ..Spread::default() },
            ..FlowRecord::default()
        };
        self.push(at, src, dst, 6, port, shape);
    }

    fn datagrams(&mut self, at: u64, src: u128, dst: u128, port: u16, packets: [u64; 2], size: u64, lasts: u64) {
        let shape = FlowRecord {
            end: lasts,
            packets,
            bytes: [packets[0] * size, packets[1] * 120],
            payload_bytes: [packets[0] * (size - 42), packets[1] * 78],
            state: if packets[1] > 0 { FlowState::Established } else { FlowState::New },
            sizes: Spread { min: size, max: size, ..Spread::default() },
            ..FlowRecord::default()
        };
        self.push(at, src, dst, 17, port, shape);
    }

    fn ping(&mut self, at: u64, src: u128, dst: u128, packets: [u64; 2], lasts: u64) {
        let shape = FlowRecord {
            end: lasts,
            packets,
            bytes: [packets[0] * 98, packets[1] * 98],
            icmp: (8, 0),
            state: if packets[1] > 0 { FlowState::Established } else { FlowState::New },
            ..FlowRecord::default()
        };
        self.push(at, src, dst, 1, 0, shape);
    }

    /// Ten minutes of: a web server with 4 000 clients, a resolver that asks 500 servers, a NAT
    /// gateway whose clients browse 600 sites, a backup, pings, syslog, a health checker over 60
    /// hosts, QUIC; with the usual few failures everywhere.
    fn ordinary(&mut self) {
        let (web, dns, nat) = (addr("10.0.0.80"), addr("10.0.0.53"), addr("10.0.0.1"));
        for i in 0..24_000u64 {
            let at = i * 25 * MS;
            let client = addr("100.64.0.0") + u128::from(self.below(4000));
            if self.below(50) == 0 {
                self.syn(at, client, web, 443, 0x12, 1);
            } else {
                let (down, lasts) = (2000 + self.below(200_000), 20 * MS + self.below(4 * SECOND));
                self.tcp(at, client, web, 443, 400, down, lasts);
            }
        }
        for i in 0..30_000u64 {
            let server = addr("198.51.0.0") + u128::from(self.below(500));
            let answered = u64::from(self.below(20) != 0);
            self.datagrams(i * 20 * MS, dns, server, 53, [1, answered], 80, 10 * MS);
            let asker = addr("10.0.1.0") + u128::from(self.below(100));
            self.datagrams(i * 20 * MS + 1, asker, dns, 53, [1, 1], 80, 10 * MS);
        }
        for i in 0..12_000u64 {
            let site = addr("203.0.0.0") + u128::from(self.below(600));
            match self.below(20) {
                0 => self.syn(i * 50 * MS, nat, site, 443, 0x14, 1),
                1 => self.syn(i * 50 * MS, nat, site, 443, 0, 5),
                2..=5 => {
                    let up = 20 + self.below(400);
                    self.datagrams(i * 50 * MS, nat, site, 443, [up, up / 8 + 1], 700, 8 * SECOND);
                }
                _ => self.tcp(i * 50 * MS, nat, site, 443, 900, 30_000, 2 * SECOND),
            }
        }
        self.ordinary_rest();
    }

    fn ordinary_rest(&mut self) {
        let checker = addr("10.0.0.7");
        for i in 0..60u64 {
            self.tcp(i * 10 * SECOND, addr("10.0.0.90"), addr("10.0.0.91"), 873, 900_000_000, 30_000, 9 * SECOND);
            self.datagrams(i * 10 * SECOND, addr("10.0.0.92"), addr("10.0.0.93"), 514, [300, 0], 200, 9 * SECOND);
            self.ping(i * 10 * SECOND, checker, addr("10.0.0.80"), [10, 10], 9 * SECOND);
            // A reachability check of everything, and a traceroute.
            for host in 0..60u64 {
                let target = addr("10.0.2.0") + u128::from(host);
                self.tcp(i * 10 * SECOND + host * MS, checker, target, 22, 0, 0, MS);
                if host < 30 {
                    let port = 33_434 + host as u16 * 3;
                    self.datagrams(i * 10 * SECOND + host, checker, addr("203.0.0.9"), port, [1, 0], 74, 0);
                }
            }
            // Answers of the resolver to queries from before the capture: many ports, one host.
            for host in 0..40u16 {
                self.datagrams(i * 10 * SECOND, addr("10.0.0.54"), addr("10.0.1.1"), 40_000 + host, [1, 0], 120, 0);
                if let Some(r) = self.records.last_mut() {
                    r.tuple.src_port = 53;
                }
            }
        }
    }

    fn sorted(mut self) -> Vec<FlowRecord> {
        self.records.sort_by_key(|r| (r.emitted, r.start, r.flow_id));
        self.records
    }
}

struct Outcome {
    scored: Vec<ScoredRecord>,
    events: Vec<AlertEvent>,
    stats: Stats,
}

impl Outcome {
    fn closed(&self) -> Vec<&Alert> {
        let closed = |e: &AlertEvent| matches!(e, AlertEvent::Closed(_));
        self.events.iter().filter(|e| closed(e)).map(AlertEvent::alert).collect()
    }

    fn attacks(&self) -> Vec<&Alert> {
        self.closed().into_iter().filter(|a| a.kind != AlertKind::Outlier).collect()
    }
}

fn run(config: &config::Scorer, records: Vec<FlowRecord>) -> Outcome {
    let mut scorer = Scorer::new(config, 7);
    let (mut scored, mut events) = (Vec::new(), Vec::new());
    for r in records {
        scorer.observe(r, &mut |s| scored.push(s));
        events.extend(scorer.drain_alerts());
    }
    scorer.flush(&mut |s| scored.push(s));
    events.extend(scorer.drain_alerts());
    Outcome { scored, events, stats: scorer.stats() }
}

fn only(outcome: &Outcome, kind: AlertKind, actor: &str, victim: &str) -> Alert {
    let attacks = outcome.attacks();
    let brief: Vec<String> =
        attacks.iter().map(|a| format!("{} {} {} {}", a.kind.name(), a.actor, a.victim, a.count)).collect();
    assert_eq!(attacks.len(), 1, "{brief:?}");
    let alert = attacks[0];
    assert_eq!(
        (alert.kind, alert.actor.to_string().as_str(), alert.victim.to_string().as_str()),
        (kind, actor, victim)
    );
    let opened = outcome.events.iter().filter(|e| matches!(e, AlertEvent::Opened(a) if a.kind == kind)).count();
    assert_eq!(opened, 1);
    assert_eq!(alert.status, Status::Closed);
    assert!(alert.evidence.flow_ids.len() <= 5 && !alert.evidence.flow_ids.is_empty());
    alert.clone()
}

#[test]
fn ordinary_traffic_raises_no_scan_and_no_flood() {
    let mut traffic = Traffic::new(1);
    traffic.ordinary();
    let records = traffic.sorted();
    let count = records.len();
    let outcome = run(&settings(5000), records);
    let attacks: Vec<String> =
        outcome.attacks().iter().map(|a| format!("{} {} {}", a.kind.name(), a.actor, a.victim)).collect();
    assert!(attacks.is_empty(), "{attacks:?}");
    assert_eq!(outcome.scored.len(), count);
    assert!(outcome.stats.trained && outcome.stats.excluded == 0);
    assert!(outcome.closed().len() < 100, "{}", outcome.closed().len());
}

/// Each attack in the midst of ordinary traffic.
fn attacked(attack: impl FnOnce(&mut Traffic, u64)) -> Outcome {
    let mut traffic = Traffic::new(2);
    traffic.ordinary();
    attack(&mut traffic, 300 * SECOND);
    run(&settings(5000), traffic.sorted())
}

#[test]
fn port_scan_is_one_alert() {
    let outcome = attacked(|t, at| {
        for port in 1..=1000u16 {
            let (when, src, dst) = (at + u64::from(port) * 10 * MS, addr("192.0.2.66"), addr("10.0.2.5"));
            match port % 10 {
                0 => t.syn(when, src, dst, port, 0x12, 1),
                1..=4 => t.syn(when, src, dst, port, 0, 1),
                _ => t.syn(when, src, dst, port, 0x14, 1),
            }
        }
    });
    let alert = only(&outcome, AlertKind::PortScan, "192.0.2.66", "10.0.2.5");
    assert_eq!((alert.count, alert.evidence.distinct_ports, alert.severity), (1000, 1000, 1));
    assert_eq!(alert.evidence.ports.len(), 16);
    let flagged = outcome.scored.iter().filter(|s| s.flags.contains(AlertKind::PortScan)).count();
    assert!((970..=1000).contains(&flagged), "{flagged}");
}

#[test]
fn udp_scan_is_no_flood() {
    let outcome = attacked(|t, at| {
        for port in 0..20_000u16 {
            t.datagrams(at + u64::from(port) * MS / 4, addr("192.0.2.66"), addr("10.0.2.5"), port, [1, 0], 60, 0);
        }
    });
    let alert = only(&outcome, AlertKind::PortScan, "192.0.2.66", "10.0.2.5");
    // The ports of traceroute are not counted.
    assert_eq!(alert.evidence.distinct_ports, 20_000);
}

#[test]
fn sweeps_are_one_alert_each_actor() {
    let outcome = attacked(|t, at| {
        for host in 1..=254u64 {
            for (i, port) in [22u16, 23, 445, 3389].into_iter().enumerate() {
                let when = at + host * 20 * MS + i as u64 * MS;
                let target = addr("10.0.9.0") + u128::from(host);
                t.syn(when, addr("10.0.3.3"), target, port, if host % 9 == 0 { 0x14 } else { 0 }, 3);
            }
        }
    });
    let alert = only(&outcome, AlertKind::HostSweep, "10.0.3.3", "many");
    assert_eq!((alert.count, alert.evidence.distinct_hosts, alert.evidence.distinct_ports), (4 * 254, 254, 4));
    assert_eq!(alert.severity, 2);
    let outcome = attacked(|t, at| {
        for host in 1..=254u64 {
            let answered = u64::from(host % 10 == 0);
            t.ping(at + host * 10 * MS, addr("10.0.3.4"), addr("10.0.9.0") + u128::from(host), [1, answered], MS);
        }
    });
    only(&outcome, AlertKind::HostSweep, "10.0.3.4", "many");
}

#[test]
fn floods_name_victim_and_actor() {
    let outcome = attacked(|t, at| {
        for i in 0..8000u64 {
            let forged = u128::from(t.below(1 << 32));
            t.syn(at + i * MS, forged, addr("10.0.0.80"), 443, if i % 2 == 0 { 0x12 } else { 0 }, 1);
        }
    });
    let alert = only(&outcome, AlertKind::SynFlood, "many", "10.0.0.80");
    assert!((7900..=8200).contains(&alert.count), "{}", alert.count);
    assert_eq!(alert.severity, 1);
    assert_eq!(alert.evidence.ports, [443]);
    let outcome = attacked(|t, at| {
        t.datagrams(at, addr("192.0.2.1"), addr("10.0.2.7"), 9999, [90_000, 0], 1000, 30 * SECOND);
    });
    let alert = only(&outcome, AlertKind::UdpFlood, "192.0.2.1", "10.0.2.7");
    assert_eq!(alert.count, 90_000);
    // 30 000 in ten seconds; a flow is spread over whole buckets, so a little less.
    assert!((27_000..=30_500).contains(&alert.evidence.peak), "{}", alert.evidence.peak);
    let outcome = attacked(|t, at| {
        for i in 0..100u64 {
            t.ping(at + i * 10 * MS, addr("192.0.2.2"), addr("10.0.2.8"), [100, 100], SECOND);
        }
    });
    let alert = only(&outcome, AlertKind::IcmpFlood, "192.0.2.2", "10.0.2.8");
    assert_eq!(alert.count, 10_000);
    assert_eq!(alert.first_seen, EPOCH + 300 * SECOND);
}

#[test]
fn a_scan_of_many_hosts_is_a_few_alerts() {
    let outcome = attacked(|t, at| {
        for host in 0..100u64 {
            for port in 1..=60u16 {
                let when = at + (host * 60 + u64::from(port)) * MS;
                t.syn(when, addr("192.0.2.66"), addr("10.0.2.0") + u128::from(host), port, 0x14, 1);
            }
        }
    });
    let scans: Vec<&Alert> = outcome.attacks().into_iter().filter(|a| a.kind == AlertKind::PortScan).collect();
    assert_eq!(scans.len(), 9);
    assert_eq!(scans.iter().filter(|a| a.victim == Party::Many).count(), 1);
    assert_eq!(scans.iter().map(|a| a.count).sum::<u64>(), 6000);
    assert_eq!(outcome.attacks().len(), 10, "and one sweep");
}

#[test]
fn a_scan_during_the_warm_up_is_not_learnt() {
    let mut traffic = Traffic::new(3);
    traffic.ordinary();
    for port in 1..=2000u16 {
        traffic.syn(u64::from(port) * MS, addr("192.0.2.66"), addr("10.0.2.5"), port, 0x14, 1);
        traffic.syn(400 * SECOND + u64::from(port) * MS, addr("192.0.2.67"), addr("10.0.2.6"), port, 0x14, 1);
    }
    let outcome = run(&settings(5000), traffic.sorted());
    assert_eq!(outcome.stats.excluded, 2000);
    assert_eq!(outcome.stats.trained_on, 3000);
    let second: Vec<f32> =
        outcome.scored.iter().filter(|s| s.record.tuple.src == addr("192.0.2.67")).filter_map(|s| s.score).collect();
    let mean = second.iter().sum::<f32>() / second.len() as f32;
    assert!(second.len() == 2000 && mean > 0.95, "{mean}");
}

#[test]
fn outlier_alert_names_the_reason() {
    let outcome = attacked(|t, at| {
        for i in 0..6u64 {
            t.tcp(at + i * SECOND, addr("10.0.1.9"), addr("10.9.9.9"), 50_000, 4_000_000_000, 5000, 200 * SECOND);
        }
    });
    assert!(outcome.attacks().is_empty());
    let closed = outcome.closed();
    let alert = closed.iter().find(|a| a.actor.to_string() == "10.0.1.9").expect("an alert about the upload");
    assert_eq!((alert.kind, alert.victim.to_string().as_str()), (AlertKind::Outlier, "10.9.9.9"));
    assert!((2..=6).contains(&alert.count), "from the fifth on at the latest: {}", alert.count);
    assert!(alert.evidence.max_score.unwrap() >= 0.99);
    let names: Vec<&str> = alert.evidence.features.iter().map(|f| f.0).collect();
    let telling = ["bytes_to_server", "packet_size_to_server", "duration", "payload_share", "client_byte_share"];
    assert!(names.len() == 5 && names.iter().any(|n| telling.contains(n)), "{names:?}");
}

#[test]
fn same_input_same_output_however_it_is_drained() {
    let mut traffic = Traffic::new(4);
    traffic.ordinary();
    for port in 1..=300u16 {
        traffic.syn(200 * SECOND + u64::from(port) * MS, addr("192.0.2.66"), addr("10.0.2.5"), port, 0, 1);
    }
    let records = traffic.sorted();
    let whole = run(&settings(2000), records.clone());
    let mut scorer = Scorer::new(&settings(2000), 7);
    let (mut scored, mut events) = (Vec::new(), Vec::new());
    for (i, r) in records.into_iter().enumerate() {
        scorer.observe(r, &mut |s| scored.push(s));
        if i % 7 == 0 {
            scorer.drain(&mut |s| scored.push(s));
        }
        events.extend(scorer.drain_alerts());
    }
    scorer.flush(&mut |s| scored.push(s));
    events.extend(scorer.drain_alerts());
    assert!(scored == whole.scored);
    assert!(events == whole.events);
    assert_eq!(scorer.stats(), whole.stats);
}

#[test]
fn quiet_ends_an_episode_and_late_records_do_not_open_another() {
    let mut traffic = Traffic::new(5);
    for port in 1..=100u16 {
        traffic.syn(u64::from(port) * MS, 1, 2, port, 0x14, 1);
        traffic.syn(3000 * SECOND + u64::from(port) * MS, 1, 2, port, 0x14, 1);
    }
    // Half-open ones of the first scan, recorded minutes later.
    for port in 101..=200u16 {
        traffic.syn(u64::from(port) * MS, 1, 2, port, 0x12, 1);
        traffic.records.last_mut().unwrap().emitted = EPOCH + 400 * SECOND;
    }
    for i in 0..400u64 {
        traffic.tcp(i * 10 * SECOND, addr("10.0.0.8"), addr("10.0.0.9"), 80, 10, 10, MS);
    }
    let outcome = run(&settings(5000), traffic.sorted());
    let attacks = outcome.attacks();
    assert_eq!(attacks.len(), 2);
    assert_eq!((attacks[0].episode, attacks[0].count), (1, 100));
    assert_eq!((attacks[1].episode, attacks[1].count), (2, 100));
    assert!(!outcome.stats.trained && outcome.scored.iter().all(|s| s.score.is_none()));
}

#[test]
fn memory_is_bounded_under_random_traffic() {
    let mut scorer = Scorer::new(&settings(1000), 7);
    let mut traffic = Traffic::new(6);
    let mut events = 0;
    for i in 0..400_000u64 {
        let (src, dst) = (u128::from(traffic.below(1 << 32)), u128::from(traffic.below(1 << 32)));
        let port = traffic.below(65_536) as u16;
        match i % 3 {
            0 => traffic.syn(i * MS, src, dst, port, 0, 1),
            1 => traffic.datagrams(i * MS, src, dst, port, [1, 0], 60, 0),
            _ => traffic.ping(i * MS, src, dst, [1, 0], 0),
        }
        for mut r in traffic.records.drain(..) {
            r.emitted = EPOCH + i * MS;
            scorer.observe(r, &mut |_| {});
        }
        events += scorer.drain_alerts().count();
    }
    let stats = scorer.stats();
    assert!(stats.entries < 200_000, "{stats:?}");
    assert!(stats.evicted > 500_000, "{stats:?}");
    assert!(stats.trained && events < 1500, "{events}");
    let attacks = stats.alerts.iter().sum::<u64>() - stats.alerts[AlertKind::Outlier as usize];
    assert_eq!(attacks, 0);
}

#[test]
fn disabled_passes_records_through() {
    let mut traffic = Traffic::new(7);
    for port in 1..=100u16 {
        traffic.syn(u64::from(port) * MS, 1, 2, port, 0x14, 1);
    }
    let outcome = run(&config::Scorer { enabled: false, ..settings(10) }, traffic.sorted());
    assert_eq!(outcome.scored.len(), 100);
    assert!(outcome.events.is_empty() && outcome.scored.iter().all(|s| s.score.is_none() && s.flags.is_empty()));
}
