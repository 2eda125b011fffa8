//! The page, drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Sparkline, Table};

use super::stats::Stats;
use super::{Order, View};
use crate::cli::report::{bytes, count, duration, percent};

/// One line of a table that can be put in order.
struct Ranked {
    name: String,
    rate: f64,
    total: u64,
    cells: Vec<String>,
}

const HELP: &str = "\
s        order of the tables: rate, total, name
p space  pauses and goes on
?        this help
q        quits

Rates are those of the latest interval. `would` counts
packets that a rule in shadow mode would have decided,
or a log rule noted. Groups count flow records: a flow
appears when it ends or its slice does.";

pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let tables = [
        5,
        table_height(view.now.summary.rules.len(), 8),
        table_height(view.now.pairs.len(), 6),
        table_height(view.now.alerts.len(), 5),
        table_height(view.now.workers.len().max(view.now.ports.len()), 6),
    ];
    let [title, traffic, rules, groups, alerts, machines, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(tables[0]),
        Constraint::Min(tables[1]),
        Constraint::Length(tables[2]),
        Constraint::Length(tables[3]),
        Constraint::Length(tables[4]),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(headline(view), title);
    draw_traffic(frame, view, traffic);
    let halves = |area| Layout::horizontal([Constraint::Percentage(58), Constraint::Percentage(42)]).areas::<2>(area);
    let [left, right] = halves(rules);
    draw_rules(frame, view, left);
    let [above, below] = Layout::vertical([Constraint::Percentage(60), Constraint::Percentage(40)]).areas(right);
    draw_drops(frame, view, above);
    draw_latency(frame, view, below);
    let [left, right] = halves(groups);
    draw_groups(frame, view, left);
    draw_mirrors(frame, view, right);
    draw_alerts(frame, view, alerts);
    let [left, right] = halves(machines);
    draw_workers(frame, view, left);
    draw_ports(frame, view, right);
    let order = match view.order {
        Order::Rate => "rate",
        Order::Total => "total",
        Order::Name => "name",
    };
    frame.render_widget(Line::from(format!(" s order: {order}   p pause   ? help   q quit")).style(dim()), keys);
    if view.help {
        draw_help(frame);
    }
}

/// Lines for a table of `rows`, but at most `most`: with its frame and header.
fn table_height(rows: usize, most: usize) -> u16 {
    rows.clamp(1, most) as u16 + 3
}

fn dim() -> Style {
    Style::new().fg(Color::DarkGray)
}

fn headline(view: &View) -> Line<'static> {
    let Stats { version, pid, uptime, summary, .. } = &view.now;
    let text = format!(
        " gnomon {version} (process {pid})  up {}  generation {}  {} workers",
        duration(*uptime),
        summary.generation,
        view.now.workers.len()
    );
    let mut spans = vec![Span::styled(text, Style::new().add_modifier(Modifier::BOLD))];
    if view.paused {
        spans.push(Span::styled("  paused", Style::new().fg(Color::Yellow)));
    }
    Line::from(spans)
}

/// Change per second of a counter.
fn rate(view: &View, of: impl Fn(&Stats) -> u64) -> f64 {
    let (Some(before), Some(seconds)) = (&view.before, view.seconds()) else { return 0.0 };
    of(&view.now).saturating_sub(of(before)) as f64 / seconds
}

fn per_second(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 {
        format!("{rate:.1}/s").replace(".0/", "/")
    } else {
        format!("{}/s", count(rate.round() as u64))
    }
}

fn draw_traffic(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Percentage(58), Constraint::Percentage(42)]).areas(area);
    let block = Block::bordered().title(" Traffic ");
    let inside = block.inner(left);
    frame.render_widget(block, left);
    let [numbers, graph] = Layout::horizontal([Constraint::Length(42), Constraint::Min(0)]).areas(inside);
    let pps = |rate: f64| format!("{} pps", count(rate.round() as u64));
    let bits = |rate: f64| format!("{:.1} Mbit/s", rate * 8.0 / 1e6);
    let line = |name: &str, packets: String, bits: String| Line::from(format!(" {name:<9} {packets:>14} {bits:>15}"));
    let lines = vec![
        line("received", pps(rate(view, |s| s.summary.rx)), bits(rate(view, |s| s.summary.rx_bytes))),
        line("forwarded", pps(rate(view, |s| s.summary.tx)), bits(rate(view, |s| s.summary.tx_bytes))),
        line("dropped", pps(rate(view, |s| s.summary.dropped())), String::new()),
    ];
    frame.render_widget(Paragraph::new(lines), numbers);
    let history: Vec<u64> = view.history.iter().rev().take(usize::from(graph.width)).rev().copied().collect();
    frame.render_widget(Sparkline::default().data(&history).style(Style::new().fg(Color::Cyan)), graph);
    draw_flows(frame, view, right);
}

fn draw_flows(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let live: u64 = view.now.workers.iter().map(|worker| worker.flows).sum();
    let room = view.now.capacity * view.now.workers.len() as u64;
    let summary = &view.now.summary;
    let share = percent(live, room);
    let new = per_second(rate(view, |s| s.summary.flows));
    let lines = vec![
        Line::from(format!(" live {} of {} ({share}), new {new}", count(live), count(room))),
        Line::from(format!(
            " evicted {} half-open, {} closed, {} idle",
            count(summary.flows_evicted_half_open),
            count(summary.flows_evicted_closed),
            count(summary.flows_evicted_idle)
        )),
        Line::from(format!(
            " records {}, {} lost; packets untracked {}",
            count(summary.records),
            count(summary.records_lost),
            count(summary.untracked)
        )),
    ];
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" Flows ")), area);
}

fn draw_rules(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let ranked = view.now.summary.rules.iter().map(|(id, rule)| {
        let hits = rate(view, |s| s.summary.rules.get(id).map_or(0, |rule| rule.packets));
        let would = rate(view, |s| s.summary.rules.get(id).map_or(0, |rule| rule.would));
        let noted = if rule.would > 0 { per_second(would) } else { String::new() };
        let cells = vec![per_second(hits), count(rule.packets), bytes(rule.bytes), noted];
        Ranked { name: id.clone(), rate: hits.max(would), total: rule.packets.max(rule.would), cells }
    });
    let hidden = match view.now.rules_hidden {
        0 => " Rules ".to_owned(),
        n => format!(" Rules ({} more) ", count(n)),
    };
    draw_ranked(frame, view, area, hidden, ["rule", "hits", "packets", "bytes", "would"].to_vec(), ranked.collect());
}

fn draw_drops(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let ranked = view.now.summary.drops.iter().map(|(reason, packets)| {
        let rate = rate(view, |s| s.summary.drops.get(reason).copied().unwrap_or(0));
        Ranked { name: reason.clone(), rate, total: *packets, cells: vec![per_second(rate), count(*packets)] }
    });
    draw_ranked(frame, view, area, " Drops ".into(), vec!["reason", "rate", "packets"], ranked.collect());
}

fn draw_mirrors(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let ranked = view.now.summary.mirrored.iter().map(|(name, copies)| {
        let of = |s: &Stats| s.summary.mirrored.get(name).map_or(0, |copies| copies.packets);
        let rate = rate(view, of);
        let cells = vec![per_second(rate), count(copies.packets), bytes(copies.bytes), count(copies.lost)];
        Ranked { name: name.clone(), rate, total: copies.packets, cells }
    });
    let titles = vec!["session", "rate", "copies", "bytes", "lost"];
    draw_ranked(frame, view, area, " Mirrors ".into(), titles, ranked.collect());
}

fn draw_groups(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let ranked = view.now.pairs.iter().map(|pair| {
        let same = |s: &Stats| {
            let found = s.pairs.iter().find(|other| other.from == pair.from && other.to == pair.to);
            found.map_or(0, |other| other.bytes)
        };
        let rate = rate(view, same);
        let shown = |groups: &str| if groups.is_empty() { "-".to_owned() } else { groups.to_owned() };
        Ranked {
            name: format!("{} > {}", shown(&pair.from), shown(&pair.to)),
            rate,
            total: pair.bytes,
            cells: vec![count(pair.flows), count(pair.refused), count(pair.packets), bytes(pair.bytes)],
        }
    });
    let titles = vec!["groups", "flows", "refused", "packets", "bytes"];
    draw_ranked(frame, view, area, " Groups ".into(), titles, ranked.collect());
}

/// A table with a name in front and numbers behind.
fn draw_ranked(
    frame: &mut Frame<'_>,
    view: &View,
    area: Rect,
    title: String,
    titles: Vec<&str>,
    mut ranked: Vec<Ranked>,
) {
    match view.order {
        Order::Rate => ranked.sort_by(|a, b| b.rate.total_cmp(&a.rate).then(b.total.cmp(&a.total))),
        Order::Total => ranked.sort_by_key(|line| std::cmp::Reverse(line.total)),
        Order::Name => ranked.sort_by(|a, b| a.name.cmp(&b.name)),
    }
    let rows = ranked.into_iter().map(|line| [vec![line.name], line.cells].concat()).collect();
    draw_table(frame, area, title, &titles, rows);
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, title: String, titles: &[&str], rows: Vec<Vec<String>>) {
    let wide = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([titles[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(wide).collect();
    let mut constraints = vec![Constraint::Min(14)];
    constraints.extend(widths[1..].iter().map(|width| Constraint::Length(*width as u16)));
    let right = |column: usize, text: &str| match column {
        0 => text.to_owned(),
        _ => format!("{text:>width$}", width = widths[column]),
    };
    let line =
        |cells: Vec<String>| Row::new(cells.iter().enumerate().map(|(at, cell)| right(at, cell)).collect::<Vec<_>>());
    let header = line(titles.iter().map(|title| (*title).to_owned()).collect()).style(dim());
    let table = Table::new(rows.into_iter().map(line), constraints).header(header).column_spacing(2);
    frame.render_widget(table.block(Block::bordered().title(title)), area);
}

fn draw_latency(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let shown = |x: f64| match x {
        x if x >= 100.0 => format!("{x:.0}"),
        x => format!("{x:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    };
    let rows = view
        .now
        .summary
        .distributions()
        .into_iter()
        .map(|(name, q)| vec![name.to_owned(), shown(q.p50), shown(q.p99), shown(q.p999), shown(q.max)]);
    let titles = ["since start", "p50", "p99", "p99.9", "max"];
    draw_table(frame, area, " Latency, batches ".into(), &titles, rows.collect());
}

fn draw_alerts(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let rows = view.now.alerts.iter().map(|alert| {
        let time = alert.time.get(11..19).unwrap_or_default();
        let text = format!("{time}  {:<12} {} > {}", alert.kind, alert.actor, alert.victim);
        vec![text, alert.status.clone(), alert.severity.to_string(), count(alert.count)]
    });
    draw_table(frame, area, " Alerts ".into(), &["latest (UTC)", "status", "severity", "count"], rows.collect());
}

fn draw_workers(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let rows = view.now.workers.iter().enumerate().map(|(at, worker)| {
        let of =
            |field: fn(&super::stats::Worker) -> u64| per_second(rate(view, |s| s.workers.get(at).map_or(0, field)));
        let lost = count(worker.records_lost);
        vec![
            at.to_string(),
            of(|w| w.rx),
            of(|w| w.tx),
            of(|w| w.dropped),
            count(worker.flows),
            of(|w| w.records),
            lost,
        ]
    });
    let titles = ["worker", "received", "forwarded", "dropped", "flows", "records", "lost"];
    draw_table(frame, area, " Workers ".into(), &titles, rows.collect());
}

fn draw_ports(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let rows = view.now.ports.iter().map(|port| {
        let role = port.paired_with.as_ref().map_or("mirror".to_owned(), |other| format!("> {other}"));
        let link = if port.up { "up" } else { "down" };
        vec![format!("{} {}", port.name, port.device), role, link.to_owned()]
    });
    draw_table(frame, area, " Ports ".into(), &["port", "pair", "link"], rows.collect());
}

fn draw_help(frame: &mut Frame<'_>) {
    let wide = HELP.lines().map(|line| line.chars().count()).max().unwrap_or(0) as u16 + 4;
    let high = HELP.lines().count() as u16 + 2;
    let whole = frame.area();
    let area = Rect {
        x: whole.width.saturating_sub(wide) / 2,
        y: whole.height.saturating_sub(high) / 2,
        width: wide.min(whole.width),
        height: high.min(whole.height),
    };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" Help ")), area);
}
