//! The sweep's curves as one SVG: cycles, memory and build time side by side, both axes logarithmic.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::generate::Flavour;
use crate::sweep::Cost;

const SIZE: (u32, u32) = (1260, 420);
const OURS: RGBColor = RGBColor(0xb0, 0x3a, 0x2e);
const THEIRS: RGBColor = RGBColor(0x1f, 0x4e, 0x79);

/// What a panel shows of a cost.
type Value = fn(&Cost) -> f64;

/// One side on one flavour of rules.
pub struct Curve {
    pub ours: bool,
    pub flavour: Flavour,
    /// By number of rules.
    pub points: Vec<(usize, Cost)>,
}

pub fn draw(path: &Path, curves: &[Curve]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    let panels: [(&str, Value); 3] = [
        ("cycles per packet", |cost| cost.cycles),
        ("memory, MB", |cost| cost.megabytes),
        ("build time, ms", |cost| cost.milliseconds),
    ];
    for (panel, (title, of)) in area.split_evenly((1, panels.len())).iter().zip(panels) {
        draw_panel(panel, title, curves, of).map_err(|error| anyhow!("{error}"))?;
    }
    area.present().map_err(|error| anyhow!("{error}"))
}

type PanelResult<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw_panel<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    title: &str,
    curves: &[Curve],
    of: Value,
) -> PanelResult<'a> {
    let points = curves.iter().flat_map(|curve| &curve.points);
    let (sizes, values): (Vec<f64>, Vec<f64>) = points.map(|(size, cost)| (*size as f64, of(cost))).unzip();
    // Above the curves there is room for the legend.
    let range = |values: &[f64], room: f64| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        least * 0.7..most * room
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(range(&sizes, 1.4).log_scale(), range(&values, 8.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("rules")
        .x_label_formatter(&|rules| power_of_ten(*rules))
        .y_label_formatter(&|value| value.to_string())
        .light_line_style(WHITE)
        .label_style(("sans-serif", 12))
        .draw()?;
    for curve in curves {
        let (name, colour) = if curve.ours { ("gnomon", OURS) } else { ("rte_acl", THEIRS) };
        // Access lists have filled marks, firewalls open ones.
        let mark = if curve.flavour == Flavour::Acl { colour.filled() } else { colour.stroke_width(1) };
        let points: Vec<(f64, f64)> = curve.points.iter().map(|(size, cost)| (*size as f64, of(cost))).collect();
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(line)?
            .label(format!("{name}, {}", curve.flavour.name()))
            .legend(move |at| Circle::new((at.0 + 8, at.1), 4, mark));
        chart.draw_series(points.into_iter().map(|at| Circle::new(at, 4, mark)))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 12))
        .draw()
}

/// `1k`, `10k`, `100k`, `1M`; nothing for other numbers, whose labels would lie over each other.
fn power_of_ten(number: f64) -> String {
    let round = number.round() as u64;
    match round {
        _ if round != 10_u64.pow(round.max(1).ilog10()) => String::new(),
        0..1000 => round.to_string(),
        1000..1_000_000 => format!("{}k", round / 1000),
        _ => format!("{}M", round / 1_000_000),
    }
}
