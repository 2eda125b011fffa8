//! Attacks found over intervals raised in vain, a line for each model.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

const SIZE: (u32, u32) = (640, 420);
const COLOURS: [RGBColor; 3] = [RGBColor(0xb0, 0x3a, 0x2e), RGBColor(0x1f, 0x4e, 0x79), RGBColor(0x4a, 0x7a, 0x3a)];

/// Name of a model, and its points: false intervals a day, share of attacks found.
pub type Line = (&'static str, Vec<(f64, f64)>);

pub fn draw(path: &Path, lines: &[Line]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    draw_lines(&area, lines).map_err(|error| anyhow!("{error}"))?;
    area.present().map_err(|error| anyhow!("{error}"))
}

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw_lines<'a>(area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>, lines: &[Line]) -> Drawn<'a> {
    let mut chart = ChartBuilder::on(area)
        .caption("attacks that raise their pair", ("sans-serif", 17))
        .margin(14)
        .x_label_area_size(38)
        .y_label_area_size(52)
        .build_cartesian_2d((0.1..100.0).log_scale(), 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_desc("intervals raised without an attack, a day (all pairs)")
        .y_desc("attacks found, %")
        .light_line_style(WHITE)
        .label_style(("sans-serif", 12))
        .draw()?;
    for ((name, points), colour) in lines.iter().zip(COLOURS) {
        let points = points.iter().map(|(x, y)| (x.clamp(0.1, 100.0), y * 100.0));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(*name)
            .legend(move |at| Circle::new((at.0 + 8, at.1), 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 12))
        .draw()
}
