//! What a person reads at the end of a replay or run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::appliance::{Finished, PairTraffic, PolicyNames, Replayed, Scored, Summary};
use crate::behaviour::Alert;

/// Rows of each table.
const TOP: usize = 10;

/// Tables about one replay or run.
#[derive(Debug)]
pub(super) struct Report<'a> {
    title: String,
    wall: Option<Duration>,
    summary: &'a Summary,
    scored: &'a Scored,
    names: &'a PolicyNames,
    files: Vec<PathBuf>,
}

impl<'a> Report<'a> {
    pub(super) fn of_replay(capture: &Path, replayed: &'a Replayed, wall: Duration) -> Self {
        Self {
            title: format!("Replay of {}", capture.display()),
            wall: Some(wall),
            summary: &replayed.summary,
            scored: &replayed.scored,
            names: &replayed.names,
            files: replayed.files.clone(),
        }
    }

    pub(super) fn of_run(finished: &'a Finished, summary_file: &Path) -> Self {
        let mut files = finished.scored.files.clone();
        files.push(summary_file.to_owned());
        let (summary, scored, names) = (&finished.summary, &finished.scored, &*finished.names);
        Self { title: "Run".into(), wall: None, summary, scored, names, files }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n", self.title)?;
        self.overview(f)?;
        section(f, "Verdicts by rule", self.rules())?;
        section(f, "Dropped packets by reason", self.drops())?;
        section(f, "Mirror sessions", self.mirrors())?;
        section(f, "IPFIX collectors", self.collectors())?;
        section(f, "Top talkers between groups", self.talkers())?;
        section(f, "Alerts", self.alerts())?;
        self.scorer(f)?;
        writeln!(f, "Files")?;
        self.files.iter().try_for_each(|file| writeln!(f, "  {}", file.display()))
    }
}

impl Report<'_> {
    fn overview(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.summary;
        let dropped: u64 = s.drops.values().sum();
        let mut table = table(&["", "packets", "bytes", "share"]);
        let share = |n: u64| percent(n, s.rx);
        let rows = [
            ["received".to_owned(), count(s.rx), bytes(s.rx_bytes), String::new()],
            ["forwarded".to_owned(), count(s.tx), bytes(s.tx_bytes), share(s.tx)],
            ["dropped".to_owned(), count(dropped), String::new(), share(dropped)],
        ];
        rows.into_iter().for_each(|row| right(&mut table, row));
        writeln!(f, "{table}")?;
        let covered = duration(s.seconds);
        write!(f, "  {} flows, {} records ({} lost)", count(s.flows), count(s.records), count(s.records_lost))?;
        writeln!(f, ", {covered} of traffic, {} packets/s, generation {}", count(s.pps as u64), s.generation)?;
        if let Some(wall) = self.wall {
            let rate = s.rx as f64 / wall.as_secs_f64().max(1e-9);
            let workers = if s.workers == 1 { "1 worker".into() } else { format!("{} workers", s.workers) };
            writeln!(f, "  took {:.2} s with {workers}: {} packets/s", wall.as_secs_f64(), count(rate as u64))?;
        }
        if let Some(reason) = &s.truncated {
            writeln!(f, "  the capture is damaged: {reason}")?;
        }
        writeln!(f)
    }

    fn rules(&self) -> Option<Table> {
        let mut hits: Vec<_> = self.summary.rules.iter().filter(|(_, hits)| hits.packets + hits.would > 0).collect();
        hits.sort_by_key(|(id, hits)| (std::cmp::Reverse(hits.packets), std::cmp::Reverse(hits.would), id.as_str()));
        let mut table = table(&["rule", "packets", "bytes", "share", "would have / noted", "last hit (UTC)"]);
        for (id, hits) in hits.iter().take(TOP) {
            let would = if hits.would > 0 { count(hits.would) } else { String::new() };
            let share = percent(hits.packets, self.summary.rx);
            // To the second.
            let last = hits.last_hit.as_deref().and_then(|time| time.get(..19)).unwrap_or_default().replace('T', " ");
            right(&mut table, [(*id).clone(), count(hits.packets), bytes(hits.bytes), share, would, last]);
        }
        more(&mut table, hits.len());
        (!hits.is_empty()).then_some(table)
    }

    fn drops(&self) -> Option<Table> {
        let mut drops: Vec<_> = self.summary.drops.iter().collect();
        drops.sort_by_key(|(name, packets)| (std::cmp::Reverse(**packets), **name));
        let mut table = table(&["reason", "packets", "share"]);
        for (name, packets) in &drops {
            right(&mut table, [(**name).to_owned(), count(**packets), percent(**packets, self.summary.rx)]);
        }
        (!drops.is_empty()).then_some(table)
    }

    fn mirrors(&self) -> Option<Table> {
        let mut table = table(&["session", "copies", "bytes", "lost"]);
        for (name, m) in &self.summary.mirrored {
            right(&mut table, [name.clone(), count(m.packets), bytes(m.bytes), count(m.lost)]);
        }
        (!self.summary.mirrored.is_empty()).then_some(table)
    }

    fn collectors(&self) -> Option<Table> {
        let mut table = table(&["collector", "records", "lost", "messages", "bytes"]);
        for c in &self.scored.collectors {
            right(
                &mut table,
                [c.collector.clone(), count(c.records), count(c.lost), count(c.messages), bytes(c.octets)],
            );
        }
        (!self.scored.collectors.is_empty()).then_some(table)
    }

    fn talkers(&self) -> Option<Table> {
        let mut pairs: Vec<_> = self.scored.pairs.iter().collect();
        pairs.sort_by_key(|(pair, traffic)| (std::cmp::Reverse(traffic.bytes), **pair));
        let mut table = table(&["from", "to", "flows", "refused", "packets", "bytes"]);
        for ((from, to), PairTraffic { flows, packets, bytes: b, refused }) in pairs.iter().take(TOP) {
            let [from, to] = [from, to].map(|set| {
                let names = self.names.labels.groups(*set);
                if names.is_empty() { "-".to_owned() } else { names.join(", ") }
            });
            right_from(&mut table, 2, [from, to, count(*flows), count(*refused), count(*packets), bytes(*b)]);
        }
        more(&mut table, pairs.len());
        (!pairs.is_empty()).then_some(table)
    }

    fn alerts(&self) -> Option<Table> {
        let mut alerts: Vec<&Alert> = self.scored.episodes.iter().collect();
        alerts.sort_by_key(|a| (a.severity, std::cmp::Reverse(a.count), a.episode));
        let mut table = table(&["kind", "severity", "actor", "victim", "count", "evidence"]);
        for alert in alerts.iter().take(TOP) {
            let (actor, victim) = (alert.actor.to_string(), alert.victim.to_string());
            let kind = alert.kind.name().to_owned();
            table.add_row([kind, alert.severity.to_string(), actor, victim, count(alert.count), evidence(alert)]);
        }
        more(&mut table, self.summary.alerts.values().sum::<u64>() as usize);
        (!alerts.is_empty()).then_some(table)
    }

    fn scorer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.scored.stats;
        match stats.trained {
            true => writeln!(
                f,
                "Scorer: trained on {} records, scored {}, {} unusual",
                count(stats.trained_on),
                count(stats.scored),
                count(stats.outliers)
            )?,
            false if stats.records == 0 => writeln!(f, "Scorer: no records")?,
            false => writeln!(f, "Scorer: still learning what is normal ({} records)", count(stats.records))?,
        }
        if let Some(lag) = self.scored.lag.as_ref().filter(|lag| !lag.is_empty()) {
            let (median, tail) = (lag.value_at_quantile(0.5), lag.value_at_quantile(0.99));
            writeln!(f, "  records waited {median} µs for it in the median, {tail} µs at the 99th percentile")?;
        }
        if let Some(box_time) = &self.summary.latency_us {
            let (median, tail) = (box_time.p50, box_time.p99);
            writeln!(f, "  time in the box: half of the packets within {median} µs, 99 % within {tail} µs")?;
        }
        if self.scored.lines_lost > 0 {
            writeln!(f, "  {} events did not get into a file or socket", count(self.scored.lines_lost))?;
        }
        if self.scored.export_failures > 0 {
            writeln!(f, "  writing files failed {} times: lines are missing", count(self.scored.export_failures))?;
        }
        writeln!(f)
    }
}

fn evidence(alert: &Alert) -> String {
    let e = &alert.evidence;
    let mut parts = Vec::new();
    if e.distinct_ports > 1 {
        parts.push(format!("{} ports", count(e.distinct_ports)));
    }
    if e.distinct_hosts > 1 {
        parts.push(format!("{} hosts", count(e.distinct_hosts)));
    }
    if e.attempts > 0 && e.failed > 0 {
        parts.push(format!("{} of {} failed", count(e.failed), count(e.attempts)));
    }
    if e.peak > 0 {
        parts.push(format!("peak {} a window", count(e.peak)));
    }
    if let Some(rhythm) = e.rhythm {
        parts.push(format!("every {:.1} s", rhythm.period));
    }
    if let Some(domain) = e.domain {
        parts.push(format!("below {domain}"));
    }
    if let Some(score) = e.max_score {
        parts.push(format!("score {score:.3}"));
    }
    parts.extend(e.features.iter().take(3).map(|(name, _)| (*name).to_owned()));
    parts.push(format!("{:.1}/s", e.rate));
    parts.join(", ")
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, table: Option<Table>) -> fmt::Result {
    match table {
        Some(table) => writeln!(f, "{title}\n{table}\n"),
        None => Ok(()),
    }
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    let mut style = presets::UTF8_HORIZONTAL_ONLY;
    style.row_separator = presets::NOTHING.row_separator;
    table.load_style(style).set_header(header.to_vec());
    table
}

/// A row whose cells but the first are numbers.
fn right<const N: usize>(table: &mut Table, row: [String; N]) {
    right_from(table, 1, row);
}

/// A row whose cells from `first` on are numbers.
fn right_from<const N: usize>(table: &mut Table, first: usize, row: [String; N]) {
    table.add_row(row);
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn more(table: &mut Table, all: usize) {
    if all > TOP {
        table.add_row([format!("… and {} more", all - TOP)]);
    }
}

/// With thousands separated by thin spaces.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { String::new() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

pub(super) fn duration(seconds: f64) -> String {
    match seconds as u64 {
        0..=119 => format!("{seconds:.1} s"),
        s @ 120..=7199 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(percent(1, 8), "12.5 %");
        assert_eq!(percent(1, 0), "");
        assert_eq!(duration(61.0), "61.0 s");
        assert_eq!(duration(3600.0), "60 min 0 s");
        assert_eq!(duration(8000.0), "2 h 13 min");
    }
}
