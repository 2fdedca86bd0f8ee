//! Figures: lines with bands, bars with whiskers, scatter with its regression, heat maps.
//!
//! Comes in: numbers with the ends of their intervals, a title, axis labels with units. Goes out: an SVG file, whole or not at all; text stays text,
//! in whatever sans-serif font the reader has. Axes and colours follow the data; an interval that is not known is given as the value itself and is not
//! drawn. No statistics but the band around a regression line, and no files of numbers: those are the callers'.

use crate::files::write_atomic;
use crate::stats::student;
use anyhow::{Context, Result, ensure};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;
use std::path::Path;

/// Pixels across and down.
const SIZE: (u32, u32) = (900, 480);
/// Height of a line of text in pixels.
const LINE: i32 = 18;
/// About the width of a letter in pixels.
const LETTER: i32 = 8;
/// Lines with more points than this show none of them.
const DOTS: usize = 64;
/// Colours that stay apart for the colour-blind (Okabe and Ito, 2008).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
/// Anchors of a scale from little to much, evenly spaced (viridis).
const SCALE: [[f64; 3]; 5] =
    [[68.0, 1.0, 84.0], [59.0, 82.0, 139.0], [33.0, 145.0, 140.0], [94.0, 201.0, 98.0], [253.0, 231.0, 37.0]];

/// A part of a page.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A line with the interval around each of its points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Named in the legend.
    pub name: String,
    /// Place, value, low end and high end of the value's interval; in the order they are joined.
    pub points: Vec<(f64, f64, f64, f64)>,
}

/// A bar with its interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bar {
    /// Stands below it; broken at spaces where it is too long.
    pub name: String,
    /// Its height.
    pub value: f64,
    /// Low end of the interval.
    pub low: f64,
    /// High end.
    pub high: f64,
}

/// Draws lines, each with a band from the low to the high ends.
///
/// # Errors
/// Nothing to draw, a number that is not finite, an unwritable file.
pub fn lines(path: &Path, title: &str, x_label: &str, y_label: &str, series: &[Series]) -> Result<()> {
    let points = || series.iter().flat_map(|s| &s.points);
    let x = span(path, points().map(|p| p.0), 0.0)?;
    let y = span(path, points().flat_map(|p| [p.1, p.2, p.3]), 0.05)?;
    draw(path, title, |area| {
        let names: Vec<&str> = series.iter().map(|s| s.name.as_str()).collect();
        let mut chart = axes(&legend(area, &names)?, [x, y], [x_label, y_label])?;
        for (series, color) in series.iter().zip(COLORS.iter().cycle()) {
            let upper = series.points.iter().map(|p| (p.0, p.3));
            let band = upper.chain(series.points.iter().rev().map(|p| (p.0, p.2))).collect::<Vec<_>>();
            if series.points.iter().any(|p| p.2 < p.3) {
                chart.draw_series([Polygon::new(band, color.mix(0.2))])?;
            }
            let line = || series.points.iter().map(|p| (p.0, p.1));
            chart.draw_series(LineSeries::new(line(), color.stroke_width(2)))?;
            if series.points.len() <= DOTS {
                chart.draw_series(line().map(|point| Circle::new(point, 3, color.filled())))?;
            }
        }
        Ok(())
    })
}

/// Draws bars from zero, each with a whisker from its low to its high end.
///
/// # Errors
/// Nothing to draw, a number that is not finite, an unwritable file.
pub fn bars(path: &Path, title: &str, y_label: &str, bars: &[Bar]) -> Result<()> {
    let mut y = span(path, bars.iter().flat_map(|b| [b.value, b.low, b.high]), 0.05)?;
    y = y.start.min(0.0)..y.end.max(0.0);
    let room = (SIZE.0 as i32 - 100) / LETTER / bars.len().max(1) as i32;
    let names: Vec<Vec<String>> = bars.iter().map(|b| wrap(&b.name, room.max(1) as usize)).collect();
    let below = names.iter().map(Vec::len).max().unwrap_or(1) as i32 * LINE + 12;
    draw(path, title, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(below)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..bars.len() as f64, y.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_desc(y_label)
            .y_label_formatter(&|y| short(*y))
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 15))
            .draw()?;
        for (place, (bar, names)) in bars.iter().zip(&names).enumerate() {
            let (left, middle) = (place as f64, place as f64 + 0.5);
            let corners = [(left + 0.15, 0.0), (left + 0.85, bar.value)];
            chart.draw_series([Rectangle::new(corners, COLORS[0].mix(0.75).filled())])?;
            if bar.low < bar.high {
                let ends = [bar.low, bar.high].map(|y| [(middle - 0.07, y), (middle + 0.07, y)]);
                let whisker = [[(middle, bar.low), (middle, bar.high)], ends[0], ends[1]];
                chart.draw_series(whisker.map(|line| PathElement::new(line, BLACK.stroke_width(2))))?;
            }
            for (line, name) in names.iter().enumerate() {
                let style = ("sans-serif", 15).into_text_style(area).pos(Pos::new(HPos::Center, VPos::Top));
                let text = Text::new(name.clone(), (0, 6 + LINE * line as i32), style);
                chart.plotting_area().draw(&(EmptyElement::at((middle, y.start)) + text))?;
            }
        }
        Ok(())
    })
}

/// Draws points and, where `line` gives slope and intercept of their regression, the line with the 95 % interval of its mean.
///
/// # Errors
/// Nothing to draw, a number that is not finite, an unwritable file.
pub fn scatter(
    path: &Path,
    title: &str,
    x_label: &str,
    y_label: &str,
    points: &[(f64, f64)],
    line: Option<(f64, f64)>,
) -> Result<()> {
    let x = span(path, points.iter().map(|p| p.0), 0.05)?;
    let band = line.map(|line| band(points, line, &x)).unwrap_or_default();
    let drawn = band.iter().flat_map(|b| [b.1, b.2, b.3]);
    let y = span(path, points.iter().map(|p| p.1).chain(drawn), 0.05)?;
    draw(path, title, |area| {
        let mut chart = axes(area, [x, y], [x_label, y_label])?;
        if band.iter().any(|b| b.2 < b.3) {
            let edge = band.iter().map(|b| (b.0, b.3)).chain(band.iter().rev().map(|b| (b.0, b.2)));
            chart.draw_series([Polygon::new(edge.collect::<Vec<_>>(), COLORS[1].mix(0.2))])?;
        }
        chart.draw_series(LineSeries::new(band.iter().map(|b| (b.0, b.1)), COLORS[1].stroke_width(2)))?;
        chart.draw_series(points.iter().map(|p| Circle::new(*p, 4, COLORS[0].mix(0.8).filled())))?;
        Ok(())
    })
}

/// Place, value, low and high end of a regression's mean over `x`; without an interval where fewer than three points leave none.
fn band(points: &[(f64, f64)], line: (f64, f64), x: &Range<f64>) -> Vec<(f64, f64, f64, f64)> {
    let at = |x: f64| line.0 * x + line.1;
    let n = points.len() as f64;
    let mean = points.iter().map(|p| p.0).sum::<f64>() / n;
    let spread: f64 = points.iter().map(|p| (p.0 - mean).powi(2)).sum();
    let left: f64 = points.iter().map(|p| (p.1 - at(p.0)).powi(2)).sum();
    let known = points.len() > 2 && spread > 0.0;
    let error = if known { student(points.len() - 2) * (left / (n - 2.0)).sqrt() } else { 0.0 };
    let steps = (0..=40).map(|i| x.start + (x.end - x.start) * f64::from(i) / 40.0);
    let point = |x: f64| {
        let half = if known { error * (1.0 / n + (x - mean).powi(2) / spread).sqrt() } else { 0.0 };
        (x, at(x), at(x) - half, at(x) + half)
    };
    steps.map(point).collect()
}

/// Draws a table of values as colours, from dark (zero, or the least where some are negative) to light (the most): `rows[0]` at the bottom, rows and
/// columns counted from 0.
///
/// # Errors
/// Rows of different lengths, nothing to draw, a number that is not finite, an unwritable file.
pub fn heat(path: &Path, title: &str, x_label: &str, y_label: &str, rows: &[Vec<f64>]) -> Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    ensure!(
        rows.iter().all(|row| row.len() == columns),
        "drawing {}: rows of a heat map differ in length",
        path.display()
    );
    let values =
        span(path, rows.iter().flatten().copied().chain(rows.iter().flatten().next().map(|_| 0.0)), 0.0)?;
    draw(path, title, |area| {
        let (main, side) = area.split_horizontally(SIZE.0 as i32 - 120);
        let range = [columns, rows.len()].map(|n| -0.5..n as f64 - 0.5);
        let mut chart = axes(&main, range, [x_label, y_label])?;
        for (y, row) in rows.iter().enumerate() {
            let cell = |(x, value): (usize, &f64)| {
                let (x, y) = (x as f64, y as f64);
                let share = (value - values.start) / (values.end - values.start);
                Rectangle::new([(x - 0.5, y - 0.5), (x + 0.5, y + 0.5)], shade(share).filled())
            };
            chart.draw_series(row.iter().enumerate().map(cell))?;
        }
        scale(&side, values.clone())
    })
}

/// The scale beside a heat map.
fn scale(area: &Area, values: Range<f64>) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_bottom(62)
        .right_y_label_area_size(64)
        .build_cartesian_2d(0.0..1.0, values.clone())?;
    let step = (values.end - values.start) / 100.0;
    let strip = |i: i32| {
        let low = values.start + step * f64::from(i);
        Rectangle::new([(0.0, low), (1.0, low + step)], shade((f64::from(i) + 0.5) / 100.0).filled())
    };
    chart.draw_series((0..100).map(strip))?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(0)
        .y_labels(5)
        .y_label_formatter(&|y| short(*y))
        .label_style(("sans-serif", 15))
        .draw()?;
    Ok(())
}

/// The colour of a share from 0 to 1.
fn shade(share: f64) -> RGBColor {
    let place = share.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let from = (place as usize).min(SCALE.len() - 2);
    let mix = |c: usize| {
        let (a, b) = (SCALE[from][c], SCALE[from + 1][c]);
        (a + (b - a) * (place - from as f64)).round() as u8
    };
    RGBColor(mix(0), mix(1), mix(2))
}

/// Fills a page below its title and writes it: for charts that are none of the above.
///
/// # Errors
/// Whatever `fill` reports; an unwritable file.
pub fn draw(path: &Path, title: &str, fill: impl FnOnce(&Area) -> Result<()>) -> Result<()> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        fill(&root.titled(title, ("sans-serif", 20))?)?;
        root.present()?;
    }
    write_atomic(path, |out| out.write_all(svg.as_bytes())).context("writing a figure")
}

/// A frame with both axes.
fn axes<'a>(area: &Area<'a>, [x, y]: [Range<f64>; 2], [x_label, y_label]: [&str; 2]) -> Result<Chart<'a>> {
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(50)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(x_label)
        .y_desc(y_label)
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| short(*y))
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 15))
        .draw()?;
    Ok(chart)
}

/// Names with their colours above a chart, and what is left for it. One line that has no name needs none.
fn legend<'a>(area: &Area<'a>, names: &[&str]) -> Result<Area<'a>> {
    if names.iter().all(|name| name.is_empty()) {
        return Ok(area.clone());
    }
    let (left, right) = (84, area.dim_in_pixel().0 as i32);
    let (mut x, mut y) = (left, 6);
    let places: Vec<(i32, i32)> = (names.iter())
        .map(|name| {
            let width = 40 + LETTER * name.chars().count() as i32;
            if x > left && x + width > right {
                (x, y) = (left, y + LINE);
            }
            x += width;
            (x - width, y)
        })
        .collect();
    let (top, rest) = area.split_vertically(y + LINE);
    for ((name, (x, y)), color) in names.iter().zip(places).zip(COLORS.iter().cycle()) {
        top.draw(&Rectangle::new([(x, y + 4), (x + 18, y + 10)], color.filled()))?;
        top.draw(&Text::new(name.to_string(), (x + 24, y), ("sans-serif", 15)))?;
    }
    Ok(rest)
}

/// From the least to the most, with a margin as a share of that; from zero where zero is near.
fn span(path: &Path, values: impl Iterator<Item = f64>, margin: f64) -> Result<Range<f64>> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        ensure!(value.is_finite(), "drawing {}: {value} has no place on an axis", path.display());
        (low, high) = (low.min(value), high.max(value));
    }
    ensure!(low <= high, "drawing {}: there is nothing to draw", path.display());
    let room = if high > low { (high - low) * margin } else { 0.5 };
    match margin > 0.0 && low >= 0.0 && low <= high - low {
        true => Ok(0.0..high + room),
        false if high > low || low != 0.0 => Ok(low - room..high + room),
        false => Ok(0.0..1.0),
    }
}

/// A number for an axis.
fn short(value: f64) -> String {
    match value.abs() {
        size if size < 1e-9 => "0".into(),
        1e-3..1e6 => format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').into(),
        _ => format!("{value:.1e}"),
    }
}

/// Lines of at most `room` letters, broken at spaces; a longer word keeps a line to itself.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                *line += &format!(" {word}")
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
#[path = "figures_tests.rs"]
mod tests;
