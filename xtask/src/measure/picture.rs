//! Pictures of measurements: medians, with a bar from the smallest to the largest.

use std::{fs::File, io::Write as _};

use anyhow::{Context as _, Result, anyhow, ensure};
use plotters::{
    chart::ChartContext,
    coord::{Shift, types::RangedCoordf64},
    element::{ErrorBar, PathElement, Rectangle},
    prelude::{
        BLACK, BLUE, Cartesian2d, ChartBuilder, DrawingArea, GREEN, IntoDrawingArea as _, LineSeries, MAGENTA, RED,
        RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
    },
    style::Color as _,
};

use super::sample::Spread;

/// One diagram.
pub struct Panel {
    /// Above it.
    pub title: String,
    /// What the places are.
    pub below: &'static str,
    /// Side by side and not to scale, as what is measured is to be seen at each.
    pub places: Vec<String>,
    /// How it is drawn.
    pub shape: Shape,
    /// Who is compared.
    pub series: Vec<Series>,
}

/// How a diagram is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A line from place to place: they are sizes.
    Lines,
    /// Bars: one place has nothing to do with the next.
    Bars,
}

/// One of those who are compared.
pub struct Series {
    /// Its name.
    pub title: &'static str,
    /// What was measured at each place.
    pub points: Vec<Option<Spread>>,
}

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Pixels of a panel.
const WIDTH: u32 = 480;
const HEIGHT: u32 = 300;
/// Panels beside each other.
const COLUMNS: usize = 4;
const COLOURS: [RGBColor; 5] = [RED, BLUE, GREEN, MAGENTA, BLACK];
/// How much of a place's width its bars have.
const BARS: f64 = 0.8;

/// Writes the picture, which needs nothing beside it.
pub fn write(mut file: File, panels: &[Panel]) -> Result<()> {
    ensure!(!panels.is_empty(), "there is nothing to draw");
    let columns = COLUMNS.min(panels.len());
    let rows = panels.len().div_ceil(columns);
    let size = (WIDTH * u32::try_from(columns)?, HEIGHT * u32::try_from(rows)?);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        for (area, panel) in root.split_evenly((rows, columns)).iter().zip(panels) {
            draw(area, panel)?;
        }
        root.present().map_err(drawing)?;
    }
    file.write_all(svg.as_bytes()).context("cannot write the picture")
}

fn draw(area: &DrawingArea<SVGBackend<'_>, Shift>, panel: &Panel) -> Result<()> {
    let measured = panel.series.iter().flat_map(|series| series.points.iter().flatten());
    let highest = measured.map(|spread| spread.max).fold(0.0, f64::max);
    let last = panel.places.len().saturating_sub(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.5..last + 0.5, 0.0..highest * 1.1)
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_desc(panel.below)
        .x_labels(panel.places.len() * 10)
        .x_label_formatter(&|x| {
            let is_at = |place: usize| (x - place as f64).abs() < 0.01;
            let place = (0..panel.places.len()).find(|place| is_at(*place));
            place.map_or_else(String::new, |place| panel.places[place].clone())
        })
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()
        .map_err(drawing)?;
    for (number, series) in panel.series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points = series.points.iter().enumerate();
        let points: Vec<(f64, Spread)> = points
            .filter_map(|(place, spread)| Some((place as f64, (*spread)?)))
            .collect();
        match panel.shape {
            Shape::Lines => lines(&mut chart, series.title, &points, colour)?,
            Shape::Bars => bars(&mut chart, series.title, &points, colour, (number, panel.series.len()))?,
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .border_style(BLACK)
        .background_style(WHITE.mix(0.8))
        .draw()
        .map_err(drawing)
}

fn lines(chart: &mut Chart<'_>, title: &str, points: &[(f64, Spread)], colour: RGBColor) -> Result<()> {
    let medians = points.iter().map(|(place, spread)| (*place, spread.median));
    chart
        .draw_series(LineSeries::new(medians, colour.stroke_width(2)))
        .map_err(drawing)?
        .label(title)
        .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
    ranges(chart, points, colour)
}

/// `which` of how many bars of a place.
fn bars(
    chart: &mut Chart<'_>,
    title: &str,
    points: &[(f64, Spread)],
    colour: RGBColor,
    (which, count): (usize, usize),
) -> Result<()> {
    let width = BARS / count as f64;
    let left = |place: f64| place - BARS / 2.0 + width * which as f64;
    let shapes = points.iter().map(|(place, spread)| {
        let corners = [(left(*place), 0.0), (left(*place) + width * 0.9, spread.median)];
        Rectangle::new(corners, colour.mix(0.5).filled())
    });
    chart
        .draw_series(shapes)
        .map_err(drawing)?
        .label(title)
        .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 16, y + 4)], colour.mix(0.5).filled()));
    let middles: Vec<(f64, Spread)> = points
        .iter()
        .map(|(place, spread)| (left(*place) + width * 0.45, *spread))
        .collect();
    ranges(chart, &middles, colour)
}

fn ranges(chart: &mut Chart<'_>, points: &[(f64, Spread)], colour: RGBColor) -> Result<()> {
    let bars = points.iter().map(|(place, spread)| {
        ErrorBar::new_vertical(*place, spread.min, spread.median, spread.max, colour.filled(), 8)
    });
    chart.draw_series(bars).map_err(drawing)?;
    Ok(())
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
    fn a_picture_has_every_series_place_and_title() {
        for shape in [Shape::Lines, Shape::Bars] {
            let series = |title, factor| Series {
                title,
                points: vec![Some(spread(100.0 * factor)), None, Some(spread(10.0 * factor))],
            };
            let panel = Panel {
                title: "user: 64-byte UDP".into(),
                below: "more networks",
                places: ["0", "100", "500"].map(str::to_owned).to_vec(),
                shape,
                series: vec![series("kernel", 1.0), series("netfast", 2.0)],
            };
            let mut file = tempfile().expect("a file");
            write(file.try_clone().expect("a file"), &[panel]).expect("drawn");
            file.rewind().expect("rewound");
            let svg = std::io::read_to_string(file).expect("read");
            for word in [
                "<svg",
                "user: 64-byte UDP",
                "more networks",
                "kernel",
                "netfast",
                "100",
                "500",
            ] {
                assert!(svg.contains(word), "no {word} in {svg}");
            }
        }
    }

    #[test]
    fn nothing_is_not_drawn() {
        assert!(write(tempfile().expect("a file"), &[]).is_err());
    }
}
