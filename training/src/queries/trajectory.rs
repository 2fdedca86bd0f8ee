//! Trajectory text: one object's boxes through time, as the model reads and writes them.
//!
//! `name<id1>frame1:[x1,y1,x2,y2];frame5:[...]</id1>`, integers 0 to 1000 per axis, absent frames left out
//! (reference.md §7). Coordinates may be rounded to a grid, so that a small vocabulary holds each as one token.
//! Formatting and parsing only; which frames are listed is the caller's choice.

use utr_models::{Error, Result};

/// A box in thousandths of the frame's width and height: left, top, right, bottom.
pub type GridBox = [u16; 4];

/// One object's listed boxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trajectory {
    /// What the object is called; free text without `<` and without a line break.
    pub name: String,
    /// The number in `<id1>`.
    pub id: u32,
    /// Frame number (from 1) and box, in frame order.
    pub points: Vec<(u32, GridBox)>,
}

/// A coordinate in `[0, extent]` pixels as thousandths on a grid: truncated for grid 1 (as Merlin's code does),
/// else the nearest multiple of `grid`. Values outside the frame are clamped to it.
pub fn quantize(pixels: f32, extent: u32, grid: u16) -> u16 {
    let thousandths = (pixels / extent.max(1) as f32 * 1000.0).clamp(0.0, 1000.0);
    if grid <= 1 {
        return thousandths as u16;
    }
    let steps = (thousandths / f32::from(grid) + 0.5) as u16;
    (steps * grid).min(1000 / grid * grid)
}

/// A pixel box on the grid, see [`quantize`].
pub fn quantize_box(xyxy: [f32; 4], width: u32, height: u32, grid: u16) -> GridBox {
    let [x1, y1, x2, y2] = xyxy;
    [
        quantize(x1, width, grid),
        quantize(y1, height, grid),
        quantize(x2, width, grid),
        quantize(y2, height, grid),
    ]
}

/// `[x1,y1,x2,y2]`.
pub fn format_box(b: &GridBox) -> String {
    let [x1, y1, x2, y2] = b;
    format!("[{x1},{y1},{x2},{y2}]")
}

impl std::fmt::Display for Trajectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}<id{}>", self.name, self.id)?;
        for (i, (frame, b)) in self.points.iter().enumerate() {
            let separator = if i == 0 { "" } else { ";" };
            write!(f, "{separator}frame{frame}:{}", format_box(b))?;
        }
        write!(f, "</id{}>", self.id)
    }
}

impl std::str::FromStr for Trajectory {
    type Err = Error;

    /// Reads one trajectory; spaces around numbers and separators are allowed, as published examples vary.
    fn from_str(text: &str) -> Result<Self> {
        let (trajectory, rest) = take(text)?;
        if !rest.trim().is_empty() {
            return Err(malformed(text, "nothing after the closing tag", rest));
        }
        Ok(trajectory)
    }
}

/// Every trajectory in a reply, in order; text between them is skipped.
///
/// # Errors
/// The first `<idN>` that is not closed or holds something else than `frameN:[..]` items.
pub fn parse_all(reply: &str) -> Result<Vec<Trajectory>> {
    let mut found = Vec::new();
    let mut rest = reply;
    while rest.contains("<id") {
        let (mut trajectory, after) = take(rest)?;
        // The name is the tail of the text before the tag: whatever follows the last sentence end or comma.
        let name = trajectory.name.rsplit(['.', ',', ';', ':', '\n']).next().unwrap_or("").trim();
        trajectory.name = name.to_owned();
        found.push(trajectory);
        rest = after;
    }
    Ok(found)
}

/// The first trajectory of `text` and what follows it.
fn take(text: &str) -> Result<(Trajectory, &str)> {
    let (name, tail) = text.split_once("<id").ok_or_else(|| malformed(text, "a tag such as <id1>", text))?;
    let (id, tail) = tail.split_once('>').ok_or_else(|| malformed(text, "`>` after <id", tail))?;
    let id: u32 = id.trim().parse().map_err(|_| malformed(text, "a number in <id>", id))?;
    let close = format!("</id{id}>");
    let (body, rest) =
        tail.split_once(&close).ok_or_else(|| malformed(text, &format!("the closing tag {close}"), tail))?;
    let items = body.split(';').map(str::trim).filter(|item| !item.is_empty());
    let points = items.map(|item| point(text, item)).collect::<Result<Vec<_>>>()?;
    Ok((Trajectory { name: name.to_owned(), id, points }, rest))
}

fn point(text: &str, item: &str) -> Result<(u32, GridBox)> {
    let fail = || malformed(text, "an item such as frame1:[0,0,500,500]", item);
    let (frame, b) = item.strip_prefix("frame").and_then(|s| s.split_once(':')).ok_or_else(fail)?;
    let frame = frame.trim().parse().map_err(|_| fail())?;
    let inner = b.trim().strip_prefix('[').and_then(|s| s.strip_suffix(']')).ok_or_else(fail)?;
    let numbers: Vec<u16> =
        inner.split(',').map(|n| n.trim().parse().map_err(|_| fail())).collect::<Result<_>>()?;
    let b: GridBox = numbers.try_into().map_err(|_| fail())?;
    if b.iter().any(|&v| v > 1000) { Err(fail()) } else { Ok((frame, b)) }
}

fn malformed(text: &str, wanted: &str, found: &str) -> Error {
    let short = |s: &str| s.chars().take(80).collect::<String>();
    Error::Argument(format!("trajectory {:?}: expected {wanted}, found {:?}", short(text), short(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_form_is_produced() {
        let t = Trajectory {
            name: "ball".into(),
            id: 1,
            points: vec![(1, [0, 20, 40, 60]), (5, [100, 120, 980, 1000])],
        };
        assert_eq!(t.to_string(), "ball<id1>frame1:[0,20,40,60];frame5:[100,120,980,1000]</id1>");
    }

    #[test]
    fn trajectories_are_found_inside_a_sentence() {
        let reply =
            "Two. red ball<id1>frame1:[0,0,1,1]</id1> moves left, box <id2>frame2:[1, 2, 3, 4];</id2>.";
        let found = parse_all(reply).unwrap();
        let names: Vec<&str> = found.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["red ball", "box"]);
        assert_eq!(found[1].points, vec![(2, [1, 2, 3, 4])]);
    }

    #[test]
    fn broken_text_is_refused_with_what_was_expected() {
        for (text, expected) in [
            ("ball<id1>frame1:[0,0,1,1]", "</id1>"),
            ("ball<id1>frame1:[0,0,1]</id1>", "an item such as"),
            ("ball<id1>frame1:[0,0,1,1001]</id1>", "an item such as"),
            ("ball", "a tag such as <id1>"),
        ] {
            let message = text.parse::<Trajectory>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}

#[cfg(test)]
mod properties {
    use proptest::prelude::*;

    use super::*;

    fn any_trajectory(grid: u16) -> impl Strategy<Value = Trajectory> {
        let value = move || (0..=1000 / grid).prop_map(move |v| v * grid);
        let item = (value(), value(), value(), value()).prop_map(|(a, b, c, d)| [a, b, c, d]);
        let points = prop::collection::btree_map(1u32..64, item, 0..12);
        ("[a-z ]{0,16}", 1u32..9, points).prop_map(|(name, id, points)| Trajectory {
            name,
            id,
            points: points.into_iter().collect(),
        })
    }

    proptest! {
        #[test]
        fn text_reads_back_as_the_trajectory(t in prop_oneof![any_trajectory(1), any_trajectory(20)]) {
            prop_assert_eq!(t.to_string().parse::<Trajectory>().unwrap(), t);
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "(frame|<id1>|</id1>|[0-9\\[\\],;:<> a-z]){0,40}") {
            let _ = parse_all(&text);
        }

        #[test]
        fn quantized_values_stay_on_the_grid_and_near(v in -5.0f32..70.0, grid in prop_oneof![Just(1u16), Just(20)]) {
            let q = quantize(v, 64, grid);
            prop_assert!(q <= 1000 && q.is_multiple_of(grid));
            let exact = (v / 64.0 * 1000.0).clamp(0.0, 1000.0);
            prop_assert!((f32::from(q) - exact).abs() <= f32::from(grid.max(2)) / 2.0 + 1e-2);
        }
    }
}
