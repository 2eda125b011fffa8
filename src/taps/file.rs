//! The client's end of a capture: records become pcapng files, or lines of text.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::capture::Drained;
use super::line::summary;
use super::wire::{self, Item};
use crate::capture::{Direction, PcapngInterface, PcapngPacket, PcapngStatistics, PcapngWriter};
use crate::worker::tap::{CaptureHead, Point};

/// The first line of a capture: what the rest is to be understood by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureBegin {
    /// Names of all ports, by number, and which of them and which points are captured.
    pub ports: Vec<String>,
    pub captured_ports: Vec<String>,
    pub points: Vec<String>,
    pub snap_len: u32,
    pub filter: String,
    /// Nanoseconds since the Unix epoch.
    pub began: u64,
}

/// Where files go and when a new one begins. Without limits there is one file.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    /// Bytes of a file, after which a new one begins.
    pub size: Option<u64>,
    /// Nanoseconds of packet time that a file covers.
    pub time: Option<u64>,
    /// Files kept; older ones are removed.
    pub keep: Option<usize>,
}

/// A way out for a capture.
pub trait Outlet {
    /// # Errors
    /// It cannot be written.
    fn packet(&mut self, head: &CaptureHead, bytes: &[u8], comment: &str) -> io::Result<()>;

    /// What is written so far can be read.
    ///
    /// # Errors
    /// It cannot be written.
    fn flush(&mut self) -> io::Result<()>;

    /// The capture is over.
    ///
    /// # Errors
    /// It cannot be written.
    fn finish(&mut self, totals: &[Drained], ended: u64) -> io::Result<()>;
}

/// Understands the stream of a capture.
#[derive(Debug, Default)]
pub struct Decoder {
    rules: HashMap<u32, Arc<str>>,
    mirrors: HashMap<(u32, u8), Arc<str>>,
    comment: String,
    /// Packets so far.
    pub packets: u64,
}

impl Decoder {
    /// Hands the packets in these bytes to the outlet, at most `most` of them in all; false when it has had so many.
    ///
    /// # Errors
    /// The bytes are no capture, or the outlet cannot be written.
    pub fn decode(&mut self, mut bytes: &[u8], most: Option<u64>, outlet: &mut dyn Outlet) -> io::Result<bool> {
        while !bytes.is_empty() {
            let strange =
                || io::Error::new(io::ErrorKind::InvalidData, "the appliance sent what this program cannot read");
            match wire::take(&mut bytes).ok_or_else(strange)? {
                Item::Rule(number, id) => _ = self.rules.insert(number, id.into()),
                Item::Mirror { generation, bit, name } => _ = self.mirrors.insert((generation, bit), name.into()),
                Item::Packet(head, data) => {
                    if most.is_some_and(|most| self.packets >= most) {
                        return Ok(false);
                    }
                    self.comment(&head);
                    outlet.packet(&head, data, &self.comment)?;
                    self.packets += 1;
                }
            }
        }
        Ok(most.is_none_or(|most| self.packets < most))
    }

    /// What became of the packet, in words that are easy to search for: `rule=web action=allow …`.
    fn comment(&mut self, head: &CaptureHead) {
        use std::fmt::Write;
        let text = &mut self.comment;
        text.clear();
        // Writing to a String does not fail.
        if head.generated {
            text.push_str("made by gnomon: answer to a rejected packet; ");
        }
        if let Some(judged) = &head.judged {
            let rule = self.rules.get(&judged.rule.0).map_or("?", |id| id);
            let (action, tier) = (lower(&judged.decision), lower(&judged.tier));
            let _ = write!(text, "rule={rule} action={action} tier={tier} generation={} ", judged.generation);
        }
        if head.flow_id != 0 {
            let _ = write!(text, "flow={} ", head.flow_id);
        }
        if let Some(reason) = head.dropped {
            let _ = write!(text, "drop={} ", reason.name());
        }
        let generation = head.judged.map_or(0, |judged| judged.generation);
        let mut mark = "mirror=";
        for bit in (0..64u8).filter(|bit| head.mirrors >> bit & 1 != 0) {
            let _ = write!(text, "{mark}{}", self.mirrors.get(&(generation, bit)).map_or("?", |name| name));
            mark = ",";
        }
        if mark == "," {
            text.push(' ');
        }
        // Answers that the appliance itself makes were never received.
        if head.point == Point::Tx && head.received_ns != 0 {
            let _ = write!(text, "box_ns={} ", head.ns.saturating_sub(head.received_ns));
        }
        text.truncate(text.trim_end().len());
    }
}

fn lower(word: &impl std::fmt::Debug) -> String {
    format!("{word:?}").to_lowercase()
}

/// pcapng files, or one stream of it.
pub struct PcapngFiles {
    begin: CaptureBegin,
    place: Place,
    rotation: Rotation,
    current: Option<Current>,
    /// Numbers of interfaces by port and point, the same in every file.
    interfaces: HashMap<(u16, Point), u32>,
    listed: Vec<PcapngInterface>,
    /// Files that are complete, oldest first.
    complete: VecDeque<PathBuf>,
    made: u64,
    /// Packets of all files, by interface.
    delivered: Vec<u64>,
}

enum Place {
    Path(PathBuf),
    Stream(Option<Box<dyn Write>>),
}

struct Current {
    writer: PcapngWriter<Box<dyn Write>>,
    path: Option<PathBuf>,
    first_ns: Option<u64>,
    newest_ns: u64,
    /// By interface, in this file.
    delivered: Vec<u64>,
    lost: Vec<u64>,
}

impl PcapngFiles {
    /// Files at `path`; with a rotation, their names have a number and a time before the extension. The first one is
    /// made at once.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn at(path: &Path, rotation: Rotation, begin: CaptureBegin) -> io::Result<Self> {
        Self::new(Place::Path(path.to_owned()), rotation, begin)
    }

    /// One stream, such as standard output.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn stream(out: Box<dyn Write>, begin: CaptureBegin) -> io::Result<Self> {
        Self::new(Place::Stream(Some(out)), Rotation::default(), begin)
    }

    fn new(place: Place, rotation: Rotation, begin: CaptureBegin) -> io::Result<Self> {
        let (mut interfaces, mut listed) = (HashMap::new(), Vec::new());
        for (number, port) in begin.ports.iter().enumerate().filter(|(_, port)| begin.captured_ports.contains(port)) {
            for point in Point::ALL.into_iter().filter(|point| begin.points.iter().any(|name| name == point.name())) {
                interfaces.insert((number as u16, point), listed.len() as u32);
                listed.push(PcapngInterface {
                    name: format!("{port}:{}", point.name()),
                    description: format!("gnomon port {port}, {}", what(point)),
                    comment: String::new(),
                    snap_len: begin.snap_len,
                });
            }
        }
        let many = listed.len();
        let mut files = Self {
            begin,
            place,
            rotation,
            current: None,
            interfaces,
            listed,
            complete: VecDeque::new(),
            made: 0,
            delivered: vec![0; many],
        };
        let began = files.begin.began;
        files.open(began)?;
        files.flush()?;
        Ok(files)
    }

    /// Files made so far.
    pub fn made(&self) -> u64 {
        self.made
    }

    fn open(&mut self, ns: u64) -> io::Result<()> {
        let (out, path): (Box<dyn Write>, _) = match &mut self.place {
            Place::Stream(out) => {
                let out = out.take().ok_or_else(|| io::Error::other("a stream cannot begin again"))?;
                (Box::new(BufWriter::with_capacity(1 << 18, out)), None)
            }
            Place::Path(path) => {
                let path = if self.rotation.is_none() { path.clone() } else { numbered(path, self.made + 1, ns) };
                (Box::new(BufWriter::with_capacity(1 << 18, File::create(&path)?)), Some(path))
            }
        };
        let application = concat!("gnomon ", env!("CARGO_PKG_VERSION"));
        let filter = &self.begin.filter;
        let comment = if filter.is_empty() { String::new() } else { format!("expression: {filter}") };
        let mut writer = PcapngWriter::begin(out, application, &comment)?;
        for interface in &self.listed {
            writer.interface(interface)?;
        }
        let zero = vec![0; self.listed.len()];
        let (delivered, lost) = (zero.clone(), zero);
        self.current = Some(Current { writer, path, first_ns: None, newest_ns: ns, delivered, lost });
        self.made += 1;
        Ok(())
    }

    /// A file before the last has what it holds in its statistics; the last one the totals of the capture.
    fn close(&mut self, totals: Option<(&[Drained], u64)>) -> io::Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        for (number, interface) in self.listed.iter().enumerate() {
            let of = |drained: &&Drained| format!("{}:{}", drained.port, drained.point) == interface.name;
            let statistics = match totals {
                Some((totals, ended)) => {
                    let Some(total) = totals.iter().find(of) else { continue };
                    PcapngStatistics {
                        began: self.begin.began,
                        ended,
                        received: total.seen,
                        accepted: total.matched,
                        dropped: total.lost,
                        delivered: self.delivered[number],
                    }
                }
                None => PcapngStatistics {
                    began: current.first_ns.unwrap_or(current.newest_ns),
                    ended: current.newest_ns,
                    received: current.delivered[number] + current.lost[number],
                    accepted: current.delivered[number] + current.lost[number],
                    dropped: current.lost[number],
                    delivered: current.delivered[number],
                },
            };
            current.writer.statistics(number as u32, &statistics)?;
        }
        current.writer.flush()?;
        self.complete.extend(current.path);
        Ok(())
    }

    fn rotate(&mut self, ns: u64) -> io::Result<()> {
        self.close(None)?;
        if let Some(keep) = self.rotation.keep {
            while self.complete.len() >= keep.max(1) {
                if let Some(oldest) = self.complete.pop_front() {
                    match std::fs::remove_file(oldest) {
                        // Somebody else has moved it.
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        self.open(ns)
    }
}

impl std::fmt::Debug for PcapngFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PcapngFiles").field("made", &self.made).finish_non_exhaustive()
    }
}

impl Outlet for PcapngFiles {
    fn packet(&mut self, head: &CaptureHead, bytes: &[u8], comment: &str) -> io::Result<()> {
        let Some(&interface) = self.interfaces.get(&(head.port, head.point)) else { return Ok(()) };
        if self.current.as_ref().is_some_and(|current| self.rotation.is_due(current, head.ns)) {
            self.rotate(head.ns)?;
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        current.first_ns.get_or_insert(head.ns);
        current.newest_ns = current.newest_ns.max(head.ns);
        current.delivered[interface as usize] += 1;
        current.lost[interface as usize] += u64::from(head.lost);
        self.delivered[interface as usize] += 1;
        current.writer.packet(&PcapngPacket {
            interface,
            ns: head.ns,
            data: bytes,
            wire_len: head.wire_len,
            direction: if head.point == Point::Tx { Direction::Outbound } else { Direction::Inbound },
            dropped: head.lost.into(),
            queue: head.worker.into(),
            comment,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.current.as_mut().map_or(Ok(()), |current| current.writer.flush())
    }

    fn finish(&mut self, totals: &[Drained], ended: u64) -> io::Result<()> {
        self.close(Some((totals, ended)))
    }
}

impl Rotation {
    pub fn is_none(&self) -> bool {
        self.size.is_none() && self.time.is_none()
    }

    /// Never before a file has a packet.
    fn is_due(&self, current: &Current, ns: u64) -> bool {
        let Some(first) = current.first_ns else { return false };
        self.size.is_some_and(|size| current.writer.written() >= size)
            || self.time.is_some_and(|time| ns.saturating_sub(first) >= time)
    }
}

fn what(point: Point) -> &'static str {
    match point {
        Point::Rx => "packets received",
        Point::Verdict => "packets received and judged",
        Point::Tx => "packets sent",
        Point::Drop => "packets received and not forwarded",
    }
}

/// `dir/name_00001_20160512091122.pcapng`.
fn numbered(path: &Path, number: u64, ns: u64) -> PathBuf {
    let time: String = crate::export::iso8601(ns).chars().take(19).filter(char::is_ascii_digit).collect();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or_else(|| "pcapng".into(), |extension| extension.to_string_lossy());
    path.with_file_name(format!("{stem}_{number:05}_{time}.{extension}"))
}

/// One line of text a packet.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
    ports: Vec<String>,
}

impl<W: Write> Lines<W> {
    pub fn new(out: W, begin: &CaptureBegin) -> Self {
        Self { out, ports: begin.ports.clone() }
    }
}

impl<W: Write> Outlet for Lines<W> {
    fn packet(&mut self, head: &CaptureHead, bytes: &[u8], comment: &str) -> io::Result<()> {
        let (packet, ..) = summary(bytes, head.wire_len);
        let port = self.ports.get(usize::from(head.port)).map_or("?", String::as_str);
        let time = &crate::export::iso8601(head.ns)[11..26];
        if head.lost > 0 {
            writeln!(self.out, "({} packets lost here for want of room)", head.lost)?;
        }
        writeln!(self.out, "{time} {port}:{} {} bytes {packet} [{comment}]", head.point.name(), head.wire_len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self, _: &[Drained], _: u64) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::capture::CaptureReader;
    use crate::packet::DropReason;
    use crate::rules::{Decision, RuleHandle, Tier};
    use crate::worker::tap::Judged;

    fn begin() -> CaptureBegin {
        CaptureBegin {
            ports: vec!["a".into(), "b".into(), "m".into()],
            captured_ports: vec!["a".into(), "b".into()],
            points: vec!["rx".into(), "tx".into()],
            snap_len: 100,
            filter: "proto=tcp".into(),
            began: 5,
        }
    }

    fn head(n: u64) -> CaptureHead {
        let judged = Judged { decision: Decision::Deny, tier: Tier::Policy, rule: RuleHandle(7), generation: 3 };
        CaptureHead {
            point: Point::Rx,
            port: 1,
            ns: n * 1_000_000_000,
            received_ns: n * 1_000_000_000,
            wire_len: 200,
            captured_len: 100,
            worker: 2,
            generated: false,
            void: false,
            flow_id: 99,
            judged: Some(judged),
            dropped: Some(DropReason::Denied),
            mirrors: 0b101,
            lost: 1,
        }
    }

    fn frames(path: &Path) -> Vec<(u64, u32)> {
        let mut reader = CaptureReader::open(path).unwrap();
        let mut frames = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            frames.push((frame.ts_ns, frame.wire_len));
        }
        assert!(!reader.truncated());
        frames
    }

    #[test]
    fn comments_say_what_became_of_a_packet() {
        let mut bytes = Vec::new();
        wire::put(&Item::Rule(7, "no-smtp"), &mut bytes);
        wire::put(&Item::Mirror { generation: 3, bit: 0, name: "ids" }, &mut bytes);
        wire::put(&Item::Mirror { generation: 3, bit: 2, name: "lab" }, &mut bytes);
        wire::put(&Item::Packet(head(1), &[0; 100]), &mut bytes);
        wire::put(&Item::Packet(head(2), &[0; 100]), &mut bytes);
        let (mut decoder, mut lines) = (Decoder::default(), Lines::new(Vec::new(), &begin()));
        assert!(!decoder.decode(&bytes, Some(1), &mut lines).unwrap(), "one was enough");
        let text = String::from_utf8(lines.out.clone()).unwrap();
        let comment = "[rule=no-smtp action=deny tier=policy generation=3 flow=99 drop=denied mirror=ids,lab]";
        assert!(text.contains(comment) && text.contains("00:00:01.000000 b:rx 200 bytes"), "{text}");
        assert!(decoder.decode(&[1, 2, 3], None, &mut lines).is_err());
    }

    #[test]
    fn files_rotate_by_size_and_time_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let listed = |folder: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names
        };
        let rotation = Rotation { time: Some(10_000_000_000), size: None, keep: Some(3) };
        let mut files = PcapngFiles::at(&folder.path().join("x.pcapng"), rotation, begin()).unwrap();
        for n in 0..55 {
            files.packet(&head(n), &[0; 100], "comment").unwrap();
        }
        files.finish(&[], 60_000_000_000).unwrap();
        assert_eq!(files.made(), 6);
        let names = listed(folder.path());
        let shown: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        let expected =
            ["x_00004_19700101000030.pcapng", "x_00005_19700101000040.pcapng", "x_00006_19700101000050.pcapng"];
        assert_eq!(shown, expected);
        assert_eq!(names.iter().map(|path| frames(path).len()).collect::<Vec<_>>(), [10, 10, 5]);
        let moved = tempfile::tempdir().unwrap();
        let rotation = Rotation { time: Some(10_000_000_000), size: None, keep: Some(1) };
        let mut files = PcapngFiles::at(&moved.path().join("z.pcapng"), rotation, begin()).unwrap();
        (0..15).for_each(|n| files.packet(&head(n), &[0; 100], "comment").unwrap());
        listed(moved.path()).iter().for_each(|path| std::fs::remove_file(path).unwrap());
        (15..35).for_each(|n| files.packet(&head(n), &[0; 100], "comment").unwrap());
        files.finish(&[], 40_000_000_000).unwrap();
        assert_eq!((files.made(), listed(moved.path()).len()), (4, 1), "goes on when somebody took the files away");
        let sized = tempfile::tempdir().unwrap();
        let rotation = Rotation { size: Some(2000), ..Rotation::default() };
        let mut files = PcapngFiles::at(&sized.path().join("y.pcapng"), rotation, begin()).unwrap();
        (0..50).for_each(|n| files.packet(&head(n), &[0; 100], "comment").unwrap());
        files.finish(&[], 0).unwrap();
        let all: Vec<_> = listed(sized.path()).iter().flat_map(|path| frames(path)).collect();
        assert_eq!(
            all,
            (0..50).map(|n| (n * 1_000_000_000, 200)).collect::<Vec<_>>(),
            "nothing twice, nothing missing"
        );
        assert!(files.made() > 3 && listed(sized.path()).iter().all(|p| p.metadata().unwrap().len() < 2700));
    }
}
