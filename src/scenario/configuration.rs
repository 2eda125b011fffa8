//! `scenario.toml`: a configuration in which everything intended is allowed and nothing else.

use std::fmt::Write as _;
use std::path::Path;

use super::topology::{Group, Kind, Topology, networks};
use super::truth::addresses;
use crate::capture::CaptureError;

/// An intended relationship.
struct Relationship {
    id: &'static str,
    from: &'static [Kind],
    to: &'static [Kind],
    protocol: &'static str,
    ports: &'static [u16],
}

const LOCAL: &[Kind] = &[Kind::Web, Kind::App, Kind::Db, Kind::Dns, Kind::Ntp, Kind::Backup, Kind::Admin, Kind::Iot];
const ALL: &[Kind] = &[Kind::Web, Kind::App, Kind::Db, Kind::Ntp, Kind::Backup, Kind::Admin, Kind::Clients, Kind::Iot];

const RELATIONSHIPS: [Relationship; 10] = [
    Relationship { id: "clients-to-web", from: &[Kind::Clients], to: &[Kind::Web], protocol: "tcp", ports: &[80, 443] },
    Relationship { id: "web-to-app", from: &[Kind::Web], to: &[Kind::App], protocol: "tcp", ports: &[8080] },
    Relationship { id: "app-to-db", from: &[Kind::App], to: &[Kind::Db], protocol: "tcp", ports: &[5432] },
    Relationship { id: "iot-to-app", from: &[Kind::Iot], to: &[Kind::App], protocol: "tcp", ports: &[1883] },
    Relationship { id: "any-to-dns", from: ALL, to: &[Kind::Dns], protocol: "udp", ports: &[53] },
    Relationship { id: "vms-to-ntp", from: LOCAL, to: &[Kind::Ntp], protocol: "udp", ports: &[123] },
    Relationship { id: "backup", from: &[Kind::Db, Kind::App], to: &[Kind::Backup], protocol: "tcp", ports: &[873] },
    Relationship { id: "admin-ssh", from: &[Kind::Admin], to: LOCAL, protocol: "tcp", ports: &[22] },
    Relationship { id: "monitoring", from: &[Kind::Admin], to: LOCAL, protocol: "icmp", ports: &[] },
    Relationship { id: "monitoring-v6", from: &[Kind::Admin], to: LOCAL, protocol: "icmpv6", ports: &[] },
];

const PORTS: &str = r#"# `gnomon replay` needs no devices; these keep the file complete for `gnomon check` and for a test run.
[[port]]
name = "wan"
device = "net_null0"

[[port]]
name = "lan"
device = "net_null1"

[[port]]
name = "mirror0"
device = "net_null2"

[[pair]]
ports = ["wan", "lan"]
"#;

/// Writes `scenario.toml`. `flows` is the number of harmless flows in the capture; a tenth of them warms
/// the scorer up.
pub(super) fn write(path: &Path, topology: &Topology, seed: u64, flows: u64) -> Result<(), CaptureError> {
    std::fs::write(path, text(topology, seed, flows))
        .map_err(|source| CaptureError::Write { path: path.to_path_buf(), source })
}

fn text(topology: &Topology, seed: u64, flows: u64) -> String {
    let mut out = format!(
        "# Made by `gnomon scenario`. Use: gnomon replay scenario.pcap -c scenario.toml -o results\n\nseed = {seed}\n\n"
    );
    out.push_str(PORTS);
    let groups: Vec<&Group> =
        topology.groups.iter().filter(|g| g.kind != Kind::Outside && !g.hosts.is_empty()).collect();
    let local = groups.iter().filter(|g| g.kind.is_local()).flat_map(|group| &group.hosts);
    for &host in local.chain(&topology.spare) {
        let (id, kind) = (&topology.host(host).id, topology.host(host).kind.name());
        let list = list(addresses(topology, host).iter().map(String::as_str));
        put(&mut out, format_args!("\n[[vm]]\nid = \"{id}\"\naddresses = {list}\ntags = [\"role={kind}\"]\n"));
    }
    for group in &groups {
        let name = group.kind.name();
        let members = match group.kind.is_local() {
            true => format!("tags = [\"role={name}\"]"),
            false => format!("cidrs = {}", list(networks(group.kind).iter().map(String::as_str))),
        };
        put(&mut out, format_args!("\n[[group]]\nname = \"{name}\"\n{members}\n"));
    }
    rules(&mut out, topology);
    out.push_str("\n[policy]\ndefault = \"deny\"\nnon_ip = \"allow\"\n");
    mirrors(&mut out, &groups);
    put(&mut out, format_args!("\n[scorer]\nwarmup_records = {}\n", (flows / 10).clamp(256, 10_000)));
    out
}

fn rules(out: &mut String, topology: &Topology) {
    let present = |kinds: &[Kind]| -> Vec<&'static str> {
        kinds.iter().filter(|&&k| topology.has(k)).map(|k| k.name()).collect()
    };
    for (n, r) in RELATIONSHIPS.iter().enumerate() {
        let (from, to) = (present(r.from), present(r.to));
        if from.is_empty() || to.is_empty() {
            continue;
        }
        let (id, protocol, priority) = (r.id, r.protocol, (n + 1) * 100);
        let (from, to) = (list(from), list(to));
        put(out, format_args!("\n[[rule]]\nid = \"{id}\"\nfrom = {from}\nto = {to}\nprotocol = \"{protocol}\"\n"));
        if !r.ports.is_empty() {
            put(out, format_args!("ports = {:?}\n", r.ports));
        }
        put(out, format_args!("action = \"allow\"\npriority = {priority}\n"));
    }
}

/// A tenth of one group's flows, and everything that is denied.
fn mirrors(out: &mut String, groups: &[&Group]) {
    let local = groups.iter().filter(|g| g.kind.is_local());
    if let Some(first) = local.map(|g| g.kind.name()).next() {
        put(
            out,
            format_args!(
                "\n[[mirror]]\nname = \"{first}-sample\"\nto = \"mirror0\"\ngroup = \"{first}\"\n\
                 direction = \"both\"\nflows = \"10%\"\n"
            ),
        );
    }
    out.push_str("\n[[mirror]]\nname = \"denied\"\nto = \"mirror0\"\nverdicts = [\"deny\"]\nsample = \"1/1\"\n");
}

fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|w| format!("\"{w}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::dice::Dice;

    fn parsed(sizes: &[(Kind, usize)]) -> toml::Table {
        text(&Topology::new(sizes, &mut Dice::new(1, 1)), 9, 5_000).parse().unwrap()
    }

    fn count(table: &toml::Table, key: &str) -> usize {
        table.get(key).map_or(0, |v| v.as_array().unwrap().len())
    }

    #[test]
    fn everything_is_there() {
        let table = parsed(&crate::scenario::topology::KINDS);
        let counts = ["port", "pair", "vm", "group", "rule", "mirror"].map(|key| count(&table, key));
        assert_eq!(counts, [3, 1, 28, 9, 10, 2]);
        assert_eq!(table["seed"].as_integer(), Some(9));
        assert_eq!(table["scorer"]["warmup_records"].as_integer(), Some(500));
        assert_eq!(table["policy"]["default"].as_str(), Some("deny"));
    }

    #[test]
    fn rules_name_only_groups_that_exist() {
        let table = parsed(&[(Kind::Web, 2), (Kind::Dns, 1)]);
        assert_eq!((count(&table, "group"), count(&table, "rule")), (2, 1));
        let rule = &table["rule"].as_array().unwrap()[0];
        assert_eq!(rule["from"].as_array().unwrap()[0].as_str(), Some("web"));
    }
}
