//! A picture of growth: medians, with a bar from the smallest to the largest, over the size of the host.

use std::{fs::File, io::Write as _};

use anyhow::{Context as _, Result, anyhow, ensure};
use plotters::{
    prelude::{
        BLACK, BLUE, ChartBuilder, DrawingArea, ErrorBar, IntoDrawingArea as _, LineSeries, RED, RGBColor, SVGBackend,
        SeriesLabelPosition, WHITE,
    },
    style::Color as _,
};

use crate::measure::sample::Spread;

/// One diagram.
pub struct Panel {
    /// Above it.
    pub title: String,
    /// What the sizes are of.
    pub below: &'static str,
    /// Who is compared.
    pub lines: Vec<Line>,
}

/// One of those who are compared.
pub struct Line {
    /// Its name.
    pub title: &'static str,
    /// Sizes and what was measured at them.
    pub points: Vec<(usize, Spread)>,
}

/// Pixels of a panel.
const WIDTH: u32 = 480;
const HEIGHT: u32 = 300;
/// Panels beside each other: a path's two figures, on both paths.
const COLUMNS: usize = 4;
const COLOURS: [RGBColor; 2] = [RED, BLUE];

/// Writes the picture, which needs nothing beside it.
pub fn write(mut file: File, panels: &[Panel]) -> Result<()> {
    ensure!(!panels.is_empty(), "nothing to draw: only one size was measured");
    let rows = panels.len().div_ceil(COLUMNS);
    let size = (
        WIDTH * u32::try_from(COLUMNS.min(panels.len()))?,
        HEIGHT * u32::try_from(rows)?,
    );
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        let areas = root.split_evenly((rows, COLUMNS.min(panels.len())));
        for (area, panel) in areas.iter().zip(panels) {
            draw(area, panel)?;
        }
        root.present().map_err(drawing)?;
    }
    file.write_all(svg.as_bytes()).context("cannot write the picture")
}

fn draw(area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>, panel: &Panel) -> Result<()> {
    let sizes: Vec<usize> = panel
        .lines
        .first()
        .map(|line| line.points.iter().map(|(size, _)| *size).collect())
        .unwrap_or_default();
    let all = || panel.lines.iter().flat_map(|line| &line.points);
    let highest = all().map(|(_, spread)| spread.max).fold(0.0, f64::max);
    // Sizes side by side, not to scale: what they do is to be seen at each.
    let last = sizes.len().saturating_sub(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.3..last + 0.3, 0.0..highest * 1.1)
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_desc(panel.below)
        .x_labels(sizes.len() * 10)
        .x_label_formatter(&|x| {
            let is_at = |place: usize| (x - place as f64).abs() < 0.01;
            let size = (0..sizes.len()).find(|place| is_at(*place)).map(|place| sizes[place]);
            size.map_or_else(String::new, |size| size.to_string())
        })
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()
        .map_err(drawing)?;
    for (line, colour) in panel.lines.iter().zip(COLOURS) {
        let medians = line.points.iter().enumerate();
        let medians: Vec<(f64, f64)> = medians
            .map(|(place, (_, spread))| (place as f64, spread.median))
            .collect();
        chart
            .draw_series(LineSeries::new(medians, colour.stroke_width(2)))
            .map_err(drawing)?
            .label(line.title)
            .legend(move |(x, y)| plotters::element::PathElement::new(vec![(x, y), (x + 16, y)], colour));
        let bars = line.points.iter().enumerate().map(|(place, (_, spread))| {
            ErrorBar::new_vertical(place as f64, spread.min, spread.median, spread.max, colour.filled(), 8)
        });
        chart.draw_series(bars).map_err(drawing)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()
        .map_err(drawing)
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use tempfile::tempfile;

    use super::*;

    fn spread(median: f64) -> Spread {
        Spread {
            median,
            min: median * 0.9,
            max: median * 1.1,
        }
    }

    #[test]
    fn a_picture_has_every_line_size_and_title() {
        let line = |title, factor| Line {
            title,
            points: vec![(0, spread(100.0 * factor)), (500, spread(10.0 * factor))],
        };
        let panel = Panel {
            title: "user: 64-byte UDP".into(),
            below: "more networks",
            lines: vec![line("kernel", 1.0), line("netfast", 2.0)],
        };
        let mut file = tempfile().expect("a file");
        write(file.try_clone().expect("a file"), &[panel]).expect("drawn");
        file.rewind().expect("rewound");
        let svg = std::io::read_to_string(file).expect("read");
        for word in ["<svg", "user: 64-byte UDP", "more networks", "kernel", "netfast", "500"] {
            assert!(svg.contains(word), "no {word} in {svg}");
        }
    }

    #[test]
    fn nothing_is_not_drawn() {
        assert!(write(tempfile().expect("a file"), &[]).is_err());
    }
}
