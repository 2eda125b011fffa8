//! What goes out besides packets: files, sockets, metrics.

use std::path::PathBuf;
use std::time::Duration;

use super::settings::duration;
use crate::config::document::Place;
use crate::config::model::{EventSocket, Export, Metrics, Rotation};
use crate::config::problem::Problems;
use crate::config::raw::{RawEventSocket, RawExport, RawMetrics};
use crate::config::shape::Shaped;
use crate::config::text::{DurationText, SizeText};

/// Shortest time between two looks at the counters, and between two files.
const SHORTEST: Duration = Duration::from_secs(1);

pub(super) fn export(problems: &mut Problems<'_>, shaped: &mut Shaped) -> Export {
    let place = Place::root().key("export");
    let raw: RawExport = shaped.section(problems, "export");
    if raw.rotate_size.is_none() && raw.rotate_every.is_none() && !shaped.touched(&place) {
        for key in ["keep", "compress"] {
            if problems.document.contains(&place.key(key)) {
                let message = format!("`{key}` has no effect: files are never put aside");
                problems.warning(&place.key(key), message).allowed("`rotate_size` or `rotate_every` beside it");
            }
        }
    }
    let interval = seconds(problems, &place.key("stats_interval"), &raw.stats_interval);
    Export {
        directory: PathBuf::from(raw.directory),
        flows: raw.flows,
        alerts: raw.alerts,
        stats: raw.stats.then_some(interval),
        decisions: false,
        pairs: raw.pairs,
        rotation: Rotation {
            size: raw.rotate_size.as_ref().map(|size| bytes(problems, &place.key("rotate_size"), size)),
            every: raw.rotate_every.as_ref().map(|every| seconds(problems, &place.key("rotate_every"), every)),
            keep: raw.keep,
            compress: raw.compress,
        },
        sockets: sockets(problems, &place.key("socket"), raw.socket),
    }
}

fn sockets(problems: &mut Problems<'_>, place: &Place, raw: Vec<RawEventSocket>) -> Vec<EventSocket> {
    let mut sockets: Vec<EventSocket> = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let (place, path) = (place.index(index), PathBuf::from(raw.path));
        if let Some(earlier) = sockets.iter().position(|socket| socket.path == path) {
            let message = format!("two sockets with the path {}", path.display());
            problems.error(&place.key("path"), message).allowed(format!("one table; the other is number {earlier}"));
        }
        let buffer = bytes(problems, &place.key("buffer"), &raw.buffer) as usize;
        sockets.push(EventSocket { path, kind: raw.kind, events: raw.events, buffer });
    }
    sockets
}

pub(super) fn metrics(problems: &mut Problems<'_>, shaped: &mut Shaped) -> Metrics {
    let place = Place::root().key("metrics");
    let raw: RawMetrics = shaped.section(problems, "metrics");
    let listen = raw.listen.and_then(|text| {
        let address = text.0.parse().ok();
        if address.is_none() {
            let problem = problems.error(&place.key("listen"), format!("`{}` is not an address and a port", text.0));
            problem.allowed("such as \"127.0.0.1:9464\" or \"[::1]:9464\"");
        }
        address
    });
    let pressure_fill = raw.pressure_fill.share().unwrap_or_else(|| {
        let problem = problems.error(&place.key("pressure_fill"), "`pressure_fill` is out of range");
        problem.found(raw.pressure_fill.0.clone()).allowed("more than 0% and at most 100%");
        1.0
    });
    Metrics { listen, pressure_fill, pressure_evictions: raw.pressure_evictions }
}

fn seconds(problems: &mut Problems<'_>, place: &Place, text: &DurationText) -> Duration {
    let read = duration(problems, place, text);
    if read < SHORTEST {
        let problem = problems.error(place, "the duration is too short");
        problem.found(text.0.clone()).allowed("a duration from 1s to 30d");
    }
    read.max(SHORTEST)
}

fn bytes(problems: &mut Problems<'_>, place: &Place, text: &SizeText) -> u64 {
    let megabytes = text.mebibytes().filter(|mb| (1..=4096).contains(mb)).unwrap_or_else(|| {
        let problem = problems.error(place, "the size is out of range");
        problem.found(text.0.clone()).allowed("a size from 1MiB to 4GiB");
        1
    });
    u64::from(megabytes) << 20
}
