//! Flow lines as a table that fits the terminal, and as CSV.

use std::io::{self, Write};

use serde_json::Value;

use super::report::bytes;
use crate::filter::{Field, Fields, JsonLine, Value as Known};

/// Columns, the most important first: what does not fit is left out from the end.
const COLUMNS: [&str; 15] = [
    "source",
    "destination",
    "proto",
    "state",
    "packets",
    "bytes",
    "age",
    "idle",
    "action",
    "rule",
    "from",
    "to",
    "score",
    "mirror",
    "flags",
];
/// Their order on the screen.
const ON_SCREEN: [usize; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 9, 10, 11, 13, 14];
const RIGHT: [&str; 5] = ["packets", "bytes", "age", "idle", "score"];
const GAP: usize = 2;
const WIDEST: usize = 40;

/// The cells of one flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row([String; COLUMNS.len()]);

impl Row {
    pub(super) fn of(line: &Value) -> Self {
        let flow = JsonLine(line);
        let text = |field| text(&flow.value(field));
        let end = |ip, port| match flow.value(port) {
            Known::Number(port) if line["src_ip"].as_str().is_some_and(|ip| ip.contains(':')) => {
                format!("[{}]:{port}", line[ip].as_str().unwrap_or("?"))
            }
            Known::Number(port) => format!("{}:{port}", line[ip].as_str().unwrap_or("?")),
            _ => line[ip].as_str().unwrap_or("?").to_owned(),
        };
        let proto = line["proto"].as_str().unwrap_or("?").to_ascii_lowercase();
        let vlan = match flow.value(Field::Vlan) {
            Known::Number(id) => format!("{proto} v{id}"),
            _ => proto,
        };
        let number = |field| match flow.value(field) {
            Known::Number(n) => n,
            _ => 0,
        };
        Self([
            end("src_ip", Field::SourcePort),
            end("dest_ip", Field::DestinationPort),
            vlan,
            text(Field::State),
            number(Field::Packets).to_string(),
            bytes(number(Field::Bytes)),
            time(&flow.value(Field::Age)),
            time(&flow.value(Field::Idle)),
            text(Field::Action),
            text(Field::Rule),
            text(Field::SourceGroups),
            text(Field::DestinationGroups),
            match flow.value(Field::Score) {
                Known::Real(score) => format!("{score:.3}"),
                _ => String::new(),
            },
            text(Field::Mirror),
            line["gnomon"]["flags"].as_array().map(|flags| listed(flags)).unwrap_or_default(),
        ])
    }
}

fn listed(values: &[Value]) -> String {
    values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

fn text(value: &Known<'_>) -> String {
    match value {
        Known::Text(text) => (*text).to_owned(),
        Known::Texts(texts) => listed(texts),
        Known::Number(n) => n.to_string(),
        _ => String::new(),
    }
}

fn time(value: &Known<'_>) -> String {
    let Known::Number(nanoseconds) = value else { return String::new() };
    match nanoseconds / 1000 {
        us @ 0..1000 => format!("{us} µs"),
        us @ 1000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        us @ 1_000_000..100_000_000 => format!("{:.1} s", us as f64 / 1e6),
        us @ 100_000_000..7_200_000_000 => format!("{} min", us / 60_000_000),
        us => format!("{} h", us / 3_600_000_000),
    }
}

/// Lines no longer than `width`; columns that nothing is in are left out.
pub(super) fn table(rows: &[Row], width: usize) -> String {
    let longest = |column: usize| {
        let cells = rows.iter().map(|row| row.0[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let mut chosen = Vec::new();
    let mut used = 0;
    for (column, title) in COLUMNS.iter().enumerate() {
        let longest = longest(column).min(WIDEST);
        if longest == 0 && !rows.is_empty() {
            continue;
        }
        let wide = longest.max(title.len());
        if used + wide > width && column >= 2 {
            break;
        }
        used += wide + GAP;
        chosen.push((column, wide));
    }
    chosen.sort_by_key(|(column, _)| ON_SCREEN.iter().position(|at| at == column));
    let mut lines = vec![line(&chosen, |column| COLUMNS[column].to_owned(), width)];
    lines.extend(rows.iter().map(|row| line(&chosen, |column| row.0[column].clone(), width)));
    lines.join("\n")
}

fn line(columns: &[(usize, usize)], cell: impl Fn(usize) -> String, width: usize) -> String {
    let cells = columns.iter().map(|(column, wide)| {
        let mut text = cell(*column);
        if text.chars().count() > *wide {
            text = text.chars().take(wide - 1).chain(['…']).collect();
        }
        if RIGHT.contains(&COLUMNS[*column]) { format!("{text:>wide$}") } else { format!("{text:<wide$}") }
    });
    let whole = cells.collect::<Vec<_>>().join("  ");
    whole.chars().take(width).collect::<String>().trim_end().to_owned()
}

/// Every field of flow records, one a column.
pub(super) fn csv(out: &mut impl Write, lines: &[Value]) -> io::Result<()> {
    let fields: Vec<&str> =
        crate::filter::Schema::FLOW.fields().map(Field::name).filter(|name| is_stored(name)).collect();
    writeln!(out, "timestamp,{}", fields.join(","))?;
    for line in lines {
        let cell = |name: &&str| quoted(&flat(name.split('.').fold(line, |value, part| &value[part])));
        let cells: Vec<String> = std::iter::once(&"timestamp").chain(&fields).map(cell).collect();
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(())
}

/// Not made from other fields.
fn is_stored(name: &str) -> bool {
    !["packets", "bytes", "ip_version", "tcp_flags", "retransmissions", "out_of_window"].contains(&name)
}

fn flat(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(flat).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// RFC 4180.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flow(source: &str, rule: &str) -> Value {
        json!({
            "timestamp": "2025-01-15T09:00:05.000000+0000", "flow_id": 7, "event_type": "flow", "src_ip": source,
            "src_port": 40000, "dest_ip": "192.0.2.20", "dest_port": 443, "proto": "TCP", "worker": 0, "idle": 1500,
            "flow": { "pkts_toserver": 10, "pkts_toclient": 8, "bytes_toserver": 1000, "bytes_toclient": 1000,
                "start": "2025-01-15T09:00:00.000000+0000", "end": "2025-01-15T09:00:02.500000+0000", "age": 2,
                "state": "established", "reason": "active" },
            "gnomon": { "src_groups": ["web", "east"], "dst_groups": [], "rule": rule, "action": "allow", "generation": 1,
                "mirror": [], "score": null, "flags": [] },
        })
    }

    #[test]
    fn tables_fit() {
        let rows: Vec<Row> = [flow("10.0.1.10", "allow-web"), flow("10.0.1.200", "a")].iter().map(Row::of).collect();
        let wide = table(&rows, 200);
        let lines: Vec<&str> = wide.lines().collect();
        assert_eq!(
            lines[0],
            "source            destination     proto  state        packets    bytes    age    idle  action  rule       from"
        );
        assert_eq!(
            lines[1],
            "10.0.1.10:40000   192.0.2.20:443  tcp    established       18  2.0 KiB  2.5 s  1.5 ms  allow   allow-web  web,east"
        );
        for width in 20..200 {
            assert!(table(&rows, width).lines().all(|line| line.chars().count() <= width), "{width}");
        }
        let narrow = table(&rows, 60);
        let header = narrow.lines().next().unwrap();
        assert!(header.starts_with("source") && header.contains("destination") && !header.contains("from"), "{header}");
        assert_eq!(table(&[], 80).lines().count(), 1);
    }

    #[test]
    fn csv_has_a_cell_for_every_field() {
        let mut out = Vec::new();
        let lines = [flow("2001:db8::1", "a,\"b\"")];
        csv(&mut out, &lines).expect("written to memory");
        let mut reader = csv::Reader::from_reader(&out[..]);
        let header = reader.headers().expect("a header").clone();
        let row = reader.records().next().expect("a row").expect("well formed");
        let cell = |name: &str| header.iter().position(|h| h == name).and_then(|at| row.get(at)).unwrap_or("missing");
        assert_eq!(header.len(), row.len());
        assert_eq!((cell("gnomon.rule"), cell("src_ip"), cell("dest_port")), ("a,\"b\"", "2001:db8::1", "443"));
        assert_eq!(
            (cell("gnomon.src_groups"), cell("gnomon.score"), cell("flow.bytes_toserver")),
            ("web east", "", "1000")
        );
    }
}
