//! A scenario with attacks through the appliance with mirrors that adapt, and what came of every packet.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use gnomon::capture::CaptureReader;
use gnomon::packet::{FlowKey, Headers, Host, KeyFrom, Orientation, parse, subject};
use serde_json::Value;

/// What to make and how to mirror it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub minutes: u32,
    pub rate: u32,
    /// Share of everybody's flows, percent.
    pub base: f64,
    /// How long parties are watched after the last reason, seconds.
    pub hold: u64,
    /// Bits per second for all copies.
    pub budget: Option<u64>,
}

/// A stretch of time in which a party's share was raised.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    pub address: IpAddr,
    /// Only this port of it.
    pub port: Option<u16>,
    pub from: u64,
    pub to: u64,
    pub share: f64,
    /// Because of an alert, or only of risk.
    pub alert: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub began: u64,
    pub watched: Vec<Watched>,
    /// Addresses of those who attack, and of those who are attacked.
    pub actors: Vec<IpAddr>,
    pub victims: Vec<IpAddr>,
    pub flows: Vec<Flow>,
    /// Bytes of copies, by time, ascending.
    pub copies: Vec<(u64, u32)>,
    pub selected: u64,
    pub lost: u64,
    /// Budget decisions: when, and what is left of everybody's share.
    pub budget: Vec<(u64, f64)>,
    /// Risk at each decision about a host.
    pub risks: Vec<(u64, IpAddr, f64)>,
}

/// One flow of the capture.
#[derive(Clone, Debug)]
pub struct Flow {
    pub ends: [(IpAddr, u16); 2],
    pub first: u64,
    pub last: u64,
    /// Times of packets, and whether each was copied.
    pub packets: Vec<(u64, bool)>,
}

impl Flow {
    pub fn copied(&self) -> usize {
        self.packets.iter().filter(|(_, copied)| *copied).count()
    }
}

impl Watched {
    pub fn is_of(&self, flow: &Flow) -> bool {
        let is = |(address, port): &(IpAddr, u16)| *address == self.address && self.port.is_none_or(|own| own == *port);
        flow.ends.iter().any(is)
    }
}

/// Makes the scenario in `folder` and replays it with `program`.
pub fn run(program: &str, folder: &Path, plan: &Plan) -> Result<Outcome> {
    let (scenario, result) = (folder.join("scenario"), folder.join("result"));
    let text = |n: u64| n.to_string();
    let made = ["scenario", "-o", path(&scenario)?, "--seed", &text(plan.seed), "--minutes", &plan.minutes.to_string()];
    call(program, &[&made[..], &["--rate", &plan.rate.to_string()]].concat())?;
    let config = configuration(&scenario.join("scenario.toml"), plan)?;
    let file = folder.join("adaptive.toml");
    std::fs::write(&file, config)?;
    let capture = scenario.join("scenario.pcap");
    call(program, &["replay", path(&capture)?, "-c", path(&file)?, "-o", path(&result)?])?;
    read(&scenario, &result)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a folder whose name is text")
}

fn call(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("starting {program}"))?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The scenario's own, with one mirror of all that adapts in the place of its mirrors.
fn configuration(file: &Path, plan: &Plan) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    let (before, rest) = text.split_once("[[mirror]]").context("mirrors in the scenario's configuration")?;
    let (_, after) = rest.split_once("[scorer]").context("a scorer after its mirrors")?;
    let budget = plan.budget.map(|bits| format!("budget = \"{}kbit/s\"\n", bits / 1000)).unwrap_or_default();
    Ok(format!(
        "{before}[[mirror]]\nname = \"watch\"\nto = \"mirror0\"\ngroup = \"any\"\nflows = \"{}%\"\nadapt = true\n\n\
         [adaptive]\nhold = \"{}s\"\n{budget}\n[scorer]{after}",
        plan.base, plan.hold
    ))
}

fn read(scenario: &Path, result: &Path) -> Result<Outcome> {
    let truth: Value = serde_json::from_str(&std::fs::read_to_string(scenario.join("truth.json"))?)?;
    let parties = |side: &str| -> Vec<IpAddr> {
        let attacks = truth["attacks"].as_array().into_iter().flatten();
        let all = attacks.flat_map(|attack| attack[side].as_array().into_iter().flatten());
        all.filter_map(|party| party["address"].as_str()?.parse().ok()).collect()
    };
    let mut outcome = Outcome { actors: parties("actors"), victims: parties("victims"), ..Outcome::default() };
    decisions(&result.join("decisions.jsonl"), &mut outcome)?;
    packets(&scenario.join("scenario.pcap"), &result.join("mirror-watch.pcap"), &mut outcome)?;
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(result.join("summary.json"))?)?;
    let session = &summary["mirrored"]["watch"];
    (outcome.selected, outcome.lost) =
        (session["selected"].as_u64().unwrap_or(0), session["lost"].as_u64().unwrap_or(u64::MAX));
    Ok(outcome)
}

fn decisions(file: &PathBuf, outcome: &mut Outcome) -> Result<()> {
    let mut open: BTreeMap<(IpAddr, Option<u16>), Watched> = BTreeMap::new();
    for line in std::fs::read_to_string(file)?.lines() {
        let decision: Value = serde_json::from_str(line)?;
        let at = nanoseconds(decision["timestamp"].as_str().unwrap_or_default())?;
        let share = decision["share"].as_f64().context("a share")?;
        if decision["action"] == "budget" {
            if decision["class"] == 0 {
                outcome.budget.push((at, share));
            }
            continue;
        }
        let party = &decision["party"];
        let address: IpAddr = party["address"].as_str().context("a host or service")?.parse()?;
        let port = party["port"].as_u64().map(|port| port as u16);
        outcome.risks.push((at, address, decision["score"].as_f64().unwrap_or(0.0)));
        if let Some(before) = open.remove(&(address, port)) {
            outcome.watched.push(Watched { to: at, ..before });
        }
        if share > 0.0 {
            let alert = decision["flags"].as_array().is_some_and(|flags| !flags.is_empty());
            open.insert((address, port), Watched { address, port, from: at, to: u64::MAX, share, alert });
        }
    }
    outcome.watched.extend(open.into_values());
    outcome.watched.sort_by_key(|watched| watched.from);
    Ok(())
}

/// `2025-01-15T09:02:01.318013+0000`, as nanoseconds since 1970.
fn nanoseconds(stamp: &str) -> Result<u64> {
    let number = |range: std::ops::Range<usize>| -> Result<u64> {
        Ok(stamp.get(range).with_context(|| format!("the time {stamp}"))?.parse()?)
    };
    let (year, month, day) = (number(0..4)? as i64, number(5..7)? as i64, number(8..10)? as i64);
    // Days of the proleptic Gregorian calendar, years beginning in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = days as u64 * 86_400 + number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    Ok(seconds * 1_000_000_000 + number(20..26)? * 1000)
}

/// Matches copies to the packets that they are of: both files are in the order of time.
fn packets(all: &Path, copied: &Path, outcome: &mut Outcome) -> Result<()> {
    let (mut all, mut copied) = (CaptureReader::open(all)?, CaptureReader::open(copied)?);
    let mut flows: HashMap<FlowKey, Flow> = HashMap::new();
    let next = |reader: &mut CaptureReader| -> Result<Option<(u64, Vec<u8>)>> {
        Ok(reader.next_frame()?.map(|frame| (frame.ts_ns, frame.data.to_vec())))
    };
    let mut copy = next(&mut copied)?;
    while let Some(frame) = all.next_frame()? {
        let is_copied = copy.as_ref().is_some_and(|(at, bytes)| *at == frame.ts_ns && bytes[..] == *frame.data);
        if is_copied {
            outcome.copies.push((frame.ts_ns, frame.wire_len));
            copy = next(&mut copied)?;
        }
        if outcome.began == 0 {
            outcome.began = frame.ts_ns;
        }
        let mut headers = Headers::default();
        let Ok(()) = parse(frame.data, frame.wire_len, &mut headers) else { continue };
        let Some(subject) = subject(&headers, KeyFrom::Outer) else { continue };
        let (key, at) = (FlowKey::of(subject.tuple).0, frame.ts_ns);
        let flow = flows.entry(key).or_insert_with(|| {
            let tuple = key.tuple(Orientation::LowToHigh);
            let ends = [(Host::source(&tuple).ip(), tuple.src_port), (Host::destination(&tuple).ip(), tuple.dst_port)];
            Flow { ends, first: at, last: at, packets: Vec::new() }
        });
        flow.last = at;
        flow.packets.push((at, is_copied));
    }
    if copy.is_some() {
        bail!("a copy is of no packet");
    }
    outcome.flows = flows.into_values().collect();
    outcome.flows.sort_by_key(|flow| (flow.first, flow.ends));
    Ok(())
}

/// What the outcome says of the promises.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Flows of those with an alert, begun a second after it or later and over before the hold ends: how many, and how
    /// many of them were copied whole.
    pub flagged: (usize, usize),
    /// Flows of nobody who was watched at the time: how many, copied whole, in part.
    pub base: (usize, usize, usize),
    /// Time from an alert to the first copied packet after which all of the party's packets were, at most, in seconds.
    pub latest: f64,
    /// Parties that were watched and neither attack nor are attacked: stretches, and flows in them.
    pub mistaken: (usize, usize),
    /// Most bits of copies in any second.
    pub most_bits: u64,
}

const SECOND: u64 = 1_000_000_000;

pub fn judge(outcome: &Outcome) -> Verdict {
    let mut verdict = Verdict { most_bits: most_in_a_second(&outcome.copies) * 8, ..Verdict::default() };
    for watched in &outcome.watched {
        let known = outcome.actors.contains(&watched.address) || outcome.victims.contains(&watched.address);
        if !known {
            verdict.mistaken.0 += 1;
        }
        if watched.alert && watched.share >= 1.0 {
            verdict.latest = verdict.latest.max(delay(outcome, watched));
        }
    }
    for flow in &outcome.flows {
        let touching: Vec<&Watched> = outcome
            .watched
            .iter()
            .filter(|watched| watched.is_of(flow) && watched.from <= flow.last && watched.to >= flow.first)
            .collect();
        let copied = flow.copied();
        if touching.is_empty() {
            verdict.base.0 += 1;
            verdict.base.1 += usize::from(copied == flow.packets.len());
            verdict.base.2 += usize::from(copied > 0 && copied < flow.packets.len());
        }
        let is_flagged = |w: &&&Watched| w.alert && w.share >= 1.0 && w.from + SECOND <= flow.first && flow.last < w.to;
        if touching.iter().any(|watched| is_flagged(&watched)) {
            verdict.flagged.0 += 1;
            verdict.flagged.1 += usize::from(copied == flow.packets.len());
        }
        let is_known = |address: &IpAddr| outcome.actors.contains(address) || outcome.victims.contains(address);
        verdict.mistaken.1 += usize::from(touching.iter().any(|watched| !is_known(&watched.address)));
    }
    verdict
}

/// From a party's alert to its last packet that was not copied while it was watched, in seconds; 0 when all were.
fn delay(outcome: &Outcome, watched: &Watched) -> f64 {
    let of_it = outcome.flows.iter().filter(|flow| watched.is_of(flow));
    let missed =
        of_it.flat_map(|flow| &flow.packets).filter(|(at, copied)| !copied && *at > watched.from && *at < watched.to);
    missed.map(|(at, _)| (at - watched.from) as f64 / SECOND as f64).fold(0.0, f64::max)
}

fn most_in_a_second(copies: &[(u64, u32)]) -> u64 {
    let (mut most, mut within, mut first) = (0, 0, 0);
    for (at, bytes) in copies {
        within += u64::from(*bytes);
        while copies[first].0 + SECOND <= *at {
            within -= u64::from(copies[first].1);
            first += 1;
        }
        most = most.max(within);
    }
    most
}
