//! Cycles a packet over the number of flows, one panel for each mix of traffic.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::traffic::Mix;

const SIZE: (u32, u32) = (900, 400);
const OURS: RGBColor = RGBColor(0xb0, 0x3a, 0x2e);
const THEIRS: RGBColor = RGBColor(0x1f, 0x4e, 0x79);

/// Flows, mix, own cycles, the peer's.
pub type Point = (u32, Mix, f64, f64);

pub fn draw(path: &Path, points: &[Point]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    for (panel, mix) in area.split_evenly((1, 2)).iter().zip([Mix::Uniform, Mix::Zipf]) {
        draw_panel(panel, mix, points).map_err(|error| anyhow!("{error}"))?;
    }
    area.present().map_err(|error| anyhow!("{error}"))
}

type PanelResult<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw_panel<'a>(area: &DrawingArea<SVGBackend<'a>, Shift>, mix: Mix, points: &[Point]) -> PanelResult<'a> {
    let (least, most) = points.iter().fold((f64::INFINITY, 1.0), |(least, most), (flows, ..)| {
        (f64::min(least, f64::from(*flows)), f64::max(most, f64::from(*flows)))
    });
    let top = points.iter().map(|(_, _, own, theirs)| own.max(*theirs)).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("cycles a packet, {}", mix.name()), ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d((least * 0.7..most * 1.4).log_scale(), 0.0..top * 1.3)?;
    chart
        .configure_mesh()
        .x_desc("flows")
        .x_label_formatter(&|flows| format!("{flows:.0e}"))
        .light_line_style(WHITE)
        .label_style(("sans-serif", 12))
        .draw()?;
    for (name, colour) in [("gnomon", OURS), ("rte_hash", THEIRS)] {
        let of = |point: &Point| if name == "gnomon" { point.2 } else { point.3 };
        let line: Vec<(f64, f64)> =
            points.iter().filter(|point| point.1 == mix).map(|point| (f64::from(point.0), of(point))).collect();
        chart
            .draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |at| Circle::new((at.0 + 8, at.1), 4, colour.filled()));
        chart.draw_series(line.into_iter().map(|at| Circle::new(at, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 12))
        .draw()
}
