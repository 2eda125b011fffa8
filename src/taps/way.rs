//! A packet's way through the stages, for people and programs.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host::TapNames;
use super::line::summary;
use crate::export::Names;
use crate::flow::TO_SERVER;
use crate::rules::{RuleHandle, Verdict};
use crate::worker::tap::{Copies, Fate, FlowSight, TraceNote};

/// One packet's way, with names. `Display` writes the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// When it was received, with nanoseconds.
    pub timestamp: String,
    /// Number in a capture; not of live traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// Not in a replay, which tells the same whatever their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u16>,
    pub in_port: String,
    /// Another worker received it and handed it over to the one that owns its flow.
    pub handed_over: bool,
    pub length: u32,
    /// Bytes there were, when fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captured: Option<u32>,
    pub packet: String,
    pub layers: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowStep>,
    /// Not of a packet that was dropped before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictStep>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<MirrorStep>,
    /// The sender of a rejected packet was told.
    pub answered: bool,
    /// The port that took it, or why it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_port: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
    /// From its reception to when the device had been offered its burst, in microseconds; not in a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub box_us: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowStep {
    /// `new`, `known`, or `table_full`: judged without a flow.
    pub seen: String,
    pub id: u64,
    /// `to_server` or `to_client`.
    pub direction: String,
    pub state: String,
    /// What the flow was looked up by: differs from the headers in later fragments.
    pub key: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictStep {
    pub action: String,
    pub rule: String,
    pub tier: String,
    pub generation: u32,
    /// `flow`: the flow had it; `rules`: they were asked.
    pub from: String,
    pub src_groups: Vec<String>,
    pub dst_groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged: Option<String>,
    /// Shadow-mode rules that would have decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would_be: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MirrorStep {
    pub session: String,
    /// `copied`, `not_sampled`, `no_buffer`, `limited`, `link_down`, `queue_full`.
    pub outcome: String,
}

/// A note with its names. `replay`: it is of a capture, whose frames have numbers.
pub fn way(note: &TraceNote, names: &dyn TapNames, ports: &[String], replay: bool) -> Way {
    let head = &note.head[..usize::from(note.head_len)];
    let (packet, layers, malformed) = summary(head, note.wire_len);
    // Headers behind what is kept here were there all the same.
    let malformed = malformed.filter(|_| head.len() as u32 == note.captured_len);
    let port = |number: u16| ports.get(usize::from(number)).cloned().unwrap_or_default();
    let (out_port, dropped) = match note.fate {
        Fate::Sent(to) => (Some(port(to)), None),
        Fate::Dropped(reason) => (None, Some(reason.name().to_owned())),
        Fate::Consumed => (None, None),
    };
    Way {
        timestamp: timestamp(note.received_ns),
        frame: replay.then_some(note.index),
        worker: (!replay).then_some(note.worker),
        in_port: port(note.port),
        handed_over: note.handed_over,
        length: note.wire_len,
        captured: (note.captured_len < note.wire_len).then_some(note.captured_len),
        packet,
        layers: serde_json::to_value(layers).unwrap_or_default(),
        malformed: malformed.map(str::to_owned),
        flow: flow(note),
        verdict: note.verdict.as_ref().map(|verdict| verdict_step(verdict, note, names)),
        mirrors: note.verdict.map_or_else(Vec::new, |verdict| mirrors(&note.mirrors, verdict.generation, names)),
        answered: note.answered,
        out_port,
        dropped,
        box_us: (!replay).then(|| note.done_ns.saturating_sub(note.received_ns) as f64 / 1000.0),
    }
}

/// `2016-05-12T09:11:22.123456789Z`.
fn timestamp(ns: u64) -> String {
    let mut text = crate::export::iso8601(ns);
    text.truncate(19);
    format!("{text}.{:09}Z", ns % 1_000_000_000)
}

fn flow(note: &TraceNote) -> Option<FlowStep> {
    let seen = match note.flow {
        FlowSight::None => return None,
        FlowSight::New => "new",
        FlowSight::Known => "known",
        FlowSight::TableFull => "table_full",
    };
    let t = &note.tuple;
    let mut key = format!("{} {} > {} {} proto {}", t.src_ip(), t.src_port, t.dst_ip(), t.dst_port, t.protocol);
    for (name, value) in [("vlan", u32::from(t.vlan)), ("vni", t.vni)] {
        if value != 0 {
            key.push_str(&format!(" {name} {value}"));
        }
    }
    Some(FlowStep {
        seen: seen.into(),
        id: note.flow_id,
        direction: if usize::from(note.direction) == TO_SERVER { "to_server".into() } else { "to_client".into() },
        state: note.flow_state.name().into(),
        key,
    })
}

fn verdict_step(verdict: &Verdict, note: &TraceNote, names: &dyn TapNames) -> VerdictStep {
    let groups = |set| Names::groups(names, set).into_iter().map(|name| name.into_owned()).collect();
    let word = |value: Value| value.as_str().map(str::to_owned).unwrap_or_default();
    let rule = |handle| names.rule(handle).into_owned();
    VerdictStep {
        action: word(serde_json::to_value(verdict.decision).unwrap_or_default()),
        rule: rule(verdict.rule),
        tier: word(serde_json::to_value(verdict.tier).unwrap_or_default()),
        generation: verdict.generation,
        from: if note.cached { "flow".into() } else { "rules".into() },
        src_groups: groups(verdict.src_groups),
        dst_groups: groups(verdict.dst_groups),
        logged: (verdict.logged != RuleHandle::DEFAULT).then(|| rule(verdict.logged)),
        would_be: note.shadows.iter().filter(|shadow| **shadow != RuleHandle::DEFAULT).map(|s| rule(*s)).collect(),
    }
}

fn mirrors(copies: &Copies, generation: u32, names: &dyn TapNames) -> Vec<MirrorStep> {
    let outcome = |bit: u64| match () {
        () if copies.queue_full & bit != 0 => "queue_full",
        () if copies.copied & bit != 0 => "copied",
        () if copies.no_buffer & bit != 0 => "no_buffer",
        () if copies.limited & bit != 0 => "limited",
        () if copies.duplicate & bit != 0 => "duplicate",
        () if copies.link_down & bit != 0 => "link_down",
        () if copies.unreachable & bit != 0 => "unreachable",
        () => "not_sampled",
    };
    let wanted = (0..64).filter(|bit| copies.wanted >> bit & 1 != 0);
    let step = |bit: usize| MirrorStep {
        session: names.mirror(generation, bit).into_owned(),
        outcome: outcome(1 << bit).into(),
    };
    wanted.map(step).collect()
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp)?;
        if let Some(frame) = self.frame {
            write!(f, "  frame {frame}")?;
        }
        if let Some(worker) = self.worker {
            write!(f, "  worker {worker}")?;
        }
        if let Some(time) = self.box_us {
            write!(f, "  {time:.1} µs in the box")?;
        }
        let handed_over = if self.handed_over { ", handed over by another worker" } else { "" };
        let captured = self.captured.map_or(String::new(), |bytes| format!(" ({bytes} captured)"));
        writeln!(f, "\n  rx      {}: {} bytes{captured}{handed_over}", self.in_port, self.length)?;
        writeln!(f, "  parse   {}", self.packet)?;
        match &self.flow {
            Some(flow) if flow.seen == "table_full" => writeln!(f, "  flow    table full: judged without a flow")?,
            Some(flow) => {
                let FlowStep { seen, id, direction, state, key } = flow;
                writeln!(f, "  flow    {seen} {id}, {}, {state}: {key}", direction.replace('_', " "))?;
            }
            None => writeln!(f, "  flow    none")?,
        }
        match &self.verdict {
            Some(verdict) => write!(f, "{verdict}")?,
            None => writeln!(f, "  rules   not asked")?,
        }
        if !self.mirrors.is_empty() {
            let told = |step: &MirrorStep| format!("{} {}", step.session, step.outcome.replace('_', " "));
            writeln!(f, "  mirror  {}", self.mirrors.iter().map(told).collect::<Vec<_>>().join(", "))?;
        }
        match (&self.out_port, &self.dropped) {
            (Some(port), _) => writeln!(f, "  tx      {port}"),
            (None, Some(reason)) if self.answered => writeln!(f, "  drop    {reason}; the sender was told"),
            (None, Some(reason)) => writeln!(f, "  drop    {reason}"),
            (None, None) => writeln!(f, "  end     in the box"),
        }
    }
}

impl fmt::Display for VerdictStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, rule, tier, generation, .. } = self;
        let from = if self.from == "flow" { "from the flow" } else { "classified" };
        write!(f, "  rules   {action} by {rule} (tier {tier}), generation {generation}, {from}")?;
        let list = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join("+") };
        if !(self.src_groups.is_empty() && self.dst_groups.is_empty()) {
            write!(f, "; groups {} > {}", list(&self.src_groups), list(&self.dst_groups))?;
        }
        if let Some(logged) = &self.logged {
            write!(f, "; logged by {logged}")?;
        }
        if !self.would_be.is_empty() {
            write!(f, "; would be decided by {}", self.would_be.join(", "))?;
        }
        writeln!(f)
    }
}
