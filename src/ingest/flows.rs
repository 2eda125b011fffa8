//! Flow records from lines of JSON.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use serde_json::Value;

use crate::filter::{Field, Fields, JsonLine, Value as Known};
use crate::flow::{EndReason, FlowRecord, FlowState, Spread};
use crate::packet::Tuple;
use crate::rules::{Decision, GroupSetHandle};

const BUFFER: usize = 256 * 1024;

/// Opens a file, also compressed (gzip); `-` is standard input.
///
/// # Errors
/// It cannot be read.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let context = || format!("reading {}", path.display());
    let mut file = BufReader::with_capacity(BUFFER, File::open(path).with_context(context)?);
    let zipped = file.fill_buf().with_context(context)?.starts_with(&[0x1f, 0x8b]);
    let reader: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    Ok(Box::new(BufReader::with_capacity(BUFFER, reader)))
}

/// The events of a file, in its order; empty lines are passed over.
pub struct EventLines {
    path: PathBuf,
    lines: Lines<Box<dyn BufRead>>,
    number: usize,
}

impl std::fmt::Debug for EventLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLines").field("path", &self.path).field("line", &self.number).finish_non_exhaustive()
    }
}

impl EventLines {
    /// # Errors
    /// The file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), lines: open(path)?.lines(), number: 0 })
    }

    /// Where the latest event stands.
    fn place(&self) -> String {
        format!("{}, line {}", self.path.display(), self.number)
    }
}

impl Iterator for EventLines {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.lines.next()?;
            self.number += 1;
            match line.with_context(|| self.place()) {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => return Some(serde_json::from_str(&line).with_context(|| self.place())),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The flow records of a file, in its order. Other events are passed over.
#[derive(Debug)]
pub struct FlowFile {
    events: EventLines,
    /// Numbers for sets of group names.
    groups: HashMap<Vec<String>, GroupSetHandle>,
}

impl FlowFile {
    /// # Errors
    /// The file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let groups = HashMap::from([(Vec::new(), GroupSetHandle(0))]);
        Ok(Self { events: EventLines::open(path)?, groups })
    }

    fn record(&mut self, value: Value) -> Result<Option<(FlowRecord, Value)>> {
        match value["event_type"].as_str() {
            Some("flow") => {}
            Some(_) => return Ok(None),
            None => bail!("{}: no event of EVE: it has no `event_type`", self.events.place()),
        }
        if value["src_ip"].as_str().is_none() || !value["flow"].is_object() {
            bail!("{}: a flow record needs `src_ip`, `dest_ip` and `flow`", self.events.place());
        }
        let mut set = |name: &str| {
            let names = value["gnomon"][name].as_array().into_iter().flatten();
            let names: Vec<String> = names.filter_map(Value::as_str).map(str::to_owned).collect();
            let next = GroupSetHandle(self.groups.len() as u32);
            *self.groups.entry(names).or_insert(next)
        };
        let (src_groups, dst_groups) = (set("src_groups"), set("dst_groups"));
        let record = FlowRecord { src_groups, dst_groups, ..record(&value) };
        Ok(Some((record, value)))
    }
}

impl Iterator for FlowFile {
    /// The record, and its line.
    type Item = Result<(FlowRecord, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = match self.events.next()? {
                Ok(value) => self.record(value),
                Err(error) => return Some(Err(error)),
            };
            if let Some(found) = found.transpose() {
                return Some(found);
            }
        }
    }
}

/// As far as the line tells. Payload is in no line: it is reckoned from bytes and packets, with the headers that such
/// packets usually have.
fn record(value: &Value) -> FlowRecord {
    let line = JsonLine(value);
    let number = |field| match line.value(field) {
        Known::Number(n) => n,
        Known::Real(x) => x as u64,
        _ => 0,
    };
    let address = |field| match line.value(field) {
        Known::Address(version, address) => (version, address),
        _ => (4, 0),
    };
    let ((version, src), (_, dst)) = (address(Field::Source), address(Field::Destination));
    let tuple = Tuple {
        src,
        dst,
        src_port: number(Field::SourcePort) as u16,
        dst_port: number(Field::DestinationPort) as u16,
        protocol: number(Field::Protocol) as u8,
        version,
        vlan: number(Field::Vlan) as u16,
        vni: number(Field::Vni) as u32,
    };
    let packets = [number(Field::PacketsToServer), number(Field::PacketsToClient)];
    let bytes = [number(Field::BytesToServer), number(Field::BytesToClient)];
    let (start, end) = (number(Field::Start), number(Field::End));
    let emitted = crate::filter::instant(value["timestamp"].as_str().unwrap_or_default()).unwrap_or(end);
    let flags = [Field::TcpFlagsToServer, Field::TcpFlagsToClient].map(|field| number(field) as u8);
    let header = header(&tuple);
    let mean = bytes[0].saturating_add(bytes[1]) / packets[0].saturating_add(packets[1]).max(1);
    let size = |field| if value["flow"].get("size_min").is_some() { number(field) } else { mean };
    FlowRecord {
        flow_id: number(Field::FlowId),
        tuple,
        start,
        end,
        emitted: emitted.max(end),
        packets,
        bytes,
        payload_bytes: [0, 1].map(|way| bytes[way].saturating_sub(packets[way].saturating_mul(header))),
        tcp_flags: flags,
        icmp: (number(Field::IcmpType) as u8, number(Field::IcmpCode) as u8),
        state: state(value),
        reason: reason(value),
        decision: match value["gnomon"]["action"].as_str().or(value["flow"]["action"].as_str()) {
            Some("deny" | "drop") => Decision::Deny,
            Some("reject") => Decision::Reject,
            _ => Decision::Allow,
        },
        sizes: Spread { min: size(Field::SizeMin), max: size(Field::SizeMax), ..Spread::default() },
        ..FlowRecord::default()
    }
}

/// Ethernet, IP and transport, with the options that data segments of TCP usually carry.
fn header(tuple: &Tuple) -> u64 {
    let ip = if tuple.version == 6 { 40 } else { 20 };
    let transport = match tuple.protocol {
        6 => 32,
        1 | 17 | 58 => 8,
        _ => 0,
    };
    14 + ip + transport
}

fn state(value: &Value) -> FlowState {
    let name = value["flow"]["state"].as_str().unwrap_or_default();
    FlowState::ALL.into_iter().find(|state| state.name() == name).unwrap_or_default()
}

fn reason(value: &Value) -> EndReason {
    let name = value["flow"]["reason"].as_str().unwrap_or_default();
    EndReason::ALL.into_iter().find(|reason| reason.name() == name).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::behaviour::{Flags, ScoredRecord};
    use crate::export::{Names, write_flow};
    use crate::mirror::Rate;
    use crate::rules::RuleHandle;
    use std::borrow::Cow;

    struct Nameless;

    impl Names for Nameless {
        fn rule(&self, _: RuleHandle) -> Cow<'_, str> {
            "default".into()
        }
        fn groups(&self, groups: GroupSetHandle) -> Vec<Cow<'_, str>> {
            if groups.0 == 0 { Vec::new() } else { vec!["web".into()] }
        }
        fn mirror(&self, _: u32, _: usize) -> Cow<'_, str> {
            "".into()
        }
        fn mirror_rate(&self, _: u32, _: usize) -> Option<Rate> {
            None
        }
    }

    #[test]
    fn a_written_record_is_read_again() {
        let micro = 1_736_931_605_000_123_000;
        let record = FlowRecord {
            flow_id: 77,
            tuple: Tuple {
                src: 0x0a00_0001,
                dst: 0x0a00_0002,
                src_port: 40_000,
                dst_port: 443,
                protocol: 6,
                version: 4,
                vlan: 7,
                vni: 0,
            },
            start: micro,
            end: micro + 5_000_000,
            emitted: micro + 9_000_000,
            packets: [3, 4],
            bytes: [500, 4000],
            payload_bytes: [500 - 3 * 66, 4000 - 4 * 66],
            tcp_flags: [0x1b, 0x13],
            state: FlowState::Closed,
            reason: EndReason::Fin,
            decision: Decision::Deny,
            src_groups: GroupSetHandle(1),
            sizes: Spread { min: 60, max: 1514, mean: 600.0, sd: 1.0 },
            ..FlowRecord::default()
        };
        let mut bytes = b"{\"event_type\":\"stats\"}\n\n".to_vec();
        let scored = ScoredRecord { record, score: None, flags: Flags::default() };
        write_flow(&mut bytes, &scored, None, &Nameless).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        std::fs::write(&path, &bytes).unwrap();
        let read: Vec<_> = FlowFile::open(&path).unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(read.len(), 1);
        let sizes = Spread { min: 60, max: 1514, ..Spread::default() };
        assert_eq!(read[0].0, FlowRecord { sizes, ..record });
        assert_eq!(read[0].1["flow_id"], 77);
    }

    #[test]
    fn mistakes_have_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        for (text, told) in
            [("{}\n", "no event of EVE"), ("\nno json", "line 2"), ("{\"event_type\":\"flow\"}", "needs")]
        {
            std::fs::write(&path, text).unwrap();
            let error = FlowFile::open(&path).unwrap().find_map(Result::err).unwrap();
            assert!(format!("{error:#}").contains(told), "{error:#}");
        }
    }
}
