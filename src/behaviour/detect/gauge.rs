//! What is counted against a threshold: packets, sessions or bytes, of one kind, between the same ends.

use crate::behaviour::alert::AlertKind;
use crate::behaviour::bounded::Recent;
use crate::flow::FlowRecord;

use super::book::{Book, Known};
use super::episode::{Bar, Detail, Key, Scene, Sighting};
use super::rate::Arrivals;
use crate::packet::Host;

/// Places remembered.
const PLACES: usize = 8_192;

/// One contribution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) key: Key,
    /// Tells apart what is counted by itself between the same ends.
    pub(crate) part: u32,
    /// Counted, and accounted for: what is accounted for outweighs `per` times as much of what is counted.
    pub(crate) weight: (f64, f64),
    pub(crate) per: f64,
    pub(crate) bar: Bar,
    /// Window of the count, where it is longer than that of the episode.
    pub(crate) over: Option<u64>,
    /// Who is named in the evidence.
    pub(crate) host: Host,
}

/// Everything that is counted at present.
#[derive(Clone, Debug)]
pub(crate) struct Gauges {
    places: Recent<(Key, u32), Arrivals>,
}

impl Gauges {
    pub(crate) fn new() -> Self {
        Self { places: Recent::new(PLACES) }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.places.evicted()
    }

    /// Counts a record. True when it is part of an episode. Half the threshold keeps an episode going; what trickles
    /// in afterwards is everyday failure.
    pub(crate) fn count(&mut self, book: &mut Book, c: &Count, r: &FlowRecord) -> bool {
        let place = (c.key, c.part);
        let arrivals = match c.weight.0 > 0.0 {
            true => self.places.get_or(place, Arrivals::default),
            false => match self.places.get(&place) {
                Some(arrivals) => arrivals,
                None => return false,
            },
        };
        let level = arrivals.add(r.start, r.end, c.weight, c.over.unwrap_or(c.bar.window));
        if c.weight.0 <= 0.0 {
            return false;
        }
        let limit = c.bar.threshold;
        let passed = level.counted >= limit && level.counted * c.per >= level.accounted;
        // Sessions and bytes that are counted did not fail.
        let failed = c.key.kind.is_flood() && c.key.kind != AlertKind::SlowHttp;
        let last = Sighting { host: Some(c.host), count: c.weight.0, level: level.counted, failed, ..Sighting::of(r) };
        match book.known(&c.key, r.start) {
            Known::Open if level.counted * 2.0 >= limit => book.add(&c.key, &last, r.emitted),
            Known::Late if passed => {}
            Known::No if passed => {
                if c.weight.0 >= level.counted {
                    arrivals.start_afresh();
                }
                let earlier = (level.counted - c.weight.0).max(0.0);
                book.open_counted(c.key, c.bar, arrivals, earlier, &last, Scene::from(r));
            }
            Known::Open | Known::No | Known::Late => {
                arrivals.remember(c.host, c.weight.0, (r.start, r.flow_id), level.counted);
                return false;
            }
        }
        true
    }
}

/// An episode that is told of at once: there is nothing to count up to.
pub(crate) fn note(book: &mut Book, key: Key, bar: Bar, last: &Sighting, scene: Scene, detail: Detail) -> bool {
    match book.known(&key, last.time) {
        Known::Open => {
            book.tell(&key, detail);
            book.add(&key, last, scene.emitted);
        }
        Known::No => book.open_told(key, bar, last, scene, detail),
        Known::Late => return false,
    }
    true
}
