//! `gnomon receive`: the collector's end of a mirror.

mod frames;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use self::frames::{Frames, now_ns};
use super::report::table;
use crate::capture::{CaptureReader, LinkType};
use crate::dpdk::{Burst, Device, Eal, EalOptions, Mempool, PortOptions, RxQueue};
use crate::mirror::wrap::{NotWrapped, Reassembly, Wrapped, unwrap};
use crate::mirror::{Account, Receipts};

/// Take mirror copies out of what they are wrapped in, and check that none is missing.
///
/// Reads VXLAN, GENEVE, GRE and ERSPAN (types II and III) over IPv4 and IPv6, from captures or live from a port, whoever
/// sent them. All but VXLAN number the copies: numbers that did not come are counted as lost, for each sender, collector,
/// session and worker. Copies in several IP packets are put together. What is not a copy is counted and left out.
///
/// Exit codes: 0 nothing is missing, 1 it failed or (with --strict) copies are missing, 2 wrong use.
#[derive(Debug, Args)]
pub(super) struct ReceiveArgs {
    /// Captures of what arrived, pcap or pcapng, gzipped or not, one after the other.
    #[arg(value_name = "CAPTURE", required_unless_present = "device")]
    captures: Vec<PathBuf>,
    /// Receive live from this DPDK device, until SIGINT or SIGTERM; net_af_packet0,iface=eth1 is a kernel interface.
    #[arg(long, value_name = "DEVICE", conflicts_with = "captures")]
    device: Option<String>,
    /// Live: stop after this many seconds.
    #[arg(long, value_name = "SECONDS", requires = "device")]
    seconds: Option<u64>,
    /// Write the frames that were mirrored to this pcapng file: an interface for each sender, session and worker.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Fail when copies are missing.
    #[arg(long)]
    strict: bool,
    /// Form of the accounts; JSON is one object.
    #[arg(short, long, value_name = "FORM", value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

/// Buffers of a live run.
const BUFFERS: u32 = 16_383;
const MEMORY_MB: u32 = 128;
const DESCRIPTORS: u16 = 1024;

pub(super) fn run(args: &ReceiveArgs) -> Result<ExitCode> {
    let mut desk = Desk::open(args.write.as_deref())?;
    match &args.device {
        Some(device) => live(device, args.seconds, &mut desk)?,
        None => args.captures.iter().try_for_each(|path| desk.read(path))?,
    }
    let lost = desk.receipts.lost();
    let text = if args.output == "json" { format!("{}\n", desk.json()) } else { desk.text() };
    if let Some(writer) = desk.writer.take() {
        writer.finish(&desk.receipts)?;
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("writing to standard output")?;
    Ok(if args.strict && lost > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Where copies are unwrapped and entered.
struct Desk {
    receipts: Receipts,
    writer: Option<Frames>,
    frames: u64,
    others: u64,
    pieces: Reassembly,
    broken: u64,
}

impl Desk {
    fn open(write: Option<&Path>) -> Result<Self> {
        let writer = write.map(Frames::create).transpose()?;
        Ok(Self {
            receipts: Receipts::default(),
            writer,
            frames: 0,
            others: 0,
            pieces: Reassembly::default(),
            broken: 0,
        })
    }

    fn read(&mut self, path: &Path) -> Result<()> {
        let mut reader = CaptureReader::open(path)?;
        while let Some(frame) = reader.next_frame()? {
            if frame.link != LinkType::ETHERNET {
                bail!("{}: link type {} instead of Ethernet", path.display(), frame.link.0);
            }
            self.enter(frame.ts_ns, frame.data)?;
        }
        if let Some(reason) = reader.truncation() {
            log::warn!("{}: {reason}", path.display());
        }
        Ok(())
    }

    fn enter(&mut self, ts_ns: u64, frame: &[u8]) -> Result<()> {
        self.frames += 1;
        match unwrap(frame) {
            Err(NotWrapped::Fragment) => match self.pieces.enter(frame, ts_ns) {
                Some(whole) => self.take(ts_ns, unwrap(&whole)),
                None => Ok(()),
            },
            outcome => self.take(ts_ns, outcome),
        }
    }

    fn take(&mut self, ts_ns: u64, outcome: Result<Wrapped<'_>, NotWrapped>) -> Result<()> {
        match outcome {
            Ok(copy) => {
                self.receipts.enter(&copy);
                if let Some(writer) = &mut self.writer {
                    writer.write(&copy, ts_ns)?;
                }
            }
            Err(NotWrapped::Other) => self.others += 1,
            Err(NotWrapped::Short | NotWrapped::Fragment) => self.broken += 1,
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let streams: Vec<_> = self
            .receipts
            .accounts()
            .map(|((from, to, tunnel, stream), a)| {
                json!({
                    "from": from.to_string(), "to": to.to_string(), "tunnel": tunnel.name(), "id": stream.id, "worker": stream.worker,
                    "packets": a.packets, "bytes": a.bytes, "lost": a.lost, "duplicates": a.duplicates,
                    "reordered": a.reordered, "restarts": a.restarts, "unnumbered": a.unnumbered,
                })
            })
            .collect();
        json!({
            "frames": self.frames, "others": self.others, "fragments": self.pieces.left(), "broken": self.broken,
            "lost": self.receipts.lost(), "streams": streams,
        })
    }

    fn text(&self) -> String {
        let rows = self.receipts.accounts().map(|((from, to, tunnel, stream), a)| {
            let numbered = |n: u64| if a.unnumbered == a.packets { "-".into() } else { n.to_string() };
            let Account { packets, bytes, lost, duplicates, reordered, restarts, .. } = a;
            vec![
                from.to_string(),
                to.to_string(),
                tunnel.name().into(),
                stream.id.to_string(),
                stream.worker.to_string(),
                packets.to_string(),
                bytes.to_string(),
                numbered(lost),
                numbered(duplicates),
                numbered(reordered),
                numbered(restarts),
            ]
        });
        let head =
            ["from", "to", "tunnel", "id", "worker", "copies", "bytes", "lost", "repeated", "out of order", "restarts"];
        let mut streams = table(&head);
        streams.add_rows(rows);
        let mut text = format!("{} frames received\n\n{streams}\n", self.frames);
        let rest = [
            (self.others, "no copies"),
            (self.pieces.left(), "fragments of copies that are not whole"),
            (self.broken, "cut short"),
        ];
        for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
            text.push_str(&format!("{count} frames left out: {what}\n"));
        }
        text
    }
}

fn live(device: &str, seconds: Option<u64>, desk: &mut Desk) -> Result<()> {
    let stop: Arc<AtomicBool> = Arc::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let options = EalOptions {
        lcores: vec![vec![0]],
        hugepages: false,
        memory_mb: MEMORY_MB,
        file_prefix: format!("gnomon-receive-{}", std::process::id()),
        pci_allow: Some(device).filter(|d| !d.starts_with("net_")).map(str::to_owned).into_iter().collect(),
    };
    let eal = Arc::new(Eal::start(&options)?);
    let pool = Mempool::packets(&eal, "received", BUFFERS)?;
    let options = PortOptions {
        name: "collector".into(),
        device: device.into(),
        rx_queues: 1,
        tx_queues: 1,
        rx_descriptors: DESCRIPTORS,
        tx_descriptors: DESCRIPTORS,
        mtu: None,
        promiscuous: true,
    };
    let port = Arc::new(Device::open(&eal, device)?.start(&options, &pool)?);
    let (mut queues, _) = port.take_queues().context("the port's queues are taken")?;
    if std::io::stderr().is_terminal() {
        eprintln!("receiving from {device}; end with ctrl-c");
    }
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let going = || !stop.load(Ordering::Relaxed) && end.is_none_or(|end| Instant::now() < end);
    poll(queues.first_mut().context("the port has no receive queue")?, desk, going)
}

fn poll(queue: &mut RxQueue, desk: &mut Desk, going: impl Fn() -> bool) -> Result<()> {
    let (mut burst, mut bytes) = (Burst::new(), Vec::new());
    while going() {
        if queue.receive(&mut burst) == 0 {
            std::thread::sleep(Duration::from_micros(50));
            continue;
        }
        let now = now_ns();
        for i in 0..burst.len() {
            if let Some(packet) = burst.take(i) {
                packet.copy_to(&mut bytes);
                desk.enter(now, &bytes)?;
            }
        }
    }
    Ok(())
}
