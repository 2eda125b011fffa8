//! Keeps account of every packet that is written: per flow, per label, per attack. The truth files are
//! made of this.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::capture::CaptureError;

/// Name of the neighbour resolution (ARP, ND) among labels; these packets are no flows.
pub(super) const NEIGHBOURS: Label = Label { name: "neighbours", attack: None };

/// What a flow is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// A service, or the kind of attack.
    pub(super) name: &'static str,
    /// Position in the list of attacks.
    pub(super) attack: Option<u16>,
}

impl Label {
    pub(super) const fn service(name: &'static str) -> Self {
        Self { name, attack: None }
    }
}

/// Position of an open flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowIx(usize);

/// Packets, bytes (of whole frames) and flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub packets: u64,
    pub bytes: u64,
    pub flows: u64,
}

/// What was seen of one attack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) totals: Totals,
    /// Time of the first and last packet, nanoseconds since 1970.
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
}

/// One flow as the truth knows it. `src` is the initiator.
#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    ips: [IpAddr; 2],
    ports: [u16; 2],
    protocol: u8,
    label: Label,
    first_ns: u64,
    last_ns: u64,
    packets: [u64; 2],
    bytes: [u64; 2],
}

/// The books; finished flows go to a CSV file, so that memory is bounded by the flows open at once.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    csv: BufWriter<File>,
    open: Vec<Option<Entry>>,
    free: Vec<usize>,
    pub(super) totals: Totals,
    pub(super) by_label: BTreeMap<&'static str, Totals>,
    pub(super) attacks: Vec<Seen>,
}

/// Columns of the flow file.
const COLUMNS: &str = "id,start,end,src_ip,src_port,dest_ip,dest_port,proto,\
                       pkts_toserver,pkts_toclient,bytes_toserver,bytes_toclient,label,attack";

impl Ledger {
    pub(super) fn create(path: &Path, attacks: usize) -> Result<Self, CaptureError> {
        let error = |e| CaptureError::Write { path: path.to_path_buf(), source: e };
        let mut csv = BufWriter::with_capacity(256 * 1024, File::create(path).map_err(error)?);
        writeln!(csv, "{COLUMNS}").map_err(error)?;
        Ok(Self {
            path: path.to_path_buf(),
            csv,
            open: Vec::new(),
            free: Vec::new(),
            totals: Totals::default(),
            by_label: BTreeMap::new(),
            attacks: vec![Seen::default(); attacks],
        })
    }

    /// Begins a flow whose first packet is about to be counted.
    pub(super) fn open(&mut self, ips: [IpAddr; 2], ports: [u16; 2], protocol: u8, label: Label, now: u64) -> FlowIx {
        self.totals.flows += 1;
        self.by_label.entry(label.name).or_default().flows += 1;
        if let Some(attack) = label.attack {
            self.attacks[usize::from(attack)].totals.flows += 1;
        }
        let id = self.totals.flows;
        let entry =
            Entry { id, ips, ports, protocol, label, first_ns: now, last_ns: now, packets: [0; 2], bytes: [0; 2] };
        let at = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.open[at] = Some(entry);
        FlowIx(at)
    }

    /// Counts one frame of a flow, in direction 0 (from the initiator) or 1.
    pub(super) fn count(&mut self, flow: FlowIx, direction: usize, now: u64, len: usize) {
        if let Some(entry) = &mut self.open[flow.0] {
            entry.last_ns = now;
            entry.packets[direction] += 1;
            entry.bytes[direction] += len as u64;
            let label = entry.label;
            self.count_label(label, now, len);
        }
    }

    /// Counts a frame that belongs to no flow.
    pub(super) fn count_label(&mut self, label: Label, now: u64, len: usize) {
        let attack = label.attack.map(|a| &mut self.attacks[usize::from(a)]);
        if let Some(seen) = attack {
            if seen.totals.packets == 0 {
                seen.first_ns = now;
            }
            seen.last_ns = now;
            seen.totals.packets += 1;
            seen.totals.bytes += len as u64;
        }
        for totals in [&mut self.totals, self.by_label.entry(label.name).or_default()] {
            totals.packets += 1;
            totals.bytes += len as u64;
        }
    }

    /// Ends a flow and writes it down.
    pub(super) fn close(&mut self, flow: FlowIx) -> Result<(), CaptureError> {
        let Some(entry) = self.open[flow.0].take() else { return Ok(()) };
        self.free.push(flow.0);
        self.write(&entry)
    }

    /// Writes down the flows that are still open, oldest first.
    pub(super) fn finish(&mut self) -> Result<(), CaptureError> {
        let mut rest: Vec<Entry> = self.open.drain(..).flatten().collect();
        rest.sort_by_key(|e| e.id);
        rest.iter().try_for_each(|e| self.write(e))?;
        self.csv.flush().map_err(|e| CaptureError::Write { path: self.path.clone(), source: e })
    }

    fn write(&mut self, e: &Entry) -> Result<(), CaptureError> {
        let protocol = match e.protocol {
            super::frames::TCP => "tcp",
            super::frames::UDP => "udp",
            super::frames::ICMP => "icmp",
            _ => "icmpv6",
        };
        let seconds = |ns: u64| format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
        let attack = e.label.attack.map_or(String::new(), |a| (a + 1).to_string());
        writeln!(
            self.csv,
            "{},{},{},{},{},{},{},{protocol},{},{},{},{},{},{attack}",
            e.id,
            seconds(e.first_ns),
            seconds(e.last_ns),
            e.ips[0],
            e.ports[0],
            e.ips[1],
            e.ports[1],
            e.packets[0],
            e.packets[1],
            e.bytes[0],
            e.bytes[1],
            e.label.name,
        )
        .map_err(|source| CaptureError::Write { path: self.path.clone(), source })
    }
}
