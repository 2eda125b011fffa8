//! Scores and the count of an alert over the time around it.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::Value;

const SIZE: (u32, u32) = (860, 560);
const ACTOR: RGBColor = RGBColor(0xb0, 0x3a, 0x2e);
const OTHERS: RGBColor = RGBColor(0x1f, 0x4e, 0x79);
/// Seconds shown before the attack begins, and in all.
const BEFORE: f64 = 120.0;
const SHOWN: f64 = 299.0;
const WINDOW: f64 = 60.0;

/// A record: when it was made, in seconds since the attack began, its score, and whether it is of the attack.
struct Point {
    emitted: f64,
    score: f64,
    of_it: bool,
}

struct Story {
    points: Vec<Point>,
    raised: f64,
    threshold: f64,
}

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type PanelResult<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// Draws what is in a replay's results.
pub fn draw(path: &Path, results: &Path) -> Result<()> {
    let story = read(results)?;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    let panels = area.split_evenly((2, 1));
    scores(&panels[0], &story).map_err(|error| anyhow!("{error}"))?;
    counts(&panels[1], &story).map_err(|error| anyhow!("{error}"))?;
    area.present().map_err(|error| anyhow!("{error}"))
}

fn read(results: &Path) -> Result<Story> {
    let alerts = std::fs::read_to_string(results.join("alerts.jsonl"))?;
    let alert = alerts.lines().find(|line| line.contains("\"kind\":\"brute_force\"")).context("the alert")?;
    let alert: Value = serde_json::from_str(alert)?;
    let began = seconds(&alert["gnomon"]["start"])?;
    let mut points = Vec::new();
    for line in std::fs::read_to_string(results.join("flows.jsonl"))?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let emitted = seconds(&line["timestamp"])? - began;
        let Some(score) = line["gnomon"]["score"].as_f64() else { continue };
        points.push(Point { emitted, score, of_it: line["src_ip"] == alert["actor"] });
    }
    let threshold = alert["evidence"]["threshold"].as_f64().context("a threshold")?;
    Ok(Story { points, raised: seconds(&alert["timestamp"])? - began, threshold })
}

/// Of the day.
fn seconds(stamp: &Value) -> Result<f64> {
    let text = stamp.as_str().and_then(|text| text.get(11..26)).context("a time")?;
    let mut parts = text.split(':').map(str::parse::<f64>);
    let mut next = || -> Result<f64> { Ok(parts.next().context("a time of day")??) };
    Ok(next()? * 3600.0 + next()? * 60.0 + next()?)
}

fn scores<'a>(area: &Panel<'a>, story: &Story) -> PanelResult<'a> {
    let title = "score of each record, as -log10(1 - score): 2 is what one ordinary record in a hundred reaches";
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(10)
        .x_label_area_size(24)
        .y_label_area_size(44)
        .build_cartesian_2d(-BEFORE..SHOWN - BEFORE, 0.0..3.0)?;
    chart.configure_mesh().light_line_style(WHITE).draw()?;
    for (of_it, name, colour) in [(false, "everybody else", OTHERS), (true, "the attacker", ACTOR)] {
        let shown = story
            .points
            .iter()
            .filter(|point| point.of_it == of_it && (-BEFORE..SHOWN - BEFORE).contains(&point.emitted));
        let circles = shown.map(|point| {
            let height = -(1.0 - point.score).max(1e-4).log10();
            Circle::new((point.emitted, height), 2, colour.filled())
        });
        let legend = move |at: (i32, i32)| Circle::new((at.0 + 8, at.1), 4, colour.filled());
        chart.draw_series(circles)?.label(name).legend(legend);
    }
    chart.configure_series_labels().border_style(BLACK.mix(0.3)).background_style(WHITE.mix(0.8)).draw()
}

/// Sessions of the attacker that ended in the minute before each moment.
fn counts<'a>(area: &Panel<'a>, story: &Story) -> PanelResult<'a> {
    let mut chart = ChartBuilder::on(area)
        .caption("sessions of the attacker in the last minute; seconds since the first one", ("sans-serif", 15))
        .margin(10)
        .x_label_area_size(24)
        .y_label_area_size(44)
        .build_cartesian_2d(-BEFORE..SHOWN - BEFORE, 0.0..70.0)?;
    chart.configure_mesh().light_line_style(WHITE).draw()?;
    let ends: Vec<f64> = story.points.iter().filter(|point| point.of_it).map(|point| point.emitted).collect();
    let count = |at: f64| ends.iter().filter(|end| **end <= at && **end > at - WINDOW).count() as f64;
    let line = (0..=SHOWN as u32).map(|step| f64::from(step) - BEFORE).map(|at| (at, count(at)));
    chart.draw_series(LineSeries::new(line, ACTOR.stroke_width(2)))?;
    let threshold = [(-BEFORE, story.threshold), (SHOWN - BEFORE, story.threshold)];
    let legend = |at: (i32, i32)| PathElement::new([(at.0, at.1), (at.0 + 16, at.1)], OTHERS.stroke_width(1));
    chart.draw_series(LineSeries::new(threshold, OTHERS.stroke_width(1)))?.label("threshold").legend(legend);
    let raised = [(story.raised, 0.0), (story.raised, 70.0)];
    let legend = |at: (i32, i32)| PathElement::new([(at.0, at.1), (at.0 + 16, at.1)], BLACK.stroke_width(1));
    chart.draw_series(LineSeries::new(raised, BLACK.stroke_width(1)))?.label("alert").legend(legend);
    chart.configure_series_labels().border_style(BLACK.mix(0.3)).background_style(WHITE.mix(0.8)).draw()
}
