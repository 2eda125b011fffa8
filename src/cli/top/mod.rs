//! `gnomon top`: a page about the running appliance, every second anew.

mod page;
mod stats;

use std::collections::VecDeque;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Terminal};
use serde_json::{Value, json};

use super::live::Appliance;
use crate::control::Client;
use stats::Stats;

/// Watch the running appliance: rates, rules, groups, mirrors, drops, alerts, latency.
///
/// Keys: s changes the order of the tables, p or space pauses, ? explains, q quits.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Seconds from one page to the next.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    /// Print one page and end.
    #[arg(long)]
    once: bool,
    /// Columns and lines of that page.
    #[arg(long, value_name = "COLUMNSxLINES", requires = "once", value_parser = size)]
    size: Option<(u16, u16)>,
    /// With --once: as a page or as all counters in JSON.
    #[arg(short, long, value_name = "FORM", default_value = "page", requires = "once")]
    output: Form,
    #[command(flatten)]
    appliance: Appliance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Page,
    Json,
}

/// What the tables are put in order by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Order {
    #[default]
    Rate,
    Total,
    Name,
}

/// Everything the page shows.
#[derive(Debug, Default)]
struct View {
    now: Stats,
    before: Option<Stats>,
    /// Packets received per second, oldest first.
    history: VecDeque<u64>,
    order: Order,
    paused: bool,
    help: bool,
}

const HISTORY: usize = 240;
const USUAL_SIZE: (u16, u16) = (120, 46);

fn size(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once('x').and_then(|(columns, lines)| Some((columns.parse().ok()?, lines.parse().ok()?)));
    parsed
        .filter(|(columns, lines)| (20..=1000).contains(columns) && (5..=1000).contains(lines))
        .ok_or_else(|| "not a size; allowed are 20x5 to 1000x1000, such as 120x46".to_owned())
}

pub(super) fn run(args: &TopArgs) -> Result<ExitCode> {
    let every =
        Duration::try_from_secs_f64(args.interval).map_err(|_| anyhow!("--interval takes a number of seconds"))?;
    let every = every.max(Duration::from_millis(100));
    let mut client = args.appliance.connect()?;
    let mut view = View::default();
    if args.once {
        let first = fetch(&mut client)?;
        view.take(serde_json::from_value(first)?);
        std::thread::sleep(every);
        let raw = fetch(&mut client)?;
        view.take(serde_json::from_value(raw.clone())?);
        let text = match args.output {
            Form::Json => raw.to_string(),
            Form::Page => view.text(args.size.unwrap_or(USUAL_SIZE))?,
        };
        writeln!(std::io::stdout().lock(), "{text}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut terminal = ratatui::try_init().map_err(|error| anyhow!("no terminal to draw on ({error}); try --once"))?;
    let outcome = watch(&mut terminal, &mut client, &mut view, every);
    ratatui::restore();
    outcome.map(|()| ExitCode::SUCCESS)
}

fn fetch(client: &mut Client) -> Result<Value> {
    Ok(client.ask_one(&json!({ "verb": "stats" }))?)
}

fn watch(terminal: &mut DefaultTerminal, client: &mut Client, view: &mut View, every: Duration) -> Result<()> {
    let mut due = Instant::now();
    loop {
        if Instant::now() >= due {
            due = Instant::now() + every;
            if !view.paused {
                view.take(serde_json::from_value(fetch(client)?)?);
            }
        }
        terminal.draw(|frame| page::draw(frame, view))?;
        if event::poll(due.saturating_duration_since(Instant::now()))?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            let interrupted = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
            if interrupted || !view.press(key.code) {
                return Ok(());
            }
        }
    }
}

impl View {
    /// The newest counters.
    fn take(&mut self, stats: Stats) {
        let before = std::mem::replace(&mut self.now, stats);
        self.before = (before.uptime > 0.0).then_some(before);
        if let Some(seconds) = self.seconds() {
            let before = self.before.as_ref().map_or(0, |before| before.summary.rx);
            self.history.push_back(((self.now.summary.rx.saturating_sub(before)) as f64 / seconds) as u64);
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
    }

    /// Between the two latest counters.
    fn seconds(&self) -> Option<f64> {
        let before = self.before.as_ref()?;
        Some(self.now.uptime - before.uptime).filter(|seconds| *seconds > 0.0)
    }

    /// False when it is over.
    fn press(&mut self, key: KeyCode) -> bool {
        match key {
            KeyCode::Char('q') | KeyCode::Esc if self.help => self.help = false,
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Char('s') => {
                self.order = match self.order {
                    Order::Rate => Order::Total,
                    Order::Total => Order::Name,
                    Order::Name => Order::Rate,
                };
            }
            _ => {}
        }
        true
    }

    /// The page without a terminal.
    fn text(&self, (columns, lines): (u16, u16)) -> Result<String> {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines))?;
        terminal.draw(|frame| page::draw(frame, self))?;
        let buffer = terminal.backend().buffer();
        let line = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        let lines: Vec<String> = (0..lines).map(line).collect();
        Ok(lines.join("\n").trim_end().to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stats(uptime: f64, scale: u64) -> Stats {
        serde_json::from_value(json!({
            "version": "0.1.0", "pid": 42, "uptime": uptime, "capacity": 1000, "rules_hidden": 0,
            "ports": [{ "name": "wan", "device": "net_null0", "up": true, "paired_with": "lan" },
                { "name": "lan", "device": "net_null1", "up": false, "paired_with": "wan" }],
            "workers": [{ "rx": 900 * scale, "tx": 800 * scale, "dropped": 100 * scale, "flows": 250, "records": 5, "records_lost": 1 }],
            "pairs": [{ "from": "web", "to": "db", "flows": 3, "refused": 1, "packets": 100 * scale, "bytes": 10_000 * scale }],
            "alerts": [{ "time": "2025-01-15T09:00:05.000000+0000", "kind": "port_scan", "severity": 2, "status": "open",
                "actor": "10.0.0.9", "victim": "10.0.0.1", "count": 100 }],
            "summary": {
                "rx": 900 * scale, "tx": 800 * scale, "rx_bytes": 90_000 * scale, "tx_bytes": 80_000 * scale, "consumed": 0,
                "drops": { "denied": 100 * scale }, "generation": 3, "flows": 40 * scale, "records": 5, "records_lost": 1,
                "mirrored": { "tap": { "selected": 10 * scale, "packets": 9 * scale, "bytes": 900, "lost": scale } },
                "rules": { "allow-web": { "packets": 800 * scale, "bytes": 1, "counter_since": "x" },
                    "watch": { "packets": 0, "bytes": 0, "would": 7 * scale, "counter_since": "x" } },
                "latency_us": { "p50": 1.5, "p90": 2.0, "p99": 4.25, "p999": 9.0, "max": 11.0, "mean": 1.7, "count": 5 },
            },
        }))
        .unwrap()
    }

    fn view() -> View {
        let mut view = View::default();
        view.take(stats(10.0, 1));
        view.take(stats(12.0, 3));
        view
    }

    #[test]
    fn rates_are_differences_over_time() {
        let text = view().text(USUAL_SIZE).unwrap();
        for wanted in
            ["generation 3", "900 pps", "800 pps", "100 pps", "0.7 Mbit/s", "250 of 1 000", "25.0 %", "1 lost"]
        {
            assert!(text.contains(wanted), "{wanted}:\n{text}");
        }
        let line =
            |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}\n{text}"));
        assert!(line("allow-web").contains("800/s") && line("allow-web").contains("2 400"), "{text}");
        assert!(line("watch").contains("7/s"), "would-hits of shadow rules: {text}");
        assert!(line("denied").contains("100/s") && line("denied").contains("300"), "{text}");
        assert!(line("tap").contains("9/s") && line("tap").contains('3'), "{text}");
        assert!(line("port_scan").contains("10.0.0.9"), "{text}");
        assert!(line("latency_us").contains("4.25"), "{text}");
        assert!(line("net_null1").contains("down"), "{text}");
        assert!(line("web > db").contains("29.3 KiB"), "{text}");
    }

    #[test]
    fn any_size_and_any_answer_can_be_drawn() {
        let mut view = view();
        for size in [(20, 5), (80, 24), (300, 100)] {
            view.text(size).unwrap();
        }
        assert!(View::default().text((80, 24)).is_ok(), "before the first answer");
        let empty: Stats = serde_json::from_value(json!({})).unwrap();
        view.take(empty);
        assert!(view.text((80, 24)).is_ok(), "counters that go back, and fields that are missing");
    }

    #[test]
    fn keys() {
        let mut view = view();
        assert!(view.press(KeyCode::Char('s')) && view.order == Order::Total);
        assert!(view.press(KeyCode::Char(' ')) && view.paused);
        assert!(view.text((100, 40)).unwrap().contains("paused"));
        assert!(view.press(KeyCode::Char('?')) && view.text((100, 40)).unwrap().contains("quits"));
        assert!(view.press(KeyCode::Char('q')) && !view.help, "closes the help first");
        assert!(!view.press(KeyCode::Char('q')));
        assert_eq!((size("100x30"), size("100").is_err(), size("1x1").is_err()), (Ok((100, 30)), true, true));
    }
}
