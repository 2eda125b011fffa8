//! What is asked and printed of who is watched.

use std::net::IpAddr;

use clap::Args;
use serde_json::{Value, json};

use super::sessions::names;
use crate::cli::report::table;

/// Whom it is about.
#[derive(Debug, Args)]
pub(super) struct About {
    /// Address of the host.
    address: IpAddr,
    /// VLAN that it is in.
    #[arg(long, default_value_t = 0)]
    vlan: u16,
    /// Network id (VXLAN, GENEVE) that it is in, where flows are told by inner headers.
    #[arg(long, default_value_t = 0)]
    vni: u32,
    /// Only this service of it, as in tcp/443.
    #[arg(long, value_name = "PROTOCOL/PORT", value_parser = service)]
    service: Option<(u8, u16)>,
}

impl About {
    pub(super) fn json(&self) -> Value {
        json!({ "address": self.address, "vlan": self.vlan, "vni": self.vni, "service": self.service })
    }
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<f64>().ok());
    let share = percent.filter(|percent| (0.0..=100.0).contains(percent));
    share.map(|percent| percent / 100.0).ok_or_else(|| "a percentage such as 50%".to_owned())
}

fn service(text: &str) -> Result<(u8, u16), String> {
    let parts = text.split_once('/').and_then(|(protocol, port)| {
        let number = [("tcp", 6), ("udp", 17), ("sctp", 132)].iter().find(|(name, _)| *name == protocol)?.1;
        Some((number, port.parse().ok()?))
    });
    parts.ok_or_else(|| "a protocol and a port such as tcp/443 or udp/53".to_owned())
}

pub(super) fn list(parties: &[Value]) -> String {
    let mut rows = table(&["who", "stage", "share", "risk", "alerts", "honeypot", "since", "until"]);
    for party in parties {
        let text = |key: &str| party[key].as_str().unwrap_or("-").to_owned();
        let stage = match party["ordered_by"].as_str() {
            Some(who) => format!("set by {who}"),
            None => text("stage"),
        };
        let risk = party["score"].as_f64().filter(|risk| *risk > 0.0).map_or("-".to_owned(), |r| format!("{r:.6}"));
        rows.add_row([
            whom(&party["party"]),
            stage,
            percent(&party["share"]),
            risk,
            names(&party["flags"]),
            text("divert"),
            time(&party["since"]),
            time(&party["until"]),
        ]);
    }
    rows.to_string()
}

pub(super) fn why(about: &About, lines: &[Value]) -> String {
    let (decisions, standing): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| line["decision"].is_object());
    let standing: Vec<Value> = standing.into_iter().cloned().collect();
    let mut text = match &standing[..] {
        [] => format!("{} is not watched\n", about.address),
        watched => list(watched) + "\n",
    };
    if decisions.is_empty() {
        text.push_str("nothing was decided about it lately\n");
        return text;
    }
    let mut rows = table(&["when", "decision", "share", "because"]);
    for decision in decisions.iter().map(|line| &line["decision"]) {
        let change = format!("{} → {}", percent(&decision["share_before"]), percent(&decision["share"]));
        let of = |key: &str| decision[key].as_str().unwrap_or("-").to_owned();
        rows.add_row([time(&decision["timestamp"]), of("action"), change, of("reason")]);
    }
    text + &format!("{rows}\n")
}

pub(super) fn set(about: &About, lines: &[Value]) -> String {
    let until = lines.first().map(|line| time(&line["until"])).unwrap_or_default();
    format!("{} is treated so until {until} UTC\n", about.address)
}

pub(super) fn released(about: &About, lines: &[Value]) -> String {
    match lines.first().is_some_and(|line| line["released"] == true) {
        true => format!("{} is treated as everybody else from now on\n", about.address),
        false => format!("{} was not watched\n", about.address),
    }
}

/// `10.0.0.9`, `10.0.0.9 TCP/443`, `web – db`.
fn whom(party: &Value) -> String {
    let tags = [("vlan", "VLAN"), ("vni", "VNI")];
    let segment: String =
        tags.iter().filter_map(|(key, name)| Some(format!(" {name} {}", party[*key].as_u64()?))).collect();
    match party["kind"].as_str() {
        Some("groups") => format!("{} – {}", names(&party["groups"][0]), names(&party["groups"][1])),
        Some("flow") => {
            let end = |n: usize| format!("{}:{}", party["ends"][n][0].as_str().unwrap_or("?"), party["ends"][n][1]);
            format!("{} {} – {}", party["proto"].as_str().unwrap_or("?"), end(0), end(1))
        }
        Some("service") => {
            let (address, proto) = (party["address"].as_str(), party["proto"].as_str());
            format!("{} {}/{}{segment}", address.unwrap_or("?"), proto.unwrap_or("?"), party["port"])
        }
        _ => format!("{}{segment}", party["address"].as_str().unwrap_or("?")),
    }
}

fn percent(share: &Value) -> String {
    let percent = share.as_f64().unwrap_or(0.0) * 100.0;
    if percent == 0.0 { "own".to_owned() } else { format!("{}%", (percent * 100.0).round() / 100.0) }
}

/// To the second.
fn time(stamp: &Value) -> String {
    let text = stamp.as_str().unwrap_or("-");
    text.get(..19).map_or_else(|| text.to_owned(), |to_the_second| to_the_second.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_and_decisions_are_told() {
        let about = About { address: IpAddr::from([10, 0, 0, 9]), vlan: 0, vni: 0, service: None };
        let party = json!({ "kind": "host", "address": "10.0.0.9", "vlan": 7 });
        let view = json!({ "party": party, "stage": "graylisted", "share": 1.0, "score": 0.99951, "flags": ["port_scan"],
            "divert": null, "since": "2026-01-02T03:04:05.678901+0000", "until": "2026-01-02T03:05:05.678901+0000", "ordered_by": null });
        let decision = json!({ "decision": { "timestamp": "2026-01-02T03:04:05.678901+0000", "action": "graylist",
            "share_before": 0.0, "share": 1.0, "reason": "alert port_scan, episode 3" } });
        let text = why(&about, &[view.clone(), decision]);
        let parts =
            ["10.0.0.9 VLAN 7", "graylisted", "100%", "0.999510", "port_scan", "2026-01-02 03:04:05", "own → 100%"];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        let service = json!({ "kind": "service", "address": "10.0.0.9", "proto": "TCP", "port": 443 });
        assert_eq!(whom(&service), "10.0.0.9 TCP/443");
        assert!(why(&about, &[]).starts_with("10.0.0.9 is not watched\nnothing was decided"));
        assert!(released(&about, &[json!({ "released": false })]).contains("was not watched"));
    }

    #[test]
    fn shares_and_services_are_read() {
        assert_eq!((share("50%"), share("0%")), (Ok(0.5), Ok(0.0)));
        assert!(share("50").is_err() && share("101%").is_err() && share("-1%").is_err());
        assert_eq!(service("udp/53"), Ok((17, 53)));
        assert!(service("53").is_err() && service("icmp/1").is_err() && service("tcp/70000").is_err());
    }
}
