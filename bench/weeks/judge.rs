//! Alerts against the truth.
//!
//! An attack is found when there is an alert of its kind with its actor or its victim (of an alert about many: one of the
//! hosts in the evidence), that was raised while it went on, or within fifteen minutes of its end: flows that time out are
//! recorded late. Of the other alerts, those whose actor is taking part in an attack at the time say something true in
//! other words, and are counted as such; all the rest is false.
#![allow(dead_code, reason = "the benchmark prints more than the test asks for")]

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use ipnet::IpNet;
use serde_json::Value;

/// Seconds after the end of an attack in which it may still be told.
const AFTERWARDS: f64 = 900.0;

/// An attack, and how long it took to be found, in seconds.
#[derive(Clone, Debug)]
pub struct Attack {
    pub name: String,
    kind: String,
    actors: Vec<IpAddr>,
    victims: Vec<IpAddr>,
    /// Where forged or many actors come from.
    sources: Vec<IpNet>,
    start: f64,
    end: f64,
    pub found: Option<f64>,
}

/// An episode.
#[derive(Clone, Debug)]
pub struct Told {
    pub kind: String,
    pub severity: u64,
    actor: Option<IpAddr>,
    victim: Option<IpAddr>,
    hosts: Vec<IpAddr>,
    raised: f64,
    stamp: String,
    start: f64,
    end: f64,
}

#[derive(Debug)]
pub struct Verdict {
    pub days: f64,
    pub packets: u64,
    pub attacks: Vec<Attack>,
    /// About attacks, in other words.
    pub related: Vec<Told>,
    pub false_alerts: Vec<Told>,
    pub alerts: usize,
}

/// Reads `truth.json` and `out/alerts.jsonl` of a folder.
pub fn judge(folder: &Path) -> Result<Verdict> {
    let truth: Value = serde_json::from_reader(BufReader::new(File::open(folder.join("truth.json"))?))?;
    let attacks = truth["attacks"].as_array().context("attacks")?;
    let mut attacks: Vec<Attack> =
        attacks.iter().filter(|attack| attack["start"].is_string()).map(attack).collect::<Result<_>>()?;
    let told = alerts(&folder.join("out/alerts.jsonl"))?;
    let mut verdict = Verdict {
        days: (seconds(&truth["end"])? - seconds(&truth["start"])?) / 86_400.0,
        packets: truth["totals"]["packets"].as_u64().context("a number of packets")?,
        attacks: Vec::new(),
        related: Vec::new(),
        false_alerts: Vec::new(),
        alerts: told.len(),
    };
    for alert in told {
        let mut named = false;
        for attack in attacks.iter_mut().filter(|attack| attack.kind == alert.kind && attack.is_in(&alert)) {
            let after = (alert.raised - attack.start).max(0.0);
            attack.found = Some(attack.found.map_or(after, |first| first.min(after)));
            named = true;
        }
        if !named && attacks.iter().any(|attack| attack.is_by(&alert)) {
            verdict.related.push(alert);
        } else if !named {
            verdict.false_alerts.push(alert);
        }
    }
    verdict.attacks = attacks;
    Ok(verdict)
}

impl Attack {
    fn is_at(&self, alert: &Told) -> bool {
        let meets = alert.start <= self.end && alert.end >= self.start - 1.0;
        meets && (self.start - 1.0..=self.end + AFTERWARDS).contains(&alert.raised)
    }

    fn acts(&self, address: &IpAddr) -> bool {
        self.actors.contains(address) || self.sources.iter().any(|net| net.contains(address))
    }

    fn is_in(&self, alert: &Told) -> bool {
        let victim = match alert.victim {
            Some(victim) => self.victims.contains(&victim),
            None => alert.hosts.iter().any(|host| self.victims.contains(host)),
        };
        self.is_at(alert) && (victim || alert.actor.is_some_and(|actor| self.acts(&actor)))
    }

    /// The alert is about one who takes part: as actor, or as a victim that answers.
    fn is_by(&self, alert: &Told) -> bool {
        let near = alert.start <= self.end + AFTERWARDS && alert.end >= self.start - 1.0;
        let answers = |actor: &IpAddr| {
            let other = alert.victim.iter().chain(&alert.hosts);
            self.victims.contains(actor) && other.clone().any(|host| self.acts(host))
        };
        near && alert.actor.is_some_and(|actor| self.acts(&actor) || answers(&actor))
    }
}

fn attack(value: &Value) -> Result<Attack> {
    let text = |key: &str| value[key].as_str().map(str::to_owned).with_context(|| format!("{key} of an attack"));
    let parties = |key: &str| -> Vec<IpAddr> {
        let all = value[key].as_array().into_iter().flatten();
        all.filter_map(|party| party["address"].as_str()?.parse().ok()).collect()
    };
    let sources = ["forged_sources", "sources"].into_iter().filter_map(|key| value[key].as_str()?.parse().ok());
    Ok(Attack {
        name: text("name")?,
        kind: text("kind")?,
        actors: parties("actors"),
        victims: parties("victims"),
        sources: sources.collect(),
        start: seconds(&value["start"])?,
        end: seconds(&value["end"])?,
        found: None,
    })
}

/// The final account of each episode.
fn alerts(file: &Path) -> Result<Vec<Told>> {
    let mut all = Vec::new();
    for line in BufReader::new(File::open(file)?).lines() {
        let line: Value = serde_json::from_str(&line?)?;
        let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        let gnomon = &line["gnomon"];
        if gnomon["status"] != "closed" {
            continue;
        }
        all.push(Told {
            kind: gnomon["kind"].as_str().context("a kind")?.to_owned(),
            severity: line["severity"].as_u64().context("a severity")?,
            actor: address(&line["actor"]),
            victim: address(&line["victim"]),
            hosts: line["evidence"]["hosts"].as_array().into_iter().flatten().filter_map(address).collect(),
            raised: seconds(&line["timestamp"])?,
            stamp: line["timestamp"].as_str().unwrap_or_default().to_owned(),
            start: seconds(&gnomon["start"])?,
            end: seconds(&gnomon["end"])?,
        });
    }
    Ok(all)
}

/// Of `2025-01-15T09:02:01.318…`, since 1970.
fn seconds(stamp: &Value) -> Result<f64> {
    let stamp = stamp.as_str().context("a time")?;
    let number = |range: std::ops::Range<usize>| -> Result<i64> {
        Ok(stamp.get(range).with_context(|| format!("the time {stamp}"))?.parse()?)
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Days of the proleptic Gregorian calendar, years beginning in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let whole = days * 86_400 + number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    Ok(whole as f64 + number(20..26)? as f64 / 1e6)
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {:?} on {:?}", self.name, self.actors, self.victims)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let party = |address: Option<IpAddr>| address.map_or_else(|| "many".to_owned(), |address| address.to_string());
        let (actor, victim) = (party(self.actor), party(self.victim));
        write!(f, "{} {} of severity {}: {actor} > {victim}", self.stamp, self.kind, self.severity)
    }
}

/// Several weeks together.
#[derive(Debug, Default)]
pub struct Tally {
    kinds: BTreeMap<String, Vec<Option<f64>>>,
    /// By kind and severity.
    false_alerts: BTreeMap<(String, u64), usize>,
    related: BTreeMap<(String, u64), usize>,
    days: f64,
    packets: u64,
}

impl Tally {
    pub fn add(&mut self, verdict: Verdict) {
        for attack in verdict.attacks {
            self.kinds.entry(attack.name).or_default().push(attack.found);
        }
        for (alerts, sums) in [(verdict.false_alerts, &mut self.false_alerts), (verdict.related, &mut self.related)] {
            alerts.into_iter().for_each(|alert| *sums.entry((alert.kind, alert.severity)).or_default() += 1);
        }
        self.days += verdict.days;
        self.packets += verdict.packets;
    }

    pub fn attacks(&self) -> usize {
        self.kinds.values().map(Vec::len).sum()
    }

    pub fn found(&self) -> usize {
        self.kinds.values().flatten().flatten().count()
    }

    /// Recall and time to detect by kind, false alerts by kind and severity.
    pub fn table(&self, rate: f64) -> String {
        let mut out = format!(
            "rate {rate}: {} days, {} packets\n  {:<18} {:>9}  time to detect, s: median, most\n",
            self.days, self.packets, "attack", "found"
        );
        let mut line = |text: fmt::Arguments<'_>| out.write_fmt(text).expect("a string takes all");
        for (name, found) in &self.kinds {
            let mut times: Vec<f64> = found.iter().flatten().copied().collect();
            times.sort_by(f64::total_cmp);
            let (median, most) = (times.get(times.len() / 2), times.last());
            let number = |time: Option<&f64>| time.map_or("-".to_owned(), |time| format!("{time:.0}"));
            let share = format!("{}/{}", times.len(), found.len());
            line(format_args!("  {name:<18} {share:>9}  {:>8} {:>8}\n", number(median), number(most)));
        }
        let count: usize = self.false_alerts.values().sum();
        let recall = 100.0 * self.found() as f64 / self.attacks().max(1) as f64;
        line(format_args!("  {} of {} found ({recall:.1} %)\n", self.found(), self.attacks()));
        line(format_args!(
            "  false alerts: {count}, {:.2} a day {}\n",
            count as f64 / self.days,
            by(&self.false_alerts)
        ));
        line(format_args!("  of attackers, in other words: {}\n", by(&self.related)));
        out
    }
}

fn by(alerts: &BTreeMap<(String, u64), usize>) -> String {
    let all = alerts.iter().map(|((kind, severity), count)| format!("{count} {kind} of severity {severity}"));
    let text = all.collect::<Vec<_>>().join(", ");
    if text.is_empty() { String::new() } else { format!("({text})") }
}
