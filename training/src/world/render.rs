//! Pixels of a clip, drawn with tiny-skia on its scalar path so that every machine draws the same bytes.
//!
//! In: a [`Script`], a size in pixels and played times. Out: square [`RgbFrame`]s. [`Renderer`] keeps backdrop and canvas
//! between the frames of a clip. The backdrop follows the camera by whole pixels, objects by fractions. Asks and decides nothing.

use tiny_skia::{
    FillRule, GradientStop, LinearGradient, Paint, Path, PathBuilder, Pixmap, Point, Rect, Shader,
    SpreadMode, Transform,
};
use utr_models::RgbFrame;

use super::backdrop;
use super::motion::{ObjectState, camera_offset, state_at};
use super::script::{ObjectSpec, STEPS, Script, Texture};
use super::shape::{Outline, dots, outline, polar};

/// Colours of a bar and of its edge.
const BAR: [[u8; 3]; 2] = [[122, 112, 100], [92, 84, 76]];

/// Draws the frames of one clip.
pub struct Renderer<'a> {
    script: &'a Script,
    size: u32,
    margin: u32,
    backdrop: Vec<u8>,
    canvas: Pixmap,
    order: Vec<usize>,
}

impl<'a> Renderer<'a> {
    /// Prepares frames of `size` x `size` pixels (at least 8, at most 4096).
    pub fn new(script: &'a Script, size: u32) -> Self {
        let size = size.clamp(8, 4096);
        let margin = size / 20 + 1;
        let mut order: Vec<usize> = (0..script.objects.len()).collect();
        order.sort_by_key(|&i| script.objects[i].depth);
        Self {
            script,
            size,
            margin,
            backdrop: backdrop::paint(&script.backdrop, size, size + 2 * margin),
            canvas: Pixmap::new(size, size).expect("a size between 8 and 4096 is always valid"),
            order,
        }
    }

    /// The frame at played time `t` in steps.
    pub fn frame(&mut self, t: f32) -> RgbFrame {
        self.draw(t, None, true)
    }

    /// The frame at played time `t` with only object `index`, nothing in front of it (for checks and inspection).
    pub fn frame_of(&mut self, index: usize, t: f32) -> RgbFrame {
        self.draw(t, Some(index), false)
    }

    fn draw(&mut self, t: f32, only: Option<usize>, bars: bool) -> RgbFrame {
        let states = state_at(self.script, t);
        let shift = camera_offset(self.script, self.script.base_time(t));
        self.copy_backdrop(shift);
        for position in 0..self.order.len() {
            let index = self.order[position];
            if only.is_none_or(|o| o == index) && states[index].present {
                self.draw_object(&self.script.objects[index], &states[index]);
            }
        }
        if bars {
            self.draw_bars(shift);
        }
        let data = self.canvas.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
        RgbFrame { width: self.size as usize, height: self.size as usize, data }
    }

    fn copy_backdrop(&mut self, shift: [f32; 2]) {
        let (size, margin) = (self.size as usize, self.margin as i32);
        let side = size + 2 * self.margin as usize;
        let offset = shift.map(|v| {
            let pixels = libm::floorf(v * self.size as f32 + 0.5) as i32;
            (margin - pixels).clamp(0, 2 * margin) as usize
        });
        for (row, line) in self.canvas.data_mut().chunks_exact_mut(size * 4).enumerate() {
            let from = ((row + offset[1]) * side + offset[0]) * 4;
            line.copy_from_slice(&self.backdrop[from..from + size * 4]);
        }
    }

    fn draw_object(&mut self, object: &ObjectSpec, state: &ObjectState) {
        let scale = self.size as f32;
        let centre = state.centre.map(|v| v * scale);
        let half = state.half * scale;
        let reach = 2.0 * half;
        if centre.iter().any(|&v| v < -reach || v > scale + reach) {
            return;
        }
        if state.flash
            && let Some(halo) = PathBuilder::from_circle(centre[0], centre[1], half * 1.55)
        {
            self.fill(&halo, Shader::SolidColor(tiny_skia::Color::from_rgba8(255, 255, 255, 130)));
        }
        let Some(path) = path_of(&outline(object.category, centre, half, state.angle)) else { return };
        let shader = match object.texture {
            Texture::Striped => stripes(state.rgb, centre, half, state.angle),
            _ => solid(state.rgb),
        };
        self.fill(&path, shader);
        if object.texture == Texture::Dotted {
            let mut spots = PathBuilder::new();
            for [x, y] in dots(object.category) {
                let [cos, sin] = polar([0.0, 0.0], 1.0, state.angle);
                let (px, py) =
                    (centre[0] + half * (x * cos - y * sin), centre[1] + half * (x * sin + y * cos));
                spots.push_circle(px, py, half * 0.2);
            }
            if let Some(path) = spots.finish() {
                self.fill(&path, solid(darker(state.rgb)));
            }
        }
    }

    fn draw_bars(&mut self, shift: [f32; 2]) {
        let scale = self.size as f32;
        for index in 0..self.script.occluders.len() {
            let bar = self.script.occluders[index];
            let middle = (bar.centre + shift[if bar.vertical { 0 } else { 1 }]) * scale;
            for (half, rgb) in [(bar.half, BAR[1]), (bar.half * 0.7, BAR[0])] {
                let (from, to) = (middle - half * scale, middle + half * scale);
                let rect = if bar.vertical {
                    Rect::from_ltrb(from, 0.0, to, scale)
                } else {
                    Rect::from_ltrb(0.0, from, scale, to)
                };
                if let Some(rect) = rect {
                    self.fill(&PathBuilder::from_rect(rect), solid(rgb));
                }
            }
        }
    }

    fn fill(&mut self, path: &Path, shader: Shader<'_>) {
        let paint = Paint { shader, anti_alias: true, ..Paint::default() };
        self.canvas.fill_path(path, &paint, FillRule::EvenOdd, Transform::identity(), None);
    }
}

fn colour(rgb: [u8; 3]) -> tiny_skia::Color {
    tiny_skia::Color::from_rgba8(rgb[0], rgb[1], rgb[2], 255)
}

fn solid(rgb: [u8; 3]) -> Shader<'static> {
    Shader::SolidColor(colour(rgb))
}

/// The shade of stripes and dots.
fn darker(rgb: [u8; 3]) -> [u8; 3] {
    rgb.map(|v| (v as u32 * 6 / 10) as u8)
}

/// Stripes across the object that turn with it.
fn stripes(rgb: [u8; 3], centre: [f32; 2], half: f32, angle: f32) -> Shader<'static> {
    let [x, y] = polar(centre, half * 0.72, angle);
    let (light, dark) = (colour(rgb), colour(darker(rgb)));
    // Soft edges: hard ones would shimmer under the camera's sway.
    let stops = [(0.0, light), (0.4, light), (0.6, dark), (0.8, dark), (1.0, light)];
    let stops = stops.map(|(at, shade)| GradientStop::new(at, shade)).to_vec();
    let (start, end) = (Point::from_xy(centre[0], centre[1]), Point::from_xy(x, y));
    LinearGradient::new(start, end, stops, SpreadMode::Repeat, Transform::identity())
        .unwrap_or_else(|| solid(rgb))
}

fn path_of(outline: &Outline) -> Option<Path> {
    match outline {
        Outline::Circle([x, y], r) => PathBuilder::from_circle(*x, *y, *r),
        Outline::Ring([x, y], outer, inner) => {
            let mut builder = PathBuilder::new();
            builder.push_circle(*x, *y, *outer);
            builder.push_circle(*x, *y, *inner);
            builder.finish()
        }
        Outline::Polygon(points) => {
            let mut builder = PathBuilder::new();
            for (i, [x, y]) in points.iter().enumerate() {
                if i == 0 { builder.move_to(*x, *y) } else { builder.line_to(*x, *y) }
            }
            builder.close();
            builder.finish()
        }
    }
}

/// One frame of `size` x `size` pixels at played time `t`. For many frames of a clip use [`Renderer`].
pub fn render(script: &Script, t: f32, size: u32) -> RgbFrame {
    Renderer::new(script, size).frame(t)
}

/// All 32 sampled frames at the model's 64 x 64 pixels, enlarged three times, eight to a row, for the eye.
pub fn contact_sheet(script: &Script) -> RgbFrame {
    const SIZE: usize = 64;
    const ZOOM: usize = 3;
    const PITCH: usize = SIZE * ZOOM + 4;
    let (width, height) = (8 * PITCH, STEPS.div_ceil(8) * PITCH);
    let mut data = vec![255u8; width * height * 3];
    let mut renderer = Renderer::new(script, SIZE as u32);
    for step in 0..STEPS {
        let frame = renderer.frame(step as f32);
        let (left, top) = (step % 8 * PITCH + 2, step / 8 * PITCH + 2);
        for y in 0..SIZE * ZOOM {
            for x in 0..SIZE * ZOOM {
                let from = (y / ZOOM * SIZE + x / ZOOM) * 3;
                let to = ((top + y) * width + left + x) * 3;
                data[to..to + 3].copy_from_slice(&frame.data[from..from + 3]);
            }
        }
    }
    RgbFrame { width, height, data }
}
