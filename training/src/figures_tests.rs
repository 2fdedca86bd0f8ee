//! Tests of [`super`]: what a drawn file holds, element by element.

use super::*;

/// Draws into a folder that goes away and returns the text of the file.
fn drawn(draw: impl FnOnce(&Path) -> Result<()>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/figure.svg");
    draw(&path).unwrap();
    std::fs::read_to_string(path).unwrap()
}

/// The values of an attribute over all elements of a kind that hold `mark`.
fn attribute(svg: &str, element: &str, mark: &str, name: &str) -> Vec<f64> {
    let of = |line: &str| {
        line.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split('"').next()?.parse().ok())
    };
    svg.lines()
        .filter(|l| l.starts_with(&format!("<{element} ")) && l.contains(mark))
        .filter_map(of)
        .collect()
}

fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

fn series(name: &str, values: &[(f64, f64, f64)]) -> Series {
    let points = values.iter().enumerate().map(|(x, v)| (x as f64, v.0, v.1, v.2)).collect();
    Series { name: name.into(), points }
}

#[test]
fn lines_have_names_dots_and_a_band_where_an_interval_is_known() {
    let two = [
        series("a < b & c", &[(1.0, 0.5, 1.5), (2.0, 1.0, 3.0), (1.5, 1.0, 2.0)]),
        series("plain", &[(1.0, 1.0, 1.0); 3]),
    ];
    let svg = drawn(|path| lines(path, "Mass & place", "frame", "share (%)", &two));
    for text in ["Mass &amp; place", "a &lt; b &amp; c", "plain", "frame", "share (%)"] {
        assert!(svg.contains(text), "{text} is missing");
    }
    assert_eq!(svg.matches("<polygon").count(), 1);
    assert_eq!(attribute(&svg, "circle", &hex(COLORS[0]), "cx").len(), 3);
    // Twice the value stands higher, and equal values stand level.
    let level = attribute(&svg, "circle", &hex(COLORS[1]), "cy");
    let steps = attribute(&svg, "circle", &hex(COLORS[0]), "cy");
    assert!(level.iter().all(|y| *y == level[0]) && steps[1] < steps[2] && steps[2] < steps[0]);
    assert_eq!(level[0], steps[0]);
    let alone = drawn(|path| lines(path, "", "x", "y", &[series("", &[(1.0, 1.0, 1.0)])]));
    assert_eq!(attribute(&alone, "circle", "", "cx").len(), 1);
}

#[test]
fn bars_are_as_high_as_their_values_and_whiskers_reach_their_ends() {
    let bar = |name: &str, value: f64, low, high| Bar { name: name.into(), value, low, high };
    let three = [
        bar("half of it all in words", 0.5, 0.4, 0.6),
        bar("one", 1.0, 0.8, 1.2),
        bar("none", 0.25, 0.25, 0.25),
    ];
    let svg = drawn(|path| bars(path, "Shares", "share", &three));
    let heights = attribute(&svg, "rect", &hex(COLORS[0]), "height");
    assert_eq!(heights.len(), 3);
    assert!(
        (heights[1] / heights[0] - 2.0).abs() < 0.02 && (heights[0] / heights[2] - 2.0).abs() < 0.02,
        "{heights:?}"
    );
    // The first whisker is as long as the bar's value times (high - low) / value.
    let ends: Vec<f64> = (svg
        .lines()
        .filter(|l| l.starts_with("<polyline") && l.contains("stroke-width=\"2\"")))
    .filter_map(|l| l.split_once("points=\"")?.1.split_once('"').map(|(points, _)| points.to_string()))
    .map(|points| {
        let y: Vec<f64> =
            points.split_whitespace().filter_map(|p| p.split_once(',')?.1.parse().ok()).collect();
        (y[0] - y[1]).abs()
    })
    .collect();
    assert_eq!(ends.len(), 6, "three strokes for each known interval");
    assert!(
        (ends[0] / heights[0] - 0.4).abs() < 0.02 && (ends[3] / heights[1] - 0.4).abs() < 0.02,
        "{ends:?}"
    );
    assert_eq!(wrap("half of it all in words", 10), ["half of it", "all in", "words"]);
}

#[test]
fn a_regression_has_a_band_that_is_narrowest_in_the_middle() {
    let noisy = [(0.0, 0.1), (1.0, 0.8), (2.0, 2.2), (3.0, 2.9), (4.0, 4.0)];
    let band = band(&noisy, (1.0, 0.0), &(0.0..4.0));
    let width = |i: usize| band[i].3 - band[i].2;
    assert!(width(20) > 0.0 && width(0) > width(20) && (width(0) - width(40)).abs() < 1e-9);
    // By hand: residuals 0.1, -0.2, 0.2, -0.1, 0; s² = 0.1 / 3; the half width at the mean is t(3) s / sqrt(5).
    assert!((width(20) / 2.0 - 3.182 * (0.1f64 / 3.0).sqrt() / 5f64.sqrt()).abs() < 1e-3);
    let svg = drawn(|path| scatter(path, "Both", "x (s)", "y (s)", &noisy, Some((1.0, 0.0))));
    assert_eq!((svg.matches("<circle").count(), svg.matches("<polygon").count()), (5, 1));
    let bare = drawn(|path| scatter(path, "Both", "x", "y", &noisy, None));
    assert_eq!((bare.matches("<circle").count(), bare.matches("<polygon").count()), (5, 0));
    assert!(super::band(&noisy[..2], (1.0, 0.0), &(0.0..1.0)).iter().all(|b| b.2 == b.3));
}

#[test]
fn heat_maps_count_rows_from_below_and_show_the_most_brightest() {
    let rows = [vec![0.0, 1.0, 0.5], vec![0.25, 0.0, 0.0]];
    let svg = drawn(|path| heat(path, "Where", "frame", "layer", &rows));
    let most = format!("fill=\"{}\"", hex(shade(1.0)));
    let (x, y) = (attribute(&svg, "rect", &most, "x"), attribute(&svg, "rect", &most, "y"));
    assert_eq!(x.len(), 1, "one cell has the most");
    let quarter = format!("fill=\"{}\"", hex(shade(0.25)));
    let above = attribute(&svg, "rect", &quarter, "y");
    assert!(above[0] < y[0] && attribute(&svg, "rect", &quarter, "x")[0] < x[0]);
    assert_eq!(shade(0.0), RGBColor(68, 1, 84));
    assert!(heat(Path::new("no.svg"), "", "", "", &[vec![1.0], vec![]]).is_err());
    // All the same is a picture, too.
    drawn(|path| heat(path, "", "", "", &[vec![0.0; 2]]));
}

#[test]
fn what_cannot_be_drawn_is_refused_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("figure.svg");
    let error = lines(&path, "", "", "", &[series("a", &[(f64::NAN, 0.0, 0.0)])]).unwrap_err().to_string();
    assert!(error.contains("figure.svg") && error.contains("NaN"), "{error}");
    assert!(bars(&path, "", "", &[]).unwrap_err().to_string().contains("nothing to draw"));
    assert!(!path.exists());
}

#[test]
fn numbers_on_axes_are_short() {
    let values = [0.0, -0.0, 1e-17, 2.0, 0.125, -3.5, 1e-5, 2.5e7];
    assert_eq!(values.map(short), ["0", "0", "0", "2", "0.125", "-3.5", "1.0e-5", "2.5e7"]);
}
