//! Share, risk and budget over the time of a scenario.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::measure::Outcome;

const SIZE: (u32, u32) = (900, 760);
const WATCHED: RGBColor = RGBColor(0xb0, 0x3a, 0x2e);
const OTHERS: RGBColor = RGBColor(0x1f, 0x4e, 0x79);
const MINUTE: f64 = 60e9;
/// Width of a point of the shares, and of the rates, in nanoseconds.
const STEP: u64 = 10_000_000_000;
const SECOND: u64 = 1_000_000_000;

pub fn draw(path: &Path, outcome: &Outcome, budget: u64) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    let panels = area.split_evenly((3, 1));
    shares(&panels[0], outcome).map_err(|error| anyhow!("{error}"))?;
    risks(&panels[1], outcome).map_err(|error| anyhow!("{error}"))?;
    rates(&panels[2], outcome, budget).map_err(|error| anyhow!("{error}"))?;
    area.present().map_err(|error| anyhow!("{error}"))
}

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type PanelResult<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;
type Chart<'a, 'b> = ChartContext<
    'b,
    SVGBackend<'a>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

fn minutes(outcome: &Outcome, at: u64) -> f64 {
    at.saturating_sub(outcome.began) as f64 / MINUTE
}

fn last(outcome: &Outcome) -> u64 {
    outcome.flows.iter().map(|flow| flow.last).max().unwrap_or(outcome.began)
}

fn chart<'a, 'b>(
    area: &'b Panel<'a>,
    outcome: &Outcome,
    caption: &str,
    top: f64,
) -> Result<Chart<'a, 'b>, DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(32)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..minutes(outcome, last(outcome)), 0.0..top)?;
    chart.configure_mesh().x_desc("minutes").light_line_style(WHITE).label_style(("sans-serif", 12)).draw()?;
    Ok(chart)
}

fn label<'a: 'b, 'b>(chart: &mut Chart<'a, 'b>) -> PanelResult<'a> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 12))
        .draw()
}

/// Packets copied of those who are watched at the time, and of all others.
fn shares<'a>(area: &Panel<'a>, outcome: &Outcome) -> PanelResult<'a> {
    let steps = ((last(outcome) - outcome.began) / STEP + 1) as usize;
    let mut counts = vec![[(0u32, 0u32); 2]; steps];
    for flow in &outcome.flows {
        let of_flow: Vec<_> = outcome.watched.iter().filter(|watched| watched.is_of(flow)).collect();
        for (at, copied) in &flow.packets {
            let is_watched = of_flow.iter().any(|watched| watched.from <= *at && *at < watched.to);
            let count = &mut counts[((at - outcome.began) / STEP) as usize][usize::from(is_watched)];
            *count = (count.0 + 1, count.1 + u32::from(*copied));
        }
    }
    let mut chart = chart(area, outcome, "packets copied, of each ten seconds, %", 112.0)?;
    let series = [(1, "of those who are watched", WATCHED), (0, "of everybody else", OTHERS)];
    for (which, name, colour) in series {
        let points = counts.iter().enumerate().filter(|(_, count)| count[which].0 > 0).map(|(step, count)| {
            let (all, copied) = count[which];
            let at = minutes(outcome, outcome.began + step as u64 * STEP + STEP / 2);
            Circle::new((at, 100.0 * f64::from(copied) / f64::from(all)), 2, colour.filled())
        });
        let legend = move |at: (i32, i32)| Circle::new((at.0 + 8, at.1), 4, colour.filled());
        chart.draw_series(points)?.label(name).legend(legend);
    }
    label(&mut chart)
}

/// Decisions about hosts, by how improbable their traffic is for normal ones; alerts as bars.
fn risks<'a>(area: &Panel<'a>, outcome: &Outcome) -> PanelResult<'a> {
    let mut chart = chart(area, outcome, "risk of those who are watched, -log10(1 - risk); bars: an alert", 10.5)?;
    let alerts = outcome.watched.iter().filter(|watched| watched.alert).map(|watched| {
        let to = watched.to.min(last(outcome));
        Rectangle::new([(minutes(outcome, watched.from), 9.5), (minutes(outcome, to), 10.2)], WATCHED.mix(0.6).filled())
    });
    chart.draw_series(alerts)?;
    let points = outcome.risks.iter().filter(|(.., risk)| *risk > 0.0).map(|(at, address, risk)| {
        let is_known = outcome.actors.contains(address) || outcome.victims.contains(address);
        let colour = if is_known { WATCHED } else { OTHERS };
        Circle::new((minutes(outcome, *at), -(1.0 - risk).max(1e-10).log10()), 3, colour.filled())
    });
    chart.draw_series(points)?;
    Ok(())
}

/// Copies in each second, and the budget.
fn rates<'a>(area: &Panel<'a>, outcome: &Outcome, budget: u64) -> PanelResult<'a> {
    let mut bits = vec![0f64; ((last(outcome) - outcome.began) / SECOND + 1) as usize];
    for (at, bytes) in &outcome.copies {
        bits[((at - outcome.began) / SECOND) as usize] += f64::from(*bytes) * 8.0 / 1e6;
    }
    let limit = budget as f64 / 1e6;
    let mut chart = chart(area, outcome, "copies, Mbit in each second", limit * 1.35)?;
    let line = bits.iter().enumerate().map(|(second, bits)| (second as f64 / 60.0, *bits));
    chart.draw_series(LineSeries::new(line, OTHERS.stroke_width(1)))?;
    let ends = [(0.0, limit), (minutes(outcome, last(outcome)), limit)];
    let legend = |at: (i32, i32)| PathElement::new([(at.0, at.1), (at.0 + 16, at.1)], WATCHED.stroke_width(2));
    chart.draw_series(LineSeries::new(ends, WATCHED.stroke_width(2)))?.label("budget").legend(legend);
    label(&mut chart)
}
