//! Parties of attacks, from a file of alerts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;

use crate::behaviour::AlertKind;
use crate::filter::instant;
use crate::ingest::EventLines;
use crate::policy::learning::Seen;

/// Who attacked whom, and from when to when; no victim: anybody.
#[derive(Debug, Default)]
pub(in crate::cli) struct Attacks {
    by: HashMap<IpAddr, Vec<(Option<IpAddr>, u64, u64)>>,
}

impl Attacks {
    /// Episodes of kinds that are attacks. Their latest account holds.
    pub(in crate::cli) fn read(path: &Path) -> Result<Self> {
        let mut found = Self::default();
        for alert in EventLines::open(path)? {
            let alert = alert?;
            let text = |name: &str| alert["gnomon"][name].as_str().or_else(|| alert[name].as_str()).unwrap_or("");
            let time = |name: &str| instant(text(name));
            let (Ok(actor), Some(start), Some(end)) = (text("actor").parse(), time("start"), time("end")) else {
                continue;
            };
            let kind = AlertKind::ALL.into_iter().find(|kind| kind.name() == text("kind"));
            if kind.is_none_or(AlertKind::is_hostile) {
                found.by.entry(actor).or_default().push((text("victim").parse().ok(), start, end));
            }
        }
        Ok(found)
    }

    /// The flow, known for a part of an attack where it is one.
    pub(in crate::cli) fn judged(&self, seen: &Seen) -> Seen {
        Seen { attack: seen.attack || self.has(seen), ..seen.clone() }
    }

    /// Whether a flow is between the parties of an attack while it lasted.
    fn has(&self, seen: &Seen) -> bool {
        let by = |from: IpAddr, to: IpAddr| {
            let attacks = self.by.get(&from).map(Vec::as_slice).unwrap_or_default();
            attacks.iter().any(|(victim, start, end)| {
                victim.is_none_or(|victim| victim == to) && seen.start <= *end && seen.end >= *start
            })
        };
        by(seen.from.address, seen.to.address) || by(seen.to.address, seen.from.address)
    }
}
