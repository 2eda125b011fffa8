//! `packets.jsonl`: for each frame of a capture what was understood and what was decided.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use crossbeam::queue::ArrayQueue;
use serde::Serialize;

use super::policy::PolicyNames;
use crate::capture::{CaptureReader, to_ethernet};
use crate::packet::{self, Layer};
use crate::rules::{Decision, RuleHandle};
use crate::worker::PacketNote;

/// One line of `packets.jsonl`.
#[derive(Serialize)]
struct PacketLine {
    /// From 0, in capture order.
    frame: u64,
    timestamp: String,
    wire_len: u32,
    captured_len: usize,
    link_type: String,
    /// Outermost first.
    layers: Vec<Layer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    malformed: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Key>,
    decision: Decision,
    rule: Arc<str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    would_be: Vec<Arc<str>>,
    generation: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mirrored_to: Vec<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<&'static str>,
}

/// What flow and rules looked at; a later fragment has its first fragment's ports.
#[derive(Serialize)]
struct Key {
    flow_id: u64,
    src_ip: String,
    dest_ip: String,
    src_port: u16,
    dest_port: u16,
    proto: u8,
    #[serde(skip_serializing_if = "is_zero")]
    vlan: u16,
    #[serde(skip_serializing_if = "is_zero32")]
    vni: u32,
}

fn is_zero(n: &u16) -> bool {
    *n == 0
}

fn is_zero32(n: &u32) -> bool {
    *n == 0
}

/// Reads the capture again beside the workers' notes and writes one line a frame, in capture order.
pub fn write_packets(
    capture: &Path,
    out: &Path,
    notes: &ArrayQueue<PacketNote>,
    names: &PolicyNames,
    abort: &AtomicBool,
) -> Result<()> {
    let result = write_all(capture, out, notes, names, abort);
    if result.is_err() {
        // Workers must not wait for room that nobody makes.
        abort.store(true, Ordering::Relaxed);
    }
    result
}

fn write_all(
    capture: &Path,
    out: &Path,
    notes: &ArrayQueue<PacketNote>,
    names: &PolicyNames,
    abort: &AtomicBool,
) -> Result<()> {
    let context = || format!("writing {}", out.display());
    let mut writer = BufWriter::new(std::fs::File::create(out).with_context(context)?);
    let mut reader = CaptureReader::open(capture)?;
    let mut inbox = Inbox { notes, waiting: BinaryHeap::new() };
    let mut ethernet = Vec::new();
    let mut index = 0;
    while let Some(frame) = reader.next_frame()? {
        let normalised = to_ethernet(frame.link, frame.data, frame.wire_len, &mut ethernet);
        let Some(note) = inbox.note(index, abort) else { break };
        let (layers, malformed) = packet::layers(&ethernet, normalised.wire_len(frame.wire_len));
        let line = PacketLine {
            frame: index,
            timestamp: crate::export::iso8601(frame.ts_ns),
            wire_len: frame.wire_len,
            captured_len: frame.data.len(),
            link_type: frame.link.name(),
            layers: if normalised.supported { layers } else { Vec::new() },
            malformed: malformed.filter(|_| normalised.supported).map(|m| m.name()),
            key: key(&note),
            decision: note.decision,
            rule: names.labels.rule(note.rule),
            would_be: would_be(&note, names),
            generation: note.generation,
            mirrored_to: sessions(&note, names),
            dropped: note.dropped.map(|reason| reason.name()),
        };
        write_line(&mut writer, &line).with_context(context)?;
        index += 1;
    }
    writer.flush().with_context(context)
}

fn write_line(writer: &mut impl Write, line: &PacketLine) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, line)?;
    writer.write_all(b"\n")
}

fn key(note: &PacketNote) -> Option<Key> {
    let t = &note.tuple;
    (t.version != 0).then(|| Key {
        flow_id: note.flow_id,
        src_ip: t.src_ip().to_string(),
        dest_ip: t.dst_ip().to_string(),
        src_port: t.src_port,
        dest_port: t.dst_port,
        proto: t.protocol,
        vlan: t.vlan,
        vni: t.vni,
    })
}

fn would_be(note: &PacketNote, names: &PolicyNames) -> Vec<Arc<str>> {
    note.shadows.iter().filter(|rule| **rule != RuleHandle::DEFAULT).map(|rule| names.labels.rule(*rule)).collect()
}

fn sessions(note: &PacketNote, names: &PolicyNames) -> Vec<Arc<str>> {
    (0..64).filter(|bit| note.mirrors >> bit & 1 == 1).filter_map(|bit| names.session(note.generation, bit)).collect()
}

/// Notes of several workers, put into frame order.
struct Inbox<'a> {
    notes: &'a ArrayQueue<PacketNote>,
    waiting: BinaryHeap<Reverse<ByFrame>>,
}

impl Inbox<'_> {
    /// Waits for the note on frame `index`; `None` when the workers gave up.
    fn note(&mut self, index: u64, abort: &AtomicBool) -> Option<PacketNote> {
        loop {
            if self.waiting.peek().is_some_and(|Reverse(first)| first.0.index <= index) {
                return self.waiting.pop().map(|Reverse(first)| first.0);
            }
            match self.notes.pop() {
                Some(note) => self.waiting.push(Reverse(ByFrame(note))),
                None if abort.load(Ordering::Relaxed) => return None,
                None => std::thread::yield_now(),
            }
        }
    }
}

#[derive(PartialEq, Eq)]
struct ByFrame(PacketNote);

impl Ord for ByFrame {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.index.cmp(&other.0.index)
    }
}

impl PartialOrd for ByFrame {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
