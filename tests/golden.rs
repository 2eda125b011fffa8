//! Small captures, made here, against committed results. After a wanted change of results:
//! `GNOMON_GOLDEN=write cargo test --test golden`, and look at the difference before committing it.

mod common;

use std::path::{Path, PathBuf};

use common::captures;

const FILES: [&str; 4] = ["flows.jsonl", "packets.jsonl", "alerts.jsonl", "summary.json"];

const CONFIG: &str = r#"
seed = 3
[policy]
default = "deny"
[[group]]
name = "clients"
cidrs = ["10.0.1.0/24", "fd00:1::/64"]
[[group]]
name = "servers"
cidrs = ["10.0.2.0/24", "fd00:2::/64"]
[[rule]]
id = "names"
from = "clients"
to = "servers"
protocol = "udp"
ports = 53
action = "allow"
[[rule]]
id = "web"
from = "clients"
to = "servers"
protocol = "tcp"
ports = [80, 443]
action = "allow"
[[rule]]
id = "mail"
to = "servers"
protocol = "tcp"
ports = 25
action = "reject"
[[rule]]
id = "ping-would-be-denied"
protocol = "icmp"
action = "deny"
mode = "shadow"
[[rule]]
id = "ping"
protocol = "icmp"
action = "allow"
[[mirror]]
name = "servers"
group = "servers"
[[mirror]]
name = "refused"
group = "any"
verdicts = ["deny", "reject"]
"#;

/// Replays `capture` and compares everything it says with what is committed as `name`.
fn golden(name: &str, config: &str, capture: &[u8]) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let input = folder.path().join("capture");
    std::fs::write(&input, capture).expect("written");
    let toml = folder.path().join("golden.toml");
    std::fs::write(&toml, config).expect("written");
    let out = folder.path().join("out");
    let arguments = ["replay", "-q", "--packets", "-c"].map(PathBuf::from);
    let rest = [toml, "-o".into(), out.clone(), input];
    common::succeeds(&common::gnomon(arguments.into_iter().chain(rest).map(PathBuf::into_os_string)));
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    for file in FILES {
        let found = std::fs::read_to_string(out.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let path = committed.join(file);
        if std::env::var_os("GNOMON_GOLDEN").is_some_and(|v| v == "write") {
            std::fs::create_dir_all(&committed).expect("folder");
            std::fs::write(&path, &found).expect("written");
            continue;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
            assert_eq!(found, expected, "{name}/{file}, line {}", number + 1);
        }
        assert_eq!(found, expected, "{name}/{file}");
    }
}

#[test]
fn conversation() {
    golden("conversation", CONFIG, &captures::pcap(1, true, false, &captures::conversation()));
}

#[test]
fn rarities_by_outer_header() {
    golden("rarities-outer", CONFIG, &captures::pcap(1, false, true, &captures::rarities()));
}

#[test]
fn rarities_by_inner_header() {
    let config = format!("{CONFIG}\n[flow]\nkey = \"inner\"\n");
    golden("rarities-inner", &config, &captures::pcap(1, false, false, &captures::rarities()));
}

#[test]
fn link_types_in_one_pcapng() {
    let ip: Vec<_> = captures::conversation();
    let links = [1, 101, 113, 276, 0, 108, 9, 50, 51, 104, 147];
    let frames: Vec<_> = links.into_iter().cycle().zip(&ip).collect();
    let frames: Vec<_> = frames.into_iter().map(|(link, f)| (link, captures::relink(link, f))).collect();
    golden("link-types", CONFIG, &captures::pcapng(false, &frames));
}
