//! Wrong configurations: every error is found, at its line and field, with the right suggestion.

use std::path::PathBuf;
use std::time::Duration;

use gnomon::behaviour::AlertKind;
use gnomon::config::{self, Config, ConfigErrors};
use gnomon::flow::{TcpRules, WindowCheck};
use gnomon::mirror::Sample;
use gnomon::packet::KeyFrom;
use gnomon::rules::{Action, Decision, GroupIx, LiveFlows, Mode, Selector, Tier};
use proptest::prelude::*;

/// Configuration, then `(line, field, part of the message, suggestion)` of each error in order.
type Case = (&'static str, &'static [(usize, &'static str, &'static str, Option<&'static str>)]);

const POLICY: &str = "[policy]\ndefault = 'deny'\n";

/// Every text stands after the two lines of [`POLICY`], so its first line is line 3.
const CASES: &[Case] = &[
    // Keys.
    ("[corse]", &[(3, "corse", "unknown table or key", Some("cores"))]),
    ("[cores]\nworker = [1]", &[(4, "cores.worker", "unknown key `worker`", Some("workers"))]),
    ("[flow.timeouts]\ntcp_openning = '1s'", &[(4, "flow.timeouts.tcp_openning", "unknown key", Some("tcp_opening"))]),
    ("[[rules]]\nid = 'a'", &[(3, "rules", "unknown table", Some("rule"))]),
    ("[rule]\nid = 'a'", &[(3, "rule", "wrong type", Some("[[rule]]"))]),
    ("[[cores]]\nmain = 0", &[(3, "cores", "wrong type", Some("[cores]"))]),
    ("[[rule]]\nid = 'a'", &[(3, "rule[0].action", "`action` is missing", None)]),
    // Types, words, ranges.
    ("[cores]\nworkers = []", &[(4, "cores.workers", "wrong number of items", None)]),
    ("[cores]\nworkers = [1, 'x']", &[(4, "cores.workers[1]", "wrong type", None)]),
    ("[cores]\nscorer = 'anny'", &[(4, "cores.scorer", "cannot be `anny`", Some("any"))]),
    ("[cores]\nmain = '0'", &[(4, "cores.main", "wrong type", Some("0"))]),
    ("[cores]\nmain = -1", &[(4, "cores.main", "out of range", None)]),
    ("[limits]\nrules = 99999999999999999999", &[(4, "limits.rules", "out of range", None)]),
    ("[scorer]\ncontamination = 0.9", &[(4, "scorer.contamination", "out of range", None)]),
    ("[scorer]\ncontamination = nan", &[(4, "scorer.contamination", "wrong type", None)]),
    ("[scorer]\nenabled = 1979-05-27", &[(4, "scorer.enabled", "wrong type", None)]),
    ("[eal]\nmemory = '512MB'", &[(4, "eal.memory", "right form", Some("\"512MiB\""))]),
    ("[eal]\nmemory = '32MiB'\nmbufs = 1024", &[(4, "eal.memory", "out of range", None)]),
    ("[eal]\nmemory = '64MiB'\nmbufs = 65536", &[(4, "eal.memory", "need about 144MiB", None)]),
    ("[flow.timeouts]\nudp = 60", &[(4, "flow.timeouts.udp", "wrong type", Some("\"60s\""))]),
    ("[flow.timeouts]\nudp = '0s'", &[(4, "flow.timeouts.udp", "out of range", None)]),
    ("[flow]\ntcp_window = 'strickt'", &[(4, "flow.tcp_window", "cannot be", Some("strict"))]),
    ("[flow.timeouts]\nudp_answered = 9", &[(4, "flow.timeouts.udp_answered", "wrong type", None)]),
    ("[flow]\nkey = 'innner'", &[(4, "flow.key", "cannot be", Some("inner"))]),
    ("[[rule]]\nid = 'a'\naction = 'alow'", &[(5, "rule[0].action", "cannot be `alow`", Some("allow"))]),
    ("[[rule]]\nid = 'a b'\naction = 'allow'", &[(4, "rule[0].id", "right form", None)]),
    ("[[rule]]\nid = 'a'\naction = 'allow'\ntier = 'default'", &[(6, "rule[0].tier", "cannot be `default`", None)]),
    ("[[rule]]\nid = 'a'\naction = 'deny'\nmode = 'shadw'", &[(6, "rule[0].mode", "cannot be", Some("shadow"))]),
    // Detectors.
    ("[scorer.detect]\nport_scan = 0", &[(4, "scorer.detect.port_scan", "out of range", None)]),
    ("[scorer.detect]\nslow_window = '1s'", &[(4, "scorer.detect.slow_window", "shorter than `window`", None)]),
    ("[scorer.detect]\ninside = ['10.0.0.0/8', 'here']", &[(4, "scorer.detect.inside[1]", "not a network", None)]),
    ("[[detect]]\nkinds = ['port_scn']\nexclude = true", &[(4, "detect[0].kinds[0]", "cannot be", Some("port_scan"))]),
    ("[[detect]]\nfrom = '10.0.0.1'", &[(3, "detect[0]", "either that there is no alert", None)]),
    (
        "[[detect]]\nkinds = ['volume']\nexclude = true\nthreshold = 5",
        &[(3, "detect[0]", "either that there is no alert", None)],
    ),
    ("[[detect]]\nthreshold = 5", &[(3, "detect[0]", "for one of them", None)]),
    ("[[detect]]\nfrom = 'nobody'\nexclude = true", &[(4, "detect[0].from", "unknown group `nobody`", None)]),
    // Outputs.
    ("[export]\nrotate_size = '0MiB'", &[(4, "export.rotate_size", "out of range", None)]),
    ("[export]\nrotate_every = '500ms'", &[(4, "export.rotate_every", "too short", None)]),
    ("[export]\nkeep = 0", &[(4, "export.keep", "out of range", None)]),
    ("[export]\nrotate_sise = '1MiB'", &[(4, "export.rotate_sise", "unknown key", Some("rotate_size"))]),
    ("[[export.socket]]\nkind = 'stream'", &[(3, "export.socket[0].path", "`path` is missing", None)]),
    (
        "[[export.socket]]\npath = 'a'\nkind = 'dgram'",
        &[(5, "export.socket[0].kind", "cannot be `dgram`", Some("datagram"))],
    ),
    (
        "[[export.socket]]\npath = 'a'\nevents = ['flows']",
        &[(5, "export.socket[0].events[0]", "cannot be `flows`", Some("flow"))],
    ),
    (
        "[[export.socket]]\npath = 'a'\n[[export.socket]]\npath = 'a'",
        &[(6, "export.socket[1].path", "two sockets with the path a", None)],
    ),
    ("[api]\nlisten = '0.0.0.0:8443'", &[(4, "api.listen", "only with a certificate", None)]),
    ("[api]\nlisten = '127.0.0.1:99999'", &[(4, "api.listen", "not an address and a port", None)]),
    ("[api]\nkey = 'a.key'", &[(4, "api.key", "without `certificate`", None)]),
    ("[api]\nclient_ca = 'ca.pem'", &[(4, "api.client_ca", "in TLS only", None)]),
    ("[api]\nrate = 0", &[(4, "api.rate", "out of range", None)]),
    ("[[api.client]]\nname = 'a'\nrole = 'admn'", &[(5, "api.client[0].role", "cannot be `admn`", Some("admin"))]),
    ("[metrics]\nlisten = 'localhost'", &[(4, "metrics.listen", "right form", None)]),
    ("[metrics]\nlisten = '127.0.0.1:99999'", &[(4, "metrics.listen", "not an address and a port", None)]),
    ("[metrics]\npressure_fill = '0%'", &[(4, "metrics.pressure_fill", "out of range", None)]),
    // Ports and pairs.
    (
        "[[port]]\nname = 'a'\ndevice = 'eth1'",
        &[(5, "port[0].device", "right form", Some("\"net_af_packet0,iface=eth1\""))],
    ),
    (
        "[[port]]\nname = 'a'\ndevice = 'net_null0'\n[[port]]\nname = 'a'\ndevice = 'net_null0,size=64'",
        &[(7, "port[1].name", "port `a` is defined twice", None), (8, "port[1].device", "used by two ports", None)],
    ),
    (
        "[[pair]]\nports = ['a', 'b']",
        &[(4, "pair[0].ports[0]", "unknown port `a`", None), (4, "pair[0].ports[1]", "unknown port `b`", None)],
    ),
    (
        "[[port]]\nname = 'wan'\ndevice = 'net_null0'\n[[pair]]\nports = ['wan', 'wna']",
        &[(7, "pair[0].ports[1]", "unknown port `wna`", Some("wan"))],
    ),
    (
        "[[port]]\nname = 'wan'\ndevice = 'net_null0'\n[[pair]]\nports = ['wan', 'wan']",
        &[(7, "pair[0].ports[1]", "paired with itself", None)],
    ),
    (
        "[eal]\npci_allow = ['03:00.0']\n[[port]]\nname = 'a'\ndevice = '0000:04:00.0'",
        &[(7, "port[0].device", "not in `eal.pci_allow`", None)],
    ),
    // VMs and groups.
    (
        "[[vm]]\nid = 'a'\naddresses = ['10.0.0.1/24', '52-54-00-00-00-01', '224.0.0.1']",
        &[
            (5, "vm[0].addresses[0]", "is not an address", Some("10.0.0.1")),
            (5, "vm[0].addresses[1]", "is not an address", Some("52:54:00:00:00:01")),
            (5, "vm[0].addresses[2]", "not the address of one machine", None),
        ],
    ),
    (
        "[[vm]]\nid = 'a'\naddresses = ['fd00::1']\n[[vm]]\nid = 'a'\naddresses = ['fd00:0::1']",
        &[(7, "vm[1].id", "VM `a` is defined twice", None), (8, "vm[1].addresses[0]", "given twice", None)],
    ),
    (
        "[[vm]]\nid = 'web-1'\n[[group]]\nname = 'g'\nvms = ['web-2']",
        &[(7, "group[0].vms[0]", "unknown VM `web-2`", Some("web-1"))],
    ),
    (
        "[[group]]\nname = 'any'\ncidrs = ['10.0.0.1/8', '10.0.0.0/33']\nvlans = [4095]\nmacs = ['x']",
        &[
            (4, "group[0].name", "cannot be called `any`", None),
            (5, "group[0].cidrs[0]", "bits beyond its prefix", Some("10.0.0.0/8")),
            (5, "group[0].cidrs[1]", "not a network", None),
            (6, "group[0].vlans[0]", "out of range", None),
            (7, "group[0].macs[0]", "not a MAC address", None),
        ],
    ),
    // Rules.
    (
        "[[group]]\nname = 'web'\n[[rule]]\nid = 'a'\nfrom = 'wbe'\nto = ['web', 'any']\naction = 'alow'",
        &[
            (7, "rule[0].from", "unknown group `wbe`", Some("web")),
            (8, "rule[0].to[1]", "`any` stands beside", None),
            (9, "rule[0].action", "cannot be", Some("allow")),
        ],
    ),
    ("[[rule]]\nid = 'a'\nfrom = []\naction = 'deny'", &[(5, "rule[0].from", "the list is empty", None)]),
    ("[[rule]]\nid = 'a'\nto = '10.0.0.256'\naction = 'deny'", &[(5, "rule[0].to", "not a network", None)]),
    (
        "[[rule]]\nid = 'a'\naction = 'deny'\n[[rule]]\nid = 'a'\naction = 'deny'",
        &[(7, "rule[1].id", "rule `a` is defined twice", None)],
    ),
    ("[[rule]]\nid = 'default'\naction = 'deny'", &[(4, "rule[0].id", "is taken", None)]),
    (
        "[[rule]]\nid = 'a'\nprotocol = 'tpc'\nports = [80, 70000]\naction = 'deny'",
        &[(5, "rule[0].protocol", "cannot be `tpc`", Some("tcp")), (6, "rule[0].ports[1]", "out of range", None)],
    ),
    ("[[rule]]\nid = 'a'\nports = ['90-80', 443]\naction = 'deny'", &[(5, "rule[0].ports[0]", "not a range", None)]),
    ("[[rule]]\nid = 'a'\nports = '80:90'\naction = 'deny'", &[(5, "rule[0].ports", "right form", Some("\"80-90\""))]),
    (
        "[[rule]]\nid = 'a'\nprotocol = 'icmp'\nports = 80\naction = 'deny'",
        &[(6, "rule[0].ports", "has no ports", None)],
    ),
    (
        "[[rule]]\nid = 'a'\nprotocol = 47\nfrom_ports = 80\naction = 'deny'",
        &[(6, "rule[0].from_ports", "protocol 47 has no ports", None)],
    ),
    (
        "[[rule]]\nid = 'a'\nprotocol = 'tcp'\nicmp_type = 8\naction = 'deny'",
        &[(6, "rule[0].icmp_type", "without protocol", None)],
    ),
    (
        "[[rule]]\nid = 'a'\nprotocol = 'icmp'\nicmp_type = 'echo-reqest'\naction = 'deny'",
        &[(6, "rule[0].icmp_type", "unknown ICMP message", Some("echo-request"))],
    ),
    (
        "[[rule]]\nid = 'a'\nprotocol = 'icmp'\nicmp_code = 1\naction = 'deny'",
        &[(6, "rule[0].icmp_code", "without `icmp_type`", None)],
    ),
    ("[[rule]]\nid = 'a'\naction = 'deny'\nstateful = true", &[(6, "rule[0].stateful", "only with action", None)]),
    (
        "[limits]\nrules = 1\n[[rule]]\nid = 'a'\naction = 'deny'\n[[rule]]\nid = 'b'\naction = 'deny'",
        &[(8, "rule[1]", "too many rules: 2", None)],
    ),
    // Mirrors.
    ("[[mirror]]\nname = 'm'\nto = 'tap'", &[(5, "mirror[0].to", "unknown port or target `tap`", None)]),
    ("[[mirror]]\nname = 'a/b'", &[(4, "mirror[0].name", "right form", None)]),
    (
        "[[mirror]]\nname = 'm'\nfrom = 'any'\ngroup = 'any'\ndirection = 'in'",
        &[
            (6, "mirror[0].group", "`group` beside `from`", None),
            (7, "mirror[0].direction", "`direction` beside `from`", None),
        ],
    ),
    ("[[mirror]]\nname = 'm'\npeer = 'any'", &[(5, "mirror[0].peer", "`peer` without `group`", None)]),
    ("[[mirror]]\nname = 'm'\nsample = '1/0'", &[(5, "mirror[0].sample", "right form", None)]),
    ("[[mirror]]\nname = 'm'\nsample = 100", &[(5, "mirror[0].sample", "wrong type", Some("\"1/100\""))]),
    (
        "[[mirror]]\nname = 'm'\nsample = '1/2'\nflows = '200%'",
        &[(6, "mirror[0].flows", "`flows` beside `sample`", None), (6, "mirror[0].flows", "out of range", None)],
    ),
    (
        "[[mirror]]\nname = 'm'\nverdicts = ['denny']",
        &[(5, "mirror[0].verdicts[0]", "cannot be `denny`", Some("deny"))],
    ),
    (
        "[[target]]\nname = 't'\n[[mirror]]\nname = 'm'\nto = 'tt'",
        &[(7, "mirror[0].to", "unknown port or target", Some("t"))],
    ),
    ("[[target]]\nname = 't'\nto = '192.0.2.1'", &[(5, "target[0].to", "`to` without `tunnel`", None)]),
    ("[[target]]\nname = 't'\ntunnel = 'vxlan'\nto = '192.0.2.1'", &[(3, "target[0].from", "`from` is missing", None)]),
    (
        "[[target]]\nname = 't'\ntunnel = 'vxlan'\nto = '192.0.2.1'\nfrom = '192.0.3.1/24'",
        &[(6, "target[0].to", "not on the link", None)],
    ),
    (
        "[[target]]\nname = 't'\ntunnel = 'vxlan'\nto = '192.0.2.1'\nfrom = '192.0.3.1/24'\ngateway = '192.0.2.254'",
        &[(8, "target[0].gateway", "not on the link", None)],
    ),
    (
        "[[target]]\nname = 't'\ntunnel = 'gre'\nto = '192.0.2.1'\nfrom = '192.0.2.3'\ngateway = '192.0.2.2'\nto_mac = '02:00:00:00:00:01'",
        &[(8, "target[0].gateway", "`gateway` beside `to_mac`", None)],
    ),
    (
        "[[target]]\nname = 't'\ntunnel = 'gre'\nto = '192.0.2.1'\nfrom = '192.0.2.3'\nhealth = 'tcp:70000'",
        &[(8, "target[0].health", "no such port", None)],
    ),
    ("[[target]]\nname = 't'\nmask = ['digits:13', 'card']", &[(5, "target[0].mask[1]", "`card` is no pattern", None)]),
    ("[[target]]\nname = 't'\nmask = ['all', 'text:x']", &[(5, "target[0].mask[0]", "`all` is no pattern", None)]),
    ("[[target]]\nname = 't'\nmask = 'hex:0'", &[(5, "target[0].mask", "`hex:0` is no pattern", None)]),
    ("[[target]]\nname = 't'\nslice = 'header'", &[(5, "target[0].slice", "", None)]),
    ("[[target]]\nname = 't'\nslice = 13", &[(5, "target[0].slice", "out of range", None)]),
    ("[[target]]\nname = 't'\ndedup = '1m'", &[(5, "target[0].dedup", "the window is too long", None)]),
    ("[[mirror]]\nname = 'm'\ndedup = '0ms'", &[(5, "mirror[0].dedup", "out of range", None)]),
    (
        "[[port]]\nname = 'p'\ndevice = 'net_null0'\nmtu = 1400\n[[target]]\nname = 't'\nport = 'p'\ntunnel = 'gre'\nto = '192.0.2.1'\nfrom = '192.0.2.2'\n[[mirror]]\nname = 'm'\nto = 't'",
        &[(7, "target[0].mtu", "takes no more than 1400", None)],
    ),
    ("[[target]]\nname = 't'\nhealth = 'arp'", &[(5, "target[0].health", "`health` without `tunnel`", None)]),
    (
        "[[target]]\nname = 't'\ntunnel = 'gre'\nto = '192.0.2.1'\nfrom = '192.0.2.3'\nhealth = 'ping'",
        &[(8, "target[0].health", "right form", None)],
    ),
    (
        "[[target]]\nname = 't'\ntunnel = 'gre'\nto = '192.0.2.1'\nfrom = '2001:db8::1'\nto_mac = '02:00:00:00:00:01'",
        &[(7, "target[0].from", "not of the same family", None)],
    ),
    (
        "[[target]]\nname = 't'\ntunnel = 'erspan2'\nto = '192.0.2.1'\nfrom = '192.0.2.2'\nto_mac = '02:00:00:00:00:01'\n[[mirror]]\nname = 'm'\nto = 't'\nid = 1024",
        &[(12, "mirror[0].id", "too large for the target's tunnel", None)],
    ),
    (
        "[[target]]\nname = 't'\ntunnel = 'gre'\nto = ['192.0.2.1', '192.0.2.2', '192.0.2.1']\nfrom = '192.0.2.3'\nto_mac = '02:00:00:00:00:01'",
        &[(6, "target[0].to[2]", "`192.0.2.1` is in the pool twice", None)],
    ),
    (
        "[[target]]\nname = 't'\ntunnel = 'gre'\nto = '192.0.2.1'\nfrom = '192.0.2.3'\nto_mac = ['02:00:00:00:00:01', '02:00:00:00:00:02']",
        &[(8, "target[0].to_mac", "`to_mac` does not fit `to`", None)],
    ),
    (
        "[[mirror]]\nname = 'm'\nfirst_packets = 3\nfirst_bytes = 3",
        &[(6, "mirror[0].first_bytes", "`first_bytes` beside `first_packets`", None)],
    ),
    (
        "[[rule]]\nid = 'web'\naction = 'deny'\n[[mirror]]\nname = 'm'\nrules = ['wep']",
        &[(8, "mirror[0].rules[0]", "unknown rule `wep`", Some("web"))],
    ),
    (
        "[[port]]\nname = 'wan'\ndevice = 'net_null0'\n[[mirror]]\nname = 'm'\nto = 'wan'\non = ['wna']",
        &[(9, "mirror[0].on[0]", "unknown port `wna`", Some("wan"))],
    ),
    ("[[mirror]]\nname = 'm'\n[[mirror]]\nname = 'm'", &[(6, "mirror[1].name", "mirror `m` is defined twice", None)]),
];

fn errors_of(text: &str) -> ConfigErrors {
    config::parse(text, "test.toml").err().unwrap_or_else(|| panic!("accepted:\n{text}"))
}

#[test]
fn every_error_is_found_where_it_is() {
    for (text, wanted) in CASES {
        let errors = errors_of(&format!("{POLICY}{text}\n")).errors;
        let found: Vec<_> = errors.iter().map(|e| (e.line, e.field.as_str(), e.suggestion.as_deref())).collect();
        let lines: Vec<_> = wanted.iter().map(|(line, field, _, suggestion)| (*line, *field, *suggestion)).collect();
        assert_eq!(found, lines, "\n{text}\n{errors:#?}");
        for (error, (_, _, message, _)) in errors.iter().zip(*wanted) {
            assert!(error.message.contains(message), "{message:?} is not in {:?}\n{text}", error.message);
            assert!(error.column > 0 && error.file == "test.toml");
        }
    }
}

#[test]
fn duplicates_name_both_lines() {
    let errors = errors_of("[[vm]]\nid = 'a'\n[[vm]]\nid = 'a'\n[[vm]]\nid = 'a'\n").errors;
    let lines: Vec<_> = errors.iter().map(|e| (e.line, e.related.as_ref().map(|r| r.line))).collect();
    assert_eq!(lines, [(4, Some(2)), (6, Some(2))]);
}

#[test]
fn rules_need_a_default() {
    let rule = "[[rule]]\nid = 'a'\naction = 'allow'\n";
    let errors = errors_of(rule).errors;
    assert_eq!((errors.len(), errors[0].line, errors[0].field.as_str()), (1, 1, "policy.default"));
    let errors = errors_of(&format!("\n[policy]\nnon_ip = 'deny'\n{rule}")).errors;
    assert_eq!((errors.len(), errors[0].line, errors[0].field.as_str()), (1, 2, "policy.default"));
    assert_eq!(config::parse("", "f").expect("empty is fine").policy.default, Decision::Allow);
}

#[test]
fn mirror_ports_stand_alone() {
    let ports = "[[port]]\nname = 'a'\ndevice = 'net_null0'\n[[port]]\nname = 'b'\ndevice = 'net_null1'\n\
                 [[pair]]\nports = ['a', 'b']\n";
    let errors = errors_of(&format!("{ports}[[mirror]]\nname = 'm'\nto = 'a'\n[[mirror]]\nname = 'n'\n")).errors;
    let found: Vec<_> = errors.iter().map(|e| (e.line, e.field.as_str(), e.related.as_ref().map(|r| r.line))).collect();
    assert_eq!(found, [(11, "mirror[0].to", Some(8)), (12, "mirror[1].to", None)]);
}

#[test]
fn exceptions_of_detectors_name_groups_networks_and_kinds() {
    let text = "[[group]]\nname = 'web'\ncidrs = ['10.1.0.0/16']\nvlans = [7]\n\
                [[detect]]\nfrom = ['web', '192.0.2.1']\nkinds = ['port_scan', 'host_sweep']\nexclude = true\n\
                [[detect]]\nto = 'any'\nkinds = ['syn_flood']\nthreshold = 9000\n";
    let detect = config::parse(text, "f").expect("good").scorer.detect;
    let [excluded, changed] = detect.exceptions.as_slice() else { panic!("{:?}", detect.exceptions) };
    let from = excluded.from.as_ref().expect("somebody");
    assert_eq!((from.nets.len(), from.vlans.as_slice()), (2, &[7][..]));
    assert_eq!((&excluded.to, excluded.threshold), (&None, None));
    assert_eq!(excluded.kinds, [AlertKind::PortScan, AlertKind::HostSweep]);
    assert_eq!((&changed.from, &changed.to, changed.threshold), (&None, &None, Some(9000)));
}

#[test]
fn at_most_64_mirrors() {
    let many = |n: usize| (0..n).map(|i| format!("[[mirror]]\nname = 'm{i}'\n")).collect::<String>();
    assert_eq!(config::parse(&many(64), "f").expect("64 are fine").mirrors.len(), 64);
    let errors = errors_of(&many(65)).errors;
    assert_eq!((errors[0].line, errors[0].field.as_str()), (129, "mirror[64]"));
}

#[test]
fn all_syntax_errors_come_with_their_lines() {
    let errors = errors_of("seed = \n[cores\nmain = 0\n[eal]\nmbufs = 1024\nmbufs = 2048\n").errors;
    let lines: Vec<_> = errors.iter().map(|e| e.line).collect();
    assert!(lines.contains(&1) && lines.contains(&2) && lines.contains(&6), "{errors:#?}");
}

#[test]
fn errors_read_like_a_compiler() {
    let text =
        "[policy]\ndefault = 'deny'\n[[group]]\nname = 'web'\n[[rule]]\nid = 'a'\n\tfrom = 'wbe'\naction = 'allow'\n";
    let shown = errors_of(text).to_string();
    let wanted = "error: unknown group `wbe`\n --> test.toml:7:9 (rule[0].from)\n  |\n7 | \tfrom = 'wbe'\n  | \t       ^^^^^\n  \
                  = found: `wbe`\n  = allowed: a group (`web`), a network, an address or `any`\n  \
                  = help: did you mean: web\n\ntest.toml: 1 error";
    assert_eq!(shown, wanted);
    let json = serde_json::to_value(errors_of(text)).expect("JSON");
    assert_eq!(json[0]["field"], "rule[0].from");
    assert_eq!(json[0]["suggestion"], "web");
}

#[test]
fn warnings_do_not_prevent() {
    let text = format!(
        "{POLICY}[[vm]]\nid = 'a'\naddresses = ['10.0.0.1']\ntags = ['role=web']\n[[group]]\nname = 'g'\ntags = ['role=wbe']\n\
         [[rule]]\nid = 'r'\nfrom = 'g'\nto = 'fd00::/8'\nvni = 5\naction = 'allow'\n\
         [[rule]]\nid = 's'\nfrom = '10.0.0.0/8'\nto = 'fd00::/8'\naction = 'allow'\n"
    );
    let (_, warnings) = config::check_text(&text, "f").expect("only warnings");
    let found: Vec<_> = warnings.iter().map(|w| (w.line, w.field.as_str(), w.suggestion.as_deref())).collect();
    let wanted = [
        (7, "group[0]", None),
        (9, "group[0].tags[0]", Some("role=web")),
        (12, "rule[0].from", None),
        (14, "rule[0].vni", None),
        (16, "rule[1]", None),
    ];
    assert_eq!(found, wanted, "{warnings:#?}");
}

#[test]
fn a_file_becomes_what_it_says() {
    let text = r#"
seed = 9
[cores]
workers = [2, 3]
scorer = "any"
[eal]
memory = "1GiB"
[policy]
default = "reject"
non_ip = "deny"
live_flows = "drop"
[[vm]]
id = "web-1"
addresses = ["10.0.1.10", "FD00::10", "52:54:00:00:00:0A"]
tags = ["role=web", "env=prod"]
[[vm]]
id = "web-2"
addresses = ["10.0.1.11"]
tags = ["role=web", "env=test"]
[[group]]
name = "web"
tags = ["role=web", "env=prod"]
cidrs = ["10.0.1.10", "10.9.0.0/16"]
vlans = [5]
[[rule]]
id = "r"
from = ["web", "192.168.0.0/16"]
protocol = "icmp"
icmp_type = "port-unreachable"
action = "allow"
stateful = false
tier = "override"
mode = "shadow"
priority = 5
[[rule]]
id = "dns"
ports = [53, "8000-8100"]
action = "log"
[[mirror]]
name = "m"
group = "web"
ports = 443
flows = "10%"
verdicts = ["deny"]
[flow]
key = "inner"
[flow.timeouts]
udp = "2m"
"#;
    let config = config::parse(text, "f").expect("good");
    assert_eq!((config.seed, config.cores.scorer, config.eal.memory_mb), (9, None, 1024));
    assert_eq!((config.policy.default, config.non_ip), (Decision::Reject, Decision::Deny));
    assert_eq!((config.live_flows, Config::minimal().live_flows), (LiveFlows::Drop, LiveFlows::Recheck));
    assert_eq!(config.vms[0].addresses, ["10.0.1.10", "fd00::10", "52:54:00:00:00:0a"]);
    let web = &config.policy.groups[0];
    let nets: Vec<_> = web.nets.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.0.1.10/32", "fd00::10/128", "10.9.0.0/16"]);
    assert_eq!((web.macs.len(), web.vlans.as_slice()), (1, [5].as_slice()));
    let [rule, dns] = &config.policy.rules[..] else { panic!("two rules") };
    assert_eq!(rule.matches.from[0], Selector::Group(GroupIx(0)));
    assert!(matches!(rule.matches.from[1], Selector::Net(_)) && rule.matches.to.is_empty());
    assert_eq!((rule.matches.protocol, rule.matches.icmp), (Some(1), Some((3, Some(3)))));
    assert_eq!((rule.tier, rule.mode, rule.priority, rule.stateful), (Tier::Override, Mode::Shadow, 5, false));
    assert_eq!((dns.action, dns.stateful, dns.priority), (Action::Log, false, 1000));
    assert_eq!(dns.matches.to_ports, [53..=53, 8000..=8100]);
    let mirror = &config.policy.mirrors[0];
    assert_eq!(mirror.decisions, [Decision::Deny]);
    // Requests out and in, and the replies to both.
    assert_eq!(mirror.any_of.len(), 4);
    assert!(mirror.any_of.iter().all(|m| m.to_ports == [443..=443] || m.from_ports == [443..=443]));
    assert_eq!((config.mirrors[0].sample, config.mirrors[0].port), (Sample::Flows(0.1), 2));
    assert_eq!((config.flow.key_from, config.flow.timeouts.udp), (KeyFrom::Inner, Duration::from_secs(120)));
    assert_eq!(config.flow.timeouts.icmp, Duration::from_secs(30));
}

#[test]
fn finer_timeouts_follow_the_coarser_ones_that_are_given() {
    let timeouts = |text: &str| config::parse(&format!("[flow.timeouts]\n{text}"), "f").expect("good").flow.timeouts;
    let secs = Duration::from_secs;
    let plain = timeouts("");
    assert_eq!((plain.tcp_syn_received, plain.tcp_closing, plain.udp_answered), (secs(10), secs(240), secs(180)));
    let coarse = timeouts("tcp_opening = '3s'\ntcp_established = '100s'\nudp = '30s'");
    assert_eq!((coarse.tcp_syn_received, coarse.tcp_closing, coarse.udp_answered), (secs(3), secs(100), secs(30)));
    assert_eq!(timeouts("tcp_established = '2h'").tcp_closing, secs(240));
    let fine = timeouts("udp = '30s'\nudp_answered = '90s'\ntcp_syn_received = '4s'\ntcp_closing = '5s'");
    assert_eq!((fine.tcp_syn_received, fine.tcp_closing, fine.udp_answered), (secs(4), secs(5), secs(90)));
}

#[test]
fn tcp_rules_are_read_and_one_way_cannot_be_strict() {
    let rules = |text: &str| config::parse(&format!("[flow]\n{text}"), "f").expect("good").flow.tcp;
    assert_eq!(rules(""), TcpRules { window: WindowCheck::Loose, asymmetric: false });
    assert_eq!(rules("tcp_window = 'strict'"), TcpRules { window: WindowCheck::Strict, asymmetric: false });
    assert_eq!(rules("tcp_window = 'off'\nasymmetric = true").window, WindowCheck::Off);
    let (_, warnings) = config::check_text("[flow]\nasymmetric = true\ntcp_window = 'strict'\n", "f").expect("good");
    assert!(warnings.iter().any(|w| w.to_string().contains("one way only")), "{warnings:?}");
}

#[test]
fn both_without_ports_is_two_matches() {
    let text = "[[group]]\nname = 'g'\nvlans = [1]\n[[mirror]]\nname = 'm'\ngroup = 'g'\n";
    let config = config::parse(text, "f").expect("good");
    let group = vec![Selector::Group(GroupIx(0))];
    let sides: Vec<_> = config.policy.mirrors[0].any_of.iter().map(|m| (m.from.clone(), m.to.clone())).collect();
    assert_eq!(sides, [(group.clone(), vec![]), (vec![], group)]);
}

#[test]
fn an_empty_file_is_the_default() {
    let parsed = Config { source: None, ..config::parse("", "f").expect("good") };
    let default = Config::default_pair();
    assert_eq!(format!("{parsed:?}"), format!("{default:?}"));
    assert!(default.require_ports().expect_err("no ports").contains("[[port]]"));
    assert!(!Config::minimal().scorer.enabled);
}

#[test]
fn files_that_cannot_be_read_are_reported() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let missing = config::load(&folder.path().join("no.toml")).expect_err("missing");
    assert!(missing.to_string().contains("cannot read the configuration"), "{missing}");
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, b"seed = 1\n# \xff\n").expect("write");
    let errors = config::load(&binary).expect_err("not UTF-8");
    assert!(errors.errors[0].message.contains("line 2"), "{errors}");
}

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config")
}

#[test]
fn the_examples_are_good() {
    let mut seen = 0;
    for entry in std::fs::read_dir(examples()).expect("config/") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|e| e == "toml") {
            let (config, warnings) = config::check_file(&path).unwrap_or_else(|errors| panic!("{errors}"));
            assert!(warnings.is_empty(), "{}: {warnings:#?}", path.display());
            assert_eq!(config.require_ports().is_ok(), !path.ends_with("demo.toml"), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} examples");
}

#[test]
fn the_published_schema_is_the_one_in_use() {
    let text = std::fs::read_to_string(examples().join("gnomon.schema.json")).expect("config/gnomon.schema.json");
    let published: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(
        published == config::json_schema(),
        "config/gnomon.schema.json is out of date: gnomon check --schema > config/gnomon.schema.json"
    );
}

/// Pieces that files are made of, so that random files get further than the first byte.
fn pieces() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "[[rule]]\n",
        "[[vm]]\n",
        "[[group]]\n",
        "[[mirror]]\n",
        "[[port]]\n",
        "[[pair]]\n",
        "[policy]\n",
        "[flow]\n",
        "[flow.timeouts]\n",
        "[cores]\n",
        "[rule]\n",
        "id = 'a'\n",
        "name = 'a'\n",
        "name = 5\n",
        "from = 'a'\n",
        "to = ['a', 5, {}]\n",
        "ports = [80, '5-1', [1]]\n",
        "ports = {a = 1}\n",
        "protocol = 'icmp'\n",
        "action = 'deny'\n",
        "icmp_type = 'x'\n",
        "addresses = ['10.0.0.1', 'é']\n",
        "tags = ['t']\n",
        "device = 'net_null0'\n",
        "vlan = -1\n",
        "rule = 1\n",
        "rule = [1, {}]\n",
        "udp = '99999999999d'\n",
        "a.b.c = 1\n",
        "workers = [[1]]\n",
        "vni = 1e9\n",
        "seed = 0x7fffffffffffffff\n",
        "default = 'deny'\n",
        "sample = '1/999999999'\n",
        "flows = '999%'\n",
        "peer = []\n",
        "\u{feff}",
        "\r\n",
        "\u{0}",
        "'''",
        "\"",
        "]",
        "}",
    ]);
    prop_oneof![8 => fixed.prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in any::<String>()) {
        if let Err(errors) = config::parse(&text, "f") {
            prop_assert!(!errors.errors.is_empty());
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn no_likely_text_panics(parts in prop::collection::vec(pieces(), 0..24)) {
        let text = parts.concat();
        if let Err(errors) = config::parse(&text, "f") {
            prop_assert!(!errors.errors.is_empty());
            prop_assert!(!errors.to_string().is_empty());
            for error in &errors.errors {
                prop_assert!(error.line >= 1 && error.line <= text.matches('\n').count() + 1);
            }
        }
    }

    #[test]
    fn no_field_takes_any_value_badly(value in "[ -~]{0,12}", key in prop::sample::select(vec![
        "from", "to", "protocol", "ports", "icmp_type", "vlan", "vni", "priority", "id",
    ])) {
        for quoted in [format!("'{}'", value.replace('\'', "")), value.clone()] {
            let text = format!("[policy]\ndefault = 'deny'\n[[rule]]\n{key} = {quoted}\naction = 'deny'\n");
            let _ = config::parse(&text, "f");
        }
    }
}
