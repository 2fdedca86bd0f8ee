//! The motion expert: what differs from the resting scene, without any weights.
//!
//! Comes in: a clip of a camera that stands still. Goes out: the things that move or change, in every frame that shows them, with a colour, a size and a word for how they
//! move. A first pass learns the scene of each shot, a second one compares and follows. What never moves nor changes is part of the scene; what rests and moves later, or the
//! other way round, is found throughout. A moving camera makes everything move, and such frames are left empty.

mod camera;
mod colour;
mod follow;
mod light;
mod mask;
mod picture;
mod report;
mod rest;
mod scene;
mod shadow;
mod template;

use anyhow::Result;

use super::Expert;
use super::clip::{Clip, Footage, Shape};
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
/// Frames that are followed together, at most; what moves is known across the seam, what comes to rest behind it is not.
const STRETCH: usize = 512;
/// Bytes of pictures that are kept, so that a clip need not be decoded twice.
const MOST_KEPT: usize = 192 << 20;
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
        let survey = self.survey(clip)?;
        let (mut scenes, mut views) = (survey.scenes.into_iter(), survey.views.into_iter());
        let rate = survey.shape.fps as f32;
        let mut stretch = Stretch::new(scenes.next().flatten(), self.params, survey.block, rate);
        let mut take = |picture: Picture, cut: bool| {
            if cut {
                stretch.hand_out(found);
                stretch = Stretch::new(scenes.next().flatten(), self.params, survey.block, rate);
            }
            stretch.add(picture, views.next().unwrap_or_default());
            if stretch.stills.len() == STRETCH {
                stretch.hand_out(found);
            }
        };
        if let Some(kept) = survey.kept {
            for (picture, number) in kept.into_iter().zip(1..) {
                take(picture, survey.shape.cuts.contains(&number));
            }
        } else {
            let mut footage = clip.open()?;
            while let Some(frame) = footage.next_frame()? {
                let cut = footage.begins_shot();
                take(Picture::of(&frame, survey.block), cut);
            }
        }
        stretch.hand_out(found);
        Ok(survey.shape)
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

impl Default for View {
    fn default() -> Self {
        Self { shift: [0; 2], light: [1.0; 3] }
    }
}

/// What the first pass learns.
struct Survey {
    shape: Shape,
    /// One for each shot; none where the camera moves.
    scenes: Vec<Option<Scene>>,
    /// One for each frame.
    views: Vec<View>,
    /// Side of the blocks that pixels are averaged over.
    block: usize,
    /// All pictures of a clip that is short.
    kept: Option<Vec<Picture>>,
}

impl Motion {
    fn survey(&self, clip: &Clip) -> Result<Survey> {
        let threshold = self.params.motion_threshold;
        let scene = |sampler: Sampler, camera: Camera| {
            camera.still().then(|| Scene::learn(&sampler.pictures(), threshold))
        };
        let (mut scenes, mut views, mut block) = (Vec::new(), Vec::new(), 1);
        let (mut sampler, mut camera, mut light) = (Sampler::default(), Camera::default(), Light::default());
        let (mut kept, mut bytes) = (Some(Vec::new()), 0);
        let mut footage: Footage = clip.open()?;
        while let Some(frame) = footage.next_frame()? {
            if footage.begins_shot() {
                scenes.push(scene(std::mem::take(&mut sampler), std::mem::take(&mut camera)));
                light = Light::default();
            }
            block = Picture::block(&frame, self.params.motion_side);
            let picture = Picture::of(&frame, block);
            let shift = camera.place(&picture);
            let unshifted = picture.unshifted(shift);
            let view = View { shift, light: light.factors(&unshifted) };
            views.push(view);
            sampler.offer(|| unshifted.relit(view.light));
            bytes += 3 * picture.pixels();
            if let Some(kept) = &mut kept {
                kept.push(picture);
            }
            kept = kept.filter(|_| bytes < MOST_KEPT);
        }
        scenes.push(scene(sampler, camera));
        Ok(Survey { shape: footage.shape()?, scenes, views, block, kept })
    }
}

/// Frames of a shot that are followed together.
struct Stretch {
    scene: Option<Scene>,
    stills: Vec<Still>,
    shifts: Vec<[i32; 2]>,
    follower: Follower,
    block: usize,
    least_share: f32,
    rate: f32,
}

impl Stretch {
    fn new(scene: Option<Scene>, params: MotionParams, block: usize, rate: f32) -> Self {
        let follower = Follower::new((PATIENCE * rate).round() as u32);
        let least_share = params.motion_min_area;
        Self { scene, stills: Vec::new(), shifts: Vec::new(), follower, block, least_share, rate }
    }

    fn add(&mut self, picture: Picture, View { shift, light }: View) {
        self.follower.least = (self.least_share * picture.pixels() as f32).max(4.0) as usize;
        let (picture, mut parts) = (picture.unshifted(shift).relit(light), Vec::new());
        if let Some(scene) = &self.scene {
            let mut mask = scene.foreground(&picture);
            blank(&mut mask, &picture, shift);
            let moving = mask.iter().map(|m| usize::from(*m)).sum::<usize>();
            if moving as f32 <= MOST_MOVING * mask.len() as f32 {
                parts = mask::parts(&mask, picture.width);
                parts.iter_mut().for_each(|p| shadow::trim(p, scene, &picture));
                // Fragments count towards a thing that is in pieces.
                let least = self.follower.least.div_ceil(3);
                parts.retain(|p| p.area() >= least);
            }
        }
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

/// Empties the rim that a shifted camera does not see.
fn blank(mask: &mut [u8], picture: &Picture, [dx, dy]: [i32; 2]) {
    let (width, height) = (picture.width as i32, picture.height as i32);
    if [dx, dy] == [0; 2] {
        return;
    }
    for (y, line) in (0..height).zip(mask.chunks_exact_mut(picture.width)) {
        let seen = (0..height).contains(&(y + dy));
        for (x, value) in (0..width).zip(line) {
            *value &= u8::from(seen && (0..width).contains(&(x + dx)));
        }
    }
}
