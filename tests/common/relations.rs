//! What is true of the connections in a made capture.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde_json::Value;

/// From, to, service: in the words of graphs.
pub type Relation = (String, String, String);

/// Relations of harmless flows, and those that only attacks have.
pub struct Truth {
    pub harmless: BTreeSet<Relation>,
    pub attacks: BTreeSet<Relation>,
}

/// Of what `gnomon scenario` left in a folder.
pub fn truth(folder: &Path) -> Truth {
    let text = std::fs::read_to_string(folder.join("truth.json")).expect("truth");
    let truth: Value = serde_json::from_str(&text).expect("JSON");
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let groups: Vec<(String, Vec<IpNet>)> = truth["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .map(|group| {
            let name = group["name"].as_str().expect("a name").to_owned();
            (name, texts(&group["networks"]).iter().map(|net| net.parse().expect("a network")).collect())
        })
        .collect();
    let name = |address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        let found = groups.iter().find(|(_, nets)| nets.iter().any(|net| net.contains(&address)));
        found.map_or(address.to_string(), |(name, _)| name.clone())
    };
    let (mut harmless, mut attacks) = (BTreeSet::new(), BTreeSet::new());
    let mut reader = csv::Reader::from_path(folder.join("truth-flows.csv")).expect("flows");
    for row in reader.deserialize::<BTreeMap<String, String>>() {
        let row = row.expect("a row");
        // Nobody talked: a probe, harmless or not, that was ignored or refused.
        let answers: u64 = row["pkts_toclient"].parse().expect("a number");
        if row["proto"] == "tcp" && answers < 2 && row["attack"].is_empty() {
            continue;
        }
        let service = match row["proto"].as_str() {
            "icmp" => "icmp type 8".to_owned(),
            "icmpv6" => "icmpv6 type 128".to_owned(),
            other => format!("{other} {}", row["dest_port"]),
        };
        let relation = (name(&row["src_ip"]), name(&row["dest_ip"]), service);
        match row["attack"].is_empty() {
            true => harmless.insert(relation),
            false => attacks.insert(relation),
        };
    }
    Truth { attacks: attacks.difference(&harmless).cloned().collect(), harmless }
}
