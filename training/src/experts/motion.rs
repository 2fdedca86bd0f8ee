//! The motion expert: what differs from the resting scene, without any weights.
//!
//! Comes in: a clip of a camera that stands still (a hand's shake and slow changes of the light are undone). Goes out: the things that move or change, in every frame that shows
//! them, with a colour and a size. A first pass learns the scene of each shot, a second one compares and follows. What never moves nor changes is part of
//! the scene; what rests and moves later, or the other way round, is found throughout. Shots of a travelling camera are left empty.

mod boxes;
mod camera;
mod colour;
mod follow;
mod light;
mod mask;
mod patches;
mod picture;
mod report;
mod rest;
mod scene;
mod shadow;
mod template;

use anyhow::Result;

use super::Expert;
use super::clip::{Clip, Shape};
use crate::tracks::detections::Object;
use camera::Camera;
use follow::{Follower, Still};
use light::Light;
use picture::Picture;
use report::{Scale, report};
use scene::{Sampler, Scene};

/// How the expert looks.
#[derive(Clone, Copy, Debug, PartialEq, clap::Args)]
pub struct MotionParams {
    /// Longer side of the pictures it works on, in pixels
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(32..=2048))]
    pub motion_side: u32,
    /// Least difference from the scene, in grey levels of the channel that differs most
    #[arg(long, default_value_t = 24)]
    pub motion_threshold: u8,
    /// Least area of a thing, as a share of the frame
    #[arg(long, default_value_t = 0.0012)]
    pub motion_min_area: f32,
}

impl Default for MotionParams {
    fn default() -> Self {
        Self { motion_side: 256, motion_threshold: 24, motion_min_area: 0.0012 }
    }
}

/// More than this share of the frame in motion is the camera's doing.
const MOST_MOVING: f32 = 0.6;
/// Bytes of pictures that are kept, so that a clip of up to about a minute is decoded only once.
const MOST_KEPT: usize = 192 << 20;
/// Frames that are followed together, at most; fewer where their pictures would take more than a fourth of [`MOST_KEPT`].
const STRETCH: usize = 512;
/// Seconds that a thing out of sight is waited for.
const PATIENCE: f32 = 1.0;

/// The expert.
#[derive(Clone, Debug)]
pub struct Motion {
    params: MotionParams,
}

impl Motion {
    /// An expert that looks as `params` say.
    pub fn new(params: MotionParams) -> Self {
        Self { params }
    }
}

impl Expert for Motion {
    fn settings(&self) -> String {
        format!("motion {:?}", self.params)
    }

    fn annotate(&mut self, clip: &Clip, found: &mut dyn FnMut(Vec<Object>)) -> Result<Shape> {
        let Survey { shape, scenes, views, block, kept } = self.survey(clip)?;
        let (mut scenes, mut views) = (scenes.into_iter(), views.into_iter());
        let every = clip.every.max(1);
        let stretch = |scene| Stretch::new(scene, self.params, block, shape.fps as f32 / every as f32);
        let mut current = stretch(scenes.next().flatten());
        let mut take = |picture: Picture, cut: bool| {
            if cut {
                current.hand_out(found);
                current = stretch(scenes.next().flatten());
            }
            current.add(picture, views.next().unwrap_or(View::PLAIN));
            if current.is_full() {
                current.hand_out(found);
            }
        };
        if let Some(kept) = kept {
            kept.into_iter()
                .zip((1..).step_by(every as usize))
                .for_each(|(picture, number)| take(picture, shape.cuts.contains(&number)));
        } else {
            let mut footage = clip.open()?;
            while let Some(frame) = footage.next_frame()? {
                let cut = footage.begins_shot();
                take(Picture::of(&frame, block), cut);
            }
        }
        current.hand_out(found);
        Ok(shape)
    }
}

/// How a frame is seen, against the first of its shot.
#[derive(Clone, Copy, Debug)]
struct View {
    /// Pixels that the camera is shifted by.
    shift: [i32; 2],
    /// Factors of the light.
    light: [f32; 3],
}

impl View {
    const PLAIN: Self = Self { shift: [0; 2], light: [1.0; 3] };
}

/// What the first pass learns.
struct Survey {
    shape: Shape,
    /// One for each shot; none where the camera travels.
    scenes: Vec<Option<Scene>>,
    /// One for each frame.
    views: Vec<View>,
    /// Side of the blocks that pixels are averaged over.
    block: usize,
    /// All pictures of a clip that is short.
    kept: Option<Vec<Picture>>,
}

/// One shot as it is surveyed.
#[derive(Default)]
struct Shot {
    camera: Camera,
    light: Light,
    sampler: Sampler,
}

impl Shot {
    fn look(&mut self, picture: &Picture) -> View {
        let shift = self.camera.place(picture, self.light.green());
        let unshifted = picture.unshifted(shift);
        let light = self.light.factors(&unshifted);
        self.sampler.offer(picture.pixels(), || unshifted.into_owned().relit(light));
        View { shift, light }
    }

    fn scene(self, threshold: u8) -> Option<Scene> {
        self.camera.still().then(|| Scene::learn(&self.sampler.pictures(), threshold))
    }
}

impl Motion {
    fn survey(&self, clip: &Clip) -> Result<Survey> {
        let threshold = self.params.motion_threshold;
        let (mut scenes, mut views, mut shot) = (Vec::new(), Vec::new(), Shot::default());
        let (mut kept, mut bytes, mut block) = (Some(Vec::new()), 0, 1);
        let mut footage = clip.open()?;
        while let Some(frame) = footage.next_frame()? {
            if footage.begins_shot() {
                scenes.push(std::mem::take(&mut shot).scene(threshold));
            }
            block = Picture::block(&frame, self.params.motion_side);
            let picture = Picture::of(&frame, block);
            views.push(shot.look(&picture));
            bytes += picture.bytes();
            if let Some(kept) = &mut kept {
                kept.push(picture);
            }
            kept = kept.filter(|_| bytes <= MOST_KEPT);
        }
        scenes.push(shot.scene(threshold));
        Ok(Survey { shape: footage.shape()?, scenes, views, block, kept })
    }
}

/// Frames of a shot that are followed together.
struct Stretch {
    scene: Option<Scene>,
    stills: Vec<Still>,
    shifts: Vec<[i32; 2]>,
    follower: Follower,
    params: MotionParams,
    block: usize,
    rate: f32,
}

impl Stretch {
    fn new(scene: Option<Scene>, params: MotionParams, block: usize, rate: f32) -> Self {
        let follower = Follower::new((PATIENCE * rate).round() as u32);
        Self { scene, stills: Vec::new(), shifts: Vec::new(), follower, params, block, rate }
    }

    fn is_full(&self) -> bool {
        let bytes: usize = self.stills.first().map_or(0, |s| s.picture.bytes());
        self.stills.len() >= STRETCH.min(MOST_KEPT / 4 / bytes.max(1)).max(2)
    }

    fn add(&mut self, picture: Picture, View { shift, light }: View) {
        let picture = picture.unshifted(shift).into_owned().relit(light);
        let least = (self.params.motion_min_area * picture.pixels() as f32).max(4.0) as usize;
        self.follower.least = least;
        let mut parts = self.scene.as_ref().map(|scene| before(scene, &picture, shift)).unwrap_or_default();
        // Fragments count towards a thing that is in pieces.
        parts.retain(|p| p.area() >= least.div_ceil(3));
        self.stills.push(Still { picture, parts });
        self.shifts.push(shift);
    }

    fn hand_out(&mut self, found: &mut dyn FnMut(Vec<Object>)) {
        let Some(first) = self.stills.first() else { return };
        let size = [first.picture.width as f32, first.picture.height as f32];
        let mut seen = self.follower.follow(&self.stills);
        self.stills.clear();
        for (sightings, [dx, dy]) in seen.iter_mut().zip(self.shifts.drain(..)) {
            let shift = [dx, dy, dx, dy].map(|v| v as f32);
            sightings.iter_mut().for_each(|s| (0..4).for_each(|i| s.xyxy[i] += shift[i]));
        }
        report(seen, Scale { block: self.block as f32, size, rate: self.rate }).into_iter().for_each(found);
    }
}

/// The connected parts that stand before the scene, without their shadows.
fn before(scene: &Scene, picture: &Picture, [dx, dy]: [i32; 2]) -> Vec<mask::Part> {
    let mut mask = scene.foreground(picture);
    // The rim that a shifted camera does not see.
    let (width, height) = (picture.width as i32, picture.height as i32);
    for (y, line) in (0..height).zip(mask.chunks_exact_mut(picture.width)).filter(|_| [dx, dy] != [0; 2]) {
        let seen = (0..height).contains(&(y + dy));
        let columns = (0..width).zip(line);
        columns.for_each(|(x, set)| *set &= u8::from(seen && (0..width).contains(&(x + dx))));
    }
    let moving = mask.iter().map(|m| usize::from(*m)).sum::<usize>();
    if moving as f32 > MOST_MOVING * mask.len() as f32 {
        return Vec::new();
    }
    let mut parts = mask::parts(&mask, picture.width);
    parts.iter_mut().for_each(|p| shadow::trim(p, scene, picture));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::write::write_png;
    use utr_models::RgbFrame;

    /// A wall in a light that changes, with a thing at `place(frame)`, as a clip of numbered pictures.
    fn film(folder: &std::path::Path, frames: usize, place: impl Fn(usize) -> [usize; 2]) -> Clip {
        for i in 0..frames {
            let [x, y] = place(i);
            let light = 1.0 + 0.2 * (i as f32 / frames as f32);
            let picture =
                Picture::bricks(160, 120).with([x, y, x + 24, y + 30], [210, 50, 40]).relit([1.0 / light; 3]);
            let data = (0..picture.pixels()).flat_map(|p| picture.at(p)).collect();
            let frame = RgbFrame::new(picture.width, picture.height, data).unwrap();
            write_png(&folder.join(format!("{i:05}.png")), &frame).unwrap();
        }
        Clip { name: "film".into(), path: folder.to_path_buf(), every: 1 }
    }

    #[test]
    fn what_rests_goes_and_rests_again_is_found_in_every_frame() {
        let folder = tempfile::tempdir().unwrap();
        let place = |i: usize| [20 + 4 * i.clamp(24, 44) - 96, 40];
        let clip = film(folder.path(), 60, place);
        let mut found = Vec::new();
        let shape = Motion::new(MotionParams::default()).annotate(&clip, &mut |o| found.push(o)).unwrap();
        assert_eq!((shape.frames, found.len()), (60, 60));
        for (i, objects) in found.iter().enumerate() {
            let [x, y] = place(i).map(|v| v as f32);
            assert_eq!(objects.len(), 1, "frame {i}: {objects:?}");
            let overlap = crate::queries::scene::iou(objects[0].xyxy, [x, y, x + 24.0, y + 30.0]);
            assert!(overlap > 0.85 && objects[0].score > 0.6, "frame {i}: {objects:?}");
            assert_eq!(objects[0].appearance.as_deref(), Some("medium red"));
        }
    }
}
