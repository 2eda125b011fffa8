//! The classification engine, DPDK's rte_acl and linear search give the same rule for every packet.
//!
//! Data: `$GNOMON_SHARED/classbench`, sets of rules with traces; those of more than 10,000 rules only when
//! `GNOMON_ALL_SETS` is set, because rte_acl builds each of them for up to half a minute. Generated sets always.

mod common;

#[path = "../bench/classbench.rs"]
mod classbench;
#[path = "../bench/generate.rs"]
mod generate;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use gnomon::dpdk::{Acl, AclAlgorithm, AclRule, Eal, EalOptions, FiveTuple, FiveTuple6};
use gnomon::trie::{Engine, Isa, NO_ROW};

use classbench::{RuleSet, acl_found, derive_trace, engine_found, linear, read_rules, read_trace, rows, sampling_step};
use generate::{Flavour, generate};

/// Rules times packets that linear search looks at, per trace.
const LINEAR_LIMIT: usize = 100_000_000;
const LINEAR_SAMPLE: usize = 2000;
const USUAL_RULES: usize = 10_000;

/// DPDK starts once per process; tests share it and take turns.
fn eal() -> (Arc<Eal>, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    static EAL: OnceLock<Arc<Eal>> = OnceLock::new();
    let start = || {
        let options = EalOptions {
            lcores: vec![vec![0]],
            hugepages: false,
            memory_mb: 2048,
            file_prefix: format!("gnomon-classbench-{}", std::process::id()),
            pci_allow: vec![],
        };
        Arc::new(Eal::start(&options).expect("DPDK starts without hugepages"))
    };
    (EAL.get_or_init(start).clone(), turn)
}

/// Every packet of every trace, by every kernel: against rte_acl all, against linear search as many as the limit allows.
fn agree(set: &RuleSet) {
    let (eal, _turn) = eal();
    let engine = Engine::build(&rows(&set.rules)).expect("the engine builds");
    let tree = |isa: &Isa| (format!("tree kernel, {isa:?}"), engine.clone().tree_only().with_isa(*isa));
    let kernels = std::iter::once(("kernel of its choice".to_owned(), engine.clone()));
    let kernels: Vec<(String, Engine)> = kernels.chain(Isa::available().iter().map(tree)).collect();
    let acl = Acl::build(&eal, &set.rules, 0).expect("rte_acl builds");
    for trace in &set.traces {
        let (what, packets) = (format!("{} {}", set.name, trace.name), &trace.packets);
        let truth = acl_found(&acl, packets);
        let step = sampling_step(set.rules.len(), packets.len(), LINEAR_LIMIT, LINEAR_SAMPLE);
        let searched: Vec<usize> = (0..packets.len()).step_by(step).collect();
        let oracle: Vec<u32> = searched.iter().map(|at| linear(&set.rules, &packets[*at])).collect();
        let peer: Vec<u32> = searched.iter().map(|at| truth[*at]).collect();
        let searched: Vec<FiveTuple> = searched.iter().map(|at| packets[*at]).collect();
        same(&format!("{what}: rte_acl and linear search"), &searched, &peer, &oracle);
        for (kernel, engine) in &kernels {
            same(&format!("{what}: {kernel} and rte_acl"), packets, &engine_found(engine, packets), &truth);
        }
    }
}

fn same(what: &str, packets: &[FiveTuple], ours: &[u32], theirs: &[u32]) {
    assert_eq!((ours.len(), theirs.len()), (packets.len(), packets.len()), "{what}: a result for each packet");
    let both = packets.iter().zip(ours.iter().zip(theirs));
    let wrong: Vec<_> = both.filter(|(_, (one, other))| one != other).collect();
    assert!(wrong.is_empty(), "{what}: {} differ, such as {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn classbench_sets() {
    let Some(folder) = common::shared("classbench_sets") else { return };
    let limit = if std::env::var_os("GNOMON_ALL_SETS").is_some() { usize::MAX } else { USUAL_RULES };
    let sets = classbench::list(&folder.join("classbench")).expect("the folder of sets");
    assert!(!sets.is_empty(), "{} has sets", folder.display());
    for files in sets.into_iter().filter(|files| files.size <= limit) {
        agree(&RuleSet::read(&files.rules, &files.traces).expect("well-formed files"));
    }
}

#[test]
fn generated_sets() {
    // Of the last one, most rules have port ranges that no other has: more than fit a set.
    let sets = [(Flavour::Acl, 300), (Flavour::Firewall, 300), (Flavour::Firewall, 2000), (Flavour::Ranges, 2000)];
    for ((flavour, count), seed) in sets.into_iter().zip(1..) {
        let mut set = RuleSet::derived(format!("{flavour:?} {count}"), generate(flavour, count, seed));
        set.traces.iter_mut().for_each(|trace| trace.packets.truncate(20_000));
        agree(&set);
    }
}

#[test]
fn every_algorithm_of_rte_acl_finds_what_linear_search_finds() {
    let (eal, _turn) = eal();
    let rules = generate(Flavour::Firewall, 500, 4);
    let packets = derive_trace(&rules, 5000, 5);
    let oracle: Vec<u32> = packets.iter().map(|packet| linear(&rules, packet)).collect();
    assert!(oracle.iter().all(|found| *found != NO_ROW), "made from rules");
    assert!(oracle.iter().collect::<HashSet<_>>().len() > 100, "many rules are found");
    let mut acl = Acl::build(&eal, &rules, 0).expect("builds");
    assert!((1000..10_000_000).contains(&acl.memory_bytes()), "{} bytes", acl.memory_bytes());
    let algorithms = acl.algorithms();
    assert!(algorithms.contains(&AclAlgorithm::Scalar));
    for algorithm in algorithms {
        acl.select(algorithm).expect("said to be available");
        assert!(acl_found(&acl, &packets) == oracle, "{}", algorithm.name());
    }
}

#[test]
fn rte_acl_finds_prefixes_of_ipv6_across_its_words() {
    let (eal, _turn) = eal();
    let rules = generate(Flavour::Firewall, 500, 4);
    let packets = derive_trace(&rules, 5000, 5);
    let long = |address: u32| 0x2001_0db8_0001_u128 << 80 | u128::from(address) << 48;
    let side = |(address, len): (u32, u8)| if len == 0 { (0, 0) } else { (long(address), len + 48) };
    let rule6 = |rule: &AclRule| {
        let AclRule { protocol, protocol_mask, src, dst, src_ports, dst_ports } = rule.clone();
        AclRule { protocol, protocol_mask, src: side(src), dst: side(dst), src_ports, dst_ports }
    };
    let packet6 = |packet: &FiveTuple| {
        let FiveTuple { protocol, padding, src, dst, src_port, dst_port } = *packet;
        let [src, dst] = [src, dst].map(|address| long(u32::from_be_bytes(address)).to_be_bytes());
        FiveTuple6 { protocol, padding, src, dst, src_port, dst_port }
    };
    let rules6: Vec<AclRule<u128>> = rules.iter().map(rule6).collect();
    let mut acl = Acl::<FiveTuple6>::build(&eal, &rules6, 0).expect("builds");
    for algorithm in acl.algorithms() {
        acl.select(algorithm).expect("said to be available");
        for packet in &packets {
            let mut found = [0];
            acl.classify(&[&packet6(packet)], &mut found);
            assert_eq!(found[0].checked_sub(1).unwrap_or(NO_ROW), linear(&rules, packet), "{}", algorithm.name());
        }
    }
}

#[test]
fn rte_acl_refuses_what_it_cannot_build() {
    let (eal, _turn) = eal();
    let rules = generate(Flavour::Firewall, 500, 4);
    let error = Acl::<FiveTuple>::build(&eal, &rules, 1000).expect_err("1000 bytes are not enough").to_string();
    assert!(error.contains("500 rules"), "{error}");
}

#[test]
fn reads_rules_and_traces_and_says_where_they_are_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let rule = "@10.1.2.3/8\t192.0.2.7/32\t0 : 65535\t80 : 88\t0x06/0xFF\t0x0000/0x0200\t\n";
    let rules = read_rules(&file("good.rules", rule)).expect("well formed");
    let expected = AclRule {
        protocol: 6,
        protocol_mask: 0xff,
        src: (0x0a00_0000, 8),
        dst: (0xc000_0207, 32),
        src_ports: 0..=65535,
        dst_ports: 80..=88,
    };
    assert_eq!(rules, [expected]);
    let packet = FiveTuple {
        protocol: 6,
        padding: [0; 3],
        src: [10, 9, 9, 9],
        dst: [192, 0, 2, 7],
        src_port: [0, 1],
        dst_port: [0, 80],
    };
    let line = "168364297 3221225991 1 80 6 0 17\n";
    assert_eq!(read_trace(&file("good.trace", line)).expect("well formed"), [packet]);
    assert_eq!(linear(&rules, &packet), 0);
    for (wrong, why) in [("80 : 88", "88 : 80"), ("/32", "/33"), ("0x06", "6"), ("@", ""), ("0xFF", "0x1FF")] {
        let path = file("bad.rules", &format!("{rule}\n{}", rule.replace(wrong, why)));
        let error = format!("{:#}", read_rules(&path).expect_err(why));
        assert!(error.contains("bad.rules:3: "), "{why}: {error}");
    }
    let error = format!("{:#}", read_trace(&file("bad.trace", "1 2 3 65536 6")).expect_err("a port"));
    assert!(error.contains("bad.trace:1: `65536`"), "{error}");
}
