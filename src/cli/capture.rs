//! `gnomon capture`: packets of the running appliance, into pcapng files or lines of text.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::live::Appliance;
use super::units;
use crate::control::Part;
use crate::filter::Schema;
use crate::taps::verbs::{CaptureArguments, Wanted};
use crate::taps::{CaptureBegin, Decoder, Drained, Lines, Outlet, PcapngFiles, Rotation};

/// Capture packets of the running appliance, at any stage, with what became of them.
///
/// Prints a line a packet, or writes pcapng: an interface for each port and point, and for each packet a comment
/// with rule, action, generation, flow and drop reason (Wireshark: frame.comment). Ends with Ctrl-C, after
/// --count or --duration, and with the appliance; traffic never waits for it: what is too much is not
/// captured, and told exactly.
///
///   gnomon capture 'drop' -w dropped.pcapng
///   gnomon capture 'host=10.0.0.1 and tcp_flags=syn' --at rx,tx
///   gnomon capture 'rule=web' -w - | wireshark -k -i -
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_long_help = Schema::PACKET.help())]
pub(super) struct CaptureArgs {
    /// Which packets: an expression; all without. `gnomon capture --help` explains it.
    #[arg(value_name = "EXPR")]
    expression: Vec<String>,
    /// Where to look at packets: as received, judged, sent, or not forwarded. At rx, too, it is known what
    /// became of a packet.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [At::Rx])]
    at: Vec<At>,
    /// Only this port: where packets came in; at tx, where they went out. May be repeated.
    #[arg(long, value_name = "NAME")]
    port: Vec<String>,
    /// Write pcapng here; `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Bytes kept of a packet; its whole length is noted all the same.
    #[arg(short, long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    snaplen: Option<u32>,
    /// Begin a new file after so many bytes.
    #[arg(long, value_name = "SIZE", value_parser = units::bytes, requires = "write")]
    rotate_size: Option<u64>,
    /// Begin a new file after so much time.
    #[arg(long, value_name = "TIME", value_parser = units::time, requires = "write")]
    rotate_time: Option<Duration>,
    /// Keep only so many files when rotating.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// End after so many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so much time.
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    duration: Option<Duration>,
    /// Memory of each worker for packets on their way here.
    #[arg(long, value_name = "SIZE", value_parser = units::bytes, default_value = "4Mi")]
    buffer: u64,
    #[command(flatten)]
    appliance: Appliance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum At {
    Rx,
    Verdict,
    Tx,
    Drop,
}

/// The last line before the end.
#[derive(Deserialize)]
struct Ending {
    totals: Vec<Drained>,
    ended: u64,
}

pub(super) fn run(args: &CaptureArgs) -> Result<ExitCode> {
    args.check()?;
    let mut client = args.appliance.connect()?;
    let stopped = stop_in_order(client.last_word()?)?;
    let request = args.request()?;
    let mut answer = client.ask(&request)?;
    let Some(Part::Line(first)) = answer.next_part()? else { bail!("the appliance said nothing") };
    let begin: CaptureBegin = serde_json::from_value(first).context("the appliance said something strange")?;
    let mut outlet = args.outlet(&begin)?;
    let mut decoder = Decoder::default();
    let mut ending = None;
    // A reader that went away is the usual end of a pipe.
    let mut pipe_open = true;
    loop {
        match answer.next_part() {
            Ok(Some(Part::Bytes(bytes))) if pipe_open => {
                match decoder.decode(&bytes, args.count, &mut *outlet).and_then(|_| outlet.flush()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => pipe_open = false,
                    Err(error) => return Err(error).with_context(|| args.target()),
                }
                if !pipe_open {
                    break;
                }
            }
            Ok(Some(Part::Line(line))) => ending = serde_json::from_value::<Ending>(line).ok(),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                // What was written so far is a whole file.
                outlet.finish(&[], begin.began).with_context(|| args.target())?;
                return Err(error.into());
            }
        }
    }
    stopped.store(true, Ordering::Relaxed);
    let Some(Ending { totals, ended }) = ending else { return Ok(ExitCode::SUCCESS) };
    if pipe_open {
        outlet.finish(&totals, ended).with_context(|| args.target())?;
    }
    tell(decoder.packets, &totals)?;
    Ok(ExitCode::SUCCESS)
}

/// Ctrl-C ends the capture in order; a second one at once. Raising the flag lets the thread go.
fn stop_in_order(last_word: impl Fn() + Send + 'static) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let own = stop.clone();
    std::thread::spawn(move || {
        while !own.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        last_word();
    });
    Ok(stop)
}

/// Totals on standard error, for packets may be on standard output.
fn tell(packets: u64, totals: &[Drained]) -> Result<()> {
    let sum = |of: fn(&Drained) -> u64| totals.iter().map(of).sum::<u64>();
    let mut err = std::io::stderr().lock();
    writeln!(
        err,
        "{packets} packets captured, {} chosen of {} that came by, {} lost for want of room",
        sum(|t| t.matched),
        sum(|t| t.seen),
        sum(|t| t.lost)
    )?;
    for total in totals.iter().filter(|total| total.lost > 0) {
        writeln!(err, "  {}:{} lost {} of {}", total.port, total.point, total.lost, total.matched)?;
    }
    Ok(())
}

impl CaptureArgs {
    fn check(&self) -> Result<()> {
        let to_stdout = self.write.as_deref() == Some(Path::new("-"));
        if to_stdout && std::io::stdout().is_terminal() {
            bail!("pcapng is not for the terminal: pipe it (`| wireshark -k -i -`), or leave -w - out for text");
        }
        let rotates = self.rotate_size.is_some() || self.rotate_time.is_some();
        if to_stdout && rotates {
            bail!("standard output cannot be rotated: give -w a file");
        }
        if self.keep.is_some() && !rotates {
            bail!("--keep needs --rotate-size or --rotate-time");
        }
        Ok(())
    }

    fn request(&self) -> Result<Value> {
        let points = self.at.iter().filter_map(|at| at.to_possible_value()).map(|at| at.get_name().to_owned());
        let arguments = CaptureArguments {
            wanted: Wanted { filter: self.expression.join(" "), points: points.collect(), ports: self.port.clone() },
            snap_len: self.snaplen.unwrap_or_default(),
            buffer: usize::try_from(self.buffer)?,
            count: self.count,
            milliseconds: self.duration.map(|time| time.as_millis() as u64),
        };
        Ok(with_verb("capture", serde_json::to_value(arguments)?))
    }

    fn outlet(&self, begin: &CaptureBegin) -> Result<Box<dyn Outlet>> {
        let rotation = Rotation {
            size: self.rotate_size,
            time: self.rotate_time.map(|time| time.as_nanos() as u64),
            keep: self.keep.map(|n| n as usize),
        };
        Ok(match &self.write {
            None => Box::new(Lines::new(std::io::stdout().lock(), begin)),
            Some(path) if path == Path::new("-") => {
                Box::new(PcapngFiles::stream(Box::new(std::io::stdout()), begin.clone())?)
            }
            Some(path) => Box::new(PcapngFiles::at(path, rotation, begin.clone()).with_context(|| self.target())?),
        })
    }

    fn target(&self) -> String {
        let place = self.write.as_ref().map_or_else(|| "standard output".into(), |path| path.display().to_string());
        format!("writing {place}")
    }
}

/// Arguments as a request.
pub(super) fn with_verb(verb: &str, arguments: Value) -> Value {
    match arguments {
        Value::Object(mut object) => {
            object.insert("verb".into(), verb.into());
            Value::Object(object)
        }
        _ => json!({ "verb": verb }),
    }
}

/// What the server said that is no part of an answer.
pub(super) fn strange() -> anyhow::Error {
    anyhow!("the appliance said something strange: is it of the same version?")
}
