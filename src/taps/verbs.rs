//! What the control socket offers: `capture`, and `trace_add`, `trace_list`, `trace_show`, `trace_remove`.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::file::CaptureBegin;
use super::host::{CaptureSpec, Chosen, TapError};
use super::trace::TraceSpec;
use super::way::way;
use crate::control::{Failure, Live, Refusal, Reply, Request};
use crate::filter::{Expression, Schema};
use crate::worker::tap::{Keep, Point, Points, TraceNote};

/// Packets sent at once.
const SHARE: usize = 4096;
/// How often an idle capture or followed trace looks for something new.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const FOLLOW_EVERY: Duration = Duration::from_millis(50);

/// Which packets; `points` and `ports` are all when empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    pub filter: String,
    pub points: Vec<String>,
    pub ports: Vec<String>,
}

/// Arguments of `capture`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureArguments {
    #[serde(default)]
    pub wanted: Wanted,
    /// Bytes kept of a packet; 0 is all.
    #[serde(default)]
    pub snap_len: u32,
    /// Bytes of each worker's buffer.
    #[serde(default = "usual_buffer")]
    pub buffer: usize,
    /// Ends after so many packets, or milliseconds.
    #[serde(default)]
    pub count: Option<u64>,
    #[serde(default)]
    pub milliseconds: Option<u64>,
}

/// Arguments of `trace_add`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceArguments {
    #[serde(default)]
    pub wanted: Wanted,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default = "usual_count")]
    pub count: usize,
    /// Keep the first packets instead of the last ones, and stop.
    #[serde(default)]
    pub first: bool,
}

/// Arguments of `trace_show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShowArguments {
    pub name: Option<String>,
    /// Only the last so many.
    pub last: Option<usize>,
    /// Go on with what comes.
    pub follow: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

fn usual_buffer() -> usize {
    4 << 20
}

fn usual_count() -> usize {
    1000
}

impl From<TapError> for Refusal {
    fn from(error: TapError) -> Self {
        let code = if matches!(error, TapError::Filter(_)) { "filter" } else { "taps" };
        Refusal::new(code, error.to_string())
    }
}

impl Wanted {
    fn chosen(&self) -> Result<Chosen, Refusal> {
        Ok(Chosen {
            filter: Expression::parse(&self.filter, &Schema::PACKET)?,
            points: points(&self.points)?,
            ports: self.ports.clone(),
        })
    }
}

fn points(names: &[String]) -> Result<Points, Refusal> {
    if names.is_empty() {
        return Ok(Point::ALL.into_iter().collect());
    }
    let point = |name: &String| {
        let found = Point::ALL.into_iter().find(|point| point.name() == name);
        found.ok_or_else(|| Refusal::new("taps", format!("`{name}` is no point: there are rx, verdict, tx and drop")))
    };
    names.iter().map(point).collect()
}

/// A stream of packets until the client closes its sending side, `count` or `milliseconds` are reached, or the appliance
/// stops; then the totals.
pub fn capture(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let arguments: CaptureArguments = request.read()?;
    let chosen = arguments.wanted.chosen()?;
    let ports = if chosen.ports.is_empty() { live.taps.ports.to_vec() } else { chosen.ports.clone() };
    let spec = CaptureSpec { chosen, snap_len: arguments.snap_len, ring_bytes: arguments.buffer };
    let mut tap = live.taps.capture(&spec).map_err(Refusal::from)?;
    reply.line(&CaptureBegin {
        ports: live.taps.ports.to_vec(),
        captured_ports: ports,
        points: tap.points().map(|point| point.name().to_owned()).collect(),
        snap_len: tap.snap_len,
        filter: spec.chosen.filter.text().to_owned(),
        began: now(),
    })?;
    reply.flush()?;
    let until = arguments.milliseconds.map(|ms| Instant::now() + Duration::from_millis(ms));
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut share = Vec::new();
    while left > 0 && !reply.is_half_closed() && until.is_none_or(|until| Instant::now() < until) {
        match reply.check() {
            Ok(()) => {}
            // The appliance stops: what there is goes out in order.
            Err(Failure::Refused(_)) => break,
            gone => return gone,
        }
        share.clear();
        let taken = tap.take(&mut share, SHARE.min(left as usize), false);
        left -= taken as u64;
        if taken > 0 {
            reply.binary(&share)?;
        } else {
            reply.flush()?;
            std::thread::sleep(LOOK_EVERY);
        }
    }
    tap.stop();
    loop {
        share.clear();
        let taken = tap.take(&mut share, SHARE.min(usize::try_from(left).unwrap_or(usize::MAX)), true);
        if taken == 0 {
            break;
        }
        left -= taken as u64;
        reply.binary(&share)?;
    }
    reply.line(&json!({ "totals": tap.totals(), "ended": now() }))
}

pub fn trace_add(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let arguments: TraceArguments = request.read()?;
    let keep = if arguments.first { Keep::First } else { Keep::Last };
    let TraceArguments { name, count, wanted, .. } = arguments;
    let spec = TraceSpec { name, chosen: wanted.chosen()?, count, keep };
    reply.line(&live.taps.trace(&spec).map_err(Refusal::from)?)
}

pub fn trace_list(live: &Live, _: &Request, reply: &mut Reply) -> Result<(), Failure> {
    live.taps.traces().iter().try_for_each(|trace| reply.line(&trace.info()))
}

pub fn trace_remove(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let Named { name } = request.read()?;
    reply.line(&live.taps.remove_trace(&name).map_err(Refusal::from)?)
}

/// Ways of packets, oldest first, one a line; when some were given up in between, `{"given_up":N}`.
pub fn trace_show(live: &Live, request: &Request, reply: &mut Reply) -> Result<(), Failure> {
    let arguments: ShowArguments = request.read()?;
    let trace = live.taps.find_trace(arguments.name.as_deref()).map_err(Refusal::from)?;
    let (notes, mut next) = trace.notes(0);
    let skipped = notes.len().saturating_sub(arguments.last.unwrap_or(usize::MAX));
    let tell = |note: &TraceNote| way(note, &*live.taps.names, &live.taps.ports, false);
    notes.iter().skip(skipped).try_for_each(|numbered| reply.line(&tell(&numbered.note)))?;
    let mut overwritten = trace.overwritten();
    while arguments.follow && live.taps.find_trace(Some(trace.name())).is_ok() && !reply.is_half_closed() {
        reply.flush()?;
        reply.check()?;
        std::thread::sleep(FOLLOW_EVERY);
        let (notes, end) = trace.notes(next);
        let before = std::mem::replace(&mut overwritten, trace.overwritten());
        let missing = (overwritten - before) + (end - next) - notes.len() as u64;
        if missing > 0 {
            reply.line(&json!({ "given_up": missing }))?;
        }
        next = end;
        notes.iter().try_for_each(|numbered| reply.line(&tell(&numbered.note)))?;
    }
    Ok(())
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
