//! Outlines of the six categories in picture coordinates.
//!
//! In: category, centre, half width and rotation. Out: a circle, a ring or a polygon, and its exact bounding box.
//! Shared by `motion` (boxes) and `render` (pixels), so that the two cannot disagree. Uses `libm` only.

use super::script::Category;

/// How far any outline reaches from its centre, as a multiple of half the width.
pub const REACH: f32 = 1.25;

/// The outline of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Outline {
    /// Centre and radius.
    Circle([f32; 2], f32),
    /// Centre, outer and inner radius.
    Ring([f32; 2], f32, f32),
    /// Corners in order.
    Polygon(Vec<[f32; 2]>),
}

/// The point at `radius` and `degrees` (clockwise from the right) around `centre`.
pub fn polar(centre: [f32; 2], radius: f32, degrees: f32) -> [f32; 2] {
    let angle = degrees * (core::f32::consts::PI / 180.0);
    [centre[0] + radius * libm::cosf(angle), centre[1] + radius * libm::sinf(angle)]
}

/// The outline of `category` with half width `half`, rotated clockwise by `angle` degrees.
pub fn outline(category: Category, centre: [f32; 2], half: f32, angle: f32) -> Outline {
    let turned = |points: &[(f32, f32)]| {
        let (sin, cos) = {
            let a = angle * (core::f32::consts::PI / 180.0);
            (libm::sinf(a), libm::cosf(a))
        };
        let place = |&(x, y): &(f32, f32)| {
            [centre[0] + half * (x * cos - y * sin), centre[1] + half * (x * sin + y * cos)]
        };
        Outline::Polygon(points.iter().map(place).collect())
    };
    match category {
        Category::Ball => Outline::Circle(centre, half),
        Category::Ring => Outline::Ring(centre, half * 1.05, half * 0.55),
        Category::Box => turned(&[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]),
        Category::Triangle => {
            Outline::Polygon([-90.0, 30.0, 150.0].map(|d| polar(centre, half * REACH, d + angle)).to_vec())
        }
        Category::Star => {
            let corner = |i: u32| {
                let radius = if i.is_multiple_of(2) { half * REACH } else { half * 0.55 };
                polar(centre, radius, -90.0 + 36.0 * i as f32 + angle)
            };
            Outline::Polygon((0..10).map(corner).collect())
        }
        Category::Cross => {
            const A: f32 = 0.38;
            turned(&[
                (-A, -1.05),
                (A, -1.05),
                (A, -A),
                (1.05, -A),
                (1.05, A),
                (A, A),
                (A, 1.05),
                (-A, 1.05),
                (-A, A),
                (-1.05, A),
                (-1.05, -A),
                (-A, -A),
            ])
        }
    }
}

impl Outline {
    /// The smallest upright box around it, xyxy.
    pub fn bounds(&self) -> [f32; 4] {
        match self {
            Outline::Circle([x, y], r) | Outline::Ring([x, y], r, _) => [x - r, y - r, x + r, y + r],
            Outline::Polygon(points) => {
                points.iter().fold([f32::MAX, f32::MAX, f32::MIN, f32::MIN], |b, &[x, y]| {
                    [b[0].min(x), b[1].min(y), b[2].max(x), b[3].max(y)]
                })
            }
        }
    }
}

/// Centres (in half widths, unrotated) of the dots of a dotted object; each has radius 0.2.
pub fn dots(category: Category) -> Vec<[f32; 2]> {
    let around = |count: u32, radius: f32, first: f32| -> Vec<[f32; 2]> {
        (0..count).map(|i| polar([0.0, 0.0], radius, first + 360.0 * i as f32 / count as f32)).collect()
    };
    match category {
        Category::Ball | Category::Box => around(4, 0.55, 45.0),
        Category::Ring => around(6, 0.8, 0.0),
        Category::Triangle => around(3, 0.5, -90.0),
        Category::Star => around(5, 0.5, -90.0),
        Category::Cross => around(4, 0.72, 0.0),
    }
}
