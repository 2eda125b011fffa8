//! Intervals of group pairs that were not expected, as JSON.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use super::eve::{Names, write_line};
use super::time::iso8601;
use crate::behaviour::{PairInterval, Part, QUANTITIES, QUANTITY_NAMES};

#[derive(Serialize)]
struct PairLine<'a> {
    timestamp: String,
    event_type: &'static str,
    gnomon: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    src_groups: Vec<Cow<'a, str>>,
    dst_groups: Vec<Cow<'a, str>>,
    start: String,
    end: String,
    score: f64,
    /// Nats; the parts and the rest add up to it.
    surprise: f64,
    parts: Vec<PartLine>,
    rest: f64,
    seen: Seen,
}

#[derive(Serialize)]
struct PartLine {
    service: String,
    what: &'static str,
    surprise: f64,
    /// From and to; of `presence` its probability, twice.
    expected: [f64; 2],
    seen: f64,
}

/// All services together.
struct Seen([f64; QUANTITIES]);

impl Serialize for Seen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(QUANTITY_NAMES.iter().zip(self.0.map(|number| number.round() as u64)))
    }
}

/// Writes one line of `pairs.jsonl`.
pub fn write_pair(out: &mut impl Write, interval: &PairInterval, names: &impl Names) -> io::Result<()> {
    let line = PairLine {
        timestamp: iso8601(interval.end),
        event_type: "pair",
        gnomon: Body {
            src_groups: names.groups(interval.pair.0),
            dst_groups: names.groups(interval.pair.1),
            start: iso8601(interval.start),
            end: iso8601(interval.end),
            score: round(interval.score, 1e7),
            surprise: round(interval.surprise, 1e3),
            parts: interval.parts.iter().map(PartLine::of).collect(),
            rest: round(interval.rest, 1e3),
            seen: Seen(interval.seen),
        },
    };
    write_line(out, &line)
}

impl PartLine {
    fn of(part: &Part) -> Self {
        let (what, exact) = (part.what.name(), if part.is_presence() { 1e6 } else { 10.0 });
        let [expected, seen] = [part.expected.map(|e| round(e, exact)), [part.seen.round(); 2]];
        Self { service: part.service.to_string(), what, surprise: round(part.surprise, 1e3), expected, seen: seen[0] }
    }
}

fn round(x: f64, to: f64) -> f64 {
    (x * to).round() / to
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::eve::tests::Fixed;
    use super::*;
    use crate::behaviour::{PairVolume, Service, What};
    use crate::rules::GroupSetHandle;

    #[test]
    fn pair_line_byte_for_byte() {
        let part = |what, surprise, expected, seen| Part {
            service: Service::of(6, Some(5432)),
            what,
            surprise,
            expected,
            seen,
        };
        let interval = PairInterval {
            pair: (GroupSetHandle(1), GroupSetHandle(1)),
            start: 1_736_726_400_000_000_000,
            end: 1_736_726_700_000_000_000,
            score: 0.999_987_65,
            told: true,
            surprise: 12.5,
            parts: vec![
                part(What::Presence, 9.25, [0.000_096_1; 2], 1.0),
                part(What::Quantity(4), 3.125, [10.04, 200.06], 5000.0),
            ],
            rest: 0.125,
            seen: [3.0, 0.0, 30.0, 25.0, 5000.0, 9000.0, 1.0, 2.0004],
            volume: PairVolume { side: 0, bytes: 5000.0, usual: 200.0, hosts: None },
        };
        let mut line = Vec::new();
        write_pair(&mut line, &interval, &Fixed).unwrap();
        let groups = serde_json::to_string(&Fixed.groups(GroupSetHandle(1))).unwrap();
        let expected = format!(
            "{{\"timestamp\":\"2025-01-13T00:05:00.000000+0000\",\"event_type\":\"pair\",\"gnomon\":{{\
             \"src_groups\":{groups},\"dst_groups\":{groups},\"start\":\"2025-01-13T00:00:00.000000+0000\",\
             \"end\":\"2025-01-13T00:05:00.000000+0000\",\"score\":0.9999877,\"surprise\":12.5,\"parts\":[\
             {{\"service\":\"tcp/5432\",\"what\":\"presence\",\"surprise\":9.25,\"expected\":[0.000096,0.000096],\
             \"seen\":1.0}},{{\"service\":\"tcp/5432\",\"what\":\"bytes_up\",\"surprise\":3.125,\
             \"expected\":[10.0,200.1],\"seen\":5000.0}}],\"rest\":0.125,\"seen\":{{\"flows\":3,\"refused\":0,\
             \"packets_up\":30,\"packets_down\":25,\"bytes_up\":5000,\"bytes_down\":9000,\"sources\":1,\
             \"destinations\":2}}}}}}\n"
        );
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
}
