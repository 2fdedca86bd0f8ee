//! Names of colours.
//!
//! Comes in: RGB. Goes out: one of eleven words by hue, saturation and value. Surfaces and light are not told apart.

/// The name of a colour by hue, saturation and value.
pub fn colour_word(rgb: [u8; 3]) -> &'static str {
    let [r, g, b] = rgb.map(f32::from);
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let (value, saturation) = (max / 255.0, if max > 0.0 { (max - min) / max } else { 0.0 });
    if value < 0.16 {
        return "black";
    }
    if saturation < 0.22 {
        return if value > 0.8 { "white" } else { "grey" };
    }
    let span = max - min;
    let hue = if max == r {
        60.0 * ((g - b) / span).rem_euclid(6.0)
    } else if max == g {
        60.0 * ((b - r) / span + 2.0)
    } else {
        60.0 * ((r - g) / span + 4.0)
    };
    match hue {
        h if !(14.0..346.0).contains(&h) => "red",
        h if h < 42.0 => {
            if value < 0.6 {
                "brown"
            } else {
                "orange"
            }
        }
        h if h < 72.0 => "yellow",
        h if h < 165.0 => "green",
        h if h < 200.0 => "cyan",
        h if h < 258.0 => "blue",
        h if h < 300.0 => "purple",
        _ => "pink",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_have_their_names() {
        for (rgb, word) in [
            ([220, 40, 40], "red"),
            ([240, 150, 30], "orange"),
            ([240, 220, 60], "yellow"),
            ([60, 180, 80], "green"),
            ([60, 90, 220], "blue"),
            ([150, 60, 200], "purple"),
            ([250, 250, 250], "white"),
            ([90, 90, 95], "grey"),
            ([10, 12, 9], "black"),
        ] {
            assert_eq!(colour_word(rgb), word, "{rgb:?}");
        }
    }
}
