//! The file of frames that were mirrored.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::capture::{Direction, PcapngInterface, PcapngPacket, PcapngStatistics, PcapngWriter};
use crate::mirror::Receipts;
use crate::mirror::wrap::{Detail, Origin, Wrapped};

/// A pcapng file with an interface for each stream of copies, named after its tunnel, id and worker. What GENEVE
/// tells of a packet is its comment.
pub(super) struct Frames {
    writer: PcapngWriter<BufWriter<File>>,
    path: PathBuf,
    interfaces: HashMap<Origin, Interface>,
    comment: String,
}

struct Interface {
    number: u32,
    began: u64,
    ended: u64,
}

impl Frames {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let application = concat!("gnomon ", env!("CARGO_PKG_VERSION"));
        let writer = PcapngWriter::begin(BufWriter::new(file), application, "frames taken out of mirror copies");
        let writer = writer.with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { writer, path: path.to_owned(), interfaces: HashMap::new(), comment: String::new() })
    }

    /// Writes the frame in a copy that came at `arrived`, in nanoseconds since the Unix epoch.
    pub(super) fn write(&mut self, copy: &Wrapped<'_>, arrived: u64) -> Result<()> {
        self.try_write(copy, arrived).with_context(|| format!("writing {}", self.path.display()))
    }

    fn try_write(&mut self, copy: &Wrapped<'_>, arrived: u64) -> std::io::Result<()> {
        let (ns, wire_len) = copy.detail.map_or((arrived, 0), |told| (told.clock_ns, told.original_len));
        if !self.interfaces.contains_key(&copy.origin()) {
            let number = self.writer.interface(&described(copy))?;
            self.interfaces.insert(copy.origin(), Interface { number, began: ns, ended: ns });
        }
        let Some(interface) = self.interfaces.get_mut(&copy.origin()) else { return Ok(()) };
        interface.ended = interface.ended.max(ns);
        self.comment.clear();
        comment(&mut self.comment, copy.sequence, copy.detail.as_ref());
        self.writer.packet(&PcapngPacket {
            interface: interface.number,
            ns,
            data: copy.frame,
            wire_len,
            direction: Direction::Unknown,
            dropped: 0,
            queue: copy.stream.worker.into(),
            comment: &self.comment,
        })
    }

    /// Writes what each stream lost, and all that is still waiting.
    pub(super) fn finish(mut self, receipts: &Receipts) -> Result<()> {
        for (origin, account) in receipts.accounts() {
            let Some(interface) = self.interfaces.get(origin) else { continue };
            let totals = PcapngStatistics {
                began: interface.began,
                ended: interface.ended,
                received: account.packets + account.lost,
                accepted: account.packets + account.lost,
                dropped: account.lost,
                delivered: account.packets,
            };
            self.writer
                .statistics(interface.number, &totals)
                .with_context(|| format!("writing {}", self.path.display()))?;
        }
        self.writer.flush().with_context(|| format!("writing {}", self.path.display()))
    }
}

fn described(copy: &Wrapped<'_>) -> PcapngInterface {
    let (from, to, tunnel, stream) = copy.origin();
    PcapngInterface {
        name: format!("{} {} worker {}", tunnel.name(), stream.id, stream.worker),
        description: format!("mirror copies from {from} to {to}"),
        comment: String::new(),
        snap_len: 0,
    }
}

/// `sequence=7 rule_handle=3 action=allow generation=2 copies_of=100`.
fn comment(text: &mut String, sequence: Option<u32>, detail: Option<&Detail>) {
    // Writing to a String does not fail.
    if let Some(sequence) = sequence {
        let _ = write!(text, "sequence={sequence} ");
    }
    if let Some(told) = detail {
        let (rule, action, generation) = (told.rule.0, told.decision.name(), told.generation);
        let _ = write!(text, "rule_handle={rule} action={action} generation={generation} one_in={} ", told.sampling);
        if let Some(score) = told.score {
            let _ = write!(text, "score={score:.3} ");
        }
        if let Some(problem) = told.problem {
            let _ = write!(text, "drop={} ", problem.name());
        }
    }
    text.truncate(text.trim_end().len());
}

/// Now, in nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
